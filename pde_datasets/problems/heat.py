r"""Heat equation on a line, periodic or between walls, exactly.

$$u_t = \nu u_{xx},\qquad u(x, t) = \sum_{m=1}^M \sin(mx + \varphi_m)\,e^{-\nu m^2 t},\qquad x\in[0, 2\pi),\; t\in[0, 1].$$

Between walls at 0 and $2\pi$ waves of twice the length fit as well, m becomes $m/2$, and of $\sin(mx + \varphi_m)$ that part is left which
obeys the walls: $\sin\varphi_m\cos mx$ where they let no heat through, $\cos\varphi_m\sin mx$ where they are held at zero.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from constraints import Axis, Constraint, Dirichlet, Grid, InitialCondition, Intersection, Mass
from pde_datasets.problem import Problem, uniform

BOUNDARIES = ("periodic", "neumann", "dirichlet")


@dataclass(frozen=True)
class Heat(Problem):
    """Decaying waves: space-time fields on (time, x).

    Laws, to round-off: the initial data; no mass, by the trapezoidal rule between walls; or zero values at the walls ("dirichlet", where
    mass leaves). Differences of the order p see the vanishing slope of "neumann" to their order only.

    Attributes:
        points: points in space; between walls both ends are included.
        times: stored times, the initial one included; they are equally spaced on [0, 1].
        diffusivity: range of the diffusivity, drawn uniformly.
        phase: range of the phase of each wave, drawn uniformly.
        boundary: "periodic", "neumann" or "dirichlet".
        modes: number M of waves.
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
    boundary: str = "periodic"
    modes: int = 1

    def __post_init__(self) -> None:
        if self.boundary not in BOUNDARIES:
            raise ValueError(f"Heat expects a boundary among {', '.join(BOUNDARIES)}; got '{self.boundary}'.")
        if not 1 <= self.modes < self.points:
            raise ValueError(
                f"Heat expects at least one mode, and more points than modes; got points = {self.points}, modes = {self.modes}."
            )
        self.expect_range("diffusivity", 0.0, reached=True)
        self.expect_range("phase")

    @property
    def grid(self) -> Grid:
        x = Axis("x", self.points, length=2 * math.pi, periodic=self.boundary == "periodic")
        return Grid(Axis("time", self.times, length=1.0), x)

    @property
    def laws(self) -> tuple[str, ...]:
        if self.boundary == "dirichlet":
            return ("dirichlet:axis=x,side=lower,value=0", "dirichlet:axis=x,side=upper,value=0")
        return ("mass:value=0",)

    def simulate(self, streams: Sequence[torch.Generator], device: torch.device) -> tuple[Tensor, dict[str, Tensor]]:
        diffusivity, *phases = (drawn.to(device) for drawn in uniform(streams, self.diffusivity, *[self.phase] * self.modes))
        phase = phases[0] if self.modes == 1 else torch.stack(phases, dim=1)
        return self.solution(diffusivity, phase), {"diffusivity": diffusivity, "phase": phase}

    def solution(self, diffusivity: Tensor, phase: Tensor) -> Tensor:
        """The exact fields, (N, 1, T, X), of diffusivities (N,) and phases (N,) of one wave or (N, M)."""
        time, x = self.grid.mesh(diffusivity)
        nu = diffusivity[:, None, None]
        waves = []
        for mode, phi in enumerate(phase.reshape(len(nu), -1, 1, 1).unbind(1), start=1):
            k = mode if self.boundary == "periodic" else mode / 2
            if self.boundary == "periodic":
                wave = torch.sin(k * x + phi)
            elif self.boundary == "neumann":
                wave = torch.sin(phi) * torch.cos(k * x)
            else:
                wave = torch.cos(phi) * torch.sin(k * x)
            waves.append(wave * torch.exp(-nu * k**2 * time))
        return sum(waves[1:], start=waves[0])[:, None]

    def constraint(self, parameters: Mapping[str, Tensor]) -> Constraint:
        initial = InitialCondition(self.grid, self.solution(parameters["diffusivity"], parameters["phase"])[:, :, 0])
        if self.boundary == "dirichlet":
            return Intersection(initial, *(Dirichlet(self.grid, "x", side, 0.0) for side in ("lower", "upper")))
        return Intersection(initial, Mass(self.grid, 0.0))
