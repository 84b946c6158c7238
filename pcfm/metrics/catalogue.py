"""The catalogue of metrics that compare fields with reference fields: name, group, formula, unit, and what each asks of the fields.

A metric takes a view of both sets once (features, coordinates along random directions; the fields themselves by default) and measures
between views, so that its noise floor, over many splits of the reference, costs no more views.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from constraints import Grid
from pcfm.metrics.calibration import coverage, crps, pit_deviation, ranks, spread_skill
from pcfm.metrics.distances import PrincipalFeatures, RandomConvolutions, bandwidths, frechet_distance, mmd, sliced, slices
from pcfm.metrics.distribution import energy_distance, spread, vectors
from pcfm.metrics.literature import mmse, smse
from pcfm.metrics.pointwise import mean_error, spread_error
from pcfm.metrics.spectrum import spectrum_error
from pcfm.metrics.structure import Kind, amplitude_bands, amplitude_ratio, increment_distance, structure_error
from pcfm.naming import suggest

PROJECTIONS = 256
"""Directions of the sliced Wasserstein distance."""


@dataclass(frozen=True)
class Basis:
    """What metrics may know beside the two sets: whatever is measured on the reference is measured once, on all of it.

    Attributes:
        grid: the grid of both.
        reference: reference fields, (M, C, *N), float64.
        velocity: channels of a velocity, in the order of the space axes; empty if there is none.
        seed: of directions, random filters and ties.
        box: whether the grid is a product of axes; an axis that numbers the points of a mesh is not.
    """

    grid: Grid
    reference: Tensor
    velocity: tuple[int, ...] = ()
    seed: int = 0
    box: bool = True

    @cached_property
    def scale(self) -> Tensor:
        return spread(self.reference)

    @cached_property
    def bandwidths(self) -> Tensor:
        return bandwidths(self.reference, self.scale)

    @cached_property
    def principal(self) -> PrincipalFeatures:
        return PrincipalFeatures(self.reference, scale=self.scale)

    @cached_property
    def convolutions(self) -> RandomConvolutions:
        return RandomConvolutions(self.reference, self.grid, self.seed)

    @property
    def kind(self) -> Kind:
        return "longitudinal" if self.velocity else "scalar"

    @property
    def components(self) -> tuple[int, ...] | None:
        return self.velocity or None

    def generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed)


Values = Mapping[str, Tensor | float]


@dataclass(frozen=True)
class Metric:
    """An entry of the catalogue.

    Attributes:
        label: what a row is called.
        group: default, literature, structure, distances or calibration.
        formula: the function of `pcfm.metrics` that defines it, and its line on the page of metrics.
        unit: "1", "decades", or "field" and "square" for that of the fields and its square.
        measure: views of fields and reference to values, by what distinguishes them; "" where there is one.
        view: fields to what is measured on, sample by sample.
        lacks: why fields of some kind have no such value, empty if they do.
        least: samples that are needed of each.
    """

    label: str
    group: str
    formula: str
    unit: str
    measure: Callable[[Tensor, Tensor, Basis], Values]
    view: Callable[[Tensor, Basis], Tensor] = lambda u, basis: u
    lacks: Callable[[Basis], str] = lambda basis: ""
    least: int = 2


def _periodic(basis: Basis) -> str:
    fits = basis.box and all(axis.periodic and axis.uniform for axis in basis.grid.space_axes)
    return "" if fits else "its space axes are not all periodic and equally spaced"


def _uniform(basis: Basis) -> str:
    fits = basis.box and all(axis.uniform and axis.points > 1 for axis in basis.grid.space_axes)
    return "" if fits else "its space axes are not all equally spaced"


def _isotropic(basis: Basis) -> str:
    if reason := _uniform(basis):
        return reason
    spacings = [axis.spacing for axis in basis.grid.space_axes]
    return "" if max(spacings) - min(spacings) <= 1e-6 * spacings[0] else "its axes differ in spacing"


def _convolved(basis: Basis) -> str:
    space = len(basis.grid.space_axes)
    return "" if basis.box and space <= 3 else "it is not a box of at most three space axes"


def _structure(u: Tensor, r: Tensor, basis: Basis) -> Values:
    return {"": structure_error(u, r, basis.grid, 2, basis.kind, components=basis.components)}


def _transverse(u: Tensor, r: Tensor, basis: Basis) -> Values:
    return {"": structure_error(u, r, basis.grid, 2, "transverse", components=basis.components)}


def _increments(u: Tensor, r: Tensor, basis: Basis) -> Values:
    distance = increment_distance(u, r, basis.grid, None, basis.kind, components=basis.components)[1]
    return {"mean over separations": distance.mean(), "one point apart": distance[0]}


def _bands(u: Tensor, r: Tensor, basis: Basis) -> Values:
    k, ratio = amplitude_bands(u, r, basis.grid)
    names = ["mean over space", *(f"k from {float(lowest):.4g}" for lowest in k[1:])]
    return dict(zip(names, ratio, strict=True))


def _sliced_view(u: Tensor, basis: Basis) -> Tensor:
    x, _ = vectors(u, basis.reference, basis.scale, "sliced_wasserstein")
    return slices(x, PROJECTIONS, basis.generator()).T


def _coverage(u: Tensor, r: Tensor, basis: Basis) -> Values:
    found = coverage(ranks(u[:, None], r, basis.generator()), len(u))
    gap = found.covered - found.nominal
    return {"central 50 %": gap[0], "central 90 %": gap[1]}


METRICS: dict[str, Metric] = {
    "mmse": Metric(
        "mean error (MMSE)", "default", "mean_error", "square", lambda u, r, b: {"": mean_error(u, r, b.grid)}
    ),
    "smse": Metric(
        "spread error (SMSE)", "default", "spread_error", "square", lambda u, r, b: {"": spread_error(u, r, b.grid)}
    ),
    "energy-distance": Metric(
        "energy distance", "default", "energy_distance", "1", lambda u, r, b: {"": energy_distance(u, r, b.scale)}
    ),
    "spectrum": Metric(
        "spectrum error", "default", "spectrum_error", "decades", lambda u, r, b: {"": spectrum_error(u, r, b.grid)}, lacks=_periodic
    ),
    "mmse-nodes": Metric("MMSE, mean over nodes", "literature", "mmse", "square", lambda u, r, b: {"": mmse(u, r)}),
    "smse-nodes": Metric("SMSE, mean over nodes", "literature", "smse", "square", lambda u, r, b: {"": smse(u, r)}),
    "mmse-norm": Metric("MMSE, squared norm", "literature", "mmse", "square", lambda u, r, b: {"": mmse(u, r, summed=True)}),
    "smse-norm": Metric("SMSE, squared norm", "literature", "smse", "square", lambda u, r, b: {"": smse(u, r, summed=True)}),
    "amplitude": Metric(
        "amplitude ratio", "structure", "amplitude_ratio", "1", lambda u, r, b: {"": amplitude_ratio(u, r, b.grid)}
    ),
    "amplitude-bands": Metric("amplitude ratio", "structure", "amplitude_bands", "1", _bands, lacks=_uniform),
    "structure-function": Metric(
        "structure function error, order 2", "structure", "structure_error", "decades", _structure, lacks=_isotropic
    ),
    "structure-function-transverse": Metric(
        "transverse structure function error, order 2", "structure", "structure_error", "decades", _transverse,
        lacks=lambda b: _isotropic(b) or ("" if b.velocity else "no channels are known as its velocity"),
    ),
    "increments": Metric("distance of increments", "structure", "increment_distance", "1", _increments, lacks=_isotropic),
    "sliced-wasserstein": Metric(
        "sliced Wasserstein distance", "distances", "sliced_wasserstein", "1",
        lambda x, y, b: {"": sliced(x.T, y.T, 2.0)}, view=_sliced_view,
    ),
    "mmd": Metric("MMD, squared", "distances", "mmd", "1", lambda u, r, b: {"": mmd(u, r, b.scale, widths=b.bandwidths)}),
    "frechet-convolutions": Metric(
        "Fréchet distance, random convolutions", "distances", "frechet_distance", "1",
        lambda x, y, b: {"": frechet_distance(x, y)}, view=lambda u, b: b.convolutions(u), lacks=_convolved,
    ),
    "frechet-principal": Metric(
        "Fréchet distance, principal components", "distances", "frechet_distance", "1",
        lambda x, y, b: {"": frechet_distance(x, y)}, view=lambda u, b: b.principal(u),
    ),
    "crps": Metric("CRPS", "calibration", "crps", "field", lambda u, r, b: {"": crps(u[:, None], r).mean()}),
    "coverage": Metric("coverage less nominal", "calibration", "coverage", "1", _coverage, least=3),
    "pit": Metric(
        "PIT, largest deviation from uniform", "calibration", "pit_deviation", "1",
        lambda u, r, b: {"": pit_deviation(ranks(u[:, None], r, b.generator()), len(u))},
    ),
    "spread-skill": Metric(
        "spread-skill ratio", "calibration", "spread_skill", "1", lambda u, r, b: {"": spread_skill(u[:, None], r)}
    ),
}  # fmt: skip

EXTRAS = {
    "literature": ("ce", "feasible"),
    "residual": ("equation", "held-out"),
}
"""Metrics that need laws or an equation, not two sets alone, by group: `pcfm.evaluation` measures them."""

GROUPS = ("default", "literature", "structure", "distances", "calibration", "residual")


def select(chosen: Iterable[str]) -> tuple[str, ...]:
    """Names of metrics from names, groups and "all", in the order of the catalogue.

    Raises:
        ValueError: an unknown name.

    Example:
        >>> select(["mmd", "default"])
        ('mmse', 'smse', 'energy-distance', 'spectrum', 'mmd')
    """
    known = {name: metric.group for name, metric in METRICS.items()}
    known |= {name: group for group, names in EXTRAS.items() for name in names}
    wanted = set()
    for name in chosen:
        if name not in known and name not in GROUPS and name != "all":
            raise ValueError(f"unknown metric or group '{name}'. {suggest(name, [*known, *GROUPS, 'all'])}")
        wanted |= {metric for metric, group in known.items() if name in (metric, group, "all")}
    return tuple(name for name in known if name in wanted)
