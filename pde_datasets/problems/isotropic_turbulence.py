r"""Homogeneous isotropic turbulence in a periodic box, kept going at its large scales.

$$\partial_t\mathbf u + \mathbf u\cdot\nabla\mathbf u = -\nabla p + \nu\nabla^2\mathbf u + \mathbf f,\qquad \nabla\cdot\mathbf u = 0,
\qquad [0, 2\pi)^3 \text{ periodic}.$$

The force adds the constant power $\varepsilon$ to the modes with $0 < |\mathbf k|\le b$, in proportion to their velocity
(`pde_datasets.solvers.navier_stokes_3d`), so that $\dot E = \varepsilon - 2\nu Z$; statistically steady, $\varepsilon$ is the dissipation,
and the Kolmogorov length $(\nu^3/\varepsilon)^{1/4}$ is known beforehand. No mean flow arises: the force has none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from constraints import Axis, Constraint, DivergenceFree, Grid, Intersection, Momentum
from pde_datasets.problem import Problem
from pde_datasets.random_fields import gaussian_fields
from pde_datasets.solvers.navier_stokes_3d import VelocityFlow
from pde_datasets.solvers.periodic_flow import check_tolerance


@dataclass(frozen=True)
class IsotropicTurbulence(Problem):
    r"""Velocity snapshots (u, v, w) of statistically steady turbulence.

    Initial data are Gaussian with the energy spectrum $E(k)\propto k^4 e^{-2(k/k_0)^2}$, $k_0 = 2$, and the energy
    $(\varepsilon\,2\pi/k_0)^{2/3}$. At the default settings the largest wavenumber kept resolves the Kolmogorov length
    ($k_{\max}\eta = 1.0$).

    Attributes:
        points: points an axis; two thirds of the wavenumbers are resolved.
        viscosity: kinematic viscosity.
        power: $\varepsilon$, what the force adds to the mean kinetic energy per unit time.
        band: b, the largest wavenumber that is forced.
        spin_up: time from the initial state to the first snapshot.
        interval: time between snapshots of one trajectory.
        snapshots: snapshots taken from one trajectory.
        tolerance: bound on the relative error of a time step, as in `PeriodicFlow`.
    """

    name: ClassVar[str] = "isotropic-turbulence"
    equation: ClassVar[str] = "u_t + u.grad u = -grad p + nu lap u + f, div u = 0, f of constant power at low wavenumbers"
    source: ClassVar[str] = "force of Machiels, Phys. Rev. Lett. 79 (1997) 3411; Rogallo, NASA TM 81315 (1981) for the method"
    scheme: ClassVar[str] = "pseudo-spectral, ETDRK4"
    channels: ClassVar[tuple[str, ...]] = ("u", "v", "w")
    units: ClassVar[tuple[str, ...]] = ("m s-1", "m s-1", "m s-1")
    roles: ClassVar[Mapping[str, tuple[str, ...]]] = {"velocity": ("u", "v", "w")}
    together: ClassVar[int] = 4

    points: int = 32
    viscosity: float = 0.0215
    power: float = 0.1
    band: float = 2.5
    spin_up: float = 20.0
    interval: float = 4.0
    snapshots: int = 8
    tolerance: float = 1e-4

    def __post_init__(self) -> None:
        if self.viscosity < 0 or self.power <= 0 or self.band < 1:
            raise ValueError(
                "IsotropicTurbulence expects a viscosity that is not negative, a positive power and a band that reaches 1, the smallest "
                f"wavenumber; got {self.viscosity}, {self.power} and {self.band}."
            )
        if self.spin_up < 0 or self.interval <= 0:
            raise ValueError(
                "IsotropicTurbulence expects a spin-up that is not negative and a positive interval; "
                f"got {self.spin_up} and {self.interval}."
            )
        check_tolerance(self.tolerance, "IsotropicTurbulence")

    @property
    def grid(self) -> Grid:
        return Grid(*(Axis(name, self.points, length=2 * math.pi, periodic=True) for name in "xyz"))

    @property
    def laws(self) -> tuple[str, ...]:
        return ("divergence-free:scheme=spectral", "momentum:value=0")

    def flow(self, device: str | torch.device = "cpu") -> VelocityFlow:
        """The equations as they are solved."""
        return VelocityFlow(self.grid, self.viscosity, power=self.power, band=self.band, tolerance=self.tolerance, device=device)

    def simulate(self, streams: Sequence[torch.Generator], device: torch.device) -> tuple[Tensor, dict[str, Tensor]]:
        flow, peak = self.flow(device), 2.0
        # A shell of radius k has 4 pi k^2 modes.
        fields = [gaussian_fields(self.grid, lambda k: k * torch.exp(-((k / peak) ** 2)), streams) for _ in range(3)]
        v = flow.transform(torch.stack(fields, dim=1).to(device))
        energy = (self.power * 2 * math.pi / peak) ** (2 / 3)
        v = v * (energy / flow.energy(v)).sqrt()[:, None, None, None, None]
        v = flow.advance(v, self.spin_up)
        taken = []
        for _ in range(self.snapshots):
            v = flow.advance(v, self.interval)
            taken.append(flow.velocity(v))
        u = torch.stack(taken, dim=1).flatten(0, 1)
        return u, {"viscosity": torch.full((len(u),), self.viscosity, dtype=torch.float64)}

    def constraint(self, parameters: Mapping[str, Tensor]) -> Constraint:
        return Intersection(DivergenceFree(self.grid), Momentum(self.grid, 0.0))
