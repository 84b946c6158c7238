"""Loaders of meshes, point clouds and tables: small files written as their programs write them, every trap, and the real ones."""

from __future__ import annotations

import base64
import gzip
import lzma
import math
import os
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import meshio
import numpy as np
import pytest
import scipy.io
import torch

import pde_datasets
from pde_datasets.finite_elements import interior_nodes, p1_stiffness
from pde_datasets.loaders import FORMATS
from pde_datasets.loaders.points import layout
from pde_datasets.loaders.si import si

ROOT = Path(__file__).resolve().parents[1]


def real(path: str) -> Path:
    """A third-party file, or a skip that says where they are from."""
    file = Path(os.environ.get("PCFM_DATA", ROOT / ".." / "shared" / "data")) / path
    if not file.exists():
        pytest.skip(f"no {path}: docs/data.md says where it is from; put it there, or point PCFM_DATA to a folder that has it")
    return file


# --- OpenFOAM ----------------------------------------------------------------------------------------------------------------------

BOX = (3, 2, 1)
SKEW = np.array([[1.0, 0.3, 0.0], [0.0, 0.5, 0.1], [0.2, 0.0, 2.0]])
"""An affine map of the unit cells: hexahedra stay flat, their centres are mapped and their volumes are its determinant."""


def box_mesh() -> dict[str, Any]:
    """Unit hexahedra, skewed: points, faces with their corners out of the owner, owner, neighbour, patches."""
    nx, ny, nz = BOX
    corner = np.arange((nx + 1) * (ny + 1) * (nz + 1)).reshape(nx + 1, ny + 1, nz + 1)
    points = np.stack(np.meshgrid(*(np.arange(n + 1.0) for n in BOX), indexing="ij"), -1).reshape(-1, 3) @ SKEW.T
    cell = np.arange(nx * ny * nz).reshape(BOX)

    def side(axis: int, at: tuple[int, int, int], out: bool) -> list[int]:
        a, b = [d for d in range(3) if d != axis]
        steps = [(0, 0), (1, 0), (1, 1), (0, 1)]
        if (axis == 1) == out:
            steps.reverse()
        loop = []
        for i, j in steps:
            place = list(at)
            place[a], place[b] = place[a] + i, place[b] + j
            place[axis] += out
            loop.append(int(corner[tuple(place)]))
        return loop

    inside, patches = [], {"inlet": [], "outlet": [], "walls": [], "sides": []}
    for at in np.ndindex(*BOX):
        for axis in range(3):
            beyond = list(at)
            beyond[axis] += 1
            if beyond[axis] < BOX[axis]:
                inside.append((side(axis, at, True), int(cell[at]), int(cell[tuple(beyond)])))
            for out in (False, True):
                if at[axis] == (BOX[axis] - 1 if out else 0):
                    name = ("outlet" if out else "inlet", "walls", "sides")[axis]
                    patches[name].append((side(axis, at, out), int(cell[at])))
    flat = [face for faces in patches.values() for face in faces]
    return {
        "points": points,
        "faces": [f for f, *_ in inside] + [f for f, _ in flat],
        "owner": [o for _, o, _ in inside] + [o for _, o in flat],
        "neighbour": [n for *_, n in inside],
        "sizes": {name: len(faces) for name, faces in patches.items()},
    }


def areas(mesh: dict[str, Any]) -> np.ndarray:
    """Area vectors of flat four-sided faces: half the product of the diagonals."""
    loops = mesh["points"][np.array(mesh["faces"])]
    return np.cross(loops[:, 2] - loops[:, 0], loops[:, 3] - loops[:, 1]) / 2


class Foam:
    """Writes files as OpenFOAM does: text, or lists in bytes of an architecture."""

    def __init__(self, folder: Path, arch: str | None = None, packed: bool = False) -> None:
        self.folder, self.arch, self.packed = folder, arch, packed
        order, label, scalar = ("<", "32", "64") if arch is None else ("<" if arch[0] == "L" else ">", arch[10:12], arch[-2:])
        self.label, self.scalar = f"{order}i{int(label) // 8}", f"{order}f{int(scalar) // 8}"

    def write(self, name: str, kind: str, body: bytes, dimensions: str = "") -> None:
        form = "ascii" if self.arch is None or name.endswith("boundary") else "binary"
        arch = "" if self.arch is None else f'    arch        "{self.arch}";\n'
        banner = "/*---- C++ ----*\\\n| =========  |\n\\*------------*/\n"
        head = f"{banner}FoamFile\n{{\n    version     2.0;\n    format      {form};\n{arch}    class       {kind};\n"
        head += f"    object      {name};\n}}\n// * * * //\n\n"
        head += f"dimensions      [{dimensions}];\n\n" if dimensions else ""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = head.encode() + body + b"\n\n// ***** //\n"
        if self.packed:
            path.with_name(path.name + ".gz").write_bytes(gzip.compress(data))
        else:
            path.write_bytes(data)

    def values(self, array: Any, kind: str | None = None) -> bytes:
        """A list of numbers or vectors."""
        array = np.asarray(array)
        kind = kind or self.scalar
        if not len(array):
            return b"0()" if self.arch is None else b"0"
        if self.arch is not None:
            return b"%d\n(" % len(array) + array.astype(kind).tobytes() + b")"
        if array.ndim == 1:
            return b"%d\n(\n" % len(array) + "\n".join(repr(value) for value in array.tolist()).encode() + b"\n)"
        rows = "\n".join("(" + " ".join(map(repr, row)) + ")" for row in array.tolist())
        return b"%d\n(\n" % len(array) + rows.encode() + b"\n)"

    def field(self, array: Any) -> bytes:
        kind = "scalar" if np.asarray(array).ndim == 1 else {3: "vector", 6: "symmTensor"}[np.asarray(array).shape[1]]
        return f"nonuniform List<{kind}> \n".encode() + self.values(array)

    def faces(self, faces: list[list[int]]) -> None:
        if self.arch is None:
            text = "\n".join(f"{len(f)}({' '.join(map(str, f))})" for f in faces)
            return self.write("constant/polyMesh/faces", "faceList", f"{len(faces)}\n(\n{text}\n)".encode())
        offsets = np.cumsum([0, *map(len, faces)])
        body = self.values(offsets, self.label) + b"\n\n" + self.values(np.concatenate(faces), self.label)
        return self.write("constant/polyMesh/faces", "faceCompactList", body)


VELOCITY = np.array([1.0, 0.25, -0.5])


def write_openfoam(folder: Path, arch: str | None = None, packed: bool = False, faces: bool = True) -> Path:
    """A box of six cells at times 0 (uniform), 0.5 and 10, with the exact fluxes of a constant velocity at the last two."""
    mesh, case = box_mesh(), folder / "case"
    foam = Foam(case, arch, packed)
    foam.write("constant/polyMesh/points", "vectorField", foam.values(mesh["points"]))
    if faces:
        foam.faces(mesh["faces"])
    foam.write("constant/polyMesh/owner", "labelList", foam.values(mesh["owner"], foam.label))
    foam.write("constant/polyMesh/neighbour", "labelList", foam.values(mesh["neighbour"], foam.label))
    start, entries = len(mesh["neighbour"]), ""
    for name, size in mesh["sizes"].items():
        kind = {"walls": "wall", "sides": "empty"}.get(name, "patch")
        entries += f"    {name}\n    {{\n        type            {kind};\n        inGroups        List<word> 1({kind});\n"
        entries += f"        nFaces          {size};\n        startFace       {start};\n    }}\n"
        start += size
    foam.write("constant/polyMesh/boundary", "polyBoundaryMesh", f"{len(mesh['sizes'])}\n(\n{entries})".encode())
    foam.write("constant/transportProperties", "dictionary", b"transportModel  Newtonian;\nnu              nu [0 2 -1 0 0 0 0] 1.5e-5;")
    patches = "\n".join(f"    {name}\n    {{\n        type            zeroGradient;\n    }}" for name in mesh["sizes"]).encode()
    boundary = b";\n\nboundaryField\n{\n" + patches + b"\n}"
    cells = int(np.prod(BOX))
    for time, factor in (("0", 0.0), ("0.5", 0.5), ("10", 10.0)):
        p, U = pressure(factor), np.tile(factor * VELOCITY, (cells, 1)) + np.arange(cells)[:, None]
        if time == "0":
            foam.write("0/U", "volVectorField", b"internalField   uniform ( 0 0 -1e-3 )" + boundary, "0 1 -1 0 0 0 0")
            foam.write("0/p", "volScalarField", b"internalField   uniform 2.5" + boundary, "0 2 -2 0 0 0 0")
            continue
        foam.write(f"{time}/U", "volVectorField", b"internalField   " + foam.field(U) + boundary, "0 1 -1 0 0 0 0")
        foam.write(f"{time}/p", "volScalarField", b"internalField   " + foam.field(p) + boundary, "0 2 -2 0 0 0 0")
        phi, first, parts = areas(mesh) @ (factor * VELOCITY), len(mesh["neighbour"]), b""
        for name, size in mesh["sizes"].items():
            value = foam.field([]) if name == "sides" else foam.field(phi[first : first + size])
            kind = b"empty" if name == "sides" else b"calculated"
            parts += (
                b"    "
                + name.encode()
                + b"\n    {\n        type            "
                + kind
                + b";\n        value           "
                + value
                + b";\n    }\n"
            )
            first += size
        body = b"internalField   " + foam.field(phi[: len(mesh["neighbour"])]) + b";\n\nboundaryField\n{\n" + parts + b"}"
        foam.write(f"{time}/phi", "surfaceScalarField", body, "0 3 -1 0 0 0 0")
        foam.write(f"{time}/uniform/time", "dictionary", f"value {time};\nindex 3;".encode())
    return case


def pressure(factor: float) -> np.ndarray:
    return factor + np.linspace(0, 1, int(np.prod(BOX)))


# --- tables, clouds and grids ------------------------------------------------------------------------------------------------------

NODES = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.3, 0.4], [0.9, 0.7]])


def write_comsol(
    path: Path, nodes: np.ndarray = NODES, names: tuple[str, ...] = ("u (m/s) @ t=0", "u (m/s) @ t=0.1", "p (kPa) @ t=0", "p (kPa) @ t=0.1")
) -> Path:
    """Columns are 100 x + 10 y + their number."""
    head = ["Model:              热.mph", "Version:            COMSOL 6.0.0.354", "Date:               May 11 2023, 12:09"]
    head += ["Dimension:          2", f"Nodes:              {len(nodes)}", f"Expressions:        {len(names)}"]
    head += ["Description:        因变量 u, 压力", "Length unit:        mm", "  ".join(f"{n:<23}" for n in ("X", "Y", *names)).rstrip()]
    rows = ["  ".join(f"{value!r:<23}" for value in (x, y, *(100 * x + 10 * y + i for i in range(len(names))))) for x, y in nodes.tolist()]
    path.write_bytes("\r\n".join([*(f"% {line}" for line in head), *(row.rstrip() for row in rows), ""]).encode())
    return path


def insight(codes: dict[tuple[int, int], int] | None = None, units: str = "m/s", size: tuple[int, int] = (3, 2)) -> tuple[str, list[str]]:
    """Head and rows of a vector file: u = x + 10 y, v = x - y on x = 1, 2, 4 mm, y = -1, -2 mm."""
    head = f'TITLE="C:\\a.vec" VARIABLES="X mm", "Y mm", "U {units}", "V {units}", "CHC", DATASETAUXDATA MicrosecondsPerDeltaT="2000.0" '
    head += f"ZONE I={size[0]}, J={size[1]}, F=POINT\n"
    rows = [f"{x:.6f}, {y:.6f}, {x + 10 * y:.6f}, {x - y:.6f}, {(codes or {}).get((x, y), 1)}\n" for y in (-1, -2) for x in (1, 2, 4)]
    return head, rows


def write_piv(path: Path) -> Path:
    head, rows = insight({(2, -1): -2, (4, -2): 0})
    path.write_text(head + "".join(rows))
    return path


def write_davis(path: Path) -> Path:
    """The same with decimal commas, one vector masked."""
    rows = [
        f"{x:.4f}\t{y:.4f}\t{0 if (x, y) == (2, -1) else x + 10 * y:.4f}\t{0 if (x, y) == (2, -1) else x - y:.4f}".replace(".", ",")
        for y in (-1, -2)
        for x in (1, 2, 4)
    ]
    path.write_text('#DaVis 8.1.2 2D-vector 16 3 2 "position" "mm" "position" "mm" "velocity" "mm/s"\n' + "\n".join(rows) + "\n")
    return path


def write_pyclaw(path: Path, q: np.ndarray | None = None, time: float = 0.25, patches: int = 1) -> Path:
    q = gas((4, 3)) if q is None else q
    with h5py.File(path, "w") as file:
        for number in range(1, patches + 1):
            group = file.create_group(f"patch{number}")
            group["q"] = q
            names = ("x", "y", "z")[: q.ndim - 1]
            group.attrs["dimensions"] = [name.encode() for name in names]
            for key, value in {"t": time, "num_eqn": len(q), "num_aux": 0, "level": 1, "patch_index": number}.items():
                group.attrs[key] = value
            for name, cells in zip(names, q.shape[1:], strict=True):
                for key, value in {"lower": -1.0, "upper": 3.0, "num_cells": cells, "delta": 4.0 / cells}.items():
                    group.attrs[f"{name}.{key}"] = value
    return path


def gas(shape: tuple[int, ...]) -> np.ndarray:
    rng = np.random.default_rng(0)
    density, momentum = rng.uniform(1, 2, shape), rng.normal(size=(len(shape), *shape))
    return np.stack([density, *momentum, (momentum**2).sum(0) / (2 * density) + 1])


def triangulation(n: int = 5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Points (n², 2) of the unit square, uneven inside, and triangles, either way around."""
    i, j = (index.ravel() for index in np.meshgrid(np.arange(n), np.arange(n), indexing="ij"))
    inside = (i % (n - 1) > 0) & (j % (n - 1) > 0)
    move = np.random.default_rng(seed).uniform(-0.05, 0.05, (n * n, 2)) * inside[:, None]
    corner = (i * n + j)[(i < n - 1) & (j < n - 1)]
    first = np.stack([corner, corner + n, corner + 1], 1)
    return np.stack([i, j], 1) / (n - 1) + move, np.concatenate([first, np.stack([corner + n + 1, corner + n, corner + 1], 1)])


def write_pina(path: Path, source: float = 10.0, samples: int = 3) -> Path:
    """Solutions of K u = source F, zero on the boundary, on meshes that deform."""
    meshes = [triangulation(seed=seed)[0] for seed in range(samples)]
    triangles = torch.from_numpy(triangulation()[1])
    columns = []
    for mesh in meshes:
        K, F = p1_stiffness(torch.from_numpy(mesh), triangles)
        inside = interior_nodes(triangles, len(mesh))
        u = torch.zeros(len(mesh), dtype=torch.float64)
        u[inside] = torch.linalg.solve(K.to_dense()[inside][:, inside], source * F[inside])
        columns.append(u)
    x, y = torch.from_numpy(np.stack(meshes, -1)).unbind(1)
    data = {"x": x, "y": y, "u": torch.stack(columns, 1), "triang": triangles, "mu": torch.rand(samples, 2), "edge_index": triangles.T[:2]}
    torch.save({name: value.float() if value.is_floating_point() else value for name, value in data.items()}, path)
    return path


def packed(data: bytes, word: str, how: str, block: int = 48) -> bytes:
    """An array as VTK stores it: its length, or the lengths of its packed blocks, before it; in base 64 each of the two by itself."""
    plain = np.array([len(data)], word).tobytes() + data
    if how == "raw":
        return plain
    if how == "base64":
        return base64.b64encode(plain)
    pack = {"zlib": zlib.compress, "lzma": lzma.compress}[how]
    blocks = [pack(data[i : i + block]) for i in range(0, len(data), block)]
    head = np.array([len(blocks), block, len(data) % block, *map(len, blocks)], word).tobytes()
    return base64.b64encode(head) + base64.b64encode(b"".join(blocks))


def write_vtk(
    path: Path, kind: str, pieces: str, arrays: dict[str, np.ndarray], how: str = "ascii", word: str = "<u4", place: str = "inline"
) -> Path:
    """An XML file of VTK. `pieces` has `{name}` where the array of that name stands; `place` says whether its numbers do as well."""
    types = {"f8": "Float64", "f4": "Float32", "i8": "Int64", "u1": "UInt8", "i4": "Int32"}
    order, tail, elements = "LittleEndian" if word[0] == "<" else "BigEndian", b"", {}
    for name, array in arrays.items():
        label = f'type="{types[array.dtype.str[1:]]}" Name="{name}" NumberOfComponents="{1 if array.ndim == 1 else array.shape[1]}"'
        data = array.astype(array.dtype.newbyteorder(word[0])).tobytes()
        if how == "ascii":
            elements[name] = f'<DataArray {label} format="ascii">{" ".join(map(repr, array.ravel().tolist()))}</DataArray>'
        elif place == "inline":
            elements[name] = f'<DataArray {label} format="binary">{packed(data, word, how).decode()}</DataArray>'
        else:
            elements[name] = f'<DataArray {label} format="appended" offset="{len(tail)}"/>'
            tail += packed(data, word, how)
    compressor = {"zlib": ' compressor="vtkZLibDataCompressor"', "lzma": ' compressor="vtkLZMADataCompressor"'}.get(how, "")
    head = f'<?xml version="1.0"?>\n<VTKFile type="{kind}" version="1.0" byte_order="{order}" '
    head += f'header_type="UInt{8 * int(word[2])}"{compressor}>\n'
    encoding = "raw" if how == "raw" else "base64"
    appended = b'\n<AppendedData encoding="%b">\n_%b\n</AppendedData>' % (encoding.encode(), tail) if place == "appended" else b""
    path.write_bytes(head.encode() + pieces.format(**elements).encode() + appended + b"\n</VTKFile>\n")
    return path


def unstructured() -> dict[str, np.ndarray]:
    """A square of two triangles beside one of four corners, triangles first and last."""
    points = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0], [2, 0, 0], [2, 1, 0]], dtype=np.float64)
    return {
        "points": points,
        "connectivity": np.array([0, 1, 2, 1, 4, 5, 3, 1, 3, 2]),
        "offsets": np.array([3, 7, 10]),
        "types": np.array([5, 9, 5], dtype=np.uint8),
        "p": points[:, 0] + 10 * points[:, 1],
        "U": points * [1.0, -1.0, 0.0] + 0.5,
        "density": np.array([1.0, 2.0, 3.0]),
    }


UNSTRUCTURED = """<UnstructuredGrid><Piece NumberOfPoints="6" NumberOfCells="3">
<PointData>{p}{U}</PointData><CellData>{density}</CellData>
<Points>{points}</Points><Cells>{connectivity}{offsets}{types}</Cells></Piece></UnstructuredGrid>"""


def write_vtu(path: Path, **settings: Any) -> Path:
    return write_vtk(path, "UnstructuredGrid", UNSTRUCTURED, unstructured(), **settings)


def write_vtp(path: Path) -> Path:
    data = unstructured()
    arrays = {
        "points": data["points"], "p": data["p"].astype(np.float32), "connectivity": data["connectivity"], "offsets": data["offsets"],
        "lines": np.array([0, 1, 4]), "ends": np.array([2, 3]),
    }  # fmt: skip
    lines = '<Lines><DataArray type="Int64" Name="connectivity" format="ascii">0 1 1 4</DataArray>'
    lines += '<DataArray type="Int64" Name="offsets" format="ascii">2 4</DataArray></Lines>'
    pieces = f"""<PolyData><Piece NumberOfPoints="6" NumberOfVerts="0" NumberOfLines="2" NumberOfPolys="3"><PointData>{{p}}</PointData>
    <Points>{{points}}</Points>{lines}<Polys>{{connectivity}}{{offsets}}</Polys></Piece></PolyData>"""
    return write_vtk(path, "PolyData", pieces, arrays, how="base64")


def write_legacy(path: Path, binary: bool = True) -> Path:
    data = unstructured()
    cells = [("triangle", [[0, 1, 2]]), ("quad", [[1, 4, 5, 3]]), ("triangle", [[1, 3, 2]])]
    mesh = meshio.Mesh(data["points"], cells, {"p": data["p"], "U": data["U"]}, {"density": [[1.0], [2.0], [3.0]]})
    mesh.write(path, file_format="vtk42", binary=binary)
    return path


AIRFOIL = "airFoil2D_SST_43.597_5.932_3.551_3.1_1.0_18.252"


def write_airfrans(folder: Path) -> Path:
    data = {name: values for name, values in unstructured().items() if name != "density"}
    data |= {"nut": 1e-5 * data["p"], "implicit_distance": -data["p"]}
    data = {name: values.astype(np.float32) if name in ("p", "U", "nut", "implicit_distance") else values for name, values in data.items()}
    case = folder / AIRFOIL
    case.mkdir()
    pieces = UNSTRUCTURED.replace("{density}", "").replace("{p}{U}", "{U}{p}{nut}{implicit_distance}")
    write_vtk(case / f"{AIRFOIL}_internal.vtu", "UnstructuredGrid", pieces, data, how="raw", place="appended")
    return case


def write_points(path: Path) -> Path:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 1, 40))
    scipy.io.savemat(path, {"x": x, "y": y, "w": np.clip(10 * x, -5, 5), "modes": np.uint8([[11]])})
    return path


def write_spectra(path: Path) -> Path:
    blocks = "".join(f"   4 {t:.5E}\n" + "".join(f" {t * k:.5E}\n" for k in range(4)) for t in (0.5, 1.0, 2.0))
    path.write_text("HOM02\n\nEnergy spectra E(k,t)\n\nnk t\nE(0,t)\n...\n\n" + blocks)
    return path


def write_columns(path: Path) -> Path:
    rows = "".join(f"{0.1 * i:.3f}  {math.cos(0.1 * i):.12e} {i * i}\n" for i in range(8))
    path.write_text("# a table\n#  t   energy   count\n" + rows)
    return path


WRITERS: dict[str, Callable[[Path], Path]] = {
    "openfoam": write_openfoam,
    "openfoam/binary": lambda folder: write_openfoam(folder, "LSB;label=32;scalar=64"),
    "openfoam/gz": lambda folder: write_openfoam(folder, packed=True),
    "comsol": lambda folder: write_comsol(folder / "nodes.dat"),
    "piv": lambda folder: write_piv(folder / "frame.vec"),
    "piv/davis": lambda folder: write_davis(folder / "frame.txt"),
    "pyclaw": lambda folder: write_pyclaw(folder / "claw0000.hdf"),
    "pina": lambda folder: write_pina(folder / "poisson.pt"),
    "vtk": lambda folder: write_vtu(folder / "mesh.vtu"),
    "vtk/zlib": lambda folder: write_vtu(folder / "mesh.vtu", how="zlib"),
    "vtk/raw": lambda folder: write_vtu(folder / "mesh.vtu", how="raw", place="appended"),
    "vtk/surface": lambda folder: write_vtp(folder / "mesh.vtp"),
    "vtk/legacy": lambda folder: write_legacy(folder / "mesh.vtk"),
    "airfrans": write_airfrans,
    "matlab/points": lambda folder: write_points(folder / "points.mat"),
    "spectra": lambda folder: write_spectra(folder / "spectra.es"),
    "columns": lambda folder: write_columns(folder / "table.dat"),
}
"""A small valid file or folder of each format, `format` or `format-variant`."""


# --- all formats -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["comsol", "piv", "piv/davis", "pina", "pyclaw", "vtk", "vtk/zlib", "vtk/raw", "vtk/legacy", "spectra"])
@pytest.mark.parametrize("share", [0.5, 0.8, 0.95])
def test_truncated_files(kind: str, share: float, tmp_path: Path) -> None:
    """What says how much it holds is refused when it holds less."""
    path = WRITERS[kind](tmp_path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ValueError, match=r"truncated|damaged|there are none") as caught:
        pde_datasets.open(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("file", ["constant/polyMesh/owner", "constant/polyMesh/faces", "constant/polyMesh/points", "10/U", "0.5/p"])
@pytest.mark.parametrize("kind", ["openfoam", "openfoam/binary"])
def test_truncated_cases(file: str, kind: str, tmp_path: Path) -> None:
    path = WRITERS[kind](tmp_path)
    data = (path / file).read_bytes()
    (path / file).write_bytes(data[: data.index(b"// * * * //") + 20])
    with pytest.raises(ValueError, match=r"openfoam expects") as caught:
        pde_datasets.open(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", WRITERS)
def test_fields_live_on_what_they_say(kind: str, tmp_path: Path) -> None:
    """Cells name corners among the points, boundaries positions among the values, equations have a column a value."""
    fields = pde_datasets.open(WRITERS[kind](tmp_path))
    if fields.mesh is None:
        assert all(axis.name not in ("point", "cell", "face") for axis in fields.grid.axes)
        return
    count = fields.grid.shape[-1]
    assert fields.grid.names[-1] == fields.mesh.location
    points = fields.mesh.points.shape[-2]
    assert fields.mesh.location == "cell" or points == count
    for corners in fields.mesh.cells.values():
        assert int(corners.min()) >= 0
        assert int(corners.max()) < points
    for positions in fields.mesh.boundary.values():
        assert int(positions.max()) < count
    for equation in fields.mesh.equations.values():
        assert equation.of(0)[0].shape[1] == len(fields.channels) * count


# --- OpenFOAM ----------------------------------------------------------------------------------------------------------------------

ARCHITECTURES = [
    None,
    "LSB;label=32;scalar=64",
    "LSB;label=64;scalar=64",
    "LSB;label=32;scalar=32",
    "MSB;label=32;scalar=64",
    "MSB;label=64;scalar=32",
]


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_trap_16_openfoam_lists(arch: str | None, packing: bool, tmp_path: Path) -> None:
    """Text and bytes of any width and order, uniform and listed: the same fields."""
    fields = pde_datasets.open(write_openfoam(tmp_path, arch, packing))
    cells = int(np.prod(BOX))
    single = arch is not None and arch.endswith("32")
    assert fields.u.dtype == (torch.float32 if single else torch.float64)
    assert fields.channels == ("U_x", "U_y", "U_z", "p")
    assert fields.units == ("m s-1", "m s-1", "m s-1", "m2 s-2")
    assert fields.grid.axes[0].positions().tolist() == [0.0, 0.5, 10.0]
    expected = np.empty((4, 3, cells))
    expected[:3, 0], expected[3, 0] = np.array([[0], [0], [-1e-3]]), 2.5
    for t, factor in ((1, 0.5), (2, 10.0)):
        expected[:3, t] = factor * VELOCITY[:, None] + np.arange(cells)
        expected[3, t] = pressure(factor)
    np.testing.assert_allclose(fields.values[0].numpy(), expected, rtol=1e-6 if single else 0)
    assert fields.parameters["viscosity"].tolist() == [1.5e-5]
    assert fields.roles == {"velocity": ("U_x", "U_y", "U_z")}


@pytest.mark.parametrize("arch", ARCHITECTURES[:2])
def test_openfoam_geometry_of_skewed_boxes(arch: str | None, tmp_path: Path) -> None:
    fields = pde_datasets.open(write_openfoam(tmp_path, arch))
    assert fields.mesh is not None
    centres = np.stack(np.meshgrid(*(np.arange(n) + 0.5 for n in BOX), indexing="ij"), -1).reshape(-1, 3) @ SKEW.T
    np.testing.assert_allclose(fields.mesh.points.numpy(), centres, atol=1e-14)
    np.testing.assert_allclose(fields.parameters["volume"].numpy(), np.full((1, 6), np.linalg.det(SKEW)), rtol=1e-14)
    assert {name: cells.tolist() for name, cells in fields.mesh.boundary.items()} == {
        "inlet": [0, 1], "outlet": [4, 5], "walls": [0, 1, 2, 3, 4, 5],
    }  # fmt: skip


def test_openfoam_without_faces_has_no_coordinates(tmp_path: Path) -> None:
    fields = pde_datasets.open(write_openfoam(tmp_path, faces=False))
    assert fields.mesh is not None
    assert fields.mesh.points.shape == (0, 3)
    assert "volume" not in fields.parameters
    assert "no coordinates" in fields.attributes["notes"]


@pytest.mark.parametrize("arch", ARCHITECTURES[:3])
def test_openfoam_fluxes_of_a_constant_velocity_balance(arch: str | None, tmp_path: Path) -> None:
    """phi = v . S sums to nothing over closed cells; without the empty sides that is so only as v has no component through them."""
    case = write_openfoam(tmp_path, arch)
    fields = pde_datasets.open(case, "openfoam-flux")
    assert fields.u.shape == (2, 1, 7 + 10)
    assert fields.units == ("m3 s-1",)
    assert fields.parameters["time"].tolist() == [0.5, 10.0]
    mesh = box_mesh()
    through = areas(mesh) @ VELOCITY
    np.testing.assert_allclose(fields.values[:, 0].numpy(), np.outer([0.5, 10.0], through[:17]), rtol=1e-14, atol=1e-15)
    assert fields.mesh is not None
    A, zero = fields.mesh.equations["balance"].of(0)
    assert A.shape == (6, 17)
    assert zero == 0.0
    leaving = np.zeros(6)
    np.add.at(leaving, mesh["owner"][17:], through[17:])
    np.testing.assert_allclose((A @ fields.values[1, 0]).numpy(), -10 * leaving, atol=1e-13)
    closed = torch.zeros(17, dtype=torch.float64)
    closed[[int(fields.mesh.boundary[name][0]) for name in ("inlet", "outlet")]] = torch.tensor([-1.0, 1.0], dtype=torch.float64)
    assert (A @ closed).tolist().count(0.0) == 4
    assert [len(fields.mesh.boundary[name]) for name in ("inlet", "outlet", "walls")] == [2, 2, 6]
    assert "sides" not in fields.mesh.boundary


def test_openfoam_flux_is_asked_for_by_name(tmp_path: Path) -> None:
    case = write_openfoam(tmp_path)
    assert pde_datasets.open(case).attributes["format"] == "openfoam"
    assert not FORMATS["openfoam-flux"].recognises(case)
    assert FORMATS["openfoam-flux"].reading_of == "openfoam"
    with pytest.raises(ValueError, match=r"not of format openfoam-flux .*it is a text file"):
        pde_datasets.open(write_columns(tmp_path / "table.dat"), "openfoam-flux")


SPELLING = float(np.frombuffer(b"){};0\n(}", "<f8")[0])
"""A number whose bytes look like the text around lists."""


def test_openfoam_bytes_may_spell_anything(tmp_path: Path) -> None:
    case = write_openfoam(tmp_path, "LSB;label=32;scalar=64")
    foam = Foam(case, "LSB;label=32;scalar=64")
    foam.write("10/p", "volScalarField", b"internalField " + foam.field(np.full(6, SPELLING)) + b";\nboundaryField {}")
    assert (pde_datasets.open(case).values[0, 3, 2] == SPELLING).all()


def test_openfoam_lists_of_equal_values(tmp_path: Path) -> None:
    case = write_openfoam(tmp_path)
    Foam(case).write("10/U", "volVectorField", b"internalField nonuniform List<vector> 6{(1 2 3)};\nboundaryField {}")
    assert pde_datasets.open(case).values[0, :3, 2, 4].tolist() == [1.0, 2.0, 3.0]


def test_openfoam_reads_what_it_is_asked_for(tmp_path: Path) -> None:
    case = write_openfoam(tmp_path)
    lazy = FORMATS["openfoam"].load(case).u
    (case / "0.5/p").write_text("damaged")
    assert lazy[0, 3, 2].numpy() == pytest.approx(pressure(10.0))
    assert lazy[0, :3, 1:, 2:4].shape == (3, 2, 2)
    with pytest.raises(ValueError, match=r"0\.5/p.*FoamFile"):
        lazy[0, 3, 1]


def test_openfoam_fields_of_some_times_are_left_out(tmp_path: Path) -> None:
    case = write_openfoam(tmp_path)
    stress = np.arange(36.0).reshape(6, 6)
    for time in ("0", "0.5", "10"):
        Foam(case).write(f"{time}/R", "volSymmTensorField", b"internalField " + Foam(case).field(stress) + b";", "0 2 -2 0 0 0 0")
    Foam(case).write("10/k", "volScalarField", b"internalField uniform 1;", "0 2 -2 0 0 0 0")
    fields = pde_datasets.open(case)
    assert fields.channels == ("U_x", "U_y", "U_z", "p", "R_xx", "R_xy", "R_xz", "R_yy", "R_yz", "R_zz")
    np.testing.assert_array_equal(fields.values[0, 4:, 1].numpy(), stress.T)
    assert "Times differ in k" in fields.attributes["notes"]


@pytest.mark.parametrize("file", ["10/U", "constant/polyMesh/boundary", "10/uniform/time", "constant/polyMesh/points"])
def test_files_of_a_case_send_to_its_folder(file: str, tmp_path: Path) -> None:
    case = write_openfoam(tmp_path, "LSB;label=32;scalar=64")
    with pytest.raises(ValueError, match=rf"one file of an OpenFOAM case\. Open the folder of the case, '{case}'"):
        pde_datasets.open(case / file)


def test_bad_cases(tmp_path: Path) -> None:
    case = write_openfoam(tmp_path)

    def replaced(name: str, old: bytes, new: bytes, message: str, format: str | None = None) -> None:
        data = (case / name).read_bytes()
        assert old in data
        (case / name).write_bytes(data.replace(old, new, 1))
        with pytest.raises(ValueError, match=message) as caught:
            pde_datasets.open(case, format)
        assert "\n" not in str(caught.value)
        (case / name).write_bytes(data)

    replaced("10/p", b"> \n6\n", b"> \n5\n", "list of 5 numbers")
    replaced("10/p", b"> \n6\n", b"> \n99999999999\n", "more than they can hold")
    replaced("10/U", b"List<vector>", b"List<word>", "not of word")
    replaced("10/U", b"internalField", b"#include", "name of an entry")
    replaced("10/U", b"internalField   nonuniform", b"internalField   $other", "'uniform' with 3 numbers")
    replaced("0/p", b"uniform 2.5", b"uniform (1 2)", "'uniform' with 1 numbers")
    replaced("10/phi", b"inlet", b"other", "patch 'inlet' in boundaryField", "openfoam-flux")
    replaced("constant/polyMesh/boundary", b"startFace       7", b"startFace       8", "fill the faces from 7 to 29")
    replaced("constant/polyMesh/boundary", b"nFaces", b"faces", "nFaces and startFace of patch 'inlet'")
    replaced("constant/polyMesh/owner", b"(\n0\n", b"(\n-1\n", "numbered from 0 on")
    replaced("constant/polyMesh/owner", b"(\n0\n", b"(\n2000000000\n", "numbered from 0 on")
    replaced("constant/polyMesh/faces", b"4(", b"4(99 ", "faceList in text")
    replaced("constant/polyMesh/owner", b"class       labelList", b'arch "XSB"; class labelList', "arch LSB")
    replaced("constant/polyMesh/points", b"(0.0 ", b"(1e300 ", "finite centres")
    deep = b"a{" * 100
    replaced("10/p", b"boundaryField", deep, "nested")


def test_incomplete_cases(tmp_path: Path) -> None:
    case = write_openfoam(tmp_path)
    (case / "constant/polyMesh/boundary").rename(tmp_path / "boundary")
    with pytest.raises(ValueError, match="constant/polyMesh/boundary; there is none"):
        pde_datasets.open(case)
    (tmp_path / "boundary").rename(case / "constant/polyMesh/boundary")
    (case / "10/polyMesh").mkdir()
    with pytest.raises(ValueError, match="one mesh for all times; there are others in 10"):
        pde_datasets.open(case)
    (case / "10/polyMesh").rmdir()
    for time in ("0", "0.5", "10"):
        (case / time).rename(case / f"part{time}")
    (case / "processor0").mkdir()
    with pytest.raises(ValueError, match=r"a folder for each time.*Run reconstructPar first"):
        pde_datasets.open(case)
    (case / "part0").rename(case / "0")
    single = pde_datasets.open(case)
    assert single.grid.names == ("cell",)
    assert single.attributes["time"] == 0.0
    with pytest.raises(ValueError, match="a file phi in the folder of some time"):
        pde_datasets.open(case, "openfoam-flux")


def test_gzip_that_claims_too_much(tmp_path: Path) -> None:
    case = write_openfoam(tmp_path, packed=True)
    path = case / "10/p.gz"
    data = path.read_bytes()
    path.write_bytes(data[:-4] + (1 << 31).to_bytes(4, "little"))
    with pytest.raises(ValueError, match="more than they can hold"):
        pde_datasets.open(case)
    path.write_bytes(gzip.compress(b"FoamFile { class volScalarField; }") + gzip.compress(b"a"))
    with pytest.raises(ValueError, match="Unpack it first"):
        pde_datasets.open(case, "openfoam")


def test_real_openfoam_cells() -> None:
    fields = pde_datasets.open(real("smithers_openfoam/openfoam_mesh_binary"))
    assert fields.u.shape == (1, 4, 3, 72000)
    assert fields.grid.axes[0].positions().tolist() == [0.0, 1088.0, 4196.0]
    assert fields.parameters["viscosity"].tolist() == [1.5e-5]
    assert not fields.values[0, :, 0].any()
    assert fields.values[0, 2].abs().max() < 1e-21, "two-dimensional"
    assert fields.mesh is not None
    assert fields.mesh.points.shape == (0, 3)
    assert {name: len(cells) for name, cells in fields.mesh.boundary.items()}["inlet"] == 100
    inflow = fields.values[0, 0, 2, fields.mesh.boundary["inlet"]]
    assert (inflow.mean() / 1e-4).item() == pytest.approx(1, abs=0.02), "beside an inlet of 1e-4 m/s"


def test_real_openfoam_flux() -> None:
    """Sum of the fluxes of a cell at most 1.4e-10 of 2.3e-5 through it; 3e-3 m³/s in at the inlet."""
    fields = pde_datasets.open(real("smithers_openfoam/openfoam_mesh_binary"), "openfoam-flux")
    assert fields.u.shape == (2, 1, 144720)
    assert fields.mesh is not None
    A = fields.mesh.equations["balance"].of(0)[0]
    assert A.shape == (72000, 144720)
    rest = A @ fields.values[:, 0].T
    assert 1e-10 < rest.abs().max() <= 1.41e-10
    assert fields.values[:, 0, fields.mesh.boundary["inlet"]].sum(1).tolist() == pytest.approx([-3e-3, -3e-3], rel=1e-12)
    for name in ("top", "bottom", "obstacle"):
        assert not fields.values[:, 0, fields.mesh.boundary[name]].any()


# --- COMSOL ------------------------------------------------------------------------------------------------------------------------


def test_comsol_cloud_with_times(tmp_path: Path) -> None:
    fields = pde_datasets.open(write_comsol(tmp_path / "nodes.txt"))
    assert fields.channels == ("u", "p")
    assert fields.units == ("m s-1", "Pa")
    assert fields.u.shape == (1, 2, 2, 5)
    assert fields.grid.axes[0].positions().tolist() == [0.0, 0.1]
    assert fields.mesh is not None
    np.testing.assert_allclose(fields.mesh.points.numpy(), 1e-3 * NODES)
    base = 100 * NODES[:, 0] + 10 * NODES[:, 1]
    np.testing.assert_allclose(fields.values[0, 0].numpy(), [base, base + 1])
    np.testing.assert_allclose(fields.values[0, 1].numpy(), [1e3 * (base + 2), 1e3 * (base + 3)])


def test_trap_14_comsol_heads_in_any_alphabet(tmp_path: Path) -> None:
    path = write_comsol(tmp_path / "nodes.txt")
    fields = pde_datasets.open(path)
    assert fields.attributes["description"] == "因变量 u, 压力"
    path.write_bytes(path.read_bytes().decode().encode("gbk"))
    assert torch.equal(pde_datasets.open(path).values, fields.values)


def test_comsol_parameters_become_samples(tmp_path: Path) -> None:
    names = tuple(f"{name} @ Re={re}, t={t}" for re in (100, 400) for t in (0, 1, 2) for name in ("u", "v"))
    nodes = np.stack(np.meshgrid([0.0, 0.1, 1.0], [0.0, 2.0], indexing="ij"), -1).reshape(-1, 2)[::-1]
    fields = pde_datasets.open(write_comsol(tmp_path / "nodes.txt", nodes, names))
    assert fields.u.shape == (2, 2, 3, 3, 2)
    assert fields.parameters["Re"].tolist() == [100.0, 400.0]
    assert fields.roles == {"velocity": ("u", "v")}
    assert fields.mesh is None
    x, y = fields.grid.axes[1:]
    assert x.positions().tolist() == pytest.approx([0, 1e-4, 1e-3])
    assert not x.uniform
    grid = 100e3 * x.positions()[:, None] + 10e3 * y.positions()
    for sample in range(2):
        for channel in range(2):
            for t in range(3):
                expected = grid + 6 * sample + 2 * t + channel
                torch.testing.assert_close(fields.values[sample, channel, t], expected)


def test_comsol_of_one_solution_has_no_time(tmp_path: Path) -> None:
    fields = pde_datasets.open(write_comsol(tmp_path / "n.txt", NODES, ("u @ Re=100", "p @ Re=100")))
    assert fields.u.shape == (1, 2, 5)
    assert fields.parameters["Re"].tolist() == [100.0]


def test_bad_comsol_files(tmp_path: Path) -> None:
    path = write_comsol(tmp_path / "n.txt")
    data = path.read_bytes()
    for old, new, message in (
        (b"Nodes:              5", b"Nodes:              6", "expects 6 rows"),
        (b"Nodes:              5", b"Nodes:              x", "a number after '% Nodes:'"),
        (b"u (m/s) @ t=0.1", b"u (m/s) @ t=0", "or one twice"),
        (b"u (m/s) @ t=0.1", b"u (m/s) @ t=abc", "values such as t=0.1"),
        (b"u (m/s) @ t=0.1", b"w (m/s) @ t=0.1", "8 columns|or one twice"),
        (b"0.3 ", b"nan ", "finite coordinates"),
        (b"0.3 ", b"0.3x ", "numbers in every row"),
    ):
        assert old in data
        path.write_bytes(data.replace(old, new, 1))
        with pytest.raises(ValueError, match=message):
            pde_datasets.open(path)


@pytest.mark.parametrize(("a", "lid"), [(4, 2.7e-4), (10, 6.8e-4)])
def test_real_lid_driven_cavities(a: int, lid: float) -> None:
    """A lid that moves by a x (1 - x), walls at rest; not the cavity of Ghia. Central divergence is half a per cent of the gradient."""
    fields = pde_datasets.open(real(f"pinnacle/lid_driven_a{a}.dat"))
    assert fields.grid.shape == (101, 101)
    assert not any(axis.uniform for axis in fields.grid.axes)
    assert fields.parameters["Re"].tolist() == [100.0]
    assert "压力" in fields.attributes["description"]
    u, v = fields.values[0, :2]
    x, y = (axis.positions() for axis in fields.grid.axes)
    assert (u[:, -1] - a * x * (1 - x)).abs().max().item() == pytest.approx(lid, rel=0.02)
    for wall in (u[0], u[-1], u[:, 0], v[0], v[-1], v[:, 0]):
        assert not wall.any()
    slopes = [torch.from_numpy(np.gradient(values.numpy(), x.numpy(), y.numpy())[axis]) for values in (u, v) for axis in (0, 1)]
    weights = fields.grid.weights()
    size = (weights * sum(slope.square() for slope in slopes)).sum().sqrt()
    divergence = (weights * (slopes[0] + slopes[3]).square()).sum().sqrt()
    assert (divergence / size).item() == pytest.approx(5.5e-3, abs=5e-4)


def test_real_comsol_channels_let_out_what_comes_in() -> None:
    """Through the ends of the channel, x = 0 and x = 4, flows the same: 0.66617387087203 to the digits that are stored."""
    fields = pde_datasets.open(real("pinnacle/ns_0_obstacle.dat"))
    assert fields.u.shape == (1, 3, 12910)
    assert fields.units == ("m s-1", "m s-1", "Pa")
    assert fields.mesh is not None
    points, u = fields.mesh.points.numpy(), fields.values[0, 0].numpy()
    flux = []
    for end in (points[:, 0].min(), points[:, 0].max()):
        at = np.flatnonzero(points[:, 0] == end)
        at = at[np.argsort(points[at, 1])]
        flux.append(np.trapezoid(u[at], points[at, 1]))
    assert flux[0] == pytest.approx(flux[1], rel=5e-3)
    assert flux[0] == pytest.approx(0.66617387087203, rel=5e-3)
    other = pde_datasets.open(real("pinnacle/ns2d.dat"))
    assert other.u.shape == (1, 3, 11980)
    assert other.mesh is not None
    assert other.mesh.points.amax(0).tolist() == pytest.approx([8.0, 8.0])


def test_real_heat_starts_and_ends_at_zero() -> None:
    fields = pde_datasets.open(real("pinnacle/heat_darcy.dat"))
    assert fields.u.shape == (1, 1, 51, 983)
    assert fields.grid.axes[0].positions()[-1].item() == pytest.approx(5.0)
    assert not fields.values[0, 0, 0].any()
    assert fields.mesh is not None
    points = fields.mesh.points
    low, high = points.amin(0), points.amax(0)
    edge = ((points == low) | (points == high)).any(1)
    assert edge.sum() > 50
    assert not fields.values[0, 0][:, edge].any()
    assert fields.values[0, 0, -1, ~edge].abs().max() > 0


# --- PIV ---------------------------------------------------------------------------------------------------------------------------


def test_trap_15_vectors_that_are_not_valid(tmp_path: Path) -> None:
    fields = pde_datasets.open(write_piv(tmp_path / "a.vec"))
    assert fields.channels == ("u", "v", "valid")
    assert fields.units == ("m s-1", "m s-1", "1")
    x, y = fields.grid.axes
    assert (x.unit, y.unit) == ("m", "m")
    assert x.positions().tolist() == pytest.approx([0.001, 0.002, 0.004])
    assert y.positions().tolist() == pytest.approx([-0.002, -0.001])
    u, v, valid = fields.values[0]
    assert valid.tolist() == [[1, 1], [1, 0], [0, 1]]
    assert u.tolist() == [[-19, -9], [-18, 0], [0, -6]]
    assert v.tolist() == [[3, 2], [4, 0], [0, 5]]
    assert "33.3 % are not" in fields.attributes["notes"]
    assert fields.attributes["exposure_interval"] == pytest.approx(2e-3)


def test_piv_rows_in_any_order(tmp_path: Path) -> None:
    head, rows = insight()
    (tmp_path / "a.vec").write_text(head + "".join(rows))
    (tmp_path / "b.vec").write_text(head + "".join(sorted(rows, key=lambda row: row.split(",")[0])))
    assert torch.equal(pde_datasets.open(tmp_path / "a.vec").values, pde_datasets.open(tmp_path / "b.vec").values)


def test_trap_14_davis_decimal_commas(tmp_path: Path) -> None:
    path = write_davis(tmp_path / "a.txt")
    fields = pde_datasets.open(path)
    assert fields.values[0, 2].tolist() == [[1, 1], [1, 0], [1, 1]]
    assert fields.values[0, 0].tolist() == [[pytest.approx(1e-3 * value) for value in row] for row in ([-19, -9], [-18, 0], [-16, -6])]
    assert fields.units[0] == "m s-1"
    head, _, rows = path.read_text().partition("\n")
    path.write_text(head + "\n" + rows.replace(",", "."))
    assert torch.equal(pde_datasets.open(path).values, fields.values)


def test_piv_pixels_stay_pixels(tmp_path: Path) -> None:
    head, rows = insight(units="px")
    (tmp_path / "a.vec").write_text(head.replace("X mm", "X px").replace("Y mm", "Y px") + "".join(rows))
    fields = pde_datasets.open(tmp_path / "a.vec")
    assert fields.units == ("pixel", "pixel", "1")
    assert fields.grid.axes[0].positions().tolist() == [1.0, 2.0, 4.0]


def test_bad_piv_files(tmp_path: Path) -> None:
    path = tmp_path / "a.vec"
    head, rows = insight()
    for text, message in (
        (head.replace("I=3", "I=4") + "".join(rows), "4 x 2 rows of 5"),
        (head + "".join(rows[:-1]) + "9, 9, 9, 9, 1\n", "fill none"),
        (head.replace('"X mm", "Y mm"', '"Y mm", "X mm"') + "".join(rows), 'VARIABLES="X mm"'),
        (head + "".join(rows[:-1]) + "1, 2, x, 4, 1\n", "row 6 of 6"),
        (head, "no"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=message if message != "no" else "there are none"):
            pde_datasets.open(path)


@pytest.mark.parametrize(("run", "missing"), [(1, 8.9), (2, 9.0), (3, 10.1)])
def test_real_soap_film(run: int, missing: float) -> None:
    fields = pde_datasets.open(real(f"pivpy_soapfilm/Run{run:06d}.T000.D000.P000.H001.L.vec"))
    assert fields.grid.shape == (63, 63)
    assert all(axis.uniform and axis.spacing == pytest.approx(0.31248e-3, rel=1e-6) for axis in fields.grid.axes)
    u, v, valid = fields.values[0]
    assert 100 * (1 - valid.mean().item()) == pytest.approx(missing, abs=0.05)
    assert not u[valid == 0].any()
    assert 0.01 < v[valid == 1].abs().max() < 1


# --- PyClaw ------------------------------------------------------------------------------------------------------------------------


def test_pyclaw_gas(tmp_path: Path) -> None:
    q = gas((4, 3))
    fields = pde_datasets.open(write_pyclaw(tmp_path / "claw0003.hdf", q))
    assert fields.channels == ("density", "momentum_x", "momentum_y", "energy")
    np.testing.assert_array_equal(fields.values[0].numpy(), q)
    assert fields.roles == {"density": ("density",), "momentum": ("momentum_x", "momentum_y"), "energy": ("energy",)}
    x = fields.grid.axis("x")
    assert (x.cells, x.positions().tolist()) == (True, [-0.5, 0.5, 1.5, 2.5])
    assert fields.grid.weights().expand(4, 3).sum().item() == pytest.approx(16.0)
    assert fields.attributes["time"] == 0.25
    assert fields.laws == ()


@pytest.mark.parametrize("change", [lambda q: -q, lambda q: q[:3], lambda q: np.concatenate([q[:-1], 1e-3 * q[-1:]])])
def test_pyclaw_of_other_equations_numbers_them(change: Callable[[np.ndarray], np.ndarray], tmp_path: Path) -> None:
    q = change(gas((4, 3)))
    fields = pde_datasets.open(write_pyclaw(tmp_path / "claw0000.hdf", q))
    assert fields.channels == tuple(f"q{i + 1}" for i in range(len(q)))
    assert not fields.roles


def test_pyclaw_folder_is_a_time_axis(tmp_path: Path) -> None:
    for i, time in ((0, 0.0), (1, 0.5), (2, 2.0)):
        write_pyclaw(tmp_path / f"claw{i:04d}.hdf", (i + 1) * gas((5,)), time)
    fields = pde_datasets.open(tmp_path)
    assert fields.u.shape == (1, 3, 3, 5)
    assert fields.grid.axes[0].positions().tolist() == [0.0, 0.5, 2.0]
    np.testing.assert_array_equal(fields.values[0, :, 2].numpy(), 3 * gas((5,)))
    write_pyclaw(tmp_path / "claw0003.hdf", gas((5,)), 2.0)
    with pytest.raises(ValueError, match="one frame for each time"):
        pde_datasets.open(tmp_path)
    write_pyclaw(tmp_path / "claw0003.hdf", gas((6,)), 3.0)
    with pytest.raises(ValueError, match="frames on one grid"):
        pde_datasets.open(tmp_path)


def test_bad_pyclaw_files(tmp_path: Path) -> None:
    path = tmp_path / "claw0000.hdf"
    with pytest.raises(ValueError, match="one patch; got patch1, patch2"):
        pde_datasets.open(write_pyclaw(path, patches=2))
    with h5py.File(write_pyclaw(path), "r+") as file:
        file["patch1"].attrs["x.num_cells"] = 5
    with pytest.raises(ValueError, match=r"on \(5, 3\) cells; got \(4, 4, 3\)"):
        pde_datasets.open(path)
    with h5py.File(write_pyclaw(path), "r+") as file:
        del file["patch1"].attrs["x.lower"]
    with pytest.raises(ValueError, match=r"x\.lower"):
        pde_datasets.open(path)


def test_real_sedov_blast() -> None:
    """Sums over the 4096 cells of both frames: mass 4096 and energy 538.45 to round-off, no momentum."""
    fields = pde_datasets.open(real("pyclaw_sedov3d"))
    assert fields.u.shape == (1, 5, 2, 16, 16, 16)
    assert fields.grid.axes[0].positions().tolist() == [0.0, 0.1]
    total = fields.values[0].sum((2, 3, 4))
    assert total[0].tolist() == pytest.approx([4096.0, 4096.0], rel=2e-14)
    assert total[4].tolist() == pytest.approx([538.45072240729] * 2, rel=1e-13)
    assert (total[4, 1] / total[4, 0]).item() == pytest.approx(1, rel=1e-14)
    assert total[1:4].abs().max() < 2e-14
    density = fields.values[0, 0, 1]
    assert (density.min().item(), density.max().item()) == (pytest.approx(0.047, abs=5e-4), pytest.approx(1.356, abs=5e-4))
    one = pde_datasets.open(real("pyclaw_sedov3d/claw0001.hdf"))
    assert torch.equal(one.values[0], fields.values[0, :, 1])
    assert (one.values * one.grid.weights()).sum((2, 3, 4))[0, 0].item() == pytest.approx(8.0, rel=1e-13)


# --- finite elements ---------------------------------------------------------------------------------------------------------------


def test_p1_stiffness_of_a_manufactured_solution() -> None:
    """u = sin πx sin πy, -Δu = 2π² u: the energy error falls by four with half the width, and K has constants in its kernel."""
    errors = []
    for n in (9, 17):
        points, triangles = (torch.from_numpy(part) for part in triangulation(n))
        regular = torch.from_numpy(np.stack([i.ravel() for i in np.meshgrid(*[np.arange(n) / (n - 1)] * 2, indexing="ij")], 1))
        K, F = p1_stiffness(regular, triangles)
        assert (K @ torch.ones(n * n, dtype=torch.float64)).abs().max() < 1e-13
        assert F.sum().item() == pytest.approx(1.0, rel=1e-14)
        u = torch.sin(math.pi * regular).prod(1)
        errors.append(abs((u @ (K @ u)).item() - math.pi**2 / 2))
        assert points.shape == regular.shape
    assert math.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.1)


def test_p1_stiffness_refuses_what_is_no_mesh() -> None:
    points, triangles = (torch.from_numpy(part) for part in triangulation())
    with pytest.raises(ValueError, match=r"points \(P, 2\)"):
        p1_stiffness(points[:, :1], triangles)
    with pytest.raises(ValueError, match="corners among 25 nodes"):
        p1_stiffness(points, triangles + 20)
    with pytest.raises(ValueError, match="with an area; 32 of 32"):
        p1_stiffness(0 * points, triangles)


def test_pina_meshes_and_equations(tmp_path: Path) -> None:
    fields = pde_datasets.open(write_pina(tmp_path / "p.pt"))
    assert fields.u.shape == (3, 1, 25)
    assert fields.u.dtype == torch.float32
    assert fields.parameters["mu"].shape == (3, 2)
    assert fields.attributes["equation"] == "-laplacian u = 10"
    mesh = fields.mesh
    assert mesh is not None
    assert mesh.points.shape == (3, 25, 2)
    assert len(mesh.boundary["boundary"]) == 16
    for sample in range(3):
        K, F = mesh.equations["poisson"].of(sample)
        full, load = p1_stiffness(mesh.points[sample], mesh.cells["triangle"])
        inside = interior_nodes(mesh.cells["triangle"], 25)
        assert torch.equal(K.to_dense(), full.to_dense()[inside])
        torch.testing.assert_close(F, 10 * load[inside])
        assert (K @ fields.values[sample, 0].double() - F).abs().max() < 1e-5 * F.abs().max()
        B, zero = mesh.equations["dirichlet"].of(sample)
        assert zero == 0.0
        assert not (B @ fields.values[sample, 0].double()).any()
    part = fields.take(torch.tensor([2]))
    assert part.mesh is not None
    assert torch.equal(part.mesh.equations["poisson"].of(0)[0].to_dense(), mesh.equations["poisson"].of(2)[0].to_dense())


def test_pina_without_a_constant_source_states_nothing(tmp_path: Path) -> None:
    path = write_pina(tmp_path / "p.pt")
    data = torch.load(path, weights_only=True)
    data["u"] = torch.rand(data["u"].shape, generator=torch.Generator().manual_seed(0))
    torch.save(data, path)
    fields = pde_datasets.open(path)
    assert fields.mesh is not None
    assert not fields.mesh.equations
    assert "No constant source" in fields.attributes["notes"]


def test_bad_pina_files(tmp_path: Path) -> None:
    path = write_pina(tmp_path / "p.pt")
    data = torch.load(path, weights_only=True)
    for change, message in (
        ({"x": data["x"][:-1]}, "floats x, y, u"),
        ({"triang": data["triang"].float()}, "floats x, y, u"),
        ({"triang": data["triang"] + 10}, "corners among 25 nodes"),
        ({"triang": data["triang"][:1]}, "every node on some triangle"),
        ({"u": data["u"][:, :0], "x": data["x"][:, :0], "y": data["y"][:, :0]}, "floats x, y, u"),
    ):
        torch.save(data | change, path)
        with pytest.raises(ValueError, match=message):
            pde_datasets.open(path)


def test_real_holed_poisson() -> None:
    """K u over F is 10 inside, 5 to 95 % of the nodes from 9.9987 to 10.0012; u = 0 on both boundaries; area 0.91."""
    fields = pde_datasets.open(real("pina_holed_poisson/holed_poisson.pt"))
    assert fields.u.shape == (121, 1, 1352)
    mesh = fields.mesh
    assert mesh is not None
    assert mesh.cells["triangle"].shape == (2533, 3)
    assert len(mesh.boundary["boundary"]) == 135 + 36
    assert fields.attributes["equation"] == "-laplacian u = 10"
    ratios = []
    for sample in (0, 60, 120):
        K, F = mesh.equations["poisson"].of(sample)
        ratios.append(10 * (K @ fields.values[sample, 0].double()) / F)
        assert p1_stiffness(mesh.points[sample], mesh.cells["triangle"])[1].sum().item() == pytest.approx(0.91, abs=1e-7)
    low, high = np.quantile(torch.stack(ratios).numpy(), [0.05, 0.95])
    assert 9.998 < low < 10 < high < 10.002
    assert not fields.values[:, 0, mesh.boundary["boundary"]].any()


# --- scattered points in MATLAB files ----------------------------------------------------------------------------------------------


def test_matlab_points(tmp_path: Path) -> None:
    path = write_points(tmp_path / "p.mat")
    fields = pde_datasets.open(path)
    stored = scipy.io.loadmat(path)
    assert fields.channels == ("w",)
    assert fields.attributes["modes"] == 11
    assert fields.mesh is not None
    np.testing.assert_array_equal(fields.mesh.points.numpy(), np.stack([stored["x"][0], stored["y"][0]], 1))
    np.testing.assert_array_equal(fields.values[0].numpy(), stored["w"])


def test_matlab_points_on_a_grid(tmp_path: Path) -> None:
    x, y = (values.ravel() for values in np.meshgrid([0.0, 1.0, 3.0], [5.0, 6.0], indexing="xy"))
    scipy.io.savemat(tmp_path / "p.mat", {"x": x, "y": y, "u": x + 10 * y, "v": x - y})
    fields = pde_datasets.open(tmp_path / "p.mat")
    assert fields.grid.shape == (3, 2)
    assert fields.mesh is None
    assert fields.values[0, 0].tolist() == [[50, 60], [51, 61], [53, 63]]


def test_trap_17_clipped_values_are_noted(tmp_path: Path) -> None:
    assert "'w' was clipped to [-5, 5]" in pde_datasets.open(write_points(tmp_path / "p.mat")).attributes["notes"]
    rng = np.random.default_rng(0)
    scipy.io.savemat(tmp_path / "q.mat", dict(zip("xyw", rng.normal(size=(3, 1, 40)), strict=True)))
    assert "clipped" not in pde_datasets.open(tmp_path / "q.mat").attributes["notes"]


def test_real_cylinder_vorticity() -> None:
    fields = pde_datasets.open(real("raissi_pinns/cylinder_nektar_t0_vorticity.mat"))
    assert fields.u.shape == (1, 1, 49852)
    assert fields.channels == ("w",)
    assert fields.mesh is not None
    assert fields.mesh.points.aminmax(dim=0).min.tolist() == [-15.0, -9.0]
    assert fields.mesh.points.aminmax(dim=0).max.tolist() == [25.0, 9.0]
    assert fields.values.abs().max() == 5.0
    assert "clipped to [-5, 5]" in fields.attributes["notes"]


# --- VTK ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["<u4", "<u8", ">u4", ">u8"])
@pytest.mark.parametrize(
    ("how", "place"),
    [
        ("ascii", "inline"),
        ("base64", "inline"),
        ("zlib", "inline"),
        ("lzma", "inline"),
        ("raw", "appended"),
        ("base64", "appended"),
        ("zlib", "appended"),
    ],
)
def test_vtu_in_every_encoding(how: str, place: str, word: str, tmp_path: Path) -> None:
    fields = pde_datasets.open(write_vtu(tmp_path / "m.vtu", how=how, place=place, word=word))
    data = unstructured()
    assert fields.channels == ("p", "U_x", "U_y", "U_z")
    np.testing.assert_array_equal(fields.values[0].numpy(), np.stack([data["p"], *data["U"].T]))
    assert fields.mesh is not None
    np.testing.assert_array_equal(fields.mesh.points.numpy(), data["points"])
    assert {kind: cells.tolist() for kind, cells in fields.mesh.cells.items()} == {
        "triangle": [[0, 1, 2], [1, 3, 2]],
        "quad": [[1, 4, 5, 3]],
    }
    assert fields.roles == {"velocity": ("U_x", "U_y", "U_z")}
    assert "values of cells: density" in fields.attributes["notes"]
    assert "2 triangle, 1 quad" in fields.attributes["notes"]


def test_vtu_values_of_cells_follow_the_kinds(tmp_path: Path) -> None:
    pieces = UNSTRUCTURED.replace("<PointData>{p}{U}</PointData>", "")
    data = {name: values for name, values in unstructured().items() if name not in ("p", "U")}
    fields = pde_datasets.open(write_vtk(tmp_path / "m.vtu", "UnstructuredGrid", pieces, data))
    assert fields.channels == ("density",)
    assert fields.grid.names == ("cell",)
    assert fields.values[0, 0].tolist() == [1.0, 3.0, 2.0], "triangles, then the quad"


@pytest.mark.parametrize("settings", [{"compression": None}, {"compression": "zlib"}, {"compression": "lzma"}, {"binary": False}])
def test_vtu_of_another_writer(settings: dict[str, Any], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    points, tetra = rng.normal(size=(30, 3)), rng.permutation(28).reshape(7, 4)
    mesh = meshio.Mesh(points, [("tetra", tetra), ("triangle", tetra[:3, :3])], {"T": rng.normal(size=30), "velocity": points})
    mesh.write(tmp_path / "m.vtu", **settings)
    fields = pde_datasets.open(tmp_path / "m.vtu")
    expected = np.concatenate([mesh.point_data["T"][None], points.T])
    np.testing.assert_allclose(fields.values[0].numpy(), expected, rtol=0 if settings.get("binary", True) else 1e-10)
    assert fields.mesh is not None
    np.testing.assert_array_equal(fields.mesh.cells["tetra"].numpy(), tetra)
    np.testing.assert_array_equal(fields.mesh.cells["triangle"].numpy(), tetra[:3, :3])


def test_vtp_lines_and_polygons(tmp_path: Path) -> None:
    fields = pde_datasets.open(write_vtp(tmp_path / "s.vtp"))
    assert fields.u.dtype == torch.float32
    assert fields.mesh is not None
    assert {kind: cells.tolist() for kind, cells in fields.mesh.cells.items()} == {
        "line": [[0, 1], [1, 4]], "triangle": [[0, 1, 2], [1, 3, 2]], "quad": [[1, 4, 5, 3]],
    }  # fmt: skip


def test_vti_is_a_grid(tmp_path: Path) -> None:
    u = np.arange(12.0).reshape(4, 3)
    pieces = '<ImageData WholeExtent="0 3 0 2 0 0" Origin="1 0 0" Spacing="0.5 2 1"><Piece Extent="0 3 0 2 0 0">'
    pieces += "<PointData>{u}{U}</PointData></Piece></ImageData>"
    arrays = {"u": u.T.ravel(), "U": np.stack([u.T.ravel(), -u.T.ravel(), 0 * u.ravel()], 1)}
    fields = pde_datasets.open(write_vtk(tmp_path / "i.vti", "ImageData", pieces, arrays, how="zlib"))
    assert fields.grid.names == ("x", "y")
    assert fields.grid.axis("x").positions().tolist() == [1.0, 1.5, 2.0, 2.5]
    np.testing.assert_array_equal(fields.values[0, 0].numpy(), u)
    assert fields.roles == {"velocity": ("U_x", "U_y")}
    cells = pieces.replace("PointData", "CellData").replace("{U}", "").replace("0 3 0 2 0 0", "0 4 0 3 0 1")
    fields = pde_datasets.open(write_vtk(tmp_path / "c.vti", "ImageData", cells, {"u": arrays["u"]}))
    assert fields.grid.names == ("x", "y", "z")
    assert all(axis.cells for axis in fields.grid.axes)
    assert fields.grid.axis("x").positions().tolist() == [1.25, 1.75, 2.25, 2.75]
    np.testing.assert_array_equal(fields.values[0, 0, :, :, 0].numpy(), u)


def test_vtr_has_uneven_axes(tmp_path: Path) -> None:
    arrays = {"x": np.array([0.0, 1.0, 3.0]), "y": np.array([0.0, 0.5]), "z": np.zeros(1), "u": np.arange(6.0)}
    pieces = '<RectilinearGrid WholeExtent="0 2 0 1 0 0"><Piece Extent="0 2 0 1 0 0"><PointData>{u}</PointData>'
    pieces += "<Coordinates>{x}{y}{z}</Coordinates></Piece></RectilinearGrid>"
    fields = pde_datasets.open(write_vtk(tmp_path / "r.vtr", "RectilinearGrid", pieces, arrays))
    assert fields.grid.axis("x").positions().tolist() == [0.0, 1.0, 3.0]
    assert fields.values[0, 0].tolist() == [[0, 3], [1, 4], [2, 5]]


@pytest.mark.parametrize("binary", [False, True])
def test_legacy_vtk_through_meshio(binary: bool, tmp_path: Path) -> None:
    fields = pde_datasets.open(write_legacy(tmp_path / "m.vtk", binary))
    data = unstructured()
    assert set(fields.channels) == {"p", "U_x", "U_y", "U_z"}
    np.testing.assert_allclose(fields.values[0, fields.channel("p")].numpy(), data["p"])
    assert fields.mesh is not None
    assert {kind: len(cells) for kind, cells in fields.mesh.cells.items()} == {"triangle": 2, "quad": 1}


def test_legacy_structured_points_are_a_grid(tmp_path: Path) -> None:
    values = "\n".join(str(float(i)) for i in range(12))
    text = "# vtk DataFile Version 3.0\nt\nASCII\nDATASET STRUCTURED_POINTS\nDIMENSIONS 4 3 1\nORIGIN 0 0 0\nSPACING 0.5 2 1\n"
    text += "POINT_DATA 12\nSCALARS u double 1\nLOOKUP_TABLE default\n"
    (tmp_path / "g.vtk").write_text(text + values + "\n")
    fields = pde_datasets.open(tmp_path / "g.vtk")
    assert fields.grid.shape == (4, 3)
    np.testing.assert_array_equal(fields.values[0, 0].numpy(), np.arange(12.0).reshape(3, 4).T)


def test_legacy_vtk_without_meshio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_legacy(tmp_path / "m.vtk")
    monkeypatch.setitem(sys.modules, "meshio", None)
    with pytest.raises(ValueError, match=r"pip install pcfm\[mesh\]"):
        pde_datasets.open(path)
    assert pde_datasets.open(write_vtu(tmp_path / "m.vtu")).attributes["format"] == "vtk", "others need none"


def test_bad_vtk_files(tmp_path: Path) -> None:
    path = write_vtu(tmp_path / "m.vtu")
    text = path.read_text()
    bomb = '<!DOCTYPE a [<!ENTITY a "aaaa">]>'
    for old, new, message in (
        ('type="UnstructuredGrid"', 'type="StructuredGrid"', "got StructuredGrid"),
        ("<VTKFile", f"{bomb}<VTKFile", "hostile"),
        ("</Piece>", "</Piece><Piece/>", "one piece; got 2"),
        ('NumberOfPoints="6"', 'NumberOfPoints="7"', "7 values of 3 numbers"),
        ("3 7 10", "3 7 11", "offsets that fit"),
        ("3 7 10", "3 3 10", "offsets that fit"),
        (">0 1 2 1", ">0 1 9 1", "corners among 6 points"),
        ("5 9 5", "5 99 5", r"got \[99\]"),
        ("</Points>", "", "truncated or damaged"),
        ('Name="types"', 'Name="kinds"', "truncated or damaged"),
    ):
        assert old in text
        path.write_text(text.replace(old, new, 1))
        with pytest.raises(ValueError, match=message) as caught:
            pde_datasets.open(path)
        assert "\n" not in str(caught.value)
    empty = text.replace("<PointData>", "<Other>").replace("</PointData>", "</Other>").replace("CellData>", "Rest>")
    path.write_text(empty)
    with pytest.raises(ValueError, match="there are none"):
        pde_datasets.open(path)


def test_vtk_blocks_that_claim_too_much(tmp_path: Path) -> None:
    path = write_vtu(tmp_path / "m.vtu", how="zlib")
    text = path.read_text()
    start = text.index('format="binary">') + 16
    claimed = base64.b64encode(np.array([1, 1 << 30, 0, 20], "<u4").tobytes()).decode()
    path.write_text(text[:start] + claimed + text[start + len(claimed) :])
    with pytest.raises(ValueError, match=r"more than they can hold|truncated or damaged"):
        pde_datasets.open(path)


def test_images_that_claim_too_much_or_are_turned(tmp_path: Path) -> None:
    extent = "0 3000000 0 3000000 0 3000000"
    for image, message in (
        (
            f'<ImageData WholeExtent="{extent}"><Piece Extent="{extent}"><PointData>{{u}}</PointData></Piece></ImageData>',
            "more than they can hold",
        ),
        ('<ImageData Direction="0 1 0 1 0 0 0 0 1"><Piece Extent="0 1 0 1 0 0"><PointData>{u}</PointData></Piece></ImageData>', "turned"),
    ):
        with pytest.raises(ValueError, match=message):
            pde_datasets.open(write_vtk(tmp_path / "i.vti", "ImageData", image, {"u": np.zeros(4)}))


def test_airfrans_parameters_are_in_the_name(tmp_path: Path) -> None:
    case = write_airfrans(tmp_path)
    for path in (case, case / f"{AIRFOIL}_internal.vtu"):
        fields = pde_datasets.open(path)
        assert fields.attributes["format"] == "airfrans"
        assert fields.channels == ("U_x", "U_y", "U_z", "p", "nut", "implicit_distance")
        assert fields.units == ("m s-1", "m s-1", "m s-1", "m2 s-2", "m2 s-1", "m")
        assert fields.u.dtype == torch.float32
        values = {name: value.squeeze().tolist() for name, value in fields.parameters.items()}
        assert values["velocity"] == 43.597
        assert values["angle"] == 5.932
        assert values["naca"] == [3.551, 3.1, 1.0, 18.252]
        assert values["viscosity"] == 1.56e-5
        assert math.hypot(*values["inflow"]) == pytest.approx(43.597)
        assert math.degrees(math.atan2(*values["inflow"][::-1])) == pytest.approx(5.932)
        assert fields.laws == ()
    other = case.rename(tmp_path / "airfoil")
    assert pde_datasets.open(other / f"{AIRFOIL}_internal.vtu").attributes["format"] == "airfrans"
    plain = (other / f"{AIRFOIL}_internal.vtu").rename(tmp_path / "plain.vtu")
    assert pde_datasets.open(plain).attributes["format"] == "vtk"


# --- tables ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "# t u v\n0 1.5 2\n0.5 2.5 3\n1 3.5 4\n",
        "t,u,v\n0,1.5,2\n0.5,2.5,3\n1,3.5,4",
        '"t", "u", "v"\r\n0, 1.5, 2\r\n0.5, 2.5, 3\r\n1, 3.5, 4\r\n',
        "t;u;v\n0;1,5;2\n0,5;2,5;3\n1;3,5;4\n",
        "t\tu\tv\n0\t1,5\t2\n0,5\t2,5\t3\n1\t3,5\t4\n",
        "% t  u  v\n%-----\n\n  0.0D+00  1.5D+00  2\n  5.d-1   2.5  3\n\n% more\n  1 3.5 4\n",
        "some words\nand more of them, 3.\n\n   t      u      v\n   0 1.5 2\n 0.5 2.5 3\n 1 3.5 4\n",
    ],
)
def test_columns_in_every_notation(text: str, tmp_path: Path) -> None:
    (tmp_path / "t.dat").write_bytes(text.encode())
    fields = pde_datasets.open(tmp_path / "t.dat")
    assert fields.channels == ("u", "v")
    assert fields.grid.names == ("time",)
    assert fields.grid.axes[0].positions().tolist() == [0.0, 0.5, 1.0]
    assert fields.values[0].tolist() == [[1.5, 2.5, 3.5], [2.0, 3.0, 4.0]]


def test_columns_that_decrease_are_turned_around(tmp_path: Path) -> None:
    (tmp_path / "t.dat").write_text("# y u\n1 10\n0.4 4\n0 0\n")
    fields = pde_datasets.open(tmp_path / "t.dat")
    assert fields.grid.axis("y").positions().tolist() == [0.0, 0.4, 1.0]
    assert fields.values[0, 0].tolist() == [0.0, 4.0, 10.0]
    assert "turned around" in fields.attributes["notes"]


def test_columns_of_points(tmp_path: Path) -> None:
    rows = "\n".join(f"{x} {y} {t} {x + 10 * y + 100 * t}" for y in (5, 1, 2) for t in (0, 1) for x in (3, 0))
    (tmp_path / "t.dat").write_text(f"# x y t u\n{rows}\n")
    fields = pde_datasets.open(tmp_path / "t.dat")
    assert fields.grid.names == ("time", "x", "y")
    assert fields.grid.shape == (2, 2, 3)
    time, x, y = fields.grid.mesh()
    assert torch.equal(fields.values[0, 0], x + 10 * y + 100 * time)
    (tmp_path / "c.dat").write_text("# x y u v\n0 0 1 2\n1 3 3 4\n0 1 5 6\n")
    cloud = pde_datasets.open(tmp_path / "c.dat")
    assert cloud.mesh is not None
    assert cloud.mesh.points.tolist() == [[0, 0], [1, 3], [0, 1]]
    assert cloud.roles == {"velocity": ("u", "v")}
    (tmp_path / "n.dat").write_text("\n".join(f"{x} {y} {x * y}" for x in (1, 2) for y in (1, 2, 4)) + "\n")
    assert pde_datasets.open(tmp_path / "n.dat").grid.shape == (2, 3), "not named, but a product"


def test_bad_tables(tmp_path: Path) -> None:
    path = tmp_path / "t.dat"
    for text, message in (
        ("# t u\n0 1\n1 2\n2\n", "2 numbers in every row; row 3 of 3"),
        ("# t u\n0 1\n1 2\nx 2\n", "2 numbers in every row; row 3 of 3"),
        ("1 2\n0 1\n3 2\n", "a first column or one named time that increases"),
        ("# x y t u\n0 0 0 1\n1 0 1 2\n0 1 3 4\n2 2 2 2\n0 0 0 9\n", "Sort the rows|increases"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            FORMATS["columns"].load(path)
    for text in ("one\ntwo\n", "1\n2\n3\n", "x, y\n1.0, 2.0\n", "0 1\n2 3 4\n"):
        path.write_text(text)
        assert not FORMATS["columns"].recognises(path)
        with pytest.raises(ValueError, match="it is a text file"):
            pde_datasets.open(path)


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    (tmp_path / "t.dat").write_text("# t u\n0 1\n1 nan\n2 3\n")
    with pytest.raises(ValueError, match="channel 'u' has 1 NaN"):
        pde_datasets.open(tmp_path / "t.dat")


def test_spectra(tmp_path: Path) -> None:
    path = write_spectra(tmp_path / "s.es")
    fields = pde_datasets.open(path)
    assert fields.grid.axis("time").positions().tolist() == [0.5, 1.0, 2.0]
    assert fields.grid.axis("k").positions().tolist() == [0, 1, 2, 3]
    assert fields.values[0, 0].tolist() == [[0, 0.5, 1, 1.5], [0, 1, 2, 3], [0, 2, 4, 6]]
    path.write_text(path.read_text().replace("   4 2.0", "   5 2.0"))
    with pytest.raises(ValueError, match="4 wave numbers at every time"):
        pde_datasets.open(path)


# --- what tables and clouds share --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_layout_puts_every_point_where_it_belongs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    axes = [np.sort(rng.normal(size=n)) for n in (4, 3, 2)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    points = points * (1 + 1e-10 * rng.normal(size=points.shape))
    points = points[rng.permutation(len(points))]
    place = layout(("x", "y", "z"), points)
    assert place.mesh is None
    x, y, z = place.grid.mesh()
    expected = torch.sin(x) + 2 * y - z
    np.testing.assert_allclose(place.place(np.sin(points[:, 0]) + 2 * points[:, 1] - points[:, 2]), expected.numpy(), atol=1e-8)
    for cloud in (points[1:], np.concatenate([points[1:], points[1:2]])):
        place = layout(("x", "y", "z"), cloud)
        assert place.mesh is not None
        np.testing.assert_array_equal(place.mesh.points.numpy(), cloud)


def test_units() -> None:
    assert [si(unit) for unit in ("mm/s", "um", "ms", "kPa", "px", "", "m^2/s")] == [
        (1e-3, "m s-1"), (1e-6, "m"), (1e-3, "s"), (1e3, "Pa"), (1.0, "pixel"), (1.0, "1"), (1.0, "m2 s-1"),
    ]  # fmt: skip


# --- real tables -------------------------------------------------------------------------------------------------------------------


def test_trap_19_misprints_stay_and_are_noted() -> None:
    fields = pde_datasets.open(real("reference/ghia1982/ghia_et_al_1982_lid_driven_cavity.dat"))
    assert fields.u.shape == (1, 11, 17)
    y = fields.grid.axis("y").positions().tolist()
    assert fields.values[0, fields.channel("u Re=3200"), y.index(0.4531)].item() == -0.86636
    assert fields.values[0, fields.channel("u Re=10000"), y.index(0.5)].item() == 0.03111
    assert fields.values[0, fields.channel("u Re=100"), y.index(0.4531)].item() == -0.2109
    assert "Misprints" in fields.attributes["notes"]
    assert "Misprints" not in pde_datasets.open(real("reference/riemann/sod-exact.out")).attributes["notes"]


def test_real_taylor_green_energy() -> None:
    """-dE/dt as stored and as 2 ν times the enstrophy, ν = 1/1600; peak 0.0128575 at t = 8.97."""
    fields = pde_datasets.open(real("reference/tgv3d_re1600/spectral_Re1600_512.gdiag"))
    assert fields.channels == ("Energy", "Dissipation rate (-dE/dt)", "Enstrophy")
    time = fields.grid.axis("time")
    assert (time.points, time.uniform, time.spacing) == (2000, True, pytest.approx(0.01, rel=1e-12))
    energy, dissipation, enstrophy = fields.values[0].numpy()
    assert np.abs(-np.gradient(energy, time.spacing) - dissipation)[1:-1].max() < 1.3e-4 * dissipation.max() + 1e-5
    assert np.abs(2 / 1600 * enstrophy - dissipation).max() < 2.5e-5
    assert dissipation.max() == pytest.approx(0.0128575, abs=5e-8)
    assert time.positions()[dissipation.argmax()].item() == pytest.approx(8.97)


@pytest.mark.parametrize(
    ("name", "pressure", "velocity"), [("sod", 0.303130, 0.927453), ("test2", 0.001894, 0.0), ("test3", 460.893787, 19.597451)]
)
def test_real_riemann_tables(name: str, pressure: float, velocity: float) -> None:
    fields = pde_datasets.open(real(f"reference/riemann/{name}-exact.out"))
    assert fields.channels == ("rho", "u", "p", "e")
    x = fields.grid.axis("x")
    assert (x.points, x.cells, x.extent) == (128, True, pytest.approx(1.0, abs=1e-5))
    rho, u, p, e = fields.values[0]
    assert (p - pressure).abs().min() < 2e-6 * max(1, pressure)
    assert (u - velocity).abs().min() < 0.05 if velocity == 0 else (u - velocity).abs().min() < 2e-6 * velocity
    dense = rho > 0.05
    torch.testing.assert_close((p / (0.4 * rho))[dense], e[dense], rtol=2e-4, atol=0.0)


def test_real_featflow_series() -> None:
    fields = pde_datasets.open(real("reference/dfg_2d3_featflow/bdforces_lv4"))
    assert fields.channels == ("timestep", "bdc", "horiz", "vert")
    time = fields.grid.axis("time").positions()
    assert len(time) == 12801
    drag, lift = fields.values[0, 2:]
    for series, peak, when in ((drag, 2.9210, 3.936), (lift, 0.47605, 5.692)):
        at = int((series * 500 if peak > 100 else series).argmax())
        assert series[at].item() == pytest.approx(peak, rel=2e-4)
        assert time[at].item() == pytest.approx(when, abs=2e-3)
    points = pde_datasets.open(real("reference/dfg_2d3_featflow/pointvalues_lv4"))
    assert points.u.shape == (1, 11, 12801)
    front, back = (points.values[0, points.channel(name)] for name in ("value", "value_2"))
    assert (front - back)[-1].item() == pytest.approx(-0.11143, abs=2e-5)


def test_real_channel_profiles() -> None:
    """Total stress dU+/dy+ - <uv>+ = 1 - y/h within 3.1e-3."""
    fields = pde_datasets.open(real("reference/channel_dns/Re180.prof"))
    assert fields.u.shape == (1, 16, 49)
    y = fields.grid.axis("y").positions()
    plus, mean, shear = (fields.values[0, fields.channel(name)].numpy() for name in ("y+", "U+", "uv'+"))
    assert np.abs(np.gradient(mean, plus, edge_order=2) - shear - (1 - y.numpy()))[1:].max() < 0.02
    means, stress = (pde_datasets.open(real(f"reference/channel_dns/chan180.{name}")) for name in ("means", "reystress"))
    assert (means.u.shape, stress.u.shape) == ((1, 6, 65), (1, 7, 65))
    slope = means.values[0, means.channel("dUmean/dy")] / 178.12
    total = slope - stress.values[0, stress.channel("R_uv")]
    assert (total - (1 - means.grid.axis("y").positions())).abs().max() < 3.1e-3


def test_real_cylinder_drag() -> None:
    rows = {"40": (27, 5.976446), "550": (32, 1.85679), "3000": (48, 0.85895)}
    for reynolds, (count, first) in rows.items():
        name = f"reference/cylinder_koumoutsakos1995/koumoutsakos_leonard_1995_cylinder_dragCoefficientRe{reynolds}.dat"
        fields = pde_datasets.open(real(name))
        assert fields.u.shape == (1, 1, count)
        assert fields.values[0, 0, 0].item() == first
        assert f"Re={reynolds}" in fields.attributes["source"]
    assert pde_datasets.open(real(name.replace("3000", "550"))).grid.names == ("time",)


def test_real_decaying_turbulence() -> None:
    """dE/dt = -ν Ω to half a per cent; the spectra add up to the energy of the other file at their times."""
    series = pde_datasets.open(real("reference/dit_wray/CB512.f_t"))
    assert series.channels == ("Total energy", "Total enstrophy", "Integral scale", "(-) Velocity derivative skewness")
    time = series.grid.axis("time").positions().numpy()
    energy, enstrophy = series.values[0, :2].numpy()
    rate = np.gradient(energy, time)
    late = time > 1
    assert np.median(np.abs(rate / (-3.5014006e-4 * enstrophy) - 1)[late]) < 5e-3
    spectra = pde_datasets.open(real("reference/dit_wray/CB512.es"))
    assert spectra.u.shape == (1, 1, 28, 242)
    times = spectra.grid.axis("time").positions().numpy()
    total = spectra.values[0, 0].sum(1).numpy()
    np.testing.assert_allclose(total, np.interp(times, time, energy), rtol=5e-3)


FOLDERS = ("pina_holed_poisson", "pinnacle", "pivpy_soapfilm", "pyclaw_sedov3d", "reference")


def test_every_real_file_opens() -> None:
    """All of them are fields, and files of the OpenFOAM case send to its folder in one line."""
    opened = 0
    for folder in FOLDERS:
        for path in sorted(real(folder).rglob("*")):
            if path.is_file():
                assert len(pde_datasets.open(path)) > 0
                opened += 1
    assert opened > 20
    case = real("smithers_openfoam/openfoam_mesh_binary")
    for path in sorted(case.rglob("*")):
        if path.is_file():
            with pytest.raises(ValueError, match="Open the folder of the case") as caught:
                pde_datasets.open(path)
            assert "\n" not in str(caught.value)
