"""Command: convert, files of fields into other files, whole or in parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from pcfm.commands.common import DONE, Common, Progress, fresh_file, open_fields

if TYPE_CHECKING:
    from pde_datasets import Fields


@dataclass(kw_only=True)
class Convert(Common):
    """Fields of one or several files, ours or foreign, into our HDF5 layout, netCDF or ParaView files.

    Several files are joined: shards of `pcfm generate` in their order, others in the order given. Parts are cut in the order thin,
    windows, split; laws that a part no longer obeys are no longer stated, and the notes name them.

    Attributes:
        file: Files to convert.
        out: File to write; its ending says how: .h5 our layout, .nc netCDF with CF attributes, .vti ParaView (a file a sample and time).
        format: Format of the files; detected by default.
        words: What the axes of plain arrays are: layout="n t x y", periodic="x y", length="x=6.28", channels="u v", ...
        thin: Keep every k-th point of an axis, AXIS=k.
        windows: Cut trajectories into windows of so many times.
        every: Times from the start of one window to that of the next.
        stride: Times from one of a window to the next.
        split: Shares of parts, NAME=share; each goes to OUT with its name before the ending. Trajectories stay whole.
    """

    file: Annotated[tuple[Path, ...], tyro.conf.Positional]
    out: Path
    format: str | None = None
    words: tuple[str, ...] = ()
    thin: tuple[str, ...] = ()
    windows: int | None = None
    every: int = 1
    stride: int = 1
    split: tuple[str, ...] = ()

    def run(self) -> int:
        from pde_datasets.fields import join
        from pde_datasets.writers import WRITERS

        if not self.file:
            raise ValueError("convert expects at least one file; got none.")
        if self.out.suffix not in WRITERS:
            raise ValueError(f"--out expects one of the endings {', '.join(WRITERS)}; got '{self.out.name}'.")
        parts = [open_fields(file, self.format, self.words) for file in self.file]
        fields = join(ordered(parts, self.file)) if len(parts) > 1 else parts[0]
        if self.thin:
            fields = fields.thinned(**_numbers("--thin", "AXIS=k", self.thin, int))
        if self.windows is not None:
            fields = fields.windows(self.windows, every=self.every, stride=self.stride)
        targets = {self.out: fields}
        if self.split:
            shares = _numbers("--split", "NAME=share", self.split, float)
            cut = fields.split(seed=self.seed, **shares)
            targets = {self.out.with_name(f"{self.out.stem}.{name}{self.out.suffix}"): part for name, part in cut.items()}
        for path in targets:
            fresh_file(path, self.overwrite)
        progress = self.progress(sum(len(part) for part in targets.values()), "samples")
        done, files = 0, []
        for path, part in targets.items():
            written = WRITERS[path.suffix](path, part, self.overwrite, partial(_tell, progress, done))
            done += len(part)
            files += [{"file": str(file), "count": count} for file, count in written.items()]
            self.say(f"{len(part)} samples ({part.grid}) in {path}")
        self.emit({"count": done, "files": files, "laws": list(fields.laws), "notes": fields.attributes.get("notes", "")})
        return DONE


def _tell(progress: Progress, before: int, count: int) -> None:
    progress.to(before + count)


def ordered(parts: list[Fields], files: tuple[Path, ...]) -> list[Fields]:
    """Sets of fields in the order of their samples where they are shards of one data set, else as given.

    Raises:
        ValueError: shards that overlap, or leave a gap between them.
    """
    settings = [part.attributes.get("settings", {}) for part in parts]
    common = [{key: value for key, value in known.items() if key != "first"} for known in settings]
    if not all("first" in known for known in settings) or any(known != common[0] for known in common):
        return parts
    by_first = sorted(zip((known["first"] for known in settings), parts, files, strict=True), key=lambda entry: entry[0])
    for (a, part, file), (b, _, other) in pairwise(by_first):
        if a + len(part) != b:
            raise ValueError(
                f"shards are joined without gaps or overlaps; {file} holds samples {a} to {a + len(part) - 1} and {other} begins at {b}. "
                "Name each shard once, and all of them."
            )
    return [part for _, part, _ in by_first]


def _numbers(flag: str, form: str, texts: tuple[str, ...], kind: Callable[[str], Any]) -> dict[str, Any]:
    """Values by name, from NAME=value."""
    values = {}
    for text in texts:
        name, equals, value = text.partition("=")
        try:
            values[name] = kind(value)
        except ValueError:
            equals = ""
        if not equals or not name:
            raise ValueError(f"{flag} expects {form}; got '{text}'.")
    return values
