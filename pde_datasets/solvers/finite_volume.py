r"""Second-order finite volumes for hyperbolic systems, each sample with its own time step.

Cell averages change by what passes their faces, all axes at once,

$$\frac{dU}{dt} = -\sum_i\frac{F_{i+1/2} - F_{i-1/2}}{\Delta x_i} + S,$$

with fluxes between limited linear reconstructions of the primitive variables (MUSCL, van Leer 1979) and strong-stability-preserving
Runge-Kutta steps (Shu & Osher 1988). What comes in through the ends of the domain, and what acts inside, is summed up with the weights of
the steps: $\int U\,dV$ changes by exactly that, to round-off.

A step of CFL number $\sigma$ is $\Delta t = \sigma/\max\sum_i(|u_i| + c)/\Delta x_i$. Where a stage leaves the physical states, the sample
repeats its step with half the length, until it does not: for short ones positivity is proved (`System.limit`). All arithmetic is sample by
sample, so that a sample's result does not depend on its company, to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from constraints import Grid
from pde_datasets.solvers.hyperbolic import System
from pde_datasets.steps import took

Limiter = Callable[[Tensor, Tensor], Tensor]
"""A slope from the differences to the cell before and to the cell behind: zero at extrema, never more than twice the smaller one."""

BOUNDARIES = ("periodic", "outflow", "walls")
"""What lies beyond the ends: the other end; the last cell repeated; the mirror image."""

_HALVINGS = 40
"""Halvings of a time step before a state counts as lost."""


def _minmod(a: Tensor, b: Tensor) -> Tensor:
    return (a.sign() + b.sign()) / 2 * torch.minimum(a.abs(), b.abs())


def _van_leer(a: Tensor, b: Tensor) -> Tensor:
    product = a * b
    same = product > 0
    return torch.where(same, 2 * product / torch.where(same, a + b, 1.0), 0.0)


def _monotonized_central(a: Tensor, b: Tensor) -> Tensor:
    return (a.sign() + b.sign()) / 2 * torch.minimum(2 * torch.minimum(a.abs(), b.abs()), (a + b).abs() / 2)


def _superbee(a: Tensor, b: Tensor) -> Tensor:
    first, second = _minmod(2 * a, b), _minmod(a, 2 * b)
    return torch.where(first.abs() > second.abs(), first, second)


def _van_albada(a: Tensor, b: Tensor) -> Tensor:
    product = a * b
    same = product > 0
    return torch.where(same, product * (a + b) / torch.where(same, a.square() + b.square(), 1.0), 0.0)


LIMITERS: dict[str, Limiter] = {
    "constant": lambda a, b: torch.zeros_like(a),
    "minmod": _minmod,
    "van-leer": _van_leer,
    "van-albada": _van_albada,
    "mc": _monotonized_central,
    "superbee": _superbee,
}
"""Limiters by name (Sweby 1984); "constant" is Godunov's first-order scheme."""

INTEGRATORS: dict[str, tuple[float, ...]] = {"ssp-rk2": (1.0, 0.5), "ssp-rk3": (1.0, 0.25, 2 / 3)}
r"""Runge-Kutta steps by name: weights b of the stages $U \leftarrow U_n + b\,(U + \Delta t\,L(U) - U_n)$."""


@dataclass(frozen=True)
class FiniteVolume:
    """Finite volumes on a box.

    Arguments:
        grid: the space axes: periodic ones, or cells; at least two cells each.
        boundaries: what lies beyond the ends of each axis, out of `BOUNDARIES`.
        limiter: name of the limiter.
        integrator: name of the time step.
        cfl: CFL number, at most 1; the default is well within what either step allows in any number of dimensions.

    Raises:
        ValueError: unknown names, too few cells, or a CFL number that is not in (0, 1].
    """

    grid: Grid
    boundaries: tuple[str, ...]
    limiter: str = "mc"
    integrator: str = "ssp-rk3"
    cfl: float = 0.4

    def __post_init__(self) -> None:
        for what, name, known in (
            *(("boundary", name, BOUNDARIES) for name in self.boundaries),
            ("limiter", self.limiter, tuple(LIMITERS)),
            ("integrator", self.integrator, tuple(INTEGRATORS)),
        ):
            if name not in known:
                raise ValueError(f"{what} expects one of {', '.join(known)}; got '{name}'.")
        if not 0 < self.cfl <= 1:
            raise ValueError(f"cfl expects a number above 0 and at most 1; got {self.cfl}.")
        if len(self.boundaries) != len(self.grid.space_axes):
            raise ValueError(f"FiniteVolume expects a boundary for each of {len(self.grid.space_axes)} axes; got {self.boundaries}.")
        for axis, boundary in zip(self.grid.space_axes, self.boundaries, strict=True):
            if axis.points < 2 or axis.periodic != (boundary == "periodic") or not (axis.periodic or axis.cells):
                raise ValueError(f"FiniteVolume with boundary '{boundary}' expects at least two cells on a matching axis; got {axis}.")

    def rate(self, system: System, u: Tensor) -> tuple[Tensor, Tensor]:
        """The right-hand side, (B, C, *N), and the rate at which the integrals of the channels change by it, (B, C)."""
        w = system.primitive(u)
        rate, received = torch.zeros_like(u), u.new_zeros(u.shape[:2])
        axes = self.grid.space_axes
        volume = math.prod(axis.spacing for axis in axes)
        for i, (axis, boundary) in enumerate(zip(axes, self.boundaries, strict=True)):
            dim, n = i - len(axes), axis.points
            extended = _extended(w, dim, boundary, 1 + i)
            steps = torch.diff(extended, dim=dim)
            cells = extended.narrow(dim, 1, n + 2)
            slope = LIMITERS[self.limiter](steps.narrow(dim, 0, n + 2), steps.narrow(dim, 1, n + 2))
            half = system.limit(cells, slope) / 2
            lower, upper = cells - half, cells + half
            out, into = system.faces(upper.narrow(dim, 0, n + 1), lower.narrow(dim, 1, n + 1), i)
            change = into.narrow(dim, 0, n) - out.narrow(dim, 1, n)
            gained = (into.narrow(dim, 0, 1) - out.narrow(dim, n, 1)).flatten(2).sum(2)
            source = system.source(lower.narrow(dim, 1, n), upper.narrow(dim, 1, n), i)
            if source is not None:
                change = change + source
                gained = gained + (into - out).narrow(dim, 1, n - 1).flatten(2).sum(2) + source.flatten(2).sum(2)
            rate = rate + change / axis.spacing
            received = received + gained * (volume / axis.spacing)
        return rate, received

    def step_length(self, system: System, u: Tensor) -> Tensor:
        """The time step of each sample, (B,)."""
        w = system.primitive(u)
        sound = system.sound(w)
        crossing = torch.zeros_like(sound)
        for i, axis in enumerate(self.grid.space_axes):
            crossing = crossing + (w[:, 1 + i].abs() + sound) / axis.spacing
        return self.cfl / crossing.flatten(1).amax(1)

    def step(self, system: System, u: Tensor, dt: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The state a step later, what was received in it, (B, C), and whether all of it is physical, (B,)."""
        later, received = u, u.new_zeros(u.shape[:2])
        fine = torch.ones_like(dt, dtype=torch.bool)
        wide, narrow = dt.reshape(-1, *(1,) * (u.ndim - 1)), dt[:, None]
        for weight in INTEGRATORS[self.integrator]:
            rate, gained = self.rate(system, later)
            # Written as changes of the first state: the weights of the two then add up to one without rounding.
            later = u + weight * ((later - u) + wide * rate)
            received = weight * (received + narrow * gained)
            fine = fine & system.admissible(later)
        return later, received, fine

    def advance(self, system: System, u: Tensor, duration: float) -> tuple[Tensor, Tensor]:
        """The state a time later and what was received meanwhile, (B, C).

        Raises:
            ArithmeticError: a sample leaves the physical states however short the step.
        """
        u, received = u.clone(), u.new_zeros(u.shape[:2])
        left = u.new_full((len(u),), duration)
        shorter = torch.ones_like(left)
        while True:
            active = (left > 0).nonzero()[:, 0]
            if not len(active):
                return u, received
            part, present = system.take(active), u[active]
            dt = torch.minimum(self.step_length(part, present) * shorter[active], left[active])
            later, gained, fine = self.step(part, present, dt)
            took()
            u[active] = torch.where(fine.reshape(-1, *(1,) * (u.ndim - 1)), later, present)
            received[active] = received[active] + torch.where(fine[:, None], gained, 0.0)
            left[active] = left[active] - torch.where(fine, dt, 0.0)
            shorter[active] = torch.where(fine, 1.0, shorter[active] / 2)
            if shorter.min() < 2.0**-_HALVINGS:
                raise ArithmeticError("finite volumes: a state stays unphysical however short the step; is the initial one physical?")

    def trajectory(self, system: System, u: Tensor, times: int, duration: float) -> tuple[Tensor, Tensor]:
        """States at equally spaced times from 0 to `duration`, (B, C, times, *N), and what was received between them, (B, C, times - 1)."""
        frames, gains = [u], []
        for _ in range(times - 1):
            later, received = self.advance(system, frames[-1], duration / (times - 1))
            frames.append(later)
            gains.append(received)
        return torch.stack(frames, dim=2), torch.stack(gains, dim=2) if gains else u.new_zeros(*u.shape[:2], 0)


def _extended(w: Tensor, dim: int, boundary: str, normal: int) -> Tensor:
    """Two more cells at both ends of a dimension; in the mirror the normal velocity, channel `normal`, is reversed."""
    n = w.shape[dim]
    first, last = w.narrow(dim, 0, 2), w.narrow(dim, n - 2, 2)
    if boundary == "periodic":
        return torch.cat([last, w, first], dim=dim)
    if boundary == "outflow":
        outside, beyond = w.narrow(dim, 0, 1), w.narrow(dim, n - 1, 1)
        return torch.cat([outside, outside, w, beyond, beyond], dim=dim)
    outside, beyond = first.flip(dim), last.flip(dim)
    outside[:, normal] = -outside[:, normal]
    beyond[:, normal] = -beyond[:, normal]
    return torch.cat([outside, w, beyond], dim=dim)
