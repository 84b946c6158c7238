"""Time steps of a simulation, told to whoever listens: one trajectory may take hours, and a solver does not know who waits for it.

Solvers call `took` after each step, problems that know their number call `expect` before the first. Nothing happens where no one listens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

Told = Callable[[int, int | None], None]
"""Told how many steps are done, and of how many, if that is known."""


@dataclass
class _Count:
    told: Told
    done: int = 0
    expected: int | None = None
    runs: int = 1


_COUNT: ContextVar[_Count | None] = ContextVar("steps", default=None)


@contextmanager
def listening(told: Told) -> Iterator[None]:
    """Hear of the steps of what is simulated within.

    Example:
        >>> with listening(lambda done, of: print(done, "of", of)):
        ...     expect(2)
        ...     took()
        1 of 2
    """
    token = _COUNT.set(_Count(told))
    try:
        yield
    finally:
        _COUNT.reset(token)


def expect(steps: int) -> None:
    """So many steps will be taken, in each run."""
    count = _COUNT.get()
    if count is not None:
        count.expected = steps * count.runs


def in_runs(runs: int) -> None:
    """What is listened to is so many runs of a solver alike, one after the other: said before the first of them."""
    count = _COUNT.get()
    if count is not None:
        count.runs = runs


def took() -> None:
    """A step is taken."""
    count = _COUNT.get()
    if count is not None:
        count.done += 1
        count.told(count.done, count.expected)
