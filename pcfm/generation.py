"""Drawing samples from a flow, in batches, lawful ones if a law is given."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from constraints import Constraint, project, rescaled
from constraints.projection import TOLERANCE
from pcfm.flow import Flow
from pcfm.guard import Guard, size
from pcfm.methods import METHODS, Setting, build, carrier, parse, time_grid, usual_steps
from pcfm.path import broadcast
from pcfm.samplers import Sampler
from pcfm.velocity import GuardedVelocity


@dataclass
class Samples:
    """Generated fields and what is certified of them.

    Attributes:
        u: physical fields, (N, C, *N).
        certificate: one row a sample. With a law: `violation` (N, laws), largest absolute residual of each in its own unit;
            `violation_before`, the same before the last projection; `stationarity`; `distance`, RMS move of the last projection in
            normalised units; `multiplier_norm`, `iterations`, `converged`.
        laws: name, unit and largest violation of each law, and the tolerance it was held to.
        network_calls: evaluations of the network, each of one batch.
        backward_calls: reverse passes of the network, each of one batch.
        noise_draws: draws of fresh noise on the way from noise to fields, each of one batch.
        projections: projections, each of one batch.
        multiplier_solves: solves for multipliers within them, each of one batch.
        seconds: wall time.
        failed: samples at which the network gave NaN or Inf, or that left the range of data (`pcfm.guard`), (N,); their fields are NaN,
            the others are what they would be without them.
        causes: why each of those failed, by its number.
    """

    u: Tensor
    certificate: dict[str, Tensor] = field(default_factory=dict)
    laws: list[dict[str, float | str]] = field(default_factory=list)
    network_calls: int = 0
    backward_calls: int = 0
    noise_draws: int = 0
    projections: int = 0
    multiplier_solves: int = 0
    seconds: float = 0.0
    failed: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.bool))
    causes: dict[int, str] = field(default_factory=dict)

    @property
    def converged(self) -> Tensor:
        """Which samples obey all laws within tolerance, (N,); all that did not fail, where there is no law."""
        return self.certificate.get("converged", ~self.failed)


def certify(law: Constraint, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of physical fields: the largest absolute residual (N, laws), what it is allowed to be (N, laws), and whether all laws hold (N,).

    Each row has a tolerance of its own: the one given is that of the largest residual, or, where a law does not hold, that of the row which
    exceeds its own most.
    """
    violations, tolerances, held = [], [], []
    exact = u.to(torch.float64)  # what is judged is the field, not the rounding of its judgement
    for leaf in law.leaves():
        residual, scale = leaf.measure(exact)
        allowed = TOLERANCE[u.dtype] * scale.expand_as(residual)
        broken = leaf.excess(residual)
        shares = _shares(broken, allowed)
        row = torch.where(shares.amax(1) > 1, shares.argmax(1), broken.argmax(1))
        violations.append(broken.amax(1))
        tolerances.append(allowed.gather(1, row[:, None])[:, 0])
        if leaf.variance is None:  # what is observed with noise need not be met
            held.append((broken <= allowed).all(1))
    every = torch.ones(len(u), dtype=torch.bool, device=u.device)
    return torch.stack(violations, 1), torch.stack(tolerances, 1), torch.stack([every, *held]).all(0)


def law_rows(law: Constraint, certificate: Mapping[str, Tensor], tolerances: Tensor) -> list[dict[str, float | str]]:
    """Each law with its largest violation before and after the last projection, the tolerance of the sample that has the latter, and the
    largest share that a violation is of the tolerance of its own sample: a law holds up to 1."""
    violation = certificate["violation"]
    before, after = certificate["violation_before"].amax(0).tolist(), violation.amax(0).tolist()
    allowed = tolerances.gather(0, violation.argmax(0)[None])[0].tolist()
    shares = _shares(violation, tolerances).amax(0).tolist()
    return [
        {
            "name": leaf.name,
            "unit": leaf.unit,
            "violation_before": before[i],
            "violation_after": after[i],
            "tolerance": allowed[i],
            "share": shares[i],
        }
        for i, leaf in enumerate(law.leaves())
    ]


def _shares(violation: Tensor, tolerance: Tensor) -> Tensor:
    """What violations are of their tolerances; none is none, of whatever."""
    return torch.where(violation == 0, 0.0, violation / tolerance)


@torch.no_grad()
def sample(
    flow: Flow,
    count: int,
    *,
    law: Constraint | None = None,
    method: str | None = None,
    steps: int | None = None,
    solver: str | None = None,
    spacing: str = "uniform",
    seed: int = 0,
    start: int = 0,
    condition: Tensor | None = None,
    batch: int = 32,
    dtype: torch.dtype = torch.float64,
    progress: Callable[[int], None] = lambda done: None,
    within: Callable[[float], None] = lambda share: None,
) -> Samples:
    """Draw samples.

    The network runs in its own type and device; states and projections are in `dtype`. Sample i of a seed is the same whatever is drawn
    with it, up to rounding.

    Arguments:
        flow: what to sample.
        count: number of samples.
        law: a law on physical fields, with per-sample targets if they differ: (count, ...).
        method: one of `METHODS`, with options as NAME:key=value,key=value; "pcfm-consistent" with a law and "unconstrained" without
            by default.
        steps: flow steps; 50 by default, of a flow map the fewest that it has learnt.
        solver: one of `pcfm.methods.SOLVERS`, for methods that integrate the flow itself; Euler's rule by default, the jumps of a flow map.
        spacing: of the flow times of the steps, one of `pcfm.samplers.times.TIMES`, with options as NAME:key=value,key=value.
        seed: of the noise.
        start: index of the first sample.
        condition: the network's condition for each sample, (count, Cc, *N).
        batch: samples at a time.
        dtype: float32 or float64.
        progress: called with the number of samples done after each batch.
        within: called with the share of a batch that is done, after each step of a trajectory or of a search.

    Raises:
        ValueError: an unknown method or solver, one that would change nothing, a law without a method for it or the reverse, a law
            that does not fit the fields, or jumps or a velocity that a flow map has not learnt.
    """
    method = method or ("unconstrained" if law is None else "pcfm-consistent")
    chosen = METHODS[parse(method)[0]]
    if chosen.lawful and law is None:
        raise ValueError(f"method '{method}' expects a law. Give one, or use method 'unconstrained'.")
    if not chosen.lawful and law is not None:
        raise ValueError(
            f"method '{method}' takes no law. Use 'pcfm-consistent' or another that does (pcfm list methods), or drop the law."
        )
    steps = usual_steps(flow, method, solver) if steps is None else steps
    if steps < 1 or count < 1:
        raise ValueError(f"sampling expects at least one step and one sample; got {steps} and {count}.")
    for leaf in [] if law is None else law.leaves():
        if leaf.samples not in (1, count):
            raise ValueError(f"law '{leaf.name}' has targets for {leaf.samples} samples; {count} are asked for.")
    carried = carrier(flow, method, solver)
    times = time_grid(spacing, steps, dtype)
    result = Samples(torch.empty(0))
    parts: list[Tensor] = []
    rows: list[dict[str, Tensor]] = []
    tolerances: list[Tensor] = []
    lost: list[Tensor] = []
    began = time.perf_counter()
    for first in range(0, count, batch):
        here = slice(first, min(first + batch, count))
        streams = [_generator(seed, start + i) for i in range(here.start, here.stop)]
        x0 = flow.source.sample(streams, dtype)
        given = None if condition is None else condition[here]
        network, alone = flow.given(given), carried(flow.given(given))[0]
        local = None if law is None else law.take(here)
        normalised = None if local is None else rescaled(local, flow.units)
        guard = Guard(x0, flow.path, steps, partial(_reach, flow, alone, normalised, x0, times), within)
        velocity = GuardedVelocity(network, guard)
        noise, white = Counted(partial(flow.source.sample, streams, dtype)), Counted(partial(_normals, streams, dtype))
        sampler = build(method, Setting(*carried(velocity), flow.path, normalised, noise, flow.source, white))
        if sampler.scores() and not flow.independent:
            raise ValueError(
                f"method '{method}' takes scores from velocities, and expects a model trained on noise independent of the data; the "
                "coupling of this one makes them depend on each other. Use a method that integrates the flow, or coupling.kind=independent."
            )
        if solver not in (None, "euler") and "solver" in (idle := sampler.idle()):
            raise ValueError(f"solver '{solver}' changes nothing in method '{method}': {idle['solver']}. Leave it out.")
        x, before, projection = sampler.sample(x0, times, guard)
        for end in (x,) if before is None else (before, x):
            guard.judge(end, f"step {steps} of {steps}")
        u = flow.units.physical(x)
        failed = guard.failed.to(u.device)
        result.causes |= {first + i: cause for i, cause in guard.causes.items()}
        lost.append(guard.failed)
        result.noise_draws += noise.calls + white.calls
        result.network_calls += velocity.calls
        result.backward_calls += velocity.backward_calls
        if local is not None and before is not None and projection is not None:
            violation, tolerance, held = certify(local, u)
            tolerances.append(tolerance)
            if sampler.projector is not None:
                result.projections += sampler.projector.projections
                result.multiplier_solves += sampler.projector.solves
            rows.append(
                {
                    "violation": violation,
                    "violation_before": certify(local, flow.units.physical(before))[0],
                    "stationarity": projection.stationarity,
                    "distance": (x - before).square().flatten(1).mean(1).sqrt(),
                    "multiplier_norm": projection.multiplier.norm(dim=1),
                    "iterations": torch.full((len(u),), projection.iterations),
                    "converged": projection.converged & held & ~failed,
                }
            )
        parts.append(u.masked_fill(broadcast(failed, u), torch.nan))
        progress(here.stop)
    result.u, result.failed = torch.cat(parts), torch.cat(lost)
    result.seconds = time.perf_counter() - began
    if law is not None:
        result.certificate = {key: torch.cat([row[key] for row in rows]) for key in rows[0]}
        if not result.failed.all():
            sound = {key: rows[~result.failed] for key, rows in result.certificate.items()}
            result.laws = law_rows(law, sound, torch.cat(tolerances)[~result.failed])
    return result


def _reach(flow: Flow, alone: Sampler, law: Constraint | None, x0: Tensor, times: Tensor) -> Tensor:
    """How large fields may be beside their noise, root mean square of each, (B,): what the law asks for, and where units do not say how
    large data are, what the flow alone makes of most samples, so that one that diverges does not set its own bound."""
    reach = torch.zeros(len(x0), dtype=x0.dtype, device=x0.device)
    if law is not None:
        asked = project(law, x0)
        reach = torch.where(asked.converged, size(asked.u), reach)
    if not (flow.units.shift.any() or (flow.units.scale != 1).any()):
        free = size(alone(flow.path.start(x0), times))
        usual = torch.where(torch.isfinite(free), free, torch.inf).median()
        reach = torch.maximum(reach, torch.where(torch.isfinite(usual), usual, 0.0))
    return reach


class Counted:
    """A function with a count of its calls."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self.function, self.calls = function, 0

    def __call__(self, *arguments: Any) -> Tensor:
        self.calls += 1
        return self.function(*arguments)


def _normals(streams: Sequence[torch.Generator], dtype: torch.dtype, shape: Sequence[int]) -> Tensor:
    """Independent standard normals, (B, *shape), each sample's from its own stream."""
    return torch.stack([torch.randn(*shape, generator=stream, dtype=torch.float64) for stream in streams]).to(dtype)


def _generator(seed: int, index: int) -> torch.Generator:
    """The generator of one sample's noise: another stream for each seed and index."""
    return torch.Generator().manual_seed((seed * 0x9E3779B97F4A7C15 + index * 0xD1B54A32D192ED03 + 1) % 2**63)
