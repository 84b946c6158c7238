"""Metrics against closed forms: zero on equal inputs, exact spectra, Gaussians, point masses."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
from torch import Tensor

from constraints import Axis, Constraint, Grid, Momentum
from pcfm.metrics import (
    Cost,
    energy_distance,
    energy_spectrum,
    mean_error,
    measure,
    relative_error,
    spectrum_error,
    spread_error,
    violation,
)

BOUNDED = Grid(Axis("time", 5, length=2.0), Axis("x", 9, length=3.0))


def normal(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def box(*points: int, lengths: tuple[float, ...] | None = None) -> Grid:
    lengths = lengths or (2 * math.pi,) * len(points)
    return Grid(*(Axis(name, n, length=length, periodic=True) for name, n, length in zip("xyz", points, lengths, strict=False)))


def test_pointwise_errors_vanish_on_equal_inputs() -> None:
    u = normal((6, 2, 5, 9))
    assert mean_error(u, u, BOUNDED) == 0
    assert spread_error(u, u, BOUNDED) == 0
    assert torch.equal(relative_error(u, u, BOUNDED), torch.zeros(6, dtype=torch.float64))


def test_mean_and_spread_error_of_shifted_and_stretched_ensembles() -> None:
    u = normal((50, 1, 5, 9))
    moved = u + 3.0
    assert mean_error(moved, u, BOUNDED).item() == pytest.approx(9.0, rel=1e-12)
    assert spread_error(moved, u, BOUNDED).item() == pytest.approx(0.0, abs=1e-24)
    standard = (u - u.mean(0)) / u.std(0)
    assert spread_error(3 * standard, standard, BOUNDED).item() == pytest.approx(4.0, rel=1e-12)
    assert mean_error(3 * standard, standard, BOUNDED).item() == pytest.approx(0.0, abs=1e-24)


def test_standard_deviation_is_unbiased() -> None:
    """Two samples one apart have variance 1/2 with N - 1 in the denominator, 1/4 with N."""
    pair, constant = torch.tensor([0.0, 1.0], dtype=torch.float64).view(2, 1, 1, 1), torch.zeros(2, 1, 5, 9, dtype=torch.float64)
    assert spread_error(pair.expand(2, 1, 5, 9), constant, BOUNDED).item() == pytest.approx(0.5)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_mean_error_of_two_gaussian_ensembles(seed: int) -> None:
    """Its expectation is (1/N + 1/M) sigma squared, over independent points."""
    grid = box(4096)
    value = mean_error(2 * normal((10, 1, 4096), seed), 2 * normal((40, 1, 4096), seed + 100), grid)
    assert value.item() == pytest.approx((1 / 10 + 1 / 40) * 4, rel=0.15)


def test_errors_are_quadrature_means_over_points_and_plain_means_over_channels() -> None:
    """The difference x in one of two channels, on a closed axis of length 3: mean of x squared is 3 plus the trapezoidal h²/6."""
    x = BOUNDED.axis("x").positions()
    u = torch.zeros(1, 2, 5, 9, dtype=torch.float64)
    moved = u.clone()
    moved[:, 0] = x
    assert mean_error(moved, u, BOUNDED).item() == pytest.approx((3 + (3 / 8) ** 2 / 6) / 2, rel=1e-12)


def test_relative_error_is_paired_and_scale_free() -> None:
    v = normal((4, 2, 5, 9))
    factors = torch.tensor([1.0, 1.5, 2.0, -1.0], dtype=torch.float64)
    expected = torch.tensor([0.0, 0.5, 1.0, 2.0], dtype=torch.float64)
    assert torch.allclose(relative_error(factors.view(4, 1, 1, 1) * v, v, BOUNDED), expected, atol=1e-14)
    assert torch.allclose(relative_error(1e6 * factors.view(4, 1, 1, 1) * v, 1e6 * v, BOUNDED), expected, atol=1e-14)


def test_relative_error_where_the_reference_vanishes() -> None:
    zero = torch.zeros(2, 1, 5, 9)
    u = zero.clone()
    u[1] = 1.0
    assert relative_error(u, zero, BOUNDED).tolist() == [0.0, math.inf]


@pytest.mark.parametrize(
    ("u", "reference", "message"),
    [
        ((2, 1, 9, 5), (2, 1, 5, 9), "another order"),
        ((2, 1, 5, 9), (2, 2, 5, 9), "shape"),
        ((1, 1, 5, 9), (2, 1, 5, 9), "2 samples"),
    ],
)
def test_pointwise_errors_reject_what_does_not_fit(u: tuple[int, ...], reference: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        spread_error(torch.zeros(u), torch.zeros(reference), BOUNDED)
    with pytest.raises(ValueError, match="one reference a sample"):
        relative_error(torch.zeros(2, 1, 5, 9), torch.zeros(3, 1, 5, 9), BOUNDED)


@pytest.mark.parametrize("points", [(16,), (15,), (12, 10), (9, 12), (12, 9), (7, 5), (6, 8, 4), (5, 6, 7), (5, 7, 9)])
@pytest.mark.parametrize("stretched", [False, True])
def test_shells_add_up_to_half_the_mean_square(points: tuple[int, ...], stretched: bool) -> None:
    grid = box(*points, lengths=tuple(1.0 + 0.7 * i for i in range(len(points))) if stretched else None)
    u = normal((3, 2, *points)) + 0.7
    _, energy = energy_spectrum(u, grid)
    expected = 0.5 * u.square().sum(1).flatten(1).mean(1)
    assert torch.allclose(energy.sum(1), expected, rtol=1e-12, atol=0)
    assert torch.allclose(energy[:, 0], 0.5 * u.flatten(2).mean(2).square().sum(1), rtol=1e-12)


@pytest.mark.parametrize(
    ("points", "mode"), [((16,), (3,)), ((15,), (7,)), ((16,), (8,)), ((32, 32), (3, 4)), ((31, 32), (0, 5)), ((8, 8, 8), (1, 2, 2))]
)
def test_one_wave_is_in_one_shell(points: tuple[int, ...], mode: tuple[int, ...]) -> None:
    """Amplitude a: energy a²/4, or a²/2 at the Nyquist wavenumber, where the cosine is ±1."""
    grid = box(*points, lengths=(3.0,) * len(points))
    phase = sum((2 * math.pi / 3.0 * m * x for m, x in zip(mode, grid.mesh(), strict=True)), torch.zeros(points, dtype=torch.float64))
    k, energy = energy_spectrum(2.0 * torch.cos(phase)[None, None], grid)
    shell = round(math.hypot(*mode))
    expected = torch.zeros_like(energy)
    expected[0, shell] = 2.0 if 2 * mode[-1] == points[-1] else 1.0
    assert torch.allclose(energy, expected, atol=1e-14)
    assert k[shell].item() == pytest.approx(2 * math.pi / 3.0 * shell)


def test_shells_of_a_long_box_have_the_width_of_its_finest_wavenumber() -> None:
    """In a box four times as long as high, one wave over the height has the wavenumber of four along the length."""
    grid = box(32, 16, lengths=(8.0, 2.0))
    y = grid.mesh()[1]
    k, energy = energy_spectrum(torch.sin(math.pi * y)[None, None], grid)
    assert energy[0].argmax() == 4
    assert k[4].item() == pytest.approx(math.pi)


def test_spectrum_is_averaged_over_time_with_its_weights() -> None:
    grid = Grid(Axis("time", 3, length=1.0), Axis("x", 8, length=1.0, periodic=True))
    amplitude = torch.tensor([0.0, 2.0, 4.0], dtype=torch.float64)
    u = amplitude[:, None] * torch.cos(2 * math.pi * grid.axis("x").positions())
    _, energy = energy_spectrum(u[None, None], grid)
    assert energy[0, 1].item() == pytest.approx((0.25 * 0 + 0.5 * 4 + 0.25 * 16) / 4)


def test_spectrum_error_of_scaled_fields_is_a_number_of_decades() -> None:
    grid, u = box(16, 16), normal((8, 1, 16, 16))
    assert spectrum_error(u, u, grid) == 0
    assert spectrum_error(math.sqrt(10.0) * u, u, grid).item() == pytest.approx(1.0, rel=1e-12)
    assert spectrum_error(u, 10.0 * u, grid).item() == pytest.approx(2.0, rel=1e-12)


def test_spectrum_error_leaves_out_empty_and_unresolved_shells() -> None:
    grid = box(16, 16)
    x, y = grid.mesh()
    reference = torch.sin(x) + torch.sin(3 * y)
    corner = torch.cos(8 * x) * torch.cos(8 * y)
    assert spectrum_error((reference + 1e-3 * torch.sin(5 * x))[None, None], reference[None, None], grid).item() < 1e-12
    assert spectrum_error((reference + 5 * corner)[None, None], (reference + corner)[None, None], grid).item() < 1e-12
    missing = spectrum_error(torch.sin(x)[None, None], reference[None, None], grid)
    assert missing.item() == pytest.approx(10 / math.sqrt(2), rel=1e-9)


def test_spectrum_error_of_zero_fields() -> None:
    grid, zero = box(8), torch.zeros(1, 1, 8)
    assert spectrum_error(zero, zero, grid) == 0
    assert spectrum_error(zero + 1, zero, grid) == math.inf


@pytest.mark.parametrize("axis", [Axis("x", 8), Axis.at("x", [0.0, 1.0, 1.5, 3.0, 4.0], periodic=True, length=6.0)])
def test_spectrum_needs_periodic_equally_spaced_axes(axis: Axis) -> None:
    with pytest.raises(ValueError, match="periodic, equally spaced"):
        energy_spectrum(torch.zeros(1, 1, axis.points), Grid(axis))


def test_energy_distance_of_point_masses() -> None:
    """Twice the root mean square of the scaled difference, whatever the resolution."""
    for points in (4, 64):
        u, v = torch.full((3, 2, points), 5.0, dtype=torch.float64), torch.full((4, 2, points), 2.0, dtype=torch.float64)
        assert energy_distance(u, v).item() == pytest.approx(6.0, rel=1e-14)
        scale = torch.tensor([1.0, 3.0], dtype=torch.float64)
        assert energy_distance(u, v, scale).item() == pytest.approx(2 * math.sqrt((9 + 1) / 2), rel=1e-14)
        assert energy_distance(v, v) == 0


def test_energy_distance_of_two_gaussians() -> None:
    """In one dimension E|N(m, s²)| = s √(2/π) exp(-m²/2s²) + m erf(m/s√2)."""

    def absolute(m: float, s: float) -> float:
        return s * math.sqrt(2 / math.pi) * math.exp(-(m**2) / (2 * s**2)) + m * math.erf(m / (s * math.sqrt(2)))

    expected = 2 * absolute(1.5, math.sqrt(5)) - absolute(0, math.sqrt(8)) - absolute(0, math.sqrt(2))
    u, v = 2 * normal((3000, 1, 1), 1) + 1.5, normal((3000, 1, 1), 2)
    assert energy_distance(u, v, torch.ones(1)).item() == pytest.approx(expected, rel=0.05)


def test_energy_distance_has_no_bias() -> None:
    """Over many small sets of one distribution the mean is zero within its error; the plain estimator would be at 2 E|X - X'| / n."""
    n, scale = 4, torch.ones(1)
    values = torch.stack([energy_distance(normal((n, 1, 3), 2 * i), normal((n, 1, 3), 2 * i + 1), scale) for i in range(400)])
    error = values.std().item() / math.sqrt(len(values))
    assert abs(values.mean().item()) < 3 * error
    assert error < 0.1 * 2 * 1.3 / n
    assert (values < 0).any()


def test_energy_distance_forgets_units() -> None:
    u, v = normal((20, 2, 6), 1), 1.3 * normal((30, 2, 6), 2)
    factor = torch.tensor([1.0, 1e5], dtype=torch.float64).view(1, 2, 1)
    assert torch.allclose(energy_distance(factor * u, factor * v), energy_distance(u, v), rtol=1e-10)


def test_energy_distance_tells_nearby_single_precision_fields_apart() -> None:
    """Distances by matrix products would lose 1e-4 beside fields of order one."""
    v = torch.ones(40, 1, 64)
    assert energy_distance(v + 1e-4, v, torch.ones(1)).item() == pytest.approx(2e-4, rel=1e-2)


def test_energy_distance_rejects_what_does_not_fit() -> None:
    u = torch.zeros(3, 2, 4)
    for other, scale, message in (
        (u[:1], None, "two samples"),
        (u[:, :1], None, "alike"),
        (u, torch.zeros(2), "positive"),
        (u, torch.ones(3), "2 channels"),
    ):
        with pytest.raises(ValueError, match=message):
            energy_distance(u, other, scale)


class Sum(Constraint):
    """Two rows: the sum of a field, of natural magnitude 4, and its first value, which has none."""

    def residual(self, u: Tensor) -> Tensor:
        return torch.stack([u.flatten(1).sum(1), u.flatten(1)[:, 0]], dim=1)

    def scale(self, u: Tensor) -> Tensor:
        return u.new_tensor([[4.0, 0.0]]).expand(len(u), 2)


def test_violation_is_the_largest_residual_row_by_row() -> None:
    u = torch.tensor([[[0.0, -2.0]], [[0.0, 0.0]], [[1.0, 1.0]], [[math.nan, 0.0]]])
    absolute, relative = violation(Sum(), u)
    assert absolute[:3].tolist() == [2.0, 0.0, 2.0]
    assert relative[:3].tolist() == [0.5, 0.0, math.inf]
    assert absolute[3].isnan()
    assert relative[3].isnan()


def test_violation_of_a_law_with_one_scale() -> None:
    grid = box(8, 8, lengths=(2.0, 2.0))
    u = normal((3, 2, 8, 8))
    u = u - u.mean((2, 3), keepdim=True)
    moved = u.clone()
    moved[:, 1] += 0.25
    law = Momentum(grid, 0.0)
    assert violation(law, u).relative.max() < 1e-15
    assert torch.allclose(violation(law, moved).absolute, torch.full((3,), 1.0, dtype=torch.float64))
    assert (violation(law, moved).relative > 0.05).all()


def test_measure_fills_in_the_cost() -> None:
    with measure() as meter:
        total = sum(math.sqrt(i) for i in range(200_000))
        meter.network_calls += 3
        meter.projections += 1
    assert total > 0
    cost = meter.cost
    assert isinstance(cost, Cost)
    assert (cost.network_calls, cost.projections, cost.multiplier_solves) == (3, 1, 0)
    assert 0 < cost.cpu_seconds < 10
    assert cost.seconds > 0.5 * cost.cpu_seconds / torch.get_num_threads()
    assert meter.cost == cost, "the clocks have stopped"
    assert cost.peak_memory_bytes is None or 10**7 < cost.peak_memory_bytes < 10**12


def test_measure_stops_when_the_block_fails() -> None:
    with pytest.raises(RuntimeError), measure() as meter:
        raise RuntimeError
    assert meter.cost == meter.cost


def test_metrics_and_report_load_no_plotting_and_no_files() -> None:
    code = "import sys, pcfm.metrics, pcfm.report; print([m for m in ('matplotlib', 'h5py') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_metrics_stay_on_the_device_of_the_fields() -> None:
    """On the meta device, nothing may meet a tensor of the processor."""
    grid, u = box(8, 8), torch.zeros(3, 2, 8, 8, device="meta")
    assert mean_error(u, u, grid).device.type == spread_error(u, u, grid).device.type == relative_error(u, u, grid).device.type == "meta"
    assert all(part.device.type == "meta" for part in energy_spectrum(u, grid))
