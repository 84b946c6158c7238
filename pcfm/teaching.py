"""What trained models give to a training: pairs, first weights, or themselves as teachers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from constraints import Units
from pcfm.configuration import COUPLINGS, Experiment, ModelPairs, build_objective, build_path, options_of
from pcfm.coupling import Coupling, Pairs, Rectified
from pcfm.flow import Flow
from pcfm.flow_map import Consistency, Progressive
from pcfm.methods import solver_on
from pcfm.networks import TwoTimes
from pcfm.shelf import load
from pcfm.source import Source


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
        coupling: Coupling = COUPLINGS[table["kind"]](**options_of(table))
        return coupling
    settings = ModelPairs(**options_of(table))
    teacher, start = load(settings.model, device or "cpu"), torch.Generator().manual_seed(0)
    _alike("coupling.model", settings.model, teacher, source)
    made, condition = [], conditions(settings.count)
    times = torch.linspace(0, 1, settings.steps + 1)
    x0 = source.colour(torch.randn(settings.count, source.channels, *source.grid.shape, generator=start))
    for first in range(0, settings.count, 64):
        here = slice(first, first + 64)
        given = None if condition is None else condition[here]
        rule = solver_on(settings.solver, teacher.path)(teacher.velocity(given))
        with torch.no_grad():
            x1 = rule(teacher.path.start(x0[here]), times)
        made.append(units.normalise(teacher.units.physical(x1)).to(x0))
    return Rectified(Pairs(x0, torch.cat(made), condition))


def teacher_of(experiment: Experiment, source: Source, device: torch.device) -> Flow | None:
    """The model that an experiment distils, None if it learns from data alone.

    Raises:
        ValueError: it is on other fields, from other noise, on another path, has another condition, or has not learnt what the objective
            asks of it.
    """
    name, objective = experiment.objective.get("teacher"), build_objective(experiment.objective)
    if name is None:
        return None
    teacher = load(name, device)
    _alike("objective.teacher", name, teacher, source)
    if teacher.path != build_path(experiment.path, experiment.coupling):
        raise ValueError(f"objective.teacher expects a model on the path of this run, {experiment.path}; '{name}' is on {teacher.path}.")
    if teacher.condition != experiment.condition:
        raise ValueError(f"objective.teacher expects a model with condition '{experiment.condition}'; '{name}' has '{teacher.condition}'.")
    known = teacher.objective
    if known is not None and isinstance(objective, Progressive) and len(known.jumps(0.0, 0.5 / objective.steps)) != 1:
        raise ValueError(
            f"a student of {objective.steps} steps expects a velocity as teacher, or a flow map of {2 * objective.steps} steps; "
            f"'{name}' has learnt {known.learnt()}."
        )
    if known is not None and isinstance(objective, Consistency) and not known.follows:
        raise ValueError(f"consistency distillation expects a teacher that has a velocity; '{name}' has learnt {known.learnt()} alone.")
    return teacher


def begin_with(network: nn.Module, other: nn.Module) -> None:
    """Copy the weights of a network of the same architecture; a flow map begins with a velocity as the same velocity for all spans.

    Raises:
        ValueError: it is of another.
    """
    try:
        network.load_state_dict(_taken(network, other))
    except RuntimeError as error:
        raise ValueError(f"starting from a model expects its network configuration: {' '.join(str(error).split())[:200]}") from error


def fits(network: nn.Module, other: nn.Module) -> bool:
    """Whether a network can begin with the weights of another."""
    own, given = network.state_dict(), _taken(network, other)
    return {name: value.shape for name, value in own.items()} == {name: value.shape for name, value in given.items()}


def _taken(network: nn.Module, other: nn.Module) -> dict[str, Tensor]:
    """The weights of another network as this one takes them."""
    weights = other.state_dict()
    return network.lifted(weights) if isinstance(network, TwoTimes) and not isinstance(other, TwoTimes) else weights


def _alike(key: str, name: str, model: Flow, source: Source) -> None:
    """Refuse a model on other fields or from other noise."""
    if model.grid != source.grid or len(model.channels) != source.channels:
        raise ValueError(f"{key} expects a model of {source.channels} channels on {source.grid}; '{name}' is not.")
    probe = torch.randn(1, source.channels, *source.grid.shape, generator=torch.Generator().manual_seed(0))
    if not torch.allclose(model.source.colour(probe), source.colour(probe), atol=1e-5):
        raise ValueError(f"{key} expects a model with the source of this run; '{name}' has another.")
