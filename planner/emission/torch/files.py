"""What starts the reference launcher, which reads the plan that is emitted for every target."""

import json
from collections.abc import Mapping
from dataclasses import replace

from meshwright.catalog.precision import Precision
from meshwright.planner.emission.launch.program import TORCHRUN, Program
from meshwright.planner.emission.torch.obstacles import workload_obstacles
from meshwright.planner.ledger.plan_workload import plan_workload
from meshwright.planner.ledger.workload import BF16_BYTES
from meshwright.planner.plan_schema import Plan

OFFLOAD = "offload.json"


def files(plan: Plan) -> Mapping[str, str]:
    """Give no files, as the plan is all that the launcher reads; what is offloaded as data, for loops of one's own."""
    return {} if plan.offload is None else {OFFLOAD: json.dumps(plan.offload.settings, indent=1) + "\n"}


def program(plan: Plan) -> Program:
    """Give the call of the launcher under torchrun; in bf16 where the plan is and the launcher can cast."""
    cast = replace(plan_workload(plan), element_bytes=BF16_BYTES)
    halved = plan.inputs.job.precision is Precision.BF16 and not any(workload_obstacles(cast))
    option = " --precision bf16" if halved else ""
    return Program(command=f'{TORCHRUN} -m meshwright.cli.run "$here/plan.yaml" --model plan{option}')
