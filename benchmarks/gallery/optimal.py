r"""Optimal flow matching

A convex potential learns the optimal map to a Gaussian from the worst pairs there are, $x_1 = m - \Sigma^{1/2}x_0$: lines join noise and
where it is taken. Left the pairs it saw, middle where it takes noise, right its error while training, as a share of the variance of the
data. Ordinary flow matching would learn the pairs.
"""

from __future__ import annotations

import torch
from matplotlib.collections import LineCollection
from torch import Tensor

from benchmarks.gallery.exhibit import Exhibit, Measure, normal, panels
from pcfm.optimal_flow import ConvexPotential, OptimalFlow
from pcfm.report.look import COLOURS, GREY
from tests.oracles import root

COVARIANCE = torch.tensor([[0.8, 0.3], [0.3, 0.4]], dtype=torch.float64)
MEAN, HALF = torch.tensor([1.5, -1.0], dtype=torch.float64), root(COVARIANCE)


def best(x0: Tensor) -> Tensor:
    """The optimal map."""
    return MEAN + x0 @ HALF


def show(full: bool) -> Exhibit:
    steps, batch = (400, 256) if full else (40, 64)
    torch.manual_seed(0)
    potential = ConvexPotential(2, width=32, depth=2).double()
    flow, probe = OptimalFlow(potential), normal(1000, 1, 2, seed=1)
    optimizer, generator = torch.optim.Adam(potential.parameters(), lr=0.03), torch.Generator().manual_seed(2)
    history: list[tuple[int, float]] = []

    def unexplained() -> float:
        return float((flow.push(probe).detach() - best(probe)).square().sum((1, 2)).mean() / COVARIANCE.trace())

    for step in range(steps):
        if step % (steps // 20) == 0:
            history.append((step, unexplained()))
        optimizer.param_groups[0]["lr"] = 0.03 * (1 - step / steps)
        x0 = torch.randn(batch, 1, 2, generator=generator, dtype=torch.float64)
        t = torch.rand(batch, generator=generator, dtype=torch.float64)
        optimizer.zero_grad()
        flow.loss(x0, MEAN - x0 @ HALF, t).mean().backward()
        optimizer.step()
    history.append((steps, unexplained()))
    figure, axes = panels(3, 1, 3.0, 2.7)
    x0 = 1.0 * probe[:80]
    pushed = flow.push(x0).detach()
    for panel, title, x1 in ((axes[0], "pairs it saw", MEAN - x0 @ HALF), (axes[1], "what it learnt", pushed)):
        panel.add_collection(LineCollection(torch.stack([x0[:, 0], x1[:, 0]], 1).tolist(), colors=GREY, linewidths=0.4))
        panel.plot(*x0[:, 0].T, ".", ms=4, color=COLOURS[0])
        panel.plot(*x1[:, 0].T, ".", ms=4, color=COLOURS[1])
        panel.set(title=title, aspect="equal")
    axes[2].semilogy(*zip(*history, strict=True), "o-", ms=3)
    axes[2].set(title="unexplained variance", xlabel="training steps")
    back = float((flow.inverse(pushed) - x0).abs().max())
    anti = float((MEAN - probe @ HALF - best(probe)).square().sum((1, 2)).mean() / COVARIANCE.trace())
    measures = [
        Measure(OptimalFlow, "unexplained variance of the optimal map, from anti-optimal pairs", history[-1][1], 0.02 if full else 0.8),
        Measure(OptimalFlow, "of the pairs themselves", anti, 1.0, control=True),
        Measure(OptimalFlow, "there and back, error", back, 1e-4),
        Measure(ConvexPotential, "least curvature at random points below 0", max(0.0, -curvature(potential)), 1e-12),
    ]
    return Exhibit(figure, measures)


def curvature(potential: ConvexPotential) -> float:
    """The least eigenvalue of the Hessian at some points."""
    points = 3 * normal(200, 2, seed=5)
    hessian = torch.func.vmap(torch.func.hessian(lambda z: potential(z.reshape(1, 1, 2))[0]))(points).detach()
    return float(torch.linalg.eigvalsh(hessian).min())
