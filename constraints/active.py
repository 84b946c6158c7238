r"""Bounds and other inequalities beside curved laws: active sets over Newton's method.

Given which values sit at bounds and which rows hold with equality, the nearest point is a problem of equalities (`constraints.kkt`). Its
multipliers say which of them pull the wrong way, its residuals which others are broken; the sets are exchanged,

$$\text{a value is held at } h \text{ where } v + z > h,\qquad \text{a row holds where } g + \nu > 0,$$

until they repeat: the primal-dual active set method, which is Newton's method on the complementarity conditions. Two things are not as
published: rows that are broken are taken in before values beyond their bounds, since what they shrink may need no bound; and should the
method cycle, the worst offender of each sample alone is exchanged. Where rows are many and sparse it begins next to the solution
(`constraints.interior`) and has little left to exchange. The result is certified like any other.

Source:
    Hintermueller, Ito & Kunisch, SIAM J. Optim. 13 (2002) 865.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from constraints.constraint import Constraint, LinearConstraint
from constraints.face import ActiveRows, FaceKernel
from constraints.kkt import Curved, Solution
from constraints.linear.stacked import Stacked

BULK = 15
"""Exchanges of all offenders at once."""

SINGLE = 25
"""Exchanges of one at a time, where those have not settled."""

_STEPS = 3
"""Newton steps of all faces together, as a multiple of those of one, after which no other face is tried."""


class Sets(NamedTuple):
    """Where exchanges begin or have come to.

    Attributes:
        rows: which rows hold with equality, (B, m).
        above: which values are at their upper bounds, (B, C, *N).
        below: at their lower ones.
        guess: fields near the solution; None without a better guess than the nearest point of the face without its curved rows.
    """

    rows: Tensor
    above: Tensor
    below: Tensor
    guess: Tensor | None = None


class Active(NamedTuple):
    """A nearest point, its multipliers, forces on values at bounds, its face, and whether no set had to be exchanged any more."""

    u: Tensor
    multiplier: Tensor
    linear_multiplier: Tensor
    force: Tensor
    kernel: FaceKernel
    curved: Curved
    iterations: int
    sets: Sets
    settled: bool


class Problem(NamedTuple):
    """What is asked for.

    Attributes:
        stack: linear laws.
        target: their targets.
        bent: all other laws but bounds.
        inequality: which of their rows are inequalities, (m,).
        noisy: laws observed with noise.
        lower: bounds, broadcastable to fields.
        upper: likewise.
    """

    stack: Stacked | None
    target: Tensor | None
    bent: Constraint
    inequality: Tensor
    noisy: list[LinearConstraint]
    lower: Tensor
    upper: Tensor


def nearest_on_face(
    problem: Problem, u: Tensor, begun: Sets, tolerance: float, max_iterations: int, *, bulk: int = BULK, single: int = 0
) -> Active:
    """The nearest point to u, by exchanges of active sets.

    Arguments:
        problem: laws and bounds.
        u: fields.
        begun: the sets to begin with.
        tolerance: as for `project`.
        max_iterations: Newton steps for each face.
        bulk: exchanges of all offenders at once, at most.
        single: after them, of one at a time.
    """
    lower, upper = (bound.expand_as(u) for bound in (problem.lower, problem.upper))
    rows, above, below, guess = begun
    spent, point = 0, None
    for exchange in range(bulk + single):
        kernel, solution, held = _on_face(problem, u, guess, above, below, rows, tolerance, max_iterations)
        spent, guess = spent + max(solution.iterations, 1), None if guess is None else solution.u
        v, force = solution.u, held
        residual, scale = problem.bent.measure(v)
        size = torch.maximum(u.abs(), v.abs()).flatten(1).amax(1).reshape(-1, *(1,) * (u.ndim - 1))
        drop = (above & (force < -tolerance * size)) | (below & (force > tolerance * size))
        high, low = ~above & (v > upper + tolerance * size), ~below & (v < lower - tolerance * size)
        push = solution.multiplier
        release = problem.inequality & rows & (push < -tolerance * push.abs().amax(1, keepdim=True))
        broken = problem.inequality & ~rows & (residual > tolerance * scale)
        calm = ~broken.any(1).reshape(-1, *(1,) * (u.ndim - 1))  # rows first: what they shrink may need no bound
        high, low = high & calm, low & calm
        settled = not bool(drop.any() or high.any() or low.any() or release.any() or broken.any())
        if exchange >= bulk:
            drop, high, low, release, broken = _worst(drop, high, low, release, broken, force, v, lower, upper, push, residual)
        curved = _curved(problem, kernel, rows)
        above, below = (above & ~drop) | high, (below & ~drop) | low
        rows = (rows & ~release) | broken
        multipliers = solution.multiplier, solution.linear_multiplier, force
        point = Active(v, *multipliers, kernel, curved, spent, Sets(rows, above, below), settled)
        if settled or spent >= _STEPS * max_iterations:
            break
    assert point is not None
    return point


def _curved(problem: Problem, kernel: FaceKernel, rows: Tensor) -> Curved:
    return Curved(kernel, ActiveRows(problem.bent, rows.to(torch.float64)), problem.noisy)


def _on_face(
    problem: Problem,
    u: Tensor,
    guess: Tensor | None,
    above: Tensor,
    below: Tensor,
    rows: Tensor,
    tolerance: float,
    max_iterations: int,
) -> tuple[FaceKernel, Solution, Tensor]:
    """The nearest point with the given values and rows held, and the forces that hold the values."""
    kernel = FaceKernel(problem.stack, (~(above | below)).to(u))

    def on_face(x: Tensor) -> Tensor:
        held = torch.where(above, problem.upper.expand_as(u), torch.where(below, problem.lower.expand_as(u), x))
        return kernel.nearest(held if problem.stack is None else problem.stack.select(held, problem.target), problem.target)

    anchor = on_face(u)
    curved = _curved(problem, kernel, rows)
    solution = curved.solve(anchor, anchor if guess is None else on_face(guess), tolerance, max_iterations)
    v = solution.u
    rest = u - v - curved.constraint.jacobian(v).adjoint(solution.multiplier)
    for law in problem.noisy:
        assert law.variance is not None
        rest = rest - law.operator.adjoint(law.residual(v) / law.variance.to(v))
    taken = kernel(rest)[1]
    return kernel, solution._replace(linear_multiplier=taken), kernel.held(rest, taken)


def _worst(
    drop: Tensor,
    high: Tensor,
    low: Tensor,
    release: Tensor,
    broken: Tensor,
    force: Tensor,
    v: Tensor,
    lower: Tensor,
    upper: Tensor,
    push: Tensor,
    residual: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Of all offenders of each sample the largest alone."""
    zero = torch.zeros_like(v)
    faults = [
        torch.where(drop, force.abs(), zero).flatten(1),
        torch.where(high, v - upper, zero).flatten(1),
        torch.where(low, lower - v, zero).flatten(1),
        torch.where(release, -push, 0.0),
        torch.where(broken, residual, 0.0),
    ]
    joined = torch.cat(faults, dim=1)
    chosen = torch.zeros_like(joined, dtype=torch.bool).scatter(1, joined.argmax(1, keepdim=True), True) & (joined > 0)
    parts = chosen.split([fault.shape[1] for fault in faults], dim=1)
    return (*(part.reshape(v.shape) for part in parts[:3]), parts[3], parts[4])
