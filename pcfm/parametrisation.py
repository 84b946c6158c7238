r"""What a network may predict of an affine path, and how each follows from any other; changes of path without training.

The state and one prediction are two linear equations for the ends $x_1$ and $x_0$,

$$x_t = \alpha_t x_1 + \sigma_t x_0,\qquad
\text{velocity } \dot\alpha_t x_1 + \dot\sigma_t x_0,\quad \text{endpoint } x_1,\quad \text{noise } x_0,\quad
\text{score } -x_0/\sigma_t,\quad \text{angle } \alpha_t x_0 - \sigma_t x_1,$$

and their expectations at fixed $x_t$ obey the same equations. The score is $\Sigma\nabla\log p_t$, with $\Sigma$ the covariance of the
source: it is finite on any grid, the gradient alone is not. Score and noise are the same up to scale only where the source is Gaussian and
independent of the data: not under optimal-transport or rectified couplings.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pcfm.naming import suggest
from pcfm.path import AffinePath, broadcast

PREDICTIONS = ("velocity", "endpoint", "noise", "score", "angle")
"""What networks predict; "angle" is the v of diffusion models."""


def convert(path: AffinePath, value: Tensor, x_t: Tensor, t: Tensor, given: str, wanted: str, *, independent: bool = True) -> Tensor:
    """One prediction in terms of another.

    Where a scale is 0 some pairs determine nothing: the endpoint from the noise at t = 0, the noise from the endpoint at t = 1 on paths
    that end without noise; the result is not finite there.

    Arguments:
        path: the path.
        value: what is predicted, (B, C, *N).
        x_t: the state.
        t: times, () or (B,).
        given: what `value` is, one of `PREDICTIONS`.
        wanted: what to return.
        independent: whether noise and data are independent.

    Raises:
        ValueError: an unknown prediction; a score of a path whose ends depend on each other.
    """
    for name in (given, wanted):
        if name not in PREDICTIONS:
            raise ValueError(f"unknown prediction '{name}'. {suggest(name, PREDICTIONS)}")
    if "score" in (given, wanted) and not independent:
        raise ValueError(
            "a score expects noise that is independent of the data; this coupling makes them depend on each other. "
            "Train with coupling.kind=independent, or learn the score as a bridge does."
        )
    if given == wanted:
        return value
    a, s, signal_rate, noise_rate = path.scales(t, x_t)
    if given == "velocity":
        x1, x0 = path.endpoint(x_t, value, t), path.origin(x_t, value, t)
    elif given == "endpoint":
        x1, x0 = value, (x_t - a * value) / s
    elif given == "angle":
        square = a**2 + s**2
        x1, x0 = (a * x_t - s * value) / square, (s * x_t + a * value) / square
    else:
        x0 = value if given == "noise" else -s * value
        x1 = (x_t - s * x0) / a
    if wanted == "velocity":
        return signal_rate * x1 + noise_rate * x0
    if wanted == "angle":
        return a * x0 - s * x1
    return {"endpoint": x1, "noise": x0}[wanted] if wanted != "score" else -x0 / s


class PredictedVelocity(nn.Module):
    """The velocity of a network that predicts something else.

    Near an end the velocity of some predictions is a ratio of zeros: there the network is asked at the nearest time that is `margin` away.

    Arguments:
        predict: from states and times to predictions: a module or function of (x, t, ...).
        path: the path it was trained on.
        prediction: what it predicts, one of `PREDICTIONS`.
        margin: distance kept from t = 0 and t = 1.

    Raises:
        ValueError: an unknown prediction, or a margin out of range.
    """

    def __init__(self, predict: Any, path: AffinePath, prediction: str, margin: float = 1e-3) -> None:
        super().__init__()
        if prediction not in PREDICTIONS:
            raise ValueError(f"unknown prediction '{prediction}'. {suggest(prediction, PREDICTIONS)}")
        if not 0 <= margin < 0.5:
            raise ValueError(f"PredictedVelocity expects a margin in [0, 0.5); got {margin}.")
        self.predict, self.path, self.prediction, self.margin = predict, path, prediction, margin

    def forward(self, x: Tensor, t: Tensor, *rest: Any) -> Tensor:
        t = t.clamp(self.margin, 1 - self.margin)
        return convert(self.path, self.predict(x, t, *rest), x, t, self.prediction, "velocity")


class RescheduledVelocity(nn.Module):
    r"""A velocity trained on one schedule, on another: the same process in other units of time and of the state.

    At time r of the new path the old one has the same ratio of signal to noise at a time t(r), and the states differ by a factor
    $c = \sigma^{new}_r/\sigma_t$,

    $$v^{new}_r(x) = \frac{\dot c}{c}\,x + c\,\dot t\;v_t(x/c),\qquad
    \dot t = \frac{\sigma_t^2\,\delta^{new}_r}{(\sigma^{new}_r)^2\,\delta_t}.$$

    Next to the data both $\sigma$ may vanish, and the ratio is that of the signals. Times at which one schedule holds a ratio that the
    other does not pass are given the nearest it has.

    Arguments:
        velocity: the velocity: a module or function of (x, t, ...).
        old: the path it belongs to.
        new: the path wanted.

    Source:
        Pokle et al., Training-free linear image inverses via flows, TMLR 2024, lemma 2; Karras et al., NeurIPS 2022.
    """

    def __init__(self, velocity: Any, old: AffinePath, new: AffinePath) -> None:
        super().__init__()
        self.velocity, self.old, self.new = velocity, old, new

    def forward(self, x: Tensor, r: Tensor, *rest: Any) -> Tensor:
        new = self.new.schedule(r.double())
        t = self.old.schedule.time_of(new.signal, new.noise)
        old = self.old.schedule(t)
        # Both states are the same mixture: their sizes compare as the sizes of their scales do, in whichever is not small.
        by_noise = old.noise > old.signal
        c = torch.where(by_noise, new.noise / _safe(old.noise), new.signal / _safe(old.signal))
        pace = new.turn / (c**2 * old.turn)
        drift = torch.where(
            by_noise,
            (new.noise_rate - c * pace * old.noise_rate) / _safe(old.noise),
            (new.signal_rate - c * pace * old.signal_rate) / _safe(old.signal),
        )
        c, pace, drift = (broadcast(k.to(x), x) for k in (c, pace, drift))
        return drift / c * x + c * pace * self.velocity(x / c, t.to(r), *rest)


class MirroredVelocity(nn.Module):
    """A velocity written with data at time 0 and noise at time 1, as one of ours: $v(x, t) = -w(x, 1 - t)$.

    Arguments:
        velocity: that velocity: a module or function of (x, time, ...).
    """

    def __init__(self, velocity: Any) -> None:
        super().__init__()
        self.velocity = velocity

    def forward(self, x: Tensor, t: Tensor, *rest: Any) -> Tensor:
        return -self.velocity(x, 1 - t, *rest)


def _safe(scale: Tensor) -> Tensor:
    """A divisor that is not 0, where another branch is taken."""
    return torch.where(scale > 0, scale, 1.0)
