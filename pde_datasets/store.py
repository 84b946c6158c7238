"""Our HDF5 files: fields with grid, units, parameters, laws and certificates.

Layout: dataset `fields` (N, C, *grid), contiguous, with a dimension scale for each axis, channel names and units as attributes; group
`parameters`, one dataset each; group `laws`; group `mesh` where there is one; group `certificate`, one row a sample; root attributes
`format`, `version`, `grid` and `attributes` (JSON). Contiguous, so that it can be mapped: files larger than memory open at once.

A file appears under its name when it is whole. Until then it is `NAME.part`, and `NAME.part.json` says how many samples of it are there
and with which settings they were made: a killed run goes on from it, and is not lost to one that does not ask for that.
"""

from __future__ import annotations

import json
import mmap
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from constraints import Axis, Grid
from pde_datasets.fields import Fields
from pde_datasets.mesh import Mesh
from pde_datasets.mesh_store import read_mesh, write_mesh

FORMAT = "pcfm-fields"
VERSION = 1

_LARGE = 1 << 20
"""Bytes of a parameter that is mapped and not read."""


def check_free(path: Path, overwrite: bool) -> None:
    """Refuse to write over a file unasked.

    Raises:
        ValueError: there is one, or a folder.
    """
    if path.is_dir():
        raise ValueError(f"{path} is a folder; expected a file to write. Name a file inside it.")
    if path.exists() and not overwrite:
        raise ValueError(f"{path} exists already. Choose another name, or pass --overwrite.")


def check_space(path: Path, size: int) -> None:
    """Refuse to begin a file that its disk cannot hold; what an unfinished one of that name takes is counted as free.

    Raises:
        ValueError: fewer than so many bytes are free.
    """
    part = path.with_name(path.name + ".part")
    taken = part.stat().st_blocks * 512 if part.exists() else 0
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    free = shutil.disk_usage(folder).free + taken
    if size > free:
        raise ValueError(
            f"{path} needs {_amount(size)} of disk; {_amount(free)} are free in {folder}. Ask for fewer or smaller samples, or write "
            "elsewhere."
        )


def _amount(size: int) -> str:
    """Bytes in words."""
    power = next((p for p in range(5) if size < 1024 ** (p + 1)), 5)
    return f"{size / 1024**power:.4g} {('bytes', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB')[power]}"


def finished(file: Path, settings: Mapping[str, Any]) -> bool:
    """Whether a file of ours is there that was made with these settings: files have their names only once they are whole.

    Raises:
        ValueError: it was made with others.
    """
    if not file.exists() or not h5py.is_hdf5(file):
        return False
    with h5py.File(file, "r") as opened:
        old = json.loads(opened.attrs.get("attributes", "{}")).get("settings", {})
    new = json.loads(json.dumps(dict(settings), default=str))
    if old != new:
        changed = sorted({"count" if k == "total" else k for k in {*old, *new} if old.get(k) != new.get(k)})
        raise ValueError(f"{file} was made with other settings ({', '.join(changed)}). Choose another name, or pass --overwrite.")
    return True


class Writer:
    """Writes fields in pieces, resumably.

    Arguments:
        path: the file to make.
        count: samples in all.
        settings: what determines the fields; a partial file made with others is not resumed.
        columns: name of each column of the certificate's tables, a law with its unit.
        mesh: what the fields live on, if not a product of axes.
        overwrite: replace an existing file, or a partial one.
        resume: go on with a partial file, if there is one.

    Raises:
        ValueError: the file or a partial one exists, or the partial one to resume is damaged or was made with other settings.
    """

    def __init__(
        self,
        path: Path,
        count: int,
        settings: Mapping[str, Any],
        *,
        columns: Sequence[str] = (),
        mesh: Mesh | None = None,
        overwrite: bool = False,
        resume: bool = False,
    ) -> None:
        self.path, self.count, self.mesh = Path(path), count, mesh
        self.columns = list(columns)
        self.settings = json.loads(json.dumps(dict(settings), default=str))
        self.part = self.path.with_name(self.path.name + ".part")
        self.ledger = self.path.with_name(self.path.name + ".part.json")
        check_free(self.path, overwrite)
        if self.part.exists() and self.ledger.exists() and not (overwrite or resume):
            raise ValueError(f"{self.part} holds an unfinished run. Pass --resume to go on with it, or --overwrite to start again.")
        self.written = self._resume() if resume else 0

    def _resume(self) -> int:
        if not (self.part.exists() and self.ledger.exists()):
            return 0
        try:
            ledger = json.loads(self.ledger.read_text())
            old, count, written = ledger["settings"], ledger["count"], int(ledger["written"])
            with h5py.File(self.part, "r") as file:
                whole = file["fields"].shape[0] == count
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{self.part} cannot be gone on with: {error}. Start again with --overwrite.") from error
        if old != self.settings or count != self.count or not whole:
            changed = sorted({"count" if k == "total" else k for k in {*old, *self.settings} if old.get(k) != self.settings.get(k)})
            raise ValueError(
                f"{self.part} was made with other settings ({', '.join(changed) or 'count'}). "
                "Repeat the command that made it, or start again with --overwrite."
            )
        return written

    def append(self, fields: Fields, certificate: Mapping[str, Tensor] | None = None) -> None:
        """Add samples; they are safe on return."""
        stop = self.written + len(fields)
        fields = replace(fields, u=fields.values)
        if not self.written:
            rows = (fields.values, *fields.parameters.values(), *(certificate or {}).values())
            check_space(self.path, self.count * sum(values[0].numel() * values.element_size() for values in rows))
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.ledger.unlink(missing_ok=True)  # before the samples it counts are overwritten
        with h5py.File(self.part, "r+" if self.written else "w") as file:
            if not self.written:
                self._create(file, fields, certificate or {})
            file["fields"][self.written : stop] = fields.values.detach().cpu().numpy()
            for name, values in fields.parameters.items():
                file["parameters"][name][self.written : stop] = values.detach().cpu().numpy()
            for name, values in (certificate or {}).items():
                file["certificate"][name][self.written : stop] = values.detach().cpu().numpy()
        self.written = stop
        ledger = {"written": self.written, "count": self.count, "settings": self.settings}
        temporary = self.ledger.with_name(self.ledger.name + ".new")
        temporary.write_text(json.dumps(ledger))
        os.replace(temporary, self.ledger)

    def _create(self, file: h5py.File, fields: Fields, certificate: Mapping[str, Tensor]) -> None:
        file.attrs["format"], file.attrs["version"] = FORMAT, VERSION
        file.attrs["grid"] = json.dumps([axis.to_json() for axis in fields.grid.axes])
        file.attrs["attributes"] = json.dumps({**fields.attributes, "settings": self.settings}, default=str)
        data = _allocate(file, "fields", self.count, fields.values)
        data.attrs["channels"], data.attrs["units"] = list(fields.channels), list(fields.units)
        data.dims[0].label, data.dims[1].label = "sample", "channel"
        for i, axis in enumerate(fields.grid.axes):
            scale = file.create_dataset(f"axes/{axis.name}", data=axis.positions().numpy())
            scale.attrs["units"], scale.attrs["periodic"] = axis.unit, axis.periodic
            scale.make_scale(axis.name)
            data.dims[2 + i].label = axis.name
            data.dims[2 + i].attach_scale(scale)
        for name, values in fields.parameters.items():
            _allocate(file, f"parameters/{name}", self.count, values)
        if self.mesh is not None:
            write_mesh(file, self.mesh)
        laws = file.create_group("laws")
        laws.attrs["stated"] = json.dumps(list(fields.laws))
        laws.attrs["roles"] = json.dumps({role: list(names) for role, names in fields.roles.items()})
        for name, values in certificate.items():
            rows = _allocate(file, f"certificate/{name}", self.count, values)
            if self.columns and values.ndim == 2:
                rows.attrs["columns"] = self.columns

    def finish(self, keep: Tensor | None = None) -> None:
        """Give the whole file its name.

        Arguments:
            keep: samples that are delivered, (count,); all by default. The file then has a parameter `sample`, their numbers.

        Raises:
            ValueError: samples are missing, or none is kept.
        """
        if self.written != self.count:
            raise ValueError(f"{self.part} holds {self.written} of {self.count} samples; it cannot be finished.")
        if keep is not None and not bool(keep.all()):
            self._shorten(keep.nonzero().flatten())
        os.replace(self.part, self.path)
        self.ledger.unlink()

    def discard(self) -> None:
        """Remove what is written so far."""
        self.part.unlink(missing_ok=True)
        self.ledger.unlink(missing_ok=True)
        self.written = 0

    def _shorten(self, kept: Tensor) -> None:
        """Leave some of the samples."""
        if not len(kept):
            raise ValueError(f"{self.part} holds no sample that can be kept.")
        whole, rows = read(self.part), certificate(self.part)
        part = whole.take(kept)
        part = replace(part, parameters={**part.parameters, "sample": kept})
        shorter = Writer(
            self.part.with_name(self.part.name + ".kept"), len(kept), self.settings, columns=self.columns, mesh=self.mesh, overwrite=True
        )
        for piece in part.pieces():
            here = kept[shorter.written : shorter.written + len(piece)]
            shorter.append(piece, {name: values[here] for name, values in rows.items()} if rows else None)
        shorter.finish()
        os.replace(shorter.path, self.part)


def _allocate(file: h5py.File, name: str, count: int, like: Tensor) -> h5py.Dataset:
    """A contiguous dataset for `count` rows like those of a tensor, its space taken at once."""
    dtype = like.detach().cpu().numpy().dtype
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_layout(h5py.h5d.CONTIGUOUS)
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    properties.set_obj_track_times(False)  # the same fields make the same file, to the byte
    parent = file.require_group(os.path.dirname(name)) if "/" in name else file
    space = h5py.h5s.create_simple((count, *like.shape[1:]))
    identifier = h5py.h5d.create(
        parent.id, os.path.basename(name).encode(), h5py.h5t.py_create(dtype, logical=True), space, dcpl=properties
    )
    return h5py.Dataset(identifier)


def write(
    path: Path,
    fields: Fields,
    *,
    certificate: Mapping[str, Tensor] | None = None,
    columns: Sequence[str] = (),
    overwrite: bool = False,
    tell: Callable[[int], None] = lambda written: None,
) -> None:
    """Write fields, those still in a file piece by piece; `tell` is told how many samples are written."""
    writer = Writer(path, len(fields), {}, columns=columns, mesh=fields.mesh, overwrite=overwrite)
    for piece in fields.pieces():
        here = slice(writer.written, writer.written + len(piece))
        writer.append(piece, None if certificate is None else {name: rows[here] for name, rows in certificate.items()})
        tell(writer.written)
    writer.finish()


def read(path: Path) -> Fields:
    """Fields of one of our files, mapped and not read.

    Raises:
        ValueError: the file is not one of ours, is damaged, or of a newer version.
    """
    try:
        with h5py.File(path, "r") as file:
            if file.attrs.get("format") != FORMAT:
                raise ValueError(f"{path} is HDF5 but not in the layout of this toolkit (attribute format = '{FORMAT}').")
            version = file.attrs["version"]
            if not isinstance(version, (int, np.integer)) or version > VERSION:
                raise ValueError(f"{path} has layout version {version}; this toolkit reads up to {VERSION}. Upgrade it.")
            data = file["fields"]
            laws = file["laws"]
            return Fields(
                _map(path, data),
                Grid(*(Axis.from_json(axis) for axis in json.loads(file.attrs["grid"]))),
                channels=tuple(str(name) for name in data.attrs["channels"]),
                units=tuple(str(name) for name in data.attrs["units"]),
                parameters={name: _numbers(path, values) for name, values in file.get("parameters", {}).items()},
                roles={role: tuple(names) for role, names in json.loads(laws.attrs["roles"]).items()},
                laws=tuple(json.loads(laws.attrs["stated"])),
                attributes={"format": "pcfm", **json.loads(file.attrs["attributes"])},
                mesh=read_mesh(file),
            )
    except (OSError, RuntimeError, KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is not a whole file of this toolkit: {error}. Make or copy it again.") from error


def certificate(path: Path) -> dict[str, Tensor]:
    """The certificate stored with fields, empty if there is none."""
    with h5py.File(path, "r") as file:
        return {name: torch.from_numpy(values[()]) for name, values in file.get("certificate", {}).items()}


def _numbers(path: Path, values: h5py.Dataset) -> Tensor:
    """A parameter: in memory, or mapped where there are so many samples that it counts."""
    return _map(path, values) if values.nbytes > _LARGE else torch.from_numpy(values[()])


def _map(path: Path, data: h5py.Dataset) -> Tensor:
    """A dataset as a tensor over the file's own bytes, private copies of pages that are written to.

    Without reserving memory for such copies, so that files larger than memory open.
    """
    offset = data.id.get_offset()
    if offset is None or not data.dtype.isnative or not data.size or not hasattr(mmap, "MAP_PRIVATE"):
        values = data[()]
        return torch.from_numpy(values.astype(values.dtype.newbyteorder("="), copy=False))
    start = offset - offset % mmap.ALLOCATIONGRANULARITY
    length = offset - start + data.size * data.dtype.itemsize
    flags = mmap.MAP_PRIVATE | getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)
    with open(path, "rb") as file:
        pages = mmap.mmap(file.fileno(), length, flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE, offset=start)
    values = np.frombuffer(pages, dtype=data.dtype, count=data.size, offset=offset - start)
    return torch.from_numpy(values.reshape(data.shape))
