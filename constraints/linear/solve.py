"""Symmetric positive semidefinite systems, on matrices and on functions, batched, rank-deficient ones included.

`torch.linalg.solve` on batches is avoided on purpose: batched LU fails in some CPU builds with more than one thread, and the systems
here are symmetric anyway.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_RANK = 1e-11
"""Eigenvalues below this fraction of the largest count as zero: redundant laws meet in round-off, not exactly."""

_PIVOT = 1e-9
"""Squared pivots of a matrix of unit diagonal below this count as nearly singular."""


def pseudo_inverse(gram: Tensor) -> Tensor:
    """Moore-Penrose inverse of symmetric positive semidefinite matrices (..., m, m).

    Rows are scaled to a unit diagonal first, so that laws in different units do not hide one another.
    """
    diagonal = gram.diagonal(dim1=-2, dim2=-1)
    scale = torch.where(diagonal > 0, diagonal, torch.ones_like(diagonal)).rsqrt()
    scaled = gram * scale[..., :, None] * scale[..., None, :]
    values, vectors = torch.linalg.eigh((scaled + scaled.mT) / 2)
    floor = max(_RANK, 10 * gram.shape[-1] * torch.finfo(gram.dtype).eps) * values[..., -1:].clamp_min(0)
    inverse = torch.where(values > floor, 1 / torch.where(values > floor, values, 1.0), 0.0)
    return (vectors * inverse[..., None, :]) @ vectors.mT * scale[..., :, None] * scale[..., None, :]


def semidefinite_solver(gram: Tensor) -> Callable[[Tensor], Tensor]:
    """Solves with symmetric positive semidefinite matrices (B, m, m): Cholesky where all are far from singular, else pseudo-inverses.

    Returns:
        The map of right-hand sides (B, m) to solutions.
    """
    diagonal = gram.diagonal(dim1=-2, dim2=-1)
    scale = torch.where(diagonal > 0, diagonal, torch.ones_like(diagonal)).rsqrt()
    root, info = torch.linalg.cholesky_ex(gram * scale[..., :, None] * scale[..., None, :])
    pivots = root.diagonal(dim1=-2, dim2=-1)
    if not bool(info.any()) and bool((pivots.square() > _PIVOT).all()):
        return lambda r: scale * torch.cholesky_solve((scale * r)[..., None], root)[..., 0]
    inverse = pseudo_inverse(gram)
    return lambda r: (inverse @ r[..., None])[..., 0]


def conjugate_gradients(
    matrix: Callable[[Tensor], Tensor],
    b: Tensor,
    *,
    preconditioner: Callable[[Tensor], Tensor] | None = None,
    fraction: float = 0.0,
    size: Tensor | None = None,
    max_iterations: int = 200,
) -> Tensor:
    """Solve symmetric positive semidefinite systems by preconditioned conjugate gradients, each sample with its own steps.

    A sample stops at its tolerance or where its curvature is no longer positive (a null direction of a singular system, or negative
    curvature), and keeps its last iterate; consistent singular systems get a solution.

    Arguments:
        matrix: b ↦ M b, sample by sample.
        b: right-hand sides, (B, ...).
        preconditioner: an approximate inverse, symmetric positive semidefinite.
        fraction: residual to reach as a fraction of b; round-off by default.
        size: the norm, (B,), of which a residual of 16 eps counts as zero; that of b by default. Preconditioned by the inverse of a Gram
            matrix A Aᵀ, a residual is measured by the field that it stands for, A⁺ r.

    Returns:
        Solutions, (B, ...).
    """
    solve = preconditioner or (lambda r: r)
    round_off = 16 * torch.finfo(b.dtype).eps

    def inner(x: Tensor, y: Tensor) -> Tensor:
        return torch.linalg.vecdot(x.flatten(1), y.flatten(1))

    def spread(values: Tensor) -> Tensor:
        return values.reshape(-1, *(1,) * (b.ndim - 1))

    x, r = torch.zeros_like(b), b
    z = solve(r)
    p = z
    rz = inner(r, z)
    floor = torch.maximum(max(fraction, round_off) ** 2 * rz, round_off**2 * (rz if size is None else size.square()))
    active = rz > floor
    for _ in range(max_iterations):
        if not active.any():
            break
        q = matrix(p)
        curvature = inner(p, q)
        active = active & (curvature > 0)
        step = torch.where(active, rz / torch.where(active, curvature, 1.0), 0.0)
        x = x + spread(step) * p
        r = r - spread(step) * q
        z = solve(r)
        new = inner(r, z)
        active = active & (new > floor)
        beta = torch.where(active, new / torch.where(active, rz, 1.0), 0.0)
        p = torch.where(spread(active), z + spread(beta) * p, p)
        rz = torch.where(active, new, rz)
    return x
