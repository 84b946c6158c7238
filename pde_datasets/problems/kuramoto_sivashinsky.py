r"""The Kuramoto-Sivashinsky equation on a periodic line.

$$u_t + u u_x + u_{xx} + \nu u_{xxxx} = 0,$$

pseudo-spectral with the two-thirds rule, ETDRK4 in time, in as many steps as a tolerance asks for. Wavenumbers below $\nu^{-1/2}$ grow,
shorter waves decay, the quadratic term hands
energy from the ones to the others: $\frac{d}{dt}\langle\frac12u^2\rangle = \langle u_x^2\rangle - \nu\langle u_{xx}^2\rangle$. From a
length of about 20 on solutions are chaotic. The mean of u is conserved to round-off; it is zero here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from constraints import Axis, Constraint, Grid, Mass
from pde_datasets.problem import Problem, uniform
from pde_datasets.random_fields import random_waves, sum_of_waves
from pde_datasets.solvers.periodic_flow import check_tolerance
from pde_datasets.solvers.quadratic import quadratic_waves

INITIAL = ("waves", "kassam-trefethen")


@dataclass(frozen=True)
class KuramotoSivashinsky(Problem):
    r"""Chaotic fronts: space-time fields on (time, x).

    Initial data: "waves" are the sums of ten sine waves of Brandstetter et al., amplitudes uniform on $[-\frac12, \frac12]$, one or two
    periods on the length, random phases; "kassam-trefethen" is $\cos\xi\,(1 + \sin\xi)$ with one period of $\xi = 2\pi x/L$.

    Attributes:
        points: points in space.
        times: stored times; the first is at skip * interval, the initial one if skip is 0.
        interval: time between stored fields.
        steps: least number of time steps an interval.
        tolerance: bound on the error estimated of the steps of an interval, relative to u in the mean square; steps are halved to meet it.
        skip: intervals from the initial data to the first stored time.
        length: period.
        origin: coordinate of the first point.
        viscosity: range of $\nu$, drawn uniformly.
        initial: "waves" or "kassam-trefethen".
    """

    name: ClassVar[str] = "kuramoto-sivashinsky"
    equation: ClassVar[str] = "u_t + u u_x + u_xx + nu u_xxxx = 0"
    source: ClassVar[str] = (
        "pseudo-spectral, ETDRK4; settings of Kassam & Trefethen, SIAM J. Sci. Comput. 26 (2005) 1214 (PySINDy's file), of Brandstetter et "
        "al. (LPSDA), ICML 2022, and of PDEArena, whose jitter of length and duration is left out"
    )
    scheme: ClassVar[str] = "pseudo-spectral, ETDRK4"
    channels: ClassVar[tuple[str, ...]] = ("u",)
    roles: ClassVar[Mapping[str, tuple[str, ...]]] = {"density": ("u",)}
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "pysindy": {
            "points": 1024, "times": 251, "interval": 0.4, "steps": 16, "skip": 0, "length": 32 * math.pi, "origin": math.pi / 32,
            "initial": "kassam-trefethen",
        },
        "l22": {"points": 64, "times": 201, "interval": 1.0, "steps": 20, "skip": 200, "length": 22.0},
        "lpsda": {"points": 256, "times": 140, "interval": 100 / 499, "steps": 8, "skip": 360, "length": 64.0},
        "pdearena": {
            "points": 256, "times": 140, "interval": 100 / 499, "steps": 8, "skip": 360, "length": 64.0, "viscosity": (0.5, 1.5),
        },
    }  # fmt: skip
    together: ClassVar[int] = 16

    points: int = 128
    times: int = 64
    interval: float = 0.5
    steps: int = 20
    tolerance: float = 1e-4
    skip: int = 200
    length: float = 64.0
    origin: float = 0.0
    viscosity: tuple[float, float] = (1.0, 1.0)
    initial: str = "waves"

    def __post_init__(self) -> None:
        if self.initial not in INITIAL:
            raise ValueError(f"KuramotoSivashinsky expects initial data out of {', '.join(INITIAL)}; got '{self.initial}'.")
        self.expect_range("viscosity", 0.0)  # without any all waves grow
        if self.times < 2 or self.steps < 1 or self.skip < 0 or not self.interval > 0:
            raise ValueError(
                "KuramotoSivashinsky expects at least two times a positive interval apart, a step an interval and no negative skip; "
                f"got times = {self.times}, interval = {self.interval}, steps = {self.steps}, skip = {self.skip}."
            )
        check_tolerance(self.tolerance, "KuramotoSivashinsky")

    @property
    def grid(self) -> Grid:
        return Grid(
            Axis("time", self.times, length=self.interval * (self.times - 1), origin=self.interval * self.skip),
            Axis("x", self.points, length=self.length, origin=self.origin, periodic=True),
        )

    @property
    def laws(self) -> tuple[str, ...]:
        return ("mass:value=0",)

    def simulate(self, streams: Sequence[torch.Generator], device: torch.device) -> tuple[Tensor, dict[str, Tensor]]:
        (viscosity,) = (drawn.to(device) for drawn in uniform(streams, self.viscosity))
        x = self.grid.axes[1].positions()[None] / self.length
        if self.initial == "waves":
            start = sum_of_waves(x, *random_waves(streams, 10, (1, 2), (-0.5, 0.5)))
        else:
            start = (torch.cos(2 * math.pi * x) * (1 + torch.sin(2 * math.pi * x))).expand(len(streams), -1)
        return self.solve(start.to(device), viscosity), {"viscosity": viscosity}

    def solve(self, initial: Tensor, viscosity: Tensor) -> Tensor:
        """Fields (N, 1, T, X) from initial data (N, X) and viscosities (N,)."""
        return quadratic_waves(
            initial,
            self.grid,
            lambda k: k**2 - viscosity[:, None] * k**4,
            steps=self.steps,
            tolerance=self.tolerance,
            skip=self.skip,
        )

    def constraint(self, parameters: Mapping[str, Tensor]) -> Constraint:
        return Mass(self.grid, 0.0)
