r"""The `.npz` files of FlowBench: inputs `*_X.npz` and outputs `*_Y.npz` side by side, each one array `data`.

* Lid-driven cavities around an object, (N, C, y, x) or (N, C, z, y, x): X has numbers of the flow repeated at every point (Re; with heat
  Gr where Re is fixed, else Re and Ri), the signed distance to the object and a mask of it in two values; Y has u, v, p (u, v, w, p; with
  heat u, v, p, temperature) and last a channel of coefficients, Cd left of the middle and Cl right of it, with heat Cd and Cl in the first
  two quarters and Nu in the other half.
* Flow past an object, (N, t, 3, x, y): u, v, p. The frames of X come before those of Y.

In which order X has distance and mask, code and documentation of its authors do not agree: the mask is the channel with two values.

Source:
    Tali et al., FlowBench: a large scale benchmark for flow simulation over complex geometries, 2024 (arXiv:2409.18032); its scripts for
    layouts and windows. The data are under CC-BY-NC-4.0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from constraints import Grid
from pde_datasets.fields import Fields, join
from pde_datasets.lazy import Lazy
from pde_datasets.loaders.coordinates import counted, filled
from pde_datasets.loaders.files import shapes_of
from pde_datasets.loaders.npy import Member, is_npz, members
from pde_datasets.loaders.parts import FIRST, Part, assembled
from pde_datasets.loaders.views import View

_CAVITY = 2.0
"""Edge of the cavities, as the script that evaluates residuals has it."""

_WINDOW = {"x": (4.0, 20.0), "y": (6.0, 10.0)}
"""The part of the plane that flows past an object were sampled in."""

_OUTPUTS = {
    (4, 2): (("u", "v", "p"), ("Cd", "Cl")),
    (5, 2): (("u", "v", "p", "temperature"), ("Cd", "Cl", "Nu")),
    (5, 3): (("u", "v", "w", "p"), ("Cd", "Cl")),
}
"""Channels and coefficients of an output, by the number of its channels and of its axes in space."""

_LOOKED_AT = 8
"""Samples from which the channels of an input are told apart."""


def recognises(path: Path) -> bool:
    """Whether a file is one of a pair of archives *_X.npz, *_Y.npz with an array `data` each, or flows past an object, or a folder."""
    if path.is_dir():
        return bool(_inputs(path)) and all(recognises(file) for file in _inputs(path))
    if not is_npz(path):
        return False
    try:
        shape = _data(path).shape
        pair = [_data(other).shape for other in _pair(path)]
    except ValueError:
        return False
    if _flows_past(shape):
        return True
    return len(pair) == 2 and (pair[1][1], len(pair[1]) - 2) in _OUTPUTS and pair[0][1] in (3, 4) and len(pair[0]) == len(pair[1])


def _flows_past(shape: tuple[int, ...]) -> bool:
    """Whether an array is (N, t, 3, x, y) on a window four times as long as it is wide."""
    return len(shape) == 5 and shape[2] == 3 and shape[3] == 4 * shape[4]


def _pair(path: Path) -> tuple[Path, ...]:
    """Input and output that a file is one of; the file alone where it is not."""
    for end in ("_X", "_Y"):
        if path.stem.endswith(end):
            pair = tuple(path.with_name(f"{path.stem[:-2]}{other}{path.suffix}") for other in ("_X", "_Y"))
            if all(other.is_file() and is_npz(other) for other in pair):
                return pair
    return (path,)


def _inputs(folder: Path) -> list[Path]:
    """The inputs in a folder that have their outputs beside them."""
    return [file for file in sorted(folder.glob("*_X.npz")) if len(_pair(file)) == 2]


def _data(path: Path) -> Member:
    found = members(path)
    if set(found) != {"data"} or found["data"].dtype.kind not in "buif" or len(found["data"].shape) not in (4, 5):
        raise ValueError(f"{path.name}: flowbench expects an array data with four or five axes; got {shapes_of(found)}.")
    return found["data"]


def load(path: Path) -> Fields:
    """The fields of a pair, from either of its files, or of the pairs in a folder, one after the other.

    Returns:
        Cavities: `u`, `v`, (`w`), `p`, (`temperature`), `distance`, `mask` on cells (x, y) or (x, y, z), with parameters Re (Gr, Ri),
        Cd, Cl (Nu). Flows past an object: `u`, `v`, `p` on (time, x, y).

    Raises:
        ValueError: a truncated file, or arrays that do not fit each other.
    """
    if path.is_dir():
        pairs = _inputs(path)
        fields = join([load(pair) for pair in pairs])
        return replace(fields, attributes={**fields.attributes, "path": path.name, "pairs": " ".join(pair.stem[:-2] for pair in pairs)})
    files = _pair(path)
    data = [_data(file) for file in files]
    if any(0 in member.shape for member in data):
        raise ValueError(f"{path.name}: flowbench expects at least one sample; got shapes {', '.join(str(m.shape) for m in data)}.")
    if _flows_past(data[0].shape):
        return _flows(path, data)
    if len(data) != 2:
        raise ValueError(f"{path.name}: flowbench expects its other half, *_X.npz or *_Y.npz, beside it; there is none.")
    return _cavities(path, *data)


def _fields(
    path: Path, u: Lazy, grid: Grid, channels: tuple[str, ...], notes: Sequence[str], parameters: dict[str, torch.Tensor]
) -> Fields:
    return Fields(
        u=u,
        grid=grid,
        channels=channels,
        parameters=parameters,
        roles={"velocity": tuple("uvw"[: len(grid.space.axes)])},
        attributes={
            "format": "flowbench",
            "path": path.name,
            "source": "FlowBench; Tali et al. 2024",
            "equation": "incompressible Navier-Stokes equations" + (" with buoyancy" if "temperature" in channels else ""),
            "notes": " ".join(notes)
            + " Averages of the corners of each cell, resampled from finite elements: the velocity is divergence-free only roughly, and no "
            "law is stated.",
        },
    )


def _flows(path: Path, data: Sequence[Member]) -> Fields:
    """Flows past an object."""
    samples, _, channels, *space = data[0].shape
    if any((m.shape[0], *m.shape[2:]) != (samples, channels, *space) for m in data):
        raise ValueError(
            f"{path.name}: flowbench expects X and Y of one shape but for their frames; got {data[0].shape}, {data[-1].shape}."
        )
    frames = [m.shape[1] for m in data]
    time = counted("time", sum(frames))
    axes = [filled(name, n, high - low, low) for (name, (low, high)), n in zip(_WINDOW.items(), space, strict=True)]
    notes = ["Times are not stored: the axis counts frames. The window, x from 4 to 20 and y from 6 to 10, is that of the authors' script."]
    if len(data) == 2:
        notes.append(
            f"The first {frames[0]} frames are those of X, the others of Y; frames left out between them the files do not mention."
        )
    names = [f"data{i}" for i in range(len(data))]
    return _fields(
        path,
        assembled(
            path,
            [Part((name,), (0, 2, 1, 3, 4)) for name in names],
            (samples, channels, sum(frames), *space),
            along=FIRST,
            arrays=dict(zip(names, data, strict=True)),
        ),
        Grid(time, *axes),
        ("u", "v", "p"),
        notes,
        {},
    )


class _Channel(View):
    """One channel of an array (N, C, ..), its axis left out."""

    def __init__(self, array: Any, channel: int) -> None:
        super().__init__(array)
        self.channel = channel
        self.shape = (self.shape[0], *self.shape[2:])

    def __getitem__(self, box: tuple[slice, ...]) -> NDArray[Any]:
        return np.asarray(self.array[(box[0], self.channel, *box[1:])])


def _cavities(path: Path, inputs: Member, outputs: Member) -> Fields:
    """Lid-driven cavities around an object."""
    samples, count, *space = outputs.shape
    known = _OUTPUTS.get((count, len(space)))
    if known is None or (inputs.shape[0], *inputs.shape[2:]) != (samples, *space) or len(inputs.shape) != len(outputs.shape):
        raise ValueError(f"{path.name}: flowbench expects X and Y of the same samples and points; got {inputs.shape} and {outputs.shape}.")
    channels, coefficients = known
    numbers, distance, mask = _told_apart(path, inputs)
    settings = ("Re",) if "Nu" not in coefficients else ("Gr",) if len(numbers) == 1 else ("Re", "Ri")
    if len(numbers) != len(settings):
        raise ValueError(f"{path.name}: flowbench expects {' and '.join(settings)} in X; it has {len(numbers)} channels of one number.")
    parameters = {name: _numbers(_Channel(inputs, i), 0) for name, i in zip(settings, numbers, strict=True)}
    x = space[-1]
    places = {"Cd": 0, "Cl": x // 4 if "Nu" in coefficients else x // 2, "Nu": x // 2}
    parameters |= {name: _numbers(_Channel(outputs, count - 1), places[name]) for name in coefficients}
    values = {name: _Channel(outputs, i) for i, name in enumerate(channels)} | {
        "distance": _Channel(inputs, distance),
        "mask": _Channel(inputs, mask),
    }
    reverse = tuple(range(1 + len(space), 1, -1))  # y, x -> x, y and z, y, x -> x, y, z
    notes = [
        "Stored with x fastest; centres of cells of a square" + (" box" if len(space) == 3 else "") + " of edge 2, which is not stored.",
        f"The mask is channel {mask} of X, which has two values; the signed distance is channel {distance}.",
    ]
    return _fields(
        path,
        assembled(
            path,
            [Part((name,), (0, *reverse)) for name in values],
            (samples, len(values), *space[::-1]),
            arrays=values,
        ),
        Grid(*(filled(name, n, _CAVITY) for name, n in zip(("x", "y", "z"), space[::-1], strict=False))),
        tuple(values),
        notes,
        parameters,
    )


def _told_apart(path: Path, inputs: Member) -> tuple[list[int], int, int]:
    """Which channels of an input are numbers, the signed distance, and the mask."""
    first = np.asarray(inputs[:_LOOKED_AT]).reshape(min(_LOOKED_AT, inputs.shape[0]), inputs.shape[1], -1)
    levels = [max(len(np.unique(values)) for values in first[:, i]) for i in range(first.shape[1])]
    numbers = [i for i, n in enumerate(levels) if n == 1]
    masks = [i for i, n in enumerate(levels) if n == 2]
    distances = [i for i, n in enumerate(levels) if n > 2]
    if len(masks) != 1 or len(distances) != 1:
        raise ValueError(
            f"{path.name}: flowbench expects numbers, one mask of two values and one signed distance in X; its channels have "
            f"{', '.join(map(str, levels))} values a sample."
        )
    return numbers, distances[0], masks[0]


def _numbers(channel: _Channel, place: int) -> torch.Tensor:
    """The number of each sample, at one place along x."""
    values = channel[(slice(None), *[slice(0, 1)] * (len(channel.shape) - 2), slice(place, place + 1))]
    return torch.from_numpy(values.astype(np.float64).ravel())
