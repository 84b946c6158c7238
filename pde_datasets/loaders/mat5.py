"""The numeric arrays of a MATLAB 5 file, read without trusting a byte of it.

A file is a header of 128 bytes and a list of elements: a tag (type, number of bytes), a payload, padding to 8 bytes. A compressed
element holds one other element; a matrix holds its flags, dimensions, name, real and imaginary part, each an element. Payloads up to
4 bytes sit in the tag itself. Numbers are often stored in a narrower type than their class.

SciPy's reader looks the type number up in a table without checking it, so that one wrong byte in a file ends the process with a
segmentation fault; here it is a `ValueError`. Objects, cells, structures, text and sparse matrices are passed over.

Source:
    MathWorks, MAT-File Format, chapter 1, version 5.
"""

from __future__ import annotations

import math
import zlib
from contextlib import suppress
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

_HEADER = 128
_INT32, _UINT32, _MATRIX, _COMPRESSED = 5, 6, 14, 15
_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", _INT32: "i4", _UINT32: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
"""Types of payloads that are numbers."""
_CLASS = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
"""Classes of matrices that are arrays of numbers; logical arrays are `u1`."""
_COMPLEX = 1 << 11
_BEGINNING = 512
"""Bytes of a matrix that hold its heading: flags, dimensions and name come first."""


class _Element(NamedTuple):
    kind: int
    payload: memoryview
    stop: int
    """Where the next element begins."""


def read_arrays(data: bytes) -> dict[str, NDArray[Any]]:
    """The arrays of numbers in a file.

    Arguments:
        data: the whole file.

    Returns:
        Name → array, shaped as in MATLAB, in the byte order of this machine.

    Raises:
        ValueError: the file is cut short or contradicts itself.
    """
    marker = data[_HEADER - 2 : _HEADER]
    if marker not in (b"IM", b"MI"):
        raise ValueError("its header has no byte order")
    order = "<" if marker == b"IM" else ">"
    arrays: dict[str, NDArray[Any]] = {}
    view, position = memoryview(data), _HEADER
    while position < len(view):
        element = _element(view, position, order)
        position = element.stop
        if element.kind == _COMPRESSED:
            try:
                element = _element(memoryview(zlib.decompress(element.payload)), 0, order)
            except zlib.error as error:
                raise ValueError(f"a compressed array does not unpack: {error}") from error
        if element.kind == _MATRIX:
            arrays |= _matrix(element.payload, order)
    return arrays


def _element(view: memoryview, position: int, order: str) -> _Element:
    """The element at a position."""
    if position + 8 > len(view):
        raise ValueError(f"it ends within a tag, at byte {len(view)}")
    first, size = (int(word) for word in np.frombuffer(view[position : position + 8], order + "u4"))
    kind, start = first, position + 8
    if first >> 16:
        kind, size, start = first & 0xFFFF, first >> 16, position + 4
        if size > 4:
            raise ValueError(f"a tag at byte {position} claims {size} bytes in the space of 4")
        stop = position + 8
    else:
        stop = start + (size if kind == _COMPRESSED else -(-size // 8) * 8)
    if start + size > len(view):
        raise ValueError(f"it ends at byte {len(view)}, within an array that reaches to {start + size}")
    return _Element(kind, view[start : start + size], stop)


def _numbers(element: _Element, order: str) -> NDArray[Any]:
    """The payload of an element, as stored."""
    if element.kind not in _STORED:
        raise ValueError(f"numbers of the unknown type {element.kind}")
    dtype = np.dtype(order + _STORED[element.kind])
    if len(element.payload) % dtype.itemsize:
        raise ValueError(f"{len(element.payload)} bytes are no whole number of {dtype.name}")
    return np.frombuffer(element.payload, dtype)


class _Heading(NamedTuple):
    """What stands before the numbers of a matrix."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    parts: int
    """Two of complex numbers, else one."""
    stop: int
    """Where the numbers begin."""


def _heading(view: memoryview, order: str) -> _Heading | None:
    """The flags, dimensions and name of a matrix element; None if it is not one of numbers."""
    if not len(view):
        return None
    flags = _element(view, 0, order)
    words = _numbers(flags, order)
    if flags.kind != _UINT32 or len(words) != 2:
        raise ValueError("an array without flags")
    dtype = _CLASS.get(int(words[0]) & 0xFF)
    if dtype is None:
        return None
    dimensions = _element(view, flags.stop, order)
    name = _element(view, dimensions.stop, order)
    shape = tuple(int(n) for n in _numbers(dimensions, order))
    label = bytes(name.payload).decode("latin-1")
    if dimensions.kind != _INT32 or len(shape) < 2 or min(shape) < 0:
        raise ValueError(f"array {label!r} has the dimensions {shape}")
    return _Heading(label, shape, dtype, 2 if int(words[0]) & _COMPLEX else 1, name.stop)


def _matrix(view: memoryview, order: str) -> dict[str, NDArray[Any]]:
    """The array in a matrix element with its name; nothing if it is not one of numbers."""
    heading = _heading(view, order)
    if heading is None:
        return {}
    parts, position = [], heading.stop
    for _ in range(heading.parts):
        part = _element(view, position, order)
        values = _numbers(part, order)
        if len(values) != math.prod(heading.shape):
            raise ValueError(f"array {heading.name!r} of shape {heading.shape} has {len(values)} values")
        parts.append(values.astype(heading.dtype).reshape(heading.shape, order="F"))
        position = part.stop
    return {heading.name: parts[0] if len(parts) == 1 else parts[0] + 1j * parts[1]}


def read_shapes(file: BinaryIO) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the arrays of numbers in a file, from their headings alone; those that are damaged are passed over."""
    order = {b"IM": "<", b"MI": ">"}.get(file.read(_HEADER)[-2:])
    found: dict[str, tuple[int, ...]] = {}
    while order is not None:
        tag = np.frombuffer(file.read(8), np.uint8)
        if len(tag) < 8:
            break
        kind, size = (int(word) for word in tag.view(order + "u4"))
        start = file.tell()
        data = file.read(min(size, _BEGINNING))
        file.seek(start + (size if kind == _COMPRESSED else -(-size // 8) * 8))
        if kind not in (_COMPRESSED, _MATRIX):
            break
        with suppress(zlib.error, ValueError):
            heading = _heading(memoryview(zlib.decompressobj().decompress(data, _BEGINNING)[8:] if kind == _COMPRESSED else data), order)
            found |= {} if heading is None else {heading.name: heading.shape}
    return found
