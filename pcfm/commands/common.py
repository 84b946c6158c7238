"""What all commands share: flags, messages, progress."""

from __future__ import annotations

import json as json_module
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

if TYPE_CHECKING:
    import torch

    from constraints import Constraint
    from pcfm.laws import Context
    from pde_datasets import Fields

Laws = Annotated[tuple[str, ...], tyro.conf.arg(metavar="LAW ...")]

CHUNK = 256
"""Fields drawn, projected or measured at a time."""

_TRIED = 2
"""Fields that did not come out lawful, of which it is found out which laws clash."""

PATIENCE = 30.0
"""Seconds after which a line says how far long work is, where there is no terminal."""

DONE, UNMET = 0, 1
"""Exit status: done; the work was done but something did not hold. A wrong call or input is 2."""


@dataclass(kw_only=True)
class Common:
    """Flags of every command.

    Attributes:
        seed: Seed of all randomness.
        device: auto, cpu, or cuda with an optional index such as cuda:1. Asking for one that is missing is an error.
        dtype: Type of states and results; a network runs in its own.
        threads: Processor threads. One is fastest for fields below about a megabyte, where threads wait for each other more than they help.
        json: One JSON document on standard output, everything else on standard error.
        quiet: Say nothing but errors.
        overwrite: Replace existing results.
    """

    seed: int = 0
    device: str = "auto"
    dtype: Literal["float32", "float64"] = "float64"
    threads: int = 1
    json: bool = False
    quiet: bool = False
    overwrite: bool = False

    def start(self) -> int:
        """Do the job with the threads asked for; the exit status.

        Raises:
            ValueError: fewer than one thread, or a negative seed.
        """
        if self.threads < 1:
            raise ValueError(f"--threads expects at least 1; got {self.threads}.")
        if self.seed < 0:
            raise ValueError(f"--seed expects a number that is not negative; got {self.seed}.")
        os.environ["OMP_NUM_THREADS"] = str(self.threads)
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(self.threads)
        return self.run()

    def run(self) -> int:
        """Do the job; the exit status."""
        raise TypeError(f"{type(self).__name__} is not a command.")

    def say(self, text: str = "") -> None:
        """A message for people."""
        if not self.quiet:
            print(text, file=sys.stderr if self.json else sys.stdout, flush=True)

    def emit(self, document: Mapping[str, Any]) -> None:
        """The document for machines, if it is wanted."""
        if self.json:
            from pcfm.report.record import plain

            print(json_module.dumps(plain(document), indent=2), flush=True)

    def torch_dtype(self) -> torch.dtype:
        import torch

        return {"float32": torch.float32, "float64": torch.float64}[self.dtype]

    def torch_device(self) -> torch.device:
        """The device asked for.

        Raises:
            ValueError: it is not there.
        """
        import torch

        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        try:
            device = torch.device(self.device)
        except RuntimeError as error:
            raise ValueError(f"--device expects auto, cpu, cuda or cuda:INDEX; got '{self.device}'.") from error
        if device.type not in ("cpu", "cuda"):
            raise ValueError(f"--device expects auto, cpu, cuda or cuda:INDEX; got '{self.device}'.")
        if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
            raise ValueError(f"--device {self.device} is not there: {torch.cuda.device_count()} CUDA devices found. Use --device cpu.")
        return device

    def progress(self, total: int, unit: str, start: int = 0) -> Progress:
        """A bar on a terminal, a line now and then elsewhere."""
        return Progress(total, unit, start, quiet=self.quiet)


class Progress:
    """Progress of long work: a tqdm bar on a terminal, plain lines at every tenth or every half minute elsewhere."""

    def __init__(self, total: int, unit: str, start: int, *, quiet: bool) -> None:
        self.total, self.unit, self.quiet = total, unit, quiet
        self.done = start
        self._bar: Any = None
        self._told = time.monotonic()
        self._tenth = 10 * start // max(total, 1)
        if not quiet and sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=total, initial=start, unit=f" {unit}", file=sys.stderr, dynamic_ncols=True)

    def to(self, done: int, note: str = "") -> None:
        """That much is done."""
        step, self.done = done - self.done, done
        if self._bar is not None:
            if note:
                self._bar.set_postfix_str(note)
            self._bar.update(step)
            if done >= self.total:
                self._bar.close()
            return
        tenth, now = 10 * done // max(self.total, 1), time.monotonic()
        if not self.quiet and (tenth > self._tenth or now - self._told > PATIENCE):
            self._tenth, self._told = tenth, now
            print(f"  {done}/{self.total} {self.unit}{'  ' + note if note else ''}", file=sys.stderr, flush=True)

    def within(self, note: str) -> None:
        """How far the next one is, said now and then."""
        now = time.monotonic()
        if self._bar is not None and now - self._told > 0.5:
            self._told = now
            self._bar.set_postfix_str(note)
        elif self._bar is None and not self.quiet and now - self._told > PATIENCE:
            self._told = now
            print(f"  {self.done}/{self.total} {self.unit}  {note}", file=sys.stderr, flush=True)


def open_fields(path: Path, format: str | None = None, words: Sequence[str] = ()) -> Fields:
    """Fields of a file, with what the user says of its axes, key=value each, where it says nothing itself.

    Raises:
        ValueError: the file cannot be used, or holds NaN or Inf, or a word is none.
    """
    import pde_datasets

    said: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or key in said:
            raise ValueError(f"--words expects key=value, each key once, such as layout='n t x y'; got '{word}'.")
        said[key] = value
    return pde_datasets.open(path, format, said or None)


def with_reference(context: Context, path: Path | None, fields: Fields | None = None) -> tuple[Context, str]:
    """The context of laws with reference fields, checked to be on the same grid.

    Arguments:
        context: what else is known.
        path: file of the reference, if there is one.
        fields: the fields the laws are for, if there are any yet: where some samples of a run failed, each of the others keeps its number.

    Returns:
        The context, and what to tell where there are not as many references as fields; nothing else.

    Raises:
        ValueError: the file cannot be used, or its fields are of another shape.
    """
    from pcfm.evaluation import sample_numbers

    if path is None:
        return context, ""
    reference = open_fields(path)
    if reference.grid.shape != context.grid.shape or len(reference.channels) != len(context.channels):
        raise ValueError(
            f"--reference expects fields like those the laws are for, {len(context.channels)} channels on {context.grid.shape}; "
            f"{path} has {len(reference.channels)} on {reference.grid.shape}."
        )
    numbers = None if fields is None else sample_numbers(fields)
    context = replace(context, reference=reference.values, origin=reference, numbers=numbers)
    count = context.count if numbers is None else int(numbers.max()) + 1
    return context, unequal(count, len(reference))


def unequal(count: int, references: int) -> str:
    """What to tell where there are not as many references as fields."""
    if count <= references:
        return "" if count == references else f"{count} fields and {references} references: the last {references - count} are not used"
    return f"{count} fields and {references} references: field i takes the values of reference i mod {references}"


def law_columns(law: Constraint) -> list[str]:
    """What the columns of a certificate are about: each law with the unit of its residual."""
    return [f"{leaf.name} [{leaf.unit}]" for leaf in law.leaves()]


def law_lines(laws: list[dict[str, Any]]) -> list[str]:
    """Laws with their violations, one line each."""
    lines = []
    for law in laws:
        before = f"{law['violation_before']:.2e} -> " if "violation_before" in law else ""
        share = f"{law['share']:.1e} of its tolerance" if law["share"] <= 1 else f"not obeyed, {law['share']:.1e} times its tolerance"
        lines.append(f"  {law.get('law', law['name'])}: {before}{law['violation_after']:.2e} {law['unit']}  ({share})")
    return lines


def clash_line(clashing: Sequence[str]) -> list[str]:
    """What to say of laws that fields near those asked for cannot obey."""
    if not clashing:
        return []
    if len(clashing) == 1:
        return [f"  no field was found that obeys {clashing[0]}"]
    return [f"  these laws contradict each other, or no field was found that obeys them all: {'; '.join(clashing)}"]


def summary(
    file: Path,
    law: Constraint | None,
    tolerance: float | None = None,
    names: Sequence[str] | None = None,
    numbers: torch.Tensor | None = None,
) -> dict[str, Any]:
    """Count, converged, laws and which of them clash, of a file of sampled or projected fields, from what is stored in it.

    Arguments:
        file: the fields with their certificate.
        law: what was enforced, of as many samples as were asked for.
        tolerance: as a fraction of scales; that of the type of the fields by default.
        names: what to call the laws.
        numbers: where some samples failed and are not in the file, the number of each that is.
    """
    import torch

    from constraints import clashes
    from constraints.projection import TOLERANCE
    from pcfm.generation import certify, law_rows
    from pde_datasets.store import certificate, read

    stored, fields = certificate(file), read(file)
    u, count = fields.u, len(fields)
    if law is None:
        return {"count": count, "converged": count, "laws": [], "clashing": []}
    places = range(count) if numbers is None else numbers.tolist()
    if numbers is not None:  # each of the others has the law of its own number
        allowed = torch.cat([certify(law.take(slice(n, n + 1)), u[i : i + 1])[1] for i, n in enumerate(places)])
    else:
        pieces = [slice(i, min(i + CHUNK, count)) for i in range(0, count, CHUNK)]
        allowed = torch.cat([certify(law.take(here), u[here])[1] for here in pieces])
    if tolerance is not None:
        allowed = allowed * (tolerance / TOLERANCE[u.dtype])
    unlawful = (~stored["converged"]).nonzero().flatten()[:_TRIED].tolist()
    labels = [leaf.name for leaf in law.leaves()] if names is None else list(names)
    found = {name for i in unlawful for name in clashes(law.take(slice(places[i], places[i] + 1)), u[i : i + 1], labels)}
    clashing = [name for name in labels if name in found]
    rows = [{"law": label, **row} for label, row in zip(labels, law_rows(law, stored, allowed), strict=True)]
    return {"count": count, "converged": int(stored["converged"].sum()), "laws": rows, "clashing": clashing}


def record_file(out: Path, *, overwrite: bool, resume: bool) -> Path:
    """Where the record of a file of fields goes: beside it, with the ending .json.

    Raises:
        ValueError: that is the file itself, or is there already.
    """
    record = out.with_suffix(".json")
    if record == out:
        raise ValueError(f"--out expects a file of fields, {out.with_suffix('.h5')}; {out} is where the record of the run goes.")
    if record.exists() and not (overwrite or resume):
        raise ValueError(f"{record} exists already, and the record of the run goes there. Choose another name, or pass --overwrite.")
    return record


def fresh_file(path: Path, overwrite: bool) -> Path:
    """A file that may be written.

    Raises:
        ValueError: it exists already, or is a folder.
    """
    if path.is_dir():
        raise ValueError(f"expects a file to write; {path} is a folder. Name a file inside it.")
    if path.exists() and not overwrite:
        raise ValueError(f"{path} exists already. Choose another name, or pass --overwrite.")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
