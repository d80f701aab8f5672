"""What the optimizer's step works on where parameters are halves of their master weights."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from meshwright.catalog.precision import Precision
from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import Layout, LayoutTable
from meshwright.costmodels.predict import predict_memory
from meshwright.costmodels.split_weights import weaving_bytes
from meshwright.costmodels.stage_table import stage_table

HIDDEN, VOCAB = 1024, 51_200
HALVES = {"master_bytes": 2}
BLOCK = 4 * 4096 * 4096
EXPERTS: dict[str, Any] = {"experts": 8, "top_k": 2, "ffn_hidden": 4096}


def weaving(job: Job, layout: Layout) -> list[float]:
    """Give the bytes of each stage, the first before the last."""
    table = LayoutTable.of([layout])
    stages = stage_table(job.model, table)
    order = np.argsort(stages.index[0])
    return [float(weaving_bytes(job, table, stages)[0, stage]) for stage in order if stages.multiplicity[0, stage]]


def test_the_largest_parameter_of_a_stage_is_copied_whole(round_job: Callable[..., Job]) -> None:
    # The word table on the first and the last of four stages, the MLP's first matrix, of 4,096 columns, between them.
    job = round_job(stack=HALVES, model={"vocab": VOCAB})
    found = weaving(job, Layout(pipeline_parallel=4))
    assert (found[0], found[-1]) == (4 * VOCAB * HIDDEN, 4 * VOCAB * HIDDEN)
    assert set(found[1:-1]) == {4 * 4096 * HIDDEN}


def test_tensor_ranks_copy_their_share(round_job: Callable[..., Job]) -> None:
    job = round_job(stack=HALVES, model={"vocab": VOCAB})
    assert weaving(job, Layout(tensor_parallel=4)) == [VOCAB * HIDDEN]


def test_shards_are_woven_in_blocks(round_job: Callable[..., Job]) -> None:
    job = round_job(stack=HALVES, model={"vocab": VOCAB})
    assert weaving(job, Layout(data_parallel=2, zero_stage=1, zero_shard=2)) == [3 * BLOCK]
    assert weaving(job, Layout(data_parallel=2)) == [4 * VOCAB * HIDDEN]


def test_the_experts_of_a_rank_are_one_parameter(round_job: Callable[..., Job]) -> None:
    # Four experts on each of two ranks, of which none has a copy, so that only what isn't an expert is sharded.
    job = round_job(stack=HALVES, model={"vocab": VOCAB, "experts": EXPERTS, "gated_mlp": True})
    found = weaving(job, Layout(data_parallel=2, expert_parallel=2, zero_stage=1, zero_shard=2))
    assert found == [max(4 * 4 * 2 * 4096 * HIDDEN, 3 * BLOCK)]


@pytest.mark.parametrize("master_bytes", [0, 4])
def test_whole_master_weights_need_no_copies(round_job: Callable[..., Job], master_bytes: int) -> None:
    assert weaving(round_job(stack={"master_bytes": master_bytes}), Layout()) == [0.0]
    assert weaving(round_job(stack=HALVES, precision=Precision.FP32), Layout()) == [0.0]


def test_only_the_step_needs_them(round_job: Callable[..., Job]) -> None:
    # Ten tokens: the step is the peak, and what it needs counts; ten thousand: the backward pass is.
    workspace = []
    for length in (10, 10_000):
        job = round_job(stack=HALVES, model={"vocab": 128, "layers": 1}, sequence_length=length)
        predicted = predict_memory(job, LayoutTable.of([Layout()]))
        workspace.append(float(predicted.breakdown["workspace"][0]))
    assert workspace == [1 + 4 * 4096 * HIDDEN, 1]
