r"""Diffusion models as flows

A diffusion model that predicts the noise of a mixture exactly, at 1000 levels, as the velocity of a flow on the straight path: left its
error over flow time, with indices between the levels, with whole indices only, and off by one as tables of another length have it. Right:
its samples in 25 Heun steps, spaced as its levels are.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from benchmarks.gallery.exhibit import Exhibit, Measure, at, normal, panels
from pcfm.diffusion import PREDICTIONS, ContinuousLevels, DiffusionVelocity, DiscreteLevels, FlowAsDiffusion, NoiseLevels
from pcfm.report.look import COLOURS
from pcfm.samplers import Heun
from pcfm.schedule import Scales
from tests.oracles_gmm import Mixture, MixtureOracle

MIXTURE = Mixture(
    torch.tensor([0.3, 0.7], dtype=torch.float64),
    torch.tensor([[-1.5, 0.5], [1.0, -0.5]], dtype=torch.float64),
    torch.tensor([[[0.3, 0.1], [0.1, 0.2]], [[0.2, -0.05], [-0.05, 0.4]]], dtype=torch.float64),
)
ORACLE = MixtureOracle(MIXTURE)


def predictor(levels: NoiseLevels, kind: str, shift: float = 0.0) -> Any:
    """A diffusion model that has learnt the mixture exactly, and finds its scales from its own label."""

    def network(x: Tensor, label: Tensor) -> Tensor:
        k = label[0] + shift
        a, s = levels.scales(levels.time(k)) if isinstance(levels, DiscreteLevels) else (torch.ones_like(k), k)
        fixed: Any = SimpleNamespace(schedule=lambda t: Scales(a, s, 0 * t, 0 * t))
        data = MixtureOracle(MIXTURE, fixed).endpoint(x, at(0.5))
        noise = (x - a * data) / s
        return {"noise": noise, "data": data, "v": a * noise - s * data}[kind]

    return network


def error(velocity: Any, t: float) -> float:
    """Of a velocity on states of the straight path, relative."""
    x = t * MIXTURE.sample(200, 0) + (1 - t) * normal(200, 1, 2, seed=1)
    exact = ORACLE(x, at(t))
    return float((velocity(x, at(t)) - exact).norm() / exact.norm())


def show(full: bool) -> Exhibit:
    fine, whole = DiscreteLevels.scaled_linear(), DiscreteLevels.scaled_linear(nearest=True)
    moments = torch.linspace(0.08, 0.965, 60 if full else 8).tolist()
    curves = {
        "between levels": DiffusionVelocity(predictor(fine, "noise"), fine),
        "whole indices": DiffusionVelocity(predictor(whole, "noise"), whole),
        "off by one": DiffusionVelocity(predictor(fine, "noise", shift=1.0), fine),
    }
    figure, (left, right) = panels(2, 1, 3.8, 2.8)
    worst = {}
    for colour, (name, velocity) in zip(COLOURS, curves.items(), strict=False):
        errors = [error(velocity, t) for t in moments]
        left.semilogy(moments, errors, color=colour, label=name)
        worst[name] = max(errors)
    left.set(xlabel="t", ylabel="relative error of the velocity")
    left.legend()
    count = 3000 if full else 300
    x1 = Heun(curves["between levels"])(normal(count, 1, 2, seed=2), fine.times(25))[:, 0]
    line = torch.linspace(-4, 4, 81, dtype=torch.float64)
    law = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(MIXTURE.weights), torch.distributions.MultivariateNormal(MIXTURE.means, MIXTURE.covariances)
    )
    density = law.log_prob(torch.cartesian_prod(line, line)).exp().reshape(81, 81).T
    right.plot(*x1.T, ".", ms=1.5, color=COLOURS[0])
    right.contour(line, line, density, levels=[0.01, 0.05, 0.15], colors=COLOURS[1], linewidths=0.9)
    right.set(xlim=(-3.5, 3.2), ylim=(-2.5, 2.5), title="25 Heun steps", aspect="equal")
    measures = [
        Measure(DiscreteLevels, "velocity from noise, largest relative error", worst["between levels"], 1e-6),
        Measure(DiscreteLevels, "with whole indices", worst["whole indices"], 2e-2),
        Measure(DiscreteLevels, "with an index off by one", worst["off by one"], 1e-3, control=True),
        Measure(
            DiffusionVelocity,
            "covariance of samples in 25 steps, relative error",
            float((x1.T.cov() - total()).norm() / total().norm()),
            0.08 if full else 0.3,
        ),
    ]
    for name, levels in (("indexed", fine), ("continuous", ContinuousLevels())):
        for kind in PREDICTIONS:
            velocity = DiffusionVelocity(predictor(levels, kind), levels, kind)
            of = ContinuousLevels if name == "continuous" else DiffusionVelocity
            measures.append(
                Measure(
                    of,
                    f"velocity from a prediction of {kind}, {name} levels, error",
                    max(error(velocity, t) for t in (0.1, 0.5, 0.9)),
                    1e-9,
                )
            )
    back = DiffusionVelocity(FlowAsDiffusion(batched, fine), fine)
    measures.append(
        Measure(FlowAsDiffusion, "a flow as a diffusion model and back, error", max(error(back, t) for t in (0.1, 0.5, 0.9)), 1e-9)
    )
    return Exhibit(figure, measures)


def total() -> Tensor:
    """Covariance of the mixture."""
    mean = MIXTURE.weights @ MIXTURE.means
    second = (MIXTURE.weights[:, None, None] * (MIXTURE.covariances + MIXTURE.means[:, :, None] * MIXTURE.means[:, None])).sum(0)
    return second - mean.outer(mean)


def batched(x: Tensor, t: Tensor) -> Tensor:
    """The exact velocity at times (B,)."""
    return torch.func.vmap(lambda state, time: ORACLE(state[None], time)[0])(x, t.expand(len(x)))
