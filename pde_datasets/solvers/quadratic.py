r"""Waves on a periodic line with a quadratic flux.

$$u_t + a\,\big(\tfrac12 u^2\big)_x = L u$$

with L diagonal in Fourier space: diffusion (Burgers), dispersion (Korteweg-de Vries), growth and decay (Kuramoto-Sivashinsky).
Pseudo-spectral with the two-thirds rule, ETDRK4 in time, in as many steps as a tolerance asks for. As no product aliases, the equations of
the kept modes lose nothing to the quadratic term: it leaves the mean to round-off and $\int u^2$ to the accuracy of the time steps. What
the equations of the modes conserve beside the mean, stored fields keep to round-off if it is given as `invariants`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from constraints import Grid
from constraints.calculus.spectral import Spectral, dealiasing
from pde_datasets.solvers.invariants import Invariants, restored
from pde_datasets.solvers.refined import RefinedETDRK4


def quadratic_waves(
    initial: Tensor,
    grid: Grid,
    linear: Callable[[Tensor], Tensor],
    *,
    factor: float = 1.0,
    steps: int,
    tolerance: float,
    skip: int = 0,
    invariants: Invariants | None = None,
) -> Tensor:
    """Fields at the times of a grid.

    Arguments:
        initial: u at the start, (N, X).
        grid: equally spaced times and one periodic space axis.
        linear: L as a function of the wavenumbers k, (K,): real or complex, (K,) or (N, K).
        factor: a.
        steps: least number of time steps between stored times.
        tolerance: bound on the estimated error from one stored time to the next, relative to u in the mean square.
        skip: stored times left out before the first of the grid.
        invariants: what the equations of the kept modes conserve; gradients have kept modes only.

    Returns:
        Fields (N, 1, T, X), float64.

    Raises:
        FloatingPointError: no time step was short enough.
    """
    time, x = grid.axes
    k = Spectral().wavenumber(x)[: x.points // 2 + 1].to(initial)
    mask = dealiasing(grid).to(initial)
    intervals = RefinedETDRK4(linear(k), time.spacing, steps, tolerance)
    flux = -0.5j * factor * k * mask

    def nonlinear(v: Tensor) -> Tensor:
        return flux * torch.fft.rfft(torch.fft.irfft(v, n=x.points).square())

    v = torch.fft.rfft(initial) * mask
    u = torch.fft.irfft(v, n=x.points)
    levels = None if invariants is None else invariants(u)[0]
    states = [u]
    for _ in range(skip + time.points - 1):
        v = intervals.advance(v, nonlinear)
        u = torch.fft.irfft(v, n=x.points)
        if invariants is not None and levels is not None:
            u = restored(u, invariants, levels)
            v = torch.fft.rfft(u) * mask
        states.append(u)
    return torch.stack(states[skip:], dim=1)[:, None]
