r"""Fisher-KPP reaction and diffusion on a line, with fluxes through its ends or periodic.

$$u_t = \nu u_{xx} + \rho u (1 - u),\qquad x\in[0, 1],$$

in finite volumes: cell means change by the fluxes through their faces, $-\nu u_x$ inside and given ones, $g_L$ and $g_R$, at the ends.
One step of $\tau$ is Strang's splitting $R_{\tau/2}\,D_\tau\,R_{\tau/2}$ of two exact parts,

* reaction of every cell, $R_s(u) = u\,/\,(u + (1 - u)\,e^{-\rho s})$;
* diffusion and the fluxes, a linear equation, by its exponential: diagonal in the Fourier basis, since a line without fluxes is one half
  of a periodic one of twice the length. The mean takes no other part than $\tau\,(g_L - g_R)$.

Second order in $\tau$ and in the cell width, for any $\nu\tau$; no value becomes negative but by round-off. Mass changes by what
reactions produce and what comes in, to round-off. The transforms leave some $10^{-17}$ where nothing lives, and it grows as any small
population does, by $e^{\rho t}$: fronts into empty ground are right up to $\rho t \approx 30$.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from constraints import Axis, Bounds, Budget, Constraint, Grid, InitialCondition, Intersection, positivity
from pde_datasets.problem import Problem, generator, uniform
from pde_datasets.solvers.balance_laws import SteadyBudget
from pde_datasets.steps import expect, took

BOUNDARIES = ("flux", "periodic")


@dataclass(frozen=True)
class ReactionDiffusion(Problem):
    r"""Spreading populations: space-time fields on (time, x), x at the cell centres.

    Initial data are two sine waves out of the longest ones, chosen with repetition (a wave chosen twice counts as one of twice the
    wavenumber, one not chosen as its constant), with amplitudes in [0, 1] and random phases; folded, $u\to|u|$, for one sample in ten; of
    random sign; cut to a window with smooth edges for one in ten; then scaled to [0, 1].

    Departures from the generators of the published sets: the scheme, which is theirs (explicit diffusion) in the limit of small steps;
    fluxes not rounded to three digits; on a periodic line wavelengths that divide the period, not the distance of the outer cells, which
    leaves a kink there. PDEBench stores a file for each of $\nu\in\{0.5, 1, 2, 5\}$, $\rho\in\{1, 2, 5, 10\}$: ask for one by
    `preset("pdebench", diffusivity=(0.5, 0.5), reaction=(1.0, 1.0))`.

    Laws: the initial data, the bounds that reaction and diffusion keep, and the balance of mass. With one step between stored times and
    one rate $\rho$, the balance is closed in the stored fields, $\int R_{-\tau/2}(u_{n+1}) - \int R_{\tau/2}(u_n) = \tau(g_L - g_R)$,
    which is the trapezoidal balance of the literature up to terms of $\tau^2$; else what reactions produced is taken as it was summed up.

    Parameters of the fields: `initial` (N, X); `diffusivity`, `reaction`, and `left`, `right`, the fluxes $g_L$ and $g_R$ in the
    direction of x (N,); `produced` (N, T - 1), the mass that reactions add between stored times.

    Attributes:
        points: cells.
        times: stored times, the initial one included.
        interval: time between stored fields; the last is at (times - 1) * interval.
        steps: time steps between them.
        boundary: "flux", or "periodic", which has no ends and leaves the fluxes aside.
        diffusivity: range of $\nu$, drawn uniformly.
        reaction: range of $\rho$, drawn uniformly.
        left: range of $g_L$, drawn uniformly; in, hence not negative.
        right: range of $g_R$, drawn uniformly; in, hence not positive.
        waves: how many of the longest sine waves there are to choose from.
        initial_seed: 0, and every sample has initial data of its own; else all have those that this seed draws.
    """

    name: ClassVar[str] = "reaction-diffusion"
    equation: ClassVar[str] = "u_t = nu u_xx + rho u (1 - u)"
    source: ClassVar[str] = "settings of PCFM (arXiv:2506.04171) and PDEBench (arXiv:2210.07182)"
    scheme: ClassVar[str] = "finite volumes, Strang splitting of exact reaction and exact diffusion"
    channels: ClassVar[tuple[str, ...]] = ("u",)
    roles: ClassVar[Mapping[str, tuple[str, ...]]] = {"density": ("u",)}
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "pcfm": {},
        "pdebench": {
            "points": 1024,
            "times": 101,
            "steps": 8,
            "boundary": "periodic",
            "diffusivity": (0.5, 5.0),
            "reaction": (1.0, 10.0),
            "waves": 4,
        },
    }

    points: int = 128
    times: int = 100
    interval: float = 0.01
    steps: int = 1
    boundary: str = "flux"
    diffusivity: tuple[float, float] = (0.005, 0.005)
    reaction: tuple[float, float] = (0.01, 0.01)
    left: tuple[float, float] = (0.0, 0.05)
    right: tuple[float, float] = (-0.05, 0.0)
    waves: int = 3
    initial_seed: int = 0

    def __post_init__(self) -> None:
        if self.boundary not in BOUNDARIES:
            raise ValueError(f"ReactionDiffusion expects a boundary among {', '.join(BOUNDARIES)}; got '{self.boundary}'.")
        if min(self.points, self.times) < 2 or min(self.steps, self.waves) < 1 or not self.interval > 0:
            raise ValueError(
                "ReactionDiffusion expects at least two points and times, one step and wave, and a positive interval; got "
                f"points = {self.points}, times = {self.times}, steps = {self.steps}, waves = {self.waves}, interval = {self.interval}."
            )
        for setting in ("diffusivity", "reaction", "left"):
            self.expect_range(setting, 0.0, reached=True)
        self.expect_range("right")
        if self.right[1] > 0:
            raise ValueError(
                "ReactionDiffusion expects fluxes into the domain: a flux at the right that is not positive, so that no value becomes "
                f"negative; got {self.right}."
            )

    @property
    def grid(self) -> Grid:
        periodic, origin = self.boundary == "periodic", 0.5 / self.points
        x = Axis("x", self.points, length=1.0, origin=origin, periodic=periodic, cells=not periodic)
        return Grid(Axis("time", self.times, length=self.interval * (self.times - 1)), x)

    @property
    def laws(self) -> tuple[str, ...]:
        return ("bounds:lower=0,upper=1",) if self.boundary == "periodic" else ("positivity",)

    def simulate(self, streams: Sequence[torch.Generator], device: torch.device) -> tuple[Tensor, dict[str, Tensor]]:
        drawn = {"initial": self.initial(streams)}
        if self.initial_seed:
            drawn["initial"] = self.initial([generator(self.initial_seed, 0)]).expand(len(streams), -1)
        names = ("diffusivity", "reaction", "left", "right")
        drawn |= zip(names, uniform(streams, self.diffusivity, self.reaction, self.left, self.right), strict=True)
        if self.boundary == "periodic":
            drawn["left"] = drawn["right"] = torch.zeros(len(streams), dtype=torch.float64)
        parameters = {name: values.to(device) for name, values in drawn.items()}
        u, produced = self.solve(**parameters)
        return u, {**parameters, "produced": produced}

    def initial(self, streams: Sequence[torch.Generator]) -> Tensor:
        """Random initial data on [0, 1], (N, X)."""
        x, n = self.grid.axes[1].positions(), self.waves
        longest = 1.0 if self.boundary == "periodic" else 1.0 - 1.0 / self.points
        chosen = torch.stack(uniform(streams, (0, n), (0, n)), 1).long()
        wavenumber = 2 * math.pi / longest * torch.arange(1, n + 1, dtype=torch.float64) * torch.nn.functional.one_hot(chosen, n).sum(1)
        amplitude = torch.stack(uniform(streams, *[(0.0, 1.0)] * n), 1)
        phase = torch.stack(uniform(streams, *[(0.0, 2 * math.pi)] * n), 1)
        u = (amplitude[..., None] * torch.sin(wavenumber[..., None] * x + phase[..., None])).sum(1)

        fold, flip, cut, start, end = (v[:, None] for v in uniform(streams, (0, 1), (0, 1), (0, 1), (0.1, 0.45), (0.55, 0.9)))
        window = (torch.tanh((x - start) / 0.01) - torch.tanh((x - end) / 0.01)) / 2
        u = torch.where(fold < 0.1, u.abs(), u) * torch.where(flip < 0.5, -1.0, 1.0) * torch.where(cut < 0.1, window, 1.0)
        low, high = u.amin(1, keepdim=True), u.amax(1, keepdim=True)
        return (u - low) / (high - low)

    def solve(self, initial: Tensor, diffusivity: Tensor, reaction: Tensor, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        """Fields (N, 1, T, X) from initial data (N, X) with coefficients and fluxes (N,), and the mass produced in between, (N, T - 1)."""
        tau = self.interval / self.steps
        half = reaction[:, None] * tau / 2
        diffusion = Diffusion(self.points, diffusivity, left, right, tau, periodic=self.boundary == "periodic")
        u, states, produced = initial, [initial], []
        expect((self.times - 1) * self.steps)
        for _ in range(self.times - 1):
            added = torch.zeros_like(u)
            for _ in range(self.steps):
                before = logistic(u, half)
                behind = diffusion.step(before)
                added = added + (before - u)
                u = logistic(behind, half)
                added = added + (u - behind)
                took()
            states.append(u)
            produced.append(added.mean(1))
        return torch.stack(states, dim=1)[:, None], torch.stack(produced, dim=1)

    def constraint(self, parameters: Mapping[str, Tensor]) -> Constraint:
        grid = self.grid
        bounds = Bounds(0.0, 1.0) if self.boundary == "periodic" else positivity()
        return Intersection(InitialCondition(grid, parameters["initial"][:, None]), bounds, self.balance(parameters))

    def balance(self, parameters: Mapping[str, Tensor]) -> Budget:
        r"""The balance of mass: closed in the fields if it can be, else with what was produced.

        With $m = \frac12(R_{\tau/2} + R_{-\tau/2})$ and $q = (R_{\tau/2} - R_{-\tau/2})/\tau$ the trapezoidal budget of $\int m$ and
        $\int q$ is the splitting's own balance, and $m = u$, $q = \rho u(1 - u)$ up to terms of $\tau^2$.
        """
        received = self.interval * (parameters["left"] - parameters["right"])[:, None]
        if not self.closed:
            return Budget(self.grid, received=received + parameters["produced"], name="mass balance")
        rate, density = self.splitting()
        return Budget(self.grid, rate, density=density, received=received, name="mass balance")

    def steady_balance(self) -> SteadyBudget:
        """The balance of mass where the fluxes are not known, only that they do not change.

        Raises:
            ValueError: it is not closed in the stored fields.
        """
        if not self.closed:
            raise ValueError("the balance of mass is closed in the stored fields with one step between them and one rate of reaction only.")
        rate, density = self.splitting()
        return SteadyBudget(self.grid, rate, density=density, name="mass balance, steady fluxes")

    @property
    def closed(self) -> bool:
        """Whether the stored fields tell what reactions produced."""
        return self.steps == 1 and self.reaction[0] == self.reaction[1]

    def splitting(self) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
        """The rate q, integrated, (B, T), and the density m, (B, T, X), of the splitting's own balance."""
        half = torch.tensor(self.reaction[0] * self.interval / 2, dtype=torch.float64)

        def density(u: Tensor) -> Tensor:
            return (logistic(u[:, 0], half.to(u)) + logistic(u[:, 0], -half.to(u))) / 2

        def rate(u: Tensor) -> Tensor:
            return (logistic(u[:, 0], half.to(u)) - logistic(u[:, 0], -half.to(u))).mean(-1) / self.interval

        return rate, density


def logistic(u: Tensor, growth: Tensor) -> Tensor:
    r"""The solution of $\dot u = \rho u (1 - u)$ after a time s, for $\rho s$ = `growth`; backwards if that is negative.

    Example:
        >>> round(logistic(torch.tensor(0.5), torch.tensor(3.0).log()).item(), 6)
        0.75
    """
    return u / (u + (1 - u) * torch.exp(-growth))


class Diffusion:
    r"""Diffusion of cell means on [0, 1] over a time $\tau$, exactly: $\dot u_i = -n\,(F_{i+1/2} - F_{i-1/2})$ with $F = -\nu n\,\delta u$.

    At the ends F is given. The means and their mirror image make a periodic line of $2n$ cells without ends, on which mode k decays at
    the rate $4\nu n^2\sin^2(\pi k/2n)$; the fluxes are a source in the first and the last cell.

    Arguments:
        points: n.
        diffusivity: $\nu$ of each sample, (N,).
        left: flux through the left end in the direction of x, (N,).
        right: through the right end, (N,).
        time: $\tau$.
        periodic: the ends are one; the fluxes are not used.
    """

    def __init__(self, points: int, diffusivity: Tensor, left: Tensor, right: Tensor, time: float, *, periodic: bool = False) -> None:
        self.points, self.periodic = points, periodic
        modes = points if periodic else 2 * points
        angle = math.pi / modes * torch.arange(modes // 2 + 1, dtype=torch.float64, device=diffusivity.device)
        z = -time * 4 * diffusivity[:, None] * points**2 * torch.sin(angle).square()
        self.decay = torch.exp(z)
        self.gain = torch.zeros_like(z)
        if not periodic:
            source = diffusivity.new_zeros(len(diffusivity), points)
            source[:, 0] += left * points
            source[:, -1] -= right * points
            averaged = torch.where(z < 0, torch.expm1(z) / torch.where(z < 0, z, 1.0), 1.0)  # (e^z - 1) / z
            self.gain = time * averaged * self._transform(source)

    def step(self, u: Tensor) -> Tensor:
        """The means (N, n) a time later."""
        modes = self.decay * self._transform(u) + self.gain
        return torch.fft.irfft(modes, n=self.points if self.periodic else 2 * self.points)[:, : self.points]

    def _transform(self, u: Tensor) -> Tensor:
        return torch.fft.rfft(u if self.periodic else torch.cat([u, u.flip(-1)], dim=-1))
