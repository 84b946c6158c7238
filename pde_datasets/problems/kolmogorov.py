r"""Kolmogorov flow: two-dimensional incompressible Navier-Stokes driven by a sinusoidal force.

$$\partial_t \mathbf u + \mathbf u\cdot\nabla\mathbf u = -\nabla p + \nu\nabla^2\mathbf u - \alpha\mathbf u + F\sin(ny)\,\mathbf e_x,
\qquad \nabla\cdot\mathbf u = 0, \qquad [0, 2\pi)^2 \text{ periodic}.$$

Solved for the vorticity (`pde_datasets.solvers.vorticity`). The laminar profile $u = F\sin(ny)/(\nu n^2 + \alpha)$ is a steady solution.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from constraints import Axis, Constraint, DivergenceFree, Grid, Intersection, Momentum
from pde_datasets.problem import Problem, uniform
from pde_datasets.random_fields import gaussian_fields
from pde_datasets.solvers.vorticity import VorticityFlow


@dataclass(frozen=True)
class Kolmogorov(Problem):
    """Velocity snapshots (u, v) of statistically steady Kolmogorov flow.

    Attributes:
        points: grid points an axis; two thirds of the wavenumbers are resolved.
        viscosity: kinematic viscosity; its inverse is the Reynolds number in the units of the domain.
        drag: linear drag of the large scales.
        force: amplitude F of the force.
        mode: wavenumber n of the force.
        dt: time step.
        spin_up: time from the initial state to the first snapshot.
        interval: time between snapshots of one trajectory.
        snapshots: snapshots taken from one trajectory.
        reynolds: range of the Reynolds number, drawn uniformly for each trajectory: its inverse takes the place of the viscosity. Empty:
            none is drawn.

    Presets: `pbfm`, the settings of PBFM (Baldan et al.), Re 100 to 500 on 128 points; its own run length is not published: here 30 time
    units pass before the first of 16 snapshots. `jax-cfd`, the flow of Kochkov et al. at Re 1000; they solve on 2048 points and filter to
    64, here it is solved and stored on 256.
    """

    name: ClassVar[str] = "kolmogorov"
    equation: ClassVar[str] = "u_t + u.grad u = -grad p + nu lap u - drag u + F sin(n y) e_x, div u = 0"
    source: ClassVar[str] = (
        "2-D forced turbulence, ETDRK4 pseudo-spectral; Kochkov et al., PNAS 118 (2021); Baldan et al., arXiv:2506.08604"
    )
    scheme: ClassVar[str] = "pseudo-spectral, ETDRK4"
    channels: ClassVar[tuple[str, ...]] = ("u", "v")
    units: ClassVar[tuple[str, ...]] = ("m s-1", "m s-1")
    roles: ClassVar[Mapping[str, tuple[str, ...]]] = {"velocity": ("u", "v")}
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "pbfm": {"points": 128, "reynolds": (100.0, 500.0), "dt": 0.005, "spin_up": 30.0, "interval": 1.0},
        "jax-cfd": {"points": 256, "viscosity": 1e-3, "dt": 0.0025, "spin_up": 40.0, "interval": 1.0},
    }
    together: ClassVar[int] = 16

    points: int = 64
    viscosity: float = 0.01
    drag: float = 0.1
    force: float = 1.0
    mode: int = 4
    dt: float = 0.025
    spin_up: float = 15.0
    interval: float = 2.0
    snapshots: int = 16
    reynolds: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not 0 < self.dt <= self.interval:
            raise ValueError(
                f"Kolmogorov expects a time step between 0 and the interval of snapshots, {self.interval}; got dt = {self.dt}."
            )
        if self.spin_up < 0:
            raise ValueError(f"Kolmogorov expects a spin-up that is not negative; got {self.spin_up}.")
        if self.viscosity < 0 or self.drag < 0:
            raise ValueError(f"Kolmogorov expects no negative viscosity or drag; got {self.viscosity} and {self.drag}.")
        if self.reynolds:
            self.expect_range("reynolds", 0.0)

    @property
    def grid(self) -> Grid:
        return Grid(*(Axis(name, self.points, length=2 * math.pi, periodic=True) for name in ("x", "y")))

    @property
    def laws(self) -> tuple[str, ...]:
        return ("divergence-free:scheme=spectral", "momentum:value=0")

    def flow(self, viscosity: float | Tensor | None = None, device: str | torch.device = "cpu") -> VorticityFlow:
        """The equations as they are solved, with the viscosity of the settings or another one."""
        y = self.grid.mesh()[1]
        force = (-self.force * self.mode * torch.cos(self.mode * y)).expand(self.grid.shape)
        nu = self.viscosity if viscosity is None else viscosity
        return VorticityFlow(self.grid, nu, drag=self.drag, force=force, dt=self.dt, device=device)

    def simulate(self, streams: Sequence[torch.Generator], device: torch.device) -> tuple[Tensor, dict[str, Tensor]]:
        w = gaussian_fields(self.grid, lambda k: 0.25 * k * torch.exp(-((k / 4) ** 2)), streams)
        viscosity = torch.full((len(streams),), self.viscosity, dtype=torch.float64)
        if self.reynolds:
            viscosity = 1 / uniform(streams, (self.reynolds[0], self.reynolds[1]))[0]
        flow = self.flow(viscosity if self.reynolds else None, device)
        w = flow.advance(flow.transform(w.to(device)), self.spin_up)
        taken = []
        for _ in range(self.snapshots):
            w = flow.advance(w, self.interval)
            taken.append(flow.velocity(w))
        u = torch.stack(taken, dim=1).flatten(0, 1)
        return u, {"viscosity": viscosity.repeat_interleave(self.snapshots)}

    def constraint(self, parameters: Mapping[str, Tensor]) -> Constraint:
        return Intersection(DivergenceFree(self.grid), Momentum(self.grid, 0.0))
