"""Small, fast instances of every problem, and another value of each of their settings, for the tests that all problems pass."""

from __future__ import annotations

from pde_datasets import Problem
from pde_datasets.problems import Burgers, Heat, Kolmogorov, TaylorGreen

EXAMPLES: dict[str, Problem] = {
    "heat": Heat(points=20, times=9),
    "burgers": Burgers(points=32, times=5, steps=8),
    "kolmogorov": Kolmogorov(points=32, viscosity=0.05, spin_up=0.5, interval=0.25, snapshots=2),
    "taylor-green": TaylorGreen(points=12, times=5),
}
"""One instance a problem, drawn in well under a second."""

CHANGES: dict[str, dict[str, object]] = {
    "heat": {"points": 21, "times": 10, "diffusivity": (2.0, 3.0), "phase": (0.5, 1.0)},
    "burgers": {"points": 48, "times": 6, "viscosity": 0.02, "steps": 4, "mean": 0.5},
    "kolmogorov": {
        "points": 30, "viscosity": 0.06, "drag": 0.2, "force": 1.1, "mode": 3, "dt": 0.05, "spin_up": 0.75, "interval": 0.5, "snapshots": 1,
    },
    "taylor-green": {"points": 14, "times": 6, "mode": 2, "viscosity": (0.1, 0.2), "amplitude": (2.0, 3.0)},
}  # fmt: skip
"""Another value of every setting: with it the fields differ."""

TOLERANCES: dict[str, float] = {}
"""Residual of the laws as a fraction of their scale, where it is not the round-off of 1e-12; each with its reason."""
