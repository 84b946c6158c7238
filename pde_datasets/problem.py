"""Fields with their grid and parameters, and the problems that draw them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from constraints import Constraint, Grid


@dataclass(frozen=True)
class Fields:
    """A set of fields and what is known of them.

    Attributes:
        u: the fields, (N, C, *N), physical; possibly mapped from a file, read when touched.
        grid: what they live on.
        channels: name of each channel.
        units: unit of each channel, CF spelling, "1" for none.
        parameters: numbers that differ between samples, each (N,) or (N, ...).
        roles: channels that play a part in laws: "velocity" (a component a space axis, in grid order), "momentum", "density",
            "energy", each a tuple of channel names.
        laws: laws the source states for these fields, in the notation of the command line, such as "divergence-free:scheme=spectral".
        attributes: plain values: format, equation, scheme, seed, source.
    """

    u: Tensor
    grid: Grid
    channels: tuple[str, ...]
    units: tuple[str, ...] = ()
    parameters: dict[str, Tensor] = field(default_factory=dict)
    roles: dict[str, tuple[str, ...]] = field(default_factory=dict)
    laws: tuple[str, ...] = ()
    attributes: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.grid.check(self.u, "Fields", channels=len(self.channels))
        if not self.units:
            object.__setattr__(self, "units", ("1",) * len(self.channels))
        if len(self.units) != len(self.channels):
            raise ValueError(f"Fields expects one unit a channel; got units {self.units} for channels {self.channels}.")
        for name, values in self.parameters.items():
            if values.ndim < 1 or values.shape[0] != self.u.shape[0]:
                raise ValueError(f"Fields expects parameter '{name}' with {self.u.shape[0]} rows; got {tuple(values.shape)}.")
        for role, names in self.roles.items():
            for name in names:
                self.channel(name, f"role '{role}'")

    def __len__(self) -> int:
        return int(self.u.shape[0])

    def __getitem__(self, index: slice) -> Fields:
        """A range of the samples."""
        return replace(self, u=self.u[index], parameters={name: values[index] for name, values in self.parameters.items()})

    def channel(self, name: str, speaker: str = "Fields") -> int:
        """Position of a channel.

        Raises:
            ValueError: no channel of that name.
        """
        if name not in self.channels:
            raise ValueError(f"{speaker} expects one of the channels {', '.join(self.channels)}; got '{name}'.")
        return self.channels.index(name)

    def role(self, name: str) -> tuple[int, ...]:
        """Positions of the channels that play a part, empty if none do."""
        return tuple(self.channel(channel) for channel in self.roles.get(name, ()))


class Problem(ABC):
    """An equation with a grid and random initial data: a source of fields and of the law they obey.

    Sample i of a seed is the same fields whatever else is drawn with it: its randomness comes from `generator(seed, i)`.
    """

    name: ClassVar[str]
    equation: ClassVar[str]
    source: ClassVar[str]

    @property
    @abstractmethod
    def grid(self) -> Grid:
        """The grid of the fields."""

    @abstractmethod
    def draw(self, count: int, *, seed: int = 0, start: int = 0) -> Fields:
        """Samples start .. start + count - 1 of a seed, float64, with their parameters and stated laws."""

    @abstractmethod
    def constraint(self, parameters: dict[str, Tensor]) -> Constraint:
        """The laws that fields with these parameters obey, to round-off unless the problem says otherwise."""


def generator(seed: int, index: int) -> torch.Generator:
    """The random generator of one sample: independent streams for different seeds or indices.

    torch keeps 32 bits of a seed, so that among n samples about n^2/2^33 pairs share a stream.

    The two integers are mixed by a 64-bit finaliser (splitmix64, Steele et al. 2014), so that neighbouring indices share nothing.
    """
    mixed = (seed * 0x9E3779B97F4A7C15 + index * 0xD1B54A32D192ED03 + 0x8CB92BA72F3D8DD7) % 2**64
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = ((mixed ^ (mixed >> shift)) * factor) % 2**64
    return torch.Generator().manual_seed((mixed ^ (mixed >> 31)) % 2**63)
