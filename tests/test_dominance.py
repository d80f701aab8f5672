"""What is left out as dominated, against an evaluation of every layout below it."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from meshwright.catalog.context_method import ContextMethod
from meshwright.catalog.lookup import stack_named
from meshwright.catalog.schedule import Schedule
from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import COLUMNS
from meshwright.costmodels.predict import predict_memory, predict_time
from meshwright.planner.layout.dominance import is_dominated, settings_of
from meshwright.planner.layout.space import space_of, taken

MakeJob = Callable[..., Job]
OTHERS = [name for name in COLUMNS if name not in {"context_method", "ulysses_parallel"}]
EXPERTS = {"experts": 8, "top_k": 2, "ffn_hidden": 1024, "dense_layers": 1}


@pytest.mark.parametrize("experts", [None, EXPERTS], ids=["dense", "mixture"])
@pytest.mark.parametrize("stack", ["megatron-core", "fsdp2", "mindspeed"])
@pytest.mark.parametrize("schedules", [None, tuple(Schedule)], ids=["own schedules", "every schedule"])
def test_each_dominated_layout_has_one_that_is_as_good(
    stack: str, schedules: tuple[Schedule, ...] | None, experts: dict[str, int] | None, toy_job: MakeJob
) -> None:
    entry = stack_named(stack).model_copy(update={"context_methods": tuple(ContextMethod), "partitions": ("uniform",)})
    entry = entry if schedules is None else entry.model_copy(update={"schedules": schedules})
    job = toy_job(16, global_batch=8, layers=4, heads=16, kv_heads=4, sequence_length=4096, experts=experts)
    job = replace(job, stack=entry)
    space = space_of(job)
    rows = space.branches.rows
    some = np.flatnonzero((rows["context_parallel"] > 1) & (rows["micro_batch"] == 1))
    branches = taken(rows, some)
    dominated = is_dominated(job, space.table(branches), settings_of(branches))
    assert 0 < dominated.sum() < len(some)
    twigs = space.twigs(branches)
    leaves = space.leaves(twigs.rows)
    layouts, out = space.table(leaves.rows), dominated[twigs.parent][leaves.parent]
    time_s, memory = predict_time(job, layouts).step_time_s, predict_memory(job, layouts).nvidia_smi_bytes
    kept = defaultdict(list)
    keys = list(zip(*(getattr(layouts, name).tolist() for name in OTHERS), strict=True))
    for row in np.flatnonzero(~out):
        kept[keys[row]].append((time_s[row], memory[row]))
    for row in np.flatnonzero(out):
        assert any(
            time <= time_s[row] * (1 + 1e-12) and peak <= memory[row] * (1 + 1e-12) for time, peak in kept[keys[row]]
        ), layouts.row(int(row))
