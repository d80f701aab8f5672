"""Accelerate's own launcher over what is emitted for it, up to the plugins of its processes, and what it refuses.

Its launcher takes no notice of keys of fsdp_config and parallelism_config that it has no argument for: those are held
against its arguments. That degrees multiply to the processes is checked when an Accelerator is made.
"""

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.parallelism_config import ParallelismConfig
from accelerate.utils import FullyShardedDataParallelPlugin
from accelerate.utils.launch import prepare_multi_gpu_env, prepare_simple_launcher_cmd_env
from emitted_plans import PLANS, layout_of, plan_named

from meshwright.planner import Plan, emit
from meshwright.planner.plan_schema import LayoutSection

# Emitted as they are or, where Accelerate lacks something, as the nearest; one has no nearest.
RUNNABLE = [name for name in PLANS if name != "latent-attention"]
MORE: dict[str, tuple[str, dict[str, Any]]] = {
    "replicas": ("hsdp", {"zero_stage": 0, "zero_shard": 1}),
    "parameters-whole": ("hsdp", {"zero_stage": 2}),
    "ring": ("fsdp", {"data_parallel": 2, "context_parallel": 4, "zero_shard": 8}),
}


def plan_of(name: str) -> Plan:
    if name in PLANS:
        return emit(plan_named(name), "accelerate", relax=True).plan
    base, fields = MORE[name]
    plan = plan_named(base)
    layout = LayoutSection.of(layout_of({**plan.layout.model_dump(), **fields}))
    return plan.model_copy(update={"layout": layout})


def document_of(plan: Plan) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(emit(plan, "accelerate").files["accelerate.yaml"])
    return document


def launched(document: dict[str, Any], folder: Path) -> tuple[argparse.Namespace, dict[str, str]]:
    """Give what the launcher makes of a configuration: its arguments, and the environment of a process."""
    path = folder / "accelerate.yaml"
    path.write_text(yaml.safe_dump(document))
    load_config_from_file(str(path))
    words = ["--config_file", str(path), "--main_process_ip", "127.0.0.1", "--main_process_port", "29500", "train.py"]
    given = launch_command_parser().parse_args(words)
    for section in ("fsdp_config", "parallelism_config"):
        unknown = [key for key in document.get(section, {}) if not hasattr(given, key)]
        if unknown:
            raise ValueError(f"Accelerate takes no notice of {unknown}")
    arguments, _, _ = _validate_launch_command(given)
    if arguments.use_fsdp or arguments.multi_gpu:
        return arguments, prepare_multi_gpu_env(arguments)
    return arguments, prepare_simple_launcher_cmd_env(arguments)[1]


def plugins(
    document: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[argparse.Namespace, FullyShardedDataParallelPlugin | None, ParallelismConfig | None]:
    """Give what the processes make of a configuration; raises what they raise."""
    arguments, environment = launched(document, folder)
    for name in [name for name in os.environ if name.startswith(("FSDP_", "PARALLELISM_CONFIG_", "ACCELERATE_"))]:
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, str(value))
    if not arguments.use_fsdp:
        return arguments, None, None
    mesh = ParallelismConfig()
    mesh._validate_accelerator(
        SimpleNamespace(
            multi_device=True,
            num_processes=arguments.num_processes,
            is_fsdp2=True,
            distributed_type="FSDP",
            is_main_process=True,
        )
    )
    return arguments, FullyShardedDataParallelPlugin(), mesh


@pytest.mark.parametrize("name", [*RUNNABLE, *MORE])
def test_it_understands_what_the_plan_says(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of(name)
    layout = plan.layout.layout()
    arguments, fsdp, mesh = plugins(document_of(plan), tmp_path, monkeypatch)
    assert arguments.num_processes == plan.mesh.devices
    assert os.environ["ACCELERATE_MIXED_PRECISION"] == "bf16"
    if fsdp is None or mesh is None:
        assert layout.zero_stage == 0 or layout.world_size == 1
        return
    assert (mesh.tp_size, mesh.cp_size) == (layout.tensor_parallel, layout.context_parallel)
    assert mesh.data_parallel_size == layout.data_parallel
    assert mesh.dp_shard_size * mesh.cp_size == layout.zero_shard
    assert mesh.total_size == layout.world_size
    assert fsdp.fsdp_version == 2
    assert fsdp.reshard_after_forward is (layout.zero_stage == 3)
    assert fsdp.activation_checkpointing is (layout.recompute == "full")
    if mesh.cp_size > 1:
        method = {"ring": "alltoall", "all-gather": "allgather"}[layout.context_method]
        assert mesh.cp_handler.cp_comm_strategy == method


Break = Callable[[dict[str, Any]], object]
BREAKS: dict[str, Break] = {
    "degrees that don't multiply": lambda document: document.update(num_processes=12),
    "unknown key at the top": lambda document: document.update(pipeline_parallel_size=2),
    "unknown key of FSDP": lambda document: document["fsdp_config"].update(fsdp_zero_stage=3),
    "unknown degree": lambda document: document["parallelism_config"].update(parallelism_config_pp_size=2),
    "degree of nothing": lambda document: document["parallelism_config"].update(parallelism_config_tp_size=0),
    "degree of a wrong type": lambda document: document["parallelism_config"].update(parallelism_config_tp_size="two"),
    "resharding of a wrong type": lambda document: document["fsdp_config"].update(fsdp_reshard_after_forward="often"),
    "unknown kind": lambda document: document.update(distributed_type="PIPELINE"),
    "unknown format": lambda document: document.update(mixed_precision="int4"),
}


@pytest.mark.parametrize("broken", BREAKS)
@pytest.mark.parametrize("name", ["hsdp", "ring"])
def test_it_refuses_what_is_broken(name: str, broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = document_of(plan_of(name))
    BREAKS[broken](document)
    with pytest.raises((ValueError, TypeError, KeyError)):
        plugins(document, tmp_path, monkeypatch)


def test_an_unknown_way_of_sharing_sequences_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = document_of(plan_of("ring"))
    document["parallelism_config"]["parallelism_config_cp_comm_strategy"] = "bidirectional"
    with pytest.raises((ValueError, SystemExit)):
        plugins(document, tmp_path, monkeypatch)
