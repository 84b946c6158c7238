"""How far fields are from a law."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from constraints import Constraint


class Violation(NamedTuple):
    """Largest residual of each sample.

    Attributes:
        absolute: max |residual|, (N,), in the law's own unit.
        relative: max |residual| / scale, (N,), without unit: 1 is a field that does not know the law, 1e-16 is round-off.
    """

    absolute: Tensor
    relative: Tensor


def violation(constraint: Constraint, u: Tensor) -> Violation:
    r"""How far fields are from a law, $\max_i |h_i(u)|$ and $\max_i |h_i(u)| / s_i(u)$; of an inequality what is positive of it.

    The scale $s$ is the law's natural magnitude, that of the terms that cancel where it holds. A row whose terms all vanish is
    obeyed. For several laws use `constraint.leaves()`, since their residuals have different units.

    Arguments:
        constraint: the law.
        u: physical fields, (N, C, *N).

    Returns:
        Violations; NaN for samples that hold NaN.

    Raises:
        ValueError: u is not on the law's grid.
    """
    found, scale = constraint.measure(u)
    residual = constraint.excess(found)
    relative = torch.where(residual == 0, residual, residual / scale)
    return Violation(residual.amax(1), relative.amax(1))
