r"""Distances in which the nearest lawful field is sought, $\|z\|_M^2 = z^\top M z$.

The nearest field is $v = u - M^{-1}A^\top\lambda$: the metric says how a correction spreads. Each is given by a root of its inverse,
$M^{-1} = L L^\top$, in whose coordinates $x = L^{-1}u$ it is the plain distance.

| metric | M | a correction |
|---|---|---|
| `Diagonal` | $1/s^2$ | is larger where s is |
| `Volumes` | cell volumes | does not depend on the mesh |
| `Sobolev` | $(1 - \ell^2\nabla^2)^{p}$ | is smooth on the scale $\ell$ (p = 1), or concentrates (p = -1) |
| `Covariance` | $\Sigma^{-1}$, one factor an axis | follows the prior: the mean of a Gaussian process given the law |

Multipliers of laws are the same physical quantities in all of them: $M(u - v) = A^\top\lambda$.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor

from constraints.calculus.spectral import wavenumbers
from constraints.grid import Grid
from constraints.linear.map import LinearMap
from constraints.linear.solve import conjugate_gradients
from constraints.linear.structured import FourierSymbol
from constraints.units import Chart


class Metric(Chart):
    """A distance, by a root L of the inverse of its matrix; nothing is shifted."""

    def physical(self, x: Tensor) -> Tensor:
        return self.push(x)

    @abstractmethod
    def matrix(self, z: Tensor) -> Tensor:
        r"""$M z = L^{-\top} L^{-1} z$."""

    def compose(self, operator: LinearMap) -> LinearMap:
        return Composed(operator, self)


class Diagonal(Metric):
    r"""$M = 1/s^2$: the unit of distance of each value.

    Arguments:
        scale: s > 0, (C,), or (C, *N), or broadcastable to it.

    Raises:
        ValueError: a scale that is not positive and finite.
    """

    scale: Tensor

    def __init__(self, scale: Tensor) -> None:
        super().__init__()
        if not (torch.isfinite(scale).all() and (scale > 0).all()):
            raise ValueError("Diagonal expects positive, finite units of distance.")
        self.register_buffer("scale", scale.to(torch.float64))

    def _like(self, z: Tensor) -> Tensor:
        return self.diagonal(z.ndim - 2).to(z)

    def normalise(self, u: Tensor) -> Tensor:
        return u / self._like(u)

    def push(self, z: Tensor) -> Tensor:
        return self._like(z) * z

    def pull(self, z: Tensor) -> Tensor:
        return self._like(z) * z

    def matrix(self, z: Tensor) -> Tensor:
        return z / self._like(z).square()

    def compose(self, operator: LinearMap) -> LinearMap:
        return operator.weighted(self.diagonal(len(operator.shape) - 1))

    def diagonal(self, dims: int) -> Tensor:
        return self.scale.reshape(-1, *(1,) * dims) if self.scale.ndim == 1 else self.scale


class Volumes(Diagonal):
    """Cell volumes: the quadrature weights of the grid's space axes, relative to their mean.

    The nearest field in it converges as the mesh is refined, whatever the spacing.

    Arguments:
        grid: the grid of the fields.
    """

    def __init__(self, grid: Grid) -> None:
        weights = grid.weights().expand(grid.shape)
        super().__init__((weights.mean() / weights).sqrt()[None])


class Sobolev(Metric):
    r"""$M = (1 - \ell^2\nabla^2)^p$ on periodic, equally spaced space axes: $H^1$ for p = 1, $H^{-1}$ for p = -1.

    Arguments:
        grid: the grid of the fields.
        length: $\ell$, in the unit of the axes.
        order: p.

    Raises:
        ValueError: an axis is not periodic and equally spaced, or a length that is not positive.
    """

    symbol: Tensor

    def __init__(self, grid: Grid, length: float, order: float = 1.0) -> None:
        super().__init__()
        if not length > 0:
            raise ValueError(f"Sobolev expects a positive length; got {length}.")
        squared = torch.zeros((), dtype=torch.float64)
        for position, axis in enumerate(grid.space_axes):
            k = wavenumbers(axis)
            k = k[: axis.points // 2 + 1] if position == len(grid.space_axes) - 1 else k
            squared = squared[..., None] + k.square() if position else k.square()
        self.sizes, self.dims = tuple(axis.points for axis in grid.space_axes), grid.space_dims
        self.register_buffer("symbol", (1 + length**2 * squared) ** (-order / 2))

    def _filter(self, z: Tensor, factor: Tensor) -> Tensor:
        return torch.fft.irfftn(torch.fft.rfftn(z, dim=self.dims) * factor.to(z), s=self.sizes, dim=self.dims)

    def normalise(self, u: Tensor) -> Tensor:
        return self._filter(u, 1 / self.symbol)

    def push(self, z: Tensor) -> Tensor:
        return self._filter(z, self.symbol)

    def pull(self, z: Tensor) -> Tensor:
        return self._filter(z, self.symbol)

    def matrix(self, z: Tensor) -> Tensor:
        return self._filter(z, self.symbol.pow(-2))

    def compose(self, operator: LinearMap) -> LinearMap:
        if isinstance(operator, FourierSymbol) and operator.sizes == self.sizes:
            return FourierSymbol(operator.symbol * self.symbol, operator.shape, odd=operator.odd, weights=operator.weights)
        return super().compose(operator)


class Covariance(Metric):
    r"""$M = \Sigma^{-1}$ with $\Sigma = \bigotimes_j K_j$, a covariance for each axis named, and the identity on the others.

    Arguments:
        grid: the grid of the fields.
        kernels: axis name to its covariance matrix, (n, n), symmetric positive definite.

    Raises:
        ValueError: no such axis, a matrix of another size, or one that is not positive definite.
    """

    def __init__(self, grid: Grid, kernels: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.axes = {name: grid.dim(name) for name in kernels}
        for name, kernel in kernels.items():
            n = grid.axis(name).points
            if tuple(kernel.shape) != (n, n):
                raise ValueError(f"Covariance expects a matrix ({n}, {n}) for axis '{name}'; got {tuple(kernel.shape)}.")
            root, info = torch.linalg.cholesky_ex(kernel.to(torch.float64))
            if info.item():
                raise ValueError(f"Covariance expects a positive definite matrix for axis '{name}'. Add a nugget to its diagonal.")
            self.register_buffer(f"root_{name}", root)

    def _each(self, z: Tensor, kind: str) -> Tensor:
        for name, dim in self.axes.items():
            root = self.get_buffer(f"root_{name}").to(z)
            moved = z.movedim(dim, -1)
            if kind == "inverse":
                out = torch.linalg.solve_triangular(root, moved.reshape(-1, moved.shape[-1]).T, upper=False).T.reshape(moved.shape)
            elif kind == "inverse transposed":
                out = torch.linalg.solve_triangular(root.T, moved.reshape(-1, moved.shape[-1]).T, upper=True).T.reshape(moved.shape)
            else:
                out = moved @ (root.T if kind == "push" else root)
            z = out.movedim(-1, dim)
        return z

    def normalise(self, u: Tensor) -> Tensor:
        return self._each(u, "inverse")

    def push(self, z: Tensor) -> Tensor:
        return self._each(z, "push")

    def pull(self, z: Tensor) -> Tensor:
        return self._each(z, "pull")

    def matrix(self, z: Tensor) -> Tensor:
        return self._each(self._each(z, "inverse"), "inverse transposed")


class Composed(LinearMap):
    r"""$A L$ for a metric without structure in common with A.

    Conjugate gradients, preconditioned with $G^{+} A M A^\top G^{+}$, $G = A A^\top$: the inverse of $A M^{-1} A^\top$ where M and the
    projector onto A's rows commute.
    """

    def __init__(self, inner: LinearMap, chart: Metric) -> None:
        super().__init__()
        self.inner, self.chart = inner, chart
        self.shape, self.rows, self.batched, self.variance = inner.shape, inner.rows, inner.batched, inner.variance

    def forward(self, u: Tensor) -> Tensor:
        rows: Tensor = self.inner(self.chart.push(u))
        return rows

    def adjoint(self, y: Tensor) -> Tensor:
        return self.chart.pull(self.inner.adjoint(y))

    def gram(self, like: Tensor) -> Tensor:
        gram = super().gram(like)
        return gram if self.variance is None else gram + torch.diag(self.variance.to(gram))

    def solve_gram(self, r: Tensor) -> Tensor:
        if self.rows <= self.dense_rows:
            return super().solve_gram(r)
        noise = 0.0 if self.variance is None else self.variance.to(r)
        return conjugate_gradients(lambda y: self(self.adjoint(y)) + noise * y, r, preconditioner=self.precondition, max_iterations=2000)

    def precondition(self, r: Tensor) -> Tensor:
        if self.variance is not None:
            return self.inner.precondition(r)
        inner: Tensor = self.inner(self.chart.matrix(self.inner.adjoint(self.inner.precondition(r))))
        return self.inner.precondition(inner)

    def scale(self, u: Tensor) -> Tensor:
        return self.inner.scale(self.chart.push(u))


def as_metric(metric: Tensor | Metric, channels: int) -> Metric:
    """A metric from what `project` takes: one, or the unit of distance of each channel or value.

    Raises:
        ValueError: a tensor of another shape, or one that requires gradients.
    """
    if isinstance(metric, Metric):
        return metric
    if metric.requires_grad or not (tuple(metric.shape) == (channels,) or (metric.ndim > 1 and metric.shape[0] in (1, channels))):
        raise ValueError(
            f"project expects a metric of one number a channel, ({channels},), or one a value, ({channels}, *N), without gradient; "
            f"got {tuple(metric.shape)}."
        )
    return Diagonal(metric.detach())
