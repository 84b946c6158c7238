"""What it takes to be a differentiation scheme."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from constraints.grid import Axis, Grid


class Scheme(ABC):
    """A rule for first derivatives on a grid.

    Laws, solvers and metrics share these objects, so that what one makes zero the other measures as zero: a field that is
    divergence-free for one scheme is not so for another.
    """

    name: str
    centred: bool = True
    """Whether the derivative sits at the points themselves, so that its symbol on a periodic axis is imaginary."""

    @abstractmethod
    def derivative(self, u: Tensor, grid: Grid, axis: str) -> Tensor:
        """First derivative of fields (..., *N) along a named axis, same shape, in the unit of u over that of the axis."""

    @abstractmethod
    def wavenumber(self, axis: Axis) -> Tensor:
        r"""Modified wavenumbers of a periodic axis, $(n,)$ in the order of the discrete Fourier transform.

        The derivative of $e^{ikx}$ is $i\tilde k(k) e^{ikx}$ with real, odd $\tilde k$; at the Nyquist wavenumber it is zero, since
        the derivative of a real field there is not representable.

        Raises:
            ValueError: the axis is not periodic and equally spaced.
        """

    def matrix(self, axis: Axis) -> Tensor:
        """The derivative along an axis as a matrix, (n, n), float64.

        Raises:
            ValueError: the scheme is not for such an axis.
        """
        return self.derivative(torch.eye(axis.points, dtype=torch.float64), Grid(axis), axis.name).T.contiguous()

    def between(self, axis: Axis) -> Tensor:
        """Which points of an axis the other components of a vector have values at, (n,), 1 or 0: all of them unless staggered."""
        return torch.ones(axis.points, dtype=torch.float64)


def check_periodic(axis: Axis, speaker: str) -> None:
    """Raise a `ValueError` unless the axis is periodic and equally spaced."""
    if not (axis.periodic and axis.uniform):
        kind = "bounded" if not axis.periodic else "not equally spaced"
        raise ValueError(f"{speaker} expects a periodic, equally spaced axis; '{axis.name}' is {kind}.")
