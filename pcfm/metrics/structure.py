r"""Structure of fields across scales: increments, amplitudes by wavenumber, enstrophy.

Increments over a separation r of the points are, for velocities and scalars,

$$\delta_\parallel u(x, r) = u_i(x + r e_i) - u_i(x),\qquad \delta_\perp u(x, r) = u_j(x + r e_i) - u_j(x)\ (j\ne i),\qquad
\delta u(x, r) = u_c(x + r e_i) - u_c(x),$$

on periodic axes around the end, on bounded ones between points inside. All pairs count alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from constraints import Axis, Grid
from constraints.calculus import Scheme, Spectral, curl
from pcfm.metrics.distances import wasserstein
from pcfm.metrics.spectrum import FLOOR, energy_spectrum

Kind = Literal["longitudinal", "transverse", "scalar"]


def increments(
    u: Tensor, grid: Grid, separation: int, kind: Kind = "longitudinal", *, components: Sequence[int] | None = None, axis: str | None = None
) -> Tensor:
    r"""All increments of each field over a separation.

    Arguments:
        u: fields, (N, C, *N).
        grid: their grid, equally spaced along the axes used, all with one spacing.
        separation: r in points, at least 1.
        kind: "longitudinal" or "transverse" increments of a velocity, or those of every component along every axis ("scalar").
        components: channels; the first d, in the order of the space axes, for a velocity, all for scalars, by default.
        axis: the only axis to go along; all space axes by default.

    Returns:
        Increments, (N, K), in the unit of u.

    Raises:
        ValueError: u is not on the grid, axes that are not equally spaced or differ in spacing, a separation that does not fit, or not
            one component a space axis.
    """
    grid.check(u, "increments")
    axes = _axes(grid, axis)
    if kind not in ("longitudinal", "transverse", "scalar"):
        raise ValueError(f"increments expects longitudinal, transverse or scalar; got '{kind}'.")
    count = u.shape[1] if kind == "scalar" else len(grid.space_axes)
    taken = list(range(count)) if components is None else list(components)
    if kind != "scalar" and len(taken) != len(grid.space_axes):
        raise ValueError(f"{kind} increments expect one component for each of {len(grid.space_axes)} space axes; got {taken}.")
    if not taken or min(taken) < 0 or max(taken) >= u.shape[1]:
        raise ValueError(f"increments expects channels between 0 and {u.shape[1] - 1}; got {taken}.")
    if kind == "transverse" and len(grid.space_axes) < 2:
        raise ValueError("transverse increments expect at least two space axes.")
    parts = []
    for line in axes:
        i = grid.space.names.index(line.name)
        chosen = {"longitudinal": taken[i : i + 1], "transverse": taken[:i] + taken[i + 1 :], "scalar": taken}[kind]
        parts.append(_difference(u[:, chosen], grid, line, separation).flatten(1))
    return torch.cat(parts, dim=1)


def structure_function(
    u: Tensor,
    grid: Grid,
    order: float = 2.0,
    kind: Kind = "longitudinal",
    *,
    components: Sequence[int] | None = None,
    axis: str | None = None,
    absolute: bool = True,
    separations: Sequence[int] | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Structure function of each sample, $S_p(r) = \langle|\delta u(x, r)|^p\rangle$, mean over points, times, axes and components.

    Of the second order $S_2(r) = 2\langle u^2\rangle - 2\langle u(x)u(x + r)\rangle$ on periodic axes. In Kolmogorov's inertial range
    $S_p\sim(\epsilon r)^{p/3}$, and exactly $\langle\delta_\parallel u^3\rangle = -\frac45\epsilon r$ (signed: `absolute=False`).

    Arguments:
        u, grid, kind, components, axis: as `increments`.
        order: p, positive; whole where signs are kept.
        absolute: take magnitudes.
        separations: r in points; 1, 2, ... up to half the points of the shortest axis by default.

    Returns:
        Separations r, (R,), in the unit of the axes.
        Values $S_p(r)$, (N, R), in the unit of u to the power p.

    Raises:
        ValueError: as `increments`, or an order that is not positive, or not whole with signs.

    Source:
        Pope, Turbulent Flows (2000), section 6.2; Kolmogorov, Dokl. Akad. Nauk SSSR 32 (1941) 16, for the third order.
    """
    if not order > 0 or not (absolute or float(order).is_integer()):
        raise ValueError(f"structure_function expects a positive order, whole if signs are kept; got {order}.")
    axes = _axes(grid, axis)
    steps = list(range(1, _reach(axes) + 1)) if separations is None else list(separations)
    values = []
    for step in steps:
        delta = increments(u, grid, step, kind, components=components, axis=axis)
        values.append(((delta.abs() if absolute else delta) ** order).mean(1))
    r = axes[0].spacing * torch.tensor(steps, dtype=u.dtype, device=u.device)
    return r, torch.stack(values, dim=1)


def structure_error(
    u: Tensor,
    reference: Tensor,
    grid: Grid,
    order: float = 2.0,
    kind: Kind = "longitudinal",
    *,
    components: Sequence[int] | None = None,
) -> Tensor:
    r"""How far the mean structure function is from the reference's, in decades,

    $$\Bigl(\operatorname{mean}_r\log_{10}^2\frac{\bar S_p(u; r)}{\bar S_p(v; r)}\Bigr)^{1/2},\qquad r = 1, 2, 4, \dots\text{ points},$$

    up to half the shortest axis. Less than 1e-10 of the reference's largest value counts as that much.

    Arguments:
        u: fields, (N, C, *N).
        reference: reference fields, (M, C, *N).
        grid, order, kind, components: as `structure_function`.

    Returns:
        A scalar, (), in decades; zero if both are constant, infinite if only the reference is.

    Raises:
        ValueError: as `structure_function`, or fields of different channels.
    """
    grid.check(reference, "structure_error", channels=u.shape[1])
    steps = octaves(grid)
    ours, theirs = (
        structure_function(fields, grid, order, kind, components=components, separations=steps)[1].mean(0)
        for fields in (u, reference.to(u))
    )
    return decades(ours, theirs)


def decades(ours: Tensor, theirs: Tensor) -> Tensor:
    """Root mean square of the logarithms of the ratio of two curves, (R,) each; what is below the floor counts as the floor."""
    floor = FLOOR * theirs.max()
    if floor == 0:
        return torch.where(ours.max() == 0, ours.max(), ours.new_tensor(math.inf))
    return torch.log10(ours.clamp(min=floor) / theirs.clamp(min=floor)).square().mean().sqrt()


def octaves(grid: Grid, axis: str | None = None) -> list[int]:
    """Separations 1, 2, 4, ... points up to half the shortest axis."""
    return [2**j for j in range(_reach(_axes(grid, axis)).bit_length())]


def increment_pdf(
    u: Tensor,
    grid: Grid,
    separation: int,
    kind: Kind = "longitudinal",
    *,
    components: Sequence[int] | None = None,
    axis: str | None = None,
    bins: int = 101,
    width: float = 8.0,
) -> tuple[Tensor, Tensor]:
    r"""Probability density of the increments of all samples, $\sigma\,p(\delta u/\sigma)$ with $\sigma$ their root mean square.

    Arguments:
        u, grid, separation, kind, components, axis: as `increments`.
        bins: number of equal bins.
        width: they reach from minus to plus this many $\sigma$; the density is that of all increments, whatever lies beyond.

    Returns:
        Centres of the bins, (bins,), in $\sigma$.
        Densities, (bins,), per $\sigma$.

    Raises:
        ValueError: as `increments`, or increments that all vanish.
    """
    delta = increments(u, grid, separation, kind, components=components, axis=axis).flatten()
    sigma = delta.square().mean().sqrt()
    if sigma == 0:
        raise ValueError("increment_pdf expects increments that do not all vanish.")
    counts = torch.histc(delta / sigma, bins, -width, width)
    step = 2 * width / bins
    centres = -width + step * (torch.arange(bins, dtype=u.dtype, device=u.device) + 0.5)
    return centres, counts / (len(delta) * step)


def increment_distance(
    u: Tensor,
    reference: Tensor,
    grid: Grid,
    separations: Sequence[int] | None = None,
    kind: Kind = "longitudinal",
    *,
    components: Sequence[int] | None = None,
    axis: str | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Wasserstein-1 distance between the distributions of increments, over the reference's root mean square at that separation,

    $$\frac{1}{\sigma_v(r)}\int_0^1\bigl|F^{-1}_{\delta u(r)}(q) - F^{-1}_{\delta v(r)}(q)\bigr|\,dq,$$

    exact for the increments of all samples, points, times, axes and components together.

    Arguments:
        u: fields, (N, C, *N).
        reference: reference fields, (M, C, *N).
        separations: r in points; 1, 2, 4, ... up to half the shortest axis by default.
        grid, kind, components, axis: as `increments`.

    Returns:
        Separations r, (R,), in the unit of the axes.
        Distances, (R,), in root mean squares of the reference's increments; where those vanish, zero if the others do too and infinite
            otherwise.

    Raises:
        ValueError: as `increments`, or fields of different channels.

    Source:
        Frisch, Turbulence (1995), section 8.9, for the PDFs; `wasserstein` for their distance.
    """
    grid.check(reference, "increment_distance", channels=u.shape[1])
    steps = octaves(grid, axis) if separations is None else list(separations)
    values = []
    for step in steps:
        parts = (increments(fields, grid, step, kind, components=components, axis=axis) for fields in (u, reference.to(u)))
        values.append(pooled_distance(*parts))
    return _axes(grid, axis)[0].spacing * torch.tensor(steps, dtype=u.dtype, device=u.device), torch.stack(values)


def pooled_distance(ours: Tensor, theirs: Tensor) -> Tensor:
    """Wasserstein-1 distance of all values of two sets over the root mean square of the second, ()."""
    distance = wasserstein(ours.flatten(), theirs.flatten())
    return torch.where(distance == 0, distance, distance / theirs.square().mean().sqrt())


def amplitude_ratio(u: Tensor, reference: Tensor, grid: Grid) -> Tensor:
    r"""How much samples vary beside the reference, $\bigl(\langle s_u^2\rangle/\langle s_v^2\rangle\bigr)^{1/2}$.

    $s$ is the unbiased standard deviation over the samples at each point, $\langle\rangle$ the quadrature mean over points and times and
    then over channels. Residuals that are homogeneous, and most violations, fall when fields shrink or agree with each other: a
    residual that improves while this ratio falls below one has been gamed. Below one the samples lack variety, above one they have too
    much.

    Arguments:
        u: fields, (N, C, *N), at least two.
        reference: reference fields, (M, C, *N), at least two.
        grid: their grid.

    Returns:
        A scalar, (), without unit; infinite where only the reference does not vary, and NaN where neither does.

    Raises:
        ValueError: fewer than two samples, or fields that are not on the grid or have other channels.
    """
    _check_pair(u, reference, grid, "amplitude_ratio")
    weights = grid.weights(grid.names, like=u)
    ours, theirs = ((weights * fields.var(0)).sum() for fields in (u, reference.to(u)))
    return (ours / theirs).sqrt()


def amplitude_bands(u: Tensor, reference: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    r"""`amplitude_ratio` by wavenumber: in octaves of shells $[2^j, 2^{j+1})$, and of the mean over space,

    $$\Bigl(\frac{\sum_{s\in B}\bar E_s(u - \bar u)}{\sum_{s\in B}\bar E_s(v - \bar v)}\Bigr)^{1/2},$$

    with energy spectra of the deviations from the ensemble's mean, without bias. Small scales are the first to fade.

    On bounded, equally spaced axes fields are continued by their mirror image: shells are those of cosines, of half the wavenumber.

    Arguments:
        u: fields, (N, C, *N), at least two.
        reference: reference fields, (M, C, *N), at least two.
        grid: their grid, space axes equally spaced.

    Returns:
        Lowest wavenumber of each band, (K,), in radians over the unit of the axes; 0 is the mean.
        Ratios, (K,), without unit; NaN in bands that hold less than 1e-10 of the reference's energy in the largest.

    Raises:
        ValueError: as `amplitude_ratio`, or axes that are not equally spaced.
    """
    _check_pair(u, reference, grid, "amplitude_bands")
    energies = []
    for fields in (u, reference.to(u)):
        mirrored, box = _mirrored(fields - fields.mean(0), grid)
        k, energy = energy_spectrum(mirrored, box)
        energies.append(energy.sum(0) / (len(fields) - 1))
    shells = torch.arange(len(k), device=u.device)
    band = torch.where(shells > 0, 1 + torch.log2(shells.clamp(min=1).to(torch.float64)).floor().long(), 0)
    ours, theirs = (energy.new_zeros(int(band.max()) + 1).index_add(0, band, energy) for energy in energies)
    empty = theirs <= FLOOR * theirs.max()
    lowest = k[torch.cat([band.new_zeros(1), 2 ** torch.arange(len(ours) - 1, device=u.device)])]
    return lowest, torch.where(empty, math.nan, (ours / theirs).sqrt())


def enstrophy_spectrum(
    u: Tensor, grid: Grid, *, components: Sequence[int] | None = None, scheme: Scheme | None = None
) -> tuple[Tensor, Tensor]:
    r"""Enstrophy of each sample by wavenumber shell.

    $$\Omega_s = \tfrac12\sum_{\operatorname{round}(|\kappa|L/2\pi) = s}|\hat\omega(\kappa)|^2,$$

    $\omega = \nabla\times\mathbf u$; the shells add up to half the mean square of the vorticity, and for divergence-free fields each is
    near $k^2 E_s$. Of a channel that is a vorticity already, `energy_spectrum` is this.

    Arguments:
        u: fields, (N, C, *N), with velocity components among the channels.
        grid: their grid, two or three space axes, periodic and equally spaced.
        components: channels of the velocity, in the order of the space axes; the first d by default.
        scheme: the discrete curl; spectral by default.

    Returns:
        Wavenumbers, (S,), as `energy_spectrum`.
        Enstrophies, (N, S), in the unit of the vorticity squared.

    Raises:
        ValueError: as `energy_spectrum` and `curl`.

    Source:
        Pope, Turbulent Flows (2000), section 6.5.
    """
    grid.check(u, "enstrophy_spectrum")
    taken = list(range(len(grid.space_axes))) if components is None else list(components)
    return energy_spectrum(curl(u[:, taken], grid, Spectral() if scheme is None else scheme), grid)


def power_law(k: Tensor, values: Tensor, low: float, high: float) -> Tensor:
    r"""Exponent $\alpha$ of $k^\alpha$ nearest to some values between two wavenumbers (or separations), by least squares of logarithms.

    Arguments:
        k: wavenumbers, (S,).
        values: spectra or structure functions, (..., S), positive in between.
        low, high: ends of the range, both included.

    Returns:
        Exponents, (...).

    Raises:
        ValueError: fewer than two wavenumbers in the range, or values there that are not positive.
    """
    inside = (k >= low) & (k <= high) & (k > 0)
    if int(inside.sum()) < 2 or not bool((values[..., inside] > 0).all()):
        raise ValueError(f"power_law expects at least two positive values between {low:g} and {high:g}; got {int(inside.sum())}.")
    x, y = k[inside].log(), values[..., inside].log()
    x = x - x.mean()
    return (x * (y - y.mean(-1, keepdim=True))).sum(-1) / x.square().sum()


def _axes(grid: Grid, axis: str | None) -> list[Axis]:
    axes = list(grid.space_axes) if axis is None else [grid.space.axis(axis)]
    for line in axes:
        if not line.uniform:
            raise ValueError(f"increments expect equally spaced points; axis '{line.name}' has given coordinates. Choose another axis.")
    if max(line.spacing for line in axes) - min(line.spacing for line in axes) > 1e-6 * axes[0].spacing:
        names = ", ".join(f"{line.name} {line.spacing:g}" for line in axes)
        raise ValueError(f"increments expect one spacing along all axes; got {names}. Choose an axis: axis='{axes[0].name}'.")
    return axes


def _reach(axes: Sequence[Axis]) -> int:
    """The largest separation in points, half the shortest axis."""
    reach = min(line.points for line in axes) // 2
    if reach < 1:
        raise ValueError("increments expect at least two points an axis.")
    return reach


def _difference(u: Tensor, grid: Grid, line: Axis, separation: int) -> Tensor:
    dim = grid.dim(line.name)
    if not 1 <= separation < line.points:
        raise ValueError(f"increments expect a separation between 1 and {line.points - 1} points along {line.name}; got {separation}.")
    if line.periodic:
        return u.roll(-separation, dim) - u
    rest = line.points - separation
    return u.narrow(dim, separation, rest) - u.narrow(dim, 0, rest)


def _check_pair(u: Tensor, reference: Tensor, grid: Grid, speaker: str) -> None:
    grid.check(u, speaker)
    grid.check(reference, speaker, channels=u.shape[1])
    if min(len(u), len(reference)) < 2:
        raise ValueError(f"{speaker} expects at least two samples of each; got {len(u)} and {len(reference)} references.")


def _mirrored(u: Tensor, grid: Grid) -> tuple[Tensor, Grid]:
    """Fields continued by their mirror image along bounded axes, where they are periodic with twice the length.

    Points on the ends are their own image and occur once, which is their trapezoidal weight; cell centres occur twice.
    """
    axes = list(grid.axes[:1]) if grid.has_time else []
    for axis in grid.space_axes:
        if not axis.uniform:
            raise ValueError(f"amplitude_bands expects equally spaced points; axis '{axis.name}' has given coordinates.")
        if not axis.periodic:
            dim = grid.dim(axis.name)
            image = u.flip(dim)
            u = torch.cat([u, image if axis.cells else image.narrow(dim, 1, max(axis.points - 2, 0))], dim)
            axis = Axis(axis.name, u.shape[dim], length=2 * axis.extent, periodic=True)
        axes.append(axis)
    return u, Grid(*axes)
