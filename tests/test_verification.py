"""`verify`: each invariant of a plan is broken by hand, and found, with the field named."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from edited_documents import change
from emitted_plans import plan_named
from typer.testing import CliRunner, Result
from verified_plans import DENSE, GOLDEN, MIXTURE, found, golden_plan, plan_with

from meshwright.catalog.errors import InputError
from meshwright.catalog.schedule import Schedule
from meshwright.cli.app import app
from meshwright.costmodels.layout import Layout, Recompute
from meshwright.planner import Plan, inputs_of
from meshwright.planner.given_layout import plan_of_layout
from meshwright.planner.verification import Outcome, require_verified, verify
from meshwright.planner.verification.recomputation import Busiest, recomputation

NAMES = sorted(path.stem for path in GOLDEN.glob("*-on-*.yaml"))
WIDE = "llama-3.1-405b-on-16384-h100"

Document = dict[str, Any]


def edited(name: str, changes: dict[str, object]) -> Plan:
    """Give a golden plan with other values at some paths."""
    document = golden_plan(name).model_dump(mode="json")
    for path, value in changes.items():
        change(document, path, value)
    return Plan.model_validate(document)


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.mark.parametrize("name", NAMES)
def test_golden_plans_hold(name: str) -> None:
    assert {check.name: check.outcome for check in verify(golden_plan(name))} == dict.fromkeys(
        [
            *("degrees", "groups", "batch", "shards", "layers", "chunks", "experts", "messages"),
            *("memory", "time", "passes", "like chunks", "work", "step", "search"),
        ],
        Outcome.OK,
    )


def test_layers_of_linear_attention_take_their_own_time() -> None:
    # 80 layers on 16 stages, every eighth with softmax: the five of a stage have one of those or none.
    inputs = inputs_of(
        "minimax-text-01",
        "dgx-h100:2048",
        stack="megatron-core",
        precision="bf16",
        objective="time",
        top=0,
        global_batch=256,
        sequence_length=32768,
        memory_headroom=0.0,
    )
    layout = Layout(
        tensor_parallel=8,
        sequence_parallel=True,
        pipeline_parallel=16,
        data_parallel=16,
        expert_parallel=32,
        zero_stage=1,
        zero_shard=16,
        recompute=Recompute.FULL,
    )
    plan = plan_of_layout(inputs, layout)
    assert "like chunks" not in found(verify(plan))
    entry = plan.inputs.model.entry.model_copy(update={"linear_attention": None})
    model = plan.inputs.model.model_copy(update={"entry": entry})
    alike = plan.model_copy(update={"inputs": plan.inputs.model_copy(update={"model": model})})
    assert "like chunks" in found(verify(alike))


BROKEN = {
    "a degree too many": (MIXTURE, {"layout.data_parallel": 16}, "degrees", "mesh.devices"),
    "devices that nobody has": (MIXTURE, {"mesh.idle": 3}, "degrees", "mesh.idle"),
    "expert ranks that don't fit": (MIXTURE, {"layout.expert_parallel": 6}, "degrees", "layout.expert_parallel"),
    "context ranks for Ulysses": (MIXTURE, {"layout.ulysses_parallel": 2}, "degrees", "layout.ulysses_parallel"),
    "groups that overlap": (MIXTURE, {"mesh.groups.data.stride": 3}, "groups", "mesh.groups.data.stride"),
    "groups of another size": (MIXTURE, {"mesh.groups.data.size": 16}, "groups", "mesh.groups.data.size"),
    "an axis lost": (MIXTURE, {"mesh.groups": {}}, "groups", "mesh.groups"),
    "groups larger than any machine": (MIXTURE, {"mesh.groups.data.size": 10**9}, "groups", "mesh.groups.data.size"),
    "more chunks than layers": (DENSE, {"layout.virtual_pipeline": 10**9}, "chunks", "layout.virtual_pipeline"),
    "groups of two axes that overlap": (
        WIDE,
        {"mesh.groups.context.stride": 1},
        "groups",
        "mesh.groups.context.stride",
    ),
    "experts over two stages": (MIXTURE, {"mesh.groups.expert.stride": 16}, "groups", "mesh.groups.expert.stride"),
    "ranks that ZeRO leaves": (
        WIDE,
        {"mesh.groups.data_context.stride": 16},
        "groups",
        "mesh.groups.data_context.stride",
    ),
    "another order of ranks": (
        MIXTURE,
        {"mesh.order": ["data", "tensor", "context", "pipeline"]},
        "groups",
        "mesh.order",
    ),
    "micro-batches that leave a rest": (MIXTURE, {"layout.micro_batch": 3}, "batch", "layout.micro_batch"),
    "shards that don't divide": (MIXTURE, {"layout.zero_shard": 12}, "shards", "layout.zero_shard"),
    "gradient shards": (MIXTURE, {"layout.gradient_shard": 5}, "shards", "layout.gradient_shard"),
    "shards of nothing": (MIXTURE, {"layout.zero_stage": 0}, "shards", "layout.zero_shard"),
    "a layer lost": (DENSE, {"stages.0.chunks": [[0, 15]]}, "layers", "stages"),
    "a layer twice": (DENSE, {"stages.0.chunks": [[0, 17]]}, "layers", "stages.1.chunks.0"),
    "a layer beyond the model": (DENSE, {"stages.1.chunks": [[17, 32]]}, "layers", "stages.1.chunks.0"),
    "layers backwards": (DENSE, {"stages.1.chunks": [[31, 17]]}, "layers", "stages.1.chunks.0"),
    "stages out of order": (DENSE, {"stages.1.stage": 0}, "layers", "stages.1.stage"),
    "another cut than the split": (DENSE, {"layout.split": [16, 16]}, "chunks", "layout.split"),
    "a cut that isn't even": (DENSE, {"layout.split": []}, "chunks", "layout.split"),
    "an embedding on the wrong stage": (DENSE, {"stages.1.embedding": True}, "chunks", "stages.1.embedding"),
    "a head lost": (DENSE, {"stages.1.head": False}, "chunks", "stages.1.head"),
    "more layers recomputed": (
        DENSE,
        {"layout.recompute": "full", "layout.recompute_layers": 5},
        "work",
        "layout.recompute_layers",
    ),
    "seconds of recomputation that isn't": (
        DENSE,
        {"predicted.time_breakdown_s.recompute": 0.1},
        "work",
        "layout.recompute",
    ),
    "recomputed layers of other chunks": (
        DENSE,
        {"layout.recompute_split": [18, 0]},
        "chunks",
        "layout.recompute_split",
    ),
    "chunks in another order": (
        MIXTURE,
        {"stages.0.chunks.0": [4, 5], "stages.0.chunks.1": [0, 1]},
        "chunks",
        "stages.0.chunks.0",
    ),
    "experts that don't divide": (
        MIXTURE,
        {
            "layout.expert_parallel": 16,
            "mesh.groups.expert.size": 16,
            "mesh.groups.expert_data": {"size": 2, "stride": 16},
        },
        "experts",
        "layout.expert_parallel",
    ),
    "experts of a model without": (
        DENSE,
        {
            "layout.expert_parallel": 4,
            "mesh.groups.expert.size": 4,
            "mesh.groups.expert_data": {"size": 1, "stride": 4},
        },
        "experts",
        "layout.expert_parallel",
    ),
    "a wrong memory sum": (
        MIXTURE,
        {"predicted.memory_breakdown_bytes.activations": 10**9},
        "memory",
        "predicted.peak_memory_bytes.allocated",
    ),
    "more than the limit": (
        MIXTURE,
        {"predicted.peak_memory_bytes.nvidia_smi": 82 * 10**9},
        "memory",
        "predicted.memory_limit_bytes",
    ),
    "another limit": (MIXTURE, {"predicted.memory_limit_bytes": 10**11}, "memory", "predicted.memory_limit_bytes"),
    "a wrong time sum": (MIXTURE, {"predicted.time_breakdown_s.host": 1.0}, "time", "predicted.step_time_s"),
    "another speed": (MIXTURE, {"predicted.tokens_per_s": 4e5}, "time", "predicted.tokens_per_s"),
    "passes of a chunk lost": (
        DENSE,
        {"predicted.passes.forward_s": [[0.1], []]},
        "passes",
        "predicted.passes.forward_s.1",
    ),
    "passes of a stage lost": (DENSE, {"predicted.passes.forward_s": [[0.1]]}, "passes", "predicted.passes.forward_s"),
    "a chunk faster than its like": (
        MIXTURE,
        {"predicted.passes.forward_s.0.3": 0.001},
        "like chunks",
        "predicted.passes.forward_s.0.3",
    ),
    "a busiest stage that isn't": (
        DENSE,
        {"predicted.passes.backward_s.1.0": 0.6},
        "work",
        "predicted.passes.forward_s.1",
    ),
    "longer messages": (DENSE, {"predicted.passes.message_s": 0.1}, "work", "predicted.passes.message_s"),
    "candidates that nobody counted": (MIXTURE, {"search.feasible": 1}, "search", "search.candidates"),
    "a gap in a proof": (MIXTURE, {"search.proof": "bounded"}, "search", "search.proof"),
    "another runner-up": (MIXTURE, {"alternatives.1.step_time_s": 9.0}, "search", "alternatives.1.slower_by"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_invariant_is_found(case: str) -> None:
    name, changes, check, path = BROKEN[case]
    wrong = found(verify(edited(name, changes)))
    assert path in wrong[check]


def test_what_needs_a_broken_invariant_is_not_checked() -> None:
    checks = {check.name: check for check in verify(edited(DENSE, {"stages.0.chunks": [[0, 15]]}))}
    assert checks["step"].outcome is Outcome.NOT_MADE
    assert checks["step"].what == "needs passes to hold"
    assert checks["memory"].outcome is Outcome.OK


def test_a_bubble_that_the_stage_times_dont_make_is_found() -> None:
    # All sums hold: the simulation alone can tell.
    plan = golden_plan(DENSE)
    step_s, bubble_s = plan.predicted.step_time_s, plan.predicted.time_breakdown_s["bubble"]
    changed = edited(
        DENSE,
        {
            "predicted.time_breakdown_s.bubble": bubble_s + 0.02 * step_s,
            "predicted.step_time_s": 1.02 * step_s,
            "predicted.tokens_per_s": plan.predicted.tokens_per_s / 1.02,
            "alternatives": [],
        },
    )
    assert found(verify(changed)) == {"step": ["predicted.step_time_s"]}


def test_stages_that_are_faster_than_the_bubble_says_are_found() -> None:
    layout = Layout(pipeline_parallel=4, data_parallel=2, zero_stage=1, zero_shard=2)
    plan = plan_with(golden_plan(DENSE), layout, global_batch=16)
    assert found(verify(plan)) == {}
    times = plan.predicted.passes
    halved = {
        name: (*(tuple(each / 2 for each in stage) for stage in getattr(times, name)[:3]), getattr(times, name)[3])
        for name in ("forward_s", "backward_s")
    }
    passes = times.model_copy(update=halved)
    faster = plan.model_copy(update={"predicted": plan.predicted.model_copy(update={"passes": passes})})
    wrong = found(verify(faster))
    # The last stage, which has the head, is the busiest: the sums still hold.
    assert wrong["step"] == ["predicted.step_time_s"]
    assert "work" not in wrong


def test_swapped_stages_are_found() -> None:
    layout = Layout(pipeline_parallel=4, data_parallel=2, zero_stage=1, zero_shard=2)
    plan = plan_with(golden_plan(DENSE), layout, global_batch=16)
    order = (0, 2, 1, 3)
    stages = tuple(
        stage.model_copy(update={"chunks": plan.stages[other].chunks})
        for stage, other in zip(plan.stages, order, strict=True)
    )
    wrong = found(verify(plan.model_copy(update={"stages": stages})))
    assert wrong["chunks"] == ["stages.1.chunks.0"]


def test_a_stage_that_runs_its_chunks_in_another_order_sends_what_nobody_waits_for() -> None:
    # Its first passes are of micro-batches of the third chunk, whose input comes a lap later.
    plan = edited(MIXTURE, {"stages.0.chunks.0": [4, 5], "stages.0.chunks.1": [0, 1]})
    assert found(verify(plan))["messages"][0].startswith("stages.")


def test_copies_of_dualpipe_hold_the_same_layers() -> None:
    layout = Layout(pipeline_parallel=4, data_parallel=2, zero_stage=1, zero_shard=2, schedule=Schedule.DUAL_PIPE)
    plan = plan_with(golden_plan(DENSE), layout, global_batch=32)
    assert set(found(verify(plan))) <= {"memory"}
    once = tuple(stage.model_copy(update={"chunks": stage.chunks[:1]}) for stage in plan.stages)
    assert found(verify(plan.model_copy(update={"stages": once})))["layers"] == ["stages"]
    mirrored = plan.stages[1].model_copy(update={"chunks": plan.stages[1].chunks[::-1]})
    swapped = (plan.stages[0], mirrored, *plan.stages[2:])
    assert found(verify(plan.model_copy(update={"stages": swapped})))["chunks"][0] == "stages.2.chunks.0"


def test_the_first_broken_invariant_is_raised() -> None:
    checks = verify(edited(MIXTURE, {"layout.micro_batch": 3, "mesh.idle": 3}))
    with pytest.raises(InputError, match=r"^plan\.yaml: mesh\.idle: is 3") as raised:
        require_verified(checks, file="plan.yaml")
    assert raised.value.path == "mesh.idle"
    assert "more are listed" in raised.value.hint


def test_a_plan_for_other_devices_is_an_input_error() -> None:
    assert found(verify(golden_plan(MIXTURE), devices=64)) == {}
    assert found(verify(golden_plan(MIXTURE), devices=32)) == {"devices": ["mesh.devices"]}


@pytest.fixture(scope="module")
def document() -> Document:
    loaded: Document = yaml.safe_load((GOLDEN / f"{DENSE}.yaml").read_text("utf-8"))
    return loaded


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("layout.micro_batch", -1, "layout.micro_batch"),
        ("version", 2, "version"),
        ("predicted.passes", None, "predicted.passes"),
        ("predicted.passes.forward_s", [[-0.1], [0.1]], "predicted.passes.forward_s"),
        ("inputs.job.global_batch", 64, "inputs.digest"),
        ("stages", [], "stages"),
    ],
)
def test_nonsense_is_refused(tmp_path: Path, document: Document, path: str, value: object, named: str) -> None:
    changed, file = deepcopy(document), tmp_path / "plan.yaml"
    change(changed, path, value)
    file.write_text(yaml.safe_dump(changed), "utf-8")
    result = run("verify", file)
    assert isinstance(result.exception, InputError)
    assert named in str(result.exception)
    assert result.stdout == ""


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    text, file = (GOLDEN / f"{DENSE}.yaml").read_text("utf-8"), tmp_path / "plan.yaml"
    for length in (0, 40, len(text) // 4, len(text) // 2, len(text) - 200):
        file.write_text(text[:length], "utf-8")
        result = run("verify", file)
        assert isinstance(result.exception, InputError), length
        assert str(file) in str(result.exception)


def test_the_command_lists_all_and_fails_with_the_first(tmp_path: Path, document: Document) -> None:
    changed, file = deepcopy(document), tmp_path / "plan.yaml"
    change(changed, "stages.0.chunks", [[0, 15]])
    change(changed, "search.feasible", 1)
    file.write_text(yaml.safe_dump(changed), "utf-8")
    result = run("verify", file)
    assert isinstance(result.exception, InputError)
    assert result.exception.path == "stages"
    assert result.exception.exit_code == 2
    assert "layers: stages: layers 16 of the model are on no stage" in result.stdout
    assert "search: search.candidates: is " in result.stdout


def test_json_says_what_was_checked() -> None:
    file = GOLDEN / f"{DENSE}.yaml"
    told = json.loads(run("verify", file, "--json").stdout)
    assert told["holds"] is True
    assert [check["outcome"] for check in told["checks"]] == ["ok"] * len(told["checks"])
    result = run("verify", file, "--devices", "16", "--json")
    assert json.loads(result.stdout)["holds"] is False
    assert isinstance(result.exception, InputError)
    assert result.exception.path == "mesh.devices"


@pytest.mark.parametrize(
    ("spares", "again_s", "wrong"), [(False, 9.0, 0), (False, 7.0, 1), (True, 7.0, 0), (True, 3.9, 1)]
)
def test_software_may_spare_up_to_half_of_what_it_computes_again(spares: bool, again_s: float, wrong: int) -> None:
    # Of 10 s of forward passes 1 s at most is of the ends, and 1 s of what is left messages of tensor ranks.
    stage = Busiest(layers=32, more_layers=0, chunks=1, forward_s=10.0)
    told = {"recompute": again_s, "embedding_and_head": 1.0, "tensor_communication": 1.0}
    assert len(list(recomputation(plan_named("fsdp").layout, stage, told, spares=spares))) == wrong


def test_a_layout_that_was_given_holds() -> None:
    assert {check.outcome for check in verify(plan_named("fsdp"))} == {Outcome.OK}
