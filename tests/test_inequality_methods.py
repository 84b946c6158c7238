"""Sampling under inequalities as published, against the published steps computed densely; and the laws it is measured on."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import pcfm
from benchmarks import inequality_laws
from benchmarks.inequalities import measured
from constraints import (
    Axis,
    Bounds,
    Constraint,
    Energy,
    EnergyBound,
    FunctionConstraint,
    Grid,
    InitialCondition,
    Intersection,
    Mass,
    OneSidedLipschitz,
    project,
)
from pcfm.methods import Setting, build
from pcfm.path import AffinePath
from pcfm.samplers import ActiveFlow, Euler, Sampler, SlackFlow
from pde_datasets.problems import InviscidBurgers, ReactionDiffusion
from tests.fields import normal

SHEET = Grid(Axis("time", 4, length=1.0), Axis("x", 6, length=1.0))
PATH = AffinePath()
EQUAL: tuple[Constraint, ...] = (InitialCondition(SHEET, 0.4 + 0.1 * normal((1, 6), 1)), Mass(SHEET))
UNEQUAL: tuple[Constraint, ...] = (Bounds(0.0, 1.0), OneSidedLipschitz(SHEET, "x", 2.0), EnergyBound(SHEET, 0.09))
LAW = Intersection(*EQUAL, *UNEQUAL)
T, S = torch.tensor(0.6, dtype=torch.float64), torch.tensor(0.7, dtype=torch.float64)


def bent(x: Tensor, t: Tensor) -> Tensor:
    """A velocity that is not linear."""
    return torch.sin(x.roll(1, -1)) - 0.5 * t * x


def states() -> tuple[Tensor, Tensor]:
    """A state of three samples and the noise it began with."""
    return 0.5 + 0.3 * normal((3, 1, 4, 6), 2), normal((3, 1, 4, 6), 3)


def sampler_of(text: str, law: Constraint = LAW) -> Sampler:
    return build(text, Setting(Euler(bent), bent, PATH, law, lambda: normal((3, 1, 4, 6), 3)))


# The published steps, one sample at a time and dense ----------------------------------------------------------------------------------


def rows_at(law: Constraint, u: Tensor) -> tuple[Tensor, Tensor]:
    """Residual (m,) and Jacobian (m, n) of one field (n,)."""

    def residual(v: Tensor) -> Tensor:
        return law.residual(v.reshape(1, 1, 4, 6))[0]

    return residual(u), torch.autograd.functional.jacobian(residual, u)


def back(end: Tensor, x0: Tensor) -> Tensor:
    return S * end + (1 - S) * x0


def slack(u: Tensor, squared: bool = False) -> Tensor:
    """One Gauss-Newton step of h = 0 and g + s = 0, or g + s^2 = 0, in (u, s), near rows alone."""
    h, jh = rows_at(Intersection(*EQUAL), u)
    g, jg = rows_at(Intersection(*UNEQUAL), u)
    g, jg = g[g > -0.05], jg[g > -0.05]
    s = (-g).clamp_min(0)
    root = s.sqrt()
    jacobian = torch.cat(
        [torch.cat([jh, torch.zeros(len(h), len(g))], 1), torch.cat([jg, torch.diag(2 * root if squared else s * 0 + 1)], 1)]
    )
    missing = torch.cat([h, g + s])
    step = jacobian.T @ torch.linalg.solve(jacobian @ jacobian.T + 1e-4 * torch.eye(len(missing)), missing)
    return u - step[: len(u)]


def active(u: Tensor) -> Tensor:
    h, jh = rows_at(Intersection(*EQUAL), u)
    g, jg = rows_at(Intersection(*UNEQUAL), u)
    missing, jacobian = torch.cat([h, g[g > -1e-3]]), torch.cat([jh, jg[g > -1e-3]])
    return u - jacobian.T @ torch.linalg.solve(jacobian @ jacobian.T + 1e-4 * torch.eye(len(missing)), missing)


def equalities(u: Tensor) -> Tensor:
    h, jacobian = rows_at(Intersection(*EQUAL), u)
    return u - jacobian.T @ torch.linalg.solve(jacobian @ jacobian.T + 1e-4 * torch.eye(len(h)), h)


def descent(x: Tensor, v: Tensor) -> Tensor:
    """Ten steps of 0.01 down the penalty with its barrier, by automatic differentiation."""
    centre, strength = x, 1e-3 * math.exp(-3 * float(T))
    for _ in range(10):
        x = x.detach().requires_grad_()
        h = Intersection(*EQUAL).residual((x + float(1 - S) * v).reshape(1, 1, 4, 6))
        g = Intersection(*UNEQUAL).residual(x.reshape(1, 1, 4, 6))
        value = (x - centre).square().sum() + 1e-2 * h.square().sum() - strength * (-g).clamp_min(1e-6).log().sum()
        x = x.detach() - 1e-2 * torch.autograd.grad(value, x)[0]
    return x


PUBLISHED: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "ipcfm-slack": lambda end, v, x0: back(slack(end), x0),
    "ipcfm-slack:squared=true": lambda end, v, x0: back(slack(end, squared=True), x0),
    "ipcfm-active": lambda end, v, x0: back(active(end), x0),
    "ipcfm-barrier": lambda end, v, x0: descent(back(equalities(end), x0), v),
}


@pytest.mark.parametrize("text", PUBLISHED)
def test_a_step_is_the_published_one(text: str) -> None:
    x, x0 = states()
    found = sampler_of(text).step(x, T, S, x0)
    v = bent(x, T)
    end = x + (1 - T) * v
    broken = Intersection(*UNEQUAL).residual(end)
    assert (broken > 0).any()
    for i in range(3):
        expected = PUBLISHED[text](end[i].flatten(), v[i].flatten(), x0[i].flatten())
        assert torch.allclose(found[i].flatten(), expected, atol=1e-9)


def test_slack_variables_mend_a_broken_row_in_part_and_an_active_set_the_whole() -> None:
    """One row u <= 1 of unit gradient at u = 1.5: by a half with a slack, to the ridge with none."""
    law = FunctionConstraint(lambda u: u[:, 0, :1] - 1)
    law.inequality = True
    u = torch.tensor([[[1.5, 7.0]]], dtype=torch.float64)
    ends = {}
    for kind in (SlackFlow, ActiveFlow):
        flow = kind(lambda x, t: torch.zeros_like(x), PATH, law)
        ends[kind] = flow._corrected(u)
    assert ends[SlackFlow].flatten().tolist() == pytest.approx([1.5 - 0.5 / (2 + 1e-4), 7.0], abs=1e-12)
    assert ends[ActiveFlow].flatten().tolist() == pytest.approx([1.5 - 0.5 / (1 + 1e-4), 7.0], abs=1e-12)


def test_an_active_set_pulls_rows_that_hold_onto_their_bound() -> None:
    """Which is why it is not a projection: this field is lawful and moves."""
    u = torch.full((1, 1, 4, 6), 0.9995, dtype=torch.float64)
    assert (project(Bounds(0.0, 1.0), u).u == u).all()
    moved = ActiveFlow(bent, PATH, Bounds(0.0, 1.0))._corrected(u)
    assert torch.allclose(moved, torch.full_like(u, 0.9995 + 5e-4 / (1 + 1e-4)), atol=1e-12)


@pytest.mark.parametrize("cap", [0.1, 10.0])
def test_steps_are_at_most_so_many_times_the_field(cap: float) -> None:
    law = Mass(SHEET, 1e3)
    u = normal((2, 1, 4, 6), 4)
    moved = ActiveFlow(bent, PATH, law, cap=cap)._corrected(u)
    lengths, sizes = (moved - u).flatten(1).norm(dim=1), u.flatten(1).norm(dim=1).clamp_min(1)
    assert torch.allclose(lengths, cap * sizes, rtol=1e-12)


def test_a_descent_that_leaves_all_numbers_is_not_taken() -> None:
    """A step size that blows up: the state of the return stays."""
    x, x0 = states()
    wild = sampler_of("ipcfm-barrier:rate=1e200")
    calm = sampler_of("ipcfm-barrier:iterations=0")
    assert torch.equal(wild.step(x, T, S, x0), calm.step(x, T, S, x0))


@pytest.mark.parametrize("name", ["ipcfm-slack", "ipcfm-barrier", "ipcfm-active"])
def test_the_end_is_the_nearest_lawful_field_unless_left_as_published(name: str) -> None:
    x0 = 0.3 * normal((3, 1, 4, 6), 3)
    times = torch.linspace(0, 1, 5, dtype=torch.float64)
    done, left = sampler_of(name).sample(x0, times), sampler_of(f"{name}:final=false").sample(x0, times)
    assert done.projection is not None
    assert left.projection is not None
    assert done.projection.converged.all()
    assert torch.allclose(done.x, project(LAW, left.x).u, atol=1e-12)
    assert not left.projection.converged.any()
    assert (left.projection.violation > 1e-6).all()


@pytest.mark.parametrize("name", ["ipcfm-slack", "ipcfm-barrier", "ipcfm-active"])
@pytest.mark.parametrize("laws", [EQUAL, UNEQUAL, (Energy(SHEET, 0.1),)], ids=["equalities", "inequalities", "curved"])
def test_any_kind_of_law_alone(name: str, laws: tuple[Constraint, ...]) -> None:
    x, x0 = states()
    law = Intersection(*laws)
    sample = sampler_of(name, law).last(x, T, torch.ones_like(T), x0)
    assert sample.projection is not None
    assert sample.projection.converged.all()


@pytest.mark.parametrize("name", ["ipcfm-slack", "ipcfm-barrier", "ipcfm-active"])
def test_samples_do_not_depend_on_their_company(name: str) -> None:
    flow = pcfm.wrap(Still(), grid=SHEET, channels=("u",))
    whole = pcfm.sample(flow, 5, law=LAW, method=name, steps=4)
    split = pcfm.sample(flow, 5, law=LAW, method=name, steps=4, batch=2)
    assert (whole.u - split.u).abs().max() < 1e-6


class Still(torch.nn.Module):
    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return 0.4 - 0.8 * x


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ipcfm-slack:ridge=0", "positive ridge and cap; got 0.0 and 10.0"),
        ("ipcfm-active:cap=-1", "positive ridge and cap; got 0.0001 and -1.0"),
        ("ipcfm-slack:near=-1", "expects near not to be negative; got -1.0"),
        ("ipcfm-active:near=-0.1", "expects near not to be negative; got -0.1"),
        ("ipcfm-barrier:weight=-1", "expects weight not to be negative; got -1.0"),
        ("ipcfm-barrier:iterations=-1", "expects iterations not to be negative; got -1"),
        ("ipcfm-barrier:least=0", "positive least distance; got 0.0"),
    ],
)
def test_options_out_of_range(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sampler_of(text)


# The laws that it is measured on ------------------------------------------------------------------------------------------------------

BURGERS = InviscidBurgers(points=41, times=41)
REACTION = ReactionDiffusion(points=32, times=25, interval=0.04)
DATA: dict[str, tuple[Any, Callable[..., inequality_laws.Laws]]] = {
    "Burgers": (BURGERS, inequality_laws.burgers),
    "reaction-diffusion": (REACTION, inequality_laws.reaction_diffusion),
}


@pytest.mark.parametrize("name", DATA)
def test_data_obey_the_laws_that_are_said_to_be_theirs(name: str) -> None:
    problem, laws = DATA[name]
    given = problem.draw(24, seed=3)
    for label, law in laws(problem, given).items():
        residual, scale = law.measure(given.values)
        assert (law.excess(residual) <= 1e-12 * scale).all(), label


def test_fast_fluxes_obey_them_too() -> None:
    """Bounds that account for what comes in hold where that is most of all there is."""
    problem = ReactionDiffusion(points=32, times=25, interval=0.04, left=(0.5, 1.0), right=(-1.0, -0.5))
    given = problem.draw(24, seed=4)
    for label, law in inequality_laws.reaction_diffusion(problem, given).items():
        residual, scale = law.measure(given.values)
        assert (law.excess(residual) <= 1e-12 * scale).all(), label


def test_bounds_that_account_for_fluxes_are_not_idle() -> None:
    """They are reached to a tenth of the way, where bounds that are never near would be met by any field."""
    given = REACTION.draw(64, seed=3)
    laws = inequality_laws.reaction_diffusion(REACTION, given)
    upper = laws["bounds"].residual(given.values).flatten(1).amax(1)
    assert (upper > -0.1).any()


@pytest.mark.parametrize(
    ("name", "published", "broken"),
    [
        ("Burgers", inequality_laws.burgers_published, {"CL, all steps", "entropy"}),
        ("reaction-diffusion", inequality_laws.reaction_diffusion_published, {"CL", "bounds", "energy"}),
    ],
)
def test_data_break_the_published_laws_that_are_said_to_be_broken(
    name: str, published: Callable[..., inequality_laws.Laws], broken: set[str]
) -> None:
    problem, _ = DATA[name]
    given = problem.draw(24, seed=3)
    found = {
        label
        for label, law in published(problem, given).items()
        if (law.excess(law.residual(given.values)) > 1e-6 * law.scale(given.values)).any()
    }
    assert found == broken


def test_feasible_shares_count_samples_that_obey_all() -> None:
    laws: inequality_laws.Laws = {"CL": Mass(SHEET, 0.5), "bounds": Bounds(0.0, 1.0)}
    u = torch.full((4, 1, 4, 6), 0.5, dtype=torch.float64)
    u[1] = 0.7  # another mass
    u[2, 0, 0, 2], u[2, 0, 0, 3] = 1.5, -0.5  # the same mass, beyond the bounds
    u[3] += 5e-5
    row = measured(laws, u, u + 2)
    assert row["feasible_3"] == 0.5
    assert row["feasible_6"] == 0.25
    assert row["bounds"] == pytest.approx(0.5)
    assert row["CL"] == pytest.approx(0.4, rel=1e-3)
    assert row["moved"] == pytest.approx(2.0)


@pytest.mark.parametrize("law", ["Burgers", "reaction-diffusion"])
def test_nearest_fields_of_all_laws_at_once(law: str) -> None:
    """All of a few noisy samples are certified, which is what the benchmark shows at full size."""
    problem, laws = {
        "Burgers": (InviscidBurgers(points=21, times=21), inequality_laws.burgers),
        "reaction-diffusion": (ReactionDiffusion(points=16, times=13, interval=0.08), inequality_laws.reaction_diffusion),
    }[law]
    given = problem.draw(3, seed=3)
    known: Any = laws(problem, given)
    result = project(Intersection(*known.values()), given.values + 0.1 * normal(tuple(given.values.shape), 5))
    assert result.converged.all()
    assert measured(known, result.u, given.values)["feasible_6"] == 1.0
