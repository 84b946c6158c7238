"""Which laws fields obey, and how well: asked of data before anything is enforced on samples."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from constraints import Constraint, DivergenceFree, Energy, Intersection, Mass, Momentum, compatibility
from constraints.inequality import Box
from pcfm.lawbook import EachSample
from pcfm.laws import Context, build, labelled, parse, self_contained
from pcfm.metrics import violation
from pde_datasets import Fields, problem_of

HOLDS = {torch.float64: 1e-9, torch.float32: 2e-5}
"""Relative residual up to which a law counts as holding: round-off, with the margin that solvers and storage in that type take."""

ASKED, STATED, GUESSED = "asked for", "stated by the data", "guessed"
"""Why a law is checked: it was asked for; the data, or the problem that made them, state it; fields of their kind may obey it."""

_FEW = 4
"""Fields that laws are tried on together."""

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
    texts = [law for law in dict.fromkeys(fields.laws) if self_contained(law)]
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


def guesses(fields: Fields, known: list[tuple[str, Constraint]]) -> tuple[list[str], list[str]]:
    """Laws that fields of this kind may obey beside the known ones, and what cannot be checked and why."""
    laws: list[str] = []
    unknown: list[str] = []
    if fields.mesh is not None:
        return laws, unknown
    if not fields.grid.space_axes:
        return laws, ["laws in space: the fields are numbers in time, on no axis in space"]
    named = {parse(law)[0] for law in fields.laws} | {_family(leaf) for _, leaf in known}
    space = fields.grid.space_axes
    velocity = fields.roles.get("velocity", ())
    if velocity and len(velocity) == len(space) >= 2:
        if all(axis.periodic and axis.uniform for axis in space):
            schemes = {str(getattr(leaf.scheme, "name", "")) for _, leaf in known if isinstance(leaf, DivergenceFree)}
            laws += [f"divergence-free:scheme={scheme}" for scheme in ("spectral", "central") if scheme not in schemes]
        elif not any(axis.cells or axis.points < 3 for axis in space):
            laws += [law for law in ("divergence-free:scheme=central",) if "divergence-free" not in named]
            if any(not axis.periodic and not axis.cells for axis in space):
                laws += [law for law in ("no-slip",) if law not in named]
        else:
            unknown.append("divergence: along cell centres or fewer than three points there is no difference to take")
    moving = fields.grid.has_time and fields.grid.axes[0].points > 1
    density = fields.roles.get("density", ())
    alone = not fields.roles and len(fields.channels) == 1  # nothing is known of it: it may be a density
    if moving:
        if (density or alone) and "mass" not in named:
            laws.append("mass")
        if (velocity or "momentum" in fields.roles) and "momentum" not in named:
            laws.append("momentum")
        if velocity:  # the energy of anything else is a guess that says nothing
            laws += [law for law in ("energy",) if law not in named]
        if len(fields.channels) == 1 and not any(isinstance(leaf, Box) for _, leaf in known):
            laws.append("maximum-principle")
    else:
        if velocity and "momentum" not in named:
            laws.append("momentum:value=0")
        if density or "momentum" in fields.roles:
            unknown.append("conservation in time: the file holds one time only")
    return laws, unknown


def _family(law: Constraint) -> str:
    """The name that a kind of law has on the command line, as far as it is guessed at."""
    kinds = {Mass: "mass", Momentum: "momentum", Energy: "energy", DivergenceFree: "divergence-free"}
    return kinds.get(type(law), law.name.replace(" ", "-"))


def audit(fields: Fields, laws: tuple[str, ...] = (), context: Context | None = None) -> tuple[list[dict[str, Any]], list[str]]:
    """Violation of each law by the fields: the largest residual over samples and rows beside its natural scale.

    Arguments:
        fields: what to check.
        laws: laws to check; all that the data state, and those that fields of their kind may obey, by default.
        context: what the laws are built from; `context_of` the fields by default.

    Returns:
        A row for each law with `law` (what to ask for), `name`, `origin`, `scheme`, `violation`, `scale`, `relative` (the largest
        violation as a share of the scale of its own sample), `tolerance` (the share up to which it holds), `holds`, `unit`; and what could
        not be checked.
    """
    context = context_of(fields) if context is None else context
    if laws:
        return [_measure(law, leaf, ASKED, fields) for law, leaf in labelled(laws, context)], []
    unknown: list[str] = []
    try:
        known = stated(fields)
    except ValueError as error:
        unknown.append(str(error))
        known = stated(replace(fields, attributes={}))
    guessed, unchecked = guesses(fields, known)
    rows = [_measure(law, leaf, STATED, fields) for law, leaf in known]
    rows += [_measure(law, build(law, context), GUESSED, fields) for law in guessed]
    return rows, unknown + unchecked


def together(fields: Fields, laws: tuple[str, ...], context: Context | None = None) -> dict[str, Any]:
    """Whether laws can hold together near the first of some fields, and which of them repeat others; as `constraints.compatibility`."""
    pairs = labelled(laws, context_of(fields) if context is None else context)
    single = any(isinstance(law, EachSample) for _, law in pairs)
    here = slice(0, min(len(fields), 1 if single else _FEW))
    law = Intersection(*(law.take(here) for _, law in pairs))
    found = compatibility(law, fields[here].values.to(torch.float64), [name for name, _ in pairs])
    redundant = [{"law": row.law, "by": list(row.by)} for row in found.redundant]
    return {**found._asdict(), "redundant": redundant, "compatible": found.compatible}


def _measure(text: str, law: Constraint, origin: str, fields: Fields) -> dict[str, Any]:
    absolute, relative, scale = 0.0, 0.0, 0.0
    for first in range(0, len(fields), _BATCH):
        here = slice(first, min(first + _BATCH, len(fields)))
        u, part = fields.u[here].to(torch.float64), law.take(here)
        found = violation(part, u)
        absolute, relative = max(absolute, float(found.absolute.max())), max(relative, float(found.relative.max()))
        scale = max(scale, float(part.scale(u).max()))
    tolerance = HOLDS.get(fields.u.dtype, HOLDS[torch.float64])
    return {
        "law": text,
        "name": law.name,
        "origin": origin,
        "scheme": getattr(getattr(law, "scheme", None), "name", "quadrature"),
        "violation": absolute,
        "scale": scale,
        "relative": relative,
        "tolerance": tolerance,
        "holds": relative <= tolerance,
        "unit": law.unit,
    }
