r"""Maps given by a sparse matrix: any mesh, any stencil.

The Gram matrix $A A^\top$ is factored once, with a small multiple of its diagonal added so that redundant rows do no harm; iterative
refinement on the exact Gram matrix takes that multiple out again in a step or two. One factorisation serves a whole batch and every
later call.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from constraints.linear.map import LinearMap

_SHIFT = 1e-7
"""Multiple of the Gram matrix's diagonal that is added before factoring: far above round-off, far below any true eigenvalue's share."""


_REFINEMENTS = 8


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
        self._factors: Any = None
        self._shift: Tensor

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
        r"""$G_\epsilon^{-1}(1 - N^2)\,r$, symmetric, with $G_\epsilon = G + \epsilon D$ and $N = \epsilon D G_\epsilon^{-1}$.

        N is one on the null space of G, where the inverse alone would blow up what is not there but for round-off, and next to nothing
        elsewhere.
        """
        if self._factors is None:
            self._factors, raised = factored(self.matrix @ self.matrix.T)
            self._shift = torch.from_numpy(raised)
        shift = self._shift.to(r)
        return self._inverse(r - shift * self._inverse(shift * self._inverse(r)))

    def _inverse(self, r: Tensor) -> Tensor:
        """Solve with the factors of the slightly shifted Gram matrix."""
        solved = self._factors.solve(np.ascontiguousarray(r.detach().to("cpu", torch.float64).numpy().T))
        return torch.from_numpy(np.ascontiguousarray(solved.T)).to(r)

    def weighted(self, diagonal: Tensor) -> LinearMap:
        full = diagonal.to("cpu", torch.float64)
        if full.ndim > len(self.shape):
            return super().weighted(diagonal)
        scaled = self.matrix.copy()
        scaled.data *= full.expand(self.shape).reshape(-1).numpy()[scaled.indices]
        return SparseMap(scaled, self.shape).to(self.values.device)

    def scale(self, u: Tensor) -> Tensor:
        r"""$\sum_j |a_{ij}|\,\max|u|$ over the values that take part in any row, for each row."""
        columns = math.prod(self.shape)
        taken = torch.diff(self.transposed_starts) > 0
        size = (u.flatten(1).abs() * taken).amax(1, keepdim=True)
        ones = torch.ones(1, columns, dtype=u.dtype, device=u.device)
        forth = (self.starts, self.columns, self.values.abs(), (self.rows, columns))
        return size * _product(ones, forth, forth)


def factored(gram: Any) -> tuple[Any, np.ndarray]:
    """SuperLU factors of a sparse symmetric positive semidefinite matrix, its diagonal raised by a small share of itself; and the share."""
    import scipy.sparse.linalg  # here, since it is slow to import and few laws need it

    diagonal = gram.diagonal()
    raised = np.where(diagonal > 0, _SHIFT * diagonal, 1.0)
    shifted = (gram + scipy.sparse.diags_array(raised)).tocsc()
    options = {"SymmetricMode": True}
    return scipy.sparse.linalg.splu(shifted, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options=options), raised


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
