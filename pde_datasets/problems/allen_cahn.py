r"""The Allen-Cahn equation on a periodic line or plane.

$$u_t = \varepsilon\nabla^2 u - \lambda(u^3 - u),$$

the gradient flow of the free energy

$$F = \int\tfrac\varepsilon2|\nabla u|^2 + \tfrac\lambda4(1 - u^2)^2\,dV,\qquad \frac{dF}{dt} = -\int u_t^2\,dV.$$

Fourier collocation: Laplacian by transforms, reaction at the points. That is the gradient flow of the F summed over the points,
with $-\frac\varepsilon2u\nabla^2u$ for its first term, so that this F falls whatever the resolution. ETDRK4 steps in time keep that up to
their error of fourth order, which decides the sign only once changes of F have sunk to its size. Phases u = 1 and u = -1 meet in fronts
of width $\sqrt{2\varepsilon/\lambda}$, which the points must resolve.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from constraints import Axis, Constraint, EntropyDecay, Grid
from pde_datasets.problem import Problem
from pde_datasets.random_fields import gaussian_fields, wavenumber_magnitude
from pde_datasets.solvers.periodic_flow import check_tolerance
from pde_datasets.solvers.refined import RefinedETDRK4

INITIAL = ("random", "raissi")


@dataclass(frozen=True)
class AllenCahn(Problem):
    r"""Phases that separate and coarsen: space-time fields on (time, x) or (time, x, y).

    Initial data: "random" are Gaussian fields with waves of size $e^{-(|k|L/2\pi\kappa)^2}$, without a mean; "raissi" is $x^2\cos\pi x$.
    The domain is $[-1, 1)^d$.

    The law is that the free energy does not rise from one stored time to the next. Mass is not conserved.

    Attributes:
        dimension: number of space axes, 1 or 2.
        points: points an axis.
        times: stored times, the initial one included.
        duration: time from the first stored field to the last; they are duration / (times - 1) apart.
        steps: least number of time steps between stored times.
        tolerance: bound on the error estimated of these steps, relative to u in the mean square; they are halved to meet it.
        diffusion: $\varepsilon$.
        reaction: $\lambda$.
        amplitude: standard deviation of random initial data, but for the mean, which is left out.
        scale: $\kappa$, waves per period where their spectrum falls.
        initial: "random" or "raissi".
    """

    name: ClassVar[str] = "allen-cahn"
    equation: ClassVar[str] = "u_t = eps lap u - lambda (u^3 - u)"
    source: ClassVar[str] = "Fourier collocation, ETDRK4; settings of Raissi et al., J. Comput. Phys. 378 (2019) 686"
    scheme: ClassVar[str] = "Fourier collocation, ETDRK4"
    channels: ClassVar[tuple[str, ...]] = ("u",)
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "raissi": {"points": 512, "times": 201, "duration": 1.0, "steps": 10, "diffusion": 1e-4, "reaction": 5.0, "initial": "raissi"},
    }

    dimension: int = 1
    points: int = 128
    times: int = 33
    duration: float = 2.0
    steps: int = 10
    tolerance: float = 1e-4
    diffusion: float = 2e-3
    reaction: float = 5.0
    amplitude: float = 0.5
    scale: float = 4.0
    initial: str = "random"

    def __post_init__(self) -> None:
        if self.initial not in INITIAL:
            raise ValueError(f"AllenCahn expects initial data out of {', '.join(INITIAL)}; got '{self.initial}'.")
        if self.dimension not in (1, 2) or (self.initial == "raissi" and self.dimension != 1):
            raise ValueError(f"AllenCahn expects one or two space axes, one for 'raissi'; got dimension = {self.dimension}.")
        if self.times < 2 or self.steps < 1 or not self.duration > 0:
            raise ValueError(
                "AllenCahn expects at least two times, a positive duration and a step between times; "
                f"got times = {self.times}, duration = {self.duration}, steps = {self.steps}."
            )
        check_tolerance(self.tolerance, "AllenCahn")
        if self.diffusion < 0 or self.reaction < 0:
            raise ValueError(f"AllenCahn expects no negative diffusion or reaction; got {self.diffusion} and {self.reaction}.")

    @property
    def grid(self) -> Grid:
        space = (Axis(name, self.points, length=2.0, origin=-1.0, periodic=True) for name in ("x", "y")[: self.dimension])
        return Grid(Axis("time", self.times, length=self.duration), *space)

    def simulate(self, streams: Sequence[torch.Generator], device: torch.device) -> tuple[Tensor, dict[str, Tensor]]:
        if self.initial == "raissi":
            x = self.grid.axes[1].positions()
            start = (x**2 * torch.cos(math.pi * x)).expand(len(streams), -1)
        else:
            height = self.amplitude * (self.scale * math.sqrt(math.pi / 2)) ** (-self.dimension / 2)
            start = gaussian_fields(self.grid, lambda k: height * torch.exp(-((k / (math.pi * self.scale)) ** 2)), streams)
        return self.solve(start.to(device)), {}

    def solve(self, initial: Tensor) -> Tensor:
        """Fields (N, 1, T, *space) from initial data (N, *space)."""
        dims, shape = self.grid.space_dims, self.grid.space.shape
        k = wavenumber_magnitude(self.grid).to(initial)
        intervals = RefinedETDRK4(-self.diffusion * k**2, self.grid.axes[0].spacing, self.steps, self.tolerance)

        def reaction(v: Tensor) -> Tensor:
            u = torch.fft.irfftn(v, s=shape, dim=dims)
            return self.reaction * torch.fft.rfftn(u - u**3, dim=dims)

        states = [torch.fft.rfftn(initial, dim=dims)]
        for _ in range(self.times - 1):
            states.append(intervals.advance(states[-1], reaction))
        return torch.stack([torch.fft.irfftn(v, s=shape, dim=dims) for v in states], dim=1)[:, None]

    def constraint(self, parameters: Mapping[str, Tensor]) -> Constraint:
        return EntropyDecay(self.grid, self.energy_density)

    def energy_density(self, u: Tensor) -> Tensor:
        r"""$-\frac\varepsilon2u\nabla^2u + \frac\lambda4(1 - u^2)^2$ of fields (B, 1, T, *space): (B, T, *space)."""
        dims, shape = self.grid.space_dims, self.grid.space.shape
        k = wavenumber_magnitude(self.grid).to(u)
        laplacian = torch.fft.irfftn(-(k**2) * torch.fft.rfftn(u, dim=dims), s=shape, dim=dims)
        return (-self.diffusion / 2 * u * laplacian + self.reaction / 4 * (1 - u.square()).square())[:, 0]
