r"""Axes and grids: what a field lives on.

A field is a plain tensor $(B, C, *N)$; a `Grid` names the axes of $*N$, in order, physical time first if there is one.

An axis has $n$ points on an extent of length $L$:

* periodic: $x_i = x_0 + iL/n$, half open, the end point never stored twice; weights $L/n$;
* bounded, nodes: $x_i = x_0 + iL/(n-1)$, both ends stored; trapezoidal weights;
* bounded, cells: $x_i = x_0 + iL/n$ are centres of equal cells, half a cell away from the walls; weights $L/n$;
* given coordinates: any increasing $x_i$; trapezoidal weights (wrapped around when periodic).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

_UNIFORM = 1e-6
"""Relative deviation of a spacing below which coordinates count as equally spaced.

Files store coordinates in single precision, where the spacing of 10^3 points is known to about 1e-6 of the length per spacing.
"""


@dataclass(frozen=True)
class Axis:
    """One axis of a grid.

    Arguments:
        name: what the axis is called; `"time"` is physical time.
        points: number of stored points.
        length: extent of the domain in `unit`; 1 unless `coordinates` say otherwise. A periodic axis has its period.
        origin: coordinate of the first point.
        periodic: whether the last point is followed by the first.
        cells: bounded axes only: the points are centres of equal cells that fill the length.
        coordinates: increasing coordinates of the points, where they are not equally spaced.
        unit: unit of the coordinates, CF spelling, `"1"` for none.

    Raises:
        ValueError: fewer than one point, a length that is not positive, or coordinates that do not fit.

    Example:
        >>> Axis("x", 4, length=2.0, periodic=True).positions().tolist()
        [0.0, 0.5, 1.0, 1.5]
        >>> Axis("y", 3, length=2.0).weights().tolist()
        [0.5, 1.0, 0.5]
    """

    name: str
    points: int
    length: float | None = None
    origin: float = 0.0
    periodic: bool = False
    cells: bool = False
    coordinates: tuple[float, ...] | None = None
    unit: str = "1"

    def __post_init__(self) -> None:
        if self.points < 1:
            raise ValueError(f"Axis '{self.name}' expects at least one point; got {self.points}.")
        if self.cells and (self.periodic or self.coordinates is not None):
            raise ValueError(
                f"Axis '{self.name}': cells=True is for bounded, equally spaced axes; a periodic axis has equal weights anyway."
            )
        if self.coordinates is not None:
            self._check_coordinates(self.coordinates)
        elif self.length is None:
            object.__setattr__(self, "length", 1.0)
        if not (isinstance(self.length, (int, float)) and math.isfinite(self.length) and (self.length > 0 or self.points == 1)):
            raise ValueError(f"Axis '{self.name}' expects a positive length; got {self.length}.")

    def _check_coordinates(self, coordinates: tuple[float, ...]) -> None:
        if len(coordinates) != self.points:
            raise ValueError(f"Axis '{self.name}' expects {self.points} coordinates; got {len(coordinates)}.")
        if any(not b > a for a, b in pairwise(coordinates)):
            raise ValueError(f"Axis '{self.name}' expects increasing coordinates. Sort the points first.")
        span = coordinates[-1] - coordinates[0]
        if self.periodic and (self.length is None or self.length <= span):
            raise ValueError(
                f"Axis '{self.name}' is periodic with given coordinates: it expects its period as `length`, larger than "
                f"{span:g}; got {self.length}. Drop a repeated end point, if there is one."
            )
        object.__setattr__(self, "origin", coordinates[0])
        if not self.periodic:
            object.__setattr__(self, "length", span)

    @classmethod
    def at(cls, name: str, coordinates: Sequence[float], *, periodic: bool = False, length: float | None = None, unit: str = "1") -> Axis:
        """The axis through given coordinates, stored as equally spaced when they are.

        Arguments:
            coordinates: increasing coordinates of the points.
            periodic: whether the axis is periodic; then `length` is its period, by default $n$ times the mean spacing.

        Example:
            >>> Axis.at("x", [0.0, 0.25, 0.5, 0.75], periodic=True).length
            1.0
            >>> Axis.at("x", [0.0, 0.1, 0.4]).uniform
            False
        """
        values = tuple(float(c) for c in coordinates)
        n = len(values)
        if n < 2:
            return cls(name, n, length=length, origin=values[0] if values else 0.0, periodic=periodic, unit=unit)
        span = values[-1] - values[0]
        spacing = span / (n - 1)
        period = length if length is not None else span + spacing
        steps = [b - a for a, b in pairwise(values)]
        if periodic:
            steps.append(period - span)
        if spacing > 0 and max(abs(step - spacing) for step in steps) <= _UNIFORM * max(spacing, span, key=abs):
            extent = period if periodic else span
            return cls(name, n, length=extent, origin=values[0], periodic=periodic, unit=unit)
        return cls(name, n, length=period if periodic else None, periodic=periodic, coordinates=values, unit=unit)

    @property
    def extent(self) -> float:
        """Length of the domain along this axis."""
        assert self.length is not None
        return float(self.length)

    @property
    def uniform(self) -> bool:
        """Whether the points are equally spaced."""
        return self.coordinates is None

    @property
    def spacing(self) -> float:
        """Distance of neighbouring points.

        Raises:
            ValueError: the points are not equally spaced.
        """
        if not self.uniform:
            raise ValueError(f"Axis '{self.name}' has given coordinates, which have no single spacing.")
        gaps = self.points if self.periodic or self.cells else self.points - 1
        return self.extent / max(gaps, 1)

    def positions(self, like: Tensor | None = None) -> Tensor:
        """Coordinates of the points, $(n,)$, in float64 or in the dtype and on the device of `like`."""
        if self.coordinates is not None:
            x = torch.tensor(self.coordinates, dtype=torch.float64)
        else:
            x = self.origin + self.spacing * torch.arange(self.points, dtype=torch.float64)
        return x if like is None else x.to(like)

    def weights(self, like: Tensor | None = None) -> Tensor:
        """Quadrature weights of the points, $(n,)$: equal on periodic and cell axes, trapezoidal on bounded nodes."""
        if self.points == 1:
            w = torch.ones(1, dtype=torch.float64) * (self.extent if self.periodic or self.cells else 1.0)
        elif self.uniform:
            w = torch.full((self.points,), self.spacing, dtype=torch.float64)
            if not (self.periodic or self.cells):
                w[0] = w[-1] = self.spacing / 2
        else:
            x = self.positions()
            ends = (x[-1:] - self.extent, x[:1] + self.extent) if self.periodic else (x[:1], x[-1:])
            x = torch.cat([ends[0], x, ends[1]])
            w = (x[2:] - x[:-2]) / 2
        return w if like is None else w.to(like)

    def to_json(self) -> dict[str, Any]:
        """A dictionary of plain values from which `from_json` rebuilds the axis."""
        return {
            "name": self.name,
            "points": self.points,
            "length": self.extent,
            "origin": self.origin,
            "periodic": self.periodic,
            "cells": self.cells,
            "coordinates": None if self.coordinates is None else list(self.coordinates),
            "unit": self.unit,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Axis:
        """The axis written by `to_json`."""
        data = dict(data)
        if data.get("coordinates") is not None:
            data["coordinates"] = tuple(data["coordinates"])
        return cls(**data)


@dataclass(frozen=True, init=False)
class Grid:
    """A product of axes, in the order of the trailing dimensions of a field.

    Raises:
        ValueError: no axis, a name given twice, or a time axis that is not first.

    Example:
        >>> grid = Grid(Axis("time", 5), Axis("x", 8, periodic=True))
        >>> grid.shape, grid.dim("time"), grid.space.names
        ((5, 8), -2, ('x',))
    """

    axes: tuple[Axis, ...]

    def __init__(self, *axes: Axis) -> None:
        if not axes:
            raise ValueError("Grid expects at least one axis.")
        names = [axis.name for axis in axes]
        if len(set(names)) != len(names):
            raise ValueError(f"Grid expects axes of different names; got {names}.")
        if "time" in names[1:]:
            raise ValueError(f"Grid expects physical time first; got {names}.")
        object.__setattr__(self, "axes", tuple(axes))

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(axis.points for axis in self.axes)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(axis.name for axis in self.axes)

    @property
    def has_time(self) -> bool:
        """Whether the first axis is physical time."""
        return self.axes[0].name == "time"

    @property
    def space(self) -> Grid:
        """The grid of the space axes alone.

        Raises:
            ValueError: there are none.
        """
        if not self.space_axes:
            raise ValueError("this grid has a time axis only.")
        return Grid(*self.space_axes)

    @property
    def space_axes(self) -> tuple[Axis, ...]:
        return self.axes[1:] if self.has_time else self.axes

    @property
    def space_dims(self) -> tuple[int, ...]:
        """Dimensions of a field's tensor that are space, counted from the end."""
        return tuple(range(-len(self.space_axes), 0))

    @property
    def volume(self) -> float:
        """Measure of the space domain."""
        return math.prod(axis.extent for axis in self.space_axes)

    def axis(self, name: str) -> Axis:
        """The axis of that name."""
        return self.axes[self.dim(name)]

    def dim(self, name: str) -> int:
        """Dimension of an axis in a field's tensor, counted from the end.

        Raises:
            ValueError: no axis of that name.
        """
        if name not in self.names:
            raise ValueError(f"no axis '{name}' on this grid; it has {', '.join(self.names)}.")
        return self.names.index(name) - len(self.axes)

    def along(self, name: str, values: Tensor) -> Tensor:
        """Reshape one value a point of an axis so that it broadcasts over fields on this grid."""
        shape = [1] * len(self.axes)
        shape[self.dim(name)] = values.shape[0]
        return values.reshape(shape)

    def mesh(self, like: Tensor | None = None) -> tuple[Tensor, ...]:
        """Coordinates of all points, one tensor of the grid's shape for each axis."""
        return torch.meshgrid(*(axis.positions(like) for axis in self.axes), indexing="ij")

    def weights(self, names: Sequence[str] | None = None, like: Tensor | None = None) -> Tensor:
        """Quadrature weights over the named axes (all space axes by default), broadcastable to the grid's shape."""
        names = tuple(axis.name for axis in self.space_axes) if names is None else names
        w = torch.ones((1,) * len(self.axes), dtype=torch.float64)
        for name in names:
            w = w * self.along(name, self.axis(name).weights())
        return w if like is None else w.to(like)

    def check(self, u: Tensor, speaker: str, channels: int | None = None) -> None:
        """Raise a `ValueError` unless `u` is a batch of fields $(B, C, *N)$ on this grid."""
        wanted = "any" if channels is None else str(channels)
        fits = u.ndim == len(self.axes) + 2 and tuple(u.shape[2:]) == self.shape and channels in (None, u.shape[1])
        if fits:
            return
        names, shape = ", ".join(self.names), ", ".join(str(n) for n in self.shape)
        message = f"{speaker} expects fields on ({names}), shape (B, {wanted}, {shape}); got {tuple(u.shape)}."
        if u.ndim == len(self.axes) + 2 and sorted(u.shape[2:]) == sorted(self.shape) and tuple(u.shape[2:]) != self.shape:
            message += " The axes are there in another order: permute them (physical time first)."
        elif u.ndim == len(self.axes) + 1 and tuple(u.shape[1:]) == self.shape:
            message += " Add the channel dimension: u.unsqueeze(1)."
        raise ValueError(message)

    def __str__(self) -> str:
        parts = []
        for axis in self.axes:
            kind = "periodic" if axis.periodic else "cells" if axis.cells else "bounded"
            parts.append(f"{axis.name} {axis.points} {kind}{'' if axis.uniform else ' non-uniform'} length {axis.extent:g}")
        return "; ".join(parts)
