r"""Errors of ensembles and of samples, point by point, in quadrature norms.

With $\langle f\rangle = \int f\,dx\,/\int dx$ over all axes of the grid, physical time included, and then the mean over channels,

$$\mathrm{MMSE} = \langle(\bar u - \bar v)^2\rangle,\qquad \mathrm{SMSE} = \langle(s_u - s_v)^2\rangle,\qquad
\mathrm{error}_n = \left(\frac{\langle(u_n - v_n)^2\rangle}{\langle v_n^2\rangle}\right)^{1/2},$$

where $\bar u$ and $s_u$ are mean and unbiased standard deviation over the samples at each point. Channels of different units add up
as they are: take them one at a time, or normalise them first.
"""

from __future__ import annotations

import torch
from torch import Tensor

from constraints import Grid
from constraints.calculus import mean


def mean_error(u: Tensor, reference: Tensor, grid: Grid) -> Tensor:
    r"""Mean square difference of the pointwise ensemble means, $\langle(\bar u - \bar v)^2\rangle$: MMSE.

    Between two ensembles of one distribution it is not zero but $(1/N + 1/M)\langle\sigma^2\rangle$ on average: show that of a second
    reference ensemble beside it.

    Arguments:
        u: fields, (N, C, *N).
        reference: reference fields, (M, C, *N); M may differ from N.
        grid: the grid both live on.

    Returns:
        A scalar, (), in the unit of u squared.

    Raises:
        ValueError: fields that are not on the grid, or of different channels.

    Source:
        Kerrigan, Migliorini & Smyth, AISTATS (2024); as a mean over points, not a sum, as in the code of Cheng et al., ICLR (2025).
    """
    _check(u, reference, grid, "mean_error", samples=1)
    return _mean_square(u.mean(0, keepdim=True) - reference.mean(0, keepdim=True), grid)[0]


def spread_error(u: Tensor, reference: Tensor, grid: Grid) -> Tensor:
    r"""Mean square difference of the pointwise standard deviations, $\langle(s_u - s_v)^2\rangle$: SMSE.

    Arguments:
        u: fields, (N, C, *N), at least two.
        reference: reference fields, (M, C, *N), at least two.
        grid: the grid both live on.

    Returns:
        A scalar, (), in the unit of u squared.

    Raises:
        ValueError: fewer than two samples, fields that are not on the grid, or of different channels.

    Source:
        As `mean_error`.
    """
    _check(u, reference, grid, "spread_error", samples=2)
    return _mean_square(u.std(0, keepdim=True) - reference.std(0, keepdim=True), grid)[0]


def relative_error(u: Tensor, reference: Tensor, grid: Grid) -> Tensor:
    r"""Relative $L^2$ error of each sample against its own reference, $\|u_n - v_n\| / \|v_n\|$.

    Arguments:
        u: fields, (N, C, *N).
        reference: the field that each should be, (N, C, *N).
        grid: the grid both live on.

    Returns:
        Errors, (N,), without unit; where the reference vanishes, zero if u does too and infinite otherwise.

    Raises:
        ValueError: fields that are not on the grid, or do not come in pairs.
    """
    _check(u, reference, grid, "relative_error", samples=1)
    if u.shape != reference.shape:
        raise ValueError(f"relative_error expects one reference a sample, {tuple(u.shape)}; got {tuple(reference.shape)}.")
    error, norm = _mean_square(u - reference, grid), _mean_square(reference, grid)
    return torch.where(error == 0, error, error / norm).sqrt()


def _mean_square(u: Tensor, grid: Grid) -> Tensor:
    """Mean over the grid and the channels of u squared, (N,)."""
    return mean(u.square(), grid, grid.names).mean(1)


def _check(u: Tensor, reference: Tensor, grid: Grid, speaker: str, samples: int) -> None:
    grid.check(u, speaker)
    grid.check(reference, speaker, channels=u.shape[1])
    if min(len(u), len(reference)) < samples:
        few = "one sample" if samples == 1 else f"{samples} samples"
        raise ValueError(f"{speaker} expects at least {few} of each; got {len(u)} and {len(reference)} references.")
