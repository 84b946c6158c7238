"""The gallery: scripts at small size, their numbers as near to theory as they should be; pages are those of code and record."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.gallery import EXHIBITS
from benchmarks.gallery.exhibit import Measure
from benchmarks.gallery.page import FIGURES, METHODS_PAGE, PAGE, accepted, anchor, gallery_page, make, methods_page, numbers, paper, script
from benchmarks.gallery.tables import TABLES

SCRIPTS = Path(__file__).resolve().parents[1] / "benchmarks" / "gallery"
MACHINERY = {"__init__", "__main__", "exhibit", "page", "tables"}


@pytest.mark.parametrize("name", EXHIBITS)
def test_each_script_at_small_size(name: str, tmp_path: Path) -> None:
    shown = make(name, full=False)
    for measure in shown.measures:
        assert measure.held, f"{measure.of.__name__}, {measure.quantity}: {measure.value:g}, {measure.exact:g} within {measure.within:g}"
    shown.figure.savefig(tmp_path / "figure.png", dpi=40)
    assert (tmp_path / "figure.png").stat().st_size > 2_000


def test_every_script_is_shown() -> None:
    assert {file.stem for file in SCRIPTS.glob("*.py")} == {*EXHIBITS, *MACHINERY}


def test_what_is_held_and_what_is_not() -> None:
    assert Measure(len, "", 1.05, 0.1, exact=1.0).held
    assert not Measure(len, "", 1.2, 0.1, exact=1.0).held
    assert Measure(len, "", 1.2, 0.1, exact=1.0, control=True).held
    assert not Measure(len, "", float("nan"), 0.1).held
    assert not Measure(len, "", float("nan"), 0.1, control=True).held


def test_recorded_numbers_hold_and_have_their_figures() -> None:
    recorded = numbers()
    assert tuple(recorded) == EXHIBITS
    for name, rows in recorded.items():
        assert rows
        assert (FIGURES / f"{name}.png").stat().st_size > 5_000
        for row in rows:
            off = abs(row["value"] - row["exact"])
            assert off > row["within"] if row["control"] else off <= row["within"], (name, row["quantity"])


def test_pages_are_those_of_the_code_and_the_record() -> None:
    """`python -m benchmarks.gallery` writes them anew."""
    assert PAGE.read_text() == gallery_page(numbers())
    assert METHODS_PAGE.read_text() == methods_page(numbers())


@pytest.mark.parametrize("table", TABLES)
def test_every_entry_has_a_number_and_every_method_a_paper(table: str) -> None:
    recorded = numbers()
    for name, kind in TABLES[table].items():
        # the gradient at the state and the flow alone are there to be compared with
        assert accepted(recorded, kind) or name == "drift", f"{name} has no number: measure it in a script of the gallery"
        if table in ("Couplings", "Guidance", "Sampling methods", "Objectives of few-step maps") and name not in ("independent", "drift"):
            assert paper(kind), f"{name} names no paper under Source: or as reference"


def test_links_to_sections_lead_somewhere() -> None:
    sections = {anchor(name) for name in EXHIBITS}
    assert len(sections) == len(EXHIBITS)
    assert set(re.findall(r"gallery\.md#([\w-]+)", METHODS_PAGE.read_text())) <= sections
    assert all(script(name).__doc__ for name in EXHIBITS)
