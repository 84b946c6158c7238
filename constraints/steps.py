r"""Explicit steps as what they are, in the coordinates a law is asked in: a value at the next time for each row.

$$u_{n+1} = u_n + \Delta t_n f(u_n)$$
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from constraints.units import Chart

if TYPE_CHECKING:
    from constraints.constraint import Constraint


class Explicit(Protocol):
    """A law of explicit steps in physical fields.

    Attributes:
        shape: of one field, (C, T, *space).
        steps: number of steps.
        gaps: what each step takes, (steps,).
        points: indices of the points that have rows, among all of space.
    """

    shape: tuple[int, ...]
    steps: int
    gaps: Tensor
    points: Tensor

    def sees_only(self, known: Tensor) -> Tensor:
        """At which points f sees nothing but known values of one time, (C, *space) to the same shape."""

    def rate_at(self, u: Tensor, n: int) -> Tensor:
        """f at one time, (B, C, *space)."""

    def rate_pullback(self, u: Tensor) -> Callable[[int, Tensor], Tensor]:
        r"""$(n, \\lambda) \\mapsto f'(u_n)^\\top\\lambda$, (B, C, *space) each."""

    def at_points(self, points: Tensor) -> Constraint:
        """The rows of some of the points."""


class ExplicitSteps:
    """Explicit steps, in other coordinates if a chart is given, which then has a scale of its own for each value.

    Rows are held on the grid, each where the value is that it leads to: (B, C, T, *space), of which `rows_of` picks them.
    """

    def __init__(self, law: Explicit, chart: Chart | None = None) -> None:
        self.law, self.chart = law, chart
        self.shape, self.steps = law.shape, law.steps

    def leads(self, known: Tensor, n: int) -> Tensor:
        """Values at time n + 1, not known, that follow from those known, (C, T, *space) to (C, *space)."""
        led = torch.zeros_like(known[:, n]).flatten(1)
        led[:, self.law.points] = (self.law.sees_only(known[:, n]) & ~known[:, n + 1]).flatten(1)[:, self.law.points]
        return led.reshape(known[:, n].shape)

    def lead(self, v: Tensor, n: int) -> Tensor:
        """All values at time n + 1 as they follow from those before, (B, C, *space)."""
        u = v if self.chart is None else self.chart.physical(v)
        after = u[:, :, n] + self.law.gaps[n].to(u) * self.law.rate_at(u, n)
        return after if self.chart is None else self.chart.normalise(after[:, :, None])[:, :, 0]

    def rows_of(self, field: Tensor) -> Tensor:
        """The rows held on a grid, (B, m)."""
        return field[:, :, 1 : self.steps + 1].flatten(3)[..., self.law.points].flatten(1)

    def pullback(self, v: Tensor) -> Callable[[int, Tensor], tuple[Tensor, Tensor]]:
        """For step n, from the forces on the values that it leads to, the multipliers of their rows and the pull on those before."""
        scale = torch.ones(()) if self.chart is None else self.chart.diagonal(v.ndim - 2)
        assert scale is not None
        full = scale.to(v).expand(self.shape)
        rate = self.law.rate_pullback(v if self.chart is None else self.chart.physical(v))

        def pull(n: int, force: Tensor) -> tuple[Tensor, Tensor]:
            multiplier = force / full[:, n + 1]
            return multiplier, -full[:, n] * (multiplier + self.law.gaps[n].to(v) * rate(n, multiplier))

        return pull

    def without(self, rows: Tensor) -> Constraint:
        """The law at the points that keep a row, at any step and channel."""
        left = ~rows.reshape(-1, len(self.law.points)).all(0)
        rest = self.law.at_points(self.law.points[left])
        return rest if self.chart is None else rest.moved(self.chart)

    def kept(self, rows: Tensor) -> Tensor:
        """Which rows those of `without` are, boolean, (m,)."""
        by_point = rows.reshape(-1, len(self.law.points))
        return (~by_point.all(0)).expand_as(by_point).flatten()
