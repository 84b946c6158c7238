"""The table of the docs with what the embedded problems were validated against.

Usage: python -m pytest tests -m "slow or not slow" -k problems --figures benchmarks/results/validation.json
       python -m benchmarks.validation

The tests measure the figures and hold them to bounds; this turns what they recorded into docs/validation.md.
"""

from __future__ import annotations

import json
from pathlib import Path

from pcfm.report import Column, to_markdown

ROOT = Path(__file__).resolve().parents[1]
RECORD = ROOT / "benchmarks" / "results" / "validation.json"
PAGE = ROOT / "docs" / "validation.md"

HEAD = """# What the embedded problems were validated against

Every figure was measured by the test that the record `benchmarks/results/validation.json` names, and is held to a bound there:

```
python -m pytest tests -m "slow or not slow" -k "problem or navier or transport" --figures benchmarks/results/validation.json
python -m benchmarks.validation
```

"""


def page(rows: list[dict[str, object]]) -> str:
    """The page, a table a problem."""
    columns = [Column("quantity", "quantity"), Column("ours", "measured"), Column("reference", "reference"), Column("source", "against")]
    parts = [HEAD]
    for problem in dict.fromkeys(str(row["problem"]) for row in rows):
        table = [{**row, "reference": "" if row["reference"] is None else row["reference"]} for row in rows if row["problem"] == problem]
        parts.append(f"## {problem}\n\n{to_markdown(table, columns)}\n")
    return "".join(parts)


def main() -> None:
    PAGE.write_text(page(list(json.loads(RECORD.read_text()).values())))


if __name__ == "__main__":
    main()
