r"""Random initial data: Gaussian fields on periodic grids with a stated spectrum, and sums of a few waves.

White noise is coloured in Fourier space: $\hat g(k) = a(|k|)\,\hat w(k)$. The noise is drawn sample by sample from the sample's own
generator, so that a field depends on its seed and index alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import product

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


def random_waves(
    streams: Sequence[torch.Generator], waves: int, modes: tuple[int, int], amplitude: tuple[float, float]
) -> tuple[Tensor, Tensor, Tensor]:
    """Amplitudes, wavenumbers and phases of a few waves for each generator, each (len(streams), waves), float64.

    All are uniform and independent: amplitudes on their range, wavenumbers on the whole numbers from the first to the last of `modes`,
    with repetition, phases on the circle.
    """
    unit = torch.stack([torch.rand(3, waves, generator=stream, dtype=torch.float64) for stream in streams])
    heights = amplitude[0] + (amplitude[1] - amplitude[0]) * unit[:, 0]
    numbers = modes[0] + (unit[:, 1] * (modes[1] - modes[0] + 1)).floor()
    return heights, numbers, 2 * math.pi * unit[:, 2]


def sum_of_waves(x: Tensor, amplitude: Tensor, mode: Tensor, phase: Tensor) -> Tensor:
    r"""$\sum_j A_j\sin(2\pi n_j x + \varphi_j)$ for positions x in units of the period, (B or 1, *N): (B, *N)."""
    total = torch.zeros_like(x)
    for j in range(amplitude.shape[1]):
        a, n, shift = (values[:, j].reshape(-1, *(1,) * (x.ndim - 1)) for values in (amplitude, mode, phase))
        total = total + a * torch.sin(2 * math.pi * n * x + shift)
    return total


def cosine_fields(grid: Grid, amplitude: Callable[[Tensor], Tensor], generators: Sequence[torch.Generator]) -> Tensor:
    r"""Gaussian fields on a box in the cosine basis, whose normal derivative vanishes on the walls, with mean 0.

    $$g = \sum_{m\ne0} a(|k_m|)\,\xi_m\,\varphi_m,\qquad k_m = \pi\,(m_1/L_1, m_2/L_2, \dots),\qquad
    \varphi_m = \prod_j \sqrt{2}^{\,[m_j > 0]}\cos(\pi m_j x_j/L_j),$$

    with independent standard normal $\xi_m$ and as many modes an axis as points. With $a = \tau^{\alpha-1}(|k|^2 + \tau^2)^{-\alpha/2}$ it
    is the field $N(0, \tau^{2(\alpha-1)}(-\nabla^2 + \tau^2)^{-\alpha})$ of the coefficients and sources of Li et al. (ICLR 2021) and of
    DiffusionPDE (Huang et al., NeurIPS 2024).

    Arguments:
        grid: its axes are bounded and equally spaced, nodes or cells.
        amplitude: $a(|k|)$; the mean variance over the box is $\sum_{m\ne0} a^2$.
        generators: one for each field.

    Returns:
        Fields (len(generators), *N), float64.
    """
    shape = grid.shape
    fields = torch.stack([torch.randn(shape, generator=g, dtype=torch.float64) for g in generators])
    k2 = torch.zeros((1,) * len(shape), dtype=torch.float64)
    for axis in grid.axes:
        k2 = k2 + grid.along(axis.name, (math.pi / axis.extent * torch.arange(axis.points, dtype=torch.float64)) ** 2)
    fields = fields * torch.where(k2 > 0, amplitude(torch.where(k2 > 0, k2, 1.0).sqrt()), 0.0)
    for axis in grid.axes:
        dim, m = grid.dim(axis.name), torch.arange(axis.points, dtype=torch.float64)
        from_wall = (m + axis.cells / 2) * axis.spacing / axis.extent
        waves = math.sqrt(2) * torch.cos(math.pi * from_wall[:, None] * m)
        waves[:, 0] = 1.0
        fields = (fields.movedim(dim, -1) @ waves.mT).movedim(-1, dim)
    return fields


def karhunen_loeve(grid: Grid, covariance: Callable[[Tensor], Tensor], terms: int) -> Tensor:
    r"""The leading modes $\sqrt{\lambda_i}\,\varphi_i$ of an isotropic covariance at the points of a box, (terms, *N).

    $\sum_i\xi_i\sqrt{\lambda_i}\varphi_i$ with independent standard normal $\xi_i$ is the Karhunen-Loeve expansion of the Gaussian field,
    cut after its largest terms. $\lambda_i, \varphi_i$ are eigenpairs of the matrix of covariances between points, found class by class of
    even and odd modes about the middle of each axis: a square has pairs of equal eigenvalues, one mode in each of two classes, and any
    mixture of the two would do where they are not kept apart. The first point a mode does not vanish at has a positive value.

    Arguments:
        grid: its axes are equally spaced.
        covariance: of the distance between two points.
        terms: number of modes, at most that of points.
    """
    shape = grid.shape
    points = torch.stack([x.flatten() for x in grid.mesh()], dim=1)
    between = covariance(torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")).reshape(*shape, *shape)
    values, modes = [], []
    for parities in product(*(_even_and_odd(n) for n in shape)):
        block = between
        for basis in (*parities, *parities):  # each product moves the dimension it is for behind all others
            block = torch.tensordot(block, basis, dims=([0], [0]))
        size = math.prod(basis.shape[1] for basis in parities)
        found, vectors = torch.linalg.eigh(block.reshape(size, size))
        best = slice(max(size - terms, 0), None)
        mode = vectors[:, best].mT.reshape(-1, *(basis.shape[1] for basis in parities))
        for basis in parities:
            mode = torch.tensordot(mode, basis, dims=([1], [1]))
        values.append(found[best])
        modes.append(mode)
    largest = torch.cat(values).topk(terms)
    flat = torch.cat(modes).flatten(1)[largest.indices]
    first = (flat.abs() > 1e-6 * flat.abs().amax(1, keepdim=True)).to(torch.int8).argmax(1)
    sign = flat.gather(1, first[:, None]).sign()
    return (sign * flat * largest.values.clamp_min(0).sqrt()[:, None]).reshape(terms, *shape)


def _even_and_odd(points: int) -> tuple[Tensor, Tensor]:
    """Orthonormal bases of the even and of the odd sequences, (points, .) each."""
    half, eye = points // 2, torch.eye(points, dtype=torch.float64)
    low, high = eye[:, :half], eye.flip(1)[:, :half]
    middle = eye[:, half : points - half]
    return torch.cat([(low + high) / math.sqrt(2), middle], dim=1), (low - high) / math.sqrt(2)
