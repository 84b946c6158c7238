"""Curved laws that see little of the fields, solved in that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from constraints.constraint import Constraint, Intersection
from constraints.face import AffineKernel
from constraints.kkt import Curved
from constraints.linear.map import largest
from constraints.linear.stacked import Stacked
from constraints.linear.structured import Selection
from constraints.view import Seen, View

_LEAST = 1 / 16
"""Least share of the tolerance that is asked for: rows are met to round-off, not better."""

_TINY = torch.finfo(torch.float64).tiny


class Nearest(NamedTuple):
    """Fields, (B, C, *N), Newton steps, and whether all of them were found lawful and nearest."""

    u: Tensor
    iterations: int
    settled: bool


class ViewedSystem:
    """Curved laws solved in what they see.

    Arguments:
        view: the basis.
        laws: the laws in its terms.
    """

    def __init__(self, view: View, laws: Sequence[Seen]) -> None:
        self.view, self.laws = view, laws
        absent = ~view.present[None]
        self.kernel = AffineKernel(Stacked([Selection(absent)]) if bool(absent.any()) else None)
        self.curved = Curved(self.kernel, laws[0] if len(laws) == 1 else Intersection(*laws), [])
        self._given: Tensor | None = None

    def nearest(self, u: Tensor, given: Tensor, tolerance: float, max_iterations: int) -> Nearest:
        """The nearest lawful fields.

        Arguments:
            u: fields with given values in place, (B, C, *N).
            given: those values, zero elsewhere, (B or 1, C, *N); the same tensor as long as they are the same.
        """
        times, n = self.view.free.shape
        if self._given is not given:
            for law in self.laws:
                law.data(given.reshape(-1, 1, times, n))
            self._given = given
        flat = u.reshape(len(u), 1, times, n)
        before = self.view.down(flat)
        # A sum's number is as large as the root of how many values it sums: a share of it is a larger one of each of them.
        tolerance = tolerance * max(float((largest(u) / largest(before).clamp_min(_TINY)).amin().clamp_max(1.0)), _LEAST)
        near = self.curved.approach(before, before, tolerance, max_iterations)
        z, steps, settled = near.u, near.iterations, near.there
        if not settled:
            solution = self.curved.newton(before, z, tolerance, max_iterations - steps)
            z, steps, settled = solution.u, steps + solution.iterations, solution.settled
        return Nearest(self.view.up(flat, before, z).reshape(u.shape), steps, settled)


def viewed(laws: Sequence[Constraint], free: Tensor | None, shape: tuple[int, ...]) -> ViewedSystem | None:
    """The laws in what they see, if all of them are known by that; None if not.

    Arguments:
        laws: curved laws.
        free: 1 where no value is given, (C, *N); None where none is.
        shape: of one field, (C, *N).
    """
    if len(shape) < 3 or shape[0] != 1:
        return None
    sights = [law.sight() for law in laws]
    known = [sight for sight in sights if sight is not None]
    if not known or len(known) < len(sights):
        return None
    mask = torch.ones(shape, dtype=torch.bool, device=known[0].cells.device) if free is None else free > 0
    view = View(mask.reshape(shape[1], -1), known)
    return ViewedSystem(view, [sight.through(view) for sight in known]) if view.small else None
