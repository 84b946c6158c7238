"""Uncertainty of flows against closed forms: what a trajectory leaves open, and what training does."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor, nn

import pcfm
from constraints import Axis, Grid, Units
from pcfm.networks import FourierOperator, PatchTransformer, Perceptron
from pcfm.objective import flow_matching_loss
from pcfm.path import AffinePath
from pcfm.schedule import Cosine, Linear
from pcfm.source import SmoothNoise, WhiteNoise
from pcfm.uncertainty import Iterates, endpoint_covariance, endpoint_variance, laplace, spread, swag
from tests.oracles_gmm import Mixture, MixtureOracle

PAIR = Grid(Axis("x", 2, periodic=True))
MIXTURE = Mixture(
    torch.tensor([0.3, 0.7], dtype=torch.float64),
    torch.tensor([[-1.5, 0.5], [1.0, -0.5]], dtype=torch.float64),
    torch.tensor([[[0.3, 0.1], [0.1, 0.2]], [[0.2, -0.05], [-0.05, 0.4]]], dtype=torch.float64),
)


def exact_covariance(x: Tensor, signal: Tensor, noise: Tensor) -> Tensor:
    """Cov(x_1 | x_t = x) of the mixture, (B, 2, 2): each mode's own, and that between them."""
    gains = signal * MIXTURE.covariances @ torch.linalg.inv(signal**2 * MIXTURE.covariances + noise**2 * torch.eye(2, dtype=torch.float64))
    means = MIXTURE.means + torch.einsum("kij,bkj->bki", gains, x[:, 0, None] - signal * MIXTURE.means)
    own = MIXTURE.covariances - signal * gains @ MIXTURE.covariances
    total = signal**2 * MIXTURE.covariances + noise**2 * torch.eye(2, dtype=torch.float64)
    density = torch.stack(
        [
            w.log() + torch.distributions.MultivariateNormal(signal * m, c).log_prob(x[:, 0])
            for w, m, c in zip(MIXTURE.weights, MIXTURE.means, total, strict=True)
        ],
        dim=1,
    )
    share = density.softmax(1)
    mean = (share[..., None] * means).sum(1)
    second = torch.einsum("bk,bki,bkj->bij", share, means, means) + torch.einsum("bk,kij->bij", share, own)
    return second - mean[:, :, None] * mean[:, None]


@pytest.mark.parametrize("schedule", [Linear(), Cosine()], ids=["linear", "cosine"])
def test_what_a_trajectory_leaves_open_is_in_the_divergence_of_its_velocity(schedule) -> None:
    path = AffinePath(schedule)
    velocity, source = MixtureOracle(MIXTURE, path), WhiteNoise(PAIR, 1)
    x = torch.randn(5, 1, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for t in torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64):
        expected = exact_covariance(x, *path.schedule(t)[:2])
        columns = [endpoint_covariance(velocity, path, source, x, t, e.expand_as(x)) for e in torch.eye(2, dtype=torch.float64)[:, None]]
        torch.testing.assert_close(torch.cat(columns, dim=1).mT, expected, rtol=1e-7, atol=1e-9)
    # Of two values a probe of equal signs and one of opposite signs are all there are: their mean is the diagonal.
    some = endpoint_variance(velocity, path, source, x, t, probes=100)[:, 0]
    torch.testing.assert_close(some, expected.diagonal(dim1=1, dim2=2), rtol=0, atol=0.4 * float(expected[:, 0, 1].abs().max()))


def test_a_coloured_source_counts() -> None:
    grid, t = Grid(Axis("x", 12, periodic=True)), torch.tensor(0.6, dtype=torch.float64)
    source = SmoothNoise(grid, 1, length=0.2)
    eye = torch.eye(12, dtype=torch.float64)[:, None]
    noise = source.covariance(eye)[:, 0]
    data = SmoothNoise(grid, 1, length=0.1, smoothness=0.5).covariance(eye)[:, 0]
    gain = t * data @ torch.linalg.inv(t**2 * data + (1 - t) ** 2 * noise)

    def velocity(x: Tensor, s: Tensor) -> Tensor:
        end = 1.0 + (x - t) @ gain.T
        return (end - x) / (1 - t)

    x = torch.randn(1, 1, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = endpoint_covariance(velocity, AffinePath(), source, x.expand(12, -1, -1), t, eye)[:, 0]
    torch.testing.assert_close(found, data - t * gain @ data, rtol=1e-9, atol=1e-10)


class Regression(nn.Module):
    """A velocity that is linear in features of the condition alone."""

    last_layer = "linear"

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2).double()

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        return self.linear(condition[:, 0, :1].expand(-1, 3) ** torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))[:, None]


def conditioned() -> tuple[pcfm.Flow, Tensor, Tensor]:
    torch.manual_seed(0)
    flow = pcfm.Flow(
        Regression(), AffinePath(), WhiteNoise(PAIR, 1), Units.identity(1), PAIR, ("u",), ("1",), condition="initial", call="x,t,condition"
    )
    generator = torch.Generator().manual_seed(2)
    y = torch.rand(40, 1, 2, generator=generator, dtype=torch.float64)
    return flow, y, torch.randn(40, 1, 2, generator=generator, dtype=torch.float64)


def test_the_laplace_posterior_is_that_of_bayesian_regression() -> None:
    flow, y, x1 = conditioned()
    found = laplace(flow, x1, condition=y, bins=1, passes=3, prior=0.5)
    features = torch.cat([y[:, 0, :1] ** k for k in (1, 2, 3, 0)], dim=1)
    exact = features.T @ features / found.noise[0] + 0.5 * torch.eye(4, dtype=torch.float64)
    torch.testing.assert_close(found.precision, exact, rtol=1e-10, atol=1e-10)
    # and its draws have that precision
    generator, weights = torch.Generator().manual_seed(3), []
    for _ in range(2000):
        layer = found.draw(generator).network.linear
        weights.append(torch.cat([layer.weight[0], layer.bias[:1]]).detach())
    covariance = torch.linalg.inv(exact)
    error = torch.cov(torch.stack(weights).T) - covariance
    assert error.norm() <= 0.1 * covariance.norm()


def test_draws_of_the_posterior_spread_their_samples_as_they_should() -> None:
    """With a constant velocity, x_1 = x_0 + W phi: its variance is phi' Lambda^-1 phi."""
    flow, y, x1 = conditioned()
    found = laplace(flow, x1, condition=y, bins=1)
    generator = torch.Generator().manual_seed(4)
    at = torch.tensor([0.2, 0.9, 2.0], dtype=torch.float64)
    condition = at[:, None, None].expand(-1, 1, 2)
    draws = [found.draw(generator) for _ in range(300)]
    result = spread(draws, lambda member: pcfm.sample(member, 3, steps=1, condition=condition, seed=7).u)
    features = torch.stack([at**k for k in (1, 2, 3, 0)], dim=1)
    expected = torch.einsum("bi,ij,bj->b", features, torch.linalg.inv(found.precision), features).sqrt()
    measured = result.epistemic.square().mean((1, 2)).sqrt()
    assert bool(((measured / expected - 1).abs() <= 0.1).all())
    assert measured[2] > 3 * measured[0]  # beyond the data the cubic is open


class Whitened(nn.Module):
    """A velocity that is affine in a condition of two values."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2).double()

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        return self.linear(condition[:, 0])[:, None]


@pytest.fixture(scope="module")
def iterates() -> tuple[Iterates, Tensor, Tensor]:
    """Those of a regression on features of mean zero and covariance one, exactly: curvature is one in all directions."""
    generator = torch.Generator().manual_seed(5)
    y = torch.randn(128, 2, generator=generator, dtype=torch.float64)
    y = y - y.mean(0)
    y = torch.linalg.solve_triangular(torch.linalg.cholesky(y.T @ y / 128), y.T, upper=False).T[:, None]
    x1 = 0.5 * y + 0.8 * torch.randn(128, 1, 2, generator=generator, dtype=torch.float64)
    torch.manual_seed(0)
    network = Whitened()
    with torch.no_grad():  # trained: least squares
        found = torch.linalg.lstsq(torch.cat([y[:, 0], torch.ones(128, 1, dtype=torch.float64)], dim=1), x1[:, 0]).solution
        network.linear.weight.copy_(found[:2].T)
        network.linear.bias.copy_(found[2])
    flow = pcfm.Flow(
        network, AffinePath(), WhiteNoise(PAIR, 1), Units.identity(1), PAIR, ("u",), ("1",), condition="initial", call="x,t,condition"
    )
    return swag(flow, x1, condition=y, collected=200, batch=4, every=20), x1, y


def test_iterates_have_the_posterior_of_bayesian_regression(iterates: tuple[Iterates, Tensor, Tensor]) -> None:
    """Rate, mean and variance; of twice the rate the variance would be twice that."""
    found, x1, y = iterates
    exact = laplace(found.flow, x1, layer="linear", condition=y, bins=1, passes=20, prior=0.0)
    variance = torch.linalg.inv(exact.precision).diagonal()
    torch.testing.assert_close(variance, variance.mean().expand(3), rtol=1e-6, atol=0)
    assert found.rate == pytest.approx(2 * 4 / 128, rel=0.25)  # of curvature one, which probes know to a tenth
    stated = float(variance.mean()) * found.rate / (2 * 4 / 128)
    assert float(found.variance.mean()) == pytest.approx(stated, rel=0.15)
    trained = torch.nn.utils.parameters_to_vector(found.flow.network.parameters()).detach()
    assert (found.mean - trained).abs().max() <= 4 * (stated / 100) ** 0.5


def test_draws_of_iterates_have_half_their_variance_and_half_their_covariance(iterates: tuple[Iterates, Tensor, Tensor]) -> None:
    found = iterates[0]
    generator = torch.Generator().manual_seed(6)
    weights = [torch.nn.utils.parameters_to_vector(found.draw(generator).network.parameters()).detach() for _ in range(4000)]
    expected = found.variance.diag() / 2 + found.deviations.T @ found.deviations / (2 * (len(found.deviations) - 1))
    drawn = torch.cov(torch.stack(weights).T)
    assert (drawn - expected).norm() <= 0.1 * expected.norm()
    assert (torch.stack(weights).mean(0) - found.mean).abs().max() <= 5 * float(expected.diagonal().max() / 4000) ** 0.5


def test_iterates_of_a_network_disagree_a_little() -> None:
    grid = Grid(Axis("x", 8, periodic=True))
    torch.manual_seed(0)
    flow = pcfm.Flow(Perceptron(grid, 1, width=16), AffinePath(), WhiteNoise(grid, 1), Units.identity(1), grid, ("u",), ("1",), call="x,t")
    x1 = torch.randn(64, 1, 8)
    found = swag(flow, x1, collected=4, rank=2, batch=16)
    generator = torch.Generator().manual_seed(1)
    result = spread([found.draw(generator) for _ in range(4)], lambda member: pcfm.sample(member, 3, steps=3, seed=0).u)
    assert 0 < float(result.epistemic.mean()) < 1
    again = swag(flow, x1, collected=4, rank=2, batch=16)
    assert torch.equal(found.mean, again.mean)
    with pytest.raises(ValueError, match="rank of 2"):
        swag(flow, x1, collected=4, rank=5)
    with pytest.raises(ValueError, match="smaller rate"):
        swag(flow, x1, collected=4, rank=2, rate=1e30)


@pytest.mark.parametrize(
    "make",
    [
        partial(Perceptron, width=16),
        partial(FourierOperator, modes=3, width=8, depth=1),
        partial(PatchTransformer, patch=4, width=16, depth=1, heads=2),
    ],
)
def test_our_networks_name_their_last_layer(make) -> None:
    grid = Grid(Axis("x", 8, periodic=True))
    torch.manual_seed(0)
    network = make(grid, 1)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    flow = pcfm.Flow(network, AffinePath(), WhiteNoise(grid, 1), Units.identity(1), grid, ("u",), ("1",))
    found = laplace(flow, torch.randn(64, 1, 8), prior=1e3)
    before = flow.velocity()(torch.ones(2, 1, 8), torch.tensor(0.5))
    drawn = found.draw(torch.Generator().manual_seed(0)).velocity()(torch.ones(2, 1, 8), torch.tensor(0.5))
    assert 0 < float((drawn - before).detach().norm()) < 0.5 * float(before.detach().norm()) + 1


def test_another_layer_is_refused() -> None:
    grid = Grid(Axis("x", 8, periodic=True))
    flow = pcfm.Flow(Perceptron(grid, 1, width=16), AffinePath(), WhiteNoise(grid, 1), Units.identity(1), grid, ("u",), ("1",))
    with pytest.raises(ValueError, match="affine"):
        laplace(flow, torch.randn(8, 1, 8), layer="layers.0")
    with pytest.raises(ValueError, match="name of a torch"):
        laplace(flow, torch.randn(8, 1, 8), layer="layers.1")
    with pytest.raises(ValueError, match="two flows"):
        spread([flow], lambda member: torch.zeros(1))


@pytest.mark.slow
def test_an_ensemble_disagrees_where_it_has_seen_nothing() -> None:
    """Five networks learn sin(3y) plus noise for y in [-1, 1]; at y = 2 they differ at least three times as much as within."""
    generator = torch.Generator().manual_seed(0)
    y = 2 * torch.rand(4000, 1, 1, generator=generator) - 1
    data = (3 * y).sin() + 0.1 * torch.randn(4000, 1, 2, generator=generator)
    flows = []
    for seed in range(5):
        torch.manual_seed(seed)
        network = Perceptron(PAIR, 1, condition=1, width=64)
        optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
        for _ in range(800):
            chosen = torch.randint(0, 4000, (256,))
            x1, condition = data[chosen], y[chosen].expand(-1, 1, 2)
            velocity = lambda x, t, c=condition, n=network: n(x, t, c)  # noqa: E731
            loss = flow_matching_loss(velocity, AffinePath(), torch.randn_like(x1), x1, torch.rand(256)).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        flows.append(pcfm.Flow(network, AffinePath(), WhiteNoise(PAIR, 1), Units.identity(1), PAIR, ("u",), ("1",), condition="initial"))
    at = torch.tensor([-0.5, 0.0, 0.5, 2.0])[:, None, None].expand(-1, 1, 2)
    result = spread(flows, lambda flow: pcfm.sample(flow, 4, steps=10, condition=at).u).epistemic.mean((1, 2))
    assert result[3] >= 3 * result[:3].max()
