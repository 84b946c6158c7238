"""What lawful sampling costs over unconstrained sampling: whole trajectories, batch 32, paired in one process.

Usage: python -m benchmarks.overhead [--out FOLDER] [--pairs N] [--threads N] [--systems NAME ...]. Writes overhead.json and overhead.md.

A trajectory's processor time is that of its network calls, V each, and that of the sampler around them, S a step, and the two do not
depend on each other: the ratio is (V + S of the method) / (V + S of the unconstrained flow), from times taken alternately in one process.
V is that of Fourier neural operators with random weights, of our default's size and of the reference's (32 modes, width 64, depth 4).
While S is measured the velocity is the exact one to Gaussian fields around a field that obeys, so that projections have the work that a
trained model leaves them; S is that of a whole trajectory, the last certificate included, divided by its steps. Rows marked "directly" have
the network in the loop.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from torch import Tensor, nn

import pcfm
from benchmarks.measure import PeakMemory, Ratio
from benchmarks.publish import publish, tell
from benchmarks.systems import System, burgers, heat, reaction_diffusion
from constraints import Axis, Grid
from pcfm.metrics import measure
from pcfm.networks import FourierOperator
from pcfm.path import broadcast
from pcfm.velocity import GaussianFlow

BATCH = 32
METHODS = {
    "projected at the end": "project-end",
    "PCFM, every step": "pcfm",
    "consistent, every step": "pcfm-consistent",
    "consistent, last quarter": "pcfm-consistent:since=0.75",
    "consistent, where a law is broken by 10 %": "pcfm-consistent:defect=0.1",
}
PUBLISHED = {"heat": 4.5, "reaction-diffusion": 7.9, "Burgers": 13.0}
"""Times of the reference's sampler over those of its unconstrained flow (Utkarsh et al., NeurIPS 2025)."""


STEPS = 5
SIZES = {
    "small network": ({"modes": 12, "width": 32, "depth": 4}, 1.10),
    "network of the paper's size": ({"modes": 32, "width": 64, "depth": 4}, 1.01),
}
"""Settings of the networks, and what overhead is hoped for."""


class Timed(nn.Module):
    """The exact velocity to N(field, 0.1²), after the call of a network if there is one; counts its processor time."""

    def __init__(self, field: Tensor, network: nn.Module | None = None) -> None:
        super().__init__()
        self.network, self.exact = network, GaussianFlow(0.0, 0.1)
        self.register_buffer("field", field)
        self.seconds = 0.0

    field: Tensor

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        began = time.process_time()
        if self.network is not None:
            self.network(x.float(), t.float())
        centre = self.field.to(x)
        out = self.exact(x - broadcast(t, x) * centre, t) + centre
        self.seconds += time.process_time() - began
        return out


def grid_of(system: System) -> Grid:
    """Of the shape of the system's fields; the network extends what is bounded, time at least."""
    _, times, points = system.field.shape
    return Grid(Axis("time", times), Axis("x", points, periodic=system.name == "heat"))


def outside(system: System, method: str, module: Timed, steps: int = STEPS) -> float:
    """Processor time of a step outside the velocity."""
    flow = pcfm.wrap(module, grid=grid_of(system), channels=("u",))
    law = None if method == "unconstrained" else system.law
    module.seconds = 0.0
    began = time.process_time()
    drawn = pcfm.sample(flow, BATCH, law=law, method=method, steps=steps)
    total = time.process_time() - began
    if not drawn.converged.all():
        failed = int((~drawn.converged).sum())
        print(f"{system.name}, {method}, {steps} steps: {failed} of {BATCH} samples are not certified lawful and nearest", flush=True)
    return (total - module.seconds) / steps


def forward(network: nn.Module, x: Tensor) -> float:
    """Processor time of one network call."""
    began = time.process_time()
    network(x, torch.full((len(x),), 0.5))
    return time.process_time() - began


def network_of(system: System, settings: dict[str, int]) -> nn.Module:
    torch.manual_seed(0)
    return FourierOperator(grid_of(system), 1, **settings)


def row_of(name: str, quotients: list[float], ours: float, theirs: float, goal: float) -> Ratio:
    quotients = sorted(quotients)
    middle = quotients[len(quotients) // 2]
    row = Ratio(name, middle, quotients[0], quotients[-1], ours, theirs, f"at most {goal:g}", middle <= goal)
    tell(row)
    return row


def overheads(system: System, short: str, pairs: int) -> list[Ratio]:
    """Each method beside the unconstrained flow, with each network; first column: seconds of the sampler a step, second: of the network."""
    module, x = Timed(system.field), system.noisy(BATCH, torch.float32)
    small = network_of(system, SIZES["small network"][0])
    forward(small, x)
    calls = {size: [forward(network_of(system, settings), x)] for size, (settings, _) in SIZES.items()}
    times: dict[str, list[float]] = {method: [] for method in ("unconstrained", *METHODS.values())}
    for method in times:
        outside(system, method, module, 2)
    for _ in range(pairs):
        calls["small network"].append(forward(small, x))
        for method, found in times.items():
            found.append(outside(system, method, module))
    rows = []
    for size, (_, goal) in SIZES.items():
        call = statistics.median(calls[size])
        for label, method in METHODS.items():
            quotients = [(call + a) / (call + b) for a, b in zip(times[method], times["unconstrained"], strict=True)]
            name = f"{label} / unconstrained: {short}, {size} (published: {PUBLISHED[short]:g})"
            rows.append(row_of(name, quotients, statistics.median(times[method]), call, goal))
    return rows


def directly(system: System, short: str) -> Ratio:
    """PCFM with the small network in the loop."""
    module = Timed(system.field, network_of(system, SIZES["small network"][0]))
    found = {}
    for method in ("unconstrained", "pcfm"):
        sampler = outside(system, method, module, 3)
        found[method] = (sampler, module.seconds / 3)
    (ours, call), (free, alone) = found["pcfm"], found["unconstrained"]
    name = f"PCFM, every step / unconstrained: {short}, small network, directly"
    return row_of(name, [(1 + ours / call) / (1 + free / alone)], ours, call, SIZES["small network"][1])


def memory(system: System, short: str) -> Ratio:
    """Peak memory of lawful sampling over that of the unconstrained flow, with the small network: a large one has more of its own."""
    flow = pcfm.wrap(Timed(system.field, network_of(system, SIZES["small network"][0])), grid=grid_of(system), channels=("u",))
    peaks = {}
    for method in ("unconstrained", "pcfm"):
        with PeakMemory() as watched:
            pcfm.sample(flow, BATCH, law=None if method == "unconstrained" else system.law, method=method, steps=2)
        peaks[method] = watched.peak
    name = f"peak memory of PCFM / unconstrained (MB): {short}, small network"
    return row_of(name, [peaks["pcfm"] / peaks["unconstrained"]], peaks["pcfm"] / 1e6, peaks["unconstrained"] / 1e6, 1.2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--systems", nargs="+", default=[*PUBLISHED], choices=[*PUBLISHED])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    systems: dict[str, Callable[[], System]] = {"heat": heat, "reaction-diffusion": reaction_diffusion, "Burgers": burgers}
    rows: list[Ratio] = []
    with torch.no_grad(), measure() as meter:
        for short in options.systems:
            system = systems[short]()
            rows += overheads(system, short, options.pairs)
            rows.append(directly(system, short))
            rows.append(memory(system, short))
    command = f"python -m benchmarks.overhead --pairs {options.pairs} --threads {options.threads} --systems {' '.join(options.systems)}"
    publish(rows, options.out, "overhead", "Overhead of lawful sampling", command, meter)


if __name__ == "__main__":
    main()
