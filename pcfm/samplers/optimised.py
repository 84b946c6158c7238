r"""D-Flow: search for the noise whose field obeys, $\min_{x_0} J(\psi(x_0)) + \lambda R(x_0)$, through the solver $\psi$."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from constraints import Constraint
from pcfm.guard import NOBODY, Watch
from pcfm.path import Path, broadcast
from pcfm.samplers.guided import energy_of
from pcfm.samplers.minimise import Minimum, minimise
from pcfm.samplers.sampler import Projector, Sample, Sampler, ended
from pcfm.samplers.transport import Transport

REGULARISERS = ("ridge", "radial")
r"""$\|x_0\|^2/2$; minus the logarithm of the density of $\|x_0\|$ for d standard normals, $\|x_0\|^2/2 - (d - 1)\log\|x_0\|$."""


@dataclass(frozen=True)
class DFlow(Sampler):
    """Noise optimised through the flow until the field obeys, by L-BFGS, then the nearest lawful field.

    A search for a mode, not a sampler of a distribution: for a Gaussian flow under linear laws and `regularisation` it ends on the ridge
    solution, whatever noise it began with; without, it ends on the field of the nearest noise. An evaluation costs 2N - 1 forward and N
    reverse steps for N up to 32, N forward steps more up to 1024. The reverse pass holds the graph of one step at a time.

    Attributes:
        base: the solver; its steps are what is differentiated.
        constraint: the law, on normalised fields.
        projector: counts the projections.
        iterations: of L-BFGS.
        history: pairs that L-BFGS keeps.
        regularisation: lambda.
        regulariser: R, one of `REGULARISERS`; both mean white noise.
        blend: a of the first noise, sqrt(a) times that of the lawful field nearest to zero, by the solver in reverse, plus sqrt(1 - a)
            times a draw.
        energy: "residual", half the squared residual in its own unit, or "distance", half the squared distance to the nearest lawful field.
        strength: of the energy of exact laws; noisy ones have their likelihood's.
        final: whether a projection on the exact laws follows.
        path: the flow's path, where it scales the noise.

    Raises:
        ValueError: an option out of its range.

    Source:
        Ben-Hamu et al., D-Flow, ICML 2024, arXiv:2402.14017; 20 iterations and no regularisation as in the comparisons of ECI and PCFM.
        Deviations: each sample has its own curvature and line search, where the usual optimiser takes a batch for one vector; lambda R is
            added
        with the sign that draws noise to its typical norm.
    """

    lawful: ClassVar[bool] = True
    reference: ClassVar[str] = "Ben-Hamu et al., ICML 2024, arXiv:2402.14017"

    base: Sampler
    constraint: Constraint
    projector: Projector = field(default_factory=Projector)
    iterations: int = 20
    history: int = 20
    regularisation: float = 0.0
    regulariser: str = "ridge"
    blend: float = 0.0
    energy: str = "residual"
    strength: float = 1.0
    final: bool = True
    path: Path | None = None

    def __post_init__(self) -> None:
        if self.iterations < 0 or self.history < 1 or not self.regularisation >= 0 or not 0 <= self.blend <= 1:
            raise ValueError(
                "D-Flow expects iterations and regularisation not to be negative, a history of at least 1 and a blend in [0, 1]; got "
                f"{self.iterations}, {self.regularisation}, {self.history}, {self.blend}."
            )
        if self.regulariser not in REGULARISERS:
            raise ValueError(f"D-Flow expects a regulariser among {', '.join(REGULARISERS)}; got '{self.regulariser}'.")
        energy_of(self.constraint, self.energy, self.strength, self.projector)

    def idle(self) -> dict[str, str]:
        return {} if self.regularisation else {"regulariser": "regularisation=0"}

    def step(self, x: Tensor, t: Tensor, s: Tensor, x0: Tensor) -> Tensor:
        return self.base.step(x, t, s, x0)

    def last(self, x: Tensor, t: Tensor, s: Tensor, x0: Tensor) -> Sample:
        return ended(self.projector, self.constraint, self.base.step(x, t, s, x0), self.final)

    def sample(self, x0: Tensor, times: Tensor, watch: Watch = NOBODY) -> Sample:
        """The field of the best noise found, searched from x0."""
        return super().sample(self.optimise(x0, times, watch).x, times, watch)

    def iterate(self, x0: Tensor, times: Tensor) -> Iterator[Tensor]:
        """Every state of the flow from the best noise found."""
        return super().iterate(self.optimise(x0, times).x, times)

    def optimise(self, x0: Tensor, times: Tensor, watch: Watch = NOBODY) -> Minimum:
        """The best noise found; the search is nearly all of the work."""
        transport = Transport(self.base, times, self.first)
        energy = energy_of(self.constraint, self.energy, self.strength, self.projector)
        if self.blend:
            lawful = self.projector(self.constraint, torch.zeros_like(x0)).u
            x0 = math.sqrt(self.blend) * transport.back(lawful) + math.sqrt(1 - self.blend) * x0

        def objective(x: Tensor) -> tuple[Tensor, Tensor]:
            value, gradient, _ = transport.evaluate(x, energy)
            price, slope = self._price(x)
            return value + price, gradient + slope

        return minimise(objective, x0, iterations=self.iterations, history=self.history, told=watch.done)

    def _price(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """lambda R(x) and its gradient."""
        square = x.square().flatten(1).sum(1)
        if self.regulariser == "ridge":
            return self.regularisation * square / 2, self.regularisation * x
        size = x[0].numel() - 1
        price = self.regularisation * (square - size * square.log()) / 2
        return price, self.regularisation * (x - size * x / broadcast(square, x))
