r"""How far fields are from an evolution equation, $u_t = f(u)$.

The residual $R = u_t - f(u)$ is that of a discretisation of the stored fields, so that the truth itself has one, of the size of its
truncation error: read it beside the reference's own. Relative to its terms,

$$r = \Bigl(\frac{\langle R^2\rangle}{\langle u_t^2\rangle + \langle f(u)^2\rangle}\Bigr)^{1/2},$$

0 obeys, 1 knows nothing of the equation, $\sqrt2$ runs backwards. Fields that do not move and have no reason to are obedient: read
`amplitude_ratio` beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from constraints import EvolutionEquation, Grid
from constraints.calculus import CentralDifference

_ROUNDING = 1e3
"""Round-off of rates, in that of the fields over a time step: derivatives in space amplify it by at most about as much."""


class EquationResidual(NamedTuple):
    """Root mean square residual of each sample.

    Attributes:
        absolute: (N,), in the unit of u over that of time.
        relative: (N,), over the root of the sum of both terms' mean squares; zero where both are round-off of the fields.
    """

    absolute: Tensor
    relative: Tensor


def equation_residual(u: Tensor, grid: Grid, rate: Callable[[Tensor], Tensor], *, order: int = 4, margin: int = 2) -> EquationResidual:
    r"""Residual of $u_t = f(u)$ with central differences in time.

    Times without centred neighbours are left out, and so are points next to bounded ends, where boundary data rule and differences are
    one-sided. Mean squares are over all others and the channels.

    Arguments:
        u: fields, (N, C, *N).
        grid: their grid, with more than `order` times.
        rate: f, (N, C, *N) to the same shape, each time from the fields at that time; see `pcfm.metrics.equations`.
        order: of the differences in time, even.
        margin: points left out at bounded ends of space axes.

    Raises:
        ValueError: u is not on the grid, too few times or points, or a rate of another shape.
    """
    grid.check(u, "equation_residual")
    if not grid.has_time or grid.axes[0].points <= order:
        raise ValueError(f"equation_residual of order {order} expects more than {order} times; got {grid}.")
    f = rate(u)
    if f.shape != u.shape:
        raise ValueError(f"equation_residual expects a rate of shape {tuple(u.shape)}; it gave {tuple(f.shape)}.")
    change = CentralDifference(order).derivative(u, grid, "time")
    step = float(torch.diff(grid.axes[0].positions()).min())
    return _of(_inside(change, grid, order // 2, margin), _inside(f, grid, order // 2, margin), u, step)


def scheme_residual(law: EvolutionEquation, u: Tensor) -> EquationResidual:
    r"""Residual of a scheme's own steps at the points the law holds at.

    $$R = \frac{u_{n+1} - u_n}{\Delta t_n} - (1 - \theta)f(u_n) - \theta f(u_{n+1}).$$

    Zero, to round-off, for what the scheme made.

    Arguments:
        law: the steps.
        u: fields, (N, C, *N).
    """
    steps, gaps = law.steps, law.gaps.to(u).reshape(-1, 1)
    rates = law.rate(u[:, :, : steps + 1])
    f = ((1 - law.theta) * rates[:, :, :-1] + law.theta * rates[:, :, 1:]).flatten(3)[..., law.points]
    change = torch.diff(u[:, :, : steps + 1], dim=2).flatten(3)[..., law.points] / gaps
    return _of(change, f, u, float(law.gaps.min()))


def _of(change: Tensor, rate: Tensor, u: Tensor, step: float) -> EquationResidual:
    """From both terms at the points that count, the fields they are of, and the time step."""
    absolute, *terms = (part.flatten(1).square().mean(1).sqrt() for part in (change - rate, change, rate))
    both = torch.hypot(*terms)
    noise = _ROUNDING * torch.finfo(u.dtype).eps / step * u.flatten(1).square().mean(1).sqrt()
    return EquationResidual(absolute, torch.where(both <= noise, 0.0, absolute / both))


def _inside(u: Tensor, grid: Grid, times: int, margin: int) -> Tensor:
    """Fields without the first and last times, and without points next to bounded ends."""
    u = u.narrow(grid.dim("time"), times, grid.axes[0].points - 2 * times)
    for axis in grid.space_axes:
        if not axis.periodic and margin:
            if axis.points <= 2 * margin:
                raise ValueError(f"equation_residual expects more than {2 * margin} points along {axis.name}; got {axis.points}.")
            u = u.narrow(grid.dim(axis.name), margin, axis.points - 2 * margin)
    return u
