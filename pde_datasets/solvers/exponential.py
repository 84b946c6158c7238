r"""Exponential time differencing for stiff linear parts.

For $\dot v = L v + N(v)$ with diagonal $L$, the linear part is integrated exactly and the nonlinear one by a fourth-order
Runge-Kutta rule, whose coefficients are $\varphi$-functions of $L\,\Delta t$.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy

import torch
from torch import Tensor

from pde_datasets.steps import took

COEFFICIENTS = ("full", "half", "stage", "first", "middle", "last")


class ETDRK4:
    r"""Fourth-order exponential Runge-Kutta steps for a diagonal linear part.

    The coefficients, such as $(e^z - 1)/z$, cancel badly near $z = 0$. There, for $|z| < 1$, they are means over a circle around $z$ in the
    complex plane, which converge geometrically in the number of points; its radius 2 keeps it away from 0. Elsewhere they are the formulas
    as they stand. Conjugate points give conjugate values, so that half a circle is enough where $L$ is real.

    Arguments:
        linear: diagonal of $L$, real (decay) or complex (dispersion), of a shape that broadcasts with the state.
        dt: time step.
        contour: points on the half circle.

    Source:
        Cox & Matthews, J. Comput. Phys. 176 (2002) 430; Kassam & Trefethen, SIAM J. Sci. Comput. 26 (2005) 1214.
    """

    def __init__(self, linear: Tensor, dt: float, contour: int = 32) -> None:
        z = dt * linear.to(torch.complex128 if linear.is_complex() else torch.float64)
        where: Tensor | None = None
        if not z.is_complex():
            z, where = torch.unique(z, return_inverse=True)  # the wavenumbers of a box give many equal entries
        points = 2 * contour if z.is_complex() else contour
        angle = torch.pi * (torch.arange(points, dtype=torch.float64, device=z.device) + 0.5) / contour
        radius = torch.where(z.abs() < 1, 2.0, 0.0).to(torch.float64).unsqueeze(-1)
        circle = z.unsqueeze(-1) + torch.polar(radius.expand(*z.shape, points), angle.expand(*z.shape, points))
        exponential = circle.exp()

        def spread(values: Tensor) -> Tensor:
            return values if where is None else values.real[where]

        def mean(values: Tensor) -> Tensor:
            return spread(dt * values.mean(-1))

        self.dt = dt
        self.full = spread(z.exp())
        self.half = spread((z / 2).exp())
        self.stage = mean(((circle / 2).exp() - 1) / circle)
        self.first = mean((-4 - circle + exponential * (4 - 3 * circle + circle**2)) / circle**3)
        self.middle = mean(2 * (2 + circle + exponential * (circle - 2)) / circle**3)
        self.last = mean((-4 - 3 * circle - circle**2 + exponential * (4 - circle)) / circle**3)
        self._typed: dict[torch.dtype, tuple[Tensor, ...]] = {}

    def of(self, samples: Tensor) -> ETDRK4:
        """The steps of some samples, given by their indices, where each has a linear part of its own."""
        some = copy(self)
        for name in COEFFICIENTS:
            setattr(some, name, getattr(self, name)[samples])
        some._typed = {}
        return some

    def states(self, v: Tensor, nonlinear: Callable[[Tensor], Tensor], count: int, steps: int) -> Iterator[Tensor]:
        """The state and those after it, `steps` steps apart: `count` in all."""
        yield v
        for _ in range(count - 1):
            for _ in range(steps):
                v = self.step(v, nonlinear)
                took()
            yield v

    def step(self, v: Tensor, nonlinear: Callable[[Tensor], Tensor]) -> Tensor:
        """The state one time step later."""
        return self._step(v, nonlinear(v), nonlinear)[0]

    def attempt(self, v: Tensor, n_v: Tensor, nonlinear: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        r"""A step with an estimate of its error, for one evaluation of N more, with which the next step begins.

        The estimate is the difference from an embedded step of third order, which puts $N(v_{n+1})$ in the place of three fifths of the
        last stage. Without linear part it is that of Balac & Mahe, Comput. Phys. Commun. 184 (2013) 1211.

        Arguments:
            v: the state.
            n_v: N(v).
            nonlinear: N.

        Returns:
            The state one time step later, N of it, and the estimate.
        """
        later, n_c = self._step(v, n_v, nonlinear)
        n_later = nonlinear(later)
        return later, n_later, 0.6 * self._coefficients(v.dtype)[-1] * (n_c - n_later)

    def _step(self, v: Tensor, n_v: Tensor, nonlinear: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """The state one time step later, and N at the last stage."""
        full, half, stage, first, middle, last = self._coefficients(v.dtype)
        decayed = half * v
        a = torch.addcmul(decayed, stage, n_v)
        n_a = nonlinear(a)
        n_b = nonlinear(torch.addcmul(decayed, stage, n_a))
        n_c = nonlinear(torch.addcmul(half * a, stage, 2 * n_b - n_v))
        return (full * v).addcmul_(first, n_v).addcmul_(middle, n_a + n_b).addcmul_(last, n_c), n_c

    def _coefficients(self, dtype: torch.dtype) -> tuple[Tensor, ...]:
        """In the type of the state: a product of a real and a complex tensor would convert the real one every time, which costs more."""
        if dtype not in self._typed:
            known = [getattr(self, name) for name in COEFFICIENTS]
            self._typed[dtype] = tuple(c.to(torch.promote_types(c.dtype, dtype)) for c in known)
        return self._typed[dtype]
