"""What the reference launcher can't run is said, with the field that asks for it; small models have none of it."""

from dataclasses import replace

import pytest
from emitted_plans import plan_named
from small_models import small_model, small_workload

from meshwright.catalog.context_method import ContextMethod
from meshwright.catalog.errors import InputError
from meshwright.catalog.lookup import entry_names, find_model
from meshwright.catalog.schedule import Schedule
from meshwright.costmodels.layout import Recompute
from meshwright.costmodels.transformer import transformer_of
from meshwright.planner.emission import emit
from meshwright.planner.emission.torch.obstacles import require_expressible, workload_obstacles
from meshwright.planner.given_layout import plan_of_layout
from meshwright.planner.ledger.tiny import tiny_workload
from meshwright.planner.plan_file import plan_yaml

FULL = Recompute.FULL
MIXTURE = small_model(experts=True)


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("context_method", {"context_parallel": 2}),
        ("context_method", {"context_parallel": 4, "context_method": ContextMethod.HYBRID, "ulysses_parallel": 2}),
        ("vocabulary_parallel", {"pipeline_parallel": 2, "vocabulary_parallel": True}),
        ("schedule", {"pipeline_parallel": 2, "virtual_pipeline": 2, "schedule": Schedule.V_HALF}),
        ("schedule", {"pipeline_parallel": 2, "schedule": Schedule.ZERO_BUBBLE_2P}),
        ("recompute", {"pipeline_parallel": 2, "schedule": Schedule.ZERO_BUBBLE_H1, "recompute": FULL}),
        ("micro_batch", {"pipeline_parallel": 4, "micro_batches": 3}),
        ("gradient_shard", {"data_parallel": 4, "zero_stage": 2, "zero_shard": 4, "gradient_shard": 2}),
        ("backward_shard", {"data_parallel": 4, "zero_stage": 3, "zero_shard": 4, "backward_shard": 2}),
        ("tensor_parallel", {"tensor_parallel": 8}),
        ("context_parallel", {"context_parallel": 8, "context_method": ContextMethod.ULYSSES}),
    ],
)
def test_a_layout_that_it_cant_run(field: str, fields: dict[str, object]) -> None:
    with pytest.raises(InputError) as raised:
        require_expressible(small_workload(**fields), file="plan.yaml")
    assert raised.value.path == f"layout.{field}"
    assert "the reference launcher" in raised.value.message


def test_experts_need_cut_tokens_on_tensor_ranks() -> None:
    (found,) = workload_obstacles(small_workload(MIXTURE, tensor_parallel=2))
    assert found.path == "layout.sequence_parallel"
    (cut,) = workload_obstacles(
        small_workload(MIXTURE, tensor_parallel=2, sequence_parallel=True, expert_tensor_parallel=2)
    )
    assert cut.path == "layout.expert_tensor_parallel"


def test_sixteen_bits_need_fsdp() -> None:
    halved = replace(small_workload(data_parallel=2), element_bytes=2)
    assert [each.path for each in workload_obstacles(halved)] == ["inputs.job.precision"]
    sharded = replace(small_workload(data_parallel=2, zero_stage=1, zero_shard=2), element_bytes=2)
    assert list(workload_obstacles(sharded)) == []


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gpt3-175b", "positions"),
        ("deepseek-v3", "latent attention"),
        ("llama-4-maverick", "within a window"),
        ("mpt-7b", "the embedding"),
        ("llama-3.1-8b", ""),
    ],
)
def test_a_model_that_it_cant_build(name: str, words: str) -> None:
    model = transformer_of(find_model(name))
    found = [each.feature for each in workload_obstacles(small_workload(model, sequence_length=16_384))]
    assert found == [] if not words else any(words in each for each in found)


@pytest.mark.parametrize("name", entry_names("models"))
@pytest.mark.parametrize(
    "fields",
    [
        {"tensor_parallel": 8, "sequence_parallel": True, "pipeline_parallel": 2},
        {
            "context_parallel": 4,
            "context_method": ContextMethod.ULYSSES,
            "tensor_parallel": 2,
            "sequence_parallel": True,
        },
    ],
)
def test_a_tiny_model_of_any_kind_runs(name: str, fields: dict[str, object]) -> None:
    model = transformer_of(find_model(name))
    whole = small_workload(model, **fields)
    tiny = tiny_workload(whole)
    assert list(workload_obstacles(tiny)) == []
    assert tiny.layout is whole.layout
    assert [layer.mlp.__class__ for layer in tiny.model.layers] == [layer.mlp.__class__ for layer in model.layers]


@pytest.mark.parametrize(("name", "cast"), [("gqa-tensor", True), ("single-device", False)])
def test_what_a_node_runs(name: str, cast: bool) -> None:
    made = plan_named(name)
    emitted = emit(made, "torch")
    assert '-m meshwright.cli.run "$here/plan.yaml" --model plan' in emitted.files["run.sh"]
    assert ("--precision bf16" in emitted.files["run.sh"]) == cast
    assert emitted.files["plan.yaml"] == plan_yaml(made)


def test_the_nearest_plan_that_it_can_run() -> None:
    made = plan_named("gqa-tensor")
    folded = {"virtual_pipeline": 2, "pipeline_parallel": 2, "data_parallel": 4, "zero_shard": 4, "schedule": "v-half"}
    odd = plan_of_layout(made.inputs, replace(made.layout.layout(), **folded))
    with pytest.raises(InputError, match="has no v-half schedule"):
        emit(odd, "torch")
    assert emit(odd, "torch", relax=True).plan.layout.schedule is Schedule.ONE_F_ONE_B
