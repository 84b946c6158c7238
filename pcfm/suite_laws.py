r"""Laws that the suites of the benchmark impose, by label: as the data's scheme obeys them, and as the literature writes them.

The literature's conservation laws are those of PCFM's code, whose data do not obey them where ends are open: plain sums over the nodes,
and trapezoids of fluxes at the end nodes. Here they are stated step by step, a `Budget`; rows added up from the first time on are the
published rows, and the set of lawful fields is the same.

Parameters that the published evaluation draws (fluxes, inflow, fronts, diffusivities) are not given to the sampler: laws hold for all of
them. Where laws need data of a sample (an energy, the friction of walls, readings of sensors), sample i is given those of reference i: if
samples are drawn as they should be, their ensemble is that of the references.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from constraints import (
    Budget,
    Constraint,
    Dirichlet,
    DivergenceFree,
    Energy,
    EvolutionEquation,
    Grid,
    InitialCondition,
    Intersection,
    Mass,
    Momentum,
    PatchMeans,
    PointValues,
    Quadratic,
    positivity,
)
from pde_datasets import Fields, Problem
from pde_datasets.problem import generator
from pde_datasets.problems import InviscidBurgers, ReactionDiffusion

Laws = dict[str, Constraint]
"""Laws by what they are about: IC, BC, CL, or a name of their own."""

Make = Callable[[Problem, Fields], Laws]
"""Laws of a problem, with the data that some given fields share, or one for each of them."""

LOCAL_STEPS = 5
"""Steps that PCFM's runs hold Burgers fields to cell by cell."""

SENSED = 0.03
"""Share of the points that have a sensor, as in DiffusionPDE's and later reconstructions."""

WINDOW = 8
"""Points along each side of an interrogation window."""

NOISE = 0.05
"""Standard deviation of a window's velocity, in units of the flow's root mean square."""

_PLACES, _NOISE = 4_000_037, 5_000_011
"""Seeds of the places of sensors and of the noise of observations."""


def initial_and_mass(problem: Problem, given: Fields) -> Laws:
    """The initial data of the given fields, and no mass at any time."""
    return {"IC": _initial(given), "CL": Mass(problem.grid, 0.0)}


def reaction_diffusion(problem: Problem, given: Fields) -> Laws:
    """Initial data, and the splitting's balance of mass with fluxes that are unknown but steady."""
    return {"IC": _initial(given), "CL": cast(ReactionDiffusion, problem).steady_balance()}


def reaction_diffusion_literature(problem: Problem, given: Fields) -> Laws:
    r"""Initial data, and the trapezoidal balance with fluxes $-\nu u_x$ estimated at the outer nodes."""
    grid, known = problem.grid, cast(ReactionDiffusion, problem)
    rho, nu, dx = known.reaction[0], known.diffusivity[0], grid.axes[1].spacing

    stencil = torch.tensor([-25.0, 48.0, -36.0, 16.0, -3.0], dtype=torch.float64) / (12 * dx)
    entering = torch.zeros(grid.shape[1], dtype=torch.float64)
    entering[:5] -= nu * stencil
    entering[-5:] -= nu * stencil.flip(0)
    rate = Quadratic((entering + rho * dx)[None], torch.full((1, grid.shape[1]), -rho * dx, dtype=torch.float64))
    return {"IC": _initial(given), "CL": Budget(grid, rate, density=node_density(grid), name="mass balance of the literature")}


def burgers_initial(problem: Problem, given: Fields) -> Laws:
    """Initial data, Godunov's balance of every inner cell for the first steps, and of all of them together for all steps.

    The sum of the cells' rows is the row of the whole: one cell is left out, so that no row repeats others.
    """
    known = cast(InviscidBurgers, problem)
    return {"IC": _initial(given), "CL": _first_steps(known, every=False), "CL, all steps": inner_balance(known)}


def burgers_initial_literature(problem: Problem, given: Fields) -> Laws:
    """Initial data, Godunov's balance of every inner cell for the first steps, and the trapezoidal balance of all nodes."""
    known = cast(InviscidBurgers, problem)
    return {"IC": _initial(given), "CL": _first_steps(known, every=True), "CL, all steps": node_balance(problem.grid)}


def burgers_boundary(problem: Problem, given: Fields) -> Laws:
    """Inflow, outflow, and the balance of the inner cells."""
    return {**_ends(problem, given), "CL": inner_balance(cast(InviscidBurgers, problem))}


def burgers_boundary_literature(problem: Problem, given: Fields) -> Laws:
    """Inflow, outflow, and the trapezoidal balance of all nodes."""
    return {**_ends(problem, given), "CL": node_balance(problem.grid)}


def velocity(problem: Problem, given: Fields) -> Laws:
    """No divergence, no momentum, and the energy of each given field at each time."""
    grid, components = problem.grid, given.role("velocity")
    energy = given.values[:, list(components)].to(torch.float64).square().sum(1) / 2
    energy = (grid.weights().to(energy) * energy).sum(grid.space_dims).reshape(len(given), -1) / float(grid.weights().sum())
    return {
        "divergence": DivergenceFree(grid),
        "momentum": Momentum(grid, 0.0),
        "energy": Energy(grid, energy, mean=True),
    }


def box_flow(problem: Problem, given: Fields) -> Laws:
    """Of a lid-driven cavity: rest at first, nothing through the walls, the lid's speed, and the staggered scheme's divergence."""
    return _sorted(problem, given[:1], {"IC": InitialCondition, "divergence": DivergenceFree}, "walls")


def channel_flow(problem: Problem, given: Fields) -> Laws:
    """Nothing through the walls, no divergence, and the balance of momentum: what the pressure gives, less what the walls took."""
    laws = _sorted(problem, given, {"IC": InitialCondition, "divergence": DivergenceFree, "momentum": Budget}, "walls")
    return {label: law for label, law in laws.items() if label != "IC"}


def wake(problem: Problem, given: Fields) -> Laws:
    """Inflow and sides, no divergence, and no slip at the points of the cylinder's surface."""
    return _sorted(problem, given[:1], {"BC": Dirichlet, "divergence": DivergenceFree}, "body")


def gas(problem: Problem, given: Fields) -> Laws:
    """The mass, momentum and energy of each given gas at all times; density and energy are not negative."""
    grid, channels = problem.grid, len(given.channels)
    u = given.values.to(torch.float64)
    totals = (grid.weights().to(u) * u).sum(tuple(range(3, u.ndim)))[..., :1]
    kinds = ("mass", *("momentum",) * (channels - 2), "energy")
    laws: Laws = {}
    for i, label in enumerate(kinds):
        name = f"{label}, {given.channels[i]}" if label == "momentum" and channels > 3 else label
        laws[name] = Mass(grid, totals[:, i], component=i, channels=channels)
        laws[name].name = f"total {given.channels[i]}"
    laws["positivity"] = positivity(components=(0, channels - 1))
    laws["positivity"].name = "positivity"
    return laws


def sensors(problem: Problem, given: Fields) -> Laws:
    """All components of each given field at a few places, the same for all, and no divergence."""
    return {"divergence": DivergenceFree(problem.grid), "sensors": PointValues(sensed(problem.grid, len(given.channels)), given.values)}


def particle_images(problem: Problem, given: Fields) -> Laws:
    """Mean velocities of interrogation windows, as particle images tell them, with independent noise; and no divergence."""
    values, grid = given.values.to(torch.float64), problem.grid
    exact = PatchMeans(grid, windows(grid), 0.0, channels=len(given.channels)).residual(values)
    size = NOISE * float(values.square().mean().sqrt())
    noise = [torch.randn(exact.shape[1], generator=generator(_NOISE, i), dtype=torch.float64) for i in range(len(exact))]
    observed = PatchMeans(grid, windows(grid), exact + size * torch.stack(noise), variance=size**2, channels=len(given.channels))
    return {"divergence": DivergenceFree(grid), "windows": observed}


def sensed(grid: Grid, channels: int) -> Tensor:
    """Where sensors are, (C, *N): the same random points of every channel."""
    points = grid.weights().expand(grid.shape).numel()
    chosen = torch.randperm(points, generator=generator(_PLACES, 0))[: max(1, round(SENSED * points))]
    mask = torch.zeros(points, dtype=torch.bool)
    mask[chosen] = True
    return mask.reshape(grid.shape).expand(channels, *grid.shape).clone()


def windows(grid: Grid) -> Tensor:
    """The window of each point, (X, Y), numbered row by row."""
    rows, columns = (torch.div(torch.arange(axis.points), WINDOW, rounding_mode="floor") for axis in grid.space_axes)
    return rows[:, None] * (int(columns[-1]) + 1) + columns


def inner_balance(problem: InviscidBurgers) -> Budget:
    r"""The balance of Godunov's scheme over the inner cells, $F = \tfrac12u^2$ upwind: that of the data, none of which flows to the left.

    The scheme's own flux is the same there, and has kinks where u changes sign, which data do not reach and Newton's method does not need.
    """
    inside = torch.ones(problem.points, dtype=torch.float64)
    inside[0] = inside[-1] = 0.0
    return Budget(problem.grid, _square_flux(problem.points, -2), theta=0.0, density=inside, name="balance of the inner cells")


def node_balance(grid: Grid) -> Budget:
    r"""$\sum_x u\,\Delta x$ over all nodes changes by the trapezoid of $\tfrac12(u_L^2 - u_R^2)$."""

    rate = _square_flux(grid.shape[1], -1)
    return Budget(grid, rate, density=node_density(grid), name="mass balance of the literature")


def _square_flux(points: int, last: int) -> Quadratic:
    r"""$\tfrac12 u^2$ in at the first point, out at the last."""
    squares = torch.zeros(1, points, dtype=torch.float64)
    squares[0, 0], squares[0, last] = 0.5, -0.5
    return Quadratic(torch.zeros_like(squares), squares)


def node_density(grid: Grid) -> Tensor:
    """The factor of the density whose integral is the plain sum over the nodes times the cell volume: nodes on walls count in full."""
    volume = 1.0
    for axis in grid.space_axes:
        volume *= axis.spacing
    return volume / grid.weights()[0]


def _initial(given: Fields) -> InitialCondition:
    """The initial data that the given fields share."""
    first = given.values[:1].select(given.grid.dim("time"), 0)
    return InitialCondition(given.grid, first.to(torch.float64))


def _sorted(problem: Problem, given: Fields, kinds: dict[str, type[Constraint]], others: str) -> Laws:
    """The problem's own laws by kind, and all that are of none of them; kinds in the order given."""
    found: dict[str, list[Constraint]] = {label: [] for label in (*kinds, others)}
    for leaf in problem.constraint(given.parameters).leaves():
        found[next((label for label, kind in kinds.items() if isinstance(leaf, kind)), others)].append(leaf)
    return {label: laws[0] if len(laws) == 1 else Intersection(*laws) for label, laws in found.items() if laws}


def _ends(problem: Problem, given: Fields) -> Laws:
    known = cast(InviscidBurgers, problem)
    inflow = next(law for law in known.constraint({n: v[:1] for n, v in given.parameters.items()}).leaves() if law.name == "inflow")
    return {"BC": inflow, "BC, outflow": known.outflow()}


def _first_steps(problem: InviscidBurgers, *, every: bool) -> EvolutionEquation:
    """Godunov's balance of the inner cells, of every one or of all but the first."""
    inside = torch.ones(problem.points, dtype=torch.bool)
    inside[0] = inside[-1] = False
    inside[1] = every
    steps = min(LOCAL_STEPS, problem.times - 1)
    return EvolutionEquation(
        problem.grid, problem.rate(), theta=0.0, steps=steps, where=inside, radius=1, autonomous=True, name="local conservation"
    )
