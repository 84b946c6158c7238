r"""Lagrangian dual flows: multipliers that grow along the flow until the law holds.

For equalities, with $h$ the residual times a weight and $J = \nabla h$ at the state,

$$\dot x = v(x, t) - J^\top(\lambda + h),\qquad \dot\lambda = \kappa\,\frac{h}{(1 - t)^p},\qquad \lambda(0) = 0,\ p = 2,$$

and for inequalities, with the slack eliminated, $h$ gives way to $\max(h, -\lambda)$, which pulls only where it exceeds
$-\lambda$, and p = 1. Midpoint rule, two network calls a step; it never evaluates the singular rate at t = 1.

What limits it as published: the step is explicit, stable only while $\Delta\,\|J\|^2 < 2$ for steps $\Delta$, and rows of a divergence have
$\|J\|^2$ in the thousands. `whiten` takes laws in coordinates in which $\|J\| = 1$, so that units do not matter and two steps are enough to
be stable: equalities in orthonormal rows, $h \to (JJ^\top)^{+}h$, inequalities in units of their largest singular value,
$h \to h/\|J\|^2$, with multipliers to match.

Even so, for a single row of unit norm with p = 2 and κ = 1, residuals vanish like
$\sqrt{1 - t}\,\cos(\tfrac{\sqrt3}{2}\ln(1 - t))$: slowly, in ever faster oscillation, beside a multiplier that grows like
$1/\sqrt{1 - t}$. The law is approached, not met, before the final projection.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from constraints import Constraint, Intersection
from constraints.linear import LinearMap
from pcfm.path import Path
from pcfm.samplers.sampler import Memory, Projector, Sample, Sampler, unprojected
from pcfm.velocity import Velocity

_EQUAL, _UNEQUAL = 1e-6, 1e-8
"""What the authors' code adds to 1 - t for equalities and for inequalities."""

_POWERS = 8
"""Iterations of the power method: half of the norm would do for a step that is stable up to twice its inverse."""


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
        whiten: whether laws are taken in coordinates in which they have unit norm; as they are written if not, as published.
        final: whether the last state is projected.
        path: the flow's path, where it scales the noise.

    Raises:
        ValueError: an option out of its range.

    Source:
        Kurtz & Davydov, Constrained flow matching via Lagrangian dual flows, arXiv:2607.04513. Their code uses a weight of 5, no final
        projection, and returns the state one step before t = 1. Deviations: `whiten`, which `whiten=false` undoes,
        and the last projection, which `final=false` does.
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
    whiten: bool = True
    final: bool = True
    path: Path | None = None

    def __post_init__(self) -> None:
        if not self.weight > 0 or not self.gain >= 0:
            raise ValueError(f"the dual flow expects a positive weight and a gain not negative; got {self.weight}, {self.gain}.")

    @cached_property
    def parts(self) -> list[Constraint]:
        """The equalities and the inequalities, each as one law; those that there are."""
        leaves = self.constraint.leaves()
        kinds = [[leaf for leaf in leaves if leaf.inequality == unequal] for unequal in (False, True)]
        return [kind[0] if len(kind) == 1 else Intersection(*kind) for kind in kinds if kind]

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

    def idle(self) -> dict[str, str]:
        return super().idle() | ({} if self.gain else {"power": "gain=0"})

    def _multiplier(self, x: Tensor) -> Tensor:
        """The multipliers so far, (B, m), those of equalities first."""
        if self.memory.value is None:
            return x.new_zeros(len(x), sum(part.residual(x).shape[1] for part in self.parts))
        return self.memory.value

    def _rates(self, x: Tensor, force: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Rates of the state and of the multipliers."""
        velocity, left, rises, first = self.velocity(x, t), 1 - t, [], 0
        for part in self.parts:
            residual, jacobian = part.linearise(x)
            pull = force[:, first : first + residual.shape[1]]
            first += residual.shape[1]
            if part.leaves()[0].inequality:
                broken = residual / _squared_norm(jacobian, residual) if self.whiten else residual
                excess, rate = torch.maximum(self.weight * broken, -pull), 1 / (left + _UNEQUAL)
            else:
                broken = jacobian.solve_gram(residual) if self.whiten else residual
                excess, rate = self.weight * broken, 1 / (left + _EQUAL) ** self.power
            velocity = velocity - self.weight * jacobian.adjoint(pull + excess)
            rises.append(self.gain * rate * excess)
        return velocity, torch.cat(rises, dim=1)


def _squared_norm(jacobian: LinearMap, like: Tensor) -> Tensor:
    r"""$\|J\|^2$, the largest eigenvalue of $JJ^\top$, (B, 1), by the power method; 1 for rows that are zero."""
    rows = torch.arange(like.shape[1], device=like.device)
    y = torch.cos(1.0 + rows.to(like).square()).expand_as(like)
    for _ in range(_POWERS):
        y = y / y.norm(dim=1, keepdim=True).clamp_min(torch.finfo(like.dtype).tiny)
        y = jacobian(jacobian.adjoint(y))
    norm = y.norm(dim=1, keepdim=True)
    return torch.where(norm > 0, norm, 1.0)
