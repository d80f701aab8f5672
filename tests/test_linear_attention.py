"""Linear attention by hand: blocks and states, gate and norm, what is kept, and the all-gather of states.

The round model: 1,000 tokens, 8 heads of 128, hidden 1,024; on devices of 100 TFLOP/s with 100 units, attention at half
of that forward and a quarter backward.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from meshwright.catalog.context_method import ContextMethod
from meshwright.catalog.lookup import find_model
from meshwright.catalog.model_entry import ModelEntry
from meshwright.catalog.stack_entry import RecomputedModule
from meshwright.costmodels.activations import layer_activations
from meshwright.costmodels.attention import core_backward_flop, core_flop, core_time_s, softmax_is_chained
from meshwright.costmodels.context_messages import context_communication_s, context_launches, gathered_bytes
from meshwright.costmodels.elementwise import elementwise_bytes
from meshwright.costmodels.job import Job
from meshwright.costmodels.layer_time import Cause, layer_time
from meshwright.costmodels.layer_work import attention_products
from meshwright.costmodels.layout import Layout, LayoutTable, Recompute
from meshwright.costmodels.model_flop import model_flop
from meshwright.costmodels.parameters import active_parameters, layer_parameters
from meshwright.costmodels.transformer import Attention, transformer_of

MakeJob = Callable[..., Job]
LATENCY_S = 1e-5
STATES = 2 * 8 * 128 * 128
"""Bytes of a sequence's states."""
COPY = 0.4 / 50e9


def linear(*, block: int = 250, gated: bool = True, frequency: int = 0) -> dict[str, Any]:
    return {"linear_attention": {"block": block, "gated": gated, "frequency": frequency}}


def attention_of(job: Job) -> Attention:
    return job.model.layers[0].attention


def core_s(job: Job, layout: Layout | None = None) -> tuple[float, float]:
    forward, backward = core_time_s(job, attention_of(job), LayoutTable.of([layout or Layout()]))
    return float(forward[0]), float(backward[0])


def by(method: ContextMethod, degree: int = 4) -> Layout:
    ulysses = 2 if method is ContextMethod.HYBRID else 1
    return Layout(context_parallel=degree, context_method=method, ulysses_parallel=ulysses)


def messages_s(job: Job, layout: Layout, *, beside_s: float = 0.0) -> tuple[float, float]:
    room = np.array([beside_s])
    forward, backward = context_communication_s(job, attention_of(job), LayoutTable.of([layout]), (room, room))
    return float(forward[0]), float(backward[0])


@pytest.mark.parametrize("block", [1, 7, 25, 99, 100, 500])
def test_pairs_are_those_within_blocks(round_job: MakeJob, block: int) -> None:
    length = 100
    job = round_job(model=linear(block=block), sequence_length=length)
    seen = [(query, key) for query in range(length) for key in range(query + 1) if query // block == key // block]
    # The law leaves out half of each query's own key; a token's products with states are 4 x 128 x 128 operations.
    pairs = len(seen) - length / 2
    assert core_flop(job, attention_of(job)) == 8 * (2 * pairs * 256 + 4 * length * 128 * 128)
    assert core_backward_flop(job, attention_of(job)) == 8 * (2 * pairs * 5 * 128 + 10 * length * 128 * 128)


def test_the_core_computes_squares_and_states(round_job: MakeJob) -> None:
    # Forward 8 (2 x 4 x 250 x 250 x 256 + 4 x 1000 x 128 x 128) = 1.548 GFLOP at 50 TFLOP/s; backward
    # 8 (2 x 4 x 250 x 250 x 640 + 10 x 1000 x 128 x 128) = 3.871 GFLOP at 25; 2.6 waves for 1, as with softmax.
    expected = (2.6 * 1.548288e9 / 50e12 + LATENCY_S, 2.6 * 3.87072e9 / 25e12 + LATENCY_S)
    assert core_s(round_job(model=linear())) == pytest.approx(expected)


def test_the_kernel_is_the_same_whatever_software_does_with_softmax(round_job: MakeJob) -> None:
    other = round_job(
        model=linear(), stack={"fused_attention": False, "attention_share": 0.5, "deterministic": True, "dropout": True}
    )
    assert core_s(other) == core_s(round_job(model=linear()))
    # Five matrices aren't whole fours, but there is no softmax to fall back.
    odd = LayoutTable.of([Layout(tensor_parallel=8, micro_batch=5)])
    assert not softmax_is_chained(other, attention_of(other), odd)[0]


def test_time_goes_with_tokens(round_job: MakeJob) -> None:
    twice = core_s(round_job(model=linear(), sequence_length=2000))
    assert twice == pytest.approx(core_s(round_job(model=linear()), Layout(micro_batch=2)))


def test_each_nth_layer_has_softmax_and_its_own_key_heads(round_job: MakeJob) -> None:
    model = round_job(model=linear(frequency=2) | {"kv_heads": 2, "window": 100}).model
    assert [layer.attention.linear is None for layer in model.layers[:4]] == [False, True, False, True]
    assert [(layer.attention.kv_heads, layer.attention.window) for layer in model.layers[:2]] == [(8, None), (2, 100)]


def test_a_model_of_softmax_alone_has_no_linear_attention(round_job: MakeJob) -> None:
    with pytest.raises(ValidationError, match="leave linear_attention out"):
        round_job(model=linear(frequency=1))


@pytest.mark.parametrize("method", [method for method in ContextMethod if method is not ContextMethod.ULYSSES])
@pytest.mark.parametrize("length", [1000, 8000])
def test_states_are_gathered_once_each_way_whatever_the_length(
    round_job: MakeJob, method: ContextMethod, length: int
) -> None:
    # Three other ranks' states in three steps of 1 us, beside the core; half of the heads on each of two tensor ranks.
    job = round_job(model=linear(), sequence_length=length)
    once = 3 * STATES / 50e9 + COPY * STATES + 3e-6
    assert messages_s(job, by(method)) == pytest.approx((once, once))
    assert messages_s(job, by(method), beside_s=1.0) == (0.0, 0.0)
    half = replace(by(method, 2), tensor_parallel=2, micro_batch=4)
    assert messages_s(job, half)[0] == pytest.approx(2 * STATES / 50e9 + COPY * 2 * STATES + 1e-6)


def test_ulysses_exchanges_heads_as_with_softmax(round_job: MakeJob) -> None:
    softmax, job = round_job(), round_job(model=linear())
    ulysses = by(ContextMethod.ULYSSES)
    assert messages_s(job, ulysses) == messages_s(softmax, ulysses)
    assert messages_s(job, ulysses)[0] > 0
    assert messages_s(job, Layout()) == (0.0, 0.0)


def test_launches_and_gathered_bytes_of_each_method(round_job: MakeJob) -> None:
    job = round_job(model=linear())
    layouts = LayoutTable.of([Layout(), *(by(method) for method in ContextMethod)])
    others = [method is not ContextMethod.ULYSSES for method in ContextMethod]
    assert context_launches(attention_of(job), layouts).tolist() == [0, *(1 if gathers else 4 for gathers in others)]
    gathered = [0, *(4 * STATES if gathers else 0 for gathers in others)]
    assert gathered_bytes(job, attention_of(job), layouts).tolist() == gathered


def test_parameters_are_those_of_all_heads_a_gate_and_a_norm(round_job: MakeJob) -> None:
    for gated in (False, True):
        model = round_job(model=linear(gated=gated) | {"kv_heads": 2}).model
        layer = layer_parameters(model, model.layers[0])
        plain = layer_parameters(model, replace(model.layers[0], attention=attention_of(round_job())))
        assert layer.attention_sharded - plain.attention_sharded == (1024 * 1024 if gated else 0)
        assert layer.replicated - plain.replicated == 1024


def test_the_gate_is_a_product_of_its_own(round_job: MakeJob) -> None:
    job, layouts = round_job(model=linear()), LayoutTable.of([Layout(tensor_parallel=2)])
    shapes = [
        (float(one.rows[0]), float(one.columns[0]), float(one.inner[0]))
        for one in attention_products(job, attention_of(job), layouts)
    ]
    assert shapes == [(1000, 1536, 1024), (1000, 512, 1024), (1000, 1024, 512)]


@pytest.mark.parametrize(("gated", "more"), [(False, 2), (True, 4)])
def test_values_before_the_norm_and_the_gate_are_kept(round_job: MakeJob, gated: bool, more: int) -> None:
    softmax, job = round_job(), round_job(model=linear(gated=gated))
    values = 1000 * 1024
    for recompute in (Recompute.NONE, Recompute.SELECTIVE):
        layouts = LayoutTable.of([Layout(recompute=recompute)])
        whole = layer_activations(softmax, softmax.model.layers[0], layouts).whole[0]
        kept = layer_activations(job, job.model.layers[0], layouts).kept[0]
        # In the place of the log-sum-exp, 4 bytes a head and token.
        assert kept == pytest.approx(whole - 4 * 8 * 1000 + more * values)


def test_nothing_of_the_core_is_recomputed_selectively(round_job: MakeJob) -> None:
    job = round_job(model=linear(), stack={"selective_recompute": (RecomputedModule.ATTENTION_CORE,)})
    selective, full = (
        layer_time(job, job.model.layers[0], LayoutTable.of([Layout(recompute=recompute)])).recompute
        for recompute in (Recompute.SELECTIVE, Recompute.FULL)
    )
    assert selective[Cause.ATTENTION][0] == 0
    assert full[Cause.ATTENTION][0] == core_s(job)[0]


@pytest.mark.parametrize(
    ("stack", "more"),
    [
        # A norm of 4 bytes and a gate of 6 a value.
        ({}, 4 + 6),
        # 36 and 10 one operator after another, and activating queries, keys and values 4 each.
        ({"fused_norm": False, "fused_activation": False}, 36 + 10 + 3 * 4),
        # Softmax rotates queries and keys, 20 bytes a value each.
        ({"fused_rotary": False}, 4 + 6 - 2 * 20),
    ],
)
def test_elementwise_work(round_job: MakeJob, stack: dict[str, bool], more: int) -> None:
    one = LayoutTable.of([Layout()])
    softmax, job = (round_job(model={"positions": "rotary"} | model, stack=stack) for model in ({}, linear()))
    difference = elementwise_bytes(job, job.model.layers[0], one) - elementwise_bytes(
        softmax, softmax.model.layers[0], one
    )
    assert difference[0] == more * 1000 * 1024


def test_operations_of_a_model_are_those_of_its_layers(round_job: MakeJob) -> None:
    softmax = round_job(model={"layers": 2})
    both = round_job(model=linear(frequency=2) | {"layers": 2})
    core = 3 * 16 * (core_flop(both, attention_of(both)) - core_flop(softmax, attention_of(softmax)))
    gate = 6 * 1024 * 1024 * 16 * 1000
    assert model_flop(both) - model_flop(softmax) == pytest.approx(core + gate)


def test_minimax_has_its_published_active_parameters() -> None:
    # arXiv 2501.08313: 45.9 B, without embedding and head.
    model = transformer_of(find_model("minimax-text-01"))
    assert active_parameters(model) - 2 * model.vocab * model.hidden == pytest.approx(45.9e9, rel=0.002)
    assert sum(layer.attention.linear is None for layer in model.layers) == 10
    assert [layer.attention.kv_heads for layer in model.layers[6:9]] == [64, 8, 64]


def test_an_entry_reads_what_it_writes() -> None:
    entry = find_model("minimax-text-01")
    assert ModelEntry.model_validate_json(entry.model_dump_json()) == entry
