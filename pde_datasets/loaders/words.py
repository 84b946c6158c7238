"""What a user says of arrays that say nothing themselves: which axis is which, how long, what the channels are.

Words are given in Python, on a command line or in JSON, so that each has a spelling as text:

    layout       "n t x y c"                    an axis of the array each: n samples, t time, c channels, 1 to drop, else a name in space
    fields       "u v"                          arrays of a .npz that are the fields; those with as many axes as the layout by default
    channels     "u v"                          names of the channels
    units        "m/s, m/s"                     their units
    periodic     "x y"                          axes whose last point is followed by the first
    cells        "x y"                          axes whose points are centres of cells
    length       "x=6.28 t=1"                   extent of the domain along an axis; the period where there is one
    origin       "x=-1"                         coordinate of the first point
    coordinates  "x=xs y=0,0.1,0.5"             arrays of a .npz, or the numbers themselves, that are the points of an axis
    axis_units   "x=km t=s"                     units of the axes
    roles        "velocity=u,v density=rho"     channels that play a part in laws
    laws         "mass divergence-free:scheme=spectral"
    parameters   "viscosity"                    arrays of a .npz with a row a sample
    equation     "u_t + u u_x = 0"

Names are parted by spaces, commas or +, and so are entries name=value. Units may hold spaces: those of channels are parted by commas
or + alone. Laws have options with commas: they are parted by spaces alone. Axes may be n, N, sample; t, T, time; c, C, channel.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from typing import Any

_SAMPLE, _CHANNEL, _TIME, _DROPPED = "n", "c", "time", "1"
_SPELLINGS = {
    "N": _SAMPLE, "sample": _SAMPLE, "samples": _SAMPLE, "C": _CHANNEL, "channel": _CHANNEL, "channels": _CHANNEL,
    "t": _TIME, "T": _TIME, "_": _DROPPED,
}  # fmt: skip

_ROLES = ("velocity", "momentum", "density", "energy")
"""Parts that channels play in laws."""

_BETWEEN = re.compile(r"[\s,+]+(?=[^\s,+=]+=)")
"""What parts entries name=value: spaces, commas or + before the next name."""


@dataclass(frozen=True)
class Words:
    """What a user says of arrays.

    Attributes:
        layout: what each axis of the arrays is, in their order: "n", "c", "time", "1" or a name in space. Several "n" are a table of
            samples, the last fastest.
        fields, channels, units, periodic, cells, length, origin, coordinates, axis_units, roles, laws, parameters, equation: as the
            module says.

    Raises:
        ValueError: no axis of a grid, an axis named twice, words on an axis that the layout has not, an axis that is both periodic and
            made of cells, lengths that are not positive, or another number of units than channels.

    Example:
        >>> words = Words.of({"layout": "N t x y c", "periodic": "x y", "length": "x=2 y=1"})
        >>> words.axes, words.length
        (('time', 'x', 'y'), {'x': 2.0, 'y': 1.0})
    """

    layout: tuple[str, ...]
    fields: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    periodic: tuple[str, ...] = ()
    cells: tuple[str, ...] = ()
    length: Mapping[str, float] = field(default_factory=dict)
    origin: Mapping[str, float] = field(default_factory=dict)
    coordinates: Mapping[str, str | tuple[float, ...]] = field(default_factory=dict)
    axis_units: Mapping[str, str] = field(default_factory=dict)
    roles: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    laws: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()
    equation: str = ""

    def __post_init__(self) -> None:
        if not self.axes:
            raise ValueError(f"words expect a layout with a time or an axis in space, like 'n t x y'; got '{' '.join(self.layout)}'.")
        named = [axis for axis in self.layout if axis not in (_SAMPLE, _DROPPED)]
        if len(set(named)) != len(named):
            raise ValueError(f"words expect each axis of a layout once; got '{' '.join(self.layout)}'. Only n may stand several times.")
        if len(set(self.channels)) != len(self.channels):
            raise ValueError(f"words expect channels of different names; got {', '.join(self.channels)}.")
        for word in ("periodic", "cells", "length", "origin", "coordinates", "axis_units"):
            for axis in getattr(self, word):
                if axis not in self.axes:
                    raise ValueError(f"words: {word} expects axes of the layout, {', '.join(self.axes)}; got '{axis}'.")
        both = [axis for axis in self.periodic if axis in self.cells]
        if both:
            raise ValueError(
                f"words expect an axis to be periodic or of cells; got both for {both[0]}. Leave cells out: weights are equal anyway."
            )
        for axis, length in self.length.items():
            if not (math.isfinite(length) and length > 0):
                raise ValueError(f"words: length expects positive numbers; got {axis}={length}.")
        for axis, origin in self.origin.items():
            if not math.isfinite(origin):
                raise ValueError(f"words: origin expects finite numbers; got {axis}={origin}.")
        for axis in self.coordinates:
            if axis in self.origin or (axis in self.length and axis not in self.periodic):
                raise ValueError(f"words expect coordinates of {axis}, or its length and origin; got both.")
        if self.units and self.channels and len(self.units) != len(self.channels):
            raise ValueError(
                f"words expect one unit a channel, parted by commas; got {len(self.units)}, '{', '.join(self.units)}', for channels "
                f"{', '.join(self.channels)}."
            )
        for role in self.roles:
            if role not in _ROLES:
                near = get_close_matches(role, _ROLES, n=1)
                hint = f" Did you mean '{near[0]}'?" if near else ""
                raise ValueError(f"words: roles are {', '.join(_ROLES)}, like 'velocity=u,v density=rho'; got '{role}'.{hint}")

    @property
    def axes(self) -> tuple[str, ...]:
        """Axes of the grid, time first, those in space in the order of the layout."""
        space = tuple(axis for axis in self.layout if axis not in (_SAMPLE, _CHANNEL, _DROPPED, _TIME))
        return ((_TIME,) if _TIME in self.layout else ()) + space

    @property
    def has_channels(self) -> bool:
        """Whether an axis of the arrays holds channels."""
        return _CHANNEL in self.layout

    def places(self) -> tuple[int, ...]:
        """For each axis of the arrays, which of (N, C, *N) it is; dropped ones go with the samples, of which they are a factor 1."""
        position = {_SAMPLE: 0, _DROPPED: 0, _CHANNEL: 1} | {axis: 2 + i for i, axis in enumerate(self.axes)}
        return tuple(position[axis] for axis in self.layout)

    @classmethod
    def of(cls, words: Mapping[str, Any] | Words) -> Words:
        """Words from a dictionary whose values are Python's or text.

        Raises:
            ValueError: an unknown or missing word, or a value that cannot be read.
        """
        if isinstance(words, Words):
            return words
        if not isinstance(words, Mapping):
            raise ValueError(f"words are a dictionary like {{'layout': 'n t x y', 'periodic': 'x y'}}; got a {type(words).__name__}.")
        known = [entry.name for entry in fields(cls)]
        for word in words:
            if word not in known:
                near = get_close_matches(str(word), known, n=1)
                raise ValueError(f"words are {', '.join(known)}; got '{word}'." + (f" Did you mean '{near[0]}'?" if near else ""))
        if "layout" not in words:
            raise ValueError("words expect a layout, what each axis of the arrays is, like layout='n t x y'; there is none.")
        return cls(**{word: _READERS[word](word, value) for word, value in words.items()})


def _names(word: str, value: Any) -> tuple[str, ...]:
    """Names parted by spaces, commas or +, or a list of names."""
    if isinstance(value, str):
        return tuple(name for name in re.split(r"[\s,+]+", value) if name)
    if isinstance(value, Sequence) and all(isinstance(name, str) for name in value):
        return tuple(value)
    raise ValueError(f"words: {word} expects names, like 'u v' or a list; got {value!r}.")


def _axis_names(word: str, value: Any) -> tuple[str, ...]:
    return tuple(_SPELLINGS.get(name, name) for name in _names(word, value))


def _units(word: str, value: Any) -> tuple[str, ...]:
    """Units, which may hold spaces, parted by commas or +."""
    return tuple(unit.strip() for unit in re.split(r"[,+]", value)) if isinstance(value, str) else _names(word, value)


def _words_apart(word: str, value: Any) -> tuple[str, ...]:
    return tuple(value.split()) if isinstance(value, str) else _names(word, value)


def _table(word: str, value: Any) -> dict[str, Any]:
    """A dictionary, or entries name=value."""
    if isinstance(value, Mapping):
        return {str(name): entry for name, entry in value.items()}
    entries = [entry.partition("=") for entry in _BETWEEN.split(value.strip())] if isinstance(value, str) else [("", "", "")]
    if any(not (name and entry) for name, _, entry in entries):
        raise ValueError(f"words: {word} expects a dictionary, or text like 'name=value name=value'; got {value!r}.")
    if len({name for name, _, _ in entries}) < len(entries):
        raise ValueError(f"words: {word} expects each name once; got {value!r}.")
    return {name: entry for name, _, entry in entries}


def _axis_table(word: str, value: Any) -> dict[str, Any]:
    return {_SPELLINGS.get(name, name): entry for name, entry in _table(word, value).items()}


def _numbers(word: str, value: Any) -> dict[str, float]:
    table = _axis_table(word, value)
    try:
        return {axis: float(entry) for axis, entry in table.items()}
    except (TypeError, ValueError) as error:
        raise ValueError(f"words: {word} expects numbers, like 'x=6.28 t=1'; got {value!r}.") from error


def _points(word: str, value: Any) -> dict[str, str | tuple[float, ...]]:
    table = _axis_table(word, value)
    try:
        return {
            axis: _numbers_or_name(entry) if isinstance(entry, str) else tuple(float(x) for x in entry) for axis, entry in table.items()
        }
    except (TypeError, ValueError) as error:
        raise ValueError(f"words: {word} expects names of arrays or lists of numbers, like 'x=xs y=0,0.1,0.5'; got {value!r}.") from error


def _numbers_or_name(text: str) -> str | tuple[float, ...]:
    """Points of an axis: numbers where all of them are, else the name of an array."""
    try:
        return tuple(float(x) for x in re.split(r"[\s,]+", text.strip(" ,")))
    except ValueError:
        return text


def _texts(word: str, value: Any) -> dict[str, str]:
    return {axis: str(entry) for axis, entry in _axis_table(word, value).items()}


def _roles(word: str, value: Any) -> dict[str, tuple[str, ...]]:
    return {role: _names(word, entry) for role, entry in _table(word, value).items()}


_READERS: dict[str, Callable[[str, Any], Any]] = {
    "layout": _axis_names, "fields": _names, "channels": _names, "units": _units, "periodic": _axis_names, "cells": _axis_names,
    "length": _numbers, "origin": _numbers, "coordinates": _points, "axis_units": _texts, "roles": _roles, "laws": _words_apart,
    "parameters": _names, "equation": lambda word, value: str(value),
}  # fmt: skip
