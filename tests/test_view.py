"""Laws solved in the little that they see, against the same laws solved on whole fields."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from constraints import (
    Axis,
    Budget,
    Constraint,
    Dirichlet,
    Grid,
    InitialCondition,
    Intersection,
    Mass,
    Quadratic,
    Units,
    local_conservation,
    project,
    rescaled,
)
from constraints.calculus.finite_volume import godunov
from constraints.marched import MarchedSystem, solver_of
from constraints.system import System

LINE = Grid(Axis("time", 7, length=0.3), Axis("x", 11))
PLANE = Grid(Axis("time", 4, length=0.3), Axis("x", 5, periodic=True), Axis("y", 6, periodic=True))
UNITS = Units(torch.tensor([0.4]), torch.tensor([1.7]))


def normal(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def growth(shape: tuple[int, ...], seed: int) -> Quadratic:
    return Quadratic(0.3 * normal((1, *shape), seed), torch.full((1, *shape), 0.05), 0.2)


def ends() -> Quadratic:
    squares = torch.zeros(1, 11)
    squares[0, 0], squares[0, -1] = 0.5, -0.5
    return Quadratic(torch.zeros(1, 11), squares)


def odd() -> Quadratic:
    """One square for most, others for three."""
    squares = torch.full((1, 11), -0.1)
    squares[0, [1, 4, 7]] = torch.tensor([0.3, 0.0, 0.6])
    return Quadratic(normal((1, 11), 5), squares)


def burgers(v: Tensor) -> Tensor:
    return v * v / 2


START = torch.linspace(1.0, 0.2, 11, dtype=torch.float64)[None]
LAWS: dict[str, Constraint] = {
    "growth": Budget(LINE, growth((11,), 1)),
    "growth from given data": Intersection(InitialCondition(LINE, START), Budget(LINE, [growth((11,), 1), growth((11,), 2)], theta=0.2)),
    "growth between given ends": Intersection(
        InitialCondition(LINE, START), Dirichlet(LINE, "x", "lower", float(START[0, 0])), Budget(LINE, growth((11,), 3))
    ),
    "flux through ends": Budget(LINE, ends(), received=0.1),
    "weighted content": Budget(LINE, ends(), density=torch.linspace(0.5, 1.5, 11)),
    "odd points": Budget(LINE, [odd(), ends()]),
    "no rate": Intersection(InitialCondition(LINE, START), Budget(LINE)),
    "two budgets": Intersection(Budget(LINE, ends()), Budget(LINE, growth((11,), 4), density=torch.linspace(-1.0, 1.0, 11))),
    "plane": Budget(PLANE, growth((5, 6), 1)),
    "cells, ends and budget": Intersection(
        InitialCondition(LINE, START), local_conservation(LINE, godunov(burgers), steps=3), Budget(LINE, ends())
    ),
    "cells alone": local_conservation(LINE, godunov(burgers), steps=2),
}


def whole(law: Constraint) -> System:
    solver = solver_of(law)
    return solver.reduced if isinstance(solver, MarchedSystem) else solver


@pytest.mark.parametrize("other", [False, True], ids=["physical", "units"])
@pytest.mark.parametrize("name", LAWS)
def test_the_nearest_field_is_that_of_whole_fields(name: str, other: bool) -> None:
    law = rescaled(LAWS[name], UNITS) if other else LAWS[name]
    shape = next(leaf.field_shape for leaf in LAWS[name].leaves() if leaf.field_shape is not None)
    u = 0.6 + 0.1 * normal((3, *shape))
    u = UNITS.normalise(u) if other else u
    with torch.no_grad():
        result = project(law, u)
        assert result.converged.all()
        system = whole(law)
        assert system.viewed is not None
        system.__dict__["viewed"] = None  # the general way
        again = project(law, u)
        del system.__dict__["viewed"]
        assert again.converged.all()
        assert (result.u - again.u).abs().max() < 1e-11
        assert (result.multiplier - again.multiplier).abs().max() < 1e-9 * (1 + again.multiplier.abs().max())


def test_fields_without_anything_unseen() -> None:
    """Constant fields have no length beside the sums: nothing is divided by it."""
    law = Budget(LINE, Quadratic(torch.full((1, 11), 0.1), torch.full((1, 11), -0.02)))
    result = project(law, torch.ones(2, 1, 7, 11, dtype=torch.float64))
    assert result.converged.all()
    zero = project(law, torch.zeros(1, 1, 7, 11, dtype=torch.float64))
    assert torch.isfinite(zero.u).all()


def test_data_that_change() -> None:
    """Constants of given values follow the law's data."""
    law = Intersection(InitialCondition(LINE, START.clone()), Budget(LINE, growth((11,), 1)))
    u = 0.6 + 0.1 * normal((2, 1, 7, 11))
    assert project(law, u).converged.all()
    given = law.leaves()[0]
    given.target.mul_(1.5)  # type: ignore[operator, union-attr]
    result = project(law, u)
    assert result.converged.all()
    assert (result.u[:, 0, 0] - 1.5 * START[0]).abs().max() < 1e-15


def test_what_is_not_known_by_its_sums_is_solved_whole() -> None:
    many = Grid(Axis("time", 3), Axis("x", 50))
    for law, grid in (
        (Budget(LINE, lambda u: u[:, 0].pow(3).mean(-1)), LINE),
        (Budget(many, Quadratic(torch.zeros(1, 50), normal((1, 50), 1).abs())), many),  # a square of its own for each value
        (Intersection(Mass(LINE), Budget(LINE, growth((11,), 1))), LINE),  # rows beside it that are no values given outright
    ):
        assert whole(law).viewed is None
        result = project(law, 0.6 + 0.1 * normal((2, 1, *grid.shape)))
        assert result.converged.all()


def test_derivatives_pass_through() -> None:
    law = LAWS["growth from given data"]
    u = (0.6 + 0.1 * normal((2, 1, 7, 11))).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: project(law, v).u, (u,), atol=1e-6)


def test_quadratic_sums() -> None:
    """Values, derivatives, and the same in other units."""
    form, u = odd(), normal((2, 1, 7, 11)).requires_grad_()
    value = form(u)
    (gradient,) = torch.autograd.grad(value.sum(), u)
    assert (gradient - form.gradient(u.detach())).abs().max() < 1e-14
    x = UNITS.normalise(u.detach())
    assert (form.moved(UNITS)(x) - value).abs().max() < 1e-13
    with pytest.raises(ValueError, match="one shape"):
        Quadratic(torch.zeros(1, 3), torch.zeros(1, 4))
