r"""Energy spectra on periodic boxes.

For fields of all channels $u_c$ with Fourier coefficients $\hat u_c(\kappa) = N^{-1}\sum_x u_c(x) e^{-i\kappa x}$, the energy of shell $s$

$$E_s = \tfrac12\sum_c\sum_{\operatorname{round}(|\kappa| L/2\pi) = s} |\hat u_c(\kappa)|^2,\qquad
\sum_s E_s = \tfrac12\sum_c\langle u_c^2\rangle,$$

is a sum over the shell, not a density, so that the shells add up to the mean energy (Parseval). Shell 0 holds the mean. In boxes of
different side lengths $L$ is the longest one: shells have the width of the finest wavenumber there is.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from constraints import Grid
from constraints.calculus.scheme import check_periodic

FLOOR = 1e-10
"""Energy relative to the peak below which a shell is not compared: smooth fields in single precision end in round-off there."""


def energy_spectrum(u: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    r"""Energy of each sample by wavenumber shell, averaged over physical time if there is one.

    Arguments:
        u: fields, (N, C, *N); with velocity components as channels it is kinetic energy by mass.
        grid: their grid, all space axes periodic and equally spaced.

    Returns:
        Wavenumbers $2\pi s/L$ of the shells $s = 0, 1, \dots$, (S,), in radians over the unit of the axes; up to the corner of the box
            of wavenumbers.
        Energies $E_s$, (N, S), in the unit of u squared; their sum is half the mean square of the fields.

    Raises:
        ValueError: u is not on the grid, or a space axis is bounded or not equally spaced.

    Source:
        Pope, Turbulent Flows (2000), section 6.5, for the shells.
    """
    grid.check(u, "energy_spectrum")
    shell = _shells(grid)
    dims = grid.space_dims
    modes = torch.fft.rfftn(u, dim=dims) / math.prod(grid.space.shape)
    last = grid.space.shape[-1]
    twice = torch.full((last // 2 + 1,), 2.0, dtype=u.dtype, device=u.device)
    twice[0] = 1.0
    if last % 2 == 0:
        twice[-1] = 1.0
    energy = 0.5 * twice * (modes.real.square() + modes.imag.square()).sum(1)
    if grid.has_time:
        weights = grid.axes[0].weights(like=u)
        energy = torch.tensordot(energy, weights / weights.sum(), dims=([1], [0]))
    count = int(shell.max()) + 1
    spectrum = u.new_zeros(len(u), count).index_add(1, shell.flatten().to(u.device), energy.flatten(1))
    return 2 * math.pi / _longest(grid) * torch.arange(count, dtype=u.dtype, device=u.device), spectrum


def spectrum_error(u: Tensor, reference: Tensor, grid: Grid) -> Tensor:
    r"""How far the mean spectrum is from the reference's, in decades.

    $$\Bigl(\operatorname{mean}_s \log_{10}^2\frac{\bar E_s(u)}{\bar E_s(v)}\Bigr)^{1/2}$$

    over the shells that lie on the grid in all directions, up to the Nyquist wavenumber of the coarsest axis, and hold more than
    1e-10 of the reference's largest energy. Less than that counts as that much, so that an empty shell costs ten decades at most.

    Arguments:
        u: fields, (N, C, *N).
        reference: reference fields, (M, C, *N).
        grid: their grid.

    Returns:
        A scalar, (), in decades: 0.3 is a factor of two in energy. Zero if the reference vanishes and u does too, infinite if only
            the reference does.

    Raises:
        ValueError: as `energy_spectrum`, or fields of different channels.
    """
    grid.check(u, "spectrum_error")
    grid.check(reference, "spectrum_error", channels=u.shape[1])
    return error_of(resolved(u, grid), resolved(reference.to(u), grid))


def resolved(u: Tensor, grid: Grid) -> Tensor:
    """Energies of each sample in the shells that lie on the grid in all directions, (N, S)."""
    return energy_spectrum(u, grid)[1][:, : _nyquist(grid) + 1]


def error_of(ours: Tensor, theirs: Tensor) -> Tensor:
    """The error of the mean of some spectra, (N, S), against others', (M, S)."""
    ours, theirs = ours.mean(0), theirs.mean(0)
    peak = theirs.max()
    if peak == 0:
        return torch.where(ours.max() == 0, ours.max(), ours.new_tensor(math.inf))
    floor = FLOOR * peak
    ratio = torch.log10(ours.clamp(min=floor) / theirs.clamp(min=floor))
    return ratio[~(theirs <= floor)].square().mean().sqrt()


def _shells(grid: Grid) -> Tensor:
    """Shell of each mode of the real Fourier transform over all space axes."""
    square = torch.zeros((), dtype=torch.float64)
    axes = grid.space.axes
    for position, axis in enumerate(axes):
        check_periodic(axis, "energy_spectrum")
        mode = torch.fft.fftfreq(axis.points, 1 / axis.points, dtype=torch.float64) * (_longest(grid) / axis.extent)
        if position == len(axes) - 1:
            mode = mode[: axis.points // 2 + 1]
        square = square + grid.space.along(axis.name, mode.square())
    return square.sqrt().round().long()


def _longest(grid: Grid) -> float:
    return max(axis.extent for axis in grid.space.axes)


def _nyquist(grid: Grid) -> int:
    """The last shell below or at the Nyquist wavenumber of every axis."""
    return min(math.floor(axis.points // 2 * _longest(grid) / axis.extent + 1e-9) for axis in grid.space.axes)
