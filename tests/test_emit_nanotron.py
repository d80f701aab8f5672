"""Configurations for Nanotron: each key held against a list of its own, and by hand where the list wouldn't notice."""

from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from emitted_plans import PLANS, layout_of, plan_named
from listed_fields import Sections, complaints, listed

from meshwright.catalog.errors import Infeasible, InputError
from meshwright.catalog.model_entry import ExpertsEntry, ModelEntry
from meshwright.planner import Plan, emit
from meshwright.planner.emission.nanotron.obstacles import obstacles
from meshwright.planner.emission.nanotron.settings import settings
from meshwright.planner.emission.nanotron.stages import stage_sizes
from meshwright.planner.plan_schema import LayoutSection

KNOWN = listed("nanotron", "2411b02")
# Of the other plans it lacks the model, or nothing that it runs fits.
RUNNABLE = ("gqa-tensor", "uneven", "hsdp", "tensor-fsdp", "optimizer-instances", "single-device", "pipeline-fsdp")


def laid_out(name: str, **fields: object) -> Plan:
    plan = plan_named(name)
    layout = LayoutSection.of(layout_of({**plan.layout.model_dump(), **fields}))
    return plan.model_copy(update={"layout": layout})


def with_model(plan: Plan, **fields: object) -> Plan:
    entry = plan.inputs.model.entry.model_copy(update=fields)
    model = plan.inputs.model.model_copy(update={"entry": entry})
    return plan.model_copy(update={"inputs": plan.inputs.model_copy(update={"model": model})})


def model_of(name: str) -> ModelEntry:
    return plan_named(name).inputs.model.entry


def document_of(plan: Plan) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(emit(plan, "nanotron").files["nanotron.yaml"])
    return document


def sections(document: dict[str, Any]) -> Sections:
    """Give the sections of a document by their paths; of stages of data the first."""
    return dict(_sections("", document))


def _sections(path: str, document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, document
    for name, value in document.items():
        inner = value[0] if isinstance(value, list) and value and isinstance(value[0], dict) else value
        if isinstance(inner, dict):
            yield from _sections(f"{path}.{name}".removeprefix("."), inner)


@pytest.mark.parametrize("name", RUNNABLE)
def test_each_key_is_one_of_its_own_with_a_value_it_takes(name: str) -> None:
    plan = emit(plan_named(name), "nanotron", relax=True).plan
    assert list(complaints(KNOWN, sections(document_of(plan)))) == []


BREAKS: dict[str, tuple[str, str, object]] = {
    "unknown section": ("parallelism.pipeline", "pp", 8),
    "unknown key": ("parallelism", "data_parallel", 8),
    "degree of a wrong type": ("parallelism", "tp", "8"),
    "unknown engine": ("parallelism", "pp_engine", "interleaved"),
    "unknown format": ("model", "dtype", "bf16"),
    "switch of a wrong type": ("parallelism", "recompute_layer", "full"),
}


@pytest.mark.parametrize("broken", BREAKS)
def test_the_list_shows_what_is_broken(broken: str) -> None:
    section, name, value = BREAKS[broken]
    given = {path: dict(values) for path, values in sections(document_of(plan_named("single-device"))).items()}
    given.setdefault(section, {})[name] = value
    assert len(list(complaints(KNOWN, given))) == 1


def test_the_list_shows_what_is_missing() -> None:
    given = {path: dict(values) for path, values in sections(document_of(plan_named("single-device"))).items()}
    del given["tokens"]["sequence_length"]
    assert list(complaints(KNOWN, given)) == ["tokens.sequence_length: missing"]


def test_degrees_and_batch_by_hand() -> None:
    document = document_of(emit(plan_named("tensor-fsdp"), "nanotron", relax=True).plan)
    degrees = document["parallelism"]
    assert (degrees["dp"], degrees["pp"], degrees["tp"]) == (8, 1, 8)
    assert degrees["tp_mode"] == "REDUCE_SCATTER"
    assert degrees["recompute_layer"] is True
    # 128 sequences over 8 replicas, one at a time.
    assert document["tokens"]["batch_accumulation_per_replica"] == 16
    assert document["tokens"]["micro_batch_size"] == 1
    assert document["optimizer"]["zero_stage"] == 1


def test_tensor_ranks_without_sequence_parallelism_reduce_all() -> None:
    plan = laid_out("gqa-tensor", sequence_parallel=False, recompute_layers=None)
    assert document_of(plan)["parallelism"]["tp_mode"] == "ALL_REDUCE"


def small(layers: int, *, vocab: int) -> ModelEntry:
    """A model of which a layer costs 4 x 64^2 + 3 x 128 x 64 = 40960, and the head 64 x vocab."""
    sizes = {"hidden": 64, "heads": 4, "kv_heads": 4, "head_dim": 16, "ffn_hidden": 128}
    return model_of("single-device").model_copy(update={"layers": layers, "vocab": vocab, **sizes})


@pytest.mark.parametrize(
    ("layers", "vocab", "stages", "expected"),
    [
        (8, 1, 2, (5, 3)),  # half of 8 layers and a little is above 4 layers: the fifth ends the stage
        (8, 640, 1, (8,)),
        (8, 640, 3, (4, 3, 1)),  # the head is a layer: shares of 3, 6 and 9, each exceeded by one
        (8, 6400, 2, None),  # the head is 10 layers: it begins within the first half
        (32, 640, 4, (9, 8, 8, 7)),
    ],
)
def test_stages_as_it_cuts_them(layers: int, vocab: int, stages: int, expected: tuple[int, ...] | None) -> None:
    assert stage_sizes(small(layers, vocab=vocab), stages) == expected


def test_a_head_of_its_own_weight_leaves_a_stage_without_layers_to_others() -> None:
    plan = with_model(laid_out("pipeline-fsdp", zero_stage=1), vocab=100_000_000)
    refusals = [obstacle for obstacle in obstacles(plan) if obstacle.path == "layout.pipeline_parallel"]
    assert len(refusals) == 1
    assert {change["pipeline_parallel"] for change in refusals[0].instead} == {1}


def test_mixtures_are_told_by_their_layers() -> None:
    entry = plan_named("single-device").inputs.model.entry
    experts = ExpertsEntry(experts=8, top_k=2, ffn_hidden=1024, dense_layers=1, layer_frequency=2)
    given = settings(with_model(plan_named("single-device"), experts=experts))["model"]["model_config"]["moe_config"]
    assert given["layers"] == list(
        range(1, entry.layers, 2)
    )  # the first behind the dense ones, and every second from there
    assert (given["num_experts"], given["top_k"], given["enable_shared_expert"]) == (8, 2, False)
    shared = experts.model_copy(update={"shared_ffn_hidden": 2048, "shared_expert_gate": True})
    given = settings(with_model(plan_named("single-device"), experts=shared))["model"]["model_config"]["moe_config"]
    assert (given["enable_shared_expert"], given["shared_expert_intermediate_size"]) == (True, 2048)


@pytest.mark.parametrize(
    ("fields", "path", "feature"),
    [
        ({"zero_stage": 2}, "layout.zero_stage", "shards optimizer states only"),
        ({"zero_shard": 4}, "layout.zero_shard", "shards over all replicas"),
        ({"recompute_layers": 2}, "layout.recompute", "all layers as a whole"),
        ({"recompute": "selective"}, "layout.recompute", "all layers as a whole"),
        ({"tensor_parallel": 2, "data_parallel": 2, "context_parallel": 2}, "layout.context_parallel", "resumes"),
        ({"tensor_parallel": 16, "data_parallel": 1}, "layout.tensor_parallel", "can't share 8 key heads"),
        (
            {"pipeline_parallel": 4, "data_parallel": 2, "schedule": "zb-h1"},
            "layout.schedule",
            "has no zb-h1 schedule",
        ),
        ({"pipeline_parallel": 4, "data_parallel": 2}, "layout.split", "cuts the layers itself, into 9-9-8-6"),
    ],
)
def test_what_it_cannot_run_is_refused(fields: dict[str, Any], path: str, feature: str) -> None:
    base = {"zero_stage": 1, "zero_shard": fields.get("data_parallel", 8), "recompute_layers": None}
    with pytest.raises(InputError, match=feature) as refusal:
        emit(laid_out("fsdp", **base | fields), "nanotron")
    assert refusal.value.path == path


def test_few_micro_batches_pass_one_after_another() -> None:
    # 64 sequences over 16 replicas of 8 stages, in micro-batches of 1: 4 of them, and 7 are needed.
    sizes = stage_sizes(model_of("fsdp"), 8)
    plan = laid_out("fsdp", pipeline_parallel=8, data_parallel=16, zero_stage=1, zero_shard=16, split=sizes)
    found = list(obstacles(plan))
    assert [obstacle.feature for obstacle in found] == ["needs 7 micro-batches under 1f1b, not 4"]
    assert found[0].instead == ({"schedule": "gpipe"},)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"positions": "learned", "max_positions": 2048}, "positions"),
        ({"norm": "layer_norm"}, "norm"),
        ({"gated_mlp": False}, "gated_mlp"),
        ({"query_key_norm": True}, "query_key_norm"),
        ({"head_dim": 64}, "head_dim"),
        ({"window": 1024, "window_frequency": 2}, "window_frequency"),
        ({"mtp_layers": 1}, "mtp_layers"),
        ({"experts": ExpertsEntry(experts=8, top_k=2, ffn_hidden=512, groups=4, groups_per_token=2)}, "experts.groups"),
    ],
)
def test_what_its_model_lacks_is_refused(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InputError) as refusal:
        emit(with_model(plan_named("single-device"), **fields), "nanotron", relax=True)
    assert refusal.value.path == f"inputs.model.entry.{field}"


def test_relaxed_as_it_cuts_and_shards() -> None:
    emission = emit(plan_named("pipeline-fsdp"), "nanotron", relax=True)
    assert emission.relaxed == ("split: () -> (21, 20, 20, 19)", "zero_stage: 2 -> 1")
    assert emission.slower_by > 0
    with pytest.raises(Infeasible):
        emit(plan_named("fsdp"), "nanotron", relax=True)


def test_every_plan_is_run_or_refused_with_the_field() -> None:
    for name in PLANS:
        for obstacle in obstacles(plan_named(name)):
            assert obstacle.path.startswith(("layout.", "inputs."))


def test_the_rotary_base_is_the_models() -> None:
    changed = with_model(plan_named("single-device"), rotary_base=250_000)
    assert settings(changed)["model"]["model_config"]["rope_theta"] == 250_000.0
