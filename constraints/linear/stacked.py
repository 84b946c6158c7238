r"""Several linear maps at once, solved block by block with the structure of each.

Let $P_i$ project orthogonally onto $\ker A_1\cap\dots\cap\ker A_i$. A field that obeys the first $i-1$ blocks is corrected for block
$i$ along $P_{i-1}A_i^\top\mu$, which leaves the earlier ones alone,

$$A_i P_{i-1} A_i^\top\,\mu = A_i u - b_i,$$

and after the last block the field is the nearest one that obeys all: block Gram-Schmidt. Each reduced Gram matrix is solved in the
cheapest exact way:

* values given outright (`Selection`) are eliminated: the other blocks keep their rows on the remaining unknowns, $A_i D$;
* rows that couple neighbouring times, of points and of sums, are swept together (`JointSteps`);
* rows observed with noise of variance $R$ (`Noisy`) add it to their Gram matrix; $P$ then is their shrinkage, all else stays;
* a block orthogonal to all earlier ones (found by applying them to it) uses its own solve;
* a block of few rows is bordered: $P_{i-1}A_i^\top$ and the small matrix are formed once;
* any other block takes conjugate gradients, preconditioned by its own solve.

Redundant rows appear as null rows of a reduced Gram matrix and get no multiplier; contradictory ones leave a residual. Which field then
violates the blocks least, `compromise` answers: it minimises $\sum_i \mathrm{dist}(v, C_i)^2$ over the sets $C_i$ of the blocks, whose
normal operator is the sum of their projectors: no block counts more for its units, and the order does not matter.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from constraints.linear.derivative import transforming
from constraints.linear.entries import Entries, stacked
from constraints.linear.map import LinearMap
from constraints.linear.solve import conjugate_gradients, pseudo_inverse
from constraints.linear.stepping import JointSteps, PointSteps, TimeSteps
from constraints.linear.structured import FourierSymbol, Selection

BORDER_ROWS = 64
"""Blocks of at most this many rows are bordered: their fields $P A^\\top$ are kept."""

_REDUNDANT = 1e-11
"""Share of a row outside the span of earlier blocks below which it counts as redundant: round-off of a transform."""

_ORTHOGONAL = 1e-11
"""Cosine below which two blocks count as orthogonal: round-off of a transform, far below any true coupling."""


class Stacked(LinearMap):
    """Rows of several maps, one after the other.

    Arguments:
        maps: the blocks, all of one field shape. At least one.
    """

    def __init__(self, maps: Sequence[LinearMap]) -> None:
        super().__init__()
        self.maps = nn.ModuleList(maps)
        self.shape = maps[0].shape
        self.sizes = [block.rows for block in maps]
        self.rows = sum(self.sizes)
        self._elimination: _Elimination | None = None
        self._reached: tuple[Tensor, int, list[Tensor | None]] | None = None
        self._unselected: LinearMap | None = None
        noise = [torch.zeros(block.rows, dtype=torch.float64) if block.variance is None else block.variance for block in maps]
        self.variance = torch.cat(noise) if any(block.variance is not None for block in maps) else None
        self.batched = any(block.batched for block in maps)

    @property
    def blocks(self) -> list[LinearMap]:
        """The maps, in order."""
        return [block for block in self.maps if isinstance(block, LinearMap)]

    def forward(self, u: Tensor) -> Tensor:
        return torch.cat([block(u) for block in self.blocks], dim=1)

    def adjoint(self, y: Tensor) -> Tensor:
        parts = [block.adjoint(part) for block, part in zip(self.blocks, y.split(self.sizes, dim=1), strict=True)]
        return torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]

    def scale(self, u: Tensor) -> Tensor:
        parts = [block.scale(u).expand(u.shape[0], block.rows) for block in self.blocks]
        return torch.cat(parts, dim=1)

    def weighted(self, diagonal: Tensor) -> LinearMap:
        return Stacked([block.weighted(diagonal) for block in self.blocks])

    def entries(self) -> Entries | None:
        parts = [block.entries() for block in self.blocks]
        known = [part for part in parts if part is not None]
        return stacked(known, self.sizes) if len(known) == len(parts) else None

    def solve_gram(self, r: Tensor) -> Tensor:
        alone = self._eliminated().alone
        return self.nearest(r.new_zeros(r.shape[0], *self.shape), -r)[1] if alone is None else alone.block.solve_gram(r)

    def precondition(self, r: Tensor) -> Tensor:
        """Each block by itself."""
        parts = zip(self.blocks, r.split(self.sizes, dim=1), strict=True)
        return torch.cat([block.precondition(part) for block, part in parts], dim=1)

    def nearest(self, u: Tensor, target: Tensor | None = None) -> tuple[Tensor, Tensor]:
        v, multiplier = self.solve(u, target)
        return v, multiplier()

    def solve(self, u: Tensor, target: Tensor | None = None) -> tuple[Tensor, Callable[[], Tensor]]:
        """As `nearest`, the multipliers to be worked out when they are asked for."""
        return self._eliminated().solve(u, self._goals(target))

    def field(self, u: Tensor, target: Tensor | None = None) -> Tensor:
        """The nearest field with A v = b, without the multipliers that `nearest` also gives."""
        return self._eliminated().field(u, self._goals(target), None)

    def null_rows(self) -> Tensor | None:
        return self._eliminated().null_rows()

    def homogeneous(self, target: Tensor | None) -> bool:
        """Whether the rows that solve only what is in their range, those of differential operators, have nothing to reach."""
        goals = self._goals(target)
        return all(goals[stage.index] is None for stage in self._eliminated().stages if isinstance(stage.block, FourierSymbol))

    def _split(self, target: Tensor | None) -> list[Tensor | None]:
        """The target of each block."""
        return [None] * len(self.sizes) if target is None else list(target.split(self.sizes, dim=1))

    def _goals(self, target: Tensor | None) -> list[Tensor | None]:
        """What each block is to reach once values are given, kept for the target that was asked for last."""
        if target is None:
            return [None] * len(self.sizes)
        if transforming() or target.is_inference():
            return self._eliminated().goals(self._split(target))
        if self._reached is None or self._reached[0] is not target or self._reached[1] != target._version:
            self._reached = target, target._version, self._eliminated().goals(self._split(target))
        return self._reached[2]

    def _eliminated(self) -> _Elimination:
        if self._elimination is None:
            self._elimination = _Elimination(self.blocks)
        return self._elimination

    @property
    def free(self) -> Tensor | None:
        """1 where no block gives the value outright, (C, *N); None where none does."""
        return self._eliminated().free

    def acts_on_each(self, dim: int) -> bool:
        return all(block.acts_on_each(dim) for block in self.blocks)

    @property
    def selects(self) -> bool:
        """Whether all blocks give values outright, so that the projector onto their kernel is a mask."""
        return len(self._eliminated().fixed) == len(self.sizes)

    @property
    def unselected(self) -> LinearMap | None:
        """The blocks that do not give values outright, None if all do."""
        if self._unselected is None and not self.selects:
            blocks = [block for i, block in enumerate(self.blocks) if i not in self._eliminated().fixed]
            self._unselected = blocks[0] if len(blocks) == 1 else Stacked(blocks)
        return self._unselected

    def select(self, u: Tensor, target: Tensor | None) -> Tensor:
        """Fields with the values that blocks give outright."""
        return self._eliminated().select(u, self._split(target))

    def target_of_unselected(self, target: Tensor) -> Tensor:
        """The targets of those blocks, (B, m')."""
        parts = target.split(self.sizes, dim=1)
        return torch.cat([part for i, part in enumerate(parts) if i not in self._eliminated().fixed], dim=1)

    def multipliers(self, held: Tensor, rest: Tensor | None) -> Tensor:
        """Multipliers of all rows, from the forces on values given outright and the multipliers of the other blocks."""
        fixed = self._eliminated().fixed
        sizes = [size for i, size in enumerate(self.sizes) if i not in fixed]
        others = iter(() if rest is None else rest.split(sizes, dim=1))
        return torch.cat([fixed[i].solve_gram(fixed[i](held)) if i in fixed else next(others) for i in range(len(self.sizes))], dim=1)

    def compromise(self, u: Tensor, target: Tensor | None) -> Tensor:
        """Of the fields that violate the blocks least, in the sum of squared distances to their sets, the one nearest to u."""
        blocks = [(block, b) for block, b in zip(self.blocks, self._split(target), strict=True) if block.variance is None]

        def pulls(z: Tensor) -> Tensor:
            return torch.stack([z - block.nearest(z)[0] for block, _ in blocks]).sum(0)

        pull = torch.stack([u - block.nearest(u, b)[0] for block, b in blocks]).sum(0)
        return u - conjugate_gradients(pulls, pull, fraction=1e-12, max_iterations=500)


class _Elimination:
    """The blocks in the order of elimination, each with the way its reduced Gram matrix is solved."""

    def __init__(self, blocks: Sequence[LinearMap]) -> None:
        self.blocks = blocks
        self.fixed: dict[int, Selection] = {}
        self.free: Tensor | None = None
        for i, block in enumerate(blocks):
            if isinstance(block, Selection):
                self.fixed[i] = block if self.free is None else block.among(self.free)
                ones = torch.ones(1, block.rows, dtype=torch.float64, device=_device(block))
                untaken = (block.adjoint(ones)[0] == 0).to(torch.float64)
                self.free = untaken if self.free is None else self.free * untaken
        rest = sorted((i for i in range(len(blocks)) if i not in self.fixed), key=lambda i: -blocks[i].rows)
        self.reduced = reduced = {i: blocks[i] if self.free is None else blocks[i].weighted(self.free) for i in rest}
        self.stages: list[_Stage] = []
        pair = _in_step(reduced)
        if pair is not None:
            self.stages.append(_Joined(pair, blocks, reduced))
            rest = [i for i in rest if i not in pair]
        for i in rest:
            self.stages.append(_stage(i, reduced[i], list(self.stages)))

    def select(self, u: Tensor, targets: list[Tensor | None]) -> Tensor:
        """Fields with the values given outright, those of all blocks in one copy."""
        if not self.fixed:
            return u
        v = u.clone(memory_format=torch.contiguous_format)
        for i, selection in self.fixed.items():
            selection.put(v, targets[i])
        return v

    def goals(self, targets: list[Tensor | None]) -> list[Tensor | None]:
        """Targets once the values given outright are in place: b - A g for the other blocks, None for zero."""
        given = [t for i, t in enumerate(targets) if i in self.fixed and t is not None]
        place = None if not given else self.select(given[0].new_zeros(max(map(len, given)), *self.blocks[0].shape), targets)
        goals = list(targets)
        for i, block in self.reduced.items():
            goal = targets[i]
            if place is not None:
                goal = -self.blocks[i](place) if goal is None else goal - self.blocks[i](place)
            if goal is not None and isinstance(block, FourierSymbol):
                goal = goal.masked_fill(block.masked_rows(), 0.0)
            goals[i] = goal if goal is not None and bool(goal.any()) else None
        return goals

    def field(self, u: Tensor, goals: list[Tensor | None], multipliers: Multipliers | None) -> Tensor:
        """The nearest field, adding to the multipliers of all but the values given outright, if they are wanted."""
        if not self.stages:
            return self.select(u, goals)
        v = u.contiguous()
        for i, stage in enumerate(self.stages):
            v = stage.eliminate(v, stage.goal(goals), multipliers, i > 0)
        for i, selection in self.fixed.items():
            selection.put(v, goals[i])
        return v

    def solve(self, u: Tensor, goals: list[Tensor | None]) -> tuple[Tensor, Callable[[], Tensor]]:
        """The nearest field to u that reaches the goals, zero where None, and what works out all multipliers, (B, m)."""
        parts: Multipliers = {}
        v = self.field(u, goals, parts)

        def multiplier() -> Tensor:
            found = {i: _total(part) for i, part in parts.items()}
            if self.fixed:
                moved = u - v
                for i, part in found.items():
                    moved = self.blocks[i].subtract(moved, part)
                found.update({i: selection.solve_gram(selection(moved)) for i, selection in self.fixed.items()})
            return torch.cat([found[i] for i in range(len(self.blocks))], dim=1)

        return v, multiplier

    @property
    def alone(self) -> _Stage | None:
        """The stage that holds all blocks in their order, if there is one."""
        whole = [stage for stage in self.stages if stage.block.rows == sum(block.rows for block in self.blocks)]
        return whole[0] if whole and whole[0].index == 0 else None

    def null_rows(self) -> Tensor | None:
        """Rows that see no free value, where all others are met by divisions alone; None where that is not known."""
        if any(not isinstance(stage, _Independent) for stage in self.stages):
            return None
        rows = []
        for i in range(len(self.blocks)):
            block = self.fixed[i] if i in self.fixed else self.reduced[i]
            null = block.masked_rows() if isinstance(block, FourierSymbol) else block.null_rows()
            if null is None:
                return None
            rows.append(null)
        return torch.cat(rows)


Multipliers = dict[int, list[Tensor | Callable[[], Tensor]]]
"""What adds up to the multipliers, by the position of their block; some of it to be worked out."""


def _add(multipliers: Multipliers | None, index: int, more: Tensor | Callable[[], Tensor]) -> None:
    if multipliers is not None:
        multipliers.setdefault(index, []).append(more)


def _total(parts: list[Tensor | Callable[[], Tensor]]) -> Tensor:
    return functools.reduce(torch.add, (part if isinstance(part, Tensor) else part() for part in parts))


class _Stage(ABC):
    """One block after elimination of the earlier ones: its rows on the values that are free."""

    def __init__(self, index: int, block: LinearMap) -> None:
        self.index, self.block = index, block

    def residual(self, u: Tensor, goal: Tensor | None) -> Tensor:
        rows: Tensor = self.block(u)
        return rows if goal is None else rows - goal

    def goal(self, goals: list[Tensor | None]) -> Tensor | None:
        """Its own goal out of all."""
        return goals[self.index]

    @abstractmethod
    def eliminate(self, u: Tensor, goal: Tensor | None, multipliers: Multipliers | None, owned: bool) -> Tensor:
        """Correct a field for this block within the kernel of the earlier ones, and add to everyone's multipliers if they are wanted.

        A field that is owned may be corrected in place.
        """


class _Independent(_Stage):
    """A block orthogonal to all earlier ones."""

    def eliminate(self, u: Tensor, goal: Tensor | None, multipliers: Multipliers | None, owned: bool) -> Tensor:
        if isinstance(self.block, FourierSymbol):
            block = self.block
            v, along = block.correct(u, goal)
            _add(multipliers, self.index, lambda: block.multiplier_of(along))
            return v
        multiplier = self.block.solve_gram(self.residual(u, goal))
        _add(multipliers, self.index, multiplier)
        return self.block.subtract(u, multiplier) if owned else self.block.without(u, multiplier)


class _Joined(_Stage):
    """Two blocks that stay block tridiagonal in time together, before all others."""

    def __init__(self, pair: tuple[int, int], blocks: Sequence[LinearMap], reduced: dict[int, LinearMap]) -> None:
        line, sums = reduced[pair[0]], reduced[pair[1]]
        assert isinstance(line, PointSteps)
        assert isinstance(sums, TimeSteps)
        super().__init__(pair[0], JointSteps(line, sums))
        self.pair, self.sizes = pair, [line.rows, sums.rows]

    def goal(self, goals: list[Tensor | None]) -> Tensor | None:
        parts = [goals[i] for i in self.pair]
        if all(part is None for part in parts):
            return None
        batch = max(len(part) for part in parts if part is not None)
        like = next(part for part in parts if part is not None)
        filled = [like.new_zeros(1, n) if part is None else part for part, n in zip(parts, self.sizes, strict=True)]
        return torch.cat([part.expand(batch, -1) for part in filled], dim=1)

    def eliminate(self, u: Tensor, goal: Tensor | None, multipliers: Multipliers | None, owned: bool) -> Tensor:
        multiplier = self.block.solve_gram(self.residual(u, goal))
        for i, part in zip(self.pair, multiplier.split(self.sizes, dim=1), strict=True):
            _add(multipliers, i, part)
        return self.block.subtract(u, multiplier) if owned else self.block.without(u, multiplier)


def _in_step(blocks: dict[int, LinearMap]) -> tuple[int, int] | None:
    """The positions of a map of points and one of sums on the same line, if there are both."""
    lines = [i for i, block in blocks.items() if isinstance(block, PointSteps)]
    sums = [i for i, block in blocks.items() if isinstance(block, TimeSteps) and len(block.shape) == 3 and block.shape[0] == 1]
    return (lines[0], sums[0]) if lines and sums else None


class _Coupled(_Stage):
    """A block that shares directions with earlier ones."""

    def __init__(self, index: int, block: LinearMap, earlier: Sequence[_Stage]) -> None:
        super().__init__(index, block)
        self.earlier = earlier

    def kernel(self, z: Tensor, taken: Multipliers | None = None) -> Tensor:
        """P z for the projector onto the kernel of the earlier blocks, adding to the multipliers it takes."""
        for i, stage in enumerate(self.earlier):
            z = stage.eliminate(z, None, taken, i > 0)
        return z


class _Bordered(_Coupled):
    """Few rows: the fields P Aᵀ, the multipliers they take and the inverse of A P Aᵀ are formed once, in double precision."""

    def __init__(self, index: int, block: LinearMap, earlier: Sequence[_Stage]) -> None:
        super().__init__(index, block, earlier)
        rows = block.adjoint(torch.eye(block.rows, dtype=torch.float64, device=_device(block)))
        taken: Multipliers = {}
        self.fields = self.kernel(rows, taken)
        self.taken = {i: _total(parts) for i, parts in taken.items()}
        whole, reduced = block(rows).diagonal(), block(self.fields)
        redundant = reduced.diagonal() <= _REDUNDANT * whole
        reduced = reduced.masked_fill(redundant[:, None] | redundant[None, :], 0.0)
        self.inverse = pseudo_inverse(reduced if block.variance is None else reduced + torch.diag(block.variance.to(reduced)))

    def eliminate(self, u: Tensor, goal: Tensor | None, multipliers: Multipliers | None, owned: bool) -> Tensor:
        multiplier = self.residual(u, goal) @ self.inverse.to(u)
        for index, taken in self.taken.items() if multipliers is not None else ():
            _add(multipliers, index, -multiplier @ taken.to(u))
        _add(multipliers, self.index, multiplier)
        flat = u.flatten(1)
        rows = self.fields.to(u).flatten(1)
        return (flat.addmm_(multiplier, rows, alpha=-1) if owned else flat.addmm(multiplier, rows, alpha=-1)).reshape(u.shape)


class _Iterative(_Coupled):
    """Many coupled rows: conjugate gradients on A P Aᵀ."""

    def eliminate(self, u: Tensor, goal: Tensor | None, multipliers: Multipliers | None, owned: bool) -> Tensor:
        noise = 0.0 if self.block.variance is None else self.block.variance.to(u)
        multiplier = conjugate_gradients(
            lambda y: self.block(self.kernel(self.block.adjoint(y))) + noise * y,
            self.residual(u, goal),
            preconditioner=self.block.precondition,
            size=u.flatten(1).norm(dim=1),
            max_iterations=1000,
        )
        taken: Multipliers | None = None if multipliers is None else {}
        correction = self.kernel(self.block.adjoint(multiplier), taken)
        for index, parts in (taken or {}).items():
            _add(multipliers, index, -_total(parts))
        _add(multipliers, self.index, multiplier)
        return u.sub_(correction) if owned else u - correction


def _stage(index: int, block: LinearMap, earlier: Sequence[_Stage]) -> _Stage:
    """The cheapest exact way to eliminate a block after others."""
    if not earlier:
        return _Independent(index, block)
    if block.batched or any(stage.block.batched for stage in earlier):
        return _Iterative(index, block, earlier)
    if all(_orthogonal(stage.block, block) for stage in earlier):
        return _Independent(index, block)
    if block.rows <= BORDER_ROWS:
        return _Bordered(index, block, earlier)
    return _Iterative(index, block, earlier)


def _orthogonal(a: LinearMap, b: LinearMap) -> bool:
    """Whether A Bᵀ = 0, seen on a few random right-hand sides: a non-zero map hides from a Gaussian with probability zero."""
    generator = torch.Generator().manual_seed(0)
    y = torch.randn(2, b.rows, generator=generator, dtype=torch.float64).to(_device(b))
    z = b.adjoint(y)
    coupling = a(z)
    w = torch.randn(2, a.rows, generator=generator, dtype=torch.float64).to(_device(a))
    size = a.adjoint(w).flatten(1).norm() / w.norm() * a.rows**0.5
    return bool(coupling.norm() <= _ORTHOGONAL * size * z.flatten(1).norm())


def _device(module: nn.Module) -> torch.device:
    """The device of a module's buffers, the CPU if it has none."""
    return next((buffer.device for buffer in module.buffers()), torch.device("cpu"))
