"""Small arrays of HDF5 files, and axes from the coordinates that files store, checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from constraints.grid import Axis
from pde_datasets.loaders.limits import check_shape


def stored(path: Path, file: Any, name: str) -> NDArray[Any] | None:
    """The numbers of a dataset that is not large, read from an HDF5 file or group; None if there are none.

    Raises:
        ValueError: more of them than this machine can hold.
    """
    entry = file.get(name)
    if not isinstance(entry, h5py.Dataset) or entry.shape is None or entry.dtype.kind not in "buif":
        return None
    check_shape(f"{path.name}: {name}", entry.shape, entry.dtype.itemsize)
    return np.asarray(entry[()])


def needed(path: Path, file: Any, name: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """As `stored`, float64, of a shape that is known.

    Raises:
        ValueError: none, or of another shape.
    """
    values = stored(path, file, name)
    if values is None or values.shape != shape:
        got = "none" if values is None else f"shape {values.shape}"
        raise ValueError(f"{path.name}: expects numbers {name} of shape {shape}; got {got}.")
    return values.astype(np.float64)


def coordinates(path: Path, name: str, values: Any, count: int | None = None) -> NDArray[np.float64]:
    """Increasing coordinates, (n,), float64.

    Arguments:
        path: the file.
        name: what it calls them.
        values: what it holds there, or None.
        count: how many there must be; any number by default.

    Raises:
        ValueError: none, no vector of numbers, another number of them, or values that are not finite or do not increase.
    """
    array = np.asarray(values if values is not None else [])
    if array.dtype.kind not in "buif" or array.size == 0 or array.size != max(array.shape, default=0):
        raise ValueError(f"{path.name}: expects a vector of coordinates {name}; got shape {array.shape} of {array.dtype}.")
    x = array.astype(np.float64).ravel()
    if count is not None and len(x) != count:
        raise ValueError(f"{path.name}: expects {count} coordinates {name}, as the fields have points; got {len(x)}.")
    if not np.isfinite(x).all() or not (np.diff(x) > 0).all():
        raise ValueError(f"{path.name}: expects finite, increasing coordinates {name}; these are not. The file is damaged.")
    return x


def shared(path: Path, name: str, values: Any) -> NDArray[Any] | None:
    """The row that all samples have in common, from a table (N, n) of a row each; None where they differ.

    Raises:
        ValueError: no table of numbers.
    """
    table = np.asarray(values if values is not None else [])
    if table.dtype.kind not in "buif" or table.ndim != 2 or table.size == 0:
        raise ValueError(f"{path.name}: expects a row of {name} for each sample; got shape {table.shape} of {table.dtype}.")
    spread = np.abs(table - table[:1]).max()
    return table[0] if spread <= 1e-6 * np.abs(table).max() else None


def cells(name: str, x: NDArray[np.float64], unit: str = "1") -> Axis:
    """The bounded axis whose points are centres of equal cells; of given coordinates where they are not equally spaced, or alone."""
    axis = Axis.at(name, x.tolist(), unit=unit)
    if len(x) < 2 or not axis.uniform:
        return axis
    return Axis(name, len(x), length=axis.spacing * len(x), origin=float(x[0]), cells=True, unit=unit)


def counted(name: str, points: int) -> Axis:
    """An axis that numbers its points from 0, where a file says no more."""
    return Axis(name, points, length=float(max(points - 1, 1)))


def unit_cells(name: str, points: int) -> Axis:
    """Centres of equal cells that fill the unit interval."""
    return Axis(name, points, length=1.0, origin=0.5 / points, cells=True)
