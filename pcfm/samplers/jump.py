r"""Flow maps in the place of solvers and of velocities.

A solver's step becomes a jump, $X_{t,s}(x)$; the endpoint that methods extrapolate to becomes that of the map, $X_{t,1}(x)$: the velocity
that leads there along the path stands for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pcfm.flow_map import LearntMap
from pcfm.parametrisation import convert
from pcfm.path import AffinePath, Path
from pcfm.samplers.sampler import Sampler


@dataclass(frozen=True)
class Jump(Sampler):
    """Jumps of a flow map, one network call each.

    Attributes:
        flow_map: the map.

    Source:
        Boffi, Albergo & Vanden-Eijnden, arXiv:2505.18825; Song et al., Consistency models, ICML 2023.
    """

    order: ClassVar[None] = None

    flow_map: LearntMap

    def step(self, x: Tensor, t: Tensor, s: Tensor, x0: Tensor) -> Tensor:
        return self.flow_map.jump(x, t, s)


@dataclass(frozen=True)
class Heading:
    """The velocity along the path to where a flow map takes a state at t = 1, not that of the flow.

    Attributes:
        flow_map: the map.
        path: the path; of bridges the straight line, as their endpoints are.
    """

    flow_map: LearntMap
    path: Path

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        affine = self.path if isinstance(self.path, AffinePath) else AffinePath()
        end = self.flow_map(x, t, torch.ones_like(t))
        return convert(affine, end, x, t, given="endpoint", wanted="velocity")
