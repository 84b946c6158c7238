r"""The Schrödinger bridge

Brownian motion of noise $\sigma$, conditioned to begin at $\mathcal N(0, 1)$ and to end at $\mathcal N(0, \tfrac14)$. Left: its flow,
which has its marginals and joins ends without noise. Right: the bridge itself, whose drift is velocity plus score; the band is two
standard deviations in closed form. The covariance of both ends tells them apart: $(\sqrt{1 + \sigma^4} - \sigma^2)/2$ of the bridge,
$\tfrac12$ of the flow.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from benchmarks.gallery.exhibit import Exhibit, Measure, at, normal, panels, times
from pcfm.objective import bridge_score_loss
from pcfm.path import BridgePath
from pcfm.report.look import COLOURS, GREY
from pcfm.samplers import BridgeDiffusion, Heun

NOISE, STD = 0.8, 0.5
COVARIANCE = (math.sqrt(4 * STD**2 + NOISE**4) - NOISE**2) / 2


def variance(t: Tensor) -> Tensor:
    """Of the bridge at time t."""
    return (1 - t) ** 2 + t**2 * STD**2 + 2 * t * (1 - t) * COVARIANCE + NOISE**2 * t * (1 - t)


def velocity(x: Tensor, t: Tensor) -> Tensor:
    """Of the flow with the bridge's marginals."""
    rate = -2 * (1 - t) + 2 * t * STD**2 + (1 - 2 * t) * (2 * COVARIANCE + NOISE**2)
    return rate / (2 * variance(t)) * x


def correction(x: Tensor, t: Tensor) -> Tensor:
    """Half the squared noise times the score."""
    return -(NOISE**2) / 2 * x / variance(t)


def drift(x: Tensor, t: Tensor) -> Tensor:
    """$\\mathrm E[(x_1 - x_t)/(1-t)\\,|\\,x_t]$, from the ends."""
    return ((t * STD**2 + (1 - t) * COVARIANCE) / variance(t) - 1) / (1 - t) * x


def show(full: bool) -> Exhibit:
    count, steps = (40_000, 300) if full else (4_000, 100)
    x0, seeds = normal(count, 1, 1, seed=0), iter(range(1, 10_000))
    process = BridgeDiffusion(velocity, correction, BridgePath(NOISE), lambda: normal(count, 1, 1, seed=next(seeds)))
    figure, axes = panels(2, 1, 3.9, 2.6, sharey=True)
    ends, grid = [], times(steps)
    for panel, title, sampler in ((axes[0], "flow", Heun(velocity)), (axes[1], "bridge", process)):
        shown, band = [], 2 * variance(grid).sqrt()
        for x in sampler.iterate(x0, grid):
            shown.append(x[:14, 0, 0])
        ends.append(x[:, 0, 0])
        panel.fill_between(grid, -band, band, color=COLOURS[5], alpha=0.25, lw=0)
        panel.plot(grid, torch.stack(shown), color=GREY, lw=0.7)
        panel.set(title=title, xlabel="t")
    straight, made = ends
    x = normal(50, 1, 1, seed=0)
    identity = max(float((velocity(x, at(t)) + correction(x, at(t)) - drift(x, at(t))).abs().max()) for t in (0.1, 0.4, 0.9))
    measures = [
        Measure(BridgeDiffusion, "variance at the end", float(made.var()), 0.02, exact=STD**2),
        Measure(BridgeDiffusion, "covariance of both ends", float((x0[:, 0, 0] * made).mean()), 0.02, exact=COVARIANCE),
        Measure(
            BridgeDiffusion,
            "covariance of the ends of the flow",
            float((x0[:, 0, 0] * straight).mean()),
            0.1,
            exact=COVARIANCE,
            control=True,
        ),
        Measure(BridgeDiffusion, "velocity plus score less drift", identity, 1e-12),
        Measure(BridgePath, "slope of the regression of velocities, less the closed form", slope(count) - 1, 0.05),
        Measure(bridge_score_loss, "factor of the score at which it is least", score_factor(count), 0.05, exact=1.0),
    ]
    return Exhibit(figure, measures)


def sampled(count: int, t: Tensor) -> tuple[BridgePath, Tensor, Tensor]:
    """The bridge's path with its noise drawn, and its ends."""
    x0 = normal(count, 1, seed=11)
    x1 = COVARIANCE * x0 + math.sqrt(STD**2 - COVARIANCE**2) * normal(count, 1, seed=12)
    return BridgePath(NOISE).drawn(lambda: normal(count, 1, seed=13)), x0, x1


def slope(count: int) -> float:
    """Of conditional velocities on the closed form at t = 0.3."""
    path, x0, x1 = sampled(count, at(0.3))
    x_t, u = path.sample(x0, x1, at(0.3))
    known = velocity(x_t, at(0.3))
    return float((u * known).sum() / known.square().sum())


def score_factor(count: int) -> float:
    """The factor on the exact score where its loss, a parabola of the factor, is least."""
    path, x0, x1 = sampled(count, at(0.3))
    t = torch.full((count,), 0.3, dtype=torch.float64)
    low, middle, high = (
        float(bridge_score_loss(lambda x, s, c=c: c * correction(x, s[:1]), path, x0, x1, t).mean()) for c in (0.0, 1.0, 2.0)
    )
    return 1 + (low - high) / (2 * (low - 2 * middle + high))
