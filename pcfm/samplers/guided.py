r"""Samplers along guided velocities: towards low energies of a law, and to its posterior.

Guidance is soft. What it leaves of the exact laws, a last projection removes; `final=false` returns what guidance alone gives.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import ClassVar

from torch import Tensor

from constraints import Constraint, Intersection
from pcfm.guidance import (
    DistanceEnergy,
    Energy,
    GaussianPosterior,
    Guidance,
    GuidedVelocity,
    IsotropicGradient,
    LocalGradient,
    ResidualEnergy,
    Sum,
    VelocityDrift,
)
from pcfm.path import AffinePath
from pcfm.samplers.sampler import Projector, Sample, Sampler, ended
from pcfm.source import Source
from pcfm.velocity import Velocity

ENERGIES = ("distance", "residual")
"""Half the squared distance to the nearest lawful field; half the squared residual in its own unit."""

GRADIENTS = ("network", "endpoint", "state")
"""Through the network (`LocalGradient`); at the endpoint, without derivatives of the network (`IsotropicGradient`); at the state itself,
the recipe that tilts nothing (`VelocityDrift`)."""


def energy_of(constraint: Constraint, kind: str, strength: float, projector: Projector) -> Energy:
    r"""The energy of a law: of its rows observed with noise the likelihood's, of the exact ones `strength` times that of the kind.

    Raises:
        ValueError: an unknown kind or a strength that is not positive.
    """
    if kind not in ENERGIES or not strength > 0:
        raise ValueError(f"an energy is one of {', '.join(ENERGIES)} with a positive strength; got '{kind}' and {strength}.")
    exact = [leaf for leaf in constraint.leaves() if leaf.variance is None]
    noisy = [leaf for leaf in constraint.leaves() if leaf.variance is not None]
    if kind == "residual" or not exact:
        return ResidualEnergy(constraint, strength**-0.5)
    distance = DistanceEnergy(Intersection(*exact), strength**-0.5, projector)
    return Sum((distance, ResidualEnergy(Intersection(*noisy)))) if noisy else distance


@dataclass(frozen=True)
class GuidedFlow(Sampler):
    """The flow guided down the energy of the law, with any solver, then the nearest lawful field.

    The target is the flow's distribution times $e^{-J}$, which the guidance meets to first order in J, or damped, for a single row of a
    law, to second. Without damping explicit steps blow up where the energy is stronger than the number of steps over the variance of the
    data.

    Attributes:
        base: the solver.
        velocity: the flow's velocity.
        path: its path.
        constraint: the law, on normalised fields.
        source: the flow's source.
        projector: counts the projections.
        strength: of the energy: the inverse variance with which exact laws are taken as observed.
        energy: one of `ENERGIES`.
        gradient: where the energy is differentiated, one of `GRADIENTS`.
        damped: whether the guidance is bounded as that of a quadratic energy is; else it is the published one.
        clip: largest ratio of the norms of guidance and velocity, 0 for any.
        final: whether a projection follows the last step.

    Raises:
        ValueError: an option out of its range.

    Source:
        Feng et al., On the guidance of flow matching, ICML 2025; damping is not theirs.
    """

    lawful: ClassVar[bool] = True
    reference: ClassVar[str] = "Feng et al., ICML 2025, arXiv:2502.02150"

    base: Sampler
    velocity: Velocity
    path: AffinePath
    constraint: Constraint
    source: Source | None = None
    projector: Projector = field(default_factory=Projector)
    strength: float = 100.0
    energy: str = "distance"
    gradient: str = "network"
    damped: bool = True
    clip: float = 5.0
    final: bool = True

    def __post_init__(self) -> None:
        if self.gradient not in GRADIENTS:
            raise ValueError(f"guidance expects a gradient among {', '.join(GRADIENTS)}; got '{self.gradient}'.")
        if not self.clip >= 0:
            raise ValueError(f"guidance expects a clip that is not negative; got {self.clip}.")
        energy_of(self.constraint, self.energy, self.strength, self.projector)

    @cached_property
    def guided(self) -> Sampler:
        """The solver on the guided velocity."""
        return along(self.base, GuidedVelocity(self.velocity, self.path, [self._guidance()], self.source, clip=self.clip or None))

    def _guidance(self) -> Guidance:
        energy = energy_of(self.constraint, self.energy, self.strength, self.projector)
        if self.gradient == "state":
            return VelocityDrift(energy)
        return LocalGradient(energy, self.damped) if self.gradient == "network" else IsotropicGradient(energy, damped=self.damped)

    def idle(self) -> dict[str, str]:
        return {"damped": "gradient=state"} if self.gradient == "state" else {}

    def step(self, x: Tensor, t: Tensor, s: Tensor, x0: Tensor) -> Tensor:
        return self.guided.step(x, t, s, x0)

    def last(self, x: Tensor, t: Tensor, s: Tensor, x0: Tensor) -> Sample:
        """The last state, projected on the exact laws."""
        return ended(self.projector, self.constraint, self.step(x, t, s, x0), self.final)


@dataclass(frozen=True)
class PosteriorFlow(Sampler):
    """The flow guided to the posterior under the law, noisy or exact, then the nearest lawful field.

    With `covariance=jacobian,slack=0,reach=0,clip=0` exact for Gaussian fields under linear laws, up to the solver and the conjugate
    gradients.
    Inequalities are left to the last projection.

    Attributes:
        base: the solver.
        velocity: the flow's velocity.
        path: its path.
        constraint: the law, on normalised fields.
        source: the flow's source.
        projector: counts the projections.
        covariance: "jacobian" (MMPS), "isotropic" (PiGDM) or "zero" (DPS, for laws observed with noise).
        iterations: conjugate gradients of "jacobian", a reverse pass of the network each.
        slack: of exact laws, as of `GaussianPosterior`.
        reach: of moves of the endpoint, as of `GaussianPosterior`.
        start: earliest time at which the network is differentiated.
        clip: largest ratio of the norms of guidance and velocity, 0 for any. Guidance to what is observed stays below 5; where data obey a
            law anyway and nothing needs guiding, a trained network's $C_t$ is noise and its inverse has no bound.
        final: whether a projection on the exact laws follows the last step.

    Raises:
        ValueError: an option out of its range, or a law without an equality.

    Source:
        Rozet et al., Learning diffusion priors from observations by expectation maximization, NeurIPS 2024 (moment matching posterior
        sampling); Song et al., ICLR 2023; Chung et al., ICLR 2023. Deviations: slack, reach and clip, which 0 takes away.
    """

    lawful: ClassVar[bool] = True
    reference: ClassVar[str] = "Rozet et al., NeurIPS 2024, arXiv:2405.13712"

    base: Sampler
    velocity: Velocity
    path: AffinePath
    constraint: Constraint
    source: Source | None = None
    projector: Projector = field(default_factory=Projector)
    covariance: str = "jacobian"
    iterations: int = 5
    slack: float = 0.1
    reach: float = 10.0
    start: float = 0.01
    clip: float = 5.0
    final: bool = True

    def __post_init__(self) -> None:
        self._velocity()

    def _velocity(self) -> Velocity:
        equalities = [leaf for leaf in self.constraint.leaves() if not leaf.inequality]
        if not equalities:
            raise ValueError("posterior sampling expects at least one equality among the laws; use 'guided' for inequalities.")
        law = equalities[0] if len(equalities) == 1 else Intersection(*equalities)
        guidance = GaussianPosterior(law, self.covariance, self.iterations, self.slack, self.reach)
        return GuidedVelocity(self.velocity, self.path, [guidance], self.source, self.start, clip=self.clip or None)

    @cached_property
    def guided(self) -> Sampler:
        """The solver on the guided velocity."""
        return along(self.base, self._velocity())

    def idle(self) -> dict[str, str]:
        return {} if self.covariance == "jacobian" else dict.fromkeys(("iterations", "slack"), f"covariance={self.covariance}")

    def step(self, x: Tensor, t: Tensor, s: Tensor, x0: Tensor) -> Tensor:
        return self.guided.step(x, t, s, x0)

    def last(self, x: Tensor, t: Tensor, s: Tensor, x0: Tensor) -> Sample:
        """The last state, projected on the exact laws."""
        return ended(self.projector, self.constraint, self.step(x, t, s, x0), self.final)


def along(base: Sampler, velocity: Velocity) -> Sampler:
    """The same solver on another velocity."""
    return replace(base, velocity=velocity)  # type: ignore[type-var]
