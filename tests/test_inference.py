"""Posterior estimation: densities are normalised whatever has been learnt; linear-Gaussian posteriors in closed form; two moons."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import kstest
from torch import Tensor

from pcfm.inference import FMPE, Posterior
from pcfm.metrics import pit, ranks

A = torch.tensor([[1.0, 0.5], [-0.3, 0.8], [0.2, 0.4]], dtype=torch.float64)
NOISE = 0.5


def linear(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Standard normal parameters, seen through a matrix and noise."""
    generator = torch.Generator().manual_seed(seed)
    theta = torch.randn(count, 2, generator=generator, dtype=torch.float64)
    return theta, theta @ A.T + NOISE * torch.randn(count, 3, generator=generator, dtype=torch.float64)


def exact(x: Tensor) -> torch.distributions.MultivariateNormal:
    precision = torch.eye(2, dtype=torch.float64) + A.T @ A / NOISE**2
    return torch.distributions.MultivariateNormal(torch.linalg.solve(precision, A.T @ x / NOISE**2), precision_matrix=precision)


def likelihood(theta: Tensor, x: Tensor) -> Tensor:
    return torch.distributions.Normal(theta @ A.T, NOISE).log_prob(x).sum(1)


@pytest.fixture(scope="module")
def learnt() -> Posterior:
    prior = torch.distributions.Independent(torch.distributions.Normal(torch.zeros(2, dtype=torch.float64), 1.0), 1)
    return FMPE(prior, width=48, depth=2).append_simulations(*linear(8000)).train(steps=700, batch=256)


def test_a_linear_gaussian_posterior(learnt: Posterior) -> None:
    for x in linear(3, seed=9)[1]:
        target = exact(x)
        draws = learnt.sample((2000,), x, seed=1)
        std = target.variance.sqrt()
        assert bool(((draws.mean(0) - target.mean).abs() <= 0.3 * std).all())
        assert (torch.cov(draws.T) - target.covariance_matrix).norm() <= 0.35 * target.covariance_matrix.norm()
        error = learnt.log_prob(draws[:200], x) - target.log_prob(draws[:200])
        assert float(error.abs().mean()) <= 0.3


def test_importance_weights_make_it_exact(learnt: Posterior) -> None:
    x = linear(1, seed=10)[1][0]
    found = learnt.importance_sample(likelihood, 2000, x)
    evidence = torch.distributions.MultivariateNormal(
        torch.zeros(3, dtype=torch.float64), A @ A.T + NOISE**2 * torch.eye(3, dtype=torch.float64)
    )
    assert found.efficiency > 0.6
    assert found.log_evidence == pytest.approx(float(evidence.log_prob(x)), abs=0.06)
    mean = found.weights @ found.theta
    assert bool(((mean - exact(x).mean).abs() <= 0.08).all())
    assert learnt.leakage(x) == 0.0


def test_observations_in_a_batch_are_those_one_by_one(learnt: Posterior) -> None:
    x = linear(2, seed=11)[1]
    together = learnt.sample_batched((50,), x, seed=3)
    assert together.shape == (50, 2, 2)
    same = learnt.sample((50,), x[0], seed=3)
    assert (together[:, 0].mean(0) - same.mean(0)).abs().max() < 0.5


def test_the_condition_matters(learnt: Posterior) -> None:
    """Control: at another observation the posterior is another."""
    x = linear(1, seed=12)[1]
    far = learnt.sample((500,), -3 * x[0]).mean(0) - learnt.sample((500,), 3 * x[0]).mean(0)
    assert far.norm() > 1.0


WIDE = torch.randn(6, 4, generator=torch.Generator().manual_seed(20), dtype=torch.float64) / 2


@pytest.mark.slow
def test_a_linear_gaussian_posterior_in_full_size() -> None:
    """Four parameters, six observations, 20,000 simulations: moments, densities, evidence at 20 observations; ranks of 300 more."""
    generator = torch.Generator().manual_seed(21)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    def simulate(count: int) -> tuple[Tensor, Tensor]:
        theta = normal(count, 4)
        return theta, theta @ WIDE.T + NOISE * normal(count, 6)

    prior = torch.distributions.Independent(torch.distributions.Normal(torch.zeros(4, dtype=torch.float64), 1.0), 1)
    posterior = FMPE(prior).append_simulations(*simulate(20_000)).train(steps=4000, batch=256)
    precision = torch.eye(4, dtype=torch.float64) + WIDE.T @ WIDE / NOISE**2
    evidence = torch.distributions.MultivariateNormal(
        torch.zeros(6, dtype=torch.float64), WIDE @ WIDE.T + NOISE**2 * torch.eye(6, dtype=torch.float64)
    )
    divergences, shifts, spreads, misses = [], [], [], []
    for number, x in enumerate(simulate(20)[1]):
        target = torch.distributions.MultivariateNormal(torch.linalg.solve(precision, WIDE.T @ x / NOISE**2), precision_matrix=precision)
        draws = posterior.sample((2000,), x, seed=number)
        found = torch.distributions.MultivariateNormal(draws.mean(0), torch.cov(draws.T))
        divergences.append(float(torch.distributions.kl_divergence(found, target)))
        shifts.append(float(((found.mean - target.mean) / target.variance.sqrt()).square().mean().sqrt()))
        spreads.append(float((found.covariance_matrix - target.covariance_matrix).norm() / target.covariance_matrix.norm()))
        misses.append(float((posterior.log_prob(draws[:200], x) - target.log_prob(draws[:200])).abs().mean()))
    assert sorted(divergences)[10] <= 0.03
    assert max(divergences) <= 0.1
    assert max(shifts) <= 0.15
    assert max(spreads) <= 0.15
    assert sum(misses) / len(misses) <= 0.2
    weighed = posterior.importance_sample(lambda theta, y: torch.distributions.Normal(theta @ WIDE.T, NOISE).log_prob(y).sum(1), 10_000, x)
    assert weighed.efficiency > 0.8
    assert weighed.log_evidence == pytest.approx(float(evidence.log_prob(x)), abs=0.01)
    theta, x = simulate(300)
    below = ranks(posterior.sample_batched((100,), x, seed=1), theta)
    assert all(kstest(pit(below[:, i], 100).numpy(), "uniform").pvalue > 1e-3 for i in range(4))


@pytest.mark.parametrize("bounded", [False, True])
def test_densities_are_normalised_whatever_is_learnt(bounded: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    theta = torch.rand(500, 1, generator=generator, dtype=torch.float64) * 4 - 1
    x = theta.square() + 0.3 * torch.randn(500, 1, generator=generator, dtype=torch.float64)
    bounds = torch.tensor([[-1.0], [3.0]]) if bounded else None
    posterior = FMPE(bounds=bounds, width=24, depth=1).append_simulations(theta, x).train(steps=150, batch=128)
    ends = (-1 + 1e-9, 3 - 1e-9) if bounded else (-12.0, 14.0)
    at = torch.linspace(*ends, 2001, dtype=torch.float64)
    density = posterior.log_prob(at[:, None], torch.tensor([1.0])).exp()
    assert float(torch.trapezoid(density, at)) == pytest.approx(1, abs=5e-3)
    draws = posterior.sample((4000,), torch.tensor([1.0]))[:, 0]
    below = float((draws < 1.0).double().mean())
    assert below == pytest.approx(float(torch.trapezoid(density[at < 1.0], at[at < 1.0])), abs=0.04)
    if bounded:
        assert bool(((draws > -1) & (draws < 3)).all())


def moons(theta: Tensor, generator: torch.Generator) -> Tensor:
    """Two moons: a noisy arc, moved by the parameters (Greenberg, Nonnenmacher & Macke, ICML 2019)."""
    angle = math.pi * (torch.rand(len(theta), generator=generator, dtype=torch.float64) - 0.5)
    radius = 0.1 + 0.01 * torch.randn(len(theta), generator=generator, dtype=torch.float64)
    arc = torch.stack([radius * angle.cos() + 0.25, radius * angle.sin()], dim=1)
    total, difference = theta.sum(1).abs(), theta[:, 1] - theta[:, 0]
    return arc + torch.stack([-total, difference], dim=1) / math.sqrt(2)


def exact_moons(x: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Draws of the posterior with a flat prior on [-1, 1]²: the arc gives |sum| and the difference, the sign of the sum is open."""
    found = []
    while sum(map(len, found)) < count:
        angle = math.pi * (torch.rand(count, generator=generator, dtype=torch.float64) - 0.5)
        radius = 0.1 + 0.01 * torch.randn(count, generator=generator, dtype=torch.float64)
        total = math.sqrt(2) * (radius * angle.cos() + 0.25 - x[0])
        difference = math.sqrt(2) * (x[1] - radius * angle.sin())
        sign = torch.where(torch.rand(count, generator=generator) < 0.5, -1.0, 1.0)
        theta = torch.stack([(sign * total - difference) / 2, (sign * total + difference) / 2], dim=1)
        found.append(theta[(total >= 0) & (theta.abs() <= 1).all(1)])
    return torch.cat(found)[:count]


def c2st(a: Tensor, b: Tensor) -> float:
    """Accuracy of a small classifier that tells two sets apart, on the half it has not seen: one half where it cannot."""
    data = torch.cat([a, b]).float()
    data = (data - data.mean(0)) / data.std(0)
    label = torch.cat([torch.zeros(len(a)), torch.ones(len(b))])
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))
    train, test = order.chunk(2)
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(2, 48), torch.nn.ReLU(), torch.nn.Linear(48, 48), torch.nn.ReLU(), torch.nn.Linear(48, 1))
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(600):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(network(data[train])[:, 0], label[train])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return float(((network(data[test])[:, 0] > 0).float() == label[test]).float().mean())


@pytest.mark.slow
def test_two_moons() -> None:
    generator = torch.Generator().manual_seed(0)
    theta = 2 * torch.rand(30_000, 2, generator=generator, dtype=torch.float64) - 1
    prior = torch.distributions.Independent(torch.distributions.Uniform(*torch.tensor([[-1.0, -1.0], [1.0, 1.0]])), 1)
    posterior = FMPE(prior, width=128, depth=4).append_simulations(theta, moons(theta, generator)).train(steps=6000, batch=512)
    for x, bound in (((0.0, 0.0), 0.62), ((-0.3, 0.2), 0.60), ((-0.6, -0.4), 0.66)):
        at = torch.tensor(x, dtype=torch.float64)
        reference = exact_moons(at, 1000, torch.Generator().manual_seed(1))
        assert c2st(posterior.sample((1000,), at), reference) <= bound
        assert c2st(theta[:1000], reference) > 0.9  # control: the prior
        assert posterior.leakage(at) < 0.03


def test_the_reference_draws_of_two_moons_come_back_to_the_observation() -> None:
    at = torch.tensor([-0.3, 0.2], dtype=torch.float64)
    theta = exact_moons(at, 20_000, torch.Generator().manual_seed(1))
    total, difference = theta.sum(1).abs(), theta[:, 1] - theta[:, 0]
    arc = at - torch.stack([-total, difference], dim=1) / math.sqrt(2) - torch.tensor([0.25, 0.0])
    radius, angle = arc.norm(dim=1), torch.atan2(arc[:, 1], arc[:, 0])
    assert float(radius.mean()) == pytest.approx(0.1, abs=1e-3)
    assert float(radius.std()) == pytest.approx(0.01, abs=1e-3)
    assert float(angle.std()) == pytest.approx(math.pi / math.sqrt(12), rel=0.05)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: FMPE().train(), "append_simulations"),
        (lambda: FMPE().append_simulations(torch.zeros(3, 2), torch.zeros(4, 2)), r"\(n, d\)"),
        (lambda: FMPE().append_simulations(torch.full((3, 2), torch.nan), torch.zeros(3, 2)), "finite"),
        (lambda: FMPE(bounds=torch.tensor([[0.0], [1.0]])).append_simulations(torch.ones(3, 1), torch.zeros(3, 2)), "bounds"),
    ],
)
def test_bad_input(make, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        make()


def test_bad_questions(learnt: Posterior) -> None:
    with pytest.raises(ValueError, match="one observation of 3 values"):
        learnt.sample((2,), torch.zeros(2))
    with pytest.raises(ValueError, match=r"\(n, 2\)"):
        learnt.log_prob(torch.zeros(3, 3), torch.zeros(3))
