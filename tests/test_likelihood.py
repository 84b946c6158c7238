"""Densities of flows that are known in closed form, and estimators of the divergence against their stated variances."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from constraints import Axis, Grid, Units
from pcfm.configuration import read_experiment
from pcfm.experiment import fit
from pcfm.likelihood import (
    Exact,
    Hutchinson,
    HutchPlusPlus,
    bits_per_dimension,
    log_likelihood,
    physical,
    sample_likelihood,
)
from pcfm.path import AffinePath
from pcfm.schedule import Cosine, Linear, Polynomial, Schedule, VarianceExploding, VariancePreserving
from pcfm.source import SmoothNoise, Source, WhiteNoise
from pcfm.velocity import GaussianFlow
from pde_datasets import Fields, store
from tests.commands import Call
from tests.oracles import Gaussian, GaussianOracle
from tests.oracles_gmm import Mixture, MixtureOracle

COVARIANCE = torch.tensor([[0.5, 0.2, 0.0, 0.1], [0.2, 0.4, -0.1, 0.0], [0.0, -0.1, 0.8, 0.2], [0.1, 0.0, 0.2, 0.3]], dtype=torch.float64)
TARGET = Gaussian(torch.tensor([0.5, -1.0, 0.2, 0.0], dtype=torch.float64), COVARIANCE)
LAW = torch.distributions.MultivariateNormal(TARGET.mean, COVARIANCE)
FOUR = WhiteNoise(Grid(Axis("x", 4)), 1)


def normal(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def draws(count: int, seed: int) -> Tensor:
    """Of the target, (count, 1, 4)."""
    return TARGET.mean + normal((count, 1, 4), seed) @ _root(COVARIANCE)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("solver", "steps"), [("dopri5", 1), ("rk4", 100)])
def test_densities_of_a_gaussian_flow(solver: str, steps: int) -> None:
    """To 1e-6, whatever the shape of the fields; by Euler's rule they are a tenth of a nat off, which is why it is not the default."""
    x1 = draws(6, 30)
    flow = GaussianOracle(TARGET)
    found = log_likelihood(flow, AffinePath(), FOUR, x1, solver=solver, steps=steps, tolerance=1e-8)
    assert (found.log_density - LAW.log_prob(x1[:, 0])).abs().max() < 1e-6
    assert found.network_calls == flow.calls
    assert not found.standard_error.any()
    exact = (x1 - TARGET.mean) @ torch.linalg.inv(_root(COVARIANCE))
    assert (found.x0 - exact).abs().max() < 1e-6

    def square(x: Tensor, t: Tensor) -> Tensor:
        return flow(x.reshape(-1, 1, 4), t).reshape(x.shape)

    plane = WhiteNoise(Grid(Axis("x", 2), Axis("y", 2)), 1)
    again = log_likelihood(square, AffinePath(), plane, x1.reshape(-1, 1, 2, 2), solver=solver, steps=steps, tolerance=1e-8)
    assert (again.log_density - found.log_density).abs().max() < 1e-10
    euler = log_likelihood(flow, AffinePath(), FOUR, x1, solver="euler", steps=20)
    assert (euler.log_density - LAW.log_prob(x1[:, 0])).abs().max() > 0.1


def _root(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.sqrt()) @ vectors.T


@pytest.mark.parametrize("schedule", [Linear(), Cosine(), Polynomial(2.0)], ids=lambda s: type(s).__name__)
def test_the_density_does_not_depend_on_the_path(schedule: Schedule) -> None:
    x1 = draws(4, 31)
    found = log_likelihood(GaussianOracle(TARGET, AffinePath(schedule)), AffinePath(schedule), FOUR, x1, tolerance=1e-9)
    assert (found.log_density - LAW.log_prob(x1[:, 0])).abs().max() < 1e-6


@pytest.mark.parametrize("schedule", [VariancePreserving(), VarianceExploding(0.01, 100.0)], ids=lambda s: type(s).__name__)
def test_paths_with_noise_at_the_data_give_the_density_under_it(schedule: Schedule) -> None:
    """And from noise whose scale is the path's; what is left of the data there costs a little."""
    path, end = AffinePath(schedule), torch.tensor(1.0, dtype=torch.float64)
    signal, noise = schedule(end)[:2]
    law = torch.distributions.MultivariateNormal(
        signal * TARGET.mean, signal**2 * COVARIANCE + noise**2 * torch.eye(4, dtype=torch.float64)
    )
    x1 = law.loc + normal((4, 1, 4), 32) @ _root(law.covariance_matrix)
    found = log_likelihood(GaussianOracle(TARGET, path), path, FOUR, x1, tolerance=1e-9)
    assert (found.log_density - law.log_prob(x1[:, 0])).abs().max() < 0.1
    unscaled = FOUR.log_density(found.x0)
    if path.start(end) > 2:
        assert (FOUR.log_density(found.x0 / path.start(end)) - unscaled).abs().max() > 0.1


def test_forward_and_inverse_agree() -> None:
    x0, flow = normal((5, 1, 4), 0), GaussianOracle(TARGET)
    made = sample_likelihood(flow, AffinePath(), FOUR, x0, tolerance=1e-9)
    assert (made.x0 - flow.transport(x0)).abs().max() < 1e-6
    assert (made.log_density - LAW.log_prob(made.x0[:, 0])).abs().max() < 1e-6
    back = log_likelihood(flow, AffinePath(), FOUR, made.x0, tolerance=1e-9)
    assert (back.x0 - x0).abs().max() < 1e-6
    assert (back.log_density - made.log_density).abs().max() < 1e-6


MIXTURE = Mixture(
    torch.tensor([0.3, 0.7], dtype=torch.float64),
    torch.tensor([[-1.0, 0.5], [1.2, 0.0]], dtype=torch.float64),
    torch.tensor([[[0.3, 0.1], [0.1, 0.2]], [[0.1, 0.0], [0.0, 0.4]]], dtype=torch.float64),
)


def test_densities_of_a_mixture_and_their_integral() -> None:
    law = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(MIXTURE.weights), torch.distributions.MultivariateNormal(MIXTURE.means, MIXTURE.covariances)
    )
    line = torch.linspace(-4.5, 4.5, 37, dtype=torch.float64)
    points = torch.cartesian_prod(line, line)[:, None]
    path = AffinePath()
    oracle = MixtureOracle(MIXTURE, path)

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        return oracle(x, t.clamp_max(1 - 1e-7))

    found = log_likelihood(velocity, path, WhiteNoise(Grid(Axis("x", 2)), 1), points, tolerance=1e-7)
    exact = law.log_prob(points[:, 0])
    likely = exact > -15
    assert (found.log_density - exact)[likely].abs().max() < 1e-4
    assert found.log_density.exp().sum().item() * 0.25**2 == pytest.approx(1, abs=0.01)


def test_a_mixture_and_back() -> None:
    """Noise to fields and fields to noise, by the default rule: to 1e-4 at a tolerance of 1e-7, and not at 1e-3."""
    x0, source, oracle = normal((64, 1, 2), 3), WhiteNoise(Grid(Axis("x", 2)), 1), MixtureOracle(MIXTURE)

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        return oracle(x, t.clamp_max(1 - 1e-7))

    lost = []
    for tolerance in (1e-7, 1e-3):
        made = sample_likelihood(velocity, AffinePath(), source, x0, tolerance=tolerance)
        back = log_likelihood(velocity, AffinePath(), source, made.x0, tolerance=tolerance)
        lost.append((back.x0 - x0).abs().max())
    assert lost[0] <= 1e-4 < lost[1]


# --- sources -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "grid",
    [
        Grid(Axis("x", 8, periodic=True)),
        Grid(Axis("x", 4, periodic=True), Axis("y", 5, periodic=True)),
        Grid(Axis("time", 4), Axis("x", 6, periodic=True)),
        Grid(Axis("x", 7)),
    ],
    ids=str,
)
def test_densities_of_sources_are_those_of_their_covariance(grid: Grid) -> None:
    source: Source = SmoothNoise(grid, 2, length=0.2)
    size = math.prod(grid.shape)
    impulses = torch.zeros(size, 2, size, dtype=torch.float64)
    impulses[:, 0] = torch.eye(size)
    factor = source.colour(impulses.reshape(size, 2, *grid.shape))[:, 0].reshape(size, size)
    law = torch.distributions.MultivariateNormal(torch.zeros(size, dtype=torch.float64), factor @ factor.T)
    x = source.colour(normal((3, 2, *grid.shape), 1))
    expected = law.log_prob(x.flatten(2)).sum(1)
    assert torch.allclose(source.log_density(x), expected, rtol=1e-9)
    assert torch.allclose(source.colour(source.whiten(x)), x, atol=1e-10)


def test_a_flow_from_smooth_noise_has_the_density_of_scaled_smooth_noise() -> None:
    r"""$v = \dot c/c\,x$ scales noise by 1/2: the density is that of the source at 2x, times $2^n$."""
    grid = Grid(Axis("x", 6, periodic=True))
    source = SmoothNoise(grid, 1, length=0.2)
    x1 = 0.5 * source.colour(normal((3, 1, 6), 2))
    found = log_likelihood(lambda x, t: math.log(0.5) * x, AffinePath(), source, x1, tolerance=1e-9)
    assert torch.allclose(found.log_density, source.log_density(2 * x1) + 6 * math.log(2), rtol=1e-7)


# --- estimators --------------------------------------------------------------------------------------------------------------------


class Linear_(nn.Module):
    """A x on fields (B, 1, n)."""

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.matrix = nn.Parameter(matrix)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return x @ self.matrix.T


def estimates(divergence: Hutchinson | HutchPlusPlus | Exact, matrix: Tensor, count: int, seed: int) -> Tensor:
    """Independent estimates of the trace of a matrix, each by its own probes."""
    x = torch.zeros(count, 1, len(matrix), dtype=torch.float64).requires_grad_()
    return divergence(x, x @ matrix.T, divergence.draw(x, generator(seed)), False)


@pytest.mark.parametrize("kind", ["rademacher", "gaussian"])
def test_hutchinson_is_unbiased_with_the_stated_variance(kind: str) -> None:
    matrix = normal((12, 12), 3)
    found = estimates(Hutchinson(1, kind), matrix, 20_000, 4)[:, 0]
    symmetric = (matrix + matrix.T) / 2
    variance = 2 * symmetric.square().sum() - (2 * symmetric.diagonal().square().sum() if kind == "rademacher" else 0)
    assert found.mean().item() == pytest.approx(matrix.trace().item(), abs=4 * math.sqrt(variance / 20_000))
    assert found.var().item() == pytest.approx(variance.item(), rel=0.05)
    eight = estimates(Hutchinson(8, kind), matrix, 5_000, 5).mean(1)
    assert found.std() / eight.std() == pytest.approx(math.sqrt(8), rel=0.1)


def test_hutch_plus_plus_is_exact_on_low_rank_and_far_better_next_to_it() -> None:
    low = normal((40, 8), 6) @ normal((8, 40), 7)
    assert (estimates(HutchPlusPlus(30), low, 50, 8)[:, 0] - low.trace()).abs().max() < 1e-9 * low.norm()
    near = low + 0.05 * normal((40, 40), 9)
    errors = [(estimates(d, near, 2_000, 10).mean(1) - near.trace()) for d in (HutchPlusPlus(30), Hutchinson(30))]
    assert errors[0].square().mean().sqrt() < 0.25 * errors[1].square().mean().sqrt()
    assert abs(errors[0].mean().item()) < 4 * errors[0].std().item() / math.sqrt(2_000)
    few = [(estimates(d, near, 1_000, 11).mean(1) - near.trace()).square().mean().sqrt() for d in (HutchPlusPlus(9), Hutchinson(9))]
    assert few[0] > 0.4 * few[1], "below the rank it does not pay"


def test_likelihoods_by_probes_are_unbiased_and_know_their_error() -> None:
    x1, flow = draws(1, 33).expand(400, 1, 4).contiguous(), GaussianOracle(TARGET)
    exact = LAW.log_prob(x1[:, 0])
    spread = {}
    for probes in (1, 8):
        found = log_likelihood(flow, AffinePath(), FOUR, x1, divergence=Hutchinson(probes), solver="rk4", steps=20, generator=generator(12))
        error = found.log_density - exact
        assert abs(error.mean().item()) < 4 * error.std().item() / 20
        if probes == 1:
            assert found.standard_error.isnan().all()
        else:
            assert found.standard_error.mean().item() == pytest.approx(error.std().item(), rel=0.2)
        spread[probes] = error.std().item()
    assert spread[1] / spread[8] == pytest.approx(math.sqrt(8), rel=0.25)


def test_probes_are_held_along_a_trajectory_and_drawn_from_the_generator() -> None:
    seen: list[Tensor] = []

    class Watched(Hutchinson):
        def __call__(self, x: Tensor, v: Tensor, probes: Tensor, differentiable: bool) -> Tensor:
            seen.append(probes)
            return super().__call__(x, v, probes, differentiable)

    x1, flow = draws(3, 34), GaussianOracle(TARGET)
    first, again, other = (
        log_likelihood(flow, AffinePath(), FOUR, x1, divergence=Watched(2), solver="rk4", steps=5, generator=generator(seed)).log_density
        for seed in (13, 13, 14)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert all(torch.equal(probe, seen[0]) for probe in seen[: len(seen) // 3])


def test_gradients_with_respect_to_parameters() -> None:
    matrix, x1 = 0.3 * normal((3, 3), 15), normal((2, 1, 3), 16)
    source = WhiteNoise(Grid(Axis("x", 3)), 1)

    def value(matrix: Tensor, differentiable: bool = False) -> tuple[Linear_, Tensor]:
        flow = Linear_(matrix)
        return flow, log_likelihood(flow, AffinePath(), source, x1, solver="rk4", steps=20, differentiable=differentiable).log_density.sum()

    flow, density = value(matrix, differentiable=True)
    (gradient,) = torch.autograd.grad(density, flow.matrix)
    for i, j in ((0, 0), (1, 2)):
        step = torch.zeros_like(matrix)
        step[i, j] = 1e-5
        difference = (value(matrix + step)[1] - value(matrix - step)[1]) / 2e-5
        assert gradient[i, j].item() == pytest.approx(difference.item(), rel=1e-4)
    assert not value(matrix)[1].requires_grad


def test_units_and_bits() -> None:
    """In physical units a field is rarer by its scale; uniform data of 8 bits take 8 bits."""
    flow, x1 = GaussianFlow(0.0, 1.0), normal((3, 2, 4), 17)
    found = log_likelihood(flow, AffinePath(), WhiteNoise(Grid(Axis("x", 4)), 2), x1, tolerance=1e-9)
    units = Units(torch.tensor([1.0, -1.0]), torch.tensor([2.0, 0.5]))
    u = units.physical(x1)
    law = torch.distributions.Normal(units.shift.double()[:, None], units.scale.double()[:, None])
    assert torch.allclose(physical(found.log_density, units, 4), law.log_prob(u).sum((1, 2)), rtol=1e-6)
    assert bits_per_dimension(torch.zeros(2), 10, levels=256).tolist() == [8.0, 8.0]
    assert bits_per_dimension(torch.full((1,), -10 * math.log(2)), 10).item() == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Hutchinson(0), "at least one probe"),
        (lambda: Hutchinson(1, "uniform"), "rademacher or gaussian"),
        (lambda: HutchPlusPlus(2), "at least 3"),
        (lambda: log_likelihood(GaussianFlow(0.0, 1.0), AffinePath(), FOUR, normal((1, 1, 4), 18), solver="dopri"), "Did you mean 'dopri"),
        (lambda: SmoothNoise(Grid(Axis("x", 60)), 1, length=5.0, smoothness=2.5), "singular"),
        (lambda: SmoothNoise(Grid(Axis("x", 32, periodic=True)), 1, length=1e4), "singular"),
        (lambda: SmoothNoise(Grid(Axis("x", 32, periodic=True)), 1, length=math.inf), "singular"),
        (lambda: SmoothNoise(Grid(Axis("x", 8, periodic=True), Axis("y", 8, periodic=True)), 1, length=1e4), "singular"),
    ],
)
def test_settings_without_a_meaning_are_refused(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()  # type: ignore[operator]


@pytest.mark.parametrize("density", [log_likelihood, sample_likelihood])
@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 1, 5), (2, 4), (2, 1, 4, 4)])
def test_fields_of_another_space_than_the_source_have_no_density(density: Callable[..., object], shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=re.escape(f"(B, 1, 4); got {shape}")):
        density(GaussianFlow(0.0, 1.0), AffinePath(), FOUR, normal(shape, 19))


def test_likelihood_of_a_model_on_the_command_line(tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a network that does not move anything: the density of the noise itself, in its units."""
    monkeypatch.chdir(tmp_path)
    line = Grid(Axis("x", 8, periodic=True))
    fields = Fields((1 + 0.5 * normal((8, 1, 8), 40)).float(), line, ("u",), ("1",))
    store.write(Path("data.h5"), fields)
    (tmp_path / "run").mkdir()
    tiny = ["network.modes=2", "network.width=8", "network.depth=1", "source.kind=white"]
    tiny += ["training.steps=1", "training.learning_rate=1e-12"]
    flow = fit(fields, read_experiment(None, tiny), tmp_path / "run")
    ran = call("likelihood run data.h5 --count 5 --batch 2 --divergence exact --solver rk4 --steps 4 --out l.json --json")
    assert ran.status == 0
    found = ran.json()
    x1 = flow.units.normalise(fields.u[:5].double())
    expected = WhiteNoise(line, 1).log_density(x1)
    assert torch.tensor(found["log_density"]) == pytest.approx(expected.tolist(), abs=1e-3)
    assert found["bits_per_dimension"] == pytest.approx(-expected.mean().item() / (8 * math.log(2)), abs=1e-3)
    scale = float(flow.units.scale[0])
    assert found["log_density_physical"][0] == pytest.approx(found["log_density"][0] - 8 * math.log(scale), abs=1e-6)
    assert found["standard_error"] == [0.0] * 5
    assert Path("l.json").exists()
    for arguments, message in (
        ("run data.h5 --divergence exat", "Did you mean 'exact'"),
        ("run data.h5 --divergence hutchinson:probes=0", "at least one probe"),
        ("run data.h5 --solver rk5", "Did you mean 'rk4'"),
        ("run data.h5 --batch 0", "at least 1"),
        ("kolmogorov data.h5", "expects 2 channels"),
    ):
        refused = call(f"likelihood {arguments}")
        assert refused.status == 2
        assert message in refused.err
