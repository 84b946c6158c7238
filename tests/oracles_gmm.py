r"""Mixtures of Gaussians under any affine path: velocity, endpoint and likelihood tilts in closed form, on fields (B, 1, n).

With $P_k = \alpha^2 S_k + \sigma^2 I$, $z_k = P_k^{-1}(x - \alpha\mu_k)$ and responsibilities $r_k$ of $\mathcal N(\alpha\mu_k, P_k)$,
$\mathrm{E}[x_1|x] = \sum_k r_k(\mu_k + \alpha S_k z_k)$.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pcfm.path import AffinePath


@dataclass(frozen=True)
class Mixture:
    """Weights (K,), means (K, n), covariances (K, n, n)."""

    weights: Tensor
    means: Tensor
    covariances: Tensor

    def sample(self, count: int, seed: int) -> Tensor:
        """Independent draws, (count, 1, n)."""
        generator = torch.Generator().manual_seed(seed)
        normal = torch.randn(count, 1, self.means.shape[1], generator=generator, dtype=torch.float64)
        mode = torch.multinomial(self.weights, count, replacement=True, generator=generator)
        return self.means[mode, None] + normal @ torch.linalg.cholesky(self.covariances)[mode].mT

    def given(self, rows: Tensor, values: Tensor, variance: float) -> Mixture:
        """Tilted by exp(-|rows @ x - values|² / 2 variance): a Kalman update of each mode, weighed by its evidence."""
        weights, means, covariances = [], [], []
        for weight, mean, covariance in zip(self.weights, self.means, self.covariances, strict=True):
            evidence = torch.distributions.MultivariateNormal(
                rows @ mean, rows @ covariance @ rows.T + variance * torch.eye(len(rows), dtype=rows.dtype)
            )
            gain = covariance @ rows.T @ torch.linalg.inv(evidence.covariance_matrix)
            weights.append(weight.log() + evidence.log_prob(values))
            means.append(mean + gain @ (values - rows @ mean))
            covariances.append(covariance - gain @ rows @ covariance)
        return Mixture(torch.stack(weights).softmax(0), torch.stack(means), torch.stack(covariances))

    def responsibilities(self, x: Tensor) -> Tensor:
        """Share of each mode in points (B, 1, n), (B, K)."""
        return (self.weights.log() + _log_densities(x, self.means, self.covariances)).softmax(1)


class MixtureOracle:
    """The exact velocity between standard normals and a mixture, independently coupled."""

    def __init__(self, target: Mixture, path: AffinePath | None = None) -> None:
        self.target, self.path, self.calls = target, path or AffinePath(), 0

    def endpoint(self, x: Tensor, t: Tensor) -> Tensor:
        """E[x_1 | x_t = x]."""
        signal, noise = self.path.schedule(t)[:2]
        target = self.target
        spread = signal**2 * target.covariances + noise**2 * torch.eye(x.shape[-1], dtype=x.dtype)
        share = (target.weights.log() + _log_densities(x, signal * target.means, spread)).softmax(1)
        offset = x[:, 0, None] - signal * target.means
        each = target.means + signal * torch.einsum("kij,bkj->bki", target.covariances @ torch.linalg.inv(spread), offset)
        return (share[..., None] * each).sum(1, keepdim=True)

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        self.calls += 1
        signal, noise, signal_rate, noise_rate = self.path.schedule(t)
        endpoint = self.endpoint(x, t)
        return signal_rate * endpoint + noise_rate * (x - signal * endpoint) / noise


def _log_densities(x: Tensor, means: Tensor, covariances: Tensor) -> Tensor:
    """Of each mode at each point, (B, K), up to a constant."""
    offset = x[:, 0, None] - means
    square = torch.einsum("bki,kij,bkj->bk", offset, torch.linalg.inv(covariances), offset)
    return -(square + torch.logdet(covariances)) / 2
