r"""The HDF5 files of PDEArena and LPSDA: one group, named after its split, with an array a variable.

* Smoke in a closed box, `u` (N, t, x, y) at cell centres, `vx`, `vy` on faces: of the n + 1 faces along an axis the last was cut, so that
  entry i is the lower face of cell i. Their marker-and-cell divergence
  $(v^x_{i+1,j} - v^x_{i,j} + v^y_{i,j+1} - v^y_{i,j})/h$ is what the solver's projection makes vanish, with $h = L/n$; the stored `dx` is
  $L/(n-1)$, and `x` the points between which that is the spacing. Read as values at one point, the divergence would be O(1).
* Maxwell's equations, `d_field`, `h_field` (N, t, x, y, z, 3): electric and magnetic field on a Yee grid, cut out of a larger period.
* One-dimensional periodic equations (Kuramoto-Sivashinsky, Korteweg-de Vries, heat), `pde_<nt>-<nx>` (N, t, x), with time step and spacing
  of each sample.

Source:
    Gupta & Brandstetter, Towards multi-spatiotemporal-scale generalized PDE modeling, TMLR 2023; Lippe et al., PDE-Refiner, NeurIPS 2023;
    Brandstetter et al., Lie point symmetry data augmentation, ICML 2022; their generators for layouts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import torch
from torch import Tensor

from constraints import Axis, Grid
from pde_datasets.fields import Fields
from pde_datasets.loaders.coordinates import coordinates, counted, needed, shaped, shared, stepped, stored
from pde_datasets.loaders.hdf5 import holds, opened
from pde_datasets.loaders.parts import Part, assembled

_SPLITS = ("train", "valid", "test")


def recognises(path: Path) -> bool:
    """Whether a file is HDF5 with nothing but a group train, valid or test that has the arrays of one of the three kinds."""
    return holds(path, _kind)


def _kind(file: h5py.File) -> str | None:
    names = list(file)
    group = file.get(names[0]) if len(names) == 1 and names[0] in _SPLITS else None
    if not isinstance(group, h5py.Group):
        return None
    if {"u", "vx", "vy"} <= set(group):
        return "smoke"
    if {"d_field", "h_field"} <= set(group):
        return "maxwell"
    return "line" if any(name.startswith("pde_") for name in group) else None


def load(path: Path) -> Fields:
    """The fields of a file, left in it until they are indexed.

    Returns:
        Smoke: `u`, `vx`, `vy` on (time, x, y), x and y being the lower faces. Maxwell: `E_x` .. `H_z` on (time, x, y, z). One dimension:
        `u` on (time, x).

    Raises:
        ValueError: a truncated file, or arrays that do not fit each other.
    """
    with opened(path) as file:
        kind = _kind(file)
        if kind is None:
            raise ValueError(f"{path.name}: pdearena expects one group named train, valid or test; got {', '.join(list(file)[:8])}.")
        (split,) = file
        return {"smoke": _smoke, "maxwell": _maxwell, "line": _line}[kind](path, split, file[split])


def _numbers(path: Path, group: Any, count: int, *names: str) -> dict[str, Tensor]:
    """Numbers of each sample."""
    return {name: torch.as_tensor(needed(path, group, name, (count,))) for name in names if name in group}


def _times(path: Path, group: Any, count: int, step: Tensor | None) -> tuple[Axis, list[str]]:
    """The times all samples share, from their table or their step."""
    row = shared(path, "t", stored(path, group, "t")) if "t" in group else None
    if row is not None:
        return Axis.at("time", coordinates(path, "t", row, count).tolist()), []
    if step is not None and float(step.min()) > 0 and float(step.max() - step.min()) <= 1e-6 * float(step.max()):
        return stepped("time", count, float(step[0])), ["The first stored time counts as 0."]
    return counted("time", count), ["Times differ between samples or are not stored: the axis counts frames."]


def _fields(path: Path, split: str, u: Any, grid: Grid, channels: tuple[str, ...], notes: list[str], **known: Any) -> Fields:
    about = {"format": "pdearena", "path": path.name, "source": "PDEArena; Gupta & Brandstetter 2023", "split": split}
    return Fields(u=u, grid=grid, channels=channels, attributes={**about, **known.pop("about", {}), "notes": " ".join(notes)}, **known)


def _smoke(path: Path, split: str, group: Any) -> Fields:
    samples, times, *points = shaped(path, "pdearena", group, "u", 4)
    parameters = _numbers(path, group, samples, "buo_y", "dt")
    time, notes = _times(path, group, times, parameters.get("dt"))
    axes = []
    for name, n in zip(("x", "y"), points, strict=True):
        row = shared(path, name, stored(path, group, name))
        if row is None:
            raise ValueError(f"{path.name}: pdearena expects coordinates {name} that all samples share; these differ.")
        spacing = float(coordinates(path, name, row, n)[-1]) / n
        axes.append(Axis(name, n, length=spacing * max(n - 1, 1)))
    notes += [
        "Staggered: vx and vy are values on the lower faces of cells, at the points of x and of y; u is at their centres, half a cell "
        "further along both. The last faces, on the walls, are not stored: there and on the first ones the normal velocity is 0. The "
        "stored dx, L/(n - 1), is not the width of a cell and was replaced by L/n. The staggered divergence vanishes to the tolerance of "
        "the solver's conjugate gradients. The semi-Lagrangian step does not conserve smoke."
    ]
    return _fields(
        path,
        split,
        assembled(path, [Part((f"{split}/{name}",), (0, 2, 3, 4)) for name in ("u", "vx", "vy")], (samples, 3, times, *points)),
        Grid(time, *axes),
        ("u", "vx", "vy"),
        notes,
        parameters=parameters,
        roles={"velocity": ("vx", "vy")},
        laws=("divergence-free:scheme=staggered",),
        about={"equation": "incompressible Navier-Stokes equations with buoyancy buo_y u along y"},
    )


def _maxwell(path: Path, split: str, group: Any) -> Fields:
    samples, times, *points, _ = shaped(path, "pdearena", group, "d_field", 6)
    return _fields(
        path,
        split,
        assembled(path, [Part((f"{split}/{name}",), (0, 2, 3, 4, 5, 1)) for name in ("d_field", "h_field")], (samples, 6, times, *points)),
        Grid(counted("time", times), *(counted(name, n) for name, n in zip(("x", "y", "z"), points, strict=True))),
        tuple(f"{field}_{axis}" for field in "EH" for axis in "xyz"),
        [
            "d_field is the electric field E, whatever its name. Neither times nor coordinates are stored: axes count frames and cells. "
            "Components are staggered as on a Yee grid, and cut out of a period twice as wide, so that the axes are bounded; away from "
            "sources div E = div H = 0 on that grid only, and no law is stated."
        ],
        about={"equation": "Maxwell's equations"},
    )


def _line(path: Path, split: str, group: Any) -> Fields:
    name = next(name for name in group if name.startswith("pde_"))
    samples, times, points = shaped(path, "pdearena", group, name, 3)
    parameters = _numbers(path, group, samples, "dt", "dx", "v")
    time, notes = _times(path, group, times, parameters.get("dt"))
    dx = parameters.get("dx")
    if dx is not None and float(dx.min()) > 0 and float(dx.max() - dx.min()) <= 1e-6 * float(dx.max()):
        x = Axis("x", points, length=float(dx[0]) * points, periodic=True)
    else:
        x = Axis("x", points, length=1.0, periodic=True)
        notes.append("Periods differ between samples or are not stored: x is over the period, n times parameter dx.")
    notes.append("Periodic; the mean is conserved, to the tolerance of the solver. The file does not say which equation it is.")
    if "v" in parameters:
        notes.append("Parameter v is the viscosity of the Kuramoto-Sivashinsky equation.")
    return _fields(
        path,
        split,
        assembled(path, [Part((f"{split}/{name}",), (0, 2, 3))], (samples, 1, times, points)),
        Grid(time, x),
        ("u",),
        notes,
        parameters=parameters,
        laws=("mass",),
    )
