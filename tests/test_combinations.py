"""Every method with every kind of law, on small fields in single precision: met to its tolerance, or refused in one clear line."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor, nn

import pcfm
from constraints import Axis, Constraint, Grid
from pcfm.methods import METHODS
from tests.test_constraints import LAWS

SHORT = {"d-flow": "d-flow:iterations=1", "source-chain": "source-chain:moves=1", "pdm": "pdm:inner=1", "eci": "eci:mix=1"}
"""What makes methods short that repeat themselves."""

FEW = ("initial, one each", "moving flow", "noisy sensors and divergence", "budget", "bounded flow", "monotone with mass", "entropy decay")
"""A law of each kind: given values, curved, noisy, in time, bounded, ordered, a curved inequality."""

REFUSED = {
    "pcfm-published": "take equalities only, as published; got the inequality",
    "posterior": "expects at least one equality among the laws",
    "flower": "expects at least one equality among the laws",
}


HARD = {
    ("dual", "walls, initial data and energy"),
    ("dual", "cells, ends and budget"),
    ("diffusionpde", "cells, ends and a quadratic budget"),
    ("ipcfm-barrier", "poisson between nodes"),
}
"""Where three steps end too far from a curved law to be sure of the nearest field, or of any, or where descent of a fixed rate is too fast
for a steep law: what is not converged is said to be so."""


class Calm(nn.Module):
    """A velocity that mixes neighbours and draws to a field that is not constant."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(0.4))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return torch.tanh(self.gain * x.roll(1, -1)) - 0.3 * x + 0.1 * torch.linspace(0, 1, x.shape[-1]).to(x)


def refused(method: str, law: Constraint) -> str | None:
    """Why a method does not take a law, None where it does."""
    unequal = [leaf.inequality for leaf in law.leaves()]
    return REFUSED[method] if method in REFUSED and (any(unequal) if method == "pcfm-published" else all(unequal)) else None


def check(method: str, name: str) -> None:
    make, (channels, *sizes) = LAWS[name]
    law = make()
    grid = Grid(*(Axis(axis, n) for axis, n in zip("xyz", sizes, strict=False)))
    flow = pcfm.wrap(Calm(), grid=grid, channels=tuple("abc"[:channels]))

    def drawn() -> pcfm.Samples:
        return pcfm.sample(flow, 3, law=law, method=SHORT.get(method, method), steps=3, dtype=torch.float32)

    reason = refused(method, law)
    if reason is not None:
        with pytest.raises(ValueError, match=re.escape(reason)):
            drawn()
        return
    samples = drawn()
    assert samples.u.shape == (3, channels, *sizes)
    assert not (samples.failed & samples.converged).any()
    judged = samples.converged if (method, name) in HARD else torch.ones(3, dtype=torch.bool)
    assert samples.u[judged].isfinite().all(), samples.causes
    if method == "pcfm-published" and not all(leaf.convex for leaf in law.leaves() if leaf.variance is None):
        return  # a step is all that it takes: curved laws are not met, and the certificate says so
    for leaf in law.leaves():
        if leaf.variance is None:
            residual, scale = leaf.measure(samples.u.double())
            assert (leaf.excess(residual) <= 1e-6 * scale)[judged].all(), leaf.name
    if all(leaf.variance is None for leaf in law.leaves()):  # beside curved laws, what is seen with noise need not be nearest
        assert samples.converged[judged].all()


LAWFUL = [name for name, kind in METHODS.items() if kind.lawful]


PAIRS = [(method, name) for method in LAWFUL for name in LAWS]


@pytest.mark.parametrize(("method", "name"), [pair for pair in PAIRS if pair[1] in FEW])
def test_methods_meet_a_law_of_each_kind(method: str, name: str) -> None:
    check(method, name)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "name"), [pair for pair in PAIRS if pair[1] not in FEW])
def test_methods_meet_every_law(method: str, name: str) -> None:
    check(method, name)
