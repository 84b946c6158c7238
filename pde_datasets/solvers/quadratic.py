r"""Waves on a periodic line with a quadratic flux.

$$u_t + a\,\big(\tfrac12 u^2\big)_x = L u$$

with L diagonal in Fourier space: diffusion (Burgers), dispersion (Korteweg-de Vries), growth and decay (Kuramoto-Sivashinsky).
Pseudo-spectral with the two-thirds rule, ETDRK4 in time. As no product aliases, the equations of the kept modes lose nothing to the
quadratic term: it leaves the mean to round-off and $\int u^2$ to the accuracy of the time steps.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

import torch
from torch import Tensor

from constraints import Grid
from constraints.calculus.spectral import Spectral, dealiasing
from pde_datasets.solvers.exponential import ETDRK4


def quadratic_waves(
    initial: Tensor, grid: Grid, linear: Callable[[Tensor], Tensor], *, factor: float = 1.0, steps: int, skip: int = 0
) -> Tensor:
    """Fields at the times of a grid.

    Arguments:
        initial: u at the start, (N, X).
        grid: equally spaced times and one periodic space axis.
        linear: L as a function of the wavenumbers k, (K,): real or complex, (K,) or (N, K).
        factor: a.
        steps: time steps between stored times.
        skip: stored times left out before the first of the grid.

    Returns:
        Fields (N, 1, T, X), float64.
    """
    time, x = grid.axes
    k = Spectral().wavenumber(x)[: x.points // 2 + 1].to(initial)
    mask = dealiasing(grid).to(initial)
    stepper = ETDRK4(linear(k), time.spacing / steps)
    flux = -0.5j * factor * k * mask

    def nonlinear(v: Tensor) -> Tensor:
        return flux * torch.fft.rfft(torch.fft.irfft(v, n=x.points).square())

    start = torch.fft.rfft(initial) * mask
    states = islice(stepper.states(start, nonlinear, skip + time.points, steps), skip, None)
    return torch.fft.irfft(torch.stack(list(states), dim=1), n=x.points)[:, None]
