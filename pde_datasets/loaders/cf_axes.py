"""The axis of a dimension, from its coordinate variable.

* Coordinates that decrease, as latitudes often do, are turned round; times are not. Longitudes are carried on past a jump of 360 degrees
  and are periodic where they go all the way round.
* Attributes `periodic`, `cells`, `uneven`, `length` of a coordinate, which our own export writes, say what the axis is as long as its
  points agree with them: a part of it is bounded.
* `bounds` halfway between equally spaced points make them centres of cells.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from constraints import Axis
from pde_datasets.loaders.cf_data import Dataset, Variable
from pde_datasets.loaders.coordinates import coordinates, counted

_SAME = 1e-4
"""Deviation, over the spacing, of points that files in single precision hold from those that they mean."""


class Line(NamedTuple):
    """An axis, whether its points are stored the other way round, and what was decided."""

    axis: Axis
    reversed: bool = False
    note: str = ""


def line(data: Dataset, dim: str, points: int, *, period: float = 0.0, faces: bool = False) -> Line:
    """The axis of a dimension.

    Arguments:
        data: the file.
        dim: the dimension.
        points: its length.
        period: of axes in space, where the file states one; 0 where it does not.
        faces: whether the points are stored at centres of cells, and the axis is that of their lower faces.

    Raises:
        ValueError: coordinates that are missing, not finite or do not increase or decrease.
    """
    kind, variable = data.kind(dim), data.coordinate(dim)
    name = "time" if kind == "time" else (variable.text("long_name") if variable is not None and data.own else "") or dim
    if variable is None:
        return Line(counted(name, points), note=f"No coordinates are stored for {dim}: the axis counts its points.")
    x = np.asarray(data.values(dim), dtype=np.float64)
    if kind == "longitude" and len(x) > 2 and (np.diff(x) < 0).sum() == 1:
        x = np.unwrap(x, period=360.0)
    turned = kind != "time" and len(x) > 1 and bool((np.diff(x) < 0).all())
    x = coordinates(data.path, dim, x[::-1] if turned else x)
    unit = variable.text("units").partition(" since ")[0] or "1"
    axis = _stated(name, x, variable, unit) if data.own else None
    if axis is None:
        axis = _found(data, name, dim, x, unit, period, faces, turned)
    notes = [f"{dim} decreases in the file; it was turned round with the fields."] if turned else []
    if data.own and "length" in variable.attributes and axis.extent != _number(variable, "length"):
        notes.append(f"{dim}: its points are no longer those that its attributes were written for; a bounded axis.")
    return Line(axis, turned, " ".join(notes))


def _found(data: Dataset, name: str, dim: str, x: NDArray[np.float64], unit: str, period: float, faces: bool, turned: bool) -> Axis:
    """The axis that the points and what the file says of them make."""
    n, kind = len(x), data.kind(dim)
    spacing = float(x[-1] - x[0]) / max(n - 1, 1)
    if kind == "space" and period:
        return Axis(name, n, length=period, origin=float(x[0]) - (spacing / 2 if faces else 0.0), periodic=True, unit=unit)
    if kind == "longitude" and n > 1 and abs(spacing * n - 360.0) <= _SAME * 360.0:
        return Axis.at(name, x.tolist(), periodic=True, length=360.0, unit=unit)
    if n > 1 and _are_cells(data, dim, x, spacing, turned):
        return Axis(name, n, length=spacing * n, origin=float(x[0]), cells=True, unit=unit)
    return Axis.at(name, x.tolist(), unit=unit)


def _are_cells(data: Dataset, dim: str, x: NDArray[np.float64], spacing: float, turned: bool) -> bool:
    """Whether bounds make the points centres of equal cells."""
    bounds = data.variables.get(data.variables[dim].text("bounds"))
    if bounds is None or bounds.shape != (len(x), 2) or not bounds.numeric:
        return False
    edges = np.sort(np.asarray(data.values(data.variables[dim].text("bounds")), dtype=np.float64)[:: -1 if turned else 1], axis=1)
    return bool(np.abs(edges - np.stack([x - spacing / 2, x + spacing / 2], axis=1)).max() <= _SAME * spacing)


def _number(variable: Variable, name: str) -> float:
    values = np.asarray(variable.attributes.get(name, 0)).ravel()
    return float(values[0]) if values.size == 1 and values.dtype.kind in "buif" else 0.0


def _stated(name: str, x: NDArray[np.float64], variable: Variable, unit: str) -> Axis | None:
    """The axis that our export wrote; None where points were taken out of it since."""
    length = _number(variable, "length")
    periodic, cells, uneven = (bool(_number(variable, key)) for key in ("periodic", "cells", "uneven"))
    n, origin, span = len(x), float(x[0]), float(x[-1] - x[0])
    if uneven:
        fits = length > span if periodic else length == span
        return Axis(name, n, length=length, coordinates=tuple(x.tolist()), periodic=periodic, unit=unit) if fits else None
    spacing = length / (n if periodic or cells else max(n - 1, 1))
    if not (length > 0 and np.abs(x - (origin + spacing * np.arange(n))).max() <= _SAME * spacing):
        return None
    return Axis(name, n, length=length, origin=origin, periodic=periodic, cells=cells, unit=unit)
