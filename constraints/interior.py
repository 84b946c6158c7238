r"""Nearest points within bounds and many sparse rows: a primal-dual interior-point method.

$$\min_v \tfrac12\|v-u\|^2\quad\text{subject to}\quad h(v) = 0,\; g(v) + s = 0,\; s\ge0,\; l\le v\le h.$$

The optimality conditions with $\mu$ in place of zero where a slack meets its multiplier,

$$v - u + J^\top y - z_l + z_h = 0,\qquad y s = z_l (v - l) = z_h (h - v) = \mu,$$

have solutions strictly inside all bounds, which Newton's method follows as $\mu\to0$. All but y is eliminated,

$$(J W J^\top + S Y^{-1})\,\Delta y = \ldots,\qquad W = \Big(1 + \sum_i y_i\nabla^2 h_i + \frac{z_l}{v-l} + \frac{z_h}{h-v}\Big)^{-1},$$

a sparse matrix of one pattern (`constraints.linear.sparse.SparseGram`): ten to forty of them, whatever the number of rows, where methods
that exchange active sets may need as many as there are rows. Two things make it fit to laws of fields:

* equalities have $\mu/\|u\|^2$ on their diagonal (a proximal term on y, gone in the limit): rows may depend on each other, as a balance
  does on the cells it sums up, and rows whose values are all at bounds for now do not throw the others out;
* beside curved laws bounds are relaxed by a millionth of the field: where laws determine values that lie on them, nothing would be left
  inside.

A point inside is never the nearest one. What comes back is where the exact methods begin: what is held, multipliers, a point near by.

Source:
    Mehrotra, SIAM J. Optim. 2 (1992) 575; Wright, Primal-Dual Interior-Point Methods (1997), chapter 10; Friedlander & Orban, Math.
    Program. Comput. 4 (2012) 71, for the proximal terms; Waechter & Biegler, Math. Program. 106 (2006) 25, for relaxed bounds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from constraints.linear.map import LinearMap, largest
from constraints.linear.sparse import SparseGram

_ITERATIONS = 60

RELAX = 1e-6
"""Share of the field's size by which bounds and inequalities are relaxed beside curved laws."""

_INSIDE = 0.05
"""Share of the distance between bounds, or of the field, at which values begin from them at least."""

_START = 0.1
"""Share of the field's size that slacks and multipliers begin with at least."""

_GAP = 1e-13
"""Mean product of slacks and multipliers, as a share of the squared size of the field, at which the method ends."""

_MISSING = 1e-8
"""Distance to a row, as a share of that size, that may be left then."""

_FORCE = 1e-4
"""Unbalanced force, as a share of it, that may be left: the exact methods see to the rest."""

_STRIDE = 0.9
"""Least share of the way to the nearest bound that a step may take."""

_PIVOT = 1e-12
"""Share of a row's own size that its diagonal entry keeps at least."""

_CONVEX = 0.05
"""Least curvature that is used."""

_SURE = 100
"""What has a multiplier this many times its slack is held: too much may contradict the laws, too little is seen and mended."""


class Interior(NamedTuple):
    """A point next to the nearest one.

    Attributes:
        u: the point, (B, C, *N).
        multiplier: multipliers of the rows, (B, m), zero for inequalities that do not hold with equality.
        rows: which inequalities hold with equality, (B, m).
        above: which values are held at their upper bounds, (B, C, *N).
        below: at their lower ones.
        solved: whether the method came to its end, (B,).
        iterations: Newton steps.
    """

    u: Tensor
    multiplier: Tensor
    rows: Tensor
    above: Tensor
    below: Tensor
    solved: Tensor
    iterations: int


def interior(
    u: Tensor,
    lower: Tensor,
    upper: Tensor,
    law: Callable[[Tensor], tuple[Tensor, LinearMap]],
    inequality: Tensor,
    *,
    variance: Tensor | None = None,
    curvature: Callable[[Tensor, Tensor], Tensor | None] | None = None,
    relax: float = 0.0,
) -> Interior | None:
    """A point next to the one nearest to u, each sample on its own; None where rows are not sparse.

    Arguments:
        u: fields, (B, C, *N).
        lower: $l$, broadcastable to u; may be -inf.
        upper: $h$, not below $l$; values between equal bounds are given.
        law: residuals of all rows, (B, m), and their Jacobian at a field; the same object each time where it is constant.
        inequality: which rows are $\\le$, (m,), boolean.
        variance: of noise that equalities are observed with, (m,).
        curvature: for a field and multipliers the diagonal of the curvature of all rows, (B, C, *N), None where it is none.
        relax: share of the field's size by which bounds and inequalities are relaxed.
    """
    start = _Path.inside(u, lower, upper)
    residual, jacobian = law(start)
    gram = SparseGram.of(jacobian, len(u))
    if gram is None:
        return None
    path = _Path(u, lower, upper, law, residual, gram, inequality, variance, curvature, relax)
    return path.follow(start.flatten(1), jacobian, gram)


class _Sides(NamedTuple):
    """What must stay positive: slacks of rows, distances to bounds, and their multipliers."""

    s: Tensor
    low: Tensor
    high: Tensor
    y: Tensor
    z_low: Tensor
    z_high: Tensor

    def moved(self, step: _Sides, length: Tensor) -> _Sides:
        """So much of a step; nothing of it where that is zero, whatever it holds."""
        stays = (length == 0)[:, None]
        return _Sides(*(torch.where(stays, x, x + length[:, None] * dx) for x, dx in zip(self, step, strict=True)))


class _Path:
    """One run. Fields are flat, (B, n); rows are scaled to unit norm, so that slacks and multipliers have the unit of the field."""

    def __init__(
        self,
        u: Tensor,
        lower: Tensor,
        upper: Tensor,
        law: Callable[[Tensor], tuple[Tensor, LinearMap]],
        residual: Tensor,
        gram: SparseGram,
        inequality: Tensor,
        variance: Tensor | None,
        curvature: Callable[[Tensor, Tensor], Tensor | None] | None,
        relax: float,
    ) -> None:
        self.shape, self.law, self.curvature = u.shape, law, curvature
        self.u, self.lower, self.upper = (part.expand_as(u).flatten(1) for part in (u, lower, upper))
        self.fixed = self.lower >= self.upper
        self.has_low, self.has_high = (torch.isfinite(bound) & ~self.fixed for bound in (self.lower, self.upper))
        norms = gram.norms().to(u)
        self.used = norms > 0
        self.unit = torch.where(self.used, 1 / torch.where(norms > 0, norms, 1.0), 0.0)
        self.unequal, self.equal = self.used & inequality, self.used & ~inequality
        self.noise = torch.zeros_like(residual) if variance is None else variance.to(u) * self.unit.square()
        self.count = (self.unequal.sum(1) + self.has_low.sum(1) + self.has_high.sum(1)).clamp_min(1)
        self.size = self._size(residual)
        slack = relax * self.size
        self.lower, self.upper = (torch.where(self.fixed, b, b + by) for b, by in ((self.lower, -slack), (self.upper, slack)))
        self.slack = slack * self.unequal

    @staticmethod
    def inside(u: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
        """The field, moved inside its bounds."""
        size = largest(u).reshape(-1, *(1,) * (u.ndim - 1)).clamp_min(torch.finfo(u.dtype).tiny)
        room = _INSIDE * torch.minimum(upper - lower, size)
        within = torch.minimum(torch.maximum(u, torch.where(torch.isfinite(lower), lower + room, -torch.inf)), upper - room)
        return torch.where(lower >= upper, lower, within)

    def _size(self, residual: Tensor) -> Tensor:
        """Of the field, of values that are given and of the way to broken rows, (B, 1)."""
        broken = torch.where(self.unequal, residual.clamp_min(0), torch.where(self.equal, residual.abs(), 0.0)) * self.unit
        size = torch.maximum(largest(self.u), largest(torch.where(self.fixed, self.lower, 0.0)))
        size = torch.maximum(size, broken.amax(1)) if broken.shape[1] else size
        return torch.where(size > 0, size, 1.0)[:, None]

    def follow(self, v: Tensor, jacobian: LinearMap, gram: SparseGram) -> Interior:
        self.map, self.gram = jacobian, gram.rescaled(self.unit)
        rows = self._rows(v)
        at = self._begin(v, rows)
        done = torch.zeros(len(v), dtype=torch.bool, device=v.device)
        failed, size, spent = done, self.size[:, 0], 0
        while True:
            force = torch.where(self.fixed, 0.0, self.u - v - self._pull(at.y) + at.z_low - at.z_high)
            missing = rows + torch.where(self.unequal, at.s, 0.0) - self.noise * at.y
            gap = self._gap(at)
            met = missing.abs().amax(1) <= _MISSING * size if missing.shape[1] else ~failed
            done = done | (gap <= _GAP * size.square()) & met & (largest(force) <= _FORCE * size)
            if bool((done | failed).all()) or spent == _ITERATIONS:
                return self._result(v, at, done, spent)
            step, sides = self._newton(v, at, force, missing, gap, ~(done | failed))
            finite = torch.stack([torch.isfinite(part).all(1) for part in (step, *sides)]).all(0)
            failed = failed | ~done & ~finite
            length = torch.where(done | failed, 0.0, self._length(at, sides, gap))
            v = torch.where((length == 0)[:, None], v, v + length[:, None] * step)
            at, rows, spent = at.moved(sides, length), self._rows(v), spent + 1

    def _rows(self, v: Tensor) -> Tensor:
        """Scaled residuals of all rows, less the relaxation; takes the Jacobian along where it changes with the field."""
        residual, jacobian = self.law(v.reshape(self.shape))
        if jacobian is not self.map:
            gram = SparseGram.of(jacobian, len(v))
            assert gram is not None
            self.map, self.gram = jacobian, gram.rescaled(self.unit)
        return torch.where(self.used, self.unit * residual, 0.0) - self.slack

    def _pull(self, y: Tensor) -> Tensor:
        return self.map.adjoint(self.unit * y).flatten(1)

    def _push(self, v: Tensor) -> Tensor:
        rows: Tensor = self.unit * self.map(v.reshape(self.shape))
        return rows

    def _begin(self, v: Tensor, rows: Tensor) -> _Sides:
        least = _START * self.size
        s = torch.where(self.unequal, torch.maximum(-rows, least), 1.0)
        multipliers = (torch.where(mask, least, 0.0) for mask in (self.unequal, self.has_low, self.has_high))
        return _Sides(s, *self._distances(v), *multipliers)

    def _distances(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """To the bounds; one where there is none."""
        return torch.where(self.has_low, v - self.lower, 1.0), torch.where(self.has_high, self.upper - v, 1.0)

    def _gap(self, at: _Sides) -> Tensor:
        """The mean product of what must stay positive and its multipliers, (B,)."""
        products = (at.s * at.y * self.unequal).sum(1) + (at.low * at.z_low).sum(1) + (at.high * at.z_high).sum(1)
        return products / self.count

    def _newton(self, v: Tensor, at: _Sides, force: Tensor, missing: Tensor, gap: Tensor, going: Tensor) -> tuple[Tensor, _Sides]:
        """Predictor, then corrector with the centring that the predictor calls for, both from one factorisation."""
        bent = None if self.curvature is None else self.curvature(v.reshape(self.shape), self.unit * at.y)
        hessian = 1.0 if bent is None else (1 + bent.flatten(1)).clamp_min(_CONVEX)
        weights = torch.where(self.fixed, 0.0, 1 / (hessian + at.z_low / at.low + at.z_high / at.high))
        y = torch.where(self.unequal, at.y, 1.0)
        proximal = gap[:, None] / self.size.square()
        diagonal = torch.where(self.unequal, at.s / y, self.noise + proximal).clamp_min(_PIVOT)
        solve = self.gram.raised(weights, self.used & going[:, None], diagonal)
        low, high = self._distances(v)
        low, high = low - at.low, high - at.high

        def direction(rows: Tensor, below: Tensor, above: Tensor) -> tuple[Tensor, _Sides]:
            """The step that changes the products by these values."""
            pulled = force + (below - at.z_low * low) / at.low - (above - at.z_high * high) / at.high
            dy = solve(missing + self._push(weights * pulled) + torch.where(self.unequal, rows / y, 0.0))
            dv = weights * (pulled - self._pull(dy))
            ds = torch.where(self.unequal, (rows - at.s * dy) / y, 0.0)
            d_low, d_high = torch.where(self.has_low, dv + low, 0.0), torch.where(self.has_high, high - dv, 0.0)
            forces = (below - at.z_low * d_low) / at.low, (above - at.z_high * d_high) / at.high
            return dv, _Sides(ds, d_low, d_high, dy, *forces)

        products = at.s * at.y, at.low * at.z_low, at.high * at.z_high
        _, ahead = direction(*(-product for product in products))
        left = self._gap(at.moved(ahead, self._longest(at, ahead))) / gap.clamp_min(torch.finfo(v.dtype).tiny)
        centre = torch.maximum((gap * left.pow(3))[:, None], _GAP / 4 * self.size.square())
        bends = ahead.s * ahead.y, ahead.low * ahead.z_low, ahead.high * ahead.z_high
        rows, below, above = (
            torch.where(mask, centre - product - bend, 0.0)
            for mask, product, bend in zip((self.unequal, self.has_low, self.has_high), products, bends, strict=True)
        )
        return direction(rows, below, above)

    def _longest(self, at: _Sides, step: _Sides) -> Tensor:
        """The share of a step, (B,), at which the first side would vanish; at most one."""
        masks = (self.unequal, self.has_low, self.has_high) * 2
        ratios = [(-dx / x).masked_fill(~mask, 0.0).amax(1) for x, dx, mask in zip(at, step, masks, strict=True) if x.shape[1]]
        return 1 / torch.stack(ratios).amax(0).clamp_min(1.0)

    def _length(self, at: _Sides, step: _Sides, gap: Tensor) -> Tensor:
        """A full step, or the ever larger part of the way to the nearest bound."""
        longest = self._longest(at, step)
        return torch.where(longest < 1, longest * (1 - gap / self.size[:, 0].square()).clamp_min(_STRIDE), longest)

    def _result(self, v: Tensor, at: _Sides, done: Tensor, iterations: int) -> Interior:
        rows = self.unequal & (at.y > _SURE * at.s)
        multiplier = torch.where(rows | self.equal, self.unit * at.y, 0.0)
        pull = self.u - v - self._pull(at.y)
        above = torch.where(self.fixed, pull > 0, self.has_high & (at.z_high > _SURE * at.high))
        below = torch.where(self.fixed, pull <= 0, self.has_low & (at.z_low > _SURE * at.low))
        field, above, below = (part.reshape(self.shape) for part in (v, above, below))
        return Interior(field, multiplier, rows, above, below, done, iterations)
