r"""Random initial data: Gaussian fields on periodic grids with a stated spectrum.

White noise is coloured in Fourier space: $\hat g(k) = a(|k|)\,\hat w(k)$. The noise is drawn sample by sample from the sample's own
generator, so that a field depends on its seed and index alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from constraints import Grid
from constraints.calculus.spectral import wavenumbers


def wavenumber_magnitude(grid: Grid) -> Tensor:
    r"""$|k|$ on the real Fourier transform of the space axes."""
    axes = grid.space_axes
    total = torch.zeros((1,) * len(axes), dtype=torch.float64)
    for position, axis in enumerate(axes):
        k = wavenumbers(axis)
        if position == len(axes) - 1:
            k = k[: axis.points // 2 + 1]
        shape = [1] * len(axes)
        shape[position] = k.shape[0]
        total = total + k.reshape(shape) ** 2
    return total.sqrt()


def gaussian_fields(grid: Grid, amplitude: Callable[[Tensor], Tensor], generators: Sequence[torch.Generator]) -> Tensor:
    r"""Stationary Gaussian fields on the space axes with mean 0.

    Arguments:
        grid: its space axes are periodic.
        amplitude: $a(|k|)$; the field is $\sum_k a(|k|)\, z_k e^{ik\cdot x}$ with unit complex Gaussians $z_k$, $z_{-k} = \bar z_k$, so
            that its variance is $\sum_{k\ne0} a^2$ whatever the resolution. $a(0)$ is not used.
        generators: one for each field.

    Returns:
        Fields (len(generators), *N), float64.
    """
    shape = tuple(axis.points for axis in grid.space_axes)
    dims = tuple(range(-len(shape), 0))
    white = torch.stack([torch.randn(shape, generator=g, dtype=torch.float64) for g in generators])
    k = wavenumber_magnitude(grid)
    a = torch.where(k > 0, amplitude(torch.where(k > 0, k, 1.0)), 0.0)
    spectrum = torch.fft.rfftn(white, dim=dims) * (a * math.sqrt(math.prod(shape)))
    return torch.fft.irfftn(spectrum, s=shape, dim=dims)
