"""Variables on named dimensions, after the CF conventions, as fields.

* A dimension is of samples by its name (`sample`, `member`, `b`, ..) or the standard name `realization` of its coordinate; it is time by
  its name, or by units "... since ..."; all others are axes in space, in the order of the file (`cf_axes`), but for those of one point.
* Channels are the variables on the largest set of dimensions; variables on some of these, all in space among them, are channels that are
  the same along the others. Variables on samples alone are parameters.
* Packed numbers are unpacked; missing ones raise, since fields have a value everywhere (`views`).

Source:
    CF metadata conventions 1.11.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import numpy as np
import torch

from constraints import Grid
from pde_datasets.fields import Fields
from pde_datasets.loaders import jax_cfd
from pde_datasets.loaders.cf_axes import line
from pde_datasets.loaders.cf_data import EXPORT, Dataset
from pde_datasets.loaders.files import shapes_of
from pde_datasets.loaders.parts import Arrays, Part, assembled
from pde_datasets.loaders.views import Reversed, Rolled, Unpacked

_HELPERS = ("bounds", "climatology", "grid_mapping", "coordinates", "ancillary_variables", "cell_measures", "formula_terms")
"""Attributes that name variables which are no fields."""

_COMPONENTS = {
    "x": r"u|vx|ux|uwnd|ua|uas|u10|u_?wind|x_velocity|velocity_?x|eastward_.*|x_wind|.*_x_velocity",
    "y": r"v|vy|uy|vwnd|va|vas|v10|v_?wind|y_velocity|velocity_?y|northward_.*|y_wind|.*_y_velocity",
    "z": r"w|vz|uz|wwnd|wa|z_velocity|velocity_?z|upward_.*|.*_z_velocity",
}
"""Names of the components of a velocity along each axis."""


class _Layout(NamedTuple):
    """What the dimensions of the fields are."""

    sample: str | None
    time: str | None
    space: tuple[str, ...]
    dropped: tuple[str, ...]
    sizes: dict[str, int]

    @property
    def grid(self) -> tuple[str, ...]:
        return (*(() if self.time is None else (self.time,)), *self.space)

    def places(self) -> dict[str, int]:
        """Which axis of (N, C, *N) a dimension is; those that are dropped go with the samples, of which they are a factor 1."""
        return {
            **dict.fromkeys(self.dropped, 0),
            **({} if self.sample is None else {self.sample: 0}),
            **{dim: 2 + i for i, dim in enumerate(self.grid)},
        }


def fields_of(data: Dataset) -> Fields:
    """The fields of a file.

    Raises:
        ValueError: no variable with an axis, coordinates that do not increase, or missing values.
    """
    helpers = _helpers(data)
    layout = _layout(data, helpers)
    channels = _channels(data, helpers, layout)
    period = jax_cfd.period(data, layout.space)
    faces = jax_cfd.upper_faces(data, channels, layout.space) if period else {}
    lines = {dim: line(data, dim, layout.sizes[dim], period=period, faces=bool(faces)) for dim in layout.grid}
    parameters, unread = _parameters(data, helpers, layout, channels)
    about = _attributes(data, layout)
    laws = str(about.pop("laws", "")).split() if data.own else []
    roles = _roles(data, channels, layout, about)
    if faces and set(roles.get("velocity", ())) == set(faces):
        laws.append("divergence-free:scheme=staggered")
    notes = [
        str(about.get("notes", "")),
        "Our own export." if data.own else "",
        *(found.note for found in lines.values()),
        f"Dropped, as it has one point: {', '.join(layout.dropped)}." if layout.dropped else "",
        jax_cfd.note(data, faces),
        f"Not read, as they lie on other dimensions or hold no numbers: {', '.join(unread)}." if unread else "",
        "On a sphere, in degrees: sums and derivatives along the axes are not those of the sphere." if _on_sphere(data, layout) else "",
    ]
    samples = 1 if layout.sample is None else layout.sizes[layout.sample]
    turned = [dim for dim, found in lines.items() if found.reversed]
    places = layout.places()
    return Fields(
        u=assembled(
            data.path,
            [Part((name,), tuple(places[dim] for dim in data.variables[name].dims)) for name in channels],
            (samples, len(channels), *(layout.sizes[dim] for dim in layout.grid)),
            arrays=_views(data, turned, faces),
        ),
        grid=Grid(*(found.axis for found in lines.values())),
        channels=tuple(_label(data, name) for name in channels),
        units=tuple(data.variables[name].text("units") or "1" for name in channels),
        parameters=parameters,
        roles=roles,
        laws=tuple(laws),
        attributes={**about, "format": "netcdf", "path": data.path.name, "notes": " ".join(filter(None, notes))},
    )


def _helpers(data: Dataset) -> set[str]:
    """Coordinates, their bounds, and other variables that only say something of fields."""
    named = {word.rstrip(":") for variable in data.variables.values() for key in _HELPERS for word in variable.text(key).split()}
    return named | {name for name, variable in data.variables.items() if variable.dims == (name,)}


def _layout(data: Dataset, helpers: set[str]) -> _Layout:
    """The dimensions of the numeric variable with the most of them, and the most points."""
    candidates = [v for name, v in data.variables.items() if name not in helpers and v.numeric and v.dims]
    best = max(candidates, key=lambda v: (len(v.dims), math.prod(v.shape)), default=None)
    if best is None:
        got = shapes_of(data.variables, "none")
        raise ValueError(f"{data.path.name}: netcdf expects a variable of numbers on some dimensions; got {got}.")
    if len(set(best.dims)) != len(best.dims):
        raise ValueError(f"{data.path.name}: netcdf expects different dimensions of a variable; got {', '.join(best.dims)}.")
    sizes = dict(zip(best.dims, best.shape, strict=True))
    if 0 in best.shape:
        raise ValueError(f"{data.path.name}: netcdf expects at least one sample and point; got {sizes}.")
    sample, time = (next((dim for dim in best.dims if data.kind(dim) == kind), None) for kind in ("sample", "time"))
    rest = [dim for dim in best.dims if dim not in (sample, time)]
    space = tuple(dim for dim in rest if sizes[dim] > 1) or tuple(rest[:1] if time is None else ())
    if not space and time is None:
        raise ValueError(f"{data.path.name}: netcdf expects variables with a time or an axis in space; got {', '.join(best.dims)} alone.")
    return _Layout(sample, time, space, tuple(dim for dim in rest if dim not in space), sizes)


def _channels(data: Dataset, helpers: set[str], layout: _Layout) -> tuple[str, ...]:
    """Variables on the dimensions of the fields, or on some of them with all axes in space."""
    needed = set(layout.space or layout.grid)
    return tuple(
        name
        for name, variable in data.variables.items()
        if name not in helpers and variable.numeric and needed <= set(variable.dims) <= set(layout.sizes)
    )


def _label(data: Dataset, name: str) -> str:
    """What a variable is called: its name, or that before our export made it one that netCDF allows."""
    return (data.variables[name].text("long_name") if data.own else "") or name


def _on_sphere(data: Dataset, layout: _Layout) -> bool:
    return any(data.kind(dim) in ("latitude", "longitude") for dim in layout.space)


def _views(data: Dataset, turned: Sequence[str], faces: Mapping[str, str]) -> Arrays:
    """Opens the variables as fields need them."""

    @contextmanager
    def arrays() -> Iterator[Mapping[str, Any]]:
        with data.arrays() as file:
            views: dict[str, Any] = {}
            for name, variable in data.variables.items():
                if variable.numeric and name in file:
                    view: Any = Rolled(file[name], variable.dims.index(faces[name]), 1) if name in faces else file[name]
                    axes = [i for i, dim in enumerate(variable.dims) if dim in turned]
                    views[name] = Unpacked(Reversed(view, axes), variable.attributes, f"{data.path.name}: {name}")
            yield views

    return arrays


def _parameters(data: Dataset, helpers: set[str], layout: _Layout, channels: Sequence[str]) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Variables with a row a sample, and the names of what is left over."""
    parameters, unread = {}, []
    for name, variable in data.variables.items():
        if name in channels or name in helpers:
            continue
        if not variable.numeric or variable.dims[:1] != (layout.sample,) or set(variable.dims[1:]) & set(layout.sizes):
            unread.append(name)
            continue
        values = data.values(name)
        kind = values.dtype.newbyteorder("=") if values.dtype.kind == "f" else np.dtype(np.int64)
        parameters[_label(data, name)] = torch.from_numpy(np.ascontiguousarray(values.astype(kind)))
    return parameters, unread


def _roles(data: Dataset, channels: Sequence[str], layout: _Layout, about: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    """Roles that our export wrote, or a velocity with a component along each axis, in the order of the grid."""
    stored = about.pop("roles", None) if data.own else None
    if isinstance(stored, dict):
        return {str(role): tuple(map(str, names)) for role, names in stored.items() if isinstance(names, list)}
    directions = {"longitude": "x", "latitude": "y"}
    along = [directions.get(data.kind(dim), dim.lower() if dim.lower() in _COMPONENTS else "z") for dim in layout.space]
    velocity = []
    for axis in along:
        standard = [name for name in channels if re.fullmatch(_COMPONENTS[axis], data.variables[name].text("standard_name"))]
        found = standard or [name for name in channels if re.fullmatch(_COMPONENTS[axis], name, re.IGNORECASE)]
        if len(found) != 1:
            return {}
        velocity.append(found[0])
    return {"velocity": tuple(velocity)} if len(set(velocity)) == len(layout.space) > 1 else {}


def _attributes(data: Dataset, layout: _Layout) -> dict[str, Any]:
    """Attributes of the file as plain values; our export writes lists and dictionaries as JSON."""
    found: dict[str, Any] = {}
    for name, value in data.attributes.items():
        value = value.decode(errors="replace") if isinstance(value, bytes) else value
        value = value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value
        value = value[0] if isinstance(value, list) and len(value) == 1 else value
        if isinstance(value, str) and data.own and re.match(r"[\[{]|(true|false|null|-?\d+)$", value):
            with suppress(ValueError, RecursionError):
                value = json.loads(value)
        if isinstance(value, (bool, int, float, str, list, dict)):
            found[name] = value
    variable = None if layout.time is None else data.variables.get(layout.time)
    if variable is not None:
        told = {"time_reference": variable.text("units").partition(" since ")[2], "calendar": variable.text("calendar")}
        found |= {name: value for name, value in told.items() if value}
    if jax_cfd.is_jax_cfd(data):
        found.setdefault("source", "jax-cfd; Kochkov et al. 2021")
    if data.own:
        found = {name: value for name, value in found.items() if name not in (EXPORT, "Conventions")}
        if found.get("format", "netcdf") != "netcdf":
            found.setdefault("origin", f"{found['format']}: {found.get('path', 'unknown')}")
    return found
