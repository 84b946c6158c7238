r"""Diffusion models as flows, and flows as diffusion models.

A diffusion model knows states $x = a\,x_1 + s\,\varepsilon$ of any noise level; on the straight path, $x_t = t\,x_1 + (1-t)\,\varepsilon$,
the state of the same ratio of signal to noise has

$$t = \frac{a}{a+s},\qquad \lambda = \log\frac as = \log\frac t{1-t},\qquad x_t = \frac{x}{a+s},$$

so that a network that predicts $\varepsilon$, $x_1$ or the mixture $v = a\,\varepsilon - s\,x_1$ gives the velocity $x_1 - \varepsilon$
without any training. Between the levels of a table the index is interpolated in $\lambda$, and a and s come from $\lambda$ itself.

Outside the levels that the network has seen its prediction at the nearest one is kept: $x_1$ below, $\varepsilon$ above.

Source:
    Schusterbauer et al., Diff2Flow: training flow matching models via diffusion model alignment, CVPR 2025; Karras et al., Elucidating the
    design space of diffusion-based generative models, NeurIPS 2022. Deviations from the code of the former: its tables of times have one
    entry more than those of the network's index, which costs up to 8 % of the velocity; ours are aligned.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pcfm.path import broadcast
from pcfm.velocity import Velocity

PREDICTIONS = ("noise", "data", "v")
"""What a network predicts: $\\varepsilon$, $x_1$, or $a\\,\\varepsilon - s\\,x_1$."""


class NoiseLevels(ABC):
    """The noise levels that a diffusion model has been trained at.

    Attributes:
        first: flow time of the noisiest level.
        last: flow time of the cleanest level.
    """

    first: float
    last: float

    @abstractmethod
    def scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """a and s of the state that the network expects at flow times between `first` and `last`."""

    @abstractmethod
    def label(self, t: Tensor) -> Tensor:
        """What the network is told of the level at these times."""

    @abstractmethod
    def times(self, steps: int) -> Tensor:
        """Flow times from 0 to 1, (steps + 1,), spaced as the levels are."""


class DiscreteLevels(NoiseLevels):
    r"""A table of variance-preserving levels, $a_k = \sqrt{\bar\alpha_k}$, $s_k = \sqrt{1-\bar\alpha_k}$, from clean to noisy.

    Arguments:
        alphas_cumprod: $\bar\alpha_k$, (K,), decreasing; the last may be 0, pure noise.
        nearest: whether the network takes whole indices only; else it takes any real one.

    Raises:
        ValueError: a table that is not decreasing within [0, 1).

    Example:
        >>> levels = DiscreteLevels.linear(1000)
        >>> [round(t, 4) for t in (levels.first, levels.last)]
        [0.0063, 0.9901]
    """

    def __init__(self, alphas_cumprod: Tensor | Sequence[float], *, nearest: bool = False) -> None:
        table = torch.as_tensor(alphas_cumprod, dtype=torch.float64)
        if table.ndim != 1 or len(table) < 2 or not bool((table.diff() < 0).all()) or not (table[-1] >= 0 and table[0] < 1):
            raise ValueError(
                f"DiscreteLevels expects at least two decreasing values of alphas_cumprod, (K,), below 1 and not below 0; "
                f"got {_shown(table)}."
            )
        self.nearest = nearest
        root, rest = table.sqrt(), (1 - table).sqrt()
        self.table = root / (root + rest)  # flow time of each level
        self.first, self.last = float(self.table[-1]), float(self.table[0])

    @classmethod
    def from_betas(cls, betas: Tensor | Sequence[float], *, nearest: bool = False) -> DiscreteLevels:
        r"""$\bar\alpha_k = \prod_{j\le k}(1-\beta_j)$."""
        return cls(torch.cumprod(1 - torch.as_tensor(betas, dtype=torch.float64), 0), nearest=nearest)

    @classmethod
    def linear(cls, count: int = 1000, begin: float = 1e-4, end: float = 0.02, *, nearest: bool = False) -> DiscreteLevels:
        """Betas in equal steps (Ho et al., NeurIPS 2020)."""
        return cls.from_betas(torch.linspace(begin, end, count, dtype=torch.float64), nearest=nearest)

    @classmethod
    def scaled_linear(cls, count: int = 1000, begin: float = 0.00085, end: float = 0.012, *, nearest: bool = False) -> DiscreteLevels:
        """Roots of betas in equal steps (Rombach et al., CVPR 2022)."""
        return cls.from_betas(torch.linspace(begin**0.5, end**0.5, count, dtype=torch.float64).square(), nearest=nearest)

    @classmethod
    def cosine(cls, count: int = 1000, offset: float = 0.008, *, nearest: bool = False) -> DiscreteLevels:
        """Squared cosines of equal steps, betas at most 0.999 (Nichol & Dhariwal, ICML 2021)."""
        angle = (torch.arange(count + 1, dtype=torch.float64) / count + offset) / (1 + offset) * math.pi / 2
        bar = angle.cos().square()
        return cls.from_betas((1 - bar[1:] / bar[:-1]).clamp_max(0.999), nearest=nearest)

    def scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        size = torch.hypot(t, 1 - t)  # a : s = t : 1 - t, a² + s² = 1
        return t / size, (1 - t) / size

    def label(self, t: Tensor) -> Tensor:
        """The index, linear in the logarithm of the signal-to-noise ratio between two levels; in t next to pure noise."""
        table = self.table.to(t)
        above = torch.searchsorted(table.flip(0), t.contiguous()).clamp(1, len(table) - 1)
        low = len(table) - above  # the noisier neighbour of t; the other is low - 1
        noisy, clean = table[low], table[low - 1]
        share = (torch.logit(clean) - torch.logit(t)) / (torch.logit(clean) - torch.logit(noisy))
        index = low - 1 + torch.where(noisy > 0, share, (clean - t) / (clean - noisy))
        return index.round() if self.nearest else index

    def time(self, index: Tensor) -> Tensor:
        """The flow time of an index, the inverse of `label`."""
        table = self.table.to(index)
        low = index.floor().long().clamp(0, len(table) - 2)
        clean, noisy, share = table[low], table[low + 1], index - low
        between = torch.sigmoid(torch.lerp(torch.logit(clean), torch.logit(noisy.clamp_min(1e-300)), share))
        return torch.where(noisy > 0, between, torch.lerp(clean, noisy, share))

    def times(self, steps: int) -> Tensor:
        chosen = torch.linspace(len(self.table) - 1, 0, max(steps, 1), dtype=torch.float64).round().long()
        return _whole(self.table[chosen[1:]])


class ContinuousLevels(NoiseLevels):
    r"""Levels of any $\sigma$ between two, of states $x = x_1 + \sigma\,\varepsilon$ ("variance exploding"): $t = 1/(1+\sigma)$.

    Arguments:
        least: the smallest $\sigma$.
        most: the largest.
        rho: exponent of the spacing of levels.

    Raises:
        ValueError: levels out of order.

    Source:
        Karras et al., NeurIPS 2022, table 1.
    """

    def __init__(self, least: float = 0.002, most: float = 80.0, rho: float = 7.0) -> None:
        if not 0 < least < most < math.inf or not rho > 0:
            raise ValueError(f"ContinuousLevels expects 0 < least < most and a positive rho; got {least}, {most}, {rho}.")
        self.least, self.most, self.rho = least, most, rho
        self.first, self.last = 1 / (1 + most), 1 / (1 + least)

    def scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones_like(t), (1 - t) / t

    def label(self, t: Tensor) -> Tensor:
        """$\\sigma$."""
        return (1 - t) / t

    def times(self, steps: int) -> Tensor:
        share = torch.linspace(0, 1, max(steps, 1), dtype=torch.float64)
        sigma = (self.most ** (1 / self.rho) + share * (self.least ** (1 / self.rho) - self.most ** (1 / self.rho))) ** self.rho
        return _whole(1 / (1 + sigma[1:]))


class DiffusionVelocity(nn.Module):
    r"""A trained diffusion model as the velocity network of a flow on the straight path: module(x, t), to be the network of a `Flow`.

    Arguments:
        network: module of a state (B, C, *N) and a label of its level, (B,).
        levels: what it has been trained at.
        prediction: one of `PREDICTIONS`.

    Raises:
        ValueError: an unknown prediction, or noise predicted of pure noise, of which nothing follows for $x_1$.

    Example:
        >>> flow_network = DiffusionVelocity(lambda x, k: x, DiscreteLevels.linear(), prediction="v")
        >>> flow_network(torch.ones(2, 1, 4), torch.tensor(0.5)).shape
        torch.Size([2, 1, 4])
    """

    def __init__(self, network: Any, levels: NoiseLevels, prediction: str = "noise") -> None:
        super().__init__()
        if prediction not in PREDICTIONS:
            raise ValueError(f"DiffusionVelocity expects a prediction among {', '.join(PREDICTIONS)}; got '{prediction}'.")
        if prediction == "noise" and levels.first == 0:
            raise ValueError(
                "the levels begin at pure noise, where a prediction of the noise does not tell the data. "
                "Use a model that predicts v or data, or leave the last level out of the table."
            )
        self.network, self.levels, self.prediction = network, levels, prediction

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        exact = t.to(torch.float64).expand(len(x))
        level = exact.clamp(self.levels.first, self.levels.last)
        # Outside the levels what is known exactly is kept: the noise below the first, the data above the last.
        below, above = exact < self.levels.first, exact > self.levels.last
        moved = torch.where(below, (1 - level) / (1 - exact), torch.where(above, level / exact, torch.ones_like(exact)))
        state = broadcast(moved, x).to(x) * x
        data, noise = self.predicted(state, level)
        now = broadcast(exact, x).to(x)
        outside = torch.where(broadcast(below, x), (data - x) / (1 - now).clamp_min(1e-12), (x - noise) / now.clamp_min(1e-12))
        return torch.where(broadcast(below | above, x), outside, data - noise)

    def predicted(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        r"""$x_1$ and $\varepsilon$ that the network sees in states of the straight path at times (B,) of its levels."""
        a, s = (broadcast(k, x).to(x) for k in self.levels.scales(t))
        state = (a + s) * x
        out = self.network(state, self.levels.label(t).to(x))
        out = out.sample if hasattr(out, "sample") and not isinstance(out, Tensor) else out
        if self.prediction == "noise":
            return (state - s * out) / a, out
        if self.prediction == "data":
            return out, (state - a * out) / s
        square = a.square() + s.square()
        return (a * state - s * out) / square, (s * state + a * out) / square


class FlowAsDiffusion:
    r"""A flow on the straight path as a diffusion model that predicts noise, module(x, label) of variance-preserving states.

    Arguments:
        velocity: the flow's velocity.
        levels: the table that labels are indices of, whole or between.
    """

    def __init__(self, velocity: Velocity, levels: DiscreteLevels) -> None:
        self.velocity, self.levels = velocity, levels

    def __call__(self, x: Tensor, index: Tensor) -> Tensor:
        t = self.levels.time(index.to(x)).expand(len(x))
        a, s = (broadcast(k, x) for k in self.levels.scales(t))
        state = x / (a + s)
        return state - broadcast(t, x) * self.velocity(state, t)


def _whole(inner: Tensor) -> Tensor:
    """Times from 0 to 1 through inner ones."""
    return torch.cat([inner.new_zeros(1), inner, inner.new_ones(1)])


def _shown(table: Tensor) -> str:
    return f"shape {tuple(table.shape)}" + (f", from {float(table.max()):.4g} to {float(table.min()):.4g}" if table.numel() else "")
