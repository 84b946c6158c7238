r"""Flow times, in training and in sampling

Left: how often each law of training times draws a time, beside its density. Right: which times each spacing of 12 steps takes. The
variance of a law is known in closed form; of a spacing the error of Heun's rule to $\mathcal N(1, 0.1^2)$ is, whose trajectories bend next
to the data.
"""

from __future__ import annotations

import math

import torch
from scipy.integrate import quad

from benchmarks.gallery.exhibit import Exhibit, Measure, normal, panels
from pcfm.objective import TIME_LAWS
from pcfm.report.look import COLOURS
from pcfm.samplers import Heun
from pcfm.samplers.times import TIMES
from pcfm.velocity import GaussianFlow


def shifted_variance(k: float = 3.0) -> float:
    """Of kq/(1 + (k-1)q), q uniform."""
    c = k - 1
    mean, square = k / c * (1 - math.log(k) / c), (k / c) ** 2 * (1 - 2 * math.log(k) / c + 1 / k)
    return square - mean**2


def logit_normal_variance() -> float:
    """By quadrature over the normal law; its mean is one half."""
    return float(quad(lambda z: (1 / (1 + math.exp(-z)) - 0.5) ** 2 * math.exp(-(z**2) / 2) / math.sqrt(2 * math.pi), -12, 12)[0])


def mode_variance(s: float = 0.8) -> float:
    """Of u + s(u - sin(πu)/2), u uniform on [-1/2, 1/2]."""
    return (1 + s) ** 2 / 12 - 2 * s * (1 + s) / math.pi**2 + s**2 / 8


VARIANCES = {
    "uniform": 1 / 12,
    "logit-normal": logit_normal_variance(),
    "power": 1 / 18,
    "beta": 1 / 20,
    "mode": mode_variance(),
    "shifted": shifted_variance(),
}


def show(full: bool) -> Exhibit:
    count = 100_000 if full else 5_000
    r = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    figure, (left, right) = panels(2, 1, 4.4, 3.0)
    measures = []
    for colour, (name, kind) in zip(COLOURS, TIME_LAWS.items(), strict=False):
        law = kind()
        drawn, density = law.quantile(r), law.density(r)
        left.hist(drawn, bins=40, range=(0, 1), density=True, histtype="stepfilled", color=colour, alpha=0.08)
        left.plot(drawn[count // 200 : -count // 200], density[count // 200 : -count // 200], color=colour, label=name)
        measures.append(Measure(kind, "variance of the times", float(drawn.var()), 1e-3, exact=VARIANCES[name]))
    left.set(xlabel="t", ylabel="density", ylim=(0, 3.4), title="training")
    left.legend(ncols=2, loc="upper right")
    flow, x0 = GaussianFlow(1.0, 0.1), normal(500, 1, 1, seed=0)
    for row, spacing in enumerate(TIMES.values()):
        grid = spacing()(12)
        end = Heun(flow)(x0, grid)
        right.plot(grid, [row] * len(grid), "o-", ms=4, lw=0.6, color=COLOURS[row])
        error = float((end - flow.transport(x0)).square().mean().sqrt()) / flow.std
        measures.append(Measure(spacing, "12 Heun steps, error in units of the spread", error, 0.5))
    right.set(xlabel="t", title="sampling", ylim=(-0.5, len(TIMES) - 0.5))
    right.set_yticks(range(len(TIMES)), list(TIMES))
    return Exhibit(figure, measures)
