"""Layouts that owners of large machines published, against our plans of the same jobs, under the same cost model.

What fits by our account of memory is never predicted to be faster than our plan. What doesn't is rejected for memory:

    job                            they need   a device offers   why
    Llama 3.1 405B, 8,192 tokens    89.4 GiB   75.7 GiB          Meta shards gradients reduced once a step; here
    Llama 3.1 405B, 131,072         90.2 GiB   75.7 GiB          they are whole (ZeRO-1) or reduced each micro-batch
    DeepSeek-V3                    149.0 GiB   75.7 GiB          FP8, recomputation by module, other chunks aren't in it
    Pangu Ultra MoE                 99.6 GiB   57.9 GiB          recomputation by module and swapping aren't in it

Degrees are those of the papers; batches and switches that those don't tell are the usual ones of their time.
"""

from dataclasses import replace
from typing import Any

import pytest
from refresh import GOLDEN, jobs, owner_layout

from meshwright.catalog.errors import Infeasible
from meshwright.costmodels.layout import Layout, LayoutTable
from meshwright.costmodels.predict import predict_memory, predict_time
from meshwright.planner import Plan, load_plan, plan
from meshwright.planner.job_inputs import job_of
from meshwright.planner.layout.evaluation import NO_MEMORY
from meshwright.planner.layout.limits import Limits
from meshwright.planner.layout.question import Question
from meshwright.planner.layout.search import search
from meshwright.planner.planning import question_of
from meshwright.planner.targets import unrestricted

GIB = 2**30
MEGATRON_2021 = {"tensor_parallel": 8, "recompute": "full"}
LLAMA_405B = {"tensor_parallel": 8, "sequence_parallel": True, "pipeline_parallel": 16, "virtual_pipeline": 8,
    "zero_stage": 1, "zero_shard": 128, "schedule": "interleaved"}  # fmt: skip

# Those whose plans aren't kept in tests/golden: model, cluster, global batch, sequence length, layout.
OTHERS: dict[str, tuple[str, str, int, int, dict[str, Any]]] = {
    "GPT-3 175B of 2021 (arXiv 2104.04473)": ("gpt3-175b", "selene:1024", 1536, 2048,
        {**MEGATRON_2021, "pipeline_parallel": 8, "virtual_pipeline": 3, "data_parallel": 16,
         "schedule": "interleaved"}),
    "GPT 1T of 2021 (arXiv 2104.04473)": ("megatron-1t", "selene:3072", 3072, 2048,
        {**MEGATRON_2021, "pipeline_parallel": 64, "data_parallel": 6}),
    "MT-NLG 530B (arXiv 2201.11990)": ("megatron-530b", "selene:2240", 1920, 2048,
        {**MEGATRON_2021, "pipeline_parallel": 35, "data_parallel": 8}),
    "BLOOM 176B (BigScience chronicles)": ("bloom-176b", "jean-zay:384", 2048, 2048,
        {"tensor_parallel": 4, "pipeline_parallel": 12, "data_parallel": 8, "micro_batch": 2, "recompute": "full",
         "zero_stage": 1, "zero_shard": 8}),
    "GPT 175B on Frontier (arXiv 2312.12705)": ("gpt3-175b", "frontier:1024", 1024, 2048,
        {"tensor_parallel": 4, "pipeline_parallel": 16, "data_parallel": 16, "recompute": "full",
         "zero_stage": 1, "zero_shard": 16}),
    "Llama 3.1 405B, long (arXiv 2407.21783)": ("llama-3.1-405b", "dgx-h100:16384", 128, 131072,
        {**LLAMA_405B, "context_parallel": 16, "context_method": "all-gather", "data_parallel": 8}),
    "Pangu Ultra MoE (arXiv 2505.04519)": ("pangu-ultra-moe-718b", "atlas-900-a2:6144", 6144, 4096,
        {"tensor_parallel": 8, "sequence_parallel": True, "pipeline_parallel": 16, "virtual_pipeline": 2,
         "data_parallel": 48, "expert_parallel": 4, "recompute": "selective", "zero_stage": 1, "zero_shard": 48,
         "schedule": "interleaved"}),
}  # fmt: skip
KEPT = {job["name"]: job for job in jobs() if "owner" in job}
# What of the owners' layouts our account of memory has no room for, in GiB as nvidia-smi counts.
TOO_LARGE = {
    "llama-3.1-405b-on-16384-h100": 90.7,
    "Llama 3.1 405B, long (arXiv 2407.21783)": 91.5,
    "deepseek-v3-on-2048-h100": 149.7,
    "Pangu Ultra MoE (arXiv 2505.04519)": 99.6,
}
NAMES = (*KEPT, *OTHERS)


def planned(name: str) -> tuple[Plan, Layout]:
    """Give our plan of a job, the best of even cuts where none is kept, and its owners' layout."""
    if name in KEPT:
        return load_plan(GOLDEN / f"{name}.yaml"), owner_layout(KEPT[name])
    model, cluster, global_batch, sequence_length, given = OTHERS[name]
    job = {"global_batch": global_batch, "sequence_length": sequence_length, "top": 0}
    return plan(model, cluster, limits={"fix": {"split": "even"}}, **job), owner_layout({"owner": {"layout": given}})


@pytest.mark.parametrize("name", [name for name in NAMES if name not in TOO_LARGE])
def test_owners_layouts_that_fit_are_not_predicted_faster_than_ours(name: str) -> None:
    ours, layout = planned(name)
    job, table = job_of(ours.inputs), LayoutTable.of([layout])
    assert layout.world_size == job.cluster.devices
    assert predict_memory(job, table).nvidia_smi_bytes[0] <= ours.predicted.memory_limit_bytes
    assert predict_time(job, table).step_time_s[0] >= ours.predicted.step_time_s


@pytest.mark.parametrize("name", TOO_LARGE)
def test_owners_layouts_that_do_not_fit_are_rejected_for_memory(name: str) -> None:
    ours, layout = planned(name)
    peak = predict_memory(job_of(ours.inputs), LayoutTable.of([layout])).nvidia_smi_bytes[0]
    assert peak / GIB == pytest.approx(TOO_LARGE[name], abs=0.1)
    assert peak > ours.predicted.memory_limit_bytes


@pytest.mark.parametrize("name", ["deepseek-v3-on-2048-h100", "Pangu Ultra MoE (arXiv 2505.04519)"])
def test_a_search_of_them_alone_says_so(name: str) -> None:
    """In software that runs any; Meta's 128 chunks of 126 layers, two of them empty, aren't in the space."""
    ours, layout = planned(name)
    job = job_of(ours.inputs)
    open_job = replace(job, stack=unrestricted(job.stack))
    with pytest.raises(Infeasible) as caught:
        search([open_job], replace(_only(layout, question_of(ours.inputs)), top=0))
    limit = ours.predicted.memory_limit_bytes / GIB
    assert caught.value.nearest_miss.endswith(f"needs {TOO_LARGE[name]:.1f} GiB of {limit:.1f} GiB")
    assert caught.value.rejected[NO_MEMORY] > 0


def _only(layout: Layout, question: Question) -> Question:
    """Ask for a layout that is cut evenly, and for no other."""
    fields = ("tensor_parallel", "sequence_parallel", "context_parallel", "context_method", "pipeline_parallel",
        "virtual_pipeline", "data_parallel", "expert_parallel", "expert_tensor_parallel", "zero_stage", "zero_shard",
        "vocabulary_parallel", "recompute", "schedule", "micro_batch")  # fmt: skip
    fix = {name: value for name in fields if (value := getattr(layout, name)) is not None}
    return replace(
        question, limits=Limits(fix={name: _plain(value) for name, value in fix.items()} | {"split": "even"})
    )


def _plain(value: object) -> Any:  # noqa: ANN401 - a value of a limit
    return value if isinstance(value, bool | int) else str(value)
