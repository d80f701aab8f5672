"""The files for DeepSpeed: its configuration, and the list of hosts for its own launcher."""

import json
from collections.abc import Mapping

from meshwright.planner.emission.deepspeed.settings import settings
from meshwright.planner.emission.header import header
from meshwright.planner.emission.launch.nodes import nodes_of
from meshwright.planner.emission.launch.program import TORCHRUN, Program
from meshwright.planner.emission.launch.told import plan_variables
from meshwright.planner.emission.shell import comment
from meshwright.planner.emission.target import EmitTarget
from meshwright.planner.plan_schema import Plan

CONFIGURATION, HOSTS = "deepspeed.json", "hostfile"
ORDER = """Hosts in the order of the ranks; put the names of yours here, and start all of them from the first:
deepspeed --hostfile hostfile train.py --deepspeed --deepspeed_config deepspeed.json
run.sh starts one node by torchrun instead."""


def files(plan: Plan) -> Mapping[str, str]:
    """Give the configuration, in which there is no room for comments, and the hosts."""
    nodes = nodes_of(plan)
    hosts = "".join(f"node-{node} slots={nodes.devices}\n" for node in range(nodes.nodes))
    return {
        CONFIGURATION: json.dumps(settings(plan), indent=2) + "\n",
        HOSTS: comment(header(plan, EmitTarget.DEEPSPEED)) + comment(ORDER) + hosts,
    }


def program(plan: Plan) -> Program:
    """Give what a node runs: a script of the user's, with the arguments of deepspeed.add_config_arguments."""
    return Program(
        command=f'{TORCHRUN} "${{TRAIN:-train.py}}" --deepspeed --deepspeed_config "$here/{CONFIGURATION}"',
        environment=plan_variables(plan),
    )
