r"""Two-dimensional incompressible flow in a periodic rectangle, by its vorticity $\omega = \partial_x v - \partial_y u$.

$$\partial_t\omega + \mathbf u\cdot\nabla\omega = \nu\nabla^2\omega - \alpha\,\omega + g,\qquad -\nabla^2\psi = \omega,\quad
u = \partial_y\psi,\; v = -\partial_x\psi,$$

with viscosity $\nu$, linear drag $\alpha$ and the curl g of a force. Pseudo-spectral: real transforms, products dealiased by the
two-thirds rule, ETDRK4 in time. With advection written as $\nabla\cdot(\mathbf u\mathbf u)$ two products are enough,

$$\nabla\times\nabla\cdot(\mathbf u\mathbf u) = (\partial_{xx} - \partial_{yy})(uv) + \partial_{xy}(v^2 - u^2),$$

hence four transforms a stage (Basdevant, J. Comput. Phys. 50 (1983) 209). The truncated equations conserve energy and enstrophy as
advection does, since no product aliases.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from constraints import Grid
from pde_datasets.solvers.periodic_flow import PeriodicFlow


class VorticityFlow(PeriodicFlow):
    r"""The semi-discrete equations on the kept modes of the vorticity, (B, 2 mx + 1, my + 1), unscaled as `torch.fft.rfft2` has them.

    Arguments:
        grid: its space axes are two periodic ones.
        viscosity, drag, dt, tolerance, device: as for `PeriodicFlow`.
        force: curl g of the force, fields (*N) or (B, *N); none by default.

    Raises:
        ValueError, FloatingPointError: as `PeriodicFlow`.
    """

    dimensions = 2

    def __init__(
        self,
        grid: Grid,
        viscosity: float | Tensor,
        *,
        drag: float = 0.0,
        force: Tensor | None = None,
        dt: float | None = None,
        tolerance: float = 1e-6,
        device: str | torch.device = "cpu",
    ) -> None:
        super().__init__(grid, viscosity, drag=drag, dt=dt, tolerance=tolerance, device=device)
        kx, ky = self.k
        # Complex, though real or imaginary: a product of a real and a complex tensor would convert the real one every time.
        self._to_velocity = torch.stack([1j * ky * self.inverse_k2, -1j * kx * self.inverse_k2])[:, None] / math.prod(self.shape)
        self._flux_uv = kx**2 - ky**2 + 0j
        self._flux_difference = kx * ky + 0j
        self.force = self.transform(torch.zeros(self.shape, dtype=torch.float64, device=device) if force is None else force.to(device))
        self._spectra = torch.zeros(2, 0, self.shape[0], self.shape[1] // 2 + 1, dtype=torch.complex128, device=device)

    def transform(self, w: Tensor) -> Tensor:
        """The kept modes of vorticity fields (B, *N)."""
        return self._cut(torch.fft.rfft2(w)[..., : self.kept[1] + 1], 0)

    def vorticity(self, w: Tensor, points: int | None = None) -> Tensor:
        """Vorticity fields (B, *N); or on fewer points an axis, with the modes below their Nyquist wavenumber."""
        nx, ny = self.shape if points is None else (points, points)
        mx, my = min(self.kept[0], (nx - 1) // 2), min(self.kept[1], (ny - 1) // 2)
        spectrum = w.new_zeros(len(w), nx, ny // 2 + 1)
        spectrum[:, : mx + 1, : my + 1] = w[:, : mx + 1, : my + 1]
        spectrum[:, nx - mx :, : my + 1] = w[:, w.shape[1] - mx :, : my + 1]
        return torch.fft.irfft2(spectrum, s=(nx, ny)) * (nx * ny / math.prod(self.shape))

    def velocity(self, w: Tensor) -> Tensor:
        """Velocity fields (B, 2, *N)."""
        return self._velocity(w).movedim(0, 1)

    def nonlinear(self, w: Tensor) -> Tensor:
        """Advection and force: the rate of change but for viscosity and drag."""
        u, v = self._velocity(w)
        products = u.new_empty(2, *u.shape)
        torch.mul(u, v, out=products[0])
        torch.mul(v, v, out=products[1]).addcmul_(u, u, value=-1)
        uv, difference = self._cut(torch.fft.rfft2(products)[..., : self.kept[1] + 1], 0)
        return torch.addcmul(self.force, self._flux_uv, uv).addcmul_(self._flux_difference, difference)

    def _velocity(self, w: Tensor) -> Tensor:
        """Both components, (2, B, *N), by way of a buffer where the modes that are not kept stay zero."""
        if self._spectra.shape[1] != len(w):
            self._spectra = self._spectra.new_zeros(2, len(w), *self._spectra.shape[2:])
        mx, my = self.kept
        torch.mul(w[:, : mx + 1], self._to_velocity[..., : mx + 1, :], out=self._spectra[..., : mx + 1, : my + 1])
        torch.mul(w[:, mx + 1 :], self._to_velocity[..., mx + 1 :, :], out=self._spectra[..., self.shape[0] - mx :, : my + 1])
        lines = torch.fft.ifft(self._spectra, dim=-2, norm="forward")
        return torch.fft.irfft(lines, n=self.shape[1], dim=-1, norm="forward")
