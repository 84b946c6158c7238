r"""Flow-matching posterior estimation: parameters $\theta$ from observations x, learnt from simulations alone.

A flow in the space of parameters, conditioned on the observation, is matched to pairs $(\theta, x)$ of prior and simulator; sampled at an
observed x it gives draws of $p(\theta|x)$, by the change of variables their density. The path does not depend on x; only the network sees
it. Times are drawn as $t = U^{1/(1+a)}$.

Names follow `sbi`: append_simulations, train, posterior.sample, log_prob, sample_batched.

Source:
    Wildberger et al., Flow matching for scalable simulation-based inference, NeurIPS 2023, arXiv:2305.17161; with
    their $\sigma_{\min}$ zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from constraints import Axis, Grid
from pcfm.likelihood import Exact, log_likelihood
from pcfm.networks import ResidualPerceptron
from pcfm.path import AffinePath
from pcfm.samplers.ode import integrate
from pcfm.source import WhiteNoise
from pcfm.velocity import Velocity

_BLOCK = 10_000
"""Draws that are integrated at once."""


class Coordinates(nn.Module):
    """Parameters in coordinates that a network learns well: standardised, and on the whole line where they have bounds.

    Arguments:
        theta: parameters of the training simulations, (N, d).
        bounds: ends of their support, (2, d), or None.
    """

    shift: Tensor
    scale: Tensor
    bounds: Tensor

    def __init__(self, theta: Tensor, bounds: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("bounds", torch.empty(0) if bounds is None else bounds.to(torch.float64))
        free = self._free(theta.to(torch.float64))
        self.register_buffer("shift", free.mean(0))
        self.register_buffer("scale", free.std(0).clamp_min(1e-12))

    def _free(self, theta: Tensor) -> Tensor:
        if not self.bounds.numel():
            return theta
        low, high = self.bounds
        return torch.logit((theta - low) / (high - low))

    def forward(self, theta: Tensor) -> Tensor:
        """To coordinates."""
        return (self._free(theta.to(torch.float64)) - self.shift) / self.scale

    def inverse(self, z: Tensor) -> Tensor:
        """Back."""
        free = self.shift + self.scale * z.to(torch.float64)
        if not self.bounds.numel():
            return free
        low, high = self.bounds
        return low + (high - low) * torch.sigmoid(free)

    def log_slope(self, theta: Tensor) -> Tensor:
        """Logarithm of the volume that the map to coordinates makes of a unit one, (N,)."""
        slope = -self.scale.log().sum().expand(len(theta))
        if self.bounds.numel():
            low, high = self.bounds
            share = (theta.to(torch.float64) - low) / (high - low)
            slope = slope - ((high - low) * share * (1 - share)).log().sum(1)
        return slope


class Importance(NamedTuple):
    """Draws with weights that make them exact.

    Attributes:
        theta: draws, (n, d).
        weights: summing to one, (n,).
        efficiency: effective number of draws over their number: one where the learnt posterior is exact.
        log_evidence: of the observation.
    """

    theta: Tensor
    weights: Tensor
    efficiency: float
    log_evidence: float


@dataclass
class Posterior:
    """A learnt posterior.

    Attributes:
        network: the velocity, (θ, t, x) in coordinates.
        theta: coordinates of parameters.
        x: coordinates of observations.
        prior: of the parameters, with sample and log_prob, or None.
        history: losses of the training.
    """

    network: nn.Module
    theta: Coordinates
    x: Coordinates
    prior: Any = None
    history: list[dict[str, float]] | None = None

    @property
    def size(self) -> int:
        """Number of parameters."""
        return len(self.theta.shift)

    def sample(self, shape: Sequence[int], x: Tensor, *, seed: int = 0, tolerance: float = 1e-5) -> Tensor:
        """Draws of the posterior at one observation, (*shape, d).

        Arguments:
            shape: of the draws.
            x: the observation, (k,) or (1, k).
            seed: of the noise.
            tolerance: of the integration.
        """
        return self.sample_batched(shape, self._one(x)[None], seed=seed, tolerance=tolerance)[..., 0, :]

    @torch.no_grad()
    def sample_batched(self, shape: Sequence[int], x: Tensor, *, seed: int = 0, tolerance: float = 1e-5) -> Tensor:
        """Draws at each of several observations (B, k), (*shape, B, d)."""
        x = self._observations(x)
        count = math.prod(shape)
        z = torch.randn(count * len(x), self.size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        given = self.x(x).repeat(count, 1)
        parts = []
        for first in range(0, len(z), _BLOCK):
            part, velocity = z[first : first + _BLOCK, None], self._velocity(given[first : first + _BLOCK])
            parts.append(self.theta.inverse(self._end(velocity, part, tolerance)[:, 0]))
        return torch.cat(parts).reshape(*shape, len(x), self.size)

    def log_prob(self, theta: Tensor, x: Tensor, *, tolerance: float = 1e-5) -> Tensor:
        """Log-density of parameters (n, d) at one observation, (n,), in their own units."""
        if theta.ndim != 2 or theta.shape[1] != self.size:
            raise ValueError(f"log_prob expects parameters (n, {self.size}); got {tuple(theta.shape)}.")
        given = self.x(self._one(x)[None]).expand(len(theta), -1)
        z = self.theta(theta)
        grid = Grid(Axis("parameter", self.size, periodic=True))
        found = []
        for first in range(0, len(z), _BLOCK):
            velocity = self._velocity(given[first : first + _BLOCK])
            part = log_likelihood(
                velocity, AffinePath(), WhiteNoise(grid, 1), z[first : first + _BLOCK, None], divergence=Exact(), tolerance=tolerance
            )
            found.append(part.log_density)
        inside = torch.isfinite(z).all(1)
        return torch.where(inside, torch.cat(found) + self.theta.log_slope(theta), -torch.inf)

    def importance_sample(self, log_likelihood: Callable[[Tensor, Tensor], Tensor], count: int, x: Tensor, *, seed: int = 0) -> Importance:
        r"""Draws weighed by $p(\theta)\,p(x|\theta)/q(\theta|x)$.

        Arguments:
            log_likelihood: $\log p(x|\theta)$ for parameters (n, d) and the observation, (n,).
            count: n.
            x: the observation.
            seed: of the draws.

        Raises:
            ValueError: there is no prior, or no draw has any weight.
        """
        if self.prior is None:
            raise ValueError("importance sampling expects a prior with log_prob: FMPE(prior=...).")
        theta = self.sample((count,), x, seed=seed)
        weights = _log_prior(self.prior, theta) + log_likelihood(theta, self._one(x)).to(torch.float64) - self.log_prob(theta, x)
        if not bool(torch.isfinite(weights).any()):
            raise ValueError("importance sampling expects draws within the prior's support; none of them is.")
        share = weights.softmax(0)
        evidence = torch.logsumexp(weights, 0) - math.log(count)
        return Importance(theta, share, float(1 / share.square().sum() / count), float(evidence))

    def leakage(self, x: Tensor, count: int = 2000, *, seed: int = 0) -> float:
        """Share of the draws beyond the prior's support; zero in coordinates that have its bounds."""
        if self.prior is None:
            raise ValueError("the leakage expects a prior with log_prob: FMPE(prior=...).")
        return float(torch.isinf(_log_prior(self.prior, self.sample((count,), x, seed=seed))).double().mean())

    @staticmethod
    def _end(velocity: Velocity, z: Tensor, tolerance: float) -> Tensor:
        """Where the flow takes noise."""
        return integrate(lambda t, u: (velocity(u, t), u.new_zeros(len(u), 1)), z, 0.0, 1.0, "dopri5", 100, tolerance)[0]

    def _velocity(self, given: Tensor) -> Velocity:
        """In coordinates, of states (n, 1, d)."""
        network = self.network.eval()
        kind = next(network.parameters()).dtype
        known = given.to(kind)

        def velocity(x: Tensor, t: Tensor) -> Tensor:
            out: Tensor = network(x[:, 0].to(kind), t.to(kind).expand(len(x)), known)
            return out[:, None].to(x)

        return velocity

    def _one(self, x: Tensor) -> Tensor:
        """One observation, (k,)."""
        flat = torch.as_tensor(x, dtype=torch.float64).reshape(-1)
        if len(flat) != len(self.x.shift):
            raise ValueError(
                f"the posterior expects one observation of {len(self.x.shift)} values; got shape {tuple(torch.as_tensor(x).shape)}."
            )
        return flat

    def _observations(self, x: Tensor) -> Tensor:
        if x.ndim != 2 or x.shape[1] != len(self.x.shift):
            raise ValueError(f"the posterior expects observations (B, {len(self.x.shift)}); got {tuple(x.shape)}.")
        return x.to(torch.float64)


class FMPE:
    """Flow-matching posterior estimation.

    Arguments:
        prior: with sample and log_prob, as torch's distributions; needed for leakage and importance sampling.
        bounds: ends of the prior's support, (2, d): parameters are then learnt on the whole line, and none leaks.
        width: features of the network.
        depth: its blocks.

    Example:
        >>> theta = torch.randn(500, 2)
        >>> x = theta + 0.1 * torch.randn(500, 2)
        >>> posterior = FMPE(width=16, depth=1).append_simulations(theta, x).train(steps=20)
        >>> posterior.sample((5,), torch.zeros(2)).shape
        torch.Size([5, 2])
    """

    def __init__(self, prior: Any = None, *, bounds: Tensor | None = None, width: int = 128, depth: int = 4) -> None:
        self.prior, self.bounds, self.width, self.depth = prior, bounds, width, depth
        self._theta: list[Tensor] = []
        self._x: list[Tensor] = []

    def append_simulations(self, theta: Tensor, x: Tensor) -> FMPE:
        """More pairs, (n, d) and (n, k).

        Raises:
            ValueError: shapes that do not fit, values that are not finite, or parameters beyond the bounds.
        """
        if theta.ndim != 2 or x.ndim != 2 or len(theta) != len(x):
            raise ValueError(f"FMPE expects parameters (n, d) and observations (n, k); got {tuple(theta.shape)} and {tuple(x.shape)}.")
        if not bool(torch.isfinite(theta).all() and torch.isfinite(x).all()):
            raise ValueError("FMPE expects finite simulations; some are NaN or infinite. Leave them out.")
        if self.bounds is not None and not bool(((theta > self.bounds[0]) & (theta < self.bounds[1])).all()):
            raise ValueError("FMPE expects parameters strictly within the given bounds; some are not.")
        self._theta.append(theta)
        self._x.append(x)
        return self

    def train(
        self,
        *,
        steps: int = 4000,
        batch: int = 256,
        learning_rate: float = 2e-3,
        exponent: float = 0.0,
        ema: float = 0.999,
        seed: int = 0,
        progress: Callable[[int, float], None] = lambda step, loss: None,
    ) -> Posterior:
        """Match the flow; a cosine decay of the rate to zero, averaged weights.

        Arguments:
            steps: optimiser steps.
            batch: pairs of each.
            learning_rate: the first one.
            exponent: a of the times, later ones more often where it is positive.
            ema: decay of the average of the weights.
            seed: of weights, noise and times.
            progress: called after each step with its loss.

        Raises:
            ValueError: no simulations, or a loss that is not finite.
        """
        if not self._theta:
            raise ValueError("FMPE expects simulations: append_simulations(theta, x) first.")
        if not exponent > -1:
            raise ValueError(f"FMPE expects an exponent above -1; got {exponent}.")
        theta, x = torch.cat(self._theta), torch.cat(self._x)
        to_theta, to_x = Coordinates(theta, self.bounds), Coordinates(x)
        z, given = to_theta(theta).float(), to_x(x).float()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network, average = (ResidualPerceptron(z.shape[1], given.shape[1], self.width, self.depth) for _ in range(2))
        average.load_state_dict(network.state_dict())
        optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate)
        generator = torch.Generator().manual_seed(seed + 1)
        history, path = [], AffinePath()
        for step in range(steps):
            chosen = torch.randint(0, len(z), (batch,), generator=generator)
            t = torch.rand(batch, generator=generator).pow(1 / (1 + exponent))
            noise = torch.randn(batch, z.shape[1], generator=generator)
            state, target = path.sample(noise, z[chosen], t)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate * 0.5 * (1 + math.cos(math.pi * step / steps))
            loss = (network(state, t, given[chosen]) - target).square().mean()
            if not torch.isfinite(loss):
                raise ValueError(f"training diverged: the loss of step {step + 1} is {loss.item()}. Lower learning_rate.")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            decay = min(ema, (1 + step) / (10 + step))
            with torch.no_grad():
                for mean, value in zip(average.parameters(), network.parameters(), strict=True):
                    mean.lerp_(value, 1 - decay)
            history.append({"step": step + 1, "loss": loss.item()})
            progress(step + 1, loss.item())
        return Posterior(average.eval(), to_theta, to_x, self.prior, history)


def _log_prior(prior: Any, theta: Tensor) -> Tensor:
    """Of parameters (n, d), -inf beyond the support."""
    kept = prior.log_prob(theta.float()) if not hasattr(prior, "support") else _within(prior, theta)
    flat: Tensor = kept.to(torch.float64)
    return flat.sum(1) if flat.ndim == 2 else flat


def _within(prior: Any, theta: Tensor) -> Tensor:
    """torch's distributions refuse values beyond their support: those have no density."""
    inside = prior.support.check(theta)
    inside = inside.all(1) if inside.ndim == 2 else inside
    safe = torch.where(inside[:, None], theta, theta[inside][:1] if bool(inside.any()) else theta)
    if not bool(inside.any()):
        return theta.new_full((len(theta),), -torch.inf)
    value = prior.log_prob(safe)
    value = value.sum(1) if value.ndim == 2 else value
    return torch.where(inside, value, -torch.inf)
