"""A flow: everything it takes to sample, in one object, and on disk as weights beside a description."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

import torch
from torch import Tensor, nn

from constraints import Axis, Grid, Units
from pcfm.flow_map import FlowMapObjective
from pcfm.path import Path
from pcfm.source import Source
from pcfm.velocity import TWO_TIMES, NetworkVelocity

FORMAT = "pcfm-flow"
_DESCRIBED: dict[str, type | tuple[type, ...]] = {
    "network": dict,
    "source": dict,
    "path": dict,
    "grid": list,
    "channels": list,
    "channel_units": list,
    "units": dict,
    "roles": dict,
    "laws": list,
    "condition": str,
    "call": str,
    "time_scale": (int, float),
    "card": dict,
}
VERSION = 1


@dataclass
class Flow:
    """A network, a velocity or a flow map, with the path, source, grid and units it belongs to.

    Attributes:
        network: the network, on normalised fields.
        path: how noise becomes data.
        source: distribution at t = 0.
        units: map between normalised and physical fields.
        grid: what the fields live on.
        channels: name of each channel.
        channel_units: unit of each channel.
        roles: channels that play a part in laws.
        laws: laws its training data state.
        condition: what the network is given besides the state: "none", or "initial" for the fields at the first time.
        call: how the network takes its input.
        time_scale: factor on flow time before the network sees it.
        independent: whether it was trained on noise that is independent of the data, so that scores follow from velocities.
        objective: of a flow map what it has been trained by, which says what jumps it has learnt; None of a velocity.
        card: data, training, licence: plain values.

    Raises:
        ValueError: a network of two times without an objective, or of one with it.
    """

    network: nn.Module
    path: Path
    source: Source
    units: Units
    grid: Grid
    channels: tuple[str, ...]
    channel_units: tuple[str, ...]
    roles: dict[str, tuple[str, ...]] = field(default_factory=dict)
    laws: tuple[str, ...] = ()
    condition: str = "none"
    call: str = "x,t,condition"
    time_scale: float = 1.0
    independent: bool = True
    objective: FlowMapObjective | None = None
    card: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.call in TWO_TIMES) != (self.objective is not None):
            raise ValueError(
                f"a flow map expects a call of two times ({' or '.join(TWO_TIMES)}) and the objective it was trained by, "
                f"a velocity neither; got call '{self.call}' and objective {self.objective}."
            )

    def velocity(self, condition: Tensor | None = None) -> NetworkVelocity:
        """The velocity of the flow, for samples with these conditions.

        Raises:
            ValueError: the flow was trained with a condition and gets none, or the other way round; a flow map that has not learnt it.
        """
        if self.objective is not None and not self.objective.follows:
            raise ValueError(f"the velocity of a flow is asked for; this flow map has learnt {self.objective.learnt()} and no velocity.")
        return self.given(condition)

    def given(self, condition: Tensor | None = None) -> NetworkVelocity:
        """The network in evaluation mode, a velocity or the average velocity of a flow map, for samples with these conditions.

        Raises:
            ValueError: the flow was trained with a condition and gets none, or the other way round.
        """
        if (condition is None) != (self.condition == "none"):
            if condition is None:
                raise ValueError(f"this flow was trained with the condition '{self.condition}'; it expects one to sample.")
            raise ValueError("this flow was trained without a condition; it cannot take one.")
        return NetworkVelocity(self.network.eval(), self.call, condition, self.time_scale)


def initial_channels(x: Tensor, grid: Grid) -> Tensor:
    """The condition "initial": the first time of normalised fields (B, C, T, *space), or initial data (B, C, *space), at every time."""
    first = x.select(grid.dim("time"), 0) if x.ndim == len(grid.axes) + 2 else x
    return first.unsqueeze(2).expand(-1, -1, grid.axes[0].points, *first.shape[2:])


def describe(flow: Flow, build: Mapping[str, Any]) -> dict[str, Any]:
    """The description from which a flow is rebuilt, given how its network, source and path are built."""
    return {
        "format": FORMAT,
        "version": VERSION,
        **build,
        "grid": [axis.to_json() for axis in flow.grid.axes],
        "channels": list(flow.channels),
        "channel_units": list(flow.channel_units),
        "units": {"shift": flow.units.shift.tolist(), "scale": flow.units.scale.tolist()},
        "roles": {role: list(names) for role, names in flow.roles.items()},
        "laws": list(flow.laws),
        "condition": flow.condition,
        "call": flow.call,
        "time_scale": flow.time_scale,
        "card": flow.card,
    }


def save_weights(file: FilePath, weights: Mapping[str, Tensor], dtype: torch.dtype | None = None) -> None:
    """Write weights as safetensors, to a temporary name first, optionally in a shorter type."""
    from safetensors.torch import save_file

    shortened = {k: (v.to(dtype) if dtype and v.is_floating_point() else v).detach().cpu().contiguous() for k, v in weights.items()}
    temporary = file.with_name(file.name + ".part")
    save_file(shortened, temporary)
    os.replace(temporary, file)


def save_description(file: FilePath, description: Mapping[str, Any]) -> None:
    """Write a description as JSON, to a temporary name first."""
    temporary = file.with_name(file.name + ".part")
    temporary.write_text(json.dumps(description, indent=2) + "\n")
    os.replace(temporary, file)


def read_description(file: FilePath) -> dict[str, Any]:
    """The description of a flow.

    Raises:
        ValueError: the file is missing, not JSON, or not a description this version knows.
    """
    if not file.exists():
        raise ValueError(f"a model expects a description {file}; there is none. Train one with `pcfm train`, or name a shipped one.")
    try:
        description: dict[str, Any] = json.loads(file.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is not a model description: {error}.") from error
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise ValueError(f"{file} is not a model description (format = '{FORMAT}').")
    version = description.get("version")
    if not isinstance(version, int) or version > VERSION:
        raise ValueError(f"{file} has version {version!r}; this toolkit reads up to {VERSION}. Upgrade it.")
    wrong = [key for key, kind in _DESCRIBED.items() if not isinstance(description.get(key), kind)]
    if wrong:
        raise ValueError(f"{file} is not a whole model description: {', '.join(wrong)} missing or of another type. Copy it again.")
    return description


def load_weights(file: FilePath, network: nn.Module) -> None:
    """Load safetensors weights into a network, in the network's own type.

    Raises:
        ValueError: the file is missing or damaged, does not fit the network, or holds NaN or Inf.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not file.exists():
        raise ValueError(f"a model expects its weights in {file}; there are none.")
    try:
        weights = load_file(file)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{file} is not a whole safetensors file: {error}.") from error
    bad = [name for name, value in weights.items() if not torch.isfinite(value).all()]
    if bad:
        raise ValueError(f"{file} holds NaN or Inf in {', '.join(bad[:3])}: the training diverged or the file is damaged.")
    try:
        network.load_state_dict({name: value.float() if value.is_floating_point() else value for name, value in weights.items()})
    except RuntimeError as error:
        raise ValueError(f"{file} does not fit its description: {' '.join(str(error).split())[:300]}") from error


def grid_from(description: Mapping[str, Any]) -> Grid:
    """The grid of a description.

    Raises:
        ValueError: an axis is malformed.
    """
    try:
        return Grid(*(Axis.from_json(axis) for axis in description["grid"]))
    except TypeError as error:
        raise ValueError(f"a model description expects axes as `Axis.to_json` writes them; got another grid: {error}.") from error
