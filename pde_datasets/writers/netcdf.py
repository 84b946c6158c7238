"""Classic netCDF with CF attributes: what climate tools, ParaView and xarray open.

One variable (sample, time, *space) a channel and a coordinate variable an axis; parameters are variables over the samples. Attributes
`periodic`, `cells`, `uneven`, `length` of a coordinate say what its axis is, `roles` and `laws` of the file what its channels are, so that
`loaders.netcdf` reads equal fields back. The format is the 64-bit offset variant of netCDF 3, in which a variable holds less than 4 GiB.

Source:
    Unidata, The NetCDF classic format specification; CF metadata conventions 1.11.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pde_datasets.fields import Fields
from pde_datasets.store import check_free
from pde_datasets.writers import Tell

_LIMIT = 2**32 - 4
"""Bytes of a variable that is not the last (format specification, 64-bit offset)."""


def check(path: Path, fields: Fields, overwrite: bool) -> None:
    """Refuse what one file cannot hold.

    Raises:
        ValueError: the file exists and is not to be overwritten, a channel is too large for the format, or fields are on a mesh.
    """
    check_free(path, overwrite)
    if fields.mesh is not None:
        raise ValueError("netCDF files hold fields on axes; these are on a mesh. Write .h5 instead.")
    size = fields.u.numel() // len(fields.channels) * fields.u.dtype.itemsize
    if size > _LIMIT:
        raise ValueError(
            f"a channel of a classic netCDF file holds less than 4 GiB; these take {size / 2**30:.3g}. Thin them, or write .h5."
        )


def write(path: Path, fields: Fields, overwrite: bool, tell: Tell) -> dict[Path, int]:
    """Write fields into one file; `check` says which it refuses."""
    from scipy.io import netcdf_file

    check(path, fields, overwrite)
    part = path.with_name(path.name + ".part")
    with netcdf_file(part, "w", version=2) as file:
        file.Conventions = "CF-1.11"
        for key, value in fields.attributes.items():
            setattr(file, _name(key), _attribute(value))
        file.pcfm_export, file.laws, file.roles = 1, " ".join(fields.laws), json.dumps(fields.roles)
        file.createDimension("sample", len(fields))
        file.createVariable("sample", "i4", ("sample",))[:] = np.arange(len(fields), dtype="i4")
        names = [_name(axis.name) for axis in fields.grid.axes]
        for name, axis in zip(names, fields.grid.axes, strict=True):
            file.createDimension(name, axis.points)
            coordinate = file.createVariable(name, "f8", (name,))
            coordinate[:] = axis.positions().numpy()
            coordinate.units, coordinate.long_name = axis.unit, axis.name
            coordinate.periodic, coordinate.cells, coordinate.uneven = int(axis.periodic), int(axis.cells), int(not axis.uniform)
            coordinate.length = _attribute(axis.extent)
            if name in "xyz":
                coordinate.axis = name.upper()
            if name == "time":
                coordinate.axis = "T"
        for name, values in fields.parameters.items():
            shape = tuple(f"{_name(name)}_{i}" for i in range(1, values.ndim))
            for dimension, length in zip(shape, values.shape[1:], strict=True):
                file.createDimension(dimension, length)
            stored = values.detach().cpu().numpy()
            parameter = file.createVariable(f"parameter_{_name(name)}", _kind(stored), ("sample", *shape))
            parameter[:], parameter.long_name = stored, name
        kind = "f4" if fields.u.dtype.itemsize == 4 else "f8"
        variables = []
        for channel, unit in zip(fields.channels, fields.units, strict=True):
            name = _name(channel) if _name(channel) not in (*names, "sample") else f"field_{_name(channel)}"
            variable = file.createVariable(name, kind, ("sample", *names))
            variable.units, variable.long_name = unit, channel
            variables.append(variable)
        first = 0
        for piece in fields.pieces():
            u = piece.values.numpy()
            for i, variable in enumerate(variables):
                variable[first : first + len(piece)] = u[:, i]
            first += len(piece)
            tell(first)
    os.replace(part, path)
    return {path: len(fields)}


def _attribute(value: Any) -> Any:
    """A value as an attribute: text and numbers as they are, floats in double precision, anything else as JSON."""
    if isinstance(value, float):
        return np.float64(value)
    if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**31):
        return value
    return json.dumps(value, default=str)


def _kind(values: NDArray[Any]) -> str:
    """The type that holds numbers without loss: whole ones fit 32 bits, or are kept in double precision."""
    if values.dtype.kind == "f":
        return "f4" if values.dtype.itemsize <= 4 else "f8"
    return "i4" if values.size == 0 or (values.min() >= -(2**31) and values.max() < 2**31) else "f8"


def _name(text: str) -> str:
    """A name that netCDF and CF allow: letters, digits and underscores."""
    cleaned = re.sub(r"\W", "_", text, flags=re.ASCII)
    return cleaned if cleaned[:1].isalpha() else f"v_{cleaned}"
