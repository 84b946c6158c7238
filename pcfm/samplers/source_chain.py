r"""Markov chains in the source: the posterior $p_1^\star \propto p_1 e^{-J}$ as the image of $q(x_0) \propto p_0(x_0)\,e^{-J(\psi(x_0))}$.

The preconditioned Crank-Nicolson Langevin proposal leaves $\mathcal N(0, \Sigma)$, the source, alone where J is constant, so that its step
does not shrink as grids are refined, and $\Sigma^{-1}$ never appears:

$$(2 + h)\,y = (2 - h)\,x - 2h\,\Sigma\nabla\Phi(x) + \sqrt{8h}\,\xi,\qquad \Phi = J\circ\psi,\;\xi\sim\mathcal N(0, \Sigma),$$

accepted with probability $\min(1, e^{\rho(x, y) - \rho(y, x)})$,
$\rho(x, y) = \Phi(x) + \tfrac12\langle y - x, \nabla\Phi(x)\rangle + \tfrac h4\langle x + y, \nabla\Phi(x)\rangle
+ \tfrac h4\langle\nabla\Phi(x), \Sigma\nabla\Phi(x)\rangle$. Without gradients it is pCN.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from constraints import Constraint
from pcfm.guard import NOBODY, Watch
from pcfm.path import Path, broadcast
from pcfm.samplers.guided import energy_of
from pcfm.samplers.sampler import Projector, Sample, Sampler, ended
from pcfm.samplers.transport import Transport
from pcfm.source import Source


class Chain(NamedTuple):
    """Where chains ended: noise and field, (B, C, *N) each; the share of proposals accepted and the last step, (B,) each."""

    x0: Tensor
    x1: Tensor
    acceptance: Tensor
    step: Tensor


class _State(NamedTuple):
    """A point of each chain: noise, field, potential (B,), its gradient and the covariance applied to that, zero without gradients."""

    x0: Tensor
    x1: Tensor
    potential: Tensor
    gradient: Tensor
    preconditioned: Tensor


@dataclass(frozen=True)
class SourceChain(Sampler):
    """A Metropolis chain on the noise of each sample, pushed through the flow, then the nearest lawful field.

    Exact in the limit of long chains, for any flow and any law taken as observed with noise. Steps are tuned, chain by chain, in the first
    half of the moves.

    Attributes:
        base: the solver.
        constraint: the law, on normalised fields; noisy ones have their own likelihood.
        noise: fresh draws from the source.
        white: fresh standard normals.
        source: the flow's source.
        projector: counts the projections.
        moves: of each chain; each costs what an evaluation of `d-flow` does, or a run of the solver without `gradient`.
        length: h at the start.
        gradient: whether proposals follow the gradient.
        energy: "distance" or "residual", of exact laws.
        strength: of that energy: the inverse variance with which exact laws are taken as observed.
        final: whether a projection on the exact laws follows.
        path: the flow's path, where it scales the noise.

    Raises:
        ValueError: an option out of its range.

    Source:
        Cotter, Roberts, Stuart & White, MCMC methods for functions, Statistical Science 28 (2013) 424; in the source of a flow: Wang et
        al., Source-guided flow matching, arXiv:2508.14807.
    """

    lawful: ClassVar[bool] = True
    reference: ClassVar[str] = "Wang et al., arXiv:2508.14807"

    base: Sampler
    constraint: Constraint
    noise: Callable[[], Tensor]
    white: Callable[[tuple[int, ...]], Tensor]
    source: Source | None = None
    projector: Projector = field(default_factory=Projector)
    moves: int = 100
    length: float = 0.1
    gradient: bool = True
    energy: str = "distance"
    strength: float = 100.0
    final: bool = True
    path: Path | None = None

    def __post_init__(self) -> None:
        if self.moves < 0 or not 0 < self.length < 2:
            raise ValueError(f"a chain expects moves not to be negative and a length in (0, 2); got {self.moves} and {self.length}.")
        energy_of(self.constraint, self.energy, self.strength, self.projector)

    def step(self, x: Tensor, t: Tensor, s: Tensor, x0: Tensor) -> Tensor:
        return self.base.step(x, t, s, x0)

    def sample(self, x0: Tensor, times: Tensor, watch: Watch = NOBODY) -> Sample:
        """The field where a chain from x0 ends."""
        return ended(self.projector, self.constraint, self.run(x0, times, watch).x1, self.final)

    def run(self, x0: Tensor, times: Tensor, watch: Watch = NOBODY) -> Chain:
        """Chains from x0; the watch hears of each move."""
        transport = Transport(self.base, times, self.first)
        state = self._at(x0, transport)
        accepted, step = torch.zeros_like(state.potential), torch.full_like(state.potential, self.length)
        target = 0.57 if self.gradient else 0.25  # the optima of Langevin and of random walks
        for move in range(self.moves):
            h = broadcast(step, x0)
            drift = (2 - h) * state.x0 - 2 * h * state.preconditioned
            new = self._at((drift + (8 * h).sqrt() * self.noise()) / (2 + h), transport)
            log = (_rho(state, new, step) - _rho(new, state, step)).nan_to_num(-math.inf).clamp_max(0)
            chosen = torch.special.log_ndtr(self.white((1,))[:, 0].to(log)) < log  # the logarithm of a uniform number
            state = _State(*(torch.where(broadcast(chosen, a), a, b) for a, b in zip(new, state, strict=True)))
            accepted = accepted + chosen
            if move < self.moves // 2:
                step = (step * ((log.exp() - target) * 2 / (1 + move) ** 0.6).exp()).clamp(1e-6, 1.9)
            watch.done((move + 1) / self.moves)
        return Chain(state.x0, state.x1, accepted / max(self.moves, 1), step)

    def _at(self, x0: Tensor, transport: Transport) -> _State:
        energy = energy_of(self.constraint, self.energy, self.strength, self.projector)
        if not self.gradient:
            x1 = transport(x0)
            return _State(x0, x1, energy(x1), torch.zeros_like(x0), torch.zeros_like(x0))
        potential, gradient, x1 = transport.evaluate(x0, energy)
        return _State(x0, x1, potential, gradient, gradient if self.source is None else self.source.covariance(gradient))


def _rho(at: _State, other: _State, step: Tensor) -> Tensor:
    def inner(a: Tensor, b: Tensor) -> Tensor:
        return torch.linalg.vecdot(a.flatten(1), b.flatten(1))

    moved, middle = inner(other.x0 - at.x0, at.gradient) / 2, inner(at.x0 + other.x0, at.gradient)
    return at.potential + moved + step / 4 * (middle + inner(at.gradient, at.preconditioned))
