r"""Linear maps from fields to rows, $A: (B, C, *N) \to (B, m)$.

A map offers $A u$, $A^\top y$ and a least-squares solve of its Gram matrix, $A A^\top\lambda = r$. The last is what a projection
costs: a map that knows its structure replaces the dense default by a division, a transform or a small matrix.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from constraints.linear.derivative import pullback
from constraints.linear.entries import Entries
from constraints.linear.solve import conjugate_gradients, pseudo_inverse

DENSE_ROWS = 512
"""Above this many rows the Gram matrix is not formed: conjugate gradients take over."""


_CHUNK = 32
"""Rows of a Gram matrix formed at a time: each holds a field."""


def largest(u: Tensor) -> Tensor:
    """max |u| of each sample, (B,), without a temporary of the size of the fields."""
    flat = u.flatten(1)
    return torch.maximum(flat.amax(1), -flat.amin(1))


_VANISHING = 1e-9
"""Share of the largest channel below which another vanishes."""


def largest_of(u: Tensor, taken: Tensor) -> Tensor:
    """max |u| of each sample over the channels that take part, boolean (C,): (B, 1).

    The natural magnitude of one value in a row. Not that of the values the row sees: where they should vanish, round-off would be measured
    by round-off.
    """
    return largest(u if bool(taken.all()) else u[:, taken.to(u.device)])[:, None] if bool(taken.any()) else u.new_zeros(len(u), 1)


def sizes_of(u: Tensor) -> Tensor:
    """max |u| of each sample and channel, (B, C): the natural magnitude of values that stand for themselves.

    Channels may have units of their own: those of a gas differ by five orders. One that vanishes beside the others, where round-off would
    be measured by round-off, has the size of the largest.
    """
    each = u.flatten(2).abs().amax(2) if u[0].numel() else u.new_zeros(u.shape[:2])
    whole = each.amax(1, keepdim=True)
    return torch.where(each > _VANISHING * whole, each, whole)


class LinearMap(nn.Module, ABC):
    """A linear map from fields to rows.

    Attributes:
        shape: what one field looks like, (C, *N).
        rows: number of rows, m.
        batched: whether each sample has its own rows.
        dense_rows: up to this many rows the Gram matrix is formed and inverted once.
        variance: variance of the noise that rows are observed with, (m,); None for exact rows.
        costly: whether it takes a reverse pass for each row to form it.
    """

    shape: tuple[int, ...]
    rows: int
    batched: bool = False
    dense_rows: int = DENSE_ROWS
    variance: Tensor | None = None
    costly: bool = False
    _gram_inverse: Tensor | None = None

    @abstractmethod
    def forward(self, u: Tensor) -> Tensor:
        """A u: (B, C, *N) to (B, m)."""

    @abstractmethod
    def adjoint(self, y: Tensor) -> Tensor:
        """Aᵀ y: (B, m) to (B, C, *N)."""

    def solve_gram(self, r: Tensor) -> Tensor:
        """A least-squares solution λ of A Aᵀ λ = r, (B, m)."""
        if self.rows > self.dense_rows:
            return conjugate_gradients(lambda y: self(self.adjoint(y)), r)
        if self._gram_inverse is None or self._gram_inverse.device != r.device:
            self._gram_inverse = pseudo_inverse(self.gram(r.to(torch.float64)))
        inverse = self._gram_inverse.to(r)
        return (inverse @ r[..., None])[..., 0] if self.batched else r @ inverse

    def precondition(self, r: Tensor) -> Tensor:
        """A cheap approximation of `solve_gram`, symmetric positive semidefinite, for the iterations of others."""
        return self.solve_gram(r)

    def gram(self, like: Tensor) -> Tensor:
        """The Gram matrix A Aᵀ, (m, m), or one for each row of `like` (B, m), (B, m, m), where samples have their own rows."""
        eye = torch.eye(self.rows, dtype=like.dtype, device=like.device)
        if self.batched:
            return torch.stack([self(self.adjoint(e.expand(like.shape[0], -1))) for e in eye], dim=-1)
        return torch.cat([self(self.adjoint(part)) for part in eye.split(_CHUNK)])

    def acts_on_each(self, dim: int) -> bool:
        """Whether each row sees the values at one index of a dimension of the fields alone, counted from the end."""
        return False

    def subtract(self, field: Tensor, y: Tensor) -> Tensor:
        """field - Aᵀ y, in place."""
        return field.sub_(self.adjoint(y))

    def without(self, field: Tensor, y: Tensor) -> Tensor:
        """field - Aᵀ y, in a tensor of its own."""
        return field - self.adjoint(y)

    def null_rows(self) -> Tensor | None:
        """Which rows are zero, (m,), where all others are independent and far from dependent; None where that is not known."""
        return None

    def gram_diagonal(self, like: Tensor) -> Tensor | None:
        """The Gram matrix where it is a diagonal, (1, m) or (B, m); None where it is not."""
        return None

    def entries(self) -> Entries | None:
        """The map entry by entry, where its rows see few values or are known one by one; None where that would be denser than the map."""
        return None

    def nearest(self, u: Tensor, target: Tensor | None = None) -> tuple[Tensor, Tensor]:
        r"""The nearest field with $A v = b$ (0 by default) and its multiplier: $\lambda = (AA^\top)^+(Au - b)$, $v = u - A^\top\lambda$."""
        rows = self(u)
        multiplier = self.solve_gram(rows if target is None else rows - target)
        return self.without(u, multiplier), multiplier

    def weighted(self, diagonal: Tensor) -> LinearMap:
        r"""The map $A D$ for a diagonal $D$, (C, *N) or broadcastable, or one for each sample, (B, C, *N): the same rows in other
        units (D a scale for each channel) or on fewer unknowns (D a mask)."""
        return Weighted(self, diagonal)

    def scale(self, u: Tensor) -> Tensor:
        r"""Natural magnitude of each row, (B, m) or (B, 1): that of the terms whose sum is $A u$.

        By default the root mean square of the field times the norm of a typical row.
        """
        probe = torch.ones(1, self.rows, dtype=u.dtype, device=u.device)
        row = self.adjoint(probe).flatten(1).norm(dim=1) / self.rows**0.5
        return (row * u.flatten(1).norm(dim=1))[:, None]

    def measure(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """A u and its scale, for maps that get both from one evaluation."""
        return self(u), self.scale(u)


class Weighted(LinearMap):
    r"""$A D$ for a map without structure of its own left: Gram systems by conjugate gradients, preconditioned by $A$'s own solve."""

    def __init__(self, inner: LinearMap, diagonal: Tensor) -> None:
        super().__init__()
        self.inner = inner
        self.register_buffer("diagonal", diagonal)
        self.shape, self.rows = inner.shape, inner.rows
        self.batched = inner.batched or diagonal.ndim > len(inner.shape)

    def acts_on_each(self, dim: int) -> bool:
        return self.inner.acts_on_each(dim)

    diagonal: Tensor

    def forward(self, u: Tensor) -> Tensor:
        return self.inner(self.diagonal.to(u) * u)

    def adjoint(self, y: Tensor) -> Tensor:
        return self.diagonal.to(y) * self.inner.adjoint(y)

    def solve_gram(self, r: Tensor) -> Tensor:
        if (
            self.rows <= self.dense_rows
        ):  # weights of any spread: refined once, since the inverse knows them no better than they condition it
            y = super().solve_gram(r)
            return y + super().solve_gram(r - self(self.adjoint(y)))
        return conjugate_gradients(lambda y: self(self.adjoint(y)), r, preconditioner=self.inner.precondition, max_iterations=1000)

    def weighted(self, diagonal: Tensor) -> LinearMap:
        return Weighted(self.inner, self.diagonal * diagonal.to(self.diagonal))

    def entries(self) -> Entries | None:
        inner, lead = self.inner.entries(), self.diagonal.ndim - len(self.inner.shape)
        if inner is None:
            return None
        return inner.weighted(self.diagonal.expand(*self.diagonal.shape[: max(lead, 0)], *self.inner.shape).flatten(max(lead, 0)))

    def scale(self, u: Tensor) -> Tensor:
        return self.inner.scale(self.diagonal.to(u) * u)


class Noisy(LinearMap):
    r"""Rows observed with independent noise: their Gram matrix is $A A^\top + R$.

    `nearest` then gives the posterior mean of a standard normal prior around u: $v = u - A^\top\lambda$ with $A v - b = R\lambda$.

    Arguments:
        inner: A, the same for all samples.
        variance: the diagonal of R, not negative, (m,).
    """

    noise: Tensor

    def __init__(self, inner: LinearMap, variance: Tensor) -> None:
        super().__init__()
        self.inner = inner
        self.register_buffer("noise", variance)
        self.shape, self.rows, self.batched, self.dense_rows = inner.shape, inner.rows, inner.batched, inner.dense_rows

    @property
    def variance(self) -> Tensor:  # type: ignore[override]
        return self.noise

    def acts_on_each(self, dim: int) -> bool:
        return self.inner.acts_on_each(dim)

    def forward(self, u: Tensor) -> Tensor:
        rows: Tensor = self.inner(u)
        return rows

    def adjoint(self, y: Tensor) -> Tensor:
        return self.inner.adjoint(y)

    def solve_gram(self, r: Tensor) -> Tensor:
        variance = self.variance.to(r)
        diagonal = self.inner.gram_diagonal(r)
        if diagonal is not None:
            total = diagonal + variance
            return torch.where(total > 0, r / torch.where(total > 0, total, 1.0), 0.0)
        if self.rows <= self.dense_rows:
            return super().solve_gram(r)
        return conjugate_gradients(lambda y: self(self.adjoint(y)) + variance * y, r, max_iterations=1000)

    def gram(self, like: Tensor) -> Tensor:
        return self.inner.gram(like) + torch.diag(self.variance.to(like))

    def weighted(self, diagonal: Tensor) -> LinearMap:
        return Noisy(self.inner.weighted(diagonal), self.variance)

    def entries(self) -> Entries | None:
        return self.inner.entries()

    def scale(self, u: Tensor) -> Tensor:
        return self.inner.scale(u)

    def measure(self, u: Tensor) -> tuple[Tensor, Tensor]:
        return self.inner.measure(u)


class Linearised(LinearMap):
    """The Jacobian of a residual at a field, by automatic differentiation: never formed."""

    def __init__(self, residual: Callable[[Tensor], Tensor], u: Tensor) -> None:
        super().__init__()
        self.residual = residual
        self.at = u
        value, self._pullback = pullback(residual, u)
        self.shape, self.rows, self.batched = tuple(u.shape[1:]), int(value.shape[1]), True

    def forward(self, u: Tensor) -> Tensor:
        return torch.func.jvp(self.residual, (self.at,), (u,))[1]

    def adjoint(self, y: Tensor) -> Tensor:
        return self._pullback(y)
