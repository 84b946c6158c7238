"""Command: bench, methods side by side on one suite."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from pcfm.commands.common import DONE, UNMET, Common


@dataclass(kw_only=True)
class Benchmark(Common):
    """Methods side by side on one suite: data, model, one record for each method and seed, one table.

    A killed run goes on with --resume and ends with the same table; with further methods or more seeds it adds what is missing.

    Attributes:
        suite: Which suite; `pcfm list suites` names all.
        out: Folder for bench.json, data and model, runs/, table.md, table.csv, table.tex, figures/, report.html and record.json.
        preset: How much: quick takes a few minutes of one core, cpu longer, paper has the settings of the literature, for a GPU; cpu by
            default.
        quick: The preset quick.
        methods: Methods, NAME[:key=value,...][@LAWS] with LAWS "literature" or the kind of a law such as IC; all that suit by default.
        seeds: How many seeds of the noise; the preset says by default.
        count: Samples of each method; the preset says by default.
        model: A run folder or the name of a shipped model, in place of the suite's own.
        resume: Go on with a killed run, or add to a finished one.
    """

    suite: Annotated[str, tyro.conf.Positional]
    out: Path
    preset: Literal["quick", "cpu", "paper"] | None = None
    quick: bool = False
    methods: Annotated[tuple[str, ...], tyro.conf.arg(metavar="METHOD ...")] = ()
    seeds: int | None = None
    count: int | None = None
    model: str | None = None
    resume: bool = False

    def run(self) -> int:
        from pcfm.bench import Bench, Plan, document, methods
        from pcfm.bench_page import tables, write_bench_page, write_tables
        from pcfm.metrics import measure
        from pcfm.naming import lookup
        from pcfm.report import Record, to_markdown
        from pcfm.suites import SUITES

        suite = lookup("suite", self.suite, SUITES)
        if self.quick and self.preset not in (None, "quick"):
            raise ValueError(f"--quick is the preset quick; got --preset {self.preset} beside it. Drop one of them.")
        preset = "quick" if self.quick else self.preset or "cpu"
        size = suite.sizes[preset]
        plan = Plan(
            suite,
            preset,
            methods(suite, size, self.methods),
            size.seeds if self.seeds is None else self.seeds,
            size.count if self.count is None else self.count,
            self.seed,
            self.dtype,
            self.model,
            asked=bool(self.methods),
        )
        bench = Bench(plan, self.out, device=self.torch_device(), say=self.say, bar=self.progress)
        bench.begin(resume=self.resume, overwrite=self.overwrite)
        with measure() as meter:
            outcome = bench.run()
            write_tables(bench, outcome)
            page = write_bench_page(bench, outcome)
        results = document(plan, outcome)
        seeds = {"data and model": self.seed, **{f"noise {i}": self.seed + i for i in range(plan.seeds)}}
        Record.of(meter.cost, device=self.torch_device(), seeds=seeds, results=results).write(self.out / "record.json")
        for title, _, rows, columns in tables(plan, outcome)[:3]:
            self.say(f"\n{title}\n{to_markdown(rows, columns)}")
        for line in outcome.failures:
            self.say(f"failed: {line}")
        self.say(f"tables and report in {self.out}, {meter.cost.seconds:.0f} s")
        self.emit({**results, "seconds": meter.cost.seconds, "report": str(page)})
        return UNMET if outcome.failures else DONE
