r"""The map $\psi$ from noise to fields that a solver makes, and the gradient of energies of its end, $(\partial\psi/\partial x_0)^\top w$.

The gradient is that of the steps as they are taken, not of the differential equation behind them: exact to round-off, which line searches
and Metropolis ratios rely on. The reverse pass goes step by step and holds the graph of one step at a time. The states it starts from are
recomputed from every few that are kept: at most `KEPT` at each level, one level more for each power of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from pcfm.guidance import Energy
from pcfm.samplers.sampler import Sampler, expect_steps

KEPT = 32
"""States kept at each level. N steps take N - 1 further forward steps up to KEPT, and N more for each further power of it."""


@dataclass(frozen=True)
class Transport:
    """A solver over fixed times, from noise to fields.

    Attributes:
        base: an unconstrained sampler that carries nothing but its state.
        times: increasing flow times.
        start: the first state of a trajectory from some noise, a multiple of it.
    """

    base: Sampler
    times: Tensor
    start: Callable[[Tensor], Tensor] = lambda x0: x0

    def __post_init__(self) -> None:
        expect_steps(self.times)
        if self.base.memory is not None:
            raise ValueError(f"gradients through a solver expect one without memory; {type(self.base).__name__} has one. Use heun.")

    def __call__(self, x0: Tensor) -> Tensor:
        """Where the solver takes x0."""
        return self._run(self.start(x0), 0, len(self.times) - 1)

    def back(self, x1: Tensor) -> Tensor:
        """The noise that it takes to x1, up to its order: the same steps in reverse time."""
        for s, t in pairwise(self.times.flip(0)):
            x1 = self.base.step(x1, s, t, x1)
        return x1 / self.start(torch.ones_like(x1))

    def evaluate(self, x0: Tensor, energy: Energy) -> tuple[Tensor, Tensor, Tensor]:
        """Energies of the ends, (B,), their gradients with respect to x0, and the ends, (B, C, *N) each."""
        found: list[Tensor] = []

        def cotangent(x1: Tensor) -> Tensor:
            value, gradient = energy.evaluate(x1)
            found.extend((value, x1))
            return gradient

        gradient = self._back(self.start(x0.detach()), 0, len(self.times) - 1, cotangent)
        return found[0], self.start(gradient), found[1]

    def _run(self, x: Tensor, first: int, last: int) -> Tensor:
        with torch.no_grad():
            for t, s in pairwise(self.times[first : last + 1]):
                x = self.base.step(x, t, s, x)
        return x

    def _back(self, x: Tensor, first: int, last: int, cotangent: Callable[[Tensor], Tensor]) -> Tensor:
        """The cotangent at time `first`, where the state is x, of one at `last` that is a function of the state there."""
        if last - first == 1:
            with torch.enable_grad():
                state = x.detach().requires_grad_()
                end = self.base.step(state, self.times[first], self.times[last], state)
            (gradient,) = torch.autograd.grad(end, state, cotangent(end.detach()))
            return gradient
        pieces = min(KEPT, last - first)
        cuts = [first + (last - first) * i // pieces for i in range(pieces + 1)]
        states = [x]
        for a, b in pairwise(cuts[:-1]):
            states.append(self._run(states[-1], a, b))
        gradient = self._back(states.pop(), cuts[-2], last, cotangent)
        for a, b in reversed(list(pairwise(cuts[:-1]))):
            gradient = self._back(states.pop(), a, b, lambda _, known=gradient: known)  # type: ignore[misc]
        return gradient
