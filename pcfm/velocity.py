"""Velocities: the callables that samplers see, v(x, t) on normalised fields.

`NetworkVelocity` adapts any module: its own calling convention, dtype and device behind one signature. `GaussianFlow` is exact.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn

from pcfm.guard import Guard
from pcfm.path import AffinePath, broadcast


class Velocity(Protocol):
    """dx_t/dt of a flow: x (B, C, *N) and t () or (B,) to (B, C, *N)."""

    def __call__(self, x: Tensor, t: Tensor) -> Tensor: ...


TWO_TIMES = ("x,r,t", "x,r,t,condition")
"""Calls of networks of two times, average velocities between r and t; our own take a condition besides."""

CALLS = ("x,t", "t,x", "sample,timestep", "x+t", "x,t,condition", *TWO_TIMES)
"""How a network takes its input: positional (x, t) or (t, x); diffusers' keywords, with an output that has `.sample`; time as one more
channel after those of x; our own networks, with a condition; networks of two times."""


class NetworkVelocity(nn.Module):
    """A network as a velocity, and one of two times as an average velocity too, which from a time to itself is the velocity.

    The network runs in its own dtype and device, the result comes back in those of the state. Calls are counted, and so are reverse
    passes.

    Arguments:
        network: any module on fields (B, C, *N).
        call: one of `CALLS`.
        condition: input of the network besides the state, (B, Cc, *N).
        time_scale: factor on flow time before the network sees it; diffusers' models count to 1000.

    Raises:
        ValueError: an unknown calling convention.
    """

    def __init__(self, network: nn.Module, call: str = "x,t", condition: Tensor | None = None, time_scale: float = 1.0) -> None:
        super().__init__()
        if call not in CALLS:
            raise ValueError(f"NetworkVelocity expects a call among {', '.join(CALLS)}; got '{call}'.")
        self.network, self.call, self.time_scale = network, call, time_scale
        self.condition = condition
        self.calls, self.backward_calls = 0, 0

    def _like(self, x: Tensor) -> Tensor:
        """A parameter of the network, real if there is one, whose dtype and device it runs in; the state itself where there is none."""
        real = next((p for p in self.network.parameters() if p.is_floating_point()), None)
        return next((p for p in self.network.parameters() if p.is_complex()), x) if real is None else real

    def forward(self, x: Tensor, t: Tensor, end: Tensor | None = None) -> Tensor:
        like = self._like(x)
        dtype = like.dtype.to_real()
        state = x.to(like.device, dtype)
        # Of a scalar time times a number, torch's forward derivative is in double precision: expand first.
        begin, end = ((self.time_scale * time.expand(x.shape[0])).to(like.device, dtype) for time in (t, t if end is None else end))
        self.calls += 1
        out = self._evaluate(state, begin, end).to(x)
        if out.requires_grad:
            out.register_hook(self._count_backward)
        return out

    def _count_backward(self, gradient: Tensor) -> None:
        self.backward_calls += 1

    def _evaluate(self, x: Tensor, t: Tensor, end: Tensor) -> Tensor:
        out: Any
        times = (t, end) if self.call in TWO_TIMES else (t,)
        if self.call.endswith("condition"):
            condition = None if self.condition is None else self.condition.to(x)
            out = self.network(x, *times, condition)
        elif self.call == "t,x":
            out = self.network(t, x)
        elif self.call == "sample,timestep":
            out = self.network(sample=x, timestep=t)
        elif self.call == "x+t":
            out = self.network(torch.cat([x, broadcast(t, x).expand(x.shape[0], 1, *x.shape[2:])], dim=1))
        else:
            out = self.network(x, *times)
        field = out.sample if hasattr(out, "sample") and not isinstance(out, Tensor) else out
        if not isinstance(field, Tensor) or field.shape != x.shape:
            got = tuple(field.shape) if isinstance(field, Tensor) else type(field).__name__
            raise ValueError(f"the network expects to return a velocity of the shape of its input, {tuple(x.shape)}; got {got}.")
        return field


class GuardedVelocity:
    """A velocity that never sees nor gives what is not finite, and tells the guard of it: one bad sample does not cost its batch.

    A sample whose state is not finite is evaluated at zero; one whose velocity is not finite is held still.

    Arguments:
        velocity: the velocity.
        guard: of the batch.
    """

    def __init__(self, velocity: NetworkVelocity, guard: Guard) -> None:
        self.velocity, self.guard = velocity, guard

    @property
    def calls(self) -> int:
        return self.velocity.calls

    @property
    def backward_calls(self) -> int:
        return self.velocity.backward_calls

    def __call__(self, x: Tensor, t: Tensor, end: Tensor | None = None) -> Tensor:
        out: Tensor = self.velocity(self._finite(x, t, "the state overflowed"), t, end)
        return self._finite(out, t, "the network gave NaN or Inf")

    def _finite(self, x: Tensor, t: Tensor, cause: str) -> Tensor:
        """The fields, with zeros in place of those that are not finite."""
        if bool(torch.isfinite(x.sum())):
            return x
        bad = ~torch.isfinite(x).flatten(1).all(1)
        self.guard.lose(bad, f"{cause} at t = {float(t.max()):.3g}")
        return torch.where(broadcast(bad, x), torch.zeros_like(x), x)


class GaussianFlow:
    r"""The exact velocity between $\mathcal N(0, I)$ and $\mathcal N(m, s^2 I)$, independently coupled.

    $$v_t(x) = \dot\alpha m + \frac{\alpha\dot\alpha s^2 + \sigma\dot\sigma}{\alpha^2 s^2 + \sigma^2}\,(x - \alpha m),
    \qquad x_0 \mapsto m + s x_0 \text{ at } t = 1.$$

    Arguments:
        mean: $m$.
        std: $s$.
        path: the path whose marginal velocity this is.
    """

    def __init__(self, mean: float, std: float, path: AffinePath | None = None) -> None:
        self.mean, self.std = mean, std
        self.path = path or AffinePath()

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        signal, noise, signal_rate, noise_rate = (broadcast(k, x) for k in self.path.schedule(t))
        gain = (signal * signal_rate * self.std**2 + noise * noise_rate) / (signal**2 * self.std**2 + noise**2)
        return signal_rate * self.mean + gain * (x - signal * self.mean)

    def transport(self, x0: Tensor) -> Tensor:
        """Where the flow takes x0 at t = 1."""
        return self.mean + self.std * x0
