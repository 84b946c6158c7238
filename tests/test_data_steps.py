"""FlowDPS and PnP-Flow: against what was published, against Gaussian posteriors, on every schedule, and in what they cost."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

import pcfm
from constraints import Axis, Grid, Intersection, Mass, PointValues
from pcfm.methods import METHODS, jumps
from pcfm.path import AffinePath, BridgePath
from pcfm.samplers import Euler, Exponential, FlowDPS, PnPFlow, Sampler
from pcfm.schedule import Cosine, Schedule, VarianceExploding, VariancePreserving
from pcfm.velocity import GaussianFlow
from tests.oracles import Gaussian, GaussianOracle, pushed
from tests.test_guidance import FIRST, PRIOR, SENSORS, flow, normal, observed, times

Noise = Callable[[], Tensor]
PATH, SIZE = AffinePath(), 5
SEEN = torch.tensor([True, False, True, False, True])
ROWS, VALUES = torch.eye(SIZE, dtype=torch.float64)[SEEN], torch.tensor([0.9, -0.7, 0.3], dtype=torch.float64)


def law(variance: float = 0.0) -> PointValues:
    return PointValues(SEEN[None], VALUES, variance=variance or None)


def stored(count: int) -> Noise:
    """The same draws each time it is made, one after the other."""
    draws = iter(normal((count, 3, 1, SIZE), 7))
    return lambda: next(draws)


# --- as published ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variance", [0.0, 0.05], ids=["exact", "noisy"])
def test_flowdps_without_data_and_noise_is_the_solver(variance: float) -> None:
    oracle, x0 = GaussianOracle(PRIOR), normal((3, 1, SIZE), 1)
    bare = FlowDPS(oracle, PATH, law(variance), stored(0), moves=0, renoise=False, final=False)
    assert (bare(x0, times(20)) - Euler(oracle)(x0, times(20))).abs().max() < 1e-12
    path = AffinePath(Cosine())
    bent = GaussianOracle(PRIOR, path)
    bare = FlowDPS(bent, path, law(variance), stored(0), moves=0, renoise=False, final=False)
    assert (bare(x0, times(20)) - Exponential(bent, path)(x0, times(20))).abs().max() < 1e-12
    for options in ({"moves": 1, "renoise": False}, {"moves": 0, "renoise": True}):
        other = FlowDPS(oracle, PATH, law(variance), stored(19), final=False, **options)(x0, times(20))  # type: ignore[arg-type]
        assert (other - Euler(oracle)(x0, times(20))).abs().max() > 0.1


@pytest.mark.parametrize(("moves", "rate"), [(1, 1.0), (3, 0.3)])
def test_flowdps_is_the_published_step(moves: int, rate: float) -> None:
    """Written out with noise at time 1 and a velocity towards it, gradients by differentiation."""
    oracle, x0, noise = GaussianOracle(PRIOR), normal((3, 1, SIZE), 1), stored(6)
    z, levels = x0, torch.linspace(1, 0, 8, dtype=torch.float64)
    for level, after in pairwise(levels):
        velocity = -oracle(z, 1 - level)
        clean, noisy = z - level * velocity, z + (1 - level) * velocity
        moved = clean
        for _ in range(moves):
            free = moved.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(((free @ ROWS.T - VALUES).square().sum() / 2), free)
            moved = moved - rate * gradient
        moved = (1 - level) * clean + level * moved
        fresh = after.sqrt() * noisy + (1 - after).sqrt() * noise() if after > 0 else noisy
        z = moved + after * (fresh - moved)
    found = FlowDPS(oracle, PATH, law(), stored(6), moves=moves, rate=rate, final=False)(x0, times(7))
    assert torch.allclose(found, z, atol=1e-12)


@pytest.mark.parametrize(("rate", "power", "average"), [(1.0, 0.5, 1), (0.6, 1.0, 3)])
def test_pnp_flow_is_the_published_iteration(rate: float, power: float, average: int) -> None:
    """From another start, which the first step forgets."""
    oracle, noise = GaussianOracle(PRIOR), stored(7 * average)
    x = VALUES.new_ones(3, 1, SIZE)
    for t in times(7)[:-1]:
        z = x - rate * (1 - t) ** power * (x @ ROWS.T - VALUES) @ ROWS
        seen = [t * z + (1 - t) * noise() for _ in range(average)]
        x = torch.stack([one + (1 - t) * oracle(one, t) for one in seen]).mean(0)
    sampler = PnPFlow(oracle, PATH, law(), stored(7 * average), rate=rate, power=power, average=average, final=False)
    assert torch.allclose(sampler(normal((3, 1, SIZE), 1), times(7)), x, atol=1e-12)


def test_observations_with_noise_move_as_far_as_their_noise_says() -> None:
    """The move is the mean of a standard normal about the endpoint, given the observation."""
    oracle, x0, variance = GaussianOracle(PRIOR), normal((3, 1, SIZE), 1), 0.4
    ends = FlowDPS(oracle, PATH, law(variance), stored(0), final=False)(x0, times(1))
    endpoint = x0 + oracle(x0, torch.zeros((), dtype=torch.float64))
    unit = torch.eye(SIZE, dtype=torch.float64)
    expected = [observed(Gaussian(one, unit), ROWS, VALUES, variance).mean for one in endpoint[:, 0]]
    assert torch.allclose(ends[:, 0], torch.stack(expected), atol=1e-12)


# --- Gaussian fields -------------------------------------------------------------------------------------------------------------


def pnp(steps: int, variance: float = 0.0, **options: Any) -> Gaussian:
    draws = steps * options.get("average", 1)
    options = {"average": 1, "final": False, **options}
    return pushed(lambda noise: PnPFlow(GaussianOracle(PRIOR), PATH, law(variance), noise, **options), SIZE, times(steps), draws)


def off(found: Gaussian, variance: float = 0.0) -> float:
    return float((found.mean - observed(PRIOR, ROWS, VALUES, variance).mean).abs().max())


@pytest.mark.parametrize("variance", [0.0, 0.01], ids=["exact", "noisy"])
def test_the_mean_of_pnp_flow_tends_to_that_of_the_posterior(variance: float) -> None:
    """The prior's own mean is 15 times farther. Where steps towards the data fall as fast as the noise does, it stays away."""
    assert (PRIOR.mean - observed(PRIOR, ROWS, VALUES, variance).mean).abs().max() > 0.7
    few, many = (off(pnp(steps, variance, power=0.01), variance) for steps in (50, 400))
    assert many < 0.05
    assert few > 1.5 * many
    assert off(pnp(400, variance, power=2.0), variance) > 0.4


def test_pnp_flow_fits_noise_that_is_not_small() -> None:
    """As published, late steps weigh the data more than their noise says."""
    found = pnp(200, 0.5, power=0.01)
    assert (found.mean @ ROWS.T - VALUES).abs().max() < 0.05
    assert off(found, 0.5) > 0.3


@pytest.mark.parametrize("average", [1, 4])
def test_pnp_flow_keeps_a_part_of_the_spread_that_averaging_sets(average: int) -> None:
    """That of Langevin's equation at a temperature of 1/2n: it is no sampler of the posterior."""
    found, posterior = pnp(100, average=average, power=0.01), observed(PRIOR, ROWS, VALUES, 0.0)
    kept = found.covariance[~SEEN][:, ~SEEN].trace() / posterior.covariance[~SEEN][:, ~SEEN].trace()
    assert kept.item() == pytest.approx(1 / (2 * average), rel=0.02)


def test_flowdps_nears_the_observation_and_samples_no_posterior() -> None:
    posterior = observed(PRIOR, ROWS, VALUES, 0.05)

    def found(moves: int) -> Gaussian:
        sampler = partial(FlowDPS, GaussianOracle(PRIOR), PATH, law(0.05), moves=moves, final=False)
        return pushed(lambda noise: sampler(noise), SIZE, times(50), 49)

    guided, free = found(1), found(0)
    assert off(guided, 0.05) < 0.25 * off(free, 0.05)
    assert (guided.covariance - posterior.covariance).norm() > 0.2 * posterior.covariance.norm()


# --- schedules and paths ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", [Cosine(), VariancePreserving(), VarianceExploding()], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("kind", [FlowDPS, PnPFlow])
def test_a_schedule_is_another_clock(kind: type[Sampler], schedule: Schedule) -> None:
    """At the same ratios of signal to noise every step is the same: the same samples, from the same noise."""
    path, clock = AffinePath(schedule), times(6, first=0.1)[:-1]
    same = schedule.time_of(clock, 1 - clock)
    x0 = normal((3, 1, SIZE), 1)

    def run(path: AffinePath, clock: Tensor) -> Tensor:
        sampler: Any = kind(GaussianFlow(0.4, 0.7, path), path, law(0.1), stored(30), final=False)  # type: ignore[call-arg]
        x = path.sample(x0, 0 * x0, clock[0]).x_t if kind is FlowDPS else x0
        for t, s in pairwise(clock):
            x = sampler.step(x, t, s, x0)
        return sampler.last(x, clock[-1], torch.ones_like(clock[-1]), x0).x

    assert torch.allclose(run(path, same), run(PATH, clock), atol=1e-9)


@pytest.mark.parametrize("kind", [FlowDPS, PnPFlow])
def test_paths_that_are_not_affine_are_refused(kind: type[Sampler]) -> None:
    with pytest.raises(ValueError, match=r"expects an AffinePath.*got BridgePath"):
        kind(GaussianFlow(0.0, 1.0), BridgePath(), law(), stored(0))  # type: ignore[call-arg]


# --- through the front door --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "calls", "draws", "projections"),
    [
        ("flowdps", 6, 5, 7),
        ("flowdps:moves=3,rate=0.5", 6, 5, 19),
        ("flowdps:renoise=false,final=false", 6, 0, 6),
        ("flowdps:moves=0", 6, 5, 1),
        ("pnp-flow", 30, 30, 7),
        ("pnp-flow:average=2,final=false", 12, 12, 6),
    ],
)
def test_calls_draws_and_projections_are_counted(method: str, calls: int, draws: int, projections: int) -> None:
    samples = pcfm.sample(flow(), 3, law=FIRST, method=method, steps=6)
    assert (samples.network_calls, samples.backward_calls) == (calls, 0)
    assert (samples.noise_draws, samples.projections) == (draws, projections)


@pytest.mark.parametrize("method", ["flowdps", "pnp-flow:average=2"])
def test_samples_are_lawful_and_independent_of_their_company(method: str) -> None:
    both = Intersection(FIRST, SENSORS)
    whole = pcfm.sample(flow(), 3, law=both, method=method, steps=4)
    assert whole.converged.all()
    assert (whole.u[:, :, 0] - FIRST.target.reshape(3, 1, 8)).abs().max() < 1e-12
    alone = [pcfm.sample(flow(), 1, law=both.take(slice(i, i + 1)), method=method, steps=4, start=i).u for i in range(3)]
    assert (whole.u - torch.cat(alone)).abs().max() < 1e-5


@pytest.mark.parametrize("method", ["flowdps", "pnp-flow"])
def test_what_is_seen_with_noise_is_neared_and_not_projected_on(method: str) -> None:
    guided, free = pcfm.sample(flow(), 3, law=SENSORS, method=method, steps=20), pcfm.sample(flow(), 3, steps=20)
    assert (SENSORS.residual(guided.u).norm(dim=1) < 0.5 * SENSORS.residual(free.u).norm(dim=1)).all()
    assert (guided.certificate["violation"] > 1e-6).all()
    assert (guided.certificate["distance"] == 0).all()


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("flowdps:moves=-1", "moves not to be negative"),
        ("flowdps:rate=2", r"rate in \(0, 2\)"),
        ("flowdps:moves=0,rate=0.5", "option 'rate' of method 'flowdps' changes nothing: moves=0"),
        ("pnp-flow:rate=0", r"rate in \(0, 2\)"),
        ("pnp-flow:power=-1", "power that is not negative"),
        ("pnp-flow:average=0", "average of at least 1"),
    ],
)
def test_options_out_of_range_are_refused(method: str, message: str) -> None:
    line = Grid(Axis("x", 8, periodic=True))
    with pytest.raises(ValueError, match=message):
        pcfm.sample(pcfm.wrap(GaussianNetwork(), grid=line), 2, law=Mass(line, 0.0), method=method, steps=2)


class GaussianNetwork(torch.nn.Module):
    """The velocity of a Gaussian flow as a network."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return GaussianFlow(0.0, 0.6)(x, t)


def test_both_are_methods_that_go_by_velocities() -> None:
    """The endpoint of a flow map is the end of a trajectory, not the mean of the fields that a state may come from: maps are refused."""
    assert (METHODS["flowdps"], METHODS["pnp-flow"]) == (FlowDPS, PnPFlow)
    assert not jumps(FlowDPS)
    assert not jumps(PnPFlow)
