"""What TorchTitan's selective recomputation keeps and repeats, product by product, by hand on round machines."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from meshwright.catalog.stack_entry import RecomputedModule
from meshwright.costmodels.every_other_product import kept_outputs, repeated_flop_share
from meshwright.costmodels.job import Job
from meshwright.costmodels.layer_time import Cause, layer_time
from meshwright.costmodels.layer_work import mlp_products
from meshwright.costmodels.layout import Layout, LayoutTable, Recompute

# Llama 3.1 8B: 4,096 wide, 8 key heads of 128, an MLP of 14,336.
LLAMA: dict[str, Any] = {"hidden": 4096, "heads": 32, "kv_heads": 8, "ffn_hidden": 14336, "gated_mlp": True}
STACK: dict[str, Any] = {"selective_recompute": (RecomputedModule.EVERY_OTHER_PRODUCT,)}
ALL = 4096 + 1024 + 1024 + 4096 + 3 * 14336
TENSOR = Layout(tensor_parallel=4, sequence_parallel=True, recompute=Recompute.SELECTIVE)
TOKENS = 1000


@pytest.mark.parametrize("compiled", [False, True])
def test_keys_output_and_gated_values_are_made_again(round_job: Callable[..., Job], *, compiled: bool) -> None:
    job = round_job(model=LLAMA, stack=STACK | {"compiled": compiled})
    table = LayoutTable.of([Layout()])
    share = repeated_flop_share(job, job.model.layers[0], table)
    assert share == pytest.approx((1024 + 4096 + 14336) / ALL)
    # Queries, values, the gate, and of the last product what only operators keep.
    values = 4096 + 1024 + 14336 + (0 if compiled else 4096)
    assert kept_outputs(job, job.model.layers[0], table) == pytest.approx(TOKENS * values)


@pytest.mark.parametrize("compiled", [False, True])
def test_sums_of_tensor_ranks_are_kept(round_job: Callable[..., Job], *, compiled: bool) -> None:
    job = round_job(model=LLAMA, stack=STACK | {"compiled": compiled})
    table = LayoutTable.of([TENSOR])
    share = repeated_flop_share(job, job.model.layers[0], table)
    # Attention's output needn't be made again where its sum was kept; operators don't see that.
    assert share == pytest.approx((1024 + (0 if compiled else 4096) + 14336) / ALL)
    products = 4096 + 1024 + 14336
    # A rank has a quarter of the columns, of the last product all; of a sum it has a quarter of the rows.
    values = products / 4 + (4096 / 4 if compiled else 4096 + 2 * 4096 / 4)
    assert kept_outputs(job, job.model.layers[0], table) == pytest.approx(TOKENS * values)


def test_tensor_ranks_gather_again(round_job: Callable[..., Job]) -> None:
    job = round_job(model=LLAMA, stack=STACK)
    gathers = layer_time(job, job.model.layers[0], LayoutTable.of([TENSOR]))
    assert gathers.recompute[Cause.TENSOR] == pytest.approx(gathers.forward[Cause.TENSOR] / 2)
    # Without shards of the sequence, attention's sum is what the second norm reads.
    whole = LayoutTable.of([Layout(tensor_parallel=4, recompute=Recompute.SELECTIVE)])
    sums = layer_time(job, job.model.layers[0], whole)
    assert sums.recompute[Cause.TENSOR] == pytest.approx(sums.forward[Cause.TENSOR] / 2)
    alone = layer_time(job, job.model.layers[0], LayoutTable.of([Layout(recompute=Recompute.SELECTIVE)]))
    assert alone.recompute[Cause.TENSOR] == 0.0


def test_half_of_the_experts_is_made_again(round_job: Callable[..., Job]) -> None:
    experts = {"experts": 8, "top_k": 2, "ffn_hidden": 512}
    job = round_job(model={"experts": experts}, stack=STACK)
    layer, table = job.model.layers[0], LayoutTable.of([Layout()])
    of_experts = float(np.sum([product.flop for product in mlp_products(job, layer.mlp, table)]))
    # Four products of 1,024 x 1,024, of which keys and output are the second and the fourth.
    one = 2 * TOKENS * 1024 * 1024
    assert repeated_flop_share(job, layer, table) == pytest.approx((2 * one + of_experts / 2) / (4 * one + of_experts))
