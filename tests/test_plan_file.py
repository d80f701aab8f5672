"""Plan files: they come back as they went, byte for byte the same anywhere, whole or not at all, and damage is told."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from meshwright.catalog.cluster_entry import ClusterEntry
from meshwright.catalog.device_entry import DeviceEntry
from meshwright.catalog.errors import InputError
from meshwright.catalog.lookup import device_named, entry_names, find_cluster, find_model, stack_named
from meshwright.catalog.model_entry import ModelEntry
from meshwright.catalog.quantity import LARGEST, SMALLEST, Bytes, BytesPerSecond, FlopPerSecond, Seconds
from meshwright.catalog.schedule import Schedule
from meshwright.catalog.stack_entry import StackEntry
from meshwright.costmodels.layout import Layout, Recompute
from meshwright.planner import Plan, load_plan, plan, write_plan
from meshwright.planner.digest import digest_of
from meshwright.planner.figures import significant, significant_bytes
from meshwright.planner.plan_file import plan_json, plan_json_schema, plan_yaml, read_plan
from meshwright.planner.plan_schema import LayoutSection

Change = Callable[[dict[str, Any]], object]

DETERMINISM = """
import sys
from meshwright.planner import plan
from meshwright.planner.plan_file import plan_yaml
from meshwright.catalog.cluster_entry import ClusterEntry
from meshwright.catalog.model_entry import ModelEntry
import json
model, cluster = json.loads(sys.stdin.read())
model, cluster = ModelEntry.model_validate(model), ClusterEntry.model_validate(cluster)
sys.stdout.write(plan_yaml(plan(model, cluster, global_batch=32, sequence_length=4096)))
"""


def edited(source: Plan, change: Change, path: Path, *, digest: bool = False) -> Path:
    """Write a plan after a change of its document; with its digest made to agree where asked."""
    document = yaml.safe_load(plan_yaml(source))
    change(document)
    if digest:
        document["inputs"]["digest"] = digest_of(document["inputs"])
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


@pytest.mark.parametrize("name", ["plan.yaml", "plan.yml", "plan.json", "plan"])
def test_a_plan_comes_back_as_it_went(toy_plan: Plan, tmp_path: Path, name: str) -> None:
    write_plan(toy_plan, tmp_path / name)
    assert load_plan(tmp_path / name) == toy_plan
    assert [item.name for item in tmp_path.iterdir()] == [name]


def test_writing_again_gives_the_same_bytes(toy_plan: Plan, tmp_path: Path) -> None:
    write_plan(toy_plan, tmp_path / "one.yaml")
    write_plan(load_plan(tmp_path / "one.yaml"), tmp_path / "two.yaml")
    assert (tmp_path / "one.yaml").read_bytes() == (tmp_path / "two.yaml").read_bytes()


@settings(max_examples=25)
@given(
    objective=st.sampled_from(["time", "memory", "cost"]), devices=st.sampled_from([1, 2, 4, 6, 8, 16]), data=st.data()
)
def test_any_plan_survives_the_file(
    toy_model: Callable[..., ModelEntry],
    toy_cluster: Callable[..., ClusterEntry],
    *,
    objective: str,
    devices: int,
    data: st.DataObject,
) -> None:
    made = plan(
        toy_model(layers=data.draw(st.integers(1, 9)), tied_embeddings=data.draw(st.booleans())),
        toy_cluster(devices),
        global_batch=48,
        sequence_length=data.draw(st.sampled_from([128, 1536, 4096])),
        objective=objective,
        top=data.draw(st.integers(0, 6)),
        memory_headroom=data.draw(st.floats(0, 0.5)),
    )
    assert Plan.model_validate(yaml.safe_load(plan_yaml(made))) == made
    assert Plan.model_validate(json.loads(plan_json(made))) == made


def test_the_bytes_don_t_depend_on_the_hash_seed(
    toy_model: Callable[..., ModelEntry], toy_cluster: Callable[..., ClusterEntry]
) -> None:
    experts = {"experts": 8, "top_k": 2, "ffn_hidden": 512}
    entries = [toy_model(experts=experts).model_dump(mode="json"), toy_cluster(8).model_dump(mode="json")]
    made = [
        subprocess.run(
            [sys.executable, "-c", DETERMINISM],
            input=json.dumps(entries),
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "4242")
    ]
    assert made[0] == made[1]
    assert made[0].startswith("version: 1\n")


def test_figures_have_nine_digits(toy_plan: Plan) -> None:
    predicted = toy_plan.predicted
    figures = [predicted.step_time_s, predicted.tokens_per_s, predicted.mfu, *predicted.time_breakdown_s.values()]
    assert all(significant(figure) == figure for figure in figures)
    assert significant(1 / 3) == 0.333333333
    assert significant_bytes(85_899_345_920.4) == 85_899_345_900


def test_predictions_agree_with_one_another(toy_plan: Plan) -> None:
    predicted, job = toy_plan.predicted, toy_plan.inputs.job
    tokens = job.global_batch * job.sequence_length
    assert predicted.tokens_per_s == pytest.approx(tokens / predicted.step_time_s, rel=1e-8)
    assert predicted.memory_limit_bytes == pytest.approx(80 * 2**30 * 0.95, rel=1e-8)
    usd_per_step = 2.5 * 16 * predicted.step_time_s / 3600
    assert predicted.usd_per_million_tokens == pytest.approx(usd_per_step / tokens * 1e6, rel=1e-8)
    assert toy_plan.search.gap == 0.0
    assert len(toy_plan.alternatives) == 3
    assert [item.step_time_s for item in toy_plan.alternatives] == sorted(
        item.step_time_s for item in toy_plan.alternatives
    )
    for item in toy_plan.alternatives:
        assert item.slower_by == pytest.approx(item.step_time_s / predicted.step_time_s - 1, abs=1e-8)


def test_a_rank_reads_its_layers_from_the_stages(toy_plan: Plan) -> None:
    stages = {stage.stage: stage for stage in toy_plan.stages}
    held = []
    for rank in range(toy_plan.mesh.devices):
        part = toy_plan.rank(rank)
        assert part.chunks == stages[part.stage].layers()
        assert rank in part.groups["data_context"]
        if all(part.coordinates[axis] == 0 for axis in ("tensor", "context", "data")):
            held += [layer for chunk in part.chunks for layer in chunk]
    assert sorted(held) == list(range(12))
    with pytest.raises(InputError, match="rank 16 is not one of the plan's"):
        toy_plan.rank(16)


# Writing


def test_a_crash_leaves_the_old_file_whole(toy_plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "plan.yaml"
    target.write_text("old")

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    for step in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, step, crash)
            with pytest.raises(KeyboardInterrupt):
                write_plan(toy_plan, target)
        assert target.read_text() == "old"
        assert list(tmp_path.iterdir()) == [target]


def test_a_full_disk_is_an_error_of_the_user_s(toy_plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"plan\.yaml: can't be written: No space left on device"):
        write_plan(toy_plan, tmp_path / "plan.yaml")
    assert list(tmp_path.iterdir()) == []


def test_where_no_plan_can_be_written(toy_plan: Plan, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no folder"):
        write_plan(toy_plan, tmp_path / "missing" / "plan.yaml")
    with pytest.raises(InputError, match="not a regular file"):
        write_plan(toy_plan, tmp_path)
    with pytest.raises(InputError, match="not a regular file"):
        write_plan(toy_plan, "/dev/null")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="there is no folder"):
        write_plan(toy_plan, tmp_path / "file" / "plan.yaml")
    with pytest.raises(InputError, match="can't be written"):
        write_plan(toy_plan, tmp_path / ("x" * 300 + ".yaml"))


def test_a_link_is_written_through(toy_plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "link.yaml").symlink_to(tmp_path / "real.yaml")
    write_plan(toy_plan, tmp_path / "link.yaml")
    assert (tmp_path / "link.yaml").is_symlink()
    assert load_plan(tmp_path / "real.yaml") == toy_plan


# Reading


def test_a_newer_format(toy_plan: Plan, tmp_path: Path) -> None:
    path = edited(toy_plan, lambda document: document.update(version=2, unknown={}), tmp_path / "plan.yaml")
    with pytest.raises(InputError, match="was made by a newer meshwright: its format is version 2"):
        read_plan(path)


@pytest.mark.parametrize("text", ["[]", "text", "", "{}", "layout: 1", "42"])
def test_what_is_not_a_plan(tmp_path: Path, text: str) -> None:
    (tmp_path / "plan.yaml").write_text(text)
    with pytest.raises(InputError, match=r"plan\.yaml: is not a plan"):
        read_plan(tmp_path / "plan.yaml")


def set_deep(document: dict[str, Any], path: str, value: object) -> None:
    *parents, last = path.split(".")
    for key in parents:
        document = document[int(key) if isinstance(document, list) else key]
    document[last] = value


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("layout.tensor_parallel", 0),
        ("layout.tensor_parallel", "2"),
        ("layout.tensor_parallel", True),
        ("layout.sequence_parallel", 1),
        ("layout.schedule", "2f2b"),
        ("layout.zero_stage", 4),
        ("predicted.step_time_s", -1.0),
        ("predicted.step_time_s", math.inf),
        ("predicted.mfu", math.nan),
        ("predicted.peak_memory_bytes.allocated", -5),
        ("search.feasible", -1),
        ("search.rejected", {"a reason": -1}),
        ("search.gap", -0.1),
        ("search.proof", "a feeling"),
        ("stages", []),
        ("alternatives.0.slower_by", "much"),
        ("extra", 1),
        ("version", 0),
        ("version", "1"),
        ("version", True),
        ("version", 1.0),
        ("stages.0.chunks", [[0, 10**12]]),
        ("inputs", []),
        ("inputs.digest", "sha256:0"),
    ],
)
def test_a_field_that_can_t_be_right(toy_plan: Plan, tmp_path: Path, path: str, value: object) -> None:
    file = edited(toy_plan, lambda document: set_deep(document, path, value), tmp_path / "plan.yaml")
    with pytest.raises(InputError) as caught:
        read_plan(file)
    assert caught.value.file == str(file)
    assert caught.value.path.startswith(path)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("inputs.job.global_batch", 64),
        ("inputs.device.entry.memory.capacity", "81 GiB"),
        ("inputs.model.entry.layers", 13),
        ("inputs.cluster.from_catalog", True),
    ],
)
def test_inputs_edited_by_hand(toy_plan: Plan, tmp_path: Path, path: str, value: object) -> None:
    file = edited(toy_plan, lambda document: set_deep(document, path, value), tmp_path / "plan.yaml")
    with pytest.raises(InputError, match=r"inputs\.digest: the inputs aren't those .* edited by hand"):
        read_plan(file)


def test_the_digest_ignores_the_order_of_keys(toy_plan: Plan, tmp_path: Path) -> None:
    def reverse(document: dict[str, Any]) -> None:
        document["inputs"] = dict(reversed(document["inputs"].items()))

    assert load_plan(edited(toy_plan, reverse, tmp_path / "plan.yaml")) == toy_plan


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        ("layout.tensor_parallel", 7, "the degrees multiply to"),
        ("layout.expert_parallel", 5, "the expert degrees don't divide"),
        ("layout.zero_shard", 3, "3 devices don't divide"),
        ("layout.gradient_shard", 3, "3 devices don't divide"),
        ("layout.backward_shard", 5, "5 devices don't divide"),
        ("layout.split", [13], "aren't 12 layers in"),
        ("layout.recompute_split", [13], "13 layers can't be recomputed of chunks of"),
        ("layout.schedule", "v-half", "v-half needs two chunks a stage"),
        ("layout.micro_batch", 7, "don't make up the global batch"),
        ("mesh.order", ["context", "tensor", "data", "pipeline"], "are numbered by"),
        ("mesh.groups.data.stride", 3, "aren't those that the layout implies"),
        ("mesh.groups", {}, "aren't those that the layout implies"),
        ("stages.0.stage", 1, "must be in order from 0"),
        ("stages.0.chunks", [[0, 12]], "don't hold each of the model's 12 layers once"),
        ("stages.0.chunks", [[1, 11]], "don't hold each of the model's 12 layers once"),
        ("stages.0.head", "other", "the head with the last"),
        ("predicted.step_time_s", 1000.0, "its breakdown sums to"),
        ("predicted.peak_memory_bytes.allocated", 1, "its breakdown sums to"),
        ("predicted.memory_limit_bytes", 1, "must rise from allocated"),
        ("search.candidates", 1, "feasible and"),
        ("search.gap", 0.5, "above the lower bound"),
        ("search.proof", "bounded", "but the gap is 0"),
        ("inputs.job.top", 2, "are 3; 2 were asked for"),
        ("alternatives.0.slower_by", 0.5, "its step time makes it"),
        ("alternatives.2.step_time_s", 1000.0, "alternatives.2.slower_by: is"),
        ("alternatives.1.layout.pipeline_parallel", 999, "alternatives.1.layout: needs"),
        ("alternatives.1.layout.virtual_pipeline", 999, "12 layers don't fill each chunk"),
        ("alternatives.1.layout.micro_batch", 7, "alternatives.1.layout.micro_batch: "),
        ("alternatives.1.layout.expert_parallel", 5, "the expert degrees don't divide"),
        ("alternatives.0.peak_memory_bytes", 10**12, "the memory limit is"),
    ],
)
def test_sections_that_contradict_one_another(
    toy_plan: Plan, tmp_path: Path, path: str, value: object, complaint: str
) -> None:
    if value == "other":
        value = not toy_plan.stages[0].head
    file = edited(toy_plan, lambda document: set_deep(document, path, value), tmp_path / "plan.yaml", digest=True)
    assert read_plan(file) != toy_plan
    with pytest.raises(InputError, match=complaint):
        load_plan(file)


def test_a_plan_holds_all_of_a_layout() -> None:
    assert set(LayoutSection.model_fields) == {field.name for field in fields(Layout)}


@pytest.mark.parametrize("objective", ["time", "memory", "cost"])
def test_only_a_plan_for_time_has_no_faster_alternatives(toy_plan: Plan, tmp_path: Path, objective: str) -> None:
    def hurry(document: dict[str, Any]) -> None:
        document["inputs"]["job"]["objective"] = objective
        set_deep(document, "alternatives.0.step_time_s", toy_plan.predicted.step_time_s / 2)
        set_deep(document, "alternatives.0.slower_by", -0.5)
        step_s, peak = toy_plan.predicted.step_time_s, toy_plan.predicted.peak_memory_bytes.nvidia_smi
        values = {"time": step_s, "cost": step_s * toy_plan.mesh.devices, "memory": peak}
        set_deep(document, "search.lower_bound", values[objective])

    file = edited(toy_plan, hurry, tmp_path / "plan.yaml", digest=True)
    if objective != "time":
        assert load_plan(file).alternatives[0].slower_by == -0.5
        return
    with pytest.raises(InputError, match=r"alternatives\.0\.step_time_s: is less than the plan's"):
        load_plan(file)


# Schema


def test_a_plan_obeys_the_schema(toy_plan: Plan) -> None:
    schema = plan_json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    document = yaml.safe_load(plan_yaml(toy_plan))
    assert list(validator.iter_errors(document)) == []
    for path, value in (("layout.micro_batch", 0), ("search.gap", -1), ("inputs.device.entry.memory.capacity", 80)):
        damaged = json.loads(json.dumps(document))
        set_deep(damaged, path, value)
        assert len(list(validator.iter_errors(damaged))) == 1, path


def test_a_layout_section_has_every_field_of_a_layout() -> None:
    layout = Layout(
        tensor_parallel=2,
        sequence_parallel=True,
        virtual_pipeline=3,
        pipeline_parallel=4,
        schedule=Schedule.INTERLEAVED,
        recompute=Recompute.FULL,
        zero_stage=3,
        zero_shard=8,
        gradient_shard=1,
        parameter_shard=4,
        backward_shard=2,
        data_parallel=8,
        micro_batch=7,
    )
    assert LayoutSection.of(layout).layout() == layout


# Quantities and entries as they are embedded

BYTES: TypeAdapter[int] = TypeAdapter(Bytes)
RATE: TypeAdapter[float] = TypeAdapter(BytesPerSecond)
FLOP_RATE: TypeAdapter[float] = TypeAdapter(FlopPerSecond)
TIME: TypeAdapter[float] = TypeAdapter(Seconds)


@pytest.mark.parametrize(
    ("adapter", "text", "printed"),
    [
        (BYTES, "80 GiB", "80 GiB"),
        (BYTES, "81559 MiB", "81559 MiB"),
        (BYTES, "80_000_000_000 B", "80 GB"),
        (RATE, "400 Gb/s", "50 GB/s"),
        (RATE, "3.35 TB/s", "3350 GB/s"),
        (FLOP_RATE, "989.4 TFLOP/s", "989.4 TFLOP/s"),
        (TIME, "0.5 min", "30 s"),
        (TIME, "1.5 us", "1.5 us"),
    ],
)
def test_quantities_are_printed_in_the_unit_that_is_shortest(
    adapter: TypeAdapter[float], text: str, printed: str
) -> None:
    assert adapter.dump_python(adapter.validate_python(text), mode="json") == printed


@given(st.floats(min_value=SMALLEST, max_value=LARGEST), st.sampled_from([RATE, FLOP_RATE, TIME]))
def test_any_quantity_is_printed_exactly(value: float, adapter: TypeAdapter[float]) -> None:
    assert adapter.validate_python(adapter.dump_python(value, mode="json")) == value


@given(st.integers(min_value=1, max_value=2**53))
def test_any_number_of_bytes_is_printed_exactly(value: int) -> None:
    assert BYTES.validate_python(BYTES.dump_python(value, mode="json")) == value


def test_every_catalog_entry_survives_being_embedded() -> None:
    entries: list[DeviceEntry | ClusterEntry | ModelEntry | StackEntry] = [
        *map(device_named, entry_names("devices")),
        *map(find_cluster, entry_names("clusters")),
        *map(find_model, entry_names("models")),
        *map(stack_named, entry_names("stacks")),
    ]
    assert len(entries) > 60
    for entry in entries:
        assert type(entry).model_validate(entry.model_dump(mode="json")) == entry
