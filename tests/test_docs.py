"""Every block of the README and the docs runs: Python in one namespace a page, console commands in one folder a page."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from pcfm.cli import main

ROOT = Path(__file__).resolve().parents[1]


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)


def run_console(page: str, swap: dict[str, str] | None = None) -> None:
    commands = [line[2:] for block in blocks(page, "console") for line in block.splitlines() if line.startswith("$ ")]
    assert commands
    for command in commands:
        for old, new in (swap or {}).items():
            command = command.replace(old, new)
        program, *arguments = shlex.split(command)
        assert program == "pcfm"
        assert main(arguments) == 0, command


def test_readme_python() -> None:
    code = blocks("README.md", "python")
    assert len(code) >= 3
    namespace: dict[str, object] = {"__name__": "readme"}
    for block in code:
        exec(compile(block, "README.md", "exec"), namespace)


def test_laws_page() -> None:
    code = blocks("docs/laws.md", "python")
    assert len(code) >= 8
    namespace: dict[str, object] = {"__name__": "laws"}
    for block in code:
        exec(compile(block, "docs/laws.md", "exec"), namespace)


def test_generation_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_console("docs/generation.md")
    namespace: dict[str, object] = {"__name__": "generation"}
    for block in blocks("docs/generation.md", "python"):
        exec(compile(block, "docs/generation.md", "exec"), namespace)


def test_sampling_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pcfm.methods import METHODS

    monkeypatch.chdir(tmp_path)
    run_console("docs/sampling.md")
    text = (ROOT / "docs" / "sampling.md").read_text()
    assert all(f"`{name}`" in text for name in METHODS), "the table names every method"


def test_readme_console(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_console("README.md")
    assert (tmp_path / "runs" / "heat" / "report.html").stat().st_size > 10_000


def test_real_data_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, real_data: Path) -> None:
    """As written, with fewer training steps."""
    monkeypatch.chdir(tmp_path)
    for name in ("neuraloperator/burgers_train_16.pt", "neuraloperator/burgers_test_16.pt", "pyro2/shear_128_0216.h5"):
        if not (real_data / name).exists():
            pytest.skip(f"{name} not found; docs/data.md names its source")
        (tmp_path / Path(name).name).symlink_to(real_data / name)
    run_console("docs/real-data.md", {"training.steps=1500": "training.steps=30"})


def test_links_between_pages_lead_somewhere() -> None:
    pages = ("README.md", "CONTRIBUTING.md", *(f"docs/{page.name}" for page in sorted((ROOT / "docs").glob("*.md"))))
    for page in pages:
        prose = re.sub(r"^```.*?^```", "", (ROOT / page).read_text(), flags=re.MULTILINE | re.DOTALL)
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", prose):
            if not target.startswith("http"):
                assert ((ROOT / page).parent / target).exists(), f"{page} links to {target}"


def test_the_architecture_page_names_every_module() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    for package in ("constraints", "pde_datasets", "pcfm"):
        for file in (ROOT / package).glob("*.py"):
            if not file.name.startswith("__"):
                assert file.name in text, f"{package}/{file.name} is not on docs/architecture.md"
