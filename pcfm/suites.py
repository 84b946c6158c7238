"""The suites of the benchmark: for each problem data, reference set, laws, model, methods, sizes and what has been published.

Evaluation is that of the literature: N samples that share one datum, an initial state say, against as many reference solutions with the
same datum and all else drawn.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from constraints import Constraint, Intersection
from pcfm import suite_laws
from pcfm.methods import METHODS, parse
from pcfm.naming import suggest
from pcfm.published import PUBLISHED, Published
from pcfm.suite_laws import Laws, Make
from pde_datasets import Fields, Problem
from pde_datasets.problems import PROBLEMS

PRESETS = ("quick", "cpu", "paper")
"""A minute or two of one core; three to eight, so that the five suites of the PCFM paper take half an hour; the settings of the literature,
for a GPU.

Most of the time goes into methods that run the flow, or its derivative, many times a step. So `cpu` has grids three to four times as coarse
as the literature's, networks of some hundred thousand weights, and 16 to 24 samples of each of three seeds: what it shows is order and
magnitude.
"""

LITERATURE = "literature"
"""What a method imposes under @literature: the laws as the literature writes them."""


@dataclass(frozen=True)
class Size:
    """How much of a suite is done.

    Attributes:
        settings: of the problem, over those of the suite.
        model: keys and values of the training configuration.
        fields: training fields.
        count: samples of each method, and reference solutions.
        seeds: of the noise.
        steps: flow steps.
        batch: samples at a time.
        options: methods with other options than those of the suite, NAME:key=value.
        without: methods that cost too much here; they run where they are asked for.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    model: tuple[str, ...] = ()
    fields: int = 0
    count: int = 24
    seeds: int = 3
    steps: int = 20
    batch: int = 32
    options: Mapping[str, str] = field(default_factory=dict)
    without: tuple[str, ...] = ()


@dataclass(frozen=True)
class Entry:
    """A method of the table: `NAME[:key=value,...][@LAWS]`.

    Attributes:
        method: the method with its options.
        laws: what it imposes: nothing said, the laws as the data's scheme obeys them; "literature", as the literature writes them; or
            those of some kinds only, such as "IC" or "IC+CL".
    """

    method: str
    laws: str = ""

    def __str__(self) -> str:
        return self.method + (f"@{self.laws}" if self.laws else "")

    @property
    def name(self) -> str:
        """The method's name, without options."""
        return parse(self.method)[0]


@dataclass(frozen=True)
class Suite:
    """A problem with all it takes to set methods side by side on it.

    Attributes:
        name: what the command line calls it.
        title: what it is, in a line.
        source: where problem and evaluation are from.
        problem: name of the embedded problem.
        datum: what the samples share with the reference, in words.
        fixed: settings of the reference set, over those of the training data.
        settings: settings of both.
        laws: what is imposed, as the data's scheme obeys it.
        kinds: kinds of these laws, each of which can be imposed alone.
        literature: the same as the literature writes it, None where that is the same.
        model: keys and values of the training configuration, those of the size over them.
        shipped: a model that comes with the package, in place of a training.
        reconstructs: whether the data of sample i are to determine it, so that its distance to reference i is measured too.
        options: methods with the options published for this problem.
        extra: further entries of the table.
        metrics: names in the catalogue of metrics.
        sizes: by preset.
    """

    name: str
    title: str
    source: str
    problem: str
    datum: str
    laws: Make
    kinds: tuple[str, ...]
    fixed: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    literature: Make | None = None
    model: tuple[str, ...] = ()
    shipped: str | None = None
    reconstructs: bool = False
    options: Mapping[str, str] = field(default_factory=dict)
    extra: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    sizes: Mapping[str, Size] = field(default_factory=dict)

    @property
    def published(self) -> tuple[Published, ...]:
        """Published tables, if there are any."""
        return PUBLISHED.get(self.name, ())

    def training_problem(self, size: Size) -> Problem:
        """What the model learns."""
        return PROBLEMS[self.problem](**{**self.settings, **size.settings})

    def reference_problem(self, size: Size) -> Problem:
        """What samples are compared with."""
        return PROBLEMS[self.problem](**{**self.settings, **size.settings, **self.fixed})

    def entries(self, size: Size) -> tuple[Entry, ...]:
        """The methods of the table: every one there is that this size can afford, then the further ones."""
        chosen = [size.options.get(name, self.options.get(name, name)) for name in METHODS if name not in size.without]
        return tuple(self.entry(text) for text in dict.fromkeys([*chosen, *self.extra]))

    def entry(self, text: str) -> Entry:
        """An entry from its text.

        Raises:
            ValueError: an unknown method, option or kind of laws, or laws for a method that takes none.
        """
        method, at, laws = text.partition("@")
        lawful = METHODS[parse(method)[0]].lawful
        if at and not lawful:
            raise ValueError(f"method '{method}' takes no law; '@{laws}' says which. Drop it.")
        known = [*self.kinds, *([LITERATURE] if self.literature else [])]
        for part in [laws] if laws == LITERATURE else laws.split("+") if at else []:
            if part not in known:
                raise ValueError(f"suite '{self.name}' has no laws '{part}'. {suggest(part, known)}")
        return Entry(method, laws)

    def imposed(self, entry: Entry, problem: Problem, given: Fields) -> Constraint | None:
        """The law that a method imposes, None if it takes none."""
        if not METHODS[entry.name].lawful:
            return None
        if entry.laws == LITERATURE and self.literature is not None:
            return joined(self.literature(problem, given))
        laws, kinds = self.laws(problem, given), entry.laws.split("+") if entry.laws else self.kinds
        return joined({label: law for label, law in laws.items() if kind(label) in kinds})


def kind(label: str) -> str:
    """The kind of a law with a label: what is before its comma."""
    return label.partition(",")[0]


def joined(laws: Laws) -> Constraint:
    """All of some laws."""
    found = list(laws.values())
    return found[0] if len(found) == 1 else Intersection(*found)


_ENSEMBLE = ("mmse-nodes", "smse-nodes", "mmse-norm", "smse-norm", "amplitude", "energy-distance", "sliced-wasserstein")
_PAPER = "Utkarsh et al., NeurIPS 2025, arXiv:2506.04171"

_SMALL = (
    "network.modes=8",
    "network.width=16",
    "network.depth=3",
    "source.smoothness=2.5",
    "source.length=0.2",
    "training.steps=400",
    "training.batch=16",
    "training.learning_rate=4e-3",
    "training.warmup=50",
    "training.ema=0.98",
    "training.evaluate_every=100",
    "training.checkpoint_every=50",
)
"""Half a minute of training on one core."""

_MIDDLE = (
    "network.modes=8",
    "network.width=16",
    "network.depth=3",
    "source.smoothness=2.5",
    "source.length=0.1",
    "training.steps=1200",
    "training.batch=16",
    "training.learning_rate=4e-3",
    "training.warmup=50",
    "training.ema=0.99",
    "training.evaluate_every=200",
    "training.checkpoint_every=200",
)
"""A minute or two of training on one core."""

_PUBLISHED_MODEL = (
    "network.modes=32",
    "network.width=64",
    "network.depth=4",
    "source.kind=white",
    "training.steps=20000",
    "training.batch=256",
    "training.learning_rate=3e-4",
    "training.checkpoint_every=1000",
)
"""Sizes of the paper's networks for fields on a line; its prior, a Matern kernel shorter than the grid spacing, is white noise."""

_CHAIN = ("source-chain",)
"""Chains of a hundred runs of the flow, forwards and backwards."""

_DEAR = (*_CHAIN, "ipcfm-slack", "ipcfm-barrier", "ipcfm-active")
"""These, and methods for inequalities, which a suite of equalities has no use for."""

_DEAREST = (*_DEAR, "d-flow")
"""Where optimising noise through the flow would take most of the time; the paper has no value of it on these fields either."""

_FAST = {
    "d-flow": "d-flow:iterations=2,final=false",
    "posterior": "posterior:iterations=2",
}
"""Fewer iterations of what costs most."""

_FASTER = {**_FAST, "pdm": "pdm:inner=1"}
"""Where projections of pure noise cost most, too."""

_AS_PUBLISHED = {"diffusionpde": "diffusionpde:final=false", "d-flow": "d-flow:final=false"}
"""The comparisons of the paper end without a projection."""

_VELOCITY = {**_AS_PUBLISHED, "dual": "dual:whiten=true"}
"""Rows of a divergence are in units of the grid spacing, and explicit steps of the dual flow unstable unless they are made orthonormal."""


_BOUNDED = {**_AS_PUBLISHED, "dual": "dual:whiten=false"}
"""Inequalities cannot be made orthonormal."""

_NEAR_WAKE = {"resolution": 8, "upstream": 2.0, "downstream": 4.0, "side": 2.0, "wake": 1.0, "growth": 1.2}
"""Sides so near squeeze the flow past the cylinder; vortices are shed all the same."""

_INVERSE: dict[str, Size] = {
    "quick": Size(count=8, seeds=2, steps=10, without=_DEAREST),
    "cpu": Size(count=16, steps=16, without=_DEAREST),
    "paper": Size(count=256, steps=100, batch=64, without=_DEAR),
}
"""Of the suites in which a shipped model reconstructs turbulence."""


def _line(points: int, times: int, **settings: Any) -> dict[str, Any]:
    return {"points": points, "times": times, **settings}


_THEIR_LAWS = ("pcfm-published@literature",)
"""PCFM's code on the laws of its paper, where these are not the data's."""

SUITES: dict[str, Suite] = {
    suite.name: suite
    for suite in (
        Suite(
            name="heat-ic",
            title="heat equation from one initial state, with unknown diffusivity",
            source=f"{_PAPER}; settings of Cheng et al., ICLR 2025, arXiv:2412.01786",
            problem="heat",
            datum="initial phase pi/4; diffusivities are drawn",
            laws=suite_laws.initial_and_mass,
            kinds=("IC", "CL"),
            fixed={"phase": (math.pi / 4, math.pi / 4)},
            options={**_AS_PUBLISHED, "eci": "eci:mix=1"},
            metrics=_ENSEMBLE,
            sizes={
                "quick": Size(_line(32, 32), _SMALL, fields=2048, count=12, seeds=2, steps=10, options=_FAST, without=_DEAR),
                "cpu": Size(_line(32, 32), _MIDDLE, fields=4096, steps=16, options=_FAST, without=_DEAR),
                "paper": Size(_line(100, 100), _PUBLISHED_MODEL, fields=5000, count=512, steps=100, batch=128, without=_DEAR),
            },
        ),
        Suite(
            name="navier-stokes-ic",
            title="forced vorticity on the torus from one initial state, with unknown phase of the force",
            source=f"{_PAPER}; equation of Li et al., ICLR 2021, arXiv:2010.08895",
            problem="navier-stokes",
            datum="one initial vorticity; phases of the force are drawn",
            laws=suite_laws.initial_and_mass,
            kinds=("IC", "CL"),
            fixed={"initial_seed": 1},
            settings={"phase": (0.0, math.pi / 2)},
            options=_AS_PUBLISHED,
            metrics=_ENSEMBLE,
            sizes={
                "quick": Size(
                    {"points": 20, "times": 8, "duration": 7.0},
                    (*_SMALL, "network.modes=5", "training.batch=12", "training.steps=300"),
                    fields=512, count=8, seeds=2, steps=10, options=_FAST, without=_DEAREST,
                ),
                "cpu": Size(
                    {"points": 20, "times": 10, "duration": 13.5},
                    (*_MIDDLE, "network.modes=5", "training.batch=8", "training.steps=600"),
                    fields=1024, count=16, steps=12, options=_FAST, without=_DEAREST,
                ),
                "paper": Size(
                    {},
                    (
                        "network.modes=16", "network.width=32", "network.depth=2", "source.kind=white", "training.steps=500000",
                        "training.batch=24", "training.learning_rate=3e-4", "training.warmup=1000", "training.clip=10.0",
                        "training.evaluate_every=1000", "training.checkpoint_every=5000",
                    ),
                    fields=10000, count=100, steps=100, batch=20, without=_DEAR,
                ),
            },
        ),
        Suite(
            name="reaction-diffusion-ic",
            title="reaction and diffusion from one initial state, with unknown fluxes through the ends",
            source=_PAPER,
            problem="reaction-diffusion",
            datum="one initial state; fluxes are drawn",
            laws=suite_laws.reaction_diffusion,
            kinds=("IC", "CL"),
            fixed={"initial_seed": 1},
            literature=suite_laws.reaction_diffusion_literature,
            options=_AS_PUBLISHED,
            extra=(*_THEIR_LAWS, "eci@IC"),
            metrics=_ENSEMBLE,
            sizes={
                "quick": Size(
                    _line(32, 32, interval=0.032), _SMALL, fields=2048, count=12, seeds=2, steps=10, options=_FAST, without=_DEAR
                ),
                "cpu": Size(
                    _line(32, 32, interval=0.032), (*_MIDDLE, "training.steps=800"),
                    fields=4096, count=16, steps=12, options=_FAST, without=_DEAR,
                ),
                "paper": Size(_line(128, 100), _PUBLISHED_MODEL, fields=6400, count=512, steps=200, batch=128, without=_DEAR),
            },
        ),
        Suite(
            name="burgers-bc",
            title="inviscid Burgers equation with given inflow, from unknown fronts",
            source=_PAPER,
            problem="inviscid-burgers",
            datum="inflow 0.5; fronts are drawn",
            laws=suite_laws.burgers_boundary,
            kinds=("BC", "CL"),
            fixed={"inflow": (0.5, 0.5)},
            literature=suite_laws.burgers_boundary_literature,
            options={**_AS_PUBLISHED, "eci": "eci:mix=5,resample=5"},
            extra=(*_THEIR_LAWS, "eci:mix=5,resample=5@BC"),
            metrics=_ENSEMBLE,
            sizes={
                "quick": Size(
                    _line(32, 32), _SMALL, fields=2048, count=12, seeds=2, steps=10,
                    options={**_FASTER, "eci": "eci:mix=1,resample=5"}, without=_DEAR,
                ),
                "cpu": Size(_line(32, 32), _MIDDLE, fields=4096, count=16, steps=12, options=_FASTER, without=_DEAR),
                "paper": Size(_line(101, 101), _PUBLISHED_MODEL, fields=6400, count=512, steps=200, batch=128, without=_DEAR),
            },
        ),
        Suite(
            name="burgers-ic",
            title="inviscid Burgers equation from one front, with unknown inflow",
            source=_PAPER,
            problem="inviscid-burgers",
            datum="front at 0.5; inflows are drawn",
            laws=suite_laws.burgers_initial,
            kinds=("IC", "CL"),
            fixed={"front": (0.5, 0.5)},
            literature=suite_laws.burgers_initial_literature,
            options=_AS_PUBLISHED,
            extra=(*_THEIR_LAWS, "eci@IC"),
            metrics=_ENSEMBLE,
            sizes={
                "quick": Size(_line(32, 32), _SMALL, fields=2048, count=12, seeds=2, steps=10, options=_FASTER, without=_DEAR),
                "cpu": Size(_line(32, 32), _MIDDLE, fields=4096, count=16, steps=12, options=_FASTER, without=_DEAR),
                "paper": Size(_line(101, 101), _PUBLISHED_MODEL, fields=6400, count=512, steps=200, batch=128, without=_DEAR),
            },
        ),
        Suite(
            name="kolmogorov",
            title="velocity of forced two-dimensional turbulence: no divergence, no momentum, given energy",
            source="this project; flow of Kochkov et al., PNAS 118 (2021)",
            problem="kolmogorov",
            datum="the kinetic energy of reference i for sample i",
            laws=suite_laws.velocity,
            kinds=("divergence", "momentum", "energy"),
            fixed={"snapshots": 4, "interval": 8.0},
            shipped="kolmogorov",
            options=_VELOCITY,
            extra=("pcfm-consistent@divergence",),
            metrics=(*_ENSEMBLE, "spectrum"),
            sizes={
                "quick": Size(count=12, steps=10, options=_FAST, without=_DEAR),
                "cpu": Size(count=48, steps=25, options=_FAST, without=_DEAR),
                "paper": Size(count=512, steps=100, batch=128, without=_DEAR),
            },
        ),
        Suite(
            name="taylor-green",
            title="decaying vortex arrays: no divergence, no momentum, given energy at each time",
            source="this project; Taylor & Green, Proc. R. Soc. A 158 (1937) 499",
            problem="taylor-green",
            datum="the kinetic energy of reference i for sample i, at each time",
            laws=suite_laws.velocity,
            kinds=("divergence", "momentum", "energy"),
            options=_VELOCITY,
            extra=("pcfm-consistent@divergence",),
            metrics=(*_ENSEMBLE, "spectrum"),
            sizes={
                "quick": Size(
                    {"points": 16, "times": 5},
                    (*_SMALL, "network.modes=4", "network.width=16", "training.batch=16", "training.steps=300"),
                    fields=1024, count=16, steps=15, options=_FAST, without=_DEAR,
                ),
                "cpu": Size(
                    {"points": 24, "times": 9},
                    (*_MIDDLE, "network.modes=6", "network.width=20", "network.depth=3", "training.batch=16"),
                    fields=4096, count=32, steps=25, options=_FAST, without=_DEAR,
                ),
                "paper": Size(
                    {"points": 64, "times": 21},
                    (*_PUBLISHED_MODEL, "network.modes=8", "network.width=32", "training.batch=32"),
                    fields=8192, count=256, steps=100, without=_DEAR,
                ),
            },
        ),
        Suite(
            name="taylor-green-3d",
            title="three-dimensional vortices from one mode to many: no divergence, no momentum, given energy at each time",
            source="this project; Brachet et al., J. Fluid Mech. 130 (1983) 411",
            problem="taylor-green-3d",
            datum="the kinetic energy of reference i for sample i, at each time",
            laws=suite_laws.velocity,
            kinds=("divergence", "momentum", "energy"),
            options=_VELOCITY,
            extra=("pcfm-consistent@divergence",),
            metrics=(*_ENSEMBLE, "spectrum"),
            sizes={
                "quick": Size(
                    {"points": 10, "times": 3, "duration": 4.0},
                    (*_SMALL, "network.modes=3", "network.width=12", "network.depth=2", "training.batch=8", "training.steps=250"),
                    fields=256, count=8, seeds=2, steps=8, options=_FAST, without=_DEAREST,
                ),
                "cpu": Size(
                    {"points": 12, "times": 4, "duration": 6.0},
                    (*_MIDDLE, "network.modes=4", "network.depth=2", "training.batch=8", "training.steps=800"),
                    fields=512, count=12, steps=10, options=_FAST, without=_DEAREST,
                ),
                "paper": Size(
                    {"points": 32},
                    (*_PUBLISHED_MODEL, "network.modes=8", "network.width=32", "training.batch=16"),
                    fields=4096, count=128, steps=50, batch=16, without=_DEAR,
                ),
            },
        ),
        Suite(
            name="cavity",
            title="flow in a box under a moving lid, from rest, with unknown viscosity: walls and a staggered divergence",
            source="this project; Ghia, Ghia & Shin, J. Comput. Phys. 48 (1982) 387",
            problem="cavity",
            datum="a lid of speed 1; Reynolds numbers are drawn",
            laws=suite_laws.box_flow,
            kinds=("IC", "divergence", "walls"),
            fixed={"lid": (1.0, 1.0)},
            settings={"lid": (0.5, 1.5), "reynolds": (50.0, 500.0)},
            options=_VELOCITY,
            extra=("pcfm-consistent@divergence",),
            metrics=_ENSEMBLE,
            sizes={
                "quick": Size(
                    {"cells": 12, "times": 7, "duration": 6.0},
                    (*_SMALL, "network.modes=5", "training.steps=300"),
                    fields=512, count=10, seeds=2, steps=10, options=_FAST, without=_DEAREST,
                ),
                "cpu": Size(
                    {"cells": 16, "times": 9, "duration": 8.0},
                    (*_MIDDLE, "network.modes=6"),
                    fields=1024, count=16, steps=12, options=_FAST, without=_DEAREST,
                ),
                "paper": Size(
                    {"cells": 64, "times": 21, "duration": 10.0},
                    (*_PUBLISHED_MODEL, "network.modes=12", "network.width=32", "training.batch=16"),
                    fields=4096, count=128, steps=50, batch=16, without=_DEAR,
                ),
            },
        ),
        Suite(
            name="channel",
            title="a disturbed channel flow: walls, a staggered divergence, and the balance of pressure and friction",
            source="this project; Batchelor, An Introduction to Fluid Dynamics (1967) 4.2",
            problem="channel",
            datum="pressure gradient and wall friction of reference i for sample i, between the stored times",
            laws=suite_laws.channel_flow,
            kinds=("divergence", "momentum", "walls"),
            settings={"start": 0.5, "disturbance": 0.2},
            options=_VELOCITY,
            extra=("pcfm-consistent@divergence",),
            metrics=_ENSEMBLE,
            sizes={
                "quick": Size(
                    {"cells": 10, "times": 6, "duration": 5.0},
                    (*_SMALL, "network.modes=5", "training.steps=300"),
                    fields=512, count=10, seeds=2, steps=10, options=_FAST, without=_DEAREST,
                ),
                "cpu": Size(
                    {"cells": 12, "times": 8, "duration": 7.0},
                    (*_MIDDLE, "network.modes=6", "training.steps=1000"),
                    fields=1024, count=16, steps=12, options=_FAST, without=_DEAREST,
                ),
                "paper": Size(
                    {"cells": 48, "times": 33, "duration": 16.0},
                    (*_PUBLISHED_MODEL, "network.modes=12", "network.width=32", "training.batch=16"),
                    fields=4096, count=128, steps=50, batch=16, without=_DEAR,
                ),
            },
        ),
        Suite(
            name="cylinder",
            title="the wake of a cylinder: inflow, sides, a staggered divergence, and no slip on the body",
            source="this project; Taira & Colonius, J. Comput. Phys. 225 (2007) 2118",
            problem="cylinder",
            datum="inflow and body; Reynolds numbers and phases of the shedding are drawn",
            laws=suite_laws.wake,
            kinds=("BC", "divergence", "body"),
            options=_VELOCITY,
            extra=("pcfm-consistent@divergence",),
            metrics=_ENSEMBLE,
            sizes={
                "quick": Size(
                    {**_NEAR_WAKE, "spin_up": 15.0, "times": 2, "duration": 1.5},
                    (*_SMALL, "network.modes=6", "training.batch=8", "training.steps=250"),
                    fields=192, count=8, seeds=2, steps=8, options=_FAST, without=_DEAREST,
                ),
                "cpu": Size(
                    {**_NEAR_WAKE, "spin_up": 25.0, "times": 4, "duration": 4.5},
                    (*_MIDDLE, "network.modes=8", "training.batch=8", "training.steps=800"),
                    fields=512, count=12, steps=10, options=_FAST, without=_DEAREST,
                ),
                "paper": Size(
                    {},
                    (*_PUBLISHED_MODEL, "network.modes=16", "network.width=32", "training.batch=8"),
                    fields=2048, count=128, steps=50, batch=16, without=_DEAR,
                ),
            },
        ),
        Suite(
            name="euler",
            title="two gases on a ring, their shocks and fans: given mass, momentum and energy, no negative density or energy",
            source="this project; Toro, Riemann Solvers (2009)",
            problem="euler-1d",
            datum="mass, momentum and energy of reference i for sample i",
            laws=suite_laws.gas,
            kinds=("mass", "momentum", "energy", "positivity"),
            settings={"case": "riemann", "boundary": "periodic", "density": (0.1, 2.0), "temperature": (0.2, 2.0), "duration": 0.2},
            options=_BOUNDED,
            extra=("pcfm-consistent@mass+momentum+energy",),
            metrics=_ENSEMBLE,
            sizes={
                "quick": Size(_line(32, 12), _SMALL, fields=2048, count=12, seeds=2, steps=10, options=_FAST, without=_CHAIN),
                "cpu": Size(_line(40, 16), (*_MIDDLE, "network.modes=10"), fields=4096, steps=16, options=_FAST, without=_CHAIN),
                "paper": Size(_line(128, 101), _PUBLISHED_MODEL, fields=8192, count=512, steps=100, batch=128, without=_CHAIN),
            },
        ),
        Suite(
            name="sensors",
            title="turbulence from exact velocities at 3 % of the points: no divergence",
            source="this project; sensors as of Huang et al., NeurIPS 2024, arXiv:2406.17763",
            problem="kolmogorov",
            datum="both velocity components of reference i for sample i, at the same 3 % of the points",
            laws=suite_laws.sensors,
            kinds=("divergence", "sensors"),
            fixed={"snapshots": 4, "interval": 8.0},
            shipped="kolmogorov",
            reconstructs=True,
            options=_VELOCITY,
            extra=("pcfm-consistent@sensors",),
            metrics=(*_ENSEMBLE, "spectrum"),
            sizes=_INVERSE,
        ),
        Suite(
            name="particle-images",
            title="turbulence from noisy mean velocities of 8 x 8 interrogation windows: no divergence",
            source="this project; noise as in particle image velocimetry, Raffel et al., Particle Image Velocimetry (2018)",
            problem="kolmogorov",
            datum="mean velocities of reference i over each window for sample i, with noise of 5 % of the root mean square",
            laws=suite_laws.particle_images,
            kinds=("divergence", "windows"),
            fixed={"snapshots": 4, "interval": 8.0},
            shipped="kolmogorov",
            reconstructs=True,
            options=_VELOCITY,
            extra=("pcfm-consistent@windows",),
            metrics=(*_ENSEMBLE, "spectrum"),
            sizes=_INVERSE,
        ),
    )
}  # fmt: skip
"""By name."""
