"""Plans of mixed clusters against their bars, uniform splits and one network: rows of `make bench-mixed`."""

from collections.abc import Iterator
from time import process_time
from typing import Any

from bench_row import Row
from frontier_shards import sharded
from mixed_baselines import uniform_split_s
from mixed_jobs import three_networks

from meshwright.catalog.mixed_entry import MixedClusterEntry
from meshwright.planner import plan
from meshwright.planner.mixed.plan_schema import MixedInputs, MixedPlan
from meshwright.planner.mixed.planning import asked_of, mixed_inputs, plan_of_mixed
from meshwright.planner.verification.check import Outcome
from meshwright.planner.verification.mixed import verify_mixed

SECONDS, GAP, FASTER, BESIDE = 5.0, 0.02, 0.15, 0.10
JOB = {"precision": "bf16", "objective": "time", "top": 0, "memory_headroom": 0.05, "limits": {}}


def island_rows() -> Iterator[Row]:
    """Give the rows; seconds are the processor's, since others may share the machine."""
    for batch in (4096, 2048):
        yield from _two_islands(batch)
    yield from _three_networks()
    yield _three_levels()


def _two_islands(batch: int) -> Iterator[Row]:
    inputs, made, took = _planned(
        "llama-3.1-70b",
        "selene:512+dgx-h100:512",
        links=["100 Gb/s, 20 ms"],
        global_batch=batch,
        sequence_length=8192,
    )
    name = f"70B, 512 A100 + 512 H100, 100 Gb/s, {batch} sequences"
    yield from _common(name, made, took)
    yield Row(job=name, found=f"gap {made.search.gap:.2%}", bar="<= 2 %", holds=made.search.gap <= GAP)
    other_s = uniform_split_s(asked_of(inputs))
    faster = 1 - made.predicted.step_time_s / other_s
    found = f"step {made.predicted.step_time_s:.2f} s, uniform split {other_s:.2f} s: {faster:.1%} less"
    yield Row(job=name, found=found, bar=">= 15 %", holds=faster >= FASTER)


def _three_networks() -> Iterator[Row]:
    job = {"global_batch": 1536, "sequence_length": 2048}
    _, made, took = _planned("megatron-39b", three_networks(), **job)
    name = "39B, 3 x 32 A100, InfiniBand, RoCE, Ethernet"
    yield from _common(name, made, took)
    one_s = plan("megatron-39b", "selene:96", **JOB, **job).predicted.step_time_s
    slower = made.predicted.step_time_s / one_s - 1
    found = f"step {made.predicted.step_time_s:.2f} s, one InfiniBand {one_s:.2f} s: {slower:+.1%}"
    yield Row(job=name, found=found, bar="<= +10 %", holds=slower <= BESIDE)


def _common(name: str, made: MixedPlan, took: float) -> Iterator[Row]:
    yield Row(job=name, found=f"{made.mixed.shape} in {took:.2f} s", bar="<= 5 s", holds=took <= SECONDS)
    failed = [check.name for check in verify_mixed(made) if check.outcome is not Outcome.OK]
    yield Row(job=name, found=f"failed checks: {', '.join(failed) or 'none'}", bar="none", holds=not failed)


def _three_levels() -> Row:
    found = sharded(64)
    ratio = found["ZeRO++"].messages_s / found["three levels"].messages_s
    step = found["ZeRO++"].step_time_s / found["three levels"].step_time_s
    return Row(
        job="20B, 384 GCDs of Frontier, three levels of shards",
        found=f"{ratio:.2f}x ZeRO++ in messages (claimed: 1.71x), {step:.3f}x in steps",
        bar="> 1x",
        holds=ratio > 1 and step > 1,
    )


def _planned(
    model: str,
    cluster: str | MixedClusterEntry,
    **job: Any,  # noqa: ANN401 - fields of the job, and links
) -> tuple[MixedInputs, MixedPlan, float]:
    begun = process_time()
    inputs = mixed_inputs(model, cluster, **JOB, **job)
    made = plan_of_mixed(inputs).plan
    return inputs, made, process_time() - begun
