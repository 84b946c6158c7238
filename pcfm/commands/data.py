"""Commands about fields of a file: inspect, project."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from pcfm.commands.common import (
    CHUNK,
    DONE,
    UNMET,
    Common,
    Laws,
    clash_line,
    law_columns,
    law_lines,
    open_fields,
    record_file,
    summary,
    with_reference,
)

if TYPE_CHECKING:
    import torch

    from constraints import Axis, Constraint
    from pde_datasets import Fields
    from pde_datasets.mesh import Mesh

_EXACT = 1e-6
"""Misfit of an equation up to which its coefficients are known to all digits that are shown."""


@dataclass(kw_only=True)
class Inspect(Common):
    """What is in a file, ours or foreign, and how well its fields obey each law that could hold.

    Without --law, laws that the data state come first, then those that follow from their equation, which is stated or found in the values;
    then what is seen at walls, and last what fields of their kind may obey: these are guesses. Of several laws that are asked for it also
    says whether they can hold together near these fields, and which of them repeat others; the exit status is 1 if one of those does not
    hold, or if they contradict each other.

    Attributes:
        file: File to look at.
        format: Its format; detected from the content by default.
        words: What the axes of plain arrays are: layout="n t x y", periodic="x y", length="x=6.28", channels="u v", ...
        law: Laws to check instead of all that could hold.
        reference: Fields that say what a law leaves open, such as initial data or the parameters of a problem; field i takes those of
            reference i.
    """

    file: Annotated[Path, tyro.conf.Positional]
    format: str | None = None
    words: tuple[str, ...] = ()
    law: Laws = ()
    reference: Path | None = None

    def run(self) -> int:
        from pcfm.audit import audit, context_of, together
        from pcfm.findings import equation_of, integrals, precision
        from pde_datasets.lazy import Lazy

        fields = open_fields(self.file, self.format, self.words)
        if self.reference is not None and not self.law:
            raise ValueError("--reference says what laws leave open, and none is asked for. Give --law as well.")
        context, remark = with_reference(context_of(fields), self.reference, fields)
        rows, unknown = audit(fields, self.law, context)
        equation, accuracy = None if self.law else equation_of(fields), precision(fields)
        companion = fields.attributes.get("companion")
        if companion and not self.law and fields.attributes.get("format") != "pcfm":
            rows += _other_reading(self.file, str(companion))
        joint = together(fields, self.law, context) if len(rows) > 1 and self.law else None
        document = {
            "file": str(self.file),
            "format": fields.attributes.get("format", "unknown"),
            "channels": list(fields.channels),
            "units": list(fields.units),
            "shape": list(fields.u.shape),
            "dtype": str(fields.u.dtype).removeprefix("torch."),
            "axes": [
                {
                    "name": a.name,
                    "size": a.points,
                    "kind": _kind(a),
                    "points": fields.attributes.get(f"points_{a.name}"),
                    "unit": a.unit,
                    "periodic": a.periodic,
                    "uniform": a.uniform,
                    "length": a.extent,
                    "origin": a.origin,
                }
                for a in fields.grid.axes
            ],
            "mesh": None if fields.mesh is None else _mesh(fields.mesh),
            "lazy": isinstance(fields.u, Lazy),
            "parameters": {name: _range(values) for name, values in fields.parameters.items()},
            "roles": {role: list(names) for role, names in fields.roles.items()},
            "stated_laws": list(fields.laws),
            "attributes": fields.attributes,
            "equation": None
            if equation is None
            else {
                "text": str(equation.equation),
                "origin": "stated" if equation.misfit is None else "found",
                "misfit": equation.misfit,
                "margin": equation.margin,
            },
            "integrals": [] if self.law else integrals(fields),
            "tolerance": {"value": accuracy.tolerance, "reason": accuracy.reason},
            "lawless": fields.attributes.get("lawless"),
            "laws": rows,
            "note": remark,
            "not_checked": unknown,
            **({} if joint is None else {"together": joint}),
        }
        self._tell(fields, document)
        self.emit(document)
        unmet = self.law and not (all(row["holds"] for row in rows) and (joint is None or joint["compatible"]))
        return UNMET if unmet else DONE

    def _tell(self, fields: Fields, document: dict[str, Any]) -> None:
        self.say(f"{self.file}: {document['format']}, {len(fields)} sample{'s' * (len(fields) != 1)}, {document['dtype']}")
        self.say(f"  channels    {', '.join(f'{c} [{u}]' for c, u in zip(fields.channels, fields.units, strict=True))}")
        for axis in document["axes"] if fields.mesh is None else []:
            unit = "" if axis["unit"] == "1" else f" {axis['unit']}"
            spacing = "" if axis["uniform"] else ", unequal spacings"
            start = f", from {axis['origin']:g}" if axis["origin"] else ""
            more = f" ({axis['points']})" if axis["points"] else ""
            self.say(f"  axis        {axis['name']}: {axis['size']} {axis['kind']}{more}{start}, length {axis['length']:g}{unit}{spacing}")
        if document["mesh"] is not None:
            mesh = document["mesh"]
            cells = "".join(f", {count} {kind} cells" for kind, count in mesh["cells"].items())
            times = f", {fields.grid.axes[0].points} times" if fields.grid.has_time else ""
            count, points = fields.grid.axes[-1].points, mesh["points"]
            places = "" if points == count else f" of {points} points" if points else ", no coordinates"
            self.say(f"  mesh        values at {count} {mesh['location']}s{places}{cells}{times}")
            for name, count in mesh["boundary"].items():
                self.say(f"  boundary    {name}: {count} {mesh['location']}s")
        for name, (low, high) in document["parameters"].items():
            self.say(f"  parameter   {name} {low:g}" + ("" if low == high else f" .. {high:g}"))
        for key in ("equation", "scheme", "source", "seed", "time", "boundaries", "notes"):
            if fields.attributes.get(key) not in (None, ""):
                self.say(f"  {key:<11} {fields.attributes[key]}")
        if document["equation"] is not None and document["equation"]["origin"] == "found":
            found = document["equation"]
            left = f"it leaves {found['misfit']:.0e} of their rate of change{_margins(found)}"
            self.say(f"  equation    {found['text']}, found in the values: {left}")
        for row in document["integrals"]:
            ends = [_span(row["first"])] + ([_span(row["last"])] if row["last"] != row["first"] and fields.grid.has_time else [])
            self.say(f"  integral    {row['of']}: {' to '.join(ends)}")
        if document["note"]:
            self.say(f"  note        {document['note']}")
        rows = document["laws"]
        origins = list(dict.fromkeys(row["origin"] for row in rows))
        limit = document["tolerance"]
        none = f"none holds: {document['lawless']}" if document["lawless"] else "none that could be checked"
        own = [row for row in rows if row["tolerance"] == limit["value"]]
        said = f"a law holds up to {limit['value']:.2g} of its scale: {limit['reason']}" if own or rows else none
        self.say(f"  laws        {said}")
        for origin in origins:
            self.say(f"    {origin}")
            for row in rows:
                if row["origin"] == origin:
                    verdict = "holds" if row["holds"] else "does not hold"
                    self.say(f"      {_title(row):<38} {verdict:<14} violation {row['violation']:.2e}, {_shares(row)}")
        for text in document["not_checked"]:
            self.say(f"    not checked: {text}")
        if "together" in document:
            self._tell_together(document["together"])

    def _tell_together(self, joint: dict[str, Any]) -> None:
        counted = "" if joint["rank"] is None else f", {joint['rank']} of {sum(joint['rows'])} rows independent"
        verdict = "can hold together" if joint["compatible"] else f"contradict each other: {', '.join(joint['clashing'])}"
        self.say(f"  together    {verdict}{counted}")
        for row in joint["redundant"]:
            self.say(f"    {row['law']} is implied by {', '.join(row['by'])}")


def _other_reading(file: Path, format: str) -> list[dict[str, Any]]:
    """The laws of another reading of a file, which says more of them."""
    from pcfm.audit import audit

    rows, _ = audit(open_fields(file, format, ()))
    return [{**row, "origin": f"{row['origin']}, read as {format} (--format {format})"} for row in rows]


def _shares(row: dict[str, Any]) -> str:
    """How large a violation is beside what it could be."""
    told = f"{row['relative']:.1e} of its scale"
    if row["holds"] and row["relative"] > row["tolerance"]:
        told += ", no more than rounded values leave"
    if row.get("gradient"):
        told += f"; rms {row['rms']:.2e}, {100 * row['rms'] / row['gradient']:.2g} % of the velocity gradient"
    kept, total = row["rows"]
    return told if kept == total else f"{told}, in {kept} of {total} rows that only valid values enter"


def _margins(found: dict[str, Any]) -> str:
    """How far off coefficients may be, where few of their digits are known."""
    known = ", ".join(f"{margin:.0e} ({term})" for term, margin in found["margin"].items())
    return f"; coefficients to within {known}" if found["misfit"] > _EXACT else ""


def _span(ends: list[float]) -> str:
    low, high = ends
    return f"{low:.15g}" if low == high else f"{low:.6g} .. {high:.6g}"


def _title(row: dict[str, Any]) -> str:
    """What a law is called in its line: as it was asked for, else its own name unless that is long."""
    shorter = len(row["name"]) <= max(38, len(row["law"]))
    return str(row["name"] if row["origin"] != "asked for" and shorter else row["law"])


def _kind(axis: Axis) -> str:
    """What the points of an axis are."""
    if axis.periodic:
        return "points of a period, half open"
    if axis.points == 1:
        return "point"
    return "cell centres" if axis.cells else "nodes, both ends stored"


def _mesh(mesh: Mesh) -> dict[str, Any]:
    return {
        "location": mesh.location,
        "points": int(mesh.points.shape[-2]),
        "each_sample": mesh.points.ndim == 3,
        "cells": {kind: len(corners) for kind, corners in mesh.cells.items()},
        "boundary": {name: len(where) for name, where in mesh.boundary.items()},
        "equations": list(mesh.equations),
    }


def _range(values: torch.Tensor) -> tuple[float, float]:
    return float(values.min()), float(values.max())


@dataclass(kw_only=True)
class Project(Common):
    """The nearest lawful fields to those of a file, with a certificate for each.

    Attributes:
        file: Fields to project.
        law: Laws they are to obey, jointly: NAME or NAME:key=value,key=value.
        out: File to write; its ending says how: .h5 or .hdf5 our layout, .nc netCDF, .vti ParaView (a file a sample and time).
        reference: Fields that say what a law leaves open, such as energies; field i takes those of reference i.
        format: Format of the file; detected by default.
        words: What the axes of plain arrays are: layout="n t x y", periodic="x y", length="x=6.28", channels="u v", ...
        tolerance: Largest residual as a fraction of a law's natural scale; 1e-12 in float64, 1e-6 in float32 by default.
        resume: Go on with a killed run.
    """

    file: Annotated[Path, tyro.conf.Positional]
    law: Laws
    out: Path
    reference: Path | None = None
    format: str | None = None
    words: tuple[str, ...] = ()
    tolerance: float | None = None
    resume: bool = False

    def run(self) -> int:
        from pcfm.audit import context_of
        from pcfm.lawbook import EachSample
        from pcfm.laws import joined, labelled, standing
        from pcfm.metrics import measure
        from pcfm.report import Record
        from pde_datasets.store import Writer
        from pde_datasets.writers import Output, writer_of

        writer_of(self.out)
        if self.tolerance is not None and not 0 < self.tolerance < 1:
            raise ValueError(f"--tolerance expects a fraction between 0 and 1; got {self.tolerance}.")
        fields = open_fields(self.file, self.format, self.words)
        context, remark = with_reference(context_of(fields), self.reference, fields)
        laws = labelled(self.law, context)
        law = joined([law for _, law in laws])
        device, dtype = self.torch_device(), self.torch_dtype()
        settings = {
            "file": str(self.file),
            "laws": list(self.law),
            "reference": str(self.reference),
            "dtype": self.dtype,
            "tolerance": self.tolerance,
        }
        stale = {"notes", "precision", "precision_reason", "written"}  # of what was projected
        lost = stale if "problem" in self.law and self.reference is None else {*stale, "problem_settings"}
        known = {key: value for key, value in fields.attributes.items() if key not in lost}
        attributes = {**known, "projected_on": list(self.law), "projected_from": self.file.name}
        kept = replace(fields, attributes=attributes, laws=standing(self.law, context))
        output = Output(self.out, kept, overwrite=self.overwrite)
        record = record_file(self.out, overwrite=self.overwrite, resume=self.resume)
        writer = Writer(
            output.file, len(fields), settings, columns=law_columns(law), mesh=fields.mesh, overwrite=self.overwrite, resume=self.resume
        )
        if remark:
            self.say(f"note: {remark}")
        if writer.written:
            self.say(f"resuming at field {writer.written} of {len(fields)}")
        progress = self.progress(len(fields), "fields", writer.written)
        chunk = 1 if any(isinstance(law, EachSample) for _, law in laws) else CHUNK
        with measure() as meter:
            while writer.written < len(fields):
                here = slice(writer.written, min(writer.written + chunk, len(fields)))
                u = fields.u[here].to(device, dtype)
                projected, certificate = _projected(law.to(device).take(here), u, self.tolerance)
                meter.projections += 1
                meter.multiplier_solves += int(certificate["iterations"][0])
                writer.append(replace(kept[here], u=projected.cpu()), certificate)
                progress.to(writer.written)
            writer.finish()
        found = summary(output.file, law.to("cpu"), self.tolerance, [name for name, _ in laws])
        moved = _moved(output.file, fields)
        output.deliver()
        results = {**found, "moved": moved}
        Record.of(meter.cost, device=device, seeds={}, results={**results, "file": self.out.name}).write(record)
        self.say(f"{len(fields)} fields projected into {self.out}, {found['converged']} converged")
        self.say("  moved (RMS): " + (", ".join(f"{name} {100 * share:.2g} %" for name, share in moved.items() if share) or "not at all"))
        for line in (*law_lines(found["laws"]), *clash_line(found["clashing"])):
            self.say(line)
        self.emit({**results, "seconds": meter.cost.seconds, "file": str(self.out)})
        return DONE if found["converged"] == len(fields) else UNMET


def _projected(law: Constraint, u: torch.Tensor, tolerance: float | None) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Fields projected in their own units, channels of one scale each, with their certificate."""
    import torch

    from constraints import project
    from pcfm.generation import certify

    result = project(law, u, tolerance=tolerance)
    return result.u, {
        "violation": certify(law, result.u)[0].cpu(),
        "violation_before": certify(law, u)[0].cpu(),
        "stationarity": result.stationarity.cpu(),
        "distance": (result.u - u).square().flatten(1).mean(1).sqrt().cpu(),
        "multiplier_norm": result.multiplier.norm(dim=1).cpu(),
        "iterations": torch.full((len(u),), result.iterations),
        "converged": result.converged.cpu(),
    }


def _moved(file: Path, fields: Fields) -> dict[str, float]:
    """Root mean square of the move to the projected fields of a file over that of the fields, channel by channel: units do not add."""
    import torch

    from pde_datasets.store import read

    squares = torch.zeros(2, len(fields.channels), dtype=torch.float64)
    projected = read(file).u
    dims = [d for d in range(projected.ndim) if d != 1]
    for first in range(0, len(fields), CHUNK):
        u, v = (part[first : first + CHUNK].double() for part in (fields.u, projected))
        squares += torch.stack([(v - u).square().sum(dims), u.square().sum(dims)])
    shares = (squares[0] / squares[1].where(squares[1] > 0, 1.0)).sqrt()
    return dict(zip(fields.channels, shares.tolist(), strict=True))
