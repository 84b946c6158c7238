r"""Fields put together from arrays that store them in other orders, and read no more of them than is asked for.

Files keep the components of a vector last, a trajectory in a group, a time in a dataset, initial states beside later ones, samples on a
table of two parameters. A `Part` says of one such array which axis of the fields $(N, C, *N)$ each of its axes is:

* an axis of the array for each axis of the fields: a permutation;
* several axes of the array for one of the fields: a table, read row by row, $i = i_0 n_1 + i_1$;
* none: the values are the same all along that axis of the fields, and are repeated;
* one array for each position along an axis: `stack`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pde_datasets.lazy import Lazy
from pde_datasets.loaders.hdf5 import opened

SAMPLE, CHANNEL, FIRST = 0, 1, 2
"""Axes of fields: samples, channels, and the first of the grid."""

Arrays = Callable[[], AbstractContextManager[Mapping[str, Any]]]
"""Opens the arrays of a file by name: anything with a shape and a dtype that slices of positive steps index."""


@dataclass(frozen=True)
class Part:
    """Arrays that hold a part of the fields.

    Attributes:
        names: the arrays, one unless they are stacked.
        axes: which axis of the fields (N, C, *N) each axis of an array is.
        stack: the axis of the fields along which the arrays follow each other, where there are several.
    """

    names: tuple[str, ...]
    axes: tuple[int, ...]
    stack: int | None = None

    def lengths(self, shape: Sequence[int]) -> dict[int, int]:
        """Extent along the axes of the fields that the arrays, of this shape, say something of."""
        found = {field: math.prod(n for n, f in zip(shape, self.axes, strict=True) if f == field) for field in set(self.axes)}
        return found if self.stack is None else {**found, self.stack: len(self.names)}


def assembled(
    path: Path, parts: Sequence[Part], shape: Sequence[int], *, along: int = CHANNEL, arrays: Arrays | Mapping[str, Any] | None = None
) -> Lazy:
    """Fields made of parts that follow each other, left in the file until they are indexed.

    Arguments:
        path: the file.
        parts: what it holds; one that says nothing of `along` counts once there.
        shape: of the fields, (N, C, *N).
        along: the axis of the fields along which the parts follow each other.
        arrays: the arrays, or what opens them; those of an HDF5 file by default.

    Returns:
        Fields of float32 where nothing longer is stored, else float64.

    Raises:
        ValueError: no samples, an array that is missing, holds no numbers, or is of another shape than the fields.
    """
    if 0 in shape:
        raise ValueError(f"{path.name}: expects at least one sample, channel and point; got fields of shape {tuple(shape)}.")
    source = _source(path, arrays)
    single, extents, stored = True, [], []
    with source() as file:
        for part in parts:
            array, kind = _array(path, file, part.names[0])
            if len(array.shape) != len(part.axes):
                raise ValueError(f"{path.name}: expects {part.names[0]} with {len(part.axes)} axes; got shape {tuple(array.shape)}.")
            lengths = part.lengths(array.shape)
            if any(n != shape[field] for field, n in lengths.items() if field != along):
                raise ValueError(
                    f"{path.name}: expects {part.names[0]} to fit fields of shape {tuple(shape)}; got {tuple(array.shape)}. "
                    "The arrays do not belong together."
                )
            extents.append(lengths.get(along, 1))
            stored.append(tuple(array.shape))
            single = single and kind.kind == "f" and kind.itemsize <= 4
    if sum(extents) != shape[along]:
        raise ValueError(f"{path.name}: expects {shape[along]} values along axis {along} of the fields; its arrays have {sum(extents)}.")
    dtype = torch.float32 if single else torch.float64
    starts = [sum(extents[:i]) for i in range(len(extents))]

    def read(box: tuple[slice, ...]) -> NDArray[Any]:
        pieces = []
        with source() as file:
            for part, kept, start, extent in zip(parts, stored, starts, extents, strict=True):
                here = _within(box[along], start, start + extent)
                if here is not None:
                    pieces.append(_read(path, file, part, kept, (*box[:along], here, *box[along + 1 :])))
        return np.concatenate(pieces, axis=along, dtype=_NUMPY[dtype], casting="same_kind")

    return Lazy(read, shape, dtype, path.name)


_NUMPY = {torch.float32: np.float32, torch.float64: np.float64}


def _source(path: Path, arrays: Arrays | Mapping[str, Any] | None) -> Arrays:
    """What opens the arrays."""
    if arrays is None:
        return lambda: opened(path)
    return arrays if callable(arrays) else lambda: nullcontext(arrays)


def _within(wanted: slice, start: int, stop: int) -> slice | None:
    """The positions of a slice that lie in a range, counted from its start; None if there are none."""
    steps = range(wanted.start, wanted.stop, wanted.step)
    first, last = (max(0, -(-(edge - wanted.start) // wanted.step)) for edge in (start, stop))
    inside = steps[first:last]
    return slice(inside[0] - start, inside[-1] - start + 1, wanted.step) if inside else None


def _array(path: Path, file: Mapping[str, Any], name: str) -> tuple[Any, np.dtype[Any]]:
    """An array of a file and the type of its numbers.

    Raises:
        ValueError: there is none, or it holds no numbers.
    """
    array = file.get(name)
    dtype = getattr(array, "dtype", None)
    kind = np.dtype(_NUMPY[dtype] if isinstance(dtype, torch.dtype) else object if dtype is None else dtype)
    if kind.kind not in "buif" or getattr(array, "shape", None) is None:
        raise ValueError(f"{path.name}: expects numbers in {name}; there are none. The file is damaged or of another layout.")
    return array, kind


def _read(path: Path, file: Mapping[str, Any], part: Part, shape: tuple[int, ...], box: tuple[slice, ...]) -> NDArray[Any]:
    """A box of the fields that a part holds; of arrays that are stacked, each is looked at when its turn comes."""
    names = part.names if part.stack is None else part.names[box[part.stack]]
    one = box if part.stack is None else (*box[: part.stack], slice(0, 1, 1), *box[part.stack + 1 :])
    wanted = [len(range(b.start, b.stop, b.step)) for b in box]
    pieces = []
    for name in names:
        array, _ = _array(path, file, name)
        if tuple(array.shape) != shape:
            raise ValueError(f"{path.name}: expects {name} of shape {shape}, as the first; got {tuple(array.shape)}. The file is damaged.")
        pieces.append(_placed(array, part.axes, one))
    return np.broadcast_to(pieces[0] if part.stack is None else np.concatenate(pieces, axis=part.stack), wanted)


def _placed(array: Any, axes: tuple[int, ...], box: tuple[slice, ...]) -> NDArray[Any]:
    """A box of one array in the order of the fields; axes it does not have are of length 1."""
    groups = [[a for a, f in enumerate(axes) if f == field] for field in range(len(box))]
    order = [a for group in groups for a in group]

    def fetch(field: int, chosen: dict[int, slice]) -> NDArray[Any]:
        if field < len(box):
            cuts = _cuts([int(array.shape[a]) for a in groups[field]], box[field])
            pieces = [fetch(field + 1, chosen | dict(zip(groups[field], cut, strict=True))) for cut in cuts]
            return pieces[0] if len(pieces) == 1 else np.concatenate(pieces, axis=field)
        values = np.asarray(array[tuple(chosen[a] for a in range(len(axes)))])
        return values.transpose(order).reshape([math.prod(values.shape[a] for a in group) for group in groups])

    return fetch(0, {})


def _cuts(shape: Sequence[int], wanted: slice) -> list[tuple[slice, ...]]:
    """Boxes of a table that make up, one after the other, a slice of its rows laid end to end."""
    if len(shape) < 2:
        return [(wanted,) * len(shape)]
    inner = math.prod(shape[1:])
    cuts = []
    for row in range(wanted.start // inner, -(-wanted.stop // inner)):
        rest = _within(wanted, row * inner, (row + 1) * inner)
        if rest is not None:
            cuts += [(slice(row, row + 1, 1), *cut) for cut in _cuts(shape[1:], rest)]
    return cuts or [(slice(0, 0, 1), *(slice(0, n, 1) for n in shape[1:]))]
