"""How many of a cluster's devices a plan may use."""

from collections.abc import Iterator

from meshwright.catalog.errors import MissingData
from meshwright.planner.job_inputs import job_of
from meshwright.planner.layout.objective import BY_DEVICE_SECONDS, Objective
from meshwright.planner.layout.space import space_of
from meshwright.planner.plan_schema import Inputs


def device_numbers(inputs: Inputs) -> tuple[int, ...]:
    """List the numbers of devices to search, each below what the cluster has or that.

    Where nothing else is asked that is all devices; for the least price or energy of a token also halves of halves, as
    long as nodes stay whole; for the fewest devices all whole nodes, from one up. Where no layout of all devices is
    legal, whatever the limits (13 devices for 64 sequences), the largest number of which one is takes their place.

    Raises MissingData where a price is needed and the catalog has none.
    """
    objective = inputs.job.objective
    if objective is Objective.COST and inputs.device.entry.price is None:
        raise MissingData(
            f"the catalog has no price for {inputs.device.entry.name}",
            hint="add price.hourly to the device's file, with its source, or plan for time or memory",
        )
    devices, node = inputs.cluster.entry.devices, inputs.cluster.entry.devices_per_node
    if objective is Objective.DEVICES:
        return (*range(node, devices, node), devices)
    return halved_numbers(inputs) if objective in BY_DEVICE_SECONDS else (_largest_usable(inputs),)


def halved_numbers(inputs: Inputs) -> tuple[int, ...]:
    """List the largest usable number of devices and its halves, as long as nodes stay whole."""
    return tuple(_halves(_largest_usable(inputs), inputs.cluster.entry.devices_per_node))


def _largest_usable(inputs: Inputs) -> int:
    devices = inputs.cluster.entry.devices
    return next((number for number in range(devices, 0, -1) if _has_layouts(inputs, number)), devices)


def _has_layouts(inputs: Inputs, devices: int) -> bool:
    return len(space_of(job_of(inputs, devices=devices)).branches) > 0


def _halves(devices: int, node: int) -> Iterator[int]:
    yield devices
    while devices % (2 * node) == 0:
        devices //= 2
        yield devices
