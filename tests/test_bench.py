"""The benchmark on a suite of seconds: from nothing to a table, killed and resumed, with methods and samples that fail."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

import pcfm
from constraints import Axis, Grid, Intersection, Mass
from pcfm import bench, bench_samples
from pcfm.bench import Bench, Plan
from pcfm.bench_samples import draw
from pcfm.methods import METHODS
from pcfm.metrics.memory import watch_memory
from pcfm.published import Published
from pcfm.report import Record
from pcfm.report.pareto import Point, front, pareto
from pcfm.samplers import Sampler
from pcfm.scores import TRUTH, Judge, beside_published, over_seeds
from pcfm.suites import SUITES, Size, Suite
from pde_datasets.store import read
from tests.commands import Call

ROOT = Path(__file__).resolve().parents[1]
NETWORK = ("network.modes=2", "network.width=4", "network.depth=1", "training.batch=4", "training.warmup=2")
TINY = replace(
    SUITES["heat-ic"],
    name="tiny",
    sizes={
        "quick": Size(
            {"points": 8, "times": 6},
            (*NETWORK, "training.steps=12", "training.evaluate_every=6", "training.checkpoint_every=3"),
            fields=24, count=5, seeds=2, steps=3, batch=2, without=tuple(set(METHODS) - {"unconstrained", "project-end", "pcfm", "eci"}),
        )
    },
)  # fmt: skip
"""Heat on 8 x 6 points, a network of a few hundred weights, four methods."""

TIMES = ("milliseconds", "added_memory", "seconds")
"""What differs between two runs of the same."""


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(SUITES, "tiny", TINY)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished benchmark; not to be written to."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("done") / "tiny"
    run(folder)
    return folder


def plan(suite: Suite = TINY, **settings: Any) -> Plan:
    size = suite.sizes["quick"]
    given = {"entries": suite.entries(size), "seeds": size.seeds, "count": size.count, **settings}
    return Plan(suite, "quick", **given)


def run(folder: Path, *, resume: bool = False, **settings: Any) -> list[dict[str, Any]]:
    """The rows of a benchmark that is run, or gone on with, in a folder."""
    made = Bench(plan(**settings), folder)
    made.begin(resume=resume)
    return timeless(made.run().rows)


def timeless(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key not in TIMES} for row in rows]


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """The table of a finished benchmark, from its records."""
    return run(folder, resume=True)


def copied(folder: Path, to: Path) -> Path:
    import shutil

    shutil.copytree(folder, to)
    return to


# --- from nothing to a table --------------------------------------------------------------------------------------------------------


def test_the_command_makes_records_tables_figures_and_a_page(call: Call) -> None:
    ran = call("bench tiny --quick --out out --json --methods unconstrained pcfm eci:mix=2@IC")
    assert ran.status == 0
    document = ran.json()
    methods = [TRUTH, "unconstrained", "pcfm", "eci:mix=2@IC"]
    assert [row["method"] for row in document["rows"]] == methods
    assert document["failures"] == []
    assert document["published"] == [], "nothing is published of this suite"
    assert "[8/8] eci:mix=2@IC, seed 1: MMSE" in ran.err
    assert {file.name for file in Path("out").iterdir()} == {
        "bench.json", "data.h5", "data.json", "reference.h5", "reference.json", "model", "runs", "figures", "table.md", "table.csv",
        "table.tex", "report.html", "record.json",
    }  # fmt: skip
    records = sorted(Path("out/runs").glob("*.json"))
    assert len(records) == 2 * len(methods)
    for file in records:
        record = Record.read(file)
        assert record.results["bench"]["suite"] == "tiny"
        assert record.seeds["noise"] == record.results["bench"]["noise"]
        assert set(record.results["metrics"]) >= {"mmse-nodes", "smse-norm", "CE(IC)", "CE(CL), scheme", "violation", "sliced-wasserstein"}
    truth, free, lawful, initial = document["rows"]
    assert truth["violation"] < 1e-14
    assert truth["lawful"] == 1
    assert free["violation"] > 1e-2
    assert free["lawful"] == 0
    assert lawful["violation"] < 1e-12
    assert lawful["converged"] == lawful["lawful"] == 1
    assert initial["converged"] == 1
    assert initial["lawful"] == 0
    assert initial["CE(IC), scheme"][0] < 1e-12 < 1e-3 < initial["CE(CL), scheme"][0]
    assert initial["network_calls"] == 2 * lawful["network_calls"] == 6
    page = Path("out/report.html").read_text()
    assert page.count("<img") == 4
    assert all(method in page for method in methods)
    assert call("report out --out again.html --quiet").status == 0
    assert call("report out/runs --out runs.html --quiet").status == 0
    assert call("bench tiny --quick --out out --methods pcfm").status == 2
    assert "--resume" in call("bench tiny --quick --out out --methods pcfm").err


def test_values_are_those_of_samples_drawn_by_hand(done: Path) -> None:
    """The same model, noise and law through the public interface, and the metrics written out."""
    reference = read(done / "reference.h5").values
    problem = TINY.reference_problem(TINY.sizes["quick"])
    law = Intersection(*problem.constraint({"diffusivity": torch.ones(1), "phase": torch.full((1,), math.pi / 4)}).leaves())
    u = pcfm.sample(pcfm.load(done / "model"), 5, law=law, method="pcfm", steps=3, seed=1).u
    found = Record.read(done / "runs/pcfm.seed-1.json").results
    assert found["metrics"]["mmse-nodes"] == pytest.approx(float((u.mean(0) - reference.mean(0)).square().mean()), rel=1e-9)
    assert found["metrics"]["smse-norm"] == pytest.approx(float((u.std(0) - reference.std(0)).square().sum()), rel=1e-9)
    free = pcfm.sample(pcfm.load(done / "model"), 5, steps=3, seed=0).u
    broken = (free[:, 0, 0] - reference[0, 0, 0]).norm(dim=1).mean()
    assert Record.read(done / "runs/unconstrained.seed-0.json").results["metrics"]["CE(IC)"] == pytest.approx(float(broken), rel=1e-6)
    kept = read(done / "runs/pcfm.seed-0.h5").values
    assert len(kept) == bench.SHOWN
    again = pcfm.sample(pcfm.load(done / "model"), 4, law=law, method="pcfm", steps=3).u
    torch.testing.assert_close(kept, again, rtol=0, atol=1e-6)


def test_the_ground_truth_is_drawn_anew_for_each_seed(done: Path) -> None:
    sets = [Record.read(done / f"runs/ground_truth.seed-{seed}.json").results["metrics"]["mmse-nodes"] for seed in (0, 1)]
    assert sets[0] != sets[1]
    assert not torch.equal(read(done / "runs/ground_truth.seed-0.h5").values, read(done / "reference.h5").values[: bench.SHOWN])


def test_intervals_are_those_of_student() -> None:
    results = [
        {"failed": [], "failure": None, "metrics": {"mmse-nodes": value, "violation": value, "lawful": 1.0}, "cost": {"network_calls": 3.0}}
        for value in (1.0, 2.0, 6.0)
    ]
    row = over_seeds("a", results)
    mean, half = row["mmse-nodes"]
    assert mean == 3.0
    assert half == pytest.approx(4.302652729911275 * math.sqrt(7.0) / math.sqrt(3.0))
    assert row["violation"] == 6.0
    assert row["lawful"] == 1
    assert row["network_calls"] == 3
    assert over_seeds("a", results[:1])["mmse-nodes"] == 1.0
    lost = over_seeds("a", [*results, {"failed": [{"sample": 0, "reason": "x"}], "failure": "no", "metrics": {}, "cost": {}}])
    assert lost["mmse-nodes"] == (mean, half)
    assert (lost["failed"], lost["failure"], lost["seeds"]) == (1, "no", 4)


# --- formats ------------------------------------------------------------------------------------------------------------------------


def test_tables_hold_the_same_numbers_in_three_formats(done: Path, tmp_path: Path) -> None:
    from pcfm.bench_page import write_tables

    folder = copied(done, tmp_path / "copy")
    made = Bench(plan(), folder)
    made.begin(resume=True)
    outcome = made.run()
    write_tables(made, outcome)
    row = next(row for row in outcome.rows if row["method"] == "unconstrained")
    mean, half = row["mmse-nodes"]
    rows = {line["method"]: line for line in csv.DictReader(io.StringIO((folder / "table.csv").read_text()))}
    assert float(rows["unconstrained"]["mmse-nodes"]) == mean
    assert float(rows["unconstrained"]["mmse-nodes 95 % half width"]) == half
    assert float(rows["unconstrained"]["mmse-norm"]) == pytest.approx(48 * mean)
    assert "milliseconds [ms]" in rows["unconstrained"]
    markdown, latex = (folder / "table.md").read_text(), (folder / "table.tex").read_text()
    shown = pcfm.report.table.readable(100 * mean)
    assert f"| unconstrained | {shown} ± " in markdown.replace("**", "")
    assert f"unconstrained & {shown} $\\pm$ " in latex
    assert latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") == markdown.count("\n## ")
    best = next(line for line in markdown.splitlines() if line.startswith(f"| {TRUTH} |"))
    assert "**" not in best, "the truth competes with nobody"


def test_published_values_stand_beside_ours_in_their_unit() -> None:
    table = Published(
        "A, table 1", "A, arXiv:1234.56789, table 1", {"PCFM": {"MMSE": 0.241, "CE(IC)": 0.0, "FPD": 1.0}, "X": {"MMSE": 2.0}}
    )
    ours = [
        {"method": TRUTH, "mmse-nodes": 0.01, "CE(IC)": 0.0},
        {"method": "pcfm-published", "mmse-nodes": (0.02, 0.001), "CE(IC)": 3.0},
        {"method": "pcfm-published@IC", "mmse-nodes": (0.03, 0.001), "CE(IC)": 4.0},
    ]
    rows, columns = beside_published(TINY, table, ours)
    assert [row["published as"] for row in rows[:2]] == ["PCFM", "X"]
    first, second, truth = rows
    assert (first["MMSE"], first["MMSE, ours"], first["CE(IC), ours"]) == (0.241, (3.0, 0.1), 400.0)
    assert first["method"] == "pcfm-published@IC"
    assert second["method"] is None
    assert truth["MMSE, ours"] == 1.0
    assert [column.title for column in columns] == ["published as", "here", "MMSE", "MMSE, ours", "CE(IC)", "CE(IC), ours"]
    assert columns[2].unit == "0.01"


def test_the_page_of_suites_compares_ours_with_the_best_that_is_lawful() -> None:
    """An unlawful method may be nearer; the truth and ours are no others; published values stand beside those of the record."""
    from benchmarks.suites import page, verdicts

    def row(method: str, mean: float, spread: float, violation: float) -> dict[str, Any]:
        return {"method": method, "mmse-nodes": (mean, 0.1), "smse-nodes": spread, "violation": violation}

    rows = [
        row(TRUTH, 0.001, 0.001, 0.0),
        row("unconstrained", 0.01, 0.01, 1.0),
        row("pcfm-consistent", 0.2, 0.3, 1e-16),
        row("pcfm-published", 0.4, 0.2, 1e-16),
        row("flower", 0.1, 0.9, 1e-15),
        {"method": "pdm", "failure": "lost"},
    ]
    mean, spread = verdicts("heat-ic", rows)
    assert (mean["name"], mean["best"], mean["ours"], mean["truth"]) == ("flower", (10.0, 10.0), (20.0, 10.0), (0.1, 10.0))
    assert (spread["name"], spread["best"], spread["ours"], spread["violation"]) == ("pcfm-published", 20.0, 30.0, 1e-16)
    text = page([SUITES["heat-ic"]], {"heat-ic": {"rows": rows, "seeds": 1, "settings": {"count": 5, "steps": 3}}})
    assert "| PCFM | pcfm-published | 0.241 | 40.0 ± 10.0 | 0.937 | 20.0 |" in text
    assert "5 samples of one seed, 3 flow steps" in text


def test_suites_are_listed(call: Call) -> None:
    rows = call("list suites --json").json()["suites"]
    assert [row["name"] for row in rows] == list(SUITES)
    assert rows[0]["presets"] == ["quick", "cpu", "paper"]


# --- killed and resumed -------------------------------------------------------------------------------------------------------------


class Stop(BaseException):
    """An interruption that nobody catches."""


def stopping(monkeypatch: pytest.MonkeyPatch, where: Any, name: str, calls: int) -> None:
    """Let a function be interrupted at one of its calls."""
    real, made = getattr(where, name), iter(range(calls))

    def counted(*args: Any, **kwargs: Any) -> Any:
        if next(made, None) is None:
            raise Stop
        return real(*args, **kwargs)

    monkeypatch.setattr(where, name, counted)


@pytest.mark.parametrize(
    ("where", "name", "calls"),
    [
        (bench, "fit", 0),
        ("pcfm.training.Trainer", "save", 2),
        (Judge, "__call__", 0),
        (Judge, "__call__", 4),
        (bench_samples, "sample", 17),
        (bench.Record, "write", 7),
    ],
    ids=["before training", "in training", "before the first record", "between records", "between batches", "before a record is written"],
)
def test_a_run_interrupted_anywhere_ends_with_the_table_of_one_that_was_not(
    where: Any, name: str, calls: int, done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if isinstance(where, str):
        module, _, kind = where.rpartition(".")
        where = getattr(sys.modules[module], kind)
    with monkeypatch.context() as patch:
        stopping(patch, where, name, calls)
        with pytest.raises(Stop):
            run(tmp_path / "a")
    kept = {file: file.stat().st_mtime_ns for file in (tmp_path / "a/runs").glob("*.json")}
    assert run(tmp_path / "a", resume=True) == rows_of(done)
    assert all(file.stat().st_mtime_ns == then for file, then in kept.items())
    assert not list((tmp_path / "a").rglob("*.part*"))


KILLED = """
import sys, time
from pathlib import Path
from tests import test_bench as t
from pcfm.cli import main
from pcfm.networks import FourierOperator

t.SUITES["tiny"] = t.TINY
real, folder, after = FourierOperator.forward, Path(sys.argv[1]), sys.argv[2]
calls = iter(range(int(sys.argv[3])))

def forward(self, *arguments):
    if (folder / after).exists() and next(calls, None) is None:
        (folder.parent / "here").touch()
        time.sleep(600)
    return real(self, *arguments)

FourierOperator.forward = forward
sys.exit(main(["bench", "tiny", "--quick", "--quiet", "--out", str(folder)]))
"""
"""A benchmark that waits in a call of its network, so many calls after some file is there."""


@pytest.mark.parametrize(
    ("after", "calls"),
    [("data.h5", 6), ("runs/project-end.seed-0.json", 6), ("runs/pcfm.seed-1.json", 7)],
    ids=["in training", "in the second batch of a method", "in the last method"],
)
def test_a_process_killed_in_the_middle_is_gone_on_with(after: str, calls: int, done: Path, tmp_path: Path) -> None:
    """SIGKILL, which nothing in the process can answer, within a step of a trajectory or of the training."""
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path / "a"), after, str(calls)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "here").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    _, said = process.communicate()
    assert process.returncode == -signal.SIGKILL, f"ended before it could be killed: {said.decode()}"
    assert (tmp_path / "here").exists(), "it never came so far"
    kept = {file: file.read_bytes() for file in (tmp_path / "a/runs").glob("*.json")}
    assert (len(kept) > 0) == (after != "data.h5")
    assert not (tmp_path / "a/table.md").exists()
    assert run(tmp_path / "a", resume=True) == rows_of(done)
    assert all(file.read_bytes() == before for file, before in kept.items())
    assert not list((tmp_path / "a").rglob("*.part*"))


def test_more_methods_and_seeds_are_added_to_what_is_there(done: Path, tmp_path: Path) -> None:
    folder = copied(done, tmp_path / "a")
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    entries = (*plan().entries, TINY.entry("pcfm-consistent"))
    rows = run(folder, resume=True, entries=entries, seeds=3)
    assert len(rows) == 6
    assert {row["seeds"] for row in rows} == {3}
    assert all(file.read_bytes() == content for file, content in before.items())
    assert len(list((folder / "runs").glob("*.json"))) == 18


def test_overwriting_starts_from_nothing_and_leaves_other_files_alone(done: Path, tmp_path: Path, call: Call) -> None:
    folder = copied(done, tmp_path / "a")
    (folder / "mine.txt").write_text("keep")
    assert call("bench tiny --quick --quiet --overwrite --count 2 --seeds 1 --methods pcfm --out a").status == 0
    assert (folder / "mine.txt").read_text() == "keep"
    assert {file.name for file in (folder / "runs").glob("*.json")} == {"ground_truth.seed-0.json", "pcfm.seed-0.json"}
    assert json.loads((folder / "bench.json").read_text())["count"] == 2


# --- what goes wrong ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("bench heat-if --out a", "heat-ic"),
        ("bench tiny --quick --out a --methods pcmf", "pcfm"),
        ("bench tiny --quick --out a --methods pcfm@boundary", "no laws 'boundary'"),
        ("bench tiny --quick --out a --methods pcfm pcfm", "each method once"),
        ("bench tiny --quick --out a --seeds 0", "at least one seed"),
        ("bench tiny --quick --out a --count 1", "two samples"),
        ("bench tiny --quick --out a --model nowhere", "no model 'nowhere'"),
        ("bench tiny --quick --out a --model kolmogorov", "expects a model of 1 channels"),
        ("bench tiny --quick --out file", "is a file"),
        ("bench tiny --quick --preset paper --out a", "Drop one of them"),
    ],
)
def test_wrong_calls_are_refused_in_one_line(command: str, message: str, call: Call) -> None:
    Path("file").write_text("")
    ran = call(command)
    assert ran.status == 2
    said = [line for line in ran.err.splitlines() if line.startswith("pcfm: ")]
    assert len(said) == 1
    assert message in said[0]


@pytest.mark.parametrize("change", ["--count 3", "--seed 4", "--dtype float32"])
def test_a_benchmark_is_not_gone_on_with_in_other_settings(change: str, done: Path, tmp_path: Path, call: Call) -> None:
    copied(done, tmp_path / "a")
    ran = call(f"bench tiny --quick --out a --resume {change}")
    assert ran.status == 2
    assert f"other settings ({change.split()[0][2:]}" in ran.err


def test_records_of_another_model_are_not_mixed_in(done: Path, tmp_path: Path) -> None:
    folder = copied(done, tmp_path / "a")
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model/weights.safetensors")
    save_file({name: value + 1e-3 for name, value in weights.items()}, folder / "model/weights.safetensors")
    with pytest.raises(ValueError, match=r"other settings \(weights\)"):
        run(folder, resume=True)


def test_a_model_of_ones_own_takes_the_place_of_the_suites(done: Path, tmp_path: Path, call: Call) -> None:
    ran = call(f"bench tiny --quick --out a --json --seeds 1 --methods pcfm --model {done / 'model'}")
    assert ran.status == 0
    assert not Path("a/data.h5").exists()
    own = Record.read(done / "runs/pcfm.seed-0.json").results["metrics"]
    assert ran.json()["rows"][1]["mmse-nodes"] == own["mmse-nodes"]


@dataclass(frozen=True)
class Broken(Sampler):
    """Fails at once, or where a sample is of some kind."""

    lawful: ClassVar[bool] = True
    constraint: Any = None
    kind: str = "always"

    def __post_init__(self) -> None:
        if self.kind == "unsuited":
            raise ValueError("expects a law of another kind.")

    def step(self, x: Tensor, t: Tensor, s: Tensor, x0: Tensor) -> Tensor:
        raise ZeroDivisionError("this method divides by zero")


@pytest.fixture
def _broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "broken", Broken)


@pytest.mark.usefixtures("_broken")
def test_a_method_that_fails_is_reported_and_the_others_go_on(call: Call) -> None:
    ran = call("bench tiny --quick --out a --json --seeds 1 --methods broken project-end")
    assert ran.status == 1
    document = ran.json()
    _, broken, lawful = document["rows"]
    assert "divides by zero" in broken["failure"]
    assert "mmse-nodes" not in broken
    assert lawful["violation"] < 1e-12
    assert document["failures"] == ["broken, seed 0: RuntimeError: ZeroDivisionError: this method divides by zero"]
    assert "divides by zero" in Record.read("a/runs/broken.seed-0.json").results["failure"]
    assert "divides by zero" in Path("a/report.html").read_text()
    assert call("bench tiny --quick --out a --seeds 1 --methods broken project-end --resume --quiet").status == 1


@pytest.mark.usefixtures("_broken")
def test_methods_that_cannot_take_the_laws_are_left_out_unless_asked_for(tmp_path: Path) -> None:
    size = replace(TINY.sizes["quick"], options={"broken": "broken:kind=unsuited"}, seeds=1)
    suite, said = replace(TINY, sizes={"quick": size}), []
    made = Bench(plan(suite, seeds=1, asked=False), tmp_path / "a", say=said.append)
    made.begin()
    assert "broken:kind=unsuited" not in [row["method"] for row in made.run().rows]
    assert "broken:kind=unsuited does not suit these laws: expects a law of another kind." in said
    made = Bench(plan(suite, seeds=1), tmp_path / "a")
    made.begin(resume=True)
    assert made.run().failures == ["broken:kind=unsuited, seed 0: RuntimeError: ValueError: expects a law of another kind."]


class SickAt(torch.nn.Module):
    """Zero velocity, NaN for one noise."""

    def __init__(self, noise: Tensor | None) -> None:
        super().__init__()
        self.noise = noise

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        out = torch.zeros_like(x)
        if self.noise is not None:
            out[(x - self.noise).abs().flatten(1).amax(1) < 1e-6] = torch.nan
        return out


@pytest.mark.parametrize("method", ["unconstrained", "project-end", "pcfm"])
def test_a_network_that_is_nan_at_one_sample_loses_that_one_only(method: str) -> None:
    grid = Grid(Axis("x", 8, periodic=True))
    sound = pcfm.wrap(SickAt(None), grid=grid)
    law = Mass(grid, 0.0) if METHODS[method].lawful else None
    sick_noise = pcfm.sample(sound, 7, steps=2).u[4]  # zero velocity: the noise itself
    sick = pcfm.wrap(SickAt(sick_noise), grid=grid)
    kwargs: dict[str, Any] = {"count": 7, "steps": 3, "batch": 3, "seed": 0}
    whole, hurt = draw(sound, method, law, **kwargs), draw(sick, method, law, **kwargs)
    assert [item["sample"] for item in hurt.failed] == [4]
    assert hurt.u[4].isnan().all()
    others = [i for i in range(7) if i != 4]
    torch.testing.assert_close(hurt.u[others], whole.u[others], rtol=0, atol=1e-12)
    if law is not None:
        assert hurt.converged is not None
        assert hurt.converged.tolist() == [i != 4 for i in range(7)]


def test_samples_in_single_precision_are_held_to_its_tolerance(done: Path, tmp_path: Path) -> None:
    rows = {row["method"]: row for row in run(tmp_path / "a", dtype="float32", entries=(TINY.entry("pcfm"),), model=str(done / "model"))}
    assert rows["pcfm"]["lawful"] == rows["pcfm"]["converged"] == 1
    assert 1e-12 < rows["pcfm"]["violation"] < 1e-6


def test_lost_samples_do_not_count_in_what_is_measured(done: Path) -> None:
    reference = read(done / "reference.h5")
    problem = TINY.reference_problem(TINY.sizes["quick"])
    judge = Judge(TINY, problem, reference)
    u = problem.draw(5, seed=9).u
    hurt = u.clone()
    hurt[2] = torch.nan
    kept = u[[0, 1, 3, 4]]
    values, own = judge(hurt, reference), judge(kept, reference[:4])
    for name, value in own.items():
        if name not in ("lawful", "feasible at 0.001", "feasible at 1e-06"):
            assert values[name] == pytest.approx(value, rel=1e-12, abs=1e-15), name
    assert (values["lawful"], own["lawful"]) == (0.8, 1.0)
    assert values["feasible at 1e-06"] == 0.8
    hurt[1:] = torch.nan
    with pytest.raises(ValueError, match="4 of 5 samples failed"):
        judge(hurt, reference)


def test_laws_that_no_field_meets_are_delivered_unconverged() -> None:
    grid = Grid(Axis("x", 8, periodic=True))
    impossible = Intersection(Mass(grid, 0.0), Mass(grid, 1.0))
    drawn = draw(pcfm.wrap(SickAt(None), grid=grid), "pcfm", impossible, count=3, steps=2, batch=3, seed=0)
    assert drawn.failed == []
    assert drawn.u.isfinite().all()
    assert drawn.converged is not None
    assert not drawn.converged.any()


# --- figures and memory -------------------------------------------------------------------------------------------------------------


def test_the_front_holds_what_no_other_beats() -> None:
    points = {
        "free": Point(1.0, 1.0, 1.0),
        "slow": Point(1.0, 1.0, 2.0),
        "lawful": Point(1e-16, 2.0, 1.0),
        "no more lawful": Point(1e-17, 2.5, 1.0),
        "near": Point(1e-16, 0.5, 9.0),
        "lost": Point(math.nan, 0.1, 0.1),
    }
    assert front(points) == ["free", "lawful", "near"]
    drawn = pareto(points, "t", "distance", "time [ms]", floor=0.1)
    labels = [text.get_text() for text in drawn.legends[0].get_texts()]
    assert labels == [*list(points)[:-1], "lost (not drawn)", "beaten by no other", "further reference solutions"]
    with pytest.raises(ValueError, match="something to show"):
        pareto({"lost": points["lost"]}, "t", "d", "c")


def test_memory_is_what_a_block_adds_at_most() -> None:
    held = torch.ones(2**22, dtype=torch.float64)
    with watch_memory() as memory:
        (2 * held).sum()
    if memory.added is None:
        pytest.skip("this system does not say")
    assert 0.9 * 2**25 < memory.added < 2 * 2**25
    with watch_memory() as nothing:
        held.sum()
    assert nothing.added is not None
    assert nothing.added < 2**23
