r"""Sums of one-dimensional operators on the axes of a box, and their exact Gram solve.

A discrete divergence on a box is a sum over components, each differentiated along its own axis,

$$A u = \sum_k \Big(D_k \otimes \bigotimes_{j\ne k} S_j\Big) u_k,\qquad
A A^\top = \sum_k G_k \otimes \bigotimes_{j\ne k} M_j,\quad G_k = D_k D_k^\top,\ M_j = S_j S_j^\top,$$

with differences $D_k$ of any stencil and spacing and a diagonal $S_j$: which points of the other axes a component has, and with what
weight. On each axis the two positive semidefinite matrices $G_j, M_j$ have one common eigenbasis, $Q^\top G Q = \Gamma$,
$Q^\top M Q = \mathrm M$, even where both are singular. In the product of these bases the Gram matrix is a diagonal: walls, openings,
periodic axes, staggered and stretched grids are solved exactly, at the cost of two small matrix products an axis (fast diagonalisation,
Lynch, Rice & Thomas, Numer. Math. 6 (1964) 185).

Weights that are products over the axes, such as walls where the velocity is given, keep the structure.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from constraints.linear.map import LinearMap

_NULL = 1e-12
"""Eigenvalues below this share of the largest count as zero: round-off of dense eigenvectors."""

_OFFSETS = 12
"""Matrices with at most this many diagonals are applied diagonal by diagonal, others by a matrix product."""


class KroneckerSum(LinearMap):
    r"""$\sum_k s_k (D_k \otimes \bigotimes_{j\ne k} S_j) u_{c_k}$: a divergence, or a curl in the plane, on a box.

    Arguments:
        differences: $D_k$, (n_k, n_k), one for each of the last d axes.
        channels: $c_k$, the channel differentiated along axis k.
        shape: what one field looks like, (C, *N); dimensions of *N before the last d are carried along.
        signs: $s_k$; ones by default.
        lines: for component k and axis j the diagonal weight of the axis's points, (n_j,), d x d; ones by default. All components but
            the j-th must share the squared weights of axis j up to a factor.
        lead: weight of each of the leading points, broadcastable to them.
    """

    def __init__(
        self,
        differences: Sequence[Tensor],
        channels: Sequence[int],
        shape: tuple[int, ...],
        *,
        signs: Sequence[float] | None = None,
        lines: Sequence[Sequence[Tensor]] | None = None,
        lead: Tensor | None = None,
    ) -> None:
        super().__init__()
        d = len(differences)
        self.shape, self.channels = tuple(shape), tuple(channels)
        self.sizes = tuple(shape[-d:])
        self.rows = math.prod(shape[1:])
        self.signs = tuple(signs) if signs is not None else (1.0,) * d
        self.register_buffer("lead", torch.ones(shape[1:-d], dtype=torch.float64) if lead is None else lead)
        for k in range(d):
            self.register_buffer(f"difference{k}", differences[k].to(torch.float64))
            for j in range(d):
                line = torch.ones(self.sizes[j], dtype=torch.float64) if lines is None else lines[k][j].to(torch.float64)
                self.register_buffer(f"line{k}{j}", line)
        self._diagonals = [_diagonals(self._difference(k)) for k in range(d)]
        self._bases: tuple[list[Tensor], Tensor] | None = None

    lead: Tensor

    def acts_on_each(self, dim: int) -> bool:
        return dim < -len(self.sizes)

    def _difference(self, k: int) -> Tensor:
        return self.get_buffer(f"difference{k}")

    def _line(self, k: int, j: int) -> Tensor:
        return self.get_buffer(f"line{k}{j}")

    def _along(self, j: int, values: Tensor) -> Tensor:
        """Values of the points of axis j, shaped to multiply fields."""
        return values.reshape(-1, *(1,) * (len(self.sizes) - 1 - j))

    def _weigh(self, k: int, x: Tensor, *, skip: int | None = None) -> Tensor:
        """A component times its weights on all axes and leading points."""
        for j in range(len(self.sizes)):
            line = self._line(k, j)
            if j != skip and not bool((line == 1).all()):
                x = x * self._along(j, line.to(x))
        if bool((self.lead != 1).any()):
            x = x * self.lead.to(x).reshape(*self.lead.shape, *(1,) * len(self.sizes))
        return x

    def _difference_along(self, k: int, x: Tensor, *, transposed: bool = False) -> Tensor:
        """D_k or its transpose along axis k of (..., *N)."""
        dim, found = k - len(self.sizes), self._diagonals[k]
        if found is None:
            matrix = self._difference(k).to(x)
            return torch.einsum("ij,...j->...i", matrix.T if transposed else matrix, x.movedim(dim, -1)).movedim(-1, dim)
        n = x.shape[dim]
        out: Tensor | None = None
        for offset, values in (pair for pair in found if pair[1].count_nonzero() > n // 4):
            column = self._along(k, values.to(x))
            term = (column * x).roll(offset, dim) if transposed else column * x.roll(-offset, dim)
            out = term if out is None else out + term
        out = torch.zeros_like(x) if out is None else out
        for offset, values in (pair for pair in found if pair[1].count_nonzero() <= n // 4):  # a few rows, at the ends
            rows = values.nonzero()[:, 0]
            columns = (rows + offset) % n
            sources, places = (rows, columns) if transposed else (columns, rows)
            out = out.index_add(dim, places, self._along(k, values[rows].to(x)) * x.index_select(dim, sources))
        return out

    def terms(self, u: Tensor) -> Tensor:
        """The terms of the sum at each point, (B, d, *lead, *N)."""
        parts = [self.signs[k] * self._difference_along(k, self._weigh(k, u[:, c])) for k, c in enumerate(self.channels)]
        return torch.stack(parts, dim=1)

    def forward(self, u: Tensor) -> Tensor:
        return self.terms(u).sum(1).flatten(1)

    def adjoint(self, y: Tensor) -> Tensor:
        y = y.reshape(-1, *self.shape[1:])
        parts = {c: self._weigh(k, self.signs[k] * self._difference_along(k, y, transposed=True)) for k, c in enumerate(self.channels)}
        zero = y.new_zeros(y.shape)
        return torch.stack([parts.get(c, zero) for c in range(self.shape[0])], dim=1)

    def solve_gram(self, r: Tensor) -> Tensor:
        bases, inverse = self._factors(r)
        y = r.reshape(-1, *self.shape[1:])
        for j, basis in enumerate(bases):
            y = _multiply(basis.T, y, j - len(bases))
        y = y * inverse
        for j, basis in enumerate(bases):
            y = _multiply(basis, y, j - len(bases))
        return y.flatten(1)

    def _factors(self, like: Tensor) -> tuple[list[Tensor], Tensor]:
        """The common eigenbasis of each axis and the inverse of the Gram matrix in their product, (*lead, *K)."""
        if self._bases is None or self._bases[1].dtype != like.dtype or self._bases[1].device != like.device:
            bases, inverse = self._diagonalise()
            self._bases = [basis.to(like) for basis in bases], inverse.to(like)
        return self._bases

    def _diagonalise(self) -> tuple[list[Tensor], Tensor]:
        d = len(self.sizes)
        bases, first, others = [], [], []
        for j in range(d):
            scaled = self._difference(j) * self._line(j, j)
            rest = self._line(1 if j == 0 else 0, j) ** 2
            basis, gamma, mu = common_basis(scaled @ scaled.T, rest)
            bases.append(basis)
            first.append(gamma)
            others.append(mu)
        total = torch.zeros((), dtype=torch.float64)
        for k in range(d):
            factor = self.signs[k] ** 2 * math.prod(self._ratio(k, j) for j in range(d) if j != k)
            parts = [first[j] if j == k else others[j] for j in range(d)]
            total = total + factor * functools.reduce(lambda a, b: a[..., None] * b, parts)
        inverse = torch.where(total > _NULL * total.max(), 1 / torch.where(total > 0, total, 1.0), 0.0)
        squared = self.lead.to(total).square().reshape(*self.lead.shape, *(1,) * d)
        return bases, torch.where(squared > 0, inverse / torch.where(squared > 0, squared, 1.0), 0.0)

    def _ratio(self, k: int, j: int) -> float:
        """Factor of component k's squared weights on axis j over those the axis was diagonalised with."""
        reference = self._line(1 if j == 0 else 0, j) ** 2
        at = int(reference.argmax())
        return float(self._line(k, j)[at] ** 2 / reference[at])

    def weighted(self, diagonal: Tensor) -> LinearMap:
        """In this class where each channel's weight is a product over the axes that the components share, else `Weighted`."""
        product = None if diagonal.ndim > len(self.shape) else self._product(diagonal.to(self.lead))
        if product is None:
            return super().weighted(diagonal)
        lines, lead = product
        differences = [self._difference(k) for k in range(len(self.sizes))]
        return KroneckerSum(differences, self.channels, self.shape, signs=self.signs, lines=lines, lead=lead)

    def _product(self, diagonal: Tensor) -> tuple[list[list[Tensor]], Tensor] | None:
        """The weight as products over axes, if it is one that keeps the structure."""
        d = len(self.sizes)
        full = diagonal.expand(self.shape)
        lines, leads = [], []
        for k, c in enumerate(self.channels):
            factors = _rank_one(full[c].reshape(-1, *self.sizes))
            if factors is None:
                return None
            leads.append(factors[0])
            lines.append([self._line(k, j) * factors[1 + j] for j in range(d)])
        scale = leads[0].abs().max()
        for k in range(d):  # one weight of leading points for all components, their factor moved into the lines
            ratio = leads[k].abs().max() / scale if scale > 0 else torch.ones_like(scale)
            if not torch.allclose(leads[k].abs(), ratio * leads[0].abs(), rtol=1e-13, atol=0.0) or bool((leads[k] * leads[0] < 0).any()):
                return None
            lines[k][k] = lines[k][k] * ratio
        for j in range(d):
            rest = [lines[k][j] ** 2 for k in range(d) if k != j]
            peak = rest[0].max()
            if peak == 0 or any(not torch.allclose(r * peak, rest[0] * r[rest[0].argmax()], rtol=1e-12, atol=0.0) for r in rest[1:]):
                return None
        return lines, self.lead * leads[0].reshape(self.lead.shape)

    def scale(self, u: Tensor) -> Tensor:
        return self.measure(u)[1]

    def measure(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Rows, and their natural magnitude: the largest sum of the magnitudes of their terms, plus the root mean square gradient."""
        terms = self.terms(u)
        largest = terms.abs().sum(1).flatten(1).amax(1, keepdim=True)
        power = terms.square().flatten(1).sum(1, keepdim=True)
        for k, c in enumerate(self.channels):
            across = self._weigh(k, u[:, c])
            for j in range(len(self.sizes)):
                if j != k:
                    power = power + self._difference_along(j, across).square().flatten(1).sum(1, keepdim=True)
        return terms.sum(1).flatten(1), largest + (power / self.rows).sqrt()


def common_basis(gram: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    r"""Q, $\gamma$, $\mu$ with $Q^\top G Q = \mathrm{diag}(\gamma)$ and $Q^\top \mathrm{diag}(m) Q = \mathrm{diag}(\mu)$.

    Arguments:
        gram: G, symmetric positive semidefinite, (n, n).
        weights: m, not negative, (n,).

    Returns:
        Q (n, r), $\gamma$ and $\mu$ (r,), with r the rank of G and the weights together.
    """
    if bool((weights == 1).all()):
        values, vectors = torch.linalg.eigh(gram)
        return vectors, values.clamp_min(0), torch.ones_like(values)
    size, heavy = gram.diagonal().max().clamp_min(torch.finfo(gram.dtype).tiny), weights.max().clamp_min(torch.finfo(gram.dtype).tiny)
    values, vectors = torch.linalg.eigh(gram / size + torch.diag(weights / heavy))
    kept = values > _NULL * values[-1]
    whiten = vectors[:, kept] * values[kept].rsqrt()
    inside = whiten.T @ gram @ whiten / size
    share, rotation = torch.linalg.eigh((inside + inside.T) / 2)
    share = share.clamp(0, 1)
    share = torch.where(share < _NULL, 0.0, torch.where(share > 1 - _NULL, 1.0, share))
    return whiten @ rotation, size * share, heavy * (1 - share)


def _multiply(matrix: Tensor, x: Tensor, dim: int) -> Tensor:
    """A matrix along one dimension, as one product of matrices."""
    if dim == -1:
        return x @ matrix.T
    if dim == -2:
        return matrix @ x
    moved = x.movedim(dim, -2)
    return (matrix @ moved).movedim(-2, dim)


def _rank_one(values: Tensor) -> list[Tensor] | None:
    """Factors whose outer product is a tensor, None if there are none."""
    flat = values.abs().reshape(-1)
    peak = int(flat.argmax())
    if flat[peak] == 0:
        return [torch.zeros_like(values.movedim(j, -1).reshape(-1, n)[0]) for j, n in enumerate(values.shape)]
    at = [int(i) for i in torch.unravel_index(torch.tensor(peak), values.shape)]
    top = values.reshape(-1)[peak]
    factors = []
    for j in range(values.ndim):
        line = values
        for i, index in enumerate(at):
            if i != j:
                line = line.narrow(i, index, 1)
        factors.append(line.reshape(-1) / (top if j else 1.0))
    outer = functools.reduce(lambda a, b: a[..., None] * b, factors)
    return factors if torch.allclose(outer, values, rtol=1e-13, atol=0.0) else None


def _diagonals(matrix: Tensor) -> list[tuple[int, Tensor]] | None:
    """The non-zero (wrapped) diagonals of a square matrix, row by row; None if there are many."""
    n = matrix.shape[0]
    row, column = matrix.nonzero(as_tuple=True)
    offsets = torch.unique((column - row + n // 2) % n - n // 2).tolist()
    if len(offsets) > _OFFSETS:
        return None
    i = torch.arange(n, device=matrix.device)
    return [(offset, matrix[i, (i + offset) % n]) for offset in offsets]
