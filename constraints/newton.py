r"""Single Gauss-Newton steps, tangents and certificates: for methods that take a fixed number of steps where `project` converges.

With $J = \nabla h(u)$, a step from $u$ goes to the point nearest to an anchor $a$ on the linearised law,

$$v = a - J^\top\lambda,\qquad (J J^\top + \epsilon I)\,\lambda = h(u) + J\,(a - u),$$

which is plain root finding, $v = u - J^\top(JJ^\top)^{-1}h(u)$, where the anchor is $u$ itself. Of inequalities, the rows that are broken
at $u$ count as equalities and the others do not count. Gram systems are solved by the structure of the Jacobian; a ridge $\epsilon > 0$
takes sparse factors, or conjugate gradients preconditioned with that solve.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from constraints.constraint import Constraint
from constraints.face import ActiveRows, AffineKernel, RowMask
from constraints.implicit import Conditions
from constraints.linear.map import LinearMap
from constraints.linear.solve import conjugate_gradients
from constraints.linear.sparse import SparseGram
from constraints.projection import ProjectionResult
from constraints.system import TOLERANCE, Found, system_of


class Step(NamedTuple):
    """Fields after a step, (B, C, *N), and its multipliers of all rows, (B, m)."""

    u: Tensor
    multiplier: Tensor


def broken_rows(law: Constraint, u: Tensor, *, within: float = 0.0) -> Constraint:
    """The law without the rows of inequalities that hold at u, the others as equalities; the law itself if it has no inequality.

    Rows that hold by less than `within`, in their own unit, stay too.
    """
    leaves = law.leaves()
    if not any(leaf.inequality for leaf in leaves):
        return law
    parts = [leaf.residual(u) for leaf in leaves]
    counts = [r > -within if leaf.inequality else torch.ones_like(r, dtype=torch.bool) for leaf, r in zip(leaves, parts, strict=True)]
    return ActiveRows(law, torch.cat(counts, dim=1).to(u))


def gauss_newton_step(law: Constraint, u: Tensor, *, anchor: Tensor | None = None, ridge: float = 0.0) -> Step:
    r"""One Gauss-Newton step towards a law, each sample on its own, computed in double precision.

    Arguments:
        law: linear or curved, equality or inequality, alone or an intersection.
        u: fields, (B, C, *N).
        anchor: the point that the step stays nearest to, (B, C, *N); u by default.
        ridge: $\epsilon$, in the squared unit of the rows of the Jacobian.

    Returns:
        The step; on a linear law without a ridge it is the nearest lawful field, and nothing is promised of a curved one.

    Example:
        >>> from constraints import FunctionConstraint
        >>> circle = FunctionConstraint(lambda u: u.square().flatten(1).sum(1, keepdim=True) - 1)
        >>> gauss_newton_step(circle, torch.tensor([[[3.0, 4.0]]])).u
        tensor([[[1.5600, 2.0800]]])
    """
    at = u.to(torch.float64)
    residual, jacobian = broken_rows(law, at).linearise(at)
    if anchor is None:
        start = at
    else:
        start = anchor.to(torch.float64)
        residual = residual + jacobian(start - at)
    multiplier = raised_solve(jacobian, residual, ridge)
    return Step(jacobian.subtract(start.clone(), multiplier).to(u.dtype), multiplier.to(u.dtype))


def tangent(law: Constraint, u: Tensor, direction: Tensor) -> Tensor:
    r"""The part of a direction along which a law does not change at u, $d - J^\top(JJ^\top)^{+}J d$, (B, C, *N).

    Inequalities that hold at u leave the direction alone.
    """
    at, along = u.to(torch.float64), direction.to(torch.float64)
    jacobian = broken_rows(law, at).jacobian(at)
    return jacobian.subtract(along.clone(), jacobian.solve_gram(jacobian(along))).to(direction.dtype)


def certified(law: Constraint, u: Tensor, before: Tensor, multiplier: Tensor | None = None, iterations: int = 0) -> ProjectionResult:
    """The certificate that `project` would give to fields found in another way.

    Arguments:
        law: the law they are held to.
        u: the fields, (B, C, *N).
        before: what they should be near, (B, C, *N).
        multiplier: of all rows, (B, m); none by default, which suits fields that have not been moved.
        iterations: steps that it took.
    """
    found, exact = u.to(torch.float64), before.to(torch.float64)
    rows = sum(leaf.residual(found).shape[1] for leaf in law.leaves()) if multiplier is None else multiplier.shape[1]
    forces = found.new_zeros(len(u), rows) if multiplier is None else multiplier.to(torch.float64)
    conditions = Conditions(AffineKernel(None), None, forces, lambda straight, bent, held, v: forces)
    result = system_of(law).certify(exact, Found(found, forces, iterations, conditions), TOLERANCE[u.dtype], u.dtype)
    names = tuple(leaf.name for leaf in law.leaves())
    return ProjectionResult(
        u,
        result.multiplier.to(u.dtype),
        result.violation.to(u.dtype),
        result.stationarity.to(u.dtype),
        result.converged,
        iterations,
        result.complementarity.to(u.dtype),
        result.obeyed,
        names,
    )


def raised_solve(jacobian: LinearMap, r: Tensor, ridge: float | Tensor) -> Tensor:
    r"""A solution of $(J J^\top + R + D)\,y = r$, where R is the variance of rows observed with noise.

    Arguments:
        jacobian: J.
        r: right-hand sides, (B, m).
        ridge: D, a number or the diagonal of a matrix, (B, m); not negative.
    """
    if isinstance(ridge, float) and not ridge:
        return jacobian.solve_gram(r)
    diagonal = ridge if jacobian.variance is None else ridge + jacobian.variance.to(r)
    if isinstance(jacobian, RowMask):
        gram, each = SparseGram.of(jacobian.inner, len(r)), torch.as_tensor(diagonal, dtype=r.dtype).expand_as(r)
        if gram is not None and bool((each > 0).all()):
            return gram.raised(r.new_ones(len(r), gram.columns), jacobian.mask > 0, each)(r)
    return conjugate_gradients(
        lambda y: jacobian(jacobian.adjoint(y)) + diagonal * y, r, preconditioner=jacobian.precondition, max_iterations=1000
    )
