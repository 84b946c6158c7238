r"""Flow maps as runs: trained, resumed, distilled and sampled by few calls on the command line, lawful, with what is refused.

Maps known in closed form stand for trained ones where a value is to be right: between standard normals and $\mathcal N(m, s^2)$ that of
`tests.test_flow_map`.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import pcfm
from constraints import Axis, Grid, Mass
from pcfm.bench_samples import suits
from pcfm.configuration import read_experiment
from pcfm.error_report import error_report
from pcfm.experiment import fit
from pcfm.flow import Flow
from pcfm.flow_map import Consistency, FlowMap, FlowMapObjective, Lagrangian, LearntMap, MeanFlow, Progressive, Shortcut
from pcfm.methods import METHODS, jumps
from pcfm.networks import FourierOperator, PatchTransformer, Perceptron, TwoTimes
from pcfm.path import AffinePath
from pcfm.samplers import Heading, RungeKutta4
from pcfm.schedule import Cosine
from pcfm.source import WhiteNoise
from pcfm.training import Data, Trainer, TrainingSettings
from pcfm.velocity import GaussianFlow, NetworkVelocity
from pde_datasets import Fields, store
from tests.commands import Call, start
from tests.oracles_gmm import Mixture, MixtureOracle
from tests.test_flow_map import EXACT, MEAN, MODES, STD, gaussian_average, points

SMALL = "network.kind=perceptron network.width=16 network.depth=2 training.batch=8"
KINDS: dict[str, tuple[str, FlowMapObjective]] = {
    "mean-flow": ("objective.kind=mean-flow objective.power=1.0", MeanFlow(power=1.0)),
    "lagrangian": ("objective.kind=lagrangian", Lagrangian()),
    "shortcut": ("objective.kind=shortcut objective.levels=3", Shortcut(levels=3)),
    "progressive": ("objective.kind=progressive objective.steps=2 objective.teacher=velocity", Progressive(2)),
    "consistency": ("objective.kind=consistency objective.bins=8 objective.teacher=velocity", Consistency(1, 8)),
    "phased": ("objective.kind=consistency objective.phases=2 objective.bins=8 objective.teacher=velocity", Consistency(2, 8)),
}
"""Settings of the command line, and the objective that they name."""


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fields, a velocity and a flow map of each kind, once."""
    torch.set_num_threads(1)
    folder, home = tmp_path_factory.mktemp("few"), Path.cwd()
    os.chdir(folder)
    try:
        assert start("generate heat --count 24 --out heat.h5 --set points=16 times=4 --quiet") == 0
        assert start(f"train heat.h5 --out velocity --quiet --device cpu --set {SMALL} training.steps=60") == 0
        for name, (settings, _) in KINDS.items():
            assert start(f"train heat.h5 --out {name} --quiet --device cpu --set {SMALL} training.steps=12 {settings}") == 0
    finally:
        os.chdir(home)
    return folder


@pytest.fixture(autouse=True)
def _own_folder(shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for item in shelf.iterdir():
        Path(item.name).symlink_to(item)


def refused(call: Call, command: str, *words: str) -> None:
    ran = call(command)
    assert ran.status == 2, ran
    assert re.fullmatch(r"pcfm: [^\n]+\n", ran.err), ran.err
    for word in words:
        assert word in ran.err, ran.err


# --- training -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_trained_map_is_one_when_it_is_loaded(kind: str) -> None:
    flow, objective = pcfm.load(kind), KINDS[kind][1]
    assert flow.objective == objective
    assert isinstance(flow.network, TwoTimes)
    assert flow.card["network_calls"] > 0
    assert json.loads(Path(kind, "record.json").read_text())["results"]["jumps"] == objective.learnt()
    assert 'kind = "' + kind.replace("phased", "consistency") in Path(kind, "config.toml").read_text()
    assert pcfm.load("velocity").objective is None


def test_files_without_an_objective_are_of_flow_matching(call: Call) -> None:
    Path("old").mkdir()
    description = json.loads(Path("velocity/model.json").read_text())
    assert description.pop("objective") == {"kind": "flow-matching"}
    Path("old/model.json").write_text(json.dumps(description))
    Path("old/weights.safetensors").write_bytes(Path("velocity/weights.safetensors").read_bytes())
    a, b = pcfm.sample(pcfm.load("old"), 2, steps=3), pcfm.sample(pcfm.load("velocity"), 2, steps=3)
    assert torch.equal(a.u, b.u)


class Stop(Exception):
    """An interruption from within."""


def trained(folder: str, settings: str, stops: tuple[int, ...] = ()) -> dict[str, Tensor]:
    """Weights of a training that is stopped after some steps and resumed each time."""
    extra = "training.steps=11 training.checkpoint_every=3 training.evaluate_every=4"
    experiment, fields = read_experiment(None, f"{SMALL} {settings} {extra}".split()), store.read(Path("heat.h5"))
    Path(folder).mkdir()

    def stop_after(last: int) -> Callable[[int, dict[str, float]], None]:
        def told(step: int, entry: dict[str, float]) -> None:
            if step == last:
                raise Stop

        return told

    for i, last in enumerate(stops):
        with pytest.raises(Stop):
            fit(fields, experiment, Path(folder), resume=i > 0, progress=stop_after(last))
    flow = fit(fields, experiment, Path(folder), resume=bool(stops))
    return flow.network.state_dict()


@pytest.mark.parametrize("kind", ["mean-flow", "shortcut", "progressive", "consistency"])
def test_a_resumed_map_is_the_map_that_was_not_stopped(kind: str) -> None:
    settings = KINDS[kind][0]
    once, again = trained("a", settings), trained("b", settings, stops=(4, 7, 10))
    assert all(torch.equal(once[name], again[name]) for name in once)
    logs = [[json.loads(line) | {"seconds": None} for line in Path(x, "log.jsonl").read_text().splitlines()] for x in "ab"]
    assert logs[0] == logs[1]
    assert [entry["step"] for entry in logs[0]] == [4, 8, 11]
    other = trained("c", f"{settings} training.seed=1")
    assert any(not torch.equal(once[name], other[name]) for name in once)


def test_a_diverging_map_leaves_no_model(call: Call) -> None:
    ran = call(f"train heat.h5 --out new --quiet --set {SMALL} training.steps=9 training.learning_rate=1e30 objective.kind=lagrangian")
    assert ran.status == 2
    assert re.fullmatch(r"pcfm: training diverged: [^\n]+\n", ran.err)
    assert not Path("new/weights.safetensors").exists()


def test_the_targets_are_those_of_averaged_weights(tmp_path: Path) -> None:
    torch.manual_seed(0)
    grid = Grid(Axis("x", 8, periodic=True))
    network = TwoTimes(Perceptron(grid, 1, width=8, times=2))
    velocity, settings = NetworkVelocity(network, "x,r,t,condition"), TrainingSettings(steps=5, batch=4, ema=0.9, learning_rate=0.1)
    data = Data(torch.randn(8, 1, 8))
    trainer = Trainer(velocity, AffinePath(), WhiteNoise(grid, 1), data, settings, tmp_path, torch.device("cpu"), flow_map=MeanFlow())
    trainer.run(lambda step, entry: None)
    x, r, t = torch.randn(4, 1, 8), torch.rand(4) / 2, 1 - torch.rand(4) / 2
    seen, calls = trainer._averaged(x, r, t), velocity.calls
    assert (seen - velocity(x, r, t)).abs().max() > 1e-3
    network.load_state_dict(trainer.average)
    assert torch.equal(seen, velocity(x, r, t))
    assert velocity.calls == calls + 2


NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "perceptron": lambda grid, times: Perceptron(grid, 1, width=8, times=times),
    "fourier-operator": lambda grid, times: FourierOperator(grid, 1, modes=3, width=8, depth=1, times=times),
    "patch-transformer": lambda grid, times: PatchTransformer(grid, 1, patch=4, width=8, depth=1, heads=2, times=times),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_map_that_begins_with_a_velocity_is_it_for_all_spans(name: str) -> None:
    torch.manual_seed(0)
    grid = Grid(Axis("x", 8, periodic=True))
    one, two = NETWORKS[name](grid, 1), TwoTimes(NETWORKS[name](grid, 2))
    for parameter in one.parameters():
        nn.init.normal_(parameter, std=0.3)
    two.load_state_dict(two.lifted(one.state_dict()))
    x, r, t = torch.randn(5, 1, 8), torch.rand(5), torch.rand(5)
    assert (one(x, r) - one(x, t)).abs().max() > 1e-3
    torch.testing.assert_close(two(x, r, t), one(x, r), rtol=1e-5, atol=1e-5)


def test_a_student_begins_with_its_teacher_and_has_its_units(call: Call) -> None:
    """Where the networks are alike; a smaller student begins anew."""
    store.write(Path("louder.h5"), store.read(Path("heat.h5"))[:20])
    command = f"train louder.h5 --quiet --device cpu --set {SMALL} training.steps=1 training.learning_rate=1e-12 training.ema=0"
    assert call(f"{command} {KINDS['progressive'][0]} --out alike").status == 0
    assert call(f"{command} {KINDS['progressive'][0]} network.width=8 --out smaller").status == 0
    teacher, alike, smaller = (pcfm.load(name) for name in ("velocity", "alike", "smaller"))
    assert torch.equal(alike.units.scale, teacher.units.scale)
    assert torch.equal(smaller.units.shift, teacher.units.shift)
    assert [flow.card["begins_with_teacher"] for flow in (alike, smaller)] == [True, False]
    assert call(f"{command} --out own").status == 0
    assert not torch.equal(pcfm.load("own").units.scale, teacher.units.scale)
    x, r, t = torch.randn(3, 1, 4, 16), torch.rand(3), torch.rand(3)
    torch.testing.assert_close(alike.given()(x, r, t), teacher.velocity()(x, r), rtol=1e-4, atol=1e-4)


def test_a_map_begins_with_a_velocity_that_is_named(call: Call) -> None:
    command = f"train heat.h5 --quiet --device cpu --set {SMALL} training.steps=1 training.learning_rate=1e-12 training.ema=0"
    assert call(f"{command} objective.kind=mean-flow --init velocity --out a").status == 0
    x, t = torch.randn(3, 1, 4, 16), torch.rand(3)
    torch.testing.assert_close(pcfm.load("a").velocity()(x, t), pcfm.load("velocity").velocity()(x, t), rtol=1e-4, atol=1e-4)
    refused(call, f"{command} objective.kind=mean-flow network.width=8 --init velocity --out b", "network configuration")


def test_halving_goes_on_from_a_student(call: Call) -> None:
    """A flow map of two steps teaches one of one step, whose targets are its jumps and not a solver's steps."""
    command = f"train heat.h5 --quiet --device cpu --set {SMALL} training.steps=2 objective.kind=progressive objective.teacher=progressive"
    assert call(f"{command} objective.steps=1 --out one").status == 0
    assert pcfm.load("one").card["begins_with_teacher"]
    refused(call, f"{command} objective.steps=2 --out two", "flow map of 4 steps", "jumps of 1/2")


def test_a_map_with_a_condition(call: Call) -> None:
    settings = f"{SMALL} training.steps=3 condition=initial"
    assert call(f"train heat.h5 --out teacher --quiet --set {settings}").status == 0
    student = "objective.kind=consistency objective.bins=4 objective.teacher=teacher"
    assert call(f"train heat.h5 --out map --quiet --set {settings} {student}").status == 0
    assert call("sample map --count 3 --condition heat.h5 --law mass --out a.h5 --quiet").status == 0
    flow = pcfm.load("map")
    x = torch.randn(2, 1, 4, 16)
    seen = [flow.given(torch.full_like(x, value))(x, torch.zeros(()), torch.ones(())) for value in (0.0, 1.0)]
    assert (seen[0] - seen[1]).abs().max() > 1e-3
    refused(
        call, f"train heat.h5 --out b --quiet --set {settings} {student.replace('=teacher', '=velocity')}", "condition 'initial'", "'none'"
    )


BAD: dict[str, tuple[str, ...]] = {
    "an unknown kind": ("objective.kind=mean-flwo", "Did you mean 'mean-flow'"),
    "an unknown option": ("objective.kind=mean-flow objective.pwer=1.0", "Did you mean 'power'"),
    "an option of another kind": ("objective.kind=lagrangian objective.levels=3", "no key 'levels'"),
    "a word for a number": ("objective.kind=shortcut objective.levels=many", "objective.levels"),
    "a share of two": ("objective.kind=mean-flow objective.share=2.0", "between 0 and 1"),
    "bins that are no multiple": ("objective.kind=consistency objective.teacher=velocity objective.phases=3", "multiple of phases"),
    "no teacher": ("objective.kind=consistency", "objective.teacher=RUN"),
    "a teacher of no file": ("objective.kind=consistency objective.teacher=nobody", "no model 'nobody'"),
    "a teacher for data": ("objective.kind=lagrangian objective.teacher=velocity", "takes no teacher", "progressive, consistency"),
    "a teacher of another path": ("objective.kind=progressive objective.teacher=velocity path.schedule=cosine", "on the path of this run"),
    "a teacher of other noise": ("objective.kind=progressive objective.teacher=velocity source.kind=white", "source of this run"),
    "a teacher without a velocity": ("objective.kind=consistency objective.teacher=progressive", "has learnt jumps of 1/2"),
    "times of flow matching": ("objective.kind=mean-flow training.times=logit-normal", "draws times of its own"),
    "a flat table": ("objective=mean-flow", "[objective]"),
    "a network of one time": ("objective.kind=mean-flow network.target=torch.nn.Identity", "two times, network.call=x,r,t"),
    "a network of two times": ("network.target=torch.nn.Identity network.call='\"x,r,t\"'", "expects a network of one time"),
}


@pytest.mark.parametrize("case", BAD.values(), ids=BAD)
def test_a_wrong_objective_is_named_in_one_line(call: Call, case: tuple[str, ...]) -> None:
    small = SMALL if "target" not in case[0] else "training.batch=8"
    refused(call, f"train heat.h5 --out new --quiet --set training.steps=2 {small} {case[0]}", *case[1:])
    assert not Path("new").exists()


def test_another_objective_is_not_resumed(call: Call) -> None:
    command = f"train heat.h5 --out a --quiet --device cpu --set {SMALL} training.steps=3 objective.kind"
    assert call(f"{command}=mean-flow").status == 0
    refused(call, f"{command}=lagrangian --resume", "other settings (objective.kind)")


# --- sampling -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "steps"), [(kind, steps) for kind in KINDS for steps in (1, 2)])
def test_few_calls_are_lawful_in_single_precision(kind: str, steps: int, call: Call) -> None:
    command = f"sample {kind} --count 3 --steps {steps} --law mass initial-condition --reference heat.h5 --dtype float32 --out s.h5 --json"
    if len(KINDS[kind][1].jumps(0.0, 1 / steps)) != 1:
        refused(call, command.replace("--json", "--quiet"), f"has learnt {KINDS[kind][1].learnt()}", "uniform step")
        assert not Path("s.h5").exists()
        return
    ran = call(command)
    assert ran.status == 0
    assert ran.json()["converged"] == 3
    assert json.loads(Path("s.json").read_text())["network_calls"] == steps
    u = store.read(Path("s.h5")).values.double()
    given = store.read(Path("heat.h5")).values[:3].double()
    assert (u[:, :, 0] - given[:, :, 0]).abs().max() <= 1e-6
    assert u.sum(3).abs().max() * 2 * torch.pi / 16 <= 1e-6 * u.abs().sum(3).max()


def test_steps_are_as_few_as_it_has_learnt_unless_told(call: Call) -> None:
    for kind, (_, objective) in KINDS.items():
        assert call(f"sample {kind} --count 2 --out {kind}.h5 --quiet").status == 0
        record = json.loads(Path(f"{kind}.json").read_text())
        assert record["network_calls"] == record["results"]["settings"]["steps"] == objective.fewest
        assert record["results"]["settings"]["solver"] == "jump"
    assert call("sample velocity --count 2 --out v.h5 --quiet").status == 0
    assert json.loads(Path("v.json").read_text())["network_calls"] == 50
    said = call("sample mean-flow --count 2 --estimate 2 --steps 2 --out a.h5").out
    assert "a flow map, in 2 steps," in said
    assert "error of the steps: not known" in said


class Still(nn.Module):
    """No velocity: samples are the noise."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return torch.zeros_like(x)


def noise(flow: Flow, count: int) -> Tensor:
    """What samples of a flow begin with."""
    return pcfm.sample(pcfm.wrap(Still(), grid=flow.grid, source=flow.source), count, steps=1).u


def test_one_call_is_the_map_of_the_network() -> None:
    flow = pcfm.load("shortcut")
    x0 = noise(flow, 2)
    samples = pcfm.sample(flow, 2)
    with torch.no_grad():
        moved = x0 + flow.network(x0.float(), torch.zeros(2), torch.ones(2)).double()
    torch.testing.assert_close(samples.u, flow.units.physical(moved), rtol=1e-6, atol=1e-6)
    assert (samples.network_calls, samples.projections) == (1, 0)


class Exact(nn.Module):
    """The average velocity of a Gaussian flow, as a network."""

    def forward(self, x: Tensor, r: Tensor, t: Tensor) -> Tensor:
        return gaussian_average(x, r, t)


LINE = Grid(Axis("x", 8, periodic=True))


def exact(objective: FlowMapObjective) -> Flow:
    return pcfm.wrap(Exact(), grid=LINE, call="x,r,t", objective=objective)


@pytest.mark.parametrize("objective", [MeanFlow(), Shortcut(levels=4), Progressive(4), Consistency(4, 8)])
def test_an_exact_map_of_any_number_of_calls_is_the_flow(objective: FlowMapObjective) -> None:
    flow = exact(objective)
    x0 = noise(flow, 3)
    for steps in (1, 4) if len(objective.jumps(0.0, 1.0)) == 1 else (4,):
        samples = pcfm.sample(flow, 3, steps=steps)
        torch.testing.assert_close(samples.u, MEAN + STD * x0, rtol=0, atol=1e-12)
        assert samples.network_calls == steps
        assert pcfm.sample(flow, 40, steps=steps, batch=16).network_calls == 3 * steps


def test_one_jump_under_a_law_is_the_projection_of_the_end() -> None:
    flow, law = exact(MeanFlow()), Mass(LINE, 2.0)
    free = pcfm.sample(flow, 3, steps=1).u
    for method in ("project-end", "pcfm", "pcfm-consistent", "eci:mix=1"):
        u = pcfm.sample(flow, 3, law=law, method=method, steps=1).u
        torch.testing.assert_close(u, free + (2.0 - free.mean(-1, keepdim=True) * LINE.axes[0].extent) / LINE.axes[0].extent)


def test_a_map_that_has_a_velocity_follows_it() -> None:
    """Solvers and methods that ask for the velocity get $u_{t,t}$, as of a network of one time."""
    flow, other = exact(MeanFlow()), pcfm.wrap(Velocity(), grid=LINE)
    for settings in ({"solver": "heun"}, {"method": "sde"}, {"method": "tangent", "law": Mass(LINE, 1.0)}):
        one, two = (pcfm.sample(made, 2, steps=5, **settings) for made in (flow, other))  # type: ignore[arg-type]
        torch.testing.assert_close(one.u, two.u, rtol=0, atol=1e-12)
        assert one.network_calls == two.network_calls


class Velocity(nn.Module):
    """The exact velocity."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return GaussianFlow(MEAN, STD)(x, t)


@pytest.mark.parametrize("path", [AffinePath(), AffinePath(Cosine())])
def test_what_stands_for_the_velocity_leads_to_the_end_of_the_map(path: AffinePath) -> None:
    x, _, _ = points(4)
    heading = Heading(LearntMap(gaussian_average, MeanFlow()), path)
    for time in (0.0, 0.3, 0.9):
        t = torch.tensor(time, dtype=torch.float64)
        end = path.endpoint(x, heading(x, t), t)
        torch.testing.assert_close(end, EXACT(x, t, torch.ones_like(t)), rtol=1e-12, atol=1e-12)
    assert (heading(x, t) - GaussianFlow(MEAN, STD)(x, t)).abs().max() > 1e-3


ROUTES: tuple[tuple[FlowMapObjective, float, float, tuple[float, ...]], ...] = (
    (MeanFlow(), 0.1, 0.7, (0.7,)),
    (Lagrangian(), 0.7, 0.1, ()),
    (Shortcut(levels=3), 0.0, 1.0, (1.0,)),
    (Shortcut(levels=3), 0.25, 1.0, (0.5, 1.0)),
    (Shortcut(levels=4), 0.125, 0.875, (0.25, 0.5, 0.75, 0.875)),
    (Shortcut(levels=3), 0.0, 0.125, ()),
    (Shortcut(levels=1), 0.0, 1.0, (1.0,)),
    (Progressive(4), 0.25, 1.0, (0.5, 0.75, 1.0)),
    (Progressive(3), 0.0, 1 / 3, (1 / 3,)),
    (Progressive(4), 0.1, 1.0, ()),
    (Consistency(1, 8), 0.3, 1.0, (1.0,)),
    (Consistency(1, 8), 0.0, 0.5, ()),
    (Consistency(4, 8), 0.3, 1.0, (0.5, 0.75, 1.0)),
    (Consistency(4, 8), 0.5, 0.75, (0.75,)),
)


@pytest.mark.parametrize(("objective", "r", "t", "route"), ROUTES)
def test_the_jumps_that_an_objective_teaches(objective: FlowMapObjective, r: float, t: float, route: tuple[float, ...]) -> None:
    assert objective.jumps(r, t) == pytest.approx(route)
    single = [float(torch.tensor(time, dtype=torch.float32)) for time in (r, t)]
    assert len(objective.jumps(*single)) == len(route)
    calls = []

    def counted(x: Tensor, begin: Tensor, end: Tensor) -> Tensor:
        calls.append((float(begin), float(end)))
        return gaussian_average(x, begin, end)

    x, begin, end = points(4)[0], torch.tensor(r, dtype=torch.float64), torch.tensor(t, dtype=torch.float64)
    learnt = LearntMap(counted, objective)
    if not route:
        with pytest.raises(ValueError, match=re.escape(objective.learnt())):
            learnt(x, begin, end)
        return
    torch.testing.assert_close(learnt(x, begin, end), EXACT(x, begin, end), rtol=1e-12, atol=1e-12)
    assert calls == [pytest.approx(pair) for pair in zip((r, *route), route, strict=False)]
    if len(route) > 1:
        with pytest.raises(ValueError, match="is none of them"):
            learnt.jump(x, begin, end)


def test_each_objective_teaches_the_jumps_that_it_says() -> None:
    """The times at which each evaluates the student, caught in the act, are one jump each."""
    generator = torch.Generator().manual_seed(0)
    x0, x1 = torch.randn(2, 64, 1, 3, generator=generator, dtype=torch.float64)
    for objective in (Shortcut(levels=4), Progressive(4), Consistency(2, 8)):
        seen: list[tuple[float, float]] = []

        def caught(x: Tensor, r: Tensor, t: Tensor, seen: list[tuple[float, float]] = seen) -> Tensor:
            seen.extend(zip(r.tolist(), t.tolist(), strict=True))
            return gaussian_average(x, r, t)

        objective(FlowMap(caught), EXACT, AffinePath(), x0, x1, generator, GaussianFlow(MEAN, STD))
        taught = [(r, t) for r, t in seen if r != t]
        assert len(taught) >= 16
        assert all(len(objective.jumps(r, t)) == 1 for r, t in taught)


SHORT = {"d-flow": "d-flow:iterations=1", "source-chain": "source-chain:moves=1", "pdm": "pdm:inner=1", "eci": "eci:mix=2"}
CALLS = {"unconstrained": 1, "project-end": 1, "pcfm-consistent": 1, "pcfm": 1, "pcfm-published": 1, "eci": 2, "ipcfm-active": 1}
"""Calls a step of a map that has learnt all jumps."""


@pytest.mark.parametrize("kind", ["mean-flow", "progressive", "consistency"])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_jumps_lawfully_or_is_refused(method: str, kind: str) -> None:
    flow, taken, chosen = pcfm.load(kind), METHODS[method], SHORT.get(method, method)
    assert flow.objective is not None
    law = Mass(flow.grid, 0.5) if taken.lawful else None
    for steps in (1, 2):
        learnt = taken.ahead and method not in ("ppr", "pcfm-consistent", "pbfm", "pbfm-project")
        learnt = learnt or len(flow.objective.jumps(0.0, 1 / steps)) == 1
        if not jumps(taken) and not flow.objective.follows:
            with pytest.raises(ValueError, match="follows the velocity of the flow"):
                pcfm.sample(flow, 2, law=law, method=chosen, steps=steps)
            continue
        if jumps(taken) and not learnt and not (method.startswith("pbfm") and kind == "consistency"):
            with pytest.raises(ValueError, match="is none of them"):
                pcfm.sample(flow, 2, law=law, method=chosen, steps=steps)
            continue
        samples = pcfm.sample(flow, 2, law=law, method=chosen, steps=steps, dtype=torch.float32)
        assert samples.converged.all(), samples.causes
        if law is not None:
            assert law.residual(samples.u.double()).abs().max() <= 1e-6
        if kind == "mean-flow" and method in CALLS:
            assert samples.network_calls == CALLS[method] * steps
        if kind == "progressive" and method == "pcfm":
            assert samples.network_calls == {1: 2, 2: 3}[steps]  # two jumps lead from noise to data, one from the middle


@pytest.mark.parametrize(("method", "calls"), [("pcfm", 3), ("eci:mix=2", 6), ("ipcfm-active", 3), ("pbfm:until=1", 3)])
def test_a_consistency_model_takes_any_number_of_steps_by_its_endpoints(method: str, calls: int) -> None:
    flow = pcfm.load("consistency")
    law = Mass(flow.grid, 0.5) if METHODS[method.partition(":")[0]].lawful else None
    samples = pcfm.sample(flow, 2, law=law, method=method, steps=3)
    assert samples.converged.all()
    assert samples.network_calls == calls
    assert samples.noise_draws == (2 if law is None else 0)


def test_what_asks_for_a_velocity_is_refused_where_there_is_none(call: Call) -> None:
    law = "--law mass:value=0"
    refused(
        call, f"sample consistency --count 2 {law} --method tangent --out a.h5 --quiet", "method 'tangent' follows the velocity", "pcfm"
    )
    refused(call, "sample consistency --count 2 --solver heun --out a.h5 --quiet", "solver 'heun' follows the velocity")
    refused(call, "likelihood consistency heat.h5 --count 1 --quiet", "no velocity")
    refused(call, "evaluate heat.h5 --reference heat.h5 --errors --model consistency --quiet", "no velocity")
    pairs = f"train heat.h5 --out a --quiet --set {SMALL} training.steps=1 coupling.kind=rectified coupling.count=4 coupling.model"
    refused(call, f"{pairs}=consistency", "no velocity")
    assert call(f"{pairs}=mean-flow").status == 0
    with pytest.raises(ValueError, match="follows the velocity"):
        suits("tangent", pcfm.load("consistency"), Mass(pcfm.load("consistency").grid, 0.5))
    suits("pcfm", pcfm.load("consistency"), Mass(pcfm.load("consistency").grid, 0.5))
    refused(call, "sample shortcut --count 2 --steps 2 --spacing power:exponent=2 --out a.h5 --quiet", "is none of them")


def test_a_module_of_two_times_needs_its_objective() -> None:
    with pytest.raises(ValueError, match="expects a call of two times"):
        pcfm.wrap(Exact(), grid=LINE, call="x,r,t")
    with pytest.raises(ValueError, match="a velocity neither"):
        pcfm.wrap(Still(), grid=LINE, objective=MeanFlow())


def test_models_are_told_apart(call: Call, shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pcfm.shelf.MODELS", shelf)
    lines = {line.split()[0]: line for line in call("list models").out.splitlines()}
    assert "flow map, mean-flow" in lines["mean-flow"]
    assert ", velocity" in lines["velocity"]
    objectives = {row["name"]: row["objective"] for row in call("list models --json").json()["models"]}
    assert objectives["phased"] == "consistency"


def test_a_fourier_map_is_sampled_on_a_finer_grid(call: Call) -> None:
    settings = "network.modes=4 network.width=4 network.depth=1 training.batch=4 training.steps=2 objective.kind=mean-flow"
    assert call(f"train heat.h5 --out fno --quiet --device cpu --set {settings.replace('modes=4', 'modes=2')}").status == 0
    assert call("sample fno --count 1 --points 24 --law mass:value=0 --out a.h5 --quiet").status == 0
    assert store.read(Path("a.h5")).grid.shape == (4, 24)


# --- straightness ---------------------------------------------------------------------------------------------------------------------


def test_the_error_report_tells_how_straight_a_flow_is() -> None:
    r"""Along a Gaussian flow $x_t = mt + c_t x_0$, whose first Euler step ends in the mean."""
    flow = pcfm.wrap(Velocity(), grid=LINE)
    reference = Fields(MEAN + STD * torch.randn(32, 1, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64), LINE, ("u",))
    row = {row["part"]: row for row in error_report([flow], reference, count=16)}["straightness"]
    x0 = flow.source.sample([torch.Generator().manual_seed(i) for i in range(16)], torch.float64)
    assert row["value"] == pytest.approx(STD * float(x0.square().mean().sqrt()), rel=1e-4)
    bend = (2 - math.pi / 2) * STD * x0.square().sum() / (MEAN + (STD - 1) * x0).square().sum()
    assert row["bend"] == pytest.approx(float(bend), rel=1e-3)


def test_the_error_report_tells_what_few_jumps_miss() -> None:
    reference = Fields(MEAN + STD * torch.randn(32, 1, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64), LINE, ("u",))

    def found(module: nn.Module, objective: FlowMapObjective) -> dict[str, float]:
        flow = pcfm.wrap(module, grid=LINE, call="x,r,t", objective=objective)
        return {row["setting"]: row["value"] for row in error_report([flow], reference) if row["part"] == "jumps"}

    right, wrong = found(Exact(), MeanFlow()), found(Longer(), MeanFlow())
    assert list(right) == ["1 jump", "2 jumps", "4 jumps"]
    assert max(right.values()) <= 1e-6
    assert wrong["1 jump"] == pytest.approx(0.1, rel=1e-4)
    assert wrong["2 jumps"] > 0.01
    assert list(found(Exact(), Shortcut(levels=2))) == ["1 jump", "2 jumps"]


class Longer(nn.Module):
    """The exact velocity, and jumps that err by a tenth of their squared length."""

    def forward(self, x: Tensor, r: Tensor, t: Tensor) -> Tensor:
        return gaussian_average(x, r, t) + 0.1 * (t - r).reshape(-1, 1, 1)


TWO = Mixture(
    torch.full((2,), 0.5, dtype=torch.float64),
    torch.tensor([[3.0, 3.0], [-3.0, -3.0]], dtype=torch.float64),
    0.09 * torch.eye(2, dtype=torch.float64).repeat(2, 1, 1),
)
EIGHT = Mixture(
    torch.full((8,), 1 / 8, dtype=torch.float64),
    4.0 * torch.stack([(torch.arange(8, dtype=torch.float64) * torch.pi / 4).cos(), (torch.arange(8).double() * torch.pi / 4).sin()], 1),
    0.04 * torch.eye(2, dtype=torch.float64).repeat(8, 1, 1),
)
"""Eight modes on a circle of radius 4, of standard deviation 0.2."""

PLANE = Grid(Axis("x", 2, periodic=True))


def straightened(call: Call, modes: Mixture, steps: int, width: int, batch: int, count: int) -> tuple[dict[str, float], ...]:
    """Train a velocity, and one on the pairs that it makes: what `pcfm evaluate` says of how straight each is."""
    data = Fields(modes.sample(5000, 7), PLANE, ("u",))
    store.write(Path("points.h5"), data)
    store.write(Path("few.h5"), data[:64])
    common = f"--set network.kind=perceptron network.width={width} source.kind=white training.batch={batch} training.steps={steps}"
    common += f" training.learning_rate=3e-3 training.ema=0.99 training.evaluate_every={steps} training.checkpoint_every={steps}"
    pairs = f"coupling.kind=rectified coupling.model=once coupling.count={count} coupling.steps=40"
    rows = []
    for name, extra in (("once", ""), ("twice", f"{pairs} --init once")):
        assert call(f"train points.h5 --out {name} --quiet --device cpu {common} {extra}").status == 0
        found = call(f"evaluate few.h5 --reference few.h5 --errors --model {name} --json").json()["errors"]
        rows.append({row["part"]: row for row in found}["straightness"])
    return tuple(rows)


def test_reflow_straightens(call: Call) -> None:
    once, twice = straightened(call, TWO, 300, 32, 128, 2000)
    assert once["bend"] > 0.2
    assert twice["bend"] <= once["bend"] / 20
    assert twice["value"] <= once["value"] / 2


@pytest.mark.slow
def test_reflow_of_eight_modes(call: Call) -> None:
    """Measures fall by the factors of the reference figures, and the marginals are kept."""
    once, twice = straightened(call, EIGHT, 4000, 128, 512, 16_000)
    assert twice["bend"] <= once["bend"] / 50
    assert twice["value"] <= once["value"] / 10
    costs = []
    for name in ("once", "twice"):
        flow = pcfm.load(name)
        u = pcfm.sample(flow, 2000, steps=50, solver="heun", batch=2000).u
        costs.append(float((flow.units.normalise(u) - noise(flow, 2000)).square().sum()))
        distance, nearest = (u - EIGHT.means).norm(dim=2).min(1)
        assert float((distance <= 4 * 0.2).double().mean()) >= 0.95
        assert (torch.bincount(nearest, minlength=8) / 2000 - 1 / 8).abs().max() <= 0.03
    assert costs[1] <= 1.05 * costs[0]


# --- what is learnt -------------------------------------------------------------------------------------------------------------------

MIXED = (
    "network.kind=perceptron network.width=128 source.kind=white training.batch=512 training.learning_rate=2e-3 training.validation=0.01"
)


@pytest.fixture(scope="session")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], Flow]:
    """Trains on points of four modes, each kind once."""
    folder, made = tmp_path_factory.mktemp("learnt"), {}
    data = Fields(MODES.sample(50_000, 5), PLANE, ("u",))

    def train(settings: str, steps: int) -> Flow:
        if settings not in made:
            made[settings] = folder / str(len(made))
            made[settings].mkdir()
            experiment = read_experiment(None, f"{MIXED} training.steps={steps} {settings.replace('VELOCITY', str(folder / '0'))}".split())
            fit(data, experiment, made[settings])
        return pcfm.load(made[settings])

    train("objective.kind=flow-matching", 4000)
    return train


def distance(flow: Flow, steps: int, teacher: Flow | None = None) -> float:
    """Root mean square distance of points after few jumps to a fine solve from the same noise, of the exact flow or of a teacher."""
    few = pcfm.sample(flow, 1000, steps=steps, batch=1000).u
    if teacher is not None:
        fine = pcfm.sample(teacher, 1000, steps=100, solver="rk4", batch=1000).u
    else:
        scale = flow.units.scale
        modes = Mixture(MODES.weights, (MODES.means - flow.units.shift) / scale, MODES.covariances / scale**2)
        times = torch.linspace(0, 0.9999, 101, dtype=torch.float64)
        fine = flow.units.physical(RungeKutta4(MixtureOracle(modes))(noise(flow, 1000), times))
    return float((few - fine).square().sum((1, 2)).mean().sqrt())


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "bounds"), [("mean-flow", (0.55, 0.5)), ("shortcut", (0.55, 0.4)), ("lagrangian", (0.42, 0.35))])
def test_few_calls_reach_the_exact_flow(kind: str, bounds: tuple[float, float], learnt: Callable[[str, int], Flow]) -> None:
    flow = learnt(f"objective.kind={kind}", 4000)
    for steps, bound in zip((1, 4), bounds, strict=True):
        assert distance(flow, steps) <= bound
    assert distance(learnt("objective.kind=flow-matching", 4000), 1) > 1.8  # one step of Euler's rule


@pytest.mark.slow
def test_students_reach_their_teacher(learnt: Callable[[str, int], Flow]) -> None:
    """In phases of consistency distillation, nearer with each; and by halving the steps, from a velocity. Data are of size 2."""
    teacher = learnt("objective.kind=flow-matching", 4000)
    found = []
    for phases, bound in ((1, 0.6), (2, 0.2), (4, 0.1)):
        settings = f"objective.kind=consistency objective.teacher=VELOCITY objective.phases={phases}"
        found.append(distance(learnt(settings, 3000), phases, teacher))
        assert found[-1] <= bound
    assert found[0] > found[1] > found[2]
    halved = learnt("objective.kind=progressive objective.teacher=VELOCITY objective.steps=8", 1500)
    assert distance(halved, 8, teacher) <= 0.05
