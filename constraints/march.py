r"""Values that follow from given ones, one after the other, in place of solved for.

Where the fields at time n are given, an explicit step, $u_{n+1} = u_n + \Delta t_n f(u_n)$, leaves no choice of those at time n + 1; and
where all but one value of a short linear row are given, that one is. Which values follow is known before any field is, by what each row
sees; they are worked out once for the data of the laws. What is left to be solved are the rows that see a value which is still free, such
as those in the cone of an open end.

Each row that leads to a value is the last word on it, so that multipliers come backwards: that of the last row is the force on its
value, by its coefficient; the rows before bear what its pull leaves of the forces.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from constraints.constraint import Constraint, LinearConstraint
from constraints.steps import ExplicitSteps

_SHORT = 8
"""Values of a row at most for it to lead: long ones are sums, of which one value is a small part."""

_WEIGHTY = 0.1
"""Least share of a row's largest coefficient that the value it leads to may have."""


Pull = Callable[[int, Tensor], tuple[Tensor, Tensor]]
"""Step and forces on the values it leads to, to multipliers on the grid and the pull on the values before."""


class Peeled(NamedTuple):
    """Multipliers of one stage's rows among all of its law, (B, m), and what their pull leaves of the forces, (B, C, *N)."""

    multiplier: Tensor
    force: Tensor


class _Stage(ABC):
    """Rows of one law that each lead to one value.

    Attributes:
        leaf: position of the law.
        cells: the values, boolean, (C, *N).
        rows: the law's rows, boolean, (m,).
    """

    leaf: int
    cells: Tensor
    rows: Tensor

    @abstractmethod
    def fill(self, v: Tensor) -> None:
        """Put the values in place, where those that they follow from are."""

    @abstractmethod
    def peel(self, v: Tensor, force: Tensor, known: dict[int, Pull]) -> Peeled:
        """What the stage's rows must pull for the forces on their values.

        Arguments:
            v: lawful fields.
            force: what all rows that lead are to add up to.
            known: pull-backs of the steps of laws, by their position, to be kept between stages.
        """


class _Step(_Stage):
    """One explicit step."""

    def __init__(self, leaf: int, steps: ExplicitSteps, n: int, led: Tensor) -> None:
        self.leaf, self.steps, self.n, self.led = leaf, steps, n, led
        self.cells = torch.zeros(steps.shape, dtype=torch.bool, device=led.device)
        self.cells[:, n + 1] = led
        self.rows = steps.rows_of(self.cells[None])[0]

    def fill(self, v: Tensor) -> None:
        v[:, :, self.n + 1] = torch.where(self.led, self.steps.lead(v, self.n), v[:, :, self.n + 1])

    def peel(self, v: Tensor, force: Tensor, known: dict[int, Pull]) -> Peeled:
        if self.leaf not in known:
            known[self.leaf] = self.steps.pullback(v)
        own = torch.where(self.led, force[:, :, self.n + 1], 0.0)
        force = force.clone()
        force[:, :, self.n + 1] -= own
        multiplier, before = known[self.leaf](self.n, own)
        force[:, :, self.n] -= before
        spread = torch.zeros_like(force)
        spread[:, :, self.n + 1] = multiplier
        return Peeled(self.steps.rows_of(spread), force)


class _Short(_Stage):
    """Rows of a linear law of which one value each is not given."""

    def __init__(self, leaf: int, law: LinearConstraint, rows: Tensor, columns: Tensor, weights: Tensor) -> None:
        self.leaf, self.law, self.index, self.columns, self.weights = leaf, law, rows, columns, weights
        shape = law.operator.shape
        flat = torch.zeros(shape, dtype=torch.bool, device=rows.device).flatten()
        flat[columns] = True
        self.cells = flat.reshape(shape)
        self.rows = torch.zeros(law.operator.rows, dtype=torch.bool, device=rows.device)
        self.rows[rows] = True

    def fill(self, v: Tensor) -> None:
        flat = v.view(len(v), -1)
        flat[:, self.columns] = 0.0
        flat[:, self.columns] = -self.law.residual(v)[:, self.index] / self.weights.to(v)

    def peel(self, v: Tensor, force: Tensor, known: dict[int, Pull]) -> Peeled:
        multiplier = force.new_zeros(len(force), self.law.operator.rows)
        multiplier[:, self.index] = force.flatten(1)[:, self.columns] / self.weights.to(force)
        return Peeled(multiplier, force - self.law.operator.adjoint(multiplier))


class Rest(NamedTuple):
    """What is to be solved of a law, and which of its rows that is, boolean, (m,); None for all. Rows that lead may be among them."""

    law: Constraint
    rows: Tensor | None


class March:
    """All that follows from given values under laws.

    Arguments:
        leaves: the laws.
        given: values that are given, boolean, (C, *N).

    Attributes:
        cells: values that follow, boolean, (C, *N).
    """

    def __init__(self, leaves: Sequence[Constraint], given: Tensor) -> None:
        self.leaves, self.known = leaves, given.clone()
        self.stages: list[_Stage] = []
        explicit = {i: steps for i, leaf in enumerate(leaves) if (steps := leaf.explicit_steps()) is not None}
        short = {i: _short_rows(leaf) for i, leaf in enumerate(leaves) if isinstance(leaf, LinearConstraint) and explicit}
        for n in range(max((steps.steps for steps in explicit.values()), default=0)):
            self._short(short)
            for i, steps in explicit.items():
                led = steps.leads(self.known, n) if n < steps.steps else None
                if led is not None and bool(led.any()):
                    self._take(_Step(i, steps, n, led))
        self._short(short)
        self.cells = self.known & ~given

    def _take(self, stage: _Stage) -> None:
        self.stages.append(stage)
        self.known = self.known | stage.cells

    def _short(self, laws: dict[int, _Rows | None]) -> None:
        for i, rows in laws.items():
            law = self.leaves[i]
            found = None if rows is None else rows.leading(self.known)
            if found is not None:
                assert isinstance(law, LinearConstraint)
                self._take(_Short(i, law, *found))

    def rows(self, leaf: int) -> Tensor | None:
        """The rows of a law that lead to a value, boolean, (m,); None if none does."""
        own = [stage.rows for stage in self.stages if stage.leaf == leaf]
        return torch.stack(own).any(0) if own else None

    def rest(self, leaf: int) -> Rest | None:
        """What is left of a law; None if nothing is."""
        law, rows = self.leaves[leaf], self.rows(leaf)
        steps = law.explicit_steps()
        if rows is None or (steps is None and not bool(rows.all())):
            return Rest(law, None)
        if steps is None or bool(rows.all()):
            return None
        return Rest(steps.without(rows), steps.kept(rows))

    def fill(self, v: Tensor) -> Tensor:
        """Fields (B, C, *N) with the given values, and those that follow in their places."""
        v = v.clone(memory_format=torch.contiguous_format)
        for stage in self.stages:
            stage.fill(v)
        return v

    def peel(self, v: Tensor, force: Tensor) -> tuple[dict[int, Tensor], Tensor]:
        """Multipliers of the rows that lead, by the position of their law, and what is left of the forces for given values."""
        found: dict[int, Tensor] = {}
        known: dict[int, Pull] = {}
        for stage in reversed(self.stages):
            multiplier, force = stage.peel(v, force, known)
            found[stage.leaf] = found.get(stage.leaf, 0.0) + multiplier
        return found, force


class _Rows(NamedTuple):
    """The short rows of a linear law, entry by entry: row, column, coefficient; and the number of values of all rows."""

    row: Tensor
    column: Tensor
    value: Tensor
    rows: int

    def leading(self, known: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
        """Rows of which one weighty value is not known, that value, and its coefficient; a value once."""
        free = ~known.flatten()[self.column]
        single = torch.bincount(self.row[free], minlength=self.rows) == 1
        taken = free & single[self.row]
        if not bool(taken.any()):
            return None
        row, column, value = self.row[taken], self.column[taken], self.value[taken]
        order = column.argsort(stable=True)
        first = torch.ones_like(order, dtype=torch.bool)
        first[1:] = column[order][1:] != column[order][:-1]
        kept = order[first]
        return row[kept], column[kept], value[kept]


def _short_rows(law: LinearConstraint) -> _Rows | None:
    """The rows with few values, all of them weighty; None if there are none, or each sample has its own."""
    if law.inequality or law.variance is not None or law.operator.batched:
        return None
    entries = law.operator.entries()
    if entries is None or entries.values.ndim > 1:
        return None
    rows, columns = law.operator.rows, math.prod(law.operator.shape)
    place, back = torch.unique(entries.rows * columns + entries.columns, return_inverse=True)  # entries of one place add up
    value = torch.zeros(len(place), dtype=entries.values.dtype, device=place.device).index_add_(0, back, entries.values)
    row, column, value = place[value != 0] // columns, place[value != 0] % columns, value[value != 0]
    count = torch.bincount(row, minlength=rows)
    largest = torch.zeros(rows, dtype=value.dtype, device=value.device).scatter_reduce_(0, row, value.abs(), "amax")
    weighty = torch.ones(rows, dtype=torch.bool, device=row.device)
    weighty[row[value.abs() < _WEIGHTY * largest[row]]] = False
    kept = ((count <= _SHORT) & weighty)[row]
    return _Rows(row[kept], column[kept], value[kept], rows) if bool(kept.any()) else None
