"""Names and shapes of the arrays in a MATLAB file, from their headers alone: files that take minutes to read are told apart at once."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import BinaryIO

from pde_datasets.loaders.hdf5 import is_hdf5, tree
from pde_datasets.loaders.mat import is_mat

_HEADER = 128
_COMPRESSED, _MATRIX = 15, 14
_BEGINNING = 512
"""Bytes of an element that are looked at: flags, dimensions and name come first."""

_NUMERIC = range(6, 16)
"""Classes of arrays of numbers."""


def shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Name and shape, as in MATLAB, of each array of numbers; nothing where a file is none of MATLAB's or is damaged.

    What is damaged, reading the arrays says.
    """
    if not is_mat(path):
        return {}
    if is_hdf5(path):
        return {name: shape[::-1] for name, shape in tree(path).items() if "/" not in name}
    found: dict[str, tuple[int, ...]] = {}
    with path.open("rb") as file:
        order = {b"IM": "<", b"MI": ">"}.get(file.read(_HEADER)[-2:])
        while order is not None:
            tag = file.read(8)
            if len(tag) < 8:
                break
            kind, size = struct.unpack(order + "II", tag)
            beginning = _beginning(file, kind, size)
            entry = _array(beginning, order) if beginning is not None else None
            if entry is not None:
                found[entry[0]] = entry[1]
            if kind not in (_COMPRESSED, _MATRIX):
                break
    return found


def _beginning(file: BinaryIO, kind: int, size: int) -> bytes | None:
    """The first bytes inside a matrix, unpacked; the file is left at the next element."""
    start = file.tell()
    data = file.read(min(size, _BEGINNING))
    file.seek(start + (size if kind == _COMPRESSED else -(-size // 8) * 8))
    if kind != _COMPRESSED:
        return data if kind == _MATRIX else None
    try:
        return zlib.decompressobj().decompress(data, _BEGINNING)[8:]
    except zlib.error:
        return None


def _array(data: bytes, order: str) -> tuple[str, tuple[int, ...]] | None:
    """Name and shape from the flags, dimensions and name of a matrix; None where it has no numbers."""
    try:
        _, _, flags = struct.unpack_from(order + "III", data, 0)
        _, size = struct.unpack_from(order + "II", data, 16)
        shape = struct.unpack_from(f"{order}{size // 4}i", data, 24)
        at = 24 + -(-size // 8) * 8
        first, length = struct.unpack_from(order + "II", data, at)
    except struct.error:
        return None
    start, length = (at + 4, first >> 16) if first >> 16 else (at + 8, length)
    return (data[start : start + length].decode("latin-1"), shape) if flags & 0xFF in _NUMERIC else None
