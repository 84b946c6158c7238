r"""Nearest points of single convex sets, by closed forms and one-dimensional searches, with the multipliers that prove them nearest.

Each function solves $\min\tfrac12|x-u|^2$ over one set, for every vector along the last dimension at once, and returns $x$ with its
multipliers. These equations, with the set itself and the signs, are all of optimality and can be checked without another solver:

| set | stationarity | signs and complementarity |
|---|---|---|
| $x\ge0,\ \sum x=s$ | $x-u+\theta=\mu$ | $\mu\ge0,\ \mu x=0$ |
| $l\le x\le h,\ \sum w x=m$ | $x-u+\nu w=\mu$ | $\mu\ge0$ where $x=l$, $\le0$ where $x=h$, $0$ between |
| $\sum\lvert x\rvert\le r$ | $x-u+\theta\,g=0,\ g\in\partial\lvert x\rvert$ | $\theta\ge0,\ \theta(r-\sum\lvert x\rvert)=0$ |
| $x_i\le x_{i+1}$, metric $w$ | $w(x-u)=D^\top\nu$ | $\nu\ge0,\ \nu\,Dx=0$ |
| $\sum w x\log x\le H$ | $x-u+\tau w(1+\log x)=0$ | $\tau\ge0,\ \tau(H-\sum w x\log x)=0$ |
| prox of $\lambda\sum\lvert Dx\rvert$ | $x-u+D^\top s=0$ | $\lvert s\rvert\le\lambda,\ s\,Dx=\lambda\lvert Dx\rvert$ |

with $(Dx)_i=x_{i+1}-x_i$. Monotone vectors and total variation are one problem, a chain that pays $\alpha$ for a unit of fall and $\beta$
for a unit of rise, solved by its level sets. Where $c$ is the mean of a segment, the cells with $x>c$ minimise the cut

$$\sum_i w_i(c-u_i)\theta_i+\alpha\sum_i(\theta_i-\theta_{i+1})_++\beta\sum_i(\theta_{i+1}-\theta_i)_+,\qquad\theta\in\{0,1\}^n,$$

a recursion of clipped sums, $y_i=\mathrm{clip}(y_{i-1}+w_i(c-u_i),-\alpha,\beta)$, hence a parallel scan. If the best cut gains nothing,
$x=c$ on the segment; otherwise the segment splits, the price of its new edges moves into the data, and each part is a smaller chain.

Where the active sets do not change, automatic differentiation through these functions is the derivative of the projection.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

_STEPS = 200
"""Most steps of a one-dimensional search: above what bisection alone takes from the widest bracket, so that round-off ends it first."""

_OMEGA_STEPS = 6
"""Newton steps of the Wright omega function; five reach round-off from the worst start."""


class Thresholded(NamedTuple):
    """A nearest point and what was taken off its entries: x (..., n), threshold (...)."""

    x: Tensor
    threshold: Tensor


class BoxMean(NamedTuple):
    """A nearest point of a box with a given weighted mean: x (..., n), nu (...), converged (...), false where there is no such point."""

    x: Tensor
    nu: Tensor
    converged: Tensor


class TotalVariation(NamedTuple):
    """A point of less variation and its dual: x (..., n), s (..., n - 1)."""

    x: Tensor
    s: Tensor


class EntropyBall(NamedTuple):
    """A nearest point of bounded entropy: x (..., n), tau (...), infinite where the bound is at or below the least entropy."""

    x: Tensor
    tau: Tensor


def simplex(u: Tensor, total: float | Tensor) -> Thresholded:
    r"""Nearest point of $\{x\ge0,\ \sum x=s\}$: $x=(u-\theta)_+$, where $\theta$ follows from the largest entries, by sorting.

    Arguments:
        u: vectors, (..., n).
        total: s ≥ 0, a number or one for each vector, (...).

    Returns:
        x, and the threshold θ, the multiplier of the sum.

    Raises:
        ValueError: wrong shapes, or a negative total.

    Source:
        Held, Wolfe & Crowder, Mathematical Programming 6 (1974).
    """
    _check("simplex", u)
    total = _numbers("simplex", "total", total, u, least=0)
    top = u.amax(-1, keepdim=True)
    ordered = (u - top).sort(-1, descending=True).values
    rank = torch.arange(1, u.shape[-1] + 1, dtype=u.dtype, device=u.device)
    thresholds = (ordered.cumsum(-1) - total) / rank
    largest = (ordered > thresholds).sum(-1, keepdim=True).clamp_min(1)
    threshold = thresholds.gather(-1, largest - 1)
    return Thresholded((u - top - threshold).clamp_min(0), (threshold + top)[..., 0])


def l1_ball(u: Tensor, radius: float | Tensor) -> Thresholded:
    r"""Nearest point of $\{\sum\lvert x\rvert\le r\}$: soft thresholding, $x=\mathrm{sign}(u)(\lvert u\rvert-\theta)_+$.

    Arguments:
        u: vectors, (..., n).
        radius: r ≥ 0, a number or one for each vector, (...).

    Returns:
        x, and the threshold θ ≥ 0, zero inside the ball.

    Raises:
        ValueError: wrong shapes, or a negative radius.

    Source:
        Duchi et al., ICML 2008.
    """
    _check("l1_ball", u)
    radius = _numbers("l1_ball", "radius", radius, u, least=0)
    x, threshold = simplex(u.abs(), radius[..., 0])
    inside = threshold <= 0
    return Thresholded(torch.where(inside[..., None], u, x * u.sign()), threshold.clamp_min(0))


def box_mean(u: Tensor, weights: Tensor, mean: float | Tensor, lower: float | Tensor, upper: float | Tensor) -> BoxMean:
    r"""Nearest point of $\{l\le x\le h,\ \sum w x=m\}$: $x=\mathrm{clip}(u-\nu w,l,h)$, where $\nu$ is a root in one dimension.

    $\sum w x$ falls piecewise linearly in $\nu$, and is linear beyond its outermost kinks, which gives the bracket. The round-off left by
    the search is taken off the cells inside their bounds. Clipping and then shifting is not this projection.

    Arguments:
        u: vectors, (..., n).
        weights: w of any sign, broadcastable to u.
        mean: m, a number or one for each vector, (...).
        lower: l, broadcastable to u; -inf for none.
        upper: h, broadcastable to u; inf for none.

    Returns:
        x, the multiplier ν of the mean, and whether m was reached; out of reach, x is at the end of the box nearest to it.

    Raises:
        ValueError: wrong shapes, or a lower bound above its upper one.
    """
    _check("box_mean", u)
    w, m = _cells("box_mean", "weights", weights, u), _numbers("box_mean", "mean", mean, u)
    low, high = _cells("box_mean", "lower", lower, u), _cells("box_mean", "upper", upper, u)
    if (low > high).any():
        raise ValueError("box_mean expects lower <= upper; got bounds that cross.")
    near, far = (torch.where(w == 0, 0, torch.where(w > 0, *ends)) for ends in ((low, high), (high, low)))
    target = torch.minimum(torch.maximum(m, _sum(w * near)), _sum(w * far))

    def point(nu: Tensor) -> tuple[Tensor, Tensor]:
        x = _clip(u - nu * w, low, high)
        return x, (x > low) & (x < high)

    def excess(nu: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, inside = point(nu)
        return _sum(w * x) - target, -_sum(w.square() * inside), _round_off(_sum((w * x).abs()) + target.abs())

    nu = _falling_root(excess, *_bracket(u, w, near, far, lambda nu: excess(nu)[0]))
    value, slope, zero = excess(nu)
    x, inside = point(nu)
    last = _newton(value, slope)
    x = torch.where(inside, _clip(x + last * w, low, high), x)
    return BoxMean(x, (nu - last)[..., 0], ((_sum(w * x) - m).abs() <= 16 * zero)[..., 0])


def isotonic(u: Tensor, weights: Tensor | None = None, decreasing: bool = False) -> Tensor:
    r"""Nearest monotone vector, $\min\tfrac12\sum w(x-u)^2$ over $x_1\le\dots\le x_n$: means of pooled neighbours.

    Exact up to round-off, by level sets of all segments of all vectors at once: few passes of O(n log n), whose number grows with the
    logarithms of n and of the range of the data, where pooling violators in turn may take n.

    Arguments:
        u: vectors, (..., n).
        weights: the metric w > 0, broadcastable to u; equal by default.
        decreasing: ask for x₁ ≥ … ≥ xₙ instead.

    Returns:
        x, (..., n); its multipliers are those of `isotonic_multiplier`.

    Raises:
        ValueError: wrong shapes, or a weight that is not positive.

    Source:
        Best & Chakravarti, Mathematical Programming 47 (1990), for the problem; Hochbaum, Journal of the ACM 48 (2001), for level sets.
    """
    _check("isotonic", u)
    w = _positive("isotonic", 1.0 if weights is None else weights, u)
    free, forbidden = u.new_zeros((*u.shape[:-1], 1)), u.new_full((*u.shape[:-1], 1), math.inf)
    level, centre = _chain(-u if decreasing else u, w, forbidden, free)
    x = (level + centre).cummax(-1).values
    return -x if decreasing else x


def isotonic_multiplier(u: Tensor, x: Tensor, weights: Tensor | None = None, decreasing: bool = False) -> Tensor:
    r"""Multipliers of $x_i\le x_{i+1}$ (or $\ge$) at a nearest monotone vector: $\nu_i=\sum_{j\le i}w_j(u_j-x_j)$ (or minus that).

    Arguments:
        u: vectors, (..., n).
        x: what `isotonic` made of them.
        weights: the metric it was given.
        decreasing: the direction it was given.

    Returns:
        ν, (..., n - 1), one for each pair of neighbours. The sum over all n cells, left out, must vanish too.

    Raises:
        ValueError: wrong shapes.
    """
    _check("isotonic_multiplier", u)
    w = _positive("isotonic_multiplier", 1.0 if weights is None else weights, u)
    pull = w * (u - _cells("isotonic_multiplier", "x", x, u))
    return (-pull if decreasing else pull).cumsum(-1)[..., :-1]


def total_variation_prox(u: Tensor, strength: float | Tensor) -> TotalVariation:
    r"""$\arg\min\tfrac12|x-u|^2+\lambda\sum_i\lvert x_{i+1}-x_i\rvert$ on an open line: the taut string, by level sets.

    Exact up to round-off and batched, at the cost of `isotonic`. Keeps the sum of u.

    Arguments:
        u: vectors, (..., n).
        strength: λ ≥ 0, a number or one for each vector, (...).

    Returns:
        x, and the dual s with |s| ≤ λ and x = u - Dᵀ s.

    Raises:
        ValueError: wrong shapes, or a negative strength.

    Source:
        Chambolle & Darbon, International Journal of Computer Vision 84 (2009), for level sets; Condat, IEEE Signal Processing Letters 20
        (2013), for the sequential algorithm.
    """
    _check("total_variation_prox", u)
    strength = _numbers("total_variation_prox", "strength", strength, u, least=0)
    level, centre = _chain(u, torch.ones_like(u), strength, strength)
    s = (level - (u - centre)).cumsum(-1)[..., :-1]
    return TotalVariation(level + centre, _clip(s, -strength, strength))


def entropy_ball(u: Tensor, weights: Tensor, bound: float | Tensor) -> EntropyBall:
    r"""Nearest point of $\{x\ge0,\ \sum w x\log x\le H\}$.

    Where the bound acts, $x+k(1+\log x)=u$ with $k=\tau w$, so $x=k\,\omega(u/k-1-\log k)$ with the Wright omega function,
    $\omega+\log\omega=z$: a Newton iteration in $\log x$ for each cell, inside a search for $\log\tau$. Where the bound does not act,
    $\tau=0$ and $x=u_+$. A cell far below zero, $u<-700\,k$ in float64, is too small for a full float: its logarithm is lost.

    Arguments:
        u: vectors, (..., n).
        weights: w > 0, broadcastable to u.
        bound: H, a number or one for each vector, (...).

    Returns:
        x, and the multiplier τ ≥ 0 of the bound. No point lies below -Σ w / e: there τ is infinite and x = 1/e, the point of least entropy.

    Raises:
        ValueError: wrong shapes, or a weight that is not positive.

    Source:
        Corless & Jeffrey, Artificial Intelligence, Automated Reasoning, and Symbolic Computation (2002), for the omega function.
    """
    _check("entropy_ball", u)
    w, bound = _positive("entropy_ball", weights, u), _numbers("entropy_ball", "bound", bound, u)

    clipped = u.clamp_min(0)
    inside = _sum(torch.special.xlogy(w * clipped, clipped)) <= bound
    beyond = bound <= -_sum(w) / math.e

    def point(log_tau: Tensor) -> tuple[Tensor, Tensor]:
        log_k = log_tau + w.log()
        return log_k + _log_omega(u / log_k.exp() - 1 - log_k), log_k.exp()

    def excess(log_tau: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        log_x, k = point(log_tau)
        x = log_x.exp()
        terms = w * x * log_x
        value = torch.where(inside | beyond, 0, _sum(terms) - bound)
        return value, -_sum(w * k * (1 + log_x).square() * x / (x + k)), _round_off(_sum(terms.abs()) + bound.abs())

    size, eps = u.abs().amax(-1, keepdim=True).clamp_min(1).log(), math.log(torch.finfo(u.dtype).eps)
    log_tau = _falling_root(excess, size + 3 * eps - w.amax(-1, keepdim=True).log(), size - eps - w.amin(-1, keepdim=True).log())
    log_tau = log_tau - _newton(*excess(log_tau)[:2])
    x = torch.where(inside, clipped, torch.where(beyond, 1 / math.e, point(log_tau)[0].exp()))
    return EntropyBall(x, torch.where(inside, 0, torch.where(beyond, math.inf, log_tau.exp()))[..., 0])


@torch.no_grad()
def _falling_root(function: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]], low: Tensor, high: Tensor) -> Tensor:
    """Roots of falling functions in brackets: Newton's steps while they stay inside and halve, bisection otherwise.

    The function gives value, slope and the value that counts as zero; a root ends there or where its step is round-off.
    """
    t, length = (low + high) / 2, high - low
    done = torch.zeros_like(t, dtype=torch.bool)
    for _ in range(_STEPS):
        value, slope, zero = function(t)
        done = done | (value.abs() <= zero)
        if done.all():
            break
        low, high = torch.where(value > 0, t, low), torch.where(value < 0, t, high)
        newton = t - value / slope
        trusted = (newton >= low) & (newton <= high) & ((newton - t).abs() <= length / 2)
        step = torch.where(trusted, newton, (low + high) / 2) - t
        t, length = torch.where(done, t, t + step), step.abs()
        done = done | (length <= torch.finfo(t.dtype).eps * t.abs())
    return t


def _newton(value: Tensor, slope: Tensor) -> Tensor:
    """What Newton's last step takes off a root: round-off in value, and the derivative of the root, which the search does not carry."""
    falls = slope < 0
    return torch.where(falls, value / torch.where(falls, slope, -1), 0)


@torch.no_grad()
def _bracket(u: Tensor, w: Tensor, near: Tensor, far: Tensor, excess: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Where the root of a box's mean lies: between its outermost kinks, or beyond them where cells without a bound go on moving.

    Cells end at `near` as ν rises and at `far` as it falls. Twice the last linear piece, so that its root lies inside.
    """
    kinks = torch.cat([(u - far) / w, (u - near) / w], -1)
    none = ~kinks.isfinite()
    first, last = kinks.masked_fill(none, math.inf).amin(-1, keepdim=True), kinks.masked_fill(none, -math.inf).amax(-1, keepdim=True)
    first, last = (torch.where(kink.isfinite(), kink, 0) for kink in (first, last))
    before, after = (_sum(w.square() * (w * end).isinf()) for end in (far, near))
    first = first + torch.where(before > 0, 2 * excess(first).clamp_max(0) / before, 0)
    return first, last + torch.where(after > 0, 2 * excess(last).clamp_min(0) / after, 0)


def _log_omega(z: Tensor) -> Tensor:
    """log ω(z), the root v of v + exp v = z: the starts z and log z lie above it, from where Newton's method descends."""
    v = torch.minimum(z, z.clamp_min(1).log())
    for _ in range(_OMEGA_STEPS):
        e = v.exp()
        v = v - (v + e - z) / (1 + e)
    return v


def _chain(u: Tensor, w: Tensor, fall: Tensor, rise: Tensor) -> tuple[Tensor, Tensor]:
    """argmin ½ Σ w (x - u)² + fall Σ (x_i - x_{i+1})₊ + rise Σ (x_{i+1} - x_i)₊, prices (..., 1), by level sets (module docstring).

    Given as x less the mean of u, and that mean, so that a large mean costs the duals no digits.
    """
    centre = _sum(w * u) / _sum(w)
    pull = w * (u - centre)
    first = torch.zeros_like(u, dtype=torch.bool)
    first[..., 0] = True
    while True:
        segment = first.cumsum(-1) - 1
        level = _totals(pull, segment) / _totals(w, segment)
        excess = pull - w * level
        above = _upper_set(excess, first, fall, rise)
        following = torch.where(_last(first), above, above.roll(-1, -1))
        up, down = following & ~above, above & ~following
        gain = _totals(excess * above - torch.where(up, rise, 0) - torch.where(down, fall, 0), segment)
        worth = gain > _round_off(_totals(pull.abs(), segment))
        up, down = up & worth, down & worth
        if not (up | down).any():
            return level, centre
        force = torch.where(up, rise, 0) - torch.where(down, fall, 0)
        pull = pull + force - _previous(force)
        first = first | _previous(up | down)


def _upper_set(excess: Tensor, first: Tensor, fall: Tensor, rise: Tensor) -> Tensor:
    """The cells of each segment above its level: the best cut, by a scan of clipped sums and a choice from the far end.

    The maps y ↦ clip(y + a, l, h) are closed under composition, so that doubling the reach of each composes them all.
    """
    shift, start = -excess, _clip(-excess, -fall, rise)
    low, high = torch.where(first, start, -fall), torch.where(first, start, rise)
    reach, n = 1, excess.shape[-1]
    while reach < n:
        a, floor, ceiling = shift[..., reach:], low[..., reach:], high[..., reach:]
        lower, upper = (_clip(bound[..., :-reach] + a, floor, ceiling) for bound in (low, high))
        shift = torch.cat([shift[..., :reach], shift[..., :-reach] + a], -1)
        low, high = torch.cat([low[..., :reach], lower], -1), torch.cat([high[..., :reach], upper], -1)
        reach *= 2
    cost = torch.where(first, 0, _previous(low)) - excess
    last = _last(first)
    chosen = torch.where(last, cost < 0, cost < -fall)
    position = torch.arange(n, device=excess.device)
    decided = torch.where(last | (cost >= rise) | (cost < -fall), position, n - 1)
    return chosen.gather(-1, decided.flip(-1).cummin(-1).values.flip(-1))


def _last(first: Tensor) -> Tensor:
    """The last cell of each segment, from the first ones: the first cell of all stands for the end."""
    return first.roll(-1, -1)


def _previous(values: Tensor) -> Tensor:
    """At each cell the value of the one before it, zero at the first."""
    return torch.cat([torch.zeros_like(values[..., :1]), values[..., :-1]], -1)


def _totals(values: Tensor, segment: Tensor) -> Tensor:
    """Sums over segments, at each of their cells."""
    return torch.zeros_like(values).scatter_add(-1, segment, values).gather(-1, segment)


def _sum(values: Tensor) -> Tensor:
    return values.sum(-1, keepdim=True)


def _clip(values: Tensor, low: Tensor, high: Tensor) -> Tensor:
    return torch.minimum(torch.maximum(values, low), high)


def _round_off(size: Tensor) -> Tensor:
    """What counts as zero in a sum whose terms add up to a size in absolute value."""
    return 4 * torch.finfo(size.dtype).eps * size


def _check(name: str, u: Tensor) -> None:
    if u.ndim == 0 or u.shape[-1] == 0 or not u.is_floating_point():
        raise ValueError(f"{name} expects real vectors along the last dimension, (..., n); got {u.dtype} of shape {tuple(u.shape)}.")


def _numbers(name: str, what: str, value: float | Tensor, u: Tensor, least: float = -math.inf) -> Tensor:
    """One number a vector, (..., 1)."""
    value = torch.as_tensor(value, dtype=u.dtype, device=u.device)
    if (value < least).any():
        raise ValueError(f"{name} expects {what} >= {least}; got {value.min().item():g}.")
    try:
        return value.expand(u.shape[:-1])[..., None]
    except RuntimeError:
        shapes = f"{tuple(u.shape[:-1])} for vectors {tuple(u.shape)}; got {tuple(value.shape)}"
        raise ValueError(f"{name} expects {what} to be a number or one a vector, {shapes}.") from None


def _cells(name: str, what: str, value: float | Tensor, u: Tensor) -> Tensor:
    """One number a cell, (..., n)."""
    value = torch.as_tensor(value, dtype=u.dtype, device=u.device)
    try:
        return value.expand(u.shape)
    except RuntimeError:
        raise ValueError(f"{name} expects {what} to broadcast to vectors {tuple(u.shape)}; got {tuple(value.shape)}.") from None


def _positive(name: str, weights: float | Tensor, u: Tensor) -> Tensor:
    w = _cells(name, "weights", weights, u)
    if not (w > 0).all():
        raise ValueError(f"{name} expects weights > 0; got {w.min().item():g}.")
    return w
