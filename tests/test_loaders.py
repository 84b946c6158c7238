"""Loaders: small files of each format written here, every trap of the real ones, and the real ones where they are."""

from __future__ import annotations

import math
import os
import re
import struct
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io
import scipy.sparse
import torch
from scipy.io import netcdf_file

from constraints import Grid
from pde_datasets import loaders, store
from pde_datasets.loaders import FORMATS
from pde_datasets.loaders.mat5 import read_arrays
from pde_datasets.loaders.pt import content, glimpse
from pde_datasets.loaders.seam import space_axis
from pde_datasets.problems import Heat

ROOT = Path(__file__).resolve().parents[1]
TIMES = np.linspace(0.0, 1.0, 7)


def real(path: str) -> Path:
    """A third-party file, or a skip that says where it is from."""
    file = Path(os.environ.get("PCFM_DATA", ROOT / ".." / "shared" / "data")) / path
    if not file.exists():
        sources = {
            "neuraloperator": "github.com/neuraloperator/neuraloperator, neuralop/data/datasets/data",
            "raissi_pinns": "github.com/maziarraissi/PINNs, main/Data and appendix/Data",
            "pysindy": "github.com/dynamicslab/pysindy, examples/data",
            "pyro2": "github.com/python-hydro/pyro2, the solvers' tests folders",
            "pyclaw_sedov3d": "github.com/clawpack/pyclaw, examples/euler_3d/Sedov_regression",
            "pina_holed_poisson": "github.com/mathLab/PINA, tutorials/tutorial22",
        }
        pytest.skip(f"no {path}: put the files of {sources[path.split('/')[0]]} there, or point PCFM_DATA to a folder that has them")
    return file


def total(u: torch.Tensor, grid: Grid) -> torch.Tensor:
    """Integrals over space."""
    return (u * grid.weights()).sum(dim=grid.space_dims)


# --- small files -------------------------------------------------------------------------------------------------------------------


def wave(x: np.ndarray) -> np.ndarray:
    """A travelling wave of period 2, (nx, nt)."""
    return np.sin(np.pi * (x[:, None] - 0.3 * TIMES)) + 0.3


def write_mat(path: Path, u: np.ndarray, x: np.ndarray, times: np.ndarray = TIMES, names: tuple[str, str] = ("tt", "uu")) -> Path:
    scipy.io.savemat(path, {"x": x, names[0]: times, names[1]: u})
    return path


def write_mat73(path: Path, u: np.ndarray, x: np.ndarray, times: np.ndarray = TIMES) -> Path:
    """MATLAB 7.3: HDF5 after a block of 512 bytes with a text header, axes reversed, complex numbers as pairs."""
    if np.iscomplexobj(u):
        u = np.rec.fromarrays([u.real, u.imag], names="real,imag")
    with h5py.File(path, "w", userblock_size=512) as file:
        file["x"], file["t"], file["usol"] = x[None, :], times[:, None], u.T
        file.create_group("#refs#")
    with path.open("r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")
    return path


def write_pt(path: Path, data: Any = None) -> Path:
    x = torch.linspace(0, 1, 24, dtype=torch.float64).reshape(3, 8)
    y = torch.stack([x * (1 - 0.01 * i) for i in range(17)], dim=1)
    torch.save({"x": x, "y": y, "visc": torch.tensor([[0.01]], dtype=torch.float64)} if data is None else data, path)
    return path


def write_pyro2(
    path: Path,
    fields: dict[str, np.ndarray],
    boundary: tuple[str, str, str, str] = ("periodic", "periodic", "reflect-even", "reflect-even"),
    ghosts: int = 0,
    **grid: float,
) -> Path:
    with h5py.File(path, "w") as file:
        file.attrs["solver"], file.attrs["problem"], file.attrs["time"] = "compressible", "blob", 0.5
        nx, ny = next(iter(fields.values())).shape
        settings = {"nx": nx, "ny": ny, "ng": 2, "xmin": 1.0, "xmax": 3.0, "ymin": 0.0, "ymax": 1.0} | grid
        for name, value in settings.items():
            file.require_group("grid").attrs[name] = value
        file.create_group("aux").attrs["gamma"] = 1.4
        file.create_group("runtime parameters").attrs["blob.radius"] = 0.25
        for name, values in fields.items():
            group = file.create_group(f"state/{name}")
            group["data"] = np.pad(values, ghosts)
            for side, kind in zip(("xlb", "xrb", "ylb", "yrb"), boundary, strict=True):
                group.attrs[side] = kind
    return path


def euler_state() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.random((6, 4)) + 1 for name in ("density", "energy", "tracer", "x-momentum", "y-momentum")}


WRITERS: dict[str, Callable[[Path], Path]] = {
    "neuraloperator": lambda folder: write_pt(folder / "file.pt"),
    "matlab": lambda folder: write_mat(folder / "file.mat", wave(np.arange(16) / 8), np.arange(16) / 8),
    "matlab/7.3": lambda folder: write_mat73(folder / "file73.mat", wave(np.arange(16) / 8), np.arange(16) / 8),
    "pyro2": lambda folder: write_pyro2(folder / "file.h5", euler_state()),
}


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("suffix", [".data", ".pt", ".mat", ".h5", ".png"])
def test_format_is_detected_from_content(kind: str, suffix: str, tmp_path: Path) -> None:
    path = WRITERS[kind](tmp_path)
    path = path.rename(path.with_suffix(suffix))
    name = kind.partition("/")[0]
    fields = loaders.open(path)
    assert fields.attributes["format"] == name
    assert fields.attributes["path"] == path.name
    assert fields.attributes["notes"]
    assert fields.u.is_contiguous()
    assert torch.equal(fields.u, loaders.open(str(path), name).u)
    assert [entry for entry in FORMATS if FORMATS[entry].recognises(path)] == [name]


def test_listing_formats_imports_no_reader() -> None:
    listed = "[m for m in sys.modules if m.startswith(l.__name__ + '.') or m == 'h5py']"
    code = f"import sys, pde_datasets.loaders as l; assert l.FORMATS; print({listed})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['pde_datasets.loaders.files', 'pde_datasets.loaders.glance']"
    assert all(entry.name == name and entry.description and entry.source for name, entry in FORMATS.items())


# --- neuraloperator ----------------------------------------------------------------------------------------------------------------


def test_burgers_round_trip(tmp_path: Path) -> None:
    fields = loaders.open(write_pt(tmp_path / "b.pt"))
    assert fields.u.shape == (3, 1, 17, 8)
    assert fields.u.dtype == torch.float64
    assert fields.channels == ("u",)
    assert fields.grid.names == ("time", "x")
    assert fields.grid.axis("x").periodic
    assert fields.grid.axis("time").extent == pytest.approx(0.96)
    assert torch.equal(fields.parameters["viscosity"], torch.full((3,), 0.01, dtype=torch.float64))
    assert fields.laws == ("initial-condition",)
    assert torch.equal(fields.u.select(fields.grid.dim("time"), 0)[:, 0], torch.linspace(0, 1, 24, dtype=torch.float64).reshape(3, 8))


@pytest.mark.parametrize(("times", "extent"), [(17, 0.96), (101, 1.0), (51, 1.0), (5, 4.0)])
def test_burgers_times_follow_the_published_ones(times: int, extent: float, tmp_path: Path) -> None:
    y = torch.zeros(2, times, 8)
    fields = loaders.open(write_pt(tmp_path / "b.pt", {"x": y[:, 0], "y": y}))
    assert fields.grid.axis("time").extent == pytest.approx(extent)
    assert ("counts frames" in fields.attributes["notes"]) == (times == 5)
    assert not fields.parameters


def test_burgers_with_another_initial_state_states_no_law(tmp_path: Path) -> None:
    y = torch.zeros(2, 17, 8)
    fields = loaders.open(write_pt(tmp_path / "b.pt", {"x": y[:, 0] + 1e-3, "y": y, "visc": torch.tensor([0.1, 0.2])}))
    assert fields.laws == ()
    assert fields.parameters["viscosity"].tolist() == pytest.approx([0.1, 0.2])


def test_darcy_round_trip(tmp_path: Path) -> None:
    x, y = torch.eye(8).bool().expand(4, 8, 8), torch.rand(4, 8, 8, generator=torch.Generator().manual_seed(0))
    fields = loaders.open(write_pt(tmp_path / "d.pt", {"x": x, "y": y}))
    assert fields.channels == ("coefficient", "pressure")
    assert fields.u.dtype == torch.float32
    assert torch.equal(fields.u[:, 0], x.float())
    assert torch.equal(fields.u[:, 1], y)
    assert not any(axis.periodic for axis in fields.grid.axes)
    assert fields.laws == ()
    assert "no physical constraint holds" in fields.attributes["notes"]


class Malicious:
    """Unpickled by the usual means, it writes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (f"open({str(self.target)!r}, 'w').write('run')",)


def test_a_glimpse_of_tensors_reads_none_of_their_numbers(tmp_path: Path) -> None:
    path = tmp_path / "u.pt"
    values = torch.arange(4096.0)
    torch.save({"x": values, "name": "u"}, path)
    mapped, read = glimpse(path), content(path)
    assert mapped["name"] == read["name"] == "u"
    assert torch.equal(glimpse(path)["x"], values)
    with path.open("r+b") as file:
        file.seek(path.read_bytes().index(values[100:110].numpy().tobytes()))
        file.write(bytes(40))
    assert torch.equal(read["x"], values)
    assert int((mapped["x"] != values).sum()) == 10, "what the file holds when it is asked"


def test_no_format_is_asked_after_one_that_recognises_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "heat.h5"
    store.write(path, Heat(points=8, times=4).draw(2))
    for name in [name for name in FORMATS if name != "pcfm"]:
        monkeypatch.setitem(FORMATS, name, replace(FORMATS[name], recognises=lambda path: 1 / 0))
    assert len(loaders.open(path)) == 2
    with pytest.raises(ZeroDivisionError):
        loaders.open(path, "netcdf")


def test_pickle_with_code_is_refused_and_not_run(tmp_path: Path) -> None:
    target, path = tmp_path / "trace", tmp_path / "evil.pt"
    torch.save({"x": torch.zeros(1, 4), "y": torch.zeros(1, 3, 4), "visc": Malicious(target)}, path)
    for format in (None, "neuraloperator"):
        with pytest.raises(ValueError, match=r"expects tensors.*nothing in it was run"):
            loaders.open(path, format)
    torch.save(Malicious(target), path, _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match="Python pickle, which can run code"):
        loaders.open(path)
    assert not target.exists()
    torch.load(path, weights_only=False)
    assert target.exists(), "the file of this test is harmless, so the test says nothing"


@pytest.mark.parametrize(
    ("data", "got"),
    [
        ((torch.zeros(2), torch.zeros(2)), "it is a .pt file with a tuple"),
        ({"weight": torch.zeros(3, 2)}, r"it is a .pt file with weight \(3, 2\)"),
        ({"x": torch.zeros(2, 4, 4), "y": torch.zeros(2, 4)}, r"got x \(2, 4, 4\) float32, y \(2, 4\)"),
        ({"x": torch.rand(2, 4, 4), "y": torch.zeros(2, 4, 4)}, "two-valued x"),
        ({"x": torch.zeros(2, 4), "y": torch.zeros(2, 17, 4), "visc": torch.zeros(3)}, r"one viscosity or 2; got shape \(3,\)"),
    ],
)
def test_other_pt_files_are_refused(data: Any, got: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=got):
        loaders.open(write_pt(tmp_path / "other.pt", data))


# --- MATLAB ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("writer", [write_mat, write_mat73])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_matlab_round_trip(writer: Callable[..., Path], dtype: Any, tmp_path: Path) -> None:
    """x first in the file (and reversed in 7.3), time first in the fields; as many times as points must not confuse the two."""
    for count in (16, 7):
        x = -1 + 2 * np.arange(count) / count
        u = wave(x).astype(dtype)
        fields = loaders.open(writer(tmp_path / "f.mat", u, x))
        assert fields.u.shape == (1, 1, 7, count)
        assert fields.u.is_contiguous()
        assert np.array_equal(fields.u[0, 0].numpy(), u.T)
        assert fields.u.dtype == torch.from_numpy(u).dtype
        assert fields.grid.axis("time").positions().numpy() == pytest.approx(TIMES)


@pytest.mark.parametrize("names", [("t", "usol"), ("tt", "uu"), ("t", "u")])
@pytest.mark.parametrize("column", [False, True])
def test_matlab_names_and_vectors(names: tuple[str, str], column: bool, tmp_path: Path) -> None:
    x = np.arange(16) / 8
    x_stored, times = (x[:, None], TIMES[:, None]) if column else (x, TIMES)
    fields = loaders.open(write_mat(tmp_path / "f.mat", wave(x), x_stored, times, names))
    assert fields.grid.shape == (7, 16)
    transposed = loaders.open(write_mat(tmp_path / "g.mat", wave(x).T, x_stored, times, names))
    assert torch.equal(transposed.u, fields.u)


def test_times_need_not_start_at_zero_nor_be_equally_spaced(tmp_path: Path) -> None:
    x, times = np.arange(16) / 8, np.array([0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0])
    time = loaders.open(write_mat(tmp_path / "f.mat", wave(x), x, times)).grid.axis("time")
    assert not time.uniform
    assert time.positions().tolist() == times.tolist()


def test_half_open_grid_is_periodic(tmp_path: Path) -> None:
    x = -1 + np.arange(64) / 32
    axis = loaders.open(write_mat(tmp_path / "f.mat", wave(x), x)).grid.axis("x")
    assert (axis.points, axis.periodic, axis.extent, axis.origin) == (64, True, pytest.approx(2.0), -1.0)


def test_first_point_at_one_spacing(tmp_path: Path) -> None:
    x = np.arange(1, 65) / 32
    axis = loaders.open(write_mat(tmp_path / "f.mat", wave(x), x)).grid.axis("x")
    assert axis.periodic
    assert axis.extent == pytest.approx(2.0, rel=1e-14)
    assert axis.positions().numpy() == pytest.approx(x, rel=1e-14)


@pytest.mark.parametrize("noise", [0.0, 1e-15, 1e-8])
def test_closed_grid_with_repeated_end_loses_it(noise: float, tmp_path: Path) -> None:
    """With the duplicate kept, a mean would count one point twice."""
    x = np.linspace(-1, 1, 65)
    u = wave(x)
    u[-1] = u[0] + noise
    fields = loaders.open(write_mat(tmp_path / "f.mat", u, x))
    axis = fields.grid.axis("x")
    assert (axis.points, axis.periodic, axis.extent) == (64, True, 2.0)
    assert "repeats the first" in fields.attributes["notes"]
    assert total(fields.u, fields.grid)[0, 0].numpy() == pytest.approx(np.full(7, 0.6), abs=1e-14)


def test_repeated_end_that_is_round_off_about_zero(tmp_path: Path) -> None:
    """The ends of an odd solution are round-off: a copy has the same bits, two computed walls have not."""
    x = np.linspace(-1, 1, 65)
    u = np.sin(np.pi * x)[:, None] * np.exp(-TIMES)
    rng = np.random.default_rng(0)
    u[0], u[-1] = rng.normal(size=(2, 7)) * 1e-16
    assert not loaders.open(write_mat(tmp_path / "walls.mat", u, x)).grid.axis("x").periodic
    u[-1] = u[0]
    copied = loaders.open(write_mat(tmp_path / "copy.mat", u, x)).grid.axis("x")
    assert (copied.points, copied.periodic) == (64, True)


@pytest.mark.parametrize("ends", [(0.0, 0.0), (1.0, 1.0), (1.0, -1.0)])
@pytest.mark.parametrize("noise", [0.0, 1e-14, 1e-6])
def test_walls_are_bounded(ends: tuple[float, float], noise: float, tmp_path: Path) -> None:
    x = np.linspace(0, 1, 65)
    rng = np.random.default_rng(1)
    line = ends[0] + (ends[1] - ends[0]) * x
    u = line[:, None] + np.sin(3 * np.pi * x)[:, None] * np.exp(-TIMES) + noise * rng.normal(size=(65, 7))
    fields = loaders.open(write_mat(tmp_path / "f.mat", u, x))
    axis = fields.grid.axis("x")
    assert (axis.points, axis.periodic, axis.extent) == (65, False, 1.0)
    assert "both ends stay constant" in fields.attributes["notes"]


def test_jump_between_moving_ends_is_bounded(tmp_path: Path) -> None:
    x = np.linspace(0, 1, 65)
    fields = loaders.open(write_mat(tmp_path / "f.mat", np.exp(x)[:, None] * (1 + TIMES), x))
    assert not fields.grid.axis("x").periodic
    assert "jumps" in fields.attributes["notes"]


def test_kink_at_the_seam_is_still_periodic() -> None:
    """The Allen-Cahn initial state x² cos πx continues periodically with a corner: second differences must not decide."""
    x = -1 + np.arange(256) / 128
    u = (x**2 * np.cos(np.pi * x))[None, :] * (1 - 0.1 * TIMES[:, None])
    assert space_axis("x", x, u).axis.periodic


def test_uneven_points_are_kept(tmp_path: Path) -> None:
    x = np.linspace(0, 1, 33) ** 2
    fields = loaders.open(write_mat(tmp_path / "f.mat", wave(x), x))
    axis = fields.grid.axis("x")
    assert (axis.uniform, axis.periodic) == (False, False)
    assert axis.positions().tolist() == x.tolist()
    assert "not equally spaced" in fields.attributes["notes"]


@pytest.mark.parametrize("writer", [write_mat, write_mat73])
def test_complex_with_negligible_imaginary_part_is_real(writer: Callable[..., Path], tmp_path: Path) -> None:
    x = np.arange(16) / 8
    fields = loaders.open(writer(tmp_path / "f.mat", wave(x) + 4e-6j * wave(x), x))
    assert fields.channels == ("u",)
    assert np.array_equal(fields.u[0, 0].numpy(), wave(x).T)
    assert "imaginary part of at most" in fields.attributes["notes"]


@pytest.mark.parametrize("writer", [write_mat, write_mat73])
def test_complex_field_is_two_channels(writer: Callable[..., Path], tmp_path: Path) -> None:
    x = np.arange(16) / 8
    u = wave(x) * np.exp(1j * TIMES)
    fields = loaders.open(writer(tmp_path / "f.mat", u, x))
    assert fields.channels == ("u_real", "u_imag")
    assert np.array_equal(fields.u[0, 0].numpy(), u.real.T)
    assert np.array_equal(fields.u[0, 1].numpy(), u.imag.T)
    assert fields.grid.axis("x").periodic


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.zeros((1, 9)), "y": np.zeros((1, 9)), "w": np.zeros((1, 8))}, "x, y and values at these points"),
        ({"b": np.zeros((4, 8)), "u": np.zeros((4, 8))}, r"expects x, t\|tt and usol\|uu\|u; got b \(4, 8\), u \(4, 8\)"),
        ({"x": np.arange(8.0), "t": TIMES, "u": np.zeros((9, 7))}, r"shape \(nx, nt\) = \(8, 7\); got \(9, 7\)"),
        ({"x": np.arange(8.0)[::-1], "t": TIMES, "u": np.zeros((8, 7))}, "increasing coordinates x"),
        ({"x": np.arange(8.0), "t": TIMES * np.nan, "u": np.zeros((8, 7))}, "finite coordinates t"),
        ({"x": np.zeros((8, 7)), "t": TIMES, "u": np.zeros((8, 7))}, "vector of coordinates x"),
        ({"x": np.arange(8.0), "t": np.zeros((1, 0)), "u": np.zeros((8, 0))}, "vector of coordinates t"),
    ],
)
def test_other_mat_files_are_refused(arrays: dict[str, np.ndarray], message: str, tmp_path: Path) -> None:
    scipy.io.savemat(tmp_path / "f.mat", arrays)
    with pytest.raises(ValueError, match=message):
        loaders.open(tmp_path / "f.mat")


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dtype", ["f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "c16", "c8", "?"])
def test_mat5_reads_what_scipy_writes(dtype: str, compressed: bool, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    array = (rng.integers(0, 100, size=(3, 4, 5)) + (1j * rng.random((3, 4, 5)) if dtype.startswith("c") else 0)).astype(dtype)
    content = {"array": array, "n": np.array([[3]], dtype=dtype), "a_rather_long_name_of_an_array": array[0], "none": array[:0, 0]}
    others = {"text": "words", "cell": np.array([[1, "a"]], dtype=object), "structure": {"a": 1.0}, "sparse": scipy.sparse.eye(3).tocsc()}
    scipy.io.savemat(tmp_path / "f.mat", content | others, do_compression=compressed)
    arrays = read_arrays((tmp_path / "f.mat").read_bytes())
    assert set(arrays) == set(content)
    for name, values in content.items():
        assert arrays[name].shape == values.shape
        assert np.array_equal(arrays[name], values)


def test_mat5_big_endian() -> None:
    """One 2 x 2 int16 array of class double, written by hand as a big-endian machine does."""
    name, values = b"ab", np.array([[1, 2], [3, -4]])
    body = struct.pack(">IIII", 6, 8, 6, 0) + struct.pack(">IIii", 5, 8, 2, 2)
    body += struct.pack(">HH4s", len(name), 1, name) + struct.pack(">II4h", 3, 8, *values.ravel(order="F"))
    data = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x01\x00MI" + struct.pack(">II", 14, len(body)) + body
    array = read_arrays(data)["ab"]
    assert array.dtype == np.float64
    assert array.dtype.isnative
    assert np.array_equal(array, values)


def test_mat5_wrong_type_number(tmp_path: Path) -> None:
    """A byte that made SciPy's reader read outside its tables and end the process."""
    path = write_mat(tmp_path / "f.mat", wave(np.arange(16) / 8), np.arange(16) / 8)
    data = bytearray(path.read_bytes())
    assert data[176] == 9, "the type of the first payload, double"
    data[176] = 62
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"truncated or damaged.*unknown type 62"):
        loaders.open(path)


# --- pyro2 -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ghosts", [0, 2])
def test_pyro2_round_trip(ghosts: int, tmp_path: Path) -> None:
    state = euler_state()
    fields = loaders.open(write_pyro2(tmp_path / "f.h5", state, ghosts=ghosts))
    assert fields.channels == ("density", "x-momentum", "y-momentum", "energy", "tracer")
    for i, name in enumerate(fields.channels):
        assert np.array_equal(fields.u[0, i].numpy(), state[name])
    assert fields.roles == {"density": ("density",), "momentum": ("x-momentum", "y-momentum"), "energy": ("energy",)}
    assert fields.parameters["gamma"].tolist() == [1.4]
    assert fields.attributes["time"] == 0.5
    assert fields.attributes["blob.radius"] == 0.25
    assert "x periodic to periodic, y reflect-even to reflect-even" in fields.attributes["boundaries"]
    assert fields.laws == ()


def test_pyro2_axes_are_cell_centred(tmp_path: Path) -> None:
    grid = loaders.open(write_pyro2(tmp_path / "f.h5", euler_state())).grid
    x, y = grid.axes
    assert (x.periodic, x.cells, y.periodic, y.cells) == (True, False, False, True)
    assert x.positions().numpy() == pytest.approx(1 + (np.arange(6) + 0.5) / 3)
    assert y.positions().numpy() == pytest.approx((np.arange(4) + 0.5) / 4)
    assert grid.weights().sum().item() == pytest.approx(2.0, rel=1e-15)


@pytest.mark.parametrize(
    ("names", "roles"),
    [
        (("phi", "y-velocity", "x-velocity"), {"velocity": ("x-velocity", "y-velocity")}),
        (("height", "fuel", "x-momentum", "y-momentum"), {"density": ("height",), "momentum": ("x-momentum", "y-momentum")}),
        (("phi",), {}),
    ],
)
def test_pyro2_roles(names: tuple[str, ...], roles: dict[str, tuple[str, ...]], tmp_path: Path) -> None:
    fields = loaders.open(write_pyro2(tmp_path / "f.h5", {name: np.ones((6, 4), dtype=np.float32) for name in names}))
    assert fields.roles == roles
    assert fields.u.dtype == torch.float32
    for channels in roles.values():
        positions = [fields.channel(name) for name in channels]
        assert positions == list(range(positions[0], positions[0] + len(positions)))


def test_pyro2_big_endian(tmp_path: Path) -> None:
    values = np.arange(24.0).reshape(6, 4)
    fields = loaders.open(write_pyro2(tmp_path / "f.h5", {"phi": values.astype(">f8")}))
    assert np.array_equal(fields.u[0, 0].numpy(), values)


def test_other_pyro2_files_are_refused(tmp_path: Path) -> None:
    path, state = tmp_path / "f.h5", {"phi": np.ones((6, 4))}
    with pytest.raises(ValueError, match="periodic at both ends"):
        loaders.open(write_pyro2(path, state, boundary=("periodic", "outflow", "outflow", "outflow")))
    with pytest.raises(ValueError, match=r"shape \(nx, ny\) = \(5, 4\); got \(6, 4\)"):
        loaders.open(write_pyro2(path, state, nx=5))
    with pytest.raises(ValueError, match="Cartesian"):
        loaders.open(write_pyro2(path, state, coord_type=1))
    with h5py.File(write_pyro2(path, state), "r+") as file:
        del file["state/phi/data"]
    with pytest.raises(ValueError, match="numbers in state/phi/data"):
        loaders.open(path)
    with h5py.File(path, "r+") as file:
        del file["state/phi"]
    with pytest.raises(ValueError, match="got none"):
        loaders.open(path)


# --- files that cannot be opened ---------------------------------------------------------------------------------------------------


def test_missing_folder_empty_and_unknown_format(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is none at"):
        loaders.open(tmp_path / "nothing.mat")
    with pytest.raises(ValueError, match="is empty"):
        loaders.open(tmp_path)
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(ValueError, match=r"not recognised, it is a folder with notes.txt: name a file inside it"):
        loaders.open(tmp_path)
    (tmp_path / "empty.pt").touch()
    with pytest.raises(ValueError, match="is empty"):
        loaders.open(tmp_path / "empty.pt")
    with pytest.raises(ValueError, match=r"^'matlb' is not a format .* Did you mean 'matlab'\? `pcfm list formats`"):
        loaders.open(tmp_path / "empty.pt", "matlb")


def test_what_is_neither_a_file_nor_a_folder_is_refused_unread(tmp_path: Path) -> None:
    """Opening a pipe that no one writes to would wait for ever."""
    os.mkfifo(tmp_path / "fifo.h5")
    with pytest.raises(ValueError, match=r"fifo.h5' is a pipe, socket or device"):
        loaders.open(tmp_path / "fifo.h5")


def test_an_unfinished_run_is_named_where_its_file_is_missing(tmp_path: Path) -> None:
    (tmp_path / "run.h5.part").write_bytes(b"begun")
    with pytest.raises(ValueError, match=r"none at '.*run.h5'. An unfinished run left run.h5.part there: repeat its command with --resume"):
        loaders.open(tmp_path / "run.h5")


@pytest.mark.parametrize("name", ["flow.h5", "table.csv", "field.npy"])
def test_a_pointer_of_git_lfs_is_no_data(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{64 * 'a'}\nsize 12345\n")
    with pytest.raises(ValueError, match=rf"Git LFS pointer, .* 12345 bytes. Fetch that: git lfs pull --include '\*{name}'"):
        loaders.open(tmp_path / name)


@pytest.mark.parametrize("unlimited", [False, True])
def test_truncated_classic_netcdf(unlimited: bool, tmp_path: Path) -> None:
    """Wherever it ends, in its header, among fixed arrays or records; scipy's own words, which are about NumPy, are not passed on."""
    path = tmp_path / "flow.nc"
    with netcdf_file(path, "w") as file:
        for axis, points in (("time", None if unlimited else 4), ("x", 5)):
            file.createDimension(axis, points)
            file.createVariable(axis, "d", (axis,))[:] = np.arange(points or 4)
        file.createVariable("u", "d", ("time", "x"))[:] = np.ones((4, 5))
    content = path.read_bytes()
    loaders.open(path)
    for length in range(9, len(content) - 8, 7):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"^flow.nc: netcdf expects ") as caught:
            loaders.open(path)
        assert re.search(rf"truncated or damaged \(its {length} bytes and what its header says do not fit", str(caught.value)), caught.value


FOREIGN = {
    "text": (b"x, y\n1.0, 2.0\n", "a text file"),
    "png": (b"\x89PNG\r\n\x1a\n" + bytes(64), "a PNG image"),
    "pickle": (b"\x80\x04\x95\x00", "a Python pickle"),
    "npy": (b"\x93NUMPY\x01\x00", "a NumPy array"),
    "zip": (b"PK\x03\x04" + bytes(26) + b"entry.txt", "a zip archive"),
    "bytes": (b"\x00\x01\x02\x03", "a binary file of an unknown kind, or damaged: it begins with 00 01 02 03"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_foreign_files(kind: str, tmp_path: Path) -> None:
    content, what = FOREIGN[kind]
    path = tmp_path / "foreign.h5"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"foreign.h5: not recognised, it is {what}.*`pcfm list formats`") as caught:
        loaders.open(path)
    assert len(str(caught.value)) < 300 + len(str(tmp_path))
    for format in FORMATS:
        with pytest.raises(ValueError, match=f"not of format {format} .*it is {what}.*Leave `format` out"):
            loaders.open(path, format)


def test_foreign_hdf5(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["state"], file["grid"] = 1.0, 2.0
    with pytest.raises(ValueError, match="it is an HDF5 file laid out otherwise"):
        loaders.open(tmp_path / "f.h5")


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 0.99])
def test_truncated_files(kind: str, share: float, tmp_path: Path) -> None:
    path = WRITERS[kind](tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=r"truncated|expects") as caught:
        loaders.open(path)
    assert "\n" not in str(caught.value)
    if share > 0.2:
        with pytest.raises(ValueError, match="truncated"):
            loaders.open(path)


@pytest.mark.parametrize("kind", ["neuraloperator", "matlab"])
def test_damaged_files_open_or_raise_one_line(kind: str, tmp_path: Path) -> None:
    """Bytes flipped anywhere: whatever the parsers below raise arrives as a ValueError of one line, or the file still opens.

    Not for HDF5, whose library can end the process on flipped bytes of its heap of strings, before any check of ours.
    """
    path = WRITERS[kind](tmp_path)
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(200):
        damaged = bytearray(content)
        for place in rng.integers(len(content), size=3):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        message = ""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                loaders.open(path)
            except ValueError as error:
                message = str(error)
        assert "\n" not in message


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_values_that_are_not_finite(bad: float, tmp_path: Path) -> None:
    what = "NaN" if math.isnan(bad) else "infinite"
    x = np.arange(16) / 8
    u = wave(x)
    u[3, 2] = u[0, 1] = u[-1, 0] = bad
    for writer in (write_mat, write_mat73):
        with pytest.raises(ValueError, match=rf"channel 'u' has 3 {what} among its 112 values"):
            loaders.open(writer(tmp_path / "f.mat", u, x))
    state = euler_state()
    state["energy"][1, 1] = bad
    with pytest.raises(ValueError, match=rf"channel 'energy' has 1 {what} among its 24 values\. Repair"):
        loaders.open(write_pyro2(tmp_path / "f.h5", state))
    y = torch.zeros(2, 17, 4)
    y[1, 3] = bad
    with pytest.raises(ValueError, match=rf"channel 'u' has 4 {what} among its 136 values"):
        loaders.open(write_pt(tmp_path / "f.pt", {"x": y[:, 0], "y": y}))
    with pytest.raises(ValueError, match=rf"parameter 'viscosity' has 2 {what}"):
        loaders.open(write_pt(tmp_path / "f.pt", {"x": y[:, 0], "y": 0 * y.nan_to_num(), "visc": torch.tensor(bad)}))


# --- the real files ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "count"), [("test", 400), ("train", 800)])
def test_real_burgers(name: str, count: int) -> None:
    path = real(f"neuraloperator/burgers_{name}_16.pt")
    fields = loaders.open(path)
    assert fields.u.shape == (count, 1, 17, 16)
    x = torch.load(path, weights_only=True)["x"]
    assert torch.equal(fields.u[:, 0, 0], x)
    assert torch.equal(fields.parameters["viscosity"], torch.full((count,), 0.01, dtype=torch.float64))
    mean = fields.u[:, 0].mean(dim=-1)
    assert 1.4e-3 < (mean - mean[:, :1]).abs().max() < 2e-3, "the drift that keeps mass from being a law of this file"
    energy = fields.u[:, 0].square().mean(dim=-1) / 2
    assert (energy.diff(dim=1) <= 0).all()


def test_real_burgers_end_at_096() -> None:
    """Energy lost = energy dissipated, d/dt <u²>/2 = -nu <u_x²>, to 1 % for an end time of 0.96; it would be 3 % off for 1."""
    fields = loaders.open(real("neuraloperator/burgers_train_16.pt"))
    u, x = fields.u[:, 0], fields.grid.axis("x")
    k = 2 * math.pi * torch.fft.rfftfreq(x.points, x.spacing, dtype=torch.float64)
    slope = torch.fft.irfft(1j * k * torch.fft.rfft(u), n=x.points)
    rate = fields.parameters["viscosity"][:, None] * slope.square().mean(dim=-1)
    lost = (u[:, 0].square() - u[:, -1].square()).mean(dim=-1) / 2
    dissipated = (rate * fields.grid.axis("time").weights()).sum(dim=1)
    assert (lost.sum() / dissipated.sum()).item() == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize(("name", "count"), [("test", 50), ("train", 1000)])
def test_real_darcy(name: str, count: int) -> None:
    fields = loaders.open(real(f"neuraloperator/darcy_{name}_16.pt"))
    assert fields.u.shape == (count, 2, 16, 16)
    assert fields.u.dtype == torch.float32
    assert fields.u[:, 0].unique().tolist() == [0.0, 1.0]
    assert fields.laws == ()


SPACE_TIME = {  # file: shape, periodic, extent, first coordinate, initial state
    "raissi_pinns/burgers_shock.mat": ((100, 256), False, 2.0, -1.0, lambda x: -torch.sin(math.pi * x)),
    "raissi_pinns/AC.mat": ((201, 512), True, 2.0, -1.0, lambda x: x**2 * torch.cos(math.pi * x)),
    "raissi_pinns/KdV.mat": ((201, 512), True, 2.0, -1.0, lambda x: torch.cos(math.pi * x)),
    "raissi_pinns/NLS.mat": ((201, 256), True, 10.0, -5.0, lambda x: 2 / torch.cosh(x)),
    "raissi_pinns/KS.mat": ((201, 512), True, 2.0, -1.0, lambda x: -torch.sin(math.pi * x)),
    "pysindy/kuramoto_sivishinky.mat": (
        (251, 1024),
        True,
        32 * math.pi,
        math.pi / 32,
        lambda x: torch.cos(x / 16) * (1 + torch.sin(x / 16)),
    ),
    "pysindy/kdv.mat": ((201, 512), True, 60.0, -30.0, None),
    "pysindy/burgers.mat": ((101, 256), True, 16.0, -8.0, lambda x: torch.exp(-((x + 2) ** 2))),
}


@pytest.mark.parametrize("name", SPACE_TIME)
def test_real_space_time(name: str) -> None:
    shape, periodic, extent, origin, initial = SPACE_TIME[name]
    fields = loaders.open(real(name))
    assert fields.grid.shape == shape
    assert fields.u.dtype == torch.float64
    assert fields.channels == (("u_real", "u_imag") if "NLS" in name else ("u",))
    x = fields.grid.axis("x")
    assert (x.periodic, x.uniform) == (periodic, True)
    assert x.extent == pytest.approx(extent, rel=1e-12)
    assert x.origin == pytest.approx(origin, rel=1e-12)
    if initial is not None:
        assert (fields.u[0, 0, 0] - initial(x.positions())).abs().max() < 1e-13


@pytest.mark.parametrize(
    ("name", "mass", "tolerance"),
    [
        ("raissi_pinns/burgers_shock.mat", 0.0, 1e-14),
        ("raissi_pinns/KdV.mat", 0.0, 1e-15),
        ("raissi_pinns/KS.mat", 0.0, 1e-15),
        ("pysindy/kuramoto_sivishinky.mat", 0.0, 2e-14),
        ("pysindy/kdv.mat", 3.414128, 5e-7),
        ("pysindy/burgers.mat", math.sqrt(math.pi), 1e-14),
    ],
)
def test_real_mass(name: str, mass: float, tolerance: float) -> None:
    fields = loaders.open(real(name))
    drift = total(fields.u, fields.grid)[0, 0]
    assert (drift - mass).abs().max() < tolerance
    assert (drift - drift[0]).abs().max() < 1e-12


@pytest.mark.parametrize(
    ("name", "value", "drift"),
    [("raissi_pinns/KdV.mat", 1.0, 1e-11), ("raissi_pinns/NLS.mat", 7.99927, 4e-11), ("pysindy/kdv.mat", None, 1e-10)],
)
def test_real_square_norm(name: str, value: float | None, drift: float) -> None:
    fields = loaders.open(real(name))
    norm = total(fields.u.square(), fields.grid).sum(dim=1)[0]
    assert ((norm - norm[0]).abs().max() / norm[0]).item() < drift
    if value is not None:
        assert norm[0].item() == pytest.approx(value, abs=1e-5)


def test_real_allen_cahn_mass_is_not_conserved() -> None:
    fields = loaders.open(real("raissi_pinns/AC.mat"))
    mass = total(fields.u, fields.grid)[0, 0]
    assert (mass - mass[0]).abs().max().item() == pytest.approx(0.26, abs=0.005)
    assert fields.laws == ()


@pytest.mark.parametrize("name", [*SPACE_TIME, "raissi_pinns/cylinder_nektar_t0_vorticity.mat"])
def test_real_mat_files_read_as_by_scipy(name: str) -> None:
    path = real(name)
    expected = {key: value for key, value in scipy.io.loadmat(path).items() if not key.startswith("__")}
    arrays = read_arrays(path.read_bytes())
    assert set(arrays) == set(expected)
    assert all(np.array_equal(arrays[key], value) for key, value in expected.items())


@pytest.mark.parametrize(
    ("name", "integrals"),
    [
        ("sod_x_0076", {"density": 0.028125, "energy": 0.06875, "x-momentum": 0.009, "y-momentum": 0.0}),
        ("acoustic_pulse_0160", {"density": 1.4091787374421485, "energy": 2.523179123464995, "x-momentum": 0.0, "y-momentum": 0.0}),
        ("dam_x_0081", {"height": 0.028125, "x-momentum": 0.0073828125, "y-momentum": 0.0}),
    ],
)
def test_real_pyro2_integrals(name: str, integrals: dict[str, float]) -> None:
    fields = loaders.open(real(f"pyro2/{name}.h5"))
    found = total(fields.u, fields.grid)[0]
    for channel, value in integrals.items():
        assert found[fields.channel(channel)].item() == pytest.approx(value, rel=2e-15, abs=1e-16)
    assert [fields.channels[i] for i in fields.role("momentum")] == ["x-momentum", "y-momentum"]
    assert fields.role("density") == (0,)


def test_real_shear_layer() -> None:
    fields = loaders.open(real("pyro2/shear_128_0216.h5"))
    velocity = fields.u[:, list(fields.role("velocity"))]
    assert fields.role("velocity") == (0, 1)
    assert all(axis.periodic and axis.origin == 0.5 / 128 for axis in fields.grid.axes)
    assert total(velocity, fields.grid).abs().max() < 1e-16
    assert (total(velocity.square(), fields.grid).sum() / 2).item() == pytest.approx(0.45148, abs=5e-6)
    h = fields.grid.axis("x").spacing
    u, v = velocity[0]
    divergence = (u.roll(-1, 0) - u.roll(1, 0) + v.roll(-1, 1) - v.roll(1, 1)) / (2 * h)
    assert divergence.square().mean().sqrt().item() == pytest.approx(0.074, abs=5e-4)
    assert divergence.abs().max().item() == pytest.approx(0.474, abs=5e-4)
    assert fields.laws == ()
    assert "Approximate projection" in fields.attributes["notes"]


def test_real_pyro2_boundaries_and_parameters() -> None:
    fields = loaders.open(real("pyro2/rt_0945.h5"))
    x, y = fields.grid.axes
    assert (x.points, x.periodic, y.points, y.cells, y.extent) == (64, True, 192, True, 3.0)
    assert {name: value.item() for name, value in fields.parameters.items()} == {"gamma": 1.4, "grav": -1.0}
    heat = loaders.open(real("pyro2/gaussian_0164.h5"))
    assert heat.channels == ("phi",)
    assert heat.parameters["k"].item() == 1.0
    assert all(axis.cells for axis in heat.grid.axes)


def test_real_multigrid_solution() -> None:
    """v vanishes on the walls half a cell outside the first centres: ghost values are the negative of the cells beside them."""
    fields = loaders.open(real("pyro2/mg_poisson_dirichlet.h5"))
    v, f = fields.u[0, fields.channel("v")], fields.u[0, fields.channel("f")]
    h = fields.grid.axis("x").spacing
    padded = torch.nn.functional.pad(v, (1, 1, 1, 1))
    padded[0], padded[-1], padded[:, 0], padded[:, -1] = -padded[1], -padded[-2], -padded[:, 1], -padded[:, -2]
    laplacian = (padded[2:, 1:-1] + padded[:-2, 1:-1] + padded[1:-1, 2:] + padded[1:-1, :-2] - 4 * v) / h**2
    assert (laplacian - f).abs().max() < 1e-9
    x, y = fields.grid.mesh()
    assert (v - (x**2 - x**4) * (y**4 - y**2)).abs().max() < 5e-6
