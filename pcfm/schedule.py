r"""Signal and noise scales of affine paths $x_t = \alpha_t x_1 + \sigma_t x_0$, noise at $t = 0$, data at $t = 1$."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor


class Scales(NamedTuple):
    """Scales of a path at some times and their derivatives in t."""

    signal: Tensor
    noise: Tensor
    signal_rate: Tensor
    noise_rate: Tensor


class Schedule(ABC):
    """How much data and how much noise a point of the path holds."""

    @abstractmethod
    def __call__(self, t: Tensor) -> Scales:
        r"""$\alpha_t, \sigma_t, \dot\alpha_t, \dot\sigma_t$, each of the shape of t."""


class Linear(Schedule):
    r"""$\alpha_t = t$, $\sigma_t = 1 - t$: straight lines at constant speed."""

    def __call__(self, t: Tensor) -> Scales:
        one = torch.ones_like(t)
        return Scales(t, 1 - t, one, -one)


class Cosine(Schedule):
    r"""$\alpha_t = \sin(\pi t/2)$, $\sigma_t = \cos(\pi t/2)$: constant variance for whitened, independent ends."""

    def __call__(self, t: Tensor) -> Scales:
        angle = math.pi / 2 * t
        sine, cosine = torch.sin(angle), torch.cos(angle)
        return Scales(sine, cosine, math.pi / 2 * cosine, -math.pi / 2 * sine)
