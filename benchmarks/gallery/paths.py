r"""Paths and schedules

$x_t = \alpha_t x_1 + \sigma_t x_0$ for each schedule: above the scales, below trajectories of the exact flow from noise to
$\mathcal N(1, 0.3^2)$. At any time the flow of a Gaussian is $x_t = \alpha_t m + (c_t/c_0)(x_0 - \alpha_0 m)$ with
$c_t^2 = \alpha_t^2s^2 + \sigma_t^2$, whatever the schedule; the numbers are distances of trajectories from it. A velocity of one schedule
is sampled on another without training, and velocity, endpoint, noise, score and v of diffusion models are each found from the others.
"""

from __future__ import annotations

from itertools import product

import torch

from benchmarks.gallery.exhibit import Exhibit, Measure, at, normal, panels, times
from pcfm.configuration import SCHEDULES
from pcfm.parametrisation import PREDICTIONS, MirroredVelocity, RescheduledVelocity, convert
from pcfm.path import AffinePath
from pcfm.report.look import COLOURS, GREY
from pcfm.samplers import Dopri8
from pcfm.velocity import GaussianFlow

MEAN, STD = 1.0, 0.3


def show(full: bool) -> Exhibit:
    count, x0 = 40 if full else 10, normal(2000 if full else 10, 1, 1, seed=0)
    figure, axes = panels(len(SCHEDULES), 2, 2.3, 2.1, sharex=True, sharey="row")
    measures, t = [], torch.linspace(0, 1, 101, dtype=torch.float64)
    for column, (name, kind) in enumerate(SCHEDULES.items()):
        path = AffinePath(kind())
        flow, scales = GaussianFlow(MEAN, STD, path), path.schedule(t)
        spread = (scales.signal**2 * STD**2 + scales.noise**2).sqrt()
        start = path.start(x0)
        states = torch.stack(list(Dopri8(flow, rtol=1e-9, atol=1e-9).iterate(start, t[:: 100 // count])))[:, :, 0, 0]
        here = slice(None, None, 100 // count)
        exact = scales.signal[here, None] * MEAN + spread[here, None] / spread[0] * (start[:, 0, 0] - scales.signal[0] * MEAN)
        measures.append(Measure(kind, "trajectories, largest error", float((states - exact).abs().max() / spread[0]), 1e-6))
        above, below = axes[column], axes[column + len(SCHEDULES)]
        above.set_title(name)
        above.plot(t, scales.signal, color=COLOURS[0], label=r"signal $\alpha_t$")
        above.plot(t, scales.noise / scales.noise[0], color=COLOURS[1], label=r"noise $\sigma_t/\sigma_0$")
        below.plot(t[here], states[:, :12] / spread[here, None], color=GREY, lw=0.7)
        below.set_xlabel("t")
    axes[4].legend(loc="center right")
    axes[len(SCHEDULES)].set_ylabel("$x_t/c_t$")
    return Exhibit(figure, measures + conversions())


def conversions() -> list[Measure]:
    """Errors of what one prediction or one convention says in terms of another."""
    cosine, straight, x = AffinePath(SCHEDULES["cosine"]()), AffinePath(), normal(50, 1, 2, seed=1)
    flow, linear = GaussianFlow(MEAN, STD, cosine), GaussianFlow(MEAN, STD)
    worst = 0.0
    for t, given, wanted in product(times(4, 0.1, 0.9), PREDICTIONS, PREDICTIONS):
        there = convert(cosine, flow(x, t), x, t, "velocity", given)
        back = convert(cosine, convert(cosine, there, x, t, given, wanted), x, t, wanted, "velocity")
        worst = max(worst, float((back - flow(x, t)).abs().max()))
    signal, noise = cosine.schedule(at(0.4))[:2]
    score = -(x - signal * MEAN) / (signal**2 * STD**2 + noise**2)
    found = convert(cosine, flow(x, at(0.4)), x, at(0.4), "velocity", "score")
    moved = RescheduledVelocity(flow, cosine, straight)(x, at(0.4)) - linear(x, at(0.4))
    mirrored = MirroredVelocity(lambda x, r: -linear(x, 1 - r))(x, at(0.4)) - linear(x, at(0.4))
    return [
        Measure(convert, "there and back, all pairs of predictions", worst, 1e-10),
        Measure(convert, "score of a Gaussian, error", float((found - score).abs().max()), 1e-12),
        Measure(convert, "score without its sign", float((found + score).abs().max()), 1.0, control=True),
        Measure(RescheduledVelocity, "cosine velocity on the straight path, error", float(moved.abs().max()), 1e-10),
        Measure(MirroredVelocity, "velocity with noise at time 1, error", float(mirrored.abs().max()), 1e-12),
    ]
