r"""What pseudo-spectral flows in periodic boxes share: time steps chosen by the Courant number, taken by ETDRK4.

The state holds the Fourier modes that the two-thirds rule keeps, and no others: products, formed on all points of the grid, alias onto
modes that are not there (Orszag 1971). Of n points an axis these are the numbers $|j| < n/3$, in the order 0, 1, ..., -2, -1; along the
last axis, where the transform is real, those that are not negative. They are less than half of a plane's modes and a third of a box's,
and what is not a transform is as much cheaper.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from constraints import Grid
from constraints.calculus.spectral import wavenumbers
from pde_datasets.solvers.exponential import ETDRK4


class PeriodicFlow(ABC):
    r"""Incompressible flow in a periodic box: $\dot v = L v + N(v)$ on the kept Fourier coefficients.

    Arguments:
        grid: its space axes are periodic, `dimensions` of them.
        viscosity: kinematic viscosity, a number or one for each sample, (B,).
        drag: linear drag.
        dt: time step. Left out, `advance` chooses it from the fastest flow among the samples.
        courant: Courant number of the step chosen so, $\Delta t\,\max\sum_i|u_i|\,k_i^{\max}$ with the largest wavenumbers kept. Steps are
            stable up to 2.8, Runge-Kutta's reach along the imaginary axis, and further where viscosity damps.
        device: where to compute.

    Raises:
        ValueError: another number of space axes.
        FloatingPointError: from `advance`: the flow has blown up, since the time step is too large.
    """

    dimensions: ClassVar[int]

    def __init__(
        self,
        grid: Grid,
        viscosity: float | Tensor,
        *,
        drag: float = 0.0,
        dt: float | None = None,
        courant: float = 2.0,
        device: str | torch.device = "cpu",
    ) -> None:
        axes, d, speaker = grid.space_axes, self.dimensions, type(self).__name__
        if len(axes) != d:
            raise ValueError(f"{speaker} expects {d} space axes; got {', '.join(axis.name for axis in axes)}.")
        self.shape = tuple(axis.points for axis in axes)
        self.dt, self.courant = dt, courant
        self.kept = tuple((n - 1) // 3 for n in self.shape)
        numbers = [torch.arange(-m, m + 1).roll(-m) for m in self.kept[:-1]] + [torch.arange(self.kept[-1] + 1)]
        k = [wavenumbers(axis)[j].to(device) for axis, j in zip(axes, numbers, strict=True)]
        self.k = torch.meshgrid(*k, indexing="ij")
        self.k2 = torch.stack(self.k).square().sum(0)
        self.inverse_k2 = torch.where(self.k2 > 0, 1 / torch.where(self.k2 > 0, self.k2, 1.0), 0.0)
        self._reach = [component.max() for component in k]
        nu = viscosity.to(device) if isinstance(viscosity, Tensor) else torch.tensor([viscosity], dtype=torch.float64, device=device)
        self.linear = -nu.reshape(-1, *(1,) * d) * self.k2 - drag
        self._stepper: ETDRK4 | None = None

    @abstractmethod
    def velocity(self, v: Tensor) -> Tensor:
        """Velocity fields (B, d, *N)."""

    @abstractmethod
    def nonlinear(self, v: Tensor) -> Tensor:
        """N: the rate of change but for viscosity and drag."""

    def advance(self, v: Tensor, time: float) -> Tensor:
        """The state a given time later: in whole steps of `dt`, or in equal ones that are chosen anew every 16 steps."""
        left = self._steps(v, time)
        while left:
            dt = time / left if self.dt is None else self.dt
            taken = left if self.dt is not None else min(left, 16)
            if self._stepper is None or self._stepper.dt != dt:
                self._stepper = ETDRK4(self.linear, dt)
            for _ in range(taken):
                v = self._stepper.step(v, self.nonlinear)
            if not torch.isfinite(v).all():
                raise FloatingPointError(f"{type(self).__name__} blew up with time steps of {dt:g}: it needs shorter ones.")
            time -= taken * dt
            left = self._steps(v, time) if left > taken else 0
        return v

    def _steps(self, v: Tensor, time: float) -> int:
        """How many steps to take: whole ones of `dt`, or as few as the Courant number of the present velocities allows."""
        if self.dt is not None:
            return round(time / self.dt)
        fastest = sum(u.abs() * reach for u, reach in zip(self.velocity(v).unbind(1), self._reach, strict=True)).max().item()
        return max(math.ceil(time * fastest / self.courant), 1)

    def _cut(self, modes: Tensor, axis: int) -> Tensor:
        """The kept modes along one of the axes but the last, out of all."""
        dim, n, m = axis - self.dimensions, self.shape[axis], self.kept[axis]
        return torch.cat([modes.narrow(dim, 0, m + 1), modes.narrow(dim, n - m, m)], dim=dim)

    def _spread(self, modes: Tensor, axis: int) -> Tensor:
        """All modes along one of the axes but the last, with zeros for those not kept."""
        dim, n, m = axis - self.dimensions, self.shape[axis], self.kept[axis]
        shape = list(modes.shape)
        shape[dim] = n - 2 * m - 1
        return torch.cat([modes.narrow(dim, 0, m + 1), modes.new_zeros(()).expand(shape), modes.narrow(dim, m + 1, m)], dim=dim)


def check_courant(courant: float, speaker: str) -> None:
    """Raises a ValueError if steps of that Courant number are not stable."""
    if not 0 < courant <= 2.8:
        raise ValueError(f"{speaker} expects a Courant number between 0 and 2.8, where steps are stable; got {courant}.")
