"""Results to tables: markdown, CSV, LaTeX, HTML.

A row is a dictionary; a column says which key it shows, and how. A value is a number, a text, a pair (mean, spread), or missing; what
the spread is, a standard deviation or half an interval, the column says. A row with `aside` true, such as that of the truth, takes no part
in the contest for the best. CSV keeps every digit, the others are for reading.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import Any, Literal

Row = Mapping[str, Any]

ASIDE = "aside"
"""Key of a row that does not compete."""


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        key: entry of the rows.
        title: header.
        unit: unit of the values, CF spelling; `"1"` and `""` are not shown.
        format: format specification of Python, `""` for the one that reads best.
        best: whether the lowest or the highest value is set in bold; equals, at the digits shown, share it.
        spread: what the second number of a pair is, a header in CSV.
    """

    key: str
    title: str
    unit: str = "1"
    format: str = ""
    best: Literal["low", "high"] | None = None
    spread: str = "std"


def to_markdown(rows: Sequence[Row], columns: Sequence[Column]) -> str:
    """The table in markdown.

    Example:
        >>> rows = [{"name": "A", "error": 3.2e-15}, {"name": "B", "error": 0.5}]
        >>> print(to_markdown(rows, [Column("name", "method"), Column("error", "error", "m s-1", best="low")]), end="")
        | method | error [m s⁻¹] |
        |:--|--:|
        | A | **3.2e-15** |
        | B | 0.500 |
    """

    def text(value: str) -> str:
        return re.sub(r"\s+", " ", value).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")

    heads = [_header(column, text, pretty_unit) for column in columns]
    rules = ["--:" if _numeric(rows, column) else ":--" for column in columns]
    cells = _cells(rows, columns, _Style(text, str, "**{}**"))
    lines = [f"| {' | '.join(heads)} |", f"|{'|'.join(rules)}|", *(f"| {' | '.join(line)} |" for line in cells)]
    return "\n".join(lines) + "\n"


def to_csv(rows: Sequence[Row], columns: Sequence[Column]) -> str:
    """The table as CSV: all digits, units in the header. Pairs take two columns, `title` and, say, `title std`."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    paired = [any(isinstance(row.get(column.key), tuple) for row in rows) for column in columns]
    heads: list[str] = []
    for column, pair in zip(columns, paired, strict=True):
        heads.append(_header(column, str, str))
        if pair:
            heads.append(_header(replace(column, title=f"{column.title} {column.spread}"), str, str))
    writer.writerow(heads)
    for row in rows:
        line: list[Any] = []
        for column, pair in zip(columns, paired, strict=True):
            value = row.get(column.key)
            line += (value if isinstance(value, tuple) else (value, None))[: 1 + pair]
        writer.writerow(line)
    return out.getvalue()


def to_latex(rows: Sequence[Row], columns: Sequence[Column]) -> str:
    """The table as a LaTeX tabular with the rules of booktabs, powers of ten as such."""
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", _NOTHING: "--"}
    special |= {"<": "$<$", ">": "$>$", "±": r"$\pm$"}
    special |= {character: "\\" + character for character in "&%$#_{}"}

    def text(value: str) -> str:
        return "".join(special.get(character, character) for character in value)

    def number(value: str) -> str:
        powers = re.sub(_POWER, r"$\1\\times10^{\2}$", value)
        return re.sub(r"^-", "$-$", powers).replace("±", r"$\pm$").replace("∞", r"$\infty$")

    layout = "".join("r" if _numeric(rows, column) else "l" for column in columns)
    heads = [_header(column, text, lambda unit: re.sub(_UNIT_POWER, r"$^{\1}$", text(unit))) for column in columns]
    lines = [rf"\begin{{tabular}}{{{layout}}}", r"\toprule", " & ".join(heads) + r" \\", r"\midrule"]
    lines += [" & ".join(line) + r" \\" for line in _cells(rows, columns, _Style(text, number, r"{{\boldmath\textbf{{{}}}}}"))]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def to_html(rows: Sequence[Row], columns: Sequence[Column]) -> str:
    """The table as an HTML element, all its texts escaped."""

    def number(value: str) -> str:
        return re.sub(_POWER, r"\1×10<sup>\2</sup>", escape(value)).replace("-", "−")

    kinds = [' class="number"' if _numeric(rows, column) else "" for column in columns]
    heads = "".join(
        f"<th{kind}>{_header(column, escape, lambda unit: escape(pretty_unit(unit)))}</th>"
        for column, kind in zip(columns, kinds, strict=True)
    )
    lines = [
        "<tr>" + "".join(f"<td{kind}>{cell}</td>" for cell, kind in zip(line, kinds, strict=True)) + "</tr>"
        for line in _cells(rows, columns, _Style(escape, number, "<strong>{}</strong>"))
    ]
    return "\n".join(["<table>", f"<thead><tr>{heads}</tr></thead>", "<tbody>", *lines, "</tbody>", "</table>"]) + "\n"


def readable(value: float) -> str:
    """A number in three digits, or two and a power of ten where it is small or large; integers as they are.

    Example:
        >>> readable(3.21e-15), readable(0.5), readable(12), readable(0.0), readable(1.5e7), readable(float("nan"))
        ('3.2e-15', '0.500', '12', '0', '1.5e7', 'NaN')
    """
    if isinstance(value, int) or value == 0:
        return str(int(value))
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "∞" if value > 0 else "-∞"
    if 1e-3 <= abs(value) < 1e4:
        return f"{value:.0f}" if abs(value) >= 99.95 else f"{value:#.3g}"
    return _short(f"{value:.1e}")


def pretty_unit(unit: str) -> str:
    """A unit in CF spelling with its powers raised.

    Example:
        >>> pretty_unit("kg m2 s-1")
        'kg m² s⁻¹'
    """
    raised = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
    return re.sub(_UNIT_POWER, lambda match: match[1].translate(raised), unit)


_NOTHING = "–"
_UNIT_POWER = r"(?<=[A-Za-z])(-?\d+)\b"
_POWER = r"(-?[\d.]+)e(-?\d+)"


@dataclass(frozen=True)
class _Style:
    """How a kind of table writes texts, formatted numbers, and the best of a column."""

    text: Callable[[str], str]
    number: Callable[[str], str]
    bold: str


def _cells(rows: Sequence[Row], columns: Sequence[Column], style: _Style) -> list[list[str]]:
    """The table's cells, row by row."""
    best = [_best(rows, column) for column in columns]
    table = []
    for row in rows:
        line = []
        for column, winner in zip(columns, best, strict=True):
            value = row.get(column.key)
            shown = _format(value, column)
            cell = style.number(shown) if _is_number(value) else style.text(shown)
            wins = _is_number(value) and not row.get(ASIDE) and shown.partition(" ±")[0] == winner
            line.append(style.bold.format(cell) if wins else cell)
        table.append(line)
    return table


def _best(rows: Sequence[Row], column: Column) -> str | None:
    """What the best value of a column looks like; None where nothing competes."""
    means: list[float] = []
    for row in rows:
        value: Any = row.get(column.key)
        if _is_number(value) and not row.get(ASIDE):
            means.append(value[0] if isinstance(value, tuple) else value)
    means = [value for value in means if not math.isnan(value)]
    if column.best is None or len(means) < 2:
        return None
    return _format(min(means) if column.best == "low" else max(means), column)


def _format(value: Any, column: Column) -> str:
    if value is None:
        return _NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return " ± ".join(_format(item, column) for item in value)
    if _is_number(value):
        return _short(format(value, column.format)) if column.format else readable(value)
    return str(value)


def _short(text: str) -> str:
    """A number without the plus and the zeros in front of its exponent."""
    return re.sub(r"e([+-])0*(\d+)$", lambda match: f"e{match[1].strip('+')}{match[2]}", text)


def _header(column: Column, text: Callable[[str], str], unit: Callable[[str], str]) -> str:
    title = text(column.title)
    return title if column.unit in ("", "1") else f"{title} [{unit(column.unit)}]"


def _is_number(value: Any) -> bool:
    if isinstance(value, tuple):
        return len(value) == 2 and all(_is_number(item) for item in value)
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _numeric(rows: Sequence[Row], column: Column) -> bool:
    """Whether a column holds numbers, and so is set flush right."""
    values = [row[column.key] for row in rows if row.get(column.key) is not None]
    return bool(values) and all(_is_number(value) for value in values)
