r"""Uncertainty and its calibration

Left: TARP's coverage for exact posteriors of a normal mean, for narrow, wide and biased ones, and for the prior itself, with references
that depend on the data: the diagonal is right. Middle: the Laplace posterior of a velocity that is a cubic in its condition, where
Bayesian regression is exact: two standard deviations of what training leaves open, small where data are. Right: how often conformal bands
of an ensemble that is far too narrow hold the truth, over the level asked for. What a trajectory leaves open is in the derivative of its
velocity, exactly.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from benchmarks.gallery.exhibit import Exhibit, Measure, at, normal, panels
from constraints import Axis, Grid, Units
from pcfm.flow import Flow
from pcfm.generation import sample
from pcfm.metrics import conformal, coverage, crps, pit, ranks, spread_skill, tarp
from pcfm.path import AffinePath
from pcfm.report.look import COLOURS, GREY
from pcfm.source import WhiteNoise
from pcfm.uncertainty import endpoint_covariance, laplace, spread
from tests.oracles import Gaussian, GaussianOracle

PAIR = Grid(Axis("x", 2, periodic=True))
PRIOR, NOISE = torch.tensor([1.0, 0.7, 1.5], dtype=torch.float64), torch.tensor([0.5, 0.5, 0.8], dtype=torch.float64)
CASES: dict[str, dict[str, float]] = {
    "exact": {},
    "narrow": {"widen": 0.7},
    "wide": {"widen": 1.4},
    "biased": {"shift": 0.3},
    "prior": {"prior": 1.0},
}


def posteriors(cases: int, draws: int, *, widen: float = 1.0, shift: float = 0.0, prior: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """Draws of the posterior of a normal mean seen through noise, truths, and references by the data."""
    truth = PRIOR * normal(cases, 3, seed=1)
    seen = truth + NOISE * normal(cases, 3, seed=2)
    gain = PRIOR.square() / (PRIOR.square() + NOISE.square())
    mean, std, white = gain * seen, (gain * NOISE.square()).sqrt(), normal(draws, cases, 3, seed=3)
    return (PRIOR * white if prior else mean + shift * std + widen * std * white), truth, mean + 0.7 * PRIOR


class Cubic(nn.Module):
    """A velocity that is linear in powers of the condition."""

    last_layer = "linear"

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2).double()

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        return self.linear(condition[:, 0, :1] ** torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))[:, None]


def show(full: bool) -> Exhibit:
    cases, draws = (1000, 200) if full else (600, 60)
    figure, (left, middle, right) = panels(3, 1, 3.2, 2.8)
    measures = []
    for i, (name, how) in enumerate(CASES.items()):
        made, truth, references = posteriors(cases, draws, **how)
        found = tarp(made, truth, references, generator=torch.Generator().manual_seed(6))
        share, positions = (
            torch.linspace(0, 1, cases, dtype=torch.float64),
            pit(found.ranks, draws, torch.Generator().manual_seed(6)).sort().values,
        )
        left.plot(share, positions, color=COLOURS[i], label=name)
        # the distance that one of a thousand right ones exceeds (Kolmogorov)
        measures.append(
            Measure(
                tarp, f"{name}: distance from uniform", float((positions - share).abs().max()), 1.95 / cases**0.5, control=name != "exact"
            )
        )
    left.plot((0, 1), (0, 1), ":", color="k", lw=0.8)
    left.set(xlabel="share", ylabel="rank", title="TARP")
    left.legend(fontsize=8)
    made, truth, _ = posteriors(cases, draws)
    held = coverage(ranks(made, truth), draws, (0.9,))
    score = float(crps(made, truth).mean() / ((PRIOR**-2 + NOISE**-2) ** -0.5).mean()) * torch.pi**0.5
    measures += [
        Measure(coverage, "of exact posteriors, at 90 %", float(held.covered - held.nominal), 4 * (0.09 / (3 * cases)) ** 0.5),
        Measure(crps, "of exact normal posteriors over closed form", score, 0.05, exact=1.0),
        Measure(
            spread_skill, "spread over error of exact posteriors", float(spread_skill(made, truth).mean()), 0.05 if full else 0.1, exact=1.0
        ),
    ]
    return Exhibit(figure, measures + cubic(middle, 200 if full else 60) + bands(right, 2000 if full else 500) + open_endpoints())


def cubic(panel: object, members: int) -> list[Measure]:
    """The Laplace posterior of the cubic velocity."""
    torch.manual_seed(0)
    flow = Flow(
        Cubic(), AffinePath(), WhiteNoise(PAIR, 1), Units.identity(1), PAIR, ("u",), ("1",), condition="initial", call="x,t,condition"
    )
    y = 2 * torch.rand(40, 1, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64) - 1
    found = laplace(flow, normal(40, 1, 2, seed=4), condition=y, bins=1, passes=3, prior=0.5)
    powers = torch.cat([y[:, 0, :1] ** k for k in (1, 2, 3, 0)], dim=1)
    exact = powers.T @ powers / found.noise[0] + 0.5 * torch.eye(4, dtype=torch.float64)
    line = torch.linspace(-2.2, 2.2, 23, dtype=torch.float64)
    generator = torch.Generator().manual_seed(5)
    drawn = spread(
        [found.draw(generator) for _ in range(members)],
        lambda member: sample(member, len(line), steps=1, condition=line[:, None, None].expand(-1, 1, 2), seed=7).u,
    )
    basis = torch.stack([line**k for k in (1, 2, 3, 0)], dim=1)
    known = torch.einsum("bi,ij,bj->b", basis, torch.linalg.inv(exact), basis).sqrt()
    measured = drawn.epistemic.square().mean((1, 2)).sqrt()
    panel.fill_between(line, -2 * known, 2 * known, color=GREY, alpha=0.3, lw=0, label="regression")  # type: ignore[attr-defined]
    panel.plot(line, 2 * measured, "o", ms=3, color=COLOURS[0], label="draws of the posterior")  # type: ignore[attr-defined]
    panel.plot(line, -2 * measured, "o", ms=3, color=COLOURS[0])  # type: ignore[attr-defined]
    panel.plot(y[:, 0, 0], torch.zeros(40), "|", color=COLOURS[1], label="data")  # type: ignore[attr-defined]
    panel.set(title="what training leaves open", xlabel="condition")  # type: ignore[attr-defined]
    panel.legend(fontsize=8)  # type: ignore[attr-defined]
    return [
        Measure(laplace, "precision, relative error to Bayesian regression", float((found.precision - exact).norm() / exact.norm()), 1e-10),
        Measure(spread, "spread of samples over closed form", float((measured / known).mean()), 3 / (2 * members) ** 0.5, exact=1.0),
    ]


def bands(panel: object, count: int) -> list[Measure]:
    """Conformal sets about a narrow, biased ensemble of a skew truth."""
    generator = torch.Generator().manual_seed(2)
    centre = torch.randn(2 * count, 1, 8, generator=generator, dtype=torch.float64)
    truth = centre + torch.randn(centre.shape, generator=generator, dtype=torch.float64).exp()
    ensemble = centre + 0.2 * torch.randn(10, *centre.shape, generator=generator, dtype=torch.float64)
    levels, covered, bare = (0.5, 0.7, 0.8, 0.9, 0.95), [], []
    for level in levels:
        found = conformal(ensemble[:, :count], truth[:count], level=level)
        covered.append(float(found.covers(ensemble[:, count:], truth[count:]).double().mean()))
        edge = torch.quantile(ensemble[:, count:], torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64), dim=0)
        bare.append(float(((truth[count:] >= edge[0]) & (truth[count:] <= edge[1])).flatten(1).all(1).double().mean()))
    panel.plot(levels, covered, "o-", ms=4, color=COLOURS[0], label="conformal")  # type: ignore[attr-defined]
    panel.plot(levels, bare, "s--", ms=4, color=COLOURS[1], label="quantiles")  # type: ignore[attr-defined]
    panel.plot((0.4, 1), (0.4, 1), ":", color="k", lw=0.8)  # type: ignore[attr-defined]
    panel.set(title="coverage of whole fields", xlabel="level")  # type: ignore[attr-defined]
    panel.legend(fontsize=8)  # type: ignore[attr-defined]
    return [
        Measure(conformal, "coverage at 90 %", covered[3], 4 * (0.09 * 2 / count) ** 0.5, exact=0.9),
        Measure(conformal, "coverage of the ensemble's own quantiles", bare[3], 0.2, exact=0.9, control=True),
    ]


def open_endpoints() -> list[Measure]:
    """Cov(x1 | xt) of a Gaussian, from the derivative of its velocity."""
    covariance = torch.tensor([[0.5, 0.2], [0.2, 0.3]], dtype=torch.float64)
    flow, source = GaussianOracle(Gaussian(torch.zeros(2, dtype=torch.float64), covariance)), WhiteNoise(PAIR, 1)
    t, eye = at(0.4), torch.eye(2, dtype=torch.float64)
    known = covariance - t * covariance @ torch.linalg.inv(t**2 * covariance + (1 - t) ** 2 * eye) @ covariance * t
    found = endpoint_covariance(flow, AffinePath(), source, normal(2, 1, 2, seed=8), t, eye[:, None])[:, 0]
    return [Measure(endpoint_covariance, "of a Gaussian, error", float((found - known).abs().max()), 1e-10)]
