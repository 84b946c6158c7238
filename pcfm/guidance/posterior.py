r"""Guidance to the posterior under observed laws: $h(x_1) + e = 0$ with $e \sim \mathcal N(0, R)$, R = 0 for exact laws.

With H the Jacobian of h at $\hat x_1$, and $x_1$ given $x_t$ taken as Gaussian of covariance $\hat C$ in the fit,

$$g = -b_t\,C_t H^\top\,(H\hat C H^\top + R)^{-1}\,h(\hat x_1).$$
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from constraints import Constraint
from constraints.linear import LinearMap
from constraints.linear.solve import conjugate_gradients
from pcfm.guidance.guidance import Estimate, Guidance
from pcfm.path import broadcast

COVARIANCES = ("jacobian", "isotropic", "zero")
r"""What stands for the covariance of $x_1$ given $x_t$ in the fit: $C_t$ itself (MMPS), $r_t^2 I$ with $r_t^2 = \sigma^2/(\alpha^2 +
\sigma^2)$ (PiGDM), nothing (DPS)."""


@dataclass(frozen=True)
class GaussianPosterior(Guidance):
    r"""Towards the posterior under observed laws, with one of three covariances.

    `jacobian` is exact for Gaussian fields and linear laws once the conjugate gradients have converged, one reverse pass of the network for
    each; the other two are biased even there.

    Attributes:
        constraint: the laws, equalities; the laws' own variances are R.
        covariance: one of `COVARIANCES`.
        iterations: conjugate gradients at most.
        slack: standard deviation, as a multiple of $r_t$, by which the endpoint may be off in the rows of exact laws: $\tau^2 r_t^2 H
            H^\top$ is added to their $H\hat C H^\top$. Under laws that all data obey, $C_t$ vanishes along $H^\top$ and what a trained
            network gives in its place has any sign.
        reach: how far the guidance may move the endpoint, as a multiple of the shortest move to the linearised laws,
            $\|H^\top(HH^\top + R)^{+}h\|$; 0 for any. Values that go with those observed move as well, sensors in smooth fields at 15
            times that; the covariance of a trained network, of no definite sign in what is nearly known, has no such bound.

    Raises:
        ValueError: an inequality, an unknown covariance, `zero` under an exact law, or a slack or a reach that is negative.

    Source:
        Rozet et al., MMPS, NeurIPS 2024, arXiv:2405.13712; Song et al., PiGDM, ICLR 2023; Chung et al., DPS, ICLR 2023, here with the
        likelihood's own weight where they divide by the misfit.
    """

    differentiates: ClassVar[bool] = True
    constraint: Constraint
    covariance: str = "jacobian"
    iterations: int = 5
    slack: float = 0.0
    reach: float = 0.0

    def __post_init__(self) -> None:
        if self.covariance not in COVARIANCES:
            raise ValueError(f"GaussianPosterior expects a covariance among {', '.join(COVARIANCES)}; got '{self.covariance}'.")
        if self.iterations < 1 or not self.slack >= 0 or not self.reach >= 0:
            raise ValueError(
                "GaussianPosterior expects at least one iteration, and a slack and a reach that are not negative; got "
                f"iterations={self.iterations}, slack={self.slack}, reach={self.reach}."
            )
        for leaf in self.constraint.leaves():
            if leaf.inequality:
                raise ValueError(f"GaussianPosterior expects equalities; '{leaf.name}' is an inequality.")
            if self.covariance == "zero" and (leaf.variance is None or not bool((leaf.variance > 0).all())):
                raise ValueError(f"covariance 'zero' expects laws observed with noise; '{leaf.name}' is exact. Give it a variance.")

    def __call__(self, at: Estimate) -> Tensor:
        residual, rows = self.constraint.linearise(at.endpoint)
        guidance = -at.lift(rows.adjoint(self._force(at, residual, rows)))
        if not self.reach:
            return guidance
        shortest = at.towards(rows.adjoint(rows.solve_gram(residual)))
        most, found = (z.flatten(1).norm(dim=1) for z in (self.reach * shortest, guidance))
        return guidance * broadcast((most / found.clamp_min(torch.finfo(found.dtype).tiny)).clamp_max(1), guidance)

    def _force(self, at: Estimate, residual: Tensor, rows: LinearMap) -> Tensor:
        r"""$(H\hat C H^\top + R)^{-1} h$, (B, m)."""
        noise = torch.zeros_like(residual[:1]) if rows.variance is None else rows.variance.to(residual)
        if self.covariance == "zero":
            return residual / noise
        spread = at.variance()
        if self.covariance == "isotropic":
            return conjugate_gradients(lambda y: rows(spread * rows.adjoint(y)) + noise * y, residual)
        exact = (noise == 0).to(residual)

        def matrix(y: Tensor) -> Tensor:
            product = rows(at.covariance(rows.adjoint(y))) + noise * y
            return product + exact * rows(self.slack**2 * spread * rows.adjoint(exact * y)) if self.slack else product

        return conjugate_gradients(matrix, residual, max_iterations=self.iterations)
