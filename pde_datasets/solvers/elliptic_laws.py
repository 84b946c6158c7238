r"""The balance of steady diffusion as a law, on sources with their responses or on coefficients with their pressures.

Both know how to invert their Gram matrix, or nearly: with the operator K of `ControlVolumes`, the one is $V^2 + (K + cV)^2$, a diagonal in
the scheme's own eigenvectors; the other differs from $K^2$ by the contrast of the coefficient, so that conjugate gradients need as many
steps on a fine grid as on a coarse one. Their condition grows with the fourth power of the number of points, beyond what solvers that do
not know it can do.
"""

from __future__ import annotations

import torch
from torch import Tensor

from constraints.constraint import Constraint
from constraints.linear.map import LinearMap
from constraints.linear.solve import conjugate_gradients
from pde_datasets.solvers.elliptic import ControlVolumes, jump


class SourceResponse(LinearMap):
    r"""Rows $V f + \int(-\nabla^2 u + c\,u)\,dV$ of fields (f, u) on nodes between walls with u = 0, one for each inner node.

    Values on the walls do not count: u = 0 there is another law.

    Arguments:
        box: control volumes of nodes, with walls "zero".
        reaction: c.
        scales: factors of f and u.
    """

    def __init__(self, box: ControlVolumes, reaction: float = 0.0, scales: tuple[float, float] = (1.0, 1.0)) -> None:
        super().__init__()
        self.box, self.reaction, self.scales = box, reaction, scales
        self.shape, self.rows = (2, *box.grid.shape), int(box.free.sum())
        self.volume = float(box.volumes[box.free][0])

    def _operator(self, u: Tensor) -> Tensor:
        inner = u * self.box.free.to(u)
        return self.box.outflow(inner) + self.reaction * self.volume * inner

    def forward(self, u: Tensor) -> Tensor:
        rows = self.scales[0] * self.volume * u[:, 0] + self.scales[1] * self._operator(u[:, 1])
        return rows[:, self.box.free.to(u.device)]

    def adjoint(self, y: Tensor) -> Tensor:
        full = spread(self.box, y)
        return torch.stack([self.scales[0] * self.volume * full, self.scales[1] * self._operator(full)], dim=1)

    def solve_gram(self, r: Tensor) -> Tensor:
        of_source, of_response = self.scales
        symbol = of_source**2 + (of_response * (self.box.values.to(r) + self.reaction)) ** 2
        return self.box.filter(spread(self.box, r) / self.volume, 1 / symbol)[:, self.box.free.to(r.device)]

    def weighted(self, diagonal: Tensor) -> LinearMap:
        """One factor for all inner values of a channel keeps the structure."""
        if diagonal.ndim <= len(self.shape):
            inner = diagonal.to(torch.float64).expand(self.shape)[:, self.box.free.to(diagonal.device)]
            if bool((inner == inner[:, :1]).all()) and bool((inner != 0).all()):
                return SourceResponse(self.box, self.reaction, (self.scales[0] * float(inner[0, 0]), self.scales[1] * float(inner[1, 0])))
        return super().weighted(diagonal)

    def scale(self, u: Tensor) -> Tensor:
        """The largest source of a volume, and four flows of the largest u an axis."""
        f, v = (self.scales[i] * u[:, i].abs().flatten(1).amax(1, keepdim=True) for i in (0, 1))
        return self.volume * (f + abs(self.reaction) * v) + 4 * len(self.shape[1:]) * self.box.conductance * v


class FlowBalance(Constraint):
    r"""$\sum_j F_{ij}(a, u) = V_i f_i$ of every free control volume, for fields of coefficient and pressure (a, u), bilinear.

    The harmonic means of face coefficients have no meaning where a is not positive.

    Arguments:
        box: the control volumes.
        sources: $V f$, (*N).
    """

    name, unit = "balance of every volume", "source times volume"

    def __init__(self, box: ControlVolumes, sources: Tensor) -> None:
        super().__init__()
        self.box, self.shape = box, (2, *box.grid.shape)
        self.register_buffer("sources", sources)

    sources: Tensor

    def residual(self, u: Tensor) -> Tensor:
        net = self.box.outflow(u[:, 1], u[:, 0]) - self.sources.to(u)
        return net[:, self.box.free.to(u.device)]

    def scale(self, u: Tensor) -> Tensor:
        """The largest source of a volume, and the flow of the largest pressure through the largest coefficient."""
        a, p = (u[:, i].abs().flatten(1).amax(1, keepdim=True) for i in (0, 1))
        return self.sources.abs().max().to(u) + 4 * len(self.shape[1:]) * self.box.conductance * a * p

    def jacobian(self, u: Tensor) -> LinearMap:
        return _BalanceJacobian(u, self.box)


class _BalanceJacobian(LinearMap):
    r"""The derivative of the balance by coefficient and pressure,

    $$\delta F = \frac{A}{h}\Big(\bar a\,(\delta u_i - \delta u_j) + \frac{2 a_j^2\,\delta a_i + 2 a_i^2\,\delta a_j}{(a_i + a_j)^2}
    (u_i - u_j)\Big);$$

    its Gram matrix is preconditioned by that of a constant coefficient.
    """

    batched = True

    def __init__(self, fields: Tensor, box: ControlVolumes) -> None:
        super().__init__()
        self.box, self.shape, self.rows = box, tuple(fields.shape[1:]), int(box.free.sum())
        a, u = fields.unbind(1)
        self.size = a.flatten(1).mean(1).square().reshape(-1, *(1,) * len(box.grid.axes))
        self.faces = []
        for axis, conductance in zip(box.grid.axes, box.conductances(a), strict=True):
            dim = box.grid.dim(axis.name)
            low, high = _sides(a, dim, beyond=torch.inf)  # at walls the mean is the inner coefficient's alone
            flow = conductance * jump(u, dim)
            self.faces.append((dim, conductance, flow / (low * (1 + low / high)), flow / (high * (1 + high / low))))

    def forward(self, u: Tensor) -> Tensor:
        net = torch.zeros_like(u[:, 0])
        for dim, conductance, of_low, of_high in self.faces:
            low, high = _sides(u[:, 0], dim)
            net = net + torch.diff(conductance * jump(u[:, 1], dim) + of_low * low + of_high * high, dim=dim)
        return net[:, self.box.free.to(u.device)]

    def adjoint(self, y: Tensor) -> Tensor:
        full = spread(self.box, y)
        coefficient, pressure = torch.zeros_like(full), torch.zeros_like(full)
        for dim, conductance, of_low, of_high in self.faces:
            across, n = jump(full, dim), full.shape[dim]
            pressure = pressure + torch.diff(conductance * across, dim=dim)
            coefficient = coefficient + (of_low * across).narrow(dim, 1, n) + (of_high * across).narrow(dim, 0, n)
        return torch.stack([coefficient, pressure], dim=1)

    def solve_gram(self, r: Tensor) -> Tensor:
        if self.rows <= self.dense_rows:
            return super().solve_gram(r)
        return conjugate_gradients(lambda y: self(self.adjoint(y)), r, preconditioner=self.precondition, max_iterations=1000)

    def precondition(self, r: Tensor) -> Tensor:
        volume = float(self.box.volumes.mean())
        inverse = self.box.inverse_values.to(r).square()
        return self.box.filter(spread(self.box, r) / volume / self.size.to(r), inverse)[:, self.box.free.to(r.device)]


def spread(box: ControlVolumes, rows: Tensor) -> Tensor:
    """Rows (B, free points) as fields (B, *N), zero on the others."""
    full = rows.new_zeros(len(rows), *box.grid.shape)
    full[:, box.free.to(rows.device)] = rows
    return full


def _sides(x: Tensor, dim: int, beyond: float = 0.0) -> tuple[Tensor, Tensor]:
    """Values on the lower and on the upper side of every face along a dimension; given ones beyond the walls."""
    outside = torch.full_like(x.narrow(dim, 0, 1), beyond)
    return torch.cat([outside, x], dim), torch.cat([x, outside], dim)
