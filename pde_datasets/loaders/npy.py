"""Arrays written by NumPy, alone in a `.npy` or several in a `.npz`: their headers first, their numbers when they are indexed.

Nothing is unpickled: arrays of Python objects are refused by their header. What is claimed there is compared with what the file holds
before anything is allocated. A `.npy`, and what is stored in a `.npz` without compression, is mapped; what is compressed is unpacked once,
whole.
"""

from __future__ import annotations

import math
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple
from zipfile import ZIP_STORED, ZipFile, ZipInfo

import numpy as np
from numpy.typing import NDArray

from pde_datasets.loaders.files import damaged, first_member
from pde_datasets.loaders.limits import check_shape

_MAGIC = b"\x93NUMPY"
_HEADER = 1 << 14
"""Bytes that hold the header of any array of numbers several times over."""

_MAPPED = 1 << 26
"""Bytes from which a member without compression is mapped; smaller ones are read, which compares their checksum."""


class Header(NamedTuple):
    """What stands before the numbers."""

    shape: tuple[int, ...]
    order: str
    dtype: np.dtype[Any]
    start: int
    """Bytes from the beginning of the array to its numbers."""

    @property
    def size(self) -> int:
        """Bytes of the numbers."""
        return math.prod(self.shape) * self.dtype.itemsize


def is_npy(path: Path) -> bool:
    """Whether a file is an array with a header that can be read, of objects or not."""
    if path.is_dir():
        return False
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC and _parsed(file) is not None


def is_npz(path: Path) -> bool:
    """Whether a file is a zip archive whose first member is an array."""
    return first_member(path).endswith(b".npy")


def _parsed(stream: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]] | None:
    """Shape, order and type behind the magic bytes; None where they cannot be read."""
    readers = {b"\x01\x00": np.lib.format.read_array_header_1_0, b"\x02\x00": np.lib.format.read_array_header_2_0}
    try:
        shape, fortran, dtype = readers[stream.read(2)](stream)
    except Exception:  # NumPy's parser of headers raises whatever damaged text makes it stumble on
        return None
    return tuple(int(n) for n in shape), bool(fortran), dtype


def header(stream: BinaryIO, name: str) -> Header:
    """The header of an array, of numbers or of text.

    Raises:
        ValueError: none, damaged, or one of Python objects.
    """
    start = stream.tell()
    parsed = _parsed(stream) if stream.read(len(_MAGIC)) == _MAGIC else None
    if parsed is None:
        raise ValueError(f"{name}: expects an array as numpy.save writes it; its header is damaged. Fetch it again.")
    shape, fortran, dtype = parsed
    if dtype.hasobject:
        raise ValueError(
            f"{name}: expects numbers; it holds pickled Python objects, which can run code and are never opened. "
            "Save its numbers alone with numpy.save."
        )
    if any(n < 0 for n in shape):
        raise ValueError(f"{name}: expects sizes that are not negative; got shape {shape}. The file is damaged.")
    return Header(shape, "F" if fortran else "C", dtype, stream.tell() - start)


def mapped(path: Path) -> NDArray[Any]:
    """The array of a `.npy` file, mapped.

    Raises:
        ValueError: a damaged or truncated file, or one of Python objects.
    """
    with path.open("rb") as file:
        head = header(file, path.name)
    return _map(path, head, head.start, path.name)


def _map(path: Path, head: Header, offset: int, name: str) -> NDArray[Any]:
    held = path.stat().st_size - offset
    if head.size > held:
        raise ValueError(f"{name}: expects {head.size} bytes for an array of shape {head.shape}; {held} are there. Fetch it again.")
    if head.size == 0:
        return np.empty(head.shape, head.dtype)
    return np.memmap(path, head.dtype, "r", offset, head.shape, head.order)  # type: ignore[call-overload]


class Member:
    """An array of an archive, read when it is indexed.

    Attributes:
        shape, dtype: as its header says.
    """

    def __init__(self, path: Path, info: ZipInfo, head: Header) -> None:
        self.path, self.info, self.head = path, info, head
        self.shape, self.dtype = head.shape, head.dtype

    def __getitem__(self, box: Any) -> Any:
        return self.array[box]

    @cached_property
    def array(self) -> NDArray[Any]:
        """The whole array.

        Raises:
            ValueError: a truncated or damaged member.
        """
        name = f"{self.path.name}: {self.info.filename}"
        if self.info.compress_type == ZIP_STORED and self.head.size >= _MAPPED:
            with self.path.open("rb") as file:
                file.seek(self.info.header_offset)
                local = file.read(30)
            skipped = int.from_bytes(local[26:28], "little") + int.from_bytes(local[28:30], "little")
            return _map(self.path, self.head, self.info.header_offset + 30 + skipped + self.head.start, name)
        try:
            with ZipFile(self.path) as archive, archive.open(self.info) as stream:
                stream.read(self.head.start)
                data = stream.read(self.head.size)
                whole = len(data) == self.head.size and not stream.read(1)
        except Exception as error:  # zlib, zipfile and struct raise their own kinds on damaged bytes
            raise damaged(f"{name}:", "a whole array", error) from error
        if not whole:
            raise damaged(f"{name}:", "a whole array", "another length than its header says")
        return np.frombuffer(data, self.dtype).reshape(self.shape, order="F" if self.head.order == "F" else "C")


def members(path: Path) -> dict[str, Member]:
    """The arrays of a `.npz` file by name, none of them read.

    Raises:
        ValueError: a truncated or damaged archive, or a member that is no array, one of Python objects, or claims more than its bytes can
            hold or the machine has.
    """
    found = {}
    try:
        with ZipFile(path) as archive:
            for info in archive.infolist():
                with archive.open(info) as stream:
                    found[info.filename.removesuffix(".npy")] = (info, stream.read(_HEADER))
    except Exception as error:  # as above
        raise damaged(f"{path.name}:", "a whole archive of arrays", error) from error
    return {name: _member(path, info, header(BytesIO(start), f"{path.name}: {name}")) for name, (info, start) in found.items()}


def _member(path: Path, info: ZipInfo, head: Header) -> Member:
    """An array of an archive, if it can hold what its header says."""
    name = f"{path.name}: {info.filename}"
    if info.compress_type != ZIP_STORED:
        check_shape(name, head.shape, head.dtype.itemsize, stored=info.compress_size)
    if head.start + head.size != info.file_size:
        raise damaged(f"{name}:", "a whole array", f"{info.file_size} bytes for shape {head.shape}")
    return Member(path, info, head)
