"""Files that other programs read, written from fields: `WRITERS` by ending."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from pde_datasets.fields import Fields

Tell = Callable[[int], None]
"""Told how many samples are written."""

Write = Callable[[Path, Fields, bool, Tell], dict[Path, int]]
"""Writes fields to a path, over what is there if asked to; the files with the number of samples in each."""


def _writer(module: str) -> Write:
    """A writer whose module is imported when it is used."""

    def write(path: Path, fields: Fields, overwrite: bool, tell: Tell) -> dict[Path, int]:
        written: dict[Path, int] = import_module(f"{__name__}.{module}").write(path, fields, overwrite, tell)
        return written

    return write


WRITERS: dict[str, Write] = {".h5": _writer("own"), ".nc": _writer("netcdf"), ".vti": _writer("vti")}
