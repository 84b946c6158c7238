"""Gas dynamics and shallow water: exact Riemann solutions, fluxes, limiters, finite volumes and the problems built on them."""

from __future__ import annotations

import math
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import pde_datasets
from constraints import Axis, Grid
from pde_datasets.problem import generator
from pde_datasets.problems import Euler1D, Euler2D, ShallowWater1D, ShallowWater2D
from pde_datasets.problems.euler import SHOCK_TUBES
from pde_datasets.problems.hyperbolic import Hyperbolic, below
from pde_datasets.solvers.finite_volume import INTEGRATORS, LIMITERS, FiniteVolume
from pde_datasets.solvers.hyperbolic import SHARE, IdealGas, ShallowWater
from pde_datasets.solvers.riemann import gas_riemann, water_riemann
from tests.conftest import Figure


def state(*values: float) -> Tensor:
    return torch.tensor([values], dtype=torch.float64)


def box(points: int, length: float = 1.0, lower: float = 0.0, *, axes: int = 1, periodic: bool = False) -> Grid:
    first = lower + length / points / 2
    return Grid(*(Axis(name, points, length=length, origin=first, periodic=periodic, cells=not periodic) for name in ("x", "y")[:axes]))


def order(coarse: float, fine: float) -> float:
    return math.log2(coarse / fine)


def random_gas(count: int, seed: int, *, decades: float = 2.0, speed: float = 2.0) -> Tensor:
    """Density, velocity, pressure (count, 3): densities and pressures over some decades both ways."""
    unit = torch.rand(count, 3, generator=generator(seed, 0), dtype=torch.float64) * 2 - 1
    return torch.stack([10 ** (decades * unit[:, 0]), speed * unit[:, 1], 10 ** (decades * unit[:, 2])], dim=1)


# --- exact Riemann solutions -------------------------------------------------------------------------------------------------------

STARS = {
    "sod": (0.303130, 0.927453, 0.426319, 0.265574),
    "toro1": (0.466294, 1.360906, 0.579867, 0.339700),
    "toro2": (0.001894, 0.0, 0.021852, 0.021852),
    "toro3": (460.893787, 19.597451, 0.575062, 5.999241),
    "toro4": (1691.646955, 8.689774, 14.28235, 31.042602),
    "toro5": (460.893787, 1e-6, 0.575062, 5.999241),
    "lax": (2.466098, 1.528723, 0.344568, 1.304085),
}
"""Pressure and velocity between the waves, densities left and right of the contact; Toro (2009), table 4.3, with more digits."""

SPEEDS = {
    "sod": (-1.183216, -0.070273, 1.752156, 1.752156),
    "toro1": (-0.433216, 0.299871, 2.153234, 2.153234),
    "toro3": (-37.4166, -13.8996, 23.517537, 23.517537),
    "toro4": (0.789594, 0.789594, 12.250778, 12.250778),
    "toro5": (-57.0140, -33.4971, 3.920087, 3.920087),
    "lax": (-2.6336, -1.6367, 2.479321, 2.479321),
}


@pytest.mark.parametrize("name", STARS)
def test_shock_tubes_have_the_published_middle_states(name: str, figure: Figure) -> None:
    tube = SHOCK_TUBES[name]
    solution = gas_riemann(state(*tube.left), state(*tube.right), 1.4)
    pressure, velocity, left, right = STARS[name]
    assert not solution.vacuum
    assert solution.star_left[0].tolist() == pytest.approx([left, velocity, pressure], abs=6e-7)
    assert solution.star_right[0].tolist() == pytest.approx([right, velocity, pressure], abs=6e-7)
    found = solution.star_left[0, 2], solution.star_left[0, 1], solution.star_left[0, 0], solution.star_right[0, 0]
    for quantity, value, known in zip(("p*", "u*", "rho* left", "rho* right"), found, STARS[name], strict=True):
        figure("euler-1d", f"exact solution, {name}: {quantity}", value, "Toro (2009), chapter 4", reference=known)
    if name in SPEEDS:
        assert solution.speeds[0].tolist() == pytest.approx(SPEEDS[name], abs=6e-5)


def test_the_mirrored_blast_and_the_gas_of_five_thirds(figure: Figure) -> None:
    mirror = gas_riemann(state(1.0, 0.0, 0.01), state(1.0, 0.0, 100.0), 1.4)
    assert mirror.star_left[0].tolist() == pytest.approx([5.992417, -6.196328, 46.095044], abs=6e-7)
    assert mirror.star_right[0, 0].item() == pytest.approx(0.575113, abs=6e-7)
    assert mirror.speeds[0].tolist() == pytest.approx([-7.437476, -7.437476, 4.3966, 11.8322], abs=5e-5)
    pdebench = gas_riemann(state(1.0, 0.75, 1.0), state(0.125, 0.0, 0.1), 5 / 3)
    assert pdebench.star_left[0, 1:].tolist() == pytest.approx([1.290992, 0.471293], abs=6e-7)
    for case, solution, known in (
        ("mirrored blast", mirror, (46.095044, -6.196328)),
        ("toro1 with gamma = 5/3", pdebench, (0.471293, 1.290992)),
    ):
        for quantity, channel, value in zip(("p*", "u*"), (2, 1), known, strict=True):
            figure(
                "euler-1d", f"exact solution, {case}: {quantity}", solution.star_left[0, channel], "another exact solver", reference=value
            )


@pytest.mark.parametrize(("file", "name", "time"), [("sod", "sod", 0.2), ("test2", "toro2", 0.15), ("test3", "toro3", 0.012)])
def test_profiles_agree_with_castros_tables(real_data: Path, file: str, name: str, time: float, figure: Figure) -> None:
    """Exact solutions shipped with AMReX-Astro/Castro: six digits of all columns, the place included."""
    table = torch.from_numpy(np.loadtxt(real_data / "reference" / "riemann" / f"{file}-exact.out"))
    tube = SHOCK_TUBES[name]
    w = gas_riemann(state(*tube.left), state(*tube.right), 1.4).at((table[:, 0] - tube.position) / time)[0]
    assert ((w.T - table[:, 1:4]).abs() <= 3e-6 * table[:, 1:4].abs().amax(0).clamp_min(1)).all()
    error = ((w.T - table[:, 1:4]).abs() / table[:, 1:4].abs().amax(0).clamp_min(1)).max()
    figure("euler-1d", f"exact solution, {name}: largest relative difference of rho, u, p", error, "Castro's exact profiles, six digits")


@pytest.mark.parametrize("gamma", [1.1, 1.4, 5 / 3, 2.5])
def test_waves_obey_jump_conditions_or_invariants(gamma: float) -> None:
    """Rankine-Hugoniot across shocks; entropy and the Riemann invariant through rarefactions, which are characteristics inside."""
    left, right = random_gas(400, 1, decades=4), random_gas(400, 2, decades=4)
    solution = gas_riemann(left, right, gamma)
    gas = IdealGas(gamma, 1)
    kinds = set()
    for sign, outer, inner, speeds in (
        (1.0, left, solution.star_left, solution.speeds[:, :2]),
        (-1.0, right, solution.star_right, solution.speeds[:, [3, 2]]),
    ):
        full = ~solution.vacuum
        shock = full & (speeds[:, 0] == speeds[:, 1])
        u = [gas.conserved(w[..., None])[..., 0] for w in (outer, inner)]
        f = [gas.flux_of(w[..., None], v[..., None], 0)[..., 0] for w, v in zip((outer, inner), u, strict=True)]
        jump, moved = f[1] - f[0], speeds[:, :1] * (u[1] - u[0])
        size = f[0].abs() + f[1].abs() + (speeds[:, :1] * u[0]).abs() + (speeds[:, :1] * u[1]).abs()
        assert ((jump - moved).abs() <= 1e-10 * size)[shock].all()
        assert (inner[:, 2] > outer[:, 2])[shock].all()  # entropy grows
        fan = full & ~shock
        middle = (speeds[:, 0] + speeds[:, 1]) / 2
        within = solution.at(middle[:, None])[..., 0]
        for w in (inner, within):
            entropy = (w[:, 2] / w[:, 0] ** gamma) / (outer[:, 2] / outer[:, 0] ** gamma)
            c = [(gamma * v[:, 2] / v[:, 0]).sqrt() for v in (outer, w)]
            invariant = [v[:, 1] + sign * 2 * s / (gamma - 1) for v, s in zip((outer, w), c, strict=True)]
            assert ((entropy - 1).abs() < 1e-9)[fan].all()
            assert ((invariant[0] - invariant[1]).abs() <= 1e-10 * (outer[:, 1].abs() + c[0] / (gamma - 1)))[fan].all()
        c = (gamma * within[:, 2] / within[:, 0]).sqrt()
        assert ((within[:, 1] - sign * c - middle).abs() <= 1e-10 * (middle.abs() + c + outer[:, 1].abs()))[fan].all()
        kinds |= {bool(shock.any()), not bool(fan.any())}
    assert kinds == {True, False}  # there were shocks and there were rarefactions
    full = ~solution.vacuum
    assert torch.allclose(solution.star_left[full, 1:], solution.star_right[full, 1:], rtol=1e-9)


def test_solutions_do_not_depend_on_the_frame_nor_on_the_company() -> None:
    left, right = random_gas(50, 3), random_gas(50, 4)
    xi = torch.linspace(-8, 8, 61, dtype=torch.float64)
    still = gas_riemann(left, right, 1.4).at(xi)
    boost = torch.tensor([0.0, 3.7, 0.0], dtype=torch.float64)
    assert torch.allclose(gas_riemann(left + boost, right + boost, 1.4).at(xi + 3.7), still + boost[:, None], rtol=1e-9, atol=1e-9)
    flip = torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64)
    assert torch.allclose(gas_riemann(right * flip, left * flip, 1.4).at(-xi), still * flip[:, None], rtol=1e-12, atol=1e-12)
    assert torch.allclose(gas_riemann(left[7:8], right[7:8], 1.4).at(xi), still[7:8], rtol=1e-13, atol=1e-13)


def test_a_vacuum_opens_where_the_states_draw_apart() -> None:
    r"""Just where $u_R - u_L \ge 2(c_L + c_R)/(\gamma - 1)$, with fronts $u \pm 2c/(\gamma-1)$ (Toro 2009, section 4.6)."""
    c = math.sqrt(1.4)
    apart = 10 * c / 2
    closed, opened = (gas_riemann(state(1.0, -s * apart, 1.0), state(1.0, s * apart, 1.0), 1.4) for s in (0.999, 1.001))
    assert not closed.vacuum
    assert 0 < closed.star_left[0, 0] < 1e-10
    assert opened.vacuum
    front = 1.001 * apart - 5 * c
    assert opened.speeds[0].tolist() == pytest.approx([-1.001 * apart - c, -front, front, 1.001 * apart + c])
    w = opened.at(torch.tensor([-front * 1.5, 0.0, front * 1.5], dtype=torch.float64))[0]
    assert (w[:, 1] == 0).all()
    assert (w[0, [0, 2]] > 0).all()
    empty = gas_riemann(state(1.0, 0.3, 1.0), state(0.0, 0.0, 0.0), 1.4)
    w = empty.at(torch.tensor([-3.0, 0.3 + 4.9 * c, 0.3 + 5.1 * c], dtype=torch.float64))[0]
    assert w[:, 0].tolist() == [1.0, 0.3, 1.0]
    assert 0 < w[0, 1] < 1e-6
    assert (w[:, 2] == 0).all()


@pytest.mark.parametrize(
    ("deep", "shallow", "height", "velocity", "shock"),
    [(1.0, 0.125, 0.428755, 0.690412, 0.974527), (2.0, 1.0, 1.453841, 0.416921, 1.335570), (3.0, 1.0, 1.848577, 0.744854, 1.622623)],
)
def test_dam_breaks_have_stokers_middle_states(
    deep: float, shallow: float, height: float, velocity: float, shock: float, figure: Figure
) -> None:
    solution = water_riemann(state(deep, 0.0), state(shallow, 0.0), 1.0)
    assert solution.star_left[0].tolist() == pytest.approx([height, velocity], abs=6e-7)
    assert solution.speeds[0, 3].item() == pytest.approx(shock, abs=6e-7)
    found = *solution.star_left[0], solution.speeds[0, 3]
    for quantity, value, known in zip(("h*", "u*", "speed of the shock"), found, (height, velocity, shock), strict=True):
        figure(
            "shallow-water-1d",
            f"exact solution, depths {deep:g} and {shallow:g}: {quantity}",
            value,
            "Stoker (1957), g = 1",
            reference=known,
        )


def test_water_on_a_dry_bed_is_ritters_parabola(figure: Figure) -> None:
    r"""$h = (2c - \xi)^2/9g$, $u = \frac23(c + \xi)$ between $-c$ and $2c$."""
    g, h = 9.81, 2.0
    c = math.sqrt(g * h)
    xi = torch.linspace(-0.99, 1.99, 20, dtype=torch.float64) * c
    w = water_riemann(state(h, 0.0), state(0.0, 0.0), g).at(xi)[0]
    assert torch.allclose(w[0], (2 * c - xi).square() / (9 * g))
    error = (w[0] - (2 * c - xi).square() / (9 * g)).abs().max()
    figure("shallow-water-1d", "exact solution, dry bed: largest error of the depth", error, "exact: Ritter's parabola")
    assert torch.allclose(w[1], 2 / 3 * (c + xi))


def test_water_waves_obey_jump_conditions_or_invariants() -> None:
    unit = torch.rand(300, 4, generator=generator(5, 0), dtype=torch.float64)
    left, right = (torch.stack([10 ** (3 * unit[:, i] - 2), 4 * unit[:, i + 1] - 2], dim=1) for i in (0, 2))
    g = 2.0
    solution = water_riemann(left, right, g)
    (h, u), (h1, u1), s = left.unbind(1), solution.star_left.unbind(1), solution.speeds[:, 0]
    full = ~solution.vacuum
    shock = full & (h1 > h)
    fan = full & ~shock
    assert shock.any()
    assert fan.any()
    assert torch.allclose((h1 * u1 - h * u)[shock], (s * (h1 - h))[shock])
    momentum = h1 * u1**2 + g / 2 * h1**2 - h * u**2 - g / 2 * h**2
    assert torch.allclose(momentum[shock], (s * (h1 * u1 - h * u))[shock])
    assert torch.allclose((u + 2 * (g * h).sqrt())[fan], (u1 + 2 * (g * h1).sqrt())[fan])


# --- fluxes and limiters -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flux", ["hllc", "hll"])
def test_fluxes_are_consistent_upwind_and_blind_to_direction(flux: str) -> None:
    gas = IdealGas(1.4, 2, flux)
    w = torch.cat([random_gas(64, 6, speed=1)[:, :2], random_gas(64, 7, speed=1)[:, 1:]], dim=1)[..., None, None]
    other = w.roll(1, 0)
    for axis in (0, 1):
        assert torch.allclose(gas.faces(w, w, axis)[0], gas.flux_of(w, gas.conserved(w), axis), rtol=1e-13, atol=1e-13)
    fast = w.clone()
    fast[:, 1] = 1e3
    fast_other = fast.roll(1, 0)
    assert torch.allclose(gas.faces(fast, fast_other, 0)[0], gas.flux_of(fast, gas.conserved(fast), 0), rtol=1e-12)
    swap = [0, 2, 1, 3]
    assert torch.equal(gas.faces(w[:, swap], other[:, swap], 1)[0], gas.faces(w, other, 0)[0][:, swap])
    flip = torch.tensor([1.0, -1.0, 1.0, 1.0], dtype=torch.float64)[:, None, None]
    mirrored = gas.faces(other * flip, w * flip, 0)[0]
    assert torch.equal(mirrored, -flip * gas.faces(w, other, 0)[0])
    wall = gas.faces(w, w * flip, 0)[0]
    assert (wall[:, [0, 2, 3]] == 0).all()  # nothing passes a wall


def test_the_contact_is_kept_by_hllc_alone() -> None:
    contact, shear = state(1.0, 0.0, 3.0, 2.0)[..., None, None], state(0.2, 0.0, -1.0, 2.0)[..., None, None]
    still = torch.tensor([0.0, 2.0, 0.0, 0.0], dtype=torch.float64)[None, :, None, None]
    assert torch.allclose(IdealGas(1.4, 2, "hllc").faces(contact, shear, 0)[0], still, rtol=0, atol=1e-15)
    assert (IdealGas(1.4, 2, "hll").faces(contact, shear, 0)[0] - still).abs().max() > 0.1


@pytest.mark.parametrize("name", LIMITERS)
def test_limiters_are_symmetric_homogeneous_and_total_variation_diminishing(name: str) -> None:
    a, b = torch.randn(2, 500, generator=generator(8, 0), dtype=torch.float64)
    limiter = LIMITERS[name]
    slope = limiter(a, b)
    assert torch.equal(slope, limiter(b, a))
    assert torch.allclose(limiter(-3 * a, -3 * b), -3 * slope)
    assert (slope[a * b <= 0] == 0).all()
    assert (slope * a >= 0).all()
    assert (slope.abs() <= 2 * torch.minimum(a.abs(), b.abs()) * (1 + 1e-15)).all()
    if name != "constant":
        assert torch.allclose(limiter(a, a), a)  # exact on straight lines: second order
        assert (slope.abs()[a * b > 0] >= torch.minimum(a.abs(), b.abs())[a * b > 0] * (1 - 1e-15)).all()


def test_limited_slopes_leave_a_positive_rest_of_each_average() -> None:
    r"""$(U - \alpha(U_- + U_+))/(1 - 2\alpha)$ has the density of the cell and positive pressure, computed from the face values."""
    gas = IdealGas(1.4, 2)
    w = torch.cat([random_gas(2000, 9, speed=30), random_gas(2000, 10, speed=30)[:, 1:]], dim=1)[:, [0, 1, 3, 4], None, None]
    slope = torch.randn(w.shape, generator=generator(11, 0), dtype=torch.float64) * 20
    for channel in (0, 3):
        slope[:, channel] = slope[:, channel].clamp(-2, 2) * w[:, channel] * 0.99

    def rest(slope: Tensor) -> Tensor:
        faces = gas.conserved(w - slope / 2) + gas.conserved(w + slope / 2)
        return gas.primitive((gas.conserved(w) - SHARE * faces) / (1 - 2 * SHARE))

    limited = gas.limit(w, slope)
    assert (rest(slope)[:, 3] < 0).any()
    assert (rest(limited)[:, 3] > -1e-9 * w[:, 3]).all()
    assert torch.allclose(rest(limited)[:, 0], w[:, 0])
    touched = (limited != slope).flatten(1).any(1)
    assert (rest(slope)[touched, 3] < 0.02 * w[touched, 3] + 1e-9).all()  # none is limited without need
    assert torch.equal(limited[:, [0, 3]], slope[:, [0, 3]])


# --- finite volumes ----------------------------------------------------------------------------------------------------------------


def shock_tube_error(name: str, points: int) -> float:
    r"""$\|\rho - \rho_{\rm exact}\|_1$ of the preset at its time."""
    problem = Euler1D.preset(name, points=points, times=2)
    drawn = problem.draw(1)
    exact = problem.exact(drawn.parameters)
    return (drawn.u - exact)[0, 0, -1].abs().mean().item()


@pytest.mark.parametrize(("name", "jump"), [("sod", 1.0), ("lax", 1.0), ("toro1", 1.0), ("toro2", 1.0), ("toro3", 6.0), ("toro5", 6.0)])
def test_shock_tubes_converge_to_the_exact_solution(name: str, jump: float, figure: Figure) -> None:
    """At nearly the first order that jumps allow, with one or two cells' worth of error."""
    coarse, fine = shock_tube_error(name, 50), shock_tube_error(name, 100)
    assert fine < 0.025 * jump
    assert order(coarse, fine) > 0.6
    for points, error in ((50, coarse), (100, fine)):
        figure("euler-1d", f"{name}, {points} cells: mean error of the density", error, "exact solution")


def test_sod_is_as_good_as_another_codes(real_data: Path, figure: Figure) -> None:
    """The same 128 cells in pyro2's file (Colella's corner transport upwind): error 3.9e-3."""
    theirs = pde_datasets.open(real_data / "pyro2" / "sod_x_0076.h5").u[0, 0, :, 0]
    problem = Euler1D.preset("sod", points=128, times=2)
    drawn = problem.draw(1)
    exact = problem.exact(drawn.parameters)[0, 0, -1]
    ours = (drawn.u[0, 0, -1] - exact).abs().mean().item()
    assert (theirs - exact).abs().mean().item() == pytest.approx(3.9e-3, rel=0.02)
    assert ours < 3.9e-3
    figure("euler-1d", "sod, 128 cells: mean error of the density", ours, "pyro2's corner transport upwind, 128 cells", reference=3.9e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", SHOCK_TUBES)
def test_shock_tubes_go_on_converging(name: str, figure: Figure) -> None:
    coarse, fine = shock_tube_error(name, 200), shock_tube_error(name, 400)
    assert order(coarse, fine) > 0.7
    for points, error in ((200, coarse), (400, fine)):
        figure("euler-1d", f"{name}, {points} cells: mean error of the density", error, "exact solution")


@pytest.mark.parametrize("limiter", ["minmod", "van-leer", "van-albada", "mc"])
def test_a_smooth_wave_converges_at_second_order(limiter: str, figure: Figure) -> None:
    """An entropy wave carried once around; clipped extrema cost a little. Superbee would make steps of it."""
    errors = []
    for points in (32, 64):
        grid, gas = box(points, periodic=True), IdealGas(1.4, 1)
        x = grid.axes[0].positions()
        w = torch.stack([1 + 0.3 * torch.sin(2 * math.pi * x), torch.ones_like(x), torch.full_like(x, 0.1)])[None]
        u, _ = FiniteVolume(grid, ("periodic",), limiter).advance(gas, gas.conserved(w), 1.0)
        assert torch.allclose(gas.primitive(u)[:, 1:], w[:, 1:], rtol=0, atol=1e-13)
        errors.append((u - gas.conserved(w))[:, 0].abs().mean().item())
    assert order(*errors) > (1.5 if limiter == "minmod" else 1.7)
    figure("euler-1d", f"entropy wave, limiter {limiter}: order", order(*errors), "exact; limiters clip extrema", reference=2)


@pytest.mark.parametrize("integrator", INTEGRATORS)
def test_time_steps_have_their_order(integrator: str, figure: Figure) -> None:
    """The same space discretisation, steps halved, against steps sixteen times shorter."""
    grid, gas = box(16, periodic=True), IdealGas(1.4, 1)
    x = grid.axes[0].positions()
    w = torch.stack([2 + 0.1 * torch.sin(2 * math.pi * x), torch.full_like(x, 3.0), torch.full_like(x, 4.0)])[None]
    ends = {}
    for steps in (16, 32, 256):
        # The limiter of van Albada is the smooth one; the flow is supersonic, so that the flux is smooth, too.
        solver, u = FiniteVolume(grid, ("periodic",), "van-albada", integrator), gas.conserved(w)
        for _ in range(steps):
            u, _, fine = solver.step(gas, u, torch.tensor([0.05 / steps], dtype=torch.float64))
            assert fine.all()
        ends[steps] = u
    errors = [(ends[steps] - ends[256]).abs().max().item() for steps in (16, 32)]
    assert order(*errors) > {"ssp-rk2": 1.8, "ssp-rk3": 2.6}[integrator]
    figure("finite volumes", f"{integrator}: order in time", order(*errors), "steps 8 times shorter", reference=int(integrator[-1]))


def vortex(x: Tensor, y: Tensor) -> Tensor:
    """Density, velocities, pressure of Shu's isentropic vortex, strength 5, in a flow of speed (1, 1)."""
    gamma, square = 1.4, x**2 + y**2
    swirl = 5 / (2 * math.pi) * torch.exp((1 - square) / 2)
    rho = (1 - (gamma - 1) / (2 * gamma) * swirl**2) ** (1 / (gamma - 1))
    return torch.stack([rho, 1 - swirl * y, 1 + swirl * x, rho**gamma])[None]


def vortex_error(points: int, limiter: str = "mc") -> float:
    grid, gas = box(points, 10.0, -5.0, axes=2, periodic=True), IdealGas(1.4, 2)
    x, y = grid.mesh()
    u, _ = FiniteVolume(grid, ("periodic",) * 2, limiter).advance(gas, gas.conserved(vortex(x, y)), 1.0)
    return (gas.primitive(u) - vortex(x - 1, y - 1))[:, 0].abs().mean().item()


def test_the_isentropic_vortex_converges_at_second_order(figure: Figure) -> None:
    errors = [vortex_error(points) for points in (24, 48)]
    assert order(*errors) > 1.9
    assert errors[1] < 1e-3
    figure("euler-2d", "isentropic vortex, 24 to 48 cells: order", order(*errors), "exact: carried along", reference=2)
    figure("euler-2d", "isentropic vortex, 48 cells, t = 1: mean error of the density", errors[1], "exact: carried along")


@pytest.mark.slow
@pytest.mark.parametrize("limiter", ["mc", "van-leer"])
def test_the_isentropic_vortex_goes_on_converging(limiter: str, figure: Figure) -> None:
    errors = [vortex_error(points, limiter) for points in (64, 128)]
    assert order(*errors) > 2.0
    assert errors[1] < 1e-4
    figure("euler-2d", f"isentropic vortex, {limiter}, 64 to 128 cells: order", order(*errors), "exact: carried along", reference=2)
    figure("euler-2d", f"isentropic vortex, {limiter}, 128 cells, t = 1: mean error of the density", errors[1], "exact: carried along")


def test_an_acoustic_pulse_agrees_with_a_fourth_order_code(real_data: Path, figure: Figure) -> None:
    """pyro2's fourth-order solver at 128 x 128 (McCorquodale & Colella 2011), averaged to our 32 and 64: differences of second order."""
    theirs = pde_datasets.open(real_data / "pyro2" / "acoustic_pulse_0160.h5")
    errors = []
    for points in (32, 64):
        grid, gas = box(points, axes=2, periodic=True), IdealGas(1.4, 2)
        x, y = grid.mesh()
        r = ((x - 0.5) ** 2 + (y - 0.5) ** 2).sqrt()
        rho = 1.4 + torch.where(r <= 0.5, 0.14 * torch.exp(-16 * r**2) * torch.cos(math.pi * r) ** 6, 0.0)
        w = torch.stack([rho, torch.zeros_like(rho), torch.zeros_like(rho), (rho / 1.4) ** 1.4])[None]
        u, _ = FiniteVolume(grid, ("periodic",) * 2).advance(gas, gas.conserved(w), 0.24)
        k = 128 // points
        averaged = theirs.u[0, theirs.channel("density")].reshape(points, k, points, k).mean((1, 3))
        errors.append((u[0, 0] - averaged).abs().mean().item())
    assert order(*errors) > 1.8
    assert errors[1] < 2e-4
    figure("euler-2d", "acoustic pulse, 32 to 64 cells: order", order(*errors), "pyro2's fourth-order solver, 128 cells", reference=2)
    figure("euler-2d", "acoustic pulse, 64 cells: mean difference of the density", errors[1], "pyro2's fourth-order solver, 128 cells")


def test_a_point_explosion_follows_sedov(figure: Figure) -> None:
    """In a quarter plane with mirrors, energy 0.311357: the cylindrical shock is at 0.75 at time 1 (Kamm & Timmes 2007), within a cell."""
    points = 32
    grid, gas = box(points, axes=2), IdealGas(1.4, 2)
    w = torch.zeros(1, 4, points, points, dtype=torch.float64)
    w[:, 0], w[:, 3] = 1.0, 1e-6
    u = gas.conserved(w)
    u[:, 3, :2, :2] += 0.311357 / 4 / (4 / points**2)
    later, received = FiniteVolume(grid, ("walls",) * 2).advance(gas, u, 1.0)
    rho = later[0, 0]
    x, y = grid.mesh()
    diagonal, along = (x.square() + y.square()).sqrt().diagonal(), x[:, 0]
    for way, radius, line in (("along x", along, rho[:, 0]), ("along the diagonal", diagonal, rho.diagonal())):
        assert radius[(line > 2).nonzero().max()].item() == pytest.approx(0.75, abs=1.0 / points)
        front = radius[(line > 2).nonzero().max()]
        figure("euler-2d", f"point explosion, 32 cells: radius of the shock {way}", front, "Kamm & Timmes (2007)", reference=0.75)
    assert 3 < rho.max() < 6  # behind the strongest shock (gamma + 1)/(gamma - 1) = 6, less by the width of the shell
    assert torch.equal(rho, rho.T)
    assert torch.equal(later[:, 1], later[:, 2].mT)
    assert (received[:, [0, 3]] == 0).all()
    assert torch.allclose((later - u).sum((2, 3)) / points**2, received, rtol=0, atol=1e-14)


@pytest.mark.parametrize("speed", [2.0, 20.0])
@pytest.mark.parametrize("cfl", [0.4, 1.0])
def test_states_stay_positive_next_to_vacuum(speed: float, cfl: float) -> None:
    """Toro's second test, and one in which a vacuum opens; with too long steps, too, which are then halved."""
    grid, gas = box(100), IdealGas(1.4, 1)
    x, time = grid.axes[0].positions(), 0.3 / speed
    left, right = state(1.0, -speed, 0.4), state(1.0, speed, 0.4)
    w = torch.where((x < 0.5)[None, None], left[..., None], right[..., None])
    u, received = FiniteVolume(grid, ("outflow",), "superbee", cfl=cfl).advance(gas, gas.conserved(w), time)
    later = gas.primitive(u)
    assert torch.isfinite(u).all()
    assert (later[:, [0, 2]] > 0).all()
    solution = gas_riemann(left, right, 1.4)
    assert bool(solution.vacuum) == (speed > 10)
    assert (later - solution.at((x - 0.5) / time))[0, 0].abs().mean() < 0.04
    assert torch.allclose((u - gas.conserved(w)).sum(2) / 100, received, rtol=1e-11, atol=1e-11)


def test_an_unphysical_start_is_refused() -> None:
    grid, gas = box(8), IdealGas(1.4, 1)
    u = torch.ones(2, 3, 8, dtype=torch.float64)
    u[1, 2, 3] = -1.0
    with pytest.raises(ArithmeticError, match="unphysical"):
        FiniteVolume(grid, ("outflow",)).advance(gas, u, 1.0)


@pytest.mark.slow
def test_four_shocks_meet_as_in_another_code(real_data: Path, figure: Figure) -> None:
    """The two-dimensional Riemann problem of pyro2's file, symmetric about the diagonal, at an eighth and a quarter of its resolution."""
    theirs = pde_datasets.open(real_data / "pyro2" / "quad_unsplit_0606.h5")
    gas = IdealGas(1.4, 2)
    shocked, fast = (0.532258064516129, 0.3), 1.206045378311055
    errors = []
    for points in (32, 64):
        grid = box(points, axes=2)
        upper = [1.0 - below(axis, torch.tensor([0.8], dtype=torch.float64))[0] for axis in grid.axes]
        u = torch.zeros(1, 4, points, points, dtype=torch.float64)
        for right, top, (rho, p) in ((1, 1, (1.4, 1.5)), (0, 1, shocked), (0, 0, (0.137992831541219, 0.029032258064516)), (1, 0, shocked)):
            corner = gas.conserved(state(rho, fast * (1 - right), fast * (1 - top), p)[..., None, None])
            x, y = (part if side else 1 - part for part, side in zip(upper, (right, top), strict=True))
            u = u + corner * x[:, None] * y
        u, _ = FiniteVolume(grid, ("outflow",) * 2).advance(gas, u, 0.8)
        assert torch.allclose(u[:, 0], u[:, 0].mT, rtol=0, atol=1e-10)
        assert torch.allclose(u[:, 1], u[:, 2].mT, rtol=0, atol=1e-10)
        averaged = theirs.u[0, theirs.channel("density")].reshape(points, 256 // points, points, 256 // points).mean((1, 3))
        errors.append(((u[0, 0] - averaged).abs().mean() / averaged.mean()).item())
    assert errors[1] < 0.05
    figure("euler-2d", "four shocks, 64 cells: mean difference of the density, relative", errors[1], "pyro2's unsplit scheme, 256 cells")
    assert errors[1] < 0.75 * errors[0]


def test_turning_the_plane_turns_the_solution(figure: Figure) -> None:
    """By a quarter: $(x, y) \\to (y, -x)$; to round-off."""
    problem = Euler2D(points=16, times=2, duration=0.1, case="quadrants", boundary="outflow")
    parameters = {name: values for name, values in problem.draw(3, seed=4).parameters.items() if name != "received"}
    gas, solver = problem.system(parameters), problem.solver
    start = problem.start(parameters)
    assert start is not None

    def turned(u: Tensor) -> Tensor:
        rho, mx, my, energy = u.unbind(1)
        return torch.stack([rho, my, -mx, energy], dim=1).rot90(-1, (2, 3))

    once = turned(solver.advance(gas, start, 0.1)[0])
    assert torch.allclose(solver.advance(gas, turned(start), 0.1)[0], once, rtol=1e-11, atol=1e-11)
    error = (solver.advance(gas, turned(start), 0.1)[0] - once).abs().max()
    figure("euler-2d", "quadrants turned by a quarter: largest difference", error, "symmetry")


# --- shallow water -----------------------------------------------------------------------------------------------------------------


def test_the_dam_break_is_about_as_good_as_another_codes(real_data: Path, figure: Figure) -> None:
    """The same 128 cells in pyro2's file, half as many steps of a one-step scheme: error 2.2e-3; ours is a quarter larger."""
    theirs = pde_datasets.open(real_data / "pyro2" / "dam_x_0081.h5").u[0, 0, :, 0]
    problem = ShallowWater1D.preset("pyro2", times=2)
    drawn = problem.draw(1)
    exact = problem.exact(drawn.parameters)[0, 0, -1]
    assert (theirs - exact).abs().mean().item() == pytest.approx(2.2e-3, rel=0.05)
    ours = (drawn.u[0, 0, -1] - exact).abs().mean().item()
    assert ours < 1.3 * 2.2e-3
    figure(
        "shallow-water-1d",
        "depths 1 and 0.125, 128 cells: mean error of the depth",
        ours,
        "pyro2's one-step scheme, 128 cells",
        reference=2.2e-3,
    )
    finer = ShallowWater1D.preset("pyro2", times=2, points=256)
    again = finer.draw(1)
    assert order(ours, (again.u - finer.exact(again.parameters))[0, 0, -1].abs().mean().item()) > 0.8


def test_water_runs_over_a_dry_bed(figure: Figure) -> None:
    problem = ShallowWater1D(points=200, times=2, duration=0.15, inner=(1.0, 1.0), outer=(0.0, 0.0), dam=(-0.1, -0.1))
    drawn = problem.draw(1)
    assert (drawn.u[:, 0] >= 0).all()
    assert (drawn.u - problem.exact(drawn.parameters))[0, 0, -1].abs().mean() < 2e-3
    error = (drawn.u - problem.exact(drawn.parameters))[0, 0, -1].abs().mean()
    figure("shallow-water-1d", "dry bed, 200 cells: mean error of the depth", error, "exact: Ritter")


@pytest.mark.parametrize(("axes", "boundary"), [*product((1, 2), ("walls", "outflow", "periodic"))])
@pytest.mark.parametrize("hill", [0.8, 1.7], ids=["under water", "island"])
def test_a_lake_stays_at_rest(axes: int, boundary: str, hill: float, figure: Figure) -> None:
    """To round-off, around an island with dry shores as well."""
    grid = box(40 if axes == 1 else 20, 1.0, -0.5, axes=axes, periodic=boundary == "periodic")
    bottom = hill * torch.exp(-sum((x / 0.15).square() for x in grid.mesh()))  # type: ignore[union-attr]
    height = (1.0 - bottom).clamp_min(0)
    u = torch.stack([height, *[torch.zeros_like(height)] * axes])[None]
    later, _ = FiniteVolume(grid, (boundary,) * axes).advance(ShallowWater(9.81, bottom[None]), u, 0.2)
    assert (later - u).abs().max() < 1e-14 * 9.81
    if boundary == "walls":
        name = f"lake at rest around {'an island' if hill > 1 else 'a hill'}: largest change"
        figure(f"shallow-water-{axes}d", name, (later - u).abs().max(), "exact: at rest")
    assert ((height == 0).any().item()) == (hill > 1)


def test_steady_flow_over_a_bottom_converges_at_second_order(figure: Figure) -> None:
    r"""$hu$ and $\frac12u^2 + g(h + b)$ constant: any imbalance of the source would show."""
    errors = []
    for points in (32, 64):
        grid = box(points, periodic=True)
        x = grid.axes[0].positions()
        bottom, flow, head = 0.2 * torch.sin(math.pi * x) ** 2, 0.4, 1.2
        h = torch.ones_like(x)
        for _ in range(50):
            h = h - (flow**2 / (2 * h**2) + h + bottom - head) / (1 - flow**2 / h**3)
        u = torch.stack([h, torch.full_like(h, flow)])[None]
        later, _ = FiniteVolume(grid, ("periodic",)).advance(ShallowWater(1.0, bottom[None]), u, 1.0)
        errors.append((later - u).abs().mean().item())
    assert order(*errors) > 1.8
    assert errors[1] < 5e-4
    figure("shallow-water-1d", "steady flow over a bottom: order", order(*errors), "exact: hu, u^2/2 + g(h + b) constant", reference=2)


@pytest.mark.parametrize("flux", ["hllc", "hll"])
def test_a_round_dam_breaks_the_same_way_in_all_directions(flux: str) -> None:
    drawn = ShallowWater2D(points=24, times=3, duration=0.5, flux=flux).draw(2, seed=2)
    h, mx, my = drawn.u.unbind(1)
    assert torch.equal(h, h.mT)
    assert torch.equal(mx, my.mT)
    assert torch.allclose(h, h.flip(2), rtol=0, atol=1e-14)
    assert torch.allclose(mx, -mx.flip(2), rtol=0, atol=1e-14)


# --- problems ----------------------------------------------------------------------------------------------------------------------

GASES = [
    *(Euler1D(points=16, times=4, case=case, boundary=boundary) for case, boundary in product(("riemann", "rand"), ("outflow", "walls"))),
    *(
        Euler2D(points=10, times=3, duration=0.05, case=case, boundary=boundary)
        for case, boundary in product(Euler2D.cases(), ("outflow", "walls", "periodic"))
    ),
]
WATERS = [
    *(ShallowWater1D(points=16, times=4, hill=hill, boundary=b) for hill, b in product((0.0, 0.3), ("outflow", "walls", "periodic"))),
    *(ShallowWater2D(points=10, times=3, length=2.0, hill=1.2, boundary=boundary) for boundary in ("outflow", "walls", "periodic")),
]


@pytest.mark.parametrize("problem", [*GASES, *WATERS], ids=lambda p: f"{p.name} {getattr(p, 'case', '')} {p.boundary}")
def test_every_balance_closes(problem: Hyperbolic) -> None:
    """Contents computed here, from cell volumes alone; what cannot change does not; densities are positive."""
    drawn = problem.draw(3, seed=5)
    cell = (problem.length / problem.points) ** problem.dimension
    contents = cell * drawn.u.flatten(3).sum(3)
    size = cell * drawn.u.abs().flatten(3).sum(3).amax(2, keepdim=True) + drawn.parameters["received"].abs()
    assert ((torch.diff(contents, dim=2) - drawn.parameters["received"]).abs() <= 1e-13 * size).all()
    for i, channel in enumerate(problem.channels):
        if channel in problem.conserved:
            assert ((contents[:, i] - contents[:, i, :1]).abs() <= 1e-13 * size[:, i, :1]).all()
    if problem.boundary == "outflow" and problem.name.startswith("euler"):
        assert (drawn.parameters["received"].abs() > 1e-6).any()
    assert (drawn.u[:, 0] >= 0).all()
    if isinstance(problem, (Euler1D, Euler2D)):
        gas = IdealGas(drawn.parameters["gamma"], problem.dimension)
        assert gas.admissible(drawn.u.flatten(2, 3)).all()


@pytest.mark.parametrize("problem", [GASES[0], GASES[4], GASES[7], WATERS[1], WATERS[-1]], ids=lambda p: p.name)
def test_a_sample_is_the_same_to_the_last_bit_in_any_company(problem: Hyperbolic) -> None:
    whole = problem.draw(5, seed=6)
    for i in range(5):
        alone = problem.draw(1, seed=6, start=i)
        assert torch.equal(alone.u, whole.u[i : i + 1])


def test_initial_states_are_exact_cell_averages() -> None:
    axis = Axis("x", 4, length=1.0, origin=0.125, cells=True)
    assert below(axis, torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64)).tolist() == [
        pytest.approx([1.0, 0.2, 0.0, 0.0]), [0.0] * 4, [1.0] * 4,
    ]  # fmt: skip
    problem = Euler2D(points=10, times=2, duration=0.01, case="quadrants", gamma=(1.3, 1.6))
    drawn = problem.draw(4, seed=1)
    states, split = drawn.parameters["states"], drawn.parameters["split"]
    u = IdealGas(drawn.parameters["gamma"], 2).conserved(states.movedim(-1, 1))
    areas = torch.stack([split, 1 - split], dim=2)
    expected = torch.einsum("bcij,bi,bj->bc", u, areas[:, 0], areas[:, 1])
    assert torch.allclose(drawn.u[:, :, 0].mean((2, 3)), expected, rtol=1e-12)
    assert torch.equal(drawn.u[:, :, 0, 0, 0], u[:, :, 0, 0])
    assert torch.equal(drawn.u[:, :, 0, -1, 0], u[:, :, 1, 0])
    assert set(drawn.parameters["gamma"].tolist()) <= {1.3, 1.6}


def test_random_waves_have_the_mach_number_and_the_size_they_say() -> None:
    """PDEBench's distribution: mean speed over mean speed of sound where there is no window, perturbations of 1 to 20 % in the mean."""
    problem = Euler2D(points=32, times=2, duration=1e-3, mach=0.4, density=(2.0, 2.0), temperature=(3.0, 3.0))
    start = problem.draw(12, seed=0).u[:, :, 0]
    w = IdealGas(1.4, 2).primitive(start)
    mach = w[:, 1:3].square().sum(1).sqrt().mean((1, 2)) / math.sqrt(1.4 * 3.0)
    full = (mach / 0.4 - 1).abs() < 1e-12
    assert full.any()
    assert (mach[~full] < 0.39).all()
    size = (w[:, [0, 3]] / torch.tensor([2.0, 6.0], dtype=torch.float64)[:, None, None] - 1).abs().mean((2, 3))
    assert ((size[full] >= 0.01) & (size[full] <= 0.2)).all()
    assert w[:, [0, 3]].min() > 0


def test_a_shear_layer_grows_as_linear_theory_says(figure: Figure) -> None:
    r"""$u = \tanh(y/a)$, incompressible: rate $0.1897/a$ at $ka = 0.4446$ (Michalke, J. Fluid Mech. 19 (1964) 543); Mach number 0.3."""
    grid, gas = box(32, axes=2, periodic=True), IdealGas(1.4, 2)
    x, y = grid.mesh()
    width = 0.4446 / (2 * math.pi)
    s = torch.tanh((y - 0.25) / width) - torch.tanh((y - 0.75) / width)
    near = torch.exp(-(((y - 0.25) / 0.1) ** 2)) + torch.exp(-(((y - 0.75) / 0.1) ** 2))
    pressure = torch.full_like(x, 1 / (1.4 * 0.3**2))
    w = torch.stack([torch.ones_like(x), s - 1, 1e-5 * torch.sin(2 * math.pi * x) * near, pressure])[None]
    u, solver, energy = gas.conserved(w), FiniteVolume(grid, ("periodic",) * 2), []
    for duration in (1.0, 0.5):
        u, _ = solver.advance(gas, u, duration)
        energy.append((u[:, 2].square() / u[:, 0]).mean().item())
    assert math.log(energy[1] / energy[0]) / 2 / 0.5 * width == pytest.approx(0.1897, rel=0.03)
    rate = math.log(energy[1] / energy[0]) / 2 / 0.5 * width
    figure("euler-2d", "shear layer, 32 cells, Mach 0.3: rate of growth", rate, "Michalke (1964), incompressible", reference=0.1897)


def test_presets_are_the_published_boxes() -> None:
    dam = ShallowWater2D.preset("pdebench").grid
    assert dam.shape == (101, 128, 128)
    assert dam.axes[1].positions()[[0, -1]].tolist() == pytest.approx([-2.5 + 2.5 / 128, 2.5 - 2.5 / 128])
    well = Euler2D.preset("the-well-open")
    assert well.grid.shape == (101, 512, 512)
    assert well.grid.axes[0].spacing == pytest.approx(0.015)
    assert not well.grid.axes[1].periodic
    assert Euler2D.preset("the-well-periodic").grid.axes[1].periodic
    assert Euler1D.preset("pdebench-rand").grid.axes[0].spacing == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("build", "settings", "match"),
    [
        (Euler1D, {"case": "quadrants"}, "case out of riemann"),
        (Euler1D, {"boundary": "open"}, "boundary out of periodic, outflow, walls"),
        (Euler1D, {"limiter": "weno"}, "limiter expects one of"),
        (Euler1D, {"integrator": "rk4"}, "integrator expects one of"),
        (Euler2D, {"flux": "roe"}, "flux out of hllc, hll"),
        (Euler2D, {"cfl": 1.5}, "cfl expects a number"),
        (Euler2D, {"times": 1}, "at least two times"),
        (Euler2D, {"duration": 0.0}, "duration"),
        (Euler2D, {"points": 1}, "at least two cells"),
        (Euler2D, {"gamma": ()}, "above 1"),
        (Euler2D, {"gamma": (1.0,)}, "above 1"),
        (Euler2D, {"density": (0.0, 1.0)}, "density as a range"),
        (Euler2D, {"temperature": (2.0, 1.0)}, "temperature as a range"),
        (Euler2D, {"mach": -1.0}, "Mach number"),
        (ShallowWater1D, {"gravity": 0.0}, "gravity above 0"),
        (ShallowWater1D, {"hill": -1.0}, "hill"),
        (ShallowWater1D, {"outer": (-1.0, 1.0)}, "outer as a range .* not below 0"),
        (ShallowWater1D, {"dam": (-0.1, 0.6)}, "dam as a range"),
        (ShallowWater2D, {"radius": (0.0, 1.0)}, "radius as a range .* above 0"),
        (ShallowWater2D, {"flux": "roe"}, "flux out of hllc, hll"),
    ],
)
def test_wrong_settings_are_named(build: type[Hyperbolic], settings: dict[str, object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        build(**settings)  # type: ignore[arg-type]


def test_exact_solutions_know_where_there_are_none() -> None:
    waves, hills = Euler1D(points=8, times=2, case="rand"), ShallowWater1D(points=8, times=2, hill=0.1)
    with pytest.raises(ValueError, match="two constant states"):
        waves.exact(waves.draw(1).parameters)
    with pytest.raises(ValueError, match="flat bottom"):
        hills.exact(hills.draw(1).parameters)


@pytest.mark.parametrize(
    "problem", [Euler1D(points=100, times=5, duration=0.02), ShallowWater1D(points=100, times=5)], ids=lambda p: p.name
)
def test_random_riemann_problems_follow_the_exact_solution(problem: Euler1D | ShallowWater1D) -> None:
    """At every stored time, before the waves reach the ends; at the first but for the cell that is cut."""
    drawn = problem.draw(6, seed=8)
    exact = problem.exact(drawn.parameters)
    scale = exact.abs().amax((2, 3))
    assert ((drawn.u[:, :, 0] != exact[:, :, 0]).sum(-1) <= 1).all()
    assert ((drawn.u - exact).abs().mean(3).amax(2) < 0.02 * scale).all()
