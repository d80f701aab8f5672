"""What an offload plan says, as numbers and names."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from meshwright.costmodels.layout import Layout
from meshwright.planner.figures import significant, significant_bytes
from meshwright.planner.offload.decision import Choice
from meshwright.planner.offload.evaluation import Evaluation
from meshwright.planner.offload.problem import CLASSES, Problem
from meshwright.planner.offload.target import OffloadTarget


@dataclass(frozen=True, slots=True, kw_only=True)
class OffloadPlan:
    """What of a layout stays on the device, moves or is computed again, and what that comes to.

    lower_bound_s: no decision under the same laws is faster. slower_than_free: what choosing only what the target can
    express costs, relative. baselines: of each system without a plan, None where it doesn't fit.
    seconds: that the decision took, of them lp_s in the linear program.
    """

    model: str
    cluster: str
    target: OffloadTarget
    layout: Layout
    problem: Problem
    chosen: Evaluation
    lower_bound_s: float
    slower_than_free: float
    baselines: Mapping[str, Evaluation | None]
    settings: Mapping[str, Any]
    seconds: float
    lp_s: float

    @property
    def step_time_s(self) -> float:
        """Seconds of a step."""
        return self.chosen.step_time_s

    @property
    def gap(self) -> float:
        """By how much the step is longer than its bound, relative."""
        return self.step_time_s / self.lower_bound_s - 1

    @property
    def optimizer(self) -> dict[str, float]:
        """Shares of the optimizer's parameters, which sum to one; those on drives are among the host's."""
        shares = self.chosen.decision.shares
        named = {
            "cpu": shares.cpu,
            "streamed": shares.streamed,
            "resident": shares.resident,
        }
        on_drives = {"nvme": shares.nvme} if shares.nvme else {}
        return {name: significant(float(share)) for name, share in (named | on_drives).items()}

    @property
    def activations(self) -> tuple[dict[str, str], ...]:
        """The choice of each layer of a rank, by class."""
        names = {choice.value: choice.name.lower() for choice in Choice}
        kept = self.problem.layers.kept_bytes
        return tuple(
            {
                str(name): names[int(choice)]
                for name, choice, size in zip(CLASSES, row, kept[layer], strict=True)
                if size > 0
            }
            for layer, row in enumerate(self.chosen.decision.choices)
        )

    @property
    def parameters(self) -> tuple[str, ...]:
        """What becomes of each layer's parameters: streamed, or kept as the layout shards them."""
        sharded = "sharded" if self.layout.zero_stage >= 3 and self.layout.shards["parameter_shard"] > 1 else "kept"
        return tuple("streamed" if share else sharded for share in self.chosen.decision.streamed)

    @property
    def streamed_shares(self) -> tuple[float, ...]:
        """The share of each layer's parameters that streams."""
        return tuple(float(share) for share in self.chosen.decision.streamed)

    @property
    def memory_bytes(self) -> dict[str, int]:
        """Peak of a rank: on the device as nvidia-smi shows it, on its host and its drives."""
        memory = self.chosen.memory
        sizes = {
            "device": self.problem.memory.shown_bytes(memory.device),
            "host": memory.host,
            "nvme": memory.nvme,
        }
        return {name: significant_bytes(size) for name, size in sizes.items()}
