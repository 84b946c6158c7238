r"""Stefan's problem, exactly: a front that moves by what diffuses through what it has left behind.

$$u_t = (k(u)\,u_x)_x,\qquad k(u) = \begin{cases} \kappa & u \ge u^*\\ 0 & u < u^*\end{cases},\qquad
u(0, t) = 1,\quad u(x, 0) = 0.$$

Behind the front $s(t) = \alpha\sqrt t$ the solution depends on $x/\sqrt t$ alone, and ahead of it nothing has happened,

$$u = 1 - (1 - u^*)\,\frac{\operatorname{erf}(x/2\sqrt{\kappa t})}{\operatorname{erf} z}\quad (x \le s),\qquad u = 0\quad (x > s),\qquad
\alpha = 2\sqrt\kappa\,z.$$

At the front u falls from $u^*$ to 0, and the jump takes what arrives, $-\kappa u_x = u^*\dot s$, which is an equation for z.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from constraints import Axis, Bounds, Constraint, Dirichlet, Grid, InitialCondition, Intersection
from pde_datasets.problem import Problem, uniform


@dataclass(frozen=True)
class Stefan(Problem):
    r"""Melting fronts: space-time fields on (time, x), x in [0, 1].

    Laws, all to round-off: initial data, values at both ends, bounds 0 and 1. Values do not rise with x nor fall in time either, which
    `Monotone` says for those who want it: projections take much longer with it. Mass (`mass`) is exact in the continuum while the front
    is inside; by the trapezoidal rule, as ProbConserv and ECI measure it, only to first order in the spacing because of the jump, and is
    not among the laws.

    Attributes:
        points: points in space, both ends included.
        times: stored times, the initial one included.
        duration: time from the first stored field to the last; they are duration / (times - 1) apart.
        conductivity: range of $\kappa$, drawn uniformly.
        threshold: range of $u^*$, drawn uniformly.

    Source:
        Hansen et al., ICML 2023 (arXiv:2302.11002), as a degenerate porous medium; Crank, Free and Moving Boundary Problems (1984).
    """

    name: ClassVar[str] = "stefan"
    equation: ClassVar[str] = "u_t = (k(u) u_x)_x, k = kappa where u >= u*, else 0"
    source: ClassVar[str] = "exact; settings of ECI (arXiv:2412.01786)"
    scheme: ClassVar[str] = "exact"
    channels: ClassVar[tuple[str, ...]] = ("u",)
    roles: ClassVar[Mapping[str, tuple[str, ...]]] = {"density": ("u",)}
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "eci": {},
        "eci-wide": {"duration": 1.0, "conductivity": (0.5, 2.0), "threshold": (0.3, 0.9)},
    }

    points: int = 100
    times: int = 100
    duration: float = 0.1
    conductivity: tuple[float, float] = (1.0, 1.0)
    threshold: tuple[float, float] = (0.55, 0.7)

    def __post_init__(self) -> None:
        if not self.duration > 0:
            raise ValueError(f"Stefan expects a positive duration; got {self.duration}.")
        self.expect_range("threshold", 0.0, 1.0)
        self.expect_range("conductivity", 0.0)

    @property
    def grid(self) -> Grid:
        return Grid(Axis("time", self.times, length=self.duration), Axis("x", self.points, length=1.0))

    @property
    def laws(self) -> tuple[str, ...]:
        return ("bounds:lower=0,upper=1", "dirichlet:axis=x,side=lower,value=1")

    def simulate(self, streams: Sequence[torch.Generator], device: torch.device) -> tuple[Tensor, dict[str, Tensor]]:
        conductivity, threshold = (drawn.to(device) for drawn in uniform(streams, self.conductivity, self.threshold))
        front = 2 * conductivity.sqrt() * similarity(threshold)
        parameters = {"conductivity": conductivity, "threshold": threshold, "front": front}
        return self.solution(parameters), parameters

    def solution(self, parameters: Mapping[str, Tensor]) -> Tensor:
        r"""The exact fields, (N, 1, T, X); `front` is $\alpha$, the front's position at t = 1."""
        conductivity, threshold, front = (parameters[name][:, None, None] for name in ("conductivity", "threshold", "front"))
        time, x = self.grid.mesh(front)
        reached = x <= front * time.sqrt()
        width = 2 * (conductivity * torch.where(time > 0, time, 1.0)).sqrt()
        profile = torch.erf(x / width) / torch.erf(front / (2 * conductivity.sqrt()))
        return torch.where(reached, 1 - (1 - threshold) * profile, 0.0)[:, None]

    def mass(self, parameters: Mapping[str, Tensor]) -> Tensor:
        r"""$\int u\,dx$ at each time, (N, T), on the half-line: what came in, $2(1 - u^*)\sqrt{\kappa t/\pi}/\operatorname{erf} z$."""
        conductivity, threshold, front = (parameters[name][:, None] for name in ("conductivity", "threshold", "front"))
        time = self.grid.axes[0].positions(front)
        return 2 * (1 - threshold) * (conductivity * time / math.pi).sqrt() / torch.erf(front / (2 * conductivity.sqrt()))

    def constraint(self, parameters: Mapping[str, Tensor]) -> Constraint:
        grid, u = self.grid, self.solution(parameters)
        return Intersection(
            InitialCondition(grid, u[:, :, 0]),
            Dirichlet(grid, "x", "lower", 1.0),
            Dirichlet(grid, "x", "upper", u[:, 0, :, -1]),
            Bounds(0.0, 1.0),
        )


def similarity(threshold: Tensor) -> Tensor:
    r"""The root z of $u^*\sqrt\pi\,z\,e^{z^2}\operatorname{erf} z = 1 - u^*$, by bisection: the left side grows with z.

    Example:
        >>> z = similarity(torch.tensor([0.5], dtype=torch.float64))
        >>> (math.sqrt(math.pi) * z * torch.exp(z.square()) * torch.erf(z)).round(decimals=12).tolist()
        [1.0]
    """
    low, high = torch.zeros_like(threshold), torch.full_like(threshold, 6.0)  # reached for a threshold of 1e-17
    for _ in range(64):
        z = (low + high) / 2
        above = threshold * math.sqrt(math.pi) * z * torch.exp(z.square()) * torch.erf(z) > 1 - threshold
        low, high = torch.where(above, low, z), torch.where(above, z, high)
    return (low + high) / 2
