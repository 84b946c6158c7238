r"""The Korteweg-de Vries equation on a periodic line.

$$u_t + a\,u u_x + b\,u_{xxx} = 0,$$

pseudo-spectral with the two-thirds rule, ETDRK4 in time with dispersion as its (imaginary) linear part, in as many steps as a tolerance
asks
for. Three of the equation's integrals,

$$\int u\,dx,\qquad \int u^2\,dx,\qquad H = \int\big(\tfrac b2 u_x^2 - \tfrac a6 u^3\big)\,dx,$$

are also kept by the equations of the resolved modes, since no product aliases. The steps keep mass to round-off and the other two up to
their error of fourth order; stored fields are brought back to the level of both, which changes them by no more than that error and
leaves round-off (`solvers/invariants.py`). The soliton

$$u = \frac{3c}{a}\,\mathrm{sech}^2\Big(\tfrac12\sqrt{c/b}\,(x - x_0 - ct)\Big)$$

keeps its shape; a faster one passes a slower one unharmed and comes out ahead of where it would have been.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from constraints import Axis, Constraint, Grid, Integral, Intersection, L2Energy, Mass
from constraints.calculus.spectral import Spectral, dealiasing, wavenumbers
from pde_datasets.problem import Problem
from pde_datasets.random_fields import random_waves, sum_of_waves
from pde_datasets.solvers.periodic_flow import check_tolerance
from pde_datasets.solvers.quadratic import quadratic_waves
from pde_datasets.solvers.resolution import warn_unresolved

INITIAL = ("waves", "cosine", "soliton-pair")


@dataclass(frozen=True)
class KortewegDeVries(Problem):
    r"""Dispersive waves: space-time fields on (time, x).

    Initial data: "waves" are the sums of ten sine waves of Brandstetter et al., amplitudes uniform on $[-\frac12, \frac12]$, one or two
    periods on the length, random phases; "cosine" is one period of a cosine (Zabusky & Kruskal; Raissi et al.); "soliton-pair" are
    solitons of speeds 1 and 1/2, a sixth and seven twelfths along the line (PySINDy).

    The laws are mass, $\int u^2$ and the Hamiltonian H, conserved to round-off at the stored times.

    Attributes:
        points: points in space.
        times: stored times; the first is at skip * interval, the initial one if skip is 0.
        interval: time between stored fields.
        steps: least number of time steps an interval.
        tolerance: bound on the error estimated of the steps of an interval, relative to u in the mean square; steps are halved to meet it.
        skip: intervals from the initial data to the first stored time.
        length: period.
        origin: coordinate of the first point.
        nonlinearity: a.
        dispersion: b.
        initial: "waves", "cosine" or "soliton-pair".
    """

    name: ClassVar[str] = "kdv"
    equation: ClassVar[str] = "u_t + a u u_x + b u_xxx = 0"
    source: ClassVar[str] = (
        "pseudo-spectral, ETDRK4; settings of Raissi et al., J. Comput. Phys. 378 (2019) 686, of PySINDy's kdv.mat (Rudy et al., Sci. Adv. "
        "3 (2017) e1602614), and of Brandstetter et al. (LPSDA), ICML 2022, whose jitter of length and duration is left out"
    )
    scheme: ClassVar[str] = "pseudo-spectral, ETDRK4"
    channels: ClassVar[tuple[str, ...]] = ("u",)
    roles: ClassVar[Mapping[str, tuple[str, ...]]] = {"density": ("u",)}
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "raissi": {
            "points": 512, "times": 201, "interval": 0.005, "steps": 20, "length": 2.0, "origin": -1.0, "dispersion": 0.0025,
            "initial": "cosine",
        },
        "pysindy": {
            "points": 512, "times": 201, "interval": 0.1, "steps": 20, "length": 60.0, "origin": -30.0, "nonlinearity": 6.0,
            "initial": "soliton-pair",
        },
        "lpsda": {"points": 256, "times": 140, "interval": 100 / 249, "steps": 64, "skip": 110, "length": 128.0},
    }  # fmt: skip

    points: int = 128
    times: int = 41
    interval: float = 0.5
    steps: int = 64
    tolerance: float = 1e-6
    skip: int = 0
    length: float = 64.0
    origin: float = 0.0
    nonlinearity: float = 1.0
    dispersion: float = 1.0
    initial: str = "waves"

    def __post_init__(self) -> None:
        if self.initial not in INITIAL:
            raise ValueError(f"KortewegDeVries expects initial data out of {', '.join(INITIAL)}; got '{self.initial}'.")
        if not (self.dispersion > 0 and self.nonlinearity > 0):
            raise ValueError(
                f"KortewegDeVries expects positive nonlinearity and dispersion; got {self.nonlinearity} and {self.dispersion}. "
                "Turn signs of u and x to get there."
            )
        if self.times < 2 or self.steps < 1 or self.skip < 0 or not self.interval > 0:
            raise ValueError(
                "KortewegDeVries expects at least two times a positive interval apart, a step an interval and no negative skip; "
                f"got times = {self.times}, interval = {self.interval}, steps = {self.steps}, skip = {self.skip}."
            )
        check_tolerance(self.tolerance, "KortewegDeVries")

    @property
    def grid(self) -> Grid:
        return Grid(
            Axis("time", self.times, length=self.interval * (self.times - 1), origin=self.interval * self.skip),
            Axis("x", self.points, length=self.length, origin=self.origin, periodic=True),
        )

    @property
    def laws(self) -> tuple[str, ...]:
        return ("mass",)

    def simulate(self, streams: Sequence[torch.Generator], device: torch.device) -> tuple[Tensor, dict[str, Tensor]]:
        x = self.grid.axes[1].positions()
        if self.initial == "waves":
            start = sum_of_waves(x[None] / self.length, *random_waves(streams, 10, (1, 2), (-0.5, 0.5)))
        elif self.initial == "cosine":
            start = torch.cos(2 * math.pi * x / self.length).expand(len(streams), -1)
        else:
            pair = ((1.0, 1 / 6), (0.5, 7 / 12))
            start = torch.stack([self.soliton(x, 0.0, c, self.origin + at * self.length) for c, at in pair]).sum(0).expand(len(streams), -1)
        return self.solve(start.to(device)), {}

    def solve(self, initial: Tensor) -> Tensor:
        """Fields (N, 1, T, X) from initial data (N, X)."""
        u = quadratic_waves(
            initial,
            self.grid,
            lambda k: 1j * self.dispersion * k**3,
            factor=self.nonlinearity,
            steps=self.steps,
            tolerance=self.tolerance,
            skip=self.skip,
            invariants=self.invariants,
        )
        warn_unresolved(u, self.grid.axes[1], "KortewegDeVries", share=2 / 3)
        return u

    def invariants(self, u: Tensor) -> tuple[Tensor, Tensor]:
        r"""$\sum u^2$ and $\sum\frac b2u_x^2 - \frac a6u^3$ of states (N, X), as (N, 2), and their gradients.

        Of these, $2u$ and $-bu_{xx} - \frac a2u^2$, what lies in the kept modes, without the mean.
        """
        a, b = self.nonlinearity, self.dispersion
        k = wavenumbers(self.grid.axes[1])[: self.points // 2 + 1].abs().to(u)
        kept = dealiasing(self.grid).to(u) * (k > 0)

        def on_points(spectrum: Tensor) -> Tensor:
            return torch.fft.irfft(spectrum, n=self.points)

        v = torch.fft.rfft(u)
        values = torch.stack([u.square().sum(-1), (b / 2 * on_points(1j * k * v).square() - a / 6 * u**3).sum(-1)], dim=1)
        gradients = torch.stack([on_points(kept * 2 * v), on_points(kept * (b * k**2 * v - a / 2 * torch.fft.rfft(u.square())))], dim=1)
        return values, gradients

    def soliton(self, x: Tensor, time: float | Tensor, speed: float, centre: float) -> Tensor:
        """The soliton of a speed that is at `centre` at time 0, on the whole line."""
        width = 2 * math.sqrt(self.dispersion / speed)
        return 3 * speed / self.nonlinearity / torch.cosh((x - centre - speed * time) / width).square()

    def constraint(self, parameters: Mapping[str, Tensor]) -> Constraint:
        return Intersection(Mass(self.grid), L2Energy(self.grid), Integral(self.grid, self.energy_density, name="Hamiltonian"))

    def energy_density(self, u: Tensor) -> Tensor:
        r"""$\frac b2 u_x^2 - \frac a6 u^3$ of fields (B, 1, T, X): (B, T, X)."""
        slope = Spectral().derivative(u, self.grid, "x")
        return (self.dispersion / 2 * slope.square() - self.nonlinearity / 6 * u**3)[:, 0]
