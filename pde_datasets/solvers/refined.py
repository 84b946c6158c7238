r"""Intervals of time in as many steps as accuracy asks for, sample by sample.

An interval is taken in `steps` equal steps, and samples whose error is estimated to be more than `tolerance` of their size, in the mean
square, take it again in twice as many. Each sample is judged by itself, so that its steps do not depend on the company it keeps; the
tolerance is met at every interval, however long that is. Errors are estimated by an embedded method, or as what halving the steps changes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from pde_datasets.solvers.exponential import ETDRK4
from pde_datasets.steps import took

MOST = 2**14
"""Steps an interval past which a solver gives up: no step is short enough for states that are not finite."""


class RefinedETDRK4:
    r"""$\dot v = L v + N(v)$ over equal intervals, in steps of ETDRK4 whose embedded errors are added up.

    Arguments:
        linear: diagonal of $L$, of the shape of one state, or one for each sample.
        interval: length of an interval.
        steps: steps an interval is taken in at first.
        tolerance: the errors estimated of the steps of an interval, relative to the state at its end.

    Raises:
        FloatingPointError: from `advance`: no step was short enough.
    """

    def __init__(self, linear: Tensor, interval: float, steps: int, tolerance: float) -> None:
        self.linear, self.interval, self.steps, self.tolerance = linear, interval, steps, tolerance
        self._stepper = cache(lambda steps: ETDRK4(linear, interval / steps))

    def advance(self, v: Tensor, nonlinear: Callable[[Tensor], Tensor]) -> Tensor:
        """States (N, ...) an interval later."""
        return self._advance(v, nonlinear, torch.arange(v.shape[0], device=v.device), self.steps)

    def _advance(self, start: Tensor, nonlinear: Callable[[Tensor], Tensor], samples: Tensor, steps: int) -> Tensor:
        """Those of some of the samples."""
        stepper = self._stepper(steps)
        if self.linear.ndim == start.ndim and self.linear.shape[0] > 1:
            stepper = stepper.of(samples)
        v, rate, error = start, nonlinear(start), start.real.new_zeros(start.shape[0])
        for _ in range(steps):
            v, rate, estimate = stepper.attempt(v, rate, nonlinear)
            error = error + _size(estimate)
            took()
        return refine(v, error, self.tolerance, steps, lambda where, more: self._advance(start[where], nonlinear, samples[where], more))


def halved(advance: Callable[[Tensor, int], Tensor], start: Tensor, steps: int, tolerance: float) -> Tensor:
    """States an interval later, in steps that were halved until it changed little; at least once.

    Arguments:
        advance: states (N, ...) an interval later in so many steps.
        start: states.
        steps: steps tried first.
        tolerance: largest change, relative to the norm of the state.

    Raises:
        FloatingPointError: no step was short enough.
    """

    def again(start: Tensor, longer: Tensor, steps: int) -> Tensor:
        v = advance(start, steps)
        return refine(v, _size(v - longer), tolerance, steps, lambda where, more: again(start[where], v[where], more))

    return again(start, advance(start, steps), 2 * steps)


def refine(v: Tensor, error: Tensor, tolerance: float, steps: int, again: Callable[[Tensor, int], Tensor]) -> Tensor:
    """States, and in the place of those whose error is too large what twice as many steps give.

    Arguments:
        v: states (N, ...) after an interval.
        error: their errors, (N,), in the unit of their norms.
        tolerance: largest error, relative to the norm.
        steps: steps they were found with.
        again: the states some samples (a mask, (N,)) come to in that many steps.

    Raises:
        FloatingPointError: no step was short enough.
    """
    where = ~(error <= tolerance * _size(v))  # no error that is not a number is small enough
    if not where.any():
        return v
    if 2 * steps > MOST:
        raise FloatingPointError(
            f"no time step is short enough for a relative error of {tolerance:g}: {steps} steps between stored times were not enough. "
            "The state is not finite, or the tolerance is below round-off."
        )
    return v.index_put((where,), again(where, 2 * steps))


def _size(v: Tensor) -> Tensor:
    """The norm of each state."""
    return torch.linalg.vector_norm(v.flatten(1), dim=1)
