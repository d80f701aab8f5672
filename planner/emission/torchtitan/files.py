"""The module for torchtitan, and what starts its trainer with it."""

from collections.abc import Iterator, Mapping
from pprint import pformat
from textwrap import indent
from typing import Any

from meshwright.costmodels.layout import Recompute
from meshwright.planner.emission.header import header
from meshwright.planner.emission.launch.program import TORCHRUN, Program
from meshwright.planner.emission.shell import comment
from meshwright.planner.emission.target import EmitTarget
from meshwright.planner.emission.torchtitan.flavors import Flavor, flavor_of
from meshwright.planner.emission.torchtitan.settings import (
    converters,
    is_compiled,
    parallelism,
    recomputed_layers,
    training,
)
from meshwright.planner.plan_schema import Plan

MODULE, FUNCTION = "meshwright_plan", "plan"
POLICIES = {Recompute.FULL: "FullAC", Recompute.SELECTIVE: "SelectiveAC"}

CHOSEN_LAYERS = '''

class ChosenLayersAC({policy}):
    """Recomputes some layers only."""

    @dataclass(kw_only=True, slots=True)
    class Config({policy}.Config):
        layers: tuple[int, ...] = ()

    def _wrap_block(self, module, *, base_fqn=None):
        if int(base_fqn.rsplit(".", 1)[1]) not in self.config.layers:
            return module
        return {policy}._wrap_block(self, module, base_fqn=base_fqn)
'''


def files(plan: Plan) -> Mapping[str, str]:
    """Give the module."""
    return {f"{MODULE}.py": module_text(plan)}


def program(_: Plan) -> Program:
    """Give what a node runs; what the plan doesn't say can be set behind run.sh, as in --training.steps 1000."""
    return Program(
        command=f"{TORCHRUN} -m torchtitan.train --module {MODULE} --config {FUNCTION}",
        environment={"PYTORCH_ALLOC_CONF": "expandable_segments:True"},
        imports=True,
    )


def module_text(plan: Plan) -> str:
    """Give the module's text. Raises no error for plans without obstacles."""
    flavor = flavor_of(plan.inputs.model.entry)
    if flavor is None:
        raise ValueError("plans without obstacles have a flavour")
    policy = POLICIES.get(plan.layout.recompute)
    chosen = recomputed_layers(plan)
    return (
        comment(header(plan, EmitTarget.TORCHTITAN))
        + "\n".join(_imports(plan, flavor, policy, some=policy is not None and chosen is not None))
        + ("" if policy is None or chosen is None else CHOSEN_LAYERS.format(policy=policy))
        + _function(plan, flavor, _checkpointing(policy, chosen))
    )


def _imports(plan: Plan, flavor: Flavor, policy: str | None, *, some: bool) -> Iterator[str]:
    yield "from dataclasses import dataclass, replace" if some else "from dataclasses import replace"
    yield ""
    narrow = converters(plan)
    if narrow:
        yield f"from torchtitan.components.quantization import {', '.join(sorted(narrow))}"
    yield "from torchtitan.config import CompileConfig, ParallelismConfig"
    if policy is not None:
        yield f"from torchtitan.distributed.activation_checkpoint import {policy}"
    yield f"from torchtitan.models.{flavor.family} import model_registry"
    yield f"from torchtitan.models.{flavor.family}.config_registry import {flavor.config}"
    yield "from torchtitan.trainer import Trainer"
    yield ""


def _checkpointing(policy: str | None, chosen: tuple[int, ...] | None) -> str:
    if policy is None:
        return "None"
    return f"{policy}.Config()" if chosen is None else f"ChosenLayersAC.Config(layers={chosen!r})"


def _function(plan: Plan, flavor: Flavor, checkpointing: str) -> str:
    return (
        f"\n\ndef {FUNCTION}() -> Trainer.Config:\n"
        f"    base = {flavor.config}()\n"
        "    return replace(\n"
        "        base,\n"
        f"        model_spec=model_registry({flavor.name!r}{_converters(plan)}),\n"
        f"        hf_assets_path={flavor.assets!r},\n"
        f"        training=replace(\n            base.training,\n{_keywords(training(plan))}        ),\n"
        f"        parallelism=ParallelismConfig(\n{_keywords(parallelism(plan))}        ),\n"
        f"        activation_checkpoint={checkpointing},\n"
        f"        compile=CompileConfig(enable={is_compiled(plan)}),\n"
        "    )\n"
    )


def _converters(plan: Plan) -> str:
    calls = [
        f"{name}.Config({', '.join(f'{field}={value!r}' for field, value in given.items())})"
        for name, given in converters(plan).items()
    ]
    if not calls:
        return ""
    return ", converters=[\n" + "".join(f"            {call},\n" for call in calls) + "        ]"


def _keywords(values: Mapping[str, Any]) -> str:
    lines = (f"{name}={pformat(value, width=96, compact=True)},\n" for name, value in values.items())
    return "".join(indent(line, " " * 12) for line in lines)
