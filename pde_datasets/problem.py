"""Problems: equations with random data, sources of fields and of the laws they obey."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from constraints import Constraint, Grid
from pde_datasets.fields import Fields
from pde_datasets.steps import in_runs


class Problem(ABC):
    """An equation with a grid and random initial data: a source of fields and of the laws they obey.

    Subclasses are frozen dataclasses; their attributes are the settings. They say what the class attributes below ask, the grid, how
    to `simulate`, and the laws. Trajectory i of a seed is the same whatever else is drawn with it, in whatever pieces and by however
    many workers: its randomness comes from `generator(seed, i)`, and trajectories whose rounding chaos would amplify are always
    advanced in the same company (`together`).

    Attributes:
        name: what `PROBLEMS` and the command line call it.
        equation: the equation, in one line.
        source: where equation and settings are from.
        scheme: how it is solved.
        channels: name of each channel.
        units: unit of each channel, "1" for none; all "1" by default.
        roles: channels that play a part in laws, as in `Fields`.
        presets: settings of published data sets, by name: `preset`.
        together: trajectories always simulated together; 1 where the company does not matter.
        snapshots: samples taken from one trajectory, successive ones.
    """

    name: ClassVar[str]
    equation: ClassVar[str]
    source: ClassVar[str]
    scheme: ClassVar[str]
    channels: ClassVar[tuple[str, ...]]
    units: ClassVar[tuple[str, ...]] = ()
    roles: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    together: ClassVar[int] = 1
    snapshots: int = 1

    @property
    @abstractmethod
    def grid(self) -> Grid:
        """The grid of the fields."""

    @property
    def laws(self) -> tuple[str, ...]:
        """Laws that all fields of the problem obey, in the notation of the command line."""
        return ()

    @abstractmethod
    def simulate(self, streams: Sequence[torch.Generator], device: torch.device) -> tuple[Tensor, dict[str, Tensor]]:
        """Trajectories with the randomness of the given generators, one each.

        Arguments:
            streams: generators on the CPU, so that fields are the same on every device.
            device: where to compute.

        Returns:
            Fields, float64, (snapshots * len(streams), C, *N), those of one trajectory next to each other; and what differs between
            them or closes their balance (coefficients, boundary fluxes, forcing), each with as many rows.
        """

    @abstractmethod
    def constraint(self, parameters: Mapping[str, Tensor]) -> Constraint:
        """The laws that fields with these parameters obey, to round-off unless the problem says otherwise."""

    @classmethod
    def preset(cls, name: str, **settings: Any) -> Self:
        """The problem with the settings of a published data set, and others over them.

        Raises:
            ValueError: no preset of that name.
        """
        if name not in cls.presets:
            known = ", ".join(cls.presets) or "none"
            raise ValueError(f"problem '{cls.name}' has no preset '{name}'. Known: {known}.")
        return cls(**{**cls.presets[name], **settings})

    def expect_range(self, setting: str, least: float = -math.inf, most: float = math.inf, *, reached: bool = False) -> None:
        """Check a setting that is a range of what is drawn: numbers between two others, the least of which may be `reached` or not.

        Raises:
            ValueError: it is none, its ends are in the wrong order, or numbers lie outside.
        """
        values = getattr(self, setting)
        fits = len(values) == 2 and least <= values[0] <= values[1] < most
        if not fits or (values[0] == least and not reached):
            between = f" {'not below' if reached else 'above'} {least:g}" if math.isfinite(least) else ""
            limit = "" if math.isinf(most) else f" and below {most:g}"
            shown = ",".join(f"{value:g}" for value in values)
            raise ValueError(f"{self.name} expects {setting} as a range [low,high]{between}{limit}, the lower end first; got [{shown}].")

    def draw(self, count: int, *, seed: int = 0, start: int = 0, device: str | torch.device = "cpu") -> Fields:
        """Samples start .. start + count - 1 of a seed, float64, with their parameters and stated laws.

        Raises:
            ValueError: fewer than one sample, or a negative start or seed.
        """
        if seed < 0:
            raise ValueError(f"draw expects a seed that is not negative; got {seed}.")
        if count < 1 or start < 0:
            raise ValueError(f"draw expects at least one sample from a start that is not negative; got {count} from {start}.")
        block = self.together * self.snapshots
        first, last = start // block, -(-(start + count) // block)
        if self.together == 1:
            pieces = [self._trajectories(seed, first, last, device)]
        else:
            in_runs(last - first)
            pieces = [self._trajectories(seed, i * self.together, (i + 1) * self.together, device) for i in range(first, last)]
        here = slice(start - first * block, start - first * block + count)
        parameters = {name: torch.cat([piece[1][name] for piece in pieces])[here] for name in pieces[0][1]}
        return Fields(
            torch.cat([piece[0] for piece in pieces])[here],
            self.grid,
            channels=self.channels,
            units=self.units,
            parameters=parameters,
            roles=dict(self.roles),
            laws=self.laws,
            attributes={
                "problem": self.name,
                "equation": self.equation,
                "scheme": self.scheme,
                "seed": seed,
                "problem_settings": asdict(self),  # type: ignore[call-overload]
            },
        )

    def _trajectories(self, seed: int, first: int, last: int, device: str | torch.device) -> tuple[Tensor, dict[str, Tensor]]:
        """Samples of the trajectories first .. last - 1."""
        u, parameters = self.simulate([generator(seed, i) for i in range(first, last)], torch.device(device))
        if self.snapshots > 1:
            parameters = {**parameters, "trajectory": torch.arange(first, last).repeat_interleave(self.snapshots)}
        return u, parameters


def uniform(streams: Sequence[torch.Generator], *ranges: tuple[float, float]) -> tuple[Tensor, ...]:
    """One number of each range for each generator, float64: as many tensors (len(streams),) as ranges."""
    unit = torch.stack([torch.rand(len(ranges), generator=stream, dtype=torch.float64) for stream in streams])
    return tuple(low + (high - low) * unit[:, i] for i, (low, high) in enumerate(ranges))


def generator(seed: int, index: int) -> torch.Generator:
    """The random generator of one sample: independent streams for different seeds or indices.

    torch keeps 32 bits of a seed, so that among n samples about n^2/2^33 pairs share a stream.

    The two integers are mixed by a 64-bit finaliser (splitmix64, Steele et al. 2014), so that neighbouring indices share nothing.
    """
    mixed = (seed * 0x9E3779B97F4A7C15 + index * 0xD1B54A32D192ED03 + 0x8CB92BA72F3D8DD7) % 2**64
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = ((mixed ^ (mixed >> shift)) * factor) % 2**64
    return torch.Generator().manual_seed((mixed ^ (mixed >> 31)) % 2**63)
