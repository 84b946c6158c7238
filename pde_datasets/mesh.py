"""What fields live on where there are no axes: scattered points, the cells and faces of a mesh, and the equations discretised there."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

import torch
from torch import Tensor

from constraints import Axis, Grid

Rows = TypeVar("Rows", Tensor, tuple[Tensor, ...], Tensor | tuple[Tensor, ...])

LOCATIONS = ("point", "cell", "face")


@dataclass(frozen=True)
class Equation:
    """Linear equations that fields on a mesh obey, A u = b.

    Attributes:
        matrix: (m, C P), sparse CSR, on the flattened channels and points of a field; or one for each sample.
        value: the right-hand side, (m,), or one for each sample; zero by default.
        unit: unit of a row.
    """

    matrix: Tensor | tuple[Tensor, ...]
    value: Tensor | tuple[Tensor, ...] | None = None
    unit: str = "1"

    def of(self, sample: int) -> tuple[Tensor, Tensor | float]:
        """Matrix and right-hand side of one sample."""
        matrix = self.matrix[sample] if isinstance(self.matrix, tuple) else self.matrix
        value = self.value[sample] if isinstance(self.value, tuple) else self.value
        return matrix, 0.0 if value is None else value


@dataclass(frozen=True)
class Mesh:
    """Points in space, what connects them, and the equations written on them.

    Attributes:
        points: coordinates, (P, d), or (N, P, d) where each sample has its own; (0, d) where a file does not say.
        location: where values sit, "point", "cell" or "face".
        cells: corners of the cells by their kind, such as "triangle": (n, 3), indices of points.
        equations: linear laws discretised on the mesh, by name.
        boundary: positions of values on the boundary by the name of the patch.

    Raises:
        ValueError: an unknown location, or coordinates of another shape.
    """

    points: Tensor
    location: str = "point"
    cells: Mapping[str, Tensor] = field(default_factory=dict)
    equations: Mapping[str, Equation] = field(default_factory=dict)
    boundary: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.location not in LOCATIONS:
            raise ValueError(f"Mesh expects values at one of {', '.join(LOCATIONS)}; got '{self.location}'.")
        if self.points.ndim not in (2, 3):
            raise ValueError(f"Mesh expects points (P, d) or (N, P, d); got {tuple(self.points.shape)}.")

    def take(self, index: Tensor) -> Mesh:
        """The mesh of some of the samples."""
        points = self.points[index] if self.points.ndim == 3 else self.points
        picked = index.tolist()

        def rows(values: Rows) -> Rows:
            return tuple(values[i] for i in picked) if isinstance(values, tuple) else values

        equations = {
            name: replace(equation, matrix=rows(equation.matrix), value=None if equation.value is None else rows(equation.value))
            for name, equation in self.equations.items()
        }
        return replace(self, points=points, equations=equations)


def on_mesh(count: int, location: str = "point", *, time: Axis | None = None) -> Grid:
    """The grid of fields with `count` values on a mesh, with a time axis before them if there is one."""
    axis = Axis(location, count, length=float(count), cells=True)
    return Grid(axis) if time is None else Grid(time, axis)


def csr(rows: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    """A sparse matrix from its entries; those at one place are added."""
    matrix = torch.sparse_coo_tensor(torch.stack([rows, columns]), values, shape, check_invariants=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR")  # torch calls its sparse matrices beta, once a process
        return matrix.coalesce().to_sparse_csr()
