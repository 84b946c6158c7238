"""Plain readers of three real files whose laws live on no regular grid, for tests of the projection.

    fluxes on the faces of a mesh          M φ = 0          one row per cell: what flows in flows out       (OpenFOAM)
    velocities measured by particle images ∂x u + ∂y v ≈ 0  with holes where no particle was seen           (TSI Insight)
    finite elements on triangles           K u = F          at the interior nodes                           (P1, -Δu = 10)

Tests import them as `from tests.real_files import ...`. Arrays are float64, coordinates increase, units are SI.
"""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import scipy.sparse
import torch

__all__ = ["holed_poisson", "interior_nodes", "openfoam_flux", "openfoam_patches", "p1_stiffness", "soap_film"]

_LABEL, _SCALAR = np.dtype("<i4"), np.dtype("<f8")
"""What the header of the OpenFOAM files calls LSB;label=32;scalar=64."""


# --- fluxes on the faces of an OpenFOAM mesh ---------------------------------------------------------------------------------------


def openfoam_patches(folder: Path) -> dict[str, slice]:
    """The faces of each boundary patch, by name.

    Faces are numbered with the internal ones first, then patch by patch. No flux is an unknown on the patches of type `empty`, the two
    sides of a two-dimensional mesh: leave their columns out before projecting.

    Arguments:
        folder: the case, with constant/polyMesh/boundary.

    Returns:
        Slices into the faces, in face order.

    Raises:
        ValueError: the patches do not follow each other.
    """
    text = (folder / "constant/polyMesh/boundary").read_text()
    found = re.findall(r"(\w+)\s*\{[^}]*?\bnFaces\s+(\d+);\s*startFace\s+(\d+);", text)
    patches = {name: slice(int(start), int(start) + int(count)) for name, count, start in found}
    ordered = list(patches.values())
    if not ordered or any(ahead.stop != behind.start for ahead, behind in pairwise(ordered)):
        raise ValueError(f"openfoam_patches expects patches that follow each other; got {patches}. Is {folder} one part of a split case?")
    return patches


def openfoam_flux(folder: Path, time: str) -> tuple[scipy.sparse.csr_matrix, np.ndarray]:
    """Signed cell-by-face incidence of a mesh and the volume flux through every face.

    (M φ)_c = Σ_{f of c} ±φ_f is the volume that leaves cell c per second, zero for an incompressible flow. A flux is positive from a
    face's owner to its neighbour, and out of the domain on the boundary: M is +1 at the owner and -1 at the neighbour.

    Arguments:
        folder: the case, with constant/polyMesh/{owner,neighbour,boundary} in binary (LSB;label=32;scalar=64).
        time: the folder of a time in it, with phi (surfaceScalarField, the same binary).

    Returns:
        M, (cells, faces), and φ, (faces,), in m³/s: internal faces, then the patches in the order of `openfoam_patches`. Patches of
        type `empty` hold no values and get zero.

    Raises:
        ValueError: a file is of another layout, or its lists are not as long as the mesh asks.
    """
    owner = _foam_labels(folder / "constant/polyMesh/owner")
    neighbour = _foam_labels(folder / "constant/polyMesh/neighbour")
    patches = openfoam_patches(folder)
    internal, faces = len(neighbour), len(owner)
    if (first := min(p.start for p in patches.values())) != internal or (last := max(p.stop for p in patches.values())) != faces:
        raise ValueError(f"{folder}: patches should fill the faces from {internal} to {faces}; they fill {first} to {last}.")

    data = _foam_binary(folder / time / "phi")
    flux = np.zeros(faces)
    flux[:internal], end = _foam_values(data, data.index(b"internalField"), internal)
    end = data.index(b"{", data.index(b"boundaryField", end)) + 1
    for _ in patches:
        entry = re.compile(rb"\s*\}?\s*(\w+)\s*\{\s*type\s+(\w+);\s*").match(data, end)
        if entry is None or (name := entry[1].decode()) not in patches:
            raise ValueError(f"{folder / time / 'phi'}: expected one of the patches {list(patches)} after byte {end}.")
        patch = patches[name]
        count = 0 if entry[2] == b"empty" else patch.stop - patch.start
        values, end = _foam_values(data, entry.end(), count)
        flux[patch] = values if count else 0.0

    rows = np.concatenate([owner, neighbour])
    columns = np.concatenate([np.arange(faces), np.arange(internal)])
    signs = np.concatenate([np.ones(faces), -np.ones(internal)])
    return scipy.sparse.csr_matrix((signs, (rows, columns)), shape=(int(owner.max()) + 1, faces)), flux


def _foam_binary(path: Path) -> bytes:
    """A binary file of 32-bit labels and 64-bit scalars, lowest byte first."""
    data = path.read_bytes()
    if re.search(rb"format\s+binary;\s+arch\s+\"LSB;label=32;scalar=64\";", data[:2000]) is None:
        raise ValueError(f"{path} should be binary with arch LSB;label=32;scalar=64; it says {data[400:700]!r}.")
    return data


def _foam_labels(path: Path) -> np.ndarray:
    """The list in a file of cell numbers."""
    data = _foam_binary(path)
    return _foam_list(data, data.index(b"* * //\n") + 7, _LABEL)[0].astype(np.int64)


def _foam_values(data: bytes, start: int, count: int) -> tuple[np.ndarray, int]:
    """`count` scalars of an entry `key uniform value;` or `key nonuniform List<scalar> n (bytes);`, and where the entry ends."""
    uniform = re.compile(rb"\w+\s+uniform\s+([-+.\deE]+);").match(data, start)
    if uniform is not None:
        return np.full(count, float(uniform[1])), uniform.end()
    listed = re.compile(rb"\w+\s+nonuniform\s+List<scalar>").match(data, start)
    if listed is None:
        raise ValueError(f"expected a uniform or nonuniform scalar at byte {start}; got {data[start : start + 60]!r}.")
    values, end = _foam_list(data, listed.end(), _SCALAR)
    if len(values) != count:
        raise ValueError(f"expected {count} scalars at byte {start}; got {len(values)}.")
    return values, data.index(b";", end) + 1


def _foam_list(data: bytes, start: int, kind: np.dtype) -> tuple[np.ndarray, int]:
    """The list `n (bytes)` at a byte, or `0` alone, and where it ends. Found by its length: the bytes may spell anything."""
    head = re.compile(rb"\s*(\d+)\s*(\(?)").match(data, start)
    if head is None:
        raise ValueError(f"expected the length of a list at byte {start}; got {data[start : start + 60]!r}.")
    count = int(head[1])
    if not count:
        return np.empty(0, kind), head.end()
    end = head.end() + count * kind.itemsize
    if not head[2] or data[end : end + 1] != b")":
        raise ValueError(f"expected {count} values of {kind.itemsize} bytes in parentheses at byte {start}. The file is damaged.")
    return np.frombuffer(data, kind, count, head.end()), end + 1


# --- velocities of a soap film -----------------------------------------------------------------------------------------------------


def soap_film(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Measured velocities in the plane of a soap film, from a TSI Insight vector file (`.vec`).

    Arguments:
        path: a text file with one header line and rows x [mm], y [mm], u [m/s], v [m/s], CHC (choice code).

    Returns:
        x (nx,) and y (ny,) in m, increasing; the velocity (2, nx, ny) in m/s, zero where it is not valid; and where it is, (nx, ny):
        CHC > 0, a vector found from the image.

    Raises:
        ValueError: other columns, or rows that are not a grid with x fastest.
    """
    with path.open() as file:
        header = file.readline()
    size = re.search(r"ZONE I=(\d+), J=(\d+)", header)
    if size is None or '"X mm", "Y mm", "U m/s", "V m/s", "CHC"' not in header:
        raise ValueError(f"soap_film expects columns X mm, Y mm, U m/s, V m/s, CHC on a zone I, J; {path.name} begins {header[:300]!r}.")
    nx, ny = int(size[1]), int(size[2])
    table = np.loadtxt(path, delimiter=",", skiprows=1).reshape(ny, nx, 5).transpose(2, 1, 0)[:, :, ::-1]
    x, y, u, choice = 1e-3 * table[0, :, 0], 1e-3 * table[1, 0], table[2:4], table[4]
    if (table[0] != table[0, :, :1]).any() or (table[1] != table[1, :1]).any() or min(np.diff(x).min(), np.diff(y).min()) <= 0:
        raise ValueError(f"soap_film expects a grid with x fastest, x increasing and y decreasing; {path.name} has its rows otherwise.")
    valid = choice > 0
    return x, y, np.where(valid, u, 0.0), valid


# --- finite elements on the square with a hole -------------------------------------------------------------------------------------


def holed_poisson(path: Path) -> dict[str, np.ndarray]:
    """Solutions of -Δu = 10, u = 0 on the boundary, on the unit square with a hole that moves from sample to sample.

    Arguments:
        path: holed_poisson.pt of PINA's tutorial 22.

    Returns:
        `x`, `y`, `u` (nodes, samples), float64 of stored float32: one mesh, deformed; `triang` (triangles, 3), the nodes of each, some
        clockwise and some not; `mu` (samples, 2), the lower left corner of the hole, 0.3 wide; `interior` (nodes,), see `interior_nodes`.
    """
    stored = {name: values.numpy() for name, values in torch.load(path, weights_only=True).items()}
    arrays = {name: stored[name].astype(np.float64) for name in ("x", "y", "u", "mu")}
    return {**arrays, "triang": stored["triang"], "interior": interior_nodes(stored["triang"], len(stored["x"]))}


def interior_nodes(triangles: np.ndarray, nodes: int) -> np.ndarray:
    """Which nodes lie on no boundary edge, that is an edge of one triangle only, (nodes,)."""
    edges = np.sort(triangles[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
    edges, count = np.unique(edges, axis=0, return_counts=True)
    interior = np.ones(nodes, dtype=bool)
    interior[edges[count == 1]] = False
    return interior


def p1_stiffness(x: np.ndarray, y: np.ndarray, triangles: np.ndarray) -> tuple[scipy.sparse.csr_matrix, np.ndarray]:
    """Stiffness matrix and load vector of -Δu = 10 for functions linear on each triangle.

    K_ij = ∫ ∇φ_i · ∇φ_j and F_i = 10 ∫ φ_i. With e_i the edge opposite node i of a triangle of area T, taken around it,
    ∇φ_i is e_i / (2 T) turned by a right angle, so that K_ij sums e_i · e_j / (4 T) and F_i sums 10 T / 3, either way around.

    Arguments:
        x, y: coordinates of the nodes, (nodes,).
        triangles: the nodes of each triangle, (triangles, 3).

    Returns:
        K, (nodes, nodes), and F, (nodes,): K u = F at the interior nodes.

    Example:
        >>> K, F = p1_stiffness(np.array([0.0, 1.0, 0.0]), np.array([0.0, 0.0, 1.0]), np.array([[0, 1, 2]]))
        >>> K.toarray().tolist()
        [[1.0, -0.5, -0.5], [-0.5, 0.5, 0.0], [-0.5, 0.0, 0.5]]
    """
    corners = np.stack([x, y], axis=1)[triangles]
    edges = np.roll(corners, -2, axis=1) - np.roll(corners, -1, axis=1)
    area = 0.5 * np.abs(edges[:, 0, 0] * edges[:, 1, 1] - edges[:, 0, 1] * edges[:, 1, 0])
    local = np.einsum("tik,tjk->tij", edges, edges) / (4 * area)[:, None, None]
    rows, columns = np.repeat(triangles, 3, axis=1), np.tile(triangles, (1, 3))
    K = scipy.sparse.coo_matrix((local.ravel(), (rows.ravel(), columns.ravel())), shape=(len(x), len(x))).tocsr()
    F = 10 / 3 * np.bincount(triangles.ravel(), np.repeat(area, 3), minlength=len(x))
    return K, F
