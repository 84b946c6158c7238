"""Which laws fields obey, and how well: asked of data before anything is enforced on samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from constraints import (
    Constraint,
    Dirichlet,
    DivergenceFree,
    Energy,
    EnergyDecay,
    Intersection,
    LinearConstraint,
    Mass,
    Momentum,
    compatibility,
)
from constraints.inequality import Box
from pcfm.equations import laws
from pcfm.findings import Known, equation_of, holes, no_places, precision, rates, rounding_of, walls
from pcfm.lawbook import EachSample
from pcfm.laws import Context, build, labelled, parse, self_contained
from pde_datasets import Fields, problem_of

ASKED, STATED, DERIVED, SEEN, GUESSED = "asked for", "stated by the data", "from the equation", "seen at the walls", "guessed"
"""Why a law is checked: it was asked for; the data, or the problem that made them, state it; it follows from their equation; values at
the ends of an axis say so; fields of their kind may obey it."""

_FEW = 4
"""Fields that laws are tried on together."""

_MOVED = 1e-9
"""Change of a row, over the largest, from which a value counts as entering it: weights of round-off do not."""

_ALIKE = 1e-6
"""Distance of a cosine from 1 up to which the rows of two laws are multiples of each other."""

_BATCH = 256
"""Fields measured at a time."""


def context_of(fields: Fields) -> Context:
    """What laws of some fields are built from: all that the fields know of themselves."""
    return Context(fields.grid, fields.channels, fields.roles, fields.laws, count=len(fields), origin=fields, mesh=fields.mesh)


def stated(fields: Fields) -> list[tuple[str, Constraint]]:
    """Laws that the data state, or the problem that made them, each once, with what to ask for to have it.

    The laws of a problem hold what it states, so that of the two the problem's own, closed by the parameters of each sample, is kept.

    Raises:
        ValueError: the problem is not known here.
    """
    context = context_of(fields)
    problem = problem_of(fields)
    texts = [law for law in dict.fromkeys(fields.laws) if self_contained(law) and (_moving(fields) or not _compares_times(law))]
    whole = [] if problem is None or problem.grid.shape != fields.grid.shape else list(build("problem", context).leaves())
    own = [] if problem is None or not whole else [law for law in texts if law in problem.laws]
    known = [(law, leaf) for law in own for leaf in build(law, context).leaves()]
    found = []
    for leaf in whole:
        same = [law for law, other in known if type(other) is type(leaf) and other.name == leaf.name]
        found.append((same[0] if len(same) == 1 else "problem", leaf))
    rest = tuple(law for law in texts if law not in own)
    found += labelled(rest, context) if rest else []
    if fields.mesh is not None and fields.mesh.equations and "balance" not in rest:
        found += [(f"balance:equation={name}", build(f"balance:equation={name}", context)) for name in fields.mesh.equations]
    return found


def follow(fields: Fields, known: list[tuple[str, Constraint]], equation: Known | None, seen: Sequence[str] = ()) -> list[str]:
    """Laws that follow from the equation of the fields, and from what is seen at their walls, beside the known ones."""
    if equation is None or not _moving(fields):  # all of them compare times
        return []
    periodic = all(axis.periodic for axis in fields.grid.space_axes)
    ends = {parse(law)[1]["side"] for law in seen if parse(law)[0] == "dirichlet"}
    named = {_family(leaf) for _, leaf in known}
    bounded = any(isinstance(leaf, Box) for _, leaf in known)
    derived = laws(equation.equation, equation.channels, periodic=periodic, zero=ends == {"lower", "upper"})
    return [
        law for law in derived if (family := parse(law)[0]) not in named and not (family in ("bounds", "maximum-principle") and bounded)
    ]


def guesses(fields: Fields, known: list[tuple[str, Constraint]], told: Sequence[str] = ()) -> tuple[list[str], list[str]]:
    """Laws that fields of this kind may obey beside the known ones and those told already, and what cannot be checked and why."""
    found: list[str] = []
    unknown: list[str] = []
    if fields.attributes.get("lawless"):
        return found, unknown
    if fields.mesh is not None:
        known_elsewhere = fields.mesh.equations or fields.attributes.get("companion")
        return found, [] if known_elsewhere else ["laws in space: values on a mesh that brings no equations with it"]
    nowhere = no_places(fields)
    if nowhere is not None:
        return rates(fields), [nowhere]
    named = {parse(law)[0] for law in (*fields.laws, *told)} | {_family(leaf) for _, leaf in known}
    space = fields.grid.space_axes
    velocity = fields.roles.get("velocity", ())
    if velocity and len(velocity) == len(space) >= 2:
        if all(axis.periodic and axis.uniform for axis in space):
            schemes = {str(getattr(leaf.scheme, "name", "")) for _, leaf in known if isinstance(leaf, DivergenceFree)}
            found += [f"divergence-free:scheme={scheme}" for scheme in ("spectral", "central") if scheme not in schemes]
        elif not any(axis.cells or axis.points < 3 for axis in space):
            found += [law for law in ("divergence-free:scheme=central",) if "divergence-free" not in named]
        else:
            unknown.append("divergence: along cell centres or fewer than three points there is no difference to take")
    moving = _moving(fields)
    density, momentum = fields.roles.get("density", ()), fields.roles.get("momentum", ())
    descends = any(parse(law)[0] == "integral-decay" for law in told)  # what descends an energy is no density
    alone = not fields.roles and len(fields.channels) == 1 and not descends  # nothing else is known of it: it may be one
    if density and momentum and not any(isinstance(leaf, Box) for _, leaf in known):  # of a gas or of water
        found.append("positivity")
    if moving:
        if (density or alone) and "mass" not in named:
            found.append("mass")
        if (velocity or momentum) and "momentum" not in named:
            found.append("momentum")
        if momentum and "mass" not in named:  # the energy of a gas is a density too
            found += [f"mass:channels={name}" for name in fields.roles.get("energy", ())]
        if velocity:  # the energy of anything else is a guess that says nothing
            found += [law for law in ("energy",) if law not in named]
    else:
        closed = all(axis.periodic for axis in space) if momentum else "valid" not in fields.roles
        if (velocity or momentum) and "momentum" not in named and closed:
            found.append("momentum:value=0")
        if density or momentum:
            unknown.append("conservation in time: the file holds one time only")
    return found, unknown


def _moving(fields: Fields) -> bool:
    """Whether the fields hold two times or more."""
    return fields.grid.has_time and fields.grid.axes[0].points > 1


def _compares_times(law: str) -> bool:
    """Whether a law says how something goes on from the first time."""
    name, options = parse(law)
    return name in ("mass", "momentum", "energy", "energy-decay", "integral", "integral-decay") and "value" not in options


def _trial(fields: Fields) -> Tensor:
    r"""Fields $a_t u + b_t$ with $a_t, b_t$ drawn for each time, of the first sample: smooth where u is, and hardly ever lawful."""
    u = fields.u[:1].to(torch.float64)
    timed = fields.grid.has_time
    shape = (_FEW, 1, *(u.shape[2:3] if timed else ()), *(1 for _ in u.shape[3 if timed else 2 :]))
    a, b = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0), dtype=u.dtype)
    return (1 + a) * u + b * u.abs().max()


def _same(law: Constraint, other: Constraint, trial: Tensor) -> bool:
    """Whether two laws that compare times say the same of the fields of a trial, up to a factor and the error of differences."""
    if law.inequality or other.inequality or not all(each.name.endswith("(conserved)") for each in (law, other)):
        return False
    one, two = (each.take(slice(0, 1)).residual(trial).flatten() for each in (law, other))
    return one.shape == two.shape and bool(torch.dot(one, two).abs() > (1 - _ALIKE) * one.norm() * two.norm())


def _family(law: Constraint) -> str:
    """The name that a kind of law has on the command line, as far as it is guessed at."""
    kinds = {Mass: "mass", Momentum: "momentum", Energy: "energy", EnergyDecay: "energy-decay", DivergenceFree: "divergence-free"}
    return kinds.get(type(law), law.name.replace(" ", "-"))


def audit(fields: Fields, texts: tuple[str, ...] = (), context: Context | None = None) -> tuple[list[dict[str, Any]], list[str]]:
    """Violation of each law by the fields: the largest residual over samples and rows beside its natural scale.

    Arguments:
        fields: what to check.
        texts: laws to check; by default all that the data state, that follow from their equation, that are seen at their walls, and
            those that fields of their kind may obey.
        context: what the laws are built from; `context_of` the fields by default.

    Returns:
        A row for each law with `law` (what to ask for), `name`, `origin`, `scheme`, `violation`, `rms` (root mean square of all rows, by
        volume for a divergence),
        `scale`, `relative` (the largest violation as a share of the scale of its own sample), `tolerance` (the share up to which it
        holds), `rounding` (what the rounding of stored values may add to that in differences that are to equal something: their scale is
        the size of what they equal),
        `holds`, `unit`, `rows` (how many were measured, and of how many), and for a divergence `gradient` (the root mean square
        of the velocity gradient); and what could not be checked.
    """
    context = context_of(fields) if context is None else context
    tolerance, missing = precision(fields).tolerance, holes(fields)
    asked = [(law, leaf, ASKED) for law, leaf in labelled(texts, context)] if texts else []
    unknown: list[str] = []
    rest = asked
    if not texts:
        try:
            known = stated(fields)
        except ValueError as error:
            unknown.append(str(error))
            known = stated(replace(fields, attributes={}))
        ends = [] if fields.attributes.get("lawless") else walls(fields, tolerance)
        seen = [law for law in ends if not _said(law, known)]
        derived = follow(fields, known, equation_of(fields), ends)
        guessed, unchecked = guesses(fields, known, derived)
        rest = [(law, leaf, STATED) for law, leaf in known]
        trial = _trial(fields)
        for found, origin in ((derived, DERIVED), (seen, SEEN), (guessed, GUESSED)):
            built = [(law, build(law, context)) for law in found]
            rest += [(law, leaf, origin) for law, leaf in built if not any(_same(leaf, other, trial) for _, other, _ in rest)]
        unknown += [f"{law}: the file holds one time only" for law in fields.laws if _compares_times(law) and not _moving(fields)]
        unknown += unchecked
    pairs = []
    for law, leaf, origin in rest:
        row = _measure(law, leaf, origin, fields, tolerance, missing)
        if row is None:
            unknown.append(f"{law}: values that mean nothing enter all of it")
        else:
            pairs.append((row, leaf))
    _tell_apart(pairs, fields)
    return [row for row, _ in pairs], unknown


def _said(law: str, known: list[tuple[str, Constraint]]) -> bool:
    """Whether what was seen at an end is among the known laws: of a problem with walls all of it is."""
    kinds = {"no-slip": (Dirichlet,), "dirichlet": (Dirichlet,)}[parse(law)[0]]
    return any(isinstance(leaf, kinds) for _, leaf in known)


def together(fields: Fields, laws: tuple[str, ...], context: Context | None = None) -> dict[str, Any]:
    """Whether laws can hold together near the first of some fields, and which of them repeat others; as `constraints.compatibility`."""
    pairs = labelled(laws, context_of(fields) if context is None else context)
    single = any(isinstance(law, EachSample) for _, law in pairs)
    here = slice(0, min(len(fields), 1 if single else _FEW))
    law = Intersection(*(law.take(here) for _, law in pairs))
    found = compatibility(law, fields[here].values.to(torch.float64), [name for name, _ in pairs])
    redundant = [{"law": row.law, "by": list(row.by)} for row in found.redundant]
    return {**found._asdict(), "redundant": redundant, "compatible": found.compatible}


def _measure(
    text: str, law: Constraint, origin: str, fields: Fields, tolerance: float, missing: Tensor | None = None
) -> dict[str, Any] | None:
    """A row of the audit, of the rows of the law that values which mean nothing do not enter; None if there are none."""
    absolute, relative, scale, squares, weight, count, total = 0.0, 0.0, 0.0, 0.0, 0.0, 0, 0
    rounding, holds = 0.0, True
    gradient = _Gradient(text, law, fields)
    for first in range(0, len(fields), _BATCH):
        here = slice(first, min(first + _BATCH, len(fields)))
        u, part = fields.u[here].to(torch.float64), law.take(here)
        found, size = part.measure(u)
        excess, equated = part.excess(found), part.equated(u)
        slack = torch.zeros_like(found)
        if equated is not None:
            size = equated.where(equated > 0, size)  # beside nothing, differences are as large as their terms
            slack = _spread(part, rounding_of(fields, u))
        size = size.expand_as(found)
        kept = torch.ones_like(found, dtype=torch.bool) if missing is None else ~_entered(part, missing[here], u)
        excess = excess.where(kept, 0.0)
        share = torch.where(excess == 0, excess, excess / size)
        absolute, relative = max(absolute, float(excess.max())), max(relative, float(share.max()))
        scale, rounding = max(scale, float(size.max())), max(rounding, float(slack.max()))
        holds = holds and bool((excess <= tolerance * size + slack).all())
        weights = gradient.weights(excess)
        squares, weight = squares + float((weights * excess.square()).sum()), weight + float((weights * kept).sum())
        count, total = count + int(kept.sum()), total + kept.numel()
        gradient.add(u, None if missing is None else missing[here])
    if not count:
        return None
    return {
        "law": text,
        "name": law.name,
        "origin": origin,
        "scheme": getattr(getattr(law, "scheme", None), "name", "quadrature"),
        "violation": absolute,
        "rms": (squares / weight) ** 0.5,
        "scale": scale,
        "relative": relative,
        "tolerance": tolerance,
        "rounding": rounding,
        "holds": holds,
        "unit": law.unit,
        "rows": [count, total],
        **({"gradient": gradient.rms} if gradient.rms is not None else {}),
    }


def _spread(law: Constraint, errors: Tensor) -> Tensor:
    r"""What errors of the values may make of the rows of a linear law, $\sum_j |a_{ij}| e_j$, (B, m)."""
    entries = law.operator.entries() if isinstance(law, LinearConstraint) else None
    if not isinstance(law, LinearConstraint) or entries is None:
        raise TypeError(f"audit expects a sparse linear law where differences equal something; got {law.name}.")
    rows, columns, values = entries
    return errors.new_zeros(len(errors), law.operator.rows).index_add_(1, rows, values.to(errors).abs() * errors.flatten(1)[:, columns])


def _entered(law: Constraint, missing: Tensor, u: Tensor) -> Tensor:
    """Which rows of a law change when values that mean nothing do, (B, m)."""
    noise = torch.randn(u.shape, generator=torch.Generator().manual_seed(0), dtype=u.dtype)
    moved = (law.residual(u + noise * missing) - law.residual(u)).abs()
    return moved > _MOVED * moved.amax(1, keepdim=True)


class _Gradient:
    """The root mean square of the velocity gradient in the scheme of a divergence, beside which its size says something."""

    def __init__(self, text: str, law: Constraint, fields: Fields) -> None:
        chosen = parse(text)[1].get("channels", "+".join(fields.roles.get("velocity", ()))) if isinstance(law, DivergenceFree) else ""
        staggered = isinstance(law, DivergenceFree) and not law.scheme.centred
        self.channels = [] if staggered else [fields.channel(name) for name in filter(None, chosen.split("+"))]
        self.law, self.grid, self.squares, self.weight = law, fields.grid, 0.0, 0.0

    def weights(self, rows: Tensor) -> Tensor:
        """What each row of the law counts by: the volume around its point for a divergence, else all alike."""
        if not self.channels:
            return rows.new_ones(1, 1)
        return self.grid.weights().expand(self.grid.shape).flatten()

    def add(self, u: Tensor, missing: Tensor | None) -> None:
        if not self.channels or not isinstance(self.law, DivergenceFree):
            return
        for axis in self.grid.space_axes:
            slope = self.law.scheme.derivative(u[:, self.channels], self.grid, axis.name)
            kept = torch.ones_like(slope, dtype=torch.bool)
            if missing is not None:
                noise = torch.randn(u.shape, generator=torch.Generator().manual_seed(0), dtype=u.dtype)[:, self.channels]
                moved = self.law.scheme.derivative(noise * missing, self.grid, axis.name).abs()
                kept = moved <= _MOVED * moved.max()
            weights = self.grid.weights()
            self.squares += float((weights * slope.where(kept, 0.0).square()).sum())
            self.weight += float((weights * kept).sum()) / len(self.channels)

    @property
    def rms(self) -> float | None:
        """Of |grad u|, (sum over all components)^(1/2)."""
        return (self.squares * len(self.grid.space_axes) / self.weight) ** 0.5 if self.weight else None


def _tell_apart(pairs: list[tuple[dict[str, Any], Constraint]], fields: Fields) -> None:
    """Give laws of one name the names of the channels that they are about, where these differ."""
    names = [row["name"] for row, _ in pairs]
    for row, leaf in pairs:
        if names.count(row["name"]) > 1:
            about = _about(leaf.take(slice(0, 1)), fields)
            row["name"] = f"{row['name']} of {', '.join(about)}" if 0 < len(about) < len(fields.channels) else row["name"]


def _about(law: Constraint, fields: Fields) -> list[str]:
    """The channels that a law changes with."""
    u = fields.u[:1].to(torch.float64)
    noise = torch.randn(u.shape, generator=torch.Generator().manual_seed(0), dtype=u.dtype)
    found, about = law.residual(u), []
    for i, name in enumerate(fields.channels):
        moved = u.clone()
        moved[:, i] += noise[:, i]
        if not torch.equal(law.residual(moved), found):
            about.append(name)
    return about
