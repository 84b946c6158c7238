r"""Finite elements on deforming meshes in `.pt` files of PINA's tutorials: `x`, `y`, `u` (nodes, samples), `triang` (triangles, 3).

The file of tutorial 22, `holed_poisson.pt`: $-\Delta u = 10$ on the unit square with a hole that moves, $u = 0$ on the boundary, linear
elements. The source term is not stored; it is measured here: $K u$ over the loads of the nodes inside is one number for all of them, 10 to
$10^{-5}$ in the median (single precision stores $u$ to $10^{-7}$, of which second differences keep $10^{-3}$).
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from pde_datasets.fields import Fields
from pde_datasets.finite_elements import interior_nodes, p1_stiffness
from pde_datasets.loaders.files import shapes_of
from pde_datasets.loaders.pt import content, glimpse, is_pt
from pde_datasets.mesh import Equation, Mesh, csr, on_mesh

_NEEDED = {"x", "y", "u", "triang"}
_SPREAD = 1e-3
"""Quartiles of the measured source about its median, relative: the single precision of u leaves 1e-4."""


def recognises(path: Path) -> bool:
    """Whether a file is a dictionary of tensors with `x`, `y`, `u` and `triang`."""
    if not is_pt(path):
        return False
    data = glimpse(path)
    return isinstance(data, dict) and set(data) >= _NEEDED


def load(path: Path) -> Fields:
    """The solutions, a mesh of its own for each sample.

    Returns:
        `u` (N, 1, P) on the nodes, in the float type of the file; `mesh.points` (N, P, 2); `mesh.equations`: "poisson", K u = f F at the
        nodes inside, for each sample, where a constant source f was found, and "dirichlet", u = 0 on the boundary, where that is exact;
        `mesh.boundary`: the nodes there. `mu`, the lower left corner of the hole, is a parameter.

    Raises:
        ValueError: shapes that do not fit, or triangles that are none.
    """
    data = content(path)
    tensors = {name: data[name] for name in (*_NEEDED, "mu") if isinstance(data.get(name), Tensor)}
    got = shapes_of(tensors, "none")
    u, triangles = tensors.get("u"), tensors.get("triang")
    if (
        u is None or triangles is None or u.ndim != 2 or not u.is_floating_point() or not u.numel()
        or any(name not in tensors or tensors[name].shape != u.shape for name in ("x", "y"))
        or triangles.ndim != 2 or triangles.shape[1] != 3 or triangles.is_floating_point()
    ):  # fmt: skip
        raise ValueError(f"{path.name}: pina expects floats x, y, u (nodes, samples) and whole numbers triang (triangles, 3); got {got}.")
    nodes, count = u.shape
    points = torch.stack([tensors["x"], tensors["y"]], dim=-1).transpose(0, 1).to(torch.float64).contiguous()
    triangles = triangles.to(torch.long)
    try:
        matrices, loads = zip(*(p1_stiffness(place, triangles) for place in points), strict=True)
    except ValueError as error:
        raise ValueError(f"{path.name}: pina expects a mesh of triangles. {error}") from error
    inside = interior_nodes(triangles, nodes)
    if not inside.any() or not (loads[0][inside] > 0).all() or not u.isfinite().all():
        raise ValueError(
            f"{path.name}: pina expects finite u, nodes inside, and every node on some triangle; these {nodes} nodes are not so."
        )
    values = u.T.to(torch.float64)
    source = torch.stack([(K @ v / F)[inside] for K, v, F in zip(matrices, values, loads, strict=True)])
    ordered = source.flatten().sort().values
    low, f, high = (float(ordered[len(ordered) * quarter // 4]) for quarter in (1, 2, 3))
    f = float(round(f)) if abs(f - round(f)) < _SPREAD * abs(f) else f
    edge, equations, notes = torch.nonzero(~inside).flatten(), {}, ["Linear elements on a mesh that deforms from sample to sample."]
    if high - low < _SPREAD * abs(f):
        rows = tuple(_rows(K, inside) for K in matrices)
        equations["poisson"] = Equation(rows, tuple(f * F[inside] for F in loads))
        notes.append(f"K u = {f:g} F inside, as measured, to 1e-4 of each load, which is what single precision leaves.")
    else:
        notes.append("No constant source was found, so that no equation is stated.")
    if not u[~inside].any():
        selection = csr(torch.arange(len(edge)), edge, torch.ones(len(edge), dtype=torch.float64), (len(edge), nodes))
        equations["dirichlet"] = Equation(selection)
    parameters = {}
    mu = tensors.get("mu")
    if mu is not None and mu.ndim > 0 and len(mu) == count:
        parameters["mu"] = mu
    return Fields(
        u=u.T[:, None].contiguous(),
        grid=on_mesh(nodes, "point"),
        channels=("u",),
        parameters=parameters,
        attributes={"format": "pina", "path": path.name, "source": "PINA tutorial data", "notes": " ".join(notes)}
        | ({"equation": f"-laplacian u = {f:g}"} if "poisson" in equations else {}),
        mesh=Mesh(points, "point", cells={"triangle": triangles}, equations=equations, boundary={"boundary": edge}),
    )


def _rows(matrix: Tensor, chosen: Tensor) -> Tensor:
    """Some rows of a sparse matrix."""
    entries = matrix.to_sparse_coo()
    rows, columns = entries.indices()
    kept = chosen[rows]
    number = chosen.cumsum(0) - 1
    return csr(number[rows[kept]], columns[kept], entries.values()[kept], (int(chosen.sum()), matrix.shape[1]))
