r"""Flow maps: from any time of a flow to any other in one call of a network, and the objectives they are learnt by.

A flow map takes the state at time r to that at time t by the average velocity on the way,

$$X_{r,t}(x) = x + (t-r)\,u_{r,t}(x),\qquad u_{t,t} = v_t.$$

It is the map of the flow with velocity v if and only if one of these holds for all $r\le t$:

* Eulerian: $\partial_r X_{r,t}(x) + \nabla X_{r,t}(x)\,v_r(x) = 0$, that is $u_{r,t} = v_r + (t-r)(\partial_r + v_r\cdot\nabla)u_{r,t}$;
* Lagrangian: $\partial_t X_{r,t}(x) = v_t(X_{r,t}(x))$;
* semigroup: $X_{m,t}(X_{r,m}(x)) = X_{r,t}(x)$.

Each is an objective; what stands on the other side than the map that learns is held fixed. Some objectives teach all jumps, some those of
a grid of times only: of which others are made, by the semigroup property (`LearntMap`). Laws enter as with any sampler: between jumps the
endpoint that the map gives is projected.

Source:
    Boffi, Albergo & Vanden-Eijnden, How to build a consistency model: learning flow maps via self-distillation, arXiv:2505.18825.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pcfm.derivative import along
from pcfm.path import Path, broadcast
from pcfm.velocity import Velocity

Average = Callable[[Tensor, Tensor, Tensor], Tensor]
"""u(x, r, t): the average velocity between the times r and t, (B,) each, of trajectories that are at x (B, C, *N) at time r."""


class FlowMap:
    """The map of an average velocity.

    Arguments:
        average: $u_{r,t}(x)$.
    """

    def __init__(self, average: Average) -> None:
        self.average = average

    def __call__(self, x: Tensor, r: Tensor, t: Tensor) -> Tensor:
        """$X_{r,t}(x)$."""
        return x + broadcast(t - r, x) * self.average(x, r, t)

    def velocity(self, x: Tensor, t: Tensor) -> Tensor:
        """$v_t(x) = u_{t,t}(x)$."""
        return self.average(x, t, t)

    def along_time(self, x: Tensor, r: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        r"""$X_{r,t}(x)$ and $\partial_t X_{r,t}(x)$, both differentiable in the map's parameters."""
        u, rate = along(lambda end: self.average(x, r, end), (t,), (torch.ones_like(t),))
        span = broadcast(t - r, x)
        return x + span * u, u + span * rate

    def material(self, x: Tensor, r: Tensor, t: Tensor, velocity: Tensor) -> tuple[Tensor, Tensor]:
        r"""$u_{r,t}(x)$ and $(\partial_r + v\cdot\nabla)u_{r,t}(x)$ for a given v."""
        return along(lambda point, begin: self.average(point, begin, t), (x, r), (velocity, torch.ones_like(r)))


Teacher = Velocity | FlowMap


class LearntMap(FlowMap):
    r"""A map that is asked for what it has learnt only; other jumps are made of those, $X_{m,t}(X_{r,m}(x)) = X_{r,t}(x)$.

    Times are scalars, the same for all samples.

    Arguments:
        average: $u_{r,t}(x)$.
        objective: what it has been trained by.
    """

    def __init__(self, average: Average, objective: FlowMapObjective) -> None:
        super().__init__(average)
        self.objective = objective

    def _way_out(self) -> str:
        return f"Take {self.objective.fewest} uniform step{'s' if self.objective.fewest > 1 else ''}."

    def jump(self, x: Tensor, r: Tensor, t: Tensor) -> Tensor:
        """$X_{r,t}(x)$ in one call.

        Raises:
            ValueError: a jump that it has not learnt.
        """
        if len(self.objective.jumps(float(r), float(t))) != 1:
            raise ValueError(
                f"this flow map has learnt {self.objective.learnt()}; a jump from t = {float(r):.4g} to {float(t):.4g} is none of them. "
                f"{self._way_out()} Samplers that go by endpoints, such as pcfm, take more."
            )
        return super().__call__(x, r, t)

    def __call__(self, x: Tensor, r: Tensor, t: Tensor) -> Tensor:
        """$X_{r,t}(x)$ in as few calls as it has learnt.

        Raises:
            ValueError: no jumps that it has learnt lead from r to t.
        """
        route = self.objective.jumps(float(r), float(t))
        if not route:
            raise ValueError(
                f"this flow map has learnt {self.objective.learnt()}; none of them lead from t = {float(r):.4g} to {float(t):.4g}. "
                + self._way_out()
            )
        for stop in (*(torch.as_tensor(time).to(t) for time in route[:-1]), t):
            x, r = super().__call__(x, r, stop), stop
        return x


class FlowMapObjective(ABC):
    """How far a map is from that of the flow of some pairs.

    Attributes:
        distils: whether it learns from a teacher.
        follows: whether it teaches the velocity of the flow too, $u_{t,t}$.
        reference: paper.
    """

    distils: ClassVar[bool] = False
    follows: ClassVar[bool] = True
    reference: ClassVar[str] = ""

    def jumps(self, r: float, t: float) -> tuple[float, ...]:
        """Where the fewest jumps that it teaches end on the way from r to t, t the last; none if none lead there."""
        return (t,) if r < t else ()

    def learnt(self) -> str:
        """In words, the jumps that it teaches."""
        return "jumps between any two times, forward"

    @property
    def fewest(self) -> int:
        """Jumps from noise to data."""
        return len(self.jumps(0.0, 1.0))

    @abstractmethod
    def __call__(
        self, student: FlowMap, average: FlowMap, path: Path, x0: Tensor, x1: Tensor, generator: torch.Generator, teacher: Teacher | None
    ) -> Tensor:
        """The loss of each sample, (B,).

        Arguments:
            student: the map that learns.
            average: the same with averaged weights, whose values are targets.
            path: path of the pairs.
            x0: noise, (B, C, *N).
            x1: data.
            generator: of times.
            teacher: a trained velocity or map, for those that distil one.
        """


def _pairs(count: int, generator: torch.Generator, like: Tensor) -> tuple[Tensor, Tensor]:
    """Times r <= t, uniform on the triangle."""
    both = torch.rand(2, count, generator=generator, dtype=torch.float64).sort(dim=0).values.to(like)
    return both[0], both[1]


def _chosen(count: int, share: float, generator: torch.Generator, like: Tensor) -> Tensor:
    """Which samples take the flow-matching objective, (B,), a fixed share of them."""
    return (torch.randperm(count, generator=generator) < round(share * count)).to(like.device)


def _square(x: Tensor) -> Tensor:
    return x.square().flatten(1).mean(1)


def _place(t: float, parts: int) -> int | None:
    """Which of the times 0, 1/parts, ..., 1 a time is, None if it is none, up to single precision."""
    place = round(t * parts)
    return place if abs(t * parts - place) < 1e-4 else None


def _share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} expects the share of flow matching between 0 and 1; got {value}.")


@dataclass(frozen=True)
class MeanFlow(FlowMapObjective):
    r"""Mean flow: the Eulerian identity with the conditional velocity $\dot x_r$ in place of v, from data alone.

    $$\big\|u_{r,t}(x_r) - \mathrm{sg}[\dot x_r + (t-r)(\partial_r + \dot x_r\cdot\nabla)u_{r,t}(x_r)]\big\|^2,$$

    whose minimiser is the map of the marginal flow, since the target is linear in $\dot x_r$. The paper's data are at t = 0 and its sign
    the other. Each sample is weighed by $(e + 10^{-2})^{-p}$ of its own error e.

    Attributes:
        share: of the batch with r = t, where it is flow matching.
        power: p.

    Source:
        Geng et al., Mean flows for one-step generative modeling, arXiv:2505.13447. Deviations: times are uniform where theirs are
        logit-normal, and p is 1/2 by default where theirs is 1.
    """

    reference: ClassVar[str] = "Geng et al., arXiv:2505.13447"

    share: float = 0.5
    power: float = 0.5

    def __post_init__(self) -> None:
        _share("mean flow", self.share)

    def __call__(
        self, student: FlowMap, average: FlowMap, path: Path, x0: Tensor, x1: Tensor, generator: torch.Generator, teacher: Teacher | None
    ) -> Tensor:
        r, t = _pairs(len(x1), generator, x1)
        t = torch.where(_chosen(len(x1), self.share, generator, x1), r, t)
        x, velocity = path.sample(x0, x1, r)
        u, rate = student.material(x, r, t, velocity)
        error = _square(u - (velocity + broadcast(t - r, x) * rate).detach())
        return error / (error.detach() + 1e-2).pow(self.power)


@dataclass(frozen=True)
class Lagrangian(FlowMapObjective):
    r"""Lagrangian self-distillation: flow matching on the diagonal, and $\partial_t X_{r,t}(x_r) = u_{t,t}(X_{r,t}(x_r))$ off it.

    No spatial derivative is taken; of the methods that need no teacher it has the least variance.

    Attributes:
        share: of the batch with r = t.

    Source:
        Boffi, Albergo & Vanden-Eijnden, arXiv:2505.18825, section 3.
    """

    reference: ClassVar[str] = "Boffi et al., arXiv:2505.18825"

    share: float = 0.5

    def __post_init__(self) -> None:
        _share("Lagrangian self-distillation", self.share)

    def __call__(
        self, student: FlowMap, average: FlowMap, path: Path, x0: Tensor, x1: Tensor, generator: torch.Generator, teacher: Teacher | None
    ) -> Tensor:
        r, t = _pairs(len(x1), generator, x1)
        matching = _chosen(len(x1), self.share, generator, x1)
        t = torch.where(matching, r, t)
        x, velocity = path.sample(x0, x1, r)
        moved, rate = student.along_time(x, r, t)  # at r = t the rate is u itself
        with torch.no_grad():
            target = torch.where(broadcast(matching, x), velocity, average.velocity(moved, t))
        return _square(rate - target)


@dataclass(frozen=True)
class Shortcut(FlowMapObjective):
    r"""Shortcut model: flow matching, and jumps of length $2h$ that equal two of length h, on a dyadic grid of times.

    The shortest jumps are built from the velocity itself, $u_{r,r}$; the authors' code trains one of the shortest length in its place.

    Attributes:
        levels: lengths $1, 1/2, \dots, 2^{1-\mathrm{levels}}$.
        share: of the batch for flow matching.

    Source:
        Frans et al., One step diffusion via shortcut models, ICLR 2025.
    """

    reference: ClassVar[str] = "Frans et al., ICLR 2025"

    levels: int = 7
    share: float = 0.75

    def __post_init__(self) -> None:
        _share("a shortcut model", self.share)
        if self.levels < 1:
            raise ValueError(f"a shortcut model expects at least one level; got {self.levels}.")

    def jumps(self, r: float, t: float) -> tuple[float, ...]:
        finest = 2 ** (self.levels - 1)
        place, end, route = _place(r, finest), _place(t, finest), []
        while place is not None and end is not None and place < end:
            longest = place & -place or finest  # the largest power of two that divides it
            while longest > end - place:
                longest //= 2
            place += longest
            route.append(place / finest)
        return tuple(route)

    def learnt(self) -> str:
        return f"jumps of 1, 1/2, ..., 1/{2 ** (self.levels - 1)} from multiples of their length" if self.levels > 1 else "one jump"

    def __call__(
        self, student: FlowMap, average: FlowMap, path: Path, x0: Tensor, x1: Tensor, generator: torch.Generator, teacher: Teacher | None
    ) -> Tensor:
        matching = _chosen(len(x1), self.share, generator, x1)
        free = torch.rand(len(x1), generator=generator, dtype=torch.float64).to(x1)
        level = torch.randint(0, self.levels, (len(x1),), generator=generator).to(x1.device)
        length = 0.5 ** level.to(x1.dtype)
        r = torch.where(matching, free, (free / length).floor() * length)
        t = torch.where(matching, r, r + length)
        x, velocity = path.sample(x0, x1, r)
        with torch.no_grad():
            half = r + (t - r) / 2
            shortest = level == self.levels - 1
            first = average.average(x, r, torch.where(shortest, r, half))
            middle = x + broadcast(half - r, x) * first
            second = average.average(middle, half, torch.where(shortest, half, t))
            target = torch.where(broadcast(matching, x), velocity, (first + second) / 2)
        return _square(student.average(x, r, t) - target)


def heun(velocity: Velocity, x: Tensor, r: Tensor, t: Tensor) -> Tensor:
    """One step of Heun's rule between times (B,)."""
    first = velocity(x, r)
    second = velocity(x + broadcast(t - r, x) * first, t)
    return x + broadcast((t - r) / 2, x) * (first + second)


def _carried(teacher: Teacher, x: Tensor, r: Tensor, t: Tensor) -> Tensor:
    """Where a teacher takes states between times (B,): a map in one jump, a velocity by Heun's rule."""
    return teacher(x, r, t) if isinstance(teacher, FlowMap) else heun(teacher, x, r, t)


def _needs(teacher: Teacher | None, name: str) -> Teacher:
    if teacher is None:
        raise ValueError(f"{name} expects a teacher: a trained model whose samples it learns in fewer steps.")
    return teacher


@dataclass(frozen=True)
class Progressive(FlowMapObjective):
    r"""Progressive distillation: one step of `steps` equal ones learns two of the teacher.

    A teacher that is itself a flow map of twice as many steps jumps; another takes Heun steps. Each halving is a training of its own, with
    the last student as teacher and first weights.

    Attributes:
        steps: of the student.

    Source:
        Salimans & Ho, Progressive distillation for fast sampling of diffusion models, ICLR 2022. There the grid is one of angles and the
        target one of $x_1$.
    """

    distils: ClassVar[bool] = True
    follows: ClassVar[bool] = False
    reference: ClassVar[str] = "Salimans & Ho, ICLR 2022"

    steps: int = 4

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"progressive distillation expects at least one step; got {self.steps}.")

    def jumps(self, r: float, t: float) -> tuple[float, ...]:
        place, end = _place(r, self.steps), _place(t, self.steps)
        return () if place is None or end is None else tuple(i / self.steps for i in range(place + 1, end + 1))

    def learnt(self) -> str:
        return "one jump" if self.steps == 1 else f"jumps of 1/{self.steps}"

    def __call__(
        self, student: FlowMap, average: FlowMap, path: Path, x0: Tensor, x1: Tensor, generator: torch.Generator, teacher: Teacher | None
    ) -> Tensor:
        known = _needs(teacher, "progressive distillation")
        r = (torch.randint(0, self.steps, (len(x1),), generator=generator) / self.steps).to(x1)
        half, t = r + 0.5 / self.steps, r + 1.0 / self.steps
        x = path.sample(x0, x1, r).x_t
        with torch.no_grad():
            middle = _carried(known, x, r, half)
            target = (_carried(known, middle, half, t) - x) * self.steps
        return _square(student.average(x, r, t) - target)


@dataclass(frozen=True)
class Consistency(FlowMapObjective):
    r"""Consistency distillation in phases: within each of K parts of [0, 1] states of one trajectory map to the same end of the part.

    $$\rho\big(X_{r,e}(x_r) - \mathrm{sg}\,\bar X_{r+h,e}(\Phi_{r,r+h}(x_r))\big),\qquad \rho(d) = \sqrt{\|d\|^2 + c^2} - c,$$

    with $\Phi$ one Heun step of the teacher and $c = 0.00054\sqrt n$ (Song & Dhariwal). One phase is a consistency model, K phases make
    a deterministic sampler of K steps.

    Attributes:
        phases: K.
        bins: steps of [0, 1] in all, a multiple of K.

    Source:
        Song et al., Consistency models, ICML 2023; Wang et al., Phased consistency models, NeurIPS 2024; Song & Dhariwal, ICLR 2024.
    """

    distils: ClassVar[bool] = True
    follows: ClassVar[bool] = False
    reference: ClassVar[str] = "Song et al., ICML 2023; Wang et al., NeurIPS 2024"

    phases: int = 1
    bins: int = 64

    def __post_init__(self) -> None:
        if self.phases < 1 or self.bins < self.phases or self.bins % self.phases:
            raise ValueError(f"consistency distillation expects bins to be a multiple of phases; got {self.bins} and {self.phases}.")

    def jumps(self, r: float, t: float) -> tuple[float, ...]:
        place, end = _place(r, self.phases), _place(t, self.phases)
        phase = int(r * self.phases) if place is None else place
        return () if end is None else tuple(i / self.phases for i in range(phase + 1, end + 1))

    def learnt(self) -> str:
        return "jumps to the data" if self.phases == 1 else f"jumps to the next of {self.phases} equal parts of [0, 1]"

    def __call__(
        self, student: FlowMap, average: FlowMap, path: Path, x0: Tensor, x1: Tensor, generator: torch.Generator, teacher: Teacher | None
    ) -> Tensor:
        known = _needs(teacher, "consistency distillation")
        velocity = known.velocity if isinstance(known, FlowMap) else known
        bin_ = torch.randint(0, self.bins, (len(x1),), generator=generator)
        each = self.bins // self.phases
        end = ((bin_ // each + 1) * each / self.bins).to(x1)
        r, s = (bin_ / self.bins).to(x1), ((bin_ + 1) / self.bins).to(x1)
        x = path.sample(x0, x1, r).x_t
        with torch.no_grad():
            target = average(heun(velocity, x, r, s), s, end)
        difference = (student(x, r, end) - target).square().flatten(1).sum(1)
        c = 0.00054 * x[0].numel() ** 0.5
        return ((difference + c**2).sqrt() - c) / x[0].numel() ** 0.5


OBJECTIVES: dict[str, type[FlowMapObjective]] = {
    "mean-flow": MeanFlow,
    "lagrangian": Lagrangian,
    "shortcut": Shortcut,
    "progressive": Progressive,
    "consistency": Consistency,
}
"""By name."""
