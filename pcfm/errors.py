r"""Where the error of generated fields comes from: too few steps, or a velocity that is not the right one.

* **Discretisation.** Halving the steps of a rule tells what they cost (`pcfm.discretisation`).
* **Regression.** Against a reference velocity: an exact one where it is known; that of held-out data, exact for their empirical
  distribution (`EmpiricalVelocity`, which says of how many fields its averages are); or other members of an ensemble.
* **Propagation.** To first order an error $v^* - v$ of the velocity on the way makes at the end, along the trajectory,

  $$\dot e = \nabla v_t(x_t)\,e + (v^*_t - v_t)(x_t),\qquad e_0 = 0,$$

  which is what to look at. Trajectories that change from one mode to another are beyond first order: look at quantiles.
* **Bound.** $W_2(p_1, \hat p_1)\le\int_0^1\exp(\int_t^1\mu_s\,ds)\,\varepsilon_t\,dt$ with the largest logarithmic norm $\mu_s$ of the
  velocity and the root mean square $\varepsilon_t$ of its error: true, and far too large in practice.

Source:
    Zhou & Liu, An error analysis of flow matching for deep generative modeling, ICML 2025, PMLR 267:78903 (rates in the number of samples,
    no computable number); Benton, Deligiannidis & Doucet, Error bounds for flow matching methods, TMLR 2024 (the bound, with a Lipschitz
    constant); Hairer, Norsett & Wanner, Solving ordinary differential equations I, section I.10 (logarithmic norms).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from pcfm.derivative import along
from pcfm.path import AffinePath
from pcfm.velocity import Velocity


@dataclass(frozen=True)
class EmpiricalVelocity:
    r"""The velocity of the flow from a Gaussian source of covariance C to given fields $x^{(1)},\dots,x^{(N)}$, each with equal weight,

    $$v^*_t(x) = \dot\alpha_t\bar x_1 + \dot\sigma_t\frac{x - \alpha_t\bar x_1}{\sigma_t},\qquad
    \bar x_1 = \sum_j w_j x^{(j)},\quad w\propto\exp\Big(-\frac{\|C^{-1/2}(x - \alpha_t x^{(j)})\|^2}{2\sigma_t^2}\Big).$$

    It is that of the distribution they are drawn from where many of them have weight. Of fields of many values one alone has: then it is
    the velocity of a memory, and differences from it say nothing. `effective` tells.

    Attributes:
        data: fields, (N, C, *N).
        path: the path.
        whiten: $C^{-1/2}$, as `Source.whiten`; of white noise by default.
    """

    data: Tensor
    path: AffinePath
    whiten: Callable[[Tensor], Tensor] = lambda field: field

    @cached_property
    def _white(self) -> Tensor:
        return self.whiten(self.data).flatten(1)

    def weights(self, x: Tensor, t: Tensor) -> Tensor:
        """w, (B, N)."""
        signal, noise = self.path.schedule(t)[:2]
        square = torch.cdist(self.whiten(x).flatten(1), signal * self._white.to(x)).square()
        return (-square / (2 * noise.square())).softmax(1)

    def effective(self, x: Tensor, t: Tensor) -> Tensor:
        r"""$1/\sum_j w_j^2$, (B,): how many of the fields the average is of."""
        return 1 / self.weights(x, t).square().sum(1)

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        signal, noise, signal_rate, noise_rate = self.path.schedule(t)
        mean = (self.weights(x, t) @ self.data.flatten(1).to(x)).reshape(x.shape)
        return signal_rate * mean + noise_rate * (x - signal * mean) / noise


class Regression(NamedTuple):
    """What an error of the velocity costs.

    Attributes:
        times: of the trajectory, (T,).
        error: root mean square error of the velocity at these times over all samples and values, (T,).
        end: first-order error of each sample at the end, (B, C, *N).
    """

    times: Tensor
    error: Tensor
    end: Tensor

    @property
    def propagated(self) -> Tensor:
        """Root mean square of each sample's first-order error, (B,)."""
        return self.end.square().flatten(1).mean(1).sqrt()


@torch.no_grad()
def regression(velocity: Velocity, reference: Velocity, x0: Tensor, times: Tensor) -> Regression:
    """How far the errors of a velocity carry, along its own trajectories (the classical Runge-Kutta rule).

    Arguments:
        velocity: of the flow; torch's forward derivatives must pass through it.
        reference: the right one.
        x0: noise, (B, C, *N).
        times: increasing, 0 to 1, or to where the reference is still defined.
    """
    x, e, sizes = x0, torch.zeros_like(x0), []

    def rates(x: Tensor, e: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        here, carried = along(lambda state: velocity(state, t), (x,), (e,))
        return here, carried + reference(x, t) - here

    for t, s in pairwise(times):
        h = s - t
        sizes.append((reference(x, t) - velocity(x, t)).square().mean().sqrt())
        a, p = rates(x, e, t)
        b, q = rates(x + h / 2 * a, e + h / 2 * p, t + h / 2)
        c, r = rates(x + h / 2 * b, e + h / 2 * q, t + h / 2)
        d, o = rates(x + h * c, e + h * r, s)
        x, e = x + h / 6 * (a + 2 * b + 2 * c + d), e + h / 6 * (p + 2 * q + 2 * r + o)
    return Regression(times[:-1], torch.stack(sizes), e)


LARGEST = 512
"""Values of a field up to which logarithmic norms are computed."""


@torch.no_grad()
def transport_bound(velocity: Velocity, reference: Velocity, x0: Tensor, times: Tensor) -> float:
    r"""A bound of the $W_2$ distance between what two velocities make of the same noise, in the norm of whole fields.

    $\mu_s$ is the largest over the trajectories of both, which a finite number of them can only approach.

    Arguments:
        velocity: of the flow.
        reference: the right one.
        x0: noise, (B, C, *N), of at most `LARGEST` values.
        times: increasing.

    Raises:
        ValueError: fields that are too large.
    """
    if x0[0].numel() > LARGEST:
        raise ValueError(f"the bound expects fields of at most {LARGEST} values, for which Jacobians are written out; got {x0[0].numel()}.")
    ours, theirs, sizes, norms = x0, x0, [], []
    for t, s in pairwise(times):
        sizes.append((reference(theirs, t) - velocity(theirs, t)).square().flatten(1).sum(1).mean().sqrt())
        norms.append(torch.maximum(logarithmic_norm(velocity, ours, t).max(), logarithmic_norm(velocity, theirs, t).max()))
        ours, theirs = _midpoint(velocity, ours, t, s), _midpoint(reference, theirs, t, s)
    steps = times.diff()
    later = (torch.stack(norms) * steps).flip(0).cumsum(0).flip(0)  # over the rest of the way, this step included
    return float((later.exp() * torch.stack(sizes) * steps).sum())


def logarithmic_norm(velocity: Velocity, x: Tensor, t: Tensor) -> Tensor:
    r"""$\lambda_{\max}$ of $(\nabla v + \nabla v^\top)/2$ at each state, (B,): how fast neighbours part at most."""
    n = x[0].numel()
    eye = torch.eye(n, dtype=x.dtype, device=x.device)
    columns = [along(lambda state: velocity(state, t), (x,), (e.reshape(1, *x.shape[1:]).expand_as(x),))[1].flatten(1) for e in eye]
    jacobian = torch.stack(columns, dim=-1)
    return torch.linalg.eigvalsh((jacobian + jacobian.mT) / 2)[:, -1]


def _midpoint(velocity: Velocity, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
    return x + (s - t) * velocity(x + (s - t) / 2 * velocity(x, t), (t + s) / 2)
