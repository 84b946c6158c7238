r"""Sampling under laws: projection of the point that the flow is heading for.

At each step of `ProjectedFlow` the velocity is followed to its endpoint $\hat x_1$, the endpoint is replaced by the nearest lawful
field, and the state returns to the next time along the path from the same noise,

$$\hat x_1 = \mathrm{endpoint}(x_t, v(x_t, t), t),\qquad x_1^\star = \Pi_h(\hat x_1),\qquad x_s = \alpha_s x_1^\star + \sigma_s x_0 .$$

The last step ends on $x_1^\star$ itself: samples obey to round-off.

Source:
    Utkarsh et al., Physics-constrained flow matching, NeurIPS 2025, arXiv:2506.04171, algorithm 1. Deviations: the projection is
    converged, to the nearest point (theirs is one Gauss-Newton step); there is no relaxed correction after the return (their lambda = 0,
    the setting of most of their experiments); the projection of the last step takes the place of their separate final one.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from constraints import Constraint, project
from pcfm.path import Path
from pcfm.samplers.sampler import Sample, Sampler
from pcfm.velocity import Velocity


def projected(constraint: Constraint, x1: Tensor) -> Sample:
    """The nearest lawful fields to x1, with their certificate."""
    projection = project(constraint, x1)
    return Sample(projection.u, x1, projection)


@dataclass(frozen=True)
class ProjectedFlow(Sampler):
    """Extrapolate, project, return along the path: physics-constrained flow matching.

    Attributes:
        velocity: the flow's velocity.
        path: its path.
        constraint: the law, on normalised fields.
    """

    velocity: Velocity
    path: Path
    constraint: Constraint

    def endpoint(self, x: Tensor, t: Tensor) -> Tensor:
        """The endpoint that the velocity points at."""
        return self.path.endpoint(x, self.velocity(x, t), t)

    def step(self, x: Tensor, t: Tensor, s: Tensor, x0: Tensor) -> Tensor:
        return self.path.sample(x0, project(self.constraint, self.endpoint(x, t)).u, s).x_t

    def sample(self, x0: Tensor, times: Tensor) -> Sample:
        x = x0
        for state in self.iterate(x0, times[:-1]):
            x = state
        return projected(self.constraint, self.endpoint(x, times[-2]))


@dataclass(frozen=True)
class ProjectedEnd(Sampler):
    """An unconstrained sampler whose result is projected once, at t = 1.

    Attributes:
        base: the unconstrained sampler.
        constraint: the law, on normalised fields.
    """

    base: Sampler
    constraint: Constraint

    def step(self, x: Tensor, t: Tensor, s: Tensor, x0: Tensor) -> Tensor:
        return self.base.step(x, t, s, x0)

    def sample(self, x0: Tensor, times: Tensor) -> Sample:
        return projected(self.constraint, self.base.sample(x0, times).x)
