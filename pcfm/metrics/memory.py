"""The memory that a computation takes, from its own start on."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass
class Memory:
    """What a computation takes at most, beyond what was held before.

    Attributes:
        added: bytes, filled in at the end: resident memory of the process, or memory of the accelerator; None where the system does
            not say.
    """

    added: int | None = None


@contextmanager
def watch_memory(device: torch.device | str = "cpu") -> Iterator[Memory]:
    """Measure what a block takes at most.

    On a CUDA device what torch allocates there; else the resident memory of the process, whose high-water mark Linux lets one reset.
    Memory that earlier work has freed but the allocator kept counts as held before, so that small numbers are lower bounds.

    Example:
        >>> with watch_memory() as memory:
        ...     numbers = torch.ones(2**23, dtype=torch.float64)
        >>> memory.added is None or memory.added > 2**25
        True
    """
    memory, device = Memory(), torch.device(device)
    gc.collect(1)  # all generations would take longer than many a block
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield memory
        torch.cuda.synchronize(device)
        memory.added = torch.cuda.max_memory_allocated(device) - before
        return
    held = _reset()
    yield memory
    peak = _resident("VmHWM")
    memory.added = None if held is None or peak is None else max(0, peak - held)


def _reset() -> int | None:
    """Let the high-water mark begin at what is held now, in bytes; None where that cannot be done."""
    if not sys.platform.startswith("linux"):
        return None
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    try:
        _CLEAR.write_text("5")
    except OSError:
        return None
    return _resident("VmRSS")


def _resident(entry: str) -> int | None:
    """An entry of the process's status, in bytes."""
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{entry}:")), None)
