"""Field files of other programs, opened by what is in them.

`open` reads the first bytes and the names inside a file, never its suffix alone, and hands it to the format that knows them. A format
is one line of `FORMATS`; its module is imported when a file is opened, so that listing the formats costs nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from pde_datasets.lazy import Lazy
from pde_datasets.loaders.glance import check_safe, check_there, describe

if TYPE_CHECKING:
    from pde_datasets.fields import Fields

__all__ = ["FORMATS", "Format", "open"]

_BLOCK = 1 << 22
"""Values looked at in one go by the search for NaN: 32 MiB of float64, so that a mapped file larger than memory can be checked."""

_EAGER = 1 << 28
"""Bytes up to which fields are read at once."""


@dataclass(frozen=True)
class Format:
    """A file format that can be read.

    Attributes:
        name: what `open(path, format=...)` calls it.
        description: what such a file holds.
        source: who writes such files.
        recognises: whether a file is of this format, from its content; raises a `ValueError` if it is damaged.
        load: the fields of a file that is; called with the user's words as well by formats that take them.
        reading_of: the format of whose files this is another reading, asked for by name only; it recognises none by itself.
        takes_words: whether the user may say what is in a file, as files of this format do not.
    """

    name: str
    description: str
    source: str
    recognises: Callable[[Path], bool]
    load: Callable[..., Fields]
    reading_of: str | None = None
    takes_words: bool = False


def _format(name: str, module: str, description: str, source: str, *, reading_of: str | None = None, takes_words: bool = False) -> Format:
    """A format whose module, with `recognises` and `load`, is imported at the first file."""

    def recognises(path: Path) -> bool:
        return reading_of is None and bool(import_module(f"{__name__}.{module}").recognises(path))

    def load(path: Path, *words: Any) -> Fields:
        fields: Fields = import_module(f"{__name__}.{module}").load(path, *words)
        return fields

    return Format(name, description, source, recognises, load, reading_of, takes_words)


FORMATS: dict[str, Format] = {
    entry.name: entry
    for entry in (
        _format("pcfm", "own", "HDF5 with root attribute format = pcfm-fields: fields, grid, parameters, laws", "this project"),
        _format(
            "neuraloperator",
            "neuraloperator",
            ".pt dictionary of tensors x, y: Burgers or Darcy",
            "github.com/neuraloperator/neuraloperator",
        ),
        _format(
            "pdebench",
            "pdebench",
            "HDF5: tensor, or density, pressure, Vx, or groups 0000, .., or velocity, particles",
            "github.com/pdebench/PDEBench",
        ),
        _format("the-well", "the_well", "HDF5 with groups dimensions, t0_fields, t1_fields, ..", "github.com/PolymathicAI/the_well"),
        _format(
            "pdearena",
            "pdearena",
            "HDF5 with one group train, valid or test: smoke, Maxwell, or 1-D equations",
            "github.com/pdearena/pdearena, github.com/brandstetter-johannes/LPSDA",
        ),
        _format("pcfm-paper", "pcfm_paper", "HDF5 u with ic, bc, x, t, or with a, f", "the PCFM paper, Utkarsh et al. 2025"),
        _format("pbfm", "pbfm", "HDF5 fields with reynolds or nominal_condition", "github.com/tum-pbs/PBFM"),
        _format("jhtdb", "jhtdb", "HDF5 cutout: Velocity_0001, .., xcoor, ycoor, zcoor", "turbulence.pha.jhu.edu"),
        _format("fno", "fno", ".mat (5.0 or 7.3) with a, u, or coeff, sol, or a, u, t", "Li et al. 2021"),
        _format(
            "diffusionpde",
            "diffusionpde",
            ".mat with pairs thresh_a_data, thresh_p_data, .. or input, output; scaled pairs merge_*.npy; folder with v.npy: flows",
            "github.com/jhhuangchloe/DiffusionPDE",
        ),
        _format("apebench", "apebench", ".npy with the settings of a scenario beside it, .json", "github.com/Ceyron/apebench"),
        _format(
            "flowbench",
            "flowbench",
            ".npz pairs *_X, *_Y with an array data: flows about objects",
            "github.com/baskargroup/flowbench-tools",
        ),
        _format("cfdbench", "cfdbench", "folder of cases case0000, .. with u.npy, v.npy, case.json", "github.com/luo-yining/CFDBench"),
        _format(
            "probconserv",
            "probconserv",
            ".pt tuple of tensors input_contexts, output_contexts, .. and parameters: values at points (t, x)",
            "github.com/amazon-science/probconserv",
        ),
        _format("blastnet", "blastnet", "folder of raw float32 files, with or without info.json", "blastnet.github.io"),
        _format(
            "pina", "pina", ".pt dictionary of tensors x, y, u, triang: finite elements on deforming meshes", "github.com/mathLab/PINA"
        ),
        _format(
            "openfoam", "openfoam", "folder of a case, with constant/polyMesh and a folder a time: fields of the cells", "openfoam.com"
        ),
        _format(
            "openfoam-flux",
            "openfoam_flux",
            "the same folder, asked for by name: fluxes phi on the faces, with the balance of every cell",
            "openfoam.com",
            reading_of="openfoam",
        ),
        _format("comsol", "comsol", "text with % lines that count nodes and expressions", "comsol.com, github.com/i207M/PINNacle"),
        _format("piv", "piv", "TSI Insight .vec, or DaVis text: measured velocities in a plane", "tsi.com, lavision.de"),
        _format("pyclaw", "pyclaw", "HDF5 clawNNNN.hdf with patch1/q, or a folder of them", "github.com/clawpack/pyclaw"),
        _format(
            "airfrans",
            "airfrans",
            "case airFoil2D_SST_..., a folder or one of its files of VTK: flow about airfoils",
            "github.com/Extrality/AirfRANS",
        ),
        _format("vtk", "vtk", ".vtu, .vtp, .vti, .vtr, .vtk: grids and meshes of VTK and ParaView", "vtk.org"),
        _format("spectra", "spectra", "text: a line nk t, then nk numbers, for each time", "A. A. Wray 1997, AGARD AR-345"),
        _format(
            "matlab",
            "matlab",
            ".mat (5.0 or 7.3) with coordinates x, times t|tt and a field usol|uu|u; or x, y and values at points",
            "github.com/maziarraissi/PINNs, github.com/dynamicslab/pysindy",
        ),
        _format("pyro2", "pyro2", "HDF5 output of pyro2: groups grid and state/<field>/data", "github.com/python-hydro/pyro2"),
        _format(
            "pidm", "pidm", "folder or pair of p_data.csv, K_data.csv: Darcy pressure and permeability, a sample a row", "arXiv:2403.14404"
        ),
        _format("columns", "columns", "text: a table of numbers, one column increasing or columns x, y the coordinates", "anyone"),
        _format("netcdf", "netcdf", "netCDF 3 or 4, or a zarr store, with CF attributes; jax-cfd", "unidata.ucar.edu, cfconventions.org"),
        _format(
            "arrays", "arrays", "plain .npy or .npz, whose axes the user says: words={'layout': 'n t x y'}", "numpy.org", takes_words=True
        ),
    )
}


def open(path: str | os.PathLike[str], format: str | None = None, words: Mapping[str, Any] | None = None) -> Fields:
    """Open a file or folder of fields, in our own layout or a foreign one.

    Arguments:
        path: the file, or the folder of a format that is one.
        format: a name in `FORMATS`; by default whichever recognises the content, the more particular ones asked first.
        words: what the axes of plain arrays are, like `{"layout": "n t x y", "periodic": "x y"}`; see `loaders.words`. With them the
            formats that take words are the only ones asked.

    Returns:
        The fields, (N, C, *N), in the float type they are stored in, with at least `format`, `path` (the file's name) and `notes` (what
        the reader decided or knows to be inexact) among their attributes. Fields of more than a quarter of a GiB stay in their file
        until they are indexed (`Fields.u` is `Lazy`, or a tensor mapped from the file).

    Raises:
        ValueError: the file is missing, a folder that is no known format, empty, truncated or of no known format, the format's name is
            unknown or not what the file is, words are given that its format does not take, a library that reads it is missing, or values
            are NaN or infinite.
    """
    path = Path(path)
    if format is not None and format not in FORMATS:
        near = get_close_matches(format, FORMATS, n=1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        raise ValueError(f"'{format}' is not a format that can be read.{hint} `pcfm list formats` names those.")
    check_there(path)
    check_safe(path)
    found = _found(path, format, with_words=words is not None)
    if found is None:
        if format is None:
            way_out = "`pcfm list formats` names what can be opened; arrays in .npy or .npz open with words for their axes."
            raise ValueError(f"{path}: not recognised, it is {describe(path)}. {way_out}")
        raise ValueError(
            f"{path} is not of format {format} ({FORMATS[format].description}); it is {describe(path)}. Leave `format` out to have it "
            "detected."
        )
    if words is not None and not found.takes_words:
        able = ", ".join(name for name, entry in FORMATS.items() if entry.takes_words)
        raise ValueError(f"{path.name}: open takes words for {able} alone; this is {found.name}, which says what it holds. Leave them out.")
    fields = found.load(path) if words is None else found.load(path, words)
    if not isinstance(fields.u, Lazy):
        _check_finite(fields, path)
        return fields
    _check_parameters(fields, path)
    return replace(fields, u=fields.u.load()) if fields.u.numel() * fields.u.dtype.itemsize <= _EAGER else fields


def _found(path: Path, format: str | None, with_words: bool) -> Format | None:
    """The format that is asked for, if the file is of it; else the first that recognises the file: the others are not asked, nor imported.

    With words, the formats that take them are asked first.
    """
    if format is not None:
        entry = FORMATS[format]
        return entry if FORMATS[entry.reading_of or format].recognises(path) else None
    order = sorted(FORMATS.values(), key=lambda entry: with_words and not entry.takes_words)
    return next((entry for entry in order if entry.recognises(path)), None)


def _check_finite(fields: Fields, path: Path) -> None:
    """Raise a `ValueError` that names the channels with NaN or infinite values."""
    assert isinstance(fields.u, Tensor)
    step = max(1, _BLOCK // max(1, fields.u[:1].numel()))
    nan, inf = [0] * len(fields.channels), [0] * len(fields.channels)
    for start in range(0, len(fields), step):
        block = fields.u[start : start + step]
        for i in range(len(fields.channels)):
            some_nan, some_inf = _not_finite(block[:, i])
            nan[i], inf[i] = nan[i] + some_nan, inf[i] + some_inf
    size = fields.u[:, :1].numel()
    bad = [
        f"channel '{name}' has {_count(nan[i], inf[i])} among its {size} values"
        for i, name in enumerate(fields.channels)
        if nan[i] or inf[i]
    ]
    _refuse(path, bad)
    _check_parameters(fields, path)


def _check_parameters(fields: Fields, path: Path) -> None:
    """Raise a `ValueError` that names the parameters with NaN or infinite values."""
    counts = {name: _not_finite(values) for name, values in fields.parameters.items()}
    _refuse(
        path, [f"parameter '{n}' has {_count(*c)} among its {fields.parameters[n].numel()} values" for n, c in counts.items() if any(c)]
    )


def _refuse(path: Path, bad: list[str]) -> None:
    if bad:
        raise ValueError(f"{path.name}: open expects finite values; {'; '.join(bad)}. Repair or drop them before opening the file.")


def _not_finite(values: Any) -> tuple[int, int]:
    """How many values are NaN and how many are infinite."""
    if values.isfinite().all():
        return 0, 0
    return int(values.isnan().sum()), int(values.isinf().sum())


def _count(nan: int, inf: int) -> str:
    return " and ".join(f"{count} {what}" for count, what in ((nan, "NaN"), (inf, "infinite")) if count)
