"""torchtitan's own command line, mesh and pipeline over emitted modules, as rank 0 of worlds of fake processes.

Its configuration doesn't check degrees against one another nor names of schedules: its ParallelDims and PyTorch's
get_schedule_class do, when training begins. Models are made on no device at all, by their shapes alone.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from emitted_plans import PLANS, layout_of, plan_named
from torch.distributed.pipelining.schedules import get_schedule_class
from torch.testing._internal.distributed.fake_pg import FakeStore
from torchtitan.components.quantization import float8, mx
from torchtitan.config import ConfigManager
from torchtitan.distributed import ParallelDims, parallel_dims
from torchtitan.distributed.fsdp import get_fsdp_reshard_after_forward_policy
from torchtitan.trainer import Trainer

from meshwright.catalog.errors import Infeasible, InputError
from meshwright.catalog.lookup import find_model
from meshwright.catalog.precision import Precision
from meshwright.costmodels.parameters import total_parameters
from meshwright.costmodels.transformer import transformer_of
from meshwright.planner import Plan, emit
from meshwright.planner.plan_schema import LayoutSection

# Emitted as they are or as the nearest; of the others torchtitan has no model of their dimensions.
RUNNABLE = (
    "gqa-tensor",
    "uneven",
    "long-context",
    "hybrid-context",
    "fsdp",
    "hsdp",
    "tensor-fsdp",
    "optimizer-instances",
    "moe-4d",
    "single-device",
    "pipeline-fsdp",
)
# By name: a plan, another model than it has, what differs in its layout, the format.
MORE: dict[str, tuple[str, str, dict[str, Any], Precision]] = {
    "interleaved": (
        "pipeline-fsdp",
        "llama-3.1-70b",
        {"virtual_pipeline": 2, "schedule": "interleaved"},
        Precision.BF16,
    ),
    "zero-bubble": ("pipeline-fsdp", "llama-3.1-70b", {"virtual_pipeline": 2, "schedule": "zbv"}, Precision.BF16),
    "dual-pipe": ("pipeline-fsdp", "llama-3.1-70b", {"virtual_pipeline": 2, "schedule": "dualpipev"}, Precision.BF16),
    "experts": ("fsdp", "qwen3-30b-a3b", {"expert_parallel": 8}, Precision.BF16),
    "chosen-layers": ("fsdp", "llama-3.1-8b", {"recompute_layers": 5}, Precision.BF16),
    "fp8": ("fsdp", "llama-3.1-8b", {}, Precision.FP8),
    "fp8-experts": ("fsdp", "qwen3-30b-a3b", {"expert_parallel": 8}, Precision.FP8),
    "mxfp8": ("fsdp", "llama-3.1-8b", {}, Precision.MXFP8),
}


@cache
def plan_of(name: str) -> Plan:
    if name not in MORE:
        return emit(plan_named(name), "torchtitan", relax=True).plan
    base, model, fields, precision = MORE[name]
    plan = plan_named(base)
    layout = LayoutSection.of(layout_of({**plan.layout.model_dump(), **fields}))
    inputs = plan.inputs.model_copy(
        update={
            "model": plan.inputs.model.model_copy(update={"entry": find_model(model)}),
            "job": plan.inputs.job.model_copy(update={"precision": precision}),
        }
    )
    return plan.model_copy(update={"layout": layout, "inputs": inputs})


@pytest.fixture(autouse=True)
def devices_of_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand in for devices that can compute in narrow formats, and for those that a mesh is of."""
    for module in (float8, mx):
        monkeypatch.setattr(module, "has_cuda_capability", lambda *_: True)
    monkeypatch.setattr(parallel_dims, "device_type", "cpu")


def configured(text: str, folder: Path, *options: str) -> Trainer.Config:
    """Read a module as torchtitan's command line does; raises what it raises."""
    (folder / "meshwright_plan.py").write_text(text)
    sys.modules.pop("meshwright_plan", None)
    sys.path.insert(0, str(folder))
    try:
        with contextlib.redirect_stderr(open(os.devnull, "w")):
            return ConfigManager().parse_args(["--module", "meshwright_plan", "--config", "plan", *options])
    finally:
        sys.path.remove(str(folder))


@contextlib.contextmanager
def meshed(config: Trainer.Config, world: int) -> Iterator[ParallelDims]:
    """Make the mesh of a configuration on a world of fake processes; raises what its trainer would."""
    degrees = config.parallelism
    dims = ParallelDims(
        dp_replicate=degrees.data_parallel_replicate_degree,
        dp_shard=degrees.data_parallel_shard_degree,
        cp=degrees.context_parallel_degree,
        tp=degrees.tensor_parallel_degree,
        pp=degrees.pipeline_parallel_degree,
        ep=degrees.expert_parallel_degree,
        spmd_backend=degrees.spmd_backend,
        world_size=world,
    )
    get_fsdp_reshard_after_forward_policy(degrees.fsdp_reshard_after_forward, dims.pp_enabled)
    if degrees.pipeline_parallel_degree > 1:
        get_schedule_class(degrees.pipeline_parallel_schedule)
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=world)
    try:
        dims.build_mesh()
        yield dims
    finally:
        dist.destroy_process_group()


def text_of(name: str) -> str:
    return emit(plan_of(name), "torchtitan").files["meshwright_plan.py"]


@pytest.mark.parametrize("name", [*RUNNABLE, *MORE])
def test_it_understands_what_the_plan_says(name: str, tmp_path: Path) -> None:
    plan = plan_of(name)
    layout, job = plan.layout.layout(), plan.inputs.job
    config = configured(text_of(name), tmp_path)
    with meshed(config, plan.mesh.devices) as dims:
        sharded = layout.zero_shard if layout.zero_stage else 1
        assert (dims.tp, dims.cp, dims.pp, dims.ep) == (
            layout.tensor_parallel,
            layout.context_parallel,
            layout.pipeline_parallel,
            layout.expert_parallel,
        )
        assert dims.dp_replicate * dims.dp_shard == layout.data_parallel
        assert dims.dp_shard * dims.cp == max(sharded, layout.context_parallel)
    assert config.training.seq_len == job.sequence_length
    assert config.training.global_batch_size == job.global_batch
    if layout.pipeline_parallel > 1:
        parts = config.parallelism.module_fqns_per_model_part
        assert len(parts) == layout.pipeline_parallel * layout.virtual_pipeline
        layers = [module for part in parts for module in part if module.startswith("layers.")]
        assert layers == [f"layers.{layer}" for layer in range(plan.inputs.model.entry.layers)]
    reshards = get_fsdp_reshard_after_forward_policy(config.parallelism.fsdp_reshard_after_forward, dims.pp_enabled)
    assert reshards is (layout.zero_stage == 3)
    checkpointing = config.activation_checkpoint
    assert (checkpointing is None) is (layout.recompute == "none")


@pytest.mark.parametrize("name", ["fsdp", "tensor-fsdp", "uneven", "experts", "moe-4d"])
def test_its_model_has_as_many_parameters_as_ours(name: str, tmp_path: Path) -> None:
    config = configured(text_of(name), tmp_path)
    with torch.device("meta"):
        model = config.model_spec.model.build()
    ours = total_parameters(transformer_of(plan_of(name).inputs.model.entry))
    assert sum(parameter.numel() for parameter in model.parameters()) == ours


@pytest.mark.parametrize("name", sorted(set(PLANS) - set(RUNNABLE)))
def test_what_it_lacks_is_refused_where_nothing_is_near(name: str) -> None:
    with pytest.raises((InputError, Infeasible)):
        emit(plan_named(name), "torchtitan", relax=True)


BREAKS: dict[str, tuple[str, str, str]] = {
    "degrees that don't multiply": ("tensor-fsdp", "tensor_parallel_degree=8", "tensor_parallel_degree=7"),
    "unknown field": ("fsdp", "tensor_parallel_degree", "tensor_parallel_size"),
    "degree of nothing": ("fsdp", "context_parallel_degree=1", "context_parallel_degree=0"),
    "unknown schedule": ("pipeline-fsdp", "'1F1B'", "'ZB-H1'"),
    "unknown resharding": ("fsdp", "fsdp_reshard_after_forward='always'", "fsdp_reshard_after_forward='often'"),
    "graphs under a pipeline": ("pipeline-fsdp", "disable_cuda_graphs=True", "disable_cuda_graphs=False"),
    "unknown model": ("fsdp", "model_registry('8B')", "model_registry('9B')"),
    "experts that can't be shared": ("experts", "expert_parallel_degree=8", "expert_parallel_degree=3"),
    "unknown policy": ("fsdp", "FullAC.Config()", "FullAC.Config(layers=2)"),
    "no Python": ("fsdp", "def plan()", "def plan("),
    "unknown recipe": ("fp8", "Float8LinearConverter.Config(", "Float8LinearConverter.Config(recipe_name='tiny', "),
}


def begun(text: str, folder: Path, *, world: int) -> None:
    """Read a module and make its mesh."""
    with meshed(configured(text, folder), world):
        pass


@pytest.mark.parametrize("broken", BREAKS)
def test_it_refuses_what_is_broken(broken: str, tmp_path: Path) -> None:
    name, line, instead = BREAKS[broken]
    text = text_of(name)
    assert line in text
    with pytest.raises((ValueError, TypeError, KeyError, AssertionError, SyntaxError, SystemExit)):
        begun(text.replace(line, instead), tmp_path, world=plan_of(name).mesh.devices)


def test_options_behind_the_script_are_taken(tmp_path: Path) -> None:
    assert configured(text_of("fsdp"), tmp_path, "--training.steps", "17").training.steps == 17
