"""The suites of the literature as they were run here: their tables and figures, and a page that sets them beside what was published.

Usage: pcfm bench NAME --preset cpu --out RUNS/NAME, for each suite; --quick for those of flows and inverse problems
       python -m benchmarks.suites RUNS [--refine]

Of each run its small outputs are copied to benchmarks/results/suites/NAME; README.md beside them has the tables, and what they show. Data,
weights and records of single runs are left where they are.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tyro

from pcfm.bench import Bench, Plan, put
from pcfm.generation import sample
from pcfm.report import Column, to_markdown
from pcfm.scores import TRUTH, Judge, Row, beside_published
from pcfm.suites import SUITES, Suite

OUT = Path(__file__).resolve().parent / "results" / "suites"

KEPT = ("bench.json", "record.json", "table.md", "table.csv", "table.tex", "figures/pareto.png", "figures/fields.png")
"""What is copied of a run."""

LAWFUL = 1e-9
"""Largest violation, relative to the scale of each law, of methods that are compared with ours."""

OURS = "pcfm-consistent"
"""The method that `pcfm sample` takes where none is named."""

REFINED = "heat-ic"
"""The suite on which samples are drawn again with more steps."""

STEPS = (16, 64, 256)

SETTLED = ("pcfm", "pcfm-consistent", "flower")
"""Methods of one call of the network a step, whose samples are drawn with more steps."""

HEAD = """# The problems of the PCFM paper, run here

Each table was made by

```
pcfm bench NAME --preset cpu --out RUNS/NAME
```

and this page by `python -m benchmarks.suites RUNS --refine`. The preset `cpu` has grids,
networks and numbers of samples for one core without a GPU (`bench.json` of each suite says which), so what compares with the paper is
order and magnitude. Errors are in units of 0.01, published ones as printed; with several seeds, half the 95 % interval stands beside the
mean. The row of the ground truth has as many further solutions in place of samples: differences smaller than its values mean nothing.
Times were taken beside other work, and stand in each suite's own table only; network calls, there too, are exact.

"""

READING = """## What the tables show

**Order and magnitude.** As in the paper, the flow alone and DiffusionPDE without a projection are next to each other, and far from what is
given. On the heat equation and reaction-diffusion PCFM is nearer to the data than they are, as published; on Burgers from an initial state
too. On Burgers with given inflow and on Navier-Stokes the flow alone is no farther by its mean (MMSE) than ECI. Means of the flow alone and
of DiffusionPDE agree with the paper's on the heat equation, are three to five times smaller on Burgers and Navier-Stokes and three times
larger on reaction-diffusion. PDM is the worst by far on Burgers from an initial state, here as there: noise projected on a curved law is
far from it, and some of the chains diverge (these tables are from before diverged samples were counted as failed). Where the paper's PCFM
is most accurate, on reaction-diffusion and Burgers from an initial state, it is about two orders farther here. Network, training and number
of steps are the paper's there and smaller here, and the source is smooth where theirs is white. `CE(CL)` of models that do not impose it is
thirty times the paper's on the heat equation: a network of minutes of training leaks that much more mass.

**PCFM and ECI.** Where laws are affine, as on the heat equation, PCFM's samples *are* those of ECI with one mixing at a time and no fresh
noise, and so are their rows, to all digits. The paper prints two different rows, from two codes with settings of their own.

**Zeros, and errors that are the truth's own.** The paper's zeros come without a threshold. Here each method that ends with a converged
projection breaks the laws that the data obey by round-off, as the truth does; where one has not converged (`tangent` on Burgers with
given inflow, the chains of `pdm` that diverge, the single regularised steps of `pcfm-published`), its certificate and its row say so. On
reaction-diffusion and Burgers the literature's `CE(CL)` is not zero for the truth, since sums over nodes and trapezoids of fluxes are not
the balance of the scheme that made the data. The truth's own value here is next to what the paper reports of its *unconstrained* model
and of DiffusionPDE: 4.2 here, 3.9 and 3.8 there on reaction-diffusion; about 8 here, 6.9 and 6.2 there on Burgers. Of models that do
not impose it, that column measures the operator more than the law. A method that makes it zero, as `pcfm-published@literature` does,
breaks the balance that the data obey instead (`CE(CL), scheme` in the suites' own tables).

**Errors in what is given** (`CE(IC)`, `CE(BC)`) are norms over nodes, on lines of 32 here and of 100 to 128 there: a factor of 0.5 to 0.6
for the same error at each. The rest is training, minutes of one core here.

**D-Flow** has two iterations of L-BFGS here instead of twenty, each of which takes tens of runs through the network; on Navier-Stokes it
is left out, as in the paper.

## Ours and the best other

All methods that end with a converged projection end with the same one, and are lawful to round-off. What remains is how near their
samples are to those of the truth. `pcfm-consistent` takes one call of the network and one projection a step, and no derivative; it is the
method that `pcfm sample` takes where none is named.

"""

REASON = """
It is not the best in the same run, for a reason that can be measured. It sets what the law gives to the endpoint and leaves all else as
it was; the network has to answer at the next steps, of which there are few. With 64 of them in place of 16 it comes
nearer, where the published return goes away, since it adds noise that the endpoint holds already. Methods that carry
the given values to what is correlated with them in the
same step are nearer from the start: by the derivative of the network (`guided`, `posterior`), by the covariance of the source (`flower`),
or by repeating each noise level (`ppr`, `pdm`). Where an initial state determines most of the field, as in these problems, that is what
counts; of methods that need one call of the network a step, `flower` is the best here.

On the heat equation, with the model, the reference and the first two seeds of its table, and other numbers of steps:

"""

FLOWS = """
# Flows and inverse problems, run here

No table of others is there to compare with. Each was made by

```
pcfm bench NAME --quick --out RUNS/NAME
```

in minutes of one core: the network has hardly learnt, and what the tables show is what each method makes of that. Violations are the
largest of all laws and samples, relative to the scale of each law.

"""

COLUMNS = (
    Column("method", "method"),
    Column("violation", "violation"),
    Column("lawful", "lawful"),
    Column("mmse-nodes", "MMSE"),
    Column("smse-nodes", "SMSE"),
    Column("energy-distance", "energy distance"),
)
"""What the page has of each table."""

Verdict = dict[str, Any]


def main(runs: Path, /, *, out: Path = OUT, refine: bool = False) -> None:
    """Collect the runs of a folder, and write the page.

    Arguments:
        runs: a folder with a finished benchmark for each suite, under its name.
        out: where to put what is kept.
        refine: Draw again with more steps, too; minutes.
    """
    done = [suite for suite in SUITES.values() if (runs / suite.name / "record.json").exists()]
    found, flows = [suite for suite in done if suite.published], [suite for suite in done if not suite.published]
    if not found:
        raise SystemExit(f"no finished benchmark of a published suite in {runs}; run pcfm bench NAME --out {runs}/NAME first.")
    for suite in done:
        keep(runs / suite.name, out / suite.name)
    if refine:
        put(out / "steps.json", json.dumps(refined(runs / REFINED), indent=2) + "\n")
    steps = json.loads((out / "steps.json").read_text()) if (out / "steps.json").exists() else []
    recorded = {suite.name: results(out / suite.name) for suite in done}
    put(out / "README.md", page(found, recorded, steps) + flow_page(flows, recorded))


def keep(folder: Path, out: Path) -> None:
    """Copy the small outputs of a run."""
    out.mkdir(parents=True, exist_ok=True)
    for name in KEPT:
        shutil.copyfile(folder / name, out / Path(name).name)


def results(folder: Path) -> dict[str, Any]:
    """The record of a run, means with their intervals as pairs."""
    record = json.loads((folder / "record.json").read_text())
    found: dict[str, Any] = record["results"]
    found["rows"] = [{key: tuple(value) if isinstance(value, list) else value for key, value in row.items()} for row in found["rows"]]
    return found


def refined(folder: Path) -> list[Row]:
    """Mean and spread of some methods with several numbers of steps, means over two seeds."""
    suite = SUITES[REFINED]
    plan = Plan(suite, "cpu", tuple(suite.entry(name) for name in SETTLED), 2, suite.sizes["cpu"].count)
    bench = Bench(plan, folder)
    flow, reference = bench.model(), bench.reference()
    judge, table = Judge(suite, bench.problem, reference), []
    for entry in plan.entries:
        law = suite.imposed(entry, bench.problem, reference)
        for steps in STEPS:
            drawn = [sample(flow, plan.count, law=law, method=entry.method, steps=steps, seed=seed).u for seed in range(plan.seeds)]
            values = [judge(u, reference) for u in drawn]
            table.append({"method": entry.method, "steps": steps})
            table[-1] |= {key: sum(found[key] for found in values) / len(values) for key in ("mmse-nodes", "smse-nodes", "violation")}
    return table


def page(suites: Sequence[Suite], found: Mapping[str, Mapping[str, Any]], steps: Sequence[Row] = ()) -> str:
    """The page from the records, and from those of other numbers of steps."""
    parts = [HEAD]
    for suite in suites:
        result = found[suite.name]
        settings = result["settings"]
        rows, columns = beside_published(suite, suite.published[0], result["rows"])
        parts.append(
            f"## [{suite.name}]({suite.name}/table.md): {suite.title}\n\n{settings['count']} samples of {_seeds(result['seeds'])}, "
            f"{settings['steps']} flow steps, against {suite.published[0].source}.\n\n{to_markdown(rows, columns)}\n"
            f"![violation, quality and cost]({suite.name}/pareto.png)\n\n"
        )
    parts.append(READING)
    table = [row for suite in suites for row in verdicts(suite.name, found[suite.name]["rows"])]
    columns = [
        Column("suite", "suite"),
        Column("measure", "measure", "0.01"),
        Column("violation", "our violation"),
        Column("ours", OURS),
        Column("best", "best other lawful"),
        Column("name", "which"),
        Column("truth", TRUTH),
    ]
    parts.append(to_markdown(table, columns))
    if steps:
        columns = [Column("method", "method"), Column("steps", "steps"), Column("mmse", "MMSE", "0.01"), Column("smse", "SMSE", "0.01")]
        columns.append(Column("violation", "violation"))
        rows = [{**row, "mmse": 100 * row["mmse-nodes"], "smse": 100 * row["smse-nodes"]} for row in steps]
        parts += [REASON, to_markdown(rows, columns)]
    return "".join(parts)


def flow_page(suites: Sequence[Suite], found: Mapping[str, Mapping[str, Any]]) -> str:
    """The part of the suites that nobody has published; nothing if there are none."""
    parts = [FLOWS] if suites else []
    for suite in suites:
        result = found[suite.name]
        settings, rows = result["settings"], result["rows"]
        known = [column for column in COLUMNS if any(column.key in row for row in rows)]
        parts.append(
            f"## [{suite.name}]({suite.name}/table.md): {suite.title}\n\n{settings['count']} samples of {_seeds(result['seeds'])}, "
            f"{settings['steps']} flow steps.\n\n{to_markdown(rows, known)}\n"
            f"![violation, quality and cost]({suite.name}/pareto.png)\n\n![a field of each method]({suite.name}/fields.png)\n\n"
        )
    return "".join(parts)


def verdicts(suite: str, rows: Sequence[Row]) -> list[Verdict]:
    """Our method and the best of the other lawful ones, in mean and spread."""
    by_name = {row["method"]: row for row in rows}
    ours, truth = by_name[OURS], by_name[TRUTH]
    others = [row for row in rows if row not in (ours, truth) and row.get("violation") is not None and row["violation"] <= LAWFUL]
    table = []
    for key, measure in (("mmse-nodes", "MMSE"), ("smse-nodes", "SMSE")):
        best = min(others, key=lambda row: middle(row[key]))
        table.append(
            {
                "suite": suite,
                "measure": measure,
                "violation": ours["violation"],
                "ours": hundredths(ours[key]),
                "best": hundredths(best[key]),
                "name": best["method"],
                "truth": hundredths(truth[key]),
            }
        )
    return table


def middle(value: Any) -> float:
    """The mean of a value with or without an interval."""
    return float(value[0] if isinstance(value, tuple) else value)


def hundredths(value: Any) -> Any:
    """A value in units of 0.01."""
    return tuple(100 * part for part in value) if isinstance(value, tuple) else 100 * value


def _seeds(count: int) -> str:
    return "one seed" if count == 1 else f"each of {count} seeds"


if __name__ == "__main__":
    tyro.cli(main)
