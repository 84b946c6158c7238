"""The CSV files of Physics-Informed Diffusion Models: pairs of files written here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from pde_datasets import loaders
from pde_datasets.loaders import FORMATS
from pde_datasets.problems import Darcy


def write_pair(folder: Path, fields: np.ndarray, newline: str = "\n") -> Path:
    """`K_data.csv` and `p_data.csv` of fields (N, 2, n, n), as pandas or numpy write them without header and index."""
    folder.mkdir(parents=True, exist_ok=True)
    for channel, name in enumerate(("K_data.csv", "p_data.csv")):
        np.savetxt(folder / name, fields[:, channel].reshape(len(fields), -1), delimiter=",", fmt="%.18e", newline=newline)
    return folder


def darcy(count: int, points: int = 8, start: int = 0) -> np.ndarray:
    return Darcy(points=points, cells=False, drive="corners", strength=10.0).draw(count, start=start).u.numpy()


def write_splits(folder: Path) -> Path:
    for split, start, count in (("train", 0, 3), ("valid", 3, 2)):
        write_pair(folder / "darcy" / split, darcy(count, start=start))
    return folder / "darcy"


WRITERS: dict[str, Callable[[Path], Path]] = {"pidm": write_splits}


def test_splits_follow_each_other(tmp_path: Path) -> None:
    path = write_splits(tmp_path)
    fields = loaders.open(path)
    assert fields.u.shape == (5, 2, 8, 8)
    assert np.array_equal(fields.u.numpy(), darcy(5))
    assert fields.u.dtype == torch.float64
    assert fields.channels == ("coefficient", "pressure")
    assert fields.attributes["splits"] == "train 0 to 2; valid 3 to 4"
    assert fields.attributes["path"] == "darcy"
    assert [(axis.points, axis.extent, axis.periodic, axis.cells) for axis in fields.grid.axes] == [(8, 1.0, False, False)] * 2
    assert [name for name in FORMATS if FORMATS[name].recognises(path)] == ["pidm"]


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_folder_or_either_file_of_a_pair(newline: str, tmp_path: Path) -> None:
    fields = darcy(3, points=6)
    folder = write_pair(tmp_path / "train", fields, newline)
    for path in (folder, folder / "p_data.csv", folder / "K_data.csv"):
        opened = loaders.open(path)
        assert np.array_equal(opened.u.numpy(), fields)
        assert opened.attributes["format"] == "pidm"  # asked before the reader of any table of numbers
        assert "splits" not in opened.attributes


def test_rows_are_read_when_they_are_asked_for(tmp_path: Path) -> None:
    """Across the two folders, in steps, channel by channel; a damaged row is no obstacle to the others."""
    path = write_splits(tmp_path)
    whole = darcy(5)
    u = FORMATS["pidm"].load(path).u
    assert np.array_equal(u[1:5:2].numpy(), whole[1:5:2])
    assert np.array_equal(u[4, 1, 2:7:3].numpy(), whole[4, 1, 2:7:3])
    assert np.array_equal(u[[4, 0]][:, :1].numpy(), whole[[4, 0], :1])
    file = path / "valid" / "p_data.csv"
    lines = file.read_text().splitlines()
    lines[1] = lines[1][:40]
    file.write_text("\n".join(lines))
    u = FORMATS["pidm"].load(path).u
    assert np.array_equal(u[3].numpy(), whole[3])
    with pytest.raises(ValueError, match=r"p_data.csv: pidm expects 64 numbers in row 2; got 2"):
        u[4]


def test_published_size(tmp_path: Path) -> None:
    fields = np.random.default_rng(0).random((2, 2, 64, 64))
    assert np.array_equal(loaders.open(write_pair(tmp_path / "pair", fields)).u.numpy(), fields)


def damaged(folder: Path, change: Callable[[Path], object]) -> Path:
    """A pair on which a change was made."""
    path = write_pair(folder / "pair", darcy(3, points=6))
    change(path)
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / "K_data.csv").write_text((f / "K_data.csv").read_text().rsplit("\n", 2)[0]), "of one size; got 2 x 36 and 3 x 36"),
        (lambda f: np.savetxt(f / "p_data.csv", np.ones((3, 16)), delimiter=","), "got 3 x 36 and 3 x 16"),
        (lambda f: np.savetxt(f / "p_data.csv", np.where(np.eye(3, 36), np.nan, 1.0), delimiter=","), "finite values"),
        (lambda f: (f / "p_data.csv").write_text((f / "p_data.csv").read_text() + ",".join(["x"] * 36)), "of one size"),
        (lambda f: (f / "p_data.csv").write_text((f / "p_data.csv").read_text().replace("e", "z", 200)), "not recognised, it is a folder"),
        (lambda f: np.savetxt(f / "p_data.csv", np.ones((3, 35)), delimiter=","), "not recognised, it is a folder"),
        (lambda f: (f / "p_data.csv").write_text(",".join(f"c{i}" for i in range(36))), "not recognised, it is a folder"),
        (lambda f: (f / "p_data.csv").unlink(), "not recognised, it is a folder"),
        (lambda f: (f / "p_data.csv").write_text(""), "not recognised, it is a folder"),
    ],
)
def test_pairs_that_are_none_are_refused(change: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        loaders.open(damaged(tmp_path, change))
    assert "\n" not in str(caught.value)


def test_words_among_the_numbers_are_refused(tmp_path: Path) -> None:
    path = write_pair(tmp_path / "pair", darcy(3, points=6))
    lines = (path / "K_data.csv").read_text().splitlines()
    lines[2] = ",".join(["1.0"] * 35 + ["one"])
    (path / "K_data.csv").write_text("\n".join(lines))
    with pytest.raises(ValueError, match=r"K_data.csv: pidm expects numbers in row 3.*damaged"):
        loaders.open(path)


def test_splits_on_different_grids_are_refused(tmp_path: Path) -> None:
    path = write_splits(tmp_path)
    write_pair(path / "valid", darcy(2, points=7))
    with pytest.raises(ValueError, match=r"train and valid on one grid; got 7, 8 points"):
        loaders.open(path)
