r"""Flows whose law is known in closed form, and what a sampler makes of them without the noise of sampling.

A sampler that is an affine map of the noise it draws takes a Gaussian to a Gaussian. `pushed` reads that map off a batch of unit draws,
so that mean and covariance of its samples are exact, whatever number of draws it takes on the way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pcfm.path import AffinePath
from pcfm.samplers import Sampler


@dataclass(frozen=True)
class Gaussian:
    """A normal distribution: mean (n,) and covariance (n, n)."""

    mean: Tensor
    covariance: Tensor

    def given(self, rows: Tensor, values: Tensor) -> Gaussian:
        """Conditioned on rows @ x = values, rows (m, n)."""
        cross = self.covariance @ rows.T
        gain = cross @ torch.linalg.pinv(rows @ cross)
        return Gaussian(self.mean + gain @ (values - rows @ self.mean), self.covariance - gain @ cross.T)


def root(covariance: Tensor) -> Tensor:
    """Symmetric square root of a positive semidefinite matrix."""
    values, vectors = torch.linalg.eigh((covariance + covariance.T) / 2)
    return (vectors * values.clamp_min(0).sqrt()) @ vectors.T


def wasserstein(a: Gaussian, b: Gaussian) -> float:
    r"""$W_2^2 = |m_a - m_b|^2 + \mathrm{tr}(S_a + S_b - 2 (S_a^{1/2} S_b S_a^{1/2})^{1/2})$, the square root of it."""
    half = root(a.covariance)
    spread = torch.trace(a.covariance + b.covariance - 2 * root(half @ b.covariance @ half))
    return float(((a.mean - b.mean).square().sum() + spread.clamp_min(0)).sqrt())


class GaussianOracle:
    r"""The exact velocity between $\mathcal N(0, I)$ and $\mathcal N(m, S)$, independently coupled, on fields (B, 1, n).

    $$v_t(x) = \dot\alpha m + (\alpha\dot\alpha S + \sigma\dot\sigma I)(\alpha^2 S + \sigma^2 I)^{-1}(x - \alpha m).$$

    Calls are counted.
    """

    def __init__(self, target: Gaussian, path: AffinePath | None = None) -> None:
        self.target, self.path, self.calls = target, path or AffinePath(), 0

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        self.calls += 1
        a, s, da, ds = self.path.schedule(t)
        mean, covariance = self.target.mean, self.target.covariance
        eye = torch.eye(len(mean), dtype=x.dtype)
        gain = (a * da * covariance + s * ds * eye) @ torch.linalg.inv(a**2 * covariance + s**2 * eye)
        return da * mean + (x - a * mean) @ gain.T

    def transport(self, x0: Tensor) -> Tensor:
        """Where the flow takes x0 at t = 1: all S_t commute, so it is the symmetric map."""
        return self.target.mean + x0 @ root(self.target.covariance)


def pushed(sampler: Callable[[Callable[[], Tensor]], Sampler], size: int, times: Tensor, draws: int = 0) -> Gaussian:
    """The distribution of the samples of an affine sampler from a standard Gaussian on fields (B, 1, size).

    Arguments:
        sampler: builds it, given where it gets fresh noise from.
        size: values of a field.
        times: of its steps.
        draws: how many draws of fresh noise it makes, at most.
    """
    units = torch.eye(size * (1 + draws), dtype=torch.float64).reshape(-1, 1 + draws, 1, size)
    inputs = torch.cat([torch.zeros_like(units[:1]), units])
    made = 0

    def noise() -> Tensor:
        nonlocal made
        made += 1
        return inputs[:, made]

    out = sampler(noise)(inputs[:, 0], times)[:, 0]
    assert made == draws, f"expected {draws} draws of noise; it made {made}"
    map_ = out[1:] - out[0]
    return Gaussian(out[0], map_.T @ map_)
