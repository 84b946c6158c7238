r"""Rectified flow

Trajectories of the flow of independent pairs to eight modes, and of the flow learnt from the pairs that it makes: they no longer cross,
and one step nearly does. Straightness is $S = \int\mathrm E\|(x_1 - x_0) - v_t(x_t)\|^2dt$; between standard normals and
$\mathcal N(m, \Sigma)$ it is $(2 - \tfrac\pi2)\,\mathrm{tr}\,\Sigma^{1/2}$ for independent pairs, and what crosses on the paths, which is
the least loss of flow matching, $\tfrac\pi2\,\mathrm{tr}\,\Sigma^{1/2}$.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from benchmarks.gallery.exhibit import Exhibit, Measure, fitted, normal, panels, times
from constraints import Axis, Grid
from pcfm.coupling import Pairs, Rectified
from pcfm.networks import Perceptron
from pcfm.objective import flow_matching_loss, stratified_times
from pcfm.path import AffinePath
from pcfm.report.look import COLOURS, GREY
from pcfm.samplers import Heun
from pcfm.straightness import path_straightness, straightness
from pcfm.velocity import NetworkVelocity
from tests.oracles import Gaussian, GaussianOracle, root
from tests.oracles_gmm import Mixture, MixtureOracle

ANGLES = torch.arange(8, dtype=torch.float64) * math.pi / 4
MODES = Mixture(
    torch.full((8,), 1 / 8, dtype=torch.float64),
    3 * torch.stack([ANGLES.cos(), ANGLES.sin()], dim=1),
    0.05 * torch.eye(2, dtype=torch.float64).expand(8, 2, 2),
)
COVARIANCE = torch.tensor([[0.5, 0.2], [0.2, 0.3]], dtype=torch.float64)
TARGET = Gaussian(torch.tensor([0.5, -1.0], dtype=torch.float64), COVARIANCE)


def show(full: bool) -> Exhibit:
    oracle = MixtureOracle(MODES)
    first = lambda x, t: oracle(x, t.clamp_max(0.999))  # noqa: E731
    x0 = normal(20_000 if full else 500, 1, 2, seed=0)
    x1 = Heun(first)(x0, times(60 if full else 20))
    coupling = Rectified(Pairs(x0.float(), x1.float(), None))

    def loss(network: nn.Module, average: nn.Module, generator: torch.Generator) -> Tensor:
        size = 512 if full else 64
        blank = torch.zeros(size, 1, 2)
        pairs = coupling(blank, blank, None, generator)
        return flow_matching_loss(network, AffinePath(), pairs.x0, pairs.x1, stratified_times(size, generator)).mean()

    torch.manual_seed(0)
    network = fitted(Perceptron(Grid(Axis("x", 2, periodic=True)), 1, width=128 if full else 48), loss, 3000 if full else 250)
    second = NetworkVelocity(network)
    figure, axes = panels(3, 1, 3.0, 3.0, sharex=True, sharey=True)
    for panel, title, velocity in ((axes[0], "independent pairs", first), (axes[1], "its own pairs", second)):
        with torch.no_grad():
            states = torch.stack([x[:, 0] for x in Heun(velocity).iterate(x0[:60], times(40))])
        panel.plot(states[..., 0], states[..., 1], color=GREY, lw=0.5)
        panel.plot(*states[-1].T, ".", color=COLOURS[0])
        panel.set(title=title, aspect="equal")
    with torch.no_grad():
        once = x0[:500] + second(x0[:500], torch.zeros((), dtype=torch.float64))
    axes[2].plot(*once[:, 0].T, ".", ms=2.5, color=COLOURS[1])
    axes[2].set(title="one step of the second", aspect="equal")
    some = x0[:400]
    before, after = straightness(first, some), straightness(second, some)
    noise = normal(4000 if full else 800, 2, seed=3)
    noise = noise - noise.mean(0)
    noise = torch.linalg.solve_triangular(torch.linalg.cholesky(noise.T @ noise / len(noise)), noise.T, upper=False).T[:, None]
    trace, flow = float(root(COVARIANCE).trace()), GaussianOracle(TARGET)
    many = normal(200_000 if full else 20_000, 1, 2, seed=4), normal(200_000 if full else 20_000, 1, 2, seed=5)
    crossing = path_straightness(flow, AffinePath(), many[0], TARGET.mean + many[1] @ root(COVARIANCE))
    ratio = after.deviation / before.deviation
    measures = [
        Measure(straightness, "S of a Gaussian flow", straightness(flow, noise).deviation, 1e-3, exact=(2 - math.pi / 2) * trace),
        Measure(path_straightness, "what crosses of independent pairs", crossing, 0.05, exact=math.pi / 2 * trace),
        Measure(Rectified, "S after one rectification over S before", ratio, 0.01 if full else 0.3),
        Measure(Rectified, "error of one step, after over before", after.one_step / before.one_step, 0.12 if full else 0.5),
        Measure(Rectified, "S before", before.deviation, 1.0, control=True),
    ]
    return Exhibit(figure, measures)
