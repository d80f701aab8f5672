"""The attention core, fused and unfused, by hand; pairs of queries and keys by brute force."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from meshwright.catalog.precision import Precision
from meshwright.costmodels.attention import (
    attended_pairs,
    core_flop,
    core_time_s,
    key_value_bytes,
    misalignment,
    softmax_is_chained,
)
from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import ContextMethod, Layout, LayoutTable
from meshwright.costmodels.transformer import Attention

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


@pytest.mark.parametrize(("head_dim", "factor"), [(64, 1.0), (80, 1.0), (108, 4.0), (150, 9.0), (75, 9.0)])
def test_awkward_widths_cost_more(head_dim: int, factor: float) -> None:
    assert misalignment(head_dim) == factor


def test_awkward_widths_slow_the_core(round_job: Callable[..., Job]) -> None:
    even, awkward = (core_s(round_job(model={"head_dim": width}))[0] - LATENCY_S for width in (104, 108))
    assert awkward / even == pytest.approx(4 * 108 / 104)


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
