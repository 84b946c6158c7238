"""Text exports of COMSOL: `%` lines that say what was computed, then a row for each node: coordinates, then an expression each column.

    % Nodes:              983
    % Expressions:        51
    % Length unit:        m
    % X        Y        u (1) @ t=0        u (1) @ t=0.1    ...

What stands after `@` tells columns of one expression apart: its `t` becomes the time axis, other values that differ (Re=100, Re=200) become
samples, those that do not become parameters of the one sample. The head may hold words in any alphabet. Nodes that fill a product of
axes are put on a grid, others on a cloud.
"""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from constraints import Axis
from pde_datasets.fields import Fields
from pde_datasets.loaders.points import layout
from pde_datasets.loaders.si import si
from pde_datasets.loaders.sides import equations, sides
from pde_datasets.loaders.text import beginning, decoded, table

_COLUMN = re.compile(r"(?P<name>.+?)(?:\s+\((?P<unit>[^()]*)\))?(?:\s+@\s+(?P<values>.+))?")
_VALUE = re.compile(r"\s*(\w+)=([-+.\deE]+)\s*(?:\[?[^,\]]*\]?)?\s*")
_TIME = "t"


class _Column(NamedTuple):
    """An expression, its unit, and the values it was computed for."""

    name: str
    unit: str
    values: dict[str, float]


def recognises(path: Path) -> bool:
    """Whether a text file begins with `%` lines that count nodes and expressions."""
    head = beginning(path)[:20]
    return all(any(line.startswith(f"% {what}:") for line in head) for what in ("Nodes", "Expressions"))


def load(path: Path) -> Fields:
    """The expressions at the nodes.

    Returns:
        One channel an expression, float64, on (time, x, y) or (time, point), time only where there is more than one. Lengths are in m
        where the file says a unit, and expressions in the SI unit of theirs where it is known.

    Raises:
        ValueError: another number of nodes or columns than the head says, columns that are no product of expressions, times and values,
            or numbers that are none.
    """
    text = table(path, "comsol", decoded(path.read_bytes()).splitlines())
    about = {key.strip(): value.strip() for key, value in re.findall(r"^%\s*([^:]+):\s*(.*)$", "\n".join(text.head), re.MULTILINE)}
    nodes, dimension = (_count(path, about, key) for key in ("Nodes", "Dimension"))
    names = re.split(r"\s{2,}|\t", text.head[-1].lstrip("% ").strip())
    if len(text.rows) != nodes or len(names) != text.rows.shape[1] or not 0 < dimension < len(names):
        raise ValueError(
            f"{path.name}: comsol expects {nodes} rows of {dimension} coordinates and {about.get('Expressions')} expressions, named in the "
            f"last line of the head; got {len(text.rows)} rows of {text.rows.shape[1]} numbers and {len(names)} names. The file is "
            "truncated or damaged."
        )
    columns = [_column(path, name) for name in names[dimension:]]
    channels, units, keys, levels = _arranged(path, columns)
    rows = {(column.name, *(column.values.get(key, 0.0) for key in keys)): i for i, column in enumerate(columns)}
    others = [key for key in keys if key != _TIME]
    samples = list(product(*(levels[key] for key in others)))
    times = levels.get(_TIME, [])
    scale, unit = si(about.get("Length unit", ""))
    moving = len(times) > 1
    axis = Axis.at("time", times, unit="s") if moving else None
    place = layout([name.lower() for name in names[:dimension]], scale * text.rows[:, :dimension], time=axis, units=(unit,) * dimension)

    def column_of(channel: str, sample: tuple[float, ...], time: float) -> int:
        values = dict(zip(others, sample, strict=True)) | {_TIME: time}
        return dimension + rows[(channel, *(values[key] for key in keys))]

    picked = np.array([[[column_of(c, sample, time) for time in times or [0.0]] for c in channels] for sample in samples])
    values = text.rows.T[picked] * np.array([si(u)[0] for u in units])[:, None, None]
    u = place.place(values if moving else values[:, :, 0])
    notes = [place.reason, "Interpolated or nodal values of finite elements: discrete laws hold only to their accuracy."]
    velocity = tuple(name for name in ("u", "v", "w")[:dimension] if name in channels)
    mesh = place.mesh
    if mesh is not None:
        there = sides(mesh.points.numpy(), [name.lower() for name in names[:dimension]])
        known, measured = equations(mesh.points.numpy(), u, there, [channels.index(name) for name in velocity])
        notes += measured
        mesh = replace(mesh, equations=known, boundary={name: torch.from_numpy(where) for name, where in there.items()})
    return Fields(
        u=torch.from_numpy(np.ascontiguousarray(u)),
        grid=place.grid,
        channels=channels,
        units=tuple(si(u)[1] for u in units),
        parameters={key: torch.tensor([s[i] for s in samples], dtype=torch.float64) for i, key in enumerate(others)},
        roles={"velocity": velocity} if len(velocity) == dimension > 1 else {},
        attributes={"format": "comsol", "path": path.name, "source": about.get("Version", "COMSOL"), "notes": " ".join(notes)}
        | {name: about[key] for name, key in (("model", "Model"), ("description", "Description")) if key in about}
        | ({"time": times[0]} if len(times) == 1 else {}),
        mesh=mesh,
    )


def _count(path: Path, about: dict[str, str], key: str) -> int:
    if not about.get(key, "").isdigit():
        raise ValueError(f"{path.name}: comsol expects a number after '% {key}:'; got '{about.get(key, '')}'. The head is damaged.")
    return int(about[key])


def _column(path: Path, text: str) -> _Column:
    """`u (m/s) @ t=0.1, Re=100`, understood."""
    found = _COLUMN.fullmatch(text)
    assert found is not None
    values = {}
    for part in (found["values"] or "").split(","):
        value = _VALUE.fullmatch(part)
        if value is None and part.strip():
            raise ValueError(f"{path.name}: comsol expects values such as t=0.1 after the @ of a column; got {part.strip()!r}.")
        if value is not None:
            values[value[1]] = float(value[2])
    return _Column(found["name"], found["unit"] or "", values)


def _arranged(path: Path, columns: list[_Column]) -> tuple[tuple[str, ...], tuple[str, ...], list[str], dict[str, list[float]]]:
    """Expressions, their units, the values that tell columns apart, and the levels of each; every combination must be there once."""
    units = {column.name: column.unit for column in columns}
    keys = sorted({key for column in columns for key in column.values})
    levels = {key: sorted({column.values.get(key, 0.0) for column in columns}) for key in keys}
    expected = set(product(units, *(levels[key] for key in keys)))
    got = [(column.name, *(column.values.get(key, 0.0) for key in keys)) for column in columns]
    if len(got) != len(expected) or set(got) != expected:
        raise ValueError(
            f"{path.name}: comsol expects every expression for every time and value, {len(expected)} columns; got {len(got)}, or one "
            "twice. Export one solution at a time."
        )
    return tuple(units), tuple(units.values()), keys, levels
