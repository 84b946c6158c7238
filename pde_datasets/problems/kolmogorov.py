r"""Kolmogorov flow: two-dimensional incompressible Navier-Stokes driven by a sinusoidal force.

$$\partial_t \mathbf u + \mathbf u\cdot\nabla\mathbf u = -\nabla p + \nu\nabla^2\mathbf u - \alpha\mathbf u + F\sin(ny)\,\mathbf e_x,
\qquad \nabla\cdot\mathbf u = 0, \qquad [0, 2\pi)^2 \text{ periodic}.$$

Solved for the vorticity $\omega = \partial_x v - \partial_y u$, pseudo-spectrally: real transforms, products dealiased by the
two-thirds rule, ETDRK4 in time. With the momentum flux written as $\nabla\cdot(\mathbf u\mathbf u)$ two products are enough,

$$\nabla\times\nabla\cdot(\mathbf u\mathbf u) = (\partial_{xx} - \partial_{yy})(uv) + \partial_{xy}(v^2 - u^2),$$

hence four transforms a stage. The laminar profile $u = F\sin(ny)/(\nu n^2 + \alpha)$ is a steady solution.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from constraints import Axis, Constraint, DivergenceFree, Grid, Intersection, Momentum
from constraints.calculus.spectral import Spectral, dealiasing
from pde_datasets.problem import Problem
from pde_datasets.random_fields import gaussian_fields
from pde_datasets.solvers.exponential import ETDRK4


@dataclass(frozen=True)
class Kolmogorov(Problem):
    """Velocity snapshots (u, v) of statistically steady Kolmogorov flow.

    Attributes:
        points: grid points an axis; two thirds of the wavenumbers are resolved.
        viscosity: kinematic viscosity; its inverse is the Reynolds number in the units of the domain.
        drag: linear drag of the large scales.
        force: amplitude F of the force.
        mode: wavenumber n of the force.
        dt: time step.
        spin_up: time before the first snapshot.
        interval: time between snapshots of one trajectory.
        snapshots: snapshots taken from one trajectory.
    """

    name: ClassVar[str] = "kolmogorov"
    equation: ClassVar[str] = "u_t + u.grad u = -grad p + nu lap u - drag u + F sin(n y) e_x, div u = 0"
    source: ClassVar[str] = (
        "2-D forced turbulence, ETDRK4 pseudo-spectral; Kochkov et al., PNAS 118 (2021); Baldan et al., arXiv:2506.08604"
    )
    scheme: ClassVar[str] = "pseudo-spectral, ETDRK4"
    channels: ClassVar[tuple[str, ...]] = ("u", "v")
    units: ClassVar[tuple[str, ...]] = ("m s-1", "m s-1")
    roles: ClassVar[Mapping[str, tuple[str, ...]]] = {"velocity": ("u", "v")}
    together: ClassVar[int] = 16

    points: int = 64
    viscosity: float = 0.01
    drag: float = 0.1
    force: float = 1.0
    mode: int = 4
    dt: float = 0.025
    spin_up: float = 15.0
    interval: float = 2.0
    snapshots: int = 16

    def __post_init__(self) -> None:
        if not 0 < self.dt <= self.interval:
            raise ValueError(
                f"Kolmogorov expects a time step between 0 and the interval of snapshots, {self.interval}; got dt = {self.dt}."
            )
        if self.spin_up < 0:
            raise ValueError(f"Kolmogorov expects a spin-up that is not negative; got {self.spin_up}.")

    @property
    def grid(self) -> Grid:
        return Grid(*(Axis(name, self.points, length=2 * math.pi, periodic=True) for name in ("x", "y")))

    @property
    def laws(self) -> tuple[str, ...]:
        return ("divergence-free:scheme=spectral", "momentum:value=0")

    def simulate(self, streams: Sequence[torch.Generator], device: torch.device) -> tuple[Tensor, dict[str, Tensor]]:
        flow = VorticityFlow(self, device)
        w = gaussian_fields(self.grid, lambda k: 0.25 * k * torch.exp(-((k / 4) ** 2)), streams)
        w = flow.advance(flow.transform(w.to(device)), self.spin_up)
        taken = []
        for _ in range(self.snapshots):
            w = flow.advance(w, self.interval)
            taken.append(flow.velocity(w))
        u = torch.stack(taken, dim=1).flatten(0, 1)
        return u, {"viscosity": torch.full((len(u),), self.viscosity, dtype=torch.float64)}

    def constraint(self, parameters: Mapping[str, Tensor]) -> Constraint:
        return Intersection(DivergenceFree(self.grid), Momentum(self.grid, 0.0))


class VorticityFlow:
    """The semi-discrete equations of a `Kolmogorov` problem on the real Fourier transform of the vorticity, (B, n, n/2 + 1)."""

    def __init__(self, problem: Kolmogorov, device: str | torch.device = "cpu") -> None:
        grid, n = problem.grid, problem.points
        k = Spectral().wavenumber(grid.axes[0]).to(device)
        self.kx, self.ky = k[:, None], k[: n // 2 + 1][None, :]
        k2 = self.kx**2 + self.ky**2
        self.inverse_k2 = torch.where(k2 > 0, 1 / torch.where(k2 > 0, k2, 1.0), 0.0)
        self.mask = dealiasing(grid).to(device)
        self.shape = (n, n)
        self.dt = problem.dt
        y = grid.mesh()[1].to(device)
        self.forcing = torch.fft.rfft2(-problem.force * problem.mode * torch.cos(problem.mode * y))
        self.flux_uv = -self.mask * (self.ky**2 - self.kx**2)
        self.flux_difference = self.mask * (self.kx * self.ky)
        self.stepper = ETDRK4(-problem.viscosity * k2 - problem.drag, problem.dt)

    def transform(self, w: Tensor) -> Tensor:
        """Dealiased transform of vorticity fields (B, *N)."""
        return torch.fft.rfft2(w) * self.mask

    def velocity(self, w: Tensor) -> Tensor:
        """Velocity fields (B, 2, *N): u = d psi/dy, v = -d psi/dx with -lap psi = omega."""
        psi = w * self.inverse_k2
        spectrum = torch.stack([1j * self.ky * psi, -1j * self.kx * psi], dim=1)
        return torch.fft.irfft2(spectrum, s=self.shape)

    def nonlinear(self, w: Tensor) -> Tensor:
        """Advection and force, on the transform."""
        u, v = self.velocity(w).unbind(1)
        products = torch.fft.rfft2(torch.stack([u * v, v * v - u * u], dim=1))
        return self.flux_uv * products[:, 0] + self.flux_difference * products[:, 1] + self.forcing

    def advance(self, w: Tensor, time: float) -> Tensor:
        """The state a given time later, in whole steps."""
        for _ in range(round(time / self.dt)):
            w = self.stepper.step(w, self.nonlinear)
        return w
