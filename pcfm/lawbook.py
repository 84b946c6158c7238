"""The table of laws: how each is built from its options and what is known of the fields.

What a law does not say is taken from what is known of the fields (channel roles) or from reference data. What cannot be known is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from constraints import (
    Bounds,
    Constraint,
    CurlFree,
    Dirichlet,
    DivergenceFree,
    Energy,
    EnergyBound,
    EnergyDecay,
    Enstrophy,
    FinalCondition,
    Grid,
    InitialCondition,
    Intersection,
    LinearRelation,
    Mass,
    Momentum,
    Monotone,
    Neumann,
    PeriodicSeam,
    Robin,
    Snapshot,
    maximum_principle,
    no_penetration,
    no_slip,
)
from constraints.divergence import SCHEMES
from pcfm.naming import lookup, suggest
from pde_datasets import Fields, problem_of

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
        origin: fields that know the embedded problem that made them: the fields themselves, or the reference; field i is under the laws
            of the parameters of number i, cyclically.
    """

    grid: Grid
    channels: tuple[str, ...]
    roles: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    stated: tuple[str, ...] = ()
    reference: Tensor | None = None
    count: int = 1
    start: int = 0
    origin: Fields | None = None

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


def _free_of(kind: type[DivergenceFree] | type[CurlFree], law: str) -> Callable[[Context, Options], Constraint]:
    def builder(context: Context, options: Options) -> Constraint:
        components = _channels(context, options, "velocity", len(context.grid.space_axes), law)
        scheme = options.get("scheme", "spectral")
        lookup("scheme", scheme, SCHEMES)
        return kind(context.grid, scheme, components=components, channels=len(context.channels))

    return builder


def _enstrophy(context: Context, options: Options) -> Constraint:
    """Of the velocity, whose channels come first."""
    space = len(context.grid.space_axes)
    components = _channels(context, options, "velocity", space, "enstrophy")
    if components != tuple(range(space)):
        raise ValueError("law 'enstrophy' expects the velocity in the first channels, in the order of the space axes.")
    scheme = lookup("scheme", options.get("scheme", "spectral"), SCHEMES)()
    times = context.grid.axes[0].points if context.grid.has_time else 1

    def make(value: float | Tensor | None) -> Constraint:
        return Enstrophy(context.grid, value, scheme=scheme, channels=len(context.channels), mean=_flag(options, "mean"))

    return _valued(context, options, "enstrophy", make, times)


def _bounds(context: Context, options: Options) -> Constraint:
    lower, upper = _number(options, "lower"), _number(options, "upper")
    if lower is None and upper is None:
        raise ValueError("law 'bounds' needs lower or upper: say bounds:lower=0, bounds:upper=1 or both.")
    return Bounds(lower, upper, components=_channels(context, options, "", None, "bounds"))


def _positivity(context: Context, options: Options) -> Constraint:
    return Bounds(0.0, components=_channels(context, options, "density", None, "positivity"))


def _maximum_principle(context: Context, options: Options) -> Constraint:
    """Bounds from the fields at the first time: of a file, of reference data, or of the fields themselves."""
    if not context.grid.has_time:
        raise ValueError(f"law 'maximum-principle' expects fields with a time axis; these are on ({', '.join(context.grid.names)}).")
    if "file" not in options and context.reference is None and context.origin is not None:
        context = replace(context, reference=context.origin.values)
    return maximum_principle(_frames("maximum-principle", 0, context, options), batched=True)


def _monotone(context: Context, options: Options) -> Constraint:
    if "axis" not in options:
        raise ValueError("law 'monotone' needs axis: say monotone:axis=x.")
    channels = _channels(context, options, "", None, "monotone")
    decreasing = _flag(options, "decreasing")
    return Monotone(context.grid, options["axis"], decreasing=decreasing, components=channels, channels=len(context.channels))


def _energy_bound(context: Context, options: Options) -> Constraint:
    components = _channels(context, options, "velocity", None, "energy-bound")
    times = context.grid.axes[0].points if context.grid.has_time else 1

    def make(value: float | Tensor | None) -> Constraint:
        if value is None:
            raise ValueError("law 'energy-bound' needs a value: say energy-bound:value=NUMBER, or give reference data (--reference FILE).")
        return EnergyBound(context.grid, value, components=components, channels=len(context.channels), mean=_flag(options, "mean"))

    return _valued(context, options, "energy-bound", make, times)


def _energy_decay(context: Context, options: Options) -> Constraint:
    components = _channels(context, options, "velocity", None, "energy-decay")
    return EnergyDecay(context.grid, components=components, channels=len(context.channels))


def _channel_sum(context: Context, options: Options) -> Constraint:
    channels = _channels(context, options, "", None, "channel-sum")
    value = _number(options, "value")
    coefficients = [1.0 if c in channels else 0.0 for c in range(len(context.channels))]
    return LinearRelation(context.grid, coefficients, 1.0 if value is None else value)


def _at_one_time(law: str, where: Callable[[Options], int]) -> Callable[[Context, Options], Constraint]:
    """A law on the fields at one time, from a file or from reference data."""

    def builder(context: Context, options: Options) -> Constraint:
        if not context.grid.has_time:
            raise ValueError(f"law '{law}' expects fields with a time axis; these are on ({', '.join(context.grid.names)}).")
        index = where(options)
        values = _frames(law, index, context, options)
        return {"initial-condition": InitialCondition, "final-condition": FinalCondition}.get(law, _snapshot(index))(context.grid, values)

    return builder


def _frames(law: str, index: int, context: Context, options: Options) -> Tensor:
    """Fields at one time, one for each sample, from a file or from reference data."""
    data = _time_file(law, Path(options["file"]), context) if "file" in options else context.reference
    if data is None:
        raise ValueError(f"law '{law}' needs data: say {law}:file=FILE, or give --reference FILE.")
    times = context.grid.axes[0].points
    if not -times <= index < times:
        raise ValueError(f"law '{law}' expects an index among {times} times; got {index}.")
    frames = data.select(context.grid.dim("time"), index) if data.ndim == len(context.grid.axes) + 2 else data
    return frames[(context.start + torch.arange(context.count)) % len(frames)].to(torch.float64)


def _snapshot(index: int) -> Callable[[Grid, Tensor], Constraint]:
    return lambda grid, values: Snapshot(grid, index, values)


def _time_file(law: str, path: Path, context: Context) -> Tensor:
    """Fields with time, of which one is taken, or fields on the space axes alone."""
    import pde_datasets

    fields = pde_datasets.open(path)
    if fields.grid.shape not in (context.grid.shape, context.grid.shape[1:]) or len(fields.channels) != len(context.channels):
        raise ValueError(
            f"law '{law}' expects {len(context.channels)} channels on {context.grid.shape} or {context.grid.shape[1:]}; "
            f"{path} has {len(fields.channels)} on {fields.grid.shape}."
        )
    return fields.values


def _index(options: Options) -> int:
    text = options.get("index", "0")
    try:
        return int(text)
    except ValueError as error:
        raise ValueError(f"option 'index' expects a whole number; got '{text}'.") from error


def _boundary(law: str) -> Callable[[Context, Options], Constraint]:
    """A law at one end of an axis."""

    def builder(context: Context, options: Options) -> Constraint:
        missing = [key for key in LAWS[law].keys if key in ("axis", "side", "a", "b") and key not in options]
        if missing:
            raise ValueError(f"law '{law}' needs {', '.join(missing)}: say {law}:" + ",".join(f"{key}=..." for key in missing) + ".")
        total = len(context.channels)
        channels = _channels(context, options, "", None, law)
        where = (context.grid, options["axis"])
        value = _number(options, "value") or 0.0
        if law == "periodic-seam":
            return PeriodicSeam(*where, components=channels, channels=total)
        if law == "dirichlet":
            return Dirichlet(*where, options["side"], value, components=channels, channels=total)
        if law == "neumann":
            return Neumann(*where, options["side"], value, components=channels, channels=total)
        a, b = _number(options, "a") or 0.0, _number(options, "b") or 0.0
        return Robin(*where, options["side"], a, b, value, components=channels, channels=total)

    return builder


def _walls(law: str) -> Callable[[Context, Options], Constraint]:
    def builder(context: Context, options: Options) -> Constraint:
        count = len(context.grid.space_axes) if law == "no-penetration" else None
        components = _channels(context, options, "velocity", count, law)
        build = no_penetration if law == "no-penetration" else no_slip
        return Intersection(*build(context.grid, components=components, channels=len(context.channels)))

    return builder


def _problem(context: Context, options: Options) -> Constraint:
    """The laws of the embedded problem that the fields, or the reference, are from."""
    problem = None if context.origin is None else problem_of(context.origin)
    if problem is None or context.origin is None:
        raise ValueError(
            "law 'problem' needs fields that an embedded problem made and that were not cut since (pcfm generate), or such reference "
            "data (--reference FILE)."
        )
    if problem.grid.shape != context.grid.shape:
        raise ValueError(
            f"law 'problem' expects fields on {problem.grid.shape}, as problem '{problem.name}' makes; got {context.grid.shape}."
        )
    rows = (context.start + torch.arange(context.count)) % len(context.origin)
    return problem.constraint({name: values[rows] for name, values in context.origin.parameters.items()})


LAWS: dict[str, Law] = {
    "problem": Law((), _problem, "all laws of the embedded problem that made the fields, as its scheme obeys them"),
    "initial-condition": Law(
        ("file",), _at_one_time("initial-condition", lambda o: 0), "the fields at the first time are given (file=FILE)"
    ),
    "final-condition": Law(("file",), _at_one_time("final-condition", lambda o: -1), "the fields at the last time are given (file=FILE)"),
    "snapshot": Law(("index", "file"), _at_one_time("snapshot", _index), "the fields at time number index are given (file=FILE)"),
    "dirichlet": Law(
        ("axis", "side", "value", "channels"), _boundary("dirichlet"), "value at one end of a bounded axis (side=lower|upper)"
    ),
    "neumann": Law(("axis", "side", "value", "channels"), _boundary("neumann"), "outward normal derivative at one end of a bounded axis"),
    "robin": Law(("axis", "side", "a", "b", "value", "channels"), _boundary("robin"), "a u + b du/dn at one end of a bounded axis"),
    "periodic-seam": Law(("axis", "channels"), _boundary("periodic-seam"), "both ends of a closed axis agree"),
    "no-slip": Law(("channels",), _walls("no-slip"), "zero velocity on all walls"),
    "no-penetration": Law(("channels",), _walls("no-penetration"), "zero normal velocity on all walls"),
    "mass": Law(("value", "channels", "mean"), _mass, "integral of a density over space, at every time; conserved if no value is given"),
    "momentum": Law(("value", "channels", "mean"), _vector(Momentum, "momentum"), "integral of each vector component over space"),
    "energy": Law(("value", "channels", "mean"), _vector(Energy, "energy"), "kinetic energy, integral of |u|^2/2 over space (curved)"),
    "enstrophy": Law(
        ("value", "scheme", "channels", "mean"), _enstrophy, "integral of |curl u|^2/2 over space (curved; scheme=spectral|central)"
    ),
    "divergence-free": Law(
        ("scheme", "channels"),
        _free_of(DivergenceFree, "divergence-free"),
        "zero divergence at every point (scheme=spectral: periodic; central, staggered: any box)",
    ),
    "curl-free": Law(("scheme", "channels"), _free_of(CurlFree, "curl-free"), "zero curl at every point of a plane"),
    "channel-sum": Law(("value", "channels"), _channel_sum, "channels sum to one (value=NUMBER) at every point: species fractions"),
    "bounds": Law(("lower", "upper", "channels"), _bounds, "every value between lower and upper (inequality)"),
    "positivity": Law(("channels",), _positivity, "no negative density (inequality)"),
    "maximum-principle": Law(
        ("file",), _maximum_principle, "values between the least and largest of the first time (file=FILE; inequality)"
    ),
    "monotone": Law(("axis", "decreasing", "channels"), _monotone, "values do not fall along an axis, or rise (inequality)"),
    "energy-bound": Law(("value", "channels", "mean"), _energy_bound, "kinetic energy at most a value (inequality, curved)"),
    "energy-decay": Law(("channels",), _energy_decay, "kinetic energy does not rise in time (inequality, curved)"),
}
