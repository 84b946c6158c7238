"""A network that fails on some samples: they are reported, the others are what they would be without them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import pcfm
import pde_datasets
from constraints import Axis, Bounds, DivergenceFree, Grid, InitialCondition, Mass, Units
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
    assert sorted(drawn.causes) == failed.nonzero()[:, 0].tolist()
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
    monkeypatch.setattr("pcfm.shelf.load", lambda name, device: flow(0.7))
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
    assert f"samples {', '.join(map(str, failed))}, not in the file: the network gave NaN or Inf at t = 0.667" in ran.err
    assert document["causes"] == {str(i): "the network gave NaN or Inf at t = 0.667" for i in failed}
    assert not list(Path().glob("*.part*"))


def test_the_command_refuses_where_all_fail(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pcfm.shelf.load", lambda name, device: flow(-torch.inf))
    ran = call("sample broken --count 3 --steps 4 --out s.h5")
    assert ran.status == 2
    assert "all 3 samples of a batch of model 'broken' failed: the network gave NaN or Inf at t = 0.75. Train it again" in ran.err


def test_targets_of_each_sample_are_its_own() -> None:
    first = torch.randn(8, 1, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    drawn = pcfm.sample(flow(0.7), 8, law=InitialCondition(GRID, first), steps=6)
    assert torch.allclose(drawn.u[~drawn.failed][:, :, 0], first[~drawn.failed], atol=1e-12)


class Exploding(nn.Module):
    """A linear velocity, far too large from the middle of the flow on wherever the first value of the state is above a threshold."""

    def __init__(self, threshold: float, factor: float) -> None:
        super().__init__()
        self.threshold, self.factor = threshold, factor

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        far = (x[:, 0, 0, 0] > self.threshold) & (t > 0.5)
        return torch.where(far[:, None, None, None], self.factor * x, -0.5 * x)


METHODS_OF_MANY_KINDS = ["project-end", "pcfm", "pcfm-consistent", "eci", "pdm", "tangent", "dual", "guided", "posterior"]


@pytest.mark.parametrize("factor", [1e4, 1e38], ids=["large", "overflowing"])
@pytest.mark.parametrize("method", METHODS_OF_MANY_KINDS)
def test_a_sample_that_diverges_is_not_lawful_and_does_not_cost_the_others(method: str, factor: float) -> None:
    """Although it obeys: what a law allows grows with the field. In units that say how large data are."""
    units = Units(torch.tensor([0.1]), torch.tensor([1.0]))
    law = Mass(GRID, 0.0)

    def drawn(threshold: float) -> pcfm.Samples:
        flow = pcfm.wrap(Exploding(threshold, factor), grid=GRID, channels=("u",), units=units)
        return pcfm.sample(flow, 12, law=law, method=method, steps=6, batch=5)

    sound, hurt = drawn(torch.inf), drawn(0.6)
    failed = hurt.failed
    assert 0 < int(failed.sum()) < 12
    assert not sound.failed.any()
    assert all("diverged at step" in cause and "of 6" in cause for cause in hurt.causes.values())
    assert hurt.u[failed].isnan().all()
    assert not hurt.converged[failed].any()
    assert hurt.converged[~failed].all()
    assert torch.allclose(hurt.u[~failed], sound.u[~failed], atol=1e-9)


def test_what_left_its_range_before_the_last_projection_is_not_good_because_that_brings_it_back() -> None:
    """Bounds cut any field to size."""
    units = Units(torch.tensor([0.1]), torch.tensor([1.0]))
    flow = pcfm.wrap(Exploding(-torch.inf, 1e6), grid=GRID, channels=("u",), units=units)
    drawn = pcfm.sample(flow, 3, law=Bounds(-1.0, 1.0), method="project-end", steps=2)
    assert not drawn.failed.any()  # one step to t = 0.5
    drawn = pcfm.sample(flow, 3, law=Bounds(-1.0, 1.0), method="project-end", steps=3)
    assert drawn.failed.all()
    assert set(drawn.causes) == {0, 1, 2}
    assert all(cause.startswith("diverged at step 3 of 3") for cause in drawn.causes.values())


def test_large_fields_are_no_fault_where_the_law_asks_for_them_or_data_are_so_large() -> None:
    law = Mass(GRID, 1e6)
    assert pcfm.sample(flow(torch.inf), 3, law=law, steps=4).converged.all()
    large = pcfm.wrap(Growing(40.0), grid=GRID, channels=("u",))
    for method in ("unconstrained", "project-end", "pcfm-consistent"):
        drawn = pcfm.sample(large, 3, law=Mass(GRID, 0.0) if METHODS[method].lawful else None, method=method, steps=8)
        assert not drawn.failed.any()
        assert drawn.u.std() > 1e5
    stated = pcfm.wrap(Growing(40.0), grid=GRID, channels=("u",), units=Units(torch.zeros(1), torch.full((1,), 2.0)))
    assert pcfm.sample(stated, 3, steps=8).failed.all()


class OneGrows(nn.Module):
    """Carries the second sample of a batch away, and the others to zero."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        rate = torch.full((len(x),), -1.0, dtype=x.dtype)
        rate[1:2] = 1e3
        return rate[:, None, None] * x


def test_a_sample_that_diverges_does_not_set_its_own_bound() -> None:
    """Its certificate would hold: a law's tolerance grows with it. In identity units the flow of most samples says how large fields are."""
    grid = Grid(Axis("x", 16, periodic=True))
    own = pcfm.wrap(OneGrows(), grid=grid)
    for method in ("pcfm-consistent", "project-end"):
        samples = pcfm.sample(own, 3, law=Mass(grid, 0.0), method=method, steps=5)
        assert samples.failed.tolist() == [False, True, False], method
        assert "diverged" in samples.causes[1]
        assert samples.converged.tolist() == [True, False, True]


class Growing(nn.Module):
    """A velocity away from zero, at a rate."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.rate * x


def test_where_a_method_diverges_the_model_is_not_blamed(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of a divergence are large: the published dual flow, explicit, multiplies them."""
    monkeypatch.chdir(tmp_path)
    ran = call("sample kolmogorov --count 2 --steps 6 --law divergence-free --method dual:whiten=false --out s.h5")
    assert ran.status == 2
    assert "failed: diverged at step" in ran.err
    assert "Take more steps, or other options of the method" in ran.err
    assert not Path("s.h5").exists()


@pytest.mark.parametrize("method", ["dual", "posterior"])
def test_defaults_are_stable_on_the_shipped_model(method: str) -> None:
    """Under central differences, whose rows data obey in part only."""
    shipped = pcfm.load("kolmogorov")
    drawn = pcfm.sample(shipped, 2, law=DivergenceFree(shipped.grid, "central"), method=method, steps=10, dtype=torch.float32)
    assert drawn.converged.all()
    assert not drawn.causes
    assert drawn.u.abs().max() < 4.0
    assert 0.3 < drawn.u.std() < 1.0


def test_searches_tell_how_far_they_are_within_a_batch() -> None:
    told: list[float] = []
    for method in ("d-flow:iterations=4", "source-chain:moves=5", "pdm", "pcfm"):
        told.clear()
        pcfm.sample(flow(torch.inf), 2, law=Mass(GRID, 0.0), method=method, steps=4, within=told.append)
        assert len(told) >= 4
        assert told == sorted(told)
        assert 0 < told[0] < 0.5
        assert told[-1] == 1.0
