r"""Relations between channels at each point: equations of state, sums of species, definitions.

Rows at different points share no value, so that the Gram matrix is a diagonal: $|\partial h/\partial u|^2$ at each point.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from constraints.constraint import Constraint, LinearConstraint, as_target
from constraints.grid import Grid
from constraints.linear.derivative import pullback
from constraints.linear.map import LinearMap
from constraints.linear.structured import WeightedSum


class LinearRelation(LinearConstraint):
    r"""$\sum_c a_c u_c = b$ at every point and time; species that sum to one by default.

    Arguments:
        grid: the grid of the fields.
        coefficients: $a$, one a channel, or a number of channels whose values are summed.
        value: b, a number, (points,) or (B, points) on flattened grids.

    Raises:
        ValueError: all coefficients zero, or a value of the wrong shape.

    Example:
        >>> from constraints import Axis, project
        >>> grid = Grid(Axis("x", 1, periodic=True))
        >>> project(LinearRelation(grid, 2), torch.tensor([[[0.8], [0.4]]])).u.flatten().tolist()
        [0.699999988079071, 0.30000001192092896]
    """

    def __init__(self, grid: Grid, coefficients: Sequence[float] | int, value: float | Tensor = 1.0) -> None:
        factors = torch.ones(coefficients) if isinstance(coefficients, int) else torch.tensor(coefficients)
        if not bool((factors != 0).any()):
            raise ValueError("LinearRelation expects a coefficient that is not zero.")
        weights = factors.to(torch.float64).reshape(-1, *(1,) * len(grid.axes)).expand(-1, *grid.shape)
        operator = WeightedSum(weights.clone(), (-len(grid.axes) - 1,))
        super().__init__(operator, as_target(value, operator.rows, "LinearRelation"))
        self.name, self.unit = "relation between channels", "unit of the field"


class Relation(Constraint):
    r"""$h(u_1, \dots, u_C) = 0$ at every point and time: an equation of state.

    Arguments:
        grid: the grid of the fields.
        relation: h, (B, C, *N) to (B, *N), each point from the values at that point.
        channels: number of channels of the fields.
        scale: natural magnitude of h, that of the terms that cancel in it.
        name: what to call it.
        unit: unit of h.

    Raises:
        ValueError: a scale that is not positive, or a relation of another shape.

    Example:
        >>> from constraints import Axis, project
        >>> gas = Relation(Grid(Axis("x", 2, periodic=True)), lambda u: u[:, 0] - u[:, 1] * u[:, 2], channels=3)
        >>> result = project(gas, torch.ones(1, 3, 2, dtype=torch.float64) * torch.tensor([2.0, 1.0, 1.0])[:, None])
        >>> bool(result.converged.all())
        True
    """

    def __init__(
        self,
        grid: Grid,
        relation: Callable[[Tensor], Tensor],
        *,
        channels: int,
        scale: float = 1.0,
        name: str = "relation",
        unit: str = "unit of the relation",
    ) -> None:
        super().__init__()
        if not scale > 0:
            raise ValueError(f"Relation expects a positive scale; got {scale}.")
        self.shape, self.relation, self._scale = (channels, *grid.shape), relation, scale
        self.name, self.unit = name, unit

    def residual(self, u: Tensor) -> Tensor:
        value = self.relation(u)
        if tuple(value.shape) != (len(u), *self.shape[1:]):
            wanted = ", ".join(str(n) for n in (len(u), *self.shape[1:]))
            raise ValueError(f"{self.name} expects a function to ({wanted}); it gave {tuple(value.shape)}.")
        return value.flatten(1)

    def scale(self, u: Tensor) -> Tensor:
        return u.new_full((len(u), 1), self._scale)

    def jacobian(self, u: Tensor) -> LinearMap:
        value, pull = pullback(self.residual, u)
        return WeightedSum(pull(torch.ones_like(value)), (-len(self.shape),), batched=True)
