r"""Heat equation on a periodic line, exactly.

$$u_t = \nu u_{xx},\qquad u(x, t) = \sin(x + \varphi)\,e^{-\nu t},\qquad x\in[0, 2\pi),\; t\in[0, 1].$$
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from constraints import Axis, Constraint, Grid, InitialCondition, Intersection, Mass
from pde_datasets.problem import Problem, uniform


@dataclass(frozen=True)
class Heat(Problem):
    """Decaying sine waves: space-time fields on (time, x).

    Attributes:
        points: points in space.
        times: points in time, both ends included.
        diffusivity: range of the diffusivity, drawn uniformly.
        phase: range of the phase, drawn uniformly.
    """

    name: ClassVar[str] = "heat"
    equation: ClassVar[str] = "u_t = nu u_xx"
    source: ClassVar[str] = "exact; settings of ECI (arXiv:2412.01786) and PCFM (arXiv:2506.04171)"
    scheme: ClassVar[str] = "exact"
    channels: ClassVar[tuple[str, ...]] = ("u",)
    roles: ClassVar[Mapping[str, tuple[str, ...]]] = {"density": ("u",)}
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"pcfm": {}, "eci": {}}

    points: int = 100
    times: int = 100
    diffusivity: tuple[float, float] = (1.0, 5.0)
    phase: tuple[float, float] = (0.0, math.pi)

    @property
    def grid(self) -> Grid:
        return Grid(Axis("time", self.times, length=1.0), Axis("x", self.points, length=2 * math.pi, periodic=True))

    @property
    def laws(self) -> tuple[str, ...]:
        return ("mass:value=0",)

    def simulate(self, streams: Sequence[torch.Generator], device: torch.device) -> tuple[Tensor, dict[str, Tensor]]:
        diffusivity, phase = (drawn.to(device) for drawn in uniform(streams, self.diffusivity, self.phase))
        return self.solution(diffusivity, phase), {"diffusivity": diffusivity, "phase": phase}

    def solution(self, diffusivity: Tensor, phase: Tensor) -> Tensor:
        """The exact fields, (N, 1, T, X)."""
        time, x = self.grid.mesh(diffusivity)
        nu, phi = diffusivity[:, None, None], phase[:, None, None]
        return (torch.sin(x + phi) * torch.exp(-nu * time))[:, None]

    def constraint(self, parameters: Mapping[str, Tensor]) -> Constraint:
        initial = self.solution(parameters["diffusivity"], parameters["phase"])[:, :, 0]
        return Intersection(InitialCondition(self.grid, initial), Mass(self.grid, 0.0))
