r"""Evolution equations as laws: the fields at each time follow from those before.

$$u_{n+1} - u_n = \Delta t\,\big((1-\theta)\,f(u_n) + \theta\,f(u_{n+1})\big)$$

for a right-hand side f that is handed in; the law names no equation. With f from numerical fluxes (`constraints.calculus.finite_volume`)
and $\theta = 0$ it is the local conservation of a finite-volume scheme, cell by cell. On a line, where f sees its neighbours only, the
Jacobian's bands come from a few directional derivatives and the Gram matrix is block tridiagonal; elsewhere conjugate gradients are
preconditioned with the plain time difference. Explicit steps from fields that other laws give are taken, not solved for
(`constraints.march`).
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor

from constraints.calculus.finite_volume import Flux, cell_balance
from constraints.constraint import Constraint, forget
from constraints.grid import Grid
from constraints.linear.derivative import hessian_product, pullback
from constraints.linear.map import Linearised, LinearMap
from constraints.linear.solve import conjugate_gradients
from constraints.linear.stepping import BlockSteps, LineSteps, TimeGram
from constraints.steps import ExplicitSteps
from constraints.units import Chart
from constraints.view import Seen, Sight, View


class EvolutionEquation(Constraint):
    r"""$u_{n+1} - u_n = \Delta t_n((1-\theta) f(u_n) + \theta f(u_{n+1}))$ at chosen points, for the first steps.

    Arguments:
        grid: a grid with at least two times.
        rate: f, (B, C, *N) to the same shape, each time from the fields at that time.
        theta: $\theta$: 0 explicit, 1/2 Crank-Nicolson, 1 implicit.
        steps: number of steps it holds for; all by default.
        where: points it holds at, boolean, broadcastable to *space; all by default.
        radius: on one space axis, how far f sees: 1 for neighbours. Given, solves are direct.
        autonomous: whether f is the same at all times, so that it may be asked for the rate at a single one, (B, C, 1, *space).
        channels: number of channels of the fields.
        name: what to call it.

    Raises:
        ValueError: fewer than two times, more steps than there are, or a radius on a grid of more axes or channels than one.
    """

    def __init__(
        self,
        grid: Grid,
        rate: Callable[[Tensor], Tensor],
        *,
        theta: float = 0.5,
        steps: int | None = None,
        where: Tensor | None = None,
        radius: int | None = None,
        autonomous: bool = False,
        channels: int = 1,
        name: str = "evolution equation",
    ) -> None:
        super().__init__()
        if not grid.has_time or grid.axes[0].points < 2:
            raise ValueError(f"EvolutionEquation expects a grid with at least two times; got the axes {', '.join(grid.names)}.")
        times = grid.axes[0].points
        self.steps = times - 1 if steps is None else steps
        if not 1 <= self.steps < times:
            raise ValueError(f"EvolutionEquation expects between 1 and {times - 1} steps; got {self.steps}.")
        if radius is not None and (len(grid.space_axes) != 1 or channels != 1):
            raise ValueError("EvolutionEquation takes a radius for one channel on one space axis; leave it out.")
        self.shape, self.rate, self.theta, self.radius, self.autonomous = (channels, *grid.shape), rate, theta, radius, autonomous
        self.periodic = all(axis.periodic for axis in grid.space_axes)
        space = tuple(axis.points for axis in grid.space_axes)
        mask = torch.ones(space, dtype=torch.bool) if where is None else where.expand(space)
        self.register_buffer("points", mask.flatten().nonzero()[:, 0])
        self.register_buffer("gaps", torch.diff(grid.axes[0].positions())[: self.steps])
        self.name, self.unit = name, "unit of the field"

    points: Tensor
    gaps: Tensor

    def _rates(self, u: Tensor) -> Tensor:
        return self.rate(u[:, :, : self.steps + 1])

    def _step(self, u: Tensor, rates: Tensor) -> Tensor:
        """Both sides' difference at every point, (B, C, steps, points)."""
        gaps = self.gaps.to(u).reshape(-1, *(1,) * (u.ndim - 3))
        moved = gaps * ((1 - self.theta) * rates[:, :, :-1] + self.theta * rates[:, :, 1:])
        full = torch.diff(u[:, :, : self.steps + 1], dim=2) - moved
        return full.flatten(3)[..., self.points]

    def residual(self, u: Tensor) -> Tensor:
        return self._step(u, self._rates(u)).flatten(1)

    def scale(self, u: Tensor) -> Tensor:
        """The largest value of the fields, and of what a step adds."""
        size = u[:, :, : self.steps + 1].abs().flatten(1).amax(1, keepdim=True)
        return size + self.gaps.max().to(u) * self._rates(u).abs().flatten(1).amax(1, keepdim=True)

    def curvature(self, u: Tensor, multiplier: Tensor, direction: Tensor) -> Tensor:
        """Of the times that take part alone."""
        total, taken = torch.zeros_like(direction), slice(0, self.steps + 1)
        total[:, :, taken] = hessian_product(self.residual, u[:, :, taken], multiplier, direction[:, :, taken])
        return total

    def jacobian(self, u: Tensor) -> LinearMap:
        if self.radius is None:
            return _Steps(self.residual, u, self.steps, len(self.points))
        bands = self._bands(u)
        gaps = self.gaps.to(u)[:, None]
        plus = -self.theta * gaps * bands[:, :, 1:]
        minus = -(1 - self.theta) * gaps * bands[:, :, :-1]
        plus[:, self.radius] += 1.0
        minus[:, self.radius] -= 1.0
        return LineSteps(plus, minus, self.points, self.shape[1], self.periodic)

    def explicit_steps(self) -> ExplicitSteps | None:
        return ExplicitSteps(self) if self.theta == 0.0 else None

    def sight(self, chart: Chart | None = None) -> Sight | None:
        """Single values of the times that take part, where steps see neighbours only."""
        if self.radius is None or self.shape[2] <= 2 * self.radius:
            return None
        seen = torch.zeros(self.shape[1:], dtype=torch.bool, device=self.points.device)
        for by in range(-self.radius, self.radius + 1):
            near = self.points + by
            near = near % self.shape[2] if self.periodic else near[(near >= 0) & (near < self.shape[2])]
            seen[: self.steps + (self.theta > 0), near] = True
        seen[1 : self.steps + 1, self.points] = True
        return Sight(seen, (), lambda view: _SeenSteps(self, chart, view))

    def sees_only(self, known: Tensor) -> Tensor:
        if self.radius is None:
            return known.all().expand(known.shape)
        near = torch.ones_like(known)
        for by in range(-self.radius, self.radius + 1):
            shifted = known.roll(-by, -1)
            if by and not self.periodic:  # there is nothing outside
                shifted[..., slice(-by, None) if by > 0 else slice(0, -by)] = True
            near &= shifted
        return near

    def rate_at(self, u: Tensor, n: int) -> Tensor:
        return self.rate(u[:, :, n : n + 1])[:, :, 0] if self.autonomous else self._rates(u)[:, :, n]

    def rate_pullback(self, u: Tensor) -> Callable[[int, Tensor], Tensor]:
        if self.radius is not None:
            bands, radius = self._bands(u), self.radius

            def banded(n: int, y: Tensor) -> Tensor:
                parts = [(bands[:, j, n][:, None] * y).roll(j - radius, -1) for j in range(2 * radius + 1)]  # nothing comes around an end
                return torch.stack(parts).sum(0)

            return banded
        rates, pull = pullback(self._rates, u)

        def pulled(n: int, y: Tensor) -> Tensor:
            seed = torch.zeros_like(rates)
            seed[:, :, n] = y
            return pull(seed)[:, :, n]

        return pulled

    def at_points(self, points: Tensor) -> EvolutionEquation:
        part = copy.copy(self)
        part._buffers = {**self._buffers, "points": points}
        forget(part)
        return part

    def _bands(self, u: Tensor) -> Tensor:
        """The derivative of f at each time, [b, j, t, i] with respect to point i + j - r, (B, 2 r + 1, steps + 1, n).

        Rows 2 r + 1 apart do not share a point: as many reverse passes give all bands, a few more around a periodic line.
        """
        assert self.radius is not None
        n, width = u.shape[-1], 2 * self.radius + 1
        colours = width if not self.periodic or n % width == 0 else next(w for w in range(width, n + 1) if n % w == 0 or w == n)
        index = torch.arange(n, device=u.device)
        rates, pull = pullback(self.rate, u[:, :, : self.steps + 1])
        slope = torch.stack([pull((index % colours == colour).to(u).expand_as(rates))[:, 0] for colour in range(colours)])
        bands = []
        for j in range(width):
            column = index + j - self.radius
            inside = (column >= 0) & (column < n) | self.periodic
            band = slope[index % colours, ..., column % n].movedim(0, -1)
            bands.append(torch.where(inside, band, 0.0))
        return torch.stack(bands, dim=1)


class _SeenSteps(Seen):
    """Steps in terms of the single values that they see."""

    def __init__(self, law: EvolutionEquation, chart: Chart | None, view: View) -> None:
        super().__init__()
        self.law, self.chart = law, chart
        self.times, self.line, self.seen = law.steps + 1, law.shape[2], view.present.shape
        self.places, self.slots = view.place(self.times)
        self.scale_of_values = 1.0 if chart is None else float(_scale(chart))
        radius, steps = law.radius or 0, torch.arange(law.steps, device=law.points.device)[:, None, None]
        self.bands = []
        for ahead in (1, 0):
            index, filled = view.index[ahead : law.steps + ahead, None], view.filled[ahead : law.steps + ahead, None]
            band = index - law.points[:, None] + radius
            band = band % self.line if law.periodic else band
            inside = filled & (band >= 0) & (band <= 2 * radius)
            self.bands.append((band.clamp(0, 2 * radius), steps.expand_as(band), law.points[:, None].expand_as(band), inside))

    given: Tensor

    def data(self, given: Tensor) -> None:
        self.given = given[:, 0, : self.times].flatten(1)

    def _fields(self, z: Tensor, given: Tensor) -> Tensor:
        """The first times, (B, 1, steps + 1, n)."""
        values = z[:, 0].flatten(1)[:, self.slots]
        return given.to(z).expand(len(z), -1).index_copy(1, self.places, values).reshape(len(z), 1, self.times, self.line)

    def _physical(self, z: Tensor) -> Tensor:
        x = self._fields(z, self.given)
        return x if self.chart is None else self.chart.physical(x)

    def residual(self, u: Tensor) -> Tensor:
        return self.law.residual(self._physical(u))

    def scale(self, u: Tensor) -> Tensor:
        return self.law.scale(self._physical(u))

    def jacobian(self, u: Tensor) -> LinearMap:
        steps = self.law.jacobian(self._physical(u))
        assert isinstance(steps, LineSteps)
        parts = []
        for bands, (band, step, point, inside) in zip((steps.plus, steps.minus), self.bands, strict=True):
            block = bands[:, band, step, point] * (self.scale_of_values * inside.to(u))
            parts.append(torch.nn.functional.pad(block, (0, self.seen[1] - block.shape[-1])))
        return BlockSteps(parts[0], parts[1], self.seen[0])

    def curvature(self, u: Tensor, multiplier: Tensor, direction: Tensor) -> Tensor:
        along = self._fields(direction, torch.zeros_like(self.given))
        bent = self.scale_of_values**2 * self.law.curvature(self._physical(u), multiplier, along)
        total = direction.new_zeros(len(u), self.seen[0] * self.seen[1])
        return total.index_copy(1, self.slots, bent.flatten(1)[:, self.places]).reshape(direction.shape)


def _scale(chart: Chart) -> Tensor:
    """The one scale of one channel."""
    scale = chart.diagonal(2)
    assert scale is not None
    return scale


class _Steps(LinearMap):
    """The Jacobian of an evolution equation by automatic differentiation, preconditioned with the plain time difference."""

    batched = True

    def __init__(self, residual: Callable[[Tensor], Tensor], u: Tensor, steps: int, points: int) -> None:
        super().__init__()
        self.inner, self.points = Linearised(residual, u), points
        self.shape, self.rows = self.inner.shape, self.inner.rows
        self._plain = TimeGram(steps, True, u)

    def forward(self, u: Tensor) -> Tensor:
        rows: Tensor = self.inner(u)
        return rows

    def adjoint(self, y: Tensor) -> Tensor:
        return self.inner.adjoint(y)

    def solve_gram(self, r: Tensor) -> Tensor:
        return conjugate_gradients(
            lambda y: self(self.adjoint(y)), r, preconditioner=lambda y: self._plain(y, self.points), max_iterations=1000
        )


def local_conservation(
    grid: Grid, flux: Flux, *, axis: str | None = None, steps: int | None = None, theta: float = 0.0, channels: int = 1
) -> EvolutionEquation:
    """Every cell's balance under a numerical flux along one axis, for the first steps; bounded ends have no row.

    Arguments:
        grid: a grid with time.
        flux: the numerical flux.
        axis: the axis it acts along; the only space axis by default.
        steps: number of steps; all by default.
        theta: 0 for an explicit scheme's own balance.
        channels: number of channels of the fields.
    """
    name = grid.space_axes[0].name if axis is None else axis
    line = grid.axis(name)
    where = None
    if not line.periodic:
        inside = torch.ones(line.points, dtype=torch.bool)
        inside[0] = inside[-1] = False
        where = inside.reshape([-1 if other.name == name else 1 for other in grid.space_axes])
    return EvolutionEquation(
        grid,
        cell_balance(flux, grid, name),
        theta=theta,
        steps=steps,
        where=where,
        radius=1 if len(grid.space_axes) == 1 and channels == 1 else None,
        autonomous=True,
        channels=channels,
        name="local conservation",
    )
