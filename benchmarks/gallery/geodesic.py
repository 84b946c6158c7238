r"""Geodesics

Flows of values on manifolds. Left: geodesics of a sphere between uniform points, the far side paler. Middle: a flow towards one point of
the sphere, whose distance shrinks as $1 - t$ at any step length; the grey lines are that law. Right: phases on a torus, which take the
short way round. The velocity of a geodesic has the length of the distance of its ends.
"""

from __future__ import annotations

import math

import torch
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from torch import Tensor

from benchmarks.gallery.exhibit import Exhibit, Measure, normal, panels, times
from pcfm.geodesic import Euclidean, FlatTorus, GeodesicEuler, GeodesicMidpoint, GeodesicPath, Manifold, Product, Sphere, manifold_loss
from pcfm.report.look import COLOURS, GREY

MANIFOLDS: dict[str, Manifold] = {
    "sphere": Sphere(3),
    "torus": FlatTorus(2),
    "line": Euclidean(2),
    "product": Product(Sphere(3), FlatTorus(1), Euclidean(1)),
}


def show(full: bool) -> Exhibit:
    count = 500 if full else 50
    measures = []
    for name, manifold in MANIFOLDS.items():
        x0, x1 = (manifold.uniform(normal(count, manifold.channels, 3, seed=seed)) for seed in (0, 1))
        path, t = GeodesicPath(manifold), torch.rand(count, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        there = manifold.exp(x0, manifold.log(x0, x1)) - x1
        apart = manifold.tangent(x0, there).norm(dim=1) if name == "torus" else there.norm(dim=1)
        apart = torch.minimum(apart, (apart - 1).abs()) if name in ("torus", "product") else apart  # a whole turn is none
        speed = path.sample(x0, x1, t).velocity.norm(dim=1) - manifold.distance(x0, x1)
        measures.append(Measure(type(manifold), "there and back by logarithm and exponential, error", float(apart.max()), 1e-10))
        measures.append(Measure(GeodesicPath, f"speed less distance, {name}", float(speed.abs().max()), 1e-8))
        exact = lambda x, s, m=manifold, end=x1: m.log(x, end) / (1 - s.reshape(-1, 1, 1))  # noqa: E731
        measures.append(
            Measure(manifold_loss, f"at the velocity of one pair, {name}", float(manifold_loss(exact, path, x0, x1, 0.9 * t).max()), 1e-12)
        )
    measures += orders()
    return Exhibit(figure(), measures)


def rotation(x: Tensor, t: Tensor) -> Tensor:
    """Turning about a fixed axis at a rate that grows with time."""
    axis = torch.tensor([1.0, 2.0, 2.0], dtype=torch.float64)[None, :, None] / 3
    return 2 * t * torch.linalg.cross(axis.expand_as(x), x, dim=1)


def orders() -> list[Measure]:
    """Errors after a turn by one radian about an axis, halved steps."""
    sphere, x0 = Sphere(3), Sphere(3).uniform(normal(40, 3, 2, seed=3))
    axis = torch.tensor([1.0, 2.0, 2.0], dtype=torch.float64)[None, :, None].expand_as(x0) / 3
    along = (axis * x0).sum(1, keepdim=True) * axis
    exact = along + math.cos(1) * (x0 - along) + math.sin(1) * torch.linalg.cross(axis, x0, dim=1)
    found = []
    for rule, order in ((GeodesicEuler, 1), (GeodesicMidpoint, 2)):
        errors = [float((rule(rotation, sphere)(x0, times(steps)) - exact).norm(dim=1).max()) for steps in (20, 40)]
        found.append(Measure(rule, "order of a turn of the sphere", math.log2(errors[0] / errors[1]), 0.15, exact=order))
    return found


def figure() -> Figure:
    """Geodesics of a sphere, a flow to a point, phases."""
    drawing, (left, middle, right) = panels(3, 1, 3.0, 2.9)
    sphere, path, grid = Sphere(3), GeodesicPath(Sphere(3)), times(60)
    x0, x1 = (sphere.uniform(normal(16, 3, 1, seed=seed)) for seed in (4, 5))
    left.add_patch(Circle((0, 0), 1, fill=False, color=GREY, lw=0.8))
    states = torch.stack([path.sample(x0, x1, t).x_t[:, :, 0] for t in grid])
    for i in range(16):
        x, y, z = states[:, i].T
        for near, alpha in ((z >= 0, 1.0), (z < 0, 0.3)):
            left.plot(torch.where(near, x, torch.nan), torch.where(near, y, torch.nan), color=COLOURS[i % 6], alpha=alpha, lw=1.2)
    left.set(aspect="equal", xticks=[], yticks=[], title="geodesics of a sphere")
    left.axis("off")
    end = x1[:1].expand_as(x0)
    coarse = list(GeodesicEuler(lambda x, t: sphere.log(x, end) / (1 - t), sphere).iterate(x0, times(8)))
    distances = torch.stack([sphere.distance(x, end)[:, 0] for x in coarse])
    middle.plot(times(8), (1 - times(8))[:, None] * distances[0], color=GREY, lw=0.6)
    middle.plot(times(8), distances, "o", ms=3, color=COLOURS[0])
    middle.set(xlabel="t", ylabel="distance to the end", title="towards a point, 8 steps")
    torus = FlatTorus(2)
    a, b = (torus.uniform(normal(14, 2, 1, seed=seed)) for seed in (6, 7))
    ways = torch.stack([GeodesicPath(torus).sample(a, b, t).x_t[:, :, 0] for t in grid])
    for i in range(14):
        x, y = ways[:, i].T
        jump = torch.cat([torch.zeros(1, dtype=torch.bool), (ways[:, i].diff(dim=0).abs() > 0.5).any(1)])
        right.plot(torch.where(jump, torch.nan, x), y, color=COLOURS[i % 6], lw=1.2)
    right.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", title="phases on a torus")
    return drawing
