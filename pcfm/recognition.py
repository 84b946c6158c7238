r"""Which evolution equation the values of a field on a line obey, found in weak form.

For smooth functions $\varphi$ of compact support in space and time, integration by parts moves all derivatives off the field,

$$-\int\varphi_t\,u = \sum_k c_k\,(-1)^{\alpha_k}\int\partial_x^{\alpha_k}\varphi\;f_k(u),$$

with $u u_x = (u^2/2)_x$ and so on: a linear system for the coefficients, one row a test function,
$\varphi = (1 - s^2)^8 (1 - \tau^2)^6$ on windows of an eighth of the axis. Sums over the stored points are integrals up to what
the bumps' smoothness leaves. Terms that are not needed are dropped one by one; the coefficients are then rounded to the shortest numbers
that fit as well.

Source:
    Messenger and Bortz, Weak SINDy for partial differential equations, J. Comput. Phys. 443 (2021) 110525.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from constraints import Axis
from pcfm.equations import COMPLEX, REAL, Evolution

_WINDOW = 8
"""Windows along an axis; their width is twice its points over this."""
_POWERS = (8, 6)
"""Powers of the bumps in space and time: above the derivatives that are taken, so that they vanish at the ends."""
_MISFIT = 1e-2
"""Share of the rate of change that an equation may leave unexplained."""
_NEEDED = 20.0
"""Factor by which the misfit grows at least when a term is dropped that is needed."""
_FLOOR = 1e-8
"""Misfit that files of double precision are not expected to fall below."""
_SHORT = 3
"""Digits up to which a number counts as chosen by someone: it may be as far off as sums are from integrals."""
_ROWS = 5
"""Test functions for each term that could be there: fewer fit anything."""
_STILL = 1e-6
"""Change over the values below which nothing moves, and there is nothing to explain."""


@dataclass(frozen=True)
class Found:
    """An equation and how well it is obeyed.

    Attributes:
        equation: with the shortest coefficients that fit as well.
        misfit: what it leaves of the rate of change in weak form, root mean square over that of the rate.
        margin: how far each coefficient alone may be moved, the others following, until the misfit is twice as large.
    """

    equation: Evolution
    misfit: float
    margin: Mapping[str, float]


def recognise(u: Tensor, time: Axis, x: Axis) -> Found | None:
    """The equation that a field obeys, None if it is none of the kind.

    Arguments:
        u: values, (T, X), real or complex.
        time: equally spaced times.
        x: equally spaced points.
    """
    times, points = u.shape
    reach = (max(4, times // _WINDOW), max(6, points // _WINDOW))
    if not (time.uniform and x.uniform) or times < 2 * reach[0] + 2 or points < 2 * reach[1] + 2:
        return None
    u = u.to(torch.complex128 if u.is_complex() else torch.float64)
    scale = u.abs().max()
    if scale == 0 or (u - u[:1]).abs().max() <= _STILL * scale:
        return None
    in_time = [w.to(u.dtype) for w in _windows(times, reach[0], time.spacing, _POWERS[1], 2)]
    in_space = [w.to(u.dtype) for w in _windows(points, reach[1], x.spacing, _POWERS[0], 5)]
    rate = -(in_time[1] @ u @ in_space[0].T).flatten()
    columns = {name: (-1) ** order * (in_time[0] @ flux @ in_space[order].T).flatten() for name, (flux, order) in _fluxes(u).items()}
    names = list(columns)
    if len(rate) < _ROWS * len(names):
        return None
    misfit, _ = _fit(columns, names, rate)
    plain = [[w.real for w in windows] for windows in (in_time, in_space)]
    sums = 3 * _error(plain[0], 1, time.spacing)
    allowed = min(_NEEDED * misfit + sums + _FLOOR, _MISFIT)
    if misfit > _MISFIT:
        return None
    while len(names) > 1:
        trials = [(_fit(columns, [n for n in names if n != dropped], rate)[0], dropped) for dropped in names]
        least, dropped = min(trials)
        if least > allowed:
            break
        names.remove(dropped)
    misfit, coefficients = _fit(columns, names, rate)
    if u.is_complex():
        if float(coefficients.real.abs().max()) > _MISFIT * float(coefficients.abs().max()):
            return None
        coefficients = 1j * coefficients.imag
    orders = {order for name, (_, order) in _fluxes(u[:1]).items() if name in names}
    loose = sums + 3 * max(_error(plain[1], order, x.spacing) for order in orders)
    coefficients, misfit = _shortest(columns, names, rate, coefficients, misfit, loose)
    values = (coefficients.imag if u.is_complex() else coefficients).tolist()
    equation = Evolution({n: (v, v) for n, v in zip(names, values, strict=True)}, u.is_complex())
    return Found(equation, misfit, _margins(columns, names, rate, misfit))


def _fluxes(u: Tensor) -> dict[str, tuple[Tensor, int]]:
    """Each term as the derivative of some order of a function of the values."""
    if u.is_complex():
        return dict(zip(COMPLEX, ((u, 0), (u.abs().square() * u, 0), (u, 2)), strict=True))
    return dict(zip(REAL, ((u, 0), (u**2, 0), (u**3, 0), (u, 1), (u**2 / 2, 1), (u, 2), (u, 3), (u, 4)), strict=True))


def _windows(points: int, reach: int, spacing: float, power: int, orders: int) -> list[Tensor]:
    """Derivatives of the bumps times the spacing, (windows, points), order by order."""
    s = np.arange(-reach, reach + 1) / reach
    bump = np.polynomial.Polynomial([1.0, 0.0, -1.0]) ** power
    starts = range(0, points - 2 * reach, max(1, reach // 2))
    found = []
    for order in range(orders):
        values = torch.from_numpy(bump.deriv(order)(s) if order else bump(s)) / (reach * spacing) ** order * spacing
        window = torch.zeros(len(starts), points, dtype=torch.float64)
        for row, start in enumerate(starts):
            window[row, start : start + 2 * reach + 1] = values
        found.append(window)
    return found


def _error(windows: list[Tensor], order: int, spacing: float) -> float:
    r"""How far sums are from integrals, on a window: $\sum\varphi^{(\alpha)} x^\alpha$ beside $(-1)^\alpha\alpha!\sum\varphi$, relative."""
    bump, derivative = windows[0][0], windows[order][0]
    points = bump.nonzero().flatten()
    x = (torch.arange(len(bump), dtype=torch.float64) - float(points.double().mean())) * spacing
    wanted = (-1) ** order * math.factorial(order) * bump.sum()
    return abs(float((derivative * x**order).sum() / wanted) - 1)


def _fit(columns: dict[str, Tensor], names: list[str], rate: Tensor) -> tuple[float, Tensor]:
    """Least squares in columns of equal size: the misfit, relative, and the coefficients."""
    A = torch.stack([columns[name] for name in names], dim=1)
    size = A.norm(dim=0).clamp_min(torch.finfo(torch.float64).tiny)
    x = torch.linalg.lstsq(A / size, rate[:, None], driver="gelsd").solution[:, 0] / size
    return _misfit(columns, names, rate, x), x


def _margins(columns: dict[str, Tensor], names: list[str], rate: Tensor, misfit: float) -> dict[str, float]:
    r"""Moves of each coefficient after which the best others leave $2\epsilon$ of the rate in place of $\epsilon$: what a column has beyond
    the others', $a_\perp$, is orthogonal to what is left, $\delta^2 |a_\perp|^2 = (2^2 - 1)\,\epsilon^2 |r|^2$."""
    found = {}
    for name in names:
        others = [other for other in names if other != name]
        beyond = _fit(columns, others, columns[name])[0] if others else 1.0
        found[name] = 3**0.5 * misfit * float(rate.norm() / columns[name].norm()) / max(beyond, torch.finfo(torch.float64).eps)
    return found


def _misfit(columns: dict[str, Tensor], names: list[str], rate: Tensor, coefficients: Tensor) -> float:
    A = torch.stack([columns[name] for name in names], dim=1)
    return float((A @ coefficients - rate).norm() / rate.norm())


def _shortest(
    columns: dict[str, Tensor], names: list[str], rate: Tensor, coefficients: Tensor, misfit: float, loose: float
) -> tuple[Tensor, float]:
    """The coefficients rounded to as few digits as fit nearly as well, and their misfit; of short ones `loose` is the sums' own."""
    for digits in range(1, 12):
        parts = torch.view_as_real(coefficients) if coefficients.is_complex() else coefficients
        rounded = torch.tensor([float(f"{v:.{digits - 1}e}") for v in parts.flatten().tolist()], dtype=torch.float64).reshape(parts.shape)
        short = torch.view_as_complex(rounded) if coefficients.is_complex() else rounded
        left = _misfit(columns, names, rate, short)
        if left <= 2 * misfit + (loose if digits <= _SHORT else 0.0) + _FLOOR:
            return short, left
    return coefficients, misfit
