r"""Metrics as the literature defines and executes them, so that published tables can be set beside ours.

* MMSE and SMSE, squared differences of pointwise mean and standard deviation, in two conventions: *summed* over the points, the squared
  norm that PCFM's paper prints, or the *mean* over the points with the unbiased standard deviation, which the code of ECI and I-PCFM
  executes. They differ by the number of points: $10^4$ on the published grids.
* Constraint errors, $\mathrm{CE} = \frac1N\sum_n\|R(u_n)\|_2$, of initial data, boundary data and conservation laws, with the residuals
  of PCFM's code: sums over the nodes, whether or not they lie on a wall, and trapezoids of fluxes in time.

The conservation residuals are *not* those that the published data obey. The sum over nodes counts both ends of a closed axis in full, and
the trapezoid is not the scheme's own flux: inviscid Burgers data of the published generator have CE(CL) 0.048, reaction-diffusion data
0.023. `scheme_errors` measures the same of the laws that the scheme does obey.

Sources: Cheng et al., PCFM, NeurIPS (2025), arXiv:2506.04171, section 4.1 and appendix; Cheng et al., ECI, ICLR (2025), arXiv:2412.01786;
the code of both, and of I-PCFM (2026).
"""

from __future__ import annotations

import torch
from torch import Tensor

from constraints import (
    Budget,
    Constraint,
    CurlFree,
    Dirichlet,
    DivergenceFree,
    Energy,
    EvolutionEquation,
    FinalCondition,
    Grid,
    InitialCondition,
    Integral,
    Mass,
    Momentum,
    Neumann,
    PeriodicSeam,
    Robin,
    Snapshot,
)

KINDS = ("IC", "BC", "CL", "inequality", "other")
"""What `kind` sorts laws into: initial data (any given time), boundary data, conservation and evolution, bounds, the rest."""


def mmse(u: Tensor, reference: Tensor, *, summed: bool = False) -> Tensor:
    r"""Squared difference of the pointwise means, $\frac1D\sum_i(\bar u_i - \bar v_i)^2$, or without $\frac1D$ if `summed`.

    Unlike `mean_error` every node counts alike, on walls too, and channels and times as well.

    Arguments:
        u: fields, (N, C, *N).
        reference: reference fields, (M, C, *N).
        summed: the squared norm of PCFM's formula; the mean of ECI's and I-PCFM's code by default.

    Returns:
        A scalar, (), in the unit of u squared.

    Raises:
        ValueError: fields of different shapes.
    """
    _check_alike(u, reference, "mmse", 1)
    return _gather((u.mean(0) - reference.mean(0)).square(), summed)


def smse(u: Tensor, reference: Tensor, *, summed: bool = False) -> Tensor:
    r"""Squared difference of the pointwise unbiased standard deviations; arguments, result and errors as `mmse`, two samples of each."""
    _check_alike(u, reference, "smse", 2)
    return _gather((u.std(0) - reference.std(0)).square(), summed)


def constraint_errors(residual: Tensor) -> Tensor:
    r"""$\|R(u_n)\|_2$ of each sample: residuals (N, m) to (N,)."""
    return residual.flatten(1).norm(dim=1)


def constraint_error(residual: Tensor) -> Tensor:
    r"""$\mathrm{CE} = \frac1N\sum_n\|R(u_n)\|_2$: residuals (N, m) to (), in their unit.

    The norm grows with the number of rows as its square root, and says nothing of the largest one: see `violation`.
    """
    return constraint_errors(residual).mean()


def initial_residual(u: Tensor, grid: Grid, initial: Tensor) -> Tensor:
    r"""$u(t_0) - u_0$ at every node, (N, C prod *space).

    Arguments:
        u: fields, (N, C, *N).
        grid: their grid, with time.
        initial: $u_0$, (C, *space) or (N, C, *space).
    """
    _check_time(u, grid, "initial_residual")
    return (u.select(grid.dim("time"), 0) - initial.to(u)).flatten(1)


def node_mass_residual(u: Tensor, grid: Grid) -> Tensor:
    r"""$\sum_x u(t)\,\Delta x - \sum_x u(0)\,\Delta x$ for every later time, (N, T - 1): "mass" of heat and of Navier-Stokes vorticity.

    On periodic axes it is the conserved mass; on closed ones both ends count in full.

    Arguments:
        u: fields, (N, 1, *N).
        grid: their grid, equally spaced.
    """
    content = _node_sum(u[:, 0], grid, "node_mass_residual")
    return content[:, 1:] - content[:, :1]


def burgers_boundary_residual(u: Tensor, grid: Grid, left: Tensor | float, *, start: int = 1) -> Tensor:
    r"""$u(t, 0) - u_L$ and $u(t, L) - u(t, L - \Delta x)$, inflow value and zero slope behind, (N, 2 (T - start)).

    Arguments:
        u: fields, (N, 1, T, X).
        grid: (time, x).
        left: $u_L$, a number or (N,).
        start: first time it is asked of; 1 in PCFM's runs, whose initial data know no inflow.
    """
    _check_time(u, grid, "burgers_boundary_residual", axes=2)
    line = u[:, 0, start:]
    inflow = torch.as_tensor(left, dtype=torch.float64).to(u).reshape(-1, 1)
    return torch.cat([line[..., 0] - inflow, line[..., -1] - line[..., -2]], dim=1)


def burgers_mass_residual(u: Tensor, grid: Grid, *, flux: bool = True) -> Tensor:
    r"""$\sum_x u(t)\Delta x - \sum_x u(0)\Delta x + \int_0^t\tfrac12(u_R^2 - u_L^2)\,dt$ for every later time, (N, T - 1).

    Trapezoidal in time.

    Arguments:
        u: fields, (N, 1, T, X).
        grid: (time, x), equally spaced.
        flux: with the flux through the ends, as in PCFM's code; without, as in equation 24 of its paper.
    """
    content = _node_sum(u[:, 0], grid, "burgers_mass_residual")
    outflow = (u[:, 0, :, -1].square() - u[:, 0, :, 0].square()) / 2
    passed = _cumulative(outflow, grid) if flux else torch.zeros_like(content)
    return (content - content[:, :1] + passed)[:, 1:]


def reaction_diffusion_mass_residual(
    u: Tensor, grid: Grid, reaction: Tensor | float, diffusivity: Tensor | float, *, inflow: Tensor | None = None
) -> Tensor:
    r"""Mass less what reactions produce and what flows in, for every later time, (N, T - 1).

    $$\sum_x u(t)\Delta x - \sum_x u(0)\Delta x - \int_0^t\Bigl(\rho\sum_x u(1 - u)\Delta x + g_L - g_R\Bigr)dt.$$

    Trapezoidal in time. The fluxes $g = -\nu u_x$ at the ends are estimated by one-sided differences of order 4 at the outer nodes, as
    in PCFM's code, although the outer nodes are half a cell from the ends and the fluxes are given data; `inflow` puts those in.

    Arguments:
        u: fields, (N, 1, T, X).
        grid: (time, x), equally spaced.
        reaction: $\rho$, a number or (N,).
        diffusivity: $\nu$, a number or (N,).
        inflow: $g_L - g_R$, (N,), instead of the estimate.
    """
    content = _node_sum(u[:, 0], grid, "reaction_diffusion_mass_residual")
    rho, nu = (torch.as_tensor(value, dtype=torch.float64).to(u).reshape(-1, 1) for value in (reaction, diffusivity))
    line, dx = u[:, 0], grid.axes[1].spacing
    if inflow is None:
        stencil = torch.tensor([-25.0, 48.0, -36.0, 16.0, -3.0], dtype=u.dtype, device=u.device) / (12 * dx)
        entering = -nu * (line[..., :5] @ stencil + line[..., -5:].flip(-1) @ stencil)  # g_L - g_R: both stencils point inwards
    else:
        entering = inflow.to(u).reshape(-1, 1).expand_as(content)
    made = rho * _node_sum(line * (1 - line), grid, "reaction_diffusion_mass_residual")
    return (content - content[:, :1] - _cumulative(made + entering, grid))[:, 1:]


def kind(law: Constraint) -> str:
    """What a law is about: one of `KINDS`.

    Values at an end that a problem states as values at points count by their name, "inflow" and "outflow".
    """
    if law.inequality:
        return "inequality"
    if isinstance(law, Snapshot | InitialCondition | FinalCondition):
        return "IC"
    if isinstance(law, Dirichlet | Neumann | Robin | PeriodicSeam) or law.name in ("inflow", "outflow"):
        return "BC"
    if isinstance(law, Mass | Momentum | Energy | Integral | Budget | EvolutionEquation | DivergenceFree | CurlFree):
        return "CL"
    return "other"


def scheme_errors(constraint: Constraint, u: Tensor) -> dict[str, Tensor]:
    r"""$\mathrm{CE}$ of laws as a scheme obeys them, by `kind`: the residuals of all laws of a kind in one norm.

    Of inequalities what is positive counts. Laws in different units add up as they are.

    Arguments:
        constraint: laws, `Problem.constraint(parameters)` say.
        u: fields, (N, C, *N).

    Returns:
        A scalar, (), for each kind there is.
    """
    rows: dict[str, list[Tensor]] = {}
    for law in constraint.leaves():
        rows.setdefault(kind(law), []).append(law.excess(law.residual(u)))
    return {name: constraint_error(torch.cat(rows[name], dim=1)) for name in KINDS if name in rows}


def feasible(constraint: Constraint, u: Tensor, tolerance: float = 1e-3) -> Tensor:
    r"""Which samples obey all laws, (N,), as I-PCFM counts.

    $\|R(u_n)\|_2\le\epsilon$ of each equality and $\max_i g_i(u_n)\le\epsilon$ of each inequality. The tolerance is absolute, in the unit
    of each residual; NaN and infinities are not feasible.

    Raises:
        ValueError: a tolerance that is not positive.
    """
    if not tolerance > 0:
        raise ValueError(f"feasible expects a positive tolerance; got {tolerance}.")
    held = torch.isfinite(u).flatten(1).all(1)
    for law in constraint.leaves():
        residual = law.residual(u)
        size = law.excess(residual).amax(1) if law.inequality else constraint_errors(residual)
        held = held & (size <= tolerance)
    return held


def feasible_fraction(constraint: Constraint, u: Tensor, tolerance: float = 1e-3) -> Tensor:
    """Share of the samples that are `feasible`, ()."""
    return feasible(constraint, u, tolerance).to(torch.float64).mean()


def _gather(square: Tensor, summed: bool) -> Tensor:
    return square.sum() if summed else square.mean()


def _node_sum(density: Tensor, grid: Grid, speaker: str) -> Tensor:
    """Plain sums over the nodes times the cell volume, (N, T)."""
    _check_time(density[:, None], grid, speaker)
    volume = 1.0
    for axis in grid.space_axes:
        volume *= axis.spacing
    return volume * density.sum(grid.space_dims)


def _cumulative(rate: Tensor, grid: Grid) -> Tensor:
    """Trapezoidal integral from the first time to each, (N, T)."""
    gaps = torch.diff(grid.axes[0].positions(rate))
    steps = gaps * (rate[:, 1:] + rate[:, :-1]) / 2
    return torch.cat([torch.zeros_like(rate[:, :1]), steps.cumsum(1)], dim=1)


def _check_time(u: Tensor, grid: Grid, speaker: str, axes: int | None = None) -> None:
    grid.check(u, speaker)
    if not grid.has_time or (axes is not None and len(grid.axes) != axes):
        raise ValueError(
            f"{speaker} expects fields with time{' on (time, x)' if axes == 2 else ''}; these are on ({', '.join(grid.names)})."
        )


def _check_alike(u: Tensor, reference: Tensor, speaker: str, samples: int) -> None:
    if u.shape[1:] != reference.shape[1:]:
        raise ValueError(f"{speaker} expects two sets of fields (N, C, *N) alike; got {tuple(u.shape)} and {tuple(reference.shape)}.")
    if min(len(u), len(reference)) < samples:
        raise ValueError(f"{speaker} expects at least {samples} samples of each; got {len(u)} and {len(reference)}.")
