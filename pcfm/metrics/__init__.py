"""How good and how lawful fields are, and what they cost; all on physical fields."""

from pcfm.metrics.cost import Cost, Meter, measure
from pcfm.metrics.distribution import energy_distance
from pcfm.metrics.pointwise import mean_error, relative_error, spread_error
from pcfm.metrics.spectrum import energy_spectrum, spectrum_error
from pcfm.metrics.violation import Violation, violation

__all__ = [
    "Cost",
    "Meter",
    "Violation",
    "energy_distance",
    "energy_spectrum",
    "mean_error",
    "measure",
    "relative_error",
    "spectrum_error",
    "spread_error",
    "violation",
]
