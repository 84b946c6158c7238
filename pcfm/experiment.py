"""Names turned into objects: networks, sources, paths, solvers, methods, models; and the runs that are made of them.

The only place in the package that sees all three packages, beside the commands.
"""

from __future__ import annotations

import importlib
import inspect
import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path as FilePath
from typing import Any

import torch
from torch import Tensor, nn

from constraints import Grid, Units
from pcfm.coupling import (
    CONDITIONED,
    Coupling,
    EntropicTransport,
    Independent,
    OptimalTransport,
    Pairs,
    Rectified,
    SchroedingerBridge,
    UnbalancedTransport,
)
from pcfm.flow import Flow, describe, grid_from, initial_channels, load_weights, read_description, save_description, save_weights
from pcfm.methods import SOLVERS, solver_on
from pcfm.naming import lookup, suggest
from pcfm.networks import FourierOperator, PatchTransformer, Perceptron
from pcfm.path import AffinePath, BridgePath, Path
from pcfm.schedule import Cosine, Linear, LinearSignal, Polynomial, Schedule, VarianceExploding, VariancePreserving
from pcfm.source import SmoothNoise, Source, WhiteNoise
from pcfm.training import BLOCK, Data, Trainer, TrainingSettings, held_out
from pcfm.velocity import NetworkVelocity
from pde_datasets import Fields

NETWORKS: dict[str, type[nn.Module]] = {
    "fourier-operator": FourierOperator,
    "patch-transformer": PatchTransformer,
    "perceptron": Perceptron,
}
SOURCES: dict[str, type[Source]] = {"white": WhiteNoise, "smooth": SmoothNoise}
SCHEDULES: dict[str, type[Schedule]] = {
    "linear": Linear,
    "cosine": Cosine,
    "polynomial": Polynomial,
    "variance-preserving": VariancePreserving,
    "variance-exploding": VarianceExploding,
    "linear-signal": LinearSignal,
}


@dataclass(frozen=True)
class ModelPairs:
    """Pairs that a model makes once, before training: noise, and where the model takes it.

    Attributes:
        model: the model, a run folder or the name of a shipped one.
        count: of pairs.
        steps: of its solver.
        solver: its solver.
    """

    model: str = ""
    count: int = 1024
    steps: int = 50
    solver: str = "heun"


COUPLINGS: dict[str, type] = {
    "independent": Independent,
    "optimal-transport": OptimalTransport,
    "entropic": EntropicTransport,
    "unbalanced": UnbalancedTransport,
    "schroedinger-bridge": SchroedingerBridge,
    "rectified": ModelPairs,
}
CONDITIONS = ("none", "initial")
MODELS = FilePath(__file__).parent / "models"


@dataclass(frozen=True)
class Experiment:
    """What a training run is made of: the tables of a configuration file.

    Attributes:
        network: `kind` and the arguments of its constructor; or `target`, `kwargs` and `call` for a class of another package.
        source: `kind` and the arguments of its constructor.
        path: `schedule` and the arguments of its constructor.
        coupling: `kind` and the arguments of its constructor.
        condition: what the network is given besides the state, "none" or "initial".
        training: how to fit.
    """

    network: dict[str, Any] = field(default_factory=lambda: {"kind": "fourier-operator"})
    source: dict[str, Any] = field(default_factory=lambda: {"kind": "smooth"})
    path: dict[str, Any] = field(default_factory=lambda: {"schedule": "linear"})
    coupling: dict[str, Any] = field(default_factory=lambda: {"kind": "independent"})
    condition: str = "none"
    training: TrainingSettings = field(default_factory=TrainingSettings)


def read_experiment(file: FilePath | None = None, overrides: Sequence[str] = ()) -> Experiment:
    """The experiment of a TOML file, with `key=value` overrides.

    Raises:
        ValueError: the file is missing or malformed, or a key is unknown.
    """
    tables: dict[str, Any] = {}
    if file is not None:
        try:
            tables = tomllib.loads(FilePath(file).read_text())
        except OSError as error:
            raise ValueError(f"configuration {file} cannot be read: {error.strerror}.") from error
        except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ValueError(f"configuration {file} is not TOML: {error}.") from error
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise ValueError(f"an override expects key=value; got '{override}'.")
        *path, last = key.split(".")
        table = tables
        for part in path:
            table = table.setdefault(part, {})
            if not isinstance(table, dict):
                raise ValueError(f"configuration key '{key}' goes below '{part}', which has a value: {table!r}.")
        table[last] = literal(text)
    return _experiment(tables)


def write_experiment(experiment: Experiment, file: FilePath) -> None:
    """Write the configuration that makes an experiment, as TOML."""
    tables = asdict(experiment)
    lines = [f"condition = {_toml(tables.pop('condition'))}"]
    for name, table in tables.items():
        lines += ["", f"[{name}]", *(f"{key} = {_toml(value)}" for key, value in table.items())]
    file.write_text("\n".join(lines) + "\n")


def _toml(value: Any) -> str:
    """A plain value in TOML."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return json.dumps(value) if isinstance(value, str) else repr(value)


def literal(text: str) -> Any:
    """A TOML value, or the text itself where it is none."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _experiment(tables: Mapping[str, Any]) -> Experiment:
    default = Experiment()
    _known(tables, [f.name for f in fields(Experiment)], "configuration")
    for name in ("network", "source", "path", "coupling", "training"):
        if not isinstance(tables.get(name, {}), Mapping):
            raise ValueError(f"configuration expects keys in '{name}', such as [{name}] KEY = VALUE; got {tables[name]!r}.")
    training = tables.get("training", {})
    _known(training, [f.name for f in fields(TrainingSettings)], "configuration table 'training'")
    for key, value in training.items():
        _like(f"training.{key}", value, getattr(default.training, key))
    experiment = Experiment(
        network={**({} if "target" in tables.get("network", {}) else default.network), **tables.get("network", {})},
        source={**default.source, **tables.get("source", {})},
        path={**default.path, **tables.get("path", {})},
        coupling={**default.coupling, **tables.get("coupling", {})},
        condition=tables.get("condition", default.condition),
        training=replace(default.training, **training),
    )
    if experiment.condition not in CONDITIONS:
        raise ValueError(f"unknown condition '{experiment.condition}'. {suggest(experiment.condition, CONDITIONS)}")
    if "target" in experiment.network:
        _known(experiment.network, ["target", "kwargs", "call", "time_scale"], "configuration table 'network'")
    else:
        _check_options("network", experiment.network, NETWORKS, skip=("self", "grid", "channels", "condition", "times"))
    _check_options("source", experiment.source, SOURCES, skip=("self", "grid", "channels"))
    _check_options("path", experiment.path, SCHEDULES, skip=("self",), key="schedule")
    _check_options("coupling", experiment.coupling, COUPLINGS, skip=("self",))
    _check_coupling(experiment)
    build_path(experiment.path, experiment.coupling)
    return experiment


def _check_coupling(experiment: Experiment) -> None:
    """Refuse couplings that are not whole, or that the condition or the path does not allow."""
    table = experiment.coupling
    if table["kind"] == "rectified":
        lookup("solver", table.get("solver", ModelPairs.solver), SOLVERS)
        if not table.get("model"):
            raise ValueError("coupling 'rectified' expects a model to take pairs from: coupling.model=RUN.")
        return
    coupling = COUPLINGS[table["kind"]](**_options(table, "kind"))
    if experiment.condition != "none" and getattr(coupling, "conditioned", "") == CONDITIONED[0]:
        coupling(torch.zeros(1, 1), torch.zeros(1, 1), torch.zeros(1, 1), torch.Generator())
    if isinstance(coupling, SchroedingerBridge) and experiment.path != {"schedule": "linear"}:
        raise ValueError(f"a Schrödinger bridge goes along straight lines; it expects path.schedule=linear, got {experiment.path}.")


def _known(table: Mapping[str, Any], keys: Sequence[str], where: str) -> None:
    for key in table:
        if key not in keys:
            raise ValueError(f"{where} has no key '{key}'. {suggest(key, keys)}")


def _like(key: str, value: Any, default: Any) -> None:
    """Check that a value is of the kind of a default: true or false, a whole number, a number, or a text."""
    kind, words = type(default), {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    if not isinstance(value, (int, float) if kind is float else kind) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"configuration key '{key}' expects {words[kind]} like {default!r}; got {value!r}.")


def _check_options(
    name: str, table: Mapping[str, Any], kinds: Mapping[str, Callable[..., Any]], skip: tuple[str, ...], key: str = "kind"
) -> None:
    kind = lookup(name if key == "kind" else key, table[key], kinds)
    known = {option: parameter for option, parameter in inspect.signature(kind.__init__).parameters.items() if option not in skip}
    options = {k: v for k, v in table.items() if k != key}
    _known(options, [key, *known], f"configuration table '{name}' of {key} '{table[key]}'")
    for option, value in options.items():
        several = isinstance(value, (list, tuple)) and "tuple" in str(known[option].annotation)
        for single in value if several else [value]:
            _like(f"{name}.{option}", single, known[option].default)
            if type(known[option].default) is int and single < 1:
                raise ValueError(f"configuration key '{name}.{option}' expects at least 1; got {single}.")


def _options(table: Mapping[str, Any], key: str = "kind") -> dict[str, Any]:
    return {option: tuple(value) if isinstance(value, list) else value for option, value in table.items() if option != key}


def build_network(table: Mapping[str, Any], grid: Grid, channels: int, condition: str, seed: int) -> nn.Module:
    """The network of a configuration, its weights drawn from a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if "target" in table:
            module, _, name = str(table["target"]).rpartition(".")
            try:
                kind = getattr(importlib.import_module(module), name)
            except (ImportError, AttributeError, ValueError) as error:
                raise ValueError(
                    f"network.target expects an importable class, package.module.Class; '{table['target']}' is not: {error}."
                ) from error
            if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
                raise ValueError(f"network.target expects a class of networks, a torch.nn.Module; '{table['target']}' is none.")
            built: nn.Module = kind(**table.get("kwargs", {}))
            return built
        extra = channels if condition == "initial" else 0
        try:
            return NETWORKS[table["kind"]](grid, channels, extra, **_options(table))
        except RuntimeError as error:
            raise ValueError(f"network '{table['kind']}' does not fit fields on {grid}: {' '.join(str(error).split())[:200]}") from error


def build_source(table: Mapping[str, Any], grid: Grid, channels: int) -> Source:
    """The source of a configuration."""
    return SOURCES[table["kind"]](grid, channels, **_options(table))


def build_path(table: Mapping[str, Any], coupling: Mapping[str, Any]) -> Path:
    """The path of a configuration: Brownian bridges under a coupling of that name, affine otherwise."""
    if coupling["kind"] == "schroedinger-bridge":
        return BridgePath(coupling.get("noise", SchroedingerBridge.noise))
    return AffinePath(SCHEDULES[table["schedule"]](**_options(table, "schedule")))


def build_coupling(
    table: Mapping[str, Any],
    units: Units,
    source: Source,
    conditions: Callable[[int], Tensor | None] = lambda count: None,
    device: torch.device | None = None,
) -> Coupling:
    """The coupling of a configuration.

    Arguments:
        table: the configuration.
        units: of the run, into which fields of a model are put.
        source: of the run, which a model that makes pairs must have too.
        conditions: so many conditions of the network.
        device: where a model makes its pairs.

    Raises:
        ValueError: a model on other fields, from other noise, or with another condition.
    """
    if table["kind"] != "rectified":
        coupling: Coupling = COUPLINGS[table["kind"]](**_options(table))
        return coupling
    settings = ModelPairs(**_options(table))
    teacher, start = load(settings.model, device or "cpu"), torch.Generator().manual_seed(0)
    if teacher.grid != source.grid or len(teacher.channels) != source.channels:
        raise ValueError(f"coupling.model expects a model of {source.channels} channels on {source.grid}; '{settings.model}' is not.")
    probe = torch.randn(1, source.channels, *source.grid.shape, generator=start)
    if not torch.allclose(teacher.source.colour(probe), source.colour(probe), atol=1e-5):
        raise ValueError(f"coupling.model expects a model with the source of this run; '{settings.model}' has another.")
    made, condition = [], conditions(settings.count)
    times = torch.linspace(0, 1, settings.steps + 1)
    x0 = source.colour(torch.randn(settings.count, *probe.shape[1:], generator=start))
    for first in range(0, settings.count, 64):
        here = slice(first, first + 64)
        given = None if condition is None else condition[here]
        rule = solver_on(settings.solver, teacher.path)(teacher.velocity(given))
        with torch.no_grad():
            x1 = rule(teacher.path.start(x0[here]), times)
        made.append(units.normalise(teacher.units.physical(x1)).to(x0))
    return Rectified(Pairs(x0, torch.cat(made), condition))


def fit(
    data: Fields,
    experiment: Experiment,
    folder: FilePath,
    *,
    resume: bool = False,
    start: Flow | None = None,
    device: torch.device | None = None,
    progress: Callable[[int, dict[str, float]], None] = lambda step, entry: None,
    card: Mapping[str, Any] | None = None,
) -> Flow:
    """Train a flow on fields and save it in a run folder.

    Arguments:
        data: training fields; the last ones are held out for validation.
        experiment: network, source, path, condition, settings.
        folder: an existing folder; `state.pt`, `log.jsonl`, `weights.safetensors` and `model.json` are written to it.
        resume: go on from the folder's state.
        start: a flow with the same network, whose weights to begin with.
        device: where to train; the CPU by default.
        progress: called after each step with its number and, now and then, losses.
        card: what to keep about data and licence.

    Raises:
        ValueError: the fields hold NaN or Inf, a setting does not fit them, or training diverges.
    """
    if experiment.condition == "initial" and not data.grid.has_time:
        raise ValueError(f"condition 'initial' expects fields with a time axis; these are on ({', '.join(data.grid.names)}).")
    settings = experiment.training
    units = measured_units(data[: len(data) - held_out(len(data), settings.validation)])

    def prepare(u: Tensor) -> tuple[Tensor, Tensor | None]:
        x = units.normalise(u.to(torch.float32))
        return x, initial_channels(x, data.grid) if experiment.condition == "initial" else None

    network = build_network(experiment.network, data.grid, len(data.channels), experiment.condition, settings.seed)
    if start is not None:
        _begin_with(network, start.network)
    path, source = build_path(experiment.path, experiment.coupling), build_source(experiment.source, data.grid, len(data.channels))
    flow = Flow(
        network,
        path,
        source,
        units,
        data.grid,
        data.channels,
        data.units,
        roles=dict(data.roles),
        laws=data.laws,
        condition=experiment.condition,
        call=experiment.network.get("call", "x,t") if "target" in experiment.network else "x,t,condition",
        time_scale=experiment.network.get("time_scale", 1.0) if "target" in experiment.network else 1.0,
        independent=_independent(experiment.coupling),
        card=dict(card or {}),
    )
    velocity = NetworkVelocity(network, flow.call, time_scale=flow.time_scale)
    where, fields_ = device or torch.device("cpu"), Data(data.u, settings.validation, prepare)

    def conditions(count: int) -> Tensor | None:
        return prepare(data.u[torch.arange(count) % fields_.count])[1]

    coupling = build_coupling(experiment.coupling, units, source, conditions, where)
    trainer = Trainer(velocity, path, source, fields_, settings, folder, where, coupling)
    if resume and (folder / "state.pt").exists():
        trainer.restore()
    trainer.run(progress)
    network.load_state_dict(trainer.average)
    flow.card |= {"history": trainer.history, "network_calls": velocity.calls}
    save(flow, experiment, folder)
    return flow


def measured_units(data: Fields) -> Units:
    """Units in which fields have mean 0 and variance 1, from moments of blocks, so that a file larger than memory can be measured.

    Raises:
        ValueError: a value is NaN or infinite.

    Source:
        Chan, Golub & LeVeque, The American Statistician 37 (1983) 242, for the sum of two variances.
    """
    count, mean, variance = 0, torch.zeros(()), torch.zeros(())
    for first in range(0, len(data), BLOCK):
        u = data.u[first : min(first + BLOCK, len(data))].to(torch.float32)
        if not torch.isfinite(u).all():
            raise ValueError(f"training expects finite fields; got {int((~torch.isfinite(u)).sum())} values that are NaN or Inf.")
        dims = [d for d in range(u.ndim) if d != 1]
        size, here = len(u), u.mean(dims, dtype=torch.float64)
        spread = u.to(torch.float64).var(dims, correction=0)
        share = size / (count + size)
        variance = variance + share * (spread - variance) + share * (1 - share) * (here - mean).square()
        mean, count = mean + share * (here - mean), count + size
    return Units.of_moments(mean, variance, data.units)


def _independent(coupling: Mapping[str, Any]) -> bool:
    """Whether noise and data of a coupling are independent."""
    return bool(getattr(COUPLINGS[coupling["kind"]], "independent", False))


def _begin_with(network: nn.Module, other: nn.Module) -> None:
    """Copy the weights of a network of the same architecture.

    Raises:
        ValueError: it is of another.
    """
    try:
        network.load_state_dict(other.state_dict())
    except RuntimeError as error:
        raise ValueError(f"starting from a model expects its network configuration: {' '.join(str(error).split())[:200]}") from error


def save(flow: Flow, experiment: Experiment, folder: FilePath, dtype: torch.dtype | None = None) -> None:
    """Write a flow's weights and description into a folder."""
    save_weights(folder / "weights.safetensors", flow.network.state_dict(), dtype)
    tables = asdict(experiment)
    save_description(folder / "model.json", describe(flow, tables))


def shipped() -> dict[str, FilePath]:
    """Folders of the models that come with the package."""
    return {file.parent.name: file.parent for file in sorted(MODELS.glob("*/model.json"))}


def on_points(grid: Grid, points: Mapping[str, int]) -> Grid:
    """A grid with other numbers of points on some periodic axes.

    Raises:
        ValueError: an axis that there is not, that is bounded, or of less than two points.
    """
    for name, count in points.items():
        axis = lookup("axis", name, {axis.name: axis for axis in grid.axes})
        if not (axis.periodic and axis.uniform):
            raise ValueError(f"another resolution expects a periodic axis of equal steps; '{name}' is none.")
        if count < 2:
            raise ValueError(f"another resolution expects at least 2 points on axis '{name}'; got {count}.")
    return Grid(*(replace(axis, points=points.get(axis.name, axis.points)) for axis in grid.axes))


def load(name: str | FilePath, device: torch.device | str = "cpu", points: Mapping[str, int] | None = None) -> Flow:
    """A shipped model by name, or that of a run folder.

    Arguments:
        name: of the model, or its folder.
        device: where it runs.
        points: other numbers of points on periodic axes than it was trained on. Sample i of a seed is then drawn from the same function
            of noise as on its own grid, with finer modes besides.

    Raises:
        ValueError: no such model or folder, damaged files, or a network that belongs to its own grid.
    """
    folder = shipped().get(str(name), FilePath(name))
    if not folder.is_dir():
        raise ValueError(f"no model '{name}': neither a run folder nor a shipped model. {suggest(str(name), shipped())}")
    description = read_description(folder / "model.json")
    own = grid_from(description)
    grid = on_points(own, points or {})
    channels = len(description["channels"])
    try:
        coupling = description.get("coupling", {"kind": "independent"})
        _experiment({**{key: description[key] for key in ("network", "source", "path", "condition")}, "coupling": coupling})
    except ValueError as error:
        raise ValueError(f"{folder / 'model.json'}: {error}") from error
    network = build_network(description["network"], grid, channels, description["condition"], seed=0)
    if grid.shape != own.shape and not _resolves(network, own, grid):
        raise ValueError(
            f"model '{name}' belongs to its grid {own.shape}: other numbers of points expect a network of kind 'fourier-operator' whose "
            "modes are at most half of the points of either grid."
        )
    load_weights(folder / "weights.safetensors", network)
    return Flow(
        network.to(device).eval(),
        build_path(description["path"], coupling),
        build_source(description["source"], own, channels).on(grid),
        Units(*(torch.tensor(description["units"][key], dtype=torch.float64) for key in ("shift", "scale"))),
        grid,
        tuple(description["channels"]),
        tuple(description["channel_units"]),
        roles={role: tuple(names) for role, names in description["roles"].items()},
        laws=tuple(description["laws"]),
        condition=description["condition"],
        call=description["call"],
        time_scale=description["time_scale"],
        independent=_independent(coupling),
        card=description["card"],
    )


def _resolves(network: nn.Module, own: Grid, grid: Grid) -> bool:
    """Whether the weights of a network mean the same on another grid."""
    changed = [min(a, b) for a, b in zip(own.shape, grid.shape, strict=True) if a != b]
    return isinstance(network, FourierOperator) and network.modes <= min(changed) // 2


def wrap(
    module: nn.Module,
    *,
    grid: Grid,
    channels: Sequence[str] = ("u",),
    call: str = "x,t",
    path: Path | str = "linear",
    source: Source | str = "white",
    units: Units | None = None,
    roles: Mapping[str, Sequence[str]] | None = None,
    channel_units: Sequence[str] | None = None,
    time_scale: float = 1.0,
) -> Flow:
    """Any module, trained elsewhere, as a flow that samples here.

    Arguments:
        module: predicts the velocity of normalised fields, noise at t = 0 and data at t = 1.
        grid: what the fields live on.
        channels: name of each channel.
        call: how the module takes its input, one of `pcfm.velocity.CALLS`.
        path: the path it was trained on, a `Path` or the name of a schedule.
        source: the noise it was trained with, a `Source` or its kind.
        units: map between its normalised fields and physical ones; the identity by default.
        roles: channels that play a part in laws, such as {"velocity": ("u", "v")}.
        channel_units: unit of each channel.
        time_scale: factor on flow time before the module sees it.

    Raises:
        ValueError: an unknown name.
    """
    names = tuple(channels)
    if isinstance(path, str):
        path = AffinePath(lookup("schedule", path, SCHEDULES)())
    if isinstance(source, str):
        source = lookup("source", source, SOURCES)(grid, len(names))
    return Flow(
        module,
        path,
        source,
        units or Units.identity(len(names)),
        grid,
        names,
        tuple(channel_units or ("1",) * len(names)),
        roles={role: tuple(parts) for role, parts in (roles or {}).items()},
        call=call,
        time_scale=time_scale,
    )


def condition_for(flow: Flow, data: Tensor | None, count: int) -> Tensor | None:
    """The network's condition for some samples, from physical fields or initial data, one each, repeated cyclically."""
    if flow.condition == "none":
        return None
    if data is None:
        raise ValueError("this model was trained on initial data (condition 'initial'); it expects some: --condition FILE.")
    index = torch.arange(count) % len(data)
    return initial_channels(flow.units.normalise(data[index].to(torch.float64)), flow.grid)
