"""How the cost of a certified projection grows with batch and with grid: seconds, and the exponent of a straight line in logarithms.

Usage: python -m benchmarks.scaling [--out FOLDER] [--repeats N]. Writes scaling.json, scaling.md and scaling.png.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import torch

from benchmarks.measure import clock
from benchmarks.systems import heat, vorticity
from constraints import (
    Axis,
    Bounds,
    Constraint,
    DivergenceFree,
    Energy,
    Grid,
    InitialCondition,
    Intersection,
    Mass,
    Momentum,
    no_slip,
    project,
)
from pcfm.metrics import measure
from pcfm.report import Column, Record, to_markdown


def flow(points: int) -> tuple[Constraint, tuple[int, ...]]:
    grid = Grid(*(Axis(name, points, length=2 * math.pi, periodic=True) for name in "xy"))
    return Intersection(DivergenceFree(grid), Momentum(grid, 0.0), Energy(grid, 1.0)), (2, points, points)


def walled(points: int) -> tuple[Constraint, tuple[int, ...]]:
    grid = Grid(Axis("x", points), Axis("y", points))
    return Intersection(DivergenceFree(grid, "central"), *no_slip(grid)), (2, points, points)


def bounded(points: int) -> tuple[Constraint, tuple[int, ...]]:
    grid = Grid(Axis("x", points, periodic=True), Axis("y", points, periodic=True))
    return Intersection(Bounds(0.0, 1.0), Mass(grid, 0.3)), (1, points, points)


def in_time(points: int) -> tuple[Constraint, tuple[int, ...]]:
    grid = Grid(Axis("time", 16), Axis("x", points, periodic=True), Axis("y", points, periodic=True))
    return Intersection(InitialCondition(grid, torch.zeros(1, points, points)), Mass(grid)), (1, 16, points, points)


GRIDS: dict[str, Callable[[int], tuple[Constraint, tuple[int, ...]]]] = {
    "divergence, momentum, energy": flow,
    "divergence between no-slip walls": walled,
    "bounds and mass": bounded,
    "initial data and mass, 16 times": in_time,
}


def seconds(law: Constraint, shape: tuple[int, ...], batch: int, repeats: int) -> float:
    """Shortest of some projections of noise."""
    u = torch.randn(batch, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert project(law, u).converged.all()
    return min(clock(lambda: project(law, u)) for _ in range(repeats))


def exponent(sizes: list[int], times: list[float]) -> float:
    """Slope of the least-squares line through the larger half, in logarithms: small sizes cost what calls cost."""
    x = torch.tensor(sizes[len(sizes) // 2 - 1 :], dtype=torch.float64).log()
    y = torch.tensor(times[len(times) // 2 - 1 :], dtype=torch.float64).log()
    return float(((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    rows = []
    with torch.no_grad(), measure() as meter:
        figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.4), layout="constrained")
        batches = [1, 2, 4, 8, 16, 32, 64, 128]
        for system in (heat(), vorticity()):
            times = [seconds(system.law, tuple(system.field.shape), b, options.repeats) for b in batches]
            slope = exponent(batches, times)
            rows.append({"name": f"{system.name}: batch 1 to 128", "first": times[0], "last": times[-1], "exponent": slope})
            left.loglog(batches, times, "o-", label=f"{system.name} (slope {slope:.2f})")
        points = [16, 32, 64, 128, 256]
        for name, make in GRIDS.items():
            times = [seconds(*make(n), 4, options.repeats) for n in points]
            unknowns = [math.prod(make(n)[1]) for n in points]
            slope = exponent(unknowns, times)
            rows.append({"name": f"{name}: {points[0]}² to {points[-1]}² points", "first": times[0], "last": times[-1], "exponent": slope})
            right.loglog(unknowns, times, "o-", label=f"{name} (slope {slope:.2f})")
            print(rows[-1], flush=True)
    left.set(xlabel="batch", ylabel="seconds a projection", title="Cost against batch")
    right.set(xlabel="unknowns of a field", title="Cost against grid, batch 4")
    for axes in (left, right):
        axes.legend(frameon=False, fontsize=8)
        axes.grid(alpha=0.3)
    figure.savefig(options.out / "scaling.png", dpi=120)
    machine = f"{platform.machine()}, {os.cpu_count()} processors, 1 thread, torch {torch.__version__}"
    columns = [Column("name", "projection"), Column("first", "smallest (s)"), Column("last", "largest (s)"), Column("exponent", "exponent")]
    command = f"`python -m benchmarks.scaling --repeats {options.repeats}`"
    text = f"# Growth of the cost of a projection\n\n{command} on {machine}. One is linear.\n\n"
    (options.out / "scaling.md").write_text(text + to_markdown(rows, columns) + "\n![cost against batch and grid](scaling.png)\n")
    Record.of(meter.cost, device="cpu", seeds={"fields": 0}, results={"rows": rows, "machine": machine}).write(options.out / "scaling.json")


if __name__ == "__main__":
    main()
