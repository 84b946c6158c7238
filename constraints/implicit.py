r"""Derivatives of a projection through its optimality conditions.

At the solution, $v - u + J^\top\mu = 0$ and $h(v, \theta) = 0$, where rows and bounds that hold with equality count as equalities and
the others do not count. Their differential,

$$\begin{pmatrix} H & J^\top\\ J & 0\end{pmatrix}\begin{pmatrix} dv\\ d\mu\end{pmatrix}
= \begin{pmatrix} du\\ -\partial_\theta h\,d\theta\end{pmatrix},\qquad H = I + \sum_i\mu_i\nabla^2 h_i,$$

is symmetric: the backward pass solves it once for the incoming gradient $g$ and returns $z$ to the input and $-y$ to the residual, from
which automatic differentiation carries it to targets and to whatever else a law depends on. Nothing of the iteration is kept. Under
noise, $J z$ equals $R y$ in place of zero. Where a bound is met without a force the projection has a kink, and this is one of its
one-sided derivatives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from constraints.constraint import Constraint
from constraints.face import Kernel
from constraints.kkt import Curved

Order = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""Multipliers in the order of the laws from those of linear rows, of curved rows, and forces on values at bounds; and the point."""


class Conditions:
    """The optimality conditions at a solution, linearised: what a backward pass solves.

    Arguments:
        kernel: projector onto the directions that linear rows and bounds leave.
        curved: the other rows that hold with equality, if any.
        multiplier: their multipliers.
        order: puts multipliers in the order of the laws.
    """

    def __init__(self, kernel: Kernel, curved: Curved | None, multiplier: Tensor, order: Order) -> None:
        self.kernel, self.curved, self.multiplier, self.order = kernel, curved, multiplier, order

    def solve(self, v: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        """z in the kernel of all rows, and y of all laws, with H z + Jᵀ y = g."""
        if self.curved is None:
            z, straight = self.kernel(g)
            bent, held = g.new_zeros(len(g), 0), self.kernel.held(g - z, straight)
        else:
            normals = self.curved.normals(v)
            z = self.curved.minimise(normals, v, self.multiplier, g)
            force = g - z - self.curved.curvature(v, self.multiplier, z)
            bent = normals.multiplier(self.kernel.project(force))
            force = force - normals.jacobian.adjoint(bent)
            straight = self.kernel(force)[1]
            held = self.kernel.held(force, straight)
        return z, self.order(straight, bent, held, v)


def attach(conditions: Conditions, constraint: Constraint, u: Tensor, v: Tensor, multiplier: Tensor) -> Tensor:
    """The solution v as a differentiable function of the input u and of the parameters of the law, in its residual and Jacobian."""
    residual = constraint.residual(v)
    forces = constraint.jacobian(v).adjoint(multiplier)
    if forces.requires_grad:  # the optimality condition depends on parameters through J as well
        u = u - (forces - forces.detach())
    if not (u.requires_grad or residual.requires_grad):
        return v
    residual = torch.where(torch.isfinite(residual), residual, 0.0)
    out: Tensor = _Implicit.apply(u, residual, v, conditions)
    return out


class _Implicit(torch.autograd.Function):
    """The solution forward; the adjoint of the optimality conditions backward."""

    @staticmethod
    def forward(u: Tensor, residual: Tensor, v: Tensor, conditions: Conditions) -> Tensor:
        return v.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[2])
        ctx.conditions = inputs[3]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (v,) = ctx.saved_tensors
        z, y = _Adjoint.apply(gradients[0], v, ctx.conditions)
        return z, -y, None, None


class _Adjoint(torch.autograd.Function):
    """One solve of the linearised conditions; a batch of right-hand sides is solved one by one."""

    @staticmethod
    def forward(g: Tensor, v: Tensor, conditions: Conditions) -> tuple[Tensor, Tensor]:
        return conditions.solve(v, g)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        raise RuntimeError("project is differentiable once; second derivatives through it are not offered.")

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], g: Tensor, v: Tensor, conditions: Conditions) -> Any:
        assert in_dims[0] is not None
        solved = [conditions.solve(v, part) for part in g.movedim(in_dims[0], 0)]
        return (torch.stack([z for z, _ in solved]), torch.stack([y for _, y in solved])), (0, 0)
