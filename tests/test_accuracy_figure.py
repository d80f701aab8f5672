"""The figure of predictions against measurements, and the file that it goes to."""

import importlib.util
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from meshwright.catalog.errors import InputError, MeshwrightError
from meshwright.cli.figure_file import require_drawable, write_figure
from meshwright.cli.render.accuracy_figure import draw_accuracy
from meshwright.cli.render.figure_kind import FigureKind
from meshwright.planner.accuracy import Estimate, accuracy
from meshwright.planner.accuracy.rows import Row

MakeEstimate = Callable[..., Estimate]
STARTS = {FigureKind.PNG: b"\x89PNG", FigureKind.SVG: b"<?xml", FigureKind.PDF: b"%PDF"}
BAND = "#e0e0e0"


def rows_of(make_estimate: MakeEstimate, *measured: float) -> tuple[Row, ...]:
    estimates = [
        make_estimate({"step_time_s": step}, trust=trust, file=f"{trust}.yaml")
        for step, trust in zip(measured, ("high", "medium", "low", "high"), strict=False)
    ]
    return accuracy(estimates).rows


@pytest.mark.parametrize("kind", FigureKind)
def test_the_same_rows_give_the_same_bytes(make_estimate: MakeEstimate, kind: FigureKind) -> None:
    rows = rows_of(make_estimate, 1.8, 2.0, 40.0, 0.1)
    drawn = draw_accuracy(rows, kind)
    assert drawn.startswith(STARTS[kind])
    assert drawn == draw_accuracy(rows, kind)
    assert drawn != draw_accuracy(rows_of(make_estimate, 1.8, 2.0, 40.0, 0.2), kind)


def test_every_row_is_a_point_as_strong_as_its_trust(make_estimate: MakeEstimate) -> None:
    drawn = draw_accuracy(rows_of(make_estimate, 1.8, 2.0, 40.0, 2.1), FigureKind.SVG).decode()
    points = re.findall(r'<use [^>]*style="fill: (#[0-9a-f]{6})(?:; fill-opacity: ([0-9.]+))?"/>', drawn)
    assert sorted(strength for colour, strength in points if colour != BAND) == ["", "", "0.35", "0.6"]
    assert len({colour for colour, _ in points if colour != BAND}) == 3


def test_what_lies_beyond_the_axis_is_told(make_estimate: MakeEstimate) -> None:
    # Predicted are 2 s: a twentieth of the first, twenty times the second.
    drawn = draw_accuracy(rows_of(make_estimate, 40.0, 0.1, 2.0), FigureKind.SVG).decode()
    assert len(re.findall(r'<use [^>]*style="fill: #[0-9a-f]{6}; stroke: #', drawn)) == 2


def test_memory_has_a_panel_of_its_own(make_estimate: MakeEstimate) -> None:
    timed = rows_of(make_estimate, 2.0)
    sized = accuracy([make_estimate({"peak_memory_bytes": 2**33, "peak_memory_kind": "allocated"})]).rows
    panels = [draw_accuracy(rows, FigureKind.SVG).count(b'<g id="axes_') for rows in (timed, sized, (*timed, *sized))]
    assert panels == [2, 2, 4]


def test_nothing_to_draw_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing to draw"):
        write_figure((), tmp_path / "empty.svg")
    assert list(tmp_path.iterdir()) == []


def test_a_figure_replaces_a_file_whole(make_estimate: MakeEstimate, tmp_path: Path) -> None:
    file = tmp_path / "figure.SVG"
    file.write_text("old")
    write_figure(rows_of(make_estimate, 2.0), file)
    assert file.read_bytes() == draw_accuracy(rows_of(make_estimate, 2.0), FigureKind.SVG)
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("name", ["figure", "figure.gif", "svg", ".svg"])
def test_a_kind_that_cannot_be_drawn(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=name) as caught:
        require_drawable(tmp_path / name)
    assert ".svg, .png or .pdf" in caught.value.hint


def test_a_place_that_cannot_be_written_to(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no folder"):
        require_drawable(tmp_path / "missing" / "figure.svg")
    (tmp_path / "folder.svg").mkdir()
    with pytest.raises(InputError, match="is not a regular file"):
        require_drawable(tmp_path / "folder.svg")


def test_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meshwright.cli.figure_file.find_spec", lambda name: importlib.util.find_spec(f"no_{name}"))
    with pytest.raises(MeshwrightError, match="matplotlib, which isn't installed") as caught:
        require_drawable(tmp_path / "figure.svg")
    assert caught.value.hint == "pip install matplotlib"
