"""How good and how lawful fields are, and what they cost; all on physical fields."""

from pcfm.metrics.calibration import (
    Coverage,
    Flatness,
    coverage,
    crps,
    flatness,
    pit,
    pit_deviation,
    rank_histogram,
    ranks,
    spread_skill,
)
from pcfm.metrics.conformal import Conformal, conformal
from pcfm.metrics.cost import Cost, Meter, measure
from pcfm.metrics.distances import (
    PrincipalFeatures,
    RandomConvolutions,
    bandwidths,
    frechet_distance,
    mmd,
    sliced_wasserstein,
    wasserstein,
)
from pcfm.metrics.distribution import energy_distance
from pcfm.metrics.floor import Floor, Interval, bootstrap, noise_floor, seed_interval
from pcfm.metrics.held_out import HeldOut, held_out
from pcfm.metrics.literature import constraint_error, constraint_errors, feasible, feasible_fraction, mmse, scheme_errors, smse
from pcfm.metrics.pointwise import mean_error, relative_error, spread_error
from pcfm.metrics.residual import EquationResidual, equation_residual, scheme_residual
from pcfm.metrics.spectrum import energy_spectrum, spectrum_error
from pcfm.metrics.structure import (
    amplitude_bands,
    amplitude_ratio,
    enstrophy_spectrum,
    increment_distance,
    increment_pdf,
    increments,
    power_law,
    structure_error,
    structure_function,
)
from pcfm.metrics.tarp import Tarp, tarp
from pcfm.metrics.violation import Violation, violation

__all__ = [
    "Conformal",
    "Cost",
    "Coverage",
    "EquationResidual",
    "Flatness",
    "Floor",
    "HeldOut",
    "Interval",
    "Meter",
    "PrincipalFeatures",
    "RandomConvolutions",
    "Tarp",
    "Violation",
    "amplitude_bands",
    "amplitude_ratio",
    "bandwidths",
    "bootstrap",
    "conformal",
    "constraint_error",
    "constraint_errors",
    "coverage",
    "crps",
    "energy_distance",
    "energy_spectrum",
    "enstrophy_spectrum",
    "equation_residual",
    "feasible",
    "feasible_fraction",
    "flatness",
    "frechet_distance",
    "held_out",
    "increment_distance",
    "increment_pdf",
    "increments",
    "mean_error",
    "measure",
    "mmd",
    "mmse",
    "noise_floor",
    "pit",
    "pit_deviation",
    "power_law",
    "rank_histogram",
    "ranks",
    "relative_error",
    "scheme_errors",
    "scheme_residual",
    "seed_interval",
    "sliced_wasserstein",
    "smse",
    "spectrum_error",
    "spread_error",
    "spread_skill",
    "structure_error",
    "structure_function",
    "tarp",
    "violation",
    "wasserstein",
]
