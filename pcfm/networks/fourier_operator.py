r"""Fourier neural operator (Li et al., ICLR 2021) with flow time, for grids of one to four axes.

A layer mixes channels mode by mode, $\hat y(k) = R(k)\,\hat x(k)$ for the lowest modes, and point by point. Transforms are scaled by
$1/n$ (`norm="forward"`), so that weights mean the same on every resolution.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from constraints import Grid
from pcfm.networks.embedding import TimeEmbedding, position_features


class FourierOperator(nn.Module):
    """Fourier neural operator.

    Bounded axes are extended by zeros for a quarter of their length, so that both ends do not meet.

    Arguments:
        grid: grid of the fields.
        channels: channels in and out.
        condition: channels of the condition, concatenated to the input.
        modes: modes kept on each axis, positive and negative, at most half of the points.
        width: hidden channels.
        depth: number of layers.
        times: flow times it is given, (B,) or (B, times).
    """

    last_layer = "head.2"
    """The linear layer whose outputs make up the velocity."""

    features: Tensor

    def __init__(
        self, grid: Grid, channels: int, condition: int = 0, modes: int = 12, width: int = 32, depth: int = 4, times: int = 1
    ) -> None:
        super().__init__()
        self.modes = modes
        self.padding = tuple(0 if axis.periodic else axis.points // 4 for axis in grid.axes)
        padded = tuple(n + pad for n, pad in zip(grid.shape, self.padding, strict=True))
        self.register_buffer("features", position_features(grid), persistent=False)
        self.time = TimeEmbedding(2 * width, times=times)
        self.lift = nn.Linear(channels + condition + self.features.shape[0], width)
        self.layers = nn.ModuleList(_FourierLayer(padded, modes, width) for _ in range(depth))
        last = nn.Linear(2 * width, channels)
        self.head = nn.Sequential(nn.Linear(width, 2 * width), nn.SiLU(), last)
        self.skip = nn.Linear(2 * width, channels)
        for layer in (last, self.skip):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        parts = [x, self.features.expand(x.shape[0], *self.features.shape)]
        if condition is not None:
            parts.append(condition)
        time = F.silu(self.time(t))
        h = self.lift(torch.cat(parts, dim=1).movedim(1, -1))
        h = F.pad(h.movedim(-1, 1), [p for pad in reversed(self.padding) for p in (0, pad)]) if any(self.padding) else h.movedim(-1, 1)
        for layer in self.layers:
            h = layer(h, time)
        h = h[(..., *(slice(n) for n in x.shape[2:]))]
        out = self.head(h.movedim(1, -1)).movedim(-1, 1)
        gain = self.skip(time)
        return out + gain.reshape(*gain.shape, *(1,) * (x.ndim - 2)) * x


class _FourierLayer(nn.Module):
    """Spectral and pointwise mixing of channels, modulated by flow time, with a residual connection."""

    def __init__(self, shape: tuple[int, ...], modes: int, width: int) -> None:
        super().__init__()
        self.dims = tuple(range(-len(shape), 0))
        index = [_low_modes(n, modes) for n in shape[:-1]] + [torch.arange(min(modes, shape[-1] // 2 + 1))]
        sizes = [len(i) for i in index]
        half = (*shape[:-1], shape[-1] // 2 + 1)
        flat = torch.zeros(sizes, dtype=torch.long)
        for position, (i, stride) in enumerate(zip(index, _strides(half), strict=True)):
            flat = flat + (i * stride).reshape([-1 if p == position else 1 for p in range(len(half))])
        self.transformed = half
        self.register_buffer("kept", flat.flatten(), persistent=False)
        self.spectral = nn.Parameter(torch.randn(2, math.prod(sizes), width, width) / width)
        self.pointwise = nn.Linear(width, width)
        self.modulation = nn.Linear(2 * width, 2 * width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width))

    kept: Tensor

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        spectrum = torch.fft.rfftn(x, dim=self.dims, norm="forward").flatten(2).index_select(2, self.kept).permute(2, 0, 1)
        mixed = torch.bmm(spectrum, torch.complex(self.spectral[0], self.spectral[1])).permute(1, 2, 0)
        full = mixed.new_zeros(*x.shape[:2], math.prod(self.transformed)).index_copy(2, self.kept, mixed)
        y = torch.fft.irfftn(full.unflatten(2, self.transformed), s=x.shape[2:], dim=self.dims, norm="forward")
        scale, shift = self.modulation(time).reshape(x.shape[0], *(1,) * len(self.dims), -1).chunk(2, dim=-1)
        h = y.movedim(1, -1) + self.pointwise(x.movedim(1, -1))
        h = self.mlp(h * (1 + scale) + shift)
        return x + h.movedim(-1, 1)


def _low_modes(points: int, modes: int) -> Tensor:
    """Indices of the lowest modes of a full transform, positive and negative."""
    kept = min(modes, points // 2)
    return torch.cat([torch.arange(kept), torch.arange(points - kept + 1, points)])


def _strides(shape: tuple[int, ...]) -> list[int]:
    return [math.prod(shape[i + 1 :]) for i in range(len(shape))]
