"""Copies into and out of the buffers of collectives, by hand on round machines."""

from collections.abc import Callable

import numpy as np
import pytest

from meshwright.catalog.precision import Precision
from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import Layout, LayoutTable
from meshwright.costmodels.packing import packing_s
from meshwright.costmodels.state import StageParameters

MILLION = 1e6
MICRO_BATCHES = 4
BOTH = {"packs_gradients": True, "unpacks_parameters": True}


def copied_bytes(job: Job, layout: Layout, *, dense: float = MILLION, experts: float = 0.0) -> tuple[float, float]:
    """Give the bytes of a step that packing gradients, and unpacking parameters, moves in memory."""
    parameters = StageParameters(dense=np.array([[dense]]), experts=np.array([[experts]]))
    found = packing_s(job, LayoutTable.of([layout]), parameters, total=np.array([float(MICRO_BATCHES)]))
    device = job.cluster.device
    rate = device.calibration.streaming * device.memory_bandwidth_bytes_per_s
    return float(found[0][0, 0]) * rate, float(found[1][0, 0]) * rate


@pytest.mark.parametrize(
    ("zero_stage", "packs", "unpacks"),
    [
        (0, 0, 0),  # nothing is sharded
        (1, 1, 1),  # once a step
        (2, MICRO_BATCHES, 1),  # gradients after each micro-batch
        (3, MICRO_BATCHES, 2 * MICRO_BATCHES),  # parameters before each pass
    ],
)
def test_copies_are_as_many_as_messages(
    round_job: Callable[..., Job], zero_stage: int, packs: int, unpacks: int
) -> None:
    job = round_job(stack=BOTH | {"reduce_bytes": 4})
    layout = Layout(data_parallel=8, zero_stage=zero_stage, zero_shard=8 if zero_stage else 1)
    packed, unpacked = copied_bytes(job, layout)
    # Of a gradient 2 bytes are read and 4 written, of a parameter 2 and 2.
    assert packed == pytest.approx(packs * 6 * MILLION)
    assert unpacked == pytest.approx(unpacks * 4 * MILLION)


def test_hybrid_shards_add_up_their_copies_where_they_lie(round_job: Callable[..., Job]) -> None:
    job = round_job(stack=BOTH)
    whole, hybrid = (Layout(data_parallel=8, zero_stage=3, zero_shard=shard) for shard in (8, 4))
    assert copied_bytes(job, hybrid) == copied_bytes(job, whole)


def test_fp32_training_copies_4_bytes_a_value(round_job: Callable[..., Job]) -> None:
    job = round_job(stack=BOTH | {"reduce_bytes": 2, "gather_bytes": 2}, precision=Precision.FP32)
    packed, unpacked = copied_bytes(job, Layout(data_parallel=8, zero_stage=3, zero_shard=8))
    assert packed == pytest.approx(MICRO_BATCHES * (4 + 4) * MILLION)
    assert unpacked == pytest.approx(2 * MICRO_BATCHES * (4 + 4) * MILLION)


def test_who_keeps_them_in_the_buffers_copies_nothing(round_job: Callable[..., Job]) -> None:
    layout = Layout(data_parallel=8, zero_stage=3, zero_shard=8)
    assert copied_bytes(round_job(), layout) == (0, 0)
    packed, unpacked = copied_bytes(round_job(stack={"packs_gradients": True}), layout)
    assert packed > unpacked == 0


def test_parameters_kept_for_the_backward_pass_are_unpacked_once(round_job: Callable[..., Job]) -> None:
    job = round_job(stack=BOTH)
    kept = Layout(data_parallel=8, zero_stage=3, zero_shard=8, backward_shard=1)
    assert copied_bytes(job, kept)[1] == pytest.approx(MICRO_BATCHES * 4 * MILLION)


def test_experts_on_all_ranks_have_no_copies_to_gather(round_job: Callable[..., Job]) -> None:
    job = round_job(stack=BOTH)
    layout = Layout(data_parallel=8, expert_parallel=8, zero_stage=3, zero_shard=8)
    assert copied_bytes(job, layout, dense=0.0, experts=MILLION) == (0, 0)
