"""Values that follow from given ones: against the steps taken by hand, against the same laws solved for, and their derivatives."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from constraints import (
    Axis,
    Bounds,
    Constraint,
    Dirichlet,
    EvolutionEquation,
    Grid,
    InitialCondition,
    Intersection,
    Mass,
    Units,
    local_conservation,
    project,
    rescaled,
)
from constraints.calculus.finite_volume import godunov
from constraints.march import March
from constraints.marched import MarchedSystem, solver_of
from constraints.projection import _size
from constraints.system import Certified, system_of
from pde_datasets.problems import PROBLEMS

LOOP = Grid(Axis("time", 5, length=0.2), Axis("x", 8, periodic=True))
LINE = Grid(Axis("time", 5, length=0.2), Axis("x", 9))
FILM = Grid(Axis("time", 4, length=0.3), Axis("x", 4, periodic=True), Axis("y", 3))


def normal(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def diffusion(u: Tensor) -> Tensor:
    return 0.3 * (u.roll(1, -1) - 2 * u + u.roll(-1, -1)) + 0.1 * u * (1 - u)


def mixing(u: Tensor) -> Tensor:
    """Two channels that see each other everywhere."""
    return u.flip(1) * u.mean((-2, -1), keepdim=True) - 0.2 * u.pow(3)


def burgers(v: Tensor) -> Tensor:
    return v * v / 2


def taken(first: Tensor, rate: Callable[[Tensor], Tensor], gap: float, steps: int) -> Tensor:
    """The fields at all times, (B, C, steps + 1, *space)."""
    fields = [first]
    for _ in range(steps):
        fields.append(fields[-1] + gap * rate(fields[-1][:, :, None])[:, :, 0])
    return torch.stack(fields, dim=2)


def solved_for(law: Constraint, u: Tensor) -> Certified:
    """The same projection by Newton's method on all rows."""
    with torch.no_grad():
        return system_of(law).solve(u, _size(u), 1e-12, 50, u.dtype).certificate()


@pytest.mark.parametrize("autonomous", [True, False])
def test_closed_steps_are_taken(autonomous: bool) -> None:
    """Given the first fields of a ring, nothing is left to choose."""
    first = normal((3, 1, 8), 1)
    law = Intersection(EvolutionEquation(LOOP, diffusion, theta=0.0, radius=1, autonomous=autonomous), InitialCondition(LOOP, first))
    assert isinstance(solver_of(law), MarchedSystem)
    u = 5 * normal((3, 1, 5, 8))
    result = project(law, u)
    assert (result.u - taken(first, diffusion, 0.05, 4)).abs().max() < 1e-14
    assert result.iterations == 1
    assert result.converged.all()
    assert result.stationarity.max() < 1e-12 * u.abs().max()


def test_fields_that_see_everything_are_taken() -> None:
    """Without a radius, all of a time is needed, of both channels."""
    first = normal((2, 2, 4, 3), 1)
    steps = EvolutionEquation(FILM, mixing, theta=0.0, channels=2)
    u = normal((2, 2, 4, 4, 3))
    result = project(Intersection(InitialCondition(FILM, first), steps), u)
    assert (result.u - taken(first, mixing, 0.1, 3)).abs().max() < 1e-14
    assert result.converged.all()
    one_channel = Dirichlet(FILM, "y", "lower", 0.5, channels=2)
    assert not isinstance(solver_of(Intersection(one_channel, steps)), MarchedSystem)


def test_other_units_and_single_precision() -> None:
    first = normal((3, 1, 8), 1)
    law = Intersection(InitialCondition(LOOP, first), EvolutionEquation(LOOP, diffusion, theta=0.0, radius=1, autonomous=True))
    units = Units(torch.tensor([0.7]), torch.tensor([3.0]))
    x = normal((3, 1, 5, 8))
    moved = project(rescaled(law, units), x)
    assert (units.physical(moved.u) - taken(first, diffusion, 0.05, 4)).abs().max() < 1e-14
    assert moved.converged.all()
    assert isinstance(solver_of(rescaled(law, units)), MarchedSystem)
    single = project(law, x.float())
    assert single.converged.all()
    assert (single.u - taken(first, diffusion, 0.05, 4)).abs().max() < 1e-6


def cone(steps: int = 3, first: Tensor | None = None) -> Intersection:
    """Bounded ends without rows: what is known shrinks by a point at each step."""
    grid = LINE
    start = torch.linspace(1.0, 0.2, 9, dtype=torch.float64)[None] if first is None else first
    return Intersection(local_conservation(grid, godunov(burgers), steps=steps), Mass(grid, 4.0), InitialCondition(grid, start))


def test_a_cone_is_known() -> None:
    march = March(cone().leaves(), torch.zeros(1, 5, 9, dtype=torch.bool).index_fill(1, torch.tensor([0]), True))
    expected = torch.zeros(1, 5, 9, dtype=torch.bool)
    for n in range(1, 4):
        expected[:, n, n : 9 - n] = True
    assert torch.equal(march.cells, expected)


def test_what_is_left_of_a_cone_is_solved_as_before() -> None:
    """The nearest field is the same, and so are the multipliers, whether inner steps are taken or solved for."""
    start = torch.linspace(1.0, 0.2, 9, dtype=torch.float64)[None]
    grid = LINE
    law = Intersection(local_conservation(grid, godunov(burgers), steps=3), InitialCondition(grid, start), Bounds(-9.0, 9.0))
    equal = Intersection(*law.leaves()[:2])
    u = start[:, None, None] + 0.05 * normal((4, 1, 5, 9))
    for each in (equal, law):
        assert isinstance(solver_of(each), MarchedSystem)
        result, other = project(each, u), solved_for(each, u)
        assert result.converged.all()
        assert other.converged.all()
        assert (result.u - other.u).abs().max() < 1e-11
        assert (result.multiplier - other.multiplier).abs().max() < 1e-9


def test_short_rows_lead_too() -> None:
    """An outflow that copies its neighbour and a given inflow close the cone: initial data and inflow say all of a scheme's fields."""
    problem = PROBLEMS["inviscid-burgers"](points=21, times=31)
    fields = problem.draw(3)
    law = problem.constraint(fields.parameters)
    assert isinstance(solver_of(law), MarchedSystem)
    result = project(law, normal((3, 1, 31, 21)))
    assert result.converged.all()
    assert (result.u - fields.u).abs().max() < 1e-12


def test_derivatives_are_those_of_the_optimum() -> None:
    start = torch.linspace(1.0, 0.2, 9, dtype=torch.float64)[None]
    u = start[:, None, None] + 0.05 * normal((2, 1, 5, 9))

    def of_data(first: Tensor, fields: Tensor) -> Tensor:
        law = Intersection(local_conservation(LINE, godunov(burgers), steps=2), InitialCondition(LINE, first))
        return project(law, fields).u

    assert torch.autograd.gradcheck(of_data, (start.clone().requires_grad_(), u.clone().requires_grad_()), atol=1e-6)

    def of_all(first: Tensor, fields: Tensor) -> Tensor:
        law = Intersection(EvolutionEquation(LOOP, diffusion, theta=0.0, radius=1), InitialCondition(LOOP, first))
        return project(law, fields).u

    assert torch.autograd.gradcheck(of_all, (normal((2, 1, 8), 2).requires_grad_(), normal((2, 1, 5, 8)).requires_grad_()), atol=1e-6)


def test_data_of_each_sample_and_their_change() -> None:
    """Values follow the data: of a sample of its own, of a part of the batch, and after the data have changed."""
    first = normal((3, 1, 8), 1)
    steps = EvolutionEquation(LOOP, diffusion, theta=0.0, radius=1, autonomous=True)
    law = Intersection(InitialCondition(LOOP, first), steps)
    u = normal((3, 1, 5, 8))
    whole = project(law, u).u
    assert torch.equal(project(law.take(slice(1, 2)), u[1:2]).u, whole[1:2])
    given = law.leaves()[0]
    given.target = 2 * given.target  # type: ignore[assignment, operator]
    assert (project(law, u).u - taken(2 * first, diffusion, 0.05, 4)).abs().max() < 1e-13
    given.target.mul_(2.0)  # type: ignore[union-attr, operator]
    assert (project(law, u).u - taken(4 * first, diffusion, 0.05, 4)).abs().max() < 1e-13


def test_what_contradicts_the_steps_is_said() -> None:
    first = normal((2, 1, 8), 1)
    steps = EvolutionEquation(LOOP, diffusion, theta=0.0, radius=1, autonomous=True)
    law = Intersection(InitialCondition(LOOP, first), steps, Mass(LOOP, 100.0))
    result = project(law, normal((2, 1, 5, 8)))
    assert not result.converged.any()
    assert all(result.broken)
    assert torch.isfinite(result.u).all()
    assert (result.u - solved_for(law, normal((2, 1, 5, 8))).u).abs().max() < 1e-6


def test_what_is_prepared_on_one_device_is_not_used_on_another() -> None:
    first = normal((2, 1, 8), 1)
    law = Intersection(InitialCondition(LOOP, first), EvolutionEquation(LOOP, diffusion, theta=0.0, radius=1))
    solver = solver_of(law)
    assert solver_of(law) is solver
    law.__dict__["_projection_solver"] = torch.device("meta"), solver  # as if its buffers had been elsewhere
    assert solver_of(law) is not solver
    assert project(law, normal((2, 1, 5, 8))).converged.all()
