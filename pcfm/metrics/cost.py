"""What a computation costs: time, memory, network calls, projections."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Cost:
    """What a computation cost.

    Attributes:
        seconds: wall time.
        cpu_seconds: processor time of all threads of this process, without its children.
        peak_memory_bytes: largest resident memory of the process since it started, not of the measured part alone (`ru_maxrss`); no
            accelerator memory; None where the system does not say.
        network_calls: evaluations of the network, each of a whole batch.
        projections: calls of `project`, each of a whole batch.
        multiplier_solves: solves for multipliers within them, the sum of `ProjectionResult.iterations`.
    """

    seconds: float
    cpu_seconds: float
    peak_memory_bytes: int | None
    network_calls: int = 0
    projections: int = 0
    multiplier_solves: int = 0


class Meter:
    """Counts that whoever computes adds to, and the cost so far.

    Attributes:
        network_calls, projections, multiplier_solves: as in `Cost`.
    """

    def __init__(self) -> None:
        self.network_calls = self.projections = self.multiplier_solves = 0
        self._started = _clocks()
        self._stopped: tuple[float, float, int | None] | None = None

    def stop(self) -> None:
        """Stop the clocks; the counts may still be filled in."""
        self._stopped = (*_clocks(), peak_memory())

    @property
    def cost(self) -> Cost:
        """The cost from the start to the stop, or to now."""
        seconds, cpu_seconds, memory = self._stopped or (*_clocks(), peak_memory())
        return Cost(
            seconds=seconds - self._started[0],
            cpu_seconds=cpu_seconds - self._started[1],
            peak_memory_bytes=memory,
            network_calls=self.network_calls,
            projections=self.projections,
            multiplier_solves=self.multiplier_solves,
        )


@contextmanager
def measure() -> Iterator[Meter]:
    """Measure what a block costs, also when it fails.

    Queued work of a CUDA device is waited for at both ends.

    Example:
        >>> with measure() as meter:
        ...     total = sum(range(1000))
        ...     meter.projections += 1
        >>> meter.cost.seconds > 0, meter.cost.projections
        (True, 1)
    """
    meter = Meter()
    try:
        yield meter
    finally:
        meter.stop()


def peak_memory() -> int | None:
    """Largest resident memory of the process since it started, in bytes; None where the system does not say."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak) if sys.platform == "darwin" else 1024 * int(peak)


def _clocks() -> tuple[float, float]:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter(), time.process_time()
