"""Fields against reference fields: every metric, with the value that the reference has against itself and how far that scatters."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from constraints import Constraint, EvolutionEquation, Grid, Intersection
from pcfm.laws import Context, build, self_contained
from pcfm.metrics import (
    EquationResidual,
    constraint_error,
    equation_residual,
    feasible_fraction,
    held_out,
    relative_error,
    scheme_errors,
    scheme_residual,
    violation,
)
from pcfm.metrics import equations as rates
from pcfm.metrics import literature as published
from pcfm.metrics.catalogue import METRICS, Basis, select
from pcfm.metrics.floor import median, random_halves
from pcfm.report import Column
from pde_datasets import Fields, Problem, problem_of

COLUMNS = (
    Column("metric", "metric"),
    Column("value", "value"),
    Column("reference", "reference's own"),
    Column("floor", "noise floor"),
    Column("floor_high", "at most"),
    Column("unit", "unit"),
    Column("formula", "formula"),
    Column("note", "meaning of the reference's own value"),
)

SPLITS = 16
"""Random halves of the reference that the noise floor is the median over."""

TOLERANCES = (1e-3, 1e-6)
"""At which samples count as feasible: that of I-PCFM, and one that leaves no doubt."""

_HALVES = "one half of the reference against the other"
_LAW = "the law measured on the reference"

Parameters = Mapping[str, Tensor]
Residual = Callable[[Tensor, Parameters], Tensor]

PUBLISHED: dict[str, Callable[[Any], dict[str, Residual]]] = {
    "heat": lambda problem: {
        "IC": lambda u, p: published.initial_residual(u, problem.grid, problem.solution(p["diffusivity"], p["phase"])[:, :, 0]),
        "CL": lambda u, p: published.node_mass_residual(u, problem.grid),
    },
    "reaction-diffusion": lambda problem: (
        {
            "IC": lambda u, p: published.initial_residual(u, problem.grid, p["initial"][:, None]),
            "CL": lambda u, p: published.reaction_diffusion_mass_residual(u, problem.grid, p["reaction"], p["diffusivity"]),
        }
        if problem.boundary == "flux"
        else {}
    ),
    "inviscid-burgers": lambda problem: {
        "IC": lambda u, p: published.initial_residual(u, problem.grid, problem.initial(p["front"])[:, None]),
        "BC": lambda u, p: published.burgers_boundary_residual(u, problem.grid, p["inflow"]),
        "CL": lambda u, p: published.burgers_mass_residual(u, problem.grid),
    },
    "navier-stokes": lambda problem: {
        "IC": lambda u, p: published.initial_residual(u, problem.grid, p["initial"]),
        "CL": lambda u, p: published.node_mass_residual(u, problem.grid),
    },
}
"""Constraint residuals of PCFM's code for the problems of its paper."""

EQUATIONS: dict[str, Callable[[Any, Parameters, Grid], rates.Rate]] = {
    "heat": lambda problem, p, grid: rates.diffusion(grid, p["diffusivity"], rates.natural_scheme(grid)),
    "advection": lambda problem, p, grid: rates.advection(grid, p["speed"], rates.natural_scheme(grid)),
    "burgers": lambda problem, p, grid: rates.burgers(grid, p["viscosity"], rates.natural_scheme(grid)),
    "reaction-diffusion": lambda problem, p, grid: rates.fisher(grid, p["diffusivity"], p["reaction"], rates.natural_scheme(grid)),
    "allen-cahn": lambda problem, p, grid: rates.allen_cahn(grid, problem.diffusion, problem.reaction, rates.natural_scheme(grid)),
    "kuramoto-sivashinsky": lambda problem, p, grid: rates.kuramoto_sivashinsky(grid, p["viscosity"], rates.natural_scheme(grid)),
    "kdv": lambda problem, p, grid: rates.korteweg_de_vries(grid, problem.nonlinearity, problem.dispersion, rates.natural_scheme(grid)),
    "navier-stokes": lambda problem, p, grid: rates.vorticity(
        grid, p["viscosity"], rates.natural_scheme(grid), problem.force * _diagonal_wave(grid, p["phase"])
    ),
}
"""Right-hand sides of the embedded problems, for their residual."""


def _diagonal_wave(grid: Grid, phase: Tensor) -> Tensor:
    r"""$\sin(2\pi(x + y) + \varphi)$ on the plane, (N, 1, 1, X, Y)."""
    x, y = grid.space.mesh(phase)
    return torch.sin(2 * math.pi * (x + y) + phase[:, None, None])[:, None, None]


def compare(
    fields: Fields,
    reference: Fields,
    laws: tuple[str, ...] = (),
    *,
    paired: bool = False,
    metrics: tuple[str, ...] = ("default",),
    seed: int = 0,
    splits: int = SPLITS,
) -> list[dict[str, Any]]:
    """Metrics of fields against a reference, one row each.

    A row has `metric`, `value`, `reference` (the reference's own value), `floor`, `floor_low`, `floor_high` (median, least and largest
    over random halves of the reference; None where a metric compares no two sets), `unit`, `formula` (the function of `pcfm.metrics`, and
    its line in docs/metrics.md), and `note`.

    Distribution metrics compare ensembles; the reference's own value is that of its two halves, the floor below which nothing can be
    told apart. Laws are measured on both.

    Arguments:
        fields: what to judge.
        reference: what to judge by, on the same grid. Where laws or an equation need parameters that fields do not bring, field i has
            those of reference i, cyclically.
        laws: laws to measure; those that either states by default, and for the groups "literature" and "residual" those of the embedded
            problem that made the fields or the reference.
        paired: field i predicts reference i.
        metrics: names and groups of the catalogue (`pcfm.metrics.catalogue`), or "all". What a group has that fields of this kind have
            not is left out.
        seed: of random halves, directions, filters and ties.
        splits: number of random halves.

    Raises:
        ValueError: the grids or channels differ, or the counts do where fields are paired; an unknown metric, or one asked for by its
            name that these fields do not have.
    """
    if fields.grid.shape != reference.grid.shape or len(fields.channels) != len(reference.channels):
        raise ValueError(
            f"evaluate expects fields like the reference, {len(reference.channels)} channels on {reference.grid.shape}; "
            f"got {len(fields.channels)} on {fields.grid.shape}."
        )
    if splits < 1:
        raise ValueError(f"evaluate expects at least one split of the reference; got {splits}.")
    names = select(metrics)
    u, r, grid = fields.values.to(torch.float64), reference.values.to(torch.float64), reference.grid
    rows: list[dict[str, Any]] = []
    if paired:
        if len(u) != len(r):
            raise ValueError(f"--paired expects as many fields as references; got {len(u)} and {len(r)}.")
        errors, formula, note = relative_error(u, r, grid), "relative_error", "a reference predicts itself"
        rows.append(_row("relative error, mean", float(errors.mean()), 0.0, "1", formula, note))
        rows.append(_row("relative error, 95th percentile", float(errors.quantile(0.95)), 0.0, "1", formula, note))
    velocity = reference.role("velocity") or fields.role("velocity")
    velocity = velocity if len(velocity) == len(grid.space_axes) else ()
    basis = Basis(grid, r, velocity, seed, box=reference.mesh is None)
    rows += _ensemble(names, metrics, fields, u, basis, splits)
    stated = tuple(dict.fromkeys(law for law in (*fields.laws, *reference.laws) if self_contained(law)))
    pairs = _laws(laws or stated, fields, reference, borrowed=bool(laws))
    rows += [_law(law, own, u, r) for law, own in pairs]
    return rows + _Origin(fields, reference, u, r).rows(names, metrics, [] if not laws else pairs, pairs)


def _ensemble(names: tuple[str, ...], asked: tuple[str, ...], fields: Fields, u: Tensor, basis: Basis, splits: int) -> list[dict[str, Any]]:
    """Rows of the catalogue's metrics."""
    unit = fields.units[0] if len(set(fields.units)) == 1 else "mixed"
    units = {"field": unit, "square": "1" if unit == "1" else f"({unit})2"}
    r = basis.reference
    halves = [
        (torch.arange(len(r))[::2], torch.arange(len(r))[1::2]),
        *(order.tensor_split(2) for order in random_halves(len(r), splits, len(r), basis.generator())),
    ]
    rows = []
    for name in names:
        metric = METRICS.get(name)
        if metric is None:
            continue
        lacks = metric.lacks(basis)
        if not lacks and (len(u) < metric.least or len(r) < 2 * metric.least):
            lacks = f"it needs {metric.least} fields and {2 * metric.least} references, of which there are {len(u)} and {len(r)}"
        if lacks:
            _missing(name, asked, lacks)
            continue
        ours, theirs = metric.view(u, basis), metric.view(r, basis)
        found = metric.measure(ours, theirs, basis)
        own, *scattered = [metric.measure(theirs[a], theirs[b], basis) for a, b in halves]
        for which, value in found.items():
            if math.isnan(value) and math.isnan(own[which]):
                continue  # a band that holds nothing
            floor = torch.tensor([float(part[which]) for part in scattered], dtype=torch.float64)
            label = f"{metric.label}, {which}" if which else metric.label
            row = _row(label, float(value), float(own[which]), units.get(metric.unit, metric.unit), metric.formula, _HALVES)
            rows.append({**row, "floor": median(floor), "floor_low": float(floor.min()), "floor_high": float(floor.max())})
    return rows


def _missing(name: str, asked: tuple[str, ...], reason: str) -> None:
    """Complain if a metric was asked for by its name."""
    if name in asked:
        raise ValueError(f"these fields have no metric '{name}': {reason}.")


class _Origin:
    """What needs the laws or the equation behind the fields."""

    def __init__(self, fields: Fields, reference: Fields, u: Tensor, r: Tensor) -> None:
        self.u, self.r, self.grid = u, r, reference.grid
        self.velocity = reference.role("velocity") or fields.role("velocity") or None
        self.unit = fields.units[0] if len(set(fields.units)) == 1 else "mixed"
        problem, own = _problem(reference), _problem(fields)
        self.problem = own if problem is None else problem
        known = own is not None and own == self.problem
        self.ours = _parameters(fields if known else reference, len(u), None if known else sample_numbers(fields))
        self.theirs = _parameters(fields if problem is None else reference, len(r))

    def rows(
        self,
        names: tuple[str, ...],
        asked: tuple[str, ...],
        given: list[tuple[Constraint, Constraint]],
        stated: list[tuple[Constraint, Constraint]],
    ) -> list[dict[str, Any]]:
        """Rows of the metrics asked for, of the given laws, or of the problem's, or of the stated ones."""
        laws = given
        if not given and self.problem is not None and any(name in names for name in ("ce", "feasible", "equation", "held-out")):
            both = (self.problem.constraint(parameters) for parameters in (self.ours, self.theirs))
            laws = list(zip(*(law.leaves() for law in both), strict=True))
        laws = laws or stated
        makers = {"ce": self._errors, "feasible": self._feasible, "equation": self._equation, "held-out": self._held_out}
        rows = []
        for name in names:
            if name in makers:
                found = makers[name](laws)
                if not found:
                    _missing(name, asked, "no equation of theirs is known" if name == "equation" else "no law of theirs is known")
                rows += found
        return rows

    def _errors(self, laws: list[tuple[Constraint, Constraint]]) -> list[dict[str, Any]]:
        """Constraint errors with the published residuals, and with the laws that hold."""
        rows = []
        units = {"IC": self.unit, "BC": self.unit, "CL": "unit of the field times volume"}
        if self.problem is not None and self.problem.name in PUBLISHED:
            for kind, residual in PUBLISHED[self.problem.name](self.problem).items():
                value, own = (constraint_error(residual(u, p)) for u, p in ((self.u, self.ours), (self.r, self.theirs)))
                rows.append(_row(f"CE({kind}), as published", float(value), float(own), units[kind], "constraint_error", _LAW))
        if laws:
            ours, theirs = (scheme_errors(Intersection(*(pair[i] for pair in laws)), u) for i, u in enumerate((self.u, self.r)))
            for kind, value in ours.items():
                rows.append(_row(f"CE({kind}), laws as stated", float(value), float(theirs[kind]), "mixed", "scheme_errors", _LAW))
        return rows

    def _feasible(self, laws: list[tuple[Constraint, Constraint]]) -> list[dict[str, Any]]:
        rows = []
        for tolerance in TOLERANCES if laws else ():
            value, own = (
                feasible_fraction(Intersection(*(pair[i] for pair in laws)), u, tolerance) for i, u in enumerate((self.u, self.r))
            )
            rows.append(_row(f"feasible at {tolerance:g}", float(value), float(own), "1", "feasible_fraction", _LAW))
        return rows

    def _equation(self, laws: list[tuple[Constraint, Constraint]]) -> list[dict[str, Any]]:
        """Residuals of the scheme's own steps, and of the equation."""
        rows = []
        for law, own in laws:
            if isinstance(law, EvolutionEquation) and isinstance(own, EvolutionEquation):
                pair = scheme_residual(law, self.u), scheme_residual(own, self.r)
                rows.append(self._residual(f"residual: {law.name}", *pair, "scheme_residual"))
        problem = self.problem
        if problem is not None and problem.name in EQUATIONS and self.grid.axes[0].points > 4:
            ours, theirs = (
                equation_residual(u, self.grid, EQUATIONS[problem.name](problem, parameters, self.grid))
                for u, parameters in ((self.u, self.ours), (self.r, self.theirs))
            )
            rows.append(self._residual(f"residual: {problem.equation}", ours, theirs, "equation_residual"))
        return rows

    def _residual(self, name: str, ours: EquationResidual, theirs: EquationResidual, formula: str) -> dict[str, Any]:
        row = _row(name, float(ours.absolute.mean()), float(theirs.absolute.mean()), "unit of the field over time", formula, _LAW)
        return {**row, "relative": float(ours.relative.mean()), "reference_relative": float(theirs.relative.mean())}

    def _held_out(self, laws: list[tuple[Constraint, Constraint]]) -> list[dict[str, Any]]:
        rows = []
        for law, own in laws:
            pairs = zip(*(held_out(leaf, self.grid, velocity=self.velocity) for leaf in (law, own)), strict=True)
            for ours, theirs in pairs:
                if ours.operator is None or theirs.operator is None:
                    rows.append(_row(f"held out: {ours.law}", None, None, law.unit, "held_out", ours.reason))
                else:
                    row = _law(ours.operator, theirs.operator, self.u, self.r)
                    rows.append({**row, "metric": f"held out: {ours.name}", "formula": "held_out", "note": ours.reason})
        return rows


def _problem(fields: Fields) -> Problem | None:
    """The embedded problem that made some fields, None if it is not known or they are not as it makes them."""
    try:
        problem = problem_of(fields)
    except ValueError:
        return None
    return problem if problem is not None and problem.grid.shape == fields.grid.shape else None


def _parameters(fields: Fields, count: int, numbers: Tensor | None = None) -> dict[str, Tensor]:
    """The parameters of so many samples, or of those of some numbers, cyclically."""
    rows = torch.arange(count) if numbers is None else numbers
    return {name: values[rows % len(values)] for name, values in fields.parameters.items()}


def sample_numbers(fields: Fields) -> Tensor | None:
    """The number of each sample in the run that drew it, where some of them failed and are not among the fields."""
    numbers = fields.parameters.get("sample")
    return None if numbers is None else numbers.to(torch.int64)


def _laws(texts: tuple[str, ...], fields: Fields, reference: Fields, *, borrowed: bool) -> list[tuple[Constraint, Constraint]]:
    """Each law of the fields, and of the reference.

    What laws leave open and fields do not say, such as initial data or the parameters of a problem, is that of the reference, field i that
    of reference i, cyclically: for laws that are asked for. Those that a file states are about its fields alone.
    """
    roles = {**reference.roles, **fields.roles}
    stated = (*fields.laws, *reference.laws) if borrowed else ()
    context = Context(reference.grid, reference.channels, roles, stated, reference=reference.values if borrowed else None, conserving=True)
    known, own = _problem(fields) is not None, _problem(reference) is not None
    ours = replace(context, count=len(fields), origin=fields if known else reference, mesh=fields.mesh)
    ours = replace(ours, numbers=None if known else sample_numbers(fields))
    theirs = replace(context, count=len(reference), origin=reference if own or not known else fields, mesh=reference.mesh)
    pairs = (zip(build(text, ours).leaves(), build(text, theirs).leaves(), strict=True) for text in texts)
    return [pair for both in pairs for pair in both]


def _law(law: Constraint, own: Constraint, u: Tensor, r: Tensor) -> dict[str, Any]:
    ours, theirs = violation(law, u), violation(own, r)
    row = _row(f"violation: {law.name}", float(ours.absolute.max()), float(theirs.absolute.max()), law.unit, "violation", _LAW)
    return {**row, "relative": float(ours.relative.max()), "reference_relative": float(theirs.relative.max())}


def _row(metric: str, value: float | None, reference: float | None, unit: str, formula: str, note: str) -> dict[str, Any]:
    row = {"metric": metric, "value": value, "reference": reference, "floor": None, "floor_low": None, "floor_high": None}
    return {**row, "unit": unit, "formula": formula, "note": note}
