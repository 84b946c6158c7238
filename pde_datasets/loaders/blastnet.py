r"""Folders of BLASTNet: a raw little-endian float32 file for each variable and snapshot, x slowest.

* With `info.json`: `global` has `Nxyz`, `variables`, `grid` and `bc`, `local` a list of snapshots with `id`, `time [s]` and the names of
  their files. Snapshots that have increasing times are one trajectory, others are samples.
* Without, as in the super-resolution set: `RHO_kgm-3_id<hash>.dat`, `UX_ms-1_id<hash>.dat`, .., cubes of unrelated flows, samples each; how
  far apart their points are, tables elsewhere say.

Fully compressible flow with reactions: $\nabla\cdot\mathbf u \neq 0$; the mass fractions sum to one only where all species are stored.

Source:
    Chung et al., Turbulence in focus: benchmarking scaling behavior of 3D volumetric super-resolution with BLASTNet 2.0 data, NeurIPS 2023;
    the standards of blastnet.github.io for the layout.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from constraints import Axis, Grid
from pde_datasets.fields import Fields
from pde_datasets.loaders.coordinates import coordinates, counted
from pde_datasets.loaders.files import small_json
from pde_datasets.loaders.limits import check_shape
from pde_datasets.loaders.parts import FIRST, SAMPLE, Part, assembled

_LARGEST = 1 << 24
"""Bytes of an info file."""

_FILE = re.compile(r"(.+)_id(\w+)\.dat")
_UNITS = {"ms-1": "m s-1", "kgm-3": "kg m-3", "Pa": "Pa", "K": "K", "m": "m", "s": "s"}
_ROLES = {"velocity": ("UX", "UY", "UZ"), "density": ("RHO",)}


class _Raw(Mapping[str, Any]):
    """Raw files of one shape by their path inside a folder, mapped one at a time."""

    def __init__(self, folder: Path, names: Sequence[str], shape: tuple[int, ...]) -> None:
        self.folder, self.names, self.shape = folder, names, shape

    def __getitem__(self, name: str) -> NDArray[Any]:
        return raw(self.folder, name, self.shape)

    def __iter__(self) -> Any:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def raw(folder: Path, name: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """A raw file inside a folder, mapped.

    Raises:
        ValueError: there is none, it lies outside the folder, or has another size.
    """
    path = (folder / name).resolve()
    size = 4 * int(np.prod(shape, dtype=np.int64))
    if not path.is_relative_to(folder.resolve()):
        raise ValueError(f"{folder.name}: blastnet expects files inside the folder; got '{name}'.")
    if not path.is_file() or path.stat().st_size != size:
        got = f"{path.stat().st_size} bytes" if path.is_file() else "no file"
        raise ValueError(
            f"{folder.name}: blastnet expects '{name}' with {size} bytes, float32 of shape {shape}; got {got}. Fetch it again."
        )
    return np.memmap(path, dtype="<f4", mode="r", shape=shape)


def recognises(path: Path) -> bool:
    """Whether a folder has an `info.json` with `global` and `local` parts, or files `<variable>_id<hash>.dat`."""
    if not path.is_dir():
        return False
    return _info(path) is not None or bool(_cubes(path))


def _info(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]] | None:
    """The two parts of `info.json`."""
    content = None
    with suppress(ValueError):
        content = small_json(folder / "info.json", _LARGEST)
    settings, snapshots = (content.get("global"), content.get("local")) if isinstance(content, dict) else (None, None)
    if not isinstance(settings, dict) or "Nxyz" not in settings or not isinstance(snapshots, list):
        return None
    return (settings, snapshots) if all(isinstance(entry, dict) for entry in snapshots) else None


def _cubes(folder: Path) -> dict[str, dict[str, str]]:
    """Files of a folder by variable and hash."""
    found: dict[str, dict[str, str]] = {}
    for entry in sorted(folder.iterdir()):
        match = _FILE.fullmatch(entry.name)
        if match is not None:
            found.setdefault(match[1], {})[match[2]] = entry.name
    return found


def load(path: Path) -> Fields:
    """The variables of a folder, left in their files until they are indexed.

    Returns:
        A channel a variable, named without its unit, on (x, y, z), with time before them where snapshots have times.

    Raises:
        ValueError: settings that are incomplete, or files that are missing, lie elsewhere or have another size.
    """
    info = _info(path)
    return _cubes_of_hashes(path, _cubes(path)) if info is None else _described(path, *info)


def _cubes_of_hashes(path: Path, cubes: dict[str, dict[str, str]]) -> Fields:
    hashes = sorted(next(iter(cubes.values()), {}))
    if not hashes or any(sorted(files) != hashes for files in cubes.values()):
        counts = ", ".join(f"{len(files)} of {variable}" for variable, files in cubes.items()) or "no file"
        raise ValueError(f"{path.name}: blastnet expects a file of each variable for each flow; got {counts}.")
    variables = _ordered(list(cubes))
    size = (path / cubes[variables[0]][hashes[0]]).stat().st_size // 4
    points = max(1, round(size ** (1 / 3)))
    files = {variable: tuple(cubes[variable][name] for name in hashes) for variable in variables}
    notes = "Cubes of unrelated flows; distances of their points are not stored here: axes count points, and none is periodic."
    shape = (points,) * 3
    return _fields(path, files, shape, Grid(*(counted(name, points) for name in "xyz")), SAMPLE, {"ids": hashes}, notes)


def _described(path: Path, settings: dict[str, Any], snapshots: list[dict[str, Any]]) -> Fields:
    variables, points = settings.get("variables"), settings.get("Nxyz")
    if not isinstance(variables, list) or not variables or not snapshots or not all(isinstance(name, str) for name in variables):
        raise ValueError(f"{path.name}: blastnet expects variables and snapshots in info.json; it has none.")
    if not isinstance(points, list) or len(points) != 3 or not all(isinstance(n, int) and n > 0 for n in points):
        raise ValueError(f"{path.name}: blastnet expects three numbers of points in Nxyz; got {points}.")
    files: dict[str, tuple[str, ...]] = {}
    for variable in _ordered(variables):
        names = [entry.get(f"{variable} filename") for entry in snapshots]
        if not all(isinstance(name, str) for name in names):
            raise ValueError(f"{path.name}: blastnet expects '{variable} filename' of each snapshot; it is missing for some.")
        files[variable] = tuple(str(name) for name in names)
    shape = (points[0], points[1], points[2])
    check_shape(f"{path.name}: a variable", shape, 4)
    first = raw(path, next(iter(files.values()))[0], shape)
    bc = str(settings.get("bc", ""))
    axes, notes = [], []
    for d, name in enumerate("xyz"):
        x = _coordinates(path, settings, name, shape, d)
        periodic = "periodic" in bc.lower() and re.search(rf"\b{name}\b", bc) is not None
        repeated = periodic and shape[d] > 2 and np.array_equal(first.take(0, d), first.take(-1, d))
        axes.append(_axis(name, shape[d], x, periodic, repeated))
        notes += [f"Coordinates {name} are not stored: the axis counts points."] * (x is None)
        notes += [f"Periodic along {name}, as bc says."] * periodic + [f"The last {name} repeats the first and was dropped."] * repeated
    times = np.array([t if isinstance(t := entry.get("time [s]"), (int, float)) else np.nan for entry in snapshots], dtype=np.float64)
    moving = len(times) > 1 and bool(np.isfinite(times).all() and (np.diff(times) > 0).all())
    notes.append("Compressible flow with reactions: laws can speak of mass flux, ideal gas and mass fractions; none is stated.")
    about: dict[str, Any] = {key: str(settings[key]) for key in ("dataset_id", "doi", "bc", "description") if key in settings}
    grid = Grid(Axis.at("time", times.tolist(), unit="s"), *axes) if moving else Grid(*axes)
    return _fields(path, files, shape, grid, FIRST if moving else SAMPLE, about, " ".join(notes))


def _axis(name: str, points: int, x: NDArray[np.float64] | None, periodic: bool, repeated: bool) -> Axis:
    """An axis with or without coordinates; without its last point, if that repeats the first."""
    if not periodic or points < 2:
        return counted(name, points) if x is None else Axis.at(name, x.tolist(), unit="m")
    kept = points - repeated
    if x is None:
        return Axis(name, kept, length=float(kept), periodic=True)
    return Axis.at(name, x[:kept].tolist(), periodic=True, length=float(x[-1] - x[0]) if repeated else None, unit="m")


def _fields(
    path: Path, files: dict[str, tuple[str, ...]], shape: tuple[int, ...], grid: Grid, stack: int, about: dict[str, Any], notes: str
) -> Fields:
    """Fields of variables of which each has a file for each position along an axis."""
    count = len(next(iter(files.values())))
    lead = (1, len(files), count) if stack == FIRST else (count, len(files))
    arrays = _Raw(path, [name for names in files.values() for name in names], shape)
    first = len(lead)
    parts = [Part(names, (first, first + 1, first + 2), stack=stack) for names in files.values()]
    u = assembled(path, parts, (*lead, *shape), arrays=arrays)
    named = [_named(variable) for variable in files]
    channels = tuple(name for name, _ in named)
    if len(set(channels)) < len(channels):
        channels, named = tuple(files), [(variable, unit) for variable, (_, unit) in zip(files, named, strict=True)]
    return Fields(
        u=u.narrowed(*(slice(None) for _ in lead), *(slice(0, axis.points) for axis in grid.space_axes)),
        grid=grid,
        channels=channels,
        units=tuple(unit for _, unit in named),
        roles={role: names for role, names in _ROLES.items() if set(names) <= set(channels)},
        attributes={"format": "blastnet", "path": path.name, "source": "BLASTNet", **about, "notes": notes},
    )


def _coordinates(path: Path, settings: dict[str, Any], name: str, points: tuple[int, ...], d: int) -> NDArray[np.float64] | None:
    """Coordinates along an axis, from the file that has them along it or everywhere; None where there is none."""
    files = settings.get("grid")
    file = files.get(name) if isinstance(files, dict) else None
    if not isinstance(file, str) or not (path / file).is_file():
        return None
    if (path / file).stat().st_size == 4 * points[d]:
        return coordinates(path, file, raw(path, file, (points[d],)), points[d])
    table = raw(path, file, points)
    line = table[tuple(slice(None) if k == d else 0 for k in range(3))]
    shape = [-1 if k == d else 1 for k in range(3)]
    if np.abs(table - line.reshape(shape)).max() > 1e-6 * np.abs(line).max():
        raise ValueError(f"{path.name}: blastnet expects a product of axes; {file} has {name} that varies along others too.")
    return coordinates(path, file, line, points[d])


def _ordered(variables: list[str]) -> list[str]:
    """Variables, the components of the velocity first and in their order."""
    velocity = [name for role in _ROLES["velocity"] for name in variables if _named(name)[0] == role]
    return velocity + [name for name in variables if name not in velocity]


def _named(variable: str) -> tuple[str, str]:
    """Channel and unit of a variable, `UX_ms-1`."""
    name, _, unit = variable.rpartition("_")
    return (name, _UNITS[unit]) if name and unit in _UNITS else (variable, "1")
