"""Contracts of linear maps, one suite over all of them."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from constraints import (
    Axis,
    Budget,
    Circulation,
    Covariance,
    CurlFree,
    DivergenceFree,
    Energy,
    EvolutionEquation,
    FunctionConstraint,
    Grid,
    LinearMap,
    Mass,
    Momentum,
    Neumann,
    PatchMeans,
    Relation,
    Sobolev,
    local_conservation,
    no_penetration,
    no_slip,
)
from constraints.calculus.finite_volume import godunov
from constraints.calculus.staggered import Staggered
from constraints.face import RowMask
from constraints.linear import (
    FourierSymbol,
    KroneckerSum,
    Noisy,
    RowCombination,
    RowSelection,
    Selection,
    SparseMap,
    Stacked,
    Weighted,
    WeightedSum,
)
from constraints.linear.entries import Entries
from constraints.linear.explicit import ExplicitRows
from constraints.linear.solve import conjugate_gradients, pseudo_inverse
from constraints.linear.stepping import BlockSteps, LineSteps, TimeSteps
from tests.fields import (
    BOX,
    CAVITY,
    CHANNEL,
    DUCT,
    FILM,
    LINE,
    PLANE,
    ROOM,
    WALLS,
    burgers,
    decay,
    dense,
    divergence,
    half,
    logistic,
    normal,
)


def inside(grid: Grid) -> Tensor:
    """1 away from walls, for every component."""
    mask = torch.ones(len(grid.space_axes), *grid.shape, dtype=torch.float64)
    for wall in no_slip(grid):
        mask = mask * (wall.operator.adjoint(torch.ones(1, wall.operator.rows, dtype=torch.float64))[0] == 0)
    return mask


def closed(grid: Grid) -> Tensor:
    """1 but for normal components on walls."""
    mask = torch.ones(len(grid.space_axes), *grid.shape, dtype=torch.float64)
    for wall in no_penetration(grid):
        mask = mask * (wall.operator.adjoint(torch.ones(1, wall.operator.rows, dtype=torch.float64))[0] == 0)
    return mask


def later() -> Tensor:
    """1 after the first time of LINE."""
    return (torch.arange(5) > 0).double()[None, :, None].expand(1, 5, 5)


def sparse_rows(rows: int, columns: int) -> Tensor:
    return normal((rows, columns), 9) * (normal((rows, columns), 10) > 1)


def patches() -> Tensor:
    """Two rows of patches on PLANE, a line left out."""
    x, y = torch.meshgrid(torch.arange(8), torch.arange(7), indexing="ij")
    return torch.where(y == 6, -1, (x // 4) * 2 + y // 3)


def kernels() -> dict[str, Tensor]:
    """Exponential covariances on both axes of CAVITY."""
    return {a.name: torch.exp(-(a.positions()[:, None] - a.positions()).abs()) for a in CAVITY.axes}


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
    "divergence in a channel": lambda: divergence(CHANNEL, "central"),
    "divergence in a cavity": lambda: divergence(CAVITY, "central"),
    "divergence in a room": lambda: divergence(ROOM, "central"),
    "divergence in time, walled": lambda: divergence(DUCT, "central"),
    "divergence staggered, periodic": lambda: divergence(PLANE, "staggered"),
    "divergence staggered": lambda: divergence(CAVITY, "staggered"),
    "divergence staggered, 3-D": lambda: divergence(ROOM, "staggered"),
    "divergence of two of four, walled": lambda: DivergenceFree(CAVITY, "central", components=(3, 1), channels=4).operator,
    "divergence between no-slip walls": lambda: divergence(CAVITY, "central").weighted(inside(CAVITY)),
    "divergence staggered in a box": lambda: divergence(CAVITY, "staggered").weighted(closed(CAVITY)),
    "divergence staggered in a room": lambda: divergence(ROOM, "staggered").weighted(closed(ROOM)),
    "divergence after the first time, walled": lambda: divergence(DUCT, "central").weighted(
        (torch.arange(3) > 0).double()[:, None, None] * inside(DUCT)
    ),
    "divergence around a block": lambda: divergence(CAVITY, "staggered").weighted(half((2, 6, 5)).double()),
    "curl": lambda: CurlFree(PLANE).operator,
    "curl in a cavity": lambda: CurlFree(CAVITY, "central").operator,
    "sparse": lambda: SparseMap(sparse_rows(20, 30), (2, 3, 5)),
    "sparse, dependent": lambda: SparseMap(torch.cat([sparse_rows(20, 30)] * 2), (2, 3, 5)),
    "sparse weighted": lambda: SparseMap(sparse_rows(20, 30), (2, 3, 5)).weighted(torch.tensor([2.0, 0.5])[:, None, None]),
    "some sums": lambda: Neumann(WALLS, "y", "upper", components=[1], channels=2).operator,
    "steps in time": lambda: Budget(LINE, logistic).jacobian(normal((1, 1, 5, 5), 3)),
    "steps in time, later": lambda: Budget(LINE, logistic).jacobian(normal((1, 1, 5, 5), 3)).weighted(later()),
    "steps of a line": lambda: EvolutionEquation(LINE, decay, radius=1).jacobian(normal((1, 1, 5, 5), 3)),
    "steps of a line, later": lambda: (
        local_conservation(LINE, godunov(burgers), steps=2).jacobian(normal((1, 1, 5, 5), 3)).weighted(later())
    ),
    "steps of blocks": lambda: BlockSteps(normal((1, 3, 2, 5), 1), normal((1, 3, 2, 5), 2), 5),
    "steps of blocks, later": lambda: BlockSteps(normal((1, 3, 2, 5), 1), normal((1, 3, 2, 5), 2), 5).weighted(later()),
    "steps of blocks and of sums": lambda: Stacked(
        [BlockSteps(normal((1, 3, 2, 5), 1), normal((1, 3, 2, 5), 2), 5), Budget(LINE, logistic).jacobian(normal((1, 1, 5, 5), 3))]
    ),
    "steps anywhere": lambda: EvolutionEquation(FILM, decay, channels=2).jacobian(normal((1, 2, 4, 6, 4), 3)),
    "relation at a field": lambda: Relation(PLANE, lambda u: u[:, 0] * u[:, 1], channels=2).jacobian(normal((1, 2, 8, 7), 3)),
    "patches": lambda: PatchMeans(PLANE, patches(), 0.0, components=[1], channels=2).operator,
    "circulation": lambda: Circulation(FILM, (1, 4, 0, 2)).operator,
    "masked rows": lambda: RowMask(divergence(PLANE), half((56,)).double()[None]),
    "smooth coordinates": lambda: Sobolev(PLANE, 0.7).compose(divergence(PLANE)),
    "smooth coordinates of points": lambda: Sobolev(PLANE, 0.7).compose(Selection(half((2, 8, 7)))),
    "correlated coordinates": lambda: Covariance(CAVITY, kernels()).compose(divergence(CAVITY, "central")),
    "own rows, few values": lambda: FunctionConstraint(lambda u: u[:, 0].diff(dim=-1).pow(3).flatten(1)).jacobian(normal((1, 1, 5, 5), 3)),
    "automatic": lambda: FunctionConstraint(lambda u: u.square().flatten(2).sum(2)).jacobian(normal((1, 2, 8, 7), 3)),
}


@pytest.fixture(params=OPERATORS, ids=str)
def operator(request: pytest.FixtureRequest) -> LinearMap:
    return OPERATORS[request.param]()


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
    assert isinstance(divergence(CAVITY, "central").weighted(inside(CAVITY)), KroneckerSum)
    assert isinstance(divergence(ROOM, "central").weighted(inside(ROOM)), KroneckerSum)
    assert isinstance(divergence(CAVITY, "staggered").weighted(half((2, 6, 5)).double()), Weighted)
    assert isinstance(Sobolev(PLANE, 1.0).compose(divergence(PLANE)), FourierSymbol)
    masked_times = (torch.arange(4) > 0).double()[:, None, None].expand(2, 4, 6, 4)
    assert isinstance(divergence(FILM).weighted(masked_times), FourierSymbol)
    assert isinstance(divergence(PLANE).weighted(half((2, 8, 7)).double()), Weighted)
    assert isinstance(Mass(LINE).operator.weighted(torch.ones(1, 5, 5)), RowCombination)


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


def ends(kind: str, name: str, seed: int) -> Axis:
    """An axis of one of the kinds that the tensor solve is for."""
    n = {"x": 7, "y": 6}[name]
    x = torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).add(0.2).cumsum(0)
    if kind == "periodic":
        return Axis(name, n, length=1.3, periodic=True)
    if kind == "bounded":
        return Axis(name, n, length=1.3)
    if kind == "stretched":
        return Axis.at(name, x.tolist())
    return Axis.at(name, x.tolist(), periodic=True, length=float(x[-1] - x[0]) + 0.7)


KINDS = ("periodic", "bounded", "stretched", "stretched periodic")


@pytest.mark.parametrize("scheme", ["central", "staggered"])
@pytest.mark.parametrize("x", KINDS)
@pytest.mark.parametrize("y", KINDS)
def test_every_pair_of_ends_and_walls(x: str, y: str, scheme: str) -> None:
    """Free, with no normal flow, and with no flow at walls: the tensor solve is the pseudo-inverse, on prime and even sizes."""
    grid = Grid(ends(x, "x", 1), ends(y, "y", 2))
    law = DivergenceFree(grid, scheme)
    masks = [torch.ones(2, 7, 6, dtype=torch.float64)]
    if not all(axis.periodic for axis in grid.axes):
        masks += [closed(grid), inside(grid)]
    for mask in masks:
        operator = law.operator.weighted(mask)
        matrix = dense(operator)
        u = normal((2, 2, 7, 6), 3)
        v, _ = operator.nearest(u)
        expected = u.flatten(1) - u.flatten(1) @ matrix.T @ torch.linalg.pinv(matrix, rtol=1e-10).T
        assert not isinstance(operator, Weighted)
        assert (v.flatten(1) - expected).abs().max() < 1e-11
        assert (operator.nearest(v)[0] - v).abs().max() < 1e-11


@pytest.mark.parametrize(
    ("low", "high", "values"),
    [
        (True, True, lambda k, n: 2 - 2 * math.cos(math.pi * k / n)),
        (False, False, lambda k, n: 2 - 2 * math.cos(math.pi * (k + 1) / (n + 1))),
        (True, False, lambda k, n: 2 - 2 * math.cos(math.pi * (2 * k + 1) / (2 * n + 1))),
    ],
    ids=["closed", "open", "open above"],
)
def test_staggered_eigenvalues_are_the_known_ones(low: bool, high: bool, values: Callable[[int, int], float]) -> None:
    n = 9
    matrix = Staggered().matrix(Axis("x", n + 1, length=float(n)))
    kept = torch.ones(n + 1, dtype=torch.float64)
    kept[0], kept[-1] = 1.0 - low, 1.0 - high
    found = torch.linalg.eigvalsh((matrix * kept) @ (matrix * kept).T)[1:]
    expected = torch.tensor([values(k, n) for k in range(n)], dtype=torch.float64)
    assert torch.allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("n", [64, 128])
def test_an_obstacle_takes_few_iterations_on_any_mesh(n: int) -> None:
    """The tensor solve of the open box preconditions that with a block inside."""
    grid = Grid(Axis("x", n + 1), Axis("y", n + 1))
    operator = DivergenceFree(grid, "staggered").operator
    free = closed(grid)
    free[:, n // 4 : n // 2, n // 3 : n // 2] = 0.0
    masked = operator.weighted(free)
    assert isinstance(masked, Weighted)
    calls = 0

    def count(y: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return masked(masked.adjoint(y))

    box = operator.weighted(closed(grid))
    r = masked(normal((1, 2, n + 1, n + 1), 5))
    y = conjugate_gradients(count, r, preconditioner=box.solve_gram)
    assert (masked(masked.adjoint(y)) - r).abs().max() <= 1e-10 * r.abs().max()
    assert calls <= 40


def test_noise_is_added_to_the_gram_matrix() -> None:
    variance = torch.rand(56, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    for inner in (divergence(PLANE), Selection(half((2, 8, 7)))):
        matrix = dense(inner)
        r = variance.repeat(2)[: inner.rows]
        expected = torch.linalg.inv(matrix @ matrix.T + torch.diag(r))
        y = normal((2, inner.rows), 6)
        assert torch.allclose(Noisy(inner, r).solve_gram(y), y @ expected, atol=1e-10)


def test_entries_are_the_matrix(operator: LinearMap) -> None:
    """Entries of one place add up to it; weights of values, masks and combinations of rows act on them as on the map."""
    entries = operator.entries()
    if entries is None:
        assert not isinstance(
            operator, (Selection, WeightedSum, RowSelection, RowCombination, SparseMap, ExplicitRows, TimeSteps, LineSteps)
        )
        return
    values = math.prod(operator.shape)

    def matrix(given: Entries, rows: int) -> Tensor:
        written = torch.zeros(rows, values, dtype=torch.float64)
        return written.index_put((given.rows, given.columns), given.values.expand(1, -1)[0].to(torch.float64), accumulate=True)

    expected, scale, weight = dense(operator), normal((values,), 6), normal((operator.rows,), 7)
    mixed = normal((3, operator.rows), 8) * (normal((3, operator.rows), 9) > 0)
    for given, wanted in (
        (entries, expected),
        (entries.weighted(scale), expected * scale),
        (entries.masked(weight), weight[:, None] * expected),
        (entries.combined(mixed), mixed @ expected),
    ):
        assert torch.allclose(matrix(given, len(wanted)), wanted, atol=1e-12)
