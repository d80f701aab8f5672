"""The work and the time of one layer, by hand on round machines."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from meshwright.catalog.context_method import ContextMethod
from meshwright.catalog.schedule import Schedule
from meshwright.catalog.stack_entry import RecomputedModule
from meshwright.costmodels.attention import core_time_s
from meshwright.costmodels.elementwise import (
    activation_bytes,
    elementwise_bytes,
    norm_bytes,
    query_key_value_bytes,
    residual_bytes,
)
from meshwright.costmodels.job import Job
from meshwright.costmodels.layer_time import Cause, LayerTime, layer_time, products_time_s, weight_gradients_s
from meshwright.costmodels.layer_work import (
    attention_products,
    expert_rows,
    local_kv_heads,
    mlp_products,
)
from meshwright.costmodels.layout import FloatArray, Layout, LayoutTable, Recompute
from meshwright.costmodels.matmul import Matmul, matmul_time_s
from meshwright.costmodels.parameters import layer_parameters
from meshwright.costmodels.transformer import Experts

TOKENS, HIDDEN = 1000, 1024
STATE_BYTES = 2 * TOKENS * HIDDEN
LATENT: dict[str, Any] = {
    "query_rank": 256,
    "kv_rank": 128,
    "nope_head_dim": 64,
    "rope_head_dim": 32,
    "value_head_dim": 64,
}
EXPERTS: dict[str, Any] = {"experts": 8, "top_k": 2, "ffn_hidden": 512}


SINGLE = LayoutTable.of([Layout()])
PARTS: dict[str, Callable[[Job], FloatArray]] = {
    "fused_norm": lambda job: norm_bytes(job, job.model.layers[0], SINGLE),
    "fused_rotary": lambda job: query_key_value_bytes(job, job.model.layers[0].attention, SINGLE),
    "fused_activation": lambda job: activation_bytes(job, job.model.layers[0], SINGLE),
    "fused_residual": lambda job: residual_bytes(job, SINGLE),
}


def times(job: Job, layout: Layout) -> LayerTime:
    return layer_time(job, job.model.layers[0], LayoutTable.of([layout]))


def total_s(parts: Mapping[Cause, FloatArray]) -> FloatArray:
    """Give the sum of some causes, of the shape of the layouts."""
    summed: FloatArray = np.sum(np.stack(np.broadcast_arrays(*parts.values())), axis=0)
    return summed


def forward(job: Job, layout: Layout, cause: Cause) -> float:
    return float(np.broadcast_to(times(job, layout).forward[cause], (1,))[0])


def backward(job: Job, layout: Layout, cause: Cause) -> float:
    return float(np.broadcast_to(times(job, layout).backward[cause], (1,))[0])


def products_of(job: Job, layout: Layout) -> tuple[Matmul, ...]:
    layer, layouts = job.model.layers[0], LayoutTable.of([layout])
    return attention_products(job, layer.attention, layouts) + mlp_products(job, layer.mlp, layouts)


def flop(job: Job, layout: Layout) -> float:
    return sum(float(product.flop[0]) for product in products_of(job, layout))


def shape(product: Matmul) -> tuple[float, ...]:
    return tuple(float(size[0]) for size in (product.rows, product.columns, product.inner, product.count))


@pytest.mark.parametrize(
    "model",
    [{}, {"kv_heads": 2}, {"gated_mlp": True, "ffn_hidden": 3000}, {"latent_attention": LATENT}],
    ids=["gpt", "grouped", "gated", "latent"],
)
def test_products_are_two_operations_a_matrix_parameter_and_token(
    round_job: Callable[..., Job], model: Mapping[str, Any]
) -> None:
    job = round_job(model=model)
    count = layer_parameters(job.model, job.model.layers[0])
    latent_down = HIDDEN * (256 + 128 + 32) if "latent_attention" in model else 0
    matrices = count.attention_sharded + count.mlp_sharded
    assert flop(job, Layout()) == pytest.approx(2 * TOKENS * (matrices + latent_down), rel=1e-12)
    # Tensor ranks share them, but for the matrices down to a latent, which each applies to the tokens that it holds.
    assert flop(job, Layout(tensor_parallel=2)) == pytest.approx(2 * TOKENS * (matrices / 2 + latent_down), rel=1e-12)
    together = Layout(tensor_parallel=2, sequence_parallel=True)
    assert flop(job, together) == pytest.approx(2 * TOKENS * (matrices + latent_down) / 2, rel=1e-12)


def test_shapes_of_gpt(round_job: Callable[..., Job]) -> None:
    job, layouts = round_job(), LayoutTable.of([Layout(tensor_parallel=4, micro_batch=2, context_parallel=2)])
    layer = job.model.layers[0]
    assert [shape(product) for product in attention_products(job, layer.attention, layouts)] == [
        (1000, 3 * 1024 / 4, 1024, 1),
        (1000, 1024, 1024 / 4, 1),
    ]
    assert [shape(product) for product in mlp_products(job, layer.mlp, layouts)] == [
        (1000, 4096 / 4, 1024, 1),
        (1000, 1024, 4096 / 4, 1),
    ]


def test_few_key_value_heads_are_copied(round_job: Callable[..., Job]) -> None:
    attention = round_job(model={"kv_heads": 2}).model.layers[0].attention
    layouts = LayoutTable.of([Layout(tensor_parallel=size) for size in (1, 2, 4, 8)])
    assert local_kv_heads(attention, layouts).tolist() == [2, 1, 1, 1]


@pytest.mark.parametrize(
    ("tensor", "context", "data", "expert", "expert_tensor"),
    [(1, 1, 8, 8, 1), (2, 1, 4, 4, 2), (4, 1, 2, 8, 1), (2, 2, 2, 2, 1), (1, 1, 8, 1, 1)],
)
def test_pairs_of_token_and_expert_are_all_computed_once(
    round_job: Callable[..., Job], tensor: int, context: int, data: int, expert: int, expert_tensor: int
) -> None:
    job = round_job(model={"experts": EXPERTS})
    mlp = job.model.layers[0].mlp
    assert isinstance(mlp, Experts)
    layout = Layout(
        tensor_parallel=tensor,
        sequence_parallel=tensor > 1,
        context_parallel=context,
        data_parallel=data,
        expert_parallel=expert,
        expert_tensor_parallel=expert_tensor,
    )
    rows = float(expert_rows(job, mlp, LayoutTable.of([layout]))[0])
    # Expert tensor ranks compute the same pairs, each a part of the expert's width.
    assert rows * tensor * context * data / expert_tensor == pytest.approx(TOKENS * data * 2)


def test_experts_are_grouped_products_with_half_a_tile_to_spare(round_job: Callable[..., Job]) -> None:
    # 1000 tokens x 2 of 8 experts, 4 of them here: 2000 pairs, 500 an expert, and 50 rows of padding on average.
    job = round_job(model={"experts": EXPERTS | {"shared_ffn_hidden": 256}, "gated_mlp": True})
    layouts = LayoutTable.of([Layout(data_parallel=2, expert_parallel=2)])
    assert [shape(product) for product in mlp_products(job, job.model.layers[0].mlp, layouts)] == [
        (1000, 8, 1024, 1),
        (550, 2 * 512, 1024, 4),
        (550, 1024, 512, 4),
        (1000, 2 * 256, 1024, 1),
        (1000, 1024, 256, 1),
    ]


def test_elementwise_traffic_of_gpt(round_job: Callable[..., Job]) -> None:
    # Two norms of 2 passes and two residuals of 3 over 2 h bytes, 20 h; queries, keys, values in and out, 12 h;
    # the activation of 4 h in and out, 16 h.
    job = round_job()
    moved = elementwise_bytes(job, job.model.layers[0], LayoutTable.of([Layout()]))
    assert moved == pytest.approx([48 * TOKENS * HIDDEN])
    assert forward(job, Layout(), Cause.ELEMENTWISE) == pytest.approx(48 * TOKENS * HIDDEN / 500e9)
    assert backward(job, Layout(), Cause.ELEMENTWISE) == pytest.approx(2 * 48 * TOKENS * HIDDEN / 500e9)


@pytest.mark.parametrize(
    ("kind", "model", "stack", "fused", "apart"),
    [
        # Two norms of a value read and written; or of 36 bytes in six kernels, most of them fp32.
        ("fused_norm", {}, {}, 2 * 4, 2 * 36),
        # 8 + 2 heads of queries and keys of 128 turned on the way, or by 20 bytes a value of their own.
        ("fused_rotary", {"kv_heads": 2}, {}, 0, 20 * 10 / 8),
        ("fused_rotary", {"kv_heads": 2, "positions": "alibi"}, {}, 0, 0),
        # 4 h wide: gate and value read and one written; or the gate in between.
        ("fused_activation", {"gated_mlp": True}, {}, 6 * 4, 10 * 4),
        ("fused_activation", {}, {}, 4 * 4, 4 * 4),
        # Two of two states read and one written; a byte of mask, or the product's output once more too.
        ("fused_residual", {}, {}, 2 * 6, 2 * 6),
        ("fused_residual", {}, {"dropout": True}, 2 * 7, 2 * 11),
    ],
)
def test_what_each_kernel_saves(
    round_job: Callable[..., Job],
    kind: str,
    model: dict[str, Any],
    stack: dict[str, Any],
    fused: float,
    apart: float,
) -> None:
    together, separate = (
        sum(PARTS[kind](round_job(model=model, stack=stack | {kind: switch}))) / (TOKENS * HIDDEN)
        for switch in (True, False)
    )
    assert separate - together == pytest.approx(apart - fused)
    if kind != "fused_rotary":
        assert together == pytest.approx(fused)


def test_sorting_tokens_moves_what_the_stack_says_for_each_value(round_job: Callable[..., Job]) -> None:
    # Two experts a token: 8 bytes a value where each way is one kernel. By operators: taken out 2 + 2, sorted 2 + 2,
    # zeros 2, put back 2 + 2, weighed 2 + 2, cast to fp32 2 + 4, added up 4 + 4 + 4.
    one, many = (
        round_job(model={"experts": EXPERTS}, stack={"permutation_bytes": moved})
        for moved in (8, 4 + 4 + 2 + 4 + 4 + 6 + 12)
    )
    apart = elementwise_bytes(many, many.model.layers[0], SINGLE) - elementwise_bytes(one, one.model.layers[0], SINGLE)
    assert apart == pytest.approx([(36 - 8) * 2 * TOKENS * HIDDEN])


def test_latent_attention_turns_a_part_of_each_head(round_job: Callable[..., Job]) -> None:
    # 8 queries and one key of 64 values, 20 bytes each.
    latent = {"query_rank": None, "kv_rank": 256, "nope_head_dim": 128, "rope_head_dim": 64, "value_head_dim": 128}
    jobs = [round_job(model={"latent_attention": latent}, stack={"fused_rotary": switch}) for switch in (True, False)]
    together, separate = (sum(PARTS["fused_rotary"](job)) for job in jobs)
    assert separate - together == 20 * 9 * 64 * TOKENS


def test_elementwise_traffic_of_split_layers(round_job: Callable[..., Job]) -> None:
    # Sequence parallelism splits the 20 h of norms and residuals, tensor parallelism only the rest.
    job = round_job()
    layouts = LayoutTable.of([Layout(tensor_parallel=4), Layout(tensor_parallel=4, sequence_parallel=True)])
    moved = elementwise_bytes(job, job.model.layers[0], layouts) / (TOKENS * HIDDEN)
    assert moved == pytest.approx([20 + 28 / 4, 48 / 4])


def test_each_product_is_done_twice_more_backward(round_job: Callable[..., Job]) -> None:
    # Where compute binds and waves are full, gradients by data and by weights take as long as the product each.
    job = round_job(
        cluster={"device": {"compute_units": 1, "tile_rows": 1, "tile_columns": 1}},
        model={"hidden": 8192, "heads": 64, "kv_heads": 64, "ffn_hidden": 32768},
        sequence_length=8192,
    )
    ratio = backward(job, Layout(), Cause.MATMUL) / forward(job, Layout(), Cause.MATMUL)
    assert ratio == pytest.approx(2.0, rel=0.01)


def test_gradients_are_products_of_the_same_three_sizes(round_job: Callable[..., Job]) -> None:
    # m x k by k x n: the data gradient is m x n by n x k, the weight gradient k x m by m x n. Waves and depth differ.
    def product(rows: int, columns: int, inner: int) -> Matmul:
        sizes = (np.array([float(size)]) for size in (rows, columns, inner, 1))
        return Matmul(**dict(zip(("rows", "columns", "inner", "count"), sizes, strict=True)))

    job = round_job(stack={"fused_accumulation": False})
    ahead, back = products_time_s(job, (product(500, 3000, 100),))
    data, weights = (
        matmul_time_s(job.cluster.device, job.precision, product(*sizes))
        for sizes in ((500, 100, 3000), (100, 3000, 500))
    )
    assert ahead == pytest.approx(matmul_time_s(job.cluster.device, job.precision, product(500, 3000, 100)))
    assert back == pytest.approx(data + weights)
    assert back[0] != pytest.approx(2 * ahead[0], rel=0.1)


@pytest.mark.parametrize("together", [False, True])
def test_tensor_ranks_exchange_the_state_twice_a_pass(round_job: Callable[..., Job], together: bool) -> None:
    # Korthikanti et al. 2022, section 4.2.2: an all-reduce, or an all-gather and a reduce-scatter, behind attention
    # and behind the MLP. Of 4 ranks: 2 x 2 x 3/4 of 2 s h bytes at 50 GB/s, and a copy of the own quarter at 0.4 of
    # that time an operation; 3 steps of 1 us each way.
    layout = Layout(tensor_parallel=4, sequence_parallel=together)
    expected = 2 * ((2 * 0.75 + (2 if together else 1) * 0.1) * STATE_BYTES / 50e9 + 6e-6)
    assert forward(round_job(), layout, Cause.TENSOR) == pytest.approx(expected)
    assert backward(round_job(), layout, Cause.TENSOR) == pytest.approx(expected)


def test_overlap_hides_most_of_that(round_job: Callable[..., Job]) -> None:
    layout = Layout(tensor_parallel=4, sequence_parallel=True)
    hidden = forward(round_job(stack={"overlap_tensor": True}), layout, Cause.TENSOR)
    assert 0.0 < hidden < 0.5 * forward(round_job(), layout, Cause.TENSOR)


def test_experts_need_no_exchange_among_tensor_ranks_but_shared_ones_do(round_job: Callable[..., Job]) -> None:
    layout = Layout(tensor_parallel=4, sequence_parallel=True, data_parallel=2, expert_parallel=8)
    once = 2 * (0.75 + 0.1) * STATE_BYTES / 50e9 + 6e-6
    routed, shared = (round_job(model={"experts": EXPERTS | {"shared_ffn_hidden": width}}) for width in (0, 256))
    assert forward(routed, layout, Cause.TENSOR) == pytest.approx(once)
    assert forward(shared, layout, Cause.TENSOR) == pytest.approx(2 * once)


def test_expert_tensor_ranks_gather_and_reduce_the_pairs(round_job: Callable[..., Job]) -> None:
    # 2 expert tensor ranks meet 2 x 1000 / 2 x 2 pairs of 2 h bytes, half of each other's, in and out.
    layout = Layout(tensor_parallel=2, sequence_parallel=True, expert_tensor_parallel=2)
    job = round_job(model={"experts": EXPERTS})
    attention_s = 2 * ((0.5 + 0.2) * STATE_BYTES / 50e9 + 1e-6)
    pairs_s = 2 * ((0.5 + 0.2) * 2000 * 2 * HIDDEN / 50e9 + 1e-6)
    assert forward(job, layout, Cause.TENSOR) == pytest.approx(attention_s + pairs_s)


def test_tokens_go_to_their_experts_and_back(round_job: Callable[..., Job]) -> None:
    # 8 expert ranks on 2 nodes of 4: half of 2 x 1000 pairs of 2 h bytes leaves the node, at 5 GB/s a device, twice;
    # the own eighth is copied inside; trees of 2 x 1 us and 10 us.
    layout = Layout(data_parallel=8, expert_parallel=8)
    job = round_job(model={"experts": EXPERTS})
    own_s = 0.4 / 8 * 2 * STATE_BYTES / 50e9
    expected = 2 * (0.5 * 2 * STATE_BYTES / 5e9 + own_s + 12e-6)
    assert forward(job, layout, Cause.EXPERT) == pytest.approx(expected)
    assert backward(job, layout, Cause.EXPERT) == pytest.approx(expected)
    # Sent to a node once: of the 2 copies the other node wants one with chance 3/4, so 3/8 rather than 1/2.
    once = round_job(model={"experts": EXPERTS}, stack={"deduplicated_dispatch": True})
    assert forward(once, layout, Cause.EXPERT) == pytest.approx(2 * (0.375 * 2 * STATE_BYTES / 5e9 + own_s + 12e-6))


def test_a_dense_layer_sends_no_tokens(round_job: Callable[..., Job]) -> None:
    assert forward(round_job(), Layout(data_parallel=8, expert_parallel=8), Cause.EXPERT) == 0.0


def test_a_ring_is_hidden_behind_attention_as_far_as_it_goes(round_job: Callable[..., Job]) -> None:
    # 4 context ranks of a node pass 2 x 2 x 250 x h bytes of keys and values 3 times: 61.44 us, 8.19 us for the own
    # ones' copy, and 3 us.
    layout = Layout(context_parallel=4)
    slow = round_job()
    core_s, core_back_s = core_time_s(slow, slow.model.layers[0].attention, LayoutTable.of([layout]))
    own_s = 0.4 * 4 * 250 * HIDDEN / 50e9
    ring_s = 3 * 4 * 250 * HIDDEN / 50e9 + own_s + 3e-6
    assert ring_s < core_s[0]
    assert forward(slow, layout, Cause.CONTEXT) == 0.0
    across = round_job(cluster={"devices": 4, "per_node": 1, "fabric": {"bandwidth_bytes_per_s": 2e9}})
    ring_s = 3 * 4 * 250 * HIDDEN / 1e9 + own_s + 30e-6
    assert forward(across, layout, Cause.CONTEXT) == pytest.approx(ring_s - core_s[0])
    assert backward(across, layout, Cause.CONTEXT) == pytest.approx(2 * ring_s - core_back_s[0])


def test_a_ring_passes_keys_on_as_far_as_a_chunk_reaches(round_job: Callable[..., Job]) -> None:
    # Blocks of 125 tokens, two a rank: chunks of 250 reach over two ranks, which pass their 4 x 250 x h bytes on,
    # across nodes at 0.1 GB/s and in 10 us, and copies its own, 8.19 us.
    slow = {"devices": 4, "per_node": 1, "fabric": {"bandwidth_bytes_per_s": 2e8}}
    job, layout = round_job(model={"chunk": 250}, cluster=slow), Layout(context_parallel=4)
    core_s, _ = core_time_s(job, job.model.layers[0].attention, LayoutTable.of([layout]))
    ring_s = 4 * 250 * HIDDEN / 0.1e9 + 0.4 * 4 * 250 * HIDDEN / 50e9 + 10e-6
    assert forward(job, layout, Cause.CONTEXT) == pytest.approx(ring_s - core_s[0])
    within = round_job(model={"chunk": 125}, cluster=slow)
    assert forward(within, layout, Cause.CONTEXT) == 0.0


def test_a_ring_beside_attention_slows_it(round_job: Callable[..., Job]) -> None:
    job = round_job(cluster={"calibration": {"contention": 1.2}})
    ring_s = (3 + 0.4) * 4 * 250 * HIDDEN / 50e9 + 3e-6
    # While it lasts, attention does 1 / 1.2 of its work.
    assert forward(job, Layout(context_parallel=4), Cause.CONTEXT) == pytest.approx((1 - 1 / 1.2) * ring_s)


def test_ulysses_exchanges_queries_keys_values_and_outputs(round_job: Callable[..., Job]) -> None:
    # 3/4 of 4 x 2 x 250 x h bytes at 50 GB/s, the own quarter's copy, and four trees of 2 us; nothing hides it.
    layout = Layout(context_parallel=4, context_method=ContextMethod.ULYSSES)
    expected = (0.75 + 0.1) * 4 * 2 * 250 * HIDDEN / 50e9 + 4 * 2e-6
    assert forward(round_job(), layout, Cause.CONTEXT) == pytest.approx(expected)
    assert backward(round_job(), layout, Cause.CONTEXT) == pytest.approx(expected)


def test_a_slow_host_bounds_the_layer(round_job: Callable[..., Job]) -> None:
    # 100 ms to launch a layer, and 7 ms a collective: 4 of tensor ranks with split sequences.
    job = round_job(stack={"layer_launch": 0.1, "collective_launch": 0.007})
    for layout, expected in ((Layout(), 0.1), (Layout(tensor_parallel=4, sequence_parallel=True), 0.128)):
        found = times(job, layout)
        assert float(total_s(found.forward)[0]) == pytest.approx(expected)
        assert float(total_s(found.backward)[0]) == pytest.approx(expected)


def test_a_slow_host_bounds_each_of_two_backward_passes(round_job: Callable[..., Job]) -> None:
    # Launches take four times as long as the weight gradients, 4 of 26 kernels. So the host waits for those, and the
    # device for the host in the rest, which has about as much to compute; in one pass only the host would count.
    weights_s = float(weight_gradients_s(round_job(), products_of(round_job(), Layout()))[0])
    launch_s = 4 * weights_s
    job = round_job(stack={"layer_launch": launch_s})
    one, two = (
        times(job, Layout(pipeline_parallel=2, schedule=schedule))
        for schedule in (Schedule.ONE_F_ONE_B, Schedule.ZERO_BUBBLE_H1)
    )
    assert (float(one.weight_s[0]), float(total_s(one.backward)[0])) == pytest.approx((0.0, launch_s))
    assert float(two.weight_s[0]) == pytest.approx(weights_s)
    assert float(total_s(two.backward)[0]) == pytest.approx(launch_s * 22 / 26 + weights_s)


def test_half_of_the_launches_of_experts_make_weight_gradients(round_job: Callable[..., Job]) -> None:
    # 13 ms a layer and 1 ms an expert: 2 ms of kernels and half of 8, of which the device needs next to nothing.
    job = round_job(model={"experts": EXPERTS}, stack={"layer_launch": 0.013, "expert_launch": 0.001})
    found = times(job, Layout(pipeline_parallel=2, schedule=Schedule.ZERO_BUBBLE_H1))
    assert float(found.weight_s[0]) == pytest.approx(0.002 + 0.004)
    assert float(total_s(found.backward)[0]) == pytest.approx(0.013 + 0.008)


def test_a_fast_host_costs_nothing(round_job: Callable[..., Job]) -> None:
    assert forward(round_job(), Layout(), Cause.HOST) == 0.0


@pytest.mark.parametrize("layout", [Layout(tensor_parallel=4), Layout(context_parallel=2)], ids=["tensor", "context"])
def test_recomputation_repeats_all_or_the_core(round_job: Callable[..., Job], layout: Layout) -> None:
    job = round_job()
    table = LayoutTable.of(
        [
            Layout(
                tensor_parallel=layout.tensor_parallel,
                context_parallel=layout.context_parallel,
                recompute=recompute,
            )
            for recompute in Recompute
        ]
    )
    found = layer_time(job, job.model.layers[0], table)
    none, selective, full = total_s(found.recompute)
    assert none == 0.0
    assert selective == pytest.approx(found.forward[Cause.ATTENTION][1])
    assert full == pytest.approx(float(total_s(found.forward)[2]))


@pytest.mark.parametrize(
    ("selective", "shares"),
    [
        ((RecomputedModule.ATTENTION_CORE,), {Cause.ATTENTION: 1.0}),
        ((RecomputedModule.NORMS, RecomputedModule.ACTIVATION), {Cause.ELEMENTWISE: 1.0}),
        (
            (RecomputedModule.ACTIVATION, RecomputedModule.ATTENTION_CORE),
            {Cause.ELEMENTWISE: 0.5, Cause.ATTENTION: 1.0},
        ),
        # Of queries, keys, values, output, up and down, h^2 each but for the MLP's 4 h^2, keys and output.
        ((RecomputedModule.EVERY_OTHER_PRODUCT,), {Cause.ELEMENTWISE: 1.0, Cause.MATMUL: 2 / 12}),
        # The MLP's two products of the layer's 12 h^2 are 8 h^2.
        ((RecomputedModule.MLP,), {Cause.MATMUL: 8 / 12}),
    ],
)
def test_stacks_compute_different_things_again(
    round_job: Callable[..., Job], selective: tuple[RecomputedModule, ...], shares: Mapping[Cause, float]
) -> None:
    found = times(round_job(stack={"selective_recompute": selective}), Layout(recompute=Recompute.SELECTIVE))
    for cause in Cause:
        expected = shares.get(cause, 0.0) * float(np.broadcast_to(found.forward[cause], 1)[0])
        assert float(np.broadcast_to(found.recompute[cause], 1)[0]) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("spared", "gated", "repeated"),
    [
        (0, False, 1.0),
        # Down 4 h^2 of 12 h^2, and attention's output h^2.
        (1, False, 8 / 12),
        (2, False, 7 / 12),
        # Down 4 h^2 of 16 h^2.
        (1, True, 12 / 16),
    ],
)
def test_what_nothing_saved_follows_is_not_computed_again(
    round_job: Callable[..., Job], *, spared: int, gated: bool, repeated: float
) -> None:
    job = round_job(stack={"spared_products": spared}, model={"gated_mlp": gated})
    found = times(job, Layout(recompute=Recompute.FULL))
    assert found.recompute[Cause.MATMUL] == pytest.approx(repeated * found.forward[Cause.MATMUL])
    assert found.recompute[Cause.ATTENTION] == pytest.approx(found.forward[Cause.ATTENTION])
    # Of attention's two messages and the MLP's two, the last of a part is a sum.
    together = times(job, Layout(tensor_parallel=4, sequence_parallel=True, recompute=Recompute.FULL))
    assert together.recompute[Cause.TENSOR] == pytest.approx((1 - spared / 4) * together.forward[Cause.TENSOR])
    apart = times(job, Layout(tensor_parallel=4, recompute=Recompute.FULL))
    assert apart.recompute[Cause.TENSOR] == pytest.approx((1 - spared / 2) * apart.forward[Cause.TENSOR])


def test_experts_are_computed_again_whole(round_job: Callable[..., Job]) -> None:
    job = round_job(stack={"spared_products": 2}, model={"experts": EXPERTS})
    found = times(job, Layout(recompute=Recompute.FULL))
    assert found.recompute[Cause.MATMUL] == pytest.approx(found.forward[Cause.MATMUL])
