"""Command: generate, fields of an embedded problem."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from pcfm.commands.common import DONE, Common, record_file

if TYPE_CHECKING:
    from pde_datasets import Problem


@dataclass(kw_only=True)
class Generate(Common):
    """Simulate fields with an embedded solver into one HDF5 file, or one shard of it.

    Shard i of n goes to NAME.i-of-n.h5. Shards are independent: run them anywhere, in any order, and join them with `pcfm convert`;
    together they are the file that one run would have made.

    Attributes:
        problem: What to solve; `pcfm list problems` names all.
        count: Number of samples, of all shards together.
        out: File to write; its ending says how: .h5 or .hdf5 our layout, .nc netCDF, .vti ParaView (a file a sample and time).
        preset: Settings of a published data set; `pcfm list problems` names those of each problem.
        set: Settings of the problem, key=value, over those of the preset: points=64, boundary=neumann, diffusivity=[1,5].
        config: TOML file with settings of the problem.
        shard: Which part to make, i/n with i from 1 to n.
        workers: Processes that simulate.
        resume: Go on with a killed run.
    """

    problem: Annotated[str, tyro.conf.Positional]
    count: int
    out: Path
    preset: str | None = None
    set: tuple[str, ...] = ()
    config: Path | None = None
    shard: str | None = None
    workers: int = 1
    resume: bool = False

    def run(self) -> int:
        import torch

        from pcfm import __version__
        from pcfm.metrics import measure
        from pcfm.report import Record
        from pde_datasets.fields import prototype
        from pde_datasets.production import produce
        from pde_datasets.store import Writer, finished
        from pde_datasets.writers import Output, writer_of

        for flag, value, unit in (("--count", self.count, "sample"), ("--workers", self.workers, "process, which simulates by itself")):
            if value < 1:
                raise ValueError(f"{flag} expects at least 1 {unit}; got {value}.")
        if self.count > 2**40:
            raise ValueError(f"--count expects at most {2**40} samples; got {self.count}.")
        writer_of(self.out)
        problem = build_problem(self.problem, self.set, self.config, self.preset)
        out, first, last = self._part(problem)
        place = {"first": first, "total": self.count}
        settings = {"problem": problem.name, "seed": self.seed, "dtype": self.dtype, **place, **settings_of(problem)}
        if self.resume and not self.overwrite and finished(out, settings):
            self.say(f"{out} is complete already")
            self.emit({"file": str(out), "complete": True})
            return DONE
        output = Output(out, prototype(last - first, problem.channels, problem.grid, self.torch_dtype()), overwrite=self.overwrite)
        record = record_file(out, overwrite=self.overwrite, resume=self.resume)
        writer = Writer(output.file, last - first, settings, overwrite=self.overwrite, resume=self.resume)
        if writer.written:
            self.say(f"resuming at sample {writer.written} of {last - first}")
        progress = self.progress(last - first, "samples", writer.written)
        device = self.torch_device()

        def told(done: int, of: int | None) -> None:
            progress.within(f"step {done}" + ("" if of is None else f" of {of}") + " of the next")

        alike: torch.Tensor | None = None  # the one field that all samples so far are
        with measure() as meter:
            for drawn in produce(problem, first + writer.written, last, seed=self.seed, workers=self.workers, device=device, told=told):
                u = drawn.values.to("cpu", self.torch_dtype())
                if not torch.isfinite(u).all():
                    raise ValueError(
                        f"problem '{problem.name}' expects settings it can solve; with these, samples from {first + writer.written} on "
                        "hold NaN or Inf. Change them back towards the defaults."
                    )
                alike = u[0] if not writer.written else alike
                alike = alike if alike is not None and bool((u == alike).all()) else None
                if alike is not None and writer.written + len(u) > 1:
                    writer.discard()
                    raise ValueError(
                        f"problem '{problem.name}' draws nothing at random with these settings: its samples are all the same. "
                        "Ask for --count 1, or change the settings that fix them."
                    )
                writer.append(replace(drawn, u=u, attributes={**drawn.attributes, "code_version": __version__}))
                progress.to(writer.written)
            writer.finish()
            output.deliver()
        results = {"problem": problem.name, "count": last - first, "file": out.name, "settings": settings}
        Record.of(meter.cost, device=device, seeds={"fields": self.seed}, results=results).write(record)
        self.say(f"{last - first} fields of {problem.name} ({problem.grid}) in {out}, {meter.cost.seconds:.1f} s")
        self.emit({"seconds": meter.cost.seconds, **results, "file": str(out)})
        return DONE

    def _part(self, problem: Problem) -> tuple[Path, int, int]:
        """The file to write, its first sample and the one after its last."""
        from pde_datasets.production import shard

        if self.shard is None:
            return self.out, 0, self.count
        number, slash, shards = self.shard.partition("/")
        if not (slash and number.isdecimal() and shards.isdecimal()):
            raise ValueError(f"--shard expects i/n, such as 3/16; got '{self.shard}'.")
        first, last = shard(problem, self.count, int(number), int(shards))
        return self.out.with_name(f"{self.out.stem}.{int(number):0{len(shards)}d}-of-{shards}{self.out.suffix}"), first, last


def settings_of(problem: Problem) -> dict[str, Any]:
    """The settings of a problem by name."""
    return {f.name: getattr(problem, f.name) for f in fields(problem)}  # type: ignore[arg-type]


def build_problem(name: str, overrides: tuple[str, ...], config: Path | None = None, preset: str | None = None) -> Problem:
    """A problem with its settings.

    Raises:
        ValueError: an unknown problem, preset or key, or a value of the wrong type.
    """
    import math
    import tomllib

    from pcfm.configuration import literal
    from pcfm.naming import lookup, suggest
    from pde_datasets import PROBLEMS

    def number(value: Any) -> bool:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)

    kind = lookup("problem", name, PROBLEMS)
    values: dict[str, Any] = {}
    if config is not None:
        try:
            values = tomllib.loads(config.read_text())
        except OSError as error:
            raise ValueError(f"configuration {config} cannot be read: {error.strerror}.") from error
        except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ValueError(f"configuration {config} is not TOML: {error}.") from error
    said: dict[str, str] = {}
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise ValueError(f"--set expects key=value; got '{override}'.")
        if key in said:
            raise ValueError(f"--set expects each setting once; got {key}={said[key]} and {key}={text}.")
        said[key] = text
        values[key] = literal(text)
    known = {f.name: f for f in fields(kind)}  # type: ignore[arg-type]
    for key, value in values.items():
        if key not in known:
            raise ValueError(f"problem '{name}' has no setting '{key}'. {suggest(key, known)}")
        default = known[key].default
        if isinstance(default, tuple):
            pair = "..." not in str(known[key].type)
            if not (isinstance(value, list) and (len(value) == 2 if pair else value) and all(number(v) for v in value)):
                shown = ",".join(f"{v:g}" for v in default or (1.0, 2.0))
                what = f"two numbers, such as {key}=[{shown}]" if pair else f"a list of numbers, such as {key}=[{shown}]"
                same = f", or {key}=[{value:g},{value:g}] for this one" if pair and number(value) else ""
                raise ValueError(f"setting '{key}' of problem '{name}' expects {what}, without spaces{same}; got {_said(value)}.")
            values[key] = tuple(float(v) for v in value)
        elif isinstance(default, (str, bool)):
            if type(value) is not type(default):
                raise ValueError(f"setting '{key}' of problem '{name}' expects {_word(default)}; got {value!r}.")
        elif isinstance(default, int):
            if not (isinstance(value, int) and number(value) and value > 0):
                raise ValueError(f"setting '{key}' of problem '{name}' expects a positive whole number like {default}; got {value!r}.")
        elif not number(value):
            raise ValueError(f"setting '{key}' of problem '{name}' expects a number like {default}; got {value!r}.")
    return kind(**values) if preset is None else kind.preset(preset, **values)


def _said(value: Any) -> str:
    """A value as it is written on the command line."""
    return str(value) if isinstance(value, str) else repr(value).replace(" ", "")


def _word(default: str | bool) -> str:
    return f"a word like '{default}'" if isinstance(default, str) else "true or false"
