"""The main job, end to end, on embedded defaults."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pcfm.commands.common import DONE, UNMET, Common, law_columns

if TYPE_CHECKING:
    from pcfm.generation import Samples
    from pcfm.pages import Album
    from pcfm.report import Section
    from pde_datasets import Fields

LAWS = ("divergence-free:scheme=spectral", "momentum:value=0", "energy:mean=true")
METHODS = {
    "unconstrained": "unconstrained",
    "project-end": "projected at the end",
    "pcfm": "PCFM, as published",
    "pcfm-consistent": "PCFM, consistent",
}
OURS = METHODS["pcfm-consistent"]
LIVE = (
    "network.modes=8",
    "network.width=24",
    "network.depth=3",
    "source.smoothness=2.5",
    "source.length=0.2",
    "training.steps=400",
    "training.batch=32",
    "training.learning_rate=4e-3",
    "training.warmup=50",
    "training.ema=0.98",
    "training.evaluate_every=25",
    "training.checkpoint_every=250",
)
"""The live model: a minute on two cores."""


@dataclass(kw_only=True)
class Demo(Common):
    """Generate flow fields that obey their laws, beside ones that do not, and report on both.

    Attributes:
        out: Folder for report.html, its figures, samples.h5 and record.json.
        train: Also train a small model, live, for about a minute.
        count: Samples of each method.
        steps: Flow steps.
    """

    out: Path = Path("runs/demo")
    train: bool = False
    count: int = 12
    steps: int = 20

    def run(self) -> int:
        from pcfm import __version__
        from pcfm.generation import sample
        from pcfm.laws import Context, build_all
        from pcfm.metrics import measure
        from pcfm.pages import Album
        from pcfm.report import Record
        from pcfm.shelf import MODELS, load
        from pde_datasets.store import read, write

        self._prepare()
        flow = load("kolmogorov", self.torch_device())
        reference = read(MODELS / "kolmogorov" / "reference.h5")
        context = Context(flow.grid, flow.channels, flow.roles, reference=reference.values, count=self.count)
        law = build_all(LAWS, context)
        sets: dict[str, Fields] = {"reference (simulation)": reference}
        drawn: dict[str, Samples] = {}
        with measure() as meter:
            for method, label in METHODS.items():
                self.say(f"sampling {self.count} velocity fields: {label}, {self.steps} steps")
                chosen = None if method == "unconstrained" else law
                drawn[label] = sample(
                    flow,
                    self.count,
                    law=chosen,
                    method=method,
                    steps=self.steps,
                    seed=self.seed,
                    batch=self.count,
                    dtype=self.torch_dtype(),
                )
                attributes = {"source": "sampled", "model": "kolmogorov", "method": method, "steps": self.steps, "seed": self.seed}
                stated = () if chosen is None else tuple(text for text in LAWS if "value" in text or "scheme" in text)
                attributes |= {"laws": list(LAWS) if chosen is not None else [], "code_version": __version__}
                sets[label] = replace(reference, u=drawn[label].u, parameters={}, laws=stated, attributes=attributes)
                name = "samples.h5" if label == OURS else f"samples-{method}.h5"
                write(self.out / name, sets[label], certificate=drawn[label].certificate, columns=law_columns(law), overwrite=True)
        meter.network_calls = sum(part.network_calls for part in drawn.values())
        meter.projections = sum(part.projections for part in drawn.values())
        meter.multiplier_solves = sum(part.multiplier_solves for part in drawn.values())
        rows = _scores(sets, drawn, law)
        album = Album(self.out / "figures")
        sections = _sections(album, sets, rows, flow.card.get("history", []), self.torch_dtype())
        held = all(bool(part.converged.all()) for part in drawn.values())
        results: dict[str, Any] = {"laws": drawn[OURS].laws, "methods": rows, "count": self.count, "steps": self.steps}
        if self.train:
            live, extra = self._live(album)
            sections += extra
            results["live_training"] = live
        self._write(sections, rows)
        record = Record.of(meter.cost, device=self.torch_device(), seeds={"noise": self.seed}, results=results)
        record.write(self.out / "record.json")
        for row in rows:
            self.say(f"  {row['method']:<24} largest violation {row['worst']:.1e} of its scale")
        self.say(f"report in {self.out / 'report.html'}")
        self.emit({**results, "report": str(self.out / "report.html"), "seconds": meter.cost.seconds})
        return DONE if held else UNMET

    def _prepare(self) -> None:
        there = [name for name in ("report.html", "samples.h5", "record.json") if (self.out / name).exists()]
        if there and not self.overwrite:
            raise ValueError(f"{self.out} holds {', '.join(there)} already. Choose another folder with --out, or pass --overwrite.")
        self.out.mkdir(parents=True, exist_ok=True)

    def _live(self, album: Album) -> tuple[dict[str, Any], list[Section]]:
        """Train a model of the heat equation, and generate solutions with given initial data."""
        from pcfm.configuration import read_experiment
        from pcfm.experiment import fit
        from pcfm.generation import sample
        from pcfm.laws import Context, build_all
        from pcfm.metrics import relative_error, violation
        from pcfm.pages import field_section, loss_section
        from pde_datasets.problems import Heat
        from pde_datasets.store import write

        problem = Heat(points=32, times=32)
        data = problem.draw(2048, seed=self.seed)
        folder = self.out / "live"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        experiment = read_experiment(None, LIVE)
        progress = self.progress(experiment.training.steps, "steps")
        self.say(f"training a small model of the heat equation, live: {experiment.training.steps} steps")
        flow = fit(data, experiment, folder, progress=lambda step, entry: progress.to(step, f"loss {entry['loss']:.3f}" if entry else ""))
        truth = problem.draw(64, seed=self.seed + 1)
        context = Context(flow.grid, flow.channels, flow.roles, flow.laws, reference=truth.values, count=len(truth))
        law = build_all(("initial-condition", "mass:value=0"), context)
        free = sample(flow, len(truth), steps=self.steps, seed=self.seed, batch=64)
        lawful = sample(flow, len(truth), law=law, steps=self.steps, seed=self.seed, batch=64)
        sets = {
            "exact solution": truth,
            "unconstrained": replace(truth, u=free.u, parameters={}),
            "PCFM, initial data given": replace(truth, u=lawful.u, parameters={}),
        }
        write(
            self.out / "samples-live.h5",
            sets["PCFM, initial data given"],
            certificate=lawful.certificate,
            columns=law_columns(law),
            overwrite=True,
        )
        history = flow.card["history"]
        result = {
            "seconds": history[-1]["seconds"],
            "loss": history[-1]["loss"],
            "violation_before": float(violation(law, free.u).relative.max()),
            "violation_after": float(violation(law, lawful.u).relative.max()),
            "relative_error": float(relative_error(lawful.u, truth.values, truth.grid).mean()),
            "converged": int(lawful.converged.sum()),
        }
        seconds = f"{result['seconds']:.0f}"
        sections = [
            loss_section(history, album, "A model trained live", f"The loss falls within {seconds} s: training works here."),
            replace(
                field_section({label: fields[:4] for label, fields in sets.items()}, album / "live"),
                title="Heat equation, from the live model",
                caption=(
                    "Time upwards. Without a law each column is some solution of the family; with the initial data "
                    "of the first row imposed "
                    f"exactly (largest violation {result['violation_after']:.0e} of scale), the same noise becomes a "
                    f"solution that starts there. "
                    f"How fast it decays is not given: the model chooses. Mean relative distance to the exact solutions "
                    f"{100 * result['relative_error']:.0f} %."
                ),
            ),
        ]
        return result, sections

    def _write(self, sections: list[Section], rows: list[dict[str, Any]]) -> None:
        from pcfm.pages import write_page

        free, lawful = rows[1], max(rows[2:], key=lambda row: row["worst"])
        lead = (
            f"{self.count} velocity fields of two-dimensional turbulence (Kolmogorov flow, 64 x 64) from one "
            "flow-matching model and the same "
            "noise, four ways. The laws: no divergence, no mean momentum, a given kinetic energy. Without them "
            "the samples are off by up to "
            f"{free['worst']:.0e} of a law's natural scale; with them by {lawful['worst']:.0e} at most, which is round-off."
        )
        write_page(self.out / "report.html", "Generated flow fields that obey their laws", lead, sections)


def _scores(sets: dict[str, Fields], drawn: dict[str, Samples], law: Any) -> list[dict[str, Any]]:
    """Violations, quality and cost of each method, the reference first."""
    import torch

    from pcfm.metrics import energy_distance, mean_error, spectrum_error, spread_error, violation

    reference = next(iter(sets.values()))
    r = reference.values.to(torch.float64)
    rows = []
    for label, fields in sets.items():
        own = fields is reference
        u = fields.values.to(torch.float64)
        a, b = (r[::2], r[1::2]) if own else (u, r)
        leaves = law.leaves()
        checked = u[torch.arange(law.leaves()[-1].samples) % len(u)]
        row: dict[str, Any] = {"method": label}
        for leaf in leaves:
            row[leaf.name] = float(violation(leaf, checked).relative.max())
        row["worst"] = max(row[leaf.name] for leaf in leaves)
        row["mean_error"], row["spread_error"] = float(mean_error(a, b, reference.grid)), float(spread_error(a, b, reference.grid))
        row["energy_distance"] = float(energy_distance(a, b))
        row["spectrum_error"] = float(spectrum_error(a, b, reference.grid))
        if not own:
            row["seconds"], row["calls"], row["projections"] = drawn[label].seconds, drawn[label].network_calls, drawn[label].projections
        rows.append(row)
    return rows


def _sections(
    album: Album, sets: dict[str, Fields], rows: list[dict[str, Any]], history: list[dict[str, float]], dtype: Any
) -> list[Section]:
    from constraints.projection import TOLERANCE
    from pcfm.pages import energy_section, field_section, loss_section, spectrum_section, violation_section, vorticity_section
    from pcfm.report import Column, Section, to_html

    names = [key for key in rows[0] if key not in ("method", "worst")]
    laws = names[: names.index("mean_error")]
    columns = [Column("method", "method")]
    columns += [Column(name, name, best="low") for name in laws]
    quality = [
        Column("method", "method"),
        Column("mean_error", "mean error (MMSE)", "m2 s-2"),
        Column("spread_error", "spread error (SMSE)", "m2 s-2"),
        Column("energy_distance", "energy distance"),
        Column("spectrum_error", "spectrum error", "decades"),
        Column("seconds", "sampling", "s"),
        Column("calls", "network calls"),
        Column("projections", "projections"),
    ]
    shown = {row["method"]: {name: row[name] for name in laws} for row in rows}
    free, energy = rows[1], laws[-1]
    excess = {row["method"]: _excess(sets[row["method"]], sets[rows[0]["method"]]) for row in rows[1:]}
    worst = max(excess, key=lambda label: excess[label][1])
    sections = [
        field_section(sets, album, "Velocity u along x. All rows look like turbulence: the eye cannot tell which fields are lawful."),
        vorticity_section(
            sets,
            album,
            "Vorticity, where errors of the network show first. The columns of the lower four rows start from the same noise: the laws "
            "adjust a sample, they do not replace it.",
        ),
        violation_section(
            shown,
            album,
            TOLERANCE[dtype],
            f"The network alone leaves a divergence of {free[laws[0]]:.0e} of the velocity gradient; the lawful "
            "samples leave round-off, less "
            "than the simulation itself, which is stored in single precision. The energies asked for are those "
            "of the reference fields; the "
            f"network, which does not know them, is off by up to {free[energy]:.0e}.",
        ),
        Section(
            "Violation in numbers",
            table=to_html(rows, columns),
            caption="Largest residual over all samples and points, divided by the natural scale of the law.",
        ),
        spectrum_section(
            sets,
            album,
            "Energy over wavenumber; the curves should lie on the reference. Beyond k = 21 the simulation has nothing (dealiasing), the "
            f"network a remnant of its noise. Below, '{worst}' departs most, by a factor of "
            f"{excess[worst][1]:.1f} at k = {excess[worst][0]}. "
            "PCFM as published asks early endpoints, which are means, for the full energy, and adds the first noise again at every step; "
            "the consistent one does neither.",
        ),
        energy_section(
            sets,
            album,
            "Kinetic energy of each sample. Under the energy law the samples have the energies asked for, "
            "those of the first reference fields.",
        ),
        Section(
            "Quality and cost",
            table=to_html(rows, quality),
            caption="Against the reference fields; the reference's own row compares its two halves: a floor for ensembles of that size.",
        ),
    ]
    if history:
        sections.append(
            loss_section(history, album, "Training of the shipped model", "Loss of the shipped model, as its training logged it.")
        )
    return sections


def _excess(fields: Fields, reference: Fields) -> tuple[int, float]:
    """Shell, up to the dealiasing limit, where the mean spectrum departs most from that of the reference, and the factor."""
    from pcfm.metrics import energy_spectrum

    ours, theirs = (energy_spectrum(f.values.double(), f.grid)[1].mean(0) for f in (fields, reference))
    kept = slice(1, fields.grid.shape[0] // 3 + 1)
    quotient = ours[kept] / theirs[kept]
    factor = quotient.maximum(1 / quotient)
    shell = int(factor.argmax())
    return shell + 1, float(factor[shell])
