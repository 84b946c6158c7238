r"""Riemann problems: two constant states side by side, solved exactly and approximately.

The solution of an ideal gas, or of shallow water, depends on $\xi = x/t$ alone: two nonlinear waves, each a shock or a rarefaction, around
a middle region of one velocity. Let s be the strength of what stands there, $\sqrt p$ of a gas and h of water. The velocity falls by
$f_K(s)$ across the wave beside state K, so that

$$f_L(s) + f_R(s) + u_R - u_L = 0.$$

A rarefaction ($s \le s_K$) has $f_K = r_K((s/s_K)^e - 1)$ with $e = (\gamma-1)/\gamma$ or $\frac12$: for two of them the root is closed. If
it is negative, the states draw apart so fast that a vacuum (a dry bed) opens between them. If it is above the smaller $s_K$, there is a
shock: all $f_K$ increase and are concave in s, shocks almost linear, and Newton's method from the smaller $s_K$ rises monotonically to
the root.

Approximate solvers replace the fan by two or three jumps: HLL keeps the fastest waves, HLLC the contact as well. With Einfeldt's bounds
of the fastest signals both keep densities and pressures positive.

Source:
    Toro, Riemann Solvers and Numerical Methods for Fluid Dynamics (2009), chapters 4 and 10; Toro, Shock-Capturing Methods for
    Free-Surface Shallow Flows (2001), chapter 5; Einfeldt, SIAM J. Numer. Anal. 25 (1988) 294.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

_NEWTON = 30
"""Newton steps: always as many, so that a solution does not depend on its company; half of them do for pressures twelve decades apart."""


class Side(ABC):
    """The state left of a Riemann problem and the wave beside it; the right one is a left one seen in a mirror.

    All quantities are (B, 1), to stand beside points (B, n).

    Attributes:
        u: velocity, positive towards the other side.
        c: speed of sound, or of long waves; 0 marks vacuum.
        rest: what `middle` returns, of the state itself; zero for vacuum.
        s: strength; 1 for vacuum, which has none.
        exponent: $e$, by which the speed of sound follows the strength in a rarefaction, $c \\propto s^e$.
        reach: $r$, velocity gained by expansion into vacuum.
    """

    u: Tensor
    c: Tensor
    rest: tuple[Tensor, ...]
    s: Tensor
    exponent: Tensor
    reach: Tensor

    @abstractmethod
    def compression(self, s: Tensor) -> tuple[Tensor, Tensor]:
        """$f(s)$ and $f'(s)$ of a shock."""

    @abstractmethod
    def middle(self, s: Tensor) -> tuple[Tensor, ...]:
        """What stands behind the wave, without the velocity: density and pressure, or depth."""

    @abstractmethod
    def fan(self, xi: Tensor) -> tuple[Tensor, ...]:
        """The rarefaction at $\\xi$: the velocity, then what `middle` returns."""

    @abstractmethod
    def shock(self, s: Tensor) -> Tensor:
        """Speed of the shock."""

    def jump(self, s: Tensor) -> tuple[Tensor, Tensor]:
        """$f(s)$, by which the velocity falls across the wave, and $f'(s)$."""
        ratio = (s / self.s) ** self.exponent
        f, slope = self.compression(s)
        rarefied = s <= self.s
        return torch.where(rarefied, self.reach * (ratio - 1), f), torch.where(rarefied, self.reach * self.exponent * ratio / s, slope)

    def edges(self, s: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """Speeds of the head and the tail of the wave with velocity u behind it: equal for a shock, $-\\infty$ beside vacuum."""
        shock = self.shock(s)
        rarefied = s <= self.s
        head = torch.where(rarefied, self.u - self.c, shock)
        tail = torch.where(rarefied, u - self.c * (s / self.s) ** self.exponent, shock)
        return torch.where(self.c == 0, -torch.inf, head), tail

    def at(self, xi: Tensor, s: Tensor, u: Tensor) -> tuple[Tensor, ...]:
        """Velocity and the rest at $\\xi$, up to the middle region and it."""
        head, tail = self.edges(s, u)
        outside = (self.u, *self.rest)
        return tuple(
            torch.where(xi < head, before, torch.where(xi < tail, within, behind))
            for before, within, behind in zip(outside, self.fan(xi), (u, *self.middle(s)), strict=True)
        )


class GasSide(Side):
    """A state of an ideal gas: density, velocity, pressure."""

    def __init__(self, rho: Tensor, u: Tensor, p: Tensor, gamma: Tensor) -> None:
        empty = (rho <= 0) | (p <= 0)
        self.empty, self.rest = empty, (torch.where(empty, 0.0, rho), torch.where(empty, 0.0, p))
        self.rho, self.p, self.gamma = torch.where(empty, 1.0, rho), torch.where(empty, 1.0, p), gamma
        self.u, self.c = u, torch.where(empty, 0.0, (gamma * self.p / self.rho).sqrt())
        self.s, self.exponent = self.p.sqrt(), (gamma - 1) / gamma
        self.reach = 2 * self.c / (gamma - 1)

    def compression(self, s: Tensor) -> tuple[Tensor, Tensor]:
        gamma, p = self.gamma, s.square()
        held = p + (gamma - 1) / (gamma + 1) * self.p
        root = (2 / ((gamma + 1) * self.rho) / held).sqrt()
        above = p - self.p
        return above * root, root * (1 - above / (2 * held)) * 2 * s

    def middle(self, s: Tensor) -> tuple[Tensor, ...]:
        gamma, p = self.gamma, s.square()
        ratio, mu = p / self.p, (gamma - 1) / (gamma + 1)
        shocked = (ratio + mu) / (mu * ratio + 1)
        rho = self.rho * torch.where(s <= self.s, ratio ** (1 / gamma), shocked)
        return torch.where(self.empty, 0.0, rho), torch.where(self.empty, 0.0, p)

    def fan(self, xi: Tensor) -> tuple[Tensor, ...]:
        gamma = self.gamma
        c = 2 / (gamma + 1) * (self.c + (gamma - 1) / 2 * (self.u - xi))
        ratio = (c / self.c).clamp_min(0)
        u = 2 / (gamma + 1) * (self.c + (gamma - 1) / 2 * self.u + xi)
        return u, self.rho * ratio ** (2 / (gamma - 1)), self.p * ratio ** (2 * gamma / (gamma - 1))

    def shock(self, s: Tensor) -> Tensor:
        gamma, ratio = self.gamma, s.square() / self.p
        return self.u - self.c * (((gamma + 1) * ratio + gamma - 1) / (2 * gamma)).sqrt()


class WaterSide(Side):
    """A state of shallow water: depth, velocity."""

    def __init__(self, h: Tensor, u: Tensor, gravity: float) -> None:
        empty = h <= 0
        self.empty, self.rest, self.gravity = empty, (torch.where(empty, 0.0, h),), gravity
        self.s = torch.where(empty, 1.0, h)
        self.u, self.c = u, torch.where(empty, 0.0, (gravity * self.s).sqrt())
        self.exponent, self.reach = torch.full_like(h, 0.5), 2 * self.c

    def compression(self, s: Tensor) -> tuple[Tensor, Tensor]:
        above = s - self.s
        root = (self.gravity / 2 * (1 / s + 1 / self.s)).sqrt()
        return above * root, root - above * self.gravity / (4 * s.square() * root)

    def middle(self, s: Tensor) -> tuple[Tensor, ...]:
        return (torch.where(self.empty, 0.0, s),)

    def fan(self, xi: Tensor) -> tuple[Tensor, ...]:
        return 2 / 3 * (self.c + self.u / 2 + xi), ((2 * self.c + self.u - xi) / 3).square() / self.gravity

    def shock(self, s: Tensor) -> Tensor:
        return self.u - self.c * (s * (s + self.s) / 2).sqrt() / self.s


class RiemannSolution:
    """The exact solution of Riemann problems, one for each of B pairs of states.

    Arguments:
        left: the left states.
        right: the right states in the mirror, with negative velocity.

    Attributes:
        vacuum: (B,), whether vacuum lies between the waves, or beside one of them from the start.
        star_left: primitive variables between the left wave and the contact, (B, m); zero density in a vacuum.
        star_right: the same right of the contact.
        speeds: (B, 4), head and tail of the left wave, tail and head of the right one; a shock has one speed twice, and vacuum no wave,
            with infinite speeds.
    """

    def __init__(self, left: Side, right: Side) -> None:
        self.left, self.right = left, right
        empty_left, empty_right = left.c == 0, right.c == 0
        apart = -(left.u + right.u)
        slopes = left.reach / left.s**left.exponent + right.reach / right.s**right.exponent
        rarefied = (left.reach + right.reach - apart) / torch.where(slopes > 0, slopes, 1.0)
        vacuum = (rarefied <= 0) | empty_left | empty_right
        rarefied = torch.where(vacuum, 0.0, rarefied) ** (1 / left.exponent)
        lowest = torch.minimum(left.s, right.s)
        s = lowest
        for _ in range(_NEWTON):
            (f_left, slope_left), (f_right, slope_right) = left.jump(s), right.jump(s)
            s = s - (f_left + f_right + apart) / (slope_left + slope_right).clamp_min(torch.finfo(s.dtype).tiny)
        s = torch.where(vacuum | (rarefied <= lowest), rarefied, s)
        u_left, u_right = left.u - left.jump(s)[0], right.u - right.jump(s)[0]
        # One velocity between the waves, but for a vacuum: there each side ends in its own front.
        common = (u_left - u_right) / 2
        self._s = s
        self._u_left = torch.where(vacuum, torch.where(empty_left, -torch.inf, u_left), common)
        self._u_right = torch.where(vacuum, torch.where(empty_right, -torch.inf, u_right), -common)
        self.vacuum = vacuum[:, 0]
        self.star_left = self._order(self._u_left, left.middle(s))[..., 0]
        self.star_right = self._order(-self._u_right, right.middle(s))[..., 0]
        edges_left, edges_right = left.edges(s, self._u_left), right.edges(s, self._u_right)
        self.speeds = torch.cat([*edges_left, -edges_right[1], -edges_right[0]], dim=1)

    @staticmethod
    def _order(u: Tensor, rest: tuple[Tensor, ...]) -> Tensor:
        """Primitive variables as channels, (B, m, n): density or depth, velocity, pressure if there is one."""
        return torch.stack([rest[0], u.expand_as(rest[0]), *rest[1:]], dim=1)

    def at(self, xi: Tensor) -> Tensor:
        r"""Primitive variables at $\xi = x/t$, (n,) or (B, n), as (B, m, n). In a vacuum all are zero, the velocity by convention."""
        xi = torch.atleast_2d(xi).expand(len(self._s), -1)
        before = self._order_at(self.left.at(xi, self._s, self._u_left), 1.0)
        behind = self._order_at(self.right.at(-xi, self._s, self._u_right), -1.0)
        inside = torch.where((xi <= self._u_left)[:, None], before, 0.0)
        return torch.where((xi > -self._u_right)[:, None], behind, inside)

    def _order_at(self, values: tuple[Tensor, ...], sign: float) -> Tensor:
        return self._order(sign * values[0], values[1:])


def gas_riemann(left: Tensor, right: Tensor, gamma: float | Tensor) -> RiemannSolution:
    """The exact solution for an ideal gas.

    Arguments:
        left: density, velocity and pressure, (B, 3); zero density for vacuum.
        right: the same of the other side.
        gamma: ratio of specific heats, a number or (B,).

    Example:
        >>> state = lambda *values: torch.tensor([values], dtype=torch.float64)
        >>> sod = gas_riemann(state(1.0, 0.0, 1.0), state(0.125, 0.0, 0.1), 1.4)
        >>> [round(value, 5) for value in sod.star_left[0].tolist()]
        [0.42632, 0.92745, 0.30313]
    """
    ratio = torch.as_tensor(gamma, dtype=left.dtype, device=left.device).reshape(-1, 1).expand(len(left), 1)
    (rho_l, u_l, p_l), (rho_r, u_r, p_r) = left[..., None].unbind(1), right[..., None].unbind(1)
    return RiemannSolution(GasSide(rho_l, u_l, p_l, ratio), GasSide(rho_r, -u_r, p_r, ratio))


def water_riemann(left: Tensor, right: Tensor, gravity: float) -> RiemannSolution:
    """The exact solution for shallow water.

    Arguments:
        left: depth and velocity, (B, 2); zero depth for a dry bed.
        right: the same of the other side.
        gravity: acceleration of gravity.
    """
    (h_l, u_l), (h_r, u_r) = left[..., None].unbind(1), right[..., None].unbind(1)
    return RiemannSolution(WaterSide(h_l, u_l, gravity), WaterSide(h_r, -u_r, gravity))


def hll(conserved: tuple[Tensor, Tensor], fluxes: tuple[Tensor, Tensor], signals: tuple[Tensor, Tensor]) -> Tensor:
    r"""The flux of one middle state, $(s_R F_L - s_L F_R + s_L s_R(U_R - U_L))/(s_R - s_L)$ with $s_L \le 0 \le s_R$.

    Arguments:
        conserved: $U$ on both sides, (B, C, *N).
        fluxes: $F(U)$ on both sides.
        signals: bounds of the slowest and the fastest signal, (B, *N).

    Source:
        Harten, Lax & van Leer, SIAM Review 25 (1983) 35.
    """
    slow, fast = signals[0].clamp_max(0)[:, None], signals[1].clamp_min(0)[:, None]
    spread = (fast - slow).clamp_min(torch.finfo(slow.dtype).tiny)
    return (fast * fluxes[0] - slow * fluxes[1] + slow * fast * (conserved[1] - conserved[0])) / spread


def contact(
    normal: tuple[Tensor, Tensor], rho: tuple[Tensor, Tensor], p: tuple[Tensor, Tensor], signals: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    r"""Speed and pressure of the contact of HLLC, from normal velocities, densities, pressures and signal bounds, (B, *N) each.

    With $m_K = \rho_K(s_K - u_K)$: $s = (p_R - p_L + m_L u_L - m_R u_R)/(m_L - m_R)$ and $p = p_K + m_K(s - u_K)$ on either side; the
    mean of both, so that a mirrored problem has the mirrored solution to the last bit.

    Source:
        Toro, Spruce & Speares, Shock Waves 4 (1994) 25; Batten et al., SIAM J. Sci. Comput. 18 (1997) 1553.
    """
    m_left, m_right = rho[0] * (signals[0] - normal[0]), rho[1] * (signals[1] - normal[1])
    speed = (p[1] - p[0] + (m_left * normal[0] - m_right * normal[1])) / (m_left - m_right)
    pressure = ((p[0] + m_left * (speed - normal[0])) + (p[1] + m_right * (speed - normal[1]))) / 2
    return speed, pressure
