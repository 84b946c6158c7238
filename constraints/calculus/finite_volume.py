r"""Numerical fluxes of conservation laws $\partial_t u + \partial_x f(u) = 0$, and the right-hand sides they make.

A flux $F(u_-, u_+)$ at each face between two cells is consistent, $F(u, u) = f(u)$; the cell balance $-(F_{i+1/2} - F_{i-1/2})/\Delta x$
then conserves to round-off, since every face's flux leaves one cell and enters the next.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from constraints.grid import Grid

Flux = Callable[[Tensor, Tensor], Tensor]
"""Numerical flux through faces from the values before and behind them."""


def godunov(flux: Callable[[Tensor], Tensor], minimum: float = 0.0) -> Flux:
    r"""Godunov's flux of a convex $f$ with its minimum at a given value: exact solution of each face's Riemann problem.

    $F = \max(f(\max(u_-, u_m)), f(\min(u_+, u_m)))$.

    Source:
        Godunov, Mat. Sb. 47 (1959) 271; LeVeque, Finite Volume Methods for Hyperbolic Problems (2002), section 12.1.

    Example:
        >>> burgers = godunov(lambda u: u.square() / 2)
        >>> burgers(torch.tensor([1.0, -1.0, -1.0]), torch.tensor([-1.0, 1.0, -2.0])).tolist()
        [0.5, 0.0, 2.0]
    """
    return lambda before, behind: torch.maximum(flux(before.clamp_min(minimum)), flux(behind.clamp_max(minimum)))


def rusanov(flux: Callable[[Tensor], Tensor], speed: Callable[[Tensor], Tensor]) -> Flux:
    r"""The local Lax-Friedrichs flux, $\frac12(f_- + f_+) - \frac12\max(a_-, a_+)(u_+ - u_-)$ with speeds $a = |f'|$.

    Source:
        Rusanov, USSR Comput. Math. Math. Phys. 1 (1961) 304.
    """

    def face(before: Tensor, behind: Tensor) -> Tensor:
        fastest = torch.maximum(speed(before), speed(behind))
        return (flux(before) + flux(behind)) / 2 - fastest / 2 * (behind - before)

    return face


def central(flux: Callable[[Tensor], Tensor]) -> Flux:
    """The mean of both sides' fluxes: second order, for smooth fields."""
    return lambda before, behind: (flux(before) + flux(behind)) / 2


def upwind(speed: float) -> Flux:
    """Of linear advection: the value the flow comes from."""
    return lambda before, behind: speed * (before if speed >= 0 else behind)


def cell_balance(flux: Flux, grid: Grid, axis: str) -> Callable[[Tensor], Tensor]:
    """The right-hand side $-(F_{i+1/2} - F_{i-1/2})/\\Delta x$ along an axis, (..., *N) to itself.

    Faces lie in the middle between points. On a bounded axis the first and last points have no face behind them: their value is zero,
    and laws leave them out.

    Arguments:
        flux: the numerical flux.
        grid: the grid of the fields.
        axis: the axis of the flux.
    """
    line = grid.axis(axis)
    dim, widths = grid.dim(axis), line.weights()

    def rate(u: Tensor) -> Tensor:
        width = grid.along(axis, widths).to(u)
        if line.periodic:
            faces = flux(u, u.roll(-1, dim))
            return (faces.roll(1, dim) - faces) / width
        n = line.points
        faces = flux(u.narrow(dim, 0, n - 1), u.narrow(dim, 1, n - 1))
        inside = -torch.diff(faces, dim=dim) / width.narrow(dim, 1, n - 2)
        edge = torch.zeros_like(u.narrow(dim, 0, 1))
        return torch.cat([edge, inside, edge], dim=dim)

    return rate
