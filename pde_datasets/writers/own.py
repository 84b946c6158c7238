"""Our own HDF5 layout."""

from __future__ import annotations

from pathlib import Path

from pde_datasets.fields import Fields
from pde_datasets.store import Writer
from pde_datasets.writers import Tell


def write(path: Path, fields: Fields, overwrite: bool, tell: Tell) -> dict[Path, int]:
    """Write fields, those still in a file piece by piece."""
    writer = Writer(path, len(fields), {}, mesh=fields.mesh, overwrite=overwrite)
    for piece in fields.pieces():
        writer.append(piece)
        tell(writer.written)
    writer.finish()
    return {path: len(fields)}
