r"""The HDF5 files of PBFM: `fields` (condition, snapshot, channel, x, y) with a condition each.

* Kolmogorov flow, `reynolds` (condition,): velocity on $[0, 2\pi)^2$, from a Fourier solver of the vorticity with forcing $\sin 4y$ of the
  velocity and drag; snapshots after the transient. The spectral divergence vanishes, to float32 (about 1e-5 of the gradients).
* Dynamic stall, `nominal_condition` (condition, snapshot, 4): pressure, gradient of the tangential velocity at the wall (2), temperature,
  density, wall shear stress, and the cosine and sine of the direction of the wall. $p = \rho R T$ with $R = 8314.46/28.966$; the stress is
  $\pm\mu(T)$ times the length of the gradient, $\mu$ by Sutherland's formula, its sign that of the gradient along the wall.

A sample of the fields is a snapshot; those of one condition share the parameter "trajectory", so that `split` keeps them together.

Source:
    Baldan et al., Flow matching meets PDEs: a unified framework for physics-constrained generation, 2025; the readers of the repository and
    the data card.
"""

from __future__ import annotations

import math
from pathlib import Path

import h5py
import torch

from constraints import Axis, Grid
from pde_datasets.fields import Fields
from pde_datasets.loaders.coordinates import counted, needed, shape_of
from pde_datasets.loaders.hdf5 import holds, opened
from pde_datasets.loaders.parts import Part, assembled

_STALL = ("pressure", "wall_gradient_x", "wall_gradient_y", "temperature", "density", "wall_shear", "cosine", "sine")
_STALL_UNITS = ("Pa", "s-1", "s-1", "K", "kg m-3", "Pa", "1", "1")
_SOURCE = "PBFM; Baldan et al. 2025"


def recognises(path: Path) -> bool:
    """Whether a file is HDF5 with `fields` of five axes and `reynolds` or `nominal_condition`."""
    return holds(path, lambda file: len(shape_of(file, "fields")) == 5 and ("reynolds" in file or "nominal_condition" in file))


def load(path: Path) -> Fields:
    """The snapshots of a file as samples, left in it until they are indexed.

    Returns:
        `u`, `v` on periodic (x, y) with parameter `reynolds`, or the eight channels of the wall on (x, y) with `nominal_condition`.

    Raises:
        ValueError: a truncated file, or arrays that do not fit each other.
    """
    with opened(path) as file:
        conditions, snapshots, channels, nx, ny = (int(n) for n in file["fields"].shape)
        samples = conditions * snapshots
        names = ("u", "v") if "reynolds" in file else _STALL
        if channels != len(names):
            raise ValueError(f"{path.name}: pbfm expects {len(names)} channels, {', '.join(names)}; got {channels}.")
        known = {"reynolds": (conditions,)} if "reynolds" in file else {"nominal_condition": (conditions, snapshots, 4)}
        parameters = {name: _condition(path, file, name, shape, samples) for name, shape in known.items()}
    parameters["trajectory"] = torch.arange(conditions).repeat_interleave(snapshots)
    u = assembled(path, [Part(("fields",), (0, 0, 1, 2, 3))], (samples, channels, nx, ny))
    about = {"format": "pbfm", "path": path.name, "source": _SOURCE}
    if names == ("u", "v"):
        axes = (Axis(name, n, length=2 * math.pi, periodic=True) for name, n in (("x", nx), ("y", ny)))
        return Fields(
            u=u,
            grid=Grid(*axes),
            channels=names,
            parameters=parameters,
            roles={"velocity": names},
            laws=("divergence-free:scheme=spectral",),
            attributes=about
            | {
                "equation": "w_t + u . grad w = laplace(w)/reynolds + curl(sin 4y) - 0.1 w",
                "notes": "Snapshots of a flow on [0, 2 pi)^2 after its transient, coordinates not stored; those of one Reynolds number are "
                "one trajectory. Spectral divergence 0, to about 1e-5 of the gradients in float32. Values as stored; the authors divide "
                "by 5.",
            },
        )
    return Fields(
        u=u,
        grid=Grid(counted("x", nx), counted("y", ny)),
        channels=names,
        units=_STALL_UNITS,
        parameters=parameters,
        roles={"density": ("density",)},
        attributes=about
        | {
            "equation": "p = density R temperature, R = 8314.46/28.966 J/(kg K)",
            "notes": "Fields along the wall of a pitching aerofoil; what x and y are the file does not say: they count points. At each "
            "point the ideal gas law holds, and wall_shear = sign mu(T) |wall_gradient| with Sutherland's mu and the sign of the gradient "
            "along (cosine, sine). Snapshots with perturbed values of one nominal condition are one trajectory.",
        },
    )


def _condition(path: Path, file: h5py.File, name: str, shape: tuple[int, ...], samples: int) -> torch.Tensor:
    """A condition of each sample."""
    tensor = torch.as_tensor(needed(path, file, name, shape))
    return tensor.repeat_interleave(samples // shape[0], 0) if len(shape) == 1 else tensor.reshape(samples, -1)
