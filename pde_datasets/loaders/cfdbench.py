"""Folders of CFDBench: a case is a folder with `u.npy`, `v.npy` (t, y, x) and its settings, `case.json`.

A folder is one case, a set of cases `case0000`, .., or what holds such sets (`bc`, `geo`, `prop`). Cases are samples; where they have
different numbers of frames, as many as all have are read. Velocities were interpolated from Fluent to points inside the domain: values on
inlets and walls are not in the files, which the authors' reader pads.

Source:
    Luo, Chen & Zhang, CFDBench: a large-scale benchmark for machine learning methods in fluid dynamics, 2023 (arXiv:2310.05963); its reader
    for layouts, time steps and sides.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from constraints import Axis, Grid
from pde_datasets.fields import Fields
from pde_datasets.loaders.coordinates import counted, filled, stepped
from pde_datasets.loaders.files import small_json
from pde_datasets.loaders.npy import is_npy, mapped
from pde_datasets.loaders.parts import SAMPLE, Part, assembled
from pde_datasets.loaders.views import View

_FILES = ("u.npy", "v.npy", "case.json")
_DEPTH = 2
"""Levels of folders between the one opened and its cases."""

_STEPS = {"cavity": 0.1, "tube": 0.1, "dam": 0.1, "cylinder": 0.001}
"""Seconds between frames, as the authors' reader has them."""

_SIDES = {"x": ("width", "x_min", "x_max"), "y": ("height", "y_min", "y_max")}


def recognises(path: Path) -> bool:
    """Whether a folder is a case, or holds cases."""
    if not path.is_dir():
        return False
    first = next(iter(_cases(path)), None)
    return first is not None and is_npy(first / "u.npy") and is_npy(first / "v.npy")


def _cases(folder: Path) -> list[Path]:
    """Folders of cases, those of a set in the order of their numbers."""
    if all((folder / name).is_file() for name in _FILES):
        return [folder]
    found: list[Path] = []
    level = [folder]
    for _ in range(_DEPTH):
        level = sorted((entry for parent in level for entry in parent.iterdir() if entry.is_dir()), key=_place)
        found += [entry for entry in level if re.fullmatch(r"case\d+", entry.name) and all((entry / name).is_file() for name in _FILES)]
    return sorted(found, key=_place)


def _place(case: Path) -> tuple[str, int, str]:
    digits = re.sub(r"\D", "", case.name)
    return str(case.parent), int(digits) if digits else 0, case.name


def load(path: Path) -> Fields:
    """The velocities of the cases, mapped.

    Returns:
        `u`, `v` on (time, x, y), with the settings of the cases as parameters. Axes are those of the domain where all cases have the same,
        else over its width and height, which are parameters.

    Raises:
        ValueError: a case without settings or of another shape than its neighbours, or a damaged file.
    """
    cases = _cases(path)
    if not cases:
        raise ValueError(f"{path.name}: cfdbench expects folders case0000, .. with {', '.join(_FILES)}; there are none.")
    settings = [_settings(path, case) for case in cases]
    arrays = {f"{i} {name}": mapped(case / f"{name}.npy") for i, case in enumerate(cases) for name in "uv"}
    _check(path, cases, arrays)
    rows, columns = next(iter(arrays.values())).shape[1:]
    frames = [arrays[f"{i} u"].shape[0] for i in range(len(cases))]
    common = min(frames)
    notes = []
    if common < max(frames):
        notes.append(f"Cases have {common} to {max(frames)} frames; the first {common} of each are read.")
    kind = _kind(settings[0])
    if kind in _STEPS:
        time = stepped("time", common, _STEPS[kind], "s")
        notes.append(f"Frames are {_STEPS[kind]:g} s apart, as the authors' reader of the {kind} has it; the files do not say.")
    else:
        time = counted("time", common)
        notes.append("Times are not stored: the axis counts frames.")
    axes, told = _axes({"x": columns, "y": rows}, settings)
    views = {name: _First(array, common) for name, array in arrays.items()}
    parts = [Part((f"{i} u", f"{i} v"), (2, 4, 3), stack=1) for i in range(len(cases))]
    return Fields(
        u=assembled(path, parts, (len(cases), 2, common, columns, rows), along=SAMPLE, arrays=views),
        grid=Grid(time, *axes),
        channels=("u", "v"),
        units=("m s-1", "m s-1"),
        parameters={name: torch.tensor([case[name] for case in settings], dtype=torch.float64) for name in _shared(settings)},
        roles={"velocity": ("u", "v")},
        attributes={
            "format": "cfdbench",
            "path": path.name,
            "source": "CFDBench; Luo et al. 2023",
            "equation": "incompressible Navier-Stokes equations" + (f", {kind}" if kind else ""),
            "cases": " ".join(case.relative_to(path).as_posix() for case in cases) if cases != [path] else path.name,
            "notes": " ".join(
                [
                    *notes,
                    told,
                    "Interpolated from another mesh: the velocity is divergence-free only roughly, and no law is stated. Inlets and walls "
                    "lie outside the points.",
                ]
            ),
        },
    )


class _First(View):
    """The first frames of an array (t, y, x)."""

    def __init__(self, array: Any, frames: int) -> None:
        super().__init__(array)
        self.shape = (frames, *self.shape[1:])


def _settings(path: Path, case: Path) -> dict[str, float]:
    """The numbers in the settings of a case."""
    try:
        content = small_json(case / "case.json")
    except ValueError as error:
        raise ValueError(f"{path.name}: cfdbench expects JSON in {case.name}/case.json; it is damaged. Fetch it again.") from error
    if not isinstance(content, Mapping):
        raise ValueError(f"{path.name}: cfdbench expects a dictionary of settings in {case.name}/case.json; there is none.")
    return {
        str(name): float(value)
        for name, value in content.items()
        if isinstance(value, (int, float)) and abs(value) < 1e300 and math.isfinite(value)
    }


def _shared(settings: list[dict[str, float]]) -> list[str]:
    """Settings that all cases have."""
    return [name for name in settings[0] if all(name in case for case in settings)]


def _check(path: Path, cases: list[Path], arrays: Mapping[str, Any]) -> None:
    for i, case in enumerate(cases):
        u, v = arrays[f"{i} u"], arrays[f"{i} v"]
        if u.shape != v.shape or u.ndim != 3 or u.shape[1:] != arrays["0 u"].shape[1:] or 0 in u.shape or u.dtype.kind not in "buif":
            raise ValueError(
                f"{path.name}: cfdbench expects u and v of one shape (t, y, x) in all cases; got {u.shape} and {v.shape} in {case.name}, "
                f"{arrays['0 u'].shape} in {cases[0].name}."
            )


def _kind(settings: Mapping[str, float]) -> str:
    """Which of the four problems it is, by the settings that only one has; empty where none does."""
    telling = (("vel_top", "cavity"), ("velocity", "dam"), ("radius", "cylinder"), ("vel_in", "tube"))
    return next((kind for name, kind in telling if name in settings), "")


def _axes(points: Mapping[str, int], settings: list[dict[str, float]]) -> tuple[list[Axis], str]:
    """Centres of cells that fill the domain, in metres if all cases have one domain."""
    axes, scaled = [], []
    for name, n in points.items():
        side, low, high = _SIDES[name]
        lengths = {case.get(side, case[high] - case[low] if {low, high} <= set(case) else math.nan) for case in settings}
        starts = {case.get(low, 0.0) for case in settings}
        length, start = lengths.pop(), starts.pop()
        if lengths or starts or not length > 0:
            scaled.append(f"{name} over the {side}")
            length, start, unit = 1.0, 0.0, "1"
        else:
            unit = "m"
        axes.append(filled(name, n, length, start, unit))
    told = f"Cases have domains of their own: {' and '.join(scaled)}." if scaled else ""
    return axes, (told + " Points are taken as centres of cells, which the files do not say.").strip()
