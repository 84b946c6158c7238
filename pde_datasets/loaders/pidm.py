r"""The CSV files of Physics-Informed Diffusion Models: pressure and permeability of Darcy flow between closed walls.

`p_data.csv` and `K_data.csv` side by side, in folders `train` and `valid`: no header, a sample a row, a square field laid out row by row
(64 x 64 as published). Values are at nodes, the outer ones on the walls of the unit square, of

$$-\nabla\cdot(K\nabla p) = f,\qquad \partial_n p = 0,\qquad \int p = 0,$$

with f = 10 and -10 in squares of width 0.125 at two opposite corners. Files are text of a GiB: rows are found once and read when they are
asked for.

Source:
    Bastek, Sun & Kochmann, Physics-informed diffusion models, arXiv:2403.14404; data doi.org/10.3929/ethz-b-000674074.
"""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from constraints import Axis, Grid
from pde_datasets.fields import Fields
from pde_datasets.lazy import Lazy
from pde_datasets.loaders.files import reason
from pde_datasets.loaders.limits import check_shape

_FILES = ("K_data.csv", "p_data.csv")
"""In the order of the channels, coefficient and pressure."""
_SPLITS = ("train", "valid")
_LONGEST = 1 << 25
"""Bytes of a row beyond which a file is no table: a thousand points an axis take a quarter of it."""


def recognises(path: Path) -> bool:
    """Whether a path is one of the two files beside the other, their folder, or the folder of `train` and `valid`, and they begin with rows
    of as many numbers, a square."""
    folders = _folders(path)
    return bool(folders) and all(_columns(folder / file) is not None for folder in folders.values() for file in _FILES)


def load(path: Path) -> Fields:
    """All samples, those of `train` before those of `valid` where a folder has both.

    Returns:
        `coefficient`, `pressure` on (x, y), float64, left in their files; the attribute `splits` says which samples are whose.

    Raises:
        ValueError: a row that is not so many numbers, or files of different size.
    """
    tables, splits, count = [], [], 0
    folders = _folders(path)
    for split, folder in folders.items():
        pair = [_Table(folder / file) for file in _FILES]
        if len(pair[0]) != len(pair[1]) or pair[0].side != pair[1].side:
            got = " and ".join(f"{len(table)} x {table.side**2}" for table in pair)
            raise ValueError(f"{path.name}: pidm expects {' and '.join(_FILES)} of one size; got {got}. One of them is truncated.")
        tables.append(pair)
        splits.append(f"{split} {count} to {count + len(pair[0]) - 1}")
        count += len(pair[0])
    sides = {pair[0].side for pair in tables}
    if len(sides) > 1:
        raise ValueError(f"{path.name}: pidm expects {' and '.join(folders)} on one grid; got {', '.join(map(str, sorted(sides)))} points.")
    side = sides.pop()
    starts = np.cumsum([0, *(len(pair[0]) for pair in tables)])

    def read(box: tuple[slice, ...]) -> NDArray[Any]:
        samples = range(box[0].start, box[0].stop, box[0].step)
        out = np.empty((len(samples), 2, side, side))
        for i, sample in enumerate(samples):
            which = int(np.searchsorted(starts, sample, side="right")) - 1
            for channel in range(*box[1].indices(2)):
                out[i, channel] = tables[which][channel].row(sample - int(starts[which]))
        return out[:, box[1], box[2], box[3]]

    notes = (
        "Grid not stored: nodes of the unit square, walls included. Axis order not stored: if fields do not fit each other, one of them "
        "is transposed. The data were not solved with a conservative scheme, so that no discrete balance is stated as a law."
    )
    about = {"splits": "; ".join(splits)} if path.is_dir() and not _pair(path) else {}
    return Fields(
        u=Lazy(read, (count, 2, side, side), torch.float64, path.name),
        grid=Grid(Axis("x", side, length=1.0), Axis("y", side, length=1.0)),
        channels=("coefficient", "pressure"),
        attributes={
            "format": "pidm", "path": path.name, "equation": "-div(K grad p) = f, no flux through walls",
            "source": "Bastek, Sun & Kochmann, arXiv:2403.14404", "notes": notes, **about,
        },
    )  # fmt: skip


def _pair(folder: Path) -> bool:
    return all((folder / file).is_file() for file in _FILES)


def _folders(path: Path) -> dict[str, Path]:
    """The folders with both files that a path stands for, by their names."""
    if path.is_file():
        return {path.parent.name: path.parent} if path.name in _FILES and _pair(path.parent) else {}
    if _pair(path):
        return {path.name: path}
    return {split: path / split for split in _SPLITS if _pair(path / split)}


def _columns(path: Path) -> int | None:
    """How many numbers the first row has, None if it is not a row of a square number of them."""
    with path.open("rb") as file:
        first = file.readline(_LONGEST)
    count = first.count(b",") + 1
    if count < 9 or math.isqrt(count) ** 2 != count:
        return None
    try:
        _numbers(first)
    except ValueError:
        return None
    return count


def _numbers(line: bytes) -> NDArray[np.float64]:
    """The numbers of a row."""
    return np.array([float(word) for word in line.split(b",")])


class _Table:
    """A file's rows, by where they begin."""

    def __init__(self, path: Path) -> None:
        columns = _columns(path)
        if columns is None:
            raise ValueError(
                f"{path.name}: pidm expects a first row of numbers, as many as a square field has points. The file is damaged."
            )
        self.path, self.columns, self.side = path, columns, math.isqrt(columns)
        ends = [0]
        with path.open("rb") as file:
            for line in iter(lambda: file.readline(_LONGEST), b""):
                if line.strip():
                    ends.append(ends[-1] + len(line))
                else:
                    break  # an empty line ends the table
        self.spans = list(pairwise(ends))
        check_shape(path.name, (len(self.spans), columns), 1, stored=path.stat().st_size)

    def __len__(self) -> int:
        return len(self.spans)

    def row(self, index: int) -> NDArray[np.float64]:
        """One field, (side, side)."""
        start, stop = self.spans[index]
        with self.path.open("rb") as file:
            file.seek(start)
            line = file.read(stop - start)
        try:
            values = _numbers(line)
        except ValueError as error:
            raise ValueError(
                f"{self.path.name}: pidm expects numbers in row {index + 1}; {reason(error, 80)}. The file is damaged."
            ) from error
        if len(values) != self.columns:
            raise ValueError(
                f"{self.path.name}: pidm expects {self.columns} numbers in row {index + 1}; got {len(values)}. "
                "The file is truncated or damaged."
            )
        return values.reshape(self.side, self.side)
