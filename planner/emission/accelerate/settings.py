"""What Accelerate is told: the keys of its configuration file.

Of the keys of fsdp_config it reads those that its launcher has an argument for, and takes no notice of others.
"""

from typing import Any

from meshwright.catalog.precision import Precision
from meshwright.costmodels.layout import Layout, Recompute
from meshwright.planner.emission.accelerate.obstacles import METHODS, PRECISIONS
from meshwright.planner.emission.launch.nodes import nodes_of
from meshwright.planner.plan_schema import Plan

Settings = dict[str, Any]


def settings(plan: Plan) -> Settings:
    """Give the configuration for a plan without obstacles; the rank of a node and the first one's address aren't in."""
    layout = plan.layout.layout()
    sharded = is_sharded(layout)
    return {
        "compute_environment": "LOCAL_MACHINE",
        "distributed_type": "FSDP" if sharded else _unsharded(layout),
        "mixed_precision": PRECISIONS[plan.inputs.job.precision],
        **_fp8(plan),
        "num_machines": nodes_of(plan).nodes,
        "num_processes": plan.mesh.devices,
        "machine_rank": 0,
        "rdzv_backend": "static",
        "same_network": True,
        "main_training_function": "main",
        "use_cpu": False,
        "debug": False,
        **({"fsdp_config": _fsdp(layout), "parallelism_config": _mesh(layout)} if sharded else {}),
    }


def is_sharded(layout: Layout) -> bool:
    """Whether FSDP runs the layout: anything but plain replicas, or a single device."""
    return layout.zero_stage > 0 and layout.data_parallel * layout.context_parallel > 1


def _unsharded(layout: Layout) -> str:
    return "NO" if layout.world_size == 1 else "MULTI_GPU"


def _fp8(plan: Plan) -> Settings:
    if plan.inputs.job.precision is not Precision.FP8:
        return {}
    return {"fp8_config": {"backend": "AO" if plan.inputs.stack.entry.dynamic_scaling else "TE"}}


def _fsdp(layout: Layout) -> Settings:
    """Give the settings of FSDP; the classes of layers to wrap are those that a model names itself."""
    return {
        "fsdp_version": 2,
        "fsdp_reshard_after_forward": layout.zero_stage == 3,
        "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
        "fsdp_activation_checkpointing": layout.recompute is Recompute.FULL,
        "fsdp_offload_params": False,
        "fsdp_cpu_ram_efficient_loading": False,
        "fsdp_state_dict_type": "SHARDED_STATE_DICT",
    }


def _mesh(layout: Layout) -> Settings:
    """Give the degrees; context ranks share shards, so that ZeRO's are data ranks x context ranks."""
    shard = layout.zero_shard // layout.context_parallel
    degrees: Settings = {
        "parallelism_config_dp_replicate_size": layout.data_parallel // shard,
        "parallelism_config_dp_shard_size": shard,
        "parallelism_config_cp_size": layout.context_parallel,
        "parallelism_config_tp_size": layout.tensor_parallel,
    }
    if layout.context_parallel > 1:
        degrees["parallelism_config_cp_comm_strategy"] = METHODS[layout.context_method]
    return degrees
