r"""Rows written out entry by entry, as far as they see few values: what a direct solve of any mixture of them needs to know.

An entry is $(i, j, a)$: row i holds the value j with weight a; entries of one place add up. Places are those of all samples, weights may
differ from sample to sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Entries(NamedTuple):
    """A sparse map.

    Attributes:
        rows: row of each entry, (k,).
        columns: its value, as an index of the flattened field, (k,).
        values: its weight, (k,), or (B, k) if each sample has its own.
    """

    rows: Tensor
    columns: Tensor
    values: Tensor

    def weighted(self, diagonal: Tensor) -> Entries:
        """Values in other units or on fewer unknowns: weights of the values, (n,) or (B, n)."""
        return self._replace(values=self.values * diagonal.to(self.values)[..., self.columns])

    def masked(self, mask: Tensor) -> Entries:
        """Rows times factors of their own, (m,) or (B, m)."""
        return self._replace(values=self.values * mask.to(self.values)[..., self.rows])

    def combined(self, matrix: Tensor) -> Entries:
        """The rows of a product with a matrix (m', m) from the left."""
        taker, taken = matrix.nonzero(as_tuple=True)
        order = torch.argsort(self.rows, stable=True)
        counts = torch.bincount(self.rows, minlength=matrix.shape[1])
        first = torch.cumsum(counts, 0) - counts
        times = counts[taken]
        within = torch.arange(int(times.sum()), device=times.device) - torch.repeat_interleave(torch.cumsum(times, 0) - times, times)
        chosen = order[torch.repeat_interleave(first[taken], times) + within]
        factor = torch.repeat_interleave(matrix[taker, taken].to(self.values), times)
        return Entries(torch.repeat_interleave(taker, times), self.columns[chosen], factor * self.values[..., chosen])


def stacked(parts: Sequence[Entries], sizes: Sequence[int]) -> Entries:
    """The rows of several maps, of so many rows each, one after the other."""
    batch = max((len(part.values) for part in parts if part.values.ndim > 1), default=0)
    values = [part.values.expand(batch, -1) if batch else part.values for part in parts]
    begins = [sum(sizes[:i]) for i in range(len(parts))]
    rows = [part.rows + begin for part, begin in zip(parts, begins, strict=True)]
    return Entries(torch.cat(rows), torch.cat([part.columns for part in parts]), torch.cat(values, dim=-1))
