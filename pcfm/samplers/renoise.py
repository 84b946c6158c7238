r"""Samplers that return to a noise level by fresh noise: forget the state, keep the endpoint it was heading for.

$$x_s \leftarrow \alpha_s \hat x_1 + \sigma_s\epsilon,\qquad \hat x_1 = \mathrm{endpoint}(x, v).$$

* `PredictProjectRenoise` projects the endpoint before, at each level, several times: the kernel whose stationary distribution the
  constrained marginal would be if the endpoint were a draw of $x_1$ given x; the mean in its place loses variance where noise is large.
* `Renoise` does it early in an unconstrained flow, where the network knows little yet.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from constraints import Constraint
from pcfm.path import Path
from pcfm.samplers.sampler import Projector, Sample, Sampler
from pcfm.velocity import Velocity


@dataclass(frozen=True)
class PredictProjectRenoise(Sampler):
    """A step of the flow, then at the new noise level: predict the endpoint, project it, renoise, several times.

    Attributes:
        base: the solver of the steps.
        velocity: the flow's velocity.
        path: its path.
        constraint: the law, on normalised fields.
        noise: fresh draws from the source.
        projector: counts the projections.
        inner: corrections at each level, each of one network call and one projection.

    Raises:
        ValueError: an option out of its range.

    Source:
        Rochman-Sharabi & Louppe, Predict-project-renoise, arXiv:2601.21033; two corrections a level as in their experiments. Deviation:
        theirs projects through the denoiser, by steps that differentiate it; here the endpoint itself is projected, on any law, exactly,
        without derivatives of the network.
    """

    lawful: ClassVar[bool] = True
    ahead: ClassVar[bool] = True
    reference: ClassVar[str] = "Rochman-Sharabi & Louppe, arXiv:2601.21033"

    base: Sampler
    velocity: Velocity
    path: Path
    constraint: Constraint
    noise: Callable[[], Tensor]
    projector: Projector = field(default_factory=Projector)
    inner: int = 2

    def __post_init__(self) -> None:
        if self.inner < 0:
            raise ValueError(f"PPR expects inner not to be negative; got {self.inner}.")

    def step(self, x: Tensor, t: Tensor, s: Tensor, x0: Tensor) -> Tensor:
        x = self.base.step(x, t, s, x0)
        for _ in range(self.inner):
            endpoint = self.path.endpoint(x, self.velocity(x, s), s)
            x = self.path.sample(self.noise(), self.projector(self.constraint, endpoint).u, s).x_t
        return x

    def last(self, x: Tensor, t: Tensor, s: Tensor, x0: Tensor) -> Sample:
        return self.projector.sample(self.constraint, self.base.step(x, t, s, x0))


@dataclass(frozen=True)
class Renoise(Sampler):
    """The flow alone, with fresh noise at each step of an early stretch.

    Attributes:
        base: the solver of the later steps.
        velocity: the flow's velocity.
        path: its path.
        noise: fresh draws from the source.
        until: flow time up to which steps renoise; 0 for never, 1 for always but at the last step.

    Raises:
        ValueError: an option out of its range.

    Source:
        Baldan et al., Physics-based flow matching, arXiv:2506.08604, the stochastic variant of their sampler, with their threshold.
    """

    ahead: ClassVar[bool] = True
    reference: ClassVar[str] = "Baldan et al., ICLR 2026, arXiv:2506.08604"

    base: Sampler
    velocity: Velocity
    path: Path
    noise: Callable[[], Tensor]
    until: float = 0.2

    def __post_init__(self) -> None:
        if not 0 <= self.until <= 1:
            raise ValueError(f"PBFM's sampler expects until in [0, 1]; got {self.until}.")

    def step(self, x: Tensor, t: Tensor, s: Tensor, x0: Tensor) -> Tensor:
        if float(t) >= self.until or float(s) >= 1:
            return self.base.step(x, t, s, x0)
        return self.path.sample(self.noise(), self.path.endpoint(x, self.velocity(x, t), t), s).x_t


@dataclass(frozen=True)
class ProjectedRenoise(Sampler):
    """The flow with fresh noise early on, then the nearest lawful field, once.

    Attributes:
        base: the solver of the later steps.
        velocity: the flow's velocity.
        path: its path.
        constraint: the law, on normalised fields.
        noise: fresh draws from the source.
        projector: counts the projections.
        until: as of `Renoise`.
    """

    lawful: ClassVar[bool] = True
    ahead: ClassVar[bool] = True
    reference: ClassVar[str] = Renoise.reference

    base: Sampler
    velocity: Velocity
    path: Path
    constraint: Constraint
    noise: Callable[[], Tensor]
    projector: Projector = field(default_factory=Projector)
    until: float = 0.2

    def __post_init__(self) -> None:
        self._flow()

    def _flow(self) -> Renoise:
        return Renoise(self.base, self.velocity, self.path, self.noise, self.until)

    def step(self, x: Tensor, t: Tensor, s: Tensor, x0: Tensor) -> Tensor:
        return self._flow().step(x, t, s, x0)

    def last(self, x: Tensor, t: Tensor, s: Tensor, x0: Tensor) -> Sample:
        return self.projector.sample(self.constraint, self._flow().step(x, t, s, x0))
