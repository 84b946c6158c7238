"""Many fields of a problem: in pieces of bounded size, by several processes, as shards of one data set.

Trajectories are drawn by their index, whoever draws them. Pieces hold whole companies of trajectories, so that none is simulated twice; a
shard is a range of such pieces, and the union of the shards is the data set that one machine would have made.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor

import torch

from pde_datasets.fields import Fields
from pde_datasets.problem import Problem
from pde_datasets.steps import Told, listening

_PIECE = 1 << 23
"""Values in a piece, about: 64 MiB of float64."""

_MOST = 256
"""Samples in a piece."""


def piece_size(problem: Problem) -> int:
    """Samples drawn at a time: whole companies of trajectories, of a moderate number of values."""
    company = problem.together * problem.snapshots
    values = len(problem.channels) * math.prod(problem.grid.shape)
    return max(1, min(_MOST, _PIECE // values) // company) * company


def shard(problem: Problem, count: int, number: int, shards: int) -> tuple[int, int]:
    """First and last (excluded) sample of a shard of `count` samples, numbered from 1; companies of trajectories are not torn apart.

    Raises:
        ValueError: no such shard, or more shards than companies of trajectories.

    Example:
        >>> from pde_datasets.problems import Heat
        >>> [shard(Heat(), 10, i, 3) for i in (1, 2, 3)]
        [(0, 3), (3, 7), (7, 10)]
    """
    company = problem.together * problem.snapshots
    companies = -(-count // company)
    if not 1 <= number <= shards:
        raise ValueError(f"a shard expects a number from 1 to {shards}; got {number}.")
    if shards > companies:
        raise ValueError(
            f"{count} samples of {problem.name} expect at most {companies} shards, since {company} of them are simulated together; "
            f"got {shards}."
        )
    ends = [min(count, round(i * companies / shards) * company) for i in (number - 1, number)]
    return ends[0], ends[1]


def produce(
    problem: Problem,
    first: int,
    last: int,
    *,
    seed: int = 0,
    workers: int = 1,
    device: str | torch.device = "cpu",
    told: Told = lambda done, of: None,
) -> Iterator[Fields]:
    """Samples first .. last - 1 of a seed, in order and in pieces.

    Arguments:
        problem: what to solve.
        seed: of the data set.
        workers: processes that draw; with one, this one draws.
        device: where to compute.
        told: hears of the time steps of each piece; with several workers, of none.
    """
    tasks = _tasks(first, last, piece_size(problem))
    if workers <= 1:
        for start, count in tasks:
            with listening(told):
                drawn = problem.draw(count, seed=seed, start=start, device=device)
            yield drawn
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_begin) as pool:
        waiting: deque[Future[Fields]] = deque()
        for start, count in tasks:
            waiting.append(pool.submit(_draw, problem, seed, start, count, str(device)))
            if len(waiting) > 2 * workers:  # no more than these are held in memory, however slow the disk is
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _tasks(first: int, last: int, size: int) -> Iterator[tuple[int, int]]:
    """First sample and number of each piece, one after the other: a list would grow with the count."""
    while first < last:
        stop = min(last, (first // size + 1) * size)
        yield first, stop - first
        first = stop


def _begin() -> None:
    """Of a worker: one thread, and no life without the process it works for, whose death by a signal no queue tells."""
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _draw(problem: Problem, seed: int, start: int, count: int, device: str) -> Fields:
    return problem.draw(count, seed=seed, start=start, device=device)
