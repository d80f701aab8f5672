"""What a user asks for: the state of one plan file as another plan wants it, or a consolidated checkpoint."""

import numpy as np

from meshwright.catalog.errors import InputError
from meshwright.costmodels.transformer import transformer_of
from meshwright.hardware.cluster import cluster_of
from meshwright.planner.plan_schema import Plan
from meshwright.planner.resharding.machines import Machines
from meshwright.planner.resharding.placement import placement_of
from meshwright.planner.resharding.reshard import Reshard, resharded
from meshwright.planner.resharding.tensors import tensors_of


def reshard(
    old: Plan | None, new: Plan | None, *, gradients: bool = True, storage_bytes_per_s: float | None = None
) -> Reshard:
    """Solve what moves from one plan's state to another's, of which one may be None: a consolidated checkpoint.

    Args:
        old: the plan by which the state lies.
        new: the plan by which it is to lie, on devices of the same numbers.
        gradients: whether the sums of gradients move too; between two steps they are 0. A checkpoint has none.
        storage_bytes_per_s: what all devices together read and write of a checkpoint.

    Raises InputError where the plans aren't of one model, one kind of cluster and one form of state.

    """
    given = [plan for plan in (old, new) if plan is not None]
    if not given:
        raise InputError("both sides are a checkpoint, which doesn't change", hint="name one plan at least")
    if old is not None and new is not None:
        require_alike(old, new)
    sides = [None if plan is None else placement_of(plan, gradients=gradients) for plan in (old, new)]
    numbers = [0 if plan is None else plan.mesh.devices for plan in (old, new)]
    return resharded(
        transformer_of(given[0].inputs.model.entry),
        sides[0],
        sides[1],
        machines_of(*given, storage_bytes_per_s=storage_bytes_per_s),
        old_devices=np.arange(numbers[0]),
        new_devices=np.arange(numbers[1]),
    )


def machines_of(*plans: Plan, storage_bytes_per_s: float | None = None) -> Machines:
    """Give the machines of plans on one kind of cluster: as many as the larger one has."""
    widest = max(plans, key=lambda plan: plan.inputs.cluster.entry.devices)
    entry = widest.inputs.cluster.entry.model_copy(update={"device": widest.inputs.device.entry})
    return Machines(cluster=cluster_of(entry), storage_bytes_per_s=storage_bytes_per_s)


def require_alike(old: Plan, new: Plan) -> None:
    """Raise InputError where state can't move between two plans: they differ in model, cluster, or what they keep."""
    before, after = old.inputs, new.inputs
    if tensors_of(transformer_of(before.model.entry)) != tensors_of(transformer_of(after.model.entry)):
        raise InputError(
            f"is {after.model.entry.name}; the old plan is of {before.model.entry.name}"
            if after.model.entry.name != before.model.entry.name
            else f"has other dimensions than the old plan's {before.model.entry.name}",
            path="inputs.model",
            hint="state moves between plans of one model",
        )
    tiers = [inputs.cluster.entry.tiers for inputs in (before, after)]
    if tiers[0] != tiers[1] or before.device.entry.name != after.device.entry.name:
        raise InputError(
            f"is {after.cluster.entry.name}; the old plan is on {before.cluster.entry.name}",
            path="inputs.cluster",
            hint="between clusters go by way of a checkpoint: reshard OLD checkpoint, then reshard checkpoint NEW",
        )
    kept = [placement_of(plan).states for plan in (old, new)]
    if [(state.name, state.element_bytes) for state in kept[0]] != [
        (state.name, state.element_bytes) for state in kept[1]
    ]:
        raise InputError(
            f"{after.stack.entry.name} keeps other states in {after.job.precision} than {before.stack.entry.name} in "
            f"{before.job.precision}",
            path="inputs.stack",
            hint="plan both with one --stack and --precision",
        )
