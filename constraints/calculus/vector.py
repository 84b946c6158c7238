"""Vector calculus over any scheme. Components follow the order of the grid's space axes."""

from __future__ import annotations

import torch
from torch import Tensor

from constraints.calculus.scheme import Scheme
from constraints.grid import Grid


def gradient(u: Tensor, grid: Grid, scheme: Scheme) -> Tensor:
    """Gradient of scalar fields (B, 1, *N): (B, d, *N)."""
    grid.check(u, "gradient", channels=1)
    return torch.cat([scheme.derivative(u, grid, axis.name) for axis in grid.space_axes], dim=1)


def divergence(u: Tensor, grid: Grid, scheme: Scheme) -> Tensor:
    """Divergence of vector fields (B, d, *N): (B, 1, *N)."""
    grid.check(u, "divergence", channels=len(grid.space_axes))
    parts = [scheme.derivative(u[:, c : c + 1], grid, axis.name) for c, axis in enumerate(grid.space_axes)]
    return torch.stack(parts).sum(0)


def curl(u: Tensor, grid: Grid, scheme: Scheme) -> Tensor:
    """Curl of vector fields: (B, 2, *N) gives the scalar vorticity (B, 1, *N), (B, 3, *N) a vector (B, 3, *N).

    Raises:
        ValueError: the grid has neither two nor three space axes.
    """
    names = [axis.name for axis in grid.space_axes]
    grid.check(u, "curl", channels=len(names))

    def d(component: int, axis: int) -> Tensor:
        return scheme.derivative(u[:, component : component + 1], grid, names[axis])

    if len(names) == 2:
        return d(1, 0) - d(0, 1)
    if len(names) == 3:
        return torch.cat([d(2, 1) - d(1, 2), d(0, 2) - d(2, 0), d(1, 0) - d(0, 1)], dim=1)
    raise ValueError(f"curl expects two or three space axes; the grid has {len(names)}.")


def laplacian(u: Tensor, grid: Grid, scheme: Scheme) -> Tensor:
    """Divergence of the gradient of each channel, (B, C, *N); the composed first derivatives, hence blind to Nyquist modes."""
    grid.check(u, "laplacian")
    total = torch.zeros_like(u)
    for axis in grid.space_axes:
        total = total + scheme.derivative(scheme.derivative(u, grid, axis.name), grid, axis.name)
    return total
