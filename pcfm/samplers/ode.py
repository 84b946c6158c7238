"""Integration of the flow's differential equation, without laws."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pcfm.samplers.sampler import Sampler
from pcfm.velocity import Velocity


@dataclass(frozen=True)
class Euler(Sampler):
    """Explicit Euler steps, order 1, one network call each."""

    velocity: Velocity

    def step(self, x: Tensor, t: Tensor, s: Tensor, x0: Tensor) -> Tensor:
        return x + (s - t) * self.velocity(x, t)


@dataclass(frozen=True)
class Heun(Sampler):
    """Trapezoidal predictor-corrector, order 2, two network calls each."""

    velocity: Velocity

    def step(self, x: Tensor, t: Tensor, s: Tensor, x0: Tensor) -> Tensor:
        first = self.velocity(x, t)
        second = self.velocity(x + (s - t) * first, s)
        return x + (s - t) / 2 * (first + second)


@dataclass(frozen=True)
class RungeKutta4(Sampler):
    """The classical Runge-Kutta rule, order 4, four network calls each."""

    velocity: Velocity

    def step(self, x: Tensor, t: Tensor, s: Tensor, x0: Tensor) -> Tensor:
        h, middle = s - t, (s + t) / 2
        a = self.velocity(x, t)
        b = self.velocity(x + h / 2 * a, middle)
        c = self.velocity(x + h / 2 * b, middle)
        d = self.velocity(x + h * c, s)
        return x + h / 6 * (a + 2 * b + 2 * c + d)


@dataclass(frozen=True)
class Unconstrained(Sampler):
    """The flow alone."""

    reference: ClassVar[str] = "Lipman et al., ICLR 2023"

    base: Sampler

    def step(self, x: Tensor, t: Tensor, s: Tensor, x0: Tensor) -> Tensor:
        return self.base.step(x, t, s, x0)


@dataclass(frozen=True)
class Adaptive(Sampler):
    """torchdiffeq's adaptive rules between the given times. The error norm is over the whole batch.

    Attributes:
        method: torchdiffeq's name of the rule.
        rtol: relative tolerance.
        atol: absolute tolerance.

    Source:
        Chen, torchdiffeq (2018); Dormand & Prince, J. Comput. Appl. Math. 6 (1980) 19.
    """

    velocity: Velocity
    method: str = "dopri5"
    rtol: float = 1e-5
    atol: float = 1e-5

    def step(self, x: Tensor, t: Tensor, s: Tensor, x0: Tensor) -> Tensor:
        from torchdiffeq import odeint

        states: Tensor = odeint(
            lambda time, state: self.velocity(state, time), x, torch.stack([t, s]), method=self.method, rtol=self.rtol, atol=self.atol
        )
        return states[-1]
