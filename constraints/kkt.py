r"""Newton's method for curved laws inside the affine set of linear ones.

All steps stay in $\ker A$, by its projector $P$. With $W = P J^\top$ the step is the sum of the shortest move to feasibility,
$-W (W^\top W)^{+} h$, and a move along the kernel of $W^\top$ that minimises the quadratic model of the distance, by conjugate gradients
preconditioned with the projector onto that kernel. Every solve is matrix-free and batched; samples take their own steps.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from constraints.constraint import Constraint
from constraints.linear.map import LinearMap
from constraints.linear.solve import conjugate_gradients, pseudo_inverse
from constraints.linear.stacked import Stacked

FEW_ROWS = 16
"""Up to this many curved rows the fields P Jᵀ are formed; beyond, conjugate gradients act on J P Jᵀ."""

_HALVINGS = 12
"""Step halvings of the line search before a step is given up."""


class Solution(NamedTuple):
    """A point of the curved laws, with the multipliers of curved and of linear rows."""

    u: Tensor
    multiplier: Tensor
    linear_multiplier: Tensor
    iterations: int


class Kernel:
    """The projector onto the kernel of the linear laws; the identity if there are none."""

    def __init__(self, stack: Stacked | None) -> None:
        self.stack = stack

    def __call__(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """P z, and the multipliers ν with z - P z = Aᵀ ν."""
        if self.stack is None:
            return z, z.new_zeros(z.shape[0], 0)
        return self.stack.nearest(z)


class Normals:
    """The span of W = P Jᵀ at one field: solves of J P Jᵀ, and the projector onto its complement in ker A."""

    def __init__(self, kernel: Kernel, jacobian: LinearMap, like: Tensor) -> None:
        self.kernel, self.jacobian = kernel, jacobian
        self.few = jacobian.rows <= FEW_ROWS
        if self.few:
            rows, batch = jacobian.rows, like.shape[0]
            eye = torch.eye(rows, dtype=like.dtype, device=like.device)
            forces = torch.stack([jacobian.adjoint(e.expand(batch, rows)) for e in eye], dim=1)
            fields, taken = kernel(forces.flatten(0, 1))
            self.fields = fields.reshape(batch, rows, -1)
            self.taken = taken.reshape(batch, rows, -1)
            self.inverse = pseudo_inverse(self.fields @ self.fields.mT)

    def multiplier(self, z: Tensor) -> Tensor:
        """The y for which W y is the part of a field of ker A along the normals."""
        if self.few:
            return (self.inverse @ (self.fields @ z.flatten(1)[..., None]))[..., 0]
        return self.solve(self.jacobian(z))

    def solve(self, r: Tensor) -> Tensor:
        """A solution y of (J P Jᵀ) y = r."""
        if self.few:
            return (self.inverse @ r[..., None])[..., 0]
        return conjugate_gradients(
            lambda y: self.jacobian(self.kernel(self.jacobian.adjoint(y))[0]),
            r,
            preconditioner=self.jacobian.solve_gram,
            max_iterations=4 * r.shape[1] + 10,
        )

    def field(self, y: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """W y, and the linear multipliers ν with Jᵀ y - W y = Aᵀ ν."""
        if self.few:
            return (y[:, None] @ self.fields).reshape(like.shape), (y[:, None] @ self.taken)[:, 0]
        return self.kernel(self.jacobian.adjoint(y))

    def tangent(self, z: Tensor) -> Tensor:
        """The part of any field in ker A and orthogonal to the normals."""
        z, _ = self.kernel(z)
        return z - self.field(self.multiplier(z), z)[0]


class Curved:
    """The curved laws seen from the affine set of the linear ones.

    Arguments:
        kernel: projector onto the kernel of the linear laws.
        constraint: the curved laws.
    """

    def __init__(self, kernel: Kernel, constraint: Constraint) -> None:
        self.kernel, self.constraint = kernel, constraint

    def normals(self, v: Tensor) -> Normals:
        return Normals(self.kernel, self.constraint.jacobian(v), v)

    def curvature(self, v: Tensor, multiplier: Tensor, direction: Tensor) -> Tensor:
        """Sum of the curvatures of all laws, each with its own rows of the multiplier."""
        leaves = self.constraint.leaves()
        if len(leaves) == 1:
            return leaves[0].curvature(v, multiplier, direction)
        parts = multiplier.split([leaf.residual(v[:1]).shape[1] for leaf in leaves], dim=1)
        return torch.stack([leaf.curvature(v, rows, direction) for leaf, rows in zip(leaves, parts, strict=True)]).sum(0)

    def minimise(self, normals: Normals, v: Tensor, multiplier: Tensor, force: Tensor, fraction: float = 0.0) -> Tensor:
        """The tangent z with H z = force up to normals, H = I + curvature.

        The force is projected twice: the first pass leaves round-off of the whole force, which may be far larger than its tangent
        part and, off the tangent space, has no curvature to be divided by. Where the very first direction has negative curvature, far
        from a minimum, the step is the force itself.
        """

        def hessian(z: Tensor) -> Tensor:
            return normals.tangent(z + self.curvature(v, multiplier, z))

        size = force.flatten(1).norm(dim=1)
        tangent = normals.tangent(normals.tangent(force))
        z = conjugate_gradients(hessian, tangent, fraction=fraction, size=size, max_iterations=100)
        return torch.where(_spread(z.flatten(1).any(1), z), z, tangent)

    def newton(self, anchor: Tensor, guess: Tensor, tolerance: float, max_iterations: int) -> Solution:
        """The point nearest to `anchor` on the curved laws, from a guess in the same affine set."""
        v, iterations = guess, 0
        done = torch.zeros(len(anchor), dtype=torch.bool, device=anchor.device)
        while True:
            size = torch.maximum(anchor.abs(), v.abs()).flatten(1).amax(1).clamp_min(torch.finfo(anchor.dtype).tiny)
            residual, scale = self.constraint.measure(v)
            normals = self.normals(v)
            pull = anchor - v
            multiplier = normals.multiplier(pull)
            along, taken = normals.field(multiplier, v)
            gap = (pull - along).abs().flatten(1).amax(1)
            done = done | (residual.abs() <= tolerance / 2 * scale).all(1) & (gap <= tolerance / 2 * size)
            if done.all() or iterations == max_iterations:
                return Solution(v, multiplier, -taken, iterations)
            step = self._step(normals, v, pull, residual, multiplier)
            length = self._search(v, anchor, step, torch.maximum(multiplier.abs(), (multiplier + normals.solve(residual)).abs()))
            v = torch.where(_spread(done, v), v, v + _spread(length, v) * step)
            done = done | (step.abs().flatten(1).amax(1) <= 4 * torch.finfo(v.dtype).eps * size)
            iterations += 1

    def _step(self, normals: Normals, v: Tensor, pull: Tensor, residual: Tensor, multiplier: Tensor) -> Tensor:
        restore, _ = normals.field(normals.solve(-residual), v)
        force = pull - restore - self.curvature(v, multiplier, restore)
        return restore + self.minimise(normals, v, multiplier, force, fraction=1e-6)

    def _search(self, v: Tensor, anchor: Tensor, step: Tensor, multiplier: Tensor) -> Tensor:
        """Step length of each sample: halved until the merit falls, or full where the step is in Newton's own range.

        The merit ½|w - anchor|² + ρ|h|₁ is exact where ρ exceeds the multipliers, before and after the step.
        """
        weight = 2 * multiplier.amax(1)

        def merit(w: Tensor) -> Tensor:
            return (w - anchor).square().flatten(1).sum(1) / 2 + weight * self.constraint.residual(w).abs().sum(1)

        before = merit(v)
        small = step.abs().flatten(1).amax(1) <= 1e-3 * v.abs().flatten(1).amax(1)
        length = torch.ones_like(before)
        for _ in range(_HALVINGS):
            bad = ~small & ~(merit(v + _spread(length, v) * step) < before)
            if not bad.any():
                break
            length = torch.where(bad, length / 2, length)
        return length


def _spread(values: Tensor, like: Tensor) -> Tensor:
    """One value a sample, shaped so that it multiplies fields."""
    return values.reshape(-1, *(1,) * (like.ndim - 1))
