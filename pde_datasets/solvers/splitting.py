r"""Splitting: the sum of two flows that are each known exactly.

For $\dot u = A(u) + B(u)$ the flows of A and B alternate. What both of them keep, the composition keeps to round-off: for a wave function
whose kinetic and potential energy act in turn, the mass.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

_A = (0.0792036964311957, 0.353172906049774, -0.0420650803577195)
_B = (0.209515106613362, -0.143851773179818)

FIRST = (*_A, 1 - 2 * sum(_A), *_A[::-1])
SECOND = (*_B, 0.5 - sum(_B), 0.5 - sum(_B), *_B[::-1])


def blanes_moan_4(u: Tensor, dt: float, first: Callable[[Tensor, float], Tensor], second: Callable[[Tensor, float], Tensor]) -> Tensor:
    r"""One step of fourth order, $\varphi^A_{a_7}\varphi^B_{b_6}\cdots\varphi^B_{b_1}\varphi^A_{a_1}$, symmetric, six stages.

    Arguments:
        u: the state.
        dt: time step.
        first: the flow of A over a time, which may be negative.
        second: the flow of B.

    Source:
        Blanes & Moan, J. Comput. Appl. Math. 142 (2002) 313, method S6 of order 4.
    """
    u = first(u, FIRST[0] * dt)
    for a, b in zip(FIRST[1:], SECOND, strict=True):
        u = first(second(u, b * dt), a * dt)
    return u
