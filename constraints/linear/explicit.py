r"""Jacobians by a few pulled-back rows: written out, but no denser than they are.

Rows without a value in common are pulled back together: one colour, one reverse pass, one field. Which rows share values is found once,
on one sample, at two points. A law of m rows that each see few values takes a handful of passes in place of m, and its Gram matrix a
handful of products of fields; where every row sees everything, the colours are the rows and the Gram matrix one product of matrices.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from constraints.linear.derivative import pullback
from constraints.linear.entries import Entries
from constraints.linear.map import LinearMap
from constraints.linear.solve import semidefinite_solver

LARGEST = 2**27
"""Numbers that the pulled-back rows of a batch may take (1 GiB); beyond, the Jacobian is not written out."""


_AT_ONCE = 2**16
"""Numbers of a stack of copies of the fields on which rows are pulled back together: what a cache holds. Larger fields go row by row."""


class Colouring(NamedTuple):
    """Which rows are pulled back together.

    Attributes:
        owner: for each colour and value the row that sees it, or m for none, (c, n).
        rows: number of rows, m.
    """

    owner: Tensor
    rows: int

    @property
    def seeds(self) -> Tensor:
        """The cotangent of each colour, (c, m)."""
        counted = torch.zeros(len(self.owner), self.rows + 1, dtype=torch.float64, device=self.owner.device)
        return counted.scatter(1, self.owner, 1.0)[:, : self.rows]


def colouring(residual: Callable[[Tensor], Tensor], u: Tensor) -> Colouring:
    """The colouring of a residual's rows, greedily, from their supports at a field and at one beside it.

    Arguments:
        residual: (1, C, *N) to (1, m).
        u: one field, (1, C, *N).
    """
    noise = torch.randn(u.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(u)
    supports = _support(residual, u) | _support(residual, u + (u.abs().amax() + 1) * noise)
    sees = supports.to(torch.float32)
    conflicts = (sees @ sees.T > 0).cpu()
    colours = _greedy(conflicts)
    owner = torch.full((max(colours) + 1, supports.shape[1]), len(colours), dtype=torch.int64, device=u.device)
    for row, colour in enumerate(colours):
        owner[colour, supports[row]] = row
    return Colouring(owner, len(colours))


def _support(residual: Callable[[Tensor], Tensor], u: Tensor) -> Tensor:
    """Which values each row sees at a field, (m, n)."""
    value, pull = pullback(residual, u)
    rows = torch.eye(value.shape[1], dtype=value.dtype, device=value.device)
    return torch.stack([pull(row[None]).flatten() != 0 for row in rows])


def _greedy(conflicts: Tensor) -> list[int]:
    """A colour for each row, different from those of the rows it conflicts with."""
    colours: list[int] = []
    members: list[Tensor] = []
    for row in range(len(conflicts)):
        for colour, taken in enumerate(members):
            if not taken[row]:
                members[colour] = taken | conflicts[row]
                colours.append(colour)
                break
        else:
            members.append(conflicts[row].clone())
            colours.append(len(members) - 1)
    return colours


def _pulled(residual: Callable[[Tensor], Tensor], u: Tensor, seeds: Tensor) -> Tensor:
    """Pulled-back seeds (c, m) for each sample, (B, c, n), in one pass over a batch in which each sample stands once for each seed."""
    count = len(seeds)
    copies = u.repeat_interleave(count, dim=0)
    pulled = pullback(residual, copies)[1](seeds.repeat(len(u), 1))
    return pulled.reshape(len(u), count, -1)


def _one_by_one(residual: Callable[[Tensor], Tensor], u: Tensor, seeds: Tensor) -> Tensor:
    """The same from one evaluation and a pass back for each seed."""
    pull = pullback(residual, u)[1]
    return torch.stack([pull(seed.expand(len(u), -1)).flatten(1) for seed in seeds], dim=1)


class ExplicitRows(LinearMap):
    """The Jacobian of a residual at a field, pulled back colour by colour.

    Arguments:
        residual: (B, C, *N) to (B, m).
        u: the field.
        colours: which rows are pulled back together.
    """

    batched = True

    def __init__(self, residual: Callable[[Tensor], Tensor], u: Tensor, colours: Colouring) -> None:
        super().__init__()
        seeds = colours.seeds.to(u)
        each = _AT_ONCE // u.numel()
        self.fields = (
            _one_by_one(residual, u, seeds) if each < 2 else torch.cat([_pulled(residual, u, s) for s in seeds.split(each)], dim=1)
        )
        self._set(tuple(u.shape[1:]), colours)

    def _set(self, shape: tuple[int, ...], colours: Colouring) -> None:
        self.shape, self.rows, self.colours = shape, colours.rows, colours
        self.dense = self.costly = len(colours.owner) == colours.rows
        self._solver: Callable[[Tensor], Tensor] | None = None

    def forward(self, u: Tensor) -> Tensor:
        flat = u.flatten(1)
        if self.dense:
            return (self.fields @ flat[..., None])[..., 0]
        out = u.new_zeros(len(u), self.rows + 1)
        for owner, field in zip(self.colours.owner, self.fields.unbind(1), strict=True):
            out.scatter_add_(1, owner.expand(len(u), -1), field * flat)
        return out[:, : self.rows]

    def adjoint(self, y: Tensor) -> Tensor:
        if self.dense:
            return (y[:, None] @ self.fields)[:, 0].reshape(-1, *self.shape)
        padded = torch.nn.functional.pad(y, (0, 1))
        total = torch.zeros_like(self.fields[:, 0])
        for owner, field in zip(self.colours.owner, self.fields.unbind(1), strict=True):
            total = torch.addcmul(total, field, padded[:, owner])
        return total.reshape(-1, *self.shape)

    def entries(self) -> Entries:
        colour, column = (self.colours.owner < self.rows).nonzero(as_tuple=True)
        return Entries(self.colours.owner[colour, column], column, self.fields[:, colour, column])

    def gram(self, like: Tensor) -> Tensor:
        if self.dense:
            return self.fields @ self.fields.mT
        m, owners = self.rows, self.colours.owner
        total = like.new_zeros(len(like), (m + 1) ** 2)
        for a in range(len(owners)):
            for b in range(a, len(owners)):
                pair = owners[a] * (m + 1) + owners[b]
                total.scatter_add_(1, pair.expand(len(like), -1), self.fields[:, a] * self.fields[:, b])
        half = total.reshape(-1, m + 1, m + 1)[:, :m, :m]
        return half + half.mT - torch.diag_embed(half.diagonal(dim1=1, dim2=2))

    def solve_gram(self, r: Tensor) -> Tensor:
        if self._solver is None:
            self._solver = semidefinite_solver(self.gram(r))
        return self._solver(r)

    def weighted(self, diagonal: Tensor) -> LinearMap:
        part = ExplicitRows.__new__(ExplicitRows)
        LinearMap.__init__(part)
        full = diagonal.to(self.fields)
        flat = (full if full.ndim > len(self.shape) else full[None]).expand(-1, *self.shape).flatten(1)
        part.fields = self.fields * flat[:, None]
        part._set(self.shape, self.colours)
        return part
