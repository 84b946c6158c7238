"""Real files as tests of the projection read them: the laws they obey, as measured on their bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.real_files import holed_poisson, interior_nodes, openfoam_flux, openfoam_patches, p1_stiffness, soap_film


def existing(path: Path) -> Path:
    """The path, or a skip if this copy of the real files goes without it."""
    if not path.exists():
        pytest.skip(f"{path} not found")
    return path


def rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values**2)))


# --- OpenFOAM: M φ = 0 -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("time", "net"), [("1088", 2e-11), ("4196", 2e-10)])
def test_openfoam_cells_balance(real_data: Path, time: str, net: float) -> None:
    """What flows in flows out, up to the six digits each flux was written with: half a unit of the last is 5e-11 at 3e-5."""
    folder = existing(real_data / "smithers_openfoam/openfoam_mesh_binary")
    M, flux = openfoam_flux(folder, time)
    assert M.shape == (72000, 144720)
    assert flux.shape == (144720,)
    assert np.abs(M @ flux).max() <= 1.41e-10
    assert np.median(abs(M) @ np.abs(flux)) / 2 == pytest.approx(2.3e-5, rel=0.05), "through a cell"
    assert flux[143280:].sum() == pytest.approx(net, rel=1e-3)
    assert (M @ flux).sum() == pytest.approx(net, rel=1e-3), "fluxes between cells cancel"
    reversed_inside = np.concatenate([-flux[:143280], flux[143280:]])
    assert np.abs(M @ reversed_inside).max() > 1e5 * np.abs(M @ flux).max()


@pytest.mark.parametrize("time", ["1088", "4196"])
def test_openfoam_patches_hold_their_fluxes(real_data: Path, time: str) -> None:
    """In through the inlet at 3e-3 m³/s, evenly; out through the outlet; nothing through walls and the two sides of the plane."""
    folder = existing(real_data / "smithers_openfoam/openfoam_mesh_binary")
    M, flux = openfoam_flux(folder, time)
    patches = openfoam_patches(folder)
    assert [patch.stop - patch.start for patch in patches.values()] == [100, 100, 420, 420, 400, 144000]
    np.testing.assert_allclose(flux[patches["inlet"]], -3e-5, rtol=1e-14)
    assert flux[patches["outlet"]].sum() == pytest.approx(3e-3, rel=1e-6)
    assert flux[patches["outlet"]].min() > 0
    for name in ("top", "bottom", "obstacle"):
        assert not flux[patches[name]].any()
    columns = np.asarray(M.sum(axis=0)).ravel()
    assert not columns[:143280].any(), "a face inside leaves one cell and enters another"
    assert (columns[143280:] == 1).all(), "a face of the boundary leaves the domain"
    assert (np.diff(M.indptr) == 4).all(), "hexahedra, two sides of each empty"


# --- soap film: ∂x u + ∂y v ≈ 0 ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("run", [1, 2, 3])
def test_soap_film_is_nearly_incompressible(real_data: Path, run: int) -> None:
    x, y, u, valid = soap_film(existing(real_data / f"pivpy_soapfilm/Run{run:06d}.T000.D000.P000.H001.L.vec"))
    for axis in (x, y):
        np.testing.assert_allclose(np.diff(axis), 0.31248e-3, rtol=1e-5)
    assert u.shape == (2, 63, 63)
    assert round(100 * (1 - valid.mean())) in (9, 10), "per cent without a vector"
    assert not u[:, ~valid].any()
    measured = valid[1:-1, 1:-1] & valid[2:, 1:-1] & valid[:-2, 1:-1] & valid[1:-1, 2:] & valid[1:-1, :-2]
    ux, vx = ((u[:, 2:, 1:-1] - u[:, :-2, 1:-1]) / (x[2:] - x[:-2])[:, None])[:, measured]
    uy, vy = ((u[:, 1:-1, 2:] - u[:, 1:-1, :-2]) / (y[2:] - y[:-2]))[:, measured]
    assert 0.20 <= rms(ux + vy) / rms(vx - uy) <= 0.22
    assert np.corrcoef(ux, -vy)[0, 1] == pytest.approx(0.86, abs=0.01)
    assert rms(ux - vy) / rms(vx + uy) > 1, "the law tells when y points the other way"


# --- holed square: K u = F ---------------------------------------------------------------------------------------------------------


def test_holed_poisson_solves_its_finite_elements(real_data: Path) -> None:
    data = holed_poisson(existing(real_data / "pina_holed_poisson/holed_poisson.pt"))
    interior = data["interior"]
    assert data["u"].shape == (1352, 121)
    assert not data["u"][~interior].any(), "u = 0 on the boundary"
    assert (data["u"][interior] > 0).all()
    ratios = []
    for x, y, u in zip(data["x"].T, data["y"].T, data["u"].T, strict=True):
        K, F = p1_stiffness(x, y, data["triang"])
        ratios.append(((K @ u) / F)[interior])
        assert np.linalg.norm((K @ u - F)[interior]) < 3e-5 * np.linalg.norm(F[interior])
        assert F.sum() / 10 == pytest.approx(0.91, abs=1e-7), "area: triangles neither overlap nor miss the hole"
    assert np.median(ratios) == pytest.approx(1, abs=1e-5)
    assert np.abs(np.quantile(ratios, [0.05, 0.95], axis=1) - 1).max() < 2e-4, "float32 values, on every mesh"
    assert np.abs(np.array(ratios) - 1).max() < 1e-3


def test_holed_poisson_interior_lies_off_the_square_and_its_hole(real_data: Path) -> None:
    data = holed_poisson(existing(real_data / "pina_holed_poisson/holed_poisson.pt"))
    edge = np.abs(np.stack([data["x"], data["y"]]) - 0.5).max(axis=0) == 0.5
    hole = np.abs(np.stack([data["x"], data["y"]]) - data["mu"].T[:, None] - 0.15).max(axis=0) < 0.15 + 1e-6
    assert (edge.sum(axis=0) == 135).all()
    assert (hole.sum(axis=0) == 36).all()
    assert ((edge | hole) == ~data["interior"][:, None]).all()


@pytest.mark.parametrize("seed", range(3))
def test_p1_stiffness_is_exact_on_linear_functions(seed: int) -> None:
    """On an uneven mesh with triangles either way around: K u = 0 inside, uᵀ K u = |∇u|² · area, loads that sum to 10 · area."""
    random = np.random.default_rng(seed)
    n = 5
    i, j = (index.ravel() for index in np.meshgrid(np.arange(n), np.arange(n), indexing="ij"))
    inside = (i % (n - 1) > 0) & (j % (n - 1) > 0)
    x, y = (index / (n - 1) + inside * random.uniform(-0.05, 0.05, n * n) for index in (i, j))
    corner = (i * n + j)[(i < n - 1) & (j < n - 1)]
    triangles = np.concatenate([np.stack([corner, corner + n, corner + 1], 1), np.stack([corner + n + 1, corner + n, corner + 1], 1)])
    np.testing.assert_array_equal(interior_nodes(triangles, n * n), inside)
    K, F = p1_stiffness(x, y, triangles)
    u = 2 + 3 * x - y
    np.testing.assert_allclose((K @ u)[inside], 0, atol=1e-13)
    assert u @ K @ u == pytest.approx(10, rel=1e-13)
    assert np.abs(K @ np.ones(n * n)).max() < 1e-13
    assert F.sum() == pytest.approx(10, rel=1e-13)
