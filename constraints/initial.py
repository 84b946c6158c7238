"""Data at one physical time: the first, the last, or any other."""

from __future__ import annotations

import torch
from torch import Tensor

from constraints.constraint import LinearConstraint
from constraints.grid import Grid
from constraints.linear.structured import Selection


class _AtOneTime(LinearConstraint):
    """Fields given at one stored time."""

    unit = "unit of the field"

    def __init__(self, grid: Grid, index: int, value: Tensor) -> None:
        speaker = type(self).__name__
        if not grid.has_time:
            raise ValueError(f"{speaker} expects a grid with a time axis, first; got the axes {', '.join(grid.names)}.")
        times, space = grid.shape[0], grid.shape[1:]
        if not -times <= index < times:
            raise ValueError(f"{speaker} expects one of {times} times; got index {index}.")
        batched = value.ndim == len(space) + 2
        if value.ndim not in (len(space) + 1, len(space) + 2) or tuple(value.shape[value.ndim - len(space) :]) != space:
            raise ValueError(
                f"{speaker} expects fields at one time, (C, {', '.join(map(str, space))}) or with a batch in front; "
                f"got {tuple(value.shape)}."
            )
        if not torch.isfinite(value).all():
            raise ValueError(f"{speaker} expects finite fields; got NaN or Inf.")
        mask = torch.zeros(value.shape[1 if batched else 0], *grid.shape, dtype=torch.bool)
        mask[:, index] = True
        super().__init__(Selection(mask), value.flatten(1) if batched else value.flatten())


class Snapshot(_AtOneTime):
    """The fields at one stored time equal given ones.

    Arguments:
        grid: a grid with physical time.
        index: which time; negative ones count from the last.
        value: fields at that time, (C, *space), or (B, C, *space) if each sample has its own.

    Raises:
        ValueError: the grid has no time or not that one, or the value is not on its space axes.
    """

    def __init__(self, grid: Grid, index: int, value: Tensor) -> None:
        super().__init__(grid, index, value)
        self.name = f"snapshot {index}"


class InitialCondition(_AtOneTime):
    """The fields at the first time equal given ones; arguments and errors as `Snapshot`."""

    def __init__(self, grid: Grid, value: Tensor) -> None:
        super().__init__(grid, 0, value)
        self.name = "initial condition"


class FinalCondition(_AtOneTime):
    """The fields at the last time equal given ones; arguments and errors as `Snapshot`."""

    def __init__(self, grid: Grid, value: Tensor) -> None:
        super().__init__(grid, -1, value)
        self.name = "final condition"
