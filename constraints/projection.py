r"""The nearest field that obeys laws.

$$\min_v \tfrac12\|v - u\|^2 \quad\text{subject to}\quad Av = b,\; h(v) = 0,\; g(v) \le 0,\; l \le v \le h,$$

with multipliers $u - v = A^\top\lambda + J_h(v)^\top\mu + J_g(v)^\top\nu + z$, where $\nu$ is not negative and vanishes where g is
negative, and z pulls at bounds only.

Values that follow from given ones, by explicit steps, are put in place (`constraints.marched`). The linear laws are met first, at once,
by the structure of their operators (`constraints.linear.stacked`). By Pythagoras the rest of the problem lives inside their affine set:
with $P$ the projector onto $\ker A$, the curved laws are met by Newton's method on the reduced optimality conditions (`constraints.kkt`)

$$\begin{pmatrix} P H P & P J^\top\\ J P & 0\end{pmatrix}\begin{pmatrix} d\\ \mu\end{pmatrix}
= \begin{pmatrix} P(u - v)\\ -h(v)\end{pmatrix},\qquad H = I + \sum_i\mu_i\nabla^2 h_i(v),$$

globalised by a merit function, each sample on its own. Bounds and linear inequalities beside linear laws take Newton's method on the
dual (`constraints.dual`), beside curved laws active sets over the above (`constraints.active`). A closed form enters as the first guess.
What is returned is certified: violation, stationarity and complementarity are evaluated on the result, whatever led there. Where the
structure of the laws makes the result exact without a check, they are evaluated when they are asked for, and cost nobody who does not.

Source:
    Nocedal & Wright, Numerical Optimization (2006), chapters 16 and 18; Gould, Hribar & Nocedal, SIAM J. Sci. Comput. 23 (2001) 1376
    for conjugate gradients inside the null space.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from constraints.constraint import Constraint, LinearConstraint, rescaled
from constraints.implicit import attach
from constraints.linear.derivative import transforming
from constraints.marched import Solver, solver_of
from constraints.metric import Metric, as_metric
from constraints.system import TOLERANCE, Certified, Solved


class Certificate(NamedTuple):
    """What `ProjectionResult` says of its fields."""

    multiplier: Tensor
    violation: Tensor
    stationarity: Tensor
    converged: Tensor
    complementarity: Tensor
    obeyed: Tensor


class ProjectionResult:
    """The nearest lawful fields and their certificate.

    What the certificate says may be worked out when it is first read. It is of the fields as they were found, so they, and the input, may
    not be changed in place before.

    Attributes:
        u: nearest fields that obey, (B, C, *N).
        multiplier: Lagrange multipliers of all rows, (B, m), in the order of the laws.
        violation: max |residual|, or what is positive of it for inequalities, (B,), in the laws' own units.
        stationarity: max |input - u - Jᵀ λ|, (B,): feasible is not yet nearest.
        converged: all of it within tolerance of its natural scale, (B,).
        iterations: Newton steps, 1 for linear laws.
        complementarity: max |ν g| over inequalities, or the size of a multiplier of the wrong sign, (B,); zero without inequalities.
        obeyed: which law holds to tolerance, (B, laws).
        laws: names of the laws.
    """

    def __init__(
        self,
        u: Tensor,
        multiplier: Tensor,
        violation: Tensor,
        stationarity: Tensor,
        converged: Tensor,
        iterations: int,
        complementarity: Tensor,
        obeyed: Tensor,
        laws: tuple[str, ...],
    ) -> None:
        certificate = Certificate(multiplier, violation, stationarity, converged, complementarity, obeyed)
        self.u, self.iterations, self.laws = u, iterations, laws
        self._certify: Callable[[], Certificate] = lambda: certificate
        self._certificate: Certificate | None = certificate

    @classmethod
    def of(cls, u: Tensor, iterations: int, laws: tuple[str, ...], certify: Callable[[], Certificate]) -> ProjectionResult:
        """Fields with a certificate to be evaluated when it is read."""
        result = cls.__new__(cls)
        result.u, result.iterations, result.laws = u, iterations, laws
        result._certify, result._certificate = certify, None
        return result

    @property
    def certificate(self) -> Certificate:
        """All that is known of the fields, evaluated once."""
        if self._certificate is None:
            self._certificate = self._certify()
        return self._certificate

    @property
    def multiplier(self) -> Tensor:
        return self.certificate.multiplier

    @property
    def violation(self) -> Tensor:
        return self.certificate.violation

    @property
    def stationarity(self) -> Tensor:
        return self.certificate.stationarity

    @property
    def converged(self) -> Tensor:
        return self.certificate.converged

    @property
    def complementarity(self) -> Tensor:
        return self.certificate.complementarity

    @property
    def obeyed(self) -> Tensor:
        return self.certificate.obeyed

    @property
    def broken(self) -> list[tuple[str, ...]]:
        """Names of the laws that each sample does not obey; those that clash, where laws contradict each other."""
        return [tuple(name for name, holds in zip(self.laws, row, strict=True) if not holds) for row in self.obeyed.tolist()]

    def _replace(self, **changes: Any) -> ProjectionResult:
        """The same with other values of some attributes, by name."""
        own: dict[str, Any] = {"u": self.u, "iterations": self.iterations, "laws": self.laws}
        if changes.keys() <= own.keys():
            return ProjectionResult.of(**(own | changes), certify=lambda: self.certificate)
        return ProjectionResult(**(own | self.certificate._asdict() | changes))

    def __repr__(self) -> str:
        return f"ProjectionResult(u={self.u!r}, iterations={self.iterations}, laws={self.laws}, certificate={self.certificate!r})"


def project(
    constraint: Constraint,
    u: Tensor,
    *,
    tolerance: float | None = None,
    max_iterations: int = 50,
    metric: Tensor | Metric | None = None,
) -> ProjectionResult:
    r"""The nearest fields that obey laws, each sample on its own.

    Computed in double precision; float32 fields are rounded once, at the end, and certified as rounded.

    Arguments:
        constraint: the law, linear or curved, equality or inequality, alone or an intersection.
        u: fields, (B, C, *N), float32 or float64, any device.
        tolerance: largest residual, as a fraction of the law's natural scale, and largest stationarity, as a fraction of the largest
            value of the field; 1e-12 in float64 and 1e-6 in float32 by default.
        max_iterations: Newton steps at most, twice as many on the dual, and for each of the faces that active sets go through.
        metric: the distance: a `Metric`, or the unit of distance of each channel, (C,), or value, (C, *N), which minimises
            $\sum\|(v - u)/s\|^2$; plain by default. Multipliers are physical: $M(u - v) = J^\top\lambda$. Stationarity is that of the
            metric's own coordinates.

    Returns:
        The fields with their certificate. Hard or contradictory laws do not raise: `converged` is False and `broken` names the laws
        that are not met; linear laws that contradict each other, without inequalities beside them, are violated least, in the sum of
        squared distances to each; beside curved laws or inequalities in that of squared residuals over their natural scales, within bounds,
        and never more than by the input moved within them.
        Gradients flow from `result.u` to the input and to the targets of the law by the implicit function theorem, at a memory
        independent of iterations.

    Raises:
        ValueError: the fields are not floating point, have the wrong shape for the law, or hold NaN or Inf.

    Example:
        >>> from constraints import Axis, DivergenceFree, Grid, project
        >>> grid = Grid(Axis("x", 16, periodic=True), Axis("y", 16, periodic=True))
        >>> bool(project(DivergenceFree(grid), torch.randn(4, 2, 16, 16, dtype=torch.float64)).converged.all())
        True
    """
    system = solver_of(constraint)
    _check(system, u)
    if metric is not None:
        chart = as_metric(metric, u.shape[1]).to(u.device)
        inner = u.to(torch.float64)
        moved = project(
            rescaled(constraint, chart), chart.normalise(inner), tolerance=tolerance or TOLERANCE[u.dtype], max_iterations=max_iterations
        )
        return moved._replace(u=chart.physical(moved.u).to(u.dtype))
    tolerance = TOLERANCE[u.dtype] if tolerance is None else tolerance
    if len(u) == 0:
        return _empty(constraint, u, system.names)
    exact = u.to(torch.float64)
    size = _size(exact.detach())
    with torch.no_grad():
        solved = system.solve(exact.detach(), size, tolerance, max_iterations, u.dtype)
    if _differentiable(system, u):
        certified = solved.certificate()
        v = attach(certified.conditions, constraint, exact, solved.u, certified.multiplier)
        return ProjectionResult.of(v.to(u.dtype), solved.iterations, system.names, lambda: _rounded(certified, u.dtype))
    v = solved.u.to(u.dtype)
    return ProjectionResult.of(v, solved.iterations, system.names, _later(solved, u, v))


def _later(solved: Solved, u: Tensor, v: Tensor) -> Callable[[], Certificate]:
    """What evaluates the certificate, as long as neither the input nor the result has been changed in place."""
    if u.is_inference() or v.is_inference():  # nobody counts their changes
        certificate = _rounded(solved.certificate(), u.dtype)
        return lambda: certificate
    counted = [(field, field._version) for field in (u, v)]

    def certify() -> Certificate:
        if any(field._version != version for field, version in counted):
            raise RuntimeError("the certificate of fields that have since been changed in place; read it before, or change a clone.")
        with torch.no_grad():
            return _rounded(solved.certificate(), v.dtype)

    return certify


def _rounded(found: Certified, dtype: torch.dtype) -> Certificate:
    multiplier, violation, stationarity, complementarity = (
        part.to(dtype) for part in (found.multiplier, found.violation, found.stationarity, found.complementarity)
    )
    return Certificate(multiplier, violation, stationarity, found.converged, complementarity, found.obeyed)


def _differentiable(system: Solver, u: Tensor) -> bool:
    """Whether a gradient may be wanted: of the input, of a law's parameters, or, for laws that are functions, of what these hold."""
    if transforming():
        return True
    if not torch.is_grad_enabled():
        return False
    return u.requires_grad or not all(isinstance(leaf, LinearConstraint) and not _learns(leaf) for leaf in system.leaves)


def _learns(law: Constraint) -> bool:
    return any(part.requires_grad for part in (*law.buffers(), *law.parameters()))


def _empty(constraint: Constraint, u: Tensor, names: tuple[str, ...]) -> ProjectionResult:
    """The result for no field at all."""
    rows = sum(leaf.residual(u.new_zeros(1, *u.shape[1:])).shape[1] for leaf in constraint.leaves())
    none, flags = u.new_zeros(0), torch.zeros(0, dtype=torch.bool, device=u.device)
    return ProjectionResult(u, u.new_zeros(0, rows), none, none, flags, 0, none, flags.new_zeros(0, len(names)), names)


def _size(u: Tensor) -> Tensor:
    """The norm of each channel, (B, C), of fields that are finite."""
    size = torch.linalg.vector_norm(u.flatten(2), dim=2)
    if not math.isfinite(float(size.sum())) and not torch.isfinite(u).all():
        raise ValueError(f"project expects finite fields; got {int((~torch.isfinite(u)).sum())} values that are NaN or Inf.")
    return size


def _check(system: Solver, u: Tensor) -> None:
    if u.dtype not in TOLERANCE:
        raise ValueError(f"project expects float32 or float64 fields; got {u.dtype}.")
    if u.ndim < 3:
        raise ValueError(f"project expects a batch of fields, (B, C, *N); got {tuple(u.shape)}.")
    for leaf in system.leaves:
        if len(u) and leaf.samples not in (1, len(u)):
            raise ValueError(
                f"{leaf.name} has targets for {leaf.samples} samples; got {len(u)} fields. Take the law of these: law.take(slice)."
            )
        shape = leaf.field_shape
        if shape is not None and tuple(u.shape[1:]) != tuple(shape):
            wanted = ", ".join(str(n) for n in shape)
            raise ValueError(f"{leaf.name} expects fields of shape (B, {wanted}); got {tuple(u.shape)}.")
