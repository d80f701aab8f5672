"""The files for Accelerate: its configuration, which says nothing of batches; those are told by the environment."""

from collections.abc import Mapping

import yaml

from meshwright.planner.emission.accelerate.settings import settings
from meshwright.planner.emission.header import header
from meshwright.planner.emission.launch.program import Program
from meshwright.planner.emission.launch.told import micro_batches, plan_variables
from meshwright.planner.emission.shell import comment
from meshwright.planner.emission.target import EmitTarget
from meshwright.planner.plan_schema import Plan

CONFIGURATION = "accelerate.yaml"
BATCH = """The batch isn't Accelerate's to say: the script finds it in PLAN_MICRO_BATCH (sequences of a micro-batch) and
PLAN_SEQUENCE_LENGTH; Accelerator() reads ACCELERATE_GRADIENT_ACCUMULATION_STEPS itself. run.sh sets them."""


def files(plan: Plan) -> Mapping[str, str]:
    """Give the configuration."""
    top = comment(header(plan, EmitTarget.ACCELERATE)) + comment(BATCH)
    return {CONFIGURATION: top + yaml.safe_dump(settings(plan), sort_keys=False)}


def program(plan: Plan) -> Program:
    """Give what a node runs: a script of the user's, with what the configuration can't know of the node."""
    return Program(
        command=(
            f'accelerate launch --config_file "$here/{CONFIGURATION}" --machine_rank "$NODE_RANK" '
            '--main_process_ip "$MASTER_ADDR" --main_process_port "$MASTER_PORT" "${TRAIN:-train.py}"'
        ),
        environment={
            **plan_variables(plan),
            "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": str(micro_batches(plan)),
        },
    )
