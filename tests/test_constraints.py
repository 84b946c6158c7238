"""Contracts of operators and laws, one suite over all of them, and truths of the projection."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import scipy.optimize
import torch
from torch import Tensor

from constraints import (
    Axis,
    Constraint,
    Dirichlet,
    DivergenceFree,
    Energy,
    FinalCondition,
    FunctionConstraint,
    Grid,
    InitialCondition,
    Intersection,
    Mass,
    Momentum,
    Neumann,
    PeriodicSeam,
    PointValues,
    Robin,
    Snapshot,
    Units,
    WeightedIntegral,
    no_slip,
    project,
    rescaled,
)
from constraints.linear import FourierSymbol, LinearMap, RowCombination, Selection, Stacked, Weighted, WeightedSum
from constraints.linear.solve import conjugate_gradients, pseudo_inverse

TAU = 2 * math.pi
PLANE = Grid(Axis("x", 8, length=TAU, periodic=True), Axis("y", 7, length=3.0, periodic=True))
FILM = Grid(Axis("time", 4), Axis("x", 6, length=TAU, periodic=True), Axis("y", 4, length=TAU, periodic=True))
BOX = Grid(*(Axis(n, 4, length=TAU, periodic=True) for n in "xyz"))
WALLS = Grid(Axis("time", 3), Axis("x", 6, periodic=True), Axis("y", 5, length=2.0))
LINE = Grid(Axis("time", 5), Axis.at("x", [0.0, 0.1, 0.3, 0.6, 1.0]))


def normal(shape: tuple[int, ...], seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def divergence(grid: Grid, scheme: str = "spectral") -> LinearMap:
    return DivergenceFree(grid, scheme).operator


def half(shape: tuple[int, ...]) -> Tensor:
    return (torch.rand(shape, generator=torch.Generator().manual_seed(7)) < 0.4).expand(shape)


def few(shape: tuple[int, ...]) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(8)) < 0.05


OPERATORS: dict[str, Callable[[], LinearMap]] = {
    "selection": lambda: Selection(half((2, 8, 7))),
    "selection weighted": lambda: Selection(half((2, 8, 7))).weighted(torch.tensor([2.0, 0.5])[:, None, None]),
    "sum": lambda: WeightedSum(normal((2, 4, 6, 4), 1).abs(), (-2, -1)),
    "one sum": lambda: WeightedSum(normal((2, 8, 7), 1), (-3, -2, -1)),
    "mass": lambda: Mass(LINE, 1.0).operator,
    "mass conserved": lambda: Mass(LINE).operator,
    "momentum of two of three": lambda: Momentum(PLANE, 0.0, components=(0, 2), channels=3).operator,
    "momentum conserved": lambda: Momentum(FILM).operator,
    "divergence": lambda: divergence(PLANE),
    "divergence central": lambda: divergence(PLANE, "central"),
    "divergence in time": lambda: divergence(FILM),
    "divergence 3-D": lambda: divergence(BOX),
    "divergence of two of four channels": lambda: DivergenceFree(PLANE, components=(3, 1), channels=4).operator,
    "divergence of scaled channels": lambda: divergence(PLANE).weighted(torch.tensor([2.0, 0.3])[:, None, None]),
    "divergence after the first time": lambda: divergence(FILM).weighted((torch.arange(4) > 0).double()[:, None, None].expand(2, 4, 6, 4)),
    "divergence of a masked field": lambda: divergence(PLANE).weighted(half((2, 8, 7)).double()),
    "stack": lambda: Stacked([divergence(FILM), Momentum(FILM, 0.0).operator, Mass(FILM, 1.0, channels=2).operator]),
    "stack with selection": lambda: Stacked([divergence(PLANE), Selection(half((2, 8, 7)))]),
    "two divergences": lambda: Stacked([divergence(PLANE), divergence(PLANE, "central")]),
    "energy at a field": lambda: Energy(FILM, 1.0).jacobian(normal((1, 2, 4, 6, 4), 3)),
    "energy conserved at a field": lambda: Energy(FILM).jacobian(normal((1, 2, 4, 6, 4), 3)),
    "automatic": lambda: FunctionConstraint(lambda u: u.square().flatten(2).sum(2)).jacobian(normal((1, 2, 8, 7), 3)),
}


@pytest.fixture(params=OPERATORS, ids=str)
def operator(request: pytest.FixtureRequest) -> LinearMap:
    return OPERATORS[request.param]()


def dense(operator: LinearMap) -> Tensor:
    """The matrix of a map, (m, n), column by column."""
    size = math.prod(operator.shape)
    return torch.stack([operator(e.reshape(1, *operator.shape))[0] for e in torch.eye(size, dtype=torch.float64)], dim=1)


def test_adjoint(operator: LinearMap) -> None:
    u, y = normal((1, *operator.shape), 1), normal((1, operator.rows), 2)
    forward, backward = (operator(u) * y).sum(), (u * operator.adjoint(y)).sum()
    assert forward.item() == pytest.approx(backward.item(), rel=1e-11, abs=1e-11)


def test_gram_solve_is_the_pseudo_inverse(operator: LinearMap) -> None:
    matrix = dense(operator)
    r = normal((1, operator.rows), 3) @ matrix @ matrix.T
    solved = operator.solve_gram(r)
    residual = solved @ matrix @ matrix.T - r
    assert residual.abs().max() <= 1e-9 * r.abs().max()


def test_nearest_is_the_orthogonal_projection(operator: LinearMap) -> None:
    matrix = dense(operator)
    u, target = normal((1, *operator.shape), 4), normal((1, math.prod(operator.shape)), 5) @ matrix.T
    v, multiplier = operator.nearest(u, target)
    expected = u.flatten(1) - (u.flatten(1) @ matrix.T - target) @ torch.linalg.pinv(matrix).T
    assert (v.flatten(1) - expected).abs().max() < 1e-10
    assert (u - v - operator.adjoint(multiplier)).abs().max() < 1e-10
    homogeneous, _ = operator.nearest(u)
    assert (homogeneous.flatten(1) @ matrix.T).abs().max() < 1e-10


def test_weighted_map_is_the_product(operator: LinearMap) -> None:
    diagonal = normal(operator.shape, 6).abs()
    product = operator.weighted(diagonal)
    u, y = normal((1, *operator.shape), 7), normal((1, operator.rows), 8)
    assert torch.allclose(product(u), operator(diagonal * u), atol=1e-12)
    assert torch.allclose(product.adjoint(y), diagonal * operator.adjoint(y), atol=1e-12)


def test_structure_survives_what_it_can() -> None:
    masked_times = (torch.arange(4) > 0).double()[:, None, None].expand(2, 4, 6, 4)
    assert isinstance(divergence(FILM).weighted(masked_times), FourierSymbol)
    assert isinstance(divergence(PLANE).weighted(half((2, 8, 7)).double()), Weighted)
    assert isinstance(Mass(LINE).operator.weighted(torch.ones(1, 5, 5)), RowCombination)


def initial() -> Tensor:
    lawful = project(Intersection(DivergenceFree(FILM.space), Momentum(FILM.space, 0.0)), normal((3, 2, 6, 4), 11))
    return lawful.u


LAWS: dict[str, tuple[Callable[[], Constraint], tuple[int, ...]]] = {
    "initial": (lambda: InitialCondition(LINE, normal((1, 5), 1)), (1, 5, 5)),
    "initial, one each": (lambda: InitialCondition(LINE, normal((3, 1, 5), 1)), (1, 5, 5)),
    "mass": (lambda: Mass(LINE, 0.7), (1, 5, 5)),
    "mass conserved": (lambda: Mass(LINE), (1, 5, 5)),
    "mass of one channel": (lambda: Mass(PLANE, normal((3,), 2), component=1, channels=3), (3, 8, 7)),
    "initial data fix the mass at time 0": (lambda: Intersection(Mass(LINE), InitialCondition(LINE, normal((3, 1, 5), 1))), (1, 5, 5)),
    "momentum": (lambda: Momentum(PLANE, [0.1, -0.2], mean=True), (2, 8, 7)),
    "divergence": (lambda: DivergenceFree(PLANE), (2, 8, 7)),
    "divergence central": (lambda: DivergenceFree(PLANE, "central"), (2, 8, 7)),
    "divergence 3-D": (lambda: DivergenceFree(BOX), (3, 4, 4, 4)),
    "divergence and pressure": (lambda: DivergenceFree(PLANE, components=(2, 0), channels=3), (3, 8, 7)),
    "energy": (lambda: Energy(PLANE, torch.tensor([0.5, 1.0, 20.0])), (2, 8, 7)),
    "energy each time": (lambda: Energy(FILM, torch.linspace(3, 1, 4)), (2, 4, 6, 4)),
    "energy conserved": (lambda: Energy(FILM), (2, 4, 6, 4)),
    "flow": (lambda: Intersection(DivergenceFree(PLANE), Momentum(PLANE, 0.0), Energy(PLANE, 0.5)), (2, 8, 7)),
    "moving flow": (lambda: Intersection(Energy(PLANE, 30.0), Momentum(PLANE, [[1.0, 2.0]] * 3), DivergenceFree(PLANE)), (2, 8, 7)),
    "flow in time": (
        lambda: Intersection(DivergenceFree(FILM), Momentum(FILM, 0.0), InitialCondition(FILM, initial()), Energy(FILM)),
        (2, 4, 6, 4),
    ),
    "flow in 3-D": (lambda: Intersection(DivergenceFree(BOX), Momentum(BOX, 0.0), Energy(BOX, 2.0, mean=True)), (3, 4, 4, 4)),
    "both divergences": (lambda: Intersection(DivergenceFree(PLANE), DivergenceFree(PLANE, "central")), (2, 8, 7)),
    "final, one each": (lambda: FinalCondition(LINE, normal((3, 1, 5), 1)), (1, 5, 5)),
    "snapshot": (lambda: Snapshot(LINE, 2, normal((1, 5), 1)), (1, 5, 5)),
    "value at a wall": (lambda: Dirichlet(WALLS, "y", "upper", normal((3, 1, 3, 6), 1), components=[1], channels=2), (2, 3, 6, 5)),
    "slope at a wall": (lambda: Neumann(WALLS, "y", "lower", 0.3, channels=2), (2, 3, 6, 5)),
    "slope of one channel": (lambda: Neumann(WALLS, "y", "upper", components=[1], channels=2, order=4), (2, 3, 6, 5)),
    "mixed at a wall": (lambda: Robin(LINE, "x", "upper", 1.0, 0.5, torch.linspace(0, 1, 5)), (1, 5, 5)),
    "seam": (lambda: PeriodicSeam(LINE, "x"), (1, 5, 5)),
    "walls with energy": (
        lambda: Intersection(*no_slip(WALLS), Energy(WALLS, 0.5), Neumann(WALLS, "y", "lower", channels=2)),
        (2, 3, 6, 5),
    ),
    "walls, initial data and mass": (
        lambda: Intersection(Dirichlet(LINE, "x", "lower", 1.0), InitialCondition(LINE, torch.linspace(1, 2, 5)[None]), Mass(LINE)),
        (1, 5, 5),
    ),
    "sensors": (lambda: PointValues(half((2, 8, 7)), normal((3, 2, 8, 7), 2)), (2, 8, 7)),
    "sensors and divergence": (
        lambda: Intersection(DivergenceFree(PLANE), PointValues(few((2, 8, 7)), normal((2, 8, 7), 2)), Energy(PLANE, 40.0)),
        (2, 8, 7),
    ),
    "flow rate": (lambda: WeightedIntegral(WALLS, torch.tensor([1.0, -2.0])[:, None, None, None], 0.2, channels=2), (2, 3, 6, 5)),
    "redundant": (lambda: Intersection(Momentum(PLANE, 0.0), Mass(PLANE, 0.0, channels=2), Momentum(PLANE, 0.0)), (2, 8, 7)),
    "function": (
        lambda: FunctionConstraint(lambda u: u.pow(4).flatten(1).sum(1, keepdim=True) - 40, scale=40.0),
        (2, 8, 7),
    ),
    "function and flow": (
        lambda: Intersection(
            FunctionConstraint(lambda u: (u[:, 0] ** 2 * u[:, 1]).flatten(1).sum(1)[:, None] - 2, scale=20), DivergenceFree(PLANE)
        ),
        (2, 8, 7),
    ),
    "normalised flow": (
        lambda: rescaled(
            Intersection(DivergenceFree(PLANE), Momentum(PLANE, 0.0), Energy(PLANE, 0.5)),
            Units(torch.tensor([0.3, -0.1]), torch.tensor([2.0, 0.5])),
        ),
        (2, 8, 7),
    ),
}


@pytest.fixture(params=LAWS, ids=str)
def law(request: pytest.FixtureRequest) -> tuple[Constraint, Tensor]:
    make, shape = LAWS[request.param]
    return make(), normal((3, *shape), 20)


def test_jacobian_is_the_derivative(law: tuple[Constraint, Tensor]) -> None:
    constraint, u = law
    step = 1e-6 * normal(tuple(u.shape), 21)
    difference = (constraint.residual(u + step) - constraint.residual(u - step)) / 2
    assert torch.allclose(constraint.jacobian(u)(step), difference, atol=1e-12 * max(1.0, difference.abs().max().item() * 1e6))


def test_curvature_is_the_second_derivative(law: tuple[Constraint, Tensor]) -> None:
    _, u = law
    for leaf in law[0].leaves():
        y, z = normal(tuple(leaf.residual(u).shape), 22), normal(tuple(u.shape), 23)
        plus, minus = leaf.jacobian(u + 1e-4 * z).adjoint(y), leaf.jacobian(u - 1e-4 * z).adjoint(y)
        assert torch.allclose(leaf.curvature(u, y, z), (plus - minus) / 2e-4, atol=1e-5 * (1 + plus.abs().max().item()))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_projection_obeys_is_nearest_and_certified(law: tuple[Constraint, Tensor], dtype: torch.dtype) -> None:
    constraint, u = law[0], law[1].to(dtype)
    result = project(constraint, u)
    tolerance = 1e-12 if dtype == torch.float64 else 1e-6
    assert result.converged.all()
    assert result.u.dtype == dtype
    for leaf in constraint.leaves():
        residual, scale = leaf.measure(result.u)
        assert (residual.abs() <= tolerance * scale).all()
    size = max(u.abs().max().item(), result.u.abs().max().item())
    assert result.stationarity.max() <= tolerance * size
    if dtype == torch.float64:
        force = u - result.u - constraint.jacobian(result.u).adjoint(result.multiplier)
        assert force.abs().max() <= tolerance * size


def test_projection_is_idempotent_and_treats_a_batch_as_its_members(law: tuple[Constraint, Tensor]) -> None:
    constraint, u = law
    whole = project(constraint, u).u
    assert (project(constraint, whole).u - whole).abs().max() < 1e-10
    for i in range(len(u)):
        alone = project(constraint.take(slice(i, i + 1)), u[i : i + 1]).u
        assert (alone - whole[i : i + 1]).abs().max() < 1e-10


def test_no_lawful_field_is_nearer(law: tuple[Constraint, Tensor]) -> None:
    """Other lawful fields, found by projecting from elsewhere, are farther from the input."""
    constraint, u = law
    nearest = (project(constraint, u).u - u).flatten(1).norm(dim=1)
    for seed in range(3):
        other = project(constraint, u + 0.3 * normal(tuple(u.shape), 30 + seed))
        assert other.converged.all()
        assert ((other.u - u).flatten(1).norm(dim=1) >= nearest - 1e-9).all()


def test_against_an_independent_solver() -> None:
    """SLSQP finds the same nearest point under divergence, momentum, energy and a user's own law."""
    grid = Grid(Axis("x", 4, length=TAU, periodic=True), Axis("y", 3, length=TAU, periodic=True))
    law = Intersection(
        DivergenceFree(grid),
        Momentum(grid, [0.5, 0.0]),
        Energy(grid, 12.0),
        FunctionConstraint(lambda u: (u[:, 0] * u[:, 1].square()).flatten(1).sum(1, keepdim=True) - 0.5),
    )
    u = normal((1, 2, 4, 3), 40)
    rows = dense(Stacked([leaf.operator for leaf in law.leaves()[:2]])).numpy()
    independent = np.linalg.svd(rows)[2][: np.linalg.matrix_rank(rows)]
    values = independent @ np.linalg.pinv(rows) @ np.concatenate([np.zeros(12), [0.5, 0.0]])

    def curved(v: np.ndarray) -> np.ndarray:
        field = torch.from_numpy(v).reshape(1, 2, 4, 3)
        return torch.cat([leaf.residual(field) for leaf in law.leaves()[2:]], dim=1)[0].numpy()

    result = project(law, u)
    assert result.converged.all()
    best = scipy.optimize.minimize(
        lambda v: 0.5 * ((v - u.flatten().numpy()) ** 2).sum(),
        result.u.flatten().numpy() + 0.05 * np.random.default_rng(0).standard_normal(24),
        jac=lambda v: v - u.flatten().numpy(),
        constraints=[{"type": "eq", "fun": lambda v: independent @ v - values}, {"type": "eq", "fun": curved}],
        method="SLSQP",
        options={"ftol": 1e-15, "maxiter": 500},
    )
    assert best.success
    assert np.abs(best.x - result.u.flatten().numpy()).max() < 1e-6
    assert 0.5 * (result.u - u).square().sum().item() <= best.fun + 1e-9


def test_energy_alone_is_a_scaling_and_with_momentum_a_shifted_one() -> None:
    u = normal((2, 2, 8, 7), 41)
    energy = Energy(PLANE, 3.0)
    alone = project(energy, u).u
    assert torch.allclose(alone, u * (3.0 / energy.energy(u)).sqrt()[:, :, None, None])
    both = project(Intersection(energy, Momentum(PLANE, [1.0, 0.0])), u).u
    mean = torch.tensor([1.0, 0.0])[:, None, None] / PLANE.volume
    fluctuation = u - u.mean((2, 3), keepdim=True)
    left = 3.0 - energy.energy(mean.expand(1, 2, 8, 7).double())
    assert torch.allclose(both, mean + fluctuation * (left / energy.energy(fluctuation)).sqrt()[:, :, None, None])


@pytest.mark.parametrize("size", [1e-8, 1.0, 1e8])
@pytest.mark.parametrize("energy", [1e-12, 1.0, 1e12])
def test_closed_form_needs_no_iteration_at_any_scale(size: float, energy: float) -> None:
    law = Intersection(DivergenceFree(PLANE), Momentum(PLANE, 0.0), Energy(PLANE, energy))
    result = project(law, size * normal((2, 2, 8, 7), 44))
    assert result.converged.all()
    assert result.iterations == 1
    assert torch.allclose(law.leaves()[2].energy(result.u), torch.tensor(energy, dtype=torch.float64), rtol=1e-12)  # type: ignore[operator]


def test_divergence_multiplier_is_the_pressure() -> None:
    """Removing a gradient: the multiplier of grad phi is phi without its mean, up to sign."""
    x, y = PLANE.mesh()
    phi = torch.sin(x) * torch.cos(TAU * y / 3.0)
    gradient = torch.stack([torch.cos(x) * torch.cos(TAU * y / 3.0), -TAU / 3.0 * torch.sin(x) * torch.sin(TAU * y / 3.0)])
    result = project(DivergenceFree(PLANE), gradient[None])
    assert result.u.abs().max() < 1e-13
    assert torch.allclose(result.multiplier.reshape(8, 7), -phi, atol=1e-13)


def test_boundary_laws_hold_for_the_fields_they_describe() -> None:
    """Quadratics have exact second-order one-sided slopes, on any spacing; signs are outward."""
    grid = Grid(Axis.at("x", [0.0, 0.2, 0.5, 1.1, 2.0]))
    x = grid.axes[0].positions()
    u = (1 + 3 * x - 2 * x**2)[None, None]
    for law in (
        Dirichlet(grid, "x", "lower", 1.0),
        Dirichlet(grid, "x", "upper", -1.0),
        Neumann(grid, "x", "lower", -3.0),
        Neumann(grid, "x", "upper", -5.0),
        Robin(grid, "x", "upper", 2.0, 3.0, -17.0),
        WeightedIntegral(grid, torch.ones(1), (grid.weights() * u).sum()),
    ):
        assert law.residual(u).abs().max() < 1e-12, law.name
        assert law.residual(u + x**3).abs().max() > 1e-3 or law.name == "value at lower x"


def test_channels_that_take_no_part_are_untouched_to_the_bit() -> None:
    u = normal((2, 4, 8, 7), 43)
    result = project(Intersection(DivergenceFree(PLANE, components=(3, 1), channels=4), Mass(PLANE, 1.0, component=3, channels=4)), u)
    assert result.converged.all()
    assert torch.equal(result.u[:, [0, 2]], u[:, [0, 2]])


def test_nyquist_modes_are_measured_as_they_are_projected() -> None:
    """Projector and measure share one operator: white noise, all modes kept, even sizes."""
    grid = Grid(Axis("x", 16, length=TAU, periodic=True), Axis("y", 16, length=TAU, periodic=True))
    u = normal((4, 2, 16, 16), 42)
    result = project(DivergenceFree(grid), u)
    assert result.violation.max() < 1e-12
    kept = torch.fft.rfft2(result.u)[..., 8]
    assert kept.abs().max() > 1


def test_spectral_and_central_divergence_differ_by_second_order() -> None:
    errors = []
    for n in (32, 64, 128):
        grid = Grid(Axis("x", n, length=TAU, periodic=True), Axis("y", n, length=TAU, periodic=True))
        x, y = grid.mesh()
        u = torch.stack([torch.sin(x) * torch.cos(2 * y) + torch.sin(3 * y), torch.cos(2 * x - y)])[None]
        errors.append(DivergenceFree(grid, "central").residual(project(DivergenceFree(grid), u).u).abs().max())
    ratios = [(errors[i] / errors[i + 1]).item() for i in range(2)]
    assert ratios == pytest.approx([4, 4], abs=0.3)


@pytest.mark.parametrize(
    "law",
    [
        Intersection(Momentum(PLANE, 0.0), Momentum(PLANE, 1.0)),
        Intersection(Momentum(PLANE, 5.0, mean=True), Energy(PLANE, 1.0, mean=True)),
        Intersection(DivergenceFree(PLANE), FunctionConstraint(lambda u: u.square().flatten(1).sum(1)[:, None] + 1)),
        Intersection(InitialCondition(LINE, torch.ones(1, 5)), Mass(LINE, 2.0)),
    ],
    ids=["momentum", "energy too small for momentum", "no real field", "initial mass"],
)
def test_contradictory_laws_return_unconverged(law: Constraint) -> None:
    shape = (3, 1, 5, 5) if law.leaves()[0].name == "initial condition" else (3, 2, 8, 7)
    result = project(law, normal(shape, 50))
    assert not result.converged.any()
    assert torch.isfinite(result.u).all()
    assert (result.violation > 1e-3).all()


def test_metric_changes_the_nearest_point() -> None:
    law = Mass(Grid(Axis("x", 2, periodic=True)), 1.0, channels=1)
    two = FunctionConstraint(lambda u: u.flatten(1).sum(1, keepdim=True) - 1)
    u = torch.zeros(1, 2, 1, dtype=torch.float64)
    assert torch.allclose(project(two, u).u.flatten(), torch.tensor([0.5, 0.5], dtype=torch.float64))
    heavy = project(two, u, metric=torch.tensor([1.0, 2.0])).u.flatten()
    assert torch.allclose(heavy, torch.tensor([0.2, 0.8], dtype=torch.float64))
    assert project(law, torch.zeros(1, 1, 2, dtype=torch.float64)).converged.all()


def test_gradients_of_input_and_targets() -> None:
    grid = Grid(Axis("x", 4, length=TAU, periodic=True), Axis("y", 4, length=TAU, periodic=True))
    u = normal((2, 2, 4, 4), 60).requires_grad_()
    energy = torch.tensor([4.0, 9.0], dtype=torch.float64, requires_grad=True)
    momentum = (0.3 * normal((2, 2), 61)).requires_grad_()

    def flow(u: Tensor, energy: Tensor, momentum: Tensor) -> Tensor:
        return project(Intersection(DivergenceFree(grid), Momentum(grid, momentum), Energy(grid, energy)), u).u

    assert torch.autograd.gradcheck(flow, (u, energy, momentum))
    scale = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)

    def own(u: Tensor, scale: Tensor) -> Tensor:
        law = FunctionConstraint(lambda v: v.pow(4).flatten(1).sum(1, keepdim=True) - scale, scale=1.0)
        return project(Intersection(law, DivergenceFree(grid)), u).u

    assert torch.autograd.gradcheck(own, (u, scale))


def test_gradients_of_parameters_of_a_jacobian() -> None:
    u, a = 1 + normal((2, 1, 5), 62).square(), torch.tensor(0.3, dtype=torch.float64, requires_grad=True)

    def projected(u: Tensor, a: Tensor) -> Tensor:
        return project(FunctionConstraint(lambda v: (v**2 + a * v**3).flatten(1).sum(1, keepdim=True) - 1), u).u

    assert torch.autograd.gradcheck(projected, (u.requires_grad_(), a))


@pytest.mark.parametrize("seed", range(40))
def test_energies_of_times_that_are_given_already(seed: int) -> None:
    """At the given time the offset is round-off: the closed form must not blow it up."""
    first = normal((1, 16), seed)
    grid = Grid(Axis("time", 5), Axis("x", 16, periodic=True))
    law = Intersection(InitialCondition(grid, first), Energy(grid, first.square().mean().item() / 2))
    assert project(law, normal((8, 1, 5, 16), 1000 + seed)).converged.all()


def test_targets_follow_the_order_of_components() -> None:
    law = Momentum(PLANE, [1.0, 2.0], components=(1, 0), mean=True)
    assert torch.allclose(project(law, torch.zeros(1, 2, 8, 7)).u.mean((2, 3)), torch.tensor([[2.0, 1.0]]))


def test_a_law_that_annihilates_the_field_converges() -> None:
    assert project(Momentum(PLANE, 0.0), torch.ones(2, 2, 8, 7, dtype=torch.float64)).converged.all()


def test_without_gradients_nothing_is_kept() -> None:
    with torch.no_grad():
        assert not project(Energy(PLANE, 1.0), normal((1, 2, 8, 7), 1).requires_grad_()).u.requires_grad
    assert project(Energy(PLANE, 1.0), normal((1, 2, 8, 7), 1)).u.grad_fn is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: InitialCondition(PLANE, torch.zeros(2, 7)), "time axis"),
        (lambda: InitialCondition(LINE, torch.zeros(1, 4)), "expects fields at one time"),
        (lambda: Mass(PLANE), "expects a value"),
        (lambda: Mass(PLANE, float("nan")), "finite"),
        (lambda: Mass(PLANE, 1.0, component=3, channels=2), "channels between"),
        (lambda: Mass(LINE, torch.zeros(3)), "5 rows"),
        (lambda: Energy(PLANE, -1.0), "not negative"),
        (lambda: DivergenceFree(LINE), "at least two space axes"),
        (lambda: DivergenceFree(Grid(Axis("x", 8), Axis("y", 8, periodic=True))), "periodic"),
        (lambda: DivergenceFree(PLANE, "upwind"), "scheme"),
        (lambda: project(DivergenceFree(PLANE), torch.zeros(1, 3, 8, 7)), "expects fields of shape"),
        (lambda: project(Energy(PLANE, torch.ones(4)), torch.ones(1, 2, 8, 7)), "targets for 4 samples"),
        (lambda: project(Energy(PLANE, 1.0), torch.ones(8, 7)), "a batch of fields"),
        (lambda: project(Energy(PLANE, 1.0), torch.ones(1, 2, 8, 7), metric=torch.ones(3)), "one number a channel"),
        (lambda: project(Energy(PLANE, 1.0), torch.full((1, 2, 8, 7), math.inf)), "NaN or Inf"),
        (lambda: project(Energy(PLANE, 1.0), torch.ones(1, 2, 8, 7, dtype=torch.int64)), "float32 or float64"),
        (lambda: project(FunctionConstraint(lambda u: u), torch.ones(1, 2, 8, 7)), r"\(B, m\)"),
        (lambda: Intersection(), "at least one"),
        (lambda: Dirichlet(PLANE, "x", "lower"), "is periodic"),
        (lambda: Dirichlet(LINE, "x", "left"), "side among"),
        (lambda: Neumann(Grid(Axis("x", 8, cells=True)), "x", "lower"), "cell centres"),
        (lambda: Robin(LINE, "x", "lower", 0.0, 0.0), "not zero"),
        (lambda: no_slip(PLANE), "all are periodic"),
        (lambda: Snapshot(LINE, 5, torch.zeros(1, 5)), "one of 5 times"),
        (lambda: PointValues(torch.zeros(1, 4, dtype=torch.bool), torch.zeros(1, 4)), "at least one point"),
        (lambda: WeightedIntegral(LINE, torch.zeros(3), 1.0), "broadcasts"),
    ],
)
def test_wrong_use_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_conjugate_gradients_solve_singular_systems_sample_by_sample() -> None:
    a = normal((3, 12, 8), 70)
    gram = a @ a.mT
    b = (gram @ normal((3, 12, 1), 71))[..., 0]
    b[1] = 0
    x = conjugate_gradients(lambda y: (gram @ y[..., None])[..., 0], b)
    assert ((gram @ x[..., None])[..., 0] - b).abs().max() < 1e-8
    assert x[1].abs().max() == 0


def test_pseudo_inverse_of_rows_in_different_units() -> None:
    a = normal((6, 4), 72) * torch.tensor([1e-6, 1, 1e6, 1, 1, 1])[:, None].double()
    gram = a @ a.T
    inverse = pseudo_inverse(gram)
    assert torch.allclose(gram @ inverse @ gram, gram, rtol=1e-8, atol=1e-18)


def test_moves_to_dtype_and_state_dict() -> None:
    law = Intersection(DivergenceFree(PLANE), Energy(PLANE, 0.5))
    assert any("target" in key for key in law.state_dict())
    assert project(law.to(torch.float32), normal((1, 2, 8, 7), 1, torch.float32)).converged.all()
