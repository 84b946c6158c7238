r"""Linear maps from fields to rows, $A: (B, C, *N) \to (B, m)$.

A map offers $A u$, $A^\top y$ and a least-squares solve of its Gram matrix, $A A^\top\lambda = r$. The last is what a projection
costs: a map that knows its structure replaces the dense default by a division, a transform or a small matrix.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from constraints.linear.solve import conjugate_gradients, pseudo_inverse

DENSE_ROWS = 512
"""Above this many rows the Gram matrix is not formed: conjugate gradients take over."""


class LinearMap(nn.Module, ABC):
    """A linear map from fields to rows.

    Attributes:
        shape: what one field looks like, (C, *N).
        rows: number of rows, m.
    """

    shape: tuple[int, ...]
    rows: int

    @abstractmethod
    def forward(self, u: Tensor) -> Tensor:
        """A u: (B, C, *N) to (B, m)."""

    @abstractmethod
    def adjoint(self, y: Tensor) -> Tensor:
        """Aᵀ y: (B, m) to (B, C, *N)."""

    def solve_gram(self, r: Tensor) -> Tensor:
        """A least-squares solution λ of A Aᵀ λ = r, (B, m)."""
        if self.rows <= DENSE_ROWS:
            return (pseudo_inverse(self.gram(r)) @ r[..., None])[..., 0]
        return conjugate_gradients(lambda y: self(self.adjoint(y)), r)

    def gram(self, like: Tensor) -> Tensor:
        """The Gram matrix A Aᵀ for each row of `like` (B, m), column by column: (B, m, m)."""
        eye = torch.eye(self.rows, dtype=like.dtype, device=like.device)
        return torch.stack([self(self.adjoint(e.expand(like.shape[0], -1))) for e in eye], dim=-1)

    def nearest(self, u: Tensor, target: Tensor | None = None) -> tuple[Tensor, Tensor]:
        r"""The nearest field with $A v = b$ (0 by default) and its multiplier: $\lambda = (AA^\top)^+(Au - b)$, $v = u - A^\top\lambda$."""
        rows = self(u)
        multiplier = self.solve_gram(rows if target is None else rows - target)
        return u - self.adjoint(multiplier), multiplier

    def weighted(self, diagonal: Tensor) -> LinearMap:
        r"""The map $A D$ for a diagonal $D$, (C, *N) or broadcastable: the same rows in other units (D a scale for each channel) or
        on fewer unknowns (D a mask)."""
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

    diagonal: Tensor

    def forward(self, u: Tensor) -> Tensor:
        return self.inner(self.diagonal.to(u) * u)

    def adjoint(self, y: Tensor) -> Tensor:
        return self.diagonal.to(y) * self.inner.adjoint(y)

    def solve_gram(self, r: Tensor) -> Tensor:
        if self.rows <= DENSE_ROWS:
            return super().solve_gram(r)
        return conjugate_gradients(lambda y: self(self.adjoint(y)), r, preconditioner=self.inner.solve_gram, max_iterations=1000)

    def weighted(self, diagonal: Tensor) -> LinearMap:
        return Weighted(self.inner, self.diagonal * diagonal.to(self.diagonal))

    def scale(self, u: Tensor) -> Tensor:
        return self.inner.scale(self.diagonal.to(u) * u)


class Linearised(LinearMap):
    """The Jacobian of a residual at a field, by automatic differentiation: never formed."""

    def __init__(self, residual: Callable[[Tensor], Tensor], u: Tensor) -> None:
        super().__init__()
        self.residual = residual
        self.at = u
        value, self._pullback = torch.func.vjp(residual, u)[:2]
        self.shape, self.rows = tuple(u.shape[1:]), int(value.shape[1])
        self._inverse: Tensor | None = None

    def forward(self, u: Tensor) -> Tensor:
        return torch.func.jvp(self.residual, (self.at,), (u,))[1]

    def adjoint(self, y: Tensor) -> Tensor:
        return self._pullback(y)[0]

    def solve_gram(self, r: Tensor) -> Tensor:
        """As for all maps; the Jacobian is that of one field, so that its Gram matrix is inverted once."""
        if self.rows > DENSE_ROWS:
            return super().solve_gram(r)
        if self._inverse is None:
            self._inverse = pseudo_inverse(self.gram(r))
        return (self._inverse @ r[..., None])[..., 0]
