"""Features of flow time and of position."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from constraints import Grid


class TimeEmbedding(nn.Module):
    """Flow times in [0, 1], (B,) or (B, times), to features (B, width): sines and cosines of octaves, then a small perceptron."""

    frequencies: Tensor

    def __init__(self, width: int, octaves: int = 8, times: int = 1) -> None:
        super().__init__()
        self.register_buffer("frequencies", math.pi * 2.0 ** torch.arange(octaves), persistent=False)
        self.mlp = nn.Sequential(nn.Linear(times * (2 * octaves + 1), width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t: Tensor) -> Tensor:
        t = t.reshape(len(t), -1)
        phase = (t[:, :, None] * self.frequencies).flatten(1)
        return self.mlp(torch.cat([t, phase.sin(), phase.cos()], dim=1))


class TwoTimes(nn.Module):
    """A network of two flow times, begin and span, as one of begin and end: module(x, r, t, condition).

    Arguments:
        network: built with `times=2`.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, r: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        out: Tensor = self.network(x, torch.stack([r, t - r], dim=1), condition)
        return out


def position_features(grid: Grid, octaves: int = 1) -> Tensor:
    """Features of each grid point, (F, *N): sines and cosines of the position, on bounded axes of half the position and itself.

    Periodic axes get periodic features, so that a network sees no seam.
    """
    features = []
    for axis in grid.axes:
        phase = 2 * math.pi * (axis.positions() - axis.origin) / axis.extent
        for octave in range(octaves):
            angle = 2.0**octave * (phase if axis.periodic else phase / 2)
            features += [grid.along(axis.name, f(angle)).expand(grid.shape) for f in (torch.sin, torch.cos)]
        if not axis.periodic:
            features.append(grid.along(axis.name, phase / math.pi - 1).expand(grid.shape))
    return torch.stack(features).to(torch.float32)
