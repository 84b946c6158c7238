r"""What clouds of points in a box obey at its sides, as equations of their mesh: measured, and stated where it holds.

* *net flux*: $\oint u\cdot n\,ds = 0$ over the four sides of a plane box by the trapezoidal rule on the points there, for a velocity;
* *zero at the sides*, *zero at the first time*: values that vanish there exactly.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from pde_datasets.mesh import Equation, csr

_ON = 1e-9
"""Distance from a side, over the extent, at which a point is on it."""

_BALANCED = 1e-9
"""Net flux, over what flows in and out, up to which it is stated to vanish: far above round-off, far below what elements leave."""


def sides(points: NDArray[np.float64], names: Sequence[str]) -> dict[str, NDArray[np.int64]]:
    """Which points are on each side of the box around all of them, (P, d) to positions by name, such as "x lower"."""
    low, high = points.min(axis=0), points.max(axis=0)
    found = {}
    for i, name in enumerate(names):
        for side, end in (("lower", low[i]), ("upper", high[i])):
            there = np.flatnonzero(np.abs(points[:, i] - end) <= _ON * (high[i] - low[i]))
            if len(there) > 2:
                found[f"{name} {side}"] = there
    return found


def equations(
    points: NDArray[np.float64], u: NDArray[np.float64], places: dict[str, NDArray[np.int64]], velocity: Sequence[int]
) -> tuple[dict[str, Equation], list[str]]:
    """Those that hold for all samples and times, and notes that say how well.

    Arguments:
        points: coordinates, (P, d).
        u: values, (N, C, P) or (N, C, T, P).
        places: as `sides` finds.
        velocity: channels of the components, none if there is no velocity.
    """
    found: dict[str, Equation] = {}
    notes: list[str] = []
    shape = u.shape[1:]
    if len(velocity) == 2 == points.shape[1] and u.ndim == 3 and len(places) == 4:
        each = _flux_weights(points, places, shape, velocity)
        through = u.reshape(len(u), -1) @ each.T
        inflow, net = -through.clip(max=0).sum(axis=1), np.abs(through.sum(axis=1))
        if inflow.min() > 0 and net.max() <= _BALANCED * inflow.min():
            weights = each.sum(axis=0)
            columns = np.flatnonzero(weights)
            found["net flux"] = _rows(np.zeros_like(columns), columns, weights[columns], (1, weights.size))
            notes.append(f"As much flows in through the sides of the box as out, {inflow.max():.11g}, to {net.max():.0e}.")
    index = np.arange(int(np.prod(shape))).reshape(shape)
    still = [place for place, there in places.items() if not u[..., there].any()]
    if still and u.any():
        columns = np.unique(np.concatenate([index[..., places[place]].ravel() for place in still]))
        found["zero at the sides"] = _rows(np.arange(len(columns)), columns, np.ones(len(columns)), (len(columns), index.size))
        notes.append(f"All values are 0 at {', '.join(still)}.")
    if u.ndim == 4 and not u[:, :, 0].any() and u.any():
        columns = index[:, 0].ravel()
        found["zero at the first time"] = _rows(np.arange(len(columns)), columns, np.ones(len(columns)), (len(columns), index.size))
        notes.append("All values are 0 at the first time.")
    return found, notes


def _flux_weights(
    points: NDArray[np.float64], places: dict[str, NDArray[np.int64]], shape: tuple[int, ...], velocity: Sequence[int]
) -> NDArray[np.float64]:
    """Weights of the values whose sum is the flux out through each side, (sides, C P)."""
    first = next(iter(places)).split()[0]
    weights = np.zeros((len(places), *shape))
    for row, (place, there) in enumerate(places.items()):
        normal = 0 if place.split()[0] == first else 1
        along = points[there, 1 - normal]
        order = np.argsort(along)
        gaps = np.diff(along[order])
        trapezoid = np.zeros(len(there))
        trapezoid[:-1] += gaps / 2
        trapezoid[1:] += gaps / 2
        weights[row, velocity[normal], there[order]] = trapezoid if place.endswith("upper") else -trapezoid
    return weights.reshape(len(places), -1)


def _rows(rows: NDArray[np.int64], columns: NDArray[np.int64], values: NDArray[np.float64], shape: tuple[int, int]) -> Equation:
    return Equation(csr(torch.from_numpy(rows), torch.from_numpy(columns), torch.from_numpy(values), shape))
