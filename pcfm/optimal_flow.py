r"""Optimal flow matching: straight flows that carry noise to data at the least cost, whatever the coupling they learn from.

The velocity of a convex potential $\Psi$ moves every point z along a straight line to $\nabla\Psi(z)$,

$$x_t = (1-t)\,z + t\,\nabla\Psi(z),\qquad v_t(x_t) = \nabla\Psi(z) - z,$$

where z is unique, as the map is the gradient of a strongly convex function. Flow matching restricted to such velocities,

$$\mathrm E\,\Big\|\frac{x_0 - z(x_t, t)}{t}\Big\|^2,\qquad x_t = (1-t)\,x_0 + t\,x_1,$$

has the Brenier potential as its minimiser for *any* coupling of $x_0$ and $x_1$: quadratic optimal transport by regression. Its gradient
needs no derivative of the inner solve: with $w = 2(x_0 - z)/t$ and $H = [(1-t)I + t\nabla^2\Psi(z)]^{-1}w$ held fixed, it is that of
$\langle H, \nabla\Psi(z)\rangle$.

Source:
    Kornilov et al., Optimal flow matching: learning straight trajectories in just one step, NeurIPS 2024; Amos, Xu & Kolter, Input convex
    neural networks, ICML 2017; Brenier, Comm. Pure Appl. Math. 44 (1991) 375.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from constraints.linear.solve import conjugate_gradients

_DENSE = 64
"""Values of a field up to which Hessians are written out; beyond, systems are solved by conjugate gradients."""

_HALVINGS = 30
"""Of a Newton step at most."""

_UNIT = 0.5413
"""What softplus takes to one."""

_EARLIEST = 0.01
"""Least time of the objective, which divides by it, and distance of the latest from 1."""


class ConvexPotential(nn.Module):
    r"""A convex function of fields: an input convex network and a quadratic,

    $$\Psi(x) = \langle w, h_L\rangle + \frac q2\|x\|^2 + \langle l, x\rangle,\qquad
    h_{i+1} = \mathrm{softplus}\big(W_i h_i + A_i x + b_i + (Q_i x)^2\big),$$

    with $W_i, w, q > 0$ and without $h_i$ in the first layer. The square of each unit lets curvature last far from the origin, where that
    of softplus fades. Positive weights average over the units that come in and are near one at first: whatever the width, the network
    begins alike.

    Arguments:
        size: values of a field.
        width: hidden units.
        depth: hidden layers.

    Source:
        Korotin et al., Wasserstein-2 generative networks, ICLR 2021, for the squares.
    """

    def __init__(self, size: int, width: int = 64, depth: int = 3) -> None:
        super().__init__()
        self.skips = nn.ModuleList(nn.Linear(size, width) for _ in range(depth))
        self.squares = nn.ParameterList(nn.Parameter(0.1 * torch.randn(width, size)) for _ in range(depth))
        self.inner = nn.ParameterList(nn.Parameter(_UNIT + 0.1 * torch.randn(width, width)) for _ in range(depth - 1))
        self.last = nn.Parameter(_UNIT + 0.1 * torch.randn(width))
        self.curvature = nn.Parameter(torch.tensor(_UNIT))
        self.slope = nn.Parameter(torch.zeros(size))

    def forward(self, x: Tensor) -> Tensor:
        """Values (B,) at fields (B, C, *N)."""
        flat = x.flatten(1)
        entering = [skip(flat) + F.linear(flat, square).square() for skip, square in zip(self.skips, self.squares, strict=True)]
        h = F.softplus(entering[0])
        for weight, entry in zip(self.inner, entering[1:], strict=True):
            h = F.softplus(F.linear(h, F.softplus(weight) / h.shape[1]) + entry)
        square = F.softplus(self.curvature) / 2 * flat.square().sum(1)
        return h @ (F.softplus(self.last) / h.shape[1]) + square + flat @ self.slope


class OptimalFlow:
    r"""The straight flow of a convex potential; a velocity like any other.

    Arguments:
        potential: $\Psi$, convex, fields (B, C, *N) to (B,).
        tolerance: of the inner solve, as a share of the field's size.
        iterations: Newton steps of it at most.
    """

    def __init__(self, potential: Callable[[Tensor], Tensor], *, tolerance: float = 1e-6, iterations: int = 50) -> None:
        self.potential, self.tolerance, self.iterations = potential, tolerance, iterations

    def push(self, x0: Tensor) -> Tensor:
        r"""$\nabla\Psi(x_0)$, where the flow takes it in its one step; differentiable in the potential's parameters."""
        with torch.enable_grad():
            x = x0 if x0.requires_grad else x0.detach().requires_grad_()
            keep = any(p.requires_grad for p in self._parameters())
            (slope,) = torch.autograd.grad(self.potential(x).sum(), x, create_graph=keep)
        return slope

    def inverse(self, x1: Tensor) -> Tensor:
        r"""The $x_0$ that is carried to $x_1$: the gradient of the conjugate potential."""
        return self.origin(x1, x1.new_ones(len(x1)))

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """$v_t(x)$."""
        z = self.origin(x, t.to(x).expand(len(x)))
        return (self.push(z) - z).detach()

    def loss(self, x0: Tensor, x1: Tensor, t: Tensor) -> Tensor:
        """The objective for each sample, (B,); its gradient is that of the module docstring, its value the loss itself.

        Arguments:
            x0: noise, (B, C, *N).
            x1: data, coupled in any way.
            t: times, (B,), held away from both ends.
        """
        t = t.to(x0).clamp(_EARLIEST, 1 - _EARLIEST)
        time = t.reshape(-1, *(1,) * (x0.ndim - 1))
        z = self.origin((1 - time) * x0 + time * x1, t)
        missed = (x0 - z) / time
        surrogate = _dot(self._solve(z, t, 2 * missed), self.push(z))
        return _dot(missed, missed) + surrogate - surrogate.detach()

    def origin(self, x: Tensor, t: Tensor) -> Tensor:
        r"""The z with $(1-t)z + t\nabla\Psi(z) = x$: the minimum of a strongly convex function, by Newton's method.

        A step is halved while the slope along it at its end is positive and more than half of what it was at its beginning. That bounds
        the function by its beginning like Armijo's rule, but needs no difference of values, which rounding drowns near the minimum.

        Raises:
            ValueError: it is not found: the potential is not convex, or not finite.

        Source:
            Hager & Zhang, SIAM J. Optim. 16 (2005) 170, section 2.1, for the rule.
        """
        time = t.reshape(-1, *(1,) * (x.ndim - 1))
        z = x.detach()
        size = z.flatten(1).abs().amax(1).clamp_min(1e-30)
        missing = self._rest(z, x, time)
        for _ in range(self.iterations):
            unsolved = ~(missing.flatten(1).abs().amax(1) <= self.tolerance * size)  # NaN included
            if not bool(unsolved.any()):
                return z
            step = -self._solve(z, t, missing) * unsolved.reshape(time.shape)
            begun = _dot(missing, step)
            length = torch.ones_like(t)
            for _ in range(_HALVINGS):
                ahead = z + length.reshape(time.shape) * step
                missing = self._rest(ahead, x, time)
                far = _dot(missing, step) > 0.5 * begun.abs()
                if not bool(far.any()):
                    break
                length = torch.where(far, length / 2, length)
            z = ahead
        left = float((missing.flatten(1).abs().amax(1) / size).max())
        if not left <= 1e3 * self.tolerance:
            raise ValueError(
                f"the inner problem of the optimal flow expects a convex, finite potential; it is left with {left:.1e} of the field."
            )
        return z

    def _rest(self, z: Tensor, x: Tensor, time: Tensor) -> Tensor:
        r"""$(1-t)z + t\nabla\Psi(z) - x$."""
        return (1 - time) * z + time * self._slope(z, keep=False)[1] - x

    def _slope(self, z: Tensor, *, keep: bool) -> tuple[Tensor, Tensor]:
        r"""A copy of z, and $\nabla\Psi$ there; on its graph where that is kept."""
        with torch.enable_grad():
            at = z.detach().requires_grad_()
            (slope,) = torch.autograd.grad(self.potential(at).sum(), at, create_graph=keep)
        return at, slope

    def _parameters(self) -> list[Tensor]:
        return list(self.potential.parameters()) if isinstance(self.potential, nn.Module) else []

    def _solve(self, z: Tensor, t: Tensor, r: Tensor) -> Tensor:
        r"""$[(1-t)I + t\nabla^2\Psi(z)]^{-1}r$."""
        n, flat = z[0].numel(), r.flatten(1)
        if n > _DENSE:
            return self._gradients(z, t, r)
        at, slope = self._slope(z, keep=True)
        units = torch.eye(n, dtype=z.dtype, device=z.device).reshape(n, 1, *z.shape[1:]).expand(-1, len(z), *z.shape[1:])
        (hessian,) = torch.autograd.grad(slope, at, units, is_grads_batched=True)
        rows = hessian.flatten(2).movedim(0, 1)
        matrix = (1 - t)[:, None, None] * torch.eye(n, dtype=z.dtype, device=z.device) + t[:, None, None] * rows
        return torch.linalg.solve(matrix, flat[..., None])[..., 0].reshape(r.shape)

    def _gradients(self, z: Tensor, t: Tensor, r: Tensor) -> Tensor:
        """The same by conjugate gradients on Hessian products."""
        at, slope = self._slope(z, keep=True)

        def product(y: Tensor) -> Tensor:
            (curved,) = torch.autograd.grad(slope, at, y.reshape(z.shape), retain_graph=True)
            return (1 - t)[:, None] * y + t[:, None] * curved.flatten(1)

        return conjugate_gradients(product, r.flatten(1), max_iterations=4 * z[0].numel()).reshape(r.shape)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Of each sample, (B,)."""
    return (a * b).flatten(1).sum(1)
