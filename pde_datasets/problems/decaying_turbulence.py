r"""Decaying two-dimensional turbulence: random vorticity that gathers into long-lived vortices.

$$\partial_t\mathbf u + \mathbf u\cdot\nabla\mathbf u = -\nabla p + \nu\nabla^2\mathbf u,\qquad \nabla\cdot\mathbf u = 0,
\qquad [0, 2\pi)^2 \text{ periodic},$$

from Gaussian initial data with the energy spectrum $E(k)\propto k\,(1 + (k/k_0)^4)^{-1}$ of McWilliams. He dissipates by hyperviscosity,
here it is Newtonian. Energy and enstrophy decay at every time: $\dot E = -2\nu Z$ and $\dot Z = -2\nu P$ with the palinstrophy P.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from constraints import Axis, Constraint, DivergenceFree, EnergyDecay, Grid, Intersection, Momentum
from pde_datasets.problem import Problem
from pde_datasets.random_fields import gaussian_fields
from pde_datasets.solvers.periodic_flow import check_tolerance
from pde_datasets.solvers.vorticity import VorticityFlow


@dataclass(frozen=True)
class DecayingTurbulence(Problem):
    """Velocity fields (u, v) on (time, x, y), all of the same initial energy.

    Attributes:
        points: points an axis; two thirds of the wavenumbers are resolved.
        times: stored times, the initial one included.
        duration: time from the first stored field to the last; they are duration / (times - 1) apart.
        viscosity: kinematic viscosity.
        energy: mean kinetic energy at the first time.
        peak: wavenumber of the spectrum's maximum, up to a factor of $3^{-1/4}$.
        tolerance: bound on the relative error of a time step, as in `PeriodicFlow`.
    """

    name: ClassVar[str] = "decaying-turbulence"
    equation: ClassVar[str] = "u_t + u.grad u = -grad p + nu lap u, div u = 0"
    source: ClassVar[str] = "initial data of McWilliams, J. Fluid Mech. 146 (1984) 21"
    scheme: ClassVar[str] = "pseudo-spectral, ETDRK4"
    channels: ClassVar[tuple[str, ...]] = ("u", "v")
    units: ClassVar[tuple[str, ...]] = ("m s-1", "m s-1")
    roles: ClassVar[Mapping[str, tuple[str, ...]]] = {"velocity": ("u", "v")}
    together: ClassVar[int] = 16

    points: int = 64
    times: int = 11
    duration: float = 10.0
    viscosity: float = 2e-3
    energy: float = 0.5
    peak: float = 6.0
    tolerance: float = 1e-6

    def __post_init__(self) -> None:
        if self.times < 2 or self.duration <= 0:
            raise ValueError(f"DecayingTurbulence expects at least 2 times up to a positive one; got {self.times} up to {self.duration}.")
        if self.viscosity < 0 or self.energy <= 0 or self.peak <= 0:
            raise ValueError(
                "DecayingTurbulence expects a viscosity that is not negative, and an energy and a peak that are positive; "
                f"got {self.viscosity}, {self.energy} and {self.peak}."
            )
        check_tolerance(self.tolerance, "DecayingTurbulence")

    @property
    def grid(self) -> Grid:
        space = (Axis(name, self.points, length=2 * math.pi, periodic=True) for name in "xy")
        return Grid(Axis("time", self.times, length=self.duration), *space)

    @property
    def laws(self) -> tuple[str, ...]:
        return ("divergence-free:scheme=spectral", "momentum:value=0", "energy-decay")

    def simulate(self, streams: Sequence[torch.Generator], device: torch.device) -> tuple[Tensor, dict[str, Tensor]]:
        flow = VorticityFlow(self.grid, self.viscosity, tolerance=self.tolerance, device=device)
        # A ring of radius k has 2 pi k modes, and vorticity is k times the velocity: its square is k^2 E(k)/(pi k).
        initial = gaussian_fields(self.grid, lambda k: k / (1 + (k / self.peak) ** 4).sqrt(), streams)
        w = flow.transform(initial.to(device))
        energy = flow.velocity(w).square().sum(1).mean((1, 2)) / 2
        w = w * (self.energy / energy).sqrt()[:, None, None]
        states = [flow.velocity(w)]
        for _ in range(self.times - 1):
            w = flow.advance(w, self.grid.axes[0].spacing)
            states.append(flow.velocity(w))
        return torch.stack(states, dim=2), {"viscosity": torch.full((len(streams),), self.viscosity, dtype=torch.float64)}

    def constraint(self, parameters: Mapping[str, Tensor]) -> Constraint:
        return Intersection(DivergenceFree(self.grid), Momentum(self.grid, 0.0), EnergyDecay(self.grid))
