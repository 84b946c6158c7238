r"""Sums over space that say how they depend on the fields: $\sum_i a_i u_i + d_i u_i^2$ at each time."""

from __future__ import annotations

import torch
from torch import Tensor

from constraints.units import Chart


class Quadratic:
    r"""$c + \sum_i a_i u_i + d_i u_i^2$ over channels and space at each time, (B, C, T, *space) to (B, T).

    A rate of a `Budget` given in this form has its derivatives without a reverse pass; and since it sees nothing of the fields but a few
    sums and its odd points, the budget is met by solving for those alone.

    Arguments:
        linear: a, (C, *space); quadrature weights included.
        quadratic: d, likewise; left out, zero.
        constant: c.

    Raises:
        ValueError: shapes that differ.

    Example:
        >>> flux = Quadratic(torch.zeros(1, 3), torch.tensor([[0.5, 0.0, -0.5]]))
        >>> flux(torch.tensor([[[[2.0, 7.0, 1.0]]]])).tolist()
        [[1.5]]
    """

    def __init__(self, linear: Tensor, quadratic: Tensor | None = None, constant: float = 0.0) -> None:
        self.linear = linear.to(torch.float64)
        self.quadratic = torch.zeros_like(self.linear) if quadratic is None else quadratic.to(torch.float64)
        self.constant = constant
        if self.linear.shape != self.quadratic.shape:
            raise ValueError(
                f"Quadratic expects coefficients of one shape, (C, *space); got {tuple(linear.shape)} and {tuple(self.quadratic.shape)}."
            )
        self.points = (self.quadratic.flatten() != 0).nonzero()[:, 0]
        """Places with a square, of the flattened values of one time."""

    def __call__(self, u: Tensor) -> Tensor:
        flat = _by_time(u)
        total = flat @ self.linear.flatten().to(u) + self.constant
        if len(self.points):
            squares = self.quadratic.flatten()[self.points].to(u)
            seen = flat if len(self.points) == flat.shape[-1] else flat[..., self.points]
            total = total + seen.square() @ squares
        return total

    def gradient(self, u: Tensor) -> Tensor:
        """$a + 2 d u$, (B or 1, C, T, *space)."""
        linear = self.linear[:, None].to(u).expand(u.shape[1:])[None]
        return torch.addcmul(linear, self.quadratic[:, None].to(u), u, value=2) if len(self.points) else linear

    def curvature(self, direction: Tensor) -> Tensor:
        """$2 d z$."""
        return 2 * self.quadratic[:, None].to(direction) * direction

    def moved(self, chart: Chart) -> Quadratic:
        """The same of fields $u = a + L x$ for a diagonal L, as a function of x."""
        shape = (1, self.linear.shape[0], 1, *self.linear.shape[1:])
        shift = chart.physical(torch.zeros(shape, dtype=torch.float64, device=self.linear.device))[0, :, 0]
        scale = chart.push(torch.ones(shape, dtype=torch.float64, device=self.linear.device))[0, :, 0]
        constant = self.constant + float((self.linear * shift + self.quadratic * shift.square()).sum())
        return Quadratic(scale * (self.linear + 2 * self.quadratic * shift), scale.square() * self.quadratic, constant)


def _by_time(u: Tensor) -> Tensor:
    """(B, C, T, *space) as (B, T, C * space)."""
    return u.movedim(2, 1).flatten(2)
