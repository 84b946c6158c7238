"""Samplers: from the source at t = 0 to fields at t = 1."""

from pcfm.samplers.ode import Adaptive, Euler, Heun, RungeKutta4, Unconstrained
from pcfm.samplers.projected import ConsistentFlow, ProjectedEnd, ProjectedFlow
from pcfm.samplers.sampler import Sample, Sampler

__all__ = [
    "Adaptive",
    "ConsistentFlow",
    "Euler",
    "Heun",
    "ProjectedEnd",
    "ProjectedFlow",
    "RungeKutta4",
    "Sample",
    "Sampler",
    "Unconstrained",
]
