"""What every reader does with a file: its first bytes, settings kept beside it, and words for what it holds or that it is damaged."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

_SHOWN = 8
"""Names listed."""


def first_bytes(path: Path, count: int) -> bytes:
    """The first bytes of a file; none of a folder."""
    if not path.is_file():
        return b""
    with path.open("rb") as file:
        return file.read(count)


def first_member(path: Path) -> bytes:
    """The name of the first member of a zip archive, empty if a file is none.

    The directory of an archive is at its end, the name of a member also before its bytes: this one survives truncation.
    """
    start = first_bytes(path, 512)
    return start[30 : 30 + int.from_bytes(start[26:28], "little")] if start.startswith(b"PK\x03\x04") else b""


def small_json(path: Path, most: int = 1 << 20) -> Any:
    """What a file of settings says, in JSON; None if there is none, or it has more bytes than settings need.

    Raises:
        ValueError: it is not JSON.
    """
    if not path.is_file() or path.stat().st_size > most:
        return None
    try:
        return json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path.name}: expects JSON; it cannot be read ({reason(error)}).") from error


def listed(names: Iterable[str], none: str = "nothing in it") -> str:
    """Names, the first few of them."""
    every = list(names)
    more = f" and {len(every) - _SHOWN} more" if len(every) > _SHOWN else ""
    return (", ".join(every[:_SHOWN]) + more) or none


def shapes_of(arrays: Mapping[Any, Any], none: str = "nothing in it") -> str:
    """Names and shapes of arrays, the first few of them; what has no shape by its name alone."""
    return listed((f"{name} {tuple(array.shape)}" if hasattr(array, "shape") else str(name) for name, array in arrays.items()), none)


def reason(error: object, most: int = 120) -> str:
    """What an error says, in one line of moderate length."""
    return " ".join(str(error).split())[:most] or type(error).__name__


def damaged(who: str, what: str, error: object) -> ValueError:
    """The error that bytes are missing or wrong.

    Arguments:
        who: the file's name, and the format that speaks where there is one: "flow.nc: netcdf".
        what: what was expected, "a whole file".
        error: what gave it away.
    """
    return ValueError(f"{who} expects {what}; this one is truncated or damaged ({reason(error)}). Fetch it again.")
