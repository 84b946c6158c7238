"""Measured ratios as a table and a record."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import torch

from benchmarks.measure import Ratio
from pcfm.metrics.cost import Meter
from pcfm.report import Column, Record, to_markdown

COLUMNS = [
    Column("name", "ratio"),
    Column("median", "median"),
    Column("range", "range"),
    Column("goal", "goal"),
    Column("met", "met"),
    Column("ours", "first (s)"),
    Column("theirs", "second (s)"),
]


def tell(row: Ratio) -> None:
    """Say a ratio as soon as it is measured."""
    print(f"{row.median:8.3f} [{row.low:.3f} .. {row.high:.3f}]  {row.goal:<14} {row.name}", flush=True)


def machine() -> str:
    """What measured."""
    return f"{platform.machine()}, {os.cpu_count()} processors, {torch.get_num_threads()} thread(s), torch {torch.__version__}"


def publish(rows: list[Ratio], out: Path, name: str, title: str, command: str, meter: Meter) -> None:
    """Write NAME.md and NAME.json with the ratios, the machine and the command that measured them."""
    out.mkdir(parents=True, exist_ok=True)
    table = [
        {
            "name": row.name,
            "median": row.median,
            "range": f"{row.low:.3g} to {row.high:.3g}",
            "goal": row.goal,
            "met": "yes" if row.met else "no",
            "ours": row.ours,
            "theirs": row.theirs,
        }
        for row in rows
    ]
    (out / f"{name}.md").write_text(f"# {title}\n\n`{command}` on {machine()}.\n\n" + to_markdown(table, COLUMNS))
    Record.of(meter.cost, device="cpu", seeds={"fields": 0}, results={"rows": table, "machine": machine()}).write(out / f"{name}.json")
