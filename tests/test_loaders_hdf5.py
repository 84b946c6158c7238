"""Loaders of the large benchmarks, on small files written as their generators do.

Values are functions of the coordinates wherever that can be: then one comparison on the mesh of the loaded grid tells order of axes,
origin, spacing and channel at once.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from time import sleep
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io
import torch

from constraints import DivergenceFree, Mass
from pde_datasets import loaders
from pde_datasets.fields import Fields
from pde_datasets.loaders import FORMATS, hdf5
from pde_datasets.loaders.blastnet import raw
from pde_datasets.loaders.mat import shapes
from pde_datasets.loaders.parts import Part, assembled

ROOT = Path(__file__).resolve().parents[1]
OURS = ("pdebench", "the-well", "pdearena", "pcfm-paper", "pbfm", "jhtdb", "fno", "diffusionpde", "apebench", "blastnet")


def value(*coordinates: Any) -> Any:
    """A number that tells sample, channel and coordinates apart; exact in single precision to 1e-6."""
    factors = (1.0, 0.31, 0.17, 0.073, 0.0297, 0.0113)
    return sum(factor * np.asarray(c) for factor, c in zip(factors, coordinates, strict=False))


def table(*axes: np.ndarray) -> np.ndarray:
    """`value` on a product of axes."""
    return value(*np.meshgrid(*axes, indexing="ij")).astype(np.float32)


def check(fields: Fields, samples: np.ndarray | None = None, channels: tuple[int, ...] | None = None, tolerance: float = 2e-6) -> None:
    """Values are `value(sample, channel, *coordinates)` on the mesh of the grid."""
    i = np.arange(len(fields)) if samples is None else samples
    c = np.arange(len(fields.channels)) if channels is None else np.array(channels)
    axes = [axis.positions().numpy() for axis in fields.grid.axes]
    expected = value(*np.meshgrid(i, c, *axes, indexing="ij"))
    assert fields.u.shape == expected.shape
    assert np.abs(fields.values.numpy() - expected).max() < tolerance * max(1.0, np.abs(expected).max())


def centres(n: int, low: float = 0.0, high: float = 1.0) -> np.ndarray:
    return low + (np.arange(n) + 0.5) * (high - low) / n


# --- PDEBench ----------------------------------------------------------------------------------------------------------------------


def write_tensor(path: Path, *, extra: int = 1, **attributes: float) -> Path:
    t, x = 0.01 * np.arange(5 + extra), centres(8)
    with h5py.File(path, "w") as file:
        file["tensor"] = table(np.arange(3), np.zeros(1), t[:5], x)[:, 0]
        file["x-coordinate"], file["t-coordinate"] = x.astype(np.float32), t.astype(np.float32)
        file.attrs.update(attributes)
    return path


def write_flow(path: Path, dimensions: int) -> Path:
    names = ("density", "pressure", "Vx", "Vy", "Vz")[: 2 + dimensions]
    t, axes = 0.05 * np.arange(4), [centres(n) for n in (6, 5, 4)[:dimensions]]
    with h5py.File(path, "w") as file:
        for c, name in enumerate(names):
            file[name] = table(np.arange(2), np.array([c]), t[:3], *axes)[:, 0]
        for axis, x in zip("xyz", axes, strict=False):
            file[f"{axis}-coordinate"] = x.astype(np.float32)
        file["t-coordinate"] = t.astype(np.float32)
        file.attrs.update({"eta": 0.01, "zeta": 0.02} | ({"M": 0.1} if dimensions > 1 else {}))
    return path


def write_darcy(path: Path) -> Path:
    x, y = centres(6), centres(5)
    with h5py.File(path, "w") as file:
        file["nu"] = table(np.arange(3), np.zeros(1), x, y)[:, 0]
        file["tensor"] = table(np.arange(3), np.ones(1), x, y)
        file["x-coordinate"], file["y-coordinate"] = x.astype(np.float32), y.astype(np.float32)
        file.attrs["beta"] = 10.0
    return path


def write_groups(path: Path, kind: str) -> Path:
    t, x, y = np.linspace(0, 5, 4), centres(6, -1, 1), centres(5, -1, 1)
    with h5py.File(path, "w") as file:
        for i, seed in enumerate((2, 10, 7)):
            rank = sorted((2, 10, 7)).index(seed)
            group = file.create_group(f"{seed:04d}")
            data = table(np.array([rank]), np.arange(2), t, x, y)[0]  # (c, t, x, y)
            if kind == "sorption":
                data = table(np.array([rank]), np.zeros(1), t, x)[0].transpose(1, 2, 0)
            elif kind == "reaction":
                data = data.transpose(1, 3, 2, 0)
            else:
                data = data[:1].transpose(1, 2, 3, 0)
            group.create_dataset("data", data=data, compression="lzf")
            for name, axis in (("x", x), ("y", y), ("t", t)):
                if name != "y" or kind != "sorption":
                    group[f"grid/{name}"] = axis.astype(np.float32)
            group.attrs["config"] = f"name: test\nsim:\n  seed: {seed}\n  dam_radius: {0.3 + 0.1 * i}\n"
    return path


def write_incompressible(path: Path, shift: float = 0.0) -> Path:
    t, x, y = np.linspace(0, 0.5, 3), centres(5), centres(4)
    data = table(np.arange(2), np.arange(3), t, x, y)
    with h5py.File(path, "w") as file:
        file.create_dataset("velocity", data=np.moveaxis(data[:, :2], 1, -1), compression="lzf", shuffle=True)
        file.create_dataset("particles", data=np.moveaxis(data[:, 2:], 1, -1), compression="lzf", shuffle=True)
        file["force"] = table(np.arange(2), x, y, np.arange(2))
        file["t"] = np.stack([t, t + shift]).astype(np.float32)
        file.attrs["config"], file.attrs["latestIndex"] = "NU: 0.01", 2
    return path


@pytest.mark.parametrize(
    ("attributes", "parameters", "laws"),
    [
        ({"beta": 0.4}, {"speed": 0.4}, ("mass",)),
        ({"Nu": 0.001}, {"viscosity": 0.001}, ("mass",)),
        ({"Nu": 0.5, "rho": 10.0}, {"viscosity": 0.5, "rate": 10.0}, ()),
        ({}, {}, ()),
    ],
)
def test_pdebench_tensors(attributes: dict[str, float], parameters: dict[str, float], laws: tuple[str, ...], tmp_path: Path) -> None:
    fields = loaders.open(write_tensor(tmp_path / "f.hdf5", **attributes))
    check(fields)
    x = fields.grid.axis("x")
    assert (x.periodic, x.extent) == (True, pytest.approx(1.0, rel=1e-6))
    assert {name: values.tolist() for name, values in fields.parameters.items()} == {n: [v] * 3 for n, v in parameters.items()}
    assert fields.laws == laws
    assert ("equation" in fields.attributes) == bool(attributes)


def test_pdebench_burgers_conserves_its_sum(tmp_path: Path) -> None:
    """The stated law on data that obey it: a wave that moves."""
    path = write_tensor(tmp_path / "f.hdf5", Nu=0.1)
    with h5py.File(path, "r+") as file:
        x, t = file["x-coordinate"][()], file["t-coordinate"][:5]
        file["tensor"][...] = 1 + np.sin(2 * np.pi * (x - t[:, None])) * np.array([1, 2, 3])[:, None, None]
    fields = loaders.open(path)
    assert fields.laws == ("mass",)
    mass = Mass(fields.grid, torch.ones(5, dtype=torch.float64))
    assert mass.residual(fields.u.double()).abs().max() < 1e-6


@pytest.mark.parametrize("extra", [0, 1])
def test_trap_1_one_time_more_than_states(extra: int, tmp_path: Path) -> None:
    fields = loaders.open(write_tensor(tmp_path / "f.hdf5", extra=extra, beta=1.0))
    assert fields.grid.axis("time").extent == pytest.approx(0.04)
    assert ("belongs to no state" in fields.attributes["notes"]) == bool(extra)


def test_pdebench_wrong_number_of_times(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expects 5 or 6 times for 5 states; got 7"):
        loaders.open(write_tensor(tmp_path / "f.hdf5", extra=2))


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_trap_2_gamma_is_not_stored(dimensions: int, tmp_path: Path) -> None:
    fields = loaders.open(write_flow(tmp_path / f"{dimensions}D_CFD_Rand_Eta0.01_periodic_Train.hdf5", dimensions))
    check(fields)
    assert fields.parameters["gamma"].tolist() == pytest.approx([5 / 3] * 2, rel=1e-15)
    assert "gamma is not stored" in fields.attributes["notes"]
    assert fields.roles["velocity"] == ("Vx", "Vy", "Vz")[:dimensions]
    assert fields.laws == ("mass",)
    assert all(axis.periodic for axis in fields.grid.space_axes)
    assert ("mach" in fields.parameters) == (dimensions > 1)


@pytest.mark.parametrize("name", ["2D_CFD_Rand_trans_Train.hdf5", "unknown.hdf5"])
def test_pdebench_flow_that_is_not_periodic_states_no_law(name: str, tmp_path: Path) -> None:
    fields = loaders.open(write_flow(tmp_path / name, 2))
    check(fields)
    assert all(axis.cells and axis.extent == pytest.approx(1.0) for axis in fields.grid.space_axes)
    assert fields.laws == ()


def test_pdebench_darcy(tmp_path: Path) -> None:
    fields = loaders.open(write_darcy(tmp_path / "f.hdf5"))
    check(fields)
    assert fields.channels == ("coefficient", "pressure")
    assert all(axis.cells for axis in fields.grid.axes)
    assert fields.grid.weights().sum().item() == pytest.approx(1.0, rel=1e-6)
    assert fields.parameters["force"].tolist() == [10.0] * 3


@pytest.mark.parametrize("kind", ["sorption", "reaction", "dam"])
def test_pdebench_groups(kind: str, tmp_path: Path) -> None:
    """Samples in the order of their seeds; the reaction is stored (t, y, x, channel)."""
    fields = loaders.open(write_groups(tmp_path / "f.h5", kind))
    check(fields)
    assert fields.grid.names == (("time", "x") if kind == "sorption" else ("time", "x", "y"))
    assert all(axis.cells and axis.extent == pytest.approx(2.0) for axis in fields.grid.space_axes)
    assert fields.parameters["seed"].tolist() == [2, 7, 10]
    assert fields.laws == ()
    assert "dam_radius" in fields.attributes["config"]
    if kind == "dam":
        assert fields.parameters["radius"].tolist() == pytest.approx([0.3, 0.5, 0.4])
        assert fields.roles == {"density": ("h",)}


def test_pdebench_group_of_another_shape(tmp_path: Path) -> None:
    path = write_groups(tmp_path / "f.h5", "dam")
    with h5py.File(path, "r+") as file:
        del file["0010/data"]
        file["0010/data"] = np.zeros((4, 6, 4, 1), np.float32)
    with pytest.raises(ValueError, match="damaged"):
        loaders.open(path)


def test_trap_8_resampled_velocity_claims_no_divergence(tmp_path: Path) -> None:
    fields = loaders.open(write_incompressible(tmp_path / "f.h5"))
    check(fields)
    assert fields.laws == ()
    assert fields.roles == {"velocity": ("Vx", "Vy")}
    assert "no discrete divergence" in fields.attributes["notes"]
    x, y = (axis.positions().numpy() for axis in fields.grid.space_axes)
    expected = table(np.arange(2), x, y, np.arange(2)).transpose(0, 3, 1, 2)
    assert np.array_equal(fields.parameters["force"].numpy(), expected)


def test_pdebench_times_of_each_sample(tmp_path: Path) -> None:
    fields = loaders.open(write_incompressible(tmp_path / "f.h5", shift=0.25))
    assert fields.grid.axis("time").positions().tolist() == [0, 1, 2]
    assert fields.parameters["time"][1].tolist() == pytest.approx([0.25, 0.5, 0.75])


# --- The Well ----------------------------------------------------------------------------------------------------------------------


def write_well(path: Path, dataset: str = "shear_flow", kinds: tuple[str, str] = ("PERIODIC", "periodic")) -> Path:
    """Every combination of flags: what does not vary has no axis."""
    t, x, y = np.linspace(0, 2, 4), np.arange(6) / 3, np.arange(5) / 5
    zero, i, vector = np.zeros(1), np.arange(3), np.arange(2)

    def add(group: Any, name: str, data: np.ndarray, sample: bool, time: bool, dims: tuple[bool, ...] = ()) -> None:
        entry = group.create_dataset(name, data=data.astype(np.float32))
        entry.attrs["sample_varying"], entry.attrs["time_varying"] = sample, time
        if dims:
            entry.attrs["dim_varying"] = list(dims)

    with h5py.File(path, "w") as file:
        file.attrs.update({"dataset_name": dataset, "grid_type": "cartesian", "n_spatial_dims": 2, "n_trajectories": 3, "Reynolds": 1e4})
        file.attrs["simulation_parameters"] = ["Reynolds"]
        dimensions = file.create_group("dimensions")
        dimensions.attrs["spatial_dims"] = ["x", "y"]
        for name, values in (("time", t), ("x", x), ("y", y)):
            add(dimensions, name, values, False, False)
        for dim, kind in zip("xy", kinds, strict=True):
            group = file.create_group(f"boundary_conditions/{dim}_{kind.lower()}")
            group.attrs.update({"associated_dims": [dim], "bc_type": kind, "sample_varying": False, "time_varying": False})
            group.attrs["associated_fields"] = []
            group["mask"] = np.zeros(6 if dim == "x" else 5, bool)
        scalars = file.create_group("scalars")
        scalars.attrs["field_names"] = ["Reynolds", "Schmidt", "forcing"]
        add(scalars, "Reynolds", np.array(1e4), False, False)
        add(scalars, "Schmidt", np.array([0.1, 1.0, 10.0]), True, False)
        add(scalars, "forcing", table(i, t), True, True)
        t0, t1, t2 = (file.create_group(f"t{order}_fields") for order in range(3))
        t0.attrs["field_names"] = ["tracer", "profile", "static"]
        add(t0, "tracer", table(i, zero, t, x, y)[:, 0], True, True, (True, True))
        add(t0, "profile", table(zero, zero + 1, zero, zero, y)[0, 0, 0, 0], False, False, (False, True))
        add(t0, "static", table(i, zero + 2, zero, x, zero)[:, 0, 0, :, 0], True, False, (True, False))
        t1.attrs["field_names"] = ["velocity"]
        add(t1, "velocity", np.moveaxis(table(i, vector + 3, t, x, y), 1, -1), True, True, (True, True))
        t2.attrs["field_names"] = ["strain"]
        strain = table(zero, np.arange(4) + 5, t, x, y)[0]  # (4, t, x, y)
        add(t2, "strain", np.moveaxis(strain.reshape(2, 2, 4, 6, 5), (0, 1), (-2, -1)), False, True, (True, True))
    return path


def test_the_well_flags(tmp_path: Path) -> None:
    """What does not vary along an axis is repeated along it."""
    fields = loaders.open(write_well(tmp_path / "f.hdf5"))
    assert fields.channels == (
        *("tracer", "profile", "static", "velocity_x", "velocity_y"),
        *("strain_xx", "strain_xy", "strain_yx", "strain_yy"),
    )
    i, t, x, y = np.arange(3.0), *(axis.positions().numpy() for axis in fields.grid.axes)
    shape = (3, 4, 6, 5)

    def expected(c: float, *axes: int) -> np.ndarray:
        given = [a if k in axes else np.zeros(1) for k, a in enumerate((i, t, x, y))]
        return np.broadcast_to(value(*np.meshgrid(given[0], [c], *given[1:], indexing="ij"))[:, 0], shape)

    varying = ((0, 1, 2, 3), (3,), (0, 2), (0, 1, 2, 3), (0, 1, 2, 3), *[(1, 2, 3)] * 4)
    for c, axes in enumerate(varying):
        number = c + 0.0
        assert np.abs(fields.u[:, c].numpy() - expected(number, *axes)).max() < 2e-6, fields.channels[c]
    assert fields.roles == {"velocity": ("velocity_x", "velocity_y")}
    assert fields.parameters["Reynolds"].tolist() == [1e4] * 3
    assert fields.parameters["Schmidt"].tolist() == pytest.approx([0.1, 1.0, 10.0])
    assert fields.parameters["forcing"].shape == (3, 4)
    assert fields.u.dtype == torch.float32


def test_the_well_mask_that_marks_nothing_is_still_periodic(tmp_path: Path) -> None:
    fields = loaders.open(write_well(tmp_path / "f.hdf5"))
    assert [(axis.periodic, axis.extent) for axis in fields.grid.space_axes] == [(True, pytest.approx(2.0)), (True, pytest.approx(1.0))]
    assert fields.laws == ("divergence-free:scheme=spectral", "mass:channels=tracer")


def test_the_well_walls(tmp_path: Path) -> None:
    fields = loaders.open(write_well(tmp_path / "f.hdf5", kinds=("periodic", "WALL")))
    assert [axis.periodic for axis in fields.grid.space_axes] == [True, False]
    assert fields.attributes["boundaries"] == "x periodic; y wall"
    assert fields.laws == (), "its laws are those of the periodic set"


def test_the_well_chebyshev_points_and_unequal_times(tmp_path: Path) -> None:
    path = write_well(tmp_path / "f.hdf5", "rayleigh_benard", ("periodic", "wall"))
    y, t = (1 - np.cos(np.pi * centres(5))) / 2, np.array([0.0, 0.1, 0.3, 0.7])
    with h5py.File(path, "r+") as file:
        file["dimensions/y"][...], file["dimensions/time"][...] = y, t
    grid = loaders.open(path).grid
    assert grid.axis("y").positions().numpy() == pytest.approx(y, abs=1e-7)
    assert grid.axis("time").positions().numpy() == pytest.approx(t, abs=1e-7)
    assert not grid.axis("y").uniform


def test_the_well_times_of_each_sample(tmp_path: Path) -> None:
    path = write_well(tmp_path / "f.hdf5")
    with h5py.File(path, "r+") as file:
        t = file["dimensions/time"][()]
        del file["dimensions/time"]
        file["dimensions/time"] = t * np.array([1.0, 2.0, 3.0])[:, None]
        file["dimensions/time"].attrs["sample_varying"] = True
    fields = loaders.open(path)
    assert fields.grid.axis("time").positions().tolist() == [0, 1, 2, 3]
    assert fields.parameters["time"][2].tolist() == pytest.approx([0, 2, 4, 6])


def test_the_well_own_test_writer_names_a_field_it_does_not_store(tmp_path: Path) -> None:
    path = write_well(tmp_path / "f.hdf5")
    with h5py.File(path, "r+") as file:
        file["t0_fields"].attrs["field_names"] = ["constant_field"]
    assert loaders.open(path).channels[:3] == ("profile", "static", "tracer")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: file["t0_fields/tracer"].attrs.update({"time_varying": False}), "with the 3 axes its flags name"),
        (lambda file: file["t1_fields/velocity"].attrs.update({"dim_varying": [True]}), "axes its flags name"),
        (lambda file: file["dimensions/x"].attrs.update({"time_varying": True}), "coordinates x that all samples and times share"),
        (lambda file: file["scalars/Reynolds"].attrs.update({"sample_varying": True}), r"numbers Reynolds of shape \(3,\); got shape \(\)"),
        (lambda file: file.__delitem__("dimensions/y"), "expects coordinates dimensions/y"),
        (lambda file: [file[f"t{k}_fields"].clear() for k in range(3)], "expects fields in t0_fields"),
        (lambda file: file.move("t0_fields/tracer", "t0_fields/velocity_x"), "fields of different names"),
    ],
)
def test_the_well_contradictions(change: Callable[[h5py.File], Any], message: str, tmp_path: Path) -> None:
    path = write_well(tmp_path / "f.hdf5")
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(ValueError, match=message):
        loaders.open(path)


# --- PDEArena ----------------------------------------------------------------------------------------------------------------------


def write_smoke(path: Path, split: str = "train") -> Path:
    """Velocity on faces from a stream function on corners that is 0 on the walls: no cell has a net flux."""
    n, m, samples, times, length = 8, 6, 2, 3, 32.0
    rng = np.random.default_rng(0)
    psi = np.zeros((samples, times, n + 1, m + 1))
    psi[:, :, 1:-1, 1:-1] = rng.normal(size=(samples, times, n - 1, m - 1))
    vx, vy = np.diff(psi, axis=3) / (length / m), -np.diff(psi, axis=2) / (length / n)
    with h5py.File(path, "w") as file:
        group = file.create_group(split)
        group["u"] = rng.random((samples, times, n, m))
        group["vx"], group["vy"] = vx[:, :, :-1, :], vy[:, :, :, :-1]
        group["t"] = np.tile(np.linspace(18.0, 102.0, times), (samples, 1))
        group["x"], group["y"] = (np.tile(np.linspace(0, length, k), (samples, 1)) for k in (n, m))
        for name, number in (("dt", 1.5), ("dx", length / (n - 1)), ("dy", length / (m - 1)), ("buo_y", 0.5)):
            group[name] = np.full(samples, number)
    return path


def write_maxwell(path: Path) -> Path:
    data = table(np.arange(2), np.arange(6), np.arange(3), np.arange(4), np.arange(5), np.arange(2))
    with h5py.File(path, "w") as file:
        for c, name in enumerate(("d_field", "h_field")):
            file[f"test/{name}"] = np.moveaxis(data[:, 3 * c : 3 * c + 3], 1, -1).astype(np.float64)
    return path


def write_line(path: Path, spread: float = 0.1) -> Path:
    samples, times, points = 3, 4, 16
    dx, dt = 0.25 * (1 + spread * np.arange(samples)), 0.2 * (1 + spread * np.arange(samples))
    x = dx[:, None] * np.arange(points)
    phase = 2 * np.pi * np.arange(points) / points
    with h5py.File(path, "w") as file:
        group = file.create_group("valid")
        group[f"pde_{times}-{points}"] = np.sin(phase + np.arange(times)[:, None] + np.arange(samples)[:, None, None]) + 0.5
        group["x"], group["t"], group["dx"], group["dt"] = x, dt[:, None] * np.arange(times), dx, dt
        group["v"] = np.array([0.5, 1.0, 1.5])
    return path


def test_trap_7_staggered_velocity_is_divergence_free_on_its_cells_only(tmp_path: Path) -> None:
    fields = loaders.open(write_smoke(tmp_path / "f.h5"))
    assert fields.channels == ("u", "vx", "vy")
    assert fields.laws == ("divergence-free:scheme=staggered",)
    staggered, central = (
        DivergenceFree(fields.grid, scheme, components=fields.role("velocity"), channels=3).residual(fields.values).abs().max()
        for scheme in ("staggered", "central")
    )
    assert staggered < 1e-14
    assert central > 0.05, "read as values at one point it is another field"
    assert [axis.spacing for axis in fields.grid.space_axes] == [32 / 8, 32 / 6], "and not the stored 32/7, 32/5"
    assert fields.grid.axis("time").positions().tolist() == [18.0, 60.0, 102.0]
    assert fields.parameters["buo_y"].tolist() == [0.5, 0.5]
    assert fields.u.dtype == torch.float64


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_pdearena_group_is_named_after_the_split(split: str, tmp_path: Path) -> None:
    assert loaders.open(write_smoke(tmp_path / "f.h5", split)).attributes["split"] == split


def test_pdearena_maxwell(tmp_path: Path) -> None:
    fields = loaders.open(write_maxwell(tmp_path / "f.h5"))
    check(fields)
    assert fields.channels == ("E_x", "E_y", "E_z", "H_x", "H_y", "H_z")
    assert not any(axis.periodic for axis in fields.grid.axes)
    assert fields.laws == ()


def test_pdearena_line(tmp_path: Path) -> None:
    fields = loaders.open(write_line(tmp_path / "f.h5", spread=0.0))
    assert fields.grid.axis("x").extent == pytest.approx(4.0)
    assert fields.grid.axis("time").extent == pytest.approx(0.6)
    assert fields.laws == ("mass",)
    mass = Mass(fields.grid, torch.full((4,), 2.0, dtype=torch.float64))
    assert mass.residual(fields.values).abs().max() < 1e-14


def test_pdearena_line_with_periods_of_its_own(tmp_path: Path) -> None:
    fields = loaders.open(write_line(tmp_path / "f.h5"))
    assert (fields.grid.axis("x").extent, fields.grid.axis("time").extent) == (1.0, 3.0)
    assert fields.parameters["dx"].tolist() == pytest.approx([0.25, 0.275, 0.3])
    assert fields.parameters["v"].tolist() == [0.5, 1.0, 1.5]
    assert "Periods differ" in fields.attributes["notes"]


# --- the PCFM paper ----------------------------------------------------------------------------------------------------------------


def godunov(front: np.ndarray, inflow: np.ndarray, n: int = 20) -> np.ndarray:
    """The inviscid generator, for all entries of the table at once: (front, inflow, x, t)."""
    x = np.linspace(0, 1, n + 1)
    u = np.zeros((len(front), len(inflow), n + 1, n + 1))
    u[..., 0] = (1 / (1 + np.exp((x - front[:, None]) / 0.02)))[:, None]
    for k in range(n):
        if k > 0:
            u[..., 0, k] = inflow
        now = u[..., k]
        u[..., 1:-1, k + 1] = now[..., 1:-1] - np.diff(flux(now[..., :-1], now[..., 1:]), axis=-1)
        u[..., 0, k + 1] = inflow
        u[..., -1, k + 1] = u[..., -2, k + 1]
    return u


def flux(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Godunov's, for values that are not negative, u²/2 upwind."""
    return np.where(a <= b, np.minimum(a**2, b**2), np.where(a + b > 0, a**2, b**2)) / 2


def write_burgers(path: Path, *, swapped: bool = False, square: bool = False) -> Path:
    front, inflow = np.array([0.3, 0.5, 0.7]), np.array([0.1, 0.9, 0.4] if square else [0.1, 0.9])
    u = godunov(front, inflow)
    with h5py.File(path, "w") as file:
        file["u"] = (u.swapaxes(0, 1) if swapped else u).astype(np.float32)
        file["ic"], file["bc"] = front.astype(np.float32), inflow.astype(np.float32)
        file["x"] = file["t"] = np.linspace(0, 1, 21).astype(np.float32)
    return path


def write_diffusion(path: Path, rate: float = 0.0) -> Path:
    """Explicit steps with given fluxes through the ends, and no reaction: (ic, bc, x, t)."""
    n, steps = 16, 10
    x, step, t = centres(n), 0.01 / 4, 0.01 * np.arange(steps)
    initial = np.stack([np.sin(2 * np.pi * k * x) / 2 + 0.5 for k in (1, 2)])
    ends = np.array([[0.05, -0.02], [0.0, -0.05], [0.03, 0.0]], dtype=np.float32).astype(np.float64)
    u = np.repeat(initial[:, None], 3, axis=1)
    states = [u]
    for k in range(4 * (steps - 1)):
        inner = -0.005 * np.diff(u, axis=-1) * n
        faces = np.concatenate([np.broadcast_to(ends[:, :1], (2, 3, 1)), inner, np.broadcast_to(ends[:, 1:], (2, 3, 1))], axis=-1)
        u = u - step * n * np.diff(faces, axis=-1)
        states += [u] if k % 4 == 3 else []
    with h5py.File(path, "w") as file:
        file["u"] = np.stack(states, axis=-1).astype(np.float32)
        file["ic"], file["bc"], file["x"], file["t"] = (np.asarray(v, dtype=np.float32) for v in (initial, ends, x, t))
        file.attrs["rho"], file.attrs["nu"] = rate, 0.005
    return path


def write_vorticity(path: Path, amplitude: float = 0.1 * math.sqrt(2)) -> Path:
    s, times, phase = 6, 4, np.linspace(0, np.pi / 2, 3)
    x = np.arange(s) / s
    angle = 2 * np.pi * (x[:, None] + x)
    w = table(np.arange(6), np.zeros(1), np.arange(times), x, x)[:, 0]
    w[:, 0] = np.repeat(w[::3, 0], 3, axis=0)
    w = w - w.mean(axis=(2, 3), keepdims=True)
    with h5py.File(path, "w") as file:
        file["f"] = (amplitude * np.sin(angle + phase[:, None, None])).astype(np.float32)
        file["u"] = np.moveaxis(w.reshape(2, 3, times, s, s), 2, -1)
        file["a"] = w[::3, 0]
    return path


def test_pcfm_burgers_balance_on_the_points_its_notes_name(tmp_path: Path) -> None:
    fields = loaders.open(write_burgers(tmp_path / "f.h5"))
    assert fields.u.shape == (6, 1, 21, 21)
    assert fields.parameters["front"].tolist() == pytest.approx([0.3, 0.3, 0.5, 0.5, 0.7, 0.7])
    assert fields.parameters["inflow"].tolist() == pytest.approx([0.1, 0.9] * 3)
    u = fields.values[:, 0].double().numpy()
    balance = np.diff(u[:, :, 1:-1], axis=1) + np.diff(flux(u[:, :-1, :-1], u[:, :-1, 1:]), axis=-1)
    assert np.abs(balance).max() < 1e-6
    x = fields.grid.axis("x").positions().numpy()
    front, inflow = (fields.parameters[name].numpy()[:, None] for name in ("front", "inflow"))
    assert np.abs(u[:, 0] - 1 / (1 + np.exp((x - front) / 0.02))).max() < 1e-6
    assert np.abs(u[:, 1:, 0] - inflow).max() == 0
    assert (u[:, 1:, -1] == u[:, 1:, -2]).all()
    assert (np.abs(u[:, 0, 0] - inflow[:, 0]) > 0.05).all(), "the inflow does not hold at time 0"


@pytest.mark.parametrize("square", [False, True])
def test_trap_9_swapped_table(square: bool, tmp_path: Path) -> None:
    """The same trajectories and conditions in another order, found from the initial states where the table is square."""
    plain = loaders.open(write_burgers(tmp_path / "a.h5", square=square))
    other = loaders.open(write_burgers(tmp_path / "b.h5", square=square, swapped=True))
    assert "Stored as (boundary, initial" in other.attributes["notes"]
    assert "Stored as (boundary, initial" not in plain.attributes["notes"]
    find = {(a.item(), b.item()): i for i, (a, b) in enumerate(zip(other.parameters["front"], other.parameters["inflow"], strict=True))}
    for i, pair in enumerate(zip(plain.parameters["front"].tolist(), plain.parameters["inflow"].tolist(), strict=True)):
        assert torch.equal(plain.u[i], other.u[find[pair]])
    assert len(find) == len(plain)


def test_pcfm_fluxes_through_the_ends_are_exact(tmp_path: Path) -> None:
    fields = loaders.open(write_diffusion(tmp_path / "f.h5"))
    mass = (fields.values[:, 0].double() * fields.grid.weights()[0]).sum(-1)
    net = fields.parameters["flux_left"] - fields.parameters["flux_right"]
    grown = net[:, None] * fields.grid.axis("time").positions()
    assert (mass - mass[:, :1] - grown).abs().max() < 1e-7
    assert grown[:, -1].abs().max() > 1e-3
    assert fields.parameters["initial_index"].tolist() == [0, 0, 0, 1, 1, 1]
    assert fields.parameters["diffusivity"].tolist() == pytest.approx([0.005] * 6)
    assert fields.grid.axis("x").cells
    assert fields.laws == ()


def test_pcfm_vorticity(tmp_path: Path) -> None:
    path = write_vorticity(tmp_path / "ns_nw2_nf3_s6_t4_mu0.001.h5")
    fields = loaders.open(path)
    assert fields.grid.shape == (4, 6, 6)
    assert fields.parameters["forcing_phase"].tolist() == pytest.approx([0, np.pi / 4, np.pi / 2] * 2, abs=1e-6)
    assert fields.parameters["viscosity"].tolist() == [0.001] * 6
    assert fields.laws == ("mass:value=0",)
    assert Mass(fields.grid, torch.zeros(4, dtype=torch.float64)).residual(fields.values.double()).abs().max() < 1e-6
    with h5py.File(path) as file:
        assert np.array_equal(fields.u[:, 0, 0].numpy(), np.repeat(file["a"][()], 3, axis=0))
    other = loaders.open(write_vorticity(tmp_path / "f.h5", amplitude=1.0))
    assert other.parameters["forcing"].shape == (6, 6, 6)
    assert "viscosity" not in other.parameters


def test_pcfm_arrays_that_do_not_fit(tmp_path: Path) -> None:
    path = write_burgers(tmp_path / "f.h5")
    with h5py.File(path, "r+") as file:
        del file["bc"]
        file["bc"] = np.zeros(5, np.float32)
    with pytest.raises(ValueError, match=r"a table u of \(3, 5\) trajectories; got \(3, 2\)"):
        loaders.open(path)


# --- PBFM --------------------------------------------------------------------------------------------------------------------------


def write_kolmogorov(path: Path, conditions: int = 2, snapshots: int = 3, n: int = 16) -> Path:
    """Velocities of random stream functions, differentiated in Fourier space."""
    rng = np.random.default_rng(0)
    k = np.fft.fftfreq(n, 1 / n)
    k[n // 2] = 0
    smooth = np.exp(-0.3 * (k[:, None] ** 2 + k**2))
    psi = np.fft.fft2(rng.normal(size=(conditions, snapshots, n, n))) * smooth
    u, v = (np.fft.ifft2(factor * psi).real for factor in (1j * k, -1j * k[:, None]))
    with h5py.File(path, "w") as file:
        file["fields"] = np.stack([u, v], axis=2).astype(np.float32)
        file["reynolds"] = np.linspace(100, 500, conditions).astype(np.float32)
    return path


def write_stall(path: Path) -> Path:
    rng = np.random.default_rng(0)
    shape = (2, 3, 5, 4)
    temperature, density = 290 + rng.random(shape), 1 + rng.random(shape)
    pressure = density * (8314.46261815324 / 28.966) * temperature
    gx, gy, angle = 1e4 * rng.normal(size=shape), 1e4 * rng.normal(size=shape), rng.random(shape)
    viscosity = 1.716e-5 * (273.11 + 110.56) / (temperature + 110.56) * (temperature / 273.11) ** 1.5
    shear = np.sign(gx * np.cos(angle) + gy * np.sin(angle)) * viscosity * np.hypot(gx, gy)
    with h5py.File(path, "w") as file:
        channels = (pressure, gx, gy, temperature, density, shear, np.cos(angle), np.sin(angle))
        file["fields"] = np.stack(channels, axis=2).astype(np.float32)
        file["nominal_condition"] = table(np.arange(2), np.arange(3), np.arange(4))
    return path


def test_pbfm_kolmogorov_is_divergence_free(tmp_path: Path) -> None:
    fields = loaders.open(write_kolmogorov(tmp_path / "f.h5"))
    assert fields.u.shape == (6, 2, 16, 16)
    assert all(axis.periodic and axis.extent == 2 * math.pi for axis in fields.grid.axes)
    assert fields.laws == ("divergence-free:scheme=spectral",)
    u = fields.values.double()
    assert DivergenceFree(fields.grid, "spectral").residual(u).abs().max() < 1e-5
    assert DivergenceFree(fields.grid, "spectral").residual(u.transpose(2, 3)).abs().max() > 0.1, "x and y swapped"
    assert fields.parameters["reynolds"].tolist() == [100.0] * 3 + [500.0] * 3
    parts = fields.split(train=0.5, test=0.5)
    assert {len(set(part.parameters["reynolds"].tolist())) for part in parts.values()} == {1}


def test_pbfm_stall_obeys_the_relations_its_notes_name(tmp_path: Path) -> None:
    fields = loaders.open(write_stall(tmp_path / "f.h5"))
    value_of = {name: fields.values[:, i].double() for i, name in enumerate(fields.channels)}
    ideal = value_of["density"] * (8314.46 / 28.966) * value_of["temperature"]
    assert ((ideal - value_of["pressure"]) / value_of["pressure"]).abs().max() < 1e-6
    warm = value_of["temperature"]
    mu = 1.716e-5 * (273.11 + 110.56) / (warm + 110.56) * (warm / 273.11) ** 1.5
    along = value_of["wall_gradient_x"] * value_of["cosine"] + value_of["wall_gradient_y"] * value_of["sine"]
    stress = along.sign() * mu * torch.hypot(value_of["wall_gradient_x"], value_of["wall_gradient_y"])
    assert torch.allclose(stress, value_of["wall_shear"], rtol=1e-6)
    assert np.array_equal(fields.parameters["nominal_condition"].numpy(), table(np.arange(2), np.arange(3), np.arange(4)).reshape(6, 4))
    assert fields.units[:2] == ("Pa", "s-1")


def test_pbfm_other_channels(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["fields"], file["reynolds"] = np.zeros((2, 3, 5, 4, 4), np.float32), np.zeros(2)
    with pytest.raises(ValueError, match="expects 2 channels, u, v; got 5"):
        loaders.open(tmp_path / "f.h5")


# --- JHTDB -------------------------------------------------------------------------------------------------------------------------


def write_cutout(path: Path, frames: tuple[int, ...] = (1, 11), lower: bool = False) -> Path:
    x, y, z = 0.1 + 0.1 * np.arange(6), np.array([-1.0, -0.9, -0.5, 0.0]), 0.2 * np.arange(3)
    moving = len(frames) > 1
    with h5py.File(path, "w") as file:
        for frame in frames:
            data = (
                table(np.zeros(1), np.arange(4), np.array([frame]), x, y, z)[0, :, 0]
                if moving
                else table(np.zeros(1), np.arange(4), x, y, z)[0]
            )
            for name, part in (("Velocity", data[:3]), ("Pressure", data[3:])):
                file[f"{name.lower() if lower else name}_{frame:04d}"] = part.transpose(3, 2, 1, 0)
        for name, axis in (("x", x), ("y", y), ("z", z)):
            file[f"{name}coor"] = axis.astype(np.float32)
            file.attrs[f"{name}_start"], file.attrs[f"{name}_end"], file.attrs[f"{name}_step"] = 1, len(axis), 1
        file.attrs["dataset"], file.attrs["filterWidth"] = "channel", 1
    return path


def write_old_cutout(path: Path, frames: tuple[int, ...] = (10, 20)) -> Path:
    """As the older service wrote it: points 2 .. 7 of x, 4 .. 7 of y, 0 .. 2 of z."""
    axes = 2.0 + np.arange(6), 4.0 + np.arange(4), np.arange(3.0)
    with h5py.File(path, "w") as file:
        for frame in frames:
            data = table(np.zeros(1), np.arange(4), np.array([frame]), *axes)[0, :, 0]
            for name, part in (("u", data[:3]), ("p", data[3:])):
                file.create_dataset(f"{name}{frame:05d}", data=part.transpose(3, 2, 1, 0), compression="lzf")
        file["_contents"], file["_dataset"] = np.array([9]), np.array([3])
        file["_start"], file["_size"] = np.array([1, 2, 4, 0]), np.array([len(frames), 6, 4, 3])
    return path


def test_jhtdb_older_layout(tmp_path: Path) -> None:
    """Its coordinates are the numbers of the points; the table of the test is a function of them."""
    fields = loaders.open(write_old_cutout(tmp_path / "f.h5"))
    check(fields, tolerance=1e-5)
    assert fields.attributes["format"] == "jhtdb"
    assert fields.channels == ("u", "v", "w", "pressure")
    assert [axis.positions().tolist() for axis in fields.grid.axes] == [[10, 20], [2, 3, 4, 5, 6, 7], [4, 5, 6, 7], [0, 1, 2]]
    assert "points are counted from 0" in fields.attributes["notes"]


@pytest.mark.parametrize("start", [np.arange(3), np.array([1.0, 2.0, 3.0, 4.0])], ids=["three", "floats"])
def test_jhtdb_older_layout_without_a_start(start: np.ndarray, tmp_path: Path) -> None:
    path = write_old_cutout(tmp_path / "f.h5")
    with h5py.File(path, "r+") as file:
        del file["_start"]
        file["_start"] = start
    with pytest.raises(ValueError, match="four whole numbers _start"):
        loaders.open(path)


@pytest.mark.parametrize("lower", [False, True])
def test_trap_13_cutouts_are_stored_z_first(lower: bool, tmp_path: Path) -> None:
    fields = loaders.open(write_cutout(tmp_path / "f.h5", lower=lower))
    check(fields, tolerance=1e-5)
    assert fields.channels == ("u", "v", "w", "pressure")
    assert fields.grid.names == ("time", "x", "y", "z")
    assert not fields.grid.axis("y").uniform
    assert not any(axis.periodic for axis in fields.grid.axes)
    assert fields.laws == ()
    assert (fields.attributes["x_start"], fields.attributes["x_end"]) == (1, 6)
    assert fields.attributes["frames"] == [1, 11]


def test_jhtdb_one_time(tmp_path: Path) -> None:
    fields = loaders.open(write_cutout(tmp_path / "f.h5", frames=(7,)))
    check(fields)
    assert fields.grid.names == ("x", "y", "z")


def test_jhtdb_variables_at_other_times(tmp_path: Path) -> None:
    path = write_cutout(tmp_path / "f.h5")
    with h5py.File(path, "r+") as file:
        del file["Pressure_0011"]
    with pytest.raises(ValueError, match="all variables at the same times"):
        loaders.open(path)


# --- MATLAB files of Li et al. and of DiffusionPDE ---------------------------------------------------------------------------------


def save_mat(path: Path, arrays: dict[str, np.ndarray], version: str = "5") -> Path:
    if version != "7.3":
        scipy.io.savemat(path, arrays, do_compression=version == "5z")
        return path
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, array in arrays.items():
            file[name] = np.atleast_2d(array).T
    with path.open("r+b") as raw_file:
        raw_file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")
    return path


def mat_arrays(kind: str) -> dict[str, np.ndarray]:
    i, x, y = np.arange(3), np.arange(8) / 8, np.arange(6) / 6
    if kind == "fno/burgers":
        data = table(i, np.zeros(1), np.arange(2), x)[:, 0]
        return {"a": data[:, 0], "u": data[:, 1], "a_smooth": data[:, 0]}
    if kind == "fno/darcy":
        data = table(i, np.arange(2), np.linspace(0, 1, 8), np.linspace(0, 1, 6))
        return {"coeff": data[:, 0], "sol": data[:, 1], "Kcoeff": data[:, 0]}
    if kind == "fno/vorticity":
        data = table(i, np.zeros(1), np.arange(5), x, y)[:, 0]
        return {"a": data[:, 0], "u": np.moveaxis(data[:, 1:], 1, -1), "t": np.arange(1.0, 5.0)}
    if kind == "diffusionpde/darcy":
        data = table(i, np.arange(4), centres(8), centres(6))
        return dict(zip(("thresh_a_data", "thresh_p_data", "lognorm_a_data", "lognorm_p_data"), data.swapaxes(0, 1), strict=True))
    if kind in ("diffusionpde/poisson", "diffusionpde/helmholtz"):
        data = table(i, np.arange(2), np.linspace(0, 1, 8), np.linspace(0, 1, 6))
        return {"f_data": data[:, 0], "phi_data" if "poisson" in kind else "psi_data": data[:, 1]}
    data = table(i, np.zeros(1), np.linspace(0, 1, 5), x)[:, 0]
    return {"input": data[:, 0], "output": data if kind == "diffusionpde/burgers" else data[:, 1:]}


MAT = (
    *("fno/burgers", "fno/darcy", "fno/vorticity", "diffusionpde/darcy", "diffusionpde/poisson"),
    *("diffusionpde/helmholtz", "diffusionpde/burgers", "diffusionpde/burgers-later"),
)


@pytest.mark.parametrize("version", ["5", "5z", "7.3"])
@pytest.mark.parametrize("kind", MAT)
def test_trap_6_both_formats_of_matlab_give_the_same(kind: str, version: str, tmp_path: Path) -> None:
    path = save_mat(tmp_path / "f.mat", mat_arrays(kind), version)
    fields = loaders.open(path)
    assert fields.attributes["format"] == kind.partition("/")[0]
    check(fields)
    time = "burgers" in kind or "vorticity" in kind
    assert fields.grid.has_time == time
    assert all(axis.periodic == time for axis in fields.grid.space_axes)
    assert all(axis.cells == (kind == "diffusionpde/darcy") for axis in fields.grid.space_axes)
    if kind in ("diffusionpde/poisson", "diffusionpde/helmholtz"):
        assert len(fields.laws) == 4
        assert "dirichlet:axis=x,side=lower,channels=potential" in fields.laws


@pytest.mark.parametrize("version", ["5", "5z", "7.3"])
def test_mat_shapes_from_headers(version: str, tmp_path: Path) -> None:
    arrays = {"a": np.ones((3, 4)), "a_rather_long_name": np.ones((2, 3, 4), np.float32), "n": np.ones((1, 1), np.int8)}
    path = save_mat(tmp_path / "f.mat", arrays, version)
    assert shapes(path) == {name: array.shape for name, array in arrays.items()}
    if version != "7.3":
        content = path.read_bytes()
        for share in (0.1, 0.3, 0.6, 0.9):
            path.write_bytes(content[: int(share * len(content))])
            assert set(shapes(path)) <= set(arrays)
        path.write_bytes(content[:100] + b"\x00" * 28 + content[128:])
        assert shapes(path) == {}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": np.ones((2, 4, 4)), "u": np.ones((2, 4, 4, 3)), "t": np.arange(3.0)}, "expects 3 times t after 0; got 3 from 0"),
        ({"a": np.ones((2, 4, 4)), "u": np.ones((2, 4, 4, 3)), "t": np.arange(1.0, 5.0)}, "expects 3 times t after 0; got 4"),
        ({"coeff": np.ones((2, 4, 4), complex), "sol": np.ones((2, 4, 4))}, "fno expects numbers"),
        ({"coeff": np.ones((2, 4, 0)), "sol": np.ones((2, 4, 0))}, "at least one sample, channel and point"),
    ],
)
def test_fno_arrays_that_do_not_fit(arrays: dict[str, np.ndarray], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        loaders.open(save_mat(tmp_path / "f.mat", arrays))


def write_pairs(folder: Path, count: int = 11) -> Path:
    folder.mkdir()
    x, y = np.meshgrid(centres(8), centres(6), indexing="ij")
    for i in range(count):
        a, p = np.where(x + y > 0.1 * i, 12.0, 3.0), 1e-3 * value(i, 0, x, y)
        np.save(folder / f"merge_{i}.npy", np.stack([0.2 * a - 1.5, 115 * p - 0.9], axis=-1))
    return folder


def test_diffusionpde_scaled_pairs(tmp_path: Path) -> None:
    """In the order of their numbers, not of their names, and in physical values."""
    fields = loaders.open(write_pairs(tmp_path / "Darcy-merged"))
    assert fields.attributes["format"] == "diffusionpde"
    assert fields.u.shape == (11, 2, 8, 6)
    x, y = (mesh.numpy() for mesh in fields.grid.mesh())
    for i in (0, 2, 10):
        assert np.abs(fields.u[i, 1].numpy() - 1e-3 * value(i, 0, x, y)).max() < 1e-15
        assert np.abs(fields.u[i, 0].numpy() - np.where(x + y > 0.1 * i, 12, 3)).max() < 1e-13
    one = loaders.open(tmp_path / "Darcy-merged" / "merge_10.npy", "diffusionpde")
    assert torch.equal(one.u[0], fields.u[10])


def write_flows(folder: Path, bodies: tuple[int, ...] = (), samples: int = 2) -> Path:
    """`v.npy` (N, x, y, t) as the published test data hold it, with a disk at rest; for several bodies a numbered folder each."""
    x, y = np.meshgrid(centres(8), centres(6), indexing="ij")
    for number in bodies or (0,):
        home = folder / str(number) if bodies else folder
        home.mkdir(parents=True)
        disk = (x - 0.3 - 0.02 * number) ** 2 + (y - 0.5) ** 2 < 0.04
        moving = value(*np.meshgrid(np.arange(samples) + number, centres(8), centres(6), np.arange(5.0), indexing="ij"))
        np.save(home / "v.npy", np.where(disk[None, :, :, None], 0.0, 1.0 + moving))
    return folder


def test_diffusionpde_flows_about_bodies(tmp_path: Path) -> None:
    """Time comes last in the file and first in the fields; bodies in the order of their numbers, not of their names."""
    one = loaders.open(write_flows(tmp_path / "one"))
    stored = np.load(tmp_path / "one" / "v.npy")
    assert one.attributes["format"] == "diffusionpde"
    assert one.u.shape == (2, 1, 5, 8, 6)
    assert one.grid.names == ("time", "x", "y")
    assert one.channels == ("speed",)
    assert one.parameters == {}
    np.testing.assert_array_equal(one.values[:, 0].permute(0, 2, 3, 1).numpy(), stored)
    still = int((stored[0] == 0).all(-1).sum())
    assert still > 3
    assert f"{still} points" in one.attributes["notes"]
    many = loaders.open(write_flows(tmp_path / "many", (10, 9)))
    assert many.parameters["body"].tolist() == [9, 9, 10, 10]
    np.testing.assert_array_equal(many.values[3, 0, 4].numpy(), np.load(tmp_path / "many" / "10" / "v.npy")[1, ..., 4])
    assert loaders.open(tmp_path / "many" / "10").parameters == {}


def test_diffusionpde_flows_that_do_not_fit(tmp_path: Path) -> None:
    flows = write_flows(tmp_path / "many", (1, 2))
    for wrong, message in (
        (np.zeros((2, 8, 6, 4)), r"flows of one shape and type; got \(1, 4, 8, 6\) float64, \(1, 5, 8, 6\) float64"),
        (np.zeros((2, 8, 6, 5), np.float32), "one shape and type"),
        (np.zeros((2, 8, 6)), r"numbers \(N, x, y, t\) in 2/v.npy, .* got float64 of shape \(2, 8, 6\)"),
        (np.zeros((0, 8, 6, 5)), "at least one of each"),
        (np.full((2, 8, 6, 5), np.nan), "expects finite values"),
    ):
        np.save(flows / "2" / "v.npy", wrong)
        with pytest.raises(ValueError, match=message):
            loaders.open(flows)
    np.save(flows / "1" / "u.npy", np.zeros((2, 8, 6, 5)))
    with pytest.raises(ValueError, match="not recognised"):
        loaders.open(flows)


def test_diffusionpde_does_not_take_other_arrays(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.random.default_rng(0).random((8, 6, 2)))
    assert not FORMATS["diffusionpde"].recognises(tmp_path / "a.npy")
    (tmp_path / "folder").mkdir()
    np.save(tmp_path / "folder" / "merge_0.npy", np.zeros((8, 6, 2)))
    assert not FORMATS["diffusionpde"].recognises(tmp_path / "folder")


# --- APEBench ----------------------------------------------------------------------------------------------------------------------


def write_scenario(folder: Path, channels: int = 2, **settings: float) -> Path:
    info = {
        "num_spatial_dims": 2,
        "num_points": 6,
        "num_channels": channels,
        "train_seed": 0,
        "test_seed": 773,
        "vlim": [-1, 1],
        **settings,
    }
    x = np.arange(6) / 6 * settings.get("domain_extent", 1.0)
    t = np.arange(4) * settings.get("dt", 1.0)
    (folder / "2d_diff_burgers.json").write_text(json.dumps({"name": "2d_diff_burgers", "info": info}))
    path = folder / "2d_diff_burgers_test.npy"
    np.save(path, table(np.arange(3), np.arange(channels), t, x, x).swapaxes(1, 2))
    return path


@pytest.mark.parametrize(("channels", "settings"), [(2, {}), (1, {"domain_extent": 3.0, "dt": 0.1})])
def test_apebench(channels: int, settings: dict[str, float], tmp_path: Path) -> None:
    fields = loaders.open(write_scenario(tmp_path, channels, **settings))
    check(fields)
    assert fields.attributes["format"] == "apebench"
    assert fields.channels == (("u_0", "u_1") if channels == 2 else ("u",))
    assert all(axis.periodic and axis.extent == settings.get("domain_extent", 1.0) for axis in fields.grid.space_axes)
    assert ("counts steps" in fields.attributes["notes"]) == ("dt" not in settings)
    assert fields.attributes["test_seed"] == 773


def test_apebench_array_that_does_not_fit_its_settings(tmp_path: Path) -> None:
    path = write_scenario(tmp_path)
    np.save(path, np.zeros((3, 4, 2, 6, 5), np.float32))
    with pytest.raises(ValueError, match=r"expects an array \(sample, time, 2, 6, 6\); got \(3, 4, 2, 6, 5\)"):
        loaders.open(path, "apebench")


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("exit 1",)


def test_trap_20_pickled_arrays_are_refused(tmp_path: Path) -> None:
    path = write_scenario(tmp_path)
    np.save(path, np.array([Harmful()], dtype=object))
    with pytest.raises(ValueError, match="pickled Python objects"):
        loaders.open(path, "apebench")
    folder = write_pairs(tmp_path / "pairs", 2)
    np.save(folder / "merge_1.npy", np.array([Harmful()], dtype=object))
    with pytest.raises(ValueError, match=r"merge_1\.npy: expects numbers; it holds pickled"):
        loaders.open(folder)


# --- BLASTNet ----------------------------------------------------------------------------------------------------------------------


def write_blastnet(folder: Path, *, everywhere: bool = False, times: tuple[float, ...] = (1e-6, 3e-6)) -> Path:
    """129 points with a period of 128 in small: along x the last point repeats the first."""
    names = ("RHO_kgm-3", "UX_ms-1", "UY_ms-1", "UZ_ms-1", "YO2")
    order = (3, 0, 1, 2, 4)  # where the loader puts them
    x, y, z = np.arange(6) / 5, np.arange(4) / 4, np.arange(3) ** 2 / 2.0
    (folder / "data").mkdir(parents=True)
    (folder / "grid").mkdir()
    local = []
    for k, time in enumerate(times):
        entry: dict[str, Any] = {"id": 20 + k, "time [s]": time}
        for c, name in zip(order, names, strict=True):
            data = table(np.array([0.0]), np.array([c]), np.array([1e3 * time]), np.arange(5) / 5, y, z)[0, 0, 0]
            np.concatenate([data, data[:1]]).astype("<f4").tofile(folder / f"data/{name}_id{20 + k:03d}.dat")
            entry[f"{name} filename"] = f"./data/{name}_id{20 + k:03d}.dat"
        local.append(entry)
    for d, (name, axis) in enumerate((("X", x), ("Y", y), ("Z", z))):
        full = np.broadcast_to(axis.reshape([-1 if e == d else 1 for e in range(3)]), (6, 4, 3)) if everywhere else axis
        np.ascontiguousarray(full, dtype="<f4").tofile(folder / f"grid/{name}_m.dat")
    settings = {
        "dataset_id": "test", "Nxyz": [6, 4, 3], "snapshots": len(times), "variables": list(names), "compression": "None",
        "grid": {name: f"./grid/{name.upper()}_m.dat" for name in "xyz"}, "bc": "Periodic in x-, and y-directions.",
    }  # fmt: skip
    (folder / "info.json").write_text(json.dumps({"global": settings, "local": local}))
    return folder


def write_cubes(folder: Path) -> Path:
    folder.mkdir()
    for i, name in enumerate(("0a1f", "9b2e", "c3d4")):
        for c, variable in ((0, "UX_ms-1"), (1, "UY_ms-1"), (2, "UZ_ms-1"), (3, "RHO_kgm-3")):
            table(np.array([i]), np.array([c]), *[np.arange(4)] * 3).astype("<f4").tofile(folder / f"{variable}_id{name}.dat")
    return folder


@pytest.mark.parametrize("everywhere", [False, True])
def test_blastnet(everywhere: bool, tmp_path: Path) -> None:
    fields = loaders.open(write_blastnet(tmp_path / "set", everywhere=everywhere))
    assert fields.channels == ("UX", "UY", "UZ", "RHO", "YO2")
    assert fields.units == ("m s-1", "m s-1", "m s-1", "kg m-3", "1")
    assert fields.u.shape == (1, 5, 2, 5, 4, 3), "the repeated points along x are gone"
    x, y, z = fields.grid.space_axes
    assert [(a.periodic, a.extent) for a in (x, y, z)] == [(True, 1.0), (True, 1.0), (False, 2.0)]
    assert not z.uniform
    t = 1e3 * fields.grid.axis("time").positions().numpy()
    expected = value(*np.meshgrid([0.0], np.arange(5), t, *(a.positions().numpy() for a in (x, y, z)), indexing="ij"))
    assert np.abs(fields.values.numpy() - expected).max() < 2e-6
    assert fields.roles == {"velocity": ("UX", "UY", "UZ"), "density": ("RHO",)}


def test_blastnet_snapshots_without_increasing_times_are_samples(tmp_path: Path) -> None:
    fields = loaders.open(write_blastnet(tmp_path / "set", times=(1e-6, 1e-6, 1e-6)))
    assert fields.u.shape == (3, 5, 5, 4, 3)
    assert not fields.grid.has_time


def test_blastnet_cubes(tmp_path: Path) -> None:
    fields = loaders.open(write_cubes(tmp_path / "train"))
    check(fields)
    assert fields.attributes["ids"] == ["0a1f", "9b2e", "c3d4"]


def test_blastnet_files_outside_the_folder_are_not_read(tmp_path: Path) -> None:
    folder = write_blastnet(tmp_path / "set")
    secret = tmp_path / "secret.dat"
    np.zeros(72, "<f4").tofile(secret)
    info = json.loads((folder / "info.json").read_text())
    for name in ("../secret.dat", str(secret)):
        info["local"][0]["UX_ms-1 filename"] = name
        (folder / "info.json").write_text(json.dumps(info))
        with pytest.raises(ValueError, match="files inside the folder"):
            loaders.open(folder)
        with pytest.raises(ValueError, match="files inside the folder"):
            raw(folder, name, (6, 4, 3))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda info: info["local"].clear(), "expects variables and snapshots"),
        (lambda info: info["global"].update(Nxyz=[6, 4]), "three numbers of points"),
        (lambda info: info["global"].update(Nxyz=[10**6, 10**6, 10**6]), "more than this machine has"),
        (lambda info: info["global"].update(Nxyz=[6, 4, 4]), "with 384 bytes"),
        (lambda info: info["local"][1].pop("YO2 filename"), "'YO2 filename' of each snapshot"),
        (lambda info: info["local"][1].update({"YO2 filename": "./data/none.dat"}), "no file"),
    ],
)
def test_blastnet_settings_that_are_wrong(change: Callable[[dict[str, Any]], Any], message: str, tmp_path: Path) -> None:
    folder = write_blastnet(tmp_path / "set")
    info = json.loads((folder / "info.json").read_text())
    change(info)
    (folder / "info.json").write_text(json.dumps(info))
    with pytest.raises(ValueError, match=message):
        loaders.open(folder)


# --- all of them -------------------------------------------------------------------------------------------------------------------


WRITERS: dict[str, Callable[[Path], Path]] = {
    "pdebench": lambda folder: write_tensor(folder / "tensor.hdf5", Nu=0.1),
    "pdebench/flow": lambda folder: write_flow(folder / "2D_CFD_periodic_Train.hdf5", 2),
    "pdebench/darcy": lambda folder: write_darcy(folder / "darcy.hdf5"),
    "pdebench/sorption": lambda folder: write_groups(folder / "sorption.h5", "sorption"),
    "pdebench/reaction": lambda folder: write_groups(folder / "reaction.h5", "reaction"),
    "pdebench/dam": lambda folder: write_groups(folder / "dam.h5", "dam"),
    "pdebench/incompressible": lambda folder: write_incompressible(folder / "incompressible.h5"),
    "the-well": lambda folder: write_well(folder / "well.hdf5"),
    "pdearena": lambda folder: write_smoke(folder / "smoke.h5"),
    "pdearena/maxwell": lambda folder: write_maxwell(folder / "maxwell.h5"),
    "pdearena/line": lambda folder: write_line(folder / "line.h5"),
    "pcfm-paper": lambda folder: write_diffusion(folder / "diffusion.h5"),
    "pcfm-paper/burgers": lambda folder: write_burgers(folder / "burgers.h5"),
    "pcfm-paper/vorticity": lambda folder: write_vorticity(folder / "vorticity.h5"),
    "pbfm": lambda folder: write_kolmogorov(folder / "kolmogorov.h5"),
    "pbfm/stall": lambda folder: write_stall(folder / "stall.h5"),
    "jhtdb": lambda folder: write_cutout(folder / "cutout.h5"),
    "jhtdb/older": lambda folder: write_old_cutout(folder / "older.h5"),
    **{kind: (lambda folder, kind=kind: save_mat(folder / f"{kind.replace('/', '-')}.mat", mat_arrays(kind))) for kind in MAT},
    **{
        f"{kind}/7.3": (lambda folder, kind=kind: save_mat(folder / f"{kind.replace('/', '-')}73.mat", mat_arrays(kind), "7.3"))
        for kind in MAT
    },
    "diffusionpde/pairs": lambda folder: write_pairs(folder / "pairs", 3),
    "diffusionpde/flows": lambda folder: write_flows(folder / "flows", (1, 2)),
    "apebench": write_scenario,
    "blastnet": lambda folder: write_blastnet(folder / "set"),
    "blastnet/cubes": lambda folder: write_cubes(folder / "cubes"),
}
"""A small valid file or folder of each format."""


@pytest.mark.skipif(sys.platform != "linux", reason="files are read through in a fork")
def test_a_file_that_does_not_end_is_told_from_a_machine_that_is_busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_tensor(tmp_path / "f.hdf5")
    monkeypatch.setattr(hdf5, "_PATIENCE", (0.2, 0.2))
    monkeypatch.setattr(hdf5, "_read_through", lambda path: sleep(0.5) or True)
    hdf5.survive(path)
    monkeypatch.setattr(hdf5, "_read_through", lambda path: any(n < 0 for n in itertools.count()))
    with pytest.raises(ValueError, match=r"f\.hdf5: expects a whole HDF5 file.*does not end"):
        hdf5.survive(path)


def test_no_samples(tmp_path: Path) -> None:
    with h5py.File(write_tensor(tmp_path / "f.hdf5"), "r+") as file:
        del file["tensor"]
        file["tensor"] = np.zeros((0, 5, 8), np.float32)
    with pytest.raises(ValueError, match="at least one sample"):
        loaders.open(tmp_path / "f.hdf5")
    with h5py.File(write_burgers(tmp_path / "g.h5"), "r+") as file:
        del file["u"]
        file["u"] = np.zeros((0, 2, 21, 21), np.float32)
    with pytest.raises(ValueError, match="at least one trajectory"):
        loaders.open(tmp_path / "g.h5")


@pytest.mark.parametrize(
    "bad", [np.array([0.1, 0.2, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]), np.full(8, np.nan), np.arange(8.0)[::-1], np.arange(7.0)]
)
def test_coordinates_that_do_not_increase_or_fit(bad: np.ndarray, tmp_path: Path) -> None:
    with h5py.File(write_tensor(tmp_path / "f.hdf5"), "r+") as file:
        del file["x-coordinate"]
        file["x-coordinate"] = bad
    with pytest.raises(ValueError, match=r"x-coordinate"):
        loaders.open(tmp_path / "f.hdf5")


def test_values_that_are_not_finite(tmp_path: Path) -> None:
    path = write_tensor(tmp_path / "f.hdf5")
    with h5py.File(path, "r+") as file:
        file["tensor"][1, 2, 3] = np.nan
    with pytest.raises(ValueError, match="expects finite values"):
        loaders.open(path)


def test_no_format_of_these_takes_a_file_of_another_kind() -> None:
    """The real files of other formats."""
    folder = Path(os.environ.get("PCFM_DATA", ROOT / ".." / "shared" / "data"))
    files = [path for path in sorted(folder.rglob("*")) if path.is_dir() or path.suffix in (".mat", ".pt", ".h5", ".hdf", ".nc", ".npy")]
    if not files:
        pytest.skip(f"no real files in {folder}: point PCFM_DATA to a folder that has them")
    taken = {path.name: [name for name in OURS if FORMATS[name].recognises(path)] for path in files}
    assert {name: formats for name, formats in taken.items() if formats} == {}


# --- parts -------------------------------------------------------------------------------------------------------------------------


class Counted:
    """An array that knows how many of its values were read."""

    def __init__(self, values: np.ndarray) -> None:
        self.values, self.shape, self.dtype, self.read = values, values.shape, values.dtype, 0

    def __getitem__(self, box: tuple[slice, ...]) -> np.ndarray:
        piece = self.values[box]
        self.read += piece.size
        return piece


def test_parts_read_any_box_of_any_arrangement() -> None:
    """Permuted, repeated, laid out as a table, stacked and joined, against the whole array."""
    rng = np.random.default_rng(0)
    n, c, t, x, y = 6, 4, 3, 5, 2
    dense = rng.normal(size=(n, c, t, x, y))
    dense[:, 2] = dense[:, 2, :1, :1]  # channel 2 varies along samples and y alone
    dense[:, 3] = dense[:1, 3]
    arrays: dict[str, Any] = {
        "permuted": dense[:, :2].transpose(4, 1, 3, 0, 2),
        "repeated": dense[:, 2, 0, 0].reshape(2, 3, y),
        **{f"time{k}": dense[0, 3, k].T for k in range(t)},
    }
    parts = [
        Part(("permuted",), (4, 1, 3, 0, 2)),
        Part(("repeated",), (0, 0, 4)),
        Part(tuple(f"time{k}" for k in range(t)), (4, 3), stack=2),
    ]
    u = assembled(Path("f"), parts, dense.shape, arrays=lambda: nullcontext(arrays))
    assert torch.equal(u.load(), torch.from_numpy(dense))
    for _ in range(300):
        ends = [sorted(rng.integers(0, size + 1, size=2)) for size in dense.shape]
        box = tuple(slice(int(a), int(b), int(rng.integers(1, 4))) for a, b in ends)
        assert np.array_equal(u[box].numpy(), dense[box])


def test_parts_read_no_more_than_is_asked_for() -> None:
    array = Counted(np.zeros((20, 500, 2, 8, 8), np.float32))
    u = assembled(Path("f"), [Part(("fields",), (0, 0, 1, 2, 3))], (10000, 2, 8, 8), arrays=lambda: nullcontext({"fields": array}))
    assert u[498:503, 1].shape == (5, 8, 8)
    assert array.read == 5 * 64
    assert u.dtype == torch.float32


def test_parts_that_do_not_fit() -> None:
    arrays: dict[str, Any] = {"a": np.zeros((3, 4)), "text": np.array(["a", "b"])}
    for parts, shape, message in (
        ([Part(("b",), (0, 2))], (3, 1, 4), "numbers in b; there are none"),
        ([Part(("text",), (0,))], (2, 1, 4), "numbers in text; there are none"),
        ([Part(("a",), (0, 2, 3))], (3, 1, 4, 5), r"a with 3 axes; got shape \(3, 4\)"),
        ([Part(("a",), (0, 2))], (3, 1, 5), r"fit fields of shape \(3, 1, 5\); got \(3, 4\)"),
        ([Part(("a",), (0, 2))], (3, 2, 4), "expects 2 values along axis 1 of the fields; its arrays have 1"),
    ):
        with pytest.raises(ValueError, match=message):
            assembled(Path("f"), parts, shape, arrays=lambda: nullcontext(arrays))
