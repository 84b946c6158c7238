"""Problems against exact solutions: time stepper, random fields, Burgers, heat, Taylor-Green and Kolmogorov flow, and what all draw."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from torch import Tensor

from constraints import Axis, Grid
from constraints.calculus import Spectral, curl, divergence, gradient, laplacian
from constraints.calculus.spectral import wavenumbers
from pde_datasets import Problem
from pde_datasets.problem import generator
from pde_datasets.problems import Burgers, Heat, Kolmogorov, TaylorGreen
from pde_datasets.problems.burgers import cole_hopf
from pde_datasets.random_fields import gaussian_fields, wavenumber_magnitude
from pde_datasets.solvers import ETDRK4
from tests.conftest import Figure

TAU = 2 * math.pi
SCHEME = Spectral()


def scalar(value: float) -> Tensor:
    return torch.tensor([value], dtype=torch.float64)


def order(coarse: Tensor, fine: Tensor) -> float:
    """Observed order from the errors of one step size and of its half."""
    return math.log2(coarse.abs().max().item() / fine.abs().max().item())


# --- exponential time differencing -------------------------------------------------------------------------------------------------


def phi(k: int, z: float) -> Fraction:
    r"""$\varphi_k(z) = \sum_j z^j/(j+k)!$ in rational arithmetic; for large $|z|$ from $e^z$, where nothing cancels."""
    x = Fraction(z)
    if abs(z) <= 20:
        return sum((x**j / math.factorial(j + k) for j in range(120)), Fraction(0))
    return (Fraction(math.exp(z)) - sum((x**j / math.factorial(j) for j in range(k)), Fraction(0))) / x**k


@pytest.mark.parametrize("z", [0.0, -1e-14, -1e-8, 1e-5, -1e-3, -0.1, -0.9, 1.0, -1.1, -5.0, -19.0, -60.0, -1e3, -1e7])
def test_coefficients_are_the_phi_functions(z: float) -> None:
    """Cox & Matthews' combinations, without loss of digits wherever z is: next to 0, on the contour's radius, far out."""
    dt = 0.3
    stepper = ETDRK4(scalar(z / dt), dt)
    z = dt * (z / dt)
    expected = {
        "stage": phi(1, z / 2) / 2,
        "first": phi(1, z) - 3 * phi(2, z) + 4 * phi(3, z),
        "middle": 2 * phi(2, z) - 4 * phi(3, z),
        "last": 4 * phi(3, z) - phi(2, z),
    }
    for name, value in expected.items():
        assert getattr(stepper, name).item() == pytest.approx(dt * float(value), rel=1e-12, abs=1e-16), name
    assert stepper.full.item() == pytest.approx(math.exp(z), rel=1e-14)
    assert stepper.half.item() == pytest.approx(math.exp(z / 2), rel=1e-14)


def test_without_linear_part_it_is_classical_runge_kutta() -> None:
    v, dt = torch.tensor([0.3, -1.2, 2.0], dtype=torch.float64), 0.2

    def f(v: Tensor) -> Tensor:
        return torch.sin(3 * v) + v**2

    k1 = f(v)
    k2 = f(v + dt / 2 * k1)
    k3 = f(v + dt / 2 * k2)
    k4 = f(v + dt * k3)
    expected = v + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    assert torch.allclose(ETDRK4(torch.zeros(3), dt).step(v, f), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("rate", [0.0, 2.0, -1e-9, -1.0, -50.0, -1e6])
def test_constant_forcing_is_integrated_exactly(rate: float) -> None:
    r"""$\dot v = L v + c$ in two steps, for every stiffness."""
    v, force, dt = 0.7, 1.9, 0.5
    stepper = ETDRK4(scalar(rate), dt)
    state = scalar(v)
    for _ in range(2):
        state = stepper.step(state, lambda u: torch.full_like(u, force))
    exact = math.exp(rate) * v + (math.expm1(rate) / rate if rate else 1.0) * force
    assert state.item() == pytest.approx(exact, rel=1e-13)


@pytest.mark.parametrize("rate", [-4.0, 1.0, 0.0])
def test_fourth_order_on_the_bernoulli_equation(rate: float, figure: Figure) -> None:
    r"""$\dot v = L v + v^2$: $1/v$ obeys a linear equation."""
    start = 0.4
    reciprocal = 1 / start - 1 if rate == 0 else (1 / start + 1 / rate) * math.exp(-rate) - 1 / rate
    errors = []
    for steps in (16, 32):
        state, stepper = scalar(start), ETDRK4(scalar(rate), 1 / steps)
        for _ in range(steps):
            state = stepper.step(state, torch.square)
        errors.append(state - 1 / reciprocal)
    assert order(*errors) == pytest.approx(4, abs=0.25)
    assert errors[1].abs().item() < 1e-5
    figure("ETDRK4", f"v' = L v + v^2, L = {rate:g}: order", order(*errors), "exact: 1/v obeys a linear equation", reference=4)


# --- random fields -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "grid",
    [
        Grid(Axis("time", 3), Axis("x", 24, length=1.0, periodic=True)),
        Grid(Axis("x", 12, length=TAU, periodic=True), Axis("y", 9, length=3.0, periodic=True)),
    ],
    ids=["1-D", "2-D, uneven"],
)
def test_random_fields_have_the_stated_spectrum(grid: Grid) -> None:
    """Power of every mode, whole variance, zero mean, within five standard errors of the Monte-Carlo mean."""
    count = 4000
    space = grid.space

    def amplitude(k: Tensor) -> Tensor:
        return 3 * torch.exp(-k / 10) / (1 + k)

    u = gaussian_fields(grid, amplitude, [generator(5, i) for i in range(count)])
    assert u.shape == (count, *space.shape)
    assert u.dtype == torch.float64
    dims = space.space_dims
    assert u.mean(dims).abs().max() < 1e-14
    k = torch.zeros(space.shape, dtype=torch.float64)
    for axis in space.axes:
        k = k + space.along(axis.name, wavenumbers(axis)) ** 2
    expected = torch.where(k > 0, amplitude(k.sqrt()) ** 2, 0.0)
    power = torch.fft.fftn(u, dim=dims, norm="forward").abs().square().mean(0)
    moving = expected > 0
    # |z|^2 of a unit complex Gaussian has variance 1, of a real one (a mode that is its own conjugate) 2
    assert ((power / expected)[moving] - 1).abs().max() < 5 * math.sqrt(2 / count)
    variance = u.square().mean(dims)
    error = math.sqrt(2 * (expected**2).sum().item() / count)
    assert variance.mean().item() == pytest.approx(expected.sum().item(), abs=4 * error)
    assert u.mean(0).abs().max() < 5 * math.sqrt(expected.sum().item() / count)
    half = wavenumber_magnitude(grid)
    assert torch.allclose(half**2, k[..., : half.shape[-1]])


def test_variance_of_random_fields_does_not_depend_on_the_resolution() -> None:
    """An amplitude that vanishes beyond k = 5 gives the same variance on 16 and on 64 points."""

    def band(k: Tensor) -> Tensor:
        return torch.where(k < 5.5, 1 / k, 0.0)

    expected = 2 * sum(1 / m**2 for m in range(1, 6))
    for points in (16, 64):
        u = gaussian_fields(Grid(Axis("x", points, length=TAU, periodic=True)), band, [generator(2, i) for i in range(4000)])
        error = math.sqrt(2 * 2 * sum(1 / m**4 for m in range(1, 6)) / 4000)
        assert u.square().mean().item() == pytest.approx(expected, abs=4 * error)


def test_streams_of_samples_are_independent() -> None:
    """Neighbours in seed or index share nothing: correlations of 1e4 numbers stay below five standard errors."""
    pairs = [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (-1, 0), (0, 2**32), (2**32, 0)]
    draws = torch.stack([torch.randn(10_000, generator=generator(*pair), dtype=torch.float64) for pair in pairs])
    assert (torch.corrcoef(draws) - torch.eye(len(pairs))).abs().max() < 0.05
    again = torch.randn(10_000, generator=generator(1, 1), dtype=torch.float64)
    assert torch.equal(again, draws[3])


def test_streams_meet_no_oftener_than_32_bit_seeds_must() -> None:
    """torch's generator keeps 32 bits of its seed: among n samples some n^2/2^33 pairs share a stream, one for 90 000."""
    firsts = {torch.randint(2**62, (), generator=generator(0, i)).item() for i in range(90_000)}
    assert len(firsts) >= 90_000 - 6


# --- Burgers -----------------------------------------------------------------------------------------------------------------------


def convolved(x: Tensor, time: float, viscosity: float) -> Tensor:
    """The Cole-Hopf integral by the trapezoidal rule, which converges geometrically for it."""
    eta = torch.linspace(-9, 9, 6001, dtype=torch.float64)
    y = x[:, None] - math.sqrt(4 * viscosity * time) * eta
    exponent = -torch.cos(math.pi * y) / (2 * math.pi * viscosity) - eta**2
    weight = torch.exp(exponent - exponent.amax(1, keepdim=True))
    return -(weight * torch.sin(math.pi * y)).sum(1) / weight.sum(1)


@pytest.mark.parametrize(("viscosity", "time"), [(0.2, 0.25), (0.05, 0.25), (0.05, 1.0), (0.01, 0.5), (0.01, 1.0)])
def test_cole_hopf_quadrature(viscosity: float, time: float) -> None:
    x = torch.linspace(-1, 1, 41, dtype=torch.float64)
    assert torch.allclose(cole_hopf(x, time, viscosity), convolved(x, time, viscosity), rtol=0, atol=1e-12)


def test_cole_hopf_steepens_to_the_published_slope(figure: Figure) -> None:
    """Basdevant et al. (1986): for viscosity 0.01/pi the slope at x = 0 reaches 152.00516 at t = 1.6037/pi."""
    h = 1e-6
    ends = cole_hopf(torch.tensor([-h, h], dtype=torch.float64), 1.6037 / math.pi, 0.01 / math.pi)
    assert (ends[0] - ends[1]).item() / (2 * h) == pytest.approx(152.00516, abs=2e-3)
    slope = (ends[0] - ends[1]).item() / (2 * h)
    figure("burgers", "Cole-Hopf integral: steepest slope for nu = 0.01/pi", slope, "Basdevant et al. (1986)", reference=152.00516)


def sine_wave(steps: int, points: int = 128, mean: float = 0.0) -> tuple[Tensor, Tensor]:
    r"""Solved and exact u on the unit period from $u_0 = \bar u + \tfrac12\sin 2\pi X$, (T, X) each, viscosity 0.05/4.

    With $X = (x + 1)/2$, $\partial_x = \tfrac12\partial_X$: $U = u/2$ obeys $U_t + (U^2/2)_X = \tfrac\nu4 U_{XX}$ where u obeys Burgers'
    equation with $\nu$ on $[-1, 1]$; a mean flow carries the wave along.
    """
    problem = Burgers(points=points, times=5, viscosity=0.05 / 4, steps=steps)
    times, x = problem.grid.axes[0].positions(), problem.grid.axes[1].positions()
    solved = problem.solve((mean + 0.5 * torch.sin(TAU * x))[None])[0, 0]
    exact = torch.stack([mean + cole_hopf(2 * (x - mean * t) - 1, t, 0.05) / 2 for t in times.tolist()])
    return solved, exact


@pytest.mark.parametrize("mean", [0.0, 0.7], ids=["standing", "carried"])
def test_burgers_is_the_cole_hopf_solution(mean: float, figure: Figure) -> None:
    """Before (t = 1/4) and after (1/2, 3/4, 1) steepening, which without viscosity is at t = 1/pi."""
    solved, exact = sine_wave(steps=256, mean=mean)
    assert (solved - exact).abs().max() < 5e-9
    name = f"sine wave with a mean of {mean:g}, 256 steps a stored time: largest error"
    figure("burgers", name, (solved - exact).abs().max(), "Cole-Hopf integral")
    assert exact[2].diff().abs().max() > 1.5 * exact[0].diff().abs().max()


def test_burgers_is_fourth_order_in_time(figure: Figure) -> None:
    errors = [solved - exact for solved, exact in (sine_wave(16), sine_wave(32), sine_wave(64))]
    for i in range(2):
        assert order(errors[i], errors[i + 1]) == pytest.approx(4, abs=0.25)
    figure("burgers", "sine wave: order in time", order(*errors[1:]), "Cole-Hopf integral", reference=4)


def test_burgers_keeps_mass_and_loses_energy(figure: Figure) -> None:
    problem = Burgers(points=96, times=65, viscosity=0.01, steps=4)
    u = problem.draw(6, seed=1).u[:, 0]
    masses = u.mean(-1)
    assert (masses - masses[:, :1]).abs().max() < 1e-14 * u.abs().max()
    figure("burgers", "mass: largest change, relative", (masses - masses[:, :1]).abs().max() / u.abs().max(), "conserved")
    assert masses[:, 0].abs().min() > 1e-3
    energy = u.square().mean(-1) / 2
    assert (energy.diff(dim=1) < 0).all()
    lost = problem.viscosity * problem.grid.weights(("time",))[:, 0] * SCHEME.derivative(u, problem.grid, "x").square().mean(-1)
    assert torch.allclose(lost.sum(1), energy[:, 0] - energy[:, -1], rtol=0.01)


def test_burgers_without_viscosity_keeps_energy_and_resolved_modes() -> None:
    """As the Galerkin equations of the modes below a third of the points do, however rough the field: no product aliases."""
    problem = Burgers(points=36, times=2, viscosity=0.0, steps=600)
    rough = gaussian_fields(problem.grid, lambda k: 0.1 + 0 * k, [generator(8, i) for i in range(3)])
    u = problem.solve(rough)[:, 0]
    modes = torch.fft.rfft(u, norm="forward").abs()
    assert modes[..., 12:].max() < 1e-15
    assert modes[:, 1, 11].min() > 1e-3
    energy = u.square().mean(-1)
    assert torch.allclose(energy[:, 1], energy[:, 0], rtol=1e-7)
    assert (u[:, 1] - u[:, 0]).abs().amax(1).min() > 0.1


def test_burgers_initial_data_have_the_stated_spectrum() -> None:
    r"""$625(k^2 + 25)^{-2}$ for each resolved mode $k = 2\pi m$, and the variance of the mean."""
    count = 40_000
    first = Burgers(points=32, times=2, steps=1, tolerance=0.99, duration=1e-3, mean=0.3).draw(count).u[:, 0, 0]
    power = torch.fft.rfft(first, norm="forward").abs().square().mean(0)
    assert power[0].item() == pytest.approx(0.09, rel=5 * math.sqrt(2 / count))
    for m in range(1, 11):
        assert power[m].item() == pytest.approx(625 / ((TAU * m) ** 2 + 25) ** 2, rel=4 / math.sqrt(count)), m
    assert power[11:].max() < 1e-30


# --- exact fields: heat and Taylor-Green -------------------------------------------------------------------------------------------


def test_heat_solves_the_heat_equation(figure: Figure) -> None:
    r"""Every Fourier mode of the fields decays as $e^{-\nu k^2 t}$, from the stated initial data."""
    problem = Heat(points=32, times=7)
    drawn = problem.draw(5, seed=3)
    nu, shift = drawn.parameters["diffusivity"], drawn.parameters["phase"]
    time, x = (axis.positions() for axis in problem.grid.axes)
    assert torch.allclose(drawn.u[:, 0, 0], torch.sin(x + shift[:, None]), atol=1e-15)
    modes = torch.fft.fft(drawn.u[:, 0])
    decay = torch.exp(-nu[:, None, None] * time[:, None] * wavenumbers(problem.grid.axes[1]) ** 2)
    assert (modes - modes[:, :1] * decay).abs().max() < 1e-12
    figure("heat", "every Fourier mode: largest error", (modes - modes[:, :1] * decay).abs().max(), "exact: exp(-nu k^2 t)")


RANGES: list[tuple[Problem, dict[str, tuple[float, float]]]] = [
    (Heat(points=3, times=2, diffusivity=(1.0, 5.0), phase=(0.5, 2.0)), {"diffusivity": (1.0, 5.0), "phase": (0.5, 2.0)}),
    (
        TaylorGreen(points=3, times=2, viscosity=(0.1, 0.3), amplitude=(2.0, 2.5)),
        {"viscosity": (0.1, 0.3), "amplitude": (2.0, 2.5), "phase_x": (0.0, TAU), "phase_y": (0.0, TAU)},
    ),
]


@pytest.mark.parametrize(("problem", "ranges"), RANGES, ids=["heat", "taylor-green"])
def test_parameters_are_uniform_on_their_ranges_and_independent(problem: Problem, ranges: dict[str, tuple[float, float]]) -> None:
    parameters = problem.draw(2000, seed=6).parameters
    assert set(parameters) == set(ranges)
    scaled = torch.stack([(parameters[name] - low) / (high - low) for name, (low, high) in ranges.items()])
    assert 0 <= scaled.min() < 0.01
    assert 0.99 < scaled.max() <= 1
    assert (scaled.mean(1) - 0.5).abs().max() < 5 * math.sqrt(1 / 12 / 2000)
    assert (torch.corrcoef(scaled) - torch.eye(len(ranges))).abs().max() < 5 / math.sqrt(2000)


@pytest.mark.parametrize("mode", [1, 3])
def test_taylor_green_solves_navier_stokes(mode: int, figure: Figure) -> None:
    """Velocity decays as under viscosity alone, and the curl of advection, hence pressure's task, vanishes at all times."""
    problem = TaylorGreen(points=24, times=5, mode=mode)
    drawn = problem.draw(4, seed=2)
    grid, nu = problem.grid.space, drawn.parameters["viscosity"]
    modes = torch.fft.fft2(drawn.u)
    k2 = wavenumbers(grid.axes[0])[:, None] ** 2 + wavenumbers(grid.axes[1])[None, :] ** 2
    time = problem.grid.axes[0].positions()[:, None, None]
    turning = 0.0
    decay = torch.exp(-nu[:, None, None, None] * k2 * time)[:, None]
    assert (modes - modes[:, :, :1] * decay).abs().max() < 1e-11
    error = (modes - modes[:, :, :1] * decay).abs().max() / modes.abs().max()
    figure("taylor-green", f"mode {mode}, every Fourier mode: largest relative error", error, "exact: exp(-2 nu k^2 t)")
    for t in range(5):
        u = drawn.u[:, :, t]
        advection = torch.cat([(u * gradient(u[:, c : c + 1], grid, SCHEME)).sum(1, keepdim=True) for c in range(2)], dim=1)
        turning = max(turning, curl(advection, grid, SCHEME).abs().max().item())
        assert curl(advection, grid, SCHEME).abs().max() < 1e-11
        assert divergence(u, grid, SCHEME).abs().max() < 1e-12
        assert advection.abs().amax((1, 2, 3)).max() > 1e-3
    assert torch.allclose(laplacian(drawn.u[:, :, 0], grid, SCHEME), -2 * mode**2 * drawn.u[:, :, 0], atol=1e-10)
    figure("taylor-green", f"mode {mode}: curl of the advection, largest", turning, "exact: 0, advection is a gradient")
    speed = drawn.u[:, :, 0].square().sum(1).mean((1, 2))
    assert torch.allclose(speed, drawn.parameters["amplitude"] ** 2 / 2, atol=1e-12)


# --- Kolmogorov flow ---------------------------------------------------------------------------------------------------------------

SMALL = Kolmogorov(points=32, viscosity=0.05, spin_up=0.5, interval=0.25, snapshots=2)


def vorticity(problem: Kolmogorov, seed: int, count: int = 2) -> Tensor:
    """Transforms of random vorticity of order one on all resolved modes."""
    flow = problem.flow()
    generators = [generator(seed, i) for i in range(count)]
    return flow.transform(gaussian_fields(problem.grid, lambda k: k * torch.exp(-((k / 5) ** 2)), generators))


def test_vorticity_and_velocity_are_each_others_curl() -> None:
    flow, grid, w = SMALL.flow(), SMALL.grid, vorticity(SMALL, 1)
    u = flow.velocity(w)
    assert (curl(u, grid, SCHEME)[:, 0] - flow.vorticity(w)).abs().max() < 1e-12
    assert divergence(u, grid, SCHEME).abs().max() < 1e-12
    assert u.mean((2, 3)).abs().max() < 1e-15


def test_advection_is_the_exact_one_of_the_resolved_modes() -> None:
    r"""$-\mathbf u\cdot\nabla\omega$ on three times the points, where no product aliases, cut to the resolved modes."""
    problem = replace(SMALL, force=0.0)
    flow, w, n, fine = problem.flow(), vorticity(problem, 2), 32, 96
    grid = replace(problem, points=fine).grid
    finer, kept = replace(problem, points=fine).flow(), torch.arange(-10, 11).roll(-10)
    padded = finer.transform(torch.zeros(2, fine, fine, dtype=torch.float64))
    padded[:, kept, :11] = w * (fine / n) ** 2
    omega = finer.vorticity(padded)[:, None]
    exact = -(finer.velocity(padded) * gradient(omega, grid, SCHEME)).sum(1)
    spectrum = torch.fft.rfft2(exact)[:, kept, :11] * (n / fine) ** 2
    found = flow.nonlinear(w)
    assert (found - spectrum).abs().max() < 1e-12 * spectrum.abs().max()
    assert spectrum.abs().max() > 1


def test_advection_conserves_energy_and_enstrophy(figure: Figure) -> None:
    problem = replace(SMALL, force=0.0)
    flow, w = problem.flow(), vorticity(problem, 3)
    rate, omega, psi = (flow.vorticity(f) for f in (flow.nonlinear(w), w, w * flow.inverse_k2))
    for kept, partner in (("enstrophy", omega), ("energy", psi)):
        size = (rate.square().mean((1, 2)) * partner.square().mean((1, 2))).sqrt()
        assert ((rate * partner).mean((1, 2)).abs() / size).max() < 1e-14
        worst = ((rate * partner).mean((1, 2)).abs() / size).max()
        figure("vorticity solver", f"{kept} that advection makes, relative", worst, "conserved")


def test_vorticity_solver_reproduces_taylor_green(figure: Figure) -> None:
    """Without force and drag, from the vorticity of random arrays, to the exact velocity one time unit later."""
    exact = TaylorGreen(points=32, times=2, mode=2, viscosity=(0.08, 0.08))
    fields = exact.draw(3, seed=4)
    flow = Kolmogorov(points=32, viscosity=0.08, drag=0.0, force=0.0, dt=0.05).flow()
    w = flow.transform(curl(fields.u[:, :, 0], exact.grid.space, SCHEME)[:, 0])
    later = flow.velocity(flow.advance(w, 1.0))
    assert (later - fields.u[:, :, 1]).abs().max() < 1e-10
    figure("vorticity solver", "Taylor-Green vortex, 1 time unit: largest error", (later - fields.u[:, :, 1]).abs().max(), "exact velocity")
    ratio = later.abs().amax((1, 2, 3)) / fields.u[:, :, 0].abs().amax((1, 2, 3))
    assert torch.allclose(ratio, torch.full_like(ratio, math.exp(-2 * 0.08 * 4)), rtol=1e-10)


def test_laminar_profile_is_steady() -> None:
    problem = Kolmogorov(points=32, viscosity=0.5, drag=0.3, force=1.7, mode=3, dt=0.02)
    flow, (_, y) = problem.flow(), problem.grid.mesh()
    profile = 1.7 * torch.sin(3 * y) / (0.5 * 9 + 0.3)
    u = torch.stack([profile, torch.zeros_like(profile)])[None]
    w = flow.transform(curl(u, problem.grid, SCHEME)[:, 0])
    later = flow.advance(w, 2.0)
    assert (flow.velocity(later) - u).abs().max() < 1e-10
    disturbed = flow.advance(w + 1e-3 * vorticity(problem, 5, 1), 20.0)
    assert (flow.velocity(disturbed) - u).abs().max() < 1e-6


def test_energy_budget_closes(figure: Figure) -> None:
    r"""$\dot E = -2\nu Z - 2\alpha E + \langle\mathbf u\cdot\mathbf f\rangle$, by centred differences of second order."""
    problem = Kolmogorov(points=32, viscosity=0.02, drag=0.3, force=2.0)
    start = problem.flow().advance(vorticity(problem, 6), 0.5)
    force = problem.force * torch.sin(problem.mode * problem.grid.mesh()[1])

    def energy(w: Tensor) -> Tensor:
        return problem.flow().velocity(w).square().sum(1).mean((1, 2)) / 2

    errors = []
    for dt in (2e-3, 1e-3):
        flow = replace(problem, dt=dt).flow()
        middle = flow.advance(start, dt)
        rate = (energy(flow.advance(middle, dt)) - energy(start)) / (2 * dt)
        enstrophy = flow.vorticity(middle).square().mean((1, 2)) / 2
        work = (flow.velocity(middle)[:, 0] * force).mean((1, 2))
        terms = torch.stack([-2 * problem.viscosity * enstrophy, -2 * problem.drag * energy(middle), work])
        assert (terms.abs() > 1e-3).all()
        errors.append((rate - terms.sum(0)) / terms.abs().amax(0))
    assert errors[1].abs().max() < 1e-5
    assert order(*errors) == pytest.approx(2, abs=0.1)
    figure("kolmogorov", "energy budget: largest relative error", errors[1].abs().max(), "dE/dt = -2 nu Z - 2 drag E + <u.f>")
    figure("kolmogorov", "energy budget: order in the time step", order(*errors), "second-order differences", reference=2)


def test_kolmogorov_flow_is_fourth_order_in_time(figure: Figure) -> None:
    problem = Kolmogorov(points=32, viscosity=0.02)
    start = vorticity(problem, 7)
    ends = [replace(problem, dt=dt).flow().advance(start, 0.4) for dt in (0.01, 0.005, 0.0025)]
    assert order(ends[0] - ends[1], ends[1] - ends[2]) == pytest.approx(4, abs=0.25)
    figure("kolmogorov", "order in time", order(ends[0] - ends[1], ends[1] - ends[2]), "three step sizes", reference=4)


def test_kolmogorov_snapshots_follow_one_another() -> None:
    """Samples 2i and 2i + 1 are one trajectory, an interval apart; those of different trajectories are not."""
    flow, drawn = SMALL.flow(), SMALL.draw(4, seed=5).u
    w = flow.transform(curl(drawn, SMALL.grid, SCHEME)[:, 0])
    later = flow.velocity(flow.advance(w, SMALL.interval))
    assert (later[0] - drawn[1]).abs().max() < 1e-10
    assert (later[2] - drawn[3]).abs().max() < 1e-10
    assert (later[1] - drawn[2]).abs().max() > 1e-2


def test_trajectories_of_later_blocks_are_the_same() -> None:
    """Sample 31 ends a block of sixteen trajectories, 32 begins the next."""
    whole = SMALL.draw(4, seed=3, start=30).u
    assert torch.equal(whole[1:3], SMALL.draw(2, seed=3, start=31).u)
    assert torch.equal(whole[2:], SMALL.draw(2, seed=3, start=32).u)
    assert (whole - SMALL.draw(1, seed=3).u).abs().amax((1, 2, 3)).min() > 1e-2
