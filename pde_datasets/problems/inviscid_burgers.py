r"""Burgers' equation without viscosity, with inflow from the left.

$$u_t + \tfrac12(u^2)_x = 0,\qquad x\in[0, 1],\; t\in[0, 1],\qquad u(0, t) = u_L,$$

in conservative steps $u_i^{n+1} = u_i^n - \frac{\Delta t}{\Delta x}(F_{i+1/2} - F_{i-1/2})$ at the inner points: Godunov's flux of the
neighbouring values (first order), or of values reconstructed at the faces and advanced by half a step (MUSCL-Hancock, second order).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from constraints import (
    Axis,
    Budget,
    Constraint,
    EvolutionEquation,
    Grid,
    InitialCondition,
    Intersection,
    LinearConstraint,
    PointValues,
    local_conservation,
    maximum_principle,
)
from constraints.calculus.finite_volume import cell_balance, godunov
from constraints.linear import RowSelection, WeightedSum
from pde_datasets.problem import Problem, uniform
from pde_datasets.steps import expect, took

COURANT = {1: 1.0, 2: 0.5}
"""The largest Courant number, by order: up to it values stay between those of their neighbours."""


@dataclass(frozen=True)
class InviscidBurgers(Problem):
    r"""A front that runs into still fluid, and the shock or rarefaction behind it: space-time fields on (time, x).

    Initial data are $1/(1 + e^{(x - p)/w})$ with the front at p. The first step starts from them at every point; from then on the point at
    x = 0 has the inflow value, and the one at x = 1 a copy of its neighbour, as in the published set.

    Laws, all to round-off: initial data, inflow and outflow, the balance of every inner cell under the scheme's own flux, and values
    between the least and largest of initial and inflow data; together they leave one field. The balance of all N inner cells (`balance`)
    follows, $\Delta x\sum_i(u_i^{n+1} - u_i^n) = \Delta t\,(F_{1/2} - F_{N+1/2})$; the sum over all points with the exact flux at the ends,
    which the PCFM paper measures, holds to first order only.

    Attributes:
        points: points in space, both ends included.
        times: stored times, the initial one included; they are equally spaced on [0, 1], and every time step is stored.
        width: width w of the initial front.
        front: range of its position, drawn uniformly.
        inflow: range of the value at x = 0, drawn uniformly.
        order: 1, Godunov; 2, MUSCL-Hancock with the minmod limiter, at half the time step.

    Source:
        Godunov, Mat. Sb. 47 (1959) 271; van Leer, SIAM J. Sci. Stat. Comput. 5 (1984) 1; Berthon, Numer. Math. 104 (2006) 27, for the
        Courant number.
    """

    name: ClassVar[str] = "inviscid-burgers"
    equation: ClassVar[str] = "u_t + (u^2/2)_x = 0"
    source: ClassVar[str] = "settings of PCFM (arXiv:2506.04171)"
    scheme: ClassVar[str] = "finite volumes, Godunov or MUSCL-Hancock"
    channels: ClassVar[tuple[str, ...]] = ("u",)
    roles: ClassVar[Mapping[str, tuple[str, ...]]] = {"density": ("u",)}
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"pcfm": {}}

    points: int = 101
    times: int = 101
    width: float = 0.02
    front: tuple[float, float] = (0.2, 0.8)
    inflow: tuple[float, float] = (0.0, 1.0)
    order: int = 1

    def __post_init__(self) -> None:
        if self.order not in COURANT:
            raise ValueError(f"InviscidBurgers expects order 1 (Godunov) or 2 (MUSCL-Hancock); got {self.order}.")
        if self.points < 3 or self.times < 2 or not self.width > 0:
            raise ValueError(
                f"InviscidBurgers expects at least 3 points, 2 times and a positive width; got {self.points}, {self.times}, {self.width}."
            )
        self.expect_range("front")
        self.expect_range("inflow", 0.0, reached=True)  # negative values would flow out
        courant = max(1.0, self.inflow[1]) * (self.points - 1) / (self.times - 1)
        if courant > COURANT[self.order]:
            raise ValueError(
                f"InviscidBurgers expects a Courant number of at most {COURANT[self.order]:g} at order {self.order}; {self.points} points "
                f"and {self.times} times make {courant:g}. Ask for more times."
            )

    @property
    def grid(self) -> Grid:
        return Grid(Axis("time", self.times, length=1.0), Axis("x", self.points, length=1.0))

    @property
    def laws(self) -> tuple[str, ...]:
        return (f"bounds:lower=0,upper={max(1.0, self.inflow[1])!r}",)

    def simulate(self, streams: Sequence[torch.Generator], device: torch.device) -> tuple[Tensor, dict[str, Tensor]]:
        front, inflow = (drawn.to(device) for drawn in uniform(streams, self.front, self.inflow))
        return self.solve(self.initial(front), inflow), {"front": front, "inflow": inflow}

    def initial(self, front: Tensor) -> Tensor:
        """Initial data (N, X) with fronts at positions (N,)."""
        return torch.sigmoid((front[:, None] - self.grid.axes[1].positions(front)) / self.width)

    def solve(self, initial: Tensor, inflow: Tensor) -> Tensor:
        """Fields (N, 1, T, X) from initial data (N, X) and inflow values (N,)."""
        rate, dt = self.rate(), self.grid.axes[0].spacing
        states = [initial]
        expect(self.times - 1)
        for _ in range(self.times - 1):
            u = states[-1] + dt * rate(states[-1])
            states.append(torch.cat([inflow[:, None], u[:, 1:-1], u[:, -2:-1]], dim=1))
            took()
        return torch.stack(states, dim=1)[:, None]

    def rate(self) -> Callable[[Tensor], Tensor]:
        r"""The right-hand side $-(F_{i+1/2} - F_{i-1/2})/\Delta x$ at the inner points, zero at the ends: (..., X) to itself."""
        return cell_balance(FLUX, self.grid, "x") if self.order == 1 else muscl_hancock(self.grid)

    def constraint(self, parameters: Mapping[str, Tensor]) -> Constraint:
        grid, inflow = self.grid, parameters["inflow"]
        initial = self.initial(parameters["front"])[:, None]
        later = torch.zeros(1, *grid.shape, dtype=torch.bool)
        later[:, 1:, 0] = True
        inflow_law = PointValues(later, inflow[:, None].expand(-1, self.times - 1))
        inflow_law.name = "inflow"
        return Intersection(
            InitialCondition(grid, initial),
            inflow_law,
            self.outflow(),
            self.conservation(),
            maximum_principle(initial, inflow[:, None, None], batched=True),
        )

    def outflow(self) -> LinearConstraint:
        """The last point is a copy of its neighbour, from the second time on."""
        line = torch.zeros(self.points, dtype=torch.float64)
        line[-2], line[-1] = -1.0, 1.0
        ends = WeightedSum(line.expand(1, *self.grid.shape).clone(), (-1,))
        law = LinearConstraint(RowSelection(torch.arange(1, self.times), ends), torch.zeros(1, dtype=torch.float64))
        law.name = "outflow"
        return law

    def conservation(self, steps: int | None = None) -> EvolutionEquation:
        """The balance of every inner cell under the scheme's own flux, for the first steps; all by default."""
        if self.order == 1:
            return local_conservation(self.grid, FLUX, steps=steps)
        return EvolutionEquation(
            self.grid, self.rate(), theta=0.0, steps=steps, where=self._inside(), radius=2, autonomous=True, name="local conservation"
        )

    def balance(self) -> Budget:
        """The balance of the inner cells together: what comes in through the first inner face less what leaves through the last."""
        inside, rate, dx = self._inside(), self.rate(), self.grid.axes[1].spacing
        return Budget(
            self.grid,
            lambda u: dx * rate(u[:, 0]).sum(-1),
            theta=0.0,
            density=inside.to(torch.float64),
            name="balance of the inner cells",
        )

    def _inside(self) -> Tensor:
        inside = torch.ones(self.points, dtype=torch.bool)
        inside[0] = inside[-1] = False
        return inside


def flux(u: Tensor) -> Tensor:
    r"""$f(u) = u^2/2$."""
    return u.square() / 2


FLUX = godunov(flux)


def muscl_hancock(grid: Grid) -> Callable[[Tensor], Tensor]:
    r"""The right-hand side of the MUSCL-Hancock scheme on the axis x, for the time step of the grid.

    In every cell a line of the smaller neighbouring slope, none at extrema and in the outer cells; both its ends advanced by
    $-\frac{\Delta t}{2\Delta x}(f(u_{i+1/2}^-) - f(u_{i-1/2}^+))$; Godunov's flux between the ends of neighbours.
    """
    courant, dx = grid.axes[0].spacing / grid.axis("x").spacing, grid.axis("x").spacing

    def rate(u: Tensor) -> Tensor:
        rise = torch.diff(u)
        before, behind = rise[..., :-1], rise[..., 1:]
        smaller = torch.where(before * behind > 0, torch.where(before.abs() < behind.abs(), before, behind), 0.0)
        slope = torch.nn.functional.pad(smaller, (1, 1))
        low, high = u - slope / 2, u + slope / 2
        moved = courant / 2 * (flux(high) - flux(low))
        faces = FLUX((high - moved)[..., :-1], (low - moved)[..., 1:])
        return torch.nn.functional.pad(-torch.diff(faces) / dx, (1, 1))

    return rate
