r"""Energies J of fields: what guidance and optimisation descend, each sample on its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from constraints import Constraint, ProjectionResult, project
from constraints.newton import broken_rows


class Energy(ABC):
    """A cost of fields (B, C, *N)."""

    @abstractmethod
    def evaluate(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """J(x), (B,), and its gradient, (B, C, *N)."""

    def __call__(self, x: Tensor) -> Tensor:
        """J(x), (B,)."""
        return self.evaluate(x)[0]

    def gradient(self, x: Tensor) -> Tensor:
        """The gradient of J at x, (B, C, *N)."""
        return self.evaluate(x)[1]


@dataclass(frozen=True)
class FunctionEnergy(Energy):
    """Any differentiable cost, (B, C, *N) to (B,), each entry a function of that sample alone.

    Raises:
        ValueError: the function returns another shape.
    """

    function: Callable[[Tensor], Tensor]

    def evaluate(self, x: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            at = x.detach().requires_grad_()
            value = self.function(at)
            if value.shape != x.shape[:1]:
                raise ValueError(f"an energy expects a function with values of shape ({len(x)},); got {tuple(value.shape)}.")
            (gradient,) = torch.autograd.grad(value.sum(), at)
        return value.detach(), gradient


@dataclass(frozen=True)
class ResidualEnergy(Energy):
    r"""$\tfrac12\sum_i h_i(x)^2/\varsigma_i^2$ over the rows of a law, of inequalities the broken ones.

    Rows observed with noise have their own variance: for them J is the negative logarithm of the likelihood. The other rows are weighed
    as if they were observed with the standard deviation given, in their own unit.

    Attributes:
        constraint: the law.
        deviation: $\varsigma$ of rows without noise.
    """

    constraint: Constraint
    deviation: float = 1.0

    def evaluate(self, x: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient = x.new_zeros(len(x)), torch.zeros_like(x)
        for leaf in self.constraint.leaves():
            residual, jacobian = broken_rows(leaf, x).linearise(x)
            force = residual / (self.deviation**2 if leaf.variance is None else leaf.variance.to(x))
            value = value + (force * residual).sum(1) / 2
            gradient = gradient + jacobian.adjoint(force)
        return value, gradient


@dataclass(frozen=True)
class DistanceEnergy(Energy):
    r"""$\mathrm{dist}(x, \text{law})^2/2\varsigma^2$, the distance to the nearest lawful field; its gradient is $(x - \Pi(x))/\varsigma^2$.

    The same for every way to write a law and every unit: all laws weigh alike, each by how far a field is from it, and the gradient changes
    no faster than the field if the law is convex. Of an inequality it is zero where the law holds.

    Attributes:
        constraint: the law, exact.
        deviation: $\varsigma$, in the units of the field.
        projector: what finds the nearest lawful fields.

    Raises:
        ValueError: the law is observed with noise, which has a likelihood and no distance.
    """

    constraint: Constraint
    deviation: float = 1.0
    projector: Callable[[Constraint, Tensor], ProjectionResult] = project

    def __post_init__(self) -> None:
        noisy = [leaf.name for leaf in self.constraint.leaves() if leaf.variance is not None]
        if noisy:
            raise ValueError(f"DistanceEnergy expects exact laws; '{noisy[0]}' is observed with noise. Use ResidualEnergy.")

    def evaluate(self, x: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            away = x - self.projector(self.constraint, x).u
        return away.square().flatten(1).sum(1) / (2 * self.deviation**2), away / self.deviation**2


@dataclass(frozen=True)
class Sum(Energy):
    """The sum of energies."""

    parts: tuple[Energy, ...]

    def evaluate(self, x: Tensor) -> tuple[Tensor, Tensor]:
        values, gradients = zip(*(part.evaluate(x) for part in self.parts), strict=True)
        return torch.stack(values).sum(0), torch.stack(gradients).sum(0)
