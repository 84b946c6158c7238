r"""Incompressible flow on marker-and-cell grids: walls, inflow, outflow, periodic axes; equal or stretched cells.

$$\partial_t\mathbf u + \nabla\cdot(\mathbf u\mathbf u) = -\nabla p + \nu\nabla^2\mathbf u + \mathbf g,\qquad \nabla\cdot\mathbf u = 0.$$

Component c of the velocity lives on the faces of axis c, the pressure in the cells (Harlow & Welch, Phys. Fluids 8 (1965) 2182). Fields
have the layout of `DivergenceFree(grid, "staggered")`: the points of an axis are faces, and entry i of a component along another axis is
the middle between points i and i + 1. The last entries along a bounded axis, which belong to no cell, hold the velocity on that end.

*In space* fluxes are central and balance over the control volume of every face, with the volume flux that balances there too. Advection is
then skew-symmetric, also on stretched cells: it moves kinetic energy and makes none (Verstappen & Veldman, J. Comput. Phys. 187 (2003)
343). At a wall the value beyond mirrors the one inside about the wall's own. Second order.

*In time* the discrete equations are an ordinary differential equation on divergence-free fields, $\dot u = P f(u)$, with the projection
$P = I - M^{-1}D^\top(DM^{-1}D^\top)^+D$ orthogonal in the kinetic energy. The classical Runge-Kutta rule, projected at each stage, is that
rule for this equation: fourth order, nothing split, the divergence zero to round-off (half-explicit Runge-Kutta; Sanderse & Koren,
J. Comput. Phys. 231 (2012) 3041). The pressure is the multiplier. $DM^{-1}D^\top$ is a sum over axes, inverted in the eigenbases of small
matrices (cosines between walls), two products of matrices an axis (Lynch, Rice & Thomas, Numer. Math. 6 (1964) 185).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from constraints import Axis, Grid
from constraints.calculus.staggered import Staggered
from pde_datasets.steps import took

REAL, IMAGINARY = 2.785, 2.828
"""Ends of the classical Runge-Kutta rule's stability region on the negative real and on the imaginary axis."""

_NULL = 1e-12
"""Eigenvalues below this share of the largest are the constant pressure of a closed box."""


@dataclass(frozen=True)
class Given:
    """An end of an axis where the velocity is given: a wall at rest, a moving lid, an inflow.

    Attributes:
        velocity: a number a component, each (B,), (1,) or ().
    """

    velocity: tuple[Tensor | float, ...]


@dataclass(frozen=True)
class Slip:
    """An end without flow through it and without friction along it."""


@dataclass(frozen=True)
class Outflow:
    r"""An end that lets flow out: $\partial_t u + U\partial_n u = -\partial_n p$ on its faces, p = 0, nothing else changes across it.

    Attributes:
        speed: U, what carries structures out.
    """

    speed: float


End = Given | Slip | Outflow


class MacFlow:
    r"""The semi-discrete equations on a box.

    Arguments:
        grid: two or three space axes, the points of each the faces of its cells.
        viscosity: $\nu$, (B,) or a number.
        ends: what happens at the lower and at the upper end of every bounded axis, by name.
        force: $\mathbf g$, uniform: a number a component, each (B,) or a number; zero by default.
        device: where to compute.

    Raises:
        ValueError: an axis of cell centres, or ends that are not those of the bounded axes.
    """

    def __init__(
        self,
        grid: Grid,
        viscosity: Tensor | float,
        ends: Mapping[str, tuple[End, End]] | None = None,
        *,
        force: Sequence[Tensor | float] | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        ends = {} if ends is None else ends
        bounded = {axis.name for axis in grid.space_axes if not axis.periodic}
        if set(ends) != bounded or any(axis.cells for axis in grid.space_axes):
            raise ValueError(
                f"MacFlow expects axes whose points are faces and both ends of the bounded ones, {sorted(bounded)}; "
                f"got ends of {sorted(ends)} on {grid.space}."
            )
        self.d = len(grid.space_axes)
        self.shape = grid.space.shape
        self.device = torch.device(device)
        self.lines = [_Line(axis, ends.get(axis.name), self.device) for axis in grid.space_axes]
        self.viscosity = self._each(viscosity)
        self.force = [self._each(g) for g in force] if force is not None else [self._each(0.0)] * self.d
        bases, values = zip(*(line.modes() for line in self.lines), strict=True)
        self._bases: list[Tensor] = list(bases)
        total = sum((self._along(j, value) for j, value in enumerate(values)), torch.zeros((), dtype=torch.float64, device=self.device))
        self._inverse = torch.where(total > _NULL * total.max(), 1 / torch.where(total > 0, total, 1.0), 0.0)

    # --- layout ---------------------------------------------------------------------------------------------------------------------

    def _each(self, value: Tensor | float) -> Tensor:
        """A number for each sample, (B or 1, 1, ...), to multiply a component."""
        return torch.as_tensor(value, dtype=torch.float64, device=self.device).reshape(-1, *(1,) * self.d)

    def _along(self, j: int, values: Tensor) -> Tensor:
        return values.reshape(-1, *(1,) * (self.d - 1 - j))

    def component(self, u: Tensor, c: int) -> Tensor:
        """The values of a component, (B, ...): on all faces along its own axis, in the cells along the others."""
        x = u[:, c]
        for j, line in enumerate(self.lines):
            if j != c:
                x = x.narrow(j + 1, 0, line.cells)
        return x

    def complete(self, u: Tensor) -> Tensor:
        """Fields with the velocity on the ends written in, where the layout has a place for it: the faces there, the last entries."""
        u = u.clone()
        for j, line in enumerate(self.lines):  # along the ends
            for c in range(self.d):
                if line.ends is not None and c != j:
                    low, high = u[:, c].narrow(j + 1, line.cells - 1, 1), u[:, c].narrow(j + 1, line.cells, 1)
                    end = line.ends[1]
                    high.copy_(self._each(end.velocity[c]) if isinstance(end, Given) else low)
        for j, line in enumerate(self.lines):  # through the ends
            for end, at in zip(line.ends or (), (0, line.cells), strict=False):
                if not isinstance(end, Outflow):
                    u[:, j].narrow(j + 1, at, 1).copy_(self._each(end.velocity[j]) if isinstance(end, Given) else self._each(0.0))
        return u

    def volumes(self, c: int) -> Tensor:
        """Control volumes of a component's faces, (*N), zero for the entries that belong to no cell."""
        volume = torch.ones((), dtype=torch.float64, device=self.device)
        for j, line in enumerate(self.lines):
            widths = line.gap if j == c else torch.cat([line.width, line.width.new_zeros(len(line.gap) - line.cells)])
            volume = volume * self._along(j, widths)
        return volume

    def places(self, c: int) -> tuple[Tensor, ...]:
        """Coordinates of a component's values, (*N) a axis."""
        lines = [line.faces if j == c else line.middles for j, line in enumerate(self.lines)]
        return torch.meshgrid(*lines, indexing="ij")

    def curl(self, psi: Tensor) -> Tensor:
        r"""$(\partial_y\psi, -\partial_x\psi)$ in the plane from a stream function on the corners of cells, (B, *N): no divergence.

        Constant along an end, it lets nothing through.
        """
        u = psi.new_zeros(len(psi), 2, *self.shape)
        for c, sign in ((0, 1.0), (1, -1.0)):
            j = 1 - c
            line = self.lines[j]
            change = line.right(psi, j) - line.left(psi, j)
            u[:, c].narrow(j + 1, 0, line.cells).copy_(sign * change / self._along(j, line.width))
        return u

    # --- divergence and pressure ----------------------------------------------------------------------------------------------------

    def divergence(self, u: Tensor) -> Tensor:
        """In the cells, (B, *n)."""
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        for c, line in enumerate(self.lines):
            x = self.component(u, c)
            total = total + (line.right(x, c) - line.left(x, c)) / self._along(c, line.width)
        return total

    def poisson(self, source: Tensor) -> Tensor:
        r"""p in the cells with $\nabla^2 p$ = source, no gradient where the velocity is given, p = 0 where flow leaves."""
        p = source
        for j, line in enumerate(self.lines):
            p = p * self._along(j, line.width)
        for j, basis in enumerate(self._bases):
            p = _multiply(basis.T, p, j - self.d)
        p = -p * self._inverse
        for j, basis in enumerate(self._bases):
            p = _multiply(basis, p, j - self.d)
        return p

    def subtract_gradient(self, u: Tensor, p: Tensor) -> Tensor:
        """u less the gradient of a pressure, on the faces that are free."""
        u = u.clone()
        for c, line in enumerate(self.lines):
            free = line.free()
            self._faces(u, c, free).sub_(line.gradient(p, c) / self._along(c, line.gap.narrow(0, *free)))
        return u

    def _faces(self, u: Tensor, c: int, faces: tuple[int, int]) -> Tensor:
        """A view of a component on a range of faces (first, number)."""
        return self.component(u, c).narrow(c + 1, *faces)

    def project(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """The nearest divergence-free field, in kinetic energy, with the same values where they are given; and the multiplier p."""
        p = self.poisson(self.divergence(u))
        return self.subtract_gradient(u, p), p

    # --- momentum -------------------------------------------------------------------------------------------------------------------

    def rate(self, u: Tensor) -> Tensor:
        """f(u): advection, friction and force on the free faces; zero elsewhere."""
        out = torch.zeros_like(u)
        parts = [self.component(u, c) for c in range(self.d)]
        for c, line in enumerate(self.lines):
            x = parts[c]
            inside = line.inside
            mean = (line.left(x, c) + line.right(x, c)) / 2
            flux = mean * mean - self.viscosity * (line.right(x, c) - line.left(x, c)) / self._along(c, line.width)
            total = line.change(flux, c) / self._along(c, line.gap.narrow(0, *inside))
            for j, other in enumerate(self.lines):
                if j != c:
                    flux = self._flux(x.narrow(c + 1, *inside), self._carrier(parts[j], j, c), c, j)
                    total = total + flux.diff(dim=j + 1) / self._along(j, other.width)
            self._faces(out, c, inside).copy_(self.force[c] - total)
            self._leave(out, x, c)
        return out

    def _carrier(self, w: Tensor, j: int, c: int) -> Tensor:
        """Component j on the edges between axes j and c that bound the control volumes of free c-faces: the volume flux averaged."""
        line = self.lines[c]
        flow = w * self._along(c, line.width)
        carried = line.sum(flow, c) / self._along(c, 2 * line.gap.narrow(0, *line.inside))
        return carried if self.lines[j].ends is not None else torch.cat([carried, carried.narrow(j + 1, 0, 1)], dim=j + 1)

    def _flux(self, x: Tensor, carrier: Tensor, c: int, j: int) -> Tensor:
        """Advective and viscous flux of component c along another axis j, on all its points."""
        line = self.lines[j]
        first, last = x.narrow(j + 1, 0, 1), x.narrow(j + 1, line.cells - 1, 1)
        beyond = (last, first) if line.ends is None else (self._mirror(line.ends[0], first, c), self._mirror(line.ends[1], last, c))
        extended = torch.cat([beyond[0], x, beyond[1]], dim=j + 1)
        below, above = extended.narrow(j + 1, 0, line.cells + 1), extended.narrow(j + 1, 1, line.cells + 1)
        return carrier * (below + above) / 2 - self.viscosity * (above - below) / self._along(j, line.spread)

    def _mirror(self, end: End, value: Tensor, c: int) -> Tensor:
        """The value beyond an end that makes the mean on it the given one, or the change across it zero."""
        return 2 * self._each(end.velocity[c]) - value if isinstance(end, Given) else value

    def _leave(self, out: Tensor, x: Tensor, c: int) -> None:
        """Convective outflow on the faces of an axis's ends."""
        line = self.lines[c]
        if line.ends is None:
            return
        for end, at, neighbour, width in (
            (line.ends[0], 0, 1, line.width[0]),
            (line.ends[1], line.cells, line.cells - 1, line.width[-1]),
        ):
            if isinstance(end, Outflow):
                slope = (x.narrow(c + 1, at, 1) - x.narrow(c + 1, neighbour, 1)) / width
                self._faces(out, c, (at, 1)).copy_(-end.speed * slope)

    def friction(self, u: Tensor, c: int, j: int) -> Tensor:
        r"""$\nu\int\partial_n u_c\,dA$ over both ends of axis j, outward: the momentum along c that walls give, (B,)."""
        line = self.lines[j]
        if line.ends is None or j == c:
            raise ValueError(f"friction expects a component along the ends of a bounded axis; got component {c} at axis {j}.")
        x = self.component(u, c)
        area = self.lines[c].gap
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        for end, at, width in ((line.ends[0], 0, line.width[0]), (line.ends[1], line.cells - 1, line.width[-1])):
            value = x.narrow(j + 1, at, 1)
            slope = (self._mirror(end, value, c) - value) / width
            for k, other in enumerate(self.lines):
                if k != j:
                    slope = slope * self._along(k, area if k == c else other.width)
            total = total + (self.viscosity * slope).flatten(1).sum(1)
        return total

    def stable_step(self, speed: float, viscosity: float) -> float:
        r"""The longest time step that the classical Runge-Kutta rule allows for velocities up to `speed` along every axis.

        Central differences have symbols up to $i\sum_j|u_j|/h_j$ and $-4\nu\sum_j h_j^{-2}$. The segment between the ends of the rule's
        stability region on both axes lies inside it.
        """
        narrowest = [float(line.width.min()) for line in self.lines]
        carried = speed * sum(1 / h for h in narrowest)
        spread = 4 * viscosity * sum(1 / h**2 for h in narrowest)
        return 1 / (carried / IMAGINARY + spread / REAL)


def step(
    u: Tensor,
    dt: float,
    rate: Callable[[Tensor], Tensor],
    project: Callable[[Tensor], tuple[Tensor, Tensor]],
    measure: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    r"""One step of the classical Runge-Kutta rule for $\dot u = P f(u)$.

    Arguments:
        u: lawful fields, (B, d, *N).
        dt: time step.
        rate: f.
        project: P, with the multiplier.
        measure: a quantity of the fields to integrate beside them, with the same rule.

    Returns:
        The fields one step later; the multiplier of the step, that is the impulse: pressure times dt; the integral, if asked for.
    """
    took()
    rates, stages = [rate(u)], [u]
    for share in (0.5, 0.5, 1.0):
        stages.append(project(u + share * dt * rates[-1])[0])
        rates.append(rate(stages[-1]))
    weights = (dt / 6, dt / 3, dt / 3, dt / 6)
    later, impulse = project(u + sum(w * k for w, k in zip(weights, rates, strict=True)))
    if measure is None:
        return later, impulse, None
    return later, impulse, torch.stack([w * measure(s) for w, s in zip(weights, stages, strict=True)]).sum(0)


class _Line:
    """One axis: its cells, its faces, and the differences and sums between them."""

    def __init__(self, axis: Axis, ends: tuple[End, End] | None, device: torch.device) -> None:
        widths = Staggered().widths(axis).to(device)
        self.ends = ends
        self.faces = axis.positions().to(device)
        self.middles = self.faces + widths / 2
        self.width = h = widths if ends is None else widths[:-1]
        self.cells = len(h)
        if ends is None:
            self.gap = (h + h.roll(1)) / 2
            self.spread = torch.cat([self.gap, self.gap[:1]])
            self.inside = (0, self.cells)
        else:
            between = (h[1:] + h[:-1]) / 2
            self.gap = torch.cat([h[:1] / 2, between, h[-1:] / 2])
            self.spread = torch.cat([h[:1], between, h[-1:]])
            self.inside = (1, self.cells - 1)
        self.open = (False, False) if ends is None else tuple(isinstance(end, Outflow) for end in ends)

    def left(self, x: Tensor, j: int) -> Tensor:
        """Values on the faces below the cells."""
        return x if self.ends is None else x.narrow(j + 1, 0, self.cells)

    def right(self, x: Tensor, j: int) -> Tensor:
        """Values on the faces above the cells."""
        return x.roll(-1, j + 1) if self.ends is None else x.narrow(j + 1, 1, self.cells)

    def change(self, x: Tensor, j: int) -> Tensor:
        """Differences of the cells on both sides of the faces inside."""
        return x - x.roll(1, j + 1) if self.ends is None else x.diff(dim=j + 1)

    def sum(self, x: Tensor, j: int) -> Tensor:
        """Sums of the cells on both sides of the faces inside."""
        return x + x.roll(1, j + 1) if self.ends is None else x.narrow(j + 1, 0, self.cells - 1) + x.narrow(j + 1, 1, self.cells - 1)

    def free(self) -> tuple[int, int]:
        """The faces whose velocity is not given: the first, and how many."""
        return (0, self.cells) if self.ends is None else (1 - self.open[0], self.cells - 1 + sum(self.open))

    def gradient(self, p: Tensor, j: int) -> Tensor:
        """Differences of cells across the free faces; beyond an open end there is zero."""
        if self.ends is None:
            return self.change(p, j)
        zero = torch.zeros_like(p.narrow(j + 1, 0, 1))
        return torch.cat([*[zero] * self.open[0], p, *[zero] * self.open[1]], dim=j + 1).diff(dim=j + 1)

    def modes(self) -> tuple[Tensor, Tensor]:
        r"""Q and $\lambda$ with $Q^\top K Q = \lambda$, $Q^\top H Q = I$: stiffness of the gradient, widths H of the cells."""
        each = torch.diag(self.width.rsqrt())  # one cell a row, as fields on this axis alone
        steps = self.gradient(each, 0) * self.gap.narrow(0, *self.free()).rsqrt()
        values, vectors = torch.linalg.eigh(steps @ steps.T)
        return self.width.rsqrt()[:, None] * vectors, values.clamp_min(0)


def _multiply(matrix: Tensor, x: Tensor, dim: int) -> Tensor:
    """A matrix along one dimension, as one product of matrices."""
    if dim == -1:
        return x @ matrix.T
    if dim == -2:
        return matrix @ x
    return (matrix @ x.movedim(dim, -2)).movedim(-2, dim)
