r"""Differences between neighbouring points, on the cells between them.

The points of an axis are faces, the intervals between them cells: $(\delta u)_i = (u_{i+1} - u_i)/h_i$, one cell fewer than points on a
bounded axis. With each component of a velocity on its own faces this is the marker-and-cell divergence (Harlow & Welch, Phys. Fluids 8
(1965) 2182), which sees no checkerboard and balances every cell to round-off.
"""

from __future__ import annotations

import torch
from torch import Tensor

from constraints.calculus.scheme import Scheme
from constraints.grid import Axis, Grid


class Staggered(Scheme):
    """Two-point differences from faces to cells; entry i belongs to the cell between points i and i + 1, zero behind the last.

    Example:
        >>> Staggered().matrix(Axis("x", 3, length=1.0)).tolist()
        [[-2.0, 2.0, 0.0], [0.0, -2.0, 2.0], [0.0, 0.0, 0.0]]
    """

    name = "staggered"
    centred = False

    def widths(self, axis: Axis) -> Tensor:
        """Widths of the cells, (n,); zero behind the last point of a bounded axis."""
        x = axis.positions()
        end = x[:1] + axis.extent if axis.periodic else x[-1:]
        return torch.diff(torch.cat([x, end]))

    def derivative(self, u: Tensor, grid: Grid, axis: str) -> Tensor:
        line = grid.axis(axis)
        if line.cells:
            raise ValueError(f"Staggered expects points on the faces of cells; those of '{axis}' are cell centres.")
        widths = grid.along(axis, self.widths(line)).to(u)
        inside = widths > 0
        return torch.where(inside, (u.roll(-1, grid.dim(axis)) - u) / torch.where(inside, widths, 1.0), 0.0)

    def wavenumber(self, axis: Axis) -> Tensor:
        raise ValueError("Staggered differences are shifted by half a cell: their symbol is not imaginary.")

    def between(self, axis: Axis) -> Tensor:
        return (self.widths(axis) > 0).to(torch.float64)
