"""Plans of mixed clusters: what they say, that their checker finds what is broken, and who refuses them."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from meshwright.catalog.errors import InputError
from meshwright.planner import load_plan
from meshwright.planner.mixed.check import check_mixed
from meshwright.planner.mixed.plan_file import is_mixed_plan, read_mixed_plan, write_mixed_plan
from meshwright.planner.mixed.plan_schema import MixedPlan
from meshwright.planner.mixed.planning import plan_mixed
from meshwright.planner.verification.check import Outcome
from meshwright.planner.verification.mixed import verify_mixed

JOB = {"sequence_length": 2048, "precision": "bf16", "objective": "time", "top": 0, "memory_headroom": 0.05}


@pytest.fixture(scope="module")
def apart() -> MixedPlan:
    """Give a plan whose islands train replicas."""
    return plan_mixed(
        "llama-3.1-8b",
        "selene:8+dgx-h100:8",
        links=["400 Gb/s, 0.1 ms, 0.01 USD/GB"],
        global_batch=100,
        limits={"fix": {"pipeline_parallel": 1}},
        **JOB,
    )


@pytest.fixture(scope="module")
def across() -> MixedPlan:
    """Give a plan whose pipeline crosses the link."""
    return plan_mixed(
        "llama-3.1-8b",
        "selene:8+dgx-h100:8",
        links=["400 Gb/s, 0.1 ms"],
        global_batch=64,
        limits={"fix": {"data_parallel": 1, "context_parallel": 1}, "max": {"tensor_parallel": 4}},
        **JOB,
    )


def broken(plan: MixedPlan, change: dict[str, Any], *path: str | int) -> list[str]:
    """Change a part of a plan, and give the names of the checks that fail."""
    document = plan.model_dump(mode="json")
    part: Any = document
    for key in path:
        part = part[key]
    part |= change
    checks = verify_mixed(MixedPlan.model_validate(document))
    return [check.name for check in checks if check.outcome is Outcome.FAILED]


def test_plans_hold_together(apart: MixedPlan, across: MixedPlan) -> None:
    for plan in (apart, across):
        assert [check.name for check in verify_mixed(plan, devices=16) if check.outcome is not Outcome.OK] == []
    assert apart.mixed.crossing == "data"
    assert across.mixed.crossing == "pipeline"


def test_weights_make_the_sum_of_gradients_that_of_the_batch(apart: MixedPlan) -> None:
    replicas = [each for chain in apart.mixed.chains for each in chain.replicas]
    assert sum(each.replicas * each.sequences for each in replicas) == 100
    assert sum(each.replicas * each.gradient_weight for each in replicas) == pytest.approx(1.0)
    assert {each.gradient_weight for each in replicas} == {each.sequences / 100 for each in replicas}
    assert len({each.gradient_weight for each in replicas}) > 1


def test_what_links_pass_is_told(apart: MixedPlan, across: MixedPlan) -> None:
    """64 sequences of 2,048 tokens of 4,096 values of 2 bytes, there and back."""
    assert across.predicted.link_bytes == pytest.approx(64 * 2048 * 4096 * 2 * 2, rel=1e-8)
    assert apart.mixed.exchange is not None
    assert apart.predicted.link_bytes == apart.mixed.exchange.sent_bytes
    per_million = apart.predicted.link_bytes / 1e9 * 0.01 / (100 * 2048) * 1e6
    assert apart.predicted.link_usd_per_million_tokens == pytest.approx(per_million)


@pytest.mark.parametrize(
    ("change", "path", "check"),
    [
        ({"idle": [0]}, ("mixed",), "islands"),
        ({"tensor_parallel": 3}, ("mixed", "chains", 0, "layouts", 0), "degrees"),
        ({"gradient_weight": 0.5}, ("mixed", "chains", 0, "replicas", 0), "gradients"),
        ({"micro_batches": 77}, ("mixed", "chains", 0, "replicas", 0), "batch"),
        ({"sequences": 1}, ("mixed", "chains", 0), "batch"),
        ({"peak_bytes": 10**12}, ("mixed", "chains", 0, "stages", 0), "memory"),
        ({"chunks": [[0, 30]]}, ("mixed", "chains", 0, "stages", 0), "layers"),
        ({"own_step_s": 1e-3}, ("mixed", "chains", 0), "time"),
        ({"exchange": None}, ("mixed",), "links"),
        ({"lower_bound": 1e6}, ("search",), "search"),
    ],
)
def test_the_checker_finds_what_is_broken(
    apart: MixedPlan, change: dict[str, Any], path: tuple[str | int, ...], check: str
) -> None:
    assert check in broken(apart, change, *path)


def test_the_checker_runs_the_passes(across: MixedPlan) -> None:
    assert "passes" in broken(across, {"forward_s": 1.0}, "mixed", "chains", 0, "stages", 1)


def test_the_same_inputs_give_the_same_bytes(across: MixedPlan, tmp_path: Path) -> None:
    files = [tmp_path / "one.yaml", tmp_path / "other.yaml"]
    again = plan_mixed(
        "llama-3.1-8b",
        "selene:8+dgx-h100:8",
        links=["400 Gb/s, 0.1 ms"],
        global_batch=64,
        limits={"fix": {"data_parallel": 1, "context_parallel": 1}, "max": {"tensor_parallel": 4}},
        **JOB,
    )
    for file, plan in zip(files, (across, again), strict=True):
        write_mixed_plan(plan, file)
    assert files[0].read_bytes() == files[1].read_bytes()
    assert is_mixed_plan(files[0])
    assert read_mixed_plan(files[0]) == across
    write_mixed_plan(across, tmp_path / "plan.json")
    assert json.loads((tmp_path / "plan.json").read_text("utf-8"))["version"] == 1


def test_inputs_that_were_edited_are_refused(apart: MixedPlan, tmp_path: Path) -> None:
    file = tmp_path / "plan.yaml"
    write_mixed_plan(apart, file)
    document = yaml.safe_load(file.read_text("utf-8"))
    document["inputs"]["job"]["global_batch"] = 101
    file.write_text(yaml.safe_dump(document), "utf-8")
    with pytest.raises(InputError, match="edited by hand") as raised:
        read_mixed_plan(file)
    assert raised.value.path == "inputs.digest"


def test_launchers_are_refused_in_one_sentence(apart: MixedPlan, tmp_path: Path) -> None:
    file = tmp_path / "plan.yaml"
    write_mixed_plan(apart, file)
    with pytest.raises(InputError, match="takes plans of one layout on all ranks") as raised:
        load_plan(file)
    assert raised.value.path == "mixed"


def test_a_plan_that_moved_is_told(across: MixedPlan) -> None:
    assert check_mixed(across) == ()
    document = across.model_dump(mode="json")
    document["predicted"]["step_time_s"] *= 2
    (line,) = check_mixed(MixedPlan.model_validate(document))
    assert line.startswith("predicted.step_time_s: ")


@pytest.mark.parametrize(
    ("where", "told"),
    [
        (("chains", 0, "islands", 0), "name island 9"),
        (("chains", 0, "stages", 0, "island"), "name island 9"),
    ],
)
def test_islands_that_are_not_there_are_named(across: MixedPlan, where: tuple[str | int, ...], told: str) -> None:
    document = across.model_dump(mode="json")
    section = document["mixed"]
    for key in where[:-1]:
        section = section[key]
    section[where[-1]] = 9
    with pytest.raises(ValueError, match=told):
        MixedPlan.model_validate(document)


def test_each_island_of_a_chain_has_a_layout(across: MixedPlan) -> None:
    document = across.model_dump(mode="json")
    document["mixed"]["chains"][0]["layouts"].pop()
    with pytest.raises(ValueError, match="are 1, of 2 islands"):
        MixedPlan.model_validate(document)
