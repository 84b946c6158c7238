"""What a vorticity field costs at equal error: our solver against a plain one, measured side by side in one process.

Usage: python -m benchmarks.vorticity [--out FOLDER] [--pairs N] [--threads N]. Writes vorticity.json and vorticity.md. The plain solver is
of the kind that published generators use: explicit Euler for advection, Crank-Nicolson for viscosity, steps of 1e-3, five complex
transforms a step; here in double precision. Both solve the same truncated equations. Errors are against our solver with steps of 1/80; that
the plain solver's error halves with its step shows that this is its limit too. Ours takes the longest step whose error is not above the
plain solver's. The two run alternately, and the ratio is formed pair by pair, as in `benchmarks.run`.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import process_time

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from torch import Tensor

from benchmarks.measure import Ratio, ratio
from benchmarks.publish import publish, tell
from pcfm.metrics import measure
from pde_datasets.problems import NavierStokes
from pde_datasets.solvers.vorticity import VorticityFlow


def plain(w: Tensor, force: Tensor, viscosity: float, time: float, dt: float = 1e-3) -> Tensor:
    r"""Vorticity fields (B, n, n) on the unit torus a given time later.

    $$\frac{w_{n+1} - w_n}{\Delta t} = -\mathbf u_n\cdot\nabla w_n + g + \tfrac\nu2\nabla^2(w_n + w_{n+1}).$$
    """
    n = w.shape[-1]
    k = 2 * math.pi * torch.fft.fftfreq(n, 1 / n, dtype=torch.float64)
    kx, ky = k[:, None], k[None, :]
    k2 = kx**2 + ky**2
    inverse = torch.where(k2 > 0, 1 / k2, 0.0)
    keep = 3 * torch.fft.fftfreq(n, 1 / n).abs() < n
    mask = (keep[:, None] & keep).to(torch.float64)
    state, push = torch.fft.fft2(w), torch.fft.fft2(force)
    half = 0.5 * dt * viscosity * k2
    for _ in range(round(time / dt)):
        psi = state * inverse
        u = torch.fft.ifft2(1j * ky * psi).real
        v = torch.fft.ifft2(-1j * kx * psi).real
        w_x = torch.fft.ifft2(1j * kx * state).real
        w_y = torch.fft.ifft2(1j * ky * state).real
        advection = mask * torch.fft.fft2(u * w_x + v * w_y)
        state = ((1 - half) * state - dt * advection + dt * push) / (1 + half)
    return torch.fft.ifft2(state).real


def error(found: Tensor, exact: Tensor) -> float:
    """Relative, in the mean square over space, the mean of the samples."""
    return ((found - exact).flatten(1).norm(dim=1) / exact.flatten(1).norm(dim=1)).mean().item()


def equal_error(points: int, batch: int, time: float, pairs: int) -> Ratio:
    """The plain solver's time over ours, for fields that are at least as accurate."""
    problem = NavierStokes(points=points)
    x, y = problem.grid.space.mesh()
    force = problem.force * torch.sin(2 * math.pi * (x + y) + problem.phase[0])
    start = problem.draw(batch).u[:, 0, 0]

    def ours(steps: int) -> Callable[[], Tensor]:
        flow = VorticityFlow(problem.grid, problem.viscosity, force=force, dt=time / steps)
        return lambda: flow.vorticity(flow.advance(flow.transform(start), time))

    def theirs(dt: float = 1e-3) -> Tensor:
        return plain(start, force, problem.viscosity, time, dt)

    def missed(steps: int) -> float:
        try:
            return error(ours(steps)(), exact)
        except FloatingPointError:
            return math.inf

    exact = ours(steps=round(80 * time))()
    allowed, halved = error(theirs(), exact), error(theirs(5e-4), exact)
    steps = next(m for m in range(1, round(40 * time)) if missed(m) <= allowed)
    name = (
        f"plain solver / ours, {batch} x {points} x {points} to t = {time:g}, float64; "
        f"errors {allowed:.1e} (dt 1e-3; {halved:.1e} for half), {missed(steps):.1e} (dt {time / steps:.2g})"
    )
    ready, times = ours(steps), math.ceil(150 / steps)  # so often that both sides take about as long, and are disturbed as much

    def repeated() -> None:
        for _ in range(times):
            ready()

    found = ratio(name, repeated, theirs, pairs, 150, at_least=True, times=times)
    return replace(found, ours=found.ours / times, theirs=found.theirs / times)


def whole_set(runs: int) -> Ratio:
    """Minutes of processor time for the 10,000 trajectories of the PCFM set, extrapolated from that of 16, drawn as they always are."""
    problem = NavierStokes.preset("pcfm")

    def minutes(i: int) -> float:
        began = process_time()
        problem.draw(16, start=16 * i)
        return (process_time() - began) * 10_000 / 16 / 60

    minutes(0)
    taken = sorted(minutes(i) for i in range(1, runs + 1))
    middle = taken[len(taken) // 2]
    name = (
        "processor minutes for 10,000 trajectories of the PCFM set, 625 times those of one batch of 16 (extrapolated, none drew 10,000): "
        "t = 0 .. 49, 64 x 64, viscosity 1e-3"
    )
    return Ratio(name, middle, taken[0], taken[-1], middle * 60, 0.0, "at most 60", middle <= 60)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = []
    with torch.no_grad(), measure() as meter:
        jobs = [
            lambda: equal_error(64, 16, 1.0, options.pairs),
            lambda: equal_error(128, 4, 1.0, options.pairs),
            lambda: equal_error(64, 16, 10.0, min(options.pairs, 2)),
            lambda: whole_set(min(options.pairs, 3)),
        ]
        for job in jobs:
            rows.append(job())
            tell(rows[-1])
    command = f"python -m benchmarks.vorticity --pairs {options.pairs} --threads {options.threads}"
    publish(rows, options.out, "vorticity", "Cost of vorticity fields", command, meter)


if __name__ == "__main__":
    main()
