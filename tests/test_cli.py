"""The command line: what each command does and promises to machines, and what it says to a call or an input that is wrong."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import pcfm
from constraints import Axis, Grid
from pcfm.cli import COMMANDS, gather
from pcfm.commands import common, data
from pcfm.configuration import COUPLINGS, NETWORKS, SCHEDULES, SOURCES
from pcfm.guidance import GUIDANCES
from pcfm.laws import LAWS, Context, standing
from pcfm.likelihood import DIVERGENCES
from pcfm.methods import METHODS, SOLVERS
from pcfm.objective import TIME_LAWS
from pcfm.report import Record
from pcfm.samplers.times import TIMES
from pcfm.shelf import shipped
from pde_datasets import PROBLEMS, Fields, store
from pde_datasets.loaders import FORMATS
from tests.commands import Call, start

SMALL = "network.modes=4 network.width=8 network.depth=2 training.batch=8 training.evaluate_every=10 training.checkpoint_every=10"
CERTIFICATE = {"violation", "violation_before", "stationarity", "distance", "multiplier_norm", "iterations", "converged"}


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files that tests read and never write: fields, models, and damaged ones of both kinds."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("shelf")
    home = Path.cwd()
    os.chdir(folder)
    try:
        assert start("generate heat --count 24 --out heat.h5 --set points=16 times=8 --quiet") == 0
        assert start("generate taylor-green --count 6 --out vortices.h5 --set points=8 times=3 --quiet") == 0
        assert start(f"train heat.h5 --out model --quiet --set {SMALL} training.steps=20") == 0
        assert start(f"train vortices.h5 --out vortex-model --quiet --set {SMALL} training.steps=2") == 0
        assert start(f"train heat.h5 --out conditioned --quiet --set {SMALL} training.steps=2 condition=initial") == 0
        _damaged_fields()
        _damaged_models()
        _other_files()
        Path("knife.py").write_text(KNIFE)
    finally:
        os.chdir(home)
    return folder


@pytest.fixture(autouse=True)
def _own_folder(shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test in a folder of its own, beside a link to the shelf."""
    monkeypatch.chdir(tmp_path)
    for item in shelf.iterdir():
        if item.is_dir() or item.suffix != ".json":
            Path(item.name).symlink_to(item)


KNIFE = """import torch


def edge(x):
    return torch.stack([torch.sin(x[2]), -torch.cos(x[2]), torch.zeros_like(x[2])])[None]


def pendulum(x):
    return x[None]
"""


def _damaged_fields() -> None:
    heat = Path("heat.h5").read_bytes()
    Path("empty.h5").write_bytes(b"")
    Path("truncated.h5").write_bytes(heat[: len(heat) - 3000])
    Path("beheaded.h5").write_bytes(heat[:300])
    Path("letter.h5").write_text("Dear Sir or Madam,\n" * 40)
    with h5py.File("foreign.h5", "w") as file:
        file["temperature"] = np.zeros(3)
    damages: dict[str, Callable[[h5py.File], None]] = {
        "nan": lambda file: file["fields"].__setitem__((5, 0, 2, 3), np.nan),
        "inf": lambda file: file["fields"].__setitem__((5, 0, 2, 3), -np.inf),
        "lawless": lambda file: file.__delitem__("laws"),
        "gridless": lambda file: file.attrs.__setitem__("grid", '[{"name": "x"}]'),
        "garbled": lambda file: file.attrs.__setitem__("grid", "["),
        "numbered": lambda file: file.attrs.__setitem__("grid", 3),
        "roleless": lambda file: file["laws"].attrs.__setitem__("roles", "3"),
        "newer": lambda file: file.attrs.__setitem__("version", 99),
        "versionless": lambda file: file.attrs.__setitem__("version", "x"),
        "misnamed": lambda file: file["fields"].attrs.__setitem__("channels", ["u", "v"]),
    }
    for name, damage in damages.items():
        shutil.copy("heat.h5", f"{name}.h5")
        with h5py.File(f"{name}.h5", "r+") as file:
            damage(file)


def _damaged_models() -> None:
    def copy(name: str) -> Path:
        Path(name).mkdir()
        for file in ("weights.safetensors", "model.json"):
            shutil.copy(Path("model", file), Path(name, file))
        return Path(name)

    def describe(name: str, change: Callable[[dict[str, Any]], Any]) -> None:
        file = copy(name) / "model.json"
        description = json.loads(file.read_text())
        change(description)
        file.write_text(json.dumps(description))

    weights = load_file("model/weights.safetensors")
    first = next(iter(weights))
    for name, value in (("weights-nan", float("nan")), ("weights-huge", 1e30)):
        spoilt = {key: tensor.clone() for key, tensor in weights.items()}
        if name == "weights-nan":
            spoilt[first].view(-1)[0] = value
        else:
            spoilt = {key: torch.full_like(tensor, value) for key, tensor in spoilt.items()}
        save_file(spoilt, copy(name) / "weights.safetensors")
    whole = Path("model/weights.safetensors").read_bytes()
    (copy("weights-truncated") / "weights.safetensors").write_bytes(whole[: len(whole) // 2])
    (copy("weights-empty") / "weights.safetensors").write_bytes(b"")
    (copy("weights-missing") / "weights.safetensors").unlink()
    (copy("description-missing") / "model.json").unlink()
    (copy("description-malformed") / "model.json").write_text("{width: 8")
    (copy("description-binary") / "model.json").write_bytes(b"\xff\xfe\x00\x80")
    (copy("description-list") / "model.json").write_text("[1, 2]")
    (copy("description-short") / "model.json").write_text('{"format": "pcfm-flow", "version": 1}')
    describe("description-wider", lambda d: d["network"].update(width=16))
    describe("description-kind", lambda d: d["network"].update(kind="fourier-operater"))
    describe("description-grid", lambda d: d.update(grid=[{"name": "x"}]))
    describe("description-newer", lambda d: d.update(version=7))
    describe("description-units", lambda d: d["units"].update(scale=[0.0]))
    describe("description-program", lambda d: d.update(network={"target": "os.mkdir", "kwargs": {"path": "pwned"}, "call": "x,t"}))


def _other_files() -> None:
    square = Grid(Axis("x", 8), Axis("y", 8))
    noise = torch.randn(3, 2, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    store.write(Path("walls.h5"), Fields(noise, square, ("u", "v"), roles={"velocity": ("u", "v")}))
    store.write(Path("line.h5"), Fields(noise[:, :1, 0], Grid(Axis("x", 8, periodic=True)), ("u",)))
    store.write(Path("one.h5"), store.read(Path("heat.h5"))[:1])
    Path("malformed.toml").write_text("points = = 3")
    Path("binary.toml").write_bytes(b"\xff\xfe")
    Path("unknown.toml").write_text("poinst = 16")
    Path("typed.toml").write_text("points = 'many'")
    Path("train-malformed.toml").write_text("[network\nwidth = 8")
    Path("train-unknown.toml").write_text("[netwrok]\nwidth = 8")
    Path("train-typed.toml").write_text("[training]\nsteps = 'many'")
    Path("train-flat.toml").write_text("network = 3")
    Path("folder").mkdir()


def snapshot(*folders: Path) -> dict[str, str]:
    """Every file of some folders with a digest of its content."""
    found = {}
    for folder in folders:
        for file in sorted(folder.rglob("*")):
            found[str(file)] = hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else "folder"
    return found


def arrays(file: str | Path) -> dict[str, np.ndarray]:
    """Every dataset of an HDF5 file."""
    found: dict[str, np.ndarray] = {}
    with h5py.File(file, "r") as opened:
        opened.visititems(lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    return found


# --- what the commands do ----------------------------------------------------------------------------------------------------------


def test_generate_writes_one_file_with_all_that_is_known(call: Call) -> None:
    ran = call("generate heat --count 5 --out new/heat.h5 --set points=16 --set times=8 --seed 3")
    assert ran.status == 0
    assert "5 fields of heat" in ran.out
    fields = store.read(Path("new/heat.h5"))
    assert fields.u.shape == (5, 1, 8, 16)
    assert fields.u.dtype == torch.float64
    assert torch.equal(fields.u, PROBLEMS["heat"](points=16, times=8).draw(5, seed=3).u)  # type: ignore[call-arg]
    assert set(fields.parameters) == {"diffusivity", "phase"}
    assert fields.laws == ("mass:value=0",)
    assert fields.attributes["code_version"] == pcfm.__version__
    assert fields.attributes["settings"] == {
        "problem": "heat",
        "seed": 3,
        "dtype": "float64",
        "first": 0,
        "total": 5,
        "points": 16,
        "boundary": "periodic",
        "modes": 1,
        "times": 8,
        "diffusivity": [1.0, 5.0],
        "phase": [0.0, pytest.approx(np.pi)],
    }
    with h5py.File("new/heat.h5") as file:
        assert file["fields"].dims[2].label == "time"
        assert np.allclose(file["fields"].dims[3][0][()], np.arange(16) * 2 * np.pi / 16)
    record = Record.read("new/heat.json")
    assert record.seeds == {"fields": 3}
    assert record.results["count"] == 5
    assert sorted(p.name for p in Path("new").iterdir()) == ["heat.h5", "heat.json"]


def test_generate_takes_settings_from_a_file_and_over_it(call: Call) -> None:
    Path("settings.toml").write_text("points = 12\ntimes = 4\ndiffusivity = [2, 2]\n")
    assert call("generate heat --count 2 --out a.h5 --config settings.toml --set times=6 --dtype float32").status == 0
    fields = store.read(Path("a.h5"))
    assert fields.u.shape == (2, 1, 6, 12)
    assert fields.u.dtype == torch.float32
    assert fields.parameters["diffusivity"].tolist() == [2.0, 2.0]


def test_generated_samples_depend_on_the_seed_and_not_on_the_chunks(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    command = "generate burgers --count 6 --set points=16 times=3 --quiet --out "
    assert call(command + "whole.h5").status == 0
    monkeypatch.setattr(data, "CHUNK", 2)
    assert call(command + "chunks.h5").status == 0
    assert call(command + "other.h5 --seed 1").status == 0
    whole, chunks, other = (arrays(name)["fields"] for name in ("whole.h5", "chunks.h5", "other.h5"))
    assert np.allclose(whole, chunks, rtol=0, atol=1e-13)
    assert np.abs(whole - other).max() > 0.1


def test_inspect_tells_what_is_in_a_file_and_which_laws_hold(call: Call) -> None:
    document = call("inspect vortices.h5 --json").json()
    assert {"format", "channels", "shape", "axes", "parameters", "laws"} <= set(document)
    assert document["format"] == "pcfm"
    assert document["channels"] == ["u", "v"]
    assert document["shape"] == [6, 2, 3, 8, 8]
    assert [(a["name"], a["size"], a["periodic"], a["uniform"]) for a in document["axes"]] == [
        ("time", 3, False, True),
        ("x", 8, True, True),
        ("y", 8, True, True),
    ]
    assert all({"name", "scheme", "violation", "scale", "holds"} <= set(law) for law in document["laws"])
    held = {(law["name"], law["scheme"]): law["holds"] for law in document["laws"]}
    assert held[("divergence (spectral)", "spectral")]
    assert held[("momentum", "quadrature")]
    assert held[("energy", "quadrature")]
    assert {law["origin"] for law in document["laws"]} == {"stated by the data", "guessed"}
    assert len({(law["name"], law["scheme"]) for law in document["laws"]}) == len(document["laws"])
    text = call("inspect vortices.h5").out
    assert re.search(r"divergence \(spectral\) +holds", text)
    assert re.search(r"divergence \(central\) +(holds|does not hold)", text)
    ran = call("inspect vortices.h5 --law momentum:value=1 --json")
    assert ran.status == 1
    (row,) = ran.json()["laws"]
    assert row["violation"] == pytest.approx(1.0)
    assert not row["holds"]


def test_inspect_checks_what_could_hold_between_walls(call: Call) -> None:
    document = call("inspect walls.h5 --json").json()
    assert {row["law"] for row in document["laws"]} == {"divergence-free:scheme=central", "momentum:value=0"}
    assert not any(row["holds"] for row in document["laws"])
    assert "together" not in document


def test_inspect_tells_which_laws_repeat_or_contradict_each_other(call: Call) -> None:
    assert call("inspect vortices.h5 --law divergence-free momentum:value=0 no-slip").status == 2
    joint = call("inspect vortices.h5 --law divergence-free momentum:value=0 momentum:value=1 --json").json()["together"]
    assert joint["clashing"] == ["momentum:value=0", "momentum:value=1"]
    assert not joint["compatible"]
    joint = call("inspect heat.h5 --law initial-condition:file=heat.h5 mass:value=0 --json").json()["together"]
    assert joint["compatible"]
    assert joint["rank"] == 16 + 8 - 1
    assert joint["redundant"] == []
    joint = call("inspect heat.h5 --law mass:value=0 mass:value=0,channels=u --json").json()["together"]
    assert joint["redundant"] == [{"law": "mass:value=0,channels=u", "by": ["mass:value=0"]}]
    told = call("inspect vortices.h5 --law momentum:value=0 momentum:value=1").out
    assert "contradict each other: momentum:value=0, momentum:value=1" in told


def test_holonomic_tells_laws_on_rates_from_laws_on_states(call: Call) -> None:
    edge = call("holonomic knife.py:edge --dimension 3 --json").json()
    assert (edge["holonomic"], edge["static_laws"], edge["growth"]) == (False, 0, [2, 3])
    pendulum = call("holonomic knife.py:pendulum --dimension 2 --centre 1 0 --json").json()
    assert (pendulum["holonomic"], pendulum["static_laws"], pendulum["growth"]) == (True, 1, [1])
    for wrong, word in (
        ("knife.py:fork --dimension 3", "no function 'fork'"),
        ("spoon.py:edge --dimension 3", "FILE.py:FUNCTION"),
        ("knife.py:edge --dimension 3 --points 2", "at least 3"),
        ("knife.py:edge --dimension 3 --centre 1", "expects 3 numbers"),
    ):
        ran = call(f"holonomic {wrong}")
        assert ran.status == 2
        assert word in ran.err


@pytest.mark.parametrize(
    ("source", "laws", "largest"),
    [
        ("heat.h5", "bounds:lower=-0.3,upper=0.4 mass:value=0", 0.4),
        ("heat.h5", "maximum-principle:file=heat.h5 mass:value=0", 1.0),
        ("heat.h5", "positivity:channels=u", 1.0),
        ("heat.h5", "monotone:axis=time,decreasing=true", 1.0),
        ("walls.h5", "divergence-free:scheme=central no-slip bounds:lower=-0.1,upper=0.1", 0.1),
        ("walls.h5", "divergence-free:scheme=staggered no-penetration", 10.0),
        ("walls.h5", "curl-free:scheme=central", 10.0),
        ("walls.h5", "channel-sum:value=0.5", 10.0),
        ("vortices.h5", "divergence-free enstrophy:value=2", 10.0),
        ("vortices.h5", "energy-bound:value=1 energy-decay", 10.0),
    ],
)
def test_project_on_walls_and_inequalities(call: Call, source: str, laws: str, largest: float) -> None:
    document = call(f"project {source} --law {laws} --out a.h5 --json").json()
    assert document["converged"] == document["count"]
    assert all(row["violation_after"] <= row["tolerance"] for row in document["laws"])
    assert store.read("a.h5").u.abs().max() <= largest * (1 + 1e-12)


def test_train_leaves_a_model_that_loads(call: Call, shelf: Path) -> None:
    document = call(f"train heat.h5 --out run --json --licence CC0 --set {SMALL} training.steps=2").json()
    assert document["steps"] == 2
    assert np.isfinite([document["loss"], document["validation"]]).all()
    names = {"config.toml", "log.jsonl", "model.json", "record.json", "state.pt", "weights.safetensors"}
    assert {p.name for p in Path("run").iterdir()} == names
    flow = pcfm.load("run")
    assert sum(p.numel() for p in flow.network.parameters()) == document["parameters"]
    assert (flow.channels, flow.laws, flow.card["licence"]) == (("u",), ("mass:value=0",), "CC0")
    assert flow.card["data"]["problem"] == "heat"
    assert Record.read("run/record.json").seeds == {"training": 0}


def test_train_from_a_configuration_is_train_from_the_one_it_writes(call: Call) -> None:
    Path("small.toml").write_text(
        "[network]\nkind = 'perceptron'\nwidth = 8\ndepth = 2\n[training]\nsteps = 9\nbatch = 4\n[source]\nkind = 'white'\n"
    )
    assert call("train heat.h5 --out a --quiet --device cpu --config small.toml --set training.steps=3 --seed 5").status == 0
    assert call("train heat.h5 --out b --quiet --device cpu --config a/config.toml").status == 0
    assert 'kind = "perceptron"' in Path("a/config.toml").read_text()
    assert "seed = 5" in Path("a/config.toml").read_text()
    assert Path("a/config.toml").read_text() == Path("b/config.toml").read_text()
    assert Path("a/weights.safetensors").read_bytes() == Path("b/weights.safetensors").read_bytes()


def test_train_begins_with_the_weights_of_another_model(call: Call) -> None:
    command = f"train heat.h5 --quiet --init model --set {SMALL} training.steps=1 training.learning_rate=1e-12 training.ema=0 --out "
    assert call(command + "a").status == 0
    before, after = load_file("model/weights.safetensors"), load_file("a/weights.safetensors")
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in before)
    refused(call, command + "b network.width=4".replace("b ", "b --set "), "network configuration")


def test_sample_without_laws(call: Call) -> None:
    document = call("sample model --count 3 --steps 2 --out s.h5 --json").json()
    assert (document["count"], document["converged"], document["laws"]) == (3, 3, [])
    assert document["seconds"] > 0
    fields = store.read(Path("s.h5"))
    assert fields.u.shape == (3, 1, 8, 16)
    assert fields.laws == ()
    assert store.certificate(Path("s.h5")) == {}
    record = Record.read("s.json")
    assert (record.network_calls, record.seeds) == (2, {"noise": 0})


@pytest.mark.parametrize("method", [name for name, method in METHODS.items() if method.lawful])
def test_sample_under_laws_by_each_method(call: Call, method: str) -> None:
    laws = "--law mass --law initial-condition --reference heat.h5"
    ran = call(f"sample model --count 4 --steps 3 {laws} --method {method} --out s.h5 --json")
    assert ran.status == 0
    document = ran.json()
    assert {"count", "converged", "seconds", "laws"} <= set(document)
    assert document["count"] == document["converged"] == 4
    assert [law["name"] for law in document["laws"]] == ["mass", "initial condition"]
    for law in document["laws"]:
        assert {"name", "violation_before", "violation_after", "tolerance"} <= set(law)
        assert law["violation_after"] <= law["tolerance"] < 1e-11
    met = max(law["violation_before"] for law in document["laws"]) <= 1e-11
    assert met == (method == "d-flow"), "which alone searches noise until the laws are met, before its last projection"
    sampled, reference = arrays("s.h5"), arrays("heat.h5")
    assert np.abs(sampled["fields"].sum(3) * 2 * np.pi / 16).max() < 1e-12
    assert np.abs(sampled["fields"][:, :, 0] - reference["fields"][:4, :, 0]).max() < 1e-12
    certificate = store.certificate(Path("s.h5"))
    assert set(certificate) == CERTIFICATE
    assert certificate["violation"].shape == (4, 2)
    assert certificate["violation"].amax(0).tolist() == [law["violation_after"] for law in document["laws"]]
    assert certificate["converged"].all()


def test_sample_draws_the_same_whatever_the_batch_and_another_for_another_seed(call: Call) -> None:
    for name, extra in {"a": "--batch 2", "b": "--batch 5", "c": "--seed 1"}.items():
        assert call(f"sample model --count 5 --steps 2 --law mass --quiet --out {name}.h5 {extra}").status == 0
    a, b, c = (arrays(f"{name}.h5")["fields"] for name in "abc")
    assert np.allclose(a, b, rtol=0, atol=1e-5)
    assert np.abs(a - c).max() > 0.1


@pytest.mark.parametrize("solver", SOLVERS)
def test_sample_by_each_solver(call: Call, solver: str) -> None:
    assert call(f"sample model --count 2 --steps 2 --solver {solver} --out s.h5 --dtype float32 --quiet").status == 0
    assert store.read(Path("s.h5")).u.dtype == torch.float32


def test_sample_in_single_precision_is_lawful_to_single_precision(call: Call) -> None:
    ran = call("sample vortex-model --count 2 --steps 2 --law divergence-free energy:value=2 --dtype float32 --out s.h5 --json")
    assert ran.status == 0
    assert all(1e-9 < law["tolerance"] < 1e-3 for law in ran.json()["laws"])


def test_sample_with_initial_data_for_the_network(call: Call) -> None:
    common_part = "sample conditioned --count 3 --steps 2 --quiet"
    assert call(f"{common_part} --condition heat.h5 --out a.h5").status == 0
    fields = store.read(Path("heat.h5"))
    first = Fields(fields.u[:, :, 0], fields.grid.space, ("u",))
    store.write(Path("first.h5"), first)
    assert call(f"{common_part} --condition first.h5 --out b.h5").status == 0
    assert np.array_equal(arrays("a.h5")["fields"], arrays("b.h5")["fields"])


def test_a_shipped_model_samples_by_its_name(call: Call) -> None:
    assert call("sample kolmogorov --count 1 --steps 1 --law divergence-free momentum --out s.h5 --quiet").status == 0
    assert store.read(Path("s.h5")).laws == ("divergence-free:scheme=spectral", "momentum:value=0")


def test_project_finds_lawful_fields_and_certifies_them(call: Call) -> None:
    ran = call("project vortices.h5 --law momentum:value=1 energy:value=3 --law divergence-free --out p.h5 --json")
    assert ran.status == 0
    document = ran.json()
    assert {"count", "converged", "seconds", "laws"} <= set(document)
    assert document["count"] == document["converged"] == 6
    u, before = arrays("p.h5")["fields"], arrays("vortices.h5")["fields"]
    cell = (2 * np.pi / 8) ** 2
    assert np.abs(u.sum((3, 4)) * cell - 1).max() < 1e-11
    assert np.abs((u**2).sum((1, 3, 4)) * cell / 2 - 3).max() < 1e-11
    k = np.fft.fftfreq(8, 1 / 8)
    k[4] = 0
    hat = np.fft.fft2(u)
    assert np.abs(k[:, None] * hat[:, 0] + k[None, :] * hat[:, 1]).max() < 1e-11
    moved = np.sqrt(((u - before) ** 2).sum((0, 2, 3, 4)) / (before**2).sum((0, 2, 3, 4)))
    assert document["moved"] == {"u": pytest.approx(moved[0], rel=1e-12), "v": pytest.approx(moved[1], rel=1e-12)}
    certificate = store.certificate(Path("p.h5"))
    assert set(certificate) == CERTIFICATE
    for i, law in enumerate(document["laws"]):
        assert law["violation_after"] == certificate["violation"][:, i].max() <= law["tolerance"]
        assert law["violation_before"] == certificate["violation_before"][:, i].max()
    assert np.allclose(certificate["distance"], np.sqrt(((u - before) ** 2).mean((1, 2, 3, 4))), rtol=1e-12)
    fields = store.read(Path("p.h5"))
    assert fields.attributes["projected_on"] == ["momentum:value=1", "energy:value=3", "divergence-free"]
    assert torch.equal(fields.parameters["viscosity"], store.read(Path("vortices.h5")).parameters["viscosity"])


def test_project_reports_the_tolerance_it_was_given(call: Call) -> None:
    laws = [
        call(f"project vortices.h5 --law energy:value=3 --out {i}.h5 --json {extra}").json()["laws"][0]
        for i, extra in enumerate(("", "--tolerance 1e-6"))
    ]
    assert laws[1]["tolerance"] == pytest.approx(1e6 * laws[0]["tolerance"])


def test_project_gives_each_field_the_values_of_its_reference(call: Call) -> None:
    assert call("generate taylor-green --count 3 --seed 9 --out other.h5 --set points=8 times=3 --quiet").status == 0
    assert call("project vortices.h5 --law energy --reference other.h5 --out p.h5 --quiet").status == 0
    energy, wanted = ((arrays(name)["fields"] ** 2).sum((1, 3, 4)) for name in ("p.h5", "other.h5"))
    assert np.allclose(energy, wanted[[0, 1, 2, 0, 1, 2]], rtol=1e-12)


def test_what_is_projected_states_only_laws_that_it_obeys(call: Call) -> None:
    """Values from a reference are not in the file, and laws of the input may be broken by the projection on others."""
    assert call("project vortices.h5 --law energy momentum:value=1 --reference vortices.h5 --out p.h5 --quiet").status == 0
    assert store.read(Path("p.h5")).laws == ("momentum:value=1",)
    assert call("project heat.h5 --law initial-condition:file=heat.h5 --out q.h5 --quiet").status == 0
    assert store.read(Path("q.h5")).laws == ()
    for name in ("p.h5", "q.h5"):
        document = call(f"inspect {name} --json").json()
        assert all(law["holds"] for law in document["laws"] if law["name"] == "momentum")


def test_standing_laws_keep_what_their_source_states() -> None:
    grid = Grid(Axis("x", 8, periodic=True), Axis("y", 8, periodic=True))
    context = Context(grid, ("u", "v"), {"velocity": ("u", "v")}, ("momentum:value=0",))
    assert standing(("momentum", "divergence-free", "momentum"), context) == ("momentum:value=0", "divergence-free")
    referenced = Context(grid, ("u", "v"), {"velocity": ("u", "v")}, ("momentum:value=0",), reference=torch.zeros(1, 2, 8, 8))
    assert standing(("momentum", "energy:value=1", "divergence-free"), referenced) == ("energy:value=1", "divergence-free")


def test_evaluate_sets_each_metric_beside_the_reference(call: Call) -> None:
    assert call("sample model --count 6 --steps 2 --out s.h5 --quiet").status == 0
    document = call("evaluate s.h5 --reference heat.h5 --law mass:value=0 --json --out e.json").json()
    metrics = {row["metric"]: row for row in document["metrics"]}
    assert {"mean error (MMSE)", "spread error (SMSE)", "energy distance", "spectrum error", "violation: mass"} <= set(metrics)
    assert all({"metric", "value", "reference", "unit"} <= set(row) for row in metrics.values())
    assert metrics["violation: mass"]["value"] > 1e-3
    assert metrics["violation: mass"]["reference"] < 1e-13
    assert Record.read("e.json").results["metrics"] == document["metrics"]
    text = call("evaluate s.h5 --reference heat.h5").out
    assert "reference's own" in text
    own = {row["metric"]: row for row in call("evaluate heat.h5 --reference heat.h5 --paired --json").json()["metrics"]}
    assert own["relative error, mean"]["value"] == 0
    assert own["mean error (MMSE)"]["value"] == 0 < own["mean error (MMSE)"]["reference"]


def test_report_makes_a_page_of_stored_runs(call: Call) -> None:
    Path("runs").mkdir()
    for command in (
        "generate heat --count 3 --out runs/heat.h5 --set points=16 times=8",
        f"train heat.h5 --out run --set {SMALL} training.steps=1",
    ):
        assert call(f"{command} --quiet").status == 0
    document = call("report runs run --json").json()
    page = Path(document["report"]).read_text()
    assert document["report"] == "runs/report.html"
    assert "record.json" in page
    assert "heat.json" in page
    assert list(Path("runs/figures").rglob("fields.png"))
    refused(call, "report runs run", "report.html", "--overwrite")
    assert call("report run --out other.html --quiet").status == 0


TABLES: dict[str, list[str]] = {
    "problems": list(PROBLEMS),
    "laws": list(LAWS),
    "methods": list(METHODS),
    "solvers": list(SOLVERS),
    "spacings": list(TIMES),
    "schedules": list(SCHEDULES),
    "couplings": list(COUPLINGS),
    "times": list(TIME_LAWS),
    "networks": list(NETWORKS),
    "sources": list(SOURCES),
    "guidance": list(GUIDANCES),
    "divergences": list(DIVERGENCES),
    "formats": list(FORMATS),
    "models": list(shipped()),
}


@pytest.mark.parametrize("table", TABLES)
def test_list_has_one_line_an_entry(call: Call, table: str) -> None:
    lines = call(f"list {table}").out.splitlines()
    assert [line.split()[0] for line in lines] == TABLES[table]
    rows = call(f"list {table} --json").json()[table]
    assert [row["name"] for row in rows] == TABLES[table]
    assert all(row["summary"] for row in rows)


def test_list_of_suites(call: Call) -> None:
    rows = call("list suites --json").json()["suites"]
    assert [line.split()[0] for line in call("list suites").out.splitlines()] == [row["name"] for row in rows]
    assert rows


def test_doctor_tells_versions_device_and_clashes(call: Call) -> None:
    document = call("doctor --json").json()
    assert document["libraries"]["torch"] == torch.__version__
    assert document["code"]["version"] == pcfm.__version__
    assert document["writable"]
    assert {"device", "threads", "processors", "clashes"} <= set(document)
    assert call("doctor").status == (1 if document["clashes"] else 0)


# --- what all commands promise ------------------------------------------------------------------------------------------------------

EVERY = {
    "generate": "generate heat --count 2 --out a.h5 --set points=16 times=8",
    "inspect": "inspect heat.h5",
    "train": f"train heat.h5 --out a --set {SMALL} training.steps=1",
    "sample": "sample model --count 2 --steps 2 --law mass --out a.h5",
    "project": "project heat.h5 --law mass:value=1 --out a.h5",
    "evaluate": "evaluate heat.h5 --reference heat.h5",
    "report": "report model --out a.html",
    "holonomic": "holonomic knife.py:edge --dimension 3",
    "convert": "convert heat.h5 --out a.h5 --thin x=2",
    "list": "list laws",
    "doctor": "doctor",
}


def test_evaluate_tells_steps_from_the_velocity(call: Call) -> None:
    document = call("evaluate heat.h5 --reference heat.h5 --errors --model model model --json").json()
    rows = {(row["part"], row["setting"]): row for row in document["errors"]}
    assert rows["steps", "euler, 50 steps"]["value"] < rows["steps", "euler, 10 steps"]["value"]
    assert rows["velocity", "ensemble of 2"]["value"] == 0  # a model and itself
    text = call("evaluate heat.h5 --reference heat.h5 --errors --model model").out
    assert "held-out data" in text
    assert "--model RUN" in call("evaluate heat.h5 --reference heat.h5 --errors").err


@pytest.mark.parametrize("command", EVERY.values(), ids=EVERY)
def test_json_is_one_document_alone_on_standard_output_and_quiet_says_nothing(call: Call, command: str) -> None:
    loud = call(f"{command} --json")
    assert isinstance(loud.json(), dict)
    assert loud.err
    quiet = call(f"{command} --json --quiet --overwrite")
    assert isinstance(quiet.json(), dict)
    assert quiet.err == ""
    silent = call(f"{command} --quiet --overwrite")
    assert (silent.out, silent.err) == ("", "")


@pytest.mark.parametrize("command", [c for c in EVERY.values() if "--out" in c], ids=[n for n, c in EVERY.items() if "--out" in c])
def test_nothing_is_overwritten_unasked(call: Call, command: str) -> None:
    assert call(f"{command} --quiet").status == 0
    refused(call, command, "--overwrite")
    assert call(f"{command} --quiet --overwrite").status == 0


def test_evaluate_overwrites_its_result_only_when_asked(call: Call) -> None:
    Path("e.json").write_text("mine")
    refused(call, "evaluate heat.h5 --reference heat.h5 --out e.json", "e.json", "--overwrite")
    assert call("evaluate heat.h5 --reference heat.h5 --out e.json --overwrite --quiet").status == 0


def test_every_command_is_covered_here() -> None:
    assert set(COMMANDS) - set(EVERY) <= {"demo", "bench", "likelihood"}, "those have test files of their own"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(call: Call, command: str) -> None:
    ran = call(f"{command} --help")
    assert ran.status == 0
    for flag in ("--seed", "--device", "--dtype", "--json", "--quiet", "--overwrite"):
        assert flag in ran.out


def test_list_flags_gather_their_values_wherever_they_stand() -> None:
    assert gather(["--law", "mass", "energy:value=1", "a.h5"]) == ["a.h5", "--law", "mass", "energy:value=1"]
    assert gather(["--law=mass", "--json", "--law", "initial-condition:file=d/a.h5", "d/b"]) == [
        *("--json", "d/b", "--law", "mass", "initial-condition:file=d/a.h5")
    ]
    assert gather(["--set", "a=1", "heat", "--set", "b=2"]) == ["heat", "--set", "a=1", "b=2"]
    with pytest.raises(ValueError, match="--law expects a value"):
        gather(["--law", "--json"])


CONTRADICTIONS = {
    "project": "project vortices.h5 --law momentum:value=0 momentum:value=1",
    "project-float32": "project vortices.h5 --law momentum:value=0 momentum:value=1 --dtype float32",
    "project-curved": "project vortices.h5 --law momentum:value=9 energy:value=0.01",
    "sample": "sample vortex-model --count 3 --steps 2 --law momentum:value=0 --law momentum:value=1",
}


@pytest.mark.parametrize("command", CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_contradictory_laws_end_with_status_1_and_are_counted(call: Call, command: str) -> None:
    ran = call(f"{command} --out a.h5 --json")
    assert ran.status == 1
    document = ran.json()
    assert document["converged"] == 0 < document["count"]
    assert any(law["violation_after"] > law["tolerance"] for law in document["laws"])
    assert not store.certificate(Path("a.h5"))["converged"].any()
    assert Record.read("a.json").results["converged"] == 0


def test_laws_that_hold_for_some_fields_only_are_counted_field_by_field(call: Call) -> None:
    """Half of the references have an energy that their momentum does not allow."""
    grid = Grid(Axis("x", 8, periodic=True), Axis("y", 8, periodic=True))
    u = torch.randn(4, 2, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    reference = torch.cat([0.1 * u[:2], u[2:]])
    for name, tensor in (("u.h5", u), ("r.h5", reference)):
        store.write(Path(name), Fields(tensor, grid, ("u", "v"), roles={"velocity": ("u", "v")}))
    ran = call("project u.h5 --law energy momentum:value=0.5 --reference r.h5 --out p.h5 --json")
    assert ran.status == 1
    assert ran.json()["converged"] == 2
    assert store.certificate(Path("p.h5"))["converged"].tolist() == [False, False, True, True]


# --- the process -------------------------------------------------------------------------------------------------------------------


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *(arguments or ("-c", code))], capture_output=True, text=True, timeout=120, check=False)


def test_help_answers_at_once_and_without_torch() -> None:
    """Half a processor second is promised; the bound leaves room for a busy machine."""
    code = """
import sys, time
from pcfm.cli import main
try:
    main(["--help"])
except SystemExit as stopped:
    assert stopped.code == 0
heavy = {"torch", "numpy", "scipy", "h5py", "matplotlib", "safetensors"} & set(sys.modules)
assert not heavy, heavy
assert time.process_time() < 1.0, time.process_time()
"""
    ran = python(code)
    assert ran.returncode == 0, ran.stderr
    assert all(command in ran.stdout for command in COMMANDS)


def test_importing_is_cheap_and_names_come_when_asked_for() -> None:
    code = """
import sys, pcfm
assert not {"torch", "numpy", "h5py", "tyro"} & set(sys.modules)
import constraints
assert not {"h5py", "scipy", "matplotlib", "tyro", "safetensors", "torchdiffeq", "pcfm.configuration"} & set(sys.modules), sys.modules
for name in pcfm.__all__:
    assert getattr(pcfm, name) is not None
from pcfm import load, sample, wrap, Flow, Samples
assert "matplotlib" not in sys.modules
try:
    pcfm.lode
except AttributeError as error:
    assert "lode" in str(error)
else:
    raise AssertionError
"""
    ran = python(code)
    assert ran.returncode == 0, ran.stderr


def test_the_process_has_the_status_of_the_command() -> None:
    listed = python("", "-m", "pcfm", "list", "laws", "--json")
    assert (listed.returncode, listed.stderr.count("\n")) == (0, len(LAWS))
    assert [row["name"] for row in json.loads(listed.stdout)["laws"]] == list(LAWS)
    wrong = python("", "-m", "pcfm", "lits")
    assert (wrong.returncode, wrong.stdout, wrong.stderr) == (2, "", "pcfm: unknown command 'lits'. Did you mean 'list'?\n")
    unmet = python("", *shlex.split("-m pcfm project vortices.h5 --law momentum:value=0 momentum:value=1 --out a.h5 --quiet"))
    assert (unmet.returncode, unmet.stdout, unmet.stderr) == (1, "", "")


def test_a_reader_who_leaves_early_is_no_error_message() -> None:
    command = f"{shlex.quote(sys.executable)} -m pcfm list problems | true"
    ran = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=120, check=False)
    assert ran.stderr == ""


# --- wrong calls and wrong input ---------------------------------------------------------------------------------------------------


def refused(call: Call, command: str, *words: str) -> None:
    """Status 2, one line that says what is wrong, and nothing written."""
    here = Path.cwd()
    before = snapshot(here, *(p.resolve() for p in here.iterdir() if p.is_symlink() and p.is_dir()))
    ran = call(command)
    assert ran.status == 2, ran
    assert re.fullmatch(r"pcfm: [^\n]+\n", ran.err), ran.err
    assert "Traceback" not in ran.err
    for word in words:
        assert word in ran.err, ran.err
    assert snapshot(here, *(p.resolve() for p in here.iterdir() if p.is_symlink() and p.is_dir())) == before


SAMPLE = "sample model --count 2 --steps 2 --out new/a.h5"
VORTEX = "sample vortex-model --count 2 --steps 2 --out new/a.h5"
PROJECT = "project vortices.h5 --out a.h5"
HEAT = "generate heat --count 2 --out new/a.h5"
TRAIN = f"train heat.h5 --out new --set {SMALL} training.steps=2"

INPUTS: dict[str, tuple[str, ...]] = {
    "missing": ("inspect none.h5", "none.h5", "there is none", "Check the path"),
    "empty": ("inspect empty.h5", "empty.h5", "empty"),
    "truncated": ("inspect truncated.h5", "truncated.h5", "truncated"),
    "beheaded": ("inspect beheaded.h5", "beheaded.h5", "truncated"),
    "a text": ("inspect letter.h5", "letter.h5", "not recognised, it is a text file", "pcfm list formats"),
    "a foreign layout": ("inspect foreign.h5", "foreign.h5", "an HDF5 file laid out otherwise"),
    "an empty folder": ("inspect folder", "folder", "is empty"),
    "NaN": ("inspect nan.h5", "nan.h5", "1 NaN among"),
    "Inf": ("inspect inf.h5", "inf.h5", "1 infinite among"),
    "no laws group": ("inspect lawless.h5", "lawless.h5", "again"),
    "half a grid": ("inspect gridless.h5", "gridless.h5", "again"),
    "a garbled grid": ("inspect garbled.h5", "garbled.h5", "again"),
    "a number for a grid": ("inspect numbered.h5", "numbered.h5", "again"),
    "no roles": ("inspect roleless.h5", "roleless.h5", "again"),
    "a newer layout": ("inspect newer.h5", "newer.h5", "version 99", "Upgrade"),
    "no version": ("inspect versionless.h5", "versionless.h5", "version x"),
    "channels that do not fit": ("inspect misnamed.h5", "(24, 1, 8, 16)"),
    "train on NaN": ("train nan.h5 --out new", "nan.h5", "1 NaN"),
    "train on nothing": ("train none.h5 --out new", "none.h5"),
    "train on one field": ("train one.h5 --out new", "at least one field beside", "got 1"),
    "project NaN": ("project nan.h5 --law mass --out a.h5", "nan.h5", "1 NaN"),
    "project a truncated file": ("project truncated.h5 --law mass --out a.h5", "truncated.h5"),
    "evaluate NaN": ("evaluate nan.h5 --reference heat.h5", "nan.h5", "1 NaN"),
    "evaluate against nothing": ("evaluate heat.h5 --reference none.h5", "none.h5"),
    "evaluate against another shape": ("evaluate heat.h5 --reference vortices.h5", "2 channels on (3, 8, 8)", "1 on (8, 16)"),
    "pair unequal numbers": ("evaluate heat.h5 --reference one.h5 --paired --out e.json", "got 24 and 1"),
    "unknown format": ("inspect heat.h5 --format matlb", "matlb", "Did you mean 'matlab'?"),
    "another format": ("inspect heat.h5 --format matlab", "heat.h5", "matlab"),
    "reference of another shape": (
        f"{SAMPLE} --law mass --reference vortices.h5",
        "vortices.h5",
        "1 channels on (8, 16)",
        "2 on (3, 8, 8)",
    ),
    "missing reference": (f"{SAMPLE} --law mass --reference none.h5", "none.h5"),
    "reference with NaN": (f"{SAMPLE} --law mass --reference nan.h5", "nan.h5", "1 NaN"),
    "project with a reference of another shape": (f"{PROJECT} --law energy --reference heat.h5", "heat.h5", "(3, 8, 8)", "(8, 16)"),
    "condition of another shape": ("sample conditioned --count 1 --steps 1 --out a.h5 --condition vortices.h5", "vortices.h5", "(16,)"),
    "condition on another line": ("sample conditioned --count 1 --steps 1 --out a.h5 --condition line.h5", "line.h5", "(8,)"),
    "condition left out": ("sample conditioned --count 1 --steps 1 --out a.h5", "--condition FILE"),
    "condition for a model without": (f"{SAMPLE} --condition heat.h5", "--condition", "Leave it out"),
    "report of nothing": ("report none", "none", "missing"),
    "report of a file": ("report heat.h5", "heat.h5", "a file"),
    "report of an empty folder": ("report folder --out r.html", "folder", "neither"),
    "report of no folder": ("report", "at least one"),
}

MODELS: dict[str, tuple[str, ...]] = {
    "weights-nan": ("weights.safetensors", "NaN"),
    "weights-truncated": ("weights.safetensors", "not a whole safetensors file"),
    "weights-empty": ("weights.safetensors", "not a whole safetensors file"),
    "weights-missing": ("weights.safetensors", "there are none"),
    "weights-huge": ("NaN or Inf", "all 2 samples"),
    "description-missing": ("model.json", "pcfm train"),
    "description-malformed": ("model.json", "not a model description"),
    "description-binary": ("model.json", "not a model description"),
    "description-list": ("model.json", "pcfm-flow"),
    "description-short": ("model.json", "network, source, path"),
    "description-wider": ("weights.safetensors", "does not fit"),
    "description-grid": ("axes", "points"),
    "description-newer": ("version 7", "Upgrade"),
    "description-units": ("positive scales",),
    "heat.h5": ("heat.h5", "neither a run folder nor a shipped model"),
    "kolmogorof": ("kolmogorof", "Did you mean 'kolmogorov'?"),
}

NAMES: dict[str, tuple[str, ...]] = {
    "command": ("generat heat", "'generat'", "Did you mean 'generate'?"),
    "command far from any": ("xyzzy", "Known: bench, convert, demo, doctor"),
    "problem": ("generate haet --count 2 --out a.h5", "'haet'", "Did you mean 'heat'?"),
    "setting of a problem": (f"{HEAT} --set point=3", "'point'", "Did you mean 'points'?"),
    "law": (f"{SAMPLE} --law mas", "'mas'", "Did you mean 'mass'?"),
    "law key": (f"{SAMPLE} --law mass:valeu=0", "'valeu'", "Did you mean 'value'?"),
    "law of inspect": ("inspect heat.h5 --law mas", "Did you mean 'mass'?"),
    "law of evaluate": ("evaluate heat.h5 --reference heat.h5 --law mas", "Did you mean 'mass'?"),
    "channel of a law": (f"{VORTEX} --law momentum:channels=w+v,value=0", "'w'", "Known: u, v"),
    "scheme": (f"{VORTEX} --law divergence-free:scheme=spectrl", "'spectrl'", "Did you mean 'spectral'?"),
    "method": (f"{SAMPLE} --law mass --method pcmf", "'pcmf'", "Did you mean 'pcfm'?"),
    "network": (f"{TRAIN} network.kind=fourier-operater", "Did you mean 'fourier-operator'?"),
    "network key": (f"{TRAIN} network.widht=3", "'widht'", "Did you mean 'width'?"),
    "table": (f"{TRAIN} netwrok.width=3", "'netwrok'", "Did you mean 'network'?"),
    "training key": (f"{TRAIN} training.stepz=3", "'stepz'", "Did you mean 'steps'?"),
    "schedule": (f"{TRAIN} path.schedule=linaer", "'linaer'", "Did you mean 'linear'?"),
    "path key": (f"{TRAIN} path.schedul=linear", "'schedul'", "Did you mean 'schedule'?"),
    "source": (f"{TRAIN} source.kind=smoot", "'smoot'", "Did you mean 'smooth'?"),
    "source key": (f"{TRAIN} source.lenght=1", "'lenght'", "Did you mean 'length'?"),
    "condition": (f"{TRAIN} condition=inital", "'inital'", "Did you mean 'initial'?"),
}

LAWFUL: dict[str, tuple[str, ...]] = {
    "initial data without time": ("project walls.h5 --law initial-condition:file=walls.h5 --out a.h5", "time axis", "(x, y)"),
    "divergence on a line": (f"{SAMPLE} --law divergence-free", "at least two space axes"),
    "divergence between walls": ("project walls.h5 --law divergence-free --out a.h5", "periodic", "'x' is bounded"),
    "divergence of one component": (f"{VORTEX} --law divergence-free:channels=u", "2 channels", "got u"),
    "mass of a velocity": (f"{VORTEX} --law mass", "density", "Say channels=u"),
    "energy without a value": ("project walls.h5 --law energy --out a.h5", "energy:value=NUMBER", "--reference FILE"),
    "momentum without a value": ("project walls.h5 --law momentum --out a.h5", "momentum:value=NUMBER"),
    "mass without a value": ("project line.h5 --law mass --out a.h5", "mass:value=NUMBER"),
    "initial data without data": (f"{SAMPLE} --law initial-condition", "initial-condition:file=FILE", "--reference"),
    "initial data of a missing file": (f"{SAMPLE} --law initial-condition:file=none.h5", "none.h5"),
    "initial data of another shape": (f"{SAMPLE} --law initial-condition:file=vortices.h5", "vortices.h5", "(16,)", "(3, 8, 8)"),
    "initial data with NaN": (f"{SAMPLE} --law initial-condition:file=nan.h5", "1 NaN"),
    "a value that is no number": (f"{SAMPLE} --law mass:value=much", "'value'", "'much'"),
    "a value that is not finite": (f"{SAMPLE} --law mass:value=nan", "finite"),
    "a negative energy": (f"{VORTEX} --law energy:value=-1", "not negative", "-1"),
    "a flag that is neither": (f"{SAMPLE} --law mass:mean=maybe", "true or false", "maybe"),
    "a key without a value": (f"{SAMPLE} --law mass:value", "key=value", "'value'"),
    "a key given twice": (f"{SAMPLE} --law mass:value=0,value=1", "'value' twice"),
    "no law after the flag": (f"{SAMPLE} --law", "--law expects a value"),
    "no law after the flag, amid others": (f"{SAMPLE} --law --json", "--law expects a value"),
    "an empty law": (f"{SAMPLE} --law ''", "unknown law ''"),
    "a lawful method without laws": (f"{SAMPLE} --method pcfm", "expects a law"),
    "a lawless method with laws": (f"{SAMPLE} --method unconstrained --law mass", "takes no law"),
}

NUMBERS: dict[str, tuple[str, ...]] = {
    "count 0": ("generate heat --count 0 --out a.h5", "--count", "at least 1", "got 0"),
    "count -3": ("generate heat --count -3 --out a.h5", "got -3"),
    "sample count 0": ("sample model --count 0 --out a.h5", "--count", "0"),
    "batch 0": (f"{SAMPLE} --batch 0", "--batch", "0"),
    "steps 0": ("sample model --count 2 --steps 0 --out a.h5", "at least one step", "got 0"),
    "tolerance 0": (f"{PROJECT} --law energy:value=1 --tolerance 0", "--tolerance", "0"),
    "tolerance nan": (f"{PROJECT} --law energy:value=1 --tolerance nan", "--tolerance", "nan"),
    "tolerance negative": (f"{PROJECT} --law energy:value=1 --tolerance -1", "--tolerance", "-1"),
    "no cuda": (f"{SAMPLE} --device cuda:99", "cuda:99", "--device cpu"),
    "no cuda to train on": (f"{TRAIN} --device cuda:99", "cuda:99", "--device cpu"),
    "unknown device": (f"{SAMPLE} --device tpu", "auto, cpu, cuda", "tpu"),
    "unsupported device": (f"{SAMPLE} --device mps", "auto, cpu, cuda", "mps"),
    "an output that is a folder": ("generate heat --count 1 --out folder --overwrite", "folder"),
    "a page that is a folder": ("report model --out folder --overwrite", "folder"),
    "a run that is a file": ("train heat.h5 --out heat.h5", "heat.h5", "run folder"),
    "an output below a file": ("generate heat --count 1 --out heat.h5/x/a.h5", "heat.h5"),
    "points 0": (f"{HEAT} --set points=0", "'points'", "positive", "got 0"),
    "points a word": (f"{HEAT} --set points=many", "'points'", "'many'"),
    "points a fraction": (f"{HEAT} --set points=16.5", "'points'", "16.5"),
    "points true": (f"{HEAT} --set points=true", "'points'", "True"),
    "a number for a range": (f"{HEAT} --set diffusivity=3", "'diffusivity'", "diffusivity=[1,5]", "got 3"),
    "a range of NaN": (f"{HEAT} --set diffusivity=[nan,1]", "'diffusivity'", "nan"),
    "a range of words": (f"{HEAT} --set 'diffusivity=[1,\"b\"]'", "'diffusivity'", "b"),
    "NaN for a number": ("generate burgers --count 1 --out a.h5 --set viscosity=nan", "'viscosity'", "nan"),
    "no steps": ("generate burgers --count 1 --out a.h5 --set steps=0", "'steps'", "0"),
    "settings that blow up": (
        "generate kdv --count 1 --out a.h5 --set nonlinearity=1e200 points=16 times=3",
        "no time step is short enough",
        "not finite",
    ),
    "more than fits": (f"{HEAT} --set points=1000000000000000", "of disk"),
    "--set without =": (f"{HEAT} --set points", "key=value", "'points'"),
    "--set without anything": (f"{HEAT} --set", "--set expects a value"),
    "--set of train without =": ("train heat.h5 --out new --set training.steps", "key=value", "'training.steps'"),
    "a key that is none": (f"{HEAT} --set =3", "no setting ''"),
    "missing TOML": (f"{HEAT} --config none.toml", "none.toml", "No such file"),
    "malformed TOML": (f"{HEAT} --config malformed.toml", "malformed.toml", "not TOML", "line 1"),
    "binary TOML": (f"{HEAT} --config binary.toml", "binary.toml", "not TOML"),
    "TOML with an unknown key": (f"{HEAT} --config unknown.toml", "'poinst'", "Did you mean 'points'?"),
    "TOML with a wrong type": (f"{HEAT} --config typed.toml", "'points'", "'many'"),
    "train with missing TOML": ("train heat.h5 --out new --config none.toml", "none.toml", "No such file"),
    "train with malformed TOML": ("train heat.h5 --out new --config train-malformed.toml", "train-malformed.toml", "not TOML"),
    "train with an unknown table": ("train heat.h5 --out new --config train-unknown.toml", "'netwrok'", "Did you mean 'network'?"),
    "train with a wrong type": ("train heat.h5 --out new --config train-typed.toml", "training.steps", "'many'"),
    "training steps 0": (f"{TRAIN} training.steps=0", "at least one step", "0"),
    "training batch true": (f"{TRAIN} training.batch=true", "training.batch", "True"),
    "learning rate negative": (f"{TRAIN} training.learning_rate=-1", "learning", "-1"),
    "precision": (f"{TRAIN} training.precision=float16", "bfloat16", "float16"),
    "validation 1": (f"{TRAIN} training.validation=1.0", "validation", "1.0"),
    "source length 0": (f"{TRAIN} source.length=0", "positive", "0"),
    "condition without time": ("train line.h5 --out new --set condition=initial", "time axis", "(x)"),
    "resume without a run": (f"{TRAIN} --resume", "state.pt", "Start without --resume"),
    "init with nothing": (f"{TRAIN} --init none", "none", "neither a run folder nor a shipped model"),
}


@pytest.mark.parametrize("case", INPUTS.values(), ids=INPUTS)
def test_a_wrong_input_is_named_in_one_line(call: Call, case: tuple[str, ...]) -> None:
    refused(call, *case)


@pytest.mark.parametrize("model", MODELS)
def test_a_damaged_model_is_named_in_one_line(call: Call, model: str) -> None:
    refused(call, f"sample {model} --count 2 --steps 2 --out new/a.h5", *MODELS[model])


@pytest.mark.parametrize("case", NAMES.values(), ids=NAMES)
def test_an_unknown_name_is_an_error_that_suggests_the_nearest(call: Call, case: tuple[str, ...]) -> None:
    refused(call, *case)


@pytest.mark.parametrize("case", LAWFUL.values(), ids=LAWFUL)
def test_a_law_that_does_not_fit_is_an_error(call: Call, case: tuple[str, ...]) -> None:
    refused(call, *case)


@pytest.mark.parametrize("case", NUMBERS.values(), ids=NUMBERS)
def test_a_wrong_setting_is_named_in_one_line(call: Call, case: tuple[str, ...]) -> None:
    refused(call, *case)


USAGE = {
    "unknown flag": "inspect heat.h5 --frobnicate",
    "missing flag": "generate heat --out a.h5",
    "missing law": "project heat.h5 --out a.h5",
    "missing command": "",
    "not a number": "generate heat --count two --out a.h5",
    "unknown choice": "list problem",
    "unknown solver": f"{SAMPLE} --solver eulr",
    "unknown type": f"{SAMPLE} --dtype float16",
    "flag before the command": "--json list laws",
}


@pytest.mark.parametrize("command", USAGE.values(), ids=USAGE)
def test_usage_errors_have_status_2_too(call: Call, command: str) -> None:
    before = snapshot(Path.cwd())
    ran = call(command)
    assert (ran.status, ran.out) == (2, "")
    assert ran.err
    assert snapshot(Path.cwd()) == before


def test_a_wrong_call_costs_no_old_result(call: Call) -> None:
    """Even with --overwrite, what is there stays until something takes its place."""
    assert call(f"{TRAIN} --quiet").status == 0
    refused(call, f"{TRAIN} training.learning_rate=-1 --overwrite", "learning")
    refused(call, f"{TRAIN} source.length=0 --overwrite", "positive")
    assert call("sample new --count 2 --steps 2 --out a.h5 --quiet").status == 0
    refused(call, "sample weights-huge --count 2 --steps 2 --out a.h5 --overwrite", "NaN or Inf")


def test_a_diverging_training_leaves_no_model(call: Call) -> None:
    assert call(f"{TRAIN} --quiet").status == 0
    ran = call(f"{TRAIN} training.learning_rate=1e30 --overwrite --quiet")
    assert ran.status == 2
    assert re.fullmatch(r"pcfm: training diverged: [^\n]+\n", ran.err)
    assert not Path("new/weights.safetensors").exists()
    assert not Path("new/state.pt").exists()


def test_an_interruption_is_one_line(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(self: common.Progress, done: int, note: str = "") -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(common.Progress, "to", interrupt)
    ran = call(f"{HEAT} --set points=16 times=8")
    assert ran.status == 130
    assert re.fullmatch(r"pcfm: interrupted[^\n]+--resume[^\n]+\n", ran.err)
    assert not Path("new/a.h5").exists()


def test_an_internal_error_is_not_hidden(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug keeps its traceback: only wrong calls, wrong input and lack of memory are answered in a line."""

    def broken(self: object) -> int:
        raise RuntimeError("a bug")

    monkeypatch.setattr("pcfm.commands.info.Doctor.run", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        call("doctor")


KINDS: dict[str, tuple[str, ...]] = {
    "an unknown network in a model": ("sample description-kind --count 2 --out a.h5", "fourier-operater"),
    "a program in a model": ("sample description-program --count 2 --out a.h5", "os.mkdir"),
    "a number for a table": (f"{TRAIN} network=3", "network"),
    "a number for a table in TOML": ("train heat.h5 --out new --config train-flat.toml", "network"),
    "binary TOML": ("train heat.h5 --out new --config binary.toml", "binary.toml"),
    "a number for a name": (f"{TRAIN} path.schedule=3", "schedule"),
    "a number for a condition": (f"{TRAIN} condition=3", "condition"),
    "a key below a value": (f"{TRAIN} training.steps.x=3", "training.steps"),
    "half a step": (f"{TRAIN} training.steps=2.5", "training.steps"),
    "a list of steps": (f"{TRAIN} training.steps=[2]", "training.steps"),
    "half a seed": (f"{TRAIN} training.seed=1.5", "training.seed"),
    "a negative seed": (f"{TRAIN} training.seed=-1", "training.seed", "not negative"),
    "a seed too large": (f"{TRAIN} --seed 99999999999999999999", "seed"),
    "evaluate every 0": (f"{TRAIN} training.evaluate_every=0", "evaluate_every"),
    "checkpoint every 0": (f"{TRAIN} training.checkpoint_every=0", "checkpoint_every"),
    "clip negative": (f"{TRAIN} training.clip=-1", "clip"),
    "ema 2": (f"{TRAIN} training.ema=2", "ema"),
    "width a word": (f"{TRAIN} network.width=wide", "network.width"),
    "width negative": (f"{TRAIN} network.width=-4", "network.width"),
    "width 0": (f"{TRAIN} network.width=0", "network.width"),
    "modes 0": (f"{TRAIN} network.modes=0", "network.modes"),
    "length a word": (f"{TRAIN} source.length=far", "source.length"),
    "no time step": ("generate kolmogorov --count 1 --out a.h5 --set points=8 dt=0", "dt"),
    "a negative time step": ("generate kolmogorov --count 1 --out a.h5 --set points=8 dt=-1", "dt"),
    "a time step beyond the interval": ("generate kolmogorov --count 1 --out a.h5 --set points=8 dt=1000 spin_up=1", "dt"),
}


@pytest.mark.parametrize("case", KINDS.values(), ids=KINDS)
def test_a_setting_of_the_wrong_kind_is_named_in_one_line(call: Call, case: tuple[str, ...]) -> None:
    refused(call, *case)
