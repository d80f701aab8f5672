"""Megatron-Bridge's own validation over emitted recipes where MEGATRON_BRIDGE names a checkout with its submodules.

Its model is that of Megatron-LM, so that what it refuses is what that one's core refuses; the lists of fields, which
need no checkout, are held against in tests/test_emit_megatron_bridge.py.
"""

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from emitted_plans import PLANS, plan_named
from listed_fields import complaints, listed
from recipe_reading import read_recipe

from meshwright.planner import emit
from meshwright.planner.emission.megatron.environment import environment

KNOWN = listed("megatron_bridge", "0.6.2")
# By name: the plan, a line of its recipe and what takes its place; the list of fields shows the first ones too.
LISTED: dict[str, tuple[str, str, str]] = {
    "unknown field": ("dense-3d", "cfg.model.hidden_size", "cfg.model.hidden"),
    "degree of a wrong type": (
        "dense-3d",
        "pipeline_model_parallel_size = 8",
        "pipeline_model_parallel_size = 'eight'",
    ),
    "unknown module": ("dense-3d", "['core_attn']", "['attention']"),
}
BREAKS: dict[str, tuple[str, str, str]] = {
    "degree that doesn't multiply": ("dense-3d", "tensor_model_parallel_size = 8", "tensor_model_parallel_size = 7"),
    "layers lost in a layout": ("uneven", "'Et*7|", "'Et*6|"),
    "heads that can't be shared": ("gqa-tensor", "num_attention_heads = 64", "num_attention_heads = 63"),
    "ranks for experts that aren't there": ("moe", "num_moe_experts = 8", "num_moe_experts = None"),
    "sizes that don't multiply": ("hybrid-context", "= [8, 2]", "= [8, 4]"),
    "sequences of two lengths": ("fsdp", "cfg.dataset.seq_length = 8192", "cfg.dataset.seq_length = 4096"),
    "checkpoints that FSDP hasn't": ("fsdp", "'fsdp_dtensor'", "'torch_dist'"),
    "recomputation without a number": ("gqa-tensor", "recompute_num_layers = 70", "recompute_num_layers = None"),
}
ALL = LISTED | BREAKS
CHECKOUT = os.environ.get("MEGATRON_BRIDGE", "")


@cache
def recipe_of(name: str) -> str:
    return emit(plan_named(name), "megatron-bridge").files["meshwright_plan.py"]


def broken_recipe(broken: str) -> str:
    name, line, instead = ALL[broken]
    assert recipe_of(name).count(line) >= 1
    return recipe_of(name).replace(line, instead)


def case_of(name: str, recipe: str) -> dict[str, Any]:
    plan = plan_named(name)
    variables = {key: value for key, value in environment(plan).items() if value is not None}
    overrides = ["train.train_iters=1000", "optimizer.lr=1e-4"]
    return {"world": plan.mesh.devices, "environment": variables, "recipe": recipe, "overrides": overrides}


@cache
def by_validation() -> dict[str, dict[str, Any]]:
    """Give the answers of the validation, by name of plan or break."""
    cases = {name: case_of(name, recipe_of(name)) for name in PLANS}
    cases |= {broken: case_of(ALL[broken][0], broken_recipe(broken)) for broken in ALL}
    run = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "bridge_parser.py"), CHECKOUT],
        input=json.dumps(list(cases.values())),
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(zip(cases, map(json.loads, run.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("name", PLANS)
def test_it_understands_what_the_plan_says(name: str) -> None:
    if not CHECKOUT:
        assert list(complaints(KNOWN, read_recipe(recipe_of(name)))) == []
        return
    understood, plan = by_validation()[name], plan_named(name)
    layout, job, stack = plan.layout.layout(), plan.inputs.job, plan.inputs.stack.entry
    assert "refused" not in understood, understood
    assert understood["tensor_model_parallel_size"] == layout.tensor_parallel
    assert understood["sequence_parallel"] is (layout.sequence_parallel and layout.tensor_parallel > 1)
    assert understood["pipeline_model_parallel_size"] == layout.pipeline_parallel
    assert (understood["virtual_pipeline_model_parallel_size"] or 1) == layout.virtual_pipeline
    assert understood["context_parallel_size"] == layout.context_parallel
    assert understood["data_parallel_size"] == layout.data_parallel
    assert understood["expert_model_parallel_size"] == layout.expert_parallel
    assert (understood["micro_batch_size"], understood["global_batch_size"]) == (layout.micro_batch, job.global_batch)
    assert understood["use_distributed_optimizer"] is understood["optimizer"] is (layout.zero_stage > 0)
    assert understood["use_megatron_fsdp"] is (layout.zero_stage > 1)
    ranks = layout.data_parallel * layout.context_parallel
    copies = ranks // layout.zero_shard if layout.zero_stage else 1
    assert understood["num_distributed_optimizer_instances"] == copies
    assert (understood["recompute_granularity"] or "none") == layout.recompute
    assert understood["grad_reduce_in_fp32"] is (stack.reduce_bytes == 4)
    assert understood["overlap_grad_reduce"] is (ranks > 1 and stack.overlap_gradients)
    assert understood["overlap_p2p_comm"] is (layout.virtual_pipeline > 1 and stack.overlap_pipeline)
    assert understood["bf16"] is True
    assert understood["train_iters"] == 1000


@pytest.mark.parametrize("broken", ALL if CHECKOUT else LISTED)
def test_it_refuses_what_is_broken(broken: str) -> None:
    listed_complaints = list(complaints(KNOWN, read_recipe(broken_recipe(broken))))
    # Python takes any name for an attribute: that one was misspelt shows by what is missing then.
    assert listed_complaints if broken in LISTED else "refused" in by_validation()[broken]
