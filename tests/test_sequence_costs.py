"""What a group of ranks takes for its sequences, against the cost model of a step."""

from dataclasses import replace

import numpy as np
import pytest

from meshwright.catalog.lookup import find_cluster, find_model, stack_named
from meshwright.catalog.precision import Precision
from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import Layout, LayoutTable
from meshwright.costmodels.predict import predict_time
from meshwright.costmodels.transformer import transformer_of
from meshwright.hardware.cluster import cluster_of
from meshwright.planner.sequences.cost_table import group_costs
from meshwright.planner.sequences.method import Method

LENGTH = 4096


def sharded_job(*, copies: bool, micro_batches: int = 1) -> Job:
    return Job(
        model=transformer_of(find_model("llama-3.1-8b")),
        cluster=cluster_of(find_cluster("dgx-h100:16")),
        stack=stack_named("fsdp2").model_copy(update={"packs_gradients": copies, "unpacks_parameters": copies}),
        precision=Precision.BF16,
        global_batch=16 * micro_batches,
        sequence_length=LENGTH,
    )


def test_each_micro_batch_of_sharded_ranks_copies_what_it_exchanges() -> None:
    layout = Layout(data_parallel=16, zero_stage=3, zero_shard=16)

    def group_s(job: Job) -> float:
        costs = group_costs(job, layout, degrees=np.array([1]), method=Method.RING, memory_bytes=7e10)
        lengths = np.array([LENGTH])
        return float(costs.group_s(np.array([0]), costs.work_s(lengths), lengths.astype(float))[0])

    def step_s(*, copies: bool, micro_batches: int) -> float:
        table = LayoutTable.of([replace(layout, micro_batch=1)])
        return float(predict_time(sharded_job(copies=copies, micro_batches=micro_batches), table).step_time_s[0])

    copied_s = group_s(sharded_job(copies=True)) - group_s(sharded_job(copies=False))
    further_s = [
        step_s(copies=copies, micro_batches=4) - step_s(copies=copies, micro_batches=3) for copies in (True, False)
    ]
    assert copied_s == pytest.approx(further_s[0] - further_s[1], rel=1e-6)
    assert copied_s > 0.03
