"""A residual perceptron for vectors, told of time and condition in every block."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pcfm.networks.embedding import TimeEmbedding


class ResidualPerceptron(nn.Module):
    """A velocity of vectors given other vectors.

    Arguments:
        size: length of the vectors.
        condition: length of what they are conditioned on.
        width: features.
        depth: blocks.
    """

    def __init__(self, size: int, condition: int, width: int = 128, depth: int = 4) -> None:
        super().__init__()
        self.time = TimeEmbedding(width, octaves=6)
        self.given = nn.Sequential(nn.Linear(condition, width), nn.SiLU(), nn.Linear(width, width))
        self.lift = nn.Linear(size, width)
        self.told = nn.ModuleList(nn.Linear(2 * width, width) for _ in range(depth))
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width)) for _ in range(depth)
        )
        self.head = nn.Linear(width, size)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """Velocities (B, size) at vectors (B, size), times (B,) and conditions (B, condition)."""
        known = torch.cat([self.time(t), self.given(condition)], dim=1)
        h = self.lift(x)
        for told, block in zip(self.told, self.blocks, strict=True):
            h = h + block(h + told(known))
        return self.head(torch.nn.functional.silu(h))
