"""Laws on fields, and the nearest field that obeys them. Knows no dataset and no network.

The name is generic because users type it: `from constraints import ...`. The package stands alone and needs torch, numpy and scipy only.
"""

from constraints.balance import Budget
from constraints.boundary import Dirichlet, Neumann, PeriodicSeam, Robin, no_penetration, no_slip
from constraints.compatibility import Compatibility, clashes, compatibility
from constraints.conservation import Energy, Enstrophy, Integral, L2Energy, Mass, Momentum
from constraints.constraint import Constraint, FunctionConstraint, Intersection, LinearConstraint, rescaled
from constraints.divergence import Balance, CurlFree, DivergenceFree
from constraints.equation import EvolutionEquation, local_conservation
from constraints.functional import Quadratic
from constraints.grid import Axis, Grid
from constraints.inequality import (
    Bounds,
    EnergyBound,
    EnergyDecay,
    EntropyBound,
    EntropyDecay,
    LinearInequality,
    Monotone,
    OneSidedLipschitz,
    maximum_principle,
    positivity,
)
from constraints.initial import FinalCondition, InitialCondition, Snapshot
from constraints.linear import LinearMap
from constraints.metric import Covariance, Diagonal, Metric, Sobolev, Volumes
from constraints.observation import Circulation, PatchMeans, PointValues, WeightedIntegral
from constraints.poisson import Poisson
from constraints.projection import ProjectionResult, project
from constraints.rate import Rate
from constraints.relation import LinearRelation, Relation
from constraints.units import Chart, Units

__all__ = [
    "Axis",
    "Balance",
    "Bounds",
    "Budget",
    "Chart",
    "Circulation",
    "Compatibility",
    "Constraint",
    "Covariance",
    "CurlFree",
    "Diagonal",
    "Dirichlet",
    "DivergenceFree",
    "Energy",
    "EnergyBound",
    "EnergyDecay",
    "Enstrophy",
    "EntropyBound",
    "EntropyDecay",
    "EvolutionEquation",
    "FinalCondition",
    "FunctionConstraint",
    "Grid",
    "InitialCondition",
    "Integral",
    "Intersection",
    "L2Energy",
    "LinearConstraint",
    "LinearInequality",
    "LinearMap",
    "LinearRelation",
    "Mass",
    "Metric",
    "Momentum",
    "Monotone",
    "Neumann",
    "OneSidedLipschitz",
    "PatchMeans",
    "PeriodicSeam",
    "PointValues",
    "Poisson",
    "Quadratic",
    "ProjectionResult",
    "Rate",
    "Relation",
    "Robin",
    "Snapshot",
    "Sobolev",
    "Units",
    "Volumes",
    "WeightedIntegral",
    "clashes",
    "compatibility",
    "local_conservation",
    "maximum_principle",
    "no_penetration",
    "no_slip",
    "positivity",
    "project",
    "rescaled",
]
