"""HDF5 output of PyClaw, `clawNNNN.hdf`: cell averages `patch1/q` (equations, *cells) with the grid as attributes; or a folder of frames.

Nothing says what the equations are. Where there are two more than dimensions, the first and last positive and the last at least the
energy of motion, |m|² / 2ρ, they are read as the conserved variables of gas dynamics; else they are numbered.

Source:
    github.com/clawpack/pyclaw, fileio/hdf5.py writes this layout.
"""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import torch
from numpy.typing import NDArray

from constraints import Axis, Grid
from pde_datasets.fields import Fields
from pde_datasets.lazy import Lazy
from pde_datasets.loaders.coordinates import filled
from pde_datasets.loaders.hdf5 import holds, opened, plain

_DATA = "patch1/q"


def recognises(path: Path) -> bool:
    """Whether a file is HDF5 with `patch1/q` and the attributes of PyClaw beside it, or a folder holds such files `claw*.hdf`."""
    if path.is_dir():
        return any(recognises(file) for file in sorted(path.glob("claw*.hdf"))[:1])
    return holds(path, _is_frame)


def _is_frame(file: h5py.File) -> bool:
    patch = file.get("patch1")
    return isinstance(patch, h5py.Group) and "q" in patch and {"t", "num_eqn", "dimensions"} <= set(patch.attrs)


class _Frame(NamedTuple):
    """One file, all but its values."""

    path: Path
    time: float
    axes: tuple[Axis, ...]
    shape: tuple[int, ...]
    itemsize: int


def load(path: Path) -> Fields:
    """The state of a file, or of all frames of a folder along a time axis.

    Returns:
        Cell averages (1, C, *space) or (1, C, T, *space), left in the files until they are indexed. Boundaries are not stored, so that no
        axis is periodic.

    Raises:
        ValueError: damaged files, more than one patch, shapes that are not those of the grid, or frames of different grids or times.
    """
    files = sorted(path.glob("claw*.hdf")) if path.is_dir() else [path]
    frames = sorted((_frame(file) for file in files), key=lambda frame: frame.time)
    first = frames[0]
    if any(frame.axes != first.axes or frame.shape != first.shape for frame in frames):
        raise ValueError(f"{path.name}: pyclaw expects frames on one grid; these are on several. Open one of them.")
    times = [frame.time for frame in frames]
    if any(not b > a for a, b in pairwise(times)):
        raise ValueError(f"{path.name}: pyclaw expects one frame for each time; got the times {times[:8]}.")
    moving = path.is_dir()

    def read(box: tuple[slice, ...]) -> NDArray[Any]:
        parts = []
        for frame in frames[box[2]] if moving else frames:
            with opened(frame.path) as file:
                parts.append(file[_DATA][(box[1], *box[3 if moving else 2 :])])
        return np.stack(parts, axis=1)[None] if moving else parts[0][None]

    grid = Grid(*([Axis.at("time", times)] if moving else []), *first.axes)
    dtype = torch.float32 if first.itemsize == 4 else torch.float64
    u = Lazy(read, (1, first.shape[0], *grid.shape), dtype, path.name)
    channels, roles = _named(u[0, :, 0] if moving else u[0], len(first.axes))
    what = "Read as density, momentum and energy: what is stored obeys E >= |m|^2 / 2 rho." if roles else "Equations are numbered."
    return Fields(
        u=u,
        grid=grid,
        channels=channels,
        roles=roles,
        attributes={
            "format": "pyclaw",
            "path": path.name,
            "source": "PyClaw",
            "notes": f"Cell averages. {what} Boundaries are not stored, so that no law is stated; integrals change only through them.",
        }
        | ({} if moving else {"time": times[0]}),
    )


def _frame(path: Path) -> _Frame:
    with opened(path) as file:
        if len(file) != 1 or "patch1" not in file:
            raise ValueError(f"{path.name}: pyclaw expects one patch; got {', '.join(file)}. Refined grids are not read.")
        attributes = {name: plain(value) for name, value in file["patch1"].attrs.items()}
        q = file[_DATA]
        kind, shape = q.dtype, tuple(int(n) for n in q.shape)
        names = [plain(name) for name in np.atleast_1d(file["patch1"].attrs["dimensions"])]
    axes = []
    for name in names:
        try:
            lower, upper, cells = (attributes[f"{name}.{key}"] for key in ("lower", "upper", "num_cells"))
            length = float(upper) - float(lower)
            axes.append(filled(str(name), int(cells), length, float(lower)))
        except (KeyError, TypeError, ZeroDivisionError) as error:
            raise ValueError(
                f"{path.name}: pyclaw expects {name}.lower, .upper and .num_cells of each dimension; got no {error}."
            ) from error
    time = float(attributes["t"])
    if kind.kind != "f" or shape != (attributes["num_eqn"], *(axis.points for axis in axes)) or not math.isfinite(time):
        raise ValueError(
            f"{path.name}: pyclaw expects q of {attributes['num_eqn']} equations on {tuple(axis.points for axis in axes)} cells; got "
            f"{shape} of type {kind}. The file is damaged."
        )
    return _Frame(path, time, tuple(axes), shape, kind.itemsize)


def _named(q: torch.Tensor, dimensions: int) -> tuple[tuple[str, ...], dict[str, tuple[str, ...]]]:
    """Channels and the parts they play."""
    names = ("x", "y", "z")[:dimensions]
    if len(q) == dimensions + 2 and (q[0] > 0).all() and (q[-1] > 0).all():
        motion = q[1:-1].square().sum(0) / (2 * q[0])
        if (q[-1] >= motion).all():
            momentum = tuple(f"momentum_{name}" for name in names)
            return ("density", *momentum, "energy"), {"density": ("density",), "momentum": momentum, "energy": ("energy",)}
    return tuple(f"q{i + 1}" for i in range(len(q))), {}
