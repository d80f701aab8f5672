"""The best plan after a change: what a step takes then, against the state that has to move.

Candidates are layouts that are known to be good for about as many devices: the old plan's, its runners-up, those of a
search on the next round number of devices from there up, and variants of all of them, each with as many replicas as
there is room for (`shapes.py`). Where they are more than LEFT_OPEN above the bound, all layouts are searched whose
replicas share the batch evenly on the devices that are left. Of those that fit in memory, the one with the least

    step + price x move        price: seconds of each step that a second of moving is worth

is taken. What fewer devices do more can do too, so that the least that a search proved for the round number, or for the
old plan's own devices, bounds the step from below, of all layouts whose replicas share the batch evenly: the gap that
is told is to that.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from meshwright.catalog.errors import Infeasible, InputError
from meshwright.costmodels.layout import IntArray, LayoutTable
from meshwright.costmodels.predict import predict_memory, predict_time
from meshwright.costmodels.transformer import transformer_of
from meshwright.planner.change.left import Change, Left, left_of
from meshwright.planner.change.seats import seats
from meshwright.planner.change.shapes import Shape, shapes, variants
from meshwright.planner.device_numbers import device_numbers
from meshwright.planner.figures import significant, significant_bytes
from meshwright.planner.job_inputs import job_of
from meshwright.planner.layout.objective import Objective
from meshwright.planner.layout.question import Found, SearchResult, Unfound
from meshwright.planner.layout.search import attempt
from meshwright.planner.plan_schema import Inputs, Plan, Proof
from meshwright.planner.planning import assembled, digested, memory_limit_bytes, plan_of, question_of
from meshwright.planner.replica_batches import even_inputs, predicted_with
from meshwright.planner.resharding.between import machines_of
from meshwright.planner.resharding.placement import placement_of
from meshwright.planner.resharding.reshard import Reshard, resharded

# Runners-up that a search on a round number of devices gives.
RUNNERS_UP = 3
# Shapes that are predicted, of all that are possible.
LOOKED_INTO = 32
# All even layouts are searched too where what is known leaves more than this share above the bound.
LEFT_OPEN = 0.03
TOO_LARGE = "it needs more memory than a device offers"
# Seconds of a step that a second of moving is worth: a thousand steps until the next change.
PRICE_OF_MOVE = 1e-3
Timed = tuple[float, Shape]
"""Seconds of a step, and the shape that takes them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A plan that is possible, the device of each of its ranks, and what moves to it."""

    plan: Plan
    seats: IntArray
    move: Reshard

    @property
    def move_s(self) -> float:
        """Seconds of what moves between devices, and of what is read where that is known."""
        return sum(each.time_s or 0.0 for each in self.move.traffic)


@dataclass(frozen=True, slots=True, kw_only=True)
class Replanned:
    """The answer: what was taken, of which candidates, weighed at which price; and what is left of the cluster.

    others: candidates that were weighed too, best first.
    """

    left: Left
    chosen: Candidate
    others: tuple[Candidate, ...]
    price: float


def replanned(
    old: Plan, change: Change, *, price: float = PRICE_OF_MOVE, storage_bytes_per_s: float | None = None
) -> Replanned:
    """Find the best plan for what a change leaves of a plan's cluster.

    Args:
        old: the plan that runs; its global batch, sequence length and limits stay.
        change: what is lost or added.
        price: seconds of each step that a second of moving is worth.
        storage_bytes_per_s: what all devices together read of a checkpoint, for what no device holds any more.

    Raises InputError where nothing is left or the plan offloads, and Infeasible where nothing fits.

    """
    if old.offload is not None:
        raise InputError(
            "leaves the device by this plan, and nothing is decided again for what is left of the cluster",
            path="offload",
            hint="plan with `meshwright plan` for the devices that are left",
        )
    left = left_of(old, change)
    inputs = _inputs(old, left)
    known, bound_s = _known(old, inputs)
    timed, rejected = _timed(_quickest([old, *known], inputs), inputs)
    least_s = min((step_s for step_s, _ in timed), default=math.inf)
    if least_s > (1 + LEFT_OPEN) * bound_s:
        found = _searched(inputs, slowest_s=least_s)
        timed += found
        bound_s = max(bound_s, min((step_s for step_s, _ in timed), default=bound_s))
    if not timed:
        raise Infeasible(
            f"nothing fits on the {left.devices} devices that are left",
            rejected=rejected,
            hint="`meshwright plan` says how much more memory the nearest layout needs",
        )
    timed.sort(key=lambda each: each[0])
    search = _search(timed, rejected, min(bound_s, timed[0][0]))
    weighed: list[Candidate] = []
    for step_s, shape in timed:
        if weighed and step_s >= min(_cost(each, price) for each in weighed):
            break
        plan = _plan(shape, inputs, search)
        weighed.append(_candidate(old, plan, left, storage_bytes_per_s))
    chosen, *others = sorted(weighed, key=lambda each: _cost(each, price))
    return Replanned(left=left, chosen=chosen, others=tuple(others), price=price)


def _cost(candidate: Candidate, price: float) -> float:
    return candidate.plan.predicted.step_time_s + price * candidate.move_s


def _inputs(old: Plan, left: Left) -> Inputs:
    """Give the inputs for what is left: the fastest step, within the same limits."""
    nothing = {"objective": Objective.TIME, "time_limit_s": None, "slower_by": None, "target_time_s": None}
    job = old.inputs.job.model_copy(update=nothing | {"top": 0, "target": None})
    entry = old.inputs.cluster.entry.model_copy(update={"devices": left.devices})
    cluster = old.inputs.cluster.model_copy(update={"entry": entry})
    sections = {name: getattr(old.inputs, name) for name in Inputs.model_fields}
    return Inputs(**sections | {"job": job, "cluster": cluster})


def _known(old: Plan, inputs: Inputs) -> tuple[list[Plan], float]:
    """Give plans for about as many devices, and what no step on these devices is faster than, in seconds."""
    devices = inputs.cluster.entry.devices
    round_ = _round(devices, inputs.cluster.entry.devices_per_node)
    proved = old.search.proof != "given" and old.inputs.job.objective is Objective.TIME
    if proved and old.replica_batches is None and devices <= old.mesh.devices <= round_:
        return [], old.search.lower_bound
    entry = inputs.cluster.entry.model_copy(update={"devices": round_})
    job = inputs.job.model_copy(update={"top": RUNNERS_UP})
    cluster = inputs.cluster.model_copy(update={"entry": entry})
    found = plan_of(inputs.model_copy(update={"job": job, "cluster": cluster})).plan
    return [found], found.search.lower_bound


def _round(devices: int, node: int) -> int:
    """Give the least round number of devices from here up: nodes in a power of two, or three times one."""
    nodes = -(-devices // node)
    powers = [times * 2**power for times in (1, 3) for power in range(nodes.bit_length() + 1)]
    return devices if devices < node else node * min(number for number in powers if number >= nodes)


def _quickest(plans: Sequence[Plan], inputs: Inputs) -> list[Shape]:
    """Give the shapes of plans and their runners-up, and of variants of those, that are likely to be the fastest.

    Likely is what the layout takes for a sequence of a replica, times those of the busiest one.
    """
    found: dict[Shape, float] = {}
    for plan in plans:
        batch = plan.inputs.job.global_batch
        own = [(plan.layout, plan.predicted.step_time_s)]
        for section, step_s in (*own, *((other.layout, other.step_time_s) for other in plan.alternatives)):
            each_s = step_s * section.data_parallel / batch
            for shape in shapes(tuple(variants(section.layout())), inputs):
                likely_s = each_s * shape.sequences(inputs.job.global_batch)
                found[shape] = min(found.get(shape, math.inf), likely_s)
    return sorted(found, key=lambda shape: found[shape])[:LOOKED_INTO]


def _timed(possible: Sequence[Shape], inputs: Inputs) -> tuple[list[Timed], dict[str, int]]:
    """Give the step time of each shape that fits in memory, and how many don't."""
    limit, found = memory_limit_bytes(inputs), []
    for shape in possible:
        job = job_of(even_inputs(inputs, shape.layout, shape.batches), devices=shape.layout.world_size)
        table = LayoutTable.of([shape.layout])
        if significant_bytes(float(predict_memory(job, table).nvidia_smi_bytes[0])) <= limit:
            found.append((significant(float(predict_time(job, table).step_time_s[0])), shape))
    return found, {TOO_LARGE: len(possible) - len(found)} if len(found) < len(possible) else {}


def _searched(inputs: Inputs, *, slowest_s: float) -> list[Timed]:
    """Give the fastest layout whose replicas share the batch evenly, none where it's no faster than that."""
    question = replace(question_of(inputs), slowest_s=slowest_s)
    found = attempt([job_of(inputs, devices=number) for number in device_numbers(inputs)], question)
    if isinstance(found, Unfound):
        return []
    return [(significant(found.best.step_time_s), Shape(layout=found.best.layout, batches=None))]


def _search(timed: Sequence[Timed], rejected: Mapping[str, int], bound_s: float) -> SearchResult:
    return SearchResult(
        best=Found(layout=timed[0][1].layout, step_time_s=bound_s, peak_bytes=0.0),
        alternatives=(),
        candidates=len(timed) + sum(rejected.values()),
        feasible=len(timed),
        rejected=rejected,
        value=bound_s,
        lower_bound=bound_s,
    )


def _plan(shape: Shape, inputs: Inputs, search: SearchResult) -> Plan:
    """Make the plan of a shape: that of the even step that takes as long, with the batch as it is."""
    predicted = predicted_with(inputs, shape.layout, shape.batches)
    best = Found(layout=shape.layout, step_time_s=predicted.step_time_s, peak_bytes=0.0)
    result = SearchResult(
        best=best,
        alternatives=(),
        candidates=search.candidates,
        feasible=search.feasible,
        rejected=search.rejected,
        value=predicted.step_time_s,
        lower_bound=search.lower_bound,
    )
    even = even_inputs(inputs, shape.layout, shape.batches)
    # Faster than any even layout: the bound is then its own, and holds for nothing else.
    proof: Proof = "given" if result.value == result.lower_bound else "bounded"
    made = assembled(even, result, free=None, proof=proof)
    update = {"inputs": digested(inputs), "predicted": predicted, "replica_batches": shape.batches}
    return made.model_copy(update=update)


def _candidate(old: Plan, new: Plan, left: Left, storage_bytes_per_s: float | None) -> Candidate:
    """Weigh what moves: nothing of gradients, as a step that was cut short is run again."""
    seated = seats(old, new, left)
    move = moved(old, new, left, seated, storage_bytes_per_s=storage_bytes_per_s, balanced=False)
    return Candidate(plan=new, seats=seated, move=move)


def moved(
    old: Plan,
    new: Plan,
    left: Left,
    seated: IntArray,
    *,
    storage_bytes_per_s: float | None = None,
    balanced: bool = True,
) -> Reshard:
    """Solve what moves to ranks on these devices; `balanced` finds the least busy senders too. Raises SolverFailed."""
    entry = old.inputs.cluster.entry.model_copy(update={"devices": left.numbers})
    cluster = old.inputs.cluster.model_copy(update={"entry": entry})
    wide = old.model_copy(update={"inputs": old.inputs.model_copy(update={"cluster": cluster})})
    before = np.arange(old.mesh.devices)
    before[np.isin(before, left.lost)] = -1
    return resharded(
        transformer_of(old.inputs.model.entry),
        placement_of(old, gradients=False),
        placement_of(new, gradients=False),
        machines_of(wide, storage_bytes_per_s=storage_bytes_per_s),
        old_devices=before,
        new_devices=seated,
        balanced=balanced,
    )
