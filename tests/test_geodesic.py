"""Geodesics and flows on manifolds against closed forms."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pcfm.geodesic import (
    Euclidean,
    FlatTorus,
    GeodesicEuler,
    GeodesicMidpoint,
    GeodesicPath,
    Manifold,
    Product,
    Sphere,
    manifold_loss,
)

MANIFOLDS: dict[str, Manifold] = {
    "circle": Sphere(2),
    "sphere": Sphere(3),
    "sphere of 6": Sphere(6),
    "torus": FlatTorus(2, 3.0),
    "product": Product(Sphere(3), FlatTorus(1), Euclidean(2)),
}


def normal(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def points(manifold: Manifold, count: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return manifold.uniform(normal((count, manifold.channels, 5), seed)).to(dtype)


@pytest.fixture(params=MANIFOLDS, ids=str)
def manifold(request: pytest.FixtureRequest) -> Manifold:
    return MANIFOLDS[request.param]


@pytest.mark.parametrize(("dtype", "gate"), [(torch.float64, 1e-10), (torch.float32, 1e-5)], ids=str)
@pytest.mark.parametrize("gap", [1.0, 1e-3, 1e-6, 0.0])
def test_logarithm_and_exponential_invert_each_other(manifold: Manifold, dtype: torch.dtype, gate: float, gap: float) -> None:
    """Of points far apart, next to each other, and the same."""
    x = points(manifold, 20, 0, dtype)
    v = gap * manifold.tangent(x, normal(tuple(x.shape), 1).to(dtype))
    v = 0.45 * v / v.norm(dim=1, keepdim=True).clamp_min(1.0)
    y = manifold.exp(x, v)
    manifold.check(y)
    assert (manifold.exp(x, manifold.log(x, y)) - y).abs().max() < gate
    assert (manifold.log(x, y) - v).abs().max() < gate
    assert (manifold.tangent(x, v) - v).abs().max() < gate


def test_an_angle_by_its_cosine_would_be_lost() -> None:
    """In single precision two points a ten thousandth apart have a cosine of 1: a logarithm by acos says they are one."""
    sphere, x = Sphere(3), points(Sphere(3), 20, 2, torch.float32)
    v = sphere.tangent(x, normal(tuple(x.shape), 3).float())
    y = sphere.exp(x, 1e-4 * v / v.norm(dim=1, keepdim=True))
    assert (sphere.distance(x, y) / 1e-4 - 1).abs().max() < 1e-2
    assert ((x * y).sum(1).clamp(-1, 1).acos() / 1e-4 - 1).abs().max() > 0.5


def test_gradients_are_finite_where_points_coincide(manifold: Manifold) -> None:
    x = points(manifold, 4, 4).requires_grad_()
    y = x.detach().clone().requires_grad_()
    for value in (manifold.log(x, y).square().sum(), manifold.exp(x, manifold.log(x, y)).sum()):
        gradients = torch.autograd.grad(value, (x, y), retain_graph=True)
        assert all(torch.isfinite(g).all() for g in gradients)


def test_antipodes_are_reached_by_half_a_circle() -> None:
    sphere, x = Sphere(3), points(Sphere(3), 10, 5)
    away = sphere.log(x, -x)
    assert (away.norm(dim=1) - math.pi).abs().max() < 1e-12
    assert (sphere.exp(x, away) + x).abs().max() < 1e-12
    assert (away * x).sum(1).abs().max() < 1e-12


@pytest.mark.parametrize("t", [torch.tensor(0.3), torch.linspace(0, 1, 20)], ids=["one time", "a time each"])
def test_paths_are_geodesics_of_constant_speed(manifold: Manifold, t: Tensor) -> None:
    x0, x1, t, path = points(manifold, 20, 6), points(manifold, 20, 7), t.double(), GeodesicPath(manifold)
    x_t, velocity = path.sample(x0, x1, t)
    manifold.check(x_t)
    distance = manifold.distance(x0, x1)
    assert (velocity.norm(dim=1) - distance).abs().max() < 1e-8
    assert (manifold.tangent(x_t, velocity) - velocity).abs().max() < 1e-8
    inner = t.clamp(1e-5, 1 - 1e-5)
    step = 1e-6
    ahead, behind = (path.sample(x0, x1, inner + sign * step).x_t for sign in (1, -1))
    assert (manifold.log(behind, ahead) / (2 * step) - path.sample(x0, x1, inner).velocity).abs().max() < 1e-4
    assert (manifold.distance(path.endpoint(x_t, velocity, t), x1)).max() < 1e-7
    assert (manifold.distance(path.origin(x_t, velocity, t), x0)).max() < 1e-7
    if not t.ndim:
        wrong = manifold.log(x0, x1)  # tangent at x0, not at x_t
        if not isinstance(manifold, FlatTorus):
            assert (wrong - velocity).abs().max() > 1e-2
        s = torch.tensor(0.7, dtype=torch.float64)
        end, start = path.ends(x_t, path.sample(x0, x1, s).x_t, t, s)
        assert manifold.distance(end, x1).max() < 1e-7
        assert manifold.distance(start, x0).max() < 1e-7


def test_a_flow_to_one_point_shrinks_distances_as_time_runs_out(manifold: Manifold) -> None:
    x0, target = points(manifold, 10, 8), points(manifold, 1, 9)
    goal = target.expand_as(x0)

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        return manifold.log(x, goal) / (1 - t)

    times = torch.linspace(0, 0.9, 10, dtype=torch.float64)
    for rule in (GeodesicEuler, GeodesicMidpoint):
        for t, state in zip(times, rule(velocity, manifold).iterate(x0, times), strict=True):
            manifold.check(state)
            if rule is GeodesicEuler:
                assert (manifold.distance(state, goal) - (1 - t) * manifold.distance(x0, goal)).abs().max() < 1e-8


@pytest.mark.parametrize(("rule", "order"), [(GeodesicEuler, 1), (GeodesicMidpoint, 2)])
def test_orders_on_a_rotating_sphere(rule: Callable[..., GeodesicEuler], order: int) -> None:
    """About a fixed axis at a changing rate, whose flow is a rotation by the integral of it."""
    x0, axis = points(Sphere(3), 30, 10), torch.tensor([0.0, 0.6, 0.8], dtype=torch.float64)

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        return 2 * (1 + t) * torch.linalg.cross(axis[None, :, None].expand_as(x), x, dim=1)

    angle, a = torch.tensor(3.0, dtype=torch.float64), axis[None, :, None].expand_as(x0)
    along = (a * x0).sum(1, keepdim=True) * a
    exact = along + torch.cos(angle) * (x0 - along) + torch.sin(angle) * torch.linalg.cross(a, x0, dim=1)
    errors = [(rule(velocity, Sphere(3))(x0, torch.linspace(0, 1, n + 1, dtype=torch.float64)) - exact).abs().max() for n in (80, 160)]
    assert torch.log2(errors[0] / errors[1]).item() == pytest.approx(order, abs=0.15)


def test_the_loss_takes_the_tangent_part_and_vanishes_at_the_velocity_of_one_pair() -> None:
    sphere, x0, x1 = Sphere(3), points(Sphere(3), 6, 11), points(Sphere(3), 1, 12).expand(6, 3, 5)
    path, t = GeodesicPath(sphere), torch.linspace(0.1, 0.8, 6, dtype=torch.float64)

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        return sphere.log(x, x1) / (1 - t).reshape(-1, 1, 1) + 3 * x

    assert manifold_loss(velocity, path, x0, x1, t).max() < 1e-20
    assert manifold_loss(lambda x, t: 0 * x, path, x0, x1, t).min() > 0.01


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Sphere(1), "at least 2 channels"),
        (lambda: FlatTorus(1, 0.0), "positive period"),
        (lambda: Product(), "at least one manifold"),
        (lambda: Sphere(3).check(normal((2, 3, 4), 13)), "off by"),
        (lambda: Sphere(3).check(normal((2, 2, 4), 13)), "3 channels"),
    ],
)
def test_what_is_no_manifold_is_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
