"""The command line. Imports nothing heavy: help answers at once, commands import what they need."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any, Union

# Idle threads sleep instead of spinning: on shared cores spinning costs more than it gains. Read by OpenMP when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import tyro

from pcfm.commands.bench import Benchmark
from pcfm.commands.common import Common
from pcfm.commands.convert import Convert
from pcfm.commands.data import Inspect, Project
from pcfm.commands.demo import Demo
from pcfm.commands.generate import Generate
from pcfm.commands.holonomy import Holonomic
from pcfm.commands.info import Doctor, List, Report
from pcfm.commands.likelihood import Likely
from pcfm.commands.model import Evaluate, Sample, Train
from pcfm.naming import suggest

COMMANDS: dict[str, type[Common]] = {
    "demo": Demo,
    "generate": Generate,
    "inspect": Inspect,
    "convert": Convert,
    "holonomic": Holonomic,
    "train": Train,
    "sample": Sample,
    "project": Project,
    "evaluate": Evaluate,
    "likelihood": Likely,
    "bench": Benchmark,
    "report": Report,
    "list": List,
    "doctor": Doctor,
}

_DESCRIPTION = "Generate fields that obey physical laws, and make given fields obey them."
_GATHERED = {"--law": "NAME", "--set": "key=value", "--thin": "AXIS=k", "--split": "NAME=share", "--words": "key=value"}
"""Flags that take several values, with the form of one."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0 done, 1 something did not hold, 2 wrong call or input."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments and not arguments[0].startswith("-") and arguments[0] not in COMMANDS:
        return _fail(f"unknown command '{arguments[0]}'. {suggest(arguments[0], COMMANDS)}")
    kinds: Any = Union[tuple(Annotated[kind, tyro.conf.subcommand(name)] for name, kind in COMMANDS.items())]  # noqa: UP007
    try:
        gathered, box = gather(arguments), io.StringIO()
        try:
            with contextlib.redirect_stderr(box):
                command: Common = tyro.cli(
                    kinds,
                    prog="pcfm",
                    description=_DESCRIPTION,
                    args=gathered,
                    config=(tyro.conf.FlagCreatePairsOff,),
                )
        except SystemExit as stopped:
            if not stopped.code:  # help
                raise
            name = arguments[0] if arguments and arguments[0] in COMMANDS else ""
            return _fail(f"{unboxed(box.getvalue())}. See pcfm {name}{' ' * bool(name)}--help.")
        return command.start()
    except (ValueError, FloatingPointError) as error:  # the latter of simulations that blow up
        return _fail(" ".join(str(error).split()))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # whoever read has left: nothing more is to be flushed to them
        return 1
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "allocate" not in str(error):
            raise
        return _fail(f"out of memory: {' '.join(str(error).split())[:200]} Take smaller fields, or fewer at a time.")
    except OSError as error:
        return _fail(f"{error.filename or 'a file'}: {error.strerror or error}.")
    except KeyboardInterrupt:
        print("pcfm: interrupted. Repeat the command with --resume to go on, where it has that flag.", file=sys.stderr)
        return 130


def unboxed(box: str) -> str:
    """What a box of the argument parser says, in one line: neither its frame and title nor its pointers to help.

    Example:
        >>> unboxed("╭─ Value error ───╮\\n│ Error parsing --n │\\n│ ───────────────── │\\n│ For help, see x   │\\n╰───────────────────╯")
        'error parsing --n'
    """
    _, *lines = [line.strip("│|╭╮╰╯ ") for line in box.splitlines() if line.strip("│|╭╮╰╯ ")] or [""]  # the title is the first
    rules = [i for i, line in enumerate(lines) if not line.strip("-─")]
    start = 1 if rules[:1] == [0] else 0  # a title without a frame is underlined
    stop = next((i for i in rules if i > start), len(lines))
    text = " ".join(lines[start:stop]) or "the call cannot be understood"
    text = text.partition(" Arguments are applied to")[0].removesuffix("(required)").strip().rstrip(".")
    return text[:1].lower() + text[1:]


def gather(arguments: list[str]) -> list[str]:
    """Repeated list flags as one: `--law a --law b` becomes `--law a b`.

    Raises:
        ValueError: a list flag without a value, which would otherwise pass for an empty list.

    Example:
        >>> gather(["--law", "mass", "--steps", "5", "--law", "energy", "file.h5"])
        ['--steps', '5', 'file.h5', '--law', 'mass', 'energy']
    """
    rest: list[str] = []
    values: dict[str, list[str]] = {}
    i = 0
    while i < len(arguments):
        flag, equals, attached = arguments[i].partition("=")
        if flag not in _GATHERED:
            rest.append(arguments[i])
            i += 1
            continue
        taken = values.setdefault(flag, [])
        i += 1
        if equals:
            taken.append(attached)
            continue
        first = True
        while i < len(arguments) and not arguments[i].startswith("-") and (first or _belongs(flag, arguments[i])):
            taken.append(arguments[i])
            first = False
            i += 1
        if first:
            raise ValueError(f"{flag} expects a value; got none. Give one, or leave the flag out.")
        if flag != "--law" and "=" not in taken[-1]:
            raise ValueError(f"{flag} expects {_GATHERED[flag]} for each of its values; got '{taken[-1]}'.")
    return rest + [part for flag, parts in values.items() for part in (flag, *parts)]


def _belongs(flag: str, text: str) -> bool:
    """Whether a further word after a list flag is one of its values and not a positional argument."""
    return "=" in text if flag != "--law" else "/" not in text.partition(":")[0] and "." not in text.partition(":")[0]


def _fail(message: str) -> int:
    print(f"pcfm: {message}", file=sys.stderr)
    return 2


def entry() -> None:
    """The console script."""
    sys.exit(main())


if __name__ == "__main__":
    entry()
