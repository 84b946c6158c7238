"""Derivatives of a projection by every road torch offers, and what they do not cost."""

from __future__ import annotations

import gc

import pytest
import torch
from torch import Tensor

from constraints import (
    Bounds,
    Budget,
    Constraint,
    DivergenceFree,
    Energy,
    FunctionConstraint,
    InitialCondition,
    Integral,
    Intersection,
    Mass,
    Momentum,
    PointValues,
    project,
)
from tests.fields import LINE, PLANE, half, logistic, normal

LAWS: dict[str, Constraint] = {
    "linear": Intersection(DivergenceFree(PLANE), Momentum(PLANE, 0.1)),
    "curved": Intersection(DivergenceFree(PLANE), Energy(PLANE, 3.0)),
    "bounded": Intersection(Momentum(PLANE, 0.1), Bounds(-0.5, 0.5)),
    "curved and bounded": Intersection(Energy(PLANE, 6.0), Bounds(-1.0, 1.0)),
    "noisy": Intersection(DivergenceFree(PLANE), PointValues(half((2, 8, 7)), torch.zeros(2, 8, 7), variance=0.3)),
}


@pytest.fixture(params=LAWS, ids=str)
def law(request: pytest.FixtureRequest) -> Constraint:
    return LAWS[request.param]


def test_functional_transforms_agree_with_autograd(law: Constraint) -> None:
    u = normal((2, 2, 8, 7), 1)

    def cubed(u: Tensor) -> Tensor:
        return project(law, u).u.pow(3).sum()

    v = u.clone().requires_grad_()
    (expected,) = torch.autograd.grad(cubed(v), v)
    assert torch.allclose(torch.func.grad(cubed)(u), expected, atol=1e-12)
    pulled = torch.func.vjp(lambda w: project(law, w).u, u)[1](3 * project(law, u).u.square())[0]
    assert torch.allclose(pulled, expected, atol=1e-12)


def test_jacrev_is_symmetric_for_a_nearest_point(law: Constraint) -> None:
    """A projection is the gradient of a convex function near its point: its Jacobian is symmetric, with eigenvalues of a contraction."""
    u = normal((1, 2, 8, 7), 2)
    jacobian = torch.func.jacrev(lambda w: project(law, w.reshape(1, 2, 8, 7)).u.flatten())(u.flatten())
    assert torch.allclose(jacobian, jacobian.T, atol=1e-10)
    if law not in (LAWS["curved"], LAWS["curved and bounded"]):
        values = torch.linalg.eigvalsh(jacobian)
        assert values.min() > -1e-10
        assert values.max() < 1 + 1e-10


def test_gradients_of_every_kind_of_parameter() -> None:
    u = normal((2, 1, 5, 5), 3)
    upper = (0.6 + 0.1 * normal((1, 5, 5), 4)).requires_grad_()
    received = (0.1 * normal((4,), 5)).requires_grad_()
    start = normal((2, 1, 5), 6).requires_grad_()
    amount = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)

    def bounded(u: Tensor, upper: Tensor) -> Tensor:
        return project(Intersection(Bounds(-0.4, upper), Mass(LINE, 0.1)), u).u

    def balanced(u: Tensor, start: Tensor, received: Tensor) -> Tensor:
        return project(Intersection(InitialCondition(LINE, start), Budget(LINE, logistic, received=received)), u).u

    def scaled(u: Tensor, amount: Tensor) -> Tensor:
        return project(Integral(LINE, lambda v: v[:, 0].pow(2) + 0.1 * v[:, 0].pow(4), amount.expand(5)), u).u

    assert torch.autograd.gradcheck(bounded, (u.clone().requires_grad_(), upper), fast_mode=True, atol=1e-5)
    assert torch.autograd.gradcheck(balanced, (u.clone().requires_grad_(), start, received), fast_mode=True, atol=1e-5)
    assert torch.autograd.gradcheck(scaled, (u.clone().requires_grad_(), amount), fast_mode=True, atol=1e-5)


def test_memory_of_a_gradient_does_not_grow_with_iterations() -> None:
    """Nothing of the iteration is kept: a graph of many Newton steps holds as many tensors as one of few."""
    law = FunctionConstraint(lambda v: v.pow(4).flatten(1).sum(1, keepdim=True) - 40, scale=40.0)
    held, spent = [], []
    for size in (1.0, 6.0):
        u = (size * normal((1, 2, 8, 7), 7)).requires_grad_()
        gc.collect()
        before = sum(isinstance(thing, Tensor) for thing in gc.get_objects())
        result = project(law, u)
        gc.collect()
        held.append(sum(isinstance(thing, Tensor) for thing in gc.get_objects()) - before)
        spent.append(result.iterations)
        assert result.converged.all()
        del result
    assert spent[1] > spent[0]
    assert held[1] <= held[0] + 2


@pytest.mark.slow
def test_a_compiled_function_may_project() -> None:
    """The graph breaks around the projection; the result is the same."""
    law, u = LAWS["curved"], normal((2, 2, 8, 7), 8)

    def step(x: Tensor) -> Tensor:
        return project(law, torch.sin(x) * 2).u.cos()

    assert torch.allclose(torch.compile(step, backend="eager")(u), step(u), atol=1e-12)
