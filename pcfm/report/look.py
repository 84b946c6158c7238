"""The look of all figures: fonts, colours, marks, legends. Built without pyplot and its global state."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Sized
from functools import wraps
from typing import Any, ParamSpec

from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pcfm.report.table import pretty_unit

LOOK: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.5,
    "axes.titlesize": 10,
    "axes.labelsize": 9.5,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9,
    "figure.titlesize": 11,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "axes.facecolor": "white",
    "axes.edgecolor": "#5f6b76",
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": False,
    "grid.color": "#e3e7eb",
    "grid.linewidth": 0.7,
    "xtick.color": "#3c4650",
    "ytick.color": "#3c4650",
    "lines.linewidth": 1.7,
    "legend.frameon": False,
    "pdf.fonttype": 42,
}

BLACK = "#1b1f24"
GREY = "#5f6b76"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f5aa8", "#8c6d31")
"""After Okabe & Ito: told apart by readers who confuse colours."""

MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*")

ZERO = 1e-17
"""Where a violation of zero is drawn: below the round-off of a number of order one."""

P = ParamSpec("P")


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Draw with the house look, whatever the caller has set."""

    @wraps(draw)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with rc_context(LOOK):
            return draw(*args, **kwargs)

    return wrapper


def mark(position: int) -> tuple[str, str]:
    """Colour and marker of a method, another pair for each of the first 64."""
    return COLOURS[position % len(COLOURS)], MARKERS[(position + position // len(COLOURS)) % len(MARKERS)]


def single(title: str, width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, loc="left", pad=8)
    return figure, axes


def legend(figure: Figure, handles: Sequence[Artist]) -> None:
    """A legend below the axes, in as many columns as fit."""
    longest = max((len(str(handle.get_label())) for handle in handles), default=0)
    columns = max(1, int(figure.get_figwidth() / (0.55 + 0.078 * longest)))
    figure.legend(handles=list(handles), loc="outside lower center", ncols=min(columns, len(handles)))


def named(name: str, unit: str) -> str:
    return name if unit in ("", "1") else f"{name} [{pretty_unit(unit)}]"


def check(values: Sized, speaker: str) -> None:
    if not len(values):
        raise ValueError(f"{speaker} expects something to show; got nothing.")
