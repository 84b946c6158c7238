"""Damaged files of every format open or are refused with one line: no other exception, no crash of the process, no hang."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pde_datasets.loaders import FORMATS
from tests.fuzz import writers

ROOT = Path(__file__).resolve().parents[1]
GROUPS = 6
"""Processes that share the files: starting one costs more than opening a hundred files."""


def test_every_format_is_damaged_here() -> None:
    """But for readings of a file that another format recognises."""
    assert {name.partition("/")[0] for name in writers()} == {name for name, entry in FORMATS.items() if entry.reading_of is None}


def fuzz(group: int, count: int) -> None:
    names = list(writers())[group::GROUPS]
    command = [sys.executable, "-m", "tests.fuzz", str(count), *names]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"exit status {done.returncode}: {done.stdout[-3000:]} {done.stderr[-2000:]}"


@pytest.mark.parametrize("group", range(GROUPS))
def test_damaged_files_open_or_are_refused(group: int) -> None:
    fuzz(group, 6)


@pytest.mark.slow
@pytest.mark.parametrize("group", range(GROUPS))
def test_many_damaged_files_open_or_are_refused(group: int) -> None:
    fuzz(group, 400)
