"""Reports: records that survive the disk, tables that read well, figures that show what they are given, one closed page."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import subprocess
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.image import imread
from torch import Tensor

from constraints import Axis, Grid
from pcfm.metrics import Cost, energy_spectrum
from pcfm.report import Column, Record, Section, figure, page, record, to_csv, to_html, to_latex, to_markdown

COST = Cost(seconds=1.5, cpu_seconds=2.5, peak_memory_bytes=10**9, network_calls=50, projections=7, multiplier_solves=21)
SQUARE = Grid(Axis("x", 32, length=2 * math.pi, periodic=True), Axis("y", 32, length=2 * math.pi, periodic=True))
ROWS = [
    {"method": "unconstrained", "violation": 0.25, "error": (0.5, 0.01), "calls": 50},
    {"method": "projected | <end>", "violation": 3.21e-15, "error": (0.4, 0.02), "calls": None},
    {"method": "PCFM_1", "violation": 0.0, "error": (0.4, 1e-5), "calls": 12000},
]
COLUMNS = [
    Column("method", "method"),
    Column("violation", "divergence", "m s-1", best="low"),
    Column("error", "error", "1", best="low"),
    Column("calls", "calls"),
]


def a_record(**results: object) -> Record:
    return Record.of(COST, device="cpu", seeds={"noise": 3}, results=results, command=["/somewhere/bin/pcfm", "sample", "my run"])


def fields(count: int, seed: int = 0) -> Tensor:
    """Smooth random fields on the square, (n, H, W)."""
    noise = torch.randn(count, 32, 32, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    k = torch.hypot(torch.fft.fftfreq(32, 1 / 32)[:, None], torch.fft.rfftfreq(32, 1 / 32))
    return torch.fft.irfft2(torch.fft.rfft2(noise) * torch.exp(-((k / 4) ** 2)), s=(32, 32))


def pixels(path: Path) -> np.ndarray:
    image = imread(path)[..., :3]
    assert image.std() > 0.02, "the figure is blank"
    return image


def texts(drawn: Figure) -> str:
    return "\n".join(text.get_text() for text in drawn.findobj(matplotlib.text.Text))


# records


def test_record_survives_the_disk(tmp_path: Path) -> None:
    made = a_record(energy=[0.5, 1.0], table=[{"law": "mass", "violation": 1e-16}])
    made.write(tmp_path / "record.json")
    assert Record.read(tmp_path / "record.json") == made
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"], "no temporary file is left"


def test_record_holds_what_repeats_the_run() -> None:
    made = a_record()
    assert made.command == "pcfm sample 'my run'"
    assert made.libraries["torch"].startswith(torch.__version__.split("+")[0])
    assert made.libraries["python"].count(".") == 2
    assert (made.device, made.threads, made.seeds) == ("cpu", torch.get_num_threads(), {"noise": 3})
    assert (made.seconds, made.cpu_seconds, made.peak_memory_bytes) == (1.5, 2.5, 10**9)
    assert (made.network_calls, made.multiplier_solves) == (50, 21)
    assert set(made.code) == {"version", "commit", "dirty"}
    assert made.schema == 1


def test_record_is_plain_json(tmp_path: Path) -> None:
    """Strict JSON has no NaN: other languages read these files."""
    a_record(values=torch.tensor([1.0, math.nan, math.inf]), count=np.int64(3), file=Path("a.h5")).write(tmp_path / "r.json")

    def reject(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    data = json.loads((tmp_path / "r.json").read_text(), parse_constant=reject)
    assert data["results"] == {"values": [1.0, "nan", "inf"], "count": 3, "file": "a.h5"}
    with pytest.raises(ValueError, match="got object"):
        a_record(value=object())


def test_record_replaces_a_file_only_when_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "record.json"
    a_record(run=1).write(path)

    def fail(*_: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(record.os, "replace", fail)
    with pytest.raises(OSError, match="full"):
        a_record(run=2).write(path)
    assert Record.read(path).results == {"run": 1}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "JSON document"),
        ("\x00\xff", "JSON document"),
        ("[1, 2]", "some other document"),
        ('{"version": 3}', "some other document"),
        ('{"schema": "one"}', "some other document"),
        ('{"schema": true}', "some other document"),
        ('{"schema": 1}', "command, code, .* missing"),
        ('{"schema": 2}', "later pcfm"),
    ],
)
def test_record_rejects_foreign_files(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "r.json").write_text(content, encoding="latin-1")
    with pytest.raises(ValueError, match=message):
        Record.read(tmp_path / "r.json")
    with pytest.raises(ValueError, match="FileNotFoundError"):
        Record.read(tmp_path / "none.json")


def test_record_rejects_values_of_another_type_and_ignores_additions(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    a_record().write(path)
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, "added": 1}))
    assert Record.read(path) == Record(**data)
    path.write_text(json.dumps({**data, "seconds": "long", "threads": True}))
    with pytest.raises(ValueError, match="threads, seconds of another type"):
        Record.read(path)


def test_code_version_with_a_checkout_and_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*arguments: str) -> str:
        identity = ("-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "commit.gpgsign=false")
        return subprocess.run(["git", *identity, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True).stdout.strip()

    module = tmp_path / "record.py"
    module.write_text("")
    monkeypatch.setattr(record, "__file__", str(module))
    assert record.code_version()["commit"] is None
    try:
        git("init", "-q")
    except FileNotFoundError:
        pytest.skip("git is not installed")
    git("commit", "-q", "--allow-empty", "-m", "Something else")
    assert record.code_version()["commit"] is None, "a checkout that does not track the code says nothing about it"
    git("add", "record.py")
    git("commit", "-q", "-m", "Start")
    version = record.code_version()
    assert (version["commit"], version["dirty"]) == (git("rev-parse", "HEAD"), False)
    module.write_text("changed")
    assert record.code_version()["dirty"] is True
    monkeypatch.setenv("PATH", "")
    assert record.code_version()["commit"] is None, "git is missing"


def test_command_line_names_a_module_run_as_one() -> None:
    assert record.command_line(["/x/pcfm/__main__.py", "demo"]) == "python -m pcfm demo"


# tables


def test_markdown() -> None:
    assert to_markdown(ROWS, COLUMNS) == (
        "| method | divergence [m s⁻¹] | error | calls |\n"
        "|:--|--:|--:|--:|\n"
        "| unconstrained | 0.250 | 0.500 ± 0.0100 | 50 |\n"
        "| projected \\| &lt;end> | 3.2e-15 | **0.400 ± 0.0200** | – |\n"
        "| PCFM_1 | **0** | **0.400 ± 1.0e-5** | 12000 |\n"
    )


def test_csv_keeps_every_digit() -> None:
    lines = list(csv.reader(io.StringIO(to_csv([*ROWS, {"method": 'a "b", c', "violation": 1 / 3}], COLUMNS))))
    assert lines[0] == ["method", "divergence [m s-1]", "error", "error std", "calls"]
    assert lines[2] == ["projected | <end>", "3.21e-15", "0.4", "0.02", ""]
    assert lines[4][0] == 'a "b", c'
    assert float(lines[4][1]) == 1 / 3


def test_latex_escapes_and_writes_powers() -> None:
    lines = to_latex(ROWS, COLUMNS).splitlines()
    assert lines[0] == r"\begin{tabular}{lrrr}"
    assert lines[2] == r"method & divergence [m s$^{-1}$] & error & calls \\"
    assert lines[5] == r"projected | $<$end$>$ & $3.2\times10^{-15}$ & {\boldmath\textbf{0.400 $\pm$ 0.0200}} & -- \\"
    assert lines[6].startswith(r"PCFM\_1 & {\boldmath\textbf{0}}")
    assert to_latex([{"a": r"50% & \x"}], [Column("a", "L2")]).splitlines()[2:5] == [r"L2 \\", r"\midrule", r"50\% \& \textbackslash{}x \\"]


def test_html_table_escapes() -> None:
    html = to_html(ROWS, COLUMNS)
    assert "projected | &lt;end&gt;" in html
    assert "<end>" not in html
    assert '<td class="number">3.2×10<sup>−15</sup></td>' in html
    assert '<td class="number"><strong>0</strong></td>' in html
    assert '<th class="number">divergence [m s⁻¹]</th>' in html


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (3.21e-15, "3.2e-15"),
        (-0.5, "-0.500"),
        (99.94, "99.9"),
        (99.96, "100"),
        (9999.0, "9999"),
        (12345.6, "1.2e4"),
        (0.001, "0.00100"),
        (0.000999, "1.0e-3"),
        (7, "7"),
        (True, "yes"),
        (math.nan, "NaN"),
        (-math.inf, "-∞"),
        (0.0, "0"),
        ("3e5", "3e5"),
        (None, "–"),
    ],
)
def test_values_are_readable(value: object, shown: str) -> None:
    assert to_markdown([{"a": value}], [Column("a", "a")]).splitlines()[2] == f"| {shown} |"


def test_a_given_format_is_used() -> None:
    assert "| 3.21e-15 |" in to_markdown(ROWS, [Column("violation", "v", format=".2e")])


@pytest.mark.parametrize(("best", "winners"), [("low", [1, 2]), ("high", [3]), (None, [])])
def test_the_best_is_bold_and_ties_share(best: str | None, winners: list[int]) -> None:
    """Equal at the digits shown is equal; NaN never wins; one value alone has not won."""
    rows = [{"a": math.nan}, {"a": 1.0001}, {"a": 1.0002}, {"a": 2.0}, {"a": None}]
    lines = to_markdown(rows, [Column("a", "a", best=best)]).splitlines()[2:]  # type: ignore[arg-type]
    assert [i for i, line in enumerate(lines) if "**" in line] == winners
    assert "**" not in to_markdown(rows[3:], [Column("a", "a", best="low")])


# figures


def saved(drawn: Figure, folder: Path) -> np.ndarray:
    path = figure.save(drawn, folder / "figures", "one")
    assert path == folder / "figures" / "one.png"
    assert (folder / "figures" / "one.pdf").read_bytes().startswith(b"%PDF")
    return pixels(path)


def test_fields_share_one_symmetric_range_and_point_the_right_way(tmp_path: Path) -> None:
    """A bump at large x and small y is dark red, low and on the right."""
    x, y = SQUARE.mesh()
    bump = torch.exp(-((x - 5) ** 2 + (y - 1) ** 2) / 0.5)[None]
    drawn = figure.field_panel({"reference": 2 * bump - 0.1, "PCFM": -bump}, "vorticity", "s-1", SQUARE)
    images = [axes.images[0] for axes in drawn.axes if axes.images]
    assert len(images) == 2
    assert all(image.get_clim() == pytest.approx((-1.9, 1.9), abs=0.1) for image in images)
    array = images[0].get_array()
    row, column = np.unravel_index(np.argmax(array), array.shape)
    assert (images[0].origin, row, column) == ("lower", 5, 25)
    assert images[0].get_extent() == pytest.approx([-math.pi / 32, 2 * math.pi - math.pi / 32] * 2)
    shown = texts(drawn)
    assert all(word in shown for word in ("vorticity [s⁻¹]", "reference", "PCFM", "sample 1"))
    image = saved(drawn, tmp_path)
    assert ((image[..., 0] > 0.3) & (image[..., 1] < 0.2) & (image[..., 2] < 0.3)).sum() > 20, "dark red"
    assert ((image[..., 2] > 0.55) & (image[..., 0] < 0.45)).sum() > 20, "blue"


def test_fields_stored_with_y_first_look_the_same() -> None:
    u = fields(1)
    turned = Grid(*reversed(SQUARE.axes))
    one = figure.field_panel({"a": u}, "u", "1", SQUARE)
    other = figure.field_panel({"a": u.transpose(1, 2)}, "u", "1", turned)
    first, second = (next(axes.images[0].get_array() for axes in drawn.axes if axes.images) for drawn in (one, other))
    assert np.array_equal(first, second)


def test_the_first_row_sets_the_range_and_the_bar_marks_what_exceeds_it() -> None:
    u = fields(2)
    drawn = figure.field_panel({"reference": u, "diverged": 1e6 * u}, "u", "1", SQUARE)
    limits = {axes.images[0].get_clim() for axes in drawn.axes if axes.images}
    peak = u.abs().max().item()
    assert limits == {(-peak, peak)}
    bars = [axes._colorbar for axes in drawn.axes if hasattr(axes, "_colorbar")]
    assert [bar.extend for bar in bars] == ["both"], "one bar for all"


def test_positive_fields_have_a_sequential_map_and_odd_ones_are_drawn(tmp_path: Path) -> None:
    drawn = figure.field_panel({"density": fields(2).abs() + 1}, "density", "kg m-3", SQUARE)
    image = next(axes.images[0] for axes in drawn.axes if axes.images)
    assert image.get_cmap().name == "viridis"
    assert image.get_clim()[0] >= 1
    broken = fields(1)
    broken[0, :8] = math.nan
    saved(figure.field_panel({"a": torch.zeros(3, 32, 32), "b": broken}, "u", "1", SQUARE), tmp_path)
    saved(figure.field_panel({"a": torch.full((1, 32, 32), 2.0)}, "u", "1", SQUARE), tmp_path)


def test_space_time_has_time_upwards(tmp_path: Path) -> None:
    grid = Grid(Axis("time", 5, length=2.0, unit="s"), Axis.at("x", [0.0, 0.1, 0.3, 0.7, 1.0, 1.1], unit="m"))
    u = torch.zeros(1, 5, 6)
    u[0, 4, 0] = 1.0
    drawn = figure.space_time({"reference": u, "PCFM": -u}, "velocity", "m s-1", grid)
    mesh = next(axes.collections[0] for axes in drawn.axes if axes.collections)
    row, column = np.unravel_index(np.argmax(mesh.get_array()), (5, 6))
    assert (row, column) == (4, 0)
    assert "time [s]" in texts(drawn)
    assert "x [m]" in texts(drawn)
    saved(drawn, tmp_path)


def test_panels_reject_what_is_not_on_the_grid() -> None:
    with pytest.raises(ValueError, match=r"\(n, 32, 32\) for 'a'"):
        figure.field_panel({"a": torch.zeros(2, 1, 32, 32)}, "u", "1", SQUARE)
    with pytest.raises(ValueError, match="two space axes"):
        figure.field_panel({"a": torch.zeros(2, 8)}, "u", "1", Grid(Axis("x", 8)))
    with pytest.raises(ValueError, match="time and one space axis"):
        figure.space_time({"a": torch.zeros(2, 32, 32)}, "u", "1", SQUARE)
    for draw in (
        lambda: figure.spectra({}),
        lambda: figure.violations({}),
        lambda: figure.loss_curve([]),
        lambda: figure.distribution({}, "u", "1"),
    ):
        with pytest.raises(ValueError, match="something to show"):
            draw()


def test_spectra_draw_the_curves_and_their_bands(tmp_path: Path) -> None:
    def curve(u: Tensor) -> figure.Curve:
        k, energy = energy_spectrum(u[:, None], SQUARE)
        return k, energy.mean(0), energy.quantile(0.1, 0), energy.quantile(0.9, 0)

    curves = {"reference": curve(fields(20)), "PCFM": curve(fields(20, 1))}
    drawn = figure.spectra(curves, "Spectrum", "m2 s-2", slope=-3.0)
    axes = drawn.axes[0]
    line = axes.lines[0]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert line.get_xdata()[0] == 1.0, "the mean mode has no place on a logarithmic axis"
    assert line.get_ydata()[0] == pytest.approx(curves["reference"][1][1].item())
    guide = axes.lines[2]
    (x0, x1), (y0, y1) = guide.get_xdata(), guide.get_ydata()
    assert math.log(y1 / y0) / math.log(x1 / x0) == pytest.approx(-3)
    assert len(axes.collections) == 2
    saved(drawn, tmp_path)


def test_spectra_of_nothing_are_drawn(tmp_path: Path) -> None:
    k, zero = torch.arange(5.0), torch.zeros(5)
    saved(figure.spectra({"reference": (k, zero, zero, zero)}, slope=-3.0), tmp_path)


def test_violations_place_zero_round_off_and_failure(tmp_path: Path) -> None:
    values = {"unconstrained": {"mass": 1e-1, "energy": math.nan}, "PCFM": {"mass": 0.0, "energy": 2e-16, "momentum": 1e-30}}
    drawn = figure.violations(values, tolerance=1e-12)
    axes = drawn.axes[0]
    marks = [line for line in axes.lines if line.get_marker() in ("o", "s")]
    places = [(float(line.get_xdata()[0]), line.get_markerfacecolor() == "white") for line in marks]
    assert places == [(0.1, False), (1.0, True), (1e-17, True), (2e-16, False), (1e-17, True)]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["mass", "energy", "momentum"]
    assert axes.get_xticklabels()[0].get_text() == "0"
    shown = texts(drawn)
    assert all(word in shown for word in ("not finite", "zero, or below 1e-17", "tolerance 1e-12", "unconstrained", "PCFM"))
    saved(drawn, tmp_path)


def test_loss_curve(tmp_path: Path) -> None:
    history = [{"step": 10 * i, "loss": 1.0 / i, "seconds": 1.0} | ({"validation": 2.0 / i} if i % 2 == 0 else {}) for i in range(1, 9)]
    drawn = figure.loss_curve(history)
    training, validation = drawn.axes[0].lines
    assert list(training.get_xdata()) == [entry["step"] for entry in history]
    assert list(validation.get_ydata()) == [1.0, 0.5, pytest.approx(1 / 3), 0.25]
    saved(drawn, tmp_path)


def test_distribution_counts_every_sample(tmp_path: Path) -> None:
    reference = torch.linspace(0.4, 0.6, 100)
    drawn = figure.distribution(
        {"reference": reference, "PCFM": torch.full((10,), 0.5), "diverged": torch.tensor([0.5, 1e9, math.nan])}, "energy", "m2 s-2"
    )
    steps = [patch for patch in drawn.axes[0].patches if not patch.get_fill()]
    assert [np.nansum(patch.get_data().values) for patch in steps] == pytest.approx([1.0, 1.0, 1 / 3])
    assert "diverged (N = 3, 2 outside)" in texts(drawn)
    saved(drawn, tmp_path)


@pytest.mark.parametrize("value", [0.5, 0.0, -1e8, 1e-300])
def test_distribution_of_one_value_is_one_bar(value: float) -> None:
    one = torch.full((8,), value, dtype=torch.float64)
    drawn = figure.distribution({"reference": one, "PCFM": one * (1 + 1e-16)}, "energy", "1")
    for patch in drawn.axes[0].patches:
        assert np.nanmax(patch.get_data().values) == 1.0


def test_figures_are_the_same_bytes_and_leave_no_settings_behind(tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    history = [{"step": i, "loss": 1.0 / i} for i in range(1, 5)]
    one, two = (figure.save(figure.loss_curve(history), tmp_path / name, "loss") for name in "ab")
    assert one.read_bytes() == two.read_bytes()
    assert one.with_suffix(".pdf").read_bytes() == two.with_suffix(".pdf").read_bytes()
    assert dict(matplotlib.rcParams) == before


# pages


def test_page_is_closed_and_escapes_everything_but_tables(tmp_path: Path) -> None:
    path = figure.save(figure.loss_curve([{"step": 1, "loss": 1.0}, {"step": 2, "loss": 0.5}]), tmp_path, "loss")
    attack = "<script>alert('x')</script> & \"more\""
    table = to_html(ROWS, COLUMNS)
    text = page(
        attack, attack, [Section(attack, f"{attack}\n\nsecond", path, table, attack), Section("table alone", table=table, caption="c")]
    )
    assert "<script" not in text
    assert text.count("&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt; &amp; &quot;more&quot;") == 7
    assert text.count(table) == 2
    assert "<p>second</p>" in text
    assert text.count("data:image/png;base64,") == 1
    assert not re.search(r"(src|href)=\"(?!data:)|https?://|@import|url\(", text), "nothing is fetched"
    assert str(tmp_path) not in text, "nor does it say where it was made"
    for tag in ("section", "figure", "table", "main", "body", "html", "p"):
        assert len(re.findall(rf"<{tag}[ >]", text)) == text.count(f"</{tag}>"), tag


def test_page_rejects_what_is_not_a_figure(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("no image")
    for name in ("a.png", "missing.png"):
        with pytest.raises(ValueError, match="expects a PNG file"):
            page("t", "l", [Section("s", figure=tmp_path / name)])
