"""Fitting a network to fields: flow matching or a flow map's objective, with averaged weights, checkpoints and exact resumption.

The randomness of a step is a function of the seed and the step alone, so that a run killed and resumed is the run that was not.
"""

from __future__ import annotations

import json
import math
import os
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path as FilePath
from pickle import UnpicklingError
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from pcfm.coupling import Coupling, Independent
from pcfm.flow_map import FlowMapObjective
from pcfm.naming import lookup
from pcfm.objective import WEIGHTS, MapLearning, Objective, time_law
from pcfm.path import Path
from pcfm.source import Source
from pcfm.velocity import NetworkVelocity

BLOCK = 256
"""Samples read in one go where all are."""


@dataclass(frozen=True)
class TrainingSettings:
    """How to fit.

    Attributes:
        steps: optimiser steps.
        batch: samples a step.
        learning_rate: peak rate of AdamW; linear warm-up, then a cosine to zero.
        warmup: steps of warm-up.
        weight_decay: decoupled weight decay.
        ema: decay of the weight average, approached as (1 + i)/(10 + i).
        clip: largest gradient norm.
        validation: fraction of the fields, the last ones of the file, held out: snapshots of one trajectory stay on one side.
        evaluate_every: steps between validation losses.
        checkpoint_every: steps between checkpoints.
        times: the law of flow times, one of `pcfm.objective.TIME_LAWS`, with options as NAME:key=value,key=value.
        weight: of times in the loss, one of `pcfm.objective.WEIGHTS`.
        precision: "float32", or "bfloat16" for automatic mixed precision.
        seed: of weights, order and noise.
    """

    steps: int = 4000
    batch: int = 32
    learning_rate: float = 1e-3
    warmup: int = 100
    weight_decay: float = 0.01
    ema: float = 0.999
    clip: float = 1.0
    validation: float = 0.05
    evaluate_every: int = 200
    checkpoint_every: int = 500
    times: str = "uniform"
    weight: str = "velocity"
    precision: str = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 1:
            raise ValueError(f"training expects at least one step and one sample a batch; got {self.steps} and {self.batch}.")
        if not 0 <= self.validation < 1:
            raise ValueError(f"training expects a validation fraction in [0, 1); got {self.validation}.")
        if self.precision not in ("float32", "bfloat16"):
            raise ValueError(f"training expects precision float32 or bfloat16; got '{self.precision}'.")
        time_law(self.times)
        lookup("weight of times", self.weight, WEIGHTS)
        for name, holds, wanted in (
            ("learning_rate", 0 < self.learning_rate < math.inf, "a positive rate"),
            ("warmup", self.warmup >= 0, "no negative number of steps"),
            ("weight_decay", 0 <= self.weight_decay < math.inf, "no negative rate"),
            ("ema", 0 <= self.ema < 1, "a decay in [0, 1)"),
            ("clip", self.clip > 0, "a positive norm"),
            ("evaluate_every", self.evaluate_every >= 1, "at least 1"),
            ("checkpoint_every", self.checkpoint_every >= 1, "at least 1"),
            ("seed", 0 <= self.seed < 2**40, "a seed that is not negative, of at most 40 bits"),
        ):
            if not holds:
                raise ValueError(f"training.{name} expects {wanted}; got {getattr(self, name)}.")


def held_out(count: int, fraction: float) -> int:
    """How many of some fields are held out.

    Raises:
        ValueError: none would be left to train on.
    """
    held = math.ceil(count * fraction)
    if count - held < 1:
        raise ValueError(f"training expects at least one field beside the validation split; got {count} fields.")
    return held


class Rows(Protocol):
    """What training reads: a tensor, mapped from a file or not, or anything that gives the rows asked for as one."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: Any) -> Tensor: ...


class Data:
    """Training fields, read as batches ask for them.

    Arguments:
        u: fields, (N, C, *N), in memory or not.
        validation: fraction held out at the end.
        prepare: from fields to what the network learns, (B, C, *N), and its condition, (B, Cc, *N) or None; nothing to do by default.
    """

    def __init__(
        self, u: Rows, validation: float = 0.0, prepare: Callable[[Tensor], tuple[Tensor, Tensor | None]] = lambda u: (u, None)
    ) -> None:
        self.u, self.prepare = u, prepare
        self.held = held_out(len(u), validation)
        self.count = len(u) - self.held
        self.fingerprint = 0
        for first in range(0, len(u), BLOCK):
            self.fingerprint = zlib.crc32(u[first : min(first + BLOCK, len(u))].contiguous().numpy().data, self.fingerprint)
        self._drawn: tuple[int, int] | None = None
        self._permutation = torch.empty(0, dtype=torch.long)

    def batch(self, step: int, size: int, seed: int) -> tuple[Tensor, Tensor | None]:
        """The samples of a step: consecutive pieces of one random order an epoch."""
        n = self.count
        positions = torch.arange(step * size, (step + 1) * size)
        index = torch.empty(size, dtype=torch.long)
        for epoch in torch.unique(positions // n).tolist():
            here = positions // n == epoch
            index[here] = self._order(seed, epoch)[positions[here] % n]
        u = self.u.index_select(0, index) if isinstance(self.u, Tensor) else self.u[index]  # indexing a tensor takes twice as long
        return self.prepare(u)

    def held_batch(self, first: int, last: int) -> tuple[Tensor, Tensor | None]:
        """Some of the samples held out."""
        return self.prepare(self.u[self.count + first : self.count + last])

    def _order(self, seed: int, epoch: int) -> Tensor:
        """The random order of an epoch."""
        if (seed, epoch) != self._drawn:
            self._permutation = torch.randperm(self.count, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch))
            self._drawn = (seed, epoch)
        return self._permutation


class Trainer:
    """One training run, in a folder that always holds a state to go on from.

    Arguments:
        velocity: the network with its calling convention, of two times for a flow map.
        path: the path of the flow.
        source: distribution at t = 0.
        data: training fields.
        settings: how to fit.
        folder: where `state.pt` and `log.jsonl` go.
        device: where to compute.
        coupling: which noise meets which data.
        flow_map: the objective of a flow map; flow matching by default.
        teacher: what that objective distils, if it does.

    Raises:
        ValueError: no teacher for an objective that distils one, or the other way round.
    """

    def __init__(
        self,
        velocity: NetworkVelocity,
        path: Path,
        source: Source,
        data: Data,
        settings: TrainingSettings,
        folder: FilePath,
        device: torch.device,
        coupling: Coupling | None = None,
        flow_map: FlowMapObjective | None = None,
        teacher: NetworkVelocity | None = None,
    ) -> None:
        network = velocity.network.to(device)
        self.velocity, self.network = velocity, network
        self.source, self.data, self.settings = source, data, settings
        self.objective: Objective | MapLearning = (
            Objective(path, time_law(settings.times), settings.weight)
            if flow_map is None
            else MapLearning(flow_map, path, self._averaged, teacher)
        )
        self.coupling = coupling or Independent()
        self.folder, self.device = folder, device
        self.average = {name: value.detach().clone() for name, value in network.state_dict().items()}
        self.optimizer = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
        self.step = 0
        self.seconds = 0.0
        self.history: list[dict[str, float]] = []
        self.running: list[float] = []

    def run(self, progress: Callable[[int, dict[str, float]], None]) -> None:
        """Train to the end, from the current step."""
        settings, started, before = self.settings, time.perf_counter(), self.seconds
        while self.step < settings.steps:
            self.running.append(self._advance())
            self.step += 1
            last = self.step == settings.steps
            self.seconds = before + time.perf_counter() - started
            if last or self.step % settings.evaluate_every == 0:
                entry = {"step": self.step, "loss": sum(self.running) / len(self.running), "seconds": round(self.seconds, 2)}
                if self.data.held:
                    entry["validation"] = self.validation_loss()
                self.history.append(entry)
                self.running = []
                progress(self.step, entry)
            else:
                progress(self.step, {})
            if last or self.step % settings.checkpoint_every == 0:
                self.save()

    def _advance(self) -> float:
        """One optimiser step; its loss."""
        settings = self.settings
        generator = torch.Generator().manual_seed(settings.seed * 7_919 + 104_729 * (self.step + 1))
        x1, condition = self.data.batch(self.step, settings.batch, settings.seed)
        x0, x1, condition, drawn = self._drawn(x1, condition, generator)
        for group in self.optimizer.param_groups:
            group["lr"] = settings.learning_rate * self._rate(self.step)
        self.network.train()
        loss = self._loss(x0, x1, drawn, condition).mean()
        if not torch.isfinite(loss):
            raise ValueError(
                f"training diverged: the loss of step {self.step + 1} is {loss.item()}. "
                "Lower learning_rate, or check the data for outliers."
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), settings.clip)
        self.optimizer.step()
        decay = min(settings.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, value in self.network.state_dict().items():
                if value.is_floating_point():
                    self.average[name].lerp_(value, 1 - decay)
        return loss.item()

    def _rate(self, step: int) -> float:
        warmup = min(1.0, (step + 1) / max(self.settings.warmup, 1))
        return warmup * 0.5 * (1 + math.cos(math.pi * step / self.settings.steps))

    def _averaged(self, x: Tensor, t: Tensor, end: Tensor) -> Tensor:
        """The average velocity of the averaged weights."""
        weights = {f"network.{name}": value for name, value in self.average.items()}
        out: Tensor = torch.func.functional_call(self.velocity, weights, (x, t, end))
        return out

    def _drawn(self, x1: Tensor, condition: Tensor | None, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor | None, Any]:
        """Pairs of noise and these fields, with their conditions, and the times at which they are met."""

        def noise() -> Tensor:
            return self.source.colour(torch.randn(x1.shape, generator=generator))

        x0 = noise()
        drawn = self.objective.draw(len(x1), generator, lambda: noise().to(self.device))
        return *self.coupling(x0, x1, condition, generator), drawn

    def _loss(self, x0: Tensor, x1: Tensor, drawn: Any, condition: Tensor | None) -> Tensor:
        self.velocity.condition = None if condition is None else condition.to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.precision == "bfloat16"):
            return self.objective(self.velocity, x0.to(self.device), x1.to(self.device), drawn)

    @torch.no_grad()
    def validation_loss(self) -> float:
        """Loss of the averaged weights on held-out fields, paired as in training, with the same noise and times at every call."""
        kept = {name: value.clone() for name, value in self.network.state_dict().items()}
        self.network.load_state_dict(self.average)
        self.network.eval()
        n = min(self.data.held, 256)
        generator = torch.Generator().manual_seed(self.settings.seed)
        losses = []
        for i in range(0, n, self.settings.batch):
            x1, condition = self.data.held_batch(i, min(i + self.settings.batch, n))
            x0, x1, condition, drawn = self._drawn(x1, condition, generator)
            losses.append(self._loss(x0, x1, drawn, condition))
        self.network.load_state_dict(kept)
        return torch.cat(losses).mean().item()

    def save(self) -> None:
        """Write the state, to a temporary name first, and then the log it belongs to."""
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "network": self.network.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "history": self.history,
            "running": self.running,
            "data": self.data.fingerprint,
        }
        temporary = self.folder / "state.pt.part"
        torch.save(state, temporary)
        os.replace(temporary, self.folder / "state.pt")
        lines = "".join(json.dumps(entry) + "\n" for entry in self.history)
        (self.folder / "log.jsonl.part").write_text(lines)
        os.replace(self.folder / "log.jsonl.part", self.folder / "log.jsonl")

    def restore(self) -> None:
        """Go back to the last saved state.

        Raises:
            ValueError: the folder holds none, or one of another network or other data.
        """
        file = self.folder / "state.pt"
        if not file.exists():
            raise ValueError(f"resuming expects a checkpoint {file}; there is none. Start without --resume.")
        try:
            state: dict[str, Any] = torch.load(file, map_location=self.device, weights_only=True)
            fingerprint = state["data"]
            self.network.load_state_dict(state["network"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.average, self.history, self.running = state["average"], state["history"], state["running"]
            self.step, self.seconds = state["step"], state["seconds"]
        except (RuntimeError, KeyError, TypeError, AttributeError, EOFError, OSError, UnpicklingError) as error:
            reason = "" if isinstance(error, UnpicklingError) else f": {' '.join(str(error).split())[:200]}"
            raise ValueError(f"resuming expects a checkpoint of this network in {file}; it does not fit{reason}.") from error
        if fingerprint != self.data.fingerprint:
            raise ValueError(f"resuming expects the fields that {file} was trained on; these are others. Name the same file.")
