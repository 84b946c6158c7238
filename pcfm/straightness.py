r"""How straight the trajectories of a flow are, which tells how few steps it needs.

Of trajectories $x_t$ from $x_0$, solved finely, with $d = x_1 - x_0$:

$$S = \int_0^1 \mathrm E\|d - v_t(x_t)\|^2\,dt,\qquad E = \int_0^1\mathrm E\|v_t(x_t)\|^2\,dt = S + \mathrm E\|d\|^2,$$

a straight flow has S = 0 and needs one Euler step, whose error is measured too. Its acceleration $Dv/Dt = (\partial_t + v\cdot\nabla)v$
vanishes. For the flow between standard normals and $\mathcal N(m, \Sigma)$, independently coupled, $E = \mathrm{tr}\int c_t'^2$ with
$c_t^2 = (1-t)^2 + t^2\sigma^2$ in each direction.

Norms are those of `x.square().sum()` over a field, in normalised units.

Source:
    Liu, Gong & Liu, Flow straight and fast, ICLR 2023; over pairs of the path conditional velocities take the place of d
    (`path_straightness`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pcfm.derivative import along
from pcfm.path import Path
from pcfm.velocity import Velocity


class Straightness(NamedTuple):
    """Measures of a flow from some noise, each averaged over the samples.

    Attributes:
        deviation: S, squared norm of the velocity's deviation from the chord.
        distance: mean squared norm of the chord, the transport cost.
        energy: E, the kinetic energy of the trajectories.
        acceleration: mean squared norm of Dv/Dt over all times.
        one_step: root mean square of the values by which one Euler step misses the end.
    """

    deviation: float
    distance: float
    energy: float
    acceleration: float
    one_step: float

    @property
    def relative(self) -> float:
        """$S / \\mathrm E\\|d\\|^2$, zero for a straight flow."""
        return self.deviation / self.distance


@dataclass(frozen=True)
class _Nodes:
    """Gauss-Legendre points and weights on [0, 1]."""

    times: Tensor
    weights: Tensor


def _nodes(count: int, dtype: torch.dtype) -> _Nodes:
    points, weights = np.polynomial.legendre.leggauss(count)
    return _Nodes(torch.from_numpy((points + 1) / 2).to(dtype), torch.from_numpy(weights / 2).to(dtype))


@torch.no_grad()
def straightness(velocity: Velocity, x0: Tensor, *, nodes: int = 8, substeps: int = 4) -> Straightness:
    """Measure the trajectories of a flow.

    Arguments:
        velocity: of the flow; torch's forward derivatives must pass through it.
        x0: noise, (B, C, *N).
        nodes: Gauss-Legendre points in time.
        substeps: steps of the classical Runge-Kutta rule between two of them.
    """
    rule = _nodes(nodes, x0.dtype)
    rates: list[Tensor] = []
    accelerations: list[Tensor] = []
    x, before = x0, torch.zeros((), dtype=x0.dtype)
    for t in [*rule.times, torch.ones((), dtype=x0.dtype)]:
        x = _march(velocity, x, before, t, substeps)
        before = t
        if len(rates) < nodes:
            rate, acceleration = _material(velocity, x, t)
            rates.append(rate)
            accelerations.append(acceleration)
    chord = x - x0
    weights = rule.weights.tolist()

    def integral(parts: list[Tensor]) -> float:
        return sum(w * float(part.square().flatten(1).sum(1).mean()) for w, part in zip(weights, parts, strict=True))

    once = x0 + velocity(x0, torch.zeros((), dtype=x0.dtype))
    return Straightness(
        deviation=integral([chord - rate for rate in rates]),
        distance=float(chord.square().flatten(1).sum(1).mean()),
        energy=integral(rates),
        acceleration=integral(accelerations),
        one_step=float((once - x).square().mean().sqrt()),
    )


@torch.no_grad()
def path_straightness(velocity: Callable[[Tensor, Tensor], Tensor], path: Path, x0: Tensor, x1: Tensor, *, nodes: int = 16) -> float:
    r"""$\int\mathrm E\|\dot x_t - v_t(x_t)\|^2dt$ over pairs: what is left of the flow-matching loss, zero where no paths cross.

    Independent pairs of standard normals and $\mathcal N(m,\Sigma)$ on the straight path have $\frac\pi2\,\mathrm{tr}\,\Sigma^{1/2}$.
    """
    rule = _nodes(nodes, x0.dtype)
    total = 0.0
    for t, weight in zip(rule.times, rule.weights.tolist(), strict=True):
        x, target = path.sample(x0, x1, t)
        total += weight * float((target - velocity(x, t)).square().flatten(1).sum(1).mean())
    return total


def _march(velocity: Velocity, x: Tensor, t: Tensor, end: Tensor, steps: int) -> Tensor:
    """Runge-Kutta steps of equal length."""
    h = (end - t) / steps
    for i in range(steps):
        s = t + i * h
        a = velocity(x, s)
        b = velocity(x + h / 2 * a, s + h / 2)
        c = velocity(x + h / 2 * b, s + h / 2)
        d = velocity(x + h * c, s + h)
        x = x + h / 6 * (a + 2 * b + 2 * c + d)
    return x


def _material(velocity: Velocity, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """v and Dv/Dt."""
    rate = velocity(x, t)
    return rate, along(velocity, (x, t), (rate, torch.ones_like(t)))[1]
