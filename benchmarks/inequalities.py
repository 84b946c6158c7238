r"""Inequalities beside conservation laws: how many samples obey all of them, by each published method and by ours.

Usage: python -m benchmarks.inequalities [--out FOLDER] [--count N] [--quick] [--threads N]. Writes inequalities.json and inequalities.md.

Two problems, Burgers and reaction-diffusion, at the sizes of PCFM's sets; for each the laws that the data obey and the published ones,
which they break (`benchmarks.inequality_laws`); every sample with initial data, and fluxes, of its own. Two inputs:

* the truth under Gaussian noise of 0.1 at every value, as if a flow were heading for it at the last of a hundred steps: what each
  method's last step makes of it;
* samples of a small flow, trained for about a minute on one core, under each method.

A sample is feasible at $\epsilon$ where $\|R\|_2\le\epsilon$ for each equality and $g\le\epsilon$ for all inequalities, absolute as in
I-PCFM's tables. Violations are the largest of all samples. Methods of I-PCFM run as published, without the projection that ends them here.
Seconds are processor time.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import process_time
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from torch import Tensor

import pcfm
from benchmarks import inequality_laws
from benchmarks.inequality_laws import Laws
from benchmarks.publish import machine
from constraints import Intersection
from pcfm.configuration import read_experiment
from pcfm.experiment import fit
from pcfm.methods import Setting, build
from pcfm.metrics import measure
from pcfm.metrics.literature import feasible
from pcfm.path import AffinePath
from pcfm.report import Column, Record, to_markdown
from pcfm.samplers import Euler
from pde_datasets import Fields, Problem
from pde_datasets.problems import InviscidBurgers, ReactionDiffusion

NOISE = 0.1
"""Standard deviation of what is added to the truth."""

STEPS = 20
"""Flow steps of each sample."""

COUNT = 16
"""Samples of each method."""

TRAINING = (
    "network.modes=8",
    "network.width=16",
    "network.depth=2",
    "source.smoothness=2.5",
    "source.length=0.2",
    "training.steps=240",
    "training.batch=8",
    "training.learning_rate=4e-3",
    "training.warmup=30",
    "training.ema=0.98",
    "training.evaluate_every=120",
)

EQUALITIES = "pcfm-published"
"""The method that is given the equalities alone."""

METHODS = (
    EQUALITIES,
    "ipcfm-slack:final=false",
    "ipcfm-barrier:final=false",
    "ipcfm-active:final=false",
    "project-end",
    "pcfm-consistent",
)


@dataclass(frozen=True)
class Case:
    """A problem under a set of laws.

    Attributes:
        title: what it is.
        problem: name of the problem.
        laws: the laws for some given fields, by label.
        published: the feasible share that I-PCFM reports at 1e-3 on its own samples, by method.
    """

    title: str
    problem: str
    laws: Callable[[Any, Fields], Laws]
    published: Mapping[str, float]


_BURGERS = {EQUALITIES: 0.0, "ipcfm-slack:final=false": 0.0, "ipcfm-barrier:final=false": 0.04, "ipcfm-active:final=false": 0.53}
_REACTION = {EQUALITIES: 0.30, "ipcfm-slack:final=false": 0.40, "ipcfm-barrier:final=false": 0.27, "ipcfm-active:final=false": 0.97}

CASES = (
    Case("Burgers, laws of the data", "burgers", inequality_laws.burgers, {}),
    Case("Burgers, published laws", "burgers", inequality_laws.burgers_published, _BURGERS),
    Case("Reaction-diffusion, laws of the data", "reaction-diffusion", inequality_laws.reaction_diffusion, {}),
    Case("Reaction-diffusion, published laws", "reaction-diffusion", inequality_laws.reaction_diffusion_published, _REACTION),
)

COLUMNS = [
    Column("method", "method"),
    Column("feasible_3", "feasible at 1e-3", format=".0%"),
    Column("feasible_6", "at 1e-6", format=".0%"),
    Column("certified", "certified nearest", format=".0%"),
    Column("published", "published, at 1e-3", format=".0%"),
    Column("IC", "IC"),
    Column("CL", "CL"),
    Column("bounds", "bounds"),
    Column("entropy", "entropy"),
    Column("energy", "energy"),
    Column("moved", "moved"),
    Column("seconds", "seconds a sample"),
]


def problems(quick: bool) -> dict[str, Problem]:
    """At the sizes of PCFM's sets, or small."""
    if quick:
        return {
            "burgers": InviscidBurgers(points=31, times=31),
            "reaction-diffusion": ReactionDiffusion(points=32, times=25, interval=0.04),
        }
    return {"burgers": InviscidBurgers(), "reaction-diffusion": ReactionDiffusion()}


def measured(laws: Laws, u: Tensor, start: Tensor) -> dict[str, Any]:
    """Feasible shares, the largest violation of each kind of law, and the distance moved."""
    law = Intersection(*laws.values())
    row: dict[str, Any] = {f"feasible_{k}": float(feasible(law, u, 10.0**-k).double().mean()) for k in (3, 6)}
    for label, leaf in laws.items():
        residual = leaf.residual(u)
        size = leaf.excess(residual).amax(1) if leaf.inequality else residual.norm(dim=1)
        kind = label.partition(",")[0]
        row[kind] = max(row.get(kind, 0.0), float(size.max()))
    return row | {"moved": float((u - start).square().mean().sqrt())}


def imposed(method: str, laws: Laws) -> Intersection:
    """What a method is given: all laws, or the equalities alone."""
    return Intersection(*(law for law in laws.values() if not (method == EQUALITIES and law.inequality)))


def mended(method: str, laws: Laws, ahead: Tensor, noise: Tensor) -> dict[str, Any]:
    """The last of a hundred steps of a method whose flow is heading for some fields from some noise."""
    path, t, end = AffinePath(), torch.tensor(0.99, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64)

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        return ahead - noise

    sampler = build(method, Setting(Euler(velocity), velocity, path, imposed(method, laws), lambda: noise))
    began = process_time()
    sample = sampler.last(path.sample(noise, ahead, t).x_t, t, end, noise)
    seconds = (process_time() - began) / len(ahead)
    assert sample.projection is not None
    certified = 0.0 if method == EQUALITIES else float(sample.projection.converged.double().mean())
    return {"method": method, **measured(laws, sample.x, ahead), "certified": certified, "seconds": seconds}


def sampled(method: str, laws: Laws, flow: pcfm.Flow, free: Tensor) -> dict[str, Any]:
    """Samples of a flow by a method, beside those of the same noise without it."""
    began = process_time()
    samples = pcfm.sample(flow, len(free), law=imposed(method, laws), method=method, steps=STEPS, batch=8)
    seconds = (process_time() - began) / len(free)
    certified = 0.0 if method == EQUALITIES else float(samples.converged.double().mean())
    return {"method": method, **measured(laws, samples.u, free), "certified": certified, "seconds": seconds}


def trained(problem: Problem, quick: bool) -> pcfm.Flow:
    """A small flow."""
    overrides = [*TRAINING, "training.steps=60"] if quick else TRAINING
    with tempfile.TemporaryDirectory() as folder:
        return fit(problem.draw(512, seed=1), read_experiment(overrides=overrides), Path(folder))


def study(case: Case, problem: Problem, flow: pcfm.Flow, count: int) -> dict[str, list[dict[str, Any]]]:
    """The rows of both inputs."""
    given = problem.draw(count, seed=2)
    laws, truth = case.laws(problem, given), given.values
    noise = torch.randn(2, *truth.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ahead = truth + NOISE * noise[0]
    free = pcfm.sample(flow, count, steps=STEPS).u
    data = {"method": "the data themselves", **measured(laws, truth, truth), "aside": True}
    mended_rows = [data, {"method": "the data under noise", **measured(laws, ahead, ahead)}]
    sampled_rows = [{"method": "unconstrained", **measured(laws, free, free)}]
    for method in METHODS:
        known = {"published": case.published[method]} if method in case.published else {}
        if method != "project-end":  # the same as the last step of the next
            mended_rows.append(mended(method, laws, ahead, noise[1]))
        sampled_rows.append(sampled(method, laws, flow, free) | known)
        for row in (mended_rows[-1], sampled_rows[-1]):
            print(f"{case.title}: {row['method']}: feasible {row['feasible_3']:.0%}, {row['feasible_6']:.0%}", flush=True)
    return {"the data under noise of 0.1": mended_rows, "a small flow": sampled_rows}


def page(tables: Mapping[str, Mapping[str, list[dict[str, Any]]]], command: str, where: str) -> str:
    """The study in Markdown."""
    text = [f"# Inequalities beside conservation laws\n\n`{command}` on {where}.\n"]
    for title, inputs in tables.items():
        text.append(f"\n## {title}\n")
        for name, rows in inputs.items():
            known = [column for column in COLUMNS if any(column.key in row for row in rows)]
            text.append(f"\nFrom {name}:\n\n{to_markdown(rows, known)}")
    return "".join(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with measure() as meter:
        known = problems(options.quick)
        flows = {name: trained(problem, options.quick) for name, problem in known.items()}
        tables = {case.title: study(case, known[case.problem], flows[case.problem], options.count) for case in CASES}
    options.out.mkdir(parents=True, exist_ok=True)
    given = [" --quick"] * options.quick + [f" --count {options.count}"] * (options.count != COUNT)
    command = "".join(["python -m benchmarks.inequalities", *given])
    (options.out / "inequalities.md").write_text(page(tables, command, machine()))
    results = {"tables": tables, "machine": machine()}
    record = Record.of(meter.cost, device="cpu", seeds={"data": 2, "training": 1, "noise": 0}, results=results)
    record.write(options.out / "inequalities.json")


if __name__ == "__main__":
    main()
