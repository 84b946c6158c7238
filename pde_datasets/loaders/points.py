"""Values at points in space, given in any order: on the product of axes that the points fill, or else on a cloud of points."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from constraints import Axis, Grid
from pde_datasets.mesh import Mesh, on_mesh

_SAME = 1e-7
"""Distance, over the extent, below which two coordinates are one: above the rounding of single precision, below any spacing."""


class Layout(NamedTuple):
    """What points live on.

    Attributes:
        grid: a product of axes, or an axis that numbers the points.
        mesh: the points, where they fill no product.
        order: the row of each point of the grid.
        shape: of the points on the grid, without the time axis that was given.
        reason: in words.
    """

    grid: Grid
    mesh: Mesh | None
    order: NDArray[np.int64]
    shape: tuple[int, ...]
    reason: str

    def place(self, values: NDArray[Any]) -> NDArray[Any]:
        """Values (..., points) in the order of the file → (..., *shape)."""
        return values[..., self.order].reshape(*values.shape[:-1], *self.shape)


def layout(names: Sequence[str], coordinates: NDArray[np.float64], *, time: Axis | None = None, units: Sequence[str] = ()) -> Layout:
    """What points with these coordinates live on.

    Arguments:
        names: of the coordinates; `time` may be one of them.
        coordinates: (points, d), one row a point.
        time: axis of times at which all points have values.
        units: of the coordinates, "1" by default.

    Raises:
        ValueError: coordinates that are not finite.
    """
    if not np.isfinite(coordinates).all():
        raise ValueError("expects finite coordinates of the points; there are NaN or infinite ones.")
    units = units or ("1",) * len(names)
    levels = [_levels(column) for column in coordinates.T]
    counts = [len(values) for values, _ in levels]
    if math.prod(counts) == len(coordinates) and min(counts) > 1:
        place = np.ravel_multi_index(tuple(index for _, index in levels), counts)
        order = np.argsort(place, kind="stable")
        if (np.diff(place[order]) == 1).all():
            axes = [Axis.at(name, values.tolist(), unit=unit) for name, (values, _), unit in zip(names, levels, units, strict=True)]
            grid = Grid(*([] if time is None else [time]), *axes)
            return Layout(grid, None, order, tuple(counts), f"The points fill a grid of {' x '.join(str(n) for n in counts)}.")
    points = torch.from_numpy(np.ascontiguousarray(coordinates, dtype=np.float64))
    count = len(points)
    return Layout(on_mesh(count, time=time), Mesh(points), np.arange(count), (count,), f"A cloud of {count} points that fill no grid.")


def _levels(column: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The different values of a coordinate, and which of them each point has."""
    order = np.argsort(column, kind="stable")
    ordered = column[order]
    new = np.diff(ordered, prepend=-np.inf) > _SAME * (ordered[-1] - ordered[0])
    new[0] = True
    index = np.empty(len(column), dtype=np.int64)
    index[order] = np.cumsum(new) - 1
    return ordered[new], index
