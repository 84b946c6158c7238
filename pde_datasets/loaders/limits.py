"""Sizes that a file may ask for before anything is allocated.

A few bytes can claim any shape, and a small archive can unpack to fill every disk. What a file says it holds is compared with what
the machine has and with what its own bytes could hold.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from zipfile import BadZipFile, ZipFile

from pde_datasets.loaders.files import damaged

_RATIO = 1032
"""Largest ratio of unpacked to packed bytes that the deflate format reaches (RFC 1951: 258 bytes of a run in two bits)."""


def memory() -> int:
    """Bytes of main memory of the machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def check_shape(name: str, shape: Sequence[int], itemsize: int, *, stored: int | None = None) -> None:
    """Refuse an array before it is allocated.

    Arguments:
        name: what to call it in the error.
        shape: the claimed shape.
        itemsize: bytes of a value.
        stored: bytes of the file that hold it, where they are known.

    Raises:
        ValueError: negative sizes, more bytes than the machine's memory, or more than the stored ones can unpack to.
    """
    if any(n < 0 for n in shape):
        raise ValueError(f"{name}: expects sizes that are not negative; got shape {tuple(shape)}. The file is damaged.")
    size = math.prod(int(n) for n in shape) * itemsize
    if stored is not None and size > _RATIO * max(stored, 1) + 4096:
        raise ValueError(f"{name}: claims {size} bytes in {stored} stored ones, more than they can hold. The file is damaged or hostile.")
    if size > memory():
        raise ValueError(
            f"{name}: asks for {size / 2**30:.3g} GiB at once, more than this machine has. Read a part of it, or convert it elsewhere."
        )


def check_archive(path: Path) -> None:
    """Refuse a zip archive whose members claim more than they can hold or the machine has.

    Raises:
        ValueError: it does.
    """
    try:
        with ZipFile(path) as archive:
            members = archive.infolist()
    except (BadZipFile, OSError, ValueError) as error:
        raise damaged(f"{path.name}:", "a whole zip archive", error) from error
    check_shape(path.name, (sum(member.file_size for member in members),), 1, stored=path.stat().st_size)
