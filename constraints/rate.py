r"""One channel is the rate of change of another, up to a factor, $\partial_t u = c\,r$, by central differences of second order in time.

On unequal steps $a$ before and $b$ behind a time, the derivative of the parabola through three times,

$$\frac{a^2 u_{n+1} + (b^2 - a^2) u_n - b^2 u_{n-1}}{a b (a + b)}.$$

Rows are inner times, at every point in space if there is space. Histories are the common case: energy and dissipation, position and speed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from constraints.constraint import LinearConstraint
from constraints.grid import Grid
from constraints.linear.sparse import SparseMap


class Rate(LinearConstraint):
    r"""$\partial_t u - c\,r = 0$ at inner times.

    The scale is the largest rate, not the largest difference quotient: what is asked is how well the rate is met.

    Arguments:
        grid: a grid with at least three times.
        of: channel of u.
        rate: channel of r.
        factor: c.
        channels: number of channels of the fields.

    Raises:
        ValueError: fewer than three times, channels that are none or the same, or a factor of zero.

    Example:
        >>> from constraints import Axis
        >>> law = Rate(Grid(Axis("time", 3, length=2.0)))
        >>> law.residual(torch.tensor([[[0.0, 1.0, 4.0], [0.0, 2.0, 4.0]]])).tolist()
        [[0.0]]
    """

    def __init__(self, grid: Grid, *, of: int = 0, rate: int = 1, factor: float = 1.0, channels: int = 2) -> None:
        import scipy.sparse

        if not grid.has_time or grid.axes[0].points < 3:
            raise ValueError(f"Rate expects a grid with at least three times; got the axes {', '.join(grid.names)}.")
        if of == rate or not (0 <= of < channels and 0 <= rate < channels):
            raise ValueError(f"Rate expects two different channels between 0 and {channels - 1}; got {of} and {rate}.")
        if factor == 0 or factor != factor:
            raise ValueError(f"Rate expects a factor that is not zero; got {factor}.")
        gaps = torch.diff(grid.axes[0].positions()).numpy()
        a, b = gaps[:-1], gaps[1:]
        n = grid.axes[0].points
        size = a * b * (a + b)
        difference = scipy.sparse.diags_array([-(b**2) / size, (b**2 - a**2) / size, a**2 / size], offsets=[0, 1, 2], shape=(n - 2, n))
        inner = scipy.sparse.eye_array(n, format="csr")[1:-1]
        space = scipy.sparse.eye_array(int(torch.Size(grid.shape[1:]).numel()))
        blocks: list[Any] = [None] * channels
        for channel in range(channels):
            along = difference if channel == of else -factor * inner if channel == rate else 0 * inner
            blocks[channel] = scipy.sparse.kron(along, space, format="csr")
        operator = SparseMap(scipy.sparse.hstack(blocks, format="csr"), (channels, *grid.shape))
        super().__init__(operator, torch.zeros(operator.rows, dtype=torch.float64))
        self.channel, self.factor = rate, factor
        self.name, self.unit = "rate of change", "unit of the field over time"

    def measure(self, u: Tensor) -> tuple[Tensor, Tensor]:
        return self.residual(u), self.equated(u)

    def equated(self, u: Tensor) -> Tensor:
        return (self.factor * u[:, self.channel]).abs().flatten(1).amax(1, keepdim=True)
