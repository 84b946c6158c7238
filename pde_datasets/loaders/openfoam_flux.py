r"""Volume or mass fluxes through the faces of an OpenFOAM mesh, with the balance of every cell.

$$ (A \phi)_c = \sum_{f \in c} \pm \phi_f $$

is what leaves cell $c$ per second, zero for a steady or incompressible flow. A flux is positive from the owner of a face to its neighbour,
and out of the domain on the boundary: $A$ is $+1$ at the owner and $-1$ at the neighbour.

Another reading of the folders that `openfoam` recognises, asked for by name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pde_datasets.fields import Fields
from pde_datasets.lazy import Lazy
from pde_datasets.loaders.foam import Foam, find, header, unit
from pde_datasets.loaders.openfoam import Case
from pde_datasets.mesh import Equation, Mesh, csr, on_mesh


def load(path: Path) -> Fields:
    """The fluxes `phi` at every time that has them, one sample a time.

    An equation is a law of a field at one time, so that times are samples here: parameters `time` and `trajectory`, which is one. Patches
    of type `empty`, the two sides of a two-dimensional mesh, carry no flux and are left out; the others follow the internal faces, and
    `mesh.boundary` says which are where.

    Returns:
        `phi` (T, 1, faces) on the faces, left in the files until it is indexed, with the equation "balance", A φ = 0.

    Raises:
        ValueError: see `openfoam.Case.read`; no time with `phi`; or values of another mesh or damaged files, when they are read.
    """
    case = Case.read(path)
    stored = [(when, found) for when, folder in case.times if (found := find(folder, "phi")) is not None]
    if not stored:
        raise ValueError(f"{path.name}: openfoam-flux expects a file phi in the folder of some time; there is none. Open it as openfoam.")
    head = header(stored[0][1])
    if head.get("class") != "surfaceScalarField":
        raise ValueError(f"{path.name}: openfoam-flux expects phi to be a surfaceScalarField; got {head.get('class', 'no class')!r}.")
    used = np.ones(len(case.owner), dtype=bool)
    for kind, faces in case.patches.values():
        used[faces] = kind != "empty"
    kept = np.flatnonzero(used)
    place = np.cumsum(used) - 1
    boundary = {name: torch.from_numpy(place[faces]) for name, (kind, faces) in case.patches.items() if kind != "empty"}

    def read(box: tuple[slice, ...]) -> NDArray[Any]:
        return np.stack([_flux(file, case)[kept][None, box[2]][box[1]] for _, file in stored[box[0]]])

    geometry = case.geometry()
    centres = np.empty((0, 3)) if geometry is None else geometry.face_centres[kept]
    single = Foam.read(stored[0][1]).scalar.itemsize == 4
    count = len(stored)
    mass = unit(head).startswith("kg")
    notes = [
        "One sample a time. Fluxes are positive from owner to neighbour and out of the domain.",
        "They balance as well as the solver's pressure equation was solved and digits were written"
        + (", in steady flow." if mass else "."),
    ]
    return Fields(
        u=Lazy(read, (count, 1, len(kept)), torch.float32 if single else torch.float64, path.name),
        grid=on_mesh(len(kept), "face"),
        channels=("phi",),
        units=(unit(head),),
        parameters={
            "time": torch.tensor([when for when, _ in stored], dtype=torch.float64),
            "trajectory": torch.zeros(count, dtype=torch.long),
        }
        | {name: value.expand(count).clone() for name, value in case.viscosity().items()},
        attributes={
            "format": "openfoam-flux",
            "path": path.name,
            "source": "OpenFOAM",
            "equation": "sum of phi over the faces of a cell = 0",
            "notes": " ".join(notes),
        },
        mesh=Mesh(
            torch.from_numpy(centres), "face", equations={"balance": Equation(_incidence(case, kept), unit=unit(head))}, boundary=boundary
        ),
    )


def _incidence(case: Case, kept: NDArray[np.int64]) -> torch.Tensor:
    """The signed incidence A of cells and the faces that are kept, (cells, faces)."""
    internal = len(case.neighbour)
    rows = torch.from_numpy(np.concatenate([case.owner[kept], case.neighbour]))
    columns = torch.cat([torch.arange(len(kept)), torch.arange(internal)])
    signs = torch.cat([torch.ones(len(kept), dtype=torch.float64), -torch.ones(internal, dtype=torch.float64)])
    return csr(rows, columns, signs, (case.cells, len(kept)))


def _flux(path: Path, case: Case) -> NDArray[Any]:
    """The flux through every face, zero where a patch is empty."""
    file = Foam.read(path)
    entries = file.dictionary()
    internal = len(case.neighbour)
    inside = file.values(entries.get("internalField"), internal, 1, "internalField")[:, 0]
    flux = np.zeros(len(case.owner), inside.dtype)
    flux[:internal] = inside
    patches = entries.get("boundaryField")
    for name, (kind, faces) in case.patches.items():
        entry = patches.get(name) if isinstance(patches, dict) else None
        if kind == "empty":
            continue
        if not isinstance(entry, dict):
            raise file.damaged(f"the patch '{name}' in boundaryField")
        flux[faces] = file.values(entry.get("value"), faces.stop - faces.start, 1, f"patch '{name}'")[:, 0]
    return flux
