"""A plain multilayer perceptron on flattened fields, for small and for closed-form problems."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from constraints import Grid
from pcfm.networks.embedding import TimeEmbedding


class Perceptron(nn.Module):
    """Fully connected network over all values of a field.

    Arguments:
        grid: grid of the fields.
        channels: channels in and out.
        condition: channels of the condition.
        width: hidden units.
        depth: hidden layers.
        times: flow times it is given, (B,) or (B, times).
    """

    def __init__(self, grid: Grid, channels: int, condition: int = 0, width: int = 128, depth: int = 3, times: int = 1) -> None:
        super().__init__()
        self.shape = (channels, *grid.shape)
        points = grid.weights([]).expand(grid.shape).numel()
        self.time = TimeEmbedding(width, octaves=4, times=times)
        layers: list[nn.Module] = [nn.Linear((channels + condition) * points + width, width), nn.SiLU()]
        for _ in range(depth - 1):
            layers += [nn.Linear(width, width), nn.SiLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(width, channels * points))
        self.last_layer = f"layers.{len(layers)}"

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        parts = [x.flatten(1), self.time(t)]
        if condition is not None:
            parts.insert(1, condition.flatten(1))
        return self.layers(torch.cat(parts, dim=1)).reshape(-1, *self.shape)
