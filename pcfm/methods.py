"""The table of sampling methods, and samplers by name: `NAME` or `NAME:key=value,key=value`.

A method is a sampler class. What it is built from (velocity, path, law, ...) it names as attributes; its other attributes are options
with the defaults of the class, so that one more method is one more class and one more line here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from typing import Any

from torch import Tensor

from constraints import Constraint
from pcfm.naming import lookup, suggest
from pcfm.path import Path
from pcfm.samplers import (
    ECI,
    ActiveFlow,
    Adaptive,
    BarrierFlow,
    ConsistentFlow,
    DFlow,
    DiffusionPDE,
    DualFlow,
    Euler,
    Flower,
    GuidedFlow,
    Heun,
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
    TangentFlow,
    Unconstrained,
)
from pcfm.source import Source
from pcfm.velocity import Velocity

SOLVERS: dict[str, Callable[[Velocity], Sampler]] = {"euler": Euler, "heun": Heun, "rk4": RungeKutta4, "dopri5": Adaptive}

METHODS: dict[str, type[Sampler]] = {
    "unconstrained": Unconstrained,
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
    chosen: dict[str, Any] = {}
    for item in filter(None, rest.split(",")):
        key, equals, value = item.partition("=")
        if not equals:
            raise ValueError(f"method '{name}' expects options key=value; got '{item}'.")
        if key not in known:
            raise ValueError(f"method '{name}' has no option '{key}'. {suggest(key, known)}")
        if key in chosen:
            raise ValueError(f"method '{name}' expects each option once; got '{key}' twice.")
        chosen[key] = _like(name, key, value, known[key])
    return name, chosen


def _like(method: str, key: str, text: str, default: Any) -> Any:
    """A text in the type of a default."""
    if isinstance(default, bool):
        if text not in ("true", "false"):
            raise ValueError(f"option '{key}' of method '{method}' expects true or false; got '{text}'.")
        return text == "true"
    try:
        return type(default)(text)
    except ValueError as error:
        words = {int: "a whole number", float: "a number"}.get(type(default), "a word")
        raise ValueError(f"option '{key}' of method '{method}' expects {words} like {default}; got '{text}'.") from error


def build(text: str, setting: Setting) -> Sampler:
    """The sampler that a text names.

    Raises:
        ValueError: as `parse`, or an option out of its range.
    """
    name, chosen = parse(text)
    kind = METHODS[name]
    given = {f.name: getattr(setting, f.name) for f in fields(kind) if hasattr(setting, f.name)}  # type: ignore[arg-type]
    return kind(**given, **chosen)


def summary(name: str) -> str:
    """One line: what a method does, where it is from, and its options."""
    kind = METHODS[name]
    line = str(kind.__doc__).strip().splitlines()[0].rstrip(".")
    known = ", ".join(f"{key}={str(value).lower() if isinstance(value, bool) else value}" for key, value in options(kind).items())
    return line + (f" ({kind.reference})" if kind.reference else "") + (f"  [options: {known}]" if known else "")
