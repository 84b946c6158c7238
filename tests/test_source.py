"""Sources, paths, schedules, velocities and the objective, against covariances, derivatives and optima known in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from constraints import Axis, Grid
from constraints.calculus.spectral import wavenumbers
from pcfm.networks import Perceptron
from pcfm.objective import flow_matching_loss, stratified_times
from pcfm.path import AffinePath, broadcast
from pcfm.schedule import Cosine, Linear, Schedule
from pcfm.source import SmoothNoise, Source, WhiteNoise
from pcfm.velocity import CALLS, TWO_TIMES, GaussianFlow, NetworkVelocity

TAU = 2 * math.pi


def normal(shape: Sequence[int], seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(tuple(shape), generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def generators(count: int, start: int = 0) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(1000 + start + i) for i in range(count)]


# --- sources -----------------------------------------------------------------------------------------------------------------------

GRIDS = {
    "line": Grid(Axis("x", 9, length=TAU, periodic=True)),
    "plane": Grid(Axis("x", 8, length=2.0, periodic=True), Axis("y", 5, length=3.0, periodic=True)),
    "box": Grid(*(Axis(name, n, length=1.0, periodic=True) for name, n in (("x", 4), ("y", 3), ("z", 6)))),
    "interval": Grid(Axis("x", 12, length=4.0)),
    "interval, uneven": Grid(Axis.at("x", [0.0, 0.1, 0.3, 0.35, 0.9, 1.7])),
    "time and line": Grid(Axis("time", 5, length=2.0), Axis("x", 8, length=TAU, periodic=True)),
    "line and wall": Grid(Axis("x", 6, length=1.0, periodic=True), Axis.at("y", [0.0, 0.2, 0.5, 1.0])),
    "film": Grid(Axis.at("time", [0.0, 0.1, 0.5]), Axis("x", 4, length=1.0, periodic=True), Axis("y", 6, length=2.0, periodic=True)),
    "box of cells": Grid(Axis("x", 5, cells=True), Axis("y", 4)),
}


def stated_covariance(source: SmoothNoise) -> Tensor:
    r"""The covariance of the docstring, point by point: a sum of cosines over periodic axes times a Matern kernel for each bounded one.

    $C(x, x') = \frac{\sum_k \lambda(k)\cos k\cdot(x - x')}{\sum_k\lambda(k)}$ with
    $\lambda = (1 + \sum_i(\ell L_i k_i)^2)^{-(\nu + d/2)}$.
    """
    axes, nu = source.grid.axes, source.smoothness
    points = torch.stack([m.flatten() for m in source.grid.mesh()], dim=1)
    offset = points[:, None] - points[None, :]
    covariance = torch.ones(len(points), len(points), dtype=torch.float64)
    periodic = [i for i, axis in enumerate(axes) if axis.periodic]
    if periodic:
        k = torch.cartesian_prod(*(wavenumbers(axes[i]) for i in periodic)).reshape(-1, len(periodic))
        length = torch.tensor([source.length * axes[i].extent for i in periodic], dtype=torch.float64)
        weight = (1 + (length * k).square().sum(1)) ** -(nu + len(periodic) / 2)
        covariance = (torch.cos(offset[..., periodic] @ k.T) @ weight) / weight.sum()
    for i, axis in enumerate(axes):
        if not axis.periodic:
            r = offset[..., i].abs() / (source.length * axis.extent)
            z = math.sqrt(2 * nu) * r
            covariance = covariance * {0.5: 1 + 0 * r, 1.5: 1 + z, 2.5: 1 + z + z**2 / 3}[nu] * torch.exp(-z)
    return covariance


def matrix(source: Source) -> Tensor:
    """What `colour` does to one channel, column by column."""
    size = math.prod(source.grid.shape)
    impulses = torch.zeros(size, source.channels, size, dtype=torch.float64)
    impulses[:, 0] = torch.eye(size)
    out = source.colour(impulses.reshape(size, source.channels, *source.grid.shape)).reshape(size, source.channels, size)
    assert not out[:, 1:].any()
    return out[:, 0].T


@pytest.mark.parametrize("smoothness", [0.5, 1.5, 2.5])
@pytest.mark.parametrize("name", GRIDS)
def test_smooth_noise_has_the_stated_covariance(name: str, smoothness: float) -> None:
    """Exactly: the covariance of the coloured impulses is the stated one, of unit diagonal and full rank."""
    source = SmoothNoise(GRIDS[name], 2, length=0.17, smoothness=smoothness)
    factor, expected = matrix(source), stated_covariance(source)
    covariance = factor @ factor.T
    assert (covariance - expected).abs().max() < 1e-12
    assert (covariance.diagonal() - 1).abs().max() < 1e-12
    assert (covariance - covariance.T).abs().max() < 1e-13
    assert torch.linalg.eigvalsh(expected).min() > 0
    assert torch.linalg.eigvalsh(covariance).min() > 1e-6 * torch.linalg.eigvalsh(expected).min()
    assert (factor - factor.T).abs().max() < 1e-13


@pytest.mark.parametrize("smoothness", [0.5, 1.5, 2.5])
@pytest.mark.parametrize("points", [28, 64, 100])
def test_smooth_noise_keeps_unit_variance_and_full_rank_on_real_grids(points: int, smoothness: float) -> None:
    """By the variance of one point, whose column of impulses gives all others: the periodic covariance is stationary."""
    grid = Grid(*(Axis(name, points, length=TAU, periodic=True) for name in ("x", "y")))
    source = SmoothNoise(grid, 1, length=0.05, smoothness=smoothness)
    impulse = torch.zeros(1, 1, points, points, dtype=torch.float64)
    impulse[0, 0, 3, 5] = 1
    column = source.colour(impulse)[0, 0]
    assert column.square().sum().item() == pytest.approx(1, abs=1e-12)
    spectrum = torch.fft.fft2(column).abs()
    k2 = (0.05 * TAU) ** 2 * (wavenumbers(grid.axes[0])[:, None] ** 2 + wavenumbers(grid.axes[1])[None, :] ** 2)
    stated = (1 + k2) ** (-(smoothness + 1) / 2)
    assert torch.allclose(spectrum, stated * (points / stated.square().sum().sqrt()), rtol=1e-11)
    assert spectrum.min() > 0


@pytest.mark.parametrize(
    "grid",
    [
        Grid(Axis("x", 28, periodic=True), Axis("y", 28, periodic=True)),
        Grid(Axis("x", 64, periodic=True), Axis("y", 64, periodic=True)),
        Grid(Axis("x", 100, periodic=True), Axis("y", 100, periodic=True)),
        Grid(Axis("time", 100), Axis("x", 100, periodic=True)),
        Grid(Axis("time", 33), Axis.at("x", torch.linspace(0, 1, 40, dtype=torch.float64).square().tolist())),
    ],
    ids=["28x28", "64x64", "100x100", "time and line", "uneven"],
)
@pytest.mark.parametrize("kind", [WhiteNoise, SmoothNoise])
def test_empirical_variance_is_one(grid: Grid, kind: Callable[[Grid, int], Source]) -> None:
    """Within 1 %; zero mean; channels that share nothing.

    Of length 0.05 a field has at least 50 independent values, so that 1200 of them give the variance to 0.6 %, and the products of two
    channels and the mean to 0.03 at five standard errors.
    """
    x = kind(grid, 2).sample(generators(600), torch.float64)
    assert x.shape == (600, 2, *grid.shape)
    assert x.square().mean().item() == pytest.approx(1, abs=0.01)
    assert abs(x.mean().item()) < 0.03
    assert abs((x[:, 0] * x[:, 1]).mean().item()) < 0.03
    assert abs((x[1:] * x[:-1]).mean().item()) < 0.03


@pytest.mark.parametrize("grid", [GRIDS["plane"], GRIDS["time and line"], GRIDS["box of cells"]], ids=["plane", "time and line", "cells"])
@pytest.mark.parametrize("kind", [WhiteNoise, SmoothNoise])
def test_draws_do_not_depend_on_the_batch(grid: Grid, kind: Callable[[Grid, int], Source]) -> None:
    source = kind(grid, 3)
    whole = source.sample(generators(5), torch.float64)
    pieces = torch.cat([source.sample(generators(2), torch.float64), source.sample(generators(3, start=2), torch.float64)])
    assert (whole - pieces).abs().max() < (1e-13 if kind is SmoothNoise else 1e-300)
    assert (whole - source.sample(generators(5, start=1), torch.float64)).abs().amax((1, 2, 3)).min() > 0.1
    single = source.sample(generators(5))
    assert single.dtype == torch.float32
    assert (single - whole).abs().max() < 1e-5


def test_white_noise_is_the_identity() -> None:
    white = normal((2, 1, 5), 0)
    assert torch.equal(WhiteNoise(Grid(Axis("x", 5)), 1).colour(white), white)


def test_longer_and_smoother_noise_is_more_correlated() -> None:
    grid = Grid(Axis("x", 32, periodic=True))

    def neighbour(length: float, smoothness: float) -> float:
        factor = matrix(SmoothNoise(grid, 1, length, smoothness))
        return (factor @ factor.T)[0, 1].item()

    assert neighbour(0.01, 0.5) < neighbour(0.03, 0.5) < neighbour(0.1, 0.5) < neighbour(0.1, 1.5) < neighbour(0.1, 2.5) < 1


@pytest.mark.parametrize(
    ("options", "message"),
    [({"length": 0.0}, "positive correlation length"), ({"length": math.nan}, "positive"), ({"smoothness": 1.0}, "0.5, 1.5 or 2.5")],
)
def test_noise_without_a_meaning_is_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SmoothNoise(GRIDS["line"], 1, **options)


# --- schedules and paths -----------------------------------------------------------------------------------------------------------

SCHEDULES: dict[str, Schedule] = {"linear": Linear(), "cosine": Cosine()}


@pytest.fixture(params=SCHEDULES, ids=str)
def schedule(request: pytest.FixtureRequest) -> Schedule:
    return SCHEDULES[request.param]


def test_rates_are_derivatives_and_the_ends_pure(schedule: Schedule) -> None:
    t = torch.linspace(0, 1, 23, dtype=torch.float64, requires_grad=True)
    signal, noise, signal_rate, noise_rate = schedule(t)
    for scale, rate in ((signal, signal_rate), (noise, noise_rate)):
        assert rate.shape == scale.shape == t.shape
        assert torch.allclose(torch.autograd.grad(scale.sum(), t, retain_graph=True)[0], rate, rtol=0, atol=1e-10)
    ends = torch.stack([signal, noise])[:, [0, -1]]
    assert torch.allclose(ends, torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64), rtol=0, atol=1e-15)
    assert ((signal / noise)[:-1].diff() > 0).all()
    shapeless = schedule(torch.tensor(0.25, dtype=torch.float64))
    assert all(k.shape == () and k.dtype == torch.float64 for k in shapeless)


def test_cosine_keeps_the_variance() -> None:
    signal, noise, _, _ = Cosine()(torch.linspace(0, 1, 9, dtype=torch.float64))
    assert torch.allclose(signal**2 + noise**2, torch.ones(9, dtype=torch.float64))


TIMES = {"one time": torch.tensor(0.3, dtype=torch.float64), "a time each": torch.tensor([0.0, 0.2, 0.55, 1.0], dtype=torch.float64)}


@pytest.mark.parametrize("t", TIMES.values(), ids=TIMES)
@pytest.mark.parametrize("shape", [(4, 3), (4, 2, 5), (4, 1, 3, 2)], ids=str)
def test_velocity_is_the_derivative_and_both_ends_come_back(schedule: Schedule, t: Tensor, shape: tuple[int, ...]) -> None:
    path, x0, x1 = AffinePath(schedule), normal(shape, 1), normal(shape, 2)
    x_t, velocity = path.sample(x0, x1, t)
    derivative = torch.autograd.functional.jacobian(lambda s: path.sample(x0, x1, s).x_t, t)
    if t.ndim:
        derivative = torch.stack([derivative[i, ..., i] for i in range(4)])
    assert (velocity - derivative).abs().max() < 1e-12
    assert (path.endpoint(x_t, velocity, t) - x1).abs().max() < 1e-12
    assert (path.origin(x_t, velocity, t) - x0).abs().max() < 1e-12
    for value, end in ((0.0, x0), (1.0, x1)):
        assert torch.allclose(path.sample(x0, x1, torch.full_like(t, value)).x_t, end, rtol=0, atol=1e-15)
    if t.ndim:
        for i in range(4):
            assert torch.equal(path.sample(x0[i : i + 1], x1[i : i + 1], t[i]).x_t, x_t[i : i + 1])


def test_straight_path_is_straight() -> None:
    x0, x1 = normal((4, 2, 3), 3), normal((4, 2, 3), 4)
    x_t, velocity = AffinePath().sample(x0, x1, torch.tensor(0.25, dtype=torch.float64))
    assert torch.allclose(x_t, 0.75 * x0 + 0.25 * x1, atol=1e-15)
    assert torch.equal(velocity, x1 - x0)
    assert broadcast(TIMES["a time each"], x0).shape == (4, 1, 1)


# --- velocities --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("t", [0.1, 0.5, 0.85])
@pytest.mark.parametrize(("mean", "std"), [(1.5, 0.4), (-0.7, 2.0)])
def test_gaussian_flow_is_the_regression_of_conditional_velocities(schedule: Schedule, mean: float, std: float, t: float) -> None:
    """For Gaussian ends the marginal velocity, an expectation at fixed x_t, is linear: least squares over pairs finds it."""
    count, path = 400_000, AffinePath(schedule)
    x0, x1 = normal((count, 1), 5), mean + std * normal((count, 1), 6)
    time = torch.tensor(t, dtype=torch.float64)
    x_t, u = path.sample(x0, x1, time)
    intercept, slope = torch.linalg.lstsq(torch.cat([torch.ones_like(x_t), x_t], dim=1), u).solution[:, 0]
    spread = x_t.std()
    x = x_t.mean() + spread * torch.tensor([[-2.0], [-1.0], [0.0], [1.0], [2.0]], dtype=torch.float64)
    exact = GaussianFlow(mean, std, path)(x, time)
    assert (intercept + slope * x - exact).abs().max() < 0.03 * u.square().mean().sqrt()
    assert torch.allclose(GaussianFlow(mean, std, path)(x, time.expand(5)), exact, rtol=0, atol=1e-14)


def test_gaussian_flow_carries_quantiles(schedule: Schedule) -> None:
    r"""In one dimension the flow keeps order: along $x_t = \alpha m + \sqrt{\alpha^2 s^2 + \sigma^2}\,x_0$ its velocity is $\dot x_t$."""
    mean, std, x0 = 0.8, 0.3, normal((7, 1), 7)
    flow, t = GaussianFlow(mean, std, AffinePath(schedule)), torch.linspace(0, 1, 7, dtype=torch.float64)

    def quantile(t: Tensor) -> Tensor:
        signal, noise, _, _ = schedule(t)
        return (signal * mean)[:, None] + ((signal * std) ** 2 + noise**2).sqrt()[:, None] * x0

    rate = torch.autograd.functional.jacobian(quantile, t)[range(7), :, range(7)]
    assert (flow(quantile(t), t) - rate).abs().max() < 1e-12
    assert torch.allclose(quantile(torch.ones(7, dtype=torch.float64)), flow.transport(x0), atol=1e-15)


class Affine(nn.Module):
    """2 x + 10 t, with a parameter that says in which dtype; remembers what it was given."""

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(2.0, dtype=dtype))
        self.seen: tuple[Tensor, Tensor] | None = None

    def of(self, x: Tensor, t: Tensor) -> Tensor:
        self.seen = (x, t)
        return self.gain * x + 10 * t.reshape(-1, *(1,) * (x.ndim - 1))


class StateFirst(Affine):
    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.of(x, t)


class TimeFirst(Affine):
    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        return self.of(x, t)


class Keywords(Affine):
    def forward(self, *, sample: Tensor, timestep: Tensor) -> SimpleNamespace:
        return SimpleNamespace(sample=self.of(sample, timestep))


class TimeChannel(Affine):
    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[1] == 3
        t = x[:, -1].flatten(1)
        assert (t == t[:, :1]).all()
        return self.of(x[:, :-1], t[:, 0])


class Conditioned(Affine):
    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        out = self.of(x, t)
        assert condition is None or condition.dtype == x.dtype
        return out if condition is None else out + condition


CONVENTIONS: dict[str, type[Affine]] = {
    "x,t": StateFirst,
    "t,x": TimeFirst,
    "sample,timestep": Keywords,
    "x+t": TimeChannel,
    "x,t,condition": Conditioned,
}


def test_conventions_are_all_covered() -> None:
    """Those of two times are shown with flow maps."""
    assert set(CONVENTIONS) == set(CALLS) - set(TWO_TIMES)


@pytest.mark.parametrize("t", TIMES.values(), ids=TIMES)
@pytest.mark.parametrize("call", CONVENTIONS)
def test_network_is_called_its_own_way(call: str, t: Tensor) -> None:
    x, velocity = normal((4, 2, 3, 5), 8), NetworkVelocity(CONVENTIONS[call](), call)
    expected = 2 * x + 10 * t.reshape(-1, 1, 1, 1)
    assert torch.allclose(velocity(x, t), expected, rtol=0, atol=1e-14)
    assert velocity.calls == 1
    velocity(x, t)
    assert velocity.calls == 2
    scaled = NetworkVelocity(CONVENTIONS[call](), call, time_scale=1000.0)
    assert torch.allclose(scaled(x, t), expected + 9990 * t.reshape(-1, 1, 1, 1), rtol=0, atol=1e-11)


@pytest.mark.parametrize("call", CONVENTIONS)
def test_network_runs_in_its_own_dtype(call: str) -> None:
    x, t = normal((4, 2, 3, 5), 9), TIMES["one time"]
    network = CONVENTIONS[call](torch.float32)
    velocity = NetworkVelocity(network, call)
    out = velocity(x, t)
    assert network.seen is not None
    assert all(value.dtype == torch.float32 for value in network.seen)
    assert network.seen[1].shape == (4,)
    assert out.dtype == torch.float64
    assert torch.equal(out, (2 * x.float() + 10 * t.float()).double())
    network.double()
    assert torch.allclose(velocity(x, t), 2 * x + 10 * t, rtol=0, atol=1e-14)
    assert velocity(x.float(), t).dtype == torch.float32


def test_network_without_parameters_does_not_round_the_state() -> None:
    """It has no dtype of its own, so that it runs in that of the state."""

    class Double(nn.Module):
        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return 2 * x

    x = normal((4, 2, 3), 10)
    assert torch.equal(NetworkVelocity(Double())(x, TIMES["one time"]), 2 * x)


def test_network_with_spectral_weights_first_sees_a_real_state() -> None:
    """Fourier operators of other libraries hold complex parameters, which say nothing of the dtype of the state."""

    class Spectral(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.full((3,), 2.0, dtype=torch.complex64))
            self.bias = nn.Parameter(torch.tensor(0.5))

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            assert x.dtype == t.dtype == torch.float32
            return torch.fft.irfft(torch.fft.rfft(x) * self.weight, n=x.shape[-1]) + self.bias

    x = normal((4, 2, 5), 11)
    assert torch.allclose(NetworkVelocity(Spectral())(x, TIMES["one time"]), 2 * x + 0.5, atol=1e-5)


def test_velocity_has_the_parameters_of_its_network_and_no_others() -> None:
    velocity = NetworkVelocity(Affine())
    assert set(velocity.state_dict()) == {"network.gain"}
    assert [name for name, _ in velocity.named_parameters()] == ["network.gain"]


def test_condition_is_handed_over_in_the_dtype_of_the_network() -> None:
    x, t, condition = normal((4, 2, 3), 12), TIMES["a time each"], normal((4, 2, 3), 13)
    velocity = NetworkVelocity(Conditioned(torch.float32), "x,t,condition", condition=condition)
    expected = 2 * x + 10 * t[:, None, None] + condition
    out = velocity(x, t)
    assert out.dtype == torch.float64
    assert 0 < (out - expected).abs().max() < 1e-5


def test_gradients_reach_the_network_and_the_state() -> None:
    network = StateFirst(torch.float32)
    x = normal((4, 2, 3), 14).requires_grad_()
    NetworkVelocity(network)(x, TIMES["one time"]).sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, torch.full_like(x, 2.0))
    assert network.gain.grad is not None
    assert network.gain.grad.item() == pytest.approx(x.sum().item(), abs=1e-5)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda x: x[:, :1], r"\(4, 2, 3\); got \(4, 1, 3\)"),
        (lambda x: x.mean(), r"got \(\)"),
        (lambda x: (x, x), "got tuple"),
        (lambda x: None, "got NoneType"),
        (lambda x: SimpleNamespace(sample=x[..., :2]), r"got \(4, 2, 2\)"),
    ],
)
def test_outputs_that_are_no_velocity_are_refused(wrong: Callable[[Tensor], object], message: str) -> None:
    class Wrong(nn.Module):
        def forward(self, x: Tensor, t: Tensor) -> object:
            return wrong(x)

    with pytest.raises(ValueError, match=message):
        NetworkVelocity(Wrong())(normal((4, 2, 3), 15), TIMES["one time"])


def test_unknown_convention_is_refused() -> None:
    with pytest.raises(ValueError, match=r"among x,t, t,x, .*; got 'x;t'"):
        NetworkVelocity(Affine(), "x;t")


# --- objective ---------------------------------------------------------------------------------------------------------------------


def test_loss_is_a_mean_square_for_each_sample(schedule: Schedule) -> None:
    x0, x1, t = normal((3, 2, 4), 16), normal((3, 2, 4), 17), torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    path = AffinePath(schedule)
    target = path.sample(x0, x1, t).velocity
    offset = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)

    def velocity(x: Tensor, s: Tensor) -> Tensor:
        assert torch.equal(x, path.sample(x0, x1, t).x_t)
        assert torch.equal(s, t)
        return target + offset[:, None, None]

    assert torch.allclose(flow_matching_loss(velocity, path, x0, x1, t), offset**2, atol=1e-12)


@pytest.mark.parametrize(("mean", "std"), [(0.0, 0.5), (0.0, 2.0), (1.2, 1.0)])
def test_optimal_loss_on_gaussian_data(mean: float, std: float) -> None:
    r"""On the straight path the exact velocity's loss is $\int_0^1 s^2/((1-t)^2 + t^2 s^2)\,dt = \tfrac\pi2 s$ for each value."""
    count = 100_000
    x0, x1 = normal((count, 1, 4), 18), mean + std * normal((count, 1, 4), 19)
    t = stratified_times(count, torch.Generator().manual_seed(20)).double()
    loss = flow_matching_loss(GaussianFlow(mean, std), AffinePath(), x0, x1, t)
    assert loss.shape == (count,)
    assert loss.mean().item() == pytest.approx(math.pi / 2 * std, rel=0.03)
    worse = [
        flow_matching_loss(GaussianFlow(mean, 1.2 * std), AffinePath(), x0, x1, t),
        flow_matching_loss(GaussianFlow(mean + 0.2, std), AffinePath(), x0, x1, t),
        flow_matching_loss(lambda x, s: torch.full_like(x, mean), AffinePath(), x0, x1, t),
    ]
    assert min(other.mean().item() for other in worse) > loss.mean().item() + 1e-3
    assert worse[2].mean().item() == pytest.approx(1 + std**2, rel=0.03)


@pytest.mark.slow
def test_a_trained_network_reaches_the_optimal_loss() -> None:
    r"""Of correlated Gaussian data: $\tfrac\pi2\,\mathrm{tr}\,\Sigma^{1/2}$ over both values, within 3 %, and not below."""
    half = torch.tensor([[0.8, 0.3], [0.3, 0.5]])
    torch.manual_seed(0)
    network = Perceptron(Grid(Axis("x", 2)), 1, width=64)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    generator = torch.Generator().manual_seed(21)

    def losses(count: int) -> Tensor:
        x0, white = torch.randn(2, count, 1, 2, generator=generator)
        return flow_matching_loss(network, AffinePath(), x0, white @ half + 0.5, stratified_times(count, generator))

    for step in range(1000):
        optimizer.param_groups[0]["lr"] = 1e-3 * (1 + math.cos(math.pi * step / 1000))
        optimizer.zero_grad()
        losses(512).mean().backward()
        optimizer.step()
    with torch.no_grad():
        found = 2 * losses(200_000).mean().item() / (math.pi / 2 * half.trace().item())
    assert 0.99 <= found <= 1.03


@pytest.mark.parametrize("count", [1, 7, 512])
def test_stratified_times_have_one_in_each_interval(count: int) -> None:
    for seed in range(5):
        t = stratified_times(count, torch.Generator().manual_seed(seed))
        assert t.shape == (count,)
        assert sorted((t.double() * count).long().tolist()) == list(range(count))
    again = stratified_times(count, torch.Generator().manual_seed(4))
    assert torch.equal(t, again)


def test_stratified_times_are_uniform_and_in_random_order() -> None:
    """Offsets within the intervals have mean 1/2 and variance 1/12, and the order is uncorrelated with the index."""
    t = stratified_times(20_000, torch.Generator().manual_seed(0)).double()
    offset = (t * 20_000) % 1
    assert offset.mean().item() == pytest.approx(0.5, abs=5 * math.sqrt(1 / 12 / 20_000))
    assert offset.var().item() == pytest.approx(1 / 12, rel=0.05)
    index = torch.arange(20_000, dtype=torch.float64)
    assert abs(torch.corrcoef(torch.stack([t, index]))[0, 1].item()) < 5 / math.sqrt(20_000)
    assert abs(torch.corrcoef(torch.stack([t, offset]))[0, 1].item()) < 5 / math.sqrt(20_000)
