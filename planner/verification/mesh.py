"""Degrees multiply to the devices, and the groups of each axis partition the ranks.

A group of an axis of `size` and `stride` is the ranks first, first + stride, ..., of a first rank whose
(rank // stride) mod size is 0. Ranks are written out group by group, and none may be left out or met twice.
"""

from math import prod

from meshwright.planner.plan_schema import Plan
from meshwright.planner.verification.check import Failures, Found, numbers

# By axis of the mesh, the degree of the layout that is its size.
DEGREES = {
    "tensor": "tensor_parallel",
    "context": "context_parallel",
    "data": "data_parallel",
    "pipeline": "pipeline_parallel",
}
# By order of the axes, what ranks count through, fastest first: of the mesh, and of the experts'.
ORDERS = {
    "tp-cp-dp-pp": (("tensor", "context", "data", "pipeline"), ("expert_tensor", "expert", "expert_data", "pipeline")),
    "tp-cp-pp-dp": (("tensor", "context", "pipeline", "data"), ("expert_tensor", "expert", "pipeline", "expert_data")),
}
EXPERT_DEGREES = {"expert_tensor": "expert_tensor_parallel", "expert": "expert_parallel"}
EXPERT_AXES = (*EXPERT_DEGREES, "expert_data")


def degrees(plan: Plan) -> Found:
    """Check that the degrees multiply to the devices, that expert degrees too, and that idle ones are what is left."""
    mesh, layout = plan.mesh, plan.layout
    sizes = [getattr(layout, degree) for degree in DEGREES.values()]
    what = f"{' x '.join(map(str, sizes))} = {mesh.devices} devices, {mesh.idle} idle"
    return what, _degrees(plan, prod(sizes))


def _degrees(plan: Plan, product: int) -> Failures:
    mesh, layout, devices = plan.mesh, plan.layout, plan.inputs.cluster.entry.devices
    if product != mesh.devices:
        yield "mesh.devices", f"is {mesh.devices}; the layout's degrees multiply to {product}"
    if mesh.devices + mesh.idle != devices:
        yield "mesh.idle", f"is {mesh.idle}; {mesh.devices} of the cluster's {devices} devices leave another number"
    stage = layout.tensor_parallel * layout.context_parallel * layout.data_parallel
    experts = layout.expert_tensor_parallel * layout.expert_parallel
    if stage % experts:
        yield "layout.expert_parallel", f"{experts} expert x expert-tensor ranks don't divide a stage's {stage} ranks"
    if layout.context_parallel % layout.ulysses_parallel:
        path = "layout.ulysses_parallel"
        yield path, f"{layout.ulysses_parallel} ranks don't divide the {layout.context_parallel} of a context group"


def groups(plan: Plan) -> Found:
    """Check that the groups of each axis partition the ranks, and that axes cross: no two ranks are at one place."""
    count = sum(plan.mesh.devices // axis.size for axis in plan.mesh.groups.values())
    return f"{count:,} groups of {len(plan.mesh.groups)} axes partition {plan.mesh.devices:,} ranks", _groups(plan)


def _groups(plan: Plan) -> Failures:
    known = plan.mesh.groups
    axes = _axes(plan)
    wrong = set(known) ^ set(axes)
    if wrong:
        yield "mesh.groups", f"must be those of {', '.join(axes)}; {', '.join(sorted(wrong))} isn't so"
        return
    # Sizes first: groups are as large as a file says, and only those of the layout's are worth writing out.
    broken = list(_sizes(plan)) or [found for name in axes for found in _partition(plan, name)]
    yield from broken
    if not broken:
        order, expert_order = ORDERS[plan.layout.axis_order]
        yield from _places(plan, "mesh.order", plan.mesh.order, order)
        if set(EXPERT_AXES) <= set(axes):
            yield from _places(plan, "mesh.expert_order", plan.mesh.expert_order, expert_order)
        yield from _zero_groups(plan)


def _axes(plan: Plan) -> tuple[str, ...]:
    """Give the axes that have groups: experts' too, unless stages lie within replicas as wide as no expert's."""
    layout = plan.layout
    alike = layout.expert_tensor_parallel * layout.expert_parallel == layout.tensor_parallel
    of_experts = EXPERT_AXES if alike or layout.axis_order == "tp-cp-dp-pp" else ()
    return (*DEGREES, *of_experts, "data_context")


def _sizes(plan: Plan) -> Failures:
    layout, known = plan.layout, plan.mesh.groups
    stage = layout.tensor_parallel * layout.context_parallel * layout.data_parallel
    experts = layout.expert_tensor_parallel * layout.expert_parallel
    expected = {name: getattr(layout, degree) for name, degree in (DEGREES | EXPERT_DEGREES).items()}
    expected |= {"expert_data": stage // experts, "data_context": layout.data_parallel * layout.context_parallel}
    for name, axis in known.items():
        size = expected[name]
        if axis.size != size:
            yield f"mesh.groups.{name}.size", f"is {axis.size}; the layout has {size} ranks on that axis"


def _partition(plan: Plan, name: str) -> Failures:
    axis, devices = plan.mesh.groups[name], plan.mesh.devices
    met: set[int] = set()
    beyond: list[int] = []
    for first in range(devices):
        if first // axis.stride % axis.size:
            continue
        for position in range(axis.size):
            rank = first + position * axis.stride
            if rank >= devices or rank in met:
                beyond.append(rank)
            met.add(rank)
    path = f"mesh.groups.{name}.stride"
    if beyond:
        overlap = [rank for rank in beyond if rank < devices]
        told = f"ranks {numbers(overlap)} are in two" if overlap else f"ranks {numbers(beyond)} don't exist"
        yield path, f"is {axis.stride}, by which groups of {axis.size} don't partition {devices} ranks: {told}"
    elif len(met) < devices:
        lost = sorted(set(range(devices)) - met)
        yield path, f"is {axis.stride}, by which ranks {numbers(lost)} are in no group of {axis.size}"


def _places(plan: Plan, path: str, order: tuple[str, ...], expected: tuple[str, ...]) -> Failures:
    """Count through the axes of an order, the first one fastest: every rank is where its number says."""
    if order != expected:
        yield path, f"is {', '.join(order)}; plans number ranks by {', '.join(expected)}"
        return
    axes = [(name, plan.mesh.groups[name]) for name in order]
    stride = 1
    for name, axis in axes:
        if axis.size > 1 and axis.stride != stride:
            yield (
                f"mesh.groups.{name}.stride",
                f"is {axis.stride}, by which its groups overlap another axis's: {stride} don't",
            )
        stride *= axis.size
    places = {tuple(rank // axis.stride % axis.size for _, axis in axes) for rank in range(plan.mesh.devices)}
    if len(places) != plan.mesh.devices:
        yield path, f"{plan.mesh.devices} ranks are at {len(places)} places of the mesh: groups of two axes overlap"


def _zero_groups(plan: Plan) -> Failures:
    """Check that the ranks that ZeRO shards over are those that differ in data and context alone."""
    known, devices = plan.mesh.groups, plan.mesh.devices
    both: dict[tuple[int, int], set[int]] = {}
    for rank in range(devices):
        rest = tuple(rank // known[name].stride % known[name].size for name in ("tensor", "pipeline"))
        both.setdefault((rest[0], rest[1]), set()).add(rank)
    axis = known["data_context"]
    for ranks in both.values():
        first = min(ranks)
        if {first + position * axis.stride for position in range(axis.size)} != ranks:
            yield "mesh.groups.data_context.stride", f"is {axis.stride}; data and context groups together are otherwise"
            return
