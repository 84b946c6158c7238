r"""Sampling along a law: the velocity without its part across it,

$$\dot x = (I - J^\top(JJ^\top)^{+}J)\,v(x, t),\qquad J = \nabla h(p),$$

with p the endpoint that the flow is heading for, or the state. A linear law's rows then keep the values they had in the noise, whatever
solver integrates; they are what they should be throughout if the noise is made lawful first. The last state is projected.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from torch import Tensor

from constraints import Constraint
from constraints.newton import tangent
from pcfm.path import Path
from pcfm.samplers.sampler import Memory, Projector, Sample, Sampler, unprojected
from pcfm.velocity import Velocity

PLACES = ("endpoint", "state")
"""Where the law is linearised."""


@dataclass(frozen=True)
class TangentFlow(Sampler):
    """The flow with its velocity projected on the tangent space of the law, then the nearest lawful field.

    Attributes:
        base: the solver, of a velocity of its own.
        velocity: the flow's velocity.
        path: its path.
        constraint: the law, on normalised fields.
        projector: counts the projections.
        memory: counts the steps.
        at: where the law is linearised, one of `PLACES`.
        lawful_noise: whether trajectories begin at the lawful field nearest to their noise.
        final: whether the last state is projected.

    Raises:
        ValueError: an option out of its range, or a solver that has no velocity of its own.

    Source:
        Project-and-generate variants for linear laws, arXiv:2603.24500, project noise and velocity both (lawful_noise=true).
    """

    lawful: ClassVar[bool] = True
    reference: ClassVar[str] = "tangent-space projection"

    base: Any
    velocity: Velocity
    path: Path
    constraint: Constraint
    projector: Projector = field(default_factory=Projector)
    memory: Memory = field(default_factory=Memory)
    at: str = "endpoint"
    lawful_noise: bool = False
    final: bool = True

    def __post_init__(self) -> None:
        if self.at not in PLACES:
            raise ValueError(f"the tangent flow expects to linearise at one of {', '.join(PLACES)}; got '{self.at}'.")

    def step(self, x: Tensor, t: Tensor, s: Tensor, x0: Tensor) -> Tensor:
        if self.lawful_noise and self.memory.count == 0:
            x = self.projector(self.constraint, x).u
        self.memory.count += 1
        solver: Sampler = replace(self.base, velocity=self._along)
        return solver.step(x, t, s, x0)

    def last(self, x: Tensor, t: Tensor, s: Tensor, x0: Tensor) -> Sample:
        end = self.step(x, t, s, x0)
        return self.projector.sample(self.constraint, end) if self.final else unprojected(self.constraint, end)

    def _along(self, x: Tensor, t: Tensor) -> Tensor:
        """The velocity along the law."""
        velocity = self.velocity(x, t)
        place = x if self.at == "state" else self.path.endpoint(x, velocity, t)
        return tangent(self.constraint, place, velocity)
