r"""The staggered velocities of jax-cfd, whose files give one set of coordinates, the centres of cells.

Attribute `offset` of a variable says where in its cell a value lies: (1, ½) is the upper face along x. The marker-and-cell divergence
$(u_i - u_{i-1})/h + (v_j - v_{j-1})/h$ vanishes to single precision. Here, as everywhere in this toolkit, entry i of a component is the
*lower* face of cell i, so that components are moved by one place around the period and the difference is $u_{i+1} - u_i$.

Source:
    Kochkov et al., Machine learning-accelerated computational fluid dynamics, PNAS 118 (2021); `xarray_utils` of its code for attributes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from pde_datasets.loaders.cf_data import Dataset

_SAME = 1e-4
"""As in `cf_axes`, over the spacing."""


def is_jax_cfd(data: Dataset) -> bool:
    """Whether a file has the attribute from which jax-cfd makes its grid."""
    return "save_grid_size" in data.attributes


def period(data: Dataset, space: Sequence[str]) -> float:
    """The period that the attributes state along all axes; 0 where there is none, or the points do not fill it."""
    length = 0.0
    for key, factor in (("domain_size_multiple", 2 * math.pi), ("domain_size", 1.0)):
        values = np.asarray(data.attributes.get(key, [])).ravel()
        if values.size and values.dtype.kind in "iuf" and (values == values[0]).all() and values[0] > 0:
            length = float(values[0]) * factor
    return length if length and all(_fills(data, dim, length) for dim in space) else 0.0


def _fills(data: Dataset, dim: str, length: float) -> bool:
    """Whether the points of a dimension lie a spacing apart on the period."""
    variable = data.coordinate(dim)
    if variable is None or variable.shape[0] < 2:
        return False
    x = np.asarray(data.values(dim), dtype=np.float64)
    spacing = length / len(x)
    return bool(np.isfinite(x).all() and np.abs(np.diff(x) - spacing).max() <= _SAME * spacing)


def upper_faces(data: Dataset, channels: Sequence[str], space: Sequence[str]) -> dict[str, str]:
    """The variables that lie at the upper faces of cells, with the dimension across these faces."""
    found = {}
    for name in channels:
        offset = np.asarray(data.variables[name].attributes.get("offset", [])).ravel()
        if offset.dtype.kind in "iuf" and len(offset) == len(space) and sorted(offset.tolist()) == [0.5] * (len(space) - 1) + [1.0]:
            found[name] = space[offset.tolist().index(1.0)]
    return found


def note(data: Dataset, faces: dict[str, str]) -> str:
    """What was decided of the places of values."""
    if faces:
        return (
            f"Staggered, by the attribute offset: {', '.join(faces)} are stored for the upper faces of cells, with the coordinates of "
            "centres. They were moved by one place around the period, so that entry i is the lower face of cell i, at the point i of its "
            "axis; other channels are at the centres, half a cell further on. The staggered divergence vanishes to single precision."
        )
    if is_jax_cfd(data):
        return (
            "jax-cfd staggers velocities, and gives one set of coordinates, those of the centres; this file has no offsets, and no law is "
            "stated."
        )
    return ""
