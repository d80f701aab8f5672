"""A plan's layout and job from a configuration of Accelerate."""

from typing import Any

from meshwright.catalog.context_method import ContextMethod
from meshwright.catalog.document import parse_yaml
from meshwright.catalog.errors import InputError
from meshwright.catalog.precision import Precision
from meshwright.costmodels.layout import Layout, Recompute
from meshwright.planner.emission.accelerate.obstacles import METHODS, PRECISIONS
from meshwright.planner.emission.deepspeed.reading import Configuration
from meshwright.planner.emission.reading import Known, Reading, needed, replicas

BY_NAME = {name: method for method, name in METHODS.items()}
FORMATS = {name: precision for precision, name in PRECISIONS.items()}
KINDS = ("NO", "MULTI_GPU", "FSDP")
MESH = "parallelism_config.parallelism_config"


def read(text: str, known: Known) -> Reading:
    """Read a configuration, whose model, batches and tokens of a sequence are told beside it.

    Raises InputError where it isn't one, is of another engine, or its processes aren't the devices.
    """
    document = parse_yaml(text, file=known.file)
    if not isinstance(document, dict) or not document:
        raise InputError("isn't a configuration of Accelerate", file=known.file)
    if known.model is None:
        raise InputError("doesn't tell the model", file=known.file, hint="say it with --model")
    config = Configuration(document, file=known.file)
    kind = str(config.value("distributed_type") or "NO")
    if kind not in KINDS:
        raise InputError(
            f"is {kind:.40}, which isn't read",
            file=known.file,
            path="distributed_type",
            hint=f"can be read: {', '.join(KINDS)}",
        )
    _require_devices(config, known)
    micro_batch = needed(known.micro_batch, "the micro-batch", file=known.file, option="--micro-batch")
    return Reading(
        layout=Layout(micro_batch=micro_batch, **_degrees(config, known, sharded=kind == "FSDP")),
        model=known.model,
        global_batch=known.global_batch,
        sequence_length=known.sequence_length,
        precision=_precision(config, known),
        unmodelled=("fsdp_config.fsdp_offload_params",) if config.on("fsdp_config.fsdp_offload_params") else (),
    )


def _require_devices(config: Configuration, known: Known) -> None:
    processes = config.whole("num_processes")
    if processes is not None and processes != known.devices:
        raise InputError(
            f"is {processes}, on a cluster of {known.devices} devices", file=known.file, path="num_processes"
        )


def _degrees(config: Configuration, known: Known, *, sharded: bool) -> dict[str, Any]:
    if not sharded:
        return {"data_parallel": known.devices, "recompute": known.recompute or Recompute.NONE}
    tensor, context = config.whole(f"{MESH}_tp_size") or 1, config.whole(f"{MESH}_cp_size") or 1
    data = replicas(known.devices, {"tensor": tensor, "context": context}, file=known.file)
    copies = config.whole(f"{MESH}_dp_replicate_size") or 1
    shard = config.whole(f"{MESH}_dp_shard_size") or data // copies
    if copies * shard != data:
        raise InputError(
            f"{copies} x {shard} ranks aren't the {data} that the other degrees leave",
            file=known.file,
            path=f"{MESH}_dp_shard_size",
        )
    method = str(config.value(f"{MESH}_cp_comm_strategy") or METHODS[ContextMethod.ALL_GATHER])
    if context > 1 and method not in BY_NAME:
        raise InputError(f"is {method!r:.40}", file=known.file, path=f"{MESH}_cp_comm_strategy")
    gathers_again = config.value("fsdp_config.fsdp_reshard_after_forward") is not False
    return {
        "tensor_parallel": tensor,
        "context_parallel": context,
        "context_method": BY_NAME[method] if context > 1 else ContextMethod.RING,
        "data_parallel": data,
        "zero_stage": 3 if gathers_again else 2,
        "zero_shard": shard * context,
        "recompute": Recompute.FULL if config.on("fsdp_config.fsdp_activation_checkpointing") else Recompute.NONE,
    }


def _precision(config: Configuration, known: Known) -> Precision:
    name = config.value("mixed_precision")
    # YAML reads a bare `no` as false.
    name = "no" if name in (None, False) else str(name)
    if name not in FORMATS:
        raise InputError(
            f"is {name!r:.40}", file=known.file, path="mixed_precision", hint=f"known: {', '.join(FORMATS)}"
        )
    return FORMATS[name]
