"""Stochastic sampling, spacing of steps, errors of steps, and sampling at other resolutions."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import pcfm
from constraints import Axis, Grid, Mass
from pcfm.configuration import read_experiment
from pcfm.discretisation import discretisation_error, repeated
from pcfm.experiment import fit
from pcfm.methods import SOLVERS, time_grid
from pcfm.networks import FourierOperator
from pcfm.path import AffinePath
from pcfm.samplers import Euler, Heun, StochasticFlow
from pcfm.samplers.stochastic import STRENGTHS
from pcfm.samplers.times import TIMES
from pcfm.schedule import Cosine, Linear, VariancePreserving
from pcfm.shelf import load, on_points
from pcfm.source import SmoothNoise, Source, WhiteNoise
from pcfm.velocity import GaussianFlow, NetworkVelocity
from pde_datasets import Fields
from tests.commands import Call
from tests.oracles import Gaussian, GaussianOracle, pushed
from tests.oracles_gmm import Mixture, MixtureOracle


def normal(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def uniform(steps: int) -> Tensor:
    return torch.linspace(0, 1, steps + 1, dtype=torch.float64)


TARGET = Gaussian(torch.tensor([0.5, -1.0], dtype=torch.float64), torch.tensor([[0.5, 0.2], [0.2, 0.3]], dtype=torch.float64))

# --- marginals ---------------------------------------------------------------------------------------------------------------------


def spread_error(steps: int, schedule: Linear | Cosine, **options: object) -> float:
    """How far the distribution of samples is from the target, without the noise of sampling."""
    path = AffinePath(schedule)
    kicks = (steps - 1) if options.get("eta", 1.0) else 0
    made = pushed(
        lambda noise: StochasticFlow(GaussianOracle(TARGET, path), path, noise, **options),
        2,
        uniform(steps),
        draws=kicks,  # type: ignore[arg-type]
    )
    return max((made.mean - TARGET.mean).abs().max().item(), (made.covariance - TARGET.covariance).abs().max().item())


@pytest.mark.parametrize("strength", STRENGTHS)
def test_any_strength_has_the_marginals_of_the_flow(strength: str) -> None:
    """Mean and covariance of the samples are exact functions of the steps: they converge, and at once with the second rule."""
    for rule, steps, gate in (("euler", 200, 0.02), ("heun", 60, 0.02)):
        for eta in (0.3, 1.0):
            assert spread_error(steps, Cosine(), strength=strength, rule=rule, eta=eta) < gate, (rule, eta)


@pytest.mark.parametrize(("rule", "order"), [("euler", 1.0), ("heun", 2.0)])
def test_weak_order(rule: str, order: float) -> None:
    errors = [spread_error(steps, Cosine(), rule=rule, strength="sigma", eta=0.5) for steps in (40, 80)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.35)


def test_without_the_drift_of_the_score_the_marginals_are_wrong() -> None:
    path = AffinePath()
    made = pushed(lambda noise: Driftless(GaussianOracle(TARGET, path), path, noise, strength="constant"), 2, uniform(100), draws=99)
    assert (made.covariance - TARGET.covariance).abs().max() > 0.1


BIMODAL = Mixture(
    torch.tensor([0.3, 0.7], dtype=torch.float64),
    torch.tensor([[-2.0, 0.0], [2.0, 1.0]], dtype=torch.float64),
    0.2 * torch.eye(2, dtype=torch.float64).expand(2, 2, 2),
)


class Driftless(StochasticFlow):
    """Noise without the score that makes up for it."""

    def drift(self, x: Tensor, t: Tensor, h: Tensor) -> Tensor:
        return self.velocity(x, t)


def bimodal(kind: type[StochasticFlow], count: int, steps: int, **options: object) -> tuple[float, float, float]:
    """Errors of the mean, of the covariance and of the share of a mode."""
    path, seeds = AffinePath(), iter(range(100, 10_000))
    sampler = kind(MixtureOracle(BIMODAL, path), path, lambda: normal((count, 1, 2), next(seeds)), **options)  # type: ignore[arg-type]
    x1 = sampler(normal((count, 1, 2), 0), uniform(steps))
    mean = BIMODAL.weights @ BIMODAL.means
    covariance = 0.2 * torch.eye(2, dtype=torch.float64) + (BIMODAL.means - mean).T @ (BIMODAL.weights[:, None] * (BIMODAL.means - mean))
    share = BIMODAL.responsibilities(x1)[:, 0].mean().item()
    return (x1[:, 0].mean(0) - mean).abs().max().item(), (x1[:, 0].T.cov() - covariance).abs().max().item(), abs(share - 0.3)


def test_modes_of_a_mixture_keep_their_share() -> None:
    mean, _, share = bimodal(StochasticFlow, 10_000, 120)
    assert mean < 0.06
    assert share < 0.015


@pytest.mark.slow
@pytest.mark.parametrize("strength", [None, *STRENGTHS])
def test_any_strength_keeps_a_mixture(strength: str | None) -> None:
    """20,000 samples by 400 steps; the flow itself, without noise, among them."""
    mean, covariance, share = bimodal(StochasticFlow, 20_000, 400, **({"eta": 0.0} if strength is None else {"strength": strength}))
    assert mean <= 0.03
    assert covariance <= 0.06
    assert share <= 0.015


@pytest.mark.slow
def test_a_mixture_without_the_drift_of_the_score_is_lost() -> None:
    assert bimodal(Driftless, 20_000, 400, strength="constant")[1] > 0.5


def test_noise_of_the_source_keeps_its_covariance() -> None:
    """From smooth noise to smooth fields: every kick is a draw of the source, and the covariance is that of the flow."""
    source = SmoothNoise(Grid(Axis("x", 6, periodic=True)), 1, length=0.2)
    flow, path = GaussianFlow(0.0, 0.5), AffinePath()

    def coloured(noise: object) -> object:
        return StochasticFlow(flow, path, lambda: source.colour(noise()))  # type: ignore[operator]

    class Coloured:
        def __init__(self, inner: StochasticFlow) -> None:
            self.inner = inner

        def __call__(self, x0: Tensor, times: Tensor) -> Tensor:
            return self.inner(source.colour(x0), times)

    made = pushed(lambda noise: Coloured(coloured(noise)), 6, uniform(200), draws=199)  # type: ignore[arg-type]
    exact = 0.25 * source.covariance(torch.eye(6, dtype=torch.float64)[:, None])[:, 0]
    assert (made.covariance - exact).abs().max() < 0.02


def test_without_noise_it_is_the_flow_and_with_it_ends_do_not_determine_each_other() -> None:
    flow, path, x0 = GaussianFlow(0.5, 0.4, AffinePath(Cosine())), AffinePath(Cosine()), normal((8, 1, 3), 1)

    def never() -> Tensor:
        raise AssertionError

    assert torch.equal(StochasticFlow(flow, path, never, eta=0.0)(x0, uniform(9)), Euler(flow)(x0, uniform(9)))
    seeds = iter(range(50))
    same = x0[:1].expand(4000, 1, 3)
    spread = StochasticFlow(flow, path, lambda: normal((4000, 1, 3), next(seeds)))(same, uniform(20)).std(0)
    assert (spread > 0.05).all()
    grid = Grid(Axis("x", 3))
    made = [pcfm.sample(pcfm.wrap(Module(flow), grid=grid, path="cosine"), 3, method="sde", steps=5, seed=seed) for seed in (0, 0, 1)]
    assert torch.equal(made[0].u, made[1].u)
    assert not torch.equal(made[0].u, made[2].u)
    assert made[0].noise_draws == 4
    assert made[0].network_calls == 5


class Module(nn.Module):
    """A function as a network."""

    def __init__(self, function: object) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.function(x, t)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"strength": "loud"}, "strength among"), ({"rule": "rk4"}, "rule among"), ({"end": "x"}, "end among"), ({"eta": -1.0}, "eta")],
)
def test_options_out_of_range_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StochasticFlow(GaussianFlow(0.0, 1.0), AffinePath(), lambda: torch.zeros(1), **options)  # type: ignore[arg-type]


# --- steps -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TIMES)
def test_times_increase_from_0_to_1(name: str) -> None:
    times = time_grid(name, 12)
    assert times[0] == 0
    assert times[-1] == 1
    assert len(times) == 13
    assert (times.diff() > 0).all()


def test_levels_are_those_of_diffusion_models() -> None:
    """t = 1/(1 + level), and the levels of Karras et al. for 18 steps, up to the last."""
    times = time_grid("levels:most=80,least=0.002,rho=7", 19)
    assert times[1].item() == pytest.approx(1 / 81, abs=1e-12)
    assert times[-2].item() == pytest.approx(1 / 1.002, abs=1e-12)
    levels = 1 / times[1:-1] - 1
    i = torch.arange(18, dtype=torch.float64)
    assert torch.allclose(levels, (80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7, rtol=1e-10)
    assert (time_grid("shifted:factor=3", 4) - torch.tensor([0.0, 0.1, 0.25, 0.5, 1.0], dtype=torch.float64)).abs().max() < 1e-12


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("unifrom", "Did you mean 'uniform'"),
        ("shifted:factor=0", "positive factor"),
        ("levels:least=90", "least < most"),
        ("power:factor=2", "no option 'factor'"),
        ("cosine:", None),
    ],
)
def test_rules_of_times_are_named(text: str, message: str | None) -> None:
    if message is None:
        time_grid(text, 5)
        return
    with pytest.raises(ValueError, match=message):
        time_grid(text, 5)
    with pytest.raises(ValueError, match="at least 3 steps"):
        time_grid("levels", 2)


CALLS = {"euler": 1, "midpoint": 2, "heun": 2, "heun3": 3, "rk4": 4, "ab2": 1, "exponential": 1}


class Still(nn.Module):
    """A network that counts what it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.flow = GaussianFlow(0.0, 0.5)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.asked += 1
        return self.flow(x, t)


@pytest.mark.parametrize("solver", SOLVERS)
def test_network_calls_are_counted_exactly(solver: str) -> None:
    network = Still()
    samples = pcfm.sample(pcfm.wrap(network, grid=Grid(Axis("x", 4))), 3, solver=solver, steps=6, batch=2)
    assert samples.network_calls == network.asked
    if solver in CALLS:
        assert samples.network_calls == 2 * 6 * CALLS[solver]


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2), ("rk4", 4)])
def test_the_error_of_the_steps_is_estimated(solver: str, order: int) -> None:
    """Within a fifth of the true error, which is known; half of the steps make it larger by the order."""
    path = AffinePath(Cosine())
    exact = GaussianFlow(1.0, 0.4, path)
    flow = pcfm.wrap(Module(exact), grid=Grid(Axis("x", 16)), path="cosine")
    settings = {"solver": solver, "steps": 12, "seed": 3}
    drawn = pcfm.sample(flow, 4, **settings)  # type: ignore[arg-type]
    error = discretisation_error(flow, drawn, 3, **settings)
    assert error is not None
    fine = pcfm.sample(flow, 4, solver="rk4", steps=400, seed=3)
    true = (drawn.u[:3] - fine.u[:3]).square().mean().sqrt().item()
    assert error.relative == pytest.approx(true, rel=0.2)
    assert error.order == order
    assert error.samples == 3
    assert error.channels[0] == pytest.approx(error.relative)
    assert error.network_calls == 24 * CALLS[solver]


def test_where_the_error_of_the_steps_is_not_known_it_is_not_told() -> None:
    flow = pcfm.wrap(Module(GaussianFlow(0.0, 0.5)), grid=Grid(Axis("x", 8, periodic=True)))
    for settings in ({"method": "sde"}, {"solver": "dopri5"}):
        drawn = pcfm.sample(flow, 2, steps=4, **settings)  # type: ignore[arg-type]
        assert discretisation_error(flow, drawn, 1, steps=4, **settings) is None
    law = Mass(Grid(Axis("x", 8, periodic=True)), torch.tensor([0.1, 0.2]))
    error = discretisation_error(flow, pcfm.sample(flow, 2, law=law, steps=6), 1, law=law, steps=6)
    assert error is not None
    assert error.order == 1
    with pytest.raises(ValueError, match="1 to 2 samples"):
        discretisation_error(flow, pcfm.sample(flow, 2, steps=4), 3, steps=4)
    assert [repeated(count) for count in (1, 15, 16, 64, 1000)] == [0, 0, 1, 4, 4]


# --- resolution --------------------------------------------------------------------------------------------------------------------

TAU = 2 * math.pi


def square(points: int, length: float = TAU) -> Grid:
    return Grid(Axis("x", points, length=length, periodic=True), Axis("y", points, length=length, periodic=True))


def streams(count: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(i) for i in range(count)]


def coefficients(u: Tensor, most: int) -> Tensor:
    """Fourier coefficients up to a wavenumber along each axis."""
    modes = torch.arange(-most, most + 1)
    spectrum = torch.fft.fft2(u, norm="forward")
    return spectrum[..., modes % u.shape[-2], :][..., modes % u.shape[-1]]


@pytest.mark.parametrize("kind", [SmoothNoise, WhiteNoise])
@pytest.mark.parametrize("points", [24, 12, 15])
def test_sources_draw_the_same_functions_on_other_grids(kind: type[Source], points: int) -> None:
    source = kind(square(16), 2)
    other = source.on(square(points))
    coarse, fine = source.sample(streams(3), torch.float64), other.sample(streams(3), torch.float64)
    assert fine.shape == (3, 2, points, points)
    most = (min(16, points) - 1) // 2
    a, b = coefficients(coarse, most), coefficients(fine, most)
    if kind is WhiteNoise:
        a, b = a * 16, b * points
    assert (a - b).abs().max() < 1e-12
    assert (
        coefficients(source.on(square(20)).on(square(points)).sample(streams(3), torch.float64), most) - coefficients(fine, most)
    ).abs().max() < 1e-12


def test_power_of_every_mode_is_stated_at_any_resolution() -> None:
    r"""$\mathrm E|c_k|^2 = \lambda_k/\sum_k\lambda_k$, the sum over the grid of unit variance, to 5 standard errors of 4000 draws."""
    line = Grid(Axis("x", 32, length=1.0, periodic=True))
    source = SmoothNoise(line, 1, length=0.1)
    k = torch.fft.fftfreq(32, 1 / 32, dtype=torch.float64)
    total = (1 + (0.1 * TAU * k) ** 2).pow(-2).sum()
    for points in (32, 128):
        grid = Grid(Axis("x", points, length=1.0, periodic=True))
        made = torch.fft.fft(source.on(grid).sample(streams(4000), torch.float64)[:, 0], norm="forward").abs().square().mean(0)
        modes = torch.arange(1, points // 2)
        stated = (1 + (0.1 * TAU * modes.double()) ** 2).pow(-2) / total
        assert (made[modes] / stated - 1).abs().max() < 5 / math.sqrt(4000)


def test_a_spectral_velocity_samples_the_same_fields_at_twice_the_resolution() -> None:
    """With the oracle of a Gaussian process, mode by mode, spectra agree up to the trained wavenumber; from white noise they lose."""

    class Oracle(nn.Module):
        """Between smooth noise and N(0, S) with a steeper spectrum, exact in each mode."""

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            k = torch.fft.fftfreq(x.shape[-1], 1 / x.shape[-1], dtype=torch.float64)
            ratio = 1 / (1 + (k[:, None] ** 2 + k[None, :] ** 2) / 9)  # data over noise, variance of each mode
            time = t.reshape(-1, *(1,) * (x.ndim - 1))
            gain = (time * ratio - (1 - time)) / (time**2 * ratio + (1 - time) ** 2)
            return torch.fft.ifft2(torch.fft.fft2(x) * gain).real

    source = SmoothNoise(square(32), 1)
    fields = {
        n: pcfm.sample(pcfm.wrap(Oracle(), grid=square(n), source=source.on(square(n))), 4, solver="rk4", steps=20).u for n in (32, 64)
    }
    low = [coefficients(fields[n], 15) for n in (32, 64)]
    assert (low[0] - low[1]).abs().max() < 1e-10
    white = pcfm.sample(pcfm.wrap(Oracle(), grid=square(64), source=WhiteNoise(square(64), 1)), 16, solver="rk4", steps=20).u
    coarse = pcfm.sample(pcfm.wrap(Oracle(), grid=square(32), source=WhiteNoise(square(32), 1)), 16, solver="rk4", steps=20).u
    power = [coefficients(u, 6).abs().square().mean() for u in (coarse, white)]
    assert power[1] / power[0] == pytest.approx(0.25, rel=0.15), "white noise has less and less power in each mode"


def test_a_fourier_operator_agrees_with_itself_on_band_limited_fields() -> None:
    """At 64 x 64 as at 32 x 32, but for what its nonlinearity aliases, which falls with the resolution; a perceptron does not run."""
    torch.manual_seed(0)
    nets = {n: FourierOperator(square(n), 1, modes=6, width=8, depth=2).double() for n in (32, 64, 128)}
    for parameter in nets[32].parameters():
        nn.init.normal_(parameter, std=0.15)
    spectrum = torch.zeros(2, 1, 32, 32, dtype=torch.complex128)
    modes = torch.arange(-4, 5)
    spectrum[..., modes[:, None] % 32, modes[None, :] % 32] = torch.complex(normal((2, 1, 9, 9), 4), normal((2, 1, 9, 9), 5))
    t, out = torch.tensor([0.3, 0.8], dtype=torch.float64), {}
    for n, net in nets.items():
        net.load_state_dict(nets[32].state_dict())
        padded = torch.zeros(2, 1, n, n, dtype=torch.complex128)
        padded[..., modes[:, None] % n, modes[None, :] % n] = spectrum[..., modes[:, None] % 32, modes[None, :] % 32]
        out[n] = NetworkVelocity(net, "x,t")(torch.fft.ifft2(padded, norm="forward").real, t)
    size = out[128].abs().max()
    gaps = [((out[n] - out[128][..., :: 128 // n, :: 128 // n]).abs().max() / size).item() for n in (32, 64)]
    assert gaps[0] < 2e-2
    assert gaps[1] < 0.3 * gaps[0] + 1e-12


def trained(folder: Path, overrides: list[str], fields: Fields) -> Path:
    folder.mkdir()
    fit(fields, read_experiment(None, ["network.modes=4", "network.width=8", "network.depth=1", *overrides]), folder)
    return folder


def plane_fields(points: int, count: int = 12) -> Fields:
    source = SmoothNoise(square(points), 1, length=0.1)
    return Fields(source.sample(streams(count)), square(points), ("u",), ("1",))


def test_a_model_is_sampled_at_another_resolution(tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    short = ["training.steps=4", "training.batch=4"]
    folder = trained(tmp_path / "run", short, plane_fields(16))
    own, fine = load(folder), load(folder, points={"x": 32, "y": 32})
    u, v = pcfm.sample(own, 2, steps=4).u, pcfm.sample(fine, 2, steps=4, law=Mass(fine.grid, 0.5)).u
    assert v.shape == (2, 1, 32, 32)
    assert (fine.source.sample(streams(1)) - own.source.sample(streams(1)).repeat_interleave(2, 2).repeat_interleave(2, 3)).std() < 1.0
    free = pcfm.sample(fine, 2, steps=4).u
    assert (coefficients(free, 3) - coefficients(u, 3)).abs().max() < 0.05 * coefficients(u, 3).abs().max()
    ran = call("sample run --count 2 --steps 3 --points 32 --law mass:value=0.5 --out a.h5 --json --estimate 1")
    assert ran.status == 0
    assert ran.json()["discretisation_error"]["samples"] == 1
    assert call("sample run --count 2 --steps 3 --points x=24 --out b.h5 --quiet --estimate 0").status == 0
    for arguments, message in (
        ("--points 33.5", "expects a number"),
        ("--points z=32", "unknown axis 'z'"),
        ("--points 6", "modes"),
        ("--spacing unifrom", "Did you mean 'uniform'"),
        ("--estimate 9", "0 to 2 samples"),
    ):
        refused = call(f"sample run --count 2 --steps 3 --out c.h5 {arguments}")
        assert refused.status == 2
        assert message in refused.err
    with pytest.raises(ValueError, match="periodic axis"):
        on_points(Grid(Axis("x", 8)), {"x": 16})
    other = trained(tmp_path / "dense", [*short, "network.modes=8"], plane_fields(16))
    with pytest.raises(ValueError, match="at most half"):
        load(other, points={"x": 12, "y": 12})


@pytest.mark.slow
def test_a_model_of_smooth_noise_keeps_its_spectrum_at_other_resolutions(tmp_path: Path) -> None:
    """Trained at 64 points on a Gaussian process: power of the modes 0 to 6 within 15 % at 64, 128 and 256; from white noise it is lost."""
    line = Grid(Axis("x", 64, length=1.0, periodic=True))
    data = SmoothNoise(line, 1, length=0.1, smoothness=1.5)
    fields = Fields(data.sample(streams(4096)), line, ("u",), ("1",))
    network = ["network.modes=16", "network.width=24", "network.depth=3"]
    training = ["training.steps=1000", "training.batch=64", "training.learning_rate=2e-3", "training.validation=0.01"]
    exact = torch.fft.fft(fields.u[:, 0], norm="forward").abs().square().mean(0)[:7]
    ratios = {}
    for kind in ("smooth", "white"):
        folder = tmp_path / kind
        folder.mkdir()
        source = ["source.kind=white"] if kind == "white" else ["source.length=0.1", "source.smoothness=0.5"]
        fit(fields, read_experiment(None, [*network, *training, *source]), folder)
        for points in (64, 128, 256):
            flow = load(folder, points={"x": points})
            made = pcfm.sample(flow, 512, steps=20, solver="heun", batch=128, dtype=torch.float32).u[:, 0]
            ratios[kind, points] = torch.fft.fft(made, norm="forward").abs().square().mean(0)[:7] / exact
    for points in (64, 128, 256):
        assert (ratios["smooth", points] - 1).abs().max() < 0.15, ratios
    assert ratios["white", 128].mean() < 0.65
    assert ratios["white", 256].mean() < 0.35


def test_variance_preserving_paths_sample_stochastically_from_unit_noise() -> None:
    path, seeds = AffinePath(VariancePreserving()), iter(range(200, 1000))
    flow = GaussianFlow(0.0, 0.6, path)
    sampler = StochasticFlow(flow, path, lambda: normal((4000, 1, 2), next(seeds)), strength="path")
    assert sampler(normal((4000, 1, 2), 6), uniform(100)).std().item() == pytest.approx(0.6, rel=0.04)
    assert Heun(flow)(normal((4000, 1, 2), 7), uniform(100)).std().item() == pytest.approx(0.6, rel=0.04)
