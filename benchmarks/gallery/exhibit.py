"""What a script of the gallery returns: a figure, and measured numbers beside what is known of them."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn


@dataclass(frozen=True)
class Measure:
    """A measured number.

    Attributes:
        of: the class or function that it is a number of.
        quantity: what it is.
        value: measured.
        within: how far from `exact` it may be.
        exact: what theory says; 0 for errors.
        control: whether it is of a wrong variant, which must be farther off than `within`.
    """

    of: Callable[..., Any]
    quantity: str
    value: float
    within: float
    exact: float = 0.0
    control: bool = False

    @property
    def held(self) -> bool:
        """Whether the number is as near as it should be; a control, whether it is not. NaN never is."""
        off = abs(self.value - self.exact)
        return off > self.within if self.control else off <= self.within

    def record(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "of": path_of(self.of),
            "quantity": self.quantity,
            "value": float(self.value),
            "exact": float(self.exact),
            "within": float(self.within),
            "control": self.control,
        }


class Exhibit(NamedTuple):
    """A figure and the numbers behind it."""

    figure: Figure
    measures: list[Measure]


def path_of(thing: Callable[..., Any]) -> str:
    """Module and name of a class or function."""
    return f"{inspect.getmodule(thing).__name__}.{thing.__qualname__}"  # type: ignore[union-attr]


def panels(columns: int, rows: int = 1, width: float = 3.1, height: float = 2.7, **options: Any) -> tuple[Figure, list[Axes]]:
    """A figure with panels, row by row."""
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False, **options).flat)


def normal(*shape: int, seed: int) -> Tensor:
    """Seeded standard normals, float64."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def times(steps: int, first: float = 0.0, last: float = 1.0) -> Tensor:
    """Equal steps, float64."""
    return torch.linspace(first, last, steps + 1, dtype=torch.float64)


def at(t: float) -> Tensor:
    """A time, float64."""
    return torch.tensor(t, dtype=torch.float64)


def fitted(
    network: nn.Module, loss: Callable[[nn.Module, nn.Module, torch.Generator], Tensor], steps: int, rate: float = 2e-3
) -> nn.Module:
    """A network trained by Adam with a cosine decay of the rate, and its weights averaged; the loss sees both."""
    average, generator = copy.deepcopy(network), torch.Generator().manual_seed(1)
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate * 0.5 * (1 + math.cos(math.pi * step / steps))
        optimizer.zero_grad()
        loss(network, average, generator).backward()
        optimizer.step()
        with torch.no_grad():
            for kept, value in zip(average.parameters(), network.parameters(), strict=True):
                kept.lerp_(value, 1 - min(0.999, (1 + step) / (10 + step)))
    return average.eval()
