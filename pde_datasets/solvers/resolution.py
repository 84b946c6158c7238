"""Whether points are close enough: the waves at the end of the spectrum must be small, or the fields are those of the grid."""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor

from constraints import Axis

VISIBLE = 2e-3
"""Amplitude of the shortest waves, relative to the largest one, from which on they are said to be missing behind the cut."""


class Unresolved(UserWarning):
    """Fields solve their equations at the points, which are too far apart to follow the equation between them."""


def warn_unresolved(u: Tensor, axis: Axis, speaker: str, share: float = 1.0) -> None:
    """Warns of fields whose shortest waves are not small.

    Arguments:
        u: fields whose last axis is this one.
        axis: a periodic axis.
        speaker: whom it concerns.
        share: of all wavenumbers, those the solver keeps, from 0 on.
    """
    amplitude = torch.fft.rfft(u).abs().flatten(0, -2)
    kept = math.ceil(share * axis.points / 2)
    shortest = amplitude[:, kept - max(kept // 10, 1) : kept].amax(1)
    worst = float((shortest / amplitude.amax(1).clamp_min(1e-300)).max())
    if worst > VISIBLE:
        warnings.warn(
            f"{speaker}: the shortest waves that {axis.points} points along {axis.name} hold have {worst:.1e} of the amplitude of the "
            f"largest ones, more than {VISIBLE:g}: the fields obey their laws at the points but do not follow the equation between them. "
            "Take more points, or smoother initial data.",
            Unresolved,
            stacklevel=3,
        )
