"""Methods as points: how lawful, how near to the reference, how dear."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.axis import XAxis, YAxis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from pcfm.report.look import BLACK, GREY, ZERO, check, legend, mark, named, styled


class Point(NamedTuple):
    """A method; less is better in all three.

    Attributes:
        violation: of the laws, relative to their scale.
        quality: distance to the reference.
        cost: of a sample.
        spread: half an interval around the quality, 0 for none.
    """

    violation: float
    quality: float
    cost: float
    spread: float = 0.0


def front(points: Mapping[str, Point]) -> list[str]:
    """Methods that no other one beats in violation, quality and cost at once, or equals in all and beats in one.

    Violations below 1e-12 count alike: all of them are round-off.

    Example:
        >>> front({"a": Point(1.0, 1.0, 1.0), "b": Point(1e-15, 2.0, 1.0), "c": Point(1e-14, 3.0, 1.0)})
        ['a', 'b']
    """

    def levels(point: Point) -> tuple[float, float, float]:
        return max(point.violation, _ROUND_OFF), point.quality, point.cost

    def beats(one: Point, other: Point) -> bool:
        a, b = levels(one), levels(other)
        return all(x <= y for x, y in zip(a, b, strict=True)) and a != b

    known = {name: point for name, point in points.items() if _drawable(point)}
    return [name for name, point in known.items() if not any(beats(other, point) for other in known.values())]


@styled
def pareto(points: Mapping[str, Point], title: str, quality: str, cost: str, *, floor: float | None = None) -> Figure:
    """Quality against violation, and against cost, on logarithmic axes; rings mark the methods that no other one beats.

    What is not finite, or has no positive quality, is left out; the legend says so.

    Arguments:
        points: by method.
        title: what is shown.
        quality: name of the distance.
        cost: name of the cost with its unit.
        floor: the distance of further reference solutions, below which nothing can be told apart.

    Raises:
        ValueError: no points that can be drawn.
    """
    shown = {name: point for name, point in points.items() if _drawable(point)}
    check(shown, "pareto")
    figure = Figure(figsize=(10.0, 4.6 + 0.22 * math.ceil(len(points) / 4)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    left.set_title(title, loc="left", pad=8)
    best = front(shown)
    handles: list[Any] = []
    for i, (name, point) in enumerate(points.items()):
        colour, marker = mark(i)
        look: dict[str, Any] = {"color": colour, "marker": marker, "markersize": 7, "linestyle": ""}
        lost = "" if name in shown else " (not drawn)"
        handles.append(Line2D([], [], label=f"{name}{lost}", **look))
        if name not in shown:
            continue
        for axes, x in ((left, max(point.violation, ZERO)), (right, point.cost)):
            axes.plot(x, point.quality, zorder=4, **look)
            if point.spread:
                low = max(point.quality - point.spread, point.quality / 10)
                axes.plot([x, x], [low, point.quality + point.spread], color=colour, linewidth=1.2, zorder=3)
            if name in best:
                axes.plot(
                    x, point.quality, "o", markersize=14, markerfacecolor="none", markeredgecolor=BLACK, markeredgewidth=1.1, zorder=5
                )
    handles.append(
        Line2D([], [], linestyle="", marker="o", markersize=11, markerfacecolor="none", markeredgecolor=BLACK, label="beaten by no other")
    )
    if floor is not None and floor > 0:
        for axes in (left, right):
            axes.axhline(floor, color=GREY, linestyle=(0, (4, 3)), linewidth=1.1, zorder=1)
        handles.append(Line2D([], [], color=GREY, linestyle=(0, (4, 3)), label="further reference solutions"))
    _violation_axis(left, [point.violation for point in shown.values()])
    left.set(yscale="log", ylabel=quality)
    right.set(xscale="log", xlabel=cost)
    _plain(left.yaxis, [point.quality for point in shown.values()])
    _plain(right.xaxis, [point.cost for point in shown.values()])
    for axes in (left, right):
        axes.grid(True, which="major")
    legend(figure, handles)
    return figure


_ROUND_OFF = 1e-12


def _violation_axis(axes: Axes, values: Sequence[float]) -> None:
    """Decades, with zero at the left end."""
    highest = math.ceil(math.log10(10 * max([*values, 1e-2])))
    axes.set(xscale="log", xlim=(ZERO / 3, 10.0**highest), xlabel=named("largest violation, relative to the law's scale", "1"))
    exponents = range(-15, highest + 1, 3 if highest <= 3 else 4)
    axes.set_xticks([ZERO, *(10.0**e for e in exponents)], ["0", *(f"$10^{{{e}}}$" for e in exponents)])
    axes.xaxis.set_minor_locator(NullLocator())


def _plain(axis: XAxis | YAxis, values: Sequence[float]) -> None:
    """Ticks of a logarithmic axis in plain numbers, as many as fit."""
    span = max(values) / min(values)
    axis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7) if span < 5 else (1, 2, 5) if span < 300 else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def _drawable(point: Point) -> bool:
    return all(math.isfinite(value) for value in point) and point.quality > 0 and point.cost > 0
