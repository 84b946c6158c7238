r"""The `.pt` files of ProbConserv: values of solutions at points (t, x) of their own, in a tuple (tensors, parameters).

Of each function `input_contexts` (N, P, 2) and `output_contexts` (N, P, 1) are given points, `input_targets` and `output_targets` those
asked for. Points of a kind are a product of times and places that differ from function to function.

The porous-medium equation $u_t = (u^m u_x)_x$ has parameters (m, s) with the travelling wave
$u = \big(m\,(t - s x)_+\big)^{1/m}$, to which the values are compared: s = 1 solves the equation.

Source:
    Hansen et al., Learning physical models that can respect conservation laws, ICML 2023 (arXiv:2302.11002); its data sets for the layout.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pde_datasets.fields import Fields
from pde_datasets.loaders.pt import content, glimpse, is_pt
from pde_datasets.mesh import Mesh, on_mesh

_KINDS = ("contexts", "targets")
_NAMES = tuple(f"{side}_{kind}" for kind in _KINDS for side in ("input", "output"))
_EXACT = 1e-5
"""Distance of values from the travelling wave, in single precision with a root that is steep at the front."""


def recognises(path: Path) -> bool:
    """Whether a file is a pair of tensors by name, with `input_contexts` and the like, and of parameters."""
    return is_pt(path) and _parts(glimpse(path)) is not None


def _parts(data: Any) -> tuple[dict[str, Tensor], Any] | None:
    if not (isinstance(data, (tuple, list)) and len(data) == 2 and isinstance(data[0], Mapping) and set(_NAMES) <= set(data[0])):
        return None
    return {name: data[0][name] for name in _NAMES}, data[1]


def load(path: Path) -> Fields:
    """The functions of a file, at the points of each.

    Returns:
        `u` (N, 1, P) on a `Mesh` of points (t, x), contexts first, with the parameters `m`, `scale` of the porous-medium equation, or
        `parameter_0`, .. of another.

    Raises:
        ValueError: a truncated file, or tensors that do not fit each other.
    """
    parts = _parts(content(path))
    if parts is None:
        raise ValueError(f"{path.name}: probconserv expects a tuple of tensors, {', '.join(_NAMES)}, and parameters.")
    tensors, given = parts
    shapes = {name: tuple(value.shape) if isinstance(value, Tensor) else () for name, value in tensors.items()}
    samples = shapes["input_contexts"][0] if shapes["input_contexts"] else 0
    fits = all(
        len(shapes[f"input_{kind}"]) == 3
        and shapes[f"input_{kind}"][::2] == (samples, 2)
        and shapes[f"output_{kind}"] == (*shapes[f"input_{kind}"][:2], 1)
        for kind in _KINDS
    )
    floats = all(isinstance(value, Tensor) and value.is_floating_point() for value in tensors.values())
    if not (fits and floats and samples and shapes["input_contexts"][1]):
        raise ValueError(f"{path.name}: probconserv expects floats, inputs (N, P, 2) and outputs (N, P, 1); got {shapes}.")
    if not isinstance(given, Tensor) or given.ndim != 2 or len(given) != samples or not given.is_floating_point():
        got = tuple(given.shape) if isinstance(given, Tensor) else type(given).__name__
        raise ValueError(f"{path.name}: probconserv expects parameters ({samples}, k) of the functions; got {got}.")
    points = torch.cat([tensors[f"input_{kind}"] for kind in _KINDS], dim=1)
    u = torch.cat([tensors[f"output_{kind}"] for kind in _KINDS], dim=1).squeeze(-1)
    if not points.isfinite().all():
        raise ValueError(f"{path.name}: probconserv expects finite points; there are NaN or infinite ones.")
    contexts = shapes["input_contexts"][1]
    notes = [
        f"Points are (t, x), others for each function; the first {contexts} are contexts, the other {points.shape[1] - contexts} targets."
    ]
    distance = _distance(points, u, given)
    if distance <= _EXACT:
        parameters = {"m": given[:, 0].clone(), "scale": given[:, 1].clone()}
        notes.append(f"Values meet the exact solution (m max(t - scale x, 0))^(1/m) to {distance:.1e}; scale 1 solves the equation.")
    else:
        parameters = {f"parameter_{i}": given[:, i].clone() for i in range(given.shape[1])}
        notes.append("The file does not say which equation its functions solve; it is not the porous-medium equation.")
    return Fields(
        u=u[:, None].contiguous(),
        grid=on_mesh(points.shape[1]),
        channels=("u",),
        parameters=parameters,
        roles={"density": ("u",)} if distance <= _EXACT else {},
        laws=("positivity",) if distance <= _EXACT and bool((u >= 0).all()) else (),
        attributes={
            "format": "probconserv",
            "path": path.name,
            "source": "ProbConserv; Hansen et al. 2023",
            "contexts": contexts,
            **({"equation": "u_t = (u^m u_x)_x"} if distance <= _EXACT else {}),
            "notes": " ".join(notes),
        },
        mesh=Mesh(points.double()),
    )


def _distance(points: Tensor, u: Tensor, parameters: Tensor) -> float:
    """Largest distance of values from the travelling wave of the porous-medium equation; infinite without its two parameters."""
    if parameters.shape[1] != 2 or not (parameters[:, 0] > 0).all():
        return float("inf")
    m, scale = parameters.double().T[:, :, None]
    t, x = points.double().unbind(-1)
    distance = float(((m * (t - scale * x).clamp(min=0)) ** (1 / m) - u.double()).abs().max())
    return distance if distance == distance else float("inf")
