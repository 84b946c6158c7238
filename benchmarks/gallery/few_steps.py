r"""Few-step maps

Left: how far few jumps of each learnt map end from a fine solve of the exact flow from the same noise, over the jumps; Euler's rule on the
exact velocity beside them. Others: samples of four modes in one jump, or in four of the phased map. Between Gaussians the map is
$X_{r,t}(x) = mt + (c_t/c_r)(x - mr)$, on which the identity behind each objective holds: the loss there is that of the finite steps that
some take.
"""

from __future__ import annotations

import copy
from itertools import pairwise

import torch
from torch import Tensor, nn

from benchmarks.gallery.exhibit import Exhibit, Measure, fitted, normal, panels, times
from constraints import Axis, Grid
from pcfm.flow_map import OBJECTIVES, Consistency, FlowMap, FlowMapObjective, Lagrangian, MeanFlow, Progressive, Shortcut
from pcfm.networks import Perceptron, TwoTimes
from pcfm.path import AffinePath, broadcast
from pcfm.report.look import COLOURS, GREY
from pcfm.samplers import Euler, RungeKutta4
from pcfm.velocity import GaussianFlow
from tests.oracles_gmm import Mixture, MixtureOracle

MODES = Mixture(
    torch.full((4,), 0.25, dtype=torch.float64),
    2**0.5 * torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64),
    0.18 * torch.eye(2, dtype=torch.float64).repeat(4, 1, 1),
)
ORACLE = MixtureOracle(MODES)
MEAN, STD = 0.7, 0.4


def gaussian(x: Tensor, r: Tensor, t: Tensor) -> Tensor:
    """The average velocity between standard normals and N(m, s²), its limit on the diagonal included."""

    def spread(at: Tensor) -> Tensor:
        return (1 - at).square() + at.square() * STD**2

    slope = ((t + r) * (1 + STD**2) - 2) / (spread(t).sqrt() + spread(r).sqrt())
    return MEAN + broadcast(slope / spread(r).sqrt(), x) * (x - broadcast(r, x) * MEAN)


def teacher(x: Tensor, t: Tensor) -> Tensor:
    """The exact velocity at times (B,), in single precision."""
    return torch.func.vmap(lambda state, time: ORACLE(state[None], time)[0])(x.double(), t.double().clamp(0, 0.9999)).float()


def learn(objective: FlowMapObjective, known: object, steps: int, width: int, batch: int, start: nn.Module | None = None) -> nn.Module:
    """A map of the four modes."""
    data = MODES.sample(50_000, 0).float()
    torch.manual_seed(0)
    network = copy.deepcopy(start) if start else TwoTimes(Perceptron(Grid(Axis("x", 2, periodic=True)), 1, width=width, times=2))

    def loss(learner: nn.Module, average: nn.Module, generator: torch.Generator) -> Tensor:
        x1 = data[torch.randint(0, len(data), (batch,), generator=generator)]
        x0 = torch.randn(x1.shape, generator=generator)
        return objective(FlowMap(learner), FlowMap(average), AffinePath(), x0, x1, generator, known).mean()  # type: ignore[arg-type]

    return fitted(network, loss, steps)


@torch.no_grad()
def jumped(network: nn.Module, x0: Tensor, number: int) -> Tensor:
    """Noise after so many jumps."""
    x = x0.float()
    for t, s in pairwise(torch.linspace(0, 1, number + 1)):
        x = FlowMap(network)(x, t.expand(len(x)), s.expand(len(x)))
    return x


def show(full: bool) -> Exhibit:
    steps, width, batch = (1500, 64, 256) if full else (60, 24, 64)
    maps = {
        "mean-flow": learn(MeanFlow(), None, steps, width, batch),
        "lagrangian": learn(Lagrangian(), None, steps, width, batch),
        "shortcut": learn(Shortcut(), None, steps, width, batch),
        "consistency": learn(Consistency(4, 64), teacher, steps, width, batch),
    }
    student, known = None, teacher
    for halved in (16, 8, 4, 2, 1):
        student = learn(Progressive(halved), known, 800 if full else 15, width, batch, student)
        known = FlowMap(student)  # type: ignore[assignment]
    assert student is not None
    maps["progressive"] = student
    jumps = {"mean-flow": (1, 2, 4, 8), "lagrangian": (1, 2, 4, 8), "shortcut": (1, 2, 4, 8), "consistency": (4,), "progressive": (1,)}
    x0 = normal(1000 if full else 100, 1, 2, seed=1)
    fine = RungeKutta4(ORACLE)(x0, times(100 if full else 40, last=0.9999))

    def error(x: Tensor) -> float:
        return float((x - fine).square().sum((1, 2)).mean().sqrt())

    figure, axes = panels(3, 2, 3.1, 2.9)
    euler = [error(Euler(ORACLE)(x0, times(n, last=0.9999))) for n in (1, 2, 4, 8)]
    axes[0].loglog((1, 2, 4, 8), euler, "--", color=GREY, label="Euler")
    measures = [Measure(Euler, "one step of the exact velocity to four modes", euler[0], 1.8, control=True)]
    loose = {"mean-flow": 0.8, "lagrangian": 0.6, "shortcut": 0.8, "consistency": 0.4, "progressive": 0.5}
    for i, (name, network) in enumerate(maps.items()):
        found = [error(jumped(network, x0, n)) for n in jumps[name]]
        axes[0].loglog(jumps[name], found, "o-", ms=4, color=COLOURS[i], label=name)
        axes[i + 1].plot(*jumped(network, x0, jumps[name][0])[:, 0].T, ".", ms=1.8, color=COLOURS[i])
        axes[i + 1].set(title=f"{name}, {jumps[name][0]}", xlim=(-3, 3), ylim=(-3, 3), aspect="equal")
        quantity = (
            f"distance from the flow's own end in {jumps[name][0]} jump{'s' if jumps[name][0] > 1 else ''}, of modes 2 from the middle"
        )
        measures.append(Measure(OBJECTIVES[name], quantity, found[0], loose[name] if full else 2.5))
    axes[0].set(xlabel="jumps", ylabel="distance from the exact end", xticks=(1, 2, 4, 8), xticklabels=("1", "2", "4", "8"))
    axes[0].minorticks_off()
    axes[0].set_yticks((0.2, 0.5, 1, 2), ("0.2", "0.5", "1", "2"))
    axes[0].legend(fontsize=7.5, loc="upper right")
    return Exhibit(figure, measures + identities())


def identities() -> list[Measure]:
    """Losses at the exact map of Gaussians: zero, up to the finite steps of some."""
    x0, x1 = normal(256, 1, 3, seed=2), MEAN + STD * normal(256, 1, 3, seed=3)
    exact, velocity, measures = FlowMap(gaussian), GaussianFlow(MEAN, STD), []
    for objective, bound in (
        (Lagrangian(share=0.0), 1e-20),
        (Progressive(4), 1e-20),
        (Shortcut(share=0.0, levels=6), 2e-4),
        (Consistency(2, 32), 1e-3),
    ):
        known = exact if isinstance(objective, Progressive) else velocity
        loss = objective(exact, exact, AffinePath(), x0, x1, torch.Generator().manual_seed(4), known).mean()
        measures.append(Measure(type(objective), "loss at the exact map of Gaussians", float(loss), bound))
    r, t = torch.rand(2, 256, generator=torch.Generator().manual_seed(5), dtype=torch.float64).sort(dim=0).values
    u, change = exact.material(x0, r, t, velocity(x0, r))
    span = broadcast(t - r, x0)
    measures.append(
        Measure(
            MeanFlow, "its identity on the exact map of Gaussians, error", float((u - velocity(x0, r) - span * change).abs().max()), 1e-10
        )
    )
    measures.append(
        Measure(MeanFlow, "with the sign of data at time 0", float((u - velocity(x0, r) + span * change).abs().max()), 0.5, control=True)
    )
    return measures
