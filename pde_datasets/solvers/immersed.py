r"""Rigid bodies at rest in marker-and-cell flow: an immersed boundary whose points do not slip, to round-off.

Velocities are read at points $X_k$ of the surface with a smoothed delta function, $(Eu)_k = \sum_i\delta_h(x_i - X_k)\,h^2u_i$. $Eu = 0$ is
one more linear law, and the force on the surface its multiplier, as pressure is that of the divergence (Taira & Colonius, J. Comput. Phys.
225 (2007) 2118). Fields that obey both are projected on by a Schur complement: with the projection P on divergence-free fields,

$$\lambda = (E P M^{-1}E^\top)^+E P u,\qquad u \leftarrow P\,(u - M^{-1}E^\top\lambda).$$

The matrix is small, two rows a point, and factored once. Taira and Colonius treat friction implicitly and expand its inverse; here friction
is explicit, the projection is exact at every Runge-Kutta stage, and nothing is split.

The delta function is that of Roma, Peskin & Berger, J. Comput. Phys. 153 (1999) 509, three cells wide.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from pde_datasets.solvers.mac import MacFlow

_CHUNK = 64
"""Columns of the Schur complement formed at once."""

_NULL = 1e-11
"""Eigenvalues of the Schur complement below this share of the largest are forces that move nothing."""


class ImmersedBody:
    r"""No slip at points of a surface in the plane.

    Arguments:
        flow: the equations without the body.
        points: (K, 2), where cells are equal squares for two cells around them; a bit farther apart than cells are wide.

    Raises:
        ValueError: a point too near to an end, or where cells are not equal squares.
    """

    def __init__(self, flow: MacFlow, points: Tensor) -> None:
        self.flow = flow
        self.points = points.to(flow.device)
        self.places: list[Tensor] = []
        self.weights: list[Tensor] = []
        width = self._cell()
        for c in range(2):
            near, share = zip(*(self._read(c, j, width) for j in range(2)), strict=True)
            self.places.append((near[0][:, :, None] * flow.shape[1] + near[1][:, None, :]).flatten(1))
            self.weights.append((share[0][:, :, None] * share[1][:, None, :]).flatten(1))
        self.volume = width**2

    def _cell(self) -> float:
        """The width of the cells around the points."""
        widths = []
        for j, line in enumerate(self.flow.lines):
            x = self.points[:, j]
            first, last = (int(torch.searchsorted(line.faces, end)) for end in (x.min(), x.max()))
            if first < 3 or last > line.cells - 2:
                raise ValueError(
                    f"ImmersedBody expects two cells between its points and the ends; got points from {x.min():g} to {x.max():g}."
                )
            widths.append(line.width[first - 3 : last + 2])
        every = torch.cat(widths)
        if not torch.allclose(every, every[0], rtol=1e-9):
            raise ValueError(
                f"ImmersedBody expects equal square cells around its points; got widths from {every.min():.6g} to {every.max():.6g}."
            )
        return float(every[0])

    def _read(self, c: int, j: int, width: float) -> tuple[Tensor, Tensor]:
        """Along axis j: the three nearest places of component c to each point, and their weights, (K, 3)."""
        line, x = self.flow.lines[j], self.points[:, j].contiguous()
        grid = line.faces if j == c else line.middles
        nearest = torch.searchsorted((grid[1:] + grid[:-1]) / 2, x)
        near = nearest[:, None] + torch.arange(-1, 2, device=x.device)
        return near, _delta((grid[near] - x[:, None]) / width)

    def velocity(self, u: Tensor) -> Tensor:
        """E u, (B, 2, K)."""
        read = [(u[:, c].flatten(1)[:, self.places[c]] * self.weights[c]).sum(-1) for c in range(2)]
        return torch.stack(read, dim=1)

    def spread(self, force: Tensor) -> Tensor:
        r"""$M^{-1}E^\top\lambda$: the acceleration of the fluid by forces at the points, (B, 2, K) to (B, 2, *N)."""
        out = force.new_zeros(len(force), 2, self.flow.shape[0] * self.flow.shape[1])
        for c in range(2):
            values = (force[:, c, :, None] * self.weights[c]).flatten(1) / self.volume
            out[:, c].index_add_(1, self.places[c].flatten(), values)
        return out.reshape(len(force), 2, *self.flow.shape)

    def matrix(self, times: int = 1) -> Any:
        """E as a sparse matrix on fields (2, times, *N): rows are (component, time, point)."""
        import scipy.sparse

        count, cells = len(self.points), self.flow.shape[0] * self.flow.shape[1]
        starts = torch.arange(count + 1) * 9
        blocks = [
            scipy.sparse.kron(
                scipy.sparse.eye_array(times),
                scipy.sparse.csr_array((w.flatten().cpu().numpy(), p.flatten().cpu().numpy(), starts.numpy()), shape=(count, cells)),
            )
            for p, w in zip(self.places, self.weights, strict=True)
        ]
        return scipy.sparse.block_diag(blocks, format="csr")

    @functools.cached_property
    def _inverse(self) -> Tensor:
        """The pseudo-inverse of the Schur complement, (2K, 2K)."""
        size = 2 * len(self.points)
        unit = torch.eye(size, dtype=torch.float64, device=self.flow.device).reshape(size, 2, -1)
        rows = [self.velocity(self.flow.project(self.spread(part))[0]).flatten(1) for part in unit.split(_CHUNK)]
        schur = torch.cat(rows)
        values, vectors = torch.linalg.eigh((schur + schur.T) / 2)
        kept = values > _NULL * values[-1]
        return (vectors[:, kept] / values[kept]) @ vectors[:, kept].T

    def project(self, u: Tensor) -> tuple[Tensor, Tensor]:
        r"""The nearest field without divergence and without slip at the points; and the multiplier $\lambda$, (B, 2, K)."""
        slip = self.velocity(self.flow.project(u)[0])
        force = (slip.flatten(1) @ self._inverse).reshape(slip.shape)
        return self.flow.project(u - self.spread(force))[0], force


def _delta(r: Tensor) -> Tensor:
    """The smoothed delta function of distances in cells: sums to one over any three neighbours, and has no first moment."""
    r = r.abs()
    inner = (1 + (1 - 3 * r**2).clamp_min(0).sqrt()) / 3
    outer = (5 - 3 * r - (1 - 3 * (1 - r) ** 2).clamp_min(0).sqrt()) / 6
    return torch.where(r <= 0.5, inner, torch.where(r <= 1.5, outer, 0.0))


def circle(diameter: float, spacing: float) -> Tensor:
    """Points on a circle about the origin, (K, 2), at least a spacing apart."""
    count = int(torch.pi * diameter / spacing)
    angle = 2 * torch.pi * torch.arange(count, dtype=torch.float64) / count
    return diameter / 2 * torch.stack([angle.cos(), angle.sin()], dim=1)
