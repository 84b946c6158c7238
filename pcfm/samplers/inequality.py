r"""Sampling under equalities and inequalities as published: slack variables, a logarithmic barrier, near rows taken as equalities.

Each follows the velocity to its endpoint, takes one Gauss-Newton step from there and returns from the noise the trajectory began with,

$$\hat x_1 = \mathrm{endpoint}(x_t, v),\qquad x_1^\star = \hat x_1 - J^\top(J J^\top + D + \epsilon I)^{-1} r,\qquad
x_s = \alpha_s x_1^\star + \sigma_s x_0 ,$$

with a step of at most ten times the field, $\|J^\top\lambda\| \le 10\max(\|\hat x_1\|, 1)$. They differ in the rows of the step, with h the
equalities and g the inequalities:

* slack: h, and $g + s$ of the rows with $g > -0.05$, $s = \max(-g, 0)$ at first. The step is taken in $(x, s)$ and s forgotten: in x alone
  that is $r = \max(g, 0)$ and $D = 1$, so that a row is mended in part, by $|\nabla g|^2/(|\nabla g|^2 + 1)$;
* barrier: h alone; after the return, descent with $\mu = \mu_0 e^{-3t}$ on
  $\|x - x_s\|^2 + \lambda\|h(x + \gamma v)\|^2 - \mu\sum\log\max(-g(x), 10^{-6})$, in which rows that are broken feel no force;
* active: h, and g of the rows with $g > -10^{-3}$ as equalities: rows that hold are pulled onto their bound, and none is let go.

None solves the problem that a projection solves: no sign of a multiplier is looked at, one step is taken, and nothing tells whether it
sufficed. Theirs end there (`final=false`); here the nearest lawful field follows, with the certificate that it is one.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from functools import cached_property
from math import exp
from typing import ClassVar

import torch
from torch import Tensor

from constraints import Constraint, Intersection
from constraints.newton import broken_rows, raised_solve
from pcfm.path import Path
from pcfm.samplers.sampler import Projector, Sample, Sampler, ended
from pcfm.velocity import Velocity

_REFERENCE = "Leong, I-PCFM, github.com/alfred-leong/I-PCFM (2026)"

_LEAST_REACH = 1e-3
"""Least gamma of the barrier's correction, as in the reference."""


@dataclass(frozen=True)
class _InequalityFlow(Sampler):
    """What the three have in common.

    Attributes:
        velocity: the flow's velocity.
        path: its path.
        constraint: the law, on normalised fields; rows are in their own physical units.
        projector: counts the steps, and projections.
        ridge: epsilon, in the squared unit of the rows of the Jacobian.
        cap: how many times the field's norm, or one, a step may be long.
        final: whether the last state is projected.

    Raises:
        ValueError: an option out of its range.

    Source:
        The author's code, with the settings of its experiments. Deviations: a last projection, which `final=false` leaves out; double
        precision; fields in normalised units; all samples at once; any law.
    """

    lawful: ClassVar[bool] = True
    ahead: ClassVar[bool] = True
    reference: ClassVar[str] = _REFERENCE

    velocity: Velocity
    path: Path
    constraint: Constraint
    projector: Projector = field(default_factory=Projector)
    ridge: float = 1e-4
    cap: float = 10.0
    final: bool = True

    def __post_init__(self) -> None:
        if not self.ridge > 0 or not self.cap > 0:
            raise ValueError(f"the methods of I-PCFM expect a positive ridge and cap; got {self.ridge} and {self.cap}.")

    @cached_property
    def equal(self) -> Constraint | None:
        """The equalities."""
        return _joined([leaf for leaf in self.constraint.leaves() if not leaf.inequality])

    @cached_property
    def unequal(self) -> Constraint | None:
        """The inequalities."""
        return _joined([leaf for leaf in self.constraint.leaves() if leaf.inequality])

    def step(self, x: Tensor, t: Tensor, s: Tensor, x0: Tensor) -> Tensor:
        velocity = self.velocity(x, t)
        end = self._corrected(self.path.endpoint(x, velocity, t))
        self.projector.count(1)
        return self._returned(self.path.sample(x0, end, s).x_t, velocity, t, s)

    def last(self, x: Tensor, t: Tensor, s: Tensor, x0: Tensor) -> Sample:
        """The last state, projected unless asked otherwise."""
        return ended(self.projector, self.constraint, self.step(x, t, s, x0), self.final)

    def _corrected(self, end: Tensor) -> Tensor:
        """The endpoint after its step, in double precision."""
        exact = end.to(torch.float64)
        return (exact - self._capped(self._correction(exact), exact)).to(end.dtype)

    @abstractmethod
    def _correction(self, u: Tensor) -> Tensor:
        """What is taken from a field."""

    def _returned(self, x: Tensor, velocity: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """What becomes of the state after its return."""
        return x

    def _capped(self, correction: Tensor, u: Tensor) -> Tensor:
        longest = self.cap * u.flatten(1).norm(dim=1).clamp_min(1.0)
        share = longest / torch.maximum(correction.flatten(1).norm(dim=1), longest)
        return torch.nan_to_num(share.reshape(-1, *(1,) * (u.ndim - 1)) * correction)


@dataclass(frozen=True)
class SlackFlow(_InequalityFlow):
    """Inequality PCFM with slack variables: one Gauss-Newton step of near rows with a slack each.

    Attributes:
        near: rows that hold by less than this take part, in their own unit.
        squared: whether slacks are $s^2$, of which rows that are broken have none to change, in place of s.
    """

    near: float = 0.05
    squared: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        _not_negative(near=self.near)

    def _correction(self, u: Tensor) -> Tensor:
        rows = broken_rows(self.constraint, u, within=self.near)
        residual, jacobian = rows.linearise(u)
        unequal = _unequal(self.constraint, u)
        slope = 4 * (-residual).clamp_min(0) if self.squared else torch.ones_like(residual)
        missing = torch.where(unequal, residual.clamp_min(0), residual)
        return jacobian.adjoint(raised_solve(jacobian, missing, self.ridge + slope * unequal))


@dataclass(frozen=True)
class ActiveFlow(_InequalityFlow):
    """Inequality PCFM with an active set: one Gauss-Newton step of near rows as equalities.

    Attributes:
        near: rows that hold by less than this take part, in their own unit.
    """

    near: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        _not_negative(near=self.near)

    def _correction(self, u: Tensor) -> Tensor:
        residual, jacobian = broken_rows(self.constraint, u, within=self.near).linearise(u)
        return jacobian.adjoint(raised_solve(jacobian, residual, self.ridge))


@dataclass(frozen=True)
class BarrierFlow(_InequalityFlow):
    """Inequality PCFM with a barrier: one Gauss-Newton step of the equalities, then descent on a penalty with a logarithmic barrier.

    Attributes:
        barrier: $\\mu_0$.
        decay: rate at which mu decays with flow time.
        weight: lambda.
        rate: step size of the descent.
        iterations: its steps.
        least: distance to its bound below which a row's barrier is flat.
    """

    barrier: float = 1e-3
    decay: float = 3.0
    weight: float = 1e-2
    rate: float = 1e-2
    iterations: int = 10
    least: float = 1e-6

    def __post_init__(self) -> None:
        super().__post_init__()
        _not_negative(barrier=self.barrier, weight=self.weight, rate=self.rate, iterations=self.iterations)
        if not self.least > 0:
            raise ValueError(f"the barrier expects a positive least distance; got {self.least}.")

    def _correction(self, u: Tensor) -> Tensor:
        if self.equal is None:
            return torch.zeros_like(u)
        residual, jacobian = self.equal.linearise(u)
        return jacobian.adjoint(raised_solve(jacobian, residual, self.ridge))

    def _returned(self, x: Tensor, velocity: Tensor, t: Tensor, s: Tensor) -> Tensor:
        centre, strength = x, self.barrier * exp(-self.decay * float(t))
        for _ in range(self.iterations):
            x = x - self.rate * (2 * (x - centre) + self._penalty(x, velocity, s) + strength * self._repulsion(x))
        sound = torch.isfinite(x).flatten(1).all(1)
        return torch.where(sound.reshape(-1, *(1,) * (x.ndim - 1)), x, centre)

    def _penalty(self, x: Tensor, velocity: Tensor, s: Tensor) -> Tensor:
        r"""The gradient of $\lambda\|h(x + \gamma v)\|^2$."""
        if self.equal is None:
            return torch.zeros_like(x)
        residual, jacobian = self.equal.linearise(x + max(1 - float(s), _LEAST_REACH) * velocity)
        return 2 * self.weight * jacobian.adjoint(residual)

    def _repulsion(self, x: Tensor) -> Tensor:
        """The gradient of the barrier."""
        if self.unequal is None:
            return torch.zeros_like(x)
        value, jacobian = self.unequal.linearise(x)
        return jacobian.adjoint(torch.where(-value > self.least, -1 / value.clamp_max(-self.least), 0.0))


def _not_negative(**options: float) -> None:
    for name, value in options.items():
        if not value >= 0:
            raise ValueError(f"I-PCFM expects {name} not to be negative; got {value}.")


def _joined(laws: list[Constraint]) -> Constraint | None:
    return None if not laws else laws[0] if len(laws) == 1 else Intersection(*laws)


def _unequal(law: Constraint, u: Tensor) -> Tensor:
    """Which rows are inequalities, (m,)."""
    return torch.cat([torch.full((leaf.residual(u).shape[1],), leaf.inequality, device=u.device) for leaf in law.leaves()])
