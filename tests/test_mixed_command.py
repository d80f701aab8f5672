"""`meshwright plan` and its relatives on mixed clusters, as users run them."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from meshwright.catalog.errors import InputError
from meshwright.cli.app import app

PLAN = ["plan", "llama-3.1-8b", "selene:8+dgx-h100:8", "--global-batch", "64", "--sequence-length", "2048"]
LINK = ["--link", "100 Gb/s, 1 ms"]


def run(*arguments: str) -> Result:
    """Run a command; what it raises is raised here."""
    return CliRunner().invoke(app, [*PLAN, *arguments] if not arguments or arguments[0][0] == "-" else [*arguments])


def test_a_plan_is_made_shown_verified_and_checked(tmp_path: Path) -> None:
    file = str(tmp_path / "plan.yaml")
    made = run(*LINK, "-o", file)
    assert made.exit_code == 0
    assert "selene" in made.output
    assert "Proved optimal" in made.output or "The best found" in made.output
    assert "gradient weight" in run("show", file).output
    document = json.loads(run("show", file, "--json").output)
    assert document["devices"] == 16
    assert run("verify", file, "--devices", "16").exit_code == 0
    assert json.loads(run("verify", file, "--json").output)["holds"]
    assert "unchanged" in run("check", file).output
    refused = run("emit", file, "--target", "megatron", "-o", str(tmp_path / "out"))
    assert isinstance(refused.exception, InputError)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ([], "--link"),
        ([*LINK, "--pareto"], "--pareto"),
        ([*LINK, "--target", "torchtitan"], "--target"),
        ([*LINK, "--objective", "cost"], "objective"),
    ],
)
def test_what_mixed_clusters_have_no_use_for_is_refused(options: list[str], path: str) -> None:
    found = run("--top", "0", *options)
    assert isinstance(found.exception, InputError)
    assert found.exception.path == path


def test_a_link_needs_something_to_join() -> None:
    found = run("plan", "llama-3.1-8b", "dgx-h100:8", "--global-batch", "8", "--sequence-length", "2048", *LINK)
    assert isinstance(found.exception, InputError)
    assert found.exception.path == "--link"
