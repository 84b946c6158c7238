r"""Sampling under laws with any solver, on any schedule of projections, that leaves alone what the laws leave alone.

A step of a solver goes from $x_t$ to $x_s$; the path through both has the ends

$$x_t = \alpha_t \hat x_1 + \sigma_t \hat x_0,\qquad x_s = \alpha_s \hat x_1 + \sigma_s \hat x_0 .$$

The endpoint is replaced by the nearest field that obeys the convex laws, the origin is kept,

$$x_s \leftarrow \alpha_s\,\Pi(\hat x_1) + \sigma_s\hat x_0,$$

so that the step is the solver's own, to its order, where the law changes nothing. For Euler's rule the ends are those that state and
velocity imply. Convex laws hold at every step, for the endpoint is a mean of lawful fields and a mean keeps them; curved laws, which a
mean does not keep, hold at the last step. Where the law is active the state follows it with a lag of one step: the whole is of order 1.

Which steps project is a schedule: every k-th, from some time on, or where an endpoint breaks a law by more than a fraction of the
law's scale. The last step always does.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from constraints import Constraint, Intersection
from pcfm.path import Path
from pcfm.samplers.ode import Euler
from pcfm.samplers.sampler import Memory, Projector, Sample, Sampler
from pcfm.velocity import Velocity


@dataclass(frozen=True)
class ConsistentFlow(Sampler):
    """Extrapolate, project on the convex laws, return from the implied noise; project on all laws at the last step.

    Attributes:
        velocity: the flow's velocity.
        path: its path.
        constraint: the law, on normalised fields.
        projector: counts the projections.
        base: the solver of the steps; Euler by default.
        memory: counts the steps.
        every: project at every so manieth step only.
        since: project from this flow time on only.
        defect: project only samples whose endpoint breaks a convex law by more than this fraction of the law's scale; each sample is
            judged by itself, a projection is saved where none needs it.

    Raises:
        ValueError: an option out of its range.

    Source:
        The schedules: Trupin & Xue, Enforcing constraints in generative sampling via adaptive correction scheduling, arXiv:2605.11214,
        who spend a given number of projections where the defect of one step is largest; here a threshold decides, which needs no pass
        ahead and treats samples independently.
    """

    lawful: ClassVar[bool] = True
    ahead: ClassVar[bool] = True
    reference: ClassVar[str] = "this project"

    velocity: Velocity
    path: Path
    constraint: Constraint
    projector: Projector = field(default_factory=Projector)
    base: Sampler | None = None
    memory: Memory = field(default_factory=Memory)
    every: int = 1
    since: float = 0.0
    defect: float = 0.0

    def __post_init__(self) -> None:
        if self.every < 1 or not 0 <= self.since <= 1 or not self.defect >= 0:
            raise ValueError(
                "pcfm-consistent expects every of at least 1, since in [0, 1] and a defect that is not negative; "
                f"got every={self.every}, since={self.since}, defect={self.defect}."
            )

    @cached_property
    def convex(self) -> Constraint | None:
        """The convex laws among all, linear ones and bounds, None if there are none."""
        laws = [leaf for leaf in self.constraint.leaves() if leaf.convex]
        return Intersection(*laws) if laws else None

    def step(self, x: Tensor, t: Tensor, s: Tensor, x0: Tensor) -> Tensor:
        self.memory.count += 1
        end, origin = self._ends(x, t, s)
        if self.convex is not None and self.memory.count % self.every == 0 and float(t) >= self.since:
            end = self._lawful(self.convex, end)
        return self.path.sample(origin, end, s).x_t

    def last(self, x: Tensor, t: Tensor, s: Tensor, x0: Tensor) -> Sample:
        """The nearest lawful field to the last endpoint."""
        return self.projector.sample(self.constraint, self._ends(x, t, s)[0])

    def _ends(self, x: Tensor, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """Both ends of the path that the solver follows."""
        if self.base is not None and not isinstance(self.base, Euler):
            return self.path.ends(x, self.base.step(x, t, s, x), t, s)
        velocity = self.velocity(x, t)
        return self.path.endpoint(x, velocity, t), self.path.origin(x, velocity, t)

    def _lawful(self, law: Constraint, end: Tensor) -> Tensor:
        """The endpoints, those that need it projected."""
        if not self.defect:
            return self.projector(law, end).u
        measured = [(leaf, *leaf.measure(end)) for leaf in law.leaves()]
        broken = torch.stack([(leaf.excess(residual) > self.defect * scale).any(1) for leaf, residual, scale in measured]).any(0)
        if not broken.any():
            return end
        return torch.where(broken.reshape(-1, *(1,) * (end.ndim - 1)), self.projector(law, end).u, end)
