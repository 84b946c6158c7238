r"""Flow in a square box under a moving lid.

$$\partial_t\mathbf u + \mathbf u\cdot\nabla\mathbf u = -\nabla p + \nu\nabla^2\mathbf u,\qquad
\nabla\cdot\mathbf u = 0 \quad\text{on } [0, 1]^2,$$

at rest on three walls, $\mathbf u = (U, 0)$ on the lid y = 1, $\mathrm{Re} = U/\nu$. On the staggered grid of `MacFlow`: walls without flow
through them are stored as such, and the last row of u is the lid. In two dimensions the steady flow is stable up to Re of about 8000.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from constraints import Axis, Constraint, Dirichlet, DivergenceFree, Grid, InitialCondition, Intersection, no_penetration
from pde_datasets.problem import Problem, uniform
from pde_datasets.solvers.mac import Given, MacFlow, step
from pde_datasets.solvers.steady import fixed_point

_STEADY = 1e-12
"""Change over one map of the steady search, as a share of the lid's speed, at which a flow is steady: a few units of round-off."""


@dataclass(frozen=True)
class Cavity(Problem):
    """Lid-driven cavity: velocities on (x, y) at the steady state, or on (time, x, y) from rest.

    Attributes:
        cells: cells an axis; fields have one more point an axis, in the layout of `DivergenceFree(grid, "staggered")`.
        reynolds: range of the Reynolds number, drawn uniformly.
        lid: range of the lid's speed, drawn uniformly.
        times: stored times, the initial one included (rest); 1 for the steady state, whose grid has no time.
        duration: time from the first stored field to the last; they are duration / (times - 1) apart.
        courant: time step as a share of the longest stable one.
    """

    name: ClassVar[str] = "cavity"
    equation: ClassVar[str] = "u_t + u.grad u = -grad p + nu lap u, div u = 0; u = lid at y = 1, 0 at the other walls"
    source: ClassVar[str] = "Ghia, Ghia & Shin, J. Comput. Phys. 48 (1982) 387; Botella & Peyret, Comput. Fluids 27 (1998) 421"
    scheme: ClassVar[str] = "marker-and-cell, central skew-symmetric; projected RK4; steady states by Anderson acceleration"
    channels: ClassVar[tuple[str, ...]] = ("u", "v")
    units: ClassVar[tuple[str, ...]] = ("m s-1", "m s-1")
    roles: ClassVar[Mapping[str, tuple[str, ...]]] = {"velocity": ("u", "v")}
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "re100": {"cells": 128, "reynolds": (100.0, 100.0)},
        "re1000": {"cells": 128, "reynolds": (1000.0, 1000.0)},
    }

    cells: int = 64
    reynolds: tuple[float, float] = (100.0, 1000.0)
    lid: tuple[float, float] = (1.0, 1.0)
    times: int = 1
    duration: float = 10.0
    courant: float = 0.9

    def __post_init__(self) -> None:
        if self.cells < 3 or self.times < 1:
            raise ValueError(f"Cavity expects at least 3 cells an axis and one time; got {self.cells} and {self.times}.")
        self.expect_range("reynolds", 0.0)
        self.expect_range("lid", 0.0)
        if not 0 < self.courant <= 1 or self.duration <= 0:
            raise ValueError(f"Cavity expects a positive duration and 0 < courant <= 1; got {self.duration} and {self.courant}.")

    @property
    def grid(self) -> Grid:
        time = (Axis("time", self.times, length=self.duration),) if self.times > 1 else ()
        return Grid(*time, *(Axis(name, self.cells + 1, length=1.0) for name in ("x", "y")))

    @property
    def laws(self) -> tuple[str, ...]:
        return ("divergence-free:scheme=staggered", "no-penetration")

    def simulate(self, streams: Sequence[torch.Generator], device: torch.device) -> tuple[Tensor, dict[str, Tensor]]:
        reynolds, lid = (drawn.to(device) for drawn in uniform(streams, self.reynolds, self.lid))
        parameters = {"reynolds": reynolds, "lid": lid, "viscosity": lid / reynolds}
        if self.times > 1:
            return self.developing(reynolds, lid), parameters
        u, change = self.steady(reynolds)
        return lid[:, None, None, None] * u, {**parameters, "change": change}

    def flow(self, viscosity: Tensor, lid: Tensor | float) -> MacFlow:
        """The equations in the box."""
        wall = Given((0.0, 0.0))
        return MacFlow(self.grid, viscosity, {"x": (wall, wall), "y": (wall, Given((lid, 0.0)))}, device=viscosity.device)

    def _rest(self, flow: MacFlow, count: int) -> Tensor:
        return flow.complete(torch.zeros(count, 2, *flow.shape, dtype=torch.float64, device=flow.device))

    def _advance(self, flow: MacFlow, u: Tensor, time: float, speed: float, viscosity: float) -> Tensor:
        steps = math.ceil(time / (self.courant * flow.stable_step(speed, viscosity)))
        for _ in range(steps):
            u = step(u, time / steps, flow.rate, flow.project)[0]
        return u

    def developing(self, reynolds: Tensor, lid: Tensor) -> Tensor:
        """The fields from rest on, (N, 2, T, X, Y)."""
        flow = self.flow(lid / reynolds, lid)
        states = [self._rest(flow, len(lid))]
        for _ in range(self.times - 1):
            states.append(self._advance(flow, states[-1], self.grid.axes[0].spacing, self.lid[1], self.lid[1] / self.reynolds[0]))
        return torch.stack(states, dim=2)

    def steady(self, reynolds: Tensor) -> tuple[Tensor, Tensor]:
        """The steady flow under a lid of speed 1, (N, 2, X, Y), and its change over the last map; above 1e-12, it is not steady."""
        flow = self.flow(1 / reynolds, 1.0)
        viscosity = 1 / self.reynolds[0]
        period = min(4.0, 0.05 / viscosity)  # some turns of the lid, or a share of the time friction takes
        start = self._advance(flow, self._rest(flow, len(reynolds)), 2 * period, 1.0, viscosity)
        return fixed_point(lambda u: self._advance(flow, u, period, 1.0, viscosity), start, tolerance=_STEADY)

    def constraint(self, parameters: Mapping[str, Tensor]) -> Constraint:
        lid = parameters["lid"]
        inside = torch.ones(self.cells + 1, dtype=torch.float64, device=lid.device)
        inside[0] = inside[-1] = 0.0  # the corners belong to the walls at rest
        row = (lid[:, None, None, None] * inside).expand(-1, 1, self.times, -1)
        grid = self.grid
        laws: list[Constraint] = [
            DivergenceFree(grid, "staggered"),
            *no_penetration(grid),
            Dirichlet(grid, "y", "upper", row.flatten(1), components=[0], channels=2),
            Dirichlet(grid, "x", "upper", 0.0, components=[1], channels=2),
        ]
        if self.times > 1:
            laws.append(InitialCondition(grid, self._rest(self.flow(lid, lid), len(lid))))
        return Intersection(*laws)
