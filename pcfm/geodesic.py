r"""Flow matching on manifolds: fields whose values lie on spheres, tori and products of them, point by point.

From $x_0$ to $x_1$ goes the geodesic

$$x_t = \exp_{x_0}\!\big(t \log_{x_0} x_1\big),\qquad \dot x_t = \frac{1}{1-t}\log_{x_t} x_1,$$

whose velocity is tangent at $x_t$ and of constant length, the distance of the ends. A field (B, C, *N) holds the coordinates of a point of
the manifold in its channels; vectors are tangent, and of the same shape.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pcfm.path import Path, PathSample, broadcast
from pcfm.samplers.sampler import Sampler
from pcfm.velocity import Velocity

_NEAR = 1e-3
"""Angle below which ratios of angle and sine are taken from their series."""


class Manifold(ABC):
    """Points in the channels of fields.

    Attributes:
        channels: coordinates of a point.
    """

    channels: int

    @abstractmethod
    def exp(self, x: Tensor, v: Tensor) -> Tensor:
        """The end of the geodesic that leaves x with the tangent velocity v, after unit time."""

    @abstractmethod
    def log(self, x: Tensor, y: Tensor) -> Tensor:
        """The tangent velocity at x with which a shortest geodesic reaches y in unit time."""

    @abstractmethod
    def tangent(self, x: Tensor, v: Tensor) -> Tensor:
        """The tangent vector at x nearest to v."""

    @abstractmethod
    def nearest(self, x: Tensor) -> Tensor:
        """The point of the manifold nearest to x."""

    @abstractmethod
    def uniform(self, white: Tensor) -> Tensor:
        """Uniform points from independent standard normals, (B, C, *N)."""

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        """Of points, (B, *N)."""
        return self.log(x, y).norm(dim=1)

    def check(self, x: Tensor) -> None:
        """Check that fields lie on the manifold.

        Raises:
            ValueError: another number of channels, or values that do not.
        """
        if x.ndim < 2 or x.shape[1] != self.channels:
            raise ValueError(f"{type(self).__name__} expects {self.channels} channels, (B, {self.channels}, *N); got {tuple(x.shape)}.")
        off = float((x - self.nearest(x)).abs().max())
        if not off < 1e-3:
            raise ValueError(
                f"{type(self).__name__} expects points on it; got some that are off by {off:.2g}. Take `nearest` of them first."
            )


@dataclass(frozen=True)
class Sphere(Manifold):
    """Unit vectors.

    Attributes:
        channels: their components: 2 for the circle, 3 for the sphere.

    Raises:
        ValueError: less than 2.
    """

    channels: int = 3

    def __post_init__(self) -> None:
        if self.channels < 2:
            raise ValueError(f"Sphere expects at least 2 channels; got {self.channels}.")

    def exp(self, x: Tensor, v: Tensor) -> Tensor:
        v = self.tangent(x, v)
        square = v.square().sum(1, keepdim=True)
        return self.nearest(_cos(square) * x + _sinc(square) * v)

    def log(self, x: Tensor, y: Tensor) -> Tensor:
        """Of antipodes, which every direction reaches: towards the axis that x is farthest from."""
        across = self.tangent(x, y)
        sine = _norm(across)
        cosine = (x * y).sum(1, keepdim=True)
        opposite = (cosine < 0) & (sine < 1e-6)
        pole = torch.zeros_like(x).scatter_(1, x.abs().argmin(1, keepdim=True), 1.0)
        aside = self.tangent(x, pole)
        aside = aside / _norm(aside).clamp_min(1e-12)
        near = (cosine > 0) & (sine < _NEAR)
        safe = torch.where(near | opposite, torch.ones_like(sine), sine)
        ratio = torch.where(near, 1 + across.square().sum(1, keepdim=True) / 6, torch.atan2(safe, cosine) / safe)
        return torch.where(opposite, torch.pi * aside, ratio * across)

    def tangent(self, x: Tensor, v: Tensor) -> Tensor:
        return v - (x * v).sum(1, keepdim=True) * x

    def nearest(self, x: Tensor) -> Tensor:
        return x / x.norm(dim=1, keepdim=True)

    def uniform(self, white: Tensor) -> Tensor:
        return self.nearest(white)


@dataclass(frozen=True)
class FlatTorus(Manifold):
    """Coordinates that come back to themselves, in [0, period).

    Attributes:
        channels: how many.
        period: of each.

    Raises:
        ValueError: no channel, or a period that is not positive.
    """

    channels: int = 1
    period: float = 1.0

    def __post_init__(self) -> None:
        if self.channels < 1 or not self.period > 0:
            raise ValueError(f"FlatTorus expects at least one channel and a positive period; got {self.channels} and {self.period}.")

    def exp(self, x: Tensor, v: Tensor) -> Tensor:
        return self.nearest(x + v)

    def log(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.remainder(y - x + self.period / 2, self.period) - self.period / 2

    def tangent(self, x: Tensor, v: Tensor) -> Tensor:
        return v

    def nearest(self, x: Tensor) -> Tensor:
        wrapped = torch.remainder(x, self.period)
        return torch.where(wrapped == self.period, torch.zeros_like(wrapped), wrapped)

    def uniform(self, white: Tensor) -> Tensor:
        return self.nearest(self.period * torch.special.ndtr(white))


@dataclass(frozen=True)
class Euclidean(Manifold):
    """Values without bound; "uniform" is a standard normal.

    Attributes:
        channels: how many.
    """

    channels: int = 1

    def exp(self, x: Tensor, v: Tensor) -> Tensor:
        return x + v

    def log(self, x: Tensor, y: Tensor) -> Tensor:
        return y - x

    def tangent(self, x: Tensor, v: Tensor) -> Tensor:
        return v

    def nearest(self, x: Tensor) -> Tensor:
        return x

    def uniform(self, white: Tensor) -> Tensor:
        return white


class Product(Manifold):
    """Several manifolds, one after the other in the channels.

    Arguments:
        factors: the manifolds.

    Example:
        >>> Product(Sphere(3), FlatTorus(2), Euclidean(1)).channels
        6
    """

    def __init__(self, *factors: Manifold) -> None:
        if not factors:
            raise ValueError("Product expects at least one manifold.")
        self.factors = factors
        self.channels = sum(factor.channels for factor in factors)

    def _split(self, x: Tensor) -> Sequence[Tensor]:
        return x.split([factor.channels for factor in self.factors], dim=1)

    def _each(self, name: str, *fields: Tensor) -> Tensor:
        parts = zip(self.factors, *(self._split(x) for x in fields), strict=True)
        return torch.cat([getattr(factor, name)(*pieces) for factor, *pieces in parts], dim=1)

    def exp(self, x: Tensor, v: Tensor) -> Tensor:
        return self._each("exp", x, v)

    def log(self, x: Tensor, y: Tensor) -> Tensor:
        return self._each("log", x, y)

    def tangent(self, x: Tensor, v: Tensor) -> Tensor:
        return self._each("tangent", x, v)

    def nearest(self, x: Tensor) -> Tensor:
        return self._each("nearest", x)

    def uniform(self, white: Tensor) -> Tensor:
        return self._each("uniform", white)


@dataclass(frozen=True)
class GeodesicPath(Path):
    """Geodesics between points of a manifold, at constant speed.

    Attributes:
        manifold: where the points lie.

    Source:
        Chen & Lipman, Flow matching on general geometries, ICLR 2024.
    """

    manifold: Manifold

    def sample(self, x0: Tensor, x1: Tensor, t: Tensor) -> PathSample:
        t = broadcast(t, x0)
        away = self.manifold.log(x0, x1)
        x_t = self.manifold.exp(x0, t * away)
        # From x_t the nearer end is the safer one: both logarithms lie along the same geodesic.
        ahead, behind = self.manifold.log(x_t, x1), -self.manifold.log(x_t, x0)
        return PathSample(x_t, torch.where(t < 0.5, ahead / (1 - t).clamp_min(0.5), behind / t.clamp_min(0.5)))

    def endpoint(self, x_t: Tensor, velocity: Tensor, t: Tensor) -> Tensor:
        return self.manifold.exp(x_t, broadcast(1 - t, x_t) * velocity)

    def origin(self, x_t: Tensor, velocity: Tensor, t: Tensor) -> Tensor:
        return self.manifold.exp(x_t, -broadcast(t, x_t) * velocity)

    def ends(self, x_t: Tensor, x_s: Tensor, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        velocity = self.manifold.log(x_t, x_s) / broadcast(s - t, x_t)
        return self.endpoint(x_t, velocity, t), self.origin(x_t, velocity, t)


@dataclass(frozen=True)
class GeodesicEuler(Sampler):
    """Steps along geodesics, order 1, one network call each; states stay on the manifold.

    Attributes:
        velocity: of the flow; its tangent part is taken.
        manifold: where the points lie.
    """

    velocity: Velocity
    manifold: Manifold

    def step(self, x: Tensor, t: Tensor, s: Tensor, x0: Tensor) -> Tensor:
        return self.manifold.exp(x, (s - t) * self.manifold.tangent(x, self.velocity(x, t)))


@dataclass(frozen=True)
class GeodesicMidpoint(Sampler):
    """The velocity halfway along a geodesic, order 2, two network calls each.

    It is carried back to the start as the nearest tangent vector there, which differs from parallel transport by the square of the step.

    Attributes:
        velocity: of the flow; its tangent part is taken.
        manifold: where the points lie.
    """

    velocity: Velocity
    manifold: Manifold

    def step(self, x: Tensor, t: Tensor, s: Tensor, x0: Tensor) -> Tensor:
        h, on = s - t, self.manifold
        middle = on.exp(x, h / 2 * on.tangent(x, self.velocity(x, t)))
        return on.exp(x, h * on.tangent(x, self.velocity(middle, t + h / 2)))


def manifold_loss(velocity: Velocity, path: GeodesicPath, x0: Tensor, x1: Tensor, t: Tensor) -> Tensor:
    """Mean square of the tangent part of the velocity less that of the path, for each sample, (B,).

    Raises:
        ValueError: ends off the manifold.
    """
    for end in (x0, x1):
        path.manifold.check(end)
    x_t, target = path.sample(x0, x1, t)
    return (path.manifold.tangent(x_t, velocity(x_t, t)) - target).square().flatten(1).mean(1)


def _norm(v: Tensor) -> Tensor:
    """Lengths (B, 1, *N), with a derivative at 0."""
    square = v.square().sum(1, keepdim=True)
    return torch.where(square > 0, torch.where(square > 0, square, 1.0).sqrt(), 0.0)


def _angle(square: Tensor) -> tuple[Tensor, Tensor]:
    """Whether angles of these squares are small, and the angle where it is not."""
    near = square < _NEAR**2
    return near, torch.where(near, torch.ones_like(square), square).sqrt()


def _cos(square: Tensor) -> Tensor:
    near, angle = _angle(square)
    return torch.where(near, 1 - square / 2 + square**2 / 24, torch.cos(angle))


def _sinc(square: Tensor) -> Tensor:
    near, angle = _angle(square)
    return torch.where(near, 1 - square / 6 + square**2 / 120, torch.sin(angle) / angle)
