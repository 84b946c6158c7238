"""Equations in words, found in values, and the laws that follow; densities in words."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from constraints import Axis, Grid, Integral, project
from pcfm.equations import Evolution, laws, parse
from pcfm.expressions import density
from pcfm.laws import Context, build
from pcfm.recognition import recognise
from tests.problems import EXAMPLES

LINE = Grid(Axis("x", 64, length=2 * math.pi, periodic=True))
X = LINE.axes[0].positions()


# --- densities ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "exact"),
    [
        ("u^3/6 - 0.5*u_x**2", torch.sin(X) ** 3 / 6 - torch.cos(X) ** 2 / 2),
        ("-(u - 2)*u_xx", (torch.sin(X) - 2) * torch.sin(X)),
        ("abs(u)*v_xxx", torch.sin(X).abs() * 8 * torch.sin(2 * X)),
        ("u_v_x", -torch.sin(X)),
        ("1 + 0*u", torch.ones(64, dtype=torch.float64)),
        ("3", torch.full((64,), 3.0, dtype=torch.float64)),
    ],
)
def test_a_density_in_words_is_its_formula(text: str, exact: torch.Tensor) -> None:
    u = torch.stack([torch.sin(X), torch.cos(2 * X), torch.cos(X)])[None]
    found = density(text, LINE, ("u", "v", "u_v"))(u)
    torch.testing.assert_close(found, exact[None], rtol=0, atol=1e-11)


def test_derivatives_in_words_meet_central_differences_between_walls() -> None:
    walls = Grid(Axis("x", 5, length=4.0))
    u = walls.axes[0].positions()[None, None] ** 2
    torch.testing.assert_close(density("u_x", walls, ("u",))(u)[0], 2 * u[0, 0].sqrt())


def test_second_derivatives_keep_the_nyquist_mode() -> None:
    """The field that alternates has no first derivative on its points, and a second one of k² its size."""
    u = torch.cos(32 * X)[None, None]
    torch.testing.assert_close(density("u_xx", LINE, ("u",))(u), -(32.0**2) * u[:, 0])
    assert density("u_x", LINE, ("u",))(u).abs().max() < 1e-10


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("w^2", "knows no 'w'. Known: u"),
        ("u_t", "knows no 'u_t'"),
        ("u +", "is no expression"),
        ("__import__('os').getcwd()", "expects numbers, channels"),
        ("u if u else u", "expects numbers"),
        ("max(u)", "expects numbers"),
        ("u % 2", "expects numbers"),
        ("'a'", "expects numbers"),
        ("(" * 5000 + "u" + ")" * 5000, "is no expression"),
    ],
)
def test_what_is_no_density_is_refused(text: str, word: str) -> None:
    with pytest.raises(ValueError, match=r"density") as error:
        density(text, LINE, ("u",))
    assert word in str(error.value)


def test_an_integral_in_words_is_the_law_of_its_function() -> None:
    """Hamiltonian of Korteweg and de Vries: the same rows as `Integral`, and a projection that reaches them."""
    grid = Grid(Axis("time", 3), *LINE.axes)
    u = torch.randn(2, 1, 3, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    law = build("integral:density=u^3/6-u^2/2,name=H", Context(grid, ("u",)))
    plain = Integral(grid, lambda v: v[:, 0] ** 3 / 6 - v[:, 0] ** 2 / 2)
    torch.testing.assert_close(law.residual(u), plain.residual(u))
    assert law.name == "H (conserved)"
    smooth = torch.sin(X) * torch.tensor([1.0, 1.1, 1.2], dtype=torch.float64)[:, None]
    projected = project(law, smooth[None, None])
    assert projected.converged.all()
    assert law.residual(projected.u).abs().max() < 1e-11
    decay = build("integral-decay:density=u_x^2", Context(grid, ("u",)))
    assert decay.excess(decay.residual(smooth[None, None])).max() > 0.1
    assert decay.excess(decay.residual(smooth.flip(0)[None, None])).max() == 0
    for text, word in (("integral", "needs a density"), ("integral-decay:name=a", "needs a density")):
        with pytest.raises(ValueError, match=word):
            build(text, Context(grid, ("u",)))


# --- equations in words ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("u_t + u u_x = nu u_xx", {"u u_x": (-1.0, -1.0), "u_xx": (0.1, 0.3)}),
        ("u_t + (u^2/2)_x = 0", {"u u_x": (-1.0, -1.0)}),
        ("u_t = 2 u_xx + 5 u - 5 u^3", {"u_xx": (2.0, 2.0), "u": (5.0, 5.0), "u^3": (-5.0, -5.0)}),
        ("u_t + 6 u u_x + u_xxx = 0", {"u u_x": (-6.0, -6.0), "u_xxx": (-1.0, -1.0)}),
        ("u_t + u u_x = (0.02/pi) u_xx", {"u u_x": (-1.0, -1.0), "u_xx": (0.02 / math.pi, 0.02 / math.pi)}),
    ],
)
def test_an_equation_in_words_is_read_term_by_term(text: str, terms: dict[str, tuple[float, float]]) -> None:
    found = parse(text, {"nu": (0.1, 0.3)})
    assert found is not None
    assert {k: pytest.approx(v) for k, v in terms.items()} == dict(found.terms)


@pytest.mark.parametrize(
    "text",
    [
        "u_tt = c^2 lap u",
        "-div(a grad u) = f",
        "u_t = (u^m u_x)_x",
        "u_t = nu u_xx + rho u (1 - u)",
        "u_t + a u_x = 0",
        "",
        "u_t",
        "u_t = u = 0",
    ],
)
def test_other_equations_are_left_alone(text: str) -> None:
    assert parse(text, {"nu": (1.0, 1.0), "rho": (1.0, 1.0)}) is None


def test_an_equation_reads_as_it_is_written() -> None:
    assert str(Evolution({"u u_x": (-1.0, -1.0), "u_xxx": (-0.0025, -0.0025)})) == "u_t + u u_x + 0.0025 u_xxx = 0"
    assert str(Evolution({"h_xx": (0.5, 0.5), "|h|^2 h": (-1.0, -1.0)}, complex=True)) == "i h_t - |h|^2 h + 0.5 h_xx = 0"


# --- laws that follow --------------------------------------------------------------------------------------------------------------


def evolution(**terms: float) -> Evolution:
    names = {"u2": "u^2", "u3": "u^3", "uu_x": "u u_x"}
    return Evolution({names.get(k, k): (v, v) for k, v in terms.items()})


@pytest.mark.parametrize(
    ("equation", "families"),
    [
        (evolution(uu_x=-1, u_xx=0.1), ["mass", "energy-decay", "maximum-principle"]),
        (evolution(uu_x=-1, u_xx=-0.1), ["mass"]),
        (evolution(uu_x=-6, u_xxx=-1), ["mass", "energy", "integral"]),
        (evolution(uu_x=-1, u_xx=-1, u_xxxx=-1), ["mass"]),
        (evolution(u_xxxx=-1), ["mass", "energy-decay"]),
        (evolution(u_x=-1), ["mass", "energy", "maximum-principle"]),
        (evolution(u_xx=1e-4, u=5, u3=-5), ["integral-decay", "bounds"]),
        (evolution(u_xx=1e-4, u=-5), ["energy-decay", "integral-decay"]),
        (evolution(u=1), []),
    ],
)
def test_which_laws_follow_from_an_equation(equation: Evolution, families: list[str]) -> None:
    assert [law.partition(":")[0] for law in laws(equation, ("u",), periodic=True)] == families
    assert laws(equation, ("u",), periodic=False) == []


def test_ends_at_zero_let_nothing_in() -> None:
    assert laws(evolution(uu_x=-1, u_xx=0.1), ("u",), periodic=False, zero=True) == ["energy-decay:channels=u", "maximum-principle"]
    assert laws(evolution(uu_x=-1, u_xxx=-1), ("u",), periodic=False, zero=True) == []


def test_laws_of_samples_with_equations_of_their_own() -> None:
    """Signs decide what decays; a Hamiltonian needs the numbers."""
    assert laws(Evolution({"u_xx": (0.1, 0.3), "u u_x": (-1.0, -1.0)}), ("u",), periodic=True)[1] == "energy-decay:channels=u"
    assert laws(Evolution({"u_xx": (-0.1, 0.3)}), ("u",), periodic=True) == ["mass:channels=u"]
    assert [
        law for law in laws(Evolution({"u u_x": (-1.0, -1.0), "u_xxx": (-2.0, -1.0)}), ("u",), periodic=True) if "integral" in law
    ] == []


# --- equations found in values -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("problem", "settings", "terms"),
    [
        ("burgers", {"points": 128, "times": 65, "viscosity": 0.05, "initial": "sine"}, {"u u_x": -1.0, "u_xx": 0.05}),
        ("kdv", {}, {"u u_x": None, "u_xxx": None}),
        ("kuramoto-sivashinsky", {}, {"u u_x": -1.0, "u_xx": -1.0, "u_xxxx": -1.0}),
    ],
)
def test_the_equation_of_simulated_fields_is_found(problem: str, settings: dict[str, object], terms: dict[str, float | None]) -> None:
    kind = type(EXAMPLES[problem])
    settings = settings or {"points": 128, "times": 65}
    fields = kind(**settings).draw(1, seed=0)
    found = recognise(fields.u[0, 0], *fields.grid.axes)
    assert found is not None
    assert set(found.equation.terms) == set(terms)
    for term, value in terms.items():
        assert value is None or found.equation.number(term) == pytest.approx(value, rel=1e-3)
    assert found.misfit < 1e-3


def waves() -> tuple[torch.Tensor, Axis, Axis]:
    """Heat with a reaction, two modes, exactly: u_t = 0.3 u_xx - 2 u."""
    time = Axis("time", 65, length=1.0)
    modes = [(1, 1.0), (3, 0.4)]
    u = sum(a * torch.exp(-(0.3 * k * k + 2) * time.positions())[:, None] * torch.sin(k * X + k) for k, a in modes)
    assert isinstance(u, torch.Tensor)
    return u, time, LINE.axes[0]


def test_numbers_that_are_short_are_found_exactly() -> None:
    u, time, x = waves()
    found = recognise(u, time, x)
    assert found is not None
    assert dict(found.equation.terms) == {"u": (-2.0, -2.0), "u_xx": (0.3, 0.3)}
    assert found.misfit < 1e-4


def test_the_equation_of_a_soliton_of_schroedinger_is_found() -> None:
    r"""$h = \mathrm{sech}(x - ct)\,e^{i(cx + (1 - c^2)t/2)}$ solves $i h_t + h_{xx}/2 + |h|^2 h = 0$; one at rest but turns."""
    x, time = Axis("x", 256, length=40.0, origin=-20.0, periodic=True), Axis("time", 129, length=2.0)
    s, t = x.positions()[None], time.positions()[:, None]
    moving = torch.polar(1 / torch.cosh(s - 0.8 * t), 0.8 * s + (1 - 0.64) * t / 2)
    resting = torch.polar(1.5 / torch.cosh(1.5 * s), 1.5**2 * t / 2 + 0 * s)
    found = recognise(moving, time, x)
    assert found is not None
    assert dict(found.equation.terms) == {"|h|^2 h": (1.0, 1.0), "h_xx": (0.5, 0.5)}
    turning = recognise(resting, time, x)
    assert turning is not None
    assert list(turning.equation.terms) == ["h"]
    assert turning.equation.number("h") == pytest.approx(1.125, rel=1e-6)
    assert recognise(moving.abs() + 1j * moving.abs(), time, x) is None, "what moves with no phase obeys another equation"


def test_nothing_is_found_where_there_is_nothing() -> None:
    time, x = Axis("time", 65), Axis("x", 64, periodic=True)
    noise = torch.randn(65, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert recognise(noise, time, x) is None
    assert recognise(torch.sin(X).expand(65, 64), time, x) is None, "nothing moves"
    assert recognise(torch.zeros(65, 64), time, x) is None
    assert recognise(noise[:5], Axis("time", 5), x) is None, "too few times"
    assert recognise(noise, Axis.at("time", np.cumsum(1 + 0.5 * np.arange(65) % 2).tolist()), x) is None, "unequal steps"
