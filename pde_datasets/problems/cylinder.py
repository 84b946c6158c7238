r"""The wake of a circular cylinder.

$$\partial_t\mathbf u + \mathbf u\cdot\nabla\mathbf u = -\nabla p + \nu\nabla^2\mathbf u,\qquad \nabla\cdot\mathbf u = 0,\qquad
\mathbf u = 0 \text{ on } |\mathbf x| = \tfrac12,$$

inflow (1, 0), diameter 1, $\mathrm{Re} = 1/\nu$; slip sides, convective outflow. Cells are equal squares around the cylinder and in the
near wake, and grow from there to the ends. The surface is an immersed boundary whose points do not slip, exactly: `ImmersedBody`. It is
smoothed over three cells, which stops the flow about a quarter of a cell ahead: forces converge with first order in the width of the cells.

Sides squeeze the flow past the cylinder: at Re 100, drag is 0.5 % and the shedding frequency 0.4 % larger with sides at 20 diameters than
at 60.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from constraints import Axis, Balance, Constraint, Dirichlet, DivergenceFree, Grid, Intersection
from pde_datasets.problem import Problem, uniform
from pde_datasets.solvers.immersed import ImmersedBody, circle
from pde_datasets.solvers.mac import End, Given, MacFlow, Outflow, Slip, step
from pde_datasets.steps import expect

_AROUND = 0.75
"""Half the length and height of the box of equal cells around the centre, in diameters; at least four cells beyond the surface."""

_SPACING = 1.25
"""Distance of the surface's points in cells: near enough for no leak, and the Schur complement well conditioned."""

_SPEED = 1.5
"""Bound of the velocity along each axis, for the time step; its components are not large at the same place."""


@dataclass(frozen=True)
class Cylinder(Problem):
    """Flow past a cylinder: velocities on (time, x, y), cells stretched away from it.

    Parameters hold `drag` and `lift`, (N, times - 1): force coefficients $2F/U^2D$, means over the time between stored fields.

    Attributes:
        resolution: cells a diameter.
        upstream: distance of the inflow in diameters.
        downstream: distance of the outflow.
        side: distance of the sides.
        wake: length of equal cells behind the centre.
        growth: largest ratio of the widths of neighbouring cells elsewhere.
        reynolds: range of the Reynolds number, drawn uniformly; vortices are shed above 47.
        disturbance: strength of a vortex behind the cylinder at time 0, at a random place, that starts the shedding.
        spin_up: time before the first stored field.
        times: stored times; the first is at spin_up.
        duration: time from the first stored field to the last; they are duration / (times - 1) apart.
        courant: time step as a share of the longest stable one.
    """

    name: ClassVar[str] = "cylinder"
    equation: ClassVar[str] = "u_t + u.grad u = -grad p + nu lap u, div u = 0; u = 0 at |x| = 1/2, (1, 0) at the inflow"
    source: ClassVar[str] = "Taira & Colonius, J. Comput. Phys. 225 (2007) 2118; Koumoutsakos & Leonard, J. Fluid Mech. 296 (1995) 1"
    scheme: ClassVar[str] = "marker-and-cell, central skew-symmetric; immersed boundary projection; projected RK4"
    channels: ClassVar[tuple[str, ...]] = ("u", "v")
    units: ClassVar[tuple[str, ...]] = ("m s-1", "m s-1")
    roles: ClassVar[Mapping[str, tuple[str, ...]]] = {"velocity": ("u", "v")}
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "re100": {"reynolds": (100.0, 100.0), "resolution": 20, "upstream": 20.0, "downstream": 25.0, "side": 60.0, "spin_up": 60.0},
    }

    resolution: int = 16
    upstream: float = 8.0
    downstream: float = 16.0
    side: float = 8.0
    wake: float = 3.0
    growth: float = 1.06
    reynolds: tuple[float, float] = (60.0, 180.0)
    disturbance: float = 0.5
    spin_up: float = 40.0
    times: int = 16
    duration: float = 12.0
    courant: float = 0.9

    def __post_init__(self) -> None:
        if self.resolution < 8 or self.times < 2:
            raise ValueError(f"Cylinder expects at least 8 cells a diameter and two times; got {self.resolution} and {self.times}.")
        if not (self.upstream >= 2 and self.side >= 2 and self.wake >= 1 and self.downstream >= self.wake + 1 and self.growth > 1):
            raise ValueError(
                f"Cylinder expects ends at least 2 diameters away, equal cells up to 1 or more behind the centre, an outflow at least 1 "
                f"behind those, and cells that grow; got upstream {self.upstream}, side {self.side}, wake {self.wake}, "
                f"downstream {self.downstream}, growth {self.growth}."
            )
        self.expect_range("reynolds", 0.0)
        if self.spin_up < 0 or self.duration <= 0 or not 0 < self.courant <= 1:
            raise ValueError(
                f"Cylinder expects a spin-up that is not negative, a positive duration and 0 < courant <= 1; "
                f"got {self.spin_up}, {self.duration} and {self.courant}."
            )

    @property
    def grid(self) -> Grid:
        width = 1 / self.resolution
        around = width * max(math.ceil(_AROUND * self.resolution), self.resolution // 2 + 5)
        behind = width * round(self.wake * self.resolution)
        x = stretched(-self.upstream, -around, behind, self.downstream, width, self.growth)
        y = stretched(-self.side, -around, around, self.side, width, self.growth)
        return Grid(Axis("time", self.times, length=self.duration, origin=self.spin_up), Axis.at("x", x), Axis.at("y", y))

    @property
    def laws(self) -> tuple[str, ...]:
        return (
            "divergence-free:scheme=staggered",
            "dirichlet:axis=x,side=lower,value=1,channels=u",
            "dirichlet:axis=y,side=lower,value=0,channels=v",
            "dirichlet:axis=y,side=upper,value=0,channels=v",
        )

    def simulate(self, streams: Sequence[torch.Generator], device: torch.device) -> tuple[Tensor, dict[str, Tensor]]:
        reynolds, place = (drawn.to(device) for drawn in uniform(streams, self.reynolds, (-0.5, 0.5)))
        body = self.body(1 / reynolds)
        expect(self._steps(body, self.spin_up) + (self.times - 1) * self._steps(body, self.grid.axes[0].spacing))
        u, _ = self.march(body, self.impulsive(body, place), self.spin_up)
        states, forces = [u], []
        for _ in range(self.times - 1):
            u, force = self.march(body, u, self.grid.axes[0].spacing)
            states.append(u)
            forces.append(force.mean(2))
        drag, lift = torch.stack(forces, dim=2).unbind(1)
        fields = body.flow.complete(torch.stack(states, dim=2).movedim(2, 1).flatten(0, 1)).unflatten(0, (-1, self.times)).movedim(1, 2)
        return fields, {"reynolds": reynolds, "viscosity": 1 / reynolds, "drag": drag, "lift": lift}

    def body(self, viscosity: Tensor) -> ImmersedBody:
        """The cylinder in its flow."""
        ends: dict[str, tuple[End, End]] = {"x": (Given((1.0, 0.0)), Outflow(1.0)), "y": (Slip(), Slip())}
        flow = MacFlow(self.grid, viscosity, ends, device=viscosity.device)
        return ImmersedBody(flow, circle(1.0, _SPACING / self.resolution))

    def impulsive(self, body: ImmersedBody, place: Tensor) -> Tensor:
        """Potential flow past the cylinder, set in motion at once, and the disturbing vortex at heights (N,)."""
        x, y = self.grid.space.mesh(place)
        psi = self.disturbance * torch.exp(-2 * ((x - 1.2) ** 2 + (y - place[:, None, None]) ** 2))
        u = body.flow.curl(psi)
        u[:, 0] += 1.0
        return body.project(body.flow.complete(u))[0]

    def march(self, body: ImmersedBody, u: Tensor, time: float) -> tuple[Tensor, Tensor]:
        """The fields a time later, and the force coefficients of every step on the way, (N, 2, steps): drag and lift."""
        steps = self._steps(body, time)
        forces = []
        for _ in range(steps):
            u, impulse, _ = step(u, time / steps, body.flow.rate, body.project)
            forces.append(2 * impulse.sum(2) * steps / time)
        return u, torch.stack(forces, dim=2) if forces else u.new_zeros(len(u), 2, 0)

    def _steps(self, body: ImmersedBody, time: float) -> int:
        """Time steps that a time takes."""
        return math.ceil(time / (self.courant * body.flow.stable_step(_SPEED, 1 / self.reynolds[0])))

    def constraint(self, parameters: Mapping[str, Tensor]) -> Constraint:
        grid = self.grid
        rows = self.body(parameters["viscosity"]).matrix(self.times)
        return Intersection(
            DivergenceFree(grid, "staggered"),
            Dirichlet(grid, "x", "lower", 1.0, components=[0], channels=2),
            *(Dirichlet(grid, "y", side, 0.0, components=[1], channels=2) for side in ("lower", "upper")),
            Balance(rows, shape=(2, *grid.shape), name="no slip on the cylinder"),
        )


def stretched(first: float, start: float, stop: float, last: float, width: float, growth: float) -> list[float]:
    """Points from first to last: equal cells of about a width from start to stop, growing by at most a ratio from there to both ends."""
    count = round((stop - start) / width)
    width = (stop - start) / count
    below, above = (_tail(length, width, growth) for length in (start - first, last - stop))
    return [*(start - x for x in reversed(below)), *(start + i * width for i in range(count + 1)), *(stop + x for x in above)]


def _tail(length: float, width: float, growth: float) -> list[float]:
    """Distances of the ends of cells from where they begin to grow: the fewest that reach a length, at the ratio that meets it."""
    count = 1
    while _reach(width, growth, count) < length:
        count += 1
    low, high = 1.0, growth
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _reach(width, middle, count) < length else (low, middle)
    scale = length / _reach(width, high, count)
    return [scale * _reach(width, high, k) for k in range(1, count + 1)]


def _reach(width: float, ratio: float, count: int) -> float:
    return math.fsum(width * ratio**k for k in range(1, count + 1))
