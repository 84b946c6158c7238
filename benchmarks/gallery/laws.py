r"""Sampling under laws

What each method makes of a correlated Gaussian of four values under two exact linear laws, at 50 steps of Euler's rule. The right answer is
the conditional distribution; dots are $W_2$ distances from it of Gaussians with the means and covariances of 4000 samples. Dotted lines are
that of the flow without laws and that of as many exact draws, below which nothing is told. What is left of the laws is round-off. This is
no ranking of methods on trained networks, large fields or curved laws.
"""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.gallery.exhibit import Exhibit, Measure, normal, panels, times
from constraints import Axis, Grid, Intersection, Mass, PointValues
from constraints.constraint import Constraint
from pcfm.methods import METHODS, Setting, build
from pcfm.path import AffinePath
from pcfm.report.look import COLOURS, GREY
from pcfm.samplers import Euler
from tests.oracles import Gaussian, GaussianOracle, root, wasserstein

SIZE = 4
FREE = ("unconstrained", "sde", "pbfm")
"""Methods that take no law."""

OPTIONS = {"eci": "eci:mix=1,resample=5", "source-chain": "source-chain:moves=60", "d-flow": "d-flow:iterations=30"}
"""Where the published default mixes no noise, or takes long."""

BOUNDS = {
    "pcfm": 2.0,
    "pcfm-published": 2.0,
    "ipcfm-slack": 2.0,
    "ipcfm-barrier": 2.0,
    "ipcfm-active": 2.0,
    "eci": 0.8,
    "pdm": 0.15,
    "ppr": 0.4,
    "pcfm-consistent": 0.12,
    "posterior": 0.25,
    "pnp-flow": 0.8,
}
"""On the distances; those of the other methods are half that of the flow without laws."""


def problem() -> tuple[Gaussian, Constraint, Tensor, Tensor]:
    """The Gaussian, the laws, and their rows and values."""
    factor = normal(SIZE, SIZE, seed=0)
    covariance = factor @ factor.T / 16 + 0.1 * torch.eye(SIZE, dtype=torch.float64)
    first = torch.zeros(1, SIZE, dtype=torch.bool)
    first[0, 0] = True
    law = Intersection(Mass(Grid(Axis("x", SIZE)), 0.5), PointValues(first, torch.tensor([0.9], dtype=torch.float64)))
    origin = torch.zeros(1, 1, SIZE, dtype=torch.float64)
    rows = law.jacobian(origin).adjoint(torch.eye(2, dtype=torch.float64))[:, 0]
    return Gaussian(torch.tensor([0.5, -0.3, 0.8, 0.1], dtype=torch.float64), covariance), law, rows, -law.residual(origin)[0]


def show(full: bool) -> Exhibit:
    count, steps = (4_000, 50) if full else (200, 12)
    target, law, rows, values = problem()
    truth, x0 = target.given(rows, values), normal(count, 1, SIZE, seed=1)
    ignored = wasserstein(target, truth)
    figure, (panel,) = panels(1, 1, 9.0, 3.3)
    measures, names = [], []
    for name, kind in METHODS.items():
        generator = torch.Generator().manual_seed(2)
        noise = lambda g=generator: torch.randn(count, 1, SIZE, generator=g, dtype=torch.float64)  # noqa: E731
        white = lambda shape, g=generator: torch.randn(count, *shape, generator=g, dtype=torch.float64)  # noqa: E731
        oracle = GaussianOracle(target)
        setting = Setting(Euler(oracle), oracle, AffinePath(), None if name in FREE else law, noise, None, white)
        found = build(OPTIONS.get(name, name), setting)(x0, times(steps))[:, 0]
        wanted = target if name in FREE else truth
        distance = wasserstein(Gaussian(found.mean(0), found.T.cov()), wanted)
        bound = BOUNDS.get(name, 0.25 if name in FREE else 0.5 * ignored) + (0 if full else 0.3)
        end = "the flow's" if name in FREE else "the conditional"
        measures.append(Measure(kind, f"W2 distance from {end} distribution, {steps} steps", distance, bound))
        if name not in FREE:
            measures.append(Measure(kind, "largest residual of the laws", float((found @ rows.T - values).abs().max()), 1e-10))
        names.append((name, distance))
    bars = [(name, distance) for name, distance in names if name not in FREE]
    panel.plot(range(len(bars)), [distance for _, distance in bars], "o", color=COLOURS[0])
    exact = truth.mean + normal(count, SIZE, seed=3) @ root(truth.covariance)
    drawn = wasserstein(Gaussian(exact.mean(0), exact.T.cov()), truth)
    for level, text in ((ignored, "no laws"), (drawn, "exact draws")):
        panel.axhline(level, color=GREY, ls=":")
        panel.text(-0.5, level, text, color=GREY, va="bottom")
    panel.grid(axis="y")
    panel.set_xticks(range(len(bars)), [name for name, _ in bars], rotation=40, ha="right")
    panel.set(ylabel="$W_2$ to the conditional distribution", yscale="log")
    return Exhibit(figure, measures)
