"""Diffusion models as flows: the velocity of exact predictors is that of the straight path, whatever they predict and at whatever level."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import pcfm
from constraints import Axis, Grid, Mass, Units
from pcfm.diffusion import PREDICTIONS, ContinuousLevels, DiffusionVelocity, DiscreteLevels, FlowAsDiffusion, NoiseLevels
from pcfm.path import AffinePath
from pcfm.samplers import Heun
from pcfm.schedule import Scales
from pcfm.source import WhiteNoise
from tests.oracles_gmm import Mixture, MixtureOracle

TABLES = {
    "linear": DiscreteLevels.linear(),
    "scaled-linear": DiscreteLevels.scaled_linear(),
    "cosine": DiscreteLevels.cosine(),
}
MIXTURE = Mixture(
    torch.tensor([0.3, 0.7], dtype=torch.float64),
    torch.tensor([[-1.5, 0.5], [1.0, -0.5]], dtype=torch.float64),
    torch.tensor([[[0.3, 0.1], [0.1, 0.2]], [[0.2, -0.05], [-0.05, 0.4]]], dtype=torch.float64),
)


def at_level(a: Tensor, s: Tensor) -> Any:
    """What the oracle needs of a path: the scales of one noise level, at any time."""
    return SimpleNamespace(schedule=lambda t: Scales(a, s, t * 0, t * 0))


def predictor(levels: NoiseLevels, kind: str, *, shift: float = 0.0):
    """A diffusion model that has learnt the mixture exactly, which finds a and s from its own label."""

    def scales(label: Tensor) -> tuple[Tensor, Tensor]:
        if isinstance(levels, ContinuousLevels):
            return torch.ones_like(label), label
        assert isinstance(levels, DiscreteLevels)
        return levels.scales(levels.time(label))

    def network(x: Tensor, label: Tensor) -> Tensor:
        a, s = scales(label[0] + shift)
        data = MixtureOracle(MIXTURE, at_level(a, s)).endpoint(x, torch.tensor(0.5))
        noise = (x - a * data) / s
        return {"noise": noise, "data": data, "v": a * noise - s * data}[kind]

    return network


def states(count: int, t: float) -> Tensor:
    """Points of the straight path."""
    noise = torch.randn(count, 1, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return t * MIXTURE.sample(count, 4) + (1 - t) * noise


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("name", [*TABLES, "continuous"])
def test_an_exact_predictor_gives_the_velocity_of_the_straight_path(name: str, prediction: str) -> None:
    levels = TABLES.get(name) or ContinuousLevels()
    velocity, oracle = DiffusionVelocity(predictor(levels, prediction), levels, prediction), MixtureOracle(MIXTURE)
    for t in torch.tensor([0.08, 0.2, 0.35, 0.5, 0.65, 0.8, 0.95], dtype=torch.float64):
        x = states(64, float(t))
        expected = oracle(x, t)
        assert (velocity(x, t) - expected).norm() <= 1e-9 * expected.norm()


def test_a_network_of_whole_indices_costs_two_per_cent_at_most() -> None:
    levels = DiscreteLevels.scaled_linear(nearest=True)
    velocity, oracle = DiffusionVelocity(predictor(levels, "noise"), levels), MixtureOracle(MIXTURE)
    errors = []
    for t in torch.tensor([0.08, 0.2, 0.35, 0.5, 0.65, 0.8, 0.95], dtype=torch.float64):
        x = states(64, float(t))
        assert float(levels.label(t[None])) == round(float(levels.label(t[None])))
        errors.append(float((velocity(x, t) - oracle(x, t)).norm() / oracle(x, t).norm()))
    assert max(errors) <= 2e-2


def test_an_index_off_by_one_is_seen() -> None:
    levels = DiscreteLevels.scaled_linear()
    t = torch.tensor(0.9, dtype=torch.float64)
    x = states(64, 0.9)
    wrong = DiffusionVelocity(predictor(levels, "noise", shift=1.0), levels)(x, t)
    expected = MixtureOracle(MIXTURE)(x, t)
    assert (wrong - expected).norm() > 1e-3 * expected.norm()


@pytest.mark.parametrize("name", TABLES)
def test_labels_are_the_indices_of_the_table_and_increase_with_noise(name: str) -> None:
    levels = TABLES[name]
    assert (levels.label(levels.table) - torch.arange(1000)).abs().max() <= 1e-9
    between = torch.linspace(0, 999, 3001, dtype=torch.float64)
    assert (levels.label(levels.time(between)) - between).abs().max() <= 1e-9
    times = torch.linspace(levels.first, levels.last, 5001, dtype=torch.float64)
    assert bool((levels.label(times).diff() < 0).all())
    a, s = levels.scales(times)
    torch.testing.assert_close(a.square() + s.square(), torch.ones_like(a), rtol=1e-14, atol=0)
    torch.testing.assert_close(a / (a + s), times, rtol=1e-14, atol=0)


def test_levels_are_those_of_the_betas() -> None:
    bar, kept = 1.0, []
    for k in range(1000):
        bar *= 1 - (1e-4 + (0.02 - 1e-4) * k / 999)
        kept.append(bar)
    a, _ = TABLES["linear"].scales(TABLES["linear"].time(torch.arange(1000.0, dtype=torch.float64)))
    torch.testing.assert_close(a.square(), torch.tensor(kept, dtype=torch.float64), rtol=1e-12, atol=0)


@pytest.mark.parametrize("levels", [*TABLES.values(), ContinuousLevels()])
def test_the_models_own_spacing(levels: NoiseLevels) -> None:
    for steps in (1, 2, 25):
        times = levels.times(steps)
        assert (len(times), times[0], times[-1]) == (steps + 1, 0, 1)
        assert bool((times.diff() > 0).all())


def test_outside_its_levels_the_prediction_of_the_nearest_is_kept() -> None:
    levels = DiscreteLevels.scaled_linear()
    velocity = DiffusionVelocity(predictor(levels, "noise"), levels)
    for t in (0.0, levels.first / 2, (1 + levels.last) / 2, 1.0):
        x = states(256, t)
        at = torch.tensor(t, dtype=torch.float64)
        expected = MixtureOracle(MIXTURE)(x, at.clamp(1e-6, 1 - 1e-6))
        assert bool(torch.isfinite(velocity(x, at)).all())
        assert (velocity(x, at) - expected).norm() <= 0.25 * expected.norm()
    inside, outside = (velocity(states(8, levels.first), torch.tensor(levels.first + d, dtype=torch.float64)) for d in (1e-9, -1e-9))
    torch.testing.assert_close(inside, outside, rtol=1e-6, atol=1e-6)


def test_sampling_a_converted_model_gives_its_data() -> None:
    """The flow from the same noise, against a fine solve of the exact one."""
    levels = DiscreteLevels.linear()
    x0 = torch.randn(200, 1, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    fine = Heun(MixtureOracle(MIXTURE)).sample(x0, torch.linspace(0, 0.9999, 801, dtype=torch.float64)).x
    ours = Heun(DiffusionVelocity(predictor(levels, "v"), levels, "v")).sample(x0, levels.times(50)).x
    assert (ours - fine).flatten(1).norm(dim=1).median() <= 0.03
    spread = torch.cov(ours[:, 0].T) - torch.cov(fine[:, 0].T)
    assert spread.abs().max() <= 0.05


def test_pure_noise_as_the_last_level() -> None:
    bar = torch.cat([TABLES["linear"].table, torch.zeros(1, dtype=torch.float64)])
    levels = DiscreteLevels(bar.square() / (bar.square() + (1 - bar).square()))
    assert levels.first == 0
    with pytest.raises(ValueError, match="pure noise"):
        DiffusionVelocity(torch.nn.Identity(), levels)
    # x_1 is at the mean of the data, when nothing but noise is seen
    mean = (MIXTURE.weights[:, None] * MIXTURE.means).sum(0)

    def network(x: Tensor, label: Tensor) -> Tensor:
        return -mean.expand_as(x) if float(label[0]) == len(bar) - 1 else predictor(levels, "v")(x, label)

    velocity = DiffusionVelocity(network, levels, "v")
    x = states(16, 0.0)
    torch.testing.assert_close(velocity(x, torch.tensor(0.0, dtype=torch.float64)), mean - x, rtol=1e-12, atol=1e-12)


def test_there_and_back() -> None:
    """The flow of a diffusion model of a flow is the flow."""
    levels, oracle = DiscreteLevels.cosine(), MixtureOracle(MIXTURE)
    back = DiffusionVelocity(FlowAsDiffusion(lambda x, t: oracle(x, t[0]), levels), levels)
    for t in levels.time(torch.tensor([10.0, 400.3, 900.7], dtype=torch.float64)):
        x = states(32, float(t))
        torch.testing.assert_close(back(x, t), oracle(x, t), rtol=1e-9, atol=1e-9)


class Denoiser(torch.nn.Module):
    """A float32 network that predicts the noise of white fields around one."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = torch.nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        a, s = (k.float().reshape(-1, 1, 1) for k in LEVELS.scales(LEVELS.time(label.double())))
        spread = a.square() * 0.25 + s.square()
        return self.gain * s / spread * (x - a)


LEVELS = DiscreteLevels.linear()


def test_a_diffusion_model_is_sampled_under_a_law() -> None:
    grid = Grid(Axis("x", 16, periodic=True))
    flow = pcfm.Flow(
        DiffusionVelocity(Denoiser(), LEVELS), AffinePath(), WhiteNoise(grid, 1), Units.identity(1), grid, ("u",), ("1",), call="x,t"
    )
    samples = pcfm.sample(flow, 64, law=Mass(grid, 1.25), steps=25)
    assert bool(samples.converged.all())
    assert (samples.u.mean((1, 2)) - 1.25).abs().max() <= 1e-12
    assert 0.4 < float((samples.u - samples.u.mean(2, keepdim=True)).std()) < 0.6


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: DiscreteLevels([0.5, 0.6]), "decreasing"),
        (lambda: DiscreteLevels([1.0, 0.6]), "below 1"),
        (lambda: DiscreteLevels(torch.ones(2, 2)), "decreasing"),
        (lambda: ContinuousLevels(1.0, 0.5), "least < most"),
        (lambda: DiffusionVelocity(torch.nn.Identity(), LEVELS, "epsilon"), "noise, data, v"),
    ],
)
def test_bad_input(make, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        make()
