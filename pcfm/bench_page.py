"""Tables and the page of a benchmark, from its outcome."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pcfm.bench import Bench, Outcome, Plan, label, put
from pcfm.pages import Album, field_section, loss_section, violation_section, write_page
from pcfm.report import Column, Section, to_csv, to_html, to_latex, to_markdown
from pcfm.scores import (
    TRUTH,
    Row,
    beside_published,
    cost_columns,
    every_column,
    held_out_columns,
    in_hundredths,
    law_columns,
    quality_columns,
)
from pde_datasets.store import read

QUALITY = ("sliced-wasserstein", "sliced Wasserstein distance")
"""The distance that the Pareto plot shows: positive, and of all marginals."""

PANEL = (
    "unconstrained", "project-end", "pcfm", "pcfm-consistent", "eci", "pdm", "guided", "flower",
)  # fmt: skip
"""Methods whose fields are shown."""

Table = tuple[str, str, list[Row], list[Column]]
"""Title, explanation, rows and columns."""


def tables(plan: Plan, outcome: Outcome) -> list[Table]:
    """All tables of a benchmark."""
    suite, rows = plan.suite, in_hundredths(outcome.rows)
    seeds = f"{plan.seeds} seeds" if plan.seeds > 1 else "one seed"
    interval = ", with half the 95 % interval over the seeds of the noise (Student)" if plan.seeds > 1 else ""
    found: list[Table] = [
        (
            "Quality",
            f"{plan.count} samples of each method and {seeds}{interval}, against {plan.count} reference solutions: {suite.datum}. MMSE "
            "and SMSE are means over the nodes; table.csv has their sums, the squared norms, too. The first row has as many further "
            "solutions in place of samples: what is near it cannot be told from the truth."
            + (" They are not given the data of the references: samples, which are, should be nearer." if suite.reconstructs else ""),
            rows,
            quality_columns(suite),
        ),
        (
            "Laws",
            "CE are the constraint errors of the literature's operators, CE scheme those of laws that the data's scheme obeys. The "
            "largest violation is relative to the natural scale of each of these laws; a sample is lawful if it obeys all of them to "
            "tolerance, and converged if the certificate of its last projection, on what the method imposes, says so.",
            rows,
            law_columns(rows),
        ),
        (
            "Cost",
            "Wall time a sample; network calls, reverse passes, projections and solves for multipliers of a trajectory, batch by batch; "
            "memory beyond what model and data hold. The first row has the time of the solver.",
            rows,
            cost_columns(),
        ),
    ]
    if len(held_out_columns(rows)) > 1:
        caption = (
            "Laws in discretisations that nothing was projected on: mean over the samples of the largest residual, relative to its scale."
        )
        found.append(("Held-out operators", caption, rows, held_out_columns(rows)))
    for published in suite.published:
        beside, columns = beside_published(suite, published, outcome.rows)
        text = f"{published.source}. Published values as printed; ours of this run, preset '{plan.preset}', in the same unit."
        found.append((f"Published and ours: {published.title}", text, beside, columns))
    return found


def write_tables(bench: Bench, outcome: Outcome) -> None:
    """`table.md`, `table.tex` and `table.csv` in the benchmark's folder."""
    plan = bench.plan
    found = tables(plan, outcome)
    head = f"# {plan.suite.name}: {plan.suite.title}\n\n{plan.suite.source}.\n"
    parts = [f"\n## {title}\n\n{text}\n\n{to_markdown(rows, columns)}" for title, text, rows, columns in found]
    lost = "".join(f"- {line}\n" for line in outcome.failures)
    put(bench.folder / "table.md", head + "".join(parts) + (f"\n## Failures\n\n{lost}" if lost else ""))
    latex = [f"% {title}: {text}\n{to_latex(rows, columns)}" for title, text, rows, columns in found]
    put(bench.folder / "table.tex", "\n".join(latex))
    put(bench.folder / "table.csv", to_csv(outcome.rows, every_column(outcome.rows)))


def write_bench_page(bench: Bench, outcome: Outcome) -> Path:
    """`report.html` with its figures in the benchmark's folder."""
    plan, album = bench.plan, Album(bench.folder / "figures")
    lead = (
        f"{plan.suite.title[0].upper()}{plan.suite.title[1:]}. {len(outcome.entries)} methods on one model, one noise and one set of laws; "
        f"{plan.count} samples each, {plan.size.steps} flow steps, preset '{plan.preset}'. Given: {plan.suite.datum}."
    )
    sections = [
        *_pareto_section(outcome, album),
        *(Section(title, table=to_html(rows, columns), caption=text) for title, text, rows, columns in tables(plan, outcome)),
        *_violations(outcome, album),
        _fields(bench, outcome, album),
    ]
    history = outcome.flow.card.get("history", [])
    if history:
        sections.append(loss_section(history, album, "Training of the model", "Losses as logged; every method samples this model."))
    if outcome.failures:
        sections.append(Section("Failures", text="\n".join(outcome.failures)))
    page = bench.folder / "report.html"
    write_page(page, f"Benchmark {plan.suite.name}", lead, sections)
    return page


def _pareto_section(outcome: Outcome, album: Album) -> list[Section]:
    from pcfm.report.pareto import Point, front, pareto

    key, name = QUALITY
    points = {
        row["method"]: Point(row["violation"], _middle(row[key]), _middle(row["milliseconds"]), _half(row[key]))
        for row in outcome.rows
        if row["method"] != TRUTH and row.get(key) is not None and row.get("violation") is not None
    }
    floor = next((_middle(row[key]) for row in outcome.rows if row["method"] == TRUTH and row.get(key) is not None), None)
    if not any(point.quality > 0 for point in points.values()):
        return []
    drawn = pareto(points, "Lawful, near, cheap", name, "time a sample [ms]", floor=floor)
    caption = f"Left and below is better. No other method beats {', '.join(front(points))} in violation, distance and time at once."
    return [Section("Violation, quality and cost", figure=album.keep(drawn, "pareto"), caption=caption)]


def _middle(value: Any) -> float:
    return value[0] if isinstance(value, tuple) else value


def _half(value: Any) -> float:
    return value[1] if isinstance(value, tuple) else 0.0


def _violations(outcome: Outcome, album: Album) -> list[Section]:
    prefix = "violation: "
    shown = {
        row["method"]: {key.removeprefix(prefix): value for key, value in row.items() if key.startswith(prefix)} for row in outcome.rows
    }
    shown = {method: laws for method, laws in shown.items() if laws}
    if not shown:
        return []
    text = "Largest violation over all samples and seeds of each law that the data's scheme obeys, whatever the method imposed."
    return [violation_section(shown, album, 1e-12, text)]


def _fields(bench: Bench, outcome: Outcome, album: Album) -> Section:
    """Fields of some methods below the reference."""
    reference = outcome.reference
    sets = {"reference": replace(reference[:4], u=reference[:4].values)}
    chosen: Sequence[Any] = [entry for entry in outcome.entries if entry.name in PANEL and not entry.laws] or outcome.entries
    for entry in chosen[:8]:
        if bench.kept(entry).exists():
            sets[label(entry)] = read(bench.kept(entry))
    text = "Each column starts from the same noise, but for the reference."
    return field_section(sets, album, text)
