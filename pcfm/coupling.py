r"""How noise meets data: which $x_0$ is paired with which $x_1$ of a batch.

Straighter paths come from pairs that are close. An exact assignment within the batch permutes $x_0$ alone, so that data, their order and
their conditions stay as they are; plans with entropy or without all the mass draw pairs. None is the optimal transport of the
distributions: in 8 dimensions pairs of an assignment of 128 cost 1.4 times the true distance, and it falls slowly with the batch.

Where the network is given a condition, transport that ignores it makes noise depend on the condition, while samples begin at noise that
does not: the flow is then biased. Such couplings refuse conditions unless told what to do with them.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

EXTRA = "transport"
"""The optional dependency that plans with entropy need."""


class Pairs(NamedTuple):
    """Noise and data, (B, C, *N) each, and the condition of the network, (B, Cc, *N) or None."""

    x0: Tensor
    x1: Tensor
    condition: Tensor | None


class Coupling(ABC):
    """Pairs noise with data.

    Attributes:
        independent: whether noise and data are independent, so that scores follow from velocities.
    """

    independent: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, x0: Tensor, x1: Tensor, condition: Tensor | None, generator: torch.Generator) -> Pairs:
        """Pairs of a batch of noise and a batch of data.

        Raises:
            ValueError: batches of different shapes, or a condition that the coupling would be biased by.
        """


@dataclass(frozen=True)
class Independent(Coupling):
    """Pairs as they come."""

    independent: ClassVar[bool] = True

    def __call__(self, x0: Tensor, x1: Tensor, condition: Tensor | None, generator: torch.Generator) -> Pairs:
        _alike(x0, x1)
        return Pairs(x0, x1, condition)


CONDITIONED = ("refuse", "ignore", "weigh", "equal")
"""What transport does where the network has a condition: raise; ignore it, biased; add a multiple of its squared distance to the cost; pair
within equal conditions only."""


@dataclass(frozen=True)
class OptimalTransport(Coupling):
    r"""The permutation of the noise of a batch that is nearest to its data, exactly.

    It minimises $\sum_i \|x_0^{\pi(i)} - x_1^i\|^2$.

    With conditions: each $x_0$ is first given the condition it came with, that of the $x_1$ in its place, and
    $w\,\|c_{\pi(i)} - c_i\|^2$ joins the cost, w large for pairs that hardly exchange conditions.

    Attributes:
        conditioned: one of `CONDITIONED`.
        weight: w of "weigh", relative to squared distances of fields.

    Raises:
        ValueError: an unknown rule, or a negative weight.

    Source:
        Pooladian et al., Multisample flow matching, ICML 2023; Tong et al., TMLR 2024; with conditions Cheng & Schwing, The curse of
        conditions, ICCV 2025, arXiv:2503.10636.
    """

    conditioned: str = "refuse"
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.conditioned not in CONDITIONED:
            raise ValueError(f"optimal transport expects conditioned among {', '.join(CONDITIONED)}; got '{self.conditioned}'.")
        if not self.weight >= 0:
            raise ValueError(f"optimal transport expects a weight that is not negative; got {self.weight}.")

    def __call__(self, x0: Tensor, x1: Tensor, condition: Tensor | None, generator: torch.Generator) -> Pairs:
        _alike(x0, x1)
        cost = squared_distances(x0, x1)
        if condition is not None:
            _conditions("coupling 'optimal-transport'", self.conditioned, CONDITIONED[1:])
            if self.conditioned == "weigh":
                cost = cost + self.weight * squared_distances(condition, condition)
            elif self.conditioned == "equal":
                _, group = torch.unique(condition.flatten(1), dim=0, return_inverse=True)
                cost = cost + torch.where(group[:, None] == group[None, :], 0.0, 2 * len(x0) * (float(cost.max()) + 1.0))
        return Pairs(x0[assignment(cost)], x1, condition)


@dataclass(frozen=True)
class EntropicTransport(Coupling):
    r"""Pairs drawn from the transport plan with entropy.

    It minimises $\langle P, C\rangle + \varepsilon\,\mathrm{KL}(P)$, C squared distances.

    Each $x_1$ keeps its place and is given an $x_0$ drawn from its column of the plan.

    Attributes:
        regularisation: epsilon.
        conditioned: "refuse" or "ignore" a condition of the network.

    Raises:
        ValueError: a regularisation that is not positive, or an unknown rule.

    Source:
        Cuturi, Sinkhorn distances, NeurIPS 2013; plans by POT, Flamary et al., JMLR 22 (2021) 78.
    """

    remedy: ClassVar[str] = "Raise coupling.regularisation."

    regularisation: float = 1.0
    conditioned: str = "refuse"

    def __post_init__(self) -> None:
        _check_plan("entropic transport", self.conditioned, regularisation=self.regularisation)

    def plan(self, x0: Tensor, x1: Tensor) -> Tensor:
        """The plan, (n, m), of total mass 1, rows for x0."""
        options = {"method": "sinkhorn_log", "numItermax": 2_000, "stopThr": 1e-6}
        return _solved("sinkhorn", x0, x1, self.remedy, reg=self.regularisation, **options)

    def __call__(self, x0: Tensor, x1: Tensor, condition: Tensor | None, generator: torch.Generator) -> Pairs:
        _alike(x0, x1)
        if condition is not None:
            _conditions("an entropic coupling", self.conditioned, ("ignore",))
        column = self.plan(x0, x1).T
        chosen = torch.multinomial(column / column.sum(1, keepdim=True), 1, generator=generator)[:, 0]
        return Pairs(x0[chosen.to(x0.device)], x1, condition)


@dataclass(frozen=True)
class UnbalancedTransport(Coupling):
    r"""Pairs drawn from a transport plan that may leave mass out.

    It minimises $\langle P, C\rangle + \varepsilon\,\mathrm{KL}(P) + \rho\,(\mathrm{KL}$ of both
    marginals$)$.

    Data far from all noise are drawn less often: robust to outliers, and biased by design. Conditions follow their data.

    Attributes:
        regularisation: epsilon.
        marginals: rho.
        conditioned: "refuse" or "ignore" a condition of the network.

    Raises:
        ValueError: a weight that is not positive, or an unknown rule.

    Source:
        Chizat et al., Mathematics of Computation 87 (2018) 2563; in flows Eyring et al., ICLR 2024; plans by POT.
    """

    regularisation: float = 1.0
    marginals: float = 1.0
    conditioned: str = "refuse"

    def __post_init__(self) -> None:
        _check_plan("unbalanced transport", self.conditioned, regularisation=self.regularisation, marginals=self.marginals)

    def plan(self, x0: Tensor, x1: Tensor) -> Tensor:
        """The plan, (n, m), rows for x0."""
        options = {"reg_m": self.marginals, "method": "sinkhorn_stabilized", "numItermax": 10_000}
        return _solved("sinkhorn_unbalanced", x0, x1, EntropicTransport.remedy, reg=self.regularisation, **options)

    def __call__(self, x0: Tensor, x1: Tensor, condition: Tensor | None, generator: torch.Generator) -> Pairs:
        _alike(x0, x1)
        if condition is not None:
            _conditions("an unbalanced coupling", self.conditioned, ("ignore",))
        plan = self.plan(x0, x1).flatten()
        if not plan.sum() > 0:
            raise ValueError(
                "an unbalanced coupling expects a plan with mass; all of it is left out. Raise coupling.marginals or "
                "coupling.regularisation to the size of squared distances."
            )
        chosen = torch.multinomial(plan, len(x1), replacement=True, generator=generator)
        row, column = (chosen // len(x1)).to(x0.device), (chosen % len(x1)).to(x1.device)
        return Pairs(x0[row], x1[column], None if condition is None else condition[column])


class _PlanOfBridge(EntropicTransport):
    """Of regularisation 2 sigma^2, which its settings name by sigma."""

    remedy: ClassVar[str] = "Raise coupling.noise, of which it is twice the square, or set coupling.exact=true."


@dataclass(frozen=True)
class SchroedingerBridge(Coupling):
    r"""The entropic coupling of the Schrödinger bridge between noise and data, for Brownian motion of a given noise.

    Its plan has $\varepsilon = 2\sigma^2$; between the ends goes a `BridgePath` of the same noise.

    Attributes:
        noise: sigma.
        exact: an exact assignment in place of the plan: a heuristic that straightens paths at small batches, no longer the bridge.
        conditioned: "refuse" or "ignore" a condition of the network.

    Raises:
        ValueError: a noise that is not positive, or an unknown rule.

    Source:
        Tong et al., Simulation-free Schrödinger bridges via score and flow matching, AISTATS 2024.
    """

    noise: float = 1.0
    exact: bool = False
    conditioned: str = "refuse"

    def __post_init__(self) -> None:
        _check_plan("a Schrödinger bridge", self.conditioned, noise=self.noise)

    def __call__(self, x0: Tensor, x1: Tensor, condition: Tensor | None, generator: torch.Generator) -> Pairs:
        transport = OptimalTransport(self.conditioned) if self.exact else _PlanOfBridge(2 * self.noise**2, self.conditioned)
        return transport(x0, x1, condition, generator)


@dataclass(frozen=True)
class Rectified(Coupling):
    """Pairs that a flow has made: noise and where it was taken. Batches are drawn from them; the noise and data that come are not used.

    Attributes:
        pairs: noise, fields and conditions, (n, ...) each.

    Source:
        Liu, Gong & Liu, Flow straight and fast, ICLR 2023.
    """

    pairs: Pairs

    def __post_init__(self) -> None:
        _alike(self.pairs.x0, self.pairs.x1)

    def __call__(self, x0: Tensor, x1: Tensor, condition: Tensor | None, generator: torch.Generator) -> Pairs:
        chosen = torch.randint(len(self.pairs.x0), (len(x1),), generator=generator)
        given = self.pairs.condition
        if (given is None) != (condition is None):
            raise ValueError("a rectified coupling expects pairs with a condition where the network is given one, and without where not.")
        return Pairs(self.pairs.x0[chosen].to(x0), self.pairs.x1[chosen].to(x1), None if given is None else given[chosen].to(x1))


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Squared distances of fields, (n, m), float64."""
    a, b = a.flatten(1).double(), b.flatten(1).double()
    return (a.square().sum(1)[:, None] + b.square().sum(1)[None, :] - 2 * a @ b.T).clamp_min(0)


def assignment(cost: Tensor) -> Tensor:
    """For each column the row it is assigned, (n,), at the least total cost."""
    from scipy.optimize import linear_sum_assignment

    columns, rows = linear_sum_assignment(cost.T.cpu().numpy())
    order = torch.empty(len(rows), dtype=torch.long)
    order[torch.from_numpy(columns)] = torch.from_numpy(rows)
    return order.to(cost.device)


def _solved(solver: str, x0: Tensor, x1: Tensor, remedy: str, *, reg: float, **options: object) -> Tensor:
    """A plan between equal weights by POT, on the CPU.

    Raises:
        ValueError: no POT, or no plan found; the remedy says what helps.
    """
    try:
        import ot
    except ImportError as error:
        raise ValueError(
            f"plans of entropic and unbalanced transport expect the package POT. Install it: pip install 'pcfm[{EXTRA}]'."
        ) from error
    cost = squared_distances(x0, x1).cpu().numpy()
    n, m = cost.shape
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        plan: Tensor = torch.from_numpy(getattr(ot, solver)([1 / n] * n, [1 / m] * m, cost, reg, **options))
    if told or not bool(torch.isfinite(plan).all()):
        raise ValueError(
            f"plans of entropic and unbalanced transport expect a regularisation of the size of squared distances, up to {cost.max():.3g}; "
            f"with {reg:.3g} POT {'has not converged' if told else 'gives a plan that is not finite'}. {remedy}"
        )
    return plan


def _alike(x0: Tensor, x1: Tensor) -> None:
    if x0.shape != x1.shape:
        raise ValueError(f"a coupling expects as much noise as data, of one shape; got {tuple(x0.shape)} and {tuple(x1.shape)}.")


def _conditions(what: str, rule: str, others: tuple[str, ...]) -> None:
    if rule == "refuse":
        raise ValueError(
            f"{what} that ignores the condition of the network is biased: noise would depend on the condition in training, and does not in "
            f"sampling. Set coupling.conditioned to one of {', '.join(others)}, or use coupling.kind=independent."
        )


def _check_plan(what: str, conditioned: str, **weights: float) -> None:
    for name, value in weights.items():
        if not value > 0:
            raise ValueError(f"{what} expects a positive {name}; got {value}.")
    if conditioned not in CONDITIONED[:2]:
        raise ValueError(f"{what} expects conditioned among {', '.join(CONDITIONED[:2])}; got '{conditioned}'.")
