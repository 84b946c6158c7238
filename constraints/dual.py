r"""Linear rows and bounds together: a semismooth Newton method on the dual.

$$\min_v \tfrac12\|v-u\|^2 + \tfrac12\|e\|^2_{R^{-1}}\quad\text{subject to}\quad K v - e = b \text{ or} \le b,\quad l\le v\le h.$$

Given multipliers y of the rows, not negative for inequalities, the field is $v(y) = \mathrm{clip}(u - K^\top y, l, h)$, and the dual
$\theta(y) = \tfrac12|v-u|^2 + y^\top(Kv - b) - \tfrac12 y^\top R y$ is concave with gradient $F(y) = K v(y) - b - R y$, whose generalised
derivative is $-(K D K^\top + R)$ with D the mask of values inside their bounds. Newton steps on the rows that hold or are broken,
projected onto $y\ge0$ and shortened until the dual rises, end after finitely many. Bounds and stationarity hold exactly at every step.

Source:
    Qi & Sun, A nonsmooth version of Newton's method, Math. Program. 58 (1993) 353; Bertsekas, SIAM J. Control Optim. 20 (1982) 221 for
    the projected search.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from constraints.convex import box_mean
from constraints.face import MaskedGram
from constraints.interior import interior
from constraints.linear.map import LinearMap
from constraints.linear.solve import conjugate_gradients
from constraints.linear.sparse import SparseGram
from constraints.linear.structured import WeightedSum

_HALVINGS = 30
_DOUBLINGS = 60
_DAMPING = 1e-2
"""Share of a row's size that is added to the Gram matrix at first."""

_FLOOR = 1e-9
"""Share that is always added: it keeps rows that depend on each other apart and slows the last steps imperceptibly."""

_GROWTH = 1e8
"""Multipliers this many times larger than the first estimate mean that the rows cannot be met within the bounds."""


class Dual(NamedTuple):
    """A nearest point within bounds: u, multipliers of rows (B, m), and the number of Newton steps."""

    u: Tensor
    multiplier: Tensor
    iterations: int


class Rows(NamedTuple):
    """Linear rows.

    Attributes:
        map: K.
        target: b, (B, m).
        inequality: which rows are $\\le$, (m,), boolean.
        tolerance: what counts as met, (B, m).
    """

    map: LinearMap
    target: Tensor
    inequality: Tensor
    tolerance: Tensor


def nearest_within(u: Tensor, lower: Tensor, upper: Tensor, rows: Rows | None, max_iterations: int = 100) -> Dual:
    """The nearest point to u within bounds that meets some rows.

    Arguments:
        u: fields, (B, C, *N).
        lower: $l$, broadcastable to u; may be -inf.
        upper: $h$, not below $l$.
        rows: linear rows, if any.
        max_iterations: Newton steps at most.
    """
    if rows is None:
        return Dual(_clip(u, lower, upper), u.new_zeros(len(u), 0), 1)
    if isinstance(rows.map, WeightedSum) and not rows.map.batched and not bool(rows.inequality.any()):
        return _disjoint(u, lower, upper, rows.map, rows.target)
    return _newton(u, lower, upper, rows, max_iterations)


def _clip(u: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    return torch.minimum(torch.maximum(u, lower), upper)


def _disjoint(u: Tensor, lower: Tensor, upper: Tensor, sums: WeightedSum, target: Tensor) -> Dual:
    """Rows without a value in common: a root in one dimension for each."""
    parts = [sums.grouped(x.expand_as(u)) for x in (u, sums.weights.to(u)[None], lower, upper)]
    found = box_mean(parts[0], parts[1], target.expand(len(u), sums.rows), parts[2], parts[3])
    return Dual(sums.ungrouped(found.x, u), found.nu, 1)


def _newton(u: Tensor, lower: Tensor, upper: Tensor, rows: Rows, max_iterations: int) -> Dual:
    k, noise = rows.map, 0.0 if rows.map.variance is None else rows.map.variance.to(u)

    def field(y: Tensor) -> Tensor:
        return _clip(u - k.adjoint(y), lower, upper)

    def value(y: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        gradient = k(v) - rows.target - noise * y
        dual = (v - u).square().flatten(1).sum(1) / 2 + (y * (gradient + noise * y / 2)).sum(1)
        return gradient, dual

    y = k.precondition(torch.where(rows.inequality, 0.0, k(u) - rows.target))
    y = torch.where(rows.inequality, 0.0, y)
    size = y.abs().amax(1)
    v = field(y)
    gradient, dual = value(y, v)
    first = gradient.abs().amax(1)
    spent, gram = 0, None if k.gram_diagonal(u) is not None else SparseGram.of(k, len(u))
    if gram is not None and bool(rows.inequality.any()):
        inside = interior(u, lower, upper, lambda v: (k(v) - rows.target, k), rows.inequality, variance=k.variance)
        assert inside is not None
        y = torch.where(inside.solved[:, None], inside.multiplier, y)
        v, spent = field(y), inside.iterations
        gradient, dual = value(y, v)
    row_size = _row_size(k, u)
    for iteration in range(spent, max_iterations):
        pushing = torch.where(rows.inequality & (y <= 0), gradient.clamp_min(0), gradient)
        open_ = (pushing.abs() > rows.tolerance).any(1) & (y.abs().amax(1) <= _GROWTH * size.clamp_min(_reach(u, k)))
        if not open_.any():
            return Dual(v, y, max(iteration, 1))
        free = ((v > lower) & (v < upper)).to(u)
        active = (~rows.inequality | (y > 0) | (gradient > 0)).to(u)
        left = (pushing.abs().amax(1) / first.clamp_min(1e-300)).clamp_max(1.0)
        damping = noise + row_size * (_DAMPING * left).clamp_min(_FLOOR)[:, None]
        fraction = max(float(left[open_].min()) / 10, 1e-12)  # as close as the sample that is nearest to its end asks for
        if gram is None:
            step, stuck = _step(rows.map, free, active, pushing, damping, row_size, fraction)
        else:
            step, stuck = gram.raised(free.flatten(1), (active > 0) & open_[:, None], damping)(pushing), torch.zeros_like(open_)
        step = step * open_[:, None]
        y, v, gradient, dual = _search(y, step, stuck & open_, gradient, dual, rows.inequality, field, value)
    return Dual(v, y, max_iterations)


def _reach(u: Tensor, k: LinearMap) -> Tensor:
    """A floor of the multipliers' natural size: the field over a typical row."""
    return u.flatten(1).norm(dim=1) / _row_size(k, u).sqrt()


def _row_size(k: LinearMap, u: Tensor) -> Tensor:
    """Mean squared norm of a row, on one random combination of all."""
    signs = torch.randn(1, k.rows, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(u)
    return k.adjoint(signs).square().sum() / k.rows


def _step(
    k: LinearMap, free: Tensor, active: Tensor, force: Tensor, damping: Tensor, row_size: Tensor, fraction: float
) -> tuple[Tensor, Tensor]:
    """The Newton step on active rows, and which samples have a row of which no value is free.

    Damping, which vanishes with the force, holds rows back that few free values are left for. Diagonal Gram matrices do without: their
    rows of which no value is free step by the unmasked matrix instead.
    """
    gram = MaskedGram(k, free)
    if bool((active == 1).all()) and gram.exact is not None and gram.exact.gram_diagonal(force) is not None:
        step = gram(force)
        stuck = (step == 0) & (force != 0)
        return torch.where(stuck, k.solve_gram(force * stuck), step) if bool(stuck.any()) else step, stuck.any(1)

    def precondition(y: Tensor) -> Tensor:
        """The unmasked solve, and something in the directions that it does not know."""
        return active * (k.precondition(active * y) + y / row_size)

    step = conjugate_gradients(
        lambda y: active * k(free * k.adjoint(active * y)) + damping * y,
        active * force,
        preconditioner=precondition,
        fraction=fraction,
        max_iterations=500,
    )
    return step, torch.zeros(len(step), dtype=torch.bool, device=step.device)


def _search(
    y: Tensor,
    step: Tensor,
    stuck: Tensor,
    gradient: Tensor,
    dual: Tensor,
    inequality: Tensor,
    field: Callable[[Tensor], Tensor],
    value: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The longest projected step, halved from one, that raises the dual, up to its round-off.

    Where all values of a row sit at bounds the dual is linear up to its next kink: such steps are doubled first, until it turns.
    """
    length = torch.ones_like(dual)
    for _ in range(_DOUBLINGS if bool(stuck.any()) else 0):
        trial = y + length[:, None] * step
        slope = (value(trial, field(trial))[0] * step).sum(1)
        stuck = stuck & (slope > 0)
        if not stuck.any():
            break
        length = torch.where(stuck, 2 * length, length)
    slack = 64 * torch.finfo(dual.dtype).eps * dual.abs()
    for _ in range(_HALVINGS):
        trial = y + length[:, None] * step
        trial = torch.where(inequality, trial.clamp_min(0), trial)
        v = field(trial)
        new_gradient, new_dual = value(trial, v)
        bad = new_dual < dual + 1e-4 * (gradient * (trial - y)).sum(1) - slack
        if not bad.any():
            break
        length = torch.where(bad, length / 2, length)
    return trial, v, new_gradient, new_dual
