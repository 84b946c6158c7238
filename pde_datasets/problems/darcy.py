r"""Darcy flow: the pressure of a fluid that seeps through a random medium.

$$-\nabla\cdot(a\nabla u) = f\quad\text{on } [0, 1]^2,$$

with the coefficient a (permeability over viscosity) drawn at random and the pressure u solved for by finite volumes with harmonic means
(`pde_datasets.solvers.elliptic`). Two ways to drive the flow:

* `uniform`: f is a constant, and u = 0 on all walls;
* `corners`: fluid enters through a square of width 1/8 in the corner (0, 0) and leaves through one at (1, 1), at rates f and -f; the walls
  are closed, and u has zero mean.

Four kinds of coefficient: a Gaussian field cut into two values, its exponential, the exponential of a truncated Karhunen-Loeve expansion,
and a sum of five bumps cut into two values.

The laws are those of the scheme: the balance of every control volume, bilinear in pressure and face coefficients, holds to round-off.
What all of them sum to, that as much leaves through the walls as f gives, follows and is not a law of its own; the parameter `loss` is
what leaves.

Published data sets differ in how they were solved: those of FNO and DiffusionPDE interpolate a by splines to nodes, take arithmetic means,
interpolate u back and, for FNO, keep some of the points; those of PDEBench stop a time march and hold u = 0 half a cell outside; those
of PIDM solve a not conservative system by least squares. No discrete law survives that. The presets keep the published equation,
distribution and points, where not stated otherwise, and solve on the points that are kept.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from constraints import Axis, Constraint, Dirichlet, Grid, Intersection, Mass
from pde_datasets.problem import Problem
from pde_datasets.random_fields import cosine_fields, karhunen_loeve
from pde_datasets.solvers.elliptic import ControlVolumes
from pde_datasets.solvers.elliptic_laws import FlowBalance

COEFFICIENTS = ("two-phase", "log-normal", "karhunen-loeve", "bumps")
DRIVES = ("uniform", "corners")

_WELL = 0.125
"""Width of the squares that fluid enters and leaves through (Zhu & Zabaras, J. Comput. Phys. 366 (2018) 415)."""


@dataclass(frozen=True)
class Darcy(Problem):
    r"""Pairs of coefficient and pressure on (x, y).

    Attributes:
        points: points an axis.
        cells: the points are centres of cells; else they are nodes, the outer ones on the walls.
        coefficient: its kind, with g the Gaussian field of `shape`:
            "two-phase", the smaller of `values` where g < 0 and the larger elsewhere;
            "log-normal" and "karhunen-loeve", exp(m + s g), with `values` (m, s);
            "bumps", `values` as for "two-phase", by whether a sum of bumps exceeds its mean over all samples.
        shape: what g is, two numbers:
            $(\alpha, \tau)$ for "two-phase" and "log-normal": $N(0, \tau^{2(\alpha-1)}(-\nabla^2 + \tau^2)^{-\alpha})$, no flux at walls;
            (length, terms) for "karhunen-loeve": the leading terms of the covariance $e^{-r/\ell}$;
            (number, width) for "bumps": $\sum_j e^{-|x - x_j|^2/s_j}$, $x_j$ uniform on the box, $s_j$ uniform on [0, width].
        values: see `coefficient`.
        drive: "uniform" or "corners".
        strength: the source f.
    """

    name: ClassVar[str] = "darcy"
    equation: ClassVar[str] = "-div(a grad u) = f"
    source: ClassVar[str] = (
        "finite volumes with harmonic means; coefficients of Li et al., ICLR 2021, "
        "Huang et al., arXiv:2406.17763 (DiffusionPDE), Bastek et al., arXiv:2403.14404 (PIDM), "
        "Takamoto et al., arXiv:2210.07182 (PDEBench)"
    )
    scheme: ClassVar[str] = "five-point finite volumes, harmonic means"
    channels: ClassVar[tuple[str, ...]] = ("coefficient", "pressure")
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "fno": {"points": 421},  # published data keep some of these points; here `points` are solved on
        "diffusionpde": {"points": 128},
        "pidm": {  # weights are standard normal; the generator of CoCoGen, arXiv:2312.10527, draws them uniformly from [0, 2.5]
            "points": 64, "cells": False, "coefficient": "karhunen-loeve", "shape": (0.1, 128.0), "values": (0.0, 1.0),
            "drive": "corners", "strength": 10.0,
        },
        "pdebench": {"points": 128, "coefficient": "bumps", "shape": (5.0, 0.5), "values": (0.1, 1.0), "strength": 1.0},
    }  # fmt: skip

    points: int = 64
    cells: bool = True
    coefficient: str = "two-phase"
    shape: tuple[float, float] = (2.0, 3.0)
    values: tuple[float, float] = (3.0, 12.0)
    drive: str = "uniform"
    strength: float = 1.0

    def __post_init__(self) -> None:
        if self.coefficient not in COEFFICIENTS or self.drive not in DRIVES:
            raise ValueError(
                f"Darcy expects a coefficient among {', '.join(COEFFICIENTS)} and a drive among {', '.join(DRIVES)}; "
                f"got '{self.coefficient}' and '{self.drive}'."
            )
        if self.points < 4:
            raise ValueError(f"Darcy expects at least 4 points an axis; got {self.points}.")
        first, second = self.shape
        if self.coefficient in ("two-phase", "log-normal"):
            if not (first > 1 and second > 0):
                raise ValueError(f"Darcy expects a shape (alpha, tau) with alpha > 1, tau > 0; got {self.shape}.")
        elif self.coefficient == "karhunen-loeve":
            if not (first > 0 and second == int(second) and 1 <= second <= self.points**2):
                raise ValueError(
                    f"Darcy expects a shape (length, terms) with a positive length and 1 to {self.points**2} terms; got {self.shape}."
                )
        elif not (first == int(first) and first >= 1 and second > 0):
            raise ValueError(f"Darcy expects a shape (number, width) with at least one bump of positive width; got {self.shape}.")
        low, high = self.values
        if self._two_valued and not 0 < low < high < math.inf:
            raise ValueError(f"Darcy expects two positive values of the coefficient, the smaller first; got {self.values}.")
        if not self._two_valued and not (math.isfinite(low) and 0 < high < math.inf):
            raise ValueError(f"Darcy expects a mean and a positive deviation of the coefficient's logarithm; got {self.values}.")
        if self.strength == 0 or not math.isfinite(self.strength):
            raise ValueError(f"Darcy expects a strength of the source that is finite and not zero; got {self.strength}.")

    @property
    def grid(self) -> Grid:
        origin = 0.5 / self.points if self.cells else 0.0
        return Grid(*(Axis(name, self.points, length=1.0, origin=origin, cells=self.cells) for name in ("x", "y")))

    @property
    def laws(self) -> tuple[str, ...]:
        """No pressure has the other sign than a uniform source, by the scheme's maximum principle."""
        low, high = self.values
        laws = [f"bounds:lower={low},upper={high},channels=coefficient" if self._two_valued else "positivity:channels=coefficient"]
        if self.drive == "corners":
            return (*laws, "mass:value=0,channels=pressure")
        laws.append(f"bounds:{'lower' if self.strength > 0 else 'upper'}=0,channels=pressure")
        if not self.cells:
            laws += [f"dirichlet:axis={axis},side={side},value=0,channels=pressure" for axis, side in _WALLS]
        return tuple(laws)

    def simulate(self, streams: Sequence[torch.Generator], device: torch.device) -> tuple[Tensor, dict[str, Tensor]]:
        box, a = self.volumes().to(device), self._coefficients(streams).to(device)
        u = box.solve(a, self.sources().to(device))
        strength = torch.full((len(streams),), self.strength, dtype=torch.float64, device=device)
        return torch.stack([a, u], dim=1), {"strength": strength, "loss": box.loss(u, a)}

    def volumes(self) -> ControlVolumes:
        """The control volumes of the scheme."""
        return ControlVolumes(self.grid, "zero" if self.drive == "uniform" else "no-flux")

    def sources(self) -> Tensor:
        """The source integrated over each control volume, (*N): exact, whatever part of a volume the corner squares cover."""
        volumes = self.grid.weights().expand(self.grid.shape)
        if self.drive == "uniform":
            return self.strength * volumes
        x, y = (_covered(axis) for axis in self.grid.axes)
        inlet = x[:, None] * y
        return self.strength * (inlet - inlet.flip(0, 1))

    def constraint(self, parameters: Mapping[str, Tensor]) -> Constraint:
        """The balance of every control volume, and wall values of nodes or the zero mean."""
        equation = FlowBalance(self.volumes(), self.sources())
        if self.drive == "corners":
            return Intersection(equation, Mass(self.grid, 0.0, component=1, channels=2))
        if self.cells:
            return equation
        return Intersection(equation, *(Dirichlet(self.grid, axis, side, 0.0, components=[1], channels=2) for axis, side in _WALLS))

    @property
    def _two_valued(self) -> bool:
        return self.coefficient in ("two-phase", "bumps")

    def _coefficients(self, streams: Sequence[torch.Generator]) -> Tensor:
        """Random coefficients, (N, *N)."""
        first, second = self.shape
        low, high = self.values
        if self.coefficient == "bumps":
            bumps = random_bumps(self.grid, int(first), second, streams)
            return torch.where(bumps > int(first) * mean_bump(second), bumps.new_tensor(high), bumps.new_tensor(low))
        if self.coefficient == "karhunen-loeve":
            modes = _exponential_modes(self.grid, first, int(second))
            weights = torch.stack([torch.randn(int(second), generator=g, dtype=torch.float64) for g in streams])
            g = (weights @ modes.flatten(1)).unflatten(1, self.grid.shape)
        else:
            g = cosine_fields(self.grid, lambda k: second ** (first - 1) * (k**2 + second**2) ** (-first / 2), streams)
        return torch.where(g < 0, g.new_tensor(low), g.new_tensor(high)) if self._two_valued else torch.exp(low + high * g)


_WALLS = tuple((axis, side) for axis in ("x", "y") for side in ("lower", "upper"))


def _covered(axis: Axis) -> Tensor:
    """Length of each control volume of an axis that lies within a well's width of the lower wall."""
    weights = axis.weights()
    upper = weights.cumsum(0)
    return (_WELL - (upper - weights)).clamp_min(0).minimum(weights)


@functools.lru_cache(maxsize=4)
def _exponential_modes(grid: Grid, length: float, terms: int) -> Tensor:
    return karhunen_loeve(grid, lambda r: torch.exp(-r / length), terms)


def random_bumps(grid: Grid, number: int, width: float, streams: Sequence[torch.Generator]) -> Tensor:
    r"""$\sum_j e^{-|x - x_j|^2/s_j}$ with centres uniform on the unit square and $s_j$ on [0, width], (N, *N)."""
    unit = torch.stack([torch.rand(3, number, 1, 1, generator=g, dtype=torch.float64) for g in streams])
    x, y = grid.mesh()
    return torch.exp(-((x - unit[:, 0]) ** 2 + (y - unit[:, 1]) ** 2) / (width * unit[:, 2])).sum(1)


def mean_bump(width: float) -> float:
    r"""The mean of one such bump over the square and over all bumps.

    PDEBench cuts at the mean over the samples of one run, which this is in the limit of many: a sample must not depend on its company.
    With $g(s) = \int_0^1\int_0^1 e^{-(x - y)^2/s}\,dx\,dy = \sqrt{\pi s}\,\mathrm{erf}(s^{-1/2}) - s\,(1 - e^{-1/s})$ it is the mean of
    $g^2$ over s, by the midpoint rule on a thousand intervals: $g^2$ is smooth and vanishes like s.
    """
    s = width * (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    g = torch.sqrt(math.pi * s) * torch.erf(s.rsqrt()) - s * (1 - torch.exp(-1 / s))
    return g.square().mean().item()
