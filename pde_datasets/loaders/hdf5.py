"""HDF5 files, opened so that a damaged one is one clear error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_OFFSETS = (0, 512, 1024, 2048, 4096)
"""Where a superblock may begin: at the start, or after a user block of a power of two (the MATLAB 7.3 header is one of 512 bytes)."""


def is_hdf5(path: Path) -> bool:
    """Whether a file has the HDF5 signature; h5py's own test says no to one that has it but is cut short."""
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
