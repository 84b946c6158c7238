r"""The `.pt` files of the neuraloperator library: a dictionary with tensors `x`, `y`.

* Burgers, $u_t + u u_x = \nu u_{xx}$, periodic: `x` (N, X) initial states, `y` (N, T, X) trajectories, `visc` $\nu$.
* Darcy, $-\nabla\cdot(a \nabla p) = 1$: `x` (N, H, W) the two-valued coefficient, `y` (N, H, W) the pressure.

Neither stores its grid. Burgers is published on $x = i/128$ and $t = 0, 0.01, \dots, 1$ and shipped with every eighth point and every
sixth time: the 17 times end at 0.96, not at 1. A spectral solution from `x` meets `y` to 1.3e-4 (relative, root mean square) for
that end time and to 1.5e-2 for an end time of 1.

Source:
    Li et al., Fourier neural operator for parametric partial differential equations, ICLR 2021; the reader
    `load_burgers_1dtime` of the library for the published times.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from constraints import Axis, Grid
from pde_datasets.fields import Fields
from pde_datasets.loaders.pt import content, glimpse, is_pt

_TIMES = 101
"""Times of the published Burgers trajectories, 0.01 apart."""


def recognises(path: Path) -> bool:
    """Whether a file is a dictionary of tensors with `x` and `y`, and no triangles that make them coordinates (`pina`)."""
    if not is_pt(path):
        return False
    data = glimpse(path)
    return isinstance(data, dict) and {"x", "y"} <= set(data) and "triang" not in data


def load(path: Path) -> Fields:
    """The fields of a Burgers or Darcy file.

    Returns:
        Burgers: `u` on (time, x), float type of the file, with parameter `viscosity` (N,).
        Darcy: `coefficient`, `pressure` on (x, y), float type of `y`.

    Raises:
        ValueError: a truncated file, a pickle of anything but tensors, or a dictionary of neither kind.
    """
    data = {str(name): value for name, value in content(path).items() if isinstance(value, Tensor)}
    x, y = data.get("x"), data.get("y")
    if x is not None and y is not None and y.is_floating_point() and y.numel() > 0:
        if x.ndim == 2 and y.ndim == 3 and x.shape == y[:, 0].shape and x.is_floating_point():
            return _burgers(path, x, y, data.get("visc"))
        if x.ndim == 3 and x.shape == y.shape and len(x.unique()) <= 2:
            return _darcy(path, x, y)
    got = ", ".join(f"{name} {tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}" for name, value in data.items())
    raise ValueError(
        f"{path.name}: neuraloperator expects floats x (N, X), y (N, T, X) (Burgers), or a two-valued x (N, H, W) with floats y (N, H, W) "
        f"(Darcy); got {got or 'no tensor'}. Write another layout with pde_datasets.store."
    )


def _burgers(path: Path, x: Tensor, y: Tensor, viscosity: Tensor | None) -> Fields:
    count, times, points = y.shape
    parameters = {}
    if viscosity is not None:
        if viscosity.numel() not in (1, count):
            raise ValueError(f"{path.name}: neuraloperator expects one viscosity or {count}; got shape {tuple(viscosity.shape)}.")
        parameters["viscosity"] = viscosity.to(y.dtype).reshape(-1).expand(count).clone()
    strides = [stride for stride in range(1, _TIMES) if -(-_TIMES // stride) == times]
    if len(strides) == 1:
        time = Axis("time", times, length=(times - 1) * strides[0] / (_TIMES - 1))
        when = f"times are the published 0, 0.01, .., 1 at a stride of {strides[0]}, so they end at {time.extent:g}"
    else:
        time = Axis("time", times, length=float(max(times - 1, 1)))
        when = f"no single stride through the 101 published times leaves {times}, so the time axis counts frames"
    exact = torch.equal(y[:, 0], x)
    notes = (
        f"Grid not stored: x is the published periodic [0, 1), {when}. Points are a subsample of a finer run, so discrete laws hold "
        "only to about 2e-3 (mean of u), and mass is not stated as a law."
    )
    return Fields(
        u=y.unsqueeze(1).contiguous(),
        grid=Grid(time, Axis("x", points, length=1.0, periodic=True)),
        channels=("u",),
        parameters=parameters,
        laws=("initial-condition",) if exact else (),
        attributes={
            "format": "neuraloperator",
            "path": path.name,
            "equation": "u_t + u u_x = viscosity u_xx",
            "source": "neuraloperator library; Li et al. 2021",
            "precision": 2e-3,
            "precision_reason": "points are a subsample of a finer run",
            "notes": notes
            + (
                " The first time is the stored initial state x, exactly."
                if exact
                else " The first time differs from the stored initial state x."
            ),
        },
    )


def _darcy(path: Path, x: Tensor, y: Tensor) -> Fields:
    return Fields(
        u=torch.stack([x.to(y.dtype), y], dim=1),
        grid=Grid(Axis("x", y.shape[1], length=1.0), Axis("y", y.shape[2], length=1.0)),
        channels=("coefficient", "pressure"),
        attributes={
            "format": "neuraloperator",
            "path": path.name,
            "source": "neuraloperator library; Li et al. 2021",
            "lawless": "pairs of images, rescaled and subsampled, whose coefficient is a class and no value",
            "notes": (
                "Pairs of images: no physical constraint holds. The pressure is rescaled and subsampled, the coefficient stored as a class "
                "rather than a value, and pressure is not 0 on two of the edges. Grid not stored: the unit square is nominal."
            ),
        },
    )
