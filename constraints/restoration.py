r"""Least violation: the field that breaks laws least, where they contradict each other or no nearest lawful field was found.

$$\min_{l\le v\le h}\varphi(v) = \tfrac12\sum_i (w_i r_i(v))^2,\qquad r = A v - b,\; h(v),\; \max(g(v), 0),$$

with $1/w_i$ the natural scale of a row at the field to begin with. Levenberg-Marquardt steps on rows that are broken and values that are
free, i.e. not held at a bound that the violation pushes them against,

$$d = -D J^\top\big(J D J^\top + \mu W^{-2}\big)^{-1} r,$$

with a $\mu$ of each sample's own, lowered where the step gains what its model promised and raised where it does not. $\varphi$ falls at
every step that is taken: the result is never worse than the beginning. Where laws can hold together it tends to a lawful field near by,
fast; else to a point where the forces of broken laws, $w_i^2 r_i\nabla r_i$, cancel each other or push against bounds: those are the
laws that clash.

Source:
    Nocedal & Wright, Numerical Optimization (2006), chapter 10; Nielsen, Damping parameter in Marquardt's method, IMM-REP-1999-05 (1999);
    Fletcher & Leyffer, Math. Program. 91 (2002) 239, for restoration.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from constraints.constraint import Constraint, scaled
from constraints.linear.map import LinearMap, largest
from constraints.linear.solve import conjugate_gradients
from constraints.linear.sparse import SparseGram

_ITERATIONS = 60

_INNER = 200
"""Conjugate-gradient steps of a step, where rows are not sparse."""

_BEGIN = 1e-3
"""First mu, as a share of the squared size of rows."""

_LEAST = 1e-9
"""Least mu, likewise: far above round-off."""

_GAIN = 1e-13
"""Share of the violation that a step must promise."""

_FLOOR = 1e-6
"""Least scale of a row, as a share of the largest of its law."""


class Restored(NamedTuple):
    """Fields that break laws least, (B, C, *N), half the sum of squared scaled violations, (B,), and the number of steps."""

    u: Tensor
    violation: Tensor
    iterations: int


def weights(law: Constraint, u: Tensor) -> Tensor:
    """One over the scale of each row, (B, m), no row more than a million times as much as another of its law."""
    parts = []
    for leaf in law.leaves():
        scale = scaled(leaf, u)
        least = _FLOOR * scale.amax(1, keepdim=True) if scale.shape[1] else scale
        parts.append(1 / torch.maximum(scale, least).clamp_min(torch.finfo(u.dtype).tiny ** 0.5))
    return torch.cat(parts, dim=1)


def violation(law: Constraint, u: Tensor, weight: Tensor) -> Tensor:
    """Half the sum of squared weighted violations, (B,)."""
    parts = torch.cat([leaf.excess(leaf.residual(u)) for leaf in law.leaves()], dim=1)
    return (weight * parts).square().sum(1) / 2


def least_violation(law: Constraint, u: Tensor, lower: Tensor, upper: Tensor, weight: Tensor, broken: Tensor, tolerance: float) -> Restored:
    """The field within bounds that breaks laws least, from a field to begin with, each sample on its own.

    Arguments:
        law: all laws but bounds.
        u: fields to begin with, (B, C, *N).
        lower: bounds, broadcastable to u.
        upper: likewise.
        weight: of each row, (B, m).
        broken: which samples, (B,); others stay as they are.
        tolerance: scaled violation at which a row counts as met.
    """
    unequal = torch.cat([torch.full((leaf.residual(u).shape[1],), leaf.inequality, device=u.device) for leaf in law.leaves()])

    def linearised(v: Tensor) -> tuple[Tensor, LinearMap]:
        residual, jacobian = law.linearise(v)
        return torch.where(unequal, residual.clamp_min(0), residual), jacobian

    v = torch.where(_spread(broken, u), torch.minimum(torch.maximum(u, lower), upper), u)
    rows, jacobian = linearised(v)
    value = (weight * rows).square().sum(1) / 2
    done = ~broken
    ratio, growth = torch.full_like(value, _BEGIN), torch.full_like(value, 2.0)
    for spent in range(_ITERATIONS):
        done = done | ((weight * rows).abs() <= tolerance).all(1)
        if bool(done.all()):
            return Restored(v, value, spent)
        force = -jacobian.adjoint(weight.square() * rows)
        free = ~(((v <= lower) & (force < 0)) | ((v >= upper) & (force > 0)))
        counts = ((rows != 0) | ~unequal) & ~done[:, None]
        solve = _damped(jacobian, free.to(v), counts, weight, len(v))
        multiplier = solve(rows, ratio)
        step = -(free * jacobian.adjoint(counts * multiplier))
        trial = torch.minimum(torch.maximum(v + step, lower), upper)
        new_rows, new_jacobian = linearised(trial)
        new = torch.nan_to_num((weight * new_rows).square().sum(1) / 2, nan=torch.inf)
        promised = (force * step).flatten(1).sum(1) / 2  # of the model: half of it linear, half for the damping
        done = done | (promised <= _GAIN * value) | (largest(step) <= 4 * torch.finfo(v.dtype).eps * largest(v))
        gained = (value - new) / promised.clamp_min(torch.finfo(v.dtype).tiny)
        taken = (new < value) & ~done
        ratio = torch.where(taken, ratio * (1 - (2 * gained.clamp_max(1) - 1).pow(3)).clamp_min(1 / 10), ratio * growth).clamp_min(_LEAST)
        growth = torch.where(taken, 2.0, 2 * growth)
        done = done | (growth > 1e6)
        v, value = torch.where(_spread(taken, v), trial, v), torch.where(taken, new, value)
        if bool(taken.all()):
            rows, jacobian = new_rows, new_jacobian
        elif bool(taken.any()):
            rows, jacobian = linearised(v)
    return Restored(v, value, _ITERATIONS)


def _damped(jacobian: LinearMap, free: Tensor, counts: Tensor, weight: Tensor, batch: int) -> Callable[[Tensor, Tensor], Tensor]:
    r"""Solves of $(J D J^\top + \mu W^{-2})\,y = r$ in the rows that count, mu given as a share of the squared size of rows."""
    signs = torch.randint(0, 2, counts.shape, generator=torch.Generator().manual_seed(0)).to(free).mul(2).sub(1)
    number = counts.sum(1).clamp_min(1)
    size = (free * jacobian.adjoint(signs * counts * weight)).square().flatten(1).sum(1) / number
    size = size.clamp_min(torch.finfo(free.dtype).tiny)
    gram = SparseGram.of(jacobian, batch)

    def solve(r: Tensor, ratio: Tensor) -> Tensor:
        damping = (ratio * size)[:, None] / weight.square()
        if gram is not None:
            return gram.raised(free.flatten(1), counts, damping)(r)
        mask = counts.to(r)
        return conjugate_gradients(
            lambda y: mask * jacobian(free * jacobian.adjoint(mask * y)) + damping * y,
            mask * r,
            preconditioner=lambda y: mask * jacobian.precondition(mask * y) + y / (size[:, None] / weight.square()),
            max_iterations=_INNER,
        )

    return solve


def _spread(values: Tensor, like: Tensor) -> Tensor:
    """One value a sample, shaped so that it chooses fields."""
    return values.reshape(-1, *(1,) * (like.ndim - 1))
