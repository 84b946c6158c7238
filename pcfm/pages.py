"""Report pages: figures and tables of fields and runs, with a sentence for each on what to see."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from constraints import Axis, Grid
from constraints.calculus import CentralDifference, Scheme, Spectral, curl
from pcfm.metrics import energy_spectrum
from pcfm.report import Column, Record, Section, page, to_html
from pde_datasets import Fields

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 4
"""Samples in a panel."""


def write_page(out: Path, title: str, lead: str, sections: Sequence[Section]) -> None:
    """Write a page under its name when it is whole."""
    temporary = out.with_name(out.name + ".part")
    temporary.write_text(page(title, lead, sections), encoding="utf-8")
    os.replace(temporary, out)


@dataclass(frozen=True)
class Album:
    """Where the figures of a page are kept.

    Attributes:
        folder: their folder.
        pdf: whether a PDF is written beside each PNG.
    """

    folder: Path
    pdf: bool = False

    def keep(self, drawn: Figure, name: str) -> Path:
        """Write a figure; its PNG file."""
        from pcfm.report import figure

        return figure.save(drawn, self.folder, name, pdf=self.pdf)

    def __truediv__(self, name: str) -> Album:
        """The album of a subfolder."""
        return Album(self.folder / name, self.pdf)


def field_section(sets: Mapping[str, Fields], album: Album, text: str = "") -> Section:
    """Images of the first channel: space-time diagrams in one space dimension, planes in two or three, at the last time."""
    from pcfm.report import figure

    first = next(iter(sets.values()))
    name, unit = first.channels[0], first.units[0]
    if first.grid.has_time and len(first.grid.space_axes) == 1:
        rows = {label: fields.u[:SHOWN, 0] for label, fields in sets.items()}
        drawn = figure.space_time(rows, f"Field {name}", unit, first.grid)
    else:
        rows = {label: _plane(fields.u[:SHOWN, :1], fields.grid)[:, 0] for label, fields in sets.items()}
        drawn = figure.field_panel(rows, f"Field {name}", unit, _plane_grid(first.grid))
    return Section("Fields", figure=album.keep(drawn, "fields"), caption=text or f"Each column is a sample of {name}.")


def vorticity_section(sets: Mapping[str, Fields], album: Album, text: str = "") -> Section:
    """Images of the vorticity of velocity fields in two dimensions."""
    from pcfm.report import figure

    rows = {label: vorticity(fields, SHOWN) for label, fields in sets.items()}
    first = next(iter(sets.values()))
    drawn = figure.field_panel(rows, "Vorticity", "s-1", _plane_grid(first.grid))
    return Section("Vorticity", figure=album.keep(drawn, "vorticity"), caption=text or "Derivatives show what fields hide.")


def vorticity(fields: Fields, count: int) -> Tensor:
    """Vorticity of the first samples at the last time, (n, H, W)."""
    velocity = _plane(fields.u[:count, list(fields.role("velocity"))], fields.grid)
    grid = _plane_grid(fields.grid)
    scheme: Scheme = Spectral() if all(axis.periodic and axis.uniform for axis in grid.axes) else CentralDifference()
    return curl(velocity.to(torch.float64), grid, scheme)[:, 0]


def spectrum_section(sets: Mapping[str, Fields], album: Album, text: str = "") -> Section:
    """Energy spectra with the band that holds 80 % of the samples."""
    from pcfm.report import figure

    curves = {}
    for label, fields in sets.items():
        chosen = list(fields.role("velocity")) or list(range(len(fields.channels)))
        k, energy = energy_spectrum(fields.u[:, chosen].to(torch.float64), fields.grid)
        curves[label] = (k, energy.mean(0), energy.quantile(0.1, dim=0), energy.quantile(0.9, dim=0))
    drawn = figure.spectra(curves, "Energy spectrum")
    caption = text or "Mean over the samples; the band holds 80 % of them."
    return Section("Energy spectrum", figure=album.keep(drawn, "spectrum"), caption=caption)


def energy_section(sets: Mapping[str, Fields], album: Album, text: str = "") -> Section:
    """Distribution of kinetic energy, mean over the domain."""
    from pcfm.report import figure

    values = {}
    for label, fields in sets.items():
        u = fields.u[:, list(fields.role("velocity"))].to(torch.float64)
        values[label] = u.square().sum(1).flatten(1).mean(1) / 2
    drawn = figure.distribution(values, "Kinetic energy, mean over the domain", "m2 s-2")
    return Section("Kinetic energy", figure=album.keep(drawn, "energy"), caption=text or "One value for each sample.")


def violation_section(values: Mapping[str, Mapping[str, float]], album: Album, tolerance: float, text: str) -> Section:
    """Largest violation of each law by each method, relative to the law's natural scale."""
    from pcfm.report import figure

    drawn = figure.violations(values, "Largest violation, relative to the law's natural scale", tolerance=tolerance)
    return Section("Violation of the laws", figure=album.keep(drawn, "violation"), caption=text)


def loss_section(history: Sequence[Mapping[str, float]], album: Album, title: str, text: str) -> Section:
    """Training and validation loss."""
    from pcfm.report import figure

    name = "loss-" + title.lower().replace(" ", "-")
    return Section(title, figure=album.keep(figure.loss_curve(history, title), name), caption=text)


def _plane(u: Tensor, grid: Grid) -> Tensor:
    """The last time and, in three dimensions, the middle plane of the last axis: (B, C, H, W)."""
    if grid.has_time:
        u = u.select(grid.dim("time"), -1)
    return u.select(-1, u.shape[-1] // 2) if len(grid.space_axes) == 3 else u.unsqueeze(-1) if len(grid.space_axes) == 1 else u


def _plane_grid(grid: Grid) -> Grid:
    axes = grid.space_axes[:2]
    return Grid(*axes) if len(axes) == 2 else Grid(axes[0], Axis("sample", 1))


def stored_page(folders: Sequence[Path], out: Path) -> None:
    """A page from what runs have left in their folders: records, fields, losses; nothing is computed anew.

    Raises:
        ValueError: a folder is missing or holds no run.
    """
    from pde_datasets.loaders import FORMATS
    from pde_datasets.store import read

    ours = FORMATS["pcfm"].recognises
    sections: list[Section] = []
    figures = Album(out.parent / "figures", pdf=True)
    for folder in folders:
        records = {file: Record.read(file) for file in sorted(folder.glob("*.json")) if _is_record(file)} if folder.is_dir() else {}
        sets = {file.stem: read(file) for file in sorted(folder.glob("*.h5")) if ours(file)} if folder.is_dir() else {}
        if not records and not sets:
            raise ValueError(f"report expects run folders with records (*.json) or fields (*.h5); {folder} has neither.")
        sections.append(_records_section(folder, records))
        log = folder / "log.jsonl"
        if log.exists():
            history = [json.loads(line) for line in log.read_text().splitlines()]
            sections.append(
                loss_section(history, figures / folder.resolve().name, f"Training of {folder.resolve().name}", "Losses as logged.")
            )
        for group in _alike(sets):
            sections += _sections_of(group, figures / folder.resolve().name / next(iter(group)))
    write_page(out, "Runs", f"{len(folders)} run folder{'s' if len(folders) > 1 else ''}, from their stored records.", sections)


def _is_record(file: Path) -> bool:
    try:
        document = json.loads(file.read_text())
    except ValueError:
        return False
    return isinstance(document, dict) and "schema" in document and "results" in document


def _alike(sets: Mapping[str, Fields]) -> list[dict[str, Fields]]:
    """Sets of fields grouped by grid and channels, so that a panel compares like with like."""
    groups: list[dict[str, Fields]] = []
    for label, fields in sets.items():
        for group in groups:
            first = next(iter(group.values()))
            if first.grid.shape == fields.grid.shape and first.channels == fields.channels:
                group[label] = fields
                break
        else:
            groups.append({label: fields})
    return groups


def _sections_of(sets: Mapping[str, Fields], album: Album) -> list[Section]:
    first = next(iter(sets.values()))
    space = first.grid.space_axes
    sections = [field_section(sets, album)]
    velocity = all(len(fields.role("velocity")) == len(space) for fields in sets.values())
    if velocity and len(space) == 2:
        sections.append(vorticity_section(sets, album))
    if all(axis.periodic and axis.uniform for axis in space):
        sections.append(spectrum_section(sets, album))
    return sections


def _records_section(folder: Path, records: Mapping[Path, Record]) -> Section:
    rows: list[dict[str, Any]] = []
    for file, record in records.items():
        laws = record.results.get("laws") or []
        rows.append(
            {
                "file": file.name,
                "command": record.command,
                "seconds": record.seconds,
                "calls": record.network_calls,
                "laws": "; ".join(f"{law['name']} {law['violation_after']:.1e}" for law in laws),
            }
        )
    columns = [
        Column("file", "record"),
        Column("command", "command"),
        Column("seconds", "wall time", "s"),
        Column("calls", "network calls"),
        Column("laws", "largest violation"),
    ]
    return Section(f"Records of {folder.resolve().name}", table=to_html(rows, columns), caption="How each file was made.")
