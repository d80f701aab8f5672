"""The nodes that a plan's ranks fill, in the order of the ranks: rank // devices is the number of the node."""

import re
from dataclasses import dataclass

from meshwright.planner.plan_schema import Plan

LONGEST_NAME = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Nodes:
    """`nodes` of `devices` each; `job` is a name for what runs on them that every scheduler takes."""

    nodes: int
    devices: int
    vendor: str
    device: str
    job: str

    @property
    def whole(self) -> bool:
        """Whether each node has the same number of ranks."""
        return self.nodes > 0


def nodes_of(plan: Plan) -> Nodes:
    """Give the nodes of a plan; `nodes` is 0 where its ranks don't fill whole ones."""
    devices, per_node = plan.mesh.devices, plan.inputs.cluster.entry.devices_per_node
    each = min(devices, per_node)
    return Nodes(
        nodes=0 if devices % each else devices // each,
        devices=each,
        vendor=plan.inputs.device.entry.vendor,
        device=plan.inputs.device.entry.name,
        job=_job_name(plan.inputs.model.entry.name),
    )


def _job_name(model: str) -> str:
    """Give a name as DNS labels are (RFC 1123): lower case, digits and dashes, begun and ended by neither."""
    words = re.findall(r"[a-z0-9]+", model.lower())
    return "-".join(["train", *words])[:LONGEST_NAME].rstrip("-")
