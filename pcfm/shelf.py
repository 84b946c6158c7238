"""Models by name: shipped ones, run folders, and any module as a flow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path as FilePath

import torch
from torch import Tensor, nn

from constraints import Grid, Units
from pcfm.configuration import (
    SCHEDULES,
    SOURCES,
    Experiment,
    build_network,
    build_objective,
    build_path,
    build_source,
    checked,
    independent,
)
from pcfm.flow import Flow, describe, grid_from, initial_channels, load_weights, read_description, save_description, save_weights
from pcfm.flow_map import FlowMapObjective
from pcfm.naming import lookup, suggest
from pcfm.networks import FourierOperator, TwoTimes
from pcfm.path import AffinePath, Path
from pcfm.source import Source

MODELS = FilePath(__file__).parent / "models"


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
        objective = description.get("objective", {"kind": "flow-matching"})
        tables = {key: description[key] for key in ("network", "source", "path", "condition")}
        checked({**tables, "coupling": coupling, "objective": objective})
    except ValueError as error:
        raise ValueError(f"{folder / 'model.json'}: {error}") from error
    network = build_network(description["network"], grid, channels, description["condition"], seed=0, objective=objective)
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
        independent=independent(coupling),
        objective=build_objective(objective),
        card=description["card"],
    )


def _resolves(network: nn.Module, own: Grid, grid: Grid) -> bool:
    """Whether the weights of a network mean the same on another grid."""
    changed = [min(a, b) for a, b in zip(own.shape, grid.shape, strict=True) if a != b]
    network = network.network if isinstance(network, TwoTimes) else network
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
    objective: FlowMapObjective | None = None,
) -> Flow:
    """Any module, trained elsewhere, as a flow that samples here.

    Arguments:
        module: predicts the velocity of normalised fields, noise at t = 0 and data at t = 1; or of a flow map the average velocity.
        grid: what the fields live on.
        channels: name of each channel.
        call: how the module takes its input, one of `pcfm.velocity.CALLS`.
        path: the path it was trained on, a `Path` or the name of a schedule.
        source: the noise it was trained with, a `Source` or its kind.
        units: map between its normalised fields and physical ones; the identity by default.
        roles: channels that play a part in laws, such as {"velocity": ("u", "v")}.
        channel_units: unit of each channel.
        time_scale: factor on flow time before the module sees it.
        objective: of a flow map, whose call is one of two times, what it was trained by, such as `pcfm.flow_map.MeanFlow()`.

    Raises:
        ValueError: an unknown name, or a call and an objective that do not go together.
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
        objective=objective,
    )


def condition_for(flow: Flow, data: Tensor | None, count: int) -> Tensor | None:
    """The network's condition for some samples, from physical fields or initial data, one each, repeated cyclically."""
    if flow.condition == "none":
        return None
    if data is None:
        raise ValueError("this model was trained on initial data (condition 'initial'); it expects some: --condition FILE.")
    index = torch.arange(count) % len(data)
    return initial_channels(flow.units.normalise(data[index].to(torch.float64)), flow.grid)
