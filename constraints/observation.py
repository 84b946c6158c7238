r"""Observations: values at points, means over patches, weighted integrals and circulations, exact or with noise.

With a variance, the projection is the posterior mean of a Gaussian field around the input (of covariance $M^{-1}$, the metric's) given
the observation: the update of ProbConserv (Hansen et al., ICML 2023) and of a Kalman filter. Its limit of no noise is the exact law.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from constraints.constraint import LinearConstraint, as_target
from constraints.grid import Grid
from constraints.linear.sparse import SparseMap
from constraints.linear.structured import Selection, WeightedSum


class PointValues(LinearConstraint):
    """The values of a field at chosen grid points: sensors, masks, missing data.

    Arguments:
        mask: which values are known, boolean, (C, *N).
        value: fields of which the known values are taken, (C, *N) or (B, C, *N); or the known values themselves, (m,) or (B, m), in the
            order of the mask.
        variance: of independent noise, a number or (m,); None for exact values.

    Raises:
        ValueError: the mask is not boolean or empty, or the value or variance has another shape.
    """

    unit = "unit of the field"

    def __init__(self, mask: Tensor, value: Tensor, *, variance: float | Tensor | None = None) -> None:
        if mask.dtype != torch.bool or not mask.any():
            raise ValueError(f"PointValues expects a boolean mask with at least one point; got {mask.dtype}, {int(mask.sum())} points.")
        if tuple(value.shape) == tuple(mask.shape):
            value = value[mask]
        elif tuple(value.shape[1:]) == tuple(mask.shape):
            value = value[:, mask]
        super().__init__(Selection(mask), as_target(value, int(mask.sum()), "PointValues"), variance)
        self.name = f"values at {int(mask.sum())} points"


class PatchMeans(LinearConstraint):
    r"""Means over patches of a field: coarse cells, sensors of finite size, downscaled data.

    Arguments:
        grid: the grid of the fields.
        patches: the number of the patch of each space point, from 0, or -1 for none, (*space), integer.
        value: rows are (component, time, patch); a number, (m,), or (B, m).
        variance: of independent noise, a number or (m,); None for exact means.
        components: channels that are averaged; all by default.
        channels: number of channels of the fields.

    Raises:
        ValueError: patches of another shape, an empty patch, or a value of the wrong shape.
    """

    unit = "unit of the field"

    def __init__(
        self,
        grid: Grid,
        patches: Tensor,
        value: float | Sequence[float] | Tensor,
        *,
        variance: float | Tensor | None = None,
        components: Sequence[int] | None = None,
        channels: int = 1,
    ) -> None:
        space = tuple(axis.points for axis in grid.space_axes)
        if tuple(patches.shape) != space or patches.is_floating_point():
            raise ValueError(
                f"PatchMeans expects the number of each point's patch, integers {space}; got {patches.dtype}, {tuple(patches.shape)}."
            )
        operator = SparseMap(_patch_rows(grid, patches.flatten(), channels, components), (channels, *grid.shape))
        super().__init__(operator, as_target(value, operator.rows, "PatchMeans"), variance)
        self.name = f"means over {int(patches.max()) + 1} patches"


def _patch_rows(grid: Grid, patches: Tensor, channels: int, components: Sequence[int] | None) -> Any:
    """The matrix of patch means of chosen channels at every time."""
    import scipy.sparse

    count, times = int(patches.max()) + 1, grid.shape[0] if grid.has_time else 1
    volumes = grid.weights().expand(grid.shape)[0] if grid.has_time else grid.weights().expand(grid.shape)
    inside = patches >= 0
    total = torch.zeros(count, dtype=torch.float64).index_add(0, patches[inside], volumes.flatten()[inside])
    if count == 0 or bool((total == 0).any()):
        raise ValueError("PatchMeans expects patches numbered from 0 without gaps; one is empty.")
    weights = (volumes.flatten()[inside] / total[patches[inside]]).numpy()
    places = (patches[inside].numpy(), inside.nonzero()[:, 0].numpy())
    means = scipy.sparse.csr_array((weights, places), shape=(count, patches.numel()))
    chosen = list(range(channels)) if components is None else list(components)
    each = scipy.sparse.kron(scipy.sparse.eye_array(channels, format="csr")[chosen], scipy.sparse.eye_array(times), format="csr")
    return scipy.sparse.kron(each, means, format="csr")


class WeightedIntegral(LinearConstraint):
    r"""One integral $\int\sum_c w_c u_c\,dV$ at every time, for any weight: a circulation, a flow rate, the reading of a wide sensor.

    Arguments:
        grid: the grid of the fields.
        weight: $w$, broadcastable to (C, *N).
        value: its value, as for `Mass`; rows are times.
        variance: of independent noise, a number or one a row; None for exact integrals.
        channels: number of channels of the fields.
        name: what to call it.

    Raises:
        ValueError: the weight does not fit the grid, or the value the rows.
    """

    unit = "unit of the field and weight times volume"

    def __init__(
        self,
        grid: Grid,
        weight: Tensor,
        value: float | Sequence[float] | Tensor,
        *,
        variance: float | Tensor | None = None,
        channels: int = 1,
        name: str = "weighted integral",
    ) -> None:
        try:
            weights = weight.to(torch.float64).expand(channels, *grid.shape) * grid.weights()
        except RuntimeError as error:
            raise ValueError(
                f"WeightedIntegral expects a weight that broadcasts to {(channels, *grid.shape)}; got {tuple(weight.shape)}."
            ) from error
        operator = WeightedSum(weights.clone(), (-len(grid.axes) - 1, *grid.space_dims))
        super().__init__(operator, as_target(value, operator.rows, "WeightedIntegral"), variance)
        self.name = name


class Circulation(LinearConstraint):
    r"""$\oint \mathbf u\cdot d\mathbf l$ around a rectangle of grid lines, anticlockwise, trapezoidal, at every time.

    Arguments:
        grid: a grid with two space axes.
        rectangle: first and last index on the first axis, then on the second.
        value: the circulation; rows are times.
        components: channels of the velocity; the first two by default.
        channels: number of channels of the fields.

    Raises:
        ValueError: not two space axes, indices that make no rectangle, or a value of the wrong shape.
    """

    unit = "unit of the field times length"

    def __init__(
        self,
        grid: Grid,
        rectangle: tuple[int, int, int, int],
        value: float | Sequence[float] | Tensor = 0.0,
        *,
        components: tuple[int, int] = (0, 1),
        channels: int | None = None,
    ) -> None:
        axes = grid.space_axes
        left, right, bottom, top = rectangle
        if len(axes) != 2 or not (0 <= left < right < axes[0].points and 0 <= bottom < top < axes[1].points):
            raise ValueError(f"Circulation expects a rectangle of indices on two space axes of {grid.shape[-2:]} points; got {rectangle}.")
        total = max(components) + 1 if channels is None else channels
        weights = torch.zeros(total, axes[0].points, axes[1].points, dtype=torch.float64)
        along_x, along_y = (torch.zeros(axis.points, dtype=torch.float64) for axis in axes)
        for line, axis, (first, last) in ((along_x, axes[0], (left, right)), (along_y, axes[1], (bottom, top))):
            x = axis.positions()[first : last + 1]
            line[first:last] += torch.diff(x) / 2
            line[first + 1 : last + 1] += torch.diff(x) / 2
        weights[components[0], :, bottom] += along_x
        weights[components[0], :, top] -= along_x
        weights[components[1], right, :] += along_y
        weights[components[1], left, :] -= along_y
        full = weights.reshape(total, *(1,) * (len(grid.shape) - 2), *grid.shape[-2:]).expand(total, *grid.shape)
        operator = WeightedSum(full.clone(), (-len(grid.axes) - 1, *grid.space_dims))
        super().__init__(operator, as_target(value, operator.rows, "Circulation"))
        self.name = "circulation"
