r"""Derivatives of a projection through its optimality conditions.

At the solution, $v - u + J^\top\mu = 0$ and $h(v, \theta) = 0$. Their differential,

$$\begin{pmatrix} H & J^\top\\ J & 0\end{pmatrix}\begin{pmatrix} dv\\ d\mu\end{pmatrix}
= \begin{pmatrix} du\\ -\partial_\theta h\,d\theta\end{pmatrix},\qquad H = I + \sum_i\mu_i\nabla^2 h_i,$$

is symmetric: the backward pass solves it once for the incoming gradient $g$ and returns $z$ to the input and $-y$ to the residual, from
which automatic differentiation carries it to targets and to whatever else a law depends on. Nothing of the iteration is kept.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from constraints.constraint import Constraint, LinearConstraint
from constraints.kkt import Curved, Kernel


def attach(kernel: Kernel, curved: Curved | None, constraint: Constraint, u: Tensor, v: Tensor, multiplier: Tensor) -> Tensor:
    """The solution v as a differentiable function of the input u and of the parameters of the law, in its residual and Jacobian."""
    residual = constraint.residual(v)
    forces = constraint.jacobian(v).adjoint(multiplier)
    if forces.requires_grad:  # the optimality condition depends on parameters through J as well
        u = u - (forces - forces.detach())
    if not (u.requires_grad or residual.requires_grad):
        return v
    leaves = [isinstance(leaf, LinearConstraint) for leaf in constraint.leaves()]
    sizes = [leaf.residual(v[:1]).shape[1] for leaf in constraint.leaves()]
    linear = torch.tensor([is_flat for is_flat, size in zip(leaves, sizes, strict=True) for _ in range(size)], device=v.device)
    out: Tensor = _Implicit.apply(u, residual, v, multiplier[:, ~linear], linear, kernel, curved)
    return out


class _Implicit(torch.autograd.Function):
    """The solution forward; the adjoint of the optimality conditions backward."""

    @staticmethod
    def forward(
        ctx: Any, u: Tensor, residual: Tensor, v: Tensor, multiplier: Tensor, linear: Tensor, kernel: Kernel, curved: Curved | None
    ) -> Tensor:
        ctx.save_for_backward(v, multiplier, linear)
        ctx.kernel, ctx.curved = kernel, curved
        return v.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        v, multiplier, linear = ctx.saved_tensors
        z, straight, bent = _adjoint(ctx.kernel, ctx.curved, v, multiplier, gradients[0])
        y = z.new_zeros(z.shape[0], linear.shape[0])
        y[:, linear], y[:, ~linear] = straight, bent
        return z, -y, None, None, None, None, None


def _adjoint(kernel: Kernel, curved: Curved | None, v: Tensor, multiplier: Tensor, g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """z in the kernel of all rows, and y of linear and curved rows, with H z + Aᵀ y_A + Jᵀ y_J = g."""
    if curved is None:
        z, straight = kernel(g)
        return z, straight, g.new_zeros(g.shape[0], 0)
    normals = curved.normals(v)
    z = curved.minimise(normals, v, multiplier, g)
    force = g - z - curved.curvature(v, multiplier, z)
    bent = normals.multiplier(kernel(force)[0])
    straight = kernel(force - normals.jacobian.adjoint(bent))[1]
    return z, straight, bent
