"""Arguments for Megatron-LM, held against its parser's options, and by hand where it wouldn't notice."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from emitted_plans import PLANS, layout_of, plan_named

from meshwright.catalog.axis_order import AxisOrder
from meshwright.catalog.errors import InputError
from meshwright.planner import emit
from meshwright.planner.emission.megatron.arguments import words
from meshwright.planner.emission.megatron.environment import environment
from meshwright.planner.emission.megatron.files import arguments
from meshwright.planner.given_layout import plan_of_layout
from meshwright.planner.plan_schema import LayoutSection

OPTIONS: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "megatron" / "d98e8a64.json").read_text())[
    "options"
]
TYPES = {"int": int, "float": float, "str": str}


def options_of(words: list[str]) -> dict[str, list[str]]:
    """Group the words of a command line by option, as the parser does."""
    found: dict[str, list[str]] = {}
    for word in words:
        if word.startswith("--"):
            assert word not in found, f"{word} twice"
            last = found[word] = []
        else:
            last.append(word)
    return found


@pytest.mark.parametrize("name", PLANS)
def test_each_option_is_one_of_the_parsers_with_a_value_it_takes(name: str) -> None:
    for option, values in options_of(list(words(arguments(plan_named(name))))).items():
        known = OPTIONS[option]
        assert len(values) == known["values"] or (known["values"] == "+" and values), option
        for value in values:
            assert value in known.get("choices", [value]), option
            TYPES.get(known.get("type", "str"), str)(value)


@pytest.mark.parametrize("name", PLANS)
def test_both_forms_say_the_same(name: str) -> None:
    recipe = yaml.safe_load(emit(plan_named(name), "megatron").files["arguments.yaml"])["MODEL_ARGS"]
    spelt = {
        option: " ".join(values) for option, values in options_of(list(words(arguments(plan_named(name))))).items()
    }
    assert {option: "" if value is True else str(value) for option, value in recipe.items()} == spelt


def test_degrees_and_batch_by_hand() -> None:
    given = arguments(plan_named("moe"))
    assert given["tensor-model-parallel-size"] == 2
    assert given["sequence-parallel"] is True
    assert given["pipeline-model-parallel-size"] == 4
    assert (given["expert-model-parallel-size"], given["expert-tensor-parallel-size"]) == (8, 1)
    assert (given["micro-batch-size"], given["global-batch-size"]) == (1, 256)
    assert given["moe-token-dispatcher-type"] == "flex"
    assert (given["rotary-base"], "rotary-base" in arguments(plan_named("latent-attention"))) == (1_000_000, False)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("uneven", "Et*7|" + "t*8|" * 14 + "t*7L"),
        ("latent-attention", "Et*3|" + "t*4|" * 14 + "t*2mL"),
    ],
)
def test_uneven_stages(name: str, expected: str) -> None:
    assert arguments(plan_named(name))["pipeline-model-parallel-layout"] == expected


def test_even_stages_need_no_layout() -> None:
    given = arguments(plan_named("interleaved"))
    assert given["num-layers-per-virtual-pipeline-stage"] == 5  # 80 layers in 16 chunks
    assert "pipeline-model-parallel-layout" not in given


def test_dense_layers_before_mixtures_and_latent_attention() -> None:
    given = arguments(plan_named("latent-attention"))
    assert given["moe-layer-freq"] == "([0]*3+[1]*58)"
    assert (given["moe-router-num-groups"], given["moe-router-group-topk"]) == (8, 4)
    assert "moe-router-num-groups" not in arguments(plan_named("moe"))
    assert (given["qk-head-dim"], given["qk-pos-emb-head-dim"], given["v-head-dim"]) == (128, 64, 128)
    assert given["mtp-num-layers"] == 1
    assert "kv-channels" not in given


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("hybrid-context", {"cp-comm-type": "a2a+p2p", "hierarchical-context-parallel-sizes": (8, 2)}),
        ("optimizer-instances", {"use-distributed-optimizer": True, "num-distributed-optimizer-instances": 4}),
        (
            "hsdp",
            {"data-parallel-sharding-strategy": "optim_grads_params", "num-distributed-optimizer-instances": 4}
            | {"ckpt-format": "fsdp_dtensor", "use-megatron-fsdp": True},
        ),
        (
            "gqa-tensor",
            {"recompute-granularity": "full", "recompute-method": "block", "recompute-num-layers": 70},
        ),
        ("dense-3d", {"recompute-granularity": "selective", "recompute-modules": ("core_attn",)}),
    ],
)
def test_what_is_said_of_a_layout(name: str, expected: dict[str, Any]) -> None:
    given = arguments(plan_named(name))
    assert {option: given[option] for option in expected} == expected


def test_ranks_are_numbered_as_the_plan_says() -> None:
    plan = plan_named("dense-3d")
    outermost = plan.layout.model_copy(update={"axis_order": AxisOrder.DATA_OUTERMOST})
    given = arguments(plan.model_copy(update={"layout": outermost}))
    assert set(given) - set(arguments(plan)) == {"use-tp-pp-dp-mapping"}
    assert list(words(given)).count("--use-tp-pp-dp-mapping") == 1
    assert "use-tp-pp-dp-mapping" in {option.removeprefix("--") for option in OPTIONS}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("dense-3d", {"CUDA_DEVICE_MAX_CONNECTIONS": "1"}),
        ("hsdp", {"CUDA_DEVICE_MAX_CONNECTIONS": None}),
        ("single-device", {}),
    ],
)
def test_connections(name: str, expected: dict[str, str | None]) -> None:
    assert environment(plan_named(name)) == expected


@pytest.mark.parametrize(
    ("name", "fields", "feature"),
    [
        # 2304 sequences over 768 replicas: 3 micro-batches, which the validation lets pass and training refuses.
        ("interleaved", {"pipeline_parallel": 2, "tensor_parallel": 1, "data_parallel": 768}, "interleaves"),
        ("moe", {"tensor_parallel": 2, "sequence_parallel": False}, "only with sequence parallelism"),
        ("dense-3d", {"vocabulary_parallel": True}, "doesn't share embedding and head"),
        ("long-context", {"context_method": "bidirectional-ring"}, "has no bidirectional-ring"),
        ("uneven", {"recompute_split": (1, *(2,) * 15)}, "recomputes the same number of layers"),
        ("fsdp", {"backward_shard": 2}, "over the same ranks"),
    ],
)
def test_what_its_training_would_refuse_is_refused(name: str, fields: dict[str, Any], feature: str) -> None:
    plan = plan_named(name)
    changed = plan.model_copy(update={"layout": plan.layout.model_copy(update=layout_fields(plan.layout, fields))})
    with pytest.raises(InputError, match=feature):
        emit(changed, "megatron")


def layout_fields(layout: LayoutSection, fields: dict[str, Any]) -> dict[str, Any]:
    valid = layout_of({**layout.model_dump(), **fields})
    return {name: getattr(valid, name) for name in fields}


def test_a_plan_of_the_same_layout_is_the_same() -> None:
    plan = plan_named("uneven")
    assert plan_of_layout(plan.inputs, plan.layout.layout()) == plan
