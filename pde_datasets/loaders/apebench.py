r"""The data APEBench scrapes: `<name>_train.npy`, `<name>_test.npy` (sample, time, channel, \*space), with `<name>.json` beside them.

Fields of exponax, a Fourier solver with exponential time steps: periodic, half open, as many points along each axis. The JSON file has the
settings of the scenario; those of a physical scenario say period and time step, others are over the period, and count steps.

Source:
    Koehler et al., APEBench: a benchmark for autoregressive neural emulators of PDEs, NeurIPS 2024.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from constraints import Axis, Grid
from pde_datasets.fields import Fields
from pde_datasets.loaders.coordinates import counted, stepped
from pde_datasets.loaders.files import small_json
from pde_datasets.loaders.npy import is_npy, mapped
from pde_datasets.loaders.parts import Part, assembled

_SPLITS = ("train", "test")


def recognises(path: Path) -> bool:
    """Whether a file is a NumPy array with the settings of a scenario beside it."""
    return is_npy(path) and _settings(path) is not None


def _settings(path: Path) -> tuple[str, str, dict[str, Any]] | None:
    """Scenario, split and settings of a file, from the JSON file beside it."""
    name, _, split = path.stem.rpartition("_")
    content: Any = None
    if split in _SPLITS:
        with suppress(ValueError):
            content = small_json(path.with_name(f"{name}.json"))
    info = content.get("info") if isinstance(content, dict) else None
    return (str(content.get("name", name)), split, info) if isinstance(info, dict) and "num_spatial_dims" in info else None


def load(path: Path) -> Fields:
    """The trajectories of a file, left in it until they are indexed.

    Returns:
        `u`, or `u_0`, `u_1`, .., on (time, x, ..), with the numbers among the settings as attributes.

    Raises:
        ValueError: no settings beside it, a truncated file, or an array that does not fit them.
    """
    settings, array = _settings(path), mapped(path)
    if settings is None:
        raise ValueError(f"{path.name}: apebench expects its settings beside it, <name>.json; there are none. Fetch them.")
    name, split, info = settings
    dimensions, points, channels = (info.get(key) for key in ("num_spatial_dims", "num_points", "num_channels"))
    wanted = (channels, *[points] * dimensions) if isinstance(dimensions, int) and 1 <= dimensions <= 3 else ()
    if not wanted or tuple(array.shape[2:]) != wanted or array.ndim != 3 + len(wanted) - 1:
        raise ValueError(f"{path.name}: apebench expects an array (sample, time, {', '.join(map(str, wanted))}); got {array.shape}.")
    samples, times, count, *space = array.shape
    period, step = (info.get(key) for key in ("domain_extent", "dt"))
    notes = ["Periodic, half open; a Fourier solver with exponential time steps. Which sums are conserved depends on the scenario."]
    length = float(period) if isinstance(period, (int, float)) and period > 0 else 1.0
    if length == 1.0 and not isinstance(period, (int, float)):
        notes.append("The scenario has no unit of length: x is over the period.")
    time = counted("time", times)
    if isinstance(step, (int, float)) and step > 0:
        time = stepped("time", times, float(step))
    else:
        notes.append("The scenario has no unit of time: the axis counts steps.")
    plain = {key: value for key, value in info.items() if isinstance(value, (int, float, str))}
    parts = [Part(("values",), (0, 2, 1, *range(3, 3 + len(space))))]
    return Fields(
        u=assembled(path, parts, (samples, count, times, *space), arrays={"values": array}),
        grid=Grid(time, *(Axis(axis, n, length=length, periodic=True) for axis, n in zip(("x", "y", "z"), space, strict=False))),
        channels=("u",) if count == 1 else tuple(f"u_{i}" for i in range(count)),
        attributes={
            **plain,
            "format": "apebench",
            "path": path.name,
            "source": "APEBench; Koehler et al. 2024",
            "scenario": name,
            "split": split,
            "notes": " ".join(notes),
        },
    )
