"""Linear maps on fields, and the structure that lets them invert their own Gram matrix."""

from constraints.linear.map import Linearised, LinearMap, Noisy, Weighted
from constraints.linear.sparse import SparseMap
from constraints.linear.stacked import Stacked
from constraints.linear.structured import FourierSymbol, RowCombination, RowSelection, Selection, WeightedSum
from constraints.linear.tensor import KroneckerSum

__all__ = [
    "FourierSymbol",
    "KroneckerSum",
    "LinearMap",
    "Linearised",
    "Noisy",
    "RowCombination",
    "RowSelection",
    "Selection",
    "SparseMap",
    "Stacked",
    "Weighted",
    "WeightedSum",
]
