r"""Couplings

Which noise meets which data, on the plane: lines join the pairs of one batch. On a line, between $\mathcal N(0, 1)$ and
$\mathcal N(0, \tfrac14)$, what pairs cost and how their ends are correlated is known: independent pairs cost $1 + \tfrac14$, those of
optimal transport $(1 - \tfrac12)^2$, and ends of the plan with entropy $\varepsilon = 2\sigma^2$ have the covariance
$(\sqrt{1 + \sigma^4} - \sigma^2)/2$. Batches are grids of quantiles, so that no sampling error hides an error of the plan. Unbalanced
transport leaves a far cluster out that has a tenth of the data. Pairs of a model are in the section on rectified flows.
"""

from __future__ import annotations

import math

import torch
from matplotlib.collections import LineCollection
from torch import Tensor

from benchmarks.gallery.exhibit import Exhibit, Measure, normal, panels
from pcfm.coupling import Coupling, EntropicTransport, Independent, OptimalTransport, SchroedingerBridge, UnbalancedTransport
from pcfm.report.look import COLOURS, GREY

SHOWN: dict[str, Coupling] = {
    "independent": Independent(),
    "optimal-transport": OptimalTransport(),
    "entropic": EntropicTransport(0.5),
    "unbalanced": UnbalancedTransport(0.2, 0.5),
}


def quantiles(count: int, std: float) -> Tensor:
    """A sample of $\\mathcal N(0, s^2)$ without the noise of sampling, (count, 1)."""
    x = torch.special.ndtri((torch.arange(count, dtype=torch.float64) + 0.5) / count)[:, None]
    return std * x / x.square().mean().sqrt()


def cluster(count: int) -> Tensor:
    """Two near modes and, in a tenth of the data, a far one."""
    mode = torch.arange(count) % 10
    centre = torch.where(
        (mode == 9)[:, None],
        torch.tensor([6.0, -1.5]),
        torch.where((mode % 2 == 0)[:, None], torch.tensor([2.5, 1.0]), torch.tensor([2.5, -1.0])),
    )
    return centre.double() + 0.25 * normal(count, 2, seed=1)


def show(full: bool) -> Exhibit:
    figure, axes = panels(len(SHOWN), 1, 2.7, 2.3, sharex=True, sharey=True)
    x0, x1 = 0.6 * normal(120, 2, seed=0), cluster(120)
    for panel, (name, coupling) in zip(axes, SHOWN.items(), strict=True):
        made = coupling(x0, x1, None, torch.Generator().manual_seed(2))
        panel.add_collection(LineCollection(torch.stack([made.x0, made.x1], 1).tolist(), colors=GREY, linewidths=0.4))
        panel.plot(*x0.T, ".", ms=4, color=COLOURS[0])
        panel.plot(*x1.T, ".", ms=4, color=COLOURS[1])
        panel.set_title(name)
    return Exhibit(figure, measures(400 if full else 150))


def measures(count: int) -> list[Measure]:
    noise, data, generator = quantiles(count, 1.0), quantiles(count, 0.5), torch.Generator().manual_seed(3)
    mixed = noise[torch.randperm(count, generator=generator)]

    def cost(coupling: Coupling) -> float:
        made = coupling(mixed, data, None, generator)
        return float((made.x0 - made.x1).square().mean())

    def covariance(regularisation: float) -> float:
        return float((noise.T @ EntropicTransport(regularisation).plan(noise, data) @ data).item())

    sigma = 0.8
    exact = (math.sqrt(1 + sigma**4) - sigma**2) / 2
    drawn = [SchroedingerBridge(sigma)(noise, data, None, generator) for _ in range(20)]
    far = UnbalancedTransport(0.2, 0.5)(0.6 * normal(120, 2, seed=0), cluster(120), None, generator).x1[:, 0] > 4.5
    return [
        Measure(Independent, "mean squared distance of pairs on a line", cost(Independent()), 0.2, exact=1.25),
        Measure(OptimalTransport, "mean squared distance of pairs on a line", cost(OptimalTransport()), 2e-3, exact=0.25),
        Measure(EntropicTransport, "covariance of the ends", covariance(2 * sigma**2), 2e-3, exact=exact),
        Measure(EntropicTransport, "half the regularisation", covariance(sigma**2), 0.02, exact=exact, control=True),
        Measure(
            SchroedingerBridge,
            "covariance of drawn ends",
            float(torch.stack([(p.x0 * p.x1).mean() for p in drawn]).mean()),
            0.02,
            exact=exact,
        ),
        Measure(UnbalancedTransport, "share of the far cluster among pairs", float(far.double().mean()), 0.01),
    ]
