r"""Function space

Left: one draw of smooth and of white noise on 64 and on 256 points. Right: the spectrum of a Fourier neural operator's samples, trained on
smooth functions at 64 points and sampled at 64, 128 and 256, over that of the data. From smooth noise it keeps the variance of each mode;
from white noise, which has no limit as the grid is refined, it loses it in proportion.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from benchmarks.gallery.exhibit import Exhibit, Measure, fitted, panels, times
from constraints import Axis, Grid
from pcfm.networks import FourierOperator
from pcfm.objective import flow_matching_loss, stratified_times
from pcfm.path import AffinePath
from pcfm.report.look import COLOURS
from pcfm.samplers import Heun
from pcfm.source import SmoothNoise, Source, WhiteNoise
from pcfm.velocity import NetworkVelocity

MODES, POINTS = 7, (64, 128, 256)


def line(points: int) -> Grid:
    return Grid(Axis("x", points, periodic=True))


def power(u: Tensor) -> Tensor:
    """Mean square of the first Fourier coefficients, whatever the grid."""
    return torch.fft.rfft(u[:, 0], norm="forward")[:, :MODES].abs().square().mean(0)


def generators(count: int, seed: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(10_000 * seed + i) for i in range(count)]


DATA = SmoothNoise(line(POINTS[0]), 1, length=0.1, smoothness=2.5)


def operator(points: int, width: int) -> FourierOperator:
    """A network on a grid; its weights fit every grid."""
    return FourierOperator(line(points), 1, modes=16, width=width, depth=3)


def learn(source: Source, steps: int, width: int) -> nn.Module:
    """A network of the flow from the source to the data."""

    def loss(network: nn.Module, average: nn.Module, generator: torch.Generator) -> Tensor:
        x0, x1 = (law.colour(torch.randn(32, 1, POINTS[0], generator=generator)) for law in (source, DATA))
        return flow_matching_loss(network, AffinePath(), x0, x1, stratified_times(32, generator)).mean()

    torch.manual_seed(0)
    return fitted(operator(POINTS[0], width), loss, steps)


def show(full: bool) -> Exhibit:
    count = 400 if full else 50
    sources: dict[str, Source] = {
        "smooth": SmoothNoise(line(POINTS[0]), 1, length=0.05, smoothness=0.5),
        "white": WhiteNoise(line(POINTS[0]), 1),
    }
    figure, axes = panels(4, 1, 2.6, 2.6)
    measures = []
    for panel, spectra, (name, source) in zip(axes[::2], axes[1::2], sources.items(), strict=True):
        draws = {points: source.on(line(points)).sample(generators(count, 0), torch.float64) for points in (64, 256)}
        panel.plot(torch.arange(256) / 256, draws[256][0, 0], color=COLOURS[5], lw=0.9, label="256 points")
        panel.plot(torch.arange(64) / 64, draws[64][0, 0], color=COLOURS[0], lw=1.1, label="64 points")
        panel.set(title=f"{name} noise", xlabel="x", ylim=(-4, 5.5))
        panel.legend(ncols=1, loc="upper left")
        width = 24 if full else 8
        learnt = learn(source, 1500 if full else 25, width).state_dict()
        truth = power(DATA.sample(generators(5 * count, 1), torch.float64))
        ratios = {}
        for points, colour in zip(POINTS, COLOURS, strict=False):
            x0 = source.on(line(points)).sample(generators(count, 2), torch.float64)
            network = operator(points, width)
            network.load_state_dict(learnt)
            with torch.no_grad():
                made = Heun(NetworkVelocity(network))(x0, times(30 if full else 6))
            ratios[points] = power(made) / truth
            spectra.plot(range(MODES), ratios[points], "o-", ms=3, color=colour, label=f"{points} points")
        spectra.axhline(1, color="k", lw=0.6)
        spectra.set(title=f"from {name} noise", xlabel="wavenumber", ylabel="power over that of the data", ylim=(0, 2))
        spectra.legend()
        if full:
            worst = max(float((ratio - 1).abs().max()) for ratio in ratios.values())
            kept = [float((ratios[points] / ratios[64]).mean()) for points in POINTS[1:]]
            if name == "smooth":
                measures.append(Measure(SmoothNoise, "trained at 64 points, sampled at 64 to 256: power of modes off by", worst, 0.2))
                measures.append(Measure(SmoothNoise, "power at 256 points over that at 64", kept[1], 0.1, exact=1.0))
            else:
                measures.append(Measure(WhiteNoise, "power at 256 points over that at 64 (lost)", kept[1], 0.2, exact=1.0, control=True))
    return Exhibit(figure, draws_measured(20_000 if full else 2_000) + measures)


def draws_measured(count: int) -> list[Measure]:
    """Variances of modes, and draws of one function on two grids."""
    source, grid = SmoothNoise(line(64), 1, length=0.1), line(64)
    white = torch.randn(count, 1, 64, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    found = torch.fft.rfft(source.colour(white)[:, 0], norm="forward").abs().square().mean(0)
    k2 = (0.1 * 2 * math.pi * torch.fft.fftfreq(64, 1 / 64, dtype=torch.float64)).square()
    exact = (1 + k2) ** -2.0
    exact = (exact / exact.sum())[:33]
    coarse, fine = (source.on(line(points)).sample(generators(3, 4), torch.float64) for points in (64, 256))
    difference = torch.fft.rfft(coarse, norm="forward")[..., :32] - torch.fft.rfft(fine, norm="forward")[..., :32]
    flat = WhiteNoise(grid, 1).colour(white).var(0).mean()
    return [
        Measure(
            SmoothNoise,
            "variance of each mode over that of Matérn's spectrum, off by",
            float((found / exact - 1).abs().max()),
            5 / math.sqrt(count),
        ),
        Measure(SmoothNoise, "one draw on 64 and 256 points: coefficients differ by", float(difference.abs().max()), 1e-12),
        Measure(WhiteNoise, "variance at each point", float(flat), 0.02, exact=1.0),
    ]
