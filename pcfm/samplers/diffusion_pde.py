r"""DiffusionPDE: descent on observations, and on equations late, through the network, after each step.

In the variables of the published method, $y = x_t/\alpha_t$ and $\varsigma = \sigma_t/\alpha_t$, a step of Heun's rule in $\varsigma$
follows $dy/d\varsigma = \hat x_0$, the noise that state and velocity imply; then

$$y \leftarrow y - \nabla_y\Bigl(\sum_i\zeta_i\,\|h_i(\hat x_1)\|\Bigr),$$

with the gradient at the state before the step. Since $y = x/\alpha$, the move of $x_s$ is $\alpha_s\alpha_t$ times the gradient in $x_t$.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from constraints import Constraint
from constraints.boundary import Dirichlet
from constraints.initial import FinalCondition, InitialCondition, Snapshot
from constraints.newton import broken_rows
from constraints.observation import Circulation, PatchMeans, PointValues, WeightedIntegral
from pcfm.path import AffinePath, expect_affine
from pcfm.samplers.sampler import Projector, Sample, Sampler, ended
from pcfm.velocity import Velocity

OBSERVATIONS = (PointValues, PatchMeans, WeightedIntegral, Circulation, Snapshot, InitialCondition, FinalCondition, Dirichlet)
"""Laws that count as observations; all others count as equations."""


@dataclass(frozen=True)
class DiffusionPDE(Sampler):
    """Steps of Heun's rule in noise scale, each with descent on the misfit of observations, late on equations too, through the network.

    Misfits are in the unit of each law, and so are their weights: the published ones (observations/equation) are 5 to 5000/100 for Darcy,
    320/100 for Burgers, 1/1 for Navier-Stokes, 0.8 to 60/1 for Poisson and Helmholtz. The reference's equations of Darcy and Burgers lack
    the grid spacing: to have them as executed, state the law on a grid of unit spacing.

    Attributes:
        velocity: the flow's velocity.
        path: its path.
        constraint: the law, on normalised fields.
        projector: counts the projections.
        observed: weight of each law among `OBSERVATIONS`.
        equation: weight of each other law, divided by the number of grid points as in the reference.
        late: flow time from which equations count, and observations by `damping`.
        damping: factor on `observed` from there on.
        squared: whether norms are squared, as the paper writes them, or not, as the reference executes.
        corrected: whether steps are of second order and the misfit is that of the second evaluation, differentiated through both, as the
            reference executes; else Euler's rule and the misfit of its one evaluation.
        final: whether a projection on the exact laws follows the last step.

    Raises:
        ValueError: an option out of its range, or a path that is not affine.

    Source:
        Huang et al., DiffusionPDE, NeurIPS 2024, arXiv:2406.17763. Deviations: a flow's velocity in place of a denoiser; the times given in
        place of 2000 levels from 80 to 0.002 (flow times 1/(1 + level)); no guidance and no correction at t = 0, where y is infinite; a
        last projection, unless `final` is off.
    """

    lawful: ClassVar[bool] = True
    reference: ClassVar[str] = "Huang et al., NeurIPS 2024, arXiv:2406.17763"

    velocity: Velocity
    path: AffinePath
    constraint: Constraint
    projector: Projector = field(default_factory=Projector)
    observed: float = 1.0
    equation: float = 1.0
    late: float = 0.8
    damping: float = 0.1
    squared: bool = False
    corrected: bool = True
    final: bool = True

    def __post_init__(self) -> None:
        if min(self.observed, self.equation, self.damping) < 0 or not 0 <= self.late <= 1:
            raise ValueError(
                "DiffusionPDE expects weights that are not negative and late in [0, 1]; got "
                f"observed={self.observed}, equation={self.equation}, damping={self.damping}, late={self.late}."
            )
        expect_affine(self.path, "DiffusionPDE")

    def step(self, x: Tensor, t: Tensor, s: Tensor, x0: Tensor) -> Tensor:
        before, now = self.path.schedule(t), self.path.schedule(s)
        with torch.enable_grad():
            state = x.detach().requires_grad_()
            velocity = self.velocity(state, t)
            endpoint, origin = self.path.endpoint(state, velocity, t), self.path.origin(state, velocity, t)
            ahead = now.signal * endpoint + now.noise * origin
            if self.corrected and before.signal > 0 and now.noise > 0:
                velocity = self.velocity(ahead, s)
                endpoint, mean = self.path.endpoint(ahead, velocity, s), (origin + self.path.origin(ahead, velocity, s)) / 2
                ahead = now.signal / before.signal * (state - before.noise * mean) + now.noise * mean
        ahead, seen = ahead.detach(), endpoint.detach()
        forces = list(self._forces(seen, float(t)))
        if not forces or not before.signal > 0:
            return ahead
        (slope,) = torch.autograd.grad(endpoint, state, torch.stack(forces).sum(0))
        return ahead - now.signal * before.signal * slope

    def last(self, x: Tensor, t: Tensor, s: Tensor, x0: Tensor) -> Sample:
        """The last state, projected on the exact laws."""
        return ended(self.projector, self.constraint, self.step(x, t, s, x0), self.final)

    def _forces(self, x1: Tensor, t: float) -> Iterator[Tensor]:
        """The gradient of each law's weighted misfit."""
        for leaf in self.constraint.leaves():
            if isinstance(_physical(leaf), OBSERVATIONS):
                weight = self.observed * (self.damping if t > self.late else 1.0)
            else:
                weight = self.equation / math.prod(x1.shape[2:]) if t > self.late else 0.0
            if weight:
                residual, jacobian = broken_rows(leaf, x1).linearise(x1)
                size = residual.norm(dim=1, keepdim=True)
                unit = torch.where(size > 0, residual / torch.where(size > 0, size, 1.0), 0.0)
                yield weight * jacobian.adjoint(2 * residual if self.squared else unit)


def _physical(law: Constraint) -> Constraint:
    """The law as it was stated, before any change of coordinates."""
    inner = getattr(law, "inner", None)
    return _physical(inner) if isinstance(inner, Constraint) else law
