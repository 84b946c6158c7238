r"""Variables on named dimensions, after the CF conventions, as fields: which dimension is a sample, a time, a place, and what its points are.

* A dimension is of samples by its name (`sample`, `member`, `b`, ..) or its coordinate's standard name `realization`; it is time by its name, or
  by a coordinate whose units are "... since ..."; all others are axes in space, in the order of the file. Those of length 1 that are not the
  only ones are dropped.
* Channels are the variables on the largest set of dimensions; variables on some of these, all in space among them, are channels that are the
  same along the others. Variables on samples alone are parameters.
* Coordinates that decrease, as latitudes often do, are turned round with the fields. Longitudes that go all the way round are periodic.
  Attributes `periodic`, `length`, `cells` of a coordinate, which our own export writes, are taken where the points agree with them;
  `bounds` halfway between the points make cells of an axis.
* Packed numbers are unpacked; missing ones raise, since fields have a value everywhere.

Source:
    CF metadata conventions 1.11.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from constraints.grid import Axis, Grid
from pde_datasets.fields import Fields
from pde_datasets.loaders.coordinates import coordinates
from pde_datasets.loaders.limits import check_shape
from pde_datasets.loaders.parts import Arrays, Part, assembled
from pde_datasets.loaders.views import Reversed, Rolled, Unpacked

_SAMPLES = (
    "sample", "samples", "realization", "ensemble", "ensemble_member", "member", "number", "batch", "b", "n", "trajectory", "case", "run", "seed",
)  # fmt: skip
_TIMES = ("time", "t", "times", "valid_time", "step")
_LATITUDE = ("latitude", "lat", "grid_latitude")
_LONGITUDE = ("longitude", "lon", "grid_longitude")
_HELPERS = ("bounds", "climatology", "grid_mapping", "coordinates", "ancillary_variables", "cell_measures", "formula_terms")
"""Attributes that name variables which are no fields."""

_COMPONENTS = (
    ("x", r"u|vx|ux|uwnd|ua|uas|u10|u_?wind|x_velocity|velocity_?x|eastward_.*|x_wind|.*_x_velocity"),
    ("y", r"v|vy|uy|vwnd|va|vas|v10|v_?wind|y_velocity|velocity_?y|northward_.*|y_wind|.*_y_velocity"),
    ("z", r"w|vz|uz|wwnd|wa|z_velocity|velocity_?z|upward_.*|.*_z_velocity"),
)
"""Names of the components of a velocity along each axis."""

_SAME = 1e-4
"""Deviation, over the spacing, of points that files in single precision hold from those that they mean."""


@dataclass(frozen=True)
class Variable:
    """A variable as a file describes it."""

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def text(self, name: str) -> str:
        """An attribute as text, empty where there is none."""
        value = self.attributes.get(name, "")
        return value.decode(errors="replace") if isinstance(value, bytes) else str(value)

    @property
    def numeric(self) -> bool:
        return self.dtype.kind in "buif"


@dataclass(frozen=True)
class Dataset:
    """The variables and attributes of a file, and how its arrays are opened."""

    path: Path
    variables: Mapping[str, Variable]
    attributes: Mapping[str, Any]
    arrays: Arrays

    def values(self, name: str) -> NDArray[Any]:
        """All numbers of a small variable, unpacked.

        Raises:
            ValueError: missing ones, or more than the machine can hold.
        """
        variable = self.variables[name]
        check_shape(f"{self.path.name}: {name}", variable.shape, variable.dtype.itemsize)
        with self.arrays() as file:
            whole = tuple(slice(0, n, 1) for n in variable.shape)
            return Unpacked(file[name], variable.attributes, f"{self.path.name}: {name}")[whole]

    def kind(self, dim: str) -> str:
        """What a dimension is: "sample", "time", "latitude", "longitude" or "space"."""
        variable = self.variables.get(dim)
        told = {key: variable.text(key) for key in ("standard_name", "axis", "units")} if variable is not None else {}
        standard, axis, units = (told.get(key, "") for key in ("standard_name", "axis", "units"))
        low = dim.lower()
        if low in _SAMPLES or standard == "realization":
            return "sample"
        if standard == "time" or axis == "T" or " since " in units or low in _TIMES:
            return "time"
        if standard in _LATITUDE or low in _LATITUDE or re.fullmatch(r"degrees?_?(north|N)", units):
            return "latitude"
        if standard in _LONGITUDE or low in _LONGITUDE or re.fullmatch(r"degrees?_?(east|E)", units):
            return "longitude"
        return "space"


def fields_of(data: Dataset) -> Fields:
    """The fields of a file.

    Raises:
        ValueError: no variable with an axis, coordinates that do not increase, or missing values.
    """
    return _Reading(data).fields()


class _Reading:
    """One file on its way to fields."""

    def __init__(self, data: Dataset) -> None:
        self.data, self.path = data, data.path
        self.notes = ["Our own export."] if self._own() else []
        self.reversed: set[str] = set()
        self.rolled: dict[str, str] = {}
        self.dims = self._dims()
        self.sample = next((dim for dim in self.dims if data.kind(dim) == "sample"), None)
        self.time = next((dim for dim in self.dims if data.kind(dim) == "time"), None)
        self.space = tuple(dim for dim in self.dims if dim not in (self.sample, self.time))

    def fields(self) -> Fields:
        sizes = {dim: n for variable in self.data.variables.values() for dim, n in zip(variable.dims, variable.shape, strict=True)}
        kept = tuple(dim for dim in self.space if sizes[dim] > 1) or self.space[: self.time is None]
        dropped = [dim for dim in self.space if dim not in kept]
        if dropped:
            self.notes.append(f"Dropped, as it has one point: {', '.join(dropped)}.")
        channels = self._channels(kept)
        offsets = self._staggered(channels, kept)
        axes = [self._axis(dim, sizes[dim], staggered=bool(offsets)) for dim in (*([self.time] if self.time else []), *kept)]
        place = {dim: i for i, dim in enumerate(kept, 2 + (self.time is not None))} | dict.fromkeys(dropped, 0)
        place |= {dim: position for dim, position in ((self.sample, 0), (self.time, 2)) if dim is not None}
        samples = sizes[self.sample] if self.sample is not None else 1
        shape = (samples, len(channels), *(axis.points for axis in axes))
        about = self._attributes()
        roles = self._roles(channels, kept, about)
        labels = tuple(self._label(name) for name in channels)
        laws = str(about.pop("laws", "")).split() if self._own() else []
        if offsets and set(roles.get("velocity", ())) == set(offsets):
            laws.append("divergence-free:scheme=staggered")
        parameters, unread = self._parameters(channels)
        if unread:
            self.notes.append(f"Not read, as they lie on other dimensions or hold no numbers: {', '.join(unread)}.")
        if any(self.data.kind(dim) in ("latitude", "longitude") for dim in kept):
            self.notes.append("On a sphere, in degrees: sums and derivatives along the axes are not those of the sphere.")
        parts = [Part((name,), tuple(place[dim] for dim in self.data.variables[name].dims)) for name in channels]
        return Fields(
            u=assembled(self.path, parts, shape, arrays=self._views),
            grid=Grid(*axes),
            channels=labels,
            units=tuple(self.data.variables[name].text("units") or "1" for name in channels),
            parameters=parameters,
            roles=roles,
            laws=tuple(laws),
            attributes={
                **about,
                "format": "netcdf",
                "path": self.path.name,
                "notes": " ".join(filter(None, [about.get("notes", ""), *self.notes])),
            },
        )

    def _helpers(self) -> set[str]:
        """Coordinates, their bounds, and other variables that only say something of fields."""
        named = {word.rstrip(":") for variable in self.data.variables.values() for key in _HELPERS for word in variable.text(key).split()}
        return named | {name for name, variable in self.data.variables.items() if variable.dims == (name,)}

    def _dims(self) -> tuple[str, ...]:
        """Dimensions of the fields: those of the numeric variable with the most, the most points, the first in the file."""
        helpers = self._helpers()
        candidates = [v for name, v in self.data.variables.items() if name not in helpers and v.numeric and v.dims]
        best = max(candidates, key=lambda v: (len(v.dims), math.prod(v.shape)), default=None)
        if best is None:
            names = ", ".join(f"{name} {v.shape}" for name, v in self.data.variables.items()) or "none"
            raise ValueError(f"{self.path.name}: netcdf expects a variable of numbers on some dimensions; got {names}.")
        if len(set(best.dims)) != len(best.dims):
            raise ValueError(f"{self.path.name}: netcdf expects different dimensions of a variable; got {', '.join(best.dims)}.")
        if 0 in best.shape:
            raise ValueError(
                f"{self.path.name}: netcdf expects at least one sample and point; got {dict(zip(best.dims, best.shape, strict=True))}."
            )
        if all(self.data.kind(dim) == "sample" for dim in best.dims):
            raise ValueError(
                f"{self.path.name}: netcdf expects variables with a time or an axis in space; got {', '.join(best.dims)} alone."
            )
        return best.dims

    def _channels(self, kept: tuple[str, ...]) -> tuple[str, ...]:
        """Variables on the dimensions of the fields, or on some of them with all axes in space."""
        helpers, needed = self._helpers(), set(kept) or {self.time}
        return tuple(
            name
            for name, variable in self.data.variables.items()
            if name not in helpers and variable.numeric and needed <= set(variable.dims) <= set(self.dims)
        )

    def _label(self, name: str) -> str:
        """What a channel is called: the long name where our own export kept the channel's, else the variable's."""
        return self.data.variables[name].text("long_name") if self._own() else name

    def _own(self) -> bool:
        return "pcfm_export" in self.data.attributes

    @contextmanager
    def _views(self) -> Iterator[Mapping[str, Any]]:
        """The variables as fields need them."""
        with self.data.arrays() as file:
            views = {}
            for name, variable in self.data.variables.items():
                if not variable.numeric or name not in file:
                    continue
                view: Any = file[name]
                if name in self.rolled:
                    view = Rolled(view, variable.dims.index(self.rolled[name]), 1)
                turned = [i for i, dim in enumerate(variable.dims) if dim in self.reversed]
                view = Reversed(view, turned) if turned else view
                views[name] = Unpacked(view, variable.attributes, f"{self.path.name}: {name}")
            yield views

    # --- axes ------------------------------------------------------------------------------------------------------------------

    def _axis(self, dim: str, points: int, *, staggered: bool) -> Axis:
        """The axis of a dimension, from its coordinate variable."""
        kind = self.data.kind(dim)
        variable = self.data.variables.get(dim)
        name = "time" if kind == "time" else (variable.text("long_name") if variable is not None and self._own() else "") or dim
        if variable is None or variable.dims != (dim,) or not variable.numeric:
            self.notes.append(f"No coordinates are stored for {dim}: the axis counts its points.")
            return Axis(name, points, length=float(max(points - 1, 1)))
        x = self._points(dim, kind)
        unit = variable.text("units") or "1"
        if kind == "time" and " since " in unit:
            unit = unit.split(" since ")[0]
        if points == 1:
            return Axis(name, 1, origin=float(x[0]), unit=unit) if not self._own() else self._own_axis(name, x, variable, unit)
        if {"periodic", "length"} <= set(variable.attributes):
            return self._own_axis(name, x, variable, unit)
        spacing = float(x[-1] - x[0]) / (points - 1)
        period = self._period()
        if kind == "space" and period:
            start = float(x[0]) - (spacing / 2 if staggered else 0.0)
            return Axis(name, points, length=period, origin=start, periodic=True, unit=unit)
        if kind == "longitude" and abs(spacing * points - 360.0) <= _SAME * spacing * points:
            return Axis.at(name, x.tolist(), periodic=True, length=360.0, unit=unit)
        if self._are_cells(dim, x, spacing):
            return Axis(name, points, length=spacing * points, origin=float(x[0]), cells=True, unit=unit)
        return Axis.at(name, x.tolist(), unit=unit)

    def _points(self, dim: str, kind: str) -> NDArray[np.float64]:
        """Increasing coordinates; latitudes that decrease are turned round, longitudes carried on past a jump of 360 degrees."""
        x = np.asarray(self.data.values(dim), dtype=np.float64)
        if kind == "longitude" and len(x) > 2 and (np.diff(x) < 0).sum() == 1:
            x = np.unwrap(x, period=360.0)
        if kind != "time" and len(x) > 1 and (np.diff(x) < 0).all():
            self.reversed.add(dim)
            self.notes.append(f"{dim} decreases in the file; it was turned round with the fields.")
            x = x[::-1]
        return coordinates(self.path, dim, x)

    def _own_axis(self, name: str, x: NDArray[np.float64], variable: Variable, unit: str) -> Axis:
        """The axis that our export wrote, unless points were taken out of it since."""
        flags = {key: np.asarray(variable.attributes.get(key, 0)).ravel() for key in ("periodic", "cells", "uneven", "length")}
        periodic, cells, uneven = (bool(flags[key].size and flags[key][0]) for key in ("periodic", "cells", "uneven"))
        length, n = float(flags["length"][0]) if flags["length"].size else 0.0, len(x)
        origin = float(x[0])
        if uneven:
            return Axis(name, n, length=length if periodic else None, coordinates=tuple(x.tolist()), periodic=periodic, unit=unit)
        gaps = n if periodic or cells else max(n - 1, 1)
        whole = length > 0 and np.abs(x - (origin + length / gaps * np.arange(n))).max() <= _SAME * length / gaps
        if not whole:
            self.notes.append(f"{name}: its points are no longer those that its length was written for; a bounded axis.")
            return Axis.at(name, x.tolist(), unit=unit)
        return Axis(name, n, length=length, origin=origin, periodic=periodic, cells=cells and not periodic, unit=unit)

    def _are_cells(self, dim: str, x: NDArray[np.float64], spacing: float) -> bool:
        """Whether bounds make the points centres of equal cells."""
        bounds = self.data.variables[dim].text("bounds")
        if bounds not in self.data.variables or self.data.variables[bounds].shape != (len(x), 2) or not self.data.variables[bounds].numeric:
            return False
        edges = np.sort(np.asarray(self.data.values(bounds), dtype=np.float64)[:: -1 if dim in self.reversed else 1], axis=1)
        return bool(np.abs(edges - np.stack([x - spacing / 2, x + spacing / 2], axis=1)).max() <= _SAME * abs(spacing))

    # --- staggered velocities of jax-cfd --------------------------------------------------------------------------------------------

    def _period(self) -> float:
        """The period along each axis that jax-cfd states; 0 where a file states none."""
        for key, factor in (("domain_size", 1.0), ("domain_size_multiple", 2 * math.pi)):
            values = np.asarray(self.data.attributes.get(key, [])).ravel()
            if values.size and values.dtype.kind in "iuf" and (values == values[0]).all() and values[0] > 0:
                return float(values[0]) * factor
        return 0.0

    def _staggered(self, channels: tuple[str, ...], space: tuple[str, ...]) -> list[str]:
        """The components that jax-cfd keeps on the upper faces of cells, moved by one cell along their axis to the lower ones."""
        if not self._period() or not self._fills(space):
            return []
        found = []
        for name in channels:
            offset = np.asarray(self.data.variables[name].attributes.get("offset", [])).ravel()
            axes = [i for i, value in enumerate(offset.tolist()) if value == 1.0] if offset.dtype.kind in "iuf" else []
            if len(offset) == len(space) and len(axes) == 1 and offset.sum() == 1.0 + 0.5 * (len(space) - 1):
                self.rolled[name] = space[axes[0]]
                found.append(name)
        if found:
            self.notes.append(
                f"Staggered, by the attribute offset: {', '.join(found)} are stored at the upper faces of cells, {', '.join(space)} being those of "
                "the centres. They were moved by one place around the period, so that entry i is the lower face of cell i and the axes are the "
                "lower faces; other channels are at the centres, half a cell further on. The staggered divergence vanishes to single precision."
            )
        elif self._is_jax_cfd():
            self.notes.append(
                "jax-cfd staggers velocities, with one set of coordinates, those of the centres; this file has no offsets, and no law is stated."
            )
        return found

    def _fills(self, space: tuple[str, ...]) -> bool:
        """Whether the points along every axis, a spacing apart, fill the stated period."""
        for dim in space:
            variable = self.data.variables.get(dim)
            if variable is None or variable.dims != (dim,) or not variable.numeric or variable.shape[0] < 2:
                return False
            x = np.asarray(self.data.values(dim), dtype=np.float64)
            spacing = self._period() / len(x)
            if not np.isfinite(x).all() or np.abs(np.diff(x) - spacing).max() > _SAME * self._period():
                return False
        return True

    def _is_jax_cfd(self) -> bool:
        return "save_grid_size" in self.data.attributes

    # --- what else there is ------------------------------------------------------------------------------------------------------

    def _parameters(self, channels: tuple[str, ...]) -> tuple[dict[str, torch.Tensor], list[str]]:
        """Variables with a row a sample, and the names of what is left over."""
        helpers, parameters, unread = self._helpers(), {}, []
        for name, variable in self.data.variables.items():
            if name in channels or name in helpers:
                continue
            if variable.numeric and variable.dims and variable.dims[0] == self.sample and not set(variable.dims[1:]) & set(self.dims):
                values = self.data.values(name)
                values = values.astype(values.dtype.newbyteorder("=") if values.dtype.kind == "f" else np.int64)
                label = variable.text("long_name") if self._own() else name
                parameters[label or name] = torch.from_numpy(np.ascontiguousarray(values))
            else:
                unread.append(name)
        return parameters, unread

    def _roles(self, channels: tuple[str, ...], space: tuple[str, ...], about: dict[str, Any]) -> dict[str, tuple[str, ...]]:
        """Roles that our export wrote, or a velocity with a component along each axis, in the order of the grid."""
        stored = about.pop("roles", None)
        if self._own() and isinstance(stored, dict):
            return {str(role): tuple(map(str, names)) for role, names in stored.items() if isinstance(names, list)}
        directions = {"longitude": "x", "latitude": "y"}
        along = [directions.get(self.data.kind(dim), dim.lower()[:1] if dim.lower() in ("x", "y", "z") else "z") for dim in space]
        velocity = []
        for axis in along:
            pattern = dict(_COMPONENTS)[axis]
            standard = [name for name in channels if re.fullmatch(pattern, self.data.variables[name].text("standard_name"))]
            found = standard or [name for name in channels if re.fullmatch(pattern, name, re.IGNORECASE)]
            if len(found) != 1:
                return {}
            velocity.append(found[0])
        return {"velocity": tuple(velocity)} if len(set(velocity)) == len(space) > 1 else {}

    def _attributes(self) -> dict[str, Any]:
        """Attributes of the file as plain values; our export writes lists and dictionaries as JSON."""
        found: dict[str, Any] = {}
        for name, value in self.data.attributes.items():
            value = value.decode(errors="replace") if isinstance(value, bytes) else value
            value = value.item() if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.size == 1) else value
            if isinstance(value, np.ndarray):
                value = value.tolist()
            if isinstance(value, str) and self._own() and re.match(r"[\[{]|(true|false|null|-?\d+)$", value):
                try:
                    value = json.loads(value)
                except (ValueError, RecursionError):
                    pass
            if isinstance(value, (bool, int, float, str, list, dict)):
                found[name] = value
        if self.time is not None:
            variable = self.data.variables.get(self.time)
            reference = variable.text("units").partition(" since ")[2] if variable is not None else ""
            found |= {"time_reference": reference} if reference else {}
            calendar = variable.text("calendar") if variable is not None else ""
            found |= {"calendar": calendar} if calendar else {}
        if self._is_jax_cfd():
            found.setdefault("source", "jax-cfd; Kochkov et al. 2021")
        if self._own():
            found.pop("pcfm_export")
            found.pop("Conventions", None)
            if found.get("format", "netcdf") != "netcdf":
                found.setdefault("origin", f"{found['format']}: {found.get('path', 'unknown')}")
        return found
