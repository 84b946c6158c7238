"""Command about laws on rates: holonomic."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from pcfm.commands.common import DONE, Common

if TYPE_CHECKING:
    import torch


@dataclass(kw_only=True)
class Holonomic(Common):
    """Whether a law on rates, A(x) x' = 0, has laws on states behind it (Frobenius), and how many.

    Only such laws can be projected on state by state; others restrict trajectories and no single state.

    Attributes:
        rows: FILE.py:FUNCTION, with FUNCTION(x) giving A, (k, n), of a state x, (n,), in torch; the file is run.
        dimension: Number n of unknowns.
        points: Number of random states, standard normal about the centre, at which the question is asked.
        centre: Centre of the states, where the data live; zero by default.
        spread: Their standard deviation.
    """

    rows: Annotated[str, tyro.conf.Positional]
    dimension: int
    points: int = 5
    centre: tuple[float, ...] = ()
    spread: float = 1.0

    def run(self) -> int:
        import torch

        from constraints.holonomy import is_holonomic

        if self.dimension < 1 or self.points < 3 or not self.spread > 0:
            raise ValueError(
                f"--dimension expects at least 1, --points at least 3, --spread a positive number; "
                f"got {self.dimension}, {self.points}, {self.spread}."
            )
        if self.centre and len(self.centre) != self.dimension:
            raise ValueError(f"--centre expects {self.dimension} numbers; got {len(self.centre)}.")
        centre = torch.tensor(self.centre or (0.0,) * self.dimension, dtype=torch.float64)
        generator = torch.Generator().manual_seed(self.seed)
        noise = torch.randn(self.points, self.dimension, generator=generator, dtype=torch.float64)
        verdict = is_holonomic(_function(self.rows), centre + self.spread * noise)
        count = f"{verdict.static_laws} law{'' if verdict.static_laws == 1 else 's'} on states"
        self.say(f"{self.rows}: {'holonomic' if verdict.holonomic else 'not holonomic'}, {count} behind it")
        self.say(f"  growth of what is reached  {', '.join(map(str, verdict.growth))} of {self.dimension}")
        self.say(f"  largest curvature          {verdict.worst_curvature:.2e}")
        self.emit(verdict._asdict())
        return DONE


def _function(text: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """A function of a Python file.

    Raises:
        ValueError: no such file or function, or a file that cannot be run.
    """
    import importlib.util

    name, colon, function = text.rpartition(":")
    path = Path(name)
    if not colon or path.suffix != ".py" or not path.is_file():
        raise ValueError(f"expects FILE.py:FUNCTION with a file that exists; got '{text}'.")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ValueError(f"{path} cannot be run: {type(error).__name__}: {error}.") from error
    found = getattr(module, function, None)
    if not callable(found):
        raise ValueError(f"{path} has no function '{function}'.")
    chosen: Callable[[torch.Tensor], torch.Tensor] = found
    return chosen
