"""PyTorch's schedules run passes in the order that the ledger says."""

from collections.abc import Iterator, Mapping

import pytest
from small_models import small_model, small_workload
from torch.distributed import pipelining
from torch.distributed.pipelining import schedules

from meshwright.catalog.schedule import Schedule
from meshwright.planner.ledger import Workload
from meshwright.planner.ledger.passes import Kind, Pass, passes_of

CLASSES: Mapping[Schedule, type] = {
    Schedule.INTERLEAVED: pipelining.ScheduleInterleaved1F1B,
    Schedule.ZERO_BUBBLE_H1: pipelining.ScheduleInterleavedZeroBubble,
    Schedule.ZERO_BUBBLE_V: pipelining.ScheduleZBVZeroBubble,
    Schedule.DUAL_PIPE_V: schedules.ScheduleDualPipeV,
}
KINDS = {
    schedules.FORWARD: Kind.FORWARD,
    schedules.FULL_BACKWARD: Kind.BACKWARD,
    schedules.BACKWARD_INPUT: Kind.INPUTS,
    schedules.BACKWARD_WEIGHT: Kind.WEIGHTS,
}


def order(workload: Workload, stage: int) -> Iterator[Pass]:
    """Give what PyTorch would have a stage run, without the processes and modules that a schedule asks for."""
    layout, count = workload.layout, workload.micro_batches
    schedule = object.__new__(CLASSES[layout.schedule])
    schedule.pp_group_size, schedule.n_local_stages = layout.pipeline_parallel, layout.virtual_pipeline
    schedule._n_microbatches, schedule.num_stages = count, workload.last_chunk + 1
    schedule.microbatches_per_round = count // max(1, count // layout.pipeline_parallel)
    held = [chunk.index for chunk in workload.chunks(stage)]
    for action in schedule._calculate_single_rank_operations(stage):
        for each in () if action is None else action.sub_actions or (action,):
            yield KINDS[each.computation_type], held.index(each.stage_index)


def workloads(schedule: Schedule) -> Iterator[Workload]:
    folded = schedule in (Schedule.ZERO_BUBBLE_V, Schedule.DUAL_PIPE_V)
    for stages in (2, 3, 4, 5):
        counts = range(2 * stages if schedule is Schedule.DUAL_PIPE_V else 1, 16)
        for chunks in (2,) if folded else (1, 2, 3):
            for count in counts:
                if folded or count % max(1, count // stages) == 0:
                    yield small_workload(
                        small_model(layers=stages * chunks),
                        micro_batches=count,
                        pipeline_parallel=stages,
                        virtual_pipeline=chunks,
                        schedule=schedule,
                    )


@pytest.mark.parametrize("schedule", CLASSES)
def test_passes_run_in_pytorchs_order(schedule: Schedule) -> None:
    compared = 0
    for workload in workloads(schedule):
        for stage in range(workload.layout.pipeline_parallel):
            assert list(passes_of(workload, stage)) == list(order(workload, stage))
            compared += 1
    assert compared > 100
