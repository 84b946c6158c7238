"""Truths of the projection: closed forms, independent solvers, limits, refusals."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import scipy.optimize
import torch
from torch import Tensor

from constraints import (
    Axis,
    Budget,
    Constraint,
    Dirichlet,
    DivergenceFree,
    Energy,
    FunctionConstraint,
    Grid,
    InitialCondition,
    Intersection,
    Mass,
    Momentum,
    Neumann,
    PointValues,
    Robin,
    Snapshot,
    WeightedIntegral,
    no_slip,
    project,
)
from constraints.face import AffineKernel
from constraints.kkt import Curved
from constraints.linear import Stacked
from constraints.newton import certified
from tests.fields import LINE, PLANE, TAU, dense, normal


def test_against_an_independent_solver() -> None:
    """SLSQP finds the same nearest point under divergence, momentum, energy and a user's own law."""
    grid = Grid(Axis("x", 4, length=TAU, periodic=True), Axis("y", 3, length=TAU, periodic=True))
    law = Intersection(
        DivergenceFree(grid),
        Momentum(grid, [0.5, 0.0]),
        Energy(grid, 12.0),
        FunctionConstraint(lambda u: (u[:, 0] * u[:, 1].square()).flatten(1).sum(1, keepdim=True) - 0.5),
    )
    u = normal((1, 2, 4, 3), 40)
    rows = dense(Stacked([leaf.operator for leaf in law.leaves()[:2]])).numpy()
    independent = np.linalg.svd(rows)[2][: np.linalg.matrix_rank(rows)]
    values = independent @ np.linalg.pinv(rows) @ np.concatenate([np.zeros(12), [0.5, 0.0]])

    def curved(v: np.ndarray) -> np.ndarray:
        field = torch.from_numpy(v).reshape(1, 2, 4, 3)
        return torch.cat([leaf.residual(field) for leaf in law.leaves()[2:]], dim=1)[0].numpy()

    result = project(law, u)
    assert result.converged.all()
    best = scipy.optimize.minimize(
        lambda v: 0.5 * ((v - u.flatten().numpy()) ** 2).sum(),
        result.u.flatten().numpy() + 0.05 * np.random.default_rng(0).standard_normal(24),
        jac=lambda v: v - u.flatten().numpy(),
        constraints=[{"type": "eq", "fun": lambda v: independent @ v - values}, {"type": "eq", "fun": curved}],
        method="SLSQP",
        options={"ftol": 1e-15, "maxiter": 500},
    )
    assert best.success
    assert np.abs(best.x - result.u.flatten().numpy()).max() < 1e-6
    assert 0.5 * (result.u - u).square().sum().item() <= best.fun + 1e-9


def test_energy_alone_is_a_scaling_and_with_momentum_a_shifted_one() -> None:
    u = normal((2, 2, 8, 7), 41)
    energy = Energy(PLANE, 3.0)
    alone = project(energy, u).u
    assert torch.allclose(alone, u * (3.0 / energy.energy(u)).sqrt()[:, :, None, None])
    both = project(Intersection(energy, Momentum(PLANE, [1.0, 0.0])), u).u
    mean = torch.tensor([1.0, 0.0])[:, None, None] / PLANE.volume
    fluctuation = u - u.mean((2, 3), keepdim=True)
    left = 3.0 - energy.energy(mean.expand(1, 2, 8, 7).double())
    assert torch.allclose(both, mean + fluctuation * (left / energy.energy(fluctuation)).sqrt()[:, :, None, None])


@pytest.mark.parametrize("size", [1e-8, 1.0, 1e8])
@pytest.mark.parametrize("energy", [1e-12, 1.0, 1e12])
def test_closed_form_needs_no_iteration_at_any_scale(size: float, energy: float) -> None:
    law = Intersection(DivergenceFree(PLANE), Momentum(PLANE, 0.0), Energy(PLANE, energy))
    result = project(law, size * normal((2, 2, 8, 7), 44))
    assert result.converged.all()
    assert result.iterations == 1
    assert torch.allclose(law.leaves()[2].energy(result.u), torch.tensor(energy, dtype=torch.float64), rtol=1e-12)  # type: ignore[operator]


def test_divergence_multiplier_is_the_pressure() -> None:
    """Removing a gradient: the multiplier of grad phi is phi without its mean, up to sign."""
    x, y = PLANE.mesh()
    phi = torch.sin(x) * torch.cos(TAU * y / 3.0)
    gradient = torch.stack([torch.cos(x) * torch.cos(TAU * y / 3.0), -TAU / 3.0 * torch.sin(x) * torch.sin(TAU * y / 3.0)])
    result = project(DivergenceFree(PLANE), gradient[None])
    assert result.u.abs().max() < 1e-13
    assert torch.allclose(result.multiplier.reshape(8, 7), -phi, atol=1e-13)


def test_boundary_laws_hold_for_the_fields_they_describe() -> None:
    """Quadratics have exact second-order one-sided slopes, on any spacing; signs are outward."""
    grid = Grid(Axis.at("x", [0.0, 0.2, 0.5, 1.1, 2.0]))
    x = grid.axes[0].positions()
    u = (1 + 3 * x - 2 * x**2)[None, None]
    for law in (
        Dirichlet(grid, "x", "lower", 1.0),
        Dirichlet(grid, "x", "upper", -1.0),
        Neumann(grid, "x", "lower", -3.0),
        Neumann(grid, "x", "upper", -5.0),
        Robin(grid, "x", "upper", 2.0, 3.0, -17.0),
        WeightedIntegral(grid, torch.ones(1), (grid.weights() * u).sum()),
    ):
        assert law.residual(u).abs().max() < 1e-12, law.name
        assert law.residual(u + x**3).abs().max() > 1e-3 or law.name == "value at lower x"


def test_channels_that_take_no_part_are_untouched_to_the_bit() -> None:
    u = normal((2, 4, 8, 7), 43)
    result = project(Intersection(DivergenceFree(PLANE, components=(3, 1), channels=4), Mass(PLANE, 1.0, component=3, channels=4)), u)
    assert result.converged.all()
    assert torch.equal(result.u[:, [0, 2]], u[:, [0, 2]])


def test_nyquist_modes_are_measured_as_they_are_projected() -> None:
    """Projector and measure share one operator: white noise, all modes kept, even sizes."""
    grid = Grid(Axis("x", 16, length=TAU, periodic=True), Axis("y", 16, length=TAU, periodic=True))
    u = normal((4, 2, 16, 16), 42)
    result = project(DivergenceFree(grid), u)
    assert result.violation.max() < 1e-12
    kept = torch.fft.rfft2(result.u)[..., 8]
    assert kept.abs().max() > 1


def test_spectral_and_central_divergence_differ_by_second_order() -> None:
    errors = []
    for n in (32, 64, 128):
        grid = Grid(Axis("x", n, length=TAU, periodic=True), Axis("y", n, length=TAU, periodic=True))
        x, y = grid.mesh()
        u = torch.stack([torch.sin(x) * torch.cos(2 * y) + torch.sin(3 * y), torch.cos(2 * x - y)])[None]
        errors.append(DivergenceFree(grid, "central").residual(project(DivergenceFree(grid), u).u).abs().max())
    ratios = [(errors[i] / errors[i + 1]).item() for i in range(2)]
    assert ratios == pytest.approx([4, 4], abs=0.3)


@pytest.mark.parametrize(
    "law",
    [
        Intersection(Momentum(PLANE, 0.0), Momentum(PLANE, 1.0)),
        Intersection(Momentum(PLANE, 5.0, mean=True), Energy(PLANE, 1.0, mean=True)),
        Intersection(DivergenceFree(PLANE), FunctionConstraint(lambda u: u.square().flatten(1).sum(1)[:, None] + 1)),
        Intersection(InitialCondition(LINE, torch.ones(1, 5)), Mass(LINE, 2.0)),
    ],
    ids=["momentum", "energy too small for momentum", "no real field", "initial mass"],
)
def test_contradictory_laws_return_unconverged(law: Constraint) -> None:
    shape = (3, 1, 5, 5) if law.leaves()[0].name == "initial condition" else (3, 2, 8, 7)
    result = project(law, normal(shape, 50))
    assert not result.converged.any()
    assert torch.isfinite(result.u).all()
    assert (result.violation > 1e-3).all()


def test_metric_changes_the_nearest_point() -> None:
    law = Mass(Grid(Axis("x", 2, periodic=True)), 1.0, channels=1)
    two = FunctionConstraint(lambda u: u.flatten(1).sum(1, keepdim=True) - 1)
    u = torch.zeros(1, 2, 1, dtype=torch.float64)
    assert torch.allclose(project(two, u).u.flatten(), torch.tensor([0.5, 0.5], dtype=torch.float64))
    heavy = project(two, u, metric=torch.tensor([1.0, 2.0])).u.flatten()
    assert torch.allclose(heavy, torch.tensor([0.2, 0.8], dtype=torch.float64))
    assert project(law, torch.zeros(1, 1, 2, dtype=torch.float64)).converged.all()


def test_gradients_of_input_and_targets() -> None:
    grid = Grid(Axis("x", 4, length=TAU, periodic=True), Axis("y", 4, length=TAU, periodic=True))
    u = normal((2, 2, 4, 4), 60).requires_grad_()
    energy = torch.tensor([4.0, 9.0], dtype=torch.float64, requires_grad=True)
    momentum = (0.3 * normal((2, 2), 61)).requires_grad_()

    def flow(u: Tensor, energy: Tensor, momentum: Tensor) -> Tensor:
        return project(Intersection(DivergenceFree(grid), Momentum(grid, momentum), Energy(grid, energy)), u).u

    assert torch.autograd.gradcheck(flow, (u, energy, momentum))
    scale = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)

    def own(u: Tensor, scale: Tensor) -> Tensor:
        law = FunctionConstraint(lambda v: v.pow(4).flatten(1).sum(1, keepdim=True) - scale, scale=1.0)
        return project(Intersection(law, DivergenceFree(grid)), u).u

    assert torch.autograd.gradcheck(own, (u, scale))


def test_gradients_of_parameters_of_a_jacobian() -> None:
    u, a = 1 + normal((2, 1, 5), 62).square(), torch.tensor(0.3, dtype=torch.float64, requires_grad=True)

    def projected(u: Tensor, a: Tensor) -> Tensor:
        return project(FunctionConstraint(lambda v: (v**2 + a * v**3).flatten(1).sum(1, keepdim=True) - 1), u).u

    assert torch.autograd.gradcheck(projected, (u.requires_grad_(), a))


@pytest.mark.parametrize("seed", range(40))
def test_energies_of_times_that_are_given_already(seed: int) -> None:
    """At the given time the offset is round-off: the closed form must not blow it up."""
    first = normal((1, 16), seed)
    grid = Grid(Axis("time", 5), Axis("x", 16, periodic=True))
    law = Intersection(InitialCondition(grid, first), Energy(grid, first.square().mean().item() / 2))
    assert project(law, normal((8, 1, 5, 16), 1000 + seed)).converged.all()


def test_targets_follow_the_order_of_components() -> None:
    law = Momentum(PLANE, [1.0, 2.0], components=(1, 0), mean=True)
    assert torch.allclose(project(law, torch.zeros(1, 2, 8, 7)).u.mean((2, 3)), torch.tensor([[2.0, 1.0]]))


def test_a_law_that_annihilates_the_field_converges() -> None:
    assert project(Momentum(PLANE, 0.0), torch.ones(2, 2, 8, 7, dtype=torch.float64)).converged.all()


def test_without_gradients_nothing_is_kept() -> None:
    with torch.no_grad():
        assert not project(Energy(PLANE, 1.0), normal((1, 2, 8, 7), 1).requires_grad_()).u.requires_grad
    assert project(Energy(PLANE, 1.0), normal((1, 2, 8, 7), 1)).u.grad_fn is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: InitialCondition(PLANE, torch.zeros(2, 7)), "time axis"),
        (lambda: InitialCondition(LINE, torch.zeros(1, 4)), "expects fields at one time"),
        (lambda: Mass(PLANE), "expects a value"),
        (lambda: Mass(PLANE, float("nan")), "finite"),
        (lambda: Mass(PLANE, 1.0, component=3, channels=2), "channels between"),
        (lambda: Mass(LINE, torch.zeros(3)), "5 rows"),
        (lambda: Energy(PLANE, -1.0), "not negative"),
        (lambda: DivergenceFree(LINE), "at least two space axes"),
        (lambda: DivergenceFree(Grid(Axis("x", 8), Axis("y", 8, periodic=True))), "periodic"),
        (lambda: DivergenceFree(PLANE, "upwind"), "scheme"),
        (lambda: project(DivergenceFree(PLANE), torch.zeros(1, 3, 8, 7)), "expects fields of shape"),
        (lambda: project(Energy(PLANE, torch.ones(4)), torch.ones(1, 2, 8, 7)), "targets for 4 samples"),
        (lambda: project(Energy(PLANE, 1.0), torch.ones(8, 7)), "a batch of fields"),
        (lambda: project(Energy(PLANE, 1.0), torch.ones(1, 2, 8, 7), metric=torch.ones(3)), "one number a channel"),
        (lambda: project(Energy(PLANE, 1.0), torch.full((1, 2, 8, 7), math.inf)), "NaN or Inf"),
        (lambda: project(Energy(PLANE, 1.0), torch.ones(1, 2, 8, 7, dtype=torch.int64)), "float32 or float64"),
        (lambda: project(FunctionConstraint(lambda u: u), torch.ones(1, 2, 8, 7)), r"\(B, m\)"),
        (lambda: Intersection(), "at least one"),
        (lambda: Dirichlet(PLANE, "x", "lower"), "is periodic"),
        (lambda: Dirichlet(LINE, "x", "left"), "side among"),
        (lambda: Neumann(Grid(Axis("x", 8, cells=True)), "x", "lower"), "cell centres"),
        (lambda: Robin(LINE, "x", "lower", 0.0, 0.0), "not zero"),
        (lambda: no_slip(PLANE), "all are periodic"),
        (lambda: Snapshot(LINE, 5, torch.zeros(1, 5)), "one of 5 times"),
        (lambda: PointValues(torch.zeros(1, 4, dtype=torch.bool), torch.zeros(1, 4)), "at least one point"),
        (lambda: WeightedIntegral(LINE, torch.zeros(3), 1.0), "broadcasts"),
    ],
)
def test_wrong_use_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_moves_to_dtype_and_state_dict() -> None:
    law = Intersection(DivergenceFree(PLANE), Energy(PLANE, 0.5))
    assert any("target" in key for key in law.state_dict())
    assert project(law.to(torch.float32), normal((1, 2, 8, 7), 1, torch.float32)).converged.all()


def test_certificate_that_is_left_for_later_is_that_of_the_result() -> None:
    """Structured laws, a closed form and Gauss-Newton steps: what is read later is what the fields say of themselves."""
    grid = Grid(Axis("time", 4), *PLANE.axes)
    first = project(DivergenceFree(PLANE), normal((3, 2, 8, 7), 60)).u
    first = first - first.mean((2, 3), keepdim=True)
    line = Grid(Axis("time", 20), Axis("x", 9))
    decay = Budget(line, lambda u: -(u[:, 0].square()).mean(-1), theta=0.5)
    laws: list[tuple[Constraint, Tensor]] = [
        (Intersection(InitialCondition(line, normal((1, 9), 61)), Mass(line)), normal((3, 1, 20, 9), 62)),
        (
            Intersection(DivergenceFree(grid), Momentum(grid, 0.0), Energy(grid), InitialCondition(grid, first)),
            normal((3, 2, 4, 8, 7), 63),
        ),
        (Intersection(InitialCondition(line, 1 + 0.1 * normal((1, 9), 64)), decay), 1 + 0.1 * normal((3, 1, 20, 9), 65)),
    ]
    for law, u in laws:
        with torch.no_grad():
            result = project(law, u)
            assert result._certificate is None  # nobody has asked yet
            known = certified(law, result.u, u, result.multiplier)
        assert result.converged.all(), law.name
        assert known.converged.all()
        assert torch.equal(result.violation, known.violation)
        force = u - result.u
        for leaf, part in zip(law.leaves(), result.multiplier.split([leaf.residual(u).shape[1] for leaf in law.leaves()], 1), strict=True):
            force = force - leaf.jacobian(result.u).adjoint(part)
        assert force.abs().max() <= 1e-12 * u.abs().max(), law.name
        assert project(law, u.clone().requires_grad_()).u.detach().allclose(result.u, rtol=1e-12, atol=1e-13)


def test_certificate_of_fields_changed_before_it_is_read_is_refused() -> None:
    law, u = Mass(LINE, 1.0), normal((2, 1, 5, 5), 66)
    for changed in ("input", "result"):
        given = u.clone()
        with torch.no_grad():
            result, before = project(law, given), project(law, given)
            assert before.converged.all()
            (given if changed == "input" else result.u).add_(1.0)
            with pytest.raises(RuntimeError, match="changed in place"):
                _ = result.converged
            assert before.converged.all()  # read in time


def test_large_input_and_small_result_are_checked_and_corrected() -> None:
    """Where the projection removes nearly all of the input, its round-off is not that of the result."""
    grid = Grid(Axis("time", 3), Axis("x", 8, periodic=True))
    law = Intersection(InitialCondition(grid, torch.zeros(1, 8)), Mass(grid))
    u = 1e8 + normal((2, 1, 3, 8), 67)
    with torch.no_grad():
        result = project(law, u)
    assert result.converged.all()
    assert result.violation.max() <= 1e-12 * result.u.abs().max()


def test_given_values_that_break_a_law_at_their_own_time_are_found_out() -> None:
    """No free value could mend it, so no structure may hide it."""
    grid = Grid(Axis("time", 3), Axis("x", 8, periodic=True))
    law = Intersection(InitialCondition(grid, torch.ones(1, 8)), Mass(grid, 0.0))
    with torch.no_grad():
        result = project(law, normal((2, 1, 3, 8), 68))
    assert not result.converged.any()
    assert result.violation.min() > 1e-3


def test_rows_that_see_everything_are_pulled_back_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where each row costs a pass, one Jacobian serves all steps; the point is that of Newton's method."""
    rows = normal((24, 40), seed=5) / 6
    law = FunctionConstraint(lambda u: (u.flatten(1) + 0.1 * u.flatten(1).square()) @ rows.T, scale=3.0)
    u, formed = 0.3 * normal((3, 1, 5, 8), seed=6), []
    plain = FunctionConstraint.jacobian

    def counted(self: FunctionConstraint, v: Tensor) -> object:
        formed.append(len(v))
        return plain(self, v)

    monkeypatch.setattr(FunctionConstraint, "jacobian", counted)
    with torch.no_grad():
        result = project(law, u)
        assert len(formed) == 1
        assert result.iterations > 3
        assert result.converged.all()
        curved = Curved(AffineKernel(None), law, [])
        other = curved.newton(u, u, 1e-12, 50)
    assert (result.u - other.u).abs().max() < 1e-12
    assert (result.multiplier - other.multiplier).abs().max() < 1e-11
