r"""Poisson's equation with random sources, exactly for the five-point symbol: Helmholtz's at wavenumber zero.

$$\nabla^2 u = f\quad\text{on } [0, 1]^2,\qquad u = 0\text{ on the walls}.$$
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from constraints import Constraint, Grid
from pde_datasets.problem import Problem
from pde_datasets.problems.helmholtz import WALL_LAWS, check_sources, random_sources, respond, response_law, square


@dataclass(frozen=True)
class Poisson(Problem):
    r"""Pairs of source and response on (x, y).

    Attributes:
        points: nodes an axis, those on the walls included.
        alpha: smoothness of the source, $N(0, \tau^{2(\alpha-1)}(-\nabla^2 + \tau^2)^{-\alpha})$; more than 1.
        tau: inverse length of the source.
    """

    name: ClassVar[str] = "poisson"
    equation: ClassVar[str] = "lap u = f"
    source: ClassVar[str] = "five-point Laplacian inverted by sines; settings of Huang et al., arXiv:2406.17763 (DiffusionPDE)"
    scheme: ClassVar[str] = "five-point, fast diagonalisation"
    channels: ClassVar[tuple[str, ...]] = ("source", "u")
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"diffusionpde": {"points": 128}}

    points: int = 64
    alpha: float = 2.0
    tau: float = 3.0

    def __post_init__(self) -> None:
        check_sources(self.name, self.points, self.alpha, self.tau)

    @property
    def grid(self) -> Grid:
        return square(self.points)

    @property
    def laws(self) -> tuple[str, ...]:
        return WALL_LAWS

    def simulate(self, streams: Sequence[torch.Generator], device: torch.device) -> tuple[Tensor, dict[str, Tensor]]:
        return respond(random_sources(self.grid, self.alpha, self.tau, streams).to(device), self.grid, 0.0)

    def constraint(self, parameters: Mapping[str, Tensor]) -> Constraint:
        return response_law(self.grid, 0.0)
