r"""Extrapolation, correction, interpolation (ECI).

At each time t, K times: the state is extrapolated along the velocity, the endpoint corrected, and interpolated with noise $\epsilon$,

$$\hat x_1 = \mathrm{endpoint}(x, v(x, t)),\qquad x_1^\star = \Pi(\hat x_1),\qquad x \leftarrow \alpha x_1^\star + \sigma\epsilon,$$

back to t itself the first K - 1 times (mixing), to the next time at last. The noise is that of the start, drawn anew at every r-th of all
these turns. Without mixing and new noise this is physics-constrained flow matching.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from constraints import Constraint
from pcfm.path import Path
from pcfm.samplers.sampler import Memory, Projector, Sample, Sampler
from pcfm.velocity import Velocity


@dataclass(frozen=True)
class ECI(Sampler):
    """Extrapolate, correct, interpolate, mixed several times at each time.

    Attributes:
        velocity: the flow's velocity.
        path: its path.
        constraint: the law, on normalised fields.
        noise: fresh draws from the source.
        projector: counts the projections.
        memory: counts the turns, keeps the noise.
        mix: turns at each time, each of one network call and one projection.
        resample: new noise at every so manieth turn; 0 to keep that of the start.

    Raises:
        ValueError: an option out of its range.

    Source:
        Cheng et al., Gradient-free generation for hard-constrained systems, ICLR 2025, arXiv:2412.01786. Deviation: their corrections are
        closed forms for single linear laws, applied one after the other, so that with several laws the last one wins; here the projection
        on all of them, equal for a single law, which extends the method to curved laws and inequalities. The defaults are theirs for
        initial conditions; for boundary conditions they use mix=1,resample=5.
    """

    lawful: ClassVar[bool] = True
    ahead: ClassVar[bool] = True
    reference: ClassVar[str] = "Cheng et al., ICLR 2025, arXiv:2412.01786"

    velocity: Velocity
    path: Path
    constraint: Constraint
    noise: Callable[[], Tensor]
    projector: Projector = field(default_factory=Projector)
    memory: Memory = field(default_factory=Memory)
    mix: int = 5
    resample: int = 0

    def __post_init__(self) -> None:
        if self.mix < 1 or self.resample < 0:
            raise ValueError(f"ECI expects mix of at least 1 and resample not negative; got mix={self.mix}, resample={self.resample}.")

    def step(self, x: Tensor, t: Tensor, s: Tensor, x0: Tensor) -> Tensor:
        endpoint, noise = self._mixed(x, t, x0)
        return self.path.sample(noise, self.projector(self.constraint, endpoint).u, s).x_t

    def last(self, x: Tensor, t: Tensor, s: Tensor, x0: Tensor) -> Sample:
        return self.projector.sample(self.constraint, self._mixed(x, t, x0)[0])

    def _mixed(self, x: Tensor, t: Tensor, x0: Tensor) -> tuple[Tensor, Tensor]:
        """The endpoint of the last turn, before its correction, and the noise of that turn."""
        for turn in range(self.mix):
            noise = self._noise(x0)
            endpoint = self.path.endpoint(x, self.velocity(x, t), t)
            if turn < self.mix - 1:
                x = self.path.sample(noise, self.projector(self.constraint, endpoint).u, t).x_t
        return endpoint, noise

    def _noise(self, x0: Tensor) -> Tensor:
        """The noise of the next turn."""
        self.memory.count += 1
        if self.resample and self.memory.count % self.resample == 0:
            self.memory.value = self.noise()
        return x0 if self.memory.value is None else self.memory.value
