"""Grids, random fields and dense matrices that the tests of `constraints` share."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from constraints import Axis, DivergenceFree, Grid
from constraints.linear import LinearMap

TAU = 2 * math.pi
PLANE = Grid(Axis("x", 8, length=TAU, periodic=True), Axis("y", 7, length=3.0, periodic=True))
FILM = Grid(Axis("time", 4), Axis("x", 6, length=TAU, periodic=True), Axis("y", 4, length=TAU, periodic=True))
BOX = Grid(*(Axis(n, 4, length=TAU, periodic=True) for n in "xyz"))
WALLS = Grid(Axis("time", 3), Axis("x", 6, periodic=True), Axis("y", 5, length=2.0))
CHANNEL = Grid(Axis("x", 6, length=TAU, periodic=True), Axis.at("y", [-1.0, -0.9, -0.5, 0.1, 0.8, 1.0]))
CAVITY = Grid(Axis("x", 6, length=2.0), Axis.at("y", [0.0, 0.2, 0.3, 0.7, 1.0]))
ROOM = Grid(Axis("x", 4), Axis.at("y", [0.0, 0.3, 0.5, 1.0]), Axis("z", 3, length=TAU, periodic=True))
DUCT = Grid(Axis("time", 3), Axis("x", 7), Axis("y", 8, length=2.0))
HALL = Grid(Axis("x", 9, length=2.0), Axis.at("y", [0.0, 0.1, 0.2, 0.4, 0.6, 0.7, 0.9, 1.0]))
LOOP = Grid(Axis("time", 5), Axis("x", 6, periodic=True))
RING = Grid(Axis("time", 5), Axis("x", 7, periodic=True))
TANK = Grid(Axis("x", 5, length=2.0, cells=True), Axis("y", 4, periodic=True))
LINE = Grid(Axis("time", 5), Axis.at("x", [0.0, 0.1, 0.3, 0.6, 1.0]))


def normal(shape: tuple[int, ...], seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def burgers(u: Tensor) -> Tensor:
    return u.square() / 2


def logistic(u: Tensor) -> Tensor:
    """A rate for budgets on LINE: growth in the domain, and what flows through its ends."""
    w = u[:, 0]
    return 0.3 * (w * (1 - w)).mean(-1) + burgers(w[..., 0]) - burgers(w[..., -1])


def decay(u: Tensor) -> Tensor:
    """A right-hand side that sees neighbours."""
    return 0.2 * (u.roll(1, -1) - 2 * u + u.roll(-1, -1)) - 0.1 * u.pow(3)


def divergence(grid: Grid, scheme: str = "spectral") -> LinearMap:
    return DivergenceFree(grid, scheme).operator


def dense(operator: LinearMap) -> Tensor:
    """The matrix of a map, (m, n), column by column."""
    size = math.prod(operator.shape)
    return torch.stack([operator(e.reshape(1, *operator.shape))[0] for e in torch.eye(size, dtype=torch.float64)], dim=1)


def half(shape: tuple[int, ...]) -> Tensor:
    return (torch.rand(shape, generator=torch.Generator().manual_seed(7)) < 0.4).expand(shape)


def few(shape: tuple[int, ...]) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(8)) < 0.05
