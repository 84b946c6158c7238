r"""Laws that bound: $g(u) \le 0$.

| law | g |
|---|---|
| `Bounds`, `positivity`, `maximum_principle` | $u - h,\ l - u$ at every value |
| `LinearInequality` | $A u - b$ for any sparse matrix |
| `Monotone`, `OneSidedLipschitz` | $\pm(u_{i+1} - u_i) - c_i$ along an axis |
| `EnergyBound`, `EnergyDecay` | $E(t) - E_{\max}$, $E(t_{n+1}) - E(t_n)$ |
| `EntropyBound`, `EntropyDecay` | the same for $\int\eta(u)\,dV$ with any convex $\eta$ |

Multipliers are not negative, and vanish where $g < 0$: complementarity is part of the certificate.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from constraints.conservation import Energy, Integral, Value
from constraints.constraint import Constraint, LinearConstraint, as_target
from constraints.grid import Grid
from constraints.linear.entries import Entries
from constraints.linear.map import LinearMap
from constraints.linear.sparse import SparseMap
from constraints.linear.structured import RowCombination, WeightedSum
from constraints.units import Chart


class Box(Constraint):
    """Bounds of every value, in some coordinates: rows are the upper bounds, then the lower ones."""

    inequality = True

    @property
    def convex(self) -> bool:
        return True

    @abstractmethod
    def box(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Lower and upper bounds of every value, broadcastable to u."""

    def multipliers(self, force: Tensor, v: Tensor) -> Tensor:
        """Multipliers of the rows from the forces that hold values at their bounds, (B, 2 C prod N)."""
        low, high = self.box(v)
        closed = low == high
        above = torch.where(v >= high, torch.where(closed, force.clamp_min(0), force), 0.0)
        below = torch.where((v <= low) & ((v < high) | closed), torch.where(closed, force.clamp_max(0), force), 0.0)
        return torch.cat([above.flatten(1), -below.flatten(1)], dim=1)

    def curvature(self, u: Tensor, multiplier: Tensor, direction: Tensor) -> Tensor:
        return torch.zeros_like(direction)


class Bounds(Box):
    """Every value lies between two others.

    Arguments:
        lower: least values, a number or (C, *N), or (B, C, *N) if samples differ, or broadcastable; None or -inf for none.
        upper: largest values, likewise.
        components: channels it holds for; all by default.

    Raises:
        ValueError: no bound at all, NaN, or a lower bound above the upper one.

    Example:
        >>> from constraints import project
        >>> project(Bounds(0.0, 1.0), torch.tensor([[[-0.5, 0.2, 3.0]]])).u
        tensor([[[0.0000, 0.2000, 1.0000]]])
    """

    unit = "unit of the field"
    lower: Tensor
    upper: Tensor

    def __init__(
        self, lower: float | Tensor | None = None, upper: float | Tensor | None = None, *, components: Sequence[int] | None = None
    ) -> None:
        super().__init__()
        if lower is None and upper is None:
            raise ValueError("Bounds expects a lower or an upper bound; got neither.")
        low = torch.as_tensor(-torch.inf if lower is None else lower, dtype=torch.float64)
        high = torch.as_tensor(torch.inf if upper is None else upper, dtype=torch.float64)
        if torch.isnan(low).any() or torch.isnan(high).any():
            raise ValueError("Bounds expects numbers; got NaN.")
        if bool((low > high).any()):
            raise ValueError("Bounds expects lower bounds that do not exceed the upper ones.")
        self.register_buffer("lower", low)
        self.register_buffer("upper", high)
        self.components = None if components is None else tuple(components)
        self.name = "bounds"

    @property
    def samples(self) -> int:
        return max((len(b) for b in (self.lower, self.upper) if self._batched(b)), default=1)

    def _batched(self, bound: Tensor) -> bool:
        return bound.ndim > 2 and len(bound) > 1 and bound.ndim == max(self.lower.ndim, self.upper.ndim)

    def take(self, index: slice) -> Constraint:
        if self.samples == 1:
            return self
        parts = [b[index] if self._batched(b) else b for b in (self.lower, self.upper)]
        part = type(self)(parts[0], parts[1], components=self.components)
        part.name = self.name
        return part

    def box(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Lower and upper bounds of every value, broadcastable to u."""
        low, high = self.lower.to(u), self.upper.to(u)
        if self.components is not None:
            chosen = torch.zeros(u.shape[1], dtype=torch.bool, device=u.device)
            chosen[list(self.components)] = True
            chosen = chosen.reshape(-1, *(1,) * (u.ndim - 2))
            low, high = torch.where(chosen, low, -torch.inf), torch.where(chosen, high, torch.inf)
        return low, high

    def residual(self, u: Tensor) -> Tensor:
        low, high = self.box(u)
        return torch.cat([(u - high).expand_as(u).flatten(1), (low - u).expand_as(u).flatten(1)], dim=1)

    def jacobian(self, u: Tensor) -> LinearMap:
        return BothSides(tuple(u.shape[1:]))

    def scale(self, u: Tensor) -> Tensor:
        """The largest value or finite bound."""
        bounds = [torch.where(torch.isfinite(b), b, 0.0).abs().amax() for b in (self.lower, self.upper)]
        return torch.maximum(u.abs().flatten(1).amax(1, keepdim=True), torch.maximum(*bounds).to(u))

    def moved(self, chart: Chart) -> Constraint:
        return super().moved(chart) if chart.diagonal(1) is None else MovedBounds(self, chart)


class MovedBounds(Box):
    """Bounds in coordinates that scale and shift each value."""

    def __init__(self, inner: Bounds, chart: Chart) -> None:
        super().__init__()
        self.inner, self.chart = inner, chart
        self.name, self.unit = inner.name, inner.unit

    @property
    def samples(self) -> int:
        return self.inner.samples

    def take(self, index: slice) -> Constraint:
        part = self.inner.take(index)
        assert isinstance(part, Bounds)
        return MovedBounds(part, self.chart)

    def box(self, u: Tensor) -> tuple[Tensor, Tensor]:
        low, high = self.inner.box(self.chart.physical(u))
        return self.chart.normalise(low.expand_as(u)), self.chart.normalise(high.expand_as(u))

    def multipliers(self, force: Tensor, v: Tensor) -> Tensor:
        scale = self.chart.diagonal(v.ndim - 2)
        assert scale is not None
        return super().multipliers(force / scale.to(force), v)

    def residual(self, u: Tensor) -> Tensor:
        return self.inner.residual(self.chart.physical(u))

    def jacobian(self, u: Tensor) -> LinearMap:
        return self.chart.compose(self.inner.jacobian(u))

    def scale(self, u: Tensor) -> Tensor:
        return self.inner.scale(self.chart.physical(u))


class BothSides(LinearMap):
    """Every value, and its negative."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape
        self.rows = 2 * int(torch.Size(shape).numel())

    def forward(self, u: Tensor) -> Tensor:
        return torch.cat([u.flatten(1), -u.flatten(1)], dim=1)

    def adjoint(self, y: Tensor) -> Tensor:
        above, below = y.chunk(2, dim=1)
        return (above - below).reshape(-1, *self.shape)

    def entries(self) -> Entries:
        rows, half = torch.arange(self.rows), self.rows // 2
        return Entries(rows, rows % half, torch.where(rows < half, 1.0, -1.0).to(torch.float64))


def positivity(*, components: Sequence[int] | None = None) -> Bounds:
    """No value is negative: densities, concentrations, heights."""
    law = Bounds(0.0, components=components)
    law.name = "positivity"
    return law


def maximum_principle(initial: Tensor, boundary: Tensor | None = None, *, batched: bool = False, time: bool = True) -> Bounds:
    r"""$\min u_0 \le u \le \max u_0$ for each channel, boundary data included.

    Arguments:
        initial: initial fields, (C, *space), or (B, C, *space) if `batched`.
        boundary: boundary data of the same channels, (C, k) or (B, C, k).
        batched: whether each sample has its own initial fields.
        time: whether the fields have a time axis.

    Raises:
        ValueError: boundary data of another shape.
    """
    if boundary is not None and boundary.ndim not in (2, 3):
        raise ValueError(f"maximum_principle expects boundary data (C, k) or (B, C, k); got {tuple(boundary.shape)}.")
    flat = initial.flatten(2) if batched else initial.flatten(1)[None]
    if boundary is not None:
        other = boundary if boundary.ndim == 3 else boundary[None].expand(len(flat), -1, -1)
        flat = torch.cat([flat.expand(len(other), -1, -1), other], dim=2)
    shape = (len(flat), flat.shape[1], *(1,) * (initial.ndim - (2 if batched else 1) + (1 if time else 0)))
    law = Bounds(flat.amin(2).reshape(shape), flat.amax(2).reshape(shape))
    law.name = "maximum principle"
    return law


class LinearInequality(LinearConstraint):
    """$A u \\le b$ for a sparse matrix.

    Arguments:
        matrix: A, (m, C prod N), scipy sparse or a tensor, on flattened fields.
        bound: b, a number, (m,) or (B, m).
        shape: what one field looks like, (C, *N).
        name: what to call it.
        unit: unit of a row.

    Raises:
        ValueError: the matrix does not fit the shape, or the bound the rows.
    """

    inequality = True

    def __init__(
        self,
        matrix: Any,
        bound: float | Tensor,
        shape: tuple[int, ...],
        *,
        name: str = "linear inequality",
        unit: str = "unit of the field",
    ) -> None:
        operator = SparseMap(matrix, shape)
        super().__init__(operator, as_target(bound, operator.rows, "LinearInequality"))
        self.name, self.unit = name, unit


def _neighbours(grid: Grid, axis: str, channels: int, components: Sequence[int] | None) -> Any:
    """Rows $u_{i+1} - u_i$ along an axis for some channels; around the end on a periodic axis."""
    import scipy.sparse

    line = grid.axis(axis)
    n = line.points
    if n < 2:
        raise ValueError(f"differences along axis '{axis}' expect at least two points; it has {n}.")
    eye = scipy.sparse.eye_array(n, format="csr")
    step = scipy.sparse.eye_array(n, k=1, format="csr") + scipy.sparse.eye_array(n, k=1 - n, format="csr") - eye
    step = step.tocsr() if line.periodic else step.tocsr()[: n - 1]
    chosen = list(range(channels)) if components is None else list(components)
    matrix: Any = scipy.sparse.eye_array(channels, format="csr")[chosen]
    for other in grid.axes:
        matrix = scipy.sparse.kron(matrix, step if other.name == axis else scipy.sparse.eye_array(other.points), format="csr")
    return matrix


class Monotone(LinearInequality):
    """Values do not fall (or do not rise) along an axis.

    Arguments:
        grid: the grid of the fields.
        axis: a bounded axis.
        decreasing: whether they must not rise instead.
        components: channels it holds for; all by default.
        channels: number of channels of the fields.

    Raises:
        ValueError: the axis is periodic.
    """

    def __init__(
        self, grid: Grid, axis: str, *, decreasing: bool = False, components: Sequence[int] | None = None, channels: int = 1
    ) -> None:
        if grid.axis(axis).periodic:
            raise ValueError(f"Monotone expects a bounded axis; '{axis}' is periodic.")
        step = _neighbours(grid, axis, channels, components)
        super().__init__(step if decreasing else -step, 0.0, (channels, *grid.shape))
        self.name = f"{'non-increasing' if decreasing else 'non-decreasing'} along {axis}"


class OneSidedLipschitz(LinearInequality):
    r"""$u_{i+1} - u_i \le L\,(x_{i+1} - x_i)$: Oleinik's entropy condition of convex scalar conservation laws, with $L = 1/t$.

    Arguments:
        grid: the grid of the fields.
        axis: a space axis.
        slope: L, a number; or on grids with time one for each time.
        components: channels it holds for; all by default.
        channels: number of channels of the fields.

    Raises:
        ValueError: slopes that are neither.

    Source:
        Oleinik, Uspekhi Mat. Nauk 12 (1957) 3; Dafermos, Hyperbolic Conservation Laws (2016), section 11.2.
    """

    def __init__(self, grid: Grid, axis: str, slope: float | Tensor, *, components: Sequence[int] | None = None, channels: int = 1) -> None:
        line = grid.axis(axis)
        x = line.positions()
        gaps = torch.diff(torch.cat([x, x[:1] + line.extent])) if line.periodic else torch.diff(x)
        slopes = torch.as_tensor(slope, dtype=torch.float64)
        if slopes.ndim and not (grid.has_time and tuple(slopes.shape) == grid.shape[:1]):
            raise ValueError(f"OneSidedLipschitz expects one slope, or one for each time; got shape {tuple(slopes.shape)}.")
        chosen = channels if components is None else len(components)
        shape = [len(gaps) if other.name == axis else other.points for other in grid.axes]
        bound = gaps.reshape([-1 if other.name == axis else 1 for other in grid.axes])
        if slopes.ndim:
            slopes = slopes.reshape(-1, *(1,) * (len(shape) - 1))
        super().__init__(
            _neighbours(grid, axis, channels, components), (slopes * bound).expand(chosen, *shape).flatten(), (channels, *grid.shape)
        )
        self.name = f"one-sided Lipschitz along {axis}"


class _Capped(Constraint):
    """An integral at every time, bounded by a value, or by its own value at the time before."""

    inequality = True

    def __init__(self, inner: Energy | Integral, decay: bool) -> None:
        super().__init__()
        self.inner, self.decay = inner, decay
        self.shape = inner.shape

    @property
    def samples(self) -> int:
        return self.inner.samples

    @property
    def convex(self) -> bool:
        return not self.decay

    def take(self, index: slice) -> Constraint:
        part = copy.copy(self)
        part._modules = {**self._modules, "inner": self.inner.take(index)}
        return part

    def _steps(self, rows: Tensor) -> Tensor:
        return rows[:, 1:] - rows[:, :-1] if self.decay else rows

    def residual(self, u: Tensor) -> Tensor:
        return self._steps(self.inner.residual(u))

    def scale(self, u: Tensor) -> Tensor:
        scale = self.inner.scale(u)
        return scale[:, 1:] + scale[:, :-1] if self.decay else scale

    def jacobian(self, u: Tensor) -> LinearMap:
        rows = self.inner.jacobian(u)
        if not self.decay:
            return rows
        assert isinstance(rows, WeightedSum)
        times = rows.rows
        steps = torch.eye(times, dtype=u.dtype, device=u.device)[1:] - torch.eye(times, dtype=u.dtype, device=u.device)[:-1]
        return RowCombination(steps, rows)

    def curvature(self, u: Tensor, multiplier: Tensor, direction: Tensor) -> Tensor:
        if self.decay:
            zero = multiplier.new_zeros(len(multiplier), 1)
            multiplier = torch.cat([zero, multiplier], dim=1) - torch.cat([multiplier, zero], dim=1)
        return self.inner.curvature(u, multiplier, direction)


class EnergyBound(_Capped):
    """Kinetic energy does not exceed a value; arguments and errors as `Energy`, the value not left out."""

    def __init__(
        self, grid: Grid, value: Value, *, components: Sequence[int] | None = None, channels: int | None = None, mean: bool = False
    ) -> None:
        if value is None:
            raise ValueError("EnergyBound expects a value.")
        super().__init__(Energy(grid, value, components=components, channels=channels, mean=mean), decay=False)
        self.name, self.unit = "energy bound", self.inner.unit


class EnergyDecay(_Capped):
    """Kinetic energy does not rise from one stored time to the next; arguments as `Energy`.

    The set is not convex: the certificate is that of a stationary point.

    Raises:
        ValueError: fewer than two times.
    """

    def __init__(self, grid: Grid, *, components: Sequence[int] | None = None, channels: int | None = None, mean: bool = False) -> None:
        if not grid.has_time or grid.axes[0].points < 2:
            raise ValueError("EnergyDecay expects a grid with at least two times.")
        super().__init__(Energy(grid, 0.0, components=components, channels=channels, mean=mean), decay=True)
        self.name, self.unit = "energy decay", self.inner.unit


class EntropyBound(_Capped):
    r"""$\int\eta(u)\,dV \le H$ at every time for a convex $\eta$ of all channels at a point.

    Arguments:
        grid: the grid of the fields.
        density: $\eta$, (B, C, *N) to (B, *N).
        value: H, as for `Mass`.
        channels: number of channels of the fields.

    Raises:
        ValueError: a value of the wrong shape.
    """

    def __init__(
        self, grid: Grid, density: Callable[[Tensor], Tensor], value: float | Sequence[float] | Tensor, *, channels: int = 1
    ) -> None:
        super().__init__(Integral(grid, density, value, channels=channels, name="entropy"), decay=False)
        self.name, self.unit = "entropy bound", self.inner.unit


class EntropyDecay(_Capped):
    r"""$\int\eta(u)\,dV$ does not rise from one stored time to the next: the entropy condition in its integral form.

    Arguments and errors as `EntropyBound`, without a value. The set is not convex: the certificate is that of a stationary point.
    """

    def __init__(self, grid: Grid, density: Callable[[Tensor], Tensor], *, channels: int = 1) -> None:
        if not grid.has_time or grid.axes[0].points < 2:
            raise ValueError("EntropyDecay expects a grid with at least two times.")
        super().__init__(Integral(grid, density, 0.0, channels=channels, name="entropy"), decay=True)
        self.name, self.unit = "entropy decay", self.inner.unit
