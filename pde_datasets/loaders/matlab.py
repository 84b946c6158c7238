"""Space-time fields in MATLAB files: coordinates `x`, times `t` or `tt`, one field `usol`, `uu` or `u`, as Raissi and pysindy write.

Space comes first in the file, physical time first in `Fields`. Without times, vectors `x`, `y` (`z`) of one length are points in space, and
all other vectors of that length values there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from constraints import Axis, Grid
from pde_datasets.fields import Fields
from pde_datasets.loaders.files import shapes_of
from pde_datasets.loaders.mat import is_mat, read_mat
from pde_datasets.loaders.points import layout
from pde_datasets.loaders.seam import space_axis

_FIELD = ("usol", "uu", "u")
_TIME = ("t", "tt")
_REAL = 1e-5
"""Imaginary part, over the largest value, that inverse FFTs leave in a real solution; the pysindy files have up to 4e-6."""


def recognises(path: Path) -> bool:
    """Whether a file begins with the header of MATLAB 5.0 or 7.3; what is in it, `load` says."""
    return is_mat(path)


def load(path: Path) -> Fields:
    """The space-time field of a file, or the values at scattered points, as one sample.

    A complex array with an imaginary part below 1e-5 of its largest value is real; any other becomes the channels `u_real`, `u_imag`.
    Whether x is periodic is decided by `seam.space_axis` and written to the notes.

    Returns:
        `u` (1, C, T, X) on (time, x), float type of the file, float64 for integers; or (1, C, P) at points of a `Mesh`.

    Raises:
        ValueError: a truncated file, missing or ill-shaped arrays, or coordinates that do not increase.
    """
    arrays = read_mat(path)
    if not any(name in arrays for name in _TIME) and {"x", "y"} <= set(arrays):
        return _scattered(path, arrays)
    x, time, u = _space_time(path, arrays)
    seam = space_axis("x", x, u)
    u = u[:, : seam.points]
    notes = [f"x is {seam.reason}."]
    channels: tuple[str, ...] = ("u",)
    about: dict[str, object] = {}
    if seam.points < len(x):
        about["points_x"] = "the end point stored twice was dropped"
    parts = [u]
    if np.iscomplexobj(u):
        imaginary, scale = float(np.abs(u.imag).max()), float(np.abs(u).max())
        if imaginary <= _REAL * scale or scale == 0.0:
            parts = [u.real]
            if imaginary:
                about |= {"precision": imaginary / scale, "precision_reason": "the share of the imaginary part of a real solution"}
            notes.append(f"Stored as complex; an imaginary part of at most {imaginary:.1e} was dropped.")
        else:
            channels, parts = ("u_real", "u_imag"), [u.real, u.imag]
            notes.append("Complex field, stored here as real and imaginary part.")
    return Fields(
        u=torch.from_numpy(np.ascontiguousarray(np.stack(parts)[None])),
        grid=Grid(Axis.at("time", time.tolist()), seam.axis),
        channels=channels,
        attributes={"format": "matlab", "path": path.name, "notes": " ".join(notes), **about},
    )


def _space_time(path: Path, arrays: dict[str, NDArray[Any]]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Coordinates (X,), times (T,) and the field (T, X)."""
    field = next((name for name in _FIELD if name in arrays), None)
    when = next((name for name in _TIME if name in arrays), None)
    got = shapes_of(arrays, "no numeric array")
    if field is None or when is None or "x" not in arrays:
        raise ValueError(f"{path.name}: matlab expects x, {'|'.join(_TIME)} and {'|'.join(_FIELD)}; got {got}. Rename the arrays.")
    u, axes = arrays[field], []
    for name in ("x", when):
        values = np.asarray(arrays[name], dtype=np.float64)
        if values.size == 0 or values.size != max(values.shape, default=0):
            raise ValueError(
                f"{path.name}: matlab expects a vector of coordinates {name}; got shape {values.shape}. Pass one row of the mesh."
            )
        if not np.isfinite(values).all():
            raise ValueError(
                f"{path.name}: matlab expects finite coordinates {name}; got {int((~np.isfinite(values)).sum())} that are not."
            )
        axes.append(values.ravel())
    x, time = axes
    for name, values in (("x", x), (when, time)):
        if not (np.diff(values) > 0).all():
            raise ValueError(f"{path.name}: matlab expects increasing coordinates {name}; these are not. Sort them with the field first.")
    if u.shape == (len(x), len(time)):
        u = u.T
    elif u.shape != (len(time), len(x)):
        raise ValueError(f"{path.name}: matlab expects {field} of shape (nx, nt) = ({len(x)}, {len(time)}); got {u.shape}.")
    if u.dtype.kind in "bui":
        u = u.astype(np.float64)
    return x, time, u.astype(u.dtype.newbyteorder("="))


def _scattered(path: Path, arrays: dict[str, NDArray[Any]]) -> Fields:
    """Vectors of the length of `x` and `y`, at those points."""
    count = arrays["x"].size
    space = [name for name in ("x", "y", "z") if name in arrays and arrays[name].size == count == max(arrays[name].shape)]
    channels = tuple(n for n, v in arrays.items() if n not in space and v.size == count == max(v.shape) and v.dtype.kind in "buif")
    if not {"x", "y"} <= set(space) or not channels or count < 2:
        raise ValueError(
            f"{path.name}: matlab expects x, y and values at these points, vectors of one length; got {shapes_of(arrays)}. "
            "Rename the arrays."
        )
    try:
        place = layout(space, np.stack([arrays[name].ravel().astype(np.float64) for name in space], axis=1))
    except ValueError as error:
        raise ValueError(f"{path.name}: matlab {error}") from error
    values = [arrays[name].ravel() for name in channels]
    notes = [place.reason]
    for name, column in zip(channels, values, strict=True):
        low, high = int((column == column.min()).sum()), int((column == column.max()).sum())
        if min(low, high) > 1 and column.min() == -column.max() < 0:
            notes.append(
                f"'{name}' was clipped to [{column.min():g}, {column.max():g}] where it was stored: {low} and {high} values stand there."
            )
    repeated = count - len(np.unique(np.stack([arrays[name].ravel() for name in space], axis=1), axis=0))
    notes += [f"{repeated} points are stored more than once, as elements that share them do."] if repeated else []
    u = place.place(np.stack(values).astype(np.result_type(np.float32, *values)))
    return Fields(
        u=torch.from_numpy(np.ascontiguousarray(u))[None],
        grid=place.grid,
        channels=channels,
        attributes={"format": "matlab", "path": path.name, "notes": " ".join(notes)}
        | {name: value.item() for name, value in arrays.items() if value.size == 1 and value.dtype.kind in "buif"},
        mesh=place.mesh,
    )
