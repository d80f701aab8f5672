"""Peak memory of the worst rank: which parts there are, and which stage holds the most."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from worked_examples import job as shipped_job

from meshwright.catalog.context_method import ContextMethod
from meshwright.catalog.precision import Precision
from meshwright.catalog.schedule import Schedule
from meshwright.costmodels.activations import layer_activations
from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import Layout, LayoutTable, Recompute
from meshwright.costmodels.parameters import total_parameters
from meshwright.costmodels.predict import predict_memory
from meshwright.costmodels.prediction import Reading

GIB = 2**30
STATES = ("parameters", "gradients", "master_weights", "moments")


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
    states = [found[name] / count for name in ("parameters", "gradients", "master_weights", "moments")]
    assert states == [2, 4, 4, 8]
    state_bytes = 2 * 1000 * 1024
    assert found["activations"] == pytest.approx(8 * kept_bytes(job, Layout()), abs=2 * state_bytes)
    assert found["working_set"] >= 0
    assert found["gathered_parameters"] == 0


def test_kinds_of_memory_lie_over_each_other(round_job: Callable[..., Job]) -> None:
    # Allocated; half more reserved, as the round stack's allocator does; a context of 1 GiB and kernels of half a GiB
    # beside that.
    predicted = predict_memory(round_job(), LayoutTable.of([Layout()]))
    allocated = float(predicted.allocated_bytes[0])
    assert allocated == pytest.approx(sum(parts(round_job(), Layout()).values()))
    assert float(predicted.reserved_bytes[0]) == pytest.approx(1.5 * allocated)
    assert float(predicted.nvidia_smi_bytes[0]) == pytest.approx(1.5 * allocated + 1.5 * GIB)


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
    stack = {"reshard_in_pipeline": False, "master_bytes": 0}
    job = round_job(model={"tied_embeddings": True, "vocab": 51200}, stack=stack)
    found = parts(job, Layout(data_parallel=4, pipeline_parallel=4, zero_stage=3, zero_shard=4))
    stage = 2 * (12 * 1024**2 + 2 * 1024) + 51200 * 1024
    assert found["gathered_parameters"] == 0.0
    assert found["parameters"] == pytest.approx((2 + 4 / 4) * stage, rel=1e-4)
    assert found["gradients"] == pytest.approx(4 * stage, rel=1e-4)


def test_zero_3_may_gather_matrices(round_job: Callable[..., Job]) -> None:
    # In several messages a layer: two of the MLP's matrices, 4 h^2 each, and one's gradients.
    layout = Layout(data_parallel=8, zero_stage=3, zero_shard=8)
    found = parts(round_job(stack={"gathers_per_layer": 6}), layout)["gathered_parameters"]
    assert found == pytest.approx((2 * 2 + 4) * 4 * 1024**2)


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
    states = sum(predict_memory(job, layouts).breakdown[name] for name in STATES)
    assert np.all(states >= 18 * total_parameters(job.model) / np.array([1, 2, 4, 8]) * (1 - 1e-12))


def test_tables_narrower_than_others_are_not_padded_into_the_answer(round_job: Callable[..., Job]) -> None:
    layouts = [Layout(pipeline_parallel=8), Layout(), Layout(pipeline_parallel=2, virtual_pipeline=2)]
    together = predict_memory(round_job(), LayoutTable.of(layouts)).allocated_bytes
    alone = [float(predict_memory(round_job(), LayoutTable.of([one])).allocated_bytes[0]) for one in layouts]
    assert together == pytest.approx(alone, rel=1e-12)


def test_a_separate_head_gradient_lies_beside_the_logits(round_job: Callable[..., Job]) -> None:
    # 2 bytes of each of the head's h V weights.
    fused, separate = (
        parts(round_job(stack={"fused_accumulation": flag}), Layout())["logits"] for flag in (True, False)
    )
    assert separate - fused == pytest.approx(2 * 1024 * 51200)
    handed = parts(round_job(stack={"fused_accumulation": True, "dummy_gradients": True}), Layout())["logits"]
    assert handed == separate


def test_gradients_of_experts_are_made_at_once_and_added_one_by_one(round_job: Callable[..., Job]) -> None:
    # Eight experts' first matrices, h x 2048, in 2 bytes, and one of them in 4.
    model = {"vocab": 128, "experts": {"experts": 8, "top_k": 2, "ffn_hidden": 2048}}
    fused, separate = (
        parts(round_job(model=model, stack={"fused_accumulation": flag}), Layout())["working_set"]
        for flag in (True, False)
    )
    assert separate - fused == pytest.approx((8 * 2 + 4) * 2048 * 1024)


def test_the_first_step_has_no_moments_in_its_backward_pass(round_job: Callable[..., Job]) -> None:
    job, table = round_job(global_batch=64), LayoutTable.of([Layout(micro_batch=32), Layout()])
    steady = predict_memory(job, table)
    first = predict_memory(job, table, reading=Reading(first_step=True))
    moments = 8 * total_parameters(job.model)
    # Many activations: the backward pass is the peak, without the moments. Few: the step is, with them.
    assert float(steady.allocated_bytes[0] - first.allocated_bytes[0]) == pytest.approx(moments)
    assert float(first.allocated_bytes[1]) == pytest.approx(18 * total_parameters(job.model))
    assert float(steady.allocated_bytes[1]) > float(first.allocated_bytes[1])


def test_another_stage_may_be_asked_for(round_job: Callable[..., Job]) -> None:
    # The first of 4 stages holds 4 micro-batches, the last 1 and a head of two columns fewer.
    job, table = round_job(model={"vocab": 128}), LayoutTable.of([Layout(pipeline_parallel=4)])
    worst, last = (predict_memory(job, table, reading=Reading(last_stage=flag)) for flag in (False, True))
    assert float(worst.breakdown["activations"][0]) == pytest.approx(
        4 * float(last.breakdown["activations"][0]) + 4 * 2 * 1000 * 1024
    )


def test_fp32_copies_of_gradients_are_there_at_the_step(round_job: Callable[..., Job]) -> None:
    # With next to no activations the step is the peak: 2 + 2 + 4 + 8, and 4 to step with.
    job = round_job(model={"vocab": 128}, precision=Precision.FP16, sequence_length=8)
    found = predict_memory(job, LayoutTable.of([Layout()]))
    assert float(found.allocated_bytes[0]) == pytest.approx(20 * total_parameters(job.model))
    assert float(found.breakdown["activations"][0]) == 0


def test_flat_copies_are_reserved_beside_activations(round_job: Callable[..., Job]) -> None:
    def reserved(layout: Layout, *, flat: bool) -> float:
        job = round_job(stack={"flat_optimizer": flat, "gradient_bytes": 2})
        return float(predict_memory(job, LayoutTable.of([layout])).reserved_bytes[0])

    count = total_parameters(round_job().model)
    sharded, whole = Layout(data_parallel=4, zero_stage=1, zero_shard=4), Layout(data_parallel=4, zero_shard=4)
    assert reserved(sharded, flat=True) - reserved(sharded, flat=False) == pytest.approx(1.5 * 4 * count / 4)
    assert reserved(whole, flat=True) == reserved(whole, flat=False)


def test_the_rank_that_reserves_most_need_not_allocate_most() -> None:
    # Larger micro-batches make the stage of the head allocate the most, but the first one's flat copies are larger.
    task = shipped_job("mpt-7b", "selene:512", batch=64, length=1024, stack="deepspeed-zeropp")
    layout = Layout(
        tensor_parallel=8,
        sequence_parallel=True,
        context_parallel=4,
        pipeline_parallel=8,
        data_parallel=4,
        zero_stage=1,
        zero_shard=4,
        schedule=Schedule.GPIPE,
        micro_batch=2,
    )
    table = LayoutTable.of([layout, replace(layout, micro_batch=4)])
    found, last = (predict_memory(task, table, reading=Reading(last_stage=flag)) for flag in (False, True))
    assert np.all(found.reserved_bytes >= last.reserved_bytes)
    for small, large in (found.allocated_bytes, found.reserved_bytes, found.nvidia_smi_bytes):
        assert large >= small


@pytest.mark.parametrize(
    ("layout", "groups"),
    [
        (Layout(), 0),
        (Layout(data_parallel=8, zero_shard=8), 1),
        (Layout(data_parallel=4, tensor_parallel=2), 3),
        (Layout(data_parallel=4, tensor_parallel=2, pipeline_parallel=2), 4),
        (Layout(data_parallel=4, expert_parallel=2, pipeline_parallel=2, context_parallel=2), 6),
        (Layout(context_parallel=8, context_method=ContextMethod.HYBRID, ulysses_parallel=4, pipeline_parallel=2), 5),
    ],
)
def test_each_group_of_ranks_has_buffers(round_job: Callable[..., Job], layout: Layout, groups: int) -> None:
    # A quarter of a GiB each: all ranks, and each axis that is smaller; experts' copies are an axis of their own.
    job = round_job(model={"experts": {"experts": 8, "top_k": 2, "ffn_hidden": 512}})
    found = predict_memory(job, LayoutTable.of([layout]))
    outside = float(found.nvidia_smi_bytes[0] - found.reserved_bytes[0])
    assert outside == pytest.approx((1.5 + 0.25 * groups) * GIB)


def test_libraries_have_a_workspace(round_job: Callable[..., Job]) -> None:
    job = round_job(cluster={"calibration": {"workspace": 96 * 2**20}})
    assert parts(job, Layout())["workspace"] == 96 * 2**20


def test_stages_may_keep_what_they_sent_on(round_job: Callable[..., Job]) -> None:
    # A hidden state for each of the 4 micro-batches that the first stage holds.
    layout = Layout(pipeline_parallel=4)
    freed, held = (
        parts(round_job(model={"vocab": 128}, stack={"keeps_stage_outputs": flag}), layout)["activations"]
        for flag in (False, True)
    )
    assert held - freed == pytest.approx(4 * 2 * 1000 * 1024)


def test_full_recomputation_may_be_of_some_layers(round_job: Callable[..., Job]) -> None:
    # 8 layers in chunks of 2: one of each is recomputed, the other keeps everything.
    job = round_job(model={"vocab": 128})
    layout = Layout(pipeline_parallel=2, virtual_pipeline=2, recompute=Recompute.FULL)
    whole = kept_bytes(job, replace(layout, recompute=Recompute.NONE))
    none, half, every = (
        parts(job, each)["activations"]
        for each in (
            replace(layout, recompute=Recompute.NONE),
            replace(layout, recompute_layers=1),
            replace(layout, recompute_layers=2),
        )
    )
    assert half == pytest.approx((none + every) / 2)
    assert every == parts(job, layout)["activations"]
    # Four layers of 2.5 micro-batches: 2 (2 - 1) + (2 - 1) 2 + 1 chunks of half a stage.
    assert none - every == pytest.approx(2.5 * 4 * (whole - kept_bytes(job, layout)))


@pytest.mark.parametrize("kind", [Recompute.SELECTIVE, Recompute.FULL])
def test_recomputation_may_be_of_some_layers_of_each_stage(round_job: Callable[..., Job], kind: Recompute) -> None:
    # Two stages of 4 layers, of which the first holds 2 micro-batches and the embedding's output.
    job = round_job(model={"vocab": 128}, stack={"fused_attention": False})
    layout = Layout(pipeline_parallel=2, recompute=kind)
    whole, kept = (kept_bytes(job, replace(layout, recompute=each)) for each in (Recompute.NONE, kind))
    state_bytes = 2 * 1000 * 1024
    for counts, left in (((3, 2), 3 * kept + whole), ((0, 4), 4 * whole), ((4, 0), 4 * kept)):
        found = parts(job, replace(layout, recompute_split=counts))
        if counts == (4, 0) and kind is Recompute.FULL:
            assert found["activations"] == pytest.approx(4 * whole)  # the second stage is the worst now
            assert found["working_set"] == 0.0
        else:
            assert found["activations"] == pytest.approx(2 * (left + state_bytes))
            # Where nothing of a stage is recomputed nothing is made again.
            assert found["working_set"] == (pytest.approx(whole - kept) if counts[0] else 0.0)


def test_narrow_copies_of_weights_last_a_step(round_job: Callable[..., Job]) -> None:
    # fp8 twice, as it is and transposed, of the layers' 12 h^2, not of the word tables.
    def copies(**stack: bool) -> float:
        job = round_job(stack={"narrow_inputs": True} | stack, precision=Precision.FP8)
        return parts(job, Layout())["quantised_parameters"]

    assert copies() == pytest.approx(2 * 8 * 12 * 1024**2, rel=1e-2)
    assert copies(narrow_parameters=True) == copies(narrow_inputs=False) == 0
