r"""Maps that couple each time with the next: integrals in time, and evolution equations.

A row or block of rows n sees the fields at times n and n + 1 only,

$$y_n = P_n u_{n+1} + M_n u_n,$$

so that the Gram matrix is (block) tridiagonal in time, $P_n P_n^\top + M_n M_n^\top$ with neighbours $P_n M_{n+1}^\top$, and is factored in
one sweep. `TimeSteps` has one row a time, weighted sums over space; `LineSteps` has a row for each point of a line, where P and M are
banded; `BlockSteps` any, where they are dense.
"""

from __future__ import annotations

import functools
import math
from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from constraints.linear.entries import Entries
from constraints.linear.map import LinearMap
from constraints.linear.solve import pseudo_inverse


class TimeSteps(LinearMap):
    r"""$y_n = \sum_k a_{kn}\langle s_{k,n+1}, u_{n+1}\rangle + b_{kn}\langle s_{k,n}, u_n\rangle$ for each sample.

    Rows next to each other share the fields at the time between them, but for a factor.

    Arguments:
        parts: $s_k$, (B, C, T, *space), or with B = 1 the same for all samples.
        after: $a_k$, (T - 1,) each.
        before: $b_k$, likewise.
    """

    batched = True

    def __init__(self, parts: Sequence[Tensor], after: Sequence[Tensor], before: Sequence[Tensor]) -> None:
        super().__init__()
        self.parts, self.after, self.before = list(parts), list(after), list(before)
        self.shape, self.rows = tuple(parts[0].shape[1:]), parts[0].shape[2] - 1
        self._bands: tuple[Tensor, Tensor] | None = None

    def forward(self, u: Tensor) -> Tensor:
        total = u.new_zeros(len(u), self.rows)
        for part, after, before in zip(self.parts, self.after, self.before, strict=True):
            inner = _over_space(part, u)
            total = total.addcmul_(after, inner[:, 1:]).addcmul_(before, inner[:, :-1])
        return total

    def _factors(self, y: Tensor) -> list[Tensor]:
        """What each part counts with at each time in Aᵀ y, shaped to multiply it."""
        found = []
        for after, before in zip(self.after, self.before, strict=True):
            factor = y.new_zeros(len(y), self.rows + 1)
            factor[:, 1:] = after * y
            factor[:, :-1] += before * y
            found.append(factor.reshape(len(y), 1, -1, *(1,) * (len(self.shape) - 2)))
        return found

    def adjoint(self, y: Tensor) -> Tensor:
        factors = self._factors(y)
        out = self.parts[0] * factors[0]
        for part, factor in zip(self.parts[1:], factors[1:], strict=True):
            out.addcmul_(part, factor)
        return out

    def subtract(self, field: Tensor, y: Tensor) -> Tensor:
        for part, factor in zip(self.parts, self._factors(y), strict=True):
            field.addcmul_(part, factor, value=-1)
        return field

    def without(self, field: Tensor, y: Tensor) -> Tensor:
        factors = self._factors(y)
        out = torch.addcmul(field, self.parts[0], factors[0], value=-1)
        for part, factor in zip(self.parts[1:], factors[1:], strict=True):
            out.addcmul_(part, factor, value=-1)
        return out

    def solve_gram(self, r: Tensor) -> Tensor:
        return solve_tridiagonal(*self.bands(r), r)

    def bands(self, r: Tensor) -> tuple[Tensor, Tensor]:
        """The Gram matrix's diagonal and what is beside it, for as many samples as there are right-hand sides."""
        if self._bands is None:
            diagonal, beside = r.new_zeros(1, self.rows), r.new_zeros(1, self.rows - 1)
            for k, first in enumerate(self.parts):
                for m, second in enumerate(self.parts[: k + 1]):
                    inner, twice = _over_space(second, first), 1.0 if k == m else 2.0
                    diagonal = diagonal + twice * self.after[k] * self.after[m] * inner[:, 1:]
                    diagonal = diagonal + twice * self.before[k] * self.before[m] * inner[:, :-1]
                    pair = self.after[k][:-1] * self.before[m][1:] + (0.0 if k == m else self.after[m][:-1] * self.before[k][1:])
                    beside = beside + pair * inner[:, 1:-1]
            self._bands = diagonal.expand(len(r), -1), beside.expand(len(r), -1)
        return self._bands

    def weighted(self, diagonal: Tensor) -> LinearMap:
        """A weight for each time is one of the factors."""
        full = diagonal.to(self.parts[0])
        lead = full.ndim - len(self.shape)
        each = full.expand(*full.shape[: max(lead, 0)], *self.shape).movedim(max(lead, 0) + 1, max(lead, 0)).flatten(max(lead, 0) + 1)
        if lead < 1 and bool((each == each[:, :1]).all()):
            return TimeSteps(self.parts, [a * each[1:, 0] for a in self.after], [b * each[:-1, 0] for b in self.before])
        return TimeSteps([part * full for part in self.parts], self.after, self.before)

    def row(self, n: int) -> tuple[Tensor, Tensor]:
        """What multiplies the fields behind and before step n, (B, C, *space) each."""
        plus = [after[n] * part[:, :, n + 1] for part, after in zip(self.parts, self.after, strict=True)]
        minus = [before[n] * part[:, :, n] for part, before in zip(self.parts, self.before, strict=True)]
        return functools.reduce(torch.add, plus), functools.reduce(torch.add, minus)

    def _sides(self) -> tuple[Tensor, Tensor]:
        """What multiplies the fields behind and before all steps, (B, C, T - 1, *space) each."""
        spread = (-1, *(1,) * (len(self.shape) - 2))
        plus = [after.reshape(spread) * part[:, :, 1:] for part, after in zip(self.parts, self.after, strict=True)]
        minus = [before.reshape(spread) * part[:, :, :-1] for part, before in zip(self.parts, self.before, strict=True)]
        return functools.reduce(torch.add, plus), functools.reduce(torch.add, minus)

    def entries(self) -> Entries:
        plus, minus = self._sides()
        steps, place = self.rows, torch.arange(math.prod(self.shape), device=plus.device).reshape(self.shape)
        row = torch.arange(steps, device=place.device).reshape(-1, *(1,) * (len(self.shape) - 2)).expand(plus.shape[1:]).flatten()
        values = torch.cat([plus.flatten(1), minus.flatten(1)], dim=1)
        columns = torch.cat([place[:, 1:].flatten(), place[:, :-1].flatten()])
        return Entries(torch.cat([row, row]), columns, values if len(values) > 1 else values[0])

    def scale(self, u: Tensor) -> Tensor:
        plus, minus = self._sides()
        return _over_space(plus.abs(), u[:, :, 1:].abs()) + _over_space(minus.abs(), u[:, :, :-1].abs())


def _over_space(a: Tensor, b: Tensor) -> Tensor:
    """Inner products over channels and space, one a time, (B, T)."""
    if a is b:
        return torch.linalg.vector_norm(a.flatten(3) if a.ndim > 3 else a[..., None], dim=3).square().sum(1)
    if a.ndim == 3:
        return (a * b).sum(1)
    if len(a) == 1 and len(b) > 1:
        return torch.einsum("cts,bcts->bt", a[0].flatten(2), b.flatten(3))
    return torch.einsum("bcts,bcts->bt", a.flatten(3), b.flatten(3))


def solve_tridiagonal(diagonal: Tensor, beside: Tensor, r: Tensor) -> Tensor:
    """Solve symmetric positive semidefinite tridiagonal systems, (B, m) and (B, m - 1), all samples as one banded system on the CPU.

    Null rows get zero; systems that are singular otherwise are pseudo-inverted.
    """
    import scipy.linalg  # here, since it is slow to import and few laws need it

    batch, m = r.shape
    empty = diagonal <= 0
    if m == 1:
        return torch.where(empty, 0.0, r / torch.where(empty, 1.0, diagonal))
    bands = np.zeros((2, batch * m))
    bands[0] = torch.where(empty, 1.0, diagonal).detach().cpu().to(torch.float64).numpy().reshape(-1)
    bands[1].reshape(batch, m)[:, :-1] = beside.detach().cpu().to(torch.float64).numpy()
    right = torch.where(empty, 0.0, r).detach().cpu().to(torch.float64).numpy().reshape(-1)
    try:
        solved = scipy.linalg.solveh_banded(bands, right, lower=True, check_finite=False)
    except np.linalg.LinAlgError:
        gram = torch.diag_embed(diagonal) + torch.diag_embed(beside, 1) + torch.diag_embed(beside, -1)
        return (pseudo_inverse(gram) @ r[..., None])[..., 0]
    return torch.from_numpy(solved.reshape(batch, m)).to(r)


class PointSteps(LinearMap):
    r"""$y_n = P_n u_{n+1} + M_n u_n$: some rows for each of the first steps.

    The Gram matrix is block tridiagonal, factored by a block Cholesky sweep.

    Attributes:
        steps: number of steps.
    """

    batched = True
    steps: int

    def __init__(self) -> None:
        super().__init__()
        self._factors: Factors | None = None

    @abstractmethod
    def blocks(self) -> list[tuple[Tensor, Tensor]]:
        """P and M of each step as dense blocks, (B, k, n)."""

    def solve_gram(self, r: Tensor) -> Tensor:
        if self._factors is None:
            self._factors = factor_blocks(self.blocks())
        parts = list(r.reshape(len(r), self.steps, -1, 1).unbind(1))
        forward_blocks(self._factors, parts)
        backward_blocks(self._factors, parts)
        return torch.stack(parts, dim=1).reshape(len(r), -1)


class BlockSteps(PointSteps):
    """Steps with dense P and M, (B, steps, k, n), of fields with so many times."""

    def __init__(self, plus: Tensor, minus: Tensor, times: int) -> None:
        super().__init__()
        self.plus, self.minus, self.steps = plus, minus, plus.shape[1]
        self.shape, self.rows = (1, times, plus.shape[3]), plus.shape[1] * plus.shape[2]

    def forward(self, u: Tensor) -> Tensor:
        x = u[:, 0, : self.steps + 1, :, None]
        return (self.plus @ x[:, 1:] + self.minus @ x[:, :-1]).flatten(1)

    def adjoint(self, y: Tensor) -> Tensor:
        rows = y.reshape(len(y), self.steps, 1, -1)
        out = y.new_zeros(len(y), *self.shape)
        out[:, 0, 1 : self.steps + 1] += (rows @ self.plus)[:, :, 0]
        out[:, 0, : self.steps] += (rows @ self.minus)[:, :, 0]
        return out

    def weighted(self, diagonal: Tensor) -> LinearMap:
        full = diagonal.to(self.plus)
        full = (full if full.ndim > 3 else full[None]).expand(-1, *self.shape)[:, 0, : self.steps + 1, None]
        return BlockSteps(self.plus * full[:, 1:], self.minus * full[:, :-1], self.shape[1])

    def blocks(self) -> list[tuple[Tensor, Tensor]]:
        return list(zip(self.plus.unbind(1), self.minus.unbind(1), strict=True))

    def scale(self, u: Tensor) -> Tensor:
        """The largest sum of magnitudes of a row's terms."""
        x = u[:, 0, : self.steps + 1, :, None].abs()
        return (self.plus.abs() @ x[:, 1:] + self.minus.abs() @ x[:, :-1]).flatten(1).amax(1, keepdim=True)


class LineSteps(PointSteps):
    r"""$y_n = P_n u_{n+1} + M_n u_n$ at chosen points of a line, with banded P and M of each sample and step.

    Arguments:
        plus: bands of P: entry [b, j, n, i] multiplies $u_{n+1}$ at point i + j - r, (B, 2 r + 1, steps, n).
        minus: bands of M, likewise.
        points: indices of the points that have a row, (k,).
        times: number of stored times; steps are the first of them.
        periodic: whether the line is.
    """

    def __init__(self, plus: Tensor, minus: Tensor, points: Tensor, times: int, periodic: bool, free: Tensor | None = None) -> None:
        super().__init__()
        self.plus, self.minus, self.points, self.periodic, self.free = plus, minus, points, periodic, free
        self.steps, self.size = plus.shape[2], plus.shape[3]
        self.shape, self.rows = (1, times, self.size), self.steps * len(points)

    def _block(self, bands: Tensor, n: int, time: int) -> Tensor:
        """The rows of one step as dense blocks, (B, k, n)."""
        radius = bands.shape[1] // 2
        full = bands.new_zeros(bands.shape[0], self.size, self.size)
        row = torch.arange(self.size, device=bands.device)
        for j in range(bands.shape[1]):
            column = row + j - radius
            inside = torch.ones_like(row, dtype=torch.bool) if self.periodic else (column >= 0) & (column < self.size)
            full[:, row[inside], column[inside] % self.size] += bands[:, j, n][:, inside]
        block = full[:, self.points]
        return block if self.free is None else block * self.free[:, 0, time][:, None]

    def _banded(self, bands: Tensor, u: Tensor) -> Tensor:
        """Banded products, (B, steps, n)."""
        radius = bands.shape[1] // 2
        total = torch.zeros_like(u)
        for j in range(bands.shape[1]):
            total = total + bands[:, j] * _shifted(u, j - radius, self.periodic)
        return total

    def _banded_transposed(self, bands: Tensor, y: Tensor) -> Tensor:
        radius = bands.shape[1] // 2
        total = torch.zeros_like(y)
        for j in range(bands.shape[1]):
            total = total + _shifted(bands[:, j] * y, radius - j, self.periodic)
        return total

    def forward(self, u: Tensor) -> Tensor:
        x = u[:, 0, : self.steps + 1]
        x = x if self.free is None else self.free[:, 0, : self.steps + 1] * x
        rows = self._banded(self.plus, x[:, 1:]) + self._banded(self.minus, x[:, :-1])
        return rows[..., self.points].flatten(1)

    def adjoint(self, y: Tensor) -> Tensor:
        rows = y.new_zeros(len(y), self.steps, self.size)
        rows[..., self.points] = y.reshape(len(y), self.steps, -1)
        out = y.new_zeros(len(y), *self.shape)
        out[:, 0, 1 : self.steps + 1] += self._banded_transposed(self.plus, rows)
        out[:, 0, : self.steps] += self._banded_transposed(self.minus, rows)
        return out if self.free is None else self.free * out

    def weighted(self, diagonal: Tensor) -> LinearMap:
        full = diagonal.to(self.plus)
        full = (full if full.ndim > 3 else full[None]).expand(-1, *self.shape)
        return LineSteps(self.plus, self.minus, self.points, self.shape[1], self.periodic, full if self.free is None else self.free * full)

    def entries(self) -> Entries:
        rows, columns, values = [], [], []
        step = torch.arange(self.steps, device=self.plus.device)[:, None]
        row = step * len(self.points) + torch.arange(len(self.points), device=step.device)
        for bands, ahead in ((self.plus, 1), (self.minus, 0)):
            radius = bands.shape[1] // 2
            for j in range(bands.shape[1]):
                point = self.points + j - radius
                inside = torch.ones_like(point, dtype=torch.bool) if self.periodic else (point >= 0) & (point < self.size)
                rows.append(row[:, inside].flatten())
                columns.append(((step + ahead) * self.size + point[inside] % self.size).flatten())
                values.append(bands[:, j][..., self.points[inside]].flatten(1))
        found = Entries(torch.cat(rows), torch.cat(columns), torch.cat(values, dim=1))
        return found if self.free is None else found.weighted(self.free.flatten(1))

    def blocks(self) -> list[tuple[Tensor, Tensor]]:
        return [(self._block(self.plus, n, n + 1), self._block(self.minus, n, n)) for n in range(self.steps)]

    def scale(self, u: Tensor) -> Tensor:
        """The largest sum of magnitudes of a row's terms."""
        x = u[:, 0, : self.steps + 1].abs()
        rows = self._banded(self.plus.abs(), x[:, 1:]) + self._banded(self.minus.abs(), x[:, :-1])
        return rows.flatten(1).amax(1, keepdim=True)


Factors = list[tuple[Tensor, Tensor | None]]
"""Roots $L_n$ of a block tridiagonal matrix, with the blocks $G_{n,n-1} L_{n-1}^{-\\top}$ left of them."""


_SHIFTS = (1e-12, 1e-9, 1e-6)
"""Shifts of a matrix that is not positive definite, as fractions of its largest diagonal entry."""


def factor_blocks(blocks: list[tuple[Tensor, Tensor]]) -> Factors:
    """Block Cholesky factors of the Gram matrix of row blocks (P_n, M_n)."""
    factors: Factors = []
    previous: Tensor | None = None
    for plus, minus in blocks:
        gram = plus @ plus.mT + minus @ minus.mT
        off = None
        if previous is not None:
            off = torch.linalg.solve_triangular(factors[-1][0], previous @ minus.mT, upper=False).mT
            gram = gram - off @ off.mT
        factors.append((_root(gram), off))
        previous = plus
    return factors


def _root(gram: Tensor) -> Tensor:
    """Cholesky factors of semidefinite matrices, (B, k, k); those that round-off has made indefinite are shifted, as little as it takes.

    Null rows, of which nothing is free, get zero where zero is asked for.
    """
    null = gram.diagonal(dim1=-2, dim2=-1) == 0
    if bool(null.any()):
        gram = gram + torch.diag_embed(null.to(gram))
    root, info = torch.linalg.cholesky_ex(gram)
    size = gram.diagonal(dim1=-2, dim2=-1).abs().amax(-1).clamp_min(torch.finfo(gram.dtype).tiny)[:, None, None]
    eye = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    for shift in _SHIFTS:
        bad = info > 0
        if not bool(bad.any()):
            return root
        shifted, again = torch.linalg.cholesky_ex(gram + shift * size * eye)
        root, info = torch.where(bad[:, None, None], shifted, root), torch.where(bad, again, info)
    return torch.where((info > 0)[:, None, None], size.sqrt() * eye, root)  # no factor of it: the solve will not converge, and says so


def forward_blocks(factors: Factors, parts: list[Tensor]) -> None:
    """Right-hand sides, (B, k, 1) each, to those of the transposed factor, in place."""
    for n, (root, off) in enumerate(factors):
        right = parts[n] if off is None else parts[n] - off @ parts[n - 1]
        parts[n] = torch.linalg.solve_triangular(root, right, upper=False)


def backward_blocks(factors: Factors, parts: list[Tensor]) -> None:
    """Those to solutions, in place."""
    for n in reversed(range(len(factors))):
        following = factors[n + 1][1] if n + 1 < len(factors) else None
        right = parts[n] if following is None else parts[n] - following.mT @ parts[n + 1]
        parts[n] = torch.linalg.solve_triangular(factors[n][0].mT, right, upper=True)


class JointSteps(LinearMap):
    """The first steps of a line point by point, and all steps in the sum: rows of the one, then of the other.

    While both have rows, each step is one block; the steps that sums alone have are tridiagonal and follow as one tail.

    Arguments:
        line: rows of the first steps.
        sums: one row a time, on the same fields.
    """

    batched = True

    def __init__(self, line: PointSteps, sums: TimeSteps) -> None:
        super().__init__()
        self.line, self.sums = line, sums
        self.shape, self.rows = line.shape, line.rows + sums.rows
        self._head: Factors | None = None
        self._link: Tensor | None = None
        self._tail: tuple[Tensor, Tensor]

    def forward(self, u: Tensor) -> Tensor:
        return torch.cat([self.line(u), self.sums(u)], dim=1)

    def adjoint(self, y: Tensor) -> Tensor:
        return self.line.adjoint(y[:, : self.line.rows]) + self.sums.adjoint(y[:, self.line.rows :])

    def weighted(self, diagonal: Tensor) -> LinearMap:
        line, sums = self.line.weighted(diagonal), self.sums.weighted(diagonal)
        assert isinstance(line, PointSteps)
        assert isinstance(sums, TimeSteps)
        return JointSteps(line, sums)

    def _factor(self, like: Tensor) -> None:
        """Factors of the head, the tail's bands, and what couples its first row to the last block."""
        steps, blocks = self.line.steps, []
        for n, (plus, minus) in enumerate(self.line.blocks()):
            ends = [part.expand(len(plus), -1, -1) for part in self.sums.row(n)]
            blocks.append((torch.cat([plus, ends[0]], dim=1), torch.cat([minus, ends[1]], dim=1)))
        self._head = factor_blocks(blocks)
        diagonal, beside = self.sums.bands(like)
        tail = diagonal[:, steps:].clone()
        if tail.shape[1]:
            coupling = blocks[-1][0] @ self.sums.row(steps)[1].mT
            self._link = torch.linalg.solve_triangular(self._head[-1][0], coupling, upper=False).mT
            tail[:, 0] -= self._link.square().sum((1, 2))
        self._tail = tail, beside[:, steps:]

    def solve_gram(self, r: Tensor) -> Tensor:
        if self._head is None:
            self._factor(r)
        assert self._head is not None
        steps, batch = self.line.steps, len(r)
        points, own = r[:, : self.line.rows].reshape(batch, steps, -1), r[:, self.line.rows :]
        parts = list(torch.cat([points, own[:, :steps, None]], dim=2)[..., None].unbind(1))
        tail = own[:, steps:].clone()
        forward_blocks(self._head, parts)
        if self._link is not None:
            tail[:, :1] -= (self._link @ parts[-1])[..., 0]
            tail = solve_tridiagonal(*self._tail, tail)
            parts[-1] = parts[-1] - self._link.mT * tail[:, :1, None]
        backward_blocks(self._head, parts)
        joined = torch.stack(parts, dim=1)[..., 0]
        return torch.cat([joined[:, :, :-1].reshape(batch, -1), joined[:, :, -1], tail], dim=1)


def _shifted(x: Tensor, by: int, periodic: bool) -> Tensor:
    """x at point i + by, zero outside a bounded line."""
    if by == 0:
        return x
    rolled = x.roll(-by, -1)
    if not periodic:
        rolled = rolled.clone()
        rolled[..., slice(-by, None) if by > 0 else slice(0, -by)] = 0.0
    return rolled


class TimeGram:
    """The Gram matrix of plain time differences at every point: what that of an evolution equation is without its right-hand side.

    Arguments:
        steps: number of differences.
        first: whether the first time is free too.
    """

    def __init__(self, steps: int, first: bool, like: Tensor) -> None:
        gram = 2 * torch.eye(steps) - torch.diag(torch.ones(steps - 1), 1) - torch.diag(torch.ones(steps - 1), -1)
        if not first:
            gram[0, 0] = 1.0
        self.inverse = torch.linalg.inv(gram.to(torch.float64)).to(like)

    def __call__(self, r: Tensor, points: int) -> Tensor:
        steps = self.inverse.shape[0]
        rows = r.reshape(len(r), math.prod(r.shape[1:]) // (steps * points), steps, points)
        return torch.einsum("st,bctp->bcsp", self.inverse, rows).reshape(r.shape)
