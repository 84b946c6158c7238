"""Meshes in our HDF5 files: group `mesh` with `points`, `cells/<kind>`, `boundary/<patch>` and `equations/<name>`.

A sparse matrix is three datasets, `crow`, `col` and `values` (CSR), with its shape as an attribute; one group for all samples, or one a
sample, numbered.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from pde_datasets.mesh import Equation, Mesh


def write_mesh(file: Any, mesh: Mesh) -> None:
    """Write a mesh into an open HDF5 file."""
    group = file.create_group("mesh")
    group.attrs["location"] = mesh.location
    group["points"] = mesh.points.numpy()
    for part, entries in (("cells", mesh.cells), ("boundary", mesh.boundary)):
        for name, indices in entries.items():
            group[f"{part}/{name}"] = indices.numpy()
    for name, equation in mesh.equations.items():
        here = group.create_group(f"equations/{name}")
        here.attrs["unit"] = equation.unit
        matrices = equation.matrix if isinstance(equation.matrix, tuple) else (equation.matrix,)
        values = equation.value if isinstance(equation.value, tuple) else (equation.value,) * len(matrices)
        here.attrs["each"] = isinstance(equation.matrix, tuple)
        for i, (matrix, value) in enumerate(zip(matrices, values, strict=True)):
            one = here.create_group(str(i))
            one.attrs["shape"] = tuple(matrix.shape)
            one["crow"], one["col"], one["values"] = (
                part.numpy() for part in (matrix.crow_indices(), matrix.col_indices(), matrix.values())
            )
            if value is not None:
                one["value"] = value.numpy()


def read_mesh(file: Any) -> Mesh | None:
    """The mesh of an open HDF5 file, None if it has none."""
    if "mesh" not in file:
        return None
    group = file["mesh"]
    return Mesh(
        torch.from_numpy(group["points"][()]),
        str(group.attrs["location"]),
        cells={name: torch.from_numpy(indices[()]) for name, indices in group.get("cells", {}).items()},
        equations={name: _equation(here) for name, here in group.get("equations", {}).items()},
        boundary={name: torch.from_numpy(indices[()]) for name, indices in group.get("boundary", {}).items()},
    )


def _equation(here: Any) -> Equation:
    groups = [here[str(i)] for i in range(len(here))]
    matrices = tuple(_matrix(one) for one in groups)
    values = tuple(torch.from_numpy(one["value"][()]) for one in groups if "value" in one)
    each = bool(here.attrs["each"])
    value: Tensor | tuple[Tensor, ...] | None = (values if each else values[0]) if values else None
    return Equation(matrices if each else matrices[0], value, str(here.attrs["unit"]))


def _matrix(one: Any) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR")  # torch calls its sparse matrices beta, once a process
        crow, col, values = (torch.from_numpy(one[part][()]) for part in ("crow", "col", "values"))
        size = tuple(int(n) for n in one.attrs["shape"])
        return torch.sparse_csr_tensor(crow, col, values, size=size, check_invariants=True)
