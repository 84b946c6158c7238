"""Embedded problems, one file an equation."""

from pde_datasets.problem import Fields, Problem
from pde_datasets.problems.advection import Advection
from pde_datasets.problems.allen_cahn import AllenCahn
from pde_datasets.problems.burgers import Burgers
from pde_datasets.problems.cavity import Cavity
from pde_datasets.problems.channel import Channel
from pde_datasets.problems.cylinder import Cylinder
from pde_datasets.problems.darcy import Darcy
from pde_datasets.problems.decaying_turbulence import DecayingTurbulence
from pde_datasets.problems.euler import Euler1D, Euler2D
from pde_datasets.problems.gray_scott import GrayScott
from pde_datasets.problems.heat import Heat
from pde_datasets.problems.helmholtz import Helmholtz
from pde_datasets.problems.inviscid_burgers import InviscidBurgers
from pde_datasets.problems.isotropic_turbulence import IsotropicTurbulence
from pde_datasets.problems.kdv import KortewegDeVries
from pde_datasets.problems.kolmogorov import Kolmogorov
from pde_datasets.problems.kuramoto_sivashinsky import KuramotoSivashinsky
from pde_datasets.problems.navier_stokes import NavierStokes
from pde_datasets.problems.poisson import Poisson
from pde_datasets.problems.porous_medium import PorousMedium
from pde_datasets.problems.reaction_diffusion import ReactionDiffusion
from pde_datasets.problems.schroedinger import Schroedinger
from pde_datasets.problems.shallow_water import ShallowWater1D, ShallowWater2D
from pde_datasets.problems.stefan import Stefan
from pde_datasets.problems.stokes import StokesSecond
from pde_datasets.problems.taylor_green import TaylorGreen
from pde_datasets.problems.taylor_green_3d import TaylorGreen3D
from pde_datasets.problems.wave import Wave

PROBLEMS: dict[str, type[Problem]] = {
    problem.name: problem
    for problem in (
        Heat,
        Burgers,
        Kolmogorov,
        TaylorGreen,
        Advection,
        Wave,
        KortewegDeVries,
        KuramotoSivashinsky,
        Schroedinger,
        AllenCahn,
        GrayScott,
        InviscidBurgers,
        PorousMedium,
        ReactionDiffusion,
        Stefan,
        StokesSecond,
        Darcy,
        Helmholtz,
        Poisson,
        Cavity,
        Channel,
        Cylinder,
        Euler1D,
        Euler2D,
        ShallowWater1D,
        ShallowWater2D,
        NavierStokes,
        DecayingTurbulence,
        TaylorGreen3D,
        IsotropicTurbulence,
    )
}


def problem_of(fields: Fields) -> Problem | None:
    """The problem, with its settings, that made some fields and whose laws they obey; None for fields of another origin.

    Raises:
        ValueError: the problem or one of its settings is not known here.
    """
    name, settings = fields.attributes.get("problem"), fields.attributes.get("problem_settings")
    if name is None or settings is None:
        return None
    try:
        return PROBLEMS[name](**{key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()})
    except (KeyError, TypeError) as error:
        raise ValueError(f"fields of problem '{name}' expect a problem this version knows, with its settings; {error}.") from error


__all__ = [
    "PROBLEMS",
    "problem_of",
    "Wave",
    "Schroedinger",
    "KuramotoSivashinsky",
    "KortewegDeVries",
    "GrayScott",
    "AllenCahn",
    "Advection",
    "Burgers",
    "Heat",
    "Kolmogorov",
    "TaylorGreen",
    "InviscidBurgers",
    "PorousMedium",
    "ReactionDiffusion",
    "Stefan",
    "StokesSecond",
    "Darcy",
    "Helmholtz",
    "Poisson",
    "Cavity",
    "Channel",
    "Cylinder",
    "Euler1D",
    "Euler2D",
    "ShallowWater1D",
    "ShallowWater2D",
    "NavierStokes",
    "DecayingTurbulence",
    "TaylorGreen3D",
    "IsotropicTurbulence",
]
