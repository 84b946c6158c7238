r"""PnP-Flow: steps towards what was observed, each followed by denoising with the flow.

The state is an estimate x of $x_1$. With $r_t = \alpha_t/(\alpha_t + \sigma_t)$, which is t on the straight path, a step at time t is

$$z = x - \rho\,(1 - r_t)^a\,(x - \Pi(x)),\qquad
x \leftarrow \frac1n\sum_{i=1}^n D_t(\alpha_t z + \sigma_t\epsilon_i),\qquad
D_t(x_t) = \mathrm{endpoint}(x_t, v(x_t, t)) = \mathbb E[x_1 \mid x_t].$$

$\Pi(x)$ is the nearest field to x that obeys the exact laws, less what noise explains: $\arg\min_u |u - x|^2 + |Hu - y|^2_{R^{-1}}$. Of
exact values at points, and of any orthonormal rows, $x - \Pi(x) = H^\top(Hx - y)$ is the published move.

Late steps are those of Langevin's equation at a lower temperature, $x \leftarrow x + h\nabla\log p_1 + (h/n)^{1/2}\epsilon$ with
$h = (1 - r_t)^2$: of the variance that the law leaves to Gaussian fields, $1/2n$ is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from constraints import Constraint
from pcfm.path import AffinePath, expect_affine
from pcfm.samplers.sampler import Projector, Sample, Sampler, ended
from pcfm.velocity import Velocity


@dataclass(frozen=True)
class PnPFlow(Sampler):
    """Step towards the laws, add noise, denoise with the flow: an estimate of one field, not a sample of the posterior.

    For Gaussian fields its mean tends to that of the posterior as steps get many, where the noise of the observations is small and `power`
    below 2. Late steps weigh observations more than their noise says: where it is not small, it is fitted. The network is not
    differentiated.

    Attributes:
        velocity: the flow's velocity.
        path: its path.
        constraint: the law, on normalised fields, noisy or exact.
        noise: fresh draws from the source.
        projector: counts the projections.
        rate: rho, the share of the way to the projection at t = 0.
        power: a, by which that share falls.
        average: n, denoised draws that are averaged, of one network call each.
        final: whether a projection on the exact laws follows the last step.

    Raises:
        ValueError: an option out of its range, or a path that is not affine.

    Source:
        Martin, Gagneux, Hagemann & Steidl, PnP-Flow, ICLR 2025, arXiv:2410.02423; the defaults are those of the authors' code. Deviations:
        the projector's move in place of the gradient, so that rows of any size and curved laws do not need a rate of their own; r in
        place of t on paths that are not straight; a start from noise, which the first step forgets; a last projection, unless `final` is
        off.
    """

    lawful: ClassVar[bool] = True
    reference: ClassVar[str] = "Martin et al., ICLR 2025, arXiv:2410.02423"

    velocity: Velocity
    path: AffinePath
    constraint: Constraint
    noise: Callable[[], Tensor]
    projector: Projector = field(default_factory=Projector)
    rate: float = 1.0
    power: float = 0.5
    average: int = 5
    final: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.rate < 2 or not self.power >= 0 or self.average < 1:
            raise ValueError(
                "PnP-Flow expects a rate in (0, 2), a power that is not negative and an average of at least 1; got "
                f"rate={self.rate}, power={self.power}, average={self.average}."
            )
        expect_affine(self.path, "PnP-Flow")

    def first(self, x0: Tensor) -> Tensor:
        """The first estimate, which counts only where the path holds a signal at t = 0."""
        return x0

    def step(self, x: Tensor, t: Tensor, s: Tensor, x0: Tensor) -> Tensor:
        share = self.rate * (1 - self.path.schedule(t).share) ** self.power
        towards = x + share * (self.projector(self.constraint, x).u - x)
        return torch.stack([self._denoised(towards, t) for _ in range(self.average)]).mean(0)

    def last(self, x: Tensor, t: Tensor, s: Tensor, x0: Tensor) -> Sample:
        """The last estimate, projected on the exact laws."""
        return ended(self.projector, self.constraint, self.step(x, t, s, x0), self.final)

    def _denoised(self, x1: Tensor, t: Tensor) -> Tensor:
        x_t = self.path.sample(self.noise(), x1, t).x_t
        return self.path.endpoint(x_t, self.velocity(x_t, t), t)
