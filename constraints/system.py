"""Laws sorted by what solves them, and the certificate of what was found."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from constraints.active import BULK, SINGLE, Active, Problem, Sets, nearest_on_face
from constraints.constraint import Constraint, Intersection, LinearConstraint
from constraints.dual import Rows, nearest_within
from constraints.face import ActiveRows, AffineKernel, FaceKernel
from constraints.implicit import Conditions
from constraints.inequality import Box
from constraints.interior import RELAX, interior
from constraints.kkt import FEW_ROWS, Approach, Curved, Solution
from constraints.linear.derivative import transforming
from constraints.linear.map import LinearMap, largest
from constraints.linear.stacked import Stacked
from constraints.restoration import least_violation, violation, weights
from constraints.viewed import ViewedSystem, viewed

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-6}
"""Default tolerances, relative to a law's natural scale: some hundred roundings for sums over 10^4 to 10^6 points."""

_MARGIN = 1e-3
"""Share of the tolerance to which fields are solved that are rounded to single precision afterwards."""

_COMPROMISED = 1e-9
"""Share of its scale beyond which a law counts as broken by a compromise, which an iteration finds."""

_PASSES = 3
"""Corrections of linear laws: the first reaches round-off relative to the input, another one relative to the result."""


_KEPT = 0.5
"""Share of the input's norm, channel by channel, that is left where its round-off counts as that of the result."""

_FAR_OFF = 0.9
"""Share of a field's norm that the centre of its ray may have, if what is between them counts as free of round-off."""

_LAST = 5
"""Exchanges of active sets that begin next to the solution."""

_ROUND_OFF = 256 * torch.finfo(torch.float64).eps
_TINY = torch.finfo(torch.float64).tiny


class Found(NamedTuple):
    """A solution before its certificate: fields, multipliers of all rows in order, Newton steps, and its optimality conditions.

    Jacobians of the curved laws at these fields, where the search has them, need not be formed again.
    """

    u: Tensor
    multiplier: Tensor
    iterations: int
    conditions: Conditions
    jacobians: Sequence[LinearMap] = ()


class _Pass(NamedTuple):
    """What one pass over linear, then curved laws found, with what works out the multipliers.

    Attributes:
        u: fields.
        iterations: Newton steps.
        settled: whether the structure of the laws, or tests on the way, leave only the round-off of the input.
        flat: the nearest fields under the linear laws alone.
        linear: their multipliers.
        found: the solution with all multipliers.
    """

    u: Tensor
    iterations: int
    settled: bool
    flat: Tensor
    linear: Callable[[], Tensor]
    found: Callable[[], Found]


class Certified(NamedTuple):
    """A solution with its certificate, as `ProjectionResult`."""

    u: Tensor
    multiplier: Tensor
    violation: Tensor
    stationarity: Tensor
    complementarity: Tensor
    converged: Tensor
    obeyed: Tensor
    iterations: int
    conditions: Conditions


class Solved(NamedTuple):
    """A solution as rounded to its type, and what evaluates its certificate; sure where it is known to be lawful without."""

    u: Tensor
    iterations: int
    certificate: Callable[[], Certified]
    sure: bool = False


def _settled(result: Certified) -> Solved:
    return Solved(result.u, result.iterations, lambda: result)


def _norms(u: Tensor) -> Tensor:
    """The norm of each channel, (B, C)."""
    return torch.linalg.vector_norm(u.flatten(2), dim=2)


def system_of(constraint: Constraint) -> System:
    """The constraint sorted, kept with it: the structure is found once."""
    cached = constraint.__dict__.get("_projection_system")
    if cached is None:
        cached = System(constraint)
        constraint.__dict__["_projection_system"] = cached
    assert isinstance(cached, System)
    return cached


class System:
    """A constraint prepared for projection: linear laws stacked, curved ones and inequalities on top."""

    def __init__(self, constraint: Constraint) -> None:
        self.leaves = constraint.leaves()
        self.boxes = [leaf for leaf in self.leaves if isinstance(leaf, Box)]
        straight = [leaf for leaf in self.leaves if isinstance(leaf, LinearConstraint)]
        curved: list[Constraint] = [leaf for leaf in self.leaves if not isinstance(leaf, (LinearConstraint, Box))]
        slanted = [leaf for leaf in straight if leaf.inequality]
        noisy = [leaf for leaf in straight if leaf.variance is not None and not leaf.inequality]
        exact = [leaf for leaf in straight if leaf.variance is None and not leaf.inequality]
        self.bent = [*curved, *slanted]
        # Beside curved laws or inequalities a noisy law is part of the objective; alone with linear ones, of the elimination.
        self.noisy = noisy if self.bent else []
        self.linear = exact if self.bent else [leaf for leaf in straight if not leaf.inequality]
        self.stack = Stacked([leaf.operator for leaf in self.linear]) if self.linear else None
        self.bends = None if not self.bent else self.bent[0] if len(self.bent) == 1 else Intersection(*self.bent)
        self.dual = not curved and bool(self.boxes or slanted)
        self.unequal = any(leaf.inequality for leaf in self.leaves)
        self.slanted = slanted
        held = [leaf for leaf in [*exact, *self.bent] if leaf.variance is None]
        self.held = None if not held else held[0] if len(held) == 1 else Intersection(*held)
        self._dual_map: LinearMap | None = None
        self._dual_free: LinearMap
        self._flat: System | None = None
        self.names = tuple(leaf.name for leaf in self.leaves)
        self._looked = False
        self._null: Tensor | None = None
        self._direct: bool | None = None
        self._many: bool | None = None
        self._goal: tuple[list[tuple[Tensor, int, torch.dtype, torch.device]], Tensor | None] | None = None
        self._sound: tuple[Tensor, float, bool] | None = None
        self._middle: tuple[Tensor | None, Tensor, Tensor] | None = None
        self._outright: tuple[Tensor | None, Tensor] | None = None

    @functools.cached_property
    def kernel(self) -> AffineKernel:
        """The projector onto the kernel of the linear laws."""
        return AffineKernel(self.stack)

    @functools.cached_property
    def viewed(self) -> ViewedSystem | None:
        """The curved laws in what they see, where values are given outright or free."""
        shape = next((leaf.field_shape for leaf in self.bent if leaf.field_shape is not None), None)
        return viewed(self.bent, self.kernel.free, shape) if self.kernel.is_mask and shape is not None else None

    def solve(
        self, u: Tensor, size: Tensor, tolerance: float, max_iterations: int, dtype: torch.dtype, *, restoring: bool = True
    ) -> Solved:
        """Project and round to a type.

        Where the structure of the laws, or Newton's own tests, say that the result is exact to round-off of itself, the certificate is left
        to be evaluated when it is asked for. Elsewhere it is evaluated here, and where linear laws are left above tolerance by
        cancellation, the result is corrected once more.

        Arguments:
            size: the norm of each channel, (B, C).
            restoring: whether fields that break curved laws or inequalities are replaced by those of least violation.
        """
        aim = tolerance if dtype == u.dtype else _MARGIN * tolerance
        if self.unequal:
            found = self._dual(u, aim, max_iterations) if self.dual else self._active(u, aim, max_iterations)
            result = self.certify(u, found, tolerance, dtype)
            return _settled(self.restored(u, result, tolerance, dtype) if restoring else result)
        target = self.target(u)
        sure = not (self.noisy or transforming()) and self._consistent(u, target, tolerance)
        first = self._closed(u, size, target, aim) if sure else None
        first = self._affine(u, u, target, None, aim, max_iterations, trusting=sure) if first is None else first
        if sure and self._exact(first, size):
            found_later = first.found
            return Solved(first.u.to(dtype).to(u), first.iterations, lambda: self.certify(u, found_later(), tolerance, dtype), sure=True)
        result, last = self.certify(u, first.found(), tolerance, dtype), first
        for _ in range(_PASSES - 1):
            if self.stack is None or result.converged.all() or not self._unmet(last.flat, last.linear(), tolerance):
                break
            last = self._affine(u, last.flat, target, last.linear(), aim, max_iterations)
            result = self.certify(u, last.found(), tolerance, dtype)
        if self.stack is not None and not result.converged.all() and self._unmet(last.flat, last.linear(), tolerance):
            target = self._reachable(self.stack.compromise(u, target), target)
            result = self.certify(u, self._affine(u, u, target, None, aim, max_iterations).found(), tolerance, dtype)
        if self.bends is not None and not self.noisy and not result.converged.all():
            back = self.certify(u, self._back(u, result, target), tolerance, dtype)
            result = back if int(back.converged.sum()) > int(result.converged.sum()) else result
        return _settled(self.restored(u, result, tolerance, dtype) if restoring else result)

    def restored(self, u: Tensor, result: Certified, tolerance: float, dtype: torch.dtype) -> Certified:
        """The result, but where it breaks curved laws or inequalities that with least violation: from there, and where that does not end
        lawful, from the input too, whichever breaks laws less. Linear laws alone have had their compromise."""
        beyond = [self.unequal or any(leaf is other for other in self.bent) for leaf in self.leaves]
        broken = (~result.obeyed & torch.tensor(beyond, device=u.device)).any(1)
        if self.held is None or not bool(broken.any()):
            return result
        lower, upper = self._box(u)
        inside, found = (torch.minimum(torch.maximum(v, lower), upper) for v in (u, result.u.nan_to_num()))
        weight, spread = weights(self.held, inside), (-1, *(1,) * (u.ndim - 1))
        better = violation(self.held, found, weight) < violation(self.held, inside, weight)
        near = torch.where((better & broken).reshape(spread), found, inside)
        point, other = least_violation(self.held, near, lower, upper, weight, broken, _MARGIN * tolerance), None
        left = broken & better & (point.violation > tolerance**2)
        if bool(left.any()):
            other = least_violation(self.held, inside, lower, upper, weight, left, _MARGIN * tolerance)
        v = point.u if other is None else torch.where((left & (other.violation < point.violation)).reshape(spread), other.u, point.u)
        v, spent = torch.where(broken.reshape(spread), v, result.u), point.iterations + (0 if other is None else other.iterations)
        multiplier = torch.where(broken[:, None], 0.0, result.multiplier)  # those of a nearest point, which this is not
        return self.certify(u, Found(v, multiplier, result.iterations + spent, result.conditions), tolerance, dtype)

    def _consistent(self, u: Tensor, target: Tensor | None, tolerance: float) -> bool:
        """Whether one elimination meets all linear laws to round-off of the input: what no free value can change is as it should be."""
        if self.stack is None:
            return True
        if not self._looked:
            self._null, self._looked = self.stack.null_rows() if self.stack.variance is None else None, True
        if self._null is None:
            return False
        if target is None:
            return True
        if self._sound is None or self._sound[0] is not target or self._sound[1] != tolerance:
            self._sound = target, tolerance, self.stack.homogeneous(target) and self._given_hold(u, target, self._null, tolerance)
        return self._sound[2]

    def _given_hold(self, u: Tensor, target: Tensor, null: Tensor, tolerance: float) -> bool:
        """Whether values given outright meet the rows that see nothing else."""
        assert self.stack is not None
        if not bool(null.any()):
            return True
        given = self.stack.select(u.new_zeros(len(target), *u.shape[1:]), target)
        for leaf, rows, b in zip(self.linear, self._per_law(null[None]), self._per_law(target), strict=True):
            values, scale = leaf.operator.measure(given)
            if bool((rows & ((values - b).abs() > tolerance / 4 * torch.maximum(scale, b.abs()))).any()):
                return False
        return True

    def _per_law(self, rows: Tensor) -> tuple[Tensor, ...]:
        """What belongs to each of the stacked laws."""
        return rows.split([leaf.operator.rows for leaf in self.linear], dim=1)

    def _exact(self, found: _Pass, size: Tensor) -> bool:
        """Whether what was found needs no check: round-off of the input is that of the result too."""
        if not found.settled:
            return False
        return self.kernel.is_mask or bool((_norms(found.flat) >= _KEPT * size).all())

    def _closed(self, u: Tensor, size: Tensor, target: Tensor | None, aim: float) -> _Pass | None:
        """The closed form of a single curved law, where it is exact, and what it found lawful; its multipliers are left for later."""
        if len(self.bent) != 1 or self.kernel.is_mask:
            return None
        law, stack = self.bent[0], self.stack
        if self._direct is None:
            self._direct = law.exact(self.kernel)
        if not self._direct or stack is None:
            return None
        flat, linear = stack.solve(u, target)
        centre, middle = self._centre(u, target)
        v = law.retract(flat, centre)
        residual, scale = law.measure(v)
        lawful = bool((residual.abs() <= aim / 2 * scale).all())
        # The offset from the centre is stretched: it must not be round-off of the two.
        if not lawful or bool((middle > _FAR_OFF * _norms(flat)).any()):
            return None

        def found() -> Found:
            curved = Curved(self.kernel, law, [])
            return self._found(curved, curved.newton(flat, v, aim, 0), linear())

        return _Pass(v, 1, True, flat, linear, found)

    def _centre(self, u: Tensor, target: Tensor | None) -> tuple[Tensor, Tensor]:
        """The point of the affine set that is nearest to the focus of a single curved law, and its norms, kept for the last target."""
        if self._middle is not None and self._middle[0] is target and self._middle[1].device == u.device and not transforming():
            return self._middle[1:]
        focus = self.bent[0].focus(u)
        if self.stack is not None:
            focus = self.stack.field(focus.expand(1 if target is None else len(target), *focus.shape[1:]), target)
        found = focus, _norms(focus)
        if not transforming():
            self._middle = target, *found
        return found

    def _given(self, u: Tensor, target: Tensor | None) -> Tensor:
        """The values given outright, zero elsewhere, (B or 1, C, *N); the same tensor as long as the target is."""
        if self._outright is None or self._outright[0] is not target or self._outright[1].device != u.device or transforming():
            field = u.new_zeros(1 if target is None else len(target), *u.shape[1:])
            self._outright = target, field if self.stack is None else self.stack.select(field, target)
        return self._outright[1]

    def _found(self, curved: Curved, solution: Solution, linear: Tensor) -> Found:
        """A solution of the curved laws with the multipliers of all laws."""
        conditions = Conditions(self.kernel, curved, solution.multiplier, self._order)
        multiplier = self._order(linear + solution.linear_multiplier, solution.multiplier, torch.zeros(0), solution.u)
        joint = solution.jacobian
        known = joint.blocks if len(self.bent) > 1 and isinstance(joint, Stacked) else [joint]
        return Found(solution.u, multiplier, max(solution.iterations, 1), conditions, known)

    def _back(self, u: Tensor, result: Certified, target: Tensor | None) -> Found:
        """Once more onto the affine set: Newton's steps keep to it, and multipliers balance, up to the round-off of its projector."""
        v, multiplier = result.u, result.multiplier
        if self.stack is not None:
            v = self.stack.field(v, target)
            parts = multiplier.split([leaf.residual(v).shape[1] for leaf in self.leaves], dim=1)
            rest = u - v
            for leaf, part in zip(self.leaves, parts, strict=True):
                rest = leaf.jacobian(v).subtract(rest, part)
            bent = rest.new_zeros(len(u), result.conditions.multiplier.shape[1])
            multiplier = multiplier + self._order(self.stack.nearest(rest)[1], bent, rest, v)
        return Found(v, multiplier, result.iterations, result.conditions)

    def _affine(
        self,
        u: Tensor,
        start: Tensor,
        target: Tensor | None,
        known: Tensor | None,
        aim: float,
        max_iterations: int,
        trusting: bool = False,
    ) -> _Pass:
        """One pass for equalities: linear laws from a start with known multipliers, then curved ones.

        Trusting, the multipliers of a point where Gauss-Newton steps end, which they do not need, are left for later.
        """
        linear: Callable[[], Tensor]
        if self.stack is None:
            flat, linear = start, lambda: u.new_zeros(len(u), 0)
        elif known is None:
            flat, linear = self.stack.solve(start, target)
        else:
            flat, refined = self._refined(u, start, known, target)
            linear = lambda: refined  # noqa: E731
        if self.bends is None:

            def found() -> Found:
                conditions = Conditions(self.kernel, None, u.new_zeros(len(u), 0), self._order)
                return Found(flat, self._order(linear(), conditions.multiplier, torch.zeros(0), flat), 1, conditions)

            return _Pass(flat, 1, True, flat, linear, found)
        curved = Curved(self.kernel, self.bends, self.noisy)
        if trusting and self.viewed is not None:
            v, steps, settled = self.viewed.nearest(flat, self._given(u, target), aim, max_iterations)
            return _Pass(v, max(steps, 1), settled, flat, linear, lambda: self._found(curved, curved.newton(flat, v, aim, 0), linear()))
        guess = self._guess(flat, target)
        if self._many is None:
            self._many = self.bends.residual(guess).shape[1] > FEW_ROWS
        near = curved.approach(flat, guess, aim, max_iterations) if self._many else Approach(guess, 0, False)
        if trusting and near.there and self.kernel.is_mask:
            return _Pass(
                near.u, near.iterations, True, flat, linear, lambda: self._found(curved, curved.newton(flat, near.u, aim, 0), linear())
            )
        solution = curved.newton(flat, near.u, aim, max_iterations - near.iterations)
        solution = solution._replace(iterations=solution.iterations + near.iterations)
        settled = solution.settled and self.kernel.is_mask
        return _Pass(solution.u, max(solution.iterations, 1), settled, flat, linear, lambda: self._found(curved, solution, linear()))

    def _refined(self, u: Tensor, v: Tensor, linear: Tensor, target: Tensor | None) -> tuple[Tensor, Tensor]:
        """One step of iterative refinement of the linear optimality conditions."""
        assert self.stack is not None
        rows = -self.stack(v) if target is None else target - self.stack(v)
        if self.stack.variance is not None:
            rows = rows + self.stack.variance.to(u) * linear
        dv, more = self.stack.nearest(u - v - self.stack.adjoint(linear), rows)
        return v + dv, linear + more

    def _reachable(self, v: Tensor, target: Tensor | None) -> Tensor:
        """The targets that a compromise keeps: those of laws it obeys and of noisy ones, and what it reaches of the others."""
        parts = [None] * len(self.linear) if target is None else list(target.split([leaf.operator.rows for leaf in self.linear], dim=1))
        reached = []
        for leaf, b in zip(self.linear, parts, strict=True):
            residual, scale = leaf.measure(v)
            obeyed = (residual.abs() <= _COMPROMISED * scale).all(1, keepdim=True) | (leaf.variance is not None)
            wanted = torch.zeros_like(residual) if b is None else b.expand_as(residual)
            reached.append(torch.where(obeyed, wanted, wanted + residual))
        return torch.cat(reached, dim=1)

    def _dual(self, u: Tensor, aim: float, max_iterations: int) -> Found:
        """Bounds and linear inequalities beside linear laws."""
        lower, upper = self._box(u)
        target, stack = self.target(u), self.stack
        given = None
        if stack is not None and stack.free is not None:  # values given outright are bounds that leave no room
            given = stack.select(torch.zeros_like(u), target)
            taken = stack.free.to(u) == 0
            lower, upper = torch.where(taken, given, lower), torch.where(taken, given, upper)
        rows = self._rows(torch.minimum(torch.maximum(u, lower), upper), target, given, aim)
        point = nearest_within(u, lower, upper, rows, 2 * max_iterations)
        y, equal = point.multiplier, self._equal_rows(u)
        straight, bent = y[:, :equal], y[:, equal:]
        free = ((point.u > lower) & (point.u < upper)).to(u)
        kernel = FaceKernel(stack, free)
        active = None if self.bends is None else ActiveRows(self.bends, (bent > 0).to(u))
        curved = None if active is None else Curved(kernel, active, self.noisy)
        held = u - point.u if self._dual_map is None else u - point.u - self._dual_map.adjoint(y)
        linear = self._linear(held, straight, u)
        if stack is not None and stack.free is not None:
            held = held * stack.free.to(u)
        multiplier = self._order(linear, bent, held, point.u)
        return Found(point.u, multiplier, point.iterations, Conditions(kernel, curved, bent, self._order))

    def _equal_rows(self, u: Tensor) -> int:
        rest = None if self.stack is None else self.stack.unselected
        observed = sum(law.operator.rows for law in self.noisy)
        return (0 if rest is None else rest.rows) + observed

    def _linear(self, held: Tensor, straight: Tensor, u: Tensor) -> Tensor:
        """Multipliers of the stacked laws, then of noisy ones beside them."""
        observed = sum(law.operator.rows for law in self.noisy)
        own = straight[:, : straight.shape[1] - observed]
        if self.stack is None:
            return straight[:, straight.shape[1] - observed :]
        free = self.stack.free
        outright = held if free is None else held * (1 - free.to(u))
        stacked = self.stack.multipliers(outright, own if own.shape[1] else None)
        return torch.cat([stacked, straight[:, straight.shape[1] - observed :]], dim=1)

    def _rows(self, near: Tensor, target: Tensor | None, given: Tensor | None, aim: float) -> Rows | None:
        """Linear rows that are no values given outright: equalities, noisy ones, inequalities; on the values that are free.

        What counts as met is measured near the result, within bounds."""
        rest = None if self.stack is None else self.stack.unselected
        others = [*self.noisy, *self.slanted]
        if rest is None and not others:
            return None
        if self._dual_map is None:
            maps = ([] if rest is None else [rest]) + [law.operator for law in others]
            self._dual_map = maps[0] if len(maps) == 1 else Stacked(maps)
            free = None if self.stack is None else self.stack.free
            self._dual_free = self._dual_map if free is None else self._dual_map.weighted(free)
        targets, unequal, tolerances = [], [], []
        if rest is not None and self.stack is not None:
            zero = near.new_zeros(len(near), self.stack.rows) if target is None else target.expand(len(near), -1)
            targets.append(self.stack.target_of_unselected(zero))
            unequal.append(torch.zeros(rest.rows, dtype=torch.bool, device=near.device))
            scales = [leaf.scale(near).expand(len(near), leaf.operator.rows) for leaf in self.linear]
            tolerances.append(self.stack.target_of_unselected(torch.cat(scales, dim=1)))
        for law in others:
            targets.append(law.target.detach().to(near).expand(len(near), law.operator.rows))
            unequal.append(torch.full((law.operator.rows,), law.inequality, device=near.device))
            tolerances.append(law.scale(near).expand(len(near), law.operator.rows))
        b = torch.cat(targets, dim=1) - (0.0 if given is None else self._dual_map(given))
        return Rows(self._dual_free, b, torch.cat(unequal), aim / 100 * torch.cat(tolerances, dim=1))

    def _active(self, u: Tensor, aim: float, max_iterations: int) -> Found:
        """Inequalities beside curved laws."""
        assert self.bends is not None
        lower, upper = self._box(u)
        marks = torch.cat([torch.full((leaf.residual(u).shape[1],), leaf.inequality, device=u.device) for leaf in self.bent])
        problem = Problem(self.stack, self.target(u), self.bends, marks, self.noisy, lower, upper)

        def exchanged(begun: Sets, bulk: int = BULK, single: int = 0) -> Active:
            return nearest_on_face(problem, u, begun, aim, max_iterations, bulk=bulk, single=single)

        near = self._near(u, lower, upper, marks) if self.slanted else None  # many rows, of which few exchanges find the right ones
        if near is not None:
            point = exchanged(near, bulk=_LAST)
        else:
            none = torch.zeros_like(u, dtype=torch.bool)
            point = exchanged(Sets(self._holding(u, aim, max_iterations), none, none))
            near = None if point.settled or self.slanted else self._near(u, lower, upper, marks)
            point = point if near is None else exchanged(near, bulk=_LAST)
            point = point if point.settled else exchanged(point.sets, bulk=0, single=SINGLE)
        multiplier = self._order(point.linear_multiplier, point.multiplier, point.force, point.u)
        return Found(point.u, multiplier, point.iterations, Conditions(point.kernel, point.curved, point.multiplier, self._order))

    def _near(self, u: Tensor, lower: Tensor, upper: Tensor, marks: Tensor) -> Sets | None:
        """Sets of a point next to the nearest one, where all rows are sparse and none is noisy."""
        assert self.bends is not None
        bends, stack, target = self.bends, self.stack, self.target(u)
        if self.noisy:
            return None
        free, rest, goal, equal = None, None, None, 0
        if stack is not None:
            free, rest = stack.free, stack.unselected
            equal = 0 if rest is None else rest.rows
            goal = None if target is None or rest is None else stack.target_of_unselected(target.expand(len(u), -1))
            if free is not None:  # values given outright are bounds that leave no room
                given, free = stack.select(torch.zeros_like(u), target), free.to(u)
                lower, upper = torch.where(free == 0, given, lower), torch.where(free == 0, given, upper)

        def law(v: Tensor) -> tuple[Tensor, LinearMap]:
            residual, jacobian = bends.linearise(v)
            if rest is None:
                return residual, jacobian
            straight = rest(v) if goal is None else rest(v) - goal
            return torch.cat([straight, residual], dim=1), Stacked([rest, jacobian])

        curved = Curved(AffineKernel(None), bends, [])
        unequal = torch.cat([marks.new_zeros(equal), marks])
        found = interior(u, lower, upper, law, unequal, curvature=lambda v, y: curved.diagonal_curvature(v, y[:, equal:]), relax=RELAX)
        if found is None:
            return None
        above, below = (held if free is None else held & (free > 0) for held in (found.above, found.below))
        return Sets(~marks | found.rows[:, equal:], above, below, found.u)

    def _holding(self, u: Tensor, aim: float, max_iterations: int) -> Tensor:
        """Which rows to begin with: equalities, and linear inequalities that hold with equality where curved laws are left out."""
        begun = []
        flat = None
        if self.slanted:
            if self._flat is None:
                self._flat = System(Intersection(*(leaf for leaf in self.leaves if isinstance(leaf, (LinearConstraint, Box)))))
            flat = iter(self._flat.slanted_multipliers(self._flat._dual(u, aim, max_iterations)))
        for leaf in self.bent:
            if isinstance(leaf, LinearConstraint) and flat is not None:
                begun.append(next(flat) > 0)
            else:
                begun.append(torch.full((len(u), leaf.residual(u).shape[1]), not leaf.inequality, device=u.device))
        return torch.cat(begun, dim=1)

    def slanted_multipliers(self, found: Found) -> list[Tensor]:
        """Those of the linear inequalities out of all."""
        parts = found.multiplier.split([leaf.residual(found.u).shape[1] for leaf in self.leaves], dim=1)
        return [part for leaf, part in zip(self.leaves, parts, strict=True) if any(leaf is other for other in self.slanted)]

    def _box(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """All bounds together."""
        lower, upper = torch.full_like(u[:1], -torch.inf), torch.full_like(u[:1], torch.inf)
        for box in self.boxes:
            low, high = box.box(u)
            lower, upper = torch.maximum(lower, low), torch.minimum(upper, high)
        return torch.minimum(lower, upper), upper

    def target(self, u: Tensor) -> Tensor | None:
        """Targets of all stacked rows, (1, m) or (B, m), None if all are zero; the same tensor as long as the laws hold the same."""
        own = [leaf.target for leaf in self.linear]
        if transforming() or any(target.is_inference() for target in own):
            return self._joined(own, u)
        key = [(target, target._version, u.dtype, u.device) for target in own]
        if self._goal is None or any(a[0] is not b[0] or a[1:] != b[1:] for a, b in zip(key, self._goal[0], strict=True)):
            self._goal = key, self._joined(own, u)
        return self._goal[1]

    def _joined(self, own: list[Tensor], u: Tensor) -> Tensor | None:
        if not any(bool(target.any()) for target in own):
            return None
        rows = [target.detach().to(u).reshape(-1, target.shape[-1]) for target in own]
        batch = max(t.shape[0] for t in rows)
        return torch.cat([t.expand(batch, leaf.operator.rows) for t, leaf in zip(rows, self.linear, strict=True)], dim=1)

    def _unmet(self, flat: Tensor, linear: Tensor, tolerance: float) -> bool:
        """Whether a stacked law is above its tolerance."""
        parts = linear.split([leaf.operator.rows for leaf in self.linear], dim=1)
        for leaf, multiplier in zip(self.linear, parts, strict=True):
            residual, scale = leaf.measure(flat)
            if bool((_less_noise(leaf, residual, multiplier).abs() > tolerance * scale).any()):
                return True
        return False

    def _guess(self, flat: Tensor, target: Tensor | None) -> Tensor:
        """The closed form of a single curved law, seen from the point of the affine set nearest to the origin."""
        if len(self.bent) != 1:
            return flat
        return self.bent[0].retract(flat, self._centre(flat, target)[0])

    def certify(self, u: Tensor, found: Found, tolerance: float, dtype: torch.dtype) -> Certified:
        """Evaluate on the result, as rounded to its type, what it claims."""
        v = found.u.to(dtype).to(u)
        known = dict(zip(map(id, self.bent), found.jacobians, strict=True)) if found.jacobians and dtype == found.u.dtype else {}
        measured = [leaf.measure(v) for leaf in self.leaves]
        parts = found.multiplier.split([residual.shape[1] for residual, _ in measured], dim=1)
        rest, obeyed, excess, wrong, allowed = u - v, [], [], [], []
        size = torch.maximum(largest(u), largest(v))
        for leaf, (residual, scale), multiplier in zip(self.leaves, measured, parts, strict=True):
            jacobian = known[id(leaf)] if id(leaf) in known else leaf.jacobian(v)
            rest = jacobian.subtract(rest, multiplier)
            broken = leaf.excess(_less_noise(leaf, residual, multiplier))
            holds = (broken <= tolerance * scale).all(1)
            if not bool(holds.all()) and (self.unequal or isinstance(leaf, LinearConstraint)):
                # Where laws have made a law's terms vanish, what is left of them before counts: round-off where bounds are met in one
                # sweep, the tolerance of the tolerance where linear laws are corrected once more.
                left = _ROUND_OFF if self.unequal else tolerance**2
                holds = (broken <= torch.maximum(tolerance * scale, left * leaf.scale(u))).all(1)
            obeyed.append(holds)
            excess.append(broken.amax(1) if broken.shape[1] else broken.sum(1))
            if leaf.inequality and broken.shape[1]:
                slack = torch.where(torch.isfinite(residual), residual, 0.0)
                wrong.append(torch.maximum((multiplier * slack).abs(), -multiplier).amax(1))
                # A multiplier's natural size is its own, or that which moves the field by its own size.
                own = torch.maximum(multiplier.abs().amax(1, keepdim=True), size[:, None].square() / scale.clamp_min(_TINY))
                allowed.append(((multiplier * slack).abs() <= tolerance * own * scale) & (-multiplier <= tolerance * own))
        stationarity = largest(rest)
        held = torch.stack(obeyed, dim=1)
        converged = held.all(1) & (stationarity <= tolerance * size.clamp_min(_TINY))
        for signs in allowed:
            converged = converged & signs.all(1)
        complementarity = torch.stack(wrong).amax(0) if wrong else torch.zeros_like(stationarity)
        violation = torch.stack(excess).amax(0)
        return Certified(v, found.multiplier, violation, stationarity, complementarity, converged, held, found.iterations, found.conditions)

    def _order(self, straight: Tensor, bent: Tensor, held: Tensor, v: Tensor) -> Tensor:
        """Multipliers in the order of the laws."""
        flat = [*self.linear, *self.noisy]
        if straight.shape[1] < sum(leaf.operator.rows for leaf in flat):  # noisy laws that are part of the objective
            more = [law.residual(v) / law.variance.to(v) for law in self.noisy if law.variance is not None]
            straight = torch.cat([straight, *more], dim=1)
        known = dict(zip(map(id, flat), straight.split([leaf.operator.rows for leaf in flat], dim=1), strict=True))
        sizes = [leaf.residual(v).shape[1] for leaf in self.bent]
        known.update(zip(map(id, self.bent), bent.split(sizes, dim=1), strict=True))
        for box in self.boxes:
            known[id(box)] = box.multipliers(held, v)
            held = held - box.jacobian(v).adjoint(known[id(box)])
        return torch.cat([known[id(leaf)] for leaf in self.leaves], dim=1)


def _less_noise(leaf: Constraint, residual: Tensor, multiplier: Tensor) -> Tensor:
    """What must vanish: the residual, less what the noise explains."""
    return residual if leaf.variance is None else residual - leaf.variance.to(residual) * multiplier
