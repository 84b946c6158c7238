r"""Newton's method for curved laws inside the affine set of linear ones.

With P the projector onto the kernel of the linear laws and $J = \nabla h$, the normals of the curved laws seen from the affine set are
$W = P J^\top$. The step is the sum of the shortest move to feasibility, $-W (W^\top W)^{+} h$, and a move along the kernel of $W^\top$
that minimises the quadratic model of the objective, by conjugate gradients preconditioned with the projector onto that kernel. Every
solve is matrix-free and batched; samples take their own steps.

Where curvature is weak, $\|\sum_i\mu_i\nabla^2 h_i\| \ll 1$, the Gauss-Newton step from the anchor,
$v \leftarrow P$-nearest point of $h(v_k) + J_k(v - v_k) = 0$, contracts by just that factor and needs no inner iteration: laws of many rows
take it as long as it gains a decimal place a step. Where each row of J costs a reverse pass, the first J serves all steps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from constraints.constraint import Constraint, LinearConstraint
from constraints.face import Kernel
from constraints.linear.derivative import pullback
from constraints.linear.map import LinearMap, largest
from constraints.linear.solve import conjugate_gradients, pseudo_inverse
from constraints.linear.sparse import SparseGram
from constraints.linear.stacked import Stacked
from constraints.linear.structured import RowCombination, WeightedSum

FEW_ROWS = 16
"""Up to this many curved rows the fields P Jᵀ are formed; beyond, the Jacobian's own structure is used, or conjugate gradients."""

_HALVINGS = 12
"""Step halvings of the line search before a step is given up."""

_CONVEX = 0.05
"""Least curvature of a model whose minimum is trusted, of one of the plain distance; far from the solution it is raised to that."""

_FAR = 1e-4
"""Step, as a fraction of the field, above which the solution counts as far."""

_DIAGONAL = 1e-12
"""Share by which a curvature may differ from a diagonal: round-off."""

_PATIENCE = 40
"""Steps in a row that may leave the error above half the least so far: laws that contradict each other have no better end."""

_CHORDS = 2
"""Steps with one Jacobian that count as one with its own."""

_GAIN = 0.1
"""Factor by which a Gauss-Newton step must reduce the distance to the solution, or Newton's method takes over."""


class Solution(NamedTuple):
    """A point of the curved laws, with the multipliers of curved and of linear rows, and the curved laws' Jacobian there.

    It is settled where every sample meets the tolerance of both optimality conditions.
    """

    u: Tensor
    multiplier: Tensor
    linear_multiplier: Tensor
    iterations: int
    jacobian: LinearMap
    settled: bool


class Approach(NamedTuple):
    """A point on the way, the steps it took, and whether it meets the laws and a further step would not be seen."""

    u: Tensor
    iterations: int
    there: bool


class Normals:
    r"""The span of W = P Jᵀ at one field: solves of J P Jᵀ, and the projector onto its complement in ker A.

    Where P is a mask, W keeps the structure of J; where the rows are sums over space and P acts on each time alone, all their fields
    take one application of P. Else few rows are formed; many are solved together with the linear rows, by sparse factors of all,

    $$\begin{pmatrix} A D A^\top & A D J^\top\\ J D A^\top & J D J^\top\end{pmatrix}
    \begin{pmatrix}\nu\\ y\end{pmatrix} = \begin{pmatrix} 0\\ r\end{pmatrix},$$

    where those are known entry by entry; and take conjugate gradients where they are not.
    """

    def __init__(self, kernel: Kernel, jacobian: LinearMap, like: Tensor) -> None:
        self.kernel, self.jacobian = kernel, jacobian
        self.reduced = _timewise(kernel, jacobian)
        self.few = self.reduced is None and jacobian.rows <= FEW_ROWS
        self.structured = not self.few and kernel.is_mask
        if self.few:
            rows, batch = jacobian.rows, like.shape[0]
            eye = torch.eye(rows, dtype=like.dtype, device=like.device)
            self.fields = torch.stack([kernel.project(jacobian.adjoint(e.expand(batch, rows))) for e in eye], dim=1).flatten(2)
            self.inverse = pseudo_inverse(self.fields @ self.fields.mT)
        elif self.structured and self.reduced is None:
            self.reduced = jacobian if kernel.free is None else jacobian.weighted(kernel.free)
        self.joint = None if self.few or self.reduced is not None else _joint(kernel, jacobian)
        self.gram = None if self.joint is None else SparseGram.of(self.joint, len(like))
        self.factored = None if self.gram is None else self.gram.semidefinite(_free(kernel, like).flatten(1))

    def multiplier(self, z: Tensor) -> Tensor:
        """The y for which W y is the part of a field of ker A along the normals."""
        if self.few:
            return (self.inverse @ (self.fields @ z.flatten(1)[..., None]))[..., 0]
        return self.solve(self.jacobian(z))

    def solve(self, r: Tensor) -> Tensor:
        """A solution y of (J P Jᵀ) y = r."""
        if self.few:
            return (self.inverse @ r[..., None])[..., 0]
        if self.reduced is not None:
            return self.reduced.solve_gram(r)
        if self.factored is not None and self.joint is not None:
            return self.factored(torch.nn.functional.pad(r, (self.joint.rows - r.shape[1], 0)))[:, -r.shape[1] :]
        return conjugate_gradients(
            lambda y: self.jacobian(self.kernel.project(self.jacobian.adjoint(y))),
            r,
            preconditioner=self.jacobian.precondition,
            max_iterations=4 * r.shape[1] + 10,
        )

    def force(self, y: Tensor, like: Tensor) -> Tensor:
        """W y."""
        if self.few:
            return (y[:, None] @ self.fields).reshape(like.shape)
        return self.kernel.project(self.jacobian.adjoint(y)) if self.reduced is None else self.reduced.adjoint(y)

    def without(self, field: Tensor, y: Tensor) -> Tensor:
        """A field less W y."""
        return field - self.force(y, field) if self.reduced is None else self.reduced.without(field, y)

    def tangent(self, z: Tensor) -> Tensor:
        """The part of any field in ker A and orthogonal to the normals."""
        z = self.kernel.project(z)
        return z - self.force(self.multiplier(z), z)


def _joint(kernel: Kernel, jacobian: LinearMap) -> Stacked | None:
    """The linear rows that are no values given outright, then those of the Jacobian; None where there are none, or some are noisy."""
    rest = None if kernel.stack is None else kernel.stack.unselected
    return None if rest is None or rest.variance is not None else Stacked([rest, jacobian])


def _free(kernel: Kernel, like: Tensor) -> Tensor:
    """Which values the kernel leaves free, for each sample."""
    return torch.ones_like(like) if kernel.free is None else kernel.free.to(like).expand_as(like)


def _timewise(kernel: Kernel, jacobian: LinearMap) -> LinearMap | None:
    """J P for sums over space, one or a combination a time, under a projector that acts on each time alone."""
    sums = jacobian.inner if isinstance(jacobian, RowCombination) else jacobian
    dim = 1 - len(jacobian.shape)
    if kernel.is_mask or not (isinstance(sums, WeightedSum) and sums.batched and 1 < sums.rows == jacobian.shape[1]):
        return None
    if not (sums.acts_on_each(dim) and kernel.acts_on_each(dim)):
        return None
    reduced = WeightedSum(kernel.project(sums.weights), sums.dims, batched=True)
    return RowCombination(jacobian.matrix, reduced) if isinstance(jacobian, RowCombination) else reduced


class Curved:
    """The curved laws seen from the affine set of the linear ones.

    The objective is $\\frac12\\|v - u\\|^2$, plus half the squared misfit of laws observed with noise.

    Arguments:
        kernel: projector onto the kernel of the linear laws.
        constraint: the curved laws.
        noisy: laws observed with noise.
    """

    def __init__(self, kernel: Kernel, constraint: Constraint, noisy: list[LinearConstraint]) -> None:
        self.kernel, self.constraint, self.noisy = kernel, constraint, noisy

    def normals(self, v: Tensor) -> Normals:
        return Normals(self.kernel, self.constraint.jacobian(v), v)

    def _linearised(self, v: Tensor) -> tuple[Tensor, Normals]:
        residual, jacobian = self.constraint.linearise(v)
        return residual, Normals(self.kernel, jacobian, v)

    def curvature(self, v: Tensor, multiplier: Tensor, direction: Tensor) -> Tensor:
        """Sum of the curvatures of all laws, each with its own rows of the multiplier, and that of the misfits."""
        total = self.constraint.curvature(v, multiplier, direction)
        for law in self.noisy:
            total = total + law.operator.adjoint(law.operator(direction) / _noise(law, v))
        return total

    def misfit(self, v: Tensor) -> Tensor:
        """Half the squared misfit of the laws observed with noise, (B,)."""
        return sum(((law.residual(v).square() / _noise(law, v)).sum(1) / 2 for law in self.noisy), v.new_zeros(len(v)))

    def pull(self, v: Tensor, anchor: Tensor) -> Tensor:
        """The objective's force at v along the kernel."""
        return self.kernel.project(self._force(v, anchor)) if self.noisy else anchor - v

    def _force(self, v: Tensor, anchor: Tensor) -> Tensor:
        """Towards the anchor, and towards what is observed."""
        force = anchor - v
        for law in self.noisy:
            force = force - law.operator.adjoint(law.residual(v) / _noise(law, v))
        return force

    def diagonal_curvature(self, v: Tensor, multiplier: Tensor) -> Tensor | None:
        """The curvature where it is a diagonal, seen on one field of random signs and confirmed on another; None where it is not."""
        generator = torch.Generator().manual_seed(0)
        first, second = (torch.randint(0, 2, v.shape[1:], generator=generator).to(v).mul(2).sub(1).expand_as(v) for _ in range(2))
        diagonal = first * self.curvature(v, multiplier, first)
        error = self.curvature(v, multiplier, second) - diagonal * second
        return diagonal if largest(error).max() <= _DIAGONAL * largest(diagonal).max() else None

    def _direct(self, normals: Normals, diagonal: Tensor) -> Callable[[Tensor], Tensor]:
        """What finds the tangent z with H z = force up to normals for a diagonal H = 1 + c: structured or sparse solves in its metric."""
        root = (1 + diagonal).rsqrt()
        root = root if self.kernel.free is None else root * self.kernel.free.to(root)
        weighed = (normals.jacobian if normals.joint is None else normals.joint).weighted(root)
        solve = weighed.solve_gram if normals.gram is None else normals.gram.semidefinite(root.square().flatten(1))

        def model(force: Tensor) -> Tensor:
            pulled = root * force
            for _ in range(2):  # the second pass takes what round-off of the whole force left along the normals
                pulled = weighed.subtract(pulled, solve(weighed(pulled)))
            return pulled.mul_(root)

        return model

    def minimise(self, normals: Normals, v: Tensor, multiplier: Tensor, force: Tensor, fraction: float = 0.0, far: bool = False) -> Tensor:
        """The tangent z with H z = force up to normals, H = I + curvature.

        Where the laws have many structured rows and the curvature is a diagonal, the solve is direct; far from the solution with
        its curvature kept positive; near it that is the preconditioner where it is not. Else by conjugate gradients:

        the force is projected twice: the first pass leaves round-off of the whole force, which may be far larger than its tangent
        part and, off the tangent space, has no curvature to be divided by. Where the very first direction has negative curvature, far
        from a minimum, the step is the force itself.
        """
        diagonal = self.diagonal_curvature(v, multiplier) if normals.structured or normals.gram is not None else None
        model = None
        if diagonal is not None:
            model = self._direct(normals, diagonal.clamp_min(_CONVEX - 1))
            if far or bool((diagonal > _CONVEX - 1).all()):
                return model(force)

        def hessian(z: Tensor) -> Tensor:
            return normals.tangent(z + (self.curvature(v, multiplier, z) if diagonal is None else diagonal * z))

        size = None if model is not None else force.flatten(1).norm(dim=1)
        tangent = normals.tangent(normals.tangent(force))
        z = conjugate_gradients(hessian, tangent, preconditioner=model, fraction=fraction, size=size, max_iterations=100)
        return torch.where(_spread(z.flatten(1).any(1), z), z, tangent)

    def linear_multiplier(self, v: Tensor, anchor: Tensor, jacobian: LinearMap, multiplier: Tensor) -> Tensor:
        """What is observed pulls on linear rows too; without noise they take up what of the normals P takes away."""
        rest = self._force(v, anchor) if self.noisy else torch.zeros_like(v)
        return self.kernel(jacobian.subtract(rest, multiplier))[1]

    def solve(self, anchor: Tensor, guess: Tensor, tolerance: float, max_iterations: int) -> Solution:
        """The point nearest to `anchor` on the curved laws, from a guess in the same affine set."""
        many = self.constraint.residual(guess).shape[1] > FEW_ROWS
        near = self.approach(anchor, guess, tolerance, max_iterations) if many else Approach(guess, 0, False)
        solution = self.newton(anchor, near.u, tolerance, max_iterations - near.iterations)
        return solution._replace(iterations=solution.iterations + near.iterations)

    def approach(self, anchor: Tensor, guess: Tensor, tolerance: float, max_iterations: int) -> Approach:
        """Gauss-Newton steps from the anchor as far as they go, for laws of many rows; none beside observations with noise."""
        if self.noisy:
            return Approach(guess, 0, False)
        residual, normals = self._linearised(guess)
        if normals.jacobian.costly:
            v, spent, small = self._chords(anchor, guess, residual, normals, tolerance, max_iterations)
        else:
            v, spent, small = self._gauss_newton(anchor, guess, residual, normals, tolerance, max_iterations)
        if not small:
            return Approach(v, spent, False)
        residual, scale = self.constraint.measure(v)
        return Approach(v, spent, bool((residual.abs() <= tolerance / 2 * scale).all()))

    def _gauss_newton(
        self, anchor: Tensor, v: Tensor, residual: Tensor, normals: Normals, tolerance: float, max_iterations: int
    ) -> tuple[Tensor, int, bool]:
        """Steps from the anchor while all samples gain a decimal place a step; the last point that did, and whether the next is as near.

        The factor that a step gained tells how small the next one would be: it is not taken if it would not be seen.
        """
        previous = torch.full((len(v),), torch.inf, dtype=v.dtype, device=v.device)
        whole = largest(anchor)
        for spent in range(max_iterations):
            residual, normals = self._linearised(v) if spent else (residual, normals)
            multiplier = normals.solve(residual + normals.jacobian(anchor - v))
            new = normals.without(anchor, multiplier)
            step, size = largest(new - v), torch.maximum(whole, largest(new))
            gain = (step / previous).clamp_max(1.0) if spent else torch.ones_like(step)
            small = gain * step <= tolerance / 8 * size
            if not (small | (step <= _GAIN * previous)).all():
                return v, spent, False
            v, previous = new, step
            if small.all():
                return v, spent + 1, True
        return v, max_iterations, False

    def _chords(
        self, anchor: Tensor, v: Tensor, residual: Tensor, normals: Normals, tolerance: float, max_iterations: int
    ) -> tuple[Tensor, int, bool]:
        r"""Steps with one Jacobian, of the guess, in place of each point's own, where that is formed row by row:

        $$\begin{pmatrix} I & J_0^\top\\ J_0 & 0\end{pmatrix}\begin{pmatrix} d\\ \delta\end{pmatrix}
        = \begin{pmatrix} P(u - v - J(v)^\top\mu)\\ -h(v)\end{pmatrix},$$

        with one pulled-back cotangent a step. They go on while all samples halve their steps; results as of `_gauss_newton`.
        """
        multiplier = torch.zeros_like(residual)
        rest = self.kernel.project(anchor - v)
        previous, whole = torch.full((len(v),), torch.inf, dtype=v.dtype, device=v.device), largest(anchor)
        for spent in range(_CHORDS * max_iterations):
            more = normals.solve(residual + normals.jacobian(rest))
            change = normals.without(rest, more)
            step, size = largest(change), torch.maximum(whole, largest(v))
            gain = (step / previous).clamp_max(1.0) if spent else torch.ones_like(step)
            small = gain * step <= tolerance / 8 * size
            if not (small | (step <= previous / 2)).all():
                return v, spent, False
            v, multiplier, previous = v + change, multiplier + more, step
            if small.all():
                return v, spent + 1, True
            residual, pull = pullback(self.constraint.residual, v)
            rest = self.kernel.project(anchor - v - pull(multiplier))
        return v, _CHORDS * max_iterations, False

    def newton(self, anchor: Tensor, guess: Tensor, tolerance: float, max_iterations: int) -> Solution:
        """Newton's method from a guess, globalised by a merit function."""
        v, iterations, far = guess, 0, True
        done = torch.zeros(len(anchor), dtype=torch.bool, device=anchor.device)
        best, idle = anchor.new_full((len(anchor),), torch.inf), torch.zeros(len(anchor), dtype=torch.int64, device=anchor.device)
        while True:
            size = torch.maximum(largest(anchor), largest(v)).clamp_min(torch.finfo(anchor.dtype).tiny)
            residual, normals = self._linearised(v)
            scale = self.constraint.scale(v)
            pull = self.pull(v, anchor)
            multiplier = normals.multiplier(pull)
            rest = pull - normals.force(multiplier, v)
            obeyed = (residual.abs() <= tolerance / 2 * scale).all(1)
            if bool(((done | obeyed) & (largest(rest) > tolerance / 2 * size)).any()):  # due, or round-off of the multiplier?
                multiplier = multiplier + normals.multiplier(rest)
                rest = pull - normals.force(multiplier, v)
            gap = largest(rest)
            settled = obeyed & (gap <= tolerance / 2 * size)
            error = torch.maximum(largest(residual / scale.clamp_min(torch.finfo(v.dtype).tiny)), gap / size)
            fell = error < best / 2
            best, idle = torch.where(fell, error, best), torch.where(fell, 0, idle + 1)
            done = done | settled | (idle > _PATIENCE)
            if done.all() or iterations == max_iterations:
                linear = self.linear_multiplier(v, anchor, normals.jacobian, multiplier)
                return Solution(v, multiplier, linear, iterations, normals.jacobian, bool(settled.all()))
            step = self._step(normals, v, pull, residual, multiplier, far).nan_to_num(0.0, 0.0, 0.0)
            far = bool(((largest(step) > _FAR * size) & ~done).any())
            length = self._search(v, anchor, step, torch.maximum(multiplier.abs(), (multiplier + normals.solve(residual)).abs()))
            v = torch.where(_spread(done, v), v, v + _spread(length, v) * step)
            done = done | (largest(step) <= 4 * torch.finfo(v.dtype).eps * size) | (length == 0)
            iterations += 1

    def _step(self, normals: Normals, v: Tensor, pull: Tensor, residual: Tensor, multiplier: Tensor, far: bool) -> Tensor:
        restore = normals.force(normals.solve(-residual), v)
        force = pull - restore - self.curvature(v, multiplier, restore)
        return restore + self.minimise(normals, v, multiplier, force, fraction=1e-6, far=far)

    def _search(self, v: Tensor, anchor: Tensor, step: Tensor, multiplier: Tensor) -> Tensor:
        """Step length of each sample: halved until the merit falls, or full where the step is in Newton's own range; zero if it never does.

        The merit ½|w - anchor|² + ρ|h|₁ is exact where ρ exceeds the multipliers, before and after the step.
        """
        weight = 2 * multiplier.amax(1)

        def merit(w: Tensor) -> Tensor:
            near = (w - anchor).square().flatten(1).sum(1) / 2 + self.misfit(w)
            return near + weight * self.constraint.residual(w).abs().sum(1)

        before = merit(v)
        small = largest(step) <= 1e-3 * largest(v)
        length = torch.ones_like(before)
        for _ in range(_HALVINGS):
            bad = ~small & ~(merit(v + _spread(length, v) * step) < before)
            if not bad.any():
                break
            length = torch.where(bad, length / 2, length)
        return torch.where(~small & ~(merit(v + _spread(length, v) * step) < before), 0.0, length)


def _noise(law: LinearConstraint, like: Tensor) -> Tensor:
    assert law.variance is not None
    return law.variance.to(like).clamp_min(torch.finfo(like.dtype).tiny)


def _spread(values: Tensor, like: Tensor) -> Tensor:
    """One value a sample, shaped so that it multiplies fields."""
    return values.reshape(-1, *(1,) * (like.ndim - 1))
