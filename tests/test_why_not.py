"""Why a plan isn't another way: the best other layout by a search, where it loses, and which rule forbids it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from meshwright.catalog.cluster_entry import ClusterEntry
from meshwright.catalog.model_entry import ModelEntry
from meshwright.cli.app import app
from meshwright.planner import Plan, plan, write_plan
from meshwright.planner.layout.limits import Limits
from meshwright.planner.why_not import why_not

MODEL = {"layers": 8, "hidden": 4096, "heads": 32, "ffn_hidden": 16384}


@pytest.fixture(scope="module")
def made(toy_model: Callable[..., ModelEntry], toy_cluster: Callable[..., ClusterEntry]) -> Plan:
    return plan(
        toy_model(**MODEL), toy_cluster(16), global_batch=32, sequence_length=4096, limits={"max": {"micro_batch": 2}}
    )


def test_the_best_other_way_is_that_of_a_plan_within_the_limits(
    made: Plan, toy_model: Callable[..., ModelEntry], toy_cluster: Callable[..., ClusterEntry]
) -> None:
    """The plan's own limit on the micro-batch stays, and what is named twice counts by its new value."""
    for degree in (1, 2, 4, 8, 16):
        answer = why_not(made, Limits(fix={"tensor_parallel": degree}))
        limits = {"fix": {"tensor_parallel": degree}, "max": {"micro_batch": 2}}
        other = plan(toy_model(**MODEL), toy_cluster(16), global_batch=32, sequence_length=4096, limits=limits)
        assert answer.best is not None
        assert answer.best.layout == other.layout.layout()
        assert answer.best.slower_by == pytest.approx(
            other.predicted.step_time_s / made.predicted.step_time_s - 1, abs=1e-8
        )
        assert answer.already is (made.layout.tensor_parallel == degree)
        assert (answer.best.slower_by <= 1e-8) is answer.already
        lost = sum(loss.amount for loss in answer.best.time)
        assert lost == pytest.approx(answer.best.step_time_s - made.predicted.step_time_s, abs=1e-6)
    wider = why_not(made, Limits(fix={"micro_batch": 4}))
    assert wider.best is not None
    assert wider.best.layout.micro_batch == 4


def test_what_is_illegal_names_the_rule(made: Plan) -> None:
    answer = why_not(made, Limits(fix={"schedule": "dualpipe"}))
    assert answer.best is None
    assert answer.rule == "the training software does not run the pipeline schedule"
    three = why_not(made, Limits(fix={"tensor_parallel": 3}))
    assert three.nearest_miss == "with the rest as it is, legal would be tensor_parallel=1|2|4|8|16"


def test_what_does_not_fit_says_how_much_is_missing(made: Plan) -> None:
    state = made.model_copy(deep=True)
    inputs = state.inputs.model_copy(update={"job": state.inputs.job.model_copy(update={"memory_headroom": 0.8})})
    answer = why_not(state.model_copy(update={"inputs": inputs}), Limits(fix={"data_parallel": 16, "zero_stage": 0}))
    assert answer.best is None
    assert answer.rule == ""
    assert "fits in 16.0 GiB a device" in answer.refused
    assert "of 16.0 GiB" in answer.nearest_miss


def test_why_not_on_the_command_line(made: Plan, tmp_path: Path) -> None:
    write_plan(made, tmp_path / "plan.yaml")
    degree = 4 if made.layout.tensor_parallel != 4 else 2
    words = ["explain", str(tmp_path / "plan.yaml"), "--why-not"]
    shown = CliRunner().invoke(app, [*words, f"tp={degree}", "--why-not", "pp=2"])
    assert shown.exit_code == 0, shown.output
    assert f"The best with tensor_parallel={degree} and pipeline_parallel=2 beside the plan" in shown.stdout
    own = made.layout.tensor_parallel
    assert f"The plan has tensor_parallel={own}, and no layout" in CliRunner().invoke(app, [*words, f"tp={own}"]).stdout
    refused = CliRunner().invoke(app, [*words, "tp=3"])
    assert refused.exit_code == 0
    assert "Not tensor_parallel=3: no layout" in refused.stdout
    document = json.loads(CliRunner().invoke(app, [*words, "tp=3", "--json"]).stdout)
    assert document["best"] is None
    assert document["asked"] == ["--fix tensor_parallel=3"]
