r"""The HDF5 files of The Well: one layout for all of its sets.

`dimensions` has `time` and a dataset for each space dimension; `t0_fields`, `t1_fields`, `t2_fields` scalars, vectors and tensors, each
(sample, time, \*space, D, D) without the axes along which it does not vary, which its flags `sample_varying`, `time_varying` and
`dim_varying` say; `scalars` numbers with the first two flags; `boundary_conditions` a kind (periodic, wall, open) for dimensions each.
Fields that do not vary along an axis are repeated along it.

Source:
    Ohana et al., The Well: a large-scale collection of diverse physics simulations for machine learning, NeurIPS 2024; the reader and the
    format description of the repository.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from constraints import Axis, Grid
from pde_datasets.fields import Fields
from pde_datasets.loaders.coordinates import coordinates, needed, shared_times, stored
from pde_datasets.loaders.hdf5 import holds, opened, plain
from pde_datasets.loaders.parts import CHANNEL, FIRST, SAMPLE, Part, assembled

_ORDERS = ("t0_fields", "t1_fields", "t2_fields")

_LAWS: dict[str, tuple[str, ...]] = {
    "shear_flow": ("divergence-free:scheme=spectral", "mass:channels=tracer"),
    "active_matter": ("divergence-free:scheme=spectral",),
    "euler_multi_quadrants_periodicBC": ("mass", "momentum", "mass:channels=energy"),
}
"""Laws that follow from the scheme of a periodic set: Fourier-Galerkin, or finite volumes."""

_NOTES: dict[str, str] = {
    "shear_flow": "Fourier-Galerkin: spectral divergence 0 and mean tracer constant, to float32.",
    "active_matter": "Stokes flow solved in Fourier space: spectral divergence 0, to float32.",
    "euler_multi_quadrants_periodicBC": "Finite volumes: mass, momentum and energy are conserved, to float32.",
    "rayleigh_benard": "Chebyshev points in y, so that the scheme's divergence is none on this grid; no slip at the walls.",
    "viscoelastic_instability": "Chebyshev points in y, so that the scheme's divergence is none on this grid; no slip at the walls.",
    "planetswe": "On the sphere: mass is a sum with the area of the cells, not of this grid's product of axes.",
    "MHD_64": "The magnetic field is divergence-free in the scheme of the solver only.",
    "MHD_256": "The magnetic field is divergence-free in the scheme of the solver only.",
    "rayleigh_taylor": "The velocity is divergence-free approximately; the mass of the fluid is conserved.",
}

_ROLES: tuple[tuple[str, str], ...] = (("velocity", "velocity"), ("momentum", "momentum"))
"""Roles of vectors by the name of the field."""


def recognises(path: Path) -> bool:
    """Whether a file is HDF5 with `dimensions`, its list of dimensions, and `t0_fields`."""
    return holds(path, _is_well)


def _is_well(file: h5py.File) -> bool:
    dimensions = file.get("dimensions")
    return isinstance(dimensions, h5py.Group) and "spatial_dims" in dimensions.attrs and isinstance(file.get("t0_fields"), h5py.Group)


def load(path: Path) -> Fields:
    """The fields of a file, left in it until they are indexed.

    Returns:
        Channels named after their fields, with the dimension behind an underscore for each component, on (time, *dimensions).

    Raises:
        ValueError: a truncated file, flags that contradict a shape, coordinates that differ between samples, or no fields.
    """
    with opened(path) as file:
        dims = _words(file["dimensions"].attrs["spatial_dims"])
        kinds = _boundaries(file, dims)
        periodic = {dim: kinds[dim] == {"periodic"} for dim in dims}
        axes = [_axis(path, file, dim, periodic[dim]) for dim in dims]
        fields = [
            (order, name, file[order][name]) for order in _ORDERS if isinstance(file.get(order), h5py.Group) for name in _names(file[order])
        ]
        samples = _samples(path, file, fields)
        time, parameters, notes = _time(path, file, samples)
        shape = (time.points, *(axis.points for axis in axes))
        parts, channels = [], []
        for order, name, entry in fields:
            parts.append(Part((f"{order}/{name}",), _placement(path, name, entry, len(dims), _ORDERS.index(order))))
            channels += _components(name, entry.shape[len(entry.shape) - _ORDERS.index(order) :], dims)
        parameters |= _scalars(path, file, samples, time.points)
        dataset = str(plain(file.attrs.get("dataset_name", "")))
        about = {key: plain(file.attrs[key]) for key in ("dataset_name", "grid_type") if key in file.attrs}
    notes += [_NOTES[dataset]] if dataset in _NOTES else []
    notes.append("Whether points are nodes or centres of cells is not stored; bounded axes have trapezoidal weights.")
    if not all(periodic.values()):
        about["boundaries"] = "; ".join(f"{dim} {', '.join(sorted(kinds[dim])) or 'not stated'}" for dim in dims)
    if any(periodic.values()):
        notes.append("A period is taken as n spacings, its end point never stored twice.")
    named = tuple(channels)
    if len(set(named)) != len(named):
        raise ValueError(f"{path.name}: the-well expects fields of different names; got {', '.join(named)}.")
    return Fields(
        u=assembled(path, parts, (samples, len(named), *shape)),
        grid=Grid(time, *axes),
        channels=named,
        parameters=parameters,
        roles=_roles(named, dims),
        laws=tuple(law for law in _LAWS.get(dataset, ()) if all(periodic.values())),
        attributes={"format": "the-well", "path": path.name, "source": "The Well; Ohana et al. 2024", **about, "notes": " ".join(notes)},
    )


def _words(value: Any) -> tuple[str, ...]:
    """An attribute as a list of words: one text, or an array of them."""
    if isinstance(value, (str, bytes)):
        return (str(plain(value)),)
    return tuple(word.decode(errors="replace") if isinstance(word, bytes) else str(word) for word in np.asarray(value).ravel())


def _flag(entry: Any, name: str) -> bool:
    return bool(plain(entry.attrs.get(name, False)))


def _names(group: Any) -> list[str]:
    """The datasets of a group, those it lists first; the writer of test files in the repository lists other names than it stores."""
    stored = [name for name in group if isinstance(group[name], h5py.Dataset)]
    listed = [name for name in _words(group.attrs.get("field_names", [])) if name in stored]
    return listed + [name for name in stored if name not in listed]


def _boundaries(file: h5py.File, dims: tuple[str, ...]) -> dict[str, set[str]]:
    """Kinds of boundary of each dimension, from `bc_type`: the masks of periodic ones are all False in some files, and mark no point."""
    kinds: dict[str, set[str]] = {dim: set() for dim in dims}
    conditions = file.get("boundary_conditions")
    for entry in conditions.values() if isinstance(conditions, h5py.Group) else ():
        if not isinstance(entry, h5py.Group):
            continue
        for dim in _words(entry.attrs.get("associated_dims", [])):
            if dim in kinds:
                kinds[dim].add(str(plain(entry.attrs.get("bc_type", ""))).lower())
    return kinds


def _axis(path: Path, file: h5py.File, dim: str, periodic: bool) -> Axis:
    entry = file["dimensions"].get(dim)
    if not isinstance(entry, h5py.Dataset):
        raise ValueError(f"{path.name}: the-well expects coordinates dimensions/{dim}; there are none.")
    if _flag(entry, "sample_varying") or _flag(entry, "time_varying"):
        raise ValueError(
            f"{path.name}: the-well expects coordinates {dim} that all samples and times share; these vary. Interpolate to one grid first."
        )
    x = coordinates(path, dim, stored(path, file["dimensions"], dim))
    return Axis.at(dim, x.tolist(), periodic=periodic and len(x) > 1)


def _samples(path: Path, file: h5py.File, fields: list[tuple[str, str, Any]]) -> int:
    """How many trajectories there are, from the fields that vary with them, else from the attribute."""
    if not fields:
        raise ValueError(f"{path.name}: the-well expects fields in {', '.join(_ORDERS)}; there are none.")
    counts = {int(entry.shape[0]) for _, _, entry in fields if _flag(entry, "sample_varying") and entry.shape}
    if len(counts) > 1:
        raise ValueError(f"{path.name}: the-well expects fields of one number of samples; got {sorted(counts)}.")
    stated = plain(file.attrs.get("n_trajectories", 1))
    return counts.pop() if counts else int(stated) if isinstance(stated, (int, float)) else 1


def _time(path: Path, file: h5py.File, samples: int) -> tuple[Axis, dict[str, Tensor], list[str]]:
    """The time axis; where samples have times of their own it counts them, and they are a parameter."""
    entry, table = file["dimensions"].get("time"), stored(path, file["dimensions"], "time")
    if table is None or not _flag(entry, "sample_varying"):
        return Axis.at("time", coordinates(path, "time", table).tolist()), {}, []
    time, differing, notes = shared_times(path, table)
    if differing and len(table) != samples:
        raise ValueError(f"{path.name}: the-well expects times for {samples} samples; got {len(table)}.")
    return time, differing, notes


def _placement(path: Path, name: str, entry: Any, dimensions: int, order: int) -> tuple[int, ...]:
    """Which axis of the fields each axis of a dataset is."""
    varying = np.asarray(entry.attrs.get("dim_varying", [True] * dimensions)).astype(bool).ravel()
    axes: list[int] = [SAMPLE] * _flag(entry, "sample_varying") + [FIRST] * _flag(entry, "time_varying")
    axes += [FIRST + 1 + d for d, varies in enumerate(varying) if varies]
    axes += [CHANNEL] * order
    if len(varying) != dimensions or len(entry.shape) != len(axes):
        raise ValueError(f"{path.name}: the-well expects {name} with the {len(axes)} axes its flags name; got shape {tuple(entry.shape)}.")
    return tuple(axes)


def _components(name: str, shape: tuple[int, ...], dims: tuple[str, ...]) -> list[str]:
    """Names of the components of a field, `velocity_x`, `strain_xy`."""
    tails = [""]
    for n in shape:
        tails = [tail + (dims[i] if n == len(dims) else str(i)) for tail in tails for i in range(n)]
    return [f"{name}_{tail}" if tail else name for tail in tails]


def _scalars(path: Path, file: h5py.File, samples: int, times: int) -> dict[str, Tensor]:
    """Numbers of each sample, and of each time where they vary with it."""
    group = file.get("scalars")
    found: dict[str, Tensor] = {}
    for name in _names(group) if isinstance(group, h5py.Group) else ():
        entry = group[name]
        by_sample, by_time = _flag(entry, "sample_varying"), _flag(entry, "time_varying")
        wanted = (samples,) * by_sample + (times,) * by_time
        if wanted == () and entry.shape == (1,):
            wanted = (1,)
        values = torch.as_tensor(needed(path, group, name, wanted)).reshape(wanted if by_sample or by_time else ())
        found[name] = values if by_sample else values.expand(samples, *values.shape).clone()
    return found


def _roles(channels: tuple[str, ...], dims: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """What channels are, as far as their names say."""
    roles = {}
    for role, field in _ROLES:
        components = tuple(f"{field}_{dim}" for dim in dims)
        if set(components) <= set(channels):
            roles[role] = components
    return roles | {name: (name,) for name in ("density", "energy") if name in channels}
