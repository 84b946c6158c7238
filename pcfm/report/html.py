"""One page that holds everything: figures inside it, nothing fetched, no script."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

_STYLE = """
:root { color-scheme: light; }
body { margin: 0; background: #fff; color: #1f2933; font: 16px/1.6 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1000px; margin: 0 auto; padding: 48px 24px 72px; }
h1 { margin: 0 0 12px; font-size: 2rem; line-height: 1.2; letter-spacing: -0.01em; color: #102a43; }
h2 { margin: 0 0 12px; font-size: 1.3rem; line-height: 1.3; color: #102a43; }
p { margin: 0 0 14px; max-width: 72ch; white-space: pre-line; }
.lead { font-size: 1.1rem; color: #486581; }
section { margin-top: 40px; padding-top: 28px; border-top: 1px solid #e4e7eb; }
figure { margin: 18px 0 0; }
figure img { display: block; max-width: 100%; height: auto; margin: 0 auto; }
figcaption { margin-top: 10px; max-width: 88ch; font-size: 0.9rem; line-height: 1.5; color: #52606d; white-space: pre-line; }
.table { margin-top: 18px; overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.92rem; font-variant-numeric: tabular-nums; }
th, td { padding: 7px 14px; text-align: left; border-bottom: 1px solid #e4e7eb; }
th { font-weight: 600; color: #334e68; border-bottom: 2px solid #9fb3c8; vertical-align: bottom; }
tbody tr:hover { background: #f5f7fa; }
td.number, th.number { text-align: right; }
td.number { white-space: nowrap; }
sup { line-height: 0; font-size: 0.75em; }
@media print { main { max-width: none; padding: 0; } section, figure, tr { break-inside: avoid; } }
""".strip()

_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Section:
    """One part of a page.

    Attributes:
        title: heading.
        text: plain text, paragraphs apart by an empty line.
        figure: a PNG file.
        table: HTML of a table, as `to_html` makes it; the only thing that is not escaped.
        caption: plain text under the figure, or under the table if there is no figure.
    """

    title: str
    text: str = ""
    figure: str | Path | None = None
    table: str | None = None
    caption: str | None = None


def page(title: str, lead: str, sections: Sequence[Section]) -> str:
    """A self-contained HTML page.

    Arguments:
        title: of the page.
        lead: what it shows, in a sentence or two of plain text.
        sections: its parts, in order.

    Returns:
        The document; write it as UTF-8.

    Raises:
        ValueError: a figure is not a PNG file.
    """
    body = "\n".join(_section(section) for section in sections)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>
{_STYLE}
</style>
</head>
<body>
<main>
<h1>{escape(title)}</h1>
{_paragraphs(lead, ' class="lead"')}
{body}
</main>
</body>
</html>
"""


def _section(section: Section) -> str:
    parts = [f"<h2>{escape(section.title)}</h2>", _paragraphs(section.text)]
    caption = f"<figcaption>{escape(section.caption)}</figcaption>" if section.caption else ""
    table = f'<div class="table">{section.table}</div>' if section.table is not None else ""
    if section.figure is not None:
        text = escape(section.caption or section.title)
        image = f'<img src="data:image/png;base64,{_encoded(Path(section.figure))}" alt="{text}">'
        parts += [table, f"<figure>{image}{caption}</figure>"]
    elif table:
        parts += [f"<figure>{table}{caption}</figure>"]
    return "<section>\n" + "\n".join(part for part in parts if part) + "\n</section>"


def _paragraphs(text: str, attributes: str = "") -> str:
    paragraphs = [part.strip() for part in text.split("\n\n") if part.strip()]
    return "\n".join(f"<p{attributes}>{escape(part)}</p>" for part in paragraphs)


def _encoded(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"page expects a PNG file at {path}; {type(error).__name__}. Save the figure first.") from error
    if not data.startswith(_PNG):
        raise ValueError(f"page expects a PNG file at {path}; its content is something else.")
    return base64.b64encode(data).decode("ascii")
