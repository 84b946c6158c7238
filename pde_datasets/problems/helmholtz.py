r"""Helmholtz's equation with random sources, exactly for the five-point symbol.

$$\nabla^2 u + k^2 u = f\quad\text{on } [0, 1]^2,\qquad u = 0\text{ on the walls},$$

on nodes $x_i = i/(n-1)$; Poisson's equation is the case k = 0. The source is a Gaussian field in the cosine basis. Sines diagonalise the
five-point Laplacian: u is exact for the scheme, and of second order for the equation. The law is the scheme at every inner node, linear in
source and response, integrated over the node's control volume.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from constraints import Axis, Constraint, Dirichlet, Grid, Intersection, LinearConstraint
from pde_datasets.problem import Problem
from pde_datasets.random_fields import cosine_fields
from pde_datasets.solvers.elliptic import ControlVolumes, eigenvalues
from pde_datasets.solvers.elliptic_laws import SourceResponse

_RESONANCE = 1e-6
"""Least relative distance of k^2 from an eigenvalue: nearer, six digits of the response are one mode's."""


@dataclass(frozen=True)
class Helmholtz(Problem):
    r"""Pairs of source and response on (x, y).

    Attributes:
        points: nodes an axis, those on the walls included.
        wavenumber: k.
        alpha: smoothness of the source, $N(0, \tau^{2(\alpha-1)}(-\nabla^2 + \tau^2)^{-\alpha})$; more than 1.
        tau: inverse length of the source.
    """

    name: ClassVar[str] = "helmholtz"
    equation: ClassVar[str] = "lap u + k^2 u = f"
    source: ClassVar[str] = "five-point Laplacian inverted by sines; settings of Huang et al., arXiv:2406.17763 (DiffusionPDE)"
    scheme: ClassVar[str] = "five-point, fast diagonalisation"
    channels: ClassVar[tuple[str, ...]] = ("source", "u")
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"diffusionpde": {"points": 128, "wavenumber": 1.0}}

    points: int = 64
    wavenumber: float = 1.0
    alpha: float = 2.0
    tau: float = 3.0

    def __post_init__(self) -> None:
        check_sources(self.name, self.points, self.alpha, self.tau)
        if not 0 <= self.wavenumber < math.inf:
            raise ValueError(f"Helmholtz expects a finite wavenumber that is not negative; got {self.wavenumber}.")
        line = eigenvalues(self.grid.axes[0], "zero")
        nearest = (line[:, None] + line - self.wavenumber**2).abs().min().item()
        if nearest <= _RESONANCE * self.wavenumber**2:
            raise ValueError(
                f"Helmholtz expects a wavenumber whose square is not an eigenvalue of the scheme; k = {self.wavenumber} is within "
                f"{nearest:.1e} of one on {self.points} points. Change either."
            )

    @property
    def grid(self) -> Grid:
        return square(self.points)

    @property
    def laws(self) -> tuple[str, ...]:
        return WALL_LAWS

    def simulate(self, streams: Sequence[torch.Generator], device: torch.device) -> tuple[Tensor, dict[str, Tensor]]:
        fields, parameters = respond(random_sources(self.grid, self.alpha, self.tau, streams).to(device), self.grid, self.wavenumber)
        return fields, {"wavenumber": torch.full_like(parameters["loss"], self.wavenumber), **parameters}

    def constraint(self, parameters: Mapping[str, Tensor]) -> Constraint:
        return response_law(self.grid, self.wavenumber)


SIDES = tuple((axis, side) for axis in ("x", "y") for side in ("lower", "upper"))

WALL_LAWS = tuple(f"dirichlet:axis={axis},side={side},value=0,channels=u" for axis, side in SIDES)


def square(points: int) -> Grid:
    """Nodes of the unit square."""
    return Grid(*(Axis(name, points, length=1.0) for name in ("x", "y")))


def check_sources(name: str, points: int, alpha: float, tau: float) -> None:
    """Raise a `ValueError` unless there are inner nodes and sources of finite variance."""
    if points < 4:
        raise ValueError(f"problem '{name}' expects at least 4 points an axis; got {points}.")
    if not (1 < alpha < math.inf and 0 < tau < math.inf):
        raise ValueError(f"problem '{name}' expects alpha > 1 and tau > 0, else its sources have no variance; got {alpha} and {tau}.")


def random_sources(grid: Grid, alpha: float, tau: float, streams: Sequence[torch.Generator]) -> Tensor:
    """Gaussian sources, (N, *N)."""
    return cosine_fields(grid, lambda k: tau ** (alpha - 1) * (k**2 + tau**2) ** (-alpha / 2), streams)


def respond(f: Tensor, grid: Grid, wavenumber: float) -> tuple[Tensor, dict[str, Tensor]]:
    r"""Sources (N, *N) with their responses, (N, 2, *N), and `loss`, the flow $-\oint\partial_n u$ out of the inner volumes, (N,)."""
    box = ControlVolumes(grid, "zero").to(f.device)
    u = box.invert(-f * box.volumes, -(wavenumber**2))
    return torch.stack([f, u], dim=1), {"loss": box.loss(u)}


def response_law(grid: Grid, wavenumber: float) -> Constraint:
    """The scheme at all inner nodes, and u = 0 on the walls."""
    equation = LinearConstraint(SourceResponse(ControlVolumes(grid, "zero"), -(wavenumber**2)), torch.zeros(1, dtype=torch.float64))
    equation.name, equation.unit = "five-point equation", "source times volume"
    return Intersection(equation, *(Dirichlet(grid, axis, side, 0.0, components=[1], channels=2) for axis, side in SIDES))
