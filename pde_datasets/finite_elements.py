r"""Linear finite elements on triangles, assembled: the equations that solutions on a mesh obey to round-off.

$$ K_{ij} = \int \nabla\varphi_i \cdot \nabla\varphi_j, \qquad F_i = \int \varphi_i $$

for functions that are linear on each triangle, one at a corner and zero at the others: $-\Delta u = f$ with constant $f$ is $K u = f F$ at
the nodes inside.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pde_datasets.mesh import csr


def p1_stiffness(points: Tensor, triangles: Tensor) -> tuple[Tensor, Tensor]:
    r"""Stiffness matrix and load vector of linear elements.

    With $e_i$ the edge opposite corner $i$ of a triangle of area $T$, taken around it, $\nabla\varphi_i$ is $e_i / 2T$ turned by a right
    angle, so that $K_{ij}$ sums $e_i \cdot e_j / 4T$ and $F_i$ sums $T / 3$, whichever way around.

    Arguments:
        points: coordinates of the nodes, (P, 2).
        triangles: corners of each triangle, (n, 3).

    Returns:
        K, (P, P), sparse CSR, and F, (P,), in the float type of the points.

    Raises:
        ValueError: shapes that do not fit, corners that are no nodes, or triangles without area.

    Source:
        Ciarlet, The Finite Element Method for Elliptic Problems (1978), section 2.2.

    Example:
        >>> K, F = p1_stiffness(torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), torch.tensor([[0, 1, 2]]))
        >>> K.to_dense().tolist(), [round(f, 4) for f in F.tolist()]
        ([[1.0, -0.5, -0.5], [-0.5, 0.5, 0.0], [-0.5, 0.0, 0.5]], [0.1667, 0.1667, 0.1667])
    """
    count = _check(points, triangles)
    corners = points[triangles]
    edges = corners.roll(-2, dims=1) - corners.roll(-1, dims=1)
    area = (edges[:, 0, 0] * edges[:, 1, 1] - edges[:, 0, 1] * edges[:, 1, 0]).abs() / 2
    if not (area > 0).all():
        raise ValueError(f"p1_stiffness expects triangles with an area; {int((area <= 0).sum())} of {len(area)} have none.")
    local = torch.einsum("tik,tjk->tij", edges, edges) / (4 * area)[:, None, None]
    K = csr(triangles.repeat_interleave(3, dim=1).flatten(), triangles.repeat(1, 3).flatten(), local.flatten(), (count, count))
    F = torch.zeros(count, dtype=points.dtype).index_add_(0, triangles.flatten(), (area / 3).repeat_interleave(3))
    return K, F


def interior_nodes(triangles: Tensor, nodes: int) -> Tensor:
    """Which nodes lie on no edge of one triangle only, (nodes,): those off the boundary.

    Example:
        >>> interior_nodes(torch.tensor([[0, 1, 4], [1, 2, 4], [2, 3, 4], [3, 0, 4]]), 5)
        tensor([False, False, False, False,  True])
    """
    edges = triangles[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2).sort(dim=1).values
    edges, count = edges.unique(dim=0, return_counts=True)
    interior = torch.ones(nodes, dtype=torch.bool)
    interior[edges[count == 1].flatten()] = False
    return interior


def _check(points: Tensor, triangles: Tensor) -> int:
    """The number of nodes."""
    if points.ndim != 2 or points.shape[1] != 2 or triangles.ndim != 2 or triangles.shape[1] != 3 or not len(triangles):
        raise ValueError(f"p1_stiffness expects points (P, 2) and triangles (n, 3); got {tuple(points.shape)}, {tuple(triangles.shape)}.")
    if int(triangles.min()) < 0 or int(triangles.max()) >= len(points):
        raise ValueError(
            f"p1_stiffness expects corners among {len(points)} nodes; got some from {int(triangles.min())} to {int(triangles.max())}."
        )
    return len(points)
