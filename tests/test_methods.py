"""Every sampling method: against what it was published as, against exact conditional distributions, and in what it costs."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from scipy.integrate import solve_ivp
from torch import Tensor, nn

import pcfm
from constraints import (
    Axis,
    Bounds,
    DivergenceFree,
    Energy,
    FunctionConstraint,
    Grid,
    InitialCondition,
    Intersection,
    Mass,
    Momentum,
    Monotone,
    PointValues,
    project,
)
from constraints.constraint import Constraint
from constraints.newton import certified, gauss_newton_step, tangent
from pcfm.methods import METHODS, Setting, build
from pcfm.path import AffinePath
from pcfm.samplers import (
    ECI,
    ConsistentFlow,
    DualFlow,
    Euler,
    Heun,
    PredictProjectRenoise,
    ProjectedDiffusion,
    ProjectedEnd,
    ProjectedFlow,
    PublishedFlow,
    Renoise,
    RungeKutta4,
    Sampler,
    TangentFlow,
)
from pcfm.samplers.dual import _squared_norm
from pcfm.schedule import Cosine
from pcfm.velocity import GaussianFlow
from tests.oracles import Gaussian, GaussianOracle, pushed, wasserstein

PATH = AffinePath()
SIZE = 4
LINE = Grid(Axis("x", SIZE))
Noise = Callable[[], Tensor]


def normal(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def grid_of(steps: int) -> Tensor:
    return torch.linspace(0, 1, steps + 1, dtype=torch.float64)


def correlated() -> Gaussian:
    factor = normal((SIZE, SIZE), 0)
    covariance = factor @ factor.T / 16 + 0.1 * torch.eye(SIZE, dtype=torch.float64)
    return Gaussian(torch.tensor([0.5, -0.3, 0.8, 0.1], dtype=torch.float64), covariance)


def line_law() -> Constraint:
    """The mean of the line, and its first value."""
    first = torch.zeros(1, SIZE, dtype=torch.bool)
    first[0, 0] = True
    return Intersection(Mass(LINE, 0.5), PointValues(first, torch.tensor([0.9], dtype=torch.float64)))


def rows_of(law: Constraint) -> tuple[Tensor, Tensor]:
    """A and b of a linear law."""
    origin = torch.zeros(1, 1, SIZE, dtype=torch.float64)
    count = law.residual(origin).shape[1]
    return law.jacobian(origin).adjoint(torch.eye(count, dtype=torch.float64))[:, 0], -law.residual(origin)[0]


def curved_law() -> Constraint:
    """Three quadratic equations of eight unknowns, coupled."""
    forms = normal((3, 8, 8), 5) / 8

    def residual(u: Tensor) -> Tensor:
        return torch.einsum("bi,kij,bj->bk", u[:, 0], forms + forms.mT, u[:, 0]) + u[:, 0, :3] - 0.5

    return FunctionConstraint(residual)


# Gauss-Newton steps -------------------------------------------------------------------------------------------------------------------


def dense(law: Constraint, u: Tensor) -> tuple[Tensor, Tensor]:
    """Residual and Jacobian of one sample (n,), by automatic differentiation."""

    def residual(v: Tensor) -> Tensor:
        return law.residual(v.reshape(1, 1, -1))[0]

    return residual(u), torch.autograd.functional.jacobian(residual, u)


@pytest.mark.parametrize("ridge", [0.0, 1e-6, 0.1])
@pytest.mark.parametrize("anchored", [False, True])
def test_gauss_newton_step_is_the_dense_one(ridge: float, anchored: bool) -> None:
    law, u = curved_law(), normal((5, 1, 8), 1)
    anchor = u + 0.1 * normal((5, 1, 8), 2)
    step = gauss_newton_step(law, u, anchor=anchor if anchored else None, ridge=ridge)
    for i in range(len(u)):
        h, jacobian = dense(law, u[i, 0])
        start = anchor[i, 0] if anchored else u[i, 0]
        y = torch.linalg.solve(jacobian @ jacobian.T + ridge * torch.eye(3), h + jacobian @ (start - u[i, 0]))
        assert torch.allclose(step.u[i, 0], start - jacobian.T @ y, atol=1e-11)
        assert torch.allclose(step.multiplier[i], y, atol=1e-10)


def test_gauss_newton_step_on_a_linear_law_is_the_projection_and_a_ridge_stops_short() -> None:
    law, u = line_law(), normal((3, 1, SIZE), 3)
    nearest = project(law, u).u
    assert torch.allclose(gauss_newton_step(law, u).u, nearest, atol=1e-14)
    left = law.residual(gauss_newton_step(law, u, ridge=1e-6).u).abs().max()
    assert 1e-8 < left < 1e-4


def test_gauss_newton_step_leaves_inequalities_that_hold() -> None:
    law = Intersection(Bounds(-1.0, 1.0), Mass(LINE, 0.0))
    inside = torch.tensor([[[0.5, -0.5, 0.5, -0.5]]], dtype=torch.float64)
    outside = torch.tensor([[[3.0, -0.5, 0.5, -0.5]]], dtype=torch.float64)
    assert torch.allclose(gauss_newton_step(law, inside).u, project(Mass(LINE, 0.0), inside).u, atol=1e-14)
    assert gauss_newton_step(law, outside).u[0, 0, 0].item() == pytest.approx(1.0, abs=1e-12)


def test_modes_of_repeated_steps() -> None:
    """Root finding meets the law away from the nearest point, anchored steps find that, the reference's least squares leave."""
    law, u = curved_law(), 0.2 * normal((6, 1, 8), 4)
    nearest = project(law, u).u
    flow = GaussianFlow(0.0, 1.0)

    def after(mode: str, steps: int) -> Tensor:
        return ProjectedFlow(flow, PATH, law, newton=steps, mode=mode)._project(u)

    root, anchored = after("root", 30), after("anchored", 100)
    assert law.residual(root).abs().max() < 1e-12
    assert ((root - u).flatten(1).norm(dim=1) > (nearest - u).flatten(1).norm(dim=1) + 1e-5).all()
    assert torch.allclose(anchored, nearest, atol=1e-9)
    assert torch.allclose(after("least-squares", 1), after("anchored", 1), atol=1e-13)
    assert law.residual(after("least-squares", 12)).abs().amax() > 1.0


def test_tangent_directions_leave_the_law_unchanged() -> None:
    law, u, direction = curved_law(), normal((4, 1, 8), 6), normal((4, 1, 8), 7)
    along = tangent(law, u, direction)
    assert law.jacobian(u)(along).abs().max() < 1e-12
    assert torch.allclose(tangent(law, u, along), along, atol=1e-12)
    assert torch.allclose((along * direction).sum(), along.square().sum(), rtol=1e-12)


def test_certificate_of_fields_found_otherwise() -> None:
    law, u = curved_law(), 0.4 * normal((4, 1, 8), 4)
    nearest = project(law, u)
    same = certified(law, nearest.u, u, nearest.multiplier)
    assert same.converged.all()
    assert torch.equal(same.violation, nearest.violation)
    asis = certified(law, u, u)
    assert not asis.converged.any()
    assert torch.equal(asis.violation, law.residual(u).abs().amax(1))
    assert asis.stationarity.abs().max() == 0
    step = gauss_newton_step(law, u, anchor=u)
    once = certified(law, step.u, u, step.multiplier, 1)
    assert (once.violation > 1e-6).all()
    assert (once.stationarity > 1e-6).all()


# PCFM as published --------------------------------------------------------------------------------------------------------------------


def executed(law: Constraint, flow: GaussianFlow, x0: Tensor, steps: int, weight: float, final: int) -> Tensor:
    """The algorithm of the reference's code for one sample (n,), written densely: root mode, one step, ridge 1e-6, frozen velocity."""
    u, eye = x0, torch.eye(3, dtype=x0.dtype)
    for k in range(steps):
        t, s = k / steps, (k + 1) / steps
        v = flow(u, torch.tensor(t, dtype=torch.float64))
        end = u + (1 - t) * v
        h, jacobian = dense(law, end)
        end = end - jacobian.T @ torch.linalg.solve(jacobian @ jacobian.T + 1e-6 * eye, h)
        centre = (1 - s) * x0 + s * end
        u = centre
        for _ in range(20 if weight else 0):
            h, jacobian = dense(law, u + max(1 - s, 1e-3) * v)
            u = u - 1e-2 * (2 * (u - centre) + 2 * weight * jacobian.T @ h)
    start = u
    for _ in range(final):
        h, jacobian = dense(law, u)
        u = start - jacobian.T @ torch.linalg.solve(jacobian @ jacobian.T, h + jacobian @ (start - u))
    return u


@pytest.mark.parametrize(("weight", "final"), [(0.0, 1), (1.0, 0), (1.0, 3)])
def test_published_is_the_reference_step_for_step(weight: float, final: int) -> None:
    law, flow, x0 = curved_law(), GaussianFlow(0.3, 0.6), normal((3, 1, 8), 8)
    sampler = PublishedFlow(flow, PATH, law, weight=weight, final=final > 0, finish=max(final, 1))
    sample = sampler.sample(x0, grid_of(7))
    expected = torch.stack([executed(law, flow, row, 7, weight, final) for row in x0[:, 0]])[:, None]
    assert torch.allclose(sample.x, expected, atol=1e-10)
    assert sample.projection is not None
    assert torch.equal(sample.projection.violation, law.residual(sample.x).abs().amax(1))


def test_relaxed_correction_of_algorithm_1_descends_its_objective() -> None:
    """Unfrozen, the velocity is differentiated at the state and time of the correction."""
    law, flow = curved_law(), GaussianFlow(0.3, 0.6)
    sampler = ProjectedFlow(flow, PATH, law, weight=0.7, rate=0.05, iterations=600, frozen=False)
    centre, s = normal((2, 1, 8), 9), torch.tensor(0.6, dtype=torch.float64)

    def objective(x: Tensor) -> Tensor:
        return (x - centre).square().sum() + 0.7 * law.residual(x + (1 - s) * flow(x, s)).square().sum()

    free = centre.clone().requires_grad_()
    objective(free).backward()
    assert free.grad is not None
    assert torch.allclose(2 * 0.7 * sampler._slope(centre, None, s), free.grad, atol=1e-12)
    found = sampler._relaxed(centre, None, s).requires_grad_()
    objective(found).backward()
    assert found.grad is not None
    assert found.grad.abs().max() < 1e-6
    assert not sampler._relaxed(centre, None, s).requires_grad


def test_shooting_by_the_solver_reaches_the_end_of_the_flow() -> None:
    oracle = GaussianOracle(correlated())
    law, x0 = line_law(), normal((4, 1, SIZE), 10)
    sampler = ProjectedFlow(oracle, PATH, law, base=RungeKutta4(oracle), shoot=40)
    end = sampler(x0, torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert oracle.calls == 4 * 40
    assert torch.allclose(end, project(law, oracle.transport(x0)).u, atol=1e-5)


# Exact distributions ------------------------------------------------------------------------------------------------------------------

STEPS = 50


def made(text: str, oracle: GaussianOracle, law: Constraint, noise: Noise, solver: Callable[[GaussianOracle], Sampler] = Euler) -> Sampler:
    return build(text, Setting(solver(oracle), oracle, PATH, law, noise))


CASES: dict[str, tuple[str, int, int, float]] = {
    "project-end": ("project-end", 0, STEPS, 0.25),
    "pcfm": ("pcfm", 0, STEPS, 2.0),
    "pcfm-published": ("pcfm-published", 0, STEPS, 2.0),
    "pcfm-consistent": ("pcfm-consistent", 0, STEPS, 0.06),
    "eci": ("eci:mix=2", 0, 2 * STEPS, 3.0),
    "eci, new noise": ("eci:mix=1,resample=5", 10, STEPS, 0.6),
    "pdm": ("pdm", 5 * (STEPS - 1), 5 * (STEPS - 1) + 1, 0.08),
    "pdm, sde": ("pdm:process=sde", STEPS - 1, STEPS, 0.12),
    "pdm, ode": ("pdm:process=ode", 0, STEPS, 0.14),
    "ppr": ("ppr", 2 * (STEPS - 1), STEPS + 2 * (STEPS - 1), 0.3),
    "tangent": ("tangent", 0, STEPS, 0.3),
    "tangent, lawful noise": ("tangent:lawful_noise=true", 0, STEPS, 0.06),
    "dual": ("dual", 0, 2 * STEPS, 0.13),
    "pbfm-project": ("pbfm-project", 10, STEPS, 0.25),
}
"""Method, its draws of noise and network calls, and a bound on its distance from the conditional distribution."""


@pytest.mark.parametrize("name", CASES)
def test_samples_of_a_correlated_gaussian_under_linear_laws(name: str, figure: Callable[..., None]) -> None:
    """Lawful to round-off with no spread across the law; how far from the exact conditional distribution, for the record.

    Without any law the distance is 1.06.
    """
    text, draws, calls, bound = CASES[name]
    oracle, law = GaussianOracle(correlated()), line_law()
    rows, values = rows_of(law)
    truth = oracle.target.given(rows, values)
    found = pushed(lambda noise: made(text, oracle, law, noise), SIZE, grid_of(STEPS), draws)
    assert oracle.calls == calls
    assert (rows @ found.mean - values).abs().max() < 1e-12
    assert (rows @ found.covariance @ rows.T).abs().max() < 1e-12
    distance = wasserstein(found, truth)
    assert distance < bound
    figure("methods", f"W2 to the conditional Gaussian, {STEPS} steps, {name}", distance, "tests/test_methods.py")
    figure("methods", f"error of the mean, {name}", (found.mean - truth.mean).norm(), "tests/test_methods.py")
    figure("methods", f"error of the covariance, {name}", (found.covariance - truth.covariance).norm(), "tests/test_methods.py")


def test_the_consistent_flow_tends_to_the_conditional_distribution_and_pcfm_away_from_it() -> None:
    oracle, law = GaussianOracle(correlated()), line_law()
    truth = oracle.target.given(*rows_of(law))
    gaps = {
        text: [wasserstein(pushed(lambda noise: made(text, oracle, law, noise), SIZE, grid_of(n)), truth) for n in (25, 100, 400)]  # noqa: B023
        for text in ("pcfm-consistent", "pcfm", "project-end")
    }
    a, b, c = gaps["pcfm-consistent"]
    assert a > 1.5 * b > 2.25 * c
    a, b, c = gaps["pcfm"]
    assert 1 < a < b / 1.5 < c / 2.25
    assert min(gaps["project-end"]) > 0.19


def test_projected_langevin_tends_to_the_conditional_distribution() -> None:
    """With enough steps at each level: what other processes of projected states do not."""
    oracle, law = GaussianOracle(correlated()), line_law()
    truth = oracle.target.given(*rows_of(law))

    def distance(text: str, levels: int, draws: int) -> float:
        return wasserstein(pushed(lambda noise: made(text, oracle, law, noise), SIZE, grid_of(levels), draws), truth)

    assert distance("pdm:inner=2", 25, 48) > 2 * distance("pdm:inner=8", 25, 192)
    assert distance("pdm:inner=8", 100, 792) < 0.04
    assert distance("pdm:process=ode", 100, 0) > 0.1


def test_langevin_at_one_level_has_the_conditional_marginal_up_to_its_step() -> None:
    """The stationary law of y = x/α is N(m, S + ς² I) given A y = b, with an error in proportion to the step."""
    oracle, law = GaussianOracle(correlated()), line_law()
    level = torch.tensor(0.6, dtype=torch.float64)
    noisy = Gaussian(oracle.target.mean, oracle.target.covariance + (0.4 / 0.6) ** 2 * torch.eye(SIZE, dtype=torch.float64))
    truth = noisy.given(*rows_of(law))
    errors = []
    for rate, inner in ((0.2, 120), (0.1, 240)):

        def chain(noise: Noise, rate: float = rate, inner: int = inner) -> Callable[[Tensor, Tensor], Tensor]:
            sampler = ProjectedDiffusion(Euler(oracle), oracle, PATH, law, noise, rate=rate, inner=inner)
            return lambda x0, times: sampler.step(x0, times[0], level, x0) / level

        found = pushed(chain, SIZE, grid_of(1), inner)  # type: ignore[arg-type]
        assert (found.mean - truth.mean).abs().max() < 1e-3
        errors.append(float((found.covariance - truth.covariance).norm()))
    assert 1.7 < errors[0] / errors[1] < 2.6
    assert errors[1] < 0.1


def test_the_sde_keeps_the_marginals_of_the_flow_where_the_law_is_idle() -> None:
    """At order 1, whatever the churn; without the score's drift it would not."""
    variances = torch.tensor([0.3, 0.5, 1.5, 0.8], dtype=torch.float64)
    oracle = GaussianOracle(Gaussian(torch.tensor([0.2, 0.4, -0.5, 1.0], dtype=torch.float64), torch.diag(variances)))
    first = torch.tensor([[True, False, False, False]])
    law = PointValues(first, torch.tensor([0.2], dtype=torch.float64))
    for churn in (0.5, 1.0):
        errors = []
        for steps in (40, 80):
            text = f"pdm:process=sde,churn={churn}"
            found = pushed(lambda noise: made(text, oracle, law, noise), SIZE, grid_of(steps), steps - 1)  # noqa: B023
            assert (found.mean - oracle.target.mean).abs().max() < 0.03
            errors.append((found.covariance.diagonal()[1:] - variances[1:]).abs().max())
        assert errors[1] < 0.04
        assert 1.6 < errors[0] / errors[1] < 2.4


def test_ppr_keeps_the_mean_and_loses_spread() -> None:
    """Its endpoint is a mean, not a draw: the more corrections, the nearer the mean and the less spread."""
    oracle, law = GaussianOracle(correlated()), line_law()
    truth = oracle.target.given(*rows_of(law))
    found = {
        k: pushed(lambda noise: made(f"ppr:inner={k}", oracle, law, noise), SIZE, grid_of(60), 59 * k)  # noqa: B023
        for k in (1, 4)
    }
    errors = {k: (law_.mean - truth.mean).norm() for k, law_ in found.items()}
    spread = {k: law_.covariance.trace() / truth.covariance.trace() for k, law_ in found.items()}
    assert errors[4] < errors[1] / 1.5
    assert spread[4] < spread[1] < 0.8


def test_renoising_by_hand() -> None:
    """One value, N(m, s²): the recursion of mean and variance of each step written out."""
    mean, std, steps, until = 0.6, 0.5, 10, 0.35
    target = Gaussian(torch.full((1,), mean, dtype=torch.float64), torch.tensor([[std**2]], dtype=torch.float64))
    oracle = GaussianOracle(target)
    found = pushed(lambda noise: Renoise(Euler(oracle), oracle, PATH, noise, until), 1, grid_of(steps), 4)
    centre, variance = 0.0, 1.0
    for k in range(steps):
        t, s = k / steps, (k + 1) / steps
        end = t * std**2 / (t**2 * std**2 + (1 - t) ** 2)
        speed = (t * std**2 - (1 - t)) / (t**2 * std**2 + (1 - t) ** 2)
        if t < until:
            centre, variance = s * (mean + end * (centre - t * mean)), s**2 * end**2 * variance + (1 - s) ** 2
        else:
            centre, variance = centre + (s - t) * (mean + speed * (centre - t * mean)), (1 + (s - t) * speed) ** 2 * variance
    assert found.mean.item() == pytest.approx(centre, abs=1e-13)
    assert found.covariance.item() == pytest.approx(variance, abs=1e-13)


# Equal methods ------------------------------------------------------------------------------------------------------------------------


def test_eci_without_mixing_is_pcfm() -> None:
    oracle, x0 = GaussianOracle(correlated()), normal((5, 1, SIZE), 11)
    for law in (line_law(), Intersection(Bounds(-0.5, 1.0), Mass(LINE, 0.5))):
        plain = ECI(oracle, PATH, law, lambda: x0, mix=1)(x0, grid_of(12))
        assert torch.equal(plain, ProjectedFlow(oracle, PATH, law)(x0, grid_of(12)))


def test_eci_mixes_by_hand() -> None:
    """A law on the first of two values; the other against its recursion, with new noise at every third turn."""
    mean, std, steps, mix = 0.7, 0.5, 4, 2
    draws = normal((2, 3, 1, 2), 12)
    flow, x0, made_ = GaussianFlow(mean, std), normal((3, 1, 2), 13), iter(draws)
    law = FunctionConstraint(lambda u: u[:, 0, :1] - 0.4)
    sampler = ECI(flow, PATH, law, lambda: next(made_), mix=mix, resample=3)
    sample = sampler(x0, grid_of(steps))
    free, noise, turn, fresh = x0[:, 0, 1], x0[:, 0, 1], 0, iter(draws)
    for k in range(steps):
        t = k / steps
        for last in (False, True):
            turn += 1
            noise = next(fresh)[:, 0, 1] if turn % 3 == 0 else noise
            end = mean + t * std**2 / (t**2 * std**2 + (1 - t) ** 2) * (free - t * mean)
            s = t + last / steps
            free = s * end + (1 - s) * noise
    assert torch.allclose(sample[:, 0, 1], free, atol=1e-13)
    assert torch.allclose(sample[:, 0, 0], torch.full((3,), 0.4, dtype=torch.float64), atol=1e-14)
    assert sampler.memory.count == steps * mix
    made_ = iter(draws)
    assert torch.equal(sampler(x0, grid_of(steps)), sample), "a second trajectory begins with the noise of its own start"


def test_projecting_states_of_the_flow_is_moving_along_a_linear_law_from_lawful_noise() -> None:
    oracle, law, x0 = GaussianOracle(correlated()), line_law(), normal((4, 1, SIZE), 14)
    states = ProjectedDiffusion(Euler(oracle), oracle, PATH, law, lambda: x0, process="ode", scaled=False)
    along = TangentFlow(Euler(oracle), oracle, PATH, law, lawful_noise=True)
    for x, y in zip(list(states.iterate(x0, grid_of(9)))[2:], list(along.iterate(x0, grid_of(9)))[2:], strict=True):
        assert (law.residual(x).abs().max(), law.residual(y).abs().max()) < (1e-13, 1e-13)
    assert torch.allclose(along(project(law, x0).u, grid_of(9)), along(x0, grid_of(9)), atol=1e-13)


# The tangent flow ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", [Euler, Heun, RungeKutta4])
def test_rows_of_a_linear_law_stay_along_its_tangent(rule: Callable[[GaussianOracle], Sampler]) -> None:
    oracle, law, x0 = GaussianOracle(correlated()), line_law(), normal((4, 1, SIZE), 15)
    places = [TangentFlow(rule(oracle), oracle, PATH, law, at=at, final=False).sample(x0, grid_of(8)) for at in ("endpoint", "state")]
    assert torch.allclose(places[0].x, places[1].x, atol=1e-13)
    assert torch.allclose(law.residual(places[0].x), law.residual(x0), atol=1e-13)
    assert places[0].projection is not None
    assert not places[0].projection.converged.any()
    lawful = TangentFlow(rule(oracle), oracle, PATH, law, lawful_noise=True, final=False).sample(x0, grid_of(8))
    assert law.residual(lawful.x).abs().max() < 1e-13


def test_a_curved_law_drifts_along_its_tangent_at_the_order_of_the_solver() -> None:
    oracle, x0 = GaussianOracle(correlated()), normal((8, 1, SIZE), 16)
    law = FunctionConstraint(lambda u: u.square().flatten(1).sum(1, keepdim=True) - 4.0)
    drifts = []
    for steps in (20, 40):
        sampler = TangentFlow(RungeKutta4(oracle), oracle, PATH, law, at="state", lawful_noise=True, final=False)
        drifts.append(law.residual(sampler(x0, grid_of(steps))).abs().max())
    assert torch.log2(drifts[0] / drifts[1]).item() == pytest.approx(4, abs=0.5)


# The dual flow ------------------------------------------------------------------------------------------------------------------------


def nowhere(x: Tensor, t: Tensor) -> Tensor:
    return torch.zeros_like(x)


def test_dual_flow_of_one_row_is_its_differential_equation_at_order_2() -> None:
    """r' = -(λ + r), λ' = r/(1-t)²: no velocity, a row of unit norm; against an adaptive solver, up to t = 0.8."""
    law = FunctionConstraint(lambda u: u[:, 0, :1])
    reference = solve_ivp(
        lambda t, y: [-(y[1] + y[0]), y[0] / (1 - t + 1e-6) ** 2], (0, 0.8), [1.5, 0.0], method="DOP853", rtol=1e-12, atol=1e-14
    ).y[0, -1]
    x0 = torch.tensor([[[1.5, 0.3]]], dtype=torch.float64)
    errors = []
    for steps in (100, 200):
        states = list(DualFlow(nowhere, law).iterate(x0, 0.8 * grid_of(steps)))
        errors.append(abs(states[-1][0, 0, 0].item() - reference))
        assert states[-1][0, 0, 1].item() == pytest.approx(0.3)
    assert math.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.2)
    assert errors[1] < 1e-3


def test_dual_flow_approaches_the_law_like_a_root_of_the_time_left() -> None:
    """Near the end r = sqrt(1 - t) cos(ω ln(1 - t) + c), ω = √3/2: half a turn later the sign has changed and the root remains."""
    law, x0 = FunctionConstraint(lambda u: u[:, 0, :1]), torch.ones(1, 1, 1, dtype=torch.float64)
    turn = math.pi / (math.sqrt(3) / 2)
    left = torch.exp(-torch.linspace(0, 4 + turn, 801, dtype=torch.float64))
    states = torch.stack(list(DualFlow(nowhere, law).iterate(x0, 1 - left)))[:, 0, 0, 0]
    at = int((left - math.exp(-4)).abs().argmin())
    assert (states[at] / states[-1]).item() == pytest.approx(-math.exp(turn / 2), rel=0.05)


def test_dual_flow_leaves_inequalities_that_hold_and_pushes_others_inside() -> None:
    oracle, x0 = GaussianOracle(correlated()), normal((6, 1, SIZE), 17)
    free = DualFlow(oracle, Bounds(-100.0, None), final=False)(x0, grid_of(30))
    loose = DualFlow(oracle, FunctionConstraint(lambda u: 0 * u[:, 0, :1]), final=False)(x0, grid_of(30))
    assert torch.equal(free, loose)
    bounds = Bounds(None, 0.6)
    pushed_ = DualFlow(oracle, bounds, weight=5.0, final=False).sample(x0, grid_of(200))
    excess = (pushed_.x - 0.6).clamp_min(0).max()
    assert 0 < excess < 0.05 * (free - 0.6).clamp_min(0).max()
    ended = DualFlow(oracle, bounds, weight=5.0).sample(x0, grid_of(200))
    assert ended.projection is not None
    assert ended.projection.converged.all()
    assert (ended.x <= 0.6).all()


def test_dual_flow_is_stable_in_any_unit_but_as_published_for_small_rows_only() -> None:
    oracle, x0 = GaussianOracle(correlated()), normal((3, 1, SIZE), 18)

    def end(factor: float, steps: int = 50, **options: bool) -> Tensor:
        law = FunctionConstraint(lambda u: factor * (u[:, 0].sum(1, keepdim=True) - 1.0))
        return law.residual(DualFlow(oracle, law, final=False, **options)(x0, grid_of(steps))) / factor  # type: ignore[arg-type]

    assert end(1.0, whiten=False).abs().max() < 1.0
    assert end(20.0, whiten=False).abs().max() > 1e10
    for steps in (2, 50):
        assert torch.allclose(end(20.0, steps), end(1.0, steps), atol=1e-10)
        assert end(20.0, steps).abs().max() < 5.0


@pytest.mark.parametrize("steps", [2, 30])
def test_dual_flow_is_stable_under_inequalities_in_any_unit(steps: int) -> None:
    """Beside equalities in another unit; the multipliers are those of the scaled rows."""
    oracle, x0 = GaussianOracle(correlated()), normal((6, 1, SIZE), 17)

    def end(factor: float) -> Tensor:
        bound = Monotone(Grid(Axis("x", SIZE, length=SIZE / factor)), "x")
        law = Intersection(bound, FunctionConstraint(lambda u: 30 * (u[:, 0].sum(1, keepdim=True) - 1.0)))
        return DualFlow(oracle, law, final=False)(x0, grid_of(steps))

    assert torch.allclose(end(1.0), end(1e3), atol=1e-9)
    assert end(1e3).abs().max() < 10


def test_norms_by_the_power_method() -> None:
    law, u = curved_law(), normal((5, 1, 8), 1)
    residual, jacobian = law.linearise(u)
    for i, found in enumerate(_squared_norm(jacobian, residual)[:, 0]):
        exact = torch.linalg.matrix_norm(dense(law, u[i, 0])[1], 2) ** 2
        assert 0.8 * exact < found <= (1 + 1e-12) * exact


# Schedules of projections -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rule", "order"), [(Euler, 1), (Heun, 2), (RungeKutta4, 4)])
def test_consistent_flow_has_the_order_of_its_solver_where_the_law_is_idle(rule: Callable[[GaussianFlow], Sampler], order: int) -> None:
    """On the cosine path; a law on one value leaves the others to the flow."""
    path = AffinePath(Cosine())
    flow, x0 = GaussianFlow(mean=1.5, std=0.4, path=path), normal((32, 1, 3), 19)
    law = FunctionConstraint(lambda u: u[:, 0, :1] - 0.3)
    linear = Intersection(PointValues(torch.tensor([[True, False, False]]), torch.tensor([0.3], dtype=torch.float64)), law)
    errors = []
    for steps in (32, 64):
        end = ConsistentFlow(flow, path, linear, base=rule(flow))(x0, grid_of(steps))
        assert torch.allclose(end[:, 0, 0], torch.full((32,), 0.3, dtype=torch.float64), atol=1e-14)
        errors.append((end - flow.transport(x0))[:, 0, 1:].abs().max())
    assert torch.log2(errors[0] / errors[1]).item() == pytest.approx(order, abs=0.3)


@pytest.mark.parametrize("schedule", [None, Cosine()], ids=["linear", "cosine"])
def test_ends_of_the_path_through_two_points(schedule: Cosine | None) -> None:
    path = AffinePath() if schedule is None else AffinePath(schedule)
    x0, x1, t, s = normal((2, 1, 3), 20), normal((2, 1, 3), 21), torch.tensor(0.0), torch.tensor(0.7)
    end, origin = path.ends(path.sample(x0, x1, t).x_t, path.sample(x0, x1, s).x_t, t, s)
    assert torch.allclose(end, x1, atol=1e-6)
    assert torch.allclose(origin, x0, atol=1e-6)


def test_schedules_project_when_they_say() -> None:
    oracle, law, x0 = GaussianOracle(correlated()), line_law(), normal((4, 1, SIZE), 22)

    def run(base: Sampler | None = None, **options: float) -> tuple[Tensor, int]:
        sampler = ConsistentFlow(oracle, PATH, law, base=base, **options)  # type: ignore[arg-type]
        sample = sampler.sample(x0, grid_of(20))
        assert sample.projection is not None
        assert sample.projection.converged.all()
        return sample.x, sampler.projector.projections

    counts = {every: run(every=every)[1] for every in (1, 2, 5, 20)}
    assert counts == {1: 20, 2: 10, 5: 4, 20: 1}
    assert run(since=0.75)[1] == 5
    assert run(since=1.0)[1] == 1
    terminal = ProjectedEnd(Heun(oracle), law)(x0, grid_of(20))
    for options in ({"every": 100}, {"since": 1.0}, {"defect": 1e9}):
        assert torch.allclose(run(Heun(oracle), **options)[0], terminal, atol=1e-12)
    assert torch.equal(run(defect=1e-15)[0], run()[0])


def test_an_adaptive_schedule_judges_samples_by_themselves() -> None:
    oracle, law, x0 = GaussianOracle(correlated()), line_law(), normal((6, 1, SIZE), 23)

    def run(x0: Tensor) -> tuple[Tensor, int]:
        sampler = ConsistentFlow(oracle, PATH, law, defect=0.5)
        return sampler(x0, grid_of(20)), sampler.projector.projections

    together, count = run(x0)
    alone = [run(x0[i : i + 1]) for i in range(6)]
    assert torch.allclose(together, torch.cat([x for x, _ in alone]), atol=1e-13)
    assert len({projections for _, projections in alone}) > 1, "samples that differ in what they need"
    assert min(projections for _, projections in alone) < max(projections for _, projections in alone) <= count < 20


def test_schedules_lie_between_projecting_at_the_end_and_at_every_step() -> None:
    """How far each is from projecting at every step, on a correlated Gaussian; spending projections late is worth little."""
    oracle, law, x0 = GaussianOracle(correlated()), line_law(), normal((400, 1, SIZE), 24)

    def run(**options: float) -> Tensor:
        return ConsistentFlow(oracle, PATH, law, **options)(x0, grid_of(40))  # type: ignore[arg-type]

    full, end = run(), run(since=1.0)
    span = (end - full).square().mean().sqrt()
    share = {name: (run(**options) - full).square().mean().sqrt() / span for name, options in SCHEDULES.items()}
    assert share["every second"] < share["every tenth"] < 1
    assert share["last quarter"] < 1


SCHEDULES: dict[str, dict[str, float]] = {"every second": {"every": 2}, "every tenth": {"every": 10}, "last quarter": {"since": 0.75}}


# All methods through the front door ---------------------------------------------------------------------------------------------------

TAU = 2 * math.pi
PLANE = Grid(Axis("x", 8, length=TAU, periodic=True), Axis("y", 8, length=TAU, periodic=True))


class Bent(nn.Module):
    """A velocity that mixes neighbours and is not linear."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(0.4))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return torch.tanh(self.gain * (x.roll(1, -1) - x.roll(1, -2))) - 0.3 * x


def bent_flow() -> pcfm.Flow:
    return pcfm.wrap(Bent(), grid=PLANE, channels=("u", "v"), source="smooth", roles={"velocity": ("u", "v")})


STOCHASTIC = {"eci:mix=2,resample=3", "pdm:inner=2", "pdm:process=sde", "ppr", "pbfm-project", "pbfm"}
PLAIN = {"project-end", "pcfm", "pcfm-published", "pcfm-consistent", "tangent", "dual"}
NAMES = sorted({*PLAIN, *STOCHASTIC, "pdm:process=ode", "pcfm-consistent:defect=0.3", "dual:whiten=true"})


def plane_law(name: str, count: int) -> Constraint | None:
    if not METHODS[name.partition(":")[0]].lawful:
        return None
    energy = Energy(PLANE, torch.linspace(0.5, 1.5, count, dtype=torch.float64), mean=True)
    return Intersection(DivergenceFree(PLANE), Momentum(PLANE, [0.1, -0.1], mean=True), energy)


@pytest.mark.parametrize("name", NAMES)
def test_samples_do_not_depend_on_their_company(name: str) -> None:
    """Per-sample targets, noise from each sample's own stream, whatever the batch."""
    law = plane_law(name, 5)
    whole = pcfm.sample(bent_flow(), 5, law=law, method=name, steps=4)
    split = pcfm.sample(bent_flow(), 5, law=law, method=name, steps=4, batch=2)
    tail = pcfm.sample(bent_flow(), 2, law=None if law is None else law.take(slice(3, 5)), method=name, steps=4, start=3)
    other = pcfm.sample(bent_flow(), 5, law=law, method=name, steps=4, seed=1)
    assert (whole.u - split.u).abs().max() < 1e-5
    assert (whole.u[3:] - tail.u).abs().max() < 1e-5
    assert (whole.u - other.u).abs().max() > 0.1


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("name", [name for name in NAMES if METHODS[name.partition(":")[0]].lawful])
def test_samples_are_lawful_in_the_end(name: str, dtype: torch.dtype) -> None:
    """To round-off where the last projection converges; as published, the certificate says what is left of a curved law."""
    law = plane_law(name, 3)
    assert law is not None
    samples = pcfm.sample(bent_flow(), 3, law=law, method=name, steps=4, dtype=dtype)
    assert samples.u.dtype == dtype
    left = torch.stack([leaf.residual(samples.u.double()).abs().amax(1) for leaf in law.leaves()], dim=1)
    assert torch.allclose(samples.certificate["violation"], left)
    if name.startswith("pcfm-published"):
        assert not samples.converged.any()
        assert (left[:, 2] > 1e-9).all()
        return
    assert samples.converged.all()
    for leaf in law.leaves():
        residual, scale = leaf.measure(samples.u.double())
        assert (residual.abs() <= (1e-12 if dtype == torch.float64 else 1e-6) * scale).all()


@pytest.mark.parametrize("name", ["pcfm", "pcfm-published", "tangent", "dual"])
def test_methods_may_end_unlawful_as_published(name: str) -> None:
    law = Energy(PLANE, 3.0, mean=True)
    rest = "newton=1," if name == "pcfm" else ""
    samples = pcfm.sample(bent_flow(), 2, law=law, method=f"{name}:{rest}final=false", steps=3)
    assert not samples.converged.any()
    assert torch.equal(samples.certificate["violation"], samples.certificate["violation_before"])
    assert (samples.certificate["violation"] > 1e-9).all()
    assert samples.certificate["distance"].abs().max() == 0


def test_network_calls_and_projections_of_each_method() -> None:
    """With N = 4 steps, one batch."""
    law = InitialCondition(Grid(Axis("time", 5), Axis("x", 8, periodic=True)), normal((1, 8), 25))
    expected = {
        "project-end": (4, 1),
        "pcfm": (4, 4),
        "pcfm:shoot=3": (12, 4),
        "pcfm:weight=1,iterations=5,newton=1": (4, 5),
        "pcfm:weight=1,iterations=5,frozen=false": (24, 5),
        "pcfm-published": (4, 5),
        "pcfm-published:final=false": (4, 4),
        "pcfm-consistent": (4, 4),
        "pcfm-consistent:every=2": (4, 2),
        "eci": (20, 20),
        "eci:mix=1,resample=1": (4, 4),
        "pdm": (16, 16),
        "pdm:process=sde": (4, 4),
        "pdm:process=ode": (4, 4),
        "ppr": (10, 7),
        "tangent": (4, 1),
        "tangent:lawful_noise=true": (4, 2),
        "dual": (8, 1),
        "dual:final=false": (8, 0),
        "pbfm-project": (4, 1),
    }
    flow = pcfm.wrap(Still(), grid=law_grid(law), channels=("u",))
    found = {}
    for name in expected:
        samples = pcfm.sample(flow, 2, law=law, method=name, steps=4)
        found[name] = (samples.network_calls, samples.projections)
    assert found == expected
    assert pcfm.sample(flow, 2, method="pbfm", steps=4).network_calls == 4
    assert pcfm.sample(flow, 2, law=law, method="pcfm-consistent", solver="heun", steps=4).network_calls == 8
    assert pcfm.sample(flow, 2, law=law, method="tangent", solver="rk4", steps=4).network_calls == 16


class Still(nn.Module):
    """A velocity towards zero."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(-0.3))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.gain * x


def law_grid(law: Constraint) -> Grid:
    return Grid(Axis("time", 5), Axis("x", 8, periodic=True))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pcfm:shoot=0", "shoot of at least 1"),
        ("pcfm:mode=newton", "mode among root, anchored, least-squares"),
        ("pcfm:newton=1,ridge=-1", "not to be negative"),
        ("pcfm:mode=anchored", "option 'mode' of method 'pcfm' changes nothing: newton=0"),
        ("pcfm:rate=0.1", "option 'rate' of method 'pcfm' changes nothing: weight=0"),
        ("pcfm-published:final=false,finish=2", "option 'finish' of method 'pcfm-published' changes nothing: final=false"),
        ("pdm:process=ode,inner=3", "option 'inner' of method 'pdm' changes nothing: process=ode"),
        ("pdm:churn=0.5", "option 'churn' of method 'pdm' changes nothing: process=langevin"),
        ("dual:gain=0,power=1", "option 'power' of method 'dual' changes nothing: gain=0"),
        ("guided:gradient=state,damped=true", "option 'damped' of method 'guided' changes nothing"),
        ("posterior:covariance=isotropic,slack=0", "option 'slack' of method 'posterior' changes nothing"),
        ("d-flow:regulariser=radial", "option 'regulariser' of method 'd-flow' changes nothing"),
        ("pcfm-consistent:every=0", "every of at least 1"),
        ("pcfm-consistent:since=2", r"since in \[0, 1\]"),
        ("eci:mix=0", "mix of at least 1"),
        ("pdm:process=ddpm", "process among langevin, sde, ode"),
        ("pdm:rate=2", r"rate in \(0, 2\)"),
        ("ppr:inner=-1", "inner not to be negative"),
        ("tangent:at=start", "one of endpoint, state"),
        ("dual:weight=0", "positive weight"),
        ("pbfm:until=3", r"until in \[0, 1\]"),
        ("pbfm-project:until=3", r"until in \[0, 1\]"),
    ],
)
def test_options_out_of_range_are_refused(text: str, message: str) -> None:
    oracle = GaussianOracle(correlated())
    with pytest.raises(ValueError, match=message):
        made(text, oracle, line_law(), lambda: torch.zeros(1))


STEPS_OF_THEIR_OWN = {"pcfm", "pcfm-published", "eci", "pdm", "dual", "diffusionpde", "flower", "flowdps", "pnp-flow", "ipcfm-slack"}


@pytest.mark.parametrize("name", METHODS)
def test_a_solver_is_used_or_refused(name: str) -> None:
    """Where it is taken, it changes the samples."""
    law = InitialCondition(Grid(Axis("time", 5), Axis("x", 8, periodic=True)), normal((1, 8), 25))
    flow = pcfm.wrap(Still(), grid=law_grid(law), channels=("u",))
    text = {"d-flow": "d-flow:iterations=1", "source-chain": "source-chain:moves=1"}.get(name, name)

    def drawn(solver: str) -> Tensor:
        return pcfm.sample(flow, 2, law=law if METHODS[name].lawful else None, method=text, solver=solver, steps=3).u

    velocity = flow.velocity()
    x = torch.zeros(1, 1, 5, 8)
    sampler = build(text, Setting(Euler(velocity), velocity, PATH, law, lambda: x, flow.source, lambda shape: x))
    if "solver" in sampler.idle():
        with pytest.raises(ValueError, match=f"solver 'heun' changes nothing in method '{name}'"):
            drawn("heun")
    else:
        assert name not in STEPS_OF_THEIR_OWN
        assert (drawn("heun") - drawn("euler")).abs().max() > 1e-6


def test_steps_as_published_take_equalities_only() -> None:
    grid = Grid(Axis("x", 8, periodic=True))
    law = Intersection(Mass(grid, 0.0), Bounds(-1.0, 1.0))
    for name in ("pcfm-published", "pcfm:newton=1", "pcfm:finish=1"):
        with pytest.raises(ValueError, match="take equalities only, as published; got the inequality 'bounds"):
            pcfm.sample(pcfm.wrap(Still(), grid=grid), 2, law=law, method=name, steps=2)
    assert pcfm.sample(pcfm.wrap(Still(), grid=grid), 2, law=law, method="pcfm", steps=2).converged.all()


def test_prediction_alone_is_the_solver() -> None:
    oracle, law, x0 = GaussianOracle(correlated()), line_law(), normal((2, 1, SIZE), 26)
    bare = PredictProjectRenoise(Heun(oracle), oracle, PATH, law, lambda: x0, inner=0)
    assert torch.equal(bare(x0, grid_of(5)), ProjectedEnd(Heun(oracle), law)(x0, grid_of(5)))
