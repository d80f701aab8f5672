"""ZeRO-3 of GPT-NeoX 20B on 384 dies of Frontier, by tiers: as ZeRO++ shards it, and as arXiv 2501.04266 does."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from meshwright.costmodels.layout import Layout, LayoutTable, Recompute
from meshwright.costmodels.predict import predict_memory, predict_time
from meshwright.costmodels.stage_table import stage_table
from meshwright.costmodels.state import stage_parameters
from meshwright.costmodels.state_messages import state_messages
from meshwright.planner.job_inputs import inputs_of, job_of

MODEL = Path(__file__).parent / "offload" / "gpt-neox-20b.yaml"
DIES, NODE, CARD = 384, 8, 2
ALL_OVER = Layout(data_parallel=DIES, zero_stage=3, zero_shard=DIES, recompute=Recompute.FULL, micro_batch=1)
WAYS = {
    "ZeRO-3": ALL_OVER,
    "ZeRO++": replace(ALL_OVER, backward_shard=NODE),
    "MiCS": replace(ALL_OVER, zero_shard=NODE),
    "three levels": replace(ALL_OVER, gradient_shard=NODE, parameter_shard=CARD),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharded:
    """What a way comes to: its step, the messages of its states in a step if nothing hides them, and its peak."""

    step_time_s: float
    messages_s: float
    peak_bytes: float


def sharded(micro_batches: int) -> dict[str, Sharded]:
    """Give all ways, with so many micro-batches a step."""
    inputs = inputs_of(
        str(MODEL),
        f"frontier:{DIES}",
        stack="deepspeed-zeropp",
        global_batch=DIES * micro_batches,
        sequence_length=2048,
        precision="bf16",
        objective="time",
        top=0,
        memory_headroom=0.05,
        limits={},
    )
    job, table = job_of(inputs), LayoutTable.of(WAYS.values())
    stages = stage_table(job.model, table)
    layers = np.maximum(stages.layers.sum(axis=2), 1)
    each = state_messages(job, table, stage_parameters(job, table, stages), layers)
    messages_s = micro_batches * (each.forward_gather_s + each.backward_gather_s + each.reduction_s)
    messages_s = messages_s + each.step_gather_s + each.step_reduction_s
    steps_s, peaks = predict_time(job, table).step_time_s, predict_memory(job, table).nvidia_smi_bytes
    return {
        name: Sharded(
            step_time_s=float(steps_s[row]), messages_s=float(messages_s[row, 0]), peak_bytes=float(peaks[row])
        )
        for row, name in enumerate(WAYS)
    }
