r"""OpenFOAM cases: the fields of all cells at all times, from `constant/polyMesh` and one folder a time.

A mesh is a list of faces. Face $f$ parts its owner from its neighbour, in that direction; faces without a neighbour are on the boundary,
patch by patch after the internal ones. Cells are numbered and have no other description: their centres and volumes follow from the
points of their faces, split into triangles and pyramids about the mean of their corners, as OpenFOAM computes them.

Fluxes live on faces: `open(case, "openfoam-flux")` reads `phi` with the balance of every cell (`openfoam_flux`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from constraints import Axis
from pde_datasets.fields import Fields
from pde_datasets.lazy import Lazy
from pde_datasets.loaders.foam import WIDTHS, Foam, find, header, unit
from pde_datasets.mesh import Mesh, on_mesh

_MESH = "constant/polyMesh"
_KINDS = {f"vol{kind[0].upper()}{kind[1:]}Field": kind for kind in WIDTHS}
_PARTS = {1: ("",), 3: ("_x", "_y", "_z"), 6: ("_xx", "_xy", "_xz", "_yy", "_yz", "_zz"),
          9: ("_xx", "_xy", "_xz", "_yx", "_yy", "_yz", "_zx", "_zy", "_zz")}  # fmt: skip
"""Endings of the channels of a field with so many numbers."""


def recognises(path: Path) -> bool:
    """Whether a folder has a mesh in `constant/polyMesh`, or a file begins as those of a case do: `load` says to open the folder."""
    return find(path / _MESH, "owner") is not None if path.is_dir() else bool(header(path))


@dataclass(frozen=True)
class Case:
    """The mesh of a case and the folders of its times.

    Attributes:
        folder: of the case.
        owner: cell on the near side of each face, (faces,).
        neighbour: cell on the far side of each internal face, (internal,).
        patches: name, type and range of the faces of each patch, in order.
        times: time and folder, increasing.
    """

    folder: Path
    owner: NDArray[np.int64]
    neighbour: NDArray[np.int64]
    patches: dict[str, tuple[str, slice]]
    times: tuple[tuple[float, Path], ...]

    @classmethod
    def read(cls, folder: Path) -> Case:
        """Read the mesh of a case.

        Raises:
            ValueError: one file of a case instead of its folder, files that are missing or damaged, patches that do not fill the
                boundary, a mesh that moves, or no time.
        """
        if not folder.is_dir():
            case = next((above for above in folder.parents if find(above / _MESH, "owner")), folder.parent)
            raise ValueError(
                f"{folder.name}: openfoam expects a folder; got one file of an OpenFOAM case. Open the folder of the case, '{case}'."
            )
        owner, neighbour = (_one_list(folder, name) for name in ("owner", "neighbour"))
        patches = {}
        for name, entry in _file(folder, "boundary").patches().items():
            try:
                start, size = int(entry["startFace"]), int(entry["nFaces"])
                patches[name] = (str(entry.get("type", "patch")), slice(start, start + size))
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(f"{folder.name}: openfoam expects nFaces and startFace of patch '{name}'; got {entry}.") from error
        ends = [len(neighbour), *(end for _, faces in patches.values() for end in (faces.start, faces.stop)), len(owner)]
        if any(stop != start for stop, start in zip(ends[::2], ends[1::2], strict=True)):
            raise ValueError(
                f"{folder.name}: openfoam expects patches that fill the faces from {len(neighbour)} to {len(owner)}, one after the other; "
                f"got {', '.join(f'{name} {faces.start} to {faces.stop}' for name, (_, faces) in patches.items())}. "
                "Is it a part of a split case?"
            )
        sides = np.concatenate([owner, neighbour])
        if not len(owner) or sides.min() < 0 or sides.max() >= len(sides):
            raise ValueError(f"{folder.name}: openfoam expects faces between cells that are numbered from 0 on. The mesh is damaged.")
        times = []
        for inside in folder.iterdir():
            try:
                when = float(inside.name)
            except ValueError:
                continue
            if inside.is_dir() and np.isfinite(when):
                times.append((when, inside))
        moving = [inside.name for _, inside in times if (inside / "polyMesh").exists()]
        if moving:
            raise ValueError(
                f"{folder.name}: openfoam expects one mesh for all times; there are others in {', '.join(sorted(moving)[:4])}."
            )
        if not times:
            way_out = " Run reconstructPar first." if (folder / "processor0").is_dir() else ""
            raise ValueError(f"{folder.name}: openfoam expects a folder for each time, such as '0'; there is none.{way_out}")
        return cls(folder, owner, neighbour, patches, tuple(sorted(times)))

    @property
    def cells(self) -> int:
        return int(max(self.owner.max(), self.neighbour.max(initial=0))) + 1

    def viscosity(self) -> dict[str, Tensor]:
        """The kinematic viscosity, if the case says it as a number."""
        for name in ("transportProperties", "physicalProperties"):
            path = find(self.folder / "constant", name)
            if path is not None and header(path):
                try:
                    words = str(Foam.read(path).dictionary()["nu"]).split()
                    return {"viscosity": torch.tensor([float(words[-1])], dtype=torch.float64)}
                except (KeyError, IndexError, ValueError):  # a model of its own, macros, nothing said
                    return {}
        return {}

    def geometry(self) -> Geometry | None:
        """Centres and sizes of faces and cells, None where points or faces are missing.

        Raises:
            ValueError: damaged files, or corners that are no points.
        """
        stored = {name: find(self.folder / _MESH, name) for name in ("points", "faces")}
        if stored["points"] is None or stored["faces"] is None:
            return None
        points, corners = Foam.read(stored["points"]).points(), Foam.read(stored["faces"]).faces()
        if len(corners) != len(self.owner) or any(len(c) < 3 or c.min() < 0 or c.max() >= len(points) for c in corners):
            raise ValueError(f"{self.folder.name}: openfoam expects {len(self.owner)} faces of three or more of {len(points)} points.")
        with np.errstate(all="ignore"):
            geometry = Geometry.of(points, corners, self.owner, self.neighbour, self.cells)
        if not np.isfinite(geometry.cell_centres).all() or not np.isfinite(geometry.face_centres).all():
            raise ValueError(f"{self.folder.name}: openfoam expects points with finite centres between them. The file points is damaged.")
        return geometry


@dataclass(frozen=True)
class Geometry:
    """Centres of faces and cells, area vectors of faces out of their owners, volumes of cells."""

    face_centres: NDArray[np.float64]
    areas: NDArray[np.float64]
    cell_centres: NDArray[np.float64]
    volumes: NDArray[np.float64]

    @classmethod
    def of(
        cls,
        points: NDArray[np.float64],
        corners: list[NDArray[np.int64]],
        owner: NDArray[np.int64],
        neighbour: NDArray[np.int64],
        cells: int,
    ) -> Geometry:
        r"""Sum triangles $(x_i, x_{i+1}, \bar x)$ to faces, and pyramids from the faces to the mean of their centres to cells."""
        sizes = np.array([len(c) for c in corners])
        face, flat = np.repeat(np.arange(len(corners)), sizes), np.concatenate(corners)
        following = np.arange(len(flat)) + 1
        following[np.cumsum(sizes) - 1] -= sizes
        near, far = points[flat], points[flat[following]]
        middle = _summed(near, face, len(corners)) / sizes[:, None]
        area = np.cross(far - near, middle[face] - near) / 2
        areas = _summed(area, face, len(corners))
        # a triangle counts by its area along the face, so that both ways around cancel where a face folds back
        direction = areas / np.maximum(np.linalg.norm(areas, axis=1), 1e-300)[:, None]
        weight = (area * direction[face]).sum(1)
        total = np.bincount(face, weight, len(corners))
        centres = _summed((near + far + middle[face]) / 3 * weight[:, None], face, len(corners)) / np.where(total > 0, total, 1)[:, None]
        centres = np.where((total > 0)[:, None], centres, middle)
        cell = np.concatenate([owner, neighbour])
        side = np.concatenate([np.arange(len(owner)), np.arange(len(neighbour))])
        sign = np.concatenate([np.ones(len(owner)), -np.ones(len(neighbour))])
        about = _summed(centres[side], cell, cells) / np.maximum(np.bincount(cell, minlength=cells), 1)[:, None]
        pyramid = sign * (areas[side] * (centres[side] - about[cell])).sum(1) / 3
        volumes = np.bincount(cell, pyramid, cells).astype(np.float64)
        heavy = _summed((3 / 4 * centres[side] + about[cell] / 4) * pyramid[:, None], cell, cells)
        return cls(centres, areas, heavy / np.where(volumes != 0, volumes, 1)[:, None], volumes)


def load(path: Path) -> Fields:
    """The fields of all cells at all times, as one sample.

    A field is read where every time has it; a vector `U` is the channels `U_x`, `U_y`, `U_z`. Velocity and pressure come first. With one
    time there is no time axis. `mesh.boundary` names the cells beside each patch; `mesh.points` are the cell centres and the parameter
    `volume` (1, cells) their volumes, where the case has its points and faces.

    Returns:
        Cell values on (time, cell), in the float type of the case, left in the files until they are indexed.

    Raises:
        ValueError: see `Case.read`; no field that all times have; or a field of another mesh or a damaged file, when it is read.
    """
    case = Case.read(path)
    stored = [_fields(folder) for _, folder in case.times]
    common = [name for name in stored[0] if all(stored[0][name][1] == times.get(name, (None, ""))[1] for times in stored)]
    if not common:
        raise ValueError(
            f"{path.name}: openfoam expects a field of the cells, such as U or p, that every time has; got "
            f"{'; '.join(f'{when:g}: ' + (', '.join(times) or 'none') for (when, _), times in zip(case.times[:4], stored, strict=False))}."
        )
    names = sorted(common, key=lambda name: (("U", "p").index(name) if name in ("U", "p") else 2, name))
    widths = [WIDTHS[_KINDS[stored[0][name][1]]] for name in names]
    parts = [(name, i) for name, width in zip(names, widths, strict=True) for i in range(width)]
    channels = tuple(name + _PARTS[width][i] for name, width in zip(names, widths, strict=True) for i in range(width))
    heads = {name: header(stored[-1][name][0]) for name in names}

    def read(box: tuple[slice, ...]) -> NDArray[Any]:
        wanted = parts[box[1]]
        frames = []
        for times in stored[box[2]] if len(stored) > 1 else stored:
            files = {name: _cell_values(times[name][0], case.cells, WIDTHS[_KINDS[times[name][1]]]) for name in {n for n, _ in wanted}}
            frames.append(np.stack([files[name][:, i] for name, i in wanted])[:, box[-1]])
        return np.stack(frames, axis=1)[None] if len(stored) > 1 else frames[0][None]

    geometry = case.geometry()
    single = all(Foam.read(stored[-1][name][0]).scalar.itemsize == 4 for name in names)
    axis = _time_axis(case.times)
    shape = (1, len(channels), *((len(stored),) if axis else ()), case.cells)
    others = sorted({name for times in stored for name in times} - set(names))
    notes = [f"Values at cell centres of a mesh of {case.cells} cells and {len(case.owner)} faces.", _place(geometry)]
    notes += [f"Times differ in {', '.join(others)}: left out."] if others else []
    fluxes = any(find(f, "phi") for _, f in case.times)
    notes += ["Fluxes on faces: open with format 'openfoam-flux'."] if fluxes else []
    beside = {name: torch.from_numpy(np.unique(case.owner[faces])) for name, (kind, faces) in case.patches.items() if kind != "empty"}
    centres = np.empty((0, 3)) if geometry is None else geometry.cell_centres
    volume = {} if geometry is None else {"volume": torch.from_numpy(geometry.volumes)[None]}
    return Fields(
        u=Lazy(read, shape, torch.float32 if single else torch.float64, path.name),
        grid=on_mesh(case.cells, "cell", time=axis),
        channels=channels,
        units=tuple(unit(heads[name]) for name, _ in parts),
        parameters=case.viscosity() | volume,
        roles={"velocity": ("U_x", "U_y", "U_z")} if "U_x" in channels else {},
        attributes={
            "format": "openfoam",
            "path": path.name,
            "source": "OpenFOAM",
            "boundaries": "; ".join(f"{name}: {_patches(stored[-1][name][0], case)}" for name in names),
            "notes": " ".join(notes),
        }
        | ({"companion": "openfoam-flux"} if fluxes else {})
        | ({} if axis else {"time": case.times[0][0]}),
        mesh=Mesh(torch.from_numpy(centres), "cell", boundary=beside),
    )


def _time_axis(times: tuple[tuple[float, Path], ...]) -> Axis | None:
    """The axis of several times, None of one."""
    return Axis.at("time", [when for when, _ in times], unit="s") if len(times) > 1 else None


def _patches(path: Path, case: Case) -> str:
    """What a field does on each patch that carries values: its value where it is fixed and uniform, else the name of the condition."""
    entries = Foam.read(path).dictionary().get("boundaryField")
    told = []
    for name, (kind, _) in case.patches.items():
        entry = entries.get(name) if isinstance(entries, dict) else None
        if kind == "empty" or not isinstance(entry, dict):
            continue
        condition, value = str(entry.get("type", "unknown")), str(entry.get("value", ""))
        fixed = condition == "fixedValue" and value.startswith("uniform")
        told.append(f"{name} {' '.join(value.removeprefix('uniform').split()) if fixed else condition}")
    return ", ".join(told)


def _place(geometry: Geometry | None) -> str:
    return "Points or faces are missing: no coordinates." if geometry is None else "Centres and volumes as OpenFOAM computes them."


def _fields(folder: Path) -> dict[str, tuple[Path, str]]:
    """File and class of each field of the cells in the folder of a time."""
    found = {}
    for path in sorted(folder.iterdir()):
        kind = header(path).get("class", "") if path.is_file() else ""
        if kind in _KINDS:
            found[path.name.removesuffix(".gz")] = (path, kind)
    return found


def _cell_values(path: Path, cells: int, width: int) -> NDArray[Any]:
    file = Foam.read(path)
    return file.values(file.dictionary().get("internalField"), cells, width, "internalField")


def _file(folder: Path, name: str) -> Foam:
    path = find(folder / _MESH, name)
    if path is None:
        raise ValueError(f"{folder.name}: openfoam expects {_MESH}/{name}; there is none. The case is incomplete.")
    return Foam.read(path)


def _one_list(folder: Path, name: str) -> NDArray[np.int64]:
    file = _file(folder, name)
    lists = file.labels()
    if len(lists) != 1:
        raise file.damaged("one list of cells")
    return lists[0]


def _summed(values: NDArray[np.float64], index: NDArray[np.int64], count: int) -> NDArray[np.float64]:
    """Rows of equal index added, (count, d)."""
    return np.stack([np.bincount(index, column, count) for column in values.T], axis=1)
