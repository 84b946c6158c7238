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
from pcfm.flow import Flow, describe, grid_from, initial_channels, load_weights, read_description, save_description, save_weights
from pcfm.naming import lookup, suggest
from pcfm.networks import FourierOperator, PatchTransformer, Perceptron
from pcfm.path import AffinePath, Path
from pcfm.schedule import Cosine, Linear, Schedule
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
SCHEDULES: dict[str, type[Schedule]] = {"linear": Linear, "cosine": Cosine}
CONDITIONS = ("none", "initial")
MODELS = FilePath(__file__).parent / "models"


@dataclass(frozen=True)
class Experiment:
    """What a training run is made of: the tables of a configuration file.

    Attributes:
        network: `kind` and the arguments of its constructor; or `target`, `kwargs` and `call` for a class of another package.
        source: `kind` and the arguments of its constructor.
        path: `schedule`.
        condition: what the network is given besides the state, "none" or "initial".
        training: how to fit.
    """

    network: dict[str, Any] = field(default_factory=lambda: {"kind": "fourier-operator"})
    source: dict[str, Any] = field(default_factory=lambda: {"kind": "smooth"})
    path: dict[str, Any] = field(default_factory=lambda: {"schedule": "linear"})
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
    for name in ("network", "source", "path", "training"):
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
        condition=tables.get("condition", default.condition),
        training=replace(default.training, **training),
    )
    if experiment.condition not in CONDITIONS:
        raise ValueError(f"unknown condition '{experiment.condition}'. {suggest(experiment.condition, CONDITIONS)}")
    if "target" in experiment.network:
        _known(experiment.network, ["target", "kwargs", "call", "time_scale"], "configuration table 'network'")
    else:
        _check_options("network", experiment.network, NETWORKS, skip=("self", "grid", "channels", "condition"))
    _check_options("source", experiment.source, SOURCES, skip=("self", "grid", "channels"))
    _known(experiment.path, ["schedule"], "configuration table 'path'")
    lookup("schedule", experiment.path["schedule"], SCHEDULES)
    return experiment


def _known(table: Mapping[str, Any], keys: Sequence[str], where: str) -> None:
    for key in table:
        if key not in keys:
            raise ValueError(f"{where} has no key '{key}'. {suggest(key, keys)}")


def _like(key: str, value: Any, default: Any) -> None:
    """Check that a value is of the kind of a default: a whole number, a number, or a text."""
    kind, words = type(default), {int: "a whole number", float: "a number", str: "a text"}
    if not isinstance(value, (int, float) if kind is float else kind) or isinstance(value, bool):
        raise ValueError(f"configuration key '{key}' expects {words[kind]} like {default!r}; got {value!r}.")


def _check_options(name: str, table: Mapping[str, Any], kinds: Mapping[str, Callable[..., Any]], skip: tuple[str, ...]) -> None:
    kind = lookup(name, table["kind"], kinds)
    known = {key: parameter for key, parameter in inspect.signature(kind.__init__).parameters.items() if key not in skip}
    options = {k: v for k, v in table.items() if k != "kind"}
    _known(options, list(known), f"configuration table '{name}' of kind '{table['kind']}'")
    for key, value in options.items():
        several = isinstance(value, (list, tuple)) and "tuple" in str(known[key].annotation)
        for single in value if several else [value]:
            _like(f"{name}.{key}", single, known[key].default)
            if isinstance(known[key].default, int) and single < 1:
                raise ValueError(f"configuration key '{name}.{key}' expects at least 1; got {single}.")


def _options(table: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in table.items() if key != "kind"}


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


def build_path(table: Mapping[str, Any]) -> Path:
    """The path of a configuration."""
    return AffinePath(SCHEDULES[table["schedule"]]())


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
    path, source = build_path(experiment.path), build_source(experiment.source, data.grid, len(data.channels))
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
        card=dict(card or {}),
    )
    velocity = NetworkVelocity(network, flow.call, time_scale=flow.time_scale)
    trainer = Trainer(velocity, path, source, Data(data.u, settings.validation, prepare), settings, folder, device or torch.device("cpu"))
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


def load(name: str | FilePath, device: torch.device | str = "cpu") -> Flow:
    """A shipped model by name, or that of a run folder.

    Raises:
        ValueError: no such model or folder, or damaged files.
    """
    folder = shipped().get(str(name), FilePath(name))
    if not folder.is_dir():
        raise ValueError(f"no model '{name}': neither a run folder nor a shipped model. {suggest(str(name), shipped())}")
    description = read_description(folder / "model.json")
    grid = grid_from(description)
    channels = len(description["channels"])
    try:
        _experiment({key: description[key] for key in ("network", "source", "path", "condition")})
    except ValueError as error:
        raise ValueError(f"{folder / 'model.json'}: {error}") from error
    network = build_network(description["network"], grid, channels, description["condition"], seed=0)
    load_weights(folder / "weights.safetensors", network)
    return Flow(
        network.to(device).eval(),
        build_path(description["path"]),
        build_source(description["source"], grid, channels),
        Units(*(torch.tensor(description["units"][key], dtype=torch.float64) for key in ("shift", "scale"))),
        grid,
        tuple(description["channels"]),
        tuple(description["channel_units"]),
        roles={role: tuple(names) for role, names in description["roles"].items()},
        laws=tuple(description["laws"]),
        condition=description["condition"],
        call=description["call"],
        time_scale=description["time_scale"],
        card=description["card"],
    )


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
