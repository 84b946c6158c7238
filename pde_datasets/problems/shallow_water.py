r"""Shallow water after the break of a dam, by well-balanced finite volumes.

$$\partial_t h + \nabla\cdot(h\mathbf u) = 0,\qquad
\partial_t(h\mathbf u) + \nabla\cdot(h\mathbf u\mathbf u) + \tfrac g2\nabla h^2 = -gh\nabla b.$$

The bottom is flat or has one hill, $b = b_0\exp(-|\mathbf x - \mathbf x_0|^2/(L/10)^2)$ with $\mathbf x_0$ at a quarter of the length from
the centre along x. Where it stands above the water the bed is dry.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from pde_datasets.problem import uniform
from pde_datasets.problems.hyperbolic import Hyperbolic, below
from pde_datasets.solvers.hyperbolic import FLUXES, ShallowWater
from pde_datasets.solvers.riemann import water_riemann


@dataclass(frozen=True)
class DamBreak(Hyperbolic):
    """Water of two levels at rest; use `ShallowWater1D` or `ShallowWater2D`.

    Attributes:
        gravity: acceleration of gravity.
        inner: range of the level behind the dam.
        outer: range of the level before it; 0 for a dry bed.
        hill: height of the hill, 0 for a flat bottom.
    """

    equation: ClassVar[str] = "h_t + div(h u) = 0, (h u)_t + div(h u u) + g/2 grad h^2 = -g h grad b"
    scheme: ClassVar[str] = "finite volumes: MUSCL, hydrostatic reconstruction, HLLC or HLL, SSP Runge-Kutta, positivity preserving"
    lower: ClassVar[float] = -0.5
    place: ClassVar[str]
    """The setting that says where the dam is."""

    gravity: float = 1.0
    inner: tuple[float, float] = (1.5, 2.5)
    outer: tuple[float, float] = (0.5, 1.0)
    hill: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.gravity > 0 and self.hill >= 0):
            raise ValueError(
                f"{self.name} expects gravity above 0 and a hill that is not negative; got gravity = {self.gravity}, hill = {self.hill}."
            )
        self.expect_range("inner", 0.0)
        self.expect_range("outer", 0.0, reached=True)

    @property
    def conserved(self) -> tuple[str, ...]:
        kept = self.channels if self.hill == 0 else ("height",)
        return {"periodic": kept, "walls": ("height",), "outflow": ()}[self.boundary]

    @property
    def bottom(self) -> Tensor:
        """The bottom, (1, *N)."""
        distance = torch.zeros((), dtype=torch.float64)
        for i, axis in enumerate(self.solver.grid.axes):
            centre = self.length / 4 if i == 0 else 0.0
            distance = distance[..., None] + ((axis.positions() - centre) / (self.length / 10)) ** 2
        return self.hill * torch.exp(-distance)[None]

    def start(self, parameters: Mapping[str, Tensor]) -> Tensor:
        level = self.level(parameters)
        height = (level - self.bottom.to(level)).clamp_min(0)
        return torch.stack([height, *[torch.zeros_like(height)] * self.dimension], dim=1)

    def level(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """The initial level, (N, *N)."""
        part = self.behind(parameters)
        inner, outer = (parameters[name].reshape(-1, *(1,) * self.dimension) for name in ("inner", "outer"))
        return torch.where(part == 1, inner, outer + part * (inner - outer))

    @abstractmethod
    def behind(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """The part of each cell that lies behind the dam, (N, *N)."""

    def initial(self, stream: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        names = ("inner", "outer", self.place)
        drawn = uniform([stream], *(getattr(self, name) for name in names))
        parameters = dict(zip(names, drawn, strict=True))
        return self.start(parameters)[0], {name: value[0] for name, value in parameters.items()}


@dataclass(frozen=True)
class ShallowWater1D(DamBreak):
    """A dam across a channel: depth and momentum on (time, x), x from -length/2 to length/2; the water behind it is at lower x.

    Attributes:
        dam: range of the place of the dam.
    """

    name: ClassVar[str] = "shallow-water-1d"
    source: ClassVar[str] = "Stoker, Water Waves (1957); Audusse et al., SIAM J. Sci. Comput. 25 (2004) 2050"
    channels: ClassVar[tuple[str, ...]] = ("height", "momentum_x")
    roles: ClassVar[Mapping[str, tuple[str, ...]]] = {"density": ("height",), "momentum": ("momentum_x",)}
    dimension: ClassVar[int] = 1
    place: ClassVar[str] = "dam"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "pyro2": {"duration": 0.3, "inner": (1.0, 1.0), "outer": (0.125, 0.125), "dam": (0.0, 0.0)}
    }

    duration: float = 0.2
    dam: tuple[float, float] = (-0.1, 0.1)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.expect_range("dam", -self.length / 2, self.length / 2)

    def system(self, parameters: Mapping[str, Tensor]) -> ShallowWater:
        return ShallowWater(self.gravity, self.bottom.to(parameters["inner"]), "hll")

    def behind(self, parameters: Mapping[str, Tensor]) -> Tensor:
        return below(self.solver.grid.axes[0], parameters["dam"])

    def exact(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """The exact solution over a flat bottom at the cell centres, (N, 2, T, X): until its waves meet the ends.

        Raises:
            ValueError: there is a hill.
        """
        if self.hill != 0:
            raise ValueError(f"{self.name} expects a flat bottom for an exact solution; got hill = {self.hill}.")
        inner, outer, dam = (parameters[name] for name in ("inner", "outer", "dam"))
        time, x = (values.flatten() for values in self.grid.mesh(inner))
        left, right = (torch.stack([level, torch.zeros_like(level)], dim=1) for level in (inner, outer))
        w = water_riemann(left, right, self.gravity).at((x - dam[:, None]) / time.clamp_min(torch.finfo(x.dtype).tiny))
        return torch.stack([w[:, 0], w[:, 0] * w[:, 1]], dim=1).reshape(len(inner), 2, *self.grid.shape)


@dataclass(frozen=True)
class ShallowWater2D(DamBreak):
    """A round dam: depth and momentum on (time, x, y), both from -length/2 to length/2.

    Attributes:
        radius: range of the radius of the dam; cells whose centre lies within hold the inner level.
        flux: "hllc", which carries the velocity along a face with the flow, or "hll".
    """

    name: ClassVar[str] = "shallow-water-2d"
    source: ClassVar[str] = "radial dam break of PDEBench (arXiv:2210.07182); Audusse et al., SIAM J. Sci. Comput. 25 (2004) 2050"
    channels: ClassVar[tuple[str, ...]] = ("height", "momentum_x", "momentum_y")
    roles: ClassVar[Mapping[str, tuple[str, ...]]] = {"density": ("height",), "momentum": ("momentum_x", "momentum_y")}
    dimension: ClassVar[int] = 2
    place: ClassVar[str] = "radius"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "pdebench": {"points": 128, "times": 101, "inner": (2.0, 2.0), "outer": (1.0, 1.0), "radius": (0.3, 0.7)}
    }

    points: int = 64
    length: float = 5.0
    radius: tuple[float, float] = (0.3, 0.7)
    flux: str = "hllc"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.expect_range("radius", 0.0)
        self.expect_name("flux", FLUXES)

    def system(self, parameters: Mapping[str, Tensor]) -> ShallowWater:
        return ShallowWater(self.gravity, self.bottom.to(parameters["inner"]), self.flux)

    def behind(self, parameters: Mapping[str, Tensor]) -> Tensor:
        x, y = self.solver.grid.mesh(parameters["radius"])
        return ((x.square() + y.square()).sqrt() <= parameters["radius"][:, None, None]).to(x)
