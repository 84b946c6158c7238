r"""What the error of a flow's fields is made of: the steps of the solver, and the velocity that has been learnt.

The velocity is set against two stand-ins for the right one, each with what it can tell:

* the mean of an ensemble of flows, trained alike: what training leaves open. What all members get wrong alike is not seen.
* the velocity of the held-out fields themselves (`EmpiricalVelocity`), up to the time from which fewer than five of them have weight:
  beyond, it is that of a memory. Of large fields that is early.

Each is carried to the end of the trajectory to first order. How straight the trajectories are says how few steps they need; the jumps of a
flow map are set against its own velocity. Values are in standard deviations of the data.

Source:
    After Zhou & Liu, ICML 2025, PMLR 267:78903, who prove the parts to be these.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pcfm.discretisation import discretisation_error
from pcfm.errors import EmpiricalVelocity, Regression, regression
from pcfm.flow import Flow
from pcfm.generation import sample
from pcfm.path import AffinePath
from pcfm.report import Column
from pcfm.straightness import straightness
from pcfm.velocity import Velocity
from pde_datasets import Fields

COLUMNS = (
    Column("part", "part"),
    Column("setting", "setting"),
    Column("value", "error", format=".2g"),
    Column("end", "carried to the end", format=".2g"),
    Column("high", "95 % of samples below", format=".2g"),
    Column("note", "note"),
)

_EFFECTIVE = 5.0
"""Fields with weight below which the velocity of the data is that of a memory."""

_TOLERANCE = 0.01
"""Error of the steps that steps are recommended for, in standard deviations of the data."""

_FEW = (1, 2, 4)
"""Numbers of jumps of flow maps."""

_NODES = 33
"""Times of a trajectory."""


def error_report(
    flows: Sequence[Flow],
    reference: Fields,
    *,
    steps: Sequence[int] = (10, 25, 50),
    solver: str = "euler",
    count: int = 16,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """One row a part.

    Arguments:
        flows: the flow, and further members of its ensemble.
        reference: fields that it has not been trained on, on its grid.
        steps: numbers of steps to estimate the error of.
        solver: one of `pcfm.methods.SOLVERS`.
        count: trajectories.
        seed: of their noise.

    Raises:
        ValueError: no flow, one with a condition or without a velocity, flows of different grids or sources, or fields that do not fit.
    """
    if not flows:
        raise ValueError("an error report expects at least one flow.")
    first = flows[0]
    for flow in flows:
        if flow.condition != "none":
            raise ValueError("an error report expects a flow without a condition; this one was trained with one.")
        flow.velocity()
        if flow.grid.shape != reference.grid.shape or len(flow.channels) != len(reference.channels):
            raise ValueError(
                f"an error report expects fields on the flow's grid, ({', '.join(flow.grid.names)}) of {flow.grid.shape}; "
                f"got {reference.grid.shape}."
            )
        if type(flow.source) is not type(first.source):
            raise ValueError("an ensemble expects flows of one source.")
    rows = _steps(first, steps, solver, count, seed)
    streams = [torch.Generator().manual_seed(seed * 1_000_003 + i) for i in range(count)]
    x0 = first.source.sample(streams, torch.float64)
    rows += _jumps(first, count, seed)
    rows.append(_straight(first, x0))
    if len(flows) > 1:
        rows.append(_ensemble(flows, x0))
    rows.append(_held_out(first, reference, x0))
    return rows


def _steps(flow: Flow, steps: Sequence[int], solver: str, count: int, seed: int) -> list[dict[str, Any]]:
    rows = []
    for number in steps:
        settings = {"steps": number, "solver": solver, "seed": seed}
        found = discretisation_error(flow, sample(flow, count, **settings), count, **settings)  # type: ignore[arg-type]
        if found is None:
            raise ValueError(f"an error report expects a solver of fixed steps; '{solver}' has a tolerance instead.")
        note = f"{found.recommended(number, _TOLERANCE)} steps for {_TOLERANCE}"
        rows.append({"part": "steps", "setting": f"{solver}, {number} steps", "value": found.relative, "end": found.relative, "note": note})
    return rows


def _jumps(flow: Flow, count: int, seed: int) -> list[dict[str, Any]]:
    """Few jumps of a flow map against a fine solve of its own velocity; nothing of a velocity."""
    if flow.objective is None:
        return []
    rows, fine = [], sample(flow, count, steps=_NODES, solver="rk4", seed=seed)
    for number in _FEW:
        if len(flow.objective.jumps(0.0, 1 / number)) == 1:
            few = sample(flow, count, steps=number, seed=seed)
            sound = ~(few.failed | fine.failed)
            value = float((flow.units.normalise(few.u[sound]) - flow.units.normalise(fine.u[sound])).square().mean().sqrt())
            setting = f"{number} jump{'s' if number > 1 else ''}"
            rows.append({"part": "jumps", "setting": setting, "value": value, "end": value, "note": "from its own velocity, solved finely"})
    return rows


def _straight(flow: Flow, x0: Tensor) -> dict[str, Any]:
    """One Euler step against a fine solve, and how straight the trajectories are on which that depends."""
    found = straightness(flow.velocity(), flow.path.start(x0))
    row = {"part": "straightness", "setting": "one euler step", "value": found.one_step, "end": found.one_step, "bend": found.relative}
    return row | {"note": f"trajectories deviate from their chords by {found.relative:.2g} of the squared distance; 0 is straight"}


def _ensemble(flows: Sequence[Flow], x0: Tensor) -> dict[str, Any]:
    """A member against the mean of all, scaled to the standard deviation of members."""
    velocities = [flow.velocity() for flow in flows]

    def mean(x: Tensor, t: Tensor) -> Tensor:
        return torch.stack([velocity(x, t) for velocity in velocities]).mean(0)

    found = _carried(velocities[0], mean, x0, 1.0)
    scale = (len(flows) / (len(flows) - 1)) ** 0.5
    return _row(found, f"ensemble of {len(flows)}", scale, "what training leaves open")


def _held_out(flow: Flow, reference: Fields, x0: Tensor) -> dict[str, Any]:
    data = flow.units.normalise(reference.values.to(torch.float64))
    assert isinstance(flow.path, AffinePath)
    empirical = EmpiricalVelocity(data, flow.path, flow.source.whiten)
    last = 0.0
    for t in torch.linspace(0, 1, _NODES, dtype=torch.float64)[1:-1]:
        states = flow.path.sample(x0, data[torch.arange(len(x0)) % len(data)], t).x_t
        if float(empirical.effective(states, t).median()) < _EFFECTIVE:
            break
        last = float(t)
    row = {"part": "velocity", "setting": "held-out data", "until": last}
    if not last:
        return row | {
            "value": None,
            "end": None,
            "high": None,
            "note": f"not known: fewer than {_EFFECTIVE:.0f} fields have weight at any time",
        }
    note = f"until t = {last:.2f}, from where fewer than {_EFFECTIVE:.0f} of {len(data)} fields have weight; carried to there"
    return row | _row(_carried(flow.velocity(), empirical, x0, last), "held-out data", 1.0, note)


def _carried(velocity: Velocity, reference: Velocity, x0: Tensor, end: float) -> Regression:
    return regression(velocity, reference, x0, torch.linspace(0, end, _NODES, dtype=x0.dtype))


def _row(found: Regression, setting: str, scale: float, note: str) -> dict[str, Any]:
    carried = scale * found.propagated
    return {
        "part": "velocity",
        "setting": setting,
        "value": scale * float(found.error.square().mean().sqrt()),
        "end": float(carried.median()),
        "high": float(carried.quantile(0.95)),
        "note": note,
    }
