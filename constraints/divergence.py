r"""Incompressibility: the divergence of a velocity field vanishes at every point.

The operator is one scheme's discrete divergence, stored with the law and named in it: a field that is divergence-free for one scheme is
not so for another. On periodic axes it is diagonal in Fourier space, $\sigma_i = i\tilde k_i$, and the projection is Leray's,

$$\hat u \leftarrow \hat u - \frac{\tilde k\,(\tilde k\cdot\hat u)}{|\tilde k|^2}.$$

Its multiplier is a pressure: $u - v = A^\top\lambda = -\nabla\lambda$.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from constraints.calculus.finite_difference import CentralDifference
from constraints.calculus.scheme import Scheme
from constraints.calculus.spectral import Spectral
from constraints.constraint import LinearConstraint
from constraints.grid import Grid
from constraints.linear.structured import FourierSymbol

SCHEMES: dict[str, type[Scheme]] = {"spectral": Spectral, "central": CentralDifference}


class DivergenceFree(LinearConstraint):
    r"""$\nabla\cdot\mathbf u = 0$ at every point and time of a periodic box.

    In float32 the spectral divergence of a smooth field is limited by the rounding of the field itself, which grows with the number of
    points: beyond about 128 points an axis such fields come back unconverged. Use float64 there.

    Arguments:
        grid: two or three periodic, equally spaced space axes; time is allowed.
        scheme: the discrete divergence, `"spectral"`, `"central"` (order 2) or a `Scheme`.
        components: channels of the velocity, in the order of the space axes; the first d by default.
        channels: number of channels of the fields.

    Raises:
        ValueError: an axis is not periodic and equally spaced, an unknown scheme, or not one component a space axis.
    """

    unit = "unit of the field over length"

    def __init__(
        self,
        grid: Grid,
        scheme: str | Scheme = "spectral",
        *,
        components: Sequence[int] | None = None,
        channels: int | None = None,
    ) -> None:
        axes = grid.space_axes
        if isinstance(scheme, str):
            if scheme not in SCHEMES:
                raise ValueError(f"DivergenceFree expects a scheme among {', '.join(SCHEMES)}; got '{scheme}'.")
            scheme = SCHEMES[scheme]()
        taken = tuple(range(len(axes))) if components is None else tuple(components)
        total = max(taken) + 1 if channels is None else channels
        if len(axes) < 2 or len(taken) != len(axes) or len(set(taken)) != len(taken) or max(taken) >= total or min(taken) < 0:
            raise ValueError(
                f"DivergenceFree expects one velocity component for each of at least two space axes; "
                f"got components {taken} of {total} channels on ({', '.join(grid.names)})."
            )
        shape = tuple(axis.points for axis in axes)
        symbol = torch.zeros(total, *shape[:-1], shape[-1] // 2 + 1, dtype=torch.float64)
        for position, (channel, axis) in enumerate(zip(taken, axes, strict=True)):
            k = scheme.wavenumber(axis)
            if position == len(axes) - 1:
                k = k[: axis.points // 2 + 1]
            symbol[channel] = k.reshape([-1 if p == position else 1 for p in range(len(axes))])
        super().__init__(FourierSymbol(symbol, (total, *grid.shape), odd=True), torch.zeros(1, dtype=torch.float64))
        self.scheme = scheme
        self.name = f"divergence ({scheme.name})"
