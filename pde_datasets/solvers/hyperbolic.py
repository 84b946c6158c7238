r"""Hyperbolic systems for finite volumes: an ideal gas and shallow water.

A system knows its conserved variables $U$ and primitive ones $W$, its signal speeds and the numerical flux between two primitive states.
Channels are density (depth), one momentum (velocity) an axis, then the rest.

Ideal gas, $E = p/(\gamma-1) + \frac12\rho|\mathbf u|^2$:

$$\partial_t\rho + \nabla\cdot(\rho\mathbf u) = 0,\quad \partial_t(\rho\mathbf u) + \nabla\cdot(\rho\mathbf u\mathbf u) + \nabla p = 0,\quad
\partial_t E + \nabla\cdot((E + p)\mathbf u) = 0.$$

Shallow water over a bottom $b$:

$$\partial_t h + \nabla\cdot(h\mathbf u) = 0,\qquad
\partial_t(h\mathbf u) + \nabla\cdot(h\mathbf u\mathbf u) + \tfrac g2\nabla h^2 = -gh\nabla b.$$
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from pde_datasets.solvers.riemann import contact, hll

FLUXES = ("hllc", "hll")
"""Names of the numerical fluxes."""

SHARE = 0.25
r"""$\alpha$, the share of a cell's average that each of its two face values has in the proof of positivity."""


class System(ABC):
    """A hyperbolic system; state (B, C, *N), the velocity of axis i in channel 1 + i.

    Arguments:
        flux: "hllc", which keeps contacts and shear sharp, or "hll", which smears them and shows no carbuncle.

    Raises:
        ValueError: another flux.
    """

    def __init__(self, flux: str) -> None:
        if flux not in FLUXES:
            raise ValueError(f"flux expects one of {', '.join(FLUXES)}; got '{flux}'.")
        self.resolves_contact = flux == "hllc"

    @abstractmethod
    def take(self, index: Tensor) -> System:
        """The system of some samples of the batch."""

    @abstractmethod
    def primitive(self, u: Tensor) -> Tensor:
        """Primitive variables, (B, P, *N)."""

    @abstractmethod
    def sound(self, w: Tensor) -> Tensor:
        """Speed of sound, or of long waves, relative to the flow, (B, *N)."""

    @abstractmethod
    def admissible(self, u: Tensor) -> Tensor:
        """(B,), whether all states of a sample are physical; NaN is not."""

    @abstractmethod
    def faces(self, before: Tensor, behind: Tensor, axis: int) -> tuple[Tensor, Tensor]:
        """Flux out of the cell before each face and into the one behind it: the same tensor where nothing acts at faces."""

    def source(self, lower: Tensor, upper: Tensor, axis: int) -> Tensor | None:
        """What acts within cells along an axis, times the width, from primitive values at the cell's two faces; None for nothing."""
        return None

    def limit(self, w: Tensor, slope: Tensor) -> Tensor:
        """Slopes with which the face values of a cell are positive and leave a positive rest of its average."""
        return slope


class IdealGas(System):
    r"""The Euler equations; primitive variables are density, velocity, pressure.

    Arguments:
        gamma: ratio of specific heats, above 1: a number, or (B,).
        axes: number of space axes.
        flux: numerical flux.
    """

    def __init__(self, gamma: float | Tensor, axes: int, flux: str = "hllc") -> None:
        super().__init__(flux)
        self.axes, self.flux = axes, flux
        self.gamma = gamma.reshape(-1, *(1,) * axes) if isinstance(gamma, Tensor) else gamma
        # The same to stand beside channels.
        self.wide = self.gamma[:, None] if isinstance(self.gamma, Tensor) else self.gamma

    def take(self, index: Tensor) -> IdealGas:
        if not isinstance(self.gamma, Tensor) or len(self.gamma) == 1:
            return self
        return IdealGas(self.gamma[index], self.axes, self.flux)

    def primitive(self, u: Tensor) -> Tensor:
        rho, momentum, energy = u[:, :1], u[:, 1:-1], u[:, -1:]
        velocity = momentum / rho
        kinetic = (momentum * velocity).sum(1, keepdim=True) / 2
        return torch.cat([rho, velocity, (self.wide - 1) * (energy - kinetic)], dim=1)

    def conserved(self, w: Tensor) -> Tensor:
        """Density, momentum and energy from density, velocity and pressure."""
        rho, velocity, p = w[:, :1], w[:, 1:-1], w[:, -1:]
        momentum = rho * velocity
        energy = p / (self.wide - 1) + (momentum * velocity).sum(1, keepdim=True) / 2
        return torch.cat([rho, momentum, energy], dim=1)

    def sound(self, w: Tensor) -> Tensor:
        return (self.gamma * w[:, -1] / w[:, 0]).sqrt()

    def admissible(self, u: Tensor) -> Tensor:
        w = self.primitive(u)
        return ((w[:, 0] > 0) & (w[:, -1] > 0)).flatten(1).all(1)

    def limit(self, w: Tensor, slope: Tensor) -> Tensor:
        r"""Velocity slopes scaled so that the average without its faces' shares has positive pressure.

        Limited face values $W\pm\delta$ are positive. Their conserved variables do not average to $U$: with $\beta = 2\alpha/(1-2\alpha)$
        the rest $(U - \alpha(U_- + U_+))/(1-2\alpha)$ has density $\rho$ and an internal energy less by

        $$D = \tfrac12\rho|\delta_u|^2\big(\beta + \beta^2(\delta_\rho/\rho)^2\big),$$

        quadratic in the velocity slopes, which are scaled by $\sqrt{e/D}$ where D exceeds $e = p/(\gamma-1)$. In smooth flow D is of second
        order, and nothing is scaled. Then, for steps with $\Delta t\sum_i(|u_i| + c)/\Delta x_i \le \alpha/2$ at all face values, averages
        stay positive (Zhang & Shu's decomposition with the scaling in primitive variables of Waagan); longer steps are tried first.

        Source:
            Zhang & Shu, J. Comput. Phys. 229 (2010) 8918; Waagan, J. Comput. Phys. 228 (2009) 8609.
        """
        rho, energy = w[:, 0], w[:, -1] / (self.gamma - 1)
        share = 2 * SHARE / (1 - 2 * SHARE)
        steep = (slope[:, 0] / (2 * rho)).square()
        deficit = rho * slope[:, 1:-1].square().sum(1) / 8 * (share + share**2 * steep)
        # A fraction below one, since the rest must be positive, not zero.
        scale = torch.where(deficit > 0.99 * energy, (0.99 * energy / deficit).sqrt(), 1.0)
        return torch.cat([slope[:, :1], slope[:, 1:-1] * scale[:, None], slope[:, -1:]], dim=1)

    def signals(self, before: Tensor, behind: Tensor, axis: int) -> tuple[Tensor, Tensor]:
        """Bounds of the slowest and the fastest signal: those of the states and of Einfeldt's average."""
        u_l, u_r, c_l, c_r = before[:, 1 + axis], behind[:, 1 + axis], self.sound(before), self.sound(behind)
        root_l, root_r = before[:, 0].sqrt(), behind[:, 0].sqrt()
        total = root_l + root_r
        u = (root_l * u_l + root_r * u_r) / total
        c = ((root_l * c_l.square() + root_r * c_r.square()) / total + root_l * root_r / 2 * ((u_r - u_l) / total).square()).sqrt()
        return torch.minimum(u_l - c_l, u - c), torch.maximum(u_r + c_r, u + c)

    def flux_of(self, w: Tensor, u: Tensor, axis: int) -> Tensor:
        """The physical flux along an axis."""
        normal, p = w[:, 1 + axis], w[:, -1]
        flux = u * normal[:, None]
        flux[:, 1 + axis] += p
        flux[:, -1] += p * normal
        return flux

    def faces(self, before: Tensor, behind: Tensor, axis: int) -> tuple[Tensor, Tensor]:
        signals = self.signals(before, behind, axis)
        flux = self._hllc(before, behind, signals, axis) if self.resolves_contact else self._hll(before, behind, signals, axis)
        return flux, flux

    def _hll(self, before: Tensor, behind: Tensor, signals: tuple[Tensor, Tensor], axis: int) -> Tensor:
        u_l, u_r = self.conserved(before), self.conserved(behind)
        return hll((u_l, u_r), (self.flux_of(before, u_l, axis), self.flux_of(behind, u_r, axis)), signals)

    def _hllc(self, before: Tensor, behind: Tensor, signals: tuple[Tensor, Tensor], axis: int) -> Tensor:
        """$F = (s(s_K U_K - F_K) + s_K p\\,D)/(s_K - s)$ on the side K that the contact moves away from: a wall's lets nothing through."""
        normal = (before[:, 1 + axis], behind[:, 1 + axis])
        speed, pressure = contact(normal, (before[:, 0], behind[:, 0]), (before[:, -1], behind[:, -1]), signals)
        forward = speed >= 0
        w = torch.where(forward[:, None], before, behind)
        u = self.conserved(w)
        outer = torch.where(forward, signals[0].clamp_max(0), signals[1].clamp_min(0))
        flux = speed[:, None] * (outer[:, None] * u - self.flux_of(w, u, axis))
        push = outer * pressure
        flux[:, 1 + axis] += push
        flux[:, -1] += push * speed
        return flux / (outer - speed)[:, None]


class ShallowWater(System):
    r"""The shallow-water equations over a bottom; primitive variables are depth, velocity and surface level $h + b$.

    The hydrostatic reconstruction: at each face the bottom is the higher of both sides', the water above it is what the flux sees, and the
    difference of pressures is put back on each side. A lake at rest stays so to round-off, shores included, and depths stay positive.

    Arguments:
        gravity: acceleration of gravity.
        bottom: $b$, (1 or B, *N).
        flux: numerical flux.
        dry: depth below which water does not move; far below all depths of interest.

    Source:
        Audusse et al., SIAM J. Sci. Comput. 25 (2004) 2050.
    """

    def __init__(self, gravity: float, bottom: Tensor, flux: str = "hllc", dry: float = 1e-10) -> None:
        super().__init__(flux)
        self.gravity, self.bottom, self.flux, self.dry = gravity, bottom, flux, dry

    def take(self, index: Tensor) -> ShallowWater:
        return self if len(self.bottom) == 1 else ShallowWater(self.gravity, self.bottom[index], self.flux, self.dry)

    def primitive(self, u: Tensor) -> Tensor:
        h = u[:, :1]
        wet = h > self.dry
        velocity = torch.where(wet, u[:, 1:] / torch.where(wet, h, 1.0), 0.0)
        return torch.cat([h, velocity, h + self.bottom[:, None]], dim=1)

    def sound(self, w: Tensor) -> Tensor:
        return (self.gravity * w[:, 0]).sqrt()

    def admissible(self, u: Tensor) -> Tensor:
        return ((u[:, 0] >= 0) & torch.isfinite(u).all(1)).flatten(1).all(1)

    def faces(self, before: Tensor, behind: Tensor, axis: int) -> tuple[Tensor, Tensor]:
        h_l, h_r = before[:, 0], behind[:, 0]
        bottom_l, bottom_r = before[:, -1] - h_l, behind[:, -1] - h_r
        bottom = torch.maximum(bottom_l, bottom_r)
        # A flat bottom leaves the depths alone to the last bit.
        seen_l = torch.where(bottom_l < bottom, before[:, -1] - bottom, h_l).clamp_min(0)
        seen_r = torch.where(bottom_r < bottom, behind[:, -1] - bottom, h_r).clamp_min(0)
        flux = self._flux(seen_l, seen_r, before[:, 1:-1], behind[:, 1:-1], axis)
        out, into = flux, flux.clone()
        out[:, 1 + axis] += self.gravity / 2 * (h_l.square() - seen_l.square())
        into[:, 1 + axis] += self.gravity / 2 * (h_r.square() - seen_r.square())
        return out, into

    def source(self, lower: Tensor, upper: Tensor, axis: int) -> Tensor:
        r"""$-g\frac{h_- + h_+}2(b_+ - b_-)$ on the momentum along the axis."""
        rise = (upper[:, -1] - upper[:, 0]) - (lower[:, -1] - lower[:, 0])
        push = torch.zeros_like(lower[:, :-1])
        push[:, 1 + axis] = -self.gravity / 2 * (lower[:, 0] + upper[:, 0]) * rise
        return push

    def _flux(self, h_l: Tensor, h_r: Tensor, v_l: Tensor, v_r: Tensor, axis: int) -> Tensor:
        """HLL for depth and normal momentum; for HLLC the flow carries the velocity along the face from where it comes."""
        u_l, u_r = v_l[:, axis], v_r[:, axis]
        conserved, fluxes = [], []
        for h, v in ((h_l, v_l), (h_r, v_r)):
            u = torch.cat([h[:, None], h[:, None] * v], dim=1)
            f = u * v[:, axis : axis + 1]
            f[:, 1 + axis] += self.gravity / 2 * h.square()
            conserved.append(u)
            fluxes.append(f)
        flux = hll((conserved[0], conserved[1]), (fluxes[0], fluxes[1]), self._signals(h_l, h_r, u_l, u_r))
        if self.resolves_contact:
            for along in range(v_l.shape[1]):
                if along != axis:
                    flux[:, 1 + along] = flux[:, 0] * torch.where(flux[:, 0] >= 0, v_l[:, along], v_r[:, along])
        return flux

    def _signals(self, h_l: Tensor, h_r: Tensor, u_l: Tensor, u_r: Tensor) -> tuple[Tensor, Tensor]:
        """Bounds of the slowest and the fastest signal: those of the states and of Roe's average, and the fronts on a dry bed."""
        c_l, c_r = (self.gravity * h_l).sqrt(), (self.gravity * h_r).sqrt()
        root_l, root_r = h_l.sqrt(), h_r.sqrt()
        u = (root_l * u_l + root_r * u_r) / (root_l + root_r).clamp_min(torch.finfo(h_l.dtype).tiny)
        c = (self.gravity / 2 * (h_l + h_r)).sqrt()
        slow, fast = torch.minimum(u_l - c_l, u - c), torch.maximum(u_r + c_r, u + c)
        return torch.where(h_l > self.dry, slow, u_r - 2 * c_r), torch.where(h_r > self.dry, fast, u_l + 2 * c_l)
