r"""Error reports

A velocity that is off by a known field: left, the error that its trajectories carry to the end to first order, over the true one, sample
by sample; trajectories that change modes are beyond first order. Middle: its size over flow time, known, and as held-out data tell it.
Right: the error of the steps of three rules and what doubling the steps says of it. The bound by logarithmic norms holds, and is far too
large.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from benchmarks.gallery.exhibit import Exhibit, Measure, at, normal, panels, times
from constraints import Axis, Grid
from pcfm.discretisation import discretisation_error
from pcfm.errors import EmpiricalVelocity, regression, transport_bound
from pcfm.generation import sample
from pcfm.path import AffinePath
from pcfm.report.look import COLOURS, GREY
from pcfm.samplers import RungeKutta4
from pcfm.schedule import Cosine
from pcfm.shelf import wrap
from pcfm.velocity import GaussianFlow
from tests.oracles_gmm import Mixture, MixtureOracle

MIXTURE = Mixture(
    torch.tensor([0.4, 0.6], dtype=torch.float64),
    torch.tensor([[-1.5, 0.5], [1.0, -0.5]], dtype=torch.float64),
    torch.tensor([[[0.3, 0.1], [0.1, 0.2]], [[0.2, -0.05], [-0.05, 0.4]]], dtype=torch.float64),
)
ORACLE = MixtureOracle(MIXTURE)


def perturbed(x: Tensor, t: Tensor) -> Tensor:
    """The exact velocity, and a field of size 0.02."""
    return ORACLE(x, t) + 0.02 * torch.sin(3 * x.flip(-1) + t)


class Known(nn.Module):
    """The exact velocity to narrower normals on the cosine path."""

    def __init__(self) -> None:
        super().__init__()
        self.flow = GaussianFlow(0.5, 0.3, AffinePath(Cosine()))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.flow(x, t)


def show(full: bool) -> Exhibit:
    x0, grid = normal(1000 if full else 80, 1, 2, seed=0), times(30, last=0.999)
    found = regression(perturbed, ORACLE, x0, grid)
    ends = [RungeKutta4(velocity)(x0, grid) for velocity in (ORACLE, perturbed)]
    true = (ends[0] - ends[1]).square().flatten(1).mean(1).sqrt()
    figure, (left, middle, right) = panels(3, 1, 3.2, 2.8)
    left.loglog(true, found.propagated, ".", ms=2.5, color=COLOURS[0])
    left.plot((1e-3, 1), (1e-3, 1), ":", color="k", lw=0.8)
    left.set(xlabel="true error", ylabel="to first order", title="errors at the end")
    data = EmpiricalVelocity(MIXTURE.sample(20_000 if full else 1_000, 1), AffinePath())
    early = times(24, last=0.85)
    told = regression(perturbed, data, x0[:200], early)
    middle.plot(grid[:-1], found.error, color=GREY, label="known")
    middle.plot(early[:-1], told.error, "o", ms=3, color=COLOURS[0], label="by held-out data")
    middle.set(xlabel="t", title="error of the velocity", ylim=(0, 0.06 if full else 0.3))
    middle.legend()
    flow = wrap(Known(), grid=Grid(Axis("x", 4, periodic=True)), path="cosine")
    measures = []
    for colour, rule in zip(COLOURS, ("euler", "heun", "rk4"), strict=False):
        said, was = [], []
        counts = (10, 20, 40, 80) if full else (20, 40)
        for steps in counts:
            drawn, fine = (sample(flow, 16, steps=n, solver=rule, dtype=torch.float64) for n in (steps, 640))
            estimate = discretisation_error(flow, drawn, 16, steps=steps, solver=rule, dtype=torch.float64)
            assert estimate is not None
            said.append(estimate.relative)
            was.append(float((drawn.u - fine.u).square().mean().sqrt()))
        right.loglog(counts, was, "-", color=colour, label=rule)
        right.loglog(counts, said, "o", ms=4, color=colour)
        measures.append(Measure(discretisation_error, f"estimated over true error of the steps, {rule}", said[1] / was[1], 0.1, exact=1.0))
    right.set(xlabel="steps", title="error of the steps, and estimates")
    right.set_xticks(counts, [str(n) for n in counts])
    right.minorticks_off()
    right.legend()
    bound, coupled = transport_bound(perturbed, ORACLE, x0[:80], grid), float((ends[0] - ends[1]).square().flatten(1).sum(1).mean().sqrt())
    a, shift, line = 0.8, 0.1, times(200)
    sharp = transport_bound(lambda x, t: a * x + shift, lambda x, t: a * x, x0[:16], line)
    exact = MIXTURE.sample(200, 2) * 0.5 + 0.5 * normal(200, 1, 2, seed=3)
    away = float((data(exact, at(0.5)) - ORACLE(exact, at(0.5))).square().mean().sqrt())
    measures += [
        Measure(regression, "first-order over true error at the end, median", float((found.propagated / true).median()), 0.05, exact=1.0),
        Measure(EmpiricalVelocity, "of many data, distance from that of their distribution", away, 0.05 if full else 0.2),
        Measure(transport_bound, "true error over the bound", min(1.0, coupled / bound), 1.0),
        Measure(
            transport_bound,
            "of a constant error of a linear flow",
            sharp,
            2e-3,
            exact=shift * 2**0.5 * (float(torch.tensor(a).exp()) - 1) / a,
        ),
    ]
    return Exhibit(figure, measures)
