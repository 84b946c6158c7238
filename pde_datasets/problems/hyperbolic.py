r"""What problems of hyperbolic systems share: boxes of equal cells, finite volumes, and the balance of each channel.

Fields are cell averages. The integral of a channel changes between stored times by what passed the ends of the domain, and what acted
inside; the scheme's own sums of both are the parameter `received`, so that every balance closes to round-off. Channels that nothing can
change are conserved.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from constraints import Axis, Budget, Constraint, Grid, InitialCondition, Intersection, Mass, positivity
from pde_datasets.problem import Problem
from pde_datasets.solvers.finite_volume import BOUNDARIES, FiniteVolume
from pde_datasets.solvers.hyperbolic import System


@dataclass(frozen=True)
class Hyperbolic(Problem):
    r"""A hyperbolic system on a box of $n$ cells an axis, from random initial data.

    Attributes:
        points: cells an axis.
        times: stored times, the initial one included; at least 2.
        duration: time from the first stored field to the last; they are duration / (times - 1) apart.
        length: extent of each axis.
        boundary: "periodic", "outflow" (the last cell goes on outside) or "walls" (reflecting), at all ends.
        limiter: of the reconstruction: "constant", "minmod", "van-leer", "van-albada", "mc" or "superbee".
        integrator: "ssp-rk2" or "ssp-rk3".
        cfl: CFL number of the time steps.

    Raises:
        ValueError: settings out of range, or names not known.
    """

    dimension: ClassVar[int]
    lower: ClassVar[float]
    """Lower end of each axis, as a fraction of its length."""

    points: int = 128
    times: int = 21
    duration: float = 1.0
    length: float = 1.0
    boundary: str = "outflow"
    limiter: str = "mc"
    integrator: str = "ssp-rk3"
    cfl: float = 0.4

    def __post_init__(self) -> None:
        self.expect_name("boundary", BOUNDARIES)
        if self.times < 2 or not (self.duration > 0 and self.length > 0):
            raise ValueError(
                f"{self.name} expects at least two times, and a duration and a length above 0; "
                f"got times = {self.times}, duration = {self.duration}, length = {self.length}."
            )
        self.solver  # noqa: B018  (its names and numbers are checked before the first draw)

    def expect_name(self, setting: str, known: Sequence[str]) -> None:
        """Raise unless a setting is one of the known names."""
        if getattr(self, setting) not in known:
            raise ValueError(f"{self.name} expects a {setting} out of {', '.join(known)}; got '{getattr(self, setting)}'.")

    @property
    def grid(self) -> Grid:
        return Grid(Axis("time", self.times, length=self.duration), *self.solver.grid.axes)

    @property
    def solver(self) -> FiniteVolume:
        periodic = self.boundary == "periodic"
        first = self.lower * self.length + self.length / self.points / 2
        axes = (
            Axis(name, self.points, length=self.length, origin=first, periodic=periodic, cells=not periodic)
            for name in ("x", "y")[: self.dimension]
        )
        return FiniteVolume(Grid(*axes), (self.boundary,) * self.dimension, self.limiter, self.integrator, self.cfl)

    @property
    @abstractmethod
    def conserved(self) -> tuple[str, ...]:
        """Channels whose integrals nothing can change."""

    @property
    def laws(self) -> tuple[str, ...]:
        momenta = self.roles["momentum"]
        scalars = [channel for channel in self.conserved if channel not in momenta]
        names = ["mass" if channel in self.roles["density"] else f"mass:channels={channel}" for channel in scalars]
        return (*names, *(["momentum"] if set(momenta) <= set(self.conserved) else []), "positivity")

    @abstractmethod
    def system(self, parameters: Mapping[str, Tensor]) -> System:
        """The equations, with the coefficients of each sample."""

    @abstractmethod
    def initial(self, stream: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Initial cell averages (C, *N) and parameters of one sample, on the CPU.

        One sample at a time, since the last bit of an exponential or a sine may depend on its place in a vector, and shear layers amplify
        it. All that costs time is done for all samples at once.
        """

    def start(self, parameters: Mapping[str, Tensor]) -> Tensor | None:
        """Initial cell averages (N, C, *N) where the parameters tell them."""
        return None

    def simulate(self, streams: Sequence[torch.Generator], device: torch.device) -> tuple[Tensor, dict[str, Tensor]]:
        drawn = [self.initial(stream) for stream in streams]
        u = torch.stack([fields for fields, _ in drawn]).to(device)
        parameters = {name: torch.stack([values[name] for _, values in drawn]).to(device) for name in drawn[0][1]}
        u, received = self.solver.trajectory(self.system(parameters), u, self.times, self.duration)
        return u, parameters | {"received": received}

    def constraint(self, parameters: Mapping[str, Tensor]) -> Constraint:
        """The balance of each channel, no negative density, and the initial state where the parameters tell it."""
        grid, total = self.grid, len(self.channels)
        laws: list[Constraint] = []
        for i, channel in enumerate(self.channels):
            if channel in self.conserved:
                laws.append(Mass(grid, component=i, channels=total))
            else:
                received = parameters["received"][:, i]
                laws.append(Budget(grid, received=received, component=i, channels=total, name=f"budget of {channel}"))
        start = self.start(parameters)
        if start is not None:
            laws.append(InitialCondition(grid, start))
        return Intersection(*laws, positivity(components=(0,)))


def below(axis: Axis, position: Tensor) -> Tensor:
    """The part of each cell that lies below a position, (B,) to (B, n): the exact cell averages of a step."""
    edges = axis.positions(position) - axis.spacing / 2
    return ((position[:, None] - edges) / axis.spacing).clamp(0, 1)
