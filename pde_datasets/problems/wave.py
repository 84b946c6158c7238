r"""The wave equation on a periodic line or plane, exactly.

$$u_{tt} = c^2\nabla^2 u,\qquad x\in[0, 1)^d.$$

Each Fourier mode is a rotation by the angle $c|k|t$,

$$\hat u = \hat u_0\cos(c|k|t) + \hat v_0\,\frac{\sin(c|k|t)}{c|k|},\qquad \hat u_t = \hat v_0\cos(c|k|t) - c|k|\,\hat u_0\sin(c|k|t),$$

which keeps its energy. Initial data hold modes below a third of the points only, so that sums over the points are the integrals: energy
$\int\frac12(u_t^2 + c^2|\nabla u|^2)$, momentum $\int u_t\nabla u$ and means are constant to round-off.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from constraints import Axis, Constraint, Grid, Integral, Intersection, Mass
from constraints.calculus.spectral import Spectral, dealiasing
from pde_datasets.problem import Problem
from pde_datasets.random_fields import gaussian_fields, wavenumber_magnitude


@dataclass(frozen=True)
class Wave(Problem):
    r"""Smooth random waves: fields u and $u_t$ on (time, x) or (time, x, y).

    Initial u has the spectrum $(1 + (|k|/2\pi\kappa)^2)^{-s}$ without a mean, initial $u_t$ that of $c|k|u$ times `motion` squared: with
    motion 1 potential and kinetic energy are equal in the mean, with 0 the waves start from rest.

    Attributes:
        dimension: number of space axes, 1 or 2.
        points: points an axis.
        times: stored times, the initial one included.
        duration: time from the first stored field to the last; they are duration / (times - 1) apart.
        speed: wave speed c.
        smoothness: s, decay of the spectrum.
        scale: $\kappa$, waves per period up to which the spectrum is flat.
        motion: size of the initial $u_t$.
    """

    name: ClassVar[str] = "wave"
    equation: ClassVar[str] = "u_tt = c^2 lap u"
    source: ClassVar[str] = "exact rotation of Fourier modes"
    scheme: ClassVar[str] = "exact"
    channels: ClassVar[tuple[str, ...]] = ("u", "u_t")

    dimension: int = 1
    points: int = 64
    times: int = 33
    duration: float = 1.0
    speed: float = 1.0
    smoothness: float = 4.0
    scale: float = 3.0
    motion: float = 1.0

    def __post_init__(self) -> None:
        if self.dimension not in (1, 2):
            raise ValueError(f"Wave expects one or two space axes; got dimension = {self.dimension}.")
        if not (self.speed > 0 and self.scale > 0 and self.duration > 0):
            raise ValueError(
                f"Wave expects positive speed, scale and duration; got {self.speed}, {self.scale} and {self.duration}. For fields at rest "
                "at the start set motion = 0."
            )

    @property
    def grid(self) -> Grid:
        space = (Axis(name, self.points, length=1.0, periodic=True) for name in ("x", "y")[: self.dimension])
        return Grid(Axis("time", self.times, length=self.duration), *space)

    @property
    def laws(self) -> tuple[str, ...]:
        return ("mass:value=0,channels=u", "mass:value=0,channels=u_t")

    def simulate(self, streams: Sequence[torch.Generator], device: torch.device) -> tuple[Tensor, dict[str, Tensor]]:
        def amplitude(k: Tensor) -> Tensor:
            return (1 + (k / (2 * math.pi * self.scale)) ** 2) ** (-self.smoothness / 2) * dealiasing(self.grid)

        u = gaussian_fields(self.grid, amplitude, streams)
        v = gaussian_fields(self.grid, lambda k: self.motion * self.speed * k * amplitude(k), streams)
        return self.solve(u.to(device), v.to(device)), {"speed": torch.full((len(streams),), self.speed, dtype=torch.float64)}

    def solve(self, u: Tensor, v: Tensor) -> Tensor:
        """Fields (N, 2, T, *space) from initial u and u_t, (N, *space)."""
        dims, shape = self.grid.space_dims, self.grid.space.shape
        rate = self.speed * wavenumber_magnitude(self.grid).to(u)
        time = self.grid.axes[0].positions(u).reshape(-1, *(1,) * self.dimension)
        cosine, sine = torch.cos(rate * time), torch.sin(rate * time)
        u_hat, v_hat = (torch.fft.rfftn(start, dim=dims).unsqueeze(1) for start in (u, v))
        turned = torch.stack(
            [u_hat * cosine + v_hat * time * torch.sinc(rate * time / math.pi), v_hat * cosine - u_hat * rate * sine], dim=1
        )
        return torch.fft.irfftn(turned, s=shape, dim=dims)

    def constraint(self, parameters: Mapping[str, Tensor]) -> Constraint:
        axes = self.grid.space_axes
        return Intersection(
            *(Mass(self.grid, 0.0, component=c, channels=2) for c in range(2)),
            Integral(self.grid, self.energy_density, channels=2, name="wave energy"),
            *(Integral(self.grid, self.momentum_density(axis.name), channels=2, name=f"wave momentum along {axis.name}") for axis in axes),
        )

    def energy_density(self, u: Tensor) -> Tensor:
        r"""$\frac12(u_t^2 + c^2|\nabla u|^2)$ of fields (B, 2, *N): (B, *N)."""
        slopes = [Spectral().derivative(u[:, 0], self.grid, axis.name) for axis in self.grid.space_axes]
        return (u[:, 1].square() + self.speed**2 * torch.stack(slopes).square().sum(0)) / 2

    def momentum_density(self, axis: str) -> Callable[[Tensor], Tensor]:
        r"""$u_t\,\partial_i u$ of fields (B, 2, *N), which momentum along an axis is the integral of: (B, *N)."""
        return lambda u: u[:, 1] * Spectral().derivative(u[:, 0], self.grid, axis)
