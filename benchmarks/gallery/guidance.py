r"""Guidance

A mixture of three modes, tilted by $e^{-J}$ with $J$ the misfit of one noisy reading, which makes another mixture in closed form
(contours). Dots are samples of the guided flow, from one noise. Monte-Carlo and learnt guidance find it; gradients of the energy overshoot
into low energies, and the gradient at the state itself tilts nothing. Of Gaussian fields under a linear energy the local gradient is
exact.
"""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.gallery.exhibit import Exhibit, Measure, at, normal, panels, times
from constraints import Axis, Grid
from pcfm.guidance import (
    ClassifierFree,
    FunctionEnergy,
    Guidance,
    GuidedVelocity,
    IsotropicGradient,
    LocalGradient,
    MonteCarlo,
    VelocityDrift,
    learn_guidance,
)
from pcfm.networks import Perceptron
from pcfm.path import AffinePath
from pcfm.report.look import COLOURS, GREY
from pcfm.samplers import Heun, RungeKutta4
from pcfm.velocity import GaussianFlow
from tests.oracles import Gaussian, GaussianOracle
from tests.oracles_gmm import Mixture, MixtureOracle

MIXTURE = Mixture(
    torch.tensor([0.3, 0.5, 0.2], dtype=torch.float64),
    torch.tensor([[-2.0, 0.5], [1.5, 1.0], [0.5, -2.0]], dtype=torch.float64),
    torch.stack([torch.diag(torch.tensor(d, dtype=torch.float64)) for d in ([0.2, 0.1], [0.1, 0.3], [0.15, 0.15])]),
)
ROW, SEEN, VARIANCE = torch.tensor([[1.0, 0.3]], dtype=torch.float64), torch.tensor([0.0], dtype=torch.float64), 1.5
TILTED = MIXTURE.given(ROW, SEEN, VARIANCE)
ENERGY = FunctionEnergy(lambda u: (u[:, 0] @ ROW.T - SEEN).square().sum(1) / (2 * VARIANCE))
ORACLE = MixtureOracle(MIXTURE)


def velocity(x: Tensor, t: Tensor) -> Tensor:
    """The exact one at times (B,)."""
    return torch.func.vmap(lambda state, time: ORACLE(state[None], time)[0])(x, t)


def show(full: bool) -> Exhibit:
    draws = MIXTURE.sample(4_000 if full else 2_000, 0)
    torch.manual_seed(0)
    network = Perceptron(Grid(Axis("x", 2, periodic=True)), 1, width=96 if full else 32)
    learnt = learn_guidance(network, velocity, AffinePath(), draws, ENERGY, steps=2000 if full else 150, batch=256 if full else 128)
    guidances: dict[str, Guidance] = {
        "Monte Carlo": MonteCarlo(draws, ENERGY(draws)),
        "learnt": learnt,
        "local gradient": LocalGradient(ENERGY),
        "gradient at the state": VelocityDrift(ENERGY),
    }
    bounds = {"Monte Carlo": 0.1 if full else 0.2, "learnt": 0.15 if full else 0.6, "local gradient": 0.1, "gradient at the state": 0.1}
    figure, axes = panels(5, 1, 2.4, 2.5, sharex=True, sharey=True)
    x0, grid = normal(800 if full else 200, 1, 2, seed=1), times(40 if full else 12, last=0.999)
    measures = []
    for panel, (name, guidance) in zip(axes, {"no guidance": None, **guidances}.items(), strict=True):
        guided = ORACLE if guidance is None else GuidedVelocity(ORACLE, AffinePath(), [guidance])
        contours(panel)
        panel.plot(*Heun(guided)(x0, grid)[:, 0].T, ".", ms=1.6, color=GREY if guidance is None else COLOURS[0])
        panel.set(title=name, xlim=(-3.6, 3.6), ylim=(-3.6, 3.6), aspect="equal")
        if guidance is not None:
            approximate = name in ("local gradient", "gradient at the state")
            measures.append(
                Measure(type(guidance), "velocity to a tilted mixture, relative error", error(guidance), bounds[name], control=approximate)
            )
    return Exhibit(figure, measures + gaussian())


def contours(panel: object) -> None:
    """Of the tilted density."""
    line = torch.linspace(-3.6, 3.6, 61, dtype=torch.float64)
    law = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(TILTED.weights), torch.distributions.MultivariateNormal(TILTED.means, TILTED.covariances)
    )
    density = law.log_prob(torch.cartesian_prod(line, line)).exp().reshape(61, 61).T
    panel.contour(line, line, density, levels=[0.01, 0.05, 0.15], colors=COLOURS[1], linewidths=0.9)  # type: ignore[attr-defined]


def error(guidance: Guidance) -> float:
    """Of the guided velocity on states of the tilted flow, over three times."""
    off, size = 0.0, 0.0
    for t in (0.2, 0.5, 0.8):
        x = t * TILTED.sample(300, 2) + (1 - t) * normal(300, 1, 2, seed=3)
        exact = MixtureOracle(TILTED)(x, at(t))
        off += float((GuidedVelocity(ORACLE, AffinePath(), [guidance])(x, at(t)) - exact).square().sum())
        size += float(exact.square().sum())
    return (off / size) ** 0.5


def gaussian() -> list[Measure]:
    """Linear energies of Gaussian fields, and classifier-free guidance between two."""
    factor, slope, x = normal(5, 5, seed=4), normal(5, seed=5), normal(20, 1, 5, seed=6)
    covariance = factor @ factor.T / 5 + 0.1 * torch.eye(5, dtype=torch.float64)
    linear = FunctionEnergy(lambda u: u[:, 0] @ slope)

    def off(guidance: Guidance, spread: Tensor) -> float:
        prior, tilted = (Gaussian(mean, spread) for mean in (torch.zeros(5, dtype=torch.float64), -spread @ slope))
        guided = GuidedVelocity(GaussianOracle(prior), AffinePath(), [guidance])
        return max(float((guided(x, at(t)) - GaussianOracle(tilted)(x, at(t))).abs().max()) for t in (0.1, 0.5, 0.9))

    guided = ClassifierFree(GaussianFlow(0.0, 0.25), GaussianFlow(0.0, 0.8), 2.5)
    scale = float(RungeKutta4(guided)(torch.ones(1, 1, 1, dtype=torch.float64), times(400)))
    return [
        Measure(LocalGradient, "Gaussian fields, linear energy, error", off(LocalGradient(linear), covariance), 1e-12),
        Measure(
            IsotropicGradient,
            "isotropic fields, linear energy, error",
            off(IsotropicGradient(linear, 0.7), 0.49 * torch.eye(5, dtype=torch.float64)),
            1e-12,
        ),
        Measure(VelocityDrift, "Gaussian fields, linear energy", off(VelocityDrift(linear), covariance), 0.1, control=True),
        Measure(ClassifierFree, "spread between two Gaussian flows, weight 2.5", scale, 1e-6, exact=0.25**2.5 * 0.8**-1.5),
    ]
