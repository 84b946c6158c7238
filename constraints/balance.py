r"""Balance laws: what a quantity changes by is what comes in.

$$M(t_{n+1}) - M(t_n) = \int_{t_n}^{t_{n+1}} q\,dt,\qquad M(t) = \int m(u)\,dV,$$

with the rate q, sources over the domain and fluxes through its ends, from the fields at one time. The integral over a step is

$$\Delta t\,\big((1 - \theta)\,q_n + \theta\,q_{n+1}\big) + e_n :$$

the trapezoid of the literature for $\theta = \frac12$; and what a scheme does itself for the scheme's own $\theta$ and fluxes, or, where
data hold only some of its steps, for what it summed up, $e_n$. Then its data obey to round-off. Rows are single steps: from the first
time on they add up to the balance of any time, and each touches two times only.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from constraints.constraint import Constraint, as_target, forget
from constraints.functional import Quadratic
from constraints.grid import Grid
from constraints.linear.derivative import hessian_product, pullback
from constraints.linear.map import LinearMap
from constraints.linear.stepping import TimeSteps
from constraints.units import Chart
from constraints.view import Seen, Sight, View

Rate = Callable[..., Tensor]
"""Fields (B, C, *N), and coefficients by name, to rates (B, T), or to a density (B, *N)."""


class Budget(Constraint):
    r"""$M_{n+1} - M_n = \Delta t_n((1-\theta) q_n + \theta q_{n+1}) + e_n$ for every pair of stored times.

    Arguments:
        grid: a grid with at least two times.
        rate: q, (B, C, *N) to (B, T), each time from the fields at that time: sources integrated over space, plus inflow, less outflow.
            Left out: zero. Several that add up, as a sequence, are measured one by one: what comes in is not taken for nothing where as
            much goes out. A `Quadratic` says what it depends on, and is solved fast.
        coefficients: of each sample's own, (B, ...), handed to every rate and to the density behind the fields by name; they are cut with
            the law, where those that a function has closed over cannot be.
        theta: $\theta$; 1/2 is the trapezoid, 0 an explicit step's own balance, 1 an implicit one's.
        received: e, a number, (T - 1,) or (B, T - 1): what came in besides.
        density: m, (B, C, *N) to (B, *N), or the factor of the component at each point, (*space); the component itself by default.
        component: channel that is balanced.
        channels: number of channels of the fields.
        name: what to call it.

    Raises:
        ValueError: fewer than two times, or a rate of another shape.

    Example:
        >>> from constraints import Axis, project
        >>> grid = Grid(Axis("time", 3, length=2.0), Axis("x", 4, periodic=True))
        >>> decay = Budget(grid, lambda u: -0.5 * u[:, 0].mean(-1), theta=0.0)
        >>> project(decay, torch.ones(1, 1, 3, 4, dtype=torch.float64)).converged.tolist()
        [True]
    """

    def __init__(
        self,
        grid: Grid,
        rate: Rate | Sequence[Rate] | None = None,
        *,
        theta: float = 0.5,
        received: float | Sequence[float] | Tensor = 0.0,
        density: Rate | Tensor | None = None,
        coefficients: Mapping[str, Tensor] | None = None,
        component: int = 0,
        channels: int | None = None,
        name: str = "budget",
    ) -> None:
        super().__init__()
        if not grid.has_time or grid.axes[0].points < 2:
            raise ValueError(f"Budget expects a grid with at least two times; got the axes {', '.join(grid.names)}.")
        total = component + 1 if channels is None else channels
        if not 0 <= component < total:
            raise ValueError(f"Budget expects a channel between 0 and {total - 1}; got {component}.")
        self.shape, self.component, self.theta = (total, *grid.shape), component, theta
        self.parts: tuple[Rate, ...] = () if rate is None else (rate,) if callable(rate) else tuple(rate)
        self._density, self.dims = None if isinstance(density, Tensor) else density, grid.space_dims
        factor = torch.ones(grid.shape[1:]) if not isinstance(density, Tensor) else density
        self.register_buffer("factor", factor.to(torch.float64).expand(grid.shape[1:]).clone())
        self.coefficients = dict(coefficients or {})
        counts = {name: len(values) if values.ndim else 0 for name, values in self.coefficients.items()}
        if len(set(counts.values())) > 1 or 0 in counts.values():
            raise ValueError(f"Budget expects coefficients of the same number of samples, (B, ...); got {counts}.")
        self.register_buffer("weights", grid.weights().expand(grid.shape).clone())
        self.register_buffer("gaps", torch.diff(grid.axes[0].positions()))
        self.register_buffer("target", as_target(received, grid.shape[0] - 1, "Budget"))
        self.name, self.unit = name, "unit of the quantity times volume"

    weights: Tensor
    factor: Tensor
    gaps: Tensor
    target: Tensor

    def contents(self, u: Tensor) -> Tensor:
        """M at each time, (B, T)."""
        return self._integral(u, lambda density: density)

    def _integral(self, u: Tensor, of: Callable[[Tensor], Tensor]) -> Tensor:
        """The integral over space of m, or of its size, at each time, whose weights are those of the first."""
        if self._density is None:
            return of(u[:, self.component]).flatten(2) @ (of(self.factor) * self.weights[0]).flatten().to(u)
        return of(self._density(u, **self._own(u))).flatten(2) @ self.weights[0].flatten().to(u)

    def _own(self, u: Tensor) -> dict[str, Tensor]:
        """The coefficients of these samples, or of the first of them."""
        return {name: values[: len(u)].to(u) for name, values in self.coefficients.items()}

    @property
    def samples(self) -> int:
        return max([super().samples, *(len(values) for values in self.coefficients.values())])

    def take(self, index: slice) -> Constraint:
        if self.samples == 1:
            return self
        part = copy.copy(self)
        own = self.target.ndim == 2 and len(self.target) > 1
        part._buffers = {**self._buffers, "target": self.target[index] if own else self.target}
        part.coefficients = {name: values if len(values) == 1 else values[index] for name, values in self.coefficients.items()}
        forget(part)
        return part

    def rates(self, u: Tensor) -> Tensor:
        """q at each time, (B, T)."""
        return sum(self._each(u), u.new_zeros(len(u), self.shape[1]))

    def _each(self, u: Tensor) -> list[Tensor]:
        """The rates that add up to q."""
        found, own = [], self._own(u)
        for part in self.parts:
            rate = part(u) if isinstance(part, Quadratic) else part(u, **own)
            if tuple(rate.shape) != (len(u), self.shape[1]):
                raise ValueError(
                    f"{self.name} expects a rate of shape ({len(u)}, {self.shape[1]}), one a time; it gave {tuple(rate.shape)}."
                )
            found.append(rate)
        return found

    def _received(self, rates: Tensor) -> Tensor:
        gaps = self.gaps.to(rates)
        return gaps * ((1 - self.theta) * rates[:, :-1] + self.theta * rates[:, 1:])

    def residual(self, u: Tensor) -> Tensor:
        return torch.diff(self.contents(u), dim=1) - self._received(self.rates(u)) - self.target.to(u)

    def scale(self, u: Tensor) -> Tensor:
        """The largest content, and what comes in and goes out."""
        content = self._integral(u, torch.abs).amax(1, keepdim=True)
        turnover = sum((rate.abs() for rate in self._each(u)), u.new_zeros(len(u), self.shape[1]))
        return content + self._received(turnover) + self.target.to(u).abs()

    def jacobian(self, u: Tensor) -> LinearMap:
        return self.linearise(u)[1]

    def linearise(self, u: Tensor) -> tuple[Tensor, LinearMap]:
        content, gaps = self._content_gradient(u), self.gaps.to(u)
        one = torch.ones_like(gaps)
        change = torch.diff(self.contents(u), dim=1) - self.target.to(u)
        if not self.parts:
            return change, TimeSteps([content], [one], [-one])
        rates, gradient = self._rates_with_gradient(u)
        steps = TimeSteps([content, gradient], [one, -self.theta * gaps], [-one, (self.theta - 1) * gaps])
        return change - self._received(rates), steps

    def _rates_with_gradient(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """q, (B, T), and its derivative with respect to the fields at its time, (B, C, *N)."""
        quadratic = [part for part in self.parts if isinstance(part, Quadratic)]
        if len(quadratic) < len(self.parts):
            rates, pull = pullback(self.rates, u)
            return rates, pull(torch.ones_like(rates))
        return self.rates(u), sum((part.gradient(u) for part in quadratic[1:]), quadratic[0].gradient(u))

    def _content_gradient(self, u: Tensor) -> Tensor:
        """The derivative of each time's content with respect to the fields at that time, (B or 1, C, *N)."""
        if self._density is None:
            fields = u.new_zeros(1, *self.shape)
            fields[:, self.component] = (self.factor * self.weights).to(u)
            return fields
        contents, pull = pullback(self.contents, u)
        return pull(torch.ones_like(contents))

    def curvature(self, u: Tensor, multiplier: Tensor, direction: Tensor) -> Tensor:
        """Each time's content and rate count with the multipliers of the steps before and behind it."""
        on_rate = self._on_rates(multiplier)
        total = torch.zeros_like(direction)
        if self.parts:
            quadratic = [part for part in self.parts if isinstance(part, Quadratic)]
            if len(quadratic) < len(self.parts):
                total = total + hessian_product(self.rates, u, on_rate, direction)
            else:
                by_time = on_rate.reshape(len(on_rate), 1, -1, *(1,) * (u.ndim - 3))
                total = total + by_time * sum((part.curvature(direction) for part in quadratic), torch.zeros_like(direction))
        if self._density is not None:
            zero = multiplier.new_zeros(len(multiplier), 1)
            on_content = torch.cat([zero, multiplier], dim=1) - torch.cat([multiplier, zero], dim=1)
            total = total + hessian_product(self.contents, u, on_content, direction)
        return total

    def _on_rates(self, multiplier: Tensor) -> Tensor:
        """What each time's rate counts with, (B, T)."""
        zero, weighted = multiplier.new_zeros(len(multiplier), 1), self.gaps.to(multiplier) * multiplier
        return -(self.theta * torch.cat([zero, weighted], dim=1) + (1 - self.theta) * torch.cat([weighted, zero], dim=1))

    def sight(self, chart: Chart | None = None) -> Sight | None:
        """Content and rates, where all are quadratic sums of one channel."""
        quadratic = [part for part in self.parts if isinstance(part, Quadratic)]
        if self._density is not None or len(quadratic) < len(self.parts) or self.shape[0] != 1:
            return None
        sums = [Quadratic((self.factor * self.weights[0])[None]), *quadratic]
        moments = sums if chart is None else [part.moved(chart) for part in sums]
        none = torch.zeros(self.shape[1], math.prod(self.shape[2:]), dtype=torch.bool, device=self.weights.device)
        return Sight(none, moments, lambda view: _SeenBudget(self, moments, view))


class _SeenBudget(Seen):
    """A budget in terms of what it sees."""

    def __init__(self, law: Budget, moments: Sequence[Quadratic], view: View) -> None:
        super().__init__()
        self.law = law
        self.content, *self.rates = (view.moment(moment) for moment in moments)

    def data(self, given: Tensor) -> None:
        for moment in (self.content, *self.rates):
            moment.data(given)

    def _rate(self, z: Tensor) -> Tensor:
        return sum((rate(z) for rate in self.rates), z.new_zeros(len(z), z.shape[2]))

    def residual(self, u: Tensor) -> Tensor:
        return torch.diff(self.content(u), dim=1) - self.law._received(self._rate(u)) - self.law.target.to(u)

    def scale(self, u: Tensor) -> Tensor:
        turnover = sum((rate.magnitude(u) for rate in self.rates), u.new_zeros(len(u), u.shape[2]))
        return self.content.magnitude(u).amax(1, keepdim=True) + self.law._received(turnover) + self.law.target.to(u).abs()

    def jacobian(self, u: Tensor) -> LinearMap:
        gaps, theta = self.law.gaps.to(u), self.law.theta
        one = torch.ones_like(gaps)
        if not self.rates:
            return TimeSteps([self.content.gradient(u)], [one], [-one])
        gradient = sum((rate.gradient(u) for rate in self.rates[1:]), self.rates[0].gradient(u))
        return TimeSteps([self.content.gradient(u), gradient], [one, -theta * gaps], [-one, (theta - 1) * gaps])

    def curvature(self, u: Tensor, multiplier: Tensor, direction: Tensor) -> Tensor:
        by_time = self.law._on_rates(multiplier)[:, None, :, None]
        return by_time * sum((rate.curvature(direction) for rate in self.rates), torch.zeros_like(direction))
