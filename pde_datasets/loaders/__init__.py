"""Field files of other programs, opened by what is in them.

`open` reads the first bytes and the names inside a file, never its suffix alone, and hands it to the format that knows them. A format
is one line of `FORMATS`; its module is imported when a file is opened, so that listing the formats costs nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from pde_datasets.lazy import Lazy
from pde_datasets.loaders.glance import check_safe, check_there, describe

if TYPE_CHECKING:
    from pde_datasets.fields import Fields

__all__ = ["FORMATS", "Format", "open"]

_BLOCK = 1 << 22
"""Values looked at in one go by the search for NaN: 32 MiB of float64, so that a mapped file larger than memory can be checked."""

_EAGER = 1 << 28
"""Bytes up to which fields are read at once."""


@dataclass(frozen=True)
class Format:
    """A file format that can be read.

    Attributes:
        name: what `open(path, format=...)` calls it.
        description: what such a file holds.
        source: who writes such files.
        recognises: whether a file is of this format, from its content; raises a `ValueError` if it is damaged.
        load: the fields of a file that is.
    """

    name: str
    description: str
    source: str
    recognises: Callable[[Path], bool]
    load: Callable[[Path], Fields]


def _format(name: str, module: str, description: str, source: str) -> Format:
    """A format whose module, with `recognises` and `load`, is imported at the first file."""

    def recognises(path: Path) -> bool:
        return bool(import_module(f"{__name__}.{module}").recognises(path))

    def load(path: Path) -> Fields:
        fields: Fields = import_module(f"{__name__}.{module}").load(path)
        return fields

    return Format(name, description, source, recognises, load)


FORMATS: dict[str, Format] = {
    entry.name: entry
    for entry in (
        _format("pcfm", "own", "HDF5 with root attribute format = pcfm-fields: fields, grid, parameters, laws", "this project"),
        _format(
            "neuraloperator",
            "neuraloperator",
            ".pt dictionary of tensors x, y: Burgers or Darcy",
            "github.com/neuraloperator/neuraloperator",
        ),
        _format(
            "matlab",
            "matlab",
            ".mat (5.0 or 7.3) with coordinates x, times t|tt and a field usol|uu|u",
            "github.com/maziarraissi/PINNs, github.com/dynamicslab/pysindy",
        ),
        _format("pyro2", "pyro2", "HDF5 output of pyro2: groups grid and state/<field>/data", "github.com/python-hydro/pyro2"),
    )
}


def open(path: str | os.PathLike[str], format: str | None = None) -> Fields:
    """Open a file or folder of fields, in our own layout or a foreign one.

    Arguments:
        path: the file, or the folder of a format that is one.
        format: a name in `FORMATS`; by default whichever recognises the content, the more particular ones asked first.

    Returns:
        The fields, (N, C, *N), in the float type they are stored in, with at least `format`, `path` (the file's name) and `notes` (what
        the reader decided or knows to be inexact) among their attributes. Fields of more than a quarter of a GiB stay in their file
        until they are indexed (`Fields.u` is `Lazy`, or a tensor mapped from the file).

    Raises:
        ValueError: the file is missing, a folder that is no known format, empty, truncated or of no known format, the format's name is
            unknown or not what the file is, a library that reads it is missing, or values are NaN or infinite.
    """
    path = Path(path)
    if format is not None and format not in FORMATS:
        near = get_close_matches(format, FORMATS, n=1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        raise ValueError(f"open expects one of the formats {', '.join(FORMATS)}; got '{format}'.{hint}")
    check_there(path)
    check_safe(path)
    found = [entry for entry in FORMATS.values() if format in (None, entry.name) and entry.recognises(path)]
    if not found:
        wanted = f"one of the formats {', '.join(FORMATS)}" if format is None else f"{format}: {FORMATS[format].description}"
        way_out = "Convert it to one of these; FORMATS describes them." if format is None else "Leave `format` out to have it detected."
        raise ValueError(f"{path.name}: open expects {wanted}; got {describe(path)}. {way_out}")
    fields = found[0].load(path)
    if not isinstance(fields.u, Lazy):
        _check_finite(fields, path)
        return fields
    _check_parameters(fields, path)
    return replace(fields, u=fields.u.load()) if fields.u.numel() * fields.u.dtype.itemsize <= _EAGER else fields


def _check_finite(fields: Fields, path: Path) -> None:
    """Raise a `ValueError` that names the channels with NaN or infinite values."""
    assert isinstance(fields.u, Tensor)
    step = max(1, _BLOCK // max(1, fields.u[:1].numel()))
    nan, inf = [0] * len(fields.channels), [0] * len(fields.channels)
    for start in range(0, len(fields), step):
        block = fields.u[start : start + step]
        for i in range(len(fields.channels)):
            some_nan, some_inf = _not_finite(block[:, i])
            nan[i], inf[i] = nan[i] + some_nan, inf[i] + some_inf
    size = fields.u[:, :1].numel()
    bad = [
        f"channel '{name}' has {_count(nan[i], inf[i])} among its {size} values"
        for i, name in enumerate(fields.channels)
        if nan[i] or inf[i]
    ]
    _refuse(path, bad)
    _check_parameters(fields, path)


def _check_parameters(fields: Fields, path: Path) -> None:
    """Raise a `ValueError` that names the parameters with NaN or infinite values."""
    counts = {name: _not_finite(values) for name, values in fields.parameters.items()}
    _refuse(
        path, [f"parameter '{n}' has {_count(*c)} among its {fields.parameters[n].numel()} values" for n, c in counts.items() if any(c)]
    )


def _refuse(path: Path, bad: list[str]) -> None:
    if bad:
        raise ValueError(f"{path.name}: open expects finite values; {'; '.join(bad)}. Repair or drop them before opening the file.")


def _not_finite(values: Any) -> tuple[int, int]:
    """How many values are NaN and how many are infinite."""
    if values.isfinite().all():
        return 0, 0
    return int(values.isnan().sum()), int(values.isinf().sum())


def _count(nan: int, inf: int) -> str:
    return " and ".join(f"{count} {what}" for count, what in ((nan, "NaN"), (inf, "infinite")) if count)
