"""What lawfulness costs: ratios measured side by side in one process.

Usage: python -m benchmarks.run [--out FOLDER] [--pairs N] [--threads N]. Writes projection.json and projection.md. The two sides of a
ratio run alternately; the ratio is formed pair by pair, and its median, minimum and maximum are reported. Times of single sides are
medians, for orientation only: they depend on the machine, the ratios much less.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from torch import Tensor

import pcfm
from benchmarks.measure import PeakMemory, Ratio, clock, ratio, resident
from benchmarks.publish import publish, tell
from benchmarks.systems import (
    System,
    burgers,
    dense_own,
    dense_step,
    heat,
    reaction_diffusion,
    reaction_diffusion_own,
    vorticity,
)
from constraints import (
    Axis,
    Bounds,
    Constraint,
    DivergenceFree,
    Energy,
    Grid,
    InitialCondition,
    Intersection,
    LinearConstraint,
    Mass,
    Momentum,
    no_slip,
    project,
    rescaled,
)
from constraints.linear import FourierSymbol, Stacked
from pcfm.metrics import measure

TAU = 2 * torch.pi


def periodic(*sizes: int) -> Grid:
    return Grid(*(Axis(name, n, length=TAU, periodic=True) for name, n in zip("xyz", sizes, strict=False)))


def noise(batch: int, grid: Grid, dtype: torch.dtype) -> Tensor:
    return torch.randn(batch, len(grid.axes), *grid.shape, generator=torch.Generator().manual_seed(0), dtype=dtype)


def leray(sizes: tuple[int, ...], batch: int, pairs: int, goal: float) -> Ratio:
    """The projection onto divergence-free fields against the transforms it cannot avoid."""
    grid = periodic(*sizes)
    operator = DivergenceFree(grid).operator
    assert isinstance(operator, FourierSymbol)
    u = noise(batch, grid, torch.float32)
    dims = tuple(range(-len(sizes), 0))

    def round_trip() -> Tensor:
        return torch.fft.irfftn(torch.fft.rfftn(u, dim=dims), s=sizes, dim=dims)

    name = f"Leray projection / FFT round trip, {batch} x {' x '.join(map(str, sizes))}, float32"
    return ratio(name, lambda: operator.correct(u), round_trip, pairs, goal)


def share(pairs: int) -> Ratio:
    """The whole projection of the demo, its certificate read, against one forward pass of its network."""
    flow = pcfm.load("kolmogorov")
    law = rescaled(demo_law(flow.grid), flow.units)
    x = noise(32, flow.grid, torch.float64)
    velocity, t = flow.velocity(), torch.tensor(0.5, dtype=torch.float64)
    name = "projection with certificate / network forward, demo model, 32 samples, float64 projection, float32 network"
    return ratio(name, lambda: project(law, x).converged, lambda: velocity(x, t), pairs, 0.10)


def demo_law(grid: Grid) -> Constraint:
    return Intersection(DivergenceFree(grid), Momentum(grid, 0.0), Energy(grid, 0.6, mean=True))


def walls(pairs: int, points: int = 256) -> Ratio:
    """The projection onto fields without divergence between no-slip walls against an FFT round trip of that size."""
    grid = Grid(Axis("x", points), Axis("y", points))
    law = Intersection(DivergenceFree(grid, "central"), *no_slip(grid))
    u = noise(8, grid, torch.float64)
    stack = Stacked([leaf.operator for leaf in law.leaves() if isinstance(leaf, LinearConstraint)])
    name = f"projection between no-slip walls / FFT round trip, 8 x {points} x {points}, float64"
    return ratio(name, lambda: stack.field(u), lambda: torch.fft.irfft2(torch.fft.rfft2(u), s=(points, points)), pairs, 4.0)


def joint(pairs: int, points: int = 64) -> list[Ratio]:
    """Divergence, energy, momentum and initial data together, without and with a look at the certificate, against an FFT round trip."""
    grid = Grid(Axis("time", 8), *periodic(points, points).axes)
    first = project(DivergenceFree(grid.space), noise(8, grid.space, torch.float64)[:, :2]).u
    law = Intersection(DivergenceFree(grid), Momentum(grid, 0.0), Energy(grid), InitialCondition(grid, first - first.mean((2, 3), True)))
    u = torch.randn(8, 2, *grid.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert project(law, u).converged.all()
    size = f"8 x 8 x {points} x {points}, float64"

    def round_trip() -> Tensor:
        return torch.fft.irfft2(torch.fft.rfft2(u), s=(points, points))

    name = "divergence, energy, momentum and initial data"
    return [
        ratio(f"{name} / FFT round trip, {size}", lambda: project(law, u), round_trip, pairs, 1.5),
        ratio(f"{name}, certificate read / FFT round trip, {size}", lambda: project(law, u).converged, round_trip, pairs, 1.5),
    ]


def against_dense(system: System, pairs: int, goal: float, batch: int = 32, timed: int = 1) -> Ratio:
    """The reference's single step, sample by sample, against our converged projection of a batch, with the steps that it took."""
    u = system.noisy(batch)
    result = project(system.law, u)
    assert result.converged.all(), system.name
    steps = f"{result.iterations} step{'s' if result.iterations > 1 else ''}"
    name = f"one dense step, sample by sample / projection converged in {steps}: {system.name}, batch {batch}, float64"
    theirs = u[:timed]
    return ratio(
        name, lambda: project(system.law, u), lambda: dense_step(system.law, theirs), pairs, goal, at_least=True, times=batch // timed
    )


def against_copy(system: System, pairs: int, goal: float, batch: int = 32, read: bool = False) -> Ratio:
    """The converged projection against a copy of the fields, without or with a look at its certificate."""
    u = system.noisy(batch)
    out = torch.empty_like(u)
    name = f"converged projection{', certificate read' if read else ''} / copy of the fields: {system.name}, batch {batch}, float64"
    return ratio(
        name, (lambda: project(system.law, u).converged) if read else (lambda: project(system.law, u)), lambda: out.copy_(u), pairs, goal
    )


def held_in_memory(batch: int = 8) -> Ratio:
    """Memory of a certified projection of 64 x 64 x 50 fields beyond their own, in fields."""
    system = vorticity(64, 50)
    u = system.noisy(batch)
    project(system.law, u[:1])
    size = u.numel() * u.element_size()
    with PeakMemory() as watched:
        result = project(system.law, u)
    assert result.converged.all()
    used = (watched.peak - watched.before) / size
    name = f"memory of a projection beyond its input, in copies of the fields: {system.name}, batch {batch} (MB)"
    return Ratio(name, used, used, used, watched.peak / 1e6, watched.before / 1e6, "at most 3", used <= 3)


def bounded(batch: int = 32) -> list[Ratio]:
    """Seconds and memory of inequalities and joint laws on 64 x 64 x 50 fields: what is solved, not against what."""
    grid = Grid(Axis("time", 50), *periodic(64, 64).axes)
    u = torch.randn(batch, 1, *grid.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    start = u[:1, :, 0].clamp(-1, 1)
    cases: dict[str, tuple[Constraint, Tensor]] = {
        "bounds and mass": (Intersection(Bounds(-1.0, 1.0), Mass(grid, 0.0)), u),
        "bounds, mass and initial data": (
            Intersection(Bounds(-1.0, 1.0), Mass(grid), InitialCondition(grid, start[0] - start.mean())),
            u,
        ),
    }
    rows = []
    for name, (law, fields) in cases.items():
        project(law, fields[:1])
        seconds = 0.0
        with PeakMemory() as watched:
            seconds = clock(lambda law=law, fields=fields: project(law, fields))  # type: ignore[misc]
        size = fields.numel() * fields.element_size()
        used = (watched.peak - watched.before) / size
        title = f"memory beyond its input, in copies of the fields (first column: seconds): {name}, {batch} x 64 x 64 x 50"
        rows.append(Ratio(title, used, used, used, seconds, 0.0, "at most 20", used <= 20))
    return rows


def memory(pairs: int) -> Ratio:
    """Peak memory of lawful sampling against unconstrained sampling."""
    flow = pcfm.load("kolmogorov")
    law = demo_law(flow.grid)
    before = resident()
    peaks = []
    for _ in range(2):
        for options in ({}, {"law": law}):
            with PeakMemory() as watched:
                pcfm.sample(flow, 32, steps=3, **options)  # type: ignore[arg-type]
            peaks.append(watched.peak)
    quotients = [peaks[i + 1] / peaks[i] for i in (0, 2)]
    name = f"peak memory of PCFM / unconstrained sampling, 32 samples (MB; {before / 1e6:.0f} MB before)"
    return Ratio(name, max(quotients), min(quotients), max(quotients), peaks[3] / 1e6, peaks[2] / 1e6, "at most 1.2", max(quotients) <= 1.2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = []
    with torch.no_grad(), measure() as meter:
        few = min(options.pairs, 3)
        jobs: list[Callable[[], Ratio | list[Ratio]]] = [
            lambda: held_in_memory(),
            lambda: memory(options.pairs),
            lambda: share(options.pairs),
            lambda: leray((64, 64), 16, options.pairs, 1.5),
            lambda: leray((256, 256), 8, options.pairs, 1.25),
            lambda: leray((64, 64, 64), 1, options.pairs, 1.25),
            lambda: leray((128, 128, 128), 1, few, 1.25),
            lambda: walls(options.pairs),
            lambda: joint(options.pairs),
            lambda: against_dense(heat(), few, 1000),
            lambda: against_dense(reaction_diffusion(), few, 1000),
            lambda: against_dense(burgers(), few, 1000),
            lambda: against_dense(vorticity(), few, 5000),
            lambda: against_dense(reaction_diffusion_own(), few, 20),
            lambda: against_dense(dense_own(), few, 1),
            lambda: against_copy(heat(), options.pairs, 2),
            lambda: against_copy(heat(), options.pairs, 2, read=True),
            lambda: against_copy(reaction_diffusion(), options.pairs, 20),
            lambda: against_copy(burgers(), few, 20),
            lambda: bounded(),
        ]
        for job in jobs:
            found = job()
            for row in found if isinstance(found, list) else [found]:
                rows.append(row)
                tell(row)
    command = f"python -m benchmarks.run --pairs {options.pairs} --threads {options.threads}"
    publish(rows, options.out, "projection", "Cost of projection", command, meter)


if __name__ == "__main__":
    main()
