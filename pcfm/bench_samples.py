"""Samples of one method, whatever becomes of some of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from constraints import Constraint
from pcfm.flow import Flow
from pcfm.generation import Samples, sample
from pcfm.methods import Setting, build, carrier


class Bar(Protocol):
    """Progress of long work."""

    def to(self, done: int, note: str = "") -> None: ...


class Silent:
    """Nobody watches."""

    def to(self, done: int, note: str = "") -> None:
        pass


@dataclass
class Drawn:
    """Samples of a method, NaN where it failed.

    Attributes:
        u: physical fields, (N, C, *N).
        failed: which samples failed, and why.
        parts: what was drawn, batch by batch.
        converged: which samples' certificates hold, (N,); None for methods without.
    """

    u: Tensor
    failed: list[dict[str, Any]]
    parts: list[Samples]
    converged: Tensor | None = None

    @property
    def laws(self) -> list[dict[str, Any]]:
        """Each law that was imposed, with its largest violation before and after the last projection, over all batches."""
        certified = [part.laws for part in self.parts if part.laws]
        return [
            {**rows[0], **{key: max(float(row[key]) for row in rows) for key in ("violation_before", "violation_after", "share")}}
            for rows in zip(*certified, strict=True)
        ]

    def cost(self, count: int, memory: int | None) -> dict[str, float | None]:
        """Time of a sample in ms, calls and projections of a trajectory, memory in MB."""
        batches = max(len(self.parts), 1)
        return {
            "milliseconds": 1e3 * sum(part.seconds for part in self.parts) / count,
            "network_calls": sum(part.network_calls for part in self.parts) / batches,
            "backward_calls": sum(part.backward_calls for part in self.parts) / batches,
            "projections": sum(part.projections for part in self.parts) / batches,
            "multiplier_solves": sum(part.multiplier_solves for part in self.parts) / batches,
            "added_memory": None if memory is None else memory / 1e6,
        }


def suits(method: str, flow: Flow, law: Constraint | None) -> None:
    """Check that a method can be built for a law.

    Raises:
        ValueError: it cannot, since it asks for an inequality, say, or for an equality.
    """
    base, velocity = carrier(flow, method, None)(flow.given())

    def none(shape: tuple[int, ...] = ()) -> Tensor:
        return torch.empty(0, *shape)

    build(method, Setting(base, velocity, flow.path, law, none, flow.source, none))


def draw(
    flow: Flow,
    method: str,
    law: Constraint | None,
    *,
    count: int,
    steps: int,
    batch: int,
    seed: int,
    dtype: torch.dtype = torch.float64,
    progress: Callable[[int], None] = lambda done: None,
) -> Drawn:
    """Samples in batches; of a batch that fails, one by one.

    Sample i is the same in a batch and alone, so that nothing but the failure is lost. A first call of one sample and two steps is not
    measured: what is loaded and planned then is no part of a method's time.

    Arguments:
        flow: what to sample.
        method: with options, as `sample` takes it.
        law: what is imposed, None for methods that take no law.
        count, steps, batch, seed, dtype: as `sample` takes them.
        progress: told the number of samples done after each batch.

    Raises:
        RuntimeError: none of the first samples can be drawn; it says why.
    """

    def piece(first: int, last: int, taken: int = steps) -> Samples:
        local = None if law is None else law.take(slice(first, last))
        return sample(flow, last - first, law=local, method=method, steps=taken, seed=seed, start=first, batch=last - first, dtype=dtype)

    _warm(piece)
    u = torch.full((count, len(flow.channels), *flow.grid.shape), torch.nan, dtype=dtype)
    converged = torch.zeros(count, dtype=torch.bool)
    failed: list[dict[str, Any]] = []
    causes: dict[int, str] = {}
    parts: list[Samples] = []
    for first in range(0, count, batch):
        last = min(first + batch, count)
        for begin, part in _delivered(piece, first, last, failed):
            end = begin + len(part.u)
            u[begin:end], converged[begin:end] = part.u.cpu(), part.converged.cpu()
            causes |= {begin + i: cause for i, cause in part.causes.items()}
            parts.append(part)
        if len(failed) == last:
            raise RuntimeError(failed[0]["reason"])
        progress(last)
    lost = ~torch.isfinite(u).flatten(1).all(1)
    known = {item["sample"] for item in failed}
    failed += [{"sample": i, "reason": causes.get(i, "NaN or Inf")} for i in lost.nonzero()[:, 0].tolist() if i not in known]
    certified = any(part.certificate for part in parts)
    return Drawn(u, sorted(failed, key=lambda item: item["sample"]), parts, converged & ~lost if certified else None)


def reason(error: Exception) -> str:
    """An error in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


Piece = Callable[..., Samples]


def _warm(piece: Piece) -> None:
    """Let what is loaded and planned at the first call not count as the time of a method."""
    try:
        piece(0, 1, 2)
    except Exception:  # the run itself will say so
        return


def _delivered(piece: Piece, first: int, last: int, failed: list[dict[str, Any]]) -> list[tuple[int, Samples]]:
    """Samples first .. last - 1 with where they begin, as one batch, or one by one if the batch fails; what fails is noted."""
    try:
        return [(first, piece(first, last))]
    except Exception as error:
        if last - first == 1:
            failed.append({"sample": first, "reason": reason(error)})
            return []
    return [found for i in range(first, last) for found in _delivered(piece, i, i + 1, failed)]
