r"""Viscous Burgers equation on a periodic line.

$$u_t + \tfrac12 (u^2)_x = \nu u_{xx},\qquad x\in[0, 1),\; t\in[0, 1],$$

pseudo-spectral with the two-thirds rule, ETDRK4 in time. The mean of u is conserved to round-off: the zero mode has no right-hand side.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from constraints import Axis, Constraint, Grid, Mass
from constraints.calculus.spectral import Spectral, dealiasing
from pde_datasets.problem import Problem
from pde_datasets.random_fields import gaussian_fields
from pde_datasets.solvers.exponential import ETDRK4


@dataclass(frozen=True)
class Burgers(Problem):
    """Steepening waves from Gaussian initial data: space-time fields on (time, x).

    Initial data have the spectrum of $\\mathcal N(0, 625(-\\partial_{xx} + 25)^{-2})$ without its mean, plus a random mean.

    Attributes:
        points: points in space.
        times: stored times, both ends included.
        viscosity: kinematic viscosity.
        steps: time steps between stored times.
        mean: standard deviation of the random mean.
    """

    name: ClassVar[str] = "burgers"
    equation: ClassVar[str] = "u_t + (u^2/2)_x = nu u_xx"
    source: ClassVar[str] = "pseudo-spectral, ETDRK4; initial data of Li et al., ICLR 2021"
    scheme: ClassVar[str] = "pseudo-spectral, ETDRK4"
    channels: ClassVar[tuple[str, ...]] = ("u",)
    roles: ClassVar[Mapping[str, tuple[str, ...]]] = {"density": ("u",)}

    points: int = 128
    times: int = 33
    viscosity: float = 0.01
    steps: int = 16
    mean: float = 0.25

    @property
    def grid(self) -> Grid:
        return Grid(Axis("time", self.times, length=1.0), Axis("x", self.points, length=1.0, periodic=True))

    @property
    def laws(self) -> tuple[str, ...]:
        return ("mass",)

    def simulate(self, streams: Sequence[torch.Generator], device: torch.device) -> tuple[Tensor, dict[str, Tensor]]:
        waves = gaussian_fields(self.grid, lambda k: 25.0 / (k**2 + 25.0), streams)
        means = torch.stack([self.mean * torch.randn(1, generator=g, dtype=torch.float64) for g in streams])
        viscosity = torch.full((len(streams),), self.viscosity, dtype=torch.float64)
        return self.solve((waves + means).to(device)), {"viscosity": viscosity}

    def solve(self, initial: Tensor) -> Tensor:
        """Fields (N, 1, T, X) from initial data (N, X)."""
        axis = self.grid.space_axes[0]
        n = self.points
        k = Spectral().wavenumber(axis)[: n // 2 + 1].to(initial.device)
        mask = dealiasing(self.grid).to(initial.device)
        stepper = ETDRK4(-self.viscosity * k**2, self.grid.axes[0].spacing / self.steps)
        flux = -0.5j * k * mask

        def nonlinear(v: Tensor) -> Tensor:
            return flux * torch.fft.rfft(torch.fft.irfft(v, n=n).square())

        v = torch.fft.rfft(initial) * mask
        states = [v]
        for _ in range(self.times - 1):
            for _ in range(self.steps):
                v = stepper.step(v, nonlinear)
            states.append(v)
        return torch.fft.irfft(torch.stack(states, dim=1), n=n)[:, None]

    def constraint(self, parameters: Mapping[str, Tensor]) -> Constraint:
        return Mass(self.grid)


def cole_hopf(x: Tensor, time: float, viscosity: float, nodes: int = 100) -> Tensor:
    r"""Exact solution with $u(x, 0) = -\sin(\pi x)$ on $[-1, 1]$, period 2, by Gauss-Hermite quadrature of the Cole-Hopf integral.

    Source:
        Basdevant et al., Comput. Fluids 14 (1986) 23.
    """
    import numpy as np

    points, weights = (torch.from_numpy(a) for a in np.polynomial.hermite.hermgauss(nodes))
    shifted = x[:, None] - math.sqrt(4 * viscosity * time) * points
    exponent = -torch.cos(math.pi * shifted) / (2 * math.pi * viscosity)
    kernel = weights * torch.exp(exponent - exponent.amax(1, keepdim=True))
    return -(kernel * torch.sin(math.pi * shifted)).sum(1) / kernel.sum(1)
