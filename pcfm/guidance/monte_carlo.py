r"""Guidance from draws of the data: the tilted mean as a ratio of sums."""

from __future__ import annotations

import torch
from torch import Tensor

from pcfm.guidance.guidance import Estimate, Guidance


class MonteCarlo(Guidance):
    r"""Means over draws of the data, with and without the weights of the energy.

    $g = b_t\sum_i (w^\star_i - w_i)\,x_1^i$ with $w_i \propto p_0\bigl((x - \alpha_t x_1^i)/\sigma_t\bigr)$ and
    $w^\star_i \propto w_i\,e^{-J(x_1^i)}$ over draws of the data, for a source of white noise.

    Exact in the limit of many draws, any data, any energy; the network is not asked. The weights are softmaxes of logarithms. Their
    effective number falls towards t = 1, and with the size of a field at every time: a method for few dimensions, or for a yardstick.

    Arguments:
        draws: draws of the data, (K, C, *N).
        energies: J of each, (K,).
        least: a sample is not guided where fewer draws than this are effective.

    Raises:
        ValueError: energies of another number than draws.

    Source:
        Feng et al., ICML 2025, $g^{\mathrm{MC}}$.
    """

    def __init__(self, draws: Tensor, energies: Tensor, least: float = 5.0) -> None:
        if energies.shape != draws.shape[:1]:
            raise ValueError(f"MonteCarlo expects an energy for each of {len(draws)} draws; got shape {tuple(energies.shape)}.")
        self.draws, self.energies, self.least = draws.to(torch.float64), energies.to(torch.float64), least

    def __call__(self, at: Estimate) -> Tensor:
        plain, tilted = self._weights(at)
        shift = ((tilted - plain) @ self.draws.flatten(1)).reshape(at.x.shape).to(at.x)
        trusted = _effective(tilted) >= self.least
        return at.towards(torch.where(trusted.reshape(-1, *(1,) * (at.x.ndim - 1)), shift, 0.0))

    def effective(self, at: Estimate) -> Tensor:
        """Effective number of draws behind the guidance of each sample, (B,)."""
        return _effective(self._weights(at)[1])

    def _weights(self, at: Estimate) -> tuple[Tensor, Tensor]:
        """Weights of the draws without and with the energy, (B, K) each."""
        signal, noise = (scale.to(torch.float64).reshape(-1, 1) for scale in at.scales[:2])
        state, draws = at.x.to(torch.float64).flatten(1), self.draws.flatten(1)
        squares = (signal * draws.square().sum(1) - 2 * state @ draws.T) * signal  # |x - αx₁|² but for |x|², which all draws share
        log = -squares / (2 * noise.square().clamp_min(torch.finfo(torch.float64).tiny))
        return log.softmax(1), (log - self.energies).softmax(1)


def _effective(weights: Tensor) -> Tensor:
    return 1 / weights.square().sum(1)
