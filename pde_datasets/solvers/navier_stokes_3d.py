r"""Three-dimensional incompressible flow in a periodic box, by its velocity in Fourier space.

$$\partial_t\hat{\mathbf u} = -P_k\,\big[i\mathbf k\cdot\widehat{\mathbf u\mathbf u}\big] - \nu k^2\hat{\mathbf u} + \hat{\mathbf f},
\qquad P_k = 1 - \frac{\mathbf k\mathbf k^\top}{k^2}.$$

Pseudo-spectral: real transforms, products dealiased by the two-thirds rule, ETDRK4 in time. Pressure is what $P_k$ takes out, and the
trace of $\mathbf u\mathbf u$ is part of it: with $w^2$ subtracted from the diagonal five products are enough, hence eight transforms a
stage (Basdevant, J. Comput. Phys. 50 (1983) 209). On the kept modes the truncated equations conserve energy and helicity as the equations
do, since no product aliases. The mean velocity stays what it is.

A force that adds a constant power $\varepsilon$ to the large scales keeps turbulence going (Machiels, Phys. Rev. Lett. 79 (1997) 3411):

$$\hat{\mathbf f} = \frac{\varepsilon}{2 E_b}\,\hat{\mathbf u}\quad\text{for } 0 < |\mathbf k| \le b,\qquad
E_b = \tfrac12\sum_{0<|\mathbf k|\le b}|\hat{\mathbf u}|^2.$$
"""

from __future__ import annotations

import torch
from torch import Tensor

from constraints import Grid
from pde_datasets.solvers.periodic_flow import PeriodicFlow


class VelocityFlow(PeriodicFlow):
    r"""The semi-discrete equations on the kept modes $\hat{\mathbf u}$ of the velocity, (B, 3, 2 mx + 1, 2 my + 1, mz + 1), with
    $\mathbf u = \sum_k\hat{\mathbf u}_k e^{i\mathbf k\cdot\mathbf x}$.

    Arguments:
        grid: its space axes are three periodic ones.
        viscosity, drag, dt, tolerance, device: as for `PeriodicFlow`.
        power: $\varepsilon$, what the force adds to the mean kinetic energy per unit time.
        band: b, the largest wavenumber that is forced.

    Raises:
        ValueError, FloatingPointError: as `PeriodicFlow`.
    """

    dimensions = 3

    def __init__(
        self,
        grid: Grid,
        viscosity: float | Tensor,
        *,
        drag: float = 0.0,
        power: float = 0.0,
        band: float = 2.5,
        dt: float | None = None,
        tolerance: float = 1e-6,
        device: str | torch.device = "cpu",
    ) -> None:
        super().__init__(grid, viscosity, drag=drag, dt=dt, tolerance=tolerance, device=device)
        self.power = power
        self.linear = self.linear.unsqueeze(1)  # the same for all components
        # Complex, though real or imaginary: a product of a real and a complex tensor would convert the real one every time.
        self._ik = tuple(1j * k for k in self.k)
        self._pressure = self.inverse_k2 + 0j
        # Each stored coefficient with kz > 0 stands for its conjugate too.
        self._weight = torch.where(self.k[2] > 0, 2.0, 1.0).to(torch.float64)
        self._forced = self._weight * ((self.k2 > 0) & (self.k2 <= band**2))

    def transform(self, u: Tensor) -> Tensor:
        """The kept modes of velocity fields (B, 3, *N), made free of divergence."""
        return self._project(self._modes(u))

    def velocity(self, v: Tensor) -> Tensor:
        for axis in (0, 1):
            v = torch.fft.ifft(self._spread(v, axis), dim=axis - 3, norm="forward")
        return torch.fft.irfft(v, n=self.shape[2], dim=-1, norm="forward")

    def energy(self, v: Tensor) -> Tensor:
        r"""$\frac12\langle|\mathbf u|^2\rangle$, (B,)."""
        return _half_square(v, self._weight)

    def enstrophy(self, v: Tensor) -> Tensor:
        r"""$Z = \frac12\langle|\nabla\times\mathbf u|^2\rangle$, (B,); viscosity dissipates $2\nu Z$."""
        return _half_square(v, self._weight * self.k2)

    def helicity(self, v: Tensor) -> Tensor:
        r"""$\langle\mathbf u\cdot\nabla\times\mathbf u\rangle$, (B,)."""
        curl = torch.stack([self._ik[i - 2] * v[:, i - 1] - self._ik[i - 1] * v[:, i - 2] for i in range(3)], dim=1)
        return torch.einsum("bcxyz,xyz->b", (v.conj() * curl).real, self._weight)

    def nonlinear(self, v: Tensor) -> Tensor:
        """Advection, pressure and force: the rate of change but for viscosity and drag."""
        u = self.velocity(v)
        rate = torch.zeros_like(v)
        for i, j in ((0, 0), (1, 1), (0, 1), (0, 2), (1, 2)):
            product = u[:, i] * u[:, j]
            if i == j:
                product.addcmul_(u[:, 2], u[:, 2], value=-1)
            flux = self._modes(product)
            rate[:, i].addcmul_(self._ik[j], flux, value=-1)
            if i != j:
                rate[:, j].addcmul_(self._ik[i], flux, value=-1)
        rate = self._project(rate)
        if self.power:
            strength = self.power / (2 * _half_square(v, self._forced))
            rate.addcmul_(v, (strength[:, None, None, None, None] * (self._forced > 0)) + 0j)
        return rate

    def _modes(self, u: Tensor) -> Tensor:
        """The kept modes of real fields (..., *N), axis by axis, so that the later transforms are fewer."""
        modes = torch.fft.rfft(u, dim=-1, norm="forward")[..., : self.kept[2] + 1]
        for axis in (1, 0):
            modes = self._cut(torch.fft.fft(modes, dim=axis - 3, norm="forward"), axis)
        return modes

    def _project(self, v: Tensor) -> Tensor:
        """Made free of divergence, in place."""
        potential = sum(ik * v[:, i] for i, ik in enumerate(self._ik)) * self._pressure
        for i, ik in enumerate(self._ik):
            v[:, i].addcmul_(ik, potential)
        return v


def _half_square(v: Tensor, weight: Tensor) -> Tensor:
    r"""$\frac12\sum_k w_k|\hat{\mathbf u}_k|^2$, (B,)."""
    return torch.einsum("bcxyz,xyz->b", v.real.square() + v.imag.square(), weight) / 2
