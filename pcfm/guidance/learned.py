r"""Guidance by a network, learnt from pairs whose data weigh $w \propto e^{-J(x_1)}$.

With $u_t$ the velocity of a pair on its path and $v_t$ that of the flow, the guidance

$$g_t(x) = \frac{\mathrm E[w\,u_t\,|\,x_t = x]}{\mathrm E[w\,|\,x_t = x]} - v_t(x)$$

is the minimiser of two regressions,

$$\mathrm E\,w\,\|g_t - (u_t - v_t)\|^2\quad\text{(reweighted)},\qquad
\mathrm E\,\Big\|g_t - \frac w{Z_t}(u_t - v_t)\Big\|^2\quad\text{(matched)},$$

the second with $Z_t(x) = \mathrm E[w|x_t = x]$, learnt beside it: $f = \log Z_t$ minimises $\mathrm E[e^f - w f]$. What an inexact
$v_t$ lacks is learnt too: $v_t + g_t$ is the velocity of the tilted flow. Sampling takes one more network call a step, no derivative and
no energy.

Source:
    Feng et al., On the guidance of flow matching, ICML 2025, arXiv:2502.02150, section 3.4. Deviations: their matched target holds $u_t$
    where ours holds $u_t - v_t$, of the same mean and less variance, and they regress $Z_t$ by squares.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pcfm.guidance.energy import Energy
from pcfm.guidance.guidance import Estimate, Guidance
from pcfm.path import Path
from pcfm.source import Source
from pcfm.velocity import NetworkVelocity, Velocity

OBJECTIVES = ("reweighted", "matched")


@dataclass(frozen=True)
class LearnedGuidance(Guidance):
    """What a network has learnt to add, from weighed pairs.

    Attributes:
        network: $g_\\phi$, of states and times as a velocity.

    Source:
        Feng et al., ICML 2025, arXiv:2502.02150, $g_\\phi$.
    """

    network: Velocity

    @torch.no_grad()
    def __call__(self, at: Estimate) -> Tensor:
        return self.network(at.x, at.t)


class Example(NamedTuple):
    """What the regressions see of a batch.

    Attributes:
        x_t: states, (B, C, *N).
        t: their times, (B,).
        missing: $u_t - v_t$.
        weight: w, (B,).
    """

    x_t: Tensor
    t: Tensor
    missing: Tensor
    weight: Tensor


def example(velocity: Velocity, path: Path, x0: Tensor, x1: Tensor, t: Tensor, weight: Tensor) -> Example:
    """States of pairs at times t, (B,), and what the velocity lacks there of theirs."""
    x_t, u = path.sample(x0, x1, t)
    with torch.no_grad():
        return Example(x_t, t, u - velocity(x_t, t), weight)


def reweighted_loss(guidance: Callable[[Tensor, Tensor], Tensor], seen: Example) -> Tensor:
    """$w\\,\\|g - (u - v)\\|^2$ for each sample, (B,), the square a mean over values."""
    return seen.weight * _square(guidance(seen.x_t, seen.t) - seen.missing)


def normaliser_loss(log_normaliser: Callable[[Tensor, Tensor], Tensor], seen: Example) -> Tensor:
    """$e^f - w f$ for each sample, (B,), of f(x, t), (B,); least at $f = \\log\\mathrm E[w|x]$."""
    f = log_normaliser(seen.x_t, seen.t)
    return f.exp() - seen.weight * f


def matched_loss(guidance: Callable[[Tensor, Tensor], Tensor], log_normaliser: Callable[[Tensor, Tensor], Tensor], seen: Example) -> Tensor:
    """$\\|g - (w/Z)(u - v)\\|^2$ for each sample, (B,); no gradient goes to Z."""
    with torch.no_grad():
        share = seen.weight / log_normaliser(seen.x_t, seen.t).exp()
    target = share.reshape(-1, *(1,) * (seen.x_t.ndim - 1)) * seen.missing
    return _square(guidance(seen.x_t, seen.t) - target)


def tilts(energy: Energy, data: Tensor, block: int = 4096) -> Tensor:
    """$e^{-J}$ of some data, (N,), in units of its mean.

    Raises:
        ValueError: energies that are not finite.
    """
    energies = torch.cat([energy(data[first : first + block]) for first in range(0, len(data), block)])
    if not bool(torch.isfinite(energies).all()):
        raise ValueError("learned guidance expects finite energies of all data; some are NaN or infinite. Leave these data out.")
    return energies.negative().softmax(0) * len(data)


def learn_guidance(
    network: nn.Module,
    velocity: Velocity,
    path: Path,
    data: Tensor,
    energy: Energy,
    *,
    source: Source | None = None,
    objective: str = "reweighted",
    steps: int = 4000,
    batch: int = 256,
    learning_rate: float = 2e-3,
    ema: float = 0.999,
    seed: int = 0,
    progress: Callable[[int, float], None] = lambda step, loss: None,
) -> LearnedGuidance:
    """Fit a network to the guidance of an energy: Adam with a cosine decay of its rate, weights averaged.

    Arguments:
        network: module of states (B, C, *N) and times (B,), whose weights are trained and whose average is returned; for "matched" a
            copy of it learns log Z as the mean of its output.
        velocity: of the trained flow.
        path: its path.
        data: draws of the data, normalised, (N, C, *N).
        energy: J.
        source: the flow's source where it is not white noise.
        objective: one of `OBJECTIVES`; reweighted learns nothing where tilted data are rare, matched has more variance there.
        steps: optimiser steps.
        batch: pairs of each.
        learning_rate: the first one.
        ema: decay of the average of the weights, approached as (1 + i)/(10 + i).
        seed: of pairs and times.
        progress: called after each step with its loss.

    Raises:
        ValueError: an unknown objective, energies or a loss that are not finite.
    """
    if objective not in OBJECTIVES:
        raise ValueError(f"learned guidance expects an objective among {', '.join(OBJECTIVES)}; got '{objective}'.")
    weights, kind = tilts(energy, data), next(network.parameters()).dtype
    average, normaliser = copy.deepcopy(network), copy.deepcopy(network)

    def log_normaliser(x: Tensor, t: Tensor) -> Tensor:
        return normaliser(x, t).flatten(1).mean(1)

    matched = objective == "matched"
    optimizer = torch.optim.Adam([*network.parameters(), *(normaliser.parameters() if matched else ())], lr=learning_rate)
    generator = torch.Generator().manual_seed(seed)
    for step in range(steps):
        chosen = torch.randint(0, len(data), (batch,), generator=generator)
        white = torch.randn(batch, *data.shape[1:], generator=generator, dtype=torch.float64).to(data)
        t = torch.rand(batch, generator=generator, dtype=torch.float64).to(data)
        drawn = example(velocity, path, white if source is None else source.colour(white), data[chosen], t, weights[chosen])
        seen = Example(*(part.to(kind) for part in drawn))
        loss = (
            matched_loss(network, log_normaliser, seen) + normaliser_loss(log_normaliser, seen)
            if matched
            else reweighted_loss(network, seen)
        )
        mean = loss.mean()
        if not torch.isfinite(mean):
            raise ValueError(f"learning the guidance diverged: the loss of step {step + 1} is {mean.item()}. Lower learning_rate.")
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * 0.5 * (1 + math.cos(math.pi * step / steps))
        optimizer.zero_grad(set_to_none=True)
        mean.backward()
        optimizer.step()
        decay = min(ema, (1 + step) / (10 + step))
        with torch.no_grad():
            for kept, value in zip(average.parameters(), network.parameters(), strict=True):
                kept.lerp_(value, 1 - decay)
        progress(step + 1, mean.item())
    return LearnedGuidance(NetworkVelocity(average.eval()))


def _square(x: Tensor) -> Tensor:
    return x.square().flatten(1).mean(1)
