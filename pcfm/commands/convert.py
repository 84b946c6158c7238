"""Command: convert, files of fields into other files, whole or in parts."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import tyro

from pcfm.commands.common import DONE, Common, Progress, fresh_file, open_fields

if TYPE_CHECKING:
    from pde_datasets import Fields


_NUMBERED = re.compile(r"(?P<stem>.*)\.(?P<number>\d+)-of-(?P<count>\d+)(?P<ending>\.\w+)")
"""What `pcfm generate --shard` calls a shard."""


@dataclass(kw_only=True)
class Convert(Common):
    """Fields of one or several files, ours or foreign, into our HDF5 layout, netCDF or ParaView files.

    Several files are joined: shards of `pcfm generate` in their order, others in the order given; shards that lack some of their data
    set are refused, and the missing ones named. Parts are cut in the order thin, windows, split; laws that a part no longer obeys are
    no longer stated, and the notes name them.

    Attributes:
        file: Files to convert.
        out: File to write; its ending says how: .h5 or .hdf5 our layout, .nc netCDF, .vti ParaView (a file a sample and time).
        format: Format of the files; detected by default.
        words: What the axes of plain arrays are: layout="n t x y", periodic="x y", length="x=6.28", channels="u v", ...
        thin: Keep every k-th point of an axis, AXIS=k.
        windows: Cut trajectories into windows of so many times.
        every: Times from the start of one window to that of the next, with --windows; 1 by default.
        stride: Times from one of a window to the next, with --windows; 1 by default.
        split: Shares of parts, NAME=share; each goes to OUT with its name before the ending. Trajectories stay whole.
        incomplete: Take shards although others are missing.
    """

    file: Annotated[tuple[Path, ...], tyro.conf.Positional]
    out: Path
    format: str | None = None
    words: tuple[str, ...] = ()
    thin: tuple[str, ...] = ()
    windows: int | None = None
    every: int | None = None
    stride: int | None = None
    split: tuple[str, ...] = ()
    incomplete: bool = False

    def run(self) -> int:
        from pde_datasets.fields import join
        from pde_datasets.store import check_space
        from pde_datasets.writers import writer_of

        if not self.file:
            raise ValueError("convert expects at least one file; got none.")
        writer = writer_of(self.out)
        if self.windows is None and (self.every, self.stride) != (None, None):
            raise ValueError(
                "--every and --stride say how windows are cut, and there are none. Give --windows, the times in each, as well."
            )
        parts, remark = whole([open_fields(file, self.format, self.words) for file in self.file], self.file, self.incomplete)
        fields = join(parts) if len(parts) > 1 else parts[0]
        if remark:
            self.say(f"note: {remark}")
            notes = " ".join(filter(None, [str(fields.attributes.get("notes", "")), remark]))
            fields = replace(fields, attributes={**fields.attributes, "notes": notes})
        if self.thin:
            fields = fields.thinned(**_numbers("--thin", "AXIS=k", self.thin, int))
        if self.windows is not None:
            every, stride = (1 if value is None else value for value in (self.every, self.stride))
            fields = fields.windows(self.windows, every=every, stride=stride)
        targets = {self.out: fields}
        if self.split:
            shares = _numbers("--split", "NAME=share", self.split, float)
            cut = fields.split(seed=self.seed, **shares)
            targets = {self.out.with_name(f"{self.out.stem}.{name}{self.out.suffix}"): part for name, part in cut.items()}
        check_space(self.out, sum(part.nbytes for part in targets.values()))
        for path, part in targets.items():
            writer.check(path, part, self.overwrite)
            fresh_file(path, self.overwrite)
        progress = self.progress(sum(len(part) for part in targets.values()), "samples")
        done, files = 0, []
        for path, part in targets.items():
            written = writer(path, part, self.overwrite, partial(_tell, progress, done))
            done += len(part)
            files += [{"file": str(file), "count": count} for file, count in written.items()]
            self.say(f"{len(part)} samples ({part.grid}) in {path}")
        self.emit({"count": done, "files": files, "laws": list(fields.laws), "notes": fields.attributes.get("notes", "")})
        return DONE


def _tell(progress: Progress, before: int, count: int) -> None:
    progress.to(before + count)


def whole(parts: list[Fields], files: tuple[Path, ...], incomplete: bool = False) -> tuple[list[Fields], str]:
    """Sets of fields, shards of one data set next to each other and in the order of their samples, the others as given.

    Arguments:
        parts: the sets; a shard says in its settings which sample is its first, and how many there are in all.
        files: where they are from.
        incomplete: take shards although others are missing.

    Returns:
        The sets, and what the user should know of them: that some are missing, or that this cannot be told, since the files of earlier
        versions do not say how many samples there are in all.

    Raises:
        ValueError: shards that overlap, or lack samples of their data set; the missing ones are named.
    """
    groups: dict[str, list[_Shard]] = {}
    for i, (part, file) in enumerate(zip(parts, files, strict=True)):
        known = part.attributes.get("settings")
        settings = dict(known) if isinstance(known, dict) else {}
        first, total = settings.pop("first", None), settings.pop("total", None)
        alone = not isinstance(first, int)  # not of `pcfm generate`, or cut since
        key = f"{i}" if alone else json.dumps([settings, total], sort_keys=True, default=str)
        groups.setdefault(key, []).append(_Shard(0 if alone else first, len(part) if alone else total, part, file))
    remarks, order = [], []
    for group in groups.values():
        group.sort(key=lambda shard: shard.first)
        for a, b in pairwise(group):
            if b.first < a.end:
                raise ValueError(
                    f"shards are joined without overlaps; {a.file} holds samples {a.first} to {a.end - 1} and {b.file} begins at "
                    f"{b.first}. Name each shard once."
                )
        missing = _missing(group)
        if missing and not incomplete:
            raise ValueError(f"{missing}. Name all shards, or take what there is with --incomplete.")
        remarks += [f"{missing}."] if missing else []
        if group[0].total is None:
            names = _listed([shard.file.name for shard in group])
            remarks.append(f"{names}: an earlier version wrote no total number of samples, so that a missing last shard cannot be noticed.")
        order += group
    return [shard.part for shard in order], " ".join(remarks)


class _Shard(NamedTuple):
    """Samples first, .. of a data set of so many."""

    first: int
    total: int | None
    part: Fields
    file: Path

    @property
    def end(self) -> int:
        """The sample after the last."""
        return self.first + len(self.part)


def _missing(group: list[_Shard]) -> str:
    """The samples of a data set that its shards, in their order, lack, and the files these would be in; nothing if none are."""
    total = group[0].total
    ends = [0, *(shard.end for shard in group)]
    starts = [*(shard.first for shard in group), ends[-1] if total is None else total]
    gaps = [f"{end} to {start - 1}" for end, start in zip(ends, starts, strict=True) if end < start]
    if not gaps:
        return ""
    of = "" if total is None else f" of {total}"
    return f"shards are missing: samples {_listed(gaps)}{of}{_absent([shard.file.name for shard in group])}"


def _absent(names: list[str]) -> str:
    """The files NAME.i-of-n.ENDING that are not among those named so, in brackets; nothing where names say nothing."""
    matches = [_NUMBERED.fullmatch(name) for name in names]
    kinds = {match and (match["stem"], match["count"], match["ending"]) for match in matches}
    if len(kinds) > 1 or matches[0] is None:
        return ""
    stem, count, ending = matches[0].group("stem", "count", "ending")
    every = (f"{stem}.{i:0{len(count)}d}-of-{count}{ending}" for i in range(1, int(count) + 1))
    return f" ({_listed([name for name in every if name not in names])})"


def _listed(words: list[str]) -> str:
    """Words, the first eight of them."""
    return ", ".join(words[:8]) + (f" and {len(words) - 8} more" if len(words) > 8 else "")


def _numbers(flag: str, form: str, texts: tuple[str, ...], kind: Callable[[str], Any]) -> dict[str, Any]:
    """Values by name, from NAME=value."""
    values: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if name in values:
            raise ValueError(f"{flag} expects each name once; got '{name}' twice.")
        try:
            values[name] = kind(value)
        except ValueError:
            equals = ""
        if not equals or not name:
            raise ValueError(f"{flag} expects {form}; got '{text}'.")
    return values
