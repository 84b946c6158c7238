"""A network that fails on some samples: they are reported, the others are what they would be without them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import pcfm
import pde_datasets
from constraints import Axis, Grid, InitialCondition, Mass
from pcfm.methods import METHODS
from pde_datasets import Fields, store
from tests.commands import Call

GRID = Grid(Axis("time", 4), Axis("x", 6, periodic=True))


class Broken(nn.Module):
    """A linear velocity, NaN from the middle of the flow on wherever the first value of the state is above a threshold."""

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold = threshold

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        bad = (x[:, 0, 0, 0] > self.threshold) & (t > 0.5)
        return torch.where(bad[:, None, None, None], torch.nan, -0.5 * x)


def flow(threshold: float) -> pcfm.Flow:
    return pcfm.wrap(Broken(threshold), grid=GRID, channels=("u",))


@pytest.mark.parametrize("method", ["unconstrained", "project-end", "pcfm", "pcfm-consistent", "eci", "tangent"])
def test_one_bad_sample_does_not_cost_the_others(method: str) -> None:
    """Nor change them: samples are those of a network that fails nowhere."""
    law = Mass(GRID, 0.0) if METHODS[method].lawful else None
    sound = pcfm.sample(flow(torch.inf), 12, law=law, method=method, steps=6, batch=5)
    drawn = pcfm.sample(flow(0.7), 12, law=law, method=method, steps=6, batch=5)
    failed = drawn.failed
    assert 0 < int(failed.sum()) < 12
    assert drawn.u[failed].isnan().all()
    assert torch.allclose(drawn.u[~failed], sound.u[~failed], atol=1e-13)
    assert not drawn.converged[failed].any()
    assert drawn.converged[~failed].all()
    assert all(row["violation_after"] == row["violation_after"] for row in drawn.laws)


def test_where_all_samples_fail_nothing_is_certified() -> None:
    drawn = pcfm.sample(flow(-torch.inf), 3, law=Mass(GRID, 0.0), steps=4)
    assert drawn.failed.all()
    assert not drawn.converged.any()
    assert drawn.laws == []


def test_the_command_delivers_the_others(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With their own targets, numbered, and exit status 1."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pcfm.experiment.load", lambda name, device: flow(0.7))
    first = torch.randn(9, 1, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    store.write(Path("first.h5"), Fields(first, GRID.space, ("u",)))
    ran = call(
        "sample broken --count 9 --law initial-condition:file=first.h5 --method pcfm-consistent --steps 6 --batch 4 --out s.h5 --json"
    )
    assert ran.status == 1
    document = ran.json()
    failed = document["failed"]
    assert 0 < len(failed) < 9
    assert document["count"] == document["converged"] == 9 - len(failed)
    delivered = pde_datasets.open("s.h5")
    numbers = delivered.parameters["sample"]
    assert sorted([*failed, *numbers.tolist()]) == list(range(9))
    assert torch.allclose(delivered.values[:, :, 0], first[numbers], atol=1e-12)
    assert store.certificate(Path("s.h5"))["converged"].all()
    assert "samples " + ", ".join(map(str, failed)) in ran.err
    assert not list(Path().glob("*.part*"))


def test_the_command_refuses_where_all_fail(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pcfm.experiment.load", lambda name, device: flow(-torch.inf))
    ran = call("sample broken --count 3 --steps 4 --out s.h5")
    assert ran.status == 2
    assert "NaN or Inf in all 3 samples of a batch" in ran.err


def test_targets_of_each_sample_are_its_own() -> None:
    first = torch.randn(8, 1, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    drawn = pcfm.sample(flow(0.7), 8, law=InitialCondition(GRID, first), steps=6)
    assert torch.allclose(drawn.u[~drawn.failed][:, :, 0], first[~drawn.failed], atol=1e-12)
