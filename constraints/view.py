r"""Fields through the eyes of their laws: the few numbers of each time that laws see, and the fields nearest to an input behind them.

Laws that are known by what they see (`Sight`) - single values, and quadratic sums $\sum_i a_i u_i + d_i u_i^2$ with the same $d$ at all
values but a few - do not change under rotations of a time's values that leave the $a$ alone. The nearest lawful field then lies in the
span of these, of the single values and of the input itself: with an orthonormal basis $E$ of that span,

$$v = u + E\,(z - E^\top u),$$

where z is the point nearest to $E^\top u$ under the same laws written in z: one time has a handful of numbers in place of a field.
What is not seen stays as it is; beside squares it is stretched with the length that z gives it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from constraints.constraint import Constraint
from constraints.functional import Quadratic

_SINGLE = 32
"""Single values of a time at most."""

_DEPENDENT = 1e-10
"""Share of a sum's size outside the span of others below which it counts as one of them."""


class Seen(Constraint):
    """A law written in what it sees, (B, 1, T, p)."""

    @abstractmethod
    def data(self, given: Tensor) -> None:
        """Take over values given outright, zero elsewhere, (B or 1, 1, T, n)."""


class Sight(NamedTuple):
    """What a law of one channel sees.

    Attributes:
        cells: values that it sees one by one, boolean, (T, n), all axes of space as one.
        moments: sums that it sees of each time.
        through: the law in these terms.
    """

    cells: Tensor
    moments: Sequence[Quadratic]
    through: Callable[[View], Seen]


class View:
    """The basis.

    Arguments:
        free: values that are not given, boolean, (T, n).
        sights: what laws see.

    Attributes:
        index, filled: the single values of each time, (T, S), and which of them there are.
        rows: an orthonormal basis of the sums on the other values, (K, n).
        small: whether there are few single values.
        group: times that have other values, boolean, (T,).
        radial: whether sums have squares there.
        points: numbers of each time, S + K, and one more for a length beside squares.
        present: which of them there are, (T, p).
    """

    def __init__(self, free: Tensor, sights: Sequence[Sight]) -> None:
        self.free = free
        moments = [moment for sight in sights for moment in sight.moments]
        seen = torch.stack([sight.cells for sight in sights]).any(0)
        for moment in moments:
            d = moment.quadratic.flatten().to(free.device)
            seen = seen | (d != d.median())
        others = free & ~seen & bool(moments)
        self.mask = others[others.sum(1).argmax()]
        self.group = (others == self.mask).all(1) & self.mask.any()
        single = free & (seen | (others & ~self.group[:, None]))  # times with fewer others see them one by one
        count = int(single.sum(1).max())
        self.index = single.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :count]
        self.filled = single.gather(1, self.index)
        self.small = count <= _SINGLE
        rows = [moment.linear.flatten().to(free.device) * self.mask for moment in moments]
        self.rows = _orthonormal(torch.stack(rows)) if rows and bool(self.group.any()) else free.new_zeros(0, free.shape[1]).double()
        self.radial = bool(self.group.any()) and any(bool(m.quadratic.flatten().to(free.device)[self.mask].any()) for m in moments)
        grouped = self.group[:, None].expand(-1, len(self.rows) + self.radial)
        self.present = torch.cat([self.filled, grouped], dim=1)
        self.points = self.present.shape[1]

    def down(self, u: Tensor) -> Tensor:
        """$E^\\top u$, (B, 1, T, n) to (B, 1, T, p)."""
        flat = u[:, 0]
        sums = flat @ self.rows.to(u).T * self.group[:, None].to(u)
        parts = [flat.gather(2, self.index.expand(len(u), -1, -1)) * self.filled.to(u), sums]
        if self.radial:
            whole = flat if bool(self.mask.all()) else flat[..., self.mask]
            square = torch.linalg.vector_norm(whole, dim=2).square() - sums.square().sum(2)
            parts.append((square.clamp_min(0).sqrt() * self.group.to(u))[..., None])
        return torch.cat(parts, dim=2)[:, None]

    def up(self, u: Tensor, before: Tensor, after: Tensor) -> Tensor:
        """The nearest fields to u, of which `before` is seen, of which `after` is; given values stay."""
        single, sums = len(self.index[0]), len(self.rows)
        v, z, w = u[:, 0].clone(), before[:, 0], after[:, 0]
        stretched = z[..., single : single + sums]
        if self.radial:
            length = z[..., -1:]
            stretch = torch.where(length > 0, w[..., -1:] / torch.where(length > 0, length, 1.0), 1.0)
            stretch = torch.where(self.group[:, None], stretch, 1.0)
            if bool(self.mask.all()):
                v *= stretch
            else:
                v[..., self.mask] *= stretch
            stretched = stretch * stretched
        change = w[..., single : single + sums] - stretched
        if sums:
            torch.baddbmm(v, change, self.rows.to(u).expand(len(u), -1, -1), out=v)
        if single:
            times, slots = self.filled.nonzero(as_tuple=True)
            v[:, times, self.index[times, slots]] = w[:, times, slots]
        return v[:, None].reshape(u.shape)

    def place(self, times: int) -> tuple[Tensor, Tensor]:
        """Of the first times, where single values are in the fields' values (times * n), and in z's (times * p); in one order."""
        time, slot = self.filled[:times].nonzero(as_tuple=True)
        return time * self.free.shape[1] + self.index[time, slot], time * self.points + slot

    def moment(self, quadratic: Quadratic) -> SeenQuadratic:
        return SeenQuadratic(quadratic, self)


class SeenQuadratic:
    """A quadratic sum in terms of what is seen."""

    def __init__(self, inner: Quadratic, view: View) -> None:
        a, d = inner.linear.flatten().to(view.free.device), inner.quadratic.flatten().to(view.free.device)
        taken = view.filled.to(a)
        extra = [view.rows.to(a) @ a] + ([a.new_zeros(1)] if view.radial else [])
        common = torch.cat(extra).expand(len(view.index), -1) * view.group[:, None]
        square = float(d[view.mask][0]) if bool(view.group.any()) else 0.0
        self.linear = torch.cat([a[view.index] * taken, common], dim=1)
        self.quadratic = torch.cat([d[view.index] * taken, torch.full_like(common, square) * view.group[:, None]], dim=1)
        self.inner, self.squares = inner, bool(self.quadratic.any())
        self.constant = torch.zeros(1, len(view.index), dtype=a.dtype, device=a.device)

    def data(self, given: Tensor) -> None:
        """The constant of values given outright, zero elsewhere."""
        self.constant = self.inner(given)

    def __call__(self, z: Tensor) -> Tensor:
        each = self.linear.to(z) + self.quadratic.to(z) * z[:, 0] if self.squares else self.linear.to(z)
        return self.constant.to(z) + (each * z[:, 0]).sum(2)

    def magnitude(self, z: Tensor) -> Tensor:
        """The sum of the sizes of its terms."""
        each = self.linear.to(z).abs() + (self.quadratic.to(z) * z[:, 0]).abs()
        return self.constant.to(z).abs() + (each * z[:, 0].abs()).sum(2)

    def gradient(self, z: Tensor) -> Tensor:
        if not self.squares:
            return self.linear.to(z)[None, None]
        return (self.linear.to(z) + 2 * self.quadratic.to(z) * z[:, 0])[:, None]

    def curvature(self, direction: Tensor) -> Tensor:
        return 2 * self.quadratic.to(direction) * direction


def _orthonormal(rows: Tensor) -> Tensor:
    """An orthonormal basis of rows, by modified Gram-Schmidt, twice."""
    basis: list[Tensor] = []
    for row in rows:
        left = row.clone()
        for _ in range(2):
            for vector in basis:
                left = left - (vector @ left) * vector
        if left.norm() > _DEPENDENT * row.norm():
            basis.append(left / left.norm())
    return torch.stack(basis) if basis else rows.new_zeros(0, rows.shape[1])
