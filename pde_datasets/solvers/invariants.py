r"""States brought back to the level of what the equations conserve.

Between stored times a one-step method leaves the level set $\{u: I(u) = I(u_0)\}$ of conserved functionals by its own error. The nearest
point of the set is $u + \sum_j\lambda_j\nabla I_j(u)$ to leading order, a change no larger than the error it takes away, so that the order
of the method stays. Newton's method repeats it until round-off is left.

Where gradients are parallel, as those of norm and energy are for solitons and plane waves, the functional that is stationary on the level
set of the others keeps its level to the square of the error by itself, and a direction that hardly is one is left alone.

Source:
    Hairer, Lubich & Wanner, Geometric Numerical Integration (2006), section IV.4.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Invariants = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Of states u (N, *S), the values of m functionals, (N, m), and their gradients, (N, m, *S)."""

ITERATIONS = 4
PARALLEL = 1e-10
"""Squared sine of the angle between gradients below which they count as one."""


def restored(u: Tensor, invariants: Invariants, levels: Tensor) -> Tensor:
    """The states near u (N, *S), real, on whose level the functionals have the given values (N, m)."""
    for _ in range(ITERATIONS):
        values, gradients = invariants(u)
        rows = gradients.flatten(2)
        size = torch.linalg.vector_norm(rows, dim=2).clamp_min(1e-300)
        rows = rows / size[..., None]
        inverse = torch.linalg.pinv(rows @ rows.mT, rtol=PARALLEL, hermitian=True)
        multipliers = inverse @ ((levels - values) / size)[..., None]
        u = u + (rows.mT @ multipliers).reshape(u.shape)
    return u
