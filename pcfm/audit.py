"""Which laws fields obey, and how well: asked of data before anything is enforced on samples."""

from __future__ import annotations

from typing import Any

import torch

from constraints import Balance, Constraint, compatibility
from pcfm.laws import Context, build, build_all, parse, self_contained
from pde_datasets import Fields, problem_of

HOLDS = {torch.float64: 1e-9, torch.float32: 2e-5}
"""Relative residual up to which a law counts as holding: round-off, with the margin that solvers and storage in that type take."""

_FEW = 4
"""Fields that laws are tried on together."""


def candidates(fields: Fields) -> tuple[list[str], list[str]]:
    """Laws that could hold for fields of this kind, and what cannot be checked and why."""
    laws = [law for law in fields.laws if self_contained(law)]
    unknown: list[str] = []
    if fields.mesh is not None:
        return laws, unknown
    if not fields.grid.space_axes:
        return laws, ["laws in space: the fields are numbers in time, on no axis in space"]
    try:
        laws += ["problem"] if problem_of(fields) is not None else []
    except ValueError as error:
        unknown.append(str(error))
    named = {parse(law)[0] for law in laws}
    space = fields.grid.space_axes
    velocity = fields.roles.get("velocity", ())
    if velocity and len(velocity) == len(space) >= 2:
        if all(axis.periodic and axis.uniform for axis in space):
            stated = {parse(law)[1].get("scheme", "spectral") for law in laws if parse(law)[0] == "divergence-free"}
            laws += [f"divergence-free:scheme={scheme}" for scheme in ("spectral", "central") if scheme not in stated]
        elif not any(axis.cells or axis.points < 3 for axis in space):
            laws += [law for law in ("divergence-free:scheme=central",) if "divergence-free" not in named]
            if any(not axis.periodic and not axis.cells for axis in space):
                laws += [law for law in ("no-slip",) if law not in named]
        else:
            unknown.append("divergence: along cell centres or fewer than three points there is no difference to take")
    moving = fields.grid.has_time and fields.grid.axes[0].points > 1
    density = fields.roles.get("density", fields.channels if len(fields.channels) == 1 else ())
    if moving:
        if density and "mass" not in named:
            laws.append("mass")
        if (velocity or "momentum" in fields.roles) and "momentum" not in named:
            laws.append("momentum")
        everything = f":channels={'+'.join(fields.channels)}"
        if velocity:
            laws += [law for law in ("energy",) if law not in named]
        elif len(set(fields.units)) == 1 and len(fields.channels) <= 2:  # a scalar, or the parts of a complex one: its square
            laws += [law + everything for law in ("energy", "energy-decay") if law not in named]
        if len(fields.channels) == 1 and "maximum-principle" not in named:
            laws.append("maximum-principle")
    else:
        if velocity and "momentum" not in named:
            laws.append("momentum:value=0")
        if density or "momentum" in fields.roles:
            unknown.append("conservation in time: the file holds one time only")
    return laws, unknown


def audit(fields: Fields, laws: tuple[str, ...] = (), batch: int = 256) -> tuple[list[dict[str, Any]], list[str]]:
    """Violation of each law by the fields: the largest residual over samples and rows beside its natural scale.

    Arguments:
        fields: what to check.
        laws: laws to check; all `candidates` by default.
        batch: fields at a time.

    Returns:
        A row for each law with `name`, `scheme`, `violation`, `scale`, `holds`, `unit`; and what could not be checked.
    """
    texts, unknown = (list(laws), []) if laws else candidates(fields)
    rows = []
    for text in texts:
        context = Context(fields.grid, fields.channels, fields.roles, fields.laws, count=len(fields), origin=fields)
        law = build(text, context)
        rows += [{"law": text, **_measure(leaf, fields, batch)} for leaf in (law.leaves() if text == "problem" else [law])]
    return rows + _equations(fields), unknown


def _equations(fields: Fields) -> list[dict[str, Any]]:
    """The equations written on the mesh of fields, each as a law, the largest residual over all samples."""
    rows = []
    for name, equation in ({} if fields.mesh is None else fields.mesh.equations).items():
        each = isinstance(equation.matrix, tuple) or isinstance(equation.value, tuple)
        parts = [fields[i : i + 1] for i in range(len(fields))] if each else [fields]
        found = []
        for i, part in enumerate(parts):
            matrix, value = equation.of(i)
            shape = (len(fields.channels), *fields.grid.shape)
            law = Balance(matrix.to(torch.float64), value, shape=shape, name=name, unit=equation.unit)
            found.append(_measure(law, part, len(part)))
        rows.append({"law": name, **max(found, key=lambda row: row["relative"])})
    return rows


def together(fields: Fields, laws: tuple[str, ...]) -> dict[str, Any]:
    """Whether laws can hold together near the first of some fields, and which of them repeat others; as `constraints.compatibility`."""
    few = fields[slice(0, min(len(fields), _FEW))]
    context = Context(fields.grid, fields.channels, fields.roles, fields.laws, count=len(few), origin=few)
    names = [text for text in laws for _ in build(text, context).leaves()]
    found = compatibility(build_all(laws, context), few.values.to(torch.float64), names)
    redundant = [{"law": row.law, "by": list(row.by)} for row in found.redundant]
    return {**found._asdict(), "redundant": redundant, "compatible": found.compatible}


def _measure(law: Constraint, fields: Fields, batch: int) -> dict[str, Any]:
    violation, scale, worst = 0.0, 0.0, 0.0
    for first in range(0, len(fields), batch):
        here = slice(first, min(first + batch, len(fields)))
        residual, size = law.take(here).measure(fields.u[here].to(torch.float64))
        residual = law.excess(residual)
        share = residual / size.clamp_min(torch.finfo(torch.float64).tiny)
        violation, scale = max(violation, float(residual.max())), max(scale, float(size.max()))
        worst = max(worst, float(torch.where(residual == 0, 0.0, share).max()))
    return {
        "name": law.name,
        "scheme": getattr(getattr(law, "scheme", None), "name", "quadrature"),
        "violation": violation,
        "scale": scale,
        "relative": worst,
        "holds": worst <= HOLDS.get(fields.u.dtype, HOLDS[torch.float64]),
        "unit": law.unit,
    }
