r"""How far down a metric can tell, and how sure a value is.

A metric of two finite sets of one distribution is not zero. Its value between two halves of the reference, over random halves, is its
noise floor: differences below cannot be told from the luck of the draw. Bootstrap intervals say how much a value owes to which samples
happened to be drawn, intervals over seeds how much to all that a seed decides.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pcfm.metrics.stream import stream

Metric = Callable[[Tensor, Tensor], Tensor | float]
"""A number from fields and reference fields."""


class Floor(NamedTuple):
    """A metric between parts of the reference.

    Attributes:
        median: over the splits.
        low, high: smallest and largest.
        itself: the metric of the whole reference against itself.
        values: of each split, (S,).
    """

    median: float
    low: float
    high: float
    itself: float
    values: Tensor


def noise_floor(
    metric: Metric,
    reference: Tensor,
    *,
    splits: int = 16,
    sizes: tuple[int, int] | None = None,
    generator: torch.Generator | None = None,
) -> Floor:
    """A metric between two disjoint random parts of the reference.

    Halves have half the samples each: for metrics whose noise falls with the number of samples, the floor of sets as large as the
    reference is lower, by a factor 2 where it goes as 1/n (MMSE, energy distance), by √2 where as 1/√n. Give `sizes` to imitate those of
    a comparison.

    Arguments:
        metric: fields (n, ...) and reference (m, ...) to a number.
        reference: (M, ...), at least four samples.
        splits: number of random splits.
        sizes: samples in each part; halves by default.
        generator: on the CPU; a fixed one by default.

    Raises:
        ValueError: no split, or parts that do not fit into the reference.
    """
    first, second = sizes or (len(reference) // 2, len(reference) - len(reference) // 2)
    if splits < 1 or min(first, second) < 1 or first + second > len(reference) or len(reference) < 4:
        raise ValueError(
            f"noise_floor expects at least one split of at least four samples into parts that fit; got {splits} splits of "
            f"{len(reference)} samples into {first} and {second}."
        )
    values = []
    for chosen in random_halves(len(reference), splits, first + second, generator):
        chosen = chosen.to(reference.device)
        values.append(float(metric(reference[chosen[:first]], reference[chosen[first:]])))
    found = torch.tensor(values, dtype=torch.float64)
    return Floor(median(found), float(found.min()), float(found.max()), float(metric(reference, reference)), found)


def random_halves(count: int, splits: int, size: int, generator: torch.Generator | None = None) -> list[Tensor]:
    """Random choices of so many out of `count` samples, in random order."""
    generator = generator or stream()
    return [torch.randperm(count, generator=generator)[:size] for _ in range(splits)]


def median(values: Tensor) -> float:
    """The middle value, or the mean of both; NaN if any is."""
    return float(values.quantile(0.5)) if not bool(values.isnan().any()) else math.nan


class Interval(NamedTuple):
    """A value with its confidence interval.

    Attributes:
        value: the estimate.
        low, high: ends of the interval.
    """

    value: float
    low: float
    high: float


def seed_interval(values: Tensor | Sequence[float], confidence: float = 0.95) -> Interval:
    r"""Mean over seeds with Student's interval, $\bar x \pm t_{n-1}\,s/\sqrt n$.

    Exact for normal values; with three seeds the factor $t$ is 4.3, which is honest.

    Arguments:
        values: one for each seed, (n,), at least two.
        confidence: probability that the interval holds the true mean.

    Raises:
        ValueError: fewer than two values, or a confidence beyond 0 and 1.

    Source:
        Student, Biometrika 6 (1908) 1.

    Example:
        >>> [round(x, 3) for x in seed_interval([1.0, 2.0, 3.0])]
        [2.0, -0.484, 4.484]
    """
    from scipy.stats import t

    x = torch.as_tensor(values, dtype=torch.float64).flatten()
    if len(x) < 2 or not 0 < confidence < 1:
        raise ValueError(f"seed_interval expects at least two seeds and a confidence between 0 and 1; got {len(x)} and {confidence}.")
    half = float(t.ppf((1 + confidence) / 2, len(x) - 1)) * float(x.std()) / math.sqrt(len(x))
    return Interval(float(x.mean()), float(x.mean()) - half, float(x.mean()) + half)


def bootstrap(
    metric: Metric,
    u: Tensor,
    reference: Tensor,
    *,
    resamples: int = 200,
    confidence: float = 0.95,
    both: bool = False,
    generator: torch.Generator | None = None,
) -> Interval:
    r"""Bootstrap interval of a metric over the samples it is measured on, percentiles centred on the estimate.

    Samples are drawn with replacement, and the metric's quantiles $q$ over the draws $b$ give
    $[\hat m + q_{\alpha/2}(m_b - \bar m_b),\ \hat m + q_{1-\alpha/2}(m_b - \bar m_b)]$. Centred, because a drawn set holds samples twice:
    pairs of a sample with itself, which distances leave out of their estimate for good reason, come back in and shift every $m_b$.

    Arguments:
        metric: fields and reference to a number.
        u: fields, (N, ...), at least two.
        reference: reference, (M, ...).
        resamples: number of draws.
        confidence: probability of the interval.
        both: draw the reference too; it is held fixed by default, and the interval is that of the samples alone.
        generator: on the CPU; a fixed one by default.

    Raises:
        ValueError: fewer than two samples or draws, or a confidence beyond 0 and 1.

    Source:
        Efron & Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.
    """
    if len(u) < 2 or resamples < 2 or not 0 < confidence < 1:
        raise ValueError(
            f"bootstrap expects at least two samples and two resamples, and a confidence between 0 and 1; got {len(u)}, {resamples} and "
            f"{confidence}."
        )
    generator = generator or stream()
    values = []
    for _ in range(resamples):
        ours = torch.randint(len(u), (len(u),), generator=generator).to(u.device)
        theirs = torch.randint(len(reference), (len(reference),), generator=generator).to(reference.device) if both else slice(None)
        values.append(float(metric(u[ours], reference[theirs])))
    found = torch.tensor(values, dtype=torch.float64)
    tail = (1 - confidence) / 2
    centred = found - found.mean()
    value = float(metric(u, reference))
    return Interval(value, value + float(centred.quantile(tail)), value + float(centred.quantile(1 - tail)))
