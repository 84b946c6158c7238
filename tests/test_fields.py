"""Fields and parts of them: lazy arrays read what is asked and no more; windows, splits and thinner grids say what still holds."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from constraints import Axis, Grid
from pde_datasets import Fields, store
from pde_datasets.fields import Batches, Shuffled, join
from pde_datasets.lazy import Lazy
from pde_datasets.mesh import Equation, Mesh, csr, on_mesh
from pde_datasets.problems import Heat

LINE = Grid(Axis("x", 4, periodic=True))


def test_a_range_of_fields_keeps_what_belongs_to_it() -> None:
    u = torch.arange(40, dtype=torch.float64).reshape(5, 2, 4)
    whole = Fields(u, LINE, ("a", "b"), parameters={"r": torch.arange(5), "m": torch.arange(10).reshape(5, 2)}, roles={"velocity": ("b",)})
    part = whole[1:3]
    assert torch.equal(part.u, u[1:3])
    assert part.parameters["r"].tolist() == [1, 2]
    assert part.parameters["m"].tolist() == [[2, 3], [4, 5]]
    assert (part.units, part.roles, part.channels, len(part)) == (("1", "1"), whole.roles, whole.channels, 2)
    assert whole.channel("b") == 1
    assert whole.role("velocity") == (1,)
    assert whole.role("energy") == ()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda u: Fields(u, LINE, ("a",)), r"shape \(B, 1, 4\)"),
        (lambda u: Fields(u, LINE, ("a", "b"), units=("m",)), "one unit a channel"),
        (lambda u: Fields(u, LINE, ("a", "b"), parameters={"r": torch.zeros(2)}), "'r' with 3 rows"),
        (lambda u: Fields(u, LINE, ("a", "b"), parameters={"r": torch.tensor(1.0)}), "'r' with 3 rows"),
        (lambda u: Fields(u, LINE, ("a", "b"), roles={"density": ("c",)}), "role 'density'.*got 'c'"),
        (lambda u: Fields(u[..., 0], LINE, ("a", "b")), "expects fields"),
    ],
)
def test_fields_that_do_not_fit_are_refused(make: Callable[[Tensor], Fields], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(torch.zeros(3, 2, 4))


# --- arrays that stay where they are -----------------------------------------------------------------------------------------------

TABLE = torch.arange(5 * 2 * 6 * 4, dtype=torch.float64).reshape(5, 2, 6, 4)


class Counted:
    """A reader that counts the values it is asked for."""

    def __init__(self, table: Tensor = TABLE) -> None:
        self.table, self.values = table, 0

    def __call__(self, box: tuple[slice, ...]) -> Any:
        part = self.table[box]
        self.values += part.numel()
        return part

    def lazy(self, dtype: torch.dtype = torch.float64) -> Lazy:
        return Lazy(self, self.table.shape, dtype)


KEYS: list[Any] = [
    0, -1, slice(None), slice(1, 4), slice(-2, None), slice(0, 5, 2), slice(3, 3), (1, 1), (slice(None), 0), (slice(1, 3), slice(None), 2),
    (..., 1), (2, ..., slice(0, 4, 3)), ([3, 1, 1],), (slice(None), [1, 0]), (slice(2, 4), [1], slice(1, 5, 2)), ([0, -1], 1, slice(2, 4)),
    ([],), (slice(None), slice(None), [5, 0]),
]  # fmt: skip


SOURCES = pytest.mark.parametrize("source", [Counted().lazy(), Lazy.of(TABLE)], ids=["read", "mapped"])
"""Samples in any order come one by one, or in one go."""


@SOURCES
@pytest.mark.parametrize("key", KEYS, ids=str)
def test_lazy_arrays_index_like_tensors(key: Any, source: Lazy) -> None:
    assert torch.equal(source[key], TABLE[key])


@pytest.mark.parametrize(
    "inner", [([3, 1, 1],), ([0, -1], 1, slice(2, 4)), ([0, 2, 2], -1, slice(0, 2)), ([-1, 1], slice(None), 1, slice(1, 3))], ids=str
)
def test_parts_of_mapped_arrays_are_gathered_in_one_go(inner: Any) -> None:
    """Through every view: the whole is asked for all samples at once, and only there."""
    asked = []

    def gather(rows: Tensor, places: tuple[int | slice, ...]) -> Tensor:
        asked.append(rows.tolist())
        return TABLE[(slice(None), *places)].index_select(0, rows)

    lazy = Lazy(lambda box: pytest.fail("read one by one"), TABLE.shape, TABLE.dtype, gather=gather)
    part = lazy.narrowed(slice(0, 5, 2), slice(None), slice(1, 6, 2)).rows([2, 0, 1, 2, 2])
    assert torch.equal(part[inner], TABLE[0:5:2, :, 1:6:2][[2, 0, 1, 2, 2]][inner])
    assert len(asked) == 1
    assert asked[0] == [[4, 0, 2, 4, 4][i] for i in inner[0]]


@pytest.mark.parametrize("key", [slice(1, 3), (slice(2, 4), 1), ([4, 0], slice(0, 1), slice(1, 3))], ids=str)
def test_lazy_arrays_read_no_more_than_they_return(key: Any) -> None:
    counted = Counted()
    assert counted.values == 0
    assert counted.values == 0 * counted.lazy().numel()
    assert counted.lazy()[key].numel() == counted.values > 0


@SOURCES
@pytest.mark.parametrize("inner", KEYS[:13], ids=str)
def test_parts_of_lazy_arrays_stay_lazy(inner: Any, source: Lazy) -> None:
    part = source.narrowed(slice(0, 5, 2), slice(None), slice(1, 6, 2)).rows([2, 0, 1, 2, 2])
    whole = TABLE[0:5:2, :, 1:6:2][[2, 0, 1, 2, 2]]
    assert part.shape == whole.shape
    if not (isinstance(inner, tuple) and len(inner) > 2 and inner[2] == 2):
        assert torch.equal(part[inner], whole[inner])
    assert torch.equal(part.load(), whole)


def test_lazy_arrays_give_one_type_and_finite_values() -> None:
    assert Counted(TABLE.to(torch.int16)).lazy(torch.float32)[0].dtype == torch.float32
    bad = TABLE.clone()
    bad[3, 1, 2, 0] = math.nan
    lazy = Counted(bad).lazy()
    assert torch.equal(lazy[:3], TABLE[:3])
    with pytest.raises(ValueError, match="finite values"):
        lazy[2:]


@pytest.mark.parametrize("key", [5, -6, (0, 2), (0, 0, 0, 0, 0), slice(None, None, -1), ([5],), ([0], [1])], ids=str)
def test_lazy_arrays_refuse_what_is_not_there(key: Any) -> None:
    with pytest.raises(IndexError):
        Counted().lazy()[key]


def test_a_reader_that_gives_another_shape_is_found_out() -> None:
    with pytest.raises(ValueError, match="damaged"):
        Lazy(lambda box: TABLE[:1], TABLE.shape, torch.float64)[:2]


def test_a_reader_is_never_asked_for_nothing() -> None:
    lazy = Lazy(lambda box: 1 / 0, TABLE.shape, torch.float32)
    for key in (slice(2, 2), (slice(None), slice(0, 0)), ([],), (0, 1, slice(6, 9))):
        assert torch.equal(lazy[key], TABLE.to(torch.float32)[key])


TRAJECTORIES = Fields(TABLE, Grid(Axis("time", 6, length=1.0), Axis("x", 4, periodic=True)), ("a", "b"), parameters={"r": torch.arange(5)})
LAZY = replace(TRAJECTORIES, u=Lazy.of(TABLE))
RANGES = [slice(*ends, step) for ends in ((None, None), (1, 4), (3, 3), (4, 2), (-2, None), (2, 99), (99, None)) for step in (None, 2, 3)]


@pytest.mark.parametrize(
    ("fields", "whole"),
    [
        (LAZY, TABLE),
        (LAZY[0:5:2], TABLE[0:5:2]),
        (LAZY.take(torch.tensor([3, 1, 2])), TABLE[[3, 1, 2]]),
        (join([TRAJECTORIES[:2], LAZY[2:], LAZY[4:4]]), TABLE),
        (join([LAZY[3:], LAZY[:1:2], TRAJECTORIES]), torch.cat([TABLE[3:], TABLE[:1], TABLE])),
        (LAZY.windows(3, every=2), TABLE.unfold(2, 3, 2).permute(0, 2, 1, 4, 3).flatten(0, 1)),
        (TRAJECTORIES.windows(2, every=3, stride=2)[1:], torch.stack([TABLE[i, :, s : s + 3 : 2] for i in range(5) for s in (0, 3)])[1:]),
        (LAZY.thinned(time=2)[1::2], TABLE[1::2, :, ::2]),
    ],
    ids=["lazy", "every second", "taken", "joined", "joined again", "windows", "some windows", "thinned"],
)
def test_ranges_of_samples_are_those_of_the_whole(fields: Fields, whole: Tensor) -> None:
    """With steps, and where nothing is in them: (0, C, *N)."""
    for index in RANGES:
        part = fields[index]
        assert isinstance(part.u, Lazy)
        assert torch.equal(part.values, whole[index]), index
        assert torch.equal(fields.u[index], whole[index]), index
        assert part.values.shape == (len(part.parameters["r"]), *whole.shape[1:])
    with pytest.raises(ValueError, match="step must be greater than zero"):
        fields[::-1]


def test_lazy_blocks_cover_every_sample_once() -> None:
    wide = Lazy(lambda box: np.zeros(0), (7, 1, 1 << 21), torch.float64)
    starts = wide.blocks()
    assert [list(range(s, min(s + starts.step, 7))) for s in starts] == [[0, 1], [2, 3], [4, 5], [6]]


# --- parts of trajectories ---------------------------------------------------------------------------------------------------------

WAVES = Heat(points=16, times=9)


def test_windows_are_pieces_of_trajectories() -> None:
    whole = WAVES.draw(3, seed=1)
    counted = Counted(whole.values)
    windows = replace(whole, u=counted.lazy()).windows(3, every=2, stride=2)
    assert counted.values == 0
    starts = [0, 2, 4]
    assert len(windows) == 9
    assert isinstance(windows.u, Lazy)
    for i in range(9):
        first = starts[i % 3]
        assert torch.equal(windows.u[i], whole.values[i // 3, :, first : first + 5 : 2])
    assert counted.values == windows.u.numel()
    assert windows.parameters["trajectory"].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    torch.testing.assert_close(windows.parameters["start"], torch.tensor([s / 8 for s in starts] * 3, dtype=torch.float64))
    assert torch.equal(windows.parameters["phase"], whole.parameters["phase"].repeat_interleave(3))
    assert windows.grid.axes[0].spacing == pytest.approx(2 * whole.grid.axes[0].spacing)
    assert torch.equal(windows.u[2:7, :, 1], windows.values[2:7, :, 1])


def test_windows_keep_laws_of_every_time_only() -> None:
    whole = replace(WAVES.draw(2), laws=("mass:value=0", "initial-condition"))
    windows = whole.windows(4)
    assert windows.laws == ("mass:value=0",)
    assert "initial-condition" in windows.attributes["notes"]
    assert "discrete laws of problem heat" in windows.attributes["notes"]
    assert "problem_settings" not in windows.attributes


def test_windows_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="fit 9 times; 10 times, one every 1, take 10"):
        WAVES.draw(1).windows(10)
    with pytest.raises(ValueError, match="fit 9 times; 5 times, one every 3, take 13"):
        WAVES.draw(1).windows(5, stride=3)
    with pytest.raises(ValueError, match="at least 1 as frames, every and stride; got 0, 1 and 1"):
        WAVES.draw(1).windows(0)
    with pytest.raises(ValueError, match="equally spaced times"):
        Fields(torch.zeros(1, 1, 4), LINE, ("u",)).windows(1)


def test_splits_keep_trajectories_together() -> None:
    windows = WAVES.draw(10, seed=2).windows(3)
    parts = windows.split(train=0.7, validation=0.1, test=0.2, seed=4)
    seen = {name: set(part.parameters["trajectory"].tolist()) for name, part in parts.items()}
    assert {name: len(labels) for name, labels in seen.items()} == {"train": 7, "validation": 1, "test": 2}
    assert set.union(*seen.values()) == set(range(10))
    assert sum(len(part) for part in parts.values()) == len(windows)
    again = windows.split(train=0.7, validation=0.1, test=0.2, seed=4)
    assert all(torch.equal(parts[name].values, again[name].values) for name in parts)
    assert windows.split(train=0.5, test=0.5, seed=5)["train"].parameters["trajectory"].tolist() != (
        windows.split(train=0.5, test=0.5, seed=6)["train"].parameters["trajectory"].tolist()
    )


def test_split_samples_are_those_of_the_whole() -> None:
    whole = WAVES.draw(6, seed=2)
    part = whole.split(a=0.5)["a"]
    rows = [(whole.parameters["phase"] == phase).nonzero().item() for phase in part.parameters["phase"]]
    assert torch.equal(part.values, whole.values[rows])


@pytest.mark.parametrize(("shares", "message"), [({"a": 0.7, "b": 0.4}, "at most one"), ({"a": 0.0}, "positive"), ({}, "positive")])
def test_splits_that_cannot_be_are_refused(shares: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WAVES.draw(4).split(**shares)
    with pytest.raises(ValueError, match="one trajectory a part"):
        WAVES.draw(1).windows(2).split(a=0.5, b=0.5)


def test_every_part_of_a_split_has_something() -> None:
    parts = WAVES.draw(4).split(a=0.9, b=0.05, c=0.05)
    assert [len(part) for part in parts.values()] == [2, 1, 1]


@pytest.mark.parametrize(("strides", "laws"), [({"time": 2}, ("mass:value=0",)), ({"x": 2}, ()), ({"time": 1, "x": 1}, ("mass:value=0",))])
def test_thinner_grids_say_which_laws_they_break(strides: dict[str, int], laws: tuple[str, ...]) -> None:
    whole = WAVES.draw(2)
    thin = whole.thinned(**strides)
    t, x = strides.get("time", 1), strides.get("x", 1)
    assert torch.equal(thin.values, whole.values[:, :, ::t, ::x])
    torch.testing.assert_close(thin.grid.axes[1].positions(), whole.grid.axes[1].positions()[::x])
    torch.testing.assert_close(thin.grid.axes[0].positions(), whole.grid.axes[0].positions()[::t])
    assert thin.grid.axes[1].periodic
    assert thin.laws == laws
    assert ("mass" in thin.attributes.get("notes", "")) == (not laws)


def test_a_stride_that_does_not_divide_a_period_is_refused() -> None:
    """Spacings would be unequal; along axes with ends the rest is left out."""
    with pytest.raises(ValueError, match=r"divides the 16 points of the periodic axis x, .* got x=3. Take one of 2, 4, 8\.$"):
        WAVES.draw(1).thinned(x=3)
    thin = WAVES.draw(1).thinned(time=3).grid.axes[0]
    assert thin.uniform
    assert thin.points == 3
    assert thin.extent == pytest.approx(0.75)


def test_periodic_points_at_unequal_distances_are_thinned_as_they_are() -> None:
    axis = Axis.at("x", [0.0, 0.1, 0.3, 0.6], periodic=True, length=1.0)
    thin = Fields(torch.arange(4.0)[None, None], Grid(axis), ("u",)).thinned(x=3).grid.axes[0]
    assert thin.periodic
    assert thin.extent == pytest.approx(1.0)
    assert thin.positions().tolist() == [0.0, 0.6]


def test_strides_along_unknown_axes_are_refused() -> None:
    with pytest.raises(ValueError, match="an axis out of time, x; there is no axis 'y'"):
        WAVES.draw(1).thinned(y=2)
    with pytest.raises(ValueError, match="strides of at least 1; got x=0"):
        WAVES.draw(1).thinned(x=0)


@pytest.mark.parametrize("strides", [{"x": 16}, {"x": 32}, {"time": 100}])
def test_a_stride_that_leaves_a_single_point_is_refused(strides: dict[str, int]) -> None:
    """It is no axis any more."""
    with pytest.raises(ValueError, match=r"leaves two of the \d+ points of axis (x|time); got"):
        WAVES.draw(1).thinned(**strides)


# --- batches -----------------------------------------------------------------------------------------------------------------------


def test_batches_feed_a_torch_loader(tmp_path: Path) -> None:
    path = tmp_path / "waves.h5"
    whole = WAVES.draw(7, seed=3)
    store.write(path, whole)
    loader = torch.utils.data.DataLoader(Batches(store.read(path)), batch_size=3, collate_fn=lambda batch: batch)
    fields = [u for u, _ in loader]
    assert [len(u) for u in fields] == [3, 3, 1]
    assert torch.equal(torch.cat(fields), whole.values)
    assert torch.equal(torch.cat([p["phase"] for _, p in loader]), whole.parameters["phase"])
    rows = torch.tensor([5, 0, 3])
    for source in (whole, store.read(path), store.read(path).take(torch.arange(7))):
        u, parameters = Batches(source)[rows]
        assert torch.equal(u, whole.values[rows])
        assert torch.equal(parameters["phase"], whole.parameters["phase"][rows])
    single, parameters = Batches(whole)[2]
    assert torch.equal(single, whole.values[2])
    assert parameters["phase"] == whole.parameters["phase"][2]


@pytest.mark.parametrize("workers", [0, 1])
def test_shuffled_batches_are_an_epoch_each(workers: int) -> None:
    """Every sample once, in another order each time; the order is that of seed and epoch, whoever reads."""
    whole = WAVES.draw(7, seed=3)

    def epochs(seed: int, first: int = 0) -> list[Tensor]:
        sampler = Shuffled(7, 3, seed=seed, epoch=first)
        loader = torch.utils.data.DataLoader(Batches(whole), sampler=sampler, batch_size=None, num_workers=workers)
        return [torch.cat([p["phase"] for _, p in loader]) for _ in range(2 - first)]

    one, two = epochs(1)
    phase = whole.parameters["phase"]
    assert torch.equal(one.sort().values, phase.sort().values)
    assert torch.equal(two.sort().values, phase.sort().values)
    assert not torch.equal(one, two)
    assert torch.equal(two, epochs(1, first=1)[0])
    assert not torch.equal(one, epochs(2)[0])
    assert [len(rows) for rows in Shuffled(7, 3)] == [3, 3, 1]
    assert len(Shuffled(7, 3)) == 3


def test_batches_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="one a batch; got 7 and 0"):
        Shuffled(7, 0)


# --- meshes ------------------------------------------------------------------------------------------------------------------------


def triangle(each: bool) -> Fields:
    """Two samples on three points; the second equation differs between samples where `each` does."""
    one = csr(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 2]), torch.tensor([1.0, -1.0, 2.0], dtype=torch.float64), (2, 3))
    other = csr(torch.tensor([0, 1]), torch.tensor([0, 1]), torch.tensor([3.0, 4.0], dtype=torch.float64), (2, 3))
    value = torch.tensor([0.0, 1.0], dtype=torch.float64)
    points = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    mesh = Mesh(
        torch.stack([points, points + 1]) if each else points,
        cells={"triangle": torch.tensor([[0, 1, 2]])},
        equations={"law": Equation((one, other), (value, 2 * value), "m") if each else Equation(one, value, "m")},
        boundary={"wall": torch.tensor([0, 2])},
    )
    return Fields(torch.arange(6.0).reshape(2, 1, 3), on_mesh(3), ("u",), mesh=mesh)


@pytest.mark.parametrize("each", [False, True])
def test_meshes_survive_a_file(each: bool, tmp_path: Path) -> None:
    whole = triangle(each)
    store.write(tmp_path / "mesh.h5", whole)
    read = store.read(tmp_path / "mesh.h5")
    assert read.mesh is not None
    assert whole.mesh is not None
    assert torch.equal(read.mesh.points, whole.mesh.points)
    assert torch.equal(read.mesh.cells["triangle"], whole.mesh.cells["triangle"])
    assert torch.equal(read.mesh.boundary["wall"], whole.mesh.boundary["wall"])
    assert read.grid == whole.grid
    for i in range(2):
        a, b = read.mesh.equations["law"].of(i), whole.mesh.equations["law"].of(i)
        assert torch.equal(a[0].to_dense(), b[0].to_dense())
        assert torch.equal(torch.as_tensor(a[1]), torch.as_tensor(b[1]))
    assert read.mesh.equations["law"].unit == "m"


def test_a_range_of_fields_keeps_its_meshes(tmp_path: Path) -> None:
    part = triangle(True)[1:]
    assert part.mesh is not None
    assert part.mesh.points.shape == (1, 3, 2)
    assert part.mesh.equations["law"].of(0)[0].to_dense()[0, 0] == 3.0
    assert triangle(True).take(torch.tensor([1])).mesh.equations["law"].of(0)[0].to_dense()[0, 0] == 3.0  # type: ignore[union-attr]


def test_meshes_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="point, cell, face; got 'edge'"):
        Mesh(torch.zeros(3, 2), "edge")
    with pytest.raises(ValueError, match=r"\(P, d\)"):
        Mesh(torch.zeros(3))


def test_files_larger_than_a_block_are_copied_in_pieces(tmp_path: Path) -> None:
    """From a lazy array, with no more than a block of it read at a time."""
    grid = Grid(Axis("x", 1 << 20, periodic=True))
    seen: list[int] = []

    def read(box: tuple[slice, ...]) -> Tensor:
        rows = torch.arange(9.0)[box[0]]
        seen.append(len(rows))
        return rows[:, None, None].expand(-1, 1, 1 << 20)[:, box[1], box[2]]

    store.write(tmp_path / "long.h5", Fields(Lazy(read, (9, 1, 1 << 20), torch.float32), grid, ("u",)))
    assert seen == [4, 4, 1]
    assert torch.equal(store.read(tmp_path / "long.h5").values[:, 0, 5], torch.arange(9.0))
