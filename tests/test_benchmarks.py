"""Published results: the benchmark's ratios, met or not, come out again up to a factor of three, as they spread on shared cores; pages are
those of their records."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import validation
from pde_datasets import PROBLEMS

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_published_ratios_come_out_again(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.run", "--pairs", "5", "--out", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True, timeout=1500, cwd=ROOT)
    rows = json.loads((tmp_path / "projection.json").read_text())["results"]["rows"]
    published = json.loads((ROOT / "benchmarks" / "results" / "projection.json").read_text())["results"]["rows"]
    for row, known in zip(rows, published, strict=True):
        assert row["name"].split("(")[0] == known["name"].split("(")[0]
        worse = row["median"] / known["median"] if row["goal"].startswith("at most") else known["median"] / row["median"]
        assert worse <= 3, row["name"]


def test_published_table_is_that_of_its_record() -> None:
    results = ROOT / "benchmarks" / "results"
    text = (results / "projection.md").read_text()
    for row in json.loads((results / "projection.json").read_text())["results"]["rows"]:
        assert row["name"] in text
        assert row["range"] in text


def test_validation_page_is_that_of_its_record() -> None:
    """And of the problems as they are: `python -m benchmarks.validation` makes it anew. Figures have their test, problems their figures."""
    rows = list(json.loads(validation.RECORD.read_text()).values())
    assert validation.PAGE.read_text() == validation.page(rows)
    for row in rows:
        file, _, test = row["test"].partition("::")
        assert f"def {test.partition('[')[0]}(" in (ROOT / file).read_text(), row["test"]
    for quantities in ({row["problem"] for row in rows if (row["quantity"] == validation.LAWS) is laws} for laws in (True, False)):
        assert set(PROBLEMS) <= quantities


@pytest.mark.parametrize(
    ("ours", "reference", "text"),
    [
        (0.42631942, "0.426319", "0.426319"),
        (3.987, "4", "3.99"),
        (1.4017, "1.400 ± 0.004", "1.402"),
        (2.04e-4, "", "2.0e-4"),
        (1.37e-6, "1e-6", "1.4e-6"),
        (0.0, "0.0", "0"),
    ],
)
def test_figures_have_the_digits_of_their_reference(ours: float, reference: str, text: str) -> None:
    assert validation.alike(ours, reference) == text


def test_quantities_are_sorted_by_the_value_of_their_numbers() -> None:
    texts = ["128^3: peak", "32^3: time", "Re 100, 24 cells", "re 1000", "32^3: peak", "1.5 a"]
    expected = ["1.5 a", "32^3: peak", "32^3: time", "128^3: peak", "Re 100, 24 cells", "re 1000"]
    assert sorted(texts, key=validation.natural) == expected
