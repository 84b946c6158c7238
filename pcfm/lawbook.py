"""The table of laws: how each is built from its options and what is known of the fields.

What a law does not say is taken from what is known of the fields (channel roles) or from reference data. What cannot be known is an error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from constraints import (
    Balance,
    Bounds,
    Constraint,
    CurlFree,
    Dirichlet,
    DivergenceFree,
    Energy,
    EnergyBound,
    EnergyDecay,
    Enstrophy,
    EntropyDecay,
    FinalCondition,
    Grid,
    InitialCondition,
    Integral,
    Intersection,
    LinearRelation,
    Mass,
    Momentum,
    Monotone,
    Neumann,
    PeriodicSeam,
    Poisson,
    Rate,
    Robin,
    Snapshot,
    maximum_principle,
    no_penetration,
    no_slip,
    positivity,
)
from constraints.divergence import SCHEMES
from constraints.inequality import Box
from pcfm.expressions import density
from pcfm.naming import lookup, suggest
from pde_datasets import Fields, Problem, problem_of
from pde_datasets.mesh import Equation, Mesh

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
        numbers: which reference each field takes instead, (count,).
        origin: fields that know the embedded problem that made them: the fields themselves, or the reference; field i is under the laws
            of the parameters of number i, cyclically.
        mesh: the mesh the fields live on.
        conserving: whether an integral that is given no value is conserved in time, where there is time, even beside reference data.
    """

    grid: Grid
    channels: tuple[str, ...]
    roles: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    stated: tuple[str, ...] = ()
    reference: Tensor | None = None
    count: int = 1
    numbers: Tensor | None = None
    origin: Fields | None = None
    mesh: Mesh | None = None
    conserving: bool = False

    def rows(self, length: int) -> Tensor:
        """Which of so many references each field takes, (count,)."""
        return (torch.arange(self.count) if self.numbers is None else self.numbers) % length

    def references(self) -> Tensor | None:
        """The reference of each field, float64."""
        if self.reference is None:
            return None
        return self.reference[self.rows(len(self.reference))].to(torch.float64)


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
    reference = None if context.conserving and context.grid.has_time and law != "energy-bound" else context.references()
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
        law = Mass(context.grid, value, component=component, channels=len(context.channels), mean=_flag(options, "mean"))
        density = context.roles.get("density", ())
        if density and context.channels[component] not in density:
            law.name = law.name.replace("mass", f"integral of {context.channels[component]}")
        return law

    return _valued(context, options, "mass", make, times)


def _vector(kind: type[Momentum] | type[Energy], law: str) -> Callable[[Context, Options], Constraint]:
    def builder(context: Context, options: Options) -> Constraint:
        role = "momentum" if law == "momentum" and "momentum" in context.roles else "velocity"
        components = _channels(context, options, role, None, law)
        times = context.grid.axes[0].points if context.grid.has_time else 1
        rows = times * (len(components) if law == "momentum" else 1)

        def make(value: float | Tensor | None) -> Constraint:
            made = kind(context.grid, value, components=components, channels=len(context.channels), mean=_flag(options, "mean"))
            if law == "momentum" and "channels" in options and len(components) == 1:
                made.name = made.name.replace("momentum", f"integral of {context.channels[components[0]]}", 1)
            return made

        return _valued(context, options, law, make, rows)

    return builder


def _on_a_box(context: Context, law: str) -> None:
    """Refuse fields that no differences along axes can be taken of."""
    if context.mesh is not None:
        known = f" What is known there: {', '.join(f'balance:equation={name}' for name in context.mesh.equations) or 'no equation'}."
        raise ValueError(
            f"law '{law}' expects fields on a box of points, whose differences are taken along its axes; these are values at "
            f"{context.grid.axes[-1].points} {context.mesh.location}s of a mesh.{known}"
        )


def _scheme(context: Context, options: Options, law: str) -> str:
    """The name of a scheme that fits the grid."""
    scheme = options.get("scheme", "spectral")
    lookup("scheme", scheme, SCHEMES)
    bounded = [axis.name for axis in context.grid.space_axes if not axis.periodic]
    if scheme == "spectral" and bounded:
        raise ValueError(
            f"law '{law}' expects periodic axes under scheme=spectral; '{bounded[0]}' is bounded. Say "
            f"{law}:scheme=central, for differences that are one-sided at its ends."
        )
    return scheme


def _free_of(kind: type[DivergenceFree] | type[CurlFree], law: str) -> Callable[[Context, Options], Constraint]:
    def builder(context: Context, options: Options) -> Constraint:
        _on_a_box(context, law)
        components = _channels(context, options, "velocity", len(context.grid.space_axes), law)
        scheme = _scheme(context, options, law) if len(components) > 1 else "central"
        return kind(context.grid, scheme, components=components, channels=len(context.channels))

    return builder


def _enstrophy(context: Context, options: Options) -> Constraint:
    """Of the velocity, whose channels come first."""
    _on_a_box(context, "enstrophy")
    space = len(context.grid.space_axes)
    components = _channels(context, options, "velocity", space, "enstrophy")
    if components != tuple(range(space)):
        raise ValueError("law 'enstrophy' expects the velocity in the first channels, in the order of the space axes.")
    scheme = SCHEMES[_scheme(context, options, "enstrophy")]()
    times = context.grid.axes[0].points if context.grid.has_time else 1

    def make(value: float | Tensor | None) -> Constraint:
        return Enstrophy(context.grid, value, scheme=scheme, channels=len(context.channels), mean=_flag(options, "mean"))

    return _valued(context, options, "enstrophy", make, times)


def _bounds(context: Context, options: Options) -> Constraint:
    lower, upper = _number(options, "lower"), _number(options, "upper")
    if lower is None and upper is None:
        raise ValueError("law 'bounds' needs lower or upper: say bounds:lower=0, bounds:upper=1 or both.")
    components = _channels(context, options, "", None, "bounds")
    if lower is not None and upper is not None and lower > upper:
        raise ValueError(f"law 'bounds' expects a lower bound that does not exceed the upper one; got {lower:g} and {upper:g}.")
    law = Bounds(lower, upper, components=components)
    law.name = f"{'' if lower is None else f'{lower:g} <= '}{_said(context, components)}{'' if upper is None else f' <= {upper:g}'}"
    return law


def _said(context: Context, components: tuple[int, ...]) -> str:
    return ", ".join(context.channels[c] for c in components)


def _positivity(context: Context, options: Options) -> Constraint:
    components = _channels(context, options, "density", None, "positivity")
    law = positivity(components=components)
    law.name = f"{_said(context, components)} >= 0"
    return law


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


def _entropy_decay(context: Context, options: Options) -> Constraint:
    r"""Of $\eta(u) = \sum_c|u_c|^p/p$, convex for p of 1 and more, twice differentiable from 2 on."""
    channels = list(_channels(context, options, "", None, "entropy-decay"))
    power = _number(options, "power")
    power = 2.0 if power is None else power
    if not 2 <= power < math.inf:
        raise ValueError(f"law 'entropy-decay' expects a power of at least 2, for an entropy that is smooth; got {power:g}.")
    law = EntropyDecay(context.grid, lambda u: u[:, channels].abs().pow(power).sum(1) / power, channels=len(context.channels))
    law.name = f"decay of the integral of |{_said(context, tuple(channels))}|^{power:g}"
    return law


def _density(context: Context, options: Options, law: str) -> tuple[Callable[[Tensor], Tensor], str]:
    """A density in words, and what its integral is called."""
    if "density" not in options:
        raise ValueError(f"law '{law}' needs a density: say {law}:density={context.channels[0]}^2, or any other expression.")
    _on_a_box(context, law)
    return density(options["density"], context.grid, context.channels), options.get("name", f"integral of {options['density']}")


def _integral(context: Context, options: Options) -> Constraint:
    function, name = _density(context, options, "integral")
    times = context.grid.axes[0].points if context.grid.has_time else 1

    def make(value: float | Tensor | None) -> Constraint:
        return Integral(context.grid, function, value, channels=len(context.channels), mean=_flag(options, "mean"), name=name)

    return _valued(context, options, "integral", make, times)


def _integral_decay(context: Context, options: Options) -> Constraint:
    function, name = _density(context, options, "integral-decay")
    law = EntropyDecay(context.grid, function, channels=len(context.channels))
    law.name = f"decay of the {name}" if "name" not in options else f"{name} decay"
    return law


def _balance(context: Context, options: Options) -> Constraint:
    """Sparse equations that come with the fields."""
    known = {} if context.mesh is None else context.mesh.equations
    if not known:
        raise ValueError(
            "law 'balance' expects fields on a mesh that brings equations with it (fluxes of OpenFOAM, finite elements); these bring none."
        )
    named = options.get("equation")
    chosen = known if named is None else {named: lookup("equation of the mesh", named, known)}
    laws = [_equation(name, equation, context) for name, equation in chosen.items()]
    return laws[0] if len(laws) == 1 else Intersection(*laws)


def _equation(name: str, equation: Equation, context: Context) -> Constraint:
    """An equation of a mesh, for all samples or one of its own for each."""
    shape = (len(context.channels), *context.grid.shape)

    def law(matrix: Tensor, value: Tensor | float) -> Balance:
        return Balance(matrix.to(torch.float64), value, shape=shape, name=name, unit=equation.unit)

    if isinstance(equation.matrix, tuple):
        return EachSample([law(*equation.of(i)) for i in range(context.count)])
    if isinstance(equation.value, tuple):
        return law(equation.matrix, torch.stack([equation.value[i] for i in range(context.count)]))
    return law(*equation.of(0))


class EachSample(Constraint):
    """Another law for each sample, as matrices of meshes of their own are: measured together, projected one at a time (`take`).

    Arguments:
        laws: one for each sample, alike in name and unit.
    """

    def __init__(self, laws: Sequence[Constraint]) -> None:
        super().__init__()
        self.laws = torch.nn.ModuleList(laws)
        self.name, self.unit, self.inequality = laws[0].name, laws[0].unit, laws[0].inequality

    @property
    def samples(self) -> int:
        return len(self.laws)

    def take(self, index: slice) -> Constraint:
        laws = [law for law in self.laws[index] if isinstance(law, Constraint)]
        return laws[0] if len(laws) == 1 else EachSample(laws)

    def residual(self, u: Tensor) -> Tensor:
        return self.measure(u)[0]

    def scale(self, u: Tensor) -> Tensor:
        return self.measure(u)[1]

    def measure(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Residual and scale, of as many rows as the sample with most has: no row is a row that holds."""
        if len(u) != len(self.laws):
            raise ValueError(f"law '{self.name}' is that of {len(self.laws)} samples, each of its own; got {len(u)}.")
        pairs = [law.measure(v) for law, v in zip(self.laws, u.split(1), strict=True) if isinstance(law, Constraint)]
        residuals = torch.nn.utils.rnn.pad_sequence([residual[0] for residual, _ in pairs], batch_first=True)
        sizes = [scale.expand_as(residual)[0] for residual, scale in pairs]
        return residuals, torch.nn.utils.rnn.pad_sequence(sizes, batch_first=True, padding_value=1.0)


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
    return frames[context.rows(len(frames))].to(torch.float64)


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


def _poisson(context: Context, options: Options) -> Constraint:
    _on_a_box(context, "poisson")
    missing = [key for key in ("unknown", "source") if key not in options]
    if missing:
        raise ValueError(f"law 'poisson' needs {', '.join(missing)}: say poisson:unknown=CHANNEL,source=CHANNEL.")
    ((v,), (f,)) = (_channels(context, {"channels": options[key]}, "", 1, "poisson") for key in ("unknown", "source"))
    law = Poisson(context.grid, unknown=v, source=f, channels=len(context.channels), ends=options.get("ends", "dirichlet"))
    law.name = f"Laplacian of {options['unknown']} = {options['source']}"
    return law


def _rate(context: Context, options: Options) -> Constraint:
    missing = [key for key in ("of", "by") if key not in options]
    if missing:
        raise ValueError(f"law 'rate' needs {', '.join(missing)}: say rate:of=CHANNEL,by=CHANNEL, and factor=NUMBER if it is not 1.")
    ((u,), (r,)) = (_channels(context, {"channels": options[key]}, "", 1, "rate") for key in ("of", "by"))
    factor = _number(options, "factor")
    law = Rate(context.grid, of=u, rate=r, factor=1.0 if factor is None else factor, channels=len(context.channels))
    law.name = f"d({options['of']})/dt = {'' if factor is None else f'{factor:.8g} '}{options['by']}"
    return law


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
            made = Dirichlet(*where, options["side"], value, components=channels, channels=total)
            made.name = f"{_said(context, channels)} = {value:g} at {options['side']} {options['axis']}"
            return made
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
    rows = context.rows(len(context.origin))
    law = problem.constraint({name: values[rows] for name, values in context.origin.parameters.items()})
    missing = _missing_bounds(law, problem)
    return Intersection(law, *missing) if missing else law


def _missing_bounds(law: Constraint, problem: Problem) -> list[Box]:
    """Bounds that a problem states and that its constraint, which closes the other laws with the parameters, does not imply."""
    context = Context(problem.grid, problem.channels, problem.roles)
    inner = [leaf for leaf in law.leaves() if isinstance(leaf, Box)]
    like = torch.zeros(1, len(problem.channels), *problem.grid.shape, dtype=torch.float64)
    missing: list[Box] = []
    for text in problem.laws:
        name, options = parse(text)
        for leaf in LAWS[name].build(context, options).leaves():
            if isinstance(leaf, Box) and not _implied(leaf, [*inner, *missing], like):
                missing.append(leaf)
    return missing


def _implied(outer: Box, inner: Sequence[Box], like: Tensor) -> bool:
    """Whether values within some bounds are within others."""
    boxes = [box.box(like) for box in inner]
    low, high = outer.box(like)
    lower, upper = torch.full_like(like, -torch.inf), torch.full_like(like, torch.inf)
    for least, most in boxes:
        lower, upper = torch.maximum(lower, least), torch.minimum(upper, most)
    return bool((lower >= low).all() and (upper <= high).all())


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
    "poisson": Law(
        ("unknown", "source", "ends"),
        _poisson,
        "second differences of a channel equal another one (ends=dirichlet|neumann: what it does on the walls of cells)",
    ),
    "rate": Law(("of", "by", "factor"), _rate, "a channel changes in time at the rate that another one says, times a factor"),
    "channel-sum": Law(("value", "channels"), _channel_sum, "channels sum to one (value=NUMBER) at every point: species fractions"),
    "bounds": Law(("lower", "upper", "channels"), _bounds, "every value between lower and upper (inequality)"),
    "positivity": Law(("channels",), _positivity, "no negative density (inequality)"),
    "maximum-principle": Law(
        ("file",), _maximum_principle, "values between the least and largest of the first time (file=FILE; inequality)"
    ),
    "monotone": Law(("axis", "decreasing", "channels"), _monotone, "values do not fall along an axis, or rise (inequality)"),
    "energy-bound": Law(("value", "channels", "mean"), _energy_bound, "kinetic energy at most a value (inequality, curved)"),
    "energy-decay": Law(("channels",), _energy_decay, "kinetic energy does not rise in time (inequality, curved)"),
    "entropy-decay": Law(
        ("power", "channels"), _entropy_decay, "integral of |u|^power does not rise in time; power=2 if not said (inequality, curved)"
    ),
    "integral": Law(
        ("density", "value", "mean", "name"),
        _integral,
        "integral over space of any density in words, density=u^3/6-0.5*u_x^2; conserved if no value is given (curved)",
    ),
    "integral-decay": Law(
        ("density", "name"), _integral_decay, "integral over space of a density in words does not rise in time (inequality, curved)"
    ),
    "balance": Law(
        ("equation",), _balance, "sparse equations that a mesh brings with it, all or one (equation=NAME): fluxes of cells, finite elements"
    ),
}
