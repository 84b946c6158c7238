"""Metrics against closed forms: Gaussians, quantiles, spectra, increments, exchangeable ranks, exact solutions, published operators."""

from __future__ import annotations

import inspect
import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import torch
from torch import Tensor

import pcfm.metrics
from constraints import (
    Axis,
    Bounds,
    Budget,
    Constraint,
    CurlFree,
    DivergenceFree,
    Energy,
    EnergyDecay,
    EvolutionEquation,
    Grid,
    InitialCondition,
    Integral,
    Intersection,
    Mass,
    Momentum,
    Neumann,
    Robin,
)
from constraints.calculus import CentralDifference, Spectral
from pcfm.cli import main
from pcfm.evaluation import EQUATIONS, PUBLISHED, compare
from pcfm.metrics import (
    PrincipalFeatures,
    RandomConvolutions,
    amplitude_bands,
    amplitude_ratio,
    bandwidths,
    bootstrap,
    constraint_error,
    coverage,
    crps,
    energy_distance,
    energy_spectrum,
    enstrophy_spectrum,
    equation_residual,
    feasible_fraction,
    flatness,
    frechet_distance,
    held_out,
    increment_distance,
    increment_pdf,
    increments,
    mean_error,
    mmd,
    mmse,
    noise_floor,
    pit,
    pit_deviation,
    power_law,
    rank_histogram,
    ranks,
    scheme_errors,
    scheme_residual,
    seed_interval,
    sliced_wasserstein,
    smse,
    spread_skill,
    structure_error,
    structure_function,
    violation,
    wasserstein,
)
from pcfm.metrics import equations as rates
from pcfm.metrics import literature as published
from pcfm.metrics.catalogue import GROUPS, METRICS, select
from pcfm.metrics.distribution import distances
from pcfm.metrics.held_out import other_weights
from pcfm.metrics.stream import stream
from pde_datasets import PROBLEMS, Fields
from tests.test_docs import blocks, run_console


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def box(*points: int, length: float = 2 * math.pi, times: int = 0) -> Grid:
    space = [Axis(name, n, length=length, periodic=True) for name, n in zip("xyz", points, strict=False)]
    return Grid(*([Axis("time", times, length=1.0)] if times else []), *space)


def power_noise(count: int, n: int, exponent: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Periodic Gaussian fields (count, 1, n) with energies proportional to k to an exponent, and the energies' expectations."""
    k = torch.arange(n // 2 + 1, dtype=torch.float64)
    energy = torch.where((k > 0) & (k < n // 2), k.clamp(min=1) ** exponent, 0.0)
    modes = torch.complex(normal(count, n // 2 + 1, seed=seed), normal(count, n // 2 + 1, seed=seed + 1)) / math.sqrt(2)
    return torch.fft.irfft(modes * energy.sqrt() * n, n=n)[:, None], energy


# --- distances ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "m"), [(1, 1), (7, 7), (5, 8), (12, 18), (1, 9)])
def test_wasserstein_agrees_with_scipy_and_is_symmetric(n: int, m: int) -> None:
    x, y = normal(3, n, seed=1), 2 * normal(3, m, seed=2) + 1
    expected = [scipy.stats.wasserstein_distance(a.numpy(), b.numpy()) for a, b in zip(x, y, strict=True)]
    assert wasserstein(x, y).tolist() == pytest.approx(expected, rel=1e-12)
    assert torch.allclose(wasserstein(x, y, 2), wasserstein(y, x, 2), rtol=1e-12)


def test_wasserstein_of_repeated_samples_and_shifts() -> None:
    """Repeating all samples changes nothing, whatever the sizes; a shift is the distance for every order."""
    x, y = normal(6), normal(9, seed=1)
    for order in (1.0, 2.0, 3.5):
        assert torch.allclose(wasserstein(x.repeat(3), y, order), wasserstein(x, y, order), rtol=1e-12)
        assert wasserstein(x + 2.5, x.repeat(2), order).item() == pytest.approx(2.5, rel=1e-12)


def test_wasserstein_rejects_what_does_not_fit() -> None:
    for x, y, order, message in ((normal(2, 3), normal(3, 3), 1, "expects samples"), (normal(3), normal(3), 0.5, "at least 1")):
        with pytest.raises(ValueError, match=message):
            wasserstein(x, y, order)


def test_pair_distances_are_those_of_differences() -> None:
    """Far pairs by products, near ones by differences, to round-off of the distance itself."""
    y = normal(20, 50) + 1e3
    x = torch.cat([y[:5] + 1e-7 * normal(5, 50, seed=1), y[5:8], normal(6, 50, seed=2)])
    expected = (x[:, None] - y).norm(dim=2)
    assert torch.allclose(distances(x, y), expected, rtol=1e-11, atol=1e-16)
    assert (distances(y, y).diagonal() == 0).all()


def test_sliced_wasserstein_of_point_masses_is_their_root_mean_square_distance() -> None:
    difference = normal(2, 30)
    u = torch.zeros(3, 2, 30, dtype=torch.float64)
    value = sliced_wasserstein(u + difference, u[:2], torch.ones(2), projections=4096).item()
    assert value == pytest.approx(difference.square().mean().sqrt().item(), rel=0.03)


@pytest.mark.parametrize("points", [4, 64])
def test_sliced_wasserstein_of_gaussians(points: int) -> None:
    r"""Isotropic normal laws: squared, the mean square of the shift plus $(s - t)^2$, at any resolution."""
    u, v = 2 * normal(4000, 1, points, seed=1) + 1.0, normal(3000, 1, points, seed=2)
    value = sliced_wasserstein(u, v, torch.ones(1), projections=512)
    assert value.item() == pytest.approx(math.sqrt(1.0 + 1.0), rel=0.05)


def test_sliced_wasserstein_is_seeded_and_forgets_units() -> None:
    u, v = normal(20, 2, 6), 1.3 * normal(30, 2, 6, seed=1)
    assert sliced_wasserstein(u, v) == sliced_wasserstein(u, v)
    assert sliced_wasserstein(u, v) != sliced_wasserstein(u, v, generator=torch.Generator().manual_seed(1))
    factor = torch.tensor([1.0, 1e5], dtype=torch.float64).view(1, 2, 1)
    assert torch.allclose(sliced_wasserstein(factor * u, factor * v), sliced_wasserstein(u, v), rtol=1e-10)
    assert sliced_wasserstein(u, u) == 0
    with pytest.raises(ValueError, match="at least one projection"):
        sliced_wasserstein(u, v, projections=0)


def test_mmd_of_gaussians() -> None:
    r"""$\mathrm E\,e^{-|z|^2/2h^2} = (1 + v/h^2)^{-D/2} e^{-|\delta|^2/2(h^2 + v)}$ for $z\sim N(\delta, vI)$ in D dimensions."""
    points, h, s, t, shift = 6, torch.tensor([0.5, 1.0], dtype=torch.float64), 1.5, 1.0, 0.8

    def kernel(variance: float, delta: float) -> float:
        v = variance / points
        return float(((1 + v / h**2) ** (-points / 2) * torch.exp(-(delta**2) / (2 * (h**2 + v)))).mean())

    expected = kernel(2 * s**2, 0) + kernel(2 * t**2, 0) - 2 * kernel(s**2 + t**2, shift)
    u, v = s * normal(1500, 1, points, seed=1) + shift, t * normal(1500, 1, points, seed=2)
    assert mmd(u, v, torch.ones(1), widths=h).item() == pytest.approx(expected, rel=0.06)


def test_mmd_has_no_bias() -> None:
    scale, h = torch.ones(1), torch.ones(1)
    values = torch.stack([mmd(normal(4, 1, 3, seed=2 * i), normal(4, 1, 3, seed=2 * i + 1), scale, widths=h) for i in range(400)])
    error = values.std().item() / math.sqrt(len(values))
    biased = 2 / 4 * (1 - (1 + 2 / 3) ** -1.5)  # what pairs of a sample with itself would add
    assert abs(values.mean().item()) < 3 * error < 0.2 * biased
    assert (values < 0).any()


def test_bandwidths_are_multiples_of_the_median_distance() -> None:
    u = torch.tensor([0.0, 1.0, 3.0], dtype=torch.float64).view(3, 1, 1)
    assert bandwidths(u, torch.ones(1)).tolist() == [0.5, 1.0, 2.0, 4.0, 8.0]
    assert bandwidths(torch.zeros(3, 1, 4))[2] == 1
    with pytest.raises(ValueError, match="positive bandwidths"):
        mmd(u, u, widths=torch.zeros(1))


def moments(x: Tensor) -> tuple[np.ndarray, np.ndarray]:
    return x.mean(0).numpy(), np.cov(x.numpy(), rowvar=False)


@pytest.mark.parametrize(("n", "m", "features"), [(40, 50, 6), (200, 30, 12), (5, 7, 4)])
def test_frechet_distance_is_the_formula_with_a_matrix_square_root(n: int, m: int, features: int) -> None:
    x, y = normal(n, features) @ normal(features, features, seed=3), normal(m, features, seed=1) + 0.5
    (a, s), (b, t) = moments(x), moments(y)
    expected = ((a - b) ** 2).sum() + np.trace(s + t - 2 * scipy.linalg.sqrtm(s @ t).real)
    assert frechet_distance(x, y).item() == pytest.approx(expected, rel=1e-9)


def test_frechet_distance_of_gaussians() -> None:
    r"""Commuting covariances: $|\mu - \nu|^2 + \sum_i(s_i - t_i)^2$; and rotations change nothing."""
    s, t, shift = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 1.0, 0.5]), torch.tensor([1.0, 0.0, -1.0])
    x, y = s * normal(40_000, 3) + shift, t * normal(40_000, 3, seed=1)
    assert frechet_distance(x, y).item() == pytest.approx(float(shift.square().sum() + (s - t).square().sum()), rel=0.02)
    turn = torch.linalg.qr(normal(3, 3, seed=2)).Q
    assert torch.allclose(frechet_distance(x @ turn, y @ turn), frechet_distance(x, y), rtol=1e-10)


def test_frechet_distance_where_covariances_are_singular() -> None:
    """Fewer samples than features, where roots of products fail: zero on itself to round-off, a pure shift to its square."""
    x = 1e4 * normal(5, 60)
    assert 0 <= frechet_distance(x, x).item() < 1e-12 * x.square().sum().item()
    assert frechet_distance(x + 1.0, x).item() == pytest.approx(60.0, rel=1e-4)
    with pytest.raises(ValueError, match="at least two samples"):
        frechet_distance(x[:1], x)


def test_principal_features_are_coordinates_of_the_reference() -> None:
    """All directions: distances between references are kept; fewer: the leading share of the variance."""
    v = normal(6, 2, 10)
    full, part = PrincipalFeatures(v, 32), PrincipalFeatures(v, 2)
    x = (v / full.scale[:, None]).flatten(1) / math.sqrt(20)
    assert full(v).shape == (6, 5)
    assert torch.allclose(torch.cdist(full(v), full(v)), torch.cdist(x, x), atol=1e-6)
    assert full.share == pytest.approx(1.0)
    assert torch.allclose(part(v), full(v)[:, :2])
    assert part.share == pytest.approx(float(full(v)[:, :2].square().sum() / full(v).square().sum()), rel=1e-10)
    with pytest.raises(ValueError, match="expects fields of 20 values"):
        full(v[..., :5])


def test_random_convolutions_are_fixed_and_blind_to_place_and_unit() -> None:
    """Shifts by the stride of all layers change nothing on periodic axes, nor do units; the seed is the network."""
    grid, v = box(16, 32), normal(6, 2, 16, 32)
    features = RandomConvolutions(v, grid)
    u = normal(4, 2, 16, 32, seed=1)
    assert features(u).shape == (4, 56)
    assert torch.allclose(features(u.roll((8, 16), (2, 3))), features(u), rtol=1e-10)
    assert not torch.allclose(features(u.flip(2)), features(u), rtol=1e-2)
    assert torch.equal(RandomConvolutions(v, grid)(u), features(u))
    assert not torch.allclose(RandomConvolutions(v, grid, seed=1)(u), features(u), rtol=1e-2)
    assert torch.allclose(RandomConvolutions(1e3 * v + 7, grid)(1e3 * u + 7), features(u), rtol=1e-9)


def test_random_convolutions_see_structure_that_moments_do_not() -> None:
    """Two sets with the same mean and variance at every point, smooth and rough."""
    smooth, rough = power_noise(200, 64, -3.0)[0], power_noise(200, 64, -1.0, seed=5)[0]
    smooth, rough = smooth / smooth.std(), rough / rough.std()
    features = RandomConvolutions(smooth, box(64))
    half = frechet_distance(features(smooth[::2]), features(smooth[1::2]))
    assert frechet_distance(features(rough), features(smooth)) > 10 * half


def test_random_convolutions_in_time_and_three_dimensions() -> None:
    u = normal(3, 1, 4, 5, 6, 7)
    line = Grid(Axis("time", 4), Axis("x", 5), Axis("y", 6), Axis("z", 7))
    features = RandomConvolutions(u, line)
    mean = torch.stack([features(u[:, :, [t] * 4]) for t in range(4)]).mean(0)
    assert torch.allclose(features(u), mean, rtol=1e-10), "features of single times, averaged"
    assert RandomConvolutions(u[:, :, 0], line.space)(u[:, :, 0]).shape == (3, 56)
    with pytest.raises(ValueError, match="expects fields"):
        features(u[:, :, :3])


# --- structure ------------------------------------------------------------------------------------------------------------------


def test_structure_function_of_one_sine() -> None:
    r"""$S_2(r) = a^2(1 - \cos kr)$."""
    grid = box(48)
    u = (2.0 * torch.sin(3 * grid.mesh()[0]))[None, None]
    r, s = structure_function(u, grid, kind="scalar")
    assert len(r) == 24
    assert torch.allclose(s[0], 4 * (1 - torch.cos(3 * r)), atol=1e-12)


def test_structure_functions_of_a_shear_flow() -> None:
    """u = (sin 2y, 0): no longitudinal increment at all; transverse ones along y only, half of the pairs."""
    grid = box(32, 32)
    u = torch.zeros(1, 2, 32, 32, dtype=torch.float64)
    u[:, 0] = torch.sin(2 * grid.mesh()[1])
    r, along = structure_function(u, grid)
    across = structure_function(u, grid, kind="transverse")[1]
    assert along.abs().max() == 0
    assert torch.allclose(across[0], (1 - torch.cos(2 * r)) / 2, atol=1e-12)
    swapped = structure_function(u.flip(1), grid, kind="transverse", components=(1, 0))[1]
    assert torch.equal(swapped, across)
    assert structure_function(u, grid, kind="transverse", axis="y")[1][0, 0].item() == pytest.approx(1 - math.cos(2 * r[0]))


def test_structure_function_on_a_bounded_axis_and_with_signs() -> None:
    """Of u = -x: r to the power p, negative for odd p with signs; around a period differences add up to nothing."""
    grid = Grid(Axis("x", 9, length=4.0))
    u = -grid.mesh()[0][None, None]
    for order in (1.0, 2.0, 3.0, 0.5):
        r, s = structure_function(u, grid, order, "scalar")
        assert torch.allclose(s[0], r**order, rtol=1e-12)
    assert torch.allclose(structure_function(u, grid, 3, "scalar", absolute=False)[1][0], -(r**3), rtol=1e-12)
    assert structure_function(normal(1, 1, 16), box(16), 1, "scalar", absolute=False)[1].abs().max() < 1e-14


@pytest.mark.parametrize("hurst", [1 / 3, 0.5])
def test_fractional_noise_has_its_exponents(hurst: float) -> None:
    r"""Energy $k^{-1-2H}$ (−5/3 for H = 1/3): exactly $\mathrm E\,S_2(r) = 4\sum_k E_k(1 - \cos kr)$, which goes as $r^{2H}$ in between."""
    n = 2048
    u, energy = power_noise(400, n, -1 - 2 * hurst)
    grid = box(n)
    k, found = energy_spectrum(u, grid)
    assert power_law(k, found.mean(0), 8, 256).item() == pytest.approx(-1 - 2 * hurst, abs=0.03)
    steps = [4, 8, 16, 32, 64]
    r, s = structure_function(u, grid, kind="scalar", separations=steps)
    wave = torch.arange(len(energy), dtype=torch.float64)
    expected = 4 * (energy * (1 - torch.cos(wave * r[:, None]))).sum(1)
    error = s.std(0) / math.sqrt(len(u))
    assert ((s.mean(0) - expected).abs() < 4 * error).all()
    assert (error < 0.1 * expected).all()
    assert power_law(r, s.mean(0), float(r[0]), float(r[-1])).item() == pytest.approx(2 * hurst, abs=0.08)


def test_power_law_is_exact_on_a_power_law() -> None:
    k = torch.arange(20, dtype=torch.float64)
    values = torch.stack([k.clamp(min=1) ** -3, 5 * k**0.5])
    assert power_law(k, values, 2, 15).tolist() == pytest.approx([-3.0, 0.5], rel=1e-12)
    with pytest.raises(ValueError, match="at least two positive"):
        power_law(k, values, 2, 2.5)


def test_structure_error_and_increment_distance_of_scaled_fields() -> None:
    r"""Scaled by c: $2|\log_{10}c|$ decades, and $|c - 1|\,\mathrm E|\delta|/\sigma$."""
    grid, u = box(16, 16), normal(6, 2, 16, 16)
    assert structure_error(u, u, grid) == 0
    assert structure_error(3.0 * u, u, grid).item() == pytest.approx(2 * math.log10(3), rel=1e-12)
    r, distance = increment_distance(3.0 * u, u, grid, [1, 4])
    for step, found in zip((1, 4), distance, strict=True):
        delta = increments(u, grid, step)
        assert found.item() == pytest.approx(2 * float(delta.abs().mean() / delta.square().mean().sqrt()), rel=1e-12)
    assert r.tolist() == pytest.approx([grid.axes[0].spacing, 4 * grid.axes[0].spacing])
    assert increment_distance(u, u[:3], grid)[1].max() < 0.2
    assert structure_error(u, 0 * u, grid) == math.inf


def test_increment_distance_between_normal_and_two_valued_increments() -> None:
    r"""Same variance, another law: $\mathrm E\bigl||z| - 1\bigr|$, by quadrature."""
    signs = torch.where(normal(4000, 1, 2, seed=1) > 0, 0.5, -0.5)
    signs[..., 1] = -signs[..., 0]
    smooth = normal(4000, 1, 2, seed=2) / math.sqrt(2)
    grid = Grid(Axis("x", 2))
    expected = scipy.stats.norm.expect(lambda z: abs(abs(z) - 1))
    assert increment_distance(smooth, signs, grid, [1], "scalar")[1].item() == pytest.approx(expected, rel=0.05)


def test_increment_pdf_is_a_density() -> None:
    grid, u = box(4096), normal(20, 1, 4096)
    centres, density = increment_pdf(u, grid, 3, "scalar", bins=81, width=6.0)
    step = float(centres[1] - centres[0])
    assert float(density.sum() * step) == pytest.approx(1.0, abs=1e-3)
    assert torch.allclose(density, torch.exp(-centres.square() / 2) / math.sqrt(2 * math.pi), atol=0.02)
    with pytest.raises(ValueError, match="vanish"):
        increment_pdf(0 * u, grid, 3, "scalar")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"grid": Grid(Axis("x", 8), Axis.at("y", [0.0, 1.0, 3.0, 4.0]))}, "equally spaced"),
        ({"grid": Grid(Axis("x", 8), Axis("y", 4, length=9.0))}, "one spacing"),
        ({"kind": "diagonal"}, "longitudinal, transverse or scalar"),
        ({"separation": 8}, "between 1 and 7"),
        ({"components": (0,)}, "one component for each"),
        ({"components": (0, 2)}, "channels between 0 and 1"),
    ],
)
def test_increments_reject_what_does_not_fit(change: dict[str, Any], message: str) -> None:
    call: dict[str, Any] = {"grid": Grid(Axis("x", 8, length=7.0), Axis("y", 4, length=3.0)), "separation": 1, **change}
    with pytest.raises(ValueError, match=message):
        increments(torch.zeros(2, 2, 8, 4), **call)


def test_amplitude_ratio_of_deviations() -> None:
    grid = Grid(Axis("time", 3), Axis("x", 9))
    u = normal(12, 2, 3, 9)
    mean = u.mean(0)
    assert amplitude_ratio(mean + 0.3 * (u - mean), u, grid).item() == pytest.approx(0.3, rel=1e-12)
    assert amplitude_ratio(u.repeat(2, 1, 1, 1), u, grid).item() == pytest.approx(math.sqrt(2 * 11 / 23), rel=1e-12), "unbiased variances"
    with pytest.raises(ValueError, match="two samples"):
        amplitude_ratio(u[:1], u, grid)


@pytest.mark.parametrize("times", [0, 3])
def test_amplitude_bands_find_the_scale_that_has_faded(times: int) -> None:
    """A mode of each band, the one at k = 5 (band from 4) halved; the mean over space by 0.2; a common mean field does not matter."""
    grid = box(32, times=times)
    x = grid.mesh()[-1]
    waves = torch.stack([torch.cos(k * x) for k in (0, 1, 3, 5, 9)])
    amplitudes = normal(10, 5)
    factors = torch.tensor([0.2, 1.0, 1.0, 0.5, 1.0], dtype=torch.float64)
    drawn = [torch.tensordot(a, waves, dims=1)[:, None] for a in (amplitudes, amplitudes * factors)]
    k, ratio = amplitude_bands(drawn[1] + torch.sin(x), drawn[0], grid)
    assert k.tolist() == pytest.approx([0, 1, 2, 4, 8, 16])
    assert ratio[:5].tolist() == pytest.approx(factors.tolist(), rel=1e-10)
    assert ratio[5].isnan()


@pytest.mark.parametrize("cells", [False, True])
def test_amplitude_bands_between_walls_are_those_of_cosines(cells: bool) -> None:
    """cos(m pi x / L) has the wavenumber m pi / L."""
    axis = Axis("x", 17 - cells, length=2.0, cells=cells)
    x = axis.positions() + (axis.spacing / 2 if cells else 0.0)
    waves = torch.stack([torch.cos(m * math.pi * x / 2.0) for m in (1, 2, 6)])
    amplitudes, factors = normal(10, 3), torch.tensor([1.0, 3.0, 0.25], dtype=torch.float64)
    u, v = ((a @ waves)[:, None] for a in (amplitudes * factors, amplitudes))
    k, ratio = amplitude_bands(u, v, Grid(axis))
    assert k[1:4].tolist() == pytest.approx([math.pi / 2, math.pi, 2 * math.pi])
    assert ratio[1:4].tolist() == pytest.approx([1.0, 3.0, 0.25], rel=1e-10)


def test_amplitude_sees_a_gamed_residual() -> None:
    """Shrinking lowers every violation of a homogeneous law; the ratio tells."""
    grid, u = box(16, 16), normal(20, 2, 16, 16)
    law = DivergenceFree(grid)
    assert violation(law, 0.1 * u).absolute.max() < 0.11 * violation(law, u).absolute.max()
    assert amplitude_ratio(0.1 * u, u, grid).item() == pytest.approx(0.1)


@pytest.mark.parametrize("points", [(16, 12), (8, 6, 10)])
def test_enstrophy_spectrum_adds_up_and_is_k_squared_energy(points: tuple[int, ...]) -> None:
    grid = box(*points)
    u = normal(3, len(points), *points)
    from constraints.calculus import curl

    _, found = enstrophy_spectrum(u, grid)
    assert torch.allclose(found.sum(1), curl(u, grid, Spectral()).square().sum(1).flatten(1).mean(1) / 2, rtol=1e-12)
    x, y = grid.mesh()[:2]
    wave = torch.zeros(1, len(points), *points, dtype=torch.float64)
    wave[:, 0], wave[:, 1] = 4 * torch.sin(3 * x + 0 * y) * 0 + torch.sin(2 * y), 0.5 * torch.sin(2 * x)
    k, enstrophy = enstrophy_spectrum(wave, grid)
    assert torch.allclose(enstrophy, k**2 * energy_spectrum(wave, grid)[1], atol=1e-12)
    swapped = enstrophy_spectrum(torch.cat([torch.ones_like(wave[:, :1]), wave], 1), grid, components=range(1, len(points) + 1))[1]
    assert torch.allclose(swapped, enstrophy)


# --- calibration ----------------------------------------------------------------------------------------------------------------


def pairwise_crps(x: Tensor, y: Tensor, fair: bool) -> Tensor:
    m = len(x)
    pairs = (x[:, None] - x).abs().sum((0, 1)) / (2 * m * (m - 1 if fair else m))
    return (x - y).abs().mean(0) - pairs


@pytest.mark.parametrize("fair", [False, True])
def test_crps_is_the_sum_over_pairs_also_for_a_shared_ensemble(fair: bool) -> None:
    x, y = normal(7, 5, 2, 3) + 10, normal(5, 2, 3, seed=1) + 10
    assert torch.allclose(crps(x, y, fair=fair), pairwise_crps(x, y, fair), atol=1e-14)
    shared = x[:, :1]
    assert torch.allclose(crps(shared, y, fair=fair), pairwise_crps(shared.expand_as(x), y, fair), atol=1e-14)
    assert torch.allclose(crps(shared[:, 0, 0, 0, None], y[:, 0, 0], fair=fair), crps(shared, y, fair=fair)[:, 0, 0] * 0 + pairwise_crps(
        shared[:, :1, 0, 0].expand(7, 5), y[:, 0, 0], fair), atol=1e-14)  # fmt: skip
    assert torch.equal(crps(x[:1], y, fair=False), (x[0] - y).abs())


@pytest.mark.parametrize("members", [2, 5])
def test_fair_crps_of_a_gaussian_ensemble(members: int) -> None:
    r"""Whatever the size of the ensemble, on average $\sigma(z(2\Phi(z) - 1) + 2\varphi(z) - \pi^{-1/2})$; the plain one is larger."""
    y, sigma = 0.7, 1.5
    z = y / sigma
    expected = sigma * (z * math.erf(z / math.sqrt(2)) + math.sqrt(2 / math.pi) * math.exp(-(z**2) / 2) - 1 / math.sqrt(math.pi))
    x, truth = sigma * normal(members, 100_000), torch.full((100_000,), y, dtype=torch.float64)
    score = crps(x, truth)
    assert abs(score.mean().item() - expected) < 4 * score.std().item() / math.sqrt(len(truth))
    excess = crps(x, truth, fair=False).mean().item() - expected
    assert excess == pytest.approx(sigma / math.sqrt(math.pi) / members, rel=0.05), "E|X - X'|/2m of a normal law"


def test_ranks_and_their_histogram() -> None:
    x = torch.tensor([1.0, 2.0, 3.0])[:, None].expand(3, 4)
    y = torch.tensor([0.5, 1.5, 2.5, 9.0])
    assert ranks(x, y).tolist() == ranks(x[:, :1], y).tolist() == [0, 1, 2, 3]
    assert rank_histogram(ranks(x, y), 3).tolist() == [1, 1, 1, 1]
    with pytest.raises(ValueError, match="between 0 and 2"):
        rank_histogram(ranks(x, y), 2)


def test_ranks_among_equal_members_are_random_and_seeded() -> None:
    x, y = torch.zeros(3, 1), torch.zeros(40_000)
    counts = rank_histogram(ranks(x, y), 3)
    assert flatness(counts).p_value > 1e-3
    assert torch.equal(ranks(x, y), ranks(x.expand(3, 40_000), y))
    assert not torch.equal(ranks(x, y), ranks(x, y, torch.Generator().manual_seed(3)))


def test_exchangeable_ranks_are_uniform_and_wrong_spreads_are_found() -> None:
    """9 members, 5000 independent truths: flat, a bowl, a hill, a slope."""
    x, y = normal(9, 5000), normal(5000, seed=1)
    for scale, shift, flat in ((1.0, 0.0, True), (1.5, 0.0, False), (0.7, 0.0, False), (1.0, 0.3, False)):
        found = ranks(x, scale * y + shift)
        test = flatness(rank_histogram(found, 9))
        assert (test.p_value > 1e-3) == flat
        assert (test.p_value < 1e-6) != flat
        assert (pit_deviation(found, 9) < 0.025) == flat
    assert test.freedom == 9


def test_flatness_is_pearsons_test() -> None:
    counts = torch.tensor([12, 7, 9, 15, 7])
    expected = scipy.stats.chisquare(counts.numpy())
    found = flatness(counts)
    assert found.statistic == pytest.approx(expected.statistic)
    assert found.p_value == pytest.approx(expected.pvalue)
    with pytest.raises(ValueError, match="at least two ranks"):
        flatness(counts[:1])


def test_flatness_p_values_are_uniform() -> None:
    p = [flatness(rank_histogram(ranks(normal(4, 200, seed=2 * i), normal(200, seed=2 * i + 1)), 4)).p_value for i in range(300)]
    assert scipy.stats.kstest(p, "uniform").pvalue > 1e-3


@pytest.mark.parametrize("members", [4, 19])
def test_pit_is_uniform_and_coverage_exact_for_small_ensembles(members: int) -> None:
    found = ranks(normal(members, 40_000), normal(40_000, seed=1))
    assert scipy.stats.kstest(pit(found, members).numpy(), "uniform").pvalue > 1e-3
    nominal, covered = coverage(found, members)
    assert nominal.tolist() == pytest.approx([0.6, 0.6] if members == 4 else [0.5, 0.9])
    assert (covered - nominal).abs().max() < 4 * 0.5 / math.sqrt(40_000)
    with pytest.raises(ValueError, match="levels between 0 and 1"):
        coverage(found, members, (1.0,))


def test_pit_deviation_of_extreme_ranks() -> None:
    assert pit_deviation(torch.arange(5), 4) == 0
    assert pit_deviation(torch.zeros(3, dtype=torch.long), 4).item() == pytest.approx(0.8)


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
def test_spread_skill_is_the_ratio_of_spreads(factor: float) -> None:
    """Truth and members exchangeable about centres that vary: one, for few members too; ensembles narrower by c about them: near c."""
    centre = 3 * normal(60_000, seed=5)
    x, y = centre + factor * normal(3, 60_000), centre + normal(60_000, seed=1)
    expected = math.sqrt(4 / 3 * factor**2 / (1 + factor**2 / 3))
    assert spread_skill(x, y).item() == pytest.approx(expected, rel=0.02)


def test_ensembles_that_do_not_fit() -> None:
    for x, y, call, message in (
        (normal(5, 3, 4), normal(3, 5), crps, r"u\[:, None\]"),
        (normal(5, 2, 4), normal(3, 4), ranks, "expects ensembles"),
        (normal(1, 3), normal(3), crps, "at least 2 members"),
        (normal(1, 3), normal(3), spread_skill, "at least 2 members"),
    ):
        with pytest.raises(ValueError, match=message):
            call(x, y)


# --- equations ------------------------------------------------------------------------------------------------------------------


def test_residual_of_an_exact_solution_falls_with_the_order_of_the_differences() -> None:
    found = []
    for times in (21, 41):
        problem = PROBLEMS["heat"](points=16, times=times)
        fields = problem.draw(5)
        rate = rates.diffusion(problem.grid, fields.parameters["diffusivity"], Spectral())
        found.append(equation_residual(fields.values, problem.grid, rate).relative)
    assert (found[1] < 1e-3).all()
    assert torch.allclose(torch.log2(found[0] / found[1]), torch.full((5,), 4.0, dtype=torch.float64), atol=0.4)


def test_relative_residual_of_a_wrong_coefficient() -> None:
    r"""$u_t = -\nu u$ against $-\nu'u$: $|\nu - \nu'|/\sqrt{\nu^2 + \nu'^2}$; a field at rest in equilibrium obeys."""
    grid = box(8, times=201)
    time, x = grid.mesh()
    u = (torch.sin(x) * torch.exp(-time))[None, None].repeat(2, 1, 1, 1)
    rate = rates.diffusion(grid, torch.tensor([1.0, 3.0], dtype=torch.float64), Spectral())
    found = equation_residual(u, grid, rate)
    assert found.relative[0] < 1e-8
    assert found.relative[1].item() == pytest.approx(2 / math.sqrt(10), rel=1e-6)
    assert equation_residual(0 * u + 2, grid, rate).relative.tolist() == [0, 0]


SMALL: dict[str, tuple[dict[str, Any], float]] = {
    "heat": ({"points": 16, "times": 41}, 1e-3),
    "advection": ({"points": 32, "times": 161, "speed": (0.1, 1.0)}, 1e-3),
    "burgers": ({"points": 64, "times": 81, "viscosity": 0.05, "sigma": 5.0}, 2e-2),
    "reaction-diffusion": ({"points": 64, "times": 41, "boundary": "periodic"}, 3e-2),
    "allen-cahn": ({"points": 256, "times": 81}, 1e-2),
    "kuramoto-sivashinsky": ({"points": 64, "times": 41, "interval": 0.1, "length": 22.0, "skip": 100}, 1e-2),
    "kdv": ({"points": 64, "times": 41, "interval": 0.05}, 1e-2),
    "navier-stokes": ({"points": 32, "times": 21, "duration": 2.0}, 1e-2),
}


@pytest.mark.parametrize("name", SMALL)
def test_problems_obey_the_equation_they_are_judged_by(name: str) -> None:
    """And no other: with time reversed, or at another pace, the residual is of the order of its terms."""
    settings, small = SMALL[name]
    problem = PROBLEMS[name](**settings)
    fields = problem.draw(3)
    rate = EQUATIONS[name](problem, fields.parameters, problem.grid)
    u = fields.values
    assert equation_residual(u, problem.grid, rate).relative.max() < small
    slow = Grid(Axis("time", problem.grid.axes[0].points, length=2 * problem.grid.axes[0].extent), *problem.grid.space_axes)
    assert equation_residual(u, slow, rate).relative.min() > 0.3


def test_every_equation_is_tested() -> None:
    assert set(SMALL) == set(EQUATIONS)


def test_vorticity_rate_of_decaying_vortices() -> None:
    """cos x cos y decays as it is: no advection, viscosity only; with a uniform-mean vorticity of one wave too."""
    grid = box(16, 16)
    x, y = grid.mesh()
    w = (torch.cos(x) * torch.cos(y))[None, None]
    assert torch.allclose(rates.vorticity(grid, 0.3, Spectral())(w), -0.6 * w, atol=1e-13)
    force = torch.ones(1, 1, 16, 16, dtype=torch.float64)
    assert torch.allclose(rates.vorticity(grid, 0.0, Spectral(), force)(w), force, atol=1e-13)


def test_scheme_residual_vanishes_on_what_the_scheme_made() -> None:
    problem = PROBLEMS["inviscid-burgers"](points=21, times=21)
    u = problem.draw(4).values
    law = problem.conservation()
    assert scheme_residual(law, u).relative.max() < 1e-13
    moved = scheme_residual(law, u + 0.1 * normal(*u.shape))
    assert (moved.relative > 0.3).all()
    step = problem.grid.axes[0].spacing
    expected = law.residual(u + 0.1 * normal(*u.shape)).square().mean(1).sqrt() / step
    assert torch.allclose(moved.absolute, expected, rtol=1e-10)


def test_residuals_reject_what_does_not_fit() -> None:
    grid = box(8, times=4)
    with pytest.raises(ValueError, match="more than 4 times"):
        equation_residual(normal(1, 1, 4, 8), grid, lambda u: u)
    with pytest.raises(ValueError, match="a rate of shape"):
        equation_residual(normal(1, 1, 4, 8), grid, lambda u: u[:, :, 0], order=2)
    with pytest.raises(ValueError, match="more than 4 points along x"):
        equation_residual(normal(1, 1, 4, 4), Grid(Axis("time", 4), Axis("x", 4)), lambda u: u, order=2)


# --- held out -------------------------------------------------------------------------------------------------------------------


def solenoidal(n: int) -> tuple[Grid, Tensor]:
    r"""A smooth velocity without spectral divergence, from a stream function of the same few waves at every resolution."""
    grid = box(n, n)
    x, y = grid.mesh()
    stream = torch.sin(x + 2 * y + 0.3) + 0.5 * torch.cos(2 * x - y) + 0.2 * torch.sin(3 * x)
    slope = [Spectral().derivative(stream[None, None], grid, name) for name in "xy"]
    return grid, torch.cat([slope[1], -slope[0]], dim=1)


def by_name(law: Constraint, grid: Grid, word: str) -> Constraint:
    (found,) = [row.operator for row in held_out(law, grid) if word in row.name]
    assert found is not None
    return found


@pytest.mark.parametrize(("word", "order"), [("order 2", 2), ("order 4", 4), ("cell faces", 2)])
def test_held_out_divergences_see_truncation_error_only(word: str, order: int) -> None:
    found = []
    for n in (32, 64):
        grid, u = solenoidal(n)
        assert violation(DivergenceFree(grid), u).relative.max() < 1e-13
        found.append(violation(by_name(DivergenceFree(grid), grid, word), u).relative.item())
    assert math.log2(found[0] / found[1]) == pytest.approx(order, abs=0.2)


def test_held_out_divergence_sees_what_the_own_one_is_blind_to() -> None:
    """A checkerboard has no central divergence, but a net flux through the faces of cells."""
    grid = box(8, 8)
    i = torch.arange(8)
    board = (-1.0) ** i[:, None] * torch.sin(grid.mesh()[1])
    u = torch.stack([board, 0 * board])[None].to(torch.float64)
    assert violation(DivergenceFree(grid, "central"), u).absolute.max() < 1e-14
    assert violation(by_name(DivergenceFree(grid, "central"), grid, "cell faces"), u).absolute.max() > 1.0


def test_the_laws_own_operator_is_never_held_out() -> None:
    grid = box(8, 8)
    names = {scheme: [row.name for row in held_out(DivergenceFree(grid, scheme), grid)] for scheme in ("spectral", "central")}
    assert "divergence (spectral)" in names["central"]
    assert "divergence (central, order 2)" not in names["central"]
    assert "divergence (spectral)" not in names["spectral"]
    shear = Grid(Axis("x", 8, periodic=True), Axis("y", 9))
    assert [row.name for row in held_out(DivergenceFree(shear, "central"), shear)] == [
        "divergence (central, order 4)", "divergence (cell faces)",
    ]  # fmt: skip


def test_held_out_divergence_of_chosen_channels_and_of_the_curl() -> None:
    grid, u = solenoidal(32)
    padded = torch.cat([normal(1, 1, 32, 32), u], dim=1)
    (row, *_) = held_out(DivergenceFree(grid, components=(1, 2), channels=3), grid, velocity=(1, 2))
    plain = by_name(DivergenceFree(grid), grid, "order 2")
    assert row.operator is not None
    assert torch.allclose(row.operator.residual(padded), plain.residual(u), atol=1e-12)
    gradient = torch.stack([Spectral().derivative(u[:, 0], grid, name) for name in "xy"], dim=1)
    curls = [violation(row.operator, gradient).relative.item() for row in held_out(CurlFree(grid), grid) if row.operator is not None]
    assert len(curls) == 3
    assert max(curls) < 0.2
    assert min(curls) > 1e-6


@pytest.mark.parametrize("periodic", [False, True])
def test_held_out_staggered_divergence_is_of_order_four(periodic: bool) -> None:
    """Faces of x at x, of y at y; u = (sin x g(y), h) with zero exact two-point flux is not needed: the operator itself is of order 4."""
    found = []
    for n in (16, 32):
        grid = Grid(*(Axis(name, n + (not periodic), length=2 * math.pi, periodic=periodic) for name in "xy"))
        x, y = grid.mesh()
        h = grid.axes[0].spacing
        u = torch.stack([torch.sin(x) * torch.cos(y + h / 2), -torch.cos(x + h / 2) * torch.sin(y)])[None]
        law = DivergenceFree(grid, "staggered")
        (row,) = held_out(law, grid)
        assert row.operator is not None
        rows = row.operator.residual(u).reshape(u.shape[2:])[4:-4, 4:-4].abs().max().item()
        found.append((law.residual(u).abs().max().item(), rows))
    assert max(a for a, _ in found) < 1e-13, "two-point differences cancel by symmetry"
    assert max(b for _, b in found) < 1e-13
    line = Grid(*(Axis(name, 8, length=7.0) for name in "xy"))
    x, y = line.mesh()
    cubic = torch.stack([x**3, 0 * x])[None]
    wide = held_out(DivergenceFree(line, "staggered"), line)[0].operator
    assert wide is not None
    assert torch.allclose(wide.residual(cubic).reshape(8, 8)[1:6, :7], 3 * (x + 0.5).square()[1:6, :7], rtol=1e-12)


@pytest.mark.parametrize(
    "axis",
    [
        Axis("x", 7, length=3.0),
        Axis("x", 8, length=3.0, origin=-1.0),
        Axis("x", 7, length=3.5, origin=0.25, cells=True),
        Axis("x", 8, length=4.0, origin=0.25, cells=True),
        Axis.at("x", [0.0, 0.1, 0.4, 1.0, 1.1, 2.0]),
    ],
)
def test_other_weights_are_exact_for_cubics(axis: Axis) -> None:
    found = other_weights(axis)
    assert found is not None
    low = axis.origin - (axis.spacing / 2 if axis.cells else 0.0)
    high = low + axis.extent
    for power in range(4):
        expected = (high ** (power + 1) - low ** (power + 1)) / (power + 1)
        assert float((found[0] * axis.positions() ** power).sum()) == pytest.approx(expected, rel=1e-12, abs=1e-12)
    assert not torch.allclose(found[0], axis.weights())


def test_other_weights_on_periodic_axes() -> None:
    assert other_weights(Axis("x", 9, periodic=True)) is None
    weights = other_weights(Axis("x", 8, length=2.0, periodic=True))
    assert weights is not None
    assert float(weights[0].sum()) == pytest.approx(2.0)
    uneven = Axis.at("x", [0.0, 0.1, 0.35, 0.6, 0.8], periodic=True, length=1.0)
    found = other_weights(uneven)
    assert found is not None
    assert float(found[0].sum()) == pytest.approx(1.0)


def test_held_out_mass_sees_a_mode_that_the_sum_does_not() -> None:
    """Simpson's rule on a period: the Nyquist mode of amplitude a counts as -a/3 of the volume; smooth fields agree to round-off."""
    grid = box(16, length=3.0)
    law = Mass(grid, 0.0)
    operator = by_name(law, grid, "Simpson")
    smooth = torch.sin(2 * math.pi / 3.0 * grid.mesh()[0])[None, None]
    assert operator.residual(smooth).abs().max() < 1e-14
    wiggle = 0.3 * (-1.0) ** torch.arange(16, dtype=torch.float64)[None, None]
    assert law.residual(wiggle).abs().max() < 1e-14
    assert operator.residual(wiggle).item() == pytest.approx(-0.3 / 3 * 3.0)


LINE = Grid(Axis("time", 5, length=1.0), Axis("x", 9, length=2.0))


@pytest.mark.parametrize(
    "law",
    [
        Mass(LINE, 1.0),
        Mass(LINE),
        Momentum(LINE, components=(1,), channels=2),
        Energy(LINE, 0.3, channels=1),
        Energy(LINE),
        EnergyDecay(LINE),
        Integral(LINE, lambda u: u[:, 0].pow(4), 0.2),
        Budget(LINE, lambda u: u[:, 0].mean(-1), theta=0.5),
    ],
    ids=lambda law: law.name,
)
def test_held_out_integrals_are_those_of_the_other_rule(law: Constraint) -> None:
    """On x cubed and the like the trapezoid is wrong by h squared, Simpson's rule right: residuals are the exact ones."""
    simpson = other_weights(LINE.axes[1])
    assert simpson is not None
    u = 1 + torch.rand(3, *(law.field_shape or (1, *LINE.shape)), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = by_name(law, LINE, "Simpson")
    ratio = simpson[0] / LINE.axes[1].weights()
    if isinstance(law, Mass | Momentum):
        expected = law.residual(u * ratio)
    elif isinstance(law, Energy | EnergyDecay):
        expected = law.residual(u * ratio.sqrt())
    elif isinstance(law, Integral):
        expected = law.residual(u * ratio**0.25)
    else:
        assert isinstance(law, Budget)
        content = (simpson[0] * u[:, 0]).sum(-1)
        rate = u[:, 0].mean(-1)
        expected = torch.diff(content) - LINE.axes[0].spacing * (rate[:, 1:] + rate[:, :-1]) / 2
    assert torch.allclose(found.residual(u), expected, rtol=1e-12)
    assert not torch.allclose(found.residual(u), law.residual(u), rtol=1e-3)
    assert law.residual(u).shape == law.scale(u).expand_as(law.residual(u)).shape
    assert "Simpson" in found.name
    assert "Simpson" not in law.name, "the law itself is as it was"


def test_held_out_steps_and_balances_in_time() -> None:
    """u' = u with steps of each order: explicit laws get Crank-Nicolson, that one Simpson's rule, exact for cubics in time."""
    grid = Grid(Axis("time", 9, length=1.0), Axis("x", 4))
    time = grid.mesh()[0]
    explicit = EvolutionEquation(grid, lambda u: u, theta=0.0)
    (row,) = held_out(explicit, grid)
    assert row.operator is not None
    assert explicit.theta == 0.0
    u = torch.exp(time)[None, None]
    assert row.operator.residual(u).abs().max() < 0.05 * explicit.residual(u).abs().max()
    crank = EvolutionEquation(grid, lambda u: u, theta=0.5, channels=1)
    (row,) = held_out(crank, grid)
    assert row.operator is not None
    assert row.operator.residual(u).abs().max() < 0.05 * crank.residual(u).abs().max()
    quartic = EvolutionEquation(grid, lambda u: 4 * time.to(u)[: u.shape[2]] ** 3 + 0 * u, theta=0.5)
    (row,) = held_out(quartic, grid)
    assert row.operator is not None
    assert row.operator.residual(time[None, None] ** 4).abs().max() < 1e-14
    names = [row.name for row in held_out(Budget(grid, lambda u: u[:, 0].mean(-1), theta=0.0), grid)]
    assert names == ["budget (Crank-Nicolson)", "budget (cubics along x)"]


@pytest.mark.parametrize("side", ["lower", "upper"])
def test_held_out_normal_derivatives_are_exact_for_quartics(side: str) -> None:
    grid = Grid(Axis("x", 8, length=1.4), Axis("y", 3))
    x = grid.mesh()[0]
    u = torch.stack([x**4 - 2 * x**3 + x, x**2])[None]
    end = 0.0 if side == "lower" else 1.4
    slope = (-1 if side == "lower" else 1) * (4 * end**3 - 6 * end**2 + 1)
    for law, expected in (
        (Neumann(grid, "x", side, channels=2, components=(0,)), slope),
        (Robin(grid, "x", side, 2.0, 0.5, channels=2, components=(0,)), 2 * (end**4 - 2 * end**3 + end) + 0.5 * slope),
    ):
        (row,) = held_out(law, grid)
        assert row.operator is not None
        assert torch.allclose(row.operator.residual(u), torch.full((1, 3), expected, dtype=torch.float64), atol=1e-11)
        assert not torch.allclose(law.residual(u), row.operator.residual(u), atol=1e-3)


def test_laws_on_values_have_nothing_held_out_and_say_so() -> None:
    rows = held_out(Intersection(InitialCondition(LINE, torch.zeros(1, 9)), Bounds(0.0, 1.0), Mass(LINE)), LINE)
    assert [row.law for row in rows] == ["initial condition", "bounds", "mass (conserved)"]
    assert [row.operator is None for row in rows] == [True, True, False]
    assert all(row.reason for row in rows)
    odd = box(9, times=3)
    assert "odd" in held_out(Mass(odd), odd)[0].reason


# --- the literature's operators -------------------------------------------------------------------------------------------------


def test_mmse_and_smse_in_both_conventions() -> None:
    u, v = normal(12, 1, 5, 8), normal(9, 1, 5, 8, seed=1)
    mean = (u.mean(0) - v.mean(0)).square()
    std = (torch.from_numpy(u.numpy().std(0, ddof=1)) - torch.from_numpy(v.numpy().std(0, ddof=1))).square()
    assert mmse(u, v).item() == pytest.approx(mean.mean().item())
    assert mmse(u, v, summed=True).item() == pytest.approx(mean.sum().item())
    assert smse(u, v).item() == pytest.approx(std.mean().item())
    assert smse(u, v, summed=True).item() == pytest.approx(40 * smse(u, v).item())
    grid = box(8, times=5)
    assert mean_error(u, v, grid) != mmse(u, v), "trapezoidal weights in time"
    with pytest.raises(ValueError, match="alike"):
        mmse(u, v[..., :4])


def test_constraint_error_is_the_mean_of_norms() -> None:
    assert constraint_error(torch.tensor([[3.0, 4.0], [0.0, 1.0]])).item() == 3.0


def test_burgers_residuals_against_loops_over_nodes() -> None:
    grid = Grid(Axis("time", 4, length=0.6), Axis("x", 5, length=2.0))
    u, left = normal(2, 1, 4, 5), torch.tensor([0.3, -0.2], dtype=torch.float64)
    dt, dx = 0.2, 0.5
    for flux in (True, False):
        found = published.burgers_mass_residual(u, grid, flux=flux)
        for n in range(2):
            for t in range(1, 4):
                change = dx * float(u[n, 0, t].sum() - u[n, 0, 0].sum())
                out = [float(u[n, 0, s, -1] ** 2 - u[n, 0, s, 0] ** 2) / 2 for s in range(t + 1)]
                passed = sum(dt * (a + b) / 2 for a, b in itertools.pairwise(out)) if flux else 0.0
                assert found[n, t - 1].item() == pytest.approx(change + passed, rel=1e-12)
    ends = published.burgers_boundary_residual(u, grid, left)
    assert ends.shape == (2, 6)
    assert torch.allclose(ends[:, :3], u[:, 0, 1:, 0] - left[:, None])
    assert torch.allclose(ends[:, 3:], u[:, 0, 1:, 4] - u[:, 0, 1:, 3])
    start = normal(1, 5, seed=3)
    assert torch.allclose(published.initial_residual(u, grid, start), u[:, 0, 0] - start)
    assert torch.allclose(published.node_mass_residual(u, grid), dx * (u[:, 0, 1:].sum(-1) - u[:, 0, :1].sum(-1)))


def test_reaction_diffusion_residual_of_a_steady_quartic() -> None:
    r"""Steady fields: $-t\,(\rho\sum u(1 - u)\Delta x + g_L - g_R)$ with $g = -\nu u_x$, exact for quartics at the outer nodes."""
    grid = Grid(Axis("time", 3, length=0.4), Axis("x", 8, length=1.0, origin=1 / 16, cells=True))
    x = grid.axes[1].positions()
    u = (x**4 - x**2).expand(2, 1, 3, 8)
    rho, nu = torch.tensor([0.0, 0.7], dtype=torch.float64), torch.tensor([0.2, 0.1], dtype=torch.float64)
    slope = 4 * x**3 - 2 * x
    made = rho * float((u[0, 0, 0] * (1 - u[0, 0, 0])).sum() / 8)
    entering = -nu * float(slope[0] - slope[-1])
    found = published.reaction_diffusion_mass_residual(u, grid, rho, nu)
    time = torch.tensor([0.2, 0.4], dtype=torch.float64)
    assert torch.allclose(found, -time * (made + entering)[:, None], atol=1e-12)
    given = published.reaction_diffusion_mass_residual(u, grid, rho, nu, inflow=torch.tensor([1.0, 2.0]))
    assert torch.allclose(given, -time * (made + torch.tensor([1.0, 2.0]))[:, None], atol=1e-12)


@pytest.mark.parametrize(("name", "reported"), [("inviscid-burgers", 0.048), ("reaction-diffusion", 0.023)])
def test_published_operators_are_not_obeyed_by_the_data_and_the_schemes_own_are(name: str, reported: float) -> None:
    """The mean over the published generators' data, measured independently, is met within the scatter of forty samples."""
    problem = PROBLEMS[name].preset("pcfm")
    fields = problem.draw(40)
    residual = PUBLISHED[name](problem)["CL"](fields.values, fields.parameters)
    errors = residual.norm(dim=1)
    assert abs(errors.mean().item() - reported) < 3.5 * errors.std().item() / math.sqrt(40)
    own = scheme_errors(problem.constraint(fields.parameters), fields.values)
    assert own["CL"] < 1e-13
    assert own["IC"] == 0
    assert next(iter(own)) == "IC"


def test_feasible_counts_norms_of_equalities_and_maxima_of_inequalities() -> None:
    grid = Grid(Axis("time", 2), Axis("x", 4))
    u = torch.zeros(4, 1, 2, 4, dtype=torch.float64)
    u[1, 0, 0] = 6e-4  # norm 1.2e-3 of the initial data
    u[2, 0, 1] = 1 + 9e-4  # four values beyond the bound, each by less than the tolerance
    u[3, 0, 1, 0] = math.nan
    laws = Intersection(InitialCondition(grid, torch.zeros(1, 4)), Bounds(None, 1.0))
    assert published.feasible(laws, u).tolist() == [True, False, True, False]
    assert feasible_fraction(laws, u, 1e-2).item() == 0.75
    with pytest.raises(ValueError, match="positive tolerance"):
        feasible_fraction(laws, u, 0.0)


def test_kinds_of_laws() -> None:
    problem = PROBLEMS["inviscid-burgers"](points=11, times=11)
    law = problem.constraint(problem.draw(2).parameters)
    assert [published.kind(leaf) for leaf in law.leaves()] == ["IC", "BC", "BC", "CL", "inequality"]
    assert published.kind(Neumann(LINE, "x", "lower")) == "BC"


# --- floors and intervals -------------------------------------------------------------------------------------------------------


def test_noise_floor_of_the_mean_error() -> None:
    """Halves of 40 samples of unit variance: on average 1/20 + 1/20; smaller parts more; against itself zero."""
    grid, r = box(512), normal(40, 1, 512)
    floor = noise_floor(lambda u, v: mean_error(u, v, grid), r)
    assert floor.median == pytest.approx(0.1, rel=0.1)
    assert floor.itself == 0
    assert floor.low <= floor.median <= floor.high
    assert len(floor.values) == 16
    uneven = noise_floor(lambda u, v: mean_error(u, v, grid), r, sizes=(5, 20), splits=3)
    assert uneven.median == pytest.approx(1 / 5 + 1 / 20, rel=0.2)
    assert torch.equal(floor.values, noise_floor(lambda u, v: mean_error(u, v, grid), r).values)
    assert noise_floor(energy_distance, r, splits=40).low < 0 < noise_floor(energy_distance, r, splits=40).high


def test_noise_floor_splits_are_disjoint() -> None:
    r = torch.arange(11.0)
    found = noise_floor(lambda u, v: float(len(set(u.tolist()) & set(v.tolist())) + abs(len(u) - 5) + abs(len(v) - 6)), r)
    assert found.high == 0
    for settings in ({"splits": 0}, {"sizes": (8, 8)}, {"sizes": (0, 3)}):
        with pytest.raises(ValueError, match="parts that fit"):
            noise_floor(lambda u, v: 0.0, r, **settings)


def test_seed_interval_is_students() -> None:
    values = [3.0, 5.0, 4.0, 8.0]
    low, high = scipy.stats.t.interval(0.9, 3, np.mean(values), scipy.stats.sem(values))
    assert seed_interval(values, 0.9) == pytest.approx((5.0, low, high))
    drawn = normal(4000, 5).numpy()
    held = [interval.low <= 0 <= interval.high for interval in map(seed_interval, torch.from_numpy(drawn))]
    assert np.mean(held) == pytest.approx(0.95, abs=0.015)
    with pytest.raises(ValueError, match="at least two seeds"):
        seed_interval([1.0])


def test_bootstrap_of_a_mean_is_normal_theory() -> None:
    u = normal(400, 1)
    found = bootstrap(lambda x, y: x.mean() - y.mean(), u, u[:1], resamples=2000)
    half = 1.96 * float(u.std()) / 20
    assert found.high - found.value == pytest.approx(half, rel=0.1)
    assert found.value - found.low == pytest.approx(half, rel=0.1)
    both = bootstrap(lambda x, y: x.mean() - y.mean(), u, u, resamples=2000, both=True)
    assert both.high - both.low == pytest.approx(2 * math.sqrt(2) * half, rel=0.1)


def test_bootstrap_is_centred_where_repeated_samples_shift_a_metric() -> None:
    """Energy distance of one law: drawn sets hold pairs at distance zero, which would put the value outside its own interval."""
    u, v = normal(30, 1, 4), normal(30, 1, 4, seed=1)
    found = bootstrap(energy_distance, u, v, both=True)
    assert found.low < found.value < found.high
    assert found.low < 0 < found.high
    with pytest.raises(ValueError, match="at least two samples"):
        bootstrap(energy_distance, u[:1], v)


# --- the catalogue, and rows of it ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sets() -> tuple[Fields, Fields]:
    problem = PROBLEMS["taylor-green"](points=8, times=4)
    return problem.draw(12, seed=1), problem.draw(14, seed=2)


def test_rows_hold_what_the_functions_give(sets: tuple[Fields, Fields]) -> None:
    """Views shared between value and floors change no value."""
    rows = {row["metric"]: row for row in compare(*sets, metrics=("all",), seed=3, splits=4)}
    u, r, grid = sets[0].values, sets[1].values, sets[0].grid
    scale = r.transpose(0, 1).flatten(1).std(1)
    features = RandomConvolutions(r, grid, 3)
    principal = PrincipalFeatures(r)
    expected = {
        "energy distance": energy_distance(u, r, scale),
        "MMD, squared": mmd(u, r),
        "sliced Wasserstein distance": sliced_wasserstein(u, r, generator=stream(3)),
        "Fréchet distance, random convolutions": frechet_distance(features(u), features(r)),
        "Fréchet distance, principal components": frechet_distance(principal(u), principal(r)),
        "structure function error, order 2": structure_error(u, r, grid),
        "transverse structure function error, order 2": structure_error(u, r, grid, kind="transverse"),
        "distance of increments, one point apart": increment_distance(u, r, grid)[1][0],
        "distance of increments, mean over separations": increment_distance(u, r, grid)[1].mean(),
        "amplitude ratio": amplitude_ratio(u, r, grid),
        "MMSE, squared norm": mmse(u, r, summed=True),
        "CRPS": crps(u[:, None], r).mean(),
        "spread-skill ratio": spread_skill(u[:, None], r),
        "CE(CL), laws as stated": scheme_errors(PROBLEMS["taylor-green"](points=8, times=4).constraint(sets[0].parameters), u)["CL"],
    }
    for name, value in expected.items():
        assert rows[name]["value"] == pytest.approx(float(value), rel=1e-9), name
    halves = energy_distance(r[::2], r[1::2], scale)
    assert rows["energy distance"]["reference"] == pytest.approx(float(halves), rel=1e-9)
    other = by_name(DivergenceFree(grid), grid, "order 4")
    assert rows["held out: divergence (central, order 4)"]["value"] == float(violation(other, u).absolute.max())


def test_floors_scatter_over_halves_and_reproduce(sets: tuple[Fields, Fields]) -> None:
    first, again = (compare(*sets, metrics=("default", "calibration"), seed=5, splits=6) for _ in range(2))
    assert first == again
    for row in first:
        if row["floor"] is not None:
            assert row["floor_low"] <= row["floor"] <= row["floor_high"]
            assert row["floor_low"] < row["floor_high"]
    other = {row["metric"]: row["floor"] for row in compare(*sets, seed=6, splits=6)}
    assert all(row["floor"] != other[row["metric"]] for row in first if row["metric"] in other and row["floor"] is not None)


def test_rows_keep_their_layout(sets: tuple[Fields, Fields]) -> None:
    """Names and keys that were there before, first and in their order."""
    rows = compare(*sets)
    assert [row["metric"] for row in rows][:4] == ["mean error (MMSE)", "spread error (SMSE)", "energy distance", "spectrum error"]
    keys = {"metric", "value", "reference", "unit", "note", "formula", "floor", "floor_low", "floor_high"}
    assert all(keys <= set(row) for row in rows)
    laws = [row for row in rows if row["metric"].startswith("violation: ")]
    assert laws
    assert all({"relative", "reference_relative"} <= set(row) for row in laws)
    assert len(rows) == 4 + len(laws)


def test_metrics_are_chosen_by_name_and_group(sets: tuple[Fields, Fields]) -> None:
    labels = [row["metric"] for row in compare(*sets, metrics=("mmd", "amplitude"))]
    assert labels[:2] == ["amplitude ratio", "MMD, squared"]
    assert select(["all"]) == select(GROUPS)
    with pytest.raises(ValueError, match="Did you mean 'sliced-wasserstein'"):
        select(["sliced-waserstein"])
    line = Fields(normal(8, 1, 9), Grid(Axis("x", 9)), ("u",))
    assert "spectrum error" not in [row["metric"] for row in compare(line, line)]
    for name, message in (("spectrum", "not all periodic"), ("equation", "no equation"), ("held-out", "no law")):
        with pytest.raises(ValueError, match=message):
            compare(line, line, metrics=(name,))
    with pytest.raises(ValueError, match="it needs 2 fields and 4 references"):
        compare(line[:1], line, metrics=("mmd",))
    with pytest.raises(ValueError, match="at least one split"):
        compare(line, line, splits=0)


def test_samples_borrow_the_parameters_of_the_reference() -> None:
    """Fields without an origin are judged by the reference's laws, one after the other; the same field passes, another does not."""
    problem = PROBLEMS["inviscid-burgers"](points=11, times=11)
    reference = problem.draw(6)
    samples = Fields(reference.values.flip(0), problem.grid, problem.channels)
    groups = ("literature", "residual")
    for fields, lawful in ((samples, False), (Fields(reference.values, problem.grid, problem.channels), True), (reference, True)):
        rows = {row["metric"]: row for row in compare(fields, reference, metrics=groups, splits=1)}
        assert (rows["CE(IC), as published"]["value"] < 1e-12) == lawful
        assert (rows["feasible at 1e-06"]["value"] == 1) == lawful
        assert rows["residual: local conservation"]["relative"] < 1e-12, "which no parameter enters"
        assert rows["held out: maximum principle"]["value"] is None
    own = {row["metric"]: row for row in compare(problem.draw(6, seed=9), reference, metrics=groups, splits=1)}
    assert own["CE(IC), as published"]["value"] == 0, "fields that bring their own parameters keep them"


def test_every_metric_names_a_function_and_a_line_of_the_docs() -> None:
    page = (Path(__file__).resolve().parents[1] / "docs" / "metrics.md").read_text()
    for name, metric in METRICS.items():
        assert callable(getattr(pcfm.metrics, metric.formula)), name
        assert f"`{metric.formula}`" in page, metric.formula
        assert f"`{name}`" in page, name
        assert metric.group in GROUPS
    for name in pcfm.metrics.__all__:
        thing = getattr(pcfm.metrics, name)
        if inspect.isfunction(thing):
            assert thing.__doc__, name
            assert f"`{name}`" in page, f"{name} is not in docs/metrics.md"


def test_evaluate_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)

    def run(text: str) -> int:
        return main(text.split())

    assert run("generate heat --count 8 --out a.h5 --set points=16 times=8 --quiet") == 0
    assert run("generate heat --count 9 --seed 1 --out b.h5 --set points=16 times=8 --quiet") == 0
    capsys.readouterr()
    assert run("evaluate b.h5 --reference a.h5 --metrics default amplitude-bands residual --splits 3 --json --quiet") == 0
    rows = {row["metric"]: row for row in json.loads(capsys.readouterr().out)["metrics"]}
    assert rows["residual: u_t = nu u_xx"]["relative"] < 0.1
    assert isinstance(rows["energy distance"]["floor_high"], float)
    assert run("evaluate b.h5 --reference a.h5 --metrics nonsense") == 2


def test_the_page_of_metrics_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_console("docs/metrics.md")
    (block,) = blocks("docs/metrics.md", "python")
    exec(compile(block, "docs/metrics.md", "exec"), {"__name__": "metrics"})


def test_central_differences_are_the_scheme_where_axes_are_bounded() -> None:
    assert isinstance(rates.natural_scheme(LINE), CentralDifference)
    assert isinstance(rates.natural_scheme(box(8)), Spectral)
