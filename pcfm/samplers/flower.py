r"""Flower: the endpoint refined by what was observed, then progress with fresh noise.

$$\tilde x_1 = \arg\min_x\;\tfrac{1}{2\nu_t^2}\|x - u\|^2_{\Sigma^{-1}} + \tfrac12\|Hx - y\|^2_{R^{-1}},\qquad
x_s = \alpha_s\tilde x_1 + \sigma_s\epsilon,\qquad \nu_t^2 = \frac{\sigma_t^2}{\alpha_t^2 + \sigma_t^2}.$$

With $u = \hat x_1$ this is the mean of $x_1$ under a Gaussian of variance $\nu_t^2$ around the endpoint and the observation; with u and y
perturbed by noise of their own covariances it is a draw (Papandreou & Yuille, NeurIPS 2010), and for fields $\mathcal N(0, \Sigma)$ an
exact one, $\Sigma$ the covariance of the source.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from constraints import Constraint, Intersection
from constraints.linear.solve import conjugate_gradients
from pcfm.path import AffinePath, expect_affine
from pcfm.samplers.sampler import Projector, Sample, Sampler, ended
from pcfm.source import Source
from pcfm.velocity import Velocity


@dataclass(frozen=True)
class Flower(Sampler):
    """Refine the endpoint by the laws, noisy or exact, in the posterior mean or a draw of it; return with fresh noise.

    With `gamma=1` it samples the posterior of fields distributed like the source exactly, at every number of steps; with `gamma=0`, the
    published default, it collapses the spread. The network is not differentiated. Curved laws are linearised at the endpoint; inequalities
    are left to the last projection.

    Attributes:
        velocity: the flow's velocity.
        path: its path.
        constraint: the law, on normalised fields.
        noise: fresh draws from the source.
        white: fresh standard normals.
        source: the flow's source.
        projector: counts the projections.
        gamma: share of the posterior's own spread that is drawn, 0 or 1 in the paper.
        iterations: conjugate gradients of each refinement at most, without the network.
        final: whether a projection on the exact laws follows the last step.

    Raises:
        ValueError: a gamma outside [0, 1], a law without an equality, or a path that is not affine.

    Source:
        Pourya, El Rawas & Unser, Flower, ICLR 2026, arXiv:2509.26287. Deviations: the covariance of the source where theirs is white; one
        sample, where they average several; conjugate gradients that stop at their tolerance (the reference's test compares a boolean).
    """

    lawful: ClassVar[bool] = True
    reference: ClassVar[str] = "Pourya et al., ICLR 2026, arXiv:2509.26287"

    velocity: Velocity
    path: AffinePath
    constraint: Constraint
    noise: Callable[[], Tensor]
    white: Callable[[tuple[int, ...]], Tensor]
    source: Source | None = None
    projector: Projector = field(default_factory=Projector)
    gamma: float = 0.0
    iterations: int = 50
    final: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.gamma <= 1:
            raise ValueError(f"Flower expects gamma in [0, 1]; got {self.gamma}.")
        if self.iterations < 1:
            raise ValueError(f"Flower expects at least one iteration; got {self.iterations}.")
        if all(leaf.inequality for leaf in self.constraint.leaves()):
            raise ValueError("Flower expects at least one equality among the laws; use 'guided' for inequalities.")
        expect_affine(self.path, "Flower")

    def step(self, x: Tensor, t: Tensor, s: Tensor, x0: Tensor) -> Tensor:
        return self.path.sample(self.noise(), self._refined(x, t), s).x_t

    def last(self, x: Tensor, t: Tensor, s: Tensor, x0: Tensor) -> Sample:
        """The last refined endpoint, projected on the exact laws."""
        return ended(self.projector, self.constraint, self._refined(x, t), self.final)

    def _refined(self, x: Tensor, t: Tensor) -> Tensor:
        endpoint = self.path.endpoint(x, self.velocity(x, t), t)
        signal, noise = self.path.schedule(t)[:2]
        variance = noise**2 / (signal**2 + noise**2)
        misfit, rows = Intersection(*(leaf for leaf in self.constraint.leaves() if not leaf.inequality)).linearise(endpoint)
        observed = torch.zeros_like(misfit[:1]) if rows.variance is None else rows.variance.to(misfit)
        if self.gamma:
            spread = self.gamma * variance.sqrt() * self.noise()
            endpoint = endpoint + spread
            misfit = misfit + rows(spread) + self.gamma * observed.sqrt() * self.white((misfit.shape[1],))

        def covariance(w: Tensor) -> Tensor:
            return variance * (w if self.source is None else self.source.covariance(w))

        force = conjugate_gradients(
            lambda y: rows(covariance(rows.adjoint(y))) + observed * y,
            misfit,
            preconditioner=rows.precondition,
            fraction=1e-8,
            max_iterations=self.iterations,
        )
        return endpoint - covariance(rows.adjoint(force))
