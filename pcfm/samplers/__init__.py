"""Samplers: from the source at t = 0 to fields at t = 1."""

from pcfm.samplers.consistent import ConsistentFlow
from pcfm.samplers.diffusion_pde import DiffusionPDE
from pcfm.samplers.dual import DualFlow
from pcfm.samplers.eci import ECI
from pcfm.samplers.flow_dps import FlowDPS
from pcfm.samplers.flower import Flower
from pcfm.samplers.guided import GuidedFlow, PosteriorFlow
from pcfm.samplers.inequality import ActiveFlow, BarrierFlow, SlackFlow
from pcfm.samplers.jump import Heading, Jump
from pcfm.samplers.langevin import ProjectedDiffusion
from pcfm.samplers.ode import (
    AdamsBashforth,
    Adaptive,
    AdaptiveHeun,
    Bosh3,
    Dopri8,
    Euler,
    Exponential,
    Fehlberg2,
    Heun,
    Heun3,
    Midpoint,
    RungeKutta4,
    Unconstrained,
)
from pcfm.samplers.optimised import DFlow
from pcfm.samplers.pnp_flow import PnPFlow
from pcfm.samplers.projected import ProjectedEnd, ProjectedFlow, PublishedFlow
from pcfm.samplers.renoise import PredictProjectRenoise, ProjectedRenoise, Renoise
from pcfm.samplers.sampler import Sample, Sampler
from pcfm.samplers.source_chain import SourceChain
from pcfm.samplers.stochastic import BridgeDiffusion, StochasticFlow
from pcfm.samplers.tangent import TangentFlow

__all__ = [
    "ActiveFlow",
    "AdamsBashforth",
    "Adaptive",
    "AdaptiveHeun",
    "BarrierFlow",
    "Bosh3",
    "BridgeDiffusion",
    "ConsistentFlow",
    "DFlow",
    "DiffusionPDE",
    "Dopri8",
    "DualFlow",
    "ECI",
    "Euler",
    "Exponential",
    "Fehlberg2",
    "FlowDPS",
    "Flower",
    "GuidedFlow",
    "Heading",
    "Heun",
    "Heun3",
    "Jump",
    "Midpoint",
    "PnPFlow",
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
    "StochasticFlow",
    "TangentFlow",
    "Unconstrained",
]
