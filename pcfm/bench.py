"""The benchmark: methods side by side on one suite, from nothing to a table.

Stages follow each other: training data, model, reference solutions, one record for each method and seed, tables. Each is skipped where what
it makes is there, made with the same settings, so that a killed run goes on and ends with the same table. A method that fails on a sample,
or as a whole, says so in its record, and the others go on.
"""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from pcfm.bench_samples import Bar, Drawn, Silent, draw, reason, suits
from pcfm.configuration import read_experiment
from pcfm.experiment import fit
from pcfm.flow import Flow
from pcfm.methods import METHODS, options, parse
from pcfm.metrics import measure
from pcfm.metrics.memory import watch_memory
from pcfm.report import Record
from pcfm.report.record import plain
from pcfm.scores import TRUTH, Judge, Row, number, over_seeds
from pcfm.shelf import MODELS, load, shipped
from pcfm.suites import Entry, Size, Suite
from pde_datasets import Fields, Problem
from pde_datasets.production import produce
from pde_datasets.store import Writer, read, write

SHOWN = 4
"""Samples that are kept of each method, for figures."""

REFERENCE, FURTHER = 1_000_003, 2_000_003
"""Added to the seed for the reference solutions and for those that have the first row of the table, so that no set shares a draw."""


@dataclass(frozen=True)
class Plan:
    """What a run of the benchmark is to do.

    Attributes:
        suite: the suite.
        preset: name of its size.
        entries: the methods.
        seeds: how many seeds of the noise.
        count: samples of each method and seed.
        seed: of data, model and the first noise.
        dtype: type of states, "float64" or "float32".
        model: a model in place of the suite's own: a run folder or the name of a shipped one.
        asked: whether the methods were asked for by name; else those that cannot take the suite's laws are left out.
    """

    suite: Suite
    preset: str
    entries: tuple[Entry, ...]
    seeds: int
    count: int
    seed: int = 0
    dtype: str = "float64"
    model: str | None = None
    asked: bool = True

    def __post_init__(self) -> None:
        if self.seeds < 1 or self.count < 2:
            raise ValueError(f"a benchmark expects at least one seed and two samples; got {self.seeds} and {self.count}.")
        if not self.entries:
            raise ValueError("a benchmark expects at least one method.")

    @property
    def size(self) -> Size:
        return self.suite.sizes[self.preset]

    @property
    def settings(self) -> dict[str, Any]:
        """All that data, model and records depend on, but for method and noise, as plain values."""
        size = self.size
        found = {
            "suite": self.suite.name,
            "training": asdict(self.suite.training_problem(size)),  # type: ignore[call-overload]
            "reference": asdict(self.suite.reference_problem(size)),  # type: ignore[call-overload]
            "fields": size.fields,
            "model": self.model or self.suite.shipped or [*self.suite.model, *size.model],
            "count": self.count,
            "steps": size.steps,
            "batch": size.batch,
            "seed": self.seed,
            "dtype": self.dtype,
        }
        plain_values: dict[str, Any] = json.loads(json.dumps(found))
        return plain_values


@dataclass
class Outcome:
    """What a benchmark came to.

    Attributes:
        entries: the methods.
        rows: of the table, in their order, further solutions first.
        reference: the reference solutions.
        flow: the model.
        failures: what failed, in words.
    """

    entries: tuple[Entry, ...]
    rows: list[Row]
    reference: Fields
    flow: Flow
    failures: list[str] = field(default_factory=list)


class Bench:
    """A benchmark in a folder.

    Arguments:
        plan: what to do.
        folder: where.
        device: where to simulate, train and evaluate the network.
        say: told what happens, a line at a time.
        bar: makes the progress of so many units from a start.
    """

    def __init__(
        self,
        plan: Plan,
        folder: Path,
        *,
        device: torch.device | None = None,
        say: Callable[[str], None] = lambda line: None,
        bar: Callable[[int, str, int], Bar] | None = None,
    ) -> None:
        self.plan, self.folder, self.say = plan, folder, say
        self.device = device or torch.device("cpu")
        self.bar = bar or (lambda total, unit, start: Silent())
        self.problem: Problem = plan.suite.reference_problem(plan.size)

    # --- stages ---------------------------------------------------------------------------------------------------------------

    def begin(self, *, resume: bool = False, overwrite: bool = False) -> None:
        """Claim the folder.

        Raises:
            ValueError: it holds a benchmark already, or one of other settings.
        """
        file = self.folder / "bench.json"
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f"--out expects a folder; {self.folder} is a file. Name another.")
        if overwrite:
            self._clear()
        elif file.exists():
            if not resume:
                raise ValueError(f"{self.folder} holds a benchmark already. Pass --resume to go on with it, or --overwrite to start again.")
            try:
                before = json.loads(file.read_text())
            except ValueError as error:
                raise ValueError(f"{file} is not the plan of a benchmark: {error}. Start again with --overwrite.") from error
            changed = [key for key, value in self.plan.settings.items() if before.get(key) != value]
            if changed:
                raise ValueError(
                    f"{self.folder} was made with other settings ({', '.join(changed)}). Repeat the command that made it, or start again "
                    "with --overwrite."
                )
        elif self.folder.exists() and any(self._own()):
            raise ValueError(f"{self.folder} holds parts of another run. Choose another folder, or pass --overwrite.")
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "runs").mkdir(exist_ok=True)
        put(file, json.dumps(self.plan.settings, indent=2) + "\n")

    def run(self) -> Outcome:
        """All stages."""
        flow = self.model()
        reference = self.reference()
        self._check(flow, reference)
        judge = Judge(self.plan.suite, self.problem, reference)
        entries, fingerprint = self._entries(flow, reference), self._fingerprint()
        # every method once before any seed comes again; None for further solutions
        runs = [(entry, self.plan.seed + i) for i in range(self.plan.seeds) for entry in (None, *entries)]
        for i, (entry, seed) in enumerate(runs):
            done = self._record(entry, seed, fingerprint)
            if done is None:
                done = self._measure(entry, seed, fingerprint, flow, reference, judge)
            self.say(f"[{i + 1}/{len(runs)}] {_line(entry, seed, done)}")
        return self._outcome(entries, flow, reference, fingerprint)

    def model(self) -> Flow:
        """The model: another's, a shipped one, or trained here on data made here."""
        plan, size = self.plan, self.plan.size
        given = plan.model or plan.suite.shipped
        if given is not None:
            return load(given, self.device)
        folder = self.folder / "model"
        if (folder / "model.json").exists():
            return load(folder, self.device)
        fields = self._fields(self.folder / "data.h5", plan.suite.training_problem(size), size.fields, plan.seed, torch.float32)
        experiment = read_experiment(None, (*plan.suite.model, *size.model, f"training.seed={plan.seed}"))
        folder.mkdir(exist_ok=True)
        self.say(f"training on {len(fields)} fields ({fields.grid}), {experiment.training.steps} steps of {experiment.training.batch}")
        bar = self.bar(experiment.training.steps, "steps", 0)
        with measure() as meter:
            flow = fit(
                fields,
                experiment,
                folder,
                resume=(folder / "state.pt").exists(),
                device=self.device,
                progress=lambda step, entry: bar.to(step, f"loss {entry['loss']:.4f}" if entry else ""),
                card={"data": {"problem": plan.suite.problem, "seed": plan.seed, "count": len(fields)}, "suite": plan.suite.name},
            )
        last = flow.card["history"][-1]
        results = {
            "steps": experiment.training.steps,
            "loss": last["loss"],
            "validation": last.get("validation"),
            "seconds": last["seconds"],
        }
        Record.of(meter.cost, device=self.device, seeds={"training": plan.seed}, results=results).write(folder / "record.json")
        return load(folder, self.device)

    def reference(self) -> Fields:
        """The reference solutions, in double precision."""
        return self._fields(self.folder / "reference.h5", self.problem, self.plan.count, self.plan.seed + REFERENCE, torch.float64)

    def _entries(self, flow: Flow, reference: Fields) -> tuple[Entry, ...]:
        """The methods; of those that nobody asked for by name, the ones that can take the laws."""
        if self.plan.asked:
            return self.plan.entries
        suited = []
        for entry in self.plan.entries:
            try:
                suits(entry.method, flow, self.plan.suite.imposed(entry, self.problem, reference))
                suited.append(entry)
            except ValueError as error:
                self.say(f"{entry} does not suit these laws: {error}")
        return tuple(suited)

    def _outcome(self, entries: tuple[Entry, ...], flow: Flow, reference: Fields, fingerprint: int) -> Outcome:
        """The table from the records."""
        rows, failures = [], []
        for entry in (None, *entries):
            results = []
            for i in range(self.plan.seeds):
                seed = self.plan.seed + i
                found = self._record(entry, seed, fingerprint)
                assert found is not None, "every record has just been made"
                results.append(found)
                name = f"{label(entry)}, seed {seed}"
                if found["failure"]:
                    failures.append(f"{name}: {found['failure']}")
                failures += [f"{name}, sample {item['sample']}: {item['reason']}" for item in found["failed"]]
            rows.append(over_seeds(label(entry), results))
        return Outcome(entries, rows, reference, flow, failures)

    # --- one record -------------------------------------------------------------------------------------------------------------

    def _measure(self, entry: Entry | None, seed: int, fingerprint: int, flow: Flow, reference: Fields, judge: Judge) -> dict[str, Any]:
        """Draw, judge, and write the record."""
        results: dict[str, Any] = {"bench": self._settings(entry, seed, fingerprint), "method": label(entry)}
        results |= {"failure": None, "failed": [], "metrics": {}, "cost": {}, "laws": []}
        drawn, given = None, reference
        with measure() as meter, watch_memory(self.device) as memory:
            try:
                if entry is None:
                    given = self._further(seed)
                    drawn = Drawn(given.values, [], [])
                else:
                    drawn = self._draw(entry, seed, flow, reference)
            except Exception as error:  # whatever a method comes to, the others go on
                results["failure"] = reason(error)
        if drawn is not None:
            meter.network_calls = sum(part.network_calls for part in drawn.parts)
            meter.projections = sum(part.projections for part in drawn.parts)
            meter.multiplier_solves = sum(part.multiplier_solves for part in drawn.parts)
            results["failed"] = drawn.failed
            results["laws"] = drawn.laws
            results["cost"] = drawn.cost(self.plan.count, memory.added)
            if entry is None:
                results["cost"] = {"milliseconds": 1e3 * meter.cost.seconds / self.plan.count}
            self._judge(results, drawn, given, judge)
            if seed == self.plan.seed:
                self._keep(entry, drawn, reference)
        record = Record.of(meter.cost, device=self.device, seeds={"noise": seed}, results=results)
        record.write(self._file(entry, seed))
        return record.results

    def _further(self, seed: int) -> Fields:
        """Solutions in place of samples."""
        drawn = self.problem.draw(self.plan.count, seed=seed + FURTHER, device=self.device)
        return replace(drawn, u=drawn.values.cpu(), parameters={name: values.cpu() for name, values in drawn.parameters.items()})

    def _judge(self, results: dict[str, Any], drawn: Drawn, given: Fields, judge: Judge) -> None:
        try:
            results["metrics"] = judge(drawn.u, given)
        except Exception as error:  # samples that cannot be judged are a failure of their method
            results["failure"] = reason(error)
        if drawn.converged is not None:
            results["metrics"]["converged"] = float(drawn.converged.to(torch.float64).mean())

    def _draw(self, entry: Entry, seed: int, flow: Flow, reference: Fields) -> Drawn:
        """Samples of a method under its laws."""
        plan, size = self.plan, self.plan.size
        law = plan.suite.imposed(entry, self.problem, reference)
        bar = self.bar(plan.count, "samples", 0) if plan.count > size.batch else Silent()
        return draw(
            flow,
            entry.method,
            law,
            count=plan.count,
            steps=size.steps,
            batch=size.batch,
            seed=seed,
            dtype={"float32": torch.float32, "float64": torch.float64}[plan.dtype],
            progress=bar.to,
        )

    def _record(self, entry: Entry | None, seed: int, fingerprint: int) -> dict[str, Any] | None:
        """Results of the record that is there; None where there is none.

        Raises:
            ValueError: it is of other settings.
        """
        file = self._file(entry, seed)
        if not file.exists():
            return None
        results = Record.read(file).results
        wanted, found = self._settings(entry, seed, fingerprint), results.get("bench", {})
        changed = [key for key in wanted if found.get(key) != wanted[key]]
        if changed:
            raise ValueError(f"{file} was made with other settings ({', '.join(changed)}). Start again with --overwrite.")
        for part in ("metrics", "cost"):
            results[part] = {name: number(value) for name, value in results[part].items()}
        return results

    def _keep(self, entry: Entry | None, drawn: Drawn, reference: Fields) -> None:
        """The first samples, for figures."""
        first = replace(
            reference[: min(SHOWN, len(drawn.u))],
            u=drawn.u[:SHOWN],
            parameters={},
            laws=(),
            attributes={"source": "benchmark", "suite": self.plan.suite.name, "method": label(entry)},
        )
        write(self._file(entry, self.plan.seed).with_suffix(".h5"), first, overwrite=True)

    # --- files ------------------------------------------------------------------------------------------------------------------

    def kept(self, entry: Entry | None) -> Path:
        """Where the first samples of a method are."""
        return self._file(entry, self.plan.seed).with_suffix(".h5")

    def _file(self, entry: Entry | None, seed: int) -> Path:
        slug = re.sub(r"[^A-Za-z0-9.=@-]+", "_", label(entry))
        return self.folder / "runs" / f"{slug}.seed-{seed}.json"

    def _settings(self, entry: Entry | None, seed: int, fingerprint: int) -> dict[str, Any]:
        """What a record is about."""
        chosen: dict[str, Any] = {}
        if entry is not None:
            name, given = parse(entry.method)
            chosen = {**options(METHODS[name]), **given}
        return {**self.plan.settings, "method": label(entry), "options": chosen, "noise": seed, "weights": fingerprint}

    def _fingerprint(self) -> int:
        """A checksum of the model's weights."""
        given = self.plan.model or self.plan.suite.shipped
        folder = self.folder / "model" if given is None else MODELS / given if given in shipped() else Path(given)
        return zlib.crc32((folder / "weights.safetensors").read_bytes())

    def _fields(self, file: Path, problem: Problem, count: int, seed: int, dtype: torch.dtype) -> Fields:
        """Solutions in a file, made where they are missing."""
        if file.exists():
            return read(file)
        settings = {"problem": problem.name, "seed": seed, "dtype": str(dtype), **asdict(problem)}  # type: ignore[call-overload]
        writer = Writer(file, count, settings, resume=True)
        self.say(f"simulating {count} solutions of {problem.name} ({problem.grid}) for {file.name}")
        bar = self.bar(count, "samples", writer.written)
        with measure() as meter:
            for drawn in produce(problem, writer.written, count, seed=seed, device=self.device):
                writer.append(replace(drawn, u=drawn.values.to("cpu", dtype)))
                bar.to(writer.written)
            writer.finish()
        results = {"problem": problem.name, "count": count, "settings": settings}
        Record.of(meter.cost, device=self.device, seeds={"fields": seed}, results=results).write(file.with_suffix(".json"))
        return read(file)

    def _check(self, flow: Flow, reference: Fields) -> None:
        """Refuse a model that does not make fields like the reference."""
        if flow.grid.shape != reference.grid.shape or len(flow.channels) != len(reference.channels):
            raise ValueError(
                f"suite '{self.plan.suite.name}' expects a model of {len(reference.channels)} channels on {reference.grid.shape}; "
                f"'{self.plan.model}' makes {len(flow.channels)} on {flow.grid.shape}. Choose the preset of its size, or another model."
            )
        if flow.condition != "none":
            raise ValueError(f"suite '{self.plan.suite.name}' expects a model without a condition; '{self.plan.model}' has one.")

    def _own(self) -> Iterator[Path]:
        """Files in the folder that a benchmark makes."""
        for pattern in (
            "bench.json", "record.json", "report.html", "table.md", "table.csv", "table.tex",
            *(f"{name}{ending}" for name in ("data", "reference") for ending in (".json", ".h5", ".h5.part", ".h5.part.json")),
            *(f"model/{name}" for name in ("model.json", "weights.safetensors", "state.pt", "log.jsonl", "record.json")),
            "runs/*.seed-*.json", "runs/*.seed-*.h5", *(f"figures/{name}*.png" for name in ("pareto", "violation", "fields", "loss-")),
        ):  # fmt: skip
            yield from self.folder.glob(pattern)

    def _clear(self) -> None:
        for file in list(self._own()):
            file.unlink()


def label(entry: Entry | None) -> str:
    """What a method is called in tables; None is further solutions."""
    return TRUTH if entry is None else str(entry)


def put(file: Path, text: str) -> None:
    """Write a text, to a temporary name first."""
    temporary = file.with_name(file.name + ".part")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, file)


def _line(entry: Entry | None, seed: int, results: dict[str, Any]) -> str:
    """A record in a line."""
    if results["failure"]:
        return f"{label(entry)}, seed {seed}: failed, {results['failure']}"
    metrics, cost = results["metrics"], results["cost"]
    lost = f", {len(results['failed'])} samples failed" if results["failed"] else ""
    mean, broken, time = (number(value) for value in (metrics.get("mmse-nodes"), metrics["violation"], cost["milliseconds"]))
    return f"{label(entry)}, seed {seed}: MMSE {mean:.3g}, largest violation {broken:.1e}, {time:.3g} ms a sample{lost}"


def document(plan: Plan, outcome: Outcome) -> dict[str, Any]:
    """The benchmark as one document of plain values."""
    published = [asdict(table) for table in plan.suite.published]
    found: dict[str, Any] = plain(
        {
            "suite": plan.suite.name,
            "preset": plan.preset,
            "settings": plan.settings,
            "seeds": plan.seeds,
            "rows": outcome.rows,
            "published": published,
            "failures": outcome.failures,
        }
    )
    return found


def methods(suite: Suite, size: Size, chosen: Sequence[str]) -> tuple[Entry, ...]:
    """The methods asked for, or all that suit the suite.

    Raises:
        ValueError: as `Suite.entry`, or a method that comes twice.
    """
    if not chosen:
        return suite.entries(size)
    entries = tuple(suite.entry(text) for text in chosen)
    twice = sorted({str(entry) for entry in entries if entries.count(entry) > 1})
    if twice:
        raise ValueError(f"--methods expects each method once; got {', '.join(twice)} twice.")
    return entries
