"""Configurations: what there is by name, what each table of a file may hold, and the objects that tables make."""

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
from torch import nn

from constraints import Grid
from pcfm.coupling import CONDITIONED, EntropicTransport, Independent, OptimalTransport, SchroedingerBridge, UnbalancedTransport
from pcfm.flow_map import OBJECTIVES as MAPS
from pcfm.flow_map import FlowMapObjective
from pcfm.methods import SOLVERS
from pcfm.naming import lookup, suggest
from pcfm.networks import FourierOperator, PatchTransformer, Perceptron, TwoTimes
from pcfm.objective import Objective
from pcfm.path import AffinePath, BridgePath, Path
from pcfm.schedule import Cosine, Linear, LinearSignal, Polynomial, Schedule, VarianceExploding, VariancePreserving
from pcfm.source import SmoothNoise, Source, WhiteNoise
from pcfm.training import TrainingSettings
from pcfm.velocity import TWO_TIMES

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
OBJECTIVES: dict[str, type] = {"flow-matching": Objective, **MAPS}
"""What training minimises: flow matching makes a velocity, the others make flow maps."""

CONDITIONS = ("none", "initial")


@dataclass(frozen=True)
class Experiment:
    """What a training run is made of: the tables of a configuration file.

    Attributes:
        network: `kind` and the arguments of its constructor; or `target`, `kwargs` and `call` for a class of another package.
        source: `kind` and the arguments of its constructor.
        path: `schedule` and the arguments of its constructor.
        coupling: `kind` and the arguments of its constructor.
        objective: `kind` and its options; `teacher`, a run folder or the name of a shipped model, for kinds that distil one.
        condition: what the network is given besides the state, "none" or "initial".
        training: how to fit.
    """

    network: dict[str, Any] = field(default_factory=lambda: {"kind": "fourier-operator"})
    source: dict[str, Any] = field(default_factory=lambda: {"kind": "smooth"})
    path: dict[str, Any] = field(default_factory=lambda: {"schedule": "linear"})
    coupling: dict[str, Any] = field(default_factory=lambda: {"kind": "independent"})
    objective: dict[str, Any] = field(default_factory=lambda: {"kind": "flow-matching"})
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
    return checked(tables)


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


def checked(tables: Mapping[str, Any]) -> Experiment:
    """The experiment of some tables, the others by default.

    Raises:
        ValueError: a key that there is not, a value of another kind, or settings that exclude each other.
    """
    default = Experiment()
    _known(tables, [f.name for f in fields(Experiment)], "configuration")
    for name in ("network", "source", "path", "coupling", "objective", "training"):
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
        objective={**default.objective, **tables.get("objective", {})},
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
    _check_objective(experiment)
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
    coupling = COUPLINGS[table["kind"]](**options_of(table, "kind"))
    if experiment.condition != "none" and getattr(coupling, "conditioned", "") == CONDITIONED[0]:
        coupling(torch.zeros(1, 1), torch.zeros(1, 1), torch.zeros(1, 1), torch.Generator())
    if isinstance(coupling, SchroedingerBridge) and experiment.path != {"schedule": "linear"}:
        raise ValueError(f"a Schrödinger bridge goes along straight lines; it expects path.schedule=linear, got {experiment.path}.")


def _check_objective(experiment: Experiment) -> None:
    """Refuse objectives that are not whole, or that do not go with the network or the settings of training."""
    table, training, network = experiment.objective, experiment.training, experiment.network
    kind = table["kind"]
    distils = getattr(lookup("objective", kind, OBJECTIVES), "distils", False)
    if distils and not (isinstance(table.get("teacher"), str) and table["teacher"]):
        raise ValueError(f"objective '{kind}' distils a trained model; it expects one: objective.teacher=RUN.")
    if not distils and "teacher" in table:
        others = ", ".join(name for name, other in OBJECTIVES.items() if getattr(other, "distils", False))
        raise ValueError(f"objective '{kind}' learns from data and takes no teacher; those that do: {others}. Leave objective.teacher out.")
    _check_options("objective", {k: v for k, v in table.items() if k != "teacher"}, OBJECTIVES, skip=("self", "path", "times", "weight"))
    is_map = build_objective(table) is not None
    if is_map and (training.times, training.weight) != (TrainingSettings.times, TrainingSettings.weight):
        raise ValueError(f"training.times and training.weight are those of flow matching; '{kind}' draws times of its own. Leave them out.")
    if "target" in network and (network.get("call", "x,t") in TWO_TIMES) != is_map:
        raise ValueError(
            f"objective '{kind}' expects a network of {'two times, network.call=x,r,t' if is_map else 'one time'}; "
            f"got network.call='{network.get('call', 'x,t')}'."
        )


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


def options_of(table: Mapping[str, Any], key: str = "kind") -> dict[str, Any]:
    """What a table holds besides its kind, as constructors take it."""
    return {option: tuple(value) if isinstance(value, list) else value for option, value in table.items() if option != key}


def build_network(
    table: Mapping[str, Any], grid: Grid, channels: int, condition: str, seed: int, objective: Mapping[str, Any] | None = None
) -> nn.Module:
    """The network of a configuration, its weights drawn from a seed; of two times where the objective is that of a flow map."""
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
            if objective is None or build_objective(objective) is None:
                return NETWORKS[table["kind"]](grid, channels, extra, **options_of(table))
            return TwoTimes(NETWORKS[table["kind"]](grid, channels, extra, **options_of(table), times=2))
        except RuntimeError as error:
            raise ValueError(f"network '{table['kind']}' does not fit fields on {grid}: {' '.join(str(error).split())[:200]}") from error


def build_source(table: Mapping[str, Any], grid: Grid, channels: int) -> Source:
    """The source of a configuration."""
    return SOURCES[table["kind"]](grid, channels, **options_of(table))


def build_path(table: Mapping[str, Any], coupling: Mapping[str, Any]) -> Path:
    """The path of a configuration: Brownian bridges under a coupling of that name, affine otherwise."""
    if coupling["kind"] == "schroedinger-bridge":
        return BridgePath(coupling.get("noise", SchroedingerBridge.noise))
    return AffinePath(SCHEDULES[table["schedule"]](**options_of(table, "schedule")))


def build_objective(table: Mapping[str, Any]) -> FlowMapObjective | None:
    """The flow map's objective of a configuration, None for flow matching."""
    kind = OBJECTIVES[table["kind"]]
    if kind is Objective:
        return None
    made: FlowMapObjective = kind(**{key: value for key, value in options_of(table).items() if key != "teacher"})
    return made


def call_of(experiment: Experiment) -> tuple[str, float]:
    """How the network of an experiment takes its input, and the factor on its times."""
    if "target" in experiment.network:
        return experiment.network.get("call", "x,t"), experiment.network.get("time_scale", 1.0)
    return ("x,t,condition" if build_objective(experiment.objective) is None else "x,r,t,condition"), 1.0


def independent(coupling: Mapping[str, Any]) -> bool:
    """Whether noise and data of a coupling are independent."""
    return bool(getattr(COUPLINGS[coupling["kind"]], "independent", False))
