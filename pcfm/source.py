r"""Distributions at $t = 0$.

A source draws sample i of a seed from that sample's own generator, so that results do not depend on how a run is split in batches.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from constraints import Axis, Grid
from constraints.calculus.spectral import wavenumbers


class Source(ABC):
    """A distribution of normalised fields (C, *N) with mean 0."""

    def __init__(self, grid: Grid, channels: int) -> None:
        self.grid = grid
        self.channels = channels

    @abstractmethod
    def colour(self, white: Tensor) -> Tensor:
        """Turn white noise (B, C, *N) into draws from the source: the symmetric root of its covariance."""

    def covariance(self, field: Tensor) -> Tensor:
        """The covariance applied to fields (B, C, *N)."""
        return self.colour(self.colour(field))

    def sample(self, generators: Sequence[torch.Generator], dtype: torch.dtype = torch.float32) -> Tensor:
        """One draw for each generator, (B, C, *N), on the CPU."""
        shape = (self.channels, *self.grid.shape)
        white = torch.stack([torch.randn(shape, generator=g, dtype=torch.float64) for g in generators])
        return self.colour(white.to(dtype))


class WhiteNoise(Source):
    """Independent standard Gaussians at every point and channel."""

    def colour(self, white: Tensor) -> Tensor:
        return white


class SmoothNoise(Source):
    r"""Stationary Gaussian fields of unit variance with a Matern covariance, exact on the grid.

    On the periodic axes the covariance is diagonal in Fourier space, with eigenvalues
    $\lambda(k) \propto (1 + \ell^2|k|^2)^{-(\nu + d/2)}$ scaled to unit variance, $d$ the number of those axes. On each bounded axis it
    is the Matern kernel matrix $K$ of the coordinates, equal spacing not required; the whole is their Kronecker product. Draws are
    $\Lambda^{1/2}$ and $K^{1/2}$ applied to white noise: no embedding, no low-rank root, no jitter.

    Arguments:
        grid: the grid of the fields.
        channels: independent channels.
        length: correlation length $\ell$, as a fraction of each axis' extent.
        smoothness: $\nu$, one of 0.5, 1.5, 2.5.

    Raises:
        ValueError: a length that is not positive or a smoothness without closed form.

    Source:
        Rasmussen & Williams, Gaussian Processes for Machine Learning (2006), section 4.2; Lindgren et al., JRSS B 73 (2011) 423.
    """

    def __init__(self, grid: Grid, channels: int, length: float = 0.05, smoothness: float = 1.5) -> None:
        super().__init__(grid, channels)
        if not length > 0:
            raise ValueError(f"SmoothNoise expects a positive correlation length; got {length}.")
        if smoothness not in (0.5, 1.5, 2.5):
            raise ValueError(f"SmoothNoise expects a smoothness of 0.5, 1.5 or 2.5; got {smoothness}.")
        self.length, self.smoothness = length, smoothness
        self._fourier_dims = tuple(grid.dim(axis.name) for axis in grid.axes if axis.periodic and axis.uniform)
        self._spectrum = self._eigenvalues()
        self._roots = {axis.name: _root(self.kernel(axis)) for axis in grid.axes if not (axis.periodic and axis.uniform)}

    def kernel(self, axis: Axis) -> Tensor:
        """Matern covariance matrix of a bounded axis, (n, n)."""
        x = axis.positions() / (self.length * axis.extent)
        r = (x[:, None] - x[None, :]).abs() * math.sqrt(2 * self.smoothness)
        polynomial = {0.5: torch.ones_like(r), 1.5: 1 + r, 2.5: 1 + r + r**2 / 3}[self.smoothness]
        return polynomial * torch.exp(-r)

    def _eigenvalues(self) -> Tensor:
        """Eigenvalues of the periodic factor on its full Fourier transform, mean 1, broadcastable to the grid."""
        k2 = torch.zeros((1,) * len(self.grid.axes), dtype=torch.float64)
        for axis in self.grid.axes:
            if self.grid.dim(axis.name) in self._fourier_dims:
                k2 = k2 + self.grid.along(axis.name, self.length * axis.extent * wavenumbers(axis)) ** 2
        values = (1 + k2) ** -(self.smoothness + len(self._fourier_dims) / 2)
        return values / values.mean()

    def colour(self, white: Tensor) -> Tensor:
        x = white
        for name, root in self._roots.items():
            dim = self.grid.dim(name)
            x = (x.movedim(dim, -1) @ root.to(x)).movedim(-1, dim)
        if self._fourier_dims:
            sizes = [x.shape[d] for d in self._fourier_dims]
            last = self._fourier_dims[-1]
            half = self._spectrum.narrow(last, 0, sizes[-1] // 2 + 1).sqrt().to(x)
            x = torch.fft.irfftn(torch.fft.rfftn(x, dim=self._fourier_dims) * half, s=sizes, dim=self._fourier_dims)
        return x


def _root(matrix: Tensor) -> Tensor:
    """Symmetric square root of a covariance matrix."""
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp_min(0).sqrt()) @ vectors.T
