"""Common fixtures: one thread, so that small transforms do not wait for each other; commands; real files; figures for the docs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
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


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--figures", type=Path, help="write the figures that validation tests measure to this JSON file, over those it has")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[FIGURES] = {}


Figure = Callable[..., None]


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Figure:
    """Records a measured figure: `figure("kdv", "error at t = 1", 3.3e-10, "raissi KdV.mat", reference=0.0)`.

    With `--figures FILE` all of a session are written, and `python -m benchmarks.validation` makes the table of the docs from them.
    """

    def record(problem: str, quantity: str, ours: float, source: str, *, reference: float | str | None = None) -> None:
        row = {"problem": problem, "quantity": quantity, "ours": float(ours), "reference": reference, "source": source}
        request.config.stash[FIGURES][f"{problem}: {quantity}"] = {**row, "test": request.node.nodeid}

    return record


def pytest_sessionfinish(session: pytest.Session) -> None:
    path, found = session.config.getoption("--figures"), session.config.stash[FIGURES]
    if path is None or not found:
        return
    before = json.loads(path.read_text()) if path.exists() else {}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(dict(sorted({**before, **found}.items())), indent=1) + "\n")
