"""Tables in text: rows of numbers, in any of the ways programs write them, after lines that are none."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from textwrap import shorten
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pde_datasets.loaders.files import first_bytes

_HEAD = 1 << 16
"""Bytes looked at to recognise a file."""
_COMMENT = "#%!;"
"""Characters that begin a line which is no row."""
_DECIMAL = re.compile(r"[-+]?\d*,\d+(?:[eE][-+]?\d+)?")
"""A number with a decimal comma."""
_FORTRAN = re.compile(r"(?<=[\d.])[dD](?=[-+]?\d)")
"""The exponent of a double in Fortran, 1.5D-03."""


class Table(NamedTuple):
    """Rows of numbers and what stands before them.

    Attributes:
        head: the lines before the first row.
        rows: (n, columns).
        first: the first row as written.
        lines: all rows as written.
    """

    head: list[str]
    rows: NDArray[np.float64]
    first: str
    lines: list[str]


def beginning(path: Path) -> list[str]:
    """The first lines of a text file, whole ones; none if it is a folder or bytes."""
    data = first_bytes(path, _HEAD + 1)
    cut = len(data) > _HEAD
    if any(byte < 32 and byte not in b"\t\n\r\f\v\x1a" for byte in data[:1024]) or b"\0" in data:
        return []
    lines = decoded(data).splitlines()
    return lines[:-1] if cut else lines


def decoded(data: bytes) -> str:
    """Text in UTF-8, or else with each byte a character: only words in other alphabets differ, not the numbers."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return data.decode("utf-8-sig", errors="ignore") if error.start > len(data) - 4 else data.decode("latin-1")


def is_row(line: str) -> bool:
    """Whether a line is numbers and nothing else."""
    words = _words(line)
    try:
        return bool([float(_FORTRAN.sub("e", word)) for word in words])
    except ValueError:
        return False


def width(line: str) -> int:
    """How many numbers a row has."""
    return len(_words(line))


def table(path: Path, speaker: str, lines: list[str] | None = None) -> Table:
    """The table of a file: its first row and all that follows, up to empty lines and comments.

    Arguments:
        path: the file.
        speaker: the format that reads it, for errors.
        lines: those of the file, if they are read already.

    Raises:
        ValueError: no row, rows of different length, or anything that is neither row nor comment among them.
    """
    lines = decoded(path.read_bytes()).splitlines() if lines is None else lines
    start = next((i for i, line in enumerate(lines) if is_row(line)), None)
    if start is None:
        raise ValueError(f"{path.name}: {speaker} expects rows of numbers; there are none. The file is truncated or of another kind.")
    rows = [line for line in lines[start:] if line.strip(" \t,;\x1a") and line.lstrip()[0] not in _COMMENT]
    return Table(lines[:start], numbers(path, speaker, rows), rows[0], rows)


def numbers(path: Path, speaker: str, rows: list[str]) -> NDArray[np.float64]:
    """Rows of text as numbers, (n, columns).

    Raises:
        ValueError: rows of different length, or words that are no numbers.
    """
    columns = width(rows[0])
    values = []
    for i, row in enumerate(rows):
        words = _words(row)
        try:
            if len(words) != columns:
                raise ValueError(f"{len(words)}: {row.strip()[:60]!r}")
            values.append([float(_FORTRAN.sub("e", word)) for word in words])
        except ValueError as error:
            raise ValueError(
                f"{path.name}: {speaker} expects {columns} numbers in every row; row {i + 1} of {len(rows)} has {error}. The file is "
                "truncated or damaged."
            ) from None
    return np.array(values, dtype=np.float64)


def last_places(rows: list[str]) -> list[tuple[int, int]]:
    """The most significant digits and the most decimals in each column of a table.

    The last place of a value is the coarser of the two: programs write the same number of one or the other and leave zeros at the end out.

    Example:
        >>> last_places(["0.5 1.50E+00", "0.125 2.25E-03"])
        [(3, 3), (3, 5)]
    """
    found = []
    for words in zip(*(_words(row) for row in rows), strict=True):
        parts = [re.split("[eEdD]", word.lstrip("+-")) for word in words]
        digits = max(len(part[0].replace(".", "").lstrip("0")) for part in parts)
        decimals = max(len(part[0].partition(".")[2]) - (int(part[1]) if len(part) > 1 else 0) for part in parts)
        found.append((digits, decimals))
    return found


def _words(line: str) -> list[str]:
    """The words of a row: parted by spaces, semicolons or commas, which are decimal where they stand within words of a row of several."""
    line = line.strip(" \t\r\n\x1a;")
    if "," not in line:
        return line.replace(";", " ").split()
    words = line.replace(";", " ").split()
    if len(words) > 1 and all("," not in word or _DECIMAL.fullmatch(word) for word in words):
        return [word.replace(",", ".") for word in words]
    return [word.strip() for word in line.rstrip(",").split(",")]


def said(lines: list[str], most: int = 300) -> str:
    """What the lines before a table say, in one line of moderate length; empty if they have no words."""
    words = " ".join(line.strip().lstrip("#%! ") for line in lines if re.search(r"\w", line))
    return shorten(words, most, placeholder=" ...")


def names(head: list[str], first: str) -> tuple[tuple[str, ...], int]:
    """Names of the columns, read off the lines above the first row, and how many lines stand before them.

    No names and all lines if none of the last three with words has as many of them.

    A line may be parted by tabs, two or more spaces, " - ", commas or any space; `[u Re=[100, 400]]` names two columns. Where a second
    line of names follows, its words belong to the columns they stand above.

    Example:
        >>> names(["# Decay", "# Time  -  Energy"], "0.0 1.0"), names(["# [y], [u Re=[100, 400]]"], "0 1 2")
        ((('Time', 'Energy'), 1), (('y', 'u Re=100', 'u Re=400'), 0))
    """
    wanted = width(first)
    places = [i for i, line in enumerate(head) if re.search(r"[A-Za-z]", line)][-3:]
    lines = [head[i].rstrip() for i in places]
    for split in _SPLITS:
        for i, line in reversed(list(enumerate(lines))):
            found = [word.strip() for word in split(line.strip().lstrip(_COMMENT + "/").strip()) if word.strip() not in ("", "...")]
            found = [word[1:-1] if word[0] == word[-1] == '"' else word for word in found]
            if len(found) == wanted and all(re.search(r"[A-Za-z]", word) for word in found):
                for below in lines[i + 1 :]:
                    _continued(found, below, first)
                return _unique(found), places[i]
    return (), len(head)


def _continued(found: list[str], below: str, first: str) -> None:
    """Add the words of a second line to the names of the columns they stand above."""
    starts = [match.start() for match in re.finditer(r"\S+", first)]
    for match in re.finditer(r"\S+(?: \S+)*", below):
        column = int(np.argmin([abs(start - match.start()) for start in starts]))
        found[column] = f"{found[column]} {match[0]}"


def _grouped(line: str) -> list[str]:
    """`[y], [u Re=[100, 400]]` as y, u Re=100, u Re=400."""
    found: list[str] = []
    for name, key, values in re.findall(r"\[([^\[\],]*?)(?:\s*(\w+)=\[([^\]]*)\])?\]", line):
        found += [f"{name} {key}={value.strip()}" for value in values.split(",")] if key else [name]
    return found


_SPLITS: tuple[Callable[[str], list[str]], ...] = (
    _grouped,
    lambda line: re.split(r"\t+|\s{2,}", line),
    lambda line: re.split(r"\s+-\s+", line),
    lambda line: re.split("[,;]", line),
    str.split,
)
"""Ways to part a line of names, the more particular first: words of one name may stand a space apart."""


def _unique(words: list[str]) -> tuple[str, ...]:
    """Names, those that repeat numbered from their second use on."""
    seen: dict[str, int] = {}
    found = []
    for word in words:
        seen[word] = seen.get(word, 0) + 1
        found.append(word if seen[word] == 1 else f"{word}_{seen[word]}")
    return tuple(found)
