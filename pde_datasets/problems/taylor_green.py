r"""The two-dimensional Taylor-Green vortex, exactly.

$$u = A\cos(\kappa x + a)\sin(\kappa y + b)\,e^{-2\nu\kappa^2 t},\qquad v = -A\sin(\kappa x + a)\cos(\kappa y + b)\,e^{-2\nu\kappa^2 t}$$

solves the incompressible Navier-Stokes equations on $[0, 2\pi)^2$: advection is a gradient, balanced by pressure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from constraints import Axis, Constraint, DivergenceFree, Energy, Grid, Intersection, Momentum
from pde_datasets.problem import Problem, uniform


@dataclass(frozen=True)
class TaylorGreen(Problem):
    """Decaying vortex arrays: velocity fields (u, v) on (time, x, y).

    Attributes:
        points: points an axis.
        times: stored times, the initial one included; they are equally spaced on [0, 1].
        mode: wavenumber of the array.
        viscosity: range of the viscosity, drawn uniformly.
        amplitude: range of the initial amplitude, drawn uniformly.
    """

    name: ClassVar[str] = "taylor-green"
    equation: ClassVar[str] = "u_t + u.grad u = -grad p + nu lap u, div u = 0"
    source: ClassVar[str] = "exact; Taylor & Green, Proc. R. Soc. A 158 (1937) 499"
    scheme: ClassVar[str] = "exact"
    channels: ClassVar[tuple[str, ...]] = ("u", "v")
    units: ClassVar[tuple[str, ...]] = ("m s-1", "m s-1")
    roles: ClassVar[Mapping[str, tuple[str, ...]]] = {"velocity": ("u", "v")}

    points: int = 32
    times: int = 11
    mode: int = 1
    viscosity: tuple[float, float] = (0.05, 0.5)
    amplitude: tuple[float, float] = (0.5, 1.5)

    def __post_init__(self) -> None:
        if not 1 <= self.mode < self.points / 2:
            raise ValueError(
                f"TaylorGreen expects more than two points a wave, and at least one wave; got points = {self.points}, mode = {self.mode}."
            )
        self.expect_range("viscosity", 0.0, reached=True)
        self.expect_range("amplitude")

    @property
    def grid(self) -> Grid:
        space = (Axis(name, self.points, length=2 * math.pi, periodic=True) for name in ("x", "y"))
        return Grid(Axis("time", self.times, length=1.0), *space)

    @property
    def laws(self) -> tuple[str, ...]:
        return ("divergence-free:scheme=spectral", "momentum:value=0")

    def simulate(self, streams: Sequence[torch.Generator], device: torch.device) -> tuple[Tensor, dict[str, Tensor]]:
        drawn = uniform(streams, self.viscosity, self.amplitude, (0.0, 2 * math.pi), (0.0, 2 * math.pi))
        names = ("viscosity", "amplitude", "phase_x", "phase_y")
        parameters = {name: values.to(device) for name, values in zip(names, drawn, strict=True)}
        return self.solution(parameters), parameters

    def solution(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """The exact fields, (N, 2, T, X, Y)."""
        time, x, y = self.grid.mesh(parameters["viscosity"])
        viscosity, amplitude, a, b = (parameters[n][:, None, None, None] for n in ("viscosity", "amplitude", "phase_x", "phase_y"))
        decay = amplitude * torch.exp(-2 * viscosity * self.mode**2 * time)
        u = decay * torch.cos(self.mode * x + a) * torch.sin(self.mode * y + b)
        v = -decay * torch.sin(self.mode * x + a) * torch.cos(self.mode * y + b)
        return torch.stack([u, v], dim=1)

    def constraint(self, parameters: Mapping[str, Tensor]) -> Constraint:
        decay = torch.exp(-4 * parameters["viscosity"][:, None] * self.mode**2 * self.grid.axes[0].positions(parameters["viscosity"]))
        energy = parameters["amplitude"][:, None] ** 2 / 4 * decay
        return Intersection(DivergenceFree(self.grid), Momentum(self.grid, 0.0), Energy(self.grid, energy, mean=True))
