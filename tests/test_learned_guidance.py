r"""Learned guidance: both regressions are least at the exact guidance of a tilted Gaussian, and networks find that of a tilted mixture.

$\mathcal N(m, s^2)$ tilted by $e^{-ax}$ is $\mathcal N(m - as^2, s^2)$, and $Z_t(x) = \mathrm E[e^{-ax_1}|x_t]$ is that of a normal law.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from constraints import Axis, Grid
from pcfm.guidance import FunctionEnergy, GuidedVelocity, LearnedGuidance, learn_guidance
from pcfm.guidance.guidance import Guidance
from pcfm.guidance.learned import Example, example, matched_loss, normaliser_loss, reweighted_loss, tilts
from pcfm.networks import Perceptron
from pcfm.path import AffinePath, broadcast
from pcfm.samplers import Heun
from pcfm.schedule import Cosine
from pcfm.source import SmoothNoise
from pcfm.velocity import GaussianFlow
from tests.oracles_gmm import Mixture, MixtureOracle

MEAN, STD, SLOPE = 0.4, 0.7, 1.2
PATH = AffinePath(Cosine())
PAIR = Grid(Axis("x", 2, periodic=True))


def normal(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def exact(x: Tensor, t: Tensor) -> Tensor:
    return GaussianFlow(MEAN - SLOPE * STD**2, STD, PATH)(x, t) - GaussianFlow(MEAN, STD, PATH)(x, t)


def exact_log_normaliser(x: Tensor, t: Tensor) -> Tensor:
    """Of weights whose mean is one: x1 given x is normal, with the variance that noise leaves."""
    signal, noise = PATH.schedule(t)[:2]
    total = signal**2 * STD**2 + noise**2
    mean = MEAN + signal * STD**2 / total * (x.flatten() - signal * MEAN)
    return -SLOPE * mean + SLOPE**2 * STD**2 * noise**2 / total / 2 + SLOPE * MEAN - SLOPE**2 * STD**2 / 2


@pytest.fixture(scope="module")
def seen() -> Example:
    count = 400_000
    x1 = MEAN + STD * normal((count, 1, 1), 0)
    t = torch.rand(count, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    weight = (-SLOPE * (x1 - MEAN) - SLOPE**2 * STD**2 / 2).flatten().exp()
    return example(GaussianFlow(MEAN, STD, PATH), PATH, normal((count, 1, 1), 2), x1, t, weight)


def slopes(loss: Any) -> list[float]:
    """Derivatives of a mean loss in a factor and a shift of what is learnt, at none and at a wrong factor."""
    found = []
    for gain in (1.0, 1.3):
        factor = torch.tensor(gain, dtype=torch.float64, requires_grad=True)
        shift = torch.tensor(0.0, dtype=torch.float64, requires_grad=True)
        found += [float(g) for g in torch.autograd.grad(loss(factor, shift).mean(), (factor, shift))]
    return found


@pytest.mark.parametrize("kind", ["reweighted", "matched"])
def test_regressions_are_least_at_the_exact_guidance(kind: str, seen: Example) -> None:
    def loss(factor: Tensor, shift: Tensor) -> Tensor:
        def guidance(x: Tensor, t: Tensor) -> Tensor:
            return factor * exact(x, t) + shift

        return reweighted_loss(guidance, seen) if kind == "reweighted" else matched_loss(guidance, exact_log_normaliser, seen)

    found = slopes(loss)
    assert max(abs(found[0]), abs(found[1])) < 0.02
    assert min(abs(found[2]), abs(found[3])) > 0.1


def test_the_normaliser_is_the_mean_weight(seen: Example) -> None:
    found = slopes(lambda factor, shift: normaliser_loss(lambda x, t: factor * exact_log_normaliser(x, t) + shift, seen))
    assert max(abs(found[0]), abs(found[1])) < 0.02
    assert abs(found[2]) > 0.1


def test_weights_do_not_depend_on_the_zero_of_the_energy() -> None:
    data = normal((5000, 1, 2), 3)
    found = [tilts(FunctionEnergy(lambda u, c=c: u[:, 0, 0] + c), data) for c in (0.0, 800.0)]
    torch.testing.assert_close(*found, rtol=1e-10, atol=0)
    torch.testing.assert_close(found[0] / found[0].sum(), (-data[:, 0, 0]).softmax(0))
    with pytest.raises(ValueError, match="finite energies"):
        tilts(FunctionEnergy(lambda u: u[:, 0, 0] / 0), data)


def test_a_flow_from_smooth_noise_is_tilted_by_the_covariance_of_its_data() -> None:
    """Smooth data C, a linear energy: the guidance is -(rate of the signal) C a, constant in x on the straight path with C = S."""
    grid = Grid(Axis("x", 8, periodic=True))
    source = SmoothNoise(grid, 1, length=0.3)
    data, slope = source.colour(normal((4000, 1, 8), 4)), 0.5 * normal((8,), 5)
    energy = FunctionEnergy(lambda u: u[:, 0] @ slope)
    flow = lambda x, t: broadcast((2 * t - 1) / (t**2 + (1 - t) ** 2), x) * x  # noqa: E731
    network = Shift()
    found = learn_guidance(network, flow, AffinePath(), data, energy, source=source, steps=300, batch=256, learning_rate=0.05)
    guided = GuidedVelocity(flow, AffinePath(), [found])
    x = source.colour(normal((16, 1, 8), 6))
    moved = Heun(guided)(x, torch.linspace(0, 1, 21, dtype=torch.float64)) - Heun(flow)(x, torch.linspace(0, 1, 21, dtype=torch.float64))
    shift = -(source.covariance(slope[None, None])[0, 0])
    assert (moved[:, 0].mean(0) - shift).norm() < 0.15 * shift.norm()


class Shift(nn.Module):
    """A shift that is a polynomial of the time, the same for all states."""

    def __init__(self) -> None:
        super().__init__()
        self.coefficients = nn.Parameter(torch.zeros(5, 8, dtype=torch.float64))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return (torch.stack([t**k for k in range(5)], dim=1) @ self.coefficients)[:, None] + 0 * x


MODES = Mixture(
    torch.tensor([0.6, 0.4], dtype=torch.float64),
    torch.tensor([[-1.2, 0.3], [1.2, -0.3]], dtype=torch.float64),
    0.25 * torch.eye(2, dtype=torch.float64).expand(2, 2, 2),
)
ROW, VALUE, VARIANCE = torch.tensor([[1.0, 0.4]], dtype=torch.float64), torch.tensor([1.0], dtype=torch.float64), 0.6


def energy() -> FunctionEnergy:
    return FunctionEnergy(lambda u: (u[:, 0] @ ROW.to(u).T - VALUE.to(u)).square().sum(1) / (2 * VARIANCE))


def oracle(x: Tensor, t: Tensor) -> Tensor:
    """The exact velocity at times (B,)."""
    each = MixtureOracle(MODES)
    return torch.func.vmap(lambda state, time: each(state[None], time)[0])(x, t)


def errors(guidance: Guidance) -> tuple[list[float], float]:
    """Of the guided velocity at three times on states of the tilted flow, relative; and the share of the first mode among samples."""
    tilted, guided = MODES.given(ROW, VALUE, VARIANCE), GuidedVelocity(MixtureOracle(MODES), AffinePath(), [guidance])
    found = []
    for t in torch.tensor([0.2, 0.5, 0.8], dtype=torch.float64):
        x = t * tilted.sample(1000, 7) + (1 - t) * normal((1000, 1, 2), 8)
        right = MixtureOracle(tilted)(x, t)
        found.append(float((guided(x, t) - right).norm() / right.norm()))
    x1 = Heun(guided)(normal((4000, 1, 2), 9), torch.linspace(0, 0.999, 41, dtype=torch.float64))
    return found, float(tilted.responsibilities(x1)[:, 0].mean())


@pytest.mark.slow
@pytest.mark.parametrize(("objective", "bounds", "margin"), [("reweighted", 0.10, 0.02), ("matched", 0.3, 0.06)])
def test_networks_learn_the_guidance_of_a_mixture(objective: str, bounds: float, margin: float) -> None:
    tilted = MODES.given(ROW, VALUE, VARIANCE)
    torch.manual_seed(0)
    network = Perceptron(PAIR, 1, width=96)
    free = errors(LearnedGuidance(lambda x, t: 0 * x))
    found, share = errors(
        learn_guidance(network, oracle, AffinePath(), MODES.sample(50_000, 10), energy(), objective=objective, steps=2500, batch=512)
    )
    assert max(found) <= bounds
    assert abs(share - float(tilted.weights[0])) <= margin
    assert max(free[0]) > 0.3
    assert abs(free[1] - float(tilted.weights[0])) > 0.2


def test_training_is_repeatable_and_says_what_it_expects() -> None:
    data = MODES.sample(200, 11)
    made, losses = [], []
    for _ in range(2):
        torch.manual_seed(1)
        network = Perceptron(PAIR, 1, width=8, depth=1)
        guidance = learn_guidance(
            network,
            GaussianFlow(0.0, 1.0),
            AffinePath(),
            data,
            energy(),
            steps=20,
            batch=16,
            progress=lambda step, loss: losses.append(loss),
        )
        made.append(GuidedVelocity(GaussianFlow(0.0, 1.0), AffinePath(), [guidance])(data, torch.tensor(0.3, dtype=torch.float64)))
    assert losses[:20] == losses[20:]
    assert torch.equal(made[0], made[1])
    assert made[0].dtype == torch.float64
    assert not made[0].requires_grad
    with pytest.raises(ValueError, match="reweighted, matched"):
        learn_guidance(network, GaussianFlow(0.0, 1.0), AffinePath(), data, energy(), objective="best")
    with pytest.raises(ValueError, match="Lower learning_rate"):
        learn_guidance(network, lambda x, t: x * torch.nan, AffinePath(), data, energy(), steps=2, batch=4)
