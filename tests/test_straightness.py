"""Straightness against closed forms of Gaussian flows; optimal flows against Brenier maps, whatever the coupling."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from constraints import Axis, Grid
from pcfm.coupling import Coupling, Independent, OptimalTransport, Pairs, Rectified
from pcfm.networks import Perceptron
from pcfm.objective import flow_matching_loss
from pcfm.optimal_flow import ConvexPotential, OptimalFlow
from pcfm.path import AffinePath
from pcfm.samplers import Heun
from pcfm.straightness import path_straightness, straightness
from pcfm.velocity import NetworkVelocity
from tests.oracles import Gaussian, GaussianOracle, root

COVARIANCE = torch.tensor([[0.5, 0.2], [0.2, 0.3]], dtype=torch.float64)
TARGET = Gaussian(torch.tensor([0.5, -1.0], dtype=torch.float64), COVARIANCE)
OPTIMAL = root(COVARIANCE)
"""The map between standard normals and the target, less the mean."""


def noise(count: int, seed: int = 0) -> Tensor:
    """Noise whose mean and covariance are exactly those of standard normals."""
    x = torch.randn(count, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x = x - x.mean(0)
    return torch.linalg.solve_triangular(torch.linalg.cholesky(x.T @ x / count), x.T, upper=False).T[:, None]


def test_straightness_of_a_gaussian_flow() -> None:
    x0 = noise(500)
    found = straightness(GaussianOracle(TARGET), x0)
    assert found.deviation == pytest.approx((2 - math.pi / 2) * float(OPTIMAL.trace()), rel=1e-4)
    cost = float((OPTIMAL - torch.eye(2)).square().sum() + TARGET.mean.square().sum())
    assert found.distance == pytest.approx(cost, rel=1e-6)
    assert found.energy == pytest.approx(found.deviation + cost, rel=1e-4)
    # one Euler step of independent pairs ends in the mean of the data
    assert found.one_step == pytest.approx(math.sqrt(float(COVARIANCE.trace()) / 2), rel=1e-4)
    assert found.acceleration > 0.1
    assert found.relative == found.deviation / found.distance


def test_independent_pairs_cross_as_much_as_known() -> None:
    generator = torch.Generator().manual_seed(1)
    x0, white = torch.randn(2, 200_000, 1, 2, generator=generator, dtype=torch.float64)
    x1 = TARGET.mean + white @ OPTIMAL.T
    crossing = path_straightness(GaussianOracle(TARGET), AffinePath(), x0, x1)
    assert crossing == pytest.approx(math.pi / 2 * float(OPTIMAL.trace()), rel=0.02)


def test_a_network_in_single_precision_is_measured_as_in_double() -> None:
    torch.manual_seed(0)
    network = Perceptron(Grid(Axis("x", 2)), 1, width=16)
    nn.init.normal_(network.layers[-1].weight)
    single = straightness(NetworkVelocity(network), noise(50).float())
    double = straightness(NetworkVelocity(network.double()), noise(50))
    for name in ("deviation", "distance", "energy", "acceleration", "one_step"):
        assert getattr(single, name) == pytest.approx(getattr(double, name), rel=1e-4), name


ANGLES = torch.arange(8) * (math.pi / 4)
MODES = 3 * torch.stack([ANGLES.cos(), ANGLES.sin()], dim=1)
STD = 0.3


def eight_modes(count: int, generator: torch.Generator) -> Tensor:
    chosen = torch.randint(8, (count,), generator=generator)
    return (MODES[chosen] + STD * torch.randn(count, 2, generator=generator))[:, None]


def learn(coupling: Coupling, steps: int = 4000, batch: int = 512) -> NetworkVelocity:
    """A flow to the eight modes with averaged weights."""
    torch.manual_seed(0)
    network = Perceptron(Grid(Axis("x", 2)), 1, width=128)
    average = copy.deepcopy(network)
    generator = torch.Generator().manual_seed(1)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 1e-3 * (1 + math.cos(math.pi * step / steps))
        pairs = coupling(torch.randn(batch, 1, 2, generator=generator), eight_modes(batch, generator), None, generator)
        t = torch.rand(batch, generator=generator)
        loss = flow_matching_loss(network, AffinePath(), pairs.x0, pairs.x1, t).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for mean, value in zip(average.parameters(), network.parameters(), strict=True):
                mean.lerp_(value, 1 - min(0.999, (1 + step) / (10 + step)))
    return NetworkVelocity(average, "x,t")


@pytest.mark.slow
def test_reflow_straightens_and_keeps_the_data() -> None:
    """In one round: trajectories straight, one step enough, transport no dearer, the modes as before; pairs of a batch are between."""
    x0 = torch.randn(10_000, 1, 2, generator=torch.Generator().manual_seed(2))
    first = learn(Independent())
    noise = torch.randn(50_000, 1, 2, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        made = torch.cat([Heun(first)(part, torch.linspace(0, 1, 101)) for part in noise.split(10_000)])
    second = learn(Rectified(Pairs(noise, made, None)))
    measured = [straightness(velocity, x0) for velocity in (first, second, learn(OptimalTransport(), batch=256))]
    once = [math.sqrt(2) * found.one_step for found in measured]  # of points, not of values
    assert measured[0].deviation > 1
    assert measured[1].deviation <= 0.02
    assert measured[2].deviation <= 0.05
    assert once[0] > 2.5
    assert once[1] <= 0.25
    assert measured[1].distance <= 1.05 * measured[0].distance
    with torch.no_grad():
        gap, mode = (Heun(second)(x0, torch.linspace(0, 1, 21)) - MODES).norm(dim=2).min(1)
    assert (gap <= 4 * STD).float().mean() >= 0.98
    assert (mode.bincount(minlength=8) / len(x0) - 1 / 8).abs().max() <= 0.02


class Quadratic(nn.Module):
    """A potential whose gradient is an affine map with a symmetric positive matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.eye(2, dtype=torch.float64))
        self.shift = nn.Parameter(torch.zeros(2, dtype=torch.float64))

    @property
    def matrix(self) -> Tensor:
        return self.factor @ self.factor.T + 1e-3 * torch.eye(2, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        return ((flat @ self.matrix) * flat).sum(1) / 2 + flat @ self.shift


def exact() -> Quadratic:
    potential = Quadratic()
    with torch.no_grad():
        potential.factor.copy_(root(OPTIMAL - 1e-3 * torch.eye(2)))
        potential.shift.copy_(TARGET.mean)
    return potential


def test_an_optimal_flow_is_straight_and_inverts() -> None:
    flow = OptimalFlow(exact(), tolerance=1e-12)
    x0 = noise(64)
    end = flow.push(x0)
    torch.testing.assert_close(end, TARGET.mean + x0 @ OPTIMAL.T, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(flow.inverse(end), x0, rtol=1e-8, atol=1e-8)
    t = torch.linspace(0.05, 0.95, 64, dtype=torch.float64)
    time = t[:, None, None]
    torch.testing.assert_close(flow((1 - time) * x0 + time * end, t), end - x0, rtol=1e-8, atol=1e-8)


def test_conjugate_gradients_agree_with_dense_hessians() -> None:
    torch.manual_seed(0)
    flow = OptimalFlow(ConvexPotential(6, width=16).double())
    z, r = torch.randn(2, 5, 1, 6, dtype=torch.float64)
    t = torch.rand(5, dtype=torch.float64)
    torch.testing.assert_close(flow._gradients(z, t, r), flow._solve(z, t, r), rtol=1e-8, atol=1e-8)


def test_the_potential_is_convex_and_begins_next_to_the_identity() -> None:
    torch.manual_seed(0)
    potential = ConvexPotential(3, width=16).double()
    x, y = torch.randn(2, 500, 1, 3, dtype=torch.float64) * 3
    assert bool((potential((x + y) / 2) <= (potential(x) + potential(y)) / 2 + 1e-12).all())
    hessian = torch.func.vmap(torch.func.hessian(lambda z: potential(z.reshape(1, 1, 3))[0]))(x.flatten(1)[:50])
    assert float(torch.linalg.eigvalsh(hessian.detach()).min()) > 0
    push = OptimalFlow(potential).push(x).detach()
    assert float((push - x).norm() / x.norm()) < 0.7


def gradient(potential: Quadratic, x0: Tensor, x1: Tensor, t: Tensor) -> list[Tensor]:
    loss = OptimalFlow(potential, tolerance=1e-12).loss(x0, x1, t).mean()
    return list(torch.autograd.grad(loss, list(potential.parameters())))


def test_the_gradient_is_that_of_the_loss() -> None:
    torch.manual_seed(3)
    potential = Quadratic()
    with torch.no_grad():
        potential.factor.add_(0.2 * torch.randn(2, 2, dtype=torch.float64))
    x0, x1 = torch.randn(2, 8, 1, 2, dtype=torch.float64)
    t = torch.linspace(0.1, 0.9, 8, dtype=torch.float64)
    slopes, h = gradient(potential, x0, x1, t), 1e-6
    for parameter, slope in zip(potential.parameters(), slopes, strict=True):
        for index in range(parameter.numel()):
            values = []
            for sign in (1, -1):
                with torch.no_grad():
                    parameter.view(-1)[index] += sign * h
                values.append(float(OptimalFlow(potential, tolerance=1e-13).loss(x0, x1, t).mean().detach()))
                with torch.no_grad():
                    parameter.view(-1)[index] -= sign * h
            assert float(slope.view(-1)[index]) == pytest.approx((values[0] - values[1]) / (2 * h), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("coupling", ["independent", "anti-optimal"])
def test_any_coupling_teaches_the_optimal_map(coupling: str) -> None:
    """Ordinary flow matching would learn the anti-optimal map from its pairs."""
    potential = Quadratic()
    optimizer = torch.optim.Adam(potential.parameters(), lr=0.05)
    generator = torch.Generator().manual_seed(5)
    for step in range(150):
        x0, white = torch.randn(2, 512, 1, 2, generator=generator, dtype=torch.float64)
        x1 = TARGET.mean + (white if coupling == "independent" else -x0) @ OPTIMAL.T
        t = torch.rand(512, generator=generator, dtype=torch.float64)
        optimizer.param_groups[0]["lr"] = 0.05 * (1 - step / 150)
        optimizer.zero_grad()
        OptimalFlow(potential).loss(x0, x1, t).mean().backward()
        optimizer.step()
    unexplained = float((potential.matrix.detach() - OPTIMAL).square().sum() + (potential.shift.detach() - TARGET.mean).square().sum())
    assert unexplained / float(COVARIANCE.trace()) <= 0.02


@pytest.mark.slow
@pytest.mark.parametrize("coupling", ["independent", "anti-optimal"])
def test_a_convex_network_learns_the_optimal_map(coupling: str) -> None:
    """The unexplained variance of the map, in the size the literature gates on, of networks in single precision."""
    torch.manual_seed(0)
    potential = ConvexPotential(2, width=32)
    optimizer = torch.optim.Adam(potential.parameters(), lr=1e-2)
    generator = torch.Generator().manual_seed(5)
    half, mean = OPTIMAL.float(), TARGET.mean.float()
    for step in range(600):
        x0, white = torch.randn(2, 256, 1, 2, generator=generator)
        x1 = mean + (white if coupling == "independent" else -x0) @ half.T
        optimizer.param_groups[0]["lr"] = 1e-2 * 0.5 * (1 + math.cos(math.pi * step / 600))
        optimizer.zero_grad()
        OptimalFlow(potential, tolerance=1e-5).loss(x0, x1, torch.rand(256, generator=generator)).mean().backward()
        optimizer.step()
    x0 = torch.randn(4000, 1, 2, generator=generator)
    flow = OptimalFlow(potential)
    end = flow.push(x0).detach()
    assert float((end - mean - x0 @ half.T).square().sum((1, 2)).mean() / COVARIANCE.trace()) <= 0.005
    assert (flow.inverse(end) - x0).abs().max() <= 1e-4


def test_the_inner_solve_is_not_lost_in_rounding() -> None:
    """In single precision it takes a few Newton steps to the tolerance, as in double, and no search along them."""
    torch.manual_seed(1)
    network = ConvexPotential(2, width=32)
    calls = 0

    def potential(x: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return network(x)

    flow = OptimalFlow(potential, tolerance=1e-5)
    x, t = 2 * torch.randn(256, 1, 2), torch.linspace(0.01, 0.99, 256)
    z = flow.origin(x, t)
    time = t[:, None, None]
    missing = (1 - time) * z + time * OptimalFlow(network).push(z).detach() - x
    assert (missing.abs().amax((1, 2)) <= 1e-5 * x.abs().amax((1, 2))).all()
    assert calls <= 1 + 2 * 8


def test_newton_steps_that_overshoot_are_halved() -> None:
    """Where a slope has levelled off, full steps jump from one side to the other for ever."""
    flow = OptimalFlow(lambda x: 100 * (1 + x.square()).sqrt().flatten(1).sum(1), tolerance=1e-12)
    x, t = torch.tensor([[[30.0, -0.5]]], dtype=torch.float64), torch.tensor([0.999], dtype=torch.float64)
    z = flow.origin(x, t)
    torch.testing.assert_close(0.001 * z + 99.9 * z / (1 + z.square()).sqrt(), x, rtol=1e-9, atol=1e-9)


def test_a_potential_that_is_not_convex_is_refused() -> None:
    flow = OptimalFlow(lambda x: (3 * x).sin().flatten(1).sum(1) - 2 * x.square().flatten(1).sum(1), iterations=5)
    with pytest.raises(ValueError, match="convex, finite potential"):
        flow.inverse(torch.full((4, 1, 2), 5.0, dtype=torch.float64))
    with pytest.raises(ValueError, match="convex, finite potential"):
        OptimalFlow(lambda x: x.sqrt().flatten(1).sum(1)).inverse(torch.full((4, 1, 2), -1.0, dtype=torch.float64))
