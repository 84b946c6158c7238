"""Classifier-free guidance: extrapolation from an unconditional velocity through a conditional one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pcfm.path import broadcast
from pcfm.velocity import Velocity


@dataclass(frozen=True)
class ClassifierFree:
    r"""From an unconditional velocity through a conditional one, and beyond.

    $v = v^{\mathrm u} + w\,(v^{\mathrm c} - v^{\mathrm u})$: w = 0 is unconditional, w = 1 conditional, w > 1 goes beyond.

    Two network calls inside the interval, one outside, where the conditional velocity is all. For w other than 0 and 1 it samples no tilted
    distribution; between two Gaussian flows of standard deviations $s_c, s_u$ it scales by $s_c^w s_u^{1 - w}$.

    Attributes:
        conditional: velocity under the condition.
        unconditional: velocity without.
        weight: w.
        interval: flow times between which it guides.

    Source:
        Ho & Salimans, Classifier-free diffusion guidance, arXiv:2207.12598; Zheng et al., Guided flows, arXiv:2311.13443; Kynkäänniemi et
        al., NeurIPS 2024, arXiv:2404.07724 for the interval.
    """

    conditional: Velocity
    unconditional: Velocity
    weight: float
    interval: tuple[float, float] = (0.0, 1.0)

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        inside = (t >= self.interval[0]) & (t <= self.interval[1])
        if not bool(inside.any()):
            return self.conditional(x, t)
        conditional, unconditional = self.conditional(x, t), self.unconditional(x, t)
        guided = unconditional + self.weight * (conditional - unconditional)
        return torch.where(broadcast(inside, x), guided, conditional)
