r"""Compressible Euler equations of an ideal gas, by finite volumes.

$$\partial_t\rho + \nabla\cdot(\rho\mathbf u) = 0,\qquad \partial_t(\rho\mathbf u) + \nabla\cdot(\rho\mathbf u\mathbf u) + \nabla p = 0,
\qquad \partial_t E + \nabla\cdot((E + p)\mathbf u) = 0,\qquad p = (\gamma-1)\big(E - \tfrac12\rho|\mathbf u|^2\big).$$

Units are those in which the temperature is $T = p/\rho$ and the speed of sound $c = \sqrt{\gamma T}$.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from pde_datasets.problem import uniform
from pde_datasets.problems.hyperbolic import Hyperbolic, below
from pde_datasets.solvers.hyperbolic import FLUXES, IdealGas
from pde_datasets.solvers.riemann import gas_riemann


class ShockTube(NamedTuple):
    """A Riemann problem on the unit interval: density, velocity and pressure on both sides, where they meet, and when to look."""

    left: tuple[float, float, float]
    right: tuple[float, float, float]
    position: float
    time: float


SHOCK_TUBES: dict[str, ShockTube] = {
    "sod": ShockTube((1.0, 0.0, 1.0), (0.125, 0.0, 0.1), 0.5, 0.2),
    "lax": ShockTube((0.445, 0.698, 3.528), (0.5, 0.0, 0.571), 0.5, 0.14),
    "toro1": ShockTube((1.0, 0.75, 1.0), (0.125, 0.0, 0.1), 0.3, 0.2),
    "toro2": ShockTube((1.0, -2.0, 0.4), (1.0, 2.0, 0.4), 0.5, 0.15),
    "toro3": ShockTube((1.0, 0.0, 1000.0), (1.0, 0.0, 0.01), 0.5, 0.012),
    "toro4": ShockTube((5.99924, 19.5975, 460.894), (5.99242, -6.19633, 46.095), 0.4, 0.035),
    "toro5": ShockTube((1.0, -19.59745, 1000.0), (1.0, -19.59745, 0.01), 0.8, 0.012),
}
"""The classic tests: Sod (1978), Lax (1954), and tests 1 to 5 of Toro (2009), section 10.8."""


@dataclass(frozen=True)
class Euler(Hyperbolic):
    """Gas from random or classic initial data; use `Euler1D` or `Euler2D`.

    Attributes:
        case: initial data, by name.
        gamma: ratios of specific heats; each sample draws one of them.
        density: range of the density, or of its mean.
        temperature: range of the temperature, or of its mean.
        mach: Mach number of the random velocities.
        flux: "hllc", or "hll", which smears contacts and shear but shows no carbuncle behind strong shocks.
    """

    equation: ClassVar[str] = "rho_t + div(rho u) = 0, (rho u)_t + div(rho u u) + grad p = 0, E_t + div((E + p) u) = 0"
    scheme: ClassVar[str] = "finite volumes: MUSCL on primitive variables, HLLC or HLL, SSP Runge-Kutta, positivity preserving"
    lower: ClassVar[float] = 0.0

    case: str = "rand"
    gamma: tuple[float, ...] = (1.4,)
    density: tuple[float, float] = (0.1, 10.0)
    temperature: tuple[float, float] = (0.1, 10.0)
    mach: float = 1.0
    flux: str = "hllc"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.expect_name("case", self.cases())
        self.expect_name("flux", FLUXES)
        if not self.gamma or min(self.gamma) <= 1:
            raise ValueError(f"{self.name} expects ratios of specific heats above 1; got gamma = {self.gamma}.")
        if self.mach < 0:
            raise ValueError(f"{self.name} expects a Mach number that is not negative; got {self.mach}.")
        self.expect_range("density", 0.0)
        self.expect_range("temperature", 0.0)

    @classmethod
    @abstractmethod
    def cases(cls) -> tuple[str, ...]:
        """Names of the initial data."""

    @property
    def conserved(self) -> tuple[str, ...]:
        return {"periodic": self.channels, "walls": ("density", "energy"), "outflow": ()}[self.boundary]

    def system(self, parameters: Mapping[str, Tensor]) -> IdealGas:
        return IdealGas(parameters["gamma"], self.dimension, self.flux)

    def initial(self, stream: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        gamma = self.gamma[int(torch.randint(len(self.gamma), (), generator=stream))]
        parameters = {"gamma": torch.tensor(gamma, dtype=torch.float64)}
        if self.case in SMOOTH:
            w = SMOOTH[self.case](self, stream, gamma)
            return IdealGas(gamma, self.dimension).conserved(w[None])[0], parameters
        parameters["states"], parameters["split"] = self.patches(stream, gamma)
        start = self.start({name: value[None] for name, value in parameters.items()})
        assert start is not None
        return start[0], parameters

    def patches(self, stream: torch.Generator, gamma: float) -> tuple[Tensor, Tensor]:
        """Random constant states (2, ..., 2, C), log-uniform density and temperature, and where they meet, a fraction of each axis."""
        count = 2**self.dimension
        density, temperature = (_log_uniform(stream, count, between) for between in (self.density, self.temperature))
        velocity = self.mach * (gamma * temperature).sqrt()[:, None] * (2 * _unit(stream, count, self.dimension) - 1)
        states = torch.cat([density[:, None], velocity, (density * temperature)[:, None]], dim=1)
        return states.reshape(*(2,) * self.dimension, -1), 0.25 + 0.5 * _unit(stream, self.dimension)

    def start(self, parameters: Mapping[str, Tensor]) -> Tensor | None:
        r"""Cell averages of the constant states, $\sum_s U_s\,|\text{cell} \cap \text{patch } s|/|\text{cell}|$."""
        if "states" not in parameters:
            return None
        states, split = parameters["states"], parameters["split"]
        u = self.system(parameters).conserved(states.movedim(-1, 1))
        for i, axis in enumerate(self.solver.grid.axes):
            part = below(axis, self.length * (self.lower + split[:, i]))
            shape = [len(part), 1, *(1,) * self.dimension]
            shape[2 + i] = axis.points
            first, second = u.narrow(2 + i, 0, 1), u.narrow(2 + i, 1, 1)
            # Away from the cut this is one of the states to the last bit.
            weight = part.reshape(shape)
            u = torch.where(weight == 1, first, second + weight * (first - second))
        return u


@dataclass(frozen=True)
class Euler1D(Euler):
    """Gas on a line: density, momentum and energy on (time, x).

    Cases: "riemann" (two random states), "rand" (random waves), and the classic shock tubes of `SHOCK_TUBES`.
    """

    name: ClassVar[str] = "euler-1d"
    source: ClassVar[str] = "Toro, Riemann Solvers (2009); random data after PDEBench (arXiv:2210.07182)"
    channels: ClassVar[tuple[str, ...]] = ("density", "momentum_x", "energy")
    roles: ClassVar[Mapping[str, tuple[str, ...]]] = {"density": ("density",), "momentum": ("momentum_x",), "energy": ("energy",)}
    dimension: ClassVar[int] = 1
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        **{name: {"case": name, "duration": tube.time, "boundary": "outflow"} for name, tube in SHOCK_TUBES.items()},
        "pdebench-rand": {
            "case": "rand", "points": 1024, "times": 101, "duration": 1.0, "length": 2.0, "gamma": (5 / 3,), "boundary": "periodic",
        },
        "pdebench-shock": {
            "case": "riemann", "points": 1024, "times": 81, "duration": 0.4, "length": 2.0, "gamma": (5 / 3,), "boundary": "outflow",
        },
    }  # fmt: skip

    case: str = "riemann"
    duration: float = 0.1

    @classmethod
    def cases(cls) -> tuple[str, ...]:
        return ("riemann", "rand", *SHOCK_TUBES)

    def patches(self, stream: torch.Generator, gamma: float) -> tuple[Tensor, Tensor]:
        if self.case == "riemann":
            return super().patches(stream, gamma)
        tube = SHOCK_TUBES[self.case]
        return torch.tensor([tube.left, tube.right], dtype=torch.float64), torch.tensor([tube.position], dtype=torch.float64)

    def exact(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """The exact solution of two constant states at the cell centres, (N, 3, T, X): until its waves meet the ends.

        Raises:
            ValueError: other initial data.
        """
        if "states" not in parameters:
            raise ValueError(f"{self.name} expects a case of two constant states for an exact solution; got '{self.case}'.")
        states = parameters["states"]
        time, x = (values.flatten() for values in self.grid.mesh(states))
        solution = gas_riemann(states[:, 0], states[:, 1], parameters["gamma"])
        # At time 0 every point is infinitely far away.
        away = x - self.length * (self.lower + parameters["split"])
        w = solution.at(away / time.clamp_min(torch.finfo(x.dtype).tiny))
        return IdealGas(parameters["gamma"], 1).conserved(w).reshape(len(states), 3, *self.grid.shape)


@dataclass(frozen=True)
class Euler2D(Euler):
    """Gas in a square: density, momentum and energy on (time, x, y).

    Cases: "rand" (random waves), "kelvin-helmholtz" (two shear layers), "quadrants" (four random states), "blast" (a hot disc).
    """

    name: ClassVar[str] = "euler-2d"
    source: ClassVar[str] = (
        "PDEBench (arXiv:2210.07182); The Well, euler_multi_quadrants (arXiv:2412.00568); Lecoanet et al., MNRAS 455 (2016) 4274"
    )
    channels: ClassVar[tuple[str, ...]] = ("density", "momentum_x", "momentum_y", "energy")
    roles: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "density": ("density",),
        "momentum": ("momentum_x", "momentum_y"),
        "energy": ("energy",),
    }
    dimension: ClassVar[int] = 2
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        **{
            f"pdebench-rand-m{mach}": {"case": "rand", "points": 128, "times": 21, "gamma": (5 / 3,), "mach": mach, "boundary": "periodic"}
            for mach in (0.1, 1.0)
        },
        **{
            f"the-well-{name}": {
                "case": "quadrants", "points": 512, "times": 101, "duration": 1.5, "boundary": boundary,
                "gamma": (1.3, 1.4, 1.13, 1.22, 1.33, 1.76, 1.365, 1.404, 1.453, 1.597),
            }
            for name, boundary in (("open", "outflow"), ("periodic", "periodic"))
        },
    }  # fmt: skip

    points: int = 64
    boundary: str = "periodic"

    @classmethod
    def cases(cls) -> tuple[str, ...]:
        return ("rand", "kelvin-helmholtz", "quadrants", "blast")


def random_waves(problem: Euler, stream: torch.Generator, gamma: float) -> Tensor:
    r"""Waves of random phases over a uniform gas, in half of all samples inside a window only.

    Density, pressure and velocities are $\sum_k |k|^{-1/2}\sin(2\pi k\cdot x/L + \varphi_k)$ over $|k_i| \le 4$, no $k_i$ zero: relative
    perturbations with a mean size of 1 to 20 %, and a mean speed of `mach` times that of sound. So PDEBench's "Rand", but for rare
    perturbations that would leave less than a tenth of the mean: they are damped to that.
    """
    axes, d = problem.solver.grid.axes, problem.dimension
    density, temperature, *size = uniform([stream], problem.density, problem.temperature, (0.01, 0.2), (0.01, 0.2))
    numbers = torch.arange(-4, 5, dtype=torch.float64)
    k = torch.meshgrid(*[numbers] * d, indexing="ij")
    used = torch.stack([component != 0 for component in k]).all(0)
    square = torch.stack([component.square() for component in k]).sum(0)
    amplitude = torch.where(used, torch.where(used, square, 1.0) ** -0.25, 0.0)
    waves = amplitude * torch.exp(2j * math.pi * _unit(stream, 2 + d, *amplitude.shape))
    inside = torch.ones((), dtype=torch.float64)
    windowed, ends = bool(_unit(stream, 1) < 0.5), _unit(stream, d, 2)
    for i, axis in enumerate(axes):
        x = (axis.positions() - problem.lower * problem.length) / problem.length
        waves = torch.tensordot(waves, torch.exp(2j * math.pi * numbers[:, None] * x), dims=([1], [0]))
        low, high = 0.1 + 0.35 * ends[i, 0], 0.55 + 0.35 * ends[i, 1]
        bump = (torch.tanh((x - low) / 0.01) - torch.tanh((x - high) / 0.01)) / 2
        inside = inside[..., None] * (bump if windowed else torch.ones_like(x))
    fields = waves.imag
    speed = problem.mach * (gamma * temperature).sqrt()
    velocity = fields[2:] * speed / fields[2:].square().sum(0).sqrt().mean()
    relative = []
    for wave, mean in zip(fields[:2], size, strict=True):
        wave = wave / wave.abs().mean()
        relative.append(1 + wave * torch.minimum(mean, 0.9 / wave.abs().max()) * inside)
    return torch.cat([(density * relative[0])[None], velocity * inside, (density * temperature * relative[1])[None]])


def kelvin_helmholtz(problem: Euler, stream: torch.Generator, gamma: float) -> Tensor:
    r"""Two layers of shear at 1/4 and 3/4 of the height with a random wave across them.

    With $s = \tanh\frac{y - 1/4}{a} - \tanh\frac{y - 3/4}{a}$, $a = 1/40$: $u = U(s - 1)$, $\rho = \rho_0(1 + (r - 1)s/2)$ with a ratio r
    in [1/2, 2], $v = U/100\,\sin(2\pi kx + \varphi)$ with k = 1, 2 or 3 within $1/10$ of the layers, one pressure: the set-up of Lecoanet
    et al. in a square, with U = `mach` times the speed of sound at the density $\rho_0$. Without viscosity there is no limit of fine grids.
    """
    x, y = (axis.positions() / problem.length for axis in problem.solver.grid.axes)
    density, temperature, ratio, phase = uniform([stream], problem.density, problem.temperature, (0.5, 2.0), (0.0, 2 * math.pi))
    k = int(torch.randint(1, 4, (), generator=stream))
    speed = problem.mach * (gamma * temperature).sqrt()
    s = torch.tanh((y - 0.25) / 0.025) - torch.tanh((y - 0.75) / 0.025)
    near = torch.exp(-(((y - 0.25) / 0.1) ** 2)) + torch.exp(-(((y - 0.75) / 0.1) ** 2))
    wave = 0.01 * speed * torch.sin(2 * math.pi * k * x + phase)
    across = torch.ones_like(x)[:, None]
    return torch.stack(
        [
            across * density * (1 + (ratio - 1) * s / 2),
            across * speed * (s - 1),
            wave[:, None] * near,
            across * (density * temperature).expand_as(y),
        ]
    )


def blast(problem: Euler, stream: torch.Generator, gamma: float) -> Tensor:
    """Gas at rest with 10 to 100 times the pressure in a disc of radius length/10, centred anywhere in the middle third."""
    density, temperature, excess, *centre = uniform(
        [stream], problem.density, problem.temperature, (1.0, 2.0), *[(1 / 3, 2 / 3)] * problem.dimension
    )
    square = torch.zeros((), dtype=torch.float64)
    for axis, middle in zip(problem.solver.grid.axes, centre, strict=True):
        square = square[..., None] + (axis.positions() / problem.length - middle) ** 2
    p = density * temperature * torch.where(square < 0.01, 10**excess, 1.0)
    still = torch.zeros_like(p)
    return torch.stack([density.expand_as(p), *[still] * problem.dimension, p])


SMOOTH: dict[str, Callable[[Euler, torch.Generator, float], Tensor]] = {
    "rand": random_waves,
    "kelvin-helmholtz": kelvin_helmholtz,
    "blast": blast,
}
"""Initial density, velocity and pressure at the cell centres, (C, *N), of the cases that are not patches of constant states."""


def _unit(stream: torch.Generator, *shape: int) -> Tensor:
    return torch.rand(shape, generator=stream, dtype=torch.float64)


def _log_uniform(stream: torch.Generator, count: int, between: tuple[float, float]) -> Tensor:
    low, high = math.log(between[0]), math.log(between[1])
    return torch.exp(low + (high - low) * _unit(stream, count))
