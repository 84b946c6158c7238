r"""Faces: the linear rows and the values at bounds that hold with equality, and projectors onto the directions they leave.

With D the mask of values that are free and A the linear rows, $P = D - D A^\top (A D A^\top)^{+} A D$. Without bounds, P is that of the
stacked laws, block by block; at bounds, each sample has its own mask. A mask keeps diagonal Gram matrices diagonal; few rows are
bordered; sparse rows are factored; all else takes conjugate gradients preconditioned with the structured solve of the unmasked rows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from constraints.constraint import Constraint
from constraints.linear.entries import Entries
from constraints.linear.map import LinearMap, Weighted
from constraints.linear.solve import conjugate_gradients, pseudo_inverse
from constraints.linear.sparse import SparseGram
from constraints.linear.stacked import Stacked

FEW_ROWS = 16
"""Up to this many rows a Gram matrix is formed for each sample's mask."""


class Kernel(ABC):
    """The orthogonal projector P onto the directions that linear rows leave.

    Attributes:
        rows: number of linear rows.
        free: 1 where no row and no bound gives the value outright, (C, *N) or (B, C, *N); None where none does.
        is_mask: whether P is that mask.
        stack: the linear rows, if any.
    """

    rows: int
    free: Tensor | None
    is_mask: bool
    stack: Stacked | None

    def acts_on_each(self, dim: int) -> bool:
        """Whether P acts on the values at each index of a dimension alone."""
        return self.stack is None or self.stack.acts_on_each(dim)

    @abstractmethod
    def __call__(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """P z, and multipliers ν of the rows; z - P z = Aᵀ ν, but for forces on values at bounds."""

    @abstractmethod
    def project(self, z: Tensor) -> Tensor:
        """P z alone."""

    @abstractmethod
    def held(self, force: Tensor, multiplier: Tensor) -> Tensor:
        """What is left of a force off the kernel on values at bounds, force - Aᵀ ν."""


class AffineKernel(Kernel):
    """Of stacked laws alone; the identity if there are none."""

    def __init__(self, stack: Stacked | None) -> None:
        self.stack = stack
        self.rows = 0 if stack is None else stack.rows
        self.is_mask = stack is None or stack.selects
        self.free = None if stack is None else stack.free

    def __call__(self, z: Tensor) -> tuple[Tensor, Tensor]:
        if self.stack is None:
            return z, z.new_zeros(z.shape[0], 0)
        if self.is_mask and self.free is not None:
            return z * self.free.to(z), self.stack.multipliers(z, None)
        return self.stack.nearest(z)

    def project(self, z: Tensor) -> Tensor:
        if self.stack is None:
            return z
        return z * self.free.to(z) if self.is_mask and self.free is not None else self.stack.field(z)

    def held(self, force: Tensor, multiplier: Tensor) -> Tensor:
        return torch.zeros_like(force)


class FaceKernel(Kernel):
    """Of stacked laws and values at bounds, each sample with its own.

    Arguments:
        stack: the linear laws, if any.
        free: 1 where a value is not at a bound, (B, C, *N).
    """

    def __init__(self, stack: Stacked | None, free: Tensor) -> None:
        self.stack = stack
        self.rows = 0 if stack is None else stack.rows
        self.free: Tensor = free if stack is None or stack.free is None else free * stack.free.to(free)
        self.rest = None if stack is None else stack.unselected
        self.is_mask = self.rest is None
        self._solve = None if self.rest is None else MaskedGram(self.rest, self.free)

    def __call__(self, z: Tensor) -> tuple[Tensor, Tensor]:
        inside = self.free * z
        if self.rest is None or self._solve is None:
            return inside, self._all(z - inside, None, z)
        y = self._solve(self.rest(inside), inside)
        forces = self.rest.adjoint(y)
        kept = inside - self.free * forces
        return kept, self._all(z - kept - forces, y, z)

    def project(self, z: Tensor) -> Tensor:
        inside = self.free * z
        if self.rest is None or self._solve is None:
            return inside
        return inside - self.free * self.rest.adjoint(self._solve(self.rest(inside), inside))

    def nearest(self, u: Tensor, target: Tensor | None) -> Tensor:
        """The nearest field to u that equals it where it is not free and meets the rows elsewhere."""
        if self.rest is None or self._solve is None or self.stack is None:
            return u
        rows = self.rest(u)
        b = None if target is None else self.stack.target_of_unselected(target.expand(len(u), -1))
        return u - self.free * self.rest.adjoint(self._solve(rows if b is None else rows - b, u))

    def held(self, force: Tensor, multiplier: Tensor) -> Tensor:
        rest = force if self.stack is None else force - self.stack.adjoint(multiplier)
        at_bounds = (self.free == 0).to(force)
        return rest * (at_bounds if self.stack is None or self.stack.free is None else at_bounds * self.stack.free.to(force))

    def _all(self, held: Tensor, y: Tensor | None, like: Tensor) -> Tensor:
        """Multipliers of all rows of the stack from those of unselected ones and the forces on values held."""
        if self.stack is None:
            return like.new_zeros(len(like), 0)
        return self.stack.multipliers(held, y)


class MaskedGram:
    r"""Solves of $A D A^\top + R$ for masks D of their own for each sample.

    Arguments:
        rows: A.
        free: the diagonal of D, (B, C, *N).
    """

    def __init__(self, rows: LinearMap, free: Tensor) -> None:
        self.map, self.free = rows, free
        masked = rows.weighted(free)
        self.exact: LinearMap | None = None if isinstance(masked, (Weighted, Stacked)) else masked
        self.inverse: Tensor | None = None
        if self.exact is None and rows.rows <= FEW_ROWS:
            eye = torch.eye(rows.rows, dtype=free.dtype, device=free.device)
            fields = rows.adjoint(eye).flatten(1)
            gram = torch.stack([(free.flatten(1) * field) @ fields.T for field in fields], dim=1)
            self.inverse = pseudo_inverse(gram if rows.variance is None else gram + torch.diag(rows.variance.to(gram)))
        self.factored: Callable[[Tensor], Tensor] | None = None
        if self.exact is None and self.inverse is None:
            sparse = SparseGram.of(rows, len(free))
            self.factored = None if sparse is None else sparse.semidefinite(free.flatten(1), rows.variance)

    def __call__(self, r: Tensor, field: Tensor | None = None) -> Tensor:
        """A solution y; what would move the field by round-off counts as zero."""
        if self.exact is not None:
            return self.exact.solve_gram(r)
        if self.inverse is not None:
            return (self.inverse @ r[..., None])[..., 0]
        if self.factored is not None:
            return self.factored(r)
        noise = 0.0 if self.map.variance is None else self.map.variance.to(r)
        return conjugate_gradients(
            lambda y: self.map(self.free * self.map.adjoint(y)) + noise * y,
            r,
            preconditioner=self.map.precondition,
            size=None if field is None else field.flatten(1).norm(dim=1),
            max_iterations=1000,
        )


class RowMask(LinearMap):
    """Some rows of a map, others replaced by zero rows, each sample with its own choice."""

    def __init__(self, inner: LinearMap, mask: Tensor) -> None:
        super().__init__()
        self.inner, self.mask = inner, mask
        self.shape, self.rows, self.batched = inner.shape, inner.rows, True
        self._factored: Callable[[Tensor], Tensor] | None = None

    def forward(self, u: Tensor) -> Tensor:
        rows: Tensor = self.mask * self.inner(u)
        return rows

    def adjoint(self, y: Tensor) -> Tensor:
        return self.inner.adjoint(self.mask * y)

    def solve_gram(self, r: Tensor) -> Tensor:
        r = self.mask * r
        direct = self._direct(r)
        if direct is not None:
            return direct
        if bool((self.mask == 1).all()):
            return self.inner.solve_gram(r)
        return conjugate_gradients(lambda y: self(self.adjoint(y)), r, preconditioner=self._like_all, max_iterations=1000)

    def precondition(self, r: Tensor) -> Tensor:
        direct = self._direct(self.mask * r)
        return self._like_all(r) if direct is None else direct

    def _direct(self, r: Tensor) -> Tensor | None:
        """A least-squares solution for right-hand sides within the mask, None where only iterations find it."""
        diagonal = self.inner.gram_diagonal(r)
        if diagonal is not None or (not isinstance(self.inner, Stacked) and bool((self.mask == 1).all())):
            return self.mask * self.inner.solve_gram(r)
        if self._factored is None:
            sparse = SparseGram.of(self.inner, len(r))
            if sparse is not None:
                self._factored = sparse.semidefinite(r.new_ones(len(r), sparse.columns), kept=self.mask > 0)
        return None if self._factored is None else self._factored(r)

    def _like_all(self, r: Tensor) -> Tensor:
        """As if all rows were there."""
        return self.mask * self.inner.precondition(self.mask * r)

    def weighted(self, diagonal: Tensor) -> LinearMap:
        return RowMask(self.inner.weighted(diagonal), self.mask)

    def entries(self) -> Entries | None:
        inner = self.inner.entries()
        return None if inner is None else inner.masked(self.mask)

    def scale(self, u: Tensor) -> Tensor:
        return self.inner.scale(u)


class ActiveRows(Constraint):
    """Rows of laws taken as equalities, others dropped, each sample with its own choice.

    Arguments:
        inner: the laws.
        mask: 1 for rows that hold with equality, (B, m).
    """

    def __init__(self, inner: Constraint, mask: Tensor) -> None:
        super().__init__()
        self.inner, self.mask = inner, mask

    def residual(self, u: Tensor) -> Tensor:
        return torch.where(self._mask(u) > 0, self.inner.residual(u), 0.0)  # rows without a bound are infinite

    def jacobian(self, u: Tensor) -> LinearMap:
        return RowMask(self.inner.jacobian(u), self._mask(u))

    def scale(self, u: Tensor) -> Tensor:
        return self.inner.scale(u)

    def curvature(self, u: Tensor, multiplier: Tensor, direction: Tensor) -> Tensor:
        return self.inner.curvature(u, self._mask(u) * multiplier, direction)

    def _mask(self, u: Tensor) -> Tensor:
        return self.mask[: len(u)]
