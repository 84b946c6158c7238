"""The main job at small size, and the package as a stranger gets it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import pytest
import torch

import pcfm
from pcfm.cli import main
from pcfm.commands import demo

ROOT = Path(__file__).resolve().parents[1]


def test_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a display: report, figures, samples, record; lawful rows lawful, the unconstrained one not; live training included."""
    monkeypatch.delenv("DISPLAY", raising=False)
    short = [option for option in demo.LIVE if not option.startswith("training.steps")]
    monkeypatch.setattr(demo, "LIVE", (*short, "training.steps=25"))
    out = tmp_path / "demo"
    assert main(["demo", "--out", str(out), "--count", "4", "--steps", "5", "--train", "--quiet"]) == 0
    page = (out / "report.html").read_text()
    assert page.count("<img") >= 7
    assert "http://" not in page.replace("http://www.w3.org", "")
    methods = {row["method"]: row for row in json.loads((out / "record.json").read_text())["results"]["methods"]}
    assert methods["unconstrained"]["worst"] > 1e-3
    for label in ("projected at the end", "PCFM, as published", "PCFM, consistent"):
        assert methods[label]["worst"] < 1e-12
    with h5py.File(out / "samples.h5") as file:
        assert file["certificate/converged"][()].all()
        assert file["fields"].shape == (4, 2, 64, 64)
    assert main(["demo", "--out", str(out)]) == 2


def test_shipped_model_says_how_it_was_made() -> None:
    flow = pcfm.load("kolmogorov")
    assert {"data", "licence", "command", "history", "seconds", "device"} <= set(flow.card)
    assert flow.card["data"]["seed"] == 0
    assert flow.card["history"][-1]["validation"] < 0.62
    assert sum(file.stat().st_size for file in (ROOT / "pcfm/models/kolmogorov").iterdir()) < 10e6


def test_shipped_model_generates_the_statistics_of_its_data() -> None:
    """Energy per sample within the range of the data, spectrum within a factor of two where the energy is."""
    from pcfm.metrics import energy_spectrum
    from pde_datasets.store import read

    flow = pcfm.load("kolmogorov")
    reference = read(ROOT / "pcfm/models/kolmogorov/reference.h5")
    samples = pcfm.sample(flow, 16, steps=10, solver="heun", batch=16).u
    ours, theirs = (energy_spectrum(u.double(), flow.grid)[1].mean(0)[1:9] for u in (samples, reference.u))
    assert (torch.log2(ours / theirs).abs() < 1).all()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built wheel, unpacked."""
    folder, source = tmp_path_factory.mktemp("wheel"), tmp_path_factory.mktemp("source")
    for name in ("constraints", "pde_datasets", "pcfm"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(folder), str(source)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    (file,) = folder.glob("*.whl")
    with zipfile.ZipFile(file) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def isolated(wheel: Path, code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run code on the wheel's packages, away from the checkout."""
    environment = {**os.environ, "PYTHONPATH": str(wheel), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def test_wheel_holds_three_packages_and_nothing_generic(wheel: Path) -> None:
    names = {file.name for file in wheel.iterdir() if not file.name.endswith(".dist-info")}
    assert names == {"constraints", "pcfm", "pde_datasets"}
    assert (wheel / "pcfm/models/kolmogorov/weights.safetensors").exists()
    assert (wheel / "constraints/py.typed").exists()


def test_every_module_of_the_wheel_imports(wheel: Path, tmp_path: Path) -> None:
    modules = [
        ".".join(file.relative_to(wheel).with_suffix("").parts).removesuffix(".__init__")
        for file in sorted(wheel.rglob("*.py"))
        if file.name != "__main__.py"
    ]
    code = f"import importlib\nfor name in {modules!r}:\n    assert {str(wheel)!r} in importlib.import_module(name).__file__"
    done = isolated(wheel, code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(modules) > 50


def test_the_wheel_samples(wheel: Path, tmp_path: Path) -> None:
    code = (
        "import pcfm, sys\nassert pcfm.sample(pcfm.load('kolmogorov'), 1, steps=2).u.shape == (1, 2, 64, 64)\n"
        "from pcfm.cli import main\nsys.exit(main(['list', 'models']))"
    )
    done = isolated(wheel, code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "kolmogorov" in done.stdout


def test_import_is_cheap(tmp_path: Path) -> None:
    """Over torch, importing costs little processor time and no plotting, file or solver library."""
    code = (
        "import time, torch\nbegan = time.process_time()\nimport pcfm, constraints, pde_datasets\npcfm.sample, pcfm.load\n"
        "print(time.process_time() - began)\nimport sys\n"
        "print([m for m in ('matplotlib', 'h5py', 'scipy', 'torchdiffeq') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=120)
    seconds, heavy = done.stdout.splitlines()
    assert float(seconds) < 0.5
    assert heavy == "[]"
