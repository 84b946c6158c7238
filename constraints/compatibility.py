r"""Which laws repeat each other, and which contradict each other.

At a field u, law i says something of its own if its gradients leave the span of the others': with $P$ the projector onto the kernel of
all other laws' Jacobians, its share is $\|P J_i^\top y\|^2 / \|J_i^\top y\|^2$ for random y. No share: it is implied; which of the others
imply it is found by asking them one at a time, then in pairs. Contradictions show in the projection itself: laws that the field of least
violation breaks clash, and bounds that those push against.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import torch
from torch import Tensor

from constraints.constraint import Constraint
from constraints.inequality import Box
from constraints.linear.map import LinearMap, largest
from constraints.linear.solve import pseudo_inverse
from constraints.linear.stacked import Stacked
from constraints.projection import ProjectionResult, project
from constraints.restoration import weights

_IMPLIED = 1e-16
"""Squared share of a law's gradients outside the others' span below which it is implied."""

_PUSH = 1e-6
"""Share of the largest force of broken laws at which it counts as a push against a bound."""

_PROBES = 8
_COUNTED = 1024
"""Up to this many rows in all the rank is counted."""


class Redundancy(NamedTuple):
    """A law that others imply.

    Attributes:
        law: its name.
        by: names of the fewest others found that imply it.
    """

    law: str
    by: tuple[str, ...]


class Compatibility(NamedTuple):
    """How laws get on with each other at given fields.

    Attributes:
        laws: their names.
        rows: number of rows of each.
        rank: number of independent rows at the first field; None where there are too many to count, or redundancy is not judged.
        redundant: laws that others imply.
        clashing: names of the laws that cannot all hold near the fields, empty if they can.
    """

    laws: tuple[str, ...]
    rows: tuple[int, ...]
    rank: int | None
    redundant: tuple[Redundancy, ...]
    clashing: tuple[str, ...]

    @property
    def compatible(self) -> bool:
        """Whether all laws can hold together."""
        return not self.clashing


def clashes(constraint: Constraint, u: Tensor, names: Sequence[str] | None = None) -> tuple[str, ...]:
    """Names of the laws that cannot all hold near fields (B, C, *N), those that the fields of least violation break; none if they can."""
    with torch.no_grad():
        return _broken(constraint, project(constraint, u.detach().to(torch.float64)), names)


def _broken(constraint: Constraint, result: ProjectionResult, names: Sequence[str] | None) -> tuple[str, ...]:
    leaves = constraint.leaves()
    names = [leaf.name for leaf in leaves] if names is None else names
    clashing = ~result.obeyed.all(0) | _pushed(leaves, result)
    return tuple(name for name, clashes in zip(names, clashing.tolist(), strict=True) if clashes)


def _pushed(leaves: list[Constraint], result: ProjectionResult) -> Tensor:
    """Which laws are bounds that the forces of broken laws push against: they hold, at the others' expense."""
    v, boxes = result.u, torch.tensor([isinstance(leaf, Box) for leaf in leaves], device=result.u.device)
    broken = ~result.obeyed & ~boxes
    if not bool(boxes.any()) or not bool(broken.any()):
        return torch.zeros_like(boxes)
    force = torch.zeros_like(v)
    for leaf, rows in zip(leaves, broken.T, strict=True):
        if bool(rows.any()):
            residual = leaf.residual(v)
            excess = residual.clamp_min(0) if leaf.inequality else residual
            force = force - leaf.jacobian(v).adjoint(weights(leaf, v).square() * excess * rows[:, None])
    least = _PUSH * largest(force).reshape(-1, *(1,) * (v.ndim - 1))
    pushed = []
    for leaf in leaves:
        low, high = leaf.box(v) if isinstance(leaf, Box) else (torch.full_like(v, -torch.inf), torch.full_like(v, torch.inf))
        pushed.append(bool((((v <= low) & (force < -least)) | ((v >= high) & (force > least))).any()))
    return torch.tensor(pushed, device=v.device)


def compatibility(constraint: Constraint, u: Tensor, names: Sequence[str] | None = None) -> Compatibility:
    """Whether laws can hold together near some fields, and which of them repeat others.

    Inequalities count where they hold with equality after the projection; with them, or where laws clash, redundancy is not judged: it says
    which law could be left out, and there it is not that.

    Arguments:
        constraint: the laws.
        u: fields, (B, C, *N).
        names: what to call the laws, in the order of `constraint.leaves()`; their own names by default.

    Example:
        >>> from constraints import Axis, Grid, InitialCondition, Intersection, Mass
        >>> grid = Grid(Axis("time", 3), Axis("x", 4, periodic=True))
        >>> told_twice = Intersection(InitialCondition(grid, torch.ones(1, 4)), Mass(grid, 1.0), Mass(grid, 1.0))
        >>> found = compatibility(told_twice, torch.zeros(1, 1, 3, 4))
        >>> found.compatible, found.rank, found.redundant[0]
        (True, 6, Redundancy(law='mass', by=('mass',)))
    """
    leaves, exact = constraint.leaves(), u.detach().to(torch.float64)
    names = tuple(leaf.name for leaf in leaves) if names is None else tuple(names)
    with torch.no_grad():
        result = project(constraint, exact)
        clashing = _broken(constraint, result, names)
        maps = [leaf.jacobian(result.u[:1]) for leaf in leaves]
        judged = not clashing and not any(leaf.inequality or leaf.variance is not None for leaf in leaves)
        redundant = tuple(_redundancies(names, maps, exact)) if judged and len(leaves) > 1 else ()
        counts = tuple(leaf.residual(exact).shape[1] for leaf in leaves)
        rank = _rank(maps, exact) if judged and sum(counts) <= _COUNTED else None
    return Compatibility(names, counts, rank, redundant, clashing)


def _redundancies(names: tuple[str, ...], maps: list[LinearMap], like: Tensor) -> list[Redundancy]:
    found: list[Redundancy] = []
    dropped: set[int] = set()
    for i in reversed(range(len(maps))):
        others = [j for j in range(len(maps)) if j != i and j not in dropped]
        if not others or not _implied(maps[i], [maps[j] for j in others], like):
            continue
        dropped.add(i)
        candidates = [*combinations(others, 1), *combinations(others, 2), tuple(others)]
        by = next(group for group in candidates if _implied(maps[i], [maps[j] for j in group], like))
        found.append(Redundancy(names[i], tuple(names[j] for j in by)))
    return found[::-1]


def _implied(one: LinearMap, others: list[LinearMap], like: Tensor) -> bool:
    """Whether a map's rows lie in the span of others'."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(_PROBES):
        y = torch.randn(1, one.rows, generator=generator, dtype=torch.float64).to(like.device)
        force = one.adjoint(y)
        left = Stacked(others).nearest(force)[0]
        left = Stacked(others).nearest(left)[0]
        if left.square().sum() > _IMPLIED * force.square().sum():
            return False
    return True


def _rank(maps: list[LinearMap], like: Tensor) -> int:
    """Number of independent rows of all maps."""
    stack = Stacked(maps)
    eye = torch.eye(stack.rows, dtype=torch.float64, device=like.device)
    rows = torch.cat([stack.adjoint(part).flatten(1) for part in eye.split(1)])
    gram = rows @ rows.T
    return round(float((gram @ pseudo_inverse(gram)).diagonal().sum()))
