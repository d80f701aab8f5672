"""The recipe for Megatron-Bridge, which is also what its processes run."""

from collections.abc import Iterator, Mapping
from pprint import pformat
from typing import Any

from meshwright.catalog.model_entry import ModelEntry
from meshwright.planner.emission.header import header
from meshwright.planner.emission.launch.program import TORCHRUN, Program
from meshwright.planner.emission.megatron.environment import environment
from meshwright.planner.emission.megatron_bridge.settings import RECIPES, overlap, precision, settings
from meshwright.planner.emission.shell import comment
from meshwright.planner.emission.target import EmitTarget
from meshwright.planner.plan_schema import Plan

MODULE = "meshwright_plan.py"
YOURS = """Data, tokenizer, learning rate and length aren't the plan's: say them behind run.sh, as in
dataset.data_path=... tokenizer.tokenizer_model=... optimizer.lr=3e-4 train.train_iters=1000."""
IMPORTS = {
    "CommOverlapConfig": "megatron.bridge.training.comm_overlap",
    "ConfigContainer": "megatron.bridge.training.config",
    "forward_step": "megatron.bridge.training.gpt_step",
    "get_mixed_precision_config": "megatron.bridge.training.mixed_precision",
    "pretrain": "megatron.bridge.training.pretrain",
    "process_config_with_overrides": "megatron.bridge.training.utils.omegaconf_utils",
    "vanilla_gpt_pretrain_config": "megatron.bridge.recipes.gpt.vanilla_gpt",
}
LATENT = {"MLAModelProvider": "megatron.bridge.models.mla_provider"}
# Its plain GPT has layers of one kind; this one has those that the model's fields tell.
BLOCKS = {"partial": "functools", "get_gpt_decoder_block_spec": "megatron.core.models.gpt.gpt_layer_specs"}
MAIN = """

if __name__ == "__main__":
    pretrain(process_config_with_overrides(plan(), cli_overrides=sys.argv[1:]), forward_step)
"""
WIDTH = 100


def files(plan: Plan) -> Mapping[str, str]:
    """Give the recipe."""
    top = comment(header(plan, EmitTarget.MEGATRON_BRIDGE)) + comment(YOURS)
    return {
        MODULE: top + "\n".join(_imports(plan.inputs.model.entry)) + "\n\n\n" + "\n".join(_recipe(plan)) + "\n" + MAIN
    }


def program(plan: Plan) -> Program:
    """Give what a node runs: the recipe itself."""
    return Program(command=f'{TORCHRUN} "$here/{MODULE}"', environment=environment(plan))


def _imports(entry: ModelEntry) -> Iterator[str]:
    modules = IMPORTS | (LATENT if entry.latent_attention else {}) | (BLOCKS if _has_blocks(entry) else {})
    yield "import sys"
    yield from (f"from {module} import {name}" for name, module in sorted(modules.items(), key=lambda pair: pair[1]))


def _has_blocks(entry: ModelEntry) -> bool:
    return entry.experts is not None or entry.latent_attention is not None


def _recipe(plan: Plan) -> Iterator[str]:
    entry = plan.inputs.model.entry
    yield "def plan() -> ConfigContainer:"
    yield "    cfg = vanilla_gpt_pretrain_config()"
    if entry.latent_attention is not None:
        yield "    cfg.model = MLAModelProvider()"
    if _has_blocks(entry):
        yield "    cfg.model.transformer_layer_spec = partial(get_gpt_decoder_block_spec, use_transformer_engine=True)"
    recipe = RECIPES[plan.inputs.job.precision]
    yield f"    cfg.mixed_precision = {None if recipe is None else f'get_mixed_precision_config({recipe!r})'}"
    yield "    cfg.comm_overlap = CommOverlapConfig("
    yield from (f"        {name}={value!r}," for name, value in overlap(plan).items())
    yield "    )"
    sections = ({} if recipe is None else {"mixed_precision": precision(plan)}) | settings(plan)
    for section, values in sections.items():
        yield from (f"    cfg.{section}.{name} = {_literal(value)}" for name, value in values.items())
    yield "    return cfg"


def _literal(value: Any) -> str:  # noqa: ANN401 - any literal
    return pformat(value, width=WIDTH, compact=True).replace("\n", "\n    ")
