"""HDF5 output of pyro2: cell averages on a Cartesian grid at one time, `state/<field>/data` (nx, ny) with `grid` attributes.

The grid is cell-centred: the first point is half a cell inside the domain. An axis is periodic where all fields are, bounded cells
elsewhere, so that `grid.weights()` sums cell averages to the integrals the finite-volume schemes conserve.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray

from constraints import Axis, Grid
from constraints.poisson import ENDS
from pde_datasets.fields import Fields
from pde_datasets.loaders.coordinates import filled
from pde_datasets.loaders.hdf5 import holds, opened, plain
from pde_datasets.loaders.pyro2_initial import initial_laws

_ORDER = ("density", "height", "x-velocity", "y-velocity", "x-momentum", "y-momentum", "energy")
"""Channels that play a part in laws come first, components of a vector side by side; the others follow by name."""

_ROLES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("velocity", ("x-velocity", "y-velocity")),
    ("momentum", ("x-momentum", "y-momentum")),
    ("density", ("density",)),
    ("density", ("height",)),
    ("energy", ("energy",)),
)

_NOTES = {
    "incompressible": "Approximate projection: the central divergence is small (0.8 % of the rms velocity gradient in the reference shear "
    "layer at 128 x 128), not zero, so divergence-free is not stated as a law.",
    "compressible": "Mass, momentum and energy change only through boundaries that let them through and by gravity.",
    "swe": "Volume and momentum change only through boundaries that let them through; the height plays the part of the density.",
    "diffusion": "The integral of phi changes only through the boundaries.",
    "advection": "The integral of density changes only through the boundaries.",
}


def recognises(path: Path) -> bool:
    """Whether a file is HDF5 with a group `state` and a group `grid` with `nx`, `ny`."""
    return holds(path, _is_output)


def _is_output(file: h5py.File) -> bool:
    grid = file.get("grid")
    return isinstance(file.get("state"), h5py.Group) and isinstance(grid, h5py.Group) and {"nx", "ny"} <= set(grid.attrs)


def load(path: Path) -> Fields:
    """The state of a file, as one sample.

    Returns:
        All state fields (1, C, nx, ny) on (x, y), ghost cells removed, with the numbers of `aux` (gamma, gravity, ...) as parameters
        and the time, solver, boundaries and physical settings of the run as attributes.

    Raises:
        ValueError: a truncated file, no state, a field of another shape than the grid, a grid that is not Cartesian, or an axis
            periodic for some fields or at one end only.
    """
    with opened(path) as file:
        settings = {name: plain(value) for name, value in file["grid"].attrs.items()}
        state = file["state"]
        channels = tuple(sorted(state, key=lambda name: (_ORDER.index(name) if name in _ORDER else len(_ORDER), name)))
        if not channels:
            raise ValueError(f"{path.name}: pyro2 expects fields in the group state; got none.")
        values = [_field(path, name, state[name], settings) for name in channels]
        boundaries = {
            name: tuple(str(plain(state[name].attrs.get(side, ""))) for side in ("xlb", "xrb", "ylb", "yrb")) for name in channels
        }
        root = {name: plain(value) for name, value in file.attrs.items()}
        aux = {name: plain(value) for name, value in file["aux"].attrs.items()} if "aux" in file else {}
        runtime = {name: plain(value) for name, value in file["runtime parameters"].attrs.items()} if "runtime parameters" in file else {}
    grid = Grid(*(_axis(path, axis, settings, boundaries) for axis in ("x", "y")))
    numbers = {name: value for name, value in aux.items() if isinstance(value, (int, float))}
    roles = {role: names for role, names in _ROLES if set(names) <= set(channels)}
    if str(root.get("solver", "")).startswith("diffusion"):
        roles["density"] = channels[:1]
    problem, time = str(root.get("problem", "")), float(root.get("time", 0.0))
    laws = initial_laws(problem, runtime, time, grid, dict(zip(channels, values, strict=True)))
    if set(channels) == {"f", "r", "v"} and len(set(boundaries.values())) == 1:
        ends = set(boundaries["v"])
        laws += tuple(f"poisson:unknown=v,source=f,ends={kind}" for kind in ENDS if ends <= {kind, "periodic"})
    u = np.stack(values)[None]
    return Fields(
        u=torch.from_numpy(np.ascontiguousarray(u)),
        grid=grid,
        channels=channels,
        parameters={name: torch.tensor([value], dtype=torch.float64) for name, value in numbers.items()},
        roles=roles,
        laws=laws,
        attributes={"format": "pyro2", "path": path.name}
        | {f"points_{axis.name}": "centres of cells" for axis in grid.axes if axis.periodic}
        | _about(root, runtime, channels, boundaries),
    )


def _field(path: Path, name: str, group: Any, settings: dict[str, Any]) -> NDArray[Any]:
    """One field (nx, ny), without the ghost cells if they are stored."""
    data = group.get("data") if isinstance(group, h5py.Group) else None
    if not isinstance(data, h5py.Dataset) or data.dtype.kind not in "biuf":
        raise ValueError(f"{path.name}: pyro2 expects numbers in state/{name}/data; there are none. The file is incomplete.")
    values = np.asarray(data[()])
    if values.dtype.kind != "f":
        values = values.astype(np.float64)
    nx, ny, ghosts = int(settings["nx"]), int(settings["ny"]), int(settings.get("ng", 0))
    if ghosts and values.shape == (nx + 2 * ghosts, ny + 2 * ghosts):
        values = values[ghosts:-ghosts, ghosts:-ghosts]
    if values.shape != (nx, ny):
        raise ValueError(f"{path.name}: pyro2 expects state/{name}/data of shape (nx, ny) = ({nx}, {ny}); got {values.shape}.")
    return values.astype(values.dtype.newbyteorder("="))


def _axis(path: Path, name: str, settings: dict[str, Any], boundaries: dict[str, tuple[str, ...]]) -> Axis:
    """The cell-centred axis `x` or `y`."""
    if settings.get("coord_type", 0) != 0:
        raise ValueError(f"{path.name}: pyro2 expects a Cartesian grid, coord_type 0; got coord_type {settings['coord_type']}.")
    missing = [key for key in (f"{name}min", f"{name}max") if key not in settings]
    if missing:
        raise ValueError(f"{path.name}: pyro2 expects {', '.join(missing)} among the attributes of grid; got {', '.join(settings)}.")
    low, high, points = float(settings[f"{name}min"]), float(settings[f"{name}max"]), int(settings[f"n{name}"])
    sides = {side == "periodic" for sides in boundaries.values() for side in (sides[:2] if name == "x" else sides[2:])}
    if len(sides) > 1:
        raise ValueError(f"{path.name}: pyro2 expects {name} periodic at both ends and for all fields, or for none; got {boundaries}.")
    periodic = sides == {True}
    axis = filled(name, points, high - low, low)
    return replace(axis, periodic=True, cells=False) if periodic else axis


def _about(
    root: dict[str, Any], runtime: dict[str, Any], channels: tuple[str, ...], boundaries: dict[str, tuple[str, ...]]
) -> dict[str, Any]:
    """Attributes: what was run, with which physical settings, and what is known not to hold."""
    solver, problem = str(root.get("solver", "")), str(root.get("problem", ""))
    notes = ["Cell averages."] + [text for name, text in _NOTES.items() if solver.startswith(name)]
    if set(channels) == {"f", "r", "v"}:
        notes.append("Multigrid solution: the 5-point Laplacian of v equals f up to the residual r; there is no time.")
    about: dict[str, Any] = {"source": "pyro2", "notes": " ".join(notes)}
    about |= {name: root[name] for name in ("solver", "problem", "time", "nsteps") if name in root}
    kinds = sorted(set(boundaries.values()), key=list(boundaries.values()).index)
    about["boundaries"] = "; ".join(
        f"{', '.join(name for name in channels if boundaries[name] == kind)}: x {kind[0]} to {kind[1]}, y {kind[2]} to {kind[3]}"
        for kind in kinds
    )
    own = tuple(f"{name}." for name in (solver.removesuffix("_fv4"), problem, "eos") if name)
    about |= {name: value for name, value in runtime.items() if name.startswith(own) and isinstance(value, (int, float, str))}
    return about
