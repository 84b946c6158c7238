"""Tensors in `.pt` files, read without running anything in them.

Files are unpickled by `torch.load(weights_only=True)` alone, which makes tensors and containers and runs nothing else.
"""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import is_zipfile

import torch

from pde_datasets.loaders.limits import check_archive


def is_pt(path: Path) -> bool:
    """Whether a file is a zip archive that `torch.save` began: its first member is `data.pkl`.

    The members' directory is at the end of an archive, so the first member's own header is read: it survives truncation.
    """
    if path.is_dir():
        return False
    with path.open("rb") as file:
        head = file.read(512)
    length = int.from_bytes(head[26:28], "little")
    return head.startswith(b"PK\x03\x04") and head[30 : 30 + length].endswith(b"data.pkl")


def content(path: Path) -> Any:
    """What `torch.save` wrote: tensors, numbers and text in dictionaries, lists and tuples.

    Raises:
        ValueError: a truncated or damaged file, or a pickle that asks for anything else.
    """
    try:
        if not is_zipfile(path):
            raise ValueError("truncated, its directory is missing")
        check_archive(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise ValueError(
            f"{path.name}: open expects tensors; the pickle asks for other objects and was refused, nothing in it was run. "
            "Save the tensors alone with torch.save."
        ) from error
    except Exception as error:  # on damaged bytes the unpickler raises whatever it stumbles on: IndexError, KeyError, RuntimeError, ...
        reason = " ".join(str(error).split())[:120]
        raise ValueError(
            f"{path.name}: open expects a whole .pt archive; this one is truncated or damaged ({reason}). Fetch it again."
        ) from error
