"""Probability paths between a source and data, sampled pair by pair."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from pcfm.schedule import Linear, Schedule


class PathSample(NamedTuple):
    """A point on a path and the velocity there, (B, C, *N) each."""

    x_t: Tensor
    velocity: Tensor


class Path(ABC):
    """Where a pair (x0, x1) is at time t, and where a velocity points."""

    @abstractmethod
    def sample(self, x0: Tensor, x1: Tensor, t: Tensor) -> PathSample:
        """The point at time t, () or (B,), between x0 and x1, and its velocity."""

    @abstractmethod
    def endpoint(self, x_t: Tensor, velocity: Tensor, t: Tensor) -> Tensor:
        """The x1 that the point and the velocity determine."""

    @abstractmethod
    def origin(self, x_t: Tensor, velocity: Tensor, t: Tensor) -> Tensor:
        """The x0 that the point and the velocity determine."""

    @abstractmethod
    def ends(self, x_t: Tensor, x_s: Tensor, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """The x1 and the x0 whose path passes x_t at time t and x_s at time s."""


def broadcast(t: Tensor, x: Tensor) -> Tensor:
    """Times () or (B,), shaped so that they multiply fields (B, ...)."""
    return t.reshape(t.shape + (1,) * (x.ndim - t.ndim)) if t.ndim else t


@dataclass(frozen=True)
class AffinePath(Path):
    r"""$x_t = \alpha_t x_1 + \sigma_t x_0$; with the default schedule the straight path of optimal transport.

    From $\dot x_t = \dot\alpha_t x_1 + \dot\sigma_t x_0$ follows
    $x_1 = (\sigma_t \dot x_t - \dot\sigma_t x_t)/\delta_t$ and $x_0 = (\dot\alpha_t x_t - \alpha_t \dot x_t)/\delta_t$ with
    $\delta_t = \dot\alpha_t\sigma_t - \alpha_t\dot\sigma_t$.

    Source:
        Lipman et al., Flow matching for generative modeling, ICLR 2023; Liu et al., Flow straight and fast, ICLR 2023.
    """

    schedule: Schedule = Linear()

    def sample(self, x0: Tensor, x1: Tensor, t: Tensor) -> PathSample:
        signal, noise, signal_rate, noise_rate = (broadcast(k, x1) for k in self.schedule(t))
        return PathSample(signal * x1 + noise * x0, signal_rate * x1 + noise_rate * x0)

    def endpoint(self, x_t: Tensor, velocity: Tensor, t: Tensor) -> Tensor:
        signal, noise, signal_rate, noise_rate = (broadcast(k, x_t) for k in self.schedule(t))
        return (noise * velocity - noise_rate * x_t) / (signal_rate * noise - signal * noise_rate)

    def origin(self, x_t: Tensor, velocity: Tensor, t: Tensor) -> Tensor:
        signal, noise, signal_rate, noise_rate = (broadcast(k, x_t) for k in self.schedule(t))
        return (signal_rate * x_t - signal * velocity) / (signal_rate * noise - signal * noise_rate)

    def ends(self, x_t: Tensor, x_s: Tensor, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        now, then = self.schedule(t), self.schedule(s)
        a, b, c, d = (broadcast(k, x_t) for k in (now.signal, now.noise, then.signal, then.noise))
        cross = c * b - a * d
        return (b * x_s - d * x_t) / cross, (c * x_t - a * x_s) / cross
