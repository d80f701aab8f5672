"""The command line: what each command prints, that JSON stands alone, and the exit codes."""

import json
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner, Result

from meshwright.catalog.errors import Infeasible, InputError, MeshwrightError, PlanDrift
from meshwright.catalog.lookup import entry_names
from meshwright.catalog.precision import Precision
from meshwright.cli import console as console_module
from meshwright.cli.app import app
from meshwright.cli.console import busy, print_error
from meshwright.cli.render.tables import bars
from meshwright.cli.render.units import (
    shown_bytes,
    shown_duration,
    shown_error,
    shown_parameters,
    shown_rate,
    shown_seconds,
    shown_share,
    shown_volume,
)
from meshwright.planner.accuracy.case import Trust
from meshwright.planner.calibration.timing import Collective
from meshwright.planner.layout.objective import Objective
from meshwright.planner.targets import Target

MEASUREMENTS = Path(__file__).parent.parent / "catalog" / "measurements"
JOB = ["llama-3.1-8b", "dgx-h100:8", "--global-batch", "64", "--sequence-length", "4096"]


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def run_json(*words: str | Path) -> Any:  # noqa: ANN401 - whatever the command prints
    result = run(*words, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout, parse_constant=pytest.fail)


@pytest.fixture(scope="module")
def plan_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plans") / "plan.yaml"
    result = run("plan", *JOB, "-o", path)
    assert result.exit_code == 0, result.output
    return path


@pytest.fixture
def case_file(tmp_path: Path, case_document: Callable[..., dict[str, Any]]) -> Path:
    path = tmp_path / "cases.yaml"
    measured = {"step_time_s": 1.0, "peak_memory_bytes": 10**10, "peak_memory_kind": "allocated"}
    cases = [
        case_document(id="good", measured=measured, trust="high"),
        case_document(id="bad", cluster={"device": "a100-smx-80gb"}, measured=measured),
    ]
    path.write_text(yaml.safe_dump(cases))
    return path


def test_plan_prints_what_the_plan_comes_to() -> None:
    result = run("plan", *JOB)
    assert result.exit_code == 0
    for words in ("llama-3.1-8b on 8 x h100-sxm-80gb", "tokens/s", "MFU", "Layout", "Stages", "Runners-up", "matmul"):
        assert words in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 100
    assert "\x1b" not in result.stdout


def test_plan_json_has_what_scripts_read() -> None:
    document = run_json("plan", *JOB)
    assert {"layout", "predicted", "search", "alternatives"} <= set(document)
    predicted, layout = document["predicted"], document["layout"]
    assert {"step_time_s", "tokens_per_s", "mfu", "peak_memory_bytes", "breakdown"} <= set(predicted)
    assert {"candidates", "feasible", "lower_bound", "gap", "seconds"} <= set(document["search"])
    assert sum(predicted["breakdown"].values()) == pytest.approx(predicted["step_time_s"], rel=1e-6)
    assert predicted["tokens_per_s"] == pytest.approx(64 * 4096 / predicted["step_time_s"], rel=1e-6)
    assert predicted["peak_memory_bytes"] == predicted["peak_memory_by_kind_bytes"]["nvidia_smi"]
    assert predicted["peak_memory_bytes"] <= predicted["memory_limit_bytes"]
    degrees = ("tensor_parallel", "context_parallel", "pipeline_parallel", "data_parallel")
    product = 1
    for degree in degrees:
        product *= layout[degree]
    assert product == document["devices"] == 8
    assert document["search"]["seconds"] > 0
    assert len(document["alternatives"]) <= 5


def test_options_reach_the_search() -> None:
    assert len(run_json("plan", *JOB, "--top", "1")["alternatives"]) == 1
    roomy = run_json("plan", *JOB, "--memory-headroom", "0.5")
    assert roomy["predicted"]["memory_limit_bytes"] == pytest.approx(
        run_json("plan", *JOB, "--memory-headroom", "0.0")["predicted"]["memory_limit_bytes"] / 2, rel=1e-6
    )
    least = run_json("plan", *JOB, "--objective", "memory")
    assert least["predicted"]["peak_memory_bytes"] <= run_json("plan", *JOB)["predicted"]["peak_memory_bytes"]


def test_plan_writes_the_file_that_show_explain_and_check_read(plan_file: Path) -> None:
    assert yaml.safe_load(plan_file.read_text())["version"] == 1
    shown = run("show", plan_file)
    assert shown.exit_code == 0
    assert "Process groups" in shown.stdout
    explained = run("explain", plan_file)
    assert explained.exit_code == 0
    assert "The step is bound by" in explained.stdout
    assert "Instead" in explained.stdout
    checked = run("check", plan_file)
    assert checked.exit_code == 0
    assert checked.stdout.endswith("unchanged\n")


def test_show_and_explain_as_json(plan_file: Path) -> None:
    planned, shown = run_json("plan", *JOB), run_json("show", plan_file)
    assert shown["search"].pop("seconds") is None
    assert planned["search"].pop("seconds") > 0
    assert shown == planned
    explained = run_json("explain", plan_file)
    assert sum(part["share"] for part in explained["bounds"]) == pytest.approx(1)
    assert len(explained["alternatives"]) == len(planned["alternatives"])


def test_check_tells_a_moved_prediction_and_update_accepts_it(plan_file: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved.yaml"
    document = yaml.safe_load(plan_file.read_text())
    document["predicted"]["mfu"] *= 1.5
    moved.write_text(yaml.safe_dump(document, sort_keys=False))
    result = run("check", moved)
    assert isinstance(result.exception, PlanDrift)
    assert any("predicted.mfu" in difference for difference in result.exception.differences)
    as_json = run("check", moved, "--json")
    assert json.loads(as_json.stdout)["unchanged"] is False
    assert isinstance(as_json.exception, PlanDrift)
    assert run("check", moved, "--update").exit_code == 0
    assert moved.read_bytes() == plan_file.read_bytes()
    assert run_json("check", moved) == {"unchanged": True, "differences": [], "updated": False}


def test_estimate_json_has_the_keys_of_the_contract(case_file: Path) -> None:
    good, bad = run_json("estimate", case_file)
    for item in (good, bad):
        assert list(item)[:1] == ["id"]
        assert {"id", "step_time_s", "peak_memory_bytes", "breakdown", "error"} <= set(item)
    assert set(good["peak_memory_bytes"]) == {"allocated", "reserved", "nvidia_smi"}
    assert sum(good["breakdown"].values()) == pytest.approx(good["step_time_s"])
    assert good["error"] is None
    assert (bad["step_time_s"], bad["peak_memory_bytes"], bad["breakdown"]) == (None, None, None)
    assert "a100-sxm-80gb" in bad["error"]


def test_estimate_shows_predictions_and_reasons(case_file: Path) -> None:
    result = run("estimate", case_file)
    assert result.exit_code == 0
    assert "good" in result.stdout
    assert "Not predicted" in result.stdout
    assert "did you mean" in result.stdout


def test_estimate_of_one_case_shows_where_time_goes(
    tmp_path: Path, case_document: Callable[..., dict[str, Any]]
) -> None:
    file = tmp_path / "one.yaml"
    file.write_text(yaml.safe_dump([case_document(batch={"micro_batch": None})]))
    result = run("estimate", file)
    assert "Where the time goes" in result.stdout
    assert "assumed: the micro-batch isn't given" in result.stdout


def test_estimate_of_nothing_predictable_fails_and_still_says_all(
    tmp_path: Path, case_document: Callable[..., dict[str, Any]]
) -> None:
    file = tmp_path / "cases.yaml"
    file.write_text(yaml.safe_dump([case_document(cluster={"device": "a100-smx-80gb"})]))
    result = run("estimate", file, "--json")
    assert isinstance(result.exception, InputError)
    assert json.loads(result.stdout)[0]["error"]


def test_accuracy_json_compares_every_row(case_file: Path) -> None:
    document = run_json("accuracy", case_file)
    assert [row["quantity"] for row in document["rows"]] == ["step_time", "allocated"]
    for row in document["rows"]:
        assert row["error"] == pytest.approx(row["predicted"] / row["measured"] - 1)
    assert set(document["summaries"]) == {"file", "device", "trust", "precision", "quantity"}
    assert document["summaries"]["trust"][0]["value"] == "high"
    assert [item["id"] for item in document["unpredicted"]] == ["bad"]


def test_accuracy_of_shipped_files_by_name() -> None:
    result = run("accuracy", MEASUREMENTS / "simumax.yaml", MEASUREMENTS / "megatron_sc21.yaml", "--rows")
    assert result.exit_code == 0
    for words in ("simumax", "By device", "high trust, 16-bit", "52 of 52 cases compared", "sm-b200-llama3-70b"):
        assert words in result.stdout
    assert "Rows" not in run("accuracy", MEASUREMENTS / "papers_misc.yaml").stdout


def test_accuracy_tells_what_was_said_of_memory() -> None:
    words = ("accuracy", MEASUREMENTS / "bigscience_bloom.yaml")
    document = run_json(*words)
    ran_out = document["out_of_memory"]
    assert len(ran_out) == 3
    foretold = sum(verdict["foretold_out_of_memory"] for verdict in ran_out)
    assert all(
        verdict["foretold_out_of_memory"] is (verdict["predicted_bytes"] > verdict["limit_bytes"])
        for verdict in ran_out
    )
    assert f"{foretold} of the 3 cases that ran out of memory were foretold to." in run(*words).stdout
    assert "Did it fit?" in run(*words, "--rows").stdout


@pytest.mark.parametrize("kind", ["devices", "clusters", "models", "stacks"])
def test_catalog_lists_and_shows_every_kind(kind: str) -> None:
    names = entry_names(kind)
    listed = run("catalog", kind)
    assert listed.exit_code == 0
    assert all(name in listed.stdout for name in names)
    assert run_json("catalog", kind) == {kind: list(names)}
    assert "source" in run("catalog", kind, names[0]).stdout
    assert run_json("catalog", kind, names[0].upper())["name"] == names[0]


def test_catalog_alone_lists_all_kinds() -> None:
    assert set(run_json("catalog")) == {"devices", "clusters", "models", "stacks"}


def test_a_misspelt_kind_gets_the_nearest() -> None:
    result = run("catalog", "device")
    assert isinstance(result.exception, InputError)
    assert "devices" in result.exception.hint


def test_version() -> None:
    assert run("--version").stdout == f"meshwright {version('meshwright')}\n"


def spawn(*words: str) -> subprocess.CompletedProcess[str]:
    code = "from meshwright.cli.main import main; main()"
    return subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=60, check=False)


def test_a_process_exits_with_the_code_of_the_error() -> None:
    infeasible = spawn(
        "plan", "llama-3.1-405b", "dgx-h100:8", "--global-batch", "8", "--sequence-length", "8192", "--json"
    )
    assert infeasible.returncode == 4
    assert infeasible.stdout == ""
    assert "nearest miss" in infeasible.stderr
    assert "needs more memory" in infeasible.stderr
    assert "Traceback" not in infeasible.stderr
    misspelt = spawn("plan", "lama-3.1-8b", "dgx-h100:8", "--global-batch", "8", "--sequence-length", "8192")
    assert misspelt.returncode == 2
    assert "llama-3.1-8b" in misspelt.stderr
    assert spawn("plan").returncode == 2


def test_an_interrupt_is_quiet_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("meshwright.planner.plan_of", interrupted)
    result = run("plan", *JOB)
    assert (result.exit_code, result.stdout) == (130, "")


def test_a_closed_pipe_is_quiet() -> None:
    code = "from meshwright.cli.main import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", code, "catalog", "models", "deepseek-v3"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert b"Traceback" not in process.stderr.read()


WRITERS = [
    ["--help"],
    ["--version"],
    ["catalog"],
    ["catalog", "models", "deepseek-v3"],
    ["plan", *JOB],
    ["plan", *JOB, "--json"],
]


def shell(redirection: str, *words: str) -> subprocess.CompletedProcess[str]:
    code = "from meshwright.cli.main import main; main()"
    script = f'exec "$@" {redirection}'
    command = ["/bin/sh", "-c", script, "sh", sys.executable, "-c", code, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("words", WRITERS, ids=" ".join)
@pytest.mark.parametrize(
    ("redirection", "told"),
    [
        (">/dev/full", "error: standard output can't be written to: No space left on device\n"),
        (">&-", "error: standard output is closed\nhint: send it to /dev/null if it isn't wanted\n"),
    ],
)
def test_output_that_goes_nowhere_is_one_clear_error(redirection: str, told: str, words: list[str]) -> None:
    result = shell(redirection, *words)
    assert (result.returncode, result.stderr) == (1, told)


def test_complaints_that_go_nowhere_still_give_their_exit_code() -> None:
    assert shell("2>&-", "catalog", "machines").returncode == 2
    assert json.loads(shell("2>&-", "catalog", "stacks", "--json").stdout)["stacks"] == list(entry_names("stacks"))


def test_an_interrupt_while_importing_is_quiet() -> None:
    code = (
        "import sys\n"
        "from meshwright.cli.main import main\n"
        "class Interrupted:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'typer':\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupted())\n"
        "main()"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "")


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from meshwright.cli.app import app; from typer.testing import CliRunner; "
        "CliRunner().invoke(app, ['--help']); "
        "print([name for name in ('numpy', 'scipy', 'pydantic', 'yaml', 'ortools') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("error", "lines"),
    [
        (
            InputError("is bad", file="f.yaml", path="a.b", hint="mend it"),
            ["error: f.yaml: a.b: is bad", "hint: mend it"],
        ),
        (
            Infeasible("nothing fits", rejected={"a": 2, "b": 10}, nearest_miss="tp 8"),
            ["error: nothing fits", "          10  b", "           2  a", "nearest miss: tp 8"],
        ),
        (PlanDrift("moved", differences=("x: 1 -> 2",)), ["error: moved", "  x: 1 -> 2"]),
        (MeshwrightError("a[red]b\x1b[31m"), ["error: a[red]b\\x1b[31m"]),
    ],
)
def test_errors_are_printed_as_they_are(
    capsys: pytest.CaptureFixture[str], error: MeshwrightError, lines: list[str]
) -> None:
    print_error(error)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == lines


def test_units_as_people_read_them() -> None:
    assert shown_bytes(1.5 * 2**30) == "1.5 GiB"
    assert shown_seconds(0.0123) == "12.3 ms"
    assert shown_seconds(1234.5) == "1,234.50 s"
    assert shown_share(0.4567) == "45.7 %"
    assert shown_error(-0.05) == "-5.0 %"
    assert shown_share(1e300) == "1.000e+302 %"
    assert (shown_error(4.9e20), shown_error(-4.9e20)) == ("+4.900e+22 %", "-4.900e+22 %")
    assert (shown_seconds(3e300), shown_duration(8.64e304)) == ("3.000e+300 s", "1.000e+300 days")
    assert (shown_bytes(2.0**900), shown_volume(1e200)) == (f"{2.0**870:.3e} GiB", "1.000e+188 TB")
    assert shown_rate(12.5e9) == "12.5 GB/s"
    assert shown_rate(8e12) == "8,000 GB/s"
    assert [shown_parameters(count) for count in (1.008e12, 8.03e9, 3.5e8)] == ["1.008 T", "8.03 B", "350 M"]


def test_bars_are_largest_first_and_in_proportion(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(width=100, highlight=False)
    bars(console, "Parts", {"small": 1.0, "none": 0.0, "large": 3.0}, shown=shown_seconds, total="sum")
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert [line[0] for line in lines[3:]] == ["large", "small", "sum"]
    assert lines[3][1:5] == ["3.00", "s", "75.0", "%"]
    assert (len(lines[3][5]), len(lines[4][5])) == (21, 7)
    assert lines[5][1:3] == ["4.00", "s"]


def test_catalog_shows_a_model_of_a_file_and_a_cluster_of_another_size() -> None:
    config = Path(__file__).parent / "hugging_face" / "llama-3.1-8b.json"
    shown = yaml.safe_load(run("catalog", "models", str(config)).stdout)
    assert (shown["layers"], shown["kv_heads"], shown["vocab"]) == (32, 8, 128256)
    resized = yaml.safe_load(run("catalog", "clusters", "dgx-h100:64").stdout)
    assert resized["devices"] == 64
    assert resized["tiers"][0]["bandwidth"] == "450 GB/s"


def test_only_a_terminal_is_shown_that_a_search_takes_a_while(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with busy("searching the layouts"):
        pass
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(console_module, "error_console", lambda: Console(file=sys.stderr, force_terminal=True))
    with busy("searching the layouts"):
        pass
    shown = capsys.readouterr()
    assert "searching the layouts" in shown.err
    assert shown.out == ""


@pytest.mark.parametrize(
    ("option", "kind", "known"),
    [
        ("--target", "target", list(Target)),
        ("--objective", "objective", list(Objective)),
        ("--precision", "precision", list(Precision)),
        ("--trust", "trust", list(Trust)),
        ("--collective", "collective", list(Collective)),
    ],
)
def test_names_of_closed_sets_are_all_said(option: str, kind: str, known: list[str]) -> None:
    """What the options know is what the enumerations behind them have."""
    words = ["calibrate", "--device", "h100-sxm-80gb"] if kind in {"trust", "collective"} else ["plan", *JOB]
    result = run(*words, option, "foo")
    assert isinstance(result.exception, InputError)
    assert result.exception.message == f"no {kind} is called 'foo'"
    assert result.exception.hint == f"known: {', '.join(map(str, known))}"
    assert run(*words, option, str(known[0]).upper(), "--help").exit_code == 0
