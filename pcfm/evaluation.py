"""Fields against reference fields: every metric, with the value that the reference has against itself."""

from __future__ import annotations

from typing import Any

import torch

from pcfm.laws import Context, build, self_contained
from pcfm.metrics import energy_distance, mean_error, relative_error, spectrum_error, spread_error, violation
from pcfm.report import Column
from pde_datasets import Fields

COLUMNS = (
    Column("metric", "metric"),
    Column("value", "value"),
    Column("reference", "reference's own"),
    Column("unit", "unit"),
    Column("note", "meaning of the reference's own value"),
)

_HALVES = "one half of the reference against the other"


def compare(fields: Fields, reference: Fields, laws: tuple[str, ...] = (), *, paired: bool = False) -> list[dict[str, Any]]:
    """Metrics of fields against a reference, one row each: `metric`, `value`, `reference`, `unit`, `note`.

    Distribution metrics compare ensembles; the reference's own value is that of its two halves, the floor below which nothing can be
    told apart. Laws are measured on both.

    Arguments:
        fields: what to judge.
        reference: what to judge by, on the same grid.
        laws: laws to measure; those that either states by default.
        paired: field i predicts reference i.

    Raises:
        ValueError: the grids or channels differ, or the counts do where fields are paired.
    """
    if fields.grid.shape != reference.grid.shape or len(fields.channels) != len(reference.channels):
        raise ValueError(
            f"evaluate expects fields like the reference, {len(reference.channels)} channels on {reference.grid.shape}; "
            f"got {len(fields.channels)} on {fields.grid.shape}."
        )
    u, r, grid = fields.values.to(torch.float64), reference.values.to(torch.float64), reference.grid
    rows: list[dict[str, Any]] = []
    if paired:
        if len(u) != len(r):
            raise ValueError(f"--paired expects as many fields as references; got {len(u)} and {len(r)}.")
        errors = relative_error(u, r, grid)
        rows.append(_row("relative error, mean", float(errors.mean()), 0.0, "1", "a reference predicts itself"))
        rows.append(_row("relative error, 95th percentile", float(errors.quantile(0.95)), 0.0, "1", "a reference predicts itself"))
    if len(u) > 1 and len(r) > 3:
        rows += _ensemble(fields, u, r)
    context = Context(grid, reference.channels, {**reference.roles, **fields.roles}, (*fields.laws, *reference.laws) if laws else ())
    stated = tuple(dict.fromkeys(law for law in (*fields.laws, *reference.laws) if self_contained(law)))
    for text in laws or stated:
        rows.append(_law(text, context, u, r))
    return rows


def _ensemble(fields: Fields, u: torch.Tensor, r: torch.Tensor) -> list[dict[str, Any]]:
    grid = fields.grid
    halves = r[::2], r[1::2]
    unit = fields.units[0] if len(set(fields.units)) == 1 else "mixed"
    square = "1" if unit == "1" else f"({unit})2"
    metrics = [
        ("mean error (MMSE)", mean_error, square),
        ("spread error (SMSE)", spread_error, square),
    ]
    rows = [_row(name, float(f(u, r, grid)), float(f(*halves, grid)), u_, _HALVES) for name, f, u_ in metrics]
    rows.append(_row("energy distance", float(energy_distance(u, r)), float(energy_distance(*halves)), "1", _HALVES))
    if all(axis.periodic and axis.uniform for axis in grid.space_axes):
        rows.append(_row("spectrum error", float(spectrum_error(u, r, grid)), float(spectrum_error(*halves, grid)), "decades", _HALVES))
    return rows


def _law(text: str, context: Context, u: torch.Tensor, r: torch.Tensor) -> dict[str, Any]:
    from dataclasses import replace

    law, own = build(text, replace(context, count=len(u))), build(text, replace(context, count=len(r)))
    ours, theirs = violation(law, u), violation(own, r)
    return {
        **_row(
            f"violation: {law.name}",
            float(ours.absolute.max()),
            float(theirs.absolute.max()),
            law.unit,
            "the law measured on the reference",
        ),
        "relative": float(ours.relative.max()),
        "reference_relative": float(theirs.relative.max()),
    }


def _row(metric: str, value: float, reference: float, unit: str, note: str) -> dict[str, Any]:
    return {"metric": metric, "value": value, "reference": reference, "unit": unit, "note": note}
