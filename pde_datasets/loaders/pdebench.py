r"""The files of PDEBench: one array for all samples (`.hdf5`), a group for each (`.h5`), or a batch of incompressible flow (`.h5`).

* One array: `tensor` (N, t, x) of advection $u_t + \beta u_x = 0$, Burgers $u_t + (u^2/2)_x = (\nu/\pi) u_{xx}$ or reaction-diffusion
  $u_t = \nu u_{xx} + \rho u(1-u)$; `tensor` (N, 1, x, y) with `nu` (N, x, y) of Darcy flow $-\nabla\cdot(\nu\nabla u) = \beta$; `density`,
  `pressure`, `Vx`, .. (N, t, x, ..) of compressible flow.
* A group `0000`, `0001`, .. for each sample, with `data` and `grid`: diffusion-sorption (t, x, 1), diffusion-reaction (t, **y, x**, 2),
  radial dam break (t, x, y, 1).
* Incompressible flow: `velocity` (N, t, x, y, 2), `particles` (N, t, x, y, 1), `force` (N, x, y, 2), `t` (N, t).

All points are centres of cells.

Source:
    Takamoto et al., PDEBench: an extensive benchmark for scientific machine learning, NeurIPS 2022; the generators of the repository for
    layouts, schemes and boundaries.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from constraints import Axis, Grid
from pde_datasets.fields import Fields
from pde_datasets.loaders.coordinates import cells, coordinates, filled, needed, shaped, shared_times, stored, stored_axis
from pde_datasets.loaders.hdf5 import holds, opened, plain
from pde_datasets.loaders.parts import Part, assembled

_FLOW = ("density", "pressure", "Vx", "Vy", "Vz")
"""Channels of compressible flow, in the order of the reference loader."""

_GAMMA = 5.0 / 3.0

_SPACE = ("x", "y", "z")


def recognises(path: Path) -> bool:
    """Whether a file is HDF5 with the arrays of one of the three layouts."""
    return holds(path, _layout)


def _layout(file: h5py.File) -> str | None:
    """Which of the layouts a file has."""
    if isinstance(file.get("x-coordinate"), h5py.Dataset):
        if isinstance(file.get("tensor"), h5py.Dataset):
            return "darcy" if "nu" in file else "tensor"
        return "flow" if set(_FLOW[:3]) <= set(file) else None
    if {"velocity", "particles", "force", "t"} <= set(file.keys()):
        return "incompressible"
    first = next(iter(file), "")
    group = file.get(first) if first.isdigit() else None
    grouped = isinstance(group, h5py.Group) and "data" in group and isinstance(group.get("grid"), h5py.Group)
    return "groups" if grouped else None


def load(path: Path) -> Fields:
    """The fields of a file, left in it until they are indexed.

    Returns:
        Fields on (time, x, ..), or (x, y) for Darcy, with the numbers of the equation as parameters.

    Raises:
        ValueError: a truncated file, arrays that do not fit each other, or no samples.
    """
    with opened(path) as file:
        layout = _layout(file)
        if layout is None:
            raise ValueError(f"{path.name}: pdebench expects one of its layouts; got {', '.join(list(file)[:8]) or 'nothing'}.")
        return {"tensor": _tensor, "darcy": _darcy, "flow": _flow, "groups": _groups, "incompressible": _incompressible}[layout](path, file)


def _fields(path: Path, u: Any, grid: Grid, channels: tuple[str, ...], notes: list[str], **known: Any) -> Fields:
    """Fields with the attributes all of them have."""
    attributes = {"format": "pdebench", "path": path.name, "source": "PDEBench; Takamoto et al. 2022", **known.pop("attributes", {})}
    return Fields(u=u, grid=grid, channels=channels, attributes={**attributes, "notes": " ".join(notes)}, **known)


def _times(path: Path, file: h5py.File, count: int) -> tuple[Axis, list[str]]:
    """The time axis; the files store the end of the last step too, one time more than states."""
    t = coordinates(path, "t-coordinate", stored(path, file, "t-coordinate"))
    if len(t) not in (count, count + 1):
        raise ValueError(f"{path.name}: pdebench expects {count} or {count + 1} times for {count} states; got {len(t)}.")
    notes = ["The last stored time belongs to no state and was dropped."] if len(t) > count else []
    return Axis.at("time", t[:count].tolist()), notes


def _numbers(file: h5py.File, count: int, **names: str) -> dict[str, Tensor]:
    """Attributes that are numbers, as parameters of all samples: what we call them, and what the file does."""
    found = {name: plain(file.attrs[key]) for name, key in names.items() if key in file.attrs}
    numbers = {name: float(value) for name, value in found.items() if isinstance(value, (int, float))}
    return {name: torch.full((count,), value, dtype=torch.float64) for name, value in numbers.items()}


def _tensor(path: Path, file: h5py.File) -> Fields:
    samples, times, points = shape = shaped(path, "pdebench", file, "tensor", 3)
    time, notes = _times(path, file, times)
    x = stored_axis(path, file, "x-coordinate", "x", points, periodic=True)
    keys = set(file.attrs)
    laws: tuple[str, ...] = ()
    if "rho" in keys:
        equation = "u_t = viscosity u_xx + rate u (1 - u)"
        notes.append("Periodic. The reaction makes mass: d/dt int u = rate int u (1 - u).")
    elif "Nu" in keys:
        equation, laws = "u_t + (u^2/2)_x = (viscosity/pi) u_xx", ("mass",)
        notes.append("Periodic. The diffusivity is viscosity/pi, as the generator has it. The sum over cells is conserved, to float32.")
    elif "beta" in keys:
        equation, laws = "u_t + speed u_x = 0", ("mass",)
        notes.append("Periodic. The sum over cells is conserved, to float32.")
    else:
        equation = ""
        notes.append("The file does not name its equation; x is taken as periodic, as in all one-dimensional sets with one array.")
    names = {"viscosity": "Nu", "rate": "rho", "speed": "beta"}
    return _fields(
        path,
        assembled(path, [Part(("tensor",), (0, 2, 3))], (samples, 1, *shape[1:])),
        Grid(time, x),
        ("u",),
        notes,
        parameters=_numbers(file, samples, **names),
        laws=laws,
        attributes={"equation": equation} if equation else {},
    )


def _darcy(path: Path, file: h5py.File) -> Fields:
    samples, _, *points = shaped(path, "pdebench", file, "tensor", 4)
    axes = [
        cells(name, coordinates(path, f"{name}-coordinate", stored(path, file, f"{name}-coordinate"), n))
        for name, n in zip(_SPACE, points, strict=False)
    ]
    parts = [Part(("nu",), (0, 2, 3)), Part(("tensor",), (0, 1, 2, 3))]
    return _fields(
        path,
        assembled(path, parts, (samples, 2, *points)),
        Grid(*axes),
        ("coefficient", "pressure"),
        [
            "The last but one state of a march to the steady one: -div(coefficient grad pressure) = force holds nearly, with arithmetic "
            "means of the coefficient on faces. Pressure is 0 at the centres of ghost cells, half a cell outside: no law on the edge is "
            "stated."
        ],
        parameters=_numbers(file, samples, force="beta"),
        attributes={"equation": "-div(coefficient grad pressure) = force"},
    )


def _flow(path: Path, file: h5py.File) -> Fields:
    channels = tuple(name for name in _FLOW if name in file)
    dimensions = len(channels) - 2
    samples, times, *points = shape = shaped(path, "pdebench", file, "density", 2 + dimensions)
    time, notes = _times(path, file, times)
    periodic = "periodic" in path.name
    axes = []
    for name, n in zip(_SPACE, points, strict=False):
        x = coordinates(path, f"{name}-coordinate", stored(path, file, f"{name}-coordinate"), n)
        axes.append(Axis.at(name, x.tolist(), periodic=True) if periodic else cells(name, x))
    if periodic:
        notes.append("Periodic, as the file's name says. Mass is conserved to float32; energy drifts where pressure meets its floor.")
    elif "trans" in path.name:
        notes.append("Boundaries let waves out, as the file's name says: nothing is conserved once they arrive there.")
    else:
        notes.append("Neither file nor name says what happens at the boundaries; they are taken as walls of no known kind.")
    notes.append("gamma is not stored: 5/3 is that of the generator, E = p/(gamma - 1) + density |V|^2/2.")
    numbers = _numbers(file, samples, shear_viscosity="eta", bulk_viscosity="zeta", mach="M")
    return _fields(
        path,
        assembled(path, [Part((name,), (0, *range(2, 3 + dimensions))) for name in channels], (samples, len(channels), *shape[1:])),
        Grid(time, *axes),
        channels,
        notes,
        parameters={**numbers, "gamma": torch.full((samples,), _GAMMA, dtype=torch.float64)},
        roles={"density": ("density",), "velocity": channels[2:]},
        laws=("mass",) if periodic else (),
        attributes={"equation": "compressible Navier-Stokes equations"},
    )


_GROUPED: dict[tuple[int, int], tuple[tuple[int, ...], tuple[str, ...], str, str]] = {
    (1, 1): (
        (2, 3, 1),
        ("u",),
        "u_t = D/R(u) u_xx",
        "Diffusion with sorption, D = 5e-4: u = 1 in the ghost cell on the left, D (u_{N-2} - u_{N-1})/dx in that on the right, an outflow "
        "and not a vanishing derivative. What is conserved includes what is sorbed.",
    ),
    (2, 2): (
        (2, 4, 3, 1),
        ("activator", "inhibitor"),
        "u_t = u - u^3 - k - v + 1e-3 laplace(u), v_t = u - v + 5e-3 laplace(v)",
        "FitzHugh-Nagumo, k = 5e-3, no flux through the edges. Stored as (t, y, x, channel) and turned here. Reactions make both channels.",
    ),
    (2, 1): (
        (2, 3, 4, 1),
        ("h",),
        "shallow-water equations, g = 1",
        "Radial dam break, heights 2 and 1; velocities are not stored. Volume is conserved only until the wave leaves through the edges.",
    ),
}
"""Groups by dimensions and channels: axes of the data, channels, equation, notes."""


def _groups(path: Path, file: h5py.File) -> Fields:
    names = sorted(name for name in file if name.isdigit())
    first = file[names[0]]
    dimensions = sum(name in first["grid"] for name in _SPACE)
    shape = shaped(path, "pdebench", first, "data", dimensions + 2)
    known = _GROUPED.get((dimensions, shape[-1]))
    if known is None:
        raise ValueError(f"{path.name}: pdebench expects data (t, x, 1), (t, y, x, 2) or (t, x, y, 1) in each group; got {shape}.")
    axes, channels, equation, note = known
    lengths = dict(zip(axes, shape, strict=True))
    space = [
        cells(name, coordinates(path, f"grid/{name}", stored(path, first, f"grid/{name}"), lengths[3 + d]))
        for d, name in enumerate(_SPACE[:dimensions])
    ]
    time = stored_axis(path, first, "grid/t", "time", lengths[2])
    parameters = {"seed": torch.tensor([int(name) for name in names])}
    if channels == ("h",):
        radii = [_setting(file[name], "dam_radius") for name in names]
        if None not in radii:
            parameters["radius"] = torch.tensor(radii, dtype=torch.float64)
    config = plain(first.attrs.get("config", ""))
    return _fields(
        path,
        assembled(
            path,
            [Part(tuple(f"{name}/data" for name in names), axes, stack=0)],
            (len(names), len(channels), *(lengths[2 + d] for d in range(1 + dimensions))),
        ),
        Grid(time, *space),
        channels,
        [note],
        parameters=parameters,
        roles={"density": ("h",)} if channels == ("h",) else {},
        attributes={"equation": equation} | ({"config": config} if isinstance(config, str) and config else {}),
    )


def _setting(group: Any, name: str) -> float | None:
    """A number in the settings of a sample, YAML text."""
    found = re.search(rf"^\s*{name}:\s*([-+.\deE]+)\s*$", str(plain(group.attrs.get("config", ""))), re.MULTILINE)
    try:
        return float(found[1]) if found else None
    except ValueError:
        return None


def _incompressible(path: Path, file: h5py.File) -> Fields:
    samples, times, nx, ny, _ = shaped(path, "pdebench", file, "velocity", 5)
    force = needed(path, file, "force", (samples, nx, ny, 2))
    time, differing, told = shared_times(path, stored(path, file, "t"))
    if time.points != times:
        raise ValueError(f"{path.name}: pdebench expects {times} times for {times} states; got {time.points}.")
    notes = [
        "Unit square with walls, coordinates not stored. Velocity was resampled from faces to centres, so that no discrete divergence of "
        "it vanishes: none is stated as a law. Particles are carried by a semi-Lagrangian step and not conserved."
    ]
    return _fields(
        path,
        assembled(path, [Part(("velocity",), (0, 2, 3, 4, 1)), Part(("particles",), (0, 2, 3, 4, 1))], (samples, 3, times, nx, ny)),
        Grid(time, filled("x", nx), filled("y", ny)),
        ("Vx", "Vy", "particles"),
        notes + told,
        parameters={"force": torch.from_numpy(np.moveaxis(force, -1, 1).copy()), **differing},
        roles={"velocity": ("Vx", "Vy")},
        attributes={"equation": "incompressible Navier-Stokes equations, viscosity 0.01, with buoyancy"},
    )
