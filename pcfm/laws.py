"""Laws by name: `NAME` or `NAME:key=value,key=value`, with the names and keys of the Python classes.

What a law does not say is taken from what is known of the fields (channel roles, laws stated by their source) or from reference data.
What cannot be known is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from constraints import Constraint, DivergenceFree, Energy, Grid, InitialCondition, Intersection, Mass, Momentum
from constraints.divergence import SCHEMES
from pcfm.naming import lookup, suggest

Options = dict[str, str]


@dataclass(frozen=True)
class Context:
    """What is known of the fields a law is for.

    Attributes:
        grid: their grid.
        channels: their channel names.
        roles: channels that play a part in laws.
        stated: laws their source states.
        reference: reference fields, (N, C, *N), or None.
        count: number of fields the law is for: with reference data, field i gets the values of reference i, cyclically.
        start: index of the first of them.
    """

    grid: Grid
    channels: tuple[str, ...]
    roles: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    stated: tuple[str, ...] = ()
    reference: Tensor | None = None
    count: int = 1
    start: int = 0

    def references(self) -> Tensor | None:
        """The reference of each field, float64."""
        if self.reference is None:
            return None
        return self.reference[(self.start + torch.arange(self.count)) % len(self.reference)].to(torch.float64)


@dataclass(frozen=True)
class Law:
    """An entry of the table of laws.

    Attributes:
        keys: options it takes.
        build: from context and options to the constraint.
        summary: one line.
    """

    keys: tuple[str, ...]
    build: Callable[[Context, Options], Constraint]
    summary: str


def parse(text: str) -> tuple[str, Options]:
    """Name and options of a law.

    Raises:
        ValueError: an unknown law or key, or a malformed option.

    Example:
        >>> parse("divergence-free:scheme=central")
        ('divergence-free', {'scheme': 'central'})
    """
    name, _, rest = text.partition(":")
    law = lookup("law", name, LAWS)
    options: Options = {}
    for item in filter(None, rest.split(",")):
        key, equals, value = item.partition("=")
        if not equals:
            raise ValueError(f"law '{name}' expects options key=value; got '{item}'.")
        if key not in law.keys:
            raise ValueError(f"law '{name}' has no key '{key}'. {suggest(key, law.keys)}")
        if key in options:
            raise ValueError(f"law '{name}' expects each key once; got '{key}' twice.")
        options[key] = value
    return name, options


def build(text: str, context: Context) -> Constraint:
    """The constraint that a text names, for fields of a context.

    Raises:
        ValueError: an unknown law or key, a value that cannot be known, or a law that does not fit the grid.
    """
    name, options = _completed(text, context)
    return LAWS[name].build(context, options)


def _completed(text: str, context: Context) -> tuple[str, Options]:
    """Name and options of a law, with what its source states and reference data do not replace."""
    name, options = parse(text)
    for stated in context.stated:
        other, known = parse(stated)
        if other == name and not (context.reference is not None and "value" in known):
            options = {**known, **options}
    return name, options


def standing(texts: tuple[str, ...], context: Context) -> tuple[str, ...]:
    """Those of some laws that can be stated of fields on their own: values are said, or conserved, and not those of reference data."""
    kept = []
    for text in texts:
        name, options = _completed(text, context)
        borrowed = "value" in LAWS[name].keys and "value" not in options and context.reference is not None
        if name != "initial-condition" and not borrowed:
            kept.append(":".join([name, *filter(None, [",".join(f"{key}={value}" for key, value in options.items())])]))
    return tuple(dict.fromkeys(kept))


def build_all(texts: tuple[str, ...], context: Context) -> Constraint:
    """All laws at once.

    Raises:
        ValueError: no law at all, or as `build`.
    """
    if not texts:
        raise ValueError(f"expects at least one law. Known: {', '.join(LAWS)}.")
    laws = [build(text, context) for text in texts]
    return laws[0] if len(laws) == 1 else Intersection(*laws)


def _channels(context: Context, options: Options, role: str, count: int | None, law: str) -> tuple[int, ...]:
    """The channels a law is about: given, by role, or the only ones there are."""
    if "channels" in options:
        names = tuple(options["channels"].split("+"))
    elif role in context.roles:
        names = tuple(context.roles[role])
    elif count is None or len(context.channels) == count:
        names = context.channels
    else:
        raise ValueError(
            f"law '{law}' cannot tell which channels it is about: no channel is known as {role}. "
            f"Say channels={'+'.join(context.channels[:count])}, or others out of {', '.join(context.channels)}."
        )
    for name in names:
        if name not in context.channels:
            raise ValueError(f"law '{law}' knows no channel '{name}'. {suggest(name, context.channels)}")
    if count is not None and len(names) != count:
        raise ValueError(f"law '{law}' expects {count} channel{'s' if count > 1 else ''}; got {', '.join(names)}.")
    return tuple(context.channels.index(name) for name in names)


def _flag(options: Options, key: str) -> bool:
    text = options.get(key, "false").lower()
    if text not in ("true", "false"):
        raise ValueError(f"option '{key}' expects true or false; got '{options[key]}'.")
    return text == "true"


def _number(options: Options, key: str) -> float | None:
    if key not in options:
        return None
    try:
        return float(options[key])
    except ValueError as error:
        raise ValueError(f"option '{key}' expects a number; got '{options[key]}'.") from error


def _valued(context: Context, options: Options, law: str, make: Callable[[float | Tensor | None], Constraint], rows: int) -> Constraint:
    """A law with its value: said, measured on the reference, or left out where it can be conserved."""
    value = _number(options, "value")
    reference = context.references()
    if value is not None:
        return make(value)
    if reference is not None:
        measured = make(torch.zeros(rows, dtype=torch.float64)).residual(reference)
        return make(measured)
    if context.grid.has_time:
        return make(None)
    raise ValueError(f"law '{law}' needs a value: say {law}:value=NUMBER, or give reference data that have one (--reference FILE).")


def _mass(context: Context, options: Options) -> Constraint:
    (component,) = _channels(context, options, "density", 1, "mass")
    times = context.grid.axes[0].points if context.grid.has_time else 1

    def make(value: float | Tensor | None) -> Constraint:
        return Mass(context.grid, value, component=component, channels=len(context.channels), mean=_flag(options, "mean"))

    return _valued(context, options, "mass", make, times)


def _vector(kind: type[Momentum] | type[Energy], law: str) -> Callable[[Context, Options], Constraint]:
    def builder(context: Context, options: Options) -> Constraint:
        role = "momentum" if law == "momentum" and "momentum" in context.roles else "velocity"
        components = _channels(context, options, role, None, law)
        times = context.grid.axes[0].points if context.grid.has_time else 1
        rows = times * (len(components) if law == "momentum" else 1)

        def make(value: float | Tensor | None) -> Constraint:
            return kind(context.grid, value, components=components, channels=len(context.channels), mean=_flag(options, "mean"))

        return _valued(context, options, law, make, rows)

    return builder


def _divergence_free(context: Context, options: Options) -> Constraint:
    components = _channels(context, options, "velocity", len(context.grid.space_axes), "divergence-free")
    scheme = options.get("scheme", "spectral")
    lookup("scheme", scheme, SCHEMES)
    return DivergenceFree(context.grid, scheme, components=components, channels=len(context.channels))


def _initial_condition(context: Context, options: Options) -> Constraint:
    if not context.grid.has_time:
        raise ValueError(f"law 'initial-condition' expects fields with a time axis; these are on ({', '.join(context.grid.names)}).")
    data = context.reference
    if "file" in options:
        data = _initial_file(Path(options["file"]), context)
    if data is None:
        raise ValueError("law 'initial-condition' needs initial data: say initial-condition:file=FILE, or give --reference FILE.")
    first = data.select(context.grid.dim("time"), 0) if data.ndim == len(context.grid.axes) + 2 else data
    index = (context.start + torch.arange(context.count)) % len(first)
    return InitialCondition(context.grid, first[index].to(torch.float64))


def _initial_file(path: Path, context: Context) -> Tensor:
    """Initial data from a file: fields with time, of which the first is taken, or fields on the space axes alone."""
    import pde_datasets

    fields = pde_datasets.open(path)
    if fields.grid.shape not in (context.grid.shape, context.grid.shape[1:]) or len(fields.channels) != len(context.channels):
        raise ValueError(
            f"law 'initial-condition' expects {len(context.channels)} channels on {context.grid.shape} or {context.grid.shape[1:]}; "
            f"{path} has {len(fields.channels)} on {fields.grid.shape}."
        )
    return fields.u


LAWS: dict[str, Law] = {
    "initial-condition": Law(("file",), _initial_condition, "the fields at the first time are given (file=FILE)"),
    "mass": Law(("value", "channels", "mean"), _mass, "integral of a density over space, at every time; conserved if no value is given"),
    "momentum": Law(("value", "channels", "mean"), _vector(Momentum, "momentum"), "integral of each vector component over space"),
    "energy": Law(("value", "channels", "mean"), _vector(Energy, "energy"), "kinetic energy, integral of |u|^2/2 over space (curved)"),
    "divergence-free": Law(("scheme", "channels"), _divergence_free, "zero divergence at every point (scheme=spectral|central; periodic)"),
}
