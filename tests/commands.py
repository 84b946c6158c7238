"""Running the command line within a test."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from typing import Any, NamedTuple

from pcfm.cli import main


class Ran(NamedTuple):
    """What a command came to."""

    status: int
    out: str
    err: str

    def json(self) -> dict[str, Any]:
        """Standard output as the one JSON document it has to be."""
        document: dict[str, Any] = json.loads(self.out)
        return document


Call = Callable[[str], Ran]


def start(command: str) -> int:
    """Run a command line in this process; its exit status."""
    try:
        return main(shlex.split(command))
    except SystemExit as stopped:
        return int(stopped.code or 0)
