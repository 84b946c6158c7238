"""HDF5 files, opened so that a damaged one is one clear error."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pde_datasets.loaders.files import damaged, first_bytes

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_OFFSETS = (0, 512, 1024, 2048, 4096)
"""Where a superblock may begin: at the start, or after a user block of a power of two (the MATLAB 7.3 header is one of 512 bytes)."""

_PATIENCE = (5, 60)
"""Seconds of work in which a small file, and another, is read through; waiting for a disk or a busy machine does not count."""

_SMALL = 1 << 24
"""Bytes of a file whose values are read through as well."""


def is_hdf5(path: Path) -> bool:
    """Whether a file has the HDF5 signature; h5py's own test says no to one that has it but is cut short."""
    start = first_bytes(path, _OFFSETS[-1] + len(_SIGNATURE))
    return any(start[offset:].startswith(_SIGNATURE) for offset in _OFFSETS)


def holds(path: Path, what: Callable[[h5py.File], Any]) -> bool:
    """Whether a file is HDF5 and something is true of what is in it.

    Raises:
        ValueError: the file is cut short or damaged.
    """
    if not is_hdf5(path):
        return False
    with opened(path) as file:
        return bool(what(file))


def survive(path: Path) -> None:
    """Read a file through in a process of its own, before this one touches it.

    On some damaged bytes, those of its heap of strings for one, the HDF5 library ends the process before any check of ours. The child is
    a fork, which shares what is loaded already and costs milliseconds; where there is none (not on Linux) the check is left out.

    Raises:
        ValueError: reading ended the process, or did not end, or names in the file are not text.
    """
    if sys.platform != "linux":
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the child calls nothing but HDF5, whose lock h5py resets after a fork
        child = os.fork()
    if child == 0:
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_PROF, _PATIENCE[path.stat().st_size > _SMALL])
        with suppress(BaseException):  # whatever can be caught, this process will meet and report itself
            os._exit(0 if _read_through(path) else 1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        what = "does not end" if os.WTERMSIG(status) == signal.SIGPROF else "ends the HDF5 library"
        raise ValueError(f"{path.name}: expects a whole HDF5 file; this one is damaged (reading it {what}). Fetch it again.")
    if os.WEXITSTATUS(status):
        raise ValueError(f"{path.name}: expects an HDF5 file whose names are text; this one is damaged. Fetch it again.")


def _read_through(path: Path) -> bool:
    """All names, attributes and types, and the values of a small file; whether the names are text."""
    for output in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), output)
    small = path.stat().st_size <= _SMALL
    names: list[Any] = []

    def read(name: Any, entry: Any) -> None:
        names.append(name)
        if isinstance(entry, h5py.Group):
            names.extend(entry)
        with suppress(Exception):
            names.extend(dict(entry.attrs))
        if isinstance(entry, h5py.Dataset):
            with suppress(Exception):
                _ = entry.dtype, entry.chunks, entry.fillvalue
                if small and entry.size * entry.dtype.itemsize <= _SMALL * 16:
                    entry[()]

    with h5py.File(path, "r") as file:
        read("/", file)
        file.visititems(read)
    return all(isinstance(name, str) for name in names)


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
        raise damaged(f"{path.name}:", "a whole HDF5 file", error) from error


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
