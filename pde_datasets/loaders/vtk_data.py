"""What a file of VTK holds, and the fields that it is."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from constraints import Axis, Grid
from pde_datasets.fields import Fields
from pde_datasets.mesh import Mesh, on_mesh

PERIODIC = "periodic"
"""Array of the field data of an image, three numbers, that says along which axes the last point is followed by the first; our own."""
_VELOCITY = re.compile(r"U|velocity", re.IGNORECASE)


@dataclass
class Dataset:
    """What a file holds, in its own order.

    Attributes:
        points: coordinates, (P, 3), none where there are axes.
        axes: coordinates along x, y, z, of points; None for scattered points.
        periodic: for each axis, whether its last point is followed by the first.
        cells: kind and corners of each group of cells, the groups one after the other.
        order: the position in the file of each of these cells.
        point_data, cell_data: arrays (n, components) by name.
    """

    points: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 3)))
    axes: list[NDArray[np.float64]] | None = None
    periodic: tuple[bool, ...] = (False, False, False)
    cells: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    order: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    point_data: dict[str, NDArray[Any]] = field(default_factory=dict)
    cell_data: dict[str, NDArray[Any]] = field(default_factory=dict)


def fields_of(path: Path, data: Dataset) -> Fields:
    """What a dataset holds, as fields."""
    location = "point" if data.point_data else "cell"
    arrays = data.point_data or data.cell_data
    if not arrays:
        raise ValueError(f"{path.name}: vtk expects arrays at points or of cells; there are none.")
    channels, columns, vectors = [], [], {}
    for name, values in arrays.items():
        parts = values.shape[1]
        ends = [""] if parts == 1 else ["_x", "_y", "_z"] if parts == 3 else [f"_{i}" for i in range(parts)]
        channels += [f"{name}{end}" for end in ends]
        columns += list(values.T)
        if parts == 3:
            vectors[name] = tuple(f"{name}{end}" for end in ends)
    u = np.stack(columns)
    u = u if u.dtype == np.float32 else u.astype(np.float64)
    others = sorted(set(data.cell_data) - set(arrays)) if location == "point" else []
    notes = [f"Values {'at points' if location == 'point' else 'of cells'}."]
    notes += [f"Not read, values of cells: {', '.join(others)}."] if others else []
    if data.axes is not None:
        kept = [i for i, axis in enumerate(data.axes) if len(axis) > 1]
        grid = Grid(*(_axis("xyz"[i], data.axes[i], location == "cell", data.periodic[i]) for i in kept)) if kept else None
        if grid is None:
            raise ValueError(f"{path.name}: vtk expects a grid of more than one point.")
        u = u.reshape(len(u), *grid.shape[::-1]).transpose(0, *range(len(kept), 0, -1))
        mesh = None
    else:
        grid, mesh, kept = on_mesh(u.shape[1], location), _mesh(data, location), [0, 1, 2]
        u = u if location == "point" else u[:, data.order]
        notes.append("Cells: " + (", ".join(f"{len(c)} {kind}" for kind, c in data.cells.items()) or "none") + ".")
    velocity = next((tuple(parts[i] for i in kept) for name, parts in vectors.items() if _VELOCITY.fullmatch(name)), ())
    return Fields(
        u=torch.from_numpy(np.ascontiguousarray(u))[None],
        grid=grid,
        channels=tuple(channels),
        roles={"velocity": velocity} if velocity else {},
        attributes={"format": "vtk", "path": path.name, "source": "VTK", "notes": " ".join(notes)},
        mesh=mesh,
    )


def _mesh(data: Dataset, location: str) -> Mesh:
    return Mesh(torch.from_numpy(data.points), location, cells={kind: torch.from_numpy(corners) for kind, corners in data.cells.items()})


def _axis(name: str, positions: NDArray[np.float64], cells: bool, periodic: bool) -> Axis:
    """The axis of points, or that of the cells between them."""
    axis = Axis.at(name, positions.tolist())
    if periodic and not cells and axis.uniform:
        return Axis(name, axis.points, length=axis.points * axis.spacing, origin=axis.origin, periodic=True)
    if not cells:
        return axis
    if not axis.uniform:
        return Axis.at(name, ((positions[1:] + positions[:-1]) / 2).tolist())
    return Axis(name, axis.points - 1, length=axis.extent, origin=axis.origin + axis.spacing / 2, cells=True)
