"""Peak memory of the worst rank: which parts there are, and which stage holds the most."""

from collections.abc import Callable

import numpy as np
import pytest

from meshwright.catalog.schedule import Schedule
from meshwright.costmodels.activations import layer_activations
from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import Layout, LayoutTable, Recompute
from meshwright.costmodels.parameters import total_parameters
from meshwright.costmodels.predict import predict_memory

GIB = 2**30


def parts(job: Job, layout: Layout) -> dict[str, float]:
    predicted = predict_memory(job, LayoutTable.of([layout]))
    return {name: float(bytes_[0]) for name, bytes_ in predicted.breakdown.items()}


def kept_bytes(job: Job, layout: Layout) -> float:
    return float(layer_activations(job, job.model.layers[0], LayoutTable.of([layout])).kept[0])


def test_one_device_holds_the_model_and_one_micro_batch(round_job: Callable[..., Job]) -> None:
    # 18 bytes a parameter: 2, 4 for fp32 gradients, 12; eight layers of activations, and the embedding's output.
    job = round_job()
    found = parts(job, Layout())
    count = total_parameters(job.model)
    assert (found["parameters"], found["gradients"], found["optimizer"]) == (2 * count, 4 * count, 12 * count)
    state_bytes = 2 * 1000 * 1024
    assert found["activations"] == pytest.approx(8 * kept_bytes(job, Layout()), abs=2 * state_bytes)
    assert found["working_set"] >= 0
    assert found["gathered_parameters"] == 0


def test_kinds_of_memory_lie_over_each_other(round_job: Callable[..., Job]) -> None:
    # Allocated; half more reserved, as the round stack's allocator does; a context of 1 GiB beside that.
    predicted = predict_memory(round_job(), LayoutTable.of([Layout()]))
    allocated = float(predicted.allocated_bytes[0])
    assert allocated == pytest.approx(sum(parts(round_job(), Layout()).values()))
    assert float(predicted.reserved_bytes[0]) == pytest.approx(1.5 * allocated)
    assert float(predicted.nvidia_smi_bytes[0]) == pytest.approx(1.5 * allocated + GIB)


def test_activations_are_held_once_a_micro_batch_in_flight(round_job: Callable[..., Job]) -> None:
    # 4 stages of 2 layers, 16 micro-batches: 1F1B's first stage holds 4, GPipe's all 16.
    job = round_job(model={"vocab": 128})
    plain = parts(job, Layout(pipeline_parallel=4))["activations"]
    gpipe = parts(job, Layout(pipeline_parallel=4, schedule=Schedule.GPIPE))["activations"]
    assert gpipe / plain == pytest.approx(4.0)
    assert plain == pytest.approx(4 * 2 * kept_bytes(job, Layout()), rel=0.2)


def test_few_micro_batches_are_all_that_is_held(round_job: Callable[..., Job]) -> None:
    deep = Layout(pipeline_parallel=4)
    small = {"vocab": 128}
    two, four, eight = (parts(round_job(model=small, global_batch=batch), deep)["activations"] for batch in (2, 4, 8))
    assert (four, eight) == pytest.approx((2 * two, 2 * two))


def test_full_recomputation_keeps_inputs_and_works_on_one_layer(round_job: Callable[..., Job]) -> None:
    job = round_job(model={"vocab": 128})
    full = Layout(recompute=Recompute.FULL)
    found = parts(job, full)
    state_bytes = 2 * 1000 * 1024
    assert found["activations"] == pytest.approx(8 * state_bytes, abs=2 * state_bytes)
    whole = float(layer_activations(job, job.model.layers[0], LayoutTable.of([full])).whole[0])
    assert found["activations"] + found["working_set"] >= whole
    assert found["working_set"] < 1.5 * whole


def test_the_first_stage_is_the_worst_of_a_plain_pipeline(round_job: Callable[..., Job]) -> None:
    # A small vocabulary leaves the first stage with the most activations in flight and no logits.
    job = round_job(model={"vocab": 128})
    assert parts(job, Layout(pipeline_parallel=4))["logits"] == 0
    assert parts(job, Layout())["logits"] > 0


def test_a_large_vocabulary_makes_the_last_stage_the_worst(round_job: Callable[..., Job]) -> None:
    job = round_job(model={"vocab": 1_024_000}, global_batch=1)
    found = parts(job, Layout(pipeline_parallel=4))
    assert found["logits"] >= 4 * 1000 * 1_024_000
    assert found["logits"] == pytest.approx(8 * parts(job, Layout(pipeline_parallel=4, tensor_parallel=8))["logits"])


def test_zero_3_gathers_layers(round_job: Callable[..., Job]) -> None:
    # Two layers' 16-bit parameters and one layer's 32-bit gradients, of an eighth of the model each.
    job = round_job()
    found = parts(job, Layout(data_parallel=8, zero_stage=3, zero_shard=8))["gathered_parameters"]
    assert found == pytest.approx((2 * 2 + 4) * total_parameters(job.model) / 8)


def test_zero_2_holds_a_layer_of_gradients_until_they_are_reduced(round_job: Callable[..., Job]) -> None:
    job = round_job()
    found = parts(job, Layout(data_parallel=8, zero_stage=2, zero_shard=8))["gathered_parameters"]
    assert found == pytest.approx(4 * total_parameters(job.model) / 8)
    assert parts(job, Layout(data_parallel=8, zero_stage=1, zero_shard=8))["gathered_parameters"] == 0.0


def test_zero_3_may_hold_a_stage_whole(round_job: Callable[..., Job]) -> None:
    # All of a stage's parameters and gradients: of two layers and the word table on the first of 4 stages, beside
    # shards of the fp32 parameters.
    stack = {"reshard_in_pipeline": False, "master_weights": False}
    job = round_job(model={"tied_embeddings": True, "vocab": 51200}, stack=stack)
    found = parts(job, Layout(data_parallel=4, pipeline_parallel=4, zero_stage=3, zero_shard=4))
    stage = 2 * (12 * 1024**2 + 2 * 1024) + 51200 * 1024
    assert found["gathered_parameters"] == 0.0
    assert found["parameters"] == pytest.approx((2 + 4 / 4) * stage, rel=1e-4)
    assert found["gradients"] == pytest.approx(4 * stage, rel=1e-4)


def test_separate_accumulation_holds_a_weight_gradient(round_job: Callable[..., Job]) -> None:
    # The larger of the MLP's matrices, 4 h^2, in 2 bytes as it is computed and in 4 to be added.
    fused, separate = (
        parts(round_job(model={"vocab": 128}, stack={"fused_accumulation": flag}), Layout())["working_set"]
        for flag in (True, False)
    )
    assert separate - fused == pytest.approx(6 * 4 * 1024**2)


def test_the_loss_and_a_layer_s_backward_pass_are_not_at_the_same_time(round_job: Callable[..., Job]) -> None:
    # The logits of a large vocabulary are gone when the first layer is computed again; a small one's matter less.
    full = Layout(recompute=Recompute.FULL)
    large, small = (parts(round_job(model={"vocab": vocab}), full) for vocab in (51200, 128))
    assert large["working_set"] == 0 < large["logits"]
    assert small["logits"] == 0 < small["working_set"]


def test_the_worst_rank_is_that_of_the_whole_pipeline(round_job: Callable[..., Job]) -> None:
    # Each stage's memory is at most that of the worst, so the mean of states is below what is reported.
    job = round_job()
    layouts = LayoutTable.of([Layout(pipeline_parallel=size) for size in (1, 2, 4, 8)])
    states = sum(predict_memory(job, layouts).breakdown[name] for name in ("parameters", "gradients", "optimizer"))
    assert np.all(states >= 18 * total_parameters(job.model) / np.array([1, 2, 4, 8]) * (1 - 1e-12))


def test_tables_narrower_than_others_are_not_padded_into_the_answer(round_job: Callable[..., Job]) -> None:
    layouts = [Layout(pipeline_parallel=8), Layout(), Layout(pipeline_parallel=2, virtual_pipeline=2)]
    together = predict_memory(round_job(), LayoutTable.of(layouts)).allocated_bytes
    alone = [float(predict_memory(round_job(), LayoutTable.of([one])).allocated_bytes[0]) for one in layouts]
    assert together == pytest.approx(alone, rel=1e-12)
