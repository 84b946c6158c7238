"""Couplings against sorted pairs, assignments and the closed form of the Gaussian Schrödinger bridge; runs that use them."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

import pcfm
import pcfm.coupling
from constraints import Axis, Grid
from pcfm.configuration import COUPLINGS, read_experiment
from pcfm.coupling import (
    Coupling,
    EntropicTransport,
    Independent,
    OptimalTransport,
    Pairs,
    Rectified,
    SchroedingerBridge,
    UnbalancedTransport,
    assignment,
    squared_distances,
)
from pcfm.experiment import fit
from pcfm.objective import bridge_score_loss
from pcfm.path import AffinePath, BridgePath
from pcfm.samplers import BridgeDiffusion, Euler, Heun
from pcfm.shelf import load
from pcfm.training import TrainingSettings
from pcfm.velocity import GaussianFlow
from pde_datasets import Fields


def normal(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- exact assignment --------------------------------------------------------------------------------------------------------------


def test_transport_on_a_line_pairs_in_order_and_moves_noise_alone() -> None:
    x0, x1 = normal((64, 1, 1), 0), normal((64, 1, 1), 1)
    made = OptimalTransport()(x0, x1, None, generator())
    assert torch.equal(made.x1, x1)
    assert torch.equal(made.x0.flatten()[made.x1.flatten().argsort()], x0.flatten().sort().values)


@pytest.mark.parametrize("shape", [(32, 5), (32, 2, 3, 4)], ids=str)
def test_transport_is_the_cheapest_permutation_of_any_shape(shape: tuple[int, ...]) -> None:
    x0, x1 = normal(shape, 2), normal(shape, 3)
    made = OptimalTransport()(x0, x1, None, generator())
    assert made.x0.shape == shape
    cost = torch.cdist(x0.flatten(1), x1.flatten(1)).square()
    rows, columns = linear_sum_assignment(cost.numpy())
    paid = (made.x0 - x1).square().sum()
    assert paid.item() == pytest.approx(cost.numpy()[rows, columns].sum(), rel=1e-12)
    assert paid < 0.99 * (x0 - x1).square().sum()
    index = torch.cdist(made.x0.flatten(1), x0.flatten(1)).argmin(1)
    assert sorted(index.tolist()) == list(range(32)), "with replacement about a third would be missing"


def test_squared_distances_and_the_assignment_they_cost() -> None:
    a, b = normal((7, 2, 3), 4), normal((5, 2, 3), 5)
    assert torch.allclose(squared_distances(a, b), (a[:, None] - b[None]).square().sum((2, 3)), atol=1e-12)
    cost = torch.tensor([[1.0, 0.0, 9.0], [9.0, 9.0, 0.0], [0.0, 9.0, 9.0]])
    assert assignment(cost).tolist() == [2, 0, 1]


def test_pairs_of_a_batch_cost_more_than_transport_less_than_chance() -> None:
    """In 8 dimensions, between N(0, 1) and N(0, 1/4): the true cost is 8 (1 - 1/2)² = 2, that of 128 pairs some 40 % more."""
    x0, x1 = normal((128, 8), 6), 0.5 * normal((128, 8), 7)
    paid = (OptimalTransport()(x0, x1, None, generator()).x0 - x1).square().sum(1).mean().item()
    assert 2.0 < paid < 4.5
    assert (x0 - x1).square().sum(1).mean().item() == pytest.approx(10.0, rel=0.1)


def test_conditions_are_refused_unless_transport_is_told() -> None:
    x0, x1 = normal((48, 1, 2), 8), normal((48, 1, 2), 9)
    label = (torch.arange(48) % 3).double().reshape(48, 1, 1).expand(48, 1, 2)
    with pytest.raises(ValueError, match=r"biased.*ignore, weigh, equal"):
        OptimalTransport()(x0, x1, label, generator())

    def exchanged(coupling: OptimalTransport) -> float:
        """How many pairs took noise from another condition's place."""
        made = coupling(x0, x1, label, generator())
        assert made.condition is label
        source = (made.x0[:, None] - x0[None]).square().sum((2, 3)).argmin(1)
        return (label[source, 0, 0] != label[:, 0, 0]).double().mean().item()

    assert exchanged(OptimalTransport("ignore")) > 0.4
    assert exchanged(OptimalTransport("equal")) == 0
    assert exchanged(OptimalTransport("weigh", weight=1e-3)) > exchanged(OptimalTransport("weigh", weight=0.3))
    assert exchanged(OptimalTransport("weigh", weight=1e3)) == 0


def test_within_equal_conditions_transport_is_that_of_each_group() -> None:
    x0, x1 = normal((30, 1, 1), 10), normal((30, 1, 1), 11)
    label = (torch.arange(30) % 2).double().reshape(30, 1, 1)
    made = OptimalTransport("equal")(x0, x1, label, generator())
    for group in (0, 1):
        here = label.flatten() == group
        assert torch.equal(made.x0[here].flatten()[x1[here].flatten().argsort()], x0[here].flatten().sort().values)


# --- plans -------------------------------------------------------------------------------------------------------------------------


def quantiles(count: int, std: float) -> Tensor:
    """The quantiles of N(0, std²), (count, 1): a sample without the noise of sampling."""
    x = torch.special.ndtri((torch.arange(count, dtype=torch.float64) + 0.5) / count)[:, None]
    return std * x / x.square().mean().sqrt()


def bridge_covariance(noise: float, std0: float, std1: float) -> float:
    r"""Of the ends of the Schrödinger bridge between $\mathcal N(0, s_0^2)$ and $\mathcal N(0, s_1^2)$:
    $(\sqrt{4 s_0^2 s_1^2 + \sigma^4} - \sigma^2)/2$."""
    return (math.sqrt(4 * std0**2 * std1**2 + noise**4) - noise**2) / 2


def test_the_entropic_plan_is_that_of_the_bridge() -> None:
    """Its covariance on a grid of quantiles is the closed form; with half the regularisation it is not."""
    pytest.importorskip("ot")
    x0, x1, noise = quantiles(400, 1.0), quantiles(400, 0.5), 1.0
    plan = EntropicTransport(2 * noise**2).plan(x0, x1)
    assert plan.sum().item() == pytest.approx(1, abs=1e-7)
    assert (x0.T @ plan @ x1).item() == pytest.approx(bridge_covariance(noise, 1.0, 0.5), rel=2e-3)
    wrong = EntropicTransport(noise**2).plan(x0, x1)
    assert (x0.T @ wrong @ x1).item() > 1.3 * bridge_covariance(noise, 1.0, 0.5)


def test_pairs_are_drawn_from_the_plan() -> None:
    pytest.importorskip("ot")
    x0, x1, noise = quantiles(200, 1.0), quantiles(200, 0.5), 0.7
    made = [SchroedingerBridge(noise)(x0, x1, None, generator(seed)) for seed in range(30)]
    assert all(torch.equal(pairs.x1, x1) for pairs in made)
    covariance = torch.stack([(pairs.x0 * pairs.x1).mean() for pairs in made]).mean().item()
    assert covariance == pytest.approx(bridge_covariance(noise, 1.0, 0.5), rel=0.03)
    assert torch.equal(made[0].x0, SchroedingerBridge(noise)(x0, x1, None, generator(0)).x0)
    assert not torch.equal(made[0].x0, made[1].x0)
    straight = SchroedingerBridge(noise, exact=True)(x0, x1, None, generator())
    assert (straight.x0 * straight.x1).mean().item() == pytest.approx(0.5, rel=0.02)


def test_an_unbalanced_plan_leaves_outliers_out_and_conditions_follow_their_data() -> None:
    pytest.importorskip("ot")
    x0, x1 = 0.1 * normal((40, 1), 12), 0.1 * normal((40, 1), 13)
    x1[:4] += 4
    condition = torch.arange(40.0)[:, None]
    made = UnbalancedTransport(0.5, 0.5, "ignore")(x0, x1, condition, generator())
    assert made.condition is not None
    assert (x1[made.condition[:, 0].long()] == made.x1).all()
    assert (made.x1 > 2).sum() == 0
    share = UnbalancedTransport(2.0, 100.0).plan(x0, x1).sum(0)
    assert (share[:4] > 0.5 / 40).all()
    assert (UnbalancedTransport(0.5, 0.5).plan(x0, x1).sum(0)[:4] < 1e-3 / 40).all()
    with pytest.raises(ValueError, match=r"Raise coupling.regularisation"):
        UnbalancedTransport(1e-3, 1e6).plan(x0, 100 * x1)


def test_plans_name_the_extra_that_they_need(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "ot", None)
    with pytest.raises(ValueError, match=r"POT.*pcfm\[transport\]"):
        EntropicTransport()(normal((3, 1), 14), normal((3, 1), 15), None, generator())


@pytest.mark.parametrize(
    ("coupling", "message"),
    [
        (EntropicTransport(1e-3), r"with 0.001 POT has not converged. Raise coupling.regularisation.$"),
        (SchroedingerBridge(0.02), r"with 0.0008 POT has not converged. Raise coupling.noise, .*coupling.exact=true.$"),
    ],
)
def test_plans_that_are_not_found_say_which_setting_helps(coupling: Coupling, message: str) -> None:
    """The helping settings do help."""
    pytest.importorskip("ot")
    x0, x1 = 5 * normal((32, 8), 16), 5 * normal((32, 8), 17)
    with pytest.raises(ValueError, match=message):
        coupling(x0, x1, None, generator())
    for helped in (EntropicTransport(1e3), SchroedingerBridge(30.0), SchroedingerBridge(0.02, exact=True)):
        assert helped(x0, x1, None, generator()).x0.shape == x0.shape


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OptimalTransport("maybe"), "conditioned among"),
        (lambda: OptimalTransport(weight=-1.0), "weight"),
        (lambda: EntropicTransport(0.0), "positive regularisation"),
        (lambda: UnbalancedTransport(1.0, 0.0), "positive marginals"),
        (lambda: SchroedingerBridge(-1.0), "positive noise"),
        (lambda: Independent()(normal((3, 1), 0), normal((4, 1), 0), None, generator()), "as much noise as data"),
        (lambda: OptimalTransport()(normal((3, 1), 0), normal((4, 1), 0), None, generator()), "as much noise as data"),
    ],
)
def test_couplings_without_a_meaning_are_refused(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]


# --- bridges -----------------------------------------------------------------------------------------------------------------------


class Bridge:
    r"""The Gaussian Schrödinger bridge between N(0, 1) and N(0, s²), in closed form: variance, velocity and score at all times."""

    def __init__(self, noise: float, std: float) -> None:
        self.noise, self.std, self.covariance = noise, std, bridge_covariance(noise, 1.0, std)

    def variance(self, t: Tensor) -> Tensor:
        return (1 - t) ** 2 + t**2 * self.std**2 + 2 * t * (1 - t) * self.covariance + self.noise**2 * t * (1 - t)

    def velocity(self, x: Tensor, t: Tensor) -> Tensor:
        rate = -2 * (1 - t) + 2 * t * self.std**2 + (1 - 2 * t) * (2 * self.covariance + self.noise**2)
        return rate / (2 * self.variance(t)) * x

    def correction(self, x: Tensor, t: Tensor) -> Tensor:
        """Half the squared noise times the score."""
        return -(self.noise**2) / 2 * x / self.variance(t)

    def drift(self, x: Tensor, t: Tensor) -> Tensor:
        """From the ends: E[(x1 - x_t)/(1 - t) | x_t]."""
        cross = t * self.std**2 + (1 - t) * self.covariance
        return (cross / self.variance(t) - 1) / (1 - t) * x


def test_velocity_and_score_make_the_drift_of_the_bridge() -> None:
    bridge, x = Bridge(0.8, 0.5), normal((50, 1), 16)
    for t in (0.1, 0.4, 0.9):
        time = torch.tensor(t, dtype=torch.float64)
        made = bridge.velocity(x, time) + bridge.correction(x, time)
        assert torch.allclose(made, bridge.drift(x, time), rtol=0, atol=1e-12)
        assert not torch.allclose(bridge.velocity(x, time) + bridge.correction(x, time) / 0.8, bridge.drift(x, time), atol=1e-2)


def test_both_objectives_of_a_bridge_are_least_at_its_velocity_and_score() -> None:
    """Regression on samples of the path, slope by slope, finds the closed forms."""
    bridge, count, noise = Bridge(0.8, 0.5), 400_000, 0.8
    x0 = normal((count, 1), 17)
    x1 = bridge.covariance * x0 + math.sqrt(0.25 - bridge.covariance**2) * normal((count, 1), 18)
    path = BridgePath(noise).drawn(lambda: normal((count, 1), 19))
    for t in (0.15, 0.5, 0.8):
        time = torch.tensor(t, dtype=torch.float64)
        x_t, u = path.sample(x0, x1, time)
        assert x_t.var().item() == pytest.approx(bridge.variance(time).item(), rel=0.01)
        slope = (x_t * u).mean() / x_t.square().mean()
        assert slope.item() == pytest.approx(bridge.velocity(torch.ones(1, dtype=torch.float64), time).item(), abs=0.02)
        loss = bridge_score_loss(bridge.correction, path, x0, x1, time).mean()
        for factor in (0.9, 1.1):
            assert loss < bridge_score_loss(lambda x, t, f=factor: f * bridge.correction(x, t), path, x0, x1, time).mean()  # type: ignore[misc]
    with pytest.raises(ValueError, match="draw it"):
        bridge_score_loss(bridge.correction, BridgePath(noise), x0, x1, time)


def test_the_bridge_keeps_the_covariance_of_its_ends_and_the_flow_does_not() -> None:
    """Simulated with closed-form drift: variance and covariance to 5 %; the ordinary differential equation gives 0.5 for the latter."""
    bridge, count, draws = Bridge(1.0, 0.5), 40_000, iter(range(100, 1000))
    x0, times = normal((count, 1), 20), torch.linspace(0, 1, 201, dtype=torch.float64)
    sampler = BridgeDiffusion(bridge.velocity, bridge.correction, BridgePath(1.0), lambda: normal((count, 1), next(draws)))
    x1 = sampler(x0, times)
    assert x1.var().item() == pytest.approx(0.25, rel=0.05)
    assert (x0 * x1).mean().item() == pytest.approx(bridge.covariance, rel=0.05)
    flow = Heun(bridge.velocity)(x0, times)
    assert flow.var().item() == pytest.approx(0.25, rel=0.05)
    assert (x0 * flow).mean().item() == pytest.approx(0.5, rel=0.05)


def test_a_path_of_bridges_runs_through_both_ends() -> None:
    x0, x1 = normal((5, 1, 3), 21), normal((5, 1, 3), 22)
    path = BridgePath(0.6).drawn(lambda: normal((5, 1, 3), 23))
    for t, end in ((0.0, x0), (1.0, x1)):
        assert (path.sample(x0, x1, torch.tensor(t, dtype=torch.float64)).x_t - end).abs().max() < 0.05
    middle, before = (path.sample(x0, x1, torch.tensor(t, dtype=torch.float64)) for t in (0.5, 0.5 - 1e-6))
    assert torch.allclose((middle.x_t - before.x_t) / 1e-6, middle.velocity, atol=1e-4)
    mean = BridgePath(0.6).sample(x0, x1, torch.tensor(0.3, dtype=torch.float64))
    assert torch.equal(mean.x_t, AffinePath().sample(x0, x1, torch.tensor(0.3, dtype=torch.float64)).x_t)


# --- runs --------------------------------------------------------------------------------------------------------------------------

LINE = Grid(Axis("x", 8, periodic=True))


def fields() -> Fields:
    return Fields((0.5 + 0.3 * normal((24, 1, 8), 24)).float(), LINE, ("u",), ("1",))


TINY = ["network.kind=perceptron", "network.width=8", "network.depth=1", "training.steps=3", "training.batch=8", "source.kind=white"]


@pytest.mark.parametrize("kind", [kind for kind in COUPLINGS if kind != "rectified"])
def test_training_with_every_coupling_is_reproducible_and_kept(kind: str, tmp_path: Path) -> None:
    if kind in ("entropic", "unbalanced", "schroedinger-bridge"):
        pytest.importorskip("ot")
    more = ["coupling.regularisation=50", "coupling.marginals=50"] if kind == "unbalanced" else []
    experiment = read_experiment(None, [*TINY, f"coupling.kind={kind}", *more])
    made = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        made.append(fit(fields(), experiment, tmp_path / name))
    weights = [flow.network.state_dict() for flow in made]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    kept = load(tmp_path / "a")
    assert kept.independent == (kind == "independent")
    assert isinstance(kept.path, BridgePath) == (kind == "schroedinger-bridge")
    if kind != "independent":
        with pytest.raises(ValueError, match="AffinePath" if kind == "schroedinger-bridge" else "independent"):
            pcfm.sample(kept, 2, method="sde", steps=2)
    assert torch.isfinite(pcfm.sample(kept, 2, steps=2).u).all()


def test_a_rectified_coupling_takes_pairs_of_a_model(tmp_path: Path) -> None:
    """Noise and the fields it was taken to, in the units of the new run; of another source or grid it is refused."""
    (tmp_path / "teacher").mkdir()
    (tmp_path / "student").mkdir()
    teacher = fit(fields(), read_experiment(None, TINY), tmp_path / "teacher")
    chosen = [f"coupling.model={tmp_path / 'teacher'}", "coupling.count=16", "coupling.steps=4", "coupling.kind=rectified"]
    student = fit(fields(), read_experiment(None, [*TINY, *chosen]), tmp_path / "student")
    assert not student.independent
    from pcfm.teaching import build_coupling

    table = read_experiment(None, [*TINY, *chosen]).coupling
    coupling = build_coupling(table, student.units, student.source)
    assert isinstance(coupling, Rectified)
    pairs, times = coupling.pairs, torch.linspace(0, 1, 5)
    again = student.units.normalise(teacher.units.physical(Heun(teacher.velocity())(pairs.x0, times)))
    assert torch.allclose(pairs.x1, again.to(pairs.x1), atol=1e-6)
    drawn = coupling(torch.zeros(6, 1, 8), torch.zeros(6, 1, 8), None, generator())
    index = (drawn.x0[:, None] - pairs.x0[None]).square().sum((2, 3)).argmin(1)
    assert torch.equal(pairs.x1[index], drawn.x1)
    with pytest.raises(ValueError, match="source of this run"):
        build_coupling(table, student.units, pcfm.configuration.SOURCES["smooth"](LINE, 1))
    with pytest.raises(ValueError, match="1 channels on"):
        build_coupling(table, student.units, pcfm.configuration.SOURCES["white"](Grid(Axis("x", 9, periodic=True)), 1))


def test_rectified_pairs_straighten_the_flow() -> None:
    r"""Between Gaussians: the optimal velocity of independent pairs misses $x_1 - x_0$ by $(2 - \pi/2)s$, of rectified ones by 0."""
    std, count = 0.4, 50_000
    flow, x0 = GaussianFlow(0.0, std), normal((count, 1, 2), 25)
    x1 = flow.transport(x0)
    pairs = Rectified(Pairs(x0, x1, None))(x0, x1, None, generator())

    def bend(start: Tensor, end: Tensor, velocity: object, state: Callable[[Tensor, Tensor, Tensor], Tensor]) -> float:
        times = (torch.arange(64, dtype=torch.float64) + 0.5) / 64
        each = [((end - start) - velocity(state(start, end, t), t)).square().mean() for t in times]  # type: ignore[operator]
        return torch.stack(each).mean().item()

    def along(start: Tensor, end: Tensor, t: Tensor) -> Tensor:
        return ((1 - t) ** 2 + (std * t) ** 2).sqrt() * start

    def between(start: Tensor, end: Tensor, t: Tensor) -> Tensor:
        return AffinePath().sample(start, end, t).x_t

    assert bend(x0, flow.transport(x0), flow, along) == pytest.approx((2 - math.pi / 2) * std, rel=0.03)
    rectified = bend(pairs.x0, pairs.x1, lambda x, t: (std - 1) * x / (1 - t + std * t), between)
    assert rectified < 1e-25
    assert (
        Euler(lambda x, t: (std - 1) * x / (1 - t + std * t))(x0, torch.tensor([0.0, 1.0], dtype=torch.float64)) - x1
    ).abs().max() < 1e-14


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["coupling.kind=optimal-transprot"], "Did you mean 'optimal-transport'"),
        (["coupling.kind=optimal-transport", "condition=initial"], "biased"),
        (["coupling.kind=entropic", "condition=initial"], "biased"),
        (["coupling.kind=rectified"], "coupling.model=RUN"),
        (["coupling.kind=rectified", "coupling.model=a", "coupling.solver=hun"], "Did you mean 'heun'"),
        (["coupling.kind=schroedinger-bridge", "path.schedule=cosine"], "path.schedule=linear"),
        (["coupling.kind=entropic", "coupling.regularisation=-1"], "positive regularisation"),
        (["coupling.kind=schroedinger-bridge", "coupling.exact=1"], "true or false"),
    ],
)
def test_configurations_without_a_meaning_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_experiment(None, overrides)


def test_settings_name_times_and_weights() -> None:
    assert TrainingSettings(times="beta:data=3", weight="unbiased").times == "beta:data=3"
    with pytest.raises(ValueError, match="unknown weight of times"):
        TrainingSettings(weight="loud")
