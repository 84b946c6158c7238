"""Spectral problems on periodic boxes against exact solutions, published files, orders of accuracy and statistics."""

from __future__ import annotations

import cmath
import math
import warnings
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.io import loadmat
from torch import Tensor

from constraints import Budget
from constraints.calculus import Spectral
from constraints.calculus.spectral import wavenumbers
from pde_datasets.problem import generator
from pde_datasets.problems import Advection, AllenCahn, Burgers, GrayScott, KortewegDeVries, KuramotoSivashinsky, Schroedinger, Wave
from pde_datasets.problems.burgers import cole_hopf
from pde_datasets.problems.gray_scott import PATTERNS, interpolate
from pde_datasets.random_fields import random_waves, sum_of_waves, wavenumber_magnitude
from pde_datasets.solvers import ETDRK4, refined
from pde_datasets.solvers.invariants import restored
from pde_datasets.solvers.quadratic import quadratic_waves
from pde_datasets.solvers.refined import RefinedETDRK4, halved
from pde_datasets.solvers.resolution import Unresolved
from pde_datasets.solvers.splitting import blanes_moan_4
from tests.conftest import Figure

TAU = 2 * math.pi
FIXED = 1 - 1e-9
"""A tolerance that every step meets: the steps are those asked for."""


def published(path: Path, name: str) -> Tensor:
    """A field of a MATLAB file, turned to (T, X); a skip if this copy of the real files goes without it."""
    if not path.exists():
        pytest.skip(f"{path} not found")
    return torch.from_numpy(np.ascontiguousarray(loadmat(path)[name].T))


def streams(count: int, seed: int = 0) -> list[torch.Generator]:
    return [generator(seed, i) for i in range(count)]


def largest(error: Tensor) -> float:
    return error.abs().max().item()


def rms(error: Tensor) -> float:
    return error.square().mean().sqrt().item()


def orders(errors: list[Tensor]) -> list[float]:
    """Observed orders from the errors of one step size, its half, its quarter, ..."""
    return [math.log2(largest(a) / largest(b)) for a, b in pairwise(errors)]


# --- exponential steps with a complex linear part ----------------------------------------------------------------------------------


def phi(k: int, z: complex) -> complex:
    r"""$\varphi_k(z) = \sum_j z^j/(j+k)!$ in rational arithmetic, real and imaginary part."""
    x, y = Fraction(z.real), Fraction(z.imag)
    power, total = (Fraction(1), Fraction(0)), [Fraction(0), Fraction(0)]
    for j in range(120):
        for part in range(2):
            total[part] += power[part] / math.factorial(j + k)
        power = (power[0] * x - power[1] * y, power[0] * y + power[1] * x)
    return complex(total[0], total[1])


@pytest.mark.parametrize("z", [1e-12j, 1e-3j, -0.3j, 0.999j, 1j, -1.001j, cmath.exp(0.8j), 3j, -18j, -0.5 + 0.6j, -6 + 8j, 0.7 - 2j])
def test_complex_coefficients_are_the_phi_functions(z: complex) -> None:
    dt = 0.3
    stepper = ETDRK4(torch.tensor([z / dt], dtype=torch.complex128), dt)
    z = dt * (z / dt)
    expected = {
        "stage": phi(1, z / 2) / 2,
        "first": phi(1, z) - 3 * phi(2, z) + 4 * phi(3, z),
        "middle": 2 * phi(2, z) - 4 * phi(3, z),
        "last": 4 * phi(3, z) - phi(2, z),
    }
    for name, value in expected.items():
        assert abs(getattr(stepper, name).item() - dt * value) < 1e-14, name
    assert abs(stepper.full.item() - cmath.exp(z)) < 1e-15 * max(1, abs(cmath.exp(z)))


@pytest.mark.parametrize("rate", [5j, -2 + 3j, 0j])
def test_complex_linear_parts_keep_the_fourth_order(rate: complex, figure: Figure) -> None:
    r"""$\dot v = L v + v^2$: $1/v$ obeys a linear equation."""
    start = 0.4 - 0.2j
    reciprocal = 1 / start - 1 if rate == 0 else (1 / start + 1 / rate) * cmath.exp(-rate) - 1 / rate
    errors = []
    for steps in (16, 32, 64):
        v = torch.tensor([start], dtype=torch.complex128)
        *_, last = ETDRK4(torch.tensor([rate]), 1 / steps).states(v, torch.square, 2, steps)
        errors.append(last - 1 / reciprocal)
    assert orders(errors) == pytest.approx([4, 4], abs=0.25)
    assert largest(errors[-1]) < 1e-6
    figure("ETDRK4", f"v' = L v + v^2, complex L = {rate}: order", orders(errors)[-1], "exact: 1/v obeys a linear equation", reference=4)


def test_states_are_steps_apart() -> None:
    stepper, v = ETDRK4(torch.tensor([-1.0]), 0.1), torch.tensor([0.3], dtype=torch.float64)
    states = list(stepper.states(v, torch.sin, 3, 2))
    by_hand = [v]
    for _ in range(4):
        by_hand.append(stepper.step(by_hand[-1], torch.sin))
    assert [s.item() for s in states] == [by_hand[i].item() for i in (0, 2, 4)]


# --- as many steps as accuracy asks for ---------------------------------------------------------------------------------------------


def test_steps_are_halved_where_the_error_asks_for_it() -> None:
    r"""$\dot v = L v + v^2$, a slow and a fast sample, each with its own L: within the tolerance, each in its own steps."""
    rates, starts = torch.tensor([[-1.0], [-8.0]], dtype=torch.float64), torch.tensor([[0.1], [7.9]], dtype=torch.float64)
    exact = 1 / ((1 / starts + 1 / rates) * torch.exp(-rates) - 1 / rates)

    def advance(steps: int, tolerance: float, some: slice = slice(None)) -> Tensor:
        return RefinedETDRK4(rates[some], 1.0, steps, tolerance).advance(starts[some], torch.square)

    coarse, fine = advance(2, FIXED), advance(2, 1e-7)
    assert (coarse[1] / exact[1] - 1).abs() > 1e-3
    assert (fine / exact - 1).abs().max() < 1e-7
    assert torch.equal(fine[:1], advance(2, 1e-7, slice(0, 1)))
    assert torch.equal(fine[1:], advance(2, 1e-7, slice(1, 2)))
    assert torch.equal(advance(512, FIXED), advance(512, 1e-3))  # short enough as they are
    counts: list[int] = []

    def nonlinear(v: Tensor) -> Tensor:
        counts.append(v.shape[0])
        return v.square()

    RefinedETDRK4(rates, 1.0, 2, 1e-7).advance(starts, nonlinear)
    assert counts.count(1) > counts.count(2) > 0  # the fast one goes on alone


def test_no_step_is_short_enough_for_a_blow_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """u = 1/(1 - t) ends at t = 1."""
    monkeypatch.setattr(refined, "MOST", 256)
    with pytest.raises(FloatingPointError, match="no time step is short enough"):
        RefinedETDRK4(torch.zeros(1, dtype=torch.float64), 2.0, 8, 1e-6).advance(torch.ones(1, 1, dtype=torch.float64), torch.square)


def test_halving_stops_when_it_changes_little() -> None:
    """Explicit Euler for v' = -v: the error left is what the last halving changed."""
    taken: list[int] = []

    def euler(v: Tensor, steps: int) -> Tensor:
        taken.append(steps)
        return v * (1 - 1 / steps) ** steps

    start = torch.ones(3, 2, dtype=torch.float64)
    v = halved(euler, start, 4, 1e-3)
    assert taken == [4 * 2**i for i in range(len(taken))]
    assert abs(v[0, 0].item() / math.exp(-1) - 1) < 1e-3


@pytest.mark.parametrize("problem", [Burgers(times=3), Burgers.preset("raissi", times=3, points=512), AllenCahn(times=2)], ids=str)
def test_long_intervals_are_as_accurate_as_short_ones(problem: Burgers | AllenCahn) -> None:
    """The same trajectories stored 32 times as often."""
    often = replace(problem, times=32 * (problem.times - 1) + 1, tolerance=1e-6).draw(2).u[:, :, ::32]
    assert largest(problem.draw(2).u - often) < 2e-4 * largest(often)


def test_states_come_back_to_their_level() -> None:
    """The nearest point of a circle and a plane that meet in two; parallel gradients: the circle alone, when the plane touches it."""

    def invariants(u: Tensor) -> tuple[Tensor, Tensor]:
        plane = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
        return torch.stack([u.square().sum(1), u @ plane], dim=1), torch.stack([2 * u, plane.expand_as(u)], dim=1)

    u = torch.tensor([[0.63, 0.79, 0.02]], dtype=torch.float64)
    found = restored(u, invariants, torch.tensor([[1.0, 0.6]], dtype=torch.float64))
    across = u[:, 1:] / torch.linalg.vector_norm(u[:, 1:]) * 0.8
    assert largest(found - torch.cat([torch.full((1, 1), 0.6, dtype=torch.float64), across], dim=1)) < 1e-15
    touching = torch.tensor([[1.0 + 1e-9, 0.0, 0.0]], dtype=torch.float64)
    assert largest(restored(touching, invariants, torch.tensor([[1.0, 1.0]], dtype=torch.float64)) - touching.round()) < 1e-15


def test_too_few_points_are_warned_of() -> None:
    with pytest.warns(Unresolved, match="64 points along x hold have 3.1e-03"):
        Schroedinger.preset("raissi", points=64, times=5).draw(1)
    with pytest.warns(Unresolved, match="KortewegDeVries: the shortest waves that 48 points"):
        KortewegDeVries.preset("raissi", points=48, times=11, interval=0.05).draw(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Schroedinger.preset("raissi", points=128, times=5).draw(1)
        KortewegDeVries(times=11).draw(4)


# --- splitting ---------------------------------------------------------------------------------------------------------------------


def drift(state: Tensor, time: float) -> Tensor:
    return torch.stack([state[0] + time * state[1], state[1]])


def kick(state: Tensor, time: float) -> Tensor:
    return torch.stack([state[0], state[1] - time * torch.sin(state[0])])


def pendulum(steps: int, start: Tensor) -> Tensor:
    state = start
    for _ in range(steps):
        state = blanes_moan_4(state, 5 / steps, drift, kick)
    return state


def test_splitting_is_of_fourth_order_and_reversible(figure: Figure) -> None:
    """A pendulum against a solver with error control; back again to round-off."""
    start = torch.tensor([1.2, 0.3], dtype=torch.float64)
    exact = solve_ivp(lambda _, y: [y[1], -math.sin(y[0])], (0, 5), start.tolist(), method="DOP853", rtol=1e-13, atol=1e-13).y[:, -1]
    errors = [pendulum(steps, start) - torch.from_numpy(exact) for steps in (10, 20, 40)]
    assert orders(errors) == pytest.approx([4, 4], abs=0.3)
    assert largest(errors[-1]) < 1e-6
    there = blanes_moan_4(start, 0.5, drift, kick)
    assert largest(blanes_moan_4(there, -0.5, drift, kick) - start) < 1e-15
    figure("Blanes-Moan splitting", "pendulum: order", orders(errors)[-1], "SciPy's DOP853 at tolerance 1e-13", reference=4)
    figure(
        "Blanes-Moan splitting",
        "there and back: largest difference",
        largest(blanes_moan_4(there, -0.5, drift, kick) - start),
        "reversible",
    )


# --- waves of initial data ---------------------------------------------------------------------------------------------------------


def test_random_waves_are_uniform() -> None:
    count = 4000
    amplitude, mode, phase = random_waves(streams(count), 3, (2, 5), (-0.5, 1.0))
    for values, low, high in ((amplitude, -0.5, 1.0), (phase, 0.0, TAU)):
        unit = (values - low) / (high - low)
        assert 0 <= unit.min() < 0.01
        assert 0.99 < unit.max() <= 1
        assert (unit.mean(0) - 0.5).abs().max() < 5 * math.sqrt(1 / 12 / count)
    for number in (2, 3, 4, 5):
        assert (mode == number).double().mean().item() == pytest.approx(0.25, abs=5 * math.sqrt(3 / 16 / (3 * count)))
    together = torch.cat([amplitude, mode, phase], dim=1).mT
    assert (torch.corrcoef(together) - torch.eye(9)).abs().max() < 5 / math.sqrt(count)


def test_sum_of_waves() -> None:
    x = torch.linspace(0, 1, 7, dtype=torch.float64)
    values = [torch.tensor(v, dtype=torch.float64) for v in ([[2.0, 1.0], [0.5, 0.0]], [[1.0, 3.0], [2.0, 1.0]], [[0.0, 0.5], [1.0, 0.0]])]
    u = sum_of_waves(x[None], *values)
    assert torch.allclose(u[0], 2 * torch.sin(TAU * x) + torch.sin(3 * TAU * x + 0.5))
    assert torch.allclose(u[1], 0.5 * torch.sin(2 * TAU * x + 1.0))


# --- advection ---------------------------------------------------------------------------------------------------------------------


def test_advection_shifts_every_mode(figure: Figure) -> None:
    """Each Fourier coefficient turns by the phase of the shift, which is no whole number of points."""
    problem = Advection(points=40, times=7)
    drawn = problem.draw(6, seed=2)
    beta, time = drawn.parameters["speed"][:, None, None], problem.grid.axes[0].positions()[:, None]
    modes = torch.fft.fft(drawn.u[:, 0], norm="forward")
    turned = modes[:, :1] * torch.exp(-1j * wavenumbers(problem.grid.axes[1]) * beta * time)
    assert largest(modes - turned) < 1e-14
    figure("advection", "every Fourier mode: largest error", largest(modes - turned), "exact: phase of u0(x - beta t)")
    assert modes[..., 5:36].abs().max() < 1e-14
    assert modes[..., 1:5].abs().amax((0, 1)).min() > 0.05
    assert (drawn.parameters["speed"] * problem.duration * 40 % 1).min() > 0.01


def test_advection_returns_after_a_period(figure: Figure) -> None:
    problem = Advection.preset("pdebench", speed=(2.0, 2.0), times=5)
    u = problem.draw(3).u[:, 0]
    assert problem.grid.shape == (5, 1024)
    assert largest(u - u[:, :1]) < 1e-13
    figure("advection", "1024 points, after whole periods: largest change", largest(u - u[:, :1]), "exact: the start")
    with pytest.raises(ValueError, match="more than two points"):
        Advection(points=8)


# --- wave equation -----------------------------------------------------------------------------------------------------------------


def test_wave_is_the_solution_of_d_alembert(figure: Figure) -> None:
    r"""$u = f(x - ct) + g(x + ct)$ for band-limited f and g, from $u_t = c(g' - f')$; and the mean goes on at its speed."""
    problem = Wave(points=24, times=6, speed=1.7, duration=1.3)
    time, x = problem.grid.mesh()

    def f(s: Tensor) -> Tensor:
        return torch.sin(TAU * s) + 0.3 * torch.cos(5 * TAU * s + 1)

    def g(s: Tensor) -> Tensor:
        return torch.exp(torch.sin(TAU * s)).sin()  # not band-limited: 1e-6 of it is beyond the points

    def slope(h: Tensor) -> Tensor:
        return Spectral().derivative(h, problem.grid.space, "x")

    start = [h(x[0]) for h in (f, g)]
    u = problem.solve((start[0] + start[1])[None], 1.7 * (slope(start[1]) - slope(start[0]) + 1 / 1.7)[None])[0]
    left, right = f(x - 1.7 * time), g(x + 1.7 * time)
    assert largest(u[0] - (left + right + time)) < 1e-5
    only = problem.solve(start[0][None], -1.7 * slope(start[0])[None])[0]
    assert largest(only[0] - left) < 1e-13
    figure("wave", "travelling wave: largest error", largest(only[0] - left), "exact: d'Alembert")
    assert largest(only[1] + 1.7 * slope(left)) < 1e-11


def test_standing_waves_in_the_plane(figure: Figure) -> None:
    problem = Wave(dimension=2, points=16, times=5, speed=0.6)
    time, x, y = problem.grid.mesh()
    shape, rate = torch.cos(TAU * (2 * x - 3 * y) + 0.4), 0.6 * TAU * math.sqrt(13)
    u = problem.solve(shape[:1], torch.zeros(1, 16, 16))[0]
    assert largest(u[0] - shape * torch.cos(rate * time)) < 1e-13
    figure("wave", "standing wave in the plane: largest error", largest(u[0] - shape * torch.cos(rate * time)), "exact: cos(kx) cos(kct)")
    assert largest(u[1] + rate * shape * torch.sin(rate * time)) < 1e-12


@pytest.mark.parametrize("dimension", [1, 2])
def test_wave_energy_is_shared_evenly_and_kept(dimension: int, figure: Figure) -> None:
    problem = Wave(dimension=dimension, points=20, times=3, speed=1.4)
    u = problem.draw(600, seed=1).u
    kinetic = u[:, 1].square().mean(problem.grid.space_dims) / 2
    total = problem.energy_density(u).mean(problem.grid.space_dims)
    assert largest(total - total[:, :1]) < 1e-13 * total.max().item()
    drift = largest(total / total[:, :1] - 1)
    figure("wave", f"{dimension}-D: energy, largest relative change", drift, "conserved")
    share = kinetic / total
    assert (share.mean(0) - 0.5).abs().max() < 5 * share.std(0).max() / math.sqrt(600)
    figure("wave", f"{dimension}-D: kinetic share of the energy, mean of 600", share.mean(), "equipartition", reference=0.5)
    assert replace(problem, motion=0.0).draw(2).u[:, 1, 0].abs().max() == 0
    with pytest.raises(ValueError, match="one or two space axes"):
        Wave(dimension=3)


# --- Korteweg-de Vries -------------------------------------------------------------------------------------------------------------


def two_solitons(x: Tensor, time: float, k: tuple[float, float], centres: tuple[float, float]) -> Tensor:
    r"""Exact solution of $u_t + 6uu_x + u_{xxx} = 0$: $u = 2\,\partial_{xx}\ln F$ with Hirota's $F = 1 + e_1 + e_2 + a_{12} e_1e_2$.

    Source:
        Hirota, Phys. Rev. Lett. 27 (1971) 1192.
    """
    e1, e2 = (torch.exp(kj * (x - at) - kj**3 * time) for kj, at in zip(k, centres, strict=True))
    a = ((k[0] - k[1]) / (k[0] + k[1])) ** 2
    f = 1 + e1 + e2 + a * e1 * e2
    fx = k[0] * e1 + k[1] * e2 + a * (k[0] + k[1]) * e1 * e2
    fxx = k[0] ** 2 * e1 + k[1] ** 2 * e2 + a * (k[0] + k[1]) ** 2 * e1 * e2
    return 2 * (fxx * f - fx**2) / f**2


def test_kdv_soliton_keeps_its_shape(figure: Figure) -> None:
    """For other coefficients than 6 and 1, at fourth order."""
    base = KortewegDeVries(points=320, times=2, interval=3.0, length=40.0, nonlinearity=2.0, dispersion=0.5)
    x = base.grid.axes[1].positions()
    start = base.soliton(x, 0.0, 1.5, 20.0)
    exact = base.soliton(x, 3.0, 1.5, 20.0)
    errors = [replace(base, steps=steps, tolerance=FIXED).solve(start[None])[0, 0, 1] - exact for steps in (400, 800, 1600)]
    assert orders(errors) == pytest.approx([4, 4], abs=0.3)
    assert largest(errors[-1]) < 1e-7
    figure("kdv", "soliton: order in time", orders(errors)[-1], "exact soliton", reference=4)
    figure("kdv", "soliton at t = 3: largest error", largest(errors[-1]), "exact soliton")
    assert largest(start - exact) > 2


def test_kdv_solitons_pass_each_other_with_the_phase_shift(figure: Figure) -> None:
    r"""The exact two-soliton solution; the faster one ends $\frac2{k_1}\ln\frac{k_1 + k_2}{k_1 - k_2}$ ahead, the slower one behind."""
    k = (1.2, 0.7)
    problem = KortewegDeVries(
        points=256, times=3, interval=15.0, steps=1500, length=80.0, origin=-40.0, nonlinearity=6.0, initial="soliton-pair"
    )
    x = problem.grid.axes[1].positions()
    exact = torch.stack([two_solitons(x, t, k, (-20.0, -3.0)) for t in (0.0, 15.0, 30.0)])
    u = problem.solve(exact[:1])[0, 0]
    assert largest(u - exact) < 2e-6
    figure("kdv", "two solitons to t = 30: largest error", largest(u - exact), "exact: Hirota, Phys. Rev. Lett. 27 (1971) 1192")
    peak = x[u[2].argmax()].item()
    ahead = 2 / k[0] * math.log((k[0] + k[1]) / (k[0] - k[1]))
    assert peak == pytest.approx(-20 + k[0] ** 2 * 30 + ahead, abs=80 / 256)
    assert ahead > 2


def test_kdv_invariants(figure: Figure) -> None:
    r"""The equations of the modes keep three: the steps to fourth order or better, the stored fields to round-off; none of them zero."""
    problem = KortewegDeVries(points=96, times=9, tolerance=FIXED)
    start = problem.draw(4, seed=3).u[:, 0, 0]
    exact = replace(problem, steps=512).solve(start)

    def flux(k: Tensor) -> Tensor:
        return 1j * problem.dispersion * k**3

    drifts, errors = [], []
    for steps in (16, 32, 64):
        free = quadratic_waves(start, problem.grid, flux, factor=problem.nonlinearity, steps=steps, tolerance=FIXED)
        kept = replace(problem, steps=steps).solve(start)
        mass, norm, energy = problem.constraint({}).leaves()
        for leaf in (mass, norm, energy):
            residual, scale = leaf.measure(kept)
            assert (residual.abs() <= 1e-14 * scale).all(), leaf.name
        drifts.append([(leaf.measure(free)[0].abs() / leaf.measure(free)[1]).max().item() for leaf in (norm, energy)])
        errors.append(kept - exact)
        assert largest(kept - free) <= largest(free - exact)
    for i in range(2):
        for coarse, fine in zip(drifts[i], drifts[i + 1], strict=True):
            assert math.log2(coarse / fine) > 3.5
    assert orders(errors) == pytest.approx([4, 4], abs=0.5)
    for name, drift in zip(("int u^2", "Hamiltonian"), drifts[-1], strict=True):
        figure("kdv", f"{name}: largest relative drift in 4 time units, before it is restored", drift, "conserved")
    figure("kdv", "restored fields: order in time", orders(errors)[-1], "steps 8 times shorter", reference=4)
    assert problem.draw(2, seed=3).u.diff(dim=2).abs().amax() > 0.2


def test_kdv_published_cosine(real_data: Path, figure: Figure) -> None:
    file = published(real_data / "raissi_pinns/KdV.mat", "uu")
    problem = KortewegDeVries.preset("raissi")
    drawn = problem.draw(1)
    assert largest(drawn.u[0, 0] - file) < 5e-10
    figure("kdv", "preset raissi: largest difference", largest(drawn.u[0, 0] - file), "KdV.mat of Raissi et al. (PINNs)")
    mass, norm, energy = (leaf.measure(drawn.u) for leaf in problem.constraint({}).leaves())
    assert (norm[0].abs() / norm[1]).max() < 1e-14
    assert (energy[0].abs() / energy[1]).max() < 1e-14
    assert mass[0].abs().max() < 1e-15


def test_kdv_published_solitons(real_data: Path, figure: Figure) -> None:
    """The file's initial data jump by 9e-5 at the ends of the line; the modes beyond two thirds, which only it keeps, hold 1e-5."""
    file = published(real_data / "pysindy/kdv.mat", "usol")
    assert largest(file.imag) < 1e-6
    error = largest(KortewegDeVries.preset("pysindy").draw(1).u[0, 0] - file.real)
    assert error < 2e-5
    figure("kdv", "preset pysindy: largest difference", error, "kdv.mat of PySINDy, which jumps by 9e-5 at the ends")


def test_kdv_refuses_what_it_cannot_do() -> None:
    with pytest.raises(ValueError, match="initial data out of waves, cosine"):
        KortewegDeVries(initial="noise")
    with pytest.raises(ValueError, match="positive nonlinearity and dispersion"):
        KortewegDeVries(dispersion=-1.0)
    with pytest.raises(ValueError, match="at least two times"):
        KortewegDeVries(times=1)


# --- Kuramoto-Sivashinsky ----------------------------------------------------------------------------------------------------------


def test_ks_published_trajectory(real_data: Path, figure: Figure) -> None:
    """Chaos multiplies any difference by some hundred in this time: the two programs agree to the last digits of every step."""
    file = published(real_data / "pysindy/kuramoto_sivishinky.mat", "uu")[:51]
    problem = KuramotoSivashinsky.preset("pysindy", times=51)
    start = problem.simulate(streams(1), torch.device("cpu"))[0][0, 0]
    errors = [rms(start[i] - file[i]) for i in (0, 25, 50)]
    assert errors[0] < 1e-15
    assert errors[1] < 1e-12
    assert errors[2] < 1e-12
    for time, error in zip((10, 20), errors[1:], strict=True):
        figure("kuramoto-sivashinsky", f"preset pysindy at t = {time}: rms difference", error, "kuramoto_sivishinky.mat of PySINDy")
    assert rms(file[50] - file[0]) > 0.4


def test_ks_small_waves_grow_by_the_dispersion_relation(figure: Figure) -> None:
    r"""Each mode of 1e-12 as $e^{(k^2 - \nu k^4)t}$, for each sample's own viscosity."""
    problem = KuramotoSivashinsky(points=48, times=3, interval=1.0, steps=10, skip=0, length=24.0)
    x, time = problem.grid.axes[1].positions(), problem.grid.axes[0].positions()
    start = 1e-12 * torch.stack([torch.cos(TAU * m * x / 24 + m) for m in (1, 3, 4, 6)]).sum(0)
    viscosity = torch.tensor([1.0, 0.5], dtype=torch.float64)
    modes = torch.fft.rfft(problem.solve(start.expand(2, -1), viscosity)[:, 0], norm="forward")
    for m in (1, 3, 4, 6):
        k = TAU * m / 24
        grown = modes[:, :1, m] * torch.exp((k**2 - viscosity[:, None] * k**4) * time)
        assert torch.allclose(modes[..., m], grown, rtol=1e-6, atol=0)
        rate = (modes[1, -1, m] / modes[1, 0, m]).abs().log() / 2
        figure(
            "kuramoto-sivashinsky",
            f"nu = 1/2, k = {k:.3f}: rate of growth",
            rate,
            "exact: k^2 - nu k^4",
            reference=round(k**2 - k**4 / 2, 6),
        )


def test_ks_is_fourth_order_and_balances_its_energy(figure: Figure) -> None:
    r"""$\frac{d}{dt}\langle\frac12u^2\rangle = \langle u_x^2\rangle - \nu\langle u_{xx}^2\rangle$, by Simpson's rule on fine times."""
    problem = KuramotoSivashinsky(points=64, times=201, interval=0.02, skip=0, steps=1, length=22.0, viscosity=(0.8, 0.8))
    start = KuramotoSivashinsky(points=64, times=2, interval=10.0, steps=400, skip=2, length=22.0).draw(1, seed=4).u[:, 0, -1]
    nu = torch.tensor([0.8], dtype=torch.float64)
    u = problem.solve(start, nu)[:, 0]
    slope = Spectral().derivative(u, problem.grid, "x")
    curve = Spectral().derivative(slope, problem.grid, "x")
    rate = (slope.square() - 0.8 * curve.square()).mean(-1)[0]
    simpson = 0.02 / 3 * (rate[:-2:2] + 4 * rate[1::2] + rate[2::2]).sum()
    energy = u.square().mean(-1)[0] / 2
    assert (energy[-1] - energy[0]).item() == pytest.approx(simpson.item(), rel=1e-5)
    assert (energy[-1] - energy[0]).abs() > 0.01
    coarse = replace(problem, times=2, interval=1.0)
    runs = [replace(coarse, steps=steps).solve(start, nu)[0, 0, 1] for steps in (64, 128, 256, 2048)]
    observed = orders([run - runs[-1] for run in runs[:-1]])[-1]
    assert orders([run - runs[-1] for run in runs[:-1]]) == pytest.approx([4, 4], abs=0.5)
    figure("kuramoto-sivashinsky", "order in time", observed, "steps 8 times shorter", reference=4)
    misfit = abs((energy[-1] - energy[0]) / simpson - 1)
    figure("kuramoto-sivashinsky", "energy balance: relative error", misfit, "d/dt <u^2/2> = <u_x^2> - nu <u_xx^2>")


def test_ks_trajectories_are_the_same_in_any_draw() -> None:
    """To the bit, after chaos had time to amplify differences of round-off a millionfold."""
    problem = KuramotoSivashinsky(points=32, times=3, interval=50.0, steps=400, tolerance=FIXED, skip=2, length=22.0)
    whole = problem.draw(5, seed=1).u
    assert torch.equal(whole[3:], problem.draw(2, seed=1, start=3).u)
    nearby = problem.solve(whole[:1, 0, 0] * (1 + 1e-9), torch.ones(1, dtype=torch.float64))
    again = problem.solve(whole[:1, 0, 0], torch.ones(1, dtype=torch.float64))
    assert largest(nearby[:, 0, -1] - again[:, 0, -1]) > 1e-5
    assert whole.mean(-1).abs().max() < 1e-15


@pytest.mark.slow
def test_ks_statistics(figure: Figure) -> None:
    r"""$\langle u^2\rangle = 1.400 \pm 0.004$ at $L = 22$, from 4e4 units of time of an independent program; ours from 3.2e4.

    Within four standard errors of the difference, our own estimated from the spread of 16 independent trajectories. Production and
    dissipation of energy balance in the mean, as nothing is stored for long.
    """
    problem = KuramotoSivashinsky.preset("l22", times=2001, steps=10)
    u = problem.draw(16, seed=5).u[:, 0]
    means = u.square().mean((1, 2))
    ours, error = means.mean().item(), (means.std() / 4).item()
    assert error < 0.01
    assert abs(ours - 1.400) < 4 * math.hypot(error, 0.004)
    figure("kuramoto-sivashinsky", "L = 22: <u^2>", ours, "another ETDRK4 program, over 4e4 time units", reference="1.400 ± 0.004")
    figure("kuramoto-sivashinsky", "L = 22: <u^2>, our standard error", error, "spread of 16 trajectories")
    slope = Spectral().derivative(u, problem.grid, "x")
    curve = Spectral().derivative(slope, problem.grid, "x")
    assert slope.square().mean().item() == pytest.approx(curve.square().mean().item(), rel=2e-3)
    ratio = slope.square().mean() / curve.square().mean()
    figure("kuramoto-sivashinsky", "L = 22: <u_x^2> over <u_xx^2>", ratio, "stationary energy", reference=1.0)
    assert 3.0 < largest(u) < 3.6
    figure("kuramoto-sivashinsky", "L = 22: largest |u|", largest(u), "another ETDRK4 program", reference="3.1 to 3.6, L = 22 to 200")


SPECTRUM = {
    0.5: (3.35, 3.35), 0.69: (12.1, 12.6), 0.85: (5.7, 6.8), 1.0: (3.3, 3.5), 1.25: (1.37, 1.40), 1.5: (0.42, 0.44), 2.0: (0.021, 0.023),
}  # fmt: skip
r"""$L\langle|\hat u_k|^2\rangle$ near these wavenumbers, from an independent program:
the range over two lengths, without its sampling error."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "length", "points", "times", "known", "spread"),
    [("32 pi", 32 * math.pi, 128, 1001, 1.728, 0.007), ("200", 200.0, 256, 601, 1.740, 0.005)],
    ids=["32pi", "200"],
)
def test_ks_statistics_of_long_lines(
    name: str, length: float, points: int, times: int, known: float, spread: float, figure: Figure
) -> None:
    r"""$\langle u^2\rangle$ within four standard errors, the spectrum within 12 %: its peak is sharp and each program's modes lie
    elsewhere."""
    problem = KuramotoSivashinsky(points=points, times=times, interval=1.0, steps=10, skip=200, length=length)
    u = problem.draw(16, seed=5).u[:, 0]
    means = u.square().mean((1, 2))
    ours, error = means.mean().item(), (means.std() / 4).item()
    assert error < 0.01
    assert abs(ours - known) < 4 * math.hypot(error, spread)
    source = "another ETDRK4 program"
    figure("kuramoto-sivashinsky", f"L = {name}: <u^2>", ours, source, reference=f"{known:.3f} ± {spread}")
    figure("kuramoto-sivashinsky", f"L = {name}: <u^2>, our standard error", error, "spread of 16 trajectories")
    power = length * torch.fft.rfft(u, norm="forward").abs().square().mean((0, 1))
    k = TAU / length * np.arange(len(power))
    plateau = power[(torch.from_numpy(k) > 0.09) & (torch.from_numpy(k) < 0.31)]
    assert 0.88 * 1.04 < plateau.min() < plateau.max() < 1.12 * 1.25
    figure("kuramoto-sivashinsky", f"L = {name}: spectrum, k from 0.1 to 0.3, mean", plateau.mean(), source, reference="1.04 to 1.25")
    for wavenumber, (low, high) in SPECTRUM.items():
        found = math.exp(np.interp(wavenumber, k, power.log().numpy()))
        assert 0.88 * low < found < 1.12 * high, wavenumber
        reference = f"{low:g} to {high:g}" if low < high else f"{low:g}"
        figure("kuramoto-sivashinsky", f"L = {name}: spectrum at k = {wavenumber:g}", found, source, reference=reference)


# --- nonlinear Schrödinger ---------------------------------------------------------------------------------------------------------


def as_complex(u: Tensor) -> Tensor:
    return torch.complex(u[:, 0], u[:, 1])


def breather(x: Tensor, time: Tensor) -> Tensor:
    """The solution on the whole line from 2 sech x.

    Source:
        Satsuma & Yajima, Prog. Theor. Phys. Suppl. 55 (1974) 284.
    """
    above = torch.cosh(3 * x) + 3 * torch.exp(4j * time) * torch.cosh(x)
    return 4 * torch.exp(0.5j * time) * above / (torch.cosh(4 * x) + 4 * torch.cosh(2 * x) + 3 * torch.cos(4 * time))


def test_schroedinger_breather_at_fourth_order(figure: Figure) -> None:
    problem = Schroedinger(points=1024, times=3, duration=1.2, length=50.0, initial="sech")
    time, x = problem.grid.mesh()
    exact = breather(x, time)
    assert largest(exact[0] - 2 / torch.cosh(x[0])) < 1e-14
    errors = []
    for steps in (80, 160, 320):
        u = replace(problem, steps=steps, tolerance=FIXED).draw(1).u
        errors.append(as_complex(u)[0] - exact)
        mass = u.square().sum((1, 3))[0] * 50 / 1024
        assert (mass - 8).abs().max() < 1e-11
    assert orders(errors) == pytest.approx([4, 4], abs=0.4)
    assert largest(errors[-1]) < 1e-6
    figure("schroedinger", "breather: order in time", orders(errors)[-1], "exact: Satsuma & Yajima (1974)", reference=4)
    figure("schroedinger", "breather to t = 1.2: largest error", largest(errors[-1]), "exact: Satsuma & Yajima (1974)")


def test_schroedinger_soliton_moves(figure: Figure) -> None:
    eta, v = 1.3, 0.9
    problem = Schroedinger(points=256, times=3, duration=5.0, steps=500, length=40.0)
    time, x = problem.grid.mesh()
    v = TAU / 40 * round(v * 40 / TAU)  # whole waves on the line
    moving = eta / torch.cosh(eta * (x - v * time)) * torch.exp(1j * (v * x + (eta**2 - v**2) / 2 * time))
    u = problem.solve(moving[:1])
    assert largest(as_complex(u)[0] - moving) < 1e-8
    figure("schroedinger", "moving soliton to t = 5: largest error", largest(as_complex(u)[0] - moving), "exact soliton")
    momentum = (as_complex(u).conj() * torch.fft.ifft(1j * wavenumbers(problem.grid.axes[1]) * torch.fft.fft(as_complex(u)))).imag.sum(-1)
    assert largest(momentum * 40 / 256 - 2 * eta * v) < 1e-10


@pytest.mark.parametrize("g", [1.0, -1.0])
def test_schroedinger_plane_waves_are_exact(g: float, figure: Figure) -> None:
    r"""$a\,e^{i(kx + (ga^2 - k^2/2)t)}$, in two large steps."""
    problem = Schroedinger(points=16, times=2, duration=3.0, steps=2, length=10.0, nonlinearity=g)
    time, x = problem.grid.mesh()
    k = 3 * TAU / 10
    wave = 0.8 * torch.exp(1j * (k * x + (g * 0.64 - k**2 / 2) * time))
    assert largest(as_complex(problem.solve(wave[:1]))[0] - wave) < 1e-13
    error = largest(as_complex(problem.solve(wave[:1]))[0] - wave)
    figure("schroedinger", f"plane wave, g = {g:g}, two steps: largest error", error, "exact: its dispersion relation")


def test_schroedinger_disturbances() -> None:
    """Initial data as stated."""
    problem = Schroedinger(points=64, times=2, duration=0.25, steps=2, disturbance=0.3)
    start = problem.draw(3000, seed=8).u[:, :, 0]
    offset = start - torch.tensor([1.0, 0.0])[:, None]
    expected = 0.09 * 2 * math.sqrt(math.pi) / 20 * sum(2 * math.exp(-((TAU * m / 20) ** 2)) for m in range(1, 32))
    assert largest(offset.mean(-1)) < 1e-14
    assert torch.allclose(offset.square().mean((0, 2)), torch.full((2,), expected, dtype=torch.float64), rtol=0.05)


def test_schroedinger_keeps_mass_and_energy_at_fourth_order(figure: Figure) -> None:
    """To round-off whatever the steps, though these few points resolve little, and without loss of order; likewise plane waves and
    solitons, whose gradients are parallel."""
    problem = Schroedinger(points=64, times=5, duration=1.0, disturbance=0.3, tolerance=FIXED)
    exact = replace(problem, steps=640).draw(4).u
    errors, worst = [], 0.0
    for steps in (10, 20, 40):
        u = replace(problem, steps=steps).draw(4).u
        worst = max(worst, *(float((r.abs() / s).max()) for r, s in (leaf.measure(u) for leaf in problem.constraint({}).leaves())))
        errors.append(u - exact)
    for settings in ({"disturbance": 0.0}, {"initial": "sech", "length": 30.0, "points": 128}):
        u = replace(problem, steps=10, **settings).draw(1).u
        law = replace(problem, **settings).constraint({})
        worst = max(worst, *(float((r.abs() / s).max()) for r, s in (leaf.measure(u) for leaf in law.leaves())))
    assert orders(errors) == pytest.approx([4, 4], abs=0.5)
    assert worst < 1e-14
    figure("schroedinger", "mass and energy, whatever the steps: largest relative change", worst, "conserved")
    figure("schroedinger", "restored fields: order in time", orders(errors)[-1], "steps 16 times shorter", reference=4)


def test_schroedinger_published_breather(real_data: Path, figure: Figure) -> None:
    file = published(real_data / "raissi_pinns/NLS.mat", "uu")
    drawn = Schroedinger.preset("raissi").draw(1)
    assert largest(as_complex(drawn.u)[0] - file) < 5e-9
    figure("schroedinger", "preset raissi: largest difference", largest(as_complex(drawn.u)[0] - file), "NLS.mat of Raissi et al. (PINNs)")
    mass = drawn.u.square().sum((1, 3))[0] * 10 / 256
    assert largest(mass - 7.99927) < 5e-6
    assert largest(mass - mass[0]) < 1e-11
    figure("schroedinger", "preset raissi: largest change of int |h|^2", largest(mass - mass[0]), "conserved")


# --- Allen-Cahn --------------------------------------------------------------------------------------------------------------------


def test_allen_cahn_uniform_fields_follow_the_logistic_curve_at_fourth_order(figure: Figure) -> None:
    problem = AllenCahn(points=4, times=2, duration=1.0, reaction=3.0)
    start = torch.tensor([0.1, -0.4, 1.5], dtype=torch.float64)
    exact = start * math.exp(3) / (1 + start.square() * math.expm1(6)).sqrt()
    errors = [replace(problem, steps=steps).solve(start[:, None].expand(3, 4))[:, 0, 1] - exact[:, None] for steps in (20, 40, 80)]
    assert orders(errors) == pytest.approx([4, 4], abs=0.3)
    assert largest(errors[-1]) < 1e-6
    figure("allen-cahn", "uniform fields: order in time", orders(errors)[-1], "exact: u' = lambda (u - u^3)", reference=4)


def test_allen_cahn_fronts_move(figure: Figure) -> None:
    r"""$w = (1 + e^{(x - 3t/\sqrt2)/\sqrt2})^{-1}$ solves $u_t = u_{xx} + u - u^3$ (scaled to the domain); two of them back to back.

    Source:
        Ablowitz & Zeppetella, Bull. Math. Biol. 41 (1979) 835, for the method; Kaliappan, Physica D 11 (1984) 368.
    """
    eps, rate = 3e-4, 1.0
    problem = AllenCahn(points=512, times=3, duration=2.0, steps=50, diffusion=eps, reaction=rate)
    time, x = problem.grid.mesh()
    speed, width = 3 * math.sqrt(eps * rate / 2), math.sqrt(2 * eps / rate)

    def front(s: Tensor) -> Tensor:
        return torch.special.expit(-s / width)

    # u = 1 within fronts at -0.5 and 0.5; u = 0 without, which is unstable: what is left there, 1e-9, grows by e^2
    exact = front(x - 0.5 - speed * time) - front(x + 0.5 + speed * time)
    assert largest(problem.solve(exact[:1])[0, 0] - exact) < 1e-7
    figure(
        "allen-cahn", "moving fronts to t = 2: largest error", largest(problem.solve(exact[:1])[0, 0] - exact), "exact: Kaliappan (1984)"
    )
    assert speed * 2 > 5 * 2 / 512


@pytest.mark.parametrize("dimension", [1, 2])
def test_allen_cahn_loses_free_energy_as_it_moves(dimension: int, figure: Figure) -> None:
    r"""From each time to the next; in all $\int\int u_t^2$, by Simpson's rule with the equation's own right-hand side."""
    problem = AllenCahn(dimension=dimension, points=32, times=161, duration=0.4, steps=1, diffusion=0.02)
    u = problem.draw(3, seed=2).u
    volume = 2.0**dimension
    energy = problem.energy_density(u).mean(problem.grid.space_dims) * volume
    assert (energy.diff(dim=1) < 0).all()
    law = problem.constraint({})
    assert (law.excess(law.residual(u)) == 0).all()
    k = wavenumber_magnitude(problem.grid)
    laplacian = torch.fft.irfftn(-(k**2) * torch.fft.rfftn(u, dim=problem.grid.space_dims), dim=problem.grid.space_dims)
    rate = ((0.02 * laplacian + 5 * (u - u**3)).square()[:, 0]).mean(problem.grid.space_dims) * volume
    lost = 0.0025 / 3 * (rate[:, :-2:2] + 4 * rate[:, 1::2] + rate[:, 2::2]).sum(1)
    assert torch.allclose(energy[:, 0] - energy[:, -1], lost, rtol=1e-4)
    misfit = largest((energy[:, 0] - energy[:, -1]) / lost - 1)
    figure("allen-cahn", f"{dimension}-D: loss of free energy, largest relative error", misfit, "int int u_t^2")
    assert u[:, 0, 0].std() == pytest.approx(0.5, rel=0.3)


def test_allen_cahn_published_field(real_data: Path, figure: Figure) -> None:
    file = published(real_data / "raissi_pinns/AC.mat", "uu")
    problem = AllenCahn.preset("raissi", steps=5)
    drawn = problem.draw(1)
    assert largest(drawn.u[0, 0] - file) < 1e-10
    figure("allen-cahn", "preset raissi: largest difference", largest(drawn.u[0, 0] - file), "AC.mat of Raissi et al. (PINNs)")
    energy = problem.energy_density(drawn.u).mean(-1)[0] * 2
    constant = 2 * 5 / 4  # the file's reading leaves out the well's lambda/4
    assert energy[0].item() - constant == pytest.approx(-0.4987, abs=5e-5)
    assert energy[-1].item() - constant == pytest.approx(-2.2757, abs=5e-5)
    figure("allen-cahn", "preset raissi: free energy at t = 1, less 5/2", energy[-1] - constant, "AC.mat", reference=-2.2757)
    assert (energy.diff() < 0).all()


# --- Gray-Scott --------------------------------------------------------------------------------------------------------------------


def test_gray_scott_uniform_fields_follow_the_reaction_at_fourth_order(figure: Figure) -> None:
    problem = GrayScott(points=4, times=2, interval=40.0, feed=0.05, kill=0.06)
    f, removal = 0.05, 0.11
    exact = solve_ivp(
        lambda _, y: [-y[0] * y[1] ** 2 + f * (1 - y[0]), y[0] * y[1] ** 2 - removal * y[1]], (0, 40), [0.6, 0.5], method="DOP853",
        rtol=1e-13, atol=1e-14,
    ).y[:, -1]  # fmt: skip
    start = torch.tensor([0.6, 0.5], dtype=torch.float64)[None, :, None, None].expand(1, 2, 4, 4)
    errors = [replace(problem, steps=s).solve(start)[0][0, :, 1] - torch.from_numpy(exact)[:, None, None] for s in (40, 80, 160)]
    assert orders(errors) == pytest.approx([4, 4], abs=0.3)
    assert largest(errors[-1]) < 1e-6
    figure("gray-scott", "uniform fields: order in time", orders(errors)[-1], "SciPy's DOP853 at tolerance 1e-13", reference=4)


def test_gray_scott_small_waves_follow_the_dispersion_relation(figure: Figure) -> None:
    r"""About the steady state with B, each mode of 1e-7 as the exponential of the 2 by 2 matrix of the linearised equations."""
    f, k = PATTERNS["bubbles"]
    problem = GrayScott(points=18, times=3, interval=5.0, steps=10, feed=f, kill=k, diffusion_a=1e-3, diffusion_b=5e-4)
    a, b = problem.steady_state()
    assert -a * b**2 + f * (1 - a) == pytest.approx(0, abs=1e-15)
    assert a * b**2 - (f + k) * b == pytest.approx(0, abs=1e-15)
    _, x, y = problem.grid.mesh()
    waves = [(1, 0), (2, 3), (0, 4)]
    shape = torch.stack([torch.cos(TAU * (m * x[0] + n * y[0]) + m) for m, n in waves]).sum(0)
    u, _ = problem.solve(torch.stack([a + 1e-7 * shape, b - 2e-7 * shape])[None])
    modes = torch.fft.fft2(u[0] - torch.tensor([a, b])[:, None, None, None], norm="forward")
    matrix = torch.tensor([[-(b**2) - f, -2 * a * b], [b**2, 2 * a * b - f - k]], dtype=torch.float64)
    for m, n in waves:
        linear = matrix - TAU**2 * (m**2 + n**2) * torch.diag(torch.tensor([1e-3, 5e-4], dtype=torch.float64))
        for i in (1, 2):
            grown = torch.linalg.matrix_exp(5.0 * i * linear).to(modes) @ modes[:, 0, m, n]
            assert torch.allclose(modes[:, i, m, n], grown, rtol=1e-5, atol=0)
        error = ((modes[:, -1, m, n] - grown).norm() / grown.norm()).item()
        figure("gray-scott", f"small wave ({m}, {n}) at t = 10: relative error", error, "exact: linear dispersion relation")


def test_gray_scott_without_b_relaxes_exactly(figure: Figure) -> None:
    r"""$A - 1$ decays as $e^{-(f + \delta_A k^2)t}$."""
    problem = GrayScott(points=12, times=3, interval=8.0, steps=40)
    time, x, y = problem.grid.mesh()
    start = 0.3 * torch.cos(TAU * (x[0] - 2 * y[0]))
    u, supplied = problem.solve(torch.stack([1 + start, torch.zeros_like(start)])[None])
    decay = torch.exp(-(0.029 + 2e-5 * 5 * TAU**2) * time)
    assert largest(u[0, 0] - 1 - start * decay) < 1e-9
    figure("gray-scott", "without B to t = 16: largest error", largest(u[0, 0] - 1 - start * decay), "exact: exp(-(f + dA k^2) t)")
    assert largest(u[0, 1]) == 0
    assert largest(supplied) < 1e-15


def test_gray_scott_balances_what_is_supplied(figure: Figure) -> None:
    """To round-off with the steps' own sums; with the trapezoid of the stored fields at second order in the interval."""
    problem = GrayScott(points=32, times=33, interval=2.0, steps=4, length=0.5)
    drawn = problem.draw(2, seed=3)
    (law,) = problem.constraint(drawn.parameters).leaves()
    assert (law.residual(drawn.u).abs() <= 1e-14 * law.scale(drawn.u)).all()
    assert drawn.parameters["supplied"].abs().max() > 1e-2 * law.scale(drawn.u).min()

    def rate(u: Tensor) -> Tensor:
        return (0.029 * (1 - u[:, 0]) - 0.086 * u[:, 1]).mean((-2, -1)) * 0.25

    misfits = []
    for every in (2, 1):
        part = replace(problem, times=(problem.times - 1) // every + 1, interval=2.0 * every)
        trapezoid = Budget(part.grid, rate, density=lambda u: u.sum(1), channels=2)
        misfits.append(trapezoid.residual(drawn.u[:, :, ::every]).sum(1).abs())
    assert (misfits[0] / misfits[1]).min() > 3
    figure(
        "gray-scott",
        "balance of A + B by the trapezoidal rule: order",
        (misfits[0] / misfits[1]).log2().min(),
        "second order of the rule",
        reference=2,
    )


def test_gray_scott_starts_as_the_well_does() -> None:
    problem = GrayScott.preset("well-spots", times=2, interval=1.0, steps=1)
    assert problem.grid.shape == (2, 128, 128)
    assert problem.grid.volume == 4
    assert {f"well-{name}" for name in PATTERNS} == set(GrayScott.presets)
    for start in (problem.clusters(streams(3)), replace(problem, length=1.0).clusters(streams(3))):
        seam = (start[:, 0] - start[:, -1]).abs().amax()
        assert seam < 3 * start.diff(dim=1).abs().amax(), "periodic"
        assert (start >= 0).all()
    u = problem.draw(3, seed=2).u[:, :, 0]
    assert u.amin((2, 3)).abs().max() < 0.05
    assert (u.amax((2, 3)) - 1).abs().max() < 0.05
    quiet = GrayScott.preset("well-maze", initial="fourier").fourier_noise(streams(200))
    assert quiet.mean((0, 2, 3)).tolist() == pytest.approx([1.0, 0.0], abs=5 * 0.5 / math.sqrt(12 * 32 * 32 * 200))
    assert GrayScott.preset("well-maze").steady_state() == (1.0, 0.0)


@pytest.mark.parametrize("points", [32, 33, 48, 50])
def test_interpolation_on_more_points_is_exact_for_waves(points: int) -> None:
    def wave(n: int) -> Tensor:
        x = torch.arange(n, dtype=torch.float64) / n
        return 0.3 + torch.sin(TAU * (15 * x[:, None] - 7 * x)) + torch.cos(TAU * (3 * x[:, None] + 15 * x) + 1)

    assert largest(interpolate(wave(32), points) - wave(points)) < 1e-12


# --- Burgers -----------------------------------------------------------------------------------------------------------------------


def test_burgers_published_shock(real_data: Path, figure: Figure) -> None:
    """Within 1e-10 of the Cole-Hopf integral at all times, through the steepest slope of 152; the file itself is within 2e-11."""
    file = published(real_data / "raissi_pinns/burgers_shock.mat", "usol")
    problem = Burgers.preset("raissi")
    u = problem.draw(1).u[0, 0, :, ::10]
    x, times = problem.grid.axes[1].positions()[::10], problem.grid.axes[0].positions()
    exact = torch.stack([cole_hopf(x, t, problem.viscosity, nodes=200) for t in times[1:].tolist()])
    assert largest(u[1:] - exact) < 1e-10
    figure("burgers", "preset raissi: largest error", largest(u[1:] - exact), "Cole-Hopf integral, 200 Gauss-Hermite nodes")
    assert largest(u - file[:, :-1]) < 1.2e-10
    figure("burgers", "preset raissi: largest difference", largest(u - file[:, :-1]), "burgers_shock.mat of Raissi et al. (PINNs)")
    assert file.shape == (100, 256)


def test_burgers_published_gaussian(real_data: Path, figure: Figure) -> None:
    file = published(real_data / "pysindy/burgers.mat", "usol")
    u = Burgers.preset("pysindy", steps=10).draw(1).u[0, 0]
    assert largest(file.imag) < 1e-8
    assert largest(u - file.real) < 2e-8
    figure("burgers", "preset pysindy: largest difference", largest(u - file.real), "burgers.mat of PySINDy")


def test_burgers_initial_data_of_diffusionpde() -> None:
    r"""The spectrum $49^2(k^2 + 49)^{-5/2}$ of each resolved mode, and no mean."""
    count = 10_000
    problem = Burgers.preset("diffusionpde")
    assert problem.grid.shape == (128, 128)
    first = replace(problem, points=32, times=2, steps=1, duration=1e-3).draw(count).u[:, 0, 0]
    power = torch.fft.rfft(first, norm="forward").abs().square().mean(0)
    for m in range(1, 11):
        assert power[m].item() == pytest.approx(49**2 * ((TAU * m) ** 2 + 49) ** -2.5, rel=5 / math.sqrt(count)), m
    assert power[0] < 1e-30
    assert Burgers.preset("fno").grid.shape == (2, 8192)
    with pytest.raises(ValueError, match="initial data out of random, sine"):
        Burgers(initial="step")
