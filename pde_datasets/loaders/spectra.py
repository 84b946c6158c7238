"""Spectra at several times in text: a line `nk t`, then nk lines E(0), E(1), ... E(nk - 1), again and again.

A. A. Wray's decaying isotropic turbulence (1997) of the AGARD collection, file `CB512.es`: the wave numbers are whole.

Source:
    Jiménez (editor), A selection of test cases for the validation of large-eddy simulations, AGARD AR-345 (1998), case HOM02.
"""

from __future__ import annotations

from pathlib import Path

import torch

from constraints import Axis, Grid
from pde_datasets.fields import Fields
from pde_datasets.loaders.text import beginning, decoded, is_row, numbers, said, width


def recognises(path: Path) -> bool:
    """Whether the rows of a text file begin with a whole number and a time, and go on with single numbers."""
    rows = [line for line in beginning(path) if is_row(line)]
    return (
        len(rows) > 2
        and width(rows[0]) == 2
        and rows[0].split()[0].isdigit()
        and int(rows[0].split()[0]) > 1
        and all(width(row) == 1 for row in rows[1 : 1 + int(rows[0].split()[0])])
    )


def load(path: Path) -> Fields:
    """The spectra, as one sample.

    Returns:
        `E` (1, 1, T, K) on (time, k), float64.

    Raises:
        ValueError: spectra of different length or a file that ends within one.
    """
    lines = decoded(path.read_bytes()).splitlines()
    start = next((i for i, line in enumerate(lines) if is_row(line)), len(lines))
    rows = [line for line in lines[start:] if line.strip()]
    count = int(rows[0].split()[0]) if rows and width(rows[0]) == 2 and rows[0].split()[0].isdigit() else 0
    heads, rest = rows[:: count + 1], [row for i, row in enumerate(rows) if i % (count + 1)]
    if not count or len(rows) % (count + 1) or not all(is_row(head) and width(head) == 2 for head in heads) or width(rest[0]) != 1:
        raise ValueError(
            f"{path.name}: spectra expects a line 'nk t' and {count or 'nk'} numbers for every time; got {len(rows)} lines. The file is "
            "truncated, or its spectra differ in length."
        )
    table = numbers(path, "spectra", heads)
    if not (table[:, 0] == count).all():
        raise ValueError(f"{path.name}: spectra expects {count} wave numbers at every time; got {sorted(set(table[:, 0].tolist()))}.")
    E = numbers(path, "spectra", rest).reshape(len(heads), count)
    return Fields(
        u=torch.from_numpy(E)[None, None],
        grid=Grid(Axis.at("time", table[:, 1].tolist()), Axis("k", count, length=float(count - 1))),
        channels=("E",),
        attributes={
            "format": "spectra",
            "path": path.name,
            "source": said(lines[:start]),
            "notes": "Spectra at whole wave numbers k from 0: the energy is their sum, not their integral by quadrature.",
        },
    )
