"""Initial data: the field at the first physical time is given."""

from __future__ import annotations

import torch
from torch import Tensor

from constraints.constraint import LinearConstraint
from constraints.grid import Grid
from constraints.linear.structured import Selection


class InitialCondition(LinearConstraint):
    """The fields at the first time equal given ones.

    Arguments:
        grid: a grid with physical time.
        value: fields at the first time, (C, *space), or (B, C, *space) if each sample has its own.

    Raises:
        ValueError: the grid has no time, or the value is not on its space axes.
    """

    name = "initial condition"
    unit = "unit of the field"

    def __init__(self, grid: Grid, value: Tensor) -> None:
        if not grid.has_time:
            raise ValueError(f"InitialCondition expects a grid with a time axis, first; got the axes {', '.join(grid.names)}.")
        space = grid.shape[1:]
        batched = value.ndim == len(space) + 2
        if value.ndim not in (len(space) + 1, len(space) + 2) or tuple(value.shape[value.ndim - len(space) :]) != space:
            raise ValueError(
                f"InitialCondition expects fields at the first time, (C, {', '.join(map(str, space))}) or with a batch in front; "
                f"got {tuple(value.shape)}."
            )
        if not torch.isfinite(value).all():
            raise ValueError("InitialCondition expects finite fields; got NaN or Inf.")
        channels = value.shape[1] if batched else value.shape[0]
        mask = torch.zeros(channels, *grid.shape, dtype=torch.bool)
        mask[:, 0] = True
        super().__init__(Selection(mask), value.flatten(1) if batched else value.flatten())

    def measure(self, u: Tensor) -> tuple[Tensor, Tensor]:
        target = self.target.to(u)
        size = torch.maximum(u.flatten(1).abs().amax(1, keepdim=True), target.abs().reshape(-1, self.operator.rows).amax(1, keepdim=True))
        return self.operator(u) - target, size
