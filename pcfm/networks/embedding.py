"""Features of flow time and of position."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from constraints import Grid


class TimeEmbedding(nn.Module):
    """Flow times in [0, 1], (B,) or (B, times), to features (B, width): sines and cosines of octaves, then a small perceptron."""

    frequencies: Tensor

    def __init__(self, width: int, octaves: int = 8, times: int = 1) -> None:
        super().__init__()
        self.times = times
        self.register_buffer("frequencies", math.pi * 2.0 ** torch.arange(octaves), persistent=False)
        self.mlp = nn.Sequential(nn.Linear(times * (2 * octaves + 1), width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t: Tensor) -> Tensor:
        t = t.reshape(len(t), -1)
        phase = (t[:, :, None] * self.frequencies).flatten(1)
        return self.mlp(torch.cat([t, phase.sin(), phase.cos()], dim=1))

    def of_first(self, weight: Tensor) -> Tensor:
        """The first layer's weight, given that of an embedding of one time, that sees the first time alone."""
        octaves = len(self.frequencies)
        begins = [0, self.times, self.times * (1 + octaves)]  # of times, sines and cosines
        lifted = weight.new_zeros(len(weight), self.times * (1 + 2 * octaves))
        for begin, part in zip(begins, weight.split([1, octaves, weight.shape[1] - 1 - octaves], dim=1), strict=True):
            lifted[:, begin : begin + part.shape[1]] = part
        return lifted


class TwoTimes(nn.Module):
    """A network of two flow times, begin and span, as one of begin and end: module(x, r, t, condition).

    Arguments:
        network: built with `times=2`.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        last = getattr(network, "last_layer", None)
        self.last_layer = None if last is None else f"network.{last}"

    def lifted(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights with which it is, at the first time and whatever the span, the same network of one time that has the given ones."""
        taken = {f"network.{name}": value for name, value in weights.items()}
        for name, module in self.named_modules():
            key = f"{name}.mlp.0.weight"
            if isinstance(module, TimeEmbedding) and key in taken and taken[key].shape[1] == 1 + 2 * len(module.frequencies):
                taken[key] = module.of_first(taken[key])
        return taken

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
