r"""Charts: other coordinates for fields, $u = a + L x$.

A flow lives in normalised units, $x = (u - a)/s$, one shift and one scale a channel, while laws are physical (`Units`); and a distance
$\|z\|_M^2 = z^\top M z$ with $M = (L L^\top)^{-1}$ is the plain one in the coordinates $x = L^{-1} u$ (`constraints.metric`). A law moves
between them by composition: its operator becomes $A L$, and its residual, scale and multiplier stay physical.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from constraints.linear.map import LinearMap


class Chart(nn.Module, ABC):
    """An affine, invertible map of coordinates x to physical fields u, both (B, C, *N)."""

    @abstractmethod
    def physical(self, x: Tensor) -> Tensor:
        """$a + L x$."""

    @abstractmethod
    def normalise(self, u: Tensor) -> Tensor:
        """$L^{-1}(u - a)$."""

    @abstractmethod
    def push(self, z: Tensor) -> Tensor:
        """$L z$, for differences of fields."""

    @abstractmethod
    def pull(self, z: Tensor) -> Tensor:
        r"""$L^\top z$, for forces."""

    @abstractmethod
    def compose(self, operator: LinearMap) -> LinearMap:
        """$A L$, with as much of A's structure as survives."""

    def diagonal(self, dims: int) -> Tensor | None:
        """L where it is a diagonal, broadcastable to fields with that many axes; None where it is not."""
        return None


class Units(Chart):
    """One shift and one scale for each channel: $u = a + s x$.

    Channels of one physical unit share one scale, so that a distance in normalised units treats the components of a vector alike.

    Arguments:
        shift: $a$, (C,).
        scale: $s > 0$, (C,).

    Raises:
        ValueError: shapes differ, or a scale is not positive and finite.

    Example:
        >>> units = Units(torch.tensor([1.0]), torch.tensor([2.0]))
        >>> units.normalise(torch.tensor([[[5.0]]])).item()
        2.0
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, shift: Tensor, scale: Tensor) -> None:
        super().__init__()
        if shift.shape != scale.shape or shift.ndim != 1:
            raise ValueError(
                f"Units expects one shift and one scale a channel, shapes (C,); got {tuple(shift.shape)} and {tuple(scale.shape)}."
            )
        if not (torch.isfinite(scale).all() and (scale > 0).all() and torch.isfinite(shift).all()):
            raise ValueError(f"Units expects finite shifts and positive scales; got {shift.tolist()} and {scale.tolist()}.")
        self.register_buffer("shift", shift.to(torch.float64))
        self.register_buffer("scale", scale.to(torch.float64))

    @classmethod
    def identity(cls, channels: int) -> Units:
        """Units in which normalised fields are the physical ones."""
        return cls(torch.zeros(channels), torch.ones(channels))

    @classmethod
    def measure(cls, u: Tensor, units: Sequence[str] | None = None) -> Units:
        """Units in which the given fields have mean 0 and variance 1.

        Arguments:
            u: training fields, (N, C, *N).
            units: physical unit of each channel; channels of the same unit share one scale. By default all are different.
        """
        dims = [d for d in range(u.ndim) if d != 1]
        return cls.of_moments(u.mean(dims, dtype=torch.float64), u.to(torch.float64).var(dims, correction=0), units)

    @classmethod
    def of_moments(cls, shift: Tensor, variance: Tensor, units: Sequence[str] | None = None) -> Units:
        """As `measure`, from the mean and the variance of each channel, (C,) each: what fields that do not fit into memory leave."""
        names = tuple(units) if units is not None else tuple(str(c) for c in range(len(shift)))
        pooled = torch.stack([torch.stack([variance[d] for d in range(len(names)) if names[d] == name]).mean() for name in names])
        return cls(shift, torch.where(pooled > 0, pooled, torch.ones_like(pooled)).sqrt())

    def physical(self, x: Tensor) -> Tensor:
        """Physical fields $u = a + s x$ of normalised ones, (B, C, *N)."""
        return _shaped(self.shift, x.ndim - 2).to(x) + self.push(x)

    def normalise(self, u: Tensor) -> Tensor:
        """Normalised fields $x = (u - a)/s$ of physical ones, (B, C, *N)."""
        return (u - _shaped(self.shift, u.ndim - 2).to(u)) / _shaped(self.scale, u.ndim - 2).to(u)

    def push(self, z: Tensor) -> Tensor:
        return _shaped(self.scale, z.ndim - 2).to(z) * z

    def pull(self, z: Tensor) -> Tensor:
        return self.push(z)

    def compose(self, operator: LinearMap) -> LinearMap:
        return operator.weighted(_shaped(self.scale, len(operator.shape) - 1))

    def diagonal(self, dims: int) -> Tensor:
        return _shaped(self.scale, dims)


def _shaped(values: Tensor, dims: int) -> Tensor:
    """One value a channel, (C,), shaped like one field with that many axes."""
    return values.reshape(-1, *(1,) * dims)
