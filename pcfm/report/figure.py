"""Fields and results to figures.

Every figure has one look, built without pyplot and its global state, so that none needs a display. Where rows or curves are compared,
the first one is the reference: it sets the colour range and is drawn in black; methods keep their colours in every figure that shows
them in the same order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from torch import Tensor

from constraints import Axis, Grid
from pcfm.report.look import BLACK, COLOURS, GREY, LOOK, ZERO, check, legend, mark, named, single, styled
from pcfm.report.table import pretty_unit

Curve = tuple[Tensor, Tensor, Tensor, Tensor]

_DECADES = 1e-13
"""Energy relative to the peak below which a spectrum is not drawn: round-off."""


@styled
def field_panel(rows: Mapping[str, Tensor], title: str, unit: str, grid: Grid) -> Figure:
    """Images of fields, a row for each method, a column for each sample, one colour range and one colour bar.

    The range is that of the first row: symmetric about zero on a diverging map if the field has both signs, else from its least to
    its largest value. What exceeds it is marked at the colour bar; what is not finite is grey. The first axis points to the right,
    or the one called x.

    Arguments:
        rows: by label, one channel of some samples, (n, H, W).
        title: what is shown.
        unit: its unit, CF spelling.
        grid: grid with the two space axes shown.

    Raises:
        ValueError: no rows, or fields that are not on the grid's space axes.
    """
    axes = grid.space.axes
    if len(axes) != 2:
        raise ValueError(f"field_panel expects a grid of two space axes; got {', '.join(grid.names)}. Show a slice of it.")
    first, second = axes
    if second.name == "x":
        return _panel(rows, title, unit, second, first, "field_panel", swapped=True)
    return _panel(rows, title, unit, first, second, "field_panel")


@styled
def space_time(rows: Mapping[str, Tensor], title: str, unit: str, grid: Grid) -> Figure:
    """Images of fields over time and one space axis, time upwards; the rest as in `field_panel`.

    Arguments:
        rows: by label, one channel of some samples, (n, T, X).
        title: what is shown.
        unit: its unit.
        grid: grid of time and one space axis.

    Raises:
        ValueError: no rows, or fields that are not on the grid.
    """
    if not grid.has_time or len(grid.axes) != 2:
        raise ValueError(f"space_time expects a grid of time and one space axis; got {', '.join(grid.names)}. Show a slice of it.")
    return _panel(rows, title, unit, grid.axes[1], grid.axes[0], "space_time", swapped=True)


@styled
def spectra(
    curves: Mapping[str, Curve],
    title: str = "Energy spectrum",
    unit: str = "1",
    *,
    wavenumber_unit: str = "1",
    slope: float | None = None,
) -> Figure:
    """Energy by wavenumber, log-log, mean and quantile band, without the mean mode.

    Arguments:
        curves: by label, wavenumbers, mean energies, and the lower and upper end of the band, (S,) each.
        title: what is shown.
        unit: unit of the energies.
        wavenumber_unit: unit of the wavenumbers.
        slope: exponent of a power law to guide the eye, such as -3.

    Raises:
        ValueError: no curves.
    """
    check(curves, "spectra")
    figure, axes = single(title, 6.4, 4.4)
    arrays = {label: [_array(values) for values in curve] for label, curve in curves.items()}
    peak = max(float(np.nanmax(mean[k > 0], initial=0.0)) for k, mean, _, _ in arrays.values()) or 1.0
    bottom, lowest = _DECADES * peak, peak
    for i, (label, (k, mean, low, high)) in enumerate(arrays.items()):
        seen = (k > 0) & (mean > bottom)
        k, mean, low, high = (values[seen] for values in (k, mean, np.maximum(low, bottom), np.maximum(high, bottom)))
        colour = _curve_colour(i)
        axes.fill_between(k, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.plot(k, mean, color=colour, label=label, linewidth=1.4 if i else 3.2, zorder=3 + 0.1 * i)
        lowest = min(lowest, float(np.min(low, initial=lowest)))
    axes.set(xscale="log", yscale="log", xlabel=named("wavenumber $k$", wavenumber_unit), ylabel=named("energy in shell $E_k$", unit))
    axes.set_ylim(lowest / 2, 8 * peak)
    if slope is not None:
        _guide(axes, list(arrays.values()), slope)
    axes.grid(True, which="major")
    legend(figure, axes.get_legend_handles_labels()[0])
    return figure


@styled
def violations(
    values: Mapping[str, Mapping[str, float]], title: str = "Violation of the laws", unit: str = "1", *, tolerance: float | None = None
) -> Figure:
    """How far each method is from each law, on a logarithmic axis; a violation of zero is a hollow mark at the left end.

    Arguments:
        values: by method and law, the violation, best relative to its natural scale, so that laws share an axis.
        title: what is shown.
        unit: unit of the values.
        tolerance: where a law counts as met.

    Raises:
        ValueError: no values.
    """
    check(values, "violations")
    laws = list(dict.fromkeys(law for row in values.values() for law in row))
    check(laws, "violations")
    lane = 0.17
    height = lane * len(values) + 0.22
    figure, axes = single(title, 7.2, 1.4 + height * len(laws) + 0.22 * math.ceil(len(values) / 3))
    finite = [value for row in values.values() for value in row.values() if math.isfinite(value)]
    decades = math.ceil(math.log10(10 * max([*finite, tolerance or 0.0, 0.1])))
    handles = []
    for m, (method, row) in enumerate(values.items()):
        colour, marker = mark(m)
        look: dict[str, Any] = {"color": colour, "marker": marker, "markersize": 6}
        handles.append(Line2D([], [], linestyle="", label=method, **look))
        for law, value in row.items():
            y = laws.index(law) + (m - (len(values) - 1) / 2) * lane / height
            lost, zero = not math.isfinite(value), value <= ZERO
            x = 10.0**decades if lost else max(value, ZERO)
            face = "white" if lost or zero else look["color"]
            axes.plot(x, y, markerfacecolor=face, markeredgewidth=1.3, clip_on=False, zorder=4, **look)
            if lost:
                axes.annotate("not finite", (x, y), (-7, 0), textcoords="offset points", ha="right", va="center")
            else:
                axes.plot([ZERO, x], [y, y], color=look["color"], linewidth=1.1, alpha=0.35, zorder=2)
    if any(value <= ZERO for value in finite):
        hollow: dict[str, Any] = {"color": GREY, "marker": "o", "markerfacecolor": "white", "markeredgewidth": 1.3}
        handles.append(Line2D([], [], linestyle="", label=f"zero, or below {ZERO:.0e}", **hollow))
    if tolerance is not None:
        handles.append(axes.axvline(tolerance, color=BLACK, linestyle=(0, (4, 3)), linewidth=1.1, zorder=1))
        handles[-1].set_label(f"tolerance {tolerance:.2g}")
    axes.set(xscale="log", xlim=(ZERO, 10.0**decades), ylim=(len(laws) - 0.5, -0.5), xlabel=named("violation", unit))
    exponents = range(-16, decades + 1, 2 if decades <= 2 else 4)
    axes.set_xticks([ZERO, *(10.0**e for e in exponents)], ["0", *(f"$10^{{{e}}}$" for e in exponents)])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_yticks(range(len(laws)), laws)
    axes.tick_params(axis="y", length=0)
    axes.hlines(np.arange(1, len(laws)) - 0.5, 0, 1, transform=axes.get_yaxis_transform(), color=LOOK["grid.color"], linewidth=0.7)
    axes.grid(True, axis="x")
    legend(figure, handles)
    return figure


@styled
def loss_curve(history: Sequence[Mapping[str, float]], title: str = "Training") -> Figure:
    """Training and validation loss by step.

    Arguments:
        history: entries with `step`, `loss` and, where it was measured, `validation`.
        title: what is shown.

    Raises:
        ValueError: an empty history.
    """
    check(history, "loss_curve")
    figure, axes = single(title, 6.4, 3.9)
    losses: list[float] = []
    for key, label, colour in (("loss", "training", COLOURS[0]), ("validation", "validation, averaged weights", COLOURS[1])):
        points = [(entry["step"], entry[key]) for entry in history if key in entry]
        if points:
            steps, values = zip(*points, strict=True)
            axes.plot(steps, values, color=colour, marker="o" if len(points) <= 40 else "", markersize=3.5, label=label)
            losses += [value for value in values if value > 0 and math.isfinite(value)]
    axes.set(yscale="log", xlabel="optimiser step", ylabel="flow-matching loss")
    span = max(losses) / min(losses) if losses else 1.0
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7) if span < 10 else (1, 2, 5) if span < 1000 else (1,)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
    axes.grid(True)
    legend(figure, axes.get_legend_handles_labels()[0])
    return figure


@styled
def distribution(values: Mapping[str, Tensor], title: str, unit: str) -> Figure:
    """Histograms of a number each sample has, such as its kinetic energy, in common bins.

    Heights are shares of the samples, so that one number shared by all is one bar of height one. The bins reach at most one range of
    the first entry, the reference, beyond it on either side; the legend says how many samples fall outside.

    Arguments:
        values: by label, (N,).
        title: what is shown.
        unit: its unit.

    Raises:
        ValueError: no values.
    """
    check(values, "distribution")
    arrays = {label: _array(tensor).ravel() for label, tensor in values.items()}
    edges = _bins(list(arrays.values()))
    figure, axes = single(title, 6.4, 4.2)
    for i, (label, array) in enumerate(arrays.items()):
        inside = array[(array >= edges[0]) & (array <= edges[-1])]
        share = np.histogram(inside, edges)[0] / max(len(array), 1)
        outside = len(array) - len(inside)
        name = f"{label} (N = {len(array)}{f', {outside} outside' if outside else ''})"
        colour = _curve_colour(i)
        axes.stairs(share, edges, color=colour, fill=True, alpha=0.10 if i else 0.18, linewidth=0)
        axes.stairs(np.where(share > 0, share, np.nan), edges, color=colour, linewidth=1.5 if i else 2.2, label=name)
    axes.set(xlabel=named(title, unit), ylabel="share of samples")
    axes.set_ylim(bottom=0)
    axes.margins(x=0.02)
    axes.grid(True, axis="y")
    legend(figure, axes.get_legend_handles_labels()[0])
    return figure


def save(figure: Figure, folder: str | Path, name: str, *, pdf: bool = True) -> Path:
    """Write a figure as PNG and, unless told otherwise, as PDF, the same bytes each time.

    Arguments:
        figure: what to write.
        folder: where; made if it is not there.
        name: name of the files, without ending.
        pdf: write a PDF too.

    Returns:
        The PNG file.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with rc_context(LOOK):
        figure.savefig(folder / f"{name}.png", dpi=130, metadata={"Software": None})
        if pdf:
            figure.set_layout_engine("none")  # the layout just found serves the second file too
            figure.savefig(folder / f"{name}.pdf", dpi=300, metadata={"CreationDate": None})
    return folder / f"{name}.png"


def _panel(rows: Mapping[str, Tensor], title: str, unit: str, right: Axis, up: Axis, speaker: str, *, swapped: bool = False) -> Figure:
    """Images with one axis to the right and one upwards; `swapped` if fields have the latter first."""
    check(rows, speaker)
    shape = (up.points, right.points) if swapped else (right.points, up.points)
    for label, fields in rows.items():
        if fields.ndim != 3 or tuple(fields.shape[1:]) != shape or not len(fields):
            raise ValueError(f"{speaker} expects fields (n, {shape[0]}, {shape[1]}) for '{label}'; got {tuple(fields.shape)}.")
    images = [_array(fields if swapped else fields.transpose(1, 2)) for fields in rows.values()]
    colours, extend = _field_colours(images)
    columns = max(len(stack) for stack in images)
    ratio = min(max(up.extent / right.extent, 0.4), 2.0) if up.name != "time" else 0.8
    width = min(1.9, 8.0 / columns)
    figure = Figure(figsize=(1.9 + width * columns, 1.0 + width * ratio * len(rows)), layout="constrained")
    cells = figure.add_gridspec(len(rows), columns + 1, width_ratios=[0.12, *[1.0] * columns])
    frames: list[Axes] = []
    for i, (label, stack) in enumerate(zip(rows, images, strict=True)):
        name = figure.add_subplot(cells[i, 0])
        name.set_axis_off()
        name.text(0.5, 0.5, label, rotation=90, ha="center", va="center", weight="bold", transform=name.transAxes)
        for j, values in enumerate(stack):
            frame = figure.add_subplot(cells[i, j + 1])
            _image(frame, values, right, up, colours)
            frame.set_box_aspect(ratio)
            lowest = i == len(rows) - 1
            frame.tick_params(labelleft=j == 0, labelbottom=lowest)
            frame.set_title(f"sample {j + 1}" if i == 0 else "")
            frame.set_xlabel(named(right.name, right.unit) if lowest else "")
            frame.set_ylabel("" if j else named(up.name, up.unit))
            frames.append(frame)
    figure.suptitle(named(title, unit))
    bar = figure.colorbar(colours, ax=frames, extend=extend, fraction=0.05, pad=0.015, aspect=max(8.0, width * ratio * len(rows) / 0.13))
    bar.set_label("" if unit == "1" else pretty_unit(unit))
    return figure


def _image(frame: Axes, values: np.ndarray, right: Axis, up: Axis, colours: ScalarMappable) -> None:
    """One image on its axes, in the colours of all."""
    x, y = _edges(right), _edges(up)
    look: dict[str, Any] = {"cmap": colours.cmap, "norm": colours.norm}
    if right.uniform and up.uniform:
        frame.imshow(values, origin="lower", extent=(x[0], x[-1], y[0], y[-1]), aspect="auto", **look)
    else:
        frame.pcolormesh(x, y, values, rasterized=True, **look)
    frame.spines[["top", "right"]].set_visible(True)
    frame.xaxis.set_major_locator(MaxNLocator(3))
    frame.yaxis.set_major_locator(MaxNLocator(3))


def _field_colours(images: Sequence[np.ndarray]) -> tuple[ScalarMappable, str]:
    """Colour map and range of the first stack, and where the others exceed it."""
    finite = [stack[np.isfinite(stack)] for stack in images]
    first = next((values for values in finite if len(values)), np.zeros(1))
    low, high = float(first.min()), float(first.max())
    signed = low < 0 < high or low == high == 0
    if signed:
        high = max(-low, high) or 1.0
        low = -high
    elif low == high:
        low, high = low - abs(low) / 2, high + abs(high) / 2
    every = np.concatenate(finite)
    below, above = (bool(np.any(every < low)), bool(np.any(every > high))) if len(every) else (False, False)
    extend = {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}[below, above]
    colour_map = colormaps["RdBu_r" if signed else "viridis"].with_extremes(bad="#b8bec4")
    return ScalarMappable(Normalize(low, high), colour_map), extend


def _edges(axis: Axis) -> np.ndarray:
    """Ends of the cells around the points of an axis."""
    x = axis.positions().numpy()
    if len(x) == 1:
        return np.asarray(x + axis.extent * np.array([-0.5, 0.5]))
    middle = (x[1:] + x[:-1]) / 2
    return np.concatenate([[2 * x[0] - middle[0]], middle, [2 * x[-1] - middle[-1]]])


def _guide(axes: Axes, curves: Sequence[Sequence[np.ndarray]], slope: float) -> None:
    """A power law above all curves, over the middle of the reference's decades."""
    k = curves[0][0][curves[0][0] > 0]
    if len(k) < 4:
        return
    ends = k[0] * (k[-1] / k[0]) ** np.array([0.25, 0.6])
    inside = [(k >= ends[0]) & (k <= ends[1]) for k, *_ in curves]
    level = 3 * max(float(np.nanmax(mean[i] / k[i] ** slope, initial=0.0)) for (k, mean, *_), i in zip(curves, inside, strict=True))
    axes.plot(ends, level * ends**slope, color=GREY, linewidth=1.1, linestyle=(0, (5, 2)))
    axes.annotate(f"$k^{{{slope:.3g}}}$", (ends[1], level * ends[1] ** slope), (4, 2), textcoords="offset points")


def _bins(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Common edges for histograms of all values, as far as they are within one range of the first array's own."""
    finite = [array[np.isfinite(array)] for array in arrays]
    every = np.concatenate(finite)
    if not len(every):
        return np.linspace(0.0, 1.0, 11)
    count = int(np.clip(round(2 * math.sqrt(max(len(array) for array in finite))), 8, 40))
    first = finite[0] if len(finite[0]) else every
    low, high = float(first.min()), float(first.max())
    if high - low > 1e-9 * max(abs(low), abs(high)):
        width = high - low
        return np.linspace(max(float(every.min()), low - width), min(float(every.max()), high + width), count + 1)
    reach = float(np.quantile(np.abs(every - low), 0.98))
    reach = reach if reach > 1e-9 * abs(low) and reach > 0 else 0.05 * abs(low) or 1.0
    return low + reach * (np.arange(-count, count + 2) - 0.5) / count


def _curve_colour(position: int) -> str:
    """Black for the reference, then the colours of the methods."""
    return COLOURS[(position - 1) % len(COLOURS)] if position else BLACK


def _array(values: Tensor) -> np.ndarray:
    return np.asarray(values.detach().to("cpu").double().numpy())
