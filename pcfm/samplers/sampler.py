"""What it takes to be a sampler."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from torch import Tensor

from constraints import ProjectionResult


class Sample(NamedTuple):
    """Normalised fields at t = 1; if they were projected last, what they were before, and the certificate."""

    x: Tensor
    before: Tensor | None = None
    projection: ProjectionResult | None = None


class Sampler(ABC):
    """Steps from one flow time to the next, samples independent of each other."""

    @abstractmethod
    def step(self, x: Tensor, t: Tensor, s: Tensor, x0: Tensor) -> Tensor:
        """The state at time s from that at time t, for a trajectory that began at x0."""

    def iterate(self, x0: Tensor, times: Tensor) -> Iterator[Tensor]:
        """Every state, the first included."""
        x = x0
        yield x
        for t, s in pairwise(times):
            x = self.step(x, t, s, x0)
            yield x

    def sample(self, x0: Tensor, times: Tensor) -> Sample:
        """The last state with its certificate."""
        x = x0
        for state in self.iterate(x0, times):
            x = state
        return Sample(x)

    def __call__(self, x0: Tensor, times: Tensor) -> Tensor:
        """The last state."""
        return self.sample(x0, times).x
