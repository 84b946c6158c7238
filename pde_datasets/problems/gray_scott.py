r"""The Gray-Scott model on a periodic square.

$$A_t = \delta_A\nabla^2A - AB^2 + f(1 - A),\qquad B_t = \delta_B\nabla^2B + AB^2 - (f + k)B.$$

A is fed, B feeds on A and is removed; depending on f and k there grow spots, stripes, spirals. Pseudo-spectral with the two-thirds rule,
ETDRK4 in time with diffusion as its linear part. The reaction turns A into B, one for one, so that

$$\frac{d}{dt}\int A + B\,dV = \int f(1 - A) - (f + k)B\,dV.$$

Means have no linear part: for them ETDRK4 is the classical Runge-Kutta method, and between stored times $\int A + B$ changes by that
method's sum of the right-hand side, to round-off. The sum is returned with the fields, as what was supplied.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from constraints import Axis, Budget, Constraint, Grid
from constraints.calculus.spectral import dealiasing
from pde_datasets.problem import Problem
from pde_datasets.random_fields import wavenumber_magnitude
from pde_datasets.solvers.exponential import ETDRK4
from pde_datasets.steps import expect

PATTERNS = {
    "gliders": (0.014, 0.054), "bubbles": (0.098, 0.057), "maze": (0.029, 0.057), "worms": (0.058, 0.065), "spirals": (0.018, 0.051),
    "spots": (0.03, 0.062),
}  # fmt: skip
"""Feed and kill rates of The Well's six sets."""

INITIAL = ("clusters", "fourier")


@dataclass(frozen=True)
class GrayScott(Problem):
    r"""Patterns of two species: fields A and B on (time, x, y).

    Initial data, as in The Well: "clusters" are 10 to 100 periodic Gaussians each, of heights uniform on [1, 3], exponents $s r^2$ with s
    uniform on [150, 300], turned over for A, shifted and scaled to [0, 1] (by the extremes of the points, not of the continuum); "fourier"
    is trigonometric interpolation of 32 by 32 uniform numbers about the steady state (1, 0), or about the one with B where there is one.

    The law is the balance of A + B with what was `supplied`, (N, T - 1), between stored times.

    Attributes:
        points: points an axis.
        times: stored times, the initial one included.
        interval: time between stored fields; the last is at (times - 1) * interval.
        steps: time steps an interval.
        length: side of the square; its centre is the origin.
        diffusion_a: $\delta_A$.
        diffusion_b: $\delta_B$.
        feed: f.
        kill: k.
        initial: "clusters" or "fourier".
    """

    name: ClassVar[str] = "gray-scott"
    equation: ClassVar[str] = "A_t = dA lap A - A B^2 + f (1 - A), B_t = dB lap B + A B^2 - (f + k) B"
    source: ClassVar[str] = "pseudo-spectral, ETDRK4; settings of The Well, Ohana et al., NeurIPS 2024 (gray_scott_reaction_diffusion)"
    scheme: ClassVar[str] = "pseudo-spectral, ETDRK4"
    channels: ClassVar[tuple[str, ...]] = ("A", "B")
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        f"well-{pattern}": {"points": 128, "times": 1001, "interval": 10.0, "steps": 10, "length": 2.0, "feed": feed, "kill": kill}
        for pattern, (feed, kill) in PATTERNS.items()
    }
    together: ClassVar[int] = 4

    points: int = 64
    times: int = 21
    interval: float = 50.0
    steps: int = 50
    length: float = 1.0
    diffusion_a: float = 2e-5
    diffusion_b: float = 1e-5
    feed: float = 0.029
    kill: float = 0.057
    initial: str = "clusters"

    def __post_init__(self) -> None:
        if self.initial not in INITIAL:
            raise ValueError(f"GrayScott expects initial data out of {', '.join(INITIAL)}; got '{self.initial}'.")
        if not (self.feed > 0 and self.kill > 0 and self.diffusion_a >= 0 and self.diffusion_b >= 0):
            raise ValueError(
                "GrayScott expects positive rates and no negative diffusion; got "
                f"feed = {self.feed}, kill = {self.kill}, diffusion {self.diffusion_a} and {self.diffusion_b}."
            )
        if self.times < 2 or self.steps < 1 or not self.interval > 0:
            raise ValueError(
                "GrayScott expects at least two times a positive interval apart, and a step an interval; "
                f"got times = {self.times}, interval = {self.interval}, steps = {self.steps}."
            )
        if self.initial == "fourier" and self.points < 32:
            raise ValueError(f"GrayScott expects at least 32 points an axis for initial data 'fourier'; got {self.points}.")

    @property
    def grid(self) -> Grid:
        space = (Axis(name, self.points, length=self.length, origin=-self.length / 2, periodic=True) for name in ("x", "y"))
        return Grid(Axis("time", self.times, length=self.interval * (self.times - 1)), *space)

    def simulate(self, streams: Sequence[torch.Generator], device: torch.device) -> tuple[Tensor, dict[str, Tensor]]:
        if self.initial == "clusters":
            a, b = self.clusters(streams), self.clusters(streams)
            start = torch.stack([_unit(1 - a), _unit(b)], dim=1)
        else:
            start = self.fourier_noise(streams)
        u, supplied = self.solve(start.to(device))
        return u, {"supplied": supplied}

    def solve(self, initial: Tensor) -> tuple[Tensor, Tensor]:
        """Fields (N, 2, T, X, Y) from initial data (N, 2, X, Y), and what was supplied between stored times, (N, T - 1)."""
        grid, f, removal = self.grid, self.feed, self.feed + self.kill
        k2 = wavenumber_magnitude(grid).to(initial) ** 2
        mask = dealiasing(grid).to(initial)
        dt = self.interval / self.steps
        stepper = ETDRK4(torch.stack([-self.diffusion_a * k2, -self.diffusion_b * k2]), dt)
        rates: list[Tensor] = []

        def reaction(v: Tensor) -> Tensor:
            a, b = torch.fft.irfft2(v, s=(self.points, self.points)).unbind(1)
            conversion, feeding, removing = a * b.square(), f * (1 - a), removal * b
            rates.append((feeding - removing).mean((1, 2)))  # of each of the four stages of each step, in order
            return mask * torch.fft.rfft2(torch.stack([feeding - conversion, conversion - removing], dim=1))

        expect((self.times - 1) * self.steps)
        spectra = stepper.states(torch.fft.rfft2(initial) * mask, reaction, self.times, self.steps)
        u = torch.stack([torch.fft.irfft2(v, s=(self.points, self.points)) for v in spectra], dim=2)
        stages = torch.stack(rates, dim=1).unflatten(1, (self.times - 1, self.steps, 4))
        weights = stages.new_tensor([1, 2, 2, 1]) * (dt * grid.volume / 6)
        return u, (stages * weights).sum((2, 3))

    def constraint(self, parameters: Mapping[str, Tensor]) -> Constraint:
        return Budget(self.grid, received=parameters["supplied"], density=lambda u: u.sum(1), channels=2, name="balance of A + B")

    def clusters(self, streams: Sequence[torch.Generator]) -> Tensor:
        """Sums of periodic Gaussians, (N, X, Y)."""
        counts = torch.stack([torch.randint(10, 101, (), generator=stream) for stream in streams])
        height, exponent, *centre = torch.stack([torch.rand(4, 100, generator=s, dtype=torch.float64) for s in streams]).unbind(1)
        height = (1 + 2 * height) * (torch.arange(100) < counts[:, None])
        exponent = 150 + 150 * exponent
        images = self.length * torch.arange(-1, 2, dtype=torch.float64)
        # A Gaussian of two variables is a product, and so is its sum over the images of a square
        along_x, along_y = (
            torch.exp(
                -exponent[..., None, None] * (axis.positions() - axis.origin - (at * self.length)[..., None, None] - images[:, None]) ** 2
            ).sum(2)
            for axis, at in zip(self.grid.space_axes, centre, strict=True)
        )
        return torch.einsum("nm,nmx,nmy->nxy", height, along_x, along_y)

    def fourier_noise(self, streams: Sequence[torch.Generator]) -> Tensor:
        """Band-limited noise about a steady state, (N, 2, X, Y)."""
        noise = torch.stack([torch.rand(2, 32, 32, generator=stream, dtype=torch.float64) for stream in streams]) - 0.5
        (a, b), (span_a, span_b) = self.steady_state(), (1.0, 1.0)
        if b > 0:
            span_a, span_b = 0.9 * min(a, 1 - a), 0.9 * min(b, 1 - b)
        smooth = interpolate(noise, self.points)
        return noise.new_tensor([a, b])[:, None, None] + 0.5 * noise.new_tensor([span_a, span_b])[:, None, None] * smooth

    def steady_state(self) -> tuple[float, float]:
        """The uniform steady state with the more B: (1, 0) unless A is fed fast enough."""
        ratio = math.sqrt(self.feed) / (self.feed + self.kill)
        if ratio <= 2:
            return 1.0, 0.0
        root = math.sqrt(ratio**2 - 4)
        return (ratio - root) / (2 * ratio), math.sqrt(self.feed) * (ratio + root) / 2


def interpolate(u: Tensor, points: int) -> Tensor:
    """Trigonometric interpolation of fields (..., n, n) on more points, (..., points, points); n is even, Nyquist waves are left out."""
    n = u.shape[-1]
    spectrum = torch.fft.fftshift(torch.fft.fft2(u), dim=(-2, -1))[..., 1:, 1:]
    before, behind = points // 2 - n // 2 + 1, points - points // 2 - n // 2
    padded = torch.nn.functional.pad(spectrum, (before, behind, before, behind))
    return torch.fft.ifft2(torch.fft.ifftshift(padded, dim=(-2, -1))).real * (points / n) ** 2


def _unit(u: Tensor) -> Tensor:
    """Shifted and scaled to [0, 1], each field on its own."""
    low, high = u.amin((1, 2), keepdim=True), u.amax((1, 2), keepdim=True)
    return (u - low) / (high - low)
