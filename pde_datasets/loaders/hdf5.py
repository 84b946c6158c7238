"""HDF5 files, opened so that a damaged one is one clear error."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from pde_datasets.lazy import Lazy

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_OFFSETS = (0, 512, 1024, 2048, 4096)
"""Where a superblock may begin: at the start, or after a user block of a power of two (the MATLAB 7.3 header is one of 512 bytes)."""


def is_hdf5(path: Path) -> bool:
    """Whether a file has the HDF5 signature; h5py's own test says no to one that has it but is cut short."""
    if path.is_dir():
        return False
    with path.open("rb") as file:
        head = file.read(_OFFSETS[-1] + len(_SIGNATURE))
    return any(head[offset:].startswith(_SIGNATURE) for offset in _OFFSETS)


@contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """An HDF5 file for reading.

    Raises:
        ValueError: the file, or something read from it inside the `with` block, is cut short or damaged.
    """
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError, KeyError) as error:  # h5py raises any of them where bytes are damaged
        reason = " ".join(str(error).split())
        raise ValueError(f"{path.name}: expects a whole HDF5 file; this one is truncated or damaged ({reason}). Fetch it again.") from error


def plain(value: Any) -> Any:
    """An HDF5 attribute as a Python number or text where it is one."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return value.item() if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.size == 1) else value


def tree(path: Path) -> dict[str, tuple[int, ...]]:
    """Full name and shape of every dataset of a file.

    Raises:
        ValueError: the file is cut short or damaged.
    """
    found: dict[str, tuple[int, ...]] = {}

    def visit(name: str, entry: Any) -> None:
        if isinstance(entry, h5py.Dataset) and entry.shape is not None:
            found[name] = tuple(int(n) for n in entry.shape)

    with opened(path) as file:
        file.visititems(visit)
    return found


def stacked(path: Path, names: Sequence[str], order: Sequence[int] | None = None) -> Lazy:
    """Datasets of one shape as the channels of fields (N, C, *N), left in the file until they are indexed.

    Arguments:
        path: the file.
        names: one dataset a channel.
        order: which axis of a dataset is each of (N, *N); as they are by default.

    Returns:
        Fields in the float type of the first dataset, float64 for integers.

    Raises:
        ValueError: datasets of different shapes, or no numbers.
    """
    with opened(path) as file:
        entries = [file[name] for name in names]
        shapes = {tuple(entry.shape) for entry in entries}
        if len(shapes) != 1 or any(entry.dtype.kind not in "buif" for entry in entries):
            raise ValueError(
                f"{path.name}: expects numbers of one shape in {', '.join(names)}; got {', '.join(str(e.shape) for e in entries)}. "
                "The file is damaged or of another layout."
            )
        (shape,) = shapes
        dtype = torch.float32 if entries[0].dtype.itemsize <= 4 and entries[0].dtype.kind == "f" else torch.float64
    axes = tuple(range(len(shape))) if order is None else tuple(order)

    def read(box: tuple[slice, ...]) -> Any:
        wanted: list[slice] = [slice(None)] * len(shape)
        for axis, part in zip(axes, (box[0], *box[2:]), strict=True):
            wanted[axis] = part
        with opened(path) as file:
            return np.stack([np.asarray(file[name][tuple(wanted)]).transpose(axes) for name in names[box[1]]], axis=1)

    samples, *rest = (shape[axis] for axis in axes)
    return Lazy(read, (samples, len(names), *rest), dtype, path.name)
