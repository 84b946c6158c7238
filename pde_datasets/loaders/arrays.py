"""Plain NumPy arrays, `.npy` and `.npz`, with words of the user: which axis is which.

An array has a shape and no grid; what its axes are only its owner knows and says in words, `open(path, words={"layout": "n t x y"})`.
They may also be kept with the file, in JSON: beside a `.npy` as `NAME.npy.json`, in a `.npz` as a text array `words`.

    numpy.savez("flow.npz", u=u, v=v, x=x, t=t, words=json.dumps({"layout": "n t x y", "periodic": "x y"}))

In a `.npz` arrays named like an axis are its coordinates (`x`; `t` or `time`), the others with as many axes as the layout are the fields.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from constraints import Axis, Grid
from pde_datasets.fields import Fields
from pde_datasets.loaders.coordinates import cells, coordinates, counted
from pde_datasets.loaders.files import listed, reason, small_json
from pde_datasets.loaders.npy import is_npy, is_npz, mapped, members
from pde_datasets.loaders.parts import Part, assembled
from pde_datasets.loaders.views import Reversed
from pde_datasets.loaders.words import Words

_LARGEST = 1 << 20
"""Bytes of words kept with a file."""

_WORDS = "words"


def recognises(path: Path) -> bool:
    """Whether a file is a NumPy array, or an archive of them; what it holds the user says."""
    return is_npy(path) or is_npz(path)


def load(path: Path, words: Mapping[str, Any] | Words | None = None) -> Fields:
    """The fields in arrays, mapped where they can be.

    Arguments:
        path: a `.npy` or `.npz` file.
        words: what its axes are (see `words`); those kept with the file by default.

    Returns:
        Fields on the axes of the layout, time first. Axes in space of which nothing is said have length 1, times count from 0. Complex
        arrays are channels `.._real` and `.._imag`. Coordinates that decrease are turned round with the fields.

    Raises:
        ValueError: no words, words that do not fit the arrays, a damaged file, or one of pickled objects.
    """
    arrays: dict[str, Any] = members(path) if is_npz(path) else {"u": mapped(path)}
    given = words if words is not None else _kept(path, arrays)
    arrays.pop(_WORDS, None)
    if given is None:
        raise ValueError(f"{path.name}: {_asked(arrays)}")
    try:
        return _Reading(path, arrays, Words.of(given)).fields()
    except ValueError as error:
        told = str(error)
        raise ValueError(told if told.startswith(path.name) else f"{path.name}: {told}") from error


def _shown(arrays: Mapping[str, Any]) -> str:
    return listed((f"{name} {tuple(array.shape)} {array.dtype}" for name, array in arrays.items()), "no array")


def _asked(arrays: Mapping[str, Any]) -> str:
    """The words to give, with a guess at the layout of the array with the most axes."""
    most = max((len(array.shape) for array in arrays.values()), default=0)
    guess = {1: "x", 2: "n x", 3: "n x y", 4: "n t x y", 5: "n t x y c", 6: "n t x y z c"}.get(most, "n t x y")
    return (
        f"a NumPy array says nothing of its axes; got {_shown(arrays)}. Say what they are: words={{'layout': '{guess}'}} in Python, "
        f"--words layout='{guess}' on the command line, or another layout (n samples, t time, c channels, 1 to drop, else a name in space) "
        "with channels, periodic, cells, length, .. where you know them."
    )


def _kept(path: Path, arrays: Mapping[str, Any]) -> Any:
    """Words in the archive or beside the file; None if there are none."""
    inside, beside = arrays.get(_WORDS), path.with_name(f"{path.name}.json")
    try:
        if inside is not None and inside.dtype.kind == "U" and inside.shape == () and inside.dtype.itemsize <= _LARGEST:
            return json.loads(str(inside[()]))
        return small_json(beside)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path.name}: arrays expects the words kept with it as JSON; they cannot be read ({reason(error)}).") from error


class _Reading:
    """The arrays of one file, read with words."""

    def __init__(self, path: Path, arrays: Mapping[str, Any], words: Words) -> None:
        self.path, self.arrays, self.words = path, arrays, words
        self.names = self._chosen()
        self.sizes = self._measured()
        self.notes = [f"Axes are what the user says: layout '{' '.join(words.layout)}'."]
        self.reversed: list[int] = []

    def fields(self) -> Fields:
        """The fields of the file."""
        words = self.words
        grid = Grid(*(self._axis(axis, i) for i, axis in enumerate(words.axes)))
        samples = int(np.prod([n for n, place in zip(self.sizes, words.places(), strict=True) if place == 0]))
        views, channels = self._views()
        shape = (samples, len(channels), *grid.shape)
        unread = [name for name in self.arrays if name not in (*self.names, *words.parameters, *self.used)]
        if unread:
            self.notes.append(f"Not read: {', '.join(unread)}.")
        parts = [Part((name,), words.places()) for name in views]
        return Fields(
            u=assembled(self.path, parts, shape, arrays=views),
            grid=grid,
            channels=words.channels or channels,
            units=words.units,
            parameters={name: self._parameter(name, samples) for name in words.parameters},
            roles=dict(words.roles),
            laws=words.laws,
            attributes={
                "format": "arrays",
                "path": self.path.name,
                "source": "NumPy",
                "layout": " ".join(words.layout),
                **({"equation": words.equation} if words.equation else {}),
                "notes": " ".join(self.notes),
            },
        )

    def _chosen(self) -> tuple[str, ...]:
        """The arrays that are the fields."""
        words, layout = self.words, self.words.layout
        missing = [name for name in (*words.fields, *words.parameters) if name not in self.arrays]
        if missing:
            raise ValueError(f"{self.path.name}: the words name '{missing[0]}', which is not there; got {_shown(self.arrays)}.")
        points = [value for value in words.coordinates.values() if isinstance(value, str)]
        alike = [*words.axes, *(["t"] if "time" in words.axes else [])] if len(self.arrays) > 1 else []
        self.used = {name for name in (*points, *alike) if name in self.arrays}
        free = [name for name in self.arrays if name not in words.parameters and name not in self.used]
        names = words.fields or tuple(name for name in free if len(self.arrays[name].shape) == len(layout))
        wrong = [name for name in names if len(self.arrays[name].shape) != len(layout)]
        if wrong or not names:
            raise ValueError(
                f"{self.path.name}: the layout '{' '.join(layout)}' has {len(layout)} axes, no array it is said of does; got "
                f"{_shown({name: self.arrays[name] for name in wrong} or self.arrays)}."
            )
        self.used -= set(names)
        return names

    def _measured(self) -> tuple[int, ...]:
        """Lengths of the axes of the layout; those of channels may differ between arrays."""
        layout = self.words.layout
        shapes = [tuple(int(n) for n in self.arrays[name].shape) for name in self.names]
        for i, axis in enumerate(layout):
            lengths = {shape[i] for shape in shapes}
            if len(lengths) > 1 and axis != "c":
                shown = _shown({name: self.arrays[name] for name in self.names})
                raise ValueError(
                    f"{self.path.name}: arrays expects fields of one shape; got {shown}. Name those that belong together in fields."
                )
            if 0 in lengths or (axis == "1" and lengths != {1}):
                wanted = "axes of length 1 where the layout drops them" if axis == "1" else "at least one sample, channel and point"
                raise ValueError(f"{self.path.name}: arrays expects {wanted}; got shape {shapes[0]} for the layout '{' '.join(layout)}'.")
        return shapes[0]

    def _axis(self, name: str, index: int) -> Axis:
        """The axis of a name, from coordinates, lengths or nothing."""
        words = self.words
        n = self.sizes[words.layout.index(name)]
        unit = words.axis_units.get(name, "1")
        points = self._points(name)
        periodic, centres, length = name in words.periodic, name in words.cells, words.length.get(name)
        if points is not None:
            if points.size > 1 and points.ravel()[0] > points.ravel()[-1]:
                points = points.ravel()[::-1]
                self.reversed.append(2 + index)
                self.notes.append(f"{name} decreases in the file; it was turned round with the fields.")
            x = coordinates(self.path, name, points, n)
            if not centres:
                return Axis.at(name, x.tolist(), periodic=periodic, length=length, unit=unit)
            axis = cells(name, x, unit)
            if n > 1 and not axis.cells:
                raise ValueError(
                    f"{self.path.name}: arrays expects equally spaced coordinates {name} of cells; these are not. Leave cells out."
                )
            return axis
        if length is None and name == "time" and not centres:
            self.notes.append("Times are not given: they count from 0.")
            return Axis("time", n, length=counted(name, n).extent, origin=words.origin.get(name, 0.0), unit=unit)
        if length is None:
            self.notes.append(f"The length along {name} is not given: 1.")
            length = 1.0
        origin = words.origin.get(name, length / (2 * n) if centres else 0.0)
        return Axis(name, n, length=length, origin=origin, periodic=periodic, cells=centres, unit=unit)

    def _points(self, name: str) -> NDArray[Any] | None:
        """Coordinates that the words give or name, or an array named like the axis holds."""
        said = self.words.coordinates.get(name)
        if said is not None and not isinstance(said, str):
            return np.array(said)
        names = (said,) if said is not None else tuple(name for name in ((name, "t") if name == "time" else (name,)) if name in self.used)
        for name in names:
            if name not in self.arrays:
                raise ValueError(f"{self.path.name}: the words name coordinates '{name}', which are not there; got {_shown(self.arrays)}.")
            return np.asarray(self.arrays[name][...])
        return None

    def _views(self) -> tuple[dict[str, Any], tuple[str, ...]]:
        """The arrays with the axes that decrease turned round, those of complex numbers in two, and names of their channels."""
        words, views, channels = self.words, {}, []
        turned = [i for i, place in enumerate(words.places()) if place in self.reversed]
        for name in self.names:
            array = self.arrays[name]
            pieces: dict[str, Any] = {name: array}
            if array.dtype.kind == "c":
                whole = np.asarray(array[...])
                pieces = {f"{name}_real": whole.real, f"{name}_imag": whole.imag}
                self.notes.append(f"{name} is complex: two channels, its real and imaginary part.")
            elif array.dtype.kind not in "buif":
                raise ValueError(f"{self.path.name}: arrays expects numbers in the fields; got {_shown({name: array})}.")
            for key, piece in pieces.items():
                views[key] = Reversed(piece, turned) if turned else piece
                count = piece.shape[words.layout.index("c")] if words.has_channels else 1
                channels += [key] if count == 1 else [f"{key}_{i}" for i in range(count)]
        if words.channels and len(words.channels) != len(channels):
            raise ValueError(
                f"{self.path.name}: the words name {len(words.channels)} channels, {', '.join(words.channels)}; the arrays hold "
                f"{len(channels)}."
            )
        return views, tuple(channels)

    def _parameter(self, name: str, samples: int) -> torch.Tensor:
        """An array with a row a sample; tables of samples are laid end to end."""
        values = np.asarray(self.arrays[name][...])
        lead = tuple(n for n, axis in zip(self.sizes, self.words.layout, strict=True) if axis == "n")
        if values.dtype.kind not in "buif" or values.ndim < len(lead) or values.shape[: len(lead)] != lead:
            raise ValueError(f"{self.path.name}: arrays expects {samples} rows of numbers in the parameter; got {_shown({name: values})}.")
        rows = values.reshape(samples, *values.shape[len(lead) :])
        return torch.from_numpy(rows.astype(rows.dtype.newbyteorder("=") if rows.dtype.kind == "f" else np.int64))
