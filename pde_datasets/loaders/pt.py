"""Tensors in `.pt` files, read without running anything in them.

Files are unpickled by `torch.load(weights_only=True)` alone, which makes tensors and containers and runs nothing else.
"""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import is_zipfile

import torch

from pde_datasets.loaders.files import damaged, first_member
from pde_datasets.loaders.limits import check_archive


def is_pt(path: Path) -> bool:
    """Whether a file is a zip archive that `torch.save` began: its first member is `data.pkl`."""
    return first_member(path).endswith(b"data.pkl")


def glimpse(path: Path) -> Any:
    """As `content`, with the numbers mapped: to tell what a file is none of them is read, however many there are."""
    return _loaded(path, mapped=True)


def content(path: Path) -> Any:
    """What `torch.save` wrote: tensors, numbers and text in dictionaries, lists and tuples.

    Raises:
        ValueError: a truncated or damaged file, or a pickle that asks for anything else.
    """
    return _loaded(path, mapped=False)


def _loaded(path: Path, mapped: bool) -> Any:
    try:
        if not is_zipfile(path):
            raise ValueError("truncated, its directory is missing")
        check_archive(path)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except UnpicklingError as error:
        raise ValueError(
            f"{path.name}: expects tensors; the pickle asks for other objects and was refused, nothing in it was run. "
            "Save the tensors alone with torch.save."
        ) from error
    except Exception as error:  # on damaged bytes the unpickler raises whatever it stumbles on: IndexError, KeyError, RuntimeError, ...
        raise damaged(f"{path.name}:", "a whole .pt archive", error) from error
