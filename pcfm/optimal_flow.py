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

_EARLIEST = 0.01
"""Least time of the objective, which divides by it, and distance of the latest from 1."""


class ConvexPotential(nn.Module):
    r"""A convex function of fields, $\Psi(x) = \psi(x) + \frac q2\|x\|^2 + \langle l, x\rangle$: an input convex network $\psi$, q > 0.

    Arguments:
        size: values of a field.
        width: hidden units.
        depth: hidden layers.
    """

    def __init__(self, size: int, width: int = 64, depth: int = 3) -> None:
        super().__init__()
        self.first = nn.Linear(size, width)
        self.skips = nn.ModuleList(nn.Linear(size, width) for _ in range(depth - 1))
        self.inner = nn.ParameterList(nn.Parameter(torch.randn(width, width) * 0.1 - 4.0) for _ in range(depth - 1))
        self.last = nn.Parameter(torch.randn(width) * 0.1 - 4.0)
        self.curvature = nn.Parameter(torch.tensor(0.5413))  # softplus of it is one: next to the identity
        self.slope = nn.Parameter(torch.zeros(size))

    def forward(self, x: Tensor) -> Tensor:
        """Values (B,) at fields (B, C, *N)."""
        flat = x.flatten(1)
        h = F.softplus(self.first(flat))
        for skip, weight in zip(self.skips, self.inner, strict=True):
            h = F.softplus(F.linear(h, F.softplus(weight)) + skip(flat))
        square = F.softplus(self.curvature) / 2 * flat.square().sum(1)
        return h @ F.softplus(self.last) + square + flat @ self.slope


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
        pull = self._solve(z, t, 2 * missed)
        surrogate = (pull * self.push(z)).flatten(1).sum(1)
        return missed.square().flatten(1).sum(1) + surrogate - surrogate.detach()

    @torch.no_grad()
    def origin(self, x: Tensor, t: Tensor) -> Tensor:
        r"""The z with $(1-t)z + t\nabla\Psi(z) = x$, by Newton's method with halved steps on the convex function it minimises.

        Raises:
            ValueError: it is not found: the potential is not convex, or not finite.
        """
        time = t.reshape(-1, *(1,) * (x.ndim - 1))
        z = x.detach().clone()
        size = x.flatten(1).abs().amax(1).clamp_min(1e-30)

        def rest(at: Tensor) -> Tensor:
            return ((1 - time) * at + time * self.push(at).detach()) - x

        def height(at: Tensor) -> Tensor:
            return ((1 - time) / 2 * at.square() - x * at).flatten(1).sum(1) + t * self.potential(at)

        missing = rest(z)
        for _ in range(self.iterations):
            open_ = missing.flatten(1).abs().amax(1) > self.tolerance * size
            if not bool(open_.any()):
                return z
            step = -self._solve(z, t, missing) * open_.reshape(time.shape)
            fall = (missing * step).flatten(1).sum(1)
            length, begun = torch.ones_like(t), height(z)
            for _ in range(30):
                slack = 1e-12 * begun.abs()
                high = height(z + length.reshape(time.shape) * step) > begun + 0.25 * length * fall + slack
                if not bool(high.any()):
                    break
                length = torch.where(high, length / 2, length)
            z = z + length.reshape(time.shape) * step
            missing = rest(z)
        left = float((missing.flatten(1).abs().amax(1) / size).max())
        if not left <= 1e3 * self.tolerance:
            raise ValueError(
                f"the inner problem of the optimal flow expects a convex, finite potential; it is left with {left:.1e} of the field."
            )
        return z

    def _parameters(self) -> list[Tensor]:
        return list(self.potential.parameters()) if isinstance(self.potential, nn.Module) else []

    def _solve(self, z: Tensor, t: Tensor, r: Tensor) -> Tensor:
        r"""$[(1-t)I + t\nabla^2\Psi(z)]^{-1}r$."""
        n, flat = z[0].numel(), r.flatten(1)
        if n <= _DENSE:
            with torch.enable_grad():
                hessian = torch.func.vmap(torch.func.hessian(lambda x: self.potential(x.reshape(1, *z.shape[1:]))[0]))(
                    z.detach().flatten(1)
                )
            matrix = torch.diag_embed((1 - t)[:, None].expand(-1, n)) + t[:, None, None] * hessian.detach()
            return torch.linalg.solve(matrix, flat[..., None])[..., 0].reshape(r.shape)
        return self._gradients(z, t, r)

    def _gradients(self, z: Tensor, t: Tensor, r: Tensor) -> Tensor:
        """The same by conjugate gradients on Hessian products."""
        with torch.enable_grad():
            at = z.detach().requires_grad_()
            (slope,) = torch.autograd.grad(self.potential(at).sum(), at, create_graph=True)

        def product(y: Tensor) -> Tensor:
            with torch.enable_grad():
                (curved,) = torch.autograd.grad(slope, at, y.reshape(z.shape), retain_graph=True)
            return (1 - t)[:, None] * y + t[:, None] * curved.flatten(1)

        return conjugate_gradients(product, r.flatten(1), max_iterations=4 * z[0].numel()).reshape(r.shape)
