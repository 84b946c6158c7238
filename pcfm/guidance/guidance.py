r"""Guidance: from the velocity of a flow to that of a tilted one, $p_1^\star(x_1) \propto p_1(x_1)\,e^{-J(x_1)}$.

Along an affine path whose ends are independent, the velocity of a pair through x is $(\dot\sigma/\sigma)\,x + b_t x_1$ with
$b_t = \delta_t/\sigma_t$, $\delta_t = \dot\alpha_t\sigma_t - \alpha_t\dot\sigma_t$. The velocity is its mean, so that the tilted one is

$$v^\star_t = v_t + g_t,\qquad g_t(x) = b_t\,\bigl(\mathrm{E}^\star[x_1|x_t = x] - \mathrm{E}[x_1|x_t = x]\bigr)$$

without approximation. A guidance is an estimate of $g_t$. Most are built from the endpoint that the velocity points at,
$\hat x_1 = \mathrm{E}[x_1|x_t]$, and from its derivative: for a Gaussian source of covariance $\Sigma$

$$C_t = \mathrm{Cov}(x_1|x_t) = \frac{\sigma_t^2}{\alpha_t}\,\Sigma\,\Bigl(\frac{\partial\hat x_1}{\partial x}\Bigr)^{\!\top},$$

one reverse pass of the network for each application, exact for the exact velocity.

Source:
    Feng et al., On the guidance of flow matching, ICML 2025, arXiv:2502.02150.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pcfm.path import AffinePath, broadcast, expect_affine
from pcfm.schedule import Scales
from pcfm.source import Source
from pcfm.velocity import Velocity


@dataclass(frozen=True)
class Estimate:
    r"""What a velocity says of the endpoint at one state.

    Attributes:
        x: the state, (B, C, *N).
        t: its time, () or (B,).
        velocity: $v_t(x)$.
        endpoint: $\hat x_1$.
        scales: of the path, shaped so that they multiply fields.
        source: the source, None for white noise.
        graph: the state and the endpoint as the network recorded them; None without derivatives.
    """

    x: Tensor
    t: Tensor
    velocity: Tensor
    endpoint: Tensor
    scales: Scales
    source: Source | None = None
    graph: tuple[Tensor, Tensor] | None = None

    @property
    def rate(self) -> Tensor:
        r"""$\delta_t$."""
        return self.scales.signal_rate * self.scales.noise - self.scales.signal * self.scales.noise_rate

    def pull(self, cotangent: Tensor) -> Tensor:
        r"""$\Sigma\,(\partial\hat x_1/\partial x)^\top w$, one reverse pass of the network."""
        assert self.graph is not None, "a guidance that pulls back says so: differentiates = True"
        state, endpoint = self.graph
        (pulled,) = torch.autograd.grad(endpoint, state, cotangent, retain_graph=True)
        return pulled if self.source is None else self.source.covariance(pulled)

    @property
    def spread(self) -> Tensor:
        r"""$\sigma_t^2/\alpha_t$, by which `pull` becomes a covariance."""
        return self.scales.noise.square() / self.scales.signal

    @property
    def pace(self) -> Tensor:
        r"""$\sigma_t\delta_t/\alpha_t = b_t\sigma_t^2/\alpha_t$, by which `pull` becomes a velocity, finite where no noise is left."""
        return self.scales.noise * self.rate / self.scales.signal

    def covariance(self, cotangent: Tensor) -> Tensor:
        r"""$C_t w$."""
        return self.spread * self.pull(cotangent)

    def lift(self, cotangent: Tensor) -> Tensor:
        r"""$b_t C_t w$: the velocity that moves the mean of $x_1$ by $C_t w$."""
        return self.pace * self.pull(cotangent)

    def towards(self, move: Tensor) -> Tensor:
        r"""$b_t m$: the velocity that moves the mean of $x_1$ by m; 0 where no noise is left."""
        noise = self.scales.noise
        return torch.where(noise > 0, self.rate / torch.where(noise > 0, noise, 1.0), 0.0) * move

    def variance(self, std: float = 1.0) -> Tensor:
        r"""$r_t^2$: the variance of each value of $x_1$ given $x_t$ if fields were $\mathcal N(m, s^2 I)$."""
        signal, noise = self.scales.signal, self.scales.noise
        return std**2 * noise.square() / (std**2 * signal.square() + noise.square())


class Guidance(ABC):
    """An estimate of what must be added to a velocity.

    Attributes:
        differentiates: whether it pulls back through the network.
    """

    differentiates: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, at: Estimate) -> Tensor:
        """$g_t(x)$, (B, C, *N)."""


@dataclass(frozen=True)
class GuidedVelocity:
    r"""A velocity plus guidance, $v_t + w_t\sum_i g_t^{(i)}$: a velocity itself, for any solver.

    A call costs one network call, and the reverse passes that its guidances say. At $t = 0$ the covariance $C_t$ is a ratio of zeros:
    guidances that differentiate are evaluated at no earlier time than `start`, at the cost of one more call there.

    Attributes:
        velocity: the flow's velocity.
        path: its path.
        guidances: what is added.
        source: the flow's source where it is not white noise.
        start: earliest time of the derivative of the endpoint.
        schedule: $w_t$; the derived weight 1 by default.
        clip: largest ratio of the norms of guidance and velocity of a sample; None for any.

    Raises:
        ValueError: a path that is not affine, no guidance, or a start or clip out of range.
    """

    velocity: Velocity
    path: AffinePath
    guidances: Sequence[Guidance]
    source: Source | None = None
    start: float = 0.01
    schedule: Callable[[Tensor], Tensor] = torch.ones_like
    clip: float | None = None

    def __post_init__(self) -> None:
        expect_affine(self.path, "guidance")
        if not self.guidances:
            raise ValueError("GuidedVelocity expects at least one guidance.")
        if not 0 < self.start < 1 or (self.clip is not None and not self.clip > 0):
            raise ValueError(f"GuidedVelocity expects a start in (0, 1) and a positive clip; got {self.start} and {self.clip}.")

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        differentiate = any(guidance.differentiates for guidance in self.guidances)
        if differentiate and bool((t < self.start).any()):
            velocity = self.velocity(x, t)
            at = self.estimate(x, t.clamp_min(self.start))
        else:
            at = self.estimate(x, t, differentiate=differentiate)
            velocity = at.velocity
        added = broadcast(self.schedule(t), x) * torch.stack([guidance(at) for guidance in self.guidances]).sum(0)
        if self.clip is not None:
            most = self.clip * _norm(velocity)
            added = added * (most / _norm(added).clamp_min(torch.finfo(x.dtype).tiny)).clamp_max(1)
        return velocity + added

    def estimate(self, x: Tensor, t: Tensor, differentiate: bool = True) -> Estimate:
        """What the velocity says of the endpoint, one network call."""
        scales = self.path.scales(t, x)
        with torch.set_grad_enabled(differentiate):
            state = x.detach().requires_grad_(differentiate)
            velocity = self.velocity(state, t)
            endpoint = self.path.endpoint(state, velocity, t)
        graph = (state, endpoint) if differentiate else None
        return Estimate(x.detach(), t, velocity.detach(), endpoint.detach(), scales, self.source, graph)


def _norm(x: Tensor) -> Tensor:
    """Norm of each sample, shaped so that it multiplies fields."""
    return broadcast(x.flatten(1).norm(dim=1), x)
