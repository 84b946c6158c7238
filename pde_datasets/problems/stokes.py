r"""Stokes' second problem, exactly: fluid above a plate that oscillates in its own plane.

$$u_t = \nu u_{yy},\qquad u(0, t) = U\cos\omega t,\qquad u(y, t) = U e^{-ky}\cos(ky - \omega t),\qquad k = \sqrt{\omega/2\nu}.$$
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from constraints import Axis, Bounds, Constraint, Dirichlet, Grid, InitialCondition, Intersection, Mass
from pde_datasets.problem import Problem, uniform

DRAWN = ("wavenumber", "viscosity")


@dataclass(frozen=True)
class StokesSecond(Problem):
    r"""Damped shear waves: space-time fields on (time, y), the plate at y = 0, on $[0, 1]^2$.

    Laws, all to round-off: initial data, values at both ends, the envelope $|u| \le U e^{-ky}$, and the integral over y by the
    trapezoidal rule, a geometric series (`integral`). The flux through the plate, $-\nu u_y$, balances that integral to second order in
    the spacing only.

    Attributes:
        points: points in space, both ends included.
        times: stored times, the initial one included; they are equally spaced on [0, 1].
        amplitude: U.
        drawn: what is drawn beside the frequency, "wavenumber" k or "viscosity"; the other one follows.
        spread: its range, drawn uniformly.
        frequency: range of $\omega$, drawn uniformly.

    Source:
        Stokes, Trans. Camb. Phil. Soc. 9 (1851) 8; Batchelor, An Introduction to Fluid Dynamics (1967), section 4.3.
    """

    name: ClassVar[str] = "stokes-second"
    equation: ClassVar[str] = "u_t = nu u_yy, u(0, t) = U cos(omega t)"
    source: ClassVar[str] = "exact; settings of ECI (arXiv:2412.01786)"
    scheme: ClassVar[str] = "exact"
    channels: ClassVar[tuple[str, ...]] = ("u",)
    units: ClassVar[tuple[str, ...]] = ("m s-1",)
    roles: ClassVar[Mapping[str, tuple[str, ...]]] = {"density": ("u",)}
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"eci": {}, "eci-viscosity": {"drawn": "viscosity", "spread": (0.01, 1.0)}}

    points: int = 100
    times: int = 100
    amplitude: float = 2.0
    drawn: str = "wavenumber"
    spread: tuple[float, float] = (2.0, 20.0)
    frequency: tuple[float, float] = (2.0, 8.0)

    def __post_init__(self) -> None:
        if self.drawn not in DRAWN:
            raise ValueError(f"StokesSecond expects drawn among {', '.join(DRAWN)}; got '{self.drawn}'.")
        self.expect_range("spread", 0.0)
        self.expect_range("frequency", 0.0)

    @property
    def grid(self) -> Grid:
        return Grid(Axis("time", self.times, length=1.0), Axis("y", self.points, length=1.0))

    @property
    def laws(self) -> tuple[str, ...]:
        size = abs(self.amplitude)
        return (f"bounds:lower={-size!r},upper={size!r}",)

    def simulate(self, streams: Sequence[torch.Generator], device: torch.device) -> tuple[Tensor, dict[str, Tensor]]:
        drawn, frequency = (values.to(device) for values in uniform(streams, self.spread, self.frequency))
        other = frequency / (2 * drawn.square()) if self.drawn == "wavenumber" else (frequency / (2 * drawn)).sqrt()
        wavenumber, viscosity = (drawn, other) if self.drawn == "wavenumber" else (other, drawn)
        parameters = {"wavenumber": wavenumber, "viscosity": viscosity, "frequency": frequency}
        return self.solution(parameters), parameters

    def solution(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """The exact fields, (N, 1, T, Y)."""
        k, frequency = (parameters[name][:, None, None] for name in ("wavenumber", "frequency"))
        time, y = self.grid.mesh(k)
        return (self.amplitude * torch.exp(-k * y) * torch.cos(k * y - frequency * time))[:, None]

    def integral(self, parameters: Mapping[str, Tensor]) -> Tensor:
        r"""The trapezoidal integral over y at each time, (N, T), of $u = U\,\Re e^{-sy - i\omega t}$ with $s = (1 - i)k$:

        $$U\,\Re\,\Big(\tfrac h2\coth\tfrac{sh}2\;(1 - e^{-s})\,e^{-i\omega t}\Big),$$

        for the spacing h; the first two factors tend to the exact $\int_0^1 e^{-sy}dy = (1 - e^{-s})/s$.
        """
        s, h = parameters["wavenumber"] * (1 - 1j), self.grid.axes[1].spacing
        turned = torch.exp(-1j * parameters["frequency"][:, None] * self.grid.axes[0].positions(parameters["frequency"]))
        return self.amplitude * ((h / 2 / torch.tanh(s * h / 2) * (1 - torch.exp(-s)))[:, None] * turned).real

    def constraint(self, parameters: Mapping[str, Tensor]) -> Constraint:
        grid, u = self.grid, self.solution(parameters)
        envelope = abs(self.amplitude) * torch.exp(-parameters["wavenumber"][:, None] * grid.axes[1].positions(u))[:, None, None]
        return Intersection(
            InitialCondition(grid, u[:, :, 0]),
            Dirichlet(grid, "y", "lower", u[:, 0, :, 0]),
            Dirichlet(grid, "y", "upper", u[:, 0, :, -1]),
            Bounds(-envelope, envelope),
            Mass(grid, self.integral(parameters)),
        )
