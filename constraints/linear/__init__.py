"""Linear maps on fields, and the structure that lets them invert their own Gram matrix."""

from constraints.linear.map import Linearised, LinearMap, Weighted
from constraints.linear.stacked import Stacked
from constraints.linear.structured import FourierSymbol, RowCombination, Selection, WeightedSum

__all__ = [
    "FourierSymbol",
    "LinearMap",
    "Linearised",
    "RowCombination",
    "Selection",
    "Stacked",
    "Weighted",
    "WeightedSum",
]
