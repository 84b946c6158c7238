"""Contracts of laws, one suite over all of them."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from constraints import (
    Axis,
    Balance,
    Bounds,
    Budget,
    Circulation,
    Constraint,
    CurlFree,
    Dirichlet,
    DivergenceFree,
    Energy,
    EnergyBound,
    EnergyDecay,
    Enstrophy,
    EntropyBound,
    EntropyDecay,
    EvolutionEquation,
    FinalCondition,
    FunctionConstraint,
    Grid,
    InitialCondition,
    Integral,
    Intersection,
    L2Energy,
    LinearRelation,
    Mass,
    Momentum,
    Monotone,
    Neumann,
    OneSidedLipschitz,
    PatchMeans,
    PeriodicSeam,
    PointValues,
    Poisson,
    Quadratic,
    Rate,
    Relation,
    Robin,
    Snapshot,
    Sobolev,
    Units,
    WeightedIntegral,
    local_conservation,
    maximum_principle,
    no_penetration,
    no_slip,
    positivity,
    project,
    rescaled,
)
from constraints.calculus import Spectral
from constraints.calculus.finite_volume import godunov
from tests.fields import (
    BOX,
    CAVITY,
    CHANNEL,
    DUCT,
    FILM,
    HALL,
    LINE,
    LOOP,
    PLANE,
    RING,
    ROOM,
    TANK,
    TAU,
    WALLS,
    burgers,
    decay,
    few,
    half,
    logistic,
    normal,
)


def quadratic(seed: int) -> Quadratic:
    """One square for all values but the last."""
    return Quadratic(0.3 * normal((1, 5), seed), 0.1 * torch.tensor([[1.0, 1.0, 1.0, 1.0, -2.0]]))


def initial() -> Tensor:
    lawful = project(Intersection(DivergenceFree(FILM.space), Momentum(FILM.space, 0.0)), normal((3, 2, 6, 4), 11))
    return lawful.u


def between_walls() -> Tensor:
    space = DUCT.space
    lawful = project(Intersection(DivergenceFree(space, "central"), *no_slip(space)), normal((3, 2, 7, 8), 12))
    return lawful.u


def dipole() -> Tensor:
    """A source and a sink that checkerboards of central differences do not see."""
    _, y = PLANE.mesh()
    return torch.sin(2 * TAU / 2 * y / 3.0)[None]


def grown(u: Tensor, growth: Tensor) -> Tensor:
    """A rate that grows by a coefficient of each sample."""
    return growth.reshape(-1, 1).to(u) * u[:, 0].square().mean(-1)


def thick(u: Tensor, growth: Tensor) -> Tensor:
    """A density with one."""
    return u[:, 0] * (1 + growth.reshape(-1, 1, 1).to(u) * u[:, 0].square())


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
    "rate": (lambda: Rate(LINE, of=2, rate=0, factor=-0.5, channels=3), (3, 5, 5)),
    "rate of a history": (lambda: Rate(Grid(Axis.at("time", [0.0, 0.1, 0.3, 0.7, 1.0]))), (2, 5)),
    "poisson on cells": (lambda: Poisson(TANK, unknown=2, source=0, channels=3, ends="neumann"), (3, 5, 4)),
    "poisson between nodes": (lambda: Poisson(DUCT), (2, 3, 7, 8)),
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
    "no-slip walls": (lambda: Intersection(DivergenceFree(HALL, "central"), *no_slip(HALL)), (2, 9, 8)),
    "slip walls": (lambda: Intersection(DivergenceFree(CHANNEL, "central"), *no_penetration(CHANNEL)), (2, 6, 6)),
    "staggered in a box": (lambda: Intersection(DivergenceFree(CAVITY, "staggered"), *no_penetration(CAVITY)), (2, 6, 5)),
    "staggered in a room": (lambda: Intersection(DivergenceFree(ROOM, "staggered"), *no_penetration(ROOM)), (3, 4, 4, 3)),
    "walls, initial data and energy": (
        lambda: Intersection(DivergenceFree(DUCT, "central"), *no_slip(DUCT), InitialCondition(DUCT, between_walls()), Energy(DUCT)),
        (2, 3, 7, 8),
    ),
    "sources": (lambda: DivergenceFree(PLANE, "central", value=dipole()), (2, 8, 7)),
    "gradient": (lambda: CurlFree(CAVITY, "central"), (2, 6, 5)),
    "mesh": (lambda: Balance(few((12, 56)).double() - few((12, 56)).roll(1, 1).double(), shape=(1, 8, 7)), (1, 8, 7)),
    "patches": (lambda: PatchMeans(PLANE, torch.arange(56).reshape(8, 7) // 8, normal((3, 7), 5)), (1, 8, 7)),
    "circulation": (lambda: Circulation(CAVITY, (1, 4, 0, 3), [0.3]), (2, 6, 5)),
    "noisy sensors": (lambda: PointValues(half((2, 8, 7)), normal((3, 2, 8, 7), 2), variance=0.3), (2, 8, 7)),
    "noisy sensors and divergence": (
        lambda: Intersection(DivergenceFree(PLANE), PointValues(half((2, 8, 7)), normal((2, 8, 7), 2), variance=0.3)),
        (2, 8, 7),
    ),
    "noisy sensors in a cavity, a patch exact": (
        lambda: Intersection(
            PointValues(half((2, 6, 5)), normal((3, 2, 6, 5), 2), variance=0.1),
            DivergenceFree(CAVITY, "central"),
            PatchMeans(CAVITY, torch.arange(30).reshape(6, 5) // 10, 0.2, components=[0], channels=2),
        ),
        (2, 6, 5),
    ),
    "noisy sensors and energy": (
        lambda: Intersection(Energy(PLANE, 9.0), PointValues(half((2, 8, 7)), normal((2, 8, 7), 2), variance=0.3), DivergenceFree(PLANE)),
        (2, 8, 7),
    ),
    "species": (lambda: Intersection(LinearRelation(PLANE, 3), Mass(PLANE, 7.0, channels=3)), (3, 8, 7)),
    "state": (lambda: Relation(PLANE, lambda u: u[:, 0] - (1 + u[:, 1].square()) * u[:, 2], channels=3), (3, 8, 7)),
    "enstrophy": (lambda: Intersection(Enstrophy(PLANE, 60.0, scheme=Spectral()), DivergenceFree(PLANE)), (2, 8, 7)),
    "square": (lambda: L2Energy(LINE), (1, 5, 5)),
    "Hamiltonian": (
        lambda: Integral(FILM, lambda u: u[:, 0].square() / 2 + (1 - torch.cos(u[:, 1])), torch.linspace(20, 30, 4), channels=2),
        (2, 4, 6, 4),
    ),
    "budget": (lambda: Intersection(InitialCondition(LINE, normal((3, 1, 5), 1)), Budget(LINE, logistic)), (1, 5, 5)),
    "budget with coefficients of each sample": (
        lambda: Budget(LINE, [grown, lambda u, growth: logistic(u)], coefficients={"growth": torch.tensor([0.1, 0.4, -0.2])}),
        (1, 5, 5),
    ),
    "budget of a scheme": (lambda: Budget(LINE, logistic, theta=0.0, received=[0.1, 0.0, -0.1, 0.2]), (1, 5, 5)),
    "budget of quadratic sums": (
        lambda: Intersection(
            InitialCondition(LINE, normal((3, 1, 5), 1)),
            Budget(LINE, [quadratic(3), quadratic(4)], theta=0.3, density=torch.arange(1.0, 6)),
        ),
        (1, 5, 5),
    ),
    "cells, ends and a quadratic budget": (
        lambda: Intersection(
            InitialCondition(LINE, torch.linspace(1, 0, 5)[None]),
            local_conservation(LINE, godunov(burgers), steps=2),
            Budget(LINE, Quadratic(torch.zeros(1, 5), torch.tensor([[0.5, 0.0, 0.0, 0.0, -0.5]]))),
        ),
        (1, 5, 5),
    ),
    "budget of a density": (lambda: Budget(LINE, logistic, density=lambda u: (1 + u[:, 0].square()).sqrt()), (1, 5, 5)),
    "what came in": (lambda: Intersection(InitialCondition(LINE, torch.ones(1, 5)), Budget(LINE, received=normal((3, 4), 3))), (1, 5, 5)),
    "evolution": (lambda: EvolutionEquation(LOOP, decay, radius=1), (1, 5, 6)),
    "evolution on a prime number of points": (lambda: EvolutionEquation(RING, decay, radius=1, theta=0.0, steps=3), (1, 5, 7)),
    "evolution of a film": (lambda: EvolutionEquation(FILM, lambda u: 0.1 * decay(u), channels=2, steps=2), (2, 4, 6, 4)),
    "cells, ends and budget": (
        lambda: Intersection(
            InitialCondition(LINE, torch.linspace(1, 0, 5)[None]),
            local_conservation(LINE, godunov(burgers), steps=2),
            Budget(LINE, logistic),
        ),
        (1, 5, 5),
    ),
    "bounds": (lambda: Bounds(-0.5, 0.7), (2, 8, 7)),
    "bounds of one channel": (lambda: Bounds(normal((3, 2, 8, 7), 4) - 1, components=[1]), (2, 8, 7)),
    "positive with mass": (lambda: Intersection(positivity(), Mass(LINE, 0.7)), (1, 5, 5)),
    "positive, mass conserved": (lambda: Intersection(positivity(), Mass(LINE)), (1, 5, 5)),
    "maximum principle": (
        lambda: Intersection(
            InitialCondition(LINE, torch.linspace(0.2, 0.9, 5)[None]), maximum_principle(torch.linspace(0.2, 0.9, 5)[None]), Mass(LINE)
        ),
        (1, 5, 5),
    ),
    "bounded flow": (lambda: Intersection(DivergenceFree(PLANE), Momentum(PLANE, 0.0), Bounds(-0.8, 0.8)), (2, 8, 7)),
    "bounded flow between walls": (lambda: Intersection(DivergenceFree(HALL, "central"), *no_slip(HALL), Bounds(-0.1, 0.1)), (2, 9, 8)),
    "noisy sensors within bounds": (
        lambda: Intersection(PointValues(half((2, 8, 7)), normal((2, 8, 7), 2), variance=0.3), Bounds(-0.6, 0.6), Momentum(PLANE, 0.1)),
        (2, 8, 7),
    ),
    "monotone": (lambda: Monotone(LINE, "x"), (1, 5, 5)),
    "monotone with mass": (lambda: Intersection(Monotone(LINE, "x", decreasing=True), Mass(LINE, 0.3)), (1, 5, 5)),
    "monotone within bounds": (lambda: Intersection(Monotone(LINE, "x"), Bounds(-0.5, 0.5)), (1, 5, 5)),
    "Oleinik": (lambda: Intersection(OneSidedLipschitz(LINE, "x", 1 / torch.linspace(0.5, 2, 5)), Mass(LINE)), (1, 5, 5)),
    "energy bound": (lambda: Intersection(EnergyBound(FILM, torch.linspace(3, 60, 4)), DivergenceFree(FILM)), (2, 4, 6, 4)),
    "energy decay": (lambda: Intersection(EnergyDecay(FILM), DivergenceFree(FILM)), (2, 4, 6, 4)),
    "entropy bound": (
        lambda: Intersection(EntropyBound(PLANE, lambda u: torch.cosh(u[:, 0]) - 1, 3.0), Mass(PLANE, 1.0)),
        (1, 8, 7),
    ),
    "entropy decay": (lambda: EntropyDecay(LINE, lambda u: u[:, 0].pow(4)), (1, 5, 5)),
    "energy, momentum and bounds": (lambda: Intersection(Energy(PLANE, 6.0), Momentum(PLANE, 0.0), Bounds(-1.2, 1.2)), (2, 8, 7)),
    "normalised bounds": (
        lambda: rescaled(Intersection(Bounds(-0.5, 0.7), Momentum(PLANE, 0.1)), Units(torch.tensor([0.3, -0.1]), torch.tensor([2.0, 0.5]))),
        (2, 8, 7),
    ),
    "smooth coordinates": (lambda: rescaled(Intersection(DivergenceFree(PLANE), Energy(PLANE, 3.0)), Sobolev(PLANE, 0.5)), (2, 8, 7)),
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
    bounded = torch.isfinite(difference)
    assert torch.allclose(
        constraint.jacobian(u)(step)[bounded], difference[bounded], atol=1e-12 * max(1.0, difference[bounded].abs().max().item() * 1e6)
    )


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
        assert leaf.variance is not None or (leaf.excess(residual) <= tolerance * scale).all()
    size = max(u.abs().max().item(), result.u.abs().max().item())
    assert result.stationarity.max() <= tolerance * size
    if dtype == torch.float64:
        force = u - result.u - constraint.jacobian(result.u).adjoint(result.multiplier)
        assert force.abs().max() <= tolerance * size


def test_inequalities_have_multipliers_of_one_sign_that_vanish_where_there_is_room(law: tuple[Constraint, Tensor]) -> None:
    constraint, u = law
    result = project(constraint, u)
    rows = result.multiplier.split([leaf.residual(u).shape[1] for leaf in constraint.leaves()], dim=1)
    for leaf, multiplier in zip(constraint.leaves(), rows, strict=True):
        if leaf.inequality:
            residual, scale = leaf.measure(result.u)
            size = multiplier.abs().amax()
            assert multiplier.min() >= -1e-11 * size
            assert ((multiplier * residual.nan_to_num(neginf=0.0)).abs() <= 1e-11 * size * scale).all()


def test_projection_is_idempotent_and_treats_a_batch_as_its_members(law: tuple[Constraint, Tensor]) -> None:
    constraint, u = law
    whole = project(constraint, u).u
    if all(leaf.variance is None for leaf in constraint.leaves()):
        assert (project(constraint, whole).u - whole).abs().max() < 1e-10
    for i in range(len(u)):
        alone = project(constraint.take(slice(i, i + 1)), u[i : i + 1]).u
        assert (alone - whole[i : i + 1]).abs().max() < 1e-10


def test_a_copy_projects_alike(law: tuple[Constraint, Tensor]) -> None:
    constraint, u = law
    first = project(constraint, u).u
    assert (project(copy.deepcopy(constraint), u).u - first).abs().max() <= 1e-12


def test_the_order_of_laws_does_not_matter(law: tuple[Constraint, Tensor]) -> None:
    constraint, u = law
    backwards = Intersection(*reversed(constraint.leaves()))
    assert (project(constraint, u).u - project(backwards, u).u).abs().max() < 1e-9


def test_gradient_is_the_derivative(law: tuple[Constraint, Tensor]) -> None:
    """One direction at a time: central differences of the projection against its pulled-back gradient."""
    constraint, u = law[0], law[1].requires_grad_()
    g, z = normal(tuple(u.shape), 40), normal(tuple(u.shape), 41)
    result = project(constraint, u)
    (gradient,) = torch.autograd.grad((result.u * g).sum(), u)
    with torch.no_grad():
        difference = (project(constraint, u + 1e-6 * z).u - project(constraint, u - 1e-6 * z).u) / 2e-6
    assert (gradient * z).sum().item() == pytest.approx((g * difference).sum().item(), rel=1e-5, abs=1e-5)


def test_an_empty_batch_and_a_strange_layout(law: tuple[Constraint, Tensor]) -> None:
    constraint, u = law
    whole = project(constraint, u)
    strided = torch.stack([u, u], dim=-1)[..., 0]
    assert not strided.is_contiguous()
    assert torch.equal(project(constraint, strided).u, whole.u) or (project(constraint, strided).u - whole.u).abs().max() < 1e-12
    if all(leaf.samples == 1 for leaf in constraint.leaves()):
        none = project(constraint, u[:0])
        assert none.u.shape == u[:0].shape
        assert none.multiplier.shape == (0, whole.multiplier.shape[1])


def test_no_lawful_field_is_nearer(law: tuple[Constraint, Tensor]) -> None:
    """Other lawful fields, found by projecting from elsewhere, are farther from the input."""
    constraint, u = law
    if any(leaf.variance is not None for leaf in constraint.leaves()):
        pytest.skip("with noise nothing is unlawful: the posterior mean has tests of its own")
    if any(leaf.name == "local conservation" for leaf in constraint.leaves()):
        pytest.skip("upwind switches make several nearest points: each is certified, none is nearest of all")
    nearest = (project(constraint, u).u - u).flatten(1).norm(dim=1)
    for seed in range(2):
        other = project(constraint, u + 0.3 * normal(tuple(u.shape), 30 + seed))
        assert other.converged.all()
        assert ((other.u - u).flatten(1).norm(dim=1) >= nearest - 1e-9).all()


def test_a_budget_knows_what_passes_through() -> None:
    """As much out as in, a thousand times the content: the net flux is round-off of either, told apart only where they are given apart."""
    u = normal((2, 1, 5, 5), 50)
    passing = 1e3 * (1 + u[:, 0].mean(-1).square())
    through = Budget(LINE, [lambda u: 1e3 * (1 + u[:, 0].mean(-1).square()), lambda u: -1e3 * (1 + u[:, 0].mean(-1).square())])
    still = Budget(LINE)
    net = Budget(LINE, lambda u: 0.0 * u[:, 0].mean(-1))
    assert torch.allclose(through.residual(u), still.residual(u), atol=1e-12)
    assert torch.allclose(net.scale(u), still.scale(u))
    turnover = 2 * through.gaps * (passing[:, 1:] + passing[:, :-1]) / 2
    assert torch.allclose(through.scale(u) - still.scale(u), turnover, rtol=1e-12)
    assert project(through, u).converged.all()


def test_coefficients_of_a_budget_are_those_of_its_samples() -> None:
    """Taken with them, where a function that has closed over a batch has it still."""
    growth, u = torch.tensor([0.1, 0.4, -0.2], dtype=torch.float64), normal((3, 1, 5, 5), 51)
    law = Budget(LINE, grown, coefficients={"growth": growth}, density=thick, received=[0.1, 0.0, -0.1, 0.2])
    assert law.samples == 3
    whole = project(law, u)
    for i in range(3):
        part = law.take(slice(i, i + 1))
        alone = Budget(LINE, lambda u, g=growth[i]: grown(u, g), density=lambda u, g=growth[i]: thick(u, g), received=[0.1, 0.0, -0.1, 0.2])
        assert part.samples == 1
        assert torch.equal(part.residual(u[i : i + 1]), alone.residual(u[i : i + 1]))
        assert (project(part, u[i : i + 1]).u - whole.u[i : i + 1]).abs().max() < 1e-12
    assert (whole.u - project(Budget(LINE, lambda u: grown(u, growth[:1]), received=[0.1, 0.0, -0.1, 0.2]), u).u).abs().max() > 1e-3
    shared = Budget(LINE, grown, coefficients={"growth": growth[:1]})
    assert shared.samples == 1
    with pytest.raises(ValueError, match=r"coefficients of the same number of samples, \(B, ...\); got \{'a': 2, 'b': 3\}"):
        Budget(LINE, grown, coefficients={"a": growth[:2], "b": growth})
    with pytest.raises(ValueError, match=r"got \{'growth': 0\}"):
        Budget(LINE, grown, coefficients={"growth": growth[0]})


def test_a_budget_with_coefficients_and_received_of_each_sample() -> None:
    growth, u, received = torch.tensor([0.1, 0.4, -0.2]), normal((3, 1, 5, 5), 51), normal((3, 4), 52)
    law = Budget(LINE, grown, coefficients={"growth": growth}, received=received)
    assert torch.equal(law.take(slice(1, 3)).residual(u[1:]), law.residual(u)[1:])


def test_channels_of_other_units_do_not_set_the_scale() -> None:
    """The mass of a gas is measured by its density, and given data of each channel by that, though energies are five orders larger."""
    grid = Grid(Axis("time", 3), Axis("x", 8, periodic=True))
    u = torch.stack([torch.full((3, 8), size, dtype=torch.float64) for size in (1.2, 10.0, 2.5e5)])[None]
    u[:, 0, 2] *= 1 + 1e-7
    for law in (Mass(grid, channels=3), Momentum(grid, components=(0, 1), channels=3), InitialCondition(grid, u[0, :, 0] * (1 + 1e-7))):
        residual, scale = law.measure(u)
        assert 1e-9 < float((residual.abs() / scale).max()) < 1e-6
        assert not project(Intersection(law, Mass(grid, component=2, channels=3)), u).u.equal(u)
    residual, scale = Momentum(grid, 0.0, components=(0, 1), channels=3).measure(u)
    assert float((scale[:, 0] / scale[:, 3]).mean()) == 1.0  # components of one vector share their size
    still = InitialCondition(grid, torch.zeros(2, 8))
    v = torch.zeros(1, 2, 3, 8, dtype=torch.float64)
    v[:, 0] = 3.0
    assert (still.scale(v) == 3.0).all()  # a channel that vanishes is measured by the others
