"""Suites of the benchmark: laws that their data obey, the literature's laws that they do not, reference sets, published numbers."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from constraints import Axis, Budget, Constraint, Grid, InitialCondition, Intersection, project
from pcfm import suite_laws
from pcfm.configuration import read_experiment
from pcfm.generation import certify
from pcfm.methods import METHODS
from pcfm.metrics import literature, violation
from pcfm.metrics.catalogue import METRICS
from pcfm.published import OURS, PUBLISHED
from pcfm.scores import Judge
from pcfm.suites import PRESETS, SUITES, Suite, joined
from pde_datasets import Fields, Problem
from pde_datasets.problems import InviscidBurgers, ReactionDiffusion
from pde_datasets.solvers.balance_laws import SteadyBudget

SMALL = {
    "heat": {"points": 12, "times": 9},
    "navier-stokes": {"points": 12, "times": 3, "duration": 1.0},
    "reaction-diffusion": {"points": 16, "times": 12, "interval": 0.05},
    "inviscid-burgers": {"points": 17, "times": 17},
    "kolmogorov": {"points": 12, "spin_up": 0.5, "interval": 0.5, "snapshots": 1},
    "taylor-green": {"points": 8, "times": 3},
    "taylor-green-3d": {"points": 6, "times": 2, "duration": 0.5},
    "cavity": {"cells": 6, "times": 3, "duration": 1.0},
    "channel": {"cells": 8, "times": 3, "duration": 0.5},
    "cylinder": {"upstream": 2.0, "downstream": 2.0, "side": 2.0, "growth": 1.4, "spin_up": 0.3, "times": 2, "duration": 0.2},
    "euler-1d": {"points": 16, "times": 5},
}
"""Settings by problem that are solved at once."""

OWN = {
    "kolmogorov": ("energy",),
    "taylor-green": ("energy",),
    "taylor-green-3d": ("energy",),
    "channel": ("momentum",),
    "euler": ("mass", "momentum", "energy"),
    "sensors": ("sensors",),
    "particle-images": ("windows",),
}
"""Suites in which each sample has data of its own, and the laws that they are part of."""


@pytest.fixture(params=SUITES, ids=str)
def suite(request: pytest.FixtureRequest) -> Suite:
    return SUITES[request.param]


def problem_of(suite: Suite) -> Problem:
    """The problem of the reference set, small."""
    return replace(suite.reference_problem(suite.sizes["quick"]), **SMALL[suite.problem])  # type: ignore[type-var]


def noise(like: Tensor, size: float, seed: int = 0) -> Tensor:
    return size * torch.randn(like.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_truth_obeys_the_laws_of_its_suite_to_round_off(suite: Suite) -> None:
    problem = problem_of(suite)
    reference, further = problem.draw(3, seed=1), problem.draw(3, seed=2)
    law = joined(suite.laws(problem, reference))
    own = joined(suite.laws(problem, further)) if suite.name in OWN else law
    for leaf, other in zip(law.leaves(), own.leaves(), strict=True):
        if leaf.variance is not None:
            continue
        assert violation(leaf, reference.u).relative.max() < 1e-13, leaf.name
        assert violation(other, further.u).relative.max() < 1e-13, other.name
    broken = joined(suite.laws(problem, reference))
    assert violation(broken, reference.u + noise(reference.u, 0.1)).relative.max() > 1e-3
    assert tuple(dict.fromkeys(label.partition(",")[0] for label in suite.laws(problem, reference))) == suite.kinds


def test_each_sample_has_the_data_of_its_own_reference(suite: Suite) -> None:
    """Of a law that all samples share there is one target; of another, that of one reference is not obeyed by the next."""
    problem = problem_of(suite)
    reference = problem.draw(3, seed=1)
    laws = suite.laws(problem, reference)
    for label, law in laws.items():
        of_their_own = {leaf.samples for leaf in law.leaves()} != {1}
        assert of_their_own == (label in OWN.get(suite.name, ()))
        if of_their_own:
            assert law.samples == 3
            own, next_one = (violation(law, u).absolute for u in (reference.u, reference.u.roll(1, dims=0)))
            assert (next_one > (1.0 if law.variance is not None else 1e3) * own).all()


def test_samples_share_the_datum_of_the_reference_and_nothing_else(suite: Suite) -> None:
    u = problem_of(suite).draw(4, seed=5).u
    first = u[:, :, 0]
    if "IC" in suite.kinds:
        assert torch.equal(first, first[:1].expand_as(first))
    if suite.name == "burgers-bc":
        assert (u[:, 0, 1:, 0] == 0.5).all()
        assert (first[0] - first[1]).abs().max() > 1e-2
    if suite.name == "cylinder":
        assert (u[:, 0, :, 0] == 1).all()
    if suite.name == "cavity":
        assert (u[:, 0, :, 1:-1, -1] == 1).all()
    assert all((u[0] - u[i]).abs().max() > 1e-4 for i in range(1, 4))


def test_training_data_vary_in_what_the_reference_shares(suite: Suite) -> None:
    training = replace(suite.training_problem(suite.sizes["quick"]), **SMALL[suite.problem])  # type: ignore[type-var]
    u = training.draw(3, seed=0).u
    assert (u[0, :, 0] - u[1, :, 0]).abs().max() > 1e-2


def test_projection_on_the_laws_of_each_suite_converges(suite: Suite) -> None:
    problem = problem_of(suite)
    reference = problem.draw(3, seed=1)
    law = joined(suite.laws(problem, reference))
    result = project(law, reference.u + noise(reference.u, 0.1))
    assert result.converged.all()
    assert certify(law, result.u)[2].all()


@pytest.mark.parametrize("name", ["reaction-diffusion-ic", "burgers-ic", "burgers-bc"])
def test_laws_of_the_literature_are_its_published_residuals(name: str) -> None:
    """Steps added up from the first time on are the rows of PCFM's code, which its own data do not obey."""
    suite = SUITES[name]
    problem = problem_of(suite)
    reference = problem.draw(3, seed=1)
    assert suite.literature is not None
    laws = suite.literature(problem, reference)
    law = laws.get("CL, all steps", laws["CL"])
    u = torch.rand(3, *reference.u.shape[1:], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    if isinstance(problem, ReactionDiffusion):
        theirs = literature.reaction_diffusion_mass_residual
        known = reference.parameters
        rows, truth = (theirs(v, problem.grid, known["reaction"], known["diffusivity"]) for v in (u, reference.u))
    else:
        rows, truth = (literature.burgers_mass_residual(v, problem.grid) for v in (u, reference.u))
    torch.testing.assert_close(law.residual(u).cumsum(1), rows, rtol=0, atol=1e-12)
    assert truth.abs().max() > 1e-3


def test_local_and_whole_balance_of_burgers_are_one_law_without_a_row_twice() -> None:
    """The cell that the local rows leave out follows from the balance of all."""
    problem = InviscidBurgers(points=17, times=17, front=(0.5, 0.5))
    reference = problem.draw(2, seed=3)
    law = joined(suite_laws.burgers_initial(problem, reference))
    u = torch.rand(2, *reference.u.shape[1:], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    cells = problem.conservation(suite_laws.LOCAL_STEPS).residual(u).reshape(2, suite_laws.LOCAL_STEPS, -1)
    whole = suite_laws.inner_balance(problem).residual(u)[:, : suite_laws.LOCAL_STEPS]
    torch.testing.assert_close(problem.grid.axes[1].spacing * cells.sum(-1), whole, rtol=0, atol=1e-14)

    def least(law: Constraint) -> float:
        """The smallest eigenvalue of the Gram matrix over the largest."""
        jacobian = law.jacobian(reference.u)
        rows = [jacobian(jacobian.adjoint(row.expand(2, -1)))[0] for row in torch.eye(jacobian.rows, dtype=torch.float64)]
        values = torch.linalg.eigvalsh(torch.stack(rows))
        return float(values[0] / values[-1])

    twice = Intersection(problem.conservation(suite_laws.LOCAL_STEPS), suite_laws.inner_balance(problem))
    assert least(twice) < 1e-14
    assert least(law) > 1e-5


# --- a steady, unknown inflow -------------------------------------------------------------------------------------------------------

LINE = Grid(Axis("time", 7, length=1.2), Axis("x", 5, length=1.0, periodic=True))


def steady() -> SteadyBudget:
    return SteadyBudget(LINE, lambda u: u[:, 0].square().mean(-1), density=lambda u: u[:, 0] + u[:, 0].pow(3) / 5)


def test_steady_budget_is_the_budget_up_to_what_comes_in() -> None:
    """Whatever constant comes in per step, and only a constant, obeys."""
    u = noise(torch.empty(3, 1, 7, 5), 1.0)
    rows = Budget(LINE, lambda u: u[:, 0].square().mean(-1), density=lambda u: u[:, 0] + u[:, 0].pow(3) / 5).residual(u)
    assert torch.allclose(steady().residual(u), rows - rows.mean(1, keepdim=True), atol=1e-15)
    problem = ReactionDiffusion(points=16, times=12, interval=0.05)
    drawn = problem.draw(3, seed=2)
    assert violation(problem.steady_balance(), drawn.u).relative.max() < 1e-14
    uneven = drawn.u.clone()
    uneven[:, :, 6:] += 0.01
    assert violation(problem.steady_balance(), uneven).relative.max() > 1e-3


def test_steady_budget_knows_its_derivatives_and_inverts_its_gram_matrix() -> None:
    law, u = steady(), noise(torch.empty(3, 1, 7, 5), 1.0)
    direction = noise(u, 1.0, 1)
    residual, jacobian = law.linearise(u)
    step = 1e-6
    slope = (law.residual(u + step * direction) - law.residual(u - step * direction)) / (2 * step)
    assert torch.allclose(jacobian(direction), slope, atol=1e-8)
    y = noise(residual, 1.0, 2)
    assert torch.allclose((jacobian(direction) * y).sum(1), (direction * jacobian.adjoint(y)).flatten(1).sum(1), atol=1e-12)
    bent = (law.jacobian(u + step * direction).adjoint(y) - law.jacobian(u - step * direction).adjoint(y)) / (2 * step)
    assert torch.allclose(law.curvature(u, y, direction), bent, atol=1e-7)
    gram = torch.stack([jacobian(jacobian.adjoint(row.expand(3, -1))) for row in torch.eye(6, dtype=torch.float64)], dim=-1)
    exact = (torch.linalg.pinv(gram, rtol=1e-10) @ residual[..., None])[..., 0]
    assert torch.allclose(jacobian.solve_gram(residual), exact, atol=1e-9)
    free = torch.ones(1, 7, 5, dtype=torch.float64)
    free[:, 0] = 0.0
    held = jacobian.weighted(free)
    assert torch.allclose(held(direction), jacobian(free * direction), atol=1e-13)
    assert torch.allclose(held(held.adjoint(held.solve_gram(residual))), residual, atol=1e-9)


def test_steady_budget_is_projected_on_beside_initial_data() -> None:
    u = noise(torch.empty(4, 1, 7, 5), 0.5)
    law = Intersection(InitialCondition(LINE, u[:1, :, 0]), steady())
    result = project(law, u + noise(u, 0.3, 3))
    assert result.converged.all()


def test_steady_budget_refuses_uneven_times() -> None:
    with pytest.raises(ValueError, match="equally spaced"):
        SteadyBudget(Grid(Axis.at("time", [0.0, 1.0, 3.0]), Axis("x", 4)))
    with pytest.raises(ValueError, match="one step"):
        ReactionDiffusion(steps=2).steady_balance()


# --- tables of suites ------------------------------------------------------------------------------------------------------------


def test_each_suite_is_whole(suite: Suite) -> None:
    assert set(suite.sizes) == set(PRESETS)
    for size in suite.sizes.values():
        suite.training_problem(size)
        assert suite.reference_problem(size).grid.shape == suite.training_problem(size).grid.shape
        read_experiment(None, (*suite.model, *size.model))
        entries = suite.entries(size)
        assert len(entries) == len({str(entry) for entry in entries})
        assert {entry.name for entry in entries} == set(METHODS) - set(size.without)
        assert size.count >= 2
        assert size.seeds >= 2
    assert set(suite.metrics) <= set(METRICS)
    assert "arXiv" in suite.source or "this project" in suite.source
    assert (suite.shipped is None) != (suite.sizes["quick"].fields == 0)


def test_entries_say_what_they_impose() -> None:
    suite = SUITES["burgers-ic"]
    problem = problem_of(suite)
    reference = problem.draw(2)
    assert [leaf.name for leaf in suite.imposed(suite.entry("pcfm@IC"), problem, reference).leaves()] == ["initial condition"]  # type: ignore[union-attr]
    ours, theirs = (suite.imposed(suite.entry(text), problem, reference) for text in ("pcfm", "pcfm@literature"))
    assert ours is not None
    assert theirs is not None
    assert ours.leaves()[-1].name == "balance of the inner cells"
    assert theirs.leaves()[-1].name == "mass balance of the literature"
    assert suite.imposed(suite.entry("unconstrained"), problem, reference) is None
    velocity = SUITES["taylor-green"]
    small = problem_of(velocity)
    both = velocity.imposed(velocity.entry("pcfm@divergence+energy"), small, small.draw(2))
    assert both is not None
    assert [leaf.name.split()[0] for leaf in both.leaves()] == ["divergence", "energy"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pcmf", "pcfm"),
        ("pcfm:nothing=1", "no option 'nothing'"),
        ("pcfm@energy", "no laws 'energy'"),
        ("pcfm@IC+BC", "no laws 'BC'"),
        ("pcfm@literature", "no laws 'literature'"),
        ("unconstrained@IC", "takes no law"),
    ],
)
def test_entries_that_make_no_sense_are_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SUITES["heat-ic"].entry(text)


def test_published_numbers_are_kept_as_printed() -> None:
    """Some of them, copied from the papers a second time; and every table whole."""
    printed = {
        ("heat-ic", "PCFM", "MMSE"): 0.241,
        ("heat-ic", "PDM", "SMSE"): 0.02,
        ("heat-ic", "FFM", "CE(IC)"): 579,
        ("navier-stokes-ic", "ECI", "SMSE"): 7.28,
        ("navier-stokes-ic", "DiffusionPDE", "CE(CL)"): 21.4,
        ("navier-stokes-ic", "D-Flow", "MMSE"): None,
        ("reaction-diffusion-ic", "ECI", "CE(CL)"): 6.00,
        ("reaction-diffusion-ic", "PCFM", "FPD"): 15.7,
        ("burgers-bc", "D-Flow", "MMSE"): 0.224,
        ("burgers-bc", "ECI", "CE(BC)"): 20.3,
        ("burgers-ic", "PDM", "MMSE"): 153,
        ("burgers-ic", "ECI", "CE(CL)"): 205,
    }
    for (suite, method, metric), value in printed.items():
        assert PUBLISHED[suite][0].rows[method][metric] == value
    later = {
        ("heat-ic", "PMosFM", "FPD"): 0.0806,
        ("navier-stokes-ic", "PMosFM", "CE(IC)"): None,
        ("burgers-bc", "PBFM", "SMSE"): 4.63,
        ("burgers-ic", "PMosFM", "MMSE"): 0.030,
    }
    for (suite, method, metric), value in later.items():
        assert PUBLISHED[suite][1].rows[method][metric] == value
    for tables in PUBLISHED.values():
        for table in tables:
            assert re.search(r"arXiv:\d{4}\.\d{5}, table \d", table.source)
            assert len({tuple(row) for row in table.rows.values()}) == 1
    assert set(PUBLISHED) <= set(SUITES)
    assert set(OURS.values()) <= set(METHODS)
    assert set(OURS) == set(PUBLISHED["heat-ic"][0].rows)


def test_energies_are_those_of_the_given_fields() -> None:
    suite = SUITES["taylor-green"]
    problem = problem_of(suite)
    given: Fields = problem.draw(3, seed=1)
    ours, own = suite.laws(problem, given)["energy"], problem.constraint(given.parameters).leaves()[-1]
    torch.testing.assert_close(ours.target, own.target, rtol=1e-12, atol=1e-14)


# --- what is observed --------------------------------------------------------------------------------------------------------------


def test_sensors_are_three_hundredths_of_the_points_and_windows_cover_all_once() -> None:
    grid = Grid(*(Axis(name, 32, length=1.0, periodic=True) for name in "xy"))
    mask = suite_laws.sensed(grid, 2)
    assert int(mask[0].sum()) == round(0.03 * 32 * 32)
    assert torch.equal(mask[0], mask[1])
    assert torch.equal(mask, suite_laws.sensed(grid, 2)), "sensors stay where they are"
    number = suite_laws.windows(grid)
    assert torch.equal(number.flatten().bincount(), torch.full((16,), 64))
    assert (number[:8, :8] == 0).all()
    assert (number[8:16, 24:] == 7).all()


def test_noise_of_windows_is_what_it_is_said_to_be_and_their_misfit_one() -> None:
    """The mean over n squares of normals is 1 within a few times sqrt(2 / n); a law observed with noise is never broken."""
    suite = SUITES["particle-images"]
    problem = replace(suite.reference_problem(suite.sizes["quick"]), **{**SMALL["kolmogorov"], "points": 64, "dt": 0.05})  # type: ignore[type-var]
    reference = problem.draw(8, seed=1)
    observed = suite.laws(problem, reference)["windows"]
    residual = observed.residual(reference.u)
    size = suite_laws.NOISE * reference.u.square().mean().sqrt()
    assert residual.std() / size == pytest.approx(1.0, abs=0.1)
    assert residual.shape[1] == 2 * 64
    first, second = residual[0] / size, residual[1] / size
    assert abs(float((first * second).mean())) < 0.3, "each sample has noise of its own"
    judge = Judge(suite, problem, reference)
    truth = judge(reference.u, reference)
    assert truth[f"misfit: {observed.name}"] == pytest.approx(1.0, abs=5 * (2 / residual.numel()) ** 0.5)
    assert truth["lawful"] == 1
    assert truth["violation"] < 1e-13
    assert truth["reconstruction"] == 0
    other = judge(reference.u.roll(1, dims=0), reference)
    assert other[f"misfit: {observed.name}"] > 10
    assert other["violation"] < 1e-13, "what is observed with noise is not a law that is broken"
    expected = ((reference.u.roll(1, dims=0) - reference.u).square().mean((1, 2, 3)) / reference.u.square().mean((1, 2, 3))).sqrt().mean()
    assert other["reconstruction"] == pytest.approx(float(expected), rel=1e-9)


def test_what_is_given_to_a_projection_comes_back_nearer_to_its_reference() -> None:
    """The nearest lawful field has no larger distance to any lawful field: sensors are a convex law."""
    suite = SUITES["sensors"]
    problem = problem_of(suite)
    reference = problem.draw(3, seed=1)
    u = reference.u + noise(reference.u, 0.5)
    nearest = project(joined(suite.laws(problem, reference)), u).u
    assert ((nearest - reference.u).flatten(1).norm(dim=1) < (u - reference.u).flatten(1).norm(dim=1)).all()


def test_totals_of_a_gas_are_those_of_its_reference() -> None:
    suite = SUITES["euler"]
    problem = problem_of(suite)
    reference = problem.draw(3, seed=1)
    laws = suite.laws(problem, reference)
    assert list(laws) == ["mass", "momentum", "energy", "positivity"]
    heavier = reference.u.clone()
    heavier[:, 0] += 1e-3
    assert violation(laws["mass"], heavier).absolute.min() == pytest.approx(1e-3, rel=1e-9)
    assert violation(laws["momentum"], heavier).relative.max() < 1e-13
    negative = reference.u.clone()
    negative[:, 2, 0, 0] = -0.5
    assert violation(laws["positivity"], negative).absolute.min() == 0.5
    negative[:, 2, 0, 0], negative[:, 1, 0, 0] = 1.0, -0.5
    assert violation(laws["positivity"], negative).absolute.max() == 0, "momentum may have any sign"
