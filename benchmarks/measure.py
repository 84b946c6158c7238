"""Ratios of two jobs measured side by side in one process."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Ratio:
    """A measured ratio and what it was hoped to be."""

    name: str
    median: float
    low: float
    high: float
    ours: float
    theirs: float
    goal: str
    met: bool


def clock(job: Callable[[], Any]) -> float:
    began = time.perf_counter()
    job()
    return time.perf_counter() - began


def ratio(
    name: str, ours: Callable[[], Any], theirs: Callable[[], Any], pairs: int, goal: float, *, at_least: bool = False, times: int = 1
) -> Ratio:
    """Time two jobs alternately, after one run of each to warm up.

    Arguments:
        at_least: form theirs / ours, to be large; else ours / theirs, to be small.
        times: how often `theirs` would have to run to do the work of one of `ours`: a loop over samples is timed on some of them.
    """
    ours(), theirs()
    measured = [(clock(ours), times * clock(theirs)) for _ in range(pairs)]
    quotients = sorted(b / a if at_least else a / b for a, b in measured)
    median = quotients[len(quotients) // 2]
    a, b = (sorted(side)[len(measured) // 2] for side in zip(*measured, strict=True))
    text = f"at least {goal:g}" if at_least else f"at most {goal:g}"
    return Ratio(name, median, quotients[0], quotients[-1], a, b, text, median >= goal if at_least else median <= goal)


def resident() -> int:
    """Memory of this process, bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class PeakMemory:
    """Largest resident memory while a block runs, sampled every millisecond."""

    def __enter__(self) -> PeakMemory:
        self.before = self.peak = resident()
        self._running = True
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._running = False
        self._thread.join()

    def _watch(self) -> None:
        while self._running:
            self.peak = max(self.peak, resident())
            time.sleep(0.001)
