"""Arrays in MATLAB files, shaped as in MATLAB.

Format 5 is read by `mat5`, all of it. Format 7.3 is HDF5, where MATLAB's column-major arrays appear with their axes reversed; they are
turned back here, so that both formats give the same, and can stay in the file until they are indexed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray

from pde_datasets.lazy import Lazy
from pde_datasets.loaders.files import damaged, first_bytes
from pde_datasets.loaders.hdf5 import is_hdf5, opened, tree
from pde_datasets.loaders.limits import check_shape
from pde_datasets.loaders.mat5 import read_arrays, read_shapes


def is_mat(path: Path) -> bool:
    """Whether a file begins with the header of MATLAB 5.0 or 7.3."""
    return first_bytes(path, 19) in (b"MATLAB 5.0 MAT-file", b"MATLAB 7.3 MAT-file")


def shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Name and shape, as in MATLAB, of each array of numbers; nothing where a file is none of MATLAB's or is damaged.

    Headings alone are read, so that files which take minutes to read are told apart at once. What is damaged, reading the arrays says.
    """
    if not is_mat(path):
        return {}
    if is_hdf5(path):
        return {name: shape[::-1] for name, shape in tree(path).items() if "/" not in name}
    with path.open("rb") as file:
        return read_shapes(file)


def read_mat(path: Path) -> dict[str, NDArray[Any]]:
    """The numeric arrays of a file, all read.

    Raises:
        ValueError: the file is truncated or damaged.
    """
    if is_hdf5(path):
        return _read_73(path)
    try:
        return read_arrays(path.read_bytes())
    except ValueError as error:
        raise damaged(f"{path.name}: matlab", "a whole .mat file", error) from error


def _read_73(path: Path) -> dict[str, NDArray[Any]]:
    """Those of a format 7.3 file; complex numbers are pairs (real, imag) there."""
    arrays: dict[str, NDArray[Any]] = {}
    with opened(path) as file:
        for name, entry in _datasets(file):
            check_shape(f"{path.name}: {name}", entry.shape, entry.dtype.itemsize)
            if entry.dtype.names == ("real", "imag"):
                pairs = entry[()]
                arrays[name] = (pairs["real"] + 1j * pairs["imag"]).T
            elif entry.dtype.kind in "buif":
                arrays[name] = np.asarray(entry[()]).T
    return arrays


def lazy_mat(path: Path) -> dict[str, Lazy]:
    """The real arrays of a file; those of format 7.3 stay in it until they are indexed.

    Raises:
        ValueError: the file is truncated or damaged.
    """
    if not is_hdf5(path):
        return {
            name: Lazy.of(torch.from_numpy(np.ascontiguousarray(values.astype(values.dtype.newbyteorder("="), copy=False))))
            for name, values in read_mat(path).items()
            if values.dtype.kind in "buif" and values.dtype not in (np.uint16, np.uint32, np.uint64)
        }
    found = {}
    with opened(path) as file:
        for name, entry in _datasets(file):
            if entry.dtype.kind in "buif":
                kind = torch.float32 if entry.dtype == np.float32 else torch.float64
                found[name] = Lazy(_reversed(path, name), entry.shape[::-1], kind, f"{path.name}: {name}")
    return found


def _datasets(file: h5py.File) -> Iterator[tuple[str, h5py.Dataset]]:
    """The arrays at the root of a format 7.3 file."""
    for name in file:
        entry = file.get(name)
        if isinstance(entry, h5py.Dataset) and entry.shape is not None:
            yield name, entry


def _reversed(path: Path, name: str) -> Any:
    """Reads boxes of an array whose axes are reversed in the file."""

    def read(box: tuple[slice, ...]) -> NDArray[Any]:
        with opened(path) as file:
            return np.asarray(file[name][box[::-1]]).T

    return read
