"""Files of VTK and ParaView: .vtu, .vtp, .vti and .vtr (`vtk_xml`), and the older .vtk through meshio (`pip install pcfm[mesh]`).

Values at points are read where there are any, values of cells otherwise; a vector `U` becomes the channels `U_x`, `U_y`, `U_z`. Images
and rectilinear grids are products of axes, those of one point left out; everything else is a mesh, whose cells are listed kind by kind:
values of cells are put in that order.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pde_datasets.fields import Fields
from pde_datasets.loaders import airfrans
from pde_datasets.loaders.files import first_bytes, reason
from pde_datasets.loaders.points import layout
from pde_datasets.loaders.vtk_data import Dataset, fields_of
from pde_datasets.loaders.vtk_xml import kind_of, read_xml

_LEGACY = b"# vtk DataFile Version"
_HEAD = 1024
"""Bytes looked at to recognise a file."""


def recognises(path: Path) -> bool:
    """Whether a file begins as those of VTK do, and is no case of AirfRANS."""
    start = first_bytes(path, _HEAD)
    return (start.startswith(_LEGACY) or bool(kind_of(start))) and not airfrans.recognises(path)


def load(path: Path) -> Fields:
    """The arrays of a file, as one sample.

    Returns:
        Values on a grid (x, y, z), or on a mesh with its points and cells, float32 if all arrays are, float64 otherwise.

    Raises:
        ValueError: no arrays of numbers, a kind of file that is not read, a damaged one, or meshio is missing.
    """
    return fields_of(path, _legacy(path) if first_bytes(path, _HEAD).startswith(_LEGACY) else read_xml(path))


def _legacy(path: Path) -> Dataset:
    """A file of the older kind, by meshio."""
    try:
        from meshio import vtk
    except ImportError as error:
        raise ValueError(f"{path.name}: vtk expects meshio to read this older kind of file. Install it: pip install pcfm[mesh].") from error
    try:
        mesh = vtk.read(str(path))
    except Exception as error:  # on damaged bytes meshio raises whatever it stumbles on
        raise ValueError(
            f"{path.name}: vtk expects a whole .vtk file of a kind that meshio reads; this one is truncated, damaged or of another "
            f"kind ({reason(error)}). Save it as .vtu."
        ) from error
    points = np.zeros((len(mesh.points), 3))
    points[:, : mesh.points.shape[1]] = mesh.points
    cells: dict[str, list[NDArray[Any]]] = {}
    places: dict[str, list[NDArray[np.int64]]] = {}
    first = 0
    for block in mesh.cells:
        cells.setdefault(block.type, []).append(np.asarray(block.data, dtype=np.int64))
        places.setdefault(block.type, []).append(np.arange(first, first + len(block.data)))
        first += len(block.data)
    order = [place for kind in cells for place in places[kind]]
    data = Dataset(
        points=points,
        cells={kind: np.concatenate(parts) for kind, parts in cells.items()},
        order=np.concatenate(order) if order else np.empty(0, dtype=np.int64),
        point_data={name: _columns(values) for name, values in mesh.point_data.items()},
        cell_data={name: _columns(np.concatenate(blocks)) for name, blocks in mesh.cell_data.items()},
    )
    return (
        _on_axes(data)
        if re.search(rb"DATASET\s+(STRUCTURED_POINTS|RECTILINEAR_GRID)", first_bytes(path, _HEAD)) and data.point_data
        else data
    )


def _on_axes(data: Dataset) -> Dataset:
    """Points that meshio lists one by one, back on the axes they fill, x fastest."""
    kept = [i for i in range(3) if np.ptp(data.points[:, i]) > 0]
    place = layout(["xyz"[i] for i in kept], data.points[:, kept]) if kept else None
    if place is None or place.mesh is not None:
        return data
    axes = [np.zeros(1)] * 3
    for i, axis in zip(kept, place.grid.axes, strict=True):
        axes[i] = axis.positions().numpy()
    back = [np.moveaxis(place.place(values.T), 0, -1) for values in data.point_data.values()]
    arrays = [values.transpose(*range(len(kept) - 1, -1, -1), len(kept)).reshape(-1, values.shape[-1]) for values in back]
    return Dataset(axes=axes, point_data=dict(zip(data.point_data, arrays, strict=True)))


def _columns(values: Any) -> NDArray[Any]:
    array = np.asarray(values)
    return array.reshape(len(array), -1)
