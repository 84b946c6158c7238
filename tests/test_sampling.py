"""Samplers against exact transports, lawful samples, and a network trained to published gates."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import pcfm
from constraints import (
    Axis,
    DivergenceFree,
    Energy,
    FunctionConstraint,
    Grid,
    InitialCondition,
    Intersection,
    Mass,
    Momentum,
    Units,
    rescaled,
)
from pcfm.generation import certify
from pcfm.methods import METHODS
from pcfm.networks import FourierOperator, PatchTransformer, Perceptron
from pcfm.path import AffinePath
from pcfm.samplers import Adaptive, ConsistentFlow, Euler, Heun, ProjectedEnd, ProjectedFlow, RungeKutta4, Sampler
from pcfm.schedule import Cosine, Linear, Schedule
from pcfm.source import WhiteNoise
from pcfm.training import Data, Trainer, TrainingSettings
from pcfm.velocity import GaussianFlow, NetworkVelocity

TAU = 2 * math.pi
PLANE = Grid(Axis("x", 16, length=TAU, periodic=True), Axis("y", 16, length=TAU, periodic=True))


def normal(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("rule", "order", "margin"), [(Euler, 1, 0.1), (Heun, 2, 0.15), (RungeKutta4, 4, 0.25)])
def test_observed_order(rule: Callable[[GaussianFlow], Sampler], order: int, margin: float) -> None:
    """On the cosine path, where no rule is better than its order by accident."""
    flow, x0 = GaussianFlow(mean=1.5, std=0.4, path=AffinePath(Cosine())), normal((64, 1, 4), 0)
    errors = [(rule(flow)(x0, torch.linspace(0, 1, n + 1, dtype=torch.float64)) - flow.transport(x0)).abs().amax() for n in (32, 64)]
    assert torch.log2(errors[0] / errors[1]).item() == pytest.approx(order, abs=margin)


@pytest.mark.parametrize("schedule", [Linear(), Cosine()], ids=["linear", "cosine"])
def test_adaptive_reaches_the_transport_within_its_tolerance(schedule: Schedule) -> None:
    flow, x0 = GaussianFlow(mean=-0.5, std=2.0, path=AffinePath(schedule)), normal((16, 1, 4), 1)
    times = torch.linspace(0, 1, 3, dtype=torch.float64)
    loose = (Adaptive(flow, rtol=1e-4, atol=1e-4)(x0, times) - flow.transport(x0)).abs().max()
    tight = (Adaptive(flow, rtol=1e-9, atol=1e-9)(x0, times) - flow.transport(x0)).abs().max()
    assert tight < 1e-7 < loose < 1e-2


def test_euler_on_the_straight_path_is_the_exact_product() -> None:
    """Each Euler step multiplies by 1 + h a(t) with the flow's own gain a."""
    flow = GaussianFlow(mean=0.0, std=0.4)
    product = 1.0
    for k in range(7):
        t = k / 7
        product *= 1 + (t * 0.16 - (1 - t)) / (t**2 * 0.16 + (1 - t) ** 2) / 7
    x0 = normal((5, 1, 3), 2)
    assert torch.allclose(Euler(flow)(x0, torch.linspace(0, 1, 8, dtype=torch.float64)), product * x0, atol=1e-14)


def test_pcfm_is_extrapolation_projection_and_return_from_the_same_noise() -> None:
    """Under a law on the first of two values, against the recursion of each value written out."""
    mean, std, steps, held = 0.7, 0.5, 6, -1.3
    flow, x0 = GaussianFlow(mean, std), normal((4, 1, 2), 3)
    law = FunctionConstraint(lambda u: u[:, 0, :1] - held)
    sampled = ProjectedFlow(flow, AffinePath(), law).sample(x0, torch.linspace(0, 1, steps + 1, dtype=torch.float64))
    free = x0[:, 0, 1]
    for k in range(steps):
        t, s = k / steps, (k + 1) / steps
        gain = t * std**2 / (t**2 * std**2 + (1 - t) ** 2)
        endpoint = mean + gain * (free - t * mean)
        free = s * endpoint + (1 - s) * x0[:, 0, 1]
    assert torch.allclose(sampled.x[:, 0, 1], free, atol=1e-13)
    assert torch.allclose(sampled.x[:, 0, 0], torch.full((4,), held, dtype=torch.float64), atol=1e-14)
    assert sampled.projection is not None
    assert sampled.projection.converged.all()


def test_where_the_law_is_idle_the_consistent_flow_is_euler_and_pcfm_is_not() -> None:
    """A law on one value leaves the other to the flow: Euler's product, against a gain that grows with the number of steps."""
    flow, law, x0 = GaussianFlow(0.0, 1.0), FunctionConstraint(lambda u: u[:, 0, :1]), normal((4, 1, 2), 8)
    linear = Intersection(Mass(Grid(Axis("x", 2)), 0.0), law)
    gains = {}
    for steps in (20, 400):
        times = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
        euler = Euler(flow)(x0, times)[:, 0, 1]
        assert torch.allclose(ConsistentFlow(flow, AffinePath(), law)(x0, times)[:, 0, 1], euler, atol=1e-13)
        gains[steps] = (ProjectedFlow(flow, AffinePath(), law)(x0, times)[:, 0, 1] / x0[:, 0, 1]).mean().item()
        assert ConsistentFlow(flow, AffinePath(), linear)(x0, times).abs().max() < 1e-13
    assert gains[20] == pytest.approx(2.019, abs=1e-3)
    assert gains[400] == pytest.approx(6.415, abs=1e-3)


def test_consistent_flow_conditions_a_gaussian_exactly() -> None:
    """Under a linear law that is orthogonal to what is free, the free part has the law of the model itself, at the order of Euler."""
    flow, x0 = GaussianFlow(0.5, 0.7), normal((20_000, 1, 2), 9)
    law = Mass(Grid(Axis("x", 2)), 1.0)
    samples = ConsistentFlow(flow, AffinePath(), law)(x0, torch.linspace(0, 1, 201, dtype=torch.float64))[:, 0]
    assert torch.allclose(samples.mean(1), torch.ones(len(samples), dtype=torch.float64), atol=1e-12)
    difference = (samples[:, 1] - samples[:, 0]) / math.sqrt(2)
    assert difference.mean().item() == pytest.approx(0.0, abs=0.02)
    assert difference.std().item() == pytest.approx(0.7, rel=0.02)


def test_projected_end_moves_the_unconstrained_sample_only_at_the_end() -> None:
    flow, x0, times = GaussianFlow(0.0, 1.0), normal((4, 2, 16, 16), 4), torch.linspace(0, 1, 5, dtype=torch.float64)
    law = Intersection(DivergenceFree(PLANE), Energy(PLANE, 1.0))
    sampled = ProjectedEnd(Heun(flow), law).sample(x0, times)
    assert sampled.before is not None
    assert torch.equal(sampled.before, Heun(flow)(x0, times))
    assert (law.residual(sampled.x).abs() < 1e-11).all()


class Still(nn.Module):
    """A velocity towards zero: a flow that ends on the mean of nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(-0.3))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.gain * x


def still_flow() -> pcfm.Flow:
    units = Units(torch.tensor([0.5, -0.25]), torch.tensor([2.0, 2.0]))
    return pcfm.wrap(Still(), grid=PLANE, channels=("u", "v"), source="smooth", units=units, roles={"velocity": ("u", "v")})


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("method", ["project-end", "pcfm", "pcfm-consistent"])
def test_samples_obey_physical_laws_in_physical_units(method: str, dtype: torch.dtype) -> None:
    """With per-sample targets, in batches that cut them: every returned sample is lawful, whatever the network."""
    energies = torch.linspace(0.5, 3.0, 7, dtype=torch.float64)
    law = Intersection(DivergenceFree(PLANE), Momentum(PLANE, [0.3, -0.1], mean=True), Energy(PLANE, energies, mean=True))
    samples = pcfm.sample(still_flow(), 7, law=law, method=method, steps=4, batch=3, dtype=dtype)
    assert samples.u.dtype == dtype
    assert samples.converged.all()
    tolerance = 1e-12 if dtype == torch.float64 else 1e-6
    for leaf in law.leaves():
        residual, scale = leaf.measure(samples.u.double())
        assert (residual.abs() <= tolerance * scale).all()
    assert (0.5 * samples.u.double().square().sum(1).mean((1, 2)) / energies - 1).abs().max() < tolerance
    assert samples.certificate["violation"].shape == (7, 3)
    assert samples.network_calls == 3 * 4


def test_samples_do_not_depend_on_how_they_are_batched_or_numbered() -> None:
    law = Energy(PLANE, 1.0)
    whole = pcfm.sample(still_flow(), 6, law=law, steps=3).u
    split = pcfm.sample(still_flow(), 6, law=law, steps=3, batch=2).u
    tail = pcfm.sample(still_flow(), 2, law=law, steps=3, start=4).u
    other = pcfm.sample(still_flow(), 6, law=law, steps=3, seed=1).u
    assert (whole - split).abs().max() < 1e-6
    assert (whole[4:] - tail).abs().max() < 1e-6
    assert (whole - other).abs().max() > 0.1


def test_projections_and_solves_are_counted() -> None:
    law = Intersection(DivergenceFree(PLANE), Energy(PLANE, 1.0))
    counts = {}
    for method in ("project-end", "pcfm", "pcfm-consistent"):
        samples = pcfm.sample(still_flow(), 5, law=law, method=method, steps=4, batch=3)
        assert samples.multiplier_solves >= samples.projections
        counts[method] = samples.projections
    assert counts == {"project-end": 2, "pcfm": 8, "pcfm-consistent": 8}
    assert pcfm.sample(still_flow(), 5, law=Energy(PLANE, 1.0), steps=4).projections == 1
    assert pcfm.sample(still_flow(), 5, steps=4).projections == 0


def test_targets_for_another_number_of_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="targets for 4 samples; 3 are asked for"):
        pcfm.sample(still_flow(), 3, law=Energy(PLANE, torch.ones(4)))


def test_certificate_reports_what_does_not_hold() -> None:
    law = Intersection(Momentum(PLANE, 0.0), Momentum(PLANE, 1.0))
    samples = pcfm.sample(still_flow(), 2, law=law, steps=2)
    assert not samples.converged.any()
    violation, tolerance, held = certify(law, samples.u)
    assert (violation.amax(1) > tolerance.amax(1)).all()
    assert not held.any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "pcmf"}, "Did you mean 'pcfm'"),
        ({"method": "pcfm"}, "expects a law"),
        ({"method": "unconstrained", "law": Energy(PLANE, 1.0)}, "takes no law"),
        ({"solver": "rk5"}, "Did you mean 'rk4'"),
        ({"steps": 0}, "at least one step"),
        ({"condition": torch.zeros(1)}, "without a condition"),
    ],
)
def test_wrong_calls_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pcfm.sample(still_flow(), 1, **options)  # type: ignore[arg-type]


def test_methods_table_and_initial_data_in_time() -> None:
    grid = Grid(Axis("time", 5), Axis("x", 8, periodic=True))
    first = normal((3, 1, 8), 5)
    flow = pcfm.wrap(Still(), grid=grid, channels=("u",))
    for name in [name for name, kind in METHODS.items() if kind.lawful]:
        samples = pcfm.sample(flow, 3, law=InitialCondition(grid, first), method=name, steps=3)
        assert torch.allclose(samples.u[:, :, 0], first, atol=1e-14)


NETWORKS: dict[str, Callable[[Grid, int, int], nn.Module]] = {
    "fourier operator": partial(FourierOperator, modes=4, width=8, depth=2),
    "patch transformer": partial(PatchTransformer, patch=2, width=16, depth=2, heads=2),
    "perceptron": partial(Perceptron, width=16, depth=2),
}
GRIDS = {
    "1-D": Grid(Axis("x", 8, periodic=True)),
    "time and space": Grid(Axis("time", 6), Axis("x", 8, periodic=True)),
    "2-D": PLANE,
    "3-D": Grid(*(Axis(n, 4, periodic=True) for n in "xyz")),
}


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_networks_on_every_grid(network: Callable[[Grid, int, int], nn.Module], grid: Grid) -> None:
    """Shapes, conditions, gradients to every parameter, samples independent of each other; zero at the start, so that loss starts tame."""
    torch.manual_seed(0)
    net = network(grid, 2, 1)
    x, condition, t = normal((3, 2, *grid.shape), 1).float(), normal((3, 1, *grid.shape), 2).float(), torch.tensor([0.1, 0.5, 0.9])
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.2)
    out = net(x, t, condition)
    assert out.shape == x.shape
    out.square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in net.parameters())
    assert torch.allclose(net(x[1:2], t[1:2], condition[1:2]), out[1:2], atol=1e-4 * out.abs().max().item())
    assert not torch.allclose(net(x, t.flip(0), condition), out)
    assert not torch.allclose(net(x, t, condition.flip(0)), out)


def test_fourier_operator_commutes_with_shifts_of_periodic_axes_where_it_sees_no_position() -> None:
    torch.manual_seed(0)
    net = FourierOperator(PLANE, 1, modes=4, width=8, depth=2)
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.2)
    net.features.zero_()
    x, t = normal((2, 1, 16, 16), 1).float(), torch.tensor([0.2, 0.7])
    assert torch.allclose(net(x.roll(3, 2), t).roll(-3, 2), net(x, t), atol=1e-4)


WEIGHTS, MEANS = torch.tensor([0.3, 0.7]), torch.tensor([[-1.5, 0.5], [1.0, -0.5]])
FACTORS = torch.tensor([[[0.4, 0.0], [0.1, 0.3]], [[0.3, 0.0], [-0.2, 0.5]]])


def mixture(count: int, seed: int) -> Tensor:
    """Draws from two Gaussians in the plane."""
    generator = torch.Generator().manual_seed(seed)
    mode = (torch.rand(count, generator=generator) > WEIGHTS[0]).long()
    return MEANS[mode] + (FACTORS[mode] @ torch.randn(count, 2, 1, generator=generator))[..., 0]


def mixture_velocity(x: Tensor, t: float, schedule: Schedule) -> Tensor:
    """Exact marginal velocity of an affine path to the mixture: responsibilities times each mode's Gaussian velocity."""
    a, s, da, ds = (value.item() for value in schedule(torch.tensor(t)))
    covariances = FACTORS @ FACTORS.mT
    spread = a**2 * covariances + s**2 * torch.eye(2)
    inverse = torch.linalg.inv(spread)
    offset = x[:, None] - a * MEANS
    z = (inverse @ offset[..., None])[..., 0]
    log = WEIGHTS.log() - 0.5 * (offset * z).sum(-1) - 0.5 * torch.logdet(spread)
    drift = da * MEANS + ((a * da * covariances + s * ds * torch.eye(2)) @ z[..., None])[..., 0]
    return (log.softmax(1)[..., None] * drift).sum(1)


@pytest.mark.parametrize("schedule", [Linear(), Cosine()], ids=["linear", "cosine"])
def test_trained_network_on_two_modes(schedule: Schedule, tmp_path: Path) -> None:
    """Velocity within 10 % of the exact one, mode fraction within 0.02, mean and covariance within 0.05."""
    grid = Grid(Axis("x", 2))
    torch.manual_seed(0)
    network = NetworkVelocity(Perceptron(grid, 1, width=128, depth=3), "x,t,condition")
    settings = TrainingSettings(
        steps=3000, batch=512, learning_rate=2e-3, warmup=50, weight_decay=0.0, validation=0.0, evaluate_every=3000, checkpoint_every=3000
    )
    path = AffinePath(schedule)
    data = Data(mixture(200_000, 1)[:, None])
    trainer = Trainer(network, path, WhiteNoise(grid, 1), data, settings, tmp_path, torch.device("cpu"))
    untrained = relative_error(network, schedule)
    trainer.run(lambda step, entry: None)
    network.network.load_state_dict(trainer.average)
    assert max(untrained) > 0.5
    assert max(relative_error(network, schedule)) <= 0.10
    with torch.no_grad():
        x0 = torch.randn(20_000, 1, 2, generator=torch.Generator().manual_seed(2))
        samples = Heun(network)(x0, torch.linspace(0, 1, 41))[:, 0]
    truth = mixture(200_000, 3)
    distances = torch.stack(
        [(torch.linalg.inv(f) @ (samples - m)[..., None])[..., 0].norm(dim=1) for f, m in zip(FACTORS, MEANS, strict=True)]
    )
    assert (distances.argmin(0) == 0).float().mean().item() == pytest.approx(0.30, abs=0.02)
    assert (samples.mean(0) - truth.mean(0)).abs().max() <= 0.05
    assert (samples.T.cov() - truth.T.cov()).abs().max() <= 0.05


@torch.no_grad()
def relative_error(velocity: NetworkVelocity, schedule: Schedule) -> list[float]:
    """Relative error of a velocity at four times, on points of the path."""
    errors = []
    for t in (0.05, 0.3, 0.6, 0.9):
        a, s, _, _ = schedule(torch.tensor(t))
        x = a * mixture(4096, 5) + s * torch.randn(4096, 2, generator=torch.Generator().manual_seed(6))
        exact = mixture_velocity(x, t, schedule)
        found = velocity(x[:, None], torch.tensor(t))[:, 0]
        errors.append(((found - exact).square().sum() / exact.square().sum()).sqrt().item())
    return errors


def test_rescaled_law_is_the_law_of_physical_fields() -> None:
    units = Units(torch.tensor([0.5, -1.0]), torch.tensor([2.0, 0.1]))
    law = Intersection(DivergenceFree(PLANE), Energy(PLANE, 1.0))
    x = normal((2, 2, 16, 16), 9)
    assert torch.allclose(rescaled(law, units).residual(x), law.residual(units.physical(x)), atol=1e-11)
