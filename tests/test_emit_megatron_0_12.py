"""Arguments for Megatron-LM core 0.12 and for MindSpeed, held against the options of both, and by hand."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from emitted_plans import PLANS, layout_of, plan_named

from meshwright.catalog.errors import InputError
from meshwright.catalog.stack_entry import RecomputedModule
from meshwright.planner import Plan, emit, inputs_of
from meshwright.planner.emission.emitters import EMITTERS
from meshwright.planner.emission.megatron.arguments import words
from meshwright.planner.emission.megatron_0_12.environment import environment
from meshwright.planner.emission.megatron_0_12.settings import arguments
from meshwright.planner.emission.megatron_0_12.stages import cuts_by_ends
from meshwright.planner.emission.target import EmitTarget
from meshwright.planner.given_layout import plan_of_layout
from meshwright.planner.plan_schema import LayoutSection

LISTS = Path(__file__).parent / "megatron"


def options(name: str) -> dict[str, dict[str, Any]]:
    known: dict[str, dict[str, Any]] = json.loads((LISTS / f"{name}.json").read_text())["options"]
    return known


MEGATRON, MINDSPEED = options("core-0.12.1"), options("mindspeed-c77308a")
TYPES = {"int": int, "float": float, "str": str}
# Of core 0.12.1's own parser that MindSpeed gives no type: whether fused attention is asked for.
ASCEND: dict[str, tuple[str, int, int, int, dict[str, Any]]] = {
    "dense": (
        "llama-3.1-70b",
        128,
        256,
        8192,
        {"tensor_parallel": 8, "sequence_parallel": True, "pipeline_parallel": 4, "data_parallel": 4}
        | {"zero_stage": 1, "zero_shard": 4, "recompute": "full"},
    ),
    "uneven": (
        "llama-3.1-405b",
        1024,
        512,
        8192,
        {"tensor_parallel": 8, "sequence_parallel": True, "pipeline_parallel": 16, "data_parallel": 8}
        | {"split": (6, 7, *(8,) * 13, 9), "zero_stage": 1, "zero_shard": 8, "recompute": "full"},
    ),
    "uneven-chunks": (
        "llama-3.1-70b",
        128,
        256,
        8192,
        {"tensor_parallel": 8, "sequence_parallel": True, "pipeline_parallel": 4, "data_parallel": 4}
        | {"virtual_pipeline": 2, "schedule": "interleaved", "split": (9, *(10,) * 6, 11)}
        | {"zero_stage": 1, "zero_shard": 4, "recompute": "full"},
    ),
    "dualpipev": (
        "llama-3.1-70b",
        128,
        256,
        8192,
        {"tensor_parallel": 8, "sequence_parallel": True, "pipeline_parallel": 4, "data_parallel": 4}
        | {"virtual_pipeline": 2, "schedule": "dualpipev", "zero_stage": 1, "zero_shard": 4, "recompute": "full"},
    ),
    "long-context": (
        "llama-3.1-8b",
        64,
        16,
        131072,
        {"tensor_parallel": 2, "sequence_parallel": True, "context_parallel": 16, "data_parallel": 2}
        | {"context_method": "hybrid", "ulysses_parallel": 4, "zero_stage": 1, "zero_shard": 32, "recompute": "full"},
    ),
    "moe": (
        "qwen3-30b-a3b",
        64,
        256,
        4096,
        {"tensor_parallel": 2, "sequence_parallel": True, "pipeline_parallel": 2, "data_parallel": 16}
        | {"expert_parallel": 16, "zero_stage": 1, "zero_shard": 16, "recompute": "full"},
    ),
}


@cache
def ascend(name: str) -> Plan:
    model, devices, global_batch, sequence_length, fields = ASCEND[name]
    inputs = inputs_of(
        model,
        f"atlas-900-a2:{devices}",
        stack="mindspeed",
        precision="bf16",
        objective="time",
        top=0,
        global_batch=global_batch,
        sequence_length=sequence_length,
        memory_headroom=0.0,
    )
    return plan_of_layout(inputs, layout_of(fields))


def laid_out(plan: Plan, **fields: object) -> Plan:
    layout = LayoutSection.of(layout_of({**plan.layout.model_dump(), **fields}))
    return plan.model_copy(update={"layout": layout})


def stacked(plan: Plan, **changes: object) -> Plan:
    stack = plan.inputs.stack.model_copy(update={"entry": plan.inputs.stack.entry.model_copy(update=changes)})
    return plan.model_copy(update={"inputs": plan.inputs.model_copy(update={"stack": stack})})


def runnable() -> list[Plan]:
    plans = [plan_named(name) for name in PLANS]
    return [plan for plan in plans if not any(EMITTERS[EmitTarget.MEGATRON_0_12].obstacles(plan))]


def check_options(plan: Plan, known: dict[str, dict[str, Any]]) -> None:
    found: dict[str, list[str]] = {}
    for word in words(arguments(plan)):
        if word.startswith("--"):
            found[word] = last = []
        else:
            last.append(word)
    for option, values in found.items():
        entry = known[option]
        assert entry["values"] in (len(values), "+", "*"), option
        for value in values:
            assert value in entry.get("choices", [value]), option
            TYPES.get(entry.get("type", "str"), str)(value)


def test_all_but_copies_of_shards_can_be_told() -> None:
    assert len(runnable()) == len(PLANS) - 1
    with pytest.raises(InputError, match="over all 32 ranks that hold the same"):
        emit(plan_named("hsdp"), "megatron-0.12")


def test_without_mindspeed_each_option_is_one_of_the_parsers() -> None:
    for plan in runnable():
        check_options(plan, MEGATRON)


@pytest.mark.parametrize("name", ASCEND)
def test_with_it_each_option_is_one_of_either(name: str) -> None:
    assert emit(ascend(name), "megatron-0.12").files["arguments.sh"]
    check_options(ascend(name), MEGATRON | MINDSPEED)


def test_stages() -> None:
    assert arguments(ascend("uneven"))["num-layer-list"] == "6,7,8,8,8,8,8,8,8,8,8,8,8,8,8,9"
    plain = arguments(plan_named("uneven"))
    assert (plain["decoder-first-pipeline-num-layers"], plain["decoder-last-pipeline-num-layers"]) == (7, 7)
    assert "num-layer-list" not in plain
    # Chunk c of stage s is number 4 c + s: the first stage has the 1st and the 5th, the last one the 4th and the 8th.
    chunks = arguments(ascend("uneven-chunks"))
    assert chunks["pipeline-num-transformer-layers"] == "[[9,10],[10,10],[10,10],[10,11]]"
    assert chunks["num-layers-per-virtual-pipeline-stage"] == 10


def test_cuts_whose_ends_alone_differ_are_offered() -> None:
    uneven = laid_out(plan_named("uneven"), split=(6, 7, *(8,) * 13, 9))
    offered = [found["split"] for found in cuts_by_ends(uneven)]
    # 126 layers, less 14 stages of 7 or 8, in the ratio of 6 to 9
    assert offered == [(11, *(7,) * 14, 17), (6, *(8,) * 14, 8)]
    for split in offered:
        told = arguments(laid_out(uneven, split=split))
        assert told["decoder-first-pipeline-num-layers"] == split[0]
        assert told["decoder-last-pipeline-num-layers"] == split[-1]
    # the even cut, of 7, 14 stages of 8, and 7, takes the shortest step
    assert emit(uneven, EmitTarget.MEGATRON_0_12, relax=True).plan.layout.split == ()
    lopsided = laid_out(uneven, split=(1, 15, *(0,) * 13, 110))
    assert [found["split"] for found in cuts_by_ends(lopsided)] == []


def test_dualpipev() -> None:
    given = arguments(ascend("dualpipev"))
    assert (given["schedules-method"], given["dualpipev-dw-detach"]) == ("dualpipev", True)
    assert "num-layers-per-virtual-pipeline-stage" not in given
    assert "overlap-grad-reduce" not in arguments(stacked(ascend("dualpipev"), overlap_gradients=True))


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("ring", {"context-parallel-algo": "megatron_cp_algo", "use-cp-send-recv-overlap": True}),
        ("all-gather", {"context-parallel-algo": "kvallgather_cp_algo"}),
        ("ulysses", {"context-parallel-algo": "ulysses_cp_algo"}),
        (
            "hybrid",
            {"context-parallel-algo": "hybrid_cp_algo", "ulysses-degree-in-cp": 4, "use-cp-send-recv-overlap": True},
        ),
    ],
)
def test_context_parallelism(method: str, expected: dict[str, Any]) -> None:
    inner = 4 if method == "hybrid" else 1
    given = arguments(laid_out(ascend("long-context"), context_method=method, ulysses_parallel=inner))
    marks = ("context-parallel-algo", "use-cp-send-recv-overlap", "ulysses-degree-in-cp", "cp-comm-type")
    assert {name: value for name, value in given.items() if name in marks} == expected


def test_what_is_recomputed_alone_is_in_words_of_its_own() -> None:
    modules = (RecomputedModule.NORMS, RecomputedModule.ACTIVATION)
    given = arguments(stacked(laid_out(ascend("dense"), recompute="selective"), selective_recompute=modules))
    assert given["recompute-norm"] is True
    assert given["recompute-activation-function"] is True
    assert "recompute-granularity" not in given
    core = arguments(laid_out(ascend("dense"), recompute="selective"))
    assert (core["recompute-granularity"], core["recompute-modules"]) == ("selective", ("core_attn",))


def test_halves_of_master_weights() -> None:
    assert "reuse-fp32-param" not in arguments(ascend("dense"))
    assert arguments(stacked(ascend("dense"), master_bytes=2))["reuse-fp32-param"] is True


def test_latent_attention_is_named_as_the_parser_names_it() -> None:
    given = arguments(plan_named("latent-attention"))
    assert (given["qk-head-dim"], given["qk-pos-emb-head-dim"]) == (128, 64)
    assert (given["decoder-first-pipeline-num-layers"], given["decoder-last-pipeline-num-layers"]) == (3, 2)


def test_sharding_had_another_name() -> None:
    given = arguments(plan_named("fsdp"))
    assert given["use-custom-fsdp"] is True
    assert given["data-parallel-sharding-strategy"] == "optim_grads_params"
    assert not {"use-megatron-fsdp", "ckpt-format"} & set(given)


def test_tokens_reach_experts_by_deepep_on_nvidia_only() -> None:
    assert arguments(plan_named("moe"))["moe-enable-deepep"] is True
    assert arguments(ascend("moe"))["moe-token-dispatcher-type"] == "alltoall"
    assert "moe-enable-deepep" not in arguments(ascend("moe"))


def test_the_environment_is_that_of_the_devices() -> None:
    assert environment(ascend("dense"))["PYTORCH_NPU_ALLOC_CONF"] == "expandable_segments:True"
    assert environment(plan_named("dense-3d")) == {"CUDA_DEVICE_MAX_CONNECTIONS": "1"}


@pytest.mark.parametrize(
    ("plan", "feature"),
    [
        (laid_out(ascend("dualpipev"), context_parallel=2, data_parallel=2), "no context parallelism under dualpipev"),
        (
            laid_out(ascend("dualpipev"), data_parallel=64, tensor_parallel=1),
            "needs 7 micro-batches under dualpipev, not 4",
        ),
        (laid_out(plan_named("dense-3d"), schedule="dualpipev", virtual_pipeline=2), "has no dualpipev schedule"),
        (laid_out(plan_named("uneven"), split=(6, 7, *(8,) * 13, 9)), "only its own first and last stage"),
        (laid_out(ascend("uneven-chunks"), split=(8, *(10,) * 6, 12), schedule="zb-h1"), "has no zb-h1 schedule"),
        (laid_out(ascend("uneven"), split=(0, *(8,) * 13, 11, 11)), "only lists of layers a stage"),
    ],
)
def test_what_it_lacks_is_refused(plan: Plan, feature: str) -> None:
    with pytest.raises(InputError, match=feature):
        emit(plan, "megatron-0.12")
