"""Arrays that stay in their file until they are indexed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

Gather = Callable[[Tensor, tuple[int | slice, ...]], Tensor]
"""From positions of samples, and a whole number or slice for each of the other axes, to the values there."""

Read = Callable[[tuple[slice, ...]], Any]
"""From one slice an axis, with positive steps, to the numbers there, an array or a tensor."""

_BLOCK = 1 << 22
"""Values read in one go where all are wanted in turn: 32 MiB of float64."""


class Lazy:
    """Values of a file, read when they are indexed; what comes back are tensors of one type.

    Indexing works as for a tensor with whole numbers, slices with positive steps, and one list or tensor of positions; in one dimension
    at a time it reads no more than it returns along the samples.

    Arguments:
        read: reads a box of the array; never asked for an empty one.
        shape: of the whole array, samples first.
        dtype: of the tensors; values are converted where they are stored otherwise.
        name: what to call the array in errors, the file's name.
        gather: reads samples in any order in one go, where the source can; they are read one by one by default.

    Example:
        >>> table = torch.arange(12.0).reshape(3, 4)
        >>> values = Lazy(lambda box: table[box], (3, 4), torch.float64)
        >>> values[1, ::2]
        tensor([4., 6.], dtype=torch.float64)
        >>> values.rows([2, 0])[:, 1]
        tensor([9., 1.], dtype=torch.float64)
    """

    def __init__(self, read: Read, shape: Sequence[int], dtype: torch.dtype, name: str = "fields", gather: Gather | None = None) -> None:
        self.read, self.dtype, self.name, self.gather = read, dtype, name, gather
        self.shape = torch.Size(shape)
        self.ndim = len(self.shape)

    @classmethod
    def of(cls, values: Tensor) -> Lazy:
        """The view of a tensor, mapped from a file, of which nothing is copied until it is indexed."""

        def gather(rows: Tensor, inner: tuple[int | slice, ...]) -> Tensor:
            return values[(slice(None), *inner)].index_select(0, rows)

        return cls(lambda box: values[box], values.shape, values.dtype, gather=gather)

    def __len__(self) -> int:
        return int(self.shape[0])

    def numel(self) -> int:
        """Number of values."""
        return self.shape.numel()

    def __getitem__(self, key: Any) -> Tensor:
        keys = list(key) if isinstance(key, tuple) else [key]
        if Ellipsis in keys:
            at = keys.index(Ellipsis)
            keys[at : at + 1] = [slice(None)] * (self.ndim - len(keys) + 1)
        if len(keys) > self.ndim:
            raise IndexError(f"{self.name}: {len(keys)} indices for {self.ndim} dimensions.")
        keys += [slice(None)] * (self.ndim - len(keys))
        chosen = [d for d, k in enumerate(keys) if not isinstance(k, (int, slice))]
        if len(chosen) > 1:
            raise IndexError(f"{self.name}: expects a list of positions in one dimension at a time.")
        if chosen == [0]:
            rows = self._positions(0, keys[0])
            inner = tuple(keys[1:])
            if not len(rows):
                return self[(slice(0, 0), *inner)]
            if self.gather is not None:
                within = [self._box(d, k) for d, k in enumerate(inner, 1)]
                places = tuple(b.start if isinstance(k, int) else b for b, k in zip(within, inner, strict=True))
                return self.gather(rows, places)
            return torch.stack([self[(row, *inner)] for row in rows.tolist()])
        box = [self._box(d, k) for d, k in enumerate(keys)]
        wanted = tuple(len(range(*b.indices(n))) for b, n in zip(box, self.shape, strict=True))
        values = torch.empty(wanted, dtype=self.dtype) if 0 in wanted else torch.as_tensor(np.asarray(self.read(tuple(box)))).to(self.dtype)
        if tuple(values.shape) != wanted:
            raise ValueError(f"{self.name}: expects values of shape {wanted} there; got {tuple(values.shape)}. The file is damaged.")
        if self.dtype.is_floating_point and not values.isfinite().all():
            bad = int((~values.isfinite()).sum())
            raise ValueError(
                f"{self.name}: expects finite values; {bad} of {values.numel()} read are NaN or infinite. Repair or drop them first."
            )
        for d in reversed(range(self.ndim)):
            if isinstance(keys[d], int):
                values = values.select(d, 0)
            elif d in chosen:
                start = box[d].start
                values = values.index_select(d, self._positions(d, keys[d]) - start)
        return values

    def _positions(self, dim: int, key: Any) -> Tensor:
        """Positions, whole numbers, none negative."""
        tensor = torch.as_tensor(key)
        positions = tensor.nonzero().flatten() if tensor.dtype == torch.bool else tensor.flatten().to(torch.long)
        n = self.shape[dim]
        if len(positions) and not (-n <= int(positions.min()) and int(positions.max()) < n):
            raise IndexError(f"{self.name}: expects positions below {n} in dimension {dim}; got {positions.tolist()[:8]}.")
        return positions % n

    def _box(self, dim: int, key: Any) -> slice:
        """The slice that holds what a key asks for, none of its ends missing or negative."""
        n = self.shape[dim]
        if isinstance(key, int):
            if not -n <= key < n:
                raise IndexError(f"{self.name}: expects a position below {n} in dimension {dim}; got {key}.")
            return slice(key % n, key % n + 1, 1)
        if isinstance(key, slice):
            start, stop, step = key.indices(n)
            if step < 1:
                raise IndexError(f"{self.name}: expects a positive step; got {step}.")
            return slice(start, max(start, stop), step)
        positions = self._positions(dim, key)
        return slice(int(positions.min()), int(positions.max()) + 1, 1) if len(positions) else slice(0, 0, 1)

    def narrowed(self, *box: slice) -> Lazy:
        """Part of the array, still unread: a slice for each of the first dimensions."""
        full = [*box, *[slice(None)] * (self.ndim - len(box))]
        ranges = [range(*b.indices(n)) for b, n in zip(full, self.shape, strict=True)]

        def read(inner: tuple[slice, ...]) -> Any:
            return self[tuple(_compose(outer, part) for outer, part in zip(ranges, inner, strict=True))]

        whole = self.gather

        def gather(rows: Tensor, inner: tuple[int | slice, ...]) -> Tensor:
            assert whole is not None
            places = (outer[k] if isinstance(k, int) else _compose(outer, k) for outer, k in zip(ranges[1:], inner, strict=True))
            return whole(ranges[0].start + ranges[0].step * rows, tuple(places))

        return Lazy(read, [len(r) for r in ranges], self.dtype, self.name, None if whole is None else gather)

    def rows(self, index: Any) -> Lazy:
        """Samples in another order, still unread."""
        order, whole = self._positions(0, index), self.gather

        def gather(rows: Tensor, inner: tuple[int | slice, ...]) -> Tensor:
            assert whole is not None
            return whole(order[rows], inner)

        def read(box: tuple[slice, ...]) -> Any:
            here, inner = order[box[0]], box[1:]
            first, last = int(here[0]), int(here[-1])
            if torch.equal(here, torch.arange(first, first + len(here))):
                return self[(slice(first, last + 1), *inner)]
            return self[(here, *inner)]

        return Lazy(read, (len(order), *self.shape[1:]), self.dtype, self.name, None if whole is None else gather)

    def blocks(self) -> range:
        """Starts of pieces of a moderate number of values; their step is the number of samples in each."""
        return range(0, max(len(self), 1), max(1, _BLOCK // max(1, self.shape[1:].numel())))

    def load(self) -> Tensor:
        """All values."""
        return self[:]


def _compose(outer: range, inner: slice) -> slice:
    """The slice of the whole that a slice of a part is."""
    part = outer[inner]
    return slice(part.start, max(part.stop, part.start), part.step)
