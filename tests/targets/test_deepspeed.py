"""DeepSpeed's own configuration over what is emitted for it, and over what it must refuse.

It reads JSON without complaint about keys at the top that it doesn't know; those are held against the names in its
code. Worlds are stood in for: the configuration only asks how many ranks there are.
"""

import copy
import json
import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from emitted_plans import PLANS, layout_of, plan_named

from meshwright.catalog.errors import Infeasible, InputError
from meshwright.catalog.lookup import stack_named
from meshwright.planner import Plan, emit
from meshwright.planner.plan_schema import LayoutSection

os.environ.setdefault("DS_ACCELERATOR", "cpu")
from deepspeed.launcher.runner import _parse_hostfile
from deepspeed.runtime import config as ds_config
from deepspeed.runtime import constants
from deepspeed.runtime.config import DeepSpeedConfig
from deepspeed.runtime.precision_config import BFLOAT16, FP16

KNOWN = {value for value in vars(constants).values() if isinstance(value, str)} | {
    BFLOAT16,
    FP16,
    "zero_optimization",
    "aio",
    "tensor_parallel",
    "expert_parallel",
    "activation_checkpointing",
    "data_types",
    "sequence_parallel_size",  # read by deepspeed.initialize, with the next
    "data_parallel_size",
}
# Emitted as they are or, where DeepSpeed lacks something, as the nearest; one has no nearest.
RUNNABLE = [name for name in PLANS if name != "latent-attention"]
MORE: dict[str, tuple[str, str, dict[str, Any]]] = {
    "replicas": ("hsdp", "fsdp2", {"zero_stage": 0, "zero_shard": 1}),
    "optimizer-states": ("hsdp", "fsdp2", {"zero_stage": 1, "zero_shard": 32}),
    "zero-plus-plus": ("hsdp", "deepspeed-zeropp", {"zero_shard": 32, "backward_shard": 8}),
    "experts": (
        "moe",
        "megatron-core",
        {"tensor_parallel": 1, "sequence_parallel": False, "pipeline_parallel": 1, "data_parallel": 64}
        | {"zero_stage": 2, "zero_shard": 64},
    ),
}


def plan_of(name: str) -> Plan:
    if name in PLANS:
        return emit(plan_named(name), "deepspeed", relax=True).plan
    base, stack, fields = MORE[name]
    plan = plan_named(base)
    layout = LayoutSection.of(layout_of({**plan.layout.model_dump(), **fields}))
    stacked = plan.inputs.stack.model_copy(update={"entry": stack_named(stack)})
    return plan.model_copy(update={"layout": layout, "inputs": plan.inputs.model_copy(update={"stack": stacked})})


def read(document: dict[str, Any], world: int, monkeypatch: pytest.MonkeyPatch) -> DeepSpeedConfig:
    """Read a configuration as deepspeed.initialize does on a world; raises what it raises."""
    replicas = document.get("data_parallel_size")
    mesh = None if replicas is None else SimpleNamespace(get_group=lambda mesh_dim: (mesh_dim, replicas))
    monkeypatch.setattr(ds_config.dist, "get_rank", lambda group=None: 0)  # noqa: ARG005
    monkeypatch.setattr(ds_config.dist, "get_world_size", lambda group=None: group[1] if group else world)
    unknown = set(document) - KNOWN
    if unknown:
        raise ValueError(f"DeepSpeed takes no notice of {unknown}")
    understood = DeepSpeedConfig(copy.deepcopy(document), mesh_device=mesh)
    if understood.grad_accum_dtype is not None:
        ds_config.DtypeEnum(understood.grad_accum_dtype)  # as its engine does when it's made
    return understood


def document_of(plan: Plan) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(emit(plan, "deepspeed").files["deepspeed.json"])
    return document


@pytest.mark.parametrize("name", [*RUNNABLE, *MORE])
def test_it_understands_what_the_plan_says(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of(name)
    layout, job = plan.layout.layout(), plan.inputs.job
    understood = read(document_of(plan), plan.mesh.devices, monkeypatch)
    assert understood.train_micro_batch_size_per_gpu == layout.micro_batch
    micro_batches = job.global_batch // layout.data_parallel // layout.micro_batch
    assert understood.gradient_accumulation_steps == micro_batches
    # Tensor ranks count as replicas here.
    assert understood.train_batch_size == job.global_batch * layout.tensor_parallel
    zero = understood.zero_config
    assert zero.stage == layout.zero_stage
    secondary = layout.backward_shard or 1
    assert zero.zero_hpz_partition_size == secondary
    assert zero.zero_quantized_gradients == (layout.zero_stage == 3 and plan.inputs.stack.entry.quantised_reduction)
    assert max(understood.tensor_parallel_config.autotp_size, 1) == layout.tensor_parallel
    experts = understood.expert_parallel_config
    assert (experts.autoep_size if experts.enabled else 1) == layout.expert_parallel
    assert understood.bfloat16_config.enabled


@pytest.mark.parametrize("name", [*RUNNABLE, *MORE])
def test_its_launcher_finds_all_hosts(name: str) -> None:
    plan = plan_of(name)
    hosts = _parse_hostfile(emit(plan, "deepspeed").files["hostfile"].splitlines())
    assert sum(hosts.values()) == plan.mesh.devices
    assert list(hosts) == [f"node-{node}" for node in range(len(hosts))]


def test_what_it_lacks_is_refused_where_nothing_is_near() -> None:
    with pytest.raises((InputError, Infeasible)):
        emit(plan_named("latent-attention"), "deepspeed", relax=True)


Break = Callable[[dict[str, Any]], object]
BREAKS: dict[str, Break] = {
    "batch that isn't the product": lambda document: document.update(train_batch_size=63),
    "micro-batches of nobody": lambda document: document.update(gradient_accumulation_steps=0),
    "unknown key at the top": lambda document: document.update(pipeline_parallel_size=2),
    "unknown key of ZeRO": lambda document: document["zero_optimization"].update(shards=8),
    "stage of a wrong type": lambda document: document["zero_optimization"].update(stage="all"),
    "stage that isn't there": lambda document: document["zero_optimization"].update(stage=4),
    "switch of a wrong type": lambda document: document["bf16"].update(enabled="perhaps"),
    "two formats": lambda document: document.update(fp16={"enabled": True}),
    "tensor degree of a wrong type": lambda document: document.update(tensor_parallel={"autotp_size": "two"}),
    "unknown format of gradients": lambda document: document.update(data_types={"grad_accum_dtype": "int4"}),
}


@pytest.mark.parametrize("broken", BREAKS)
@pytest.mark.parametrize("name", ["fsdp", "zero-plus-plus"])
def test_it_refuses_what_is_broken(name: str, broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of(name)
    document = document_of(plan)
    BREAKS[broken](document)
    with pytest.raises((ValueError, AssertionError, KeyError)):
        read(document, plan.mesh.devices, monkeypatch)


def test_degrees_that_do_not_multiply_to_the_world_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of("fsdp")
    with pytest.raises(AssertionError, match="train_batch_size"):
        read(document_of(plan), 2 * plan.mesh.devices, monkeypatch)
