"""Probability paths between a source and data, sampled pair by pair."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from pcfm.schedule import Linear, Scales, Schedule, check


class PathSample(NamedTuple):
    """A point on a path and the velocity there, (B, C, *N) each."""

    x_t: Tensor
    velocity: Tensor


class Path(ABC):
    """Where a pair (x0, x1) is at time t, and where a velocity points."""

    @abstractmethod
    def sample(self, x0: Tensor, x1: Tensor, t: Tensor) -> PathSample:
        """The point at time t, () or (B,), between x0 and x1, and its velocity.

        Raises:
            ValueError: a pair of two shapes, or times out of [0, 1] (looked at on the CPU, outside torch.func and torch.compile).
        """

    @abstractmethod
    def endpoint(self, x_t: Tensor, velocity: Tensor, t: Tensor) -> Tensor:
        """The x1 that the point and the velocity determine."""

    @abstractmethod
    def origin(self, x_t: Tensor, velocity: Tensor, t: Tensor) -> Tensor:
        """The x0 that the point and the velocity determine."""

    def start(self, x0: Tensor) -> Tensor:
        """The state at t = 0 of a trajectory from x0."""
        return x0

    def drawn(self, noise: Callable[[], Tensor]) -> Path:
        """The path with what is random between its ends drawn; most have nothing that is.

        Arguments:
            noise: draws from the source, of the shape of the batch.
        """
        return self

    @abstractmethod
    def ends(self, x_t: Tensor, x_s: Tensor, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """The x1 and the x0 whose path passes x_t at time t and x_s at time s."""


def broadcast(t: Tensor, x: Tensor) -> Tensor:
    """Times () or (B,), shaped so that they multiply fields (B, ...)."""
    return t.reshape(t.shape + (1,) * (x.ndim - t.ndim)) if t.ndim else t


_ROUNDING = 1e-6
"""By how much times may leave [0, 1]: a few roundings in single precision."""


def expect_flow_times(t: Tensor) -> None:
    """Check that times are in [0, 1], where that costs no synchronisation with a device and the values are there to see.

    Raises:
        ValueError: they are not.
    """
    traced = torch.compiler.is_compiling() or torch._C._functorch.peek_interpreter_stack() is not None
    if traced or t.device.type != "cpu":
        return
    within = (t >= -_ROUNDING) & (t <= 1 + _ROUNDING)  # False for NaN
    if not bool(within.all()):
        raise ValueError(f"a flow expects times in [0, 1], noise at 0 and data at 1; got {float(t[~within].flatten()[0]):g}.")


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

    def __post_init__(self) -> None:
        check(self.schedule)

    def scales(self, t: Tensor, x: Tensor) -> Scales:
        """The scales at times () or (B,), shaped so that they multiply fields (B, ...)."""
        return Scales(*(broadcast(scale, x) for scale in self.schedule(t)))

    def sample(self, x0: Tensor, x1: Tensor, t: Tensor) -> PathSample:
        if x0.shape != x1.shape:
            raise ValueError(f"a path expects a pair of one shape; got x0 {tuple(x0.shape)} and x1 {tuple(x1.shape)}.")
        expect_flow_times(t)
        signal, noise, signal_rate, noise_rate = self.scales(t, x1)
        return PathSample(signal * x1 + noise * x0, signal_rate * x1 + noise_rate * x0)

    def endpoint(self, x_t: Tensor, velocity: Tensor, t: Tensor) -> Tensor:
        at = self.scales(t, x_t)
        return (at.noise * velocity - at.noise_rate * x_t) / at.turn

    def origin(self, x_t: Tensor, velocity: Tensor, t: Tensor) -> Tensor:
        at = self.scales(t, x_t)
        return (at.signal_rate * x_t - at.signal * velocity) / at.turn

    def start(self, x0: Tensor) -> Tensor:
        """$\\sigma_0 x_0$: the signal that a schedule has left at t = 0 is unknown there."""
        return self.schedule(x0.new_zeros(())).noise * x0

    def ends(self, x_t: Tensor, x_s: Tensor, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        now, then = self.scales(t, x_t), self.scales(s, x_s)
        cross = then.signal * now.noise - now.signal * then.noise
        return (now.noise * x_s - then.noise * x_t) / cross, (then.signal * x_t - now.signal * x_s) / cross


def expect_affine(path: Path, what: str) -> None:
    """Check that a path is affine, for what needs its scales or takes its ends from a state.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(path, AffinePath):
        raise ValueError(
            f"{what} expects an AffinePath, whose ends follow from state and velocity; got {type(path).__name__}. "
            "Train along an affine path, or take a method for any path."
        )


@dataclass(frozen=True)
class BridgePath(Path):
    r"""Brownian bridges between the ends, $x_t = (1-t)x_0 + t x_1 + \sigma\sqrt{t(1-t)}\,\epsilon$.

    $$\dot x_t = x_1 - x_0 + \frac{1 - 2t}{2t(1-t)}(x_t - \mu_t),\qquad \mu_t = (1-t)x_0 + t x_1,$$

    whose mean at fixed $x_t$ makes the marginals of the bridge. The ends do not follow from state and velocity; `endpoint`, `origin` and
    `ends` are those of the straight line through them. The noise of a path is drawn once (`drawn`); without it the bridge is its mean.

    Attributes:
        noise: sigma.
        draw: epsilon, of the shape of the batch.
        margin: distance kept from t = 0 and 1, where the velocity has no bound.

    Raises:
        ValueError: a noise that is not positive, or a margin out of range.

    Source:
        Tong et al., Simulation-free Schrödinger bridges via score and flow matching, AISTATS 2024.
    """

    noise: float = 1.0
    draw: Tensor | None = None
    margin: float = 1e-4

    def __post_init__(self) -> None:
        if not (self.noise > 0 and 0 < self.margin < 0.5):
            raise ValueError(f"a bridge expects a positive noise and a margin in (0, 0.5); got {self.noise} and {self.margin}.")

    def drawn(self, noise: Callable[[], Tensor]) -> BridgePath:
        return replace(self, draw=noise())

    def spread(self, t: Tensor) -> Tensor:
        r"""$\sigma\sqrt{t(1-t)}$."""
        return self.noise * (t * (1 - t)).sqrt()

    def sample(self, x0: Tensor, x1: Tensor, t: Tensor) -> PathSample:
        x_t, velocity = _STRAIGHT.sample(x0, x1, t)
        if self.draw is None:
            return PathSample(x_t, velocity)
        inner = t.clamp(self.margin, 1 - self.margin)
        offset = broadcast(self.spread(inner), x_t) * self.draw
        return PathSample(x_t + offset, velocity + broadcast((1 - 2 * inner) / (2 * inner * (1 - inner)), x_t) * offset)

    def endpoint(self, x_t: Tensor, velocity: Tensor, t: Tensor) -> Tensor:
        return _STRAIGHT.endpoint(x_t, velocity, t)

    def origin(self, x_t: Tensor, velocity: Tensor, t: Tensor) -> Tensor:
        return _STRAIGHT.origin(x_t, velocity, t)

    def ends(self, x_t: Tensor, x_s: Tensor, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        return _STRAIGHT.ends(x_t, x_s, t, s)


_STRAIGHT = AffinePath()
