"""Laws on the command line: what `problem` means, what inspection tells of them, and the same law enforced, inspected and evaluated."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from constraints import Axis, Grid, Intersection, LinearConstraint, project
from constraints.compatibility import clashes
from constraints.inequality import Box
from constraints.linear import RowSelection, SparseMap, WeightedSum
from pcfm.audit import stated
from pcfm.generation import certify, law_rows
from pcfm.laws import Context, build
from pcfm.metrics import violation
from pde_datasets import PROBLEMS, Fields, store
from pde_datasets.mesh import Equation, Mesh
from pde_datasets.problems import InviscidBurgers
from tests.commands import Call
from tests.problems import EXAMPLES

HEAT = "generate heat --set points=16 times=8 --quiet"
DARCY = "generate darcy --set points=8 --quiet"


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def disturbed(source: str, out: str, size: float) -> None:
    """Fields of a file with noise, under the same name of everything else."""
    fields = store.read(Path(source))
    noise = size * torch.randn(fields.u.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    store.write(Path(out), replace(fields, u=fields.values + noise))


# --- scales ------------------------------------------------------------------------------------------------------------------------


def test_rows_of_vanishing_values_are_measured_by_their_channel() -> None:
    """u_1 = u_0 at the end of a line where the field is next to nothing: its round-off is no violation."""
    u = torch.zeros(1, 2, 3, 5, dtype=torch.float64)
    u[0, 0, :, 0] = 3.0
    u[0, 0, 1, -1] = 1e-17
    u[0, 1] = 100.0
    line = torch.zeros(2, 3, 5, dtype=torch.float64)
    line[0, :, -2], line[0, :, -1] = -1.0, 1.0
    ends = WeightedSum(line, (-3, -1))
    for operator in (ends, RowSelection(torch.tensor([1, 2]), ends), SparseMap(dense_rows(ends), (2, 3, 5))):
        law = LinearConstraint(operator, torch.zeros(1, dtype=torch.float64))
        assert torch.equal(law.scale(u), torch.full((1, operator.rows), 6.0, dtype=torch.float64))
        assert violation(law, u).relative.item() == pytest.approx(1e-17 / 6)
        assert certify(law, u)[2].all()


def dense_rows(operator: WeightedSum) -> torch.Tensor:
    eye = torch.eye(operator.rows, dtype=torch.float64)
    return operator.adjoint(eye).flatten(1)


def test_projected_outflow_of_still_fluid_holds_wherever_it_is_measured() -> None:
    problem = InviscidBurgers(points=21, times=21, front=(0.2, 0.3))
    fields = problem.draw(3, seed=0)
    laws = Intersection(*(law for law in problem.constraint(fields.parameters).leaves() if law.name != "local conservation"))
    noise = 0.02 * torch.randn(fields.u.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    result = project(laws, fields.values + noise)
    assert result.converged.all()
    assert certify(laws, result.u)[2].all()
    assert max(violation(leaf, result.u).relative.max() for leaf in laws.leaves()) < 1e-14


def test_a_violation_is_set_against_the_tolerance_of_its_own_sample() -> None:
    """Of two samples that hold, one large and one small, the large one's residual exceeds the small one's tolerance."""
    grid = Grid(Axis("x", 4, periodic=True))
    u = torch.tensor([[[1e6, -1e6, 3e-8, 0.0]], [[1.0, -1.0, 0.0, 0.0]]], dtype=torch.float64)
    law = build("mass:value=0", Context(grid, ("u",)))
    violations, allowed, held = certify(law, u)
    (row,) = law_rows(law, {"violation": violations, "violation_before": violations}, allowed)
    assert held.all()
    assert row["violation_after"] == pytest.approx(3e-8 / 4, rel=1e-2)
    assert row["tolerance"] == pytest.approx(1e-6)
    assert row["share"] == pytest.approx(7.5e-3, rel=1e-2)
    assert float(row["violation_after"]) > allowed.amin()


# --- the laws of a problem ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["darcy", "heat", "stefan", "stokes-second", "poisson", "euler-1d", "wave"])
def test_the_laws_of_a_problem_are_all_that_it_states(name: str) -> None:
    """A field that breaks any stated law breaks the problem's: every stated bound is among its boxes, every other law among its rows."""
    problem = EXAMPLES[name]
    fields = problem.draw(2, seed=1)
    context = Context(fields.grid, fields.channels, fields.roles, fields.laws, count=2, origin=fields)
    whole = build("problem", context)
    assert violation_of(whole, fields.values) < 1e-9
    generator = torch.Generator().manual_seed(3)
    for text in problem.laws:
        law = build(text, context)
        if isinstance(law, Box):
            low, high = law.box(fields.values)
            for bound, way in ((low, -1.0), (high, 1.0)):
                finite = torch.isfinite(bound).expand_as(fields.values)
                outside = torch.where(finite, bound + way, fields.values)
                assert not finite.any() or violation_of(whole, outside) > 1e-3
        else:
            u = fields.values + torch.randn(fields.u.shape, generator=generator, dtype=torch.float64)
            assert violation_of(law, u) > 1e-6
            assert violation_of(whole, u) > 1e-6


def violation_of(law: object, u: torch.Tensor) -> float:
    return max(float(violation(leaf, u).relative.max()) for leaf in law.leaves())  # type: ignore[attr-defined]


def test_projection_on_a_problem_keeps_the_bounds_it_states(call: Call) -> None:
    assert call(f"{DARCY} --count 2 --out d.h5").status == 0
    disturbed("d.h5", "n.h5", 0.02)
    assert store.read(Path("n.h5")).u[:, 0].max() > 12
    ran = call("project n.h5 --law problem --out p.h5 --json")
    assert ran.status == 0
    assert [row["name"] for row in ran.json()["laws"]] == ["balance of every volume", "3 <= coefficient <= 12", "0 <= pressure"]
    u = store.read(Path("p.h5")).u
    assert 3 <= u[:, 0].min() <= u[:, 0].max() <= 12
    assert u[:, 1].min() >= 0


# --- references --------------------------------------------------------------------------------------------------------------------


def test_fields_under_the_laws_of_a_reference_are_inspected_and_evaluated_with_it(call: Call) -> None:
    """White noise is projected on the laws of three fields; the file does not know them, the reference does."""
    assert call(f"{HEAT} --count 3 --out h.h5").status == 0
    u = torch.randn(5, 1, 8, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    store.write(Path("u.h5"), Fields(u, store.read(Path("h.h5")).grid, ("u",)))
    told = call("project u.h5 --law problem --reference h.h5 --out p.h5")
    assert told.status == 0
    assert "note: 5 fields and 3 references: field i takes the values of reference i mod 3" in told.out
    refused = call("inspect p.h5 --law problem")
    assert (refused.status, "--reference FILE" in refused.err) == (2, True)
    ran = call("inspect p.h5 --law problem --reference h.h5 --json")
    document = ran.json()
    assert ran.status == 0
    assert [(row["law"], row["holds"]) for row in document["laws"]] == [("problem (initial condition)", True), ("problem (mass)", True)]
    assert "reference i mod 3" in document["note"]
    assert call("inspect u.h5 --law problem --reference h.h5").status == 1
    rows = {row["metric"]: row for row in call("evaluate p.h5 --law problem --reference h.h5 --json").json()["metrics"]}
    assert rows["violation: initial condition"]["value"] < 1e-14
    assert rows["violation: initial condition"]["reference"] == 0
    rows = {row["metric"]: row for row in call("evaluate u.h5 --law problem initial-condition --reference h.h5 --json").json()["metrics"]}
    initial = store.read(Path("h.h5")).values[[0, 1, 2, 0, 1], :, 0]
    assert rows["violation: initial condition"]["value"] == pytest.approx(float((u[:, :, 0] - initial).abs().max()), rel=1e-12)
    assert "Give --law" in call("inspect p.h5 --reference h.h5").err


def test_samples_that_lost_some_keep_the_reference_of_their_own_number(call: Call) -> None:
    assert call(f"{HEAT} --count 3 --out h.h5").status == 0
    fields = store.read(Path("h.h5"))
    kept = replace(fields, attributes={}, u=fields.values[[0, 2]], parameters={"sample": torch.tensor([0, 2])})
    store.write(Path("s.h5"), kept)
    assert call("inspect s.h5 --law initial-condition --reference h.h5").status == 0
    assert call("inspect s.h5 --law problem --reference h.h5").status == 0
    rows = call("evaluate s.h5 --law problem --reference h.h5 --json").json()["metrics"]
    assert max(row["value"] for row in rows if row["metric"].startswith("violation")) < 1e-14
    told = call("project s.h5 --law problem --reference h.h5 --out p.h5 --json")
    assert told.json()["converged"] == 2
    assert max(told.json()["moved"].values()) < 1e-14


def test_conserved_integrals_are_not_those_of_the_reference_they_are_evaluated_with(call: Call) -> None:
    assert call(f"{HEAT} --count 2 --out h.h5").status == 0
    fields = store.read(Path("h.h5"))
    store.write(Path("up.h5"), replace(fields, u=fields.values + 1.0, attributes={}, laws=()))
    (row,) = (row for row in call("evaluate up.h5 --law mass --reference h.h5 --json").json()["metrics"] if "violation" in row["metric"])
    assert row["value"] < 1e-13


# --- inspection --------------------------------------------------------------------------------------------------------------------


def test_the_status_of_inspect_is_that_of_the_laws_asked_for(call: Call) -> None:
    assert call(f"{HEAT} --count 2 --out h.h5").status == 0
    assert call("inspect h.h5 --law mass:value=0").status == 0
    assert call("inspect h.h5 --law mass:value=1").status == 1
    ran = call("inspect h.h5 --law mass:value=0 mass:value=1")
    assert ran.status == 1
    assert "contradict each other: mass:value=0, mass:value=1" in ran.out
    assert "implied by" not in ran.out
    disturbed("h.h5", "n.h5", 0.1)
    assert call("inspect n.h5").status == 0


def test_each_law_has_one_line_that_says_who_states_it(call: Call) -> None:
    assert call("generate taylor-green --count 2 --set points=8 times=3 --out v.h5 --quiet").status == 0
    told = call("inspect v.h5").out
    laws = told[told.index("  laws") :]
    assert "a law holds up to 1e-09 of its scale" in laws
    known, guessed = laws.split("    guessed\n")
    assert "stated by the data" in known
    assert len(re.findall(r"divergence \(spectral\) +holds", laws)) == 1
    assert len(re.findall(r"^ +momentum +holds", laws, re.MULTILINE)) == 1
    assert "divergence (central)" in guessed


def test_the_energy_of_what_is_no_velocity_is_not_guessed() -> None:
    from pcfm.audit import follow, guesses
    from pcfm.findings import equation_of

    fields = EXAMPLES["burgers"].draw(1, seed=0)
    known = stated(fields)
    assert [leaf.name for _, leaf in known] == ["mass (conserved)"]
    assert follow(fields, known, equation_of(fields)) == ["energy-decay:channels=u", "maximum-principle"]
    assert guesses(fields, known)[0] == []


# --- clashes -----------------------------------------------------------------------------------------------------------------------


def test_laws_that_clash_are_named_as_they_were_asked_for(call: Call) -> None:
    assert call(f"{HEAT} --count 3 --out h.h5").status == 0
    laws = "initial-condition:file=h.h5 mass:value=0 mass:value=1"
    ran = call(f"project h.h5 --law {laws} --out p.h5")
    assert ran.status == 1
    assert re.search(r"contradict each other.*: initial-condition:file=h\.h5; mass:value=0; mass:value=1", ran.out)
    assert call("project h.h5 --law mass:value=0 --out q.h5 --json").json()["clashing"] == []
    context = Context(store.read(Path("h.h5")).grid, ("u",))
    law = Intersection(*(build(text, context) for text in ("mass:value=0", "monotone:axis=time", "mass:value=0")))
    assert clashes(law, torch.zeros(1, 1, 8, 16)) == ()
    law = Intersection(*(build(text, context) for text in ("mass:value=0", "mass:value=1")))
    assert clashes(law, torch.zeros(1, 1, 8, 16), ["zero", "one"]) == ("zero", "one")


def test_sampling_names_the_laws_that_clash(call: Call) -> None:
    assert call(f"{HEAT} --count 4 --out h.h5").status == 0
    small = "--set training.steps=1 network.width=8 network.depth=1"
    assert call(f"train h.h5 --out model --quiet {small}").status == 0
    ran = call("sample model --count 2 --steps 1 --law mass:value=0 mass:value=1 --out s.h5 --json")
    assert ran.status == 1
    assert ran.json()["clashing"] == ["mass:value=0", "mass:value=1"]


# --- equations of meshes -----------------------------------------------------------------------------------------------------------


def on_mesh(each: bool) -> None:
    """Three fields on four places with two equations, the same ones or those of each sample, in m.h5."""
    incidence = torch.tensor([[1.0, -1.0, -1.0, 0.0], [0.0, 1.0, 0.0, -1.0]], dtype=torch.float64)
    u = torch.randn(3, 1, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    matrices = tuple((incidence * (i + 1)).to_sparse_csr() for i in range(3))
    values = tuple(torch.tensor([1.0, i], dtype=torch.float64) for i in range(3))
    equation = Equation(matrices, values) if each else Equation(matrices[0], unit="m3/s")
    mesh = Mesh(torch.zeros(4, 2, dtype=torch.float64), "face", equations={"flux": equation})
    store.write(Path("m.h5"), Fields(u, Grid(Axis("face", 4)), ("phi",), mesh=mesh))


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
@pytest.mark.parametrize("each", [False, True])
def test_equations_of_a_mesh_are_a_law_by_name(each: bool, call: Call) -> None:
    on_mesh(each)
    (row,) = call("inspect m.h5 --json").json()["laws"]
    assert (row["law"], row["origin"], row["holds"]) == ("balance:equation=flux", "stated by the data", False)
    assert call("inspect m.h5 --law balance").status == 1
    assert call("project m.h5 --law balance --out p.h5 --quiet").status == 0
    assert call("inspect p.h5 --law balance:equation=flux").status == 0
    rows = {row["metric"]: row for row in call("evaluate p.h5 --reference m.h5 --law balance --json").json()["metrics"]}
    assert rows["violation: flux"]["value"] < 1e-14 < rows["violation: flux"]["reference"]
    before, after = (store.read(Path(name)).values for name in ("m.h5", "p.h5"))
    A = torch.tensor([[1.0, -1.0, -1.0, 0.0], [0.0, 1.0, 0.0, -1.0]], dtype=torch.float64)
    for i, (u, v) in enumerate(zip(before[:, 0], after[:, 0], strict=True)):
        wanted = torch.tensor([1.0, i], dtype=torch.float64) / (i + 1) if each else torch.zeros(2, dtype=torch.float64)
        nearest = u - A.T @ torch.linalg.solve(A @ A.T, A @ u - wanted)
        assert torch.allclose(v, nearest, atol=1e-12)
    assert "Did you mean 'flux'?" in call("inspect m.h5 --law balance:equation=flx").err
    assert "values at 4 faces of a mesh" in call("inspect m.h5 --law divergence-free").err


# --- names and messages ------------------------------------------------------------------------------------------------------------


def test_entropy_decays_by_name(call: Call) -> None:
    assert call(f"{HEAT} --count 2 --out h.h5").status == 0
    assert call("inspect h.h5 --law entropy-decay entropy-decay:power=4").status == 0
    fields = store.read(Path("h.h5"))
    store.write(Path("back.h5"), replace(fields, u=fields.values.flip(2)))
    ran = call("inspect back.h5 --law entropy-decay:power=4 --json")
    assert ran.status == 1
    u = fields.values[:, 0]
    content = u.pow(4).sum(-1) / 4 * (2 * torch.pi / 16)
    (row,) = ran.json()["laws"]
    assert row["violation"] == pytest.approx(float((content[:, :-1] - content[:, 1:]).max()), rel=1e-10)
    assert call("project back.h5 --law entropy-decay --out p.h5 --quiet").status == 0
    assert call("inspect p.h5 --law entropy-decay").status == 0
    assert "at least 2" in call("inspect h.h5 --law entropy-decay:power=1").err


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("project walls.h5 --law divergence-free --out a.h5", "'x' is bounded. Say divergence-free:scheme=central"),
        ("project walls.h5 --law enstrophy:value=1 --out a.h5", "Say enstrophy:scheme=central"),
        ("inspect walls.h5 --law bounds:lower=2,upper=1", "does not exceed the upper one; got 2 and 1"),
        ("inspect walls.h5 --law balance", "these bring none"),
        ("convert walls.h5 --out a.h5 --split 0.8 0.2", "--split expects NAME=share for each of its values; got '0.8'"),
        ("generate heat --out a.h5", "missing from pcfm generate: --count INT"),
        ("generate heat --count two --out a.h5", "error parsing --count"),
        ("inspect walls.h5 --frobnicate", "unrecognized options: --frobnicate. See pcfm inspect --help"),
        ("list problem", "invalid choice 'problem'"),
        ("list problems haet", "Did you mean 'heat'?"),
        ("", "expected one of {demo"),
    ],
)
def test_a_wrong_call_is_one_line(command: str, words: str, call: Call) -> None:
    grid = Grid(Axis("x", 5), Axis("y", 6))
    u = torch.zeros(1, 2, 5, 6, dtype=torch.float64)
    store.write(Path("walls.h5"), Fields(u, grid, ("u", "v"), roles={"velocity": ("u", "v")}))
    ran = call(command)
    assert ran.status == 2
    assert ran.out == ""
    assert re.fullmatch(r"pcfm: [^\n]+\n", ran.err), ran.err
    assert words in ran.err


def test_options_after_a_space_are_shown_their_place() -> None:
    from pcfm.methods import parse

    with pytest.raises(ValueError, match="Options follow a colon: eci:mix=2"):
        parse("eci mix=2")


@pytest.mark.parametrize("name", PROBLEMS)
def test_a_problem_is_listed_with_all_that_can_be_set(name: str, call: Call) -> None:
    document = call(f"list problems {name} --json").json()
    kind = PROBLEMS[name]
    defaults = {field.name: getattr(kind(), field.name) for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    assert {row["name"]: tuple(d) if isinstance(d := row["default"], list) else d for row in document["settings"]} == defaults
    assert [row["name"] for row in document["settings"] if not row["meaning"]] == []
    assert set(document["presets"]) == set(kind.presets)
    assert tuple(document["laws"]) == kind().laws
    together = kind.together * kind().snapshots
    assert document["together"] == together
    assert (f"shards    hold multiples of {together} samples" in call(f"list problems {name}").out) == (together > 1)


def test_listed_settings_are_as_they_are_set(call: Call) -> None:
    told = call("list problems darcy").out
    assert "shape=[2.0,3.0]" in told
    assert "bounds:lower=0,channels=pressure" in told
