r"""Poisson's equation between two channels, $\nabla_h^2 v = f$, by the standard second differences of each axis.

$$\frac{v_{i-1} - 2 v_i + v_{i+1}}{h^2}$$

along every equally spaced axis, at every point of a periodic axis and of one of cells, at the inner points of one of nodes. Beyond the
end of an axis of cells stands the mirror image of the last value: with the other sign where v vanishes on the wall between them
(Dirichlet), with the same one where its normal derivative does (Neumann).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from constraints.constraint import LinearConstraint
from constraints.grid import Axis, Grid
from constraints.linear.sparse import SparseMap

ENDS = {"dirichlet": -1.0, "neumann": 1.0}
"""What the value beyond the end of an axis of cells is, as a multiple of the last one."""


class Poisson(LinearConstraint):
    r"""$\nabla_h^2 v - f = 0$ at every time; v and f are channels of the fields.

    Arguments:
        grid: equally spaced space axes of at least two points, three where both ends are stored.
        unknown: channel of v.
        source: channel of f.
        channels: number of channels of the fields.
        ends: what v does on the walls of axes of cells, "dirichlet" or "neumann".

    Raises:
        ValueError: axes that are not equally spaced or too short, channels that are none or the same, or an unknown end.

    Example:
        >>> grid = Grid(Axis("x", 4, length=4.0, periodic=True))
        >>> law = Poisson(grid)
        >>> law.residual(torch.tensor([[[1.0, 0.0, 0.0, 0.0], [-2.0, 1.0, 0.0, 1.0]]])).tolist()
        [[0.0, 0.0, 0.0, 0.0]]
    """

    def __init__(self, grid: Grid, *, unknown: int = 0, source: int = 1, channels: int = 2, ends: str = "dirichlet") -> None:
        import scipy.sparse

        if ends not in ENDS:
            raise ValueError(f"Poisson expects ends among {', '.join(ENDS)}; got '{ends}'.")
        if unknown == source or not (0 <= unknown < channels and 0 <= source < channels):
            raise ValueError(f"Poisson expects two different channels between 0 and {channels - 1}; got {unknown} and {source}.")
        laplacian: Any = 0
        for axis in grid.space_axes:
            along: Any = scipy.sparse.eye_array(1)
            for other in grid.axes:
                factor = _second(axis, ENDS[ends]) if other is axis else scipy.sparse.eye_array(other.points)
                along = scipy.sparse.kron(along, factor, format="csr")
            laplacian = laplacian + along
        inner: Any = scipy.sparse.eye_array(1)
        for axis in grid.axes:
            walls = axis.name != "time" and not axis.periodic and not axis.cells
            rows = scipy.sparse.eye_array(axis.points, format="csr")
            inner = scipy.sparse.kron(inner, rows[1:-1] if walls else rows, format="csr")
        pick = [[1.0 if c == chosen else 0.0 for c in range(channels)] for chosen in (unknown, source)]
        matrix = scipy.sparse.kron([pick[0]], inner @ laplacian) - scipy.sparse.kron([pick[1]], inner)
        operator = SparseMap(matrix, (channels, *grid.shape))
        super().__init__(operator, torch.zeros(operator.rows, dtype=torch.float64))
        self.source = source
        self.name, self.unit = "Poisson's equation", "unit of the field over length squared"

    def equated(self, u: Tensor) -> Tensor:
        return u[:, self.source].abs().flatten(1).amax(1, keepdim=True)


def _second(axis: Axis, image: float) -> Any:
    """Second differences along an axis, (n, n); rows of the ends of nodes mean nothing."""
    import scipy.sparse

    n = axis.points
    if not axis.uniform or n < (2 if axis.periodic or axis.cells else 3):
        raise ValueError(f"Poisson expects equally spaced points, two or more, or three with both ends; axis '{axis.name}' has {n}.")
    matrix = scipy.sparse.diags_array([1.0, -2.0, 1.0], offsets=[-1, 0, 1], shape=(n, n), format="lil")
    if axis.periodic:
        matrix[0, n - 1] += 1.0
        matrix[n - 1, 0] += 1.0
    elif axis.cells:
        matrix[0, 0] += image
        matrix[n - 1, n - 1] += image
    return matrix.tocsr() / axis.spacing**2
