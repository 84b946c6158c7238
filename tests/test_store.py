"""Our HDF5 files: everything comes back, mapped; killed runs go on; what is damaged or foreign is one clear error."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch import Tensor

import pde_datasets
from constraints import Axis, Grid
from pde_datasets import Fields, store
from pde_datasets.store import Writer

GRID = Grid(
    Axis.at("time", [0.0, 0.1, 0.4, 1.3], unit="s"),
    Axis("x", 6, length=3.0, origin=-1.5, periodic=True, unit="m"),
    Axis.at("y", [0.1, 0.3, 0.9], periodic=True, length=1.1),
    Axis("z", 2, length=2.0, origin=0.5, cells=True, unit="µm"),
)
COUNT = 5


def normal(shape: tuple[int, ...], seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def make(dtype: torch.dtype = torch.float64) -> Fields:
    return Fields(
        normal((COUNT, 2, *GRID.shape), 1, dtype),
        GRID,
        channels=("rho", "ū"),
        units=("kg m-3", "m s-1"),
        parameters={"viscosity": normal((COUNT,), 2), "modes": torch.arange(2 * COUNT).reshape(COUNT, 2), "wall": torch.arange(COUNT) > 2},
        roles={"density": ("rho",), "momentum": ("rho", "ū")},
        laws=("mass:value=0", "energy"),
        attributes={"equation": "u_t = ν u_xx", "seed": 7, "nested": {"a": [1, 2.5, None, True]}, "code_version": "0.1"},
    )


def certificate() -> dict[str, Tensor]:
    return {"violation": normal((COUNT, 3), 3), "iterations": torch.arange(COUNT), "converged": torch.arange(COUNT) != 1}


def stored_bytes(path: Path) -> bytes:
    """The bytes of the dataset `fields` as they lie in the file."""
    with h5py.File(path) as file:
        offset, size = file["fields"].id.get_offset(), file["fields"].id.get_storage_size()
    return path.read_bytes()[offset : offset + size]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A whole file of the fields above."""
    path = tmp_path / "fields.h5"
    store.write(path, make(), certificate=certificate())
    return path


# --- round trip --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("opener", [store.read, pde_datasets.open], ids=["read", "open"])
def test_everything_comes_back(opener: Callable[[Path], Fields], dtype: torch.dtype, tmp_path: Path) -> None:
    path, fields = tmp_path / "a.h5", make(dtype)
    store.write(path, fields, certificate=certificate())
    back = opener(path)
    assert back.u.dtype == dtype
    assert torch.equal(back.u, fields.u)
    assert back.grid == fields.grid
    assert [axis.uniform for axis in back.grid.axes] == [False, True, False, True]
    for ours, theirs in zip(back.grid.axes, fields.grid.axes, strict=True):
        assert torch.equal(ours.positions(), theirs.positions())
        assert torch.equal(ours.weights(), theirs.weights())
    assert (back.channels, back.units, back.roles, back.laws) == (fields.channels, fields.units, fields.roles, fields.laws)
    assert set(back.parameters) == set(fields.parameters)
    for name, values in fields.parameters.items():
        assert back.parameters[name].dtype == values.dtype
        assert torch.equal(back.parameters[name], values)
    for name, value in fields.attributes.items():
        assert back.attributes[name] == value
    assert back.attributes["format"] == "pcfm"
    stored = store.certificate(path)
    assert set(stored) == set(certificate())
    for name, values in certificate().items():
        assert stored[name].dtype == values.dtype
        assert torch.equal(stored[name], values)


def test_least_fields_come_back(tmp_path: Path) -> None:
    """No parameters, roles, laws, units or certificate; a tensor that is neither contiguous nor detached; a folder that is not there."""
    path = tmp_path / "deep" / "er" / "a.h5"
    u = normal((4, 1, 3), 4).requires_grad_().transpose(0, 2)
    grid = Grid(Axis("x", 4))
    store.write(path, Fields(u, grid, ("u",)))
    back = pde_datasets.open(path)
    assert torch.equal(back.u, u.detach())
    assert (back.grid, back.units, back.parameters, back.roles, back.laws) == (grid, ("1",), {}, {}, ())
    assert store.certificate(path) == {}


def test_many_given_coordinates_come_back(tmp_path: Path) -> None:
    """HDF5 attributes hold 64 KiB in place; the coordinates of this axis are longer."""
    axis = Axis.at("x", normal((20_000,), 5).abs().add(1e-3).cumsum(0).tolist())
    fields = Fields(torch.zeros(1, 1, 20_000), Grid(axis), ("u",))
    store.write(tmp_path / "a.h5", fields)
    assert store.read(tmp_path / "a.h5").grid == fields.grid


def test_a_file_written_again_from_what_was_read_is_the_same(file: Path) -> None:
    again = file.with_name("again.h5")
    store.write(again, store.read(file), certificate=store.certificate(file))
    assert stored_bytes(again) == stored_bytes(file)
    assert torch.equal(store.read(again).parameters["modes"], make().parameters["modes"])


# --- mapped ------------------------------------------------------------------------------------------------------------------------


def test_fields_are_mapped_and_writing_to_them_spares_the_file(file: Path) -> None:
    before = file.read_bytes()
    fields = store.read(file)
    maps = Path("/proc/self/maps")
    if maps.exists():
        assert str(file) in maps.read_text()
    fields.u.mul_(-3)
    fields.u[0].zero_()
    assert file.read_bytes() == before
    assert torch.equal(store.read(file).u, make().u)
    assert torch.equal(fields.u[1:], -3 * make().u[1:])


@pytest.mark.skipif(not hasattr(os, "sysconf"), reason="the size of memory is not known here")
def test_files_larger_than_memory_open_at_once(tmp_path: Path) -> None:
    """Twice the memory of this machine, of which one sample and nothing else is on disk."""
    points = 1 << 20
    count = 2 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // (4 * points) + 1
    first = normal((1, 1, points), 6, torch.float32)
    writer = Writer(tmp_path / "huge.h5", count, {})
    writer.append(Fields(first, Grid(Axis("x", points)), ("u",)))
    if writer.part.stat().st_blocks * 512 > 1 << 28:
        pytest.skip("this file system has no sparse files")
    fields = store.read(writer.part)
    assert len(fields) == count
    assert torch.equal(fields.u[0], first[0])
    assert fields.u[-1].abs().max() == 0
    del fields
    writer.part.unlink()


# --- layout ------------------------------------------------------------------------------------------------------------------------


def test_layout(file: Path) -> None:
    """What other programs may rely on, read without our code."""
    with h5py.File(file) as stored:
        data = stored["fields"]
        assert data.shape == (COUNT, 2, *GRID.shape)
        assert data.dtype == np.float64
        assert data.chunks is None
        assert np.array_equal(data[()], make().u.numpy())
        assert list(data.attrs["channels"]) == ["rho", "ū"]
        assert list(data.attrs["units"]) == ["kg m-3", "m s-1"]
        assert [dim.label for dim in data.dims] == ["sample", "channel", "time", "x", "y", "z"]
        for i, axis in enumerate(GRID.axes):
            (scale,) = data.dims[2 + i].values()
            assert scale.is_scale
            assert np.array_equal(scale[()], axis.positions().numpy())
            assert scale.attrs["units"] == axis.unit
            assert bool(scale.attrs["periodic"]) == axis.periodic
        assert set(stored["parameters"]) == {"viscosity", "modes", "wall"}
        assert set(stored["certificate"]) == {"violation", "iterations", "converged"}
        for group in ("parameters", "certificate"):
            assert all(dataset.shape[0] == COUNT for dataset in stored[group].values())
        assert stored["certificate/converged"].dtype == bool
        assert json.loads(stored["laws"].attrs["stated"]) == ["mass:value=0", "energy"]
        assert json.loads(stored["laws"].attrs["roles"])["density"] == ["rho"]
        assert stored.attrs["format"] == "pcfm-fields"
        assert stored.attrs["version"] == 1
        attributes = json.loads(stored.attrs["attributes"])
        assert (attributes["seed"], attributes["code_version"]) == (7, "0.1")
        assert [axis["name"] for axis in json.loads(stored.attrs["grid"])] == list(GRID.names)


def test_settings_are_stored(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "a.h5", COUNT, {"points": 64, "file": Path("b.h5"), "range": (1.0, 2.0)})
    writer.append(make())
    writer.finish()
    assert store.read(tmp_path / "a.h5").attributes["settings"] == {"points": 64, "file": "b.h5", "range": [1.0, 2.0]}


@pytest.mark.parametrize("kind", ["chunked", "big-endian"])
def test_fields_that_cannot_be_mapped_are_read(kind: str, file: Path) -> None:
    """A file that another program has repacked, or one from a machine of the other byte order."""
    with h5py.File(file, "r+") as stored:
        values, attributes = stored["fields"][()], dict(stored["fields"].attrs)
        del stored["fields"]
        options = {"chunks": True, "compression": "gzip"} if kind == "chunked" else {"dtype": ">f8"}
        data = stored.create_dataset("fields", data=values, **options)
        for name in ("channels", "units"):
            data.attrs[name] = attributes[name]
    assert torch.equal(store.read(file).u, make().u)


# --- writing in pieces -------------------------------------------------------------------------------------------------------------


def append(writer: Writer, start: int, stop: int) -> None:
    writer.append(make()[start:stop], {name: values[start:stop] for name, values in certificate().items()})


@pytest.mark.parametrize("cuts", [(0, 5), (0, 1, 5), (0, 2, 3, 5)], ids=str)
def test_pieces_make_the_whole(cuts: tuple[int, ...], file: Path) -> None:
    path = file.with_name("pieces.h5")
    writer = Writer(path, COUNT, {})
    for start, stop in pairwise(cuts):
        append(writer, start, stop)
        assert writer.written == stop
    writer.finish()
    assert stored_bytes(path) == stored_bytes(file)
    assert torch.equal(store.certificate(path)["violation"], certificate()["violation"])


def test_nothing_has_the_final_name_before_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    writer = Writer(path, COUNT, {})
    assert not path.exists()
    append(writer, 0, 3)
    assert not path.exists()
    with pytest.raises(ValueError, match="3 of 5 samples"):
        writer.finish()
    assert not path.exists()
    append(writer, 3, 5)
    assert not path.exists()
    writer.finish()
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.h5"]


def test_existing_files_are_kept_unless_overwritten_as_a_whole(file: Path) -> None:
    before = file.read_bytes()
    with pytest.raises(ValueError, match="is a folder"):
        Writer(file.parent, COUNT, {}, overwrite=True)
    with pytest.raises(ValueError, match=r"fields\.h5 exists already.*--overwrite"):
        Writer(file, COUNT, {})
    with pytest.raises(ValueError, match="exists already"):
        store.write(file, make())
    with pytest.raises(ValueError, match="exists already"):
        Writer(file, COUNT, {}, resume=True)
    other = replace(make(), u=-make().u)
    writer = Writer(file, COUNT, {}, overwrite=True)
    writer.append(other[:2])
    assert file.read_bytes() == before
    writer.append(other[2:])
    writer.finish()
    assert torch.equal(store.read(file).u, -make().u)


def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    settings = {"seed": 3, "range": (0.0, 1.0), "file": Path("x")}
    whole = Writer(tmp_path / "whole.h5", COUNT, settings)
    append(whole, 0, 5)
    whole.finish()
    append(Writer(tmp_path / "a.h5", COUNT, settings), 0, 2)
    second = Writer(tmp_path / "a.h5", COUNT, settings, resume=True)
    assert second.written == 2
    append(second, 2, 3)
    third = Writer(tmp_path / "a.h5", COUNT, settings, resume=True)
    assert third.written == 3
    append(third, 3, 5)
    third.finish()
    assert stored_bytes(tmp_path / "a.h5") == stored_bytes(tmp_path / "whole.h5")
    one, other = store.read(tmp_path / "a.h5"), store.read(tmp_path / "whole.h5")
    assert one.attributes == other.attributes
    for name, values in other.parameters.items():
        assert torch.equal(one.parameters[name], values)
    for name, values in store.certificate(tmp_path / "whole.h5").items():
        assert torch.equal(store.certificate(tmp_path / "a.h5")[name], values)


class Killed(Exception):
    """The process ends here."""


@pytest.fixture
def killed_at_the_ledger(monkeypatch: pytest.MonkeyPatch) -> Callable[[Writer, int, int], None]:
    """Append samples, and die when they are in the file and not yet counted."""

    def die(source: object, target: object) -> None:
        raise Killed

    def run(writer: Writer, start: int, stop: int) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(store.os, "replace", die)
            with pytest.raises(Killed):
                append(writer, start, stop)

    return run


def test_samples_that_were_not_counted_are_written_again(tmp_path: Path, killed_at_the_ledger: Callable[[Writer, int, int], None]) -> None:
    writer = Writer(tmp_path / "a.h5", COUNT, {})
    append(writer, 0, 2)
    killed_at_the_ledger(writer, 3, 5)
    second = Writer(tmp_path / "a.h5", COUNT, {}, resume=True)
    assert second.written == 2
    append(second, 2, 5)
    second.finish()
    assert torch.equal(store.read(tmp_path / "a.h5").u, make().u)


def test_a_run_started_again_does_not_go_on_from_the_count_of_an_older_one(
    tmp_path: Path, killed_at_the_ledger: Callable[[Writer, int, int], None]
) -> None:
    """Three samples of a killed run; a new one in its place is killed within its first; what is resumed is the new one."""
    append(Writer(tmp_path / "a.h5", COUNT, {}), 0, 3)
    killed_at_the_ledger(Writer(tmp_path / "a.h5", COUNT, {}, overwrite=True), 0, 1)
    writer = Writer(tmp_path / "a.h5", COUNT, {}, resume=True)
    append(writer, writer.written, 5)
    writer.finish()
    assert torch.equal(store.read(tmp_path / "a.h5").u, make().u)


def test_an_unfinished_run_is_neither_lost_nor_resumed_unasked(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    assert Writer(path, COUNT, {}, resume=True).written == 0
    append(Writer(path, COUNT, {}), 0, 3)
    with pytest.raises(ValueError, match=r"unfinished run.*--resume.*--overwrite"):
        Writer(path, COUNT, {})
    assert Writer(path, COUNT, {}, resume=True).written == 3
    assert Writer(path, COUNT, {}, overwrite=True).written == 0
    path.with_name("a.h5.part.json").unlink()
    writer = Writer(path, COUNT, {}, resume=True)
    assert writer.written == 0
    append(writer, 0, 5)
    writer.finish()
    assert torch.equal(store.read(path).u, make().u)


@pytest.mark.parametrize("damage", ["ledger", "part"])
def test_a_damaged_part_is_not_resumed(damage: str, tmp_path: Path) -> None:
    writer = Writer(tmp_path / "a.h5", COUNT, {})
    append(writer, 0, 3)
    if damage == "ledger":
        writer.ledger.write_text(writer.ledger.read_text()[:-5])
    else:
        writer.part.write_bytes(writer.part.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"cannot be gone on with.*--overwrite"):
        Writer(tmp_path / "a.h5", COUNT, {}, resume=True)


@pytest.mark.parametrize(
    ("count", "settings", "message"),
    [
        (COUNT, {"seed": 4, "points": 8}, r"\(seed\)"),
        (COUNT, {"seed": 3}, r"\(points\)"),
        (COUNT, {"seed": 3, "points": 8, "mode": 1}, r"\(mode\)"),
        (COUNT + 1, {"seed": 3, "points": 8}, r"\(count\)"),
    ],
)
def test_other_settings_are_not_resumed(count: int, settings: dict[str, int], message: str, tmp_path: Path) -> None:
    append(Writer(tmp_path / "a.h5", COUNT, {"seed": 3, "points": 8}), 0, 2)
    with pytest.raises(ValueError, match=f"other settings {message}.*--overwrite"):
        Writer(tmp_path / "a.h5", count, settings, resume=True)
    assert Writer(tmp_path / "a.h5", COUNT, {"points": 8, "seed": 3}, resume=True).written == 2


# --- damaged and foreign files -----------------------------------------------------------------------------------------------------


def edited(edit: Callable[[h5py.File], object]) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        with h5py.File(path, "r+") as stored:
            edit(stored)

    return apply


def cut(share: float) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        whole = path.read_bytes()
        path.write_bytes(whole[: int(share * len(whole))])

    return apply


def remove(name: str) -> Callable[[Path], None]:
    return edited(lambda stored: stored.pop(name))


def set_attribute(name: str, value: object) -> Callable[[Path], None]:
    return edited(lambda stored: stored.attrs.modify(name, value))


def misspelt_axes(stored: h5py.File) -> None:
    stored.attrs["grid"] = stored.attrs["grid"].replace("periodic", "periodik")


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "half a file": (cut(0.5), "truncated|whole file"),
    "all but the last tenth": (cut(0.9), "truncated|whole file"),
    "a hundred bytes": (lambda path: path.write_bytes(path.read_bytes()[:100]), "truncated|whole file"),
    "no bytes": (cut(0), "is empty"),
    "foreign": (set_attribute("format", "other"), "not recognised, it is an HDF5 file laid out otherwise"),
    "no format": (edited(lambda stored: stored.attrs.pop("format")), "not recognised, it is an HDF5 file laid out otherwise"),
    "newer version": (set_attribute("version", 2), "version 2.*up to 1.*Upgrade"),
    "no version": (edited(lambda stored: stored.attrs.pop("version")), "not a whole file"),
    "no fields": (remove("fields"), "not a whole file.*fields"),
    "no laws": (remove("laws"), "not a whole file.*laws"),
    "no grid": (edited(lambda stored: stored.attrs.pop("grid")), "not a whole file.*grid"),
    "no channels": (edited(lambda stored: stored["fields"].attrs.pop("channels")), "not a whole file.*channels"),
    "no attributes": (edited(lambda stored: stored.attrs.pop("attributes")), "not a whole file.*attributes"),
    "another grid": (set_attribute("grid", json.dumps([Axis("x", 3).to_json()])), "expects fields"),
    "misspelt axes": (edited(misspelt_axes), "not a whole file.*periodik"),
    "grid that is no JSON": (set_attribute("grid", "[{"), "not a whole file"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_one_clear_error(damage: str, file: Path) -> None:
    apply, message = DAMAGES[damage]
    apply(file)
    with pytest.raises(ValueError, match=message) as caught:
        pde_datasets.open(file)
    if damage != "another grid":
        assert file.name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_foreign_hdf5_is_refused_by_name(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as stored:
        stored["density"] = np.zeros((3, 4))
    with pytest.raises(ValueError, match="HDF5 file laid out otherwise"):
        pde_datasets.open(tmp_path / "other.h5")
    with pytest.raises(ValueError, match="not in the layout of this toolkit"):
        store.read(tmp_path / "other.h5")
    with pytest.raises(ValueError, match="not a whole file"):
        store.read(tmp_path / "none.h5")


def test_a_part_of_a_run_is_not_taken_for_a_file(tmp_path: Path) -> None:
    """A killed run leaves nothing under the final name for `open` to find."""
    append(Writer(tmp_path / "a.h5", COUNT, {}), 0, 2)
    with pytest.raises(ValueError, match="there is none"):
        pde_datasets.open(tmp_path / "a.h5")


def test_certificate_tables_name_their_columns(tmp_path: Path) -> None:
    fields = Fields(torch.zeros(3, 1, 4), Grid(Axis("x", 4)), ("u",))
    certificate = {"violation": torch.zeros(3, 2), "converged": torch.ones(3, dtype=torch.bool)}
    store.write(tmp_path / "a.h5", fields, certificate=certificate, columns=["mass [kg]", "energy [J]"])
    with h5py.File(tmp_path / "a.h5") as file:
        assert list(file["certificate/violation"].attrs["columns"]) == ["mass [kg]", "energy [J]"]
        assert "columns" not in file["certificate/converged"].attrs
