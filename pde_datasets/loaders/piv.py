"""Velocities measured by particle images: TSI Insight vector files (`.vec`) and text exports of DaVis.

* Insight: one line `VARIABLES="X mm", "Y mm", "U m/s", "V m/s", "CHC" ... ZONE I=63, J=63`, then rows parted by commas. A vector is valid
  where its choice code CHC is positive.
* DaVis: one line `#DaVis 8.1 2D-vector 16 57 43 "x" "mm" "y" "mm" "velocity" "m/s"` (step, columns, rows), then rows parted by tabs, with
  decimal commas where the system had them. A vector that is not valid is stored as zero, and no other is exactly zero.

Fields are finite: where no vector was found velocity is 0 and the channel `valid` is 0. Do not take these zeros for measurements.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from pde_datasets.fields import Fields
from pde_datasets.loaders.points import layout
from pde_datasets.loaders.si import si
from pde_datasets.loaders.text import beginning, decoded, table

_INSIGHT = re.compile(r'VARIABLES\s*=\s*((?:"[^"]*"\s*,?\s*)+)')
_ZONE = re.compile(r"ZONE\s+I\s*=\s*(\d+)\s*,?\s*J\s*=\s*(\d+)")
_DAVIS = re.compile(r'#DaVis\s+(\S+)\s+2D-vector\s+(\d+)\s+(\d+)\s+(\d+)\s+"[^"]*"\s+"([^"]*)"\s+"[^"]*"\s+"([^"]*)"\s+"[^"]*"\s+"([^"]*)"')


class _Head(NamedTuple):
    """What the first line says: the program, size of the grid, and the units of x, y and the velocities."""

    program: str
    size: tuple[int, int]
    units: tuple[str, str, str, str]
    codes: bool
    """Whether a fifth column says which vectors are valid."""


def recognises(path: Path) -> bool:
    """Whether a text file begins with the line of Insight or DaVis."""
    first = beginning(path)[:1]
    return bool(first) and (_DAVIS.match(first[0]) is not None or (_INSIGHT.search(first[0]) is not None and '"CHC"' in first[0]))


def load(path: Path) -> Fields:
    """One frame, x and y increasing, in SI units.

    Returns:
        `u`, `v`, `valid` (1, 3, X, Y) on (x, y), float64: zero, zero and zero where no vector was found.

    Raises:
        ValueError: other columns, another number of rows than the head says, or points that are no grid.
    """
    text = table(path, "piv", decoded(path.read_bytes()).splitlines())
    head = _head(path, text.head[0])
    columns = 5 if head.codes else 4
    if text.rows.shape[1] != columns or len(text.rows) != head.size[0] * head.size[1]:
        raise ValueError(
            f"{path.name}: piv expects {head.size[0]} x {head.size[1]} rows of {columns} numbers; got {len(text.rows)} of "
            f"{text.rows.shape[1]}. The file is truncated or damaged."
        )
    scales, units = zip(*(si(unit) for unit in head.units), strict=True)
    x, y, u, v = (scale * column for scale, column in zip(scales, text.rows.T, strict=False))
    place = layout(("x", "y"), np.stack([x, y], axis=1), units=units[:2])
    if place.mesh is not None:
        raise ValueError(f"{path.name}: piv expects vectors on a grid of x and y; these points fill none. The file is damaged.")
    valid = text.rows[:, 4] > 0 if head.codes else (u != 0) | (v != 0)
    values = np.stack([np.where(valid, u, 0.0), np.where(valid, v, 0.0), valid.astype(np.float64)])
    share = 100 * (1 - valid.mean())
    rule = "choice code CHC > 0" if head.codes else "not both components exactly 0"
    return Fields(
        u=torch.from_numpy(np.ascontiguousarray(place.place(values)[None])),
        grid=place.grid,
        channels=("u", "v", "valid"),
        units=(units[2], units[3], "1"),
        roles={"velocity": ("u", "v"), "valid": ("valid",)},
        attributes={
            "format": "piv",
            "path": path.name,
            "source": head.program,
            "notes": f"Measured: no law holds exactly. Valid: {rule}; {share:.1f} % are not, u = v = 0 stands there and means nothing. "
            + ("Lengths were turned into m." if units[0] == "m" else f"Lengths are in the unit of the file, {units[0]}."),
        }
        | _settings(text.head[0]),
    )


def _head(path: Path, line: str) -> _Head:
    """What the first line says."""
    davis = _DAVIS.match(line)
    if davis is not None:
        return _Head(f"DaVis {davis[1]}", (int(davis[3]), int(davis[4])), (davis[5], davis[6], davis[7], davis[7]), False)
    found, zone = _INSIGHT.search(line), _ZONE.search(line)
    names = re.findall(r'"([^"]*)"', found[1]) if found is not None else []
    words = [name.split(maxsplit=1) for name in names]
    if zone is None or [word[0].upper() for word in words if word] != ["X", "Y", "U", "V", "CHC"]:
        raise ValueError(f'{path.name}: piv expects VARIABLES="X mm", "Y mm", "U m/s", "V m/s", "CHC" and ZONE I=, J=; got {line[:120]!r}.')
    x, y, u, v = (word[1] if len(word) > 1 else "" for word in words[:4])
    return _Head("TSI Insight", (int(zone[1]), int(zone[2])), (x, y, u, v), True)


def _settings(line: str) -> dict[str, float]:
    """Seconds between the two exposures, if the head says."""
    found = re.search(r'MicrosecondsPerDeltaT="([\d.]+)"', line)
    return {} if found is None else {"exposure_interval": 1e-6 * float(found[1])}
