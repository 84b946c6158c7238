"""Laws of which part needs no solving: values that follow from given ones are put in place, and what is left is projected on."""

from __future__ import annotations

import torch
from torch import Tensor

from constraints.constraint import Constraint, Intersection, LinearConstraint, forget
from constraints.implicit import Conditions, Order
from constraints.linear.derivative import transforming
from constraints.linear.structured import Selection
from constraints.march import March, Rest
from constraints.system import Certified, Found, Solved, System, system_of


class MarchedSystem:
    """A system with values that follow from given ones.

    Arguments:
        whole: the laws.
        march: what follows from the values that they give.
    """

    def __init__(self, whole: System, march: March) -> None:
        self.whole, self.march = whole, march
        self.leaves, self.names = whole.leaves, whole.names
        self.rests: list[Rest | None] = [march.rest(i) for i in range(len(whole.leaves))]
        cells = march.cells
        self.follow = LinearConstraint(Selection(cells), torch.zeros(int(cells.sum()), dtype=torch.float64, device=cells.device))
        self.reduced = System(Intersection(*(rest.law for rest in self.rests if rest is not None), self.follow))
        self._filled: tuple[Tensor | None, torch.device] | None = None

    def solve(self, u: Tensor, size: Tensor, tolerance: float, max_iterations: int, dtype: torch.dtype) -> Solved:
        """As `System.solve`."""
        if transforming():
            return self.whole.solve(u, size, tolerance, max_iterations, dtype)
        self._fill(u)
        solved = self.reduced.solve(u, size, tolerance, max_iterations, dtype, restoring=False)

        def certificate() -> Certified:
            found = solved.certificate()
            conditions = Conditions(found.conditions.kernel, found.conditions.curved, found.conditions.multiplier, self._ordered(found))
            lifted = Found(found.u, self._lifted(found.multiplier, found.u), found.iterations, conditions)
            return self.whole.certify(u, lifted, tolerance, dtype)

        if solved.sure:
            return Solved(solved.u, solved.iterations, certificate, sure=True)
        result = self.whole.restored(u, certificate(), tolerance, dtype)
        return Solved(result.u, result.iterations, lambda: result)

    def _fill(self, u: Tensor) -> None:
        """The values that follow from the data that the laws hold now."""
        target, stack = self.whole.target(u), self.whole.stack
        if self._filled is not None and self._filled[0] is target and self._filled[1] == u.device:
            return
        assert stack is not None
        given = stack.select(u.new_zeros(1 if target is None else len(target), *u.shape[1:]), target)
        values = self.march.fill(given).flatten(1)[:, self.march.cells.flatten()]
        self.follow.target = values if len(values) > 1 else values[0]
        self._filled = target, u.device

    def _ordered(self, found: Certified) -> Order:
        order = found.conditions.order
        return lambda straight, bent, held, v: self._lifted(order(straight, bent, held, v), v)

    def _lifted(self, multiplier: Tensor, v: Tensor) -> Tensor:
        """Multipliers of all laws from those of what is left of them and of the values that follow."""
        rests = [rest for rest in self.rests if rest is not None]
        parts = iter(multiplier.split([rest.law.residual(v).shape[1] for rest in rests] + [self.follow.operator.rows], dim=1))
        whole = self.whole
        found: dict[int, Tensor] = {}
        force = torch.zeros_like(v)
        for i, (leaf, rest) in enumerate(zip(self.leaves, self.rests, strict=True)):
            own = v.new_zeros(len(v), leaf.residual(v).shape[1])
            if rest is not None:
                part = next(parts)
                own = part if rest.rows is None else own.index_copy(1, rest.rows.nonzero()[:, 0], part)
            led = self.march.rows(i)
            if led is not None and rest is not None:  # rows that lead take what is left for them below
                force = force + leaf.jacobian(v).adjoint(own * led.to(own))
                own = own * (~led).to(own)
            elif _gives(leaf):
                force = force + leaf.jacobian(v).adjoint(own)
            found[i] = own
        force = force + self.follow.operator.adjoint(next(parts))
        leading, force = self.march.peel(v, force)
        for i, own in leading.items():
            found[i] = found[i] + own
        assert whole.stack is not None
        place = {id(leaf): i for i, leaf in enumerate(self.leaves)}
        straight = [found[place[id(leaf)]] for leaf in whole.linear]
        rest_rows = [part for leaf, part in zip(whole.linear, straight, strict=True) if not _gives(leaf)]
        given = whole.stack.multipliers(force, torch.cat(rest_rows, dim=1) if rest_rows else None)
        for leaf, part in zip(whole.linear, given.split([leaf.operator.rows for leaf in whole.linear], dim=1), strict=True):
            found[place[id(leaf)]] = part
        return torch.cat([found[i] for i in range(len(self.leaves))], dim=1)


def _gives(leaf: Constraint) -> bool:
    """Whether a law gives values outright."""
    return isinstance(leaf, LinearConstraint) and isinstance(leaf.operator, Selection)


Solver = System | MarchedSystem


def solver_of(constraint: Constraint) -> Solver:
    """What solves for a constraint, kept with it as long as its buffers stay on one device."""
    device = next((buffer.device for buffer in constraint.buffers()), torch.device("cpu"))
    kept, solver = constraint.__dict__.get("_projection_solver", (device, None))
    if kept != device:
        forget(constraint)
        solver = None
    if solver is None:
        whole = system_of(constraint)
        march = _march(whole)
        solver = whole if march is None else MarchedSystem(whole, march)
        constraint.__dict__["_projection_solver"] = device, solver
    assert isinstance(solver, Solver)
    return solver


def _march(whole: System) -> March | None:
    """What follows from the values that laws give, where anything does."""
    if whole.stack is None or whole.stack.free is None or all(leaf.explicit_steps() is None for leaf in whole.bent):
        return None
    march = March(whole.leaves, whole.stack.free == 0)
    return march if bool(march.cells.any()) else None
