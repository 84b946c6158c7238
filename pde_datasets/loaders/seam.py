r"""Whether a stored space axis is periodic, read off the field on it.

Coordinates alone cannot say: $-1, \dots, 1 - h$ may be a period without its repeated end point or a piece of a bounded interval, and
$-1, \dots, 1$ a bounded interval or a period with the end stored twice. The field says more. With $u_0(t)$, $u_{n-1}(t)$ the
values at the first and last point, in this order:

1. *duplicate*: $u_0 = u_{n-1}$ at all times while both vary. A copy is equal bit for bit, even where it only copies round-off around 0
   (the Kuramoto-Sivashinsky file of Raissi, odd about the end); two computed ends agree to 1e-5 of the differences beside them.
   The last point is dropped, the period is the span.
2. *walls*: both ends stay constant, or vary by less than 1e-3 of what their neighbours do. The axis is bounded. Two computed zeros
   differ in their last bits, which is what tells `burgers_shock` from case 1.
3. *continued*: at all times $|u_0 - u_{n-1}|$ is at most twice the largest of the four differences beside the seam, or 1e-3 of the
   largest value, where both ends have decayed alike. The axis is periodic and half open, its period is $n$ spacings.
4. *bounded*: everything else, and all unequal spacings.

Second differences are not asked for in case 3: periodic solutions with a kink at the seam exist ($x^2 \cos \pi x$ on $[-1, 1)$, the
Allen-Cahn file of Raissi). Not decidable, and read as case 1: a bounded interval with both ends forced alike.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from constraints import Axis

_COPY = 1e-5
"""Jump over neighbouring differences below which two ends are one point: above single precision, far below the O(1) of neighbours."""
_WALL = 1e-3
"""Variation of a wall over that of its neighbour: round-off and iteration errors stay below, points of a moving field do not."""
_DECAYED = 1e-3
"""Jump, over the largest value, that a field decayed at both ends may have: radiation of solitons on a finite period is 2e-4."""


class Seam(NamedTuple):
    """The space axis of a file and how it was found."""

    axis: Axis
    points: int
    """Points to keep: one fewer than stored where the last repeats the first."""
    reason: str


def space_axis(name: str, x: NDArray[Any], u: NDArray[Any]) -> Seam:
    """The axis through coordinates, periodic if the field on it says so.

    Arguments:
        x: increasing coordinates, (X,).
        u: field, real or complex, (T, X).

    Returns:
        The axis, how many of the stored points lie on it, and the reason in words.

    Raises:
        ValueError: the coordinates do not increase.
    """
    n = len(x)
    bounded = Axis.at(name, x.tolist())
    if n < 5 or not bounded.uniform:
        return Seam(bounded, n, "too few points to tell a period from" if n < 5 else "bounded, as the points are not equally spaced")
    if not np.isfinite(u).all():
        return Seam(bounded, n, "bounded, as values that are not finite say nothing of it")
    first, last = u[:, 0], u[:, -1]
    jump = np.abs(first - last)
    beside = np.abs(np.diff(u, axis=1))[:, [0, 1, -2, -1]].max(axis=1)
    scale = np.abs(u).max()
    round_off = 64 * np.finfo(u.dtype).eps * scale
    copied = np.array_equal(first, last) and bool(np.any(first != first[0]))
    walls = _still(first, u[:, 1], round_off) and _still(last, u[:, -2], round_off)
    if copied or (not walls and jump.max() <= max(round_off, _COPY * beside.max())):
        axis = Axis.at(name, x[:-1].tolist(), periodic=True, length=float(x[-1] - x[0]))
        return Seam(axis, n - 1, "periodic: the last point repeats the first at all times and was dropped")
    if walls:
        return Seam(bounded, n, "bounded: both ends stay constant in time")
    if np.all(jump <= 2 * beside + _DECAYED * scale):
        axis = Axis.at(name, x.tolist(), periodic=True)
        return Seam(axis, n, "periodic and half open: the field continues from the last point to the first")
    return Seam(bounded, n, "bounded: the field jumps from the last point to the first")


def _still(end: NDArray[Any], neighbour: NDArray[Any], round_off: float) -> bool:
    """Whether an end stays what it was while its neighbour moves, (T,) each."""
    moved, neighbour_moved = (np.abs(values - values[0]).max() for values in (end, neighbour))
    return bool(moved <= max(round_off, _WALL * neighbour_moved))
