r"""The HDF5 files of the PCFM paper: a table of initial against boundary conditions (or forcings), every entry a trajectory.

* Reaction-diffusion, $u_t = \rho u(1-u) + \nu u_{xx}$ on [0, 1]: `u` (IC, BC, **x, t**), `ic` (IC, x), `bc` (BC, 2) the fluxes $(g_L, g_R)$
  through the first and the last face. The fluxes are exact in every step: over a time $\tau$ they add $\tau (g_L - g_R)$ to the sum
  $\Delta x \sum u$, and the rest of its change is the reaction.
* Inviscid Burgers, Godunov's scheme, $\Delta x = \Delta t$: `u` (IC, BC, x, t), `ic` (IC,) the place of the front, `bc` (BC,) the value on
  the left. At time 0 the left end has the initial state, the value enters from the first step on; the right end copies its neighbour. Cells
  1 .. N - 1 obey $u^{n+1}_i - u^n_i = -(\Delta t/\Delta x)(F_{i+1/2} - F_{i-1/2})$ with Godunov's flux. **One of the files has the first
  two axes swapped**, (BC, IC, x, t): the initial states, which differ along one of them only, tell.
* Navier-Stokes in vorticity on the unit torus: `u` (IC, F, x, y, t), `a` (IC, x, y) initial vorticity, `f` (F, x, y) forcing,
  $0.1 \sqrt 2 \sin(2\pi(x + y) + \phi)$; mean vorticity 0.

A sample of the fields is an entry of the table, row by row.

Source:
    Utkarsh et al., Physics-constrained flow matching, NeurIPS 2025; the generators of the repository for layouts and schemes.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from constraints import Axis, Grid
from pde_datasets.fields import Fields
from pde_datasets.loaders.coordinates import cells, coordinates, counted, needed, shape_of, stored, stored_axis
from pde_datasets.loaders.hdf5 import holds, opened, plain
from pde_datasets.loaders.parts import Part, assembled


def recognises(path: Path) -> bool:
    """Whether a file is HDF5 with a table of trajectories `u`, and `ic`, `bc`, `x`, `t`, or `a` and `f`."""
    return holds(path, _kind)


def _kind(file: h5py.File) -> str | None:
    axes = tuple(len(shape_of(file, name)) for name in ("u", "ic", "bc", "x", "t", "a", "f"))
    kinds: dict[tuple[int, ...], str] = {(4, 2, 2, 1, 1, 0, 0): "reaction-diffusion", (4, 1, 1, 1, 1, 0, 0): "burgers"}
    return "vorticity" if axes[0] == 5 and axes[5:] == (3, 3) else kinds.get(axes)


def load(path: Path) -> Fields:
    """The trajectories of a file as samples, left in it until they are indexed.

    Returns:
        `u` on (time, x), or `vorticity` on (time, x, y), with the initial and boundary conditions as parameters.

    Raises:
        ValueError: a truncated file, or arrays that do not fit each other.
    """
    with opened(path) as file:
        kind = _kind(file)
        if kind is None:
            raise ValueError(f"{path.name}: pcfm-paper expects u with ic, bc, x, t, or with a, f; got {', '.join(list(file)[:8])}.")
        if 0 in file["u"].shape:
            raise ValueError(f"{path.name}: pcfm-paper expects at least one trajectory; got u of shape {file['u'].shape}.")
        return {"reaction-diffusion": _reaction_diffusion, "burgers": _burgers, "vorticity": _vorticity}[kind](path, file)


def _table(rows: NDArray[Any], columns: NDArray[Any]) -> tuple[Tensor, Tensor]:
    """What numbers rows and columns of a table have at each of its entries, row by row."""
    return torch.as_tensor(rows).repeat_interleave(len(columns), 0), torch.as_tensor(columns).repeat(len(rows), *[1] * (columns.ndim - 1))


def _fields(path: Path, u: Any, grid: Grid, channel: str, parameters: dict[str, Tensor], notes: str, **known: Any) -> Fields:
    about = {"format": "pcfm-paper", "path": path.name, "source": "PCFM; Utkarsh et al. 2025", **known.pop("about", {}), "notes": notes}
    return Fields(u=u, grid=grid, channels=(channel,), parameters=parameters, attributes=about, **known)


def _reaction_diffusion(path: Path, file: h5py.File) -> Fields:
    initial, boundary, points, times = file["u"].shape
    x = coordinates(path, "x", stored(path, file, "x"), points)
    time = stored_axis(path, file, "t", "time", times)
    needed(path, file, "ic", (initial, points))
    which, flux = _table(np.arange(initial), needed(path, file, "bc", (boundary, 2)))
    settings = {name: plain(file.attrs[key]) for name, key in (("rate", "rho"), ("diffusivity", "nu")) if key in file.attrs}
    samples = initial * boundary
    numbers = {name: torch.full((samples,), float(value), dtype=torch.float64) for name, value in settings.items()}
    return _fields(
        path,
        assembled(path, [Part(("u",), (0, 0, 3, 2))], (samples, 1, times, points)),
        Grid(time, cells("x", x)),
        "u",
        {"flux_left": flux[:, 0], "flux_right": flux[:, 1], "initial_index": which, **numbers},
        "Cell averages; the fluxes flux_left and flux_right pass the first and the last face, both counted along x. Over a time tau the "
        "integral grows by tau (flux_left - flux_right), exactly but for float32, and by the reaction, int rate u (1 - u), which the "
        "scheme integrates in steps that are not stored.",
        about={"equation": "u_t = rate u (1 - u) + diffusivity u_xx"},
    )


def _burgers(path: Path, file: h5py.File) -> Fields:
    rows, columns, points, times = file["u"].shape
    grid = Grid(stored_axis(path, file, "t", "time", times), stored_axis(path, file, "x", "x", points))
    fronts, values = (needed(path, file, name, file[name].shape) for name in ("ic", "bc"))
    swapped = _swapped(path, file, len(fronts), len(values))
    wanted = (len(values), len(fronts)) if swapped else (len(fronts), len(values))
    if (rows, columns) != wanted:
        raise ValueError(f"{path.name}: pcfm-paper expects a table u of {wanted} trajectories; got {(rows, columns)}.")
    inflow, front = _table(values, fronts) if swapped else _table(fronts, values)[::-1]
    return _fields(
        path,
        assembled(path, [Part(("u",), (0, 0, 3, 2))], (rows * columns, 1, times, points)),
        grid,
        "u",
        {"front": front, "inflow": inflow},
        ("Stored as (boundary, initial, x, t). " if swapped else "")
        + "Initial state 1/(1 + exp((x - front)/0.02)), also at the left end, where the value inflow enters from the first step on; the "
        "right end copies its neighbour. Godunov's scheme with dt = dx: the balance of each cell holds on points 1 .. N - 1 of every step, "
        "with the flux of the values at its own start; integrals over all points are not conserved.",
        about={"equation": "u_t + (u^2/2)_x = 0"},
    )


def _swapped(path: Path, file: h5py.File, fronts: int, values: int) -> bool:
    """Whether the table is boundary against initial conditions: along a row the initial states then differ."""
    shape = file["u"].shape[:2]
    if fronts != values:
        return bool(shape == (values, fronts))
    along_row = np.ptp(np.asarray(file["u"][0, :, :, 0], dtype=np.float64), axis=0).max()
    return bool(along_row > 0)


def _vorticity(path: Path, file: h5py.File) -> Fields:
    initial, forcings, nx, ny, times = file["u"].shape
    needed(path, file, "a", (initial, nx, ny))
    forcing = needed(path, file, "f", (forcings, nx, ny))
    phase = _phase(forcing)
    which, row = _table(np.arange(initial), forcing if phase is None else phase)
    viscosity = re.search(r"_mu([\d.eE-]+?)(?:\.h5|\.hdf5|$)", path.name)
    samples = initial * forcings
    parameters = {"initial_index": which, "forcing" if phase is None else "forcing_phase": row}
    if viscosity is not None:
        parameters["viscosity"] = torch.full((samples,), float(viscosity[1]), dtype=torch.float64)
    return _fields(
        path,
        assembled(path, [Part(("u",), (0, 0, 3, 4, 2))], (samples, 1, times, nx, ny)),
        Grid(counted("time", times), Axis("x", nx, length=1.0, periodic=True), Axis("y", ny, length=1.0, periodic=True)),
        "vorticity",
        parameters,
        "Unit torus, coordinates not stored; nor are times: the axis counts frames, the first of which is the initial state. Forcing "
        "0.1 sqrt 2 sin(2 pi (x + y) + forcing_phase). "
        + ("Viscosity as in the file's name. " if viscosity is not None else "The viscosity is not stored. ")
        + "Mean vorticity is 0.",
        laws=("mass:value=0",),
        about={"equation": "w_t + u . grad w = viscosity laplace(w) + forcing"},
    )


def _phase(forcing: NDArray[np.float64]) -> NDArray[np.float64] | None:
    r"""The phases of forcings $0.1 \sqrt 2 \sin(2\pi(x + y) + \phi)$; None where they are others."""
    x, y = np.meshgrid(*(np.arange(n) / n for n in forcing.shape[1:]), indexing="ij")
    angle = 2 * math.pi * (x + y)
    phase = np.arctan2((forcing * np.cos(angle)).mean(axis=(1, 2)), (forcing * np.sin(angle)).mean(axis=(1, 2)))
    fitted = 0.1 * math.sqrt(2) * np.sin(angle + phase[:, None, None])
    return phase if np.abs(fitted - forcing).max() <= 1e-5 else None
