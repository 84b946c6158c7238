"""Every block of the README and the docs runs: Python in one namespace a page, console commands in one folder a page."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from dataclasses import fields as fields_of
from pathlib import Path

import numpy as np
import pytest

from pcfm.cli import main
from pcfm.commands.common import open_fields
from pde_datasets import Fields
from pde_datasets.loaders.words import Words

ROOT = Path(__file__).resolve().parents[1]


TOLD = ("raissi_pinns/KdV.mat", "pyro2/sod_x_0076.h5", "pivpy_soapfilm/Run000001.T000.D000.P000.H001.L.vec")
"""Real files of which docs/real-data.md shows what is printed."""


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


def test_models_page_python() -> None:
    namespace: dict[str, object] = {}
    for block in blocks("docs/models.md", "python"):
        exec(compile(block, "docs/models.md", "exec"), namespace)


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


def test_flow_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pcfm.configuration import COUPLINGS, OBJECTIVES, SCHEDULES

    monkeypatch.chdir(tmp_path)
    run_console("docs/flow.md")
    namespace: dict[str, object] = {"__name__": "flow"}
    for block in blocks("docs/flow.md", "python"):
        exec(compile(block, "docs/flow.md", "exec"), namespace)
    text = (ROOT / "docs" / "flow.md").read_text()
    assert all(f"| `{name}` |" in text for name in (*SCHEDULES, *COUPLINGS, *OBJECTIVES)), "the tables name them all"


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
    for name in ("neuraloperator/burgers_train_16.pt", "neuraloperator/burgers_test_16.pt", "pyro2/shear_128_0216.h5", *TOLD):
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


def said(tmp_path: Path, *words: str) -> Fields:
    """What `pcfm` makes of words, given as on the command line, of the flow that docs/data.md speaks of: (n, t, x, y) = (3, 2, 4, 5)."""
    u, v, rho = (np.arange(120.0).reshape(3, 2, 4, 5) + i for i in range(3))
    xs, viscosity = np.array([0.0, 0.1, 0.4, 1.0]), np.array([1.0, 2.0, 3.0])
    np.savez(tmp_path / "flow.npz", u=u, v=v, rho=rho, xs=xs, viscosity=viscosity)
    return open_fields(tmp_path / "flow.npz", None, words)


WORDS: dict[str, Callable[[Fields], bool]] = {
    "layout": lambda fields: fields.u.shape == (3, 3, 2, 4, 5) and fields.grid.names == ("time", "x", "y"),
    "fields": lambda fields: fields.channels == ("u", "v"),
    "channels": lambda fields: fields.channels == ("a", "b"),
    "units": lambda fields: fields.units == ("m s-1", "m s-1"),
    "periodic": lambda fields: [axis.periodic for axis in fields.grid.axes] == [False, True, True],
    "cells": lambda fields: [axis.cells for axis in fields.grid.axes] == [False, True, True],
    "length": lambda fields: [axis.extent for axis in fields.grid.axes] == [0.5, 2.0, 1.0],
    "origin": lambda fields: fields.grid.axes[1].positions()[0] == -1,
    "coordinates": lambda fields: (
        fields.grid.axes[1].positions().tolist() == [0.0, 0.1, 0.4, 1.0]
        and fields.grid.axes[2].positions().tolist() == [0.0, 0.1, 0.3, 0.7, 1.0]
    ),
    "axis_units": lambda fields: [axis.unit for axis in fields.grid.axes] == ["s", "km", "km"],
    "roles": lambda fields: fields.roles == {"velocity": ("u", "v"), "density": ("rho",)},
    "laws": lambda fields: fields.laws == ("mass", "divergence-free:scheme=spectral"),
    "parameters": lambda fields: fields.parameters["viscosity"].tolist() == [1.0, 2.0, 3.0],
    "equation": lambda fields: fields.attributes["equation"] == "u_t + u u_x = 0",
}


@pytest.mark.parametrize("word", WORDS)
def test_each_word_of_the_data_page_means_what_it_says(word: str, tmp_path: Path) -> None:
    example = re.search(rf"^\| `{word}` \| `([^`]*)` \|", (ROOT / "docs" / "data.md").read_text(), re.MULTILINE)
    assert example is not None, f"docs/data.md has no example of {word}"
    words = shlex.split(example[1])
    if word != "layout":
        words.append("layout=n t x y")
    if word in ("channels", "units"):
        words.append("fields=u,v")
    assert WORDS[word](said(tmp_path, *words))


def test_the_data_page_has_every_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(WORDS) == {entry.name for entry in fields_of(Words)}
    said(tmp_path, "layout=n t x y")
    monkeypatch.chdir(tmp_path)
    run_console("docs/data.md")


@pytest.mark.parametrize(
    "text", ["velocity=u,v density=rho", "velocity=u+v, density=rho", "velocity=u v density=rho", "velocity=u,v+density=rho"]
)
def test_entries_are_parted_as_names_are(text: str, tmp_path: Path) -> None:
    assert said(tmp_path, "layout=n t x y", f"roles={text}").roles == {"velocity": ("u", "v"), "density": ("rho",)}


def test_units_of_axes_may_hold_spaces(tmp_path: Path) -> None:
    axes = said(tmp_path, "layout=n t x y", "axis_units=x=degrees east y=m t=s").grid.axes
    assert [axis.unit for axis in axes] == ["s", "degrees east", "m"]
