"""Small arrays of HDF5 files, and axes from the coordinates that files store, checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from constraints import Axis
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


def shape_of(file: Any, name: str) -> tuple[int, ...]:
    """The shape of a dataset of an HDF5 file or group; empty if there is none."""
    entry = file.get(name)
    return tuple(int(n) for n in entry.shape) if isinstance(entry, h5py.Dataset) and entry.shape is not None else ()


def shaped(path: Path, speaker: str, file: Any, name: str, axes: int) -> tuple[int, ...]:
    """As `shape_of`, with a number of axes that is known.

    Raises:
        ValueError: none, another number of axes, or one without a place on it.
    """
    shape = shape_of(file, name)
    if len(shape) != axes or 0 in shape:
        raise ValueError(f"{path.name}: {speaker} expects {name} with {axes} axes and at least one sample; got shape {shape}.")
    return shape


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


def stored_axis(path: Path, file: Any, key: str, name: str, points: int | None = None, *, periodic: bool = False) -> Axis:
    """The axis through the coordinates in a dataset of an HDF5 file or group; as `coordinates`, with the same errors."""
    return Axis.at(name, coordinates(path, key, stored(path, file, key), points).tolist(), periodic=periodic)


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


def shared_times(path: Path, table: Any) -> tuple[Axis, dict[str, Tensor], list[str]]:
    """The time axis of samples with a row of times each: that row where they have it in common, a count of frames where they differ.

    Returns:
        The axis; the times as a parameter `time` of the samples where the axis does not have them; and notes.
    """
    row = shared(path, "time", table)
    if row is not None:
        return Axis.at("time", coordinates(path, "time", row).tolist()), {}, []
    note = "Times differ between samples: the axis counts frames, and parameter time has them."
    return counted("time", table.shape[1]), {"time": torch.as_tensor(np.asarray(table, dtype=np.float64))}, [note]


def cells(name: str, x: NDArray[np.float64], unit: str = "1") -> Axis:
    """The bounded axis whose points are centres of equal cells; of given coordinates where they are not equally spaced, or alone."""
    axis = Axis.at(name, x.tolist(), unit=unit)
    if len(x) < 2 or not axis.uniform:
        return axis
    return Axis(name, len(x), length=axis.spacing * len(x), origin=float(x[0]), cells=True, unit=unit)


def stepped(name: str, points: int, step: float, unit: str = "1") -> Axis:
    """An axis of equal steps from 0."""
    return Axis(name, points, length=step * max(points - 1, 1), unit=unit)


def counted(name: str, points: int) -> Axis:
    """An axis that numbers its points from 0, where a file says no more."""
    return stepped(name, points, 1.0)


def filled(name: str, points: int, length: float = 1.0, start: float = 0.0, unit: str = "1") -> Axis:
    """Centres of equal cells that fill an interval, by default the unit interval."""
    return Axis(name, points, length=length, origin=start + length / points / 2, cells=True, unit=unit)
