"""What `inspect` finds in values: precision, walls, holes, integrals, equations; what it leaves unsaid; and the loaders that help it."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from constraints import Axis, Grid, Poisson, Rate
from pcfm.audit import audit
from pcfm.findings import equation_of, holes, integrals, no_places, precision, rates, walls
from pde_datasets import Fields, store
from pde_datasets.loaders.columns import load
from pde_datasets.loaders.pyro2_initial import initial_laws
from pde_datasets.loaders.sides import equations, sides
from pde_datasets.mesh import Mesh, on_mesh
from pde_datasets.problems import KortewegDeVries
from tests.commands import Call

LINE = Grid(Axis("time", 4), Axis("x", 16, length=2 * math.pi, periodic=True))
PLATE = Grid(Axis("x", 9), Axis("y", 7))
RING = Grid(*(Axis(n, 16, length=2 * math.pi, periodic=True) for n in "xy"))


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def names(fields: Fields, origin: str) -> list[str]:
    return [row["name"] for row in audit(fields)[0] if row["origin"] == origin]


# --- precision ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("digits", [2, 4, 6])
def test_values_written_with_few_digits_obey_laws_as_well_as_these_do(digits: int) -> None:
    u = noise(1, 1, 4, 16) * torch.logspace(-3, 3, 16, dtype=torch.float64)
    written = torch.tensor([float(f"{v:.{digits - 1}e}") for v in u.flatten().tolist()], dtype=torch.float64).reshape(u.shape)
    found = precision(Fields(written, LINE, ("u",)))
    assert found.tolerance == pytest.approx(5 * 10.0**-digits)
    assert found.reason == f"values are rounded to {digits} decimal digits, however they are stored"
    assert (written - u).abs().max() <= found.tolerance * u.abs().max(), "which is what writing them cost"
    assert precision(Fields(u, LINE, ("u",))).tolerance == 1e-9


def test_whole_numbers_and_zeros_are_not_values_written_with_few_digits() -> None:
    for u in (noise(1, 1, 4, 16).round(), torch.zeros(1, 1, 4, 16, dtype=torch.float64)):
        assert precision(Fields(u, LINE, ("u",))).tolerance == 1e-9


def test_the_precision_that_a_source_states_counts_where_it_is_the_coarsest() -> None:
    fields = Fields(noise(1, 1, 4, 16).float(), LINE, ("u",))
    assert precision(fields).tolerance == 2e-5
    for stated, tolerance in ((1e-3, 1e-3), (1e-8, 2e-5), (7.0, 2e-5), ("fine", 2e-5)):
        about = {"precision": stated, "precision_reason": "as its author says"}
        found = precision(replace(fields, attributes=about))
        assert found.tolerance == tolerance
        assert ("author" in found.reason) == (tolerance == 1e-3)


# --- walls -------------------------------------------------------------------------------------------------------------------------


def cavity(u: Tensor) -> Fields:
    return Fields(u, PLATE, ("u", "v"), roles={"velocity": ("u", "v")})


def test_walls_are_seen_where_values_vanish() -> None:
    u = noise(2, 2, 9, 7)
    assert walls(cavity(u), 1e-9) == []
    u[:, :, 0] = u[:, :, -1] = 0
    u[..., 0] = 1e-14
    assert walls(cavity(u), 1e-9) == [
        "dirichlet:axis=x,side=lower,value=0,channels=u+v",
        "dirichlet:axis=x,side=upper,value=0,channels=u+v",
        "dirichlet:axis=y,side=lower,value=0,channels=u+v",
    ]
    u[:, 1, :, -1] = 0
    assert walls(cavity(u), 1e-9)[-1] == "dirichlet:axis=y,side=upper,value=0,channels=v", "a lid that moves along itself"
    assert "v = 0 at upper y" in names(cavity(u), "seen at the walls")
    u[..., -1] = 0
    assert walls(cavity(u), 1e-9) == ["no-slip"]


def test_walls_are_those_of_all_samples_and_times() -> None:
    grid = Grid(Axis("time", 4), Axis("x", 9))
    u = noise(3, 1, 4, 9)
    u[..., 0] = 0
    assert walls(Fields(u, grid, ("u",)), 1e-9) == ["dirichlet:axis=x,side=lower,value=0,channels=u"]
    u[2, 0, 3, 0] = 0.1
    assert walls(Fields(u, grid, ("u",)), 1e-9) == []
    assert walls(Fields(torch.zeros_like(u), grid, ("u",)), 1e-9) == [], "nothing at all is no wall"
    assert walls(Fields(u, grid, ("u",), roles={"valid": ("u",)}), 1e-9) == []


# --- holes -------------------------------------------------------------------------------------------------------------------------


def test_values_that_mean_nothing_enter_no_law() -> None:
    """A divergence-free field with two holes: what stands in them does not count, and the rows beside them are left out."""
    x, y = PLATE.mesh()
    u = torch.stack([x * x, -2 * x * y, torch.ones_like(x)])[None]  # central differences are exact on squares
    u[0, 2, 4, 3] = u[0, 2, 0, 0] = 0
    u[0, :2, 4, 3] = 100.0
    roles = {"velocity": ("u", "v"), "valid": ("valid",)}
    fields = Fields(u, PLATE, ("u", "v", "valid"), roles=roles)
    missing = holes(fields)
    assert missing is not None
    assert int(missing.sum()) == 2
    (row,), unknown = audit(fields)
    assert (row["law"], row["holds"]) == ("divergence-free:scheme=central", True)
    touched = {(4, 2), (4, 4), (3, 3), (5, 3), (0, 0), (0, 1), (1, 0)}
    assert row["rows"] == [63 - len(touched), 63], "neighbours of the hole inside; the one-sided end at the corner, and those it enters"
    assert unknown == []
    whole = replace(fields, roles={"velocity": ("u", "v")})
    assert not next(row for row in audit(whole)[0] if row["law"] == "divergence-free:scheme=central")["holds"]
    rows, unknown = audit(fields, ("momentum:value=0",))
    assert rows == []
    assert unknown == ["momentum:value=0: values that mean nothing enter all of it"]


def test_a_divergence_is_set_beside_the_gradient() -> None:
    x, y = RING.mesh()
    u = torch.stack([torch.sin(y) + 0.1 * torch.sin(x), torch.sin(x)])[None]
    fields = Fields(u, RING, ("u", "v"), roles={"velocity": ("u", "v")})
    row = next(row for row in audit(fields)[0] if row["law"] == "divergence-free:scheme=spectral")
    assert row["rms"] == pytest.approx(0.1 / math.sqrt(2), rel=1e-12)
    assert row["gradient"] == pytest.approx(math.sqrt((1 + 1 + 0.01) / 2), rel=1e-12)


# --- what is said and what is not --------------------------------------------------------------------------------------------------


def test_what_is_no_place_has_no_laws_in_space() -> None:
    for axis, words in ((Axis("k", 8), "k is no place"), (Axis("latitude", 8, length=180.0, unit="degrees"), "an angle on a sphere")):
        fields = Fields(noise(1, 1, 4, 8), Grid(Axis("time", 4), axis), ("u",))
        assert words in str(no_places(fields))
        rows, unknown = audit(fields)
        assert rows == []
        assert [words in text for text in unknown] == [True]


def test_nothing_is_guessed_of_what_is_said_to_be_lawless(call: Call, tmp_path: Path) -> None:
    fields = Fields(noise(1, 1, 4, 16), LINE, ("u",), attributes={"lawless": "these are pictures", "notes": ""})
    assert audit(fields) == ([], [])
    store.write(tmp_path / "a.h5", fields)
    told = call(f"inspect {tmp_path / 'a.h5'}").out
    assert "laws        none holds: these are pictures" in told
    assert not re.search(r"^ +notes", told, re.MULTILINE)


def test_laws_of_one_name_say_which_channel_they_are_about() -> None:
    laws = ("dirichlet:axis=x,side=lower,value=0,channels=u", "mass:channels=u,value=0", "mass:channels=v,value=0")
    rows, _ = audit(Fields(noise(2, 2, 9, 7), PLATE, ("u", "v")), laws)
    assert [row["name"] for row in rows] == ["u = 0 at lower x", "mass of u", "mass of v"]


def test_the_largest_principle_is_not_guessed_of_an_unknown_equation() -> None:
    fields = Fields(noise(1, 1, 4, 16), LINE, ("u",))
    assert equation_of(fields) is None
    assert [row["law"] for row in audit(fields)[0]] == ["mass"]
    heat = replace(fields, attributes={"equation": "u_t = 0.1 u_xx"})
    assert [row["law"] for row in audit(heat)[0]] == ["mass:channels=u", "energy-decay:channels=u", "maximum-principle"]
    known = equation_of(heat)
    assert known is not None
    assert known.misfit is None


def test_an_equation_found_in_the_values_is_told_with_its_misfit(call: Call, tmp_path: Path) -> None:
    grid = Grid(Axis("time", 65), Axis("x", 64, length=2 * math.pi, periodic=True))
    time, x = grid.mesh()
    u = torch.exp(-0.3 * time) * torch.sin(x) + 0.4 * torch.exp(-2.7 * time) * torch.cos(3 * x)
    store.write(tmp_path / "heat.h5", Fields(u[None, None], grid, ("u",)))
    document = call(f"inspect {tmp_path / 'heat.h5'} --json").json()
    assert document["equation"]["text"] == "u_t - 0.3 u_xx = 0"
    assert document["equation"]["origin"] == "found"
    assert 0 < document["equation"]["misfit"] < 1e-3
    assert {row["name"]: row["holds"] for row in document["laws"]} == dict.fromkeys(
        ("mass (conserved)", "energy decay", "maximum principle"), True
    )
    assert "found in the values" in call(f"inspect {tmp_path / 'heat.h5'}").out
    both = torch.stack([u, u.flip(0)])[:, None]
    assert equation_of(Fields(both, grid, ("u",))) is not None, "heat that gathers obeys the same with the other sign"
    found = equation_of(Fields(both, grid, ("u",)))
    assert found is not None
    assert found.equation.sign("u_xx") == 2
    assert [row["law"] for row in audit(Fields(both, grid, ("u",)))[0]] == ["mass:channels=u"]


def test_coefficients_are_told_as_well_as_they_are_known(call: Call, tmp_path: Path) -> None:
    r"""Disturbed diffusion: $|r| = d\,|a|$ of one term, which may move by $\sqrt3\,\epsilon d$."""
    grid = Grid(Axis("time", 65), Axis("x", 64, length=2 * math.pi, periodic=True))
    time, x = grid.mesh()
    d = 0.31830988618
    u = torch.exp(-d * time) * torch.sin(x) + 0.4 * torch.exp(-9 * d * time) * torch.cos(3 * x)
    u = u + 1e-3 * noise(65, 64)
    store.write(tmp_path / "heat.h5", Fields(u[None, None], grid, ("u",)))
    found = call(f"inspect {tmp_path / 'heat.h5'} --json").json()["equation"]
    assert list(found["margin"]) == ["u_xx"]
    margin, told = found["margin"]["u_xx"], float(found["text"].split()[2])
    assert margin == pytest.approx(3**0.5 * found["misfit"] * d, rel=1e-2)
    assert abs(told - d) <= margin < 0.02 * d
    assert f"coefficients to within {margin:.0e} (u_xx)" in call(f"inspect {tmp_path / 'heat.h5'}").out


def test_one_time_says_nothing_of_what_is_conserved(call: Call, tmp_path: Path) -> None:
    grid = Grid(Axis("time", 1), Axis("x", 16, length=2 * math.pi, periodic=True))
    about = {"equation": "u_t + u u_x = 0.1 u_xx"}
    for laws in ((), ("mass", "energy-decay", "mass:value=0")):
        u = noise(2, 1, 1, 16)
        store.write(tmp_path / f"{len(laws)}.h5", Fields(u - u.mean(-1, keepdim=True), grid, ("u",), laws=laws, attributes=about))
        ran = call(f"inspect {tmp_path / f'{len(laws)}.h5'} --json")
        assert ran.status == 0
        document = ran.json()
        assert [(row["law"], row["holds"]) for row in document["laws"]] == [(law, True) for law in laws if "value" in law]
        assert document["not_checked"] == [f"{law}: the file holds one time only" for law in laws if "value" not in law]


def test_a_law_is_listed_once_whatever_it_is_called() -> None:
    r"""$\int u^2$ and the Hamiltonian of Korteweg and de Vries, stated by the problem and following from the equation."""
    problem = KortewegDeVries(points=128, times=6, nonlinearity=6.0, initial="cosine", length=20.0)
    fields = problem.draw(1)
    fields = replace(fields, attributes={**fields.attributes, "equation": "u_t + 6 u u_x + u_xxx = 0"})
    assert [row["name"] for row in audit(fields)[0]] == ["mass (conserved)", "L2 energy (conserved)", "Hamiltonian (conserved)"]
    other = replace(fields, attributes={**fields.attributes, "equation": "u_t + 5 u u_x + u_xxx = 0"})
    assert len(audit(other)[0]) == 4, "another Hamiltonian is another law"


def test_integrals_are_those_of_the_cells() -> None:
    grid = Grid(Axis("time", 3), Axis("x", 4, length=2.0, cells=True))
    u = torch.arange(24, dtype=torch.float64).reshape(2, 1, 3, 4)
    assert integrals(Fields(u, grid, ("rho",), roles={"density": ("rho",)})) == [{"of": "rho", "first": [3.0, 27.0], "last": [19.0, 43.0]}]
    assert integrals(Fields(u, grid, ("rho",))) == []


# --- Poisson's equation ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ends", "wave"), [("dirichlet", torch.sin), ("neumann", torch.cos)])
def test_second_differences_have_their_eigenvalues(ends: str, wave: torch.Tensor) -> None:
    r"""$\sin$ and $\cos$ of whole half-waves at the centres of cells: $-4\sin^2(kh/2)/h^2$ along each axis."""
    grid = Grid(Axis("x", 8, length=2.0, origin=0.125, cells=True), Axis("y", 6, length=3.0, periodic=True))
    x, y = grid.mesh()
    v = wave(3 * math.pi * x / 2) * torch.cos(2 * math.pi * y / 3)  # type: ignore[operator]
    eigenvalue = -sum(4 * math.sin(k * h / 2) ** 2 / h**2 for k, h in ((1.5 * math.pi, 0.25), (2 * math.pi / 3, 0.5)))
    law = Poisson(grid, ends=ends)
    assert law.residual(torch.stack([v, eigenvalue * v])[None]).abs().max() < 1e-12
    assert law.residual(torch.stack([v, 1.01 * eigenvalue * v])[None]).abs().max() > 0.01
    other = Poisson(grid, ends="neumann" if ends == "dirichlet" else "dirichlet")
    assert other.residual(torch.stack([v, eigenvalue * v])[None]).abs().max() > 1


def test_poisson_is_judged_beside_its_source() -> None:
    """Second differences have terms of v / h^2, 1e5 times the source here: a share of those would let any source pass."""
    grid = Grid(*(Axis(n, 64, length=0.01, origin=0.01 / 128, cells=True) for n in "xy"))
    v = noise(1, 64, 64).cumsum(1).cumsum(2)
    free = torch.stack([v, torch.zeros_like(v)], dim=1)
    law = Poisson(grid)
    f = law.residual(free).reshape(v.shape)

    def row(factor: float, dtype: torch.dtype = torch.float64) -> dict[str, Any]:
        u = torch.stack([v, factor * f], dim=1).to(dtype)
        (found,), _ = audit(Fields(u, grid, ("v", "f")), ("poisson:unknown=v,source=f",))
        return found

    assert row(1.0)["holds"]
    changed = row(1.0001)
    assert not changed["holds"]
    assert changed["relative"] == pytest.approx(1e-4, rel=1e-3)
    assert changed["scale"] == pytest.approx(1.0001 * float(f.abs().max()))
    single = row(1.0, torch.float32)
    assert single["holds"], "v is rounded to single precision, of which differences keep less"
    assert not row(1.1, torch.float32)["holds"]


def test_nodes_have_rows_inside_alone() -> None:
    grid = Grid(Axis("time", 2), Axis("x", 5, length=4.0), Axis("y", 4, length=3.0))
    _, x, y = grid.mesh()
    law = Poisson(grid, unknown=1, source=0)
    assert law.residual(torch.stack([2 + 0 * x + 4, x * x + 2 * y * y])[None]).shape == (1, 2 * 3 * 2)
    assert law.residual(torch.stack([0 * x + 6, x * x + 2 * y * y])[None]).abs().max() < 1e-12


@pytest.mark.parametrize(
    ("grid", "options", "word"),
    [
        (Grid(Axis("x", 4)), {"ends": "open"}, "ends among dirichlet, neumann"),
        (Grid(Axis("x", 4)), {"source": 0}, "two different channels"),
        (Grid(Axis("x", 4)), {"source": 5}, "two different channels"),
        (Grid(Axis("x", 2)), {}, "axis 'x' has 2"),
        (Grid(Axis.at("x", [0.0, 0.1, 0.4, 1.0])), {}, "equally spaced points"),
    ],
)
def test_bad_equations_of_poisson(grid: Grid, options: dict[str, object], word: str) -> None:
    with pytest.raises(ValueError, match="Poisson expects") as error:
        Poisson(grid, **options)  # type: ignore[arg-type]
    assert word in str(error.value)


# --- histories ---------------------------------------------------------------------------------------------------------------------


def test_parabolas_have_their_slope_on_any_steps() -> None:
    grid = Grid(Axis.at("time", [0.0, 0.1, 0.4, 0.5, 1.2]), Axis("x", 3))
    time, x = grid.mesh()
    law = Rate(grid, of=1, rate=2, factor=-0.5, channels=3)
    u = torch.stack([x, 3 * time**2 - time + x, -2 * (6 * time - 1)])[None]
    assert law.residual(u).shape == (1, 9)
    assert law.residual(u).abs().max() < 1e-13
    assert law.measure(u)[1].item() == pytest.approx(6 * 1.2 - 1)
    for options, word in (({"of": 1}, "two different channels"), ({"factor": 0.0}, "not zero")):
        with pytest.raises(ValueError, match=word):
            Rate(grid, **options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least three times"):
        Rate(Grid(Axis("x", 5)))


@pytest.mark.parametrize("times", [1.0, 2.0])
def test_energy_falls_at_its_dissipation_or_at_viscosity_times_enstrophy(times: float) -> None:
    grid = Grid(Axis("time", 201, length=2.0))
    time = grid.axes[0].positions()
    energy, nu = torch.exp(-time), 0.01
    history = Fields(torch.stack([energy, energy / nu / times])[None, :, :], grid, ("Energy", "Enstrophy"))
    assert rates(history) == [], "no viscosity, no law"
    history = replace(history, parameters={"viscosity": torch.tensor([nu], dtype=torch.float64)})
    (law,) = rates(history)
    assert law == f"rate:of=Energy,by=Enstrophy,factor=-{times * nu:g}"
    (row,) = audit(history)[0]
    assert row["relative"] == pytest.approx(0.01**2 / 6, rel=0.02), "central differences of an exponential"
    spent = Fields(torch.stack([energy, energy])[None], grid, ("E energy", "dissipation"))
    assert rates(spent) == ["rate:of=E energy,by=dissipation,factor=-1"]
    assert rates(replace(spent, channels=("kinetic energy", "internal energy"))) == []


def test_digits_of_a_table_count_in_the_differences_of_its_columns(tmp_path: Path, call: Call) -> None:
    r"""A parabola in twelve digits: 5e-12 over the step of 0.01 is more than 1e-9 of its rate; differences have no other error."""
    time = np.arange(401) / 100
    energy, rate = 1.0 + (4.0 - time) ** 2 / 700, (4.0 - time) / 350
    for factor, holds in ((1.0, True), (1.0 + 1e-6, False)):
        rows = "".join(f"{t:.12g} {e:.12g} {r:.12g}\n" for t, e, r in zip(time, energy, factor * rate, strict=True))
        (tmp_path / "a.dat").write_text(f"# Time  Energy  Dissipation\n{rows}")
        fields = load(tmp_path / "a.dat")
        assert fields.attributes["written"]["Energy"] == [12, 11]
        (row,), _ = audit(fields)
        assert row["holds"] is holds
        assert row["relative"] > row["tolerance"] == 1e-9
        assert ("no more than rounded values leave" in call(f"inspect {tmp_path / 'a.dat'}").out) is holds


# --- what loaders measure ----------------------------------------------------------------------------------------------------------


def cloud() -> np.ndarray:
    """The sides of the unit square, unevenly, and points inside."""
    s = np.array([0.0, 0.1, 0.35, 0.6, 1.0])
    edge = [*((0.0, v) for v in s), *((1.0, v) for v in s), *((v, 0.0) for v in s[1:-1]), *((v, 1.0) for v in s[1:-1])]
    return np.array([*edge, (0.5, 0.5), (0.3, 0.7)])


def test_the_net_flux_of_a_cloud_is_that_of_its_sides() -> None:
    """Linear flows, whose flux the trapezoidal rule gets exactly: in as much as out, or the divergence times the area."""
    points = cloud()
    x, y = points.T
    there = sides(points, ("x", "y"))
    assert {place: len(index) for place, index in there.items()} == dict.fromkeys(("x lower", "x upper", "y lower", "y upper"), 5)
    free = np.stack([1 + x - 2 * y, 3 - y])[None]
    found, notes = equations(points, free, there, (0, 1))
    assert set(found) == {"net flux"}
    assert "flows in through the sides" in notes[0]
    matrix = found["net flux"].matrix
    assert isinstance(matrix, Tensor)
    for u, divergence in ((np.stack([x, y]), 2.0), (np.stack([3 * x + y, x - y]), 2.0), (np.stack([y, x]), 0.0)):
        assert float((matrix @ torch.from_numpy(u.reshape(-1, 1))).squeeze()) == pytest.approx(divergence, abs=1e-14)
    assert equations(points, np.stack([1 + x, 3 - 2 * y])[None], there, (0, 1)) == ({}, [])


def test_zeros_at_sides_and_at_the_first_time_are_stated() -> None:
    points = cloud()
    x, _ = points.T
    u = np.stack([0 * x, x * (1 - x), 2 * x * (1 - x)])[None, None]
    found, notes = equations(points, u, sides(points, ("x", "y")), ())
    assert set(found) == {"zero at the sides", "zero at the first time"}
    assert "x lower, x upper" in notes[0]
    assert tuple(found["zero at the sides"].matrix.shape) == (3 * 10, u[0].size)  # type: ignore[union-attr]
    fields = Fields(
        torch.from_numpy(u), on_mesh(len(x), time=Axis("time", 3)), ("u",), mesh=Mesh(torch.from_numpy(points), equations=found)
    )
    assert [row["holds"] for row in audit(fields)[0]] == [True, True]
    disturbed = replace(fields, u=fields.values + 0.1)
    assert [row["holds"] for row in audit(disturbed)[0]] == [False, False]


TUBE = Grid(Axis("x", 8, origin=1 / 16, cells=True), Axis("y", 2, length=0.5, origin=0.125, cells=True))
SOD = {"sod.direction": "x", "eos.gamma": 1.4} | {
    f"sod.{name}_{side}": value
    for side, state in (("left", (1.0, 0.0, 1.0)), ("right", (0.125, 0.0, 0.1)))
    for name, value in zip(("dens", "u", "p"), state, strict=True)
}


def tube(left: float, right: float) -> np.ndarray:
    return np.repeat(np.where(np.arange(8) < 4, left, right)[:, None], 2, axis=1)


def test_two_states_keep_what_they_had_until_a_wave_reaches_an_end() -> None:
    rho = tube(1.0, 0.125)
    laws = initial_laws("sod", SOD, 0.2, TUBE, {"density": rho})
    assert [law.partition(",value=")[0] for law in laws] == [
        "mass:channels=density", "mass:channels=energy", "momentum:channels=x-momentum", "momentum:channels=y-momentum",
    ]  # fmt: skip
    values = [float(law.partition("value=")[2]) for law in laws]
    assert values == pytest.approx([0.25 * 1.125, 0.25 * (2.5 + 0.25), 0.9 * 0.2 * 0.5, 0.0])
    rho[0] = 0.99
    assert initial_laws("sod", SOD, 0.2, TUBE, {"density": rho}) == ()
    assert initial_laws("sod", {**SOD, "sod.u_left": 1.0}, 0.2, TUBE, {"density": tube(1.0, 0.125)}) == ()
    assert initial_laws("sod", {}, 0.2, TUBE, {"density": tube(1.0, 0.125)}) == ()
    assert initial_laws("implosion", SOD, 0.2, TUBE, {"density": tube(1.0, 0.125)}) == ()
    dam = {"dam.direction": "x", "dam.h_left": 1.0, "dam.h_right": 0.5, "dam.u_left": 0.0, "dam.u_right": 0.0, "swe.grav": 2.0}
    values = [float(law.partition("value=")[2]) for law in initial_laws("dam", dam, 0.1, TUBE, {"height": tube(1.0, 0.5)})]
    assert values == pytest.approx([0.25 * 1.5, (1.0 - 0.25) * 0.1 * 0.5, 0.0])


def test_initial_integrals_meet_those_of_the_smooth_states() -> None:
    """By quadrature over the square: bumps that have decayed at its sides are summed to round-off."""
    grid = Grid(*(Axis(n, 128, origin=1 / 256, cells=True) for n in "xy"))
    settings = {"gaussian.phi_0": 1.0, "gaussian.phi_max": 2.0, "diffusion.k": 1.0, "gaussian.t_0": 1e-4}
    (law,) = initial_laws("gaussian", settings, 0.0, grid, {})
    assert float(law.partition("value=")[2]) == pytest.approx(1 + 4 * math.pi * 1e-4, rel=1e-12)
    (law,) = initial_laws("smooth", {}, 0.0, grid, {})
    assert float(law.partition("value=")[2]) == pytest.approx(1 + math.pi / 60 * math.erf(0.5 * math.sqrt(60)) ** 2, rel=1e-9)
    pulse = {"eos.gamma": 1.4, "acoustic_pulse.rho0": 1.4, "acoustic_pulse.drho0": 0.14}
    mass, energy, momentum = initial_laws("acoustic_pulse", pulse, 0.0, grid, {})
    r = np.linspace(0, 0.5, 20001)
    bump = 0.14 * np.exp(-16 * r * r) * np.cos(math.pi * r) ** 6
    assert float(mass.partition("value=")[2]) == pytest.approx(1.4 + np.trapezoid(2 * math.pi * r * bump, r), rel=1e-8)
    more = ((1 + bump / 1.4) ** 1.4 - 1) / 0.4
    assert float(energy.partition("value=")[2]) == pytest.approx(2.5 + np.trapezoid(2 * math.pi * r * more, r), rel=1e-8)
    assert momentum == "momentum:value=0"
