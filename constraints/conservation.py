r"""Integrals over space: mass, momentum, kinetic energy, enstrophy, and any other functional of the fields at one time.

Each is an integral over the space axes at every physical time, with the quadrature weights of the grid,

$$M = \int\rho\,dV,\qquad P_i = \int u_i\,dV,\qquad E = \int\tfrac12\sum_i u_i^2\,dV,$$

or its mean over the domain (`mean=True`, divided by the volume). The value is given, one for all, one a time, or one for each sample;
or, on grids with time, it is left out: then the integral keeps its first value, whatever that is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from constraints.calculus.scheme import Scheme
from constraints.calculus.vector import curl
from constraints.constraint import Affine, Constraint, LinearConstraint, as_target
from constraints.grid import Grid
from constraints.linear.derivative import hessian_product, pullback
from constraints.linear.map import LinearMap
from constraints.linear.structured import RowCombination, RowSelection, SinceFirst, WeightedSum

Value = float | Sequence[float] | Tensor | None


def _components(grid: Grid, components: Sequence[int] | None, channels: int | None, speaker: str) -> tuple[tuple[int, ...], int]:
    """The channels that take part and the number of all channels."""
    taken = tuple(range(len(grid.space_axes))) if components is None else tuple(components)
    total = max(taken) + 1 if channels is None else channels
    if not taken or len(set(taken)) != len(taken) or min(taken) < 0 or max(taken) >= total:
        raise ValueError(f"{speaker} expects different channels between 0 and {total - 1}; got {taken}.")
    return taken, total


def _space_weights(grid: Grid, mean: bool) -> Tensor:
    """Weights of a space integral or mean, broadcast over the grid, (*N)."""
    weights = grid.weights()
    return (weights / weights.sum() if mean else weights).expand(grid.shape)


def _differences(times: int, blocks: int) -> Tensor:
    """The matrix of y_t - y_0 for t > 0, for rows ordered (block, time)."""
    single = torch.cat([-torch.ones(times - 1, 1, dtype=torch.float64), torch.eye(times - 1, dtype=torch.float64)], dim=1)
    return torch.block_diag(*[single] * blocks)


def _check_conserved(grid: Grid, speaker: str) -> None:
    if not (grid.has_time and grid.axes[0].points > 1):
        raise ValueError(f"{speaker} expects a value: without a time axis there is nothing it could be conserved along.")


class _Integral(LinearConstraint):
    """A linear law on space integrals of some channels; rows are (component, time)."""

    def __init__(self, grid: Grid, components: tuple[int, ...], channels: int, value: Value, mean: bool, speaker: str) -> None:
        weights = torch.zeros(channels, *grid.shape, dtype=torch.float64)  # of others, too, whose size tells nothing of these
        weights[list(components)] = _space_weights(grid, mean)
        integrals = WeightedSum(weights, grid.space_dims)
        times = integrals.rows // channels
        if value is None:
            _check_conserved(grid, speaker)
        kept = torch.arange(integrals.rows).reshape(channels, times)[list(components)].flatten()
        operator: LinearMap
        every = components == tuple(range(channels))
        if value is None and every:
            operator = SinceFirst(integrals, times)
        elif value is None:
            eye = torch.eye(integrals.rows, dtype=torch.float64)
            operator = RowCombination(_differences(times, len(components)) @ eye[kept], integrals)
        else:
            operator = integrals if every else RowSelection(kept, integrals)
        target = torch.zeros(operator.rows, dtype=torch.float64) if value is None else as_target(value, operator.rows, speaker)
        super().__init__(operator, target)
        self.name = f"{speaker.lower()} (conserved)" if value is None else speaker.lower()
        self.unit = "unit of the field" if mean else "unit of the field times volume"


class Mass(_Integral):
    r"""The integral of one channel, $\int\rho\,dV$, at every time.

    Arguments:
        grid: the grid of the fields.
        value: the mass; rows are times. Left out: the mass of the first time, conserved.
        component: channel that is integrated.
        channels: number of channels of the fields; `component + 1` by default.
        mean: divide by the volume.

    Raises:
        ValueError: no value and no time axis, or a value of the wrong shape.

    Example:
        >>> from constraints import Axis, project
        >>> grid = Grid(Axis("x", 4, periodic=True))
        >>> project(Mass(grid, 1.0), torch.zeros(1, 1, 4)).u.tolist()
        [[[1.0, 1.0, 1.0, 1.0]]]
    """

    def __init__(self, grid: Grid, value: Value = None, *, component: int = 0, channels: int | None = None, mean: bool = False) -> None:
        taken, total = _components(grid, (component,), channels, "Mass")
        super().__init__(grid, taken, total, value, mean, "Mass")


class Momentum(_Integral):
    r"""The integrals of the components of a vector, $\int u_i\,dV$, at every time.

    Arguments:
        grid: the grid of the fields.
        value: rows are (component, time). Left out: that of the first time, conserved.
        components: channels of the vector; the first d by default.
        channels: number of channels of the fields.
        mean: divide by the volume.

    Raises:
        ValueError: no value and no time axis, or a value of the wrong shape.
    """

    def __init__(
        self,
        grid: Grid,
        value: Value = None,
        *,
        components: Sequence[int] | None = None,
        channels: int | None = None,
        mean: bool = False,
    ) -> None:
        taken, total = _components(grid, components, channels, "Momentum")
        super().__init__(grid, taken, total, value, mean, "Momentum")


class Energy(Constraint):
    r"""Kinetic energy, $\int\frac12\sum_i u_i^2\,dV$, at every time: a sphere for each, curved.

    Zero energy leaves the zero field alone, where the sphere has no normal: such samples come back unconverged.

    On equal weights the nearest field in an affine set of other laws is on the ray from that set's point nearest to zero energy, which
    `retract` gives in closed form.

    Arguments:
        grid: the grid of the fields.
        value: the energy, not negative; rows are times. Left out: that of the first time, conserved.
        components: channels of the velocity; the first d by default.
        channels: number of channels of the fields.
        mean: divide by the volume.

    Raises:
        ValueError: a negative value, no value and no time axis, or a value of the wrong shape.
    """

    def __init__(
        self,
        grid: Grid,
        value: Value = None,
        *,
        components: Sequence[int] | None = None,
        channels: int | None = None,
        mean: bool = False,
    ) -> None:
        super().__init__()
        taken, total = _components(grid, components, channels, "Energy")
        self.shape = (total, *grid.shape)
        weights = torch.zeros(self.shape, dtype=torch.float64)
        weights[list(taken)] = _space_weights(grid, mean)
        self.register_buffer("weights", weights)
        self.even = float(weights.flatten()[0]) if bool((weights == weights.flatten()[0]).all()) else None
        self.dims = (-len(grid.axes) - 1, *grid.space_dims)
        self.times = grid.axes[0].points if grid.has_time else 1
        self.conserved = value is None
        if value is None:
            _check_conserved(grid, "Energy")
            target = torch.zeros(self.times - 1, dtype=torch.float64)
        else:
            target = as_target(value, self.times, "Energy")
            if (target < 0).any():
                raise ValueError(f"Energy expects values that are not negative; got {target.min().item():g}.")
        self.register_buffer("target", target)
        self.name = "energy (conserved)" if value is None else "energy"
        self.unit = "unit of the field squared" if mean else "unit of the field squared times volume"

    weights: Tensor
    target: Tensor

    def energy(self, u: Tensor) -> Tensor:
        """Energy at each time, (B, T)."""
        if self.even is not None:
            parts = u.reshape(*u.shape[:2], self.times, -1).movedim(2, 1)
            return self.even / 2 * torch.linalg.vector_norm(parts, dim=-1).square().sum(-1)
        weights = self.weights.to(u)
        if self.times == 1:
            return torch.linalg.vecdot(u.flatten(1), (weights * u).flatten(1))[:, None] / 2
        return (weights * u.square()).sum(self.dims).reshape(u.shape[0], self.times) / 2

    def residual(self, u: Tensor) -> Tensor:
        return self.measure(u)[0]

    def scale(self, u: Tensor) -> Tensor:
        return self.measure(u)[1]

    def measure(self, u: Tensor) -> tuple[Tensor, Tensor]:
        energy, target = self.energy(u), self.target.to(u)
        if self.conserved:
            return energy[:, 1:] - energy[:, :1] - target, energy[:, 1:] + energy[:, :1] + target.abs()
        return energy - target, energy + target.abs()

    def jacobian(self, u: Tensor) -> LinearMap:
        rows = WeightedSum(self.weights.to(u) * u, self.dims, batched=True)
        return RowCombination(_differences(self.times, 1).to(u), rows) if self.conserved else rows

    def curvature(self, u: Tensor, multiplier: Tensor, direction: Tensor) -> Tensor:
        rows = multiplier @ _differences(self.times, 1).to(u) if self.conserved else multiplier
        return self._spread(rows) * self.weights.to(u) * direction

    def retract(self, u: Tensor, centre: Tensor) -> Tensor:
        r"""The point $c + s(u - c)$ of each time's ray with the energy asked for, where there is one; conserved, that of the first time."""
        energy, own = self.energy(u), self.energy(centre)
        target = energy[:, :1] if self.conserved else self.target.to(u)
        quadratic, linear = energy.clone(), torch.zeros_like(energy)
        away = (own > 0).any(0)
        if bool(away.any()):  # at other times the centre is zero
            dim = 2 if self.times > 1 else 0
            there = away.nonzero()[:, 0] if self.times > 1 else torch.arange(len(centre), device=u.device)
            base, weights = centre.index_select(dim, there), self.weights.to(u)
            weights = weights if self.times == 1 else weights.index_select(1, there)
            offset = (u.index_select(2, there) if self.times > 1 else u) - base
            shape = (len(u), len(there) if self.times > 1 else 1)
            quadratic[:, away] = (weights * offset.square()).sum(self.dims).reshape(shape) / 2
            linear[:, away] = (weights * offset * base).sum(self.dims).reshape(shape) / 2
        root = (linear.square() - quadratic * (own - target)).clamp_min(0).sqrt()
        # An offset of round-off has no direction: times that other laws fix stay where they are.
        free = quadratic > (64 * torch.finfo(u.dtype).eps) ** 2 * (energy + own)
        s = torch.where(free, (root - linear) / torch.where(free, quadratic, 1.0), 1.0)
        if self.conserved:
            s = torch.cat([torch.ones_like(s[:, :1]), s[:, 1:]], dim=1)
        stretch = self._spread(s)
        v = u * stretch
        return v.addcmul_(centre, 1 - stretch) if bool(away.any()) else v

    def exact(self, affine: Affine) -> bool:
        """On equal weights, where times do not share rows; conserved, where the first is given."""
        alone = self.times == 1 or affine.acts_on_each(1 - len(self.shape))
        given = affine.free is not None and not bool(affine.free[:, 0].any())
        return self.even is not None and alone and (given or not self.conserved)

    def _spread(self, rows: Tensor) -> Tensor:
        """One value for each sample and time, (B, T), shaped so that it multiplies fields."""
        kept = [n if d not in self.dims else 1 for d, n in zip(range(-len(self.shape), 0), self.shape, strict=True)]
        return rows.reshape(-1, *kept)


class Integral(Constraint):
    r"""Any functional $\int\eta(u)\,dV$ of the fields at one time, at every time: entropies, Hamiltonians, free energies.

    All rows are differentiated in one pass, since each depends on the fields at its own time only.

    Arguments:
        grid: the grid of the fields.
        density: $\eta$, (B, C, *N) to (B, *N), from values and space derivatives at the same time.
        value: as for `Mass`; left out: that of the first time, conserved.
        channels: number of channels of the fields.
        mean: divide by the volume.
        name: what to call it.

    Raises:
        ValueError: no value and no time axis, or a value of the wrong shape.

    Example:
        >>> from constraints import Axis, project
        >>> law = Integral(Grid(Axis("x", 4, periodic=True)), lambda u: u[:, 0].pow(4), 16.0)
        >>> project(law, torch.ones(1, 1, 4, dtype=torch.float64)).u.round(decimals=6).tolist()
        [[[2.0, 2.0, 2.0, 2.0]]]
    """

    def __init__(
        self,
        grid: Grid,
        density: Callable[[Tensor], Tensor],
        value: Value = None,
        *,
        channels: int = 1,
        mean: bool = False,
        name: str = "integral",
    ) -> None:
        super().__init__()
        self.shape, self.density = (channels, *grid.shape), density
        self.times = grid.axes[0].points if grid.has_time else 1
        self.dims = grid.space_dims
        self.register_buffer("weights", _space_weights(grid, mean).clone())
        self.conserved = value is None
        if value is None:
            _check_conserved(grid, name)
            target = torch.zeros(self.times - 1, dtype=torch.float64)
        else:
            target = as_target(value, self.times, name)
        self.register_buffer("target", target)
        self.name = f"{name} (conserved)" if value is None else name
        self.unit = "unit of the density" if mean else "unit of the density times volume"

    weights: Tensor
    target: Tensor

    def integral(self, u: Tensor, magnitude: bool = False) -> Tensor:
        """The functional at each time, (B, T); of the density's magnitude if asked."""
        density = self.density(u)
        if tuple(density.shape) != (u.shape[0], *self.shape[1:]):
            expected = ", ".join(str(n) for n in self.shape[1:])
            raise ValueError(f"{self.name} expects a density of shape (B, {expected}); the function gave {tuple(density.shape)}.")
        return (self.weights.to(u) * (density.abs() if magnitude else density)).sum(self.dims).reshape(u.shape[0], self.times)

    def residual(self, u: Tensor) -> Tensor:
        value = self.integral(u)
        return (value[:, 1:] - value[:, :1] if self.conserved else value) - self.target.to(u)

    def scale(self, u: Tensor) -> Tensor:
        size = self.integral(u, magnitude=True)
        return (size[:, 1:] + size[:, :1] if self.conserved else size) + self.target.to(u).abs()

    def jacobian(self, u: Tensor) -> LinearMap:
        total, pull = pullback(self.integral, u)
        rows = WeightedSum(pull(torch.ones_like(total)), (-len(self.shape), *self.dims), batched=True)
        return RowCombination(_differences(self.times, 1).to(u), rows) if self.conserved else rows

    def curvature(self, u: Tensor, multiplier: Tensor, direction: Tensor) -> Tensor:
        rows = multiplier @ _differences(self.times, 1).to(u) if self.conserved else multiplier
        return hessian_product(self.integral, u, rows, direction)


class L2Energy(Integral):
    r"""$\int\sum_c u_c^2\,dV$ at every time; arguments and errors as `Integral`, without a density."""

    def __init__(self, grid: Grid, value: Value = None, *, channels: int = 1, mean: bool = False) -> None:
        super().__init__(grid, lambda u: u.square().sum(1), value, channels=channels, mean=mean, name="L2 energy")
        self.unit = "unit of the field squared" if mean else "unit of the field squared times volume"


class Enstrophy(Integral):
    r"""$\int\frac12|\omega|^2\,dV$ at every time, $\omega = \nabla\times\mathbf u$, or a channel that holds it.

    Arguments:
        grid: the grid of the fields, with two or three space axes.
        value: as for `Mass`.
        scheme: the discrete curl; None where the first channel is the vorticity itself.
        channels: number of channels of the fields; the number of space axes by default, one without a scheme.
        mean: divide by the volume.

    Raises:
        ValueError: as `Integral`, or `curl`.
    """

    def __init__(self, grid: Grid, value: Value = None, *, scheme: Scheme | None, channels: int | None = None, mean: bool = False) -> None:
        axes = len(grid.space_axes)

        def density(u: Tensor) -> Tensor:
            vorticity = u[:, :1] if scheme is None else curl(u[:, :axes], grid, scheme)
            return vorticity.square().sum(1) / 2

        total = channels if channels is not None else 1 if scheme is None else axes
        super().__init__(grid, density, value, channels=total, mean=mean, name="enstrophy")
        self.unit = "unit of the vorticity squared" if mean else "unit of the vorticity squared times volume"
