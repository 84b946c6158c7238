"""Laws on fields, and the nearest field that obeys them. Knows no dataset and no network.

The name is generic because users type it: `from constraints import ...`. The package stands alone and needs torch and numpy only.
"""

from constraints.boundary import Dirichlet, Neumann, PeriodicSeam, Robin, no_slip
from constraints.conservation import Energy, Mass, Momentum
from constraints.constraint import Constraint, FunctionConstraint, Intersection, LinearConstraint, rescaled
from constraints.divergence import DivergenceFree
from constraints.grid import Axis, Grid
from constraints.initial import FinalCondition, InitialCondition, Snapshot
from constraints.linear import LinearMap
from constraints.observation import PointValues, WeightedIntegral
from constraints.projection import ProjectionResult, project
from constraints.units import Units

__all__ = [
    "Axis",
    "Constraint",
    "Dirichlet",
    "DivergenceFree",
    "Energy",
    "FinalCondition",
    "FunctionConstraint",
    "Grid",
    "InitialCondition",
    "Intersection",
    "LinearConstraint",
    "LinearMap",
    "Mass",
    "Momentum",
    "Neumann",
    "PeriodicSeam",
    "PointValues",
    "ProjectionResult",
    "Robin",
    "Snapshot",
    "Units",
    "WeightedIntegral",
    "no_slip",
    "project",
    "rescaled",
]
