"""The two parts of a flow's error against what they estimate: exact velocities, with known perturbations, from the same noise."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pcfm.errors import EmpiricalVelocity, discretisation, logarithmic_norm, regression, transport_bound
from pcfm.path import AffinePath
from pcfm.samplers import Euler, Heun, RungeKutta4
from pcfm.velocity import GaussianFlow
from tests.oracles_gmm import Mixture, MixtureOracle

MIXTURE = Mixture(
    torch.tensor([0.4, 0.6], dtype=torch.float64),
    torch.tensor([[-1.5, 0.5], [1.0, -0.5]], dtype=torch.float64),
    torch.tensor([[[0.3, 0.1], [0.1, 0.2]], [[0.2, -0.05], [-0.05, 0.4]]], dtype=torch.float64),
)
ORACLE = MixtureOracle(MIXTURE)
TIMES = torch.linspace(0, 0.999, 31, dtype=torch.float64)


def noise(count: int) -> Tensor:
    return torch.randn(count, 1, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def to_the_end(x: Tensor, t: Tensor) -> Tensor:
    """The exact velocity, also at t = 1, where it has a limit."""
    return ORACLE(x, t.clamp_max(1 - 1e-9))


@pytest.mark.parametrize(
    ("rule", "order", "steps", "low", "high"), [(Euler, 1, 20, 0.6, 1.6), (Heun, 2, 20, 0.9, 1.1), (RungeKutta4, 4, 20, 0.8, 1.25)]
)
def test_the_discretisation_error_is_what_is_left_to_a_fine_solution(rule, order: int, steps: int, low: float, high: float) -> None:
    x0 = noise(200)
    exact = RungeKutta4(to_the_end)(x0, torch.linspace(0, 1, 401, dtype=torch.float64))
    coarse = rule(to_the_end)(x0, torch.linspace(0, 1, steps + 1, dtype=torch.float64))
    true = (coarse - exact).square().flatten(1).mean(1).sqrt()
    found = discretisation(rule(to_the_end), x0, steps, order)
    assert low <= float((found.error / true).median()) <= high
    wrong = discretisation(rule(to_the_end), x0, steps, order + 2)
    if order == 1:  # control: Euler taken for a rule of order 3
        assert float((wrong.error / true).median()) < low
    enough = found.recommended(float(found.error.quantile(0.95)) / 2**order)
    assert 2 * steps <= enough <= 2 * steps + 2


def test_an_injected_error_arrives_as_the_tangent_says() -> None:
    def perturbed(x: Tensor, t: Tensor) -> Tensor:
        return ORACLE(x, t) + 0.02 * torch.sin(3 * x.flip(-1) + t)

    x0 = noise(150)
    found = regression(perturbed, ORACLE, x0, TIMES)
    ends = [RungeKutta4(velocity)(x0, TIMES) for velocity in (ORACLE, perturbed)]
    true = (ends[0] - ends[1]).square().flatten(1).mean(1).sqrt()
    assert 0.95 <= float((found.propagated / true).median()) <= 1.05
    torch.testing.assert_close(found.error, torch.full_like(found.error, 0.02 / 2**0.5), rtol=0.15, atol=0)
    bound = transport_bound(perturbed, ORACLE, x0, TIMES)
    coupled = float((ends[0] - ends[1]).square().flatten(1).sum(1).mean().sqrt())
    assert bound >= coupled


def test_the_bound_is_sharp_where_everything_parts_alike() -> None:
    """A constant error of a velocity a x: (e^a - 1)/a of it."""
    a, shift = 0.8, 0.1
    x0 = noise(16)
    times = torch.linspace(0, 1, 201, dtype=torch.float64)
    bound = transport_bound(lambda x, t: a * x + shift, lambda x, t: a * x, x0, times)
    exact = shift * 2**0.5 * (torch.tensor(a, dtype=torch.float64).exp() - 1) / a
    assert bound == pytest.approx(float(exact), rel=1e-2)


def test_the_logarithmic_norm_is_the_largest_eigenvalue_of_the_symmetric_part() -> None:
    matrix = torch.randn(4, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    x = torch.randn(3, 1, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    found = logarithmic_norm(lambda x, t: x @ matrix.T, x, torch.tensor(0.5, dtype=torch.float64))
    expected = torch.linalg.eigvalsh((matrix + matrix.T) / 2)[-1]
    torch.testing.assert_close(found, expected.expand(3))


def test_the_velocity_of_many_data_is_that_of_their_distribution() -> None:
    t = torch.tensor(0.5, dtype=torch.float64)
    x = 0.5 * MIXTURE.sample(300, 8) + 0.5 * noise(300)
    errors = []
    for count in (200, 5000):
        empirical = EmpiricalVelocity(MIXTURE.sample(count, 9), AffinePath())
        errors.append(float((empirical(x, t) - ORACLE(x, t)).square().mean().sqrt()))
        assert float(empirical.effective(x, t).median()) > 10
    assert errors[1] < 0.4 * errors[0]
    # what no velocity can learn: the spread of the conditional ones, by the data's own weights
    data = MIXTURE.sample(5000, 9)
    x0 = torch.randn(data.shape, generator=torch.Generator().manual_seed(10), dtype=torch.float64)
    state, target = AffinePath().sample(x0, data, t)
    left = [(velocity(state, t) - target).square().sum((1, 2)).mean() for velocity in (EmpiricalVelocity(data, AffinePath()), ORACLE)]
    assert float(left[0] / left[1]) == pytest.approx(1, abs=0.03)


def test_large_fields_have_no_bound() -> None:
    x = torch.zeros(1, 1, 600)
    with pytest.raises(ValueError, match="at most 512 values"):
        transport_bound(GaussianFlow(0.0, 1.0), GaussianFlow(0.0, 1.0), x, torch.linspace(0, 1, 3))
