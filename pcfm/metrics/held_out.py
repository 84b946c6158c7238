r"""Laws measured by another discretisation than the one that was enforced.

To check a projection with the operator it projected on is circular: zero by construction, whatever the field is worth. A field that
obeys the law, and not its discretisation, obeys any consistent one up to truncation error. So each law is given a version held out:

| law | held out |
|---|---|
| divergence, curl | other schemes: spectral, central of order 2 or 4, the flux through the faces of each cell between points |
| divergence of staggered components | compact differences of order 4 |
| integrals (mass, momentum, energy, any functional; balances) | Simpson's rule, or cubics through four points, for the trapezoid |
| steps of an equation, balances in time | Crank-Nicolson; Milne-Simpson where the law is Crank-Nicolson |
| normal derivatives | one-sided differences of order 4 |
| values at points, bounds | none: nothing was discretised |

The reference has a value by the same operator, its own truncation error: what is near it has nothing to hide.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from constraints import (
    Axis,
    Bounds,
    Budget,
    Constraint,
    CurlFree,
    Dirichlet,
    DivergenceFree,
    Energy,
    EvolutionEquation,
    FinalCondition,
    Grid,
    InitialCondition,
    Integral,
    LinearConstraint,
    LinearRelation,
    Mass,
    Momentum,
    Neumann,
    PeriodicSeam,
    PointValues,
    Relation,
    Robin,
    Snapshot,
)
from constraints.calculus import CentralDifference, Scheme, Spectral
from constraints.calculus.finite_difference import one_sided
from constraints.constraint import forget
from constraints.linear import RowSelection, WeightedSum

_SAME = 1e-9
"""Difference of two residuals over their scale below which operators are one and the same."""


class HeldOut(NamedTuple):
    """A law and its version held out.

    Attributes:
        law: name of the law.
        name: name of the version; empty if there is none.
        operator: the version, or None.
        reason: why it is another one, or why there is none.
    """

    law: str
    name: str
    operator: Constraint | None
    reason: str


def held_out(constraint: Constraint, grid: Grid, *, velocity: Sequence[int] | None = None) -> list[HeldOut]:
    """Versions of laws by other discretisations, at least one row for each law.

    What turns out to be the law itself, on random fields, is left out: central differences of order 2 and finite volumes, say, are often
    one operator under two names.

    Arguments:
        constraint: the laws.
        grid: grid of their fields.
        velocity: channels of the velocity, for divergence and curl; the first d by default.

    Example:
        >>> box = Grid(Axis("x", 8, periodic=True), Axis("y", 8, periodic=True))
        >>> [row.name for row in held_out(DivergenceFree(box, "spectral"), box)]
        ['divergence (central, order 2)', 'divergence (central, order 4)', 'divergence (cell faces)']
    """
    rows = []
    for law in constraint.leaves():
        found = [row for row in _versions(law, grid, velocity) if row.operator is None or not _same(law, row.operator, grid)]
        rows += found or [HeldOut(law.name, "", None, "all versions known are the law's own operator")]
    return rows


def _versions(law: Constraint, grid: Grid, velocity: Sequence[int] | None) -> list[HeldOut]:
    if isinstance(law, DivergenceFree | CurlFree):
        return _vector_laws(law, grid, velocity)
    if isinstance(law, EvolutionEquation):
        return [_stepped(law, grid)]
    if isinstance(law, Budget):
        crank = [_crank_nicolson(law)] if law.theta != 0.5 else []
        return [*crank, _requadrature(law, grid)]
    if isinstance(law, Mass | Momentum | Energy | Integral) or isinstance(getattr(law, "inner", None), Energy | Integral):
        return [_requadrature(law, grid)]
    if isinstance(law, Neumann | Robin):
        return [_higher_derivative(law, grid)]
    if isinstance(
        law, Snapshot | InitialCondition | FinalCondition | Dirichlet | PeriodicSeam | PointValues | Bounds | Relation | LinearRelation
    ):
        return [HeldOut(law.name, "", None, "values at points: nothing was discretised; see the residual of the equation instead")]
    return [HeldOut(law.name, "", None, "no rule for this kind of law: measure the same law built with another discretisation")]


def _same(law: Constraint, other: Constraint, grid: Grid) -> bool:
    """Whether two operators agree on random fields."""
    shape = law.field_shape or (1, *grid.shape)
    count = max(law.samples, other.samples)
    probe = 1 + torch.rand(count, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ours, theirs = law.residual(probe), other.residual(probe)
    return ours.shape == theirs.shape and bool(((ours - theirs).abs() <= _SAME * law.scale(probe)).all())


# --- derivatives in space -------------------------------------------------------------------------------------------------------


class _SumOfTerms(Constraint):
    """Terms that cancel, less a target; the scale is that of the terms."""

    def __init__(self, terms: Callable[[Tensor], list[Tensor]], name: str, unit: str, shape: tuple[int, ...], target: Tensor) -> None:
        super().__init__()
        self.terms, self.name, self.unit, self.shape = terms, name, unit, shape
        self.register_buffer("target", target)

    target: Tensor

    def residual(self, u: Tensor) -> Tensor:
        return torch.stack(self.terms(u)).sum(0).flatten(1) - self.target.to(u)

    def scale(self, u: Tensor) -> Tensor:
        return torch.stack(self.terms(u)).abs().sum(0).flatten(1).amax(1, keepdim=True) + self.target.to(u).abs().amax()


def _vector_laws(law: DivergenceFree | CurlFree, grid: Grid, velocity: Sequence[int] | None) -> list[HeldOut]:
    axes, kind = grid.space_axes, "divergence" if isinstance(law, DivergenceFree) else "curl"
    taken = list(range(len(axes))) if velocity is None else list(velocity)
    channels, signs = (taken, (1.0,) * len(axes)) if kind == "divergence" else ((taken[1], taken[0]), (1.0, -1.0))
    own: Scheme = law.scheme
    target = law.target

    def version(name: str, derivative: Callable[[Tensor, Axis], Tensor], reason: str) -> HeldOut:
        def terms(u: Tensor) -> list[Tensor]:
            return [s * derivative(u[:, c], axis) for s, c, axis in zip(signs, channels, axes, strict=True)]

        operator = _SumOfTerms(terms, f"{kind} ({name})", law.unit, law.field_shape, target)
        return HeldOut(law.name, operator.name, operator, reason)

    if not own.centred:
        if not all(axis.uniform and axis.points >= 4 for axis in axes):
            return [HeldOut(law.name, "", None, "wider staggered differences expect at least four equally spaced points an axis")]
        return [version("staggered, order 4", lambda u, axis: _compact(u, grid, axis), "wider differences between the same faces")]
    found = []
    if all(axis.periodic and axis.uniform for axis in axes):
        found.append(version("spectral", lambda u, axis: Spectral().derivative(u, grid, axis.name), "Fourier differentiation"))
    for order in (2, 4):
        if all(axis.points > order for axis in axes):
            scheme = CentralDifference(order)
            derivative = _along(scheme, grid)
            found.append(version(f"central, order {order}", derivative, f"differences over {order + 1} points"))
    if not bool(target.any()) and all(axis.points >= 2 for axis in axes):
        reason = "net flux through the faces of each cell between neighbouring points: finite volumes"
        faces = version("cell faces", lambda u, axis: _through_faces(u, grid, axis), reason)
        assert faces.operator is not None
        faces.operator.register_buffer("target", torch.zeros(1, dtype=torch.float64))  # rows are cells, not points
        found.append(faces)
    return found


def _along(scheme: Scheme, grid: Grid) -> Callable[[Tensor, Axis], Tensor]:
    return lambda u, axis: scheme.derivative(u, grid, axis.name)


def _through_faces(u: Tensor, grid: Grid, along: Axis) -> Tensor:
    """The difference across the cells between points, of the mean over their two faces."""
    for axis in grid.space_axes:
        dim = grid.dim(axis.name)
        if axis.periodic:
            before, behind = u, u.roll(-1, dim)
        else:
            before, behind = u.narrow(dim, 0, axis.points - 1), u.narrow(dim, 1, axis.points - 1)
        if axis.name == along.name:
            x = axis.positions()
            gaps = torch.diff(torch.cat([x, x[:1] + axis.extent]) if axis.periodic else x)
            u = (behind - before) / grid.along(axis.name, gaps).to(u)
        else:
            u = (before + behind) / 2
    return u


def _compact(u: Tensor, grid: Grid, axis: Axis) -> Tensor:
    r"""$(27(u_{i+1} - u_i) - (u_{i+2} - u_{i-1}))/24h$ at the middle between i and i + 1; of order 2 in the outer cells of a bounded axis.

    As `Staggered`, entries behind the last cell are zero.
    """
    dim = grid.dim(axis.name)
    near = u.roll(-1, dim) - u
    wide = (27 * near - (u.roll(-2, dim) - u.roll(1, dim))) / 24
    if not axis.periodic:
        cell = grid.along(axis.name, torch.arange(axis.points)).to(u.device)
        wide = torch.where((cell == 0) | (cell == axis.points - 2), near, torch.where(cell == axis.points - 1, 0.0, wide))
    return wide / axis.spacing


def _higher_derivative(law: Neumann | Robin, grid: Grid) -> HeldOut:
    """The same mixture with one-sided differences of order 4, read from the weights of the law's own line."""
    operator = law.operator
    sums = operator.inner if isinstance(operator, RowSelection) else operator
    assert isinstance(sums, WeightedSum)
    (dim,) = sums.dims
    axis = grid.axes[dim]
    line = sums.weights.movedim(dim, -1).flatten(0, -2)[0]
    side = "lower" if bool(line[: axis.points // 2].any()) else "upper"
    if axis.points < 6:
        return HeldOut(law.name, "", None, f"differences of order 4 expect at least six points; {axis.name} has {axis.points}")
    end, sign = (0, -1) if side == "lower" else (-1, 1)
    second = sign * one_sided(axis, side, 2)
    b = float(line[1 if side == "lower" else -2] / second[1 if side == "lower" else -2])
    a = float(line[end] - b * second[end])
    wide = b * sign * one_sided(axis, side, 4)
    wide[end] += a
    weights = grid.along(axis.name, wide).expand(sums.shape).clone()
    wider = WeightedSum(weights, sums.dims)
    version = LinearConstraint(RowSelection(operator.index, wider) if isinstance(operator, RowSelection) else wider, law.target)
    version.name, version.unit = f"{law.name} (order 4)", law.unit
    return HeldOut(law.name, version.name, version, "one-sided differences over five points")


# --- integrals in space ---------------------------------------------------------------------------------------------------------


def other_weights(axis: Axis) -> tuple[Tensor, str] | None:
    r"""Quadrature weights of an axis by another rule, (n,), and its name; None where there is none.

    * periodic, equally spaced, an even number of points: $\frac23h, \frac43h$ in turn (Simpson), which sees the Nyquist mode; with an odd
      number any rule that knows no origin has equal weights;
    * bounded, equally spaced nodes, an odd number: Simpson's rule;
    * else the integral of the cubics through the four points nearest to each interval, or cell, exact for cubics.

    Example:
        >>> other_weights(Axis("x", 5, length=4.0))[0].tolist()
        [0.3333333333333333, 1.3333333333333333, 0.6666666666666666, 1.3333333333333333, 0.3333333333333333]
    """
    n = axis.points
    if n < 4 or (axis.periodic and axis.uniform and n % 2):
        return None
    if axis.uniform and (axis.periodic or (not axis.cells and n % 2)):
        weights = torch.full((n,), 2 / 3, dtype=torch.float64)
        weights[1::2] = 4 / 3
        if not axis.periodic:
            weights[0] = weights[-1] = 1 / 3
        return weights * axis.spacing, "Simpson"
    x, sums = axis.positions().numpy(), np.zeros(n)
    if axis.cells:
        edges = np.append(x - axis.spacing / 2, x[-1] + axis.spacing / 2)
    else:
        edges = np.append(x, x[0] + axis.extent) if axis.periodic else x
    for i in range(len(edges) - 1):
        first = i - 1 if not axis.cells else (i - 2 if i > n / 2 else i - 1)
        if not axis.periodic:
            first = min(max(first, 0), n - 4)
        turns, index = np.divmod(first + np.arange(4), n)
        middle, half = (edges[i] + edges[i + 1]) / 2, (edges[i + 1] - edges[i]) / 2
        z = (x[index] + turns * axis.extent - middle) / half
        sums[index] += half * np.linalg.solve(np.vander(z, 4, increasing=True).T, [2.0, 0.0, 2 / 3, 0.0])
    return torch.from_numpy(sums), "cubics"


def _requadrature(law: Constraint, grid: Grid) -> HeldOut:
    """The same integrals by another rule: densities weighted by the ratio of both rules' weights."""
    ratio, rules = torch.ones(grid.shape, dtype=torch.float64), []
    for axis in grid.space_axes:
        found = other_weights(axis)
        if found is not None:
            ratio = ratio * grid.along(axis.name, found[0] / axis.weights())
            rules.append(f"{found[1]} along {axis.name}")
    if not rules:
        return HeldOut(law.name, "", None, "equal weights are the only rule on periodic axes with an odd number of points")
    if isinstance(law, LinearConstraint):
        version: Constraint = LinearConstraint(law.operator.weighted(ratio.expand(law.operator.shape)), law.target)
    else:
        inner = getattr(law, "inner", None)
        version = _with(law, _modules={"inner": _reweighted(inner, ratio)}) if isinstance(inner, Constraint) else _reweighted(law, ratio)
    version.name, version.unit = f"{law.name} ({', '.join(rules)})", law.unit
    return HeldOut(law.name, version.name, version, "another quadrature rule" + _caveat(grid))


def _reweighted(law: Constraint, ratio: Tensor) -> Constraint:
    weights = law._buffers["weights"]
    assert weights is not None
    return _with(law, _buffers={"weights": weights * ratio})


def _with(law: Constraint, **changed: dict[str, Any]) -> Constraint:
    """A copy of a law with other buffers or modules, without what a projection remembers of it."""
    version = copy.copy(law)
    for name, values in changed.items():
        version.__dict__[name] = {**version.__dict__[name], **values}
    forget(version)
    return version


def _caveat(grid: Grid) -> str:
    return "; cell means, unlike point values, have no other integral than their sum" if any(a.cells for a in grid.space_axes) else ""


# --- steps in time --------------------------------------------------------------------------------------------------------------


def _crank_nicolson(law: Budget | EvolutionEquation) -> HeldOut:
    version = _with(law)
    version.theta, version.name = 0.5, f"{law.name} (Crank-Nicolson)"  # type: ignore[assignment]
    return HeldOut(law.name, version.name, version, f"the trapezoid in time, where the law has theta = {law.theta:g}")


def _stepped(law: EvolutionEquation, grid: Grid) -> HeldOut:
    if law.theta != 0.5:
        return _crank_nicolson(law)
    if law.steps < 2 or not grid.axes[0].uniform:
        return HeldOut(law.name, "", None, "Milne-Simpson steps expect at least two steps of one size")
    return HeldOut(law.name, f"{law.name} (Milne-Simpson)", _Milne(law), "Simpson's rule over two steps")


class _Milne(Constraint):
    r"""$u_{n+1} - u_{n-1} = \frac{\Delta t}3(f_{n-1} + 4f_n + f_{n+1})$ at the points a law of steps holds at."""

    def __init__(self, law: EvolutionEquation) -> None:
        super().__init__()
        self.law, self.shape = law, law.shape
        self.name, self.unit = f"{law.name} (Milne-Simpson)", law.unit

    def residual(self, u: Tensor) -> Tensor:
        u = u[:, :, : self.law.steps + 1]
        f = self.law.rate(u)
        moved = self.law.gaps[0].to(u) / 3 * (f[:, :, :-2] + 4 * f[:, :, 1:-1] + f[:, :, 2:])
        return (u[:, :, 2:] - u[:, :, :-2] - moved).flatten(3)[..., self.law.points].flatten(1)

    def scale(self, u: Tensor) -> Tensor:
        return self.law.scale(u)
