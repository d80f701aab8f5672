"""Runs emitted recipes up to Megatron-Bridge's own validation, as rank 0 of worlds without devices.

    python bridge_parser.py CHECKOUT < cases.json

CHECKOUT holds Megatron-Bridge with its submodules. Cases are a list of {"world", "environment", "recipe", "overrides"};
for each a line of JSON is printed, of what was understood or why it was refused. What a machine without devices lacks
is stood in for: libraries of kernels and of services, and the properties of a Hopper device.
"""

import contextlib
import io
import json
import logging
import os
import sys
import types
import typing
import warnings
from pathlib import Path
from typing import Any

from stand_ins import stand_in

ABSENT = (
    "diffusers",
    "fla",
    "megatron.energon",
    "mistral_common",
    "modelopt",
    "nemo_run",
    "nvidia_resiliency_ext",
    "open_clip",
    "peft",
    "qwen_vl_utils",
    "timm",
    "transformer_engine",
    "wandb",
)
# Of its recipes, the packages that the plain GPT is in; importing the others needs what they train.
RECIPES = ("recipes", "recipes.utils", "recipes.gpt", "recipes.gpt.h100")
MODEL = (
    "num_layers",
    "tensor_model_parallel_size",
    "sequence_parallel",
    "pipeline_model_parallel_size",
    "virtual_pipeline_model_parallel_size",
    "context_parallel_size",
    "cp_comm_type",
    "expert_model_parallel_size",
    "expert_tensor_parallel_size",
    "recompute_granularity",
    "recompute_num_layers",
    "tp_comm_overlap",
    "overlap_p2p_comm",
    "bf16",
)
GRADIENTS = (
    "use_distributed_optimizer",
    "use_megatron_fsdp",
    "num_distributed_optimizer_instances",
    "data_parallel_sharding_strategy",
    "overlap_grad_reduce",
    "overlap_param_gather",
    "grad_reduce_in_fp32",
)


class _Device:
    major, minor, multi_processor_count, name, total_memory = 9, 0, 132, "stand-in", 80 << 30


def main(checkout: str) -> None:
    """Run and validate each case."""
    warnings.simplefilter("ignore")
    logging.disable()
    _prepare(Path(checkout))
    for case in json.load(sys.stdin):
        print(json.dumps(_answer(case), default=str), flush=True)


def _prepare(checkout: Path) -> None:
    stand_in(*ABSENT)
    source = checkout / "src"
    sys.path[:0] = [str(source), str(checkout / "3rdparty" / "Megatron-LM")]
    import torch
    import typing_extensions

    typing.override = typing_extensions.override  # of Python 3.12
    torch.cuda.get_device_properties = lambda *_, **__: _Device
    torch.cuda.get_device_capability = lambda *_, **__: (9, 0)
    torch.cuda.current_device = lambda: 0
    for name in RECIPES:
        package = types.ModuleType(f"megatron.bridge.{name}")
        package.__path__ = [str(source / "megatron" / "bridge" / name.replace(".", "/"))]
        sys.modules[package.__name__] = package


def _answer(case: dict[str, Any]) -> dict[str, Any]:
    os.environ.pop("CUDA_DEVICE_MAX_CONNECTIONS", None)
    os.environ.update(WORLD_SIZE=str(case["world"]), RANK="0", LOCAL_RANK="0", **case["environment"])
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            return _understood(case["recipe"], case["overrides"])
    except Exception as error:  # whatever its validation raises is a refusal
        return {"refused": f"{type(error).__name__}: {error}"}


def _understood(recipe: str, overrides: list[str]) -> dict[str, Any]:
    from megatron.bridge.training.config import runtime_config_update

    names: dict[str, Any] = {"__name__": "recipe"}
    exec(recipe, names)
    config = names["process_config_with_overrides"](names["plan"](), cli_overrides=overrides)
    runtime_config_update(config)
    return {
        "data_parallel_size": config.data_parallel_size,
        "global_batch_size": config.train.global_batch_size,
        "micro_batch_size": config.train.micro_batch_size,
        "train_iters": config.train.train_iters,
        "optimizer": config.optimizer.use_distributed_optimizer,
        **{name: getattr(config.model, name) for name in MODEL},
        **{name: getattr(config.ddp, name) for name in GRADIENTS},
    }


if __name__ == "__main__":
    main(sys.argv[1])
