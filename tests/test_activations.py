"""Activation bytes of a layer against the equations of Korthikanti et al. 2022 (arXiv 2205.05198)."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from meshwright.catalog.precision import Precision
from meshwright.catalog.stack_entry import RecomputedModule
from meshwright.costmodels.activations import layer_activations
from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import Layout, LayoutTable, Recompute
from meshwright.costmodels.transformer import Experts

HIDDEN, HEADS, LENGTH = 1024, 8, 1000
SCORES = 5 * HEADS * LENGTH / HIDDEN
"""5 a s / h, the share of scores, their softmax and its dropout."""
LOG_SUM_EXP = 4 * HEADS / HIDDEN
"""What fused attention keeps, 4 bytes a head and token."""
OLD: dict[str, Any] = {"fused_attention": False, "dropout": True}


def per_token_and_channel(job: Job, layout: Layout) -> tuple[float, float]:
    """Give kept and whole bytes of one layer over s b h."""
    activations = layer_activations(job, job.model.layers[0], LayoutTable.of([layout]))
    values = layout.micro_batch * job.sequence_length * job.model.hidden
    return float(activations.kept[0]) / values, float(activations.whole[0]) / values


@pytest.mark.parametrize("micro_batch", [1, 4])
def test_a_layer_keeps_what_equation_1_counts(round_job: Callable[..., Job], micro_batch: int) -> None:
    # Equation 1: s b h (34 + 5 a s / h).
    kept, _ = per_token_and_channel(round_job(stack=OLD), Layout(micro_batch=micro_batch))
    assert kept == pytest.approx(34 + SCORES, rel=1e-12)


@pytest.mark.parametrize("tensor", [2, 4, 8])
def test_tensor_parallelism_keeps_what_equation_2_counts(round_job: Callable[..., Job], tensor: int) -> None:
    # Equation 2: s b h (10 + 24 / t + 5 a s / (h t)): norms and dropout masks stay whole.
    kept, _ = per_token_and_channel(round_job(stack=OLD), Layout(tensor_parallel=tensor))
    assert kept == pytest.approx(10 + 24 / tensor + SCORES / tensor, rel=1e-12)


@pytest.mark.parametrize("tensor", [2, 4, 8])
def test_sequence_parallelism_splits_all_as_equation_4_counts(round_job: Callable[..., Job], tensor: int) -> None:
    # Equation 4: s b h / t (34 + 5 a s / h).
    kept, _ = per_token_and_channel(round_job(stack=OLD), Layout(tensor_parallel=tensor, sequence_parallel=True))
    assert kept == pytest.approx((34 + SCORES) / tensor, rel=1e-12)


def test_attention_on_ascend_keeps_sixteen_statistics_a_head_and_token(round_job: Callable[..., Job]) -> None:
    # Maximum and sum, eight times in fp32 each, where others keep one fp32 log-sum-exp: 60 bytes more.
    plain, _ = per_token_and_channel(round_job(), Layout())
    ascend, _ = per_token_and_channel(round_job(stack={"statistics_bytes": 64}), Layout())
    assert ascend - plain == pytest.approx((2 * 8 * 4 - 4) * HEADS / HIDDEN, rel=1e-9)
    unfused = [round_job(stack=OLD | {"statistics_bytes": each}) for each in (4, 64)]
    assert per_token_and_channel(unfused[0], Layout()) == per_token_and_channel(unfused[1], Layout())


def test_context_parallelism_splits_tokens(round_job: Callable[..., Job]) -> None:
    kept, _ = per_token_and_channel(round_job(stack=OLD), Layout(context_parallel=4))
    assert kept == pytest.approx((34 + SCORES) / 4, rel=1e-12)


def test_selective_recomputation_drops_the_core(round_job: Callable[..., Job]) -> None:
    # Equation 5 and table 2: 34 / t with sequence parallelism, 10 + 24 / t without.
    job = round_job(stack=OLD)
    together = Layout(tensor_parallel=4, sequence_parallel=True, recompute=Recompute.SELECTIVE)
    apart = Layout(tensor_parallel=4, recompute=Recompute.SELECTIVE)
    assert per_token_and_channel(job, together) == pytest.approx((34 / 4, (34 + SCORES) / 4), rel=1e-12)
    assert per_token_and_channel(job, apart)[0] == pytest.approx(10 + 24 / 4, rel=1e-12)


@pytest.mark.parametrize(
    ("selective", "kept"),
    [
        # 32 and the log-sum-exp of fused attention, less that.
        ((RecomputedModule.ATTENTION_CORE,), 32),
        # Less the outputs of two norms, 2 x 2, and of the activation, 2 x 4.
        ((RecomputedModule.NORMS, RecomputedModule.ACTIVATION), 32 + LOG_SUM_EXP - 4 - 8),
        ((RecomputedModule.NORMS,), 32 + LOG_SUM_EXP - 4),
        # All that the MLP keeps, 2 x 4 before the activation and 2 x 4 behind it.
        ((RecomputedModule.MLP,), 32 + LOG_SUM_EXP - 16),
        ((RecomputedModule.MLP, RecomputedModule.ACTIVATION), 32 + LOG_SUM_EXP - 16),
        # Modules that this layer doesn't have.
        ((RecomputedModule.EXPERTS, RecomputedModule.LATENT_UP_PROJECTION), 32 + LOG_SUM_EXP),
        # The input 2, attention's output 2, and of the products' outputs queries, values and up, 1 + 1 + 4 values.
        ((RecomputedModule.EVERY_OTHER_PRODUCT,), 2 + 2 + 12 + LOG_SUM_EXP),
    ],
)
def test_stacks_mean_different_things_by_selective(
    round_job: Callable[..., Job], selective: tuple[RecomputedModule, ...], kept: float
) -> None:
    job = round_job(stack={"selective_recompute": selective})
    found, whole = per_token_and_channel(job, Layout(recompute=Recompute.SELECTIVE))
    assert found == pytest.approx(kept, rel=1e-12)
    assert whole == pytest.approx(32 + LOG_SUM_EXP, rel=1e-12)


def test_full_recomputation_keeps_the_input(round_job: Callable[..., Job]) -> None:
    # Table 2: 2 s b h, whole on every tensor rank unless the sequence is split.
    job = round_job(stack=OLD)
    full = Layout(tensor_parallel=4, recompute=Recompute.FULL)
    assert per_token_and_channel(job, full)[0] == pytest.approx(2)
    assert per_token_and_channel(job, replace(full, sequence_parallel=True))[0] == pytest.approx(2 / 4)


def test_recomputation_has_the_whole_layer_at_work(round_job: Callable[..., Job]) -> None:
    job = round_job(stack=OLD)
    whole = [per_token_and_channel(job, Layout(recompute=recompute))[1] for recompute in Recompute]
    assert whole == pytest.approx([34 + SCORES] * 3, rel=1e-12)


def test_fused_attention_keeps_no_square(round_job: Callable[..., Job]) -> None:
    # 34 without dropout masks.
    kept, _ = per_token_and_channel(round_job(), Layout())
    assert kept == pytest.approx(32 + LOG_SUM_EXP, rel=1e-12)


def test_scores_without_dropout_are_two_bytes(round_job: Callable[..., Job]) -> None:
    kept, _ = per_token_and_channel(round_job(stack={"fused_attention": False}), Layout())
    assert kept == pytest.approx(32 + 2 * HEADS * LENGTH / HIDDEN, rel=1e-12)


def test_gated_mlp_and_grouped_heads(round_job: Callable[..., Job]) -> None:
    # Norms 8; queries and output 4, keys and values 2 x 2 x 2/8 = 1; gate, up and product 3 x 2 x 3.
    job = round_job(model={"gated_mlp": True, "ffn_hidden": 3072, "kv_heads": 2})
    assert per_token_and_channel(job, Layout())[0] == pytest.approx(8 + 4 + 1 + 18 + LOG_SUM_EXP, rel=1e-12)


def test_experts_keep_each_pair_once(round_job: Callable[..., Job]) -> None:
    # Against the dense layer's 16 for the MLP: 2 pairs a token, each 2 tensors of 512 and its input, two bytes a value:
    # 2 x 2 x (2 x 512 + 1024) / 1024 = 8, and 8 experts' scores of 8 bytes.
    job = round_job(model={"experts": {"experts": 8, "top_k": 2, "ffn_hidden": 512}})
    dense = 32 + LOG_SUM_EXP
    alone, _ = per_token_and_channel(job, Layout())
    assert alone == pytest.approx(dense - 16 + 8 + 64 / HIDDEN, rel=1e-12)
    spread, _ = per_token_and_channel(job, Layout(data_parallel=8, expert_parallel=8))
    assert spread == pytest.approx(alone, rel=1e-12)


MIXTURE = {"experts": {"experts": 8, "top_k": 2, "ffn_hidden": 512, "shared_ffn_hidden": 256}}


@pytest.mark.parametrize(
    ("selective", "dropped"),
    [
        # Two pairs a token of 2 x 512 and an input of 1024, and 2 x 256 of the shared experts, in two bytes; the
        # router's scores.
        ((RecomputedModule.EXPERTS,), 2 * (2 * (2 * 512 + 1024) + 2 * 256) / HIDDEN + 64 / HIDDEN),
        ((RecomputedModule.SHARED_EXPERTS,), 2 * 2 * 256 / HIDDEN),
        ((RecomputedModule.ACTIVATION,), 2 * (2 * 512 + 256) / HIDDEN),
        ((RecomputedModule.ACTIVATION, RecomputedModule.SHARED_EXPERTS), 2 * (2 * 512 + 2 * 256) / HIDDEN),
    ],
)
def test_parts_of_a_mixture_are_recomputed(
    round_job: Callable[..., Job], selective: tuple[RecomputedModule, ...], dropped: float
) -> None:
    job = round_job(model=MIXTURE, stack={"selective_recompute": selective})
    kept, whole = per_token_and_channel(job, Layout(recompute=Recompute.SELECTIVE))
    assert whole - kept == pytest.approx(dropped, rel=1e-12)


def test_latent_attention_may_go_up_again(round_job: Callable[..., Job]) -> None:
    # Queries and keys of 8 heads x (96 + 32), values of 8 x 128: 3 x 1024 values of two bytes.
    latent = {"query_rank": 256, "kv_rank": 128, "nope_head_dim": 96, "rope_head_dim": 32, "value_head_dim": 128}
    selective = {"selective_recompute": (RecomputedModule.LATENT_UP_PROJECTION,)}
    job = round_job(model={"latent_attention": latent}, stack=selective)
    kept, whole = per_token_and_channel(job, Layout(recompute=Recompute.SELECTIVE))
    assert whole - kept == pytest.approx(3 * 2, rel=1e-12)


def test_fp8_products_keep_their_inputs_narrow(round_job: Callable[..., Job]) -> None:
    # Norms' outputs 2 x 1 instead of 2 x 2, the activation's 4 instead of 8; attention's output also for the next
    # product, 1 more.
    narrow = {"narrow_inputs": True}
    wide, _ = per_token_and_channel(round_job(stack=narrow), Layout())
    found, _ = per_token_and_channel(round_job(stack=narrow, precision=Precision.FP8), Layout())
    assert wide - found == pytest.approx(2 + 4 - 1, rel=1e-12)
    without, _ = per_token_and_channel(round_job(precision=Precision.FP8), Layout())
    assert without == pytest.approx(wide, rel=1e-12)


def test_fp32_takes_twice_the_room(round_job: Callable[..., Job]) -> None:
    half, _ = per_token_and_channel(round_job(), Layout())
    found, _ = per_token_and_channel(round_job(precision=Precision.FP32), Layout())
    assert found == pytest.approx(2 * half, rel=1e-12)


@pytest.mark.parametrize(("load", "rows"), [(0.5, 0.5), (1.25, 1.25)])
def test_a_capacity_cuts_or_pads_the_rows_of_experts(round_job: Callable[..., Job], load: float, rows: float) -> None:
    # All that experts keep is 8 + 64 / h of the layer; the router's scores stay.
    model = {"experts": {"experts": 8, "top_k": 2, "ffn_hidden": 512}}
    job = round_job(model=model)
    layer = job.model.layers[0]
    assert isinstance(layer.mlp, Experts)
    loaded = replace(layer, mlp=replace(layer.mlp, load=load))
    table = LayoutTable.of([Layout()])
    even, found = (float(layer_activations(job, each, table).kept[0]) for each in (layer, loaded))
    assert found - even == pytest.approx((rows - 1) * 8 * HIDDEN * LENGTH, rel=1e-9)
