"""Runs Megatron-LM's own parser and validation, as rank 0 of worlds without devices.

    python megatron_parser.py CHECKOUT < cases.json

Cases are a list of {"world", "environment", "arguments"}; for each a line of JSON is printed, of what was understood
or why it was refused. What a machine without devices lacks is stood in for: the properties of a Hopper device, and
TransformerEngine's rotary kernels (--no-rope-fusion).
"""

import contextlib
import importlib.util
import io
import json
import os
import sys
import typing
import warnings
from typing import Any

UNDERSTOOD = (
    "data_parallel_size",
    "tensor_model_parallel_size",
    "sequence_parallel",
    "pipeline_model_parallel_size",
    "virtual_pipeline_model_parallel_size",
    "context_parallel_size",
    "cp_comm_type",
    "expert_model_parallel_size",
    "expert_tensor_parallel_size",
    "use_distributed_optimizer",
    "use_megatron_fsdp",
    "data_parallel_sharding_strategy",
    "num_distributed_optimizer_instances",
    "recompute_granularity",
    "recompute_method",
    "recompute_num_layers",
    "recompute_modules",
    "optimizer_cpu_offload",
    "optimizer_offload_fraction",
    "fine_grained_activation_offloading",
    "offload_modules",
    "activation_offload_fraction",
    "micro_batch_size",
    "global_batch_size",
)


class _Device:
    major, minor, multi_processor_count, name, total_memory = 9, 0, 132, "stand-in", 80 << 30


def main(checkout: str) -> None:
    """Parse and validate each case."""
    warnings.simplefilter("ignore")
    sys.path.insert(0, checkout)
    os.environ.update(RANK="0", LOCAL_RANK="0")
    import torch
    import typing_extensions

    typing.override = typing_extensions.override  # of Python 3.12
    torch.cuda.get_device_properties = lambda *_, **__: _Device
    torch.cuda.get_device_capability = lambda *_, **__: (9, 0)
    for case in json.load(sys.stdin):
        print(json.dumps(_answer(case), default=str), flush=True)


def _answer(case: dict[str, Any]) -> dict[str, Any]:
    stand_ins = [] if importlib.util.find_spec("transformer_engine") else ["--no-rope-fusion"]
    sys.argv = ["pretrain_gpt.py", *case["arguments"], *stand_ins]
    os.environ.pop("CUDA_DEVICE_MAX_CONNECTIONS", None)
    os.environ.update(WORLD_SIZE=str(case["world"]), **case["environment"])
    refusals = io.StringIO()
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(refusals):
            return _understood()
    except SystemExit:
        return {"refused": refusals.getvalue().strip().splitlines()[-1]}
    except Exception as error:  # whatever its validation raises is a refusal
        return {"refused": f"{type(error).__name__}: {error}"}


def _understood() -> dict[str, Any]:
    from megatron.training.arguments import parse_args, validate_args

    parsed = parse_args()
    validate_args(parsed, {})
    _config(parsed)
    layout = getattr(parsed, "pipeline_model_parallel_layout", None)
    found = {name: getattr(parsed, name, None) for name in UNDERSTOOD}
    return found | {"layout": None if layout is None else str(layout)}


def _config(parsed: object) -> None:
    try:
        from megatron.training.argument_utils import core_transformer_config_from_args
    except ImportError:
        from megatron.training.arguments import core_transformer_config_from_args
    core_transformer_config_from_args(parsed)


if __name__ == "__main__":
    main(sys.argv[1])
