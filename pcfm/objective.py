"""The flow-matching objective."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pcfm.path import Path


def stratified_times(count: int, generator: torch.Generator) -> Tensor:
    """One uniform time in each of `count` equal intervals of [0, 1], in random order: uniform, with less spread than independent draws."""
    offsets = torch.rand(count, generator=generator)
    return (torch.randperm(count, generator=generator) + offsets) / count


def flow_matching_loss(velocity: Callable[[Tensor, Tensor], Tensor], path: Path, x0: Tensor, x1: Tensor, t: Tensor) -> Tensor:
    r"""Mean square of $v_\theta(x_t, t) - \dot x_t$ for each sample, (B,); its minimiser is the marginal velocity of the path.

    Source:
        Lipman et al., Flow matching for generative modeling, ICLR 2023.
    """
    x_t, target = path.sample(x0, x1, t)
    return (velocity(x_t, t) - target).square().flatten(1).mean(1)
