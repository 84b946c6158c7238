"""Our own HDF5 layout."""

from __future__ import annotations

from pathlib import Path

from pde_datasets import store
from pde_datasets.fields import Fields
from pde_datasets.writers import Tell


def check(path: Path, fields: Fields, overwrite: bool) -> None:
    """Refuse a file that is there; all fields fit."""
    store.check_free(path, overwrite)


def write(path: Path, fields: Fields, overwrite: bool, tell: Tell) -> dict[Path, int]:
    """Write fields, those still in a file piece by piece."""
    store.write(path, fields, overwrite=overwrite, tell=tell)
    return {path: len(fields)}
