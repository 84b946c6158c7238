"""Tables of numbers in text, one row a point, columns parted by spaces, tabs, semicolons or commas; any lines before the first row.

What the columns are is read off, in this order:

1. a column named time or t that increases: fields of time alone, every other column a channel;
2. a first column that increases, or decreases and is turned around: fields along it;
3. columns named x, y (z), and time: points in space, on the product of axes they fill or else a cloud;
4. first columns that together fill a product of axes: a grid.

Names are those of the head where one of its last lines has as many words as there are columns.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from constraints import Axis, Grid
from pde_datasets.fields import Fields
from pde_datasets.loaders.points import Layout, layout
from pde_datasets.loaders.text import beginning, is_row, last_places, names, said, table, width

_STEADY = 1e-3
"""Distance from equal spacing, over the spacing, that the digits of a table leave."""

_KNOWN = {
    "Ghia et al. (1982)": "Misprints of the table, left as they are: u(Re 3200, y .4531) = -.86636 should be about -.0866, u(Re 10000, "
    "y .5) = .03111 has the wrong sign, v(Re 1000, x .5) is .02526 in other copies. Columns v belong to column x, not to y.",
}
"""What is known of tables by words of their heads."""


def recognises(path: Path) -> bool:
    """Whether a text file has rows of two or more numbers, all alike, after lines that are none."""
    lines = beginning(path)
    start = next((i for i, line in enumerate(lines) if is_row(line)), None)
    if start is None:
        return False
    rows = [line for line in lines[start:] if is_row(line)]
    return len(rows) > 1 and width(rows[0]) > 1 and all(width(row) == width(rows[0]) for row in rows)


def load(path: Path) -> Fields:
    """The columns as channels of one sample, float64.

    Returns:
        (1, C, n) on one axis, or (1, C, *grid) or (1, C, points) where columns are coordinates.

    Raises:
        ValueError: rows of different length, or no column that increases and none that are coordinates.
    """
    text = table(path, "columns")
    rows, count = text.rows, text.rows.shape[1]
    titles, above = names(text.head, text.first)
    if count < 2 or len(rows) < 2:
        raise ValueError(f"{path.name}: columns expects two or more rows of two or more numbers; got {len(rows)} of {count}.")
    words = titles or tuple(f"column_{i + 1}" for i in range(count))
    notes = ["Columns are named as in the head." if titles else "The head names no columns: they are numbered."]
    notes += [note for phrase, note in _KNOWN.items() if any(phrase in line for line in text.head)]
    line = _line(words, rows)
    if line is not None:
        at, axis, turned, reason = line
        kept = [i for i in range(count) if i != at]
        values = rows[:, kept].T
        u, grid, mesh = values[:, ::-1] if turned else values, Grid(axis), None
    else:
        chosen, place = _space(path, words, rows)
        kept = [i for i in range(count) if i not in chosen]
        u, grid, mesh, reason = place.place(rows[:, kept].T), place.grid, place.mesh, place.reason
    channels, places = tuple(words[i] for i in kept), last_places(text.lines)
    velocity = tuple(name for name in ("u", "v", "w") if name in channels)
    dimensions = len(grid.space_axes) if mesh is None else mesh.points.shape[-1]
    return Fields(
        u=torch.from_numpy(np.ascontiguousarray(u))[None],
        grid=grid,
        channels=channels,
        parameters=_numbers(text.head),
        roles={"velocity": velocity} if line is None and len(velocity) == dimensions else {},
        attributes={
            "format": "columns",
            "path": path.name,
            **({"source": source} if (source := said(text.head[:above])) else {}),
            "notes": " ".join([*notes, reason]),
            "written": {words[i]: list(places[i]) for i in kept},
        },
        mesh=mesh,
    )


def _numbers(head: Sequence[str]) -> dict[str, torch.Tensor]:
    """The viscosity, where a line of the head says `viscosity = NUMBER`, as a parameter of the one sample."""
    found = re.search(r"viscosity\s*=\s*([0-9.]+(?:[eE][+-]?[0-9]+)?)", "\n".join(head), re.IGNORECASE)
    return {} if found is None else {"viscosity": torch.tensor([float(found[1])], dtype=torch.float64)}


def _line(words: tuple[str, ...], rows: NDArray[np.float64]) -> tuple[int, Axis, bool, str] | None:
    """The column along which fields are given, its axis, whether it is turned around, and the reason; None if there is none."""
    times = [i for i, word in enumerate(words) if _coordinate(word) == "time" and (np.diff(rows[:, i]) > 0).all()]
    at = times[0] if times else 0
    values = rows[:, at]
    turned = bool((np.diff(values) < 0).all())
    values = values[::-1] if turned else values
    if not (np.diff(values) > 0).all():
        return None
    name = _coordinate(words[at])
    n, spacing = len(values), (values[-1] - values[0]) / (len(values) - 1)
    told = f"Fields along column '{words[at]}'" + (", which decreases and was turned around." if turned else ".")
    if np.abs(values - values[0] - spacing * np.arange(n)).max() > _STEADY * spacing:
        return at, Axis.at(name, values.tolist()), turned, told
    if name != "time" and n > 2 and abs(values[0] - spacing / 2) <= _STEADY * spacing:
        told += " The first point is half a spacing from 0: read as centres of cells."
        return at, Axis(name, n, length=float(spacing * n), origin=float(values[0]), cells=True), turned, told
    return at, Axis(name, n, length=float(spacing * (n - 1)), origin=float(values[0])), turned, told


def _space(path: Path, words: tuple[str, ...], rows: NDArray[np.float64]) -> tuple[list[int], Layout]:
    """The columns that are coordinates, and what their points live on."""
    plain = [_coordinate(word) for word in words]
    named = [plain.index(name) for name in ("time", "x", "y", "z") if name in plain and plain.index(name) < len(words)]
    space = [i for i in named if plain[i] != "time"]
    tried = [named, space] if len(space) > 1 or (space and len(named) > 1) else []
    tried += [list(range(d)) for d in (2, 3) if d < len(words) and plain[0] == "x" and words[0].startswith("column_")]
    for chosen in tried:
        axes = [plain[i] for i in chosen] if chosen in (named, space) else ["x", "y", "z"][: len(chosen)]
        try:
            place = layout(axes, rows[:, chosen])
        except ValueError as error:
            raise ValueError(f"{path.name}: columns {error}") from error
        if place.mesh is None or (chosen == space == named and len(space) > 1):
            return chosen, place
    raise ValueError(
        f"{path.name}: columns expects a first column or one named time that increases, or columns named x and y; got "
        f"{', '.join(words[:8])}. Sort the rows, or name the coordinates in a line above them."
    )


def _coordinate(word: str) -> str:
    """The name of an axis for a column: time for t, time or t in units of something; else its first letters."""
    if re.search(r"(?<![A-Za-z])(t|time)(?![A-Za-z])", word, re.IGNORECASE):
        return "time"
    letters = re.search(r"[A-Za-z]+", word)
    return "x" if letters is None or word.startswith("column_") else letters[0].lower()
