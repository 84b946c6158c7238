"""Commands about fields: generate, inspect, project."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from pcfm.commands.common import DONE, UNMET, Common, Laws, law_lines, open_fields, open_reference

if TYPE_CHECKING:
    import torch

    from constraints import Constraint
    from pde_datasets import Fields, Problem

CHUNK = 256
"""Samples drawn or projected at a time."""


@dataclass(kw_only=True)
class Generate(Common):
    """Simulate fields with an embedded solver into one HDF5 file.

    Attributes:
        problem: What to solve; `pcfm list problems` names all.
        count: Number of samples.
        out: File to write.
        set: Settings of the problem, key=value; unknown keys are errors.
        config: TOML file with settings of the problem.
        resume: Go on with a killed run.
    """

    problem: Annotated[str, tyro.conf.Positional]
    count: int
    out: Path
    set: tuple[str, ...] = ()
    config: Path | None = None
    resume: bool = False

    def run(self) -> int:
        from pcfm import __version__
        from pcfm.metrics import measure
        from pcfm.report import Record
        from pde_datasets.store import Writer

        if self.count < 1:
            raise ValueError(f"--count expects at least 1; got {self.count}.")
        problem = build_problem(self.problem, self.set, self.config)
        settings = {"problem": problem.name, "seed": self.seed, "dtype": self.dtype, **asdict(problem)}  # type: ignore[call-overload]
        writer = Writer(self.out, self.count, settings, overwrite=self.overwrite, resume=self.resume)
        if writer.written:
            self.say(f"resuming at sample {writer.written} of {self.count}")
        progress = self.progress(self.count, "samples", writer.written)
        with measure() as meter:
            while writer.written < self.count:
                size = min(CHUNK, self.count - writer.written)
                drawn = problem.draw(size, seed=self.seed, start=writer.written)
                writer.append(
                    replace(drawn, u=drawn.u.to(self.torch_dtype()), attributes={**drawn.attributes, "code_version": __version__})
                )
                progress.to(writer.written)
            writer.finish()
        results = {"problem": problem.name, "count": self.count, "file": self.out.name, "settings": settings}
        Record.of(meter.cost, device="cpu", seeds={"fields": self.seed}, results=results).write(self.out.with_suffix(".json"))
        self.say(f"{self.count} fields of {problem.name} ({problem.grid}) in {self.out}, {meter.cost.seconds:.1f} s")
        self.emit({"file": str(self.out), "seconds": meter.cost.seconds, **results})
        return DONE


def build_problem(name: str, overrides: tuple[str, ...], config: Path | None) -> Problem:
    """A problem with its settings.

    Raises:
        ValueError: an unknown problem or key, or a value of the wrong type.
    """
    import tomllib

    from pcfm.experiment import literal
    from pcfm.naming import lookup, suggest
    from pde_datasets import PROBLEMS

    kind = lookup("problem", name, PROBLEMS)
    values: dict[str, Any] = {}
    if config is not None:
        try:
            values = tomllib.loads(config.read_text())
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise ValueError(f"configuration {config} cannot be read: {error}.") from error
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise ValueError(f"--set expects key=value; got '{override}'.")
        values[key] = literal(text)
    known = {f.name: f for f in fields(kind)}  # type: ignore[arg-type]
    for key, value in values.items():
        if key not in known:
            raise ValueError(f"problem '{name}' has no setting '{key}'. {suggest(key, known)}")
        default = known[key].default
        if isinstance(default, tuple):
            if not (isinstance(value, list) and len(value) == len(default) and all(isinstance(v, (int, float)) for v in value)):
                raise ValueError(f"setting '{key}' of problem '{name}' expects a range like {list(default)}; got {value!r}.")
            values[key] = tuple(float(v) for v in value)
        elif isinstance(value, bool) or not isinstance(value, (int, float)) or (isinstance(default, int) and not isinstance(value, int)):
            raise ValueError(f"setting '{key}' of problem '{name}' expects a number like {default}; got {value!r}.")
    return kind(**values)


@dataclass(kw_only=True)
class Inspect(Common):
    """What is in a file, ours or foreign, and how well its fields obey each law that could hold.

    Attributes:
        file: File to look at.
        format: Its format; detected from the content by default.
        law: Laws to check instead of all that could hold.
    """

    file: Annotated[Path, tyro.conf.Positional]
    format: str | None = None
    law: Laws = ()

    def run(self) -> int:
        from pcfm.audit import audit

        fields = open_fields(self.file, self.format)
        rows, unknown = audit(fields, self.law)
        document = {
            "file": str(self.file),
            "format": fields.attributes.get("format", "unknown"),
            "channels": list(fields.channels),
            "units": list(fields.units),
            "shape": list(fields.u.shape),
            "dtype": str(fields.u.dtype).removeprefix("torch."),
            "axes": [
                {"name": a.name, "size": a.points, "periodic": a.periodic, "uniform": a.uniform, "length": a.extent, "origin": a.origin}
                for a in fields.grid.axes
            ],
            "parameters": {name: _range(values) for name, values in fields.parameters.items()},
            "roles": {role: list(names) for role, names in fields.roles.items()},
            "stated_laws": list(fields.laws),
            "attributes": fields.attributes,
            "laws": rows,
            "not_checked": unknown,
        }
        self._tell(fields, document)
        self.emit(document)
        return DONE

    def _tell(self, fields: Fields, document: dict[str, Any]) -> None:
        self.say(f"{self.file}: {document['format']}, {len(fields)} samples, {document['dtype']}")
        self.say(f"  channels    {', '.join(f'{c} [{u}]' for c, u in zip(fields.channels, fields.units, strict=True))}")
        self.say(f"  grid        {fields.grid}")
        for name, (low, high) in document["parameters"].items():
            self.say(f"  parameter   {name} {low:g}" + ("" if low == high else f" .. {high:g}"))
        for key in ("equation", "scheme", "source", "seed", "notes"):
            if fields.attributes.get(key) is not None:
                self.say(f"  {key:<11} {fields.attributes[key]}")
        self.say("  laws" + ("" if document["laws"] else "        none that could be checked"))
        for row in document["laws"]:
            verdict = "holds" if row["holds"] else "does not hold"
            share = f"{row['violation'] / row['scale']:.1e} of its scale" if row["scale"] else "scale 0"
            self.say(f"    {row['name']:<38} {verdict:<14} violation {row['violation']:.2e}, {share}")
        for text in document["not_checked"]:
            self.say(f"    not checked: {text}")


def _range(values: torch.Tensor) -> tuple[float, float]:
    return float(values.min()), float(values.max())


@dataclass(kw_only=True)
class Project(Common):
    """The nearest lawful fields to those of a file, with a certificate for each.

    Attributes:
        file: Fields to project.
        law: Laws they are to obey, jointly: NAME or NAME:key=value,key=value.
        out: File to write.
        reference: Fields that say what a law leaves open, such as energies; field i takes those of reference i.
        format: Format of the file; detected by default.
        tolerance: Largest residual as a fraction of a law's natural scale; 1e-12 in float64, 1e-6 in float32 by default.
        resume: Go on with a killed run.
    """

    file: Annotated[Path, tyro.conf.Positional]
    law: Laws
    out: Path
    reference: Path | None = None
    format: str | None = None
    tolerance: float | None = None
    resume: bool = False

    def run(self) -> int:
        from pcfm.laws import Context, build_all
        from pcfm.metrics import measure
        from pcfm.report import Record
        from pde_datasets.store import Writer

        fields = open_fields(self.file, self.format)
        context = Context(fields.grid, fields.channels, fields.roles, fields.laws, count=len(fields))
        law = build_all(self.law, replace(context, reference=open_reference(self.reference, context)))
        device, dtype = self.torch_device(), self.torch_dtype()
        settings = {"file": str(self.file), "laws": list(self.law), "dtype": self.dtype, "tolerance": self.tolerance}
        writer = Writer(self.out, len(fields), settings, overwrite=self.overwrite, resume=self.resume)
        progress = self.progress(len(fields), "fields", writer.written)
        tally = _Tally()
        with measure() as meter:
            while writer.written < len(fields):
                here = slice(writer.written, min(writer.written + CHUNK, len(fields)))
                u = fields.u[here].to(device, dtype)
                projected, certificate = tally.project(law.to(device).take(here), u, self.tolerance)
                attributes = {**fields.attributes, "projected_on": list(self.law), "projected_from": str(self.file)}
                writer.append(
                    replace(fields[here], u=projected.cpu(), attributes=attributes, laws=_stated(fields.laws, self.law)), certificate
                )
                progress.to(writer.written)
            writer.finish()
        meter.projections, meter.multiplier_solves = tally.projections, tally.iterations
        results = {"count": len(fields), "converged": tally.converged, "moved": tally.moved(), "laws": tally.laws}
        Record.of(meter.cost, device=device, seeds={}, results={**results, "file": self.out.name}).write(self.out.with_suffix(".json"))
        self.say(f"{len(fields)} fields projected into {self.out}, {tally.converged} converged, moved by {100 * tally.moved():.3g} % (RMS)")
        for line in law_lines(tally.laws):
            self.say(line)
        self.emit({**results, "seconds": meter.cost.seconds, "file": str(self.out)})
        return DONE if tally.converged == len(fields) else UNMET


def _stated(old: tuple[str, ...], new: tuple[str, ...]) -> tuple[str, ...]:
    """Laws that projected fields obey: the new ones that a file can state on its own."""
    plain = [law for law in new if not law.startswith("initial-condition")]
    return tuple(dict.fromkeys(plain)) or old


@dataclass
class _Tally:
    """What a run of projections came to."""

    converged: int = 0
    projections: int = 0
    iterations: int = 0
    squares: tuple[float, float] = (0.0, 0.0)
    laws: list[dict[str, Any]] = field(default_factory=list)

    def project(self, law: Constraint, u: torch.Tensor, tolerance: float | None) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Project fields in their own units, channels of one scale each, and keep count."""
        import torch

        from constraints import project
        from pcfm.generation import certify

        result = project(law, u, tolerance=tolerance)
        before, (after, allowed, _) = certify(law, u)[0], certify(law, result.u)
        move = result.u - u
        self.converged += int(result.converged.sum())
        self.projections, self.iterations = self.projections + 1, self.iterations + result.iterations
        self.squares = (self.squares[0] + float(move.square().sum()), self.squares[1] + float(u.square().sum()))
        for i, leaf in enumerate(law.leaves()):
            row = {
                "name": leaf.name,
                "unit": leaf.unit,
                "violation_before": float(before[:, i].max()),
                "violation_after": float(after[:, i].max()),
                "tolerance": float(allowed[:, i].min()),
            }
            if len(self.laws) > i:
                old = self.laws[i]
                for key in ("violation_before", "violation_after"):
                    row[key] = max(row[key], old[key])
                row["tolerance"] = min(row["tolerance"], old["tolerance"])
                self.laws[i] = row
            else:
                self.laws.append(row)
        return result.u, {
            "violation": after.cpu(),
            "stationarity": result.stationarity.cpu(),
            "distance": move.square().flatten(1).mean(1).sqrt().cpu(),
            "multiplier_norm": result.multiplier.norm(dim=1).cpu(),
            "iterations": torch.full((len(u),), result.iterations),
            "converged": result.converged.cpu(),
        }

    def moved(self) -> float:
        """Root mean square of the move over that of the fields."""
        return float((self.squares[0] / self.squares[1]) ** 0.5) if self.squares[1] else 0.0
