r"""Expected coverage of posteriors by random balls (TARP), with references that depend on the data.

For data y with truth $\theta$ and draws $\theta_1, \dots, \theta_L$ of a posterior, and a reference point r,

$$f = \frac1L\sum_i 1\{d(\theta_i, r) < d(\theta, r)\}$$

is uniform where the posterior is exact. A reference drawn without regard to y does not see everything: the prior itself passes. One that
is an estimate from y, moved to one side, $r(y) = \bar\theta(y) + \delta$, tells every posterior that is too wide, too narrow, off to a
side or the same for all data; without $\delta$ a bias goes unseen by symmetry.

Source:
    Lemos, Coogan, Hezaveh & Perreault-Levasseur, Sampling-based accuracy testing of posterior estimators, ICML 2023.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from scipy.stats import kstest
from torch import Tensor

from pcfm.metrics.calibration import pit


class Tarp(NamedTuple):
    """Coverage by random balls.

    Attributes:
        ranks: how many draws are nearer to the reference than the truth is, (B,).
        p_value: of the Kolmogorov-Smirnov test that the ranks are uniform.
    """

    ranks: Tensor
    p_value: float


def tarp(draws: Tensor, truth: Tensor, references: Tensor, *, generator: torch.Generator | None = None) -> Tarp:
    """Test draws against truths.

    Arguments:
        draws: of the posterior for each truth, (L, B, n).
        truth: (B, n).
        references: one for each, (B, n), which may depend on the data: an estimate moved by about the spread of the prior, say.
        generator: of the jitter that makes ranks continuous; not that of the data.

    Raises:
        ValueError: shapes that do not fit.
    """
    if draws.ndim != 3 or draws.shape[1:] != truth.shape or references.shape != truth.shape:
        raise ValueError(
            f"TARP expects draws (L, B, n), truths and references (B, n); got {tuple(draws.shape)}, {tuple(truth.shape)} and "
            f"{tuple(references.shape)}."
        )
    near = (draws - references).norm(dim=-1) < (truth - references).norm(dim=-1)
    ranks, size = near.sum(0), len(draws)
    positions = pit(ranks, size, generator)
    return Tarp(ranks, float(kstest(positions.cpu().numpy(), "uniform").pvalue))
