"""Nearest points of convex sets: their optimality conditions, independent solvers, batches and members, bad input."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
import scipy.optimize
import torch
from torch import Tensor

from constraints.convex import box_mean, entropy_ball, isotonic, isotonic_multiplier, l1_ball, simplex, total_variation_prox

SEEDS = range(4)
CERTIFICATE = 1e-10
OPTIMALITY = 1e-6


def normal(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def uniform(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def worst(*parts: Tensor) -> float:
    """The largest violation among parts of a certificate."""
    return max(float(part.max()) if part.numel() else 0.0 for part in parts)


def transposed(s: Tensor) -> Tensor:
    """Dᵀ s, for differences (D x)_i = x_{i+1} - x_i."""
    return torch.nn.functional.pad(s, (1, 0)) - torch.nn.functional.pad(s, (0, 1))


# Certificates: the largest of primal violation, wrong sign, lost complementarity and stationarity.


def certify_simplex(u: Tensor, total: Tensor, x: Tensor, threshold: Tensor) -> float:
    mu = x - u + threshold[..., None]
    return worst(-x, (x.sum(-1) - total).abs(), -mu, (mu * x).abs())


def certify_l1(u: Tensor, radius: Tensor, x: Tensor, threshold: Tensor) -> float:
    slack, force = radius - x.abs().sum(-1), (u - x)
    along = torch.where(x != 0, (force - threshold[..., None] * x.sign()).abs(), force.abs() - threshold[..., None])
    return worst(-slack, -threshold, (threshold * slack).abs(), along)


def certify_box_mean(u: Tensor, w: Tensor, mean: Tensor, low: Tensor, high: Tensor, x: Tensor, nu: Tensor) -> float:
    mu = x - u + nu[..., None] * w
    at_low, at_high = x <= low, x >= high
    wrong = torch.where(at_low & at_high, 0, torch.where(at_low, -mu, torch.where(at_high, mu, mu.abs())))
    return worst(((w * x).sum(-1) - mean).abs(), low - x, x - high, wrong)


def certify_isotonic(u: Tensor, w: Tensor | None, decreasing: bool, x: Tensor) -> float:
    nu = isotonic_multiplier(u, x, w, decreasing)
    rise = -x.diff(dim=-1) if decreasing else x.diff(dim=-1)
    force = (1 if w is None else w) * (x - u)
    return worst(-rise, -nu, (nu * rise).abs(), (force - transposed(-nu if decreasing else nu)).abs())


def certify_tv(u: Tensor, strength: Tensor, x: Tensor, s: Tensor) -> float:
    rise, strength = x.diff(dim=-1), strength[..., None]
    return worst(s.abs() - strength, (s * rise - strength * rise.abs()).abs(), (x - u + transposed(s)).abs())


def certify_entropy(u: Tensor, w: Tensor, bound: Tensor, x: Tensor, tau: Tensor) -> float:
    slack = bound - torch.special.xlogy(w * x, x).sum(-1)
    act = tau[..., None] > 0
    stationarity = torch.where(act, x - u + tau[..., None] * w * (1 + x.clamp_min(1e-300).log()), x - u.clamp_min(0))
    return worst(-x, -slack, -tau, (tau * slack).abs(), stationarity.abs())


class Case(NamedTuple):
    """One set on vectors drawn from a seed: inputs, their nearest points, and the certificate of those."""

    u: Tensor
    result: tuple[Tensor, ...]
    certificate: float


def simplex_case(shape: tuple[int, ...], seed: int) -> Case:
    u, total = 2 * normal(shape, seed), 3 * uniform(shape[:-1], seed + 10)
    result = simplex(u, total)
    return Case(u, result, certify_simplex(u, total, *result))


def l1_case(shape: tuple[int, ...], seed: int) -> Case:
    u = normal(shape, seed)
    radius = 1.3 * uniform(shape[:-1], seed + 10) * u.abs().sum(-1)
    result = l1_ball(u, radius)
    return Case(u, result, certify_l1(u, radius, *result))


def box_data(shape: tuple[int, ...], seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Vectors, weights, and a mean within reach of the bounds; at some seeds bounds are missing, weights zero or negative."""
    u, w = 2 * normal(shape, seed), uniform(shape, seed + 10) + 0.1
    if seed >= 2:
        w = w * (uniform(shape, seed + 60) > 0.2) * (uniform(shape, seed + 70) - 0.3).sign()
    low = -uniform(shape, seed + 20)
    high = low + 2 * uniform(shape, seed + 30)
    mean = (w * (low + (high - low) * uniform(shape[:-1], seed + 40)[..., None])).sum(-1)
    if seed % 2:
        missing = uniform(shape, seed + 50)
        low, high = low.masked_fill(missing < 0.3, -math.inf), high.masked_fill(missing > 0.6, math.inf)
    return u, w, mean, low, high


def box_mean_case(shape: tuple[int, ...], seed: int) -> Case:
    data = box_data(shape, seed)
    result = box_mean(*data)
    assert result.converged.all()
    return Case(data[0], result[:2], certify_box_mean(*data, *result[:2]))


def isotonic_case(shape: tuple[int, ...], seed: int) -> Case:
    u = normal(shape, seed) + 0.1 * torch.arange(shape[-1])
    w = uniform(shape, seed + 10) + 0.1 if seed % 2 else None
    x = isotonic(u, w, seed >= 2)
    return Case(u, (x,), certify_isotonic(u, w, seed >= 2, x))


def tv_case(shape: tuple[int, ...], seed: int) -> Case:
    u, strength = normal(shape, seed), (0, 0.3, 1, 10)[seed] * uniform(shape[:-1], seed + 10)
    result = total_variation_prox(u, strength)
    return Case(u, result, certify_tv(u, strength, *result))


def entropy_case(shape: tuple[int, ...], seed: int) -> Case:
    u, w = normal(shape, seed) + 0.8, uniform(shape, seed + 10) + 0.1
    bound = w.sum(-1) * (0.6 * uniform(shape[:-1], seed + 20) - 0.35)
    result = entropy_ball(u, w, bound)
    return Case(u, result, certify_entropy(u, w, bound, *result))


CASES: dict[str, Callable[[tuple[int, ...], int], Case]] = {
    "simplex": simplex_case,
    "l1 ball": l1_case,
    "box with mean": box_mean_case,
    "isotonic": isotonic_case,
    "total variation": tv_case,
    "entropy": entropy_case,
}
SHAPES = [(1,), (2,), (40,), (6, 1), (3, 4, 33), (2, 500)]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_certificate(name: str, shape: tuple[int, ...], seed: int) -> None:
    case = CASES[name](shape, seed)
    assert case.result[0].shape == shape
    assert case.certificate <= CERTIFICATE


def test_certificates_see_both_sides() -> None:
    """The random cases hold points inside and outside their sets, free and bound cells: no certificate passes by being trivial."""
    shape = (50, 8)
    for name in ("l1 ball", "entropy"):
        multiplier = CASES[name](shape, 1).result[1]
        assert 5 < (multiplier > 0).sum() < 45
    u, w, mean, low, high = box_data(shape, 0)
    x, nu, _ = box_mean(u, w, mean, low, high)
    assert (x == low).any()
    assert (x == high).any()
    assert ((x > low) & (x < high)).any()
    assert (nu > 0).any()
    assert (nu < 0).any()
    for name in ("isotonic", "total variation"):
        flat = CASES[name](shape, 1).result[0].diff(dim=-1) == 0
        assert 0.1 < flat.double().mean() < 0.9


def slsqp(objective_at: Tensor, start: Tensor, constraints: list[dict], bounds: list[tuple[float, float]] | None = None) -> Tensor:
    u = objective_at.numpy()
    found = scipy.optimize.minimize(
        lambda x: 0.5 * np.sum((x - u) ** 2),
        start.numpy(),
        jac=lambda x: x - u,
        method="SLSQP",
        bounds=bounds,
        constraints=constraints,
        options={"ftol": 1e-15, "maxiter": 1000},
    )
    return torch.from_numpy(found.x)


@pytest.mark.parametrize("seed", SEEDS)
def test_simplex_and_l1_against_nonnegative_least_squares(seed: int) -> None:
    """A sum enters by a heavy row; the ball in split variables x = p - q with a slack."""
    n, heavy = 10, 1e5
    u = normal((n,), seed)
    rows = np.vstack([np.eye(n), heavy * np.ones(n)])
    x = scipy.optimize.nnls(rows, np.append(u, heavy * 1.7))[0]
    assert (simplex(u, 1.7).x - torch.from_numpy(x)).abs().max() <= OPTIMALITY

    rows = np.vstack([np.hstack([np.eye(n), -np.eye(n), np.zeros((n, 1))]), heavy * np.ones(2 * n + 1)])
    split = scipy.optimize.nnls(rows, np.append(u, heavy * 2.0), maxiter=1000)[0]
    assert (l1_ball(u, 2.0).x - torch.from_numpy(split[:n] - split[n : 2 * n])).abs().max() <= OPTIMALITY


@pytest.mark.parametrize("seed", SEEDS)
def test_box_mean_against_quadratic_programming(seed: int) -> None:
    u, w, mean, low, high = box_data((12,), seed)
    law = {"type": "eq", "fun": lambda x: w.numpy() @ x - mean.item(), "jac": lambda x: w.numpy()}
    x = slsqp(u, u.clamp(low, high), [law], list(zip(low.tolist(), high.tolist(), strict=True)))
    assert (box_mean(u, w, mean, low, high).x - x).abs().max() <= OPTIMALITY


@pytest.mark.parametrize("decreasing", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
def test_isotonic_against_bounded_least_squares(seed: int, decreasing: bool) -> None:
    """A monotone vector is a start and a sum of rises, each of one sign."""
    n = 12
    u, w = normal((n,), seed), uniform((n,), seed + 10) + 0.1
    sums, root = np.tril(np.ones((n, n))) * (-1 if decreasing else 1), w.sqrt().numpy()
    bounds = (np.append(-np.inf, np.zeros(n - 1)), np.full(n, np.inf))
    parts = scipy.optimize.lsq_linear(root[:, None] * sums, root * u.numpy(), bounds, method="bvls", tol=1e-14).x
    assert (isotonic(u, w, decreasing) - torch.from_numpy(sums @ parts)).abs().max() <= OPTIMALITY


@pytest.mark.parametrize("strength", [0.05, 0.4, 2.0])
@pytest.mark.parametrize("seed", SEEDS)
def test_total_variation_against_its_dual(seed: int, strength: float) -> None:
    n = 12
    u = normal((n,), seed)
    adjoint = np.diff(np.eye(n), axis=0).T
    s = scipy.optimize.lsq_linear(adjoint, u.numpy(), (-strength, strength), method="bvls", tol=1e-14).x
    x, dual = total_variation_prox(u, strength)
    assert (x - (u - torch.from_numpy(adjoint @ s))).abs().max() <= OPTIMALITY
    assert (dual - torch.from_numpy(s)).abs().max() <= OPTIMALITY


@pytest.mark.parametrize("bound", [0.5, -0.5, -2.0])
@pytest.mark.parametrize("seed", SEEDS)
def test_entropy_against_sequential_programming(seed: int, bound: float) -> None:
    n = 8
    u, w = uniform((n,), seed) + 0.6, uniform((n,), seed + 10) + 0.5
    law = {
        "type": "ineq",
        "fun": lambda x: bound - np.sum(w.numpy() * x * np.log(x)),
        "jac": lambda x: -w.numpy() * (1 + np.log(x)),
    }
    x = slsqp(u, torch.full((n,), 0.4, dtype=u.dtype), [law], [(1e-6, 10.0)] * n)
    assert (entropy_ball(u, w, bound).x - x).abs().max() <= OPTIMALITY


@pytest.mark.parametrize("data", ["noise", "walk", "exponential", "cascade", "equal", "ties"])
def test_long_lines(data: str) -> None:
    """Against sequential pooling, on data that split evenly, at one end, not at all, or in ties; the string by its certificate."""
    n = 3000
    u = {
        "noise": lambda: normal((n,), 0),
        "walk": lambda: normal((n,), 0).cumsum(0),
        "exponential": lambda: 1.01 ** torch.arange(-n, 0, dtype=torch.float64),
        "cascade": lambda: torch.arange(n, dtype=torch.float64).index_fill(0, torch.tensor([n - 1]), -1e5),
        "equal": lambda: torch.full((n,), 0.1, dtype=torch.float64),
        "ties": lambda: 0.1 * (normal((n,), 0) + torch.arange(n) / 500).round(),
    }[data]()
    pooled = scipy.optimize.isotonic_regression(u.numpy())
    x = isotonic(u)
    assert (x - torch.tensor(pooled.x)).abs().max() <= 1e-12 * u.abs().max()
    assert (x.diff() >= 0).all()
    # Cells pooled together are equal to the bit: round-off splits nothing.
    if data in ("noise", "walk", "equal"):
        assert x.unique().numel() == len(np.unique(pooled.x.round(12)))
    strength = torch.tensor(2.0, dtype=torch.float64)
    assert certify_tv(u, strength, *total_variation_prox(u, strength)) <= 1e-9


def test_limits_of_total_variation() -> None:
    u = normal((3, 50), 0)
    assert (total_variation_prox(u, 0).x - u).abs().max() <= 1e-14
    x, s = total_variation_prox(u, torch.tensor([100.0, 1e6, math.inf]))
    assert (x - u.mean(-1, keepdim=True)).abs().max() <= 1e-14
    assert s.isfinite().all()


def test_ties_are_met() -> None:
    """On data of few values levels meet exactly: round-off parts hardly any two of them (without care, one edge in twenty)."""
    u = 0.1 * (2 * normal((50, 400), 0)).round()
    for strength in (0.05, 0.1):
        jumps = total_variation_prox(u, strength).x.diff().abs()
        assert ((jumps > 0) & (jumps < 1e-12)).double().mean() < 3e-3


@pytest.mark.parametrize("name", CASES)
def test_batch_is_its_members(name: str) -> None:
    u = normal((5, 20), 3) + 0.5
    w, low, high = uniform((20,), 1) + 0.1, -uniform((5, 20), 2), uniform((5, 20), 3)
    number = uniform((5,), 4)
    nearest: Callable[[slice | int], tuple[Tensor, ...]] = {
        "simplex": lambda i: simplex(u[i], number[i]),
        "l1 ball": lambda i: l1_ball(u[i], number[i]),
        "box with mean": lambda i: box_mean(u[i], w, number[i], low[i], high[i]),
        "isotonic": lambda i: (isotonic(u[i], w),),
        "total variation": lambda i: total_variation_prox(u[i], number[i]),
        "entropy": lambda i: entropy_ball(u[i], w, number[i]),
    }[name]
    together = nearest(slice(None))
    for i in range(5):
        for one, many in zip(nearest(i), together, strict=True):
            assert one.shape == many[i].shape
            assert (one.double() - many[i].double()).abs().max() <= 1e-13


@pytest.mark.parametrize("name", CASES)
def test_single_precision(name: str) -> None:
    u, w = normal((4, 30), 0) + 0.5, uniform((30,), 1) + 0.1
    nearest: Callable[[Tensor], Tensor] = {
        "simplex": lambda u: simplex(u, 2.0).x,
        "l1 ball": lambda u: l1_ball(u, 2.0).x,
        "box with mean": lambda u: box_mean(u, w, 2.0, 0.0, math.inf).x,
        "isotonic": lambda u: isotonic(u, w),
        "total variation": lambda u: total_variation_prox(u, 0.5).x,
        "entropy": lambda u: entropy_ball(u, w, -3.0).x,
    }[name]
    x = nearest(u.float())
    assert x.dtype == torch.float32
    assert (x - nearest(u)).abs().max() <= 1e-5


@pytest.mark.parametrize("name", CASES)
def test_idempotent(name: str) -> None:
    """A nearest point is its own; the prox of total variation is not a projection, and shrinks again."""
    w = uniform((30,), 1) + 0.1
    nearest: Callable[[Tensor], Tensor] = {
        "simplex": lambda u: simplex(u, 2.0).x,
        "l1 ball": lambda u: l1_ball(u, 2.0).x,
        "box with mean": lambda u: box_mean(u, w, 2.0, 0.0, 1.0).x,
        "isotonic": lambda u: isotonic(u, w),
        "total variation": lambda u: total_variation_prox(u, 0.5).x,
        "entropy": lambda u: entropy_ball(u, w, -3.0).x,
    }[name]
    x = nearest(normal((4, 30), 0))
    moved = (nearest(x) - x).abs().max()
    assert moved > 1e-2 if name == "total variation" else moved <= 1e-12


def test_derivatives() -> None:
    """Away from kinks, of points and multipliers, in data and numbers; masked cells and vectors that need no search poison nothing."""
    u, w = normal((3, 7), 0).requires_grad_(), (uniform((7,), 1) + 0.1).masked_fill(torch.arange(7) == 3, 0)
    number = (uniform((3,), 2) + 0.2).requires_grad_()
    check = torch.autograd.gradcheck
    assert check(simplex, (u, number))
    assert check(l1_ball, (u, number * torch.tensor([1.0, 1.0, 100.0])))
    assert check(lambda u, m: box_mean(u, w, m, 0.0, 1.0)[:2], (u, number))
    assert check(lambda u, m: box_mean(u, w, m, -0.5, math.inf)[:2], (u, number))
    assert check(lambda u: isotonic(u, w + 0.1), (u,))
    assert check(total_variation_prox, (u, number))
    assert check(lambda u, h: entropy_ball(u, w + 0.1, h), (u, number * torch.tensor([-0.5, 0.1, 100.0])))


def test_mean_out_of_reach_is_flagged() -> None:
    u, w = normal((4, 9), 0), uniform((9,), 1) + 0.1
    reach = w.sum().item()
    mean = torch.tensor([-0.1, 0.5 * reach, 1.1 * reach, reach], dtype=torch.float64)
    x, nu, converged = box_mean(u, w, mean, 0.0, 1.0)
    assert converged.tolist() == [False, True, False, True]
    assert (x[0] - 0).abs().max() <= 1e-14
    assert (x[2:] - 1).abs().max() <= 1e-14
    assert nu.isfinite().all()
    assert not box_mean(u, torch.zeros(9), 1.0, -math.inf, math.inf).converged.any()


def test_points_and_empty_balls() -> None:
    """Nothing to share leaves nothing, and the threshold is the largest entry; in a thin box nothing moves."""
    u = normal((4, 9), 0)
    for nearest, top in ((simplex, u.amax(-1)), (l1_ball, u.abs().amax(-1))):
        x, threshold = nearest(u, 0)
        assert (x == 0).all()
        assert (threshold == top).all()
    x, _, converged = box_mean(u, torch.ones(9), 9 * 0.3, 0.3, 0.3)
    assert converged.all()
    assert (x == 0.3).all()


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_box_mean_of_any_size(scale: float) -> None:
    """Far from the box and deep inside it: the mean is met to round-off of the mean, and half-bounded and free boxes alike."""
    u, w = scale * normal((8, 200), 0), uniform((200,), 1) / 100
    for low, high in ((0.0, 1.0), (0.0, math.inf), (-math.inf, 0.6)):
        x, _, converged = box_mean(u, w, 0.4, low, high)
        assert converged.all()
        assert ((w * x).sum(-1) - 0.4).abs().max() <= 1e-14 * max(1, x.abs().max().item())
    x, nu, _ = box_mean(u, w, 0.4, -math.inf, math.inf)
    exact = ((w * u).sum(-1) - 0.4) / w.square().sum()
    assert (nu - exact).abs().max() <= 1e-13 * exact.abs().max()


def test_least_entropy() -> None:
    """At and below -Σ w / e there is one nearest point or none: 1/e, with an infinite multiplier. Within reach the multiplier grows."""
    u, w = normal((3, 6), 0) + 1, torch.full((6,), 0.5, dtype=torch.float64)
    least = -w.sum().item() / math.e
    x, tau = entropy_ball(u, w, torch.tensor([least - 1, least + 1e-3, least + 1e-6], dtype=torch.float64))
    assert (x[0] - 1 / math.e).abs().max() <= 1e-15
    assert tau[0] == math.inf
    assert tau[1] < tau[2] < 1e5
    assert (x[2] - 1 / math.e).abs().max() < 1e-2


@pytest.mark.parametrize("excess", [1e-3, 1e-6, 1e-9, 1e-12])
def test_entropy_bound_that_hardly_acts(excess: float) -> None:
    """The multiplier is proportional to the excess, over the squared gradient of the entropy, to first order."""
    u, w = uniform((5, 20), 0) + 0.5, uniform((20,), 1) + 0.1
    x, tau = entropy_ball(u, w, (w * u * u.log()).sum(-1) - excess)
    exact = excess / (w * (1 + u.log())).square().sum(-1)
    assert (tau / exact - 1).abs().max() <= 3 * excess + 1e-14 / excess
    assert (x - u).abs().max() <= excess


def test_empty_cells_hold_entropy() -> None:
    """Where the bound does not act, negative cells become empty, and 0 log 0 = 0."""
    u = torch.tensor([-1.0, 0.0, 0.5], dtype=torch.float64)
    x, tau = entropy_ball(u, torch.ones(3), -0.1)
    assert x.tolist() == [0.0, 0.0, 0.5]
    assert tau == 0


def test_certificate_rejects_what_is_not_nearest() -> None:
    """Clipping and then shifting to the mean leaves the box; shifting and then clipping leaves the mean."""
    u, w = normal((8, 20), 0), torch.full((20,), 1 / 20, dtype=torch.float64)
    mean, low, high = torch.full((8,), 0.3, dtype=torch.float64), torch.zeros(20), torch.ones(20)
    x, nu, _ = box_mean(u, w, mean, low, high)
    assert certify_box_mean(u, w, mean, low, high, x, nu) <= CERTIFICATE

    clipped = u.clamp(0, 1)
    shifted = clipped + (mean - clipped.mean(-1))[:, None]
    assert certify_box_mean(u, w, mean, low, high, shifted, nu) > 1e-2
    drawn = (u + (mean - u.mean(-1))[:, None]).clamp(0, 1)
    assert certify_box_mean(u, w, mean, low, high, drawn, nu) > 1e-2
    mixed = clipped + (mean - clipped.mean(-1))[:, None] * torch.where((mean > clipped.mean(-1))[:, None], 1 - clipped, clipped)
    assert certify_box_mean(u, w, mean, low, high, mixed, nu) > 1e-2

    scaled = u.clamp_min(0) / u.clamp_min(0).sum(-1, keepdim=True)
    assert certify_simplex(u, torch.ones(8), scaled, simplex(u, 1.0).threshold) > 1e-2
    assert certify_isotonic(u, None, False, u.sort(-1).values) > 1e-2
    assert certify_tv(u, torch.full((8,), 0.5), u.mean(-1, keepdim=True).expand_as(u), torch.zeros(8, 19)) > 1e-2


U = torch.zeros(4, 5, dtype=torch.float64)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: simplex(torch.tensor(1.0), 1.0), r"simplex expects real vectors along the last dimension"),
        (lambda: simplex(torch.zeros(3, dtype=torch.int64), 1.0), r"got torch.int64 of shape \(3,\)"),
        (lambda: simplex(torch.zeros(3, 0), 1.0), r"simplex expects real vectors"),
        (lambda: simplex(U, torch.ones(5)), r"expects total to be a number or one a vector, \(4,\) for vectors \(4, 5\); got \(5,\)"),
        (lambda: simplex(U, -1.0), r"simplex expects total >= 0; got -1"),
        (lambda: l1_ball(U, torch.ones(4, 1)), r"l1_ball expects radius to be a number or one a vector"),
        (lambda: l1_ball(U, -1.0), r"l1_ball expects radius >= 0"),
        (lambda: box_mean(U, torch.ones(4), 0.0, 0.0, 1.0), r"box_mean expects weights to broadcast to vectors \(4, 5\); got \(4,\)"),
        (lambda: box_mean(U, torch.ones(5), torch.zeros(3), 0.0, 1.0), r"box_mean expects mean"),
        (lambda: box_mean(U, torch.ones(5), 0.0, torch.zeros(3, 1), 1.0), r"box_mean expects lower"),
        (lambda: box_mean(U, torch.ones(5), 0.0, 1.0, 0.0), r"box_mean expects lower <= upper"),
        (lambda: isotonic(U, torch.ones(4)), r"isotonic expects weights to broadcast"),
        (lambda: isotonic(U, torch.zeros(5)), r"isotonic expects weights > 0; got 0"),
        (lambda: isotonic_multiplier(U, torch.zeros(3)), r"isotonic_multiplier expects x to broadcast"),
        (lambda: total_variation_prox(U, torch.ones(5)), r"total_variation_prox expects strength to be a number"),
        (lambda: total_variation_prox(U, -1.0), r"total_variation_prox expects strength >= 0"),
        (lambda: entropy_ball(U, -torch.ones(5), 0.0), r"entropy_ball expects weights > 0; got -1"),
        (lambda: entropy_ball(U, torch.ones(5), torch.zeros(4, 5)), r"entropy_ball expects bound to be a number"),
    ],
)
def test_bad_input_is_named(call: Callable[[], object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        call()
