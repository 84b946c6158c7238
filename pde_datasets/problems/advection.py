r"""Linear advection on a periodic line, exactly.

$$u_t + \beta u_x = 0,\qquad u(x, t) = \sum_j A_j\sin\big(2\pi n_j (x - \beta t) + \varphi_j\big),\qquad x\in[0, 1).$$

Each Fourier mode turns by its phase: a shift by $\beta t$, whether or not that is a whole number of points. All modes stay below the
Nyquist wavenumber, so that sums over the points are the integrals: mean and energy are constant to round-off.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from constraints import Axis, Constraint, Energy, Grid, InitialCondition, Intersection, Mass
from pde_datasets.problem import Problem, uniform
from pde_datasets.random_fields import random_waves, sum_of_waves


@dataclass(frozen=True)
class Advection(Problem):
    r"""Sums of a few sine waves carried along: space-time fields on (time, x).

    The initial data of PDEBench's paper: amplitudes uniform on [0, 1], wavenumbers drawn with repetition, phases uniform. PDEBench's files
    also have a tenth each of $|u|$ and of windowed u, which no sum of waves is; those are left out. Its files are computed with a
    second-order upwind scheme, these fields are exact. Its sets have one speed each: `preset("pdebench", speed=(0.1, 0.1))`.

    Attributes:
        points: points in space, more than twice the largest wavenumber.
        times: stored times, the initial one included.
        duration: time from the first stored field to the last; they are duration / (times - 1) apart.
        speed: range of the speed $\beta$, drawn uniformly.
        waves: number of waves.
        modes: largest wavenumber.
    """

    name: ClassVar[str] = "advection"
    equation: ClassVar[str] = "u_t + beta u_x = 0"
    source: ClassVar[str] = "exact; settings of PDEBench, Takamoto et al., NeurIPS 2022 (arXiv:2210.07182)"
    scheme: ClassVar[str] = "exact"
    channels: ClassVar[tuple[str, ...]] = ("u",)
    roles: ClassVar[Mapping[str, tuple[str, ...]]] = {"density": ("u",)}
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"pdebench": {"points": 1024, "times": 201, "speed": (0.4, 0.4)}}

    points: int = 128
    times: int = 41
    duration: float = 2.0
    speed: tuple[float, float] = (0.1, 4.0)
    waves: int = 2
    modes: int = 4

    def __post_init__(self) -> None:
        if self.waves < 1 or self.modes < 1 or self.points <= 2 * self.modes:
            raise ValueError(
                "Advection expects at least one wave and one mode, and more than two points for the shortest wave; "
                f"got waves = {self.waves}, modes = {self.modes}, points = {self.points}."
            )
        if not self.duration > 0:
            raise ValueError(f"Advection expects a positive duration; got {self.duration}.")
        self.expect_range("speed")

    @property
    def grid(self) -> Grid:
        return Grid(Axis("time", self.times, length=self.duration), Axis("x", self.points, length=1.0, periodic=True))

    @property
    def laws(self) -> tuple[str, ...]:
        return ("mass:value=0", "energy")

    def simulate(self, streams: Sequence[torch.Generator], device: torch.device) -> tuple[Tensor, dict[str, Tensor]]:
        (speed,) = uniform(streams, self.speed)
        amplitude, mode, phase = random_waves(streams, self.waves, (1, self.modes), (0.0, 1.0))
        parameters = {"speed": speed, "amplitude": amplitude, "mode": mode, "phase": phase}
        parameters = {name: values.to(device) for name, values in parameters.items()}
        return self.solution(parameters), parameters

    def solution(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """The exact fields, (N, 1, T, X)."""
        time, x = self.grid.mesh(parameters["speed"])
        carried = x - parameters["speed"][:, None, None] * time
        return sum_of_waves(carried, *(parameters[name] for name in ("amplitude", "mode", "phase")))[:, None]

    def constraint(self, parameters: Mapping[str, Tensor]) -> Constraint:
        initial = self.solution(parameters)[:, :, 0]
        return Intersection(InitialCondition(self.grid, initial), Mass(self.grid, 0.0), Energy(self.grid))
