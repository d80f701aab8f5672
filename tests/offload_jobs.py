"""The six jobs that offload splits are held against their baselines on."""

from dataclasses import dataclass
from pathlib import Path

from meshwright.planner.offload import OffloadPlan, plan_offload

FILES = Path(__file__).parent / "offload"


@dataclass(frozen=True, slots=True, kw_only=True)
class OffloadJob:
    """A job of DeepSpeed's software, sharded over all its devices. batch: sequences of a step, of 2048 tokens."""

    name: str
    model: str
    cluster: str
    ranks: int
    batch: int

    def plan(self, target: str = "free") -> OffloadPlan:
        """Decide what it offloads."""
        sharded = {"data_parallel": self.ranks, "zero_stage": 3, "zero_shard": self.ranks} if self.ranks > 1 else {}
        return plan_offload(
            self.model,
            self.cluster,
            layout=sharded,
            global_batch=self.batch,
            sequence_length=2048,
            stack="deepspeed-zero3",
            target=target,
        )


JOBS = (
    OffloadJob(name="20B/4xA100", model=str(FILES / "gpt-neox-20b.yaml"), cluster="selene:4", ranks=4, batch=16),
    OffloadJob(name="70B/8xH100", model="llama-2-70b", cluster="dgx-h100:8", ranks=8, batch=32),
    OffloadJob(name="70B/16xA100", model="llama-2-70b", cluster="selene:16", ranks=16, batch=32),
    OffloadJob(name="13B/1xA100", model="llama-2-13b", cluster="selene:1", ranks=1, batch=8),
    OffloadJob(name="7B/24 GB card", model="llama-2-7b", cluster=str(FILES / "card-24gb.yaml"), ranks=1, batch=4),
    OffloadJob(name="175B/8xH200", model="gpt3-175b", cluster="dgx-h200:8", ranks=8, batch=32),
)
