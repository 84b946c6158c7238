"""Commands that make and change files of fields: shards and workers, presets, conversion, and the laws a problem gives its data."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import h5py
import numpy as np
import pytest
import torch
from scipy.io import netcdf_file

import pde_datasets
from constraints import Axis, Grid
from pde_datasets import PROBLEMS, Fields, store
from pde_datasets.problem import Problem
from pde_datasets.problems import Heat, Kolmogorov
from pde_datasets.production import piece_size, produce, shard
from tests.commands import Call

HEAT = "generate heat --count 10 --set points=16 times=8 --quiet --seed 5"


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


# --- shards and workers ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("problem", "count", "shards"), [(Heat(), 10, 3), (Heat(), 7, 7), (Kolmogorov(snapshots=4), 200, 3)])
def test_shards_are_the_whole_and_tear_no_company_apart(problem: Problem, count: int, shards: int) -> None:
    ranges = [shard(problem, count, i, shards) for i in range(1, shards + 1)]
    assert ranges[0][0] == 0
    assert ranges[-1][1] == count
    assert all(a[1] == b[0] for a, b in pairwise(ranges))
    company = problem.together * problem.snapshots
    assert all(first % company == 0 and last > first for first, last in ranges)


def test_shards_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="from 1 to 3; got 4"):
        shard(Heat(), 10, 4, 3)
    with pytest.raises(ValueError, match="at most 2 shards"):
        shard(Kolmogorov(snapshots=4), 100, 1, 3)


def test_pieces_hold_whole_companies() -> None:
    assert piece_size(Heat(points=16, times=8)) == 256
    assert piece_size(Kolmogorov(snapshots=16)) == 256
    assert piece_size(Kolmogorov(points=512, snapshots=1)) == 16
    drawn = list(produce(Heat(points=16, times=8), 250, 520, seed=1))
    assert [len(part) for part in drawn] == [6, 256, 8]
    whole = Heat(points=16, times=8).draw(270, seed=1, start=250)
    torch.testing.assert_close(torch.cat([part.values for part in drawn]), whole.values, rtol=0, atol=1e-14)


def test_shards_join_to_what_one_run_makes(call: Call) -> None:
    assert call(f"{HEAT} --out whole.h5").status == 0
    for i in (1, 2, 3):
        assert call(f"{HEAT} --out part.h5 --shard {i}/3").status == 0
    assert call("convert part.3-of-3.h5 part.1-of-3.h5 part.2-of-3.h5 --out joined.h5 --quiet").status == 0
    whole, joined = pde_datasets.open("whole.h5"), pde_datasets.open("joined.h5")
    torch.testing.assert_close(joined.values, whole.values, rtol=0, atol=1e-14)
    assert torch.equal(joined.parameters["phase"], whole.parameters["phase"])
    assert joined.laws == whole.laws


@pytest.fixture
def shards(call: Call) -> None:
    """Heat in three shards, of samples 0 to 2, 3 to 6 and 7 to 9."""
    for i in (1, 2, 3):
        assert call(f"{HEAT} --out part.h5 --shard {i}/3").status == 0


@pytest.mark.usefixtures("shards")
@pytest.mark.parametrize(
    ("given", "missing", "named"),
    [
        ((2, 3), "0 to 2 of 10", (1,)),
        ((1, 2), "7 to 9 of 10", (3,)),
        ((3, 1), "3 to 6 of 10", (2,)),
        ((2,), "0 to 2, 7 to 9 of 10", (1, 3)),
        ((1,), "3 to 9 of 10", (2, 3)),
    ],
)
def test_missing_shards_are_noticed_and_named(given: tuple[int, ...], missing: str, named: tuple[int, ...], call: Call) -> None:
    files = " ".join(f"part.{i}-of-3.h5" for i in given)
    lacking = call(f"convert {files} --out less.h5")
    assert lacking.status == 2
    assert f"samples {missing} ({', '.join(f'part.{i}-of-3.h5' for i in named)})" in lacking.err
    assert not Path("less.h5").exists()
    taken = call(f"convert {files} --out less.h5 --incomplete --json")
    assert taken.status == 0
    assert missing in taken.json()["notes"]
    assert len(pde_datasets.open("less.h5")) == sum((3, 4, 3)[i - 1] for i in given)


@pytest.mark.usefixtures("shards")
def test_a_shard_named_twice_is_refused_though_incomplete_is_allowed(call: Call) -> None:
    ran = call("convert part.1-of-3.h5 part.1-of-3.h5 --out twice.h5 --incomplete")
    assert ran.status == 2
    assert "without overlaps" in ran.err


@pytest.mark.usefixtures("shards")
def test_shards_of_two_data_sets_are_each_checked(call: Call) -> None:
    """The files of another seed do not fill the gap."""
    for i in (1, 2):
        assert call(f"{HEAT} --out other.h5 --seed 6 --shard {i}/2".replace("--seed 5", "")).status == 0
    files = "part.2-of-3.h5 other.2-of-2.h5 part.1-of-3.h5 other.1-of-2.h5"
    lacking = call(f"convert {files} --out less.h5")
    assert lacking.status == 2
    assert "samples 7 to 9 of 10 (part.3-of-3.h5)" in lacking.err
    assert call(f"convert {files} part.3-of-3.h5 --out both.h5 --quiet").status == 0
    both = pde_datasets.open("both.h5").values
    assert torch.equal(both[:3], pde_datasets.open("part.1-of-3.h5").values)
    assert torch.equal(both[10:15], pde_datasets.open("other.1-of-2.h5").values)


@pytest.mark.usefixtures("shards")
def test_shards_of_an_earlier_version_are_read_with_a_word(call: Call) -> None:
    """Their settings lack the total: gaps and a missing first one are noticed, a missing last one cannot be."""
    for i in (1, 2, 3):
        with h5py.File(f"part.{i}-of-3.h5", "r+") as file:
            attributes = json.loads(file.attrs["attributes"])
            del attributes["settings"]["total"]
            file.attrs["attributes"] = json.dumps(attributes)
    refused = call("convert part.2-of-3.h5 part.3-of-3.h5 --out less.h5")
    assert refused.status == 2
    assert "samples 0 to 2 (part.1-of-3.h5)" in refused.err
    read = call("convert part.2-of-3.h5 part.1-of-3.h5 --out less.h5")
    assert read.status == 0
    assert "part.1-of-3.h5, part.2-of-3.h5: an earlier version wrote no total" in read.out
    assert len(pde_datasets.open("less.h5")) == 7


def test_workers_make_the_same_file(call: Call) -> None:
    command = "generate kolmogorov --count 40 --set points=16 spin_up=0.1 interval=0.1 snapshots=1 --quiet"
    assert call(f"{command} --out one.h5").status == 0
    assert call(f"{command} --out two.h5 --workers 2").status == 0
    assert torch.equal(pde_datasets.open("one.h5").values, pde_datasets.open("two.h5").values)


def _of_group(group: int) -> list[int]:
    """Living processes of a process group."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # one that has ended meanwhile
            state, _, of = entry.read_text().rpartition(")")[2].split()[:3]
            found += [int(entry.parent.name)] if int(of) == group and state not in "ZX" else []
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds processes in /proc")
@pytest.mark.parametrize("working", [False, True], ids=["at their start", "at work"])
def test_workers_end_with_the_process_they_work_for(working: bool) -> None:
    """Even if it is killed and cannot tell them, whether they are still importing or drawing pieces that take minutes."""
    command = "generate kolmogorov --count 256 --set points=256 snapshots=1 --workers 2 --out a.h5 --quiet"
    parent = subprocess.Popen([sys.executable, "-m", "pcfm", *command.split()], start_new_session=True)
    try:
        patience = time.monotonic() + 60
        while len(_of_group(parent.pid)) < 4 and time.monotonic() < patience:  # the parent, two workers, and who tracks their semaphores
            time.sleep(0.05)
        assert len(_of_group(parent.pid)) == 4
        time.sleep(15 if working else 0.2)
        assert parent.poll() is None
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        patience = time.monotonic() + (5 if working else 40)  # imports come first
        while _of_group(parent.pid) and time.monotonic() < patience:
            time.sleep(0.05)
        assert not _of_group(parent.pid)
    finally:
        for process in _of_group(parent.pid):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)


def test_a_killed_shard_resumes(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pde_datasets.production._MOST", 2)
    append, calls = store.Writer.append, []

    def failing(self: store.Writer, *args: object, **options: object) -> None:
        calls.append(self.written)
        if len(calls) == 2:
            raise KeyboardInterrupt
        append(self, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(store.Writer, "append", failing)
    assert call(f"{HEAT} --out part.h5 --shard 2/2").status == 130
    monkeypatch.setattr(store.Writer, "append", append)
    resumed = call(f"{HEAT} --out part.h5 --shard 2/2 --resume".replace("--quiet", ""))
    assert resumed.status == 0
    assert "resuming at sample 1 of 5" in resumed.out
    assert call(f"{HEAT} --out whole.h5").status == 0
    torch.testing.assert_close(pde_datasets.open("part.2-of-2.h5").values, pde_datasets.open("whole.h5").values[5:], rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--shard 3", "expects i/n"),
        ("--shard 0/2", "from 1 to 2"),
        ("--workers 0", "--workers expects at least 1 process, which simulates by itself; got 0"),
        ("--seed -1", "--seed expects a number that is not negative; got -1"),
        ("--count 0", "--count expects at least 1 sample; got 0"),
        ("--set diffusivity=[1,5] diffusivity=[2,3]", "each setting once; got diffusivity=[1,5] and diffusivity=[2,3]"),
        ("--set diffusivity=[5,1]", "diffusivity as a range [low,high] not below 0, the lower end first; got [5,1]"),
        ("--set points=17", "each setting once; got points=16 and points=17"),
        ("--preset nonsense", "no preset 'nonsense'. Known: pcfm, eci"),
        ("--count 1000000000000", "a.h5 needs 931.3 TiB of disk; "),
        ("--set diffusivity=1:5", "expects two numbers, such as diffusivity=[1,5], without spaces; got 1:5"),
        ("--set diffusivity=3", "such as diffusivity=[1,5], without spaces, or diffusivity=[3,3] for this one; got 3"),
        ("--set diffusivity=[1,2,3]", "such as diffusivity=[1,5], without spaces; got [1,2,3]"),
    ],
)
def test_bad_calls_of_generate(flags: str, message: str, call: Call) -> None:
    ran = call(f"{HEAT} --out a.h5 {flags}")
    assert ran.status == 2
    assert message in ran.err
    assert not list(Path().glob("a.*"))


def test_a_list_of_numbers_may_have_any_length(call: Call) -> None:
    """Heat capacity ratios of a gas are as many as one likes, Reynolds numbers of Kolmogorov flow a range or none."""
    assert call("generate euler-1d --count 1 --set points=16 times=2 gamma=[1.3,1.4,1.6] --out a.h5 --quiet").status == 0
    assert pde_datasets.open("a.h5").attributes["settings"]["gamma"] == [1.3, 1.4, 1.6]
    command = "generate kolmogorov --count 1 --set points=16 spin_up=0.1 interval=0.1 snapshots=1 --quiet"
    assert call(f"{command} --set reynolds=[50,100] --out b.h5").status == 0
    ran = call(f"{command} --set reynolds=50 --out c.h5")
    assert ran.status == 2
    assert "expects a list of numbers, such as reynolds=[1,2], without spaces; got 50" in ran.err


@pytest.mark.parametrize("most", [1, 256])
def test_samples_that_would_all_be_the_same_are_refused(most: int, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether they come in one piece or in several; nothing stays behind."""
    monkeypatch.setattr("pde_datasets.production._MOST", most)
    command = "generate cavity --set cells=8 times=2 --out a.h5 --quiet --set reynolds=[100,"
    ran = call(f"{command}100] --count 2")
    assert ran.status == 2
    assert "draws nothing at random with these settings" in ran.err
    assert not list(Path().glob("a.*"))
    assert call(f"{command}100] --count 1").status == 0
    assert call(f"{command}200] --count 2 --overwrite").status == 0


def test_pieces_are_listed_as_they_are_needed() -> None:
    """Memory does not grow with the count."""
    tracemalloc.start()
    drawn = next(produce(Heat(points=8, times=2), 0, 10**15))
    assert len(drawn) == 256
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**22


@pytest.mark.parametrize(
    ("command", "foretold"),
    [
        ("cylinder --count 2 --set resolution=8 spin_up=0.5 times=3 duration=0.5 upstream=3 downstream=5 side=3", True),
        ("channel --count 2 --set cells=8 times=3 duration=0.05", True),
        ("decaying-turbulence --count 2 --set points=16 times=3 duration=0.1", False),
        ("euler-1d --count 2 --set points=16 times=3", False),
        ("gray-scott --count 2 --set points=16 times=3 interval=4 steps=4", True),
        ("gray-scott --count 5 --set points=16 times=3 interval=4 steps=4", True),  # which are two companies
        ("reaction-diffusion --count 2 --set points=16 times=3", True),
        ("inviscid-burgers --count 2 --set points=16 times=32", True),
        ("burgers --count 2 --set points=16 times=3", False),
        ("allen-cahn --count 2 --set points=16 times=3", False),
        ("schroedinger --count 2 --set points=64 times=3", False),
    ],
)
def test_progress_within_a_trajectory_is_told(command: str, foretold: bool, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a step, where patience is short, up to the last; and nothing is said to those who want quiet."""
    monkeypatch.setattr("pcfm.commands.common.PATIENCE", -1.0)
    ran = call(f"generate {command} --out a.h5")
    assert ran.status == 0
    told = re.findall(r"^  0/\d samples  step (\d+)( of \d+)? of the next$", ran.err, re.MULTILINE)
    assert [int(number) for number, _ in told] == list(range(1, len(told) + 1))
    assert len(told) >= 2
    assert {of for _, of in told} == {f" of {len(told)}" if foretold else ""}
    assert not call(f"generate {command} --out a.h5 --overwrite --quiet").err


# --- what the ending of a name says ------------------------------------------------------------------------------------------------

WRITING = {
    "generate": "generate heat --count 2 --set points=16 times=3 --out {}",
    "project": "project heat.h5 --law mass --out {}",
    "convert": "convert heat.h5 --out {}",
    "sample": "sample kolmogorov --count 2 --steps 1 --out {}",
}


@pytest.mark.parametrize("name", WRITING)
def test_another_ending_is_refused_before_any_work(name: str, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pde_datasets.open", lambda *_: pytest.fail("a file was opened"))
    monkeypatch.setattr("pcfm.shelf.load", lambda *_: pytest.fail("a model was opened"))
    ran = call(WRITING[name].format("a.txt"))
    assert ran.status == 2
    assert ".h5 (our layout), .hdf5 (our layout), .nc (netCDF with CF attributes), .vti (ParaView" in ran.err
    assert "got 'a.txt'" in ran.err
    assert not list(Path().glob("a.*"))


@pytest.mark.parametrize("name", ["generate", "project", "convert"])
@pytest.mark.parametrize("ending", [".hdf5", ".nc", ".NC"])
def test_the_ending_says_what_is_written(name: str, ending: str, call: Call) -> None:
    assert call("generate heat --count 2 --set points=16 times=3 --out heat.h5 --quiet").status == 0
    assert call(f"{WRITING[name].format('a' + ending)} --quiet").status == 0
    written = pde_datasets.open(f"a{ending}")
    assert written.attributes["format"] == ("pcfm" if ending == ".hdf5" else "netcdf")
    torch.testing.assert_close(written.values, pde_datasets.open("heat.h5").values, rtol=0, atol=1e-14)
    assert sorted(path.name for path in Path().glob("a.*")) == sorted([f"a{ending}", *(["a.json"] if name != "convert" else [])])
    if name == "project" and ending != ".hdf5":
        assert written.parameters["certificate_converged"].tolist() == [1, 1]
        assert written.parameters["certificate_violation"].abs().max() < 1e-12


@pytest.mark.parametrize("name", ["generate", "project"])
def test_image_data_are_a_file_a_sample_and_time(name: str, call: Call) -> None:
    assert call("generate heat --count 2 --set points=16 times=3 --out heat.h5 --quiet").status == 0
    assert call(f"{WRITING[name].format('a.vti')} --quiet").status == 0
    times = [f"a.{i}.{t}.vti" for i in range(2) for t in range(3)]
    assert sorted(path.name for path in Path().glob("a.*")) == sorted([*times, "a.0.pvd", "a.1.pvd", "a.json"])
    again = call(f"{WRITING[name].format('a.vti')}")
    assert again.status == 2
    assert "a.0.0.vti exists already" in again.err


def test_fields_that_a_file_cannot_hold_are_refused_before_they_are_made(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pde_datasets.production.produce", lambda *_, **__: pytest.fail("fields were made"))
    ran = call("generate cylinder --count 1 --out a.vti")
    assert ran.status == 2
    assert "three equally spaced axes" in ran.err


def test_a_full_disk_is_noticed_before_anything_is_written(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """5 samples of 16 x 8 values of 8 bytes are 5 KiB, and their parameters come to 80 bytes more."""
    room = shutil.disk_usage(".")
    for free, status in ((5 * 1024 - 1, 2), (5 * 1024 + 79, 2), (5 * 1024 + 80, 0)):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: room._replace(free=free))
        ran = call("generate heat --count 5 --set points=16 times=8 --out a.h5 --quiet")
        assert ran.status == status
        if status:
            assert re.search(r"a.h5 needs 5(\.\d+)? KiB of disk; .* KiB are free in .*fewer or smaller samples", ran.err)
            assert not list(Path().glob("a.*"))


def test_a_killed_export_resumes(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pde_datasets.production._MOST", 2)
    append, calls = store.Writer.append, []

    def failing(self: store.Writer, *args: object, **options: object) -> None:
        calls.append(self.written)
        if len(calls) == 2:
            raise KeyboardInterrupt
        append(self, *args, **options)  # type: ignore[arg-type]

    command = "generate heat --count 4 --set points=512 times=8 --out a.nc --quiet"
    monkeypatch.setattr(store.Writer, "append", failing)
    assert call(command).status == 130
    assert sorted(path.name for path in Path().glob("a.*")) == ["a.nc.h5.part", "a.nc.h5.part.json"]
    monkeypatch.setattr(store.Writer, "append", append)
    assert call(f"{command} --resume").status == 0
    assert sorted(path.name for path in Path().glob("a.*")) == ["a.json", "a.nc"]
    assert len(pde_datasets.open("a.nc")) == 4


def test_a_preset_is_a_set_of_settings(call: Call) -> None:
    name, kind = next((name, kind) for name, kind in PROBLEMS.items() if any(kind.presets.values()) and name == "reaction-diffusion")
    preset = next(name for name, settings in kind.presets.items() if settings)
    assert call(f"generate {name} --count 1 --preset {preset} --out a.h5 --quiet").status == 0
    assert pde_datasets.problem_of(pde_datasets.open("a.h5")) == kind.preset(preset)


# --- the laws of a problem ---------------------------------------------------------------------------------------------------------


def test_inspect_checks_the_laws_of_the_problem(call: Call) -> None:
    assert call(f"{HEAT} --out heat.h5").status == 0
    rows = {row["name"]: row for row in call("inspect heat.h5 --json").json()["laws"]}
    assert rows["initial condition" if "initial condition" in rows else "initial-condition"]["holds"]
    assert call("convert heat.h5 --out thin.h5 --thin time=2 --quiet").status == 0
    document = call("inspect thin.h5 --json").json()
    names = {row["name"] for row in document["laws"]}
    assert "mass" in names
    assert not {name for name in names if name.startswith("initial")}
    refused = call("project thin.h5 --law problem --out lawful.h5")
    assert refused.status == 2
    assert "not cut since" in refused.err


def test_fields_are_projected_on_the_laws_of_their_problem(call: Call) -> None:
    """Disturbed heat goes back to its initial data and mass, each sample to those of its own parameters."""
    assert call(f"{HEAT} --out heat.h5").status == 0
    heat = pde_datasets.open("heat.h5")
    noise = 0.1 * torch.randn(heat.u.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    store.write(Path("noisy.h5"), replace(heat, u=heat.values + noise))
    assert call("project noisy.h5 --law problem --out lawful.h5 --quiet").status == 0
    lawful = pde_datasets.open("lawful.h5").values
    torch.testing.assert_close(lawful[:, :, 0], heat.values[:, :, 0], rtol=0, atol=1e-12)
    assert lawful.sum(-1).abs().max() < 1e-11
    assert call("project noisy.h5 --law problem --reference heat.h5 --out other.h5 --quiet").status == 0
    assert torch.equal(pde_datasets.open("other.h5").values, lawful)


# --- conversion --------------------------------------------------------------------------------------------------------------------


def test_netcdf_holds_fields_axes_and_parameters(call: Call) -> None:
    assert call(f"{HEAT} --out heat.h5").status == 0
    assert call("convert heat.h5 --out heat.nc --quiet").status == 0
    heat = pde_datasets.open("heat.h5")
    with netcdf_file("heat.nc", mmap=False) as file:
        np.testing.assert_array_equal(file.variables["u"][:], heat.values[:, 0].numpy())
        assert file.variables["u"].dimensions == ("sample", "time", "x")
        np.testing.assert_array_equal(file.variables["x"][:], heat.grid.axes[1].positions().numpy())
        np.testing.assert_array_equal(file.variables["parameter_phase"][:], heat.parameters["phase"].numpy())
        assert file.Conventions == b"CF-1.11"
        assert file.laws == b"mass:value=0"
        assert file.variables["time"].axis == b"T"


@pytest.mark.parametrize("cells", [False, True])
def test_paraview_files_hold_each_time(cells: bool, call: Call) -> None:
    """Read back by hand: the appended bytes of each array, x fastest; cell data lie between the corners of the extent."""
    grid = Grid(Axis("time", 3, length=2.0), *(Axis(n, p, length=p / 4, origin=1.0, cells=cells) for n, p in (("x", 4), ("y", 5))))
    u = torch.arange(2 * 2 * 3 * 20, dtype=torch.float64).reshape(2, 2, 3, 4, 5)
    store.write(Path("a.h5"), Fields(u, grid, ("p", "T<0")))
    assert call("convert a.h5 --out a.vti --quiet").status == 0
    head, _, body = Path("a.1.2.vti").read_bytes().partition(b'<AppendedData encoding="raw">\n_')
    root = ElementTree.fromstring(head.decode() + "</VTKFile>")
    image = root.find("ImageData")
    assert image is not None
    assert image.get("WholeExtent") == ("0 4 0 5 0 1" if cells else "0 3 0 4 0 0")
    spacing = grid.axes[1].spacing
    assert float(image.get("Origin", "").split()[0]) == pytest.approx(1.0 - spacing / 2 if cells else 1.0)
    arrays = root.findall(f".//{'CellData' if cells else 'PointData'}/DataArray")
    assert [array.get("Name") for array in arrays] == ["p", "T<0"]
    for channel, array in enumerate(arrays):
        offset = int(array.get("offset", ""))
        size = int.from_bytes(body[offset : offset + 8], "little")
        values = np.frombuffer(body[offset + 8 : offset + 8 + size], "<f8").reshape(5, 4)
        np.testing.assert_array_equal(values.T, u[1, channel, 2].numpy())
    sets = ElementTree.parse("a.1.pvd").findall(".//DataSet")
    assert [float(entry.get("timestep", "")) for entry in sets] == [0.0, 1.0, 2.0]
    assert [entry.get("file") for entry in sets] == ["a.1.0.vti", "a.1.1.vti", "a.1.2.vti"]


def test_paraview_files_say_which_axes_are_periodic(call: Call) -> None:
    """Read back, the axis has its period again, not the distance of its outer points."""
    axes = Axis("x", 8, length=2.0, origin=0.5, periodic=True), Axis("y", 5, length=1.0)
    whole = Fields(torch.arange(40.0).reshape(1, 1, 8, 5), Grid(*axes), ("u",))
    store.write(Path("a.h5"), whole)
    assert call("convert a.h5 --out a.vti --quiet").status == 0
    back = pde_datasets.open("a.0.vti")
    assert torch.equal(back.values, whole.values)
    assert [(axis.periodic, axis.extent, axis.origin) for axis in back.grid.axes] == [(True, 2.0, 0.5), (False, 1.0, 0.0)]
    written = Path("a.0.vti").read_bytes()
    Path("b.vti").write_bytes(written.replace(b'"3" format="ascii">1 0 0<', b'"3" format="ascii">1 0<'))
    with pytest.raises(ValueError, match="expects 3 values of 1 numbers in 'periodic'; got 2"):
        pde_datasets.open("b.vti")


def test_parts_are_cut_thinned_and_split(call: Call) -> None:
    assert call(f"{HEAT} --out heat.h5").status == 0
    ran = call("convert heat.h5 --out s.h5 --thin time=2 --windows 2 --split train=0.8 test=0.2 --json")
    assert ran.status == 0
    assert ran.json()["count"] == 30
    train, test = pde_datasets.open("s.train.h5"), pde_datasets.open("s.test.h5")
    assert (len(train), len(test)) == (24, 6)
    assert not set(train.parameters["trajectory"].tolist()) & set(test.parameters["trajectory"].tolist())
    assert train.grid.axes[0].points == 2
    assert "Windows of 2 times" in train.attributes["notes"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--out a.xyz", "ends in one of .h5"),
        ("--out a.h5 --every 2", "Give --windows"),
        ("--out a.h5 --stride 2", "Give --windows"),
        ("--out a.h5 --windows 2 --every 0", "at least 1 as frames, every and stride; got 2, 0 and 1"),
        ("--out a.h5 --windows 0", "at least 1 as frames, every and stride; got 0, 1 and 1"),
        ("--out a.h5 --windows 3 --stride 5", "fit 8 times; 3 times, one every 5, take 11. Ask for fewer times"),
        ("--out a.h5 --thin x=3", "divides the 16 points of the periodic axis x, so that they stay equally spaced; got x=3"),
        ("--out a.h5 --thin x=2 x=4", "each name once; got 'x' twice"),
        ("--out heat.h5", "exists already"),
        ("--out a.h5 --thin y=2", "out of time, x; there is no axis 'y'"),
        ("--out a.h5 --thin x=two", "AXIS=k"),
        ("--out a.h5 --split train=2", "at most one"),
        ("--out a.h5 --windows 9", "fit 8 times"),
        ("other.h5 --out a.h5", "join expects fields of one grid"),
    ],
)
def test_bad_calls_of_convert(arguments: str, message: str, call: Call) -> None:
    assert call(f"{HEAT} --out heat.h5").status == 0
    assert call("generate heat --count 2 --set points=8 times=8 --out other.h5 --quiet").status == 0
    ran = call(f"convert heat.h5 {arguments}")
    assert ran.status == 2
    assert message in ran.err
    assert not list(Path().glob("a.*"))


# --- plain arrays ------------------------------------------------------------------------------------------------------------------


def test_plain_arrays_need_words(call: Call) -> None:
    time, x = np.linspace(0, 1, 8), np.arange(16) * 2 * np.pi / 16
    np.save("a.npy", np.stack([np.sin(x + phase) * np.exp(-time[:, None]) for phase in range(5)]))
    silent = call("inspect a.npy")
    assert silent.status == 2
    assert "says nothing of its axes; got u (5, 8, 16)" in silent.err
    document = call("inspect a.npy --words layout='n t x' periodic=x --words length='x=6.283185307179586 t=1' --json").json()
    assert [(axis["name"], axis["periodic"]) for axis in document["axes"]] == [("time", False), ("x", True)]
    assert next(law for law in document["laws"] if law["name"].startswith("mass"))["holds"]
    assert call("convert a.npy --words layout='n t x' periodic=x --out b.h5 --quiet").status == 0
    assert pde_datasets.open("b.h5").values.shape == (5, 1, 8, 16)


def test_a_flow_trains_from_a_converted_file(call: Call) -> None:
    """A plain array, said what it is, converted and split, is what a model learns from: samples live on its grid and obey its laws."""
    np.savez("a.npz", u=np.random.default_rng(0).normal(size=(20, 16)), c=np.arange(20.0))
    words = "layout='n x' periodic=x length='x=2' laws=mass:value=0 parameters=c"
    assert call(f"convert a.npz --words {words} --split train=0.8 test=0.2 --out b.h5 --quiet").status == 0
    small = "network.modes=4 network.width=8 network.depth=2 training.batch=8 training.steps=3"
    assert call(f"train b.train.h5 --out model --quiet --set {small}").status == 0
    assert call("sample model --count 3 --steps 2 --out s.h5 --law mass:value=0 --quiet").status == 0
    sampled, train = pde_datasets.open("s.h5"), pde_datasets.open("b.train.h5")
    assert sampled.grid == train.grid
    assert len(train) == 16
    assert sampled.values.mean(-1).abs().max() < 1e-14


@pytest.mark.parametrize(("words", "message"), [("layout", "key=value"), ("layout=t layout=x", "key=value"), ("lyout=t", "layout")])
def test_words_that_are_none_are_refused(words: str, message: str, call: Call) -> None:
    np.save("a.npy", np.zeros((2, 3)))
    ran = call(f"inspect a.npy --words {words}")
    assert ran.status == 2
    assert message in ran.err


def test_inspect_of_numbers_in_time_has_no_laws_in_space(call: Call) -> None:
    Path("drag.dat").write_text("# drag of a cylinder\n# time Cd\n" + "".join(f"{t} {1 / (1 + t)}\n" for t in range(8)))
    document = call("inspect drag.dat --json").json()
    assert document["axes"][0]["name"] == "time"
    assert document["laws"] == []
    assert document["attributes"]["source"] == "drag of a cylinder"
    assert "no axis in space" in call("inspect drag.dat").out


def test_inspect_says_units_times_and_what_a_mesh_lacks(call: Call) -> None:
    from pde_datasets.mesh import Mesh, on_mesh

    line = Grid(Axis("time", 3, length=2.0, unit="days"), Axis("x", 4, length=5.0))
    store.write(Path("line.h5"), Fields(torch.rand(1, 1, 3, 4), line, ("u",), attributes={"boundaries": "walls", "time": 3.5}))
    told = call("inspect line.h5").out
    assert re.search(r"1 sample,.*time: 3 nodes.*length 2 days\n.*x: 4 nodes.*length 5\n", told, re.DOTALL)
    assert re.search(r"time +3\.5\n +boundaries +walls", told)
    assert "maximum principle" not in told, "nothing says that an equation holds of which it is true"
    assert "mass (conserved)" in told
    for points, words in ((6, "6 points\n"), (9, "6 points of 9 points"), (0, "6 points, no coordinates")):
        mesh = Mesh(torch.rand(points, 2, dtype=torch.float64))
        store.write(Path("mesh.h5"), Fields(torch.rand(2, 1, 6), on_mesh(6), ("u",), mesh=mesh), overwrite=True)
        assert f"values at {words}" in call("inspect mesh.h5").out
