"""The catalogue of metrics that compare fields with reference fields: name, group, formula, unit, and what each asks of the fields.

A metric takes a view of both sets once (features, coordinates along random directions, places among all pairs; the fields themselves by
default) and measures between views, so that its noise floor, over many splits of the reference, costs no more views.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from constraints import Grid
from pcfm.metrics.calibration import coverage, crps, pit_deviation, ranks, spread_skill
from pcfm.metrics.distances import PrincipalFeatures, RandomConvolutions, bandwidths_of, frechet_distance, mmd_of, sliced, slices
from pcfm.metrics.distribution import distances, energy_of, spread, vectors
from pcfm.metrics.literature import mmse, smse
from pcfm.metrics.pointwise import mean_error, spread_error
from pcfm.metrics.spectrum import error_of, resolved
from pcfm.metrics.stream import stream
from pcfm.metrics.structure import (
    Kind,
    amplitude_bands,
    amplitude_ratio,
    decades,
    increments,
    octaves,
    pooled_distance,
    structure_function,
)
from pcfm.naming import suggest

INCREMENTS = 1024
"""Increments of a field at one separation that their distributions are compared by, at random places."""

POINTS = 2048
"""Values of a field that ensembles are scored and ranked at, at random places."""

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
    def pairs(self) -> Tensor:
        """Distances of all pairs of references, (M, M)."""
        x, y = vectors(self.reference, self.reference, self.scale, "energy_distance")
        return distances(x, y)

    @cached_property
    def bandwidths(self) -> Tensor:
        return bandwidths_of(self.pairs)

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
        return stream(self.seed)


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


def _curve(kind: Kind | None = None) -> Callable[[Tensor, Basis], Tensor]:
    """Second-order structure functions of each sample, (N, R)."""
    return lambda u, basis: structure_function(
        u, basis.grid, 2, kind or basis.kind, components=basis.components, separations=octaves(basis.grid)
    )[1]


def _some_increments(u: Tensor, basis: Basis) -> Tensor:
    """Increments at random places, the same for all samples, (N, R, K)."""
    parts = []
    for step in octaves(basis.grid):
        delta = increments(u, basis.grid, step, basis.kind, components=basis.components)
        parts.append(delta[:, torch.randperm(delta.shape[1], generator=basis.generator())[:INCREMENTS].to(u.device)])
    least = min(part.shape[1] for part in parts)
    return torch.stack([part[:, :least] for part in parts], dim=1)


def _increments(x: Tensor, y: Tensor, basis: Basis) -> Values:
    found = torch.stack([pooled_distance(x[:, i], y[:, i]) for i in range(x.shape[1])])
    return {"mean over separations": found.mean(), "one point apart": found[0]}


def _bands(u: Tensor, r: Tensor, basis: Basis) -> Values:
    k, ratio = amplitude_bands(u, r, basis.grid)
    names = ["mean over space", *(f"k from {float(lowest):.4g}" for lowest in k[1:])]
    return dict(zip(names, ratio, strict=True))


def _places(u: Tensor, basis: Basis) -> Tensor:
    """Of each sample its place in its set, its distances to all references, and those to its own set, (N, 1 + M + N)."""
    place = torch.arange(len(u), dtype=u.dtype, device=u.device)[:, None]
    if u is basis.reference:
        return torch.cat([place, basis.pairs, basis.pairs], dim=1)
    x, y = vectors(u, basis.reference, basis.scale, "energy_distance")
    return torch.cat([place, distances(x, y), distances(x, x)], dim=1)


def _pairs(x: Tensor, y: Tensor, basis: Basis) -> tuple[Tensor, Tensor, Tensor]:
    """Distances within some samples, within some references, and between both."""
    ours, theirs = x[:, 0].long(), y[:, 0].long()
    return x[:, 1 + len(basis.reference) + ours], y[:, 1 + theirs], x[:, 1 + theirs]


def _sliced_view(u: Tensor, basis: Basis) -> Tensor:
    x, _ = vectors(u, basis.reference, basis.scale, "sliced_wasserstein")
    return slices(x, PROJECTIONS, basis.generator()).T


def _some_points(u: Tensor, basis: Basis) -> Tensor:
    """Values at random places, the same for all samples, (N, K)."""
    flat = u.flatten(1)
    return flat[:, torch.randperm(flat.shape[1], generator=basis.generator())[:POINTS].to(u.device)]


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
        "energy distance", "default", "energy_distance", "1", lambda x, y, b: {"": energy_of(*_pairs(x, y, b))}, _places
    ),
    "spectrum": Metric(
        "spectrum error", "default", "spectrum_error", "decades", lambda x, y, b: {"": error_of(x, y)}, lambda u, b: resolved(u, b.grid),
        _periodic,
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
        "structure function error, order 2", "structure", "structure_error", "decades",
        lambda x, y, b: {"": decades(x.mean(0), y.mean(0))}, _curve(), _isotropic,
    ),
    "structure-function-transverse": Metric(
        "transverse structure function error, order 2", "structure", "structure_error", "decades",
        lambda x, y, b: {"": decades(x.mean(0), y.mean(0))}, _curve("transverse"),
        lambda b: _isotropic(b) or ("" if b.velocity else "no channels are known as its velocity"),
    ),
    "increments": Metric(
        "distance of increments", "structure", "increment_distance", "1", _increments, _some_increments, _isotropic
    ),
    "sliced-wasserstein": Metric(
        "sliced Wasserstein distance", "distances", "sliced_wasserstein", "1",
        lambda x, y, b: {"": sliced(x.T, y.T, 2.0)}, view=_sliced_view,
    ),
    "mmd": Metric("MMD, squared", "distances", "mmd", "1", lambda x, y, b: {"": mmd_of(*_pairs(x, y, b), b.bandwidths)}, _places),
    "frechet-convolutions": Metric(
        "Fréchet distance, random convolutions", "distances", "frechet_distance", "1",
        lambda x, y, b: {"": frechet_distance(x, y)}, view=lambda u, b: b.convolutions(u), lacks=_convolved,
    ),
    "frechet-principal": Metric(
        "Fréchet distance, principal components", "distances", "frechet_distance", "1",
        lambda x, y, b: {"": frechet_distance(x, y)}, view=lambda u, b: b.principal(u),
    ),
    "crps": Metric("CRPS", "calibration", "crps", "field", lambda u, r, b: {"": crps(u[:, None], r).mean()}, _some_points),
    "coverage": Metric("coverage less nominal", "calibration", "coverage", "1", _coverage, _some_points, least=3),
    "pit": Metric(
        "PIT, largest deviation from uniform", "calibration", "pit_deviation", "1",
        lambda u, r, b: {"": pit_deviation(ranks(u[:, None], r, b.generator()), len(u))}, _some_points,
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
