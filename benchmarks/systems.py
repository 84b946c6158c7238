"""The four systems of the reference paper's tables as laws, a field that obeys each, and the reference's way of projecting.

Constraint sets and sizes of Utkarsh et al. (NeurIPS 2025) as in their code: heat, initial data and mass, 100 x 100; reaction-diffusion,
initial data and the balance of mass with logistic source and fourth-order boundary fluxes, 100 x 128; inviscid Burgers, initial data, five
Godunov steps and the trapezoidal balance, 101 x 101; vorticity, initial data and mean vorticity, 32 x 32 x 25. Balances are written step
by step, which is the same set as their running sums.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from constraints import (
    Axis,
    Budget,
    Constraint,
    FunctionConstraint,
    Grid,
    InitialCondition,
    Intersection,
    Mass,
    Quadratic,
    local_conservation,
)
from constraints.calculus.finite_volume import godunov

TAU = 2 * torch.pi


@dataclass(frozen=True)
class System:
    """A law with a field near which it is tried."""

    name: str
    law: Constraint
    field: Tensor

    def noisy(self, batch: int, dtype: torch.dtype = torch.float64) -> Tensor:
        """Fields near the law's own, each with its own noise."""
        shape = (batch, *self.field.shape)
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        return (self.field + 0.1 * noise).to(dtype)


def heat() -> System:
    grid = Grid(Axis("time", 100), Axis("x", 100, length=TAU, periodic=True))
    time, x = grid.mesh()
    u = (torch.sin(x + 0.7) * torch.exp(-3 * time))[None]
    return System("heat", Intersection(InitialCondition(grid, u[:, 0]), Mass(grid)), u)


def reaction_diffusion_rate(grid: Grid) -> Quadratic:
    """Logistic growth in the domain and diffusive flux through its ends."""
    n, viscosity, growth = grid.shape[1], 0.005, 0.01
    one_sided = torch.tensor([-25.0, 48.0, -36.0, 16.0, -3.0], dtype=torch.float64) * viscosity * n / 12
    ends = torch.zeros(n, dtype=torch.float64)
    ends[:5] -= one_sided
    ends[-5:] -= one_sided.flip(0)
    return Quadratic((ends + growth / n)[None], torch.full((1, n), -growth / n, dtype=torch.float64))


def reaction_diffusion() -> System:
    grid = Grid(Axis("time", 100, length=0.99), Axis("x", 128, cells=True))
    _, x = grid.mesh()
    u = (0.5 + 0.3 * torch.sin(TAU * x))[None]
    law = Intersection(InitialCondition(grid, u[:, 0]), Budget(grid, reaction_diffusion_rate(grid)))
    return System("reaction-diffusion", law, u)


def reaction_diffusion_own() -> System:
    """The same balance as a user would write it: rows of a plain function, with no word about their structure."""
    system = reaction_diffusion()
    grid = Grid(Axis("time", 100, length=0.99), Axis("x", 128, cells=True))
    balance = Budget(grid, reaction_diffusion_rate(grid))
    own = FunctionConstraint(balance.residual, scale=1.0, name="own balance")
    return System("reaction-diffusion, own function", Intersection(system.law.leaves()[0], own), system.field)


def dense_own() -> System:
    """A user's law whose rows see every value: nothing to exploit."""
    weights = torch.randn(60, 40 * 50, generator=torch.Generator().manual_seed(1), dtype=torch.float64) / 40

    def residual(u: Tensor) -> Tensor:
        flat = u.flatten(1)
        return (flat + 0.1 * flat.square()) @ weights.T

    return System("own function of all values, 60 rows", FunctionConstraint(residual), torch.zeros(1, 40, 50, dtype=torch.float64))


def burgers(steps: int = 5) -> System:
    grid = Grid(Axis("time", 101), Axis("x", 101))
    _, x = grid.mesh()
    u = (1 / (1 + torch.exp((x - 0.5) / 0.02)))[None]

    def flux(v: Tensor) -> Tensor:
        return v * v / 2

    ends = torch.zeros(1, 101, dtype=torch.float64)
    ends[0, 0], ends[0, -1] = 0.5, -0.5
    budget = Budget(grid, Quadratic(torch.zeros_like(ends), ends))
    law = Intersection(InitialCondition(grid, u[:, 0]), local_conservation(grid, godunov(flux), steps=steps), budget)
    return System("Burgers, five Godunov steps", law, u)


def vorticity(points: int = 32, times: int = 25) -> System:
    grid = Grid(Axis("time", times), Axis("x", points, periodic=True), Axis("y", points, periodic=True))
    w = torch.randn(1, points, points, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return System(
        f"vorticity, {points} x {points} x {times}", Intersection(InitialCondition(grid, w), Mass(grid)), w[:, None].expand(1, *grid.shape)
    )


def dense_step(law: Constraint, u: Tensor) -> Tensor:
    """One Newton step as the reference takes it: for each sample a dense Jacobian by `jacrev`, J J^T + 1e-6 I, LU; a Python loop."""
    points = []
    for sample in u:
        flat = sample.flatten()

        def residual(v: Tensor, like: Tensor = sample) -> Tensor:
            return law.residual(v.reshape(1, *like.shape))[0]

        value, jacobian = residual(flat), torch.func.jacrev(residual)(flat)
        gram = jacobian @ jacobian.T + 1e-6 * torch.eye(len(value), dtype=u.dtype)
        points.append(flat - jacobian.T @ torch.linalg.solve(gram, value))
    return torch.stack(points).reshape(u.shape)
