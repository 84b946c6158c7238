"""The page of the docs on the embedded problems: what they solve, and how well, against what.

Usage: python -m pytest tests -m "slow or not slow" -k "problem or navier_stokes" --figures benchmarks/results/validation.json
       python -m benchmarks.validation

The tests measure the figures and hold them to bounds; this turns what they recorded into docs/validation.md.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any

from pcfm.report import Column, to_markdown
from pcfm.report.table import readable
from pde_datasets import PROBLEMS
from tests.problems import EXAMPLES

ROOT = Path(__file__).resolve().parents[1]
RECORD = ROOT / "benchmarks" / "results" / "validation.json"
PAGE = ROOT / "docs" / "validation.md"

LAWS = "laws"
"""The quantity that goes into the table of the problems: by how much fields break the laws of theirs."""

Row = dict[str, Any]

HEAD = """# What the embedded problems were validated against

Every figure on this page was measured by a test, which holds it to a bound. Its quantity links to the file of the test; the tooltip is the
test's name. Record and page are made by

```
python -m pytest tests -m "slow or not slow" -k "problem or navier_stokes" --figures benchmarks/results/validation.json
python -m benchmarks.validation
```

Without `-m`, tests that take minutes are left out and their figures stay. Figures against published files need these:
[data.md](data.md) says where they are from. All is computed in double precision on the CPU.

"""

PROBLEMS_HEAD = """## The problems

The laws are those of `problem.constraint(parameters)`, here for a small instance of each problem with its default boundary conditions. The
residual is the largest one of four samples, as a share of the scale of its law. It is round-off.

"""

FIGURES_HEAD = """## Figures of each problem

An *error* is the distance from an exact solution, a *difference* the distance from other data: the *largest* over all points and times, or
the *mean* over points, in the units of the problem if it is not called relative. At best they are 0, and so are residuals and changes of
what is conserved. An *order* is the p of an error that falls as $h^p$, from the two finest resolutions. Measured values have three digits,
or as many decimals as their reference. References of statistics are met within the sampling error.

"""

SHARED_HEAD = """## Figures of what problems share

"""

LEFT_OUT = """
## What is left out

Known targets that nothing here is held to, and why:

- turbulent channel flow at friction Reynolds numbers of 180 and more (Moser, Kim & Mansour 1999): `channel` is plane, and the run is too
  long for a test;
- the Kelvin-Helmholtz instability of Lecoanet et al. (2016): its converged reference needs viscosity, conduction and a dye, and `euler-2d`
  has none of them; without them there is no converged reference, and the growth of a shear layer is held to linear theory instead;
- flows on the sphere and blast waves in three dimensions: there is no such problem;
- pressure differences about the cylinder of the DFG benchmark: an immersed boundary smears the pressure on the surface over three cells.
"""

COLUMNS = [Column("quantity", "quantity"), Column("ours", "measured"), Column("reference", "reference"), Column("source", "against")]


def page(rows: list[Row]) -> str:
    """The page: a table of the problems, and one of figures for each, then for the solvers they share."""
    laws = {row["problem"]: row["ours"] for row in rows if row["quantity"] == LAWS}
    figures: dict[str, list[Row]] = {}
    for row in rows:
        if row["quantity"] != LAWS:
            figures.setdefault(row["problem"], []).append(row)
    own = [name for name in PROBLEMS if name in figures]
    text = "".join(
        [
            HEAD,
            PROBLEMS_HEAD,
            overview(laws),
            "\n",
            FIGURES_HEAD,
            *sections(own, figures),
            SHARED_HEAD,
            *sections(sorted(set(figures) - set(own)), figures),
            LEFT_OUT,
        ]
    )
    return text.rstrip() + "\n"


def overview(laws: dict[str, float]) -> str:
    """The table of the problems, with the residuals of their laws."""
    rows = []
    for name, problem in PROBLEMS.items():
        drawn = EXAMPLES[name].draw(1)
        leaves = Counter(leaf.name for leaf in EXAMPLES[name].constraint(drawn.parameters).leaves())
        rows.append(
            {
                "problem": f"[{name}](#{name})",
                "equation": f"`{problem.equation}`",
                "scheme": problem.scheme,
                "presets": ", ".join(problem.presets),
                "laws": ", ".join(f"{times} × {law}" if times > 1 else law for law, times in leaves.items()),
                "residual": laws.get(name),
            }
        )
    return to_markdown(rows, [Column(key, key) for key in rows[0]])


def sections(names: Iterable[str], figures: dict[str, list[Row]]) -> list[str]:
    """A table of figures under each name, in alphabetical order."""
    parts = []
    for name in names:
        rows = sorted(figures[name], key=lambda row: natural(row["quantity"]))
        parts.append(f"### {name}\n\n{to_markdown([cells(row) for row in rows], COLUMNS)}\n")
    return parts


def cells(row: Row) -> Row:
    """A figure as a row of its table."""
    file, _, test = row["test"].partition("::")
    reference = "" if row["reference"] is None else re.sub(r"e-0(\d)", r"e-\1", str(row["reference"]))
    quantity = f'[{row["quantity"]}](../{file} "{test}")'
    return {"quantity": quantity, "ours": alike(row["ours"], reference), "reference": reference, "source": row["source"]}


def alike(ours: float, reference: str) -> str:
    """A number with as many decimals as the first one in its reference, or with three digits if these are more."""
    number = re.search(r"-?\d+(\.\d+)?(e-?\d+)?", reference)
    decimals = max(0, -int(Decimal(number[0]).as_tuple().exponent)) if number else 0
    text = f"{ours:.{decimals}f}"
    return text if len(text.lstrip("-0.").replace(".", "")) >= 3 else readable(ours)


def natural(text: str) -> list[tuple[float, str]]:
    """A key that sorts by letters, and by the value of numbers among them."""
    parts = re.split(r"(\d+(?:\.\d+)?)", text.lower())
    return [(0.0, part) if i % 2 == 0 else (float(part), "") for i, part in enumerate(parts)]


def main() -> None:
    PAGE.write_text(page(list(json.loads(RECORD.read_text()).values())))


if __name__ == "__main__":
    main()
