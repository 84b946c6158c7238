r"""Signal and noise scales of affine paths $x_t = \alpha_t x_1 + \sigma_t x_0$, noise at $t = 0$, data at $t = 1$.

A path tells $x_1$ from $x_0$ by $\delta_t = \dot\alpha_t\sigma_t - \alpha_t\dot\sigma_t$, which must be positive on the whole of [0, 1];
then $\alpha_t/\sigma_t$ increases, and any two schedules pass the same ratios. Schedules whose textbook form has an infinite rate at
the data (variance preserving) end with a little noise instead, `floor`; those whose rate vanishes at the noise (polynomial) begin a
little later.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

_BISECTIONS = 60
_MIXED = 0.1
"""Largest ratio of signal to noise at t = 0, and of noise to signal at t = 1, of a schedule that leads from noise to data."""
_SCALED = 0.01
"""Largest deviation of the signal at t = 1 from 1: of constant variance with noise of `_MIXED` it is 0.005."""


class Scales(NamedTuple):
    """Scales of a path at some times and their derivatives in t."""

    signal: Tensor
    noise: Tensor
    signal_rate: Tensor
    noise_rate: Tensor

    @property
    def turn(self) -> Tensor:
        r"""$\delta_t = \dot\alpha_t\sigma_t - \alpha_t\dot\sigma_t$."""
        return self.signal_rate * self.noise - self.signal * self.noise_rate

    @property
    def share(self) -> Tensor:
        r"""$\alpha_t/(\alpha_t + \sigma_t)$: the time at which the straight path has this ratio of signal to noise."""
        return self.signal / (self.signal + self.noise)


class Schedule(ABC):
    """How much data and how much noise a point of the path holds."""

    @abstractmethod
    def __call__(self, t: Tensor) -> Scales:
        r"""$\alpha_t, \sigma_t, \dot\alpha_t, \dot\sigma_t$, each of the shape of t."""

    def time_of(self, signal: Tensor, noise: Tensor) -> Tensor:
        r"""The time at which $\alpha_t : \sigma_t$ is a given ratio; 0 or 1 for ratios that it does not pass."""
        low, high = torch.zeros_like(signal), torch.ones_like(signal)
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            at = self(middle)
            early = at.signal * noise < signal * at.noise
            low, high = torch.where(early, middle, low), torch.where(early, high, middle)
        return (low + high) / 2


@dataclass(frozen=True)
class Linear(Schedule):
    r"""Straight lines at constant speed.

    $\alpha_t = t$, $\sigma_t = 1 - (1 - f)t$.

    Attributes:
        floor: f, the noise left at t = 1.

    Raises:
        ValueError: a floor out of range.

    Source:
        Lipman et al., Flow matching for generative modeling, ICLR 2023, whose f is not 0; Liu et al., ICLR 2023.
    """

    floor: float = 0.0

    def __post_init__(self) -> None:
        _in_range("a linear schedule", "floor", self.floor, 0, _MIXED)

    def __call__(self, t: Tensor) -> Scales:
        one = torch.ones_like(t)
        return Scales(t, (1 - t) + self.floor * t, one, -(1 - self.floor) * one)


@dataclass(frozen=True)
class Polynomial(Schedule):
    r"""Straight lines by a power of the time, slow at the noise for powers above 1.

    $\alpha_t = t^n$, $\sigma_t = 1 - t^n$.

    The rate of $t^n$ at 0 is 0 for n > 1 and infinite for n < 1; in its place stands
    $\alpha_t = (\tau^n - o^n)/(1 - o^n)$ with $\tau = o + (1 - o)t$, which keeps both ends.

    Attributes:
        power: n.
        offset: o.

    Raises:
        ValueError: a power or an offset out of range.
    """

    power: float = 2.0
    offset: float = 0.01

    def __post_init__(self) -> None:
        _in_range("a polynomial schedule", "power", self.power, 0, 20, open_below=True)
        _in_range("a polynomial schedule", "offset", self.offset, 0, 0.5)

    def __call__(self, t: Tensor) -> Scales:
        n, o = self.power, self.offset
        tau = o + (1 - o) * t
        whole = 1 - o**n
        signal, rate = (tau**n - o**n) / whole, n * (1 - o) / whole * tau ** (n - 1)
        return Scales(signal, (1 - tau**n) / whole, rate, -rate)


@dataclass(frozen=True)
class Cosine(Schedule):
    r"""A quarter of a circle: constant variance for whitened, independent ends.

    $\alpha_t = \sin(\pi t/2)$, $\sigma_t = \cos(\pi t/2)$.
    """

    def __call__(self, t: Tensor) -> Scales:
        angle = math.pi / 2 * t
        sine, cosine = torch.sin(angle), torch.cos(angle)
        return Scales(sine, cosine, math.pi / 2 * cosine, -math.pi / 2 * sine)


@dataclass(frozen=True)
class LinearSignal(Schedule):
    r"""Constant variance, the signal in equal steps.

    $\alpha_t = ct$, $\sigma_t = \sqrt{1 - \alpha_t^2}$ with $c = \sqrt{1 - f^2}$.

    Attributes:
        floor: f, the noise left at t = 1, without which $\dot\sigma_1$ is infinite.

    Raises:
        ValueError: a floor out of range.
    """

    floor: float = 1e-3

    def __post_init__(self) -> None:
        _in_range("a schedule of linear signal", "floor", self.floor, 0, _MIXED)

    def __call__(self, t: Tensor) -> Scales:
        c = math.sqrt(1 - self.floor**2)
        left = self.floor**2 / (1 + c) + c * (1 - t)  # 1 - ct, without cancellation
        signal = c * t
        noise = (left * (1 + signal)).sqrt()
        return Scales(signal, noise, c * torch.ones_like(t), -c * signal / noise)


@dataclass(frozen=True)
class VariancePreserving(Schedule):
    r"""Constant variance, at a rate of noise that is linear in time: the diffusion of most models.

    $\alpha_t = e^{-T/2}$, $\sigma_t = \sqrt{1 - e^{-T}}$ with $T = (1-t)^2(B-b)/2 + (1-t)b - \log(1 - f^2)$.

    At t = 0 a signal of $e^{-(B+b)/4}$ is left, 0.0066 by default, which sampling from pure noise neglects.

    Attributes:
        least: b, the rate of noise at the data.
        most: B, that at the noise.
        floor: f, the noise left at t = 1, without which $\dot\sigma_1$ is infinite.

    Raises:
        ValueError: rates out of order or a floor out of range.

    Source:
        Song et al., Score-based generative modeling through stochastic differential equations, ICLR 2021, who stop at a time of 1e-5
        instead, where the noise is 1e-3 too.
    """

    least: float = 0.1
    most: float = 20.0
    floor: float = 1e-3

    def __post_init__(self) -> None:
        _in_range("a variance-preserving schedule", "floor", self.floor, 0, _MIXED)
        if not 0 < self.least <= self.most < math.inf:
            raise ValueError(f"a variance-preserving schedule expects rates 0 < least <= most; got {self.least} and {self.most}.")

    def __call__(self, t: Tensor) -> Scales:
        left, rise = 1 - t, self.most - self.least
        total = left**2 * (rise / 2) + left * self.least - math.log1p(-(self.floor**2))
        rate = left * rise + self.least
        signal, noise = torch.exp(-total / 2), torch.sqrt(-torch.expm1(-total))
        return Scales(signal, noise, rate * signal / 2, -rate * signal**2 / (2 * noise))


@dataclass(frozen=True)
class VarianceExploding(Schedule):
    r"""Noise of growing scale added to data that stay as they are.

    $\alpha_t = 1$, $\sigma_t = b\,(B/b)^{1-t}$.

    Trajectories begin at $B x_0$, of a scale that drowns the data.

    Attributes:
        least: b, the noise left at t = 1.
        most: B, that at t = 0.

    Raises:
        ValueError: scales out of order, or none that drowns normalised data.

    Source:
        Song et al., ICLR 2021.
    """

    least: float = 0.01
    most: float = 50.0

    def __post_init__(self) -> None:
        if not (0 < self.least <= _MIXED and 1 / _MIXED <= self.most < math.inf):
            raise ValueError(
                f"a variance-exploding schedule expects 0 < least <= {_MIXED:g} and most of at least {1 / _MIXED:g}; "
                f"got {self.least} and {self.most}."
            )

    def __call__(self, t: Tensor) -> Scales:
        ratio = math.log(self.most / self.least)
        noise = self.least * torch.exp(ratio * (1 - t))
        return Scales(torch.ones_like(t), noise, torch.zeros_like(t), -ratio * noise)


@dataclass(frozen=True)
class Custom(Schedule):
    r"""Any $\alpha_t$ and $\sigma_t$; their rates by automatic differentiation.

    Attributes:
        signal: $\alpha$, a differentiable function of times of any shape, value by value.
        noise: $\sigma$, likewise.

    Example:
        >>> scales = Custom(lambda t: t**3, lambda t: (1 - t) ** 2)(torch.tensor(0.5))
        >>> [round(k.item(), 3) for k in scales]
        [0.125, 0.25, 0.75, -1.0]
    """

    signal: Callable[[Tensor], Tensor]
    noise: Callable[[Tensor], Tensor]

    def __call__(self, t: Tensor) -> Scales:
        return Scales(self.signal(t), self.noise(t), rate(self.signal, t), rate(self.noise, t))


@dataclass(frozen=True)
class Mirrored(Schedule):
    r"""A schedule written with data at time 0 and noise at time 1, as much of the literature has it: $t \mapsto 1 - t$.

    Attributes:
        schedule: scales and their rates as functions of that time.

    Example:
        >>> Mirrored(Custom(lambda r: 1 - r, lambda r: r))(torch.tensor(0.25)).signal.item()
        0.25
    """

    schedule: Callable[[Tensor], Scales]

    def __call__(self, t: Tensor) -> Scales:
        signal, noise, signal_rate, noise_rate = self.schedule(1 - t)
        return Scales(signal, noise, -signal_rate, -noise_rate)


def rate(scale: Callable[[Tensor], Tensor], t: Tensor) -> Tensor:
    """The derivative of a function of times, value by value, of the shape of t."""
    with torch.enable_grad():
        free = t.detach().clone().requires_grad_()
        value = scale(free)
        if not value.requires_grad:
            return torch.zeros_like(t)
        return torch.autograd.grad(value.sum(), free)[0]


def check(schedule: Schedule) -> None:
    """Check that a schedule leads from noise to data, and tells them apart at all times.

    Raises:
        ValueError: scales of another shape than the times, not finite or negative; a ratio of signal to noise that does not increase; ends
            that are not noise and data.
    """
    t = torch.linspace(0, 1, 129, dtype=torch.float64)
    scales, name = schedule(t), type(schedule).__name__
    if any(scale.shape != t.shape for scale in scales):
        raise ValueError(f"a schedule expects scales of the shape of t, {tuple(t.shape)}; {name} gives {[tuple(s.shape) for s in scales]}.")
    for word, scale in zip(("signal", "noise", "rate of the signal", "rate of the noise"), scales, strict=True):
        bad = ~torch.isfinite(scale) if word.startswith("rate") else ~(scale >= 0) | torch.isinf(scale)
        if bad.any():
            at = float(t[bad][0])
            raise ValueError(f"a schedule expects a finite {word}, scales not negative; {name} has {float(scale[bad][0]):g} at t = {at:g}.")
    if not (scales.turn > 0).all():
        at = float(t[~(scales.turn > 0)][0])
        raise ValueError(
            f"a schedule expects signal : noise to increase at all times, at a rate that is not 0; that of {name} does not at t = {at:g}."
        )
    if scales.signal[0] > _MIXED * scales.noise[0]:
        raise ValueError(
            f"a schedule expects noise at t = 0; {name} holds a signal of {float(scales.signal[0]):g} beside noise of "
            f"{float(scales.noise[0]):g} there. If its noise is at t = 1, view it through Mirrored."
        )
    if scales.noise[-1] > _MIXED * scales.signal[-1]:
        raise ValueError(
            f"a schedule expects to reach the data at t = 1; {name} holds noise of {float(scales.noise[-1]):g} beside a signal of "
            f"{float(scales.signal[-1]):g} there."
        )
    if abs(scales.signal[-1] - 1) > _SCALED:
        raise ValueError(
            f"a schedule expects a signal of 1 at t = 1, the data themselves; that of {name} is {float(scales.signal[-1]):g}. "
            "Divide signal and noise by it."
        )


def _in_range(what: str, name: str, value: float, low: float, high: float, open_below: bool = False) -> None:
    if not (low < value if open_below else low <= value) or not value <= high:
        raise ValueError(f"{what} expects {name} in {'(' if open_below else '['}{low:g}, {high:g}]; got {value}.")
