"""The step put together: model operations against the field's formulas, and times from their parts."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from meshwright.catalog.errors import MissingData
from meshwright.catalog.lookup import find_model
from meshwright.catalog.precision import Precision
from meshwright.catalog.schedule import Schedule
from meshwright.costmodels.collectives import Group, all_gather_s, reduce_scatter_s
from meshwright.costmodels.job import Job
from meshwright.costmodels.layer_time import LayerTime, Pass, layer_time, products_time_s, weight_gradients_s
from meshwright.costmodels.layer_work import attention_products, mlp_products
from meshwright.costmodels.layout import Layout, LayoutTable, Recompute
from meshwright.costmodels.matmul import Matmul
from meshwright.costmodels.model_flop import model_flop
from meshwright.costmodels.parameters import active_parameters
from meshwright.costmodels.predict import predict_memory, predict_time
from meshwright.costmodels.transformer import transformer_of
from meshwright.costmodels.vocabulary import embedding_s, head_s
from meshwright.planner.job_inputs import inputs_of, job_of

LENGTH, HIDDEN = 1000, 1024


def breakdown(job: Job, layout: Layout) -> dict[str, float]:
    predicted = predict_time(job, LayoutTable.of([layout]))
    return {cause: float(seconds[0]) for cause, seconds in predicted.breakdown.items()}


def step_s(job: Job, layout: Layout) -> float:
    return float(predict_time(job, LayoutTable.of([layout])).step_time_s[0])


def layer_of(job: Job, layout: Layout) -> LayerTime:
    return layer_time(job, job.model.layers[0], LayoutTable.of([layout]))


def total(parts: Pass) -> float:
    return float(sum(float(np.broadcast_to(seconds, 1)[0]) for seconds in parts.values()))


def ends_s(job: Job, layout: Layout) -> tuple[float, float]:
    """Give the seconds of the embedding and of the head, both ways."""
    layouts = LayoutTable.of([layout])
    embedding, head = embedding_s(job, layouts), head_s(job, layouts)
    return float((embedding[0] + embedding[1])[0]), float((head[0] + head[1])[0])


def test_operations_of_gpt_3(round_job: Callable[..., Job]) -> None:
    # Narayanan et al. 2021 (arXiv 2104.04473), section 5.1 counts, recomputation and the full square of attention
    # included, 96 B s l h^2 (1 + s / (6 h) + V / (16 l h)). Of that: 24 B s l h^2 forward, twice backward, once more;
    # 4 B s^2 l h for attention the same four times; 6 B s h V for the head. Ours leaves out the second forward pass,
    # and half of attention, which causality masks.
    batch, s, layers, h, vocab = 16, 2048, 96, 12288, 51200
    job = round_job(global_batch=batch, sequence_length=s)
    gpt = transformer_of(
        find_model("gpt3-175b").model_copy(
            update={"vocab": vocab, "qkv_bias": False, "output_bias": False, "mlp_bias": False}
        )
    )
    job = Job(
        model=gpt,
        cluster=job.cluster,
        stack=job.stack,
        precision=job.precision,
        global_batch=batch,
        sequence_length=s,
    )
    published = 96 * batch * s * layers * h**2 * (1 + s / (6 * h) + vocab / (16 * layers * h))
    again = 24 * batch * s * layers * h**2
    square = 4 * batch * s**2 * layers * h
    assert model_flop(job) == pytest.approx(published - again - square - 3 * square / 2, rel=1e-12)
    assert model_flop(job) == pytest.approx(
        72 * batch * s * layers * h**2 * (1 + s / (12 * h) + vocab / (12 * layers * h)), rel=1e-12
    )


def test_operations_of_a_mixture_are_six_a_matrix_parameter_that_a_token_meets(round_job: Callable[..., Job]) -> None:
    experts = {"experts": 8, "top_k": 2, "ffn_hidden": 512, "shared_ffn_hidden": 256}
    job = round_job(model={"experts": experts})
    norms = (2 * 8 + 1) * HIDDEN
    embedding = 51200 * HIDDEN
    attention = 3 * 2 * 5e5 * 8 * 256 * 8 * 16
    matrices = active_parameters(job.model) - norms - embedding
    assert model_flop(job) == pytest.approx(6 * matrices * 16 * LENGTH + attention, rel=1e-12)


def test_a_tied_head_is_still_a_product(round_job: Callable[..., Job]) -> None:
    tied, own = (round_job(model={"tied_embeddings": flag}) for flag in (True, False))
    assert model_flop(tied) == model_flop(own)


def test_multi_token_prediction_runs_a_layer_and_the_head_once_more(round_job: Callable[..., Job]) -> None:
    # One more layer in nine, one more head; its own 2 h x h projection may be counted too.
    plain, one_more, with_mtp = (
        round_job(model=changes) for changes in ({}, {"layers": 9}, {"layers": 8, "mtp_layers": 1})
    )
    layer = model_flop(one_more) - model_flop(plain)
    head, projection = (6 * 16 * LENGTH * size for size in (HIDDEN * 51200, 2 * HIDDEN**2))
    extra = model_flop(with_mtp) - model_flop(plain) - layer - head
    assert -1e-6 * head <= extra <= projection * (1 + 1e-6)


def test_recomputation_is_work_but_not_the_model_s(round_job: Callable[..., Job]) -> None:
    job = round_job()
    none, full = (
        predict_time(job, LayoutTable.of([Layout(recompute=kind)])) for kind in (Recompute.NONE, Recompute.FULL)
    )
    assert none.model_flop == full.model_flop
    forward_s = 16 * 8 * total(layer_of(job, Layout()).forward)
    assert full.step_time_s - none.step_time_s == pytest.approx(forward_s)


def test_a_step_on_one_device(round_job: Callable[..., Job]) -> None:
    # 16 micro-batches of 8 layers, forward and backward, of the embedding and of the head, whose products add up
    # gradients; the optimizer's 42 bytes a parameter at 500 GB/s; 1 ms of the step's own.
    job = round_job()
    found = breakdown(job, Layout())
    layer = layer_of(job, Layout())
    parameters = 8 * (12 * HIDDEN**2 + 2 * HIDDEN) + 2 * 51200 * HIDDEN + HIDDEN
    expected = (
        16 * (8 * (total(layer.forward) + total(layer.backward)) + sum(ends_s(job, Layout())))
        + parameters * 42 / 500e9
        + 1e-3
    )
    assert sum(found.values()) == pytest.approx(expected)
    assert found["gradient_accumulation"] == 0.0
    assert found["bubble"] == found["pipeline_communication"] == found["gradient_communication"] == 0.0


def test_products_add_weight_gradients_to_their_sum(round_job: Callable[..., Job]) -> None:
    # 100 x 500 by 500 x 3000, with depths of 600 and 1 + 50 x 100^2 / 300,000 waves at 50 TFLOP/s: 19.2 us. Beside
    # that 2 x 500 x 3100 bytes of operands, and 2 bytes of each result or, where those are read and written in fp32, 8:
    # 7.4 and 11 us at 500 GB/s. A launch takes 10 us.
    sizes = {name: np.array([size]) for name, size in (("rows", 500.0), ("columns", 3000.0), ("inner", 100.0))}
    for fused, moved_s in ((False, 7.4e-6), (True, 11e-6)):
        job = round_job(stack={"fused_accumulation": fused})
        found = weight_gradients_s(job, (Matmul(**sizes, count=np.ones(1)),))
        assert found == pytest.approx(np.hypot(19.2e-6, moved_s) + 10e-6)


def test_a_pass_of_its_own_adds_up_gradients(round_job: Callable[..., Job]) -> None:
    # It reads 2 bytes a parameter, and reads and writes the sum: 2 bytes each of fp16 under the round stack, else 4.
    # The first of 16 micro-batches has nothing to add to; 8 replicas that shard gradients each add a shard.
    parameters = 8 * (12 * HIDDEN**2 + 2 * HIDDEN) + 2 * 51200 * HIDDEN + HIDDEN
    stack = {"fused_accumulation": False}
    for precision, moved_bytes in ((Precision.FP16, 6), (Precision.BF16, 10)):
        found = breakdown(round_job(precision=precision, stack=stack), Layout())["gradient_accumulation"]
        assert found == pytest.approx(parameters * 15 * moved_bytes / 500e9)
    sharded = Layout(data_parallel=8, zero_stage=2, zero_shard=8)
    for fused in (True, False):
        job = round_job(global_batch=128, stack={"fused_accumulation": fused})
        assert breakdown(job, sharded)["gradient_accumulation"] == pytest.approx(parameters / 8 * 15 * 10 / 500e9)


def test_embedding_gathers_rows(round_job: Callable[..., Job]) -> None:
    # 3 passes over 2 s h bytes forward, 4 backward, at 500 GB/s; tensor ranks add up their parts of the vocabulary,
    # and copy the own quarter at 0.4 of its time on the link. The gradient is a table of 2 bytes of zeros, which no
    # product adds to fp32 sums: 2 + 2 x 4 bytes more, of a rank's quarter of 51,200 words.
    state, table = 2 * LENGTH * HIDDEN, (2 + 2 + 8) * 51200 * HIDDEN
    forward_s, backward_s = embedding_s(round_job(), LayoutTable.of([Layout(), Layout(tensor_parallel=4)]))
    assert forward_s == pytest.approx([3 * state / 500e9, 3 * state / 500e9 + (2 * 0.75 + 0.1) * state / 50e9 + 6e-6])
    assert backward_s == pytest.approx([(4 * state + table) / 500e9, (4 * state + table / 4) / 500e9])
    alone_s = embedding_s(round_job(stack={"fused_accumulation": False}), LayoutTable.of([Layout()]))[1]
    assert alone_s == pytest.approx((4 * state + 2 * 51200 * HIDDEN) / 500e9)


def test_head_is_a_product_over_the_padded_vocabulary_and_a_loss(round_job: Callable[..., Job]) -> None:
    # 50257 pads to 50304. Beside the product, passes over the logits: between one and twenty bytes each at 500 GB/s.
    layouts = LayoutTable.of([Layout()])
    fused, unfused = (round_job(model={"vocab": 50257}, stack={"loss": kernels}) for kernels in ("fused", "softmax"))
    sizes = {name: np.array([size]) for name, size in (("rows", 1e3), ("columns", 50304.0), ("inner", 1024.0))}
    product_s, _ = products_time_s(fused, (Matmul(**sizes, count=np.ones(1)),))
    byte_s = 1e3 * 50304 / 500e9
    fused_loss_s, unfused_loss_s = (float((head_s(job, layouts)[0] - product_s)[0]) for job in (fused, unfused))
    assert byte_s < fused_loss_s < unfused_loss_s < 20 * byte_s
    eager = round_job(model={"vocab": 50257}, stack={"loss": "operators"})
    # Megatron's moves 38 bytes a logit where PyTorch's moves 18.
    assert float((head_s(eager, layouts)[0] - product_s)[0]) == pytest.approx(unfused_loss_s * 38 / 18)


def test_the_optimizer_waits_for_the_stage_with_the_most_parameters(round_job: Callable[..., Job]) -> None:
    # 9 layers on 2 stages, 5 and 4: the head makes the second the slowest, the fifth layer the first the fullest.
    found = breakdown(round_job(model={"layers": 9}), Layout(pipeline_parallel=2))
    first = 5 * (12 * HIDDEN**2 + 2 * HIDDEN) + 51200 * HIDDEN
    assert found["optimizer"] == pytest.approx(first * 42 / 500e9)


def pipeline_parts(job: Job, layout: Layout) -> tuple[float, float, float]:
    """Give one micro-batch's seconds of two layers, of the embedding and of the head."""
    layer = layer_of(job, layout)
    return 2 * (total(layer.forward) + total(layer.backward)), *ends_s(job, layout)


def test_a_pipeline_waits_for_its_other_stages(round_job: Callable[..., Job]) -> None:
    # 4 stages of 2 layers; the last, with the head, is the slowest: it works 16 times, and waits for the other three.
    # Each adds 10 bytes a parameter 15 times of 16.
    job, layout = round_job(stack={"fused_accumulation": False}), Layout(pipeline_parallel=4)
    middle, embedding, head = pipeline_parts(job, layout)
    layers, table = 2 * (12 * HIDDEN**2 + 2 * HIDDEN), 51200 * HIDDEN
    each_s = 10 * 15 / 16 / 500e9
    middle, embedding, head = (
        middle + layers * each_s,
        embedding + table * each_s,
        head + (table + HIDDEN) * each_s,
    )
    found = breakdown(job, layout)
    assert head > embedding
    assert found["bubble"] == pytest.approx(3 * middle + embedding)
    work = sum(seconds for cause, seconds in found.items() if cause not in NOT_WORK)
    assert work == pytest.approx(16 * (middle + head))


NOT_WORK = {
    "bubble",
    "pipeline_communication",
    "gradient_communication",
    "parameter_communication",
    "optimizer",
    "step_overhead",
}


def test_interleaving_divides_the_bubble(round_job: Callable[..., Job]) -> None:
    # The last stage, which has the head, waits for one chunk of each other one: half of its layers. Four micro-batches
    # are embedded, all on the first stage, before one comes round to its second chunk.
    job = round_job()
    plain = breakdown(job, Layout(pipeline_parallel=4))["bubble"]
    looked_up_s = sum(float(seconds[0]) for seconds in embedding_s(job, LayoutTable.of([Layout()])))
    interleaved = Layout(pipeline_parallel=4, virtual_pipeline=2, schedule=Schedule.INTERLEAVED)
    expected = (plain - looked_up_s) / 2 + 4 * looked_up_s
    assert breakdown(job, interleaved)["bubble"] == pytest.approx(expected, rel=1e-5)


def test_zero_bubble_fills_with_weight_gradients(round_job: Callable[..., Job]) -> None:
    plain, filled = (
        breakdown(round_job(), Layout(pipeline_parallel=4, schedule=schedule))["bubble"]
        for schedule in (Schedule.ONE_F_ONE_B, Schedule.ZERO_BUBBLE_H1)
    )
    # The last stage is the busiest: it waits for the others' forward passes and drains behind their weight gradients,
    # instead of for forward and backward passes.
    assert 0.2 < filled / plain < 0.7


def test_weight_gradients_are_the_products_that_make_them(round_job: Callable[..., Job]) -> None:
    # As many operations as for the data gradients, and the time of the products that turn rows into depth.
    job, layouts = round_job(stack={"fused_accumulation": False}), LayoutTable.of([Layout()])
    layer = job.model.layer_kinds[0]
    products = attention_products(job, layer.attention, layouts) + mlp_products(job, layer.mlp, layouts)
    weights_s = weight_gradients_s(job, products)
    data_s = products_time_s(job, products)[1] - weights_s
    assert weights_s == pytest.approx(data_s, rel=0.2)
    transposed = tuple(replace(product, rows=product.inner, inner=product.rows) for product in products)
    assert weights_s == pytest.approx(products_time_s(job, transposed)[0])


def test_dualpipe_hides_all_to_alls_and_doubles_the_parameters(round_job: Callable[..., Job]) -> None:
    experts = {"experts": 8, "top_k": 2, "ffn_hidden": 512}
    job = round_job(model={"experts": experts}, global_batch=64)
    shape = {"pipeline_parallel": 4, "data_parallel": 2, "expert_parallel": 2}
    plain, dual = (Layout(**shape, schedule=schedule) for schedule in (Schedule.ONE_F_ONE_B, Schedule.DUAL_PIPE))
    sent_s = breakdown(job, plain)["expert_communication"]
    # 32 micro-batches are 32 pairs of a stage's two chunks, of which all but 4 / 2 + 2 hide.
    assert breakdown(job, dual)["expert_communication"] == pytest.approx(sent_s * 4 / 32, rel=1e-3)
    parameters = [predict_memory(job, LayoutTable.of([layout])).breakdown["parameters"][0] for layout in (plain, dual)]
    assert 1.6 < parameters[1] / parameters[0] <= 2.0


def test_dualpipe_launches_a_pair_at_once(round_job: Callable[..., Job]) -> None:
    # The host sets the pace of both: two launches of 10 ms for each of 4 layers of a stage, where all-to-alls show only
    # in the other passes of fill and drain. Of a device that takes 15 ms for one pass the pair waits 5 ms less.
    experts = {"experts": 8, "top_k": 2, "ffn_hidden": 512}
    job = round_job(model={"experts": experts}, stack={"layer_launch": 0.01}, global_batch=64)
    layout = Layout(pipeline_parallel=4, data_parallel=2, expert_parallel=2, schedule=Schedule.DUAL_PIPE)
    found, layers = breakdown(job, layout), 8 / 2
    work = sum(seconds for cause, seconds in found.items() if cause in ("matmul", "attention", "elementwise", "host"))
    assert work + found["expert_communication"] == pytest.approx(16 * layers * 0.02, rel=1e-6)


def test_dualpipe_hides_all_to_alls_only_where_no_ring_runs(round_job: Callable[..., Job]) -> None:
    # A ring and all-to-alls that both outlast the compute: slower attention hides more of the ring, in seconds that
    # hide no all-to-all as well.
    experts = {"experts": 32, "top_k": 32, "ffn_hidden": 64}
    layout = Layout(pipeline_parallel=2, context_parallel=8, expert_parallel=8, schedule=Schedule.DUAL_PIPE)
    steps: list[float] = []
    for share in (1.0, 0.9, 0.7):
        stack = {"attention_share": share, "fused_attention": True}
        job = round_job(model={"experts": experts}, stack=stack, global_batch=64, sequence_length=8192)
        found = breakdown(job, layout)
        assert min(found["context_communication"], found["expert_communication"]) > 0.3
        steps.append(sum(found.values()))
    assert steps == sorted(steps)


def test_dualpipe_waits_for_the_stage_that_takes_longest_behind_its_pairs() -> None:
    # Pairs relieve the middle stages of their all-to-alls, so that the stage with the head takes longest; as attention
    # slows down the middle ones do without pairs, but not with them.
    job = job_of(
        inputs_of(
            "deepseek-v3",
            "dgx-a100:1024",
            stack="megatron-lm-main",
            objective="time",
            memory_headroom=0.05,
            top=0,
            precision="bf16",
            global_batch=2048,
            sequence_length=2048,
        )
    )
    layout = Layout(
        tensor_parallel=2,
        sequence_parallel=True,
        pipeline_parallel=8,
        virtual_pipeline=2,
        data_parallel=16,
        expert_parallel=32,
        zero_stage=1,
        zero_shard=16,
        schedule=Schedule.DUAL_PIPE_V,
        micro_batch=4,
    )
    device = job.cluster.device
    slowed = []
    for share in (1.0, 0.95, 0.9, 0.8, 0.7):
        figures = {"attention_backward": share * device.calibration.attention_backward}
        slower = replace(device, calibration=device.calibration.model_copy(update=figures))
        slowed.append(replace(job, cluster=replace(job.cluster, device=slower)))
    assert all(breakdown(each, layout)["embedding_and_head"] > 0 for each in slowed)
    steps_s = [step_s(each, layout) for each in slowed]
    assert steps_s == sorted(steps_s)


def test_messages_that_hide_beside_the_same_passes_share_them(round_job: Callable[..., Job]) -> None:
    # At 100 MB/s neither the pipeline's messages nor those of a shared vocabulary fit beside a micro-batch's passes,
    # which therefore hide as much of them as they and the bubble take, once.
    slow = {"node": {"bandwidth_bytes_per_s": 1e8}}
    layout = Layout(pipeline_parallel=4, virtual_pipeline=2, vocabulary_parallel=True)
    job = round_job(stack={"overlap_pipeline": True}, cluster=slow)
    found = breakdown(job, layout)
    sent_s = breakdown(round_job(cluster=slow), replace(layout, vocabulary_parallel=False))["pipeline_communication"]
    group = Group(size=np.array([4]), stride=np.array([1]))
    state_bytes = np.array([2.0 * LENGTH * HIDDEN])
    shared_s = float(
        (all_gather_s(job.cluster, group, state_bytes) + reduce_scatter_s(job.cluster, group, state_bytes))[0]
    )
    work_s = sum(seconds for cause, seconds in found.items() if cause not in NOT_WORK) + found["bubble"]
    assert found["pipeline_communication"] == pytest.approx(sent_s + 16 * 2 * shared_s - work_s)


@pytest.mark.parametrize("overlap_pipeline", [False, True])
def test_reductions_hide_beside_what_pipeline_messages_leave(
    round_job: Callable[..., Job], overlap_pipeline: bool
) -> None:
    # Where the pipeline's messages take all of a micro-batch's passes, nothing of the last one's hides reductions.
    layout = Layout(pipeline_parallel=2, virtual_pipeline=2, data_parallel=2)
    stack = {"overlap_gradients": True, "overlap_pipeline": overlap_pipeline}
    model = {"hidden": 4096, "ffn_hidden": 16384, "heads": 32, "kv_heads": 32}
    slow = {"node": {"bandwidth_bytes_per_s": 1e8}}
    beside, after = (
        breakdown(round_job(model=model, stack=one, cluster=slow), layout)["gradient_communication"]
        for one in (stack, {"overlap_gradients": False})
    )
    assert (after - beside > 0.01) == (not overlap_pipeline)


def test_a_shared_vocabulary_relieves_the_last_stage(round_job: Callable[..., Job]) -> None:
    # Every stage makes a quarter of the logits; what is sent for that is a part of the pipeline's communication.
    job = round_job(cluster={"calibration": {"contention": 1.1}})
    own, shared = (breakdown(job, Layout(pipeline_parallel=4, vocabulary_parallel=flag)) for flag in (False, True))
    assert shared["embedding_and_head"] == pytest.approx(own["embedding_and_head"] / 4, rel=0.2)
    assert shared["bubble"] < own["bubble"] * 1.5
    assert shared["pipeline_communication"] > own["pipeline_communication"]
    assert shared["matmul"] == pytest.approx(own["matmul"])


@pytest.mark.parametrize("virtual", [1, 2])
def test_messages_between_stages(round_job: Callable[..., Job], virtual: int) -> None:
    # 4 stages of one device of a node: 2 s h bytes at 50 GB/s, 1 us; in and out for each of 16 micro-batches and
    # chunks, and 3 more to fill and drain.
    layout = Layout(pipeline_parallel=4, virtual_pipeline=virtual)
    message_s = 2 * LENGTH * HIDDEN / 50e9 + 1e-6
    found = breakdown(round_job(), layout)["pipeline_communication"]
    assert found == pytest.approx(2 * message_s * (16 * virtual + 3))


def test_interleaved_messages_can_hide(round_job: Callable[..., Job]) -> None:
    # Behind chunks that take longer; those of fill and drain can't. Plain schedules have nothing to hide behind.
    job = round_job(stack={"overlap_pipeline": True})
    message_s = 2 * LENGTH * HIDDEN / 50e9 + 1e-6
    hidden, plain = (
        breakdown(job, Layout(pipeline_parallel=4, virtual_pipeline=virtual))["pipeline_communication"]
        for virtual in (2, 1)
    )
    assert hidden == pytest.approx(2 * message_s * 3)
    assert plain == pytest.approx(2 * message_s * (16 + 3))


def test_tensor_ranks_send_shares_and_gather_them(round_job: Callable[..., Job]) -> None:
    # 4 tensor ranks of a node: a quarter each over the fabric at 5 GB/s, 10 us; then 3/4 of it all in the node.
    job = round_job(stack={"split_messages": True})
    layout = Layout(tensor_parallel=4, pipeline_parallel=4)
    state = 2 * LENGTH * HIDDEN
    message_s = state / 4 / 5e9 + 10e-6 + (0.75 + 0.1) * state / 50e9 + 3e-6
    assert breakdown(job, layout)["pipeline_communication"] == pytest.approx(2 * message_s * 19)


@pytest.mark.parametrize("split", [False, True])
def test_split_sequences_are_sent_as_they_are(round_job: Callable[..., Job], split: bool) -> None:
    # Under sequence parallelism a rank holds a quarter of the tokens: that is sent, once, and gathered by nobody.
    job = round_job(stack={"split_messages": split})
    layout = Layout(tensor_parallel=4, sequence_parallel=True, pipeline_parallel=4)
    message_s = 2 * LENGTH * HIDDEN / 4 / 5e9 + 10e-6
    assert breakdown(job, layout)["pipeline_communication"] == pytest.approx(2 * message_s * 19)


def test_multi_token_prediction_works_on_the_last_stage(round_job: Callable[..., Job]) -> None:
    # One more layer and one more head there, behind a projection of 2 h to h.
    job, layout = round_job(model={"mtp_layers": 1}), Layout(pipeline_parallel=4)
    middle, _, head = pipeline_parts(job, layout)
    plain_head = pipeline_parts(round_job(), layout)[2]
    hidden, one = np.array([float(job.model.hidden)]), np.ones(1)
    projection = Matmul(rows=one * job.sequence_length, columns=hidden, inner=2 * hidden, count=one)
    assert head == pytest.approx(2 * plain_head + float(np.sum(products_time_s(job, (projection,)))))
    found = breakdown(job, layout)
    work = sum(seconds for cause, seconds in found.items() if cause not in NOT_WORK)
    assert work - found["gradient_accumulation"] == pytest.approx(16 * (1.5 * middle + head), rel=0.01)


def test_a_missing_peak_is_an_error(round_job: Callable[..., Job]) -> None:
    with pytest.raises(MissingData, match="no fp32 peak"):
        predict_time(round_job(precision=Precision.FP32), LayoutTable.of([Layout()]))


def test_recompute_has_a_line_of_its_own(round_job: Callable[..., Job]) -> None:
    job = round_job()
    selective = breakdown(job, Layout(recompute=Recompute.SELECTIVE))
    none = breakdown(job, Layout())
    assert {cause: seconds for cause, seconds in selective.items() if cause != "recompute"} == pytest.approx(
        {cause: seconds for cause, seconds in none.items() if cause != "recompute"}
    )
    assert selective["recompute"] == pytest.approx(none["attention"] / (1 + 5) * 1, rel=0.2)
    for kind in (Recompute.SELECTIVE, Recompute.FULL):
        whole = breakdown(job, Layout(recompute=kind))["recompute"]
        assert breakdown(job, Layout(recompute=kind, recompute_split=(6,)))["recompute"] == pytest.approx(whole * 6 / 8)
    assert step_s(job, Layout(recompute=Recompute.SELECTIVE)) == pytest.approx(
        step_s(job, Layout()) + selective["recompute"]
    )
