"""What every embedded problem promises: lawful fields, the same for a seed and an index, and a record of how they were made."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from dataclasses import fields as attributes
from typing import Any

import pytest
import torch

from constraints import Intersection
from pcfm.laws import Context, build_all
from pde_datasets import PROBLEMS, Fields, Problem, problem_of
from pde_datasets.problem import generator
from tests.conftest import Figure
from tests.problems import CHANGES, EXAMPLES


@pytest.fixture(params=PROBLEMS, ids=str)
def problem(request: pytest.FixtureRequest) -> Problem:
    return EXAMPLES[request.param]


def test_drawn_fields_obey_their_law(problem: Problem, figure: Figure) -> None:
    """To round-off of the law's own scale, and the laws the fields state for themselves with it; not so a disturbed field."""
    drawn = problem.draw(4, seed=7)
    law = problem.constraint(drawn.parameters)
    context = Context(drawn.grid, drawn.channels, drawn.roles, drawn.laws, count=4)
    stated = Intersection(build_all(drawn.laws, context)).leaves() if drawn.laws else ()
    worst = 0.0
    for leaf in (*law.leaves(), *stated):
        residual, scale = leaf.measure(drawn.u)
        assert (leaf.excess(residual).abs() <= 1e-12 * scale).all(), leaf.name
        worst = max(worst, float((leaf.excess(residual).abs() / scale.clamp_min(1e-300)).max()))
    figure(problem.name, "laws", worst, "largest residual of its laws over their scale")
    noise = torch.randn(drawn.u.shape, generator=generator(0, 0), dtype=torch.float64)
    residual, scale = law.measure(drawn.u + 1e-3 * drawn.u.std() * noise)
    assert (residual.abs() > 1e-9 * scale).any()


def test_a_sample_depends_on_seed_and_index_alone(problem: Problem) -> None:
    whole = problem.draw(5, seed=3)
    part = problem.draw(2, seed=3, start=2)
    scale = whole.u.abs().max()
    assert (whole.u[2:4] - part.u).abs().max() <= 1e-12 * scale
    assert torch.equal(whole.u, problem.draw(5, seed=3).u)
    for name, values in whole.parameters.items():
        torch.testing.assert_close(values[2:4], part.parameters[name], rtol=1e-12, atol=1e-12)
    assert (whole.u - problem.draw(5, seed=4).u).abs().amax(tuple(range(1, whole.u.ndim))).min() > 1e-3 * scale
    assert (whole.u[0] - whole.u[4]).abs().max() > 1e-3 * scale


def test_ranges_with_their_ends_exchanged_are_refused(problem: Problem) -> None:
    """Pairs of the type of a range; Darcy's shape is two unlike numbers."""
    pairs = [f for f in attributes(problem) if f.type == "tuple[float, float]" and (problem.name, f.name) != ("darcy", "shape")]  # type: ignore[arg-type]
    for pair in pairs:
        high = max(getattr(problem, pair.name)) + 1.0
        with pytest.raises(ValueError, match=pair.name):
            replace(problem, **{pair.name: (high, high - 0.5)})  # type: ignore[type-var]


def test_drawn_fields_say_what_they_are(problem: Problem) -> None:
    drawn = problem.draw(3, seed=11)
    assert isinstance(drawn, Fields)
    assert len(drawn) == 3
    assert drawn.u.dtype == torch.float64
    assert drawn.u.shape == (3, len(drawn.channels), *problem.grid.shape)
    assert drawn.grid == problem.grid
    assert torch.isfinite(drawn.u).all()
    assert PROBLEMS[problem.name] is type(problem)
    assert drawn.attributes["seed"] == 11
    assert drawn.attributes["equation"] == problem.equation
    assert drawn.attributes["scheme"] == problem.scheme
    for values in drawn.parameters.values():
        assert values.shape[0] == 3


def test_the_time_axis_is_what_times_say(problem: Problem) -> None:
    """`times` fields from `skip` intervals or `spin_up` on, an `interval` apart or over the `duration`; none for snapshots."""
    settings = asdict(problem)  # type: ignore[call-overload]
    if "times" not in settings or settings["times"] == 1:
        assert not problem.grid.has_time
        return
    times = settings["times"]
    interval = settings.get("interval", settings.get("duration", 1.0) / (times - 1))
    start = settings.get("spin_up", settings.get("skip", 0) * interval)
    expected = start + interval * torch.arange(times, dtype=torch.float64)
    torch.testing.assert_close(problem.grid.axes[0].positions(), expected, rtol=1e-13, atol=1e-13)


def test_fields_are_those_of_their_times(problem: Problem) -> None:
    """Stored twice as often they are the same at the times there were before, up to the error of the time steps."""
    settings = asdict(problem)  # type: ignore[call-overload]
    if "times" not in settings:
        pytest.skip("no times are stored")
    twice: dict[str, Any] = {"times": 2 * settings["times"] - 1}
    if "interval" in settings:
        twice |= {"interval": settings["interval"] / 2} | ({"skip": 2 * settings["skip"]} if "skip" in settings else {})
    rough, often = problem.draw(2, seed=5).u, replace(problem, **twice).draw(2, seed=5).u  # type: ignore[type-var]
    if problem.grid.has_time:
        often = often[:, :, ::2]
    error = (often - rough).abs().flatten(1).mean(1)
    assert (error <= 0.05 * rough.abs().flatten(1).mean(1)).all()


def test_fields_know_the_problem_that_made_them(problem: Problem) -> None:
    """Through the plain values that a file stores."""
    drawn = problem.draw(1)
    stored = replace(drawn, attributes=json.loads(json.dumps(drawn.attributes)))
    assert problem_of(stored) == problem


def test_presets_are_settings(problem: Problem) -> None:
    for name in type(problem).presets:
        assert isinstance(type(problem).preset(name), type(problem))
        assert type(problem).preset(name).grid
    with pytest.raises(ValueError, match="no preset 'nonsense'"):
        type(problem).preset("nonsense")


def test_no_samples_are_refused(problem: Problem) -> None:
    with pytest.raises(ValueError, match="at least one sample"):
        problem.draw(0)


@pytest.mark.parametrize(("name", "key"), [(name, key) for name, changes in CHANGES.items() for key in changes])
def test_every_setting_changes_the_data(name: str, key: str) -> None:
    problem = EXAMPLES[name]
    assert set(CHANGES[name]) == {f.name for f in attributes(problem)}  # type: ignore[arg-type]
    before, after = problem.draw(2, seed=1).u, replace(problem, **{key: CHANGES[name][key]}).draw(2, seed=1).u  # type: ignore[type-var]
    assert before.shape != after.shape or not torch.allclose(before, after, rtol=0, atol=1e-9)
