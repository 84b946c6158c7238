"""Our own HDF5 layout, written and read by `pde_datasets.store`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pde_datasets.fields import Fields
from pde_datasets.loaders.hdf5 import holds, plain
from pde_datasets.store import FORMAT, read


def recognises(path: Path) -> bool:
    """Whether a file is HDF5 with the root attribute `format` = `pcfm-fields`."""
    return holds(path, lambda file: plain(file.attrs.get("format", "")) == FORMAT)


def load(path: Path) -> Fields:
    """The fields of one of our own files, mapped and not read.

    The attributes say what this file is; where it was converted from another, `origin` says which.
    """
    fields = read(path)
    stored = dict(fields.attributes)
    if stored.get("format", "pcfm") != "pcfm":
        stored.setdefault("origin", f"{stored['format']}: {stored.get('path', 'unknown')}")
    return replace(fields, attributes={"notes": "", **stored, "format": "pcfm", "path": path.name})
