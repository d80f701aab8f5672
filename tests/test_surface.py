"""The public surface: what a change here breaks for somebody. Change it on purpose only."""

import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from meshwright.catalog import errors
from meshwright.cli.app import app
from meshwright.cli.run import run_command
from meshwright.planner import load_plan, plan, write_plan

EXPORTS = {
    "meshwright.planner": {
        "Plan",
        "RankPlan",
        "SequenceScatterer",
        "TimedPlan",
        "check_plan",
        "emit",
        "estimate",
        "inputs_of",
        "load_plan",
        "place_experts",
        "plan",
        "plan_of",
        "plan_offload",
        "scatter_sequences",
        "write_plan",
    },
    "meshwright.planner.experts": {
        "Dispatch",
        "Objective",
        "Placement",
        "Routing",
        "Status",
        "place_experts",
        "routed_model",
        "routing_of",
    },
    "meshwright.planner.sequences": {
        "GroupCosts",
        "Method",
        "Mode",
        "RankGroup",
        "Scattered",
        "SequenceScatterer",
        "scatter_sequences",
        "uniform_costs",
    },
    "meshwright.planner.accuracy": {
        "Accuracy",
        "Case",
        "Estimate",
        "Predicted",
        "accuracy",
        "estimate",
        "load_cases",
    },
}

COMMANDS = {
    "import": {
        "file",
        "--target",
        "--cluster",
        "--model",
        "--global-batch",
        "--sequence-length",
        "--micro-batch",
        "--recompute",
        "--stack",
        "--memory-headroom",
        "--improve",
        "--overlay",
        "--output",
        "-o",
        "--json",
    },
    "offload": {
        "model",
        "cluster",
        "--layout",
        "--plan",
        "--global-batch",
        "--sequence-length",
        "--precision",
        "--stack",
        "--memory-budget",
        "--host-memory",
        "--nvme",
        "--mode",
        "--target",
        "--calibrate",
        "--overlay",
        "--output",
        "-o",
        "--json",
    },
    "experts": {
        "routing",
        "--devices",
        "--nodes",
        "--slots",
        "--redundant",
        "--memory-per-device",
        "--objective",
        "--load-cap",
        "--dispatch",
        "--previous",
        "--time-limit",
        "--model",
        "--cluster",
        "--overlay",
        "--output",
        "-o",
        "--force",
        "--heat-map",
        "--json",
    },
    "scatter": {
        "lengths",
        "model",
        "cluster",
        "--devices",
        "--tensor-parallel",
        "--expert-parallel",
        "--zero-stage",
        "--recompute",
        "--offload",
        "--method",
        "--mode",
        "--any-degree",
        "--max-degree",
        "--no-empty-rank",
        "--calibrate",
        "--certify",
        "--time-limit",
        "--precision",
        "--memory-headroom",
        "--stack",
        "--overlay",
        "--format",
        "--output",
        "-o",
        "--json",
    },
    "replan": {
        "file",
        "--lose",
        "--add",
        "--devices",
        "--price-of-move",
        "--storage",
        "--output",
        "-o",
        "--moves",
        "--overlay",
        "--json",
    },
    "goodput": {
        "file",
        "--mtbf",
        "--storage",
        "--host",
        "--restart",
        "--soft-share",
        "--duration",
        "--runs",
        "--seed",
        "--overlay",
        "--json",
    },
    "reshard": {"old", "new", "--between-steps", "--storage", "--overlay", "--output", "-o", "--json"},
    "emit": {"file", "--target", "--output", "-o", "--devices", "--relax", "--force", "--json"},
    "plan": {
        "model",
        "cluster",
        "--global-batch",
        "--sequence-length",
        "--precision",
        "--objective",
        "--tokens",
        "--slower-by",
        "--target-time",
        "--time-limit",
        "--top",
        "--pareto",
        "--routing",
        "--memory-headroom",
        "--fix",
        "--forbid",
        "--max",
        "--target",
        "--offload",
        "--link",
        "--allow",
        "--stack",
        "--overlay",
        "-o",
        "--output",
        "--json",
    },
    "estimate": {"files", "--overlay", "--json"},
    "accuracy": {"files", "--overlay", "--json", "--rows", "--worst", "--plot"},
    "calibrate": {
        "files",
        "--device",
        "--cluster",
        "-o",
        "--output",
        "--measure",
        "--trust",
        "--overlay",
        "--case",
        "--collective",
        "--ranks",
        "--nodes",
        "--precision",
        "--json",
    },
    "check": {"file", "--update", "--overlay", "--json"},
    "verify": {"file", "--devices", "--with", "--json"},
    "explain": {"file", "--why-not", "--overlay", "--json"},
    "show": {"file", "--overlay", "--json"},
    "catalog": {"kind", "name", "--overlay", "--json"},
}

EXIT_CODES = {
    "MeshwrightError": 1,
    "InputError": 2,
    "MissingData": 3,
    "Infeasible": 4,
    "SolverFailed": 5,
    "PlanDrift": 6,
}


@pytest.mark.parametrize("module", EXPORTS)
def test_exports(module: str) -> None:
    loaded = importlib.import_module(module)
    assert set(loaded.__all__) == EXPORTS[module]
    assert all(hasattr(loaded, name) for name in loaded.__all__)


def test_commands_and_options() -> None:
    group = typer.main.get_command(app)
    found = {
        name: {word for parameter in command.params for word in parameter.opts}
        for name, command in vars(group)["commands"].items()
    }
    assert found == COMMANDS
    assert [parameter.opts for parameter in group.params] == [["--version"]]


def test_options_of_the_reference_launcher() -> None:
    launcher = typer.Typer()
    launcher.command()(run_command)
    found = {word for parameter in typer.main.get_command(launcher).params for word in parameter.opts}
    options = {"file", "--model", "--steps", "--precision", "--device", "--json"}
    assert found - {"--install-completion", "--show-completion"} == options


def test_every_command_says_what_it_does() -> None:
    for command in vars(typer.main.get_command(app))["commands"].values():
        assert command.help
        assert command.help.splitlines()[0].endswith(".")


def test_arguments_of_plan() -> None:
    parameters = inspect.signature(plan).parameters.values()
    positional = [parameter.name for parameter in parameters if parameter.kind is parameter.POSITIONAL_OR_KEYWORD]
    keywords = {
        parameter.name: parameter.default for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY
    }
    assert positional == ["model", "cluster"]
    assert keywords == {
        "global_batch": inspect.Parameter.empty,
        "sequence_length": inspect.Parameter.empty,
        "precision": "bf16",
        "objective": "time",
        "top": 5,
        "memory_headroom": 0.05,
        "limits": None,
        "time_limit_s": None,
        "tokens": None,
        "slower_by": None,
        "target_time_s": None,
        "target": None,
        "stack": None,
        "overlays": (),
    }


def test_each_error_has_its_exit_code() -> None:
    classes = {name: value for name, value in vars(errors).items() if inspect.isclass(value)}
    codes = {name: value.exit_code for name, value in classes.items() if issubclass(value, errors.MeshwrightError)}
    assert codes == EXIT_CODES


def test_a_launcher_reads_a_rank(tmp_path: Path) -> None:
    made = plan("llama-3.1-8b", "dgx-h100:8", global_batch=64, sequence_length=4096)
    write_plan(made, tmp_path / "plan.yaml")
    rank = load_plan(tmp_path / "plan.yaml").rank(7)
    assert all(7 in group for group in rank.groups.values())


def test_importing_the_library_loads_no_solver_and_no_command_line() -> None:
    heavy = ("ortools", "scipy", "typer", "rich", "pandas")
    code = f"import sys, meshwright.planner; print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.strip() == "[]"
