"""Three real files whose laws live on no regular grid, as arrays for tests of the projection.

    fluxes on the faces of a mesh          M φ = 0          one row per cell: what flows in flows out       (OpenFOAM)
    velocities measured by particle images ∂x u + ∂y v ≈ 0  with holes where no particle was seen           (TSI Insight)
    finite elements on triangles           K u = F          at the interior nodes                           (P1, -Δu = 10)

Read by the loaders; tests import them as `from tests.real_files import ...`. Arrays are float64, coordinates increase, units are SI.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import scipy.sparse
import torch

import pde_datasets
from pde_datasets import finite_elements
from pde_datasets.loaders.openfoam import Case

__all__ = ["holed_poisson", "interior_nodes", "openfoam_flux", "openfoam_patches", "p1_stiffness", "soap_film"]


def sparse(matrix: torch.Tensor) -> scipy.sparse.csr_matrix:
    """A sparse tensor as a matrix of scipy."""
    parts = (part.numpy() for part in (matrix.values(), matrix.col_indices(), matrix.crow_indices()))
    return scipy.sparse.csr_matrix(tuple(parts), shape=tuple(matrix.shape))


def openfoam_patches(folder: Path) -> dict[str, slice]:
    """The faces of each patch of the boundary, by name, as the mesh numbers them."""
    return {name: faces for name, (_, faces) in Case.read(folder).patches.items()}


def openfoam_flux(folder: Path, time: str) -> tuple[scipy.sparse.csr_matrix, np.ndarray]:
    """Signed incidence M, (cells, faces), and the flux through every face at a time, (faces,), in m³/s.

    Without the faces of patches of type `empty`; these are the last in the file there is, so that the others keep their numbers.
    """
    fields = pde_datasets.open(folder, "openfoam-flux")
    assert fields.mesh is not None
    row = fields.parameters["time"].tolist().index(float(time))
    return sparse(fields.mesh.equations["balance"].of(row)[0]), fields.values[row, 0].numpy()


def soap_film(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """x (nx,) and y (ny,) in m; the velocity (2, nx, ny) in m/s, zero where it is not valid; and where it is, (nx, ny)."""
    fields = pde_datasets.open(path)
    x, y = (axis.positions().numpy() for axis in fields.grid.axes)
    return x, y, fields.values[0, :2].numpy(), fields.values[0, 2].numpy() > 0


def holed_poisson(path: Path) -> dict[str, np.ndarray]:
    """`x`, `y`, `u` (nodes, samples), `triang` (triangles, 3), `mu` (samples, 2), `interior` (nodes,) of PINA's holed_poisson.pt."""
    fields = pde_datasets.open(path)
    assert fields.mesh is not None
    interior = np.ones(fields.grid.shape[0], dtype=bool)
    interior[fields.mesh.boundary["boundary"].numpy()] = False
    x, y = fields.mesh.points.permute(2, 1, 0).numpy()
    u, mu = fields.values[:, 0].T.double().numpy(), fields.parameters["mu"].double().numpy()
    return {"x": x, "y": y, "u": u, "mu": mu, "triang": fields.mesh.cells["triangle"].numpy(), "interior": interior}


def interior_nodes(triangles: np.ndarray, nodes: int) -> np.ndarray:
    """Which nodes lie on no boundary edge, (nodes,)."""
    return finite_elements.interior_nodes(torch.from_numpy(triangles), nodes).numpy()


def p1_stiffness(x: np.ndarray, y: np.ndarray, triangles: np.ndarray) -> tuple[scipy.sparse.csr_matrix, np.ndarray]:
    """K, (nodes, nodes), and F, (nodes,), of -Δu = 10 for linear elements: K u = F at the interior nodes."""
    K, F = finite_elements.p1_stiffness(torch.from_numpy(np.stack([x, y], axis=1)), torch.from_numpy(triangles))
    return sparse(K), 10 * F.numpy()
