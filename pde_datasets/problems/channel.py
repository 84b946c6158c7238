r"""Plane channel flow under a pressure gradient, from rest or disturbed.

$$\partial_t\mathbf u + \mathbf u\cdot\nabla\mathbf u = -\nabla p + \nu\nabla^2\mathbf u + G\,\mathbf e_x,\qquad \nabla\cdot\mathbf u = 0,
\qquad \mathbf u = 0 \text{ at } y = 0, 1,$$

periodic along x. Steady and undisturbed, $u = \frac{G}{2\nu}\,y(1 - y)$, centreline velocity $U = G/8\nu$, $\mathrm{Re} = U/\nu$. On
cells of width h the scheme's own steady profile is $\frac{G}{2\nu}\big(y(1 - y) + h^2/4\big)$, exactly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from constraints import Axis, Budget, Constraint, Dirichlet, DivergenceFree, Grid, InitialCondition, Intersection, no_penetration
from pde_datasets.problem import Problem, uniform
from pde_datasets.solvers.mac import Given, MacFlow, step
from pde_datasets.steps import expect


@dataclass(frozen=True)
class Channel(Problem):
    """Channel flow: velocities on (time, x, y), x periodic.

    Momentum obeys its budget to round-off: the pressure gradient gives, the walls take what `friction` says, summed over the steps.

    Attributes:
        cells: cells across the channel, whose height is 1.
        length: period along the channel, a whole number of cells.
        reynolds: range of the centreline Reynolds number of the steady flow, drawn uniformly.
        speed: range of the centreline velocity of the steady flow, drawn uniformly.
        start: share of the steady profile at time 0: 0 from rest, 1 fully developed.
        disturbance: root mean square velocity of a random disturbance at time 0, as a share of the centreline velocity.
        modes: wavenumbers of the disturbance along each axis.
        times: stored times, the initial one included.
        duration: time from the first stored field to the last; they are duration / (times - 1) apart.
        courant: time step as a share of the longest stable one.
    """

    name: ClassVar[str] = "channel"
    equation: ClassVar[str] = "u_t + u.grad u = -grad p + nu lap u + G e_x, div u = 0; u = 0 at y = 0, 1; x periodic"
    source: ClassVar[str] = "Poiseuille flow; Batchelor, An Introduction to Fluid Dynamics (1967) 4.2, 4.3"
    scheme: ClassVar[str] = "marker-and-cell, central skew-symmetric; projected RK4"
    channels: ClassVar[tuple[str, ...]] = ("u", "v")
    units: ClassVar[tuple[str, ...]] = ("m s-1", "m s-1")
    roles: ClassVar[Mapping[str, tuple[str, ...]]] = {"velocity": ("u", "v")}

    cells: int = 32
    length: float = 2.0
    reynolds: tuple[float, float] = (50.0, 500.0)
    speed: tuple[float, float] = (1.0, 1.0)
    start: float = 0.0
    disturbance: float = 0.1
    modes: int = 3
    times: int = 17
    duration: float = 8.0
    courant: float = 0.9

    def __post_init__(self) -> None:
        along = self.length * self.cells
        if self.cells < 3 or abs(along - round(along)) > 1e-9 * along or along < 3:
            raise ValueError(
                f"Channel expects at least 3 cells across and a length of whole cells; got {self.cells} cells and length {self.length}."
            )
        self.expect_range("reynolds", 0.0)
        self.expect_range("speed", 0.0)
        if self.times < 2 or self.duration <= 0 or not 0 < self.courant <= 1:
            raise ValueError(
                f"Channel expects at least two times, a positive duration and 0 < courant <= 1; "
                f"got {self.times}, {self.duration} and {self.courant}."
            )
        if self.disturbance < 0 or not 1 <= self.modes < self.cells / 2:
            raise ValueError(
                f"Channel expects a disturbance that is not negative, of 1 to {(self.cells - 1) // 2} modes; "
                f"got {self.disturbance} and {self.modes}."
            )

    @property
    def grid(self) -> Grid:
        along = Axis("x", round(self.length * self.cells), length=self.length, periodic=True)
        return Grid(Axis("time", self.times, length=self.duration), along, Axis("y", self.cells + 1, length=1.0))

    @property
    def laws(self) -> tuple[str, ...]:
        return ("divergence-free:scheme=staggered", "no-penetration")

    def simulate(self, streams: Sequence[torch.Generator], device: torch.device) -> tuple[Tensor, dict[str, Tensor]]:
        reynolds, speed = (drawn.to(device) for drawn in uniform(streams, self.reynolds, self.speed))
        waves = torch.stack([torch.randn(2, self.modes, self.modes, generator=g, dtype=torch.float64) for g in streams]).to(device)
        viscosity = speed / reynolds
        gradient = 8 * viscosity * speed
        flow = self.flow(viscosity, gradient)
        u = self.start * self.profile(flow, gradient / viscosity) + self.disturbances(flow, waves, speed)
        fields, friction = self.solve(flow, flow.complete(u))
        parameters = {"reynolds": reynolds, "viscosity": viscosity, "pressure_gradient": gradient, "friction": friction}
        return fields, {**parameters, "initial": fields[:, :, 0]}

    def flow(self, viscosity: Tensor, gradient: Tensor) -> MacFlow:
        """The equations in the channel."""
        wall = Given((0.0, 0.0))
        return MacFlow(self.grid, viscosity, {"y": (wall, wall)}, force=(gradient, 0.0), device=viscosity.device)

    def profile(self, flow: MacFlow, curvature: Tensor) -> Tensor:
        r"""The scheme's steady profile, $\frac12\frac G\nu(y(1 - y) + h^2/4)$, (N, 2, X, Y), from $G/\nu$."""
        y = flow.places(0)[1]
        u = curvature[:, None, None] / 2 * (y * (1 - y) + 1 / (4 * self.cells**2))
        return torch.stack([u, torch.zeros_like(u)], dim=1)

    def disturbances(self, flow: MacFlow, waves: Tensor, speed: Tensor) -> Tensor:
        r"""Random velocities without divergence that vanish at the walls, (N, 2, X, Y).

        From the stream function $\psi = \sum_{mk}(a_{mk}\cos 2\pi mx/L + b_{mk}\sin 2\pi mx/L)\sin\pi y\sin k\pi y$.

        Arguments:
            flow: the equations in the channel.
            waves: a and b, (N, 2, modes, modes), up to a factor.
            speed: centreline velocity, (N,), of which the root mean square is a share.
        """
        x, y = self.grid.space.mesh(waves)
        m = torch.arange(1, self.modes + 1, dtype=torch.float64, device=waves.device)[:, None, None]
        along = torch.stack([torch.cos(2 * math.pi / self.length * m * x), torch.sin(2 * math.pi / self.length * m * x)])
        across = torch.sin(math.pi * y) * torch.sin(m * math.pi * y)
        psi = torch.einsum("npmk,pmxy,kxy->nxy", waves, along, across)
        u = flow.curl(psi)
        weights = torch.stack([flow.volumes(c) for c in range(2)])
        power = (weights * u.square()).sum((1, 2, 3)) / self.length
        return self.disturbance * (speed / power.sqrt())[:, None, None, None] * u

    def solve(self, flow: MacFlow, u: Tensor) -> tuple[Tensor, Tensor]:
        """Fields (N, 2, T, X, Y) from initial ones, and the momentum that the walls take between stored times, (N, T - 1)."""
        interval = self.grid.axes[0].spacing
        speed = self.speed[1] * (1 + 3 * self.disturbance)
        steps = math.ceil(interval / (self.courant * flow.stable_step(speed, self.speed[1] / self.reynolds[0])))
        expect((self.times - 1) * steps)
        states, taken = [u], []
        for _ in range(self.times - 1):
            total = torch.zeros(len(u), dtype=torch.float64, device=u.device)
            for _ in range(steps):
                u, _, given = step(u, interval / steps, flow.rate, flow.project, lambda u: flow.friction(u, 0, 1))
                assert given is not None
                total = total - given
            states.append(u)
            taken.append(total)
        return torch.stack(states, dim=2), torch.stack(taken, dim=1)

    def constraint(self, parameters: Mapping[str, Tensor]) -> Constraint:
        grid = self.grid
        gradient = parameters["pressure_gradient"]
        received = gradient[:, None] * self.length * grid.axes[0].spacing - parameters["friction"]
        share = grid.space.weights(like=gradient).expand(grid.space.shape)
        volume = self.flow(gradient, gradient).volumes(0) / share  # the law counts with trapezoidal weights, u lives between walls
        return Intersection(
            DivergenceFree(grid, "staggered"),
            *no_penetration(grid, channels=2),
            Dirichlet(grid, "y", "upper", 0.0, components=[0], channels=2),
            InitialCondition(grid, parameters["initial"]),
            Budget(grid, received=received, density=lambda u: u[:, 0] * volume.to(u), channels=2, name="momentum budget"),
        )
