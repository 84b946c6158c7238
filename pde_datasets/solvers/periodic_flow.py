r"""What pseudo-spectral flows in periodic boxes share: the modes they keep, and time steps of ETDRK4 as long as accuracy allows.

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
from pde_datasets.steps import took


class PeriodicFlow(ABC):
    r"""Incompressible flow in a periodic box: $\dot v = L v + N(v)$ on the kept Fourier coefficients.

    Arguments:
        grid: its space axes are periodic, `dimensions` of them.
        viscosity: kinematic viscosity, a number or one for each sample, (B,).
        drag: linear drag.
        dt: time step. Left out, `advance` chooses it, the same for all samples.
        tolerance: bound on the estimated error of a step chosen so, relative to the state, in the mean square, of the worst sample.
        device: where to compute.

    Raises:
        ValueError: another number of space axes.
        FloatingPointError: from `advance`: the flow has blown up, since `dt` is too large.
    """

    dimensions: ClassVar[int]

    def __init__(
        self,
        grid: Grid,
        viscosity: float | Tensor,
        *,
        drag: float = 0.0,
        dt: float | None = None,
        tolerance: float = 1e-6,
        device: str | torch.device = "cpu",
    ) -> None:
        axes, d, speaker = grid.space_axes, self.dimensions, type(self).__name__
        if len(axes) != d:
            raise ValueError(f"{speaker} expects {d} space axes; got {', '.join(axis.name for axis in axes)}.")
        self.shape = tuple(axis.points for axis in axes)
        self.dt, self.tolerance = dt, tolerance
        self.kept = tuple((n - 1) // 3 for n in self.shape)
        numbers = [torch.arange(-m, m + 1).roll(-m) for m in self.kept[:-1]] + [torch.arange(self.kept[-1] + 1)]
        k = [wavenumbers(axis)[j].to(device) for axis, j in zip(axes, numbers, strict=True)]
        self.k = torch.meshgrid(*k, indexing="ij")
        self.k2 = torch.stack(self.k).square().sum(0)
        self.inverse_k2 = torch.where(self.k2 > 0, 1 / torch.where(self.k2 > 0, self.k2, 1.0), 0.0)
        nu = viscosity.to(device) if isinstance(viscosity, Tensor) else torch.tensor([viscosity], dtype=torch.float64, device=device)
        self.linear = -nu.reshape(-1, *(1,) * d) * self.k2 - drag
        self._stepper: ETDRK4 | None = None
        self._aim: float | None = None

    @abstractmethod
    def velocity(self, v: Tensor) -> Tensor:
        """Velocity fields (B, d, *N)."""

    @abstractmethod
    def nonlinear(self, v: Tensor) -> Tensor:
        """N: the rate of change but for viscosity and drag."""

    def advance(self, v: Tensor, time: float) -> Tensor:
        """The state a given time later: in whole steps of `dt`, or in steps as long as `tolerance` allows that end at that time.

        A step whose error is more than four times as large is taken again, shorter. The first one is the time in which the fastest flow
        passes one over the largest wavenumber; later ones begin with the length that was last found right.
        """
        if self.dt is None:
            return self._advance(v, time)
        for _ in range(round(time / self.dt)):
            v = self._step(self.dt).step(v, self.nonlinear)
            took()
        if not torch.isfinite(v).all():
            raise FloatingPointError(f"{type(self).__name__} blew up with time steps of {self.dt:g}: it needs shorter ones.")
        return v

    def _advance(self, v: Tensor, time: float) -> Tensor:
        """With steps of equal length until another one fits better."""
        rate, aim = self.nonlinear(v), self._aim or self._courant_step(v)
        left, steps = time, math.ceil(time / aim)
        while steps:
            stepper = self._step(left / steps)
            later, later_rate, estimate = stepper.attempt(v, rate, self.nonlinear)
            error = _relative(estimate, later)
            factor = min(max(0.9 * (self.tolerance / max(error, 1e-300)) ** 0.25, 0.5), 2.0) if math.isfinite(error) else 0.5
            aim = factor * stepper.dt
            if aim < 1e-12 * time:
                raise FloatingPointError(
                    f"{type(self).__name__} found no time step short enough: the state is not finite, or its products are not."
                )
            took()
            accepted = error <= 4 * self.tolerance
            if accepted:
                v, rate, left, steps = later, later_rate, left - stepper.dt, steps - 1
            if steps and not (accepted and 0.9 < factor < 1.3):
                steps = math.ceil(left / aim)
        self._aim = aim
        return v

    def _step(self, dt: float) -> ETDRK4:
        """The stepper of that length, the last one if it has it up to rounding."""
        if self._stepper is None or abs(dt / self._stepper.dt - 1) > 1e-12:
            self._stepper = ETDRK4(self.linear, dt)
        return self._stepper

    def _courant_step(self, v: Tensor) -> float:
        """The time in which the fastest flow passes one over the largest wavenumber."""
        rates = torch.stack([u.abs() * k.max() for u, k in zip(self.velocity(v).unbind(1), self.k, strict=True)])
        fastest = float(rates.sum(0).max())
        if not math.isfinite(fastest):
            raise FloatingPointError(f"{type(self).__name__} expects a finite state; its velocity is not.")
        return 1 / (fastest + 1e-300)

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


def _relative(error: Tensor, v: Tensor) -> float:
    """The largest mean square error of a sample, relative to its state; no error of no state is none."""
    size = torch.linalg.vector_norm(v.flatten(1), dim=1)
    return float((torch.linalg.vector_norm(error.flatten(1), dim=1) / size.clamp_min(1e-300)).max())


def check_tolerance(tolerance: float, speaker: str) -> None:
    """Raises a ValueError if it cannot be one of relative errors."""
    if not 0 < tolerance < 1:
        raise ValueError(f"{speaker} expects a tolerance of relative errors between 0 and 1; got {tolerance}.")
