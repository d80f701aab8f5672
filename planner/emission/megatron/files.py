"""The files for Megatron-LM: arguments as a bash array and as a recipe, and what starts pretrain_gpt.py with them."""

from collections.abc import Mapping

import yaml

from meshwright.planner.emission.header import header
from meshwright.planner.emission.launch.program import TORCHRUN, Program
from meshwright.planner.emission.megatron.arguments import Arguments, document, words
from meshwright.planner.emission.megatron.environment import environment
from meshwright.planner.emission.megatron.layout_arguments import layout_arguments
from meshwright.planner.emission.megatron.model_arguments import model_arguments
from meshwright.planner.emission.megatron.training_arguments import training_arguments
from meshwright.planner.emission.shell import array, comment
from meshwright.planner.emission.target import EmitTarget
from meshwright.planner.plan_schema import Plan

SCRIPT, RECIPE = "arguments.sh", "arguments.yaml"


def arguments(plan: Plan) -> Arguments:
    """Give all arguments of a plan, those for the model first."""
    offloaded = {} if plan.offload is None else plan.offload.settings
    more: Arguments = {name: tuple(value) if isinstance(value, list) else value for name, value in offloaded.items()}
    return {**model_arguments(plan.inputs), **layout_arguments(plan), **training_arguments(plan), **more}


def files(plan: Plan) -> Mapping[str, str]:
    """Give the arguments in their two forms."""
    return argument_files(plan, EmitTarget.MEGATRON, arguments(plan), environment(plan))


def argument_files(
    plan: Plan, target: EmitTarget, given: Arguments, variables: Mapping[str, str | None]
) -> dict[str, str]:
    """Give arguments as a script to source, and as a recipe of Megatron-LM's own tests (ENV_VARS, MODEL_ARGS)."""
    top = comment(header(plan, target))
    recipe = {"ENV_VARS": {name: value for name, value in variables.items() if value}, "MODEL_ARGS": document(given)}
    return {
        SCRIPT: top + array("MEGATRON_ARGS", words(given)) + "\n",
        RECIPE: top + yaml.safe_dump(recipe, sort_keys=False, width=120),
    }


def program(plan: Plan) -> Program:
    """Give what a node runs; data, tokenizer, learning rate and length are the user's, behind run.sh."""
    return argument_program(environment(plan))


def argument_program(variables: Mapping[str, str | None]) -> Program:
    """Give the call of pretrain_gpt.py under torchrun with the script's arguments."""
    return Program(
        command=f'{TORCHRUN} "${{PRETRAIN:-pretrain_gpt.py}}" "${{MEGATRON_ARGS[@]}}"',
        environment=variables,
        sources=(SCRIPT,),
    )
