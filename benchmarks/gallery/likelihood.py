r"""Likelihood

The density of a mixture, and what the change of variables along its flow says of it, to $10^{-4}$ wherever data are. Right: estimates of
the divergence of a matrix of 40 values with 8 strong directions, by Hutchinson's method and Hutch++, over the number of reverse passes:
below those directions Hutch++ does not pay, above them it is far better. The variance of Hutchinson's estimate is known:
$2(\|S\|_F^2 - \sum_i S_{ii}^2)$.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from benchmarks.gallery.exhibit import Exhibit, Measure, normal, panels
from constraints import Axis, Grid
from pcfm.likelihood import Divergence, Exact, Hutchinson, HutchPlusPlus, bits_per_dimension, log_likelihood, sample_likelihood
from pcfm.path import AffinePath
from pcfm.report.look import COLOURS
from pcfm.source import WhiteNoise
from pcfm.velocity import GaussianFlow
from tests.oracles_gmm import Mixture, MixtureOracle

MIXTURE = Mixture(
    torch.tensor([0.3, 0.7], dtype=torch.float64),
    torch.tensor([[-1.0, 0.5], [1.2, 0.0]], dtype=torch.float64),
    torch.tensor([[[0.3, 0.1], [0.1, 0.2]], [[0.1, 0.0], [0.0, 0.4]]], dtype=torch.float64),
)
PAIR = WhiteNoise(Grid(Axis("x", 2)), 1)


def estimates(divergence: Divergence, matrix: Tensor, count: int) -> Tensor:
    """Of the trace of a matrix, independent ones."""
    x = torch.zeros(count, 1, len(matrix), dtype=torch.float64).requires_grad_()
    return divergence(x, x @ matrix.T, divergence.draw(x, torch.Generator().manual_seed(1)), False).mean(1)


def show(full: bool) -> Exhibit:
    law = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(MIXTURE.weights), torch.distributions.MultivariateNormal(MIXTURE.means, MIXTURE.covariances)
    )
    side = 81 if full else 21
    line = torch.linspace(-3, 3, side, dtype=torch.float64)
    points = torch.cartesian_prod(line, line)[:, None]
    oracle = MixtureOracle(MIXTURE)
    found = log_likelihood(lambda x, t: oracle(x, t.clamp_max(1 - 1e-7)), AffinePath(), PAIR, points, tolerance=1e-7).log_density
    exact = law.log_prob(points[:, 0])
    figure, axes = panels(3, 1, 3.1, 2.7)
    for panel, title, values in ((axes[0], "density", exact), (axes[1], "by the flow", found)):
        panel.contourf(line, line, values.exp().reshape(side, side).T, levels=12, cmap="Blues")
        panel.set(title=title, aspect="equal", xticks=[-2, 0, 2], yticks=[-2, 0, 2])
    matrix = normal(40, 8, seed=6) @ normal(8, 40, seed=7) + 0.05 * normal(40, 40, seed=9)
    repeats, budgets = (2_000 if full else 200), (3, 6, 9, 15, 21, 30)
    errors = {
        name: [float((estimates(kind(budget), matrix, repeats) - matrix.trace()).square().mean().sqrt()) for budget in budgets]
        for name, kind in (("Hutchinson", Hutchinson), ("Hutch++", HutchPlusPlus))
    }
    for colour, (name, values) in zip(COLOURS, errors.items(), strict=False):
        axes[2].semilogy(budgets, values, "o-", ms=4, color=colour, label=name)
    axes[2].set(xlabel="reverse passes", title="error of the trace, root mean square")
    axes[2].legend()
    symmetric = (matrix + matrix.T) / 2
    std = math.sqrt(2 * float(symmetric.square().sum() - symmetric.diagonal().square().sum()))
    single = estimates(Hutchinson(1), matrix, 20_000)
    likely = exact > -12
    flow, x = GaussianFlow(0.5, 0.3), 0.5 + 0.3 * normal(4, 1, 2, seed=2)
    gaussian = log_likelihood(flow, AffinePath(), PAIR, x, tolerance=1e-8)
    euler = log_likelihood(flow, AffinePath(), PAIR, x, solver="euler", steps=20)
    known = torch.distributions.Normal(0.5, 0.3).log_prob(x).sum((1, 2))
    back = sample_likelihood(flow, AffinePath(), PAIR, gaussian.x0, tolerance=1e-8)
    measures = [
        Measure(log_likelihood, "mixture, largest error in nats", float((found - exact)[likely].abs().max()), 1e-4),
        Measure(log_likelihood, "Gaussian, largest error in nats", float((gaussian.log_density - known).abs().max()), 1e-6),
        Measure(log_likelihood, "20 steps of Euler", float((euler.log_density - known).abs().max()), 0.01, control=True),
        Measure(sample_likelihood, "forward and inverse agree to", float((back.log_density - gaussian.log_density).abs().max()), 1e-6),
        Measure(Exact, "trace, error", float((estimates(Exact(), matrix, 1) - matrix.trace()).abs().max()), 1e-10),
        Measure(Hutchinson, "standard deviation of one probe over theory", float(single.std()) / std, 0.05, exact=1.0),
        Measure(HutchPlusPlus, "error at 30 passes over Hutchinson's", errors["Hutch++"][-1] / errors["Hutchinson"][-1], 0.25),
        Measure(
            bits_per_dimension, "of uniform data of 8 bits", float(bits_per_dimension(torch.zeros(1), 64, levels=256)), 1e-12, exact=8.0
        ),
    ]
    return Exhibit(figure, measures)
