r"""The files of DiffusionPDE: MATLAB arrays of pairs, formats 5 and 7.3; and, as `.npy`, scaled pairs of Darcy and flows about a cylinder.

* Darcy, `thresh_a_data`, `thresh_p_data` (N, x, y), a in {12, 3}, and `lognorm_a_data`, `lognorm_p_data`: $-\nabla\cdot(a\nabla p) = 1$,
  solved on nodes and interpolated to centres of cells.
* Poisson, `f_data`, `phi_data`: $\nabla^2\phi = f$, **plus** sign; Helmholtz, `f_data`, `psi_data`: $\nabla^2\psi + \psi = f$; both 5-point
  on the closed grid with h = 1/(n - 1), and 0 on its edges.
* Burgers, `input` (N, x), `output` (N, t, x), $\nu = 0.01$, periodic on [0, 1), times up to 1.
* A pair (x, y, 2), scaled to $0.2 a - 1.5$ and $115 p - 0.9$, in one `.npy` a sample, and folders of them, `merge_0.npy`, ..: known by
  their coefficient, which is 0.9 or -0.9 everywhere.
* Bounded Navier-Stokes: a folder with `v.npy`, (N, x, y, t), the speed of flows about one body, or a folder of such folders `1`, `2`, ..,
  each with a body of its own. Nothing else is stored; where the body is, the speed is 0 at all times.

Source:
    Huang et al., DiffusionPDE: generative PDE-solving under partial observation, NeurIPS 2024; data under CC-BY-NC-SA 4.0.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from constraints import Axis, Grid
from pde_datasets.fields import Fields, join
from pde_datasets.lazy import Lazy
from pde_datasets.loaders.coordinates import filled
from pde_datasets.loaders.files import shapes_of
from pde_datasets.loaders.mat import lazy_mat, shapes
from pde_datasets.loaders.npy import is_npy, mapped
from pde_datasets.loaders.parts import FIRST, Part, assembled

_PAIRS: tuple[tuple[tuple[str, ...], tuple[str, ...], str, str], ...] = (
    (("thresh_a_data", "thresh_p_data"), ("coefficient", "pressure"), "-div(coefficient grad pressure) = 1", "cells"),
    (("f_data", "phi_data"), ("source", "potential"), "laplace(potential) = source", "nodes"),
    (("f_data", "psi_data"), ("source", "potential"), "laplace(potential) + potential = source", "nodes"),
)
"""Arrays, channels, equation, and where the points are."""

_LOGNORMAL = (("lognorm_a_data", "lognorm_p_data"), ("lognormal_coefficient", "lognormal_pressure"))

_EDGES = tuple(f"dirichlet:axis={axis},side={side},channels=potential" for axis in "xy" for side in ("lower", "upper"))

_SCALE = (0.2, 115.0)
_SHIFT = (-1.5, -0.9)
_CLASS = 0.9
"""Magnitude of both scaled coefficients, 0.2 * 12 - 1.5 = -(0.2 * 3 - 1.5)."""

_NOTES = {
    "cells": "Centres of cells of the unit square, coordinates not stored, interpolated from a solution on nodes: the 5-point equation "
    "does not hold there, and the first row is not the edge.",
    "nodes": "Closed unit square, coordinates not stored. The 5-point equation holds at all points inside, and the edges are 0.",
}


def recognises(path: Path) -> bool:
    """Whether a MATLAB file has the arrays of a set; a NumPy file, or a folder `merge_*.npy`, scaled pairs of Darcy; a folder, flows."""
    if path.is_dir():
        first = next(iter(_merged(path)), None)
        return _is_flow(path) if first is None else _is_pair(first)
    found = shapes(path)
    return _kind(found) is not None if found else _is_pair(path)


def _kind(found: Mapping[str, tuple[int, ...]]) -> int | None:
    """Which of the sets arrays are: an index of pairs, or -1 for Burgers."""
    for i, (names, *_) in enumerate(_PAIRS):
        shape = [found.get(name, ()) for name in names]
        if len(shape[0]) == 3 and shape[0] == shape[1]:
            return i
    first, after = found.get("input", ()), found.get("output", ())
    return -1 if len(first) == 2 and len(after) == 3 and first == (after[0], after[2]) else None


def _merged(folder: Path) -> list[Path]:
    """The scaled pairs of a folder, in the order of their numbers."""
    numbered = ((re.fullmatch(r"merge_(\d+)\.npy", entry.name), entry) for entry in folder.iterdir())
    return [entry for _, entry in sorted((int(match[1]), entry) for match, entry in numbered if match is not None)]


def _flows(folder: Path) -> dict[int, Path]:
    """The speeds in a folder, or those in its numbered folders, by their numbers."""
    if (folder / "v.npy").is_file():
        return {0: folder / "v.npy"}
    return {int(e.name): e / "v.npy" for e in sorted(folder.iterdir()) if e.name.isdecimal() and (e / "v.npy").is_file()}


def _is_flow(folder: Path) -> bool:
    """Whether a folder holds speeds (N, x, y, t); a second component beside them is of other flows."""
    first = next(iter(_flows(folder).values()), None)
    if first is None or first.with_name("u.npy").exists() or not is_npy(first):
        return False
    try:
        array = mapped(first)
    except ValueError:
        return False
    return array.ndim == 4 and array.size > 0 and array.dtype.kind == "f"


def _is_pair(path: Path) -> bool:
    """Whether a file is an array (x, y, 2) whose first values are the scaled 12 or 3; the first row is asked first."""
    try:
        array = mapped(path) if is_npy(path) else np.empty(0)
    except ValueError:
        return False
    if array.ndim != 3 or array.shape[2] != 2 or array.size == 0 or array.dtype.kind != "f":
        return False
    return all(bool(np.all(np.abs(np.abs(values) - _CLASS) < 1e-6)) for values in (array[0, :, 0], array[..., 0]))


def load(path: Path) -> Fields:
    """The fields of a file or folder; what can be left there is, until it is indexed.

    Returns:
        The pairs named in this module on (x, y), in physical values, Burgers' `u` on (time, x), or `speed` on (time, x, y).

    Raises:
        ValueError: a truncated file, or arrays of other shapes.
    """
    found = shapes(path) if path.is_file() else {}
    if not found:
        return _bounded(path) if path.is_dir() and not _merged(path) else _scaled(path)
    values, kind = lazy_mat(path), _kind(found)
    names = ("input", "output") if kind == -1 else () if kind is None else _PAIRS[kind][0]
    if kind is None or not set(names) <= set(values):
        raise ValueError(f"{path.name}: diffusionpde expects a pair of arrays of numbers of one of its sets; got {shapes_of(values)}.")
    if kind == -1:
        return _burgers(path, values)
    arrays, channels, equation, where = _PAIRS[kind]
    if where == "cells" and {found.get(name, ()) for name in _LOGNORMAL[0]} == {found[arrays[0]]}:
        arrays, channels = arrays + _LOGNORMAL[0], channels + _LOGNORMAL[1]
    samples, *points = values[arrays[0]].shape
    axes = [filled(n, p) if where == "cells" else Axis(n, p, length=1.0) for n, p in zip(("x", "y"), points, strict=True)]
    u = assembled(path, [Part((name,), (0, 2, 3)) for name in arrays], (samples, len(arrays), *points), arrays=values)
    return _fields(path, u, Grid(*axes), channels, equation, _NOTES[where], _EDGES if where == "nodes" else ())


def _fields(
    path: Path, u: Lazy, grid: Grid, channels: tuple[str, ...], equation: str, notes: str, laws: tuple[str, ...] = (), **parameters: Any
) -> Fields:
    about = {"format": "diffusionpde", "path": path.name, "source": "DiffusionPDE; Huang et al. 2024 (CC-BY-NC-SA 4.0)"}
    attributes = {**about, "equation": equation, "notes": notes}
    return Fields(u=u, grid=grid, channels=channels, laws=laws, attributes=attributes, parameters=parameters)


def _burgers(path: Path, values: dict[str, Lazy]) -> Fields:
    samples, times, points = values["output"].shape
    if 0 in (samples, times, points):
        raise ValueError(f"{path.name}: diffusionpde expects at least one sample; got output of shape {tuple(values['output'].shape)}.")
    begins = torch.equal(values["input"][0], values["output"][0, 0])
    parts = [Part(("output",), (0, 2, 3))] if begins else [Part(("input",), (0, 3)), Part(("output",), (0, 2, 3))]
    count = times if begins else times + 1
    u = assembled(path, parts, (samples, 1, count, points), along=FIRST, arrays=values)
    grid = Grid(Axis("time", count, length=1.0), Axis("x", points, length=1.0, periodic=True))
    notes = "Periodic on [0, 1), times from 0 to 1, neither stored. " + (
        "The first time is the initial state." if begins else "The initial state, stored apart, is the first time."
    )
    viscosity = torch.full((samples,), 0.01, dtype=torch.float64)
    return _fields(path, u, grid, ("u",), "u_t + u u_x = viscosity u_xx", notes, viscosity=viscosity)


def _scaled(path: Path) -> Fields:
    files = {entry.name: entry for entry in (_merged(path) if path.is_dir() else [path])}
    first = mapped(next(iter(files.values()))) if files else None
    if first is None or first.ndim != 3 or first.shape[2] != 2:
        raise ValueError(f"{path.name}: diffusionpde expects arrays (x, y, 2), merge_0.npy, ..; there are none.")

    def read(box: tuple[slice, ...]) -> NDArray[Any]:
        samples = []
        for entry in list(files.values())[box[0]]:
            array = mapped(entry)
            if array.shape != first.shape:
                raise ValueError(f"{path.name}: diffusionpde expects an array {first.shape} in {entry.name}; got {array.shape}.")
            pair = np.moveaxis(np.asarray(array, dtype=np.float64), -1, 0)[box[1:]]
            scale, shift = (np.asarray(numbers)[box[1]][:, None, None] for numbers in (_SCALE, _SHIFT))
            samples.append((pair - shift) / scale)
        return np.stack(samples)

    nx, ny, _ = first.shape
    u = Lazy(read, (len(files), 2, nx, ny), torch.float64, path.name)
    notes = "Scaled pairs, turned back to physical values. " + _NOTES["cells"]
    return _fields(path, u, Grid(filled("x", nx), filled("y", ny)), ("coefficient", "pressure"), _PAIRS[0][2], notes)


def _bounded(path: Path) -> Fields:
    """Speeds about bodies, those of all bodies one after the other."""
    flows = {number: _speed(path, file) for number, file in sorted(_flows(path).items())}
    if not flows:
        raise ValueError(f"{path.name}: diffusionpde expects v.npy, or folders 1, 2, .. with one each; there are none.")
    first = next(iter(flows.values()))
    if any(u.shape[1:] != first.shape[1:] or u.dtype != first.dtype for u in flows.values()):
        kinds = {f"{tuple(u.shape[1:])} {str(u.dtype).removeprefix('torch.')}" for u in flows.values()}
        raise ValueError(f"{path.name}: diffusionpde expects flows of one shape and type; got {', '.join(sorted(kinds))}.")
    times, nx, ny = first.shape[2:]
    grid = Grid(Axis("time", times, length=max(times - 1.0, 1.0)), filled("x", nx), filled("y", ny))
    body = int((first[0, 0] == 0).all(0).sum())
    notes = (
        "Speeds of the flow about a body in a box; coordinates, times and viscosity are not stored: cells of the unit square, times are "
    )
    notes += f"numbers of frames. {body} points of the first flow are at rest at all times, which is where its body is."
    several = len(flows) > 1 or 0 not in flows
    parts = [
        _fields(path, u, grid, ("speed",), "u_t + u.grad u = -grad p + nu lap u, div u = 0", notes, **_body(number, len(u), several))
        for number, u in flows.items()
    ]
    return join(parts)


def _body(number: int, count: int, several: bool) -> dict[str, Any]:
    """Which body the flows are about, where there is more than one."""
    return {"body": torch.full((count,), number)} if several else {}


def _speed(path: Path, file: Path) -> Lazy:
    """The array of a file, (N, 1, time, x, y)."""
    array = mapped(file)
    if array.ndim != 4 or not array.size or array.dtype.kind != "f":
        raise ValueError(
            f"{path.name}: diffusionpde expects numbers (N, x, y, t) in {file.relative_to(path)}, at least one of each; "
            f"got {array.dtype} of shape {array.shape}."
        )

    def read(box: tuple[slice, ...]) -> NDArray[Any]:
        samples, channels, times, x, y = box
        values = np.array(array[samples, x, y, times])
        return np.moveaxis(values, -1, 1)[:, None][:, channels]

    samples, nx, ny, times = array.shape
    dtype = torch.float32 if array.dtype.itemsize <= 4 else torch.float64
    return Lazy(read, (samples, 1, times, nx, ny), dtype, path.name)
