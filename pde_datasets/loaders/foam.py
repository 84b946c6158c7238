r"""The file format of OpenFOAM: a header, then entries, dictionaries and lists, in text or in bytes.

    FoamFile { format binary; arch "LSB;label=32;scalar=64"; class volVectorField; ... }
    dimensions [0 1 -1 0 0 0 0];
    internalField nonuniform List<vector> 72000(...);
    boundaryField { inlet { type fixedValue; value uniform (1 0 0); } ... }

The header says how numbers are stored: byte order (LSB, MSB), whole numbers of 32 or 64 bits, floats of 32 or 64 bits. A list is its
length and its values in parentheses, `n{value}` where all are equal. Bytes of a list may spell anything, so that its end is found by its
length. Any file may be packed with gzip, `U.gz` for `U`.

Source:
    OpenFOAM user guide, basic input/output file format; the stream classes OSstream and UList for lists in bytes.
"""

from __future__ import annotations

import gzip
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pde_datasets.loaders.files import damaged, first_bytes
from pde_datasets.loaders.limits import check_shape

_HEAD = 4096
_DEPTH = 16
"""Dictionaries within dictionaries: no field has as many, a hostile file could have any number."""
_HEADER = re.compile(rb"FoamFile\s*\{(.*?)\}", re.DOTALL)
_SPACE = re.compile(rb"(?:\s+|//[^\n]*|/\*.*?\*/)*", re.DOTALL)
_KEY = re.compile(rb'"[^"]*"|[\w.:,*()+-]+')
_LENGTH = re.compile(rb"\s*(\d+)\s*([({]?)")
_LIST = re.compile(rb"nonuniform\s+List<(\w+)>")
_ARCH = re.compile(r"(LSB|MSB);label=(32|64);scalar=(32|64)")
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")

WIDTHS = {"scalar": 1, "vector": 3, "sphericalTensor": 1, "symmTensor": 6, "tensor": 9}
"""Numbers in a value of each kind of field."""

_UNITS = ("kg", "m", "s", "K", "mol", "A", "cd")
"""What the seven exponents of `dimensions` are powers of."""


def find(folder: Path, name: str) -> Path | None:
    """A file of a case, packed or not; None if there is neither."""
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def header(path: Path) -> dict[str, str]:
    """The entries of the header of a file, and its `dimensions` if they follow; empty if it is not of OpenFOAM."""
    start = first_bytes(path, _HEAD)
    if path.suffix == ".gz":
        try:  # without the sum at the end of a short file: damage is told when the file is read
            start = zlib.decompressobj(wbits=31).decompress(start[:-8], _HEAD)
        except zlib.error:
            return {}
    found = _HEADER.search(start)
    if found is None:
        return {}
    entries = {k.decode(): v.decode("latin-1").strip().strip('"') for k, v in re.findall(rb'(\w+)\s+("[^"]*"|[^;]*);', found[1])}
    dimensions = re.search(rb"dimensions\s*\[([^\]]*)\]", start[found.end() :])
    return entries | ({} if dimensions is None else {"dimensions": dimensions[1].decode("latin-1")})


def unit(entries: dict[str, str]) -> str:
    """The unit that the dimensions of a field say, CF spelling, "1" if they do not.

    Example:
        >>> unit({"dimensions": "0 1 -1 0 0 0 0"})
        'm s-1'
    """
    powers = [float(word) for word in _NUMBER.findall(entries.get("dimensions", ""))]
    named = [(name, power) for name, power in zip(_UNITS, powers, strict=False) if power]
    return " ".join(name if power == 1 else f"{name}{power:g}" for name, power in named) or "1"


@dataclass(frozen=True)
class Foam:
    """One file, read.

    Attributes:
        path: where it is.
        data: its bytes, unpacked.
        start: where what follows the header begins.
        entries: of the header.
        binary: whether lists are stored as bytes.
        label, scalar: how whole numbers and floats are stored there.
    """

    path: Path
    data: bytes
    start: int
    entries: dict[str, str]
    binary: bool
    label: np.dtype[Any]
    scalar: np.dtype[Any]

    @classmethod
    def read(cls, path: Path) -> Foam:
        """Read a file.

        Raises:
            ValueError: no header, an unknown architecture, or a damaged archive.
        """
        data, entries = _content(path), header(path)
        found = _HEADER.search(data, 0, _HEAD)
        if found is None or not entries:
            raise ValueError(f"{path}: openfoam expects a file that begins with FoamFile; this one does not. It is damaged or truncated.")
        arch = _ARCH.fullmatch(entries.get("arch", "LSB;label=32;scalar=64"))
        if arch is None:
            raise ValueError(f"{path}: openfoam expects arch LSB|MSB;label=32|64;scalar=32|64; got {entries['arch'][:60]!r}.")
        order = "<" if arch[1] == "LSB" else ">"
        label, scalar = np.dtype(f"{order}i{int(arch[2]) // 8}"), np.dtype(f"{order}f{int(arch[3]) // 8}")
        return cls(path, data, found.end(), entries, entries.get("format") == "binary", label, scalar)

    def labels(self) -> list[NDArray[np.int64]]:
        """The lists of whole numbers that the file consists of."""
        lists, position = [], self._skip(self.start)
        while position < len(self.data):
            values, position = self._list(position, 1, self.label)
            lists.append(values[:, 0].astype(np.int64))
            position = self._skip(position)
        return lists

    def points(self) -> NDArray[np.float64]:
        """The list of vectors that the file consists of, (n, 3)."""
        return self._list(self._skip(self.start), 3, self.scalar)[0].astype(np.float64)

    def faces(self) -> list[NDArray[np.int64]]:
        """Corners of each face: `faceCompactList` (offsets and corners, two lists) or `faceList` in text, `n(4(0 1 2 3) ...)`."""
        if self.entries.get("class") == "faceCompactList":
            lists = self.labels()
            if len(lists) != 2 or not len(lists[0]) or (np.diff(lists[0]) < 0).any() or lists[0][-1] != len(lists[1]):
                raise self.damaged("offsets that fit the corners of the faces")
            return np.split(lists[1], lists[0][1:-1])
        count = _LENGTH.match(self.data, self._skip(self.start))
        found = re.findall(rb"(\d+)\s*\(([\d\s]*)\)", self.data[count.end() :]) if count is not None else []
        if self.binary or count is None or len(found) != int(count[1]) or any(int(n) != len(text.split()) for n, text in found):
            raise self.damaged("a faceCompactList, or a faceList in text")
        return [np.array(text.split(), dtype=np.int64) for _, text in found]

    def dictionary(self) -> dict[str, Any]:
        """The entries of the file: text, arrays (n, width) where they are lists of a field, and dictionaries."""
        return self._dictionary(self.start, b"")[0]

    def patches(self) -> dict[str, dict[str, Any]]:
        """The list of named dictionaries that the file `boundary` consists of, in order."""
        head = _LENGTH.match(self.data, self._skip(self.start))
        if head is None or (int(head[1]) and head[2] != b"("):
            raise self.damaged("a list of patches")
        return self._dictionary(head.end(), b")")[0] if head[2] else {}

    def values(self, entry: Any, count: int, width: int, what: str) -> NDArray[Any]:
        """An entry `uniform value` or `nonuniform List<...> ...`, (count, width) in the float type of the file."""
        native = self.scalar.newbyteorder("=")
        if isinstance(entry, np.ndarray):
            if entry.shape != (count, width):
                raise ValueError(
                    f"{self.path}: openfoam expects {count} values of {width} numbers in {what}; got {entry.shape[0]} of {entry.shape[1]}. "
                    "The file is of another mesh, or damaged."
                )
            return entry.astype(native, copy=False)
        text = entry if isinstance(entry, str) else ""
        numbers = [float(word) for word in _NUMBER.findall(text.removeprefix("uniform"))]
        if not text.startswith("uniform") or len(numbers) != width:
            raise self.damaged(f"'uniform' with {width} numbers, or 'nonuniform List' in {what}")
        return np.broadcast_to(np.array(numbers, native), (count, width))

    def damaged(self, expected: str) -> ValueError:
        return ValueError(f"{self.path}: openfoam expects {expected}; there is none. The file is damaged, truncated or of another layout.")

    def _skip(self, position: int) -> int:
        """The next byte that is neither space nor comment."""
        found = _SPACE.match(self.data, position)
        return position if found is None else found.end()

    def _dictionary(self, position: int, closing: bytes, depth: int = 0) -> tuple[dict[str, Any], int]:
        """Entries up to the closing byte, the end of the file if it is none, and where they end."""
        if depth > _DEPTH:
            raise self.damaged(f"dictionaries nested up to {_DEPTH} deep at byte {position}")
        entries: dict[str, Any] = {}
        while True:
            position = self._skip(position)
            here = self.data[position : position + 1]
            if here == closing:
                return entries, position + 1
            key = _KEY.match(self.data, position)
            if key is None:
                raise self.damaged(f"the name of an entry at byte {position}")
            name = key[0].decode("latin-1").strip('"')
            position = self._skip(key.end())
            if self.data[position : position + 1] == b"{":
                entries[name], position = self._dictionary(position + 1, b"}", depth + 1)
                continue
            listed = _LIST.match(self.data, position)
            if listed is not None:
                width = WIDTHS.get(listed[1].decode())
                if width is None:
                    raise self.damaged(f"a list of {', '.join(WIDTHS)} at byte {position}, not of {listed[1].decode()}")
                entries[name], position = self._list(listed.end(), width, self.scalar)
            end = self.data.find(b";", position)
            if end < 0:
                raise self.damaged(f"an entry that ends with ';' at byte {position}")
            if listed is None:
                entries[name] = " ".join(self.data[position:end].decode("latin-1").split())
            position = end + 1

    def _list(self, position: int, width: int, kind: np.dtype[Any]) -> tuple[NDArray[Any], int]:
        """The list at a byte, (n, width), and where it ends."""
        head = _LENGTH.match(self.data, position)
        if head is None:
            raise self.damaged(f"the length of a list at byte {position}")
        count, start = int(head[1]), head.end()
        if not count:
            return np.empty((0, width), kind), start + 1 if head[2] == b"(" and self.data[start : start + 1] == b")" else head.end(1)
        check_shape(str(self.path), (count, width), kind.itemsize, stored=len(self.data))
        if head[2] == b"{":
            end = self.data.find(b"}", start)
            numbers = self._numbers(start, end, width, kind)
            return np.broadcast_to(numbers, (count, width)), end + 1
        if head[2] != b"(":
            raise self.damaged(f"a list of {count} values in parentheses at byte {position}")
        if self.binary:
            end = start + count * width * kind.itemsize
            if self.data[end : end + 1] != b")":
                raise self.damaged(f"{count * width} numbers of {kind.itemsize} bytes in parentheses at byte {position}")
            return np.frombuffer(self.data, kind, count * width, start).reshape(count, width), end + 1
        closing = re.compile(rb"\)" if width == 1 else rb"\)\s*\)").search(self.data, start)
        end = -1 if closing is None else closing.end() - 1
        return self._numbers(start, end, count * width, kind).reshape(count, width), end + 1

    def _numbers(self, start: int, end: int, count: int, kind: np.dtype[Any]) -> NDArray[Any]:
        """So many numbers in text."""
        words = self.data[start:end].replace(b"(", b" ").replace(b")", b" ").split() if end >= 0 else []
        try:
            numbers = np.array(words, dtype="S").astype(kind.newbyteorder("="))
        except ValueError:
            numbers = np.empty(0)
        if len(numbers) != count:
            raise self.damaged(f"a list of {count} numbers at byte {start}")
        return numbers


def _content(path: Path) -> bytes:
    """The bytes of a file, unpacked; no more than it says it holds."""
    if path.suffix != ".gz":
        return path.read_bytes()
    stored = path.stat().st_size
    try:
        with path.open("rb") as file:
            file.seek(-4, 2)
            size = int.from_bytes(file.read(4), "little")
        check_shape(path.name, (size,), 1, stored=stored)
        with gzip.open(path) as unpacked:
            data = unpacked.read(size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise damaged(f"{path}: openfoam", "a whole gzip archive", error) from error
    if len(data) != size:
        raise ValueError(f"{path}: openfoam expects a gzip archive of {size} bytes, as its end says; it holds others. Unpack it first.")
    return data
