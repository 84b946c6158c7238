r"""The cubic nonlinear Schrödinger equation on a periodic line.

$$i h_t + \tfrac12 h_{xx} + g\,|h|^2 h = 0.$$

Kinetic and potential part are each solved exactly, $\hat h\,e^{-ik^2t/2}$ and $h\,e^{ig|h|^2t}$, and alternate in steps of fourth order, in
as many as a tolerance asks for. Both leave $|h|$ or $|\hat h|$ alone: the mass $\int|h|^2$ is kept to round-off. The energy
$\int\frac12|h_x|^2 - \frac g2|h|^4$, summed over the points with $-\frac12\mathrm{Re}(\bar h h_{xx})$ for its first term, is that of the
equations at the points. The steps keep it up to their error; stored fields are brought back to the level of mass and energy, which
changes them by no more than that error and leaves round-off (`solvers/invariants.py`). The momentum $\int\mathrm{Im}(\bar h h_x)$ is kept
as
far as steps and points resolve it. With g = 1 the bright soliton
$\eta\,\mathrm{sech}(\eta(x - vt))\,e^{i(vx + (\eta^2 - v^2)t/2)}$ keeps its shape.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import torch
from torch import Tensor

from constraints import Axis, Constraint, Grid, Integral, Intersection, L2Energy
from constraints.calculus.spectral import wavenumbers
from pde_datasets.problem import Problem
from pde_datasets.random_fields import gaussian_fields, wavenumber_magnitude
from pde_datasets.solvers.invariants import restored
from pde_datasets.solvers.periodic_flow import check_tolerance
from pde_datasets.solvers.refined import halved
from pde_datasets.solvers.resolution import warn_unresolved
from pde_datasets.solvers.splitting import blanes_moan_4
from pde_datasets.steps import took

INITIAL = ("random", "sech")


@dataclass(frozen=True)
class Schroedinger(Problem):
    r"""Envelopes of waves: fields Re h and Im h on (time, x).

    Initial data: "random" is a plane wave of height 1 with complex Gaussian disturbances of spectrum $e^{-k^2}$, which modulational
    instability focuses where g > 0; "sech" is $2\,\mathrm{sech}\,x$ (Raissi et al.), on the whole line a breather of period $\pi/2$.

    The laws are the mass and the energy, conserved to round-off at the stored times.

    Attributes:
        points: points in space.
        times: stored times, the initial one included.
        duration: time from the first stored field to the last; they are duration / (times - 1) apart.
        steps: least number of time steps between stored times, even.
        tolerance: bound on what halving the steps changes from one stored time to the next, relative to h in the mean square; they are
            halved until it is met.
        length: period; x starts at minus half of it.
        nonlinearity: g, positive where waves focus.
        disturbance: standard deviation of their real and imaginary part, but for the mean, which is left out.
        initial: "random" or "sech".
    """

    name: ClassVar[str] = "schroedinger"
    equation: ClassVar[str] = "i h_t + h_xx / 2 + g |h|^2 h = 0"
    source: ClassVar[str] = "split steps of fourth order; settings of Raissi et al., J. Comput. Phys. 378 (2019) 686"
    scheme: ClassVar[str] = "Fourier, splitting of Blanes & Moan, order 4"
    channels: ClassVar[tuple[str, ...]] = ("real", "imag")
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "raissi": {
            "points": 256, "times": 201, "duration": math.pi / 2, "steps": 10, "length": 10.0, "nonlinearity": 1.0, "initial": "sech",
        },
    }  # fmt: skip

    points: int = 256
    times: int = 41
    duration: float = 4.0
    steps: int = 20
    tolerance: float = 1e-5
    length: float = 20.0
    nonlinearity: float = 1.0
    disturbance: float = 0.2
    initial: str = "random"

    def __post_init__(self) -> None:
        if self.initial not in INITIAL:
            raise ValueError(f"Schroedinger expects initial data out of {', '.join(INITIAL)}; got '{self.initial}'.")
        if self.times < 2 or self.steps < 2 or self.steps % 2 or not self.duration > 0:
            raise ValueError(
                "Schroedinger expects at least two times, a positive duration and an even number of steps between times, at least 2; "
                f"got times = {self.times}, duration = {self.duration}, steps = {self.steps}."
            )
        check_tolerance(self.tolerance, "Schroedinger")

    @property
    def grid(self) -> Grid:
        return Grid(
            Axis("time", self.times, length=self.duration),
            Axis("x", self.points, length=self.length, origin=-self.length / 2, periodic=True),
        )

    @property
    def laws(self) -> tuple[str, ...]:
        return ("energy:channels=real+imag",)

    def simulate(self, streams: Sequence[torch.Generator], device: torch.device) -> tuple[Tensor, dict[str, Tensor]]:
        if self.initial == "sech":
            start = (2 / torch.cosh(self.grid.axes[1].positions())).expand(len(streams), -1).to(torch.complex128)
        else:
            height = self.disturbance * math.sqrt(2 * math.sqrt(math.pi) / self.length)
            real, imag = (gaussian_fields(self.grid, lambda k: height * torch.exp(-(k**2) / 2), streams) for _ in range(2))
            start = torch.complex(1 + real, imag)
        return self.solve(start.to(device)), {}

    def solve(self, initial: Tensor) -> Tensor:
        """Fields (N, 2, T, X) from complex initial data (N, X)."""
        interval = self.grid.axes[0].spacing
        k2 = wavenumbers(self.grid.axes[1]).to(initial.device) ** 2

        @cache
        def rotation(time: float) -> Tensor:
            return torch.exp(-0.5j * time * k2)

        def kinetic(h: Tensor, time: float) -> Tensor:
            return torch.fft.ifft(torch.fft.fft(h) * rotation(time))

        def potential(h: Tensor, time: float) -> Tensor:
            return h * torch.exp(1j * self.nonlinearity * time * (h.real.square() + h.imag.square()))

        def advance(h: Tensor, steps: int) -> Tensor:
            for _ in range(steps):
                h = blanes_moan_4(h, interval / steps, kinetic, potential)
                took()
            return h

        h, states = initial, [initial]
        levels = self.invariants(torch.view_as_real(initial))[0]
        for _ in range(self.times - 1):
            h = halved(advance, h, self.steps // 2, self.tolerance)
            h = torch.view_as_complex(restored(torch.view_as_real(h), self.invariants, levels))
            states.append(h)
        u = torch.view_as_real(torch.stack(states, dim=1)).movedim(-1, 1).contiguous()
        warn_unresolved(u, self.grid.axes[1], "Schroedinger")
        return u

    def invariants(self, u: Tensor) -> tuple[Tensor, Tensor]:
        r"""$\sum|h|^2$ and $\sum\frac12|h_x|^2 - \frac g2|h|^4$ of states (N, X, 2), (N, 2), and their gradients (N, 2, X, 2).

        They are $2h$ and $-h_{xx} - 2g|h|^2h$.
        """
        h = torch.view_as_complex(u)
        k2 = wavenumbers(self.grid.axes[1]).to(u) ** 2
        minus_second, density = torch.fft.ifft(k2 * torch.fft.fft(h)), h.real.square() + h.imag.square()
        energy = ((h.conj() * minus_second).real - self.nonlinearity * density.square()) / 2
        gradients = torch.stack([2 * h, minus_second - 2 * self.nonlinearity * density * h], dim=1)
        return torch.stack([density.sum(-1), energy.sum(-1)], dim=1), torch.view_as_real(gradients)

    def constraint(self, parameters: Mapping[str, Tensor]) -> Constraint:
        return Intersection(L2Energy(self.grid, channels=2), Integral(self.grid, self.energy_density, channels=2, name="Hamiltonian"))

    def energy_density(self, u: Tensor) -> Tensor:
        r"""$-\frac12\mathrm{Re}(\bar h h_{xx}) - \frac g2|h|^4$ of fields (B, 2, T, X): (B, T, X)."""
        k2 = wavenumber_magnitude(self.grid).to(u) ** 2
        second = torch.fft.irfft(-k2 * torch.fft.rfft(u), n=self.points)
        return -((u * second).sum(1) + self.nonlinearity * u.square().sum(1).square()) / 2
