r"""Physical and normalised fields.

A flow lives in normalised units $x = (u - a)/s$, one shift and one scale a channel; laws are physical. Channels of one physical
unit share one scale, so that a distance in normalised units treats the components of a vector alike.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Units(nn.Module):
    """The affine map between physical fields $u$ and normalised fields $x$: $u = a + s x$ for each channel.

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
        shift = u.mean(dims, dtype=torch.float64)
        variance = u.to(torch.float64).var(dims, correction=0)
        names = tuple(units) if units is not None else tuple(str(c) for c in range(u.shape[1]))
        pooled = torch.stack([torch.stack([variance[d] for d in range(len(names)) if names[d] == name]).mean() for name in names])
        return cls(shift, torch.where(pooled > 0, pooled, torch.ones_like(pooled)).sqrt())

    def _shaped(self, like: Tensor) -> tuple[Tensor, Tensor]:
        shape = (-1,) + (1,) * (like.ndim - 2)
        return self.shift.to(like).reshape(shape), self.scale.to(like).reshape(shape)

    def normalise(self, u: Tensor) -> Tensor:
        """Normalised fields $x = (u - a)/s$ of physical ones, (B, C, *N)."""
        shift, scale = self._shaped(u)
        return (u - shift) / scale

    def physical(self, x: Tensor) -> Tensor:
        """Physical fields $u = a + s x$ of normalised ones, (B, C, *N)."""
        shift, scale = self._shaped(x)
        return shift + scale * x
