"""Guidance: velocities of tilted flows and of posteriors, from the velocity of a trained flow."""

from pcfm.guidance.classifier_free import ClassifierFree
from pcfm.guidance.energy import DistanceEnergy, Energy, FunctionEnergy, ResidualEnergy, Sum
from pcfm.guidance.guidance import Estimate, Guidance, GuidedVelocity
from pcfm.guidance.local import IsotropicGradient, LocalGradient, VelocityDrift
from pcfm.guidance.monte_carlo import MonteCarlo
from pcfm.guidance.posterior import GaussianPosterior

__all__ = [
    "ClassifierFree",
    "DistanceEnergy",
    "Energy",
    "Estimate",
    "FunctionEnergy",
    "GaussianPosterior",
    "Guidance",
    "GuidedVelocity",
    "IsotropicGradient",
    "LocalGradient",
    "MonteCarlo",
    "ResidualEnergy",
    "Sum",
    "VelocityDrift",
]
