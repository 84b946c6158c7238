r"""Laws as sets of fields, $\{u : h(u) = 0\}$ or $\{u : g(u) \le 0\}$.

A law says what must vanish, or not be positive, how that changes, and how large the terms are that cancel. A linear one, $h(u) = Au - b$,
has an operator that knows its own structure; a curved one has a Jacobian at each field and a curvature. Laws hold together by
`Intersection`.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn

from constraints.linear.derivative import hessian_product
from constraints.linear.explicit import LARGEST, Colouring, ExplicitRows, colouring
from constraints.linear.map import Linearised, LinearMap, Noisy
from constraints.linear.stacked import Stacked
from constraints.steps import ExplicitSteps
from constraints.units import Chart

if TYPE_CHECKING:
    from constraints.view import Sight


class Affine(Protocol):
    """An affine set: 1 where a value is free, (C, *N), None where all are; and whether each index of a dimension has a set of its own."""

    free: Tensor | None

    def acts_on_each(self, dim: int) -> bool: ...


class Constraint(nn.Module, ABC):
    """A law on fields (B, C, *N).

    Attributes:
        name: what the law is called, with what distinguishes it (scheme, channels).
        unit: unit of its residual, in words of the fields and axes.
        inequality: whether residuals may be negative.
    """

    name: str = "constraint"
    unit: str = "1"
    inequality: bool = False

    @abstractmethod
    def residual(self, u: Tensor) -> Tensor:
        """What must vanish: (B, C, *N) to (B, m)."""

    def jacobian(self, u: Tensor) -> LinearMap:
        """The derivative of the residual at u; automatic unless the law knows better."""
        return Linearised(self.residual, u)

    def scale(self, u: Tensor) -> Tensor:
        """Natural magnitude of the residual, (B, m) or (B, 1): that of the terms that cancel where the law holds.

        Tolerances are fractions of it.
        """
        return u.new_ones(u.shape[0], 1)

    def measure(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Residual and scale, for laws that get both from one evaluation."""
        return self.residual(u), self.scale(u)

    def equated(self, u: Tensor) -> Tensor | None:
        """Largest size, (B, 1), of what differences of the field are to equal; None for laws that have no such side.

        Differences are of much smaller size than the terms they are taken of: whether they equal something is asked beside that.
        """
        return None

    @property
    def field_shape(self) -> tuple[int, ...] | None:
        """What one field looks like, (C, *N), if the law knows."""
        shape = getattr(self, "shape", None)
        return None if shape is None else tuple(shape)

    @property
    def convex(self) -> bool:
        """Whether a mean of lawful fields is lawful."""
        return False

    @property
    def variance(self) -> Tensor | None:
        """Variance of the noise that the law is observed with, (m,); None for an exact law."""
        return None

    def linearise(self, u: Tensor) -> tuple[Tensor, LinearMap]:
        """Residual and Jacobian, for laws that get both from one evaluation."""
        return self.residual(u), self.jacobian(u)

    def excess(self, residual: Tensor) -> Tensor:
        """By how much residuals break the law: their size, or what is positive of them for an inequality."""
        return residual.clamp_min(0) if self.inequality else residual.abs()

    def curvature(self, u: Tensor, multiplier: Tensor, direction: Tensor) -> Tensor:
        r"""$\sum_i \lambda_i \nabla^2 h_i(u)\,z$, (B, C, *N); automatic unless the law knows better."""
        return hessian_product(self.residual, u, multiplier, direction)

    def retract(self, u: Tensor, centre: Tensor) -> Tensor:
        r"""A guess of the nearest lawful field on the ray from `centre` through u; u itself unless the law has a closed form.

        The centre is the point nearest to `focus` of the affine set in which u is the nearest to the input. The guess is the starting
        point of an iteration, which is not needed where the law says of the set that the guess is `exact`.
        """
        return u

    def focus(self, like: Tensor) -> Tensor:
        """Where the rays of a closed form come from, one field, (1, C, *N): the origin."""
        return torch.zeros_like(like[:1])

    def exact(self, affine: Affine) -> bool:
        """Whether `retract` finds the nearest field in an affine set, wherever what it finds is lawful."""
        return False

    def explicit_steps(self) -> ExplicitSteps | None:
        """The law as steps from each time to the next, if it is that."""
        return None

    def sight(self, chart: Chart | None = None) -> Sight | None:
        """What the law sees, if that is little; of fields in other coordinates if a chart is given."""
        return None

    def leaves(self) -> list[Constraint]:
        """The laws this one is made of, in the order of its rows."""
        return [self]

    def moved(self, chart: Chart) -> Constraint:
        """This law in other coordinates; use `rescaled`."""
        return _Rescaled(self, chart)

    @property
    def samples(self) -> int:
        """Number of samples the law has targets for, 1 if one for all."""
        target = self._buffers.get("target")
        return 1 if target is None or target.ndim != 2 else len(target)

    def take(self, index: slice) -> Constraint:
        """The law of some samples of a batch: per-sample targets (B, m) are cut, all else is shared."""
        target = self._buffers.get("target")
        if target is None or self.samples == 1:
            return self
        part = copy.copy(self)
        part._buffers = {**self._buffers, "target": target[index]}
        forget(part)
        return part


class LinearConstraint(Constraint):
    r"""A law $A u = b$, or one observed with noise, $A u = b + e$ with $e \sim N(0, R)$.

    Under noise a projection gives the posterior mean, the field that minimises $\|v - u\|^2 + \|A v - b\|^2_{R^{-1}}$, and what must vanish
    is not the misfit $A v - b$ but its difference from $R\lambda$. The limit of no noise is the exact law.

    Attributes:
        operator: $A$.
        target: $b$, (m,) or (B, m), one for all samples or one for each.
    """

    operator: LinearMap
    target: Tensor

    def __init__(self, operator: LinearMap, target: Tensor, variance: float | Tensor | None = None) -> None:
        super().__init__()
        self.operator = operator if variance is None else Noisy(operator, _variance(variance, operator.rows))
        self.register_buffer("target", target)

    def moved(self, chart: Chart) -> Constraint:
        return _RescaledLinear(self, chart)

    def residual(self, u: Tensor) -> Tensor:
        return self.operator(u) - self.target.to(u)

    def jacobian(self, u: Tensor) -> LinearMap:
        return self.operator

    @property
    def field_shape(self) -> tuple[int, ...]:
        return self.operator.shape

    @property
    def convex(self) -> bool:
        return self.variance is None

    @property
    def variance(self) -> Tensor | None:
        return self.operator.variance

    def scale(self, u: Tensor) -> Tensor:
        return self.measure(u)[1]

    def curvature(self, u: Tensor, multiplier: Tensor, direction: Tensor) -> Tensor:
        return torch.zeros_like(direction)

    def measure(self, u: Tensor) -> tuple[Tensor, Tensor]:
        rows, magnitude = self.operator.measure(u)
        target = self.target.to(u)
        return rows - target, torch.maximum(magnitude, target.abs().expand(u.shape[0], -1).amax(1, keepdim=True))


class FunctionConstraint(Constraint):
    """Any differentiable residual as a law.

    Arguments:
        residual: (B, C, *N) to (B, m), each row of a sample a function of that sample alone.
        scale: natural magnitude of the residual, that of the terms that cancel in it, by which tolerances are measured. A sum of squares
            that should be 1000 has scale 1000; with 1 it would be held to a round-off that its terms do not have.
        name: what to call it.
        unit: unit of the residual.

    Example:
        >>> law = FunctionConstraint(lambda u: u.square().flatten(1).sum(1, keepdim=True) - 1)
        >>> from constraints import project
        >>> project(law, torch.tensor([[[3.0, 4.0]]])).u
        tensor([[[0.6000, 0.8000]]])
    """

    def __init__(self, residual: Callable[[Tensor], Tensor], *, scale: float = 1.0, name: str = "function", unit: str = "1") -> None:
        super().__init__()
        if not scale > 0:
            raise ValueError(f"FunctionConstraint expects a positive scale; got {scale}.")
        self._residual, self._scale = residual, scale
        self.name, self.unit = name, unit
        self._colours: dict[tuple[int, ...], Colouring] = {}

    def residual(self, u: Tensor) -> Tensor:
        value = self._residual(u)
        if value.ndim != 2 or value.shape[0] != u.shape[0]:
            raise ValueError(
                f"FunctionConstraint expects a residual of shape (B, m) with B = {u.shape[0]}; the function gave {tuple(value.shape)}. "
                "Flatten it: h.flatten(1)."
            )
        return value

    def jacobian(self, u: Tensor) -> LinearMap:
        """Written out where that is affordable, rows without a value in common at once; else automatic."""
        shape = tuple(u.shape[1:])
        if shape not in self._colours:
            rows = self.residual(u[:1]).shape[1]
            if rows * math.prod(shape) > LARGEST:
                return Linearised(self.residual, u)
            self._colours[shape] = colouring(self._one, u[:1].detach())
        colours = self._colours[shape]
        if len(u) * len(colours.owner) * math.prod(shape) > LARGEST:
            return Linearised(self.residual, u)
        return ExplicitRows(self.residual, u, colours)

    def _one(self, u: Tensor) -> Tensor:
        return self.residual(u)

    def scale(self, u: Tensor) -> Tensor:
        return u.new_full((u.shape[0], 1), self._scale)


class Intersection(Constraint):
    """Several laws at once.

    They are projected on jointly: projecting in turn, the second would break the first. Laws may repeat each other in part.

    Arguments:
        constraints: the laws; at least one.
    """

    def __init__(self, *constraints: Constraint) -> None:
        super().__init__()
        if not constraints:
            raise ValueError("Intersection expects at least one law.")
        self.constraints = nn.ModuleList(constraints)
        self.name = " + ".join(constraint.name for constraint in constraints)

    def take(self, index: slice) -> Constraint:
        return Intersection(*(leaf.take(index) for leaf in self.leaves()))

    def leaves(self) -> list[Constraint]:
        return [leaf for constraint in self.constraints if isinstance(constraint, Constraint) for leaf in constraint.leaves()]

    def residual(self, u: Tensor) -> Tensor:
        return torch.cat([leaf.residual(u) for leaf in self.leaves()], dim=1)

    def jacobian(self, u: Tensor) -> LinearMap:
        return Stacked([leaf.jacobian(u) for leaf in self.leaves()])

    def linearise(self, u: Tensor) -> tuple[Tensor, LinearMap]:
        parts = [leaf.linearise(u) for leaf in self.leaves()]
        return torch.cat([residual for residual, _ in parts], dim=1), Stacked([jacobian for _, jacobian in parts])

    def scale(self, u: Tensor) -> Tensor:
        return torch.cat([scaled(leaf, u) for leaf in self.leaves()], dim=1)

    def measure(self, u: Tensor) -> tuple[Tensor, Tensor]:
        parts = [leaf.measure(u) for leaf in self.leaves()]
        return torch.cat([rows for rows, _ in parts], dim=1), torch.cat([scale.expand_as(rows) for rows, scale in parts], dim=1)

    def curvature(self, u: Tensor, multiplier: Tensor, direction: Tensor) -> Tensor:
        leaves = self.leaves()
        parts = multiplier.split([leaf.residual(u).shape[1] for leaf in leaves], dim=1)
        return torch.stack([leaf.curvature(u, rows, direction) for leaf, rows in zip(leaves, parts, strict=True)]).sum(0)


def forget(law: Constraint) -> None:
    """Drop what has been prepared for a law whose copy this is."""
    for key in ("_projection_system", "_projection_solver"):
        law.__dict__.pop(key, None)


def scaled(leaf: Constraint, u: Tensor) -> Tensor:
    """A law's scale with one entry a row, (B, m)."""
    scale = leaf.scale(u)
    return scale if scale.shape[1] > 1 else scale.expand(u.shape[0], leaf.residual(u).shape[1])


def rescaled(constraint: Constraint, chart: Chart) -> Constraint:
    """A physical law in other coordinates: it holds for x where `constraint` holds for `chart.physical(x)`.

    The only bridge between the two. Linear laws stay linear and keep what structure they can; residuals, scales and multipliers stay
    physical. Targets are taken as they are now.

    Arguments:
        constraint: the law of physical fields.
        chart: the map between physical fields and coordinates: `Units`, or a `Metric`.
    """
    leaves = [leaf.moved(chart) for leaf in constraint.leaves()]
    return leaves[0] if len(leaves) == 1 else Intersection(*leaves)


class _Rescaled(Constraint):
    """A curved law in other coordinates."""

    def __init__(self, constraint: Constraint, chart: Chart) -> None:
        super().__init__()
        self.inner, self.chart = constraint, chart
        self.name, self.unit, self.inequality = constraint.name, constraint.unit, constraint.inequality

    @property
    def samples(self) -> int:
        return self.inner.samples

    @property
    def field_shape(self) -> tuple[int, ...] | None:
        return self.inner.field_shape

    @property
    def convex(self) -> bool:
        return self.inner.convex

    def take(self, index: slice) -> Constraint:
        return _Rescaled(self.inner.take(index), self.chart)

    def residual(self, u: Tensor) -> Tensor:
        return self.inner.residual(self.chart.physical(u))

    def jacobian(self, u: Tensor) -> LinearMap:
        return self.chart.compose(self.inner.jacobian(self.chart.physical(u)))

    def scale(self, u: Tensor) -> Tensor:
        return self.inner.scale(self.chart.physical(u))

    def curvature(self, u: Tensor, multiplier: Tensor, direction: Tensor) -> Tensor:
        return self.chart.pull(self.inner.curvature(self.chart.physical(u), multiplier, self.chart.push(direction)))

    def retract(self, u: Tensor, centre: Tensor) -> Tensor:
        return self.chart.normalise(self.inner.retract(self.chart.physical(u), self.chart.physical(centre)))

    def focus(self, like: Tensor) -> Tensor:
        return self.chart.normalise(self.inner.focus(like))

    def explicit_steps(self) -> ExplicitSteps | None:
        """Where each value has a scale of its own."""
        steps, shape = self.inner.explicit_steps(), self.inner.field_shape
        if steps is None or steps.chart is not None or shape is None or self.chart.diagonal(len(shape) - 1) is None:
            return None
        return ExplicitSteps(steps.law, self.chart)

    def sight(self, chart: Chart | None = None) -> Sight | None:
        """Where each channel has one scale."""
        shape = self.inner.field_shape
        scale = None if shape is None or chart is not None else self.chart.diagonal(len(shape) - 1)
        return None if scale is None or shape is None or scale.numel() > shape[0] else self.inner.sight(self.chart)

    def exact(self, affine: Affine) -> bool:
        """Where one scale for all channels keeps right angles."""
        shape = self.inner.field_shape
        scale = None if shape is None else self.chart.diagonal(len(shape) - 1)
        return scale is not None and bool((scale == scale.flatten()[0]).all()) and self.inner.exact(affine)


class _RescaledLinear(LinearConstraint):
    """A linear law in other coordinates: A (a + L x) = b becomes (A L) x = b - A a."""

    def __init__(self, constraint: LinearConstraint, chart: Chart) -> None:
        offset = constraint.operator(chart.physical(torch.zeros(1, *constraint.operator.shape, dtype=torch.float64)))
        target = constraint.target.to(torch.float64) - (offset[0] if constraint.target.ndim == 1 else offset)
        super().__init__(chart.compose(constraint.operator), target)
        self.inner, self.chart = constraint, chart
        self.name, self.unit, self.inequality = constraint.name, constraint.unit, constraint.inequality

    def take(self, index: slice) -> Constraint:
        part = self.inner.take(index)
        assert isinstance(part, LinearConstraint)
        return _RescaledLinear(part, self.chart)

    def measure(self, u: Tensor) -> tuple[Tensor, Tensor]:
        return self.inner.measure(self.chart.physical(u))


def _variance(variance: float | Tensor, rows: int) -> Tensor:
    """The variance of each row."""
    values = torch.as_tensor(variance, dtype=torch.float64)
    if values.ndim > 1 or values.numel() not in (1, rows) or not (torch.isfinite(values).all() and (values >= 0).all()):
        raise ValueError(f"a variance is expected to be a number or ({rows},), finite and not negative; got {tuple(values.shape)}.")
    return values.detach().expand(rows).clone()


def as_target(value: float | Sequence[float] | Tensor, rows: int, speaker: str) -> Tensor:
    """A target (m,) or (B, m) from what a user may give for a law of m rows.

    A number is the target of every row; (m,) one for each row; (B, 1) and (B, m) one for each sample; and (B,) one for each sample of a
    law of one row.

    Raises:
        ValueError: no such shape, or values that are not finite.
    """
    target = torch.as_tensor(value, dtype=torch.float64) if not isinstance(value, Tensor) else value.to(torch.float64)
    if not torch.isfinite(target).all():
        raise ValueError(f"{speaker} expects finite values; got NaN or Inf.")
    if target.ndim == 0:
        return target.expand(rows).clone() if not target.requires_grad else target.expand(rows)
    if target.ndim == 1 and rows == 1:
        return target[:, None]
    if target.ndim == 1 and target.shape[0] == rows:
        return target
    if target.ndim == 2 and target.shape[1] in (1, rows):
        return target.expand(-1, rows)
    raise ValueError(
        f"{speaker} has {rows} row{'s' if rows > 1 else ''} and expects a number, ({rows},) or one for each sample, (B, {rows}); "
        f"got shape {tuple(target.shape)}."
    )
