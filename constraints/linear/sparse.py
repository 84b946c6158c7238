r"""Maps given by a sparse matrix: any mesh, any stencil; and the Gram matrices of any rows that are sparse.

The Gram matrix $A A^\top$ is factored once, with a small multiple of its diagonal added so that redundant rows do no harm; iterative
refinement on the exact Gram matrix takes that multiple out again in a step or two. One factorisation serves a whole batch and every
later call. Under weights of each sample's own, $A W A^\top$, all samples are one block diagonal matrix and factored together.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from constraints.linear.entries import Entries
from constraints.linear.map import LinearMap, largest_of

_SHIFT = 1e-7
"""Multiple of the Gram matrix's diagonal that is added before factoring: far above round-off, far below any true eigenvalue's share."""


_REFINEMENTS = 8

_THIN = 8
"""Entries of a Gram matrix for each of its rows up to which it is factored whatever its size: rows along lines, or along two axes."""

_LARGEST = 40000
"""Rows up to which any other is."""

_ENTRIES = 2e7
"""Products that make up those that are factored at once: a few hundred MiB with the factors."""


class SparseMap(LinearMap):
    r"""A u for a sparse matrix on flattened fields.

    The factorisation runs on the CPU (SuperLU), wherever the fields are; products stay on the fields' device.

    Arguments:
        matrix: A, (m, C prod N), scipy sparse or a torch sparse or dense tensor.
        shape: what one field looks like, (C, *N).

    Raises:
        ValueError: the matrix has another number of columns than a field has values, or entries that are not finite.
    """

    values: Tensor
    columns: Tensor
    starts: Tensor
    transposed_values: Tensor
    transposed_columns: Tensor
    transposed_starts: Tensor

    def __init__(self, matrix: Any, shape: tuple[int, ...]) -> None:
        super().__init__()
        rows = _csr(matrix)
        if rows.shape[1] != math.prod(shape):
            raise ValueError(f"SparseMap expects one column for each of {math.prod(shape)} values of a field; got {rows.shape[1]}.")
        if not np.isfinite(rows.data).all():
            raise ValueError("SparseMap expects finite entries; got NaN or Inf.")
        self.shape, self.rows = tuple(shape), int(rows.shape[0])
        self.matrix = rows
        for prefix, csr in (("", rows), ("transposed_", rows.T.tocsr())):
            self.register_buffer(f"{prefix}values", torch.from_numpy(csr.data.copy()))
            self.register_buffer(f"{prefix}columns", torch.from_numpy(csr.indices.astype(np.int64)))
            self.register_buffer(f"{prefix}starts", torch.from_numpy(csr.indptr.astype(np.int64)))
        self._factors: Factors | None = None

    def __getstate__(self) -> dict[str, Any]:
        """All but the factors, which cannot be copied and are soon made again."""
        return {**self.__dict__, "_factors": None}

    def forward(self, u: Tensor) -> Tensor:
        columns = math.prod(self.shape)
        forth = (self.starts, self.columns, self.values, (self.rows, columns))
        back = (self.transposed_starts, self.transposed_columns, self.transposed_values, (columns, self.rows))
        return _product(u.flatten(1), forth, back)

    def adjoint(self, y: Tensor) -> Tensor:
        columns = math.prod(self.shape)
        forth = (self.starts, self.columns, self.values, (self.rows, columns))
        back = (self.transposed_starts, self.transposed_columns, self.transposed_values, (columns, self.rows))
        return _product(y, back, forth).reshape(-1, *self.shape)

    def solve_gram(self, r: Tensor) -> Tensor:
        y = self.precondition(r)
        for _ in range(_REFINEMENTS):
            left = r - self(self.adjoint(y))
            if bool((left.norm(dim=1) <= 16 * torch.finfo(r.dtype).eps * r.norm(dim=1)).all()):
                break
            y = y + self.precondition(left)
        return y

    def precondition(self, r: Tensor) -> Tensor:
        if self._factors is None:
            self._factors = Factors(self.matrix @ self.matrix.T)
        return self._factors.semidefinite(r)

    def weighted(self, diagonal: Tensor) -> LinearMap:
        full = diagonal.to("cpu", torch.float64)
        if full.ndim > len(self.shape):
            return super().weighted(diagonal)
        scaled = self.matrix.copy()
        scaled.data *= full.expand(self.shape).reshape(-1).numpy()[scaled.indices]
        return SparseMap(scaled, self.shape).to(self.values.device)

    def entries(self) -> Entries:
        rows = torch.repeat_interleave(torch.arange(self.rows, device=self.starts.device), torch.diff(self.starts))
        return Entries(rows, self.columns, self.values)

    def scale(self, u: Tensor) -> Tensor:
        r"""$\sum_j |a_{ij}|\,\max|u|$ over the channels that take part in any row, for each row."""
        columns = math.prod(self.shape)
        taken = (torch.diff(self.transposed_starts) > 0).reshape(self.shape[0], -1).any(1)
        size = largest_of(u, taken)
        ones = torch.ones(1, columns, dtype=u.dtype, device=u.device)
        forth = (self.starts, self.columns, self.values.abs(), (self.rows, columns))
        return size * _product(ones, forth, forth)


class Factors:
    """SuperLU factors of a sparse symmetric positive semidefinite matrix G, its diagonal raised by a small share of itself.

    Arguments:
        gram: G, scipy sparse.
        raised: what is added to the diagonal, (m,), positive; that share by default.
    """

    def __init__(self, gram: Any, raised: np.ndarray | None = None) -> None:
        import scipy.sparse.linalg  # here, since it is slow to import and few laws need it

        if raised is None:
            diagonal = gram.diagonal()
            raised = np.where(diagonal > 0, _SHIFT * diagonal, 1.0)
        shifted = (gram + scipy.sparse.diags_array(raised)).tocsc()
        options = {"SymmetricMode": True}
        self._factors = scipy.sparse.linalg.splu(shifted, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options=options)
        self._raised = torch.from_numpy(raised)

    def inverse(self, r: Tensor) -> Tensor:
        """The inverse of the raised matrix times right-hand sides (k, m)."""
        solved = self._factors.solve(np.ascontiguousarray(r.detach().to("cpu", torch.float64).numpy().T))
        return torch.from_numpy(np.ascontiguousarray(solved.T)).to(r)

    def semidefinite(self, r: Tensor) -> Tensor:
        r"""$G_\epsilon^{-1}(1 - N^2)\,r$, symmetric, with $G_\epsilon = G + \epsilon D$ and $N = \epsilon D G_\epsilon^{-1}$.

        N is one on the null space of G, where the inverse alone would blow up what is not there but for round-off, and next to nothing
        elsewhere.
        """
        shift = self._raised.to(r)
        return self.inverse(r - shift * self.inverse(shift * self.inverse(r)))


class SparseGram:
    r"""Gram matrices $A W A^\top + R$ of sparse rows under weights of each sample's own, many samples factored at once.

    The factorisation runs on the CPU, wherever the fields are.

    Arguments:
        entries: A.
        rows: number of rows, m.
        columns: number of values of a field, n.
        batch: number of samples.
    """

    def __init__(self, entries: Entries, rows: int, columns: int, batch: int) -> None:
        self.rows, self.columns, self.batch = rows, columns, batch
        each = max(1, int(_ENTRIES // max(_filled(entries, columns), 1.0)))
        self._slices = [slice(first, min(first + each, batch)) for first in range(0, batch, each)]
        self._parts = [_blocks(entries, rows, columns, batch, part) for part in self._slices]

    @staticmethod
    def of(rows: LinearMap, batch: int) -> SparseGram | None:
        """That of a map's rows, None where they are not sparse or their Gram matrix would not be."""
        entries, columns = rows.entries(), math.prod(rows.shape)
        if entries is None or not batch:
            return None
        filled = _filled(entries, columns)
        if filled > _ENTRIES or (filled > _THIN * rows.rows and rows.rows > _LARGEST):
            return None
        return SparseGram(entries, rows.rows, columns, batch)

    def rescaled(self, factors: Tensor) -> SparseGram:
        """That of rows times factors, (B, m)."""
        other, every = copy.copy(self), _numbers(factors)
        other._parts = []
        for part, rows in zip(self._parts, self._slices, strict=True):
            scaled = part.copy()
            scaled.data *= np.repeat(every[rows].reshape(-1), np.diff(part.indptr))
            other._parts.append(scaled)
        return other

    def norms(self) -> Tensor:
        """Norms of the rows, (B, m)."""
        squares = np.concatenate([(part * part).sum(1) for part in self._parts])
        return torch.from_numpy(np.sqrt(squares).reshape(self.batch, self.rows))

    def raised(self, weights: Tensor, kept: Tensor, diagonal: Tensor) -> Callable[[Tensor], Tensor]:
        """Solves with the kept rows of $A W A^\top + R$.

        Arguments:
            weights: the diagonal of W, not negative, (B, n).
            kept: which rows, boolean, (B, m).
            diagonal: that of R, positive, (B, m).

        Returns:
            The map of right-hand sides (B, m) to solutions, zero in the other rows.
        """
        return self._solver(weights, kept, diagonal, lambda gram, added, sample: Factors(gram, added).inverse)

    def semidefinite(self, weights: Tensor, diagonal: Tensor | None = None, *, kept: Tensor | None = None) -> Callable[[Tensor], Tensor]:
        """Solves where rows may depend on each other and the diagonal, zero by default, may be zero; else as `raised`."""
        zero = torch.zeros(1, 1, dtype=torch.float64)
        every = torch.ones(1, 1, dtype=torch.bool)
        return self._solver(weights, every if kept is None else kept, zero if diagonal is None else diagonal, _refined)

    def _solver(
        self, weights: Tensor, kept: Tensor, diagonal: Tensor, make: Callable[[Any, np.ndarray, Tensor], Callable[[Tensor], Tensor]]
    ) -> Callable[[Tensor], Tensor]:
        """Solvers of the kept rows of all samples, each of as many as are factored at once."""
        chosen = kept.detach().cpu().expand(self.batch, self.rows)
        weight, added = _numbers(weights.expand(self.batch, self.columns)), _numbers(diagonal.expand(self.batch, self.rows))
        solvers: list[tuple[Tensor, Callable[[Tensor], Tensor]]] = []
        for part, samples in zip(self._parts, self._slices, strict=True):
            index = chosen[samples].flatten().nonzero()[:, 0]
            rows = part[index.numpy()]
            weighed = rows.copy()
            weighed.data *= weight[samples].reshape(-1)[weighed.indices]
            weighed.eliminate_zeros()
            if len(index):
                solver = make(weighed @ rows.T, added[samples].reshape(-1)[index.numpy()], index // self.rows)
                solvers.append((index + samples.start * self.rows, solver))

        def solved(r: Tensor) -> Tensor:
            flat = r.detach().to("cpu", torch.float64).flatten()
            y = torch.zeros_like(flat)
            for index, solver in solvers:
                y[index] = solver(flat[index][None])[0]
            return y.reshape(r.shape).to(r)

        return solved


def _blocks(entries: Entries, rows: int, columns: int, batch: int, part: slice) -> Any:
    """Some samples' rows as one block diagonal matrix."""
    import scipy.sparse

    values = _numbers(entries.values.expand(batch, -1)[part])
    sample = np.arange(len(values))[:, None]
    row, column = entries.rows.cpu().numpy() + rows * sample, entries.columns.cpu().numpy() + columns * sample
    shape = (len(values) * rows, len(values) * columns)
    return scipy.sparse.coo_array((values.reshape(-1), (row.reshape(-1), column.reshape(-1))), shape=shape).tocsr()


def _filled(entries: Entries, columns: int) -> float:
    """Products that make up the Gram matrix of one sample: no fewer than its entries."""
    return float(torch.bincount(entries.columns, minlength=columns).to(torch.float64).square().sum())


def _numbers(x: Tensor) -> np.ndarray:
    return np.asarray(x.detach().to("cpu", torch.float64).numpy())


def _refined(gram: Any, added: np.ndarray, sample: Tensor) -> Callable[[Tensor], Tensor]:
    """Solves of a semidefinite matrix, refined until what is left of every sample is round-off."""
    import scipy.sparse

    whole = gram + scipy.sparse.diags_array(added) if added.any() else gram
    factors = Factors(whole)

    def sizes(r: Tensor) -> Tensor:
        return torch.zeros(int(sample[-1]) + 1, dtype=torch.float64).index_add(0, sample, r[0].square()).sqrt()

    def solve(r: Tensor) -> Tensor:
        y, size = factors.semidefinite(r), sizes(r)
        best = torch.full_like(size, torch.inf)
        for _ in range(_REFINEMENTS):
            left = r - torch.from_numpy((whole @ y[0].numpy())[None])
            now = sizes(left)
            if not bool(((now > 16 * torch.finfo(r.dtype).eps * size) & (now < best / 2)).any()):  # round-off of its own, or no gain
                break
            best = torch.minimum(best, now)
            y = y + factors.semidefinite(left)
        return y

    return solve


def _csr(matrix: Any) -> Any:
    """A matrix of any kind as scipy's compressed rows, float64, duplicates summed."""
    import scipy.sparse

    if isinstance(matrix, Tensor):
        coo = matrix.detach().cpu().to(torch.float64).to_sparse_coo().coalesce()
        index = coo.indices().numpy()
        matrix = scipy.sparse.coo_array((coo.values().numpy(), (index[0], index[1])), shape=tuple(coo.shape))
    rows = scipy.sparse.csr_array(matrix).astype(np.float64)
    rows.sum_duplicates()
    return rows


_Compressed = tuple[Tensor, Tensor, Tensor, tuple[int, int]]


def _product(x: Tensor, forth: _Compressed, back: _Compressed) -> Tensor:
    out: Tensor = _Product.apply(x, *forth, *back)
    return out


class _Product(torch.autograd.Function):
    """Rows of x times a sparse matrix's transpose; linear, so that its derivative is itself."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor,
        starts: Tensor,
        columns: Tensor,
        values: Tensor,
        size: tuple[int, int],
        back_starts: Tensor,
        back_columns: Tensor,
        back_values: Tensor,
        back_size: tuple[int, int],
    ) -> Tensor:
        with warnings.catch_warnings():  # torch calls its compressed rows beta, once a process
            warnings.simplefilter("ignore", UserWarning)
            matrix = torch.sparse_csr_tensor(starts, columns, values.to(x), size, check_invariants=False)
        return (matrix @ x.T).T.contiguous()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*(i for i in inputs[1:] if isinstance(i, Tensor)))
        ctx.save_for_forward(*(i for i in inputs[1:] if isinstance(i, Tensor)))
        ctx.sizes = inputs[4], inputs[8]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        starts, columns, values, back_starts, back_columns, back_values = ctx.saved_tensors
        size, back_size = ctx.sizes
        g = _Product.apply(gradients[0], back_starts, back_columns, back_values, back_size, starts, columns, values, size)
        return g, *(None,) * 8

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: Any) -> Tensor:
        starts, columns, values, back_starts, back_columns, back_values = ctx.saved_tensors
        size, back_size = ctx.sizes
        out: Tensor = _Product.apply(tangent, starts, columns, values, size, back_starts, back_columns, back_values, back_size)
        return out
