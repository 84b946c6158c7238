"""Properties over random grids, shapes and laws that the zero field obeys, so that they never contradict each other."""

from __future__ import annotations

import random

import pytest
import torch

from constraints import (
    Axis,
    Bounds,
    Constraint,
    DivergenceFree,
    EnergyBound,
    Grid,
    Intersection,
    LinearRelation,
    Mass,
    Momentum,
    Monotone,
    PatchMeans,
    PointValues,
    Snapshot,
    Volumes,
    no_penetration,
    no_slip,
    project,
)
from tests.fields import normal


def random_axis(name: str, draw: random.Random) -> Axis:
    n = draw.choice([1, 2, 3, 4, 5, 7, 8])
    kind = draw.choice(["periodic", "bounded", "stretched", "stretched periodic"])
    x = torch.tensor([draw.uniform(0.3, 1.7) for _ in range(n)], dtype=torch.float64).cumsum(0).tolist()
    if kind == "periodic":
        return Axis(name, n, length=draw.uniform(0.5, 7), periodic=True)
    if kind == "bounded" or n < 2:
        return Axis(name, n, length=draw.uniform(0.5, 7))
    return Axis.at(name, x, periodic=kind == "stretched periodic", length=x[-1] - x[0] + 0.9 if kind == "stretched periodic" else None)


def random_grid(draw: random.Random) -> Grid:
    axes = [random_axis(name, draw) for name in "xyz"[: draw.choice([1, 2, 2, 3])]]
    return Grid(Axis("time", draw.choice([1, 2, 4])), *axes) if draw.random() < 0.5 else Grid(*axes)


def homogeneous_laws(grid: Grid, draw: random.Random) -> list[Constraint]:
    """Laws of this grid's vector fields that zero obeys."""
    axes, d = grid.space_axes, len(grid.space_axes)
    mask = normal((d, *grid.shape), draw.randrange(1000)) > 1.5
    laws: list[Constraint] = [
        Momentum(grid, 0.0),
        Mass(grid, 0.0, component=d - 1, channels=d),
        Bounds(-draw.uniform(0.3, 2.0), draw.uniform(0.3, 2.0)),
        EnergyBound(grid, draw.uniform(0.1, 3.0)),
        LinearRelation(grid, [1.0] + [-0.5] * (d - 1), 0.0),
        PatchMeans(grid, torch.zeros([a.points for a in axes], dtype=torch.int64), 0.0, channels=d),
    ]
    if mask.any():
        laws += [PointValues(mask, 0.0 * mask), PointValues(mask, 0.0 * mask, variance=0.5)]
    if grid.has_time:
        laws.append(Snapshot(grid, -1, torch.zeros(d, *grid.shape[1:])))
    if d > 1 and all(a.points > 2 for a in axes):
        laws += [DivergenceFree(grid, "central"), DivergenceFree(grid, "staggered")]
    if any(not a.periodic for a in axes) and all(a.points > 3 for a in axes):
        laws.append(Intersection(*draw.choice([no_slip, no_penetration])(grid)))
    bounded = [a.name for a in axes if not a.periodic and a.points > 1]
    if bounded:
        laws.append(Monotone(grid, bounded[0], channels=d))
    return laws


@pytest.mark.parametrize("seed", range(60))
def test_random_laws_on_random_grids(seed: int) -> None:
    """Converged, certified, at most as far from the input as zero is, the same for a batch as for its members, in any layout."""
    draw = random.Random(seed)
    grid = random_grid(draw)
    laws = homogeneous_laws(grid, draw)
    law = Intersection(*draw.sample(laws, k=min(len(laws), draw.choice([1, 2, 3]))))
    u = normal((3, len(grid.space_axes), *grid.shape), seed)
    result = project(law, u, metric=Volumes(grid) if draw.random() < 0.3 else None)
    assert result.converged.all(), (law.name, str(grid), result.broken, result.stationarity)
    if all(leaf.variance is None for leaf in law.leaves()):
        assert ((result.u * u).flatten(1).sum(1) >= -1e-9).all() or any(leaf.inequality for leaf in law.leaves())
        plain = project(law, u)
        assert ((plain.u - u).flatten(1).norm(dim=1) <= u.flatten(1).norm(dim=1) + 1e-9).all()
        assert (project(law, plain.u).u - plain.u).abs().max() <= 1e-9
        alone = project(law, u[1:2].transpose(0, 1).contiguous().transpose(0, 1)).u
        assert (alone - plain.u[1:2]).abs().max() <= 1e-9


@pytest.mark.parametrize("seed", range(60, 75))
def test_random_laws_in_single_precision(seed: int) -> None:
    draw = random.Random(seed)
    grid = random_grid(draw)
    laws = homogeneous_laws(grid, draw)
    law = Intersection(*draw.sample(laws, k=min(len(laws), 2)))
    result = project(law, normal((2, len(grid.space_axes), *grid.shape), seed, torch.float32))
    assert result.u.dtype == torch.float32
    assert result.converged.all(), (law.name, str(grid), result.broken)
