r"""Initial integrals of pyro2's test problems, from the settings that a file stores: what its fields had at time 0, and what they keep.

| problem | at time 0 |
|---|---|
| `sod`, `dam` | two constant states that meet in the middle; gas has $E = p/(\gamma - 1) + \rho u^2/2$ |
| `gaussian` | $\phi_0 + (\phi_{\max} - \phi_0)\,e^{-r^2/4kt_0}$ at the centres of cells |
| `smooth` | $1 + e^{-60 r^2}$ at the centres of cells |
| `acoustic_pulse` | $\rho = \rho_0 + \Delta\rho_0\,e^{-16r^2}\cos^6\pi r$ for $r \le 1/2$, $p = (\rho/\rho_0)^\gamma$, at rest |

with r the distance from the middle of the domain. Mass, energy and the integral of phi stay where nothing passes the boundaries: on
periods, at Neumann walls, and as long as no wave has reached an outflow, where the states are still those of time 0. Until then the
momentum of two states at rest grows at the rate of the pressures' difference, $\Delta p\,t\,L_y$, with $p = g h^2/2$ for shallow water.

Source:
    github.com/python-hydro/pyro2, `problems` of its solvers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from constraints import Grid

Settings = Mapping[str, Any]
Fields = Mapping[str, NDArray[np.float64]]


def initial_laws(problem: str, settings: Settings, time: float, grid: Grid, fields: Fields) -> tuple[str, ...]:
    """Laws that follow from the state at time 0, in the notation of the command line; none for a problem that is not known here.

    Arguments:
        problem: its name.
        settings: the runtime parameters of the file.
        time: of the fields.
        grid: of the fields, (x, y).
        fields: by channel, (nx, ny).
    """
    known = {"sod": _states, "dam": _states, "gaussian": _gaussian, "smooth": _smooth, "acoustic_pulse": _pulse}.get(problem)
    if known is None:
        return ()
    try:
        return known(settings, time, grid, fields)
    except KeyError:  # an older file, or one written without its settings
        return ()


def _states(settings: Settings, time: float, grid: Grid, fields: Fields) -> tuple[str, ...]:
    gas = "density" in fields
    name, density = ("sod", "density") if gas else ("dam", "height")
    if settings[f"{name}.direction"] != "x":
        return ()
    ends = [(settings[f"{name}.{'dens' if gas else 'h'}_{side}"], settings[f"{name}.u_{side}"]) for side in ("left", "right")]
    if gas:
        pressures = [settings[f"sod.p_{side}"] for side in ("left", "right")]
        energies = [p / (settings["eos.gamma"] - 1) + r * u * u / 2 for p, (r, u) in zip(pressures, ends, strict=True)]
    else:
        pressures = [settings["swe.grav"] * h * h / 2 for h, _ in ends]
        energies = []
    still = all(u == 0 for _, u in ends)
    rho = fields[density]
    if not still or (rho[0] != ends[0][0]).any() or (rho[-1] != ends[1][0]).any():
        return ()  # a wave has reached an end
    half = grid.volume / 2
    laws = [f"mass:channels={density},value={half * (ends[0][0] + ends[1][0])!r}"]
    if gas:
        laws.append(f"mass:channels=energy,value={half * sum(energies)!r}")
    push = (pressures[0] - pressures[1]) * time * grid.axis("y").extent
    laws += [f"momentum:channels=x-momentum,value={push!r}", "momentum:channels=y-momentum,value=0"]
    return tuple(laws)


def _distance(grid: Grid) -> NDArray[np.float64]:
    """From the middle of the domain, (nx, ny)."""
    x, y = (axis.positions().numpy() - axis.origin - (axis.extent - axis.spacing) / 2 for axis in grid.axes)
    return np.hypot(x[:, None], y[None, :])


def _total(values: NDArray[np.float64], grid: Grid) -> float:
    return float((values * grid.weights().numpy()).sum())


def _gaussian(settings: Settings, time: float, grid: Grid, fields: Fields) -> tuple[str, ...]:
    base, top, k, start = (settings[key] for key in ("gaussian.phi_0", "gaussian.phi_max", "diffusion.k", "gaussian.t_0"))
    values = base + (top - base) * np.exp(-0.25 * _distance(grid) ** 2 / (k * start))
    return (f"mass:channels=phi,value={_total(values, grid)!r}",)


def _smooth(settings: Settings, time: float, grid: Grid, fields: Fields) -> tuple[str, ...]:
    return (f"mass:channels=density,value={_total(1 + np.exp(-60.0 * _distance(grid) ** 2), grid)!r}",)


def _pulse(settings: Settings, time: float, grid: Grid, fields: Fields) -> tuple[str, ...]:
    r, gamma, rho0, rise = _distance(grid), settings["eos.gamma"], settings["acoustic_pulse.rho0"], settings["acoustic_pulse.drho0"]
    rho = rho0 + np.where(r <= 0.5, rise * np.exp(-16 * r**2) * np.cos(math.pi * r) ** 6, 0.0)
    energy = (rho / rho0) ** gamma / (gamma - 1)
    return (
        f"mass:channels=density,value={_total(rho, grid)!r}",
        f"mass:channels=energy,value={_total(energy, grid)!r}",
        "momentum:value=0",
    )
