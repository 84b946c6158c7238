"""The projection on real files: fluxes of a finite-volume solver, a shear layer, a soap film, finite elements with a hole.

    OpenFOAM       M φ = 0 in 72,000 cells, the inlet given                       sparse factors
    pyro2          ∂x u + ∂y v = 0, central and spectral                          two transforms
    soap film      the same under noise, with holes and a smooth prior            dense blocks and conjugate gradients
    holed square   K u = F inside, u = 0 on the boundary: fully determined        sparse factors

Files were written by others, with their own errors: what is asked is that the law holds to round-off afterwards, that the result is the
nearest, by an independent computation, and that the correction is as small as those errors.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
import torch
from torch import Tensor

import pde_datasets
from constraints import Axis, Balance, Covariance, DivergenceFree, Grid, Intersection, PointValues, project
from tests.fields import normal
from tests.real_files import holed_poisson, openfoam_flux, openfoam_patches, p1_stiffness, soap_film


def existing(path: Path) -> Path:
    """The path, or a skip if this copy of the real files goes without it."""
    if not path.exists():
        pytest.skip(f"{path} not found")
    return path


# --- OpenFOAM: M φ = 0 -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Channel:
    """Fluxes through the faces that carry any, (1, 1, faces): those inside, of the inlet and of the outlet."""

    M: scipy.sparse.csr_matrix
    flux: Tensor
    inlet: slice
    outlet: slice

    def given(self, *patches: slice) -> Tensor:
        mask = torch.zeros(1, self.flux.shape[2], dtype=torch.bool)
        for patch in patches:
            mask[:, patch] = True
        return mask

    def law(self, flux: Tensor, *patches: slice) -> Intersection:
        """Every cell balanced, the fluxes of some patches given."""
        return Intersection(Balance(self.M, 0.0), PointValues(self.given(*patches), flux[0]))

    def noisy(self, count: int) -> Tensor:
        """The fluxes with noise of 1 % of their root mean square."""
        size = self.flux.square().mean().sqrt()
        return self.flux + 0.01 * size * normal((count, *self.flux.shape[1:]), 7)


@pytest.fixture(params=["1088", "4196"])
def channel(request: pytest.FixtureRequest, real_data: Path) -> Channel:
    folder = existing(real_data / "smithers_openfoam/openfoam_mesh_binary")
    M, flux = openfoam_flux(folder, request.param)
    patches = openfoam_patches(folder)
    used = patches["outlet"].stop
    return Channel(M[:, :used], torch.from_numpy(flux[:used].copy())[None, None], patches["inlet"], patches["outlet"])


def test_openfoam_fluxes_balance_again(channel: Channel) -> None:
    """The file balances to 1.4e-10 of fluxes of 3e-5, with noise to 1e-6; projected, to the rounding of such fluxes."""
    u = torch.cat([channel.flux, channel.noisy(2)])
    assert np.abs(channel.M @ u[1, 0].numpy()).max() > 1e-6
    result = project(channel.law(channel.flux, channel.inlet), u)
    assert result.converged.all()
    assert result.broken == [(), (), ()]
    for v in result.u[:, 0].numpy():
        assert np.abs(channel.M @ v).max() < 1e-16
    inlet = channel.given(channel.inlet)
    assert (result.u[:, inlet] == channel.flux[:, inlet]).all()
    assert (result.u[0] - channel.flux[0]).abs().max() < 1e-9, "the file itself is moved by as much as it was off"


def test_openfoam_fluxes_are_the_nearest(channel: Channel) -> None:
    """Potentials of cells explain every correction, and a right angle parts it from every lawful field.

    Noise has the same share of every direction: the projection takes out one for each row.
    """
    u = torch.cat([channel.flux, channel.noisy(2)])
    result = project(channel.law(channel.flux, channel.inlet), u)
    free = ~channel.given(channel.inlet)[0].numpy()
    cells = channel.M.shape[0]
    for before, v, multiplier in zip(u[:, 0].numpy(), result.u[:, 0].numpy(), result.multiplier.numpy(), strict=True):
        assert np.abs(before - v - channel.M.T @ multiplier[:cells])[free].max() < 1e-18
    lawful, noisy, nearest = result.u[0], u[1:], result.u[1:]
    removed, left, noise = (z.flatten(1).square().sum(1) for z in (noisy - nearest, nearest - lawful, noisy - lawful))
    torch.testing.assert_close(removed + left, noise, rtol=1e-10, atol=0.0)
    share = (cells + channel.inlet.stop - channel.inlet.start) / u.shape[2]
    torch.testing.assert_close(removed / noise, torch.full_like(noise, share), rtol=0.01, atol=0.0)


@pytest.mark.parametrize("size", [1e-10, 1e5])
def test_openfoam_tolerance_follows_the_unit(channel: Channel, size: float) -> None:
    """In any unit the same fluxes come back, and the error of the file is far above tolerance."""
    u = channel.noisy(1)
    plain = project(channel.law(channel.flux, channel.inlet), u)
    scaled = project(channel.law(size * channel.flux, channel.inlet), size * u)
    assert scaled.converged.all()
    assert (scaled.u / size - plain.u).abs().max() < 1e-13 * plain.u.abs().max()
    balance = Balance(channel.M, 0.0)
    scale = balance.scale(size * channel.flux).max()
    assert scale.item() == pytest.approx(4 * size * channel.flux.abs().max().item()), "four faces a cell"
    assert balance.residual(size * channel.flux).abs().max() > 1e5 * 1e-12 * scale


def test_openfoam_inlet_and_outlet_given(channel: Channel) -> None:
    """Both given and equal in sum, the rows of all cells add up to nothing: redundant, and solvable all the same."""
    given = channel.flux.clone()
    given[..., channel.outlet] *= -given[..., channel.inlet].sum() / given[..., channel.outlet].sum()
    result = project(channel.law(given, channel.inlet, channel.outlet), channel.noisy(1))
    assert result.converged.all()
    assert np.abs(channel.M @ result.u[0, 0].numpy()).max() < 1e-16
    mask = channel.given(channel.inlet, channel.outlet)
    assert (result.u[:, mask] == given[:, mask]).all()


@pytest.mark.slow
def test_openfoam_contradiction_is_as_small_as_it_is(channel: Channel) -> None:
    """Inlet and outlet as in the file differ by 2e-11 or 2e-10 of 3e-3: no balance, said so, and missed by no more than that."""
    law = channel.law(channel.flux, channel.inlet, channel.outlet)
    mask = channel.given(channel.inlet, channel.outlet)
    net = channel.flux[:, mask].sum().abs()
    assert 1e-11 < net < 3e-10
    result = project(law, channel.noisy(1))
    assert not result.converged.any()
    assert result.broken[0] != ()
    assert result.violation.item() < 2 * net.item()


# --- pyro2: ∂x u + ∂y v = 0 --------------------------------------------------------------------------------------------------------


def wavenumbers(points: int, scheme: str) -> np.ndarray:
    """What i times it is the scheme's derivative of a wave, on a unit length; none of the saw tooth."""
    k = 2 * np.pi * np.fft.fftfreq(points, 1 / points)
    k[points // 2] = 0.0
    return np.sin(k / points) * points if scheme == "central" else k


@pytest.mark.parametrize(("scheme", "divergence", "moved"), [("central", 0.074, 7.5e-4), ("spectral", 0.25, 1.24e-3)])
def test_shear_layer_is_repaired(real_data: Path, scheme: str, divergence: float, moved: float) -> None:
    """Leray's projection by another program, on the output of a solver that projects approximately."""
    fields = pde_datasets.open(existing(real_data / "pyro2/shear_128_0216.h5"))
    u, velocity = fields.u.to(torch.float64), list(fields.role("velocity"))
    law = DivergenceFree(fields.grid, scheme, components=velocity, channels=u.shape[1])
    assert law.residual(u).square().mean().sqrt().item() == pytest.approx(divergence, rel=0.01)
    result = project(law, u)
    assert result.converged.all()
    k = np.stack(np.meshgrid(wavenumbers(128, scheme), wavenumbers(128, scheme), indexing="ij"))
    square = (k**2).sum(0)
    before, after = (np.fft.fft2(z[0, velocity].numpy()) for z in (u, result.u))
    leray = before - k * (k * before).sum(0) / np.where(square > 1e-9, square, np.inf)
    np.testing.assert_allclose(np.fft.ifft2(after), np.fft.ifft2(leray), atol=1e-14)
    assert np.abs(np.fft.ifft2((k * after).sum(0))).max() < 1e-12, "of gradients of 10 and more"
    correction = result.u - u
    size = u[:, velocity].norm()
    assert (correction.norm() / size).item() == pytest.approx(moved, rel=0.01), "far below one per cent"
    energy = u[:, velocity].square().sum() - result.u[:, velocity].square().sum()
    assert energy.item() == pytest.approx(correction.square().sum().item(), rel=1e-8), "what is removed is orthogonal to what is left"
    others = [c for c in range(u.shape[1]) if c not in velocity]
    assert torch.equal(result.u[:, others], u[:, others])


# --- soap film: noise, holes, a smooth prior ---------------------------------------------------------------------------------------

NOISE = 0.003
"""Standard deviation of a measured velocity in m/s, a tenth of the root mean square: neighbours correlate to 99 % and more."""

LENGTH, NUGGET = 4.0, 1e-2
"""Of the prior's correlation: its length in cells, and what of it belongs to each point alone."""


@dataclass(frozen=True)
class Film:
    """One frame, or a part of it, and the vectors that are shown to the projection.

    Attributes:
        u: velocity in m/s, (2, nx, ny).
        valid: where a vector was measured, (nx, ny).
        known: where it is shown, (nx, ny); the rest of the valid ones are for comparison.
        kernels: covariance along each axis; their product has the variance of the shown vectors.
        prior: the mean of the shown vectors, everywhere, (1, 2, nx, ny).
    """

    grid: Grid
    u: Tensor
    valid: Tensor
    known: Tensor
    kernels: dict[str, Tensor]
    prior: Tensor

    @property
    def metric(self) -> Covariance:
        return Covariance(self.grid, self.kernels)

    @property
    def law(self) -> DivergenceFree:
        return DivergenceFree(self.grid, "central")

    @property
    def observed(self) -> PointValues:
        return PointValues(self.known.expand(2, -1, -1).clone(), self.u, variance=NOISE**2)

    def error(self, v: Tensor) -> Tensor:
        """Squared error at the vectors that were not shown, and their own square."""
        held = self.valid & ~self.known
        return torch.stack([(v[0] - self.u)[:, held].square().sum(), self.u[:, held].square().sum()])

    def divergence(self, v: Tensor) -> float:
        """Largest divergence by numpy's differences, as a share of the largest sum of the terms that cancel in it."""
        x, y = (axis.positions().numpy() for axis in self.grid.axes)
        ux, vy = (np.gradient(v[0, c].numpy(), (x, y)[c], axis=c, edge_order=2) for c in (0, 1))
        return float(np.abs(ux + vy).max() / (np.abs(ux) + np.abs(vy)).max())


def relative(errors: Tensor) -> float:
    return float((errors[0] / errors[1]).sqrt())


def kernel(axis: Axis, spacing: float) -> Tensor:
    x = axis.positions() / (LENGTH * spacing)
    return torch.exp(-0.5 * (x[:, None] - x) ** 2) + NUGGET * torch.eye(axis.points, dtype=torch.float64)


def film(real_data: Path, run: int, shown: float, corner: tuple[int, int] = (0, 0), points: int = 63) -> Film:
    """A share of the vectors of a square part of a frame."""
    x, y, velocity, measured = soap_film(existing(real_data / f"pivpy_soapfilm/Run{run:06d}.T000.D000.P000.H001.L.vec"))
    part = tuple(slice(start, start + points) for start in corner)
    grid = Grid(Axis.at("x", x[part[0]], unit="m"), Axis.at("y", y[part[1]], unit="m"))
    u, valid = torch.from_numpy(velocity)[:, part[0], part[1]], torch.from_numpy(measured)[part]
    known = valid & (torch.rand(valid.shape, generator=torch.Generator().manual_seed(run)) < shown)
    mean = u[:, known].mean(1)[:, None, None]
    variance = (u - mean)[:, known].square().mean()
    kernels = {"x": variance * kernel(grid.axes[0], x[1] - x[0]), "y": kernel(grid.axes[1], y[1] - y[0])}
    return Film(grid, u, valid, known, kernels, mean.expand(u.shape)[None].clone())


FRAMES = pytest.mark.parametrize("run", [1, 2, 3])
"""A frame each: a law on point values has one mask for all samples."""


@FRAMES
def test_soap_film_is_filled_smoothly(real_data: Path, run: int) -> None:
    """One vector in ten hidden besides the missing ones: the posterior mean predicts it ten times as well as the mean does."""
    frame = film(real_data, run, 0.9)
    result = project(frame.observed, frame.prior, metric=frame.metric)
    assert result.converged.all()
    assert relative(frame.error(result.u)) < 0.12
    assert relative(frame.error(frame.prior)) > 0.99
    filled = result.u[0][:, ~frame.valid]
    measured = frame.u[:, frame.valid]
    assert filled.abs().max() < 1.1 * measured.abs().max()
    assert 0.7 < (filled.std() / measured.std()).item() < 1.1, "neither flat nor wild"
    misfit = (result.u[0] - frame.u)[:, frame.known].square().mean().sqrt()
    assert 0.3 * NOISE < misfit < NOISE, "measured vectors are smoothed within their noise"


@FRAMES
def test_soap_film_obeys_everywhere(real_data: Path, run: int) -> None:
    """Incompressible at all points, hidden and missing ones included, beside the measured vectors with their noise.

    The film is incompressible only nearly: hidden vectors are predicted worse than without the law, by less than a fifth.
    """
    frame = film(real_data, run, 0.9)
    filled = project(frame.observed, frame.prior, metric=frame.metric).u
    assert frame.divergence(filled) > 0.1
    law = Intersection(frame.law, frame.observed)
    result = project(law, filled, metric=torch.full((2,), NOISE, dtype=torch.float64))
    assert result.converged.all()
    assert frame.divergence(result.u) < 1e-12
    assert relative(frame.error(result.u)) < 1.2 * relative(frame.error(filled)) < 0.13
    assert ((result.u - filled).norm() / filled.norm()).item() < 0.1


@FRAMES
def test_soap_film_posterior_by_the_null_space(real_data: Path, run: int) -> None:
    """The mean of a smooth, incompressible Gaussian field given half the vectors, as computed in a basis of incompressible fields."""
    part = film(real_data, run, 0.5, (21, 21), 21)
    result = project(Intersection(part.law, part.observed), part.prior, metric=part.metric)
    assert result.converged.all()
    assert part.divergence(result.u) < 1e-12

    size = part.u.numel()
    unit = np.eye(size).reshape(size, 2, 21, 21)
    x, y = (axis.positions().numpy() for axis in part.grid.axes)
    rows = np.gradient(unit[:, 0], x, axis=1, edge_order=2) + np.gradient(unit[:, 1], y, axis=2, edge_order=2)
    _, values, vectors = np.linalg.svd(rows.reshape(size, -1).T)
    basis = vectors[(values > 1e-10 * values[0]).sum() :].T
    covariance = np.kron(np.eye(2), np.kron(part.kernels["x"].numpy(), part.kernels["y"].numpy()))
    known = part.known.expand(2, -1, -1).flatten().numpy() / NOISE**2
    precision = np.linalg.inv(covariance) + np.diag(known)
    misfit = known * (part.u - part.prior[0]).flatten().numpy()
    moved = basis @ np.linalg.solve(basis.T @ precision @ basis, basis.T @ misfit)
    np.testing.assert_allclose((result.u - part.prior).flatten().numpy(), moved, atol=1e-9 * np.abs(moved).max())


def test_soap_film_law_stands_in_for_vectors(real_data: Path) -> None:
    """With one vector in ten shown, the law beside the prior predicts the others better than the prior alone."""
    with_law, without = torch.zeros(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    for run in (1, 2, 3):
        for corner in ((0, 0), (0, 42), (21, 21), (42, 0), (42, 42)):
            part = film(real_data, run, 0.1, corner, 21)
            results = [project(law, part.prior, metric=part.metric) for law in (part.observed, Intersection(part.law, part.observed))]
            assert all(result.converged.all() for result in results)
            without, with_law = without + part.error(results[0].u), with_law + part.error(results[1].u)
    assert relative(with_law) < 0.93 * relative(without)
    assert relative(without) < 0.3


@pytest.mark.slow
def test_soap_film_law_under_a_smooth_metric(real_data: Path) -> None:
    """A whole frame, 3,969 rows: the nearest incompressible field where corrections are smooth."""
    frame = film(real_data, 1, 1.0)
    result = project(frame.law, frame.u[None], metric=frame.metric)
    assert result.converged.all()
    assert frame.divergence(result.u) < 1e-12


# --- holed square: K u = F ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Elements:
    """One mesh: stiffness, load, the stored solution (1, 1, nodes), and which nodes lie inside."""

    K: scipy.sparse.csr_matrix
    F: np.ndarray
    u: Tensor
    interior: np.ndarray

    def law(self, rows: np.ndarray) -> Intersection:
        """The equations of some nodes, and zero on the boundary."""
        nodes = len(self.F)
        walls = PointValues(torch.from_numpy(~self.interior)[None], torch.zeros(1, nodes, dtype=torch.float64))
        return Intersection(Balance(self.K[rows], torch.from_numpy(self.F[rows]), shape=(1, nodes), name="finite elements"), walls)

    def noisy(self) -> Tensor:
        """The solution with noise of a tenth of its root mean square."""
        return self.u + 0.1 * self.u.square().mean().sqrt() * normal((3, *self.u.shape[1:]), 8)

    def solution(self) -> np.ndarray:
        """The solution by another solver."""
        inside = np.flatnonzero(self.interior)
        u = np.zeros(len(self.F))
        u[inside] = scipy.sparse.linalg.spsolve(self.K[inside][:, inside].tocsc(), self.F[inside])
        return u


@pytest.fixture(params=[0, 60, 120])
def elements(request: pytest.FixtureRequest, real_data: Path) -> Elements:
    data = holed_poisson(existing(real_data / "pina_holed_poisson/holed_poisson.pt"))
    x, y, u = (data[name][:, request.param].copy() for name in ("x", "y", "u"))
    K, F = p1_stiffness(x, y, data["triang"])
    return Elements(K, F, torch.from_numpy(u)[None, None], data["interior"])


def test_elements_determine_the_field(elements: Elements) -> None:
    """As many equations as unknowns: whatever comes in, the solution comes out, the stored one to the rounding it is stored with."""
    result = project(elements.law(np.flatnonzero(elements.interior)), elements.noisy())
    assert result.converged.all()
    solution = elements.solution()
    for v in result.u[:, 0].numpy():
        np.testing.assert_allclose(v, solution, atol=1e-13 * solution.max())
        assert np.linalg.norm(v - elements.u[0, 0].numpy()) < 1e-6 * np.linalg.norm(solution)


def test_half_of_the_elements_leave_the_rest_free(elements: Elements) -> None:
    """Equations of every other node hold to round-off, those of the others do not; noise stays where nothing is asked."""
    rows = np.flatnonzero(elements.interior)[::2]
    u = elements.noisy()
    result = project(elements.law(rows), u)
    assert result.converged.all()
    others = np.setdiff1d(np.flatnonzero(elements.interior), rows)
    for v in result.u[:, 0].numpy():
        residual = elements.K @ v - elements.F
        assert np.abs(residual[rows]).max() < 1e-13 * np.abs(elements.K).max()
        assert np.abs(residual[others]).max() > np.abs(elements.F).max()
        assert not v[~elements.interior].any()
    solution = torch.from_numpy(elements.solution())
    removed, left, noise = (z.flatten(1).square().sum(1) for z in (u - result.u, result.u - solution, u - solution))
    torch.testing.assert_close(removed + left, noise, rtol=1e-12, atol=0.0)
    share = len(others) / u.shape[2]
    torch.testing.assert_close(left / noise, torch.full_like(noise, share), rtol=0.1, atol=0.0)
    assert (left.sqrt() > 0.05 * elements.u.norm()).all(), "not the stored solution"
