"""Commands about models: train, sample, evaluate."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from pcfm.commands.common import (
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

    from constraints import Constraint
    from pcfm.commands.common import Progress
    from pcfm.configuration import Experiment
    from pcfm.discretisation import DiscretisationError
    from pcfm.flow import Flow
    from pcfm.generation import Samples
    from pde_datasets import Fields


@dataclass(kw_only=True)
class Train(Common):
    """Fit a flow to the fields of a file.

    Attributes:
        file: Training fields, any known format.
        out: Run folder: config.toml, weights.safetensors, model.json, state.pt, log.jsonl, record.json.
        config: TOML file with tables network, source, path, coupling, objective, training and the key condition.
        set: Settings over those of the file, key=value, such as training.steps=2000 or network.width=32.
        format: Format of the file; detected by default.
        words: What the axes of plain arrays are: layout="n t x y", periodic="x y", length="x=6.28", channels="u v", ...
        licence: Licence of the data, kept in the model's card.
        init: A model whose weights to begin with, a run folder or the name of a shipped one; its network must be configured alike.
        resume: Go on from the last checkpoint of the run folder, or from the start if it was killed before the first.
    """

    file: Annotated[Path, tyro.conf.Positional]
    out: Path
    init: str | None = None
    config: Path | None = None
    set: tuple[str, ...] = ()
    format: str | None = None
    words: tuple[str, ...] = ()
    licence: str = "not stated"
    resume: bool = False

    def run(self) -> int:
        from pcfm.configuration import read_experiment
        from pcfm.experiment import fit
        from pcfm.metrics import measure
        from pcfm.report import Record
        from pcfm.report.record import command_line
        from pcfm.shelf import load

        seed = (f"training.seed={self.seed}",) if self.seed else ()
        experiment = read_experiment(self.config, (*self.set, *seed))
        fields = open_fields(self.file, self.format, self.words)
        start = None if self.init is None else load(self.init)
        device = self.torch_device()
        self._check(experiment)
        settings = experiment.training
        card = {
            "data": {
                "file": self.file.name,
                "count": len(fields),
                **{k: fields.attributes.get(k) for k in ("problem", "seed", "settings", "source")},
            },
            "licence": self.licence,
            "command": command_line(_argv()),
        }
        progress = self.progress(settings.steps, "steps", 0)
        begun = False

        def told(step: int, entry: dict[str, float]) -> None:
            nonlocal begun
            if not begun:
                self._begin(experiment)
                begun = True
            note = f"loss {entry['loss']:.4f}" if entry else ""
            progress.to(step, note + (f" validation {entry['validation']:.4f}" if "validation" in entry else ""))

        self.say(f"training on {len(fields)} fields ({fields.grid}), {settings.steps} steps of {settings.batch}")
        with measure() as meter:
            flow = fit(fields, experiment, self.out, resume=self.resume, start=start, device=device, progress=told, card=card)
        meter.network_calls = flow.card["network_calls"]
        history = flow.card["history"]
        results = {
            "steps": settings.steps,
            "parameters": sum(p.numel() for p in flow.network.parameters()),
            "loss": history[-1]["loss"],
            "validation": history[-1].get("validation"),
            "experiment": asdict(experiment),
            "jumps": None if flow.objective is None else flow.objective.learnt(),
        }
        record = Record.of(meter.cost, device=device, seeds={"training": settings.seed}, results=results)
        record.write(self.out / "record.json")
        validation = "" if results["validation"] is None else f", validation loss {results['validation']:.4f}"
        kind = "model" if flow.objective is None else "flow map"
        loss = f"{results['parameters']} parameters, loss {results['loss']:.4f}{validation}"
        self.say(f"{kind} in {self.out}: {loss}, {meter.cost.seconds:.0f} s")
        if flow.objective is not None:
            self.say(f"  learnt: {flow.objective.learnt()}; the usual number of steps is {flow.objective.fewest}")
        self.emit({"run": str(self.out), "seconds": meter.cost.seconds, **results})
        return DONE

    def _check(self, experiment: Experiment) -> None:
        """Refuse to write over a model that is there, or to go on with a run of other settings."""
        from pcfm.configuration import read_experiment

        if self.out.exists() and not self.out.is_dir():
            raise ValueError(f"--out expects a run folder; {self.out} is a file. Name another.")
        if self.resume and not (self.out / "config.toml").exists():
            raise ValueError(
                f"resuming expects a run in {self.out}, config.toml and, past the first checkpoint, state.pt; there is none. "
                "Start without --resume."
            )
        if self.resume:
            changed = _changed(asdict(read_experiment(self.out / "config.toml")), asdict(experiment))
            if changed:
                raise ValueError(
                    f"{self.out} was made with other settings ({', '.join(changed)}). "
                    "Repeat the command that made it, or start again with --overwrite."
                )
        if (self.out / "weights.safetensors").exists() and not (self.overwrite or self.resume):
            raise ValueError(f"{self.out} holds a trained model already. Choose another folder, or pass --overwrite or --resume.")
        if (self.out / "state.pt").exists() and not (self.overwrite or self.resume):
            raise ValueError(f"{self.out} holds an unfinished run. Pass --resume to go on with it, or --overwrite to start again.")

    def _begin(self, experiment: Experiment) -> None:
        """Make the run folder, without what another run left in it: after the first step, so that a wrong call costs no old model."""
        from pcfm.configuration import write_experiment

        self.out.mkdir(parents=True, exist_ok=True)
        if not self.resume:
            for name in ("weights.safetensors", "model.json", "record.json", "state.pt", "log.jsonl"):
                (self.out / name).unlink(missing_ok=True)
        write_experiment(experiment, self.out / "config.toml")


def _changed(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Keys of a configuration, table.key, that differ."""
    keys = []
    for name in new:
        if isinstance(old[name], dict) and isinstance(new[name], dict):
            keys += [f"{name}.{key}" for key in sorted({*old[name], *new[name]}) if old[name].get(key) != new[name].get(key)]
        elif old[name] != new[name]:
            keys.append(name)
    return keys


def _argv() -> list[str]:
    import sys

    return sys.argv


@dataclass(kw_only=True)
class Sample(Common):
    """Generate fields with a model, lawful ones if laws are given.

    Attributes:
        model: A run folder, or the name of a shipped model (`pcfm list models`).
        count: Number of samples.
        out: File to write; its ending says how: .h5 or .hdf5 our layout, .nc netCDF, .vti ParaView (a file a sample and time).
        law: Laws the samples obey, jointly: NAME or NAME:key=value,key=value.
        method: NAME or NAME:key=value,key=value (`pcfm list methods`); pcfm-consistent by default where laws are given.
        steps: Flow steps; 50 by default, of a flow map the fewest that it has learnt.
        solver: Rule of the methods that integrate the flow itself (`pcfm list solvers`); euler by default, the jumps of a flow map.
        spacing: Of the flow times of the steps: uniform, shifted, power, cosine or levels, as NAME or NAME:key=value,key=value.
        points: Numbers of points other than the model was trained on: one for all periodic space axes, or NAME=N for some.
        estimate: Samples to repeat with half the step, for the error of the steps; one in sixteen and at most 4 by default, 0 for none.
        reference: Fields that say what a law leaves open; sample i takes the values of reference i.
        condition: Initial data for a model that was trained on some; sample i takes those of field i.
        batch: Samples at a time.
        resume: Go on with a killed run.
    """

    model: Annotated[str, tyro.conf.Positional]
    count: int
    out: Path
    law: Laws = ()
    method: str | None = None
    steps: int | None = None
    solver: str | None = None
    spacing: str = "uniform"
    points: tuple[str, ...] = ()
    estimate: int | None = None
    reference: Path | None = None
    condition: Path | None = None
    batch: int = 32
    resume: bool = False

    def run(self) -> int:
        from pcfm.discretisation import line as error_line
        from pcfm.laws import Context, joined, labelled, standing
        from pcfm.methods import jumping, usual_steps
        from pcfm.metrics import measure
        from pcfm.report import Record
        from pcfm.shelf import condition_for, load
        from pde_datasets.fields import prototype
        from pde_datasets.store import Writer
        from pde_datasets.writers import Output, writer_of

        writer_of(self.out)
        if self.count < 1 or self.batch < 1:
            raise ValueError(f"--count and --batch expect at least 1; got {self.count} and {self.batch}.")
        self._check_steps()
        flow = load(self.model, self.torch_device())
        if self.points:
            flow = load(self.model, self.torch_device(), _points(self.points, flow))
        context = Context(flow.grid, flow.channels, flow.roles, flow.laws, count=self.count)
        context, remark = with_reference(context, self.reference)
        method = self.method or ("pcfm-consistent" if self.law else "unconstrained")
        self.steps = usual_steps(flow, method, self.solver) if self.steps is None else self.steps
        laws = labelled(self.law, context) if self.law else []
        law = joined([law for _, law in laws]) if laws else None
        if remark:
            self.say(f"note: {remark}")
        condition = condition_for(flow, self._given(flow), self.count)
        settings = {
            **{k: v for k, v in asdict(self).items() if k in ("model", "law", "method", "steps", "seed", "dtype", "batch")},
            "solver": self.solver or ("jump" if jumping(flow, method, None) else "euler"),
            **({"spacing": self.spacing} if self.spacing != "uniform" else {}),
            **({"points": list(self.points)} if self.points else {}),
            "reference": str(self.reference),
            "condition": str(self.condition),
        }
        output = Output(self.out, prototype(self.count, flow.channels, flow.grid, self.torch_dtype()), overwrite=self.overwrite)
        record = record_file(self.out, overwrite=self.overwrite, resume=self.resume)
        columns = [] if law is None else law_columns(law)
        writer = Writer(output.file, self.count, settings, columns=columns, overwrite=self.overwrite, resume=self.resume)
        if writer.written:
            self.say(f"resuming at sample {writer.written} of {self.count}")
        progress = self.progress(self.count, "samples", writer.written)
        parts: list[Samples] = []
        causes: dict[int, str] = {}
        error: DiscretisationError | None = None
        with measure() as meter:
            while writer.written < self.count:
                here = slice(writer.written, min(writer.written + self.batch, self.count))
                drawn = self._draw(flow, law, condition, here, progress)
                causes |= {here.start + i: cause for i, cause in drawn.causes.items()}
                if drawn.failed.all() and (len(drawn.u) > 1 or self.count == 1):
                    raise ValueError(f"all {len(drawn.u)} samples of a batch of model '{self.model}' failed: {_advice(drawn.causes)}")
                writer.append(_fields(flow, drawn, standing(self.law, context), settings), drawn.certificate)
                if not parts:
                    error = self._error(flow, drawn, law, condition, here)
                parts.append(drawn)
                progress.to(writer.written)
            sound = _sound(writer.part)
            if not sound.any():
                raise ValueError(f"all {self.count} samples of model '{self.model}' failed: {_advice(causes)}")
            writer.finish(keep=sound)
        meter.network_calls = sum(part.network_calls for part in parts)
        meter.projections = sum(part.projections for part in parts)
        meter.multiplier_solves = sum(part.multiplier_solves for part in parts)
        failed = (~sound).nonzero().flatten().tolist()
        numbers = sound.nonzero().flatten() if failed else None
        found = summary(output.file, law, names=[name for name, _ in laws], numbers=numbers)
        results: dict[str, Any] = {**found, "failed": failed, "causes": {str(number): cause for number, cause in causes.items()}}
        results["discretisation_error"] = None if error is None else asdict(error)
        output.deliver()
        kept = Record.of(meter.cost, device=self.torch_device(), seeds={"noise": self.seed}, results={**results, "settings": settings})
        kept.write(record)
        tail = f", {results['converged']} lawful" if law is not None else ""
        by_jumps = f", a flow map, in {self.steps} step{'s' if self.steps > 1 else ''}," if jumping(flow, method, self.solver) else ""
        self.say(f"{self.count - len(failed)} samples of {self.model}{by_jumps} in {self.out}{tail}, {meter.cost.seconds:.1f} s")
        if error is not None:
            self.say(f"  {error_line(error)}")
        for line in _failures(failed, causes):
            self.say(line)
        for line in (*law_lines(results["laws"]), *clash_line(results["clashing"])):
            self.say(line)
        if law is not None and results["converged"] < self.count - len(failed) and all(row["share"] <= 1 for row in results["laws"]):
            self.say(
                "  all laws hold, but the nearest lawful field has not been found: these fields are lawful, and moved farther than need be"
            )
        if self.estimate and error is None:
            self.say("  error of the steps: not known of a method that draws fresh noise, of a solver with a tolerance, nor of a flow map")
        self.emit({**results, "seconds": meter.cost.seconds, "file": str(self.out)})
        return DONE if results["converged"] == self.count else UNMET

    def _given(self, flow: Flow) -> torch.Tensor | None:
        """Initial data for the network, checked to be on its grid, with or without time."""
        if self.condition is None:
            return None
        if flow.condition == "none":
            raise ValueError(f"--condition expects a model that was trained with one; '{self.model}' was not. Leave it out.")
        fields = open_fields(self.condition)
        if fields.grid.shape not in (flow.grid.shape, flow.grid.shape[1:]) or len(fields.channels) != len(flow.channels):
            raise ValueError(
                f"--condition expects {len(flow.channels)} channels on {flow.grid.shape} or {flow.grid.shape[1:]}; "
                f"{self.condition} has {len(fields.channels)} on {fields.grid.shape}."
            )
        return fields.values

    def _check_steps(self) -> None:
        """Refuse a rule of steps that there is not, before anything is written."""
        from pcfm.methods import SOLVERS, time_grid
        from pcfm.naming import lookup

        if self.solver is not None:
            lookup("solver", self.solver, SOLVERS)
        if self.steps is not None and self.steps < 1:
            raise ValueError(f"sampling expects at least one step and one sample; got {self.steps} and {self.count}.")
        time_grid(self.spacing, self.steps or 1)
        if self.estimate is not None and not 0 <= self.estimate <= min(self.count, self.batch):
            raise ValueError(f"--estimate expects 0 to {min(self.count, self.batch)} samples, at most a batch; got {self.estimate}.")

    def _settings(self, here: slice) -> dict[str, Any]:
        """How some samples are drawn."""
        return {
            "method": self.method,
            "steps": self.steps,
            "solver": self.solver,
            "spacing": self.spacing,
            "seed": self.seed,
            "start": here.start,
            "batch": self.batch,
            "dtype": self.torch_dtype(),
        }

    def _error(
        self, flow: Flow, drawn: Samples, law: Constraint | None, condition: torch.Tensor | None, here: slice
    ) -> DiscretisationError | None:
        from pcfm.discretisation import discretisation_error, repeated

        count = min(repeated(self.count), len(drawn.u)) if self.estimate is None else self.estimate
        if not count:
            return None
        given = None if condition is None else condition[here]
        return discretisation_error(
            flow, drawn, count, law=None if law is None else law.take(here), condition=given, **self._settings(here)
        )

    def _draw(self, flow: Flow, law: Constraint | None, condition: torch.Tensor | None, here: slice, progress: Progress) -> Samples:
        from pcfm.generation import sample

        drawn = sample(
            flow,
            here.stop - here.start,
            law=None if law is None else law.take(here),
            condition=None if condition is None else condition[here],
            **self._settings(here),
            within=lambda share: progress.to(here.start, f"{share:.0%} of the next {here.stop - here.start}"),
        )
        return drawn


def _points(texts: tuple[str, ...], flow: Flow) -> dict[str, int]:
    """Numbers of points by axis."""
    chosen: dict[str, int] = {}
    for text in texts:
        name, equals, count = text.partition("=")
        if not (count if equals else name).isdecimal():
            raise ValueError(f"--points expects a number, or NAME=NUMBER; got '{text}'.")
        names = [name] if equals else [axis.name for axis in flow.grid.space_axes if axis.periodic]
        if not names:
            raise ValueError(f"--points expects a model on periodic axes; '{flow.grid}' has none.")
        chosen |= {axis: int(count if equals else name) for axis in names}
    return chosen


def _failures(failed: list[int], causes: dict[int, str]) -> list[str]:
    """Samples that failed, a line for each cause; of a run that was resumed the cause is told where it was killed."""
    lines: dict[str, list[str]] = {}
    for number in failed:
        lines.setdefault(causes.get(number, "before the run was resumed"), []).append(str(number))
    return [f"  failed: samples {', '.join(numbers)}, not in the file: {cause}" for cause, numbers in lines.items()]


def _advice(causes: dict[int, str]) -> str:
    """The first cause, and the way out of it."""
    cause = next(iter(causes.values()), "before the run was resumed")
    if cause.startswith("diverged"):
        return f"{cause}. Take more steps, or other options of the method (pcfm list methods)."
    return f"{cause}. Train it again, or longer."


def _sound(file: Path) -> torch.Tensor:
    """Which samples of a file are finite."""
    import torch

    from pde_datasets.store import read

    return torch.cat([torch.isfinite(piece.values).flatten(1).all(1) for piece in read(file).pieces()])


def _fields(flow: Flow, drawn: Samples, laws: tuple[str, ...], settings: dict[str, Any]) -> Fields:
    from pcfm import __version__
    from pde_datasets import Fields

    return Fields(
        drawn.u.cpu(),
        flow.grid,
        flow.channels,
        flow.channel_units,
        roles=dict(flow.roles),
        laws=laws,
        attributes={"source": "sampled", "model": settings["model"], "seed": settings["seed"], "code_version": __version__},
    )


@dataclass(kw_only=True)
class Evaluate(Common):
    """Metrics of fields against reference fields, with the reference's own value of each beside it.

    Attributes:
        file: Fields to judge.
        reference: Fields to judge them by.
        law: Laws to measure on both; those stated by either file by default.
        paired: Field i is a prediction of reference i: add the relative error of each.
        metrics: Metrics by name or group: default, literature, structure, distances, calibration, residual, or all.
        splits: Random halves of the reference that the noise floor is the median over.
        errors: What the error of a model is made of: the steps of the solver, and the velocity. Expects --model.
        model: Run folder or shipped model that made the file, then further members of its ensemble, if there are any.
        out: JSON file for the result; printed in any case.
    """

    file: Annotated[Path, tyro.conf.Positional]
    reference: Path
    law: Laws = ()
    paired: bool = False
    metrics: Annotated[tuple[str, ...], tyro.conf.arg(metavar="METRIC ...")] = ("default",)
    splits: int = 16
    errors: bool = False
    model: Annotated[tuple[str, ...], tyro.conf.arg(metavar="RUN ...")] = ()
    out: Path | None = None

    def run(self) -> int:
        from pcfm.commands.common import fresh_file, unequal
        from pcfm.error_report import COLUMNS as ERRORS
        from pcfm.evaluation import COLUMNS, compare, sample_numbers
        from pcfm.metrics import measure
        from pcfm.report import Record, to_markdown

        if self.errors != bool(self.model):
            raise ValueError("--errors expects --model RUN, the model whose error it is, and the other way round.")
        if self.out is not None:
            fresh_file(self.out, self.overwrite)
        fields, reference = open_fields(self.file), open_fields(self.reference)
        numbers = sample_numbers(fields)
        remark = unequal(len(fields) if numbers is None else int(numbers.max()) + 1, len(reference)) if self.law else ""
        if remark:
            self.say(f"note: {remark}, where a law takes values of the reference")
        with measure() as meter:
            rows = compare(fields, reference, self.law, paired=self.paired, metrics=self.metrics, seed=self.seed, splits=self.splits)
            parts = self._errors(reference) if self.errors else []
        results = {"file": str(self.file), "reference": str(self.reference), "count": len(fields), "note": remark, "metrics": rows}
        results |= {"errors": parts} if self.errors else {}
        if self.out is not None:
            Record.of(meter.cost, device="cpu", seeds={"metrics": self.seed}, results=results).write(self.out)
        self.say(to_markdown(rows, COLUMNS))
        if self.errors:
            self.say("\nerrors, in standard deviations of the data:\n\n" + to_markdown(parts, ERRORS))
        self.emit(results)
        return DONE

    def _errors(self, reference: Fields) -> list[dict[str, Any]]:
        """The rows of the error report."""
        from pcfm.error_report import error_report
        from pcfm.shelf import load

        return error_report([load(name, self.torch_device()) for name in self.model], reference, seed=self.seed)
