r"""The error of a finite number of steps, estimated by halving them on a few samples of the same noise.

For a rule of order p with steps h, $x_h = x + C h^p + \dots$, so that $x_h - x \approx \frac{2^p}{2^p - 1}(x_h - x_{h/2})$. Projection
on an active law follows with a lag of one step: the order is then 1, whatever the rule.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from constraints import Constraint
from pcfm.flow import Flow
from pcfm.generation import Samples, sample
from pcfm.methods import METHODS, SOLVERS, jumping, parse, usual_steps

_OF_THE_RULE = ("unconstrained", "project-end")
"""Methods whose order is that of their solver."""


@dataclass(frozen=True)
class DiscretisationError:
    """How far some samples are from those of infinitely many steps.

    Attributes:
        samples: how many were repeated.
        relative: root mean square of the error, in standard deviations of the data.
        channels: the same of each channel, in its unit.
        order: of the method, by which the difference is scaled.
        network_calls: what the estimate cost, evaluations of the network of one batch.
    """

    samples: int
    relative: float
    channels: tuple[float, ...]
    order: int
    network_calls: int

    def recommended(self, steps: int, tolerance: float) -> int:
        """Steps for a relative error below a tolerance, from the number that has this one: the error falls as their power p."""
        return max(1, math.ceil(steps * (self.relative / tolerance) ** (1 / self.order)))


def repeated(count: int) -> int:
    """How many of some samples are repeated unless told: one in sixteen, at most 4, so that the cost grows by an eighth at most."""
    return min(count // 16, 4)


def discretisation_error(
    flow: Flow, drawn: Samples, count: int, *, law: Constraint | None = None, condition: Tensor | None = None, **settings: Any
) -> DiscretisationError | None:
    """The error of the steps of some samples, from twice as many.

    Arguments:
        flow: what was sampled.
        drawn: the samples.
        count: how many of them, the first ones, to repeat.
        law: the law they were drawn under.
        condition: the network's condition for each.
        settings: the others of `pcfm.sample` by which they were drawn.

    Returns:
        None where it is not known: of methods that draw fresh noise, of adaptive solvers, which have a tolerance instead, of flow maps,
        whose jumps are as good as they have been learnt, and where all of these samples failed.

    Raises:
        ValueError: a number of samples that there are not.
    """
    if not 1 <= count <= len(drawn.u):
        raise ValueError(f"an estimate expects 1 to {len(drawn.u)} samples to repeat; got {count}.")
    method, solver = settings.get("method") or ("unconstrained" if law is None else "pcfm-consistent"), settings.get("solver")
    order = None if jumping(flow, method, solver) else _order(method, solver)
    if drawn.noise_draws or order is None:
        return None
    fine = sample(
        flow,
        count,
        law=None if law is None else law.take(slice(0, count)),
        condition=None if condition is None else condition[:count],
        **{**settings, "steps": 2 * (settings.get("steps") or usual_steps(flow, method, solver))},
    )
    sound = ~(fine.failed | drawn.failed[:count])
    if not sound.any():
        return None
    u, finer = drawn.u[:count][sound], fine.u[sound]
    factor = 2**order / (2**order - 1)
    dims = [d for d in range(u.ndim) if d != 1]
    per_channel = factor * (u - finer).square().mean(dims).sqrt()
    relative = factor * (flow.units.normalise(u) - flow.units.normalise(finer)).square().mean().sqrt()
    return DiscretisationError(int(sound.sum()), float(relative), tuple(per_channel.tolist()), order, fine.network_calls)


def _order(method: str, solver: str | None) -> int | None:
    name = parse(method)[0]
    return SOLVERS[solver or "euler"].order if name in _OF_THE_RULE else METHODS[name].order


def line(error: DiscretisationError) -> str:
    """The estimate in words."""
    return (
        f"error of the steps: {error.relative:.2g} standard deviations of the data "
        f"({error.samples} sample{'s' if error.samples > 1 else ''} repeated with half the step, {error.network_calls} network calls)"
    )
