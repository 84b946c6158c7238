"""What it takes to be a differentiation scheme."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from constraints.grid import Axis, Grid


class Scheme(ABC):
    """A rule for first derivatives on a grid.

    Laws, solvers and metrics share these objects, so that what one makes zero the other measures as zero: a field that is
    divergence-free for one scheme is not so for another.
    """

    name: str

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


def check_periodic(axis: Axis, speaker: str) -> None:
    """Raise a `ValueError` unless the axis is periodic and equally spaced."""
    if not (axis.periodic and axis.uniform):
        kind = "bounded" if not axis.periodic else "not equally spaced"
        raise ValueError(f"{speaker} expects a periodic, equally spaced axis; '{axis.name}' is {kind}.")
