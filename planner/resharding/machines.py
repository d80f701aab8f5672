"""The devices between which state moves, and the tiers of their network.

Devices are numbered as the cluster's are; a consolidated checkpoint is another device, beside all of them, behind a
tier of its own that is slower than any other.
"""

from dataclasses import dataclass

import numpy as np

from meshwright.catalog.cluster_entry import Topology
from meshwright.costmodels.layout import IntArray
from meshwright.hardware.cluster import Cluster, Tier

STORAGE = "storage"


@dataclass(frozen=True, slots=True, kw_only=True)
class Machines:
    """A cluster, and what reads and writes a checkpoint: bytes/s of all devices together, None where that isn't known.

    storage: the number of the checkpoint among the devices.
    """

    cluster: Cluster
    storage_bytes_per_s: float | None = None

    @property
    def storage(self) -> int:
        """The number of the checkpoint among the devices: behind all, at the begin of an instance of every tier."""
        below = self.cluster.tiers[-2].group if len(self.cluster.tiers) > 1 else 1
        return -(-self.cluster.devices // below) * below

    @property
    def numbers(self) -> int:
        """A number that is larger than any device's."""
        return 2 * self.storage

    @property
    def groups(self) -> tuple[int, ...]:
        """Devices of an instance of each tier, innermost first; the last one holds the checkpoint too."""
        inner = [tier.group for tier in self.cluster.tiers[:-1]]
        return (*inner, self.storage, self.numbers)

    def name(self, tier: int) -> str:
        """Give the name of a tier."""
        return self.cluster.tiers[tier].name if tier < len(self.cluster.tiers) else STORAGE

    def seconds(self, tier: int, source: IntArray, destination: IntArray, moved_bytes: IntArray) -> float | None:
        """Give how long transfers over one tier take, at once: as long as the busiest device, or link, of it needs.

        None where they are to or from a checkpoint of unknown bandwidth.
        """
        if tier >= len(self.cluster.tiers):
            total = float(moved_bytes.sum())
            return None if self.storage_bytes_per_s is None else total / self.storage_bytes_per_s
        link, inner = self.cluster.tiers[tier], self.groups[tier - 1] if tier else 1
        busiest = max(_busiest(source, moved_bytes), _busiest(destination, moved_bytes))
        seconds = busiest / _bytes_per_s(link)
        if link.topology is Topology.MESH:
            pairs = _busiest(source * self.numbers + destination // inner, moved_bytes)
            seconds = max(seconds, pairs / (_bytes_per_s(link) / max(link.group / inner - 1, 1)))
        return seconds + link.startup_s + link.latency_s


def _bytes_per_s(tier: Tier) -> float:
    return tier.bandwidth_bytes_per_s * tier.efficiency / tier.oversubscription


def _busiest(where: IntArray, moved_bytes: IntArray) -> float:
    """Give the most bytes of any one number."""
    order = np.argsort(where, kind="stable")
    first = np.flatnonzero(np.diff(where[order], prepend=-1))
    return float(np.add.reduceat(moved_bytes[order], first).max(initial=0))
