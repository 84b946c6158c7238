r"""Limited-memory BFGS for a batch of independent problems: each sample has its own curvature, its own line search, its own end.

`torch.optim.LBFGS` takes all that it is given for one vector, so that the samples of a batch share curvature and step length and the result
of one depends on its company.

Source:
    Nocedal & Wright, Numerical Optimization (2006), algorithms 7.4 and 7.5, with a line search for the weak Wolfe conditions by secants
    within a bracket (Lewis & Overton, Math. Program. 141 (2013) 135, for the bracketing).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from pcfm.path import broadcast

Function = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Values (B,) and gradients (B, ...) at points (B, ...)."""

_DECREASE, _CURVATURE = 1e-4, 0.9
_FURTHEST = 10.0
"""Longest step of a search as a multiple of the last one."""


class Minimum(NamedTuple):
    """Points (B, ...) with values (B,) and gradients (B, ...), and how often the function was evaluated, each time at all samples."""

    x: Tensor
    value: Tensor
    gradient: Tensor
    evaluations: int


@dataclass
class _Point:
    """Points along a direction, with what the function is there."""

    length: Tensor
    x: Tensor
    value: Tensor
    gradient: Tensor
    slope: Tensor

    def where(self, condition: Tensor, other: _Point) -> _Point:
        """These where the condition holds, others elsewhere."""
        wide = broadcast(condition, self.x)
        return _Point(
            torch.where(condition, self.length, other.length),
            torch.where(wide, self.x, other.x),
            torch.where(condition, self.value, other.value),
            torch.where(wide, self.gradient, other.gradient),
            torch.where(condition, self.slope, other.slope),
        )


def minimise(
    function: Function,
    x: Tensor,
    *,
    iterations: int,
    history: int = 20,
    searches: int = 10,
    tolerance: float = 0.0,
    told: Callable[[float], None] = lambda share: None,
) -> Minimum:
    """Descend a function from x, each sample on its own; values never rise.

    Arguments:
        function: values and gradients, each sample's a function of that sample alone.
        x: where to begin, (B, ...).
        iterations: steps at most, each with a line search.
        history: pairs of moves and changes of gradient that are kept.
        searches: evaluations of a line search at most.
        tolerance: norm of the gradient, as a fraction of the first one, at which a sample stops. It stops, too, where no lower value is
            found.
        told: called with the share of the iterations that is done, after each.

    Returns:
        The last points. Not having converged is no error: the gradient tells.
    """
    value, gradient = function(x)
    evaluations, pairs = 1, deque[tuple[Tensor, Tensor, Tensor]](maxlen=history)
    scale, enough = torch.ones_like(value), tolerance * _norm(gradient)
    active = (_norm(gradient) > enough) & torch.isfinite(value)
    for k in range(iterations):
        if not active.any():
            break
        direction = -_inverse_hessian(pairs, scale, gradient)
        downhill = _inner(direction, gradient) < 0
        direction = torch.where(broadcast(downhill, x), direction, -gradient)
        here = _Point(torch.zeros_like(value), x, value, gradient, _inner(direction, gradient))
        fresh = ~downhill if k else torch.ones_like(downhill)  # without curvature a unit move is tried first
        length = torch.where(fresh, 1 / _norm(direction).clamp_min(torch.finfo(x.dtype).tiny), 1.0)
        new, used = _search(function, here, direction, length, active, searches)
        evaluations += used
        active = active & (new.value < value)
        new = new.where(active, here)
        move, change = new.x - x, new.gradient - gradient
        curvature = _inner(move, change)
        useful = curvature > torch.finfo(x.dtype).eps * _norm(move) * _norm(change)
        pairs.append((move, change, torch.where(useful, 1 / torch.where(useful, curvature, 1.0), 0.0)))
        scale = torch.where(useful, curvature / change.square().flatten(1).sum(1).clamp_min(torch.finfo(x.dtype).tiny), scale)
        x, value, gradient = new.x, new.value, new.gradient
        active = active & (_norm(gradient) > enough)
        told((k + 1) / (iterations + 1))
    return Minimum(x, value, gradient, evaluations)


def _inverse_hessian(pairs: deque[tuple[Tensor, Tensor, Tensor]], scale: Tensor, gradient: Tensor) -> Tensor:
    """The two loops over the pairs; a pair with an inverse curvature of 0 is none."""
    q, weights = gradient, []
    for move, change, inverse in reversed(pairs):
        weight = inverse * _inner(move, q)
        q = q - broadcast(weight, q) * change
        weights.append(weight)
    q = broadcast(scale, q) * q
    for (move, change, inverse), weight in zip(pairs, reversed(weights), strict=True):
        q = q + broadcast(weight - inverse * _inner(change, q), q) * move
    return q


def _search(function: Function, start: _Point, direction: Tensor, length: Tensor, active: Tensor, searches: int) -> tuple[_Point, int]:
    """Points along a direction that meet the weak Wolfe conditions, or the lowest found; and the evaluations that took."""
    low, high = start, start.where(torch.ones_like(active), start)
    bracketed, best, pending, used = torch.zeros_like(active), start, active, 0
    while used < searches and pending.any():
        x = start.x + broadcast(torch.where(pending, length, 0.0), direction) * direction
        value, gradient = function(x)
        used += 1
        tried = _Point(length, x, value, gradient, _inner(direction, gradient))
        rises = ~(value <= start.value + _DECREASE * length * start.slope)  # NaN rises
        falls = ~rises & (tried.slope < _CURVATURE * start.slope)
        best = tried.where(pending & ~rises & (value < best.value), best)
        high, bracketed = tried.where(pending & rises, high), bracketed | (pending & rises)
        longer = _secant(low, tried)
        low = tried.where(pending & falls, low)
        pending = pending & (rises | falls)
        length = torch.where(bracketed, _between(low, high), torch.minimum(torch.maximum(longer, 2 * length), _FURTHEST * length))
    return best, used


def _secant(a: _Point, b: _Point) -> Tensor:
    """Where the line through the slopes of two points vanishes; infinite where it falls."""
    rise = b.slope - a.slope
    return torch.where(rise > 0, b.length - b.slope * (b.length - a.length) / torch.where(rise > 0, rise, 1.0), torch.inf)


def _between(low: _Point, high: _Point) -> Tensor:
    """The minimum of the parabola through the value and slope of one end and the value of the other, within the inner four fifths."""
    width = high.length - low.length
    bend = high.value - low.value - low.slope * width
    fraction = torch.where(bend > 0, -low.slope * width / torch.where(bend > 0, 2 * bend, 1.0), 0.5)
    return low.length + fraction.nan_to_num(0.5).clamp(0.1, 0.9) * width


def _inner(a: Tensor, b: Tensor) -> Tensor:
    return torch.linalg.vecdot(a.flatten(1), b.flatten(1))


def _norm(a: Tensor) -> Tensor:
    return a.flatten(1).norm(dim=1)
