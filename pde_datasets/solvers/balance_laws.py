r"""The balance of a quantity whose inflow is unknown but steady.

With $b_n = M_{n+1} - M_n - \int_{t_n}^{t_{n+1}} q\,dt$, what came in during a step beside the known rate q, the same in each of S steps:

$$b_n = \tfrac1S\textstyle\sum_m b_m .$$

Rows less their mean are solved by two sweeps of the rows' own tridiagonal Gram matrix.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from constraints import Budget, Grid
from constraints.linear.map import LinearMap
from constraints.linear.stepping import TimeSteps


class SteadyBudget(Budget):
    r"""$M_{n+1} - M_n - \Delta t\,((1-\theta)q_n + \theta q_{n+1})$ is the same for every pair of stored times.

    One row repeats the others: their sum vanishes for any field.

    Arguments:
        grid: at least two equally spaced times.
        rate, theta, density, name: as `Budget`.

    Raises:
        ValueError: as `Budget`, or times that are not equally spaced.
    """

    def __init__(
        self,
        grid: Grid,
        rate: Callable[[Tensor], Tensor] | None = None,
        *,
        theta: float = 0.5,
        density: Callable[[Tensor], Tensor] | None = None,
        name: str = "steady balance",
    ) -> None:
        super().__init__(grid, rate, theta=theta, density=density, name=name)
        if not grid.axes[0].uniform:
            raise ValueError("SteadyBudget expects equally spaced times, so that as much comes in between any two.")

    def residual(self, u: Tensor) -> Tensor:
        return _centred(super().residual(u))

    def linearise(self, u: Tensor) -> tuple[Tensor, LinearMap]:
        residual, steps = super().linearise(u)
        assert isinstance(steps, TimeSteps)
        return _centred(residual), CentredSteps(steps)

    def curvature(self, u: Tensor, multiplier: Tensor, direction: Tensor) -> Tensor:
        return super().curvature(u, _centred(multiplier), direction)


class CentredSteps(LinearMap):
    r"""Rows of `TimeSteps` less their mean, $PA$ with $P = I - \tfrac1m 1 1^\top$.

    $PAA^\top P\,y = Pr$ is solved by $y = P(z - \alpha w)$ with $AA^\top z = Pr$, $AA^\top w = 1$, $\alpha = \sum z/\sum w$.

    Arguments:
        inner: A, of full rank.
    """

    batched = True

    def __init__(self, inner: TimeSteps) -> None:
        super().__init__()
        self.inner, self.shape, self.rows = inner, inner.shape, inner.rows

    def forward(self, u: Tensor) -> Tensor:
        return _centred(self.inner(u))

    def adjoint(self, y: Tensor) -> Tensor:
        return self.inner.adjoint(_centred(y))

    def solve_gram(self, r: Tensor) -> Tensor:
        z, w = self.inner.solve_gram(_centred(r)), self.inner.solve_gram(torch.ones_like(r))
        return _centred(z - z.sum(1, keepdim=True) / w.sum(1, keepdim=True) * w)

    def weighted(self, diagonal: Tensor) -> LinearMap:
        inner = self.inner.weighted(diagonal)
        assert isinstance(inner, TimeSteps)
        return CentredSteps(inner)

    def scale(self, u: Tensor) -> Tensor:
        return self.inner.scale(u)


def _centred(rows: Tensor) -> Tensor:
    return rows - rows.mean(1, keepdim=True)
