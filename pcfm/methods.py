"""The table of sampling methods, and samplers by name: `NAME` or `NAME:key=value,key=value`.

A method is a sampler class. What it is built from (velocity, path, law, ...) it names as attributes; its other attributes are options
with the defaults of the class, so that one more method is one more class and one more line here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from functools import partial
from typing import Any

import torch
from torch import Tensor

from constraints import Constraint
from pcfm.flow import Flow
from pcfm.flow_map import Average, LearntMap
from pcfm.naming import lookup, options_from
from pcfm.path import Path
from pcfm.samplers import (
    ECI,
    ActiveFlow,
    AdamsBashforth,
    Adaptive,
    AdaptiveHeun,
    BarrierFlow,
    Bosh3,
    ConsistentFlow,
    DFlow,
    DiffusionPDE,
    Dopri8,
    DualFlow,
    Euler,
    Exponential,
    Fehlberg2,
    FlowDPS,
    Flower,
    GuidedFlow,
    Heading,
    Heun,
    Heun3,
    Jump,
    Midpoint,
    PnPFlow,
    PosteriorFlow,
    PredictProjectRenoise,
    ProjectedDiffusion,
    ProjectedEnd,
    ProjectedFlow,
    ProjectedRenoise,
    PublishedFlow,
    Renoise,
    RungeKutta4,
    Sampler,
    SlackFlow,
    SourceChain,
    StochasticFlow,
    TangentFlow,
    Unconstrained,
)
from pcfm.samplers.times import TIMES
from pcfm.source import Source
from pcfm.velocity import GuardedVelocity, NetworkVelocity, Velocity

SOLVERS: dict[str, type[Sampler]] = {
    "euler": Euler,
    "midpoint": Midpoint,
    "heun": Heun,
    "heun3": Heun3,
    "rk4": RungeKutta4,
    "ab2": AdamsBashforth,
    "exponential": Exponential,
    "dopri5": Adaptive,
    "dopri8": Dopri8,
    "bosh3": Bosh3,
    "fehlberg2": Fehlberg2,
    "adaptive-heun": AdaptiveHeun,
}
"""Rules that integrate the flow itself, from its velocity and path."""

METHODS: dict[str, type[Sampler]] = {
    "unconstrained": Unconstrained,
    "sde": StochasticFlow,
    "project-end": ProjectedEnd,
    "pcfm": ProjectedFlow,
    "pcfm-published": PublishedFlow,
    "pcfm-consistent": ConsistentFlow,
    "eci": ECI,
    "pdm": ProjectedDiffusion,
    "ppr": PredictProjectRenoise,
    "tangent": TangentFlow,
    "dual": DualFlow,
    "ipcfm-slack": SlackFlow,
    "ipcfm-barrier": BarrierFlow,
    "ipcfm-active": ActiveFlow,
    "pbfm": Renoise,
    "pbfm-project": ProjectedRenoise,
    "guided": GuidedFlow,
    "posterior": PosteriorFlow,
    "diffusionpde": DiffusionPDE,
    "d-flow": DFlow,
    "flower": Flower,
    "flowdps": FlowDPS,
    "pnp-flow": PnPFlow,
    "source-chain": SourceChain,
}


@dataclass(frozen=True)
class Setting:
    """What samplers are built from.

    Attributes:
        base: an unconstrained sampler of the flow.
        velocity: the flow's velocity.
        path: its path.
        constraint: the law, on normalised fields, None without one.
        noise: fresh draws from the source, (B, C, *N), each sample's from its own stream.
        source: the source itself.
        white: fresh independent standard normals of a shape, (B, *shape), from the same streams.
    """

    base: Sampler
    velocity: Velocity
    path: Path
    constraint: Constraint | None
    noise: Callable[[], Tensor]
    source: Source | None = None
    white: Callable[[tuple[int, ...]], Tensor] | None = None


def options(kind: type[Sampler]) -> dict[str, Any]:
    """The options of a method with their defaults."""
    given = {field.name for field in fields(Setting)}
    return {f.name: f.default for f in fields(kind) if f.name not in given and f.default is not MISSING}  # type: ignore[arg-type]


def parse(text: str) -> tuple[str, dict[str, Any]]:
    """Name and options of a method, options in the types of their defaults.

    Raises:
        ValueError: an unknown method or option, or a value of another type.

    Example:
        >>> parse("pcfm")
        ('pcfm', {})
    """
    name, _, rest = text.partition(":")
    known = options(lookup("method", name, METHODS))
    return name, options_from(f"method '{name}'", rest, known)


def solver_on(name: str, path: Path) -> Callable[[Velocity], Sampler]:
    """What makes of a velocity the solver of a name.

    Raises:
        ValueError: an unknown solver.
    """
    kind: Any = lookup("solver", name, SOLVERS)
    return partial(kind, path=path) if "path" in {f.name for f in fields(kind)} else kind


def jumps(kind: type[Sampler]) -> bool:
    """Whether a method goes by the jumps and endpoints of a flow map: all but those that ask for the velocity of the flow itself."""
    return kind.ahead or "velocity" not in {f.name for f in fields(kind)}  # type: ignore[arg-type]


def jumping(flow: Flow, method: str, solver: str | None) -> bool:
    """Whether a flow is sampled by the jumps of its map.

    Raises:
        ValueError: an unknown method or option.
    """
    return flow.objective is not None and solver is None and jumps(METHODS[parse(method)[0]])


STEPS = 50
"""Flow steps of a velocity unless told."""


def usual_steps(flow: Flow, method: str, solver: str | None) -> int:
    """The flow steps of a method unless told: of a flow map the fewest that it has learnt.

    Raises:
        ValueError: an unknown method or option.
    """
    return flow.objective.fewest if flow.objective is not None and jumping(flow, method, solver) else STEPS


def carrier(flow: Flow, method: str, solver: str | None) -> Callable[[NetworkVelocity | GuardedVelocity], tuple[Sampler, Velocity]]:
    """What makes of a flow's network that by which a method goes: its base and its velocity.

    Of a flow map they are jumps and endpoints, unless the method asks for the velocity of the flow itself or a solver is named.

    Arguments:
        flow: what is sampled.
        method: one of `METHODS`, with options.
        solver: one of `SOLVERS`; Euler's rule by default, or the jumps of a flow map.

    Raises:
        ValueError: an unknown method or solver, or one that asks for the velocity of a flow map that has not learnt it.
    """
    learnt, rule = flow.objective, solver_on(solver or "euler", flow.path)
    if learnt is None or not jumping(flow, method, solver):
        if learnt is not None and not learnt.follows:
            asking = f"method '{method}'" if solver is None else f"solver '{solver}'"
            others = ", ".join(name for name, kind in METHODS.items() if jumps(kind))
            raise ValueError(
                f"{asking} follows the velocity of the flow; this flow map has learnt {learnt.learnt()} and no velocity. "
                f"Name no solver, and one of the methods that jump: {others}."
            )
        return lambda velocity: (rule(velocity), velocity)

    def carried(average: Average) -> tuple[Sampler, Velocity]:
        flow_map = LearntMap(average, learnt)
        return Jump(flow_map), Heading(flow_map, flow.path)

    return carried


def time_grid(text: str, steps: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """The times of so many steps, (steps + 1,), by a rule `NAME` or `NAME:key=value,key=value`.

    Raises:
        ValueError: an unknown rule or option, or a value out of its range.

    Example:
        >>> time_grid("power:exponent=2", 4).tolist()
        [0.0, 0.4375, 0.75, 0.9375, 1.0]
    """
    name, _, rest = text.partition(":")
    kind = lookup("rule of times", name, TIMES)
    known = {f.name: f.default for f in fields(kind)}  # type: ignore[arg-type]
    return kind(**options_from(f"times '{name}'", rest, known))(steps, dtype)


def build(text: str, setting: Setting) -> Sampler:
    """The sampler that a text names.

    Raises:
        ValueError: as `parse`, or an option out of its range, or one that would change nothing.
    """
    name, chosen = parse(text)
    kind = METHODS[name]
    given = {f.name: getattr(setting, f.name) for f in fields(kind) if hasattr(setting, f.name)}  # type: ignore[arg-type]
    sampler = kind(**given, **chosen)
    for key, why in sampler.idle().items():
        if key in chosen:
            raise ValueError(f"option '{key}' of method '{name}' changes nothing: {why}. Leave it out.")
    return sampler


def summary(name: str) -> str:
    """One line: what a method does, where it is from, and its options."""
    kind = METHODS[name]
    line = str(kind.__doc__).strip().splitlines()[0].rstrip(".")
    known = ", ".join(f"{key}={str(value).lower() if isinstance(value, bool) else value}" for key, value in options(kind).items())
    return line + (f" ({kind.reference})" if kind.reference else "") + (f"  [options: {known}]" if known else "")
