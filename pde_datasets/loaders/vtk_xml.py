"""The XML files of VTK: unstructured grids (.vtu), surfaces (.vtp), images (.vti) and rectilinear grids (.vtr).

Numbers stand in the document as text or in base 64, or behind it, raw or in base 64; they may be packed in blocks by zlib or LZMA. What is
packed says first how many blocks there are and how long each is. Nothing is taken from a file that it does not hold: sizes are compared
with the bytes there are before anything is unpacked.

Source:
    VTK file formats, XML file formats (docs.vtk.org).
"""

from __future__ import annotations

import base64
import binascii
import lzma
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from pde_datasets.loaders.files import damaged
from pde_datasets.loaders.limits import check_shape
from pde_datasets.loaders.vtk_data import PERIODIC, Dataset

_TYPES = {
    f"{kind}{bits}": f"{letter}{bits // 8}" for kind, letter in (("Int", "i"), ("UInt", "u"), ("Float", "f")) for bits in (8, 16, 32, 64)
}
_KINDS = {
    1: "vertex", 2: "vertex", 3: "line", 4: "line", 5: "triangle", 6: "strip", 7: "polygon", 8: "pixel", 9: "quad", 10: "tetra",
    11: "voxel", 12: "hexahedron", 13: "wedge", 14: "pyramid", 21: "line3", 22: "triangle6", 23: "quad8", 24: "tetra10",
    25: "hexahedron20", 42: "polyhedron",
}  # fmt: skip
"""Names of the kinds of cells, those of meshio where it has one; a kind of any number of corners gets their number behind it."""
_ANY = {2, 4, 6, 7, 42}
_PLAIN = {(7, 3): "triangle", (7, 4): "quad", (4, 2): "line"}
"""Polygons and lines of few corners, which have names of their own."""
_FACES = (("Verts", 2), ("Lines", 4), ("Polys", 7), ("Strips", 6))
"""Parts of a surface, in the order in which its cells are numbered, and the kinds of their cells."""


def kind_of(head: bytes) -> str:
    """The type a file says it is, from its first bytes; empty if it is no XML file of VTK."""
    found = re.search(rb'<VTKFile[^>]*\stype\s*=\s*"(\w+)"', head)
    return "" if found is None else found[1].decode()


def read_xml(path: Path) -> Dataset:
    """Read a file.

    Raises:
        ValueError: a type that is not read, more than one piece, or a damaged file.
    """
    data = path.read_bytes()
    try:
        return _File(path, data).dataset()
    except (ElementTree.ParseError, KeyError, IndexError, TypeError, OverflowError, binascii.Error, zlib.error, lzma.LZMAError) as error:
        raise damaged(f"{path.name}: vtk", "a whole XML file of VTK", error) from error


class _File:
    """One file and how its numbers are stored."""

    def __init__(self, path: Path, data: bytes) -> None:
        self.path, self.size = path, len(data)
        start = re.search(rb"<AppendedData[^>]*>\s*_", data)
        head = data if start is None else data[: start.start()] + b"</VTKFile>"
        if b"<!DOCTYPE" in head or b"<!ENTITY" in head:
            raise ValueError(f"{path.name}: vtk expects a document without entities of its own; this one is hostile.")
        self.appended = b"" if start is None else memoryview(data)[start.end() :]
        self.raw = start is not None and b'"raw"' in start[0]
        root = ElementTree.fromstring(head)
        order = ">" if root.get("byte_order") == "BigEndian" else "<"
        self.order, self.word = order, np.dtype(order + _TYPES[root.get("header_type", "UInt32")])
        self.compressor = root.get("compressor", "")
        self.kind = root.get("type", "")
        self.body = root.find(self.kind)

    def dataset(self) -> Dataset:
        """The only piece, or all pieces of an unstructured grid or a surface."""
        reader: dict[str, Callable[[ElementTree.Element], Dataset]] = {
            "UnstructuredGrid": self._unstructured,
            "PolyData": self._surface,
            "ImageData": self._image,
            "RectilinearGrid": self._rectilinear,
        }
        if self.kind not in reader or self.body is None:
            raise ValueError(f"{self.path.name}: vtk expects one of {', '.join(reader)}; got {self.kind or 'no type'}. Save it as .vtu.")
        pieces = self.body.findall("Piece")
        if len(pieces) != 1:
            raise ValueError(f"{self.path.name}: vtk expects one piece; got {len(pieces)}. Merge them first.")
        found = reader[self.kind](pieces[0])
        cells = len(found.order) if found.axes is None else int(np.prod([max(len(axis) - 1, 1) for axis in found.axes]))
        points = len(found.points) if found.axes is None else int(np.prod([len(axis) for axis in found.axes]))
        for count, tag, target in ((points, "PointData", found.point_data), (cells, "CellData", found.cell_data)):
            for element in pieces[0].findall(f"{tag}/DataArray"):
                if element.get("type") in _TYPES:
                    target[element.get("Name", f"array {len(target)}")] = self._array(element, count)
        return found

    def _unstructured(self, piece: ElementTree.Element) -> Dataset:
        cells = {e.get("Name"): e for e in piece.findall("Cells/DataArray")}
        kinds = self._flat(cells["types"]).astype(np.int64)
        return self._grouped(self._points(piece), kinds, self._flat(cells["connectivity"]), self._flat(cells["offsets"]))

    def _surface(self, piece: ElementTree.Element) -> Dataset:
        kinds: list[NDArray[Any]] = []
        corners: list[NDArray[Any]] = []
        offsets: list[NDArray[Any]] = []
        for tag, kind in _FACES:
            arrays = {e.get("Name"): e for e in piece.findall(f"{tag}/DataArray")}
            if arrays:
                here = self._flat(arrays["offsets"]).astype(np.int64)
                offsets.append(here + sum(map(len, corners)))
                corners.append(self._flat(arrays["connectivity"]))
                kinds.append(np.full(len(here), kind))
        empty = [np.empty(0, dtype=np.int64)]
        return self._grouped(self._points(piece), *(np.concatenate(parts or empty) for parts in (kinds, corners, offsets)))

    def _points(self, piece: ElementTree.Element) -> NDArray[np.float64]:
        element = piece.find("Points/DataArray")
        if element is None:
            raise KeyError("no points")
        return self._array(element, int(piece.attrib["NumberOfPoints"])).astype(np.float64)

    def _grouped(self, points: NDArray[np.float64], kinds: NDArray[Any], corners: NDArray[Any], offsets: NDArray[Any]) -> Dataset:
        """Cells of one kind and number of corners together, in the order of the file within each group."""
        corners, offsets = corners.astype(np.int64), offsets.astype(np.int64)
        sizes = np.diff(offsets, prepend=0)
        if len(kinds) != len(offsets) or (sizes < 1).any() or (len(offsets) and offsets[-1] != len(corners)):
            raise ValueError(f"{self.path.name}: vtk expects offsets that fit the corners of the cells; these do not. The file is damaged.")
        if len(corners) and (corners.min() < 0 or corners.max() >= len(points)):
            raise ValueError(f"{self.path.name}: vtk expects corners among {len(points)} points; there are others. The file is damaged.")
        unknown = set(kinds.tolist()) - set(_KINDS)
        if unknown:
            raise ValueError(f"{self.path.name}: vtk knows the kinds of cells {', '.join(map(str, _KINDS))}; got {sorted(unknown)}.")
        groups: dict[str, NDArray[np.int64]] = {}
        order = []
        for kind, size in sorted({(int(k), int(s)) for k, s in zip(kinds, sizes, strict=True)}):
            here = np.flatnonzero((kinds == kind) & (sizes == size))
            flat = corners[(offsets[here] - size)[:, None] + np.arange(size)]
            name = _PLAIN.get((kind, size)) or _KINDS[kind] + (str(size) if kind in _ANY and size > 1 else "")
            groups[name] = np.concatenate([groups[name], flat]) if name in groups else flat
            order.append(here)
        return Dataset(points=points, cells=groups, order=np.concatenate(order) if order else np.empty(0, dtype=np.int64))

    def _image(self, piece: ElementTree.Element) -> Dataset:
        assert self.body is not None
        extent = [int(word) for word in piece.attrib["Extent"].split()]
        counts = [b - a + 1 for a, b in zip(extent[::2], extent[1::2], strict=True)]
        check_shape(self.path.name, counts, 1, stored=self.size)
        if self.body.get("Direction", "1 0 0 0 1 0 0 0 1").split() != ["1", "0", "0", "0", "1", "0", "0", "0", "1"]:
            raise ValueError(f"{self.path.name}: vtk expects an image whose axes are x, y, z; this one is turned. Resample it.")
        origin, spacing = (
            [float(w) for w in self.body.get(key, default).split()] for key, default in (("Origin", "0 0 0"), ("Spacing", "1 1 1"))
        )
        places = zip(origin, spacing, extent[::2], counts, strict=True)
        said = self.body.find(f"FieldData/DataArray[@Name='{PERIODIC}']")
        periodic = (False,) * 3 if said is None else tuple(bool(flag) for flag in self._array(said, 3)[:, 0])
        return Dataset(axes=[(o + s * np.arange(a, a + n)).astype(np.float64) for o, s, a, n in places], periodic=periodic)

    def _rectilinear(self, piece: ElementTree.Element) -> Dataset:
        return Dataset(axes=[self._flat(element).astype(np.float64) for element in piece.findall("Coordinates/DataArray")])

    def _flat(self, element: ElementTree.Element) -> NDArray[Any]:
        return self._array(element, None)[:, 0]

    def _array(self, element: ElementTree.Element, count: int | None) -> NDArray[Any]:
        """The numbers of an element, (n, components)."""
        dtype = np.dtype(self.order + _TYPES[element.attrib["type"]])
        parts = int(element.get("NumberOfComponents", "1"))
        form = element.get("format", "ascii")
        if form == "ascii":
            values = np.array((element.text or "").split(), dtype="S").astype(dtype)
        elif form == "appended":
            start = int(element.attrib["offset"])
            source = self.appended[start:]
            values = np.frombuffer(self._unpacked(source, raw=self.raw), dtype)
        else:
            values = np.frombuffer(self._unpacked((element.text or "").strip().encode(), raw=False), dtype)
        if parts < 1 or len(values) % parts or (count is not None and len(values) != count * parts):
            wanted = f"{count} values of {parts}" if count is not None else f"values of {parts}"
            raise ValueError(
                f"{self.path.name}: vtk expects {wanted} numbers in '{element.get('Name')}'; got {len(values)}. The file is damaged."
            )
        return values.astype(dtype.newbyteorder("=")).reshape(-1, parts)

    def _unpacked(self, source: bytes | memoryview, raw: bool) -> bytes:
        """The bytes of an array, from where its header begins."""
        size = self.word.itemsize

        def take(start: int, length: int) -> tuple[bytes, int]:
            """So many bytes, and where in the source the next ones begin."""
            stop = start + (length if raw else -(-length // 3) * 4)
            part = bytes(source[start:stop])
            part = part if raw else base64.b64decode(part, validate=True)
            if length < 0 or len(part) < length:
                raise IndexError(f"{length} bytes are claimed, {len(part)} are left")
            return part[:length], stop

        def words(data: bytes) -> list[int]:
            return [int(word) for word in np.frombuffer(data, self.word)]

        if not self.compressor:
            (length,) = words(take(0, size)[0])
            return take(0, size + length)[0][size:]
        blocks, block, last = words(take(0, 3 * size)[0])
        if not blocks:
            return b""
        check_shape(self.path.name, (blocks,), size, stored=len(source))
        header, start = take(0, (3 + blocks) * size)
        packed = words(header)[3:]
        check_shape(self.path.name, (blocks, block), 1, stored=len(source))
        data, _ = take(start, sum(packed))
        pieces, position = [], 0
        for i, length in enumerate(packed):
            whole = last if last and i == blocks - 1 else block
            pieces.append(self._block(data[position : position + length], whole))
            position += length
        return b"".join(pieces)

    def _block(self, packed: bytes, size: int) -> bytes:
        if self.compressor == "vtkZLibDataCompressor":
            block = zlib.decompressobj().decompress(packed, size + 1)
        elif self.compressor == "vtkLZMADataCompressor":
            block = lzma.LZMADecompressor().decompress(packed, size + 1)
        else:
            raise ValueError(f"{self.path.name}: vtk expects zlib or LZMA; got {self.compressor}. Save it with another compressor.")
        if len(block) != size:
            raise IndexError(f"a block of {size} bytes has {len(block)}")
        return block
