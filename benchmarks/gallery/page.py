"""Pages of the gallery: its figures with their numbers, and the table of methods, both from the code and the recorded numbers."""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Callable, Iterable
from itertools import takewhile
from pathlib import Path
from types import ModuleType
from typing import Any

from matplotlib import rc_context

from benchmarks.gallery import EXHIBITS
from benchmarks.gallery.exhibit import Exhibit, path_of
from benchmarks.gallery.tables import TABLES
from pcfm.report.look import LOOK
from pcfm.report.table import readable

ROOT = Path(__file__).resolve().parents[2]
RECORD = ROOT / "benchmarks" / "results" / "gallery.json"
PAGE = ROOT / "docs" / "gallery.md"
METHODS_PAGE = ROOT / "docs" / "methods.md"
FIGURES = ROOT / "docs" / "gallery"

Numbers = dict[str, list[dict[str, Any]]]
"""Of each script, its measures as recorded."""

GALLERY_HEAD = """# Gallery

What each method does, in one figure, and its numbers beside what theory says. Every section is one short script, run at small size by
`tests/test_gallery.py`; figures and numbers here are those of

```
python -m benchmarks.gallery
```

on one thread of a CPU, in double precision but for networks. A *control* is a wrong variant that must miss.

"""

METHODS_HEAD = """# Methods

All entries of the tables that `pcfm list` shows, and what the [gallery](gallery.md) measures besides. Names, papers and classes are read
from the code, numbers from the gallery's record; `python -m benchmarks.gallery` writes this page.

"""


def script(name: str) -> ModuleType:
    """The script of a name."""
    return importlib.import_module(f"benchmarks.gallery.{name}")


def make(name: str, full: bool) -> Exhibit:
    """Run a script, in the house look."""
    with rc_context(LOOK):
        return script(name).show(full)


def save(name: str, shown: Exhibit) -> None:
    """Write the figure, and the numbers over those of the script that are recorded."""
    FIGURES.mkdir(exist_ok=True)
    with rc_context(LOOK):
        shown.figure.savefig(FIGURES / f"{name}.png", dpi=110, metadata={"Software": None})
    kept = numbers() if RECORD.exists() else {}
    kept[name] = [measure.record() for measure in shown.measures]
    RECORD.write_text(json.dumps({key: kept[key] for key in EXHIBITS if key in kept}, indent=1) + "\n")


def numbers() -> Numbers:
    """What is recorded."""
    found: Numbers = json.loads(RECORD.read_text())
    return found


def gallery_page(recorded: Numbers) -> str:
    """docs/gallery.md."""
    parts = [GALLERY_HEAD]
    for name in recorded:
        title, _, text = inspect.cleandoc(script(name).__doc__ or "").partition("\n")
        parts += [f"## {title.rstrip('.')}\n\n", f"{text.strip()}\n\n", f"![{title}](gallery/{name}.png)\n\n"]
        parts += [markdown([_cells(row) for row in recorded[name]]), "\n"]
        parts += [f"[benchmarks/gallery/{name}.py](../benchmarks/gallery/{name}.py)\n\n"]
    return "".join(parts).rstrip() + "\n"


def markdown(rows: list[dict[str, str]]) -> str:
    """A table; texts may hold formulas, which stay as they are."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def _cells(row: dict[str, Any]) -> dict[str, str]:
    limit = readable(row["within"])
    return {
        "of": f"`{row['of'].rpartition('.')[2]}`",
        "quantity": ("control: " if row["control"] else "") + row["quantity"],
        "measured": readable(row["value"]),
        "exact": readable(row["exact"]),
        "within": f"not {limit}" if row["control"] else limit,
    }


def anchor(name: str) -> str:
    """Of a section of the gallery's page."""
    title = inspect.cleandoc(script(name).__doc__ or "").partition("\n")[0].rstrip(".").lower()
    return "".join(c for c in title.replace(" ", "-") if c.isalnum() or c in "-_")


def accepted(recorded: Numbers, thing: Callable[..., Any]) -> list[tuple[str, dict[str, Any]]]:
    """The scripts and numbers that a class or function is accepted by, controls left out."""
    path = path_of(thing)
    return [(name, row) for name in EXHIBITS for row in recorded.get(name, []) if row["of"] == path and not row["control"]]


def methods_page(recorded: Numbers) -> str:
    """docs/methods.md: the tables of the code, then what is measured besides."""
    parts, seen = [METHODS_HEAD], set()
    for title, table in TABLES.items():
        parts += [f"## {title}\n\n", _table(table.items(), recorded), "\n"]
        seen |= {path_of(kind) for kind in table.values()}
    rest = {row["of"]: _found(row["of"]) for rows in recorded.values() for row in rows if row["of"] not in seen and not row["control"]}
    parts += ["## Besides\n\n", _table(((kind.__name__, kind) for kind in rest.values()), recorded)]
    return "".join(parts).rstrip() + "\n"


def _table(entries: Iterable[tuple[str, Callable[..., Any]]], recorded: Numbers) -> str:
    rows = [
        {"name": f"`{name}`", "what": summary(kind), "paper": paper(kind), "class": _link(kind), "accepted by": _accepted(kind, recorded)}
        for name, kind in entries
    ]
    return markdown(rows)


def summary(kind: Callable[..., Any]) -> str:
    """The first line of a docstring."""
    return inspect.cleandoc(kind.__doc__ or "").partition("\n\n")[0].replace("\n", " ").rstrip(".")


def paper(kind: Callable[..., Any]) -> str:
    """The paper of a class or function: the source in its docstring, what it names as `reference`, or the source of its module."""
    module = getattr(inspect.getmodule(kind), "__doc__", None)
    return _source(kind.__doc__) or getattr(kind, "reference", "") or _source(module)


def _source(documentation: str | None) -> str:
    """The section Source of a docstring, without its deviations."""
    rest = inspect.cleandoc(documentation or "").partition("Source:\n")[2]
    lines = list(takewhile(lambda line: line.startswith("    "), rest.splitlines()))
    return " ".join(line.strip() for line in lines).partition(" Deviation")[0].rstrip(".;")


def _link(kind: Callable[..., Any]) -> str:
    module = path_of(kind).rpartition(".")[0].removesuffix(f".{kind.__qualname__.rpartition('.')[0]}")
    return f"[{path_of(kind)}](../{module.replace('.', '/')}.py)"


def _accepted(kind: Callable[..., Any], recorded: Numbers) -> str:
    texts = []
    for name, row in accepted(recorded, kind):
        theory = f", exact {readable(row['exact'])}" if row["exact"] else ""
        texts.append(f"[{row['quantity']}](gallery.md#{anchor(name)}): {readable(row['value'])}{theory}")
    return "; ".join(texts[:2])


def _found(path: str) -> Callable[..., Any]:
    module, _, name = path.rpartition(".")
    found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return found
