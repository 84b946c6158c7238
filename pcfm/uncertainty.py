r"""What a flow knows of its own uncertainty.

Three things are kept apart:

* what is still open at a state $x_t$ of one trajectory, which the flow models and its velocity tells: for a Gaussian source of covariance
  $C_0$ and the endpoint $D_t(x) = \mathrm E[x_1|x_t = x]$,

  $$\mathrm{Cov}(x_1|x_t = x) = \frac{\sigma_t^2}{\alpha_t}\,\nabla D_t(x)\,C_0;$$

* what a finite training leaves open about the velocity itself: an ensemble of trained flows, a Laplace posterior of the last layer's
  weights, or a Gaussian of all weights from the iterates of stochastic gradient descent (SWAG), sampled from the same noise;
* whether generated ensembles cover the truth: `pcfm.metrics.calibration`, `tarp` and `conformal`.

Source:
    Efron, J. Am. Stat. Assoc. 106 (2011) 1602, for Tweedie's formula and its second moment; Lakshminarayanan, Pritzel & Blundell, NeurIPS
    2017, for ensembles; Daxberger et al., Laplace redux, NeurIPS 2021; Maddox et al., A simple baseline for Bayesian uncertainty in deep
    learning, NeurIPS 2019, for SWAG.
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
from pcfm.velocity import NetworkVelocity, Velocity


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
                velocity = flow.velocity(None if condition is None else condition[first : first + batch])
                state, target, t = _example(flow, data, generator)
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


def _example(flow: Flow, data: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Of each field a state on its path, the conditional velocity there, and the time."""
    noise = flow.source.colour(torch.randn(data.shape, generator=generator, dtype=torch.float64).to(data))
    t = torch.rand(len(data), generator=generator, dtype=torch.float64).to(data)
    state, target = flow.path.sample(noise, data, t)
    return state, target, t


@dataclass(frozen=True)
class Iterates:
    r"""A Gaussian of all weights, from the iterates of stochastic gradient descent: SWAG.

    With their mean $\bar\theta$, their variances $s^2$ and the last K deviations D,

    $$\theta = \bar\theta + \tfrac1{\sqrt2}\,s\,z_1 + \tfrac1{\sqrt{2(K-1)}}\,D^\top z_2,\qquad z\sim\mathcal N(0, I).$$

    Attributes:
        flow: the trained flow.
        rate: learning rate of the descent.
        mean: (P,), in the order of the network's parameters.
        variance: (P,).
        deviations: of the last iterates from the mean at their time, (K, P).
    """

    flow: Flow
    rate: float
    mean: Tensor
    variance: Tensor
    deviations: Tensor

    def draw(self, generator: torch.Generator) -> Flow:
        """The flow with other weights, drawn from this Gaussian."""
        own = torch.randn(len(self.mean), generator=generator, dtype=torch.float64) * (self.variance / 2).sqrt()
        shared = torch.randn(len(self.deviations), generator=generator, dtype=torch.float64) @ self.deviations
        weights = self.mean + own + shared / (2 * (len(self.deviations) - 1)) ** 0.5
        network = copy.deepcopy(self.flow.network)
        _write(network, weights)
        return replace(self.flow, network=network)


def swag(
    flow: Flow,
    x1: Tensor,
    *,
    condition: Tensor | None = None,
    rate: float | None = None,
    collected: int = 40,
    rank: int = 20,
    every: int | None = None,
    batch: int = 32,
    seed: int = 0,
) -> Iterates:
    r"""Go on from the trained weights by plain stochastic gradient descent of a constant rate, and take the Gaussian of its iterates.

    Near a minimum of curvature h and gradients of variance c the iterates of rate $\eta$ have the variance $\eta c/2h$. The default rate,

    $$\eta = \frac{2B}{N\bar h},$$

    with B fields a step of N and the mean curvature $\bar h$ of the loss (Gauss-Newton), makes that the posterior variance of the
    weights, under a flat prior, where curvature is the same in all directions; elsewhere it is that of the mean curvature in all of them.
    For more weights P than fields that would be unstable: the rate is at most $1/P\bar h$, and the spread then less than the
    posterior's. At the rate of the formula iterates forget each other over half a pass, $N/2B$ steps.

    Arguments:
        flow: a trained flow.
        x1: its training fields, normalised, (N, C, *N).
        condition: the network's condition for each field.
        rate: learning rate; that of the formula by default.
        collected: iterates taken.
        rank: K, how many of the last ones give covariances too.
        every: steps between two that are taken; one pass over the data by default.
        batch: fields a step, drawn with replacement.
        seed: of fields, noise and times.

    Raises:
        ValueError: ranks or counts that do not fit, a loss that is not finite: the rate is too large for this network.

    Source:
        Mandt, Hoffman & Blei, Stochastic gradient descent as approximate Bayesian inference, JMLR 18 (2017) 134, section 4.1, for the rate.
    """
    if not 2 <= rank <= collected:
        raise ValueError(f"SWAG expects a rank of 2 up to the number of collected iterates; got {rank} of {collected}.")
    generator = torch.Generator().manual_seed(seed)
    network = copy.deepcopy(flow.network)
    moving = replace(flow, network=network)
    parameters = [p for p in network.parameters() if p.requires_grad]

    def drawn(count: int) -> tuple[NetworkVelocity, Tensor, Tensor, Tensor]:
        chosen = torch.randint(len(x1), (count,), generator=generator)
        velocity = moving.velocity(None if condition is None else condition[chosen])
        return (velocity, *_example(flow, x1[chosen], generator))

    size = sum(p.numel() for p in parameters)
    if rate is None:
        velocity, state, _, t = drawn(_FIELDS)
        out, squares = velocity(state, t), 0.0
        for _ in range(_PROBES):
            signs = torch.randint(0, 2, out.shape, generator=generator).mul(2).sub(1).to(out)
            pulled = torch.autograd.grad(out, parameters, signs, retain_graph=True, allow_unused=True)
            squares += sum(float(g.square().sum()) for g in pulled if g is not None)
        trace = 2 * squares / (_PROBES * out.numel())  # of the mean of 2 J'J/n over fields of n values
        rate = min(2 * batch / len(x1) * size, 1.0) / trace
    first, second = torch.zeros(2, size, dtype=torch.float64)
    last: list[Tensor] = []
    for number in range(collected):
        for _ in range(every or -(-len(x1) // batch)):
            velocity, state, target, t = drawn(batch)
            loss = (velocity(state, t) - target).square().mean()
            if not bool(torch.isfinite(loss)):
                raise ValueError(f"SWAG expects iterates that stay finite; at the rate {rate:.2g} they do not. Take a smaller rate.")
            slopes = torch.autograd.grad(loss, parameters, allow_unused=True)
            with torch.no_grad():
                for parameter, slope in zip(parameters, slopes, strict=True):
                    if slope is not None:
                        parameter.sub_(rate * slope)
        weights = nn.utils.parameters_to_vector(parameters).detach().double().cpu()
        first, second = first + weights, second + weights.square()
        last = [*last, weights - first / (number + 1)][-rank:]
    mean = first / collected
    return Iterates(flow, rate, mean, (second / collected - mean.square()).clamp_min(0), torch.stack(last))


_FIELDS, _PROBES = 256, 32
"""Over how many fields and random signs the curvature is averaged."""


@torch.no_grad()
def _write(network: nn.Module, weights: Tensor) -> None:
    """Set the parameters that are trained."""
    parameters = [p for p in network.parameters() if p.requires_grad]
    for parameter, part in zip(parameters, weights.split([p.numel() for p in parameters]), strict=True):
        parameter.copy_(part.reshape(parameter.shape))
