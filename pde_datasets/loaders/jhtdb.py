r"""HDF5 cutouts of the Johns Hopkins turbulence databases.

`Velocity_0001`, .. (z, y, x, 3) and `Pressure_0001`, .. (z, y, x, 1), a dataset for each stored time, lower case from some clients;
`xcoor`, `ycoor`, `zcoor` coordinates; attributes `x_start`, `x_end`, `x_step`, .. count points from **1**. The older service wrote
`u00010`, `p00010`, `b00010`, .. in the same order of axes, no coordinates, and in `_start` and `_size` the first time and point, counted
from 0, and their numbers (t, x, y, z). A cutout is no period of the
flow: its divergence vanishes in the spectral scheme of the whole box only, and finite differences see one that is not small.

Source:
    Li et al., A public turbulence database cluster, J. Turbulence 9 (2008); the client pyJHTDB of the database for the layouts.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from constraints import Axis, Grid
from pde_datasets.fields import Fields
from pde_datasets.loaders.coordinates import counted, shape_of, stored_axis
from pde_datasets.loaders.hdf5 import holds, opened, plain
from pde_datasets.loaders.parts import Part, assembled

_NAME = re.compile(r"(velocity|pressure|magneticfield|vectorpotential|density|temperature)_(\d{4,})", re.IGNORECASE)
_OLD = re.compile(r"([upbadt])(\d{5,})")
_LETTERS = {
    "u": "velocity", "p": "pressure", "b": "magneticfield", "a": "vectorpotential", "d": "density", "t": "temperature",
}  # fmt: skip
_VECTORS = {"velocity": "uvw", "magneticfield": "xyz", "vectorpotential": "xyz"}


def recognises(path: Path) -> bool:
    """Whether a file is HDF5 with fields named after their variable and time, and coordinates `xcoor`, or `_start` and `_size`."""
    return holds(path, lambda file: ("xcoor" in file or {"_start", "_size"} <= set(file)) and bool(_variables(file)))


def _variables(file: Any) -> dict[str, dict[int, str]]:
    """The arrays of each variable by the number of their time."""
    old = "xcoor" not in file
    found: dict[str, dict[int, str]] = {}
    for name in file:
        match = (_OLD if old else _NAME).fullmatch(str(name))
        if match is not None:
            variable = _LETTERS[match[1]] if old else match[1].lower()
            found.setdefault(variable, {})[int(match[2])] = str(name)
    return found


def load(path: Path) -> Fields:
    """The variables of a cutout on (x, y, z), or (time, x, y, z) where there are several times; left in the file until they are indexed.

    Returns:
        One sample: `u`, `v`, `w`, `pressure`, .. as they are stored.

    Raises:
        ValueError: a truncated file, variables at different times, or arrays that do not fit the coordinates.
    """
    with opened(path) as file:
        found, old = _variables(file), "xcoor" not in file
        frames = sorted(next(iter(found.values()), {}))
        if not frames or any(sorted(names) != frames for names in found.values()):
            raise ValueError(
                f"{path.name}: jhtdb expects all variables at the same times; got { {k: sorted(v) for k, v in found.items()} }."
            )
        whole = shape_of(file, found[next(iter(found))][frames[0]])
        axes = _counted(path, file, whole) if old else [stored_axis(path, file, f"{name}coor", name) for name in "xyz"]
        attributes = {key: plain(value) for key, value in file.attrs.items()}
    about = {key: value for key, value in attributes.items() if isinstance(value, (int, float, str))}
    order = sorted(found, key=lambda name: (name not in _VECTORS, name != "velocity", name))
    parts, channels = [], []
    first = 2 if len(frames) == 1 else 3
    for variable in order:
        names = tuple(found[variable][frame] for frame in frames)
        axes_of = (first + 2, first + 1, first, 1)
        parts.append(Part(names, axes_of, stack=None if len(frames) == 1 else 2))
        channels += _components(variable)
    space = [axis.points for axis in axes]
    shape = (1, len(channels), *space) if len(frames) == 1 else (1, len(channels), len(frames), *space)
    notes = (
        "Stored as (z, y, x, component) and turned here. A cutout: no axis is periodic, and the divergence vanishes in the spectral scheme "
        "of the whole box only, so that none is stated as a law. "
    )
    notes += "Coordinates are not stored: points are counted from 0." if old else "x_start and the like count points from 1."
    grid = Grid(*axes)
    if len(frames) > 1:
        grid = Grid(Axis.at("time", [float(frame) for frame in frames]), *axes)
        notes += " Times are the numbers of the stored fields; their distance in time is not stored."
    return Fields(
        u=assembled(path, parts, shape),
        grid=grid,
        channels=tuple(channels),
        roles={"velocity": ("u", "v", "w")} if "velocity" in found else {},
        attributes={"format": "jhtdb", "path": path.name, "source": "JHTDB; Li et al. 2008", **about, "frames": frames, "notes": notes},
    )


def _counted(path: Path, file: Any, shape: tuple[int, ...]) -> list[Axis]:
    """Axes of the older layout: the numbers of the points in the whole box, from `_start`."""
    start = file["_start"]
    if not isinstance(start, h5py.Dataset) or start.shape != (4,) or start.dtype.kind not in "iu" or len(shape) != 4:
        raise ValueError(f"{path.name}: jhtdb expects four whole numbers _start = (t, x, y, z), and fields (z, y, x, components).")
    firsts = np.asarray(start[()])[1:].tolist()
    return [replace(counted(name, n), origin=float(k)) for name, n, k in zip("xyz", shape[2::-1], firsts, strict=True)]


def _components(variable: str) -> list[str]:
    """Channels of a variable."""
    tails = _VECTORS.get(variable)
    return [variable] if tails is None else [tail if variable == "velocity" else f"{variable}_{tail}" for tail in tails]
