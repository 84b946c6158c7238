"""ParaView image data, one `.vti` file a sample and time, with a `.pvd` list of the times of each sample.

Equally spaced axes only; cell centres become cell data, nodes and periodic points point data. Values are raw, appended, lowest byte first.
Image data know no periodic axes: which ones are is said in an array `periodic` of the field data, one number an axis, that our reader
understands and ParaView shows as information. ParaView draws nothing between the last point of such an axis and the first.

Source:
    VTK file formats, XML image data.
"""

from __future__ import annotations

import os
from pathlib import Path
from xml.sax.saxutils import quoteattr

import numpy as np
from numpy.typing import NDArray

from constraints import Axis
from pde_datasets.fields import Fields
from pde_datasets.loaders.vtk_data import PERIODIC
from pde_datasets.store import check_free
from pde_datasets.writers import Tell


def check(path: Path, fields: Fields, overwrite: bool) -> None:
    """Refuse what image data cannot hold.

    Raises:
        ValueError: fields on a mesh, on more than three space axes or on unequal spacings, or a file that exists.
    """
    axes = fields.grid.space_axes
    if fields.mesh is not None or len(axes) > 3 or not all(axis.uniform for axis in axes):
        raise ValueError(
            f"ParaView image data expect up to three equally spaced axes; these fields are on {fields.grid}. Write .h5 instead."
        )
    for sample in range(len(fields)):
        lists = [_list(path, fields, sample)] if fields.grid.has_time else []
        for target in (*_targets(path, fields, sample), *lists):
            check_free(target, overwrite)


def write(path: Path, fields: Fields, overwrite: bool, tell: Tell) -> dict[Path, int]:
    """Write fields as NAME.SAMPLE.TIME.vti beside the name asked for, and NAME.SAMPLE.pvd where there are times.

    `check` says which it refuses.
    """
    check(path, fields, overwrite)
    axes = fields.grid.space_axes
    cells = all(axis.cells for axis in axes)
    times = fields.grid.axes[0].positions().tolist() if fields.grid.has_time else None
    files, sample = {}, 0
    for piece in fields.pieces():
        for u in piece.values.numpy():
            targets = _targets(path, fields, sample)
            for t, target in enumerate(targets):
                _file(target, u[:, t] if times else u, fields.channels, axes, cells, overwrite)
                files[target] = 1
            if times:
                _collection(_list(path, fields, sample), [target.name for target in targets], times, overwrite)
            sample += 1
            tell(sample)
    return files


def _label(path: Path, fields: Fields, sample: int) -> str:
    return f"{path.stem}.{sample:0{len(str(max(len(fields) - 1, 0)))}d}"


def _targets(path: Path, fields: Fields, sample: int) -> list[Path]:
    """The files of a sample, one a time."""
    label = _label(path, fields, sample)
    if not fields.grid.has_time:
        return [path.with_name(f"{label}.vti")]
    times = fields.grid.axes[0].points
    return [path.with_name(f"{label}.{t:0{len(str(times - 1))}d}.vti") for t in range(times)]


def _list(path: Path, fields: Fields, sample: int) -> Path:
    """The list of the times of a sample."""
    return path.with_name(f"{_label(path, fields, sample)}.pvd")


def _file(path: Path, u: NDArray[np.floating], channels: tuple[str, ...], axes: tuple[Axis, ...], cells: bool, overwrite: bool) -> None:
    """One field (C, *N)."""
    counts = [axis.points for axis in axes] + [1] * (3 - len(axes))
    spacing = [axis.spacing for axis in axes] + [1.0] * (3 - len(axes))
    origin = [axis.origin - (axis.spacing / 2 if cells else 0.0) for axis in axes] + [0.0] * (3 - len(axes))
    ends = [n if cells else n - 1 for n in counts[: len(axes)]] + [1 if cells else 0] * (3 - len(axes))
    extent = " ".join(f"0 {end}" for end in ends)
    kind = "Float32" if u.dtype.itemsize == 4 else "Float64"
    tag = "CellData" if cells else "PointData"
    blocks = [np.ascontiguousarray(values.T).astype(values.dtype.newbyteorder("<"), copy=False).tobytes() for values in u]
    arrays, offset = [], 0
    for name, block in zip(channels, blocks, strict=True):
        arrays.append(f'<DataArray type="{kind}" Name={quoteattr(name)} format="appended" offset="{offset}"/>')
        offset += 8 + len(block)
    seams = " ".join(str(int(axis.periodic)) for axis in axes) + " 0" * (3 - len(axes))
    fields = f'<FieldData>\n<DataArray type="UInt8" Name="{PERIODIC}" NumberOfTuples="3" format="ascii">{seams}</DataArray>\n</FieldData>\n'
    head = (
        '<?xml version="1.0"?>\n<VTKFile type="ImageData" version="1.0" byte_order="LittleEndian" header_type="UInt64">\n'
        f'<ImageData WholeExtent="{extent}" Origin="{_words(origin)}" Spacing="{_words(spacing)}">\n{fields}<Piece Extent="{extent}">\n'
        f"<{tag}>\n{chr(10).join(arrays)}\n</{tag}>\n</Piece>\n</ImageData>\n"
        '<AppendedData encoding="raw">\n_'
    )
    body = b"".join(len(block).to_bytes(8, "little") + block for block in blocks)
    _whole(path, head.encode() + body + b"\n</AppendedData>\n</VTKFile>\n", overwrite)


def _collection(path: Path, names: list[str], times: list[float], overwrite: bool) -> None:
    sets = "\n".join(f'<DataSet timestep="{time:.17g}" file={quoteattr(name)}/>' for name, time in zip(names, times, strict=True))
    text = f'<?xml version="1.0"?>\n<VTKFile type="Collection" version="0.1">\n<Collection>\n{sets}\n</Collection>\n</VTKFile>\n'
    _whole(path, text.encode(), overwrite)


def _whole(path: Path, data: bytes, overwrite: bool) -> None:
    """Write a file under a temporary name and move it."""
    check_free(path, overwrite)
    part = path.with_name(path.name + ".part")
    part.write_bytes(data)
    os.replace(part, path)


def _words(values: list[float]) -> str:
    return " ".join(f"{value:.17g}" for value in values)
