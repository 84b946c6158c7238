"""The record of a run: everything needed to repeat it, beside what came of it, as one JSON document."""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from pcfm.metrics.cost import Cost

SCHEMA = 1
"""Version of the layout of `record.json`; older ones stay readable."""

_LIBRARIES = ("torch", "numpy", "scipy", "h5py", "matplotlib", "safetensors", "torchdiffeq")


@dataclass(frozen=True)
class Record:
    """One run.

    Attributes:
        command: the command line, ready to paste.
        code: version of pcfm, with `commit` and `dirty` (uncommitted changes) when it runs from a checkout, None otherwise.
        libraries: versions of Python and of the libraries that are installed.
        device: what computed.
        threads: processor threads of torch.
        seeds: every seed by what it seeds.
        seconds, cpu_seconds: wall and processor time.
        peak_memory_bytes: largest resident memory of the process since it started; None where unknown.
        network_calls: evaluations of the network.
        multiplier_solves: solves for multipliers.
        results: what came of it, plain values by name.
        created: when the record was made, UTC.
        schema: version of this layout.
    """

    command: str
    code: dict[str, Any]
    libraries: dict[str, str]
    device: str
    threads: int
    seeds: dict[str, int]
    seconds: float
    cpu_seconds: float
    peak_memory_bytes: int | None
    network_calls: int
    multiplier_solves: int
    results: dict[str, Any] = field(default_factory=dict)
    created: str = ""
    schema: int = SCHEMA

    @classmethod
    def of(
        cls,
        cost: Cost,
        *,
        device: torch.device | str,
        seeds: Mapping[str, int],
        results: Mapping[str, Any],
        command: Sequence[str] | None = None,
    ) -> Record:
        """The record of what this process has just done.

        Arguments:
            cost: what it cost.
            device: what computed.
            seeds: every seed by what it seeds.
            results: numbers, texts, tensors, and lists and dictionaries of them; infinities and NaN, which JSON has not, become texts.
            command: arguments of the command line, those of this process by default.

        Raises:
            ValueError: a result that has no plain value.
        """
        return cls(
            command=command_line(sys.argv if command is None else command),
            code=code_version(),
            libraries=library_versions(),
            device=device_name(device),
            threads=torch.get_num_threads(),
            seeds=dict(seeds),
            seconds=cost.seconds,
            cpu_seconds=cost.cpu_seconds,
            peak_memory_bytes=cost.peak_memory_bytes,
            network_calls=cost.network_calls,
            multiplier_solves=cost.multiplier_solves,
            results=plain(dict(results)),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    def write(self, path: str | Path) -> None:
        """Write the record as JSON, to a temporary name first."""
        path = Path(path)
        temporary = path.with_name(path.name + ".part")
        temporary.write_text(json.dumps(plain(asdict(self)), indent=2, allow_nan=False) + "\n", encoding="utf-8")
        os.replace(temporary, path)

    @classmethod
    def read(cls, path: str | Path) -> Record:
        """The record in a file.

        Raises:
            ValueError: the file cannot be read, is not a record, or is one of a later version of pcfm.
        """
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(f"Record expects a JSON document in {path}; {type(error).__name__}: {error}.") from error
        schema = data.get("schema") if isinstance(data, dict) else None
        if type(schema) is not int or schema < 1:
            raise ValueError(
                f"Record expects the record of a run in {path}, a JSON object with a schema version; it is some other document."
            )
        if schema > SCHEMA:
            raise ValueError(f"Record reads schema versions up to {SCHEMA}; {path} has {schema}, written by a later pcfm. Upgrade pcfm.")
        known = {f.name: data[f.name] for f in fields(cls) if f.name in data}
        missing = [f.name for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING and f.name not in data]
        wrong = [name for name, value in known.items() if not isinstance(value, _KINDS[name]) or isinstance(value, bool)]
        if missing or wrong:
            parts = [f"{', '.join(names)} {what}" for names, what in ((missing, "missing"), (wrong, "of another type")) if names]
            raise ValueError(f"Record expects the record of a run in {path}; it has {' and '.join(parts)}.")
        return cls(**known)


_KINDS: dict[str, tuple[type, ...]] = {
    "command": (str,),
    "code": (dict,),
    "libraries": (dict,),
    "device": (str,),
    "threads": (int,),
    "seeds": (dict,),
    "seconds": (int, float),
    "cpu_seconds": (int, float),
    "peak_memory_bytes": (int, type(None)),
    "network_calls": (int,),
    "multiplier_solves": (int,),
    "results": (dict,),
    "created": (str,),
    "schema": (int,),
}


def command_line(arguments: Sequence[str]) -> str:
    """The command line of some arguments, ready to paste, the program by its name rather than by where it happens to lie.

    Example:
        >>> command_line(["/usr/bin/pcfm", "sample", "my run"])
        "pcfm sample 'my run'"
    """
    program = Path(arguments[0]) if arguments else Path("python")
    name = f"python -m {program.parent.name}" if program.name == "__main__.py" else shlex.quote(program.name)
    return " ".join([name, *(shlex.quote(argument) for argument in arguments[1:])])


def code_version() -> dict[str, Any]:
    """Version of pcfm; in a checkout that tracks it, also the commit and whether there are uncommitted changes."""
    try:
        version: str | None = importlib.metadata.version("pcfm")
    except importlib.metadata.PackageNotFoundError:
        version = None
    here = Path(__file__).resolve()
    tracked = _git(here.parent, "ls-files", "--error-unmatch", here.name) is not None
    commit = _git(here.parent, "rev-parse", "HEAD") if tracked else None
    changes = _git(here.parent, "status", "--porcelain", "--untracked-files=no") if commit else None
    return {"version": version, "commit": commit, "dirty": None if changes is None else bool(changes)}


def library_versions() -> dict[str, str]:
    """Versions of Python and of the libraries that are installed."""
    versions = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def device_name(device: torch.device | str) -> str:
    """A device in words: `"cpu"`, or the accelerator with its model."""
    device = torch.device(device)
    if device.type == "cuda" and torch.cuda.is_available():
        return f"{device}: {torch.cuda.get_device_name(device)}"
    return str(device)


def plain(value: Any) -> Any:
    """A value in the types of JSON.

    Example:
        >>> plain({"error": torch.tensor([1.0, math.inf]), "file": Path("a.h5")})
        {'error': [1.0, 'inf'], 'file': 'a.h5'}

    Raises:
        ValueError: there is no such value.
    """
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, (Path, torch.device, torch.dtype)):
        return str(value)
    raise ValueError(f"Record expects numbers, texts, tensors, lists and dictionaries of them; got {type(value).__name__}.")


def _git(folder: Path, *arguments: str) -> str | None:
    """What git says, or None if it is missing or has nothing to say about the folder."""
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
