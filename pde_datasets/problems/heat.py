r"""Heat equation on a periodic line, exactly.

$$u_t = \nu u_{xx},\qquad u(x, t) = \sin(x + \varphi)\,e^{-\nu t},\qquad x\in[0, 2\pi),\; t\in[0, 1].$$
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from constraints import Axis, Constraint, Grid, InitialCondition, Intersection, Mass
from pde_datasets.problem import Fields, Problem, generator


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

    points: int = 100
    times: int = 100
    diffusivity: tuple[float, float] = (1.0, 5.0)
    phase: tuple[float, float] = (0.0, math.pi)

    @property
    def grid(self) -> Grid:
        return Grid(Axis("time", self.times, length=1.0), Axis("x", self.points, length=2 * math.pi, periodic=True))

    def draw(self, count: int, *, seed: int = 0, start: int = 0) -> Fields:
        uniform = torch.stack([torch.rand(2, generator=generator(seed, start + i), dtype=torch.float64) for i in range(count)])
        low = torch.tensor([self.diffusivity[0], self.phase[0]], dtype=torch.float64)
        high = torch.tensor([self.diffusivity[1], self.phase[1]], dtype=torch.float64)
        diffusivity, phase = (low + (high - low) * uniform).unbind(1)
        parameters = {"diffusivity": diffusivity, "phase": phase}
        return Fields(
            self.solution(diffusivity, phase),
            self.grid,
            channels=("u",),
            parameters=parameters,
            roles={"density": ("u",)},
            laws=("mass:value=0",),
            attributes={"problem": self.name, "equation": self.equation, "scheme": "exact", "seed": seed},
        )

    def solution(self, diffusivity: Tensor, phase: Tensor) -> Tensor:
        """The exact fields, (N, 1, T, X)."""
        time, x = self.grid.mesh()
        nu, phi = diffusivity[:, None, None], phase[:, None, None]
        return (torch.sin(x + phi) * torch.exp(-nu * time))[:, None]

    def constraint(self, parameters: dict[str, Tensor]) -> Constraint:
        initial = self.solution(parameters["diffusivity"], parameters["phase"])[:, :, 0]
        return Intersection(InitialCondition(self.grid, initial), Mass(self.grid, 0.0))
