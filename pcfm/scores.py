"""What a run of the benchmark is judged by, and rows and columns of its tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pcfm.evaluation import PUBLISHED as RESIDUALS
from pcfm.evaluation import TOLERANCES
from pcfm.generation import certify
from pcfm.metrics import constraint_error, feasible, held_out, seed_interval, violation
from pcfm.metrics.catalogue import METRICS, Basis
from pcfm.metrics.pointwise import relative_error
from pcfm.published import OURS, Published
from pcfm.report import Column
from pcfm.report.table import ASIDE
from pcfm.suite_laws import Laws
from pcfm.suites import Suite, joined, kind
from pde_datasets import Fields, Problem

TRUTH = "ground truth"
"""The row of further reference solutions."""

INTERVAL = "95 % half width"

COUNTS = ("network_calls", "backward_calls", "projections", "multiplier_solves", "lawful", "converged", "feasible")
"""What is mostly the same for every seed, and then shown once."""

Row = dict[str, Any]


class Judge:
    """Measures samples against the reference solutions of a suite.

    Arguments:
        suite: says which metrics and laws.
        problem: that of the reference set.
        reference: the reference solutions.
    """

    def __init__(self, suite: Suite, problem: Problem, reference: Fields) -> None:
        self.suite, self.problem, self.reference = suite, problem, reference
        u = reference.values.to(torch.float64)
        self.velocity = reference.role("velocity")
        self.basis = Basis(reference.grid, u, self.velocity)
        self.metrics = {name: METRICS[name] for name in suite.metrics if not METRICS[name].lacks(self.basis)}
        self.views = {name: metric.view(u, self.basis) for name, metric in self.metrics.items()}

    def __call__(self, u: Tensor, given: Fields) -> dict[str, float]:
        """All values of some samples, those with NaN or Inf aside.

        Arguments:
            u: physical fields, (N, C, *N); what failed is NaN.
            given: fields whose data the laws impose: the reference's, or their own for solutions.

        Raises:
            ValueError: fewer than two finite samples.
        """
        dtype, u = u.dtype, u.to("cpu", torch.float64)
        finite = torch.isfinite(u).flatten(1).all(1)
        if int(finite.sum()) < 2:
            raise ValueError(f"{len(u) - int(finite.sum())} of {len(u)} samples failed; at least two are needed.")
        return {**self._ensemble(u[finite]), **self._distances(u, finite), **self._laws(u, finite, given, dtype)}

    def _distances(self, u: Tensor, finite: Tensor) -> dict[str, float]:
        """How far sample i is from reference i, in the mean, where its data are those of the reference."""
        if not self.suite.reconstructs:
            return {}
        error = relative_error(u[finite], self.reference.values.to(u)[finite], self.reference.grid)
        return {"reconstruction": float(error.mean())}

    def _ensemble(self, u: Tensor) -> dict[str, float]:
        values: dict[str, float] = {}
        for name, metric in self.metrics.items():
            if len(u) >= metric.least:
                found = metric.measure(metric.view(u, self.basis), self.views[name], self.basis)
                values |= {f"{name}, {which}" if which else name: float(value) for which, value in found.items()}
        return values

    def _laws(self, u: Tensor, finite: Tensor, given: Fields, dtype: torch.dtype) -> dict[str, float]:
        """Violations and constraint errors; a sample that failed has the place of a lawful one, and does not count.

        What is observed with noise need not be met: of it there is the misfit, the mean square of the residuals in units of their noise,
        which is one for the truth.
        """
        whole = finite.reshape(-1, *(1,) * (u.ndim - 1))
        v = torch.where(whole, u, given.values.to(u))
        values: dict[str, float] = {}
        laws: Laws = {}
        for label, law in self.suite.laws(self.problem, given).items():
            if law.variance is None:
                laws[label] = law
            else:
                values[f"misfit: {law.name}"] = float((law.residual(v).square() / law.variance.to(v))[finite].mean())
        rows: dict[str, list[Tensor]] = {}
        worst = []
        for label, law in laws.items():
            rows.setdefault(kind(label), []).append(law.excess(law.residual(v))[finite])
            for leaf in law.leaves():
                worst.append(float(violation(leaf, v).relative[finite].max()))
                values[f"violation: {leaf.name}"] = worst[-1]
                for other in held_out(leaf, self.problem.grid, velocity=self.velocity or None):
                    if other.operator is not None:
                        values[f"held out: {other.name}"] = float(violation(other.operator, v).relative[finite].mean())
        values["violation"] = max(worst)
        values |= {f"CE({name}), scheme": float(constraint_error(torch.cat(parts, 1))) for name, parts in rows.items()}
        for name, residual in self._published().items():
            values[f"CE({name})"] = float(constraint_error(residual(v, given.parameters)[finite]))
        values |= {
            f"feasible at {tolerance:g}": float((feasible(joined(laws), v, tolerance) & finite).to(torch.float64).mean())
            for tolerance in TOLERANCES
        }
        values["lawful"] = float((certify(joined(laws), v.to(dtype))[2] & finite).to(torch.float64).mean())
        return values

    def _published(self) -> Mapping[str, Any]:
        """The literature's residuals of the kinds that the suite imposes."""
        known = RESIDUALS.get(self.problem.name)
        residuals = known(self.problem) if known is not None else {}
        return {name: residuals[name] for name in self.suite.kinds if name in residuals}


def over_seeds(method: str, results: Sequence[Mapping[str, Any]]) -> Row:
    """The row of a method from its runs: means with the half width of their 95 % interval, the largest violation, all that failed.

    Arguments:
        method: what to call it.
        results: results of its records.
    """
    row: Row = {"method": method, "seeds": len(results)}
    if method == TRUTH:
        row[ASIDE] = True
    row["failed"] = sum(len(result["failed"]) for result in results)
    reasons = [result["failure"] for result in results if result["failure"]]
    row["failure"] = reasons[0] if reasons else None
    values: dict[str, list[float]] = {}
    for result in results:
        for name, value in {**result["metrics"], **result["cost"]}.items():
            if value is not None:
                values.setdefault(name, []).append(float(value))
    for name, found in values.items():
        if name.startswith(("violation", "added_memory")):
            row[name] = max(found)
        elif name.startswith(COUNTS) and min(found) == max(found):
            row[name] = int(found[0]) if found[0].is_integer() else found[0]
        elif len(found) > 1:
            middle = seed_interval(found)
            row[name] = (middle.value, middle.high - middle.value)
        else:
            row[name] = found[0]
    return row


def quality_columns(suite: Suite) -> list[Column]:
    """How near to the reference samples are; rows `in_hundredths`."""
    named = {
        "mmse-nodes": ("MMSE", "0.01"),
        "smse-nodes": ("SMSE", "0.01"),
        "amplitude": ("amplitude ratio", "1"),
        "energy-distance": ("energy distance", "1"),
        "sliced-wasserstein": ("sliced Wasserstein", "1"),
        "spectrum": ("spectrum error", "decades"),
    }
    shown = [(name, *named[name]) for name in suite.metrics if name in named]
    nearest = [Column("reconstruction", "error of reconstruction", "1", best="low", spread=INTERVAL)] if suite.reconstructs else []
    return [
        Column("method", "method"),
        *nearest,
        *(Column(name, title, unit, best=None if name == "amplitude" else "low", spread=INTERVAL) for name, title, unit in shown),
    ]


def law_columns(rows: Sequence[Row]) -> list[Column]:
    """How lawful samples are; rows `in_hundredths`."""
    keys = [key for key in _keys(rows) if key.startswith("CE(")]
    data = ("CE(IC), scheme", "CE(BC), scheme")  # given values are the same for everybody
    errors = sorted((key for key in keys if key not in data), key=lambda key: key.endswith("scheme"))
    return [
        Column("method", "method"),
        *(Column(key, key, "0.01", spread=INTERVAL) for key in errors),
        Column("violation", "largest violation"),
        *(Column(key, key, spread=INTERVAL) for key in _keys(rows) if key.startswith("misfit")),
        *(Column(key, key, spread=INTERVAL) for key in _keys(rows) if key.startswith("feasible")),
        Column("lawful", "lawful", spread=INTERVAL),
        Column("converged", "converged", spread=INTERVAL),
    ]


def cost_columns() -> list[Column]:
    """What samples cost."""
    return [
        Column("method", "method"),
        Column("milliseconds", "time a sample", "ms", best="low", spread=INTERVAL),
        Column("network_calls", "network calls", spread=INTERVAL),
        Column("backward_calls", "reverse passes", spread=INTERVAL),
        Column("projections", "projections", spread=INTERVAL),
        Column("multiplier_solves", "multiplier solves", spread=INTERVAL),
        Column("added_memory", "memory", "MB", spread=INTERVAL),
        Column("failed", "failed samples"),
    ]


def held_out_columns(rows: Sequence[Row]) -> list[Column]:
    """Laws in discretisations that nothing was projected on; only the method where there are none."""
    keys = [key for key in _keys(rows) if key.startswith("held out: ")]
    return [Column("method", "method"), *(Column(key, key.removeprefix("held out: "), spread=INTERVAL) for key in keys)]


def every_column(rows: Sequence[Row]) -> list[Column]:
    """All there is, for machines, in plain units: keys for titles."""
    units = {column.key: column.unit for column in cost_columns()}
    return [Column(key, key, units.get(key, "1"), spread=INTERVAL) for key in _keys(rows) if key != ASIDE]


def in_hundredths(rows: Sequence[Row]) -> list[Row]:
    """Rows with the literature's errors in their unit, 0.01."""

    def scaled(key: str, value: Any) -> Any:
        if key not in ("mmse-nodes", "smse-nodes") and not key.startswith("CE("):
            return value
        return tuple(100 * part for part in value) if isinstance(value, tuple) else 100 * value if _number(value) else value

    return [{key: scaled(key, value) for key, value in row.items()} for row in rows]


def beside_published(suite: Suite, published: Published, rows: Sequence[Row]) -> tuple[list[Row], list[Column]]:
    """A published table with our values beside it, both in units of 0.01, and the ground truth's own."""
    metrics = [name for name in dict.fromkeys(key for row in published.rows.values() for key in row) if name != "FPD"]
    keys = {"MMSE": "mmse-nodes", "SMSE": "smse-nodes"}
    ours = in_hundredths(rows)
    table: list[Row] = []
    for name, values in published.rows.items():
        mine = _counterpart(suite, OURS.get(name), ours)
        table.append(
            {
                "published as": name,
                "method": None if mine is None else mine["method"],
                **{metric: values.get(metric) for metric in metrics},
                **({} if mine is None else {f"{metric}, ours": mine.get(keys.get(metric, metric)) for metric in metrics}),
            }
        )
    truth = next((row for row in ours if row["method"] == TRUTH), None)
    if truth is not None:
        table.append({"method": TRUTH, ASIDE: True, **{f"{metric}, ours": truth.get(keys.get(metric, metric)) for metric in metrics}})
    columns = [Column("published as", "published as"), Column("method", "here")]
    for metric in metrics:
        columns += [Column(metric, metric, "0.01"), Column(f"{metric}, ours", f"{metric}, ours", "0.01", spread=INTERVAL)]
    return table, columns


def _counterpart(suite: Suite, name: str | None, rows: Sequence[Row]) -> Row | None:
    """The last row of a method, which is the one with published laws where there are two."""
    found = [row for row in rows if row["method"] != TRUTH and suite.entry(row["method"]).name == name] if name else []
    return found[-1] if found else None


def number(value: Any) -> float | None:
    """A number of a record, in which infinities and NaN are texts."""
    return None if value is None else float(value)


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _keys(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(key for row in rows for key in row))
