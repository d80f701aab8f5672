"""Where state can be saved to, and what that takes: a level, synchronous or lazy.

    level      saved to                               is enough after                       else
    storage    all devices write all state once       every failure                         -
    host       each device's host                     failures that leave hosts as they were  the last one on storage
    memory     its host, and another node's memory    those, and nodes that fail one by one   the last one on storage

Storage is fed from the hosts meanwhile, as often as it can be written. A synchronous copy stops training until it is
done. A lazy one (arXiv 2406.10707) runs beside the next step's passes, which don't change the state: training waits
only for what of the copy to the host is longer than those. It is good once it is done: after `late_s`. In memory with
redundancy is Gemini's (doi 10.1145/3600006.3613145).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from meshwright.planner.goodput.machine import Failures, Saving

# The copy that is good, and the one that is being made.
COPIES = 2


class Level(StrEnum):
    """Where state is saved to."""

    MEMORY = "memory"
    HOST = "host"
    STORAGE = "storage"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """Failures of one kind, and the copies that help after them.

    per_s: how often. restart_s: from such a failure until training goes on. blocked_s: what making a copy stops
    training for. late_s: how long it isn't good yet after that. least_s: copies can't be made more often.
    """

    per_s: float
    restart_s: float
    blocked_s: float
    late_s: float
    least_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """A way of saving: near copies, None where there are none, and those on storage, good after every failure."""

    level: Level
    lazy: bool
    near: Recovery | None
    storage: Recovery


def schemes(saving: Saving, failures: Failures) -> Iterator[Scheme]:
    """Give the ways of saving that hosts have the memory for, and the cluster the nodes."""
    rate = saving.devices / failures.device_mtbf_s
    for lazy in (False, True):
        blocked = max(saving.snapshot_s - saving.hidden_s, 0.0) if lazy else saving.storage_s
        late = saving.storage_s if lazy else 0.0
        yield Scheme(level=Level.STORAGE, lazy=lazy, near=None, storage=_storage(saving, failures, rate, blocked, late))
        if saving.host_bytes >= COPIES * saving.device_bytes:
            yield _near(Level.HOST, saving, failures, lazy=lazy)
        if saving.network_bytes_per_s and saving.host_bytes >= 2 * COPIES * saving.device_bytes:
            yield _near(Level.MEMORY, saving, failures, lazy=lazy)


def _storage(saving: Saving, failures: Failures, per_s: float, blocked_s: float, late_s: float) -> Recovery:
    return Recovery(
        per_s=per_s,
        restart_s=failures.restart_s + saving.storage_s,
        blocked_s=blocked_s,
        late_s=late_s,
        least_s=late_s,
    )


def _near(level: Level, saving: Saving, failures: Failures, *, lazy: bool) -> Scheme:
    rate = saving.devices / failures.device_mtbf_s
    helped, copy_s = failures.soft_share, saving.snapshot_s
    if level is Level.MEMORY:
        helped += (1 - failures.soft_share) * (1 - saving.both_lost(failures))
        copy_s += saving.mirror_s
    near = Recovery(
        per_s=rate * helped,
        restart_s=failures.restart_s + copy_s,
        blocked_s=max(saving.snapshot_s - saving.hidden_s, 0.0) if lazy else copy_s,
        late_s=copy_s if lazy else 0.0,
        least_s=copy_s if lazy else 0.0,
    )
    storage = _storage(saving, failures, rate * (1 - helped), 0.0, saving.storage_s)
    return Scheme(level=level, lazy=lazy, near=near, storage=storage)
