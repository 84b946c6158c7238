r"""Sampling under laws: projection of the point that the flow is heading for.

The velocity is followed to its endpoint $\hat x_1$, the endpoint is replaced by a lawful field, and the state returns to the next time
along the path, from the noise $x_0$ that the trajectory began with,

$$\hat x_1 = \mathrm{endpoint}(x_t, v),\qquad x_1^\star = \Pi(\hat x_1),\qquad x_s = \alpha_s x_1^\star + \sigma_s x_0 .$$

The last step ends on $x_1^\star$ itself. Where the law changes nothing this is *not* the flow: for a standard Gaussian and N steps it
multiplies by 2.0 (N = 20), 2.9 (N = 50), 6.4 (N = 400), growing like the square root of N, since the endpoint already holds the noise
that is added once more. `ConsistentFlow` (pcfm.samplers.consistent) mends that.

A relaxed correction may follow the return,
$\min_x \|x - x_s\|^2 + \lambda\,\|h(x + \gamma v)\|^2$ with $\gamma = 1 - s$, by gradient descent.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from constraints import Constraint
from constraints.newton import broken_rows, certified, gauss_newton_step
from pcfm.path import Path
from pcfm.samplers.ode import Euler
from pcfm.samplers.sampler import Projector, Sample, Sampler, unprojected
from pcfm.velocity import Velocity

MODES = ("root", "anchored", "least-squares")
"""Gauss-Newton steps: of root finding; towards the nearest point; and the reference's `least_squares`, the multiplier of the second
subtracted from the point of the first, which diverges from the second step on."""

_LEAST_REACH = 1e-3
"""Least gamma of the relaxed correction, as in the reference."""


@dataclass(frozen=True)
class ProjectedFlow(Sampler):
    """Extrapolate, project, return from the noise the trajectory began with: physics-constrained flow matching, converged.

    Attributes:
        velocity: the flow's velocity.
        path: its path.
        constraint: the law, on normalised fields.
        projector: counts the projections.
        base: the solver that shoots in more than one step; Euler by default.
        shoot: how the endpoint is found: 1 for one extrapolation along the velocity, as the reference executes; k for k steps of the
            solver from t to 1, as algorithm 1 is written.
        newton: Gauss-Newton steps of each projection, 0 for the nearest lawful field.
        mode: which Gauss-Newton steps, one of `MODES`.
        ridge: added to the diagonal of each Gram matrix of those steps.
        weight: lambda of the relaxed correction, 0 for none.
        rate: its step size.
        iterations: its steps.
        frozen: whether it keeps the velocity of the last state and time, as the reference executes, or evaluates and differentiates that
            at its own state and the new time, as algorithm 1 is written.
        final: whether a projection follows the last step, which is all that makes samples lawful where `newton` is not 0.
        finish: Gauss-Newton steps of that projection, towards the point nearest to the last state, 0 for the nearest lawful field.

    Raises:
        ValueError: an option out of its range, or Gauss-Newton steps under an inequality.

    Source:
        Utkarsh et al., Physics-constrained flow matching, NeurIPS 2025, arXiv:2506.04171, algorithm 1. Deviations: by default the
        projection is converged, and that of the last step takes the place of their separate final one; `pcfm-published` has their
        settings. Gradient descent in the relaxed correction is that of their code; their appendix L.3 says Adam.
    """

    lawful: ClassVar[bool] = True
    ahead: ClassVar[bool] = True
    reference: ClassVar[str] = "Utkarsh et al., NeurIPS 2025, arXiv:2506.04171"

    velocity: Velocity
    path: Path
    constraint: Constraint
    projector: Projector = field(default_factory=Projector)
    base: Sampler | None = None
    shoot: int = 1
    newton: int = 0
    mode: str = "root"
    ridge: float = 0.0
    weight: float = 0.0
    rate: float = 1e-2
    iterations: int = 20
    frozen: bool = True
    final: bool = True
    finish: int = 0

    def __post_init__(self) -> None:
        if self.shoot < 1 or self.newton < 0 or self.iterations < 0 or self.finish < 0:
            raise ValueError(
                f"PCFM expects shoot of at least 1 and numbers of steps that are not negative; got shoot={self.shoot}, "
                f"newton={self.newton}, iterations={self.iterations}, finish={self.finish}."
            )
        if self.mode not in MODES:
            raise ValueError(f"PCFM expects a mode among {', '.join(MODES)}; got '{self.mode}'.")
        if min(self.ridge, self.weight, self.rate) < 0:
            raise ValueError(f"PCFM expects ridge, weight and rate not to be negative; got {self.ridge}, {self.weight}, {self.rate}.")
        unequal = [leaf.name for leaf in self.constraint.leaves() if leaf.inequality]
        if unequal and (self.newton or self.finish):
            raise ValueError(
                f"PCFM's Gauss-Newton steps take equalities only, as published; got the inequality '{unequal[0]}'. Use 'pcfm' as it is or "
                "'pcfm-consistent', or one of 'ipcfm-slack', 'ipcfm-barrier', 'ipcfm-active'."
            )

    def idle(self) -> dict[str, str]:
        idle = {} if self.shoot > 1 else {"solver": "with shoot=1 it has steps of its own"}
        if not self.newton:
            idle |= dict.fromkeys(("mode", "ridge"), "newton=0 projects on the nearest field")
        if not self.weight:
            idle |= dict.fromkeys(("rate", "iterations", "frozen"), "weight=0 is no relaxed correction")
        if not self.final:
            idle["finish"] = "final=false"
        return idle

    def step(self, x: Tensor, t: Tensor, s: Tensor, x0: Tensor) -> Tensor:
        velocity = self._direction(x, t)
        lawful = self._project(self._endpoint(x, velocity, t))
        return self._relaxed(self.path.sample(x0, lawful, s).x_t, velocity, s)

    def last(self, x: Tensor, t: Tensor, s: Tensor, x0: Tensor) -> Sample:
        """The last endpoint, projected."""
        if self.final and not (self.newton or self.weight or self.finish):
            return self.projector.sample(self.constraint, self._endpoint(x, self._direction(x, t), t))
        end = self.step(x, t, s, x0)
        if not self.final:
            return unprojected(self.constraint, end)
        return self._finished(end) if self.finish else self.projector.sample(self.constraint, end)

    def _direction(self, x: Tensor, t: Tensor) -> Tensor | None:
        """The velocity, where a step needs it."""
        return self.velocity(x, t) if self.shoot == 1 or (self.weight and self.frozen) else None

    def _endpoint(self, x: Tensor, velocity: Tensor | None, t: Tensor) -> Tensor:
        """Where the flow is heading from x."""
        if self.shoot == 1 and velocity is not None:
            return self.path.endpoint(x, velocity, t)
        solver = self.base or Euler(self.velocity)
        for i in range(self.shoot):
            x = solver.step(x, t + i / self.shoot * (1 - t), t + (i + 1) / self.shoot * (1 - t), x)
        return x

    def _project(self, x1: Tensor) -> Tensor:
        """The nearest lawful field, or what a fixed number of steps gives."""
        if not self.newton:
            return self.projector(self.constraint, x1).u
        u = x1
        for _ in range(self.newton):
            anchor = None if self.mode == "root" else x1
            step = gauss_newton_step(self.constraint, u, anchor=anchor, ridge=self.ridge).u
            u = step + (u - x1) if self.mode == "least-squares" else step
        self.projector.count(self.newton)
        return u

    def _relaxed(self, x: Tensor, velocity: Tensor | None, s: Tensor) -> Tensor:
        """Descent on |x - centre|² + λ |h(x + γ v)|²."""
        centre = x
        for _ in range(self.iterations if self.weight else 0):
            x = x - self.rate * (2 * (x - centre) + 2 * self.weight * self._slope(x, velocity, s))
        return x

    def _slope(self, x: Tensor, velocity: Tensor | None, s: Tensor) -> Tensor:
        """Half the gradient of |h(x + γ v)|² in x."""
        if self.frozen and velocity is not None:
            ahead = x + max(1 - float(s), _LEAST_REACH) * velocity
            residual, jacobian = broken_rows(self.constraint, ahead).linearise(ahead)
            return jacobian.adjoint(residual)
        with torch.enable_grad():
            free = x.detach().requires_grad_()
            ahead = free + (1 - s) * self.velocity(free, s)
        seen = ahead.detach()
        residual, jacobian = broken_rows(self.constraint, seen).linearise(seen)
        return torch.autograd.grad(ahead, free, jacobian.adjoint(residual))[0]

    def _finished(self, x: Tensor) -> Sample:
        """Gauss-Newton steps towards the lawful field nearest to x, certified as they are."""
        u, multiplier = x, None
        for _ in range(self.finish):
            u, multiplier = gauss_newton_step(self.constraint, u, anchor=x)
        self.projector.count(self.finish)
        return Sample(u, x, certified(self.constraint, u, x, multiplier, self.finish))


@dataclass(frozen=True)
class PublishedFlow(ProjectedFlow):
    """Physics-constrained flow matching with the reference's settings: one regularised Gauss-Newton step, one more at the end.

    The options are those of `pcfm`; the values are the defaults of the authors' code (1 Newton step, ridge 1e-6, no relaxed correction)
    with the final projection that it offers beside the sampler (1 step). Curved laws are not met to round-off: the certificate says by
    how much. Computed in double precision; theirs is single.
    """

    newton: int = 1
    ridge: float = 1e-6
    finish: int = 1


@dataclass(frozen=True)
class ProjectedEnd(Sampler):
    """The flow alone, then the nearest lawful field, once.

    Attributes:
        base: the unconstrained sampler.
        constraint: the law, on normalised fields.
        projector: counts the projections.
        path: the flow's path, where it scales the noise.
    """

    lawful: ClassVar[bool] = True
    reference: ClassVar[str] = "Utkarsh et al., arXiv:2506.04171, table 6"

    base: Sampler
    constraint: Constraint
    projector: Projector = field(default_factory=Projector)
    path: Path | None = None

    def step(self, x: Tensor, t: Tensor, s: Tensor, x0: Tensor) -> Tensor:
        return self.base.step(x, t, s, x0)

    def last(self, x: Tensor, t: Tensor, s: Tensor, x0: Tensor) -> Sample:
        return self.projector.sample(self.constraint, self.base.step(x, t, s, x0))
