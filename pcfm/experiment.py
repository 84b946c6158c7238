"""Training runs: fields and a configuration become a flow in a folder.

The only place in the package that sees all three packages, beside the commands.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path as FilePath
from typing import Any

import torch
from torch import Tensor

from constraints import Units
from pcfm.configuration import Experiment, build_network, build_objective, build_path, build_source, call_of, independent
from pcfm.flow import Flow, initial_channels
from pcfm.shelf import save
from pcfm.teaching import begin_with, build_coupling, fits, teacher_of
from pcfm.training import BLOCK, Data, Trainer, held_out
from pcfm.velocity import NetworkVelocity
from pde_datasets import Fields


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
    """Train a flow, a velocity or a flow map, on fields and save it in a run folder.

    A student has the units of its teacher, and begins with its weights where its network is configured alike.

    Arguments:
        data: training fields; the last ones are held out for validation.
        experiment: network, source, path, objective, condition, settings.
        folder: an existing folder; `state.pt`, `log.jsonl`, `weights.safetensors` and `model.json` are written to it.
        resume: go on from the folder's state.
        start: a flow with the same network, whose weights to begin with; a flow map may begin with a velocity.
        device: where to train; the CPU by default.
        progress: called after each step with its number and, now and then, losses.
        card: what to keep about data and licence.

    Raises:
        ValueError: the fields hold NaN or Inf, a setting or a teacher does not fit them, or training diverges.
    """
    if experiment.condition == "initial" and not data.grid.has_time:
        raise ValueError(f"condition 'initial' expects fields with a time axis; these are on ({', '.join(data.grid.names)}).")
    settings = experiment.training
    where, source = device or torch.device("cpu"), build_source(experiment.source, data.grid, len(data.channels))
    measured = measured_units(data[: len(data) - held_out(len(data), settings.validation)])
    teacher = teacher_of(experiment, source, where)
    units = measured if teacher is None else teacher.units

    def prepare(u: Tensor) -> tuple[Tensor, Tensor | None]:
        x = units.normalise(u.to(torch.float32))
        return x, initial_channels(x, data.grid) if experiment.condition == "initial" else None

    network = build_network(experiment.network, data.grid, len(data.channels), experiment.condition, settings.seed, experiment.objective)
    begins = start if start is not None or teacher is None or not fits(network, teacher.network) else teacher
    if begins is not None:
        begin_with(network, begins.network)
    path, objective = build_path(experiment.path, experiment.coupling), build_objective(experiment.objective)
    call, time_scale = call_of(experiment)
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
        call=call,
        time_scale=time_scale,
        independent=independent(experiment.coupling),
        objective=objective,
        card={**(card or {}), **({} if teacher is None else {"begins_with_teacher": begins is teacher})},
    )
    velocity = NetworkVelocity(network, flow.call, time_scale=flow.time_scale)
    fields_ = Data(data.u, settings.validation, prepare)

    def conditions(count: int) -> Tensor | None:
        return prepare(data.u[torch.arange(count) % fields_.count])[1]

    coupling = build_coupling(experiment.coupling, units, source, conditions, where)
    known = None if teacher is None else NetworkVelocity(teacher.network, teacher.call, time_scale=teacher.time_scale)
    trainer = Trainer(velocity, path, source, fields_, settings, folder, where, coupling, objective, known)
    if resume and (folder / "state.pt").exists():
        trainer.restore()
    trainer.run(progress)
    network.load_state_dict(trainer.average)
    flow.card |= {"history": trainer.history, "network_calls": velocity.calls + (0 if known is None else known.calls)}
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
