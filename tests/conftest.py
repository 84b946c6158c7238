"""Common fixtures: one thread, so that small transforms do not wait for each other; commands; real files; figures for the docs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest
import torch

from tests.commands import Call, Ran, start

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _single_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def real_data() -> Path:
    """The folder of real files, PCFM_DATA or ../shared/data."""
    folder = Path(os.environ.get("PCFM_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real files not found in {folder}; set PCFM_DATA (docs/data.md names their public sources)")
    return folder


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """Run a command line in this process and catch what it says."""

    def run(command: str) -> Ran:
        capsys.readouterr()
        status = start(command)
        return Ran(status, *capsys.readouterr())

    return run


FIGURES = pytest.StashKey[dict[str, dict[str, Any]]]()
"""Of a test, the figures it recorded; of the session, those of the tests that passed."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--figures", type=Path, help="write the figures that validation tests measure to this JSON file, over those it has")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[FIGURES] = {}


Figure = Callable[..., None]


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Figure:
    """Records a measured figure: `figure("kdv", "soliton: order in time", 3.98, "exact", reference=4)`; an error has no reference.

    With `--figures FILE` those of all tests that pass are written, and `python -m benchmarks.validation` makes the table of the docs.
    """
    found = request.node.stash.setdefault(FIGURES, {})

    def record(problem: str, quantity: str, ours: float, source: str, *, reference: float | str | None = None) -> None:
        key = f"{problem}: {quantity}"
        if key in found or key in request.config.stash[FIGURES]:
            raise ValueError(f"figure expects a quantity of its own for each number; '{key}' is there already.")
        row = {"problem": problem, "quantity": quantity, "ours": float(ours), "reference": reference, "source": source}
        found[key] = {**row, "test": request.node.nodeid}

    return record


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if call.when == "call" and report.passed:
        item.config.stash[FIGURES].update(item.stash.get(FIGURES, {}))
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    path, found = session.config.getoption("--figures"), session.config.stash[FIGURES]
    if path is None or not found:
        return
    again = {row["test"] for row in found.values()}
    before = json.loads(path.read_text()) if path.exists() else {}
    before = {key: row for key, row in before.items() if row["test"] not in again}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(dict(sorted({**before, **found}.items())), indent=1) + "\n")
