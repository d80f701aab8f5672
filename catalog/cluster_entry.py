"""The schema of `catalog/clusters/*.yaml`: devices in a hierarchy of network tiers, innermost first."""

from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, model_validator

from meshwright.catalog.device_entry import DeviceEntry
from meshwright.catalog.entry import Count, Entry, Fraction, Name, Source, field_error
from meshwright.catalog.quantity import BytesPerSecond, Seconds


class Topology(StrEnum):
    """The shape of a tier, which decides how much of its bandwidth a group of some of its members can use.

    switch: every device's full bandwidth to any peer (NVSwitch, NVL72).
    mesh: direct links to each peer; g of the n members use (g-1)/(n-1) of a device's links (HCCS, Infinity Fabric).
    ring: neighbour links only, shared by what passes through (NVLink bridges).
    shared_bus: one path that all share (PCIe through the host); the bandwidth is a device's share with all at work.
    fabric: NICs into a network of switches; a group uses the NICs of the devices it has in each node.
    """

    SWITCH = "switch"
    MESH = "mesh"
    RING = "ring"
    SHARED_BUS = "shared_bus"
    FABRIC = "fabric"


class TierEntry(Entry):
    """One level of the network.

    group: devices that one instance of the tier joins; null for the outermost tier, which joins the whole cluster.
    bandwidth: payload per device and direction.
    link_devices: devices that share one link into the tier, of which one alone has all of it (2: four NICs for eight).
    latency: of one message step between two members.
    startup: of a collective of megabytes, whatever its size: launch, and the ramp of its pipeline.
    efficiency: share of the bandwidth that large collectives sustain.
    oversubscription: bandwidth into the tier over bandwidth through it (1: full bisection).
    in_network_reduction: share of the bandwidth that all-reduces inside the switch sustain (NVLink SHARP); null where
    the tier only passes messages on.
    """

    name: Name
    group: Count | None
    topology: Topology
    bandwidth: BytesPerSecond
    link_devices: Count = 1
    latency: Seconds
    startup: Seconds
    efficiency: Fraction
    oversubscription: Annotated[float, Field(ge=1, le=1e6)] = 1.0
    in_network_reduction: Fraction | None = None
    source: Source


class ClusterEntry(Entry):
    """`devices` of one kind (a catalog name, or a device written out), `devices_per_node`, tiers innermost first."""

    name: Name
    device: Name | DeviceEntry
    devices: Annotated[int, Field(ge=1, le=10**7, strict=True)]
    devices_per_node: Count
    tiers: Annotated[tuple[TierEntry, ...], Field(min_length=1)]
    source: Source

    @model_validator(mode="after")
    def _tiers_nest(self) -> Self:
        last = len(self.tiers) - 1
        if self.tiers[last].group is not None:
            raise field_error(f"tiers.{last}.group", "must be null: the outermost tier joins the whole cluster")
        inner = 1
        for number, tier in enumerate(self.tiers[:last]):
            if tier.group is None:
                raise field_error(f"tiers.{number}.group", "only the outermost tier may have a null group")
            if tier.group % inner or (number and tier.group == inner):
                raise field_error(
                    f"tiers.{number}.group", f"{tier.group} devices aren't whole tiers of the {inner} devices below"
                )
            self._require_whole_nodes(number, tier.group)
            inner = tier.group
        return self

    def _require_whole_nodes(self, number: int, group: int) -> None:
        if group % self.devices_per_node and self.devices_per_node % group:
            raise field_error(
                f"tiers.{number}.group",
                f"{group} devices are neither whole nodes of devices_per_node {self.devices_per_node} nor fill one",
            )
