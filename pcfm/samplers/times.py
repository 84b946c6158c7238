r"""Flow times of the steps, from 0 to 1.

With $q = 1 - t$ the share of noise on the straight path and $r = i/N$:
uniform $t = r$; shifted $q = k(1-r)/(1 + (k-1)(1-r))$; power $t = 1 - (1-r)^p$; cosine $t = \sin^2(\pi r/2)$; levels
$t = 1/(1+\varsigma)$ with $\varsigma^{1/\rho}$ in equal steps.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor


class Times(ABC):
    """A rule that spaces the times of N steps."""

    @abstractmethod
    def of(self, r: Tensor) -> Tensor:
        """Times of equal parts r of [0, 1], increasing from 0 to 1."""

    def __call__(self, steps: int, dtype: torch.dtype = torch.float64) -> Tensor:
        """Times of so many steps, (steps + 1,), the ends exact."""
        times = self.of(torch.linspace(0, 1, steps + 1, dtype=torch.float64))
        times[0], times[-1] = 0.0, 1.0
        return times.to(dtype)


@dataclass(frozen=True)
class UniformTimes(Times):
    """Equal steps."""

    def of(self, r: Tensor) -> Tensor:
        return r.clone()


@dataclass(frozen=True)
class ShiftedTimes(Times):
    """More steps in the noise, or in the data with a factor below 1.

    Attributes:
        factor: k.

    Source:
        Esser et al., Scaling rectified flow transformers, ICML 2024.
    """

    factor: float = 3.0

    def __post_init__(self) -> None:
        _positive("shifted", "factor", self.factor)

    def of(self, r: Tensor) -> Tensor:
        return 1 - self.factor * (1 - r) / (1 + (self.factor - 1) * (1 - r))


@dataclass(frozen=True)
class PowerTimes(Times):
    """Steps that shrink towards the data, or towards the noise with an exponent below 1.

    Attributes:
        exponent: p.
    """

    exponent: float = 2.0

    def __post_init__(self) -> None:
        _positive("power", "exponent", self.exponent)

    def of(self, r: Tensor) -> Tensor:
        return 1 - (1 - r) ** self.exponent


@dataclass(frozen=True)
class CosineTimes(Times):
    """Small steps at both ends."""

    def of(self, r: Tensor) -> Tensor:
        return torch.sin(math.pi / 2 * r).square()


@dataclass(frozen=True)
class LevelTimes(Times):
    """Noise levels of diffusion models, spaced by a power, with the ends of the flow added: the first and last steps reach them.

    Attributes:
        most: the largest ratio of noise to signal.
        least: the smallest but 0.
        rho: the exponent.

    Source:
        Karras et al., Elucidating the design space of diffusion-based generative models, NeurIPS 2022.
    """

    most: float = 80.0
    least: float = 0.002
    rho: float = 7.0

    fewest: ClassVar[int] = 3

    def __post_init__(self) -> None:
        _positive("levels", "rho", self.rho)
        if not 0 < self.least < self.most < math.inf:
            raise ValueError(f"times 'levels' expect 0 < least < most; got {self.least} and {self.most}.")

    def of(self, r: Tensor) -> Tensor:
        if len(r) <= self.fewest:
            raise ValueError(f"times 'levels' expect at least {self.fewest} steps; got {len(r) - 1}.")
        inner = torch.linspace(0, 1, len(r) - 2, dtype=r.dtype)
        ends = (self.most ** (1 / self.rho), self.least ** (1 / self.rho))
        levels = (ends[0] + inner * (ends[1] - ends[0])) ** self.rho
        return torch.cat([r[:1], 1 / (1 + levels), r[-1:]])


TIMES: dict[str, type[Times]] = {
    "uniform": UniformTimes,
    "shifted": ShiftedTimes,
    "power": PowerTimes,
    "cosine": CosineTimes,
    "levels": LevelTimes,
}


def _positive(name: str, key: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise ValueError(f"times '{name}' expect a positive {key}; got {value}.")
