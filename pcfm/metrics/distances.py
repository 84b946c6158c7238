r"""More distances between distributions of fields, and features to compare them by.

Fields are vectors $x$ of all values, divided by the standard deviation $\sigma_c$ of their channel, with $\|x\|^2$ the mean square of
their $D$ values, as for the `energy_distance`: neither resolution nor unit matters. None of these needs a trained network, and none is
the others' equal:

| distance | sees | bias between two sets of one distribution |
|---|---|---|
| `sliced_wasserstein` | all marginals along random directions | positive, of order $n^{-1/2}$ |
| `mmd` | all, at the scales of its bandwidths | none |
| `frechet_distance` | mean and covariance of features | positive, of order $F/n$ |

So each is worth reading beside its value between two halves of the reference (`noise_floor`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from constraints import Grid
from pcfm.metrics.distribution import distances, mean_of_pairs, spread, vectors
from pcfm.metrics.stream import stream

_SLICES = 32
"""Directions projected on at once: their coordinates take as much memory as so many fields."""

_BATCH = 64
"""Fields convolved at once."""

FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Bandwidths of `mmd` over the median distance."""


def wasserstein(x: Tensor, y: Tensor, order: float = 1.0) -> Tensor:
    r"""Wasserstein distance of samples on a line, exactly, $\bigl(\int_0^1|F_x^{-1}(q) - F_y^{-1}(q)|^p\,dq\bigr)^{1/p}$.

    Quantile functions of samples are steps; the integral is summed over the common refinement of their levels, at most n + m terms.

    Arguments:
        x: samples, (..., n).
        y: samples, (..., m), with the same dimensions in front; m may differ from n.
        order: p, at least 1.

    Returns:
        Distances, (...), in the unit of x.

    Raises:
        ValueError: no samples, different dimensions in front, or an order below 1.

    Source:
        Villani, Topics in Optimal Transportation (2003), section 2.2.

    Example:
        >>> wasserstein(torch.tensor([0.0, 1.0]), torch.tensor([3.0, 5.0])).item()
        3.5
    """
    n, m = x.shape[-1], y.shape[-1]
    if x.shape[:-1] != y.shape[:-1] or min(n, m) < 1:
        raise ValueError(
            f"wasserstein expects samples (..., n) and (..., m), at least one each; got {tuple(x.shape)} and {tuple(y.shape)}."
        )
    if order < 1:
        raise ValueError(f"wasserstein expects an order of at least 1; got {order}.")
    if n == m:  # the levels are the same
        return (x.sort(-1).values - y.sort(-1).values).abs().pow(order).mean(-1) ** (1 / order)
    steps = m * torch.arange(1, n + 1, device=x.device), n * torch.arange(1, m + 1, device=x.device)
    levels = torch.unique(torch.cat(steps))  # of both quantile functions, times n m: whole numbers
    width = torch.diff(levels, prepend=0 * levels[:1]).to(x) / (n * m)
    gap = (x.sort(-1).values[..., (levels - 1) // m] - y.sort(-1).values[..., (levels - 1) // n]).abs()
    return (gap**order * width).sum(-1) ** (1 / order)


def slices(x: Tensor, count: int, generator: torch.Generator) -> Tensor:
    r"""Coordinates of vectors (N, D) along random directions, uniform on the sphere, times $\sqrt D$: (count, N).

    Directions are drawn on the CPU, so that they are the same on every device; the k-th depends on D and the generator alone.
    """
    parts = []
    for first in range(0, count, _SLICES):
        directions = torch.randn(min(_SLICES, count - first), x.shape[1], generator=generator, dtype=torch.float64)
        directions = directions / directions.norm(dim=1, keepdim=True) * math.sqrt(x.shape[1])
        parts.append(directions.to(x) @ x.T)
    return torch.cat(parts)


def sliced_wasserstein(
    u: Tensor,
    reference: Tensor,
    scale: Tensor | None = None,
    *,
    order: float = 2.0,
    projections: int = 256,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Sliced Wasserstein distance of two sets of fields,

    $$\mathrm{SW}_p = \Bigl(\operatorname{mean}_\theta W_p^p\bigl(\sqrt D\,\theta\cdot u,\ \sqrt D\,\theta\cdot v\bigr)\Bigr)^{1/p},$$

    over random directions $\theta$, uniform on the unit sphere of the $D$ values, each $W_p$ exact on its line. The factor $\sqrt D$ makes
    two point masses as far apart, for $p = 2$ and many directions, as the root mean square of their scaled difference.

    Arguments:
        u: fields, (N, C, *N), at least two.
        reference: reference fields, (M, C, *N), at least two, on the same grid.
        scale: $\sigma$, (C,); as for `energy_distance`.
        order: p, at least 1.
        projections: number of directions; the error of the mean over them falls as its square root.
        generator: of the directions, on the CPU; a fixed one by default, so that values of one grid can be compared.

    Returns:
        A scalar, (), in standard deviations.

    Raises:
        ValueError: as `energy_distance` and `wasserstein`, or no direction.

    Source:
        Bonneel, Rabin, Peyré & Pfister, J. Math. Imaging Vis. 51 (2015) 22.
    """
    if projections < 1:
        raise ValueError(f"sliced_wasserstein expects at least one projection; got {projections}.")
    x, y = vectors(u, reference, scale, "sliced_wasserstein")
    lines = slices(torch.cat([x, y]), projections, generator or stream())
    return sliced(lines[:, : len(x)], lines[:, len(x) :], order)


def sliced(x: Tensor, y: Tensor, order: float) -> Tensor:
    """The distance from coordinates (projections, N) and (projections, M)."""
    return wasserstein(x, y, order).pow(order).mean() ** (1 / order)


def bandwidths(reference: Tensor, scale: Tensor | None = None) -> Tensor:
    r"""Bandwidths for `mmd`: $\frac14, \frac12, 1, 2, 4$ times the median distance of two reference fields, (5,); 1 where that is zero."""
    x, _ = vectors(reference, reference, scale, "bandwidths")
    return bandwidths_of(distances(x, x))


def bandwidths_of(pairs: Tensor) -> Tensor:
    """Bandwidths from the distances of all pairs of the reference."""
    first, second = torch.triu_indices(len(pairs), len(pairs), 1, device=pairs.device)
    median = pairs[first, second].median()
    return torch.tensor(FACTORS).to(pairs) * torch.where(median > 0, median, torch.ones_like(median))


def mmd(u: Tensor, reference: Tensor, scale: Tensor | None = None, *, widths: Tensor | None = None) -> Tensor:
    r"""Squared maximum mean discrepancy with a mixture of Gaussian kernels, estimated without bias,

    $$\mathrm{MMD}^2 = \mathrm E\,k(X, X') + \mathrm E\,k(Y, Y') - 2\,\mathrm E\,k(X, Y),\qquad
    k(x, y) = \operatorname{mean}_j e^{-\|x - y\|^2/2 h_j^2}.$$

    Pairs of a sample with itself are left out: for one and the same distribution the value is zero on average, and negative half of the
    time. It lies below 2.

    Arguments:
        u: fields, (N, C, *N), at least two.
        reference: reference fields, (M, C, *N), at least two, on the same grid.
        scale: $\sigma$, (C,); as for `energy_distance`.
        widths: $h$, (J,), in units of the norm; `bandwidths` of the reference by default, which makes the absence of bias hold up to
            terms of order 1/M.

    Returns:
        A scalar, (), without unit.

    Raises:
        ValueError: as `energy_distance`, or a bandwidth that is not positive.

    Source:
        Gretton et al., JMLR 13 (2012) 723, lemma 6, for the estimator; Li, Swersky & Zemel, ICML (2015), for mixtures.
    """
    x, y = vectors(u, reference, scale, "mmd")
    h = bandwidths(reference, scale) if widths is None else widths.to(reference).flatten()
    if not bool((h > 0).all()) or not len(h):
        raise ValueError(f"mmd expects positive bandwidths; got {h.tolist()}.")
    return mmd_of(distances(x, x), distances(y, y), distances(x, y), h)


def mmd_of(xx: Tensor, yy: Tensor, xy: Tensor, widths: Tensor) -> Tensor:
    """The discrepancy from the distances of all pairs, within each set and between them."""
    xx, yy, xy = (torch.stack([torch.exp(-(d / h).square() / 2) for h in widths]).mean(0) for d in (xx, yy, xy))
    return mean_of_pairs(xx) + mean_of_pairs(yy) - 2 * xy.mean()


def frechet_distance(x: Tensor, y: Tensor) -> Tensor:
    r"""Fréchet distance of two sets of features, squared: that of the normal distributions of their moments,

    $$d^2 = |\mu_x - \mu_y|^2 + \operatorname{tr}\bigl(\Sigma_x + \Sigma_y - 2(\Sigma_x\Sigma_y)^{1/2}\bigr),$$

    which is also their squared 2-Wasserstein distance. With $\Sigma = R^\top R$, R from the QR decomposition of the centred features,
    the trace of the root is the sum of the singular values of $R_x R_y^\top$: no square root of a product is taken, singular
    covariances (fewer samples than features) are no exception, and no value is negative but by round-off. In float64 whatever comes.

    Between two sets of one distribution it is not zero but grows with the number of features over that of samples.

    Arguments:
        x: features, (N, F), at least two samples.
        y: features, (M, F), at least two samples.

    Returns:
        A scalar, (), float64, in the unit of the features squared.

    Raises:
        ValueError: fewer than two samples, or other features.

    Source:
        Dowson & Landau, J. Multivariate Anal. 12 (1982) 450; Heusel et al., NeurIPS (2017), as a metric of generated samples.
    """
    if x.ndim != 2 or x.shape[1:] != y.shape[1:] or min(len(x), len(y)) < 2:
        raise ValueError(
            f"frechet_distance expects features (N, F) and (M, F) of at least two samples; got {tuple(x.shape)} and {tuple(y.shape)}."
        )
    x, y = x.to(torch.float64), y.to(torch.float64)
    roots = []
    for features in (x, y):
        centred = (features - features.mean(0)) / math.sqrt(len(features) - 1)
        roots.append(torch.linalg.qr(centred, mode="r").R)
    trace = roots[0].square().sum() + roots[1].square().sum() - 2 * torch.linalg.svdvals(roots[0] @ roots[1].T).sum()
    return (x.mean(0) - y.mean(0)).square().sum() + trace.clamp_min(0)


class PrincipalFeatures:
    r"""Coordinates of fields along the leading principal directions of a reference: fields (N, C, *N) to (N, F).

    The directions are the leading right singular vectors of the centred, scaled reference; with them the Fréchet distance is that of the
    fields themselves, as normal distributions, within the space where the reference varies most. What lies outside is not seen.

    Arguments:
        reference: reference fields, (M, C, *N), at least two.
        count: number of directions; fewer where the reference has less rank.
        scale: $\sigma$, (C,); as for `energy_distance`.

    Attributes:
        share: the part of the reference's variance that the directions hold.

    Raises:
        ValueError: as `energy_distance`, or fewer than one direction.
    """

    def __init__(self, reference: Tensor, count: int = 32, scale: Tensor | None = None) -> None:
        if count < 1:
            raise ValueError(f"PrincipalFeatures expects at least one direction; got {count}.")
        self.scale = spread(reference) if scale is None else scale.to(reference)
        x, _ = vectors(reference, reference, self.scale, "PrincipalFeatures")
        self.centre = x.mean(0)
        values, directions = torch.linalg.svd(x - self.centre, full_matrices=False)[1:]
        rank = int((values > len(x) * torch.finfo(x.dtype).eps * values[0]).sum())
        self.directions = directions[: max(1, min(count, rank))]
        self.share = float(values[: len(self.directions)].square().sum() / values.square().sum().clamp_min(torch.finfo(x.dtype).tiny))

    def __call__(self, u: Tensor) -> Tensor:
        x = (u.to(self.scale).flatten(2) / self.scale[:, None]).flatten(1)
        if x.shape[1] != len(self.centre):
            raise ValueError(f"PrincipalFeatures expects fields of {len(self.centre)} values; got {tuple(u.shape)}.")
        return (x / math.sqrt(x.shape[1]) - self.centre) @ self.directions.T


class RandomConvolutions:
    r"""Features of fields by a fixed random convolutional network, which needs no download: fields (N, C, *N) to (N, F).

    Fields are centred and scaled by the reference, channel by channel. Then three layers, each
    $h \mapsto \max(0,\ W * h + b)$ with kernels of 3 points an axis, stride 2 along axes of at least 4 points, neighbours around the end
    on periodic axes and the end value repeated on bounded ones, 8, 16 and 32 channels; weights are normal with variance
    $2/(3^d C_{\mathrm{in}})$, biases with variance $10^{-2}$, drawn in float64 from a generator on the CPU. The features are the means
    over all points of each layer's channels, $F = 56$. Physical time is an axis like the others; beside three space axes, where there is
    no convolution, features are those of single times, averaged.

    Means of rectified random filters see local structure (gradients, fronts, textures) at three scales, but not where it lies. Values of
    another seed or architecture cannot be compared.

    Arguments:
        reference: reference fields, (M, C, *N), that centre and scale are measured on.
        grid: their grid.
        seed: of the weights.
        widths: channels of each layer.

    Raises:
        ValueError: the fields are not on the grid, or it has more than four axes.

    Source:
        Naeem et al., ICML (2020), for random networks in the place of trained ones; He et al., ICCV (2015), for the weights.
    """

    def __init__(self, reference: Tensor, grid: Grid, seed: int = 0, widths: Sequence[int] = (8, 16, 32)) -> None:
        grid.check(reference, "RandomConvolutions")
        self.over_time = len(grid.axes) == 4 and grid.has_time
        axes = grid.space_axes if self.over_time else grid.axes
        if len(axes) > 3:
            raise ValueError(f"RandomConvolutions expects at most three axes, or time and three; got {', '.join(grid.names)}.")
        self.periodic = tuple(axis.periodic for axis in axes)
        self.shape = tuple(reference.shape[1:])
        lead = (-1, *(1,) * len(grid.axes))
        self.centre = reference.transpose(0, 1).flatten(1).mean(1).to(torch.float64).reshape(lead)
        self.scale = spread(reference).to(torch.float64).reshape(lead)
        generator = stream(seed)
        self.layers = []
        before = reference.shape[1]
        for width in widths:
            size = (width, before, *(3,) * len(axes))
            weight = torch.randn(size, generator=generator, dtype=torch.float64) * math.sqrt(2 / (before * 3 ** len(axes)))
            bias = 0.1 * torch.randn(width, generator=generator, dtype=torch.float64)
            self.layers.append((weight.to(reference.device), bias.to(reference.device)))
            before = width

    def __call__(self, u: Tensor) -> Tensor:
        if tuple(u.shape[1:]) != self.shape:
            raise ValueError(f"RandomConvolutions expects fields (N, {', '.join(map(str, self.shape))}); got {tuple(u.shape)}.")
        return torch.cat([self._features(part) for part in u.split(_BATCH)])

    def _features(self, u: Tensor) -> Tensor:
        h = (u.to(torch.float64) - self.centre) / self.scale
        times = h.shape[2]
        if self.over_time:
            h = h.transpose(1, 2).flatten(0, 1)
        convolve = (torch.nn.functional.conv1d, torch.nn.functional.conv2d, torch.nn.functional.conv3d)[h.ndim - 3]
        means = []
        for weight, bias in self.layers:
            stride = [2 if n >= 4 else 1 for n in h.shape[2:]]
            h = torch.relu(convolve(self._padded(h), weight, bias, stride))
            means.append(h.flatten(2).mean(2))
        features = torch.cat(means, dim=1)
        return features.reshape(-1, times, features.shape[1]).mean(1) if self.over_time else features

    def _padded(self, h: Tensor) -> Tensor:
        """One more point on both sides of each axis."""
        for dim, periodic in enumerate(self.periodic, start=2):
            first, last = h.narrow(dim, 0, 1), h.narrow(dim, h.shape[dim] - 1, 1)
            h = torch.cat([last if periodic else first, h, first if periodic else last], dim)
        return h
