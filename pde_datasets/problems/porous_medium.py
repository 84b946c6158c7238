r"""The porous-medium equation with a wave that runs into dry ground, exactly.

$$u_t = (u^m u_x)_x,\qquad u(x, t) = \big(m\,(t - x)_+\big)^{1/m},\qquad x\in[0, 1],\; t\in[0, 1].$$

The pressure $u^m$ is linear behind the front x = t, where the flux $-u^m u_x = u$ vanishes: a weak solution, steeper the larger m, from
the inflow $u(0, t) = (mt)^{1/m}$.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from constraints import Axis, Constraint, Dirichlet, Grid, InitialCondition, Intersection, positivity
from pde_datasets.problem import Problem, uniform


@dataclass(frozen=True)
class PorousMedium(Problem):
    r"""Wetting fronts: space-time fields on (time, x).

    Laws, all to round-off: no fluid at first, values at both ends, none negative. Values do not rise with x nor fall in time either, which
    `Monotone` says for those who want it: projections take much longer with it. Mass (`mass`) is exact in the continuum; by the
    trapezoidal rule, as ProbConserv and ECI measure it, only to order $1 + 1/m$ in the spacing (2 for m < 1) because of the front, and is
    not among the laws.

    Attributes:
        points: points in space, both ends included.
        times: stored times, the initial one included; they are equally spaced on [0, 1].
        exponent: range of m, drawn uniformly.

    Source:
        Vázquez, The Porous Medium Equation (2007), chapter 4, travelling waves; Hansen et al., ICML 2023 (arXiv:2302.11002).
    """

    name: ClassVar[str] = "porous-medium"
    equation: ClassVar[str] = "u_t = (u^m u_x)_x"
    source: ClassVar[str] = "exact; settings of ECI (arXiv:2412.01786) and ProbConserv (arXiv:2302.11002)"
    scheme: ClassVar[str] = "exact"
    channels: ClassVar[tuple[str, ...]] = ("u",)
    roles: ClassVar[Mapping[str, tuple[str, ...]]] = {"density": ("u",)}
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"eci": {}, "probconserv": {}}

    points: int = 100
    times: int = 100
    exponent: tuple[float, float] = (1.0, 6.0)

    def __post_init__(self) -> None:
        self.expect_range("exponent", 0.0)

    @property
    def grid(self) -> Grid:
        return Grid(Axis("time", self.times, length=1.0), Axis("x", self.points, length=1.0))

    @property
    def laws(self) -> tuple[str, ...]:
        return ("positivity", "dirichlet:axis=x,side=upper,value=0")

    def simulate(self, streams: Sequence[torch.Generator], device: torch.device) -> tuple[Tensor, dict[str, Tensor]]:
        (exponent,) = uniform(streams, self.exponent)
        exponent = exponent.to(device)
        return self.solution(exponent), {"exponent": exponent}

    def solution(self, exponent: Tensor) -> Tensor:
        """The exact fields, (N, 1, T, X)."""
        time, x = self.grid.mesh(exponent)
        return wetting_front(time, x, exponent[:, None, None])[:, None]

    def mass(self, exponent: Tensor) -> Tensor:
        r"""$\int u\,dx = m^{1 + 1/m}\,t^{1 + 1/m}/(m + 1)$ at each time, (N, T): what came in, $\int_0^t u(0, s)\,ds$."""
        m, time = exponent[:, None], self.grid.axes[0].positions(exponent)
        return (m * time) ** (1 + 1 / m) / (m + 1)

    def constraint(self, parameters: Mapping[str, Tensor]) -> Constraint:
        grid, u = self.grid, self.solution(parameters["exponent"])
        return Intersection(
            InitialCondition(grid, u[:, :, 0]),
            Dirichlet(grid, "x", "lower", u[:, 0, :, 0]),
            Dirichlet(grid, "x", "upper", 0.0),
            positivity(),
        )


def wetting_front(time: Tensor, x: Tensor, exponent: Tensor) -> Tensor:
    r"""$(m\,(t - x)_+)^{1/m}$ at any times, places and exponents that broadcast.

    Example:
        >>> wetting_front(torch.tensor(1.0), torch.tensor([0.0, 0.5, 2.0]), torch.tensor(2.0)).square().round(decimals=6).tolist()
        [2.0, 1.0, 0.0]
    """
    return (exponent * (time - x).clamp_min(0)) ** (1 / exponent)
