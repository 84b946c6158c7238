"""Observations taken as exact: values at points, and weighted integrals of any kind."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from constraints.constraint import LinearConstraint, as_target
from constraints.grid import Grid
from constraints.linear.structured import Selection, WeightedSum


class PointValues(LinearConstraint):
    """The values of a field at chosen grid points: sensors, masks, missing data.

    Arguments:
        mask: which values are known, boolean, (C, *N).
        value: fields of which the known values are taken, (C, *N) or (B, C, *N); or the known values themselves, (m,) or (B, m), in the
            order of the mask.

    Raises:
        ValueError: the mask is not boolean or empty, or the value has another shape.
    """

    unit = "unit of the field"

    def __init__(self, mask: Tensor, value: Tensor) -> None:
        if mask.dtype != torch.bool or not mask.any():
            raise ValueError(f"PointValues expects a boolean mask with at least one point; got {mask.dtype}, {int(mask.sum())} points.")
        if tuple(value.shape) == tuple(mask.shape):
            value = value[mask]
        elif tuple(value.shape[1:]) == tuple(mask.shape):
            value = value[:, mask]
        super().__init__(Selection(mask), as_target(value, int(mask.sum()), "PointValues"))
        self.name = f"values at {int(mask.sum())} points"


class WeightedIntegral(LinearConstraint):
    r"""One integral $\int\sum_c w_c u_c\,dV$ at every time, for any weight: a circulation, a flow rate, the reading of a wide sensor.

    Arguments:
        grid: the grid of the fields.
        weight: $w$, broadcastable to (C, *N).
        value: its value, as for `Mass`; rows are times.
        channels: number of channels of the fields.
        name: what to call it.

    Raises:
        ValueError: the weight does not fit the grid, or the value the rows.
    """

    unit = "unit of the field and weight times volume"

    def __init__(
        self, grid: Grid, weight: Tensor, value: float | Sequence[float] | Tensor, *, channels: int = 1, name: str = "weighted integral"
    ) -> None:
        try:
            weights = weight.to(torch.float64).expand(channels, *grid.shape) * grid.weights()
        except RuntimeError as error:
            raise ValueError(
                f"WeightedIntegral expects a weight that broadcasts to {(channels, *grid.shape)}; got {tuple(weight.shape)}."
            ) from error
        operator = WeightedSum(weights.clone(), (-len(grid.axes) - 1, *grid.space_dims))
        super().__init__(operator, as_target(value, operator.rows, "WeightedIntegral"))
        self.name = name
