"""The files for Megatron-LM core 0.12: arguments in two forms, and what starts pretrain_gpt.py with them."""

from collections.abc import Mapping

from meshwright.planner.emission.launch.program import Program
from meshwright.planner.emission.megatron.files import argument_files, argument_program
from meshwright.planner.emission.megatron_0_12.environment import environment
from meshwright.planner.emission.megatron_0_12.settings import arguments
from meshwright.planner.emission.target import EmitTarget
from meshwright.planner.plan_schema import Plan


def files(plan: Plan) -> Mapping[str, str]:
    """Give the arguments as a script and as a recipe."""
    return argument_files(plan, EmitTarget.MEGATRON_0_12, arguments(plan), environment(plan))


def program(plan: Plan) -> Program:
    """Give what a node runs; data, tokenizer, learning rate and length are the user's, behind run.sh."""
    return argument_program(environment(plan))
