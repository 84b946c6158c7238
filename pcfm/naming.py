"""Names given by users, looked up with help."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

T = TypeVar("T")


def suggest(name: str, known: Iterable[str]) -> str:
    """The end of an error message: the nearest known name, or all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(str(name), names, n=1)
    return f"Did you mean '{near[0]}'?" if near else f"Known: {', '.join(names) or 'none'}."


def lookup(kind: str, name: str, table: Mapping[str, T]) -> T:
    """The entry of a table.

    Raises:
        ValueError: no entry of that name; the nearest one is suggested.
    """
    if not isinstance(name, str) or name not in table:
        raise ValueError(f"unknown {kind} '{name}'. {suggest(name, table)}")
    return table[name]
