r"""What training minimises: the flow-matching objective, or one of a flow map.

Flow matching is $\mathrm E\,w(t)\,\|v_\theta(x_t, t) - \dot x_t\|^2$: which times are drawn, and what each weighs.

Times are $Q(r)$ with Q the quantile function of a law on (0, 1) and one r in each of as many equal intervals as there are samples, which
spreads less than independent draws. The minimiser is the marginal velocity whatever law and weight; they say where it is learnt best.
Objectives of flow maps draw times of their own.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
from torch import Tensor

from pcfm.flow_map import Average, FlowMap, FlowMapObjective
from pcfm.naming import lookup, options_from
from pcfm.path import AffinePath, BridgePath, Path, broadcast
from pcfm.schedule import Scales, rate
from pcfm.velocity import TWO_TIMES, NetworkVelocity, Velocity


class TimeLaw(ABC):
    """A distribution of flow times on (0, 1)."""

    @abstractmethod
    def quantile(self, r: Tensor) -> Tensor:
        """Q: the time below which a share r lies, float64."""

    def density(self, r: Tensor) -> Tensor:
        """The density at Q(r), 1/Q'(r)."""
        return 1 / rate(self.quantile, r)


@dataclass(frozen=True)
class Uniform(TimeLaw):
    """All times alike."""

    def quantile(self, r: Tensor) -> Tensor:
        return r


@dataclass(frozen=True)
class LogitNormal(TimeLaw):
    r"""More times in the middle, fewer at the ends.

    $\log\frac{t}{1-t} \sim \mathcal N(m, s^2)$.

    Attributes:
        mean: m.
        std: s.

    Source:
        Esser et al., Scaling rectified flow transformers, ICML 2024.
    """

    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        _positive("logit-normal", "std", self.std)

    def quantile(self, r: Tensor) -> Tensor:
        return torch.sigmoid(self.mean + self.std * torch.special.ndtri(r))


@dataclass(frozen=True)
class Power(TimeLaw):
    r"""More times next to the data, or next to the noise with a negative exponent.

    Density $(1 + a)t^a$.

    Attributes:
        exponent: a.

    Source:
        Wildberger et al., Flow matching for scalable simulation-based inference, NeurIPS 2023.
    """

    exponent: float = 1.0

    def __post_init__(self) -> None:
        _positive("power", "exponent", self.exponent + 1)

    def quantile(self, r: Tensor) -> Tensor:
        return r ** (1 / (1 + self.exponent))


@dataclass(frozen=True)
class Beta(TimeLaw):
    r"""A beta law.

    Density $\propto t^{a-1}(1-t)^{b-1}$.

    Attributes:
        data: a, less for more times next to the noise.
        noise: b, less for more times next to the data.
    """

    data: float = 2.0
    noise: float = 2.0

    def __post_init__(self) -> None:
        _positive("beta", "data", self.data)
        _positive("beta", "noise", self.noise)

    def quantile(self, r: Tensor) -> Tensor:
        from scipy.special import betaincinv

        return torch.from_numpy(betaincinv(self.data, self.noise, r.numpy())).to(r)

    def density(self, r: Tensor) -> Tensor:
        t, a, b = self.quantile(r), self.data, self.noise
        log = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + (a - 1) * t.log() + (b - 1) * torch.log1p(-t)
        return log.exp()


@dataclass(frozen=True)
class Mode(TimeLaw):
    r"""More times in the middle, and both ends still seen.

    $t = r + s\,(\cos^2\tfrac{\pi r}2 - 1 + r)$ with r uniform.

    Attributes:
        scale: s; more at the ends where negative.

    Source:
        Esser et al., ICML 2024, section 3.1.
    """

    scale: float = 0.8

    def __post_init__(self) -> None:
        if not -1 <= self.scale <= 2 / (math.pi - 2):
            raise ValueError(f"times 'mode' expect a scale in [-1, {2 / (math.pi - 2):.3f}], where they are monotone; got {self.scale}.")

    def quantile(self, r: Tensor) -> Tensor:
        return r + self.scale * (torch.cos(math.pi / 2 * r).square() - 1 + r)


@dataclass(frozen=True)
class Shifted(TimeLaw):
    r"""More times in the noise, as fields of many values ask for.

    Uniform shares q of noise are moved to $kq/(1 + (k-1)q)$, $t = 1 - q$.

    Attributes:
        factor: k.

    Source:
        Esser et al., ICML 2024, section 5.3.2.
    """

    factor: float = 3.0

    def __post_init__(self) -> None:
        _positive("shifted", "factor", self.factor)

    def quantile(self, r: Tensor) -> Tensor:
        return 1 - self.factor * (1 - r) / (1 + (self.factor - 1) * (1 - r))


TIME_LAWS: dict[str, type[TimeLaw]] = {
    "uniform": Uniform,
    "logit-normal": LogitNormal,
    "power": Power,
    "beta": Beta,
    "mode": Mode,
    "shifted": Shifted,
}

WEIGHTS: dict[str, Callable[[Scales, Tensor], Tensor]] = {
    "velocity": lambda at, density: torch.ones_like(density),
    "endpoint": lambda at, density: (at.noise / at.turn).square(),
    "noise": lambda at, density: (at.signal / at.turn).square(),
    "unbiased": lambda at, density: 1 / density,
}
r"""w(t) of scales and of the density of times: the error of the velocity as it is; that of the endpoint, $\sigma_t/\delta_t$ times as
large; that of the noise, $\alpha_t/\delta_t$ times; the first with the law of times divided out."""


class Drawn(NamedTuple):
    """Times and weights, (B,) each, and the path with what is random on it."""

    t: Tensor
    weight: Tensor
    path: Path


@dataclass(frozen=True)
class Objective:
    """What training minimises.

    Attributes:
        path: the path of the flow.
        times: the law of flow times.
        weight: one of `WEIGHTS`.

    Raises:
        ValueError: an unknown weight, or one that asks for an affine path.
    """

    path: Path
    times: TimeLaw = Uniform()
    weight: str = "velocity"

    def __post_init__(self) -> None:
        lookup("weight of times", self.weight, WEIGHTS)
        if self.weight in ("endpoint", "noise") and not isinstance(self.path, AffinePath):
            raise ValueError(f"weight '{self.weight}' expects an AffinePath; got {type(self.path).__name__}. Use 'velocity'.")

    def draw(self, count: int, generator: torch.Generator, noise: Callable[[], Tensor]) -> Drawn:
        """What is random in a batch besides its pairs.

        Arguments:
            count: samples of the batch.
            generator: of the times.
            noise: draws from the source, of the shape of the batch.
        """
        r, path = stratified_times(count, generator), self.path.drawn(noise)
        if isinstance(self.times, Uniform) and self.weight == "velocity":
            return Drawn(r, torch.ones_like(r), path)
        exact = r.double().clamp(1e-9, 1 - 1e-9)
        t = self.times.quantile(exact)
        density = self.times.density(exact) if self.weight == "unbiased" else torch.ones_like(t)
        at = self.path.schedule(t) if isinstance(self.path, AffinePath) else Scales(t, t, t, t)
        return Drawn(t.to(r), WEIGHTS[self.weight](at, density).to(r), path)

    def __call__(self, velocity: Callable[[Tensor, Tensor], Tensor], x0: Tensor, x1: Tensor, drawn: Drawn) -> Tensor:
        """The loss of each sample, (B,)."""
        return drawn.weight.to(x1) * flow_matching_loss(velocity, drawn.path, x0, x1, drawn.t.to(x1))


class MapDrawn(NamedTuple):
    """The path with what is random on it, and the generator of times."""

    path: Path
    generator: torch.Generator


@dataclass(frozen=True)
class MapLearning:
    """An objective of a flow map, as training takes it.

    Attributes:
        objective: what is minimised.
        path: the path of the flow.
        average: the map's average velocity with averaged weights, whose values are targets.
        teacher: what is distilled: a velocity, or the average velocity of a map; None for objectives that learn from data alone.

    Raises:
        ValueError: no teacher for an objective that distils one, or the other way round.
    """

    objective: FlowMapObjective
    path: Path
    average: Average
    teacher: NetworkVelocity | None = None

    def __post_init__(self) -> None:
        if self.objective.distils != (self.teacher is not None):
            raise ValueError(
                f"{type(self.objective).__name__} expects {'a teacher' if self.objective.distils else 'no teacher: it learns from data'}."
            )

    def draw(self, count: int, generator: torch.Generator, noise: Callable[[], Tensor]) -> MapDrawn:
        """What is random in a batch besides its pairs."""
        seed = int(torch.randint(2**62, (), generator=generator))
        return MapDrawn(self.path.drawn(noise), torch.Generator().manual_seed(seed))

    def __call__(self, velocity: NetworkVelocity, x0: Tensor, x1: Tensor, drawn: MapDrawn) -> Tensor:
        """The loss of each sample, (B,); the teacher sees the condition that the student sees."""
        teacher: Velocity | FlowMap | None = self.teacher
        if self.teacher is not None:
            self.teacher.condition = velocity.condition
            teacher = FlowMap(self.teacher) if self.teacher.call in TWO_TIMES else self.teacher
        return self.objective(FlowMap(velocity), FlowMap(self.average), drawn.path, x0, x1, drawn.generator, teacher)


def time_law(text: str) -> TimeLaw:
    """The law of times that a text names, `NAME` or `NAME:key=value,key=value`.

    Raises:
        ValueError: an unknown law or option, or a value out of its range.
    """
    name, _, rest = text.partition(":")
    kind = lookup("law of times", name, TIME_LAWS)
    return kind(**options_from(f"law of times '{name}'", rest, {f.name: f.default for f in fields(kind)}))  # type: ignore[arg-type]


def bridge_score_loss(correction: Callable[[Tensor, Tensor], Tensor], path: BridgePath, x0: Tensor, x1: Tensor, t: Tensor) -> Tensor:
    r"""Mean square of $\lambda_t s_\theta + \epsilon$, $\lambda_t = 2\sqrt{t(1-t)}/\sigma$, for each sample, (B,).

    Its minimiser is $\tfrac{\sigma^2}2\nabla\log p_t$: what turns the velocity of a bridge into its drift. The path must be `drawn`.

    Raises:
        ValueError: a path without its noise.

    Source:
        Tong et al., AISTATS 2024.
    """
    if path.draw is None:
        raise ValueError("the score of a bridge expects the noise of its path; draw it with BridgePath.drawn.")
    scale = broadcast(2 * path.spread(t.clamp(path.margin, 1 - path.margin)) / path.noise**2, x1)
    return (scale * correction(path.sample(x0, x1, t).x_t, t) + path.draw).square().flatten(1).mean(1)


def stratified_times(count: int, generator: torch.Generator) -> Tensor:
    """One uniform time in each of `count` equal intervals of [0, 1], in random order: uniform, with less spread than independent draws."""
    offsets = torch.rand(count, generator=generator)
    return (torch.randperm(count, generator=generator) + offsets) / count


def flow_matching_loss(velocity: Callable[[Tensor, Tensor], Tensor], path: Path, x0: Tensor, x1: Tensor, t: Tensor) -> Tensor:
    r"""Mean square of $v_\theta(x_t, t) - \dot x_t$ for each sample, (B,); its minimiser is the marginal velocity of the path.

    Raises:
        ValueError: ends of different shapes, or times outside [0, 1].

    Source:
        Lipman et al., Flow matching for generative modeling, ICLR 2023.
    """
    if x0.shape != x1.shape:
        raise ValueError(f"flow matching expects noise and data of one shape; got {tuple(x0.shape)} and {tuple(x1.shape)}.")
    if not bool(((t >= 0) & (t <= 1)).all()):
        raise ValueError(f"flow matching expects times in [0, 1]; got {float(t.min()):g} to {float(t.max()):g}.")
    x_t, target = path.sample(x0, x1, t)
    return (velocity(x_t, t) - target).square().flatten(1).mean(1)


def _positive(name: str, key: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise ValueError(f"times '{name}' expect a larger {key}; got one that leaves no density.")
