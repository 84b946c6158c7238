r"""Fourier differentiation on periodic axes.

$\widehat{\partial_x u}(k) = i k\,\hat u(k)$ with $k = 2\pi m/L$. The Nyquist wavenumber of an even number of points has no
derivative in real fields: it is set to zero here, and nowhere else (a filter or a Laplacian keeps it).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from constraints.calculus.scheme import Scheme, check_periodic
from constraints.grid import Axis, Grid


def wavenumbers(axis: Axis) -> Tensor:
    """Wavenumbers $2\\pi m/L$ of a periodic axis, $(n,)$, float64, the Nyquist one included with its negative sign."""
    check_periodic(axis, "a Fourier transform")
    return 2 * math.pi * torch.fft.fftfreq(axis.points, axis.spacing, dtype=torch.float64)


class Spectral(Scheme):
    """Fourier differentiation: exact for every resolved wavenumber below Nyquist.

    Example:
        >>> import torch
        >>> grid = Grid(Axis("x", 16, length=2 * torch.pi, periodic=True))
        >>> x = grid.axes[0].positions()
        >>> torch.allclose(Spectral().derivative(torch.sin(3 * x), grid, "x"), 3 * torch.cos(3 * x))
        True
    """

    name = "spectral"

    def wavenumber(self, axis: Axis) -> Tensor:
        k = wavenumbers(axis)
        if axis.points % 2 == 0:
            k[axis.points // 2] = 0.0
        return k

    def derivative(self, u: Tensor, grid: Grid, axis: str) -> Tensor:
        dim = grid.dim(axis)
        n = grid.axis(axis).points
        k = self.wavenumber(grid.axis(axis))[: n // 2 + 1].to(u)
        spectrum = torch.fft.rfft(u.movedim(dim, -1)) * (1j * k)
        return torch.fft.irfft(spectrum, n=n).movedim(-1, dim)


def dealiasing(grid: Grid) -> Tensor:
    """Two-thirds mask on the real Fourier transform of all space axes, broadcastable, 1 where a mode is kept.

    Quadratic products of kept modes alias onto removed ones only (Orszag 1971).
    """
    axes = grid.space_axes
    mask = torch.ones((1,) * len(axes), dtype=torch.float64)
    for position, axis in enumerate(axes):
        mode = torch.fft.fftfreq(axis.points, 1 / axis.points, dtype=torch.float64).abs()
        if position == len(axes) - 1:
            mode = mode[: axis.points // 2 + 1]
        shape = [1] * len(axes)
        shape[position] = mode.shape[0]
        mask = mask * (3 * mode < axis.points).to(torch.float64).reshape(shape)
    return mask
