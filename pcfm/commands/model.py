"""Commands about models: train, sample, evaluate."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from pcfm.commands.common import DONE, UNMET, Common, Laws, law_columns, law_lines, open_fields, record_file, summary, with_reference

if TYPE_CHECKING:
    import torch

    from constraints import Constraint
    from pcfm.experiment import Experiment
    from pcfm.flow import Flow
    from pcfm.generation import Samples
    from pde_datasets import Fields


@dataclass(kw_only=True)
class Train(Common):
    """Fit a flow to the fields of a file.

    Attributes:
        file: Training fields, any known format.
        out: Run folder: config.toml, weights.safetensors, model.json, state.pt, log.jsonl, record.json.
        config: TOML file with tables network, source, path, training and the key condition.
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
        from pcfm.experiment import fit, load, read_experiment
        from pcfm.metrics import measure
        from pcfm.report import Record
        from pcfm.report.record import command_line

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
        }
        record = Record.of(meter.cost, device=device, seeds={"training": settings.seed}, results=results)
        record.write(self.out / "record.json")
        validation = "" if results["validation"] is None else f", validation loss {results['validation']:.4f}"
        self.say(
            f"model in {self.out}: {results['parameters']} parameters, loss {results['loss']:.4f}{validation}, {meter.cost.seconds:.0f} s"
        )
        self.emit({"run": str(self.out), "seconds": meter.cost.seconds, **results})
        return DONE

    def _check(self, experiment: Experiment) -> None:
        """Refuse to write over a model that is there, or to go on with a run of other settings."""
        from pcfm.experiment import read_experiment

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
        from pcfm.experiment import write_experiment

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
        out: File to write.
        law: Laws the samples obey, jointly: NAME or NAME:key=value,key=value.
        method: NAME or NAME:key=value,key=value (`pcfm list methods`); pcfm-consistent by default where laws are given.
        steps: Flow steps.
        solver: Rule of the methods that integrate the flow itself.
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
    steps: int = 50
    solver: Literal["euler", "heun", "rk4", "dopri5"] = "euler"
    reference: Path | None = None
    condition: Path | None = None
    batch: int = 32
    resume: bool = False

    def run(self) -> int:
        from pcfm.experiment import condition_for, load
        from pcfm.laws import Context, build_all, standing
        from pcfm.metrics import measure
        from pcfm.report import Record
        from pde_datasets.store import Writer

        if self.count < 1 or self.batch < 1:
            raise ValueError(f"--count and --batch expect at least 1; got {self.count} and {self.batch}.")
        flow = load(self.model, self.torch_device())
        context = Context(flow.grid, flow.channels, flow.roles, flow.laws, count=self.count)
        context = with_reference(context, self.reference)
        law = build_all(self.law, context) if self.law else None
        condition = condition_for(flow, self._given(flow), self.count)
        settings = {
            **{k: v for k, v in asdict(self).items() if k in ("model", "law", "method", "steps", "solver", "seed", "dtype", "batch")},
            "reference": str(self.reference),
            "condition": str(self.condition),
        }
        record = record_file(self.out, overwrite=self.overwrite, resume=self.resume)
        columns = [] if law is None else law_columns(law)
        writer = Writer(self.out, self.count, settings, columns=columns, overwrite=self.overwrite, resume=self.resume)
        if writer.written:
            self.say(f"resuming at sample {writer.written} of {self.count}")
        progress = self.progress(self.count, "samples", writer.written)
        parts: list[Samples] = []
        with measure() as meter:
            while writer.written < self.count:
                here = slice(writer.written, min(writer.written + self.batch, self.count))
                drawn = self._draw(flow, law, condition, here)
                if drawn.failed.all() and (len(drawn.u) > 1 or self.count == 1):
                    raise ValueError(
                        f"model '{self.model}' gives NaN or Inf in all {len(drawn.u)} samples of a batch. Train it again, or longer."
                    )
                writer.append(_fields(flow, drawn, standing(self.law, context), settings), drawn.certificate)
                parts.append(drawn)
                progress.to(writer.written)
            sound = _sound(writer.part)
            if not sound.any():
                raise ValueError(f"model '{self.model}' gives NaN or Inf in all {self.count} samples. Train it again, or longer.")
            writer.finish(keep=sound)
        meter.network_calls = sum(part.network_calls for part in parts)
        meter.projections = sum(part.projections for part in parts)
        meter.multiplier_solves = sum(part.multiplier_solves for part in parts)
        failed = (~sound).nonzero().flatten().tolist()
        results = {**summary(self.out, law), "failed": failed}
        kept = Record.of(meter.cost, device=self.torch_device(), seeds={"noise": self.seed}, results={**results, "settings": settings})
        kept.write(record)
        tail = f", {results['converged']} lawful" if law is not None else ""
        self.say(f"{self.count - len(failed)} samples of {self.model} in {self.out}{tail}, {meter.cost.seconds:.1f} s")
        if failed:
            self.say(f"  failed: the network gave NaN or Inf in samples {', '.join(map(str, failed))}; they are not in the file")
        for line in law_lines(results["laws"]):
            self.say(line)
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

    def _draw(self, flow: Flow, law: Constraint | None, condition: torch.Tensor | None, here: slice) -> Samples:

        from pcfm.generation import sample

        drawn = sample(
            flow,
            here.stop - here.start,
            law=None if law is None else law.take(here),
            method=self.method,
            steps=self.steps,
            solver=self.solver,
            seed=self.seed,
            start=here.start,
            condition=None if condition is None else condition[here],
            batch=self.batch,
            dtype=self.torch_dtype(),
        )
        return drawn


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
        out: JSON file for the result; printed in any case.
    """

    file: Annotated[Path, tyro.conf.Positional]
    reference: Path
    law: Laws = ()
    paired: bool = False
    metrics: Annotated[tuple[str, ...], tyro.conf.arg(metavar="METRIC ...")] = ("default",)
    splits: int = 16
    out: Path | None = None

    def run(self) -> int:
        from pcfm.commands.common import fresh_file
        from pcfm.evaluation import COLUMNS, compare
        from pcfm.metrics import measure
        from pcfm.report import Record, to_markdown

        if self.out is not None:
            fresh_file(self.out, self.overwrite)
        fields, reference = open_fields(self.file), open_fields(self.reference)
        with measure() as meter:
            rows = compare(fields, reference, self.law, paired=self.paired, metrics=self.metrics, seed=self.seed, splits=self.splits)
        results = {"file": str(self.file), "reference": str(self.reference), "count": len(fields), "metrics": rows}
        if self.out is not None:
            Record.of(meter.cost, device="cpu", seeds={"metrics": self.seed}, results=results).write(self.out)
        self.say(to_markdown(rows, COLUMNS))
        self.emit(results)
        return DONE
