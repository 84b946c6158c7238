"""Small, fast instances of every problem, and another value of each of their settings, for the tests that all problems pass."""

from __future__ import annotations

from pde_datasets import Problem
from pde_datasets.problems import (
    Advection,
    AllenCahn,
    Burgers,
    Cavity,
    Channel,
    Cylinder,
    Darcy,
    DecayingTurbulence,
    Euler1D,
    Euler2D,
    GrayScott,
    Heat,
    Helmholtz,
    InviscidBurgers,
    IsotropicTurbulence,
    Kolmogorov,
    KortewegDeVries,
    KuramotoSivashinsky,
    NavierStokes,
    Poisson,
    PorousMedium,
    ReactionDiffusion,
    Schroedinger,
    ShallowWater1D,
    ShallowWater2D,
    Stefan,
    StokesSecond,
    TaylorGreen,
    TaylorGreen3D,
    Wave,
)

EXAMPLES: dict[str, Problem] = {
    "heat": Heat(points=20, times=9),
    "burgers": Burgers(points=32, times=5, steps=8),
    "kolmogorov": Kolmogorov(points=32, viscosity=0.05, spin_up=0.5, interval=0.25, snapshots=2),
    "taylor-green": TaylorGreen(points=12, times=5),
    "reaction-diffusion": ReactionDiffusion(points=20, times=9),
    "inviscid-burgers": InviscidBurgers(points=21, times=41),
    "stokes-second": StokesSecond(points=20, times=9),
    "porous-medium": PorousMedium(points=20, times=9),
    "stefan": Stefan(points=20, times=9),
    "darcy": Darcy(points=16),
    "poisson": Poisson(points=17),
    "helmholtz": Helmholtz(points=17, wavenumber=6.0),
    "cavity": Cavity(cells=10, reynolds=(10.0, 40.0), lid=(0.8, 1.2), times=4, duration=0.6),
    "channel": Channel(cells=8, reynolds=(20.0, 40.0), times=4, duration=0.6),
    "cylinder": Cylinder(resolution=8, upstream=2.0, downstream=3.0, side=2.0, wake=1.0, growth=1.3, spin_up=0.2, times=3, duration=0.4),
    "advection": Advection(points=32, times=9),
    "wave": Wave(points=24, times=7),
    "kdv": KortewegDeVries(points=48, times=4, interval=0.25, steps=4, length=48.0),
    "kuramoto-sivashinsky": KuramotoSivashinsky(points=32, times=5, steps=10, skip=10, length=22.0),
    "schroedinger": Schroedinger(points=64, times=5, duration=0.5, steps=2),
    "allen-cahn": AllenCahn(points=48, times=5, duration=0.5, steps=5),
    "gray-scott": GrayScott(points=32, times=3, interval=5.0, steps=5, length=0.5),
    "euler-1d": Euler1D(points=24, times=4),
    "euler-2d": Euler2D(points=12, times=3, duration=0.05),
    "shallow-water-1d": ShallowWater1D(points=24, times=4),
    "shallow-water-2d": ShallowWater2D(points=12, times=3, length=2.0, duration=0.8),
    "navier-stokes": NavierStokes(points=24, times=4, duration=1.5),
    "decaying-turbulence": DecayingTurbulence(points=24, times=4, duration=0.3, viscosity=5e-3),
    "taylor-green-3d": TaylorGreen3D(points=12, times=3, duration=1.0),
    "isotropic-turbulence": IsotropicTurbulence(points=12, spin_up=0.5, interval=0.5, snapshots=2),
}
"""One instance a problem, drawn in well under a second."""

CHANGES: dict[str, dict[str, object]] = {
    "heat": {"points": 21, "times": 10, "diffusivity": (2.0, 3.0), "phase": (0.5, 1.0), "boundary": "neumann", "modes": 3},
    "burgers": {
        "points": 48, "times": 6, "viscosity": 0.02, "steps": 6, "tolerance": 1e-6, "mean": 0.5, "gamma": 2.5, "tau": 7.0, "sigma": 49.0,
        "length": 2.0,
        "duration": 0.5, "initial": "sine",
    },
    "kolmogorov": {
        "points": 30, "viscosity": 0.06, "drag": 0.2, "force": 1.1, "mode": 3, "dt": 0.05, "spin_up": 0.75, "interval": 0.5, "snapshots": 1,
        "reynolds": (20.0, 30.0),
    },
    "taylor-green": {"points": 14, "times": 6, "mode": 2, "viscosity": (0.1, 0.2), "amplitude": (2.0, 3.0)},
    "reaction-diffusion": {
        "points": 24, "times": 10, "interval": 0.02, "steps": 2, "boundary": "periodic", "diffusivity": (0.01, 0.02),
        "reaction": (0.5, 1.0), "left": (0.1, 0.2), "right": (-0.3, -0.2), "waves": 5,
        "initial_seed": 3,
    },
    "inviscid-burgers": {"points": 19, "times": 43, "width": 0.05, "front": (0.4, 0.5), "inflow": (0.3, 0.6), "order": 2},
    "stokes-second": {
        "points": 21, "times": 10, "amplitude": 1.5, "drawn": "viscosity", "spread": (3.0, 4.0), "frequency": (1.0, 2.0),
    },
    "porous-medium": {"points": 21, "times": 10, "exponent": (2.0, 3.0)},
    "stefan": {"points": 21, "times": 10, "duration": 0.2, "conductivity": (0.5, 0.9), "threshold": (0.2, 0.4)},
    "darcy": {
        "points": 17, "cells": False, "coefficient": "bumps", "shape": (2.5, 5.0), "values": (1.0, 3.0), "drive": "corners",
        "strength": 2.0,
    },
    "poisson": {"points": 18, "alpha": 2.5, "tau": 5.0},
    "helmholtz": {"points": 18, "wavenumber": 3.0, "alpha": 2.5, "tau": 5.0},
    "cavity": {
        "cells": 11, "reynolds": (20.0, 60.0), "lid": (0.5, 0.7), "times": 5, "duration": 0.9, "courant": 0.4,
    },
    "channel": {
        "cells": 9, "length": 1.5, "reynolds": (10.0, 30.0), "speed": (0.5, 0.7), "start": 0.5, "disturbance": 0.3, "modes": 2,
        "times": 5, "duration": 0.9, "courant": 0.4,
    },
    "cylinder": {
        "resolution": 9, "upstream": 2.5, "downstream": 3.5, "side": 2.5, "wake": 1.5, "growth": 1.2, "reynolds": (20.0, 40.0),
        "disturbance": 0.3, "spin_up": 0.3, "times": 4, "duration": 0.6, "courant": 0.4,
    },
    "advection": {"points": 30, "times": 10, "duration": 1.0, "speed": (4.0, 5.0), "waves": 3, "modes": 5},
    "wave": {
        "dimension": 2, "points": 22, "times": 8, "duration": 0.5, "speed": 2.0, "smoothness": 3.0, "scale": 2.0, "motion": 0.0,
    },
    "kdv": {
        "points": 54, "times": 5, "interval": 0.5, "steps": 3, "tolerance": 1e-10, "skip": 2, "length": 64.0, "origin": 1.0, "nonlinearity":
        2.0,
        "dispersion": 0.5, "initial": "cosine",
    },
    "kuramoto-sivashinsky": {
        "points": 36, "times": 6, "interval": 0.25, "steps": 2, "tolerance": 1e-8, "skip": 12, "length": 24.0, "origin": 1.0, "viscosity":
        (0.5, 1.5),
        "initial": "kassam-trefethen",
    },
    "schroedinger": {
        "points": 60, "times": 6, "duration": 1.0, "steps": 6, "tolerance": 1e-10, "length": 24.0, "nonlinearity": -1.0, "disturbance": 0.4,
        "initial": "sech",
    },
    "allen-cahn": {
        "dimension": 2, "points": 40, "times": 6, "duration": 1.0, "steps": 2, "tolerance": 1e-8, "diffusion": 4e-3, "reaction": 3.0,
        "amplitude": 0.6,
        "scale": 3.0, "initial": "raissi",
    },
    "gray-scott": {
        "points": 36, "times": 4, "interval": 6.0, "steps": 2, "length": 0.6, "diffusion_a": 4e-5, "diffusion_b": 2e-5, "feed": 0.04,
        "kill": 0.06, "initial": "fourier",
    },
    "euler-1d": {
        "points": 25, "times": 5, "duration": 0.05, "length": 2.0, "boundary": "walls", "limiter": "van-leer", "integrator": "ssp-rk2",
        "cfl": 0.3, "case": "rand", "gamma": (1.3, 1.6), "density": (1.0, 2.0), "temperature": (1.0, 2.0), "mach": 0.5, "flux": "hll",
    },
    "euler-2d": {
        "points": 13, "times": 4, "duration": 0.1, "length": 2.0, "boundary": "outflow", "limiter": "superbee", "integrator": "ssp-rk2",
        "cfl": 0.3, "case": "quadrants", "gamma": (1.3, 1.6), "density": (1.0, 2.0), "temperature": (1.0, 2.0), "mach": 0.5, "flux": "hll",
    },
    "shallow-water-1d": {
        "points": 25, "times": 5, "duration": 0.1, "length": 2.0, "boundary": "periodic", "limiter": "minmod", "integrator": "ssp-rk2",
        "cfl": 0.3, "gravity": 2.0, "inner": (2.0, 3.0), "outer": (0.0, 0.0), "hill": 0.2, "dam": (0.0, 0.0),
    },
    "shallow-water-2d": {
        "points": 13, "times": 4, "duration": 0.5, "length": 3.0, "boundary": "walls", "limiter": "van-albada", "integrator": "ssp-rk2",
        "cfl": 0.3, "gravity": 2.0, "inner": (2.0, 3.0), "outer": (0.0, 0.0), "hill": 0.2, "radius": (0.4, 0.5), "flux": "hll",
    },
    "navier-stokes": {
        "points": 26, "times": 5, "duration": 2.0, "viscosity": 2e-3, "force": 0.2, "phase": (0.0, 1.0), "refine": 2, "tolerance": 1e-4,
        "initial_seed": 3,
    },
    "decaying-turbulence": {
        "points": 26, "times": 5, "duration": 0.4, "viscosity": 6e-3, "energy": 0.4, "peak": 4.0, "tolerance": 1e-4,
    },
    "taylor-green-3d": {"points": 14, "times": 4, "duration": 2.0, "reynolds": (20.0, 40.0), "tolerance": 1e-3},
    "isotropic-turbulence": {
        "points": 14, "viscosity": 0.03, "power": 0.2, "band": 1.5, "spin_up": 1.0, "interval": 1.0, "snapshots": 1, "tolerance": 1e-3,
    },
}  # fmt: skip
"""Another value of every setting: with it the fields differ."""
