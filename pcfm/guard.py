r"""Which samples of a batch have failed, when and why; the others go on as they would without them.

A path mixes noise and data, $\|x_t\| \le \alpha_t\|x_1\| + \sigma_t\|x_0\|$, and normalised data are of the size of the noise, unless the
law asks for more: no state is larger than $\alpha_t + \sigma_t$ times that. A state a hundred times as large is no field that the flow
knows, whatever law it can be made to obey: a law's tolerance grows with the field, so that its certificate does not tell.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor

from pcfm.path import Path, broadcast

FAR = 100.0
"""A state this many times as large as noise, law and flow make fields has diverged."""


def size(x: Tensor) -> Tensor:
    """Root mean square of each field, (B,)."""
    return torch.linalg.vector_norm(x.flatten(1), dim=1) / x[0].numel() ** 0.5


class Watch:
    """What a trajectory tells of itself. This one does nothing with it."""

    def state(self, x: Tensor, t: Tensor) -> Tensor:
        """A state after a step to time t, to the state to go on from."""
        return x

    def done(self, share: float) -> None:
        """How much of the work is done, 0 to 1."""


NOBODY = Watch()
"""Watches nothing."""


class Guard(Watch):
    """Finds the samples that have failed, and holds them at their noise.

    Arguments:
        x0: the noise of the batch, (B, C, *N).
        path: of the flow.
        steps: of the trajectory.
        reach: root mean square that fields may have, (B,), beside that of the noise; called once, and only where it matters.
        told: called with the share of the work that is done.

    Attributes:
        causes: why samples failed, by their number in the batch.
    """

    def __init__(
        self, x0: Tensor, path: Path, steps: int, reach: Callable[[], Tensor], told: Callable[[float], None] = lambda share: None
    ) -> None:
        self.x0, self.path, self.steps = x0, path, steps
        self.causes: dict[int, str] = {}
        self._reach, self._told = reach, told
        self._noise, self._step, self._share = size(x0), 0, 0.0

    @property
    def failed(self) -> Tensor:
        """Which samples have failed, (B,), on the CPU."""
        return torch.tensor([i in self.causes for i in range(len(self.x0))], dtype=torch.bool)

    @cached_property
    def reach(self) -> Tensor:
        """Root mean square that fields may have, (B,)."""
        return torch.maximum(self._noise, self._reach().to(self._noise))

    def state(self, x: Tensor, t: Tensor) -> Tensor:
        self._step += 1
        one = x.new_ones(1, *(1,) * (x.ndim - 1))
        far = self.judge(x, f"step {self._step} of {self.steps}", float(self.path.sample(one, one, t).x_t))
        self.done(self._step / self.steps)
        return torch.where(broadcast(far, x), self.path.sample(self.x0, torch.zeros_like(x), t).x_t, x) if bool(far.any()) else x

    def done(self, share: float) -> None:
        if share > self._share:
            self._share = share
            self._told(share)

    def judge(self, x: Tensor, when: str, scale: float = 1.0) -> Tensor:
        """Which fields are not finite or have diverged, (B,); they are noted.

        Arguments:
            x: fields, or states of the path.
            when: in words.
            scale: of states, as a multiple of fields.
        """
        found = size(x) / scale
        if bool((found <= FAR * self._noise).all()):
            return torch.zeros_like(found, dtype=torch.bool)
        far = ~(found <= FAR * self.reach)  # NaN is no less
        for i in far.nonzero()[:, 0].tolist():
            words = f"{found[i] / self.reach[i]:.1e} times as large as noise and law" if torch.isfinite(found[i]) else "overflow"
            self.causes.setdefault(i, f"diverged at {when}: {words}")
        return far

    def lose(self, which: Tensor, cause: str) -> None:
        """Note that samples have failed, (B,).

        Raises:
            ValueError: a batch of another size.
        """
        if len(which) != len(self.x0):
            raise ValueError(f"{cause} in a batch of {len(which)} that is not that of the samples, {len(self.x0)}.")
        for i in which.nonzero()[:, 0].tolist():
            self.causes.setdefault(i, cause)
