"""The attention core, fused and unfused, by hand; pairs of queries and keys by brute force."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from meshwright.catalog.context_method import ContextMethod
from meshwright.catalog.lookup import device_named
from meshwright.catalog.precision import Precision
from meshwright.costmodels.attention import (
    attended_pairs,
    core_backward_flop,
    core_flop,
    core_time_s,
    key_value_bytes,
    ring_blocks,
    softmax_is_chained,
)
from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import Layout, LayoutTable
from meshwright.costmodels.tiles import misalignment
from meshwright.costmodels.transformer import Attention
from meshwright.hardware.device import device_of

LATENCY_S = 1e-5
ONE = Layout()


def attention_of(job: Job) -> Attention:
    return job.model.layers[0].attention


def core_s(job: Job, layout: Layout = ONE) -> tuple[float, float]:
    forward, backward = core_time_s(job, attention_of(job), LayoutTable.of([layout]))
    return float(np.broadcast_to(forward, (1,))[0]), float(np.broadcast_to(backward, (1,))[0])


@pytest.mark.parametrize("window", [None, 1, 2, 7, 99, 100, 500])
def test_pairs_are_those_of_the_mask(round_job: Callable[..., Job], window: int | None) -> None:
    length = 100
    seen = [(query, key) for query in range(length) for key in range(query + 1) if query - key < (window or length)]
    attention = replace(attention_of(round_job()), window=window)
    # The law leaves out half of each query's own key: min(window, length) / 2 pairs.
    assert attended_pairs(attention, length) == len(seen) - min(window or length, length) / 2


@pytest.mark.parametrize("chunk", [1, 7, 25, 99, 100, 500])
def test_pairs_of_chunks_are_those_of_the_mask(round_job: Callable[..., Job], chunk: int) -> None:
    length = 100
    seen = [(query, key) for query in range(length) for key in range(query + 1) if query // chunk == key // chunk]
    attention = replace(attention_of(round_job()), chunk=chunk)
    # Again without half of each query's own key.
    assert attended_pairs(attention, length) == len(seen) - length / 2


@pytest.mark.parametrize(
    ("limit", "reached"),
    [
        ({}, 4),
        # Blocks of 1024 / (2 x 4) = 128 tokens, two a rank.
        ({"chunk": 64}, 1),
        ({"chunk": 128}, 1),
        ({"chunk": 256}, 2),
        ({"chunk": 1024}, 4),
        # The first query of a block sees the last of the block before it.
        ({"window": 2}, 2),
        ({"window": 200}, 3),
        ({"window": 1000}, 4),
    ],
)
def test_a_ring_reaches_as_far_as_queries_look(
    round_job: Callable[..., Job], limit: dict[str, int], reached: int
) -> None:
    job = round_job(model=limit, sequence_length=1024)
    layouts = [
        Layout(context_parallel=4, context_method=ContextMethod.RING),
        Layout(context_parallel=4, context_method=ContextMethod.ULYSSES),
        Layout(),
    ]
    assert ring_blocks(job, attention_of(job), LayoutTable.of(layouts)).tolist() == [reached, 1, 1]


def test_chunks_are_sequences_of_their_own(round_job: Callable[..., Job]) -> None:
    # Four triangles of 250 x 250 / 2 pairs, 125,000; reach 250 / 1250 of 50 TFLOP/s, 2.6 waves for 1. As many rows as
    # four sequences of 250 have, and as long.
    chunked = core_s(round_job(model={"chunk": 250}))
    assert chunked[0] == pytest.approx(2.6 * 2 * 125_000 * 8 * 256 / 10e12 + LATENCY_S)
    assert chunked == pytest.approx(core_s(round_job(sequence_length=250), Layout(micro_batch=4)))


def test_a_chunk_within_a_ring_s_blocks_needs_no_other_rank(round_job: Callable[..., Job]) -> None:
    # Blocks of 250; half of 4 x 125 x 125 / 2 x 2 pairs for each of two ranks; 4000 rows take 4.2 waves for 1.
    job = round_job(model={"chunk": 125})
    ring = Layout(context_parallel=2, context_method=ContextMethod.RING)
    half = 8 * 125 * 125 / 2 / 2
    assert core_s(job, ring)[0] == pytest.approx(4.2 * 2 * half * 8 * 256 / (50e12 * 125 / 1125) + LATENCY_S)


def test_operations_count_query_heads_and_both_widths(round_job: Callable[..., Job]) -> None:
    # 1000 x 1000 / 2 pairs, 8 heads, 2 x 128 for the score and 2 x 128 for the value.
    job = round_job()
    assert core_flop(job, attention_of(job)) == 2 * 5e5 * 8 * 256
    grouped = replace(attention_of(job), kv_heads=2)
    latent = replace(attention_of(job), head_dim=192)
    assert core_flop(job, grouped) == core_flop(job, attention_of(job))
    assert core_flop(job, latent) == 2 * 5e5 * 8 * (192 + 128)


def test_fused_attention(round_job: Callable[..., Job]) -> None:
    # 2.048 GFLOP. Forward at 50 % of 100 TFLOP/s, halved by 1000 / (1000 + 1000): 25 TFLOP/s, 81.92 us.
    # Backward 2.5 times the work at 12.5 TFLOP/s: 409.6 us. Tiles of 128 of 8 x 1000 rows on 100 units: 2.6 waves.
    assert core_s(round_job()) == pytest.approx((2.6 * 81.92e-6 + LATENCY_S, 2.6 * 409.6e-6 + LATENCY_S))


def test_a_deterministic_backward_pass_is_slower(round_job: Callable[..., Job]) -> None:
    # The round device's calibration: at half the rate.
    free, fixed = core_s(round_job()), core_s(round_job(stack={"deterministic": True}))
    assert fixed[0] == free[0]
    assert fixed[1] - LATENCY_S == pytest.approx(2 * (free[1] - LATENCY_S))


def test_fused_attention_is_split_by_heads_and_tokens(round_job: Callable[..., Job]) -> None:
    # With full waves 81.92 us. 2 heads' rows take 1 + 12800 / 2000 times as long, those of 24 heads 1 + 12800 / 24000.
    assert core_s(round_job(), Layout(tensor_parallel=4))[0] == pytest.approx(7.4 * 81.92e-6 / 4 + LATENCY_S)
    assert core_s(round_job(), Layout(micro_batch=3))[0] == pytest.approx((1 + 12.8 / 24) * 81.92e-6 * 3 + LATENCY_S)


def test_a_ring_works_on_blocks_of_keys_and_ulysses_on_all(round_job: Callable[..., Job]) -> None:
    # Half of 2.048 GFLOP. A ring's half blocks of 250 keys run at 250 / 1250 of 50 TFLOP/s, in two kernels; the second
    # block is added to 500 x 8 x 128 values, 10 bytes each at 0.5 TB/s. 4000 rows take 4.2 waves for 1.
    ring = Layout(context_parallel=2, context_method=ContextMethod.RING)
    ulysses = Layout(context_parallel=2, context_method=ContextMethod.ULYSSES)
    assert core_s(round_job(), ring)[0] == pytest.approx(4.2 * 1.024e9 / 10e12 + 5.12e6 / 0.5e12 + 2 * LATENCY_S)
    assert core_s(round_job(), ulysses)[0] == pytest.approx(4.2 * 1.024e9 / 25e12 + LATENCY_S)


def test_a_window_leaves_fewer_pairs_and_shorter_reach(round_job: Callable[..., Job]) -> None:
    # Pairs: 250 x (1000 - 125) = 218,750; reach 250 / 1250 of 50 TFLOP/s, 2.6 waves for 1.
    job = round_job(model={"window": 250})
    assert core_s(job)[0] == pytest.approx(2.6 * 2 * 218_750 * 8 * 256 / 10e12 + LATENCY_S)


def test_a_stack_with_older_kernels_is_slower(round_job: Callable[..., Job]) -> None:
    new, old = core_s(round_job()), core_s(round_job(stack={"attention_share": 0.5}))
    assert old == pytest.approx(tuple(2 * (each - LATENCY_S) + LATENCY_S for each in new))


def test_kernels_of_ampere_are_slower_on_what_came_later(round_job: Callable[..., Job]) -> None:
    later = {"calibration": {"attention_ampere": 0.8}}
    own = core_s(round_job(cluster=later))
    older = core_s(round_job(cluster=later, stack={"ampere_attention": True}))
    assert older == pytest.approx(tuple((each - LATENCY_S) / 0.8 + LATENCY_S for each in own))
    assert core_s(round_job(stack={"ampere_attention": True})) == core_s(round_job())


@pytest.mark.parametrize(("head_dim", "factor"), [(64, 1.0), (80, 1.0), (108, 6.5), (150, 9.0), (75, 9.0)])
def test_awkward_widths_cost_more(head_dim: int, factor: float) -> None:
    assert misalignment(head_dim) == factor


def test_awkward_widths_slow_the_core(round_job: Callable[..., Job]) -> None:
    even, awkward = (core_s(round_job(model={"head_dim": width}))[0] - LATENCY_S for width in (104, 108))
    assert awkward / even == pytest.approx(6.5 * 108 / 104)


def test_narrow_products_leave_the_core_at_16_bits(round_job: Callable[..., Job]) -> None:
    assert core_s(round_job(precision=Precision.FP8)) == core_s(round_job(precision=Precision.BF16))


@pytest.mark.parametrize(("dropout", "forward_bytes", "backward_bytes"), [(False, 3, 4), (True, 8, 9)])
def test_unfused_attention(
    round_job: Callable[..., Job], dropout: bool, forward_bytes: int, backward_bytes: int
) -> None:
    # 8 heads of 1000 x 1000 scores. Q K^T: waves 1 + 0.5 x 10^6 / (8 x 10^6) = 1.0625, depth 128 + 100:
    # 2 x 8 x 10^6 x 228 x 1.0625 / 50 TFLOP/s = 77.52 us, beside 2 x 8 x (1 + 0.256) x 10^6 B at 500 GB/s.
    # P V: 8 x 1000 x 128 values: waves 1 + 0.5 / 1.024, depth 1100: 67.05 us; the same traffic.
    traffic_s = 2 * 8 * 1.256e6 / 500e9
    scores_s = math.hypot(77.52e-6, traffic_s) + LATENCY_S
    values_s = math.hypot(2 * 1.024e6 * 1100 * (1 + 0.5 / 1.024) / 50e12, traffic_s) + LATENCY_S
    # Softmax reads a triangle of 2-byte scores and writes the square, backward it reads two; dropout reads and writes
    # the square again, with a byte of mask.
    passes_s = 8e6 / 500e9
    forward, backward = core_s(round_job(stack={"fused_attention": False, "dropout": dropout}))
    assert forward == pytest.approx(scores_s + values_s + forward_bytes * passes_s)
    assert backward == pytest.approx(2 * (scores_s + values_s) + backward_bytes * passes_s)


def test_softmax_falls_back_where_matrices_are_not_a_multiple_of_four(round_job: Callable[..., Job]) -> None:
    # 2 heads x 1, 3 and 2 sequences: 2, 6 and 4 matrices of 10^6 scores, 36 bytes each for the chain and 3 or 4 fused.
    job = round_job(stack={"fused_attention": False})
    layouts = LayoutTable.of([Layout(tensor_parallel=4, micro_batch=size) for size in (1, 3, 2)])
    assert softmax_is_chained(job, attention_of(job), layouts).tolist() == [True, True, False]
    assert not softmax_is_chained(round_job(), attention_of(job), layouts).any()
    any_number = round_job(stack={"fused_attention": False, "softmax_batch": 1})
    assert not softmax_is_chained(any_number, attention_of(job), layouts).any()
    chained, fused = (core_s(job, Layout(tensor_parallel=4, micro_batch=size)) for size in (3, 2))
    products = [
        core_s(
            round_job(stack={"fused_attention": False, "dropout": True}), Layout(tensor_parallel=4, micro_batch=size)
        )
        for size in (3, 2)
    ]
    assert [both[0] - one[0] for both, one in zip(products, (chained, fused), strict=True)] == pytest.approx(
        [5 * 6e6 / 500e9, 5 * 4e6 / 500e9]
    )
    assert chained[1] - 2 * chained[0] == pytest.approx(-36 * 6e6 / 500e9)
    assert fused[1] - 2 * fused[0] == pytest.approx((4 - 2 * 3) * 4e6 / 500e9)


def test_keys_and_values_of_grouped_heads_are_copied_to_tensor_ranks(round_job: Callable[..., Job]) -> None:
    # 2 heads of keys and values, 128 wide, 2 bytes, 1000 tokens; on 4 ranks each has one of them, not half of one.
    job = round_job(model={"kv_heads": 2})
    layouts = LayoutTable.of([Layout(), Layout(tensor_parallel=2), Layout(tensor_parallel=4)])
    assert key_value_bytes(job, attention_of(job), layouts) == pytest.approx([1_024_000, 512_000, 512_000])


EXPONENTIALS = {"exponentials_per_s": 1e12, "peak_flop_per_s": {Precision.BF16: 1e14, Precision.FP32: 1e13}}


def test_the_softmax_runs_beside_the_products(round_job: Callable[..., Job]) -> None:
    # 5 x 10^5 x 8 scores, each an exponential at 10^12 a second and 2 forward, 3 backward steps at half of 10 TFLOP/s:
    # 5.6 and 6.4 us. Products take 20.48 us forward and 51.2 us backward at the peak, of which a half and a quarter are
    # sustained; length doubles and waves make it 2.6 times.
    job = round_job(cluster={"device": EXPONENTIALS})
    forward, backward = (5.2 * math.hypot(*both) for both in ((20.48e-6, 5.6e-6), (51.2e-6, 6.4e-6)))
    assert core_s(job) == pytest.approx((2 * forward + LATENCY_S, 4 * backward + LATENCY_S))


def test_each_score_costs_an_exponential_whatever_the_width(round_job: Callable[..., Job]) -> None:
    # Half the width halves the products, 10.24 us, not the softmax, 5.6 us.
    narrow = round_job(model={"head_dim": 64}, cluster={"device": EXPONENTIALS})
    assert core_s(narrow)[0] == pytest.approx(2 * 2.6 * 2 * math.hypot(10.24e-6, 5.6e-6) + LATENCY_S)


@pytest.mark.parametrize(
    ("head_dim", "value_head_dim", "flop", "loads"),
    [(64, 64, 320, 1.0), (128, 128, 640, 1.0), (192, 128, 832, 1.25), (192, 192, 960, 1.25), (256, 256, 1280, 1.5)],
)
def test_backward_tiles_shrink_for_wide_heads(
    round_job: Callable[..., Job], head_dim: int, value_head_dim: int, flop: int, loads: float
) -> None:
    # Three products as wide as keys and two as wide as values, 2 operations each, for each of 5 x 10^5 pairs and 8
    # heads at 12.5 TFLOP/s; beyond 128, (1 + width / 128) / 2 as many loads.
    job = round_job()
    attention = replace(attention_of(job), head_dim=head_dim, value_head_dim=value_head_dim)
    assert core_backward_flop(job, attention) == 4e6 * 2 * flop
    _, backward = core_time_s(job, attention, LayoutTable.of([ONE]))
    assert float(backward[0]) == pytest.approx(2.6 * 4e6 * 2 * flop * loads / 12.5e12 + LATENCY_S)


@pytest.mark.parametrize(
    ("device", "width", "backward", "measured"),
    [
        # Medians over long causal sequences and many heads of 64 and of 128, in aiconfigurator-core 0.12.0: three
        # libraries on H100 at 0.77 to 0.82, on B200 at 0.58 to 0.66, on B300 at 0.65 to 0.74.
        ("h100-sxm-80gb", (64, 64), False, 0.79),
        ("b200-sxm-180gb", (64, 64), False, 0.62),
        ("b300-sxm-288gb", (64, 64), False, 0.67),
        # Backward, heads of 192 and values of 128: 0.8018 of 1.0051 and 0.6426 of 0.8316 (SimuMax 4dcaae5).
        ("a100-pcie-80gb", (192, 128), True, 0.80),
        ("b200-sxm-180gb", (192, 128), True, 0.77),
    ],
)
def test_rates_of_other_widths_over_that_of_128(
    round_job: Callable[..., Job], device: str, width: tuple[int, int], backward: bool, measured: float
) -> None:
    job = round_job(sequence_length=131_072)
    job = replace(job, cluster=replace(job.cluster, device=device_of(device_named(device))))

    def rate(widths: tuple[int, int]) -> float:
        attention = replace(attention_of(job), head_dim=widths[0], value_head_dim=widths[1])
        seconds = core_time_s(job, attention, LayoutTable.of([ONE]))[backward]
        return core_flop(job, attention) / float(seconds[0])

    assert rate(width) / rate((128, 128)) == pytest.approx(measured, rel=0.08)
