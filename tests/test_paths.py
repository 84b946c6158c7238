"""Schedules, conversions, changes of schedule, times and weights, against derivatives, closed forms and regressions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

import pcfm
from constraints import Axis, Grid, Mass
from pcfm.configuration import SCHEDULES, read_experiment
from pcfm.methods import METHODS, SOLVERS, solver_on
from pcfm.objective import TIME_LAWS, WEIGHTS, Beta, LogitNormal, Mode, Objective, Power, Shifted, TimeLaw, Uniform, time_law
from pcfm.parametrisation import PREDICTIONS, MirroredVelocity, PredictedVelocity, RescheduledVelocity, convert
from pcfm.path import AffinePath, BridgePath, Path
from pcfm.samplers import Euler, Heun, RungeKutta4, Sampler, Unconstrained
from pcfm.schedule import (
    Cosine,
    Custom,
    Linear,
    LinearSignal,
    Mirrored,
    Polynomial,
    Scales,
    Schedule,
    VarianceExploding,
    VariancePreserving,
)
from pcfm.velocity import GaussianFlow
from tests.oracles_gmm import Mixture, MixtureOracle

SHAPES: dict[str, Schedule] = {
    "linear": Linear(),
    "linear, floor": Linear(0.01),
    "polynomial 2": Polynomial(2.0),
    "polynomial 1/2": Polynomial(0.5),
    "cosine": Cosine(),
    "linear signal": LinearSignal(),
    "variance preserving": VariancePreserving(),
    "variance exploding": VarianceExploding(),
    "custom": Custom(lambda t: torch.sin(t) / (2 * math.sin(1)) + t**2 / 2, lambda t: torch.exp(-3 * t) - math.exp(-3)),
}
VARIANCE = 0.3


def normal(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def at(t: float) -> Tensor:
    return torch.tensor(t, dtype=torch.float64)


@pytest.fixture(params=SHAPES, ids=str)
def schedule(request: pytest.FixtureRequest) -> Schedule:
    return SHAPES[request.param]


# --- schedules ---------------------------------------------------------------------------------------------------------------------


def test_rates_are_the_derivatives(schedule: Schedule) -> None:
    """At 49 times by forward differentiation; with the sign of one turned round they are not."""
    t = torch.linspace(0, 1, 49, dtype=torch.float64)
    scales = schedule(t)
    for scale, rate in ((0, 2), (1, 3)):
        free = t.clone().requires_grad_()
        value = schedule(free)[scale]
        exact = torch.autograd.grad(value.sum(), free)[0] if value.requires_grad else torch.zeros_like(t)
        assert (scales[rate] - exact).abs().max() < 1e-10 * max(1.0, exact.abs().max().item())
    if scales.noise_rate.abs().max() > 0:
        assert (-scales.noise_rate - exact).abs().max() > 1e-2


def test_single_precision_follows_double(schedule: Schedule) -> None:
    t = torch.linspace(0, 1, 200)
    for single, double in zip(schedule(t), schedule(t.double()), strict=True):
        assert single.dtype == torch.float32
        assert (single - double).abs().max() < 1e-4 * max(1.0, double.abs().max().item())


@pytest.mark.parametrize(
    ("schedule", "signal", "noise"),
    [
        (Linear(0.02), lambda t: t, lambda t: 1 - 0.98 * t),
        (Polynomial(3.0, offset=0.0), lambda t: t**3, lambda t: 1 - t**3),
        (Cosine(), lambda t: torch.sin(math.pi * t / 2), lambda t: torch.cos(math.pi * t / 2)),
        (LinearSignal(floor=0.0), lambda t: t, lambda t: (1 - t**2).sqrt()),
        (
            VariancePreserving(floor=0.0),
            lambda t: torch.exp(-((1 - t) ** 2 * 19.9 / 2 + (1 - t) * 0.1) / 2),
            lambda t: (1 - torch.exp(-((1 - t) ** 2 * 19.9 / 2 + (1 - t) * 0.1))).sqrt(),
        ),
        (VarianceExploding(0.02, 40.0), lambda t: torch.ones_like(t), lambda t: 0.02 * 2000 ** (1 - t)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Schedule) else "",
)
def test_scales_are_those_of_the_literature(
    schedule: Schedule, signal: Callable[[Tensor], Tensor], noise: Callable[[Tensor], Tensor]
) -> None:
    t = torch.linspace(0.01, 0.99, 25, dtype=torch.float64)
    scales = schedule(t)
    assert torch.allclose(scales.signal, signal(t), rtol=1e-12, atol=1e-12)
    assert torch.allclose(scales.noise, noise(t), rtol=1e-9, atol=1e-12)


def test_any_ratio_of_signal_to_noise_is_found_again(schedule: Schedule) -> None:
    t = torch.linspace(0, 1, 33, dtype=torch.float64)
    assert (schedule.time_of(*schedule(t)[:2]) - t).abs().max() < 1e-9


def test_the_other_convention_is_a_view() -> None:
    """With data at time 0: scales, velocities and samples are the same."""

    def survey(r: Tensor) -> Scales:
        return Scales(1 - r, r, -torch.ones_like(r), torch.ones_like(r))

    t, x, flow = torch.linspace(0, 1, 9, dtype=torch.float64), normal((9, 1, 3), 0), GaussianFlow(0.4, 0.3)
    for ours, theirs in zip(Linear()(t), Mirrored(survey)(t), strict=True):
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-15)
    their_velocity = MirroredVelocity(lambda x, r: -flow(x, 1 - r))
    assert torch.equal(their_velocity(x, t), flow(x, t))
    grid = Grid(Axis("x", 3))
    ours, theirs = (pcfm.sample(pcfm.wrap(module, grid=grid), 3, steps=4).u for module in (Module(flow), MirroredVelocity(Against(flow))))
    assert torch.equal(ours, theirs)


class Module(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.function(x, t)


class Against(Module):
    """A velocity in the convention of noise at time 1."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return -self.function(x, 1 - t)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AffinePath(Polynomial(2.0, offset=0.0)), "increase at all times, at a rate that is not 0.* at t = 0"),
        (lambda: AffinePath(LinearSignal(floor=0.0)), "finite rate of the noise"),
        (lambda: AffinePath(VariancePreserving(floor=0.0)), "finite rate of the noise"),
        (lambda: AffinePath(Custom(lambda t: t / 2, lambda t: 1 - t / 2)), "expects to reach the data at t = 1"),
        (lambda: AffinePath(Custom(lambda t: t / 2, lambda t: 1 - t)), "signal of 1 at t = 1.* is 0.5"),
        (lambda: AffinePath(Custom(lambda t: 2 * t, lambda t: 1 - t)), "signal of 1 at t = 1.* is 2"),
        (lambda: AffinePath(Custom(lambda t: 0.5 + t, lambda t: 1.01 - t)), "expects noise at t = 0"),
        (lambda: AffinePath(Custom(lambda t: 1 - t, lambda t: t)), "does not at t = 0"),
        (lambda: AffinePath(Custom(lambda t: t - 0.1, lambda t: 1 - t)), "scales not negative"),
        (lambda: AffinePath(Custom(lambda t: t, lambda t: t.new_ones(()))), "of the shape of t"),
        (lambda: Polynomial(0.0), "power in"),
        (lambda: Linear(0.5), "floor in"),
        (lambda: VariancePreserving(2.0, 1.0), "0 < least <= most"),
        (lambda: VarianceExploding(0.01, 1.0), "most of at least 10"),
    ],
)
def test_schedules_that_do_not_lead_from_noise_to_data_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


# --- conversions -------------------------------------------------------------------------------------------------------------------

MIXTURE = Mixture(
    torch.tensor([0.3, 0.7], dtype=torch.float64),
    torch.tensor([[-1.0, 0.5], [1.2, 0.0]], dtype=torch.float64),
    torch.tensor([[[0.3, 0.1], [0.1, 0.2]], [[0.1, 0.0], [0.0, 0.4]]], dtype=torch.float64),
)


def score(x: Tensor, t: Tensor, path: AffinePath) -> Tensor:
    """Of the mixture under noise, by differentiation of its density."""
    signal, noise = path.schedule(t)[:2]
    covariances = signal**2 * MIXTURE.covariances + noise**2 * torch.eye(2, dtype=torch.float64)
    law = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(MIXTURE.weights), torch.distributions.MultivariateNormal(signal * MIXTURE.means, covariances)
    )
    free = x.detach().requires_grad_()
    return torch.autograd.grad(law.log_prob(free[:, 0]).sum(), free)[0]


@pytest.mark.parametrize("t", [0.05, 0.5, 0.95])
def test_every_prediction_follows_from_every_other(schedule: Schedule, t: float) -> None:
    """Against the exact endpoint and the exact score of a mixture, and back again."""
    path, time = AffinePath(schedule), at(t)
    oracle = MixtureOracle(MIXTURE, path)
    signal, noise = schedule(time)[:2]
    x = signal * MIXTURE.sample(6, 1) + noise * normal((6, 1, 2), 2)
    endpoint = oracle.endpoint(x, time)
    slope = score(x, time, path)
    known = {"endpoint": endpoint, "score": slope, "noise": -noise * slope, "velocity": oracle(x, time)}
    known["angle"] = signal * known["noise"] - noise * endpoint
    assert set(known) == set(PREDICTIONS)
    scale = max(1.0, (1 / signal).item(), (1 / noise).item()) ** 2
    for given, wanted in itertools.product(PREDICTIONS, PREDICTIONS):
        found = convert(path, known[given], x, time, given, wanted)
        error = (found - known[wanted]).abs().max() / known[wanted].abs().max()
        assert error < 1e-12 * scale, (given, wanted, error)
        each = convert(path, known[given], x, time.expand(6), given, wanted)
        assert torch.allclose(each, found, rtol=1e-13)
    other = AffinePath(VarianceExploding(0.02, 20.0))
    wrong = convert(other, known["velocity"], x, time, "velocity", "score")
    assert (wrong - slope).abs().max() > 1e-3 * slope.abs().max()


def test_predictions_of_networks_become_velocities(schedule: Schedule) -> None:
    path = AffinePath(schedule)
    oracle, x = MixtureOracle(MIXTURE, path), normal((4, 1, 2), 3)
    for prediction in PREDICTIONS:

        def predict(x: Tensor, t: Tensor, prediction: str = prediction) -> Tensor:
            return convert(path, oracle(x, t), x, t, "velocity", prediction)

        velocity = PredictedVelocity(predict, path, prediction, margin=1e-3)
        assert torch.allclose(velocity(x, at(0.4)), oracle(x, at(0.4)), rtol=1e-8, atol=1e-8)
        for t in (0.0, 1.0):
            assert torch.isfinite(velocity(x, at(t))).all()


def test_scores_of_dependent_ends_are_refused() -> None:
    x = normal((2, 1, 2), 4)
    with pytest.raises(ValueError, match="independent of the data"):
        convert(AffinePath(), x, x, at(0.5), "velocity", "score", independent=False)
    with pytest.raises(ValueError, match="Did you mean 'score'"):
        convert(AffinePath(), x, x, at(0.5), "velocity", "scores")


@pytest.mark.parametrize("old", SHAPES, ids=str)
def test_a_schedule_is_exchanged_without_training(old: str) -> None:
    """Between all pairs: the oracle of one path, in the units of another, is the oracle of that."""
    before, x = AffinePath(SHAPES[old]), MIXTURE.sample(5, 5)
    for name, schedule in SHAPES.items():
        after = AffinePath(schedule)
        moved, exact = RescheduledVelocity(MixtureOracle(MIXTURE, before), before, after), MixtureOracle(MIXTURE, after)
        for r in (0.3, 0.8):
            time = at(r)
            signal, noise = schedule(time)[:2]
            if not 1e-2 < signal / noise < 99 and name != old:
                continue
            state = signal * x + noise * normal((5, 1, 2), 6)
            assert (moved(state, time) / exact(state, time) - 1).abs().max() < 1e-8, (name, r)


def test_a_schedule_is_exchanged_in_sampling() -> None:
    """A network of the variance-exploding path, sampled on the straight one, from unit noise, to the transport of the flow."""
    old, new = AffinePath(VarianceExploding(1e-4, 1e4)), AffinePath()
    flow, x0 = GaussianFlow(0.5, 0.3, old), normal((8, 1, 3), 7)
    times = torch.linspace(0, 1, 101, dtype=torch.float64)
    x1 = solver_on("heun", new)(RescheduledVelocity(flow, old, new))(x0, times)
    assert (x1 - flow.transport(x0)).abs().max() < 1e-3


# --- paths -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("t", [0.05, 0.5, 0.95])
def test_the_velocity_of_a_gaussian_is_the_regression_on_samples_of_the_path(schedule: Schedule, t: float) -> None:
    """Least squares of the conditional velocity on the state, 2e5 pairs; that of another path is not."""
    count, path, time = 200_000, AffinePath(schedule), at(t)
    x0, x1 = normal((count, 1), 8), 0.7 + math.sqrt(VARIANCE) * normal((count, 1), 9)
    x_t, u = path.sample(x0, x1, time)
    basis = torch.cat([torch.ones_like(x_t), (x_t - x_t.mean()) / x_t.std()], dim=1)
    fitted = basis @ torch.linalg.lstsq(basis, u).solution
    exact = GaussianFlow(0.7, math.sqrt(VARIANCE), path)(x_t, time)
    scale = u.square().mean().sqrt()
    assert (fitted - exact).square().mean().sqrt() < 0.03 * scale
    other = AffinePath(Linear() if not isinstance(schedule, Linear) else Cosine())
    assert (fitted - GaussianFlow(-0.7, math.sqrt(VARIANCE), other)(x_t, time)).square().mean().sqrt() > 0.1 * scale


def test_trajectories_begin_at_the_noise_of_the_path() -> None:
    x0 = normal((3, 1, 4), 10)
    assert torch.equal(AffinePath().start(x0), x0)
    assert torch.allclose(AffinePath(VarianceExploding(0.01, 50.0)).start(x0), 50 * x0)


@pytest.mark.parametrize("solver", SOLVERS)
def test_every_path_with_every_solver_reaches_the_transport(schedule: Schedule, solver: str) -> None:
    """At its order: errors against the exact solution fall as they should when steps are halved."""
    path = AffinePath(schedule)
    flow, x0 = GaussianFlow(0.5, 0.4, path), normal((16, 1, 4), 11)
    start, end = at(0.1), at(0.9)

    def exact(x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        a, b = schedule(t), schedule(s)
        spread = ((b.signal * 0.4) ** 2 + b.noise**2).sqrt() / ((a.signal * 0.4) ** 2 + a.noise**2).sqrt()
        return b.signal * 0.5 + spread * (x - a.signal * 0.5)

    x = schedule(start).signal * (0.5 + 0.4 * x0) + schedule(start).noise * normal((16, 1, 4), 12)
    rule, order = solver_on(solver, path), SOLVERS[solver].order
    errors = []
    for steps in (2,) if order is None else (64, 128):
        times = torch.linspace(0.1, 0.9, steps + 1, dtype=torch.float64)
        errors.append((rule(flow)(x, times) - exact(x, start, end)).square().mean().sqrt() / x.square().mean().sqrt())
    if order is None:
        assert errors[-1] < 1e-2
    elif errors[0] > 1e-12:
        assert torch.log2(errors[0] / errors[1]) > order - 0.3


def test_orders_are_no_better_than_stated() -> None:
    """On the cosine path, where nothing cancels."""
    path = AffinePath(Cosine())
    flow, x0 = GaussianFlow(1.5, 0.4, path), normal((64, 1, 4), 13)
    for name, kind in SOLVERS.items():
        if kind.order is None:
            continue
        errors = [
            (solver_on(name, path)(flow)(x0, torch.linspace(0, 1, n + 1, dtype=torch.float64)) - flow.transport(x0)).abs().max()
            for n in (64, 128)
        ]
        assert torch.log2(errors[0] / errors[1]).item() == pytest.approx(kind.order, abs=0.25), name


def test_the_exponential_step_is_eulers_on_the_straight_path_only() -> None:
    x0, times = normal((4, 1, 3), 14), torch.linspace(0, 1, 8, dtype=torch.float64)
    for schedule, equal in ((Linear(), True), (Cosine(), False)):
        path = AffinePath(schedule)
        flow = GaussianFlow(0.5, 0.4, path)
        gap = (solver_on("exponential", path)(flow)(x0, times) - solver_on("euler", path)(flow)(x0, times)).abs().max()
        assert gap < 1e-12 if equal else gap > 1e-3


class Gaussian(nn.Module):
    """The exact velocity of normalised fields N(0, 0.6²), as a network."""

    def __init__(self, path: AffinePath) -> None:
        super().__init__()
        self.flow = GaussianFlow(0.0, 0.6, path)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.flow(x, t)


LINE = Grid(Axis("x", 8, periodic=True))
SLOW = {"source-chain": "source-chain:moves=2", "d-flow": "d-flow:iterations=2"}


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_samples_by_every_method_under_a_law(name: str) -> None:
    """Finite samples that obey it in single precision, whatever the path; without a law, of the flow's own spread."""
    flow = pcfm.wrap(Gaussian(AffinePath(SCHEDULES[name]())), grid=LINE, path=name)
    law = Mass(LINE, 0.25)
    for method, kind in METHODS.items():
        if method.startswith("ipcfm"):
            continue
        samples = pcfm.sample(flow, 2, law=law if kind.lawful else None, method=SLOW.get(method, method), steps=6, dtype=torch.float32)
        assert torch.isfinite(samples.u).all(), method
        if kind.lawful:
            assert (samples.u.double().mean((1, 2)) - 0.25).abs().max() < 1e-6, method
    free = pcfm.sample(flow, 64, solver="rk4", steps=40)
    assert free.u.std().item() == pytest.approx(0.6, rel=0.15)


AFFINE = {"sde", "pdm", "guided", "posterior", "diffusionpde", "flower", "flowdps", "pnp-flow"}
"""Methods that need the scales of a path, or both ends of it from a state."""


@pytest.mark.parametrize("method", [name for name in METHODS if not name.startswith("ipcfm")])
def test_methods_take_a_bridge_or_refuse_it_in_one_line(method: str) -> None:
    flow = replace(pcfm.wrap(Gaussian(AffinePath()), grid=LINE), path=BridgePath())
    law = Mass(LINE, 0.25) if METHODS[method].lawful else None

    def drawn() -> Tensor:
        return pcfm.sample(flow, 2, law=law, method=SLOW.get(method, method), steps=3).u

    if method in AFFINE:
        with pytest.raises(ValueError, match=r"expects an AffinePath.*; got BridgePath\. Train along"):
            drawn()
    else:
        assert drawn().isfinite().all()


def test_without_its_scale_a_variance_exploding_trajectory_goes_wrong() -> None:
    path, x0, times = AffinePath(VarianceExploding()), normal((64, 1, 8), 15), torch.linspace(0, 1, 101, dtype=torch.float64)
    base = solver_on("rk4", path)(GaussianFlow(0.0, 0.6, path))
    assert Unconstrained(base, path)(x0, times).std().item() == pytest.approx(0.6, rel=0.05)
    assert Unconstrained(base)(x0, times).std().item() < 0.1


# --- times and weights -------------------------------------------------------------------------------------------------------------


def inverted(quantile: Callable[[Tensor], Tensor], t: Tensor) -> Tensor:
    """The distribution function of a law given by its quantiles."""
    low, high = torch.zeros_like(t), torch.ones_like(t)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = torch.where(quantile(middle) < t, middle, low), torch.where(quantile(middle) < t, high, middle)
    return (low + high) / 2


def published_mode(u: Tensor) -> Tensor:
    """Equation 20 of Esser et al., with scale 0.8: a level of noise."""
    return 1 - u - 0.8 * (torch.cos(math.pi / 2 * u).square() - 1 + u)


LAWS: dict[str, tuple[TimeLaw, Callable[[Tensor], Tensor]]] = {
    "uniform": (Uniform(), lambda t: t),
    "logit-normal": (LogitNormal(0.3, 0.8), lambda t: torch.special.ndtr((torch.logit(t) - 0.3) / 0.8)),
    "power": (Power(1.5), lambda t: t**2.5),
    "beta": (Beta(2.0, 3.0), lambda t: torch.from_numpy(stats.beta(2.0, 3.0).cdf(t.numpy()))),
    "shifted": (Shifted(3.0), lambda t: 1 - (1 - t) / (3 - 2 * (1 - t))),
    "mode": (Mode(0.8), lambda t: inverted(lambda u: 1 - published_mode(u), t)),
}


def test_all_laws_of_times_are_covered() -> None:
    assert set(LAWS) == set(TIME_LAWS)


@pytest.mark.parametrize("name", LAWS)
def test_times_have_the_stated_distribution(name: str) -> None:
    """The distribution function of the quantiles is the identity, its slope the density; draws pass Kolmogorov and Smirnov's test, which
    uniform ones fail."""
    law, distribution = LAWS[name]
    r = torch.linspace(0.02, 0.98, 49, dtype=torch.float64)
    t = law.quantile(r)
    assert (distribution(t) - r).abs().max() < 1e-9
    step = 1e-5
    assert torch.allclose((distribution(t + step) - distribution(t - step)) / (2 * step), law.density(r), rtol=1e-4)
    drawn = (
        Objective(AffinePath(), law).draw(20_000, torch.Generator().manual_seed(0), lambda: torch.zeros(1)).t.double().clamp(1e-6, 1 - 1e-6)
    )
    assert stats.kstest(distribution(drawn).numpy(), "uniform").pvalue > 1e-3
    if name != "uniform":
        assert stats.kstest(distribution(r).numpy(), "uniform").pvalue < 0.05 or stats.kstest(drawn.numpy(), "uniform").pvalue < 1e-3


def test_weights_are_the_errors_of_the_other_predictions() -> None:
    """An error of the velocity, as the endpoint and the noise that it implies see it; the last weight undoes the law of times."""
    path, x, t = AffinePath(Cosine()), normal((5, 1, 3), 16), torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9], dtype=torch.float64)
    velocity, error = normal((5, 1, 3), 17), normal((5, 1, 3), 18)
    plain = error.square().mean((1, 2))
    scales = path.schedule(t)
    for weight, implied in (("endpoint", path.endpoint), ("noise", path.origin)):
        gap = (implied(x, velocity + error, t) - implied(x, velocity, t)).square().mean((1, 2))
        assert torch.allclose(WEIGHTS[weight](scales, t) * plain, gap, rtol=1e-12)
    objective = Objective(path, LogitNormal(0.5, 1.0), "unbiased")
    drawn = objective.draw(200_000, torch.Generator().manual_seed(1), lambda: x)
    mean = (drawn.weight.double() * drawn.t.double() ** 2).mean().item()
    assert mean == pytest.approx(1 / 3, rel=0.02)
    assert (drawn.t.double() ** 2).mean().item() != pytest.approx(1 / 3, rel=0.1)


def test_the_loss_is_weighed_sample_by_sample() -> None:
    path, x0, x1 = AffinePath(), normal((6, 1, 3), 19).float(), normal((6, 1, 3), 20).float()
    drawn = Objective(path, Power(1.0), "endpoint").draw(6, torch.Generator().manual_seed(2), lambda: x0)
    loss = Objective(path, Power(1.0), "endpoint")(lambda x, t: 0 * x, x0, x1, drawn)
    assert torch.allclose(loss, (1 - drawn.t) ** 2 * (x1 - x0).square().mean((1, 2)), rtol=1e-4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: time_law("logit-norml"), "Did you mean 'logit-normal'"),
        (lambda: time_law("power:exponent=-2"), "expect a larger exponent"),
        (lambda: time_law("mode:scale=3"), "monotone"),
        (lambda: Objective(AffinePath(), weight="endpiont"), "Did you mean 'endpoint'"),
        (lambda: Objective(BridgePath(), weight="endpoint"), "expects an AffinePath"),
        (lambda: read_experiment(None, ["path.schedule=polynomial", "path.power=-1"]), "power in"),
        (lambda: read_experiment(None, ["path.schedule=cosine", "path.power=2"]), "no key 'power'"),
        (lambda: read_experiment(None, ["training.times=lognormal"]), "unknown law of times"),
    ],
)
def test_settings_without_a_meaning_are_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_pairs_and_times_that_do_not_fit_are_refused() -> None:
    from pcfm.objective import flow_matching_loss

    x = normal((3, 1, 4), 21)
    with pytest.raises(ValueError, match=r"one shape; got \(3, 1, 4\) and \(3, 1, 3\)"):
        flow_matching_loss(lambda x, t: x, AffinePath(), x, x[..., :3], at(0.5))
    with pytest.raises(ValueError, match=r"times in \[0, 1\]; got 1.5"):
        flow_matching_loss(lambda x, t: x, AffinePath(), x, x, at(1.5))


@pytest.mark.parametrize("t", [1.5, -0.1, math.nan])
@pytest.mark.parametrize("path", [AffinePath(), BridgePath()], ids=["affine", "bridge"])
def test_a_path_refuses_times_and_pairs_that_it_does_not_join(path: Path, t: float) -> None:
    x = normal((3, 1, 4), 22)
    with pytest.raises(ValueError, match=rf"times in \[0, 1\].*got {t:g}"):
        path.sample(x, x, at(t))
    with pytest.raises(ValueError, match=rf"times in \[0, 1\].*got {t:g}"):
        path.sample(x, x, torch.tensor([0.0, t, 1.0]))
    with pytest.raises(ValueError, match=r"one shape; got x0 \(1, 1, 4\) and x1 \(3, 1, 4\)"):
        path.sample(x[:1], x, at(0.5))


def test_a_path_is_transformed_with_respect_to_times() -> None:
    """Values under `torch.func` are not there to be looked at."""
    x0, x1, t = normal((3, 1, 4), 23), normal((3, 1, 4), 24), torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)
    together = AffinePath().sample(x0, x1, t)
    each = torch.func.vmap(AffinePath().sample)(x0, x1, t)
    moved, rate = torch.func.jvp(lambda s: AffinePath().sample(x0, x1, s).x_t, (t,), (torch.ones_like(t),))
    assert torch.equal(each.x_t, together.x_t)
    assert torch.equal(moved, together.x_t)
    assert torch.allclose(rate, x1 - x0)


@pytest.mark.parametrize("rule", [Euler, Heun, RungeKutta4])
@pytest.mark.parametrize(
    ("times", "message"),
    [
        (torch.linspace(0, 1.2, 5), r"times in \[0, 1\].*got 1.2"),
        (torch.tensor([-0.5, 1.0]), r"times in \[0, 1\].*got -0.5"),
        (torch.tensor([0.0, math.nan, 1.0]), r"times in \[0, 1\].*got nan"),
        (torch.linspace(1, 0, 3), r"never decrease.*got \[1.0, 0.5, 0.0\]"),
        (torch.tensor([0.0]), r"at least two times.*shape \(1,\)"),
        (torch.tensor(0.5), r"at least two times.*shape \(\)"),
    ],
)
def test_solvers_refuse_times_that_are_no_trajectory(rule: Callable[[GaussianFlow], Sampler], times: Tensor, message: str) -> None:
    sampler, x = rule(GaussianFlow(0.0, 0.5)), torch.ones(2, 1, 3)
    with pytest.raises(ValueError, match=message):
        sampler(x, times)
    with pytest.raises(ValueError, match=message):
        next(sampler.iterate(x, times))
