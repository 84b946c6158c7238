"""Killed runs: nothing half-done under a final name, and the run that is resumed is the run that was not killed, bit for bit."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from pcfm.cli import main
from pcfm.commands import common, data
from pcfm.configuration import Experiment, read_experiment
from pcfm.experiment import fit
from pde_datasets import store

NETWORK = "network.modes=4 network.width=8 network.depth=2 training.batch=8"
GENERATE = "generate taylor-green --count 2600 --quiet --set points=16 times=8 --out"
TRAIN = f"train heat.h5 --quiet --device cpu --set {NETWORK} training.steps=80 training.evaluate_every=5 training.checkpoint_every=5 --out"
SAMPLE = "sample model --device cpu --count 120 --batch 4 --steps 20 --law mass initial-condition --reference heat.h5 --quiet --out"


def run(command: str) -> int:
    return main(shlex.split(command))


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fields and a model made of them, once."""
    torch.set_num_threads(1)
    folder, home = tmp_path_factory.mktemp("shelf"), Path.cwd()
    os.chdir(folder)
    try:
        assert run("generate heat --count 24 --out heat.h5 --set points=16 times=8 --quiet") == 0
        assert run(f"train heat.h5 --out model --quiet --set {NETWORK} training.steps=20") == 0
    finally:
        os.chdir(home)
    return folder


@pytest.fixture(autouse=True)
def _own_folder(shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("heat.h5", "model"):
        Path(name).symlink_to(shelf / name)


def killed(command: str, sign: Path) -> None:
    """Start a command in a process of its own and kill it, without any warning, as soon as a file is there."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pcfm", *shlex.split(command)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 60
    while not sign.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    _, said = process.communicate()
    assert process.returncode == -signal.SIGKILL, f"finished before it could be killed: {said.decode()}"
    assert sign.exists()


def contents(file: str) -> dict[str, Any]:
    """Every dataset and attribute of a file of fields."""
    found: dict[str, Any] = {}

    def visit(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = item[()]
        found.update({f"{name}@{key}": item.attrs[key] for key in ("channels", "units", "stated", "roles") if key in item.attrs})

    with h5py.File(file, "r") as opened:
        opened.visititems(visit)
        found.update({f"@{key}": value for key, value in opened.attrs.items()})
    return found


def same(one: str, other: str) -> bool:
    a, b = contents(one), contents(other)
    return set(a) == set(b) and all(np.array_equal(a[key], b[key]) for key in a)


def same_weights(one: str, other: str) -> bool:
    a, b = load_file(f"{one}/weights.safetensors"), load_file(f"{other}/weights.safetensors")
    return set(a) == set(b) and all(torch.equal(a[name], b[name]) for name in a)


def log(folder: str) -> list[dict[str, float]]:
    return [json.loads(line) for line in Path(folder, "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("command", [GENERATE, SAMPLE], ids=["generate", "sample"])
def test_fields_of_a_killed_run_are_completed_bit_for_bit(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    part, ledger = Path("a.h5.part"), Path("a.h5.part.json")
    killed(f"{command} a.h5", ledger)
    assert not Path("a.h5").exists()
    assert not Path("a.json").exists()
    written = json.loads(ledger.read_text())["written"]
    assert 0 < written < json.loads(ledger.read_text())["count"]

    assert run(f"{command} a.h5") == 2
    assert "--resume" in capsys.readouterr().err
    assert run(f"{command} a.h5 --resume --seed 7") == 2
    assert "other settings (seed)" in capsys.readouterr().err
    assert run(f"{command} a.h5 --resume --dtype float32") == 2
    assert "other settings (dtype)" in capsys.readouterr().err
    assert run(f"{command.replace('--count ', '--count 1')} a.h5 --resume") == 2
    assert "other settings (count)" in capsys.readouterr().err
    assert json.loads(ledger.read_text())["written"] == written

    assert run(f"{command} a.h5 --resume") == 0
    assert run(f"{command} b.h5") == 0
    assert same("a.h5", "b.h5")
    assert Path("a.h5").read_bytes() == Path("b.h5").read_bytes()
    assert not part.exists()
    assert not ledger.exists()


def test_a_run_killed_before_its_first_samples_are_safe_begins_with_them() -> None:
    killed(f"{GENERATE} a.h5", Path("a.h5.part"))
    assert not Path("a.h5").exists()
    assert run(f"{GENERATE} a.h5 --resume") == 0
    assert run(f"{GENERATE} b.h5") == 0
    assert same("a.h5", "b.h5")


def test_training_that_was_killed_is_completed_bit_for_bit(capsys: pytest.CaptureFixture[str]) -> None:
    killed(f"{TRAIN} a", Path("a/state.pt"))
    assert not Path("a/weights.safetensors").exists()
    assert not Path("a/model.json").exists()
    assert run("sample a --count 1 --out x.h5 --quiet") == 2
    assert "model.json" in capsys.readouterr().err

    assert run(f"{TRAIN} a") == 2
    assert "--resume" in capsys.readouterr().err
    assert run(f"{TRAIN.replace('steps=80', 'steps=160')} a --resume") == 2
    assert "other settings (training.steps)" in capsys.readouterr().err
    assert run(f"{TRAIN.replace('width=8', 'width=16')} a --resume --seed 3") == 2
    assert "other settings (network.width, training.seed)" in capsys.readouterr().err

    assert run(f"{TRAIN} a --resume") == 0
    assert run(f"{TRAIN} b") == 0
    assert same_weights("a", "b")
    entries = [[{k: v for k, v in entry.items() if k != "seconds"} for entry in log(name)] for name in ("a", "b")]
    assert entries[0] == entries[1]
    assert [entry["step"] for entry in log("a")] == list(range(5, 81, 5))
    assert Path("a/config.toml").read_text() == Path("b/config.toml").read_text()


class Stop(Exception):
    """An interruption from within."""


def stop_after(last: int) -> Callable[[int, dict[str, float]], None]:
    def told(step: int, entry: dict[str, float]) -> None:
        if step == last:
            raise Stop

    return told


def trained(folder: str, settings: str, *, stops: tuple[int, ...] = ()) -> dict[str, Tensor]:
    """Weights of a training that is stopped after some steps and resumed each time."""
    experiment: Experiment = read_experiment(None, f"{NETWORK} {settings}".split())
    fields = store.read(Path("heat.h5"))
    Path(folder).mkdir()
    for i, last in enumerate(stops):
        with pytest.raises(Stop):
            fit(fields, experiment, Path(folder), resume=i > 0, progress=stop_after(last))
    fit(fields, experiment, Path(folder), resume=bool(stops))
    return load_file(Path(folder, "weights.safetensors"))


@pytest.mark.parametrize("extra", ["", "condition=initial", "source.kind=white training.validation=0", "training.precision=bfloat16"])
def test_training_resumed_from_any_checkpoint_is_the_training_that_never_stopped(extra: str) -> None:
    settings = f"training.steps=24 training.evaluate_every=6 training.checkpoint_every=6 {extra}"
    whole = trained("whole", settings)
    for stops in ((7,), (13,), (8, 14, 23)):
        name = "-".join(map(str, stops))
        resumed = trained(name, settings, stops=stops)
        assert all(torch.equal(whole[key], resumed[key]) for key in whole)
        assert [entry["step"] for entry in log(name)] == [6, 12, 18, 24]
        assert [entry["loss"] for entry in log(name)] == [entry["loss"] for entry in log("whole")]


def test_a_checkpoint_between_evaluations_keeps_the_logged_loss() -> None:
    settings = "training.steps=12 training.evaluate_every=12 training.checkpoint_every=4"
    whole, resumed = trained("whole", settings), trained("resumed", settings, stops=(6,))
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)
    assert log("resumed")[0]["loss"] == log("whole")[0]["loss"]


def test_two_seeds_differ_and_one_seed_does_not() -> None:
    weights = [trained(name, f"training.steps=6 training.seed={seed}") for name, seed in (("a", 0), ("b", 1), ("c", 0))]
    assert any(not torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    assert all(torch.equal(weights[0][key], weights[2][key]) for key in weights[0])


def test_a_finished_training_is_resumed_in_vain() -> None:
    command = f"train heat.h5 --quiet --out a --set {NETWORK} training.steps=6"
    assert run(command) == 0
    before, entries = load_file("a/weights.safetensors"), log("a")
    assert run(f"{command} --resume") == 0
    assert all(torch.equal(before[key], value) for key, value in load_file("a/weights.safetensors").items())
    assert log("a") == entries


@pytest.mark.parametrize("damage", ["truncated", "other network", "nothing"])
def test_a_damaged_checkpoint_is_refused(damage: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = f"train heat.h5 --quiet --out a --set {NETWORK} training.steps=2"
    assert run(command) == 0
    state = Path("a/state.pt")
    if damage == "truncated":
        state.write_bytes(state.read_bytes()[:20_000])
    elif damage == "other network":
        torch.save({**torch.load(state, weights_only=True), "network": {}}, state)
    else:
        torch.save({}, state)
    assert run(f"{command} --resume") == 2
    said = capsys.readouterr().err
    assert said.startswith("pcfm: ")
    assert said.count("\n") == 1


@pytest.mark.parametrize("damage", ["garbage", "a list", "other data"])
def test_a_checkpoint_of_something_else_is_refused(damage: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = f"--quiet --out a --set {NETWORK} training.steps=4 training.checkpoint_every=2"
    assert run(f"train heat.h5 {command}") == 0
    file = "heat.h5"
    if damage == "garbage":
        Path("a/state.pt").write_bytes(b"no checkpoint at all")
    elif damage == "a list":
        torch.save([1.0], "a/state.pt")
    else:
        file = "other.h5"
        assert run("generate heat --count 24 --seed 1 --out other.h5 --set points=16 times=8 --quiet") == 0
    assert run(f"train {file} {command} --resume") == 2
    said = capsys.readouterr().err
    assert said.startswith("pcfm: ")
    assert "a/state.pt" in said


# --- fields that are interrupted in this process --------------------------------------------------------------------------------------


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int], None]:
    """Run a command and interrupt it after some of its samples."""

    def go(command: str, last: int) -> None:
        def to(self: common.Progress, done: int, note: str = "") -> None:
            if done >= last:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(common.Progress, "to", to)
            assert run(command) == 130

    return go


def test_a_resumed_projection_counts_all_fields(
    interrupted: Callable[[str, int], None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is reported is about the whole file and not about the part that was projected last."""
    monkeypatch.setattr(data, "CHUNK", 5)
    command = "project heat.h5 --law mass:value=1 --json --quiet"
    interrupted(f"{command} --out a.h5", 10)
    assert not Path("a.h5").exists()
    capsys.readouterr()
    documents = []
    for rest in ("--out a.h5 --resume", "--out b.h5"):
        assert run(f"{command} {rest}") == 0
        documents.append(json.loads(capsys.readouterr().out))
    for document in documents:
        del document["seconds"], document["file"]
    assert documents[0] == documents[1]
    assert documents[0]["converged"] == 24
    assert same("a.h5", "b.h5")


@pytest.mark.parametrize("change", ["--law mass:value=2", "--law mass --reference heat.h5", "--law mass:value=1 --tolerance 1e-9"])
def test_a_projection_is_not_resumed_with_other_laws(
    change: str, interrupted: Callable[[str, int], None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(data, "CHUNK", 5)
    interrupted("project heat.h5 --law mass:value=1 --out a.h5 --quiet", 10)
    capsys.readouterr()
    assert run(f"project heat.h5 {change} --out a.h5 --quiet --resume") == 2
    assert "other settings" in capsys.readouterr().err


@pytest.mark.parametrize("change", ["--law mass:value=1", "--steps 3", "--method pcfm", "--batch 3", "--reference heat.h5"])
def test_sampling_is_not_resumed_with_other_settings(
    change: str, interrupted: Callable[[str, int], None], capsys: pytest.CaptureFixture[str]
) -> None:
    base = "sample model --count 6 --batch 2 --out a.h5 --quiet"
    interrupted(f"{base} --law mass --steps 2", 4)
    capsys.readouterr()
    law, steps = "" if "--law" in change else "--law mass", "" if "--steps" in change else "--steps 2"
    base = base.replace("--batch 2", "") if "--batch" in change else base
    assert run(f"{base} {law} {steps} {change} --resume") == 2
    assert "other settings" in capsys.readouterr().err


def test_a_finished_file_is_complete_when_its_command_comes_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As where a whole array of jobs is submitted again."""
    monkeypatch.chdir(tmp_path)
    command = "generate heat --count 3 --set points=16 times=4 --out h.h5 --resume"
    assert main(command.split()) == 0
    made = Path("h.h5").read_bytes()
    assert main(command.split()) == 0
    assert "complete already" in capsys.readouterr().out
    assert Path("h.h5").read_bytes() == made
    assert main(command.replace("--count 3", "--count 4").split()) == 2
    assert "other settings (count)" in capsys.readouterr().err
    assert main(f"{command.replace('h.h5', 'g.h5')} --count 100000000000000000000".replace("--count 3", "").split()) == 2
    assert "--count expects at most" in capsys.readouterr().err
