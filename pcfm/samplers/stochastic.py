r"""Sampling a flow by a stochastic differential equation of the same marginals.

With $\hat x_0 = \mathrm E[x_0|x_t]$ the noise that state and velocity imply, and $\Sigma$ the covariance of the source, the score is
$\Sigma\nabla\log p_t = -\hat x_0/\sigma_t$, and

$$dx = \left(v - \frac{w_t}{2\sigma_t}\,\hat x_0\right)dt + \sqrt{w_t}\,\Sigma^{1/2}dW$$

has the marginals of $\dot x = v$ for any $w_t \ge 0$, the strength of the noise:
`sigma` $2\eta\sigma_t$, finite drift at both ends; `constant` $\eta$; `path` $2\eta\,\sigma_t\delta_t/\alpha_t$, the diffusion whose
reverse the path is; `vanishing` $2\eta\,\sigma_t/(t + 0.01)$, more noise early. In a step of length h it is held at $\sigma_t^2/h$ at
most, where the drift would overshoot; any strength has the same marginals. What is added is made of the source's own draws, so that
$\Sigma$ never appears. The last step adds no noise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pcfm.path import AffinePath, BridgePath, expect_affine
from pcfm.samplers.sampler import Sample, Sampler
from pcfm.schedule import Scales
from pcfm.velocity import Velocity

STRENGTHS: dict[str, Callable[[Scales, Tensor], Tensor]] = {
    "sigma": lambda at, t: 2 * at.noise,
    "constant": lambda at, t: 0 * t + 1,
    "path": lambda at, t: 2 * at.noise * at.turn / at.signal,
    "vanishing": lambda at, t: 2 * at.noise / (t + 0.01),
}
"""$w_t/\\eta$ of scales and time."""
RULES = ("euler", "heun")
ENDS = ("euler", "endpoint")


@dataclass(frozen=True)
class StochasticFlow(Sampler):
    """A stochastic differential equation with the marginals of the flow.

    Attributes:
        velocity: the flow's velocity.
        path: its path.
        noise: fresh draws from the source.
        strength: of the noise, one of `STRENGTHS`.
        eta: factor on it; 0 for the flow itself.
        rule: "euler" (Euler and Maruyama, weak order 1, one network call a step) or "heun" (weak order 2 for such additive noise, two).
        end: the last step, without noise: "euler", a step of the flow, or "endpoint", where it is heading for.

    Raises:
        ValueError: an option out of its range, or a path that is not affine.

    Source:
        Albergo, Boffi & Vanden-Eijnden, Stochastic interpolants, arXiv:2303.08797; Ma et al., SiT, ECCV 2024, for the choice of $w_t$.
    """

    reference: ClassVar[str] = "Ma et al., ECCV 2024, arXiv:2401.08740"

    velocity: Velocity
    path: AffinePath
    noise: Callable[[], Tensor]
    strength: str = "sigma"
    eta: float = 1.0
    rule: str = "euler"
    end: str = "euler"

    def __post_init__(self) -> None:
        for name, value, known in (("strength", self.strength, STRENGTHS), ("rule", self.rule, RULES), ("end", self.end, ENDS)):
            if value not in known:
                raise ValueError(f"the stochastic flow expects {name} among {', '.join(known)}; got '{value}'.")
        if not self.eta >= 0:
            raise ValueError(f"the stochastic flow expects an eta that is not negative; got {self.eta}.")
        expect_affine(self.path, "the stochastic flow")

    def scores(self) -> bool:
        return self.eta > 0

    def variance_rate(self, t: Tensor, h: Tensor) -> Tensor:
        r"""$w_t$, in a step of length h."""
        at = self.path.schedule(t)
        return torch.minimum(self.eta * STRENGTHS[self.strength](at, t), at.noise.square() / h)

    def drift(self, x: Tensor, t: Tensor, h: Tensor) -> Tensor:
        r"""$v - w_t\,\hat x_0/2\sigma_t$, in a step of length h."""
        velocity = self.velocity(x, t)
        if not self.eta:
            return velocity
        return velocity - self.variance_rate(t, h) / (2 * self.path.schedule(t).noise) * self.path.origin(x, velocity, t)

    def step(self, x: Tensor, t: Tensor, s: Tensor, x0: Tensor) -> Tensor:
        h, middle = s - t, (t + s) / 2
        slope = self.drift(x, t, h)
        if not self.eta:
            return x + h * slope if self.rule == "euler" else x + h / 2 * (slope + self.drift(x + h * slope, s, h))
        kick = (self.variance_rate(t if self.rule == "euler" else middle, h) * h).sqrt() * self.noise()
        if self.rule == "euler":
            return x + h * slope + kick
        return x + h / 2 * (slope + self.drift(x + h * slope + kick, s, h)) + kick

    def last(self, x: Tensor, t: Tensor, s: Tensor, x0: Tensor) -> Sample:
        velocity = self.velocity(x, t)
        return Sample(x + (s - t) * velocity if self.end == "euler" else self.path.endpoint(x, velocity, t))


@dataclass(frozen=True)
class BridgeDiffusion(Sampler):
    r"""The Schrödinger bridge itself, $dx = (v + s)\,dt + \sigma\,dW$, by Euler and Maruyama's rule; the last step adds its noise too.

    Attributes:
        velocity: of the bridge's marginals.
        correction: $s = \tfrac{\sigma^2}2\nabla\log p_t$, what `bridge_score_loss` learns.
        bridge: the path, whose noise is sigma.
        noise: fresh draws from the source.

    Source:
        Tong et al., Simulation-free Schrödinger bridges via score and flow matching, AISTATS 2024.
    """

    reference: ClassVar[str] = "Tong et al., AISTATS 2024, arXiv:2307.03672"

    velocity: Velocity
    correction: Velocity
    bridge: BridgePath
    noise: Callable[[], Tensor]

    def drift(self, x: Tensor, t: Tensor) -> Tensor:
        """$v + s$."""
        return self.velocity(x, t) + self.correction(x, t)

    def step(self, x: Tensor, t: Tensor, s: Tensor, x0: Tensor) -> Tensor:
        return x + (s - t) * self.drift(x, t) + self.bridge.noise * (s - t).sqrt() * self.noise()
