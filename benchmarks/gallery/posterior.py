r"""Posterior sampling

A Gaussian process seen at five points under noise (dots). Bands are two standard deviations, of its regression in closed form (grey) and
of the samples (blue). With the covariance that the network's derivative gives, guidance samples the posterior; the isotropic one and none,
as PiGDM and DPS have it, are off even here. Flower with its full spread, chains in the source and D-Flow are measured on smaller
Gaussians: the last finds the most probable noise. FlowDPS without data is Euler's rule; the mean of PnP-Flow tends to that of the
posterior.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.gallery.exhibit import Exhibit, Measure, panels, times
from constraints import Axis, Grid, PointValues
from pcfm.guidance import GaussianPosterior
from pcfm.path import AffinePath
from pcfm.report.look import COLOURS, GREY
from pcfm.samplers import DFlow, Euler, FlowDPS, Flower, Heun, PnPFlow, PosteriorFlow, RungeKutta4, SourceChain
from pcfm.source import SmoothNoise
from pcfm.velocity import GaussianFlow
from tests.oracles import Gaussian, GaussianOracle, pushed

NOISE = 0.01


def regression(prior: Gaussian, rows: Tensor, values: Tensor, variance: float) -> Gaussian:
    """The posterior of a Gaussian under rows @ x = values + noise."""
    cross = prior.covariance @ rows.T
    gain = cross @ torch.linalg.inv(rows @ cross + variance * torch.eye(len(rows), dtype=rows.dtype))
    return Gaussian(prior.mean + gain @ (values - rows @ prior.mean), prior.covariance - gain @ cross.T)


def off(found: Gaussian, truth: Gaussian) -> float:
    """Largest error of mean and, relative, of covariance."""
    spread = float((found.covariance - truth.covariance).norm() / truth.covariance.norm())
    return max(float((found.mean - truth.mean).abs().max()), spread)


def show(full: bool) -> Exhibit:
    size = 32 if full else 12
    grid = Grid(Axis("x", size))
    kernel = SmoothNoise(grid, 1, length=0.15, smoothness=1.5).covariance(torch.eye(size, dtype=torch.float64)[:, None])[:, 0]
    prior = Gaussian(torch.zeros(size, dtype=torch.float64), kernel)
    places = torch.linspace(1, size - 2, 5).round().long()
    values = torch.tensor([0.8, -0.6, 0.2, 1.4, -0.9], dtype=torch.float64)
    mask = torch.zeros(1, size, dtype=torch.bool)
    mask[0, places] = True
    field = torch.zeros(1, size, dtype=torch.float64)
    field[0, places] = values
    law = PointValues(mask, field[mask], variance=NOISE)
    truth = regression(prior, torch.eye(size, dtype=torch.float64)[places], values, NOISE)
    figure, axes = panels(3, 1, 3.3, 2.7, sharey=True)
    x, measures = torch.linspace(0, 1, size), []
    for panel, covariance, title in zip(
        axes, ("jacobian", "isotropic", "zero"), ("derivative (MMPS)", "isotropic (PiGDM)", "none (DPS)"), strict=True
    ):
        found = sampled(covariance, prior, law, size)
        for law_, colour, alpha in ((truth, GREY, 0.35), (found, COLOURS[0], 0.3)):
            band = 2 * law_.covariance.diagonal().clamp_min(0).sqrt()
            panel.fill_between(x, law_.mean - band, law_.mean + band, color=colour, alpha=alpha, lw=0)
            panel.plot(x, law_.mean, color=colour)
        panel.plot(x[places], values, "o", ms=5, color=COLOURS[1])
        panel.set(title=title, xlabel="x", ylim=(-3, 3))
        exact = covariance == "jacobian"
        quantity = f"mean and covariance of the regression, error, {title}"
        measures.append(Measure(PosteriorFlow if exact else GaussianPosterior, quantity, off(found, truth), 0.02, control=not exact))
        if exact:
            measures.append(
                Measure(GaussianPosterior, "mean and covariance of a Gaussian process regression, error", off(found, truth), 0.02)
            )
    return Exhibit(figure, measures + others(2000 if full else 400, full))


def sampled(covariance: str, prior: Gaussian, law: PointValues, size: int) -> Gaussian:
    """Mean and covariance of guided samples, without the noise of sampling."""
    flow = GaussianOracle(prior)
    steps = 400 if covariance == "zero" else 80  # without a covariance the guidance is stiff
    sampler = PosteriorFlow(RungeKutta4(flow), flow, AffinePath(), law, covariance=covariance, iterations=12, reach=0.0, clip=0.0)
    return pushed(lambda noise: sampler, size, times(steps))


def others(count: int, full: bool) -> list[Measure]:
    """Methods that solve the problem of a standard normal of four values, two of them read under noise."""
    mask = torch.tensor([[True, False, True, False]])
    read = torch.tensor([0.9, -0.7], dtype=torch.float64)
    law, variance = PointValues(mask, read, variance=0.5), 0.5
    rows = torch.eye(4, dtype=torch.float64)[mask[0]]
    unit = Gaussian(torch.zeros(4, dtype=torch.float64), torch.eye(4, dtype=torch.float64))
    truth = regression(unit, rows, read, variance)
    steps = 5

    def flower(gamma: float) -> float:
        draws = 3 * steps - 1 if gamma else steps - 1

        def built(noise: Callable[[], Tensor]) -> Flower:
            def white(shape: tuple[int, ...]) -> Tensor:
                return noise()[:, 0, : shape[0]]

            return Flower(GaussianOracle(unit), AffinePath(), law, noise, white, gamma=gamma, final=False)

        return off(pushed(built, 4, times(steps), draws=draws), truth)

    flow, generator = GaussianFlow(0.2, 0.7), torch.Generator().manual_seed(5)
    base = Heun(flow)
    noise = lambda: torch.randn(count, 1, 4, generator=generator, dtype=torch.float64)  # noqa: E731
    white = lambda shape: torch.randn(count, *shape, generator=generator, dtype=torch.float64)  # noqa: E731
    zero, one = (
        base(torch.zeros(1, 1, 4, dtype=torch.float64), times(4))[0, 0, 0],
        base(torch.ones(1, 1, 4, dtype=torch.float64), times(4))[0, 0, 0],
    )
    scale = one - zero
    pushed_law = Gaussian(zero.expand(4), scale**2 * torch.eye(4, dtype=torch.float64))
    chain = SourceChain(base, law, noise, white, moves=60 if full else 30, gradient=True, length=0.5).run(noise(), times(4))
    u = chain.x1[:, 0]
    reached = off(Gaussian(u.mean(0), u.T.cov()), regression(pushed_law, rows, read, variance))
    sought = DFlow(Euler(flow), law, iterations=60, regularisation=1.0).optimise(noise()[:5], times(4))
    return [
        Measure(Flower, "posterior of a standard normal, full spread, error", flower(1.0), 1e-8),
        Measure(Flower, "without it", flower(0.0), 0.3, control=True),
        Measure(SourceChain, "posterior of four values, error of mean and covariance", reached, 0.08 if full else 0.25),
        Measure(DFlow, "distance from the most probable noise", ridge(flow, sought.x, read, mask, variance), 1e-4),
        *data_steps(mask, read, noise),
    ]


def data_steps(mask: Tensor, read: Tensor, noise: Callable[[], Tensor]) -> list[Measure]:
    """Methods that are exact in a limit alone, on four correlated values, two of them read exactly."""
    kernel = SmoothNoise(Grid(Axis("x", 4)), 1, length=0.3).covariance(torch.eye(4, dtype=torch.float64)[:, None])[:, 0]
    prior = Gaussian(torch.full((4,), 0.5, dtype=torch.float64), kernel)
    truth, law, flow = prior.given(torch.eye(4, dtype=torch.float64)[mask[0]], read), PointValues(mask, read), GaussianOracle(prior)
    x0 = noise()
    bare = FlowDPS(flow, AffinePath(), law, noise, moves=0, renoise=False, final=False)
    euler = float((bare(x0, times(20)) - Euler(flow)(x0, times(20))).abs().max())

    def missed(power: float, steps: int = 400) -> float:
        found = pushed(
            lambda noise: PnPFlow(flow, AffinePath(), law, noise, power=power, average=1, final=False), 4, times(steps), draws=steps
        )
        return float((found.mean - truth.mean).abs().max())

    return [
        Measure(FlowDPS, "distance from Euler's rule, without data and new noise", euler, 1e-12),
        Measure(PnPFlow, "mean of the posterior of four correlated values, error", missed(0.01), 0.05),
        Measure(PnPFlow, "with steps that fall as fast as the noise", missed(2.0), 0.2, control=True),
    ]


def ridge(flow: GaussianFlow, x0: Tensor, read: Tensor, mask: Tensor, variance: float) -> float:
    """From the minimum of |z|²/2 + |Az + b - y|²/2s²."""
    base = Euler(flow)
    zero, one = (float(base(torch.full((1, 1, 1), value, dtype=torch.float64), times(4))) for value in (0.0, 1.0))
    scale = one - zero
    best = torch.zeros(4, dtype=torch.float64)
    best[mask[0]] = scale * (read - zero) / (scale**2 + variance)
    return float((x0[:, 0] - best).abs().max())
