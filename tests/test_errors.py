"""The two parts of a flow's error against what they estimate: exact velocities, with known perturbations, from the same noise."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

import pcfm
from constraints import Axis, Grid
from pcfm.discretisation import DiscretisationError, discretisation_error
from pcfm.error_report import error_report
from pcfm.errors import EmpiricalVelocity, logarithmic_norm, regression, transport_bound
from pcfm.networks import Perceptron
from pcfm.objective import flow_matching_loss
from pcfm.path import AffinePath
from pcfm.samplers import Euler, RungeKutta4
from pcfm.schedule import Cosine, Linear
from pcfm.velocity import GaussianFlow, NetworkVelocity
from pde_datasets import Fields
from tests.oracles_gmm import Mixture, MixtureOracle

MIXTURE = Mixture(
    torch.tensor([0.4, 0.6], dtype=torch.float64),
    torch.tensor([[-1.5, 0.5], [1.0, -0.5]], dtype=torch.float64),
    torch.tensor([[[0.3, 0.1], [0.1, 0.2]], [[0.2, -0.05], [-0.05, 0.4]]], dtype=torch.float64),
)
ORACLE = MixtureOracle(MIXTURE)
TIMES = torch.linspace(0, 0.999, 31, dtype=torch.float64)


def noise(count: int) -> Tensor:
    return torch.randn(count, 1, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


class Known(nn.Module):
    """The exact velocity between standard normals and narrower ones, on the cosine path."""

    def __init__(self) -> None:
        super().__init__()
        self.flow = GaussianFlow(0.5, 0.3, AffinePath(Cosine()))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.flow(x, t)


@pytest.mark.parametrize(("rule", "order"), [("euler", 1), ("heun", 2), ("rk4", 4)])
def test_the_steps_that_are_recommended_are_enough(rule: str, order: int) -> None:
    flow = pcfm.wrap(Known(), grid=Grid(Axis("x", 4, periodic=True)), path="cosine")
    errors = []
    for steps in (20, 40):
        drawn = pcfm.sample(flow, 16, steps=steps, solver=rule)
        found = discretisation_error(flow, drawn, 16, steps=steps, solver=rule)
        assert found is not None
        errors.append(found.relative)
    assert errors[1] == pytest.approx(errors[0] / 2**order, rel=0.15)
    assert DiscretisationError(16, errors[0], (), order, 0).recommended(20, errors[0] / 2**order) in (40, 41)


FLOORED = AffinePath(Linear(0.02))
"""Ends in a little noise: velocities are smooth up to there."""


class Modes(nn.Module):
    """The exact velocity to the mixture on that path."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return MixtureOracle(MIXTURE, FLOORED)(x, t[0])


@pytest.mark.parametrize(("rule", "order", "least", "most"), [("euler", 1, 0.6, 1.6), ("heun", 2, 0.9, 1.1), ("rk4", 4, 0.9, 1.1)])
def test_halved_steps_estimate_the_error_on_a_mixture(rule: str, order: int, least: float, most: float) -> None:
    """Close to the true one; scaled by another rule's order it is not."""
    flow = pcfm.wrap(Modes(), grid=Grid(Axis("x", 2)), path=FLOORED)
    exact = pcfm.sample(flow, 100, steps=200, solver="rk4").u
    for steps in (32, 64):
        drawn = pcfm.sample(flow, 100, steps=steps, solver=rule)
        found = discretisation_error(flow, drawn, 100, steps=steps, solver=rule)
        assert found is not None
        ratio = found.relative / float((drawn.u - exact).square().mean().sqrt())
        assert least <= ratio <= most
        if order > 1:
            assert 2 * ratio * (1 - 2.0**-order) > most


@pytest.mark.parametrize("size", [0.005, 0.02, 0.08])
def test_the_bound_is_above_what_errors_cost(size: float) -> None:
    """Of the velocity, of three sizes: above the distance of samples of the same noise, and that above the least of all pairings."""

    def perturbed(x: Tensor, t: Tensor) -> Tensor:
        return ORACLE(x, t) + size * torch.sin(3 * x.flip(-1) + t)

    x0 = noise(150)
    exact, wrong = (RungeKutta4(velocity)(x0, TIMES).flatten(1) for velocity in (ORACLE, perturbed))
    coupled = float((exact - wrong).square().sum(1).mean().sqrt())
    cost = torch.cdist(exact, wrong).square().numpy()
    least = float(cost[linear_sum_assignment(cost)].mean() ** 0.5)
    assert transport_bound(perturbed, ORACLE, x0, TIMES) >= coupled >= least - 1e-12
    assert least > 0.3 * size


@pytest.mark.slow
def test_both_parts_make_up_the_error_of_a_trained_network() -> None:
    """Euler steps of a network, against the exact flow of the same noise: error of the steps, from half steps, and of the velocity, by its
    tangent, add up to what is missed, within 20 % in the median; each alone does not."""
    torch.manual_seed(0)
    network = Perceptron(Grid(Axis("x", 2)), 1, width=96)
    generator = torch.Generator().manual_seed(1)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    data = MIXTURE.sample(100_000, 2).float()
    for step in range(1500):
        optimizer.param_groups[0]["lr"] = 1e-3 * (1 + math.cos(math.pi * step / 1500))
        x1 = data[torch.randint(len(data), (256,), generator=generator)]
        loss = flow_matching_loss(
            network, FLOORED, torch.randn(x1.shape, generator=generator), x1, torch.rand(256, generator=generator)
        ).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    velocity, oracle = NetworkVelocity(network.double(), "x,t"), MixtureOracle(MIXTURE, FLOORED)
    x0 = noise(400)
    with torch.no_grad():
        ours, halved = (Euler(velocity)(x0, torch.linspace(0, 1, n + 1, dtype=torch.float64)) for n in (40, 80))
        exact = RungeKutta4(oracle)(x0, torch.linspace(0, 1, 201, dtype=torch.float64))
    found = regression(velocity, oracle, x0, torch.linspace(0, 1, 81, dtype=torch.float64))
    steps, missed = 2 * (halved - ours), exact - ours

    def ratio(estimate: Tensor) -> float:
        return float((estimate.flatten(1).norm(dim=1) / missed.flatten(1).norm(dim=1)).median())

    assert ratio(steps + found.end) == pytest.approx(1, abs=0.2)
    assert float(((steps + found.end - missed).flatten(1).norm(dim=1) / missed.flatten(1).norm(dim=1)).median()) <= 0.2
    assert not all(0.8 <= ratio(part) <= 1.2 for part in (steps, found.end))


def test_an_injected_error_arrives_as_the_tangent_says() -> None:
    def perturbed(x: Tensor, t: Tensor) -> Tensor:
        return ORACLE(x, t) + 0.02 * torch.sin(3 * x.flip(-1) + t)

    x0 = noise(150)
    found = regression(perturbed, ORACLE, x0, TIMES)
    ends = [RungeKutta4(velocity)(x0, TIMES) for velocity in (ORACLE, perturbed)]
    true = (ends[0] - ends[1]).square().flatten(1).mean(1).sqrt()
    assert 0.95 <= float((found.propagated / true).median()) <= 1.05
    torch.testing.assert_close(found.error, torch.full_like(found.error, 0.02 / 2**0.5), rtol=0.15, atol=0)
    bound = transport_bound(perturbed, ORACLE, x0, TIMES)
    coupled = float((ends[0] - ends[1]).square().flatten(1).sum(1).mean().sqrt())
    assert bound >= coupled


def test_the_bound_is_sharp_where_everything_parts_alike() -> None:
    """A constant error of a velocity a x: (e^a - 1)/a of it."""
    a, shift = 0.8, 0.1
    x0 = noise(16)
    times = torch.linspace(0, 1, 201, dtype=torch.float64)
    bound = transport_bound(lambda x, t: a * x + shift, lambda x, t: a * x, x0, times)
    exact = shift * 2**0.5 * (torch.tensor(a, dtype=torch.float64).exp() - 1) / a
    assert bound == pytest.approx(float(exact), rel=1e-2)


def test_the_logarithmic_norm_is_the_largest_eigenvalue_of_the_symmetric_part() -> None:
    matrix = torch.randn(4, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    x = torch.randn(3, 1, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    found = logarithmic_norm(lambda x, t: x @ matrix.T, x, torch.tensor(0.5, dtype=torch.float64))
    expected = torch.linalg.eigvalsh((matrix + matrix.T) / 2)[-1]
    torch.testing.assert_close(found, expected.expand(3))


def test_the_velocity_of_many_data_is_that_of_their_distribution() -> None:
    t = torch.tensor(0.5, dtype=torch.float64)
    x = 0.5 * MIXTURE.sample(300, 8) + 0.5 * noise(300)
    errors = []
    for count in (200, 5000):
        empirical = EmpiricalVelocity(MIXTURE.sample(count, 9), AffinePath())
        errors.append(float((empirical(x, t) - ORACLE(x, t)).square().mean().sqrt()))
        assert float(empirical.effective(x, t).median()) > 10
    assert errors[1] < 0.4 * errors[0]
    # what no velocity can learn: the spread of the conditional ones, by the data's own weights
    data = MIXTURE.sample(5000, 9)
    x0 = torch.randn(data.shape, generator=torch.Generator().manual_seed(10), dtype=torch.float64)
    state, target = AffinePath().sample(x0, data, t)
    left = [(velocity(state, t) - target).square().sum((1, 2)).mean() for velocity in (EmpiricalVelocity(data, AffinePath()), ORACLE)]
    assert float(left[0] / left[1]) == pytest.approx(1, abs=0.03)


def test_large_fields_have_no_bound() -> None:
    x = torch.zeros(1, 1, 600)
    with pytest.raises(ValueError, match="at most 512 values"):
        transport_bound(GaussianFlow(0.0, 1.0), GaussianFlow(0.0, 1.0), x, torch.linspace(0, 1, 3))


def drawn(count: int, seed: int) -> Fields:
    """Fields of the mixture."""
    values = MIXTURE.sample(count, seed)
    return Fields(values, Grid(Axis("x", 2, periodic=True)), ("u",), ("1",))


class Learnt(nn.Module):
    """The exact velocity with an error of its own."""

    def __init__(self, size: float, shift: float) -> None:
        super().__init__()
        self.size, self.shift = size, shift

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return ORACLE(x, t[0].clamp_max(0.999)) + self.size * torch.sin(3 * x + self.shift)


def test_the_report_tells_steps_from_the_velocity() -> None:
    grid = Grid(Axis("x", 2, periodic=True))
    flows = [pcfm.wrap(Learnt(0.1, shift), grid=grid) for shift in (0.0, 1.0, 2.0)]
    rows = {(row["part"], row["setting"]): row for row in error_report(flows, drawn(3000, 6), steps=(10, 40), count=64)}
    coarse, fine = (rows["steps", f"euler, {n} steps"]["value"] for n in (10, 40))
    assert 2.5 <= coarse / fine <= 6
    assert 0.03 <= rows["velocity", "ensemble of 3"]["value"] <= 0.1
    data = rows["velocity", "held-out data"]
    assert 0.02 <= data["value"] <= 0.3
    assert 0.3 < data["until"] <= 1
    alone = error_report(flows[:1], drawn(3000, 6), steps=(10,), count=16)
    assert ("velocity", "ensemble of 3") not in {(row["part"], row["setting"]) for row in alone}


def test_a_report_of_fields_on_another_grid_is_refused() -> None:
    flow = pcfm.wrap(Known(), grid=Grid(Axis("x", 4, periodic=True)), path="cosine")
    with pytest.raises(ValueError, match="grid"):
        error_report([flow], drawn(10, 0))
    with pytest.raises(ValueError, match="at least one flow"):
        error_report([], drawn(10, 0))
