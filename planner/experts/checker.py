"""Is it a placement? Asked of every answer, in plain loops that share nothing with what found it."""

from collections.abc import Sequence

from meshwright.catalog.errors import SolverFailed


def faults(
    placement: Sequence[Sequence[int]], *, experts: int, devices: int, slots: int, most_on_device: int | None = None
) -> tuple[str, ...]:
    """Give what is wrong with a placement [layers][slots], a sentence each; nothing where all is right.

    slots: that each layer has, `slots / devices` on each device. most_on_device: experts of all layers together that a
    device's memory holds; None where it isn't known.
    """
    found = []
    if slots % devices:
        return (f"{slots} slots aren't as many on each of {devices} devices",)
    size = slots // devices
    stored = [0] * devices
    for layer, row in enumerate(placement):
        if len(row) != slots:
            found.append(f"layer {layer} has {len(row)} slots, not {slots}")
            continue
        missing = set(range(experts)) - set(row)
        strange = set(row) - set(range(-1, experts))
        if missing:
            found.append(f"layer {layer}: no slot holds expert {min(missing)}")
        if strange:
            found.append(f"layer {layer}: there is no expert {min(strange)}")
        for device in range(devices):
            here = [expert for expert in row[device * size : (device + 1) * size] if expert != -1]
            stored[device] += len(here)
            if len(here) != len(set(here)):
                found.append(f"layer {layer}: device {device} holds an expert twice")
    for device, number in enumerate(stored):
        if most_on_device is not None and number > most_on_device:
            found.append(f"device {device} holds {number} experts, and its memory {most_on_device}")
    return tuple(found)


def largest_over_mean(loads: Sequence[float], row: Sequence[int], *, devices: int) -> float:
    """Give a layer's largest device load over the mean where replicas share alike."""
    size = len(row) // devices
    share = {expert: loads[expert] / row.count(expert) for expert in set(row) if expert != -1}
    by_device = [
        sum(share[expert] for expert in row[device * size : (device + 1) * size] if expert != -1)
        for device in range(devices)
    ]
    return max(by_device) * devices / sum(loads)


def require_sound(
    placement: Sequence[Sequence[int]], *, experts: int, devices: int, slots: int, most_on_device: int | None = None
) -> None:
    """Raise SolverFailed where a placement isn't one."""
    for fault in faults(placement, experts=experts, devices=devices, slots=slots, most_on_device=most_on_device):
        raise SolverFailed(f"the placement found is wrong: {fault}", hint="please report it with the routing")
