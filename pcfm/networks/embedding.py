"""Features of flow time and of position."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from constraints import Grid


class TimeEmbedding(nn.Module):
    """Flow time (B,) in [0, 1] to features (B, width): sines and cosines of octaves, then a small perceptron."""

    frequencies: Tensor

    def __init__(self, width: int, octaves: int = 8) -> None:
        super().__init__()
        self.register_buffer("frequencies", math.pi * 2.0 ** torch.arange(octaves), persistent=False)
        self.mlp = nn.Sequential(nn.Linear(2 * octaves + 1, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t: Tensor) -> Tensor:
        phase = t[:, None] * self.frequencies
        return self.mlp(torch.cat([t[:, None], phase.sin(), phase.cos()], dim=1))


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
