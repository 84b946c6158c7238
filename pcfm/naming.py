"""Names given by users, looked up with help."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

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
        first, _, rest = str(name).partition(" ")
        if rest and first in table:
            raise ValueError(f"unknown {kind} '{name}'. Options follow a colon: {first}:{','.join(rest.split())}")
        raise ValueError(f"unknown {kind} '{name}'. {suggest(name, table)}")
    return table[name]


def options_from(what: str, text: str, known: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a text key=value,key=value, in the types of the defaults of the known ones.

    Arguments:
        what: whose options, for messages.
        text: the options, none if empty.
        known: the default of each option.

    Raises:
        ValueError: an unknown option, one given twice, or a value of another type.

    Example:
        >>> options_from("times 'levels'", "rho=5", {"rho": 7.0})
        {'rho': 5.0}
    """
    chosen: dict[str, Any] = {}
    for item in filter(None, text.split(",")):
        key, equals, value = item.partition("=")
        if not equals:
            raise ValueError(f"{what} expects options key=value; got '{item}'.")
        if key not in known:
            raise ValueError(f"{what} has no option '{key}'. {suggest(key, known)}")
        if key in chosen:
            raise ValueError(f"{what} expects each option once; got '{key}' twice.")
        chosen[key] = _like(what, key, value, known[key])
    return chosen


def _like(what: str, key: str, text: str, default: Any) -> Any:
    """A text in the type of a default."""
    if isinstance(default, bool):
        if text not in ("true", "false"):
            raise ValueError(f"option '{key}' of {what} expects true or false; got '{text}'.")
        return text == "true"
    try:
        return type(default)(text)
    except ValueError as error:
        words = {int: "a whole number", float: "a number"}.get(type(default), "a word")
        raise ValueError(f"option '{key}' of {what} expects {words} like {default}; got '{text}'.") from error
