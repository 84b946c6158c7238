"""What a file is, in a few words: said when no format knows it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pde_datasets.loaders.files import first_bytes, listed, shapes_of

_MAGIC = (
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"%PDF", "a PDF document"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"CDF", "a classic netCDF file"),
    (b"PK\x03\x04", "a zip archive laid out otherwise"),
    (b"MATLAB ", "a MATLAB file"),
    (b"\x1f\x8b", "a gzip archive: unpack it first"),
    (b"\x80", "a Python pickle, which can run code and is never opened: write its tensors with torch.save"),
)

_LFS = b"version https://git-lfs.github.com/spec/"
_POINTER = 1024
"""Bytes that a Git LFS pointer has fewer than, by its specification."""


def check_there(path: Path) -> None:
    """Refuse a path without anything to read.

    Raises:
        ValueError: there is nothing, or neither a file nor a folder; one that is empty, may not be read, or only stands for a file.
    """
    if not path.exists():
        part = path.with_name(path.name + ".part")
        way_out = (
            f"An unfinished run left {part.name} there: repeat its command with --resume, or with --overwrite where it has no such flag."
            if part.exists()
            else "Check the path."
        )
        raise ValueError(f"open expects a file; there is none at '{path}'. {way_out}")
    if not (path.is_file() or path.is_dir()):
        raise ValueError(
            f"open expects a file or folder; '{path}' is a pipe, socket or device, and fields are read in any order. Write them to a file."
        )
    try:
        if path.is_dir():
            start = b"a folder" if any(path.iterdir()) else b""
        else:
            with path.open("rb") as file:
                start = file.read(_POINTER)
    except OSError as error:
        raise ValueError(f"open expects a readable file; '{path}' is not: {error.strerror}.") from error
    if not start:
        raise ValueError(f"open expects a file with fields; '{path}' is empty. Fetch or write it again.")
    if start.startswith(_LFS):
        size = start.rpartition(b"size ")[2].strip().decode(errors="replace")
        raise ValueError(
            f"open expects a file with fields; '{path}' is a Git LFS pointer, which stands for a file of {size} bytes. Fetch that: "
            f"git lfs pull --include '*{path.name}', in its repository."
        )


def check_safe(path: Path) -> None:
    """Refuse a file that would end the process that reads it.

    Raises:
        ValueError: it would.
    """
    if b"\x89HDF" in first_bytes(path, 4100):
        from pde_datasets.loaders.hdf5 import survive

        survive(path)


def describe(path: Path) -> str:
    """What a foreign file is, with the names and shapes of what is in it where that can be read.

    Raises:
        ValueError: the file is damaged.
    """
    from pde_datasets.loaders.hdf5 import is_hdf5, tree
    from pde_datasets.loaders.mat import is_mat, read_mat
    from pde_datasets.loaders.pt import glimpse, is_pt

    if path.is_dir():
        return f"a folder with {listed(sorted(entry.name for entry in path.iterdir()))}: name a file inside it, if that is meant"
    if is_mat(path):
        return f"a MATLAB file with {shapes_of(read_mat(path))}"
    if is_hdf5(path):
        return f"an HDF5 file laid out otherwise, with {listed(f'{name} {shape}' for name, shape in tree(path).items())}"
    if is_pt(path):
        data = glimpse(path)
        return f"a .pt file with {shapes_of(data)}" if isinstance(data, Mapping) else f"a .pt file with a {type(data).__name__}"
    start = first_bytes(path, 512)
    for magic, what in _MAGIC:
        if start.startswith(magic):
            return what
    printable = all(byte in b"\t\n\r" or 32 <= byte < 127 or byte >= 128 for byte in start)
    return (
        "a text file in which no table of numbers is found"
        if printable
        else f"a binary file of an unknown kind, or damaged: it begins with {start[:8].hex(' ')}"
    )
