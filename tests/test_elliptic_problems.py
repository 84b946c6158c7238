"""Steady diffusion: the finite-volume operator and its solves, random coefficients, and the Darcy, Poisson and Helmholtz problems."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.fft
import scipy.integrate
import scipy.optimize
import scipy.sparse
import scipy.sparse.linalg
import torch
from torch import Tensor

from constraints import Axis, Constraint, Grid, Intersection, project
from constraints.linear.map import Linearised
from pcfm.laws import Context, build_all
from pde_datasets import loaders
from pde_datasets.problem import generator
from pde_datasets.problems import Darcy, Helmholtz, Poisson
from pde_datasets.problems.darcy import mean_bump, random_bumps
from pde_datasets.problems.helmholtz import respond
from pde_datasets.random_fields import cosine_fields, karhunen_loeve
from pde_datasets.solvers.elliptic import ControlVolumes, eigenvalues
from pde_datasets.solvers.elliptic_laws import FlowBalance, SourceResponse
from tests.conftest import Figure

PI = math.pi
BOTH = list(itertools.product((False, True), ("zero", "no-flux")))
"""Nodes or cells, between either kind of wall."""


def at(cells: bool, walls: str) -> str:
    return f"{'cells' if cells else 'nodes'}, {walls} walls"


def box(points: int | tuple[int, ...], cells: bool, walls: str) -> ControlVolumes:
    """Control volumes of the unit square, or of a box of side lengths 1, 1.5, 2, .."""
    counts = (points, points) if isinstance(points, int) else points
    lengths = (1.0,) * 2 if isinstance(points, int) else tuple(1 + 0.5 * i for i in range(len(counts)))
    axes = []
    for name, n, length in zip("xyz", counts, lengths, strict=False):
        axes.append(Axis(name, n, length=length, origin=length / n / 2 if cells else 0.0, cells=cells))
    return ControlVolumes(Grid(*axes), walls)


def noise(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rough(volumes: ControlVolumes, count: int, seed: int = 0, deviation: float = 1.0) -> Tensor:
    """Coefficients without any smoothness."""
    return torch.exp(deviation * noise((count, *volumes.grid.shape), seed))


def sources(volumes: ControlVolumes, count: int, seed: int = 1) -> Tensor:
    """Integrals over volumes, with zero sum between closed walls, none where u is given."""
    b = noise((count, *volumes.grid.shape), seed) * volumes.free
    return b - b.mean((1, 2), keepdim=True) if volumes.walls == "no-flux" else b


def assembled(a: np.ndarray, volumes: ControlVolumes) -> tuple[np.ndarray, np.ndarray]:
    """The matrix of the plane's balance, face by face, and the numbers of its free points."""
    n, m = a.shape
    x, y = volumes.grid.axes
    weights = x.weights().numpy(), y.weights().numpy()
    matrix = np.zeros((n * m, n * m))
    for i, j in itertools.product(range(n), range(m)):
        for k, other in enumerate(((i + 1, j), (i, j + 1))):
            h, area = (x.spacing, weights[1][j]) if k == 0 else (y.spacing, weights[0][i])
            if other[0] < n and other[1] < m:
                p, q = i * m + j, other[0] * m + other[1]
                conductance = area / h / (0.5 / a[i, j] + 0.5 / a[other])  # resistances in series
                for row, column in ((p, q), (q, p)):
                    matrix[row, row] += conductance
                    matrix[row, column] -= conductance
            if volumes.walls == "zero" and x.cells:
                ends = ((i in (0,)) + (i == n - 1), (j in (0,)) + (j == m - 1))[k]
                matrix[i * m + j, i * m + j] += ends * area / (h / 2) * a[i, j]
    return matrix, volumes.free.flatten().numpy().nonzero()[0]


# --- operator ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("cells", "walls"), BOTH)
@pytest.mark.parametrize("points", [(7,), (6, 9), (4, 5, 6)], ids=["line", "plane", "space"])
def test_waves_are_eigenfunctions_of_the_symbol(cells: bool, walls: str, points: tuple[int, ...]) -> None:
    r"""Sines, or cosines between closed walls, with $\sum\frac{4}{h^2}\sin^2\frac{m\pi h}{2L}$ as for the five-point symbol."""
    volumes = box(points, cells, walls)
    for modes in itertools.product((1, 2), repeat=len(points)):
        u, value = torch.ones(points, dtype=torch.float64), 0.0
        for axis, x, m in zip(volumes.grid.axes, volumes.grid.mesh(), modes, strict=True):
            u = u * (torch.sin if walls == "zero" else torch.cos)(m * PI * x / axis.extent)
            value += 4 / axis.spacing**2 * math.sin(m * PI * axis.spacing / 2 / axis.extent) ** 2
        u = u[None]
        left, right = volumes.outflow(u), value * volumes.volumes * u
        assert (left - right).abs().max() < 1e-12 * right.abs().max()
        assert (volumes.invert(right) - u).abs().max() < 1e-13
        assert (volumes.invert(right + 3.0 * volumes.volumes * u, 3.0) - u).abs().max() < 1e-13


@pytest.mark.parametrize(("cells", "walls"), BOTH)
def test_operator_is_the_one_assembled_face_by_face(cells: bool, walls: str) -> None:
    volumes = box((6, 5), cells, walls)
    a, u = rough(volumes, 2), noise((2, 6, 5), 3)
    u = u * volumes.free
    for i in range(2):
        matrix, free = assembled(a[i].numpy(), volumes)
        expected = (matrix @ u[i].flatten().numpy())[free]
        assert volumes.outflow(u, a)[i].flatten().numpy()[free] == pytest.approx(expected, abs=1e-13)


@pytest.mark.parametrize(("cells", "walls"), BOTH)
@pytest.mark.parametrize("deviation", [0.5, 2.0])
def test_solutions_are_those_of_dense_elimination(cells: bool, walls: str, deviation: float, figure: Figure) -> None:
    volumes = box((9, 8), cells, walls)
    worst = 0.0
    a, b = rough(volumes, 3, 2, deviation), sources(volumes, 3)
    u = volumes.solve(a, b)
    for i in range(3):
        matrix, free = assembled(a[i].numpy(), volumes)
        exact = np.zeros(72)
        exact[free] = np.linalg.lstsq(matrix[np.ix_(free, free)], b[i].flatten().numpy()[free], rcond=1e-13)[0]
        exact = exact.reshape(9, 8)
        if walls == "no-flux":
            exact = exact - (exact * volumes.volumes.numpy()).sum() / volumes.volumes.sum().item()
        assert u[i].numpy() == pytest.approx(exact, abs=1e-12 * np.abs(exact).max())
        worst = max(worst, np.abs(u[i].numpy() - exact).max() / np.abs(exact).max())
    if deviation == 2.0:
        figure("elliptic solver", f"{at(cells, walls)}, rough medium: largest relative error", worst, "dense elimination")


@pytest.mark.parametrize(("cells", "walls"), BOTH)
def test_balance_closes_to_round_off(cells: bool, walls: str, figure: Figure) -> None:
    """In every volume, and over all: what is lost through the walls is what the sources give."""
    volumes = box(48, cells, walls)
    a, b = rough(volumes, 3, 5), sources(volumes, 3)
    u = volumes.solve(a, b)
    assert (volumes.outflow(u, a) - b).abs().max() < 1e-12 * b.abs().max()
    error = (volumes.outflow(u, a) - b).abs().max() / b.abs().max()
    figure("elliptic solver", f"{at(cells, walls)}, rough medium: balance of every volume, relative", error, "exact: sources")
    assert (volumes.loss(u, a) - b.sum((1, 2))).abs().max() < 1e-12 * b.abs().sum((1, 2)).min()
    if walls == "no-flux":
        assert volumes.loss(u, a).abs().max() == 0
        assert (u * volumes.volumes).sum((1, 2)).abs().max() < 1e-14 * u.abs().max()
    elif not cells:
        assert (u[:, ~volumes.free] == 0).all()
    alone = volumes.solve(a[1:2], b[1:2])
    assert (alone[0] - u[1]).abs().max() < 1e-13 * u.abs().max()


def test_direct_factorisation_gives_the_same(figure: Figure) -> None:
    """On a two-valued medium of a hundred points an axis, by SuperLU."""
    problem = Darcy(points=100)
    a, u = problem.draw(1, seed=4).u[0].numpy()
    pad = np.pad(a, 1, mode="edge")
    centre, total, n = pad[1:-1, 1:-1], 0.0, 100
    bands, offsets = [], []
    index = np.arange(n * n).reshape(n, n)
    for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        other = pad[1 + dx : n + 1 + dx, 1 + dy : n + 1 + dy]
        inside = np.zeros((n + 2, n + 2), bool)
        inside[1:-1, 1:-1] = True
        inside = inside[1 + dx : n + 1 + dx, 1 + dy : n + 1 + dy]
        mean = np.where(inside, 2 * centre * other / (centre + other), 2 * centre)
        total = total + mean
        bands.append(-mean[inside])
        offsets.append((index[inside], (index + dx * n + dy)[inside]))
    rows, columns = (np.concatenate([pair[i] for pair in offsets]) for i in (0, 1))
    matrix = scipy.sparse.coo_matrix((np.concatenate(bands), (rows, columns)), shape=(n * n, n * n)) + scipy.sparse.diags(total.ravel())
    exact = scipy.sparse.linalg.spsolve(matrix.tocsc(), np.full(n * n, 1 / n**2)).reshape(n, n)
    assert u == pytest.approx(exact, rel=1e-12)
    figure("darcy", "two-phase medium, 100^2: largest relative difference", np.abs(u / exact - 1).max(), "SciPy's SuperLU")


# --- convergence -------------------------------------------------------------------------------------------------------------------


def manufactured(walls: str, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    r"""A smooth coefficient, a solution that fits the walls, and $-\nabla\cdot(a\nabla u)$ by automatic differentiation."""
    wave = torch.sin if walls == "zero" else torch.cos
    x, y = x.clone().requires_grad_(), y.clone().requires_grad_()
    a = 1 + 0.5 * torch.sin(PI * x + 0.3) * torch.cos(2 * y)
    u = wave(PI * x) * wave(2 * PI * y)
    f = torch.zeros_like(u)
    for s in (x, y):
        flux = a * torch.autograd.grad(u.sum(), s, create_graph=True)[0]
        f = f - torch.autograd.grad(flux.sum(), s, retain_graph=True)[0]
    return a.detach(), u.detach(), f.detach()


@pytest.mark.parametrize(("cells", "walls"), BOTH)
def test_second_order_on_a_manufactured_solution(cells: bool, walls: str, figure: Figure) -> None:
    errors = []
    for n in (32, 64, 128):
        volumes = box(n if cells else n + 1, cells, walls)
        a, exact, f = manufactured(walls, *volumes.grid.mesh())
        b = f * volumes.volumes * volumes.free
        if walls == "no-flux":  # the sum is zero up to the error of the quadrature
            b = b - b.sum() / volumes.volumes.sum() * volumes.volumes
        u = volumes.solve(a[None], b)[0]
        errors.append((u - exact).abs().max().item())
    assert math.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.1)
    assert math.log2(errors[1] / errors[2]) == pytest.approx(2, abs=0.05)
    assert errors[2] < 1e-3
    order = math.log2(errors[1] / errors[2])
    figure("darcy", f"smooth medium, {at(cells, walls)}, to 128^2: order", order, "manufactured solution", reference=2)
    figure("darcy", f"smooth medium, {at(cells, walls)}, 128^2: largest error", errors[2], "manufactured solution")


def test_second_order_across_a_jump(figure: Figure) -> None:
    """Where the coefficient jumps on a face, harmonic means keep the order; arithmetic ones would lose it."""

    def exact(x: Tensor) -> Tensor:
        """-(a u')' = 1 with a = 1 below 1/2 and 10 above: a u' = c - x."""
        c = (1 / 8 + 3 / 80) / (1 / 2 + 1 / 20)
        middle = c / 2 - 1 / 8
        return torch.where(x < 0.5, c * x - x**2 / 2, middle + (c * (x - 0.5) - (x**2 - 0.25) / 2) / 10)

    assert exact(torch.tensor(1.0, dtype=torch.float64)).abs() < 1e-15
    errors = []
    for n in (32, 64):
        volumes = box((n,), True, "zero")
        x = volumes.grid.mesh()[0]
        a = torch.where(x < 0.5, x.new_tensor(1.0), x.new_tensor(10.0))
        errors.append((volumes.solve(a[None], volumes.volumes)[0] - exact(x)).abs().max().item())
    assert math.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.05)
    assert errors[1] < 1e-4
    figure("darcy", "jump of the coefficient on a face: order", math.log2(errors[0] / errors[1]), "exact solution on a line", reference=2)


def torsion() -> float:
    r"""$u(\frac12, \frac12)$ of $-\nabla^2u = 1$, u = 0 on the walls of the unit square, by its Fourier series in one direction:

    $$\frac18 - \frac{4}{\pi^3}\sum_{m\text{ odd}}\frac{\sin(m\pi/2)}{m^3\cosh(m\pi/2)}.$$
    """
    return 0.125 - 4 / PI**3 * sum((-1) ** i / (2 * i + 1) ** 3 / math.cosh((2 * i + 1) * PI / 2) for i in range(20))


def test_centre_of_the_unit_square(figure: Figure) -> None:
    assert torsion() == pytest.approx(0.0736714, abs=5e-8)
    for cells, counts in ((False, (33, 65, 129)), (True, (33, 99))):
        values = []
        for n in counts:
            volumes = box(n, cells, "zero")
            constant = torch.full((1, n, n), 4.0, dtype=torch.float64)
            values.append(4 * volumes.solve(constant, volumes.volumes)[0, n // 2, n // 2].item())
        errors = [value - torsion() for value in values]
        ratio = counts[-1] / counts[-2] if cells else 2
        assert math.log(errors[-2] / errors[-1]) / math.log(ratio) == pytest.approx(2, abs=0.02)
        assert (ratio**2 * values[-1] - values[-2]) / (ratio**2 - 1) == pytest.approx(torsion(), abs=1e-8)
        centre = (ratio**2 * values[-1] - values[-2]) / (ratio**2 - 1)
        name = f"a = f = 1, {'cells' if cells else 'nodes'}, extrapolated: u at the centre"
        figure("darcy", name, centre, "Fourier series", reference=0.0736714)


def test_pyro2_multigrid_solution(figure: Figure) -> None:
    """The published field obeys our operator to its own residual, and our inverse gives it back."""
    path = (
        Path(os.environ.get("PCFM_DATA", Path(__file__).resolve().parents[1] / ".." / "shared" / "data")) / "pyro2/mg_poisson_dirichlet.h5"
    )
    if not path.exists():
        pytest.skip("no pyro2/mg_poisson_dirichlet.h5: it is among the regression data of github.com/python-hydro/pyro2, multigrid")
    fields = loaders.open(path)
    v, f = (fields.u[:, fields.channel(name)] for name in ("v", "f"))
    volumes = ControlVolumes(fields.grid, "zero")
    assert (-volumes.outflow(v) / volumes.volumes - f).abs().max() < 5e-11
    assert (volumes.invert(-f * volumes.volumes) - v).abs().max() < 1e-12
    error = (volumes.invert(-f * volumes.volumes) - v).abs().max()
    figure("poisson", "128^2 cells: largest difference", error, "pyro2's multigrid solution")
    x, y = fields.grid.mesh()
    assert (v[0] - (x**2 - x**4) * (y**4 - y**2)).abs().max().item() == pytest.approx(4.7e-6, rel=0.02)


# --- random coefficients -----------------------------------------------------------------------------------------------------------


def test_cosine_fields_have_the_stated_spectrum() -> None:
    """Power of every cosine on cells, by SciPy's transform, within five standard errors; the mean is zero."""
    count, n, m = 4000, 12, 9
    grid = box((n, m), True, "no-flux").grid

    def amplitude(k: Tensor) -> Tensor:
        return 3 / (k**2 + 9)

    g = cosine_fields(grid, amplitude, [generator(5, i) for i in range(count)])
    assert g.shape == (count, n, m)
    assert g.dtype == torch.float64
    assert g.mean((1, 2)).abs().max() < 1e-14
    power = (scipy.fft.dctn(g.numpy(), axes=(1, 2), norm="ortho") ** 2).mean(0) / (n * m)
    k2 = (PI * np.arange(n))[:, None] ** 2 + (PI * np.arange(m) / 1.5) ** 2
    expected = (3 / (k2 + 9)) ** 2
    expected[0, 0] = 0
    assert power[0, 0] < 1e-28
    moving = expected > 0
    assert np.abs(power[moving] / expected[moving] - 1).max() < 5 * math.sqrt(2 / count)


@pytest.mark.parametrize("cells", [False, True])
def test_cosine_fields_have_the_analytic_covariance(cells: bool, figure: Figure) -> None:
    r"""$\sum_m a_m^2\varphi_m(x)\varphi_m(y)$ at corner, wall and centre, of the field of Li et al. (alpha 2, tau 3)."""
    count, n = 6000, 17
    grid = box(n, cells, "no-flux").grid
    g = cosine_fields(grid, lambda k: 3.0 / (k**2 + 9), [generator(6, i) for i in range(count)])
    m = np.arange(n)
    a2 = (3 / (PI**2 * (m[:, None] ** 2 + m**2) + 9)) ** 2
    a2[0, 0] = 0
    x = grid.axes[0].positions().numpy()
    wave = np.where(m > 0, math.sqrt(2), 1.0) * np.cos(PI * x[:, None] * m)
    places = [(0, 0), (0, 8), (8, 8), (16, 3), (5, 11)]
    basis = np.stack([np.outer(wave[i], wave[j]).ravel() for i, j in places])
    exact = (basis * a2.ravel()) @ basis.T
    values = torch.stack([g[:, i, j] for i, j in places])
    found = (values @ values.mT / count).numpy()
    error = np.sqrt((exact**2 + np.outer(np.diag(exact), np.diag(exact))) / count)
    assert (np.abs(found - exact) < 5 * error).all()
    if cells:
        figure(
            "random fields",
            "cosine fields: covariance, largest error over its standard error",
            (np.abs(found - exact) / error).max(),
            "its series",
        )
    assert exact[0, 0] > 2 * exact[2, 2]


def test_expansion_with_all_terms_has_the_covariance() -> None:
    for points in ((7, 6), (5, 5), (9,)):
        grid = box(points, False, "no-flux").grid
        modes = karhunen_loeve(grid, lambda r: torch.exp(-r / 0.3), math.prod(points)).flatten(1)
        at = np.stack([x.flatten().numpy() for x in grid.mesh()], axis=1)
        exact = np.exp(-np.linalg.norm(at[:, None] - at, axis=2) / 0.3)
        assert (modes.mT @ modes).numpy() == pytest.approx(exact, abs=1e-13)
        gram = modes @ modes.mT
        assert (gram - torch.diag(gram.diagonal())).abs().max() < 1e-12
        assert (gram.diagonal().diff() <= 1e-13).all()


def test_modes_of_the_exponential_covariance(figure: Figure) -> None:
    r"""On a line they are known: $\lambda = 2\ell/(1 + \ell^2\omega^2)$, $\omega$ a root of $1 = \ell\omega\tan(\omega/2)$ or
    $\ell\omega = -\tan(\omega/2)$, approached at second order (Ghanem & Spanos, Stochastic Finite Elements, 1991, 2.3.3)."""
    length = 0.2
    roots = []
    for i in range(3):
        low, high = 2 * PI * i, 2 * PI * i + PI
        roots.append(scipy.optimize.brentq(lambda w: math.cos(w / 2) - length * w * math.sin(w / 2), low, high))
        roots.append(scipy.optimize.brentq(lambda w: length * w * math.cos(w / 2) + math.sin(w / 2), high, high + PI))
    exact = np.array([2 * length / (1 + (length * w) ** 2) for w in roots])
    errors = []
    for n in (100, 200):
        modes = karhunen_loeve(box((n,), True, "no-flux").grid, lambda r: torch.exp(-r / length), 6)
        errors.append(np.abs(modes.square().mean(1).numpy() - exact).max())
    assert math.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.1)
    assert errors[1] < 1e-4
    figure(
        "random fields",
        "exponential covariance: order of its eigenvalues",
        math.log2(errors[0] / errors[1]),
        "Ghanem & Spanos (1991)",
        reference=2,
    )
    figure("random fields", "exponential covariance, 200 points: error of six eigenvalues", errors[1], "Ghanem & Spanos (1991)")


def test_mean_of_a_bump(figure: Figure) -> None:
    """By quadrature over width and, in closed form, centres and places; and as samples have it."""
    for width in (0.5, 2.0):

        def over_square(s: float) -> float:
            return float(scipy.integrate.quad(lambda d: 2 * (1 - d) * math.exp(-(d**2) / s), 0, 1, epsabs=1e-12)[0]) ** 2

        exact = scipy.integrate.quad(lambda s: over_square(s) / width, 1e-9, width, epsabs=1e-10)[0]  # noqa: B023
        assert mean_bump(width) == pytest.approx(exact, rel=1e-5)
    means = random_bumps(box(16, True, "zero").grid, 5, 0.5, [generator(1, i) for i in range(4000)]).mean((1, 2))
    assert means.mean().item() == pytest.approx(5 * mean_bump(0.5), abs=5 * means.std().item() / math.sqrt(4000))
    figure("darcy", "preset pdebench: mean of the bumps of 4000", means.mean(), "quadrature", reference=round(5 * mean_bump(0.5), 3))


# --- Darcy flow --------------------------------------------------------------------------------------------------------------------

VARIANTS: dict[str, Darcy] = {
    **{name: Darcy.preset(name, points=20) for name in ("fno", "diffusionpde", "pidm", "pdebench")},
    "nodes": Darcy(points=17, cells=False),
    "extraction": Darcy(points=16, cells=False, strength=-2.0),
    "log-normal": Darcy(points=16, coefficient="log-normal", values=(0.5, 2.0)),
    "closed": Darcy(points=21, drive="corners", strength=3.0),
}


@pytest.mark.parametrize("problem", [*VARIANTS.values(), Poisson(points=40), Helmholtz(points=40, wavenumber=20.0)], ids=str)
def test_all_variants_obey_their_laws(problem: Darcy | Poisson | Helmholtz) -> None:
    drawn = problem.draw(3, seed=2)
    law = problem.constraint(drawn.parameters)
    context = Context(drawn.grid, drawn.channels, drawn.roles, drawn.laws, count=3)
    stated: Constraint = Intersection(build_all(drawn.laws, context))
    for leaf in (*law.leaves(), *stated.leaves()):
        residual, scale = leaf.measure(drawn.u)
        assert (leaf.excess(residual).abs() <= 1e-14 * scale).all(), leaf.name
    equation = law.leaves()[0]
    moved = drawn.u.clone()
    moved[:, 1, 5, 5] *= 1 + 1e-9
    residual, scale = equation.measure(moved)
    assert (residual.abs() > 1e-12 * scale).any(1).all()


@pytest.mark.parametrize("problem", VARIANTS.values(), ids=VARIANTS)
def test_what_is_lost_is_what_the_source_gives(problem: Darcy) -> None:
    """The source over the whole domain; on nodes, over all volumes but those of the walls, where u is given."""
    drawn = problem.draw(2, seed=3)
    given = 0.0 if problem.drive == "corners" else problem.strength * (1.0 if problem.cells else (1 - 1 / (problem.points - 1)) ** 2)
    assert (drawn.parameters["loss"] - given).abs().max() < 1e-12 * abs(problem.strength)
    assert (drawn.parameters["strength"] == problem.strength).all()


def test_two_phases_have_equal_shares(figure: Figure) -> None:
    a = Darcy.preset("fno", points=24).draw(600, seed=1).u[:, 0]
    assert a.unique().tolist() == [3.0, 12.0]
    share = (a == 12).to(torch.float64).mean((1, 2))
    assert share.mean().item() == pytest.approx(0.5, abs=5 * share.std().item() / math.sqrt(600))
    figure("darcy", "preset fno: share of the value 12 among 600", share.mean(), "symmetry of the field", reference=0.5)


def test_bumps_are_cut_at_the_mean_of_all() -> None:
    problem = Darcy.preset("pdebench", points=24)
    a = problem.draw(5, seed=1).u[:, 0]
    bumps = random_bumps(problem.grid, 5, 0.5, [generator(1, i) for i in range(5)])
    assert torch.equal(a, torch.where(bumps > 5 * mean_bump(0.5), bumps.new_tensor(1.0), bumps.new_tensor(0.1)))
    assert a.unique().tolist() == [0.1, 1.0]


def test_logarithms_have_the_stated_moments() -> None:
    """Pointwise: mean m, and variance s^2 times that of the field."""
    for problem, exact in (
        (Darcy(points=8, coefficient="log-normal", values=(0.3, 0.7)), None),
        (Darcy(points=8, coefficient="karhunen-loeve", shape=(0.2, 64.0), values=(0.3, 0.7)), 0.49),
    ):
        g = problem.draw(1500, seed=1).u[:, 0].log()
        assert (g.mean(0) - 0.3).abs().max() < 5 * g.std(0).max() / math.sqrt(1500)
        if exact is None:
            m = np.arange(8)
            a2 = (3 / (PI**2 * (m[:, None] ** 2 + m**2) + 9)) ** 2
            exact = 0.49 * (a2.sum() - a2[0, 0])
        variance = g.var(0).mean().item()
        assert variance == pytest.approx(exact, rel=0.15)


@pytest.mark.parametrize("cells", [False, True])
@pytest.mark.parametrize("points", [20, 33, 64])
def test_wells_give_as_much_as_they_take(cells: bool, points: int) -> None:
    r"""$\int f = 0$, $\int f_+ = 10\cdot 0.125^2$ on any grid, each in its corner."""
    f = Darcy.preset("pidm", points=points, cells=cells, shape=(0.1, 4.0)).sources()
    assert abs(f.sum().item()) < 1e-16
    assert f.clamp_min(0).sum().item() == pytest.approx(10 / 64, rel=1e-13)
    assert torch.equal(f, -f.flip(0, 1))
    half = points // 2
    assert (f[:half, :half] >= 0).all()
    assert f[:half, half:].abs().max() == 0
    if points == 64 and cells:
        assert torch.allclose(f[:8, :8], torch.full((8, 8), 10 / 64**2, dtype=torch.float64), rtol=1e-12)
        assert f[8:56].abs().max() == 0


def test_pressure_between_closed_walls(figure: Figure) -> None:
    """Zero mean; in a medium that a half turn leaves alone it changes sign under it; flow through any cut is what enters."""
    problem = Darcy.preset("pidm", points=32)
    drawn = problem.draw(3, seed=1)
    weights = problem.grid.weights()
    assert (drawn.u[:, 1] * weights).sum((1, 2)).abs().max() < 1e-15
    volumes = problem.volumes()
    a = drawn.u[:, 0] + drawn.u[:, 0].flip(1, 2)
    u = volumes.solve(a, problem.sources())
    assert (u + u.flip(1, 2)).abs().max() < 1e-12 * u.abs().max()
    through = volumes.flows(drawn.u[:, 1], drawn.u[:, 0])[0][:, 16].sum(1)
    assert (through - 10 / 64).abs().max() < 1e-13
    figure("darcy", "preset pidm: flow through a cut, largest error", (through - 10 / 64).abs().max(), "exact: what the well gives")


def test_solution_converges_with_the_wells(figure: Figure) -> None:
    """At second order in the middle of a uniform medium, since sources are integrated over volumes, not sampled."""
    values = []
    for n in (24, 48, 96):
        problem = Darcy(points=n, drive="corners", strength=10.0)
        volumes = problem.volumes()
        u = volumes.solve(torch.ones(1, n, n, dtype=torch.float64), problem.sources())[0]
        values.append(u[: n // 4, : n // 4].mean().item())  # over a square of fixed size
    assert math.log2(abs(values[0] - values[1]) / abs(values[1] - values[2])) == pytest.approx(2, abs=0.15)
    order = math.log2(abs(values[0] - values[1]) / abs(values[1] - values[2]))
    figure("darcy", "wells, 24 to 96 volumes: order", order, "three resolutions", reference=2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"coefficient": "nonsense"}, "coefficient among two-phase"),
        ({"drive": "nonsense"}, "drive among uniform, corners"),
        ({"points": 3}, "at least 4 points"),
        ({"shape": (1.0, 3.0)}, "alpha > 1"),
        ({"coefficient": "karhunen-loeve", "shape": (0.1, 9999.0), "values": (0.0, 1.0)}, "1 to 4096 terms"),
        ({"coefficient": "bumps", "shape": (0.5, 1.0)}, "at least one bump"),
        ({"values": (12.0, 3.0)}, "smaller first"),
        ({"coefficient": "log-normal", "values": (0.0, 0.0)}, "positive deviation"),
        ({"strength": 0.0}, "not zero"),
    ],
)
def test_wrong_settings_of_darcy_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Darcy(**settings)


# --- Poisson and Helmholtz ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wavenumber", [0.0, 1.0, 7.3])
def test_responses_to_eigenfunctions(wavenumber: float, figure: Figure) -> None:
    r"""$f = (k^2 - \lambda)\sin\sin$ gives $\sin\sin$ to round-off for the scheme's eigenvalue, at second order for $\pi^2(m^2 + n^2)$."""
    errors = []
    for points in (33, 65):
        grid = Poisson(points=points).grid
        (x, y), h = grid.mesh(), 1 / (points - 1)
        wave = (torch.sin(PI * x) * torch.sin(3 * PI * y))[None]
        symbol = 4 / h**2 * (math.sin(PI * h / 2) ** 2 + math.sin(3 * PI * h / 2) ** 2)
        exact = respond((wavenumber**2 - symbol) * wave, grid, wavenumber)[0][:, 1]
        assert (exact - wave).abs().max() < 1e-13
        off = (exact - wave).abs().max()
        errors.append((respond((wavenumber**2 - 10 * PI**2) * wave, grid, wavenumber)[0][:, 1] - wave).abs().max().item())
    assert math.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.05)
    name, k = ("helmholtz", f"k = {wavenumber:g}, ") if wavenumber else ("poisson", "")
    figure(name, f"{k}sine waves: largest error", off, "exact: eigenvalue of the five-point symbol")
    figure(name, f"{k}sine waves: order", math.log2(errors[0] / errors[1]), "exact: k^2 - pi^2(m^2 + n^2)", reference=2)


@pytest.mark.parametrize("problem", [Poisson(points=50), Helmholtz(points=50, wavenumber=11.0)], ids=["poisson", "helmholtz"])
def test_responses_solve_the_five_point_equation(problem: Poisson | Helmholtz, figure: Figure) -> None:
    """Written out at inner nodes, to the round-off of u / h^2; the flow out is minus what the source and u give."""
    drawn = problem.draw(4, seed=1)
    f, u = drawn.u.unbind(1)
    k2 = problem.wavenumber**2 if isinstance(problem, Helmholtz) else 0.0
    h = 1 / 49
    inner = u[:, 1:-1, 1:-1]
    laplacian = (u[:, 2:, 1:-1] + u[:, :-2, 1:-1] + u[:, 1:-1, 2:] + u[:, 1:-1, :-2] - 4 * inner) / h**2
    assert (laplacian + k2 * inner - f[:, 1:-1, 1:-1]).abs().max() < 16 * torch.finfo(u.dtype).eps * u.abs().max() / h**2 + 1e-13
    residual = (laplacian + k2 * inner - f[:, 1:-1, 1:-1]).abs().max() / laplacian.abs().max()
    figure(problem.name, "largest residual of the five-point equation, relative", residual, "written out")
    given = ((k2 * inner - f[:, 1:-1, 1:-1]) * h**2).sum((1, 2))
    assert (drawn.parameters["loss"] - given).abs().max() < 1e-13
    assert u[:, [0, -1]].abs().max() == 0
    assert u[:, :, [0, -1]].abs().max() == 0


def test_poisson_is_helmholtz_at_wavenumber_zero() -> None:
    poisson, helmholtz = Poisson(points=20).draw(2), Helmholtz(points=20, wavenumber=0.0).draw(2)
    assert torch.equal(poisson.u, helmholtz.u)


def test_resonance_is_refused() -> None:
    line = eigenvalues(Poisson(points=30).grid.axes[0], "zero")
    k = math.sqrt(line[0] + line[2])
    with pytest.raises(ValueError, match=r"not an eigenvalue.*30 points"):
        Helmholtz(points=30, wavenumber=k)
    assert Helmholtz(points=31, wavenumber=k)
    volumes = box(30, False, "zero")
    with pytest.raises(ValueError, match="minus an eigenvalue"):
        volumes.invert(volumes.volumes[None], -(line[0] + line[2]).item())


@pytest.mark.parametrize("make", [Poisson, Helmholtz])
@pytest.mark.parametrize("settings", [{"points": 3}, {"alpha": 1.0}, {"tau": 0.0}, {"tau": math.inf}])
def test_wrong_sources_are_refused(make: Callable[..., Poisson | Helmholtz], settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expects"):
        make(**settings)


# --- laws --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reaction", [0.0, -30.0])
@pytest.mark.parametrize("scales", [(1.0, 1.0), (0.3, 5.0)])
def test_source_response_inverts_its_gram_matrix(reaction: float, scales: tuple[float, float]) -> None:
    volumes = box((7, 6), False, "zero")
    plain = SourceResponse(volumes, reaction)
    diagonal = torch.tensor(scales, dtype=torch.float64)[:, None, None].expand(2, 7, 6).clone()
    diagonal[1, 0] = 0.0  # values given on a wall
    operator = plain.weighted(diagonal)
    assert isinstance(operator, SourceResponse)
    u, y = noise((3, 2, 7, 6)), noise((3, operator.rows), 1)
    assert torch.allclose((operator(u) * y).sum(1), (u * operator.adjoint(y)).sum((1, 2, 3)))
    expected = plain(u * diagonal)
    u[:, 1, 0] = 0.0
    assert torch.allclose(operator(u), expected)
    dense = operator(torch.eye(84, dtype=torch.float64).reshape(84, 2, 7, 6)).mT
    assert torch.allclose(operator.solve_gram(y) @ (dense @ dense.mT), y, rtol=1e-9, atol=1e-11)
    uneven = noise((2, 7, 6), 2)
    other = plain.weighted(uneven)
    assert not isinstance(other, SourceResponse)
    assert torch.allclose(other(u), plain(uneven * u))


@pytest.mark.parametrize("problem", [Poisson(points=65), Helmholtz(points=65, wavenumber=20.0)], ids=["poisson", "helmholtz"])
def test_nearest_lawful_pairs(problem: Poisson | Helmholtz) -> None:
    """In one step; a solution comes back as it is, and what is added is orthogonal to every change that the law allows."""
    drawn = problem.draw(2, seed=1)
    law = problem.constraint(drawn.parameters)
    same = project(law, drawn.u)
    assert (same.u - drawn.u).abs().max() < 1e-13
    result = project(law, drawn.u + noise(tuple(drawn.u.shape)))
    assert result.converged.all()
    assert result.iterations == 1
    allowed = problem.draw(2, seed=2).u
    change = drawn.u + noise(tuple(drawn.u.shape)) - result.u
    assert ((change * allowed).sum((1, 2, 3)).abs() < 1e-11 * change.norm() * allowed.norm()).all()


@pytest.mark.parametrize(
    "problem", [replace(VARIANTS["nodes"], points=10), replace(VARIANTS["closed"], points=12), Darcy(points=32)], ids=str
)
def test_nearest_lawful_flows(problem: Darcy) -> None:
    drawn = problem.draw(2, seed=1)
    law = problem.constraint(drawn.parameters)
    result = project(law, drawn.u * (1 + 0.02 * noise(tuple(drawn.u.shape))))
    assert result.converged.all()
    assert (law.residual(result.u).abs() <= 1e-12 * law.scale(result.u)).all()
    assert (result.u[:, 0] > 0).all()


@pytest.mark.parametrize(("cells", "walls"), BOTH)
def test_jacobian_of_the_flow_balance(cells: bool, walls: str) -> None:
    """By central differences, by automatic differentiation, and by its adjoint; u on walls counts although the scheme leaves it alone."""
    volumes = box((7, 6), cells, walls)
    law = FlowBalance(volumes, noise((7, 6), 4))
    u = torch.stack([rough(volumes, 2), noise((2, 7, 6), 1)], dim=1)
    v, step = noise((2, 2, 7, 6), 2), 1e-6
    jacobian = law.jacobian(u)
    central = (law.residual(u + step * v) - law.residual(u - step * v)) / (2 * step)
    assert (jacobian(v) - central).abs().max() < 1e-7 * central.abs().max()
    assert torch.allclose(jacobian(v), Linearised(law.residual, u)(v), rtol=1e-12, atol=1e-12)
    y = noise((2, jacobian.rows), 3)
    assert torch.allclose((jacobian(v) * y).sum(1), (v * jacobian.adjoint(y)).sum((1, 2, 3)))
    r = jacobian(v)
    for dense in (True, False):
        jacobian.dense_rows = 512 if dense else 0
        assert torch.allclose(jacobian(jacobian.adjoint(jacobian.solve_gram(r))), r, rtol=1e-8, atol=1e-8)


# --- errors ------------------------------------------------------------------------------------------------------------------------


def test_boxes_that_do_not_fit_are_refused() -> None:
    bad = [
        (Grid(Axis("x", 5)), "open", "walls among zero, no-flux"),
        (Grid(Axis("time", 5), Axis("x", 5)), "zero", "got 'time'"),
        (Grid(Axis("x", 5, periodic=True)), "zero", "periodic"),
        (Grid(Axis("x", 3, coordinates=(0.0, 0.1, 1.0))), "zero", "not equally spaced"),
        (Grid(Axis("x", 2)), "zero", "at least 3 points"),
    ]
    for grid, walls, message in bad:
        with pytest.raises(ValueError, match=message):
            ControlVolumes(grid, walls)


def test_flows_that_cannot_be_solved_for_are_refused() -> None:
    closed, held = box(6, True, "no-flux"), box(6, True, "zero")
    ones = torch.ones(1, 6, 6, dtype=torch.float64)
    with pytest.raises(ValueError, match="sum to zero"):
        closed.solve(ones, ones)
    for wrong in (0.0, -1.0, math.nan, math.inf):
        a = ones.clone()
        a[0, 2, 2] = wrong
        with pytest.raises(ValueError, match="positive, finite"):
            held.solve(a, ones)
    assert held.solve(ones, 0 * ones).abs().max() == 0
    with pytest.raises(ValueError, match="of this contrast"):
        held.solve(rough(held, 1, 0, 30.0), ones, max_iterations=3)
