r"""Lagrangian dual flows: multipliers that grow along the flow until the law holds.

For equalities, with $h$ the residual times a weight and $J = \nabla h$ at the state,

$$\dot x = v(x, t) - J^\top(\lambda + h),\qquad \dot\lambda = \kappa\,\frac{h}{(1 - t)^p},\qquad \lambda(0) = 0,\ p = 2,$$

and for inequalities, with the slack eliminated, $h$ gives way to $\max(h, -\lambda)$, which pulls only where it exceeds
$-\lambda$, and p = 1. Midpoint rule, two network calls a step; it never evaluates the singular rate at t = 1.

What limits it: the step is explicit, stable only while $\Delta\,\|J\|^2 < 2$ for steps $\Delta$, so that rows in large units need a small
weight; and for a single row of unit norm with p = 2 and κ = 1 residuals vanish like
$\sqrt{1 - t}\,\cos(\tfrac{\sqrt3}{2}\ln(1 - t))$: slowly, in ever faster oscillation, beside a multiplier that grows like
$1/\sqrt{1 - t}$. The law is therefore approached, not met, before the final projection; `whiten` makes the rows orthonormal, so that
units no longer matter.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from constraints import Constraint
from pcfm.samplers.sampler import Memory, Projector, Sample, Sampler, unprojected
from pcfm.velocity import Velocity

_EQUAL, _UNEQUAL = 1e-6, 1e-8
"""What the authors' code adds to 1 - t for equalities and for inequalities."""


@dataclass(frozen=True)
class DualFlow(Sampler):
    """The flow with forces of Lagrange multipliers that integrate what is broken, then the nearest lawful field.

    Attributes:
        velocity: the flow's velocity.
        constraint: the law, on normalised fields; it acts on the state itself at all times.
        projector: counts the projections.
        memory: keeps the multipliers.
        weight: factor on residuals.
        gain: kappa, the rate of the multipliers; 0 for a quadratic penalty.
        power: p, for equalities.
        whiten: whether residuals are taken in orthonormal rows, $(JJ^\\top)^{+}h$ in place of h; equalities only.
        final: whether the last state is projected.

    Raises:
        ValueError: an option out of its range, or whitened inequalities.

    Source:
        Kurtz & Davydov, Constrained flow matching via Lagrangian dual flows, arXiv:2607.04513. Their code uses a weight of 5, no final
        projection, and returns the state one step before t = 1. Whitening is not theirs.
    """

    lawful: ClassVar[bool] = True
    reference: ClassVar[str] = "Kurtz & Davydov, arXiv:2607.04513"

    velocity: Velocity
    constraint: Constraint
    projector: Projector = field(default_factory=Projector)
    memory: Memory = field(default_factory=Memory)
    weight: float = 1.0
    gain: float = 1.0
    power: float = 2.0
    whiten: bool = False
    final: bool = True

    def __post_init__(self) -> None:
        if not self.weight > 0 or not self.gain >= 0:
            raise ValueError(f"the dual flow expects a positive weight and a gain not negative; got {self.weight}, {self.gain}.")
        if self.whiten and any(leaf.inequality for leaf in self.constraint.leaves()):
            raise ValueError("the dual flow whitens equalities only; got an inequality. Use whiten=false and a weight that suits its unit.")

    def step(self, x: Tensor, t: Tensor, s: Tensor, x0: Tensor) -> Tensor:
        h = s - t
        force = self._multiplier(x)
        dx, rise = self._rates(x, force, t)
        dx, rise = self._rates(x + h / 2 * dx, force + h / 2 * rise, t + h / 2)
        self.memory.value = force + h * rise
        return x + h * dx

    def last(self, x: Tensor, t: Tensor, s: Tensor, x0: Tensor) -> Sample:
        end = self.step(x, t, s, x0)
        return self.projector.sample(self.constraint, end) if self.final else unprojected(self.constraint, end)

    def _multiplier(self, x: Tensor) -> Tensor:
        """The multipliers so far, (B, m)."""
        if self.memory.value is None:
            rows = sum(leaf.residual(x).shape[1] for leaf in self.constraint.leaves())
            return x.new_zeros(len(x), rows)
        return self.memory.value

    def _rates(self, x: Tensor, force: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Rates of the state and of the multipliers."""
        residual, jacobian = self.constraint.linearise(x)
        broken = self.weight * (jacobian.solve_gram(residual) if self.whiten else residual)
        unequal = self._unequal(x)
        excess = torch.where(unequal, torch.maximum(broken, -force), broken)
        velocity = self.velocity(x, t) - self.weight * jacobian.adjoint(force + excess)
        left = 1 - t
        rate = torch.where(unequal, 1 / (left + _UNEQUAL), 1 / (left + _EQUAL) ** self.power)
        return velocity, self.gain * rate * excess

    def _unequal(self, x: Tensor) -> Tensor:
        """Which rows are inequalities, (1, m)."""
        marks = [torch.full((1, leaf.residual(x[:1]).shape[1]), leaf.inequality, device=x.device) for leaf in self.constraint.leaves()]
        return torch.cat(marks, dim=1)
