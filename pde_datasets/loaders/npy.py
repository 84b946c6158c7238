"""NumPy arrays, mapped and never unpickled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MAGIC = b"\x93NUMPY"


def is_npy(path: Path) -> bool:
    """Whether a file begins as `numpy.save` does."""
    if path.is_dir():
        return False
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def mapped(path: Path) -> NDArray[Any] | None:
    """The numbers of a `.npy` file, mapped; None for other files, for objects, and where it is cut short or damaged."""
    if not is_npy(path):
        return None
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception:  # on damaged headers the parser raises whatever it stumbles on: SyntaxError, TokenError, OverflowError, ...
        return None
    return array if array.dtype.kind in "buif" else None
