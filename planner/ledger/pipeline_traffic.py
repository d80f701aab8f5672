"""What neighbouring stages exchange: one rank's messages in a step, a micro-batch's tokens and their gradients."""

from collections.abc import Iterator

from meshwright.planner.ledger.transfers import Kind, Transfer
from meshwright.planner.ledger.workload import Workload
from meshwright.planner.ranks import RankPlan


def pipeline_traffic(workload: Workload, rank: RankPlan) -> Iterator[Transfer]:
    """Give what a rank sends and receives; chunks that follow one another on one rank exchange nothing."""
    held = {chunk.index for chunk in workload.chunks(rank.stage)}
    before = sum(index > 0 and index - 1 not in held for index in held)
    after = sum(index < workload.last_chunk and index + 1 not in held for index in held)
    count = (before + after) * workload.micro_batches
    payload_bytes = count * workload.local_tokens * workload.model.hidden * workload.element_bytes
    for kind in (Kind.SEND, Kind.RECV):
        yield Transfer(kind=kind, ranks=rank.groups["pipeline"], count=count, payload_bytes=payload_bytes)
