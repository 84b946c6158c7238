r"""Whether ensembles are as wide as they should be: scores and tests of predictive distributions.

An ensemble of m members $x_1, \dots, x_m$ predicts a truth y, point by point. Ensembles are (m, B, ...) and truths (B, ...), one ensemble
for each truth; or (m, 1, ...), one ensemble for all of them: that of unconditional samples, `u[:, None]` for fields (N, C, *N).

Where members and truth are exchangeable, the rank of y among them is uniform on 0, ..., m, whatever the distribution. All tests here
are of that, with the exact probabilities of finite ensembles.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pcfm.metrics.stream import stream


def crps(ensemble: Tensor, truth: Tensor, *, fair: bool = True) -> Tensor:
    r"""Continuous ranked probability score, $\int(F(z) - 1\{y\le z\})^2\,dz$, of ensembles,

    $$\frac1m\sum_i|x_i - y| - \frac{1}{2m(m - 1)}\sum_{i,j}|x_i - x_j|.$$

    This estimator is fair: its expectation is the score of the distribution the members are drawn from, so that ensembles of different
    size can be compared; it may be negative. With $m^2$ instead (`fair=False`) it is the score of the members' own step function, which is
    too large by $\mathrm E|X - X'|/2m$. Of a single number the score is the absolute error. For a normal ensemble of mean $\mu$ and
    standard deviation $\sigma$ it is $\sigma\,(z(2\Phi(z) - 1) + 2\varphi(z) - \pi^{-1/2})$ with $z = (y - \mu)/\sigma$.

    Arguments:
        ensemble: (m, B, ...), or (m, 1, ...) for all truths; at least two members if fair.
        truth: (B, ...).
        fair: correct for the size of the ensemble.

    Returns:
        Scores, (B, ...), in the unit of the truth; lower is better. Sorted members make it O(m log m), not O(m²).

    Raises:
        ValueError: shapes that do not fit, or too few members.

    Source:
        Gneiting & Raftery, JASA 102 (2007) 359, eq. 21; Ferro, Q. J. R. Meteorol. Soc. 140 (2014) 1917, for the fair one.
    """
    _check(ensemble, truth, "crps", 2 if fair else 1)
    m = len(ensemble)
    centre = ensemble.mean(0)
    x, y = _sorted(ensemble - centre), truth - centre
    order = 2 * torch.arange(1, m + 1, dtype=x.dtype, device=x.device) - m - 1
    pairs = (x @ order) / (m * (m - 1) if fair else m * m)
    if len(x) == len(y):
        return (x - y[..., None]).abs().mean(-1) - pairs
    below = _below(x[0], y, right=True)
    sums = torch.cat([torch.zeros_like(x[0, ..., :1]), x[0].cumsum(-1)], dim=-1)
    distance = y * (2 * below - m) + sums[..., -1] - 2 * sums.gather(-1, below.movedim(0, -1)).movedim(-1, 0)
    return distance / m - pairs


def ranks(ensemble: Tensor, truth: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """How many members lie below the truth, 0 to m; of members that equal it, a uniformly random number.

    Arguments:
        ensemble: (m, B, ...), or (m, 1, ...) for all truths.
        truth: (B, ...).
        generator: for ties, on the CPU; a fixed one by default.

    Returns:
        Ranks, (B, ...), whole numbers.

    Raises:
        ValueError: shapes that do not fit.

    Source:
        Hamill, Mon. Weather Rev. 129 (2001) 550.
    """
    _check(ensemble, truth, "ranks", 1)
    if len(ensemble[0]) == len(truth):
        below, upto = (ensemble < truth).sum(0), (ensemble <= truth).sum(0)
    else:
        x = _sorted(ensemble)[0]
        below, upto = _below(x, truth, right=False), _below(x, truth, right=True)
    generator = generator or stream()
    share = torch.rand(truth.shape, generator=generator, dtype=torch.float64).to(truth.device)
    return below + (share * (upto - below + 1)).long()


def rank_histogram(ranks: Tensor, members: int) -> Tensor:
    """How often each rank occurs, (members + 1,): flat where ensembles are right, a bowl where they are too narrow, a hill where too wide.

    Raises:
        ValueError: ranks beyond the number of members.
    """
    if int(ranks.min()) < 0 or int(ranks.max()) > members:
        raise ValueError(f"rank_histogram expects ranks between 0 and {members}; got {int(ranks.min())} to {int(ranks.max())}.")
    return torch.bincount(ranks.flatten(), minlength=members + 1)


class Flatness(NamedTuple):
    r"""Pearson's test of a flat histogram.

    Attributes:
        statistic: $\chi^2 = \sum_r(n_r - n/K)^2/(n/K)$ over K ranks.
        freedom: K - 1.
        p_value: probability of as large a value if ranks are uniform and independent.
    """

    statistic: float
    freedom: int
    p_value: float


def flatness(counts: Tensor) -> Flatness:
    r"""Pearson's $\chi^2$ test of a rank histogram.

    It holds for independent ranks: one point (or one functional) of each of many truths with an ensemble of its own. Neighbouring points
    of a field, and truths that share an ensemble, are dependent; then look at `coverage` and `pit` beside their value on two halves of
    the reference. Ten or more truths a rank make the $\chi^2$ distribution a good approximation.

    Arguments:
        counts: how often each rank occurs, (K,), at least two ranks.

    Raises:
        ValueError: fewer than two ranks, or no counts.

    Source:
        Pearson, Phil. Mag. 50 (1900) 157; Jolliffe & Primo, Mon. Weather Rev. 136 (2008) 2133, for rank histograms.
    """
    if counts.ndim != 1 or len(counts) < 2 or not bool(counts.sum() > 0):
        raise ValueError(f"flatness expects counts of at least two ranks, not all zero; got {tuple(counts.shape)}.")
    expected = counts.sum().to(torch.float64) / len(counts)
    statistic = ((counts - expected).square() / expected).sum()
    freedom = len(counts) - 1
    half = torch.tensor(freedom / 2, dtype=torch.float64)
    return Flatness(float(statistic), freedom, float(torch.special.gammaincc(half, statistic.cpu() / 2)))


def pit(ranks: Tensor, members: int, generator: torch.Generator | None = None) -> Tensor:
    r"""Probability integral transform of each truth, randomised: $(r + U)/(m + 1)$ with uniform U.

    Exactly uniform on [0, 1] where truth and members are exchangeable, also for small ensembles.

    Arguments:
        ranks: (B, ...).
        members: m.
        generator: on the CPU; a fixed one by default.

    Returns:
        Values in [0, 1], float64, of the shape of the ranks.

    Source:
        Dawid, J. R. Stat. Soc. A 147 (1984) 278; Czado, Gneiting & Held, Biometrics 65 (2009) 1254, for the randomised one.
    """
    generator = generator or stream(purpose=1)
    share = torch.rand(ranks.shape, generator=generator, dtype=torch.float64).to(ranks.device)
    return (ranks + share) / (members + 1)


def pit_deviation(ranks: Tensor, members: int) -> Tensor:
    r"""Largest deviation of the distribution of ranks from uniform, $\max_r|F_r - \frac{r + 1}{m + 1}|$, (): Kolmogorov's distance.

    0 where ranks are uniform, 1 - 1/(m + 1) at most. Without randomness: at the ranks, the distribution of the randomised `pit` has
    these values on average, and is linear in between.
    """
    counts = rank_histogram(ranks, members).to(torch.float64)
    share = torch.arange(1, members + 2, dtype=torch.float64, device=counts.device) / (members + 1)
    return (counts.cumsum(0) / counts.sum() - share).abs().max()


class Coverage(NamedTuple):
    """How often truths lie in central intervals.

    Attributes:
        nominal: exact probability of each interval if members and truth are exchangeable, (L,).
        covered: share of the truths in it, (L,).
    """

    nominal: Tensor
    covered: Tensor


def coverage(ranks: Tensor, members: int, levels: Sequence[float] = (0.5, 0.9)) -> Coverage:
    r"""How often truths lie in the central intervals of their ensembles.

    An interval between two order statistics, the j-th from below and from above, holds an exchangeable truth with probability
    $1 - 2j/(m + 1)$ exactly; j is chosen nearest to the level. Quantiles of a finite ensemble would cover less than they say.

    Arguments:
        ranks: of the truths, (B, ...).
        members: m, at least two.
        levels: wanted probabilities between 0 and 1.

    Returns:
        Probabilities and shares, both (L,), float64.

    Raises:
        ValueError: fewer than two members, or levels beyond 0 and 1.
    """
    wanted = torch.tensor(list(levels), dtype=torch.float64, device=ranks.device)
    if members < 2 or not bool(((wanted > 0) & (wanted < 1)).all()) or not len(wanted):
        raise ValueError(f"coverage expects at least two members and levels between 0 and 1; got {members} and {list(levels)}.")
    j = ((members + 1) * (1 - wanted) / 2).round().clamp(1, members // 2)
    flat = ranks.flatten()
    covered = torch.stack([((flat >= i) & (flat <= members - i)).to(torch.float64).mean() for i in j.long()])
    return Coverage(1 - 2 * j / (members + 1), covered)


def spread_skill(ensemble: Tensor, truth: Tensor) -> Tensor:
    r"""Spread of ensembles over the error of their mean,

    $$\Bigl(\frac{m + 1}{m}\,\frac{\operatorname{mean} s^2}{\operatorname{mean}(\bar x - y)^2}\Bigr)^{1/2},$$

    over all truths and points, with the unbiased variance $s^2$. One where members and truth are exchangeable; below one ensembles are too
    narrow, or biased.

    Arguments:
        ensemble: (m, B, ...), or (m, 1, ...) for all truths; at least two members.
        truth: (B, ...).

    Returns:
        A scalar, (), without unit.

    Raises:
        ValueError: shapes that do not fit, or fewer than two members.

    Source:
        Fortin et al., J. Hydrometeorol. 15 (2014) 1708.
    """
    _check(ensemble, truth, "spread_skill", 2)
    m = len(ensemble)
    return ((m + 1) / m * ensemble.var(0).mean() / (ensemble.mean(0) - truth).square().mean()).sqrt()


def _sorted(ensemble: Tensor) -> Tensor:
    """Members in order, (m, B, ...) to (B, ..., m): sorting runs along memory."""
    return ensemble.movedim(0, -1).contiguous().sort(-1).values


def _below(x: Tensor, y: Tensor, *, right: bool) -> Tensor:
    """How many of the sorted members (..., m) lie below truths (B, ...), those that are equal included if `right`: (B, ...)."""
    return torch.searchsorted(x, y.movedim(0, -1).contiguous(), right=right).movedim(-1, 0)


def _check(ensemble: Tensor, truth: Tensor, speaker: str, members: int) -> None:
    fits = ensemble.ndim == truth.ndim + 1 and ensemble.shape[2:] == truth.shape[1:] and ensemble.ndim > 1
    if not fits or ensemble.shape[1] not in (1, len(truth)):
        raise ValueError(
            f"{speaker} expects ensembles (m, B, ...), or (m, 1, ...), of truths (B, ...); got {tuple(ensemble.shape)} and "
            f"{tuple(truth.shape)}. One ensemble of fields for all truths is u[:, None]."
        )
    if len(ensemble) < members:
        raise ValueError(f"{speaker} expects at least {members} members; got {len(ensemble)}.")
