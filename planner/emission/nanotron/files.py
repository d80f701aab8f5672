"""The file for Nanotron, and what starts its training script with it."""

from collections.abc import Mapping

import yaml

from meshwright.planner.emission.header import header
from meshwright.planner.emission.launch.program import TORCHRUN, Program
from meshwright.planner.emission.nanotron.settings import settings
from meshwright.planner.emission.shell import comment
from meshwright.planner.emission.target import EmitTarget
from meshwright.planner.plan_schema import Plan

CONFIGURATION = "nanotron.yaml"
YOURS = """Data, tokenizer, checkpoints, length and learning rate aren't the plan's: it trains on synthetic tokens until
data_stages, checkpoints, tokens.train_steps and optimizer say otherwise."""


def files(plan: Plan) -> Mapping[str, str]:
    """Give the configuration."""
    top = comment(header(plan, EmitTarget.NANOTRON)) + comment(YOURS)
    return {CONFIGURATION: top + yaml.safe_dump(settings(plan), sort_keys=False, width=120)}


def program(_: Plan) -> Program:
    """Give what a node runs: its run_train.py, in the environment that its examples set."""
    return Program(
        command=f'{TORCHRUN} "${{TRAIN:-run_train.py}}" --config-file "$here/{CONFIGURATION}"',
        environment={"CUDA_DEVICE_MAX_CONNECTIONS": "1"},
    )
