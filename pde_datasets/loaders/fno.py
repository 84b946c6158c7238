r"""The MATLAB files of Li et al., formats 5 and 7.3 (whose axes appear reversed in HDF5): Burgers, Darcy, Navier-Stokes.

* Burgers, `a` (N, x) at time 0 and `u` (N, x) at time 1, periodic on [0, 1); the set R10 has $\nu = 0.1$.
* Darcy, `coeff` (N, x, y) in {12, 3} and `sol` (N, x, y) of $-\nabla\cdot(a\nabla u) = 1$ on the closed unit square; also what ECI reads,
  which multiplies `sol` by 100 and adds a random constant.
* Navier-Stokes on the unit torus, `a` (N, x, y) the vorticity at time 0, `u` (N, x, y, t), `t` (1, T).

A state at time 0 and those after it are one trajectory here.

Source:
    Li et al., Fourier neural operator for parametric partial differential equations, ICLR 2021.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from constraints import Axis, Grid
from pde_datasets.fields import Fields
from pde_datasets.loaders.coordinates import coordinates
from pde_datasets.loaders.files import shapes_of
from pde_datasets.loaders.mat import lazy_mat, shapes
from pde_datasets.loaders.parts import FIRST, Part, assembled

_SOURCE = "Li et al. 2021"


def recognises(path: Path) -> bool:
    """Whether a MATLAB file has the arrays of one of the three sets."""
    return _kind(shapes(path)) is not None


def _kind(found: dict[str, tuple[int, ...]]) -> str | None:
    a, u, t, coefficient, solution = (found.get(name, ()) for name in ("a", "u", "t", "coeff", "sol"))
    if len(coefficient) == 3 and coefficient == solution:
        return "darcy"
    if len(a) == 2 and a == u and not {"x", "t", "tt"} & set(found):
        return "burgers"
    return "vorticity" if len(a) == 3 and len(u) == 4 and u[:3] == a and t else None


def load(path: Path) -> Fields:
    """The fields of a file; those of format 7.3 stay in it until they are indexed.

    Returns:
        Burgers: `u` on (time, x), two times. Darcy: `coefficient`, `pressure` on (x, y). Navier-Stokes: `vorticity` on (time, x, y).

    Raises:
        ValueError: a truncated file, or arrays that do not fit each other.
    """
    kind = _kind(shapes(path))
    values = lazy_mat(path)
    names = {"burgers": ("a", "u"), "darcy": ("coeff", "sol"), "vorticity": ("a", "u", "t")}.get(kind or "", ("a", "u", "coeff", "sol"))
    if kind is None or not set(names) <= set(values):
        got = shapes_of(values, "no numeric array")
        raise ValueError(f"{path.name}: fno expects numbers a, u of one shape, coeff, sol, or a, u, t; got {got}.")
    about = {"format": "fno", "path": path.name, "source": _SOURCE}
    if kind == "darcy":
        samples, nx, ny = values["sol"].shape
        return Fields(
            u=assembled(path, [Part((name,), (0, 2, 3)) for name in names], (samples, 2, nx, ny), arrays=values),
            grid=Grid(Axis("x", nx, length=1.0), Axis("y", ny, length=1.0)),
            channels=("coefficient", "pressure"),
            attributes=about
            | {
                "equation": "-div(coefficient grad pressure) = 1",
                "notes": "Closed unit square, coordinates not stored. The pressure is 0 on the edges in the equation, but in some files "
                "not in what is stored there, and files with fewer points are subsamples: neither is stated as a law.",
            },
        )
    if kind == "burgers":
        samples, points = values["u"].shape
        parts = [Part(("a", "u"), (0, 3), stack=FIRST)]
        return Fields(
            u=assembled(path, parts, (samples, 1, 2, points), arrays=values),
            grid=Grid(Axis("time", 2, length=1.0), Axis("x", points, length=1.0, periodic=True)),
            channels=("u",),
            attributes=about
            | {
                "equation": "u_t + u u_x = viscosity u_xx",
                "notes": "Periodic on [0, 1), coordinates not stored; times 0 and 1. The viscosity is not stored: R10 in a file's name "
                "means 0.1.",
            },
        )
    times = coordinates(path, "t", np.asarray(values["t"].load()))
    samples, nx, ny, count = values["u"].shape
    if len(times) != count or times[0] <= 0:
        raise ValueError(f"{path.name}: fno expects {count} times t after 0; got {len(times)} from {times[0]:g}.")
    parts = [Part(("a",), (0, 3, 4)), Part(("u",), (0, 3, 4, 2))]
    return Fields(
        u=assembled(path, parts, (samples, 1, count + 1, nx, ny), along=FIRST, arrays=values),
        grid=Grid(
            Axis.at("time", [0.0, *times.tolist()]), Axis("x", nx, length=1.0, periodic=True), Axis("y", ny, length=1.0, periodic=True)
        ),
        channels=("vorticity",),
        laws=("mass:value=0",),
        attributes=about
        | {
            "equation": "w_t + u . grad w = viscosity laplace(w) + 0.1 (sin 2 pi (x + y) + cos 2 pi (x + y))",
            "notes": "Unit torus, coordinates not stored; the initial state a is the first time. The viscosity is not stored: file names "
            "have it. Mean vorticity is 0. DiffusionPDE's files of unbounded flow have the same arrays, with viscosity 1e-3.",
        },
    )
