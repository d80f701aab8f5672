"""How many of a cluster's devices a plan may use."""

from functools import partial

from meshwright.catalog.errors import MissingData
from meshwright.costmodels.job import Job
from meshwright.planner.job_inputs import job_of
from meshwright.planner.layout.objective import BY_DEVICE_SECONDS, Objective
from meshwright.planner.layout.usable import largest_usable
from meshwright.planner.plan_schema import Inputs
from meshwright.planner.targets import limits_under

# So many rounder numbers of devices are tried where all of them factor badly.
ROUNDER = 4


def device_numbers(inputs: Inputs) -> tuple[int, ...]:
    """List the numbers of devices to search, each below what the cluster has or that.

    Where nothing else is asked that is all devices, with the next rounder numbers below where they factor badly; for
    the least price or energy of a token round numbers of nodes below; for the fewest all whole nodes, from one up.
    Where no layout of all devices is legal (13 devices for 64 sequences), the largest number of which one is takes
    their place, within limits and by what the target runs; where these leave none of any, whatever they are.

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
    return round_numbers(inputs) if objective in BY_DEVICE_SECONDS else _usable_and_round(inputs)


def round_numbers(inputs: Inputs) -> tuple[int, ...]:
    """List the largest usable number of devices, and below it whole nodes in powers of two and three times those."""
    usable, node = _largest_usable(inputs), inputs.cluster.entry.devices_per_node
    below = {node * times * 2**power for times in (1, 3) for power in range((usable // node).bit_length())}
    return (usable, *sorted((number for number in below if number < usable), reverse=True))


def _usable_and_round(inputs: Inputs) -> tuple[int, ...]:
    """List the largest usable number and, where it factors badly, rounder ones below it, which may be faster.

    Those are the multiples of an eighth of the largest power of two up to it (of 127: 120, 112, 104, 96), which have
    one small odd factor each, and what divides pipelines, replicas and experts otherwise.
    """
    usable, node = _largest_usable(inputs), inputs.cluster.entry.devices_per_node
    nodes, rest = divmod(usable, node)
    is_round = not rest and (nodes & (nodes - 1) == 0 or (nodes % 3 == 0 and (nodes // 3) & (nodes // 3 - 1) == 0))
    if is_round or usable <= node:
        return (usable,)
    eighth = max(1, 2 ** (usable.bit_length() - 1) // 8)
    rounder = range((usable - 1) // eighth * eighth, 0, -eighth)
    return (usable, *rounder[:ROUNDER])


def _largest_usable(inputs: Inputs) -> int:
    return largest_usable(
        partial(_job_on, inputs), inputs.cluster.entry.devices, limits_under(inputs.job.target, inputs.job.limits)
    )


def _job_on(inputs: Inputs, devices: int) -> Job:
    return job_of(inputs, devices=devices)
