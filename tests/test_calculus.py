"""Grids and discrete calculus: orders of accuracy, exact cases, identities, and refusals."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from constraints import Axis, Grid, Units
from constraints.calculus import CentralDifference, Scheme, Spectral, curl, divergence, finite_volume, gradient, integral, laplacian, mean
from constraints.calculus.finite_difference import fornberg
from constraints.calculus.spectral import dealiasing, wavenumbers

TAU = 2 * math.pi


def normal(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def stretched(n: int, periodic: bool) -> Axis:
    """Smoothly unequal spacing."""
    s = torch.arange(n, dtype=torch.float64) / (n if periodic else n - 1)
    x = s + 0.1 * torch.sin(TAU * s) / TAU
    return Axis.at("x", x.tolist(), periodic=periodic, length=1.0 if periodic else None)


AXES: dict[str, Callable[[int], Axis]] = {
    "periodic": lambda n: Axis("x", n, periodic=True),
    "bounded": lambda n: Axis("x", n),
    "cells": lambda n: Axis("x", n, cells=True, origin=0.5 / n),
    "stretched": lambda n: stretched(n, False),
    "stretched periodic": lambda n: stretched(n, True),
}


@pytest.mark.parametrize("order", [2, 4])
@pytest.mark.parametrize("axis", AXES.values(), ids=AXES)
def test_observed_order_of_differences(axis: Callable[[int], Axis], order: int) -> None:
    errors = []
    for n in (64, 128):
        grid = Grid(axis(n))
        x = grid.axes[0].positions()
        derivative = CentralDifference(order).derivative(torch.sin(TAU * x + 0.3), grid, "x")
        errors.append((derivative - TAU * torch.cos(TAU * x + 0.3)).abs().max())
    assert torch.log2(errors[0] / errors[1]).item() == pytest.approx(order, abs=0.35)


@pytest.mark.parametrize("n", [15, 16])
def test_spectral_derivative_is_exact_below_nyquist(n: int) -> None:
    grid = Grid(Axis("x", n, length=3.0, periodic=True))
    x, k = grid.axes[0].positions(), TAU / 3.0
    for mode in range(1, (n - 1) // 2 + 1):
        derivative = Spectral().derivative(torch.sin(mode * k * x + 0.2), grid, "x")
        assert torch.allclose(derivative, mode * k * torch.cos(mode * k * x + 0.2), atol=1e-11)


@pytest.mark.parametrize("scheme", [Spectral(), CentralDifference(), CentralDifference(4)], ids=["spectral", "central", "fourth"])
def test_modified_wavenumber_is_what_the_scheme_does_to_waves(scheme: Scheme) -> None:
    grid = Grid(Axis("x", 12, length=TAU, periodic=True))
    x = grid.axes[0].positions()
    for mode in range(6):
        wave = torch.exp(1j * mode * x)
        found = torch.complex(scheme.derivative(wave.real, grid, "x"), scheme.derivative(wave.imag, grid, "x"))
        assert torch.allclose(found, 1j * scheme.wavenumber(grid.axes[0])[mode] * wave, atol=1e-12)
    nyquist = torch.cos(6 * x)
    assert scheme.derivative(nyquist, grid, "x").abs().max() < 1e-12
    assert scheme.wavenumber(grid.axes[0])[6] == 0


def test_fornberg_reproduces_polynomials() -> None:
    points = np.array([0.0, 0.3, 0.35, 0.9, 1.4])
    weights = fornberg(0.4, points)
    for power in range(5):
        assert weights @ points**power == pytest.approx(power * 0.4 ** (power - 1) if power else 0.0, abs=1e-12)


@pytest.mark.parametrize("scheme", [Spectral(), CentralDifference()], ids=["spectral", "central"])
def test_vector_identities(scheme: Scheme) -> None:
    plane = Grid(Axis("x", 8, length=TAU, periodic=True), Axis("y", 9, length=2.0, periodic=True))
    box = Grid(*(Axis(n, 6, length=TAU, periodic=True) for n in "xyz"))
    assert curl(gradient(normal((2, 1, 8, 9), 1), plane, scheme), plane, scheme).abs().max() < 1e-11
    field = normal((2, 3, 6, 6, 6), 2)
    assert divergence(curl(field, box, scheme), box, scheme).abs().max() < 1e-11
    scalar = normal((2, 1, 6, 6, 6), 3)
    assert torch.allclose(divergence(gradient(scalar, box, scheme), box, scheme), laplacian(scalar, box, scheme), atol=1e-11)
    parts = integral(gradient(scalar, box, scheme) * field, box).sum(1) + integral(scalar * divergence(field, box, scheme), box)[:, 0]
    assert parts.abs().max() < 1e-11


def test_curl_of_rigid_rotation() -> None:
    grid = Grid(Axis("time", 3), Axis("x", 7), Axis("y", 6))
    _, x, y = grid.mesh()
    rotation = torch.stack([-y, x])[None]
    assert torch.allclose(curl(rotation, grid, CentralDifference()), torch.full((1, 1, 3, 7, 6), 2.0, dtype=torch.float64))


@pytest.mark.parametrize("axis", AXES.values(), ids=AXES)
def test_quadrature_order_and_measure(axis: Callable[[int], Axis]) -> None:
    errors = []
    for n in (32, 64):
        grid = Grid(axis(n))
        x = grid.axes[0].positions()
        assert grid.weights().sum().item() == pytest.approx(1.0, abs=1e-12)
        value = integral(torch.exp(torch.sin(TAU * x) + (0 if grid.axes[0].periodic else x))[None, None], grid)
        exact = _reference(grid.axes[0].periodic)
        errors.append(abs(value.item() - exact))
    assert errors[1] < 1e-12 or math.log2(errors[0] / errors[1]) > 1.8


def _reference(periodic: bool) -> float:
    x, w = np.polynomial.legendre.leggauss(200)
    x = (x + 1) / 2
    return float((w / 2) @ np.exp(np.sin(TAU * x) + (0 if periodic else x)))


def test_mean_of_a_constant_is_the_constant_on_any_axes() -> None:
    grid = Grid(Axis("time", 5, length=2.0), stretched(9, False))
    u = torch.full((2, 1, 5, 9), 3.0, dtype=torch.float64)
    assert torch.allclose(mean(u, grid), torch.tensor(3.0, dtype=torch.float64))
    assert torch.allclose(mean(u, grid, ["time", "x"]), torch.tensor(3.0, dtype=torch.float64))
    assert torch.allclose(integral(u, grid, ["time"]), torch.tensor(6.0, dtype=torch.float64))


def test_dealiasing_removes_what_products_of_kept_modes_alias_onto() -> None:
    grid = Grid(Axis("x", 24, length=TAU, periodic=True))
    mask = dealiasing(grid)
    kept = torch.fft.irfft(torch.fft.rfft(normal((1, 24), 5)) * mask, n=24)
    fine = torch.fft.irfft(torch.nn.functional.pad(torch.fft.rfft(kept), (0, 12)), n=48) * 2
    exact = torch.fft.rfft(fine.square())[:, :13] / 2
    assert torch.allclose(torch.fft.rfft(kept.square()) * mask, exact * mask, atol=1e-12)
    assert int(mask.sum()) == 8


def test_coordinates_are_recognised_as_equally_spaced_or_not() -> None:
    single = np.linspace(0, 1, 1024, endpoint=False, dtype=np.float32)
    axis = Axis.at("x", single.tolist(), periodic=True)
    assert axis.uniform
    assert axis.extent == pytest.approx(1.0, rel=1e-5)
    assert not Axis.at("x", [0.0, 1.0, 2.5]).uniform
    assert Axis.at("x", [2.0, 3.0, 4.0], periodic=True).extent == pytest.approx(3.0)
    assert wavenumbers(Axis("x", 4, length=TAU, periodic=True)).tolist() == [0.0, 1.0, -2.0, -1.0]


@pytest.mark.parametrize("axis", [make(9) for make in AXES.values()], ids=AXES)
def test_axes_survive_json(axis: Axis) -> None:
    assert Axis.from_json(json.loads(json.dumps(axis.to_json()))) == axis


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Axis("x", 0), "at least one point"),
        (lambda: Axis("x", 4, length=-1.0), "positive length"),
        (lambda: Axis("x", 4, length=math.nan), "positive length"),
        (lambda: Axis("x", 4, periodic=True, cells=True), "bounded"),
        (lambda: Axis("x", 3, coordinates=(0.0, 2.0, 1.0)), "increasing"),
        (lambda: Axis("x", 3, coordinates=(0.0, 1.0)), "3 coordinates"),
        (lambda: Axis("x", 3, coordinates=(0.0, 1.0, 2.0), periodic=True, length=2.0), "period"),
        (lambda: stretched(9, False).spacing, "no single spacing"),
        (lambda: Grid(), "at least one axis"),
        (lambda: Grid(Axis("x", 3), Axis("x", 3)), "different names"),
        (lambda: Grid(Axis("x", 3), Axis("time", 3)), "time first"),
        (lambda: Grid(Axis("x", 3)).dim("y"), "no axis 'y'"),
        (lambda: integral(torch.zeros(2, 1, 3, 5), Grid(Axis("time", 5), Axis("x", 3))), "another order"),
        (lambda: integral(torch.zeros(2, 3), Grid(Axis("x", 3))), "channel dimension"),
        (lambda: CentralDifference(3), "even order"),
        (lambda: CentralDifference(4).derivative(torch.zeros(3), Grid(Axis("x", 3)), "x"), "at least 5 points"),
        (lambda: Spectral().wavenumber(Axis("x", 8)), "bounded"),
        (lambda: curl(torch.zeros(1, 1, 4), Grid(Axis("x", 4, periodic=True)), Spectral()), "two or three"),
        (lambda: Units(torch.zeros(2), torch.zeros(2)), "positive scales"),
        (lambda: Units(torch.zeros(2), torch.ones(3)), "one shift"),
    ],
)
def test_wrong_grids_and_fields_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_units_measure_normalise_and_share_a_scale_between_like_channels() -> None:
    u = normal((50, 3, 8, 8), 7) * torch.tensor([1.0, 3.0, 10.0])[:, None, None].double() + 2
    units = Units.measure(u, ("m s-1", "m s-1", "Pa"))
    assert units.scale[0] == units.scale[1] != units.scale[2]
    x = units.normalise(u)
    assert torch.allclose(units.physical(x), u)
    assert x.mean((0, 2, 3)).abs().max() < 1e-12
    assert x[:, :2].var(correction=0).item() == pytest.approx(1.0, abs=1e-9)


FLUXES = {
    "Godunov": finite_volume.godunov(lambda u: u.square() / 2),
    "Rusanov": finite_volume.rusanov(lambda u: u.square() / 2, torch.abs),
    "central": finite_volume.central(lambda u: u.square() / 2),
    "upwind": finite_volume.upwind(0.5),
    "upwind, leftward": finite_volume.upwind(-0.5),
}
"""Numerical fluxes and, by name, what they are fluxes of: Burgers, or advection at half speed."""


@pytest.mark.parametrize("name", FLUXES)
def test_fluxes_are_consistent_and_conserve(name: str) -> None:
    u = torch.randn(3, 1, 24, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    exact = {"upwind": 0.5 * u, "upwind, leftward": -0.5 * u}.get(name, u.square() / 2)
    assert torch.allclose(FLUXES[name](u, u), exact, atol=1e-15)
    grid = Grid(Axis("x", 24, length=2.0, periodic=True))
    assert finite_volume.cell_balance(FLUXES[name], grid, "x")(u).sum(-1).abs().max() < 1e-12


@pytest.mark.parametrize(("name", "order"), [("Godunov", 1), ("Rusanov", 1), ("central", 2), ("upwind", 1), ("upwind, leftward", 1)])
def test_cell_balances_converge_to_the_divergence_of_the_flux(name: str, order: int) -> None:
    errors = []
    for n in (64, 128, 256):
        grid = Grid(Axis("x", n, length=2 * torch.pi, periodic=True))
        x = grid.axes[0].positions()
        u, slope = 2 + torch.sin(x), torch.cos(x)
        exact = -{"upwind": 0.5, "upwind, leftward": -0.5}.get(name, u) * slope
        errors.append((finite_volume.cell_balance(FLUXES[name], grid, "x")(u[None, None])[0, 0] - exact).abs().max().item())
    assert math.log2(errors[1] / errors[2]) == pytest.approx(order, abs=0.1)


def test_upwinding_takes_the_side_the_flow_comes_from() -> None:
    before, behind = torch.tensor(1.0), torch.tensor(3.0)
    assert FLUXES["upwind"](before, behind) == 0.5
    assert FLUXES["upwind, leftward"](before, behind) == -1.5
    assert FLUXES["Rusanov"](before, behind) == (0.5 + 4.5) / 2 - 3.0 / 2 * 2
