"""What every format keeps: its files are recognised by it before any other, read in parts as in the whole, and refused when cut short."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from pde_datasets import loaders
from pde_datasets.lazy import Lazy
from pde_datasets.loaders import FORMATS
from tests import test_loaders_arrays, test_loaders_hdf5
from tests.fuzz import writers

WRITERS = writers()
"""A small valid file or folder of each format, by `format` or `format/variant`."""

GENERAL = {"matlab", "columns", "netcdf", "arrays"}
"""Formats that take whatever the particular ones leave, and so are asked after them."""

WHOLE = {
    "pcfm", "neuraloperator", "probconserv", "pina", "comsol", "piv", "airfrans", "vtk", "spectra", "matlab", "pyro2", "columns",
}  # fmt: skip
"""Formats whose fields are a tensor, read at once or mapped; those of the others stay in their files."""

FOLDERS = ("blastnet", "diffusionpde/pairs", "diffusionpde/flows", "flowbench", "cfdbench", "netcdf/zarr")
BINARY = [kind for kind in (*test_loaders_hdf5.WRITERS, *test_loaders_arrays.WRITERS) if not kind.startswith(FOLDERS)]
"""Files that say how much they hold."""


@pytest.mark.parametrize("kind", WRITERS)
def test_files_are_recognised_by_their_content(kind: str, tmp_path: Path) -> None:
    path, name = WRITERS[kind](tmp_path), kind.partition("/")[0]
    if path.is_file() and name != "apebench":  # whose settings lie beside it, under its name
        path = path.rename(path.with_suffix(".data"))
    takers = [entry for entry in FORMATS if FORMATS[entry].recognises(path)]
    assert takers[0] == name
    assert set(takers[1:]) <= GENERAL - {name}
    fields = loaders.open(path)
    assert fields.attributes["format"] == name
    assert fields.attributes["path"] == path.name
    assert fields.attributes["notes"] or name == "pcfm"
    assert torch.equal(fields.values, loaders.open(str(path), name).values)


@pytest.mark.parametrize("kind", WRITERS)
def test_what_is_indexed_is_what_the_whole_has_there(kind: str, tmp_path: Path) -> None:
    """Each loader's own reading of boxes, of every axis, those with nothing in them included."""
    name = kind.partition("/")[0]
    u = FORMATS[name].load(WRITERS[kind](tmp_path)).u
    assert isinstance(u, Lazy) == (name not in WHOLE)
    if not isinstance(u, Lazy):
        return
    whole = u.load()
    for d in range(u.ndim):
        for cut in (slice(1, None), slice(None, -1), slice(0, None, 2), slice(1, None, 2), slice(0, 0), slice(1, 2)):
            box = (*[slice(None)] * d, cut)
            assert torch.equal(u[box], whole[box])
    assert torch.equal(u.rows([len(u) - 1, 0])[:], whole[[len(u) - 1, 0]])


@pytest.mark.parametrize("kind", BINARY)
@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.97])
def test_truncated_files_raise_one_line(kind: str, share: float, tmp_path: Path) -> None:
    path = WRITERS[kind](tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError) as caught:
        loaders.open(path)
    assert "\n" not in str(caught.value)


def test_the_data_page_says_which_formats_are_folders() -> None:
    """Every format has a row, alone or with its like; where the page speaks of a folder, a folder opens."""
    page = (Path(__file__).resolve().parents[1] / "docs" / "data.md").read_text()
    rows = [line.split("|")[1:3] for line in page.partition("## ")[0].splitlines() if line.startswith("| `")]
    said = {name: text for names, text in rows for name in re.findall(r"`([^`]+)`", names)}
    assert set(said) == set(FORMATS)
    for name in ("pyclaw", "airfrans", "cfdbench", "openfoam"):
        assert "folder" in said[name]
        assert "folder" in FORMATS[name].description
    assert "folder" not in said["pyro2"]


def test_pyro2_frames_open_one_by_one(tmp_path: Path) -> None:
    WRITERS["pyro2"](tmp_path)
    with pytest.raises(ValueError, match=r"it is a folder with .*: name a file inside it"):
        loaders.open(tmp_path)
