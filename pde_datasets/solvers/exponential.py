r"""Exponential time differencing for stiff linear parts.

For $\dot v = L v + N(v)$ with diagonal $L$, the linear part is integrated exactly and the nonlinear one by a fourth-order
Runge-Kutta rule, whose coefficients are $\varphi$-functions of $L\,\Delta t$.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


class ETDRK4:
    r"""Fourth-order exponential Runge-Kutta steps for a diagonal linear part.

    The coefficients, such as $(e^z - 1)/z$, cancel badly near $z = 0$; they are means over a circle around each $z$ in the complex
    plane, which converge geometrically in the number of points.

    Arguments:
        linear: diagonal of $L$, real, of a shape that broadcasts with the state.
        dt: time step.
        contour: points on the half circle.

    Source:
        Cox & Matthews, J. Comput. Phys. 176 (2002) 430; Kassam & Trefethen, SIAM J. Sci. Comput. 26 (2005) 1214.
    """

    def __init__(self, linear: Tensor, dt: float, contour: int = 32) -> None:
        z = dt * linear.to(torch.float64)
        angle = torch.pi * (torch.arange(contour, dtype=torch.float64, device=z.device) + 0.5) / contour
        circle = z.unsqueeze(-1) + torch.polar(torch.ones_like(angle), angle)
        exponential = circle.exp()

        def mean(values: Tensor) -> Tensor:
            return dt * values.mean(-1).real

        self.dt = dt
        self.full = z.exp()
        self.half = (z / 2).exp()
        self.stage = mean(((circle / 2).exp() - 1) / circle)
        self.first = mean((-4 - circle + exponential * (4 - 3 * circle + circle**2)) / circle**3)
        self.middle = mean(2 * (2 + circle + exponential * (circle - 2)) / circle**3)
        self.last = mean((-4 - 3 * circle - circle**2 + exponential * (4 - circle)) / circle**3)

    def step(self, v: Tensor, nonlinear: Callable[[Tensor], Tensor]) -> Tensor:
        """The state one time step later."""
        n_v = nonlinear(v)
        decayed = self.half * v
        a = decayed + self.stage * n_v
        n_a = nonlinear(a)
        b = decayed + self.stage * n_a
        n_b = nonlinear(b)
        c = self.half * a + self.stage * (2 * n_b - n_v)
        return self.full * v + self.first * n_v + self.middle * (n_a + n_b) + self.last * nonlinear(c)
