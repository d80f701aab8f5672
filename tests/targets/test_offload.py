"""What launchers are told of offloading, as they read it: DeepSpeed, Megatron-LM, and torchao's optimizer."""

import inspect
import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from deepspeed.runtime.config import DeepSpeedConfig
from deepspeed.runtime.zero.stage3 import DeepSpeedZeroOptimizer_Stage3
from test_deepspeed import read

from meshwright.catalog.lookup import device_named, find_cluster
from meshwright.catalog.precision import Precision
from meshwright.costmodels.layout import Layout
from meshwright.planner import Plan, emit
from meshwright.planner.emission.megatron.arguments import words
from meshwright.planner.emission.megatron.environment import environment
from meshwright.planner.emission.megatron.files import arguments
from meshwright.planner.job_inputs import inputs_of
from meshwright.planner.offload import OffloadPlan, offload_of
from meshwright.planner.offload.planned import plan_with_offload

PARSER = Path(__file__).parent / "megatron_parser.py"
RUN = ["--mock-data", "--tokenizer-type", "NullTokenizer", "--train-iters", "1", "--lr", "1e-4"]


@cache
def offloaded(target: str, stage: int = 3, budget: str = "75 GiB", *, nvme: bool = False) -> tuple[Plan, OffloadPlan]:
    cluster = find_cluster("dgx-h100:8")
    if nvme:
        device = device_named("h100-sxm-80gb")
        drives = {"capacity": "2 TiB", "bandwidth": "3 GB/s", "source": "one drive a device"}
        host = type(device.host).model_validate(device.host.model_dump(mode="json") | {"nvme": drives})
        cluster = cluster.model_copy(update={"device": device.model_copy(update={"host": host})})
    inputs = inputs_of(
        "llama-2-70b" if stage == 3 else "llama-2-7b",
        cluster,
        stack="deepspeed-zero3" if stage == 3 else "megatron-core",
        global_batch=32,
        sequence_length=2048,
        precision=Precision.BF16,
        objective="time",
        top=0,
        memory_headroom=0.05,
    )
    layout = Layout(data_parallel=8, zero_stage=stage, zero_shard=8)
    host_memory = "400 GiB" if nvme else None
    found = offload_of(inputs, layout, target=target, memory_budget=budget, host_memory=host_memory, nvme=nvme)
    return plan_with_offload(inputs, found), found


def understood_of(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> DeepSpeedConfig:
    document = json.loads(emit(plan, "deepspeed").files["deepspeed.json"])
    return read(document, 8, monkeypatch)


def test_deepspeed_offloads_what_was_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    plan, found = offloaded("deepspeed")
    understood = understood_of(plan, monkeypatch).zero_config
    optimizer = understood.offload_optimizer
    assert optimizer.device == "cpu"
    assert optimizer.pin_memory
    # Its own grouping of a rank's tensors, and its own count of the groups that stay (stage3.py).
    tensors = [SimpleNamespace(partition_numel=lambda size=size: size) for size in found.problem.optimizer.tensors]
    own = SimpleNamespace(sub_group_size=understood.sub_group_size)
    groups = DeepSpeedZeroOptimizer_Stage3._create_fp16_sub_groups(own, tensors)
    stay = groups[: int((1 - optimizer.ratio) * len(groups))]
    resident = sum(tensor.partition_numel() for group in stay for tensor in group)
    assert 0 < found.optimizer["resident"] < 1
    assert resident / found.problem.optimizer.parameters == pytest.approx(found.optimizer["resident"], rel=1e-6)
    streams = set(found.parameters) == {"streamed"}
    assert (understood.offload_param is not None and understood.offload_param.device == "cpu") == streams


def test_deepspeed_puts_states_on_drives(monkeypatch: pytest.MonkeyPatch) -> None:
    understood = understood_of(offloaded("deepspeed", nvme=True)[0], monkeypatch)
    optimizer = understood.zero_config.offload_optimizer
    assert optimizer.device == "nvme"
    assert optimizer.ratio == 1
    assert str(optimizer.nvme_path) == "/local_nvme"
    assert optimizer.pipeline
    assert understood.aio_config["queue_depth"] == 8
    assert understood.aio_config["overlap_events"] is True


def test_strides_need_the_deepspeed_that_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="prefetch_optimizer"):
        understood_of(offloaded("deep-optimizer-states")[0], monkeypatch)


@pytest.mark.parametrize("budget", ["60 GiB", "52 GiB"])
def test_megatron_offloads_what_was_decided(budget: str) -> None:
    checkout = os.environ.get("MEGATRON_LM")
    plan, found = offloaded("megatron", 1, budget)
    variables = {name: value for name, value in environment(plan).items() if value is not None}
    case = {"world": 8, "environment": variables, "arguments": [*words(arguments(plan)), *RUN]}
    told = plan.offload.settings if plan.offload else {}
    options = json.loads((Path(__file__).parent.parent / "megatron" / "d98e8a64.json").read_text())["options"]
    assert not {f"--{name}" for name in told} - set(options)
    if not checkout:
        return
    answer = subprocess.run(
        [sys.executable, str(PARSER), checkout], input=json.dumps([case]), capture_output=True, text=True, check=True
    )
    understood = json.loads(answer.stdout.splitlines()[-1])
    assert "refused" not in understood, understood
    assert understood["optimizer_cpu_offload"] == (found.optimizer["cpu"] > 0)
    if found.optimizer["cpu"]:
        assert understood["optimizer_offload_fraction"] == pytest.approx(found.optimizer["cpu"], abs=1e-6)
    assert understood["fine_grained_activation_offloading"] == ("offload-modules" in told)
    assert understood["recompute_granularity"] == told.get("recompute-granularity")
    if "offload-modules" in told:
        assert understood["offload_modules"] == told["offload-modules"]
        assert understood["activation_offload_fraction"] == told["activation-offload-fraction"]


def test_torchao_takes_the_optimizer() -> None:
    from torchao.optim import CPUOffloadOptimizer

    plan, found = offloaded("torch")
    document = json.loads(emit(plan, "torch").files["offload.json"])
    given = dict(document["optimizer"])
    assert given.pop("class") == f"torchao.optim.{CPUOffloadOptimizer.__name__}"
    name = given.pop("optimizer_class").removeprefix("torch.optim.")
    weights = [torch.nn.Parameter(torch.zeros(8))]
    taken = inspect.signature(CPUOffloadOptimizer).bind(weights, getattr(torch.optim, name), **given)
    inspect.signature(torch.optim.AdamW).bind(weights, **taken.arguments["kwargs"])
    # A step of several micro-batches adds gradients up on the device.
    assert found.problem.passes > 1
    assert taken.arguments["offload_gradients"] is False
    assert len(document["checkpoint_policy"]) == 80
