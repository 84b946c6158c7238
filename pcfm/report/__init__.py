"""What a run was and what came of it: records, tables, figures, one page.

Figures are in `pcfm.report.figure`, which loads matplotlib; nothing here does.
"""

from pcfm.report.html import Section, page
from pcfm.report.record import Record
from pcfm.report.table import Column, to_csv, to_html, to_latex, to_markdown

__all__ = ["Column", "Record", "Section", "page", "to_csv", "to_html", "to_latex", "to_markdown"]
