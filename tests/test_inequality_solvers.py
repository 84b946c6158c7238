"""What begins active sets: interior points, and Gram matrices of sparse rows, against dense algebra and an independent programme."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import scipy.sparse
import torch
from torch import Tensor

import constraints.linear.sparse as sparse_module
from constraints import EntropyDecay, FunctionConstraint, Intersection, Mass, Monotone
from constraints.face import RowMask
from constraints.inequality import BothSides
from constraints.interior import interior
from constraints.linear import LinearMap, Noisy, Selection, SparseMap, Stacked, Weighted, WeightedSum
from constraints.linear.sparse import SparseGram
from tests.fields import LINE, PLANE, half, normal
from tests.test_independent import Rows, quadratic

# --- rows of several maps and samples -----------------------------------------------------------------------------------------------


def sparse_rows(rows: int, columns: int, seed: int) -> Tensor:
    return normal((rows, columns), seed) * (normal((rows, columns), seed + 1) > 0.5)


def moving() -> LinearMap:
    """Rows of each sample's own: the Jacobian of differences to the third power at three fields."""
    return FunctionConstraint(lambda u: u[:, 0].diff(dim=-1).pow(3).flatten(1)).jacobian(normal((3, 1, 5, 5), 3))


JOINT: dict[str, Callable[[], LinearMap]] = {
    "stack": lambda: Stacked([Mass(LINE).operator, Selection(half((1, 5, 5))), SparseMap(sparse_rows(9, 25, 1), (1, 5, 5))]),
    "stack with rows of each sample's own": lambda: Stacked([Mass(LINE).operator, moving()]),
    "masked rows": lambda: RowMask(SparseMap(sparse_rows(9, 25, 1), (1, 5, 5)), (normal((3, 9), 4) > 0).double()),
    "masked rows of each sample's own": lambda: RowMask(moving(), (normal((3, 20), 4) > 0).double()),
    "weighted": lambda: Weighted(SparseMap(sparse_rows(9, 25, 1), (1, 5, 5)), normal((1, 5, 5), 5)),
    "weights of each sample's own": lambda: Weighted(SparseMap(sparse_rows(9, 25, 1), (1, 5, 5)), normal((3, 1, 5, 5), 5)),
    "broadcast weights": lambda: Weighted(WeightedSum(normal((2, 4, 6, 4), 1).abs(), (-2, -1)), normal((2, 1, 1, 1), 5)),
    "noisy": lambda: Noisy(SparseMap(sparse_rows(9, 25, 1), (1, 5, 5)), torch.ones(9, dtype=torch.float64)),
    "both sides": lambda: BothSides((2, 3, 4)),
    "inequalities": lambda: Intersection(Monotone(LINE, "x"), EntropyDecay(LINE, lambda u: u[:, 0].square())).jacobian(
        normal((3, 1, 5, 5), 6)
    ),
}


def matrices(map_: LinearMap, batch: int) -> Tensor:
    """The matrix of a map for each sample, (B, m, n)."""
    eye = torch.eye(math.prod(map_.shape), dtype=torch.float64).reshape(-1, 1, *map_.shape).expand(-1, batch, *map_.shape)
    return torch.stack([map_(e.contiguous()) for e in eye], dim=-1)


def written(map_: LinearMap, batch: int) -> Tensor:
    """The same from its entries."""
    entries = map_.entries()
    assert entries is not None
    out = torch.zeros(batch, map_.rows, math.prod(map_.shape), dtype=torch.float64)
    for sample, values in zip(out, entries.values.expand(batch, -1), strict=True):
        sample.index_put_((entries.rows, entries.columns), values.to(torch.float64), accumulate=True)
    return out


@pytest.mark.parametrize("name", JOINT)
def test_entries_of_joint_maps_are_their_matrices(name: str) -> None:
    map_ = JOINT[name]()
    assert torch.allclose(written(map_, 3), matrices(map_, 3), atol=1e-12)


# --- Gram matrices ------------------------------------------------------------------------------------------------------------------


def weights(batch: int, columns: int) -> Tensor:
    """Of each sample's own, some zero."""
    return normal((batch, columns), 11).abs() * (normal((batch, columns), 12) > -0.5)


@pytest.fixture(params=["at once", "in slices"])
def slices(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """All samples factored at once, or two at a time."""
    if request.param == "in slices":
        monkeypatch.setattr(sparse_module, "_ENTRIES", 1500.0)
    return str(request.param)


def gram_of(batch: int = 5) -> tuple[SparseGram, Tensor]:
    rows = SparseMap(sparse_rows(9, 24, 21), (2, 3, 4))
    gram = SparseGram.of(rows, batch)
    assert gram is not None
    return gram, matrices(rows, batch)


def test_raised_gram_matrices_against_dense_solves(slices: str) -> None:
    gram, a = gram_of()
    assert (len(gram._slices) == 1) == (slices == "at once")
    kept, diagonal, r = normal((5, 9), 13) > -0.3, normal((5, 9), 14).abs() + 1e-3, normal((5, 9), 15)
    w = weights(5, 24)
    found = gram.raised(w, kept, diagonal)(r)
    dense = a * w[:, None] @ a.mT + torch.diag_embed(diagonal)
    for i, chosen in enumerate(kept):
        expected = torch.zeros(9, dtype=torch.float64)
        expected[chosen] = torch.linalg.solve(dense[i][chosen][:, chosen], r[i][chosen])
        assert torch.allclose(found[i], expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("some", [False, True])
def test_semidefinite_gram_matrices_solve_what_can_be_solved(slices: str, some: bool) -> None:
    """Rows told twice, rows without a free value, rows left out: right-hand sides in the range are reached, to round-off."""
    _, a = gram_of()
    twice = SparseMap(torch.cat([a[0], a[0, :4] - a[0, 1:5], torch.zeros(1, 24)]), (2, 3, 4))
    gram, a = SparseGram.of(twice, 5), matrices(twice, 5)
    assert gram is not None
    w = weights(5, 24)
    w[0] = 0.0
    kept = normal((5, 14), 16) > -0.3 if some else torch.ones(5, 14, dtype=torch.bool)
    chosen = kept.double()[..., None] * a
    matrix = chosen * w[:, None] @ chosen.mT
    r = (matrix @ normal((5, 14, 1), 17))[..., 0]
    y = gram.semidefinite(w, kept=kept)(r)
    assert ((matrix @ y[..., None])[..., 0] - r).abs().max() < 1e-12
    assert not y[~kept].any()
    assert y.abs().max() < 1e3, "null directions are left alone"


def test_semidefinite_gram_matrices_with_noise() -> None:
    gram, a = gram_of()
    w, noise, r = weights(5, 24), torch.linspace(0.1, 2.0, 9, dtype=torch.float64), normal((5, 9), 18)
    expected = torch.linalg.solve(a * w[:, None] @ a.mT + torch.diag(noise), r)
    assert torch.allclose(gram.semidefinite(w, noise)(r), expected, rtol=1e-9, atol=1e-12)


def test_rescaled_rows_and_their_norms() -> None:
    gram, a = gram_of()
    factors = normal((5, 9), 19).abs() + 0.1
    scaled = gram.rescaled(factors)
    assert torch.allclose(gram.norms(), a.norm(dim=2), rtol=1e-14)
    assert torch.allclose(scaled.norms(), factors * a.norm(dim=2), rtol=1e-14)
    every, one, r = torch.ones(5, 9, dtype=torch.bool), torch.ones(5, 9, dtype=torch.float64), normal((5, 9), 20)
    rows = factors[..., None] * a
    expected = torch.linalg.solve(rows @ rows.mT + torch.eye(9), r)
    assert torch.allclose(scaled.raised(torch.ones(5, 24), every, one)(r), expected, rtol=1e-10)
    assert torch.allclose(gram.norms(), a.norm(dim=2), rtol=1e-14), "the first is as it was"


def test_gram_matrices_of_rows_of_each_samples_own() -> None:
    rows = moving()
    gram, a, r = SparseGram.of(rows, 3), matrices(rows, 3), normal((3, 20), 22)
    assert gram is not None
    w = weights(3, 25)
    expected = torch.linalg.solve(a * w[:, None] @ a.mT + 0.5 * torch.eye(20), r)
    solved = gram.raised(w, torch.ones(3, 20, dtype=torch.bool), torch.full((3, 20), 0.5, dtype=torch.float64))(r)
    assert torch.allclose(solved, expected, rtol=1e-10)


def test_what_is_not_sparse_is_left_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    assert SparseGram.of(Mass(PLANE, channels=2).operator if PLANE.has_time else Selection(half((2, 8, 7))), 0) is None
    rows = SparseMap(torch.ones(50, 24, dtype=torch.float64), (2, 3, 4))
    assert SparseGram.of(rows, 1) is not None
    monkeypatch.setattr(sparse_module, "_ENTRIES", 50.0**2 * 24 - 1)
    assert SparseGram.of(rows, 1) is None


# --- interior points ----------------------------------------------------------------------------------------------------------------


def programme(seed: int, *, equal: int, unequal: int, low: float, high: float, again: bool = False, noise: bool = False) -> None:
    """An interior point of a random programme of four samples, and the sets it names, against Lawson and Hanson's method."""
    batch, n = 4, 20
    matrix = sparse_rows(equal + unequal, n, 31 + seed)
    inside = normal((batch, n), 41 + seed).tanh() * 0.3
    target = inside @ matrix.T
    target[:, equal:] += normal((batch, unequal), 42 + seed).abs() * 0.05
    if again:  # the first rows, and a sum of others, told twice
        more = torch.cat([matrix[:1], matrix[:equal].sum(0, keepdim=True)])
        matrix, target = torch.cat([more, matrix]), torch.cat([inside @ more.T, target], dim=1)
        equal += 2
    variance = 0.2 * (torch.arange(len(matrix)) < 2).double() if noise else None
    unequal_rows = torch.arange(len(matrix)) >= equal
    rows = SparseMap(matrix, (1, 4, 5))
    u = normal((batch, 1, 4, 5), 43 + seed)
    lower, upper = torch.tensor(low, dtype=torch.float64), torch.tensor(high, dtype=torch.float64)
    found = interior(u, lower, upper, lambda v: (rows(v) - target, rows), unequal_rows, variance=variance)
    assert found is not None
    assert found.solved.all()
    assert found.iterations <= 40
    for i in range(batch):
        held = matrix[equal:].numpy()
        bounds = [(np.eye(n), np.full(n, high)), (-np.eye(n), np.full(n, -low))]
        bounds = [(side, limit) for side, limit in bounds if np.isfinite(limit).all()]
        g = np.concatenate([held, *(side for side, _ in bounds)])
        h = np.concatenate([target[i, equal:].numpy(), *(limit for _, limit in bounds)])
        quiet = Rows(matrix[:equal].numpy(), target[i, :equal].numpy(), np.zeros(0))
        hessian, pull = np.eye(n), u[i].flatten().numpy()
        if noise:
            seen = matrix[:2].numpy()
            hessian, pull = hessian + seen.T @ seen / 0.2, pull + seen.T @ target[i, :2].numpy() / 0.2
            quiet = Rows(matrix[2:equal].numpy(), target[i, 2:equal].numpy(), np.zeros(0))
        best = quadratic(hessian, pull, quiet, Rows(g, h, np.zeros(0)))
        v = found.u[i].flatten().numpy()
        assert np.abs(v - best).max() < 1e-5
        slack = target[i, equal:].numpy() - held @ best
        assert not (found.rows[i, equal:].numpy() & (slack > 1e-4)).any(), "what is named holds with equality"
        assert not (found.above[i].flatten().numpy() & (best < high - 1e-4)).any()
        assert not (found.below[i].flatten().numpy() & (best > low + 1e-4)).any()
        held_at = found.above[i].double() - found.below[i].double()
        force = u[i].flatten() - found.u[i].flatten() - found.multiplier[i] @ matrix
        assert (force * (held_at.flatten() == 0)).abs().max() < 1e-3, "what is not named has no force"
        assert (found.multiplier[i, equal:] >= 0).all()


PROGRAMMES: dict[str, dict[str, float | bool]] = {
    "rows": {"equal": 0, "unequal": 12, "low": -math.inf, "high": math.inf},
    "equalities and rows": {"equal": 4, "unequal": 10, "low": -math.inf, "high": math.inf},
    "box": {"equal": 3, "unequal": 0, "low": -0.4, "high": 0.4},
    "rows and a box": {"equal": 0, "unequal": 10, "low": -0.4, "high": 0.4},
    "one-sided box": {"equal": 2, "unequal": 6, "low": -math.inf, "high": 0.4},
    "all": {"equal": 4, "unequal": 8, "low": -0.5, "high": 0.5},
    "rows told twice": {"equal": 4, "unequal": 8, "low": -0.5, "high": 0.5, "again": True},
    "more rows than values": {"equal": 2, "unequal": 40, "low": -0.5, "high": 0.5},
    "noise": {"equal": 4, "unequal": 8, "low": -0.5, "high": 0.5, "noise": True},
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", PROGRAMMES)
def test_interior_points_against_quadratic_programming(name: str, seed: int) -> None:
    programme(100 * seed, **PROGRAMMES[name])  # type: ignore[arg-type]


def test_values_between_equal_bounds_are_given() -> None:
    """A sum to one of four values, two of which are given and one may not rise: (1/4, 1/2, ...) from the closed form."""
    u = torch.tensor([[[0.9, 0.0, 0.0, 0.4]]], dtype=torch.float64)
    low = torch.tensor([[[-torch.inf, 0.5, -torch.inf, -torch.inf]]], dtype=torch.float64)
    high = torch.tensor([[[0.25, 0.5, torch.inf, torch.inf]]], dtype=torch.float64)
    rows = SparseMap(torch.ones(1, 4, dtype=torch.float64), (1, 4))
    found = interior(u, low, high, lambda v: (rows(v) - 1.0, rows), torch.tensor([False]))
    assert found is not None
    assert found.solved.all()
    # 1 - 1/4 - 1/2 is shared by values that began 0.4 apart
    assert torch.allclose(found.u, torch.tensor([0.25, 0.5, -0.075, 0.325], dtype=torch.float64), atol=1e-6)
    assert found.above.flatten().tolist()[0]
    assert found.multiplier.item() == pytest.approx(0.075, abs=1e-6)


def test_an_interior_point_beside_a_curved_law() -> None:
    """Within bounds on a sphere: Lagrange's conditions with the sphere's own curvature."""
    n, energy = 12, 1.5
    u = 0.8 * normal((4, 1, 12), 51)
    law = FunctionConstraint(lambda v: v.square().flatten(1).sum(1, keepdim=True) / 2 - energy)

    def curvature(v: Tensor, y: Tensor) -> Tensor:
        return y[:, :, None].expand_as(v)

    found = interior(u, *torch.tensor([-0.6, 0.6]).double(), law.linearise, torch.tensor([False]), curvature=curvature)
    assert found is not None
    assert found.solved.all()
    v, y = found.u, found.multiplier
    assert law.residual(v).abs().max() < 1e-6
    # between the bounds (1 + y) v = u, at them the force points outwards
    expected = (u / (1 + y[..., None])).clamp(-0.6, 0.6)
    assert (v - expected).abs().max() < 1e-4
    assert n == v.shape[-1]


def test_a_sample_does_not_change_the_others() -> None:
    """Alone and in company, with one that cannot be solved beside it."""
    rows = SparseMap(torch.ones(1, 4, dtype=torch.float64), (1, 4))
    u, target = normal((3, 1, 4), 52), torch.tensor([[0.5], [9.0], [-0.5]], dtype=torch.float64)
    low, high = torch.tensor([-1.0, 1.0]).double()

    def run(part: slice) -> tuple[Tensor, Tensor]:
        found = interior(u[part], low, high, lambda v: (rows(v) - target[part], rows), torch.tensor([False]))
        assert found is not None
        return found.u, found.solved

    together, solved = run(slice(0, 3))
    assert solved.tolist() == [True, False, True], "no values within bounds add up to nine"
    for i in (0, 2):
        assert torch.allclose(run(slice(i, i + 1))[0], together[i : i + 1], atol=1e-9)


def test_the_same_whatever_the_unit_of_rows_and_fields() -> None:
    matrix, u = sparse_rows(8, 20, 61), normal((2, 1, 4, 5), 62)
    found = []
    for unit, size in ((1.0, 1.0), (1e6, 1.0), (1e-6, 1.0), (1.0, 1e4), (1.0, 1e-8)):
        rows, u_ = SparseMap(unit * matrix, (1, 4, 5)), size * u
        low, high = size * torch.tensor([-0.7, 0.7]).double()
        sums = unit * size * 0.1
        point = interior(u_, low, high, lambda v, rows=rows, sums=sums: (rows(v) - sums, rows), torch.arange(8) > 1)  # type: ignore[misc]
        assert point is not None
        assert point.solved.all()
        found.append(point.u / size)
    for other in found[1:]:
        assert (other - found[0]).abs().max() < 1e-6


def test_rows_that_are_not_sparse_have_no_interior_point(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse_module, "_ENTRIES", 1.0)
    rows = SparseMap(scipy.sparse.eye_array(4), (1, 4))
    assert (
        interior(torch.ones(1, 1, 4).double(), *torch.tensor([0.0, 1.0]), lambda v: (rows(v), rows), torch.ones(4, dtype=torch.bool))
        is None
    )
