"""Samplers: from the source at t = 0 to fields at t = 1."""

from pcfm.samplers.consistent import ConsistentFlow
from pcfm.samplers.diffusion_pde import DiffusionPDE
from pcfm.samplers.dual import DualFlow
from pcfm.samplers.eci import ECI
from pcfm.samplers.flower import Flower
from pcfm.samplers.guided import GuidedFlow, PosteriorFlow
from pcfm.samplers.inequality import ActiveFlow, BarrierFlow, SlackFlow
from pcfm.samplers.langevin import ProjectedDiffusion
from pcfm.samplers.ode import Adaptive, Euler, Heun, RungeKutta4, Unconstrained
from pcfm.samplers.optimised import DFlow
from pcfm.samplers.projected import ProjectedEnd, ProjectedFlow, PublishedFlow
from pcfm.samplers.renoise import PredictProjectRenoise, ProjectedRenoise, Renoise
from pcfm.samplers.sampler import Sample, Sampler
from pcfm.samplers.source_chain import SourceChain
from pcfm.samplers.tangent import TangentFlow

__all__ = [
    "ActiveFlow",
    "Adaptive",
    "BarrierFlow",
    "ConsistentFlow",
    "DFlow",
    "DiffusionPDE",
    "DualFlow",
    "ECI",
    "Euler",
    "Flower",
    "GuidedFlow",
    "Heun",
    "PosteriorFlow",
    "PredictProjectRenoise",
    "ProjectedDiffusion",
    "ProjectedEnd",
    "ProjectedFlow",
    "ProjectedRenoise",
    "PublishedFlow",
    "Renoise",
    "RungeKutta4",
    "Sample",
    "Sampler",
    "SlackFlow",
    "SourceChain",
    "TangentFlow",
    "Unconstrained",
]
