r"""The three-dimensional Taylor-Green vortex: from one smooth mode to turbulence and its decay.

$$\partial_t\mathbf u + \mathbf u\cdot\nabla\mathbf u = -\nabla p + \tfrac1{Re}\nabla^2\mathbf u,\qquad \nabla\cdot\mathbf u = 0,
\qquad [0, 2\pi)^3 \text{ periodic},$$

$$\mathbf u(0) = (\sin x\cos y\cos z,\; -\cos x\sin y\cos z,\; 0),$$

moved by a random shift, which the equations do not notice. Energy starts at 1/8 and decays by $2\nu Z$ with the enstrophy Z, first 3/8.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from constraints import Axis, Constraint, DivergenceFree, EnergyDecay, Grid, Intersection, Momentum
from pde_datasets.problem import Problem, uniform
from pde_datasets.solvers.navier_stokes_3d import VelocityFlow
from pde_datasets.solvers.periodic_flow import check_tolerance


@dataclass(frozen=True)
class TaylorGreen3D(Problem):
    """Velocity fields (u, v, w) on (time, x, y, z), at random Reynolds numbers and places.

    Attributes:
        points: points an axis; two thirds of the wavenumbers are resolved.
        times: stored times, the initial one included.
        duration: time from the first stored field to the last; they are duration / (times - 1) apart. Dissipation peaks near 9
            at Re 1600.
        reynolds: range of the Reynolds number, the inverse of the viscosity, drawn uniformly.
        tolerance: bound on the relative error of a time step, as in `PeriodicFlow`.

    Preset: `re1600`, the case of the International Workshop on High-Order CFD Methods, on 128 points.
    """

    name: ClassVar[str] = "taylor-green-3d"
    equation: ClassVar[str] = "u_t + u.grad u = -grad p + (1/Re) lap u, div u = 0"
    source: ClassVar[str] = "Taylor & Green, Proc. R. Soc. A 158 (1937) 499; Brachet et al., J. Fluid Mech. 130 (1983) 411"
    scheme: ClassVar[str] = "pseudo-spectral, ETDRK4"
    channels: ClassVar[tuple[str, ...]] = ("u", "v", "w")
    units: ClassVar[tuple[str, ...]] = ("m s-1", "m s-1", "m s-1")
    roles: ClassVar[Mapping[str, tuple[str, ...]]] = {"velocity": ("u", "v", "w")}
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"re1600": {"points": 128, "times": 21, "reynolds": (1600.0, 1600.0)}}
    together: ClassVar[int] = 2

    points: int = 32
    times: int = 11
    duration: float = 10.0
    reynolds: tuple[float, float] = (50.0, 200.0)
    tolerance: float = 1e-6

    def __post_init__(self) -> None:
        if self.times < 2 or self.duration <= 0:
            raise ValueError(f"TaylorGreen3D expects at least 2 times up to a positive one; got {self.times} up to {self.duration}.")
        self.expect_range("reynolds", 0.0)
        check_tolerance(self.tolerance, "TaylorGreen3D")

    @property
    def grid(self) -> Grid:
        space = (Axis(name, self.points, length=2 * math.pi, periodic=True) for name in "xyz")
        return Grid(Axis("time", self.times, length=self.duration), *space)

    @property
    def laws(self) -> tuple[str, ...]:
        return ("divergence-free:scheme=spectral", "momentum:value=0", "energy-decay")

    def initial(self, shift: Tensor) -> Tensor:
        """The vortex moved by shifts (N, 3), (N, 3, *space)."""
        mesh = self.grid.space.mesh(shift)
        x, y, z = (place - shift[:, i, None, None, None] for i, place in enumerate(mesh))
        u = torch.sin(x) * torch.cos(y) * torch.cos(z)
        return torch.stack([u, -torch.cos(x) * torch.sin(y) * torch.cos(z), torch.zeros_like(u)], dim=1)

    def simulate(self, streams: Sequence[torch.Generator], device: torch.device) -> tuple[Tensor, dict[str, Tensor]]:
        circle = (0.0, 2 * math.pi)
        reynolds, *shift = uniform(streams, self.reynolds, circle, circle, circle)
        flow = VelocityFlow(self.grid, 1 / reynolds, tolerance=self.tolerance, device=device)
        v = flow.transform(self.initial(torch.stack(shift, dim=1)).to(device))
        states = [flow.velocity(v)]
        for _ in range(self.times - 1):
            v = flow.advance(v, self.grid.axes[0].spacing)
            states.append(flow.velocity(v))
        return torch.stack(states, dim=2), {"viscosity": 1 / reynolds, "shift": torch.stack(shift, dim=1)}

    def constraint(self, parameters: Mapping[str, Tensor]) -> Constraint:
        return Intersection(DivergenceFree(self.grid), Momentum(self.grid, 0.0), EnergyDecay(self.grid))
