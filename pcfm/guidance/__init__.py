"""Guidance: velocities of tilted flows and of posteriors, from the velocity of a trained flow."""

from pcfm.guidance.classifier_free import ClassifierFree
from pcfm.guidance.energy import DistanceEnergy, Energy, FunctionEnergy, ResidualEnergy, Sum
from pcfm.guidance.guidance import Estimate, Guidance, GuidedVelocity
from pcfm.guidance.learned import LearnedGuidance, learn_guidance
from pcfm.guidance.local import IsotropicGradient, LocalGradient, VelocityDrift
from pcfm.guidance.monte_carlo import MonteCarlo
from pcfm.guidance.posterior import GaussianPosterior

GUIDANCES: dict[str, type] = {
    "monte-carlo": MonteCarlo,
    "local": LocalGradient,
    "isotropic": IsotropicGradient,
    "posterior": GaussianPosterior,
    "learned": LearnedGuidance,
    "classifier-free": ClassifierFree,
    "drift": VelocityDrift,
}
"""What is added to a velocity, by name; energies say what for."""

__all__ = [
    "GUIDANCES",
    "ClassifierFree",
    "DistanceEnergy",
    "Energy",
    "Estimate",
    "FunctionEnergy",
    "GaussianPosterior",
    "Guidance",
    "GuidedVelocity",
    "IsotropicGradient",
    "LearnedGuidance",
    "LocalGradient",
    "MonteCarlo",
    "ResidualEnergy",
    "Sum",
    "VelocityDrift",
    "learn_guidance",
]
