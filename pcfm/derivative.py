"""Directional derivatives through networks, by forward mode."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel


def along(f: Callable[..., Tensor], at: tuple[Tensor, ...], direction: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """The value of a function and its derivative in a direction, both differentiable in what else it depends on."""
    with sdpa_kernel(SDPBackend.MATH):  # the only one of torch's attentions that has a forward derivative
        result = torch.func.jvp(f, tuple(x.contiguous() for x in at), tuple(x.contiguous() for x in direction))  # expanded ones it refuses
    return result[0], result[1]
