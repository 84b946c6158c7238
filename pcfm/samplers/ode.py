r"""Integration of the flow's differential equation $\dot x = v(x, t)$, without laws."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from pcfm.naming import suggest
from pcfm.path import AffinePath, Path
from pcfm.samplers.sampler import Sampler
from pcfm.velocity import Velocity


@dataclass(frozen=True)
class Euler(Sampler):
    """Explicit Euler steps, order 1, one network call each."""

    velocity: Velocity

    def step(self, x: Tensor, t: Tensor, s: Tensor, x0: Tensor) -> Tensor:
        return x + (s - t) * self.velocity(x, t)


@dataclass(frozen=True)
class Midpoint(Sampler):
    """The velocity halfway, order 2, two network calls each."""

    order: ClassVar[int] = 2

    velocity: Velocity

    def step(self, x: Tensor, t: Tensor, s: Tensor, x0: Tensor) -> Tensor:
        h = s - t
        return x + h * self.velocity(x + h / 2 * self.velocity(x, t), t + h / 2)


@dataclass(frozen=True)
class Heun(Sampler):
    """Trapezoidal predictor-corrector, order 2, two network calls each."""

    order: ClassVar[int] = 2

    velocity: Velocity

    def step(self, x: Tensor, t: Tensor, s: Tensor, x0: Tensor) -> Tensor:
        first = self.velocity(x, t)
        second = self.velocity(x + (s - t) * first, s)
        return x + (s - t) / 2 * (first + second)


@dataclass(frozen=True)
class Heun3(Sampler):
    """Heun's rule of order 3, three network calls each."""

    order: ClassVar[int] = 3

    velocity: Velocity

    def step(self, x: Tensor, t: Tensor, s: Tensor, x0: Tensor) -> Tensor:
        h = s - t
        a = self.velocity(x, t)
        b = self.velocity(x + h / 3 * a, t + h / 3)
        c = self.velocity(x + 2 * h / 3 * b, t + 2 * h / 3)
        return x + h / 4 * (a + 3 * c)


@dataclass(frozen=True)
class RungeKutta4(Sampler):
    """The classical Runge-Kutta rule, order 4, four network calls each."""

    order: ClassVar[int] = 4

    velocity: Velocity

    def step(self, x: Tensor, t: Tensor, s: Tensor, x0: Tensor) -> Tensor:
        h, middle = s - t, (s + t) / 2
        a = self.velocity(x, t)
        b = self.velocity(x + h / 2 * a, middle)
        c = self.velocity(x + h / 2 * b, middle)
        d = self.velocity(x + h * c, s)
        return x + h / 6 * (a + 2 * b + 2 * c + d)


@dataclass
class History:
    """The last step: the times at which it began and ended, and its velocity."""

    last: tuple[Tensor, Tensor, Tensor] | None = None

    def clear(self) -> None:
        """Forget."""
        self.last = None


@dataclass(frozen=True)
class AdamsBashforth(Sampler):
    r"""Order 2 with one network call each: the velocity of the step before is extrapolated from.

    $x_s = x + h\left((1 + \tfrac{h}{2h'})\,v - \tfrac{h}{2h'}\,v'\right)$ with $h'$ the step before and $v'$ its velocity. A step that does
    not go on where the last one ended is Euler's.

    Attributes:
        velocity: the flow's velocity.
        memory: the step before.

    Source:
        Hairer, Norsett & Wanner, Solving ordinary differential equations I, section III.1 (1993).
    """

    order: ClassVar[int] = 2

    velocity: Velocity
    memory: History = field(default_factory=History)  # type: ignore[assignment]

    def step(self, x: Tensor, t: Tensor, s: Tensor, x0: Tensor) -> Tensor:
        h, now, last = s - t, self.velocity(x, t), self.memory.last
        self.memory.last = (t, s, now.detach())
        if last is None or last[1] != t or last[2].shape != now.shape:
            return x + h * now
        begun, ended, before = last
        share = h / (2 * (ended - begun))
        return x + h * ((1 + share) * now - share * before)


@dataclass(frozen=True)
class Exponential(Sampler):
    """Both ends of the path held for a step, order 1, one network call each; deterministic DDIM, and Euler's rule on straight paths.

    Attributes:
        velocity: the flow's velocity.
        path: its path.

    Source:
        Song, Meng & Ermon, Denoising diffusion implicit models, ICLR 2021.
    """

    velocity: Velocity
    path: AffinePath

    def first(self, x0: Tensor) -> Tensor:
        """The state itself, as other solvers have it."""
        return x0

    def step(self, x: Tensor, t: Tensor, s: Tensor, x0: Tensor) -> Tensor:
        velocity = self.velocity(x, t)
        return self.path.sample(self.path.origin(x, velocity, t), self.path.endpoint(x, velocity, t), s).x_t


@dataclass(frozen=True)
class Unconstrained(Sampler):
    """The flow alone."""

    reference: ClassVar[str] = "Lipman et al., ICLR 2023"

    base: Sampler
    path: Path | None = None

    def step(self, x: Tensor, t: Tensor, s: Tensor, x0: Tensor) -> Tensor:
        return self.base.step(x, t, s, x0)


@dataclass(frozen=True)
class Adaptive(Sampler):
    """Dormand and Prince's adaptive rule of order 5 between the given times. The error norm is over the whole batch.

    Attributes:
        method: torchdiffeq's name of the rule.
        rtol: relative tolerance.
        atol: absolute tolerance.

    Source:
        Chen, torchdiffeq (2018); Dormand & Prince, J. Comput. Appl. Math. 6 (1980) 19.
    """

    order: ClassVar[int | None] = None

    velocity: Velocity
    method: str = "dopri5"
    rtol: float = 1e-5
    atol: float = 1e-5

    def step(self, x: Tensor, t: Tensor, s: Tensor, x0: Tensor) -> Tensor:
        from torchdiffeq import odeint

        states: Tensor = odeint(
            lambda time, state: self.velocity(state, time),
            x,
            torch.stack([t, s]),
            method=self.method,
            rtol=self.rtol,
            atol=self.atol,
            options={"step_t": s[None]},  # else the last step goes beyond s, where the flow may not be defined, and is interpolated
        )
        return states[-1]


@dataclass(frozen=True)
class Dopri8(Adaptive):
    """Dormand and Prince's adaptive rule of order 8."""

    method: str = "dopri8"


@dataclass(frozen=True)
class Bosh3(Adaptive):
    """Bogacki and Shampine's adaptive rule of order 3."""

    method: str = "bosh3"


@dataclass(frozen=True)
class Fehlberg2(Adaptive):
    """Fehlberg's adaptive rule of order 2."""

    method: str = "fehlberg2"


@dataclass(frozen=True)
class AdaptiveHeun(Adaptive):
    """Heun's rule of order 2 with Euler's for its error, adaptive."""

    method: str = "adaptive_heun"


def integrate(
    rate: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], x: Tensor, t: float, s: float, solver: str, steps: int, tolerance: float
) -> tuple[Tensor, Tensor]:
    """A state at time s from that at time t, and the integral of what its rate gives besides, by torchdiffeq.

    Arguments:
        rate: from time and state to the rate of the state and what is integrated along it, (B, K); errors of the latter do not steer steps.
        x: the state.
        t: the time.
        s: the time to come, later or earlier.
        solver: torchdiffeq's name of a rule.
        steps: of rules of fixed steps.
        tolerance: of adaptive rules.

    Raises:
        ValueError: a rule that there is not, or less than one step.
    """
    from torchdiffeq import odeint

    if solver not in ADAPTIVE + FIXED:
        raise ValueError(f"unknown rule '{solver}'. {suggest(solver, ADAPTIVE + FIXED)}")
    if steps < 1:
        raise ValueError(f"integration expects at least one step; got {steps}.")
    ends = torch.tensor([t, s], dtype=x.dtype, device=x.device)
    times = ends if solver in ADAPTIVE else torch.linspace(t, s, steps + 1, dtype=x.dtype, device=x.device)
    start = torch.zeros_like(rate(times[0], x)[1])
    options = {"norm": lambda state: state[0].square().mean().sqrt(), "step_t": ends[1:]} if solver in ADAPTIVE else None
    path, integral = odeint(
        lambda time, state: rate(time, state[0]), (x, start), times, method=solver, rtol=tolerance, atol=tolerance, options=options
    )
    return path[-1], integral[-1]


ADAPTIVE = ("dopri5", "dopri8", "bosh3", "fehlberg2", "adaptive_heun")
FIXED = ("euler", "midpoint", "heun2", "heun3", "rk4", "explicit_adams", "implicit_adams")
