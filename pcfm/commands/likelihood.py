"""Command: likelihood, how probable fields are under a model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from pcfm.commands.common import DONE, Common, fresh_file, open_fields


@dataclass(kw_only=True)
class Likely(Common):
    """How probable fields are under a model, by the change of variables along its flow.

    Attributes:
        model: A run folder, or the name of a shipped model (`pcfm list models`).
        file: Fields to judge, on the model's grid.
        count: Fields to take, the first ones; all by default.
        divergence: exact, hutchinson or hutch++, as NAME or NAME:key=value,key=value; exact costs a reverse pass for each value.
        solver: dopri5, or another rule of torchdiffeq.
        steps: Of rules of fixed steps.
        tolerance: Of adaptive rules.
        condition: Initial data for a model that was trained on some; those of the fields themselves by default.
        batch: Fields at a time.
        out: JSON file for the result; printed in any case.
    """

    model: Annotated[str, tyro.conf.Positional]
    file: Annotated[Path, tyro.conf.Positional]
    count: int | None = None
    divergence: str = "hutchinson:probes=4"
    solver: str = "dopri5"
    steps: int = 50
    tolerance: float = 1e-4
    condition: Path | None = None
    batch: int = 16
    out: Path | None = None

    def run(self) -> int:
        import math

        import torch

        from pcfm.likelihood import bits_per_dimension, divergence_named, log_likelihood, physical
        from pcfm.metrics import measure
        from pcfm.report import Record
        from pcfm.shelf import condition_for, load

        if self.out is not None:
            fresh_file(self.out, self.overwrite)
        if self.batch < 1 or (self.count is not None and self.count < 1):
            raise ValueError(f"--batch and --count expect at least 1; got {self.batch} and {self.count}.")
        flow, fields, divergence = load(self.model, self.torch_device()), open_fields(self.file), divergence_named(self.divergence)
        if fields.grid.shape != flow.grid.shape or len(fields.channels) != len(flow.channels):
            raise ValueError(
                f"likelihood expects {len(flow.channels)} channels on {flow.grid.shape}, as '{self.model}' has; "
                f"{self.file} has {len(fields.channels)} on {fields.grid.shape}."
            )
        count = min(self.count or len(fields), len(fields))
        given = fields if self.condition is None else open_fields(self.condition)
        condition = None if flow.condition == "none" else condition_for(flow, given.u[: min(count, len(given))], count)
        generator, rows, errors, calls = torch.Generator().manual_seed(self.seed), [], [], 0
        progress = self.progress(count, "fields", 0)
        with measure() as meter:
            for first in range(0, count, self.batch):
                here = slice(first, min(first + self.batch, count))
                x1 = flow.units.normalise(fields.u[here].to(self.torch_device(), self.torch_dtype()))
                made = log_likelihood(
                    flow.velocity(None if condition is None else condition[here]),
                    flow.path,
                    flow.source,
                    x1,
                    divergence=divergence,
                    solver=self.solver,
                    steps=self.steps,
                    tolerance=self.tolerance,
                    generator=generator,
                )
                rows.append(made.log_density.cpu())
                errors.append(made.standard_error.cpu())
                calls += made.network_calls
                progress.to(here.stop)
        meter.network_calls = calls
        density, error = torch.cat(rows), torch.cat(errors)
        points, size = math.prod(flow.grid.shape), math.prod(flow.grid.shape) * len(flow.channels)
        results = {
            "model": self.model,
            "file": str(self.file),
            "count": count,
            "log_density": density.tolist(),
            "log_density_physical": physical(density, flow.units, points).tolist(),
            "standard_error": [None if math.isnan(value) else value for value in error.tolist()],
            "nats_per_value": (density.mean() / size).item(),
            "bits_per_dimension": bits_per_dimension(density, size).mean().item(),
        }
        if self.out is not None:
            Record.of(meter.cost, device=self.torch_device(), seeds={"probes": self.seed}, results=results).write(self.out)
        told = "" if torch.isnan(error).any() or not error.any() else f", +- {error.mean().item():.2g} by the probes of each"
        self.say(
            f"{count} fields of {self.file} under {self.model}: {density.mean().item():.6g} nats a field{told}, "
            f"{results['nats_per_value']:.4f} nats and {results['bits_per_dimension']:.4f} bits a value, normalised; {calls} network calls"
        )
        self.emit(results)
        return DONE
