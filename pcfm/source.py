r"""Distributions at $t = 0$.

A source draws sample i of a seed from that sample's own generator, so that results do not depend on how a run is split in batches. The
same distribution on other points of periodic axes (`on`) gives the same functions: the Fourier coefficients that both grids resolve are
those of the first one, bit for bit in exact arithmetic, and finer ones are drawn besides.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from constraints import Axis, Grid
from constraints.calculus.spectral import wavenumbers


class Source(ABC):
    """A distribution of normalised fields (C, *N) with mean 0."""

    def __init__(self, grid: Grid, channels: int) -> None:
        self.grid = grid
        self.channels = channels
        self.drawn_on = grid

    def on(self, grid: Grid) -> Source:
        """The same distribution on a grid with other numbers of points along periodic axes.

        Raises:
            ValueError: another grid than that.
        """
        mine, theirs = self.drawn_on.axes, grid.axes
        alike = len(mine) == len(theirs) and all(
            a == b or (_fourier(a) and a == replace(b, points=a.points)) for a, b in zip(mine, theirs, strict=True)
        )
        if not alike:
            raise ValueError(
                f"a source expects its grid with other numbers of points on periodic axes; it is on {self.drawn_on}, got {grid}."
            )
        other = self._at(grid)
        other.drawn_on = self.drawn_on
        return other

    @abstractmethod
    def _at(self, grid: Grid) -> Source:
        """The distribution on another grid, with the variance of each Fourier coefficient kept."""

    @abstractmethod
    def colour(self, white: Tensor) -> Tensor:
        """Turn white noise (B, C, *N) into draws from the source: the symmetric root of its covariance."""

    def covariance(self, field: Tensor) -> Tensor:
        """The covariance applied to fields (B, C, *N)."""
        return self.colour(self.colour(field))

    @abstractmethod
    def whiten(self, field: Tensor) -> Tensor:
        """The inverse of `colour`."""

    @abstractmethod
    def log_determinant(self) -> float:
        """Of the covariance of one channel."""

    def log_density(self, x0: Tensor) -> Tensor:
        """Of draws (B, C, *N), in nats, (B,)."""
        white = self.whiten(x0).double().flatten(1)
        constant = white.shape[1] * math.log(2 * math.pi) + self.channels * self.log_determinant()
        return -(white.square().sum(1) + constant) / 2

    def sample(self, generators: Sequence[torch.Generator], dtype: torch.dtype = torch.float32) -> Tensor:
        """One draw for each generator, (B, C, *N), on the CPU."""
        white = _white(generators, (self.channels, *self.drawn_on.shape))
        if self.drawn_on.shape != self.grid.shape:
            white = _embedded(white, _white(generators, (self.channels, *self.grid.shape)))
        return self.colour(white.to(dtype))


class WhiteNoise(Source):
    """Independent standard Gaussians at every point and channel. On finer grids their power grows: they have no limit."""

    def _at(self, grid: Grid) -> WhiteNoise:
        return WhiteNoise(grid, self.channels)

    def colour(self, white: Tensor) -> Tensor:
        return white

    def whiten(self, field: Tensor) -> Tensor:
        return field

    def log_determinant(self) -> float:
        return 0.0


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
        ValueError: a length that is not positive, a smoothness without closed form, or a kernel that does not tell points apart.

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
        self._fourier_dims = tuple(grid.dim(axis.name) for axis in grid.axes if _fourier(axis))
        eigenvalues = self._eigenvalues()
        if eigenvalues.numel() > 1:
            # In closed form small ones are as exact as large ones; but where the mean has all variance, fields are constants.
            mean, others = eigenvalues.flatten()[0], eigenvalues.flatten()[1:]
            _expect_regular(others.amax(), mean, eigenvalues.numel())
        self._sum = float(eigenvalues.sum())
        self._spectrum = eigenvalues * (eigenvalues.numel() / self._sum)
        self._modes = {axis.name: _modes(self.kernel(axis)) for axis in grid.axes if not _fourier(axis)}
        self._roots = {name: (vectors * values.sqrt()) @ vectors.T for name, (values, vectors) in self._modes.items()}

    def _at(self, grid: Grid) -> SmoothNoise:
        other = SmoothNoise(grid, self.channels, self.length, self.smoothness)
        # Coefficients have the variance λ/Σλ, the sum over the modes of the grid where fields have unit variance.
        other._spectrum, other._sum = other._eigenvalues() * (other._spectrum.numel() / self._sum), self._sum
        return other

    def kernel(self, axis: Axis) -> Tensor:
        """Matern covariance matrix of a bounded axis, (n, n)."""
        x = axis.positions() / (self.length * axis.extent)
        r = (x[:, None] - x[None, :]).abs() * math.sqrt(2 * self.smoothness)
        polynomial = {0.5: torch.ones_like(r), 1.5: 1 + r, 2.5: 1 + r + r**2 / 3}[self.smoothness]
        return polynomial * torch.exp(-r)

    def _eigenvalues(self) -> Tensor:
        """Eigenvalues of the periodic factor on its full Fourier transform, up to scale, broadcastable to the grid."""
        k2 = torch.zeros((1,) * len(self.grid.axes), dtype=torch.float64)
        for axis in self.grid.axes:
            if self.grid.dim(axis.name) in self._fourier_dims:
                k2 = k2 + self.grid.along(axis.name, self.length * axis.extent * wavenumbers(axis)) ** 2
        return (1 + k2) ** -(self.smoothness + len(self._fourier_dims) / 2)

    def colour(self, white: Tensor) -> Tensor:
        return self._filtered(white, inverse=False)

    def whiten(self, field: Tensor) -> Tensor:
        return self._filtered(field, inverse=True)

    def log_determinant(self) -> float:
        # The eigenvalues of a Kronecker product are all products: each factor's logarithms count once for every point of the others.
        points = math.prod(self.grid.shape)
        total = float(self._spectrum.log().sum()) * points / self._spectrum.numel()
        for name, (values, _) in self._modes.items():
            total += float(values.log().sum()) * points / self.grid.axis(name).points
        return total

    def _filtered(self, x: Tensor, inverse: bool) -> Tensor:
        """The root of the covariance, or its inverse, applied factor by factor."""
        power = -0.5 if inverse else 0.5
        for name, (values, vectors) in self._modes.items():
            dim = self.grid.dim(name)
            root = (vectors * values**-0.5) @ vectors.T if inverse else self._roots[name]
            x = (x.movedim(dim, -1) @ root.to(x)).movedim(-1, dim)
        if self._fourier_dims:
            sizes = [x.shape[d] for d in self._fourier_dims]
            last = self._fourier_dims[-1]
            half = (self._spectrum.narrow(last, 0, sizes[-1] // 2 + 1) ** power).to(x)
            x = torch.fft.irfftn(torch.fft.rfftn(x, dim=self._fourier_dims) * half, s=sizes, dim=self._fourier_dims)
        return x


def _fourier(axis: Axis) -> bool:
    """Whether an axis has a Fourier transform."""
    return axis.periodic and axis.uniform


def _white(generators: Sequence[torch.Generator], shape: tuple[int, ...]) -> Tensor:
    """Independent standard normals, each sample's from its own generator."""
    return torch.stack([torch.randn(shape, generator=g, dtype=torch.float64) for g in generators])


def _embedded(coarse: Tensor, fine: Tensor) -> Tensor:
    """White noise on the grid of `fine`, with the Fourier modes of `coarse` that both grids resolve; (B, C, *N) and (B, C, *M)."""
    dims = tuple(d for d in range(2, fine.ndim) if coarse.shape[d] != fine.shape[d])
    known, made = torch.fft.fftn(coarse, dim=dims, norm="ortho"), torch.fft.fftn(fine, dim=dims, norm="ortho")
    take, put = [torch.arange(n) for n in coarse.shape], [torch.arange(n) for n in fine.shape]
    for d in dims:
        most = (min(coarse.shape[d], fine.shape[d]) - 1) // 2  # below the Nyquist frequency of either
        modes = torch.arange(-most, most + 1)
        take[d], put[d] = modes % coarse.shape[d], modes % fine.shape[d]
    made[torch.meshgrid(*put, indexing="ij")] = known[torch.meshgrid(*take, indexing="ij")]
    return torch.fft.ifftn(made, dim=dims, norm="ortho").real


def _modes(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues and eigenvectors of a covariance matrix.

    Raises:
        ValueError: it is singular to working precision.
    """
    values, vectors = torch.linalg.eigh(matrix)
    _expect_regular(values[0], values[-1], len(values))
    return values, vectors


def _expect_regular(least: Tensor, most: Tensor, count: int) -> None:
    if not bool(least > count * torch.finfo(least.dtype).eps * most):
        raise ValueError(
            f"SmoothNoise expects a kernel that tells the points of an axis apart; its matrix is singular (eigenvalue {float(least):.1e}). "
            "Take a shorter length or a smaller smoothness."
        )
