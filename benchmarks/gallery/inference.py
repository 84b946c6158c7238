r"""Posterior estimation

Parameters from observations, learnt from simulations alone. Left: a linear Gaussian model at one observation, draws and the contours of
the exact posterior. Middle: ranks of the true parameters among draws, flat if the posteriors are right, with the band that nine of ten
flat histograms stay in per bin. Right: two moons, the posterior of parameters seen through a noisy arc, which has two parts.
"""

from __future__ import annotations

import math

import torch
from scipy.stats import binom
from torch import Tensor

from benchmarks.gallery.exhibit import Exhibit, Measure, panels
from pcfm.inference import FMPE
from pcfm.metrics import pit_deviation, rank_histogram, ranks
from pcfm.report.look import COLOURS, GREY

A = torch.tensor([[1.0, 0.5], [-0.3, 0.8], [0.2, 0.4]], dtype=torch.float64)
NOISE = 0.5


def linear(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Standard normal parameters, seen through a matrix and noise."""
    generator = torch.Generator().manual_seed(seed)
    theta = torch.randn(count, 2, generator=generator, dtype=torch.float64)
    return theta, theta @ A.T + NOISE * torch.randn(count, 3, generator=generator, dtype=torch.float64)


def exact(x: Tensor) -> torch.distributions.MultivariateNormal:
    """The posterior."""
    precision = torch.eye(2, dtype=torch.float64) + A.T @ A / NOISE**2
    return torch.distributions.MultivariateNormal(torch.linalg.solve(precision, A.T @ x / NOISE**2), precision_matrix=precision)


def moons(theta: Tensor, generator: torch.Generator) -> Tensor:
    """A noisy arc, moved by the parameters (Greenberg, Nonnenmacher & Macke, ICML 2019)."""
    angle = math.pi * (torch.rand(len(theta), generator=generator, dtype=torch.float64) - 0.5)
    radius = 0.1 + 0.01 * torch.randn(len(theta), generator=generator, dtype=torch.float64)
    arc = torch.stack([radius * angle.cos() + 0.25, radius * angle.sin()], dim=1)
    return arc + torch.stack([-theta.sum(1).abs(), theta[:, 1] - theta[:, 0]], dim=1) / math.sqrt(2)


def show(full: bool) -> Exhibit:
    prior = torch.distributions.Independent(torch.distributions.Normal(torch.zeros(2, dtype=torch.float64), 1.0), 1)
    count, steps, width = (20_000, 2000, 64) if full else (2_000, 150, 24)
    learnt = FMPE(prior, width=width, depth=2).append_simulations(*linear(count, 0)).train(steps=steps)
    x = linear(1, 9)[1][0]
    truth, draws = exact(x), learnt.sample((2000 if full else 300,), x, seed=1)
    figure, axes = panels(3, 1, 3.2, 2.8)
    line = torch.linspace(-2.5, 2.5, 81, dtype=torch.float64)
    density = truth.log_prob(truth.mean + torch.cartesian_prod(line, line)).exp().reshape(81, 81).T
    axes[0].plot(*draws.T, ".", ms=2, color=COLOURS[0])
    axes[0].contour(truth.mean[0] + line, truth.mean[1] + line, density, levels=5, colors=COLOURS[1], linewidths=0.9)
    axes[0].set(title="linear Gaussian", xlabel="$\\theta_1$", ylabel="$\\theta_2$")
    cases, members = (300, 99) if full else (60, 19)
    theta, seen = linear(cases, 2)
    found = ranks(learnt.sample_batched((members,), seen, seed=3), theta)
    counts = rank_histogram(found, members).reshape(-1, members + 1).sum(0).reshape(20, -1).sum(1)
    total = int(counts.sum())
    axes[1].bar(range(20), counts, width=0.9, color=COLOURS[5])
    axes[1].fill_between((-0.5, 19.5), *(binom.ppf(q, total, 1 / 20) for q in (0.05, 0.95)), color=GREY, alpha=0.3, lw=0)
    axes[1].set(title="ranks of the truth", xticks=[])
    generator = torch.Generator().manual_seed(0)
    flat = 2 * torch.rand(30_000 if full else 1_000, 2, generator=generator, dtype=torch.float64) - 1
    arcs = (
        FMPE(width=96 if full else 16, depth=3 if full else 1)
        .append_simulations(flat, moons(flat, generator))
        .train(steps=3000 if full else 60)
    )
    axes[2].plot(*arcs.sample((1500 if full else 200,), torch.zeros(2)).T, ".", ms=1.6, color=COLOURS[0])
    axes[2].set(title="two moons", xlim=(-0.75, 0.75), ylim=(-0.75, 0.75), xlabel="$\\theta_1$", aspect="equal")
    weighed = learnt.importance_sample(
        lambda at, y: torch.distributions.Normal(at @ A.T, NOISE).log_prob(y).sum(1), 2000 if full else 300, x
    )
    evidence = torch.distributions.MultivariateNormal(
        torch.zeros(3, dtype=torch.float64), A @ A.T + NOISE**2 * torch.eye(3, dtype=torch.float64)
    )
    mean = float(((draws.mean(0) - truth.mean) / truth.variance.sqrt()).abs().max())
    spread = float((draws.T.cov() - truth.covariance_matrix).norm() / truth.covariance_matrix.norm())
    apart = max(float(pit_deviation(found[:, i], members)) for i in range(2))
    return Exhibit(
        figure,
        [
            Measure(FMPE, "posterior mean of a linear Gaussian model, error in standard deviations", mean, 0.15 if full else 0.8),
            Measure(FMPE, "its covariance, relative error", spread, 0.15 if full else 0.8),
            Measure(
                FMPE, "log-evidence by importance weights, error", float(weighed.log_evidence - evidence.log_prob(x)), 0.03 if full else 0.5
            ),
            Measure(FMPE, "efficiency of importance weights, short of 1 by", 1 - weighed.efficiency, 0.2 if full else 0.9),
            Measure(FMPE, "ranks of the truth, distance from uniform", apart, 1.95 / cases**0.5),
        ],
    )
