"""Guidance, posterior sampling and search in the source, against closed forms, and controls that must miss them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from scipy import optimize
from torch import Tensor, nn

import pcfm
from constraints import Axis, Energy, FunctionConstraint, Grid, InitialCondition, Intersection, PointValues, positivity, project
from constraints.calculus.finite_difference import CentralDifference
from constraints.calculus.vector import laplacian
from constraints.constraint import LinearConstraint
from constraints.linear import LinearMap
from pcfm.guidance import (
    ClassifierFree,
    DistanceEnergy,
    FunctionEnergy,
    GaussianPosterior,
    Guidance,
    GuidedVelocity,
    IsotropicGradient,
    LocalGradient,
    MonteCarlo,
    ResidualEnergy,
    Sum,
    VelocityDrift,
)
from pcfm.methods import METHODS
from pcfm.path import AffinePath
from pcfm.samplers import DFlow, DiffusionPDE, Euler, Flower, GuidedFlow, Heun, PosteriorFlow, RungeKutta4, Sampler, SourceChain
from pcfm.samplers.minimise import minimise
from pcfm.samplers.transport import Transport
from pcfm.schedule import Cosine, Linear
from pcfm.source import SmoothNoise
from pcfm.velocity import GaussianFlow, NetworkVelocity
from tests.oracles import Gaussian, GaussianOracle, pushed, root
from tests.oracles_gmm import Mixture, MixtureOracle

SCHEDULES = {"linear": Linear(), "cosine": Cosine()}


def normal(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def at(t: float) -> Tensor:
    return torch.tensor(t, dtype=torch.float64)


def times(steps: int, first: float = 0.0) -> Tensor:
    return torch.linspace(first, 1, steps + 1, dtype=torch.float64)


class Matrix(LinearMap):
    """Rows given as a matrix (m, n), on fields (B, 1, n)."""

    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        self.matrix, self.rows, self.shape = rows, len(rows), (1, rows.shape[1])

    def forward(self, u: Tensor) -> Tensor:
        return u[:, 0] @ self.matrix.T

    def adjoint(self, y: Tensor) -> Tensor:
        return (y @ self.matrix)[:, None]


def gaussian(size: int, seed: int) -> Gaussian:
    factor = normal((size, size), seed) / math.sqrt(size)
    return Gaussian(normal((size,), seed + 1), factor @ factor.T + 0.1 * torch.eye(size, dtype=torch.float64))


def observed(prior: Gaussian, rows: Tensor, values: Tensor, variance: float) -> Gaussian:
    """The posterior of a Gaussian under rows @ x = values + noise."""
    cross = prior.covariance @ rows.T
    gain = cross @ torch.linalg.inv(rows @ cross + variance * torch.eye(len(rows), dtype=rows.dtype))
    return Gaussian(prior.mean + gain @ (values - rows @ prior.mean), prior.covariance - gain @ cross.T)


PRIOR, ROWS, VALUES, VARIANCE = gaussian(5, 0), normal((3, 5), 2), normal((3,), 3), 0.05
NOISY = LinearConstraint(Matrix(ROWS), VALUES, VARIANCE)
EXACT = LinearConstraint(Matrix(ROWS), VALUES)
PLANE = Grid(Axis("x", 6, periodic=True), Axis("y", 6, periodic=True))


def tilt(x: Tensor, t: Tensor, prior: Gaussian, posterior: Gaussian, path: AffinePath) -> Tensor:
    """The exact guidance between two Gaussians."""
    return GaussianOracle(posterior, path)(x, t) - GaussianOracle(prior, path)(x, t)


# Energies


def curved() -> Intersection:
    return Intersection(
        FunctionConstraint(lambda u: (u[:, 0, :2] ** 3 + u[:, 0, 1:3]) - 0.3),
        LinearConstraint(Matrix(ROWS), VALUES, torch.tensor([0.1, 0.2, 0.4])),
        positivity(),
    )


def test_residual_energy_is_its_sum_and_its_gradient_is_that_of_differences() -> None:
    """Over curved rows, rows with their own variances, and the broken rows of an inequality."""
    energy, x = ResidualEnergy(curved(), deviation=0.5), normal((4, 1, 5), 4)
    rows = x[:, 0]
    expected = 2 * (rows[:, :2] ** 3 + rows[:, 1:3] - 0.3).square().sum(1)
    expected = expected + ((rows @ ROWS.T - VALUES).square() / (2 * torch.tensor([0.1, 0.2, 0.4]))).sum(1)
    expected = expected + 2 * rows.clamp_max(0).square().sum(1)
    assert torch.allclose(energy(x), expected, rtol=1e-13)
    assert_gradient(energy, x)


def assert_gradient(energy: Any, x: Tensor, atol: float = 1e-7) -> None:
    """Central differences along random directions."""
    for seed in range(3):
        direction, h = normal(tuple(x.shape), 50 + seed), 1e-5
        difference = (energy(x + h * direction) - energy(x - h * direction)) / (2 * h)
        assert torch.allclose((energy.gradient(x) * direction).flatten(1).sum(1), difference, rtol=1e-6, atol=atol)


def test_distance_energy_does_not_depend_on_how_a_law_is_written() -> None:
    x = normal((3, 1, 5), 6)
    energy = DistanceEnergy(EXACT, deviation=0.3)
    mixed = torch.tensor([[0.0, 0.0, 8.0], [7.0, 0.0, 1.0], [0.0, 7.0, 1.0]], dtype=torch.float64)
    other = DistanceEnergy(LinearConstraint(Matrix(mixed @ ROWS), mixed @ VALUES), deviation=0.3)
    away = (x[:, 0] @ ROWS.T - VALUES) @ torch.linalg.pinv(ROWS).T
    assert torch.allclose(energy(x), away.square().sum(1) / (2 * 0.09), rtol=1e-12)
    assert torch.allclose(energy.gradient(x), other.gradient(x), atol=1e-11)
    assert_gradient(energy, x)
    assert_gradient(DistanceEnergy(Energy(PLANE, 1.0)), normal((2, 2, 6, 6), 7), atol=1e-6)


def test_energies_add_and_functions_are_differentiated() -> None:
    x = normal((3, 1, 5), 8)
    cubic = FunctionEnergy(lambda u: u.flatten(1).pow(3).sum(1))
    assert torch.allclose(cubic.gradient(x), 3 * x**2)
    both = Sum((cubic, ResidualEnergy(NOISY)))
    assert torch.allclose(both(x), cubic(x) + ResidualEnergy(NOISY)(x))
    assert_gradient(both, x)


# Guided velocities: Gaussian closed forms


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_local_gradient_tilts_a_gaussian_by_a_linear_energy_exactly(schedule: Linear | Cosine) -> None:
    """exp(-a x) moves the mean by -S a. The same gradient added to the velocity at the state tilts nothing."""
    path, slope, x = AffinePath(schedule), normal((5,), 10), normal((6, 1, 5), 11)
    energy = FunctionEnergy(lambda u: u[:, 0] @ slope)
    posterior = Gaussian(PRIOR.mean - PRIOR.covariance @ slope, PRIOR.covariance)
    for t in (0.1, 0.5, 0.9, 1.0):
        exact = tilt(x, at(t), PRIOR, posterior, path)

        def error(guidance: Guidance, t: float = t, exact: Tensor = exact) -> float:
            guided = GuidedVelocity(GaussianOracle(PRIOR, path), path, [guidance])
            return (guided(x, at(t)) - GaussianOracle(PRIOR, path)(x, at(t)) - exact).abs().max().item()

        assert error(LocalGradient(energy)) < 1e-12
        assert error(VelocityDrift(energy)) > 0.1
        assert error(IsotropicGradient(energy)) > 1e-3 or t == 1.0


def test_isotropic_gradient_is_exact_for_isotropic_fields() -> None:
    path, slope, x = AffinePath(Cosine()), normal((5,), 12), normal((4, 1, 5), 13)
    prior = Gaussian(torch.ones(5, dtype=torch.float64), 0.49 * torch.eye(5, dtype=torch.float64))
    posterior = Gaussian(prior.mean - 0.49 * slope, prior.covariance)
    guidance = IsotropicGradient(FunctionEnergy(lambda u: u[:, 0] @ slope), std=0.7)
    for t in (0.0, 0.3, 0.99):
        guided = GuidedVelocity(GaussianOracle(prior, path), path, [guidance])
        assert torch.allclose(guided(x, at(t)), GaussianOracle(posterior, path)(x, at(t)), atol=1e-12)


def test_damped_gradient_is_the_posterior_of_one_observation() -> None:
    """And bounded by the exact condition, however strong the energy."""
    path, x, t = AffinePath(Cosine()), normal((6, 1, 5), 18), at(0.4)
    one = LinearConstraint(Matrix(ROWS[:1]), VALUES[:1])
    for variance in (0.3, 1e-9):
        exact = GaussianOracle(observed(PRIOR, ROWS[:1], VALUES[:1], variance), path)(x, t)
        for energy in (ResidualEnergy(one, variance**0.5), DistanceEnergy(one, (variance / ROWS[0].square().sum().item()) ** 0.5)):
            assert torch.allclose(GuidedVelocity(GaussianOracle(PRIOR, path), path, [LocalGradient(energy, damped=True)])(x, t), exact)
    unit = Gaussian(torch.zeros(5, dtype=torch.float64), torch.eye(5, dtype=torch.float64))
    exact = GaussianOracle(observed(unit, ROWS[:1], VALUES[:1], 0.3), path)(x, t)
    isotropic = IsotropicGradient(ResidualEnergy(one, 0.3**0.5), damped=True)
    assert torch.allclose(GuidedVelocity(GaussianOracle(unit, path), path, [isotropic])(x, t), exact)


def test_posterior_sampler_survives_a_law_that_the_flow_obeys_and_an_inexact_network() -> None:
    """The covariance vanishes along the law, and errors of the network stand in its place: its bare inverse blows up."""
    kernel = torch.eye(5, dtype=torch.float64) - torch.linalg.pinv(ROWS) @ ROWS
    lawful = Gaussian(torch.linalg.pinv(ROWS) @ VALUES, kernel @ PRIOR.covariance @ kernel)
    oracle, error = GaussianOracle(lawful), 0.03 * normal((5, 5), 70)

    def largest(**options: float) -> float:
        def inexact(x: Tensor, t: Tensor) -> Tensor:
            return oracle(x, t) + x @ error

        sampler = PosteriorFlow(Euler(inexact), inexact, AffinePath(), EXACT, final=False, **options)  # type: ignore[arg-type]
        return sampler(normal((64, 1, 5), 71), times(20)).abs().max().item()

    assert largest() < 8
    assert largest(slack=0.0, clip=0.0) < 8, "its reach bounds it as well"
    assert largest(slack=0.0, reach=0.0, clip=0.0) > 100


def test_reach_shortens_guidance_that_goes_further_than_the_shortest_move() -> None:
    path, x, t = AffinePath(), normal((6, 1, 5), 14), at(0.5)
    free = GaussianPosterior(EXACT, iterations=12)
    guided = GuidedVelocity(GaussianOracle(PRIOR, path), path, [free])
    here = guided.estimate(x, t)
    shortest = here.towards(project(EXACT, here.endpoint).u - here.endpoint)
    ratio = (free(here).flatten(1).norm(dim=1) / shortest.flatten(1).norm(dim=1))[:, None, None]
    assert (ratio > 1).all()
    middle = ratio.median().item()
    bounded = GaussianPosterior(EXACT, iterations=12, reach=middle)(here)
    assert torch.allclose(bounded, free(here) * (middle / ratio).clamp_max(1), atol=1e-12)


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize("noise", [0.0, VARIANCE], ids=["exact", "noisy"])
def test_posterior_guidance_is_the_velocity_of_the_posterior(noise: float, schedule: Linear | Cosine) -> None:
    """For Gaussian fields and linear laws; the covariances of PiGDM and DPS miss."""
    path, x = AffinePath(schedule), normal((6, 1, 5), 14)
    law, posterior = (NOISY if noise else EXACT), observed(PRIOR, ROWS, VALUES, noise)
    for t in (0.1, 0.5, 0.95):
        exact = GaussianOracle(posterior, path)(x, at(t))

        def error(covariance: str, t: float = t, exact: Tensor = exact) -> float:
            guided = GuidedVelocity(GaussianOracle(PRIOR, path), path, [GaussianPosterior(law, covariance, iterations=12)])
            return ((guided(x, at(t)) - exact).abs().max() / exact.abs().max()).item()

        assert error("jacobian") < 1e-8
        if t == 0.5:
            assert error("isotropic") > 0.02
            assert not noise or error("zero") > 0.1


def test_posterior_sampler_has_the_posterior_mean_and_covariance() -> None:
    """Exactly known, since guided steps are affine in the noise; DPS and the unguided flow are far."""
    posterior = observed(PRIOR, ROWS, VALUES, VARIANCE)

    def errors(covariance: str, steps: int) -> tuple[float, float]:
        flow = GaussianOracle(PRIOR)
        found = pushed(
            lambda noise: PosteriorFlow(
                RungeKutta4(flow), flow, AffinePath(), NOISY, covariance=covariance, iterations=12, reach=0.0, clip=0.0
            ),
            5,
            times(steps),
        )
        spread = (found.covariance - posterior.covariance).norm() / posterior.covariance.norm()
        return (found.mean - posterior.mean).abs().max().item(), spread.item()

    mean, spread = errors("jacobian", 50)
    assert mean < 1e-3
    assert spread < 1e-3
    mean, spread = errors("isotropic", 50)
    assert mean > 0.02
    assert spread > 0.02
    mean, spread = errors("zero", 200)
    assert mean > 0.1
    assert spread > 0.1


def test_guidance_knows_the_covariance_of_the_source() -> None:
    """A Gaussian flow from smooth noise is a white one in other coordinates, x = S^(1/2) z."""
    grid = Grid(Axis("x", 5))
    source = SmoothNoise(grid, 1, length=0.4)
    half = source.colour(torch.eye(5, dtype=torch.float64)[:, None])[:, 0]
    inverse, path, x = torch.linalg.inv(half), AffinePath(Cosine()), normal((4, 1, 5), 15)

    def whitened(target: Gaussian) -> GaussianOracle:
        return GaussianOracle(Gaussian(inverse @ target.mean, inverse @ target.covariance @ inverse.T), path)

    def velocity(target: Gaussian) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda state, t: whitened(target)(state @ inverse.T, t) @ half.T

    assert torch.allclose(source.covariance(torch.eye(5, dtype=torch.float64)[:, None])[:, 0], half @ half.T, atol=1e-14)
    exact = velocity(observed(PRIOR, ROWS, VALUES, VARIANCE))(x, at(0.4))
    guidance = GaussianPosterior(NOISY, iterations=20)
    assert torch.allclose(GuidedVelocity(velocity(PRIOR), path, [guidance], source)(x, at(0.4)), exact, atol=1e-8)
    assert (GuidedVelocity(velocity(PRIOR), path, [guidance])(x, at(0.4)) - exact).abs().max() > 0.1


def test_posterior_guidance_linearises_curved_laws() -> None:
    """A law that is linear after a change of variable, at the endpoint it is linearised at: the same guidance as that linear law."""
    path, x, t = AffinePath(), normal((1, 1, 5), 16), at(0.6)
    endpoint = path.endpoint(x, GaussianOracle(PRIOR)(x, t), t)
    law = FunctionConstraint(lambda u: torch.sinh(u[:, 0, :2]) - 0.4)
    slope = torch.zeros(2, 5, dtype=torch.float64)
    slope[[0, 1], [0, 1]] = torch.cosh(endpoint[0, 0, :2])
    flat = LinearConstraint(Matrix(slope), slope @ endpoint[0, 0] - law.residual(endpoint)[0])
    found, expected = (GuidedVelocity(GaussianOracle(PRIOR), path, [GaussianPosterior(one)])(x, t) for one in (law, flat))
    assert torch.allclose(found, expected, atol=1e-10)


def test_start_schedule_and_clip() -> None:
    """At t = 0 the covariance is that of an early time; the weight and the limit are as stated."""
    path, x = AffinePath(), normal((3, 1, 5), 17)
    guidance, flow = GaussianPosterior(NOISY, iterations=12), GaussianOracle(PRIOR)
    exact = GaussianOracle(observed(PRIOR, ROWS, VALUES, VARIANCE))(x, at(0.0))
    early = [GuidedVelocity(flow, path, [guidance], start=start)(x, at(0.0)) for start in (0.02, 0.01)]
    errors = [(one - exact).abs().max().item() for one in early]
    assert errors[1] < 0.05 * exact.abs().max()
    assert errors[1] == pytest.approx(errors[0] / 2, rel=0.1)
    plain, t = flow(x, at(0.5)), at(0.5)
    added = GuidedVelocity(flow, path, [guidance])(x, t) - plain
    halved = GuidedVelocity(flow, path, [guidance], schedule=lambda t: t * 0 + 0.5)(x, t) - plain
    assert torch.allclose(halved, added / 2, atol=1e-13)
    clipped = GuidedVelocity(flow, path, [guidance], clip=0.1)(x, t) - plain
    assert torch.allclose(clipped.norm(dim=2), 0.1 * plain.norm(dim=2), rtol=1e-12)
    each = GuidedVelocity(flow, path, [guidance, guidance])(x, t) - plain
    assert torch.allclose(each, 2 * added, atol=1e-12)
    scalar, moments = GuidedVelocity(GaussianFlow(0.2, 0.5), path, [guidance]), torch.tensor([0.0, 0.4, 1.0], dtype=torch.float64)
    alone = torch.cat([scalar(x[i : i + 1], moments[i]) for i in range(3)])
    assert torch.allclose(scalar(x, moments), alone, atol=1e-12)


# Monte-Carlo guidance on a mixture

MIXTURE = Mixture(
    torch.tensor([0.3, 0.5, 0.2], dtype=torch.float64),
    torch.tensor([[-2.0, 0.5], [1.5, 1.0], [0.5, -2.0]], dtype=torch.float64),
    torch.stack([torch.diag(torch.tensor(d, dtype=torch.float64)) for d in ([0.2, 0.1], [0.1, 0.3], [0.15, 0.15])]),
)
SEEN, SEEN_AT, SEEN_VARIANCE = torch.tensor([[1.0, 0.3]], dtype=torch.float64), torch.tensor([0.8], dtype=torch.float64), 0.5


def tilted_draws(count: int, seed: int) -> MonteCarlo:
    draws = MIXTURE.sample(count, seed)
    energies = (draws[:, 0] @ SEEN.T - SEEN_AT).square().sum(1) / (2 * SEEN_VARIANCE)
    return MonteCarlo(draws, energies)


def test_monte_carlo_guidance_converges_to_the_tilted_mixture_like_the_root_of_draws() -> None:
    posterior, path = MIXTURE.given(SEEN, SEEN_AT, SEEN_VARIANCE), AffinePath()
    for t in (0.1, 0.5):
        x = t * posterior.sample(200, 1) + (1 - t) * normal((200, 1, 2), 2)
        exact = MixtureOracle(posterior)(x, at(t)) - MixtureOracle(MIXTURE)(x, at(t))
        errors = {}
        for count, seeds in ((100, 8), (10_000, 2)):
            guided = [GuidedVelocity(MixtureOracle(MIXTURE), path, [tilted_draws(count, 10 + seed)]) for seed in range(seeds)]
            squares = [(one(x, at(t)) - MixtureOracle(MIXTURE)(x, at(t)) - exact).square().sum() for one in guided]
            errors[count] = (torch.stack(squares).mean() / exact.square().sum()).sqrt().item()
        assert errors[10_000] < 0.05
        assert math.log(errors[10_000] / errors[100], 100) == pytest.approx(-0.5, abs=0.2)


def test_monte_carlo_guidance_ends_where_the_tilted_flow_does() -> None:
    """From the same noise; in the modes that the tilted mixture has, where the unguided flow has others."""
    posterior, path, guidance = MIXTURE.given(SEEN, SEEN_AT, SEEN_VARIANCE), AffinePath(), tilted_draws(4000, 20)
    guided, x0 = GuidedVelocity(MixtureOracle(MIXTURE), path, [guidance]), normal((300, 1, 2), 21)
    found, exact, free = (Euler(velocity)(x0, times(25)) for velocity in (guided, MixtureOracle(posterior), MixtureOracle(MIXTURE)))
    shares = [posterior.responsibilities(x).mean(0) for x in (found, exact, free)]
    assert (shares[0] - shares[1]).abs().max() < 0.02
    assert (found.mean(0) - exact.mean(0)).abs().max() < 0.04
    assert (found - exact).square().sum((1, 2)).sqrt().median() < 0.05
    assert (shares[2] - shares[1]).abs().max() > 0.1
    effective = [guidance.effective(guided.estimate(found, at(t))).mean().item() for t in (0.1, 0.9)]
    assert effective[0] > 10 * effective[1] > 10


def test_where_few_draws_are_effective_nothing_is_guided() -> None:
    guidance, x = tilted_draws(50, 23), normal((4, 1, 2), 24)
    guided = GuidedVelocity(MixtureOracle(MIXTURE), AffinePath(), [guidance])
    assert torch.equal(guided(x, at(0.999)), MixtureOracle(MIXTURE)(x, at(0.999)))


# Classifier-free guidance


def test_classifier_free_guidance_between_gaussians_scales_by_the_geometric_mean() -> None:
    wide, narrow, w = 0.8, 0.25, 2.5
    guided = ClassifierFree(GaussianFlow(0.0, narrow), GaussianFlow(0.0, wide), w)
    ends = RungeKutta4(guided)(torch.ones(1, 1, 1, dtype=torch.float64), times(400)).item()
    assert ends == pytest.approx(narrow**w * wide ** (1 - w), abs=1e-6)
    x = normal((3, 1, 2), 25)
    assert torch.equal(replace(guided, weight=0.0)(x, at(0.3)), guided.unconditional(x, at(0.3)))
    assert torch.allclose(replace(guided, weight=1.0)(x, at(0.3)), guided.conditional(x, at(0.3)), atol=1e-15)
    inside = replace(guided, interval=(0.2, 0.6))
    mixed = inside(x, torch.tensor([0.1, 0.3, 0.7], dtype=torch.float64))
    assert torch.equal(mixed[::2], torch.cat([guided.conditional(x[:1], at(0.1)), guided.conditional(x[2:], at(0.7))]))
    assert torch.allclose(mixed[1:2], guided(x[1:2], at(0.3)))


@pytest.mark.parametrize(("rule", "each"), [(Euler, 1), (Heun, 2), (RungeKutta4, 4)])
def test_classifier_free_guidance_doubles_the_network_calls(rule: type[Sampler], each: int) -> None:
    """Inside its interval: the conditional network alone is asked outside."""
    conditional, unconditional = NetworkVelocity(Network(), "x,t"), NetworkVelocity(Network(), "x,t")
    x0 = normal((2, 1, 5), 26)
    rule(ClassifierFree(conditional, unconditional, 2.0))(x0, times(10))
    assert (conditional.calls, unconditional.calls) == (10 * each, 10 * each)
    Euler(ClassifierFree(conditional, unconditional, 2.0, interval=(0.25, 0.55)))(x0, times(10))
    assert (conditional.calls, unconditional.calls) == (10 * each + 10, 10 * each + 3)


# The transport and its gradient


class Network(nn.Module):
    """A small smooth network with a time, on fields (B, 1, 5)."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = (nn.Parameter(normal(shape, seed) / 2) for shape, seed in (((6, 16), 30), ((16, 5), 31)))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return (torch.tanh(torch.cat([x[:, 0], t[:, None]], 1) @ self.inner) @ self.outer)[:, None]


@pytest.mark.parametrize("rule", [Euler, Heun, RungeKutta4])
@pytest.mark.parametrize("steps", [1, 3, 70])
def test_gradient_through_the_flow_is_that_of_differences_and_of_the_whole_graph(steps: int, rule: Callable[..., Sampler]) -> None:
    velocity, x0 = NetworkVelocity(Network()), normal((3, 1, 5), 32)
    energy, transport = ResidualEnergy(curved()), Transport(rule(velocity), times(steps))
    value, gradient, x1 = transport.evaluate(x0, energy)
    assert torch.allclose(x1, transport(x0), atol=1e-14)
    assert torch.allclose(value, energy(transport(x0)), rtol=1e-12)
    direction, h = normal((3, 1, 5), 33), 1e-5
    difference = (energy(transport(x0 + h * direction)) - energy(transport(x0 - h * direction))) / (2 * h)
    assert torch.allclose((gradient * direction).sum((1, 2)), difference, rtol=1e-7)
    state = x0.clone().requires_grad_()
    end = rule(velocity)(state, times(steps))
    (whole,) = torch.autograd.grad(end, state, energy.gradient(end.detach()))
    assert torch.allclose(gradient, whole, rtol=1e-12, atol=1e-14)


class Graphs:
    """How many graphs of a velocity are alive."""

    alive = most = 0


class Token:
    def __init__(self) -> None:
        Graphs.alive += 1
        Graphs.most = max(Graphs.most, Graphs.alive)

    def __del__(self) -> None:
        Graphs.alive -= 1


class Watched(torch.autograd.Function):
    """The identity, with a token that lives as long as its graph."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.token = Token()
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]


@pytest.mark.parametrize("steps", [4, 128])
def test_graph_of_one_step_is_alive_whatever_the_number_of_steps(steps: int) -> None:
    Graphs.alive = Graphs.most = 0
    flow = GaussianFlow(0.0, 0.5)
    transport = Transport(Euler(lambda x, t: flow(Watched.apply(x), t)), times(steps))
    transport.evaluate(normal((2, 1, 5), 34), ResidualEnergy(NOISY))
    assert Graphs.most <= 2


# L-BFGS


def rosenbrock(x: Tensor) -> tuple[Tensor, Tensor]:
    a, b = x[:, :-1], x[:, 1:]
    value = (100 * (b - a**2).square() + (1 - a).square()).sum(1)
    gradient = torch.zeros_like(x)
    gradient[:, :-1] += -400 * a * (b - a**2) - 2 * (1 - a)
    gradient[:, 1:] += 200 * (b - a**2)
    return value, gradient


def test_minimise_finds_minima_sample_by_sample() -> None:
    """Rosenbrock's valley from three points, each as it would alone; values never rise, whatever the limit on steps."""
    x = torch.tensor([[-1.2, 1.0, -1.2], [0.0, 0.0, 3.0], [2.0, 4.0, 16.0]], dtype=torch.float64)
    together = minimise(rosenbrock, x, iterations=200, tolerance=1e-9)
    assert (together.x - 1).abs().max() < 1e-6
    for i in range(3):
        alone = minimise(rosenbrock, x[i : i + 1], iterations=200, tolerance=1e-9)
        assert torch.allclose(alone.x, together.x[i : i + 1], atol=1e-9)
        assert alone.evaluations <= together.evaluations
    values = [minimise(rosenbrock, x, iterations=k).value for k in range(12)]
    assert all((later <= earlier).all() for earlier, later in pairwise(values))


def test_minimise_takes_no_more_evaluations_than_scipy() -> None:
    """On quadratics of condition 1e4; a flat function and one that is nowhere finite are left where they are."""
    diagonal, start = torch.logspace(0, 4, 6, dtype=torch.float64), normal((4, 6), 35)
    found = minimise(lambda x: ((diagonal * x**2).sum(1) / 2, diagonal * x), start, iterations=100, tolerance=1e-9)
    assert (found.gradient.norm(dim=1) < 1e-9 * (diagonal * start).norm(dim=1)).all()
    theirs = [
        optimize.minimize(
            lambda z: (float((diagonal.numpy() * z * z).sum() / 2), diagonal.numpy() * z),
            x0.numpy(), jac=True, method="L-BFGS-B", options={"maxcor": 20, "ftol": 0.0, "gtol": 1e-5},
        ).nfev
        for x0 in start
    ]  # fmt: skip
    assert found.evaluations <= 1.5 * max(theirs)
    x = normal((2, 6), 36)
    assert torch.equal(minimise(lambda x: (x.sum(1) * 0, x * 0), x, iterations=3).x, x)
    assert torch.equal(minimise(lambda x: (x.sum(1) * math.nan, x * math.nan), x, iterations=3).x, x)


def test_minimise_lengthens_steps_that_are_too_short_and_ends_where_nothing_is_lower() -> None:
    def far(x: Tensor) -> tuple[Tensor, Tensor]:
        return (x - 1e4).square().sum(1) / 2, x - 1e4

    def lying(x: Tensor) -> tuple[Tensor, Tensor]:
        return x.sum(1), -torch.ones_like(x)

    x = normal((2, 3), 37)
    assert (minimise(far, x, iterations=1).value < 0.2 * far(x)[0]).all()
    ended = minimise(lying, x, iterations=50, searches=7)
    assert torch.equal(ended.x, x)
    assert ended.evaluations == 8


# D-Flow


def ridge(weight: float, matrix: Tensor, offset: Tensor) -> Tensor:
    """argmin |A (M z + c) - b|² / 2 r + weight |z|² / 2."""
    rows = ROWS @ matrix
    normal_matrix = rows.T @ rows / VARIANCE + weight * torch.eye(5, dtype=torch.float64)
    return torch.linalg.solve(normal_matrix, rows.T @ (VALUES - ROWS @ offset) / VARIANCE)


def linear_map(sampler: Sampler, steps: int) -> tuple[Tensor, Tensor]:
    """The affine map that a solver's steps make of a Gaussian flow."""
    units = torch.cat([torch.zeros(1, 5, dtype=torch.float64), torch.eye(5, dtype=torch.float64)])[:, None]
    ends = sampler(units, times(steps))[:, 0]
    return (ends[1:] - ends[0]).T, ends[0]


@pytest.mark.parametrize("weight", [1.0, 0.0])
def test_d_flow_on_a_gaussian_is_the_ridge_solution(weight: float) -> None:
    """Whatever the noise it begins with; without a regulariser the nearest noise that fits, since gradients stay among the rows."""
    base = Heun(GaussianOracle(PRIOR))
    matrix, offset = linear_map(base, 12)
    x0 = normal((3, 1, 5), 40)
    found = DFlow(base, NOISY, iterations=80, regularisation=weight).optimise(x0, times(12)).x[:, 0]
    if weight:
        expected = ridge(weight, matrix, offset).expand(3, -1)
    else:
        misfit = (x0[:, 0] @ matrix.T + offset) @ ROWS.T - VALUES
        expected = x0[:, 0] - misfit @ torch.linalg.pinv(ROWS @ matrix).T
    assert torch.allclose(found, expected, atol=1e-5)


def test_d_flow_keeps_the_typical_norm_of_noise() -> None:
    """The radial regulariser alone ends on the sphere of radius sqrt(d - 1), in the direction it began with."""
    x0 = 3 * normal((4, 1, 5), 41)
    still = LinearConstraint(Matrix(torch.zeros(1, 5, dtype=torch.float64)), torch.zeros(1, dtype=torch.float64))
    found = DFlow(Euler(GaussianFlow(0.0, 1.0)), still, regularisation=1.0, regulariser="radial").optimise(x0, times(2)).x
    assert torch.allclose(found, 2 * x0 / x0.norm(dim=2, keepdim=True), atol=1e-6)


def test_d_flow_samples_as_published_and_with_a_last_projection() -> None:
    velocity = NetworkVelocity(Network())
    x0, law = normal((2, 1, 5), 42), FunctionConstraint(lambda u: u.square().sum((1, 2), keepdim=False)[:, None] - 9.0, scale=9.0)
    published = DFlow(Euler(velocity), law, iterations=20, final=False).sample(x0, times(6))
    final = DFlow(Euler(velocity), law, iterations=20).sample(x0, times(6))
    free = Euler(velocity)(x0, times(6))
    assert (law.residual(published.x).abs() < 1e-4 * law.residual(free).abs()).all()
    assert final.projection is not None
    assert final.projection.converged.all()
    assert (final.x - published.x).abs().max() < 1e-3
    states = list(DFlow(Euler(velocity), law, iterations=20).iterate(x0, times(6)))
    assert torch.allclose(states[-1], published.x, atol=1e-12)


def test_d_flow_blends_its_first_noise_with_that_of_a_lawful_field() -> None:
    base, x0 = RungeKutta4(GaussianOracle(PRIOR)), normal((2, 1, 5), 43)
    begun = DFlow(base, EXACT, iterations=0, blend=0.36).optimise(x0, times(60)).x
    lawful = torch.linalg.pinv(ROWS) @ VALUES
    inverse = torch.linalg.inv(root(PRIOR.covariance)) @ (lawful - PRIOR.mean)
    assert torch.allclose(begun[:, 0], 0.6 * inverse + 0.8 * x0[:, 0], atol=1e-3)


# DiffusionPDE


def test_diffusion_pde_without_weights_is_heun_in_noise_scale() -> None:
    """Order 2 on times that the first step of infinite noise does not spoil."""
    flow, x = GaussianFlow(0.4, 0.6), normal((8, 1, 5), 44)
    start = 0.2 * (0.4 + 0.6 * normal((8, 1, 5), 45)) + 0.8 * x
    fine = RungeKutta4(flow)(start, times(400, first=0.2))
    errors = []
    for steps in (40, 80):
        grid = torch.cat([torch.linspace(0.2, 0.96, steps, dtype=torch.float64), at(1.0)[None]])
        sampler = DiffusionPDE(flow, AffinePath(), EXACT, observed=0.0, equation=0.0, final=False)
        state = start
        for t, s in pairwise(grid[:-1]):
            state = sampler.step(state, t, s, x)
        errors.append((state - RungeKutta4(flow)(start, torch.linspace(0.2, 0.96, 801, dtype=torch.float64))).abs().max())
    assert torch.log2(errors[0] / errors[1]).item() == pytest.approx(2, abs=0.15)
    assert fine.isfinite().all()


@pytest.mark.parametrize("corrected", [True, False])
@pytest.mark.parametrize("squared", [True, False])
def test_diffusion_pde_is_descent_in_the_published_variables(squared: bool, corrected: bool) -> None:
    """Against the published update of y = x / alpha, written out for a scalar Gaussian, where all derivatives are numbers."""
    s1, mean, weight, held, points = 0.6, 0.4, 0.05, 1.5, 2

    def denoiser(y: Tensor, level: float) -> tuple[Tensor, float]:
        gain = s1**2 / (s1**2 + level**2)
        return mean + gain * (y - mean), gain

    flow, grid = GaussianFlow(mean, s1), Grid(Axis("x", points))
    law = PointValues(torch.tensor([[True, False]]), torch.tensor([[held, 0.0]], dtype=torch.float64))
    sampler = DiffusionPDE(flow, AffinePath(), law, observed=weight, squared=squared, corrected=corrected, final=False)
    assert grid.shape == (points,)
    x, t, s = normal((3, 1, points), 46), 0.5, 0.6
    level, after = (1 - t) / t, (1 - s) / s
    y = x / t
    clean, gain = denoiser(y, level)
    direction = (y - clean) / level
    new = y + (after - level) * direction
    if corrected:
        again, outer = denoiser(new, after)
        gain = outer * (1 + (after - level) * (1 - gain) / level)
        new = y + (after - level) * (direction + (new - again) / after) / 2
        clean = again
    misfit = clean[:, 0, 0] - held
    slope = gain * (2 * misfit if squared else misfit.sign())
    new[:, 0, 0] -= weight * slope
    assert torch.allclose(sampler.step(x, at(t), at(s), x), s * new, atol=1e-13)


def test_diffusion_pde_counts_equations_late_and_per_point() -> None:
    grid, x = Grid(Axis("x", 4)), normal((2, 1, 4), 47)
    seen = PointValues(torch.tensor([[True, False, False, False]]), torch.zeros(1, 4, dtype=torch.float64))
    equation = FunctionConstraint(lambda u: u[:, 0, 1:2] - 5.0)
    flow = GaussianFlow(0.0, 1.0)
    assert grid.shape == (4,)

    def moved(t: float, s: float, **options: float) -> Tensor:
        guided = DiffusionPDE(flow, AffinePath(), Intersection(seen, equation), final=False, **options)
        free = DiffusionPDE(flow, AffinePath(), Intersection(seen, equation), final=False, observed=0.0, equation=0.0)
        return (guided.step(x, at(t), at(s), x) - free.step(x, at(t), at(s), x))[:, 0]

    early, late = moved(0.5, 0.6), moved(0.85, 0.9)
    assert (early[:, 1] == 0).all()
    assert (early[:, 0] != 0).all()
    assert torch.allclose(moved(0.85, 0.9, equation=0.0)[:, 0], 0.1 * moved(0.85, 0.9, damping=1.0)[:, 0], rtol=1e-12)
    assert torch.allclose(late[:, 1] / moved(0.85, 0.9, equation=4.0)[:, 1], torch.full((2,), 0.25, dtype=torch.float64))
    assert (late[:, 2:] == 0).all()


def test_an_equation_in_wrong_units_pulls_a_right_field_away() -> None:
    """Without the grid spacing, as the reference executes, u'' = 2 on the unit interval is another equation."""
    points = 17
    exact = (torch.linspace(0, 1, points, dtype=torch.float64) ** 2).expand(2, 1, -1)

    def moved(length: float) -> float:
        grid = Grid(Axis("x", points, length=length))
        law = FunctionConstraint(lambda u: (laplacian(u, grid, CentralDifference(2)) - 2)[:, 0], scale=2.0)
        sampler = DiffusionPDE(lambda x, t: 0 * x, AffinePath(), law, equation=10.0, final=False, squared=True)
        return (sampler.step(exact, at(0.9), at(0.95), exact) - exact).abs().max().item()

    assert moved(1.0) < 1e-9
    assert moved(points - 1.0) > 1.0


# Flower


@pytest.mark.parametrize("steps", [2, 20])
def test_flower_with_uncertainty_samples_the_posterior_of_a_standard_normal(steps: int) -> None:
    """Exactly, at any number of steps, as an affine map of its draws; without uncertainty the spread collapses."""
    prior = Gaussian(torch.zeros(5, dtype=torch.float64), torch.eye(5, dtype=torch.float64))
    posterior = observed(prior, ROWS, VALUES, VARIANCE)

    def samples(gamma: float) -> Gaussian:
        def build(noise: Callable[[], Tensor]) -> Sampler:
            return Flower(
                GaussianOracle(prior), AffinePath(), NOISY, noise, lambda shape: noise()[:, 0, : shape[0]], gamma=gamma, final=False
            )

        return pushed(build, 5, times(steps), draws=3 * steps - 1 if gamma else steps - 1)

    exact, collapsed = samples(1.0), samples(0.0)
    assert torch.allclose(exact.mean, posterior.mean, atol=1e-10)
    assert torch.allclose(exact.covariance, posterior.covariance, atol=1e-10)
    assert torch.allclose(collapsed.mean, posterior.mean, atol=1e-10)
    assert (collapsed.covariance - posterior.covariance).norm() > 0.3 * posterior.covariance.norm()


def test_flower_under_smooth_noise_samples_the_posterior_of_smooth_fields() -> None:
    source = SmoothNoise(Grid(Axis("x", 5)), 1, length=0.4)
    covariance = source.covariance(torch.eye(5, dtype=torch.float64)[:, None])[:, 0]
    prior = Gaussian(torch.zeros(5, dtype=torch.float64), covariance)
    posterior = observed(prior, ROWS, VALUES, VARIANCE)

    def build(noise: Callable[[], Tensor]) -> Sampler:
        def velocity(x: Tensor, t: Tensor) -> Tensor:
            return (2 * t - 1) / (t**2 + (1 - t) ** 2) * x

        def coloured() -> Tensor:
            return source.colour(noise())

        white = lambda shape: noise()[:, 0, : shape[0]]  # noqa: E731
        return Flower(velocity, AffinePath(), NOISY, coloured, white, source, gamma=1.0, final=False)

    class Begun:
        """The sampler from smooth noise."""

        def __init__(self, noise: Callable[[], Tensor]) -> None:
            self.inner = build(noise)

        def __call__(self, x0: Tensor, grid: Tensor) -> Tensor:
            return self.inner(source.colour(x0), grid)

    found = pushed(Begun, 5, times(4), draws=11)  # type: ignore[arg-type]
    assert torch.allclose(found.mean, posterior.mean, atol=1e-10)
    assert torch.allclose(found.covariance, posterior.covariance, atol=1e-10)


# Chains in the source


def streams(seed: int, count: int, size: int) -> tuple[Callable[[], Tensor], Callable[[tuple[int, ...]], Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return (
        lambda: torch.randn(count, 1, size, generator=generator, dtype=torch.float64),
        lambda shape: torch.randn(count, *shape, generator=generator, dtype=torch.float64),
    )


@pytest.mark.parametrize(("gradient", "moves"), [(True, 60), (False, 400)], ids=["langevin", "pcn"])
def test_chains_in_the_source_sample_the_posterior(gradient: bool, moves: int) -> None:
    posterior, count = observed(PRIOR, ROWS, VALUES, 0.5), 2000
    law = LinearConstraint(Matrix(ROWS), VALUES, 0.5)
    noise, white = streams(50, count, 5)
    base = Heun(GaussianOracle(PRIOR))
    matrix, offset = linear_map(base, 4)
    flow = Gaussian(offset, matrix @ matrix.T)  # what four steps make of the noise
    posterior = observed(flow, ROWS, VALUES, 0.5)
    chain = SourceChain(base, law, noise, white, moves=moves, gradient=gradient, length=0.3).run(normal((count, 1, 5), 51), times(4))
    x = chain.x1[:, 0]
    assert (x.mean(0) - posterior.mean).abs().max() < 0.04
    assert (x.T.cov() - posterior.covariance).norm() < 0.06 * posterior.covariance.norm()
    assert 0.2 < chain.acceptance.mean() < 0.9


@pytest.mark.parametrize("gradient", [True, False], ids=["langevin", "pcn"])
def test_a_single_long_move_leaves_the_posterior_alone(gradient: bool) -> None:
    """From exact draws; of a step so long that the acceptance decides."""
    count, base, law = 40_000, Euler(GaussianFlow(0.5, 0.8)), LinearConstraint(Matrix(ROWS[:1]), VALUES[:1], 1.0)
    matrix, offset = linear_map(base, 3)
    source = Gaussian(torch.zeros(5, dtype=torch.float64), torch.eye(5, dtype=torch.float64))
    posterior = observed(source, ROWS[:1] @ matrix, VALUES[:1] - ROWS[:1] @ offset, 1.0)
    noise, white = streams(54, count, 5)
    x0 = posterior.mean + noise() @ root(posterior.covariance)
    chain = SourceChain(base, law, noise, white, moves=1, length=1.0, gradient=gradient).run(x0, times(3))
    assert chain.acceptance.mean() < 0.95
    assert (chain.x0[:, 0].mean(0) - posterior.mean).abs().max() < 0.02
    assert (chain.x0[:, 0].T.cov() - posterior.covariance).abs().max() < 0.02


def test_chain_leaves_the_source_alone_where_there_is_no_energy() -> None:
    """Every proposal is accepted, whatever its length."""
    still = LinearConstraint(Matrix(torch.zeros(1, 5, dtype=torch.float64)), torch.zeros(1, dtype=torch.float64), 1.0)
    noise, white = streams(52, 4000, 5)
    chain = SourceChain(Euler(GaussianFlow(0.0, 1.0)), still, noise, white, moves=20, length=1.5).run(normal((4000, 1, 5), 53), times(2))
    assert (chain.acceptance == 1).all()
    assert (chain.x0[:, 0].T.cov() - torch.eye(5, dtype=torch.float64)).abs().max() < 0.08


# What the methods cost and what they return


class Still(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(-0.3))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.gain * x + 0.1 * torch.sin(x)


GRID = Grid(Axis("time", 5), Axis("x", 8, periodic=True))
FIRST = InitialCondition(GRID, normal((3, 1, 8), 60))
SENSORS = PointValues(torch.rand(1, 5, 8, generator=torch.Generator().manual_seed(61)) < 0.3, normal((3, 1, 5, 8), 62), variance=0.3)


def flow(source: str = "smooth") -> pcfm.Flow:
    return pcfm.wrap(Still(), grid=GRID, channels=("u",), source=source)


@pytest.mark.parametrize(
    ("method", "forward", "backward"),
    [
        ("guided", 6 + 1, 6),
        ("guided:gradient=endpoint", 6, 0),
        ("posterior:iterations=2", 6 + 1, 6 * 3),
        ("posterior:covariance=isotropic", 6 + 1, 6),
        ("diffusionpde", 2 * 6 - 2, 2 * 4 + 1),
        ("diffusionpde:corrected=false", 6, 5),
        ("flower", 6, 0),
        ("source-chain:moves=3", 4 * 11, 4 * 6),
        ("source-chain:moves=3,gradient=false", 4 * 6, 0),
    ],
)
def test_network_calls_are_counted_forward_and_backward(method: str, forward: int, backward: int) -> None:
    samples = pcfm.sample(flow(), 3, law=FIRST, method=method, steps=6)
    assert (samples.network_calls, samples.backward_calls) == (forward, backward)


def test_d_flow_costs_what_it_says() -> None:
    """2N - 1 forward and N reverse steps an evaluation as long as all states are kept; at most 3N with two levels."""
    for steps in (6, 80):
        velocity = NetworkVelocity(Still())
        found = DFlow(Euler(velocity), FIRST, iterations=2).optimise(normal((3, 1, 5, 8), 63), times(steps))
        assert velocity.backward_calls == found.evaluations * steps
        assert velocity.calls == found.evaluations * (2 * steps - 1) if steps == 6 else velocity.calls < found.evaluations * 3 * steps


GUIDED = (
    "guided",
    "guided:energy=residual,clip=2",
    "posterior",
    "diffusionpde",
    "d-flow:iterations=5",
    "flower:gamma=1",
    "source-chain:moves=4",
)


@pytest.mark.parametrize("method", GUIDED)
def test_samples_are_lawful_and_independent_of_their_company(method: str) -> None:
    law = Intersection(FIRST, SENSORS)
    whole = pcfm.sample(flow(), 3, law=law, method=method, steps=4)
    assert whole.converged.all()
    assert (whole.u[:, :, 0] - FIRST.target.reshape(3, 1, 8)).abs().max() < 1e-12
    alone = [pcfm.sample(flow(), 1, law=law.take(slice(i, i + 1)), method=method, steps=4, start=i).u for i in range(3)]
    assert (whole.u - torch.cat(alone)).abs().max() < 1e-5
    single = pcfm.sample(flow(), 3, law=law, method=method, steps=4, dtype=torch.float32)
    assert single.u.dtype == torch.float32
    assert single.converged.all()


@pytest.mark.parametrize("method", [name for name in GUIDED if "flower" not in name])
def test_guidance_alone_brings_samples_nearer_to_the_law(method: str) -> None:
    """As published, without a last projection; not lawful, and said to be so."""
    kind = method.split(":")[0]
    text = f"{method}{',' if ':' in method else ':'}final=false"
    if kind == "diffusionpde":
        text += ",observed=0.5"
    if kind == "source-chain":
        text = "source-chain:final=false,moves=40"
    guided = pcfm.sample(flow("white"), 3, law=FIRST, method=text, steps=20)
    free = pcfm.sample(flow("white"), 3, steps=20)

    def misfit(u: Tensor) -> Tensor:
        return (u[:, :, 0] - FIRST.target.reshape(3, 1, 8)).norm(dim=(1, 2))

    assert (misfit(guided.u) < 0.7 * misfit(free.u)).all()
    assert torch.allclose(guided.certificate["violation"][:, 0], (guided.u[:, :, 0] - FIRST.target.reshape(3, 1, 8)).abs().amax((1, 2)))
    assert guided.projections == 0 or kind in ("guided", "source-chain")
    assert (guided.certificate["distance"] == 0).all()


def test_laws_under_noise_are_not_projected_on() -> None:
    """A posterior sampler has used the observation; projecting on it again would count it twice."""
    samples = pcfm.sample(flow(), 3, law=SENSORS, method="posterior", steps=4)
    assert samples.projections == 0
    assert samples.converged.all()
    assert (samples.certificate["violation"] > 1e-6).all()


def test_inequalities_are_left_to_the_last_projection_or_to_distances() -> None:
    law = positivity()
    both = pcfm.sample(flow(), 3, law=Intersection(FIRST.take(slice(0, 1)), law), method="posterior", steps=3)
    assert both.u.shape == (3, 1, 5, 8)
    guided = pcfm.sample(flow(), 3, law=law, method="guided", steps=3)
    assert guided.converged.all()
    assert (guided.u >= 0).all()


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("guided:strength=0", "positive strength"),
        ("guided:gradient=nowhere", "network, endpoint, state"),
        ("guided:energy=joule", "distance, residual"),
        ("guided:clip=-1", "clip"),
        ("posterior:covariance=zero", "is exact"),
        ("posterior:covariance=one", "jacobian, isotropic, zero"),
        ("posterior:iterations=0", "at least one iteration"),
        ("diffusionpde:observed=-1", "not negative"),
        ("d-flow:blend=2", "blend"),
        ("d-flow:regulariser=none", "ridge, radial"),
        ("flower:gamma=2", "gamma"),
        ("source-chain:length=3", "length"),
    ],
)
def test_options_out_of_range_are_refused(method: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pcfm.sample(flow(), 3, law=FIRST, method=method, steps=2)


def test_wrong_calls_are_refused() -> None:
    path, velocity = AffinePath(), GaussianFlow(0.0, 1.0)
    with pytest.raises(ValueError, match="at least one guidance"):
        GuidedVelocity(velocity, path, [])
    with pytest.raises(ValueError, match="start in"):
        GuidedVelocity(velocity, path, [VelocityDrift(ResidualEnergy(EXACT))], start=0.0)
    with pytest.raises(ValueError, match="AffinePath"):
        GuidedVelocity(velocity, object(), [VelocityDrift(ResidualEnergy(EXACT))])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="observed with noise"):
        DistanceEnergy(NOISY)
    with pytest.raises(ValueError, match="inequality"):
        GaussianPosterior(positivity())
    with pytest.raises(ValueError, match="energy for each"):
        MonteCarlo(torch.zeros(3, 1, 2), torch.zeros(2))
    with pytest.raises(ValueError, match=r"shape \(2,\)"):
        FunctionEnergy(lambda u: u.sum())(torch.zeros(2, 1, 3))
    for method in ("posterior", "flower"):
        with pytest.raises(ValueError, match="at least one equality"):
            pcfm.sample(flow(), 3, law=positivity(), method=method, steps=2)
    assert {"guided", "posterior", "diffusionpde", "d-flow", "flower", "source-chain"} <= set(METHODS)
    assert GuidedFlow.lawful
