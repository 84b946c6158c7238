r"""FlowDPS: the endpoint moved towards what was observed, its noise drawn anew in part.

State and velocity imply both ends of the path, $\hat x_1$ and $\hat x_0$. With $r_t = \alpha_t/(\alpha_t + \sigma_t)$, which is t on the
straight path, and moves $\bar x_1 \leftarrow \bar x_1 - \rho\,(\bar x_1 - \Pi(\bar x_1))$ from $\bar x_1 = \hat x_1$,

$$\tilde x_1 = r_t\,\hat x_1 + (1 - r_t)\,\bar x_1,\qquad
\tilde x_0 = \sqrt{1 - r_s}\,\hat x_0 + \sqrt{r_s}\,\epsilon,\qquad
x_s = \alpha_s\tilde x_1 + \sigma_s\tilde x_0.$$

$\Pi(x)$ is the nearest field to x that obeys the exact laws, less what noise explains: $\arg\min_u |u - x|^2 + |Hu - y|^2_{R^{-1}}$.
Without noise $x - \Pi(x) = H^+(Hx - y)$ is the gradient of half the squared misfit $|H^+(Hx - y)|$.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from constraints import Constraint
from pcfm.path import AffinePath, expect_affine
from pcfm.samplers.sampler import Projector, Sample, Sampler, ended
from pcfm.velocity import Velocity


@dataclass(frozen=True)
class FlowDPS(Sampler):
    """Move the endpoint towards the laws, the less the later; return with noise that is drawn anew in part, the more the later.

    Without moves and new noise it is the solver `exponential`, Euler's rule on straight paths. It samples no posterior, not even of
    Gaussian fields. The network is not differentiated.

    Attributes:
        velocity: the flow's velocity.
        path: its path.
        constraint: the law, on normalised fields, noisy or exact.
        noise: fresh draws from the source.
        projector: counts the projections.
        moves: of each endpoint, of one projection each.
        rate: rho, the share of the way to the projection.
        renoise: whether noise is drawn anew.
        final: whether a projection on the exact laws follows the last step.

    Raises:
        ValueError: an option out of its range, or a path that is not affine.

    Source:
        Kim, Kim & Ye, FlowDPS, ICCV 2025, arXiv:2503.08136. Deviations: fields in place of a latent space; the gradient of the squared
        misfit, which has the projection where its rate is 1, in place of three steps down the misfit itself at a rate tuned to images;
        r in place of t on paths that are not straight; a last projection, unless `final` is off.
    """

    lawful: ClassVar[bool] = True
    reference: ClassVar[str] = "Kim et al., ICCV 2025, arXiv:2503.08136"

    velocity: Velocity
    path: AffinePath
    constraint: Constraint
    noise: Callable[[], Tensor]
    projector: Projector = field(default_factory=Projector)
    moves: int = 1
    rate: float = 1.0
    renoise: bool = True
    final: bool = True

    def __post_init__(self) -> None:
        if self.moves < 0 or not 0 < self.rate < 2:
            raise ValueError(f"FlowDPS expects moves not to be negative and a rate in (0, 2); got {self.moves} and {self.rate}.")
        expect_affine(self.path, "FlowDPS")

    def idle(self) -> dict[str, str]:
        return super().idle() | ({} if self.moves else {"rate": "moves=0"})

    def step(self, x: Tensor, t: Tensor, s: Tensor, x0: Tensor) -> Tensor:
        velocity = self.velocity(x, t)
        origin, fresh = self.path.origin(x, velocity, t), self.path.schedule(s).share
        if self.renoise:
            origin = (1 - fresh).sqrt() * origin + fresh.sqrt() * self.noise()
        return self.path.sample(origin, self._moved(x, velocity, t), s).x_t

    def last(self, x: Tensor, t: Tensor, s: Tensor, x0: Tensor) -> Sample:
        """The last endpoint as it was moved, projected on the exact laws."""
        return ended(self.projector, self.constraint, self._moved(x, self.velocity(x, t), t), self.final)

    def _moved(self, x: Tensor, velocity: Tensor, t: Tensor) -> Tensor:
        seen = endpoint = self.path.endpoint(x, velocity, t)
        for _ in range(self.moves):
            seen = seen + self.rate * (self.projector(self.constraint, seen).u - seen)
        return endpoint + (1 - self.path.schedule(t).share) * (seen - endpoint)
