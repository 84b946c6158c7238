r"""Bands that hold the truth with a stated probability, whatever the model: split conformal prediction of fields.

Of n calibration pairs each has a score, here how far the truth is from the ensemble's mean in units of its spread,

$$s_i = \max_x \frac{|y_i(x) - \bar x_i(x)|}{\sigma_i(x)}\quad\text{or}\quad
s_i = \Big(\mathrm{mean}_x \frac{(y_i - \bar x_i)^2}{\sigma_i^2}\Big)^{1/2},$$

and with q their $\lceil(n+1)(1-\alpha)\rceil$-th smallest a new pair that is exchangeable with them has a score of at most q with
probability between $1-\alpha$ and $1-\alpha+1/(n+1)$: a band $\bar x\pm q\sigma$ around the whole field, or a ball.

Source:
    Vovk, Gammerman & Shafer, Algorithmic learning in a random world (2005); Diquigiovanni, Fontana & Vantini, J. Multivar. Anal. 189
    (2022) 104879, for bands of functions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

NORMS = ("max", "rms")
"""Bands around whole fields; balls in the mean square."""


@dataclass(frozen=True)
class Conformal:
    """A calibrated radius.

    Attributes:
        radius: q.
        norm: one of `NORMS`.
        floor: least spread that is divided by.
        nominal: coverage that is guaranteed, $\\lceil(n+1)(1-\\alpha)\\rceil/(n+1)$.
    """

    radius: float
    norm: str
    floor: float
    nominal: float

    def score(self, ensemble: Tensor, truth: Tensor) -> Tensor:
        """Distances of truths (B, ...) from ensembles (m, B, ...), in their spread, (B,)."""
        return _scores(ensemble, truth, self.norm, self.floor)

    def covers(self, ensemble: Tensor, truth: Tensor) -> Tensor:
        """Which truths are within their band or ball, (B,)."""
        return self.score(ensemble, truth) <= self.radius

    def band(self, ensemble: Tensor) -> tuple[Tensor, Tensor]:
        """Lower and upper end around ensembles (m, B, ...), (B, ...) each.

        Raises:
            ValueError: the radius is one of a ball.
        """
        if self.norm != "max":
            raise ValueError(f"a band expects a radius calibrated in the norm 'max'; this one is of '{self.norm}'.")
        mean, spread = ensemble.mean(0), ensemble.std(0).clamp_min(self.floor)
        return mean - self.radius * spread, mean + self.radius * spread


def conformal(ensemble: Tensor, truth: Tensor, *, level: float = 0.9, norm: str = "max", floor: float = 1e-12) -> Conformal:
    """Calibrate on pairs that were not trained on.

    Arguments:
        ensemble: (m, n, ...), at least two members for each of n calibration pairs.
        truth: (n, ...).
        level: coverage, $1-\\alpha$.
        norm: one of `NORMS`.
        floor: least spread that is divided by, in the unit of the fields.

    Raises:
        ValueError: shapes that do not fit, an unknown norm, or too few pairs for the level.
    """
    if norm not in NORMS or not 0 < level < 1 or not floor > 0:
        raise ValueError(
            f"conformal bands expect a norm among {', '.join(NORMS)}, a level in (0, 1), a positive floor; got '{norm}', {level}, {floor}."
        )
    if ensemble.ndim < 2 or ensemble.shape[1:] != truth.shape or len(ensemble) < 2:
        raise ValueError(
            f"conformal bands expect ensembles (m, n, ...) of two members or more and truths (n, ...); "
            f"got {tuple(ensemble.shape)} and {tuple(truth.shape)}."
        )
    n = len(truth)
    rank = math.ceil((n + 1) * level)
    if rank > n:
        raise ValueError(f"a level of {level} expects at least {math.ceil(level / (1 - level))} calibration pairs; got {n}.")
    scores = _scores(ensemble, truth, norm, floor)
    return Conformal(float(scores.sort().values[rank - 1]), norm, floor, rank / (n + 1))


def _scores(ensemble: Tensor, truth: Tensor, norm: str, floor: float) -> Tensor:
    distance = ((truth - ensemble.mean(0)).abs() / ensemble.std(0).clamp_min(floor)).flatten(1)
    return distance.amax(1) if norm == "max" else distance.square().mean(1).sqrt()
