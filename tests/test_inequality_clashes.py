"""Laws that contradict each other beside curved laws or inequalities: in bounded time, no worse than the input, named."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import scipy.optimize
import torch
from torch import Tensor

from constraints import (
    Axis,
    Bounds,
    Constraint,
    Energy,
    EnergyBound,
    EnergyDecay,
    FunctionConstraint,
    Grid,
    Intersection,
    Mass,
    Monotone,
    compatibility,
    project,
)
from constraints.restoration import least_violation, violation, weights
from tests.fields import normal

RING = Grid(Axis("x", 12, length=1.0, periodic=True))
SHEET = Grid(Axis("time", 4, length=1.0), Axis("x", 12, length=1.0, periodic=True))


def worth(law: Constraint, u: Tensor, v: Tensor) -> Tensor:
    """The sum of squared violations of v, scaled as at the input u."""
    return torch.stack([(leaf.excess(leaf.residual(v)) / leaf.scale(u)).square().sum(1) for leaf in law.leaves()]).sum(0)


def test_two_energies_meet_where_their_scaled_violations_balance() -> None:
    r"""$\min_E ((E-E_1)/s_1)^2 + ((E-E_2)/s_2)^2$, on the ray of the input, which is where shells are nearest."""
    u, one, two = normal((3, 1, 12), 1), 0.3, 0.9
    laws = Energy(RING, one), Energy(RING, two)
    s = torch.stack([law.scale(u)[:, 0] for law in laws])
    best = (one / s[0] ** 2 + two / s[1] ** 2) / (1 / s[0] ** 2 + 1 / s[1] ** 2)
    result = project(Intersection(*laws), u)
    assert not result.converged.any()
    assert torch.allclose(laws[0].residual(result.u)[:, 0] + one, best, rtol=1e-5)
    along = result.u.flatten(1) / u.flatten(1)
    assert torch.allclose(along, along[:, :1].expand_as(along), rtol=1e-6)
    assert compatibility(Intersection(*laws), u).clashing == ("energy", "energy")


@pytest.mark.parametrize("total", [2.0, -0.5])
def test_a_mass_out_of_reach_of_bounds_is_come_near_to_at_their_end(total: float) -> None:
    law, u = Intersection(Bounds(0.0, 1.0), Mass(RING, total)), normal((3, 1, 12), 2)
    result = project(law, u)
    assert not result.converged.any()
    assert torch.equal(result.u, torch.full_like(u, float(total > 1)))
    assert set(compatibility(law, u).clashing) == {"bounds", "mass"}


@pytest.mark.parametrize("kind", [Energy, EnergyBound])
def test_an_energy_below_what_a_mass_needs_leaves_a_uniform_field(kind: Callable[..., Constraint]) -> None:
    r"""$E\ge m^2/2V$, reached by $u = m/V$: of all fields the uniform one $c$ with the least
    $((c - m)/s_m)^2 + ((c^2/2 - E)/s_E)^2$, V = 1, is the best."""
    m, e, u = 1.0, 0.2, 0.8 + normal((3, 1, 12), 3)
    laws = Mass(RING, m), kind(RING, e)
    law = Intersection(*laws)
    result = project(law, u)
    assert not result.converged.any()
    s = [leaf.scale(u).flatten() for leaf in laws]
    for i in range(3):
        found = scipy.optimize.minimize_scalar(
            lambda c, i=i: float(((c - m) / s[0][i]) ** 2 + ((c**2 / 2 - e) / s[1][i]) ** 2), (0.5, 1.0), options={"xtol": 1e-12}
        )
        assert np.abs(result.u[i].numpy() - found.x).max() < 1e-5
    assert set(compatibility(law, u).clashing) == {"mass", laws[1].name}


def test_samples_that_can_be_lawful_are_beside_those_that_cannot() -> None:
    u = 0.8 + normal((3, 1, 12), 3)
    law = Intersection(Mass(RING, torch.tensor([[1.0], [1.0], [1.0]])), Energy(RING, torch.tensor([[0.7], [0.2], [0.6]])))
    result = project(law, u)
    assert result.converged.tolist() == [True, False, True]
    alone = project(law.take(slice(0, 1)), u[:1])
    assert (result.u[:1] - alone.u).abs().max() < 1e-10


CONFLICTS: dict[str, tuple[Callable[[], Constraint], set[str]]] = {
    "energy that may not rise, and does": (
        lambda: Intersection(EnergyDecay(SHEET), Energy(SHEET, [0.1, 0.2, 0.3, 0.4])),
        {"energy decay", "energy"},
    ),
    "monotone within bounds that cannot hold it": (
        lambda: Intersection(
            Monotone(Grid(Axis("time", 4, length=1.0), Axis("x", 12, length=1.0)), "x"),
            Bounds(torch.linspace(1, 0, 12).expand(1, 4, 12), torch.linspace(1.1, 0.1, 12).expand(1, 4, 12)),
        ),
        {"non-decreasing along x", "bounds"},
    ),
    "mass, bounds and energy": (
        lambda: Intersection(Mass(SHEET, 0.9), Bounds(0.0, 1.0), Energy(SHEET, 0.6)),
        {"mass", "energy"},
    ),
    "two masses beside an energy bound": (
        lambda: Intersection(Mass(SHEET, 0.4), EnergyBound(SHEET, 1.0), Mass(SHEET, 0.6)),
        {"mass"},
    ),
    "two curved equations without a common root": (
        lambda: Intersection(
            FunctionConstraint(lambda u: (u.square() - 1).flatten(1), name="ones"),
            FunctionConstraint(lambda u: (u.square() - 2).flatten(1), name="twos"),
        ),
        {"ones", "twos"},
    ),
}


@pytest.mark.parametrize("name", CONFLICTS)
def test_what_clashes_is_named_and_the_field_no_worse_than_before(name: str) -> None:
    make, clashing = CONFLICTS[name]
    law, u = make(), 0.5 + 0.4 * normal((3, 1, 4, 12), 5)
    result = project(law, u)
    assert not result.converged.any()
    assert (worth(law, u, result.u) <= worth(law, u, u)).all()
    again = project(law, result.u)
    assert not again.converged.any()
    assert (worth(law, result.u, again.u) <= worth(law, result.u, result.u) * (1 + 1e-9)).all()
    found = set(compatibility(law, u).clashing)
    assert clashing <= found <= {leaf.name for leaf in law.leaves()}
    assert found == clashing or name == "mass, bounds and energy", "which may end inside the bounds"


@pytest.mark.parametrize("name", CONFLICTS)
def test_forces_of_what_is_broken_cancel_or_push_against_bounds(name: str) -> None:
    """Stationarity of the violation, from its own gradient by automatic differentiation."""
    law, u = CONFLICTS[name][0](), 0.5 + 0.4 * normal((3, 1, 4, 12), 5)
    boxes = [leaf for leaf in law.leaves() if isinstance(leaf, Bounds)]
    others = [leaf for leaf in law.leaves() if not isinstance(leaf, Bounds)]
    held = Intersection(*others)
    low, high = boxes[0].box(u) if boxes else (torch.tensor(-torch.inf), torch.tensor(torch.inf))
    broken = torch.ones(3, dtype=torch.bool)
    point = least_violation(held, u, low, high, weights(held, u), broken, 1e-12)
    v = point.u.clone().requires_grad_()
    value = violation(held, v, weights(held, u))
    force = -torch.autograd.grad(value.sum(), v)[0]
    outwards = ((v <= low) & (force < 0)) | ((v >= high) & (force > 0))
    assert (force * ~outwards).abs().amax() < 1e-4 * value.max().sqrt()
    assert (v >= low).all()
    assert (v <= high).all()


def test_laws_that_can_hold_together_are_met_fast() -> None:
    """Towards a lawful field, quadratically: to round-off in a few steps."""
    law, u = Intersection(Mass(SHEET, 0.5), Energy(SHEET, 0.2)), 0.5 + 0.4 * normal((3, 1, 4, 12), 5)
    point = least_violation(
        law, u, torch.tensor(-torch.inf), torch.tensor(torch.inf), weights(law, u), torch.tensor([True, True, False]), 1e-14
    )
    assert point.iterations <= 12
    assert (point.violation[:2] < 1e-26).all()
    assert torch.equal(point.u[2], u[2]), "asked for two of three"


def test_curved_equations_without_a_common_root_end_between_them() -> None:
    """Each value at a root of both squares' mean, sqrt(3/2) in size."""
    law, u = CONFLICTS["two curved equations without a common root"][0](), 0.5 + 0.4 * normal((3, 1, 4, 12), 5)
    result = project(law, u)
    assert torch.allclose(result.u.abs(), torch.full_like(u, 1.5**0.5), atol=1e-5)
