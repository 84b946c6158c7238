"""A file of variables on named dimensions, as netCDF and zarr are: what describes it, and how its arrays are opened."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pde_datasets.loaders.limits import check_shape
from pde_datasets.loaders.parts import Arrays
from pde_datasets.loaders.views import Unpacked

_SAMPLES = (
    "sample", "samples", "realization", "ensemble", "ensemble_member", "member", "number", "batch", "b", "n", "trajectory", "case", "run",
    "seed",
)  # fmt: skip
_TIMES = ("time", "t", "times", "valid_time", "step")
_LATITUDE = ("latitude", "lat", "grid_latitude")
_LONGITUDE = ("longitude", "lon", "grid_longitude")

EXPORT = "pcfm_export"
"""Attribute of the files that `writers.netcdf` writes."""


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
        """Whether it holds real numbers."""
        return self.dtype.kind in "buif"


@dataclass(frozen=True)
class Dataset:
    """The variables and attributes of a file, and how its arrays are opened."""

    path: Path
    variables: Mapping[str, Variable]
    attributes: Mapping[str, Any]
    arrays: Arrays

    @property
    def own(self) -> bool:
        """Whether it is our own export."""
        return EXPORT in self.attributes

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

    def coordinate(self, dim: str) -> Variable | None:
        """The variable that holds the points of a dimension, if there is one."""
        variable = self.variables.get(dim)
        return variable if variable is not None and variable.dims == (dim,) and variable.numeric else None

    def kind(self, dim: str) -> str:
        """What a dimension is: "sample", "time", "latitude", "longitude" or "space"."""
        variable = self.variables.get(dim)
        standard, axis, units = ("" if variable is None else variable.text(key) for key in ("standard_name", "axis", "units"))
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
