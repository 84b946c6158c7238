r"""Laws of equalities and inequalities for the two sets that inequality PCFM is measured on: as published, and as the data obey them.

The published inequalities are false of the published data, wherever something comes in through an end:

* **Burgers, entropy.** The published condition is Oleinik's with the constant of exact solutions, $u_{i+1} - u_i \le \Delta x/t$. Godunov's
  scheme, which makes the data, spreads fans more slowly: it obeys the constant 2 (Goodman & LeVeque) and reaches 1.9.
* **Reaction-diffusion, maximum principle.** Published is $0\le u\le1$. Fluxes come in through the ends, and values rise to 1.6. With the
  linear response $\psi$ to the fluxes, $\psi_t = \nu\psi_{xx}$ from zero, $1 + \psi$ is above every solution that begins below 1, for
  there reactions only consume; so it is in each part of the scheme's steps, whose maps are monotone.
* **Reaction-diffusion, energy.** From $\frac{d}{dt}\int u^2 = -2\nu\int u_x^2 + 2\rho\int u^2(1-u) + 2\,(g_L u_0 - g_R u_1)$, with
  $u^2(1-u)\le\frac4{27}$, published is $\int u^2 \le \min(E_0 e^{2\rho t}, E_0 + \frac8{27}\rho t)$, which forgets what the fluxes do. With
  $u\le1+\psi$ and $\psi$ rising it is at most $2\tau\sum(g_L(1+\psi_0) - g_R(1+\psi_1))$ over the steps so far.

Source:
    Oleinik, Uspekhi Mat. Nauk 12 (1957) 3; Goodman & LeVeque, SIAM J. Numer. Anal. 25 (1988) 268; code and settings of
    github.com/alfred-leong/I-PCFM.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from constraints import Bounds, Constraint, EnergyBound, InitialCondition, OneSidedLipschitz, local_conservation
from pcfm.suite_laws import LOCAL_STEPS, inner_balance, node_balance, reaction_diffusion_literature
from pde_datasets import Fields
from pde_datasets.problems import InviscidBurgers, ReactionDiffusion
from pde_datasets.problems.inviscid_burgers import FLUX
from pde_datasets.problems.reaction_diffusion import Diffusion

Laws = dict[str, Constraint]
"""By label: IC, CL for equalities; bounds, entropy and energy for inequalities."""

GODUNOV = 2.0
"""The constant of the one-sided Lipschitz condition that Godunov's scheme obeys, where exact solutions have 1."""

PUBLISHED_STEPS = 20
"""Steps that I-PCFM's runs hold Burgers fields to cell by cell."""


def burgers(problem: InviscidBurgers, given: Fields) -> Laws:
    """Initial data, Godunov's balance of each inner cell for five steps and of all together, bounds, the scheme's entropy condition."""
    return {
        "IC": _initial(given),
        "CL": local_conservation(problem.grid, FLUX, steps=min(LOCAL_STEPS, problem.times - 1)),
        "CL, all steps": inner_balance(problem),
        "bounds": Bounds(0.0, 1.0),
        "entropy": oleinik(problem, GODUNOV),
    }


def burgers_published(problem: InviscidBurgers, given: Fields) -> Laws:
    """Initial data, Godunov's balance of each inner cell for twenty steps, the trapezoidal balance of all nodes, Oleinik's condition."""
    return {
        "IC": _initial(given),
        "CL": local_conservation(problem.grid, FLUX, steps=min(PUBLISHED_STEPS, problem.times - 1)),
        "CL, all steps": node_balance(problem.grid),
        "entropy": oleinik(problem, 1.0),
    }


def oleinik(problem: InviscidBurgers, constant: float) -> OneSidedLipschitz:
    """$u_{i+1} - u_i \\le c\\,\\Delta x/t$; initial data, which are given, may rise by as much as at the first step."""
    t = problem.grid.axes[0].positions()
    return OneSidedLipschitz(problem.grid, "x", constant / t.clamp_min(t[1]))


def reaction_diffusion(problem: ReactionDiffusion, given: Fields) -> Laws:
    """Initial data, the scheme's balance of mass, and bounds of values and energy that account for the fluxes."""
    response = flux_response(problem, given.parameters)
    return {
        "IC": _initial(given),
        "CL": problem.balance(given.parameters),
        "bounds": Bounds(0.0, 1 + response),
        "energy": EnergyBound(problem.grid, energy_bound(problem, given, response) / 2),
    }


def reaction_diffusion_published(problem: ReactionDiffusion, given: Fields) -> Laws:
    """Initial data, the trapezoidal balance of mass with estimated fluxes, values between 0 and 1, and Gronwall's bound of the energy."""
    rho, t, begun = problem.reaction[0], problem.grid.axes[0].positions(), _squares(given)[:, :1]
    gronwall = torch.minimum(begun * torch.exp(2 * rho * t), begun + 8 * rho / 27 * t)
    return {
        "IC": _initial(given),
        "CL": reaction_diffusion_literature(problem, given)["CL"],
        "bounds": Bounds(0.0, 1.0),
        "energy": EnergyBound(problem.grid, gronwall / 2),
    }


def flux_response(problem: ReactionDiffusion, parameters: Mapping[str, Tensor]) -> Tensor:
    r"""$\psi$ at the stored times, (N, 1, T, X): what the fluxes alone would make of empty ground."""
    tau = problem.interval / problem.steps
    fluxes = parameters["left"], parameters["right"]
    diffusion = Diffusion(problem.points, parameters["diffusivity"], *fluxes, tau, periodic=problem.boundary == "periodic")
    now = torch.zeros(len(fluxes[0]), problem.points, dtype=torch.float64)
    stored = [now]
    for _ in range(problem.times - 1):
        for _ in range(problem.steps):
            now = diffusion.step(now)
        stored.append(now)
    return torch.stack(stored, dim=1)[:, None]


def energy_bound(problem: ReactionDiffusion, given: Fields, response: Tensor) -> Tensor:
    r"""What $\int u^2$ is at most, (N, T)."""
    left, right = (given.parameters[name][:, None] for name in ("left", "right"))
    ends = 1 + response[:, 0, 1:]
    work = 2 * problem.interval * (left * ends[..., 0] - right * ends[..., -1]).cumsum(1)
    reacted = 8 * problem.reaction[1] / 27 * problem.grid.axes[0].positions()
    return _squares(given)[:, :1] + reacted + torch.nn.functional.pad(work, (1, 0))


def _squares(given: Fields) -> Tensor:
    r"""$\int u^2$ at each time, (N, T)."""
    u = given.values[:, 0].to(torch.float64)
    return (given.grid.weights().to(u) * u.square()).sum(-1)


def _initial(given: Fields) -> InitialCondition:
    return InitialCondition(given.grid, given.values.select(given.grid.dim("time"), 0).to(torch.float64))
