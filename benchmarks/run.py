"""What lawfulness costs: ratios measured side by side in one process.

Usage: python benchmarks/run.py [--out FOLDER] [--pairs N] [--threads N]. Writes projection.json and projection.md. The two sides of a
ratio run alternately; the ratio is formed pair by pair, and its median, minimum and maximum are reported. Times of single sides are
medians, for orientation only: they depend on the machine, the ratios much less.
"""

from __future__ import annotations

import argparse
import os
import platform
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from torch import Tensor

import pcfm
from constraints import Axis, Constraint, DivergenceFree, Energy, Grid, Intersection, Momentum, project, rescaled
from constraints.linear import FourierSymbol
from pcfm.metrics import measure
from pcfm.report import Column, Record, to_markdown

TAU = 2 * torch.pi


@dataclass(frozen=True)
class Ratio:
    """A measured ratio and what it was hoped to be."""

    name: str
    median: float
    low: float
    high: float
    ours: float
    theirs: float
    goal: str
    met: bool


def clock(job: Callable[[], Any]) -> float:
    began = time.perf_counter()
    job()
    return time.perf_counter() - began


def ratio(name: str, ours: Callable[[], Any], theirs: Callable[[], Any], pairs: int, goal: float, *, at_least: bool = False) -> Ratio:
    """Time two jobs alternately, after one run of each to warm up."""
    ours(), theirs()
    times = [(clock(ours), clock(theirs)) for _ in range(pairs)]
    quotients = sorted(b / a if at_least else a / b for a, b in times)
    median = quotients[len(quotients) // 2]
    a, b = (sorted(side)[len(times) // 2] for side in zip(*times, strict=True))
    text = f"at least {goal:g}" if at_least else f"at most {goal:g}"
    return Ratio(name, median, quotients[0], quotients[-1], a, b, text, median >= goal if at_least else median <= goal)


def periodic(*sizes: int) -> Grid:
    return Grid(*(Axis(name, n, length=TAU, periodic=True) for name, n in zip("xyz", sizes, strict=False)))


def noise(batch: int, grid: Grid, dtype: torch.dtype) -> Tensor:
    return torch.randn(batch, len(grid.axes), *grid.shape, generator=torch.Generator().manual_seed(0), dtype=dtype)


def leray(sizes: tuple[int, ...], batch: int, pairs: int) -> Ratio:
    """The projection onto divergence-free fields against the transforms it cannot avoid."""
    grid = periodic(*sizes)
    operator = DivergenceFree(grid).operator
    assert isinstance(operator, FourierSymbol)
    u = noise(batch, grid, torch.float32)
    dims = tuple(range(-len(sizes), 0))

    def round_trip() -> Tensor:
        return torch.fft.irfftn(torch.fft.rfftn(u, dim=dims), s=sizes, dim=dims)

    name = f"Leray projection / FFT round trip, {batch} x {' x '.join(map(str, sizes))}, float32"
    return ratio(name, lambda: operator.correct(u), round_trip, pairs, 1.5)


def share(pairs: int) -> Ratio:
    """The whole certified projection of the demo against one forward pass of its network."""
    flow = pcfm.load("kolmogorov")
    law = rescaled(demo_law(flow.grid), flow.units)
    x = noise(32, flow.grid, torch.float64)
    velocity, t = flow.velocity(), torch.tensor(0.5, dtype=torch.float64)
    name = "projection with certificate / network forward, demo model, 32 samples, float64 projection, float32 network"
    return ratio(name, lambda: project(law, x), lambda: velocity(x, t), pairs, 0.10)


def demo_law(grid: Grid) -> Constraint:
    return Intersection(DivergenceFree(grid), Momentum(grid, 0.0), Energy(grid, 0.6, mean=True))


def dense(pairs: int) -> Ratio:
    """The structured projection against the published algorithm: a dense Jacobian for each sample, a regularised solve, a loop."""
    grid = periodic(24, 24)
    law = Intersection(DivergenceFree(grid), Momentum(grid, 0.0))
    u = noise(8, grid, torch.float64)

    def jacobian_each() -> Tensor:
        points = []
        for sample in u:
            flat = sample.flatten()
            jacobian = torch.func.jacrev(lambda v: law.residual(v.reshape(1, 2, 24, 24))[0])(flat)
            gram = jacobian @ jacobian.T + 1e-6 * torch.eye(len(jacobian), dtype=u.dtype)
            multiplier = torch.cholesky_solve(law.residual(sample[None]).T, torch.linalg.cholesky(gram))[:, 0]
            points.append(flat - jacobian.T @ multiplier)
        return torch.stack(points).reshape(u.shape)

    assert (jacobian_each() - project(law, u).u).abs().max() < 1e-4
    name = "dense Jacobian, sample by sample / structured projection, divergence and momentum, 8 x 24 x 24, float64"
    return ratio(name, lambda: project(law, u), jacobian_each, pairs, 100, at_least=True)


class PeakMemory:
    """Largest resident memory while a block runs, sampled every millisecond."""

    def __enter__(self) -> PeakMemory:
        self.peak, self._running = 0, True
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._running = False
        self._thread.join()

    def _watch(self) -> None:
        page = os.sysconf("SC_PAGE_SIZE")
        while self._running:
            self.peak = max(self.peak, int(Path("/proc/self/statm").read_text().split()[1]) * page)
            time.sleep(0.001)


def memory(pairs: int) -> Ratio:
    """Peak memory of lawful sampling against unconstrained sampling."""
    flow = pcfm.load("kolmogorov")
    law = demo_law(flow.grid)
    before = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
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
        jobs: list[Callable[[], Ratio]] = [
            lambda: memory(options.pairs),
            lambda: share(options.pairs),
            lambda: leray((64, 64), 16, options.pairs),
            lambda: leray((256, 256), 8, options.pairs),
            lambda: leray((64, 64, 64), 1, options.pairs),
            lambda: dense(min(options.pairs, 5)),
        ]
        for job in jobs:
            rows.append(job())
            print(f"{rows[-1].median:8.3f} [{rows[-1].low:.3f} .. {rows[-1].high:.3f}]  {rows[-1].goal:<14} {rows[-1].name}", flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    table = [
        {
            "name": row.name,
            "median": row.median,
            "range": f"{row.low:.3g} to {row.high:.3g}",
            "goal": row.goal,
            "met": "yes" if row.met else "no",
            "ours": row.ours,
            "theirs": row.theirs,
        }
        for row in rows
    ]
    columns = [
        Column("name", "ratio"),
        Column("median", "median"),
        Column("range", "range"),
        Column("goal", "goal"),
        Column("met", "met"),
        Column("ours", "first (s)"),
        Column("theirs", "second (s)"),
    ]
    machine = f"{platform.machine()}, {os.cpu_count()} processors, {options.threads} thread(s), torch {torch.__version__}"
    text = f"# Cost of projection\n\n`python benchmarks/run.py --pairs {options.pairs} --threads {options.threads}` on {machine}.\n\n"
    (options.out / "projection.md").write_text(text + to_markdown(table, columns))
    results = {"rows": table, "machine": machine}
    Record.of(meter.cost, device="cpu", seeds={"fields": 0}, results=results).write(options.out / "projection.json")


if __name__ == "__main__":
    main()
