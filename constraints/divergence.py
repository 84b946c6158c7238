r"""Incompressibility and its kin: the divergence, or the curl, of a vector field vanishes at every point.

The operator is one scheme's discrete divergence, stored with the law and named in it: a field that is divergence-free for one scheme is
not so for another. On periodic boxes it is diagonal in Fourier space, $\sigma_i = i\tilde k_i$, and the projection is Leray's,

$$\hat u \leftarrow \hat u - \frac{\tilde k\,(\tilde k\cdot\hat u)}{|\tilde k|^2}.$$

On other boxes, with walls, openings, staggered or stretched grids, it is a sum of one-dimensional differences, solved in their common
eigenbases (`constraints.linear.tensor`); on meshes it is a sparse matrix. The multiplier of a divergence is the pressure, times time step
over density: $u - v = A^\top\lambda$, which is $-\nabla\lambda$ where the law is $\nabla\cdot u = 0$.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from constraints.calculus.finite_difference import CentralDifference
from constraints.calculus.scheme import Scheme
from constraints.calculus.spectral import Spectral
from constraints.calculus.staggered import Staggered
from constraints.constraint import LinearConstraint, as_target
from constraints.grid import Axis, Grid
from constraints.linear.map import LinearMap
from constraints.linear.sparse import SparseMap
from constraints.linear.structured import FourierSymbol
from constraints.linear.tensor import KroneckerSum

SCHEMES: dict[str, type[Scheme]] = {"spectral": Spectral, "central": CentralDifference, "staggered": Staggered}


class DivergenceFree(LinearConstraint):
    r"""$\nabla\cdot\mathbf u = 0$, or a given divergence, at every point and time of a box.

    Axes may be periodic or bounded, equally spaced or not. What the velocity does at walls is for other laws to say (`no_slip`,
    `no_penetration`): in an `Intersection` with them the solve stays exact and structured.

    `"staggered"` is the finite-volume divergence of a marker-and-cell grid: component i is stored at the points of axis i, which are the
    faces of its cells, and at the middle between points of the other axes. A bounded axis of n points has n - 1 cells; the last
    entries of the other components along it belong to no cell, and are left alone.

    In float32 the spectral divergence of a smooth field is limited by the rounding of the field itself, which grows with the number of
    points: beyond about 128 points an axis such fields come back unconverged. Use float64 there.

    Arguments:
        grid: two or three space axes; time is allowed.
        scheme: the discrete divergence, `"spectral"` (periodic axes), `"central"` (order 2, one-sided at ends), `"staggered"`, or a
            `Scheme`.
        value: the divergence, rows are (time, *space): zero by default; sources and sinks otherwise.
        components: channels of the velocity, in the order of the space axes; the first d by default.
        channels: number of channels of the fields.

    Raises:
        ValueError: the scheme does not fit an axis, an unknown scheme, or not one component a space axis.
    """

    unit = "unit of the field over length"

    def __init__(
        self,
        grid: Grid,
        scheme: str | Scheme = "spectral",
        *,
        value: float | Tensor = 0.0,
        components: Sequence[int] | None = None,
        channels: int | None = None,
    ) -> None:
        scheme = _scheme(scheme, "DivergenceFree")
        taken, total = _vector(grid, components, channels, "DivergenceFree")
        operator = box_operator(grid, scheme, taken, total, (1.0,) * len(taken))
        flat = value.flatten(1) if isinstance(value, Tensor) and value.ndim > len(grid.axes) else value
        flat = flat.flatten() if isinstance(flat, Tensor) and flat.ndim == len(grid.axes) and flat.ndim > 1 else flat
        target = (
            torch.zeros(1, dtype=torch.float64)
            if isinstance(flat, float) and flat == 0
            else as_target(flat, operator.rows, "DivergenceFree")
        )
        super().__init__(operator, target)
        self.scheme = scheme
        self.name = f"divergence ({scheme.name})"


class CurlFree(LinearConstraint):
    r"""$\partial_x u_y - \partial_y u_x = 0$ at every point of a plane: the field is a gradient.

    The projection removes the rotational part, as Leray's removes the gradient. In three dimensions the curl's three components are
    dependent; project on their kernel by taking `u - v` of a `DivergenceFree` projection instead.

    Arguments:
        grid: two space axes; time is allowed.
        scheme: as for `DivergenceFree`.
        components: channels of the vector; the first two by default.
        channels: number of channels of the fields.

    Raises:
        ValueError: not two space axes, or as `DivergenceFree`.
    """

    unit = "unit of the field over length"

    def __init__(
        self, grid: Grid, scheme: str | Scheme = "spectral", *, components: Sequence[int] | None = None, channels: int | None = None
    ) -> None:
        scheme = _scheme(scheme, "CurlFree")
        taken, total = _vector(grid, components, channels, "CurlFree")
        if len(taken) != 2:
            raise ValueError(f"CurlFree expects two space axes; got {', '.join(axis.name for axis in grid.space_axes)}.")
        super().__init__(box_operator(grid, scheme, (taken[1], taken[0]), total, (1.0, -1.0)), torch.zeros(1, dtype=torch.float64))
        self.scheme = scheme
        self.name = f"curl ({scheme.name})"


class Balance(LinearConstraint):
    """Sums given by a sparse matrix: the net flux of every cell of a mesh, or any other linear law.

    Arguments:
        matrix: (m, C prod N), scipy sparse or a tensor: the signed incidence of cells and faces, say, +1 where a face's flux leaves.
        value: the sums, a number, (m,) or (B, m); zero by default.
        shape: what one field looks like; (1, number of columns) by default.
        name: what to call it.
        unit: unit of a row.

    Raises:
        ValueError: the matrix does not fit the shape, or the value the rows.

    Example:
        >>> from constraints import project
        >>> two_cells = torch.tensor([[-1.0, 1.0, 0.0], [0.0, -1.0, 1.0]])
        >>> project(Balance(two_cells), torch.tensor([[[1.0, 2.0, 3.0]]])).u
        tensor([[[2., 2., 2.]]])
    """

    def __init__(
        self,
        matrix: Any,
        value: float | Tensor = 0.0,
        *,
        shape: tuple[int, ...] | None = None,
        name: str = "balance",
        unit: str = "unit of the field",
    ) -> None:
        operator = SparseMap(matrix, (1, int(matrix.shape[1])) if shape is None else shape)
        super().__init__(operator, as_target(value, operator.rows, "Balance"))
        self.name, self.unit = name, unit

    def equated(self, u: Tensor) -> Tensor | None:
        sums = self.target.to(u).abs().expand(u.shape[0], -1).amax(1, keepdim=True)
        return sums if bool((sums > 0).all()) else None


def _scheme(scheme: str | Scheme, speaker: str) -> Scheme:
    if isinstance(scheme, Scheme):
        return scheme
    if scheme not in SCHEMES:
        raise ValueError(f"{speaker} expects a scheme among {', '.join(SCHEMES)}; got '{scheme}'.")
    return SCHEMES[scheme]()


def _vector(grid: Grid, components: Sequence[int] | None, channels: int | None, speaker: str) -> tuple[tuple[int, ...], int]:
    """The channels of a vector, one for each space axis, and the number of all channels."""
    axes = grid.space_axes
    taken = tuple(range(len(axes))) if components is None else tuple(components)
    total = max(taken) + 1 if channels is None and taken else channels or 0
    if len(axes) < 2 or len(taken) != len(axes) or len(set(taken)) != len(taken) or max(taken) >= total or min(taken) < 0:
        raise ValueError(
            f"{speaker} expects one velocity component for each of at least two space axes; "
            f"got components {taken} of {total} channels on ({', '.join(grid.names)})."
        )
    return taken, total


def box_operator(grid: Grid, scheme: Scheme, taken: Sequence[int], channels: int, signs: Sequence[float]) -> LinearMap:
    r"""$\sum_k s_k\,\partial_k u_{c_k}$: Fourier-diagonal where the scheme is so on all axes, else a sum over axes."""
    axes = grid.space_axes
    shape = (channels, *grid.shape)
    if scheme.centred and all(axis.periodic and axis.uniform for axis in axes):
        return FourierSymbol(_symbol(axes, scheme, taken, channels, signs), shape, odd=True)
    differences = [scheme.matrix(axis) for axis in axes]
    lines = [[torch.ones(b.points, dtype=torch.float64) if a is b else scheme.between(b) for b in axes] for a in axes]
    return KroneckerSum(differences, taken, shape, signs=signs, lines=lines)


def _symbol(axes: Sequence[Axis], scheme: Scheme, taken: Sequence[int], channels: int, signs: Sequence[float]) -> Tensor:
    shape = tuple(axis.points for axis in axes)
    symbol = torch.zeros(channels, *shape[:-1], shape[-1] // 2 + 1, dtype=torch.float64)
    for position, (channel, axis, sign) in enumerate(zip(taken, axes, signs, strict=True)):
        k = sign * scheme.wavenumber(axis)
        if position == len(axes) - 1:
            k = k[: axis.points // 2 + 1]
        symbol[channel] = k.reshape([-1 if p == position else 1 for p in range(len(axes))])
    return symbol
