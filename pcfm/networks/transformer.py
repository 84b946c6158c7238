"""A transformer over patches of a field, for grids of one to three axes.

Blocks and their modulation by flow time follow the diffusion transformer (Peebles & Xie, ICCV 2023, adaLN-zero), with one modulation
network shared by all blocks plus a learned offset a block (Chen et al., PixArt-alpha, ICLR 2024, adaLN-single).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from constraints import Grid
from pcfm.networks.embedding import TimeEmbedding, position_features


class PatchTransformer(nn.Module):
    """Attention between patches.

    Arguments:
        grid: grid of the fields; its sizes are multiples of the patch sizes.
        channels: channels in and out.
        condition: channels of the condition, concatenated to the input.
        patch: patch size, one number for all axes or one an axis.
        width: features of a patch, a multiple of `heads`.
        depth: number of blocks.
        heads: attention heads.
        times: flow times it is given, (B,) or (B, times).

    Raises:
        ValueError: the grid is not a multiple of the patch, or the width not one of the heads.
    """

    last_layer = "head"
    """The linear layer whose outputs make up the velocity."""

    def __init__(
        self,
        grid: Grid,
        channels: int,
        condition: int = 0,
        patch: int | tuple[int, ...] = 8,
        width: int = 128,
        depth: int = 4,
        heads: int = 4,
        times: int = 1,
    ) -> None:
        super().__init__()
        sizes = (patch,) * len(grid.shape) if isinstance(patch, int) else tuple(patch)
        if len(sizes) != len(grid.shape) or any(n % p for n, p in zip(grid.shape, sizes, strict=True)):
            raise ValueError(f"PatchTransformer expects patches that divide the grid {grid.shape}; got {sizes}.")
        if width % heads:
            raise ValueError(f"PatchTransformer expects a width that is a multiple of heads; got {width} and {heads}.")
        self.sizes, self.channels, self.heads = sizes, channels, heads
        self.counts = tuple(n // p for n, p in zip(grid.shape, sizes, strict=True))
        volume = math.prod(sizes)
        self.embed = nn.Linear((channels + condition) * volume, width)
        positions = _coarse_positions(grid, sizes)
        self.register_buffer("positions", positions, persistent=False)
        self.place = nn.Linear(positions.shape[1], width)
        self.time = TimeEmbedding(width, times=times)
        self.modulation = nn.Linear(width, 6 * width)
        self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.final_modulation = nn.Linear(width, 2 * width)
        self.head = nn.Linear(width, channels * volume)
        self.skip = nn.Linear(width, channels)
        for layer in (self.modulation, self.final_modulation, self.head, self.skip):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    positions: Tensor

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        inputs = x if condition is None else torch.cat([x, condition], dim=1)
        tokens = self.embed(self._patches(inputs)) + self.place(self.positions)
        time = F.silu(self.time(t))
        modulation = self.modulation(time)
        for block in self.blocks:
            tokens = block(tokens, modulation)
        scale, shift = self.final_modulation(time)[:, None].chunk(2, dim=-1)
        out = self._fields(self.head(self.norm(tokens) * (1 + scale) + shift))
        gain = self.skip(time)
        return out + gain.reshape(*gain.shape, *(1,) * (x.ndim - 2)) * x

    def _patches(self, x: Tensor) -> Tensor:
        """Fields (B, C, *N) as patches (B, tokens, C * volume)."""
        d = len(self.sizes)
        split = [size for pair in zip(self.counts, self.sizes, strict=True) for size in pair]
        x = x.reshape(*x.shape[:2], *split)
        order = [0, *range(2, 2 + 2 * d, 2), 1, *range(3, 3 + 2 * d, 2)]
        return x.permute(order).flatten(1 + d).flatten(1, d)

    def _fields(self, tokens: Tensor) -> Tensor:
        """Patches (B, tokens, C * volume) as fields (B, C, *N)."""
        d = len(self.sizes)
        x = tokens.reshape(tokens.shape[0], *self.counts, self.channels, *self.sizes)
        order = [0, 1 + d, *(axis for i in range(d) for axis in (1 + i, 2 + d + i))]
        grid = tuple(count * size for count, size in zip(self.counts, self.sizes, strict=True))
        return x.permute(order).reshape(x.shape[0], self.channels, *grid)


class _Block(nn.Module):
    """Self-attention and a perceptron, each scaled, shifted and gated by flow time."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.offset = nn.Parameter(torch.zeros(6 * width))
        self.norm_attention = nn.LayerNorm(width, elementwise_affine=False)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm_mlp = nn.LayerNorm(width, elementwise_affine=False)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width))

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        scale_a, shift_a, gate_a, scale_m, shift_m, gate_m = (modulation + self.offset)[:, None].chunk(6, dim=-1)
        x = x + gate_a * self._attention(self.norm_attention(x) * (1 + scale_a) + shift_a)
        return x + gate_m * self.mlp(self.norm_mlp(x) * (1 + scale_m) + shift_m)

    def _attention(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def _coarse_positions(grid: Grid, sizes: tuple[int, ...]) -> Tensor:
    """Position features of the first point of each patch, (tokens, F)."""
    fine = position_features(grid, octaves=4)
    return fine[(slice(None), *(slice(None, None, size) for size in sizes))].flatten(1).T.contiguous()
