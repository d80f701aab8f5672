"""What may be planned for a target can be emitted for it: no layout of its space meets an obstacle of its emitter."""

import numpy as np
import pytest

from meshwright.costmodels.layout import Layout
from meshwright.planner import inputs_of
from meshwright.planner.emission.emitters import EMITTERS
from meshwright.planner.emission.target import EmitTarget
from meshwright.planner.given_layout import plan_of_layout
from meshwright.planner.job_inputs import job_of
from meshwright.planner.layout.least_recomputed import least_recomputed
from meshwright.planner.layout.space import space_of, taken
from meshwright.planner.plan_schema import Inputs
from meshwright.planner.targets import Target, limits_under

SAMPLED = 40
ENOUGH_BYTES = 10**18
JOBS = {
    "dense": ("llama-3.1-8b", "dgx-h100:16", 8192),
    "mixture": ("qwen3-30b-a3b", "dgx-h100:16", 4096),
    "odd": ("llama-2-7b", "selene:6", 3072),
    "huawei": ("llama-3.1-8b", "atlas-900-a2:16", 4096),
}
CASES = [
    *((job, Target.MEGATRON_CORE, EmitTarget.MEGATRON) for job in ("dense", "mixture", "odd")),
    *((job, Target.TORCHTITAN, EmitTarget.TORCHTITAN) for job in ("dense", "mixture", "odd")),
    *((job, Target.DEEPSPEED, EmitTarget.DEEPSPEED) for job in ("dense", "mixture", "odd")),
    *((job, Target.FSDP2, EmitTarget.ACCELERATE) for job in ("dense", "mixture", "odd")),
    ("huawei", Target.MINDSPEED, EmitTarget.MEGATRON_0_12),
]


def sampled(inputs: Inputs) -> list[Layout]:
    """Give layouts of the space of a plan, spread evenly over it."""
    job = job_of(inputs)
    space = space_of(job, limits_under(inputs.job.target, inputs.job.limits))
    leaves = space.leaves(space.twigs(space.branches.rows).rows).rows
    count = len(leaves["tensor_parallel"])
    rows = taken(leaves, np.unique(np.linspace(0, count - 1, SAMPLED).round().astype(np.int64)))
    table = least_recomputed(job, space.table(rows), limit_bytes=ENOUGH_BYTES, limits=space.limits)
    return [table.row(index) for index in range(len(table))]


@pytest.mark.parametrize(("job", "target", "emitter"), CASES)
def test_what_is_planned_for_a_target_is_emitted_for_it(job: str, target: Target, emitter: EmitTarget) -> None:
    model, cluster, sequence_length = JOBS[job]
    inputs = inputs_of(
        model,
        cluster,
        target=target,
        precision="bf16",
        global_batch=48,
        sequence_length=sequence_length,
        objective="time",
        memory_headroom=0.1,
        top=0,
    )
    layouts = sampled(inputs)
    assert len(layouts) > 10
    for layout in layouts:
        plan = plan_of_layout(inputs, layout, must_fit=False)
        found = [obstacle.feature for obstacle in EMITTERS[emitter].obstacles(plan)]
        assert not [feature for feature in found if not feature.startswith("has no model of the dimensions")], layout
