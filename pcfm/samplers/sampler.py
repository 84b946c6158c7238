"""What it takes to be a sampler."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from constraints import Constraint, Intersection, ProjectionResult, project
from constraints.newton import certified
from pcfm.guard import NOBODY, Watch
from pcfm.path import broadcast, expect_flow_times


class Sample(NamedTuple):
    """Normalised fields at t = 1; if they were projected last, what they were before, and the certificate."""

    x: Tensor
    before: Tensor | None = None
    projection: ProjectionResult | None = None


@dataclass
class Projector:
    """`project`, counted. Fields that are not finite come back as NaN, and do not cost the others.

    Attributes:
        projections: calls so far.
        solves: solves for multipliers in them.
    """

    projections: int = 0
    solves: int = 0

    def __call__(self, constraint: Constraint, x1: Tensor) -> ProjectionResult:
        result = project(constraint, x1) if bool(torch.isfinite(x1.sum())) else _sound_projection(constraint, x1)
        self.count(result.iterations)
        return result

    def count(self, solves: int) -> None:
        """One more projection, of so many solves."""
        self.projections, self.solves = self.projections + 1, self.solves + solves

    def sample(self, constraint: Constraint, x1: Tensor) -> Sample:
        """The nearest lawful fields to x1, with their certificate."""
        projection = self(constraint, x1)
        return Sample(projection.u, x1, projection)


def _sound_projection(constraint: Constraint, x1: Tensor) -> ProjectionResult:
    """The projection of the finite fields; NaN, and not converged, for the others."""
    sound = torch.isfinite(x1).flatten(1).all(1)
    result = project(constraint, torch.where(broadcast(sound, x1), x1, torch.zeros_like(x1)))
    u = torch.where(broadcast(sound, x1), result.u, torch.nan)
    return result._replace(u=u, converged=result.converged & sound, obeyed=result.obeyed & sound[:, None])


def unprojected(constraint: Constraint, x: Tensor) -> Sample:
    """Fields as they are, with the certificate of what they break."""
    return Sample(x, x, certified(constraint, x, x))


def ended(projector: Projector, constraint: Constraint, x: Tensor, final: bool = True) -> Sample:
    """The end of a sampler that has accounted for observations with noise: exact laws alone are projected on, or none unless `final`."""
    exact = [leaf for leaf in constraint.leaves() if leaf.variance is None]
    if not exact:
        none, free = x.new_zeros(len(x)), torch.ones(len(x), dtype=torch.bool, device=x.device)
        return Sample(x, x, ProjectionResult(x, x.new_zeros(len(x), 0), none, none, free, 0, none, free.new_ones(len(x), 0), ()))
    law = exact[0] if len(exact) == 1 else Intersection(*exact)
    return projector.sample(law, x) if final else unprojected(law, x)


def expect_steps(times: Tensor) -> None:
    """Check the times of a trajectory.

    Raises:
        ValueError: less than two, or times that decrease or leave [0, 1].
    """
    if times.ndim != 1 or len(times) < 2:
        raise ValueError(f"a sampler expects a row of at least two times, one step; got times of shape {tuple(times.shape)}.")
    known = times.detach().cpu()
    expect_flow_times(known)
    if not bool((known.diff() >= 0).all()):
        raise ValueError(
            f"a sampler expects times that never decrease, from noise at 0 to data at 1; got {[round(v, 4) for v in known.tolist()]}."
        )


@dataclass
class Memory:
    """What a trajectory carries from step to step besides its state.

    Attributes:
        count: steps or calls so far.
        value: a noise, multipliers, ...
    """

    count: int = 0
    value: Tensor | None = None

    def clear(self) -> None:
        """Forget."""
        self.count, self.value = 0, None


class Sampler(ABC):
    """Steps from one flow time to the next, samples independent of each other.

    Subclasses are frozen dataclasses. What `pcfm.methods` gives them has the names velocity, path, base (an unconstrained sampler),
    constraint (the law, on normalised fields) and noise (fresh draws from the source); every other attribute with a default is an
    option that the command line sets.

    Attributes:
        lawful: whether it takes a law.
        ahead: whether all it takes of the velocity is the endpoint that it leads to, so that a flow map's own may take its place.
        reference: paper that the method is from.
        order: of a step; None where tolerances decide.
        projector: counts the projections of lawful samplers, None for the others.
        memory: of samplers that carry more than the state, None for the others; cleared where a trajectory begins.
    """

    lawful: ClassVar[bool] = False
    ahead: ClassVar[bool] = False
    reference: ClassVar[str] = ""
    order: ClassVar[int | None] = 1
    projector: Projector | None = None
    memory: Memory | None = None

    def begin(self) -> None:
        """Forget the last trajectory."""
        if self.memory is not None:
            self.memory.clear()

    def first(self, x0: Tensor) -> Tensor:
        """The state at the first time of a trajectory from x0: x0 itself, but for paths that scale it; solvers alone know no path."""
        path = getattr(self, "path", None)
        return x0 if path is None else path.start(x0)

    def scores(self) -> bool:
        """Whether it takes scores from velocities, which asks for noise that is independent of the data."""
        return False

    def idle(self) -> dict[str, str]:
        """Options that change nothing as it is set, each with the reason; "solver" is among them where it has steps of its own."""
        return {} if hasattr(self, "base") else {"solver": "it has steps of its own"}

    @abstractmethod
    def step(self, x: Tensor, t: Tensor, s: Tensor, x0: Tensor) -> Tensor:
        """The state at time s from that at time t, for a trajectory that began at x0."""

    def last(self, x: Tensor, t: Tensor, s: Tensor, x0: Tensor) -> Sample:
        """The sample, from the state before the last step."""
        return Sample(self.step(x, t, s, x0))

    def iterate(self, x0: Tensor, times: Tensor) -> Iterator[Tensor]:
        """Every state, the first included."""
        expect_steps(times)
        self.begin()
        x = self.first(x0)
        yield x
        for t, s in pairwise(times):
            x = self.step(x, t, s, x0)
            yield x

    def sample(self, x0: Tensor, times: Tensor, watch: Watch = NOBODY) -> Sample:
        """The last state with its certificate.

        Arguments:
            x0: draws from the source, (B, C, *N).
            times: increasing flow times, 0 to 1.
            watch: sees the state after each step but the last, and may mend it.

        Raises:
            ValueError: less than two times, or times that decrease or leave [0, 1].
        """
        expect_steps(times)
        self.begin()
        x = self.first(x0)
        for t, s in pairwise(times[:-1]):
            x = watch.state(self.step(x, t, s, x0), s)
        sample = self.last(x, times[-2], times[-1], x0)
        watch.done(1.0)
        return sample

    def __call__(self, x0: Tensor, times: Tensor) -> Tensor:
        """The last state."""
        return self.sample(x0, times).x
