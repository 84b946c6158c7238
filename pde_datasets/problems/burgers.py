r"""Viscous Burgers equation on a periodic line.

$$u_t + \tfrac12 (u^2)_x = \nu u_{xx},$$

pseudo-spectral with the two-thirds rule, ETDRK4 in time, in as many steps as a tolerance asks for. The mean of u is conserved to round-off:
the zero mode has no right-hand side.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from constraints import Axis, Constraint, Grid, Mass
from pde_datasets.problem import Problem
from pde_datasets.random_fields import gaussian_fields
from pde_datasets.solvers.periodic_flow import check_tolerance
from pde_datasets.solvers.quadratic import quadratic_waves

INITIAL = ("random", "sine", "gaussian")


@dataclass(frozen=True)
class Burgers(Problem):
    """Steepening waves: space-time fields on (time, x).

    Initial data: "random" have the spectrum of $\\mathcal N(0, \\sigma^2(-\\partial_{xx} + \\tau^2)^{-\\gamma})$ without its mean, plus a
    random mean, on $[0, L)$; "sine" is $-\\sin(2\\pi x/L)$, "gaussian" $e^{-(x+2)^2}$, both on $[-L/2, L/2)$.

    Attributes:
        points: points in space.
        times: stored times, the initial one included.
        viscosity: kinematic viscosity.
        steps: least number of time steps between stored times.
        tolerance: bound on the error estimated of these steps, relative to u in the mean square; they are halved to meet it.
        mean: standard deviation of the random mean.
        gamma: $\\gamma$, smoothness of random initial data.
        tau: $\\tau$, wavenumber up to which their spectrum is flat.
        sigma: $\\sigma$, their size.
        length: period.
        duration: time from the first stored field to the last; they are duration / (times - 1) apart.
        initial: "random", "sine" or "gaussian".
    """

    name: ClassVar[str] = "burgers"
    equation: ClassVar[str] = "u_t + (u^2/2)_x = nu u_xx"
    source: ClassVar[str] = (
        "pseudo-spectral, ETDRK4; settings of Li et al., ICLR 2021 (fno), of DiffusionPDE, Huang et al., NeurIPS 2024 (diffusionpde), of "
        "Raissi et al., J. Comput. Phys. 378 (2019) 686 (raissi), and of PySINDy's burgers.mat (pysindy)"
    )
    scheme: ClassVar[str] = "pseudo-spectral, ETDRK4"
    channels: ClassVar[tuple[str, ...]] = ("u",)
    roles: ClassVar[Mapping[str, tuple[str, ...]]] = {"density": ("u",)}
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "fno": {"points": 8192, "times": 2, "viscosity": 0.1, "steps": 500, "mean": 0.0},
        "diffusionpde": {"points": 128, "times": 128, "viscosity": 0.01, "mean": 0.0, "gamma": 2.5, "tau": 7.0, "sigma": 49.0},
        "raissi": {
            "points": 2550, "times": 100, "viscosity": 0.01 / math.pi, "steps": 60, "length": 2.0, "duration": 0.99,
            "initial": "sine",
        },
        "pysindy": {
            "points": 256, "times": 101, "viscosity": 0.1, "steps": 20, "length": 16.0, "duration": 10.0,
            "initial": "gaussian",
        },
    }  # fmt: skip

    points: int = 128
    times: int = 33
    viscosity: float = 0.01
    steps: int = 16
    tolerance: float = 1e-4
    mean: float = 0.25
    gamma: float = 2.0
    tau: float = 5.0
    sigma: float = 25.0
    length: float = 1.0
    duration: float = 1.0
    initial: str = "random"

    def __post_init__(self) -> None:
        if self.initial not in INITIAL:
            raise ValueError(f"Burgers expects initial data out of {', '.join(INITIAL)}; got '{self.initial}'.")
        if self.viscosity < 0 or not self.duration > 0:
            raise ValueError(f"Burgers expects no negative viscosity and a positive duration; got {self.viscosity} and {self.duration}.")
        if self.times < 2 or self.steps < 1:
            raise ValueError(f"Burgers expects at least two times and a step between them; got times = {self.times}, steps = {self.steps}.")
        check_tolerance(self.tolerance, "Burgers")

    @property
    def grid(self) -> Grid:
        origin = 0.0 if self.initial == "random" else -self.length / 2
        return Grid(
            Axis("time", self.times, length=self.duration),
            Axis("x", self.points, length=self.length, origin=origin, periodic=True),
        )

    @property
    def laws(self) -> tuple[str, ...]:
        return ("mass",)

    def simulate(self, streams: Sequence[torch.Generator], device: torch.device) -> tuple[Tensor, dict[str, Tensor]]:
        if self.initial == "random":
            waves = gaussian_fields(self.grid, lambda k: self.sigma * (k**2 + self.tau**2) ** (-self.gamma / 2), streams)
            means = torch.stack([self.mean * torch.randn(1, generator=g, dtype=torch.float64) for g in streams])
            start = waves + means
        else:
            x = self.grid.axes[1].positions()
            wave = -torch.sin(2 * math.pi * x / self.length) if self.initial == "sine" else torch.exp(-((x + 2) ** 2))
            start = wave.expand(len(streams), -1)
        viscosity = torch.full((len(streams),), self.viscosity, dtype=torch.float64)
        return self.solve(start.to(device)), {"viscosity": viscosity}

    def solve(self, initial: Tensor) -> Tensor:
        """Fields (N, 1, T, X) from initial data (N, X)."""
        return quadratic_waves(initial, self.grid, lambda k: -self.viscosity * k**2, steps=self.steps, tolerance=self.tolerance)

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
