"""What values themselves say beside what their file states: how precise they are, their equation, walls, integrals, holes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pcfm.equations import Evolution, parse
from pcfm.recognition import recognise
from pde_datasets import Fields

HOLDS = {torch.float64: 1e-9, torch.float32: 2e-5}
"""Relative residual up to which a law counts as holding: round-off, with the margin that solvers and storage in that type take."""

_DIGITS = 7
"""Decimal digits up to which values count as written with few."""

_DIFFERENT = 50
"""Different values that it takes to say anything of their digits: a few constants may be exact."""

_SAMPLE = 100_000
"""Values whose digits are looked at."""

_FEW = 4
"""Samples that an equation is looked for in; all must obey the same."""


@dataclass(frozen=True)
class Precision:
    """Up to which share of its scale a law holds, and why."""

    tolerance: float
    reason: str


def precision(fields: Fields) -> Precision:
    """How well the values can obey a law: what their source says, what they were written with, or what their type keeps."""
    dtype = fields.u.dtype if fields.u.dtype in HOLDS else torch.float64
    kind = str(dtype).removeprefix("torch.")
    found = [Precision(HOLDS[dtype], f"round-off and solvers in {kind}")]
    stated = fields.attributes.get("precision")
    if isinstance(stated, (int, float)) and 0 < stated < 1:
        found.append(Precision(float(stated), str(fields.attributes.get("precision_reason") or "as its source says")))
    digits = _digits(fields.u[:1].flatten()[:_SAMPLE].to(torch.float64)) if len(fields) else None
    if digits is not None:
        found.append(Precision(5 * 10.0**-digits, f"values are rounded to {digits} decimal digits, however they are stored"))
    return max(found, key=lambda each: each.tolerance)


def rounding_of(fields: Fields, u: Tensor) -> Tensor:
    r"""How far stored values may be from those that were meant, of the shape of u: half a unit of the last place that their type keeps or
    that their source wrote, whichever is larger, and 64 of those of double precision for the sums they enter.

    `attributes["written"]` says how many significant digits and decimals each channel has, `{"u": [12, 13]}`; the coarser counts.
    """
    kept = torch.finfo(fields.u.dtype).eps if fields.u.dtype.is_floating_point else 0.0
    meant = kept / 2 * u.abs()
    for name, (digits, decimals) in dict(fields.attributes.get("written") or {}).items():
        channel = fields.channel(name)
        exponent = u[:, channel].abs().clamp_min(torch.finfo(u.dtype).tiny).log10().floor()
        last = 10.0 ** (exponent + 1 - digits).clamp_min(-float(decimals))
        meant[:, channel] = torch.maximum(meant[:, channel], last / 2)
    return meant + 64 * torch.finfo(torch.float64).eps * u.abs()


def _digits(values: Tensor) -> int | None:
    """How many decimal digits all values are written with; None where it takes more than a few, or where values are whole numbers
    or a few constants."""
    values = values[values.isfinite() & (values != 0)]
    if bool((values == values.round()).all()) or len(values.unique()) < _DIFFERENT:
        return None
    exponent = values.abs().log10().floor()
    for digits in range(1, _DIGITS + 1):
        shift = exponent - digits + 1
        mantissa = values / 10**shift
        if bool(((mantissa - mantissa.round()).abs() <= 1e-9 * mantissa.abs()).all()):
            return digits
    return None


# --- the equation ------------------------------------------------------------------------------------------------------------------


_SYMBOLS = {"nu": "viscosity"}
"""Symbols of stated equations and the parameter that they stand for."""


@dataclass(frozen=True)
class Known:
    """An evolution equation and how it is known: its misfit where it was found in the values, None where it was stated, and how far
    off each coefficient may be then (`recognition.Found.margin`)."""

    equation: Evolution
    channels: tuple[str, ...]
    misfit: float | None
    margin: Mapping[str, float] | None = None


def equation_of(fields: Fields) -> Known | None:
    """The evolution equation of one field on a line: stated, or else found in the values; None if there is none of the kind."""
    space = fields.grid.space_axes
    if fields.mesh is not None or not fields.grid.has_time or len(space) != 1 or not _is_place(space[0].name, space[0].unit):
        return None
    stated = fields.attributes.get("equation")
    if stated:
        numbers = {name: values for name, values in fields.parameters.items() if values.ndim == 1 and values.is_floating_point()}
        ranges = {name: (float(values.min()), float(values.max())) for name, values in numbers.items()}
        settings = fields.attributes.get("problem_settings")
        ranges |= {k: (float(v), float(v)) for k, v in (settings or {}).items() if type(v) in (int, float) and k not in ranges}
        ranges |= {symbol: ranges[name] for symbol, name in _SYMBOLS.items() if name in ranges and symbol not in ranges}
        equation = parse(str(stated), ranges) if len(fields.channels) == 1 else None
        if equation is not None:
            return Known(equation, fields.channels, None)
    pair = len(fields.channels) == 2 and [name[-5:] for name in fields.channels] == ["_real", "_imag"]
    if not (len(fields.channels) == 1 or pair):
        return None
    found = []
    for u in fields.u[:_FEW].to(torch.float64):
        one = recognise(torch.complex(u[0], u[1]) if pair else u[0], *fields.grid.axes)
        if one is None:
            return None
        found.append(one)
    terms = {frozenset(one.equation.terms) for one in found}
    if len(terms) != 1:
        return None
    merged = {
        term: (min(one.equation.terms[term][0] for one in found), max(one.equation.terms[term][1] for one in found))
        for term in found[0].equation.terms
    }
    margin = {term: max(one.margin[term] for one in found) for term in merged}
    return Known(Evolution(merged, found[0].equation.complex), fields.channels, max(one.misfit for one in found), margin)


def _is_place(name: str, unit: str) -> bool:
    return name not in ("k", "wavenumber", "frequency") and not unit.startswith("degree")


def no_places(fields: Fields) -> str | None:
    """Why laws in space make no sense along the axes of some fields; None if they do."""
    if fields.mesh is not None:
        return None
    if not fields.grid.space_axes:
        return "laws in space: the fields are numbers in time, on no axis in space"
    for axis in fields.grid.space_axes:
        if axis.unit.startswith("degree"):
            return f"laws in space: {axis.name} is an angle on a sphere, where sums and differences along axes mean nothing"
        if not _is_place(axis.name, axis.unit):
            return f"laws in space: {axis.name} is no place"
    return None


# --- walls -------------------------------------------------------------------------------------------------------------------------


def walls(fields: Fields, tolerance: float) -> list[str]:
    """Ends of bounded axes at which values vanish in all samples and at all times, as laws."""
    names = fields.roles.get("velocity", ()) or (fields.channels if len(fields.channels) == 1 else ())
    ends = [axis for axis in fields.grid.space_axes if not axis.periodic and not axis.cells and axis.points > 2]
    if not names or not ends or "valid" in fields.roles or no_places(fields) is not None:
        return []
    channels = [fields.channel(name) for name in names]
    still: dict[tuple[str, str], Tensor] = {}
    size = torch.zeros(len(names), dtype=torch.float64)
    for piece in fields.pieces():
        u = piece.values[:, channels].to(torch.float64)
        size = torch.maximum(size, u.abs().transpose(0, 1).flatten(1).amax(1))
        for axis in ends:
            for side, index in (("lower", 0), ("upper", -1)):
                there = u.select(fields.grid.dim(axis.name), index).abs().transpose(0, 1).flatten(1).amax(1)
                still[axis.name, side] = torch.maximum(there, still.get((axis.name, side), torch.zeros_like(there)))
    held = {key: [n for n, value, most in zip(names, values, size, strict=True) if most > 0 and value <= tolerance * most]
            for key, values in still.items()}  # fmt: skip
    if fields.roles.get("velocity") and all(len(found) == len(names) for found in held.values()):
        return ["no-slip"]
    return [f"dirichlet:axis={axis},side={side},value=0,channels={'+'.join(found)}" for (axis, side), found in held.items() if found]


# --- histories ---------------------------------------------------------------------------------------------------------------------


def rates(fields: Fields) -> list[str]:
    """Laws of numbers in time by the names of their channels: energy falls at its dissipation, or at viscosity times enstrophy.

    Enstrophy is the mean of the squared vorticity, or half of it: the law takes what the first half of the history says.
    """
    if fields.mesh is not None or fields.grid.space_axes or fields.grid.axes[0].points < 3:
        return []
    named = {word: [name for name in fields.channels if word in name.lower()] for word in ("energy", "dissipation", "enstrophy")}
    words = [name for found in named.values() for name in found]
    if any(len(found) > 1 for found in named.values()) or not named["energy"] or not _plain(*words):
        return []
    (energy,) = named["energy"]
    if named["dissipation"]:
        return [f"rate:of={energy},by={named['dissipation'][0]},factor=-1"]
    viscosity = fields.parameters.get("viscosity")
    if not named["enstrophy"] or viscosity is None or len(fields) != 1 or viscosity.numel() != 1:
        return []
    (enstrophy,) = named["enstrophy"]
    time = fields.grid.axes[0].positions()
    half = len(time) // 2 + 1
    u = fields.values[0, :, :half].to(torch.float64)
    lost = u[fields.channel(energy), 0] - u[fields.channel(energy), -1]
    gone = viscosity.item() * torch.trapezoid(u[fields.channel(enstrophy)], time[:half])
    times = min((1.0, 2.0), key=lambda factor: abs(float(factor * gone - lost)))
    return [f"rate:of={energy},by={enstrophy},factor={-times * viscosity.item():.12g}"]


def _plain(*names: str) -> bool:
    """Whether names can stand in the words of a law."""
    return not any(mark in name for name in names for mark in ",+")


# --- holes -------------------------------------------------------------------------------------------------------------------------


def holes(fields: Fields) -> Tensor | None:
    """Where values mean nothing, (N, 1, *N) boolean, by the channel that says which are valid; None where all are."""
    valid = fields.role("valid")
    if not valid:
        return None
    missing = fields.values[:, list(valid)] <= 0
    return missing if bool(missing.any()) else None


# --- integrals ---------------------------------------------------------------------------------------------------------------------


def integrals(fields: Fields) -> list[dict[str, Any]]:
    """Integrals over space of what may be conserved, at the first and the last time, the least and largest of all samples."""
    if fields.mesh is not None or no_places(fields) is not None or "valid" in fields.roles:
        return []
    names = [name for role in ("density", "momentum", "energy") for name in fields.roles.get(role, ())]
    if not names:
        return []
    channels = [fields.channel(name) for name in names]
    weights, rows = fields.grid.weights(), []
    for piece in fields.pieces():
        u = piece.values[:, channels].to(torch.float64)
        u = u[:, :, [0, -1]] if fields.grid.has_time else u[:, :, None]
        w = (weights[0] if fields.grid.has_time else weights).expand(u.shape[3:])
        rows.append((u * w).flatten(3).sum(3))
    total = torch.cat(rows)
    return [
        {"of": name, "first": [float(total[:, i, 0].min()), float(total[:, i, 0].max())],
         "last": [float(total[:, i, -1].min()), float(total[:, i, -1].max())]}
        for i, name in enumerate(names)
    ]  # fmt: skip
