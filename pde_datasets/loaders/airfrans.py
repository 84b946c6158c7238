r"""Cases of AirfRANS: steady flow about a NACA airfoil, `<name>_internal.vtu` in a folder `<name>`, with what was varied in the name.

    airFoil2D_SST_<U>_<alpha>_<digits ...>      speed in m/s, angle of attack in degrees, three digits (M, P, XX) or four (L, P, S, XX)

Incompressible Reynolds-averaged equations with the SST model, air of $\nu = 1.56 \cdot 10^{-5}$ m²/s; pressure is kinematic. Meshes differ
from case to case: open one case at a time.

Source:
    Bonnet et al., AirfRANS: high fidelity computational fluid dynamics dataset for approximating Reynolds-averaged Navier-Stokes
    solutions, NeurIPS 2022.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import torch

from pde_datasets.fields import Fields
from pde_datasets.loaders.files import first_bytes
from pde_datasets.loaders.vtk_data import fields_of
from pde_datasets.loaders.vtk_xml import kind_of, read_xml

_NAME = re.compile(r"airFoil2D_SST((?:_[-+]?\d+(?:\.\d+)?){5,6})(?:_(internal|aerofoil|freestream)\.vt[up])?")
_VISCOSITY = 1.56e-5
_UNITS = {"U_x": "m s-1", "U_y": "m s-1", "U_z": "m s-1", "p": "m2 s-2", "nut": "m2 s-1", "implicit_distance": "m"}


def recognises(path: Path) -> bool:
    """Whether a file of VTK with U, p and nut, or a folder with one, is named as those of AirfRANS: the name holds the parameters."""
    if _NAME.fullmatch(path.name) is None:
        return False
    file = path / f"{path.name}_internal.vtu" if path.is_dir() else path
    start = first_bytes(file, 1 << 16)
    return bool(kind_of(start)) and all(re.search(rb'Name\s*=\s*"%b"' % name, start) is not None for name in (b"U", b"p", b"nut"))


def load(path: Path) -> Fields:
    """One case: the flow around the airfoil, or on its surface if that file is named.

    Returns:
        Values at points of the mesh, with parameters `velocity` (m/s), `angle` (degrees), `inflow` (1, 2), `naca` and `viscosity` (m²/s).

    Raises:
        ValueError: a damaged file.
    """
    file = path / f"{path.name}_internal.vtu" if path.is_dir() else path
    name = _NAME.fullmatch(path.name)
    assert name is not None
    speed, angle, *digits = (float(word) for word in name[1].strip("_").split("_"))
    fields = fields_of(file, read_xml(file))
    turned = math.radians(angle)
    parameters = {
        "velocity": [speed],
        "angle": [angle],
        "inflow": [[speed * math.cos(turned), speed * math.sin(turned)]],
        "naca": [digits],
        "viscosity": [_VISCOSITY],
    }
    notes = (
        "Steady, averaged, turbulent. Values of cells were put on points: divergence, zero in the cells to the tolerance of the solver, is "
        "so only nearly here. Pressure over density."
    )
    return replace(
        fields,
        units=tuple(_UNITS.get(channel, "1") for channel in fields.channels),
        parameters={key: torch.tensor(value, dtype=torch.float64) for key, value in parameters.items()},
        attributes=fields.attributes
        | {"format": "airfrans", "path": path.name, "source": "AirfRANS", "notes": f"{notes} {fields.attributes['notes']}"},
    )
