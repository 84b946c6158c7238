r"""Densities of a flow by the instantaneous change of variables,

$$\log p_1(x_1) = \log p_0(x_0) - \int_0^1 \nabla\cdot v_t(x_t)\,dt,$$

the integral taken along the trajectory between $x_0$ and $x_1$, in either direction, together with the trajectory itself. The divergence is
the trace of $J = \partial v/\partial x$, of which reverse passes give products $J^\top w$:

* exactly, from as many as there are values;
* Hutchinson: $z^\top J z$ with signs or normals z, of variance $2(\|S\|_F^2 - \sum_i S_{ii}^2)$ or $2\|S\|_F^2$, $S = (J + J^\top)/2$;
* Hutch++: the trace on the range Q of $J^\top$ applied to k probes, and Hutchinson's estimate of what is left, from k more:
  $\mathrm{tr}(Q^\top J Q) + \tfrac1k\sum_g g^\top PJPg$, $P = I - QQ^\top$; pays where few directions carry the trace.

Probes are drawn once and held along the trajectory: the integrand stays smooth, and the estimate unbiased.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import ClassVar

import torch
from torch import Tensor

from constraints import Units
from pcfm.naming import lookup, options_from
from pcfm.path import Path
from pcfm.samplers.ode import integrate
from pcfm.source import Source
from pcfm.velocity import Velocity

KINDS = ("rademacher", "gaussian")
"""Probes: signs, of the least variance, or normals."""


class Divergence(ABC):
    """A way to the trace of the Jacobian."""

    random: ClassVar[bool] = True

    @abstractmethod
    def draw(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        """The probes of a trajectory, (P, B, C, *N)."""

    @abstractmethod
    def __call__(self, x: Tensor, v: Tensor, probes: Tensor, differentiable: bool) -> Tensor:
        """Estimates of the divergence of v, a function of x with its graph: (B, K), independent ones along K."""


@dataclass(frozen=True)
class Exact(Divergence):
    """One reverse pass for each value of a field."""

    random: ClassVar[bool] = False

    def draw(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        return x.new_zeros(0, *x.shape)

    def __call__(self, x: Tensor, v: Tensor, probes: Tensor, differentiable: bool) -> Tensor:
        total = x.new_zeros(len(x), dtype=torch.float64)
        for i in range(x[0].numel()):
            unit = torch.zeros_like(x).flatten(1)
            unit[:, i] = 1
            total = total + _pulled(x, v, unit.reshape(x.shape), differentiable).flatten(1)[:, i].double()
        return total[:, None]


@dataclass(frozen=True)
class Hutchinson(Divergence):
    """Products with random probes, averaged.

    Attributes:
        probes: how many, a reverse pass each.
        kind: one of `KINDS`.

    Raises:
        ValueError: no probe, or an unknown kind.

    Source:
        Hutchinson, Commun. Stat. 19 (1990) 433; Grathwohl et al., FFJORD, ICLR 2019.
    """

    probes: int = 1
    kind: str = "rademacher"

    def __post_init__(self) -> None:
        if self.probes < 1 or self.kind not in KINDS:
            raise ValueError(f"Hutchinson expects at least one probe of kind {' or '.join(KINDS)}; got {self.probes} of '{self.kind}'.")

    def draw(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        normal = torch.randn(self.probes, *x.shape, generator=generator, dtype=torch.float64).to(x)
        return normal if self.kind == "gaussian" else torch.where(normal < 0, -1.0, 1.0).to(x)

    def __call__(self, x: Tensor, v: Tensor, probes: Tensor, differentiable: bool) -> Tensor:
        return torch.stack([_inner(z, _pulled(x, v, z, differentiable)) for z in probes], dim=1)


@dataclass(frozen=True)
class HutchPlusPlus(Divergence):
    """The trace where the Jacobian acts most, and Hutchinson's estimate of the rest.

    Attributes:
        budget: reverse passes, in thirds.

    Raises:
        ValueError: a budget below 3.

    Source:
        Meyer, Musco, Musco & Woodruff, Hutch++: optimal stochastic trace estimation, SOSA 2021, arXiv:2010.09649.
    """

    budget: int = 30

    def __post_init__(self) -> None:
        if self.budget < 3:
            raise ValueError(f"Hutch++ expects a budget of at least 3 reverse passes; got {self.budget}.")

    def draw(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        third = min(self.budget // 3, x[0].numel())
        return Hutchinson(2 * third).draw(x, generator)

    def __call__(self, x: Tensor, v: Tensor, probes: Tensor, differentiable: bool) -> Tensor:
        sketch, rest = probes.chunk(2)

        def pulled(w: Tensor) -> Tensor:
            """Of columns (B, n, k), each."""
            columns = [_pulled(x, v, c.reshape(x.shape), differentiable).flatten(1) for c in w.unbind(2)]
            return torch.stack(columns, dim=2)

        q = torch.linalg.qr(pulled(sketch.flatten(2).permute(1, 2, 0)))[0]
        g = rest.flatten(2).permute(1, 2, 0)
        g = g - q @ (q.mT @ g)
        trace = (q * pulled(q)).double().sum((1, 2)) + (g * pulled(g)).double().sum((1, 2)) / g.shape[2]
        return trace[:, None]


DIVERGENCES: dict[str, type[Divergence]] = {"exact": Exact, "hutchinson": Hutchinson, "hutch++": HutchPlusPlus}


def divergence_named(text: str) -> Divergence:
    """The divergence that a text names, `NAME` or `NAME:key=value,key=value`.

    Raises:
        ValueError: an unknown name or option, or a value out of its range.
    """
    name, _, rest = text.partition(":")
    kind = lookup("divergence", name, DIVERGENCES)
    known = {f.name: f.default for f in fields(kind)}  # type: ignore[arg-type]
    return kind(**options_from(f"divergence '{name}'", rest, known))


@dataclass(frozen=True)
class Likelihood:
    """Densities of some fields under a flow.

    Attributes:
        log_density: of the normalised fields at t = 1, in nats, (B,).
        x0: the other end of the trajectory: noise of fields, or fields of noise, (B, C, *N).
        standard_error: of the estimate of the divergence, (B,): 0 where it is exact, NaN where a single estimate does not tell.
        network_calls: evaluations of the velocity, of one batch each.
    """

    log_density: Tensor
    x0: Tensor
    standard_error: Tensor
    network_calls: int


def log_likelihood(
    velocity: Velocity,
    path: Path,
    source: Source,
    x1: Tensor,
    *,
    divergence: Divergence = Exact(),
    solver: str = "dopri5",
    steps: int = 100,
    tolerance: float = 1e-6,
    generator: torch.Generator | None = None,
    differentiable: bool = False,
) -> Likelihood:
    r"""Log-densities of fields under a flow, from their noise.

    Arguments:
        velocity: of the flow.
        path: its path.
        source: its source.
        x1: normalised fields, (B, C, *N).
        divergence: how the divergence is found.
        solver: torchdiffeq's name of a rule, adaptive or of fixed steps. Euler's is not enough: it errs by tenths of a nat.
        steps: of a rule of fixed steps.
        tolerance: of an adaptive rule, relative and absolute, on the trajectory.
        generator: of the probes.
        differentiable: whether the result has a graph, to parameters of the velocity and to x1.

    Raises:
        ValueError: fields of other channels or points than the source, or an unknown solver.

    Source:
        Chen et al., Neural ordinary differential equations, NeurIPS 2018; Grathwohl et al., FFJORD, ICLR 2019.
    """
    _expect_fields_of(source, x1)
    made = _transported(velocity, x1, 1.0, 0.0, divergence, solver, steps, tolerance, generator, differentiable)
    x0, gained, error, calls = made
    return Likelihood(_base(path, source, x0) + gained, x0, error, calls)


def sample_likelihood(
    velocity: Velocity,
    path: Path,
    source: Source,
    x0: Tensor,
    *,
    divergence: Divergence = Exact(),
    solver: str = "dopri5",
    steps: int = 100,
    tolerance: float = 1e-6,
    generator: torch.Generator | None = None,
    differentiable: bool = False,
) -> Likelihood:
    """Fields of draws x0 from the source, as `Likelihood.x0`, with their log-densities: weights of importance sampling need both.

    Arguments are those of `log_likelihood`.
    """
    _expect_fields_of(source, x0)
    start = path.start(x0)
    x1, gained, error, calls = _transported(velocity, start, 0.0, 1.0, divergence, solver, steps, tolerance, generator, differentiable)
    return Likelihood(_base(path, source, start) - gained, x1, error, calls)


def _expect_fields_of(source: Source, x: Tensor) -> None:
    expected = (source.channels, *source.grid.shape)
    if x.shape[1:] != expected:
        raise ValueError(
            f"a likelihood expects fields (B, C, *N) like those of the source, (B, {', '.join(map(str, expected))}); got {tuple(x.shape)}."
        )


def _transported(
    velocity: Velocity,
    x: Tensor,
    t: float,
    s: float,
    divergence: Divergence,
    solver: str,
    steps: int,
    tolerance: float,
    generator: torch.Generator | None,
    differentiable: bool,
) -> tuple[Tensor, Tensor, Tensor, int]:
    """The other end of trajectories, the integral of the divergence on the way, its standard error, and calls."""
    probes, calls = divergence.draw(x, generator), 0

    def rate(time: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        nonlocal calls
        calls += 1
        with torch.enable_grad():
            free = state if differentiable and state.requires_grad else state.detach().requires_grad_()
            v = velocity(free, time.to(free))
            found = divergence(free, v, probes, differentiable)
        return (v, found) if differentiable else (v.detach(), found.detach())

    with torch.set_grad_enabled(differentiable):
        end, integral = integrate(rate, x, t, s, solver, steps, tolerance)
    count = integral.shape[1]
    error = integral.std(1) / math.sqrt(count) if count > 1 else torch.full_like(integral[:, 0], math.nan if divergence.random else 0.0)
    return end, integral.mean(1), error.detach(), calls


def _base(path: Path, source: Source, x: Tensor) -> Tensor:
    """Log-density of states at t = 0."""
    scale = path.start(torch.ones((), dtype=torch.float64))
    return source.log_density(x / scale.to(x)) - x[0].numel() * float(scale.log())


def physical(log_density: Tensor, units: Units, points: int) -> Tensor:
    """Log-density of physical fields from that of normalised ones, with so many points a channel."""
    return log_density - points * float(units.scale.abs().log().sum())


def bits_per_dimension(log_density: Tensor, size: int, levels: int = 1) -> Tensor:
    r"""$-\log_2 p/n + \log_2 L$: bits a value of data in [0, 1] that were stored in L levels and dequantised uniformly; n values.

    Example:
        >>> bits_per_dimension(torch.zeros(1), 64, levels=256).item()
        8.0
    """
    return -log_density / (size * math.log(2)) + math.log2(levels)


def _pulled(x: Tensor, v: Tensor, w: Tensor, differentiable: bool) -> Tensor:
    """J' w, 0 where v does not depend on x."""
    (found,) = torch.autograd.grad(v, x, w, retain_graph=True, create_graph=differentiable, allow_unused=True)
    return torch.zeros_like(x) if found is None else found


def _inner(a: Tensor, b: Tensor) -> Tensor:
    return (a.flatten(1) * b.flatten(1)).double().sum(1)
