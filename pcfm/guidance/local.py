r"""Guidance by the gradient of an energy: tilted means to first order, $\mathrm{E}^\star[x_1|x] - \hat x_1 \approx -C_t\nabla J$."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pcfm.guidance.energy import Energy
from pcfm.guidance.guidance import Estimate, Guidance
from pcfm.path import broadcast


@dataclass(frozen=True)
class LocalGradient(Guidance):
    r"""The gradient of the energy at the endpoint, through the network.

    $g = -b_t C_t\nabla J(\hat x_1)$, which is $-(\sigma_t\delta_t/\alpha_t)\,\Sigma\nabla_x J(\hat x_1(x))$: one reverse pass.

    Exact for Gaussian fields and a linear energy. On several modes it overshoots: low energies are no sign of right samples.

    A quadratic energy $J = \|f\|^2/2\varsigma^2$ narrows what it shifts. `damped` divides by
    $1 + \langle\nabla J, C_t\nabla J\rangle/2J$, which makes the shift that of a posterior along $\nabla J$, the exact one of a single
    observation, and bounds it however strong the energy is.

    Attributes:
        energy: J.
        damped: whether J is taken as quadratic.

    Source:
        Feng et al., ICML 2025, $g^{\mathrm{cov-A}}$, with the weight that follows from the path where they tune one; damping is not theirs.
    """

    differentiates: ClassVar[bool] = True
    energy: Energy
    damped: bool = False

    def __call__(self, at: Estimate) -> Tensor:
        value, gradient = self.energy.evaluate(at.endpoint)
        pulled = at.pull(gradient)
        weight = _damping(value, gradient, at.spread * pulled) if self.damped else 1.0
        return -weight * at.pace * pulled


@dataclass(frozen=True)
class IsotropicGradient(Guidance):
    r"""The gradient of the energy at the endpoint, as of isotropic fields: no derivative of the network.

    $g = -b_t r_t^2\nabla J(\hat x_1)$ with $C_t$ replaced by that of fields $\mathcal N(m, s^2 I)$.

    Exact for such fields and a linear energy.

    Attributes:
        energy: J.
        std: s.
        damped: as of `LocalGradient`.

    Source:
        Feng et al., ICML 2025, $g^{\mathrm{cov-G}}$, with the weight of such fields where they tune one.
    """

    energy: Energy
    std: float = 1.0
    damped: bool = False

    def __call__(self, at: Estimate) -> Tensor:
        value, gradient = self.energy.evaluate(at.endpoint)
        shift = at.variance(self.std) * gradient
        weight = _damping(value, gradient, shift) if self.damped else 1.0
        return -weight * at.towards(shift)


@dataclass(frozen=True)
class VelocityDrift(Guidance):
    r"""The gradient of the energy at the state itself: a control.

    $g = -\nabla J(x)$.

    A common recipe that tilts nothing, not even a Gaussian by a linear energy. It is here to be compared with.
    """

    energy: Energy

    def __call__(self, at: Estimate) -> Tensor:
        return -self.energy.gradient(at.x)


def _damping(value: Tensor, gradient: Tensor, shift: Tensor) -> Tensor:
    """2J / (2J + <grad J, shift>) of each sample, shaped so that it multiplies fields; a negative product counts as 0."""
    twice = broadcast(2 * value, gradient)
    curvature = broadcast((gradient * shift).flatten(1).sum(1).clamp_min(0), gradient)
    return torch.where(twice > 0, twice / torch.where(twice > 0, twice + curvature, 1.0), 1.0)
