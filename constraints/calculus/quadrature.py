"""Integrals of fields over axes of their grid."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from constraints.grid import Grid


def integral(u: Tensor, grid: Grid, axes: Sequence[str] | None = None) -> Tensor:
    """Integrate a field over some axes of its grid.

    Trapezoidal on bounded axes, error O(h²); equal weights on periodic ones, error below any power of h for smooth u.

    Arguments:
        u: field, (B, C, *N), in any unit.
        grid: the grid u lives on.
        axes: names of the axes to integrate over; all space axes by default.

    Returns:
        Integrals, (B, C, *rest), in the unit of u times those of the axes.

    Raises:
        ValueError: u is not on the grid, or an axis is not one of its axes.

    Source:
        Trefethen & Weideman, SIAM Review 56 (2014), for the periodic case.
    """
    grid.check(u, "integral")
    names = tuple(axis.name for axis in grid.space_axes) if axes is None else tuple(axes)
    return (grid.weights(names, like=u) * u).sum([grid.dim(name) for name in names])


def mean(u: Tensor, grid: Grid, axes: Sequence[str] | None = None) -> Tensor:
    """Mean of a field over some axes: its `integral` divided by the measure that the same weights give."""
    names = tuple(axis.name for axis in grid.space_axes) if axes is None else tuple(axes)
    measure = 1.0
    for name in names:
        measure *= float(grid.axis(name).weights().sum())
    return integral(u, grid, names) / measure
