"""Common fixtures: one thread, so that small transforms do not wait for each other."""

from __future__ import annotations

import os
from pathlib import Path

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
