"""Tests of calibration have their nominal error where all is well and see each way in which a posterior can be wrong."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import kstest
from torch import Tensor

from pcfm.metrics import conformal, coverage, pit, ranks, spread_skill, tarp
from pcfm.samplers import RungeKutta4

SIMULATIONS, DRAWS, SIZE = 1000, 200, 3
PRIOR = torch.tensor([1.0, 0.7, 1.5], dtype=torch.float64)
NOISE = torch.tensor([0.5, 0.5, 0.8], dtype=torch.float64)


def posterior(*, widen: float = 1.0, shift: float = 0.0, prior: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Draws of the posterior of a normal mean seen through noise, truths, and the posterior means."""
    generator = torch.Generator().manual_seed(11)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    truth = PRIOR * normal(SIMULATIONS, SIZE)
    seen = truth + NOISE * normal(SIMULATIONS, SIZE)
    gain = PRIOR.square() / (PRIOR.square() + NOISE.square())
    mean, std = gain * seen, (gain * NOISE.square()).sqrt()
    white = normal(DRAWS, SIMULATIONS, SIZE)
    draws = PRIOR * white if prior else mean + shift * std + widen * std * white
    return draws, truth, mean


WRONG = {"over-confident": {"widen": 0.7}, "under-confident": {"widen": 1.4}, "biased": {"shift": 0.3}, "the prior": {"prior": True}}


def p_value(depends: bool, **how: float) -> float:
    draws, truth, mean = posterior(**how)  # type: ignore[arg-type]
    white = torch.randn(truth.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)  # not those of the data
    at = mean + 0.7 * PRIOR if depends else PRIOR * white
    return tarp(draws, truth, at, generator=torch.Generator().manual_seed(6)).p_value


def test_an_exact_posterior_passes() -> None:
    assert p_value(True) > 1e-3


@pytest.mark.parametrize("how", WRONG)
def test_references_that_depend_on_the_data_see_what_is_wrong(how: str) -> None:
    assert p_value(True, **WRONG[how]) < 1e-5  # type: ignore[arg-type]


def test_references_that_do_not_let_the_prior_pass() -> None:
    assert p_value(False, prior=True) > 1e-3


def test_ranks_of_an_exact_posterior_cover_as_stated_and_of_a_narrow_one_do_not() -> None:
    for widen, holds in ((1.0, True), (0.7, False)):
        draws, truth, _ = posterior(widen=widen)
        found = ranks(draws, truth)
        found_coverage = coverage(found, DRAWS, (0.5, 0.8, 0.9, 0.95))
        error = 3 * (found_coverage.nominal * (1 - found_coverage.nominal) / truth.numel()).sqrt()
        assert bool(((found_coverage.covered - found_coverage.nominal).abs() <= error).all()) == holds
        values = [float(kstest(pit(found[:, i], DRAWS).numpy(), "uniform").pvalue) for i in range(SIZE)]
        assert all(value > 1e-3 for value in values) == holds


@pytest.mark.parametrize(("width", "holds"), [(1.0, True), (0.7, False)])
def test_an_exact_conditional_flow_has_the_spread_of_its_errors(width: float, holds: bool) -> None:
    """Ensembles from the flow of $p(x|y)$, y the truth seen through noise: spread over skill is one; from narrower noise it is not."""
    generator = torch.Generator().manual_seed(4)
    truth = torch.randn(500, 1, 4, generator=generator, dtype=torch.float64)
    seen = truth + 0.5 * torch.randn(truth.shape, generator=generator, dtype=torch.float64)
    mean, variance = 0.8 * seen, 0.2

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        return mean + (t * variance - (1 - t)) / (t**2 * variance + (1 - t) ** 2) * (x - t * mean)

    noise = width * torch.randn(12, *truth.shape, generator=generator, dtype=torch.float64)
    members = torch.stack([RungeKutta4(velocity)(x0, torch.linspace(0, 1, 21, dtype=torch.float64)) for x0 in noise])
    assert (abs(float(spread_skill(members, truth)) - 1) <= 0.05) == holds


@pytest.mark.parametrize("norm", ["max", "rms"])
def test_conformal_sets_cover_as_stated_whatever_the_ensemble(norm: str) -> None:
    generator = torch.Generator().manual_seed(2)
    centre = torch.randn(2400, 1, 16, generator=generator, dtype=torch.float64)
    truth = centre + torch.randn(centre.shape, generator=generator, dtype=torch.float64).exp()  # skew, biased
    ensemble = centre + 0.2 * torch.randn(10, *centre.shape, generator=generator, dtype=torch.float64)
    found = conformal(ensemble[:, :400], truth[:400], level=0.9, norm=norm)
    covered = float(found.covers(ensemble[:, 400:], truth[400:]).double().mean())
    assert 0.9 <= found.nominal <= 0.9 + 1 / 401
    assert abs(covered - found.nominal) <= 4 * (0.09 * (1 / 400 + 1 / 2000)) ** 0.5
    if norm == "max":
        low, high = found.band(ensemble[:, 400:])
        inside = ((truth[400:] >= low) & (truth[400:] <= high)).flatten(1).all(1)
        assert torch.equal(inside, found.covers(ensemble[:, 400:], truth[400:]))
    else:
        with pytest.raises(ValueError, match="norm 'max'"):
            found.band(ensemble)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda x: conformal(x, x[0], level=0.99), "at least 99 calibration pairs"),
        (lambda x: conformal(x, x[0], norm="l1"), "max, rms"),
        (lambda x: conformal(x[:1], x[0]), "two members"),
        (lambda x: tarp(x, x[0, :3], x[0]), "draws \\(L, B, n\\)"),
    ],
)
def test_bad_input(make, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        make(torch.zeros(5, 20, 2))
