r"""Two-dimensional Navier-Stokes on the unit torus, by vorticity: the benchmark of neural operators.

$$\partial_t w + \mathbf u\cdot\nabla w = \nu\nabla^2 w + A\sin(2\pi(x + y) + \varphi),\qquad \nabla\cdot\mathbf u = 0,\quad
w = \partial_x v - \partial_y u.$$

Initial data are Gaussian with mean 0 and the spectrum of $(-\nabla^2 + 49)^{-5/2}$. Vorticity is a curl, and so is the force's: the mean
stays 0, to round-off, and with it the velocity is periodic.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from constraints import Axis, Constraint, Grid, InitialCondition, Intersection, Mass
from pde_datasets.problem import Problem, generator, uniform
from pde_datasets.random_fields import gaussian_fields
from pde_datasets.solvers.periodic_flow import check_tolerance
from pde_datasets.solvers.vorticity import VorticityFlow


@dataclass(frozen=True)
class NavierStokes(Problem):
    r"""Forced vorticity from Gaussian initial data: fields w on (time, x, y).

    The initial field is $\sum_k\sqrt2\,7^{3/2}(|k|^2 + 49)^{-5/4} z_k e^{ik\cdot x}$ with unit complex Gaussians $z_k$, as the published
    generators draw it, of standard deviation 0.25; the covariance $7^{3/2}(-\nabla^2 + 49)^{-5/2}$ of the paper would be six times
    smaller in amplitude. Its modes beyond the two-thirds rule, none of which the solver carries, are left out. The published generators
    step in time to first order with $\Delta t = 10^{-4}$ or $10^{-3}$; here it is ETDRK4.

    Attributes:
        points: stored points an axis.
        times: stored times, the initial one included.
        duration: time from the first stored field to the last; they are duration / (times - 1) apart.
        viscosity: kinematic viscosity.
        force: amplitude A of the force's curl.
        phase: range of its phase, drawn uniformly; $\sin + \cos$ is $\sqrt2\sin(\cdot + \pi/4)$.
        refine: solved on this many times the points; the modes that fit are stored, which keeps the mean. The published data keep every
            fourth point instead.
        tolerance: bound on the relative error of a time step, as in `PeriodicFlow`.
        initial_seed: 0, and every sample has an initial field of its own; else all have the one that this seed draws.

    Presets: `fno-1e-3`, `fno-1e-4`, `fno-1e-5` of Li et al., whose files hold the times from 1 on; `pcfm`, where the published set takes
    100 phases equally spaced on the range; `diffusionpde`, 10 frames after the initial one.
    """

    name: ClassVar[str] = "navier-stokes"
    equation: ClassVar[str] = "w_t + u.grad w = nu lap w + A sin(2 pi (x + y) + phase), div u = 0, w = curl u"
    source: ClassVar[str] = (
        "Li et al., ICLR 2021 (arXiv:2010.08895); settings also of PCFM (arXiv:2506.04171) and DiffusionPDE (arXiv:2406.17763)"
    )
    scheme: ClassVar[str] = "pseudo-spectral, ETDRK4"
    channels: ClassVar[tuple[str, ...]] = ("w",)
    units: ClassVar[tuple[str, ...]] = ("s-1",)
    roles: ClassVar[Mapping[str, tuple[str, ...]]] = {"density": ("w",)}
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "fno-1e-3": {"times": 51, "duration": 50.0},
        "fno-1e-4": {"times": 31, "duration": 30.0, "viscosity": 1e-4, "refine": 2},
        "fno-1e-5": {"times": 21, "duration": 20.0, "viscosity": 1e-5, "refine": 4},
        "pcfm": {"phase": (0.0, math.pi / 2)},
        "diffusionpde": {"points": 128, "times": 11, "duration": 1.0},
    }
    together: ClassVar[int] = 16

    points: int = 64
    times: int = 50
    duration: float = 49.0
    viscosity: float = 1e-3
    force: float = 0.1 * math.sqrt(2)
    phase: tuple[float, float] = (math.pi / 4, math.pi / 4)
    refine: int = 1
    tolerance: float = 1e-6
    initial_seed: int = 0

    def __post_init__(self) -> None:
        if self.times < 2 or self.duration <= 0:
            raise ValueError(f"NavierStokes expects at least 2 times up to a positive one; got {self.times} up to {self.duration}.")
        if self.viscosity < 0:
            raise ValueError(f"NavierStokes expects a viscosity that is not negative; got {self.viscosity}.")
        if self.refine < 1:
            raise ValueError(f"NavierStokes expects to be solved on a whole number of times its points, at least 1; got {self.refine}.")
        check_tolerance(self.tolerance, "NavierStokes")
        self.expect_range("phase")

    @property
    def grid(self) -> Grid:
        return Grid(Axis("time", self.times, length=self.duration), *(Axis(name, self.points, length=1.0, periodic=True) for name in "xy"))

    @property
    def laws(self) -> tuple[str, ...]:
        return ("mass:value=0",)

    def flow(self, phase: Tensor, device: str | torch.device = "cpu") -> VorticityFlow:
        """The equations as they are solved, with the force of each sample's phase."""
        grid = replace(self, points=self.points * self.refine).grid.space
        x, y = grid.mesh()
        force = self.force * torch.sin(2 * math.pi * (x + y) + phase[:, None, None].cpu())
        return VorticityFlow(grid, self.viscosity, force=force, tolerance=self.tolerance, device=device)

    def simulate(self, streams: Sequence[torch.Generator], device: torch.device) -> tuple[Tensor, dict[str, Tensor]]:
        (phase,) = uniform(streams, self.phase)
        flow = self.flow(phase, device)
        fine = replace(self, points=self.points * self.refine).grid
        origins = [generator(self.initial_seed, 0)] if self.initial_seed else streams
        initial = gaussian_fields(fine, lambda k: math.sqrt(2) * 7**1.5 * (k**2 + 49) ** -1.25, origins)
        initial = initial.expand(len(streams), *initial.shape[1:])
        w, spacing = flow.transform(initial.to(device)), self.grid.axes[0].spacing
        stored = [flow.vorticity(w, self.points)]
        for _ in range(self.times - 1):
            w = flow.advance(w, spacing)
            stored.append(flow.vorticity(w, self.points))
        u = torch.stack(stored, dim=1)[:, None]
        viscosity = torch.full((len(streams),), self.viscosity, dtype=torch.float64)
        return u, {"viscosity": viscosity, "phase": phase, "initial": u[:, :, 0]}

    def constraint(self, parameters: Mapping[str, Tensor]) -> Constraint:
        return Intersection(InitialCondition(self.grid, parameters["initial"]), Mass(self.grid, 0.0))
