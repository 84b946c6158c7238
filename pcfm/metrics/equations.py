r"""Right-hand sides $f$ of evolution equations $u_t = f(u)$, for `equation_residual`: what people would write down, on any scheme.

Each is a function of fields (N, C, *N) to the same shape, each time from the fields at that time. Coefficients are numbers, or (N,), one
for each sample. Derivatives are those of a `Scheme`; second ones are composed of first ones.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from constraints import Grid
from constraints.calculus import CentralDifference, Scheme, Spectral, laplacian

Rate = Callable[[Tensor], Tensor]
Coefficient = float | Tensor


def natural_scheme(grid: Grid) -> Scheme:
    """Fourier differentiation where all space axes are periodic and equally spaced, else central differences of order 4."""
    return Spectral() if all(axis.periodic and axis.uniform for axis in grid.space_axes) else CentralDifference(4)


def diffusion(grid: Grid, diffusivity: Coefficient, scheme: Scheme) -> Rate:
    r"""$\nu\nabla^2 u$."""
    return lambda u: _each(diffusivity, u) * laplacian(u, grid, scheme)


def advection(grid: Grid, speed: Coefficient, scheme: Scheme) -> Rate:
    r"""$-\beta u_x$ along the first space axis."""
    return lambda u: -_each(speed, u) * scheme.derivative(u, grid, grid.space.names[0])


def burgers(grid: Grid, viscosity: Coefficient, scheme: Scheme) -> Rate:
    r"""$-(\frac12u^2)_x + \nu u_{xx}$."""
    x = grid.space.names[0]
    return lambda u: scheme.derivative(_each(viscosity, u) * scheme.derivative(u, grid, x) - u.square() / 2, grid, x)


def fisher(grid: Grid, diffusivity: Coefficient, reaction: Coefficient, scheme: Scheme) -> Rate:
    r"""$\nu\nabla^2u + \rho u(1 - u)$."""
    return lambda u: _each(diffusivity, u) * laplacian(u, grid, scheme) + _each(reaction, u) * u * (1 - u)


def allen_cahn(grid: Grid, diffusion: Coefficient, reaction: Coefficient, scheme: Scheme) -> Rate:
    r"""$\varepsilon\nabla^2u - \lambda(u^3 - u)$."""
    return lambda u: _each(diffusion, u) * laplacian(u, grid, scheme) - _each(reaction, u) * (u**3 - u)


def kuramoto_sivashinsky(grid: Grid, viscosity: Coefficient, scheme: Scheme) -> Rate:
    r"""$-(\frac12u^2)_x - u_{xx} - \nu u_{xxxx}$."""
    x = grid.space.names[0]

    def rate(u: Tensor) -> Tensor:
        slope = scheme.derivative(u, grid, x)
        third = scheme.derivative(scheme.derivative(slope, grid, x), grid, x)
        return -scheme.derivative(u.square() / 2 + slope + _each(viscosity, u) * third, grid, x)

    return rate


def korteweg_de_vries(grid: Grid, nonlinearity: Coefficient, dispersion: Coefficient, scheme: Scheme) -> Rate:
    r"""$-\alpha(\frac12u^2)_x - \delta u_{xxx}$."""
    x = grid.space.names[0]

    def rate(u: Tensor) -> Tensor:
        curvature = scheme.derivative(scheme.derivative(u, grid, x), grid, x)
        return -scheme.derivative(_each(nonlinearity, u) * u.square() / 2 + _each(dispersion, u) * curvature, grid, x)

    return rate


def vorticity(grid: Grid, viscosity: Coefficient, scheme: Scheme, force: Tensor | None = None) -> Rate:
    r"""$-\nabla\cdot(\mathbf u w) + \nu\nabla^2w + g$ on a periodic plane.

    Velocities are $\mathbf u = (\partial_y\psi, -\partial_x\psi)$ with $-\nabla^2\psi = w$. The stream function is Fourier's; derivatives
    are the scheme's.

    Arguments:
        grid: two periodic, equally spaced space axes.
        viscosity: $\nu$.
        scheme: of the derivatives.
        force: g, the curl of the force, broadcastable to (N, 1, *N).
    """
    fourier, (x, y) = Spectral(), grid.space.names
    k = [fourier.wavenumber(axis) for axis in grid.space_axes]
    square = k[0][:, None] ** 2 + k[1][None, : grid.space.shape[1] // 2 + 1] ** 2
    inverse = torch.where(square > 0, 1 / square.clamp_min(1e-300), 0.0)

    def rate(w: Tensor) -> Tensor:
        modes = torch.fft.rfftn(w, dim=(-2, -1))
        stream = torch.fft.irfftn(modes * inverse.to(w), s=grid.space.shape, dim=(-2, -1))
        across, along = scheme.derivative(stream, grid, y), -scheme.derivative(stream, grid, x)
        carried = scheme.derivative(across * w, grid, x) + scheme.derivative(along * w, grid, y)
        spread = _each(viscosity, w) * laplacian(w, grid, scheme)
        return spread - carried + (0.0 if force is None else force.to(w))

    return rate


def _each(value: Coefficient, u: Tensor) -> Tensor:
    """A coefficient of each sample, shaped so that it multiplies fields."""
    return torch.as_tensor(value).to(u).reshape(-1, *(1,) * (u.ndim - 1))
