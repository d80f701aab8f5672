"""What saving and failing is made of: the state of a plan, bandwidths, and how often devices fail."""

from dataclasses import dataclass
from math import expm1

from meshwright.catalog.errors import InputError
from meshwright.catalog.precision import Precision
from meshwright.costmodels.parameter_bytes import MASTER_BYTES
from meshwright.costmodels.transformer import transformer_of
from meshwright.hardware.device import device_of
from meshwright.planner.plan_schema import Plan
from meshwright.planner.resharding.between import machines_of
from meshwright.planner.resharding.placement import placement_of
from meshwright.planner.resharding.tensors import tensors_of

# 78 % of the unexpected interruptions of Llama 3's training were the hardware's (arXiv 2407.21783, section 3.3.4): the
# others leave the memory of the host as it was.
SOFT_SHARE = 0.22
# Llama 3's storage sustains 2 TB/s for 16,384 devices (arXiv 2407.21783, section 3.3.1).
STORAGE_BYTES_PER_S_A_DEVICE = 2e12 / 16384
RESTART_S = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Failures:
    """How often something fails, and what that takes.

    device_mtbf_s: mean time between failures of one device with its share of all else that stops the job. soft_share:
    of failures, those after which the memory of all hosts is as it was. restart_s: from a failure until state is read:
    to notice, replace and start again.
    """

    device_mtbf_s: float
    soft_share: float = SOFT_SHARE
    restart_s: float = RESTART_S

    def __post_init__(self) -> None:
        """Refuse what can't be. Raises InputError."""
        if not 0 <= self.soft_share <= 1:
            raise InputError(f"is {self.soft_share}; a share is from 0 to 1", path="--soft-share")


@dataclass(frozen=True, slots=True, kw_only=True)
class Saving:
    """The state of a plan, and how fast it is saved.

    step_s: seconds of a step. hidden_s: of those, while the state doesn't change: all but the optimizer's.
    device_bytes: what the busiest device saves. total_bytes: of all state, once.
    host_bytes_per_s: between a device and its host. network_bytes_per_s: between a device and another node, 0 where
    there is none. storage_bytes_per_s: of all devices together. host_bytes: what a device's share of its host holds.
    devices, node_devices: of the plan, and of a node.
    """

    step_s: float
    hidden_s: float
    device_bytes: float
    total_bytes: float
    host_bytes_per_s: float
    network_bytes_per_s: float
    storage_bytes_per_s: float
    host_bytes: float
    devices: int
    node_devices: int

    @property
    def snapshot_s(self) -> float:
        """Seconds of a copy of each device's state on its host."""
        return self.device_bytes / self.host_bytes_per_s

    @property
    def mirror_s(self) -> float:
        """Seconds of sending that copy to another node; 0 where there is none."""
        return self.device_bytes / self.network_bytes_per_s if self.network_bytes_per_s else 0.0

    @property
    def storage_s(self) -> float:
        """Seconds of writing or reading all state once."""
        return self.total_bytes / self.storage_bytes_per_s

    def both_lost(self, failures: Failures) -> float:
        """Give the probability that a node fails before what another one held for it is mirrored again."""
        node_rate = (1 - failures.soft_share) * self.node_devices / failures.device_mtbf_s
        return -expm1(-node_rate * (failures.restart_s + self.mirror_s))


def saving_of(plan: Plan, *, host_bytes_per_s: float | None = None, storage_bytes_per_s: float | None = None) -> Saving:
    """Give what saving the state of a plan is made of.

    Args:
        plan: whose state it is: master weights (or fp32 parameters) and moments; the rest follows from those.
        host_bytes_per_s: between a device and its host, if not as the catalog has it.
        storage_bytes_per_s: of all devices together, if not what Llama 3's storage has for as many.

    Raises MissingData where the catalog doesn't know the link to the host.

    """
    device = device_of(plan.inputs.device.entry)
    stages = _stage_bytes(plan)
    per_stage = plan.mesh.devices // len(stages)
    cluster = machines_of(plan).cluster
    outer = cluster.tiers[-1]
    joined = outer.bandwidth_bytes_per_s * outer.efficiency / outer.oversubscription
    whole = plan.mesh.devices > plan.inputs.cluster.entry.devices_per_node
    return Saving(
        step_s=plan.predicted.step_time_s,
        hidden_s=plan.predicted.step_time_s - plan.predicted.time_breakdown_s.get("optimizer", 0.0),
        device_bytes=max(stages) / per_stage,
        total_bytes=sum(stages),
        host_bytes_per_s=host_bytes_per_s or device.host_bandwidth("link_bandwidth"),
        network_bytes_per_s=joined if whole else 0.0,
        storage_bytes_per_s=storage_bytes_per_s or STORAGE_BYTES_PER_S_A_DEVICE * plan.mesh.devices,
        host_bytes=device.host_memory_bytes,
        devices=plan.mesh.devices,
        node_devices=plan.inputs.cluster.entry.devices_per_node,
    )


def _stage_bytes(plan: Plan) -> list[float]:
    """Give the bytes of state of each stage, once: of what several stages hold, each saves its part."""
    placement = placement_of(plan, gradients=False)
    kept = [state for state in placement.states if state.name != "parameter"]
    masters = sum(state.element_bytes for state in kept if state.name == "master")
    whole = masters == MASTER_BYTES and plan.inputs.job.precision is not Precision.FP32
    each = sum(state.element_bytes for state in (kept if whole else placement.states))
    stages = [0.0] * len(plan.stages)
    for tensor in tensors_of(transformer_of(plan.inputs.model.entry)):
        held = placement.stages_of(tensor)
        for stage in held:
            stages[stage] += tensor.elements * each / len(held)
    return stages
