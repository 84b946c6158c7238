r"""The nearest field that obeys a law.

$$\min_v \tfrac12\|v - u\|^2 \quad\text{subject to}\quad Av = b,\; h(v) = 0,$$

with multipliers $u - v = A^\top\lambda + J(v)^\top\mu$, $J = \nabla h$.

The linear laws are met first, at once, by the structure of their operators (`constraints.linear.stacked`). By Pythagoras the rest of the
problem lives inside their affine set: with $P$ the projector onto $\ker A$, the curved laws are met by Newton's method on the reduced
optimality conditions

$$\begin{pmatrix} P H P & P J^\top\\ J P & 0\end{pmatrix}\begin{pmatrix} d\\ \mu\end{pmatrix}
= \begin{pmatrix} P(u - v)\\ -h(v)\end{pmatrix},\qquad H = I + \sum_i\mu_i\nabla^2 h_i(v),$$

globalised by a merit function, each sample on its own. A closed form enters as the first guess. What is returned is certified: violation
and stationarity are evaluated on the result, whatever led there.

Source:
    Nocedal & Wright, Numerical Optimization (2006), chapters 16 and 18; Gould, Hribar & Nocedal, SIAM J. Sci. Comput. 23 (2001) 1376
    for conjugate gradients inside the null space.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from constraints.constraint import Constraint, Intersection, LinearConstraint, rescaled
from constraints.implicit import attach
from constraints.kkt import Curved, Kernel
from constraints.linear.stacked import Stacked
from constraints.units import Units

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-6}
"""Default tolerances, relative to a law's natural scale: some hundred roundings for sums over 10^4 to 10^6 points."""

_MARGIN = 1e-3
"""Share of the tolerance to which fields are solved that are rounded to single precision afterwards."""

_PASSES = 3
"""Corrections of linear laws: the first reaches round-off relative to the input, another one relative to the result."""


class ProjectionResult(NamedTuple):
    """The nearest lawful fields and their certificate.

    Attributes:
        u: nearest fields that obey, (B, C, *N).
        multiplier: Lagrange multipliers of all rows, (B, m), in the order of the laws.
        violation: max |residual|, (B,), in the laws' own units.
        stationarity: max |input - u - Jᵀ λ|, (B,): feasible is not yet nearest.
        converged: both within tolerance of their natural scales, (B,).
        iterations: Newton steps, 1 for linear laws.
    """

    u: Tensor
    multiplier: Tensor
    violation: Tensor
    stationarity: Tensor
    converged: Tensor
    iterations: int


def project(
    constraint: Constraint,
    u: Tensor,
    *,
    tolerance: float | None = None,
    max_iterations: int = 50,
    metric: Tensor | None = None,
) -> ProjectionResult:
    r"""The nearest fields that obey a law, each sample on its own.

    Computed in double precision; float32 fields are rounded once, at the end, and certified as rounded.

    Arguments:
        constraint: the law, linear or curved, alone or an intersection.
        u: fields, (B, C, *N), float32 or float64, any device.
        tolerance: largest residual, as a fraction of the law's natural scale, and largest stationarity, as a fraction of the largest
            value of the field; 1e-12 in float64 and 1e-6 in float32 by default.
        max_iterations: Newton steps at most.
        metric: unit of distance of each channel, (C,): minimises $\sum_c\|(v_c - u_c)/s_c\|^2$; ones by default. Multipliers then are
            those of the law on $u/s$.

    Returns:
        The fields with their certificate. Hard or contradictory laws do not raise: `converged` is False. Gradients flow from
        `result.u` to the input and to the targets of the law by the implicit function theorem, at a memory independent of iterations.

    Raises:
        ValueError: the fields are not floating point, have the wrong shape for the law, or hold NaN or Inf.

    Example:
        >>> from constraints import Axis, DivergenceFree, Grid, project
        >>> grid = Grid(Axis("x", 16, periodic=True), Axis("y", 16, periodic=True))
        >>> bool(project(DivergenceFree(grid), torch.randn(4, 2, 16, 16, dtype=torch.float64)).converged.all())
        True
    """
    _check(constraint, u)
    if metric is not None:
        if tuple(metric.shape) != (u.shape[1],) or metric.requires_grad:
            raise ValueError(
                f"project expects a metric of one number a channel, ({u.shape[1]},), without gradient; got {tuple(metric.shape)}."
            )
        units = Units(torch.zeros_like(metric), metric)
        result = project(rescaled(constraint, units), units.normalise(u), tolerance=tolerance, max_iterations=max_iterations)
        return result._replace(u=units.physical(result.u))
    tolerance = TOLERANCE[u.dtype] if tolerance is None else tolerance
    system, exact = _system(constraint), u.to(torch.float64)
    with torch.no_grad():
        result = system.solve(exact.detach(), tolerance, max_iterations, u.dtype)
    if torch.is_grad_enabled():
        result = result._replace(u=attach(system.kernel, system.curved, constraint, exact, result.u, result.multiplier))
    v, multiplier, violation, stationarity = (part.to(u.dtype) for part in result[:4])
    return ProjectionResult(v, multiplier, violation, stationarity, result.converged, result.iterations)


def _check(constraint: Constraint, u: Tensor) -> None:
    if u.dtype not in TOLERANCE:
        raise ValueError(f"project expects float32 or float64 fields; got {u.dtype}.")
    if u.ndim < 3 or len(u) == 0:
        raise ValueError(f"project expects at least one field, (B, C, *N); got {tuple(u.shape)}.")
    for leaf in constraint.leaves():
        if leaf.samples not in (1, len(u)):
            raise ValueError(
                f"{leaf.name} has targets for {leaf.samples} samples; got {len(u)} fields. Take the law of these: law.take(slice)."
            )
        shape = leaf.operator.shape if isinstance(leaf, LinearConstraint) else getattr(leaf, "shape", None)
        if shape is not None and tuple(u.shape[1:]) != tuple(shape):
            wanted = ", ".join(str(n) for n in shape)
            raise ValueError(f"{leaf.name} expects fields of shape (B, {wanted}); got {tuple(u.shape)}.")
    if not torch.isfinite(u).all():
        raise ValueError(f"project expects finite fields; got {int((~torch.isfinite(u)).sum())} values that are NaN or Inf.")


def _system(constraint: Constraint) -> _System:
    """The constraint sorted into linear and curved laws, kept with it: the structure is found once."""
    cached = constraint.__dict__.get("_projection_system")
    if cached is None:
        cached = _System(constraint)
        constraint.__dict__["_projection_system"] = cached
    assert isinstance(cached, _System)
    return cached


class _System:
    """A constraint prepared for projection: linear laws stacked, curved ones on top."""

    def __init__(self, constraint: Constraint) -> None:
        self.leaves = constraint.leaves()
        self.linear = [leaf for leaf in self.leaves if isinstance(leaf, LinearConstraint)]
        bent = [leaf for leaf in self.leaves if not isinstance(leaf, LinearConstraint)]
        self.stack = Stacked([leaf.operator for leaf in self.linear]) if self.linear else None
        self.kernel = Kernel(self.stack)
        self.curved = None if not bent else Curved(self.kernel, bent[0] if len(bent) == 1 else Intersection(*bent))
        self.guessed = len(bent) == 1

    def solve(self, u: Tensor, tolerance: float, max_iterations: int, dtype: torch.dtype) -> ProjectionResult:
        """Project and round to a type; where linear laws are left above tolerance by cancellation, correct the result once more."""
        aim = tolerance if dtype == u.dtype else _MARGIN * tolerance
        flat, linear = u, u.new_zeros(u.shape[0], 0 if self.stack is None else self.stack.rows)
        for _ in range(_PASSES):
            if self.stack is not None:
                flat, more = self.stack.nearest(flat, self._target(u))
                linear = linear + more
            if self.curved is None:
                result = self._certify(u, flat.to(dtype).to(u), linear, None, tolerance, 1)
            else:
                newton = self.curved.newton(flat, self._guess(flat), aim, max_iterations)
                rounded, multiplier = newton.u.to(dtype).to(u), linear + newton.linear_multiplier
                result = self._certify(u, rounded, multiplier, newton.multiplier, tolerance, max(newton.iterations, 1))
            if self.stack is None or result.converged.all() or not self._cancelled(flat, tolerance):
                break
        return result

    def _target(self, u: Tensor) -> Tensor | None:
        """Targets of all linear rows, (1, m) or (B, m), None if all are zero."""
        if not any(bool(leaf.target.any()) for leaf in self.linear):
            return None
        rows = [leaf.target.detach().to(u).reshape(-1, leaf.target.shape[-1]) for leaf in self.linear]
        batch = max(t.shape[0] for t in rows)
        return torch.cat([t.expand(batch, leaf.operator.rows) for t, leaf in zip(rows, self.linear, strict=True)], dim=1)

    def _cancelled(self, flat: Tensor, tolerance: float) -> bool:
        """Whether a linear law is above its tolerance in the affine set."""
        measured = (leaf.measure(flat) for leaf in self.linear)
        return any(bool((residual.abs() > tolerance * scale).any()) for residual, scale in measured)

    def _guess(self, flat: Tensor) -> Tensor:
        """The closed form of a single curved law, seen from the point of the affine set nearest to the origin."""
        assert self.curved is not None
        if not self.guessed:
            return flat
        origin = torch.zeros_like(flat)
        target = self._target(flat)
        if self.stack is not None and target is not None:
            origin = self.stack.nearest(origin, target)[0]
        return self.curved.constraint.retract(flat, origin)

    def _certify(self, u: Tensor, v: Tensor, linear: Tensor, curved: Tensor | None, tolerance: float, iterations: int) -> ProjectionResult:
        """Evaluate on the result what it claims."""
        forces = torch.zeros_like(u) if self.stack is None else self.stack.adjoint(linear)
        if self.curved is not None and curved is not None:
            forces = forces + self.curved.constraint.jacobian(v).adjoint(curved)
        measured = [leaf.measure(v) for leaf in self.leaves]
        residuals = [residual for residual, _ in measured]
        scales = [_floored(leaf, scale, u, tolerance) for leaf, (_, scale) in zip(self.leaves, measured, strict=True)]
        obeyed = torch.stack([(r.abs() <= tolerance * scale).all(1) for r, scale in zip(residuals, scales, strict=True)]).all(0)
        violation = torch.cat(residuals, dim=1).abs().amax(1)
        stationarity = (u - v - forces).abs().flatten(1).amax(1)
        size = torch.maximum(u.abs(), v.abs()).flatten(1).amax(1)
        converged = obeyed & (stationarity <= tolerance * size.clamp_min(torch.finfo(u.dtype).tiny))
        multiplier = self._ordered(linear, curved, [r.shape[1] for r in residuals])
        return ProjectionResult(v, multiplier, violation, stationarity, converged, iterations)

    def _ordered(self, linear: Tensor, curved: Tensor | None, sizes: list[int]) -> Tensor:
        """Multipliers in the order of the laws."""
        flat = [isinstance(leaf, LinearConstraint) for leaf in self.leaves]
        straight = iter(linear.split([size for size, is_flat in zip(sizes, flat, strict=True) if is_flat], dim=1))
        bent = iter(() if curved is None else curved.split([n for n, is_flat in zip(sizes, flat, strict=True) if not is_flat], dim=1))
        return torch.cat([next(straight) if is_flat else next(bent) for is_flat in flat], dim=1)


def _floored(leaf: Constraint, scale: Tensor, u: Tensor, tolerance: float) -> Tensor:
    """The scale of a law; where a linear one has made its own terms vanish, what the tolerance leaves of them before."""
    return torch.maximum(scale, tolerance * leaf.scale(u)) if isinstance(leaf, LinearConstraint) else scale
