"""What `meshwright accuracy` prints: bars, rankings, worst rows, figures; and that JSON says the same."""

import json
import re
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_line import Run
from rich.console import Console
from typer.testing import CliRunner, Result

from meshwright.catalog.errors import InputError
from meshwright.cli.app import app
from meshwright.cli.render.accuracies import render_accuracy
from meshwright.planner.accuracy import Accuracy

MEASUREMENTS = Path(__file__).parent.parent / "catalog" / "measurements"


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(name="run_main")
def _run_main(run: Run) -> Run:
    return run


def run_json(*words: str | Path) -> Any:  # noqa: ANN401 - whatever the command prints
    result = run(*words, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout, parse_constant=pytest.fail)


def test_accuracy_opens_with_the_bars_and_tells_of_rankings() -> None:
    words = ("accuracy", MEASUREMENTS / "simumax.yaml", MEASUREMENTS / "vtrain_multi.yaml")
    shown, document = run(*words).stdout, run_json(*words)
    assert shown.startswith("Bars")
    assert shown.index("Layouts of one job") < shown.index("By file")
    met = sum(bar["met"] for bar in document["bars"])
    assert f"{met} of {len(document['bars'])} bars are met" in shown
    for bar in document["bars"]:
        over = bar["value"] - bar["limit"]
        assert bar["met"] is (over >= 0 if bar["relation"] == ">=" else over <= 0)
    assert [Path(ranking["file"]).stem for ranking in document["rankings"]] == ["simumax", "vtrain_multi"]
    for ranking in document["rankings"]:
        assert ranking["in_bar"]
        assert ranking["pairs"] == sum(group["pairs"] for group in ranking["groups"])
        assert ranking["worst_over_best"] == max(group["over_best"] for group in ranking["groups"])


@pytest.mark.parametrize("width", [80, 120])
def test_accuracy_fits_a_terminal(shipped: Accuracy, width: int) -> None:
    console = Console(width=width, record=True, file=StringIO(), color_system=None)
    render_accuracy(console, shipped, rows=False)
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= width
    # Nothing is cut off, and each bar keeps to its line.
    assert "…" not in text
    for bar in shipped.bars:
        assert any(line.split("  ")[0].strip() == bar.name and bar.measure in line for line in text.splitlines())


def test_accuracy_says_what_may_explain_the_worst_rows() -> None:
    words = ("accuracy", MEASUREMENTS / "nemo_launcher_a100.yaml", "--worst", "2")
    document = run_json(*words)
    (name, rows), *others = document["worst"].items()
    assert not others
    assert len(rows) == 2
    assert abs(rows[0]["error"]) == max(abs(row["error"]) for row in document["rows"])
    assert sum(rows[0]["breakdown"].values()) == pytest.approx(rows[0]["predicted"])
    shown = run(*words).stdout
    assert f"Furthest off: {name}" in shown
    for label in ("goes to: matmul", "inferred: ", rows[0]["id"], "trust "):
        assert label in shown
    assert "Furthest off" not in run(*words[:-2]).stdout


def test_accuracy_says_what_was_not_foretold(tmp_path: Path, case_document: Callable[..., dict[str, Any]]) -> None:
    file = tmp_path / "cases.yaml"
    file.write_text(yaml.safe_dump([case_document(id="mine", measured={"out_of_memory": True}, note="a small card")]))
    shown = run("accuracy", file, "--worst", "1").stdout
    assert "Ran out of memory, and weren't foretold to" in shown
    assert "note: a small card" in shown
    assert "moments" in shown


def test_accuracy_draws(tmp_path: Path, case_document: Callable[..., dict[str, Any]]) -> None:
    case_file = tmp_path / "cases.yaml"
    case_file.write_text(yaml.safe_dump([case_document(measured={"step_time_s": 1.0})]))
    run_json("accuracy", case_file, "--plot", tmp_path / "figure.svg")
    assert (tmp_path / "figure.svg").read_text("utf-8").startswith("<?xml")
    refused = run("accuracy", case_file, "--plot", tmp_path / "figure.gif")
    assert isinstance(refused.exception, InputError)
    assert refused.stdout == ""
    assert not (tmp_path / "figure.gif").exists()


def test_nothing_to_draw_is_a_wrong_file(
    run_main: Run, tmp_path: Path, case_document: Callable[..., dict[str, Any]]
) -> None:
    """No case that is both measured and predicted: what was given is at fault, which exits with 2."""
    file, figure = tmp_path / "cases.yaml", tmp_path / "figure.svg"
    file.write_text(yaml.safe_dump([case_document(measured={"step_time_s": None})]))
    code, out, err = run_main("accuracy", file, "--plot", figure)
    assert (code, out) == (2, "")
    assert "there is nothing to draw: no case was both measured and predicted" in err
    assert not figure.exists()


def test_tables_stay_tables_however_far_off_a_row_is(
    run_main: Run, tmp_path: Path, case_document: Callable[..., dict[str, Any]]
) -> None:
    """A step that was measured to take a microsecond, of a model that takes ages, and 1 byte of its terabytes."""
    file = tmp_path / "cases.yaml"
    vast = {"hidden": 10**7, "heads": 10**4, "ffn_hidden": 10**7, "sequence_length": 10**7}
    measured = {"step_time_s": 1e-6, "peak_memory_bytes": 1, "peak_memory_kind": "allocated"}
    file.write_text(yaml.safe_dump([case_document(model=vast, measured=measured)]))
    code, out, err = run_main("accuracy", file, "--rows")
    assert code == 0, err
    assert re.search(r"[0-9]e\+[0-9]+ %", out)
    assert max(map(len, re.findall(r"[0-9][0-9,]*", out))) <= 12
    code, out, err = run_main("estimate", file)
    assert code == 0, err
    assert max(map(len, re.findall(r"[0-9][0-9,]*", out))) <= 12


def test_what_is_given_twice_is_said_to_be(tmp_path: Path) -> None:
    source = MEASUREMENTS / "zero_bubble.yaml"
    cases = yaml.safe_load(source.read_text("utf-8"))
    part, copy = tmp_path / "part.yaml", tmp_path / "copy.yaml"
    part.write_text(yaml.safe_dump(cases[:2]), "utf-8")
    copy.write_bytes(source.read_bytes())
    shown = " ".join(run("accuracy", source, part).stdout.split())
    assert f"counted once: 2 such as {part}: case {cases[0]['id']}" in shown.replace("\n", "")
    document = run_json("accuracy", source, part)
    assert (document["cases"], len(document["repeated"])) == (len(cases), 2)
    for second, words in ((source, "is given twice"), (copy, f"holds the same as {source}")):
        refused = run("accuracy", source, second)
        assert isinstance(refused.exception, InputError)
        assert str(refused.exception) == f"{second}: {words}, and would count twice"
