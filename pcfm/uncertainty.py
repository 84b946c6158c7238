r"""What a flow knows of its own uncertainty.

Three things are kept apart:

* what is still open at a state $x_t$ of one trajectory, which the flow models and its velocity tells: for a Gaussian source of covariance
  $C_0$ and the endpoint $D_t(x) = \mathrm E[x_1|x_t = x]$,

  $$\mathrm{Cov}(x_1|x_t = x) = \frac{\sigma_t^2}{\alpha_t}\,\nabla D_t(x)\,C_0;$$

* what a finite training leaves open about the velocity itself: an ensemble of trained flows, or a Laplace posterior of the last layer's
  weights, sampled from the same noise;
* whether generated ensembles cover the truth: `pcfm.metrics.calibration`, `tarp` and `conformal`.

Source:
    Efron, J. Am. Stat. Assoc. 106 (2011) 1602, for Tweedie's formula and its second moment; Lakshminarayanan, Pritzel & Blundell, NeurIPS
    2017, for ensembles; Daxberger et al., Laplace redux, NeurIPS 2021.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from pcfm.derivative import along
from pcfm.flow import Flow
from pcfm.path import AffinePath, broadcast
from pcfm.source import Source
from pcfm.velocity import Velocity


def endpoint_covariance(velocity: Velocity, path: AffinePath, source: Source, x: Tensor, t: Tensor, direction: Tensor) -> Tensor:
    r"""$\mathrm{Cov}(x_1|x_t = x)\,w$ for fields w, (B, C, *N).

    Arguments:
        velocity: the exact, or a well trained, velocity.
        path: its path.
        source: its source, Gaussian.
        x: states at time t, (B, C, *N).
        t: (), in (0, 1].
        direction: w.
    """
    signal, noise = path.schedule(t)[:2]
    spread = along(lambda state: path.endpoint(state, velocity(state, t), t), (x,), (source.covariance(direction),))[1]
    return broadcast(noise.square() / signal, x) * spread


def endpoint_variance(
    velocity: Velocity,
    path: AffinePath,
    source: Source,
    x: Tensor,
    t: Tensor,
    *,
    probes: int = 16,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""The variance of each value of $x_1$ given $x_t$, (B, C, *N): the diagonal of that covariance, by probes of random signs.

    Unbiased; exact with any number of probes where the covariance is diagonal.

    Source:
        Bekas, Kokiopoulou & Saad, Appl. Numer. Math. 57 (2007) 1214.
    """
    generator = generator or torch.Generator().manual_seed(0)
    total = torch.zeros_like(x)
    for _ in range(probes):
        signs = torch.randint(0, 2, x.shape, generator=generator).mul(2).sub(1).to(x)
        total = total + signs * endpoint_covariance(velocity, path, source, x, t, signs)
    return total / probes


@dataclass(frozen=True)
class Spread:
    """What several flows make of the same noise.

    Attributes:
        members: physical fields of each, (M, N, C, *N).
    """

    members: Tensor

    @property
    def mean(self) -> Tensor:
        """Their mean, (N, C, *N)."""
        return self.members.mean(0)

    @property
    def epistemic(self) -> Tensor:
        """Their standard deviation, (N, C, *N): what training leaves open."""
        return self.members.std(0)

    @property
    def aleatoric(self) -> Tensor:
        """Standard deviation of the mean field over the samples, (C, *N): what the flow itself models."""
        return self.mean.std(0)


def spread(flows: Sequence[Flow], draw: Callable[[Flow], Tensor]) -> Spread:
    """Fields that each of some flows makes of the same noise.

    Arguments:
        flows: members of an ensemble, or draws of a posterior, of one source.
        draw: samples of a flow with a fixed seed, as `lambda flow: pcfm.sample(flow, 8, seed=0).u`.

    Raises:
        ValueError: fewer than two flows.
    """
    if len(flows) < 2:
        raise ValueError(f"the spread of an ensemble expects at least two flows; got {len(flows)}.")
    return Spread(torch.stack([draw(flow) for flow in flows]))


@dataclass(frozen=True)
class LastLayer:
    r"""A Gaussian posterior of the last layer's weights: Bayesian linear regression on its features.

    With features $\varphi$ of all points of all training fields and the variance $s^2(t)$ of the conditional velocities around the
    flow's own, measured in bins of time, the weights W of each output have the precision

    $$\Lambda = \lambda I + \sum\varphi\varphi^\top / s^2(t).$$

    Attributes:
        flow: the trained flow.
        layer: name of the layer.
        precision: $\Lambda$, (F, F), of the weights and the bias of one output.
        noise: $s^2$ of each bin.
    """

    flow: Flow
    layer: str
    precision: Tensor
    noise: Tensor

    def draw(self, generator: torch.Generator) -> Flow:
        """The flow with other weights, drawn from the posterior."""
        network = copy.deepcopy(self.flow.network)
        layer = network.get_submodule(self.layer)
        assert isinstance(layer, nn.Linear)
        white = torch.randn(self.precision.shape[0], layer.out_features, generator=generator, dtype=torch.float64)
        factor = torch.linalg.cholesky(self.precision)
        step = torch.linalg.solve_triangular(factor.mT, white, upper=True).mT
        with torch.no_grad():
            layer.weight.add_(step[:, : layer.in_features].to(layer.weight))
            if layer.bias is not None:
                layer.bias.add_(step[:, -1].to(layer.bias))
        return replace(self.flow, network=network)


@torch.no_grad()
def laplace(
    flow: Flow,
    x1: Tensor,
    *,
    layer: str | None = None,
    condition: Tensor | None = None,
    prior: float = 1.0,
    passes: int = 4,
    bins: int = 10,
    batch: int = 64,
    seed: int = 0,
) -> LastLayer:
    """The posterior of the last layer's weights, given the fields a flow was trained on.

    Arguments:
        flow: a trained flow.
        x1: its training fields, normalised, (N, C, *N).
        layer: name of the linear layer whose outputs make up the velocity; that of our own networks by default.
        condition: the network's condition for each field.
        prior: $\\lambda$, precision of the weights before any data.
        passes: draws of noise and time for each field; the sum counts each field once.
        bins: of time.
        batch: fields at a time.
        seed: of noise and times.

    Raises:
        ValueError: no such linear layer, or a velocity that is not affine in its weights.
    """
    name = layer or getattr(flow.network, "last_layer", None)
    linear = dict(flow.network.named_modules()).get(name) if name else None
    if not isinstance(linear, nn.Linear):
        raise ValueError(f"the Laplace posterior expects the name of a torch.nn.Linear of the network; got {name!r}.")
    seen: list[Tensor] = []
    hook = linear.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    generator = torch.Generator().manual_seed(seed)
    size = linear.in_features + int(linear.bias is not None)
    grams = torch.zeros(bins, size, size, dtype=torch.float64)
    squares, counts = torch.zeros(bins, dtype=torch.float64), torch.zeros(bins, dtype=torch.float64)
    try:
        for number in range(passes):
            for first in range(0, len(x1), batch):
                data = x1[first : first + batch]
                noise = flow.source.colour(torch.randn(data.shape, generator=generator, dtype=torch.float64).to(data))
                t = torch.rand(len(data), generator=generator, dtype=torch.float64).to(data)
                velocity = flow.velocity(None if condition is None else condition[first : first + batch])
                state, target = flow.path.sample(noise, data, t)
                if number == 0 and first == 0:
                    _check_affine(velocity, linear, state, t)
                    seen.clear()
                rest = (velocity(state, t) - target).to(torch.float64)
                features = seen.pop().to(torch.float64).reshape(len(data), -1, linear.in_features)
                if linear.bias is not None:
                    features = torch.cat([features, torch.ones_like(features[..., :1])], dim=-1)
                place = (t * bins).long().clamp_max(bins - 1).cpu()
                grams.index_add_(0, place, (features.mT @ features).cpu())
                squares.index_add_(0, place, rest.square().flatten(1).mean(1).cpu())
                counts.index_add_(0, place, torch.ones(len(data), dtype=torch.float64))
    finally:
        hook.remove()
    variance = squares / counts.clamp_min(1)
    known = counts > 0
    precision = (grams[known] / variance[known, None, None]).sum(0) / passes + prior * torch.eye(size, dtype=torch.float64)
    assert name is not None
    return LastLayer(flow, name, precision, variance)


def _check_affine(velocity: Velocity, layer: nn.Linear, x: Tensor, t: Tensor) -> None:
    """The velocity is affine in the layer's weights: equal changes make equal differences."""
    weight, values = layer.weight.clone(), []
    try:
        for factor in (0.0, 1.0, 2.0):
            layer.weight.copy_(factor * weight)
            values.append(velocity(x, t))
    finally:
        layer.weight.copy_(weight)
    bend = (values[2] - 2 * values[1] + values[0]).abs().max()
    if bend > 1e-3 * (values[1] - values[0]).abs().max().clamp_min(1e-12):
        raise ValueError("the Laplace posterior expects a velocity that is affine in the layer's weights; this layer is not the last one.")
