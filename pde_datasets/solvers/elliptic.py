r"""Steady diffusion on a box by finite volumes: the five-point scheme in the plane, three or seven points on a line or in space.

Every point owns a control volume: a cell around a cell centre, or what lies halfway to the neighbours of a node, cut at the walls. What
flows from point i to its neighbour j through their common face of area A is

$$F_{ij} = \frac{A}{h}\,\bar a_{ij}\,(u_i - u_j),\qquad \bar a_{ij} = \frac{2 a_i a_j}{a_i + a_j},$$

with the harmonic mean, which is exact for a coefficient that jumps halfway between them (Patankar, Numerical Heat Transfer and Fluid Flow,
1980, 4.2-3). The equation $-\nabla\cdot(a\nabla u) + c\,u = f$ becomes a balance of each volume,

$$\sum_j F_{ij} + c\,V_i u_i = V_i f_i,$$

of second order for smooth a and f. Flows cancel in pairs: summed over volumes, what leaves through the walls is what the source gives, to
round-off. Walls hold u = 0 or let nothing through.

For constant a the operator is a sum over axes with sines or cosines as eigenvectors, and is inverted by transforms (fast diagonalisation;
Buzbee, Golub & Nielson, SIAM J. Numer. Anal. 7 (1970) 627). For any other a that inverse preconditions conjugate gradients (Concus & Golub,
SIAM J. Numer. Anal. 10 (1973) 1103): the number of iterations follows from the contrast of a, whatever the number of points. All of it
is products of small dense matrices, for a whole batch and on any device.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from constraints.grid import Axis, Grid
from constraints.linear.solve import conjugate_gradients

WALLS = ("zero", "no-flux")

_REDUCTION = 1e-9
"""What one run of conjugate gradients leaves of a residual. The next starts from the exact one; the second or third ends in round-off."""

_RUNS = 6

_ROUND_OFF = 64 * torch.finfo(torch.float64).eps
"""Residual over the largest flow and its terms where a solution counts as exact."""


class ControlVolumes(nn.Module):
    r"""The control volumes of a box and the balance of steady diffusion on them.

    Fields and coefficients are (B, *N), float64, and may be differentiated through all but the solves. A module only so that its constants
    follow `.to(device)`.

    Arguments:
        grid: space axes, bounded and equally spaced, of nodes (both walls stored) or of cells.
        walls: "zero", u = 0 on all walls, or "no-flux".

    Attributes:
        volumes: $V$, (*N).
        free: where u is unknown, (*N): everywhere but on nodes of walls with u = 0.
        values: eigenvalues of minus the Laplacian, (modes of each axis).
        inverse_values: their reciprocals, and zero for that of a constant between closed walls.
        conductance: the largest $A/h$.

    Raises:
        ValueError: unknown walls, a time axis, or an axis that is periodic, stretched or too short.

    Example:
        >>> line = ControlVolumes(Grid(Axis("x", 5)), "zero")
        >>> line.invert(line.volumes[None]).round(decimals=12).tolist()  # -u'' = 1
        [[0.0, 0.09375, 0.125, 0.09375, 0.0]]
    """

    def __init__(self, grid: Grid, walls: str) -> None:
        if walls not in WALLS:
            raise ValueError(f"ControlVolumes expects walls among {', '.join(WALLS)}; got '{walls}'.")
        for axis in grid.axes:
            least = 3 if walls == "zero" and not axis.cells else 2
            if axis.name == "time" or axis.periodic or not axis.uniform or axis.points < least:
                raise ValueError(
                    f"ControlVolumes expects bounded, equally spaced space axes of at least {least} points; got '{axis.name}' with "
                    f"{axis.points}{', periodic' if axis.periodic else '' if axis.uniform else ', not equally spaced'}."
                )
        super().__init__()
        self.grid, self.walls = grid, walls
        free = torch.ones(grid.shape, dtype=torch.bool)
        values = torch.zeros((1,) * len(grid.axes), dtype=torch.float64)
        self.conductance = 0.0
        for dim, axis in enumerate(grid.axes):
            if walls == "zero" and not axis.cells:
                free.index_fill_(dim, torch.tensor([0, axis.points - 1]), False)
            areas = grid.weights([other.name for other in grid.axes if other is not axis])
            self.conductance = max(self.conductance, float(areas.max()) / axis.spacing)
            values = values + grid.along(axis.name, eigenvalues(axis, walls))
            self.register_buffer(f"per_length{dim}", areas / axis.spacing)
            self.register_buffer(f"waves{dim}", _eigenvectors(axis, walls))
        self.register_buffer("volumes", grid.weights().expand(grid.shape).clone())
        self.register_buffer("free", free)
        self.register_buffer("values", values)
        self.register_buffer("inverse_values", torch.where(values > 0, 1 / torch.where(values > 0, values, 1.0), 0.0))

    volumes: Tensor
    free: Tensor
    values: Tensor
    inverse_values: Tensor

    def conductances(self, coefficient: Tensor) -> list[Tensor]:
        r"""$A\bar a/h$ of the faces across each axis, those at its ends included, (B, .., n + 1, ..).

        The wall of cells with u = 0 is half a spacing away; closed walls, and the far halves of volumes around nodes where u is given, let
        nothing through.
        """
        found = []
        for number, axis in enumerate(self.grid.axes):
            dim, n = self.grid.dim(axis.name), axis.points
            low, high = coefficient.narrow(dim, 0, n - 1), coefficient.narrow(dim, 1, n - 1)
            open_walls = 2.0 if self.walls == "zero" and axis.cells else 0.0
            ends = [open_walls * coefficient.narrow(dim, end, 1) for end in (0, n - 1)]
            mean = torch.cat([ends[0], 2 * low * high / (low + high), ends[1]], dim)
            found.append(self.get_buffer(f"per_length{number}").to(coefficient) * mean)
        return found

    def flows(self, u: Tensor, coefficient: Tensor | None = None) -> list[Tensor]:
        """What flows through the faces across each axis in its direction, (B, .., n + 1, ..)."""
        conductances = self.conductances(torch.ones_like(u) if coefficient is None else coefficient)
        return [c * jump(u, self.grid.dim(axis.name)) for c, axis in zip(conductances, self.grid.axes, strict=True)]

    def outflow(self, u: Tensor, coefficient: Tensor | None = None) -> Tensor:
        r"""$-\int\nabla\cdot(a\nabla u)\,dV$ over each volume, (B, *N); zero for volumes of nodes where u is given."""
        return self._net(self.flows(u, coefficient))

    def _net(self, flows: list[Tensor]) -> Tensor:
        """Flows out of the free volumes."""
        parts = [torch.diff(flow, dim=self.grid.dim(axis.name)) for flow, axis in zip(flows, self.grid.axes, strict=True)]
        return sum(parts[1:], parts[0]) * self.free.to(flows[0])

    def loss(self, u: Tensor, coefficient: Tensor | None = None) -> Tensor:
        """What flows out of all free volumes together, through walls or into the volumes of nodes on them, (B,)."""
        total = u.new_zeros(len(u))
        for flow, axis in zip(self.flows(u, coefficient), self.grid.axes, strict=True):
            dim = self.grid.dim(axis.name)
            given = int(self.walls == "zero" and not axis.cells)
            net = flow.narrow(dim, axis.points - given, 1) - flow.narrow(dim, given, 1)
            inside = self.free.to(u).narrow(dim, axis.points // 2, 1)  # lines along a wall of nodes end in none of them
            total = total + (net * inside).flatten(1).sum(1)
        return total

    def invert(self, b: Tensor, reaction: float = 0.0) -> Tensor:
        r"""Exact solutions of $-\nabla^2 u + c\,u = f$, (B, *N), by transforms.

        The sum of a mode is divided by its eigenvalue plus c; that of eigenvalue zero, the constant between no-flux walls, is left out,
        so that u has zero mean there.

        Arguments:
            b: sources integrated over volumes, $V f$, (B, *N); those of nodes where u is given do not count.
            reaction: c.

        Raises:
            ValueError: $-c$ is an eigenvalue, which leaves the equation without a single solution.
        """
        if reaction == 0:
            return self.filter(b, self.inverse_values.to(b))
        total = self.values.to(b) + reaction
        if bool((total.abs() <= _ROUND_OFF * total.abs().max()).any()):
            raise ValueError(f"ControlVolumes expects a reaction that is not minus an eigenvalue of the Laplacian; got {reaction}.")
        return self.filter(b, 1 / total)

    def filter(self, b: Tensor, factors: Tensor) -> Tensor:
        r"""$Q\,\mathrm{diag}(\text{factors})\,Q^\top b$, (B, *N), for the eigenvectors Q of the Laplacian, orthonormal under `volumes`.

        Arguments:
            b: integrals over volumes, (B, *N); those of nodes where u is given do not count.
            factors: one for each mode, in the shape of `values`.
        """
        x = b * self.free.to(b)
        for number, axis in enumerate(self.grid.axes):
            x = _along(self.get_buffer(f"waves{number}").to(b).mT, x, self.grid.dim(axis.name))
        x = x * factors
        for number, axis in enumerate(self.grid.axes):
            x = _along(self.get_buffer(f"waves{number}").to(b), x, self.grid.dim(axis.name))
        return x

    def solve(self, coefficient: Tensor, b: Tensor, max_iterations: int = 2000) -> Tensor:
        r"""Solutions of $-\nabla\cdot(a\nabla u) = f$, (B, *N), to the round-off of their balance; of zero mean between no-flux walls.

        Arguments:
            coefficient: a, positive, (B, *N).
            b: sources integrated over volumes, $V f$, (B, *N) or (*N).

        Raises:
            ValueError: a coefficient that is not positive, a net source between no-flux walls, or a contrast beyond the solver.
        """
        if not bool((coefficient > 0).all() and torch.isfinite(coefficient).all()):
            raise ValueError("ControlVolumes expects positive, finite coefficients.")
        free = self.free.to(coefficient)
        b = (b.to(coefficient) * free).expand_as(coefficient)
        dims, spread = tuple(range(1, b.ndim)), (-1, *(1,) * (b.ndim - 1))
        if self.walls == "no-flux" and bool((b.sum(dims).abs() > _ROUND_OFF * b.abs().sum(dims)).any()):
            raise ValueError("ControlVolumes expects sources that sum to zero between no-flux walls: nothing leaves there.")
        mean = coefficient.mean(dims).reshape(spread)
        size = coefficient.amax(dims) * self.conductance
        conductances, inverse = self.conductances(coefficient), self.inverse_values.to(coefficient)

        def operator(x: Tensor) -> Tensor:
            return self._net([c * jump(x, self.grid.dim(axis.name)) for c, axis in zip(conductances, self.grid.axes, strict=True)])

        u = torch.zeros_like(coefficient)
        for _ in range(_RUNS):
            left = b - operator(u)
            if bool((left.abs().amax(dims) <= _ROUND_OFF * torch.maximum(size * u.abs().amax(dims), b.abs().amax(dims))).all()):
                break
            u = u + conjugate_gradients(
                operator,
                left,
                preconditioner=lambda r: self.filter(r, inverse) / mean,
                fraction=_REDUCTION,
                max_iterations=max_iterations,
            )
        else:
            contrast = (coefficient.amax(dims) / coefficient.amin(dims)).max().item()
            raise ValueError(f"ControlVolumes does not solve for coefficients of this contrast, {contrast:.3g}. Choose a smaller one.")
        return u


def eigenvalues(axis: Axis, walls: str) -> Tensor:
    r"""$\frac{4}{h^2}\sin^2\frac{k\pi h}{2L}$, the scheme's for $-u''$: k from 1 between walls with u = 0, from 0 between closed ones."""
    k, gaps = _modes(axis, walls)
    return (2 / axis.spacing * torch.sin(math.pi / (2 * gaps) * k.to(torch.float64))) ** 2


def _modes(axis: Axis, walls: str) -> tuple[Tensor, int]:
    """Numbers of half waves on the axis, as many as it has free points, and the spacings from wall to wall."""
    given = 2 if walls == "zero" and not axis.cells else 0
    first = 1 if walls == "zero" else 0
    return first + torch.arange(axis.points - given), axis.points if axis.cells else axis.points - 1


def _eigenvectors(axis: Axis, walls: str) -> Tensor:
    """Sines or cosines at the points, (n, modes), orthonormal under the axis's weights; angles are reduced in whole numbers."""
    k, gaps = _modes(axis, walls)
    halves = 2 * torch.arange(axis.points) + axis.cells  # distance from the lower wall in half spacings
    angle = math.pi / (2 * gaps) * ((halves[:, None] * k) % (4 * gaps)).to(torch.float64)
    waves = torch.sin(angle) if walls == "zero" else torch.cos(angle)
    if walls == "zero" and not axis.cells:
        waves[[0, -1]] = 0.0
    return waves / (axis.weights()[:, None] * waves.square()).sum(0).sqrt()


def _along(matrix: Tensor, x: Tensor, dim: int) -> Tensor:
    """A matrix times the lines of a batch of fields along a dimension."""
    return matrix @ x if dim == -2 else (x.movedim(dim, -1) @ matrix.mT).movedim(-1, dim)


def jump(u: Tensor, dim: int) -> Tensor:
    """What u falls by across each face along a dimension, n + 1 of them, from zero and to zero at the ends."""
    none = torch.zeros_like(u.narrow(dim, 0, 1))
    return -torch.diff(u, dim=dim, prepend=none, append=none)
