r"""Boundary data on bounded axes: values, normal derivatives, mixtures, and the seam of a closed periodic axis.

With one-sided difference weights $d_j$ at an end of an axis, the outward normal derivative is $\partial_n u = \pm\sum_j d_j u_j$, with the
sign of the end. Each boundary point is a weighted sum of the points of its own grid line: rows have disjoint support, and their Gram
matrix is diagonal.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from constraints.calculus.finite_difference import one_sided
from constraints.constraint import LinearConstraint, as_target
from constraints.grid import Grid
from constraints.linear.structured import RowSelection, Selection, WeightedSum

SIDES = ("lower", "upper")

Value = float | Sequence[float] | Tensor


def _channels(components: Sequence[int] | None, channels: int, speaker: str) -> list[int]:
    taken = list(range(channels)) if components is None else list(components)
    if not taken or len(set(taken)) != len(taken) or min(taken) < 0 or max(taken) >= channels:
        raise ValueError(f"{speaker} expects different channels between 0 and {channels - 1}; got {tuple(taken)}.")
    return taken


def _check_side(grid: Grid, axis: str, side: str, speaker: str) -> int:
    """Dimension of the axis; checked to be bounded, with points on its ends."""
    dim = grid.dim(axis)
    if side not in SIDES:
        raise ValueError(f"{speaker} expects a side among {', '.join(SIDES)}; got '{side}'.")
    if grid.axis(axis).periodic:
        raise ValueError(f"{speaker} expects a bounded axis; '{axis}' is periodic and has no {side} end.")
    if grid.axis(axis).cells:
        raise ValueError(f"{speaker} expects points on the wall; those of '{axis}' are cell centres, half a cell away from it.")
    return dim


def _target(value: Value, rows: int, speaker: str) -> Tensor:
    """A target given as for all laws, or as fields on the boundary: (C, *rest), or (B, C, *rest), one for each sample."""
    if isinstance(value, Tensor) and value.ndim > 2:
        value = value.flatten() if value.numel() == rows else value.flatten(1)
    return as_target(value, rows, speaker)


class Dirichlet(LinearConstraint):
    """Values at one end of an axis, at every point and time there.

    Arguments:
        grid: the grid of the fields.
        axis: a bounded axis.
        side: "lower" or "upper" end.
        value: a number, one a row, or fields on the boundary, (C, *rest), with a batch in front if samples differ.
        components: channels it holds for; all by default.
        channels: number of channels of the fields.

    Raises:
        ValueError: the axis is periodic or has no point on its wall, an unknown side, or a value of the wrong shape.

    Example:
        >>> from constraints import Axis, project
        >>> project(Dirichlet(Grid(Axis("x", 4)), "x", "lower", 2.0), torch.zeros(1, 1, 4)).u.tolist()
        [[[2.0, 0.0, 0.0, 0.0]]]
    """

    unit = "unit of the field"

    def __init__(
        self, grid: Grid, axis: str, side: str, value: Value = 0.0, *, components: Sequence[int] | None = None, channels: int = 1
    ) -> None:
        _check_side(grid, axis, side, "Dirichlet")
        mask = torch.zeros(channels, *grid.shape, dtype=torch.bool)
        end = 0 if side == "lower" else grid.axis(axis).points - 1
        mask[_channels(components, channels, "Dirichlet")] = True
        inside = torch.arange(grid.axis(axis).points) != end
        mask = mask & ~grid.along(axis, inside)
        operator = Selection(mask)
        super().__init__(operator, _target(value, operator.rows, "Dirichlet"))
        self.name = f"value at {side} {axis}"


class Robin(LinearConstraint):
    r"""A mixture of value and outward normal derivative, $a u + b\,\partial_n u = g$, at one end of an axis.

    Arguments:
        grid: the grid of the fields.
        axis: a bounded axis.
        side: "lower" or "upper" end.
        a: weight of the value.
        b: weight of the outward normal derivative, one-sided differences of even order.
        value: $g$, as for `Dirichlet`.
        order: order of the differences.
        components: channels it holds for; all by default.
        channels: number of channels of the fields.

    Raises:
        ValueError: as `Dirichlet`, or both weights are zero.
    """

    unit = "unit of the field, over length where the derivative counts"

    def __init__(
        self,
        grid: Grid,
        axis: str,
        side: str,
        a: float,
        b: float,
        value: Value = 0.0,
        *,
        order: int = 2,
        components: Sequence[int] | None = None,
        channels: int = 1,
    ) -> None:
        if a == 0 and b == 0:
            raise ValueError("Robin expects a weight that is not zero; got a = b = 0.")
        operator = _mixture(grid, axis, side, a, b, order, components, channels, "Robin")
        super().__init__(operator, _target(value, operator.rows, "Robin"))
        self.name = f"{a:g} u + {b:g} du/dn at {side} {axis}"


class Neumann(LinearConstraint):
    r"""The outward normal derivative, $\partial_n u = g$, at one end of an axis.

    Arguments:
        grid: the grid of the fields.
        axis: a bounded axis.
        side: "lower" or "upper" end.
        value: $g$, as for `Dirichlet`.
        order: order of the differences.
        components: channels it holds for; all by default.
        channels: number of channels of the fields.

    Raises:
        ValueError: as `Dirichlet`.
    """

    unit = "unit of the field over length"

    def __init__(
        self,
        grid: Grid,
        axis: str,
        side: str,
        value: Value = 0.0,
        *,
        order: int = 2,
        components: Sequence[int] | None = None,
        channels: int = 1,
    ) -> None:
        operator = _mixture(grid, axis, side, 0.0, 1.0, order, components, channels, "Neumann")
        super().__init__(operator, _target(value, operator.rows, "Neumann"))
        self.name = f"normal derivative at {side} {axis}"


class PeriodicSeam(LinearConstraint):
    """Both ends of a closed axis hold the same values: a periodic field stored with its end point repeated.

    Arguments:
        grid: the grid of the fields.
        axis: a bounded axis with points on its ends.
        components: channels it holds for; all by default.
        channels: number of channels of the fields.

    Raises:
        ValueError: the axis is periodic already, or has no points on its ends.
    """

    unit = "unit of the field"

    def __init__(self, grid: Grid, axis: str, *, components: Sequence[int] | None = None, channels: int = 1) -> None:
        dim = _check_side(grid, axis, "lower", "PeriodicSeam")
        line = torch.zeros(grid.axis(axis).points, dtype=torch.float64)
        line[0], line[-1] = 1.0, -1.0
        operator = _lines(grid, axis, line, _channels(components, channels, "PeriodicSeam"), channels, dim)
        super().__init__(operator, torch.zeros(1, dtype=torch.float64))
        self.name = f"seam of {axis}"


def no_slip(grid: Grid, *, components: Sequence[int] | None = None, channels: int | None = None) -> list[Dirichlet]:
    """Zero velocity on every wall: both ends of every bounded space axis.

    Arguments:
        grid: the grid of the fields.
        components: channels of the velocity; the first d by default.
        channels: number of channels of the fields.

    Returns:
        A law for each wall, to put into an `Intersection`.

    Raises:
        ValueError: the grid has no walls.
    """
    taken = list(range(len(grid.space_axes))) if components is None else list(components)
    total = max(taken) + 1 if channels is None else channels
    walls = [axis.name for axis in grid.space_axes if not axis.periodic]
    if not walls:
        raise ValueError("no_slip expects at least one bounded space axis; all are periodic.")
    return [Dirichlet(grid, axis, side, 0.0, components=taken, channels=total) for axis in walls for side in SIDES]


def no_penetration(grid: Grid, *, components: Sequence[int] | None = None, channels: int | None = None) -> list[Dirichlet]:
    """Zero normal velocity on every wall, the tangential one free: slip walls, and the wall faces of a staggered grid.

    Arguments, returns and errors as `no_slip`.
    """
    taken = list(range(len(grid.space_axes))) if components is None else list(components)
    total = max(taken) + 1 if channels is None else channels
    walls = [(axis.name, channel) for axis, channel in zip(grid.space_axes, taken, strict=True) if not axis.periodic]
    if not walls:
        raise ValueError("no_penetration expects at least one bounded space axis; all are periodic.")
    return [Dirichlet(grid, axis, side, 0.0, components=[channel], channels=total) for axis, channel in walls for side in SIDES]


def _mixture(
    grid: Grid, axis: str, side: str, a: float, b: float, order: int, components: Sequence[int] | None, channels: int, speaker: str
) -> WeightedSum | RowSelection:
    """a u + b times the outward normal derivative at one end."""
    dim = _check_side(grid, axis, side, speaker)
    line = b * one_sided(grid.axis(axis), side, order) * (-1 if side == "lower" else 1)
    line[0 if side == "lower" else -1] += a
    return _lines(grid, axis, line, _channels(components, channels, speaker), channels, dim)


def _lines(grid: Grid, axis: str, line: Tensor, taken: list[int], channels: int, dim: int) -> WeightedSum | RowSelection:
    """The same weighted sum of every grid line along an axis, of some channels."""
    weights = grid.along(axis, line).expand(channels, *grid.shape).clone()
    sums = WeightedSum(weights, (dim,))
    if len(taken) == channels:
        return sums
    each = sums.rows // channels
    kept = torch.cat([torch.arange(c * each, (c + 1) * each) for c in taken])
    return RowSelection(kept, sums)
