"""Truth from elsewhere: dense numpy, scipy's solvers and schemes written here agree with the projection on small cases."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
import scipy.linalg
import scipy.optimize
import scipy.sparse
import torch
from torch import Tensor

from constraints import (
    Axis,
    Balance,
    Bounds,
    Budget,
    Constraint,
    Covariance,
    Diagonal,
    Dirichlet,
    DivergenceFree,
    Energy,
    EnergyBound,
    EntropyBound,
    EvolutionEquation,
    FinalCondition,
    Grid,
    InitialCondition,
    Intersection,
    LinearInequality,
    Mass,
    Metric,
    Momentum,
    Monotone,
    OneSidedLipschitz,
    PatchMeans,
    PointValues,
    ProjectionResult,
    Sobolev,
    Volumes,
    WeightedIntegral,
    local_conservation,
    no_penetration,
    no_slip,
    positivity,
    project,
)
from constraints.calculus.finite_volume import godunov
from tests.fields import CAVITY, LINE, TAU, burgers, few, half, normal

SAME = 1e-6
"""How far the optimum of an iterative solver may be from the projection."""

DENSE = 1e-9
"""The same for dense linear algebra, and how much lower another objective may be."""

TILE = Grid(Axis("x", 4, length=TAU, periodic=True), Axis("y", 3, length=2.0, periodic=True))
BASIN = Grid(Axis("x", 8, length=2.0), Axis("y", 7))
SHEET = Grid(Axis("time", 3, length=0.5), Axis("x", 4, length=TAU, periodic=True), Axis("y", 3, length=2.0, periodic=True))
SHORT = Grid(Axis("x", 3))
POND = Grid(Axis("time", 2, length=0.5), Axis("x", 7, length=2.0), Axis.at("y", [0.0, 0.1, 0.3, 0.4, 0.8, 1.0]))

Array = np.ndarray
Case = tuple[Callable[[int], Constraint], tuple[int, ...]]
"""A law from a seed, for a batch of three, and what one field looks like."""


class Rows(NamedTuple):
    """The rows of a law as a matrix: A v = b, or A v <= b, or A v = b + noise of variance R."""

    matrix: Array
    target: Array
    variance: Array


def rows(law: Constraint, shape: tuple[int, ...]) -> Rows:
    """Read off the residual of an affine law for one sample, value by value; rows without a finite bound are left out."""
    basis = torch.eye(math.prod(shape), dtype=torch.float64).reshape(-1, *shape)
    start = law.residual(torch.zeros_like(basis[:1]))[0]
    kept = start.isfinite()
    columns = law.residual(basis)[:, kept] - start[kept]
    variance = torch.zeros_like(start) if law.variance is None else law.variance
    return Rows(columns.T.numpy(), -start[kept].numpy(), variance[kept].numpy())


def joined(leaves: list[Constraint], shape: tuple[int, ...]) -> Rows:
    """The rows of several laws, perhaps of none."""
    parts = [rows(leaf, shape) for leaf in leaves]
    matrix = np.concatenate([np.zeros((0, math.prod(shape))), *(part.matrix for part in parts)])
    target, variance = (np.concatenate([np.zeros(0), *column]) for column in ([p.target for p in parts], [p.variance for p in parts]))
    return Rows(matrix, target, variance)


def kernel(matrix: Array) -> Array:
    """An orthonormal basis of what a matrix annihilates."""
    return np.eye(matrix.shape[1]) if not len(matrix) else scipy.linalg.null_space(matrix, rcond=1e-11)


def least(a: Array, b: Array) -> Array:
    """The least-squares solution of least norm."""
    return scipy.linalg.lstsq(a, b, cond=1e-12, lapack_driver="gelsy")[0]


def quadratic(hessian: Array, pull: Array, equal: Rows, unequal: Rows) -> Array:
    """The minimiser of v'Hv/2 - f'v under A v = b and G v <= h.

    In the coordinates of H it is the point of a polyhedron nearest to the origin, which Lawson & Hanson (Solving Least Squares Problems,
    1974, chapter 23) reduce to non-negative least squares; then solved once more as equalities of the active rows.
    """
    back = scipy.linalg.inv(np.linalg.cholesky(hessian).T)
    a, g = equal.matrix @ back, unequal.matrix @ back
    start, free = least(a, equal.target), kernel(a)
    aim = start + free @ (free.T @ (back.T @ pull - start))
    slope, room = g @ free, unequal.target - g @ aim
    size = np.linalg.norm(slope, axis=1)
    slope, room = slope[size > 1e-10] / size[size > 1e-10, None], room[size > 1e-10] / size[size > 1e-10]
    force, _ = scipy.optimize.nnls(-np.vstack([slope.T, room]), np.append(np.zeros(slope.shape[1]), 1.0), maxiter=10000)
    active = force > 1e-11 * max(force.max(), 1.0)
    v = back @ (aim + free @ least(slope[active], room[active]))
    assert (unequal.matrix @ v <= unequal.target + 1e-8).all(), "the independent solver failed"
    return v


def agrees(law: Constraint, u: Tensor, result: ProjectionResult, hessian: Array | None = None) -> None:
    """Every sample is the optimum of the dense quadratic programme."""
    shape, size = tuple(u.shape[1:]), math.prod(u.shape[1:])
    metric = np.eye(size) if hessian is None else hessian
    assert result.converged.all()
    for i in range(len(u)):
        leaves = law.take(slice(i, i + 1)).leaves()
        noisy = joined([leaf for leaf in leaves if leaf.variance is not None], shape)
        equal = joined([leaf for leaf in leaves if leaf.variance is None and not leaf.inequality], shape)
        unequal = joined([leaf for leaf in leaves if leaf.inequality], shape)
        observed = noisy.matrix.T / np.where(noisy.variance > 0, noisy.variance, np.inf)
        point = u[i].flatten().numpy()
        h, f = metric + observed @ noisy.matrix, metric @ point + observed @ noisy.target
        best, found = quadratic(h, f, equal, unequal), result.u[i].flatten().numpy()
        assert np.abs(best - found).max() < SAME
        assert found @ h @ found / 2 - f @ found <= best @ h @ best / 2 - f @ best + DENSE


def sequential(
    value: Callable[[Array], float],
    slope: Callable[[Array], Array],
    linear: Rows,
    curved: tuple[str, Callable[[Array], Array], Callable[[Array], Array]],
    start: Array,
    within: tuple[float, float] | None = None,
) -> Array:
    """SLSQP under linear rows, freed of redundant ones, a curved law and bounds."""
    independent = scipy.linalg.orth(linear.matrix.T, rcond=1e-11).T
    values, (kind, law, gradient) = independent @ least(linear.matrix, linear.target), curved
    laws = [
        {"type": "eq", "fun": lambda v: independent @ v - values, "jac": lambda v: independent},
        {"type": kind, "fun": law, "jac": gradient},
    ]
    bounds = None if within is None else [within] * len(start)
    for _ in range(2):  # round-off may stop the last line search: start again from there
        options = {"ftol": 1e-14, "maxiter": 1000}
        found = scipy.optimize.minimize(value, start, jac=slope, bounds=bounds, constraints=laws, method="SLSQP", options=options)
        start = found.x
        if found.success:
            break
    return start


# --- inequalities ---------------------------------------------------------------------------------------------------------------


def few_rows(seed: int, count: int, size: int) -> scipy.sparse.csr_array:
    generator = np.random.default_rng(seed)
    return scipy.sparse.random_array(
        (count, size), density=0.2, rng=generator, data_sampler=lambda size: generator.standard_normal(size)
    ).tocsr()


PROGRAMMES: dict[str, Case] = {
    "bounds and mass": (lambda s: Intersection(Bounds(-0.4, 0.6), Mass(LINE, 0.3 * normal((3, 5), s).tanh())), (1, 5, 5)),
    "bounds of their own and mass": (
        lambda s: Intersection(Mass(CAVITY, normal((3,), s).tanh()), Bounds(-normal((3, 1, 6, 5), s).abs() - 0.6, 0.6)),
        (1, 6, 5),
    ),
    "bounds, mass conserved": (lambda s: Intersection(Bounds(-0.4, 0.6), Mass(LINE)), (1, 5, 5)),
    "bounds and divergence": (lambda s: Intersection(Bounds(-0.5, 0.7), DivergenceFree(TILE)), (2, 4, 3)),
    "bounds of a channel, divergence and momentum": (
        lambda s: Intersection(DivergenceFree(TILE, "central"), Bounds(upper=0.3, components=[1]), Momentum(TILE, 0.1 * normal((3, 2), s))),
        (2, 4, 3),
    ),
    "bounds and divergence between walls": (
        lambda s: Intersection(Bounds(-0.1, 0.1), DivergenceFree(BASIN, "central"), *no_slip(BASIN)),
        (2, 8, 7),
    ),
    "bounds and staggered divergence": (
        lambda s: Intersection(DivergenceFree(CAVITY, "staggered"), *no_penetration(CAVITY), Bounds(-0.3, 0.2)),
        (2, 6, 5),
    ),
    "bounds and initial data": (
        lambda s: Intersection(InitialCondition(LINE, 0.5 * normal((3, 1, 5), s).tanh()), Bounds(-0.5, 0.5), Mass(LINE)),
        (1, 5, 5),
    ),
    "bounds and patches": (
        lambda s: Intersection(PatchMeans(TILE, torch.arange(12).reshape(4, 3) // 3, 0.3 * normal((3, 4), s).tanh()), Bounds(-0.5, 0.5)),
        (1, 4, 3),
    ),
    "monotone": (lambda s: Monotone(LINE, "x"), (1, 5, 5)),
    "monotone with mass": (lambda s: Intersection(Monotone(LINE, "x", decreasing=True), Mass(LINE, normal((3,), s)[:, None])), (1, 5, 5)),
    "monotone with mass within bounds": (
        lambda s: Intersection(Monotone(LINE, "x"), Mass(LINE, 0.3 * normal((3, 5), s).tanh()), Bounds(-0.5, 0.6)),
        (1, 5, 5),
    ),
    "monotone along both axes": (lambda s: Intersection(Monotone(CAVITY, "x"), Monotone(CAVITY, "y", decreasing=True)), (1, 6, 5)),
    "monotone, one value given": (
        lambda s: Intersection(Monotone(LINE, "x"), Dirichlet(LINE, "x", "lower", normal((3, 1, 5), s))),
        (1, 5, 5),
    ),
    "Oleinik": (lambda s: OneSidedLipschitz(LINE, "x", 1 / torch.linspace(0.5, 2, 5)), (1, 5, 5)),
    "Oleinik with mass": (lambda s: Intersection(OneSidedLipschitz(LINE, "x", 1.0), Mass(LINE, normal((3, 5), s))), (1, 5, 5)),
    "Oleinik around circles": (lambda s: OneSidedLipschitz(TILE, "x", 0.2), (1, 4, 3)),
    "Oleinik around circles, within bounds": (lambda s: Intersection(OneSidedLipschitz(TILE, "x", 0.2), Bounds(-0.8, 0.8)), (1, 4, 3)),
    "Oleinik within bounds": (lambda s: Intersection(OneSidedLipschitz(SHORT, "x", 0.2), Bounds(-0.8, 0.8)), (1, 3)),
    "rising and falling": (lambda s: Intersection(Monotone(SHORT, "x"), Monotone(SHORT, "x", decreasing=True)), (1, 3)),
    "random rows": (lambda s: LinearInequality(few_rows(s, 9, 24), 0.3 * normal((3, 9), s) - 0.2, (2, 4, 3)), (2, 4, 3)),
    "more random rows than values": (lambda s: LinearInequality(few_rows(s, 30, 12), 0.1, (1, 4, 3)), (1, 4, 3)),
    "random rows, divergence and bounds": (
        lambda s: Intersection(LinearInequality(few_rows(s, 6, 24), 0.1, (2, 4, 3)), DivergenceFree(TILE), Bounds(-0.9, 0.9)),
        (2, 4, 3),
    ),
    "noisy points within bounds": (
        lambda s: Intersection(PointValues(half((2, 4, 3)), normal((3, 2, 4, 3), s), variance=0.3), Bounds(-0.6, 0.6)),
        (2, 4, 3),
    ),
    "noisy points within bounds, divergence": (
        lambda s: Intersection(PointValues(half((2, 4, 3)), normal((2, 4, 3), s), variance=0.1), Bounds(-0.6, 0.6), DivergenceFree(TILE)),
        (2, 4, 3),
    ),
    "noisy mean of a monotone profile": (
        lambda s: Intersection(Monotone(LINE, "x"), WeightedIntegral(LINE, torch.ones(1), normal((3, 5), s), variance=0.01)),
        (1, 5, 5),
    ),
}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", PROGRAMMES)
def test_inequalities_against_quadratic_programming(name: str, seed: int) -> None:
    make, shape = PROGRAMMES[name]
    law, u = make(seed), (1 + seed / 2) * normal((3, *shape), 100 + seed)
    agrees(law, u, project(law, u))


METRICS: dict[str, Callable[[Grid, int], Metric]] = {
    "channels": lambda grid, channels: Diagonal(torch.linspace(0.5, 2.0, channels)),
    "values": lambda grid, channels: Diagonal(normal((channels, *grid.shape), 5).exp()),
    "volumes": lambda grid, channels: Volumes(grid),
    "Sobolev": lambda grid, channels: Sobolev(grid, 0.7),
    "negative Sobolev": lambda grid, channels: Sobolev(grid, 0.7, -1.0),
    "covariance": lambda grid, channels: Covariance(grid, {axis.name: covariance(axis) for axis in grid.axes}),
    "covariance along x": lambda grid, channels: Covariance(grid, {"x": covariance(grid.axis("x"))}),
}


def covariance(axis: Axis) -> Tensor:
    """An exponential kernel, of correlation length a third of the axis."""
    x = axis.positions()
    return (2 + 0.1 * len(x)) * torch.exp(-3 * (x[:, None] - x).abs() / axis.extent)


def matrix(name: str, grid: Grid, channels: int) -> Array:
    """M of a metric, from its definition: a dense matrix on flattened fields."""
    space = math.prod(axis.points for axis in grid.space_axes)
    copies = channels * math.prod(grid.shape) // space
    if name == "none":
        return np.eye(copies * space)
    if name == "channels":
        return np.kron(np.diag(np.linspace(0.5, 2.0, channels) ** -2.0), np.eye(math.prod(grid.shape)))
    if name == "values":
        return np.diag(np.exp(-2 * normal((channels, *grid.shape), 5).flatten().numpy()))
    if name == "volumes":
        cells = np.ones(1)
        for axis in grid.space_axes:
            cells = np.kron(cells, np.ones(axis.points) if axis.periodic else trapezoid(axis.positions().numpy()))
        return np.kron(np.eye(copies), np.diag(cells / cells.mean()))
    if name in ("Sobolev", "negative Sobolev"):
        laplacian = np.zeros((1, 1))
        for axis in grid.space_axes:
            k = 2 * np.pi * np.fft.fftfreq(axis.points, axis.extent / axis.points)
            waves = np.fft.fft(np.eye(axis.points), norm="ortho")
            second = -(waves.conj().T @ (k[:, None] ** 2 * waves)).real
            laplacian = np.kron(laplacian, np.eye(axis.points)) + np.kron(np.eye(len(laplacian)), second)
        smooth = np.eye(space) - 0.7**2 * laplacian
        return np.kron(np.eye(copies), smooth if name == "Sobolev" else np.linalg.inv(smooth))
    prior = np.eye(channels)
    for axis in grid.axes:
        prior = np.kron(prior, covariance(axis).numpy() if name == "covariance" or axis.name == "x" else np.eye(axis.points))
    return np.linalg.inv(prior)


def trapezoid(x: Array) -> Array:
    """Trapezoidal weights of points."""
    gaps = np.diff(x)
    return np.append(gaps, 0) / 2 + np.append(0, gaps) / 2


IN_METRICS: dict[str, Callable[[], Constraint]] = {
    "bounds and mass": lambda: Intersection(Bounds(-0.5, 0.6), Mass(TILE, 0.2, channels=2)),
    "positivity": positivity,
    "bounds of a channel and divergence": lambda: Intersection(Bounds(-0.5, 0.6, components=[1]), DivergenceFree(TILE)),
    "random rows and momentum": lambda: Intersection(LinearInequality(few_rows(3, 8, 24), 0.1, (2, 4, 3)), Momentum(TILE, 0.3)),
    "noisy points within bounds": lambda: Intersection(PointValues(half((2, 4, 3)), normal((2, 4, 3), 4), variance=0.2), Bounds(-0.6, 0.6)),
}


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("name", IN_METRICS)
def test_inequalities_in_a_metric_against_quadratic_programming(name: str, metric: str) -> None:
    law, u = IN_METRICS[name](), normal((3, 2, 4, 3), 102)
    agrees(law, u, project(law, u, metric=METRICS[metric](TILE, 2)), matrix(metric, TILE, 2))


@pytest.mark.parametrize("metric", ["Sobolev", "negative Sobolev", "covariance", "covariance along x"])
def test_rows_in_a_metric_that_is_no_diagonal_against_quadratic_programming(metric: str) -> None:
    for seed, equal in enumerate((Momentum(TILE, 0.3), DivergenceFree(TILE), Momentum(TILE, -0.2))):
        law = Intersection(LinearInequality(few_rows(seed, 8, 24), 0.1, (2, 4, 3)), equal)
        u = normal((3, 2, 4, 3), 102 + seed)
        agrees(law, u, project(law, u, metric=METRICS[metric](TILE, 2)), matrix(metric, TILE, 2))


@pytest.mark.parametrize("seed", range(4))
def test_slopes_and_noise_within_bounds_against_bounded_least_squares(seed: int) -> None:
    """A profile is a start and a sum of rises, each bounded; noise adds rows to the least squares."""
    u, x = normal((1, 1, 5, 5), seed), LINE.axes[1].positions().numpy()
    sums, free = np.tril(np.ones((5, 5))), np.full(5, np.inf)
    slopes = 1 / torch.linspace(0.5, 2, 5, dtype=torch.float64)
    rising, slow = project(Monotone(LINE, "x"), u).u[0, 0], project(OneSidedLipschitz(LINE, "x", slopes), u).u[0, 0]
    for n, profile in enumerate(u[0, 0].numpy()):
        up = scipy.optimize.lsq_linear(sums, profile, (np.append(-np.inf, np.zeros(4)), free), method="bvls", tol=1e-14).x
        assert np.abs(sums @ up - rising[n].numpy()).max() < SAME
        most = np.append(np.inf, slopes[n].item() * np.diff(x))
        gentle = scipy.optimize.lsq_linear(sums, profile, (-free, most), method="bvls", tol=1e-14).x
        assert np.abs(sums @ gentle - slow[n].numpy()).max() < SAME
    mask, seen, variance = half((1, 5, 5)), normal((1, 5, 5), 10 + seed), normal((25,), 20 + seed).exp()
    noisy = PointValues(mask, seen, variance=variance[mask.flatten()])
    found = project(Intersection(noisy, Bounds(-0.4, 0.6)), u).u.flatten().numpy()
    picked, weight = mask.flatten().numpy(), variance.rsqrt().numpy()
    system = np.concatenate([np.eye(25), (weight[:, None] * np.eye(25))[picked]])
    values = np.concatenate([u.flatten().numpy(), (weight * seen.flatten().numpy())[picked]])
    best = scipy.optimize.lsq_linear(system, values, (-0.4, 0.6), method="bvls", tol=1e-14).x
    assert np.abs(best - found).max() < SAME


@pytest.mark.parametrize("seed", range(4))
def test_bounds_and_mass_against_every_face(seed: int) -> None:
    """Each value is free, at its lower or at its upper bound: of all 3^6 faces with a feasible nearest point, the nearest."""
    x = np.sort(np.random.default_rng(seed).random(6))
    weights, u, low, high = trapezoid(x), normal((1, 1, 6), seed), -0.3, 0.8
    mass = 0.2 * weights.sum()
    result = project(Intersection(Mass(Grid(Axis.at("x", x.tolist())), mass), Bounds(low, high)), u)
    best, nearest = np.inf, np.zeros(6)
    for face in itertools.product((None, low, high), repeat=6):
        free = np.array([value is None for value in face])
        v = np.where(free, u.flatten().numpy(), np.array([0.0 if value is None else value for value in face]))
        if free.any():
            v = v - free * weights * (weights @ v - mass) / (weights[free] @ weights[free])
        distance = np.square(v - u.flatten().numpy()).sum()
        if abs(weights @ v - mass) < 1e-12 and (low - 1e-12 <= v).all() and (v <= high + 1e-12).all() and distance < best:
            best, nearest = distance, v
    assert result.converged.all()
    assert np.abs(nearest - result.u.flatten().numpy()).max() < DENSE


@pytest.mark.parametrize("seed", range(3))
def test_energy_bound_and_divergence_against_sequential_programming(seed: int) -> None:
    """Energies at each time: one far too small, one just so, one that does not bind."""
    u, most, cell = normal((1, 2, 3, 4, 3), seed), [2.0, 8.0, 60.0], TAU * 2.0 / 12
    law = Intersection(EnergyBound(SHEET, torch.tensor(most)), DivergenceFree(SHEET))
    result, point = project(law, u), u.flatten().numpy()

    def energies(v: Array) -> Array:
        return cell / 2 * np.square(v.reshape(2, 3, 12)).sum((0, 2))

    def slopes(v: Array) -> Array:
        return np.stack([(cell * v.reshape(2, 3, 12) * (np.arange(3) == n)[:, None]).ravel() for n in range(3)])

    best = sequential(
        lambda v: np.square(v - point).sum() / 2,
        lambda v: v - point,
        rows(law.leaves()[1], (2, 3, 4, 3)),
        ("ineq", lambda v: np.array(most) - energies(v), lambda v: -slopes(v)),
        0.1 * point,
    )
    found = result.u.flatten().numpy()
    assert result.converged.all()
    assert np.abs(best - found).max() < SAME
    price = result.multiplier[0, :3].numpy() @ (energies(best) - most).clip(0)  # of what the other solver takes beyond the bound
    assert np.square(found - point).sum() / 2 <= np.square(best - point).sum() / 2 + price + DENSE
    assert energies(found)[2] < 50


ENTROPIES: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Array], Array], Callable[[Array], Array]]] = {
    "cosh": (lambda u: torch.cosh(u[:, 0]) - 1, lambda v: np.cosh(v) - 1, np.sinh),
    "quartic": (lambda u: u[:, 0].pow(4), lambda v: v**4, lambda v: 4 * v**3),
    "exponential": (lambda u: u[:, 0].exp(), np.exp, np.exp),
}


@pytest.mark.parametrize("bounded", [False, True])
@pytest.mark.parametrize("name", ENTROPIES)
@pytest.mark.parametrize("seed", range(2))
def test_entropy_bound_and_mass_against_sequential_programming(name: str, seed: int, bounded: bool) -> None:
    density, eta, slope = ENTROPIES[name]
    weights = np.kron(trapezoid(np.linspace(0, 2, 6)), trapezoid(CAVITY.axes[1].positions().numpy()))
    u, mass = normal((1, 1, 6, 5), seed), 0.4
    least_of_all, now = (weights @ eta(v) for v in (np.full(30, 0.2), u.clamp(-0.5, 0.5).flatten().numpy()))
    most = least_of_all + 0.3 * abs(now - least_of_all)
    laws = [EntropyBound(CAVITY, density, most), Mass(CAVITY, mass), *([Bounds(-0.5, 0.5)] if bounded else [])]
    result, point = project(Intersection(*laws), u), u.flatten().numpy()
    best = sequential(
        lambda v: np.square(v - point).sum() / 2,
        lambda v: v - point,
        Rows(weights[None], np.array([mass]), np.zeros(1)),
        ("ineq", lambda v: np.array([most - weights @ eta(v)]), lambda v: -(weights * slope(v))[None]),
        np.full(30, mass / weights.sum()),
        (-0.5, 0.5) if bounded else None,
    )
    found = result.u.flatten().numpy()
    assert result.converged.all()
    assert result.multiplier[:, 0] > 0
    assert np.abs(best - found).max() < SAME
    price = result.multiplier[0, 0].item() * max(weights @ eta(best) - most, 0.0)  # of what the other solver takes beyond the bound
    assert np.square(found - point).sum() / 2 <= np.square(best - point).sum() / 2 + price + DENSE


def test_what_does_not_bind_changes_nothing() -> None:
    """Inequalities with room are not there: the nearest point is that of the equalities alone."""
    u = normal((3, 2, 4, 3), 1)
    wide = Intersection(
        DivergenceFree(TILE), Bounds(-9.0, 9.0), EnergyBound(TILE, 1e3), LinearInequality(few_rows(1, 5, 24), 1e2, (2, 4, 3))
    )
    result = project(wide, u)
    assert result.converged.all()
    assert (result.u - project(DivergenceFree(TILE), u).u).abs().max() < 1e-12
    assert result.multiplier[:, 12:].abs().max() == 0


def test_bounds_of_extremes_leave_one_field() -> None:
    """All mass that fits: every value is at its bound, and no more fits."""
    u = normal((3, 1, 5, 5), 2)
    full = project(Intersection(Mass(LINE, 0.6), Bounds(-0.5, 0.6)), u)
    assert full.converged.all()
    assert (full.u - 0.6).abs().max() < 1e-11
    above = project(Intersection(Mass(LINE, 0.61), Bounds(-0.5, 0.6)), u)
    assert not above.converged.any()


# --- linear laws, exact and noisy, in every metric --------------------------------------------------------------------------------

SENSED = half((2, 3, 4, 3))
WATCHED = few((2, 2, 7, 6)) | few((2, 2, 7, 6)).roll(3, -1)

LINEAR: dict[str, tuple[Callable[[int], Constraint], Grid]] = {
    "mass": (lambda s: Mass(SHEET, normal((3, 3), s), component=1, channels=2), SHEET),
    "mass conserved": (lambda s: Mass(SHEET, channels=2), SHEET),
    "points": (lambda s: PointValues(SENSED, normal((3, 2, 3, 4, 3), s)), SHEET),
    "divergence": (lambda s: DivergenceFree(SHEET), SHEET),
    "central divergence, momentum and points": (
        lambda s: Intersection(
            DivergenceFree(SHEET, "central"), Momentum(SHEET, normal((6,), s)), PointValues(few((2, 3, 4, 3)), normal((2, 3, 4, 3), s))
        ),
        SHEET,
    ),
    "walls": (lambda s: Intersection(*no_slip(POND), DivergenceFree(POND, "central"), Mass(POND, 0.3, channels=2)), POND),
    "noisy points": (lambda s: PointValues(SENSED, normal((3, 2, 3, 4, 3), s), variance=0.3), SHEET),
    "points, each with its noise": (
        lambda s: PointValues(SENSED, normal((2, 3, 4, 3), s), variance=normal((int(SENSED.sum()),), s + 1).exp()),
        SHEET,
    ),
    "some points without noise": (
        lambda s: PointValues(SENSED, normal((2, 3, 4, 3), s), variance=normal((int(SENSED.sum()),), s + 1).clamp_min(0)),
        SHEET,
    ),
    "noisy patches": (
        lambda s: PatchMeans(SHEET, torch.arange(12).reshape(4, 3) // 4, normal((3, 18), s), variance=0.05, channels=2),
        SHEET,
    ),
    "two readings of the same points": (
        lambda s: Intersection(
            PointValues(SENSED, normal((3, 2, 3, 4, 3), s), variance=0.3), PointValues(SENSED, normal((2, 3, 4, 3), s + 1), variance=0.1)
        ),
        SHEET,
    ),
    "noisy points and divergence": (
        lambda s: Intersection(PointValues(SENSED, normal((3, 2, 3, 4, 3), s), variance=0.3), DivergenceFree(SHEET)),
        SHEET,
    ),
    "noisy patches, points and mass": (
        lambda s: Intersection(
            Mass(SHEET, normal((3, 3), s), channels=2),
            PatchMeans(SHEET, torch.arange(12).reshape(4, 3) // 6, 0.4, variance=0.2, components=[1], channels=2),
            PointValues(few((2, 3, 4, 3)), normal((2, 3, 4, 3), s)),
        ),
        SHEET,
    ),
    "a noisy law that repeats an exact one": (
        lambda s: Intersection(Momentum(SHEET, 0.2), WeightedIntegral(SHEET, torch.ones(1), 1.0, variance=0.1, channels=2)),
        SHEET,
    ),
    "noisy points between walls": (
        lambda s: Intersection(
            PointValues(WATCHED, normal((3, 2, 2, 7, 6), s), variance=0.1), DivergenceFree(POND, "central"), *no_slip(POND)
        ),
        POND,
    ),
    "noisy integral, noisy points, walls": (
        lambda s: Intersection(
            Dirichlet(POND, "x", "lower", 1.0, channels=2),
            WeightedIntegral(POND, torch.tensor([1.0, -2.0])[:, None, None, None], normal((3, 2), s), variance=1e-3, channels=2),
            PointValues(WATCHED, normal((2, 2, 7, 6), s), variance=0.5),
        ),
        POND,
    ),
}


@pytest.mark.parametrize("metric", ["none", *METRICS])
@pytest.mark.parametrize("name", LINEAR)
def test_linear_laws_against_dense_algebra(name: str, metric: str) -> None:
    """The blocks of the optimality conditions, M v + A'λ = M u and A v - R λ = b, and for exact laws the pseudo-inverse."""
    make, grid = LINEAR[name]
    if grid is POND and "Sobolev" in metric:
        pytest.skip("Sobolev metrics are for periodic axes")
    law, u, m = make(6), normal((3, 2, *grid.shape), 7), matrix(metric, grid, 2)
    result = project(law, u, metric=None if metric == "none" else METRICS[metric](grid, 2))
    point, found, multiplier = (x.flatten(1).numpy().T for x in (u, result.u, result.multiplier))
    parts = [joined(law.take(slice(i, i + 1)).leaves(), tuple(u.shape[1:])) for i in range(3)]
    (a, _, r), b = parts[0], np.stack([part.target for part in parts], axis=1)
    best = least(np.block([[m, a.T], [a, -np.diag(r)]]), np.vstack([m @ point, b]))[: len(point)]
    assert np.abs(best - found).max() < DENSE
    assert np.abs(m @ (point - found) - a.T @ multiplier).max() < DENSE * np.abs(m).max()
    assert np.abs(a @ found - b - r[:, None] * multiplier).max() < DENSE
    assert result.converged.all()
    if not r.any():
        spread = np.linalg.inv(m) @ a.T
        best = point - spread @ np.linalg.pinv(a @ spread, rcond=1e-11, hermitian=True) @ (a @ point - b)
        assert np.abs(best - found).max() < DENSE


@pytest.mark.parametrize("noisy", [False, True])
@pytest.mark.parametrize("inside", ["none", "covariance along x", "covariance"])
@pytest.mark.parametrize("size", [12, 23])
def test_many_rows_against_dense_algebra(size: int, inside: str, noisy: bool) -> None:
    """Above 512 rows Gram matrices are not formed: central differences between walls, in a covariance, with noise."""
    if noisy and size > 12 and inside != "none":
        pytest.skip("conjugate gradients within conjugate gradients: many seconds")
    grid, u = Grid(Axis("x", size, length=2.0), Axis("y", size)), normal((1, 2, size, size), 2)
    seen = PointValues(half((2, size, size)), normal((2, size, size), 1), variance=0.5)
    law = Intersection(DivergenceFree(grid, "central"), *([seen] if noisy else []))
    along = np.eye(size), *(covariance(axis).numpy() for axis in grid.axes)
    sigma = np.kron(np.eye(2), np.kron(along[1 if "cov" in inside else 0], along[2 if inside == "covariance" else 0]))
    result = project(law, u, metric=None if inside == "none" else METRICS[inside](grid, 2))
    a, b, r = joined(law.leaves(), (2, size, size))
    best = u.flatten().numpy() - sigma @ a.T @ least(a @ sigma @ a.T + np.diag(r), a @ u.flatten().numpy() - b)
    assert result.converged.all()
    assert np.abs(best - result.u.flatten().numpy()).max() < 1e-8


def test_formula_of_probabilistic_conservation() -> None:
    """u - Σ A'(A Σ A' + R)⁻¹(A u - b) (Hansen et al., 2023) for masses at each time, a Gaussian process around the field."""
    grid = Grid(Axis("time", 4, length=0.3), Axis("x", 9))
    sigma = np.kron(covariance(grid.axis("time")).numpy(), covariance(grid.axis("x")).numpy())
    a, u, mass = np.kron(np.eye(4), trapezoid(np.linspace(0, 1, 9))), normal((3, 1, 4, 9), 3), normal((3, 4), 4)
    for noise in (0.0, 1e-4, 1.0):
        law = WeightedIntegral(grid, torch.ones(1), mass, variance=noise)
        result = project(law, u, metric=Covariance(grid, {name: covariance(grid.axis(name)) for name in grid.names}))
        flat = u.reshape(3, 36).numpy()
        gain = sigma @ a.T @ np.linalg.inv(a @ sigma @ a.T + noise * np.eye(4))
        assert np.abs(flat - (flat @ a.T - mass.numpy()) @ gain.T - result.u.reshape(3, 36).numpy()).max() < DENSE


@pytest.mark.parametrize("metric", ["none", "values", "Sobolev", "covariance"])
def test_limits_of_noise(metric: str) -> None:
    """No noise is the exact law, alone and beside others; noise without bound is no law."""
    u, value = normal((3, 2, 3, 4, 3), 1), normal((3, 2, 3, 4, 3), 2)
    distance, patches = None if metric == "none" else METRICS[metric](SHEET, 2), torch.arange(12).reshape(4, 3) // 3
    families: list[Callable[[float | None], Constraint]] = [
        lambda r: PointValues(few((2, 3, 4, 3)), value, variance=r),
        lambda r: PatchMeans(SHEET, patches, 0.3, variance=r, channels=2),
        lambda r: WeightedIntegral(SHEET, torch.ones(1), 0.3, variance=r, channels=2),
    ]
    for family in families:
        for others in ([], [DivergenceFree(SHEET)]):
            exact = project(Intersection(family(None), *others), u, metric=distance)
            free = project(others[0], u, metric=distance).u if others else u
            assert exact.converged.all()
            none, tiny, huge = (project(Intersection(family(r), *others), u, metric=distance) for r in (0.0, 1e-10, 1e14))
            assert none.converged.all()
            assert tiny.converged.all()
            assert huge.converged.all()
            assert (none.u - exact.u).abs().max() < 1e-10
            assert (tiny.u - exact.u).abs().max() < 1e-6
            assert (huge.u - free).abs().max() < 1e-10


def test_noise_and_energy_against_sequential_programming() -> None:
    """Readings weigh in beside a curved law: the sphere of an energy, cut by momentum."""
    u, mask, seen = normal((1, 2, 4, 3), 3), half((2, 4, 3)), normal((2, 4, 3), 4)
    law = Intersection(PointValues(mask, seen, variance=0.2), Energy(TILE, 6.0), Momentum(TILE, 0.4))
    result, point, cell = project(law, u), u.flatten().numpy(), TAU * 2.0 / 12
    weight = mask.flatten().double().numpy() / 0.2

    def value(v: Array) -> float:
        return (np.square(v - point).sum() + (weight * np.square(v - seen.flatten().numpy())).sum()) / 2

    best = sequential(
        value,
        lambda v: v - point + weight * (v - seen.flatten().numpy()),
        Rows(np.kron(np.eye(2), np.full(12, cell)), np.full(2, 0.4), np.zeros(2)),
        ("eq", lambda v: np.array([cell / 2 * v @ v - 6.0]), lambda v: cell * v[None]),
        result.u.flatten().numpy() + 0.05 * np.random.default_rng(0).standard_normal(24),
    )
    assert result.converged.all()
    assert np.abs(best - result.u.flatten().numpy()).max() < SAME
    assert value(result.u.flatten().numpy()) <= value(best) + DENSE


@pytest.mark.parametrize("energy", [3.0, 9.0])
@pytest.mark.parametrize("metric", METRICS)
def test_energy_in_a_metric_against_sequential_programming(metric: str, energy: float) -> None:
    u, m, cell = normal((1, 2, 4, 3), 5), matrix(metric, TILE, 2), TAU * 2.0 / 12
    law = Intersection(Energy(TILE, energy), DivergenceFree(TILE))
    result = project(law, u, metric=METRICS[metric](TILE, 2))
    point, found = u.flatten().numpy(), result.u.flatten().numpy()
    best = sequential(
        lambda v: (v - point) @ m @ (v - point) / 2,
        lambda v: m @ (v - point),
        rows(law.leaves()[1], (2, 4, 3)),
        ("eq", lambda v: np.array([cell / 2 * v @ v - energy]), lambda v: cell * v[None]),
        found + 0.02 * np.random.default_rng(0).standard_normal(24),
    )
    assert np.abs(best - found).max() < SAME
    assert (found - point) @ m @ (found - point) / 2 <= (best - point) @ m @ (best - point) / 2 + DENSE * np.abs(m).max()
    pulled = law.jacobian(result.u).adjoint(result.multiplier)
    assert np.abs(m @ (point - found) - pulled.flatten().numpy()).max() < DENSE * np.abs(m).max()
    assert result.converged.all()


@pytest.mark.parametrize("name", ["mass", "mass and walls", "weighted integral", "energy"])
def test_volumes_converge_under_refinement_and_the_plain_distance_elsewhere(name: str) -> None:
    """On meshes that crowd at both walls, x = (1 - cos πs)/2, the continuous projection of e^x is known in closed form.

    In cell volumes it is met to second order. The plain distance weighs points by their number: what changes is of the order of one, as
    wide as the density of points makes it.
    """

    def errors(n: int) -> tuple[float, float]:
        x = (1 - torch.cos(torch.pi * torch.linspace(0, 1, n + 1, dtype=torch.float64))) / 2
        grid, u, inside = Grid(Axis.at("x", x.tolist())), x.exp(), slice(1, n)
        law: Constraint
        if name == "weighted integral":
            law, truth = WeightedIntegral(grid, x, 2.0), u + 3 * (2.0 - 1.0) * x  # ∫ x e^x = 1, ∫ x² = 1/3
        elif name == "energy":
            law, truth = Energy(grid, 4.0), u * math.sqrt(4.0 / ((math.e**2 - 1) / 4))
        else:
            law, truth = Mass(grid, 3.0), u + 3.0 - (math.e - 1)
        if name == "mass and walls":
            law = Intersection(law, Dirichlet(grid, "x", "lower", 0.0), Dirichlet(grid, "x", "upper", 5.0))
        results = [project(law, u[None, None], metric=metric) for metric in (Volumes(grid), None)]
        assert all(result.converged.all() for result in results)
        return tuple((result.u[0, 0] - truth)[inside].abs().max().item() for result in results)  # type: ignore[return-value]

    (coarse, _), (middle, early), (fine, late) = (errors(n) for n in (16, 32, 64))
    assert [coarse / middle, middle / fine] == pytest.approx([4, 4], abs=0.4)
    assert fine < 5e-3
    assert late == pytest.approx(early, rel=0.1)
    assert late > 0.1


# --- contradictions -----------------------------------------------------------------------------------------------------------


def profile() -> Tensor:
    """Of mass 0.225 on LINE."""
    return torch.tensor([[0.3, -0.2, 0.5, 0.1, 0.4]], dtype=torch.float64)


CLASHES: dict[str, tuple[Callable[[], list[Constraint]], tuple[int, ...], list[int]]] = {
    "two masses and a wall": (
        lambda: [Mass(LINE, 1.0), Dirichlet(LINE, "x", "lower", 0.3), Mass(LINE, 1.5)],
        (1, 5, 5),
        [0, 2],
    ),
    "momenta and a divergence": (lambda: [DivergenceFree(TILE), Momentum(TILE, 0.0), Momentum(TILE, 1.0)], (2, 4, 3), [1, 2]),
    "momenta, a mean and a divergence": (
        lambda: [Momentum(TILE, 0.0), DivergenceFree(TILE), Momentum(TILE, 1.0, mean=True)],
        (2, 4, 3),
        [0, 2],
    ),
    "initial data, mass and final data": (
        lambda: [InitialCondition(LINE, profile()), Mass(LINE, 0.625), FinalCondition(LINE, profile() + 0.4)],
        (1, 5, 5),
        [0, 1],
    ),
    "initial and final data and mass conserved": (
        lambda: [InitialCondition(LINE, profile()), FinalCondition(LINE, profile() + 1.0), Mass(LINE)],
        (1, 5, 5),
        [0, 1, 2],
    ),
    "sources that do not cancel": (
        lambda: [Momentum(TILE, 0.2), DivergenceFree(TILE, "central", value=torch.ones(4, 3) + normal((4, 3), 1))],
        (2, 4, 3),
        [1],
    ),
    "spectral sources that do not cancel": (
        lambda: [Momentum(TILE, 0.2), DivergenceFree(TILE, value=torch.ones(4, 3) + normal((4, 3), 1))],
        (2, 4, 3),
        [1],
    ),
    "points of two minds and a mass": (
        lambda: [
            PointValues(half((1, 4, 3)), torch.zeros(1, 4, 3)),
            Mass(TILE, 1.0),
            PointValues(half((1, 4, 3)), torch.ones(1, 4, 3)),
        ],
        (1, 4, 3),
        [0, 2],
    ),
    "patches and a mass": (
        lambda: [PatchMeans(TILE, torch.arange(12).reshape(4, 3) // 6, [0.1, 0.3]), Mass(TILE, 1.0, mean=True)],
        (1, 4, 3),
        [0, 1],
    ),
    "flow through a closed box": (
        lambda: [DivergenceFree(CAVITY, "staggered", value=1.0), *no_penetration(CAVITY)],
        (2, 6, 5),
        [0, 1, 2, 3, 4],
    ),
    "fluxes of a mesh that do not cancel": (
        lambda: [Balance(np.eye(6) - np.eye(6, k=1) - np.eye(6, k=-5), 0.1, shape=(1, 6)), one_value()],
        (1, 6),
        [0],
    ),
}


def one_value() -> Constraint:
    mask = torch.zeros(1, 6, dtype=torch.bool)
    mask[0, 2] = True
    return PointValues(mask, torch.full((1, 6), 0.7))


def compromise(leaves: list[Constraint], u: Array, shape: tuple[int, ...], root: Array | None = None) -> Array:
    """Of the minimisers of the sum of squared distances to each law's set, the nearest to u, by dense least squares.

    Distances are |L z| for a root L of the metric's matrix, plain by default.
    """
    root = np.eye(len(u)) if root is None else root
    parts = [rows(leaf, shape) for leaf in leaves]
    moved = [part.matrix @ np.linalg.inv(root) for part in parts]
    inverses = [np.linalg.pinv(a, rcond=1e-11) for a in moved]
    projectors = np.concatenate([inverse @ a for inverse, a in zip(inverses, moved, strict=True)])
    targets = np.concatenate([inverse @ part.target for inverse, part in zip(inverses, parts, strict=True)])
    return u - np.linalg.solve(root, least(projectors, projectors @ root @ u - targets))


@pytest.mark.parametrize("name", CLASHES)
def test_contradictory_laws_are_violated_least_and_named(name: str) -> None:
    make, shape, clashing = CLASHES[name]
    u, laws = normal((3, *shape), 8), make()
    best = np.stack([compromise(laws, v.flatten().numpy(), shape) for v in u])
    for order in itertools.islice(itertools.permutations(range(len(laws))), 6):
        result = project(Intersection(*(laws[i] for i in order)), u)
        assert not result.converged.any()
        assert result.broken == [tuple(laws[i].name for i in order if i in clashing)] * 3
        assert result.obeyed.tolist() == [[i not in clashing for i in order]] * 3
        assert np.abs(result.u.flatten(1).numpy() - best).max() < 1e-8


def test_contradictions_of_some_samples_leave_the_others_alone() -> None:
    u = normal((3, 1, 5, 5), 9)
    two = Intersection(Mass(LINE, torch.tensor([[1.0], [1.0], [1.0]])), Mass(LINE, torch.tensor([[1.0], [2.0], [1.0]])))
    result = project(two, u)
    assert result.converged.tolist() == [True, False, True]
    assert result.broken == [(), ("mass", "mass"), ()]
    targets = torch.tensor([1.0, 1.5, 1.0])[:, None]
    assert (result.u - project(Mass(LINE, targets), u).u).abs().max() < 1e-10


@pytest.mark.parametrize("metric", METRICS)
def test_contradictions_are_violated_least_in_the_metric(metric: str) -> None:
    """Distances to the laws are those of the metric."""
    laws = [Momentum(TILE, 0.0), DivergenceFree(TILE), Momentum(TILE, 1.0), PointValues(few((2, 4, 3)), torch.zeros(2, 4, 3))]
    u, root = normal((1, 2, 4, 3), 8), np.linalg.cholesky(matrix(metric, TILE, 2)).T
    result = project(Intersection(*laws), u, metric=METRICS[metric](TILE, 2))
    best = compromise(laws, u.flatten().numpy(), (2, 4, 3), root)
    assert result.broken == [("momentum", "momentum")]
    assert np.abs(best - result.u.flatten().numpy()).max() < 1e-8


def test_noise_decides_among_those_that_violate_exact_laws_least() -> None:
    """Noisy readings do not take sides between laws that contradict each other: they choose among the compromises."""
    u, mask, seen = normal((2, 1, 4, 3), 9), half((1, 4, 3)), normal((1, 4, 3), 10)
    exact = [Mass(TILE, 1.0), Mass(TILE, 2.0)]
    result = project(Intersection(PointValues(mask, seen, variance=0.3), *exact), u)
    mean = project(Intersection(PointValues(mask, seen, variance=0.3), Mass(TILE, 1.5)), u)
    assert mean.converged.all()
    assert result.broken == [("mass", "mass")] * 2
    assert (result.u - mean.u).abs().max() < 1e-10


# --- balances of schemes ---------------------------------------------------------------------------------------------------------


def riemann(left: Array, right: Array) -> Array:
    """The flux of Burgers' equation through the exact solution of each Riemann problem: shocks by their speed, fans by their sign."""
    shock, fan = (left + right) / 2 > 0, np.where(left > 0, left, np.where(right < 0, right, 0.0))
    return np.square(np.where(left > right, np.where(shock, left, right), fan)) / 2


class March(NamedTuple):
    """A run of an explicit scheme: its times, its cells at each, and the fluxes through both ends of each step."""

    times: Array
    cells: Array
    inflow: Array
    outflow: Array


def march(cells: int, steps: int, inlet: Callable[[float], float], seed: int, periodic: bool = False) -> March:
    """Burgers' equation on the unit interval by Godunov's scheme, with steps as long as the fastest wave allows."""
    x = (np.arange(cells) + 0.5) / cells
    generator = np.random.default_rng(seed)
    u = 0.5 + np.sin(2 * np.pi * x + 6 * generator.random()) + 0.3 * generator.standard_normal(cells)
    times, states, inflow, outflow = [0.0], [u], [], []
    for _ in range(steps):
        step = 0.8 / cells / max(np.abs(u).max(), 2.0)
        left, right = (u[-1], u[0]) if periodic else (inlet(times[-1]), u[-1])
        padded = np.concatenate([[left], u, [right]])
        faces = riemann(padded[:-1], padded[1:])
        u = u - step * cells * np.diff(faces)
        times.append(times[-1] + step)
        states.append(u)
        inflow.append(step * faces[0])
        outflow.append(step * faces[-1])
    return March(np.array(times), np.stack(states), np.array(inflow), np.array(outflow))


def relative(law: Constraint, u: Tensor) -> float:
    residual, scale = law.measure(u)
    return (residual.abs() / scale).max().item()


@pytest.mark.parametrize("seed", range(3))
def test_a_finite_volume_run_obeys_its_own_balances_to_round_off(seed: int) -> None:
    """Inflow switches on and off; the trapezoid of the same fluxes is off by the order of a step."""

    def inlet(time: float) -> float:
        return 1.5 if (time * 8) % 2 < 1 else -0.5

    run = march(20, 40, inlet, seed)
    grid = Grid(Axis.at("time", run.times.tolist()), Axis("x", 20, cells=True))
    u = torch.from_numpy(run.cells)[None, None]
    outside = torch.tensor([inlet(time) for time in run.times.tolist()], dtype=torch.float64)
    flux = godunov(burgers)

    def rate(u: Tensor) -> Tensor:
        return flux(outside.expand(u.shape[0], -1), u[:, 0, :, 0]) - flux(u[:, 0, :, -1], u[:, 0, :, -1])

    assert relative(local_conservation(grid, flux), u) < 1e-14
    assert relative(Budget(grid, rate, theta=0.0), u) < 1e-14
    assert relative(Budget(grid, rate), u) > 1e-3
    assert relative(Budget(grid, received=torch.from_numpy(run.inflow - run.outflow)), u) < 1e-14
    wrong = u + 1e-3 * normal(tuple(u.shape), seed)
    assert relative(local_conservation(grid, flux), wrong) > 1e-4
    assert relative(Budget(grid, rate, theta=0.0), wrong) > 1e-5


def test_a_run_stored_now_and_then_obeys_what_its_steps_summed_up() -> None:
    run = march(20, 40, lambda time: math.sin(40 * time), 4)
    grid = Grid(Axis.at("time", run.times[::8].tolist()), Axis("x", 20, cells=True))
    u = torch.from_numpy(run.cells[::8])[None, None]
    received = torch.from_numpy((run.inflow - run.outflow).reshape(5, 8).sum(1))
    assert relative(Budget(grid, received=received), u) < 1e-14
    assert relative(local_conservation(grid, godunov(burgers)), u) > 1e-3
    initial = InitialCondition(grid, u[0, :, 0])
    result = project(Intersection(initial, Budget(grid, received=received)), u + normal(tuple(u.shape), 1))
    contents = result.u.mean(-1)[0, 0].numpy()
    assert result.converged.all()
    assert np.abs(contents - contents[0] - np.append(0, np.cumsum(received.numpy()))).max() < 1e-13


def test_a_periodic_run_conserves_mass_and_cells() -> None:
    run = march(21, 30, lambda time: 0.0, 5, periodic=True)
    grid = Grid(Axis.at("time", run.times.tolist()), Axis("x", 21, periodic=True))
    u = torch.from_numpy(run.cells)[None, None]
    assert relative(local_conservation(grid, godunov(burgers)), u) < 1e-14
    assert relative(Budget(grid), u) < 1e-14
    assert relative(Mass(grid), u) < 1e-14
    assert relative(local_conservation(grid, godunov(burgers), theta=0.5), u) > 1e-3
    result = project(local_conservation(grid, godunov(burgers)), u)
    assert result.converged.all()
    assert (result.u - u).abs().max() < 1e-12


@pytest.mark.parametrize("theta", [0.0, 0.5, 1.0])
def test_a_heat_run_with_sources_obeys_its_own_balances_to_round_off(theta: float) -> None:
    """Conduction between two walls of given temperature with a source that pulses: explicit, Crank-Nicolson, implicit."""
    n, steps, conductivity = 12, 15, 0.1
    times, h = np.linspace(0, 0.3, steps + 1), 1 / n
    x = (np.arange(n) + 0.5) * h
    hot, cold = 1.0, -0.5

    def source(time: Array) -> Array:
        return 5 * np.cos(25 * np.asarray(time))[..., None] * np.exp(-10 * np.square(x - 0.4))

    faces = np.zeros((n + 1, n))
    for i in range(1, n):
        faces[i, i - 1], faces[i, i] = 1 / h, -1 / h
    faces[0, 0], faces[n, n - 1] = -2 / h, 2 / h
    ends = np.append(np.append(2 / h * hot, np.zeros(n - 1)), -2 / h * cold)
    operator, offset = -conductivity * np.diff(faces, axis=0) / h, -conductivity * np.diff(ends) / h
    states, step = [np.sin(np.pi * x)], times[1]
    for time in times[:-1]:
        known = states[-1] + step * ((1 - theta) * (operator @ states[-1] + offset + source(time)) + theta * (offset + source(time + step)))
        states.append(np.linalg.solve(np.eye(n) - step * theta * operator, known))
    grid, u = Grid(Axis("time", steps + 1, length=0.3), Axis("x", n, cells=True)), torch.from_numpy(np.stack(states))[None, None]
    heating = torch.from_numpy(source(times))

    def warming(u: Tensor) -> Tensor:
        return u @ torch.from_numpy(operator.T) + torch.from_numpy(offset) + heating[: u.shape[2]]

    def rate(u: Tensor) -> Tensor:
        w = u[:, 0]
        return heating.sum(-1) * h + 2 * conductivity / h * ((hot - w[..., 0]) - (w[..., -1] - cold))

    assert relative(EvolutionEquation(grid, warming, theta=theta), u) < 1e-14
    assert relative(EvolutionEquation(grid, warming, theta=theta, radius=1), u) < 1e-14
    assert relative(Budget(grid, rate, theta=theta), u) < 1e-14
    for other in {0.0, 0.5, 1.0} - {theta}:
        assert relative(Budget(grid, rate, theta=other), u) > 1e-3
        assert relative(EvolutionEquation(grid, warming, theta=other), u) > 1e-3
