"""Rate laws of known kind, plain and in disguise, and rate laws on trajectories."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.func import jacfwd, jvp

from constraints import Axis, FinalCondition, FunctionConstraint, Grid, InitialCondition, Intersection, project
from constraints.holonomy import Rows, Verdict, curvature, growth, is_holonomic, trajectory_residual

TAU = 2 * math.pi
RADIUS = 0.7


def normal(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def matrix(*rows: tuple[Tensor | float, ...]) -> Tensor:
    """Rows from entries that depend on x, at least one, or do not."""
    like = next(entry for row in rows for entry in row if isinstance(entry, Tensor))
    return torch.stack([torch.stack([e if isinstance(e, Tensor) else like.new_tensor(e) for e in row]) for row in rows])


def knife_edge(x: Tensor) -> Tensor:
    return matrix((x[2].sin(), -x[2].cos(), 0.0))


def disc(x: Tensor, radius: float = RADIUS) -> Tensor:
    """Upright disc rolling on a plane: x, y of contact, heading, angle of roll."""
    return matrix((1.0, 0.0, 0.0, -radius * x[2].cos()), (0.0, 1.0, 0.0, -radius * x[2].sin()))


def contact(x: Tensor) -> Tensor:
    return matrix((-x[1], 0.0, 1.0))


def constant(k: int, n: int) -> Rows:
    values = torch.ones(1, n, dtype=torch.float64) if k == 1 else normal((k, n), seed=9)
    return lambda x: values


class Case(NamedTuple):
    """A law of n unknowns, with the known ranks of its closure."""

    n: int
    rows: Rows
    growth: tuple[int, ...]

    @property
    def static_laws(self) -> int:
        return self.n - self.growth[-1]


CASES = {
    "knife edge": Case(3, knife_edge, (2, 3)),
    "rolling disc": Case(4, disc, (2, 3, 4)),
    "disc on a straight line": Case(3, lambda x: matrix((1.0, -RADIUS, 0 * x[0])), (2,)),
    "disc on a line that slides": Case(3, lambda x: matrix((1.0, -RADIUS, -x[2])), (2,)),
    "planar pendulum": Case(2, lambda x: x[None], (1,)),
    "integrating factor": Case(3, lambda x: (x[0] * x[2]).exp() * x[None], (2,)),
    "contact": Case(3, contact, (2, 3)),
    "contact and pendulum": Case(5, lambda x: matrix((-x[1], 0.0, 1.0, 0.0, 0.0), (0.0, 0.0, 0.0, x[3], x[4])), (3, 4)),
    "Engel": Case(4, lambda x: matrix((-x[2], 1.0, 0.0, 0.0), (-x[3], 0.0, 1.0, 0.0)), (2, 3, 4)),
    "mass": Case(6, constant(1, 6), (5,)),
    "constant rows": Case(8, constant(3, 8), (5,)),
    "energy": Case(6, lambda x: x[None], (5,)),
    "every unknown held": Case(3, lambda x: torch.diag(x.cosh()), (0,)),
}


def disguised(case: Case, seed: int) -> Rows:
    """The law in other coordinates, x = Q (y + 0.15 sin(1.3 y + c)) + b, its rows mixed by an invertible B(y)."""
    n, k = case.n, case.n - case.growth[0]
    left, right = (torch.linalg.qr(normal((n, n), seed + s))[0] for s in (1, 2))
    q = left * torch.linspace(0.6, 1.6, n, dtype=torch.float64) @ right
    b, c = 0.3 * normal((n,), seed + 3), normal((n,), seed + 4)
    mix, bend = normal((k, k), seed + 5), normal((k, k, n), seed + 6)

    def diffeomorphism(y: Tensor) -> Tensor:
        return q @ (y + 0.15 * torch.sin(1.3 * y + c)) + b

    def rows(y: Tensor) -> Tensor:
        invertible = torch.linalg.matrix_exp(0.3 * mix) @ torch.linalg.matrix_exp(0.15 * bend @ torch.tanh(y))
        return invertible @ case.rows(diffeomorphism(y)) @ jacfwd(diffeomorphism)(y)

    return rows


def points_of(n: int, seed: int) -> Tensor:
    return 0.5 * normal((3, n), seed) + 0.3


def agrees(verdict: Verdict, case: Case) -> None:
    assert verdict.growth == case.growth
    assert verdict.static_laws == case.static_laws
    assert verdict.holonomic == (len(case.growth) == 1)
    assert verdict.worst_curvature < 1e-9 if verdict.holonomic else verdict.worst_curvature > 1e-3


@pytest.mark.parametrize("name", CASES)
def test_known_answers(name: str) -> None:
    agrees(is_holonomic(CASES[name].rows, points_of(CASES[name].n, seed=0)), CASES[name])


@pytest.mark.parametrize("seed", [100, 200])
@pytest.mark.parametrize("name", CASES)
def test_known_answers_in_disguise(name: str, seed: int) -> None:
    """Neither coordinates nor the choice of rows matter. Contact and pendulum fails where derivatives nest through `solve`."""
    agrees(is_holonomic(disguised(CASES[name], seed), points_of(CASES[name].n, seed)), CASES[name])


def test_many_layers() -> None:
    """The chain dx_i = x_{i+1} dx_0, a trailer car in normal form, grows by one in each of four layers."""
    n = 6

    def chain(x: Tensor) -> Tensor:
        return torch.cat([-x[2:, None], torch.eye(n - 2, n - 1, dtype=x.dtype)], dim=1)

    assert growth(chain, points_of(n, seed=1)[0]) == [2, 3, 4, 5, 6]


def test_time_as_a_coordinate() -> None:
    """On (x, y, t), x' = t is a static law of x and t; x' = y is none."""
    assert is_holonomic(lambda x: matrix((1.0, 0.0, -x[2])), points_of(3, seed=2)).static_laws == 1
    assert is_holonomic(lambda x: matrix((1.0, 0.0, -x[1])), points_of(3, seed=2)).static_laws == 0


def test_a_singular_point_does_not_decide() -> None:
    """dz = y² dx looks integrable at y = 0, and there alone."""

    def martinet(x: Tensor) -> Tensor:
        return matrix((-x[1].square(), 0.0, 1.0))

    points = points_of(3, seed=3)
    points[1, 1] = 0.0
    assert growth(martinet, points[1]) == [2]
    assert is_holonomic(martinet, points)[:3] == (False, 0, (2, 3))


@pytest.mark.parametrize("unit", [1e-7, 1e7])
@pytest.mark.parametrize("name", ["rolling disc", "integrating factor", "contact and pendulum", "Engel"])
def test_units_do_not_matter(name: str, unit: float) -> None:
    """Neither that of lengths nor those of the rows; the curvature is one over length."""
    case = CASES[name]
    factors = unit ** torch.linspace(-1, 1, case.n - case.growth[0], dtype=torch.float64)[:, None]
    points = points_of(case.n, seed=4)
    plain, scaled = (is_holonomic(rows, x) for rows, x in ((case.rows, points), (lambda y: factors * case.rows(y / unit), unit * points)))
    assert scaled[:3] == plain[:3]
    assert scaled.worst_curvature * unit == pytest.approx(plain.worst_curvature, rel=1e-6, abs=1e-12)


def test_a_small_wheel_still_rolls() -> None:
    assert growth(lambda x: disc(x, radius=1e-7), points_of(4, seed=5)[0]) == [2, 3, 4]


@pytest.mark.parametrize("x", points_of(3, seed=6))
def test_curvature_in_closed_form(x: Tensor) -> None:
    """One for the knife edge, 1 / (1 + y²) for the contact form dz - y dx."""
    for rows, value in ((knife_edge, 1.0), (contact, 1 / (1 + x[1].item() ** 2))):
        omega = curvature(rows, x)
        assert omega.shape == (1, 2, 2)
        assert (omega + omega.mT).abs().max() < 1e-14
        assert omega[0, 0, 1].abs().item() == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("name", ["rolling disc", "contact and pendulum", "Engel"])
def test_mixing_rows_keeps_the_norm_of_the_curvature(name: str) -> None:
    case = CASES[name]
    mix = normal((2, 2, case.n), seed=7)
    for x in points_of(case.n, seed=8):
        plain, mixed = (curvature(rows, x).norm() for rows in (case.rows, lambda y: torch.linalg.matrix_exp(mix @ y) @ case.rows(y)))
        assert mixed.item() == pytest.approx(plain.item(), rel=1e-10)


def flow(field: Callable[[Tensor], Tensor], x: Tensor, duration: float, steps: int = 8) -> Tensor:
    """Runge–Kutta 4."""
    d = duration / steps
    for _ in range(steps):
        k1 = field(x)
        k2 = field(x + d / 2 * k1)
        k3 = field(x + d / 2 * k2)
        k4 = field(x + d * k3)
        x = x + d / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return x


@pytest.mark.parametrize("disguise", [False, True])
@pytest.mark.parametrize("name", ["knife edge", "rolling disc", "disc on a straight line"])
def test_square_loop(name: str, disguise: bool) -> None:
    """Along X, Y, -X, -Y for h each: the loop ends h² [X, Y] + O(h³) from where it began, out of the plane by -h² Ω."""
    case = CASES[name]
    rows = disguised(case, seed=300) if disguise else case.rows
    x = points_of(case.n, seed=10)[0]
    a = rows(x)
    kernel = torch.linalg.svd(a)[2][len(a) :]

    def field(w: Tensor, sign: int = 1) -> Callable[[Tensor], Tensor]:
        def along(y: Tensor) -> Tensor:
            m = rows(y)
            return sign * (w - m.T @ (torch.linalg.inv(m @ m.T) @ (m @ w)))

        return along

    def loop(h: float) -> Tensor:
        y = x
        for leg in (field(kernel[0]), field(kernel[1]), field(kernel[0], -1), field(kernel[1], -1)):
            y = flow(leg, y, h)
        return (y - x) / h**2

    first, second = field(kernel[0]), field(kernel[1])
    bracket = jvp(second, (x,), (first(x),))[1] - jvp(first, (x,), (second(x),))[1]
    errors = [(loop(h) - bracket).norm().item() for h in (0.02, 0.01)]
    if name != "disc on a straight line":
        assert errors[0] / errors[1] == pytest.approx(2, abs=0.1)
    assert errors[1] < 0.05
    out_of_plane = (torch.linalg.pinv(a) @ a @ bracket).norm()
    assert out_of_plane.item() == pytest.approx(curvature(rows, x)[:, 0, 1].norm().item(), rel=1e-10, abs=1e-10)


def test_residual_of_an_exact_motion_is_of_third_order() -> None:
    """A skate of speed 1 + t that turns at rate one."""

    def residual(steps: int) -> float:
        t = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
        motion = torch.stack([(1 + t) * t.sin() + t.cos(), t.sin() - (1 + t) * t.cos(), t])
        return trajectory_residual(knife_edge, motion[None]).abs().max().item()

    assert math.log2(residual(40) / residual(80)) == pytest.approx(3, abs=0.1)


def test_residual_by_hand() -> None:
    """Several laws and trajectories, step by step."""
    X = normal((2, 4, 5), seed=11)
    h = trajectory_residual(disc, X)
    assert h.shape == (2, 2 * 4)
    for b in range(2):
        for j in range(4):
            rates = disc((X[b, :, j] + X[b, :, j + 1]) / 2) @ (X[b, :, j + 1] - X[b, :, j])
            torch.testing.assert_close(h[b].reshape(2, 4)[:, j], rates, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(trajectory_residual(constant(1, 4), X), X.sum(1).diff(dim=-1), rtol=1e-13, atol=1e-13)
    energy = trajectory_residual(lambda x: x[None], X)
    torch.testing.assert_close(energy, (X.square().sum(1) / 2).diff(dim=-1), rtol=1e-13, atol=1e-13)


def skates(times: int) -> tuple[Tensor, Grid]:
    """Paths that turn about by half a circle, with noise of a tenth of their steps."""
    t = torch.linspace(0, 1, times, dtype=torch.float64)
    smooth = torch.stack([(3 * t).sin(), 1 - (3 * t).cos(), 3 * t])
    return smooth + 0.1 / times * normal((3, 3, times), seed=12), Grid(Axis("time", times))


@pytest.mark.parametrize("times", [8, 30])
def test_projected_skates_obey(times: int) -> None:
    """Both by formed normals and by conjugate gradients."""
    law = FunctionConstraint(lambda X: trajectory_residual(knife_edge, X), name="knife edge")
    X, _ = skates(times)
    assert trajectory_residual(knife_edge, X).abs().max() > 1e-3
    result = project(law, X)
    assert result.converged.all()
    assert result.iterations < 15
    x = result.u
    heading, step = (x[:, 2, 1:] + x[:, 2, :-1]) / 2, x[:, :2].diff(dim=-1)
    assert (heading.sin() * step[:, 0] - heading.cos() * step[:, 1]).abs().max() < 1e-12
    assert torch.allclose(project(law, x).u, x, atol=1e-12)


def test_a_rate_law_restricts_no_end_point() -> None:
    """A skate gets to where its blade does not point: sideways, heading kept."""
    times = 25
    s = torch.linspace(0, 1, times, dtype=torch.float64)
    guess = torch.stack([(TAU * s).sin() / 2, s * s * (3 - 2 * s), (TAU * s).sin()])[None]
    start, end = (torch.tensor([[0.0], [y], [0.0]], dtype=torch.float64) for y in (0.0, 1.0))
    grid = Grid(Axis("time", times))
    rate = FunctionConstraint(lambda X: trajectory_residual(knife_edge, X))
    result = project(Intersection(InitialCondition(grid, start[:, 0]), FinalCondition(grid, end[:, 0]), rate), guess)
    assert result.converged.all()
    assert torch.allclose(result.u[0, :, [0, -1]], torch.cat([start, end], dim=1), atol=1e-12)


def test_projected_pendulums_keep_their_length() -> None:
    X = normal((4, 2, 12), seed=13) * 0.05 + torch.stack([torch.linspace(0, 2, 12).cos(), torch.linspace(0, 2, 12).sin()]).double()
    result = project(FunctionConstraint(lambda X: trajectory_residual(lambda x: x[None], X)), X)
    assert result.converged.all()
    assert result.u.norm(dim=1).std(dim=1).max() < 1e-11


POINT = torch.tensor([0.4, 0.2, 0.9], dtype=torch.float64)


@pytest.mark.parametrize(
    ("rows", "x", "message"),
    [
        (knife_edge, POINT[None], r"point of shape \(n,\)"),
        (knife_edge, POINT.float(), "float64"),
        (knife_edge, POINT * math.nan, "finite point"),
        (lambda x: x, POINT, r"rows of shape \(k, 3\)"),
        (lambda x: x[None, :2], POINT, r"rows of shape \(k, 3\)"),
        (lambda x: x.expand(4, 3), POINT, "1 <= k <= 3"),
        (lambda x: x.expand(0, 3), POINT, "1 <= k <= 3"),
        (lambda x: [x], POINT, "got list"),
        (lambda x: x[None].float(), POINT, "new_tensor"),
        (lambda x: (x[None] - 1).log(), POINT, "finite rows"),
        (lambda x: (x - POINT).abs().sqrt()[None] + 1, POINT, "differentiable rows"),
        (lambda x: torch.stack([x, 2 * x]), POINT, "2 of rank 1"),
        (lambda x: torch.stack([x, x + 1e-13]), POINT, "2 of rank 1"),
        (lambda x: 0 * x[None], POINT, "1 of rank 0"),
    ],
)
def test_refusals_at_a_point(rows: Rows, x: Tensor, message: str) -> None:
    for test in (curvature, growth):
        with pytest.raises(ValueError, match=f"^{test.__name__} expects.*{message}"):
            test(rows, x)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (POINT, "at least 3 points"),
        (POINT.expand(2, 3), "at least 3 points"),
        (POINT.expand(3, 3).float(), "float64"),
        (POINT.expand(3, 3) / 0, "NaN or Inf"),
    ],
)
def test_refusals_of_points(points: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        is_holonomic(knife_edge, points)


@pytest.mark.parametrize(
    ("rows", "X", "message"),
    [
        (knife_edge, torch.zeros(3, 5), "two times"),
        (knife_edge, torch.zeros(1, 3, 1), "two times"),
        (knife_edge, torch.zeros(0, 3, 4), "two times"),
        (knife_edge, torch.zeros(1, 3, 4, dtype=torch.long), "floating point"),
        (knife_edge, torch.zeros(1, 4, 5), r"rows of shape \(k, 4\)"),
        (constant(1, 3), torch.zeros(1, 3, 4), "rows of torch.float32"),
    ],
)
def test_refusals_of_trajectories(rows: Rows, X: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        trajectory_residual(rows, X)


def test_projection_refuses_trajectories_that_are_not_finite() -> None:
    X, _ = skates(6)
    X[0, 1, 2] = math.nan
    with pytest.raises(ValueError, match="finite"):
        project(FunctionConstraint(lambda X: trajectory_residual(knife_edge, X)), X)
