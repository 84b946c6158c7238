"""netCDF files and zarr stores, read by the CF conventions (`cf`).

Classic netCDF 3 is read by scipy, nothing else needed; netCDF 4, which is HDF5, and zarr by xarray (`pip install pcfm[netcdf]`). Among them
are our own export, the files of jax-cfd, and PDEArena's shallow water: a zarr store, or a folder of runs, `seed=*/run*/output.nc`.

Source:
    Unidata, The NetCDF classic format specification; CF metadata conventions 1.11; Gupta & Brandstetter, Towards multi-spatiotemporal-scale
    generalized PDE modeling, TMLR 2023 (PDEArena).
"""

from __future__ import annotations

import os
import traceback
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pde_datasets.fields import Fields, join
from pde_datasets.loaders.cf import fields_of
from pde_datasets.loaders.cf_data import Dataset, Variable
from pde_datasets.loaders.files import damaged, first_bytes
from pde_datasets.loaders.hdf5 import holds, plain

_CLASSIC = (b"CDF\x01", b"CDF\x02")
_WIDE = b"CDF\x05"
_ZARR = (".zgroup", ".zmetadata", "zarr.json")
_RUNS = "seed=*/run*/output.nc"


def recognises(path: Path) -> bool:
    """Whether a file is classic netCDF or HDF5 with dimension scales, or a folder a zarr group or runs of SpeedyWeather."""
    if path.is_dir():
        return _is_zarr(path) or any(path.glob(_RUNS))
    return first_bytes(path, 4) in (*_CLASSIC, _WIDE) or holds(path, _has_scales)


def _is_zarr(folder: Path) -> bool:
    return any((folder / name).is_file() for name in _ZARR)


def _has_scales(file: h5py.File) -> bool:
    """Whether an HDF5 file has a dimension scale at its root, as every netCDF-4 file does."""
    entries = (file.get(name) for name in file)
    return any(isinstance(entry, h5py.Dataset) and plain(entry.attrs.get("CLASS", "")) == "DIMENSION_SCALE" for entry in entries)


def load(path: Path) -> Fields:
    """The variables of a file on its largest grid, left there until they are indexed.

    Returns:
        A channel a variable, on (time, *space) with the names and the order of the dimensions; see `cf`.

    Raises:
        ValueError: xarray is needed and missing, a truncated or damaged file, no variable with an axis, coordinates that do not
            increase, or missing values.
    """
    if path.is_dir() and not _is_zarr(path):
        runs = sorted(path.glob(_RUNS))
        fields = join([load(run) for run in runs])
        names = " ".join(run.parent.relative_to(path).as_posix() for run in runs)
        return replace(fields, attributes={**fields.attributes, "path": path.name, "runs": names})
    magic = first_bytes(path, 4)
    if magic == _WIDE:
        raise ValueError(f"{path.name}: netcdf expects classic files of offsets up to 64 bits; got CDF-5. Convert it: nccopy -k nc4.")
    return fields_of(_classic(path) if magic in _CLASSIC else _by_xarray(path))


def _classic(path: Path) -> Dataset:
    """A classic file, its arrays mapped."""
    netcdf_file = import_module("scipy.io").netcdf_file
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scipy warns that the mapping outlives the file: its arrays are read later
        try:
            file = netcdf_file(path, "r", mmap=True)
            arrays = {name: variable.data for name, variable in file.variables.items()}
            described = {name: (tuple(variable.dimensions), dict(variable._attributes)) for name, variable in file.variables.items()}
            attributes = dict(file._attributes)
            del file
        except Exception as error:  # scipy checks nothing of what it reads, and stumbles in as many ways as bytes can be damaged
            traceback.clear_frames(error.__traceback__)
            misfit = f"its {path.stat().st_size} bytes and what its header says do not fit together"
            raise damaged(f"{path.name}: netcdf", "a whole file", misfit) from error
    variables = {name: Variable(dims, tuple(arrays[name].shape), arrays[name].dtype, told) for name, (dims, told) in described.items()}
    if any(len(variable.dims) != len(variable.shape) for variable in variables.values()):
        raise damaged(f"{path.name}: netcdf", "a whole file", "variables of another shape than their dimensions")
    return Dataset(path, variables, attributes, lambda: nullcontext(arrays))


def _by_xarray(path: Path) -> Dataset:
    """A netCDF-4 file or a zarr store, described."""
    store = _Store(path)
    with store.opened() as data:
        variables = {
            str(name): Variable(
                tuple(map(str, variable.dims)), tuple(map(int, variable.shape)), np.dtype(variable.dtype), _attributes(path, variable.attrs)
            )
            for name, variable in (sorted(data.variables.items()) if path.is_dir() else data.variables.items())  # zarr keeps no order
        }
        attributes = {str(name): value for name, value in data.attrs.items()}

    @contextmanager
    def arrays() -> Iterator[Mapping[str, Any]]:
        with store.opened() as data:
            yield {str(name): _Indexed(variable) for name, variable in data.variables.items()}

    return Dataset(path, variables, attributes, arrays)


class _Indexed:
    """A variable of xarray that is read where it is indexed."""

    def __init__(self, variable: Any) -> None:
        self.variable = variable
        self.shape, self.dtype = tuple(variable.shape), np.dtype(variable.dtype)

    def __getitem__(self, box: Any) -> Any:
        return np.asarray(self.variable[box].values)


def _attributes(path: Path, attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes of a variable. Zarr fills what was never written with 0 unless it is told otherwise, which marks no missing values."""
    found = {str(name): value for name, value in attributes.items()}
    if path.is_dir() and np.asarray(found.get("_FillValue", 1)).dtype.kind in "buif" and not np.any(found.get("_FillValue", 1)):
        del found["_FillValue"]
    return found


class _Store:
    """A file kept open by the process that reads it; one that is forked from it, as those that load batches are, opens its own."""

    def __init__(self, path: Path) -> None:
        self.path, self.process = path, -1
        self.data: Any = None

    @contextmanager
    def opened(self) -> Iterator[Any]:
        """The variables as they are stored.

        Raises:
            ValueError: xarray or what it needs is missing, or the file, or something read from it inside the `with` block, is damaged.
        """
        try:
            if self.process != os.getpid():
                self.data, self.process = _xarray(self.path), os.getpid()
            yield self.data
        except Exception as error:  # xarray, zarr and their codecs raise whatever damaged bytes lead to
            if str(error).startswith(self.path.name):
                raise
            raise damaged(f"{self.path.name}: netcdf", "a whole file", error) from error


def _xarray(path: Path) -> Any:
    """A data set of xarray, nothing of it decoded."""
    zarr = path.is_dir()
    needed = ("xarray", "zarr") if zarr else ("xarray", "h5netcdf")
    try:
        xarray, _ = (import_module(name) for name in needed)
    except ImportError as error:
        what = "a zarr store" if zarr else "netCDF 4"
        raise ValueError(
            f"{path.name}: netcdf expects {' and '.join(needed)} for {what}; not all are installed. Run pip install pcfm[netcdf]."
        ) from error
    engine = {"engine": "zarr"} if zarr else {"engine": "h5netcdf", "phony_dims": "access"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on stores without consolidated metadata, and on attributes of other conventions
        return xarray.open_dataset(path, decode_cf=False, **engine)
