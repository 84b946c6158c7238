r"""Flow maps: the identities hold on maps known in closed form, each objective vanishes there, and toys learn few steps from each.

Between standard normals and $\mathcal N(m, s^2)$ the map is $X_{r,t}(x) = m t + (c_t/c_r)(x - m r)$, $c_t^2 = (1-t)^2 + t^2 s^2$.
"""

from __future__ import annotations

import copy
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from constraints import Axis, Grid
from pcfm.flow_map import OBJECTIVES, Consistency, FlowMap, FlowMapObjective, Lagrangian, MeanFlow, Progressive, Shortcut, heun
from pcfm.networks import FourierOperator, PatchTransformer, Perceptron, TwoTimes
from pcfm.path import AffinePath, broadcast
from pcfm.samplers import RungeKutta4
from pcfm.velocity import GaussianFlow
from tests.oracles_gmm import Mixture, MixtureOracle

MEAN, STD = 0.7, 0.4


def gaussian_average(x: Tensor, r: Tensor, t: Tensor, mean: Tensor | float = MEAN, std: Tensor | float = STD) -> Tensor:
    """u of the map in the module docstring, its limit on the diagonal included."""

    def spread(at: Tensor) -> Tensor:
        return (1 - at).square() + at.square() * std**2

    # (c_t - c_r)/(t - r) = (c_t² - c_r²)/((t - r)(c_t + c_r)), whose numerator is a polynomial
    slope = ((t + r) * (1 + std**2) - 2) / (spread(t).sqrt() + spread(r).sqrt())
    return mean + broadcast(slope / spread(r).sqrt(), x) * (x - broadcast(r, x) * mean)


EXACT = FlowMap(gaussian_average)


def points(count: int = 32) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, 1, 3, generator=generator, dtype=torch.float64)
    r, t = torch.rand(2, count, generator=generator, dtype=torch.float64).sort(dim=0).values
    return x, r, t


def test_the_identities_hold_on_the_exact_map_and_a_wrong_sign_breaks_them() -> None:
    x, r, t = points()
    flow = GaussianFlow(MEAN, STD)
    torch.testing.assert_close(EXACT.velocity(x, t), flow(x, t), rtol=1e-12, atol=1e-12)
    moved, rate = EXACT.along_time(x, r, t)
    torch.testing.assert_close(rate, flow(moved, t), rtol=1e-10, atol=1e-10)  # Lagrangian
    u, change = EXACT.material(x, r, t, flow(x, r))
    span = broadcast(t - r, x)
    torch.testing.assert_close(u, flow(x, r) + span * change, rtol=1e-10, atol=1e-10)  # Eulerian
    assert (u - flow(x, r) + span * change).abs().max() > 0.5  # the sign of data at t = 0
    middle = (r + t) / 2
    torch.testing.assert_close(EXACT(EXACT(x, r, middle), middle, t), moved, rtol=1e-12, atol=1e-12)  # semigroup
    torch.testing.assert_close(EXACT(x, r, r), x, rtol=0, atol=0)


@pytest.mark.parametrize("objective", [Lagrangian(share=0.0), Shortcut(share=0.0, levels=6), Progressive(4), Consistency(2, 32)])
def test_objectives_without_data_vanish_on_the_exact_map(objective: FlowMapObjective) -> None:
    generator = torch.Generator().manual_seed(1)
    x0, x1 = torch.randn(2, 256, 1, 3, generator=generator, dtype=torch.float64)
    x1 = MEAN + STD * x1
    teacher = EXACT if isinstance(objective, Progressive) else GaussianFlow(MEAN, STD)
    exact = objective(EXACT, EXACT, AffinePath(), x0, x1, generator, teacher)
    wrong = FlowMap(lambda x, r, t: 1.2 * gaussian_average(x, r, t))
    off = objective(wrong, EXACT, AffinePath(), x0, x1, generator, teacher)
    # Shortest jumps of a shortcut are two Euler steps, consistency takes Heun's: exact to the order of the step.
    bound = {Shortcut: 2e-4, Consistency: 1e-3}.get(type(objective), 1e-20)
    assert float(exact.mean()) <= bound
    assert float(off.mean()) > 20 * bound + 1e-3


def test_the_mean_flow_target_is_right_on_average() -> None:
    """The gradient of the loss vanishes at the exact map, and does not next to it."""
    count = 200_000
    generator = torch.Generator().manual_seed(2)
    x0, x1 = torch.randn(2, count, 1, 1, generator=generator, dtype=torch.float64)
    slopes = []
    for gain in (1.0, 1.1):
        scale = torch.tensor(gain, dtype=torch.float64, requires_grad=True)
        student = FlowMap(lambda x, r, t, k=scale: k * gaussian_average(x, r, t))
        loss = MeanFlow(share=0.0, power=0.0)(student, EXACT, AffinePath(), x0, MEAN + STD * x1, torch.Generator().manual_seed(3), None)
        slopes.append(float(torch.autograd.grad(loss.mean(), scale)[0]))
    assert abs(slopes[0]) <= 0.02
    assert abs(slopes[1]) > 0.05


@pytest.mark.parametrize(
    "network",
    [
        lambda grid: Perceptron(grid, 1, width=32, times=2),
        lambda grid: FourierOperator(grid, 1, modes=3, width=8, depth=2, times=2),
        lambda grid: PatchTransformer(grid, 1, patch=4, width=16, depth=1, heads=2, times=2),
    ],
)
def test_derivatives_through_networks_are_those_of_differences(network) -> None:
    torch.manual_seed(0)
    module = TwoTimes(network(Grid(Axis("x", 8, periodic=True)))).double()
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    flow_map, h = FlowMap(module), 1e-6
    x = torch.randn(4, 1, 8, dtype=torch.float64)
    r, t = torch.full((4,), 0.3, dtype=torch.float64), torch.full((4,), 0.8, dtype=torch.float64)
    v = torch.randn_like(x)
    _, rate = flow_map.along_time(x, r, t)
    torch.testing.assert_close(rate, (flow_map(x, r, t + h) - flow_map(x, r, t - h)) / (2 * h), rtol=1e-4, atol=1e-4)
    _, change = flow_map.material(x, r, t, v)
    ahead, behind = module(x + h * v, r + h, t), module(x - h * v, r - h, t)
    torch.testing.assert_close(change, (ahead - behind) / (2 * h), rtol=1e-4, atol=1e-4)
    loss = Lagrangian(share=0.0)(flow_map, flow_map, AffinePath(), x, v, torch.Generator().manual_seed(0), None).mean()
    gradients = torch.autograd.grad(loss, list(module.parameters()), allow_unused=True)
    assert all(g is None or bool(torch.isfinite(g).all()) for g in gradients)


MODES = Mixture(
    torch.full((4,), 0.25, dtype=torch.float64),
    2.0 * torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64) / 2**0.5,
    0.18 * torch.eye(2, dtype=torch.float64).repeat(4, 1, 1),
)


def learn(
    objective: FlowMapObjective,
    iterations: int,
    *,
    teacher=None,
    start: nn.Module | None = None,
    batch: int = 256,
    width: int = 96,
) -> nn.Module:
    """A map of the four modes, with averaged weights."""
    torch.manual_seed(0)
    grid = Grid(Axis("x", 2, periodic=True))
    network = copy.deepcopy(start) if start is not None else TwoTimes(Perceptron(grid, 1, width=width, times=2))
    average = copy.deepcopy(network)
    generator = torch.Generator().manual_seed(1)
    data = MODES.sample(50_000, 5).float()
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    for step in range(iterations):
        x1 = data[torch.randint(0, len(data), (batch,), generator=generator)]
        x0 = torch.randn(x1.shape, generator=generator)
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * 0.5 * (1 + torch.cos(torch.tensor(torch.pi * step / iterations)).item())
        loss = objective(FlowMap(network), FlowMap(average), AffinePath(), x0, x1, generator, teacher).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay = min(0.999, (1 + step) / (10 + step))
        with torch.no_grad():
            for mean, value in zip(average.parameters(), network.parameters(), strict=True):
                mean.lerp_(value, 1 - decay)
    return average


@torch.no_grad()
def errors(network: nn.Module, *steps: int, count: int = 1000) -> list[float]:
    """Distance of few jumps to a fine solve of the exact flow from the same noise, root mean square of points."""
    x0 = torch.randn(count, 1, 2, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    fine = RungeKutta4(MixtureOracle(MODES))(x0, torch.linspace(0, 0.9999, 101, dtype=torch.float64))
    found = []
    for number in steps:
        x = x0.float()
        for t, s in pairwise(torch.linspace(0, 1, number + 1)):
            x = FlowMap(network)(x, t.expand(count), s.expand(count))
        found.append(float((x - fine).square().sum((1, 2)).mean().sqrt()))
    return found


def oracle(x: Tensor, t: Tensor) -> Tensor:
    """The exact velocity at times (B,) that are the same, or not, in single precision."""
    out = torch.empty_like(x)
    for value in t.unique():
        here = t == value
        out[here] = MixtureOracle(MODES)(x[here].double(), value.double().clamp(0, 0.9999)).float()
    return out


def test_few_euler_steps_of_the_exact_velocity_are_far_off() -> None:
    """Control: what the maps have to beat. One step ends in the mean of the data, as far off as they are wide."""
    found = errors(lambda x, r, t: oracle(x, r), 1, 2, 4, 8)  # type: ignore[arg-type]
    assert found[0] == pytest.approx(float(MODES.sample(20_000, 8).square().sum((1, 2)).mean().sqrt()), rel=0.05)
    assert found[0] > 1.8
    assert found[1] > 0.55
    assert found[0] > found[1] > found[2] > found[3]


@pytest.mark.parametrize(
    "objective",
    [MeanFlow(share=0.5, power=0.0), Lagrangian(), Shortcut(levels=5, share=0.5), Progressive(1), Consistency(1, 32)],
    ids=lambda value: type(value).__name__,
)
def test_a_map_of_two_parameters_learns_both(objective: FlowMapObjective) -> None:
    """Of all maps of Gaussians, each objective picks that of the data or of the teacher."""
    parameters = torch.tensor([0.0, 1.0], dtype=torch.float64, requires_grad=True)
    generator = torch.Generator().manual_seed(4)
    optimizer = torch.optim.Adam([parameters], lr=0.05)
    for step in range(250):
        x0, x1 = torch.randn(2, 512, 1, 1, generator=generator, dtype=torch.float64)
        optimizer.param_groups[0]["lr"] = 0.05 * (1 - step / 250)

        def average(x: Tensor, r: Tensor, t: Tensor) -> Tensor:
            return gaussian_average(x, r, t, *parameters)

        loss = objective(FlowMap(average), FlowMap(average), AffinePath(), x0, MEAN + STD * x1, generator, GaussianFlow(MEAN, STD))
        optimizer.zero_grad()
        loss.mean().backward()
        optimizer.step()
    torch.testing.assert_close(parameters.detach(), torch.tensor([MEAN, STD], dtype=torch.float64), rtol=0, atol=0.04)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("objective", "bounds"),
    [(MeanFlow(), (0.55, 0.5, 0.4)), (Shortcut(), (0.55, 0.4, 0.1)), (Lagrangian(), (0.42, 0.35, 0.1))],
    ids=lambda value: type(value).__name__,
)
def test_few_steps_from_data_alone(objective: FlowMapObjective, bounds: tuple[float, float, float]) -> None:
    """Bounds of one step, of four, and of the velocity, which the weights of mean flow draw from the mean to the median."""
    network = learn(objective, 4000, batch=512, width=128)
    one, four = errors(network, 1, 4)
    assert one <= bounds[0]
    assert four <= bounds[1]
    # the map of no span is the velocity, on states of the path
    x1, x0 = MODES.sample(4000, 6).float(), torch.randn(4000, 1, 2, generator=torch.Generator().manual_seed(7))
    t = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9]).repeat(800)
    x = AffinePath().sample(x0, x1, t).x_t
    exact = oracle(x, t)
    assert (FlowMap(network).velocity(x, t) - exact).norm() <= bounds[2] * exact.norm()


@pytest.mark.slow
def test_progressive_distillation_halves_the_steps() -> None:
    student, teacher = None, oracle
    for steps in (16, 8, 4, 2, 1):
        objective = Progressive(steps)
        known = teacher if student is None else FlowMap(student)
        student = learn(objective, 1000, teacher=known, start=student, batch=512, width=128)
    assert student is not None
    assert errors(student, 1)[0] <= 0.30


@pytest.mark.slow
def test_phases_of_consistency_distillation() -> None:
    found = [errors(learn(Consistency(phases, 64), 3000, teacher=oracle, batch=512, width=128), phases)[0] for phases in (1, 2, 4)]
    assert found[0] > found[1] > found[2]
    for error, bound in zip(found, (1.3, 0.5, 0.25), strict=True):
        assert error <= bound


def test_heun_has_order_two() -> None:
    x = torch.randn(16, 1, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    flow = GaussianFlow(MEAN, STD)
    gaps = []
    for h in (0.1, 0.05):
        r = torch.full((16,), 0.3, dtype=torch.float64)
        gaps.append((heun(flow, x, r, r + h) - EXACT(x, r, r + h)).norm())
    assert 6 < gaps[0] / gaps[1] < 10  # a single step: third order


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: MeanFlow(share=1.5), "between 0 and 1"),
        (lambda: Shortcut(levels=0), "at least one level"),
        (lambda: Progressive(0), "at least one step"),
        (lambda: Consistency(3, 64), "multiple of phases"),
    ],
)
def test_bad_options(make, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        make()


@pytest.mark.parametrize("objective", [kind() for kind in OBJECTIVES.values() if kind.distils])
def test_distillation_needs_a_teacher(objective: FlowMapObjective) -> None:
    x, _, _ = points(4)
    with pytest.raises(ValueError, match="expects a teacher"):
        objective(EXACT, EXACT, AffinePath(), x, x, torch.Generator().manual_seed(0), None)
