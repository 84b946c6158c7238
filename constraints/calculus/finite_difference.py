r"""Finite differences of even order on any axis.

At each point the derivative of the polynomial through the $p+1$ nearest points: centred inside and on periodic axes, one-sided at
walls, for equal or given spacing. Weights by Fornberg's recursion (Math. Comp. 51 (1988) 699).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from constraints.calculus.scheme import Scheme, check_periodic
from constraints.grid import Axis, Grid


def fornberg(at: float, points: np.ndarray) -> np.ndarray:
    """Weights of the first derivative at a point from values at distinct points (Fornberg 1988).

    Example:
        >>> fornberg(0.0, np.array([-1.0, 0.0, 1.0])).tolist()
        [-0.5, 0.0, 0.5]
    """
    n = len(points)
    value, slope = np.zeros(n), np.zeros(n)
    value[0] = 1.0
    product = 1.0
    for i in range(1, n):
        factor = 1.0
        distance = points[i - 1] - at
        previous_value, previous_slope = value[i - 1], slope[i - 1]
        for j in range(i):
            gap = points[i] - points[j]
            factor *= gap
            slope[j] = ((points[i] - at) * slope[j] - value[j]) / gap
            value[j] = (points[i] - at) * value[j] / gap
        slope[i] = product / factor * (previous_value - distance * previous_slope)
        value[i] = -product / factor * distance * previous_value
        product = factor
    return slope


@lru_cache(maxsize=64)
def _stencils(axis: Axis, order: int) -> tuple[Tensor, Tensor]:
    """Indices and weights, $(n, p+1)$ each, of the points that make the derivative at each point."""
    n, width = axis.points, order + 1
    if n < width:
        raise ValueError(f"differences of order {order} expect at least {width} points; axis '{axis.name}' has {n}.")
    x = axis.positions().numpy()
    first = np.arange(n) - order // 2
    if not axis.periodic:
        first = np.clip(first, 0, n - width)
    index = first[:, None] + np.arange(width)
    turns, wrapped = np.divmod(index, n)
    positions = x[wrapped] + turns * axis.extent
    if axis.uniform and axis.periodic:
        row = fornberg(0.0, axis.spacing * (np.arange(width) - order // 2))
        weights = np.broadcast_to((row - row[::-1]) / 2, (n, width)).copy()
    else:
        weights = np.stack([fornberg(x[i], positions[i]) for i in range(n)])
    return torch.from_numpy(wrapped), torch.from_numpy(weights)


def one_sided(axis: Axis, side: str, order: int = 2) -> Tensor:
    """Weights of the derivative at one end of a bounded axis, on all its points, (n,): one-sided differences of a given order.

    Example:
        >>> one_sided(Axis("x", 4, length=3.0), "lower").tolist()
        [-1.5, 2.0, -0.5, 0.0]
    """
    index, weights = _stencils(axis, order)
    end = 0 if side == "lower" else -1
    return torch.zeros(axis.points, dtype=torch.float64).index_add(0, index[end], weights[end])


class CentralDifference(Scheme):
    """Central differences of even order, one-sided at walls, error $O(h^p)$.

    Arguments:
        order: $p$, even.

    Raises:
        ValueError: the order is not a positive even number.
    """

    name = "central"

    def __init__(self, order: int = 2) -> None:
        if order < 2 or order % 2:
            raise ValueError(f"CentralDifference expects an even order of at least 2; got {order}.")
        self.order = order

    def derivative(self, u: Tensor, grid: Grid, axis: str) -> Tensor:
        dim = grid.dim(axis)
        line = grid.axis(axis)
        if line.uniform and line.periodic and self.order == 2:
            return (u.roll(-1, dim) - u.roll(1, dim)) / (2 * line.spacing)
        index, weights = _stencils(line, self.order)
        index, weights = index.to(u.device), weights.to(u)
        moved = u.movedim(dim, -1)
        terms = (weights[:, j] * moved.index_select(-1, index[:, j]) for j in range(index.shape[1]))
        return sum(terms, torch.zeros_like(moved)).movedim(-1, dim)

    def wavenumber(self, axis: Axis) -> Tensor:
        check_periodic(axis, "CentralDifference.wavenumber")
        _, weights = _stencils(axis, self.order)
        phase = 2 * torch.pi * torch.fft.fftfreq(axis.points, 1.0, dtype=torch.float64)
        half = self.order // 2
        k = sum((2 * weights[0, half + j] * torch.sin(j * phase) for j in range(1, half + 1)), torch.zeros_like(phase))
        if axis.points % 2 == 0:
            k[axis.points // 2] = 0.0
        return k
