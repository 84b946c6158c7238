r"""Stochastic sampling

From one flow to two modes, trajectories of its ordinary equation and of stochastic ones of different strength. Marginals are the same, as
are the shares of the modes; ends no longer follow from the noise. Mean and covariance of what the steps make of a Gaussian are exact here,
without the noise of sampling.
"""

from __future__ import annotations

import torch

from benchmarks.gallery.exhibit import Exhibit, Measure, normal, panels, times
from pcfm.path import AffinePath
from pcfm.report.look import COLOURS
from pcfm.samplers import StochasticFlow
from pcfm.samplers.stochastic import STRENGTHS
from tests.oracles import Gaussian, GaussianOracle, pushed
from tests.oracles_gmm import Mixture, MixtureOracle

TARGET = Gaussian(torch.tensor([0.5, -1.0], dtype=torch.float64), torch.tensor([[0.5, 0.2], [0.2, 0.3]], dtype=torch.float64))
MODES = Mixture(
    torch.tensor([0.3, 0.7], dtype=torch.float64),
    torch.tensor([[-1.5], [1.5]], dtype=torch.float64),
    torch.tensor([[[0.1]], [[0.2]]], dtype=torch.float64),
)


class Driftless(StochasticFlow):
    """The noise without the drift that makes up for it."""

    def drift(self, x: torch.Tensor, t: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        return self.velocity(x, t)


def spread(steps: int, kind: type[StochasticFlow] = StochasticFlow, **options: object) -> float:
    """How far mean and covariance of the samples are from the target's."""
    made = pushed(lambda noise: kind(GaussianOracle(TARGET), AffinePath(), noise, **options), 2, times(steps), draws=steps - 1)  # type: ignore[arg-type]
    return max(float((made.mean - TARGET.mean).abs().max()), float((made.covariance - TARGET.covariance).abs().max()))


def show(full: bool) -> Exhibit:
    count, steps = (20_000, 200) if full else (2_000, 60)
    flow, grid = MixtureOracle(MODES), times(steps, last=0.9999)
    x0 = normal(count, 1, 1, seed=0)
    figure, axes = panels(4, 1, 2.6, 2.6, sharey=True)
    measures = []
    for i, (title, options) in enumerate(
        {"no noise": {"eta": 0.0}, "sigma": {}, "constant": {"strength": "constant"}, "vanishing": {"strength": "vanishing"}}.items()
    ):
        seeds = iter(range(1, 10_000))
        sampler = StochasticFlow(flow, AffinePath(), lambda: normal(count, 1, 1, seed=next(seeds)), **options)  # noqa: B023
        states = [x[:, 0, 0] for x in sampler.iterate(x0, grid)]
        axes[i].plot(grid, torch.stack([x[:10] for x in states]), color=COLOURS[i], lw=0.7)
        axes[i].hist(states[-1], bins=50, density=True, orientation="horizontal", bottom=1.02, color=COLOURS[i], alpha=0.5)
        axes[i].set(title=title, xlabel="t", xticks=[0, 0.5, 1], ylim=(-3.2, 3.6))
        share = float((states[-1] < 0).double().mean())
        measures.append(Measure(StochasticFlow, f"share of the lower mode, {title}", share, 0.015 if full else 0.05, exact=0.3))
    fine = 300 if full else 100
    for strength in STRENGTHS:
        measures.append(
            Measure(StochasticFlow, f"mean and covariance with strength {strength}, error", spread(fine, strength=strength), 3 / fine)
        )
    measures.append(
        Measure(StochasticFlow, "without the drift of the score", spread(fine, Driftless, strength="constant"), 0.1, control=True)
    )
    return Exhibit(figure, measures)
