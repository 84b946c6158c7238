r"""Solvers

Errors of rules with fixed steps on the exact flow to $\mathcal N(0.5, 0.3^2)$ along the cosine path, over network calls; dotted, what
their order promises. Adaptive rules stop at a tolerance: each dot is one, from $10^{-2}$ to $10^{-8}$.
"""

from __future__ import annotations

import math

from benchmarks.gallery.exhibit import Exhibit, Measure, normal, panels, times
from pcfm.methods import SOLVERS, solver_on
from pcfm.path import AffinePath
from pcfm.report.look import mark
from pcfm.samplers import Adaptive
from pcfm.schedule import Cosine
from pcfm.velocity import GaussianFlow


class Counted:
    """A velocity that counts its calls."""

    def __init__(self, flow: GaussianFlow) -> None:
        self.flow, self.calls = flow, 0

    def __call__(self, x: object, t: object) -> object:
        self.calls += 1
        return self.flow(x, t)  # type: ignore[arg-type]


def show(full: bool) -> Exhibit:
    path = AffinePath(Cosine())
    flow, x0 = GaussianFlow(0.5, 0.3, path), normal(200, 1, 1, seed=0)
    figure, (left, right) = panels(2, 1, 4.3, 3.4, sharey=True)
    measures = []
    for i, (name, kind) in enumerate(SOLVERS.items()):
        adaptive = issubclass(kind, Adaptive)
        calls, errors = [], []
        levels = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6) if adaptive else (8, 16, 32, 64, 128) if full else (32, 64)
        for level in levels:
            velocity = Counted(flow)
            rule = kind(velocity, rtol=level, atol=level) if adaptive else solver_on(name, path)(velocity)  # type: ignore[call-arg]
            end = rule(x0, times(1 if adaptive else int(level)))
            calls.append(velocity.calls)
            errors.append(float((end - flow.transport(x0)).abs().max()))
        colour, marker = mark(i)
        panel = right if adaptive else left
        panel.loglog(calls, errors, marker=marker, ms=4, color=colour, label=name if adaptive else f"{name}, order {kind.order}")
        if adaptive:
            measures.append(Measure(kind, "error at a tolerance of 1e-6", errors[-1], 1e-3))
        else:
            assert kind.order is not None
            rate = math.log2(errors[-2] / errors[-1])
            measures.append(Measure(kind, "observed order", rate, 0.25 if kind.order > 2 else 0.15, exact=kind.order))
            left.loglog(calls, [errors[0] * (calls[0] / c) ** kind.order for c in calls], ":", color=colour, lw=0.8)
    left.set(xlabel="network calls", ylabel="largest error", title="fixed steps")
    right.set(xlabel="network calls", title="adaptive")
    left.legend()
    right.legend()
    return Exhibit(figure, measures)
