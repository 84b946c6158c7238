"""Reaction and diffusion, inviscid Burgers, Stokes' second problem, porous medium, Stefan, heat between walls: against exact solutions."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.integrate
import scipy.linalg
import scipy.optimize
import torch
from torch import Tensor

from constraints import Axis, Constraint, Dirichlet, Grid, Mass, Monotone, project
from constraints.calculus.finite_difference import CentralDifference
from pde_datasets import Problem
from pde_datasets.problem import generator
from pde_datasets.problems import Heat, InviscidBurgers, PorousMedium, ReactionDiffusion, Stefan, StokesSecond
from pde_datasets.problems.inviscid_burgers import FLUX, flux
from pde_datasets.problems.porous_medium import wetting_front
from pde_datasets.problems.reaction_diffusion import Diffusion, logistic
from pde_datasets.problems.stefan import similarity
from tests.conftest import Figure


def scalar(value: float) -> Tensor:
    return torch.tensor([value], dtype=torch.float64)


def orders(errors: list[float]) -> list[float]:
    """Observed orders from the errors of one resolution after the other, each twice as fine."""
    return [math.log2(errors[i] / errors[i + 1]) for i in range(len(errors) - 1)]


def relative(law: Constraint, u: Tensor) -> float:
    """By how much fields break a law, as a fraction of its scale."""
    return max(float((leaf.excess(leaf.residual(u)) / leaf.scale(u)).max()) for leaf in law.leaves())


def crossing(u: Tensor, x: Tensor, level: float) -> Tensor:
    """Where profiles (T, X) that fall through a level do so, by linear interpolation."""
    i = (u > level).sum(-1) - 1
    row = torch.arange(len(u))
    before, behind = u[row, i], u[row, i + 1]
    return x[i] + (before - level) / (before - behind) * (x[1] - x[0])


# --- reaction and diffusion: the parts ---------------------------------------------------------------------------------------------


def test_logistic_growth_is_a_flow() -> None:
    """A group in time, at rest in 0 and 1, with the derivative u (1 - u)."""
    u = torch.linspace(0, 1.5, 7, dtype=torch.float64)
    assert torch.allclose(logistic(logistic(u, scalar(0.3)), scalar(0.5)), logistic(u, scalar(0.8)), rtol=1e-14, atol=0)
    assert torch.allclose(logistic(logistic(u, scalar(2.0)), scalar(-2.0)), u, rtol=1e-14, atol=0)
    h = 1e-4
    slope = (logistic(u, scalar(h)) - logistic(u, scalar(-h))) / (2 * h)
    assert torch.allclose(slope, u * (1 - u), rtol=0, atol=1e-8)


def stencil(n: int, periodic: bool) -> np.ndarray:
    """Second differences of n cell means on [0, 1] with no flux through the ends, or around."""
    matrix = np.diag(np.full(n, -2.0)) + np.diag(np.ones(n - 1), 1) + np.diag(np.ones(n - 1), -1)
    if periodic:
        matrix[0, -1] = matrix[-1, 0] = 1.0
    else:
        matrix[0, 0] = matrix[-1, -1] = -1.0
    return matrix * n**2


@pytest.mark.parametrize("n", [8, 9])
@pytest.mark.parametrize("periodic", [False, True], ids=["flux", "periodic"])
def test_diffusion_is_the_matrix_exponential(n: int, periodic: bool) -> None:
    """Of the finite-volume equations, with a source in the outer cells: one linear system, one dimension larger."""
    u = torch.rand(3, n, generator=generator(1, 0), dtype=torch.float64)
    nu, left, right, time = torch.tensor([0.01, 0.3, 5.0]).double(), scalar(0.7).expand(3), scalar(-0.4).expand(3), 0.2
    found = Diffusion(n, nu, left, right, time, periodic=periodic).step(u)
    for i in range(3):
        system = np.zeros((n + 1, n + 1))
        system[:n, :n] = nu[i].item() * stencil(n, periodic)
        if not periodic:
            system[0, n], system[n - 1, n] = 0.7 * n, 0.4 * n
        expected = scipy.linalg.expm(time * system) @ np.append(u[i].numpy(), 1.0)
        assert np.abs(found[i].numpy() - expected[:n]).max() < 1e-12


def test_linear_conduction_is_steady() -> None:
    r"""As much out as in: the profile of slope $-g/\nu$ stays."""
    problem = ReactionDiffusion(points=16, times=4, interval=0.5)
    x = problem.grid.axes[1].positions()
    u, produced = problem.solve((3 - 2 * x)[None], scalar(0.1), scalar(0.0), scalar(0.2), scalar(0.2))
    assert (u - (3 - 2 * x)).abs().max() < 1e-13
    assert not produced.any()


# --- reaction and diffusion: both together -----------------------------------------------------------------------------------------


def semi_discrete(u: Tensor, times: Tensor, nu: float, rho: float, left: float, right: float) -> Tensor:
    """The finite-volume equations by an independent integrator of high order, (T, X)."""
    n = len(u)
    matrix = nu * stencil(n, periodic=False)
    source = np.zeros(n)
    source[0], source[-1] = left * n, -right * n
    solved = scipy.integrate.solve_ivp(
        lambda _, v: matrix @ v + source + rho * v * (1 - v),
        (0, times[-1].item()),
        u.numpy(),
        method="DOP853",
        t_eval=times.numpy(),
        rtol=1e-12,
        atol=1e-13,
    )
    return torch.from_numpy(solved.y.T)


def test_splitting_is_second_order_in_time(figure: Figure) -> None:
    problem = ReactionDiffusion(points=12, times=3, interval=0.5)
    times, x = (axis.positions() for axis in problem.grid.axes)
    start = 0.5 + 0.4 * torch.cos(math.pi * x)
    exact = semi_discrete(start, times, 0.05, 2.0, 0.03, -0.02)
    errors = []
    for steps in (8, 16, 32, 64):
        u, _ = replace(problem, steps=steps).solve(start[None], scalar(0.05), scalar(2.0), scalar(0.03), scalar(-0.02))
        errors.append((u[0, 0] - exact).abs().max().item())
    assert orders(errors)[-1] == pytest.approx(2, abs=0.1)
    assert errors[-1] < 1e-5
    figure("reaction-diffusion", "Strang splitting: order in time", orders(errors)[-1], "SciPy's DOP853 at tolerance 1e-12", reference=2)


def ablowitz_zeppetella(x: Tensor, time: float) -> Tensor:
    r"""$u = (1 + e^{(x - 5t/\sqrt6)/\sqrt6})^{-2}$, exact for $\nu = \rho = 1$ (Ablowitz & Zeppetella, Bull. Math. Biol. 41 (1979) 835)."""
    return (1 + torch.exp((x - 5 * time / math.sqrt(6)) / math.sqrt(6))) ** -2


def wide(points: int, times: int, steps: int, width: float) -> tuple[ReactionDiffusion, Tensor, Callable[[Tensor], Tensor]]:
    r"""A problem on a line of some width, its x, and its solution for $\nu = \rho = 1$ without fluxes at times 0, 1, ...: (X) to (T, X)."""
    problem = ReactionDiffusion(points=points, times=times, interval=1.0, steps=steps)
    x = width * problem.grid.axes[1].positions()
    none = scalar(0.0)
    return problem, x, lambda start: problem.solve(start[None], scalar(width**-2), scalar(1.0), none, none)[0][0, 0]


def test_the_wave_of_ablowitz_and_zeppetella(figure: Figure) -> None:
    r"""Second order in space and time together; the front moves at $5/\sqrt6$."""
    errors = []
    for points, steps in ((300, 5), (600, 10), (1200, 20)):
        _, x, solve = wide(points, 4, steps, width=75.0)
        u = solve(ablowitz_zeppetella(x - 35, 0.0))
        exact = torch.stack([ablowitz_zeppetella(x - 35, t) for t in range(4)])
        errors.append((u - exact).abs().max().item())
    assert orders(errors) == pytest.approx([2, 2], abs=0.02)
    assert errors[-1] < 1e-5
    exact_wave = "exact: Ablowitz & Zeppetella (1979)"
    figure("reaction-diffusion", "Fisher wave: order in space and time", orders(errors)[-1], exact_wave, reference=2)
    figure("reaction-diffusion", "Fisher wave, 1200 cells to t = 3: largest error", errors[-1], exact_wave)
    speeds = (u.mean(-1) * 75).diff()
    assert torch.allclose(speeds, torch.full_like(speeds, 5 / math.sqrt(6)), rtol=1e-4)
    figure("reaction-diffusion", "Fisher wave: speed", speeds[-1], exact_wave + ", 5/sqrt 6", reference=2.041241)


@pytest.mark.parametrize("decay", [0.3, 0.35])
def test_the_tail_sets_the_speed_of_a_pushed_front(decay: float, figure: Figure) -> None:
    r"""$e^{-\lambda x}$ with $\lambda < 1$ moves at $\lambda + 1/\lambda$ (McKean, Comm. Pure Appl. Math. 28 (1975) 323)."""
    _, x, solve = wide(1000, 11, 20, width=100.0)
    speeds = crossing(solve(torch.sigmoid(-decay * (x - 30))), x, 0.5).diff()
    assert speeds[-1].item() == pytest.approx(decay + 1 / decay, rel=5e-4)
    assert speeds[0].item() < speeds[-1].item() - 0.05
    figure(
        "reaction-diffusion", f"front with tail exp(-{decay} x): speed", speeds[-1], "McKean (1975)", reference=round(decay + 1 / decay, 4)
    )


def test_a_step_moves_at_the_least_speed(figure: Figure) -> None:
    r"""$2\sqrt{\nu\rho}$ from below, $2 - 3/2t$ (Bramson, Mem. AMS 285 (1983)) but for higher orders of $1/t$."""
    _, x, solve = wide(1200, 21, 20, width=60.0)
    place = crossing(solve((x < 10).double()), x, 0.5)
    speeds = [(place[b] - place[a]).item() / (b - a) for a, b in ((5, 10), (10, 20))]
    bramson = [2 - 1.5 * math.log(b / a) / (b - a) for a, b in ((5, 10), (10, 20))]
    assert speeds[0] < speeds[1] < 2
    assert abs(speeds[1] - bramson[1]) < 0.02
    figure(
        "reaction-diffusion",
        "step: speed between t = 10 and 20",
        speeds[1],
        "Bramson (1983), to order 1/t",
        reference=round(bramson[1], 4),
    )
    assert abs(speeds[1] - bramson[1]) < abs(speeds[0] - bramson[0]) / 2


def test_the_published_scheme_tends_to_ours(figure: Figure) -> None:
    """Exact reaction and explicit diffusion in two stages, as PCFM steps, agrees to its own step error of first order."""
    problem = ReactionDiffusion.preset("pcfm", times=21, points=64)
    drawn = problem.draw(6, seed=4)
    n, nu, rho = 64, 0.005, 0.01
    left, right = drawn.parameters["left"][:, None], drawn.parameters["right"][:, None]

    def spread(u: Tensor) -> Tensor:
        faces = torch.cat([left, -nu * n * u.diff(), right], dim=1)
        return -n * faces.diff()

    errors = []
    for steps in (8, 16, 32):
        dt, u = 0.01 / steps, drawn.u[:, 0, 0]
        for _ in range(20 * steps):
            middle = logistic(u, scalar(rho * dt / 2)) + dt / 2 * spread(u)
            u = logistic(u, scalar(rho * dt)) + dt * spread(middle)
        errors.append((u - drawn.u[:, 0, -1]).abs().max().item())
    assert errors[0] < 1e-5
    figure("reaction-diffusion", "preset pcfm: largest difference", errors[-1], "PCFM's scheme, 32 steps a stored time")
    assert errors[2] < errors[1] < errors[0]


def test_mass_is_balanced_by_fluxes_and_reactions(figure: Figure) -> None:
    """To round-off, and what reactions are said to produce is the integral of their rate, to the order of the trapezoid."""
    errors = []
    for interval, times in ((0.02, 26), (0.01, 51)):
        problem = ReactionDiffusion(points=32, times=times, interval=interval, steps=3, reaction=(1.5, 3.0))
        drawn = problem.draw(8, seed=5)
        given = drawn.parameters
        mass, inflow = drawn.u[:, 0].mean(-1), interval * (given["left"] - given["right"])[:, None]
        assert (mass.diff(dim=1) - given["produced"] - inflow).abs().max() < 1e-15
        closed = (mass.diff(dim=1) - given["produced"] - inflow).abs().max()
        rate = given["reaction"][:, None] * (drawn.u[:, 0] * (1 - drawn.u[:, 0])).mean(-1)
        error = given["produced"].sum(1) - torch.trapezoid(rate, dx=interval, dim=1)
        errors.append(error.abs().max().item())
    assert errors[1] < 2e-4
    figure("reaction-diffusion", "mass balance of each step: largest error", closed, "exact: fluxes and what reactions produce")
    assert orders(errors)[0] == pytest.approx(2, abs=0.25)


def test_the_balance_is_closed_in_the_stored_fields() -> None:
    """Without what was produced; it is the trapezoidal balance of the literature, which data obey to third order a step."""
    ours, trapezoid = [], []
    for interval in (0.04, 0.02):
        problem = ReactionDiffusion(points=32, times=5, interval=interval, reaction=(3.0, 3.0))
        drawn = problem.draw(8, seed=6)
        known = {name: values for name, values in drawn.parameters.items() if name != "produced"}
        ours.append(relative(problem.balance(known), drawn.u))
        rate = 3.0 * (drawn.u[:, 0] * (1 - drawn.u[:, 0])).mean(-1)
        received = interval * ((rate[:, 1:] + rate[:, :-1]) / 2 + (known["left"] - known["right"])[:, None])
        trapezoid.append((drawn.u[:, 0].mean(-1).diff(dim=1) - received)[:, 0].abs().max().item())
    assert max(ours) < 1e-15
    assert min(trapezoid) > 1e-6
    assert orders(trapezoid)[0] > 1.8


def test_projections_restore_the_balance() -> None:
    problem = ReactionDiffusion(points=24, times=8, reaction=(2.0, 2.0))
    drawn = problem.draw(3, seed=7)
    noise = torch.randn(drawn.u.shape, generator=generator(7, 0), dtype=torch.float64)
    result = project(problem.constraint(drawn.parameters), drawn.u + 0.02 * noise)
    assert result.converged.all()
    assert relative(problem.balance(drawn.parameters), result.u) < 1e-12


@pytest.mark.parametrize("boundary", ["flux", "periodic"])
def test_initial_data_are_scaled_waves(boundary: str) -> None:
    """Least value 0, largest 1. On a bounded line the first and last cells are a wavelength apart, as published. Around a periodic one four
    in five samples are neither folded nor cut, and hold waves of at most twice the highest number."""
    problem = ReactionDiffusion(points=64, times=2, boundary=boundary, waves=3)
    count = 2000
    u = problem.draw(count, seed=8).parameters["initial"]
    assert not u.amin(1).any()
    assert (u.amax(1) == 1).all()
    if boundary == "flux":
        assert ((u[:, 0] - u[:, -1]).abs() < 1e-13).double().mean() > 0.9
    else:
        high = torch.fft.rfft(u, norm="forward")[:, 7:].abs().amax(1)
        pure = (high < 1e-14).double().mean().item()
        # not 0.81: a wave that does not change sign passes the folding unharmed
        assert 0.81 - 4 * math.sqrt(0.81 * 0.19 / count) < pure < 0.9


def test_values_stay_where_reaction_and_diffusion_keep_them() -> None:
    """Periodic: between 0 and 1, with steps far beyond what explicit diffusion bears."""
    problem = ReactionDiffusion(points=48, times=9, interval=0.1, boundary="periodic", diffusivity=(0.5, 5.0), reaction=(1.0, 10.0))
    drawn = problem.draw(50, seed=9)
    assert relative(problem.constraint(drawn.parameters), drawn.u) < 1e-14
    mass = drawn.u[:, 0].mean(-1)
    assert (mass.diff(dim=1) > 0).all()
    assert (mass[:, 0] < mass[:, -1]).all()
    assert not drawn.parameters["left"].any()


# --- inviscid Burgers --------------------------------------------------------------------------------------------------------------

SCHEMES = pytest.mark.parametrize(("order", "courant"), [(1, 1.0), (2, 0.5)], ids=["Godunov", "MUSCL-Hancock"])


def resolved(points: int, order: int, courant: float) -> tuple[InviscidBurgers, Tensor]:
    problem = InviscidBurgers(points=points, times=round((points - 1) / courant) + 1, order=order)
    return problem, problem.grid.axes[1].positions()


def riemann_flux(before: float, behind: float) -> float:
    """The flux through x = 0 of the entropy solution (Osher, 1984): the least f between rising states, the largest between falling ones."""
    between = np.linspace(min(before, behind), max(before, behind), 2001)
    if before * behind < 0:
        between = np.append(between, 0.0)
    return float((between**2 / 2).min() if before <= behind else (between**2 / 2).max())


def test_it_is_the_published_scheme(figure: Figure) -> None:
    """Point by point, from the definition: flux of each Riemann problem, inflow from the first step on, a copy at the outflow."""
    problem = InviscidBurgers.preset("pcfm")
    assert problem.grid.shape == (101, 101)
    drawn = problem.draw(2, seed=3)
    x = np.linspace(0, 1, 101)
    worst = 0.0
    for i in range(2):
        p, inflow = (drawn.parameters[name][i].item() for name in ("front", "inflow"))
        u = 1 / (1 + np.exp((x - p) / 0.02))
        assert np.abs(drawn.u[i, 0, 0].numpy() - u).max() < 1e-15
        for n in range(12):
            faces = [riemann_flux(u[j], u[j + 1]) for j in range(100)]
            u[1:-1] = u[1:-1] - np.diff(faces)
            u[0], u[-1] = inflow, u[-2]
            assert np.abs(drawn.u[i, 0, n + 1].numpy() - u).max() < 1e-12
            worst = max(worst, np.abs(drawn.u[i, 0, n + 1].numpy() - u).max())
    figure("inviscid-burgers", "preset pcfm, 12 steps: largest difference", worst, "Godunov's scheme written out point by point")


@SCHEMES
@pytest.mark.parametrize(("before", "behind"), [(1.0, 0.0), (0.9, 0.3), (0.6, 0.1)])
def test_shocks_move_at_the_mean_of_their_states(order: int, courant: float, before: float, behind: float, figure: Figure) -> None:
    problem, x = resolved(101, order, courant)
    u = problem.solve(torch.where(x < 0.2, before, behind).double()[None], scalar(before))[0, 0]
    place, time = crossing(u, x, (before + behind) / 2), problem.grid.axes[0].positions()
    early, late = len(u) // 5, 4 * len(u) // 5
    speed = (place[late] - place[early]) / (time[late] - time[early])
    assert speed.item() == pytest.approx((before + behind) / 2, abs=1e-4)
    name = {1: "Godunov", 2: "MUSCL-Hancock"}[order]
    figure(
        "inviscid-burgers", f"{name}, shock {before} to {behind}: speed", speed, "exact: Rankine-Hugoniot", reference=(before + behind) / 2
    )
    assert abs(place[late].item() - 0.2 - time[late].item() * (before + behind) / 2) < 0.01
    inside = (u[late] > behind + 0.05 * (before - behind)) & (u[late] < before - 0.05 * (before - behind))
    assert inside.sum() <= 3


@SCHEMES
def test_rarefactions_converge(order: int, courant: float, figure: Figure) -> None:
    """x / t behind an inflow at rest, and through the sonic point, where no expansion shock stays: towards first order, as fans do."""
    for start, inflow, centre in ((lambda x: torch.ones_like(x), 0.0, 0.0), (lambda x: torch.where(x < 0.5, -0.8, 0.8), -0.8, 0.5)):
        errors = []
        for points in (101, 201, 401):
            problem, x = resolved(points, order, courant)
            middle = (problem.times - 1) // 2
            u = problem.solve(start(x).double()[None], scalar(inflow))[0, 0, middle]
            exact = ((x - centre) / 0.5).clamp(inflow, 1.0 if centre == 0 else 0.8)
            errors.append((u - exact).abs().mean().item())
        assert errors[-1] < (0.007 if order == 1 else 0.003)
        name = f"{'Godunov' if order == 1 else 'MUSCL-Hancock'}, {'sonic ' if inflow else ''}rarefaction, 401 points: mean error"
        figure("inviscid-burgers", name, errors[-1], "exact: x/t")
        assert 0.65 < orders(errors)[-1] < 1.1
        assert orders(errors)[-1] > orders(errors)[0] - 0.05


@SCHEMES
def test_smooth_waves_converge_at_the_order_of_the_scheme(order: int, courant: float, figure: Figure) -> None:
    """A rising profile, whose characteristics do not meet: u = g(x - u t), solved by bisection."""

    def profile(x: Tensor) -> Tensor:
        return 0.5 + 0.25 * torch.tanh((x - 0.3) / 0.03)

    errors = []
    for points in (201, 401, 801):
        problem, x = resolved(points, order, courant)
        middle = (problem.times - 1) // 2
        u = problem.solve(profile(x)[None], scalar(0.25))[0, 0, middle]
        low, high = x - 0.5, x.clone()
        for _ in range(60):
            foot = (low + high) / 2
            above = foot + 0.5 * profile(foot) > x
            low, high = torch.where(above, low, foot), torch.where(above, foot, high)
        errors.append((u - profile(low)).abs().mean().item())
    assert orders(errors)[-1] == pytest.approx(order, abs=0.1)
    name = {1: "Godunov", 2: "MUSCL-Hancock"}[order]
    figure("inviscid-burgers", f"{name}, smooth wave: order", orders(errors)[-1], "exact: characteristics", reference=order)


def test_every_cell_loses_entropy(figure: Figure) -> None:
    r"""$\eta = u^2/2$ with the entropy flux $u^3/3$ of the state in each face, which is the sonic one or that upstream (Godunov)."""
    problem = InviscidBurgers(points=61, times=61)
    g = generator(4, 0)
    start = 2 * torch.rand(20, 61, generator=g, dtype=torch.float64) - 1
    u = problem.solve(start, 2 * torch.rand(20, generator=g, dtype=torch.float64) - 1)[:, 0]
    before, behind = u[..., :-1], u[..., 1:]
    rises = torch.where(before > 0, before, torch.where(behind < 0, behind, 0.0))
    state = torch.where(before <= behind, rises, torch.where(before + behind > 0, before, behind))
    assert (flux(state) - FLUX(before, behind)).abs().max() < 1e-15
    eta, psi = u.square() / 2, state**3 / 3
    change = eta[:, 1:, 1:-1] - eta[:, :-1, 1:-1] + psi[:, :-1].diff(dim=-1)
    assert change.max() < 1e-15
    figure("inviscid-burgers", "largest production of entropy in a cell", change.max(), "entropy condition: not above 0")
    assert change.min() < -1e-3


@SCHEMES
def test_ends_and_balance_of_inviscid_burgers(order: int, courant: float) -> None:
    """The conventions of the published set, and every law and the balance of the inner cells to round-off."""
    problem, x = resolved(41, order, courant)
    drawn = problem.draw(40, seed=5)
    u, p = drawn.u[:, 0], drawn.parameters
    assert torch.allclose(u[:, 0], torch.sigmoid((p["front"][:, None] - x) / 0.02), rtol=1e-14)
    assert (u[:, 0, 0] > 0.999).all()
    assert torch.equal(u[:, 1:, 0], p["inflow"][:, None].expand(-1, problem.times - 1))
    assert torch.equal(u[:, 1:, -1], u[:, 1:, -2])
    for law in (problem.constraint(p), problem.balance(), problem.conservation(steps=5)):
        assert relative(law, drawn.u) < 1e-14
    assert problem.conservation(steps=5).residual(drawn.u).shape == (40, 5 * 39)
    variation = u.diff(dim=-1).abs().sum(-1)
    assert (variation[:, 1:].diff(dim=1) < 1e-14).all()
    wrong = drawn.u.clone()
    wrong[:, :, 3, 20] += 1e-6
    assert relative(problem.balance(), wrong) > 1e-9
    other = replace(problem, times=81, order=3 - order) if order == 1 else replace(problem, order=1)
    if order == 2:
        assert relative(other.conservation(), drawn.u) > 1e-3


def test_the_published_mass_law_does_not_hold(figure: Figure) -> None:
    r"""The sum over all points against $\int\frac12(u_0^2 - u_{-1}^2)dt$ by the trapezoid: published data miss it by 0.048 in the mean."""
    u = InviscidBurgers.preset("pcfm").draw(400, seed=6).u[:, 0]
    inflow = torch.cumulative_trapezoid(flux(u[..., 0]) - flux(u[..., -1]), dx=0.01, dim=1)
    misfit = 0.01 * (u.sum(-1)[:, 1:] - u.sum(-1)[:, :1]) - inflow
    assert misfit.norm(dim=1).mean().item() == pytest.approx(0.048, abs=0.004)
    size = misfit.norm(dim=1).mean()
    figure("inviscid-burgers", "preset pcfm: mean misfit of the mass law of its authors", size, "PCFM's published data", reference=0.048)


def test_the_laws_of_inviscid_burgers_leave_one_field() -> None:
    problem = InviscidBurgers(points=15, times=15)
    drawn = problem.draw(2, seed=8)
    noise = torch.randn(drawn.u.shape, generator=generator(8, 0), dtype=torch.float64)
    result = project(problem.constraint(drawn.parameters), drawn.u + 0.05 * noise)
    assert result.converged.all()
    assert (result.u - drawn.u).abs().max() < 1e-9


# --- Stokes' second problem --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", ["eci", "eci-viscosity"])
def test_stokes_solves_its_equation(preset: str, figure: Figure) -> None:
    r"""$u_t = \nu u_{yy}$ by differences of sixth order, and the plate's motion at y = 0."""
    problem = StokesSecond.preset(preset, points=201, times=201)
    drawn = problem.draw(10, seed=1)
    scheme, grid = CentralDifference(6), problem.grid
    time_rate = scheme.derivative(drawn.u, grid, "time")
    viscous = drawn.parameters["viscosity"][:, None, None, None] * scheme.derivative(scheme.derivative(drawn.u, grid, "y"), grid, "y")
    inside = (..., slice(6, -6), slice(8, -8))
    assert (time_rate - viscous)[inside].abs().max() < 1e-4 * time_rate.abs().max()
    error = (time_rate - viscous)[inside].abs().max() / time_rate.abs().max()
    figure("stokes-second", f"preset {preset}: largest residual of the equation, relative", error, "differences of sixth order")
    frequency, time = drawn.parameters["frequency"][:, None], grid.axes[0].positions()
    assert torch.allclose(drawn.u[:, 0, :, 0], 2 * torch.cos(frequency * time), rtol=0, atol=1e-14)


def test_stokes_ranges() -> None:
    given = StokesSecond.preset("eci").draw(500, seed=2).parameters
    assert 2 <= given["wavenumber"].min() < 2.2 < 19.8 < given["wavenumber"].max() <= 20
    given = StokesSecond.preset("eci-viscosity").draw(500, seed=2).parameters
    assert 0.01 <= given["viscosity"].min() < 0.02 < 0.98 < given["viscosity"].max() <= 1
    assert torch.allclose(given["wavenumber"] ** 2 * 2 * given["viscosity"], given["frequency"], rtol=1e-13)


def test_stokes_integral_tends_to_the_exact_one(figure: Figure) -> None:
    r"""$\int_0^1 u\,dy = U\,\Re\,\frac{1 - e^{-s}}s e^{-i\omega t}$, at second order."""
    k, frequency = scalar(3.0), scalar(5.0)
    parameters = {"wavenumber": k, "frequency": frequency}
    s, errors = 3.0 * (1 - 1j), []
    for points in (26, 51, 101):
        problem = StokesSecond(points=points, times=9)
        turned = torch.exp(-5j * problem.grid.axes[0].positions())
        exact = 2 * ((1 - np.exp(-s)) / s * turned).real
        assert relative(Mass(problem.grid, exact[None]), problem.solution(parameters)) > 1e-6
        errors.append((problem.integral(parameters) - exact).abs().max().item())
    # one interval more each time is not quite half the spacing
    assert orders(errors) == pytest.approx([2, 2], abs=0.01)
    figure("stokes-second", "mass by the trapezoidal rule: order", orders(errors)[-1], "exact integral", reference=2)


# --- porous medium -----------------------------------------------------------------------------------------------------------------


def test_porous_medium_is_the_published_data(real_data: Path, figure: Figure) -> None:
    """The files of ProbConserv hold (m (t - s x)_+)^(1/m) in single precision at random (t, x)."""
    for name in ("test", "valid"):
        tensors, parameters = torch.load(real_data / "probconserv_pme" / f"{name}.pt", weights_only=True)
        exponent, scale = parameters.double().split(1, dim=1)
        for part in ("contexts", "targets"):
            time, x = tensors[f"input_{part}"].double().unbind(-1)
            published = tensors[f"output_{part}"][..., 0].double()
            assert published.max() > 1
            assert (wetting_front(time, scale * x, exponent) - published).abs().max() < 1.1e-7
            error = (wetting_front(time, scale * x, exponent) - published).abs().max()
            figure("porous-medium", f"{name}.pt, {part}: largest difference", error, "ProbConserv's data, single precision")


def test_porous_medium_solves_its_equation(figure: Figure) -> None:
    r"""$u_t = (u^m u_x)_x$ behind the front by automatic differentiation, with the flux $-u^m u_x = u$, which vanishes at the front."""
    m = torch.tensor([1.0, 1.7, 3.0, 6.0], dtype=torch.float64)[:, None].expand(4, 50)
    time = (0.2 + 0.8 * torch.rand(4, 50, generator=generator(1, 1), dtype=torch.float64)).requires_grad_()
    x = (time.detach() * 0.98 * torch.rand(4, 50, generator=generator(1, 2), dtype=torch.float64)).requires_grad_()
    u = wetting_front(time, x, m)
    rate, slope = torch.autograd.grad(u.sum(), (time, x), create_graph=True)
    stream = -(u**m) * slope
    assert torch.allclose(stream, u, rtol=1e-12)
    (divergence,) = torch.autograd.grad(stream.sum(), x)
    assert torch.allclose(rate, -divergence, rtol=1e-10)
    error = ((rate + divergence).abs().max() / rate.abs().max()).item()
    figure("porous-medium", "largest residual of the equation, relative", error, "automatic differentiation")
    assert not wetting_front(time, time + 0.1, m).any()


@pytest.mark.parametrize("exponent", [1.5, 2.0, 6.0])
def test_mass_of_porous_medium(exponent: float, figure: Figure) -> None:
    """By quadrature of the profile and of the inflow; the trapezoidal rule sees it to order 1 + 1/m."""
    m, errors = scalar(exponent), []
    for points in (51, 101, 201, 401):
        problem = PorousMedium(points=points, times=6)
        mass = problem.mass(m)[0]
        errors.append((problem.solution(m)[0, 0] @ problem.grid.axes[1].weights() - mass).abs().max().item())
    assert sum(orders(errors)) / 3 == pytest.approx(1 + 1 / exponent, abs=0.03)
    figure(
        "porous-medium",
        f"m = {exponent:g}, mass by the trapezoidal rule: order",
        sum(orders(errors)) / 3,
        "1 + 1/m at the front",
        reference=round(1 + 1 / exponent, 2),
    )
    for i, time in enumerate(problem.grid.axes[0].positions().tolist()):
        profile = scipy.integrate.quad(lambda x, t=time: (exponent * (t - x)) ** (1 / exponent), 0, time)[0]
        inflow = scipy.integrate.quad(lambda s: (exponent * s) ** (1 / exponent), 0, time)[0]
        assert mass[i].item() == pytest.approx(profile, abs=1e-8)
        assert mass[i].item() == pytest.approx(inflow, abs=1e-8)


# --- Stefan ------------------------------------------------------------------------------------------------------------------------


def test_similarity_against_a_root_finder(figure: Figure) -> None:
    """The equation as ProbConserv and ECI write it, by Brent's method; and a limit: for thresholds near one, 2 z^2 = 1/u* - 1."""
    thresholds = torch.tensor([0.05, 0.3, 0.55, 0.7, 0.9], dtype=torch.float64)
    for threshold, z in zip(thresholds.tolist(), similarity(thresholds).tolist(), strict=True):
        root = scipy.optimize.brentq(
            lambda v, u=threshold: u * math.erf(v) * v * math.exp(v * v) - (1 - u) / math.sqrt(math.pi), 0, 10, xtol=1e-14
        )
        assert z == pytest.approx(root, rel=1e-12)
        figure("stefan", f"u* = {threshold:.2f}: root z of the similarity equation", z, "Brent's method", reference=round(root, 9))
    assert similarity(scalar(1 - 1e-8)).item() == pytest.approx(math.sqrt(0.5e-8), rel=1e-6)


def test_stefan_fields_are_the_similarity_solution(figure: Figure) -> None:
    r"""One profile of $x/\sqrt t$ that solves the heat equation, falls to the threshold at the front, and is zero ahead of it."""
    problem = Stefan.preset("eci-wide", points=2001, times=11)
    drawn = problem.draw(6, seed=2)
    given = drawn.parameters
    closed = 0.0
    time, x = (axis.positions() for axis in problem.grid.axes)
    assert (drawn.u[:, 0, :, 0] == 1).all()
    assert not drawn.u[:, 0, 0, 1:].any()
    for i in range(6):
        kappa, front = given["conductivity"][i].item(), given["front"][i].item()
        for n in range(1, 11):
            u, place = drawn.u[i, 0, n], front * math.sqrt(time[n])
            behind = x <= place
            assert not u[~behind].any()
            assert u[behind].min() >= given["threshold"][i] - 1e-12
            if place < 1:
                slope = (1 - given["threshold"][i]) / math.erf(front / (2 * math.sqrt(kappa)))
                steepness = slope * math.exp(-(front**2) / (4 * kappa)) / math.sqrt(math.pi * kappa * time[n])
                last = behind.sum() - 1
                assert u[last].item() == pytest.approx(given["threshold"][i].item() + steepness.item() * (place - x[last].item()), abs=1e-5)
                # what arrives at the front feeds it: kappa |u_x| = u* s'
                assert kappa * steepness.item() == pytest.approx(given["threshold"][i].item() * front / (2 * math.sqrt(time[n])), rel=1e-10)
                closed = max(closed, abs(kappa * steepness.item() / (given["threshold"][i].item() * front / (2 * math.sqrt(time[n]))) - 1))
            far = min(int(behind.sum()), len(x)) - 3
            curvature = (u[: far - 2] - 2 * u[1 : far - 1] + u[2:far]) * 2000**2
            middle = x[1 : far - 1]
            c = (1 - given["threshold"][i]) / math.erf(front / (2 * math.sqrt(kappa)))
            rate = c * middle / (2 * time[n] * torch.sqrt(math.pi * kappa * time[n])) * torch.exp(-(middle**2) / (4 * kappa * time[n]))
            assert (kappa * curvature - rate).abs().max() < 1e-4 * rate.abs().max() + 1e-6
    figure("stefan", "flux at the front, largest relative error", closed, "u* times its speed")


def test_mass_of_stefan(figure: Figure) -> None:
    """The inflow at x = 0 is all that lies behind the front, by quadrature; the trapezoidal rule misses it by the jump's cell."""
    problem = Stefan.preset("eci", points=401, times=9)
    drawn = problem.draw(20, seed=3)
    mass = problem.mass(drawn.parameters)
    misfit = (drawn.u[:, 0] @ problem.grid.axes[1].weights() - mass)[:, 1:]
    assert misfit.abs().max() < 0.5 / 400 * drawn.parameters["threshold"].max() + 1e-5
    assert misfit.abs().max() > 1e-4
    threshold, front = (drawn.parameters[name][0].item() for name in ("threshold", "front"))
    time = problem.duration
    place, c = front * math.sqrt(time), (1 - threshold) / math.erf(front / 2)
    profile = scipy.integrate.quad(lambda x: 1 - c * math.erf(x / (2 * math.sqrt(time))), 0, place, epsabs=1e-13)[0]
    assert mass[0, -1].item() == pytest.approx(profile, rel=1e-11)
    figure("stefan", "mass: relative error", abs(mass[0, -1].item() / profile - 1), "SciPy's quadrature of the profile")


@pytest.mark.parametrize(
    "problem", [PorousMedium(points=40, times=21), Stefan(points=40, times=21), Stefan.preset("eci-wide", points=40, times=21)]
)
def test_fronts_are_monotone(problem: Problem) -> None:
    drawn = problem.draw(30, seed=4)
    assert relative(Monotone(problem.grid, "x", decreasing=True), drawn.u) <= 0
    assert relative(Monotone(problem.grid, "time"), drawn.u) <= 0


# --- heat between walls ------------------------------------------------------------------------------------------------------------


def test_the_default_heat_is_one_sine_wave() -> None:
    """To the bit, since trained models were made on it."""
    problem = Heat()
    drawn = problem.draw(5, seed=3)
    nu, shift = (drawn.parameters[name][:, None, None] for name in ("diffusivity", "phase"))
    time, x = problem.grid.mesh()
    assert torch.equal(drawn.u[:, 0], torch.sin(x + shift) * torch.exp(-nu * time))


@pytest.mark.parametrize("boundary", ["periodic", "neumann", "dirichlet"])
def test_heat_of_several_waves(boundary: str, figure: Figure) -> None:
    """The equation by differences of sixth order, and the walls: zero slope to that order, or zero value to round-off."""
    problem = Heat(points=201, times=101, boundary=boundary, modes=3, diffusivity=(0.2, 0.5))
    drawn = problem.draw(5, seed=4)
    assert drawn.parameters["phase"].shape == (5, 3)
    scheme, grid = CentralDifference(6), problem.grid
    slope = scheme.derivative(drawn.u, grid, "x")
    rate, spread = scheme.derivative(drawn.u, grid, "time"), scheme.derivative(slope, grid, "x")
    error = rate - drawn.parameters["diffusivity"][:, None, None, None] * spread
    assert error[..., 4:-4, 6:-6].abs().max() < 1e-6 * rate.abs().max()
    residual = error[..., 4:-4, 6:-6].abs().max() / rate.abs().max()
    figure("heat", f"{boundary}, three waves: largest residual of the equation, relative", residual, "differences of sixth order")
    ends = drawn.u[..., [0, -1]]
    if boundary == "neumann":
        assert slope[..., [0, -1]].abs().max() < 1e-6
        assert ends.abs().max() > 0.1
        assert relative(Mass(grid, 0.0), drawn.u) < 1e-14
    elif boundary == "dirichlet":
        assert ends.abs().max() < 1e-14
        assert slope[..., [0, -1]].abs().max() > 0.1
        assert relative(Dirichlet(grid, "x", "upper", 0.0), drawn.u) < 1e-14


def test_heat_waves_are_those_of_the_walls() -> None:
    r"""Half waves of numbers m/2, decaying at $\nu m^2/4$."""
    problem = Heat(points=33, times=5, boundary="neumann", modes=2)
    drawn = problem.draw(3, seed=5)
    nu, phase = drawn.parameters["diffusivity"], drawn.parameters["phase"]
    time, x = (axis.positions() for axis in problem.grid.axes)
    # cosine coefficients on a closed grid by the trapezoidal rule
    weights = Grid(Axis("x", 33, length=2 * math.pi)).axes[0].weights() / math.pi
    for m in (1, 2):
        coefficient = (drawn.u[:, 0] * torch.cos(m * x / 2)) @ weights
        expected = torch.sin(phase[:, m - 1])[:, None] * torch.exp(-nu[:, None] * m**2 / 4 * time)
        assert torch.allclose(coefficient, expected, rtol=0, atol=1e-14)


# --- settings ----------------------------------------------------------------------------------------------------------------------

WRONG: list[tuple[type[Problem], dict[str, object], str]] = [
    (ReactionDiffusion, {"boundary": "open"}, "boundary among flux, periodic"),
    (ReactionDiffusion, {"times": 1}, "at least two points and times"),
    (ReactionDiffusion, {"interval": 0.0}, "positive interval"),
    (ReactionDiffusion, {"diffusivity": (0.2, 0.1)}, "not below 0, the lower end first; got .0.2,0.1."),
    (ReactionDiffusion, {"left": (-0.1, 0.1)}, "left as a range .* not below 0"),
    (ReactionDiffusion, {"right": (0.0, 0.1)}, "fluxes into the domain"),
    (InviscidBurgers, {"order": 3}, "order 1"),
    (InviscidBurgers, {"points": 202}, "Courant number of at most 1 .* make 2.01"),
    (InviscidBurgers, {"order": 2}, "Courant number of at most 0.5"),
    (InviscidBurgers, {"inflow": (-0.5, 0.5)}, "inflow as a range .* not below 0"),
    (InviscidBurgers, {"width": 0.0}, "positive width"),
    (StokesSecond, {"drawn": "speed"}, "wavenumber, viscosity"),
    (StokesSecond, {"frequency": (0.0, 1.0)}, "frequency as a range .* above 0"),
    (PorousMedium, {"exponent": (0.0, 1.0)}, "exponent as a range .* above 0"),
    (Stefan, {"threshold": (0.5, 1.0)}, "above 0 and below 1"),
    (Stefan, {"duration": 0.0}, "positive duration"),
    (Heat, {"boundary": "robin"}, "periodic, neumann, dirichlet"),
    (Heat, {"modes": 100}, "more points than modes; got points = 100, modes = 100"),
    (Heat, {"points": 1}, "more points than modes; got points = 1, modes = 1"),
    (Heat, {"diffusivity": (-1.0, 1.0)}, "not below 0"),
]


@pytest.mark.parametrize(("problem", "settings", "message"), WRONG)
def test_wrong_settings_are_refused(problem: type[Problem], settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        problem(**settings)
